//! From measures to a forecast: what a machine will hold of a load, and what stops it.
//!
//! Pure arithmetic. A load is a mix of streams; a second of it needs, at its own rate,
//!
//! ```text
//!  time of the whole daemon   sum of bytes / speed of the daemon at that tile size      (senders on this machine)
//!  time of the disk           sum of bytes / speed of the disk at that tile size
//!  time of the processors     sum of bytes x (server's cost at that size [+ sender's] + checksums) / cores
//! ```
//!
//! and the longest of them says how many times the load fits into a second.

use super::{DiskSpeed, Measures, Pipeline};

/// Of the capacity, what may be planned with: beyond it, waiting times grow without bound.
pub const HEADROOM: f64 = 0.8;

/// Tiles of one kind.
#[derive(Clone, Copy, Debug)]
pub struct Stream {
    /// Bytes of a tile.
    pub tile_bytes: f64,
    /// Tiles a second.
    pub tiles_per_s: f64,
    /// The senders give MD5, a second pass over the bytes.
    pub md5: bool,
}

/// What a microscope sends.
#[derive(Clone, Debug)]
pub struct Load {
    /// Its name.
    pub name: String,
    /// All its tiles.
    pub streams: Vec<Stream>,
    /// The senders run on this machine, too.
    pub senders_here: bool,
}

/// What a machine has least of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bottleneck {
    /// Writing and syncing.
    Disk,
    /// Processors.
    Processors,
    /// A server elsewhere, or the way to it: no more can be seen from here.
    Server,
}

/// Will it hold?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// With [`HEADROOM`].
    Holds,
    /// It fits, without headroom: acks will be late now and then.
    Tight,
    /// More than the machine can take: only bursts that fit into memory.
    No,
}

/// A forecast.
#[derive(Clone, Debug)]
pub struct Forecast {
    /// The load's name.
    pub name: String,
    /// What the load needs, MB/s.
    pub needed_mb_per_s: f64,
    /// What the machine takes of such a mix, MB/s.
    pub capacity_mb_per_s: f64,
    /// What stops it there.
    pub bottleneck: Bottleneck,
    /// Capacity / need.
    pub margin: f64,
    /// The highest multiple of the load that holds with headroom.
    pub holds_up_to: f64,
    /// Will it hold?
    pub verdict: Verdict,
}

impl Load {
    /// Bytes a second.
    #[must_use]
    pub fn bytes_per_s(&self) -> f64 {
        self.streams.iter().map(|stream| stream.tile_bytes * stream.tiles_per_s).sum()
    }
}

/// What the machine will do with the load.
#[must_use]
pub fn forecast(measures: &Measures, load: &Load) -> Forecast {
    let needed = load.bytes_per_s();
    let share = |of: &dyn Fn(&Stream) -> f64| -> f64 { load.streams.iter().map(of).sum() };
    let megabytes = |stream: &Stream| stream.tile_bytes * stream.tiles_per_s / 1e6;
    // Seconds that a second of load takes.
    let daemon = share(&|stream| megabytes(stream) / daemon_speed(measures, stream.tile_bytes));
    // What the daemon has synced, the disk can do, whatever it did when it was asked alone.
    let disk = share(&|stream| match disk_speed(measures, stream.tile_bytes) {
        Some(speed) => megabytes(stream) / speed.max(daemon_speed(measures, stream.tile_bytes)),
        None => 0.0,
    });
    let cpu_seconds = share(&|stream| megabytes(stream) / 1e3 * cpu_cost(measures, stream, load.senders_here));
    let processors = cpu_seconds / measures.cores as f64;
    // Where the daemon is elsewhere, or shares the machine with the senders, its own speed is the better measure: disk and
    // processors get in each other's way.
    let whole = if load.senders_here || measures.disk.is_empty() { daemon } else { 0.0 };
    let bottleneck = match (measures.disk.is_empty(), disk >= processors) {
        (true, _) => Bottleneck::Server,
        (false, true) => Bottleneck::Disk,
        (false, false) => Bottleneck::Processors,
    };
    let slowest = whole.max(disk).max(processors);
    let margin = if slowest > 0.0 { 1.0 / slowest } else { f64::INFINITY };
    Forecast {
        name: load.name.clone(),
        needed_mb_per_s: needed / 1e6,
        capacity_mb_per_s: needed / 1e6 * margin,
        bottleneck,
        margin,
        holds_up_to: margin * HEADROOM,
        verdict: verdict(margin),
    }
}

fn verdict(margin: f64) -> Verdict {
    if margin * HEADROOM >= 1.0 {
        Verdict::Holds
    } else if margin >= 1.0 {
        Verdict::Tight
    } else {
        Verdict::No
    }
}

fn daemon_speed(measures: &Measures, tile_bytes: f64) -> f64 {
    let points = measures.pipeline.iter().map(|point: &Pipeline| (point.tile_bytes as f64, point.mb_per_s));
    interpolate(points, tile_bytes).unwrap_or(f64::INFINITY)
}

fn disk_speed(measures: &Measures, tile_bytes: f64) -> Option<f64> {
    interpolate(measures.disk.iter().map(|point: &DiskSpeed| (point.tile_bytes as f64, point.mb_per_s)), tile_bytes)
}

