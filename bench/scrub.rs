//! What a scrub costs capture: the same tiles to a daemon without a scrub, and to one that scrubs as fast as it may.
//!
//!     cargo bench --bench scrub                      5.3 MB tiles, 7 alternating runs
//!     cargo bench --bench scrub -- --runs 15 --seconds 6
//!
//! Both daemons work on one directory, which holds enough for a pass to last; the ratio is with scrub / without, of
//! neighbouring runs. What the scrub read meanwhile is told, so that one that did nothing is not taken for a cheap one.

#![allow(missing_docs, clippy::print_stdout)] // A program, not a library.

mod closed_loop;
mod harness;

use clap::Parser;
use closed_loop::{TIMEOUT, Way, drive};
use harness::{LOG, Process, field, image_of, median, metric};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tilecatcher::client::HttpClient;

const IMAGE_BYTES: usize = 5_300_000;

#[derive(Parser)]
struct Args {
    /// Pairs of runs
    #[arg(long, default_value_t = 7)]
    runs: u32,
    /// Seconds of each run
    #[arg(long, default_value_t = 4)]
    seconds: u64,
    /// Directory for data; emptied after each pair, left behind empty
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Passed by `cargo bench`
    #[arg(long, hide = true)]
    bench: bool,
}

/// One daemon's run: images, and what the scrub read beside them. 10^6 bytes a second.
struct Run {
    captured: f64,
    scrubbed: f64,
}

fn main() {
    let args = Args::parse();
    let _ = args.bench;
    let dir = args.dir.clone().unwrap_or_else(|| std::env::temp_dir().join("tilecatcher-bench-scrub"));
    println!("| pair | without, MB/s | with, MB/s | the scrub read, MB/s | ratio |\n|---|---|---|---|---|");
    let ratios = (0..args.runs).map(|pair| run_pair(&args, &dir, pair)).collect();
    println!("| median | | | | {:.2} |", median(ratios));
    let _ = std::fs::remove_dir_all(&dir);
}

fn run_pair(args: &Args, dir: &Path, pair: u32) -> f64 {
    let _ = std::fs::remove_dir_all(dir);
    std::fs::create_dir_all(dir).expect("a directory for the benchmark");
    let image = image_of(IMAGE_BYTES);
    let time = Duration::from_secs(args.seconds);
    run(dir, &image, time, "off", 1);
    let [without, with] = match pair % 2 {
        0 => [("off", 2), ("unlimited", 3)].map(|(rate, round)| run(dir, &image, time, rate, round)),
        _ => {
            let with = run(dir, &image, time, "unlimited", 2);
            [run(dir, &image, time, "off", 3), with]
        }
    };
    let ratio = with.captured / without.captured;
    println!("| {} | {:.0} | {:.0} | {:.0} | {ratio:.2} |", pair + 1, without.captured, with.captured, with.scrubbed);
    ratio
}

/// A daemon on `dir` with a scrub at `rate`, and all that nine connections can send it.
fn run(dir: &Path, image: &[u8], time: Duration, rate: &str, round: u32) -> Run {
    let settings = [format!("scrub.rate={rate}"), "scrub.interval=1s".into()];
    let (process, ready) = Process::daemon(dir, &settings);
    let http = HttpClient::new(&format!("http://{}", field(&ready, "http")), TIMEOUT);
    http.start_acquisition("1_bench_logfile.ini", LOG.as_bytes()).expect("an acquisition");
    let way = Way::to(&ready, "capture");
    let scrubbed_bytes = || metric(&http, "tilecatcher_scrub_bytes_total");
    let before = scrubbed_bytes();
    let figures = drive(&process, &way, image, time, round);
    let scrubbed = (scrubbed_bytes() - before) / 1e6 / time.as_secs_f64();
    process.stop();
    Run { captured: figures.mb_per_s, scrubbed }
}
