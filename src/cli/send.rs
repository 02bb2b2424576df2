//! `send`: an acquisition folder to a daemon, resumable.

use super::replies::{megabytes, quantile, rate, tile_bar};
use super::tls_args::TlsArgs;
use super::{BAD_INPUT, COULD_NOT_RUN, FOUND_A_PROBLEM, Failure, OrExit, Outcome};
use crate::base::stop::Stop;
use crate::base::units::Span;
use crate::client::{
    ChecksumChoice, Compare, DeliveryOptions, LinkOptions, Listener, Problem, SendError, SendReport,
    ServerCompleteness, Via,
};
use crate::send::{Order, Part, Rate, Selection, SendOptions, send_folder};
use clap::{Args, ValueEnum};
use indicatif::ProgressBar;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// How long a daemon may be away while a folder is sent.
const RETRY_FOR: Duration = Duration::from_secs(600);
/// Missing places that are printed.
const MISSING_SHOWN: usize = 10;

/// Where a daemon is and how to speak to it: what all that send have in common.
#[derive(Args, Clone)]
pub(super) struct LinkArgs {
    /// Capture port of the daemon
    #[arg(long, default_value = "127.0.0.1:5002", value_name = "IP:PORT")]
    capture: SocketAddr,
    /// HTTP port of the daemon
    #[arg(long, default_value = "http://127.0.0.1:5001", value_name = "URL")]
    http: String,
    /// How tiles travel: tcp (capture port), put or post (HTTP port)
    #[arg(long, default_value = "tcp")]
    via: Via,
    /// Number of connections
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=1024))]
    connections: u16,
    /// Tiles in flight on each connection; over HTTP one
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=1024))]
    window: u16,
    /// Longest wait for an answer of the daemon
    #[arg(long, default_value = "60s", value_name = "TIME")]
    timeout: Span,
    /// How long to try again while the daemon is away or takes nothing; 10min for send, 24h for watch
    #[arg(long, value_name = "TIME")]
    retry_for: Option<Span>,
    #[command(flatten)]
    tls: TlsArgs,
}

impl LinkArgs {
    /// `retry_for`: where none is given.
    pub(super) fn delivery(&self, retry_for: Duration) -> Result<DeliveryOptions, Failure> {
        let link = LinkOptions {
            capture: self.capture,
            http: self.http.clone(),
            via: self.via,
            connections: self.connections.into(),
            window: self.window.into(),
            timeout: self.timeout.0.max(Duration::from_millis(1)),
            tls: self.tls.load(&self.http)?,
        };
        Ok(DeliveryOptions { link, retry_for: self.retry_for.map_or(retry_for, |span| span.0) })
    }
}

/// A part of an acquisition.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Only {
    Log,
    Rois,
    Tiles,
    /// The tiles that --col, --row and --camera name
    Tile,
    Files,
    End,
}

#[derive(Args)]
pub(super) struct SendArgs {
    /// Acquisition folder: a *_logfile.ini and tiles in col0000/, col0001/, ...
    dir: PathBuf,
    #[command(flatten)]
    link: LinkArgs,
    /// Checksum of each tile: none, crc32, md5, sha1 or sha256
    #[arg(long, default_value = "md5")]
    checksum: ChecksumChoice,
    /// Send only this part; may be repeated
    #[arg(long, value_enum)]
    only: Vec<Only>,
    /// Only tiles of this column
    #[arg(long)]
    col: Option<u32>,
    /// Only tiles of this row
    #[arg(long)]
    row: Option<u32>,
    /// Only tiles of this camera
    #[arg(long)]
    camera: Option<i32>,
    /// Order of the tiles: daq (DAQ timing table, where there is one) or folder (column, row, camera)
    #[arg(long, default_value = "daq")]
    order: Order,
    /// At most so fast: 57 or 57/s (tiles), 300MB/s, or 150ms (each camera's step)
    #[arg(long)]
    rate: Option<Rate>,
    /// Import calibrations from this JSON file
    #[arg(long, value_name = "FILE")]
    calibrations: Option<PathBuf>,
    /// A tile that the daemon has is recognised by its checksum, size (faster), or nothing (sent again)
    #[arg(long, default_value = "checksum")]
    compare: Compare,
    /// Send tiles that are no whole TIFF, too
    #[arg(long)]
    any_content: bool,
    /// Print the summary as JSON
    #[arg(long)]
    json: bool,
}

impl SendArgs {
    fn options(&self) -> Result<SendOptions, Failure> {
        let part = |only: &Only| match only {
            Only::Log => Part::Log,
            Only::Rois => Part::Rois,
            Only::Tiles | Only::Tile => Part::Tiles,
            Only::Files => Part::Files,
            Only::End => Part::End,
        };
        let selection = Selection { col: self.col, row: self.row, camera: self.camera };
        if self.only.contains(&Only::Tile) && (self.col.is_none() || self.row.is_none()) {
            let error = anyhow::anyhow!("--only tile: say which with --col and --row (and --camera)");
            return Err(Failure { code: BAD_INPUT, error });
        }
        Ok(SendOptions {
            delivery: self.link.delivery(RETRY_FOR)?,
            checksum: self.checksum,
            only: self.only.iter().map(part).collect(),
            selection,
            order: self.order,
            rate: self.rate,
            calibrations: self.calibrations.clone(),
            compare: self.compare,
            any_content: self.any_content,
        })
    }
}

