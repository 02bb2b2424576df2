//! A lane's writer: puts records behind one another into the lane's open segment, and syncs them together.
//!
//! One writer, one open segment, one thread (invariant 3). A failed write or sync poisons the writer: it never
//! touches that segment again (invariant 9).

use super::JournalError;
use super::filesystem::SegmentFile;
use super::format::{
    RECORD_HEADER_BYTES, RecordHeader, RecordKind, SEGMENT_HEADER_BYTES, SHARED_ALIGNMENT, SegmentHeader, TileStamp,
    Trailer,
};
use super::keeper::{self, Supply};
use super::store::Shared;
use crate::base::aligned::AlignedBytes;
use crate::base::limits::{BLOCK, WRITE_SLICES_MAX, round_up_to_block};
use crate::base::planted::{Bug, planted};
use crate::model::{Location, Sequence};
use std::io::IoSlice;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Most records in one segment: bounds the table that is kept in memory until the segment is sealed (12 MiB).
pub(super) const SEGMENT_RECORDS_MAX: u64 = 65_536;
/// Bytes of zeros that one idle turn writes ahead.
const PREWRITE_STEP: usize = 1 << 20;

/// A record to be appended. `bytes` has room for header, payload and padding to a whole block; the payload is
/// already in its place, `RECORD_HEADER_BYTES` from the start.
pub struct RecordDraft<'a> {
    /// What the record is.
    pub kind: RecordKind,
    /// Length of the payload.
    pub payload_len: u32,
    /// CRC-32 of the payload.
    pub payload_crc: u32,
    /// When the content arrived, ns since 1970 UTC.
    pub received_ns: i64,
    /// For tiles.
    pub tile: Option<TileStamp>,
    /// Room for header, payload and padding; block-aligned.
    pub bytes: &'a mut [u8],
    /// Set once the record is written: its place.
    pub placed: Option<(Sequence, Location)>,
}

/// A segment that is being written.
pub(super) struct OpenSegment {
    pub(super) header: SegmentHeader,
    pub(super) path: PathBuf,
    pub(super) file: Arc<dyn SegmentFile>,
    /// Offset of the next record.
    pub(super) tail: u64,
    /// Bytes that were allocated.
    pub(super) allocated: u64,
    /// Copies of all record headers.
    pub(super) table: Vec<u8>,
    pub(super) trailer: Trailer,
    prewritten: u64,
    dirty: bool,
}

/// Writes one lane's records.
pub struct LaneWriter {
    shared: Arc<Shared>,
    supply: Supply,
    segment: Option<OpenSegment>,
    /// No sequence below this is still on its way from this lane; `u64::MAX` when none is.
    floor: Arc<AtomicU64>,
    written: Sequence,
    durable: Sequence,
    poisoned: bool,
}

impl OpenSegment {
    pub(super) fn new(header: SegmentHeader, path: PathBuf, file: Arc<dyn SegmentFile>, allocated: u64) -> Self {
        Self {
            header,
            path,
            file,
            tail: SEGMENT_HEADER_BYTES as u64,
            allocated,
            table: Vec::new(),
            trailer: Trailer::default(),
            prewritten: 0,
            dirty: false,
        }
    }

    /// Takes a record into the table that the seal will write.
    pub(super) fn note(&mut self, header: &RecordHeader) {
        let at = self.table.len();
        self.table.resize(at + RECORD_HEADER_BYTES, 0);
        header.encode(&self.header.marker(), &mut self.table[at..]);
        self.trailer.add(header);
    }

    fn fits(&self, bytes: usize, planned: u64) -> bool {
        let whole = self.tail + planned + bytes as u64 <= self.allocated;
        whole && self.trailer.records < SEGMENT_RECORDS_MAX
    }
}

impl LaneWriter {
    pub(super) fn new(shared: Arc<Shared>, supply: Supply, floor: Arc<AtomicU64>) -> Self {
        Self { shared, supply, segment: None, floor, written: Sequence(0), durable: Sequence(0), poisoned: false }
    }

