//! What those who look on cost capture: `tilecatcher replay` in a closed loop, alone and beside viewers that read every event
//! of its acquisition, in turn.
//!
//!     cargo bench --bench viewers                                 5.3 MB and 256 kB tiles, 20 viewers, 5 pairs each: 2 minutes
//!     cargo bench --bench viewers -- --viewers 5 --case 256kB
//!
//! Daemon, senders and viewers share the machine, so the viewers' own reading is in the throughput; the CPU time is that of the
//! daemon's HTTP threads. Ratios are medians of the pairs; every other pair begins with the viewers. Exit code 1 when the
//! median of a case is below the aim.

#![allow(missing_docs, clippy::print_stdout)] // A program, not a library.

mod harness;

use clap::Parser;
use harness::{Process, field, median};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const CASES: [(&str, &str); 2] = [("5.3MB", "5300kB"), ("256kB", "256kB")];
/// Of what capture does alone.
const AIM: f64 = 0.95;
/// A viewer looks this often whether it is to end.
const LOOKS: Duration = Duration::from_millis(200);

#[derive(Parser)]
struct Args {
    /// Only cases whose name contains this
    #[arg(long, default_value = "")]
    case: String,
    /// Viewers
    #[arg(long, default_value_t = 20)]
    viewers: u32,
    /// Pairs of runs of each case
    #[arg(long, default_value_t = 5)]
    runs: u64,
    /// Seconds of each run
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Directory for data; removed afterwards
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Passed by `cargo bench`
    #[arg(long, hide = true)]
    bench: bool,
}

/// A daemon's ports, as text.
struct Ports {
    capture: String,
    http: SocketAddr,
}

/// What a replay came to.
struct Figures {
    mb_per_s: f64,
    /// Of the daemon's HTTP threads, in percent of all processors' time.
    http_percent: f64,
}

