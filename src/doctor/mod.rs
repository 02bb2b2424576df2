//! Measures a machine and says what load it will hold.
//!
//! ```text
//!  measure: checksums, memory, loopback, disk with sync (by tile size), a whole daemon (by tile size)
//!  forecast: measures x load -> capacity, bottleneck, margin
//! ```
//!
//! Each measurement takes a second or two and writes into a directory of its own, which is removed. Must never touch a data
//! directory, nor give a figure that was not measured or derived from measured ones by [`forecast`]'s arithmetic.

mod compute;
mod disk;
mod forecast;
mod loopback;
mod pipeline;

pub use compute::Compute;
pub use disk::DiskSpeed;
pub use forecast::{Bottleneck, Forecast, HEADROOM, Load, Stream, Verdict, forecast};
pub use loopback::Loopback;
pub use pipeline::{Pipeline, ServerUnderTest};

use crate::base::clock;
use crate::server::ServerError;
use pipeline::DaemonHere;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Tile sizes that are measured; what lies between is interpolated. Bytes.
pub const TILE_SIZES: [usize; 4] = [256_000, 1_500_000, 5_300_000, 20_000_000];

/// A new daemon warms up for so many times the time of a measurement.
const WARM_UP_TIMES: u32 = 2;

/// Where and how long to measure.
#[derive(Clone, Debug)]
pub struct DoctorOptions {
    /// On the file system that is to hold the data; a directory is made in it and removed.
    pub dir: PathBuf,
    /// Time for each of the about ten measurements.
    pub time: Duration,
    /// A daemon somewhere else, instead of one that is started here.
    pub server: Option<ServerUnderTest>,
}

/// Why a measurement could not be made.
#[derive(Debug, thiserror::Error)]
pub enum DoctorError {
    /// The directory can not be used.
    #[error("{path}: {source}; --dir names a directory on the disk to measure")]
    Directory {
        /// Which.
        path: PathBuf,
        /// The operating system's answer.
        source: std::io::Error,
    },
    /// Not enough space for a measurement.
    #[error("{path}: {free_bytes} bytes free, {needed_bytes} needed for a measurement")]
    NoSpace {
        /// The directory.
        path: PathBuf,
        /// Free bytes.
        free_bytes: u64,
        /// What a measurement may write.
        needed_bytes: u64,
    },
    /// Sockets.
    #[error("loopback: {0}")]
    Loopback(std::io::Error),
    /// The daemon to measure does not start.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// The daemon to measure does not answer as it should.
    #[error("{0}")]
    Sending(String),
}

/// What was measured.
#[derive(Clone, Debug)]
pub struct Measures {
    /// Processors that this process may use.
    pub cores: usize,
    /// Memory of the machine, bytes, where it can be known.
    pub memory_bytes: Option<u64>,
    /// Free bytes of the file system.
    pub free_bytes: u64,
    /// Checksums and memory.
    pub compute: Compute,
    /// TCP on this machine.
    pub loopback: Loopback,
    /// The disk, by tile size. Empty when the server is elsewhere.
    pub disk: Vec<DiskSpeed>,
    /// A whole daemon, by tile size.
    pub pipeline: Vec<Pipeline>,
}

/// Measures; `note` is told what is being measured.
///
/// # Errors
/// The directory, the sockets or the daemon can not be used.
pub fn measure(options: &DoctorOptions, mut note: impl FnMut(&str)) -> Result<Measures, DoctorError> {
    let directory = |source| DoctorError::Directory { path: options.dir.clone(), source };
    let scratch = tempfile::Builder::new().prefix("tilecatcher-doctor-").tempdir_in(&options.dir).map_err(directory)?;
    let free_bytes = disk::free_bytes(scratch.path()).map_err(directory)?;
    note("checksums and memory");
    let compute = Compute::measure(options.time);
    note("loopback");
    let loopback = Loopback::measure(options.time).map_err(DoctorError::Loopback)?;
    let (disk, pipeline) = match &options.server {
        Some(server) => (Vec::new(), measure_elsewhere(server, options.time, note)?),
        None => {
            (measure_disk(scratch.path(), options.time, &mut note)?, measure_here(scratch.path(), options.time, note)?)
        }
    };
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    Ok(Measures { cores, memory_bytes: memory_bytes(), free_bytes, compute, loopback, disk, pipeline })
}

fn measure_disk(dir: &Path, time: Duration, note: &mut impl FnMut(&str)) -> Result<Vec<DiskSpeed>, DoctorError> {
    let one = |tile_bytes| {
        note(&format!("disk with sync, tiles of {:.2} MB", tile_bytes as f64 / 1e6));
        DiskSpeed::measure(dir, tile_bytes, time)
    };
    TILE_SIZES.into_iter().map(one).collect()
}

fn measure_here(dir: &Path, time: Duration, mut note: impl FnMut(&str)) -> Result<Vec<Pipeline>, DoctorError> {
    let daemon = DaemonHere::start(dir)?;
    note("nothing yet: a daemon warms up");
    let one = |tile_bytes| {
        note(&format!("a whole daemon, tiles of {:.2} MB", tile_bytes as f64 / 1e6));
        daemon.measure(tile_bytes, time)
    };
    let measured = daemon.warm_up(WARM_UP_TIMES * time).and_then(|()| TILE_SIZES.into_iter().map(one).collect());
    daemon.remove()?;
    measured
}

fn measure_elsewhere(
    server: &ServerUnderTest,
    time: Duration,
    mut note: impl FnMut(&str),
) -> Result<Vec<Pipeline>, DoctorError> {
    let one = |tile_bytes| {
        note(&format!("the daemon at {}, tiles of {:.2} MB", server.capture, tile_bytes as f64 / 1e6));
        pipeline::measure_server(server, tile_bytes, time)
    };
    TILE_SIZES.into_iter().map(one).collect()
}

/// Linux says it in a file.
fn memory_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib * 1024)
}

/// Processor time that this thread has used.
fn thread_cpu() -> Duration {
    clock::thread_cpu().unwrap_or_default()
}

/// Processor time that this process has used.
fn process_cpu() -> Duration {
    clock::process_cpu().unwrap_or_default()
}

/// Bytes that no file system or disk can make smaller.
fn noise(bytes: usize) -> Vec<u8> {
    let mut noise = vec![0; bytes];
    fastrand::Rng::with_seed(1).fill(&mut noise);
    noise
}

/// MB (10^6 bytes) a second.
fn mb_per_s(bytes: u64, took: Duration) -> f64 {
    bytes as f64 / 1e6 / took.as_secs_f64().max(1e-9)
}

/// Processor seconds for each GB (10^9 bytes).
fn cpu_per_gb(cpu: Duration, bytes: u64) -> f64 {
    cpu.as_secs_f64() / (bytes as f64 / 1e9).max(1e-9)
}