    /// Writes the drafts in order, neighbours in one call. Those that were written have `placed` set, also when a
    /// later one fails: a caller must sync and publish them.
    ///
    /// # Errors
    /// No space for a new segment; a write or sync failed (the writer is then poisoned).
    pub fn append(&mut self, drafts: &mut [RecordDraft<'_>]) -> Result<(), JournalError> {
        self.refuse_if_poisoned()?;
        self.hold_floor();
        let mut start = 0;
        while start < drafts.len() {
            self.make_room(round_up_to_block(RECORD_HEADER_BYTES + drafts[start].payload_len as usize))?;
            let end = self.plan_run(drafts, start);
            self.write_run(&mut drafts[start..end])?;
            start = end;
        }
        Ok(())
    }

    /// Appends small control records that share blocks, in one write.
    ///
    /// # Errors
    /// As [`Self::append`].
    pub fn append_small(
        &mut self,
        records: &[(RecordKind, i64, &[u8])],
    ) -> Result<Vec<(Sequence, Location)>, JournalError> {
        self.refuse_if_poisoned()?;
        self.hold_floor();
        let lengths = records.iter().map(|(_, _, payload)| RECORD_HEADER_BYTES + payload.len());
        let total = lengths.fold(0, |sum: usize, len| sum.next_multiple_of(SHARED_ALIGNMENT) + len);
        let mut group = AlignedBytes::zeroed(total);
        self.make_room(group.len())?;
        let segment = self.segment.as_mut().expect("make_room leaves an open segment");
        let mut placed = Vec::with_capacity(records.len());
        let mut at = 0usize;
        for (kind, received_ns, payload) in records {
            at = at.next_multiple_of(SHARED_ALIGNMENT);
            let header = RecordHeader {
                kind: *kind,
                sequence: self.shared.take_sequence(),
                offset: segment.tail + at as u64,
                payload_len: u32::try_from(payload.len()).expect("control records are far below 4 GiB"),
                payload_crc: crc32fast::hash(payload),
                durable: self.durable,
                received_ns: *received_ns,
                tile: None,
            };
            header.encode(&segment.header.marker(), &mut group[at..]);
            group[at + RECORD_HEADER_BYTES..][..payload.len()].copy_from_slice(payload);
            at += RECORD_HEADER_BYTES + payload.len();
            placed.push(header);
        }
        let offset = segment.tail;
        self.write(&mut [IoSlice::new(&group)], offset)?;
        let segment = self.segment.as_mut().expect("write keeps the segment");
        segment.tail += group.len() as u64;
        for header in &placed {
            segment.note(header);
            self.written = header.sequence;
        }
        let number = segment.header.number;
        Ok(placed
            .iter()
            .map(|header| {
                let location = Location { segment: number, offset: header.offset, payload_len: header.payload_len };
                (header.sequence, location)
            })
            .collect())
    }

    /// True when the open segment has room for so many records, of so many bytes together: a full disk does not keep them
    /// from being written.
    #[must_use]
    pub fn has_room_for(&self, records: usize, bytes: u64) -> bool {
        let has_room = |segment: &OpenSegment| {
            let most = usize::try_from(SEGMENT_RECORDS_MAX - segment.trailer.records).unwrap_or(usize::MAX);
            segment.tail.saturating_add(bytes) <= segment.allocated && records <= most
        };
        !self.poisoned && self.segment.as_ref().is_some_and(has_room)
    }

    /// Makes everything appended so far durable. Does nothing when it already is.
    ///
    /// # Errors
    /// The sync failed: the writer is poisoned and the caller must stop.
    pub fn sync(&mut self) -> Result<(), JournalError> {
        self.refuse_if_poisoned()?;
        if let Some(segment) = self.segment.as_mut().filter(|segment| segment.dirty) {
            let synced = if planted(Bug::NoSync) { Ok(()) } else { segment.file.sync() };
            let synced = if planted(Bug::RetriedSync) { synced.or_else(|_| segment.file.sync()) } else { synced };
            if let Err(error) = synced {
                self.poisoned = true;
                return Err(JournalError::failed(&segment.path, "sync")(error));
            }
            segment.dirty = false;
        }
        self.durable = self.written;
        Ok(())
    }

    /// Says that everything appended so far has reached the index' queue (or never will).
    pub fn release_floor(&self) {
        self.floor.store(u64::MAX, Ordering::SeqCst);
    }

    /// Writes a step of zeros ahead of the tail, so that later syncs find their blocks already allocated and
    /// initialised. For idle moments. Returns false when there is nothing (more) to do.
    ///
    /// # Errors
    /// As [`Self::append`].
    pub fn prewrite(&mut self, ahead: u64) -> Result<bool, JournalError> {
        self.refuse_if_poisoned()?;
        let Some(segment) = self.segment.as_mut() else { return Ok(false) };
        let from = segment.prewritten.max(segment.tail);
        let until = segment.allocated.min(segment.tail.saturating_add(ahead));
        if from >= until {
            return Ok(false);
        }
        let zeros = AlignedBytes::zeroed(PREWRITE_STEP);
        let len = zeros.len().min(usize::try_from(until - from).unwrap_or(usize::MAX));
        segment.prewritten = from + len as u64;
        self.write(&mut [IoSlice::new(&zeros[..len])], from)?;
        self.sync()?;
        Ok(true)
    }

    /// Syncs and hands the open segment to the keeper, which seals it; the next record goes into a new one. False: there
    /// is none.
    ///
    /// # Errors
    /// The sync failed.
    pub fn rotate(&mut self) -> Result<bool, JournalError> {
        self.sync()?;
        let open = self.segment.take();
        let had_one = open.is_some();
        open.into_iter().for_each(|segment| self.supply.retire(segment));
        Ok(had_one)
    }

    /// Syncs and hands the open segment to the keeper, which seals it.
    ///
    /// # Errors
    /// The sync failed.
    pub fn close(mut self) -> Result<(), JournalError> {
        self.sync()?;
        self.release_floor();
        if let Some(segment) = self.segment.take() {
            self.supply.retire(segment);
        }
        Ok(())
    }

    fn refuse_if_poisoned(&self) -> Result<(), JournalError> {
        match (&self.segment, self.poisoned) {
            (Some(segment), true) => Err(JournalError::Unusable {
                path: segment.path.clone(),
                problem: "poisoned by an earlier failed write or sync (invariant 9)".to_owned(),
            }),
            _ => Ok(()),
        }
    }

    /// From now on, facts of this lane may be on their way with sequences from here on.
    fn hold_floor(&self) {
        if self.floor.load(Ordering::SeqCst) == u64::MAX {
            self.floor.store(self.shared.next_sequence(), Ordering::SeqCst);
        }
    }

    /// Sees to it that the open segment has room for at least one record of `bytes`.
    fn make_room(&mut self, bytes: usize) -> Result<(), JournalError> {
        if self.segment.as_ref().is_some_and(|segment| segment.fits(bytes, 0)) {
            return Ok(());
        }
        self.sync()?;
        if let Some(full) = self.segment.take() {
            self.supply.retire(full);
        }
        self.segment = Some(self.supply.next(bytes as u64)?);
        Ok(())
    }

    /// How many drafts from `start` on go into the open segment with one write; gives them their places.
    fn plan_run(&mut self, drafts: &mut [RecordDraft<'_>], start: usize) -> usize {
        let segment = self.segment.as_mut().expect("make_room leaves an open segment");
        let room = usize::try_from(SEGMENT_RECORDS_MAX - segment.trailer.records).unwrap_or(usize::MAX);
        let most = drafts.len().min(start + WRITE_SLICES_MAX.min(room));
        let marker = segment.header.marker();
        let mut planned = 0u64;
        for (n, draft) in drafts[start..most].iter_mut().enumerate() {
            let whole = round_up_to_block(RECORD_HEADER_BYTES + draft.payload_len as usize);
            if !segment.fits(whole, planned) {
                return start + n;
            }
            let header = RecordHeader {
                kind: draft.kind,
                sequence: self.shared.take_sequence(),
                offset: segment.tail + planned,
                payload_len: draft.payload_len,
                payload_crc: draft.payload_crc,
                durable: self.durable,
                received_ns: draft.received_ns,
                tile: draft.tile,
            };
            header.encode(&marker, draft.bytes);
            draft.bytes[RECORD_HEADER_BYTES + draft.payload_len as usize..whole].fill(0);
            planned += whole as u64;
        }
        most
    }

    fn write_run(&mut self, run: &mut [RecordDraft<'_>]) -> Result<(), JournalError> {
        let segment = self.segment.as_ref().expect("make_room leaves an open segment");
        let (offset, number, marker) = (segment.tail, segment.header.number, segment.header.marker());
        let mut slices: Vec<IoSlice<'_>> = run
            .iter()
            .map(|draft| {
                IoSlice::new(&draft.bytes[..round_up_to_block(RECORD_HEADER_BYTES + draft.payload_len as usize)])
            })
            .collect();
        self.write(&mut slices, offset)?;
        let segment = self.segment.as_mut().expect("write keeps the segment");
        for draft in run {
            let header = RecordHeader::decode(draft.bytes, &marker, segment.tail)
                .expect("the header was encoded for this place by plan_run");
            segment.note(&header);
            segment.tail = header.next_block();
            self.written = header.sequence;
            let location = Location { segment: number, offset: header.offset, payload_len: header.payload_len };
            draft.placed = Some((header.sequence, location));
        }
        Ok(())
    }

    fn write(&mut self, slices: &mut [IoSlice<'_>], offset: u64) -> Result<(), JournalError> {
        let segment = self.segment.as_mut().expect("callers have an open segment");
        debug_assert!(offset.is_multiple_of(BLOCK as u64));
        segment.dirty = true;
        let Err(error) = segment.file.write_all_at(slices, offset) else { return Ok(()) };
        if super::is_full(&error) {
            return Err(self.abandon_full_segment());
        }
        self.poisoned = true;
        Err(JournalError::failed(&segment.path, "write")(error))
    }

    /// A write found the file system full although blocks were allocated (copy-on-write file systems): what was
    /// placed before is synced and kept, the rest of the segment is not used. Whole records may stand there that are
    /// refused, and stored in the next segment when they are sent again: its first record tells a start where this one
    /// ended. One that holds nothing else is removed before anything is refused.
    fn abandon_full_segment(&mut self) -> JournalError {
        if let Err(error) = self.sync() {
            return error;
        }
        match self.segment.take() {
            Some(empty) if empty.trailer.records == 0 => {
                if let Err(error) = keeper::seal(&self.shared, empty) {
                    return error;
                }
            }
            segment => segment.into_iter().for_each(|segment| self.supply.retire(segment)),
        }
        self.shared.no_space()
    }
}
