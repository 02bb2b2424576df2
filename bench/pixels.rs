//! What stored tiles cost to look at: thumbnails a second on one core, and what quality control costs capture.
//!
//!     cargo bench --bench pixels                        both parts: about 2 minutes, 10 GB of disk
//!     cargo bench --bench pixels -- --part thumbnails   the code alone, then a daemon with one preview thread
//!     cargo bench --bench pixels -- --part capture      capture with and without quality control, in turns
//!
//! Tiles are grey TIFFs of 2560 x 2070 pixels, 8 bit, 5.3 MB: blocks of grey with noise.

#![allow(missing_docs, clippy::print_stdout)] // A program, not a library.

mod harness;

use clap::Parser;
use harness::{LOG, Process, field, median, metric};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tilecatcher::client::{CaptureClient, ChecksumChoice, HttpClient, Tile, checksum_of};
use tilecatcher::formats::encode_gray8;
use tilecatcher::model::{AcqId, FrameNumber, TileKey};
use tilecatcher::pixels::{Contrast, GreyTiff, Raster, Region, encode_grey, measure};

#[derive(Parser)]
struct Args {
    /// thumbnails or capture; both when absent
    #[arg(long)]
    part: Option<String>,
    /// Alternating runs of capture
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Seconds of each run
    #[arg(long, default_value_t = 6)]
    seconds: u64,
    /// Tiles a second that the senders try for, together; 0: as many as go
    #[arg(long, default_value_t = 0)]
    rate: u64,
    /// Directory for data; removed afterwards
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Passed by `cargo bench`
    #[arg(long, hide = true)]
    bench: bool,
}

const WIDTH: u32 = 2560;
const HEIGHT: u32 = 2070;
const SENDERS: u32 = 4;

fn main() {
    let args = Args::parse();
    let base = args.dir.clone().unwrap_or_else(std::env::temp_dir);
    let dir = tempfile::tempdir_in(base).expect("a directory");
    let wants = |part: &str| args.part.as_deref().is_none_or(|wanted| wanted == part);
    if wants("thumbnails") {
        code();
        daemon(dir.path());
    }
    if wants("capture") {
        capture(&args, dir.path());
    }
}

fn tile(seed: u32) -> Vec<u8> {
    let mut state = u64::from(seed) | 1;
    let pixels: Vec<u8> = (0..WIDTH * HEIGHT)
        .map(|n| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let block = (n % WIDTH / 50 * 31 + n / WIDTH / 50 * 17 + seed) % 128;
            u8::try_from(block).expect("small") + 32 + (state.to_le_bytes()[0] >> 3)
        })
        .collect();
    encode_gray8(WIDTH, HEIGHT, &pixels).expect("an image")
}

/// Each step of a thumbnail, on one thread, of tiles in memory.
fn code() {
    let tiles: Vec<Vec<u8>> = (0..8).map(tile).collect();
    let rate = |name: &str, work: &dyn Fn(&[u8])| {
        let (began, mut done) = (Instant::now(), 0u32);
        while began.elapsed() < Duration::from_secs(3) {
            work(&tiles[done as usize % tiles.len()]);
            done += 1;
        }
        println!("| {name} | {:.0} |", f64::from(done) / began.elapsed().as_secs_f64());
    };
    let shrink = |bytes: &[u8]| {
        let mut tiff = GreyTiff::open(bytes).expect("a TIFF");
        Raster::of(&mut tiff, Region::whole(WIDTH, HEIGHT), (256, 256)).expect("an image")
    };
    println!("\n| one thread, tiles in memory | tiles a second |\n|---|---|");
    rate("CRC-32", &|bytes| _ = std::hint::black_box(crc32fast::hash(bytes)));
    rate("reduced to 256 x 256", &|bytes| _ = std::hint::black_box(shrink(bytes)));
    rate("CRC-32, reduced, PNG", &|bytes| {
        std::hint::black_box(crc32fast::hash(bytes));
        let raster = shrink(bytes);
        std::hint::black_box(encode_grey(256, 256, &Contrast::None.apply(&raster)));
    });
    rate("judged", &|bytes| {
        let mut tiff = GreyTiff::open(bytes).expect("a TIFF");
        std::hint::black_box(measure(&mut tiff).expect("measures"));
    });
}

