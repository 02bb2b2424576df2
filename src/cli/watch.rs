//! `watch`: a folder to a daemon, while a microscope writes it.

use super::replies::megabytes;
use super::send::{Bar, LinkArgs, failure, json_summary, problems, summary, tell_leftovers};
use super::{BAD_INPUT, COULD_NOT_RUN, FOUND_A_PROBLEM, Failure, OrExit, Outcome};
use crate::base::stop::Stop;
use crate::base::units::Span;
use crate::client::{ChecksumChoice, Listener};
use crate::watch::{After, EndedBy, WatchError, WatchOptions, WatchReport, watch_folder};
use clap::Args;
use serde_json::{Value, json};
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long a daemon may be away: the disk is the buffer.
const RETRY_FOR: Duration = Duration::from_secs(24 * 3600);
/// Where there is no bar, a line so often while tiles are sent.
const LINE_EVERY: Duration = Duration::from_secs(10);
/// The shortest poll: anything below it is a busy loop.
const POLL_MIN: Duration = Duration::from_millis(10);

#[derive(Args)]
pub(super) struct WatchArgs {
    /// Folder in which the acquisition is written: it may be empty yet
    dir: PathBuf,
    #[command(flatten)]
    link: LinkArgs,
    /// Checksum of each tile: none, crc32, md5, sha1 or sha256
    #[arg(long, default_value = "md5")]
    checksum: ChecksumChoice,
    /// A file is read when it kept size and time of change for so long, or was renamed into place
    #[arg(long, default_value = "2s", value_name = "TIME")]
    settle: Span,
    /// Look at the folder so often, whatever the operating system tells of changes
    #[arg(long, default_value = "5s", value_name = "TIME")]
    poll: Span,
    /// Do not ask the operating system for changes
    #[arg(long)]
    poll_only: bool,
    /// A tile that is no whole TIFF is reported when it did not change for so long
    #[arg(long, default_value = "10min", value_name = "TIME")]
    give_up_on: Span,
    /// Send such a tile as it is
    #[arg(long)]
    any_content: bool,
    /// End when nothing changed for so long; without it, only the stop file, the daemon or Ctrl-C ends the watch
    #[arg(long, value_name = "TIME")]
    idle: Option<Span>,
    /// End when a file of this name is in the folder
    #[arg(long, default_value = "STOP", value_name = "NAME")]
    stop_file: String,
    /// Do not end the acquisition at the end
    #[arg(long)]
    no_end: bool,
    /// What happens to tiles that are stored durably: keep, move:DIR or delete
    #[arg(long, default_value = "keep", value_name = "WHAT")]
    after: After,
    /// Move or delete, whatever the daemon's ack level is
    #[arg(long)]
    trust_ack: bool,
    /// Record of what was sent [default: .tilecatcher-sent in the folder]
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
    /// Print the summary as JSON
    #[arg(long)]
    json: bool,
}

impl WatchArgs {
    fn options(&self) -> Result<WatchOptions, Failure> {
        Ok(WatchOptions {
            delivery: self.link.delivery(RETRY_FOR)?,
            checksum: self.checksum,
            settle: self.settle.0,
            poll: self.poll.0.max(POLL_MIN),
            poll_only: self.poll_only,
            give_up_on: self.give_up_on.0,
            any_content: self.any_content,
            idle: self.idle.map(|idle| idle.0),
            stop_file: self.stop_file.clone(),
            end: !self.no_end,
            after: self.after.clone(),
            trust_ack: self.trust_ack,
            record: self.record.clone(),
        })
    }
}

pub(super) fn watch(args: &WatchArgs) -> Outcome {
    let options = args.options()?;
    let stop = Stop::default();
    super::signals::watch_signals(&stop).or_exit(COULD_NOT_RUN)?;
    let progress = Progress::new();
    let watched = watch_folder(&args.dir, &options, &progress, &stop);
    progress.bar.bar.finish_and_clear();
    let report = watched.map_err(exit)?;
    tell_leftovers(&report.sent);
    if args.json {
        println!("{}", json(&report));
    } else {
        println!("{}", line(&report));
    }
    if let Some(problem) = &report.sent.gave_up {
        return Err(Failure { code: COULD_NOT_RUN, error: anyhow::anyhow!("{problem}") });
    }
    Ok(if report.is_complete() { ExitCode::SUCCESS } else { ExitCode::from(FOUND_A_PROBLEM) })
}

fn exit(error: WatchError) -> Failure {
    let code = match error {
        WatchError::Send(error) => return failure(error),
        WatchError::NoAcquisition { ended_by: EndedBy::Interrupted, .. } => FOUND_A_PROBLEM,
        WatchError::Record(_) | WatchError::Path { .. } | WatchError::WeakAck(_) | WatchError::NoAcquisition { .. } => {
            BAD_INPUT
        }
    };
    Failure { code, error: error.into() }
}

fn line(report: &WatchReport) -> String {
    let mut line = summary(&report.sent);
    for (count, what) in [
        (report.recorded, "known from the record"),
        (report.removed, "files moved or deleted"),
        (report.left.len() as u64, "files left that should have gone"),
        (report.waiting, "still waiting"),
    ] {
        if count > 0 {
            line += &format!("; {count} {what}");
        }
    }
    format!("{line}; ended by {}", report.ended_by.name())
}

fn json(report: &WatchReport) -> Value {
    let mut summary = json_summary(&report.sent);
    summary["complete"] = report.is_complete().into();
    summary["recorded"] = report.recorded.into();
    summary["removed"] = report.removed.into();
    summary["left"] = problems(&report.left).into();
    summary["waiting"] = report.waiting.into();
    summary["ended_by"] = report.ended_by.name().into();
    summary["record_problem"] = json!(report.record_failed.as_ref().map(|problem| &problem.what));
    summary
}

/// A bar on a terminal; a line once in a while elsewhere.
struct Progress {
    bar: Bar,
    /// When a line was last printed; absent on a terminal.
    told: Option<Mutex<Instant>>,
}

impl Progress {
    fn new() -> Self {
        let is_terminal = std::io::stderr().is_terminal();
        Self { bar: Bar::new("watch"), told: (!is_terminal).then(|| Mutex::new(Instant::now())) }
    }
}

impl Listener for Progress {
    fn progress(&self, done: u64, total: u64, bytes: u64) {
        self.bar.progress(done, total, bytes);
        let Some(told) = &self.told else { return };
        let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.elapsed() >= LINE_EVERY {
            *told = Instant::now();
            eprintln!("{done} of {total} tiles done, {:.0} MB", megabytes(bytes));
        }
    }

    fn note(&self, line: &str) {
        self.bar.note(line);
    }
}
