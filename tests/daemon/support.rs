//! Starts daemons, speaks their protocols by hand, reads their metrics. Ports from the OS, directories of its own.

use std::fmt::Display;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tilecatcher::client::{CaptureClient, ChecksumChoice, HttpClient, Tile, checksum_of};
use tilecatcher::model::{AcqId, Checksum, FrameNumber, TileKey};
use tilecatcher::wire::{FrameHead, FrameTail, RequestFields, Response, parse_response};

/// Bounds every wait for a daemon.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks at what is waited for: who looks without a rest takes the processor from what he waits for.
const REST: Duration = Duration::from_millis(2);
/// The acquisition that [`Daemon::start_acquisition`] starts: 4 cameras, 8 x 8 tiles.
pub const ACQ: AcqId = AcqId(123);

pub const LOG: &str = "[General]\nDate = \"03/04/2026     10:46:49 AM\"\nSample name = \"test\"\n\
    [Camera Connections]\nAcq1 = TRUE\nAcq2 = TRUE\nAcq3 = TRUE\nAcq4 = TRUE\n\
    [Mosaic Settings]\nNumber of X steps = 4\nNumber of Y steps = 4\n[TEM Settings]\nPixels per um = 250\n";

/// Small enough for many tests at once, large enough for their tiles.
const SMALL: [&str; 9] = [
    "log.level=error",
    "storage.segment_size=4MiB",
    "storage.control_segment_size=1MiB",
    "storage.reserve=1MiB",
    "memory.buffers=64MiB",
    "capture.frame_max=8MiB",
    "index.cache=16MiB",
    "scrub.rate=off",
    "quality.enabled=false",
];

/// A running daemon; killed when dropped. What it wrote to stderr is shown then; a panic in it fails the test.
pub struct Daemon {
    process: Child,
    stderr: tempfile::NamedTempFile,
    may_panic: bool,
    pub capture: SocketAddr,
    pub capture_tls: Option<SocketAddr>,
    pub http: HttpClient,
    pub http_address: SocketAddr,
}

/// A data directory for daemons.
pub fn data_dir() -> TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

/// The built binary, with no setting but those it is given: variables of whoever runs the tests are not for it.
pub fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tilecatcher"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("TILECATCHER_")) {
        command.env_remove(name);
    }
    command
}

pub fn command(data: &Path, settings: &[&str]) -> Command {
    let mut command = program();
    command.args(["serve", "--capture", "127.0.0.1:0", "--http", "127.0.0.1:0", "--data"]).arg(data);
    for setting in SMALL.iter().chain(settings) {
        command.args(["--set", setting]);
    }
    command
}

impl Daemon {
    /// Starts a daemon and its acquisition.
    pub fn start(data: &Path, settings: &[&str]) -> Self {
        let daemon = Self::start_bare(data, settings);
        daemon.start_acquisition();
        daemon
    }

    pub fn start_bare(data: &Path, settings: &[&str]) -> Self {
        Self::run(command(data, settings))
    }

    /// Runs a command that serves, and waits until it is ready.
    pub fn run(command: Command) -> Self {
        Self::try_run(command).unwrap_or_else(|(status, log)| panic!("not ready, {status}: {log}"))
    }

    /// Runs a command that serves; where it ends before it is ready, its status and what it wrote to stderr.
    pub fn try_run(mut command: Command) -> Result<Self, (ExitStatus, String)> {
        let stderr = tempfile::NamedTempFile::new().expect("a temporary file");
        command.stdout(Stdio::piped()).stderr(stderr.reopen().expect("the same file"));
        let mut process = command.spawn().expect("the daemon starts");
        let mut ready = String::new();
        BufReader::new(process.stdout.take().expect("a pipe")).read_line(&mut ready).expect("a line");
        if ready.is_empty() {
            let status = wait(&mut process);
            return Err((status, std::fs::read_to_string(stderr.path()).expect("text")));
        }
        let field = |name: &str| {
            let found = ready.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
            found.unwrap_or_else(|| panic!("no {name} in {ready:?}")).to_owned()
        };
        let http_address: SocketAddr = field("http").parse().expect("an address");
        Ok(Self {
            // Port 0: the plain port is off.
            capture: field("capture").parse().unwrap_or_else(|_| SocketAddr::from(([127, 0, 0, 1], 0))),
            capture_tls: ready.contains(" capture_tls=").then(|| field("capture_tls").parse().expect("an address")),
            http: HttpClient::new(&format!("http://{http_address}"), PATIENCE),
            http_address,
            process,
            stderr,
            may_panic: false,
        })
    }

