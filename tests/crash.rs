//! Power cuts on a model of a disk: whatever subset of unsynced writes survives, every record whose sync returned is
//! there and equal, nothing is invented, and recovering again changes nothing. A compaction that is cut at any call
//! loses no live record.
//!
//! `TILECATCHER_TEST_CUTS=20000 cargo test --release --test crash` runs more; a failure names its seed. The keeper's
//! thread runs beside the history, so a seed gives the same history but not always the same cut in it.

#![allow(missing_docs)]

#[path = "crash/mirrored.rs"]
mod mirrored;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use tilecatcher::base::aligned::AlignedBytes;
use tilecatcher::journal::{
    CompactOptions, CompactReport, DamageKind, Filesystem, Journal, JournalError, JournalOptions, LaneWriter,
    RECORD_HEADER_BYTES, RecordDraft, RecordHeader, RecordKind, RecoveryReport, SEGMENT_HEADER_BYTES, SegmentFile,
    StoredRecord, TRAILER_BYTES, TileStamp, compact_segments, verify_segments,
};
use tilecatcher::model::{AcqId, ByteRange, Checksum, FrameNumber, Location, Sequence, TileId, TileKey, TileVersion};

const SECTOR: usize = 512;

/// A small generator: everything random in a history comes from its seed.
#[derive(Clone)]
struct Dice(u64);

impl Dice {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % n
    }

    fn index(&mut self, n: usize) -> usize {
        usize::try_from(self.below(n as u64)).expect("below n")
    }
}

/// What has been asked of a file since its last sync.
#[derive(Clone)]
enum Change {
    Write(usize, Vec<u8>),
    SetLen(usize),
}

/// What has been asked of a directory since its last sync.
#[derive(Clone)]
enum NameChange {
    Create(PathBuf, usize),
    Remove(PathBuf),
    Rename(PathBuf, PathBuf),
}

impl NameChange {
    fn dir(&self) -> Option<&Path> {
        match self {
            Self::Create(path, _) | Self::Remove(path) | Self::Rename(path, _) => path.parent(),
        }
    }

    fn apply(&self, names: &mut BTreeMap<PathBuf, usize>) {
        match self {
            Self::Create(path, content) => drop(names.insert(path.clone(), *content)),
            Self::Remove(path) => drop(names.remove(path)),
            Self::Rename(from, to) => {
                if let Some(content) = names.remove(from) {
                    names.insert(to.clone(), content);
                }
            }
        }
    }
}

#[derive(Clone, Default)]
struct Content {
    live: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<Change>,
}

#[derive(Clone, Default)]
struct Disk {
    contents: Vec<Content>,
    /// Directory entries as programs see them, and as the last syncs left them.
    live: BTreeMap<PathBuf, usize>,
    durable: BTreeMap<PathBuf, usize>,
    /// What lies between the two: a power cut may leave any part of it done, each change wholly or not at all.
    pending: Vec<NameChange>,
    /// Calls left until the power goes.
    fuse: Option<u64>,
    /// Calls so far, and those of them that change something.
    calls: u64,
    changes: Vec<u64>,
}

#[derive(Clone, Default)]
struct CrashFs(Arc<Mutex<Disk>>);

struct CrashFile {
    fs: CrashFs,
    content: usize,
}

impl Content {
    fn apply(bytes: &mut Vec<u8>, change: &Change) {
        match change {
            Change::Write(offset, data) => {
                if bytes.len() < offset + data.len() {
                    bytes.resize(offset + data.len(), 0);
                }
                bytes[*offset..offset + data.len()].copy_from_slice(data);
            }
            Change::SetLen(len) => bytes.resize(*len, 0),
        }
    }

    /// The durable bytes with any subset of what is pending, each write torn by sectors.
    fn after_cut(&self, dice: &mut Dice) -> Vec<u8> {
        let mut bytes = self.durable.clone();
        for change in &self.pending {
            match (dice.below(4), change) {
                (0, _) => {}
                (1, Change::Write(offset, data)) => {
                    for (n, sector) in data.chunks(SECTOR).enumerate() {
                        if dice.below(2) == 0 {
                            Self::apply(&mut bytes, &Change::Write(offset + n * SECTOR, sector.to_vec()));
                        }
                    }
                }
                (2, Change::Write(offset, data)) => {
                    let whole = dice.index(data.len() / SECTOR + 1) * SECTOR;
                    Self::apply(&mut bytes, &Change::Write(*offset, data[..whole].to_vec()));
                }
                (_, change) => Self::apply(&mut bytes, change),
            }
        }
        bytes
    }
}

