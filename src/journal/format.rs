//! The byte layout of segments and records, format version 1. Drawn byte by byte in schema/README.md.
//!
//! The only place that knows magic numbers, offsets and file names. All numbers are little-endian.

use crate::base::limits::BLOCK;
use crate::base::planted::{Bug, planted};
use crate::model::{
    AcqId, ByteRange, Checksum, ChecksumKind, FrameNumber, Sequence, Tally, TileId, TileKey, TileVersion,
};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// Format version that this program writes. A segment with a higher one is refused.
pub const FORMAT_MAJOR: u16 = 1;
/// 1: a tile's header says who sent it.
const FORMAT_MINOR: u16 = 1;

/// Length of a segment's header: one block.
pub const SEGMENT_HEADER_BYTES: usize = BLOCK;
/// Length of a record's header. A multiple of 64, so that the payload behind it stays aligned for FlatBuffers.
pub const RECORD_HEADER_BYTES: usize = 192;
/// Length of the trailer, the last block of a sealed segment.
pub const TRAILER_BYTES: usize = BLOCK;
/// File name of a swap's note, in the data directory.
pub const SWAP_NOTE_FILE: &str = "compaction";
/// Alignment of a record that shares a block with its predecessor of the same group commit.
pub const SHARED_ALIGNMENT: usize = 64;
/// The lane number of control records.
pub const CONTROL_LANE: u16 = u16::MAX;

const SEGMENT_MAGIC: [u8; 8] = *b"TILEJRNL";
const TRAILER_MAGIC: [u8; 8] = *b"TILEFOOT";
const STORE_MAGIC: [u8; 8] = *b"TILESTOR";
const SWAP_MAGIC: [u8; 8] = *b"TILESWAP";
const MARKER_PATTERN: [u8; 16] =
    [0xa5, 0x74, 0x69, 0x6c, 0x65, 0x72, 0x65, 0x63, 0x5a, 0xc3, 0x3c, 0x96, 0x69, 0xf0, 0x0f, 0x81];

/// No sequence, offset, tile or number of a segment comes this far. What says so is not ours, and adding to it could
/// leave the type.
const NUMBER_LIMIT: u64 = 1 << 63;
/// Nor is a record count: a segment would have to be longer than a file can be.
const RECORDS_LIMIT: u64 = NUMBER_LIMIT / RECORD_HEADER_BYTES as u64 / BLOCK as u64;

/// [`RECORD_HEADER_BYTES`] as it is written into each record header.
const HEADER_LENGTH_FIELD: u16 = 192;

const _: () = assert!(HEADER_LENGTH_FIELD as usize == RECORD_HEADER_BYTES);
const _: () = assert!(RECORD_HEADER_BYTES.is_multiple_of(SHARED_ALIGNMENT));
const _: () = assert!(BLOCK.is_multiple_of(SHARED_ALIGNMENT));

/// Identity of a data directory: every segment in it carries it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreId(pub [u8; 16]);

/// First block of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// The data directory.
    pub store: StoreId,
    /// This segment; records' markers are derived from it.
    pub uuid: [u8; 16],
    /// Number of the segment, as in its file name.
    pub number: u64,
    /// The lane that wrote it.
    pub lane: u16,
    /// When it was made, ns since 1970 UTC.
    pub created_ns: i64,
}

/// What a record is. Codes below 0x100 are tiles, others control facts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RecordKind(pub u16);

impl RecordKind {
    /// A tile: the payload is the wire frame as received, without its length prefix.
    pub const TILE: RecordKind = RecordKind(1);
    /// JSON of an `AcquisitionStarted`.
    pub const ACQUISITION_STARTED: RecordKind = RecordKind(0x101);
    /// JSON of an `AcquisitionEnded`.
    pub const ACQUISITION_ENDED: RecordKind = RecordKind(0x102);
    /// JSON of a `RoisCreated`.
    pub const ROIS_CREATED: RecordKind = RecordKind(0x103);
    /// A file of an acquisition: u32 length, JSON of a `FileStored` of that length, the file's bytes.
    pub const FILE_STORED: RecordKind = RecordKind(0x104);
    /// JSON of a `StatesChanged`.
    pub const STATES_CHANGED: RecordKind = RecordKind(0x105);
    /// JSON of a `CalibrationsImported`.
    pub const CALIBRATIONS_IMPORTED: RecordKind = RecordKind(0x106);
    /// JSON of a `TemcaConfigured`.
    pub const TEMCA_CONFIGURED: RecordKind = RecordKind(0x107);
    /// JSON of an `AcquisitionDeleted`.
    pub const ACQUISITION_DELETED: RecordKind = RecordKind(0x108);
    /// JSON of a `ManifestMade`.
    pub const MANIFEST_MADE: RecordKind = RecordKind(0x109);
    /// JSON of a `TilesJudged`.
    pub const TILES_JUDGED: RecordKind = RecordKind(0x10a);
    /// JSON of a `NumbersGiven`.
    pub const NUMBERS_GIVEN: RecordKind = RecordKind(0x10b);
}

