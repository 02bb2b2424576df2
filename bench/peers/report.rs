//! What was measured: medians, comparisons within a level, as Markdown and JSON.

use crate::contender::{Contender, Level};
use crate::harness::median;
use crate::load::Driven;
use crate::usage::Usage;
use serde::Serialize;
use std::time::Duration;

/// One run of one server.
#[derive(Serialize)]
pub struct Run {
    pub mb_per_s: f64,
    /// With the time that the sync behind the last acknowledgement took.
    pub mb_per_s_to_disk: f64,
    pub ack_p50_ms: f64,
    pub ack_p99_ms: f64,
    /// Of the server, up to the last acknowledgement.
    pub cpu_s_per_gb: f64,
    /// By the server's processes, what it held in its memory included.
    pub written_per_received: f64,
    /// By everybody on this disk, metadata included.
    pub device_written_per_received: Option<f64>,
    pub tiles: u64,
}

impl Run {
    pub fn new(
        driven: &Driven,
        tile_bytes: usize,
        before: &Usage,
        acknowledged: &Usage,
        flushed: &Usage,
        flush: Duration,
    ) -> Self {
        let bytes = driven.tiles as f64 * tile_bytes as f64;
        let ms = |quantile| driven.acks.value_at_quantile(quantile) as f64 / 1e3;
        let device = flushed.device_bytes.zip(before.device_bytes).map(|(after, before)| (after - before) / bytes);
        Self {
            mb_per_s: bytes / 1e6 / driven.took.as_secs_f64(),
            mb_per_s_to_disk: bytes / 1e6 / (driven.took + flush).as_secs_f64(),
            ack_p50_ms: ms(0.5),
            ack_p99_ms: ms(0.99),
            cpu_s_per_gb: (acknowledged.cpu_seconds - before.cpu_seconds) / (bytes / 1e9),
            written_per_received: (flushed.written_bytes - before.written_bytes) / bytes,
            device_written_per_received: device,
            tiles: driven.tiles,
        }
    }
}

/// All runs of a server at one size.
#[derive(Serialize)]
pub struct Row {
    pub tile: &'static str,
    pub server: &'static str,
    pub version: String,
    #[serde(serialize_with = "level_name")]
    pub level: Level,
    pub durability: &'static str,
    pub settings: String,
    pub runs: Vec<Run>,
}

impl Row {
    pub fn median(&self, figure: fn(&Run) -> f64) -> f64 {
        median(self.runs.iter().map(figure).collect())
    }
}

/// Tilecatcher against one server: medians of the ratios of runs of the same round.
#[derive(Serialize)]
pub struct Comparison {
    pub tile: &'static str,
    pub peer: &'static str,
    #[serde(serialize_with = "level_name")]
    pub level: Level,
    pub throughput_ratio: f64,
    pub cpu_ratio: f64,
}

/// Where it was measured.
#[derive(Serialize)]
pub struct Machine {
    cpus: usize,
    cpu: String,
    kernel: String,
}

impl Machine {
    pub fn look() -> Self {
        let read = |path| std::fs::read_to_string(path).unwrap_or_default();
        let cpuinfo = read("/proc/cpuinfo");
        let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        Self {
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            cpu: model.map_or("unknown", |(_, model)| model).to_owned(),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
        }
    }
}

/// A server that was not measured, or not to the end.
#[derive(Serialize)]
pub struct Missing {
    server: &'static str,
    #[serde(serialize_with = "level_name")]
    level: Level,
    why: String,
}

/// Everything.
#[derive(Serialize)]
pub struct Report {
    machine: Machine,
    seconds: u64,
    rounds: u32,
    pub rows: Vec<Row>,
    pub skipped: Vec<Missing>,
    pub failures: Vec<Missing>,
}

impl Report {
    pub fn new(machine: Machine, seconds: u64, rounds: u32) -> Self {
        Self { machine, seconds, rounds, rows: Vec::new(), skipped: Vec::new(), failures: Vec::new() }
    }

    pub fn skip(&mut self, contender: &dyn Contender, why: &anyhow::Error) {
        let missing = Missing { server: contender.name(), level: contender.level(), why: format!("{why:#}") };
        eprintln!("{}, {}: skipped: {}", missing.server, missing.level.name(), missing.why);
        self.skipped.push(missing);
    }

    /// It is not tried again.
    pub fn fail(&mut self, contender: &dyn Contender, size: &str, why: &anyhow::Error) {
        let why = format!("tiles of {size}: {why:#}");
        let missing = Missing { server: contender.name(), level: contender.level(), why };
        eprintln!("{}, {}: failed: {}", missing.server, missing.level.name(), missing.why);
        self.failures.push(missing);
    }

    pub fn has_failed(&self, contender: &dyn Contender) -> bool {
        self.failures.iter().any(|failed| failed.server == contender.name() && failed.level == contender.level())
    }

