//! Offline compaction: segments whose records are mostly dead are replaced by copies of what lives in them.
//!
//! Owns the decision which segments, and the making of a copy; `swap` puts it in place. One segment becomes one, or
//! none. A copied record keeps everything but marker and offset. Extra space: one segment's live bytes.
//!
//! Must never copy a dead record, drop a live one, or turn damage into silence: a segment in which anything does not
//! hold is left alone and named. Must never lower what the next start takes as the highest sequence and tile id.

use super::JournalError;
use super::filesystem::{Filesystem, SegmentFile};
use super::format::{
    CONTROL_LANE, RECORD_HEADER_BYTES, RecordHeader, SEGMENT_HEADER_BYTES, SHARED_ALIGNMENT, SegmentHeader, StoreId,
    SwapNote, TRAILER_BYTES, Trailer, copy_file_name, segment_file_name,
};
use super::keeper;
use super::reader::{self, StoredRecord};
use super::recovery::{self, Found, LaneEnds};
use super::removed::Removed;
use super::swap::Swaps;
use super::verify;
use super::writer::OpenSegment;
use crate::base::aligned::AlignedBytes;
use crate::base::limits::{BLOCK, round_up_to_block};
use crate::model::Sequence;
use serde::Serialize;
use std::collections::BTreeMap;
use std::io::IoSlice;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Bytes that are read and written at a time.
const COPY_STEP: usize = 1 << 20;
/// From here on, the next control record of a copy begins at a block again. A search for a record behind a damaged
/// header goes block by block: this bounds what one damaged header hides.
const CONTROL_GROUP_BYTES: u64 = 32 << 10;

/// What is compacted, and what must not get lost by it.
#[derive(Clone, Copy, Debug)]
pub struct CompactOptions {
    /// A segment is rewritten from this share of dead bytes on, 0 to 1. One without live records always goes, one
    /// without dead records never.
    pub min_dead_share: f64,
    /// Free space of the file system that copies leave alone, bytes.
    pub reserve_bytes: u64,
    /// The highest tile id that the caller has recorded where a start finds it.
    pub tile_floor: u64,
    /// The highest sequence that the caller has recorded where a start finds it.
    pub sequence_floor: u64,
}

/// What a compaction did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CompactReport {
    /// Segments in the directory.
    pub segments_seen: u64,
    /// Replaced by a copy of their live records.
    pub segments_rewritten: u64,
    /// Removed, without a live record.
    pub segments_removed: u64,
    /// Dead records that are gone.
    pub records_dropped: u64,
    /// Bytes that the segment files take less.
    pub bytes_freed: u64,
    /// Highest tile id of all segments that were removed and records that were dropped, 0 without tiles.
    pub max_tile_removed: u64,
    /// Highest sequence of all records that were dropped.
    pub max_sequence_removed: u64,
    /// True when it ended early, at the last segment in `left_alone`: there was no room for a copy.
    pub stopped_for_space: bool,
    /// Segments that were not touched although they may hold dead records.
    pub left_alone: Vec<LeftAlone>,
}

/// A segment that was not touched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LeftAlone {
    /// The segment's file.
    pub path: PathBuf,
    /// Why.
    pub reason: String,
}