/// What a tile's record header says beyond the record itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TileStamp {
    /// Identifier.
    pub id: TileId,
    /// Key.
    pub key: TileKey,
    /// Camera index.
    pub camera: i32,
    /// Version of the content.
    pub version: TileVersion,
    /// The image in the payload.
    pub image: ByteRange,
    /// CRC-32 of the image.
    pub image_crc: u32,
    /// The sender's checksum.
    pub checksum: Checksum,
    /// Who sent it; nobody: written by a program that did not record it.
    pub peer: Option<SocketAddr>,
}

/// A record's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordHeader {
    /// What the record is.
    pub kind: RecordKind,
    /// Its place in the journal's order.
    pub sequence: Sequence,
    /// Its own offset in the segment.
    pub offset: u64,
    /// Length of the payload.
    pub payload_len: u32,
    /// CRC-32 of the payload.
    pub payload_crc: u32,
    /// The highest sequence of this lane that was synced when this header was made.
    pub durable: Sequence,
    /// When the record's content arrived, ns since 1970 UTC.
    pub received_ns: i64,
    /// For tiles.
    pub tile: Option<TileStamp>,
}

/// The last block of a sealed segment: where the table of records is, and sums over it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Trailer {
    /// Offset of the table: a copy of every record header, back to back.
    pub table_offset: u64,
    /// Number of records in the table.
    pub records: u64,
    /// CRC-32 of the table.
    pub table_crc: u32,
    /// Lowest sequence.
    pub first: Sequence,
    /// Highest sequence.
    pub last: Sequence,
    /// Highest tile identifier, 0 without tiles.
    pub max_tile: u64,
    /// Exclusive or of the records' digests.
    pub digest: u64,
    /// Bytes of all payloads.
    pub payload_bytes: u64,
}

/// The note that one segment is about to take the place of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SwapNote {
    /// The data directory.
    pub store: StoreId,
    /// The lane of both.
    pub lane: u16,
    /// Number of the segment that is replaced.
    pub old: u64,
    /// Number of the one that replaces it.
    pub new: u64,
}

/// Why a segment's first block is not a header that this program can use.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum BadSegmentHeader {
    /// Magic or checksum do not hold.
    #[error("the segment header is damaged")]
    Damaged,
    /// Written by a newer program.
    #[error("written in format version {0}, this program knows up to {FORMAT_MAJOR}: use a newer tilecatcher")]
    Newer(u16),
    /// Uses features that this program does not know.
    #[error("uses features (flags {0:#x}) that this program does not know: use a newer tilecatcher")]
    Incompatible(u32),
}

/// File name of a segment: number in 16 hex digits, lane in 4.
#[must_use]
pub fn segment_file_name(number: u64, lane: u16) -> String {
    format!("{number:016x}-{lane:04x}.tcj")
}

/// Number and lane of a segment's file name.
#[must_use]
pub fn parse_segment_file_name(name: &str) -> Option<(u64, u16)> {
    let (number, lane) = name.strip_suffix(".tcj")?.split_once('-')?;
    if number.len() != 16 || lane.len() != 4 {
        return None;
    }
    let number = u64::from_str_radix(number, 16).ok().filter(|number| *number < NUMBER_LIMIT)?;
    Some((number, u16::from_str_radix(lane, 16).ok()?))
}

/// File name of a compacted segment before its swap. Must not be a segment's name: nobody reads it.
#[must_use]
pub fn copy_file_name(number: u64, lane: u16) -> String {
    format!("{}.new", segment_file_name(number, lane))
}

