//! Tilecatcher beside servers that people use to take in data: NATS JetStream, Redis, PostgreSQL, nginx.
//!
//!     bench/peers/run.sh                               installs what is missing, then all of it: about 25 minutes
//!     cargo bench --bench peers                        with what is installed
//!     cargo bench --bench peers -- --peer redis --size 5.3MB --seconds 3 --runs 1
//!     cargo bench --bench peers -- --list
//!
//! Every server gets the same images from 9 connections with 2 tiles in flight on each, in a closed loop; each is
//! started anew for each run, in an empty directory, and ended by its id. What is compared has the same durability:
//! servers that sync before they answer with tilecatcher at `durable`, the others with tilecatcher at `written`.
//! Linux: figures come from /proc.
//!
//! Exit codes: 0 all measured, 1 a server failed while it was measured, 2 usage, 3 could not run.

#![allow(missing_docs, clippy::print_stdout)] // A program, not a library.

mod contender;
#[allow(dead_code)] // Shared with other benchmarks, which use more of it.
#[path = "../harness.rs"]
mod harness;
mod load;
mod memory;
mod nats;
mod nginx;
mod plot;
mod postgres;
mod redis;
mod report;
mod server;
mod tilecatcher_server;
mod usage;
mod wire;

use anyhow::{Context, bail};
use clap::Parser;
use clap::builder::PossibleValuesParser;
use contender::{Contender, Place};
use load::Load;
use memory::Reserve;
use report::{Machine, Report, Run};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};
use usage::Usage;

const CONNECTIONS: u32 = 9;
const WINDOW: usize = 2;
const WARM_UP: Duration = Duration::from_millis(800);
const SETTLE: Duration = Duration::from_millis(500);

/// Tile sizes by name.
const SIZES: [(&str, usize); 3] = [("256kB", 256_000), ("5.3MB", 5_300_000), ("20MB", 20_000_000)];

/// Free disk space without which no run is begun.
const FREE_BYTES_MIN: u64 = 8_000_000_000;

#[derive(Parser)]
struct Args {
    /// Only this server, beside tilecatcher; may be repeated
    #[arg(long, value_name = "NAME", value_parser = PossibleValuesParser::new(contender::NAMES))]
    peer: Vec<String>,
    /// Only tiles of this size; may be repeated
    #[arg(long, value_parser = PossibleValuesParser::new(SIZES.map(|(name, _)| name)))]
    size: Vec<String>,
    /// Seconds of each run
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Runs of each server, in alternating order; the medians are reported
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    runs: u32,
    /// A run ends early when it has sent so much
    #[arg(long, value_name = "GB", default_value_t = 16, value_parser = clap::value_parser!(u64).range(1..))]
    max_gb: u64,
    /// On the disk that is to be measured; what is written there is removed
    #[arg(long, default_value = "/var/tmp")]
    dir: PathBuf,
    /// The NATS server to run, if not the one on PATH
    #[arg(long, value_name = "FILE", default_value = "nats-server")]
    nats_server: PathBuf,
    /// Write every run as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write a plot (SVG)
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
    /// Print the servers with version, durability and settings, measure nothing
    #[arg(long)]
    list: bool,
    /// Passed by `cargo bench`
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let _ = args.bench;
    let contenders = contender::all(&args.nats_server);
    if args.list {
        list(&contenders);
        return ExitCode::SUCCESS;
    }
    let place = match prepare(&args) {
        Ok(place) => place,
        Err(error) => return stop(2, &error),
    };
    match measure(&args, &place, &contenders) {
        Ok(report) if report.failures.is_empty() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::from(1),
        Err(error) => stop(3, &error),
    }
}

fn stop(code: u8, error: &anyhow::Error) -> ExitCode {
    eprintln!("peers: {error:#}");
    ExitCode::from(code)
}

fn list(contenders: &[Box<dyn Contender>]) {
    for contender in contenders {
        let version = contender.version().unwrap_or_else(|error| format!("skipped: {error:#}"));
        println!("{} ({version}), {}: {}", contender.name(), contender.level().name(), contender.durability());
        contender.settings().lines().for_each(|line| println!("    {line}"));
    }
}

/// Everything that can be wrong with the arguments is found before the first run.
fn prepare(args: &Args) -> anyhow::Result<Place> {
    for file in [&args.json, &args.plot].into_iter().flatten() {
        std::fs::write(file, "").with_context(|| format!("{}: can not be written", file.display()))?;
    }
    Place::new(&args.dir)
}

