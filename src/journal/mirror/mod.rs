//! The mirror: a second directory, on another disk, that holds the same segment files under the same names.
//!
//! [`MirroredFilesystem`] stands where the journal expects a file system: writers, keeper, recovery and compaction know
//! nothing of it. Writes and syncs of the two sides run at once and return when both are done; reads come from the first
//! side. The first side is the data directory; when it fails, the daemon stops as without a mirror.
//!
//! The rule that all rests on: while both sides say `Paired` with one epoch, everything acknowledged is on both. The
//! second side failed: before the call that noticed it returns, the first side says durably that it goes on alone
//! ([`Mirror::lose`]); so a later start never takes the stale side for the truth. A side that is being filled says
//! `Stale` until it is whole. Invariant 9 holds for each side: a file of the second side whose sync failed is given up,
//! and written anew from the first one's.
//!
//! Locks, in this order: names of files, a file's two sides, the state.

mod copy;
mod files;
mod record;
mod resync;
mod start;

pub(super) use copy::{
    Pace, Side, Trouble, begin_copy, copy_beside, copy_range, finish_copy, free_name, is_removed, overlay_record,
};
pub use files::MirroredFilesystem;
pub(super) use resync::MirrorKeeper;
pub use start::mirror_problem;
pub(super) use start::{go_alone, is_incomplete};

use super::filesystem::{DirectoryLock, Filesystem, SegmentFile};
use super::format::parse_segment_file_name;
use super::removed::Removed;
use crate::base::stop::Stop;
use files::Pair;
use record::Record;
use std::collections::{HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

/// What happens to tiles while the mirror is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenLost {
    /// They are acknowledged with one copy; metrics, log and /readyz say so.
    GoOn,
    /// They are refused until there are two copies again.
    Refuse,
}

impl FromStr for WhenLost {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "go_on" => Ok(Self::GoOn),
            "refuse" => Ok(Self::Refuse),
            other => Err(format!("\"{other}\" is neither go_on nor refuse")),
        }
    }
}

/// How a journal is mirrored.
#[derive(Clone, Debug)]
pub struct MirrorOptions {
    /// The second directory.
    pub dir: PathBuf,
    /// What happens to tiles meanwhile.
    pub when_lost: WhenLost,
    /// Pause between two looks at the mirror: whether it is still there, whether it is back.
    pub retry: Duration,
    /// Bytes a second that bringing it up to date may read and write, 0 for no limit.
    pub rate_bytes: u64,
    /// Take the directory's lock, so that no other process uses it. Off for directories that are none.
    pub lock: bool,
}

/// How the mirror is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MirrorPhase {
    /// Both sides hold everything that was acknowledged.
    InSync,
    /// The mirror is being brought up to date; what is new goes to both sides.
    Resynchronising,
    /// Only the data directory is written.
    Lost,
}

/// Figures for metrics.
#[derive(Clone, Copy, Debug)]
pub struct MirrorStatus {
    /// How it is.
    pub phase: MirrorPhase,
    /// Bytes of segments that the mirror does not hold yet, as far as that is known.
    pub left_bytes: u64,
    /// How often the mirror was lost.
    pub losses: u64,
    /// Records that were damaged on one side and were rewritten from the other.
    pub repairs: u64,
}

/// Two directories that hold one journal.
pub struct Mirror {
    first: Arc<dyn Filesystem>,
    second: Arc<dyn Filesystem>,
    first_dir: PathBuf,
    options: MirrorOptions,
    /// What the first side says about itself.
    record: Mutex<Record>,
    /// A [`MirrorPhase`]: changed under the lock of `record`, read by anyone.
    phase: AtomicU8,
    /// Raised when the second side is lost: files of it that are open then are never touched again.
    generation: AtomicU64,
    names: Mutex<()>,
    /// Files that are open for writing, by their path on the first side.
    open: Mutex<HashMap<PathBuf, Weak<Pair>>>,
    /// Files that were made on both sides since the mirror was last attached.
    made_on_both: Mutex<HashSet<PathBuf>>,
    lock: Mutex<Option<DirectoryLock>>,
    repairing: Mutex<()>,
    /// Segments of the data directory that compactions took away: see [`Mirror::remove_extra`].
    removed: Mutex<Arc<Removed>>,
    stop: Stop,
    left_bytes: AtomicU64,
    losses: AtomicU64,
    repairs: AtomicU64,
}

const PHASES: [MirrorPhase; 3] = [MirrorPhase::Lost, MirrorPhase::Resynchronising, MirrorPhase::InSync];

impl MirrorPhase {
    /// As /readyz says it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::InSync => "in_sync",
            Self::Resynchronising => "resynchronising",
            Self::Lost => "lost",
        }
    }
}