/// What the viewers of a run have seen.
#[derive(Default)]
struct Seen {
    /// Events with cells, of all viewers.
    tiles: u64,
    lagged: u64,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let _ = args.bench;
    let viewers = args.viewers;
    println!(
        "| tiles | alone MB/s | beside {viewers} viewers MB/s | ratio (aim {AIM}) | HTTP threads, % of CPUs | events a viewer |"
    );
    println!("|---|---|---|---|---|---|");
    let mut ratios = Vec::new();
    for (name, size) in CASES.iter().filter(|(name, _)| name.contains(&args.case)) {
        ratios.push(compare(&args, name, size));
    }
    if ratios.iter().all(|ratio| *ratio >= AIM) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Pairs of runs of one size of tiles; gives the median ratio.
fn compare(args: &Args, name: &str, size: &str) -> f64 {
    let (mut alone, mut beside, mut seen) = (Vec::new(), Vec::new(), Seen::default());
    let base = args.dir.clone().unwrap_or_else(std::env::temp_dir);
    for pair in 0..args.runs {
        let data = tempfile::tempdir_in(&base).expect("a directory");
        let (process, ready) = Process::daemon(data.path(), &[]);
        let ports = Ports {
            capture: field(&ready, "capture").to_owned(),
            http: field(&ready, "http").parse().expect("an address"),
        };
        // The first run of a daemon pays for its memory.
        replay(&process, &ports, size, 1, 1);
        for turn in 0..2 {
            let acq = 2 + turn;
            if (pair + turn) % 2 == 0 {
                alone.push(replay(&process, &ports, size, args.seconds, acq));
            } else {
                beside.push(watched(args, &process, &ports, size, acq, &mut seen));
            }
        }
        drop(process);
    }
    let ratio = median(beside.iter().zip(&alone).map(|(beside, alone)| beside.mb_per_s / alone.mb_per_s).collect());
    let rate = |runs: &[Figures]| median(runs.iter().map(|run| run.mb_per_s).collect());
    let percent = median(beside.iter().map(|run| run.http_percent).collect());
    let events = seen.tiles / (u64::from(args.viewers) * args.runs);
    assert!(
        events > 0 && seen.lagged == 0,
        "viewers saw {events} events each, and were passed by {} times",
        seen.lagged
    );
    println!("| {name} | {:.0} | {:.0} | {ratio:.3} | {percent:.1} | {events} |", rate(&alone), rate(&beside));
    ratio
}

/// A replay beside viewers.
fn watched(args: &Args, process: &Process, ports: &Ports, size: &str, acq: u64, seen: &mut Seen) -> Figures {
    let stop = Arc::new(AtomicBool::new(false));
    let viewer = |_| {
        let (http, stop) = (ports.http, Arc::clone(&stop));
        std::thread::spawn(move || look_on(http, acq, &stop))
    };
    let viewers: Vec<_> = (0..args.viewers).map(viewer).collect();
    let figures = replay(process, ports, size, args.seconds, acq);
    stop.store(true, Ordering::Relaxed);
    for viewer in viewers {
        let one = viewer.join().expect("a viewer");
        seen.tiles += one.tiles;
        seen.lagged += one.lagged;
    }
    figures
}

/// A replay with every connection as fast as it can.
fn replay(process: &Process, ports: &Ports, size: &str, seconds: u64, acq: u64) -> Figures {
    let (cpu, began) = (process.http_cpu_seconds(), Instant::now());
    let out = Command::new(env!("CARGO_BIN_EXE_tilecatcher"))
        .args(["replay", "--mode", "closed", "--connections", "9", "--window", "2", "--quiet", "--keep", "--json", "-"])
        .args(["--tile-size", size, "--duration", &format!("{seconds}s"), "--acq", &acq.to_string()])
        .args(["--capture", &ports.capture, "--http", &format!("http://{}", ports.http)])
        .output()
        .expect("replay runs");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let report: serde_json::Value = serde_json::from_slice(&out.stdout).expect("a report");
    let processors = std::thread::available_parallelism().map_or(1.0, |number| number.get() as f64);
    let share = (process.http_cpu_seconds() - cpu) / began.elapsed().as_secs_f64() / processors;
    Figures { mb_per_s: report["mb_per_s"].as_f64().expect("a rate"), http_percent: share * 100.0 }
}

/// Reads events of an acquisition, from when it begins until it is told to end.
fn look_on(http: SocketAddr, acq: u64, stop: &AtomicBool) -> Seen {
    let mut seen = Seen::default();
    let mut buffer = vec![0; 64 << 10];
    while !stop.load(Ordering::Relaxed) {
        let mut stream = subscribe(http, acq);
        let mut tail = Vec::new();
        while let Some(read) = read_some(&mut stream, &mut buffer, stop) {
            tail.extend_from_slice(&buffer[..read]);
            let whole = tail.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
            seen.take(&tail[..whole]);
            tail.drain(..whole);
        }
        // Not begun yet, or deleted again.
        std::thread::sleep(Duration::from_millis(20));
    }
    seen
}

impl Seen {
    fn take(&mut self, lines: &[u8]) {
        for line in lines.split(|byte| *byte == b'\n') {
            match line {
                b"event: tiles" => self.tiles += 1,
                b"event: lagged" => self.lagged += 1,
                _ => {}
            }
        }
    }
}

fn subscribe(http: SocketAddr, acq: u64) -> TcpStream {
    let mut stream = TcpStream::connect(http).expect("a connection");
    stream.set_read_timeout(Some(LOOKS)).expect("a timeout");
    let head = format!("GET /api/v1/events?acquisition={acq} HTTP/1.1\r\nHost: b\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).expect("sent");
    stream
}

/// What has come; `None` at the end, or when it is to end.
fn read_some(stream: &mut TcpStream, buffer: &mut [u8], stop: &AtomicBool) -> Option<usize> {
    use std::io::ErrorKind::{Interrupted, TimedOut, WouldBlock};
    loop {
        match stream.read(buffer) {
            Ok(0) => return None,
            Ok(read) => return Some(read),
            Err(error) if !matches!(error.kind(), Interrupted | TimedOut | WouldBlock) => return None,
            Err(_) if stop.load(Ordering::Relaxed) => return None,
            Err(_) => {}
        }
    }
}
