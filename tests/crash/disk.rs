//! A model of a disk behind the filesystem seam: what programs see, what is durable, and what lies between the two.
//!
//! A cut keeps any subset of what was not synced, each write torn at sectors, each name change wholly or not at all. A
//! sync that fails loses what it should have written, while programs still see it: as the page cache does it. Every
//! call that changes something is an [`Op`]; a log of them gives the disk at each moment of a history again.

use crate::dice::Dice;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use tilecatcher::base::limits::BLOCK;
use tilecatcher::journal::{Filesystem, SegmentFile, write_fully};

const SECTOR: usize = 512;

/// What has been asked of a file since its last sync.
#[derive(Clone)]
pub enum Change {
    Write(usize, Vec<u8>),
    SetLen(usize),
}

/// What has been asked of a directory since its last sync.
#[derive(Clone)]
pub enum NameChange {
    Create(PathBuf, usize),
    Remove(PathBuf),
    Rename(PathBuf, PathBuf),
}

/// A call that changed something. Files are told by the order in which they were made.
#[derive(Clone)]
pub enum Op {
    Create(PathBuf, usize),
    File(usize, Change),
    Sync(usize),
    /// A sync that failed, and how many of the changes it should have made durable got there all the same.
    FailedSync(usize, usize),
    DropCache(usize),
    Name(NameChange),
    SyncDir(PathBuf),
    /// Not a call: somebody was promised something at this moment.
    Mark(usize),
}

/// A call of the seam, for injected errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Call {
    CreateDir,
    List,
    Create,
    OpenRead,
    OpenWrite,
    Remove,
    Rename,
    SyncDir,
    FreeBytes,
    Write,
    Read,
    Sync,
    SetLen,
    Length,
    NextData,
}

/// The `nth` call of a kind from now on fails, and all behind it if it `lasts`.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    pub call: Call,
    pub nth: u64,
    pub errno: i32,
    pub lasts: bool,
}

#[derive(Clone, Default)]
struct Content {
    live: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<Change>,
    /// A sync of it failed.
    poisoned: bool,
    /// Blocks that the disk does not give, until they are written.
    refused: BTreeSet<usize>,
}

#[derive(Clone, Default)]
pub struct Disk {
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
    pub changes: Vec<u64>,
    log: Option<Vec<Op>>,
    fault: Option<Fault>,
    pub counts: HashMap<Call, u64>,
    /// Writes and syncs of files of which a sync had failed.
    pub touched_after_failed_sync: u64,
    /// When set: writes come back short or interrupted at times.
    hiccups: Option<Dice>,
    slow_sync: bool,
    /// Identities given so far, when they are to be the same each time.
    identities: Option<u64>,
}

#[derive(Clone, Default)]
pub struct CrashFs(Arc<Mutex<Disk>>);

struct CrashFile {
    fs: CrashFs,
    content: usize,
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

/// As `Vec::resize`, which takes one byte at a time in a build without optimisations.
fn set_len(bytes: &mut Vec<u8>, len: usize) {
    bytes.truncate(len);
    bytes.extend_from_slice(&vec![0; len - bytes.len()]);
}

impl Content {
    fn apply(bytes: &mut Vec<u8>, change: &Change) {
        match change {
            Change::Write(offset, data) => {
                if bytes.len() < offset + data.len() {
                    set_len(bytes, offset + data.len());
                }
                bytes[*offset..offset + data.len()].copy_from_slice(data);
            }
            Change::SetLen(len) => set_len(bytes, *len),
        }
    }