/// Number and lane of a file made by [`copy_file_name`].
#[must_use]
pub fn parse_copy_file_name(name: &str) -> Option<(u64, u16)> {
    parse_segment_file_name(name.strip_suffix(".new")?)
}

impl SegmentHeader {
    /// The first block.
    #[must_use]
    pub fn encode(&self) -> [u8; SEGMENT_HEADER_BYTES] {
        let mut block = [0; SEGMENT_HEADER_BYTES];
        let mut put = Put(&mut block);
        put.at(0, &SEGMENT_MAGIC);
        put.at(8, &FORMAT_MAJOR.to_le_bytes());
        put.at(10, &FORMAT_MINOR.to_le_bytes());
        // 12..16 compatible features, 16..20 incompatible features: none yet.
        put.at(20, &self.lane.to_le_bytes());
        put.at(24, &self.number.to_le_bytes());
        put.at(32, &self.store.0);
        put.at(48, &self.uuid);
        put.at(64, &self.created_ns.to_le_bytes());
        seal_block(&mut block);
        block
    }

    /// Reads the first block.
    ///
    /// # Errors
    /// Damage, a newer format, unknown incompatible features.
    pub fn decode(block: &[u8]) -> Result<Self, BadSegmentHeader> {
        if block.len() < SEGMENT_HEADER_BYTES || block[..8] != SEGMENT_MAGIC || !block_holds(block) {
            return Err(BadSegmentHeader::Damaged);
        }
        let major = u16::from_le_bytes(get(block, 8));
        if major > FORMAT_MAJOR {
            return Err(BadSegmentHeader::Newer(major));
        }
        match u32::from_le_bytes(get(block, 16)) {
            0 => {}
            flags => return Err(BadSegmentHeader::Incompatible(flags)),
        }
        Ok(Self {
            store: StoreId(get(block, 32)),
            uuid: get(block, 48),
            number: u64::from_le_bytes(get(block, 24)),
            lane: u16::from_le_bytes(get(block, 20)),
            created_ns: i64::from_le_bytes(get(block, 64)),
        })
    }

    /// The 16 bytes that every record of this segment starts with.
    #[must_use]
    pub fn marker(&self) -> [u8; 16] {
        mask(self.uuid)
    }
}

/// Turns a segment's identity into its marker, and back.
fn mask(mut bytes: [u8; 16]) -> [u8; 16] {
    for (byte, pattern) in bytes.iter_mut().zip(MARKER_PATTERN) {
        *byte ^= pattern;
    }
    bytes
}

impl RecordHeader {
    /// The identity of the segment whose record stands at `offset`, for a segment whose header is lost.
    #[must_use]
    pub fn segment_identity(bytes: &[u8], offset: u64) -> Option<[u8; 16]> {
        let header = Self::decode_unplaced(bytes)?;
        (header.offset == offset).then(|| mask(get(bytes, 0)))
    }

    /// Writes the header to the front of `bytes`, for the segment with this marker.
    ///
    /// # Panics
    /// `bytes` is shorter than a header.
    pub fn encode(&self, marker: &[u8; 16], bytes: &mut [u8]) {
        let bytes = &mut bytes[..RECORD_HEADER_BYTES];
        bytes.fill(0);
        let mut put = Put(bytes);
        put.at(0, marker);
        put.at(16, &FORMAT_MAJOR.to_le_bytes());
        put.at(18, &HEADER_LENGTH_FIELD.to_le_bytes());
        put.at(20, &self.kind.0.to_le_bytes());
        put.at(24, &self.sequence.0.to_le_bytes());
        put.at(32, &self.offset.to_le_bytes());
        put.at(40, &u64::from(self.payload_len).to_le_bytes());
        put.at(48, &self.durable.0.to_le_bytes());
        put.at(56, &self.received_ns.to_le_bytes());
        put.at(64, &self.payload_crc.to_le_bytes());
        if let Some(tile) = &self.tile {
            tile.encode(&mut put);
        }
        let crc = crc32fast::hash(&bytes[..RECORD_HEADER_BYTES - 4]);
        bytes[RECORD_HEADER_BYTES - 4..].copy_from_slice(&crc.to_le_bytes());
    }

