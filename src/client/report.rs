//! What the sending of a folder came to.

use super::companions::OtherFiles;
use super::service::ServerCompleteness;
use crate::model::AcqId;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A file that was not stored, or only seems to be what it should.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file.
    pub path: PathBuf,
    /// What is wrong, and what to do.
    pub what: String,
}

impl Problem {
    /// What is wrong with a file.
    pub fn new(path: &Path, what: impl ToString) -> Self {
        Self { path: path.to_owned(), what: what.to_string() }
    }
}

/// What was sent.
#[derive(Clone, Debug)]
pub struct SendReport {
    /// The acquisition.
    pub acq: AcqId,
    /// Tiles that were to be sent.
    pub tiles: u64,
    /// Tiles that were there already, with the same content.
    pub already_stored: u64,
    /// Tiles that the server acknowledged in this run.
    pub acknowledged: u64,
    /// Bytes of their images.
    pub bytes: u64,
    /// Times that a connection broke.
    pub reconnects: u64,
    /// Tiles that were sent again because of that, or because the server had no room.
    pub resent: u64,
    /// Tiles that the server refused.
    pub refused: Vec<Problem>,
    /// Tiles and files that could not be read, or are no whole TIFF.
    pub unreadable: Vec<Problem>,
    /// Files that the server refused.
    pub refused_files: Vec<Problem>,
    /// Files that were stored.
    pub files: u64,
    /// Files in tile directories that are no tiles by their name.
    pub skipped: Vec<PathBuf>,
    /// Time from the first tile to the last answer.
    pub took: Duration,
    /// Time from sending to acknowledgement, each tile, ascending.
    pub ack_times: Vec<Duration>,
    /// The acquisition was ended.
    pub ended: bool,
    /// The run was stopped before its end.
    pub stopped: bool,
    /// Why the run was given up before its end.
    pub gave_up: Option<String>,
    /// What the server had before the tiles were sent.
    pub before: Option<ServerCompleteness>,
    /// What it has at the end; only asked when everything was to be sent.
    pub after: Option<ServerCompleteness>,
}

impl SendReport {
    /// Nothing has been sent yet.
    #[must_use]
    pub fn new(acq: AcqId) -> Self {
        Self {
            acq,
            tiles: 0,
            already_stored: 0,
            acknowledged: 0,
            bytes: 0,
            reconnects: 0,
            resent: 0,
            refused: Vec::new(),
            unreadable: Vec::new(),
            refused_files: Vec::new(),
            files: 0,
            skipped: Vec::new(),
            took: Duration::ZERO,
            ack_times: Vec::new(),
            ended: false,
            stopped: false,
            gave_up: None,
            before: None,
            after: None,
        }
    }

    /// Adds what became of the other files.
    pub fn add_files(&mut self, others: OtherFiles) {
        self.files += others.stored;
        self.refused_files.extend(others.refused);
        self.unreadable.extend(others.unreadable);
    }

    /// All that was to be sent is stored, and the server misses nothing.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        let all_stored = self.already_stored + self.acknowledged == self.tiles;
        let no_problem = self.refused.is_empty() && self.unreadable.is_empty() && self.refused_files.is_empty();
        let to_the_end = !self.stopped && self.gave_up.is_none();
        let server_agrees = self.after.as_ref().is_none_or(|after| after.missing == 0);
        all_stored && no_problem && to_the_end && server_agrees
    }
}
