//! Segments of any content, on a file system in memory: see `crate::fuzzing`.

use super::filesystem::{Filesystem, SegmentFile};
use super::format::{
    CONTROL_LANE, RECORD_HEADER_BYTES, RecordHeader, RecordKind, SHARED_ALIGNMENT, SegmentHeader, StoreId, SwapNote,
    TileStamp, Trailer, copy_file_name, decode_store_block, encode_store_block, parse_copy_file_name,
    parse_segment_file_name, segment_file_name,
};
use super::{
    DamageKind, Journal, JournalError, JournalOptions, ReadOnlyJournal, StoredRecord, reader, verify_segments,
};
use crate::base::limits::BLOCK;
use crate::fuzzing::Input;
use crate::model::{AcqId, ByteRange, FrameNumber, Sequence, TileId, TileKey, TileVersion};
use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The longest file that can be made: more is a full disk.
const FILE_BYTES_MAX: u64 = 4 << 20;
const STORE: StoreId = StoreId([7; 16]);

type Bytes = Arc<Mutex<Vec<u8>>>;

/// A file system in memory. A sync does nothing: power cuts are tests/crash.
#[derive(Clone, Default)]
struct MemoryFs(Arc<Mutex<BTreeMap<PathBuf, Bytes>>>);

struct MemoryFile(Bytes);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl MemoryFs {
    fn put(&self, path: impl Into<PathBuf>, bytes: Vec<u8>) {
        lock(&self.0).insert(path.into(), Arc::new(Mutex::new(bytes)));
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn SegmentFile>> {
        let file = lock(&self.0).get(path).cloned().ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(MemoryFile(file)))
    }
}

impl Filesystem for MemoryFs {
    fn create_dir_all(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let files = lock(&self.0);
        let names = files.keys().filter(|path| path.parent() == Some(dir)).filter_map(|path| path.file_name());
        Ok(names.map(|name| name.to_string_lossy().into_owned()).collect())
    }

    fn create(&self, path: &Path, len: u64) -> io::Result<Box<dyn SegmentFile>> {
        if len > FILE_BYTES_MAX {
            return Err(io::ErrorKind::StorageFull.into());
        }
        if lock(&self.0).contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        self.put(path, vec![0; usize::try_from(len).expect("below the limit")]);
        self.open(path)
    }

    fn open_read(&self, path: &Path) -> io::Result<Box<dyn SegmentFile>> {
        self.open(path)
    }