    /// Reads the header that should stand at `offset` of the segment with this marker. `None` for anything else.
    #[must_use]
    pub fn decode(bytes: &[u8], marker: &[u8; 16], offset: u64) -> Option<Self> {
        let bytes = bytes.get(..RECORD_HEADER_BYTES)?;
        if bytes[..16] != marker[..] {
            return None;
        }
        let header = Self::decode_unplaced(bytes)?;
        (header.offset == offset).then_some(header)
    }

    /// Reads a header wherever it was copied to: from a table of records.
    #[must_use]
    pub fn decode_unplaced(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.get(..RECORD_HEADER_BYTES)?;
        let crc = u32::from_le_bytes(get(bytes, RECORD_HEADER_BYTES - 4));
        let length = u16::from_le_bytes(get(bytes, 18));
        let version = u16::from_le_bytes(get(bytes, 16));
        let shaped = usize::from(length) == RECORD_HEADER_BYTES && version <= FORMAT_MAJOR;
        let whole = crc32fast::hash(&bytes[..RECORD_HEADER_BYTES - 4]) == crc || planted(Bug::HeaderWithoutCrc);
        if !whole || !shaped {
            return None;
        }
        let kind = RecordKind(u16::from_le_bytes(get(bytes, 20)));
        let tile = if kind == RecordKind::TILE { Some(TileStamp::decode(bytes)?) } else { None };
        let number = |at| Some(u64::from_le_bytes(get(bytes, at))).filter(|number| *number < NUMBER_LIMIT);
        Some(Self {
            kind,
            sequence: Sequence(number(24)?),
            offset: number(32)?,
            payload_len: u32::try_from(number(40)?).ok()?,
            durable: Sequence(number(48)?),
            received_ns: i64::from_le_bytes(get(bytes, 56)),
            payload_crc: u32::from_le_bytes(get(bytes, 64)),
            tile,
        })
    }

    /// Header and payload, without padding. Bytes.
    #[must_use]
    pub fn occupied(&self) -> u64 {
        RECORD_HEADER_BYTES as u64 + u64::from(self.payload_len)
    }

    /// Offset of the first block behind this record.
    #[must_use]
    pub fn next_block(&self) -> u64 {
        (self.offset + self.occupied()).next_multiple_of(BLOCK as u64)
    }

    /// The record's contribution to a tally.
    #[must_use]
    pub fn digest(&self) -> u64 {
        Tally::digest_of(self.sequence, self.payload_crc)
    }
}

impl TileStamp {
    fn encode(&self, put: &mut Put<'_>) {
        put.at(68, &self.image_crc.to_le_bytes());
        put.at(72, &self.image.offset.to_le_bytes());
        put.at(76, &self.image.len.to_le_bytes());
        put.at(80, &self.key.acq.0.to_le_bytes());
        put.at(88, &self.id.0.to_le_bytes());
        put.at(96, &self.key.col.to_le_bytes());
        put.at(100, &self.key.row.to_le_bytes());
        put.at(104, &self.key.frame.0.to_le_bytes());
        put.at(108, &self.camera.to_le_bytes());
        put.at(112, &self.version.0.to_le_bytes());
        put.at(116, &[self.checksum.kind() as u8]);
        put.at(120, &self.checksum.to_field());
        if let Some(peer) = self.peer {
            let ip = match peer.ip() {
                IpAddr::V4(ip) => ip.to_ipv6_mapped(),
                IpAddr::V6(ip) => ip,
            };
            put.at(152, &ip.octets());
            put.at(168, &peer.port().to_le_bytes());
        }
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let kind = ChecksumKind::from_code(bytes[116])?;
        Some(Self {
            id: Some(TileId(u64::from_le_bytes(get(bytes, 88)))).filter(|id| id.0 < TileId::LIMIT)?,
            key: TileKey {
                acq: AcqId(u64::from_le_bytes(get(bytes, 80))),
                col: u32::from_le_bytes(get(bytes, 96)),
                row: u32::from_le_bytes(get(bytes, 100)),
                frame: FrameNumber(i32::from_le_bytes(get(bytes, 104))),
            },
            camera: i32::from_le_bytes(get(bytes, 108)),
            version: TileVersion(u32::from_le_bytes(get(bytes, 112))),
            image: ByteRange { offset: u32::from_le_bytes(get(bytes, 72)), len: u32::from_le_bytes(get(bytes, 76)) },
            image_crc: u32::from_le_bytes(get(bytes, 68)),
            checksum: Checksum::from_wire(&bytes[120..120 + kind.len()]).ok()?,
            peer: bytes[152..170].iter().any(|byte| *byte != 0).then(|| {
                let ip = Ipv6Addr::from(get::<16>(bytes, 152)).to_canonical();
                SocketAddr::new(ip, u16::from_le_bytes(get(bytes, 168)))
            }),
        })
    }
}

