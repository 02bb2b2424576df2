//! A file system of two sides, and files that are written on both.
//!
//! Each call runs on both sides at once, the second one on a thread of its own that ends before the call returns: the
//! borrowed bytes need not outlive it. Must never return success for a change that only the first side has, unless
//! [`Mirror::lose`] has recorded that.

use super::{Mirror, MirrorOptions, lock};
use crate::journal::filesystem::{Filesystem, SegmentFile};
use crate::journal::store;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};

/// The file system of a mirrored journal: paths are those of the data directory.
pub struct MirroredFilesystem(Arc<Mirror>);

impl MirroredFilesystem {
    /// `data` on `first`, mirrored to the options' directory on `second`. Touches nothing yet: opening the journal does.
    #[must_use]
    pub fn new(first: Arc<dyn Filesystem>, second: Arc<dyn Filesystem>, data: &Path, options: MirrorOptions) -> Self {
        Self(Mirror::new(first, second, data, options))
    }
}

/// A file on both sides, or on the first one alone.
pub(super) struct Pair {
    mirror: Arc<Mirror>,
    pub(super) path: PathBuf,
    pub(super) first: Box<dyn SegmentFile>,
    pub(super) twin: Mutex<Twin>,
}

/// The second side of a file.
#[derive(Default)]
pub(super) struct Twin {
    /// With the generation in which it was opened.
    pub(super) file: Option<(u64, Box<dyn SegmentFile>)>,
    /// Ranges (offset, length) that were written while a copy of the file is being made. `None`: none is.
    pub(super) missed: Option<Vec<(u64, u64)>>,
    /// The second side failed, and the first one could not record that yet: nothing may succeed before it has.
    unrecorded: Option<String>,
}

struct PairFile(Arc<Pair>);

type Operation<'a> = &'a (dyn Fn(&dyn SegmentFile) -> io::Result<()> + Sync);

impl Pair {
    /// Does the same on both sides, for a change of `range`.
    fn both(&self, range: Option<(u64, u64)>, operation: Operation<'_>) -> io::Result<()> {
        let mut twin = lock(&self.twin);
        self.record_loss(&mut twin)?;
        if twin.file.as_ref().is_some_and(|(generation, _)| *generation != self.mirror.generation()) {
            twin.file = None;
        }
        if let (Some(missed), Some(range)) = (&mut twin.missed, range) {
            missed.push(range);
        }
        let Some((_, second)) = &twin.file else { return operation(&*self.first) };
        let (first, second) = at_once(|| operation(&*self.first), || operation(&**second));
        if let Err(error) = second {
            twin.file = None;
            twin.unrecorded = Some(format!("{}: {error}", self.path.display()));
            self.record_loss(&mut twin)?;
        }
        first
    }

    /// An error of this is never "full": that would be taken as harmless.
    fn record_loss(&self, twin: &mut Twin) -> io::Result<()> {
        if let Some(why) = &twin.unrecorded {
            self.mirror.lose(why).map_err(|error| io::Error::other(format!("the loss of the mirror: {error}")))?;
            twin.unrecorded = None;
        }
        Ok(())
    }
}