    pub fn add(&mut self, contender: &dyn Contender, version: &str, tile: &'static str, run: Run) {
        let (server, level) = (contender.name(), contender.level());
        eprintln!("{tile} {server}, {}: {:.0} MB/s, {:.2} CPU-s/GB", level.name(), run.mb_per_s, run.cpu_s_per_gb);
        let row = self.rows.iter_mut().find(|row| (row.tile, row.server, row.level) == (tile, server, level));
        match row {
            Some(row) => row.runs.push(run),
            None => self.rows.push(Row {
                tile,
                server,
                version: version.to_owned(),
                level,
                durability: contender.durability(),
                settings: contender.settings(),
                runs: vec![run],
            }),
        }
    }

    /// Sizes that were measured, in order.
    pub fn tiles(&self) -> Vec<&'static str> {
        let mut tiles: Vec<_> = self.rows.iter().map(|row| row.tile).collect();
        tiles.dedup();
        tiles
    }

    /// Rows of a size: by level, tilecatcher first, then the fastest.
    pub fn rows_of(&self, tile: &str) -> Vec<&Row> {
        let mut rows: Vec<_> = self.rows.iter().filter(|row| row.tile == tile).collect();
        let speed = |row: &Row| row.median(|run| run.mb_per_s);
        rows.sort_by(|a, b| speed(b).total_cmp(&speed(a)));
        rows.sort_by_key(|row| (row.level == Level::Unsynced, row.server != "tilecatcher"));
        rows
    }

    pub fn comparisons(&self) -> Vec<Comparison> {
        let mut comparisons = Vec::new();
        for tile in self.tiles() {
            let rows = self.rows_of(tile);
            for peer in rows.iter().filter(|row| row.server != "tilecatcher") {
                let ours = rows.iter().find(|row| row.server == "tilecatcher" && row.level == peer.level);
                comparisons.extend(ours.map(|ours| compare(ours, peer)));
            }
        }
        comparisons
    }

    pub fn json(&self) -> serde_json::Result<String> {
        let mut json = serde_json::to_value(self)?;
        json["comparisons"] = serde_json::to_value(self.comparisons())?;
        Ok(format!("{json:#}\n"))
    }

    pub fn print(&self) {
        let Machine { cpus, cpu, kernel } = &self.machine;
        println!("{cpus} CPUs ({cpu}), Linux {kernel}; medians of {} runs of {} s.\n", self.rounds, self.seconds);
        self.print_rows();
        self.print_comparisons();
        for (word, missing) in [("skipped", &self.skipped), ("failed", &self.failures)] {
            missing.iter().for_each(|one| println!("\n{word}: {}, {}: {}", one.server, one.level.name(), one.why));
        }
    }

    fn print_rows(&self) {
        println!(
            "| tile | server | acknowledged when | MB/s | MB/s to disk | ack p50 ms | ack p99 ms | server CPU-s/GB \
             | written / received |\n|---|---|---|---|---|---|---|---|---|"
        );
        for row in self.tiles().into_iter().flat_map(|tile| self.rows_of(tile)) {
            println!(
                "| {} | {} {} | {} | {:.0} | {:.0} | {:.1} | {:.1} | {:.2} | {:.2} |",
                row.tile,
                row.server,
                row.version,
                row.durability,
                row.median(|run| run.mb_per_s),
                row.median(|run| run.mb_per_s_to_disk),
                row.median(|run| run.ack_p50_ms),
                row.median(|run| run.ack_p99_ms),
                row.median(|run| run.cpu_s_per_gb),
                row.median(|run| run.written_per_received),
            );
        }
    }

    fn print_comparisons(&self) {
        let comparisons = self.comparisons();
        println!("\n| tile | level | tilecatcher / | MB/s | CPU-s/GB | ahead in |\n|---|---|---|---|---|---|");
        for Comparison { tile, peer, level, throughput_ratio, cpu_ratio } in &comparisons {
            let ahead = match (*throughput_ratio > 1.0, *cpu_ratio < 1.0) {
                (true, true) => "both",
                (true, false) => "MB/s",
                (false, true) => "CPU",
                (false, false) => "neither",
            };
            println!("| {tile} | {} | {peer} | {throughput_ratio:.2} | {cpu_ratio:.2} | {ahead} |", level.name());
        }
        let behind = |what: &str, is_behind: fn(&Comparison) -> bool| {
            let named = comparisons.iter().filter(|one| is_behind(one));
            let named: Vec<_> = named.map(|one| format!("{} {} ({})", one.tile, one.peer, one.level.name())).collect();
            let named = if named.is_empty() { "nowhere".to_owned() } else { named.join(", ") };
            println!("\ntilecatcher is not ahead in {what}: {named}");
        };
        behind("MB/s", |one| one.throughput_ratio <= 1.0);
        behind("CPU-s/GB", |one| one.cpu_ratio >= 1.0);
    }
}

fn compare(ours: &Row, peer: &Row) -> Comparison {
    let ratio = |figure: fn(&Run) -> f64| {
        median(ours.runs.iter().zip(&peer.runs).map(|(ours, peer)| figure(ours) / figure(peer)).collect())
    };
    Comparison {
        tile: peer.tile,
        peer: peer.server,
        level: peer.level,
        throughput_ratio: ratio(|run| run.mb_per_s),
        cpu_ratio: ratio(|run| run.cpu_s_per_gb),
    }
}

fn level_name<S: serde::Serializer>(level: &Level, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(level.name())
}
