//! The seam under the journal: the few calls on files and directories that durability rests on.
//!
//! [`RealFilesystem`] is the operating system's; tests put a model with volatile and durable images in its place.
//! Must never retry a sync (invariant 9) and never hide an error.

use super::mirror::Mirror;
use crate::base::clock;
use crate::base::limits::BLOCK;
use crate::base::planted::{Bug, planted};
use rustix::fs::{AtFlags, FallocateFlags, FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, IoSlice};
use std::num::NonZeroU64;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// An open file of the journal. Offsets and lengths in bytes.
pub trait SegmentFile: Send + Sync {
    /// Writes all slices back to back at `offset`. Offset, lengths and addresses are whole blocks.
    ///
    /// # Errors
    /// As the operating system says; how much was written is then unknown.
    fn write_all_at(&self, slices: &mut [IoSlice<'_>], offset: u64) -> io::Result<()>;

    /// Reads until `bytes` is full or the file ends; returns how much.
    ///
    /// # Errors
    /// As the operating system says.
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Makes everything written so far, and the length, survive a power cut.
    ///
    /// # Errors
    /// After an error the file's contents are unknown for ever; calling again proves nothing.
    fn sync(&self) -> io::Result<()>;

    /// After a sync: forgets what the operating system keeps of this file in memory, so that what is read next is
    /// what the disk has. An earlier process' failed sync may have left pages that look good and were never written.
    ///
    /// # Errors
    /// As the operating system says.
    fn drop_cache(&self) -> io::Result<()> {
        Ok(())
    }

    /// Cuts the file to `len`.
    ///
    /// # Errors
    /// As the operating system says.
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// The file's length.
    ///
    /// # Errors
    /// As the operating system says.
    fn length(&self) -> io::Result<u64>;

    /// The first offset at or behind `offset` that may hold something else than zeros. `None`: only zeros follow.
    ///
    /// # Errors
    /// As the operating system says.
    fn next_data(&self, offset: u64) -> io::Result<Option<u64>>;
}

/// A file system, as far as the journal needs one.
pub trait Filesystem: Send + Sync {
    /// Makes a directory and its parents, and syncs the parent of each that was made.
    ///
    /// # Errors
    /// As the operating system says.
    fn create_dir_all(&self, dir: &Path) -> io::Result<()>;

    /// Names of the files in a directory, in no order.
    ///
    /// # Errors
    /// As the operating system says.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;

    /// Makes a file that was not there, of `len` bytes of allocated space that reads as zeros.
    ///
    /// # Errors
    /// As the operating system says; `StorageFull` when there is no room.
    fn create(&self, path: &Path, len: u64) -> io::Result<Box<dyn SegmentFile>>;

    /// Opens a file for reading.
    ///
    /// # Errors
    /// As the operating system says.
    fn open_read(&self, path: &Path) -> io::Result<Box<dyn SegmentFile>>;

    /// Opens a file for reading everything in it once, leaving the page cache to others where the file system can do
    /// that. Offset, length and address of each read are whole blocks.
    ///
    /// # Errors
    /// As the operating system says.
    fn open_uncached(&self, path: &Path) -> io::Result<Box<dyn SegmentFile>> {
        self.open_read(path)
    }

    /// Opens a file for reading and writing.
    ///
    /// # Errors
    /// As the operating system says.
    fn open_write(&self, path: &Path) -> io::Result<Box<dyn SegmentFile>>;

    /// Removes a file.
    ///
    /// # Errors
    /// As the operating system says.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Gives a file another name in the same directory, in place of a file that had it. Both names change at once,
    /// and the change survives a power cut once the directory is synced.
    ///
    /// # Errors
    /// As the operating system says.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Makes the directory's entries survive a power cut.
    ///
    /// # Errors
    /// As for [`SegmentFile::sync`].
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// Bytes that a file in `dir` may still take.
    ///
    /// # Errors
    /// As the operating system says.
    fn free_bytes(&self, dir: &Path) -> io::Result<u64>;

    /// All bytes of the file system that holds `dir`, free or not.
    ///
    /// # Errors
    /// It does not say.
    fn total_bytes(&self, _dir: &Path) -> io::Result<u64> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// 16 bytes that nobody else has: the identity of a data directory or segment.
    fn new_identity(&self) -> [u8; 16] {
        *uuid::Uuid::new_v4().as_bytes()
    }

    /// When a segment is made, ns since 1970 UTC.
    fn now_ns(&self) -> i64 {
        clock::unix_ns()
    }

    /// The mirror, for a file system of two sides.
    fn mirror(&self) -> Option<&Arc<Mirror>> {
        None
    }
}

/// Writes all slices with as many calls of `write` as it takes; that says how many bytes it wrote.
///
/// # Errors
/// Those of `write`; one that writes nothing.
pub fn write_fully(
    mut slices: &mut [IoSlice<'_>],
    mut offset: u64,
    write: &mut dyn FnMut(&[IoSlice<'_>], u64) -> io::Result<usize>,
) -> io::Result<()> {
    IoSlice::advance_slices(&mut slices, 0);
    while !slices.is_empty() {
        match write(slices, offset) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(_) if planted(Bug::IgnoredShortWrite) => return Ok(()),
            Ok(written) => {
                offset += written as u64;
                IoSlice::advance_slices(&mut slices, written);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The operating system's file system. Writes with O_DIRECT where the file system takes it.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealFilesystem;

struct RealFile {
    /// O_DIRECT where possible: for writing and syncing.
    writing: File,
    /// Buffered, for reads of any alignment. The kernel keeps the two coherent.
    reading: File,
}

impl RealFilesystem {
    fn open(path: &Path, flags: OFlags) -> io::Result<File> {
        let mode = Mode::from_raw_mode(0o640);
        match rustix::fs::open(path, flags | OFlags::DIRECT | OFlags::CLOEXEC, mode) {
            Ok(file) => Ok(file.into()),
            Err(Errno::INVAL) => {
                warn_once_about_buffered_writes(path);
                Ok(rustix::fs::open(path, flags | OFlags::CLOEXEC, mode)?.into())
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// What readahead brings into the page cache counts as data for SEEK_DATA, and a scan would then read all of a
/// preallocated tail (measured: 5 s for 2 GiB instead of a few ms). Reads here are large or scattered anyway.
fn open_without_readahead(path: &Path) -> io::Result<File> {
    let file = File::open(path)?;
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::Random)?;
    Ok(file)
}

fn warn_once_about_buffered_writes(path: &Path) {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        tracing::warn!(path = %path.display(), "this file system refuses O_DIRECT: writing through the page cache, slower under load");
    });
}

impl Filesystem for RealFilesystem {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        let missing_of = |dir: &&Path| !dir.as_os_str().is_empty() && !dir.exists();
        let mut missing: Vec<&Path> = dir.ancestors().take_while(missing_of).collect();
        while let Some(dir) = missing.pop() {
            match std::fs::create_dir(dir) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                _ => {}
            }
            if let Some(parent) = dir.parent() {
                self.sync_dir(if parent.as_os_str().is_empty() { Path::new(".") } else { parent })?;
            }
        }
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        std::fs::read_dir(dir)?
            .map(|entry| entry.map(|entry| entry.file_name().to_string_lossy().into_owned()))
            .collect()
    }

    fn create(&self, path: &Path, len: u64) -> io::Result<Box<dyn SegmentFile>> {
        let writing = Self::open(path, OFlags::CREATE | OFlags::EXCL | OFlags::RDWR)?;
        let allocate = || rustix::fs::fallocate(&writing, FallocateFlags::empty(), 0, len);
        match rustix::io::retry_on_intr(allocate) {
            Ok(()) => {}
            // A file system without fallocate: a sparse file; running out of space then shows at a write.
            Err(Errno::OPNOTSUPP) => writing.set_len(len)?,
            Err(error) => {
                drop(writing);
                let _ = std::fs::remove_file(path);
                return Err(error.into());
            }
        }
        Ok(Box::new(RealFile { writing, reading: File::open(path)? }))
    }

    fn open_read(&self, path: &Path) -> io::Result<Box<dyn SegmentFile>> {
        let reading = open_without_readahead(path)?;
        Ok(Box::new(RealFile { writing: reading.try_clone()?, reading }))
    }

    fn open_uncached(&self, path: &Path) -> io::Result<Box<dyn SegmentFile>> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let (file, direct) = match rustix::fs::open(path, flags | OFlags::DIRECT, Mode::empty()) {
            Err(Errno::INVAL) => (rustix::fs::open(path, flags, Mode::empty())?, false),
            file => (file?, true),
        };
        Ok(Box::new(UncachedFile { file: file.into(), direct }))
    }

    fn open_write(&self, path: &Path) -> io::Result<Box<dyn SegmentFile>> {
        let writing = Self::open(path, OFlags::RDWR)?;
        Ok(Box::new(RealFile { writing, reading: open_without_readahead(path)? }))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        let stat = rustix::fs::statvfs(dir)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    fn total_bytes(&self, dir: &Path) -> io::Result<u64> {
        let stat = rustix::fs::statvfs(dir)?;
        Ok(stat.f_blocks.saturating_mul(stat.f_frsize))
    }
}

impl SegmentFile for RealFile {
    fn write_all_at(&self, slices: &mut [IoSlice<'_>], offset: u64) -> io::Result<()> {
        write_fully(slices, offset, &mut |slices, offset| Ok(rustix::io::pwritev(&self.writing, slices, offset)?))
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut filled = 0;
        while filled < bytes.len() {
            match self.reading.read_at(&mut bytes[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    fn sync(&self) -> io::Result<()> {
        self.writing.sync_data()?;
        // A file without a name is gone when the process ends: what is in it must not be called durable.
        if self.writing.metadata()?.nlink() == 0 {
            return Err(io::Error::new(io::ErrorKind::NotFound, "the file was removed while it was being written"));
        }
        Ok(())
    }

    fn drop_cache(&self) -> io::Result<()> {
        Ok(rustix::fs::fadvise(&self.reading, 0, None, rustix::fs::Advice::DontNeed)?)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.writing.set_len(len)
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.reading.metadata()?.len())
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<u64>> {
        next_data(&self.reading, offset)
    }
}

/// The methods of a [`SegmentFile`] that is for reading only.
macro_rules! refuse_writes {
    () => {
        fn write_all_at(&self, _: &mut [std::io::IoSlice<'_>], _: u64) -> std::io::Result<()> {
            Err(std::io::ErrorKind::Unsupported.into())
        }

        fn sync(&self) -> std::io::Result<()> {
            Err(std::io::ErrorKind::Unsupported.into())
        }

        fn set_len(&self, _: u64) -> std::io::Result<()> {
            Err(std::io::ErrorKind::Unsupported.into())
        }
    };
}
pub(super) use refuse_writes;

/// Open for one who reads everything once: past the page cache, or dropping from it what was read.
struct UncachedFile {
    file: File,
    direct: bool,
}

impl SegmentFile for UncachedFile {
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut filled = 0;
        // What ends inside a block is the file's end: O_DIRECT would refuse to read on from there.
        while filled < bytes.len() && filled.is_multiple_of(BLOCK) {
            match self.file.read_at(&mut bytes[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if let Some(len) = NonZeroU64::new(filled as u64).filter(|_| !self.direct) {
            let _ = rustix::fs::fadvise(&self.file, offset, Some(len), rustix::fs::Advice::DontNeed);
        }
        Ok(filled)
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<u64>> {
        next_data(&self.file, offset)
    }

    refuse_writes!();
}

fn next_data(file: &File, offset: u64) -> io::Result<Option<u64>> {
    match rustix::fs::seek(file, rustix::fs::SeekFrom::Data(offset)) {
        Ok(found) => Ok(Some(found)),
        Err(Errno::NXIO) => Ok(None),
        Err(Errno::INVAL) => Ok(Some(offset)),
        Err(error) => Err(error.into()),
    }
}

/// An exclusive lock on a data directory, held as long as the value lives; gone with the process that holds it.
pub struct DirectoryLock {
    _file: File,
}

impl DirectoryLock {
    /// Takes the lock; `Ok(None)` when somebody else holds it.
    ///
    /// # Errors
    /// The lock file can not be made or locked.
    pub fn take(path: &PathBuf) -> io::Result<Option<Self>> {
        let file = File::options().create(true).truncate(false).read(true).write(true).open(path)?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Self { _file: file })),
            Err(Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// True when the directory can be written by this process.
#[must_use]
pub fn is_writable(dir: &Path) -> bool {
    rustix::fs::accessat(rustix::fs::CWD, dir, rustix::fs::Access::WRITE_OK, AtFlags::empty()).is_ok()
}
