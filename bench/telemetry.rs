//! What counting, timing and logging cost: the daemon as it is, scraped each second, against one that was built without.
//!
//!     cargo build --release --features no-telemetry && cp target/release/tilecatcher target/release/tilecatcher-without
//!     cargo bench --bench telemetry -- --without target/release/tilecatcher-without
//!     cargo bench --bench telemetry -- --without FILE --case 16kB --runs 21
//!
//! Both take the same tiles, in turn, each in a directory of its own; the order changes with every run. Ratios are with /
//! without of the same pair; figures are medians. The last column says how far apart the middle half of the ratios lies.
//!
//! A machine with other things to do can not tell one percent from none that way. So the first line says what the library's
//! own counting and timing of one tile takes, in a loop, and the last of each case which part that is of the server's CPU
//! time for a tile.

#![allow(missing_docs, clippy::print_stdout)] // A program, not a library.

mod closed_loop;
mod harness;

use clap::Parser;
use closed_loop::{Figures, TIMEOUT, Way, drive};
use harness::{LOG, Process, field, image_of, median};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use tilecatcher::client::HttpClient;
use tilecatcher::model::AcqId;
use tilecatcher::telemetry::{LocalCounts, Metrics, Stamp, StoredAs};

const CAMERAS: u32 = 4;
/// Before anything is measured: segments are there, caches warm.
const WARM_UP: Duration = Duration::from_millis(500);
/// Name, bytes of a tile, tiles in flight on a connection.
const CASES: [(&str, usize, usize); 3] = [("16kB", 16_000, 32), ("256kB", 256_000, 2), ("5.3MB", 5_300_000, 2)];

#[derive(Parser)]
struct Args {
    /// The program that was built with the feature no-telemetry
    #[arg(long)]
    without: PathBuf,
    /// Only cases whose name contains this
    #[arg(long, default_value = "")]
    case: String,
    /// Pairs of runs of each case
    #[arg(long, default_value_t = 11)]
    runs: u32,
    /// Seconds of each run
    #[arg(long, default_value_t = 2)]
    seconds: u64,
    /// Directory for data; emptied between runs
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Passed by `cargo bench`
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() {
    let args = Args::parse();
    let _ = args.bench;
    let with = PathBuf::from(env!("CARGO_BIN_EXE_tilecatcher"));
    let own_ns = nanoseconds_of_a_tile();
    println!("counting and timing one tile: {own_ns:.0} ns\n");
    println!("| tiles | telemetry | MB/s | server CPU-s/GB | middle half of the ratios |\n|---|---|---|---|---|");
    for (name, bytes, window) in CASES.into_iter().filter(|(name, ..)| name.contains(&args.case)) {
        let image = image_of(bytes);
        let (mut on, mut off) = (Vec::new(), Vec::new());
        for run in 0..args.runs {
            for is_on in [run % 2 == 0, run % 2 != 0] {
                let program = if is_on { &with } else { &args.without };
                let figures = measure(&args, program, is_on, &image, window);
                if is_on { on.push(figures) } else { off.push(figures) }
            }
        }
        print_case(name, &on, &off);
        let tile_ns = median(off.iter().map(|run| run.cpu_s_per_gb).collect()) * bytes as f64;
        println!("| {name} | counting and timing | | {:.3} of it | |", own_ns / tile_ns);
    }
}

/// What is done for a tile by the reactor and the lane: five moments, four times, counts, and its part of publishing. The best
/// of many rounds: what others take from the machine is not telemetry's.
fn nanoseconds_of_a_tile() -> f64 {
    const BATCH: i32 = 8;
    let metrics = Metrics::new();
    let (lane, acks, mut counts) = (metrics.lane_times(), metrics.ack_times(), LocalCounts::default());
    let mut batch = || {
        for tile in 0..BATCH {
            let [begun, received, verified, taken, answered] = [(); 5].map(|()| Stamp::now());
            lane.receive.add(received.since(begun));
            lane.verify.add(verified.since(received));
            lane.queue.add(taken.since(verified));
            acks.add(answered.since(received));
            counts.stored(StoredAs::New);
            counts.accepted_of(AcqId(1), tile % 4, 16_000);
            counts.received_bytes += 16_000;
        }
        lane.write.add(Duration::from_micros(100));
        lane.sync.add(Duration::from_micros(200));
        lane.index.add(Duration::from_micros(10));
        counts.publish(&metrics);
        lane.publish();
        acks.publish();
    };
    let rounds = (0..200).map(|_| {
        let began = Instant::now();
        (0..100).for_each(|_| batch());
        began.elapsed().as_secs_f64() * 1e9 / f64::from(100 * BATCH)
    });
    rounds.fold(f64::INFINITY, f64::min)
}

fn print_case(name: &str, on: &[Figures], off: &[Figures]) {
    for (way, runs) in [("without", off), ("with", on)] {
        let of = |figure: fn(&Figures) -> f64| median(runs.iter().map(figure).collect());
        println!("| {name} | {way} | {:.0} | {:.3} | |", of(|run| run.mb_per_s), of(|run| run.cpu_s_per_gb));
    }
    let ratios = |figure: fn(&Figures) -> f64| -> Vec<f64> {
        let mut ratios: Vec<f64> = on.iter().zip(off).map(|(on, off)| figure(on) / figure(off)).collect();
        ratios.sort_by(f64::total_cmp);
        ratios
    };
    let (speed, cpu) = (ratios(|run| run.mb_per_s), ratios(|run| run.cpu_s_per_gb));
    let middle = |sorted: &[f64]| format!("{:.3} to {:.3}", sorted[sorted.len() / 4], sorted[sorted.len() * 3 / 4]);
    let spread = format!("{}; {}", middle(&speed), middle(&cpu));
    println!("| {name} | ratio | {:.3} | {:.3} | {spread} |", median(speed), median(cpu));
}

/// A daemon of its own, warmed up, measured.
fn measure(args: &Args, program: &Path, is_on: bool, image: &[u8], window: usize) -> Figures {
    let dir = args.dir.clone().unwrap_or_else(|| std::env::temp_dir().join("tilecatcher-bench-telemetry"));
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir).expect("a directory for the benchmark");
    let mut command = Command::new(program);
    command.args(["serve", "--capture", "127.0.0.1:0", "--http", "127.0.0.1:0", "--set", "scrub.rate=off", "--data"]);
    command.arg(&dir).stderr(std::process::Stdio::null());
    let (process, ready) = Process::start(&mut command);
    let http = HttpClient::new(&format!("http://{}", field(&ready, "http")), TIMEOUT);
    check_build(&http, is_on);
    http.start_acquisition("1_bench_logfile.ini", LOG.as_bytes()).expect("an acquisition");
    let way = Way { window, cameras: CAMERAS, ..Way::to(&ready, "capture") };
    drive(&process, &way, image, WARM_UP, 0);
    let scraped = is_on.then_some(&http);
    let figures = drive(&process, &Way { scraped, ..way }, image, Duration::from_secs(args.seconds), 1);
    drop(process);
    let _ = std::fs::remove_dir_all(&dir);
    figures
}

/// A program that is not what it should be would be measured against itself.
fn check_build(http: &HttpClient, is_on: bool) {
    let page = http.get_path("/metrics").expect("metrics").bytes;
    let text = String::from_utf8_lossy(&page).into_owned();
    let wanted = if is_on { "release" } else { "no-telemetry" };
    assert!(text.contains(&format!("profile=\"{wanted}\"")), "--without names no program built with no-telemetry");
}