impl CrashFs {
    fn lock(&self) -> MutexGuard<'_, Disk> {
        self.0.lock().expect("no panic under the lock")
    }

    /// Counts a call; after the power has gone every call fails.
    fn powered(&self) -> io::Result<MutexGuard<'_, Disk>> {
        let mut disk = self.lock();
        match &mut disk.fuse {
            Some(0) => return Err(io::Error::other("the power is off")),
            Some(left) => *left -= 1,
            None => {}
        }
        disk.calls += 1;
        Ok(disk)
    }

    /// As [`Self::powered`], for a call that changes something.
    fn changing(&self) -> io::Result<MutexGuard<'_, Disk>> {
        let mut disk = self.powered()?;
        let call = disk.calls - 1;
        disk.changes.push(call);
        Ok(disk)
    }

    /// Another disk in the same state, with the power on and no calls counted.
    fn copy(&self) -> CrashFs {
        let mut disk = self.lock().clone();
        (disk.fuse, disk.calls, disk.changes) = (None, 0, Vec::new());
        Self(Arc::new(Mutex::new(disk)))
    }

    /// Flips a bit in what programs see, and in what is durable.
    fn flip(&self, path: &Path, offset: usize) {
        let mut disk = self.lock();
        let content = disk.live[path];
        let Content { live, durable, .. } = &mut disk.contents[content];
        [live, durable].into_iter().filter_map(|bytes| bytes.get_mut(offset)).for_each(|byte| *byte ^= 1);
    }

    fn bytes_of(&self, path: &Path) -> Vec<u8> {
        let disk = self.lock();
        disk.contents[disk.live[path]].live.clone()
    }

    fn files(&self, dir: &str) -> Vec<PathBuf> {
        self.lock().live.keys().filter(|path| path.parent() == Some(Path::new(dir))).cloned().collect()
    }

    fn stored_bytes(&self) -> u64 {
        self.files("/data/journal").iter().map(|path| self.bytes_of(path).len() as u64).sum()
    }

    fn burn_after(&self, calls: u64) {
        self.lock().fuse = Some(calls);
    }

    /// What another start finds after the cut.
    fn after_cut(&self, dice: &mut Dice) -> CrashFs {
        let disk = self.lock();
        let mut entries = disk.durable.clone();
        disk.pending.iter().filter(|_| dice.below(2) == 0).for_each(|change| change.apply(&mut entries));
        let mut next = Disk::default();
        for (path, content) in entries {
            let bytes = disk.contents[content].after_cut(dice);
            next.contents.push(Content { live: bytes.clone(), durable: bytes, pending: Vec::new() });
            next.live.insert(path.clone(), next.contents.len() - 1);
            next.durable.insert(path, next.contents.len() - 1);
        }
        Self(Arc::new(Mutex::new(next)))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn SegmentFile>> {
        let content = self.powered()?.live.get(path).copied().ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(CrashFile { fs: self.clone(), content }))
    }

    fn change_name(disk: &mut Disk, change: NameChange) {
        change.apply(&mut disk.live);
        disk.pending.push(change);
    }
}

impl Filesystem for CrashFs {
    fn create_dir_all(&self, _: &Path) -> io::Result<()> {
        self.powered().map(drop)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let disk = self.powered()?;
        let names = disk.live.keys().filter(|path| path.parent() == Some(dir)).filter_map(|path| path.file_name());
        Ok(names.map(|name| name.to_string_lossy().into_owned()).collect())
    }

    fn create(&self, path: &Path, len: u64) -> io::Result<Box<dyn SegmentFile>> {
        let mut disk = self.changing()?;
        let len = usize::try_from(len).expect("small");
        let live = vec![0; len];
        disk.contents.push(Content { live, durable: Vec::new(), pending: vec![Change::SetLen(len)] });
        let content = disk.contents.len() - 1;
        assert!(!disk.live.contains_key(path), "{} exists", path.display());
        Self::change_name(&mut disk, NameChange::Create(path.to_owned(), content));
        Ok(Box::new(CrashFile { fs: self.clone(), content }))
    }

    fn open_read(&self, path: &Path) -> io::Result<Box<dyn SegmentFile>> {
        self.open(path)
    }

    fn open_write(&self, path: &Path) -> io::Result<Box<dyn SegmentFile>> {
        self.open(path)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut disk = self.changing()?;
        if !disk.live.contains_key(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        Self::change_name(&mut disk, NameChange::Remove(path.to_owned()));
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        assert_eq!(from.parent(), to.parent(), "renamed within one directory only");
        let mut disk = self.changing()?;
        if !disk.live.contains_key(from) {
            return Err(io::ErrorKind::NotFound.into());
        }
        Self::change_name(&mut disk, NameChange::Rename(from.to_owned(), to.to_owned()));
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut disk = self.changing()?;
        let live = disk.live.clone();
        disk.durable.retain(|path, _| path.parent() != Some(dir) || live.contains_key(path));
        disk.durable.extend(live.into_iter().filter(|(path, _)| path.parent() == Some(dir)));
        disk.pending.retain(|change| change.dir() != Some(dir));
        Ok(())
    }

    fn free_bytes(&self, _: &Path) -> io::Result<u64> {
        Ok(1 << 40)
    }
}

impl SegmentFile for CrashFile {
    fn write_all_at(&self, slices: &mut [IoSlice<'_>], offset: u64) -> io::Result<()> {
        let offset = usize::try_from(offset).expect("small");
        let data: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).collect();
        assert!(offset.is_multiple_of(4096) && data.len().is_multiple_of(4096), "not in whole blocks");
        let mut disk = self.fs.lock();
        let off = disk.fuse == Some(0);
        let content = &mut disk.contents[self.content];
        let change = Change::Write(offset, data);
        if !off {
            Content::apply(&mut content.live, &change);
        }
        // The write during which the power goes may still reach the disk in part.
        content.pending.push(change);
        drop(disk);
        self.fs.changing().map(drop)
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        let disk = self.fs.powered()?;
        let live = &disk.contents[self.content].live;
        let from = usize::try_from(offset).expect("small").min(live.len());
        let len = bytes.len().min(live.len() - from);
        bytes[..len].copy_from_slice(&live[from..from + len]);
        Ok(len)
    }

