//! Drives the reference sink and the daemon in turn, with the same client code, and prints what each does.
//!
//!     cargo bench --bench ingest                      all cases, 5 alternating runs each
//!     cargo bench --bench ingest -- --case 5.3MB-9    one case
//!     cargo bench --bench ingest -- --list
//!
//! Sender and server share the machine. Figures are medians; ratios are daemon / reference of the same run.

#![allow(missing_docs, clippy::print_stdout)] // A program, not a library.

mod harness;
mod sink;

use clap::{Parser, Subcommand};
use harness::{LOG, Process, field, image_of, median};
use hdrhistogram::Histogram;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tilecatcher::client::{CaptureClient, ChecksumChoice, HttpClient, Tile, checksum_of};
use tilecatcher::model::{AcqId, Checksum, FrameNumber, TileKey};

#[derive(Parser)]
struct Args {
    #[command(subcommand)]
    command: Option<Role>,
    /// Only cases whose name contains this
    #[arg(long, default_value = "")]
    case: String,
    /// Alternating runs of each case
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Seconds of each run
    #[arg(long, default_value_t = 4)]
    seconds: u64,
    /// Directory for data; emptied between runs
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Settings for the daemon, KEY=VALUE
    #[arg(long)]
    set: Vec<String>,
    /// Let the reference write into blocks that were written before
    #[arg(long)]
    prewritten: bool,
    /// Print the cases
    #[arg(long)]
    list: bool,
    /// Passed by `cargo bench`
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Subcommand)]
enum Role {
    /// The reference sink (started by this program)
    Sink(sink::SinkArgs),
}

struct Case {
    name: &'static str,
    tile_bytes: usize,
    connections: u32,
    window: usize,
    checksum: ChecksumChoice,
    /// Ratio of throughput that is aimed at.
    goal: f64,
}

const CASES: &[Case] = &[
    Case {
        name: "5.3MB-9",
        tile_bytes: 5_300_000,
        connections: 9,
        window: 2,
        checksum: ChecksumChoice::Crc32,
        goal: 0.85,
    },
    Case {
        name: "20MB-9",
        tile_bytes: 20_000_000,
        connections: 9,
        window: 2,
        checksum: ChecksumChoice::Crc32,
        goal: 0.85,
    },
    Case {
        name: "256kB-9x2",
        tile_bytes: 256_000,
        connections: 9,
        window: 2,
        checksum: ChecksumChoice::Crc32,
        goal: 1.2,
    },
    Case {
        name: "16kB-9x32",
        tile_bytes: 16_000,
        connections: 9,
        window: 32,
        checksum: ChecksumChoice::Crc32,
        goal: 0.0,
    },
    Case {
        name: "5.3MB-1x8",
        tile_bytes: 5_300_000,
        connections: 1,
        window: 8,
        checksum: ChecksumChoice::Crc32,
        goal: 0.0,
    },
    Case {
        name: "20MB-48x2",
        tile_bytes: 20_000_000,
        connections: 48,
        window: 2,
        checksum: ChecksumChoice::Crc32,
        goal: 0.0,
    },
    Case {
        name: "5.3MB-9-md5",
        tile_bytes: 5_300_000,
        connections: 9,
        window: 2,
        checksum: ChecksumChoice::Md5,
        goal: 0.0,
    },
];

/// What one run of one server came to.
struct Run {
    mb_per_s: f64,
    tiles_per_s: f64,
    p50_ms: f64,
    p99_ms: f64,
    cpu_s_per_gb: f64,
    peak_mb: f64,
}

fn main() {
    let args = Args::parse();
    let _ = args.bench;
    if let Some(Role::Sink(sink_args)) = &args.command {
        sink::run(sink_args).expect("the reference sink");
        return;
    }
    let cases: Vec<&Case> = CASES.iter().filter(|case| case.name.contains(&args.case)).collect();
    if args.list {
        cases.iter().for_each(|case| println!("{}", case.name));
        return;
    }
    let dir = args.dir.clone().unwrap_or_else(|| std::env::temp_dir().join("tilecatcher-bench"));
    println!("| case | server | MB/s | tiles/s | ack p50 ms | ack p99 ms | server CPU-s/GB | peak RSS MB |");
    println!("|---|---|---|---|---|---|---|---|");
    for case in cases {
        let (mut reference, mut daemon) = (Vec::new(), Vec::new());
        for _ in 0..args.runs {
            reference.push(run_once(case, &args, &dir, Server::Reference));
            daemon.push(run_once(case, &args, &dir, Server::Daemon));
        }
        print_case(case, &reference, &daemon);
    }
    let _ = std::fs::remove_dir_all(&dir);
}

