//! A data directory opened for reading only: beside a daemon, or where none runs.
//!
//! Takes no lock and changes no byte: must never recover, seal or repair. Segments may appear, grow, be sealed and be
//! removed while it looks: what it found when it was opened is what it gives. A segment that was removed since is
//! [`ReadError::Missing`]; opening again finds where its records went. Holds the records of unsealed segments, and one
//! table for each sealed segment that overlaps in sequence while records are read.

use super::JournalError;
use super::filesystem::{Filesystem, SegmentFile};
use super::format::{RECORD_HEADER_BYTES, RecordHeader, SegmentHeader, StoreId, Trailer};
use super::reader::{self, READ_STEP, ReadError, StoredRecord};
use super::recovery::{self, Damage, DamageKind, Found, LaneEnds};
use super::verify::stored_identity;
use crate::base::limits::BLOCK;
use crate::model::{ByteRange, Location, Sequence};
use std::cmp::Reverse;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Segment files that are kept open.
const OPEN_FILES_MAX: usize = 64;
/// How often the directory is listed when segments are removed meanwhile.
const LISTINGS_MAX: usize = 8;
/// How often a segment is looked at that seems damaged but may only be in the middle of a write.
const LOOKS_MAX: usize = 3;

/// The journal of a data directory, as it was when this was opened.
pub struct ReadOnlyJournal {
    filesystem: Arc<dyn Filesystem>,
    store: Option<StoreId>,
    segments: BTreeMap<u64, Segment>,
    /// Where the segments of each lane end.
    ends: LaneEnds,
    damage: Mutex<Vec<Damage>>,
    open_files: Mutex<VecDeque<(u64, Arc<dyn SegmentFile>)>>,
}

struct Segment {
    header: SegmentHeader,
    path: PathBuf,
    first: Sequence,
    last: Sequence,
    contents: Contents,
}

enum Contents {
    /// By its table, which is read when it is needed.
    Sealed(Trailer),
    /// By a scan, in order of the sequence.
    Scanned(Vec<RecordHeader>),
}

impl ReadOnlyJournal {
    /// Lists the segments of `data_dir`; scans those that are not sealed.
    ///
    /// # Errors
    /// The directory or a file can not be read, holds no journal, or was written by a newer program.
    pub fn open(data_dir: &Path, filesystem: Arc<dyn Filesystem>) -> Result<Self, JournalError> {
        let store = stored_identity(data_dir, &*filesystem);
        let mut journal = Self {
            filesystem,
            store,
            segments: BTreeMap::new(),
            ends: LaneEnds::default(),
            damage: Mutex::default(),
            open_files: Mutex::default(),
        };
        let dir = data_dir.join("journal");
        let unusable = |problem: &str| JournalError::Unusable { path: dir.clone(), problem: problem.to_owned() };
        for _ in 0..LISTINGS_MAX {
            if journal.take_stock(&dir)? {
                return if journal.store.is_some() { Ok(journal) } else { Err(unusable("holds no journal")) };
            }
        }
        Err(unusable("segments are removed faster than they can be read: try again"))
    }

    /// The data directory's identity.
    #[must_use]
    pub fn store(&self) -> StoreId {
        self.store.unwrap_or(StoreId([0; 16]))
    }

    /// What is not as it was written, as far as it was seen: damaged tables show when [`Self::records`] reads them,
    /// damaged payloads when they are read.
    #[must_use]
    pub fn damage(&self) -> Vec<Damage> {
        lock(&self.damage).clone()
    }