impl Mirror {
    fn new(
        first: Arc<dyn Filesystem>,
        second: Arc<dyn Filesystem>,
        first_dir: &Path,
        options: MirrorOptions,
    ) -> Arc<Self> {
        Arc::new(Self {
            first,
            second,
            first_dir: first_dir.to_owned(),
            options,
            record: Mutex::new(Record::first(0, false)),
            phase: AtomicU8::new(0),
            generation: AtomicU64::new(0),
            names: Mutex::default(),
            open: Mutex::default(),
            made_on_both: Mutex::default(),
            lock: Mutex::default(),
            repairing: Mutex::default(),
            removed: Mutex::default(),
            stop: Stop::default(),
            left_bytes: AtomicU64::new(0),
            losses: AtomicU64::new(0),
            repairs: AtomicU64::new(0),
        })
    }

    /// How it is now.
    #[must_use]
    pub fn phase(&self) -> MirrorPhase {
        PHASES[usize::from(self.phase.load(Ordering::SeqCst)) % PHASES.len()]
    }

    /// True while what is synced is synced on both sides.
    #[must_use]
    pub fn is_in_sync(&self) -> bool {
        self.phase() == MirrorPhase::InSync
    }

    /// True while tiles must be refused, for there would be one copy only.
    #[must_use]
    pub fn refuses(&self) -> bool {
        self.options.when_lost == WhenLost::Refuse && !self.is_in_sync()
    }

    /// Figures for metrics.
    #[must_use]
    pub fn status(&self) -> MirrorStatus {
        MirrorStatus {
            phase: self.phase(),
            left_bytes: self.left_bytes.load(Ordering::Relaxed),
            losses: self.losses.load(Ordering::Relaxed),
            repairs: self.repairs.load(Ordering::Relaxed),
        }
    }

    /// Both sides of a segment, opened for reading, the data directory's first.
    pub(super) fn open_sides(&self, path: &Path) -> [io::Result<Box<dyn SegmentFile>>; 2] {
        [self.first.open_read(path), self.second.open_read(&self.twin_path(path))]
    }

    /// Writes a record of `from` over what `side` (0 or 1) holds at its place. The caller checks what comes of it.
    pub(super) fn rewrite(
        &self,
        side: usize,
        path: &Path,
        from: &dyn SegmentFile,
        record: &super::RecordHeader,
    ) -> io::Result<()> {
        let _one_at_a_time = lock(&self.repairing);
        let into = if side == 0 { self.first.open_write(path) } else { self.second.open_write(&self.twin_path(path)) };
        overlay_record(from, &*into?, record)
    }

    pub(super) fn count_repair(&self) {
        self.repairs.fetch_add(1, Ordering::Relaxed);
    }

    /// The second side's path of a file of the first one.
    fn twin_path(&self, path: &Path) -> PathBuf {
        path.strip_prefix(&self.first_dir).map_or_else(|_| path.to_owned(), |rest| self.options.dir.join(rest))
    }

    fn generation(&self) -> u64 {
        self.generation.load(Ordering::SeqCst)
    }

    /// True while new files are made on both sides.
    fn is_attached(&self) -> bool {
        self.phase() != MirrorPhase::Lost
    }

    fn set_phase(&self, phase: MirrorPhase) {
        let code = PHASES.iter().position(|known| *known == phase).unwrap_or(0);
        self.phase.store(u8::try_from(code).unwrap_or(0), Ordering::SeqCst);
    }

    /// The second side failed. When this returns, the first side says durably that it goes on alone; only then may
    /// anything be acknowledged that is not on both.
    ///
    /// # Errors
    /// The first side can not say so: nothing may be acknowledged.
    fn lose(&self, why: &str) -> io::Result<()> {
        let mut record = lock(&self.record);
        let phase = self.phase();
        if phase == MirrorPhase::Lost {
            return Ok(());
        }
        let trusted_below = record.trusted_below.min(self.lowest_open());
        let alone = Record { trusted_below, ..record.alone(record.epoch + 1) };
        alone.write(&*self.first, &self.first_dir)?;
        *record = alone;
        self.set_phase(MirrorPhase::Lost);
        self.generation.fetch_add(1, Ordering::SeqCst);
        if phase == MirrorPhase::Resynchronising {
            return Ok(());
        }
        self.losses.fetch_add(1, Ordering::Relaxed);
        let goes_on = match self.options.when_lost {
            WhenLost::GoOn => "tiles are acknowledged with one copy",
            WhenLost::Refuse => "tiles are refused",
        };
        let dir = self.options.dir.display();
        tracing::error!(mirror = %dir, why, "the mirror is lost: {goes_on} until it is back; check the disk, it is tried again by itself");
        Ok(())
    }

    /// The lowest number of a segment that is open for writing.
    fn lowest_open(&self) -> u64 {
        let open = lock(&self.open);
        let numbers = open.iter().filter(|(_, pair)| pair.strong_count() > 0).filter_map(|(path, _)| number_of(path));
        numbers.min().unwrap_or(u64::MAX)
    }
}

fn number_of(path: &Path) -> Option<u64> {
    parse_segment_file_name(&path.file_name()?.to_string_lossy()).map(|(number, _)| number)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
