//! Reading segments: the table of a sealed one, a scan of any, payloads with their checksums.
//!
//! Read-only. Never decides what to do about damage: it reports what it saw.

use super::filesystem::SegmentFile;
use super::format::{
    CONTROL_LANE, RECORD_HEADER_BYTES, RecordHeader, SEGMENT_HEADER_BYTES, SHARED_ALIGNMENT, SegmentHeader,
    TRAILER_BYTES, Trailer,
};
use crate::base::limits::BLOCK;
use crate::model::{Location, Sequence};
use std::io;

/// Bytes read at a time when searching for a record behind damage, and when checking a payload.
pub(super) const READ_STEP: usize = if cfg!(fuzzing) { 16 << 10 } else { 1 << 20 };

/// A record and the segment it lies in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredRecord {
    /// The record's header.
    pub header: RecordHeader,
    /// Number of its segment.
    pub segment: u64,
}

impl StoredRecord {
    /// Where the record lies.
    #[must_use]
    pub fn location(&self) -> Location {
        Location { segment: self.segment, offset: self.header.offset, payload_len: self.header.payload_len }
    }
}

/// Why a record could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The operating system says no.
    #[error("segment {segment:x} at offset {offset}: {source}")]
    Io {
        /// The segment.
        segment: u64,
        /// Where.
        offset: u64,
        /// Its answer.
        source: io::Error,
    },
    /// The bytes are not what was stored.
    #[error("segment {segment:x} at offset {offset}: {what}")]
    Damaged {
        /// The segment.
        segment: u64,
        /// Where.
        offset: u64,
        /// What does not hold.
        what: &'static str,
    },
    /// There is no such segment.
    #[error("segment {0:x} is not in the journal")]
    Missing(u64),
}

impl ReadError {
    /// What is wrong, without the place.
    #[must_use]
    pub fn what(&self) -> String {
        match self {
            Self::Io { source, .. } => format!("can not be read: {source}"),
            Self::Damaged { what, .. } => (*what).to_owned(),
            Self::Missing(_) => "its segment is not in the journal".to_owned(),
        }
    }
}

/// What a scan of a segment found.
#[derive(Debug, Default)]
pub(super) struct Scan {
    /// Records whose header holds, in order of their offset.
    pub(super) records: Vec<RecordHeader>,
    /// Runs of blocks between records, or behind the last one and not zero: offset and length.
    pub(super) gaps: Vec<(u64, u64)>,
}

impl Scan {
    /// The lowest sequence, 0 without records.
    pub(super) fn first(&self) -> Sequence {
        self.records.iter().map(|record| record.sequence).min().unwrap_or_default()
    }

    /// The highest sequence, 0 without records.
    pub(super) fn last(&self) -> Sequence {
        self.records.iter().map(|record| record.sequence).max().unwrap_or_default()
    }

    /// The highest sequence that some record vouches for as synced.
    pub(super) fn vouched(&self) -> Sequence {
        self.records.iter().map(|record| record.durable).max().unwrap_or_default()
    }
}

/// Reads the trailer of a segment. `None` when it is not sealed or the trailer is damaged.
pub(super) fn read_trailer(file: &dyn SegmentFile, segment: &SegmentHeader) -> io::Result<Option<Trailer>> {
    let len = file.length()?;
    let Some(at) = len.checked_sub(TRAILER_BYTES as u64) else { return Ok(None) };
    let mut block = [0; TRAILER_BYTES];
    if file.read_at(&mut block, at)? < TRAILER_BYTES {
        return Ok(None);
    }
    Ok(Trailer::decode(&block, segment))
}

/// Reads the table of a sealed segment. `None` when it does not hold.
pub(super) fn read_table(file: &dyn SegmentFile, trailer: &Trailer) -> io::Result<Option<Vec<RecordHeader>>> {
    let Some(len) = usize::try_from(trailer.records).ok().and_then(|n| n.checked_mul(RECORD_HEADER_BYTES)) else {
        return Ok(None);
    };
    if trailer.table_offset + len as u64 > file.length()? {
        return Ok(None);
    }
    let mut table = vec![0; len];
    if file.read_at(&mut table, trailer.table_offset)? < len || crc32fast::hash(&table) != trailer.table_crc {
        return Ok(None);
    }
    Ok(table.chunks_exact(RECORD_HEADER_BYTES).map(RecordHeader::decode_unplaced).collect())
}

/// Walks a segment from header to header; where a header does not hold, searches on block by block.
/// Stops at `end` (the table of a sealed segment, or the file's end).
pub(super) fn scan(file: &dyn SegmentFile, segment: &SegmentHeader, end: u64) -> io::Result<Scan> {
    let marker = segment.marker();
    let mut found = Scan::default();
    let mut window = Window { file, bytes: Vec::new(), filled: 0, start: 0 };
    let mut at = SEGMENT_HEADER_BYTES as u64;
    while at + RECORD_HEADER_BYTES as u64 <= end {
        let small = found.records.last().is_none_or(|record| record.occupied() <= SMALL_RECORD);
        let header = window.header_at(at, if small { READ_STEP } else { BLOCK })?;
        let record = RecordHeader::decode(header, &marker, at).filter(|record| record.next_block() <= end);
        if let Some(record) = record {
            at = next_start(&mut window, segment, &record)?;
            found.records.push(record);
        } else {
            at = at.next_multiple_of(BLOCK as u64);
            at = skip_gap(file, &marker, at, end, &mut found)?;
            // Read again: beside a writer, a record may stand where the window shows the zeros from before.
            window.filled = 0;
        }
    }
    Ok(found)
}

