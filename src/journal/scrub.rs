//! Reading a segment again beside its writer, around the page cache: does everything that was synced still hold?
//!
//! Each byte is read once, in order, in steps that the caller paces. Must never change a byte, nor call something
//! damaged that is only being written: what does not hold is looked at a second time before it is reported.

use super::filesystem::{SegmentFile, refuse_writes};
use super::format::{RecordHeader, SEGMENT_HEADER_BYTES, SegmentHeader, Trailer};
use super::reader::{self, ReadError, Scan};
use super::recovery::{self, DamageKind, InMemory};
use super::store::{Journal, ScrubTarget};
use crate::base::aligned::AlignedBytes;
use crate::base::limits::BLOCK;
use std::io;
use std::sync::{Mutex, PoisonError};

/// Bytes read at a time.
const STEP: usize = if cfg!(fuzzing) { 16 << 10 } else { 1 << 20 };

/// A place of a segment that is not what was stored there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadRecord {
    /// Offset in the segment, bytes: of the record's header, where it is a record.
    pub offset: u64,
    /// The record's header, as the segment's table has it or as it was read.
    pub header: Option<RecordHeader>,
    /// What does not hold.
    pub what: String,
}

/// What became of a segment that was to be read again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScrubbedSegment {
    /// True if all of it was looked at: it is sealed.
    pub whole: bool,
    /// What does not hold.
    pub bad: Vec<BadRecord>,
}

/// Called before each step with its bytes; an error ends the reading.
pub type Pace<'a> = &'a (dyn Fn(usize) -> io::Result<()> + Sync);

impl Journal {
    /// Reads a segment again: all of a sealed one, the synced records of one that is being written.
    ///
    /// # Errors
    /// There is no such segment, it can not be opened, or `pace` said no.
    pub fn scrub_segment(&self, number: u64, pace: Pace<'_>) -> Result<ScrubbedSegment, ReadError> {
        let first = self.look(number, pace)?;
        if first.bad.is_empty() {
            return Ok(first);
        }
        // What was caught in the middle of being written holds now; what is damaged does not.
        let again = self.look(number, pace)?;
        let bad = first.bad.into_iter().filter(|bad| again.bad.iter().any(|other| other.offset == bad.offset));
        Ok(ScrubbedSegment { whole: first.whole, bad: bad.collect() })
    }

    fn look(&self, number: u64, pace: Pace<'_>) -> Result<ScrubbedSegment, ReadError> {
        let target = match self.scrub_target(number) {
            Err(ReadError::Io { source, .. }) => {
                // One without records is removed by itself, and is forgotten by the second look.
                let what = format!("the segment's file can not be opened: {source}");
                let bad = vec![BadRecord { offset: 0, header: None, what }];
                return Ok(ScrubbedSegment { whole: false, bad });
            }
            target => target?,
        };
        let failed = |source| ReadError::Io { segment: number, offset: 0, source };
        let file = Stepwise::new(&*target.file, pace).map_err(failed)?;
        let bad = match (&target.in_memory, &target.sealed) {
            (Some(found), _) => check_unsealed(&file, &target, found),
            (None, Some(trailer)) => check_sealed(&file, &target, trailer),
            (None, None) => check_open(&file, &target),
        };
        Ok(ScrubbedSegment { whole: target.sealed.is_some(), bad: bad.map_err(failed)? })
    }
}

fn check_sealed(file: &Stepwise<'_>, target: &ScrubTarget, trailer: &Trailer) -> io::Result<Vec<BadRecord>> {
    let mut bad = check_header(file, &target.header)?;
    let table = file.tolerated(|| reader::read_table(file, trailer))?.flatten();
    if table.is_none() {
        bad.push(place(trailer.table_offset, "the table of records is damaged"));
    }
    let records = match table {
        Some(mut records) => {
            records.sort_unstable_by_key(|record| record.offset);
            records
        }
        None => {
            let found = file.tolerated(|| reader::scan(file, &target.header, trailer.table_offset))?;
            found.map(|scan| scan.records).unwrap_or_default()
        }
    };
    bad.extend(missing_records(&records, target, trailer));
    for record in &records {
        bad.extend(check_record(file, &target.header, record)?);
    }
    if file.tolerated(|| reader::read_trailer(file, &target.header))?.flatten() != Some(*trailer) {
        bad.push(place(file.length()?.saturating_sub(BLOCK as u64), "the trailer is damaged"));
    }
    Ok(bad)
}