/// Runs both, the second on another thread.
fn at_once<A, B: Send>(first: impl FnOnce() -> A, second: impl FnOnce() -> B + Send) -> (A, B) {
    std::thread::scope(|scope| {
        let second = scope.spawn(second);
        let first = first();
        (first, second.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}

impl SegmentFile for PairFile {
    fn write_all_at(&self, slices: &mut [IoSlice<'_>], offset: u64) -> io::Result<()> {
        let slices = &*slices;
        let len = slices.iter().map(|slice| slice.len() as u64).sum();
        self.0.both(Some((offset, len)), &|file| {
            let mut own: Vec<IoSlice<'_>> = slices.iter().map(|slice| IoSlice::new(slice)).collect();
            file.write_all_at(&mut own, offset)
        })
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.first.read_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.both(None, &|file| file.sync())
    }

    fn drop_cache(&self) -> io::Result<()> {
        self.0.both(None, &|file| file.drop_cache())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.both(None, &|file| file.set_len(len))
    }

    fn length(&self) -> io::Result<u64> {
        self.0.first.length()
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<u64>> {
        self.0.first.next_data(offset)
    }
}

/// A file that is read: from the second side where the first one can not be read and both are known to be equal.
struct ReadFile {
    mirror: Arc<Mirror>,
    path: PathBuf,
    first: Box<dyn SegmentFile>,
    second: OnceLock<Option<Box<dyn SegmentFile>>>,
}

impl SegmentFile for ReadFile {
    fn write_all_at(&self, _: &mut [IoSlice<'_>], _: u64) -> io::Result<()> {
        Err(io::Error::new(io::ErrorKind::PermissionDenied, "opened for reading"))
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        self.first.read_at(bytes, offset).or_else(|error| {
            if !self.mirror.is_in_sync() {
                return Err(error);
            }
            let open = || self.mirror.second.open_read(&self.mirror.twin_path(&self.path)).ok();
            self.second.get_or_init(open).as_ref().ok_or(error)?.read_at(bytes, offset)
        })
    }

    fn sync(&self) -> io::Result<()> {
        self.first.sync()
    }

    fn set_len(&self, _: u64) -> io::Result<()> {
        Err(io::Error::new(io::ErrorKind::PermissionDenied, "opened for reading"))
    }

    fn length(&self) -> io::Result<u64> {
        self.first.length()
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<u64>> {
        self.first.next_data(offset)
    }
}

impl Mirror {
    fn pair(
        self: &Arc<Self>,
        path: &Path,
        first: Box<dyn SegmentFile>,
        second: Option<(u64, Box<dyn SegmentFile>)>,
    ) -> Box<dyn SegmentFile> {
        let twin = Twin { file: second, ..Twin::default() };
        let pair = Arc::new(Pair { mirror: Arc::clone(self), path: path.to_owned(), first, twin: Mutex::new(twin) });
        let mut open = lock(&self.open);
        open.retain(|_, pair| pair.strong_count() > 0);
        open.insert(path.to_owned(), Arc::downgrade(&pair));
        Box::new(PairFile(pair))
    }

    /// The second side of a file, where there is to be one, with the generation in which it was opened: when the mirror
    /// is lost meanwhile, the file is given up at its first use.
    fn second_of(
        &self,
        wanted: bool,
        path: &Path,
        open: impl FnOnce() -> io::Result<Box<dyn SegmentFile>>,
    ) -> io::Result<Option<(u64, Box<dyn SegmentFile>)>> {
        let generation = self.generation();
        if !wanted {
            return Ok(None);
        }
        match open() {
            Ok(file) => Ok(Some((generation, file))),
            Err(error) => {
                self.lose(&format!("{}: {error}", self.twin_path(path).display()))?;
                Ok(None)
            }
        }
    }

    /// Does something to names: on the second side too while it is attached. The caller holds the lock of the names.
    fn name_change(&self, path: &Path, change: impl Fn(&dyn Filesystem, &Path) -> io::Result<()>) -> io::Result<()> {
        change(&*self.first, path)?;
        if self.is_attached()
            && let Err(error) = change(&*self.second, &self.twin_path(path))
        {
            self.lose(&format!("{}: {error}", self.twin_path(path).display()))?;
        }
        Ok(())
    }

    /// Makes a file on the second side; what an earlier process left under its name is no part of the journal, but of a
    /// segment that the first side has lost.
    fn create_twin(&self, path: &Path, len: u64) -> io::Result<Box<dyn SegmentFile>> {
        let twin = self.twin_path(path);
        let names = self.second.list(twin.parent().unwrap_or(&twin))?;
        match names.iter().find(|name| twin.ends_with(name)) {
            Some(name) if super::number_of(&twin).is_some() => {
                let store = store::identity(&*self.first, &self.first_dir).map_err(io::Error::other)?;
                let store = store.ok_or_else(|| io::Error::other("the data directory has no identity"))?;
                self.remove_extra(self.second_side(), name, store).map_err(io::Error::other)?;
            }
            Some(_) => self.second.remove(&twin)?,
            None => {}
        }
        self.second.create(&twin, len)
    }
}

impl Filesystem for MirroredFilesystem {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        let _names = lock(&self.0.names);
        self.0.name_change(dir, |filesystem, dir| filesystem.create_dir_all(dir))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.0.first.list(dir)
    }

    fn create(&self, path: &Path, len: u64) -> io::Result<Box<dyn SegmentFile>> {
        let mirror = &self.0;
        let _names = lock(&mirror.names);
        let first = mirror.first.create(path, len)?;
        let second = mirror.second_of(mirror.is_attached(), path, || mirror.create_twin(path, len))?;
        if second.is_some() && !mirror.is_in_sync() {
            lock(&mirror.made_on_both).insert(path.to_owned());
        }
        Ok(mirror.pair(path, first, second))
    }

    fn open_read(&self, path: &Path) -> io::Result<Box<dyn SegmentFile>> {
        let mirror = &self.0;
        match mirror.first.open_read(path) {
            Ok(first) => {
                let (mirror, path) = (Arc::clone(mirror), path.to_owned());
                Ok(Box::new(ReadFile { mirror, path, first, second: OnceLock::new() }))
            }
            Err(error) if mirror.is_in_sync() => mirror.second.open_read(&mirror.twin_path(path)).map_err(|_| error),
            Err(error) => Err(error),
        }
    }

    fn open_uncached(&self, path: &Path) -> io::Result<Box<dyn SegmentFile>> {
        self.0.first.open_uncached(path)
    }

    fn open_write(&self, path: &Path) -> io::Result<Box<dyn SegmentFile>> {
        let mirror = &self.0;
        let _names = lock(&mirror.names);
        let first = mirror.first.open_write(path)?;
        // While a mirror is brought up to date, a file that was there before is joined by that.
        let open = || mirror.second.open_write(&mirror.twin_path(path));
        let second = mirror.second_of(mirror.is_in_sync(), path, open)?;
        Ok(mirror.pair(path, first, second))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let _names = lock(&self.0.names);
        self.0.first.remove(path)?;
        if self.0.is_attached() {
            match self.0.second.remove(&self.0.twin_path(path)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    self.0.lose(&format!("{}: {error}", self.0.twin_path(path).display()))?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let _names = lock(&self.0.names);
        self.0.first.rename(from, to)?;
        let (twin_from, twin_to) = (self.0.twin_path(from), self.0.twin_path(to));
        if self.0.is_attached()
            && let Err(error) = self.0.second.rename(&twin_from, &twin_to)
        {
            self.0.lose(&format!("{}: {error}", twin_from.display()))?;
        }
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.0.name_change(dir, |filesystem, dir| filesystem.sync_dir(dir))
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        self.0.first.free_bytes(dir)
    }

    fn total_bytes(&self, dir: &Path) -> io::Result<u64> {
        self.0.first.total_bytes(dir)
    }

    fn new_identity(&self) -> [u8; 16] {
        self.0.first.new_identity()
    }

    fn now_ns(&self) -> i64 {
        self.0.first.now_ns()
    }

    fn mirror(&self) -> Option<&Arc<Mirror>> {
        Some(&self.0)
    }
}