    /// All records that hold, in the order of their sequences, each sequence once.
    #[must_use]
    pub fn records(&self) -> ReadOnlyRecords<'_> {
        let mut waiting: Vec<&Segment> = self.segments.values().collect();
        waiting.sort_by_key(|segment| Reverse((segment.first, segment.header.number)));
        ReadOnlyRecords { journal: self, waiting, active: BTreeMap::new(), last: Sequence(0) }
    }

    /// Reads part of a record's payload into `bytes`, after checking that the record at `location` is there.
    /// The caller checks the bytes against the checksum it knows (invariant 10).
    ///
    /// # Errors
    /// The segment is missing, unreadable, or holds another record there.
    pub fn read(&self, location: Location, range: ByteRange, bytes: &mut [u8]) -> Result<RecordHeader, ReadError> {
        let (file, header) = self.record_at(location)?;
        let bytes = &mut bytes[..range.len as usize];
        fill(&*file, location, u64::from(range.offset), bytes)?;
        Ok(header)
    }

    /// A whole payload, checked against its CRC-32. For control records: a tile's may be large.
    ///
    /// # Errors
    /// As [`Self::read`], and a CRC that does not hold.
    pub fn payload(&self, location: Location) -> Result<Vec<u8>, ReadError> {
        let whole = ByteRange { offset: 0, len: location.payload_len };
        let mut payload = Vec::new();
        self.copy_payload(location, whole, &mut |bytes| {
            payload.extend_from_slice(bytes);
            Ok::<_, ReadError>(())
        })?;
        Ok(payload)
    }

    /// Gives the `part` of a payload piece by piece, while the whole of it is checked against its CRC-32: what `each`
    /// was given may be used only when this returns without an error.
    ///
    /// # Errors
    /// As [`Self::payload`], and those of `each`.
    pub fn copy_payload<E: From<ReadError>>(
        &self,
        location: Location,
        part: ByteRange,
        each: &mut dyn FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<RecordHeader, E> {
        let (file, header) = self.record_at(location)?;
        let len = location.payload_len as usize;
        let wanted = part.bounds();
        if wanted.end > len {
            return Err(damaged(location, "the image does not lie in the payload").into());
        }
        let mut hasher = crc32fast::Hasher::new();
        let mut step = vec![0; READ_STEP.min(len)];
        for start in (0..len).step_by(READ_STEP) {
            let bytes = &mut step[..READ_STEP.min(len - start)];
            fill(&*file, location, start as u64, bytes)?;
            hasher.update(bytes);
            let inside = |at: usize| at.clamp(start, start + bytes.len()) - start;
            let given = &bytes[inside(wanted.start)..inside(wanted.end)];
            if !given.is_empty() {
                each(given)?;
            }
        }
        if hasher.finalize() != header.payload_crc {
            return Err(damaged(location, "the payload does not match its CRC-32").into());
        }
        Ok(header)
    }

    /// Takes up every segment that is listed and not known as sealed. False when one was gone before it could be
    /// opened: its records may have gone to a segment that was not there yet, or was read before they came.
    fn take_stock(&mut self, dir: &Path) -> Result<bool, JournalError> {
        let listed = recovery::list_segments(&*self.filesystem, dir)?;
        self.ends = LaneEnds::of_sealed(&*self.filesystem, &listed).map_err(JournalError::failed(dir, "read"))?;
        self.segments.retain(|number, segment| {
            matches!(segment.contents, Contents::Sealed(_)) && listed.iter().any(|(listed, _)| listed == number)
        });
        lock(&self.damage).retain(|damage| self.segments.values().any(|segment| segment.path == damage.path));
        for (number, path) in listed {
            if self.segments.contains_key(&number) {
                continue;
            }
            match self.filesystem.open_read(&path) {
                Ok(file) => self.take_up(number, path, &*file)?,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
                Err(error) => return Err(JournalError::failed(path, "open")(error)),
            }
        }
        Ok(true)
    }

    fn take_up(&mut self, number: u64, path: PathBuf, file: &dyn SegmentFile) -> Result<(), JournalError> {
        for look in 1..=LOOKS_MAX {
            let (segment, damage) = self.look_at(&path, file)?;
            // What is being written may look like corruption; what is corrupt looks so every time.
            let is_sealed = segment.as_ref().is_some_and(|found| matches!(found.contents, Contents::Sealed(_)));
            let corrupt = damage.iter().any(|damage| damage.kind.may_be_loss());
            if !corrupt || is_sealed || look == LOOKS_MAX {
                lock(&self.damage).extend(damage);
                if let Some(segment) = segment {
                    self.ends.note(segment.header.lane, segment.last);
                    self.store = Some(segment.header.store);
                    self.segments.insert(number, segment);
                }
                break;
            }
        }
        Ok(())
    }

    /// One look at a segment. `None` for one that holds no record.
    fn look_at(&self, path: &Path, file: &dyn SegmentFile) -> Result<(Option<Segment>, Vec<Damage>), JournalError> {
        let at = |offset, len, kind| Damage { path: path.to_owned(), offset, len, kind };
        let mut damage = Vec::new();
        let mut found = recovery::identify(file, path, self.store)?;
        if let Found::HeaderLost(header) = found {
            damage.push(at(0, BLOCK as u64, DamageKind::Corrupt));
            found = recovery::sealed_or_not(file, path, header)?;
        }
        let segment = match found {
            Found::Sealed(header, trailer, _) => {
                let (first, last) = (trailer.first, trailer.last);
                Some(Segment { header, path: path.to_owned(), first, last, contents: Contents::Sealed(trailer) })
            }
            Found::Unsealed(header) | Found::HeaderLost(header) => {
                let end = file.length().map_err(JournalError::failed(path, "read"))?;
                let (_, verdict) = recovery::scan_and_judge(file, path, &header, end, &self.ends)?;
                damage.extend(verdict.damage.iter().map(|(offset, len, kind)| at(*offset, *len, *kind)));
                Some(scanned(header, path, verdict.records))
            }
            Found::Blank => None,
            Found::Unreadable(len) => {
                damage.push(at(0, len, DamageKind::Corrupt));
                None
            }
        };
        Ok((segment, damage))
    }

    /// The records of a segment, in order of the sequence.
    fn records_of(&self, segment: &Segment) -> Result<VecDeque<RecordHeader>, ReadError> {
        let trailer = match &segment.contents {
            Contents::Scanned(records) => return Ok(records.iter().copied().collect()),
            Contents::Sealed(trailer) => trailer,
        };
        let number = segment.header.number;
        let io = |source| ReadError::Io { segment: number, offset: trailer.table_offset, source };
        let file = self.file_of(segment)?;
        let mut records = match reader::read_table(&*file, trailer).map_err(io)? {
            Some(records) => records,
            None => self.records_without_table(segment, trailer, &*file)?,
        };
        records.sort_by_key(|record| record.sequence);
        Ok(records.into())
    }

    /// The records of a sealed segment whose table does not hold.
    fn records_without_table(
        &self,
        segment: &Segment,
        trailer: &Trailer,
        file: &dyn SegmentFile,
    ) -> Result<Vec<RecordHeader>, ReadError> {
        let (path, header, end) = (&segment.path, &segment.header, trailer.table_offset);
        let at = |offset, len, kind| Damage { path: path.clone(), offset, len, kind };
        let scanned = recovery::scan_and_judge(file, path, header, end, &self.ends);
        let failed = |error: JournalError| ReadError::Io {
            segment: header.number,
            offset: 0,
            source: io::Error::other(error.to_string()),
        };
        let (_, verdict) = scanned.map_err(failed)?;
        let mut found = vec![at(end, trailer.records * RECORD_HEADER_BYTES as u64, DamageKind::Corrupt)];
        found.extend(verdict.damage.iter().map(|(offset, len, kind)| at(*offset, *len, *kind)));
        let mut damage = lock(&self.damage);
        found.retain(|new| !damage.contains(new));
        damage.extend(found);
        Ok(verdict.records)
    }

    fn record_at(&self, location: Location) -> Result<(Arc<dyn SegmentFile>, RecordHeader), ReadError> {
        let segment = self.segments.get(&location.segment).ok_or(ReadError::Missing(location.segment))?;
        let file = self.file_of(segment)?;
        let header = reader::header_at(&*file, &segment.header.marker(), location)?;
        Ok((file, header))
    }

    fn file_of(&self, segment: &Segment) -> Result<Arc<dyn SegmentFile>, ReadError> {
        let number = segment.header.number;
        let mut open_files = lock(&self.open_files);
        if let Some(found) = open_files.iter().position(|(open, _)| *open == number).and_then(|n| open_files.remove(n))
        {
            let file = Arc::clone(&found.1);
            open_files.push_back(found);
            return Ok(file);
        }
        let file = self.filesystem.open_read(&segment.path).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => ReadError::Missing(number),
            _ => ReadError::Io { segment: number, offset: 0, source },
        })?;
        let file: Arc<dyn SegmentFile> = Arc::from(file);
        open_files.push_back((number, Arc::clone(&file)));
        if open_files.len() > OPEN_FILES_MAX {
            open_files.pop_front();
        }
        Ok(file)
    }
}