/// Removes dead records from the sealed segments of `data_dir`. Asks `is_live` once for each record, segment by
/// segment; tells `progress` the bytes done and the bytes in all of the segments that are worth it.
///
/// The caller holds the directory's lock. In this process the journal was opened (and so recovered and sealed) and
/// closed before, and is not open: its locations do not hold afterwards, and an index of them must be built again.
/// A record that says that others are dead must be live as long as one of those may be left.
///
/// After an error, or when the process or machine stops at any point, every live record is still readable once the
/// journal has been opened, and none twice.
///
/// # Errors
/// The directory can not be read, a write or sync failed, or a copy does not read back as it was written.
pub fn compact_segments(
    data_dir: &Path,
    filesystem: &Arc<dyn Filesystem>,
    options: &CompactOptions,
    is_live: &mut dyn FnMut(&StoredRecord) -> bool,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<CompactReport, JournalError> {
    let mut compaction = Compaction::start(data_dir, &**filesystem, options)?;
    let candidates = compaction.take_stock(is_live)?;
    let all = candidates.iter().map(|candidate| candidate.segment.len).sum();
    let mut done = 0;
    progress(done, all);
    for candidate in candidates {
        let segment = &candidate.segment;
        let treated = compaction.treat(&candidate, &mut |copied| progress(done + copied.min(segment.len), all));
        match treated {
            Ok(()) => {}
            Err(Halt::LeaveAlone(reason)) => compaction.leave_alone(&segment.path, reason),
            Err(Halt::NoSpace(error)) => {
                compaction.leave_alone(&segment.path, error.to_string());
                compaction.report.stopped_for_space = true;
                break;
            }
            Err(Halt::Failed(error)) => return Err(error),
        }
        done += segment.len;
        progress(done, all);
    }
    Ok(compaction.report)
}

struct Compaction<'a> {
    filesystem: &'a dyn Filesystem,
    data_dir: &'a Path,
    swaps: Swaps<'a>,
    options: &'a CompactOptions,
    store: StoreId,
    next_number: u64,
    /// The sealed segments that are there now, by number.
    sealed: BTreeMap<u64, Sealed>,
    ends: LaneEnds,
    report: CompactReport,
}

#[derive(Clone)]
struct Sealed {
    header: SegmentHeader,
    trailer: Trailer,
    path: PathBuf,
    len: u64,
}

/// A segment that is worth it.
struct Candidate {
    segment: Sealed,
    /// For each record of the table, whether it lives.
    live: Vec<bool>,
}

/// Why a segment was not compacted.
enum Halt {
    /// Something in it does not hold, or it must stay.
    LeaveAlone(String),
    /// There is no room for the copy: stop.
    NoSpace(JournalError),
    /// Writing failed: stop.
    Failed(JournalError),
}

impl From<JournalError> for Halt {
    fn from(error: JournalError) -> Self {
        match error {
            JournalError::NoSpace { .. } => Self::NoSpace(error),
            error => Self::Failed(error),
        }
    }
}

/// A segment that can not be read is left alone; the others are not.
fn unreadable(error: std::io::Error) -> Halt {
    Halt::LeaveAlone(format!("can not be read: {error}; check the disk"))
}

const RUN_VERIFY: &str = "run `tilecatcher verify`";

impl<'a> Compaction<'a> {
    fn start(
        data_dir: &'a Path,
        filesystem: &'a dyn Filesystem,
        options: &'a CompactOptions,
    ) -> Result<Self, JournalError> {
        let store = verify::stored_identity(data_dir, filesystem).ok_or_else(|| JournalError::Unusable {
            path: data_dir.join("store"),
            problem: "missing or damaged: open the journal first, that makes it again".to_owned(),
        })?;
        let swaps = Swaps::new(filesystem, data_dir);
        swaps.settle(store)?;
        let next_number = swaps.free_number()?;
        let (sealed, ends, report) = (BTreeMap::new(), LaneEnds::default(), CompactReport::default());
        Ok(Self { filesystem, data_dir, swaps, options, store, next_number, sealed, ends, report })
    }

    /// Finds the sealed segments, and the candidates among them: those that only need to be removed first, for they
    /// make room for the others.
    fn take_stock(&mut self, is_live: &mut dyn FnMut(&StoredRecord) -> bool) -> Result<Vec<Candidate>, JournalError> {
        let mut candidates = Vec::new();
        for (_, path) in recovery::list_segments(self.filesystem, &self.swaps.segments_dir)? {
            self.report.segments_seen += 1;
            match self.look_at(&path, is_live) {
                Ok(candidate) => candidates.extend(candidate),
                Err(Halt::LeaveAlone(reason)) => self.leave_alone(&path, reason),
                Err(Halt::NoSpace(error) | Halt::Failed(error)) => return Err(error),
            }
        }
        candidates.sort_by_key(|candidate| candidate.live.contains(&true));
        Ok(candidates)
    }