    fn open_write(&self, path: &Path) -> io::Result<Box<dyn SegmentFile>> {
        self.open(path)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        lock(&self.0).remove(path).map(drop).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut files = lock(&self.0);
        let file = files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        files.insert(to.to_owned(), file);
        Ok(())
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn free_bytes(&self, _: &Path) -> io::Result<u64> {
        Ok(1 << 40)
    }
}

impl SegmentFile for MemoryFile {
    fn write_all_at(&self, slices: &mut [IoSlice<'_>], offset: u64) -> io::Result<()> {
        let mut bytes = lock(&self.0);
        let mut at = usize::try_from(offset).expect("offsets of writes are ours");
        for slice in slices {
            let end = at + slice.len();
            if end as u64 > 2 * FILE_BYTES_MAX {
                return Err(io::ErrorKind::StorageFull.into());
            }
            if bytes.len() < end {
                bytes.resize(end, 0);
            }
            bytes[at..end].copy_from_slice(slice);
            at = end;
        }
        Ok(())
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        // As Linux has it.
        if i64::try_from(offset).is_err() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let file = lock(&self.0);
        let from = usize::try_from(offset).map_or(file.len(), |from| from.min(file.len()));
        let len = bytes.len().min(file.len() - from);
        bytes[..len].copy_from_slice(&file[from..from + len]);
        Ok(len)
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        lock(&self.0).resize(usize::try_from(len).expect("lengths are ours"), 0);
        Ok(())
    }

    fn length(&self) -> io::Result<u64> {
        Ok(lock(&self.0).len() as u64)
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<u64>> {
        Ok((offset < self.length()?).then_some(offset))
    }
}

/// Blocks of any content whose checksum holds: what is read of one is written as one that reads the same.
pub fn journal_blocks(data: &[u8]) {
    let mut input = Input::new(data);
    let (kind, is_sealed, version) = (input.byte(), input.flag(), input.byte() % 3);
    let mut block = vec![0; BLOCK];
    let magic: &[u8] = match kind % 5 {
        0 => b"TILEJRNL",
        1 => b"TILEFOOT",
        2 => b"TILESTOR",
        3 => b"TILESWAP",
        _ => b"",
    };
    let body = input.rest();
    let len = body.len().min(BLOCK - 16);
    block[..magic.len()].copy_from_slice(magic);
    block[8] = version;
    block[10..10 + len].copy_from_slice(&body[..len]);
    let covered = if magic.is_empty() { RECORD_HEADER_BYTES } else { BLOCK };
    if magic.is_empty() {
        block[16..20].copy_from_slice(&[version, 0, 192, 0]);
    }
    if is_sealed {
        seal(&mut block[..covered]);
    }
    same_again(&block);
    record_header(&block);
    file_name(&String::from_utf8_lossy(body));
}

/// Puts the CRC-32 of the bytes into their last four.
fn seal(bytes: &mut [u8]) {
    let at = bytes.len() - 4;
    let crc = crc32fast::hash(&bytes[..at]);
    bytes[at..].copy_from_slice(&crc.to_le_bytes());
}

fn same_again(block: &[u8]) {
    let segment = SegmentHeader { store: STORE, uuid: [3; 16], number: 5, lane: 1, created_ns: 0 };
    if let Ok(header) = SegmentHeader::decode(block) {
        assert_eq!(SegmentHeader::decode(&header.encode()), Ok(header));
        assert_eq!(Trailer::decode(block, &header), None, "a header is no trailer");
    }
    if let Some((store, uuid)) = Trailer::identity(block) {
        let segment = SegmentHeader { store, uuid, ..segment };
        if let Some(trailer) = Trailer::decode(block, &segment) {
            assert_eq!(Trailer::decode(&trailer.encode(&segment), &segment), Some(trailer));
            let file = MemoryFile(Arc::new(Mutex::new(block.to_vec())));
            let table = reader::read_table(&file, &trailer).unwrap_or_default();
            assert!(table.is_none_or(|table| table.len() as u64 == trailer.records));
        }
    }
    if let Some(store) = decode_store_block(block) {
        assert_eq!(decode_store_block(&encode_store_block(store)), Some(store));
    }
    if let Some(note) = SwapNote::decode(block) {
        assert_eq!(SwapNote::decode(&note.encode()), Some(note));
    }
}

fn record_header(bytes: &[u8]) {
    let Some(header) = RecordHeader::decode_unplaced(bytes) else { return };
    let marker: &[u8; 16] = bytes.first_chunk().expect("a header is longer");
    let mut again = [0xee; RECORD_HEADER_BYTES];
    header.encode(marker, &mut again);
    assert_eq!(RecordHeader::decode(&again, marker, header.offset), Some(header));
    assert!(header.occupied() >= RECORD_HEADER_BYTES as u64);
    assert!(header.next_block() > header.offset || header.offset > u64::MAX / 2);
    assert_eq!(
        RecordHeader::segment_identity(bytes, header.offset).is_some(),
        RecordHeader::segment_identity(&again, header.offset).is_some()
    );
}

fn file_name(text: &str) {
    if let Some((number, lane)) = parse_segment_file_name(text) {
        assert_eq!(parse_segment_file_name(&segment_file_name(number, lane)), Some((number, lane)));
        assert_eq!(parse_copy_file_name(text), None);
    }
    if let Some((number, lane)) = parse_copy_file_name(text) {
        assert_eq!(parse_copy_file_name(&copy_file_name(number, lane)), Some((number, lane)));
    }
}

fn data_dir() -> PathBuf {
    PathBuf::from("/data")
}

fn options() -> JournalOptions {
    JournalOptions { segment_bytes: 48 << 10, control_segment_bytes: 16 << 10, reserve_bytes: 0 }
}

/// A data directory with segments of any content: a start ends, invents nothing, and a second one changes nothing; what
/// is written afterwards is there.
pub fn journal_open(data: &[u8]) {
    let (fs, files, appends) = directory(data);
    let shared: Arc<dyn Filesystem> = Arc::new(fs.clone());
    let _ = verify_segments(&data_dir(), &fs, &mut |_| {}).map_err(operators);
    read_beside(&shared);
    let (first, known) = match Journal::open(&data_dir(), Arc::clone(&shared), options()) {
        Ok((journal, report)) => (recovered(&journal, &files, appends), report.damage),
        Err(error) => return operators(error),
    };
    read_beside(&shared);
    let (journal, report) = Journal::open(&data_dir(), shared, options()).expect("a start after a start");
    // A segment without a record that holds is left as it is, as corrupt, as long as another one says that it had some:
    // only there something torn is settled later.
    let is_left = |path: &Path| known.iter().any(|told| told.path == path && told.kind == DamageKind::Corrupt);
    let torn = report.damage.iter().filter(|damage| damage.kind == DamageKind::Torn && !is_left(&damage.path));
    assert_eq!(torn.count(), 0, "torn places are settled by the first start: {:?}", report.damage);
    let second = all_records(&journal);
    assert!(first.iter().all(|record| second.contains(record)), "the second start lost a record");
}

/// The only errors of a file system that has none: what is there can not be used, and the operator is told what to do.
fn operators(error: JournalError) {
    assert!(matches!(error, JournalError::Unusable { .. }), "{error}");
}

fn read_beside(filesystem: &Arc<dyn Filesystem>) {
    let Ok(journal) = ReadOnlyJournal::open(&data_dir(), Arc::clone(filesystem)).map_err(operators) else { return };
    let mut last = Sequence(0);
    for record in journal.records().flatten().take(1000) {
        assert!(record.header.sequence > last || last == Sequence(0), "each sequence once, in order");
        last = record.header.sequence;
        if let Ok(payload) = journal.payload(record.location()) {
            assert_eq!(crc32fast::hash(&payload), record.header.payload_crc);
        }
    }
}

/// The readable records; the first error of each lane ends it.
fn all_records(journal: &Journal) -> Vec<StoredRecord> {
    journal.records_after(Sequence(0)).flatten().take(5000).collect()
}

fn recovered(journal: &Journal, files: &[(u64, Vec<u8>)], appends: bool) -> Vec<StoredRecord> {
    let mut records = all_records(journal);
    for record in &records {
        let header = &record.header;
        let known = files.iter().any(|(_, bytes)| holds(bytes, header));
        assert!(known, "a record was invented: {record:?}");
        if let Ok(payload) = journal.read_control(record.location()) {
            assert_eq!(crc32fast::hash(&payload), header.payload_crc);
        }
        let mut front = [0; 16];
        let part = ByteRange { offset: 0, len: header.payload_len.min(16) };
        let _ = journal.read(record.location(), part, &mut front);
    }
    let _ = (journal.tally_until(Sequence(u64::MAX)), journal.max_tile_id(), journal.status());
    if appends {
        records.push(append(journal, &records));
    }
    journal.close();
    records
}

/// True when the header's bytes stand somewhere in the file: at their place, or in a table.
fn holds(bytes: &[u8], header: &RecordHeader) -> bool {
    let (sequence, offset) = (header.sequence.0.to_le_bytes(), header.offset.to_le_bytes());
    let runs = bytes.windows(RECORD_HEADER_BYTES).step_by(SHARED_ALIGNMENT);
    runs.filter(|run| run[24..32] == sequence && run[32..40] == offset)
        .any(|run| RecordHeader::decode_unplaced(run) == Some(*header))
}

fn append(journal: &Journal, before: &[StoredRecord]) -> StoredRecord {
    let mut writer = journal.control_writer();
    let payload = b"{\"written\":\"after\"}";
    let placed = writer.append_small(&[(RecordKind(0x1ff), 1, payload)]).expect("there is room");
    writer.sync().expect("syncs hold");
    writer.close().expect("closes");
    journal.close();
    let (sequence, location) = placed[0];
    assert!(before.iter().all(|record| record.header.sequence < sequence), "a sequence was given again");
    assert_eq!(journal.read_control(location).expect("readable"), payload);
    let found = all_records(journal).into_iter().find(|record| record.header.sequence == sequence);
    found.expect("what was appended is listed")
}

/// A data directory as the input says; the segments' bytes, and whether to write to it.
fn directory(data: &[u8]) -> (MemoryFs, Vec<(u64, Vec<u8>)>, bool) {
    let mut input = Input::new(data);
    let fs = MemoryFs::default();
    let (segments, has_store, has_note, appends) =
        (1 + input.byte() % 3, !input.byte().is_multiple_of(4), input.byte().is_multiple_of(4), input.flag());
    if has_store {
        fs.put("/data/store", encode_store_block(STORE).to_vec());
    }
    if has_note {
        let note = SwapNote { store: STORE, lane: lane(&mut input), old: input.wide(), new: input.wide() };
        fs.put("/data/compaction", note.encode().to_vec());
    }
    let mut files = Vec::new();
    for n in 0..segments {
        let number = if input.flag() { u64::from(n) + 1 } else { input.wide() };
        let lane = lane(&mut input);
        let bytes =
            if input.byte() % 8 == 7 { input.bytes(20_000).to_vec() } else { segment(&mut input, number, lane) };
        fs.put(Path::new("/data/journal").join(segment_file_name(number, lane)), bytes.clone());
        files.push((number, bytes));
    }
    (fs, files, appends)
}

fn lane(input: &mut Input<'_>) -> u16 {
    [0, 1, CONTROL_LANE][usize::from(input.byte() % 3)]
}

/// A segment that is mostly right: a header, records and other blocks, perhaps a table and a trailer, and a few bytes
/// that are not what they were.
fn segment(input: &mut Input<'_>, number: u64, lane: u16) -> Vec<u8> {
    let header = SegmentHeader { store: STORE, uuid: [input.byte(); 16], number, lane, created_ns: 1 };
    let mut bytes = header.encode().to_vec();
    if input.byte() % 8 == 7 {
        input.edit(&mut bytes);
        seal(&mut bytes);
    }
    let (mut table, mut trailer, mut sequence) = (Vec::new(), Trailer::default(), input.wide());
    for _ in 0..input.byte() % 12 {
        match input.byte() % 8 {
            0..5 => {
                let record = record(input, &header, &mut sequence, &mut bytes);
                let at = table.len();
                table.resize(at + RECORD_HEADER_BYTES, 0);
                record.encode(&header.marker(), &mut table[at..]);
                trailer.add(&record);
            }
            5 => bytes.resize(bytes.len() + BLOCK, 0),
            6 => bytes.extend_from_slice(input.bytes(BLOCK)),
            _ => bytes.resize(bytes.len().next_multiple_of(BLOCK), input.byte()),
        }
    }
    if input.flag() {
        finish(input, &header, table, trailer, &mut bytes);
    }
    if input.byte() % 4 == 3 {
        input.edit(&mut bytes);
    }
    bytes
}

/// A record behind what is there, as a writer would put it, or with something in its header that is not so.
fn record(input: &mut Input<'_>, segment: &SegmentHeader, sequence: &mut u64, bytes: &mut Vec<u8>) -> RecordHeader {
    let alignment = if segment.lane == CONTROL_LANE && input.flag() { 64 } else { BLOCK };
    bytes.resize(bytes.len().next_multiple_of(alignment), 0);
    *sequence = sequence.wrapping_add(if input.byte() % 8 == 7 { input.wide() } else { 1 });
    let payload = input.bytes(6000);
    let is_tile = input.flag();
    let mut header = RecordHeader {
        kind: if is_tile { RecordKind::TILE } else { RecordKind(0x101 + u16::from(input.byte() % 16)) },
        sequence: Sequence(*sequence),
        offset: bytes.len() as u64,
        payload_len: u32::try_from(payload.len()).expect("short"),
        payload_crc: crc32fast::hash(payload),
        durable: Sequence(if input.flag() { sequence.saturating_sub(1) } else { input.wide() }),
        received_ns: 1,
        tile: is_tile.then(|| stamp(input)),
    };
    match input.byte() % 16 {
        12 => header.payload_crc ^= 1,
        13 => header.payload_len = input.word(),
        14 => header.offset = input.wide(),
        _ => {}
    }
    let at = bytes.len();
    bytes.resize(at + RECORD_HEADER_BYTES, 0);
    header.encode(&segment.marker(), &mut bytes[at..]);
    bytes.extend_from_slice(payload);
    header
}

fn stamp(input: &mut Input<'_>) -> TileStamp {
    TileStamp {
        id: TileId(input.wide()),
        key: TileKey { acq: AcqId(1), col: input.word(), row: 0, frame: FrameNumber::STABLE },
        camera: 0,
        version: TileVersion(u32::from(input.byte())),
        image: ByteRange { offset: 0, len: u32::from(input.byte()) },
        image_crc: 0,
        checksum: crate::wire::fuzzing::checksum(input),
        peer: None,
    }
}

/// Table and trailer, mostly right.
fn finish(input: &mut Input<'_>, segment: &SegmentHeader, mut table: Vec<u8>, trailer: Trailer, bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
    if input.byte() % 8 == 7 {
        input.edit(&mut table);
    }
    let mut trailer = Trailer { table_offset: bytes.len() as u64, table_crc: crc32fast::hash(&table), ..trailer };
    match input.byte() % 16 {
        10 => trailer.table_offset = input.wide(),
        11 => trailer.records = input.wide(),
        // Less, and no damage has changed it but a hand that gave it a new checksum: it would be believed.
        12 => trailer.last = Sequence(trailer.last.0.saturating_add(input.wide())),
        13 => trailer.first = Sequence(input.wide()),
        14 => trailer.max_tile = input.wide(),
        _ => {}
    }
    bytes.extend_from_slice(&table);
    bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
    bytes.extend_from_slice(&trailer.encode(segment));
}

/// What the fuzzer has found.
#[cfg(test)]
mod tests {
    use super::*;

    /// A directory whose only segment holds one control record, and is sealed with this trailer.
    fn sealed(name: &str, change: impl FnOnce(Trailer) -> Trailer) -> MemoryFs {
        let segment = SegmentHeader { store: STORE, uuid: [3; 16], number: 5, lane: CONTROL_LANE, created_ns: 1 };
        let payload = b"payload";
        let record = RecordHeader {
            kind: RecordKind(0x1ff),
            sequence: Sequence(7),
            offset: BLOCK as u64,
            payload_len: u32::try_from(payload.len()).expect("short"),
            payload_crc: crc32fast::hash(payload),
            durable: Sequence(6),
            received_ns: 1,
            tile: None,
        };
        let mut header = vec![0; RECORD_HEADER_BYTES];
        record.encode(&segment.marker(), &mut header);
        let mut trailer =
            Trailer { table_offset: 2 * BLOCK as u64, table_crc: crc32fast::hash(&header), ..Trailer::default() };
        trailer.add(&record);
        let mut bytes = segment.encode().to_vec();
        for part in [[header.as_slice(), payload].concat(), header.clone()] {
            bytes.extend_from_slice(&part);
            bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
        }
        bytes.extend_from_slice(&change(trailer).encode(&segment));
        let fs = MemoryFs::default();
        fs.put("/data/store", encode_store_block(STORE).to_vec());
        fs.put(Path::new("/data/journal").join(name), bytes);
        fs
    }

    fn started(fs: MemoryFs) -> Result<(Journal, Vec<StoredRecord>), JournalError> {
        let (journal, _) = Journal::open(&data_dir(), Arc::new(fs), options())?;
        let records = all_records(&journal);
        Ok((journal, records))
    }

    #[test]
    fn a_trailer_with_numbers_that_nothing_comes_to_is_no_trailer_and_the_segment_is_scanned() {
        let changes: [fn(Trailer) -> Trailer; 5] = [
            |trailer| trailer,
            |trailer| Trailer { last: Sequence(u64::MAX), ..trailer },
            |trailer| Trailer { table_offset: u64::MAX - 100, ..trailer },
            |trailer| Trailer { records: u64::MAX / 2, ..trailer },
            |trailer| Trailer { last: Sequence(6), ..trailer },
        ];
        for change in changes {
            let (journal, records) = started(sealed("0000000000000005-ffff.tcj", change)).expect("it starts");
            assert_eq!(records.iter().map(|record| record.header.sequence).collect::<Vec<_>>(), [Sequence(7)]);
            append(&journal, &records);
        }
    }

    #[test]
    fn a_file_name_with_the_highest_number_does_not_stop_a_start() {
        let (journal, records) = started(sealed("ffffffffffffffff-ffff.tcj", |trailer| trailer)).expect("it starts");
        assert!(records.is_empty(), "no segment has that name");
        append(&journal, &records);
    }

    #[test]
    fn a_segment_under_another_number_is_refused_with_the_remedy() {
        let refused = started(sealed("0000000000000009-ffff.tcj", |trailer| trailer)).map(drop).expect_err("refused");
        let text = refused.to_string();
        assert!(text.contains("is a copy of 0000000000000005-ffff.tcj") && text.contains("rename it back"), "{text}");
    }

    #[test]
    fn a_payload_longer_than_its_segment_takes_no_memory() {
        let (journal, records) = started(sealed("0000000000000005-ffff.tcj", |trailer| trailer)).expect("it starts");
        let location = crate::model::Location { payload_len: u32::MAX, ..records[0].location() };
        let error = journal.read_control(location).expect_err("too long").to_string();
        assert!(error.contains("ends inside the record"), "{error}");
    }
}
