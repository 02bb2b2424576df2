//! The journal as a whole: opening a data directory, handing out writers, reading records in order.

use super::filesystem::{Filesystem, SegmentFile};
use super::format::{
    CONTROL_LANE, RECORD_HEADER_BYTES, RecordHeader, RecordKind, SegmentHeader, StoreId, Trailer, decode_store_block,
    encode_store_block,
};
use super::keeper::Keeper;
use super::mirror::{self, Mirror, MirrorKeeper};
use super::newer;
use super::reader::{self, ReadError, StoredRecord};
use super::recovery::{self, Found, InMemory, LaneEnds, RecoveryReport};
use super::removed::Removed;
use super::swap::Swaps;
use super::unreadable::Tolerant;
use super::{JournalError, LaneWriter};
use crate::base::aligned::AlignedBytes;
use crate::base::limits::BLOCK;
use crate::base::planted::{Bug, planted};
use crate::model::{ByteRange, Location, Pressure, Sequence, Tally};
use std::collections::{BTreeMap, VecDeque};
use std::io::IoSlice;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

/// Segment files that are kept open for reading.
const OPEN_FILES_MAX: usize = 64;

/// Below room for so many segments of a lane the disk's pressure is YELLOW, below one RED. A lane then still has one open
/// and one spare.
const YELLOW_BELOW_SEGMENTS: u64 = 4;

/// Numbers that are passed over when records are lost, or may be, behind the last ones that are known of.
pub const UNSEEN_MAX: u64 = 1 << 20;

/// How the journal is laid out.
#[derive(Clone, Copy, Debug)]
pub struct JournalOptions {
    /// Size of a lane's segment, bytes.
    pub segment_bytes: u64,
    /// Size of the control lane's segment, bytes.
    pub control_segment_bytes: u64,
    /// Free space of the file system that new segments leave alone, bytes.
    pub reserve_bytes: u64,
}

impl Default for JournalOptions {
    fn default() -> Self {
        Self { segment_bytes: 1 << 30, control_segment_bytes: 16 << 20, reserve_bytes: 256 << 20 }
    }
}

/// The journal of one data directory. Dropping it seals what its writers handed back.
pub struct Journal {
    keeper: Mutex<Keeper>,
    mirror_keeper: Mutex<Option<MirrorKeeper>>,
    pub(super) shared: Arc<Shared>,
}

/// Figures for metrics.
#[derive(Clone, Copy, Debug, Default)]
pub struct JournalStatus {
    /// Number of segment files.
    pub segments: usize,
    /// Bytes of all segment files, as allocated.
    pub segment_bytes: u64,
    /// Free bytes of the file system.
    pub free_bytes: u64,
    /// All bytes of the file system; 0 where it does not say.
    pub total_bytes: u64,
    /// Segments that could not be sealed since the start.
    pub seal_failures: u64,
}

/// A segment that is to be read again.
pub(super) struct ScrubTarget {
    pub(super) header: SegmentHeader,
    pub(super) sealed: Option<Trailer>,
    pub(super) in_memory: Option<Arc<InMemory>>,
    pub(super) file: Box<dyn SegmentFile>,
    /// Where the lane's sealed segments end, and its next one begins.
    pub(super) lanes: LaneEnds,
}

pub(super) struct Shared {
    pub(super) filesystem: Arc<dyn Filesystem>,
    pub(super) segments_dir: PathBuf,
    pub(super) quarantine_dir: PathBuf,
    pub(super) store: StoreId,
    options: JournalOptions,
    next_sequence: AtomicU64,
    next_segment: AtomicU64,
    /// No tile identifier up to this is free, whatever the records say.
    given_tile: AtomicU64,
    floors: Mutex<Vec<Arc<AtomicU64>>>,
    segments: RwLock<BTreeMap<u64, SegmentInfo>>,
    open_files: Mutex<VecDeque<(u64, Arc<dyn SegmentFile>)>>,
    seal_failures: AtomicU64,
    disk_pressure: AtomicU8,
}