/// Records of all segments, merged by sequence. Where two segments hold a record, the later segment's is given.
pub struct ReadOnlyRecords<'a> {
    journal: &'a ReadOnlyJournal,
    /// Segments that the merge has not reached, the nearest last.
    waiting: Vec<&'a Segment>,
    /// What is left of each segment that it has, by the next sequence, later segments first.
    active: BTreeMap<(Sequence, Reverse<u64>), VecDeque<RecordHeader>>,
    last: Sequence,
}

impl ReadOnlyRecords<'_> {
    /// Loads every segment that may hold the next record.
    fn load(&mut self) -> Result<(), ReadError> {
        while let Some(segment) = self.waiting.last().copied() {
            if self.active.first_key_value().is_some_and(|((next, _), _)| *next < segment.first) {
                return Ok(());
            }
            self.waiting.pop();
            let records = self.journal.records_of(segment)?;
            self.put_back(segment.header.number, records);
        }
        Ok(())
    }

    fn put_back(&mut self, segment: u64, records: VecDeque<RecordHeader>) {
        if let Some(next) = records.front() {
            self.active.insert((next.sequence, Reverse(segment)), records);
        }
    }
}

impl Iterator for ReadOnlyRecords<'_> {
    type Item = Result<StoredRecord, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Err(error) = self.load() {
                self.waiting.clear();
                self.active.clear();
                return Some(Err(error));
            }
            let ((sequence, Reverse(segment)), mut records) = self.active.pop_first()?;
            let header = records.pop_front();
            self.put_back(segment, records);
            if sequence > self.last {
                self.last = sequence;
                return header.map(|header| Ok(StoredRecord { header, segment }));
            }
        }
    }
}