/// Cold thumbnails of a daemon with one preview thread; then the same from its cache.
fn daemon(dir: &Path) {
    let data = dir.join("thumbnails");
    let (process, ready) = Process::daemon(&data, &["quality.enabled=false".to_owned()]);
    let http: SocketAddr = field(&ready, "http").parse().expect("an address");
    let address: SocketAddr = field(&ready, "capture").parse().expect("an address");
    let client = HttpClient::new(&format!("http://{http}"), Duration::from_secs(60));
    client.start_acquisition("1_bench_logfile.ini", LOG.as_bytes()).expect("an acquisition");
    let count = 200;
    let image = tile(1);
    let mut sender: CaptureClient<()> = CaptureClient::connect(address, 2, Duration::from_secs(60)).expect("connected");
    for n in 0..count {
        send(&mut sender, &image, n % 20, n / 20);
    }
    while sender.receive().expect("an answer").is_some() {}
    println!("\n| a daemon, one preview thread, four clients | thumbnails a second | CPU ms each |\n|---|---|---|");
    for name in ["made", "from the cache"] {
        let (began, cpu) = (Instant::now(), process.cpu_seconds());
        std::thread::scope(|scope| {
            for first in 0..4 {
                let url = format!("http://{http}");
                scope.spawn(move || {
                    let client = HttpClient::new(&url, Duration::from_secs(60));
                    for n in (first..count).step_by(4) {
                        let path = format!("/api/v1/acquisitions/1/thumbnails/0/{}/{}", n % 20, n / 20);
                        client.get_path(&path).expect("a thumbnail");
                    }
                });
            }
        });
        let (seconds, cpu) = (began.elapsed().as_secs_f64(), process.cpu_seconds() - cpu);
        println!("| {name} | {:.0} | {:.1} |", f64::from(count) / seconds, cpu * 1e3 / f64::from(count));
    }
    drop(process);
    let _ = std::fs::remove_dir_all(&data);
}

/// The same tiles with and without quality control, in turns.
fn capture(args: &Args, dir: &Path) {
    let mut rates = [Vec::new(), Vec::new()];
    let mut cpus = [Vec::new(), Vec::new()];
    println!("\n| run | quality control | MB/s | CPU ms a tile | judged while it ran |\n|---|---|---|---|---|");
    for run in 0..args.runs * 2 {
        // In turns, the first of a pair in turns, too: off, on, on, off.
        let which = (run + run / 2) % 2;
        let data = dir.join(format!("run{run}"));
        let (process, ready) = Process::daemon(&data, &[format!("quality.enabled={}", which == 1)]);
        let http: SocketAddr = field(&ready, "http").parse().expect("an address");
        let address: SocketAddr = field(&ready, "capture").parse().expect("an address");
        let client = HttpClient::new(&format!("http://{http}"), Duration::from_secs(60));
        client.start_acquisition("1_bench_logfile.ini", LOG.as_bytes()).expect("an acquisition");
        let cpu = process.cpu_seconds();
        let (tiles, seconds) = capture_rate(address, args);
        let cpu = (process.cpu_seconds() - cpu) * 1e3 / tiles as f64;
        let rate = tiles as f64 * f64::from(WIDTH * HEIGHT) / 1e6 / seconds;
        let judged = metric(&client, "tilecatcher_quality_judged_total");
        println!("| {run} | {} | {rate:.0} | {cpu:.2} | {judged} of {tiles} |", ["off", "on"][which]);
        rates[which].push(rate);
        cpus[which].push(cpu);
        drop(process);
        let _ = std::fs::remove_dir_all(&data);
    }
    let [off, on] = rates;
    let ratio = median(off.iter().zip(&on).map(|(off, on)| on / off).collect());
    let [cpu_off, cpu_on] = cpus.map(median);
    println!("\nMB/s {:.0} off, {:.0} on; on / off, median of the pairs {ratio:.3}", median(off), median(on));
    println!("CPU ms a tile {cpu_off:.2} off, {cpu_on:.2} on");
}

fn send(client: &mut CaptureClient<()>, image: &[u8], col: u32, row: u32) {
    let key = TileKey { acq: AcqId(1), col, row, frame: FrameNumber::STABLE };
    let checksum = checksum_of(ChecksumChoice::Crc32, image);
    let answered = client.send(&Tile { key, camera: 0, checksum, image }, ()).expect("sent");
    assert!(answered.is_none_or(|answered| answered.response.status == 0), "refused");
}

fn capture_rate(address: SocketAddr, args: &Args) -> (u64, f64) {
    let began = Instant::now();
    let until = began + Duration::from_secs(args.seconds);
    let pause = Duration::from_secs(u64::from(SENDERS)).checked_div(u32::try_from(args.rate).unwrap_or(0));
    let tiles = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for row in 0..SENDERS {
            let tiles = &tiles;
            scope.spawn(move || {
                let image = tile(row);
                let mut client: CaptureClient<()> =
                    CaptureClient::connect(address, 2, Duration::from_secs(60)).expect("a connection");
                for col in 0.. {
                    if let Some(due) = pause.map(|pause| began + pause * col) {
                        std::thread::sleep(due.saturating_duration_since(Instant::now()));
                    }
                    if Instant::now() >= until {
                        break;
                    }
                    send(&mut client, &image, col, row);
                    tiles.fetch_add(1, Ordering::Relaxed);
                }
                while client.receive().expect("an answer").is_some() {}
            });
        }
    });
    (tiles.load(Ordering::Relaxed), began.elapsed().as_secs_f64())
}