    fn look_at(
        &mut self,
        path: &Path,
        is_live: &mut dyn FnMut(&StoredRecord) -> bool,
    ) -> Result<Option<Candidate>, Halt> {
        let file = self.filesystem.open_read(path).map_err(unreadable)?;
        let found = match recovery::identify(&*file, path, Some(self.store)) {
            Err(JournalError::Failed { source, .. }) => return Err(unreadable(source)),
            found => found?,
        };
        let (header, trailer, len) = match found {
            Found::Sealed(header, trailer, len) => (header, trailer, len),
            Found::Unsealed(_) | Found::Blank => {
                return Err(Halt::LeaveAlone("is not sealed: open the journal first, that seals it".to_owned()));
            }
            Found::HeaderLost(_) | Found::Unreadable(_) => {
                return Err(Halt::LeaveAlone(format!("the segment header is damaged: {RUN_VERIFY}")));
            }
        };
        let segment = Sealed { header, trailer, path: path.to_owned(), len };
        self.ends.note(header.lane, trailer.last);
        self.ends.note_begin(&*file, &header).map_err(unreadable)?;
        self.sealed.insert(header.number, segment.clone());
        let table = listed(&*file, &trailer)?;
        let live: Vec<bool> =
            table.iter().map(|record| is_live(&StoredRecord { header: *record, segment: header.number })).collect();
        Ok(is_worth_it(&table, &live, self.options.min_dead_share).then_some(Candidate { segment, live }))
    }

    fn leave_alone(&mut self, path: &Path, reason: String) {
        tracing::debug!(path = %path.display(), reason, "compaction leaves a segment alone");
        self.report.left_alone.push(LeftAlone { path: path.to_owned(), reason });
    }

    /// Rewrites or removes one segment, or says why not.
    fn treat(&mut self, candidate: &Candidate, copied: &mut dyn FnMut(u64)) -> Result<(), Halt> {
        let old = &candidate.segment;
        let file = self.filesystem.open_read(&old.path).map_err(unreadable)?;
        let records = self.intact_records(old, &*file)?;
        let pairs = || records.iter().zip(&candidate.live);
        let live: Vec<RecordHeader> = pairs().filter(|(_, live)| **live).map(|(record, _)| *record).collect();
        let mut dropped = Trailer::default();
        pairs().filter(|(_, live)| !**live).for_each(|(record, _)| dropped.add(record));
        self.refuse_if_needed(old, &live)?;
        if live.is_empty() {
            self.remove(old)?;
            dropped.max_tile = old.trailer.max_tile;
        } else {
            self.rewrite(old, &*file, &live, copied)?;
        }
        self.report.records_dropped += dropped.records;
        self.report.max_tile_removed = self.report.max_tile_removed.max(dropped.max_tile);
        self.report.max_sequence_removed = self.report.max_sequence_removed.max(dropped.last.0);
        Ok(())
    }

    /// The records of a segment in which table and records agree and nothing is missing. Payloads are not read here.
    fn intact_records(&self, segment: &Sealed, file: &dyn SegmentFile) -> Result<Vec<RecordHeader>, Halt> {
        let table = listed(file, &segment.trailer)?;
        let Sealed { header, path, trailer, .. } = segment;
        let judged = recovery::scan_and_judge(file, path, header, trailer.table_offset, &self.ends);
        let (_, verdict) = judged.map_err(|error| unreadable(std::io::Error::other(error)))?;
        if let Some((offset, ..)) = verdict.damage.iter().find(|(_, _, kind)| kind.may_be_loss()) {
            return Err(Halt::LeaveAlone(format!("damaged at offset {offset}: {RUN_VERIFY}")));
        }
        if verdict.records != table {
            return Err(Halt::LeaveAlone(format!("its table does not list the records that are in it: {RUN_VERIFY}")));
        }
        Ok(table)
    }

    /// Refuses to lose what a start takes from this segment: the highest sequence, the highest tile id, and the end
    /// against which the beginning of the lane's next segment is judged.
    fn refuse_if_needed(&self, old: &Sealed, live: &[RecordHeader]) -> Result<(), Halt> {
        let others = || self.sealed.values().filter(|other| other.header.number != old.header.number);
        let last = live.iter().map(|record| record.sequence).max().unwrap_or_default();
        let sequence_left = others().map(|other| other.trailer.last).fold(last, Sequence::max);
        let tile_left = others().map(|other| other.trailer.max_tile).fold(self.options.tile_floor, u64::max);
        let reason = if old.trailer.last > sequence_left.max(Sequence(self.options.sequence_floor)) {
            "a dead record in it has the journal's highest sequence, which would be given again"
        } else if live.is_empty() && old.trailer.max_tile > tile_left {
            "holds the journal's highest tile id, which would be given again"
        } else if last < old.trailer.last && self.is_needed_by_the_next(old)? {
            "the lane's next segment begins with a torn place, which only this one's last record tells from damage"
        } else {
            return Ok(());
        };
        Err(Halt::LeaveAlone(reason.to_owned()))
    }

