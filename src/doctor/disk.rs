//! The disk as the journal uses it: newly allocated files, direct writes of a group of tiles, one sync for the group.

use super::{DoctorError, cpu_per_gb, mb_per_s, noise, thread_cpu};
use crate::base::limits::round_up_to_block;
use crate::base::pool::{Pool, TileBuffer};
use crate::journal::{Filesystem, RealFilesystem, SegmentFile};
use std::io::{self, IoSlice};
use std::path::Path;
use std::time::{Duration, Instant};

/// A file as long as a segment's default.
const FILE_BYTES: u64 = 1 << 30;
/// A group commit under load: so many bytes, or so many tiles.
const GROUP_BYTES: usize = 32 << 20;
const GROUP_TILES: usize = 64;
/// Files that one measurement may fill.
const FILES_MAX: u64 = 8;

/// Writing with sync, for one tile size.
#[derive(Clone, Copy, Debug)]
pub struct DiskSpeed {
    /// Bytes of a tile.
    pub tile_bytes: usize,
    /// What is synced, MB/s.
    pub mb_per_s: f64,
    /// Write and sync of one group, median, ms.
    pub group_p50_ms: f64,
    /// The slowest of a hundred, ms.
    pub group_p99_ms: f64,
    /// Processor time of the writing thread, s/GB.
    pub cpu_s_per_gb: f64,
}

pub(super) fn free_bytes(dir: &Path) -> io::Result<u64> {
    RealFilesystem.free_bytes(dir)
}

impl DiskSpeed {
    /// Writes groups of tiles until the time is over. The file is made before, as the daemon does ahead of its use.
    pub(super) fn measure(dir: &Path, tile_bytes: usize, time: Duration) -> Result<Self, DoctorError> {
        let failed = |source| DoctorError::Directory { path: dir.to_owned(), source };
        let free_bytes = free_bytes(dir).map_err(failed)?;
        if free_bytes < 2 * FILE_BYTES {
            let needed_bytes = 2 * FILE_BYTES;
            return Err(DoctorError::NoSpace { path: dir.to_owned(), free_bytes, needed_bytes });
        }
        let files = FILES_MAX.min(free_bytes / FILE_BYTES - 1);
        Run::new(dir, tile_bytes).and_then(|run| run.write(files, time)).map_err(failed)
    }
}

struct Run<'a> {
    dir: &'a Path,
    /// The tiles of a group, in the memory that the daemon would have them in.
    tiles: Vec<TileBuffer>,
    tile_bytes: usize,
    groups: Vec<Duration>,
    cpu: Duration,
    took: Duration,
    written: u64,
}

impl<'a> Run<'a> {
    fn new(dir: &'a Path, tile_bytes: usize) -> io::Result<Self> {
        let group = (GROUP_BYTES / tile_bytes).clamp(1, GROUP_TILES);
        let whole = round_up_to_block(tile_bytes);
        let pool = Pool::new(group * whole)?;
        let noise = noise(tile_bytes);
        let mut tiles = Vec::with_capacity(group);
        for _ in 0..group {
            let mut tile = pool.try_reserve(whole).expect("the pool was made for so many");
            tile[..tile_bytes].copy_from_slice(&noise);
            tiles.push(tile);
        }
        let zero = Duration::ZERO;
        Ok(Self { dir, tiles, tile_bytes, groups: Vec::new(), cpu: zero, took: zero, written: 0 })
    }

    fn write(mut self, files: u64, time: Duration) -> io::Result<DiskSpeed> {
        for n in 0..files {
            let path = self.dir.join(format!("{n}.probe"));
            let file = RealFilesystem.create(&path, FILE_BYTES)?;
            RealFilesystem.sync_dir(self.dir)?;
            let filled = self.fill(&*file, time);
            RealFilesystem.remove(&path)?;
            filled?;
            if self.took >= time {
                break;
            }
        }
        Ok(self.speed())
    }

    fn fill(&mut self, file: &dyn SegmentFile, time: Duration) -> io::Result<()> {
        let group_bytes = self.tiles.iter().map(|tile| tile.len() as u64).sum::<u64>();
        let mut offset = 0;
        while self.took < time && offset + group_bytes <= FILE_BYTES {
            let (began, cpu) = (Instant::now(), thread_cpu());
            let mut slices: Vec<IoSlice<'_>> = self.tiles.iter().map(|tile| IoSlice::new(tile)).collect();
            file.write_all_at(&mut slices, offset)?;
            file.sync()?;
            self.groups.push(began.elapsed());
            self.took += began.elapsed();
            self.cpu += thread_cpu().saturating_sub(cpu);
            offset += group_bytes;
            self.written += (self.tiles.len() * self.tile_bytes) as u64;
        }
        Ok(())
    }

    fn speed(mut self) -> DiskSpeed {
        self.groups.sort();
        let at = |part: usize| self.groups.get(self.groups.len() * part / 100).copied().unwrap_or_default();
        DiskSpeed {
            tile_bytes: self.tile_bytes,
            mb_per_s: mb_per_s(self.written, self.took),
            group_p50_ms: at(50).as_secs_f64() * 1e3,
            group_p99_ms: at(99).as_secs_f64() * 1e3,
            cpu_s_per_gb: cpu_per_gb(self.cpu, self.written),
        }
    }
}