    /// A panic in this one is what the test is about.
    pub fn may_panic(mut self) -> Self {
        self.may_panic = true;
        self
    }

    /// What the daemon has written to stderr.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.stderr.path()).expect("text")
    }

    pub fn start_acquisition(&self) {
        let uid = self.http.start_acquisition("123_8x8_logfile.ini", LOG.as_bytes()).expect("started");
        assert_eq!(uid, ACQ);
    }

    pub fn connect(&self) -> RawConnection {
        RawConnection::new(self.capture)
    }

    pub fn client(&self, window: usize) -> CaptureClient<u32> {
        CaptureClient::connect(self.capture, window, PATIENCE).expect("a connection")
    }

    /// The value of a metric, by its full line up to the value.
    pub fn metric(&self, name: &str) -> f64 {
        self.find_metric(name).unwrap_or_else(|page| panic!("no metric {name} in\n{page}"))
    }

    /// A metric's value, or the page that does not have it, or why there is none.
    fn find_metric(&self, name: &str) -> Result<f64, String> {
        let page = self.http.get_path("/metrics").map_err(|error| error.to_string())?.bytes;
        let page = String::from_utf8(page).expect("text");
        let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ').map(str::to_owned));
        line.map(|value| value.parse().expect("a number")).ok_or(page)
    }

    /// Waits until a metric has a value: for counts that are published behind an answer.
    pub fn await_metric(&self, name: &str, wanted: f64) {
        self.await_metric_that(name, |value| value == wanted);
    }

    /// What a tile held is given back a moment after its answer, so a figure is awaited, not read once; a line of a camera or
    /// an acquisition may not be there yet.
    pub fn await_metric_that(&self, name: &str, holds: impl Fn(f64) -> bool) {
        let until = Instant::now() + PATIENCE;
        while !self.find_metric(name).is_ok_and(&holds) {
            assert!(Instant::now() < until, "{name} stays at {}", self.metric(name));
            std::thread::sleep(REST);
        }
    }

    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// SIGTERM, by the process' id.
    pub fn terminate(&self) {
        signal(self.pid(), "-TERM");
    }

    pub fn wait(&mut self) -> ExitStatus {
        wait(&mut self.process)
    }

    pub fn stop(mut self) {
        self.terminate();
        assert!(self.wait().success(), "the daemon did not stop in order");
    }

    /// kill -9 and wait until it is gone.
    pub fn kill(mut self) {
        self.process.kill().expect("killed");
        self.process.wait().expect("gone");
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let log = self.log();
        eprint!("{log}");
        if !std::thread::panicking() && !self.may_panic {
            assert!(!log.contains("panicked at"), "the daemon panicked:\n{log}");
        }
    }
}

pub fn signal(pid: u32, signal: &str) {
    let sent = Command::new("kill").args([signal, &pid.to_string()]).status().expect("kill runs");
    assert!(sent.success());
}

pub fn wait(process: &mut Child) -> ExitStatus {
    await_ok(|| process.try_wait().expect("a child").ok_or("the process does not end"))
}

/// Looks again and again until there is what is looked for; an error says what there is instead.
#[track_caller]
pub fn await_ok<T, E: Display>(mut look: impl FnMut() -> Result<T, E>) -> T {
    let until = Instant::now() + PATIENCE;
    loop {
        match look() {
            Ok(found) => return found,
            Err(instead) => assert!(Instant::now() < until, "in vain: {instead}"),
        }
        std::thread::sleep(REST);
    }
}

