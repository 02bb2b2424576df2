//! The audit log: a line of JSON for each command that changes something, each refusal, each capture connection.
//!
//! One thread writes; whoever has something to say puts it into a bounded queue and goes on. A full queue or a full disk
//! loses lines, which are counted and said in the log, never a request. The file is opened anew when another one (or none) has
//! its name: whoever rotates logs renames it. Must never hold a token, nor what a query says.

use super::By;
use crate::telemetry::Metrics;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TrySendError, bounded};
use serde_json::{Value, json};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

/// Lines that wait for the writer.
const QUEUE_LINES: usize = 8192;
/// Time between looks at the file's name, and between complaints.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Longest wait for the writer at the end.
const CLOSE_MAX: Duration = Duration::from_secs(2);
/// Whoever the operator lets into the group may read.
const MODE: u32 = 0o640;

/// What is recorded.
#[derive(Clone, Debug)]
pub enum Event {
    /// A request that changes something, or that was refused.
    Request {
        /// Who asked.
        peer: SocketAddr,
        /// On what it rests.
        by: By,
        /// GET, PUT ...
        method: String,
        /// Without the query.
        path: String,
        /// The acquisition that it is about, if it says so.
        acquisition: Option<u64>,
        /// The status of the answer.
        status: u16,
        /// Why it was refused, when access was.
        refused: Option<&'static str>,
        /// Bytes of its body, as announced.
        bytes: Option<u64>,
        /// What an operator's command changed.
        detail: Option<Box<str>>,
    },
    /// A capture connection.
    Connected {
        /// Who connected.
        peer: SocketAddr,
        /// On what it rests.
        by: By,
    },
    /// The end of a capture connection.
    Disconnected {
        /// Who had connected.
        peer: SocketAddr,
        /// On what it rested.
        by: By,
        /// Why it ended, as the metric names it.
        why: &'static str,
        /// Tiles acknowledged on it.
        tiles: u64,
        /// Requests refused on it.
        refused: u64,
        /// Bytes read from it.
        bytes: u64,
    },
    /// A capture connection that was closed at once.
    NotAdmitted {
        /// Who tried.
        peer: SocketAddr,
    },
}

/// The audit log can not be opened.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {source}; its directory must be there and writable", path = .path.display())]
pub struct TrailError {
    path: PathBuf,
    source: io::Error,
}

enum Message {
    Line(SystemTime, Event),
    Reopen,
    Close,
}

pub(super) struct Trail {
    queue: Sender<Message>,
    /// Closed by the writer when it ends.
    written: Receiver<()>,
    metrics: Arc<Metrics>,
}

struct Writer {
    path: PathBuf,
    file: Option<File>,
    metrics: Arc<Metrics>,
    looked: Instant,
    /// Lines known to be lost when that was last said, once a second at most.
    told_lost: u64,
    /// Why lines were lost since then, if it was not for a full queue.
    problem: Option<io::Error>,
}

impl Trail {
    /// Opens the file and starts the writer.
    ///
    /// # Errors
    /// The file can not be opened for appending, the thread not started.
    pub(super) fn open(path: PathBuf, metrics: &Arc<Metrics>) -> Result<Self, TrailError> {
        let error = |source| TrailError { path: path.clone(), source };
        let file = append_to(&path).map_err(error)?;
        let (queue, lines) = bounded(QUEUE_LINES);
        let metrics = Arc::clone(metrics);
        let writer = Writer {
            path: path.clone(),
            file: Some(file),
            metrics: Arc::clone(&metrics),
            looked: Instant::now(),
            told_lost: 0,
            problem: None,
        };
        let (until_the_end, written) = bounded(0);
        let run = move || {
            writer.run(&lines);
            drop(until_the_end);
        };
        std::thread::Builder::new().name("audit".into()).spawn(run).map_err(error)?;
        Ok(Self { queue, written, metrics })
    }

    pub(super) fn put(&self, event: Event) {
        if let Err(TrySendError::Full(_)) = self.queue.try_send(Message::Line(SystemTime::now(), event)) {
            self.metrics.audit_lines_lost.inc();
        }
    }

    pub(super) fn reopen(&self) {
        let _ = self.queue.try_send(Message::Reopen);
    }

    /// Writes what waits. A disk that hangs does not keep the daemon from ending.
    pub(super) fn close(&self) {
        if self.queue.send_timeout(Message::Close, CLOSE_MAX).is_ok() {
            let _ = self.written.recv_timeout(CLOSE_MAX);
        }
    }
}

impl Writer {
    fn run(mut self, lines: &Receiver<Message>) {
        loop {
            match lines.recv_timeout(LOOK_EVERY) {
                Ok(Message::Line(time, event)) => self.write(time, &event),
                Ok(Message::Reopen) => self.file = None,
                Ok(Message::Close) | Err(RecvTimeoutError::Disconnected) => return self.tell_lost(),
                Err(RecvTimeoutError::Timeout) => {}
            }
            if self.looked.elapsed() >= LOOK_EVERY {
                self.looked = Instant::now();
                self.look();
            }
        }
    }

    fn write(&mut self, time: SystemTime, event: &Event) {
        let mut line = line(time, event).to_string();
        line.push('\n');
        if let Err(error) = self.file().and_then(|file| file.write_all(line.as_bytes())) {
            self.metrics.audit_lines_lost.inc();
            (self.file, self.problem) = (None, Some(error));
        }
    }

