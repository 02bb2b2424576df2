//! The terminal view, in a pseudo-terminal: `script` of util-linux gives one.

use super::support::{Daemon, PATIENCE, data_dir, program};
use super::web::ask;
use std::io::Write;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// `top` in a terminal of its own; what it paints goes to a file.
struct View {
    process: Child,
    painted: tempfile::NamedTempFile,
}

impl View {
    fn open(daemon: &Daemon) -> Self {
        let painted = tempfile::NamedTempFile::new().expect("a file");
        let (top, url) = (env!("CARGO_BIN_EXE_tilecatcher"), format!("http://{}", daemon.http_address));
        let inside = format!("stty rows 40 cols 120; exec {top} top --http {url}");
        let process = Command::new("script")
            .args(["--quiet", "--flush", "--return", "--command", &inside])
            .arg(painted.path())
            .env("TERM", "xterm-256color")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("script of util-linux is installed");
        Self { process, painted }
    }

    /// What was painted so far, without the codes that say where, and without blanks: those that were there are not painted.
    fn text(&self) -> String {
        let painted = String::from_utf8_lossy(&std::fs::read(self.painted.path()).expect("read")).into_owned();
        let mut pieces = painted.split("\x1b[");
        let first = pieces.next().unwrap_or_default().to_owned();
        let rest =
            pieces.map(|piece| piece.trim_start_matches(|c: char| !c.is_ascii_alphabetic()).get(1..).unwrap_or(""));
        (first + &rest.collect::<String>()).split_whitespace().collect()
    }

    fn await_text(&self, wanted: &str) {
        let until = Instant::now() + PATIENCE;
        let wanted: String = wanted.split_whitespace().collect();
        while !self.text().contains(&wanted) {
            assert!(Instant::now() < until, "{wanted} is not in\n{}", self.text());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn press(&mut self, key: &str) {
        let input = self.process.stdin.as_mut().expect("a pipe");
        input.write_all(key.as_bytes()).and_then(|()| input.flush()).expect("written");
    }
}

impl Drop for View {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn the_view_follows_a_daemon_says_when_it_is_away_and_leaves_at_a_key() {
    let data = data_dir();
    let daemon = Daemon::start(data.path(), &[]);
    let mut view = View::open(&daemon);
    view.await_text("mosaic of 123");
    view.await_text("RUNNING");
    view.press("h");
    view.await_text("the acquisition above");
    view.press("h");
    ask(&daemon, "POST", "/api/v1/admin/capture/pause", "", b"").with(200);
    view.await_text("PAUSED");
    daemon.kill();
    view.await_text("NOT REACHABLE");
    view.press("q");
    let status = super::support::wait(&mut view.process);
    assert_eq!(status.code(), Some(0), "{}", view.text());
    // The other screen is left, the cursor is back.
    let painted = std::fs::read(view.painted.path()).expect("read");
    let painted = String::from_utf8_lossy(&painted);
    assert!(painted.contains("\x1b[?1049h") && painted.contains("\x1b[?1049l") && painted.contains("\x1b[?25h"));
}

#[test]
fn without_a_terminal_the_remedy_is_named() {
    let run = program().arg("top").stdin(Stdio::null()).output().expect("runs");
    let complaint = String::from_utf8_lossy(&run.stderr);
    assert!(run.status.code() == Some(2) && complaint.contains("tilecatcher status"), "{complaint}");
}