fn measure(args: &Args, place: &Place, contenders: &[Box<dyn Contender>]) -> anyhow::Result<Report> {
    let wanted =
        |name: &str| name == "tilecatcher" || args.peer.is_empty() || args.peer.iter().any(|peer| peer == name);
    let mut report = Report::new(Machine::look(), args.seconds, args.runs);
    let mut present = Vec::new();
    for contender in contenders.iter().filter(|contender| wanted(contender.name())) {
        match contender.version() {
            Ok(version) => present.push((contender.as_ref(), version)),
            Err(error) if contender.name() == "tilecatcher" => return Err(error),
            Err(error) => report.skip(contender.as_ref(), &error),
        }
    }
    for (size, bytes) in SIZES {
        if args.size.is_empty() || args.size.iter().any(|wanted| wanted == size) {
            measure_size(args, place, &present, size, &image(bytes), &mut report)?;
        }
    }
    report.print();
    if let Some(file) = &args.json {
        std::fs::write(file, report.json()?).with_context(|| file.display().to_string())?;
    }
    if let Some(file) = &args.plot {
        std::fs::write(file, plot::svg(&report)).with_context(|| file.display().to_string())?;
    }
    Ok(report)
}

/// All runs of one size; every other round goes through the servers backwards.
fn measure_size(
    args: &Args,
    place: &Place,
    present: &[(&dyn Contender, String)],
    size: &'static str,
    image: &[u8],
    report: &mut Report,
) -> anyhow::Result<()> {
    for round in 0..args.runs {
        let mut order: Vec<_> = present.iter().collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for (contender, version) in order {
            if report.has_failed(*contender) {
                continue;
            }
            let bytes_max = bytes_max(args, place)?;
            let load = Load { image, window: WINDOW, bytes_max };
            match run_once(*contender, place, &load, Duration::from_secs(args.seconds)) {
                Ok(run) => report.add(*contender, version, size, run),
                Err(error) if contender.name() == "tilecatcher" => return Err(error),
                Err(error) => report.fail(*contender, size, &error),
            }
        }
    }
    Ok(())
}

/// What a run may send: servers write it once or twice.
fn bytes_max(args: &Args, place: &Place) -> anyhow::Result<u64> {
    let free = place.free_bytes()?;
    if free < FREE_BYTES_MIN {
        bail!(
            "{}: {} GB are free, {} are needed",
            args.dir.display(),
            free / 1_000_000_000,
            FREE_BYTES_MIN / 1_000_000_000
        );
    }
    Ok((args.max_gb * 1_000_000_000).min(free / 4))
}

fn run_once(contender: &dyn Contender, place: &Place, load: &Load<'_>, time: Duration) -> anyhow::Result<Run> {
    let dir = place.fresh()?;
    // Right behind the end of the last run, whose memory is still there.
    let reserve = Reserve::take();
    rustix::fs::sync();
    std::thread::sleep(SETTLE);
    let run = run_in(contender, dir.path(), load, time, reserve);
    dir.close().context("data of the last run can not be removed")?;
    run
}

fn run_in(
    contender: &dyn Contender,
    dir: &Path,
    load: &Load<'_>,
    time: Duration,
    reserve: Reserve,
) -> anyhow::Result<Run> {
    let running = contender.start(dir)?;
    let mut clients = Vec::new();
    for connection in 0..CONNECTIONS {
        clients.push(contender.connect(&running, connection)?);
    }
    drop(reserve);
    load.drive(&mut clients, WARM_UP)?;
    // What the warm-up left in caches is written before the run, or it would be counted as the run's.
    contender.flush(&running)?;
    rustix::fs::sync();
    let before = Usage::of(running.server.id(), dir);
    let driven = load.drive(&mut clients, time)?;
    let acknowledged = Usage::of(running.server.id(), dir);
    let began = Instant::now();
    contender.flush(&running)?;
    rustix::fs::sync();
    let flush = began.elapsed();
    let flushed = Usage::of(running.server.id(), dir);
    drop(clients);
    running.server.end()?;
    Ok(Run::new(&driven, load.image.len(), &before, &acknowledged, &flushed, flush))
}

/// Bytes that nothing can compress, the same in every run.
fn image(bytes: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let words = std::iter::repeat_with(move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.flatten().take(bytes).collect()
}