#[derive(Clone)]
struct SegmentInfo {
    header: SegmentHeader,
    path: PathBuf,
    len: u64,
    sealed: Option<Trailer>,
    /// The writer's own file while the segment is open.
    file: Option<Arc<dyn SegmentFile>>,
    /// What a segment holds that has no table and is not written to.
    in_memory: Option<Arc<InMemory>>,
}

impl Journal {
    /// Opens or makes the journal of `data_dir` and recovers it. The caller holds the directory's lock.
    ///
    /// # Errors
    /// The directory can not be used, or recovery could not write.
    pub fn open(
        data_dir: &Path,
        filesystem: Arc<dyn Filesystem>,
        options: JournalOptions,
    ) -> Result<(Self, RecoveryReport), JournalError> {
        let segments_dir = data_dir.join("journal");
        let quarantine_dir = data_dir.join("quarantine");
        newer::refuse(&*filesystem, data_dir, &segments_dir)?;
        for dir in [&segments_dir, &quarantine_dir] {
            filesystem.create_dir_all(dir).map_err(JournalError::failed(dir, "create"))?;
        }
        match filesystem.mirror() {
            Some(mirror) => mirror.settle()?,
            None => mirror::go_alone(&*filesystem, data_dir)?,
        }
        Removed::clean(&*filesystem, data_dir)?;
        let store = open_store(&*filesystem, data_dir, &segments_dir)?;
        let settled = Swaps::new(&*filesystem, data_dir).settle(store)?;
        let shared = Arc::new(Shared {
            filesystem,
            segments_dir,
            quarantine_dir,
            store,
            options,
            next_sequence: AtomicU64::new(1),
            next_segment: AtomicU64::new(1),
            given_tile: AtomicU64::new(0),
            floors: Mutex::default(),
            segments: RwLock::default(),
            open_files: Mutex::default(),
            seal_failures: AtomicU64::new(0),
            disk_pressure: AtomicU8::new(0),
        });
        shared.look_at_disk();
        let report = recovery::recover(&shared)?;
        let report = RecoveryReport {
            completed_swaps: settled.completed_swaps,
            removed_leftovers: settled.removed_leftovers,
            ..report
        };
        let keeper = Keeper::start(Arc::clone(&shared)).map_err(JournalError::failed(data_dir, "start thread"))?;
        let mirror_keeper = shared.filesystem.mirror().map(MirrorKeeper::start).transpose();
        let mirror_keeper = mirror_keeper.map_err(JournalError::failed(data_dir, "start thread"))?;
        Ok((Self { keeper: Mutex::new(keeper), mirror_keeper: Mutex::new(mirror_keeper), shared }, report))
    }

    /// The writer of a lane (below [`CONTROL_LANE`]). One at a time for each lane.
    #[must_use]
    pub fn lane_writer(&self, lane: u16) -> LaneWriter {
        self.writer(lane, self.shared.options.segment_bytes, true)
    }

    /// The writer of control records. One at a time.
    #[must_use]
    pub fn control_writer(&self) -> LaneWriter {
        self.writer(CONTROL_LANE, self.shared.options.control_segment_bytes, false)
    }

    fn writer(&self, lane: u16, segment_bytes: u64, keeps_spare: bool) -> LaneWriter {
        let floor = Arc::new(AtomicU64::new(u64::MAX));
        lock(&self.shared.floors).push(Arc::clone(&floor));
        let supply = lock(&self.keeper).supply(Arc::clone(&self.shared), lane, segment_bytes, keeps_spare);
        LaneWriter::new(Arc::clone(&self.shared), supply, floor)
    }

    /// Waits until every segment that writers handed back so far is sealed, or could not be.
    pub fn settle(&self) {
        let done = lock(&self.keeper).when_done();
        let _ = done.recv();
    }

    /// Segments that could not be sealed since the start.
    #[must_use]
    pub fn seal_failures(&self) -> u64 {
        self.shared.seal_failures.load(Ordering::Relaxed)
    }

    /// Waits until everything that writers handed back is sealed. Call after the writers are closed.
    pub fn close(&self) {
        drop(lock(&self.mirror_keeper).take());
        lock(&self.keeper).stop();
    }