    fn sync(&self) -> io::Result<()> {
        let mut disk = self.fs.changing()?;
        let content = &mut disk.contents[self.content];
        for change in std::mem::take(&mut content.pending) {
            Content::apply(&mut content.durable, &change);
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut disk = self.fs.changing()?;
        let content = &mut disk.contents[self.content];
        let change = Change::SetLen(usize::try_from(len).expect("small"));
        Content::apply(&mut content.live, &change);
        content.pending.push(change);
        Ok(())
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.fs.powered()?.contents[self.content].live.len() as u64)
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<u64>> {
        Ok(Some(offset))
    }
}

/// What a history knows: every payload it tried to store, and those that it was told are durable.
#[derive(Default)]
struct Knowledge {
    tried: BTreeSet<Vec<u8>>,
    durable: HashMap<Sequence, Vec<u8>>,
    next: u64,
}

/// Records appended to one writer and not synced yet.
type Unsynced = Vec<(Sequence, Vec<u8>)>;

impl Knowledge {
    fn payload(&mut self, len: usize) -> Vec<u8> {
        self.next += 1;
        let mut payload = self.next.to_le_bytes().repeat(len / 8 + 1);
        payload.truncate(len.max(8));
        self.tried.insert(payload.clone());
        payload
    }
}

fn journal_options() -> JournalOptions {
    JournalOptions { segment_bytes: 48 << 10, control_segment_bytes: 16 << 10, reserve_bytes: 0 }
}

fn data() -> PathBuf {
    PathBuf::from("/data")
}

fn append_tiles(
    writer: &mut LaneWriter,
    dice: &mut Dice,
    known: &mut Knowledge,
    unsynced: &mut Unsynced,
) -> Result<(), JournalError> {
    let payloads: Vec<Vec<u8>> = (0..=dice.below(3)).map(|_| known.payload(8 + dice.index(9000))).collect();
    let mut buffers: Vec<AlignedBytes> = payloads
        .iter()
        .map(|payload| {
            let mut buffer = AlignedBytes::zeroed(RECORD_HEADER_BYTES + payload.len());
            buffer[RECORD_HEADER_BYTES..][..payload.len()].copy_from_slice(payload);
            buffer
        })
        .collect();
    let mut drafts: Vec<RecordDraft<'_>> = payloads
        .iter()
        .zip(&mut buffers)
        .map(|(payload, buffer)| RecordDraft {
            kind: RecordKind::TILE,
            payload_len: u32::try_from(payload.len()).expect("small"),
            payload_crc: crc32fast::hash(payload),
            received_ns: i64::from(crc32fast::hash(payload)),
            tile: Some(stamp(payload)),
            bytes: buffer,
            placed: None,
        })
        .collect();
    let written = writer.append(&mut drafts);
    let placed = drafts.iter().zip(&payloads).filter_map(|(draft, payload)| Some((draft.placed?.0, payload.clone())));
    unsynced.extend(placed);
    written
}

/// Payloads begin with their number.
fn stamp(payload: &[u8]) -> TileStamp {
    TileStamp {
        id: TileId(u64::from_le_bytes(payload[..8].try_into().expect("eight bytes"))),
        key: TileKey { acq: AcqId(1), col: 0, row: 0, frame: FrameNumber::STABLE },
        camera: 0,
        version: TileVersion::FIRST,
        image: ByteRange { offset: 0, len: 8 },
        image_crc: 0,
        checksum: Checksum::None,
    }
}

/// Appends and syncs on two lanes and the control lane, until it is done or the power goes.
fn live(fs: &CrashFs, dice: &mut Dice, known: &mut Knowledge) -> Result<(), JournalError> {
    let (journal, _) = Journal::open(&data(), Arc::new(fs.clone()), journal_options())?;
    let mut lanes = [(journal.lane_writer(0), Unsynced::new()), (journal.lane_writer(1), Unsynced::new())];
    let mut control = journal.control_writer();
    for _ in 0..dice.below(40) {
        let (writer, unsynced) = &mut lanes[dice.index(2)];
        match dice.below(8) {
            0..4 => append_tiles(writer, dice, known, unsynced)?,
            4..6 => {
                writer.sync()?;
                known.durable.extend(unsynced.drain(..));
            }
            6 => drop(writer.prewrite(8192)?),
            _ => {
                let payloads: Vec<Vec<u8>> = (0..=dice.below(3)).map(|_| known.payload(8 + dice.index(3000))).collect();
                let records: Vec<(RecordKind, i64, &[u8])> =
                    payloads.iter().map(|payload| (RecordKind(0x1ff), 0, payload.as_slice())).collect();
                let placed = control.append_small(&records)?;
                control.sync()?;
                known
                    .durable
                    .extend(placed.into_iter().zip(&payloads).map(|((seq, _), payload)| (seq, payload.clone())));
            }
        }
    }
    for (writer, unsynced) in lanes {
        writer.close()?;
        known.durable.extend(unsynced);
    }
    control.close()?;
    journal.close();
    Ok(())
}

/// What a start finds.
struct Recovered {
    /// Each record's header, with no offset, and its payload.
    records: BTreeMap<Sequence, (RecordHeader, Vec<u8>)>,
    report: RecoveryReport,
    next: Sequence,
    max_tile: u64,
}

fn recovered(fs: &CrashFs) -> Recovered {
    let (journal, report) = Journal::open(&data(), Arc::new(fs.clone()), journal_options()).expect("recovery");
    let corrupt = report.damage.iter().filter(|damage| damage.kind == DamageKind::Corrupt).count();
    assert_eq!(corrupt, 0, "a power cut is no corruption: {:?}", report.damage);
    let mut found = BTreeMap::new();
    let mut last = Sequence(0);
    for record in journal.records_after(Sequence(0)) {
        let record = record.expect("readable");
        assert!(record.header.sequence > last, "out of order");
        last = record.header.sequence;
        let location: Location = record.location();
        let mut payload = vec![0; location.payload_len as usize];
        let range = ByteRange { offset: 0, len: location.payload_len };
        journal.read(location, range, &mut payload).expect("readable");
        assert_eq!(crc32fast::hash(&payload), record.header.payload_crc);
        found.insert(record.header.sequence, (RecordHeader { offset: 0, ..record.header }, payload));
    }
    Recovered { records: found, report, next: journal.safe_sequence(), max_tile: journal.max_tile_id() }
}

fn one_history(seed: u64) {
    let mut dice = Dice::new(seed);
    let mut known = Knowledge::default();
    let mut fs = CrashFs::default();
    for life in 0..3 {
        fs.burn_after(dice.below(150));
        let _ = live(&fs, &mut dice, &mut known);
        fs = fs.after_cut(&mut dice);
        let context = format!("seed {seed}, life {life}");
        let found = recovered(&fs).records;
        for (sequence, payload) in &known.durable {
            assert!(
                found.get(sequence).map(|(_, found)| found) == Some(payload),
                "{context}: record {sequence} was synced and is lost or altered"
            );
        }
        for (_, payload) in found.values() {
            assert!(known.tried.contains(payload), "{context}: a record was invented");
        }
        let again = recovered(&fs);
        let unchanged = again.records == found && again.report.damage.is_empty();
        assert!(unchanged, "{context}: a second recovery found something else");
        let verified = verify_segments(&data(), &fs, &mut |_| {}).expect("readable");
        assert!(verified.problems.is_empty(), "{context}: {:?}", verified.problems);
        // What was found is durable from now on, whether or not anybody was told.
        known.durable.extend(found.into_iter().map(|(sequence, (_, payload))| (sequence, payload)));
    }
}

fn cuts_wanted() -> u64 {
    std::env::var("TILECATCHER_TEST_CUTS").ok().and_then(|text| text.parse().ok()).unwrap_or(3000)
}

#[test]
fn synced_records_survive_power_cuts_at_any_point() {
    for seed in 0..cuts_wanted() / 3 {
        if std::panic::catch_unwind(|| one_history(seed)).is_err() {
            panic!("seed {seed}: see above");
        }
    }
}

/// The model's own test: without syncs it must lose records, else the test above shows nothing.
#[test]
fn the_model_loses_what_is_not_synced() {
    let mut dice = Dice::new(5);
    let (mut lost, mut kept) = (0, 0);
    for _ in 0..50 {
        let fs = CrashFs::default();
        let mut known = Knowledge::default();
        let (journal, _) = Journal::open(&data(), Arc::new(fs.clone()), journal_options()).expect("opens");
        let mut writer = journal.lane_writer(0);
        let mut unsynced = Unsynced::new();
        append_tiles(&mut writer, &mut dice, &mut known, &mut unsynced).expect("written");
        fs.burn_after(0);
        let found = recovered(&fs.after_cut(&mut dice)).records;
        kept += unsynced.iter().filter(|(sequence, _)| found.contains_key(sequence)).count();
        lost += unsynced.iter().filter(|(sequence, _)| !found.contains_key(sequence)).count();
    }
    assert!(lost > 10 && kept > 10, "{lost} lost, {kept} kept");
}

/// Which records live: runs of sequences, by chance.
#[derive(Clone, Copy)]
struct Liveness {
    salt: u64,
    run: u64,
    percent: u64,
}

impl Liveness {
    fn thrown(dice: &mut Dice) -> Self {
        let (runs, percents) = ([1, 4, 30], [0, 20, 50, 80, 100]);
        Self { salt: dice.below(1 << 40), run: runs[dice.index(3)], percent: percents[dice.index(5)] }
    }

