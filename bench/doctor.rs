//! Is the doctor right? Its forecast of each profile's capacity, against a replay of that profile as fast as it goes.
//!
//!     cargo bench --bench doctor                       all profiles, 3 runs each: 4 minutes, 20 GB of disk at a time
//!     cargo bench --bench doctor -- --profile temca2
//!
//! Forecast and replay take turns, each run with a new daemon and an empty directory; figures are medians. The senders run
//! on the same machine, in both.

#![allow(missing_docs, clippy::print_stdout)] // A program, not a library.

mod harness;

use clap::Parser;
use harness::{Process, field, median};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use tilecatcher::base::stop::Stop;
use tilecatcher::replay::{Mode, Plan, Profile, profile_names, run};

/// What the forecast may differ from the replay.
const AIM: f64 = 0.25;

#[derive(Parser)]
struct Args {
    /// Only this profile
    #[arg(long)]
    profile: Option<String>,
    /// Alternating runs
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// Seconds of each replay
    #[arg(long, default_value_t = 6)]
    seconds: u64,
    /// Directory for data; emptied between runs
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Passed by `cargo bench`
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Default)]
struct Figures {
    forecasts: Vec<f64>,
    replays: Vec<f64>,
}

fn main() {
    let args = Args::parse();
    let _ = args.bench;
    let dir = args.dir.clone().unwrap_or_else(|| std::env::temp_dir().join("tilecatcher-bench-doctor"));
    let names = match &args.profile {
        Some(name) => vec![name.clone()],
        None => profile_names().into_iter().map(str::to_owned).collect(),
    };
    let mut figures: BTreeMap<String, Figures> = BTreeMap::new();
    for _ in 0..args.runs {
        empty(&dir);
        for (name, capacity) in forecasts(&dir) {
            figures.entry(name).or_default().forecasts.push(capacity);
        }
        for name in &names {
            empty(&dir);
            let reached = replay(&dir, name, Duration::from_secs(args.seconds));
            figures.entry(name.clone()).or_default().replays.push(reached);
        }
    }
    println!(
        "| profile | forecast MB/s | replay MB/s | forecast / replay (aim {:.2} to {:.2}) |",
        1.0 - AIM,
        1.0 + AIM
    );
    println!("|---|---|---|---|");
    let mut within = true;
    for name in &names {
        let Figures { forecasts, replays } = &figures[name];
        let (forecast, reached) = (median(forecasts.clone()), median(replays.clone()));
        let ratio = forecast / reached;
        within &= (ratio - 1.0).abs() <= AIM;
        println!("| {name} | {forecast:.0} | {reached:.0} | {ratio:.2} |");
    }
    println!("\nAll within {:.0} %: {}", AIM * 100.0, if within { "yes" } else { "no" });
    let _ = std::fs::remove_dir_all(&dir);
}

fn empty(dir: &Path) {
    let _ = std::fs::remove_dir_all(dir);
    std::fs::create_dir_all(dir).expect("a directory for the benchmark");
    rustix::fs::sync();
    std::thread::sleep(Duration::from_millis(500));
}

/// What the command says of each profile, MB/s.
fn forecasts(dir: &Path) -> Vec<(String, f64)> {
    let doctor = Command::new(env!("CARGO_BIN_EXE_tilecatcher"))
        .args(["doctor", "--senders-here", "--json", "--dir"])
        .arg(dir)
        .output()
        .expect("the doctor runs");
    let said: Value = serde_json::from_slice(&doctor.stdout).expect("JSON");
    let of = |forecast: &Value| {
        let name = forecast["profile"].as_str().expect("a name").to_owned();
        (name, forecast["capacity_mb_per_s"].as_f64().expect("a number"))
    };
    said["forecasts"].as_array().expect("forecasts").iter().map(of).collect()
}

/// The profile with every sender as fast as it can, MB/s.
fn replay(dir: &Path, name: &str, duration: Duration) -> f64 {
    let (_daemon, ready) = Process::daemon(dir, &[]);
    let mut profile = Profile::load(name).expect("a profile");
    profile.mode = Mode::Closed;
    let http = format!("http://{}", field(&ready, "http"));
    let plan = Plan::new(field(&ready, "capture").parse().expect("an address"), &http, profile, duration);
    let report = run(&plan, &Stop::default(), &mut |_| {}).expect("a replay");
    assert!(report.problems.is_empty(), "{:?}", report.problems);
    report.mb_per_s
}