/// Processor seconds that a GB of the stream costs on this machine.
fn cpu_cost(measures: &Measures, stream: &Stream, senders_here: bool) -> f64 {
    let server =
        measures.pipeline.iter().filter_map(|point| Some((point.tile_bytes as f64, point.server_cpu_s_per_gb?)));
    let sender = measures.pipeline.iter().map(|point| (point.tile_bytes as f64, point.client_cpu_s_per_gb));
    let cost = |points: Option<f64>| points.unwrap_or(0.0);
    let mut sum = cost(interpolate(server, stream.tile_bytes));
    if senders_here {
        sum += cost(interpolate(sender, stream.tile_bytes));
    }
    if stream.md5 {
        sum += 1e3 / measures.compute.md5_mb_per_s;
    }
    sum
}

/// Between measured points along the logarithm of the tile size; beyond them the nearest. `None`: there are none.
fn interpolate(points: impl Iterator<Item = (f64, f64)>, at: f64) -> Option<f64> {
    let mut below: Option<(f64, f64)> = None;
    for (size, value) in points {
        if size >= at {
            let Some((lower, before)) = below else { return Some(value) };
            let part = (at.ln() - lower.ln()) / (size.ln() - lower.ln());
            return Some(before + (value - before) * part);
        }
        below = Some((size, value));
    }
    below.map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::super::{Compute, Loopback};
    use super::*;

    /// A daemon of 2000 MB/s at any size, a disk of 2500, 0.4 + 0.2 CPU-s/GB on two cores.
    fn measures() -> Measures {
        let pipeline = |tile_bytes, mb_per_s| Pipeline {
            tile_bytes,
            mb_per_s,
            ack_p50_ms: 1.0,
            ack_p99_ms: 2.0,
            client_cpu_s_per_gb: 0.2,
            server_cpu_s_per_gb: Some(0.4),
        };
        let disk = |tile_bytes| DiskSpeed {
            tile_bytes,
            mb_per_s: 2500.0,
            group_p50_ms: 1.0,
            group_p99_ms: 2.0,
            cpu_s_per_gb: 0.1,
        };
        Measures {
            cores: 2,
            memory_bytes: None,
            free_bytes: 0,
            compute: Compute { crc32_mb_per_s: 60_000.0, md5_mb_per_s: 500.0, copy_mb_per_s: 10_000.0 },
            loopback: Loopback { mb_per_s: 3000.0, send_cpu_s_per_gb: 0.2, receive_cpu_s_per_gb: 0.2 },
            disk: vec![disk(100_000), disk(10_000_000)],
            pipeline: vec![pipeline(100_000, 1000.0), pipeline(10_000_000, 2000.0)],
        }
    }

    fn load(tile_bytes: f64, mb_per_s: f64) -> Load {
        let stream = Stream { tile_bytes, tiles_per_s: mb_per_s * 1e6 / tile_bytes, md5: false };
        Load { name: "test".to_owned(), streams: vec![stream], senders_here: true }
    }

    fn close(a: f64, b: f64) -> bool {
        (a - b).abs() < 1e-6 * b.abs()
    }

    #[test]
    fn the_slowest_part_gives_the_capacity_and_its_name() {
        let here = forecast(&measures(), &load(20e6, 500.0));
        assert_eq!((here.bottleneck, here.verdict), (Bottleneck::Disk, Verdict::Holds));
        assert!(close(here.capacity_mb_per_s, 2000.0) && close(here.margin, 4.0) && close(here.holds_up_to, 3.2));
        let elsewhere = forecast(&measures(), &Load { senders_here: false, ..load(20e6, 500.0) });
        assert_eq!(elsewhere.bottleneck, Bottleneck::Disk);
        assert!(close(elsewhere.capacity_mb_per_s, 2500.0));
    }

    #[test]
    fn of_a_server_elsewhere_only_its_speed_is_known() {
        let mut measures = measures();
        measures.disk.clear();
        measures.pipeline.iter_mut().for_each(|point| point.server_cpu_s_per_gb = None);
        let far = forecast(&measures, &Load { senders_here: false, ..load(20e6, 500.0) });
        assert_eq!(far.bottleneck, Bottleneck::Server);
        assert!(close(far.capacity_mb_per_s, 2000.0));
    }

    #[test]
    fn md5_makes_the_processors_the_bottleneck() {
        let mut load = load(20e6, 500.0);
        load.streams[0].md5 = true;
        // 0.4 + 0.2 + 2 s/GB on two cores.
        let slow = forecast(&measures(), &load);
        assert_eq!(slow.bottleneck, Bottleneck::Processors);
        assert!(close(slow.capacity_mb_per_s, 2000.0 / 2.6), "{slow:?}");
    }

    #[test]
    fn sizes_between_the_measured_ones_are_interpolated_and_mixes_add_up() {
        // Half-way between 100 kB and 10 MB on the logarithm.
        assert!(close(forecast(&measures(), &load(1e6, 100.0)).capacity_mb_per_s, 1500.0));
        assert!(close(forecast(&measures(), &load(1e3, 100.0)).capacity_mb_per_s, 1000.0));
        let mut mix = load(1e5, 500.0);
        mix.streams.extend(load(1e7, 500.0).streams);
        // 0.5 s + 0.25 s for 1000 MB.
        assert!(close(forecast(&measures(), &mix).capacity_mb_per_s, 1000.0 / 0.75));
    }

    #[test]
    fn verdicts_leave_headroom() {
        let verdict = |mb_per_s| forecast(&measures(), &load(20e6, mb_per_s)).verdict;
        assert_eq!(
            [1600.0, 1601.0, 2000.0, 2001.0].map(verdict),
            [Verdict::Holds, Verdict::Tight, Verdict::Tight, Verdict::No]
        );
    }
}
