//! Follows a folder in which a microscope writes an acquisition, and sends it while it is written.
//!
//! ```text
//!  polls, hints --> table (every file, how far it is) --ready--> outbox --> couriers --> daemon
//!                     ^                                                        |
//!                     +-- outcomes -- recorder: record, sync, move or delete <-+ acknowledged
//! ```
//!
//! One thread follows the folder ([`watch_folder`]'s own), one a connection sends, one keeps the record. The poll is the
//! truth; what the operating system tells of changes only makes it look sooner. A tile is sent when its file is complete
//! (`settle`: renamed into place or at rest for a while, and a whole TIFF), again when it changed, and is done with when
//! its line in the record is synced (`record`). A restart sends what neither the record and the server's list together
//! nor the server's list and the file's content together show to be stored. Log and ROI files are sent when they have
//! settled, all other files at the end.
//!
//! Portable calls only. Must never send a tile before it is complete, nor move or delete what is not durable on the
//! server and recorded; beside the tiles nothing is deleted, and moved only at the end of a complete acquisition.

mod after;
mod ending;
mod follow;
mod hints;
mod inbox;
mod names;
mod record;
mod recorder;
mod session;
mod settle;
mod table;
mod tiles;

pub use after::After;
pub use record::RecordError;

use crate::base::stop::Stop;
use crate::client::{
    ChecksumChoice, DeliveryOptions, HttpClient, HttpClientError, Listener, Patient, Problem, SendError, SendReport,
    probe_capture_port,
};
use crate::model::AckLevel;
use follow::Follower;
use hints::Hints;
use inbox::Inbox;
use record::Record;
use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The record's name in the folder, where no other is given.
pub const RECORD_NAME: &str = ".tilecatcher-sent";
/// Held while a watch is at work on the folder.
const LOCK_NAME: &str = ".tilecatcher-lock";

/// How to follow a folder, and where to send it.
#[derive(Clone, Debug)]
pub struct WatchOptions {
    /// Where to, over how many connections, how long to try.
    pub delivery: DeliveryOptions,
    /// Checksum that goes with each tile.
    pub checksum: ChecksumChoice,
    /// A file that kept size and time of change for so long is read.
    pub settle: Duration,
    /// The folder is looked at so often, at least.
    pub poll: Duration,
    /// Do not ask the operating system for hints.
    pub poll_only: bool,
    /// A TIFF that is not whole is given up when it did not change for so long.
    pub give_up_on: Duration,
    /// What is given up is sent as it is.
    pub any_content: bool,
    /// Ends the watch when nothing changed for so long.
    pub idle: Option<Duration>,
    /// A file of this name in the folder ends the watch.
    pub stop_file: String,
    /// End the acquisition when the watch ends.
    pub end: bool,
    /// What happens to files that are stored.
    pub after: After,
    /// Move and delete whatever the server's ack level is.
    pub trust_ack: bool,
    /// The record; in the folder when absent.
    pub record: Option<PathBuf>,
}

/// Why a watch ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndedBy {
    /// The stop file.
    StopFile,
    /// Nothing changed for long.
    Idle,
    /// The acquisition was ended on the server.
    Server,
    /// It was asked to stop.
    Interrupted,
    /// The server stayed away for too long.
    ServerLost,
}

impl EndedBy {
    /// As in the summary.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::StopFile => "stop-file",
            Self::Idle => "idle",
            Self::Server => "server",
            Self::Interrupted => "interrupted",
            Self::ServerLost => "server-lost",
        }
    }
}

/// What a watch came to.
#[derive(Clone, Debug)]
pub struct WatchReport {
    /// What was sent. A tile that changed counts each time.
    pub sent: SendReport,
    /// Of the tiles that were there already, those that the record showed: they were not read again.
    pub recorded: u64,
    /// Files that were moved or deleted.
    pub removed: u64,
    /// Files that should have been moved or deleted, and were not.
    pub left: Vec<Problem>,
    /// The record could not be written to its end.
    pub record_failed: Option<Problem>,
    /// Tiles that waited when the watch was stopped.
    pub waiting: u64,
    /// Why the watch ended.
    pub ended_by: EndedBy,
}

impl WatchReport {
    /// Everything in the folder is stored, done with as was asked for, and the server misses nothing.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.sent.is_complete() && self.left.is_empty() && self.waiting == 0
    }
}

/// Why a folder can not be followed.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// The folder, a file in it, or the server.
    #[error(transparent)]
    Send(#[from] SendError),
    /// The record.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// There is nothing to follow.
    #[error("{path}: {problem}")]
    Path {
        /// Which.
        path: PathBuf,
        /// Why not.
        problem: String,
    },
    /// Files would be removed that the server may lose.
    #[error(
        "the server acknowledges tiles {0}: files are moved or deleted only after durable acknowledgements \
        (storage.ack=durable on the server, or --trust-ack here)"
    )]
    WeakAck(String),
    /// The watch ended before there was an acquisition.
    #[error("{dir}: no acquisition came ({}): {problem}; nothing was sent", .ended_by.name())]
    NoAcquisition {
        /// The folder.
        dir: PathBuf,
        /// Why it ended.
        ended_by: EndedBy,
        /// What was missing.
        problem: String,
    },
}

