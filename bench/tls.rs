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
mod closed_loop;
mod harness;

use certificates::Certificates;
use clap::Parser;
use closed_loop::{Figures, TIMEOUT, Way, drive};
use harness::{LOG, Process, field, image_of, median};
use std::path::PathBuf;
use std::time::Duration;
use tilecatcher::client::HttpClient;
use tilecatcher::tls::ClientTls;

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
    let plain = Way::to(&ready, "capture");
    let encrypted = Way { tls: Some(tls), ..Way::to(&ready, "capture_tls") };
    let image = image_of(bytes);
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