/// Looks until what is found is as wanted.
#[track_caller]
pub fn await_found<T: Display>(mut look: impl FnMut() -> T, wanted: impl Fn(&T) -> bool) -> T {
    await_ok(|| {
        let found = look();
        if wanted(&found) { Ok(found) } else { Err(found) }
    })
}

/// Looks until it is so.
#[track_caller]
pub fn await_that(what: &str, mut holds: impl FnMut() -> bool) {
    await_ok(|| if holds() { Ok(()) } else { Err(what) });
}

/// Removes a directory into which a daemon may be writing.
pub fn remove_directory(path: &Path) {
    await_ok(|| match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    });
}

/// What strace wrote of a process, once that has ended: it writes on for a moment.
pub fn whole_trace(path: &Path, pid: u32) -> String {
    let is_end = |line: &str| line.split_whitespace().take(2).eq([pid.to_string().as_str(), "+++"]);
    await_ok(|| {
        let text = std::fs::read_to_string(path).expect("a trace");
        if text.lines().any(is_end) { Ok(text) } else { Err(format!("strace has not seen the end:\n{text}")) }
    })
}

/// A connection on which anything can be sent.
pub struct RawConnection {
    pub stream: TcpStream,
}

impl RawConnection {
    pub fn new(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("a connection");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream.set_nodelay(true).expect("no delay");
        Self { stream }
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("sent");
    }

    /// The next answer.
    pub fn answer(&mut self) -> Response {
        let mut prefix = [0; 4];
        self.stream.read_exact(&mut prefix).expect("an answer's prefix");
        let mut body = vec![0; u32::from_le_bytes(prefix) as usize];
        self.stream.read_exact(&mut body).expect("an answer's body");
        parse_response(&body).expect("an answer")
    }

    /// True when the daemon has closed its side without another byte.
    pub fn is_closed(&mut self) -> bool {
        matches!(self.stream.read(&mut [0; 1]), Ok(0) | Err(_))
    }

    /// Sends a good tile and expects it accepted: the connection still works.
    pub fn assert_works(&mut self, col: u32) {
        self.send(&frame(key(col, 7), b"still works"));
        let answer = self.answer();
        assert_eq!(answer.status, 0, "{answer:?}");
    }
}

pub fn key(col: u32, row: u32) -> TileKey {
    TileKey { acq: ACQ, col, row, frame: FrameNumber::STABLE }
}

pub fn crc(image: &[u8]) -> Checksum {
    checksum_of(ChecksumChoice::Crc32, image)
}

/// A whole message with a CRC-32.
pub fn frame(key: TileKey, image: &[u8]) -> Vec<u8> {
    frame_with(key, image, crc(image))
}

pub fn frame_with(key: TileKey, image: &[u8], checksum: Checksum) -> Vec<u8> {
    let head = FrameHead::new(&RequestFields { key, camera: 1, checksum }, image.len()).expect("fits");
    [head.bytes(), image, FrameTail::new(image.len()).bytes()].concat()
}

/// Places in a message made by [`frame`], behind its prefix: see schema/README.md and src/wire/encode.rs.
pub const FRAME_FIELD: usize = 4 + 40;
pub const COL_FIELD: usize = 4 + 44;
pub const ROW_FIELD: usize = 4 + 48;
pub const CHECKSUM_LENGTH: usize = 4 + 60;

pub fn patched(mut message: Vec<u8>, at: usize, value: i32) -> Vec<u8> {
    message[at..at + 4].copy_from_slice(&value.to_le_bytes());
    message
}

/// Bytes that differ by seed and do not repeat.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    std::iter::repeat_with(&mut next).flatten().take(len).collect()
}

pub fn tile(key: TileKey, image: &[u8]) -> Tile<'_> {
    Tile { key, camera: 1, checksum: crc(image), image }
}

/// Segment files, in order.
pub fn segments(data: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(data.join("journal")).expect("a journal");
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    paths
}