impl Trailer {
    /// Takes account of one record.
    pub fn add(&mut self, header: &RecordHeader) {
        if self.records == 0 {
            self.first = header.sequence;
        }
        self.records += 1;
        self.first = self.first.min(header.sequence);
        self.last = self.last.max(header.sequence);
        self.max_tile = self.max_tile.max(header.tile.map_or(0, |tile| tile.id.0));
        self.digest ^= header.digest();
        self.payload_bytes += u64::from(header.payload_len);
    }

    /// Count and digest of the segment's records.
    #[must_use]
    pub fn tally(&self) -> Tally {
        Tally { records: self.records, digest: self.digest }
    }

    /// The last block of the segment with this header.
    #[must_use]
    pub fn encode(&self, segment: &SegmentHeader) -> [u8; TRAILER_BYTES] {
        let mut block = [0; TRAILER_BYTES];
        let mut put = Put(&mut block);
        put.at(0, &TRAILER_MAGIC);
        put.at(8, &FORMAT_MAJOR.to_le_bytes());
        put.at(16, &segment.store.0);
        put.at(32, &segment.uuid);
        let numbers = [
            self.table_offset,
            self.records,
            self.first.0,
            self.last.0,
            self.max_tile,
            self.digest,
            self.payload_bytes,
            u64::from(self.table_crc),
        ];
        for (n, number) in numbers.into_iter().enumerate() {
            put.at(48 + 8 * n, &number.to_le_bytes());
        }
        seal_block(&mut block);
        block
    }

    /// The data directory and the segment that a trailer belongs to, for a segment whose header is lost.
    #[must_use]
    pub fn identity(block: &[u8]) -> Option<(StoreId, [u8; 16])> {
        let whole = block.len() >= TRAILER_BYTES && block[..8] == TRAILER_MAGIC && block_holds(block);
        (whole && u16::from_le_bytes(get(block, 8)) <= FORMAT_MAJOR).then(|| (StoreId(get(block, 16)), get(block, 32)))
    }

    /// Reads the last block of the segment with this header. `None` when it is not sealed, or the block is damaged.
    #[must_use]
    pub fn decode(block: &[u8], segment: &SegmentHeader) -> Option<Self> {
        if Self::identity(block)? != (segment.store, segment.uuid) {
            return None;
        }
        let any = |n: usize| u64::from_le_bytes(get(block, 48 + 8 * n));
        let number = |n| Some(any(n)).filter(|number| *number < NUMBER_LIMIT);
        let trailer = Self {
            table_offset: number(0)?,
            records: number(1).filter(|records| *records < RECORDS_LIMIT)?,
            first: Sequence(number(2)?),
            last: Sequence(number(3)?),
            max_tile: number(4)?,
            digest: any(5),
            payload_bytes: number(6)?,
            table_crc: u32::try_from(any(7)).ok()?,
        };
        (trailer.records == 0 || trailer.first <= trailer.last).then_some(trailer)
    }
}

/// The store file: one block that gives the data directory its identity.
#[must_use]
pub fn encode_store_block(store: StoreId) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    let mut put = Put(&mut block);
    put.at(0, &STORE_MAGIC);
    put.at(8, &FORMAT_MAJOR.to_le_bytes());
    put.at(32, &store.0);
    seal_block(&mut block);
    block
}

/// Reads the store file's block. `None` when it is damaged or was never written.
#[must_use]
pub fn decode_store_block(block: &[u8]) -> Option<StoreId> {
    let whole = block.len() >= BLOCK && block[..8] == STORE_MAGIC && block_holds(&block[..BLOCK]);
    (whole && u16::from_le_bytes(get(block, 8)) <= FORMAT_MAJOR).then(|| StoreId(get(block, 32)))
}

/// The format version of a store file's or a note's block. `None` when it is damaged, or neither.
#[must_use]
pub fn block_version(block: &[u8]) -> Option<u16> {
    let whole =
        block.len() >= BLOCK && [STORE_MAGIC, SWAP_MAGIC].contains(&get(block, 0)) && block_holds(&block[..BLOCK]);
    whole.then(|| u16::from_le_bytes(get(block, 8)))
}

