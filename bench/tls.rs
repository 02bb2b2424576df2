//! What encryption costs: the same tiles to the same daemon over its plain and its encrypted port, in turn.
//!
//!     cargo bench --bench tls                        all sizes, 5 alternating runs each
//!     cargo bench --bench tls -- --case 5.3MB
//!
//! Sender and server share the machine, so both sides' encryption is in the throughput; the CPU time is the server's
//! alone. Ratios are encrypted / plain of the same run; figures are medians.

#![allow(missing_docs, clippy::print_stdout)] // A program, not a library.

#[path = "../tests/daemon/certificates.rs"]
mod certificates;
mod harness;

use certificates::Certificates;
use clap::Parser;
use harness::{LOG, Process, field, median};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tilecatcher::client::{CaptureClient, ChecksumChoice, HttpClient, Tile, checksum_of};
use tilecatcher::model::{AcqId, FrameNumber, TileKey};
use tilecatcher::tls::ClientTls;

const CONNECTIONS: u32 = 9;
const WINDOW: usize = 2;
const TIMEOUT: Duration = Duration::from_secs(60);
const CASES: [(&str, usize); 3] = [("256kB", 256_000), ("5.3MB", 5_300_000), ("20MB", 20_000_000)];

#[derive(Parser)]
struct Args {
    /// Only cases whose name contains this
    #[arg(long, default_value = "")]
    case: String,
    /// Alternating runs of each case
    #[arg(long, default_value_t = 5)]
    runs: u32,
    /// Seconds of each run
    #[arg(long, default_value_t = 3)]
    seconds: u64,
    /// Directory for data; emptied between runs
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Settings for the daemon, KEY=VALUE
    #[arg(long)]
    set: Vec<String>,
    /// Passed by `cargo bench`
    #[arg(long, hide = true)]
    bench: bool,
}

/// What one way came to in one run.
struct Figures {
    mb_per_s: f64,
    cpu_s_per_gb: f64,
}

/// A way to the daemon.
struct Way<'a> {
    address: SocketAddr,
    tls: Option<&'a ClientTls>,
}

fn main() {
    let args = Args::parse();
    let _ = args.bench;
    let certificates = Certificates::make();
    let tls = certificates.client("ca", Some("client"));
    println!("| tiles | connection | MB/s | server CPU-s/GB |\n|---|---|---|---|");
    for (name, bytes) in CASES.iter().filter(|(name, _)| name.contains(&args.case)) {
        let (mut plain, mut encrypted) = (Vec::new(), Vec::new());
        for run in 0..args.runs {
            let (first, second) = run_once(&args, &certificates, &tls, *bytes, run);
            plain.push(first);
            encrypted.push(second);
        }
        print_case(name, &plain, &encrypted);
    }
}

fn print_case(name: &str, plain: &[Figures], encrypted: &[Figures]) {
    for (way, runs) in [("plain", plain), ("mutual TLS", encrypted)] {
        let of = |figure: fn(&Figures) -> f64| median(runs.iter().map(figure).collect());
        println!("| {name} | {way} | {:.0} | {:.3} |", of(|run| run.mb_per_s), of(|run| run.cpu_s_per_gb));
    }
    let ratio = |figure: fn(&Figures) -> f64| {
        median(plain.iter().zip(encrypted).map(|(plain, encrypted)| figure(encrypted) / figure(plain)).collect())
    };
    println!("| {name} | ratio | {:.2} | {:.2} |", ratio(|run| run.mb_per_s), ratio(|run| run.cpu_s_per_gb));
}

/// Both ways on one daemon, each first in every other run.
fn run_once(args: &Args, certificates: &Certificates, tls: &ClientTls, bytes: usize, run: u32) -> (Figures, Figures) {
    let dir = args.dir.clone().unwrap_or_else(|| std::env::temp_dir().join("tilecatcher-bench-tls"));
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir).expect("a directory for the benchmark");
    let settings = [certificates.capture_settings(), args.set.clone()].concat();
    let (process, ready) = Process::daemon(&dir, &settings);
    let http = HttpClient::new(&format!("http://{}", field(&ready, "http")), TIMEOUT);
    http.start_acquisition("1_bench_logfile.ini", LOG.as_bytes()).expect("an acquisition");
    let plain = Way { address: field(&ready, "capture").parse().expect("an address"), tls: None };
    let encrypted = Way { address: field(&ready, "capture_tls").parse().expect("an address"), tls: Some(tls) };
    let image: Vec<u8> = (0..bytes).map(|n| u8::try_from((n * 31 + n / 251) % 251).unwrap_or(0)).collect();
    let time = Duration::from_secs(args.seconds);
    drive(&process, &plain, &image, Duration::from_millis(500), 0);
    let figures = match run % 2 {
        0 => {
            let first = drive(&process, &plain, &image, time, 1);
            (first, drive(&process, &encrypted, &image, time, 2))
        }
        _ => {
            let first = drive(&process, &encrypted, &image, time, 1);
            (drive(&process, &plain, &image, time, 2), first)
        }
    };
    drop(process);
    let _ = std::fs::remove_dir_all(&dir);
    figures
}

/// Closed loop on every connection until the time is over.
fn drive(process: &Process, way: &Way<'_>, image: &[u8], time: Duration, round: u32) -> Figures {
    let (over, cpu_before, began) = (AtomicBool::new(false), process.cpu_seconds(), Instant::now());
    let tiles: u64 = std::thread::scope(|scope| {
        let senders: Vec<_> = (0..CONNECTIONS)
            .map(|connection| {
                let over = &over;
                scope.spawn(move || send_until(over, way, image, round * 1000 + connection))
            })
            .collect();
        std::thread::sleep(time);
        over.store(true, Ordering::Relaxed);
        senders.into_iter().map(|sender| sender.join().expect("a sender")).sum()
    });
    let (took, cpu) = (began.elapsed().as_secs_f64(), process.cpu_seconds() - cpu_before);
    let bytes = tiles as f64 * image.len() as f64;
    Figures { mb_per_s: bytes / 1e6 / took, cpu_s_per_gb: cpu / (bytes / 1e9) }
}

fn send_until(over: &AtomicBool, way: &Way<'_>, image: &[u8], col: u32) -> u64 {
    let mut client = CaptureClient::connect_with(way.address, WINDOW, TIMEOUT, way.tls).expect("a connection");
    let checksum = checksum_of(ChecksumChoice::Crc32, image);
    let mut tiles = 0;
    let mut count = |answered: tilecatcher::client::Answered<()>| {
        assert_eq!(answered.response.status, 0, "refused: {:?}", answered.response);
        tiles += 1;
    };
    for row in 0.. {
        if over.load(Ordering::Relaxed) {
            break;
        }
        let key = TileKey { acq: AcqId(1), col, row, frame: FrameNumber::STABLE };
        client
            .send(&Tile { key, camera: 0, checksum, image }, ())
            .expect("a sent tile")
            .into_iter()
            .for_each(&mut count);
    }
    while let Some(answered) = client.receive().expect("an answer") {
        count(answered);
    }
    tiles
}
