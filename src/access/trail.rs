//! The audit log: a line of JSON for each command that changes something, each refusal, each capture connection.
//!
//! One thread writes; whoever has something to say puts it into a bounded queue and goes on. A full queue or a full disk
//! loses lines, which are counted and said in the log, never a request. Refusals, which strangers cause at will, are folded,
//! cut, and the first to go: they must push nothing else out. The file is opened anew when another one (or none) has
//! its name: whoever rotates logs renames it. Must never hold a token, nor what a query says.

use super::By;
use super::refusals::{Refusals, Told};
use crate::telemetry::Metrics;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TrySendError, bounded};
use serde_json::{Value, json};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

/// Lines that wait for the writer.
const QUEUE_LINES: usize = 8192;
/// Refusals are lost where more than this wait: the other half is for what changed something, and for connections.
const QUEUE_REFUSALS: usize = QUEUE_LINES / 2;
/// How much of a refused request's path and method is recorded, bytes.
const REFUSED_PATH_MAX: usize = 256;
const REFUSED_METHOD_MAX: usize = 16;
/// Time between looks at the file's name, and between complaints.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Longest wait for the writer at the end.
const CLOSE_MAX: Duration = Duration::from_secs(2);
/// Whoever the operator lets into the group may read.
const MODE: u32 = 0o640;
/// Why a capture connection is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotAdmitted {
    /// Its address is in no network.
    Address,
    /// It showed no certificate that counts, or did not come to that.
    Handshake,
}

impl NotAdmitted {
    fn name(self) -> &'static str {
        match self {
            Self::Address => "not_allowed",
            Self::Handshake => "handshake",
        }
    }
}

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
        /// The status of the answer; `None`: there was none, and what was asked for may have been done.
        status: Option<u16>,
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
    /// A capture connection that was not let in.
    NotAdmitted {
        /// Who tried.
        peer: SocketAddr,
        /// Why not.
        why: NotAdmitted,
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
    Line(Box<Told>),
    Reopen,
    Close,
}

pub(super) struct Trail {
    queue: Sender<Message>,
    refusals: Arc<Refusals>,
    /// Closed by the writer when it ends.
    written: Receiver<()>,
    metrics: Arc<Metrics>,
}

struct Writer {
    path: PathBuf,
    file: Option<File>,
    refusals: Arc<Refusals>,
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
        let (metrics, refusals) = (Arc::clone(metrics), Arc::<Refusals>::default());
        let writer = Writer {
            path: path.clone(),
            file: Some(file),
            refusals: Arc::clone(&refusals),
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
        Ok(Self { queue, refusals, written, metrics })
    }

    pub(super) fn put(&self, event: Event) {
        if !event.is_refusal() {
            return self.enqueue(Told { time: SystemTime::now(), event, more: 0 });
        }
        if let Some(told) = self.refusals.take(event.cut(), Instant::now()) {
            if self.queue.len() < QUEUE_REFUSALS {
                self.enqueue(told);
            } else {
                self.metrics.audit_lines_lost.inc_by(1 + told.more);
            }
        }
    }