    fn make_durable(&mut self, changes: usize) {
        for change in self.pending.drain(..).take(changes) {
            Self::apply(&mut self.durable, &change);
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
                        if dice.once_in(2) {
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

impl Disk {
    pub fn apply(&mut self, op: &Op) {
        match op {
            Op::Create(path, len) => {
                self.contents.push(Content {
                    live: vec![0; *len],
                    pending: vec![Change::SetLen(*len)],
                    ..Content::default()
                });
                let content = self.contents.len() - 1;
                self.change_name(NameChange::Create(path.clone(), content));
            }
            Op::File(content, change) => {
                let content = &mut self.contents[*content];
                Content::apply(&mut content.live, change);
                content.pending.push(change.clone());
            }
            Op::Sync(content) => self.contents[*content].make_durable(usize::MAX),
            Op::FailedSync(content, kept) => {
                self.contents[*content].make_durable(*kept);
                self.contents[*content].poisoned = true;
            }
            Op::DropCache(content) => {
                let content = &mut self.contents[*content];
                content.live.clone_from(&content.durable);
                content.pending.iter().for_each(|change| Content::apply(&mut content.live, change));
            }
            Op::Name(change) => self.change_name(change.clone()),
            Op::SyncDir(dir) => self.sync_dir(dir),
            Op::Mark(_) => {}
        }
    }

    fn do_and_log(&mut self, op: Op) {
        self.apply(&op);
        if let Some(log) = &mut self.log {
            log.push(op);
        }
    }

    fn change_name(&mut self, change: NameChange) {
        change.apply(&mut self.live);
        self.pending.push(change);
    }

    fn sync_dir(&mut self, dir: &Path) {
        let live = &self.live;
        self.durable.retain(|path, _| path.parent() != Some(dir) || live.contains_key(path));
        let inside = live.iter().filter(|(path, _)| path.parent() == Some(dir));
        self.durable.extend(inside.map(|(path, content)| (path.clone(), *content)));
        self.pending.retain(|change| change.dir() != Some(dir));
    }

    /// What another start finds after a cut.
    pub fn after_cut(&self, dice: &mut Dice) -> CrashFs {
        let mut entries = self.durable.clone();
        self.pending.iter().filter(|_| dice.once_in(2)).for_each(|change| change.apply(&mut entries));
        self.with(entries, |content| content.after_cut(dice))
    }

    /// Ends an injected error that lasts.
    pub fn heal(&mut self) {
        self.fault = None;
    }

    /// Changes that a cut may leave undone: writes and names.
    pub fn pending(&self) -> usize {
        self.pending.len() + self.contents.iter().map(|content| content.pending.len()).sum::<usize>()
    }

    /// What another start finds after a cut that left those pending changes done whose bit is set.
    pub fn after_cut_with(&self, done: u64) -> CrashFs {
        let mut bit = 0..64;
        let mut is_done = || bit.next().is_some_and(|bit| done >> bit & 1 == 1);
        let mut entries = self.durable.clone();
        self.pending.iter().filter(|_| is_done()).for_each(|change| change.apply(&mut entries));
        let bytes = |content: &Content| {
            let mut bytes = content.durable.clone();
            content.pending.iter().filter(|_| is_done()).for_each(|change| Content::apply(&mut bytes, change));
            bytes
        };
        let contents: Vec<Vec<u8>> = self.contents.iter().map(bytes).collect();
        let mut next = Self::default();
        for (path, content) in entries {
            next.put(path, contents[content].clone());
        }
        CrashFs(Arc::new(Mutex::new(next)))
    }

    fn with(&self, entries: BTreeMap<PathBuf, usize>, mut bytes_of: impl FnMut(&Content) -> Vec<u8>) -> CrashFs {
        let mut next = Self::default();
        for (path, content) in entries {
            next.put(path, bytes_of(&self.contents[content]));
        }
        CrashFs(Arc::new(Mutex::new(next)))
    }

    fn put(&mut self, path: PathBuf, bytes: Vec<u8>) {
        self.contents.push(Content { live: bytes.clone(), durable: bytes, ..Content::default() });
        self.live.insert(path.clone(), self.contents.len() - 1);
        self.durable.insert(path, self.contents.len() - 1);
    }

    /// A killed process, not a cut: what was written is still there, what was not synced is still in danger.
    pub fn after_kill(&self) -> CrashFs {
        let mut disk = self.clone();
        (disk.fuse, disk.calls, disk.changes, disk.log) = (None, 0, Vec::new(), None);
        (disk.fault, disk.hiccups, disk.slow_sync) = (None, None, false);
        disk.counts.clear();
        disk.contents.iter_mut().for_each(|content| content.poisoned = false);
        CrashFs(Arc::new(Mutex::new(disk)))
    }
}

impl CrashFs {
    pub fn lock(&self) -> MutexGuard<'_, Disk> {
        self.0.lock().expect("no panic under the lock")
    }

    /// Counts a call; after the power has gone every call fails, and so does one with a fault.
    fn powered(&self, call: Call) -> io::Result<MutexGuard<'_, Disk>> {
        let mut disk = self.lock();
        match &mut disk.fuse {
            Some(0) => return Err(io::Error::other("the power is off")),
            Some(left) => *left -= 1,
            None => {}
        }
        disk.calls += 1;
        *disk.counts.entry(call).or_default() += 1;
        match &mut disk.fault {
            Some(fault) if fault.call == call => {
                fault.nth = fault.nth.saturating_sub(1);
                let (errno, lasts) = (fault.errno, fault.lasts);
                if fault.nth == 0 {
                    if !lasts {
                        disk.fault = None;
                    }
                    // The guard goes with the error: a caller that needs the disk takes it again.
                    return Err(io::Error::from_raw_os_error(errno));
                }
            }
            _ => {}
        }
        Ok(disk)
    }

    /// As [`Self::powered`], for a call that changes something.
    fn changing(&self, call: Call) -> io::Result<MutexGuard<'_, Disk>> {
        let mut disk = self.powered(call)?;
        let call = disk.calls - 1;
        disk.changes.push(call);
        Ok(disk)
    }

    /// Another disk in the same state, with the power on and no calls counted.
    pub fn copy(&self) -> CrashFs {
        self.lock().after_kill()
    }

    /// Starts a log of what changes; gives back the disk as it is now.
    pub fn record(&self) -> Disk {
        let mut disk = self.lock();
        let before = disk.clone();
        disk.log = Some(Vec::new());
        before
    }

    pub fn recorded(&self) -> Vec<Op> {
        self.lock().log.take().unwrap_or_default()
    }

    /// Notes in the log that something was promised.
    pub fn mark(&self, promise: usize) {
        self.lock().do_and_log(Op::Mark(promise));
    }

    pub fn inject(&self, fault: Fault) {
        self.lock().fault = Some(fault);
    }

    pub fn hiccup(&self, dice: &Dice) {
        self.lock().hiccups = Some(dice.clone());
    }

    /// From now on the same identities each time.
    pub fn fix_identities(&self) {
        self.lock().identities = Some(0);
    }

    pub fn slow_syncs(&self) {
        self.lock().slow_sync = true;
    }

    /// Flips a bit in what programs see, and in what is durable.
    pub fn flip(&self, path: &Path, offset: usize) {
        self.flip_bit(path, offset * 8);
    }

    /// From now on the block at `offset` can not be read, until it is written.
    pub fn refuse(&self, path: &Path, offset: usize) {
        let mut disk = self.lock();
        let content = disk.live[path];
        disk.contents[content].refused.insert(offset / BLOCK);
    }

    /// All blocks can be read again.
    pub fn give_back(&self) {
        self.lock().contents.iter_mut().for_each(|content| content.refused.clear());
    }

    pub fn flip_bit(&self, path: &Path, bit: usize) {
        let mut disk = self.lock();
        let content = disk.live[path];
        let Content { live, durable, .. } = &mut disk.contents[content];
        [live, durable].into_iter().filter_map(|bytes| bytes.get_mut(bit / 8)).for_each(|byte| *byte ^= 1 << (bit % 8));
    }

    pub fn bytes_of(&self, path: &Path) -> Vec<u8> {
        let disk = self.lock();
        disk.contents[disk.live[path]].live.clone()
    }

    pub fn files(&self, dir: impl AsRef<Path>) -> Vec<PathBuf> {
        self.lock().live.keys().filter(|path| path.parent() == Some(dir.as_ref())).cloned().collect()
    }

    /// Every file and what programs see in it.
    pub fn everything(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let disk = self.lock();
        disk.live.iter().map(|(path, content)| (path.clone(), disk.contents[*content].live.clone())).collect()
    }

    pub fn stored_bytes(&self) -> u64 {
        self.files("/data/journal").iter().map(|path| self.bytes_of(path).len() as u64).sum()
    }

    /// The same disk with its files in another directory. Only for disks of which nothing is pending.
    pub fn moved(&self, from: &Path, to: &Path) -> CrashFs {
        let image = self.copy();
        {
            let mut disk = image.lock();
            assert_eq!(disk.pending.len(), 0, "names may still change");
            let moved = |names: &BTreeMap<PathBuf, usize>| {
                let new = |path: &PathBuf| to.join(path.strip_prefix(from).expect("in the directory"));
                names.iter().map(|(path, content)| (new(path), *content)).collect()
            };
            (disk.live, disk.durable) = (moved(&disk.live), moved(&disk.durable));
        }
        image
    }

    pub fn burn_after(&self, calls: u64) {
        self.lock().fuse = Some(calls);
    }

    pub fn after_cut(&self, dice: &mut Dice) -> CrashFs {
        self.lock().after_cut(dice)
    }

    fn open(&self, path: &Path, call: Call) -> io::Result<Box<dyn SegmentFile>> {
        let content = self.powered(call)?.live.get(path).copied().ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(CrashFile { fs: self.clone(), content }))
    }
}

impl Filesystem for CrashFs {
    fn create_dir_all(&self, _: &Path) -> io::Result<()> {
        self.powered(Call::CreateDir).map(drop)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let disk = self.powered(Call::List)?;
        let names = disk.live.keys().filter(|path| path.parent() == Some(dir)).filter_map(|path| path.file_name());
        Ok(names.map(|name| name.to_string_lossy().into_owned()).collect())
    }