/// A segment of which blocks could not be read at the start.
fn check_unsealed(file: &Stepwise<'_>, target: &ScrubTarget, found: &InMemory) -> io::Result<Vec<BadRecord>> {
    let mut bad = check_header(file, &target.header)?;
    for record in &found.records {
        bad.extend(check_record(file, &target.header, record)?);
    }
    let places = found.places.iter().filter(|place| found.records.iter().all(|record| record.offset != **place));
    bad.extend(places.map(|place_of| place(*place_of, "could not be read at the start; the next start looks again")));
    Ok(bad)
}

/// A segment that is being written: what some later record vouches for as synced.
fn check_open(file: &Stepwise<'_>, target: &ScrubTarget) -> io::Result<Vec<BadRecord>> {
    let mut bad = check_header(file, &target.header)?;
    let end = file.length()?;
    let Some(scan) = file.tolerated(|| reader::scan(file, &target.header, end))? else {
        bad.push(place(SEGMENT_HEADER_BYTES as u64, "can not be read"));
        return Ok(bad);
    };
    let floor = target.lanes.before(target.header.lane, scan.first());
    let vouched = scan.vouched().max(target.lanes.ended_with(&target.header, scan.last()).unwrap_or_default());
    for (offset, _) in &scan.gaps {
        if recovery::kind_of_gap(&scan.records, vouched, *offset, floor, false) == DamageKind::Corrupt {
            bad.push(place(*offset, NO_RECORD));
        }
    }
    for record in scan.records.iter().filter(|record| record.sequence <= vouched) {
        bad.extend(check_record(file, &target.header, record)?);
    }
    Ok(bad)
}

const NO_RECORD: &str = "not a record: the header is damaged";

fn place(offset: u64, what: &str) -> BadRecord {
    BadRecord { offset, header: None, what: what.to_owned() }
}

fn check_header(file: &Stepwise<'_>, header: &SegmentHeader) -> io::Result<Vec<BadRecord>> {
    let mut block = [0; SEGMENT_HEADER_BYTES];
    let filled = file.tolerated(|| file.read_at(&mut block, 0))?.unwrap_or(0);
    // One that had to be worked out at the start has lost its time of making.
    let holds = SegmentHeader::decode(&block[..filled])
        .is_ok_and(|found| (found.store, found.uuid, found.number) == (header.store, header.uuid, header.number));
    Ok(if holds { Vec::new() } else { vec![place(0, "the segment header is damaged")] })
}

/// Places between the records of a sealed segment that were records once.
fn missing_records(records: &[RecordHeader], target: &ScrubTarget, trailer: &Trailer) -> Vec<BadRecord> {
    let (scan, end) = (Scan { records: records.to_vec(), gaps: Vec::new() }, trailer.table_offset);
    let floor = target.lanes.before(target.header.lane, scan.first());
    let ended = target.lanes.ended_with(&target.header, trailer.last).filter(|ended| *ended == trailer.last);
    let vouched = scan.vouched().max(ended.unwrap_or_default());
    let starts = std::iter::once(SEGMENT_HEADER_BYTES as u64).chain(records.iter().map(RecordHeader::next_block));
    let ends = records.iter().map(|record| record.offset).chain([end]);
    let gaps = starts.zip(ends).filter(|(start, end)| start < end).map(|(start, _)| start);
    let is_corrupt =
        |offset: &u64| recovery::kind_of_gap(records, vouched, *offset, floor, true) == DamageKind::Corrupt;
    let corrupt = gaps.filter(is_corrupt);
    corrupt.map(|offset| place(offset, NO_RECORD)).collect()
}

