//! What a mirror costs: the same tiles acknowledged at `durable`, with one data directory, and at `replicated`, with two.
//!
//!     cargo bench --bench mirror                          all sizes, 5 alternating pairs of runs each
//!     cargo bench --bench mirror -- --mirror /disk2/bench the second directory on another disk
//!
//! Without `--mirror` both directories are on one disk, which then writes every byte twice: the worst that a mirror can cost.
//! Figures are medians, the ratio is replicated / durable of neighbouring runs.

#![allow(missing_docs, clippy::print_stdout)] // A program, not a library.

mod closed_loop;
mod harness;

use clap::Parser;
use closed_loop::{Figures, TIMEOUT, Way, drive};
use harness::{LOG, Process, field, image_of, median, metric};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tilecatcher::client::HttpClient;

const CASES: [(&str, usize); 2] = [("256kB", 256_000), ("5.3MB", 5_300_000)];

#[derive(Parser)]
struct Args {
    /// Only cases whose name contains this
    #[arg(long, default_value = "")]
    case: String,
    /// Pairs of runs
    #[arg(long, default_value_t = 5)]
    runs: u32,
    /// Seconds of each run
    #[arg(long, default_value_t = 3)]
    seconds: u64,
    /// Directory for data; emptied after each run
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Directory for the second copies; emptied after each run. Default: beside the first
    #[arg(long)]
    mirror: Option<PathBuf>,
    /// Passed by `cargo bench`
    #[arg(long, hide = true)]
    bench: bool,
}

/// Where the two copies of one run go.
struct Places {
    data: PathBuf,
    mirror: PathBuf,
}

fn main() {
    let args = Args::parse();
    let _ = args.bench;
    let dir = args.dir.clone().unwrap_or_else(|| std::env::temp_dir().join("tilecatcher-bench-mirror"));
    let mirror = args.mirror.clone().unwrap_or_else(|| dir.clone()).join("mirror");
    let places = Places { data: dir.join("data"), mirror };
    println!("| tiles | acknowledged | MB/s | server CPU-s/GB |\n|---|---|---|---|");
    for (name, bytes) in CASES.iter().filter(|(name, _)| name.contains(&args.case)) {
        let image = image_of(*bytes);
        let pairs: Vec<_> = (0..args.runs).map(|pair| run_pair(&args, &places, &image, pair)).collect();
        print_case(name, &pairs);
    }
}

fn print_case(name: &str, pairs: &[[Figures; 2]]) {
    for (n, level) in ["durable", "replicated"].into_iter().enumerate() {
        let of = |figure: fn(&Figures) -> f64| median(pairs.iter().map(|pair| figure(&pair[n])).collect());
        println!("| {name} | {level} | {:.0} | {:.3} |", of(|run| run.mb_per_s), of(|run| run.cpu_s_per_gb));
    }
    let ratio = |figure: fn(&Figures) -> f64| {
        median(pairs.iter().map(|[durable, replicated]| figure(replicated) / figure(durable)).collect())
    };
    println!("| {name} | ratio | {:.2} | {:.2} |", ratio(|run| run.mb_per_s), ratio(|run| run.cpu_s_per_gb));
}

/// Durable and replicated, each first in every other pair.
fn run_pair(args: &Args, places: &Places, image: &[u8], pair: u32) -> [Figures; 2] {
    let time = Duration::from_secs(args.seconds);
    let run = |is_replicated| run(places, is_replicated, image, time);
    if pair.is_multiple_of(2) {
        [run(false), run(true)]
    } else {
        let replicated = run(true);
        [run(false), replicated]
    }
}

/// A daemon on empty directories, and all that nine connections can send it.
fn run(places: &Places, is_replicated: bool, image: &[u8], time: Duration) -> Figures {
    empty(places);
    std::fs::create_dir_all(&places.data).expect("a directory for the benchmark");
    let mirror = format!("mirror.data={}", places.mirror.display());
    let settings = if is_replicated { vec!["storage.ack=replicated".into(), mirror] } else { Vec::new() };
    let (process, ready) = Process::daemon(&places.data, &settings);
    let http = HttpClient::new(&format!("http://{}", field(&ready, "http")), TIMEOUT);
    http.start_acquisition("1_bench_logfile.ini", LOG.as_bytes()).expect("an acquisition");
    let way = Way::to(&ready, "capture");
    drive(&process, &way, image, Duration::from_millis(500), 0);
    let figures = drive(&process, &way, image, time, 1);
    // A run whose mirror was lost on its way would be no replicated one.
    let level = metric(&http, "tilecatcher_ack_level");
    assert_eq!(level, if is_replicated { 3.0 } else { 2.0 }, "the level in force behind the run");
    drop(process);
    empty(places);
    figures
}

fn empty(places: &Places) {
    let remove = |dir: &Path| drop(std::fs::remove_dir_all(dir));
    remove(&places.data);
    remove(&places.mirror);
}