    /// Every fact with a sequence below this has been published by its writer, or never will be.
    ///
    /// A reader that wants to fold in order calls this first and drains its queue afterwards: a writer raises its
    /// floor only after it has published.
    #[must_use]
    pub fn safe_sequence(&self) -> Sequence {
        let next = self.shared.next_sequence();
        let floors = lock(&self.shared.floors);
        Sequence(floors.iter().map(|floor| floor.load(Ordering::SeqCst)).min().unwrap_or(u64::MAX).min(next))
    }

    /// The data directory's identity.
    #[must_use]
    pub fn store(&self) -> StoreId {
        self.shared.store
    }

    /// The highest tile identifier in the journal, as recovered at the start, or passed over since.
    #[must_use]
    pub fn max_tile_id(&self) -> u64 {
        self.shared.max_tile_id()
    }

    /// Passes over numbers up to these: they were given to records that are gone. Holds until the journal is closed, and
    /// then as far as higher ones were stored. Before there are writers.
    pub fn skip_numbers(&self, sequence: Sequence, next_tile: u64, segment: u64) {
        self.shared.next_sequence.fetch_max(sequence.0 + 1, Ordering::SeqCst);
        self.shared.given_tile.fetch_max(next_tile.saturating_sub(1), Ordering::SeqCst);
        self.shared.reserve_segment_number(segment);
    }

    /// Records a fact in a segment of its own, and seals that. Before there is a control writer.
    ///
    /// # Errors
    /// As [`LaneWriter::append_small`] and [`LaneWriter::close`].
    pub fn record_control(&self, kind: RecordKind, at_ns: i64, payload: &[u8]) -> Result<(), JournalError> {
        let mut writer = self.control_writer();
        let written = writer.append_small(&[(kind, at_ns, payload)]);
        // Nobody publishes it: the index must not wait for it.
        writer.release_floor();
        written?;
        writer.close()?;
        self.settle();
        Ok(())
    }

    /// Count and digest of all sealed records with a sequence up to `last`.
    ///
    /// # Errors
    /// A segment can not be read.
    pub fn tally_until(&self, last: Sequence) -> Result<Tally, ReadError> {
        let mut tally = Tally::default();
        for (info, trailer) in self.sealed_segments() {
            if trailer.last <= last {
                tally.merge(trailer.tally());
            } else if trailer.first <= last {
                let records = self.records_of(&info, &trailer)?;
                records.iter().filter(|record| record.sequence <= last).for_each(|record| tally.add(record.digest()));
            }
        }
        Ok(tally)
    }

    /// As [`Self::tally_until`], from the records that are found.
    ///
    /// # Errors
    /// As [`Self::tally_until`].
    pub fn recount_until(&self, last: Sequence) -> Result<Tally, ReadError> {
        let mut tally = Tally::default();
        for (info, trailer) in self.sealed_segments().into_iter().filter(|(_, trailer)| trailer.first <= last) {
            let records = self.records_of(&info, &trailer)?;
            records.iter().filter(|record| record.sequence <= last).for_each(|record| tally.add(record.digest()));
        }
        Ok(tally)
    }