impl From<HttpClientError> for WatchError {
    fn from(error: HttpClientError) -> Self {
        Self::Send(error.into())
    }
}

/// Follows the folder until its end. `stop` ends it early: what is in flight is still answered and recorded.
///
/// # Errors
/// The folder is none, another watch holds it, the server can not be reached at the beginning, or no acquisition came.
/// What happens later is in the report.
pub fn watch_folder(
    dir: &Path,
    options: &WatchOptions,
    listener: &dyn Listener,
    stop: &Stop,
) -> Result<WatchReport, WatchError> {
    let dir = checked_folder(dir, options)?;
    let _lock = lock_folder(&dir)?;
    let record_path = options.record.clone().unwrap_or_else(|| dir.join(RECORD_NAME));
    let record = Record::open(&record_path, &options.delivery.link.http)?;
    tell_of_record(&record, &record_path, listener);
    let link = &options.delivery.link;
    let http = link.http_client();
    probe(&http, options)?;
    let patient = Patient { http: &http, retry_for: options.delivery.retry_for, listener, stop };
    let inbox = Inbox::default();
    let _hints = listen(&dir, options, &inbox, listener);
    let mut follower = Follower::new(&dir, &record_path, options, patient, inbox);
    let folder = follower.await_acquisition()?;
    session::run(follower, folder, record, record_path)
}

/// The folder, absolute, when it and the options fit each other.
fn checked_folder(dir: &Path, options: &WatchOptions) -> Result<PathBuf, WatchError> {
    let failed = |path: &Path, problem: String| WatchError::Path { path: path.to_owned(), problem };
    let absolute = |path: &Path| std::path::absolute(path).map_err(|error| failed(path, error.to_string()));
    let listed = std::fs::read_dir(dir).map_err(|error| failed(dir, error.to_string()));
    drop(listed?);
    let dir = absolute(dir)?;
    if let After::Move(target) = &options.after {
        let (target, own) = (absolute(target)?, resolved(&dir));
        if target.starts_with(&dir) || resolved(&target).starts_with(&own) {
            return Err(failed(&target, "files can not be moved into the folder that is watched".to_owned()));
        }
        if resolved(&target.join(dir.file_name().unwrap_or_default())) == own {
            let problem = "files would be moved to where they are: name a directory other than the folder's own";
            return Err(failed(&target, problem.to_owned()));
        }
    }
    Ok(dir)
}

/// A path without links, as far as it exists.
fn resolved(path: &Path) -> PathBuf {
    let existing = path.ancestors().find_map(|part| Some((part, part.canonicalize().ok()?)));
    let Some((part, found)) = existing else { return path.to_owned() };
    match path.strip_prefix(part) {
        Ok(rest) if rest.as_os_str().is_empty() => found,
        Ok(rest) => found.join(rest),
        Err(_) => path.to_owned(),
    }
}

/// Keeps other watches away, whatever record they use. A folder that can not be written to is protected by the record.
fn lock_folder(dir: &Path) -> Result<Option<File>, WatchError> {
    let path = dir.join(LOCK_NAME);
    let Ok(file) = OpenOptions::new().write(true).create(true).truncate(false).open(&path) else { return Ok(None) };
    record::lock(&file, &path)?;
    Ok(Some(file))
}

fn tell_of_record(record: &Record, path: &Path, listener: &dyn Listener) {
    if record.bad_lines > 0 {
        let what = "lines can not be read; their tiles are compared with the server's list";
        listener.note(&format!("{}: {} {what}", path.display(), record.bad_lines));
    }
    if record.unlocked {
        listener.note(&format!("{}: no locks on this file system: let no second watch run", path.display()));
    }
}

/// Finds out at once, and without patience, whether the ports are what they should be.
fn probe(http: &HttpClient, options: &WatchOptions) -> Result<(), WatchError> {
    let level = http.ack_level()?;
    probe_capture_port(&options.delivery.link)?;
    if options.after == After::Keep || options.trust_ack || level >= Some(AckLevel::Durable) {
        return Ok(());
    }
    let weak = |level| format!("at the level \"{level}\"");
    Err(WatchError::WeakAck(level.map_or("at a level that it does not tell".to_owned(), weak)))
}

/// Hints, where there are any.
fn listen(dir: &Path, options: &WatchOptions, inbox: &Inbox, listener: &dyn Listener) -> Option<Hints> {
    if options.poll_only {
        return None;
    }
    let hints = Hints::listen(dir, inbox);
    if let Err(error) = &hints {
        listener.note(&format!("{}: {error}; the folder is polled alone", dir.display()));
    }
    hints.ok()
}