impl SwapNote {
    /// The note's only block.
    #[must_use]
    pub fn encode(&self) -> [u8; BLOCK] {
        let mut block = [0; BLOCK];
        let mut put = Put(&mut block);
        put.at(0, &SWAP_MAGIC);
        put.at(8, &FORMAT_MAJOR.to_le_bytes());
        put.at(10, &self.lane.to_le_bytes());
        put.at(16, &self.store.0);
        put.at(32, &self.old.to_le_bytes());
        put.at(40, &self.new.to_le_bytes());
        seal_block(&mut block);
        block
    }

    /// Reads a note. `None` when it is damaged, was never written whole, or is a newer program's.
    #[must_use]
    pub fn decode(block: &[u8]) -> Option<Self> {
        let whole = block.len() >= BLOCK && block[..8] == SWAP_MAGIC && block_holds(&block[..BLOCK]);
        (whole && u16::from_le_bytes(get(block, 8)) <= FORMAT_MAJOR).then(|| Self {
            store: StoreId(get(block, 16)),
            lane: u16::from_le_bytes(get(block, 10)),
            old: u64::from_le_bytes(get(block, 32)),
            new: u64::from_le_bytes(get(block, 40)),
        })
    }
}

struct Put<'a>(&'a mut [u8]);

impl Put<'_> {
    fn at(&mut self, offset: usize, bytes: &[u8]) {
        self.0[offset..offset + bytes.len()].copy_from_slice(bytes);
    }
}

fn get<const N: usize>(bytes: &[u8], offset: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[offset..offset + N]);
    out
}

/// Writes a block's CRC-32 into its last four bytes.
fn seal_block(block: &mut [u8; BLOCK]) {
    let crc = crc32fast::hash(&block[..BLOCK - 4]);
    block[BLOCK - 4..].copy_from_slice(&crc.to_le_bytes());
}

