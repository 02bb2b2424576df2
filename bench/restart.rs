//! How long until a daemon with many tiles is ready again, and how fast its index is rebuilt.
//!
//!     cargo bench --bench restart                     1 million tiles of 64 bytes
//!     cargo bench --bench restart -- --tiles 200000
//!
//! Times run from starting the process to its ready line. "Cold" means that the data directory was dropped from the
//! page cache before (needs root; says so when it can not).

#![allow(missing_docs, clippy::print_stdout)] // A program, not a library.

mod harness;

use clap::Parser;
use harness::{LOG, Process, field};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use tilecatcher::client::{CaptureClient, ChecksumChoice, HttpClient, Tile, checksum_of};
use tilecatcher::model::{AcqId, FrameNumber, TileKey};

#[derive(Parser)]
struct Args {
    /// Tiles in the data directory
    #[arg(long, default_value_t = 1_000_000)]
    tiles: u32,
    /// Directory for data; removed afterwards
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Passed by `cargo bench`
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() {
    let args = Args::parse();
    let _ = args.bench;
    let dir = args.dir.clone().unwrap_or_else(|| std::env::temp_dir().join("tilecatcher-bench-restart"));
    let _ = std::fs::remove_dir_all(&dir);
    let (process, ready) = Process::daemon(&dir, &[]);
    let began = Instant::now();
    fill(&ready, 0..args.tiles);
    println!("| what | result |\n|---|---|");
    println!("| capture, 9 connections x 32 | {:.0} tiles/s |", f64::from(args.tiles) / began.elapsed().as_secs_f64());
    println!("| peak RSS while capturing | {:.0} MB |", process.peak_megabytes());
    process.stop();
    println!("| ready after a clean stop, warm | {:.2} s |", ready_again(&dir).as_secs_f64());
    if drop_page_cache() {
        println!("| ready after a clean stop, cold | {:.2} s |", ready_again(&dir).as_secs_f64());
    }
    kill_behind(&dir, args.tiles);
    println!("| ready after kill -9 behind 50 000 new tiles, warm | {:.2} s |", ready_again(&dir).as_secs_f64());
    kill_behind(&dir, args.tiles + MORE);
    if drop_page_cache() {
        println!("| ready after kill -9 behind 50 000 new tiles, cold | {:.2} s |", ready_again(&dir).as_secs_f64());
    }
    let out = Command::new(env!("CARGO_BIN_EXE_tilecatcher")).args(["index", "rebuild", "--data"]).arg(&dir).output();
    println!("| index rebuild | {} |", String::from_utf8_lossy(&out.expect("runs").stdout).trim());
    let _ = std::fs::remove_dir_all(&dir);
}

/// Sends tiles of 64 bytes over 9 connections.
fn fill(ready: &str, tiles: Range<u32>) {
    let http = HttpClient::new(&format!("http://{}", field(ready, "http")), Duration::from_secs(10));
    http.start_acquisition("1_bench_logfile.ini", LOG.as_bytes()).expect("an acquisition");
    let capture = field(ready, "capture").parse().expect("an address");
    let senders: Vec<_> = (0..9)
        .map(|sender| {
            let tiles = tiles.clone();
            std::thread::spawn(move || {
                let mut client: CaptureClient<()> =
                    CaptureClient::connect(capture, 32, Duration::from_secs(60)).expect("a connection");
                for n in tiles.skip(sender).step_by(9) {
                    let image = [u64::from(n).to_le_bytes(); 8].concat();
                    let key = TileKey { acq: AcqId(1), col: n / 1000, row: n % 1000, frame: FrameNumber::STABLE };
                    let checksum = checksum_of(ChecksumChoice::Crc32, &image);
                    client.send(&Tile { key, camera: 0, checksum, image: &image }, ()).expect("a sent tile");
                }
                while client.receive().expect("an answer").is_some() {}
            })
        })
        .collect();
    senders.into_iter().for_each(|sender| sender.join().expect("a sender"));
}

fn ready_again(dir: &Path) -> Duration {
    let began = Instant::now();
    let (process, ready) = Process::daemon(dir, &[]);
    let took = began.elapsed();
    assert!(ready.starts_with("ready"), "{ready:?}");
    process.stop();
    took
}

/// Tiles that come before a kill.
const MORE: u32 = 50_000;

/// Sends new tiles, from number `first` on, and kills the daemon as soon as they are acknowledged.
fn kill_behind(dir: &Path, first: u32) {
    let (process, ready) = Process::daemon(dir, &[]);
    fill(&ready, first..first + MORE);
    drop(process);
}

fn drop_page_cache() -> bool {
    rustix::fs::sync();
    let dropped = std::fs::write("/proc/sys/vm/drop_caches", "3").is_ok();
    if !dropped {
        println!("| (cold starts) | not measured: the page cache can not be dropped by this user |");
    }
    dropped
}