    /// All sealed records behind `after`, in the order of their sequences.
    #[must_use]
    pub fn records_after(&self, after: Sequence) -> RecordsInOrder<'_> {
        let mut lanes: BTreeMap<u16, VecDeque<(SegmentInfo, Trailer)>> = BTreeMap::new();
        for (info, trailer) in self.sealed_segments() {
            if trailer.last > after {
                lanes.entry(info.header.lane).or_default().push_back((info, trailer));
            }
        }
        for segments in lanes.values_mut() {
            segments.make_contiguous().sort_by_key(|(_, trailer)| trailer.first);
        }
        let lanes = lanes.into_values().map(|segments| LaneRecords { segments, current: VecDeque::new() }).collect();
        RecordsInOrder { journal: self, lanes, after }
    }

    /// All records behind `after` whose facts are published, those in open segments too: in no order, some twice.
    pub fn records_so_far(&self, after: Sequence) -> impl Iterator<Item = Result<StoredRecord, ReadError>> + '_ {
        // What is sealed while this looks is found sealed afterwards.
        let (safe, open) = (self.safe_sequence(), self.records_of_open());
        let sealed = self.records_after(after);
        let (open, failed) = match open {
            Ok(open) => (open, None),
            Err(error) => (Vec::new(), Some(Err(error))),
        };
        let open = open.into_iter().filter(move |record| record.header.sequence > after).map(Ok);
        let is_published = move |record: &Result<StoredRecord, ReadError>| {
            record.as_ref().map_or(true, |record| record.header.sequence < safe)
        };
        sealed.chain(open).chain(failed).filter(is_published)
    }

    /// The records of segments that are being written, as far as they are on the way to the disk.
    fn records_of_open(&self) -> Result<Vec<StoredRecord>, ReadError> {
        let segments = self.shared.segments.read().unwrap_or_else(PoisonError::into_inner);
        let open: Vec<SegmentInfo> = segments.values().filter(|info| info.sealed.is_none()).cloned().collect();
        drop(segments);
        let mut found = Vec::new();
        for info in open {
            let segment = info.header.number;
            let Some(file) = &info.file else { continue };
            let scan = reader::scan(&**file, &info.header, info.len);
            let scan = scan.map_err(|source| ReadError::Io { segment, offset: 0, source })?;
            found.extend(scan.records.into_iter().map(|header| StoredRecord { header, segment }));
        }
        Ok(found)
    }

    /// Reads part of a record's payload into `bytes`, after checking that the record at `location` is there.
    /// The caller checks the bytes against the checksum it knows (invariant 10).
    ///
    /// # Errors
    /// The segment is missing, unreadable, or holds another record there.
    pub fn read(&self, location: Location, range: ByteRange, bytes: &mut [u8]) -> Result<RecordHeader, ReadError> {
        match self.read_first(location, range, bytes) {
            Err(error) if self.mirror().is_some() => self.read_mended(location, range, bytes).map_err(|_| error),
            read => read,
        }
    }

    /// As [`Self::read`], from the data directory as it is.
    pub(super) fn read_first(
        &self,
        location: Location,
        range: ByteRange,
        bytes: &mut [u8],
    ) -> Result<RecordHeader, ReadError> {
        let (file, marker) = self.file_of(location.segment)?;
        let io = |source| ReadError::Io { segment: location.segment, offset: location.offset, source };
        let damaged = |what| ReadError::Damaged { segment: location.segment, offset: location.offset, what };
        let header = reader::header_at(&*file, &marker, location)?;
        let at = location.offset + RECORD_HEADER_BYTES as u64 + u64::from(range.offset);
        let bytes = &mut bytes[..range.len as usize];
        if file.read_at(bytes, at).map_err(io)? < bytes.len() {
            return Err(damaged("the segment ends inside the record"));
        }
        Ok(header)
    }

    /// A whole control payload, checked against its CRC.
    ///
    /// # Errors
    /// As [`Self::read`], and a CRC that does not hold.
    pub fn read_control(&self, location: Location) -> Result<Vec<u8>, ReadError> {
        if self.mirror().is_none() {
            self.check_end(location)?;
        }
        let mut bytes = vec![0; location.payload_len as usize];
        let whole = ByteRange { offset: 0, len: location.payload_len };
        let header = self.read(location, whole, &mut bytes)?;
        if crc32fast::hash(&bytes) != header.payload_crc && self.read_mended(location, whole, &mut bytes).is_err() {
            return Err(ReadError::Damaged {
                segment: location.segment,
                offset: location.offset,
                what: "the payload does not match its CRC-32",
            });
        }
        Ok(bytes)
    }

    /// The segments: number and bytes, in the order of their numbers.
    #[must_use]
    pub fn segments(&self) -> Vec<(u64, u64)> {
        let segments = self.shared.segments.read().unwrap_or_else(PoisonError::into_inner);
        segments.values().map(|segment| (segment.header.number, segment.len)).collect()
    }

    pub(super) fn scrub_target(&self, number: u64) -> Result<ScrubTarget, ReadError> {
        let mut lanes = LaneEnds::default();
        let (info, next) = {
            let segments = self.shared.segments.read().unwrap_or_else(PoisonError::into_inner);
            let info = segments.get(&number).cloned().ok_or(ReadError::Missing(number))?;
            let of_lane = || segments.values().filter(|other| other.header.lane == info.header.lane);
            of_lane().filter_map(|other| other.sealed).for_each(|trailer| lanes.note(info.header.lane, trailer.last));
            let last = info.sealed.map(|trailer| trailer.last).unwrap_or_default();
            let first = |other: &SegmentInfo| other.sealed.map_or(Sequence(u64::MAX), |trailer| trailer.first);
            let behind = of_lane().filter(|other| other.header.number > number && first(other) > last);
            let next = behind.min_by_key(|other| first(other)).map(|next| next.header);
            (info, next)
        };
        // One that can not be read says nothing.
        if let Some(next) = next
            && let Ok((file, _)) = self.file_of(next.number)
        {
            let _ = lanes.note_begin(&*file, &next);
        }
        let file = self.shared.filesystem.open_uncached(&info.path);
        let file = file.map_err(|source| ReadError::Io { segment: number, offset: 0, source })?;
        Ok(ScrubTarget { header: info.header, sealed: info.sealed, in_memory: info.in_memory, file, lanes })
    }

    /// How full the disk is, as the keeper last saw it, at most about a second ago.
    #[must_use]
    pub fn disk_pressure(&self) -> Pressure {
        Pressure::from_code(self.shared.disk_pressure.load(Ordering::Relaxed))
    }

    /// The mirror, if there is one.
    #[must_use]
    pub fn mirror(&self) -> Option<&Arc<Mirror>> {
        self.shared.filesystem.mirror()
    }

    /// Path and marker of a segment.
    pub(super) fn place_of(&self, segment: u64) -> Result<(PathBuf, [u8; 16]), ReadError> {
        let segments = self.shared.segments.read().unwrap_or_else(PoisonError::into_inner);
        let info = segments.get(&segment).ok_or(ReadError::Missing(segment))?;
        Ok((info.path.clone(), info.header.marker()))
    }

    /// Memory for a payload is taken only when the file is long enough to hold it.
    fn check_end(&self, location: Location) -> Result<(), ReadError> {
        let Location { segment, offset, payload_len } = location;
        let (file, _) = self.file_of(segment)?;
        let len = file.length().map_err(|source| ReadError::Io { segment, offset, source })?;
        let begin = offset.saturating_add(RECORD_HEADER_BYTES as u64);
        if begin.saturating_add(u64::from(payload_len)) > len {
            return Err(ReadError::Damaged { segment, offset, what: "the segment ends inside the record" });
        }
        Ok(())
    }

    /// Bytes that new segments may still take of the file system, behind what is kept in reserve.
    #[must_use]
    pub fn room_bytes(&self) -> u64 {
        self.shared.room_for_segment(0).unwrap_or(0)
    }

    /// Figures for metrics.
    #[must_use]
    pub fn status(&self) -> JournalStatus {
        let segments = self.shared.segments.read().unwrap_or_else(PoisonError::into_inner);
        JournalStatus {
            segments: segments.len(),
            segment_bytes: segments.values().map(|segment| segment.len).sum(),
            free_bytes: self.shared.filesystem.free_bytes(&self.shared.segments_dir).unwrap_or(0),
            total_bytes: self.shared.filesystem.total_bytes(&self.shared.segments_dir).unwrap_or(0),
            seal_failures: self.shared.seal_failures.load(Ordering::Relaxed),
        }
    }

    fn sealed_segments(&self) -> Vec<(SegmentInfo, Trailer)> {
        let segments = self.shared.segments.read().unwrap_or_else(PoisonError::into_inner);
        segments.values().filter_map(|info| info.sealed.map(|trailer| (info.clone(), trailer))).collect()
    }

    /// The records of a sealed segment: by its table, or by a scan where the table does not hold.
    fn records_of(&self, info: &SegmentInfo, trailer: &Trailer) -> Result<Vec<RecordHeader>, ReadError> {
        if let Some(found) = &info.in_memory {
            return Ok(found.records.clone());
        }
        let number = info.header.number;
        let io = |source| ReadError::Io { segment: number, offset: trailer.table_offset, source };
        let (file, _) = self.file_of(number)?;
        let problem = match reader::read_table(&*file, trailer) {
            Ok(Some(records)) => return Ok(records),
            Ok(None) => "it is damaged".to_owned(),
            Err(error) => format!("it can not be read: {error}"),
        };
        tracing::warn!(path = %info.path.display(), problem, "the segment's table does not help: reading its records instead");
        Ok(reader::scan(&Tolerant::at_start(&*file), &info.header, trailer.table_offset).map_err(io)?.records)
    }

    pub(super) fn file_of(&self, number: u64) -> Result<(Arc<dyn SegmentFile>, [u8; 16]), ReadError> {
        let info = {
            let segments = self.shared.segments.read().unwrap_or_else(PoisonError::into_inner);
            segments.get(&number).cloned().ok_or(ReadError::Missing(number))?
        };
        let marker = info.header.marker();
        if let Some(file) = info.file {
            return Ok((file, marker));
        }
        let mut open_files = lock(&self.shared.open_files);
        if let Some(position) = open_files.iter().position(|(open, _)| *open == number) {
            let found = open_files.remove(position).expect("position is in range");
            let file = Arc::clone(&found.1);
            open_files.push_back(found);
            return Ok((file, marker));
        }
        let file = self.shared.filesystem.open_read(&info.path);
        let file: Arc<dyn SegmentFile> =
            Arc::from(file.map_err(|source| ReadError::Io { segment: number, offset: 0, source })?);
        open_files.push_back((number, Arc::clone(&file)));
        if open_files.len() > OPEN_FILES_MAX {
            open_files.pop_front();
        }
        Ok((file, marker))
    }
}