    fn is_needed_by_the_next(&self, old: &Sealed) -> Result<bool, Halt> {
        let behind = |other: &&Sealed| other.header.lane == old.header.lane && other.trailer.first > old.trailer.last;
        let next = self.sealed.values().filter(behind).min_by_key(|other| other.trailer.first);
        let Some(next) = next else { return Ok(false) };
        let file = self.filesystem.open_read(&next.path).map_err(unreadable)?;
        let mut header = [0; RECORD_HEADER_BYTES];
        let start = SEGMENT_HEADER_BYTES as u64;
        let filled = file.read_at(&mut header, start).map_err(unreadable)?;
        Ok(RecordHeader::decode(&header[..filled], &next.header.marker(), start).is_none())
    }

    /// One unlinked name is one step: it needs no note.
    fn remove(&mut self, old: &Sealed) -> Result<(), JournalError> {
        Removed::note(self.filesystem, self.data_dir, &old.header)?;
        self.filesystem.remove(&old.path).map_err(JournalError::failed(&old.path, "remove"))?;
        self.swaps.sync_dir(&self.swaps.segments_dir)?;
        self.sealed.remove(&old.header.number);
        self.report.segments_removed += 1;
        self.report.bytes_freed += old.len;
        Ok(())
    }

    fn rewrite(
        &mut self,
        old: &Sealed,
        file: &dyn SegmentFile,
        live: &[RecordHeader],
        copied: &mut dyn FnMut(u64),
    ) -> Result<(), Halt> {
        let header = SegmentHeader {
            store: self.store,
            uuid: self.filesystem.new_identity(),
            number: self.next_number,
            lane: old.header.lane,
            created_ns: self.filesystem.now_ns(),
        };
        self.next_number += 1;
        let copy = self.swaps.segments_dir.join(copy_file_name(header.number, header.lane));
        let placed = place(live, header.lane);
        let plan = Plan { header, path: &copy, live, placed: &placed };
        let new = match self.write_copy(old, file, &plan, copied).map_err(|halt| self.full_or_not(halt)) {
            Err(halt @ (Halt::LeaveAlone(_) | Halt::NoSpace(_))) => {
                self.discard(&copy)?;
                return Err(halt);
            }
            written => written?,
        };
        self.check_copy(&new, &placed)?;
        let (lane, number) = (header.lane, header.number);
        Removed::note(self.filesystem, self.data_dir, &old.header)?;
        self.swaps.swap(&SwapNote { store: self.store, lane, old: old.header.number, new: number })?;
        self.report.segments_rewritten += 1;
        self.report.bytes_freed += old.len.saturating_sub(new.len);
        self.sealed.remove(&old.header.number);
        let path = self.swaps.segments_dir.join(segment_file_name(number, lane));
        self.sealed.insert(number, Sealed { path, ..new });
        Ok(())
    }