fn block_holds(block: &[u8]) -> bool {
    crc32fast::hash(&block[..BLOCK - 4]) == u32::from_le_bytes(get(block, BLOCK - 4))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment() -> SegmentHeader {
        SegmentHeader { store: StoreId([1; 16]), uuid: [2; 16], number: 77, lane: 3, created_ns: -5 }
    }

    fn record() -> RecordHeader {
        RecordHeader {
            kind: RecordKind::TILE,
            sequence: Sequence(9),
            offset: 8192,
            payload_len: 5000,
            payload_crc: 0x1234_5678,
            durable: Sequence(8),
            received_ns: 1_700_000_000_000_000_000,
            tile: Some(TileStamp {
                id: TileId(55),
                key: TileKey { acq: AcqId(u64::MAX), col: 1, row: 2, frame: FrameNumber::STABLE },
                camera: -3,
                version: TileVersion(4),
                image: ByteRange { offset: 100, len: 4900 },
                image_crc: 7,
                checksum: Checksum::Md5([9; 16]),
                peer: Some(SocketAddr::from(([10, 0, 0, 7], 50_123))),
            }),
        }
    }

    #[test]
    fn file_names_carry_number_and_lane() {
        let name = segment_file_name(0xabc, CONTROL_LANE);
        assert_eq!(name, "0000000000000abc-ffff.tcj");
        assert_eq!(parse_segment_file_name(&name), Some((0xabc, CONTROL_LANE)));
        assert_eq!(parse_segment_file_name("abc-ffff.tcj"), None);
    }

    #[test]
    fn a_copys_name_is_no_segments_name() {
        let name = copy_file_name(0xabc, 3);
        assert_eq!(name, "0000000000000abc-0003.tcj.new");
        assert_eq!((parse_segment_file_name(&name), parse_copy_file_name(&name)), (None, Some((0xabc, 3))));
        assert_eq!(parse_copy_file_name(&segment_file_name(0xabc, 3)), None);
    }

    #[test]
    fn swap_note_survives_and_any_flipped_bit_or_missing_byte_is_found() {
        let note = SwapNote { store: StoreId([1; 16]), lane: CONTROL_LANE, old: 7, new: u64::MAX };
        let block = note.encode();
        assert_eq!(SwapNote::decode(&block), Some(note));
        for bit in 0..block.len() * 8 {
            let mut damaged = block;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(SwapNote::decode(&damaged), None, "bit {bit}");
        }
        for len in 0..block.len() {
            assert_eq!(SwapNote::decode(&block[..len]), None, "{len} bytes");
        }
        assert_eq!(SwapNote::decode(&[0; BLOCK]), None, "made, never written");
        let mut newer = block;
        newer[8] = 2;
        seal_block(&mut newer);
        assert_eq!(SwapNote::decode(&newer), None, "a newer program's");
    }

    #[test]
    fn segment_header_survives_and_any_flipped_bit_is_found() {
        let block = segment().encode();
        assert_eq!(SegmentHeader::decode(&block), Ok(segment()));
        for bit in 0..block.len() * 8 {
            let mut damaged = block;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(SegmentHeader::decode(&damaged), Err(BadSegmentHeader::Damaged), "bit {bit}");
        }
    }

    #[test]
    fn a_newer_format_is_named_not_read() {
        let mut block = segment().encode();
        block[8] = 2;
        seal_block(&mut block);
        assert_eq!(SegmentHeader::decode(&block), Err(BadSegmentHeader::Newer(2)));
        let mut block = segment().encode();
        block[16] = 1;
        seal_block(&mut block);
        assert_eq!(SegmentHeader::decode(&block), Err(BadSegmentHeader::Incompatible(1)));
    }

    #[test]
    fn record_header_survives_and_is_bound_to_segment_and_offset() {
        let marker = segment().marker();
        let mut bytes = [0xee; RECORD_HEADER_BYTES];
        record().encode(&marker, &mut bytes);
        assert_eq!(RecordHeader::decode(&bytes, &marker, 8192), Some(record()));
        assert_eq!(RecordHeader::decode(&bytes, &marker, 4096), None, "moved");
        assert_eq!(RecordHeader::decode(&bytes, &[0; 16], 8192), None, "another segment's");
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(RecordHeader::decode(&damaged, &marker, 8192), None, "bit {bit}");
        }
    }

    /// All with a checksum that holds: these are made, not damaged, and adding to them would leave the type.
    #[test]
    fn numbers_that_nothing_comes_to_are_not_read() {
        let marker = segment().marker();
        let read = |header: RecordHeader| {
            let mut bytes = [0; RECORD_HEADER_BYTES];
            header.encode(&marker, &mut bytes);
            RecordHeader::decode(&bytes, &marker, header.offset)
        };
        let tile = TileStamp { id: TileId(TileId::LIMIT), ..record().tile.expect("a tile") };
        for header in [
            RecordHeader { sequence: Sequence(u64::MAX), ..record() },
            RecordHeader { durable: Sequence(1 << 63), ..record() },
            RecordHeader { offset: u64::MAX - 4095, ..record() },
            RecordHeader { tile: Some(tile), ..record() },
        ] {
            assert_eq!(read(header), None, "{header:?}");
        }
        let mut whole = Trailer { table_offset: 12_288, table_crc: 5, ..Trailer::default() };
        whole.add(&record());
        for trailer in [
            Trailer { table_offset: u64::MAX, ..whole },
            Trailer { records: u64::MAX / 192, ..whole },
            Trailer { first: Sequence(u64::MAX), ..whole },
            Trailer { last: Sequence(u64::MAX), ..whole },
            Trailer { max_tile: u64::MAX, ..whole },
            Trailer { payload_bytes: u64::MAX, ..whole },
        ] {
            assert_eq!(Trailer::decode(&trailer.encode(&segment()), &segment()), None, "{trailer:?}");
        }
        assert_eq!(parse_segment_file_name("ffffffffffffffff-0000.tcj"), None);
    }

    #[test]
    fn trailer_survives_and_is_bound_to_its_segment() {
        let mut trailer = Trailer { table_offset: 12_288, table_crc: 5, ..Trailer::default() };
        trailer.add(&record());
        let block = trailer.encode(&segment());
        assert_eq!(Trailer::decode(&block, &segment()), Some(trailer));
        assert_eq!(Trailer::decode(&block, &SegmentHeader { uuid: [3; 16], ..segment() }), None);
        assert_eq!((trailer.first, trailer.last, trailer.max_tile), (Sequence(9), Sequence(9), 55));
    }
}
