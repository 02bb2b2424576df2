//! Facts: what the journal holds and the index is folded from.

use super::{AcqId, AcquisitionFacts, ByteRange, Checksum, Sequence, TileId, TileKey, TileVersion};
use serde::{Deserialize, Serialize};

/// Where a record lies: segment, offset of the record's header in it, length of its payload. Bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
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
}

/// An acquisition was ended by its sender.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct AcquisitionEnded {
    /// The acquisition.
    pub acq: AcqId,
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
    /// A kind that this version does not know. Kept in the journal, counted, folded into nothing.
    Unknown {
        /// The kind's code.
        kind: u16,
    },
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

    /// Adds another tally's records.
    pub fn merge(&mut self, other: Tally) {
        self.records += other.records;
        self.digest ^= other.digest;
    }
}