fn print_case(case: &Case, reference: &[Run], daemon: &[Run]) {
    for (name, runs) in [("reference", reference), ("daemon", daemon)] {
        let of = |figure: fn(&Run) -> f64| median(runs.iter().map(figure).collect());
        println!(
            "| {} | {name} | {:.0} | {:.0} | {:.2} | {:.2} | {:.3} | {:.0} |",
            case.name,
            of(|run| run.mb_per_s),
            of(|run| run.tiles_per_s),
            of(|run| run.p50_ms),
            of(|run| run.p99_ms),
            of(|run| run.cpu_s_per_gb),
            of(|run| run.peak_mb),
        );
    }
    let ratio = |figure: fn(&Run) -> f64| {
        median(reference.iter().zip(daemon).map(|(reference, daemon)| figure(daemon) / figure(reference)).collect())
    };
    let (throughput, cpu) = (ratio(|run| run.mb_per_s), ratio(|run| run.cpu_s_per_gb));
    let goal = if case.goal > 0.0 { format!(" (goal {:.2})", case.goal) } else { String::new() };
    println!("| {} | ratio | {throughput:.2}{goal} | | | | {cpu:.2} | |", case.name);
}

#[derive(Clone, Copy)]
enum Server {
    Reference,
    Daemon,
}

fn run_once(case: &Case, args: &Args, dir: &Path, server: Server) -> Run {
    let _ = std::fs::remove_dir_all(dir);
    std::fs::create_dir_all(dir).expect("a directory for the benchmark");
    rustix::fs::sync();
    std::thread::sleep(Duration::from_millis(500));
    let (process, ready) = start(dir, args, server);
    let capture: SocketAddr = field(&ready, "capture").parse().expect("an address");
    if matches!(server, Server::Daemon) {
        let http = HttpClient::new(&format!("http://{}", field(&ready, "http")), Duration::from_secs(10));
        http.start_acquisition("1_bench_logfile.ini", LOG.as_bytes()).expect("an acquisition");
    }
    let image: Arc<[u8]> = image_of(case.tile_bytes).into();
    let checksum = checksum_of(case.checksum, &image);
    drive(case, capture, &image, checksum, Duration::from_millis(500), 1);
    let cpu_before = process.cpu_seconds();
    let (tiles, took, acks) = drive(case, capture, &image, checksum, Duration::from_secs(args.seconds), 2);
    let cpu = process.cpu_seconds() - cpu_before;
    let bytes = tiles as f64 * case.tile_bytes as f64;
    let seconds = took.as_secs_f64();
    Run {
        mb_per_s: bytes / 1e6 / seconds,
        tiles_per_s: tiles as f64 / seconds,
        p50_ms: acks.value_at_quantile(0.5) as f64 / 1e3,
        p99_ms: acks.value_at_quantile(0.99) as f64 / 1e3,
        cpu_s_per_gb: cpu / (bytes / 1e9),
        peak_mb: process.peak_megabytes(),
    }
}

/// Closed loop on every connection until the time is over; tiles acknowledged, time, ack times in us.
fn drive(
    case: &Case,
    capture: SocketAddr,
    image: &Arc<[u8]>,
    checksum: Checksum,
    time: Duration,
    round: u32,
) -> (u64, Duration, Histogram<u64>) {
    let over = Arc::new(AtomicBool::new(false));
    let began = Instant::now();
    let senders: Vec<_> = (0..case.connections)
        .map(|connection| {
            let (over, image, window) = (Arc::clone(&over), Arc::clone(image), case.window);
            std::thread::spawn(move || {
                let mut client: CaptureClient<()> =
                    CaptureClient::connect(capture, window, Duration::from_secs(60)).expect("a connection");
                let mut acks = Histogram::<u64>::new_with_bounds(1, 600_000_000, 3).expect("sane bounds");
                let mut tiles = 0;
                let mut note = |answered: tilecatcher::client::Answered<()>| {
                    assert_eq!(answered.response.status, 0, "refused: {:?}", answered.response);
                    acks.saturating_record(u64::try_from(answered.took.as_micros()).unwrap_or(u64::MAX));
                    tiles += 1;
                };
                for row in 0.. {
                    if over.load(Ordering::Relaxed) {
                        break;
                    }
                    let key =
                        TileKey { acq: AcqId(1), col: round * 1000 + connection, row, frame: FrameNumber::STABLE };
                    let tile = Tile { key, camera: 0, checksum, image: &image };
                    client.send(&tile, ()).expect("a sent tile").into_iter().for_each(&mut note);
                }
                while let Some(answered) = client.receive().expect("an answer") {
                    note(answered);
                }
                (tiles, acks)
            })
        })
        .collect();
    std::thread::sleep(time);
    over.store(true, Ordering::Relaxed);
    let mut all = Histogram::<u64>::new_with_bounds(1, 600_000_000, 3).expect("sane bounds");
    let mut total = 0;
    for sender in senders {
        let (tiles, acks) = sender.join().expect("a sender");
        total += tiles;
        all.add(acks).expect("same precision");
    }
    (total, began.elapsed(), all)
}

fn start(dir: &Path, args: &Args, server: Server) -> (Process, String) {
    match server {
        Server::Reference => {
            let mut command = Command::new(std::env::current_exe().expect("this program"));
            command.arg("sink").arg("--dir").arg(dir);
            if args.prewritten {
                command.arg("--prewritten");
            }
            Process::start(&mut command)
        }
        Server::Daemon => Process::daemon(dir, &args.set),
    }
}