    /// The open file, opened again if it was given up.
    fn file(&mut self) -> io::Result<&mut File> {
        let file = match self.file.take() {
            Some(file) => file,
            None => append_to(&self.path)?,
        };
        Ok(self.file.insert(file))
    }

    /// Another file has our name, or none: go on in a new one. And a word about lines that were lost.
    fn look(&mut self) {
        let id = |about: std::fs::Metadata| (about.dev(), about.ino());
        let named = std::fs::metadata(&self.path).ok().map(id);
        let open = self.file.as_ref().and_then(|file| file.metadata().ok()).map(id);
        if open.is_none() || named != open {
            self.file = append_to(&self.path).ok();
        }
        self.tell_lost();
    }

    fn tell_lost(&mut self) {
        let lost = self.metrics.audit_lines_lost.get();
        if lost > self.told_lost {
            let problem = self.problem.take().map_or("the queue was full".to_owned(), |error| error.to_string());
            let (path, lines) = (self.path.display(), lost - self.told_lost);
            tracing::error!(%path, lines, problem, "lines of the audit log were lost");
            self.told_lost = lost;
        }
    }
}

fn append_to(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(MODE).open(path)
}

fn line(time: SystemTime, event: &Event) -> Value {
    let time = jiff::Timestamp::try_from(time).unwrap_or_default();
    let mut line = match event {
        Event::Request { peer, by, method, path, acquisition, status, refused, bytes, detail } => json!({
            "event": if refused.is_some() { "refused" } else { "command" }, "port": "http", "peer": peer.to_string(),
            "by": by.to_string(), "method": method, "path": path, "acquisition": acquisition,
            "outcome": status, "reason": refused, "bytes": bytes, "detail": detail,
        }),
        Event::Connected { peer, by } => {
            json!({ "event": "connected", "port": "capture", "peer": peer.to_string(), "by": by.to_string() })
        }
        Event::Disconnected { peer, by, why, tiles, refused, bytes } => json!({
            "event": "disconnected", "port": "capture", "peer": peer.to_string(), "by": by.to_string(),
            "outcome": why, "tiles": tiles, "refused": refused, "bytes": bytes,
        }),
        Event::NotAdmitted { peer } => json!({
            "event": "refused", "port": "capture", "peer": peer.to_string(), "by": "nobody", "reason": "not_allowed",
        }),
    };
    line["time"] = format!("{time:.3}").into();
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(status: u16) -> Event {
        let (method, path) = ("PUT".to_owned(), "/x\n\"".to_owned());
        let peer = "192.0.2.1:4".parse().expect("an address");
        Event::Request {
            peer,
            by: By::Nobody,
            method,
            path,
            acquisition: Some(7),
            status,
            refused: None,
            bytes: None,
            detail: None,
        }
    }

    fn statuses(path: &Path) -> Vec<u64> {
        let text = std::fs::read_to_string(path).expect("a file");
        let status = |line: &str| serde_json::from_str::<Value>(line).expect("JSON")["outcome"].as_u64();
        text.lines().map(|line| status(line).expect("a status")).collect()
    }

    #[test]
    fn each_event_is_one_line_of_json_appended_to_what_is_there() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("audit.jsonl");
        let metrics = Arc::new(Metrics::new());
        for status in [200, 201] {
            let trail = Trail::open(path.clone(), &metrics).expect("opened");
            trail.put(event(status));
            trail.close();
        }
        assert_eq!(statuses(&path), [200, 201]);
        let first: Value =
            serde_json::from_str(std::fs::read_to_string(&path).expect("text").lines().next().expect("a line"))
                .expect("JSON");
        assert_eq!(
            (&first["path"], &first["acquisition"], &first["by"]),
            (&"/x\n\"".into(), &7.into(), &"nobody".into())
        );
        assert!(first["time"].as_str().is_some_and(|time| time.ends_with('Z') && time.len() == 24), "{first}");
        assert_eq!(metrics.audit_lines_lost.get(), 0);
    }

    #[test]
    fn a_renamed_file_keeps_its_lines_and_a_new_one_takes_the_next() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (path, old) = (dir.path().join("audit"), dir.path().join("audit.1"));
        let metrics = Arc::new(Metrics::new());
        let mut writer = Writer {
            path: path.clone(),
            file: Some(append_to(&path).expect("opened")),
            metrics,
            looked: Instant::now(),
            told_lost: 0,
            problem: None,
        };
        writer.write(SystemTime::now(), &event(1));
        std::fs::rename(&path, &old).expect("renamed");
        writer.write(SystemTime::now(), &event(2));
        writer.look();
        writer.write(SystemTime::now(), &event(3));
        assert_eq!((statuses(&old), statuses(&path)), (vec![1, 2], vec![3]));
    }

    #[test]
    fn a_full_queue_loses_lines_and_counts_them_and_nobody_waits() {
        let metrics = Arc::new(Metrics::new());
        let (queue, _nobody_reads) = bounded(3);
        let trail = Trail { queue, written: bounded(0).1, metrics: Arc::clone(&metrics) };
        (0..5).for_each(|_| trail.put(event(200)));
        assert_eq!(metrics.audit_lines_lost.get(), 2);
    }
}