    fn discard(&self, copy: &Path) -> Result<(), JournalError> {
        match self.filesystem.remove(copy) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            removed => removed.map_err(JournalError::failed(copy, "remove")),
        }
    }

    /// Writes, seals and syncs the copy, and syncs its directory entry.
    fn write_copy(
        &self,
        old: &Sealed,
        source: &dyn SegmentFile,
        plan: &Plan<'_>,
        copied: &mut dyn FnMut(u64),
    ) -> Result<Sealed, Halt> {
        let (header, path) = (plan.header, plan.path);
        let file = self.create_copy(path, plan.file_bytes())?;
        let mut segment = OpenSegment::new(header, path.to_owned(), Arc::clone(&file), plan.file_bytes());
        let mut out = Out { file: &*file, path, step: AlignedBytes::zeroed(COPY_STEP), start: 0, filled: 0 };
        out.put(&header.encode())?;
        let mut bytes = [0; RECORD_HEADER_BYTES];
        for (from, to) in plan.live.iter().zip(plan.placed) {
            out.pad_to(to.offset)?;
            to.encode(&header.marker(), &mut bytes);
            out.put(&bytes)?;
            copy_payload(source, from, &mut out)?;
            segment.note(to);
            segment.tail = to.next_block();
            copied(segment.tail);
        }
        out.pad_to(segment.tail)?;
        out.flush()?;
        // Ids are never given twice, also those of tiles that are gone.
        segment.trailer.max_tile = segment.trailer.max_tile.max(old.trailer.max_tile);
        let (trailer, len) = keeper::write_seal(segment)?;
        self.swaps.sync_dir(&self.swaps.segments_dir)?;
        Ok(Sealed { header, trailer, path: path.to_owned(), len })
    }

    fn create_copy(&self, path: &Path, bytes: u64) -> Result<Arc<dyn SegmentFile>, Halt> {
        let dir = &self.swaps.segments_dir;
        let free = self.filesystem.free_bytes(dir).map_err(JournalError::failed(dir, "stat"))?;
        if free < bytes.saturating_add(self.options.reserve_bytes) {
            return Err(Halt::NoSpace(self.no_space()));
        }
        Ok(Arc::from(self.filesystem.create(path, bytes).map_err(JournalError::failed(path, "create"))?))
    }

    /// A failure because the file system is full ends when space is freed.
    fn full_or_not(&self, halt: Halt) -> Halt {
        match halt {
            Halt::Failed(JournalError::Failed { source, .. }) if super::is_full(&source) => {
                Halt::NoSpace(self.no_space())
            }
            halt => halt,
        }
    }

    fn no_space(&self) -> JournalError {
        JournalError::NoSpace {
            dir: self.swaps.segments_dir.clone(),
            free_bytes: self.filesystem.free_bytes(&self.swaps.segments_dir).unwrap_or(0),
            reserve_bytes: self.options.reserve_bytes,
        }
    }

    /// Reads the copy as a start and a reader will, before the only other one goes.
    fn check_copy(&self, copy: &Sealed, placed: &[RecordHeader]) -> Result<(), JournalError> {
        let read = || JournalError::failed(&copy.path, "read");
        let file = self.filesystem.open_read(&copy.path).map_err(JournalError::failed(&copy.path, "open"))?;
        let sealed = match recovery::identify(&*file, &copy.path, Some(self.store))? {
            Found::Sealed(header, trailer, len) => (header, trailer, len) == (copy.header, copy.trailer, copy.len),
            _ => false,
        };
        let scan = reader::scan(&*file, &copy.header, copy.trailer.table_offset).map_err(read())?;
        let table = reader::read_table(&*file, &copy.trailer).map_err(read())?;
        let mut holds = sealed && scan.gaps.is_empty() && scan.records == placed && table.as_deref() == Some(placed);
        for record in placed {
            holds = holds && reader::payload_crc(&*file, record).map_err(read())? == Some(record.payload_crc);
        }
        if holds {
            return Ok(());
        }
        let problem = "does not read back as it was written, the old segment is kept: check memory and disk".to_owned();
        Err(JournalError::Unusable { path: copy.path.clone(), problem })
    }
}

/// A copy that is to be written.
struct Plan<'a> {
    header: SegmentHeader,
    path: &'a Path,
    /// The live records in the old segment.
    live: &'a [RecordHeader],
    /// The same with their places in the new one.
    placed: &'a [RecordHeader],
}

impl Plan<'_> {
    fn file_bytes(&self) -> u64 {
        let table = self.placed.len() * RECORD_HEADER_BYTES;
        let records = self.placed.last().map_or(SEGMENT_HEADER_BYTES as u64, RecordHeader::next_block);
        records + (round_up_to_block(table) + TRAILER_BYTES) as u64
    }
}

/// The records of a sealed segment's table.
fn listed(file: &dyn SegmentFile, trailer: &Trailer) -> Result<Vec<RecordHeader>, Halt> {
    let table = reader::read_table(file, trailer).map_err(unreadable)?;
    table.ok_or_else(|| Halt::LeaveAlone(format!("the table of records is damaged: {RUN_VERIFY}")))
}