fn check_record(file: &Stepwise<'_>, segment: &SegmentHeader, record: &RecordHeader) -> io::Result<Option<BadRecord>> {
    let mut header = [0; crate::journal::RECORD_HEADER_BYTES];
    let what = match file.tolerated(|| file.read_at(&mut header, record.offset))? {
        None => "can not be read",
        Some(_) if RecordHeader::decode(&header, &segment.marker(), record.offset) != Some(*record) => NO_RECORD,
        Some(_) => match file.tolerated(|| reader::payload_crc(file, record))? {
            None => "can not be read",
            Some(crc) if crc != Some(record.payload_crc) => "the payload does not match its CRC-32",
            Some(_) => return Ok(None),
        },
    };
    Ok(Some(BadRecord { offset: record.offset, header: Some(*record), what: what.to_owned() }))
}

/// A file read in aligned steps of one size, the last of which is kept: whoever reads forward reads each once.
struct Stepwise<'a> {
    file: &'a dyn SegmentFile,
    pace: Pace<'a>,
    len: u64,
    step: Mutex<Step>,
}

struct Step {
    bytes: AlignedBytes,
    start: u64,
    filled: usize,
    /// The caller does not want to go on: no failed read of the disk.
    ended: bool,
}

impl<'a> Stepwise<'a> {
    fn new(file: &'a dyn SegmentFile, pace: Pace<'a>) -> io::Result<Self> {
        let step = Step { bytes: AlignedBytes::zeroed(STEP), start: 0, filled: 0, ended: false };
        Ok(Self { file, pace, len: file.length()?, step: Mutex::new(step) })
    }

    /// What the disk refuses to give is `None`: a finding. Everything else ends the reading.
    fn tolerated<T>(&self, read: impl FnOnce() -> io::Result<T>) -> io::Result<Option<T>> {
        match read() {
            Ok(value) => Ok(Some(value)),
            Err(error) if self.step.lock().unwrap_or_else(PoisonError::into_inner).ended => Err(error),
            Err(_) => Ok(None),
        }
    }

    /// Fills the step that `offset` lies in; where the disk refuses that, its blocks from `offset` on one by one.
    fn fill(&self, step: &mut Step, offset: u64) -> io::Result<()> {
        (step.start, step.filled) = (offset / STEP as u64 * STEP as u64, 0);
        let bytes = usize::try_from(self.len - step.start).unwrap_or(STEP).min(STEP);
        (self.pace)(bytes).inspect_err(|_| step.ended = true)?;
        let start = step.start;
        if let Ok(filled) = self.file.read_at(&mut step.bytes, start) {
            step.filled = filled;
            return Ok(());
        }
        step.start = offset / BLOCK as u64 * BLOCK as u64;
        let start = step.start;
        step.filled = self.file.read_at(&mut step.bytes[..BLOCK], start)?;
        Ok(())
    }
}

impl SegmentFile for Stepwise<'_> {
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut step = self.step.lock().unwrap_or_else(PoisonError::into_inner);
        let mut done = 0;
        while done < bytes.len() && offset + (done as u64) < self.len {
            let at = offset + done as u64;
            let inside = |step: &Step| usize::try_from(at.checked_sub(step.start)?).ok().filter(|n| *n < step.filled);
            if inside(&step).is_none() {
                self.fill(&mut step, at)?;
            }
            let Some(from) = inside(&step) else { break };
            let len = (step.filled - from).min(bytes.len() - done);
            bytes[done..done + len].copy_from_slice(&step.bytes[from..from + len]);
            done += len;
        }
        Ok(done)
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.len)
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<u64>> {
        self.file.next_data(offset)
    }

    refuse_writes!();
}