    fn holds(self, sequence: Sequence) -> bool {
        Dice::new(self.salt ^ (sequence.0 / self.run)).below(100) < self.percent
    }
}

fn compact(fs: &CrashFs, options: &CompactOptions, live: Liveness) -> Result<CompactReport, JournalError> {
    let filesystem: Arc<dyn Filesystem> = Arc::new(fs.clone());
    let mut last = (0, 0);
    compact_segments(
        &data(),
        &filesystem,
        options,
        &mut |record| live.holds(record.header.sequence),
        &mut |done, all| {
            assert!(done >= last.0 && done <= all, "{done} of {all} after {last:?}");
            last = (done, all);
        },
    )
}

const EVERYTHING: CompactOptions =
    CompactOptions { min_dead_share: 0.0, reserve_bytes: 0, tile_floor: u64::MAX, sequence_floor: u64::MAX };

/// What all cuts together came by: a test that never gets there shows nothing.
#[derive(Debug, Default)]
struct Seen {
    cuts: u64,
    rewritten: u64,
    removed: u64,
    completed: u64,
    leftovers: u64,
    left_alone: BTreeSet<String>,
}

/// What must hold behind a compaction, wherever it was cut.
fn check_compacted(fs: &CrashFs, before: &Recovered, options: &CompactOptions, live: Liveness, seen: &mut Seen) {
    let mut read = BTreeSet::new();
    let verified = verify_segments(&data(), fs, &mut |record| {
        let header = RecordHeader { offset: 0, ..record.header };
        assert_eq!(before.records.get(&header.sequence).map(|(header, _)| *header), Some(header), "verify: altered");
        assert!(read.insert(header.sequence), "verify: {} twice", header.sequence);
    });
    let verified = verified.expect("readable");
    assert!(verified.problems.is_empty(), "verify: {:?}", verified.problems);
    let found = recovered(fs);
    for (sequence, record) in &before.records {
        if live.holds(*sequence) {
            assert!(read.contains(sequence), "verify: live record {sequence} is lost");
            assert!(found.records.get(sequence) == Some(record), "live record {sequence} is lost or altered");
        }
    }
    for (sequence, record) in &found.records {
        assert!(before.records.get(sequence) == Some(record), "record {sequence} was invented or altered");
    }
    if options.sequence_floor == 0 {
        assert!(found.next >= before.next, "sequences from {} to {} are given again", found.next, before.next);
        assert!(found.max_tile >= before.max_tile, "tile ids behind {} are given again", found.max_tile);
    }
    let leftover = |path: &PathBuf| path.extension().is_none_or(|extension| extension != "tcj");
    assert!(!fs.files("/data/journal").iter().any(leftover), "a copy was left");
    assert!(!fs.files("/data").contains(&PathBuf::from("/data/compaction")), "the note was left");
    seen.completed += found.report.completed_swaps;
    seen.leftovers += found.report.removed_leftovers;
    let again = recovered(fs);
    let settled = again.report.completed_swaps + again.report.removed_leftovers;
    assert!(again.records == found.records && settled == 0, "a second recovery found something else");
}

/// The power goes at one call of a compaction; at times the process goes first, or the next start is cut off as well.
fn cut_compaction(fs: &CrashFs, call: u64, options: &CompactOptions, live: Liveness, dice: &mut Dice) -> CrashFs {
    let mut fs = fs.copy();
    fs.burn_after(call);
    let _ = compact(&fs, options, live);
    let before_start = dice.below(3);
    if before_start < 2 {
        fs = if before_start == 0 { fs.copy() } else { fs.after_cut(dice) };
        fs.burn_after(dice.below(40));
        drop(Journal::open(&data(), Arc::new(fs.clone()), journal_options()));
    }
    fs.after_cut(dice)
}

fn one_compacted_history(seed: u64, seen: &mut Seen) {
    let mut dice = Dice::new(seed);
    let (mut known, mut fs) = (Knowledge::default(), CrashFs::default());
    for _ in 0..3 {
        for _ in 0..=dice.below(3) {
            fs.burn_after(if dice.below(3) == 0 { dice.below(150) } else { 100_000 });
            let _ = live(&fs, &mut dice, &mut known);
            fs = fs.after_cut(&mut dice);
        }
        let before = recovered(&fs);
        let floor = if dice.below(3) == 0 { u64::MAX } else { 0 };
        let min_dead_share = [0.0, 0.3, 0.9][dice.index(3)];
        let options = CompactOptions { min_dead_share, tile_floor: floor, sequence_floor: floor, ..EVERYTHING };
        let live = Liveness::thrown(&mut dice);

        let whole = fs.copy();
        let report = compact(&whole, &options, live).expect("the power is on");
        let calls = whole.lock().changes.clone();
        seen.rewritten += report.segments_rewritten;
        seen.removed += report.segments_removed;
        seen.left_alone.extend(report.left_alone.iter().map(|left| left.reason.clone()));
        assert_eq!(whole.stored_bytes() + report.bytes_freed, fs.stored_bytes());
        for call in calls {
            let cut = cut_compaction(&fs, call, &options, live, &mut dice);
            check_compacted(&cut, &before, &options, live, seen);
            seen.cuts += 1;
        }
        check_compacted(&whole.after_cut(&mut dice), &before, &options, live, seen);
        check_compacted(&whole, &before, &options, live, seen);
        let after = recovered(&whole).records;
        assert_eq!(before.records.len() as u64 - after.len() as u64, report.records_dropped);
        if min_dead_share == 0.0 && report.left_alone.is_empty() {
            assert!(after.keys().all(|sequence| live.holds(*sequence)), "a dead record is left");
        }
        fs = whole;
    }
}

#[test]
fn live_records_survive_power_cuts_at_any_call_of_a_compaction() {
    let mut seen = Seen::default();
    let mut seed = 0;
    while seen.cuts < cuts_wanted() / 2 {
        let history = std::panic::AssertUnwindSafe(|| one_compacted_history(seed, &mut seen));
        if std::panic::catch_unwind(history).is_err() {
            panic!("seed {seed}: see above");
        }
        seed += 1;
    }
    let reached = [seen.rewritten, seen.removed, seen.completed, seen.leftovers];
    let all_reached = reached.iter().all(|times| *times > 10) && !seen.left_alone.is_empty();
    assert!(all_reached || seen.cuts < 1000, "{seen:?}");
}

/// A closed journal of control records that share blocks, 300 bytes each.
fn small_records(fs: &CrashFs, groups: u64, each: usize) {
    let options = JournalOptions { control_segment_bytes: 4 << 20, ..journal_options() };
    let (journal, _) = Journal::open(&data(), Arc::new(fs.clone()), options).expect("opens");
    let mut control = journal.control_writer();
    for group in 0..groups {
        let payloads: Vec<Vec<u8>> = (0..each).map(|n| format!("{group:04}/{n:04} ").repeat(30).into_bytes()).collect();
        let records: Vec<(RecordKind, i64, &[u8])> =
            payloads.iter().map(|payload| (RecordKind(0x1ff), 7, payload.as_slice())).collect();
        control.append_small(&records).expect("written");
        control.sync().expect("synced");
    }
    control.close().expect("closed");
}

#[test]
fn control_records_that_share_blocks_are_compacted_into_shared_blocks() {
    let fs = CrashFs::default();
    small_records(&fs, 100, 20);
    let before = recovered(&fs);
    let live = Liveness { salt: 3, run: 1, percent: 70 };
    let report = compact(&fs, &EVERYTHING, live).expect("compacts");
    assert_eq!((report.segments_rewritten, report.left_alone.len()), (1, 0), "{report:?}");
    let kept = before.records.iter().filter(|(sequence, _)| live.holds(**sequence));
    let kept: BTreeMap<_, _> = kept.map(|(sequence, record)| (*sequence, record.clone())).collect();
    assert_eq!(report.records_dropped, (before.records.len() - kept.len()) as u64);
    let length = fs.stored_bytes();
    assert!(length < kept.len() as u64 * (192 + 300 + 64 + 192 + 30), "{length} bytes for {} records", kept.len());
    assert!(recovered(&fs).records == kept, "by the table");

    let segment = fs.files("/data/journal").pop().expect("one segment");
    let table = fs.bytes_of(&segment).len() - TRAILER_BYTES - 1000;
    fs.flip(&segment, table - table % 4096);
    assert!(recovered(&fs).records == kept, "by a scan");
}

#[test]
fn a_segment_in_which_anything_does_not_hold_is_left_alone_and_named() {
    let whole = CrashFs::default();
    small_records(&whole, 20, 5);
    let segment = whole.files("/data/journal").pop().expect("one segment");
    let live = Liveness { salt: 3, run: 1, percent: 50 };
    let first = (1..).map(Sequence).find(|sequence| live.holds(*sequence)).expect("half of them live").0 - 1;
    // Five records of 512 bytes a group commit, and so a block.
    let record = SEGMENT_HEADER_BYTES + usize::try_from(first / 5 * 4096 + first % 5 * 512).expect("small");
    let length = whole.bytes_of(&segment).len();
    let places = [
        (20, "segment header"),
        (SEGMENT_HEADER_BYTES + 30, "damaged at offset"),
        (record + RECORD_HEADER_BYTES, "payload"),
        (length - TRAILER_BYTES - 4096, "table"),
        (length - 1, "not sealed"),
    ];
    for (offset, reason) in places {
        let fs = whole.copy();
        fs.flip(&segment, offset);
        let bytes = fs.bytes_of(&segment);
        let report = compact(&fs, &EVERYTHING, live).expect("goes on");
        assert_eq!((report.segments_rewritten, report.records_dropped, report.left_alone.len()), (0, 0, 1), "{reason}");
        let left = &report.left_alone[0];
        assert!(left.path == segment && left.reason.contains(reason), "{left:?} instead of {reason}");
        assert!(fs.files("/data/journal") == [segment.clone()] && fs.bytes_of(&segment) == bytes, "{reason}: touched");
    }
}

/// Two tiles a segment on one lane.
fn tiles_in_segments(fs: &CrashFs, segments: u64) {
    let mut known = Knowledge::default();
    let options = JournalOptions { segment_bytes: 48 << 10, ..journal_options() };
    let (journal, _) = Journal::open(&data(), Arc::new(fs.clone()), options).expect("opens");
    let mut writer = journal.lane_writer(0);
    for _ in 0..2 * segments {
        append_one(&mut writer, &known.payload(20_000));
        writer.sync().expect("synced");
    }
    writer.close().expect("closed");
}

fn append_one(writer: &mut LaneWriter, payload: &[u8]) {
    let mut bytes = AlignedBytes::zeroed(RECORD_HEADER_BYTES + payload.len());
    bytes[RECORD_HEADER_BYTES..][..payload.len()].copy_from_slice(payload);
    let mut draft = [RecordDraft {
        kind: RecordKind::TILE,
        payload_len: u32::try_from(payload.len()).expect("small"),
        payload_crc: crc32fast::hash(payload),
        received_ns: 0,
        tile: Some(stamp(payload)),
        bytes: &mut bytes,
        placed: None,
    }];
    writer.append(&mut draft).expect("written");
}

const ALL_DEAD: Liveness = Liveness { salt: 0, run: 1, percent: 0 };

#[test]
fn the_highest_sequence_and_tile_id_are_kept_until_the_caller_has_them() {
    let fs = CrashFs::default();
    tiles_in_segments(&fs, 3);
    let before = recovered(&fs);
    let safe = CompactOptions { tile_floor: 0, sequence_floor: 0, ..EVERYTHING };
    let report = compact(&fs, &safe, ALL_DEAD).expect("compacts");
    assert_eq!((report.segments_removed, report.left_alone.len()), (2, 1), "{report:?}");
    assert!(report.left_alone[0].reason.contains("highest sequence"), "{report:?}");
    let after = recovered(&fs);
    assert_eq!((after.next, after.max_tile), (before.next, before.max_tile));

    let sequences = CompactOptions { sequence_floor: u64::MAX, ..safe };
    let report = compact(&fs, &sequences, ALL_DEAD).expect("compacts");
    assert!(report.left_alone[0].reason.contains("highest tile id"), "{report:?}");
    let report = compact(&fs, &EVERYTHING, ALL_DEAD).expect("compacts");
    assert_eq!((report.segments_removed, report.max_tile_removed, report.max_sequence_removed), (1, 6, 6));
    assert!(recovered(&fs).records.is_empty());
}

#[test]
fn without_room_for_a_copy_dead_segments_go_and_the_rest_waits() {
    let fs = CrashFs::default();
    tiles_in_segments(&fs, 3);
    let filesystem: Arc<dyn Filesystem> = Arc::new(fs.clone());
    let full = CompactOptions { reserve_bytes: 1 << 40, ..EVERYTHING };
    let mut is_live = |record: &StoredRecord| record.header.sequence == Sequence(1);
    let report = compact_segments(&data(), &filesystem, &full, &mut is_live, &mut |_, _| {}).expect("reports");
    assert_eq!((report.segments_removed, report.segments_rewritten, report.stopped_for_space), (2, 0, true));
    assert!(report.left_alone[0].reason.contains("no space"), "{report:?}");
    assert_eq!(recovered(&fs).records.len(), 2);
    let report = compact_segments(&data(), &filesystem, &EVERYTHING, &mut is_live, &mut |_, _| {}).expect("compacts");
    assert_eq!((report.segments_rewritten, report.records_dropped, report.max_sequence_removed), (1, 1, 2));
}

#[test]
fn the_highest_tile_id_stays_known_when_its_tile_is_gone() {
    let fs = CrashFs::default();
    tiles_in_segments(&fs, 3);
    small_records(&fs, 1, 1);
    let before = recovered(&fs);
    let safe = CompactOptions { tile_floor: 0, sequence_floor: 0, ..EVERYTHING };
    let filesystem: Arc<dyn Filesystem> = Arc::new(fs.clone());
    let mut is_live = |record: &StoredRecord| record.header.sequence != Sequence(6);
    let report = compact_segments(&data(), &filesystem, &safe, &mut is_live, &mut |_, _| {}).expect("compacts");
    assert_eq!((report.segments_rewritten, report.records_dropped, report.max_tile_removed), (1, 1, 6), "{report:?}");
    let after = recovered(&fs);
    assert!(!after.records.contains_key(&Sequence(6)));
    assert_eq!((after.next, after.max_tile), (before.next, before.max_tile));
}

/// Two synced records in a first segment, two unsynced ones in a second, of which the power cut left the later one.
fn torn_at_a_segments_start() -> CrashFs {
    let fs = CrashFs::default();
    let mut known = Knowledge::default();
    let (journal, _) = Journal::open(&data(), Arc::new(fs.clone()), journal_options()).expect("opens");
    let mut writer = journal.lane_writer(0);
    for synced in [true, true, false, false] {
        append_one(&mut writer, &known.payload(20_000));
        if synced {
            writer.sync().expect("synced");
        }
    }
    let cut = (0..1000).map(|seed| fs.after_cut(&mut Dice::new(seed))).find(|cut| {
        let second = Path::new("/data/journal/0000000000000002-0000.tcj");
        let headless =
            cut.bytes_of(second)[SEGMENT_HEADER_BYTES..][..RECORD_HEADER_BYTES].iter().all(|byte| *byte == 0);
        headless && recovered(&cut.copy()).records.keys().map(|sequence| sequence.0).eq([1, 2, 4])
    });
    cut.expect("one of a thousand cuts")
}

#[test]
fn the_record_that_tells_a_torn_start_from_damage_is_kept() {
    let fs = torn_at_a_segments_start();
    let before = recovered(&fs);
    assert_eq!(before.report.damage.len(), 1, "{:?}", before.report.damage);
    for live in [[1, 4].as_slice(), &[4]] {
        let fs = fs.copy();
        let filesystem: Arc<dyn Filesystem> = Arc::new(fs.clone());
        let mut is_live = |record: &StoredRecord| live.contains(&record.header.sequence.0);
        let report = compact_segments(&data(), &filesystem, &EVERYTHING, &mut is_live, &mut |_, _| {});
        let report = report.expect("compacts");
        assert!(report.records_dropped == 0 && report.left_alone[0].reason.contains("torn place"), "{report:?}");
        let verified = verify_segments(&data(), &fs, &mut |_| {}).expect("readable");
        assert_eq!(verified.problems, []);
    }
    // The first segment's end lives: it moves behind the second one, and is still found.
    let filesystem: Arc<dyn Filesystem> = Arc::new(fs.clone());
    let mut is_live = |record: &StoredRecord| record.header.sequence != Sequence(1);
    let report = compact_segments(&data(), &filesystem, &EVERYTHING, &mut is_live, &mut |_, _| {}).expect("compacts");
    assert_eq!((report.segments_rewritten, report.left_alone.len()), (1, 0), "{report:?}");
    let verified = verify_segments(&data(), &fs, &mut |_| {}).expect("readable");
    assert!(verified.problems.is_empty() && verified.torn == 1, "{verified:?}");
}

#[test]
fn a_swap_whose_copy_is_damaged_is_undone() {
    let fs = CrashFs::default();
    tiles_in_segments(&fs, 6);
    let before = recovered(&fs);
    let live = Liveness { salt: 3, run: 1, percent: 50 };
    let whole = fs.copy();
    assert!(compact(&whole, &EVERYTHING, live).expect("compacts").segments_rewritten > 0);
    let calls = whole.lock().changes.clone();
    let mut undone = 0;
    for call in calls {
        let stopped = fs.copy();
        stopped.burn_after(call);
        let _ = compact(&stopped, &EVERYTHING, live);
        let stopped = stopped.copy();
        let segments = stopped.files("/data/journal");
        let copies = segments.iter().filter(|path| path.extension().is_some_and(|extension| extension == "new"));
        for copy in copies.filter(|copy| !stopped.bytes_of(copy).is_empty()) {
            let damaged = stopped.copy();
            damaged.flip(copy, damaged.bytes_of(copy).len() - 1);
            let found = recovered(&damaged);
            let kept = before.records.iter().filter(|(sequence, _)| live.holds(**sequence));
            assert!(kept.into_iter().all(|(sequence, record)| found.records.get(sequence) == Some(record)));
            assert!(found.report.removed_leftovers >= 1, "{:?}", found.report);
            undone += u64::from(stopped.files("/data").contains(&PathBuf::from("/data/compaction")));
        }
    }
    assert!(undone > 0, "no call lies between the note and the renaming");
}