/// Share of dead bytes, of headers and payloads.
fn is_worth_it(records: &[RecordHeader], live: &[bool], min_dead_share: f64) -> bool {
    let bytes = |wanted: bool| -> u64 {
        records.iter().zip(live).filter(|(_, live)| **live == wanted).map(|(record, _)| record.occupied()).sum()
    };
    let (living, dead) = (bytes(true), bytes(false));
    dead > 0 && (living == 0 || dead as f64 >= min_dead_share * (living + dead) as f64)
}

/// Gives live records their places in a new segment: behind one another as a lane's writer does, control records
/// sharing blocks.
fn place(live: &[RecordHeader], lane: u16) -> Vec<RecordHeader> {
    let mut group = SEGMENT_HEADER_BYTES as u64;
    let mut at = group;
    let mut placed = Vec::with_capacity(live.len());
    for record in live {
        let record = RecordHeader { offset: at, ..*record };
        let end = record.offset + record.occupied();
        let shares = lane == CONTROL_LANE && end - group < CONTROL_GROUP_BYTES;
        at = if shares { end.next_multiple_of(SHARED_ALIGNMENT as u64) } else { record.next_block() };
        if !shares {
            group = at;
        }
        placed.push(record);
    }
    placed
}

/// Copies a payload while checking it: what does not verify is never copied on.
fn copy_payload(source: &dyn SegmentFile, record: &RecordHeader, out: &mut Out<'_>) -> Result<(), Halt> {
    let mut hasher = crc32fast::Hasher::new();
    let mut at = record.offset + RECORD_HEADER_BYTES as u64;
    let mut left = record.payload_len as usize;
    let mut step = vec![0; left.min(COPY_STEP)];
    while left > 0 {
        let part = left.min(step.len());
        if source.read_at(&mut step[..part], at).map_err(unreadable)? < part {
            break;
        }
        hasher.update(&step[..part]);
        out.put(&step[..part])?;
        (at, left) = (at + part as u64, left - part);
    }
    if left > 0 || hasher.finalize() != record.payload_crc {
        let offset = record.offset;
        return Err(Halt::LeaveAlone(format!(
            "the payload of the record at offset {offset} does not match its CRC-32: {RUN_VERIFY}"
        )));
    }
    Ok(())
}

/// Gathers bytes into large aligned writes.
struct Out<'a> {
    file: &'a dyn SegmentFile,
    path: &'a Path,
    step: AlignedBytes,
    /// Offset of `step` in the file.
    start: u64,
    filled: usize,
}