/// Records up to this size are read past rather than jumped over, for reads of the disk cost more than bytes.
const SMALL_RECORD: u64 = 256 << 10;

/// A run of the file in memory: the first `filled` of `bytes`.
struct Window<'a> {
    file: &'a dyn SegmentFile,
    bytes: Vec<u8>,
    filled: usize,
    start: u64,
}

impl Window<'_> {
    /// What may be a header at `at`: short at the file's end. Reads `step` bytes ahead when it has to read.
    fn header_at(&mut self, at: u64, step: usize) -> io::Result<&[u8]> {
        let inside = at.checked_sub(self.start).and_then(|offset| usize::try_from(offset).ok());
        if inside.is_none_or(|offset| offset + RECORD_HEADER_BYTES > self.filled) {
            if self.bytes.len() < step {
                self.bytes = vec![0; step];
            }
            self.filled = self.file.read_at(&mut self.bytes[..step], at)?;
            self.start = at;
        }
        let offset = usize::try_from(at - self.start).unwrap_or(usize::MAX).min(self.filled);
        let len = RECORD_HEADER_BYTES.min(self.filled - offset);
        Ok(&self.bytes[offset..offset + len])
    }
}

/// Where the record behind `record` begins: at the next block, unless both are control records of one group commit.
fn next_start(window: &mut Window<'_>, segment: &SegmentHeader, record: &RecordHeader) -> io::Result<u64> {
    let next_block = record.next_block();
    let shared = (record.offset + record.occupied()).next_multiple_of(SHARED_ALIGNMENT as u64);
    if segment.lane != CONTROL_LANE || shared >= next_block {
        return Ok(next_block);
    }
    let shares = RecordHeader::decode(window.header_at(shared, READ_STEP)?, &segment.marker(), shared).is_some();
    Ok(if shares { shared } else { next_block })
}

/// From a block that is no record: the next block that is one, or `end`. Notes what lies between; behind the last
/// record zeros are unused space, and are not noted.
fn skip_gap(file: &dyn SegmentFile, marker: &[u8; 16], from: u64, end: u64, found: &mut Scan) -> io::Result<u64> {
    let mut step = vec![0; READ_STEP];
    let mut at = from;
    let mut dirty: Option<(u64, u64)> = None;
    while at < end {
        at = match file.next_data(at)? {
            Some(data) => data.max(at) / BLOCK as u64 * BLOCK as u64,
            None => break,
        };
        let len = file.read_at(&mut step, at)?;
        let len = len.min(usize::try_from(end.saturating_sub(at)).unwrap_or(usize::MAX));
        if len == 0 {
            break;
        }
        for (n, block) in step[..len].chunks(BLOCK).enumerate() {
            let here = at + (n * BLOCK) as u64;
            if RecordHeader::decode(block, marker, here).is_some_and(|record| record.next_block() <= end) {
                // Records are written without gaps: between two of them zeros are as wrong as anything else. One that
                // begins right here was being written when the walk came by.
                if here > from {
                    found.gaps.push((from, here - from));
                }
                return Ok(here);
            }
            if block.iter().any(|byte| *byte != 0) {
                dirty = Some((dirty.map_or(here, |(start, _)| start), here + block.len() as u64));
            }
        }
        at += len as u64;
    }
    found.gaps.extend(dirty.map(|(start, last)| (start, last - start)));
    Ok(end)
}

/// The header of the record at `location`, in the segment with this marker.
pub(super) fn header_at(
    file: &dyn SegmentFile,
    marker: &[u8; 16],
    location: Location,
) -> Result<RecordHeader, ReadError> {
    let Location { segment, offset, payload_len } = location;
    let mut header = [0; RECORD_HEADER_BYTES];
    file.read_at(&mut header, offset).map_err(|source| ReadError::Io { segment, offset, source })?;
    RecordHeader::decode(&header, marker, offset)
        .filter(|header| header.payload_len == payload_len)
        .ok_or(ReadError::Damaged { segment, offset, what: "no such record here: its header does not hold" })
}

/// CRC-32 of a record's payload as it lies on disk. `None` when the file ends before it does.
pub(super) fn payload_crc(file: &dyn SegmentFile, record: &RecordHeader) -> io::Result<Option<u32>> {
    let mut step = vec![0; READ_STEP.min(record.payload_len as usize)];
    let mut hasher = crc32fast::Hasher::new();
    let (mut at, mut left) = (record.offset + RECORD_HEADER_BYTES as u64, record.payload_len as usize);
    while left > 0 {
        let len = left.min(step.len());
        if file.read_at(&mut step[..len], at)? < len {
            return Ok(None);
        }
        hasher.update(&step[..len]);
        (at, left) = (at + len as u64, left - len);
    }
    Ok(Some(hasher.finalize()))
}