    fn enqueue(&self, told: Told) {
        if let Err(TrySendError::Full(_)) = self.queue.try_send(Message::Line(Box::new(told))) {
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
                Ok(Message::Line(told)) => self.write(&told),
                Ok(Message::Reopen) => self.file = None,
                Ok(Message::Close) | Err(RecvTimeoutError::Disconnected) => return self.end(),
                Err(RecvTimeoutError::Timeout) => {}
            }
            if self.looked.elapsed() >= LOOK_EVERY {
                self.looked = Instant::now();
                self.look();
                self.refusals.due(self.looked).iter().for_each(|told| self.write(told));
            }
        }
    }

    fn end(&mut self) {
        self.refusals.rest(Instant::now()).iter().for_each(|told| self.write(told));
        self.tell_lost();
    }

    fn write(&mut self, told: &Told) {
        let mut line = line(told).to_string();
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

impl Event {
    /// True for what strangers can cause at any rate.
    pub(super) fn is_refusal(&self) -> bool {
        matches!(self, Self::NotAdmitted { .. } | Self::Request { refused: Some(_), .. })
    }

    /// Who caused it, why it was refused if it was, on what it rests.
    pub(super) fn cause(&self) -> (SocketAddr, &'static str, String) {
        match self {
            Self::Request { peer, by, refused, .. } => (*peer, refused.unwrap_or_default(), by.to_string()),
            Self::Connected { peer, by } | Self::Disconnected { peer, by, .. } => (*peer, "", by.to_string()),
            Self::NotAdmitted { peer, why } => (*peer, why.name(), By::Nobody.to_string()),
        }
    }

    /// Without the rest of a text that is long.
    fn cut(mut self) -> Self {
        if let Self::Request { path, method, .. } = &mut self {
            for (text, bytes_max) in [(path, REFUSED_PATH_MAX), (method, REFUSED_METHOD_MAX)] {
                if text.len() > bytes_max {
                    text.truncate(text.floor_char_boundary(bytes_max));
                    text.push_str("...");
                    text.shrink_to_fit();
                }
            }
        }
        self
    }
}

/// Opens the file for lines. What is left of one that was cut off, by a full disk or a kill, must not take the next one with it.
fn append_to(path: &Path) -> io::Result<File> {
    let mut file = OpenOptions::new().append(true).read(true).create(true).mode(MODE).open(path)?;
    let about = file.metadata()?;
    let mut last = [b'\n'];
    if about.is_file() && about.len() > 0 {
        file.read_exact_at(&mut last, about.len() - 1)?;
    }
    if last != [b'\n'] {
        file.write_all(b"\n")?;
    }
    Ok(file)
}

fn line(Told { time, event, more }: &Told) -> Value {
    let time = jiff::Timestamp::try_from(*time).unwrap_or_default();
    let mut line = match event {
        Event::Request { peer, by, method, path, acquisition, status, refused, bytes, detail } => json!({
            "event": if refused.is_some() { "refused" } else { "command" }, "port": "http", "peer": peer.to_string(),
            "by": by.to_string(), "method": method, "path": path, "acquisition": acquisition,
            "outcome": status.map_or("unanswered".into(), Value::from), "reason": refused, "bytes": bytes, "detail": detail,
        }),
        Event::Connected { peer, by } => {
            json!({ "event": "connected", "port": "capture", "peer": peer.to_string(), "by": by.to_string() })
        }
        Event::Disconnected { peer, by, why, tiles, refused, bytes } => json!({
            "event": "disconnected", "port": "capture", "peer": peer.to_string(), "by": by.to_string(),
            "outcome": why, "tiles": tiles, "refused": refused, "bytes": bytes,
        }),
        Event::NotAdmitted { peer, why } => json!({
            "event": "refused", "port": "capture", "peer": peer.to_string(), "by": "nobody", "reason": why.name(),
        }),
    };
    if event.is_refusal() {
        line["more"] = (*more).into();
    }
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
            status: Some(status),
            refused: None,
            bytes: None,
            detail: None,
        }
    }

    fn told(status: u16) -> Told {
        Told { time: SystemTime::now(), event: event(status), more: 0 }
    }

    fn refused(path: &str) -> Event {
        let Event::Request { peer, by, method, acquisition, status, bytes, detail, .. } = event(401) else {
            unreachable!("it is a request")
        };
        Event::Request {
            peer,
            by,
            method,
            path: path.to_owned(),
            acquisition,
            status,
            refused: Some("no_token"),
            bytes,
            detail,
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
    fn a_line_that_was_cut_off_takes_no_other_with_it() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("audit.jsonl");
        std::fs::write(&path, b"{\"event\":\"com").expect("written");
        for status in [200, 201] {
            let trail = Trail::open(path.clone(), &Arc::new(Metrics::new())).expect("opened");
            trail.put(event(status));
            trail.close();
        }
        let text = std::fs::read_to_string(&path).expect("a file");
        let whole = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let outcomes: Vec<Value> = whole.map(|line| line["outcome"].clone()).collect();
        assert_eq!(outcomes, [200, 201], "{text}");
    }

    #[test]
    fn a_renamed_file_keeps_its_lines_and_a_new_one_takes_the_next() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (path, old) = (dir.path().join("audit"), dir.path().join("audit.1"));
        let metrics = Arc::new(Metrics::new());
        let mut writer = Writer {
            path: path.clone(),
            file: Some(append_to(&path).expect("opened")),
            refusals: Arc::default(),
            metrics,
            looked: Instant::now(),
            told_lost: 0,
            problem: None,
        };
        writer.write(&told(1));
        std::fs::rename(&path, &old).expect("renamed");
        writer.write(&told(2));
        writer.look();
        writer.write(&told(3));
        assert_eq!((statuses(&old), statuses(&path)), (vec![1, 2], vec![3]));
    }

    #[test]
    fn a_full_queue_loses_lines_and_counts_them_and_nobody_waits() {
        let metrics = Arc::new(Metrics::new());
        let (queue, _nobody_reads) = bounded(3);
        let trail = Trail { queue, refusals: Arc::default(), written: bounded(0).1, metrics: Arc::clone(&metrics) };
        (0..5).for_each(|_| trail.put(event(200)));
        assert_eq!(metrics.audit_lines_lost.get(), 2);
    }

    #[test]
    fn refusals_leave_half_of_the_queue_to_what_changed_something() {
        let metrics = Arc::new(Metrics::new());
        let (queue, _nobody_reads) = bounded(QUEUE_LINES);
        let trail = Trail { queue, refusals: Arc::default(), written: bounded(0).1, metrics: Arc::clone(&metrics) };
        (0..QUEUE_REFUSALS).for_each(|_| trail.put(event(200)));
        trail.put(refused("/x"));
        assert_eq!((trail.queue.len(), metrics.audit_lines_lost.get()), (QUEUE_REFUSALS, 1));
        trail.put(event(200));
        assert_eq!((trail.queue.len(), metrics.audit_lines_lost.get()), (QUEUE_REFUSALS + 1, 1));
    }

    #[test]
    fn a_flood_of_refusals_is_a_few_short_lines_and_their_number() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("audit.jsonl");
        let metrics = Arc::new(Metrics::new());
        let trail = Trail::open(path.clone(), &metrics).expect("opened");
        let long = format!("/{}", "\u{e9}".repeat(2000));
        (0..10_000).for_each(|_| trail.put(refused(&long)));
        trail.put(event(200));
        trail.close();
        let text = std::fs::read_to_string(&path).expect("a file");
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        let told = lines.iter().filter(|line| line["event"] == "refused");
        let (count, more) =
            told.fold((0, 0), |(n, more), line| (n + 1, more + line["more"].as_u64().expect("a number")));
        assert!((6..10).contains(&count), "{count}");
        assert_eq!(count + more, 10_000, "each is told or counted");
        assert!(text.len() < 6000 && lines[0]["path"].as_str().is_some_and(|path| path.ends_with("...")), "{text}");
        assert_eq!(lines.iter().filter(|line| line["outcome"] == 200).count(), 1);
        assert_eq!(metrics.audit_lines_lost.get(), 0);
    }
}