impl Out<'_> {
    fn put(&mut self, mut bytes: &[u8]) -> Result<(), Halt> {
        while !bytes.is_empty() {
            let part = bytes.len().min(self.step.len() - self.filled);
            self.step[self.filled..self.filled + part].copy_from_slice(&bytes[..part]);
            self.filled += part;
            bytes = &bytes[part..];
            if self.filled == self.step.len() {
                self.flush()?;
            }
        }
        Ok(())
    }

    /// Zeros up to an offset less than a block away.
    fn pad_to(&mut self, offset: u64) -> Result<(), Halt> {
        let gap = usize::try_from(offset - (self.start + self.filled as u64)).unwrap_or(usize::MAX);
        self.put(&[0; BLOCK][..gap])
    }

    /// Writes what was gathered: whole blocks.
    fn flush(&mut self) -> Result<(), Halt> {
        if self.filled > 0 {
            let written = self.file.write_all_at(&mut [IoSlice::new(&self.step[..self.filled])], self.start);
            written.map_err(JournalError::failed(self.path, "write"))?;
        }
        (self.start, self.filled) = (self.start + self.filled as u64, 0);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Journal, JournalOptions, RealFilesystem, RecordDraft, RecordKind};
    use super::*;
    use crate::model::ByteRange;

    fn header(offset: u64, payload_len: u32) -> RecordHeader {
        RecordHeader {
            kind: RecordKind(0x1ff),
            sequence: Sequence(1),
            offset,
            payload_len,
            payload_crc: 0,
            durable: Sequence(0),
            received_ns: 0,
            tile: None,
        }
    }

    #[test]
    fn tiles_begin_at_blocks_and_control_records_share_them_up_to_a_bound() {
        let live = vec![header(1 << 20, 300); 200];
        let offsets: Vec<u64> = place(&live, 0).iter().map(|record| record.offset).collect();
        assert_eq!(offsets[..3], [4096, 8192, 12_288]);
        let offsets: Vec<u64> = place(&live, CONTROL_LANE).iter().map(|record| record.offset).collect();
        assert_eq!(offsets[..3], [4096, 4608, 5120]);
        let mut at_blocks = offsets.iter().filter(|offset| offset.is_multiple_of(BLOCK as u64));
        let steps = offsets.windows(2).map(|pair| pair[1] - pair[0]);
        assert!(steps.max() <= Some(BLOCK as u64) && at_blocks.any(|offset| *offset > CONTROL_GROUP_BYTES));
    }

    #[test]
    fn the_dead_share_counts_bytes_of_headers_and_payloads() {
        let records = [header(4096, 808), header(8192, 2808)];
        assert!(is_worth_it(&records, &[false, true], 0.25));
        assert!(!is_worth_it(&records, &[false, true], 0.26));
        assert!(is_worth_it(&records, &[true, false], 0.75));
        assert!(is_worth_it(&records, &[false, false], 2.0), "without a live record always");
        assert!(!is_worth_it(&records, &[true, true], 0.0), "without a dead record never");
        assert!(!is_worth_it(&[], &[], 0.0));
    }

    /// Records of up to several copy steps, on the operating system's file system.
    #[test]
    fn records_of_any_size_are_copied_as_they_were() {
        let dir = tempfile::tempdir().expect("a directory");
        let filesystem: Arc<dyn Filesystem> = Arc::new(RealFilesystem);
        let options = JournalOptions { reserve_bytes: 0, ..JournalOptions::default() };
        let sizes = [1, COPY_STEP - 1, 3 * COPY_STEP + 77, 3904, 3905, COPY_STEP - 4096 - RECORD_HEADER_BYTES, 0, 9000];
        let payload = |n: usize| -> Vec<u8> { (0..sizes[n]).map(|at| [7, 1, 250][(at + n) % 3]).collect() };
        {
            let (journal, _) = Journal::open(dir.path(), Arc::clone(&filesystem), options).expect("opens");
            let mut writer = journal.lane_writer(0);
            for n in 0..sizes.len() {
                let mut bytes = AlignedBytes::zeroed(RECORD_HEADER_BYTES + sizes[n]);
                bytes[RECORD_HEADER_BYTES..][..sizes[n]].copy_from_slice(&payload(n));
                let mut draft = [RecordDraft {
                    kind: RecordKind(0x1ff),
                    payload_len: u32::try_from(sizes[n]).expect("small"),
                    payload_crc: crc32fast::hash(&payload(n)),
                    received_ns: 5,
                    tile: None,
                    bytes: &mut bytes,
                    placed: None,
                }];
                writer.append(&mut draft).expect("written");
            }
            writer.close().expect("closed");
            journal.close();
        }
        let everything =
            CompactOptions { min_dead_share: 0.0, reserve_bytes: 0, tile_floor: 0, sequence_floor: u64::MAX };
        let mut is_live = |record: &StoredRecord| record.header.sequence != Sequence(8);
        let report = compact_segments(dir.path(), &filesystem, &everything, &mut is_live, &mut |_, _| {});
        assert_eq!(report.expect("compacts").segments_rewritten, 1);
        let (journal, report) = Journal::open(dir.path(), filesystem, options).expect("opens");
        assert_eq!((report.records, report.completed_swaps, report.removed_leftovers), (7, 0, 0));
        for (n, record) in journal.records_after(Sequence(0)).enumerate() {
            let record = record.expect("readable");
            let mut bytes = vec![0; sizes[n]];
            let range = ByteRange { offset: 0, len: record.header.payload_len };
            journal.read(record.location(), range, &mut bytes).expect("readable");
            assert!(record.header.sequence == Sequence(n as u64 + 1) && bytes == payload(n), "record {n}");
        }
    }
}