fn scanned(header: SegmentHeader, path: &Path, mut records: Vec<RecordHeader>) -> Segment {
    records.sort_by_key(|record| record.sequence);
    let end = |record: Option<&RecordHeader>| record.map(|record| record.sequence).unwrap_or_default();
    let (first, last) = (end(records.first()), end(records.last()));
    Segment { header, path: path.to_owned(), first, last, contents: Contents::Scanned(records) }
}

/// Reads `bytes` from `offset` of the payload on.
fn fill(file: &dyn SegmentFile, location: Location, offset: u64, bytes: &mut [u8]) -> Result<(), ReadError> {
    let at = location.offset + RECORD_HEADER_BYTES as u64 + offset;
    let io = |source| ReadError::Io { segment: location.segment, offset: location.offset, source };
    if file.read_at(bytes, at).map_err(io)? < bytes.len() {
        return Err(damaged(location, "the segment ends inside the record"));
    }
    Ok(())
}

fn damaged(location: Location, what: &'static str) -> ReadError {
    ReadError::Damaged { segment: location.segment, offset: location.offset, what }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::super::filesystem::{RealFilesystem, refuse_writes};
    use super::super::format::{RecordKind, segment_file_name};
    use super::super::store::{Journal, JournalOptions};
    use super::*;
    use std::os::unix::fs::FileExt;
    use tempfile::TempDir;

    const OPTIONS: JournalOptions =
        JournalOptions { segment_bytes: 32 << 10, control_segment_bytes: 32 << 10, reserve_bytes: 0 };

    fn open(dir: &TempDir) -> (Journal, Arc<dyn Filesystem>) {
        let filesystem: Arc<dyn Filesystem> = Arc::new(RealFilesystem);
        let (journal, _) = Journal::open(dir.path(), Arc::clone(&filesystem), OPTIONS).expect("opens");
        (journal, filesystem)
    }

    fn look(dir: &TempDir) -> ReadOnlyJournal {
        ReadOnlyJournal::open(dir.path(), Arc::new(RealFilesystem)).expect("opens")
    }

    fn payload(n: u64) -> Vec<u8> {
        n.to_le_bytes().repeat(usize::try_from(n * 37 % 600).expect("small") + 1)
    }

    /// Records 1 to `count` over two lanes and the control lane, whose segments hold few of them each.
    fn write(journal: &Journal, count: u64) {
        let mut writers = [journal.lane_writer(0), journal.lane_writer(1), journal.control_writer()];
        for n in 1..=count {
            let writer = &mut writers[usize::try_from(n * n % 3).expect("below 3")];
            let bytes = payload(n);
            let placed = writer.append_small(&[(RecordKind(0x7000), 0, bytes.as_slice())]).expect("written");
            assert_eq!(placed[0].0, Sequence(n));
            writer.sync().expect("synced");
        }
        writers.into_iter().for_each(|writer| writer.close().expect("closed"));
    }

    fn sequences(journal: &ReadOnlyJournal) -> Vec<u64> {
        let records = journal.records().map(|record| record.expect("readable"));
        records
            .map(|record| {
                let n = record.header.sequence.0;
                assert_eq!(journal.payload(record.location()).expect("whole"), payload(n));
                n
            })
            .collect()
    }

    fn contents(dir: &TempDir) -> BTreeMap<String, Vec<u8>> {
        let entries = std::fs::read_dir(dir.path().join("journal")).expect("a journal");
        let paths = entries.map(|entry| entry.expect("an entry").path());
        paths.map(|path| (path.display().to_string(), std::fs::read(&path).expect("readable"))).collect()
    }

    #[test]
    fn all_records_come_in_order_sealed_or_not_and_no_byte_changes() {
        let dir = tempfile::tempdir().expect("a directory");
        let (journal, _) = open(&dir);
        let mut writer = journal.lane_writer(0);
        write(&journal, 60);
        journal.close();
        writer.append_small(&[(RecordKind(0x7000), 0, payload(61).as_slice())]).expect("written");
        writer.sync().expect("synced");
        let before = contents(&dir);
        let beside = look(&dir);
        assert_eq!(beside.store(), journal.store());
        assert_eq!(sequences(&beside), (1..=61).collect::<Vec<_>>());
        assert_eq!(beside.damage(), []);
        assert!(contents(&dir) == before, "reading changed the journal");
        assert!(before.len() > 4, "only {} segments: the test shows nothing", before.len());
    }

    #[test]
    fn a_record_that_two_segments_hold_is_given_once() {
        let dir = tempfile::tempdir().expect("a directory");
        let (journal, filesystem) = open(&dir);
        write(&journal, 30);
        drop(journal);
        let mut twice = look(&dir);
        let (number, found) = twice.segments.pop_first().expect("a segment");
        let records = found_records(&look(&dir), number);
        let copy = SegmentHeader { number: 900, ..found.header };
        let path = dir.path().join("journal").join(segment_file_name(900, 0));
        std::fs::copy(&found.path, &path).expect("copied");
        twice.segments.insert(number, found);
        twice.segments.insert(900, scanned(copy, &path, records.clone()));
        assert_eq!(sequences(&twice), (1..=30).collect::<Vec<_>>());
        let first = records[0].sequence;
        let given =
            twice.records().map(|record| record.expect("readable")).find(|found| found.header.sequence == first);
        assert_eq!(given.map(|record| record.segment), Some(900), "the later copy");
        drop(filesystem);
    }

    fn found_records(journal: &ReadOnlyJournal, number: u64) -> Vec<RecordHeader> {
        journal.records_of(&journal.segments[&number]).expect("readable").into()
    }

    #[test]
    fn a_segment_that_was_removed_is_missing_and_one_that_was_open_stays_readable() {
        let dir = tempfile::tempdir().expect("a directory");
        let (journal, _) = open(&dir);
        write(&journal, 40);
        drop(journal);
        let journal = look(&dir);
        let records: Vec<StoredRecord> = journal.records().map(|record| record.expect("readable")).collect();
        std::fs::remove_dir_all(dir.path().join("journal")).expect("removed");
        for record in &records {
            assert!(journal.payload(record.location()).is_ok(), "its file was open");
        }
        lock(&journal.open_files).clear();
        assert!(matches!(journal.payload(records[0].location()), Err(ReadError::Missing(_))));
        assert!(matches!(journal.records().next(), Some(Err(ReadError::Missing(_)))));
    }

    #[test]
    fn a_changed_payload_is_not_given() {
        let dir = tempfile::tempdir().expect("a directory");
        let (journal, _) = open(&dir);
        write(&journal, 9);
        drop(journal);
        let journal = look(&dir);
        let record = journal.records().nth(4).expect("a record").expect("readable");
        let file = std::fs::File::options().write(true).open(&journal.segments[&record.segment].path).expect("opens");
        file.write_all_at(&[0xee], record.header.offset + RECORD_HEADER_BYTES as u64 + 3).expect("changed");
        let error = journal.payload(record.location()).expect_err("damaged").to_string();
        assert!(error.contains("CRC-32"), "{error}");
    }

    #[test]
    fn a_damaged_table_is_reported_and_the_records_are_found_without_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let (journal, _) = open(&dir);
        write(&journal, 20);
        drop(journal);
        let journal = look(&dir);
        let sealed = journal.segments.values().find_map(|segment| match &segment.contents {
            Contents::Sealed(trailer) => Some((segment.path.clone(), trailer.table_offset)),
            Contents::Scanned(_) => None,
        });
        let (path, table) = sealed.expect("a sealed segment");
        let file = std::fs::File::options().write(true).open(&path).expect("opens");
        file.write_all_at(&[0xee], table + 30).expect("changed");
        for _ in 0..2 {
            assert_eq!(sequences(&journal), (1..=20).collect::<Vec<_>>());
            let damage = journal.damage();
            assert_eq!(damage.len(), 1, "{damage:?}");
            assert_eq!((&damage[0].path, damage[0].offset), (&path, table));
        }
    }

    #[test]
    fn records_are_read_while_they_are_written() {
        let dir = tempfile::tempdir().expect("a directory");
        let (journal, _) = open(&dir);
        std::thread::scope(|scope| {
            let writing = scope.spawn(|| write(&journal, 600));
            while !writing.is_finished() {
                let Ok(beside) = ReadOnlyJournal::open(dir.path(), Arc::new(RealFilesystem)) else { continue };
                let seen = sequences(&beside);
                assert!(seen.is_sorted_by(|one, next| one < next));
                let corrupt: Vec<Damage> =
                    beside.damage().into_iter().filter(|damage| damage.kind.may_be_loss()).collect();
                assert_eq!(corrupt, [], "beside a writer");
            }
        });
        assert_eq!(sequences(&look(&dir)), (1..=600).collect::<Vec<_>>());
    }

    /// A file whose first block was read before its header was written.
    struct HeaderComes(Box<dyn SegmentFile>, std::sync::atomic::AtomicBool);

    impl SegmentFile for HeaderComes {
        fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
            let filled = self.0.read_at(bytes, offset)?;
            if offset == 0 && !self.1.swap(true, std::sync::atomic::Ordering::Relaxed) {
                bytes[..filled].fill(0);
            }
            Ok(filled)
        }

        fn length(&self) -> io::Result<u64> {
            self.0.length()
        }

        fn next_data(&self, offset: u64) -> io::Result<Option<u64>> {
            self.0.next_data(offset)
        }

        refuse_writes!();
    }

    #[test]
    fn a_segment_that_was_begun_filled_and_sealed_while_its_header_was_read_is_whole() {
        let dir = tempfile::tempdir().expect("a directory");
        let (journal, _) = open(&dir);
        write(&journal, 60);
        let store = Some(journal.store());
        drop(journal);
        for (_, path) in recovery::list_segments(&RealFilesystem, &dir.path().join("journal")).expect("listed") {
            let file = HeaderComes(RealFilesystem.open_read(&path).expect("opens"), Default::default());
            let found = recovery::identify(&file, &path, store).expect("readable");
            assert!(matches!(found, Found::Sealed(..)), "{} seems damaged", path.display());
        }
    }

    #[test]
    fn a_directory_without_a_journal_is_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        assert!(ReadOnlyJournal::open(dir.path(), Arc::new(RealFilesystem)).is_err());
        std::fs::create_dir(dir.path().join("journal")).expect("made");
        let error = ReadOnlyJournal::open(dir.path(), Arc::new(RealFilesystem)).err().expect("refused").to_string();
        assert!(error.ends_with("holds no journal"), "{error}");
    }
}