/// Sealed records of all lanes, merged by sequence. Holds one segment's table a lane.
pub struct RecordsInOrder<'a> {
    journal: &'a Journal,
    lanes: Vec<LaneRecords>,
    after: Sequence,
}

struct LaneRecords {
    segments: VecDeque<(SegmentInfo, Trailer)>,
    current: VecDeque<StoredRecord>,
}

impl LaneRecords {
    fn fill(&mut self, journal: &Journal, after: Sequence) -> Result<(), ReadError> {
        while self.current.is_empty() {
            let Some((info, trailer)) = self.segments.pop_front() else { return Ok(()) };
            let segment = info.header.number;
            let records = journal.records_of(&info, &trailer)?;
            let behind = records.into_iter().filter(|header| header.sequence > after);
            self.current = behind.map(|header| StoredRecord { header, segment }).collect();
        }
        Ok(())
    }
}

impl Iterator for RecordsInOrder<'_> {
    type Item = Result<StoredRecord, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        for lane in &mut self.lanes {
            if let Err(error) = lane.fill(self.journal, self.after) {
                lane.segments.clear();
                return Some(Err(error));
            }
        }
        let first = |lane: &LaneRecords| lane.current.front().map(|record| record.header.sequence);
        let lane = self.lanes.iter_mut().filter(|lane| !lane.current.is_empty()).min_by_key(|lane| first(lane))?;
        lane.current.pop_front().map(Ok)
    }
}