    fn create(&self, path: &Path, len: u64) -> io::Result<Box<dyn SegmentFile>> {
        let mut disk = self.changing(Call::Create)?;
        assert!(!disk.live.contains_key(path), "{} exists", path.display());
        disk.do_and_log(Op::Create(path.to_owned(), usize::try_from(len).expect("small")));
        let content = disk.contents.len() - 1;
        Ok(Box::new(CrashFile { fs: self.clone(), content }))
    }

    fn open_read(&self, path: &Path) -> io::Result<Box<dyn SegmentFile>> {
        self.open(path, Call::OpenRead)
    }

    fn open_write(&self, path: &Path) -> io::Result<Box<dyn SegmentFile>> {
        self.open(path, Call::OpenWrite)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut disk = self.changing(Call::Remove)?;
        if !disk.live.contains_key(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        disk.do_and_log(Op::Name(NameChange::Remove(path.to_owned())));
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        assert_eq!(from.parent(), to.parent(), "renamed within one directory only");
        let mut disk = self.changing(Call::Rename)?;
        if !disk.live.contains_key(from) {
            return Err(io::ErrorKind::NotFound.into());
        }
        disk.do_and_log(Op::Name(NameChange::Rename(from.to_owned(), to.to_owned())));
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut disk = self.changing(Call::SyncDir)?;
        disk.do_and_log(Op::SyncDir(dir.to_owned()));
        Ok(())
    }

    fn free_bytes(&self, _: &Path) -> io::Result<u64> {
        self.powered(Call::FreeBytes).map(|_| 1 << 40)
    }

    fn new_identity(&self) -> [u8; 16] {
        let mut disk = self.lock();
        let Some(given) = &mut disk.identities else { return *uuid::Uuid::new_v4().as_bytes() };
        *given += 1;
        let mut identity = *b"test identity 00";
        identity[8..].copy_from_slice(&given.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
        identity
    }

    fn now_ns(&self) -> i64 {
        1_700_000_000_000_000_000
    }
}

impl CrashFile {
    /// One call of the operating system: writes all of it, or at times a part, or nothing because of a signal.
    fn write_once(&self, slices: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
        let offset = usize::try_from(offset).expect("small");
        let mut data: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).collect();
        let mut disk = self.fs.lock();
        if let Some(hiccups) = &mut disk.hiccups {
            match hiccups.below(8) {
                0 => return Err(io::ErrorKind::Interrupted.into()),
                1 if data.len() > SECTOR => data.truncate((hiccups.index(data.len() / SECTOR) + 1) * SECTOR),
                _ => {}
            }
        }
        if disk.contents[self.content].poisoned {
            disk.touched_after_failed_sync += 1;
        }
        if disk.fuse == Some(0) {
            // The write during which the power goes may still reach the disk in part.
            disk.contents[self.content].pending.push(Change::Write(offset, data));
            return Err(io::Error::other("the power is off"));
        }
        drop(disk);
        let written = data.len();
        match self.fs.changing(Call::Write) {
            Ok(mut disk) => {
                disk.contents[self.content]
                    .refused
                    .retain(|block| !(offset..offset + written).contains(&(block * BLOCK)));
                disk.do_and_log(Op::File(self.content, Change::Write(offset, data)));
                Ok(written)
            }
            // A write that fails may have done a part of its work.
            Err(error) => {
                data.truncate(written / SECTOR / 2 * SECTOR);
                self.fs.lock().do_and_log(Op::File(self.content, Change::Write(offset, data)));
                Err(error)
            }
        }
    }
}

impl SegmentFile for CrashFile {
    fn write_all_at(&self, slices: &mut [IoSlice<'_>], offset: u64) -> io::Result<()> {
        let len: usize = slices.iter().map(|slice| slice.len()).sum();
        assert!(offset.is_multiple_of(4096) && len.is_multiple_of(4096), "not in whole blocks");
        write_fully(slices, offset, &mut |slices, offset| self.write_once(slices, offset))
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        let disk = self.fs.powered(Call::Read)?;
        let Content { live, refused, .. } = &disk.contents[self.content];
        let from = usize::try_from(offset).expect("small").min(live.len());
        let len = bytes.len().min(live.len() - from);
        if len > 0 && refused.range(from / BLOCK..=(from + len - 1) / BLOCK).next().is_some() {
            return Err(io::Error::from_raw_os_error(5));
        }
        bytes[..len].copy_from_slice(&live[from..from + len]);
        Ok(len)
    }

    fn sync(&self) -> io::Result<()> {
        if self.fs.lock().slow_sync {
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        match self.fs.changing(Call::Sync) {
            Ok(mut disk) => {
                if disk.contents[self.content].poisoned {
                    disk.touched_after_failed_sync += 1;
                }
                disk.do_and_log(Op::Sync(self.content));
                Ok(())
            }
            Err(error) => {
                let mut disk = self.fs.lock();
                if disk.fuse != Some(0) {
                    let kept = disk.contents[self.content].pending.len() / 2;
                    disk.do_and_log(Op::FailedSync(self.content, kept));
                }
                Err(error)
            }
        }
    }

    fn drop_cache(&self) -> io::Result<()> {
        self.fs.lock().do_and_log(Op::DropCache(self.content));
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut disk = self.fs.changing(Call::SetLen)?;
        disk.do_and_log(Op::File(self.content, Change::SetLen(usize::try_from(len).expect("small"))));
        Ok(())
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.fs.powered(Call::Length)?.contents[self.content].live.len() as u64)
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<u64>> {
        self.fs.powered(Call::NextData).map(|_| Some(offset))
    }
}