/// Sends with a progress bar.
pub(super) fn send_with_bar(dir: &std::path::Path, options: &SendOptions, stop: &Stop) -> Result<SendReport, Failure> {
    let bar = Bar::new("send");
    let sent = send_folder(dir, options, &bar, stop);
    bar.bar.finish_and_clear();
    sent.map_err(failure)
}

/// The exit code of what went wrong.
pub(super) fn failure(error: SendError) -> Failure {
    Failure { code: if error.is_input() { BAD_INPUT } else { COULD_NOT_RUN }, error: error.into() }
}

pub(super) fn send(args: &SendArgs) -> Outcome {
    let options = args.options()?;
    let stop = Stop::default();
    super::signals::watch_signals(&stop).or_exit(COULD_NOT_RUN)?;
    let report = send_with_bar(&args.dir, &options, &stop)?;
    tell_leftovers(&report);
    if args.json {
        println!("{}", json_summary(&report));
    } else {
        println!("{}", summary(&report));
    }
    if let Some(problem) = &report.gave_up {
        return Err(Failure { code: COULD_NOT_RUN, error: anyhow::anyhow!("{problem}") });
    }
    Ok(if report.is_complete() { ExitCode::SUCCESS } else { ExitCode::from(FOUND_A_PROBLEM) })
}

/// What was no tile, and what the server misses.
pub(super) fn tell_leftovers(report: &SendReport) {
    for path in &report.skipped {
        eprintln!("skipped {}: no tile by its name", path.display());
    }
    if let Some(after) = report.after.as_ref().filter(|after| after.missing > 0) {
        eprintln!("the server misses {}", missing(after));
    }
}

/// A progress bar that lines can be printed above.
pub(super) struct Bar {
    pub(super) bar: ProgressBar,
}

impl Bar {
    pub(super) fn new(what: &'static str) -> Self {
        Self { bar: tile_bar(what, 0) }
    }
}

impl Listener for Bar {
    fn progress(&self, done: u64, total: u64, bytes: u64) {
        self.bar.set_length(total);
        self.bar.set_position(done);
        let speed = rate(megabytes(bytes), self.bar.elapsed());
        self.bar.set_message(format!("{:.0} MB, {speed:.0} MB/s", megabytes(bytes)));
    }

    fn note(&self, line: &str) {
        self.bar.suspend(|| eprintln!("{line}"));
    }
}

fn missing(after: &ServerCompleteness) -> String {
    let shown = after.missing_tiles.iter().take(MISSING_SHOWN);
    let places: Vec<String> = shown.map(|place| format!("{}/{}", place.col, place.row)).collect();
    let more = if after.missing > places.len() as u64 { ", ..." } else { "" };
    format!("{} of {} tiles (column/row {}{more})", after.missing, after.expected, places.join(", "))
}

/// One line for people.
pub(super) fn summary(report: &SendReport) -> String {
    let SendReport { already_stored, unreadable, resent, .. } = report;
    let mut extra = String::new();
    for (count, what) in
        [(*already_stored, "were there"), (unreadable.len() as u64, "unreadable"), (*resent, "sent again")]
    {
        if count > 0 {
            extra += &format!(", {count} {what}");
        }
    }
    let complete = match &report.after {
        Some(after) if after.missing == 0 => "; the server has all of it",
        Some(_) => "; INCOMPLETE on the server",
        None => "",
    };
    format!(
        "acquisition {}: {} tiles acknowledged, {} refused{extra}; {:.1} MB in {:.2} s = {:.0} MB/s; ack p50 {:.1} ms, p99 {:.1} ms{complete}",
        report.acq,
        report.acknowledged,
        report.refused.len(),
        megabytes(report.bytes),
        report.took.as_secs_f64(),
        rate(megabytes(report.bytes), report.took),
        ms(report, 0.5),
        ms(report, 0.99),
    )
}

fn ms(report: &SendReport, part: f64) -> f64 {
    quantile(&report.ack_times, part).as_secs_f64() * 1e3
}

/// Problems as JSON.
pub(super) fn problems(list: &[Problem]) -> Vec<Value> {
    list.iter().map(|problem| json!({ "path": problem.path, "problem": problem.what })).collect()
}

/// The report as JSON.
pub(super) fn json_summary(report: &SendReport) -> Value {
    let completeness = |of: &Option<ServerCompleteness>| {
        of.as_ref().map(|of| json!({ "expected": of.expected, "received": of.received, "missing": of.missing }))
    };
    json!({
        "acquisition": report.acq,
        "complete": report.is_complete(),
        "tiles": report.tiles,
        "acknowledged": report.acknowledged,
        "already_stored": report.already_stored,
        "refused": problems(&report.refused),
        "unreadable": problems(&report.unreadable),
        "refused_files": problems(&report.refused_files),
        "files": report.files,
        "skipped": report.skipped,
        "reconnects": report.reconnects,
        "resent": report.resent,
        "bytes": report.bytes,
        "seconds": report.took.as_secs_f64(),
        "ack_p50_ms": ms(report, 0.5),
        "ack_p99_ms": ms(report, 0.99),
        "ended": report.ended,
        "stopped": report.stopped,
        "gave_up": report.gave_up,
        "before": completeness(&report.before),
        "after": completeness(&report.after),
    })
}
