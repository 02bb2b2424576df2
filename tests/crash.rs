//! Power cuts on a model of a disk: whatever subset of unsynced writes survives, every record whose sync returned is
//! there and equal, nothing is invented, and recovering again changes nothing.
//!
//! `TILECATCHER_TEST_CUTS=20000 cargo test --release --test crash` runs more; a failure names its seed. The keeper's
//! thread runs beside the history, so a seed gives the same history but not always the same cut in it.

#![allow(missing_docs)]

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use tilecatcher::base::aligned::AlignedBytes;
use tilecatcher::journal::{
    DamageKind, Filesystem, Journal, JournalError, JournalOptions, LaneWriter, RECORD_HEADER_BYTES, RecordDraft,
    RecordKind, SegmentFile, TileStamp, verify_segments,
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

#[derive(Default)]
struct Disk {
    contents: Vec<Content>,
    /// Directory entries as programs see them, and as the last syncs left them.
    live: BTreeMap<PathBuf, usize>,
    durable: BTreeMap<PathBuf, usize>,
    /// What lies between the two: a power cut may leave any part of it done, each change wholly or not at all.
    pending: Vec<NameChange>,
    /// Calls left until the power goes.
    fuse: Option<u64>,
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
            Some(0) => Err(io::Error::other("the power is off")),
            Some(left) => {
                *left -= 1;
                Ok(disk)
            }
            None => Ok(disk),
        }
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
        let mut disk = self.powered()?;
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
        let mut disk = self.powered()?;
        if !disk.live.contains_key(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        Self::change_name(&mut disk, NameChange::Remove(path.to_owned()));
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        assert_eq!(from.parent(), to.parent(), "renamed within one directory only");
        let mut disk = self.powered()?;
        if !disk.live.contains_key(from) {
            return Err(io::ErrorKind::NotFound.into());
        }
        Self::change_name(&mut disk, NameChange::Rename(from.to_owned(), to.to_owned()));
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut disk = self.powered()?;
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
        self.fs.powered().map(drop)
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
        let mut disk = self.fs.powered()?;
        let content = &mut disk.contents[self.content];
        for change in std::mem::take(&mut content.pending) {
            Content::apply(&mut content.durable, &change);
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut disk = self.fs.powered()?;
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

fn options() -> JournalOptions {
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
            received_ns: 0,
            tile: Some(stamp()),
            bytes: buffer,
            placed: None,
        })
        .collect();
    let written = writer.append(&mut drafts);
    let placed = drafts.iter().zip(&payloads).filter_map(|(draft, payload)| Some((draft.placed?.0, payload.clone())));
    unsynced.extend(placed);
    written
}

fn stamp() -> TileStamp {
    TileStamp {
        id: TileId(1),
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
    let (journal, _) = Journal::open(&data(), Arc::new(fs.clone()), options())?;
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

/// All records as a start finds them.
fn recovered(fs: &CrashFs) -> (BTreeMap<Sequence, Vec<u8>>, usize) {
    let (journal, report) = Journal::open(&data(), Arc::new(fs.clone()), options()).expect("recovery");
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
        found.insert(record.header.sequence, payload);
    }
    (found, report.damage.len())
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
        let (found, _) = recovered(&fs);
        for (sequence, payload) in &known.durable {
            assert!(
                found.get(sequence) == Some(payload),
                "{context}: record {sequence} was synced and is lost or altered"
            );
        }
        for payload in found.values() {
            assert!(known.tried.contains(payload), "{context}: a record was invented");
        }
        let (again, damage) = recovered(&fs);
        assert!(again == found && damage == 0, "{context}: a second recovery found something else");
        let verified = verify_segments(&data(), &fs, &mut |_| {}).expect("readable");
        assert!(verified.problems.is_empty(), "{context}: {:?}", verified.problems);
        // What was found is durable from now on, whether or not anybody was told.
        known.durable.extend(found);
    }
}

#[test]
fn synced_records_survive_power_cuts_at_any_point() {
    let cuts = std::env::var("TILECATCHER_TEST_CUTS").ok().and_then(|text| text.parse().ok()).unwrap_or(3000);
    for seed in 0..cuts / 3 {
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
        let (journal, _) = Journal::open(&data(), Arc::new(fs.clone()), options()).expect("opens");
        let mut writer = journal.lane_writer(0);
        let mut unsynced = Unsynced::new();
        append_tiles(&mut writer, &mut dice, &mut known, &mut unsynced).expect("written");
        fs.burn_after(0);
        let (found, _) = recovered(&fs.after_cut(&mut dice));
        kept += unsynced.iter().filter(|(sequence, _)| found.contains_key(sequence)).count();
        lost += unsynced.iter().filter(|(sequence, _)| !found.contains_key(sequence)).count();
    }
    assert!(lost > 10 && kept > 10, "{lost} lost, {kept} kept");
}
