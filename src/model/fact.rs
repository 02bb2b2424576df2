//! Facts: what the journal holds and the index is folded from.

use super::{
    AcqId, AcquisitionFacts, AncillaryKind, ByteRange, Calibration, Checksum, Roi, RoiCells, Sequence, Temca, TileId,
    TileKey, TileVersion, TilesJudged,
};
use serde::{Deserialize, Serialize};

/// Where a record lies: segment, offset of the record's header in it, length of its payload. Bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct Location {
    /// Number of the segment.
    pub segment: u64,
    /// Offset of the record header in the segment.
    pub offset: u64,
    /// Length of the payload, which follows the header.
    pub payload_len: u32,
}

/// One stored tile version: everything that is known of it without reading its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TileEntry {
    /// The tile's identifier; the same for all versions of a key.
    pub id: TileId,
    /// The tile's key.
    pub key: TileKey,
    /// Camera index.
    pub camera: i32,
    /// Version of the content.
    pub version: TileVersion,
    /// The record.
    pub location: Location,
    /// The image in the payload.
    pub image: ByteRange,
    /// CRC-32 of the image.
    pub image_crc: u32,
    /// CRC-32 of the whole payload.
    pub payload_crc: u32,
    /// The sender's checksum of the image.
    pub checksum: Checksum,
    /// When the last byte arrived, ns since 1970 UTC.
    pub received_ns: i64,
    /// The record's place in the journal's order.
    pub sequence: Sequence,
}

/// An acquisition was started, or started again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AcquisitionStarted {
    /// The acquisition.
    pub acq: AcqId,
    /// Base name of the log file.
    pub log_name: String,
    /// What the log says.
    pub facts: AcquisitionFacts,
    /// The log as it was sent; bytes that are not UTF-8 are replaced.
    pub log_text: String,
    /// The TEMCA that the log's IP address stood for when it was started; 0 when it was not known.
    #[serde(default)]
    pub temca: u32,
}

/// An acquisition was ended by its sender.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct AcquisitionEnded {
    /// The acquisition.
    pub acq: AcqId,
}

/// ROIs of an acquisition, with the places that lie in them. Those that it has already keep what they are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RoisCreated {
    /// The acquisition.
    pub acq: AcqId,
    /// The ROIs, each with the places (column, row) of its stable tiles.
    pub rois: Vec<(Roi, Vec<(u32, u32)>)>,
}

/// A file that belongs to an acquisition. The record's payload holds its bytes behind this description.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileStored {
    /// The acquisition.
    pub acq: AcqId,
    /// Base name of the file.
    pub name: String,
    /// The path or name with which it was sent.
    pub path: String,
    /// What it is, by its suffix.
    pub kind: AncillaryKind,
    /// Length, bytes.
    pub len: u64,
    /// CRC-32 of its bytes.
    pub crc: u32,
}

/// When tiles that nobody has finished return to an earlier state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// ns since 1970 UTC.
    pub until_ns: i64,
    /// The state to which they return.
    pub back_to: String,
}

/// ROI tiles have another state now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatesChanged {
    /// The new state.
    pub to: String,
    /// Which tiles.
    pub tiles: Vec<RoiCells>,
    /// Set when they are lent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<Lease>,
}

/// Calibrations were imported, all or none; each becomes the transformation of its camera.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CalibrationsImported {
    /// The calibrations; of one name the latest counts.
    pub calibrations: Vec<Calibration>,
}

/// A TEMCA is described, or described anew.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TemcaConfigured {
    /// The description.
    pub temca: Temca,
}

/// An acquisition was deleted: everything of it with a lower sequence is dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AcquisitionDeleted {
    /// The acquisition.
    pub acq: AcqId,
    /// The first tile identifier that had not been given then: none below it is ever given again.
    pub next_tile: u64,
}

/// The manifest of an acquisition at its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestMade {
    /// The acquisition.
    pub acq: AcqId,
    /// Number of tiles in it.
    pub tiles: u64,
    /// Merkle root, hex.
    pub root: String,
}

/// Numbers that had been given when records were found to be lost: none of them is ever given again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NumbersGiven {
    /// The highest sequence.
    pub sequence: Sequence,
    /// The first tile identifier that had not been given.
    pub next_tile: u64,
    /// The highest number of a segment.
    pub segment: u64,
}

/// What a record says. One variant per kind of fact.
#[derive(Clone, Debug, PartialEq)]
pub enum FactBody {
    /// A tile's content was stored.
    TileStored(TileEntry),
    /// An acquisition was started.
    AcquisitionStarted(Box<AcquisitionStarted>),
    /// An acquisition was ended.
    AcquisitionEnded(AcquisitionEnded),
    /// ROIs were created.
    RoisCreated(Box<RoisCreated>),
    /// A file was stored.
    FileStored(Box<FileStored>),
    /// ROI tiles have another state.
    StatesChanged(Box<StatesChanged>),
    /// Calibrations were imported.
    CalibrationsImported(Box<CalibrationsImported>),
    /// A TEMCA was described.
    TemcaConfigured(Box<TemcaConfigured>),
    /// An acquisition was deleted.
    AcquisitionDeleted(AcquisitionDeleted),
    /// A manifest was made.
    ManifestMade(Box<ManifestMade>),
    /// Tiles were judged by their pixels.
    TilesJudged(Box<TilesJudged>),
    /// Records were lost whose numbers are not given again.
    NumbersGiven(NumbersGiven),
    /// A kind that this version does not know. Kept in the journal, counted, folded into nothing.
    Unknown {
        /// The kind's code.
        kind: u16,
    },
    /// A record that can not be read now. Folded into nothing; what it says is missing until it can be.
    Unread,
}

/// A record as the index sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct Fact {
    /// Its place in the journal's order.
    pub sequence: Sequence,
    /// When it was recorded, ns since 1970 UTC.
    pub at_ns: i64,
    /// The record's contribution to the [`Tally`].
    pub digest: u64,
    /// Where its record lies.
    pub location: Location,
    /// What it says.
    pub body: FactBody,
}

/// Count and digest of a set of records: equal tallies mean equal sets, in whatever order they were added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Tally {
    /// Number of records.
    pub records: u64,
    /// Exclusive or of the records' digests.
    pub digest: u64,
}

impl Tally {
    /// The digest of one record. Names no location, so that moving a record changes nothing.
    #[must_use]
    pub fn digest_of(sequence: Sequence, payload_crc: u32) -> u64 {
        let mut x = sequence.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (u64::from(payload_crc) << 17);
        x = (x ^ (x >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x ^ (x >> 32)
    }

    /// Adds one record.
    pub fn add(&mut self, digest: u64) {
        self.records += 1;
        self.digest ^= digest;
    }

    /// Takes one record out again.
    pub fn remove(&mut self, digest: u64) {
        self.records -= 1;
        self.digest ^= digest;
    }

    /// Adds another tally's records.
    pub fn merge(&mut self, other: Tally) {
        self.records += other.records;
        self.digest ^= other.digest;
    }
}