impl Shared {
    fn max_tile_id(&self) -> u64 {
        let segments = self.segments.read().unwrap_or_else(PoisonError::into_inner);
        let trailers = segments.values().filter_map(|segment| segment.sealed);
        trailers.map(|trailer| trailer.max_tile).fold(self.given_tile.load(Ordering::SeqCst), u64::max)
    }

    /// Passes over numbers that records may have which can not be read now.
    pub(super) fn skip_unseen(&self) {
        self.next_sequence.fetch_add(UNSEEN_MAX, Ordering::SeqCst);
        self.given_tile.fetch_max(self.max_tile_id() + UNSEEN_MAX, Ordering::SeqCst);
    }

    pub(super) fn next_sequence(&self) -> u64 {
        self.next_sequence.load(Ordering::SeqCst)
    }

    pub(super) fn take_sequence(&self) -> Sequence {
        Sequence(self.next_sequence.fetch_add(1, Ordering::SeqCst))
    }

    pub(super) fn take_segment_number(&self) -> u64 {
        self.next_segment.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn reserve_segment_number(&self, number: u64) {
        self.next_segment.fetch_max(number + 1, Ordering::Relaxed);
    }

    pub(super) fn sync_segments_dir(&self) -> Result<(), JournalError> {
        if planted(Bug::NoDirectorySync) {
            return Ok(());
        }
        self.filesystem.sync_dir(&self.segments_dir).map_err(JournalError::failed(&self.segments_dir, "sync"))
    }

    pub(super) fn count_seal_failure(&self) {
        self.seal_failures.fetch_add(1, Ordering::Relaxed);
    }

    /// Bytes that a new segment may take. Control records may use half of the reserve: an acquisition can be ended on a
    /// disk that takes no more tiles. The other half is left for a start to seal what is open.
    pub(super) fn room_for_segment(&self, lane: u16) -> Result<u64, JournalError> {
        let free = self.filesystem.free_bytes(&self.segments_dir);
        let free = free.map_err(JournalError::failed(&self.segments_dir, "stat"))?;
        let reserve = self.options.reserve_bytes;
        Ok(free.saturating_sub(if lane == CONTROL_LANE { reserve / 2 } else { reserve }))
    }

    /// Looks how full the disk is, for [`Journal::disk_pressure`].
    pub(super) fn look_at_disk(&self) {
        let segment = self.options.segment_bytes;
        let pressure = match self.room_for_segment(0) {
            Ok(room) if room >= segment.saturating_mul(YELLOW_BELOW_SEGMENTS) => Pressure::Green,
            Ok(room) if room >= segment => Pressure::Yellow,
            _ => Pressure::Red,
        };
        self.disk_pressure.store(pressure as u8, Ordering::Relaxed);
    }

    pub(super) fn no_space(&self) -> JournalError {
        JournalError::NoSpace {
            dir: self.segments_dir.clone(),
            free_bytes: self.filesystem.free_bytes(&self.segments_dir).unwrap_or(0),
            reserve_bytes: self.options.reserve_bytes,
        }
    }

    pub(super) fn register_open(&self, header: &SegmentHeader, path: &Path, file: &Arc<dyn SegmentFile>, len: u64) {
        let file = Some(Arc::clone(file));
        let info = SegmentInfo { header: *header, path: path.to_owned(), len, sealed: None, file, in_memory: None };
        self.segments.write().unwrap_or_else(PoisonError::into_inner).insert(header.number, info);
    }

    pub(super) fn register_found(&self, header: &SegmentHeader, path: &Path, trailer: Trailer, len: u64) {
        self.register_whole(header, path, trailer, len, None);
    }

    /// A segment that is left as it is, without a table: `trailer` has the sums over its records.
    pub(super) fn register_unsealed(
        &self,
        header: &SegmentHeader,
        path: &Path,
        trailer: Trailer,
        len: u64,
        in_memory: InMemory,
    ) {
        self.register_whole(header, path, trailer, len, Some(Arc::new(in_memory)));
    }

    fn register_whole(
        &self,
        header: &SegmentHeader,
        path: &Path,
        trailer: Trailer,
        len: u64,
        in_memory: Option<Arc<InMemory>>,
    ) {
        self.next_sequence.fetch_max(trailer.last.0 + 1, Ordering::SeqCst);
        let (path, sealed) = (path.to_owned(), Some(trailer));
        let info = SegmentInfo { header: *header, path, len, sealed, file: None, in_memory };
        self.segments.write().unwrap_or_else(PoisonError::into_inner).insert(header.number, info);
    }

    pub(super) fn register_sealed(&self, number: u64, trailer: Trailer, len: u64) {
        self.next_sequence.fetch_max(trailer.last.0 + 1, Ordering::SeqCst);
        let mut segments = self.segments.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(info) = segments.get_mut(&number) {
            (info.sealed, info.len, info.file) = (Some(trailer), len, None);
        }
    }

    pub(super) fn forget(&self, number: u64) {
        self.segments.write().unwrap_or_else(PoisonError::into_inner).remove(&number);
    }
}

/// Reads the data directory's identity, or gives it one.
pub(super) fn open_store(
    filesystem: &dyn Filesystem,
    data_dir: &Path,
    segments_dir: &Path,
) -> Result<StoreId, JournalError> {
    let own = read_store(filesystem, data_dir);
    if let Ok(Some(store)) = own {
        // A killed process may not have synced it.
        let path = data_dir.join("store");
        let file = filesystem.open_write(&path).map_err(JournalError::failed(&path, "open"))?;
        file.sync().map_err(JournalError::failed(&path, "sync"))?;
        filesystem.sync_dir(data_dir).map_err(JournalError::failed(data_dir, "sync"))?;
        return Ok(store);
    }
    // One that can not be read is not one that is not there.
    let store = match (store_of_segments(filesystem, segments_dir)?, own) {
        (Some(store), _) => store,
        (None, Err(error)) => return Err(error),
        (None, Ok(_)) => StoreId(filesystem.new_identity()),
    };
    write_store(filesystem, data_dir, store)?;
    Ok(store)
}

/// The identity of a directory, if it has one.
pub(super) fn identity(filesystem: &dyn Filesystem, data_dir: &Path) -> Result<Option<StoreId>, JournalError> {
    if let Some(store) = read_store(filesystem, data_dir)? {
        return Ok(Some(store));
    }
    match store_of_segments(filesystem, &data_dir.join("journal")) {
        Err(JournalError::Failed { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => Ok(None),
        found => found,
    }
}

fn read_store(filesystem: &dyn Filesystem, data_dir: &Path) -> Result<Option<StoreId>, JournalError> {
    let path = data_dir.join("store");
    let failed = |action| JournalError::failed(&path, action);
    if !filesystem.list(data_dir).map_err(failed("list"))?.iter().any(|name| name == "store") {
        return Ok(None);
    }
    let mut block = [0; BLOCK];
    let file = filesystem.open_read(&path).map_err(failed("open"))?;
    let filled = file.read_at(&mut block, 0).map_err(failed("read"))?;
    Ok(decode_store_block(&block[..filled]))
}

/// Gives a directory its identity, in place of one that is damaged.
pub(super) fn write_store(filesystem: &dyn Filesystem, data_dir: &Path, store: StoreId) -> Result<(), JournalError> {
    let path = data_dir.join("store");
    let failed = |action| JournalError::failed(&path, action);
    if matches!(read_store(filesystem, data_dir), Ok(Some(found)) if found == store) {
        return Ok(());
    }
    if filesystem.list(data_dir).map_err(failed("list"))?.iter().any(|name| name == "store") {
        filesystem.remove(&path).map_err(failed("remove"))?;
    }
    let file = filesystem.create(&path, BLOCK as u64).map_err(failed("create"))?;
    let mut block = AlignedBytes::zeroed(BLOCK);
    block.copy_from_slice(&encode_store_block(store));
    file.write_all_at(&mut [IoSlice::new(&block)], 0).map_err(failed("write"))?;
    file.sync().map_err(failed("sync"))?;
    filesystem.sync_dir(data_dir).map_err(failed("sync"))
}

/// The identity that the segments carry, for a directory whose store file is gone or damaged.
fn store_of_segments(filesystem: &dyn Filesystem, segments_dir: &Path) -> Result<Option<StoreId>, JournalError> {
    for (_, path) in recovery::list_segments(filesystem, segments_dir)? {
        let file = filesystem.open_read(&path).map_err(JournalError::failed(&path, "open"))?;
        let found = recovery::identify(&Tolerant::at_start(&*file), &path, None)?;
        if let Found::Sealed(header, ..) | Found::Unsealed(header) = found {
            return Ok(Some(header.store));
        }
    }
    Ok(None)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
