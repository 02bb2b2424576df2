//! Plays the service manager: holds both listeners, starts daemons on them, takes their notifications.

use super::support::{await_that, command, signal, wait};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;
use tempfile::TempDir;

/// Listeners come in as standard input and output, for those a child inherits without further ado; `exec` keeps the
/// process id that LISTEN_PID names.
const HAND_OVER: &str = r#"export LISTEN_PID=$$; exec "$@" 3<&0 4<&1 0</dev/null 1>/dev/null"#;
const SOCKET_NAME: &str = "notify";

pub struct Manager {
    capture: TcpListener,
    http: TcpListener,
    notifications: UnixDatagram,
    dir: TempDir,
    /// LISTEN_FDNAMES, for the order of the listeners: capture, HTTP.
    names: Option<&'static str>,
}

/// A daemon that the manager started; killed when dropped.
pub struct Service {
    process: Child,
    stderr: tempfile::NamedTempFile,
}

impl Manager {
    pub fn new(names: Option<&'static str>) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let notifications = UnixDatagram::bind(dir.path().join(SOCKET_NAME)).expect("a socket");
        notifications.set_read_timeout(Some(Duration::from_millis(100))).expect("a timeout");
        let listen = || TcpListener::bind("127.0.0.1:0").expect("a port");
        Self { capture: listen(), http: listen(), notifications, dir, names }
    }

    pub fn capture(&self) -> SocketAddr {
        self.capture.local_addr().expect("an address")
    }

    pub fn http(&self) -> SocketAddr {
        self.http.local_addr().expect("an address")
    }

    /// Starts a daemon on both listeners. It need not be ready, or even get its directory.
    pub fn start(&self, data: &Path, settings: &[&str], watchdog: Option<Duration>) -> Service {
        self.start_by(&[], data, settings, watchdog)
    }

    /// Starts a daemon under strace, which writes every call to `trace` and stays beside the daemon (`-D`).
    pub fn start_traced(&self, data: &Path, trace: &Path) -> Service {
        let trace = trace.to_str().expect("text");
        self.start_by(&["strace", "-D", "-f", "-q", "-s", "0", "-o", trace, "--"], data, &[], None)
    }

    fn start_by(&self, wrapper: &[&str], data: &Path, settings: &[&str], watchdog: Option<Duration>) -> Service {
        let stderr = tempfile::NamedTempFile::new().expect("a temporary file");
        let mut command = handed_over(wrapper, &command(data, settings));
        let listener = |listener: &TcpListener| Stdio::from(OwnedFd::from(listener.try_clone().expect("a clone")));
        command.stdin(listener(&self.capture)).stdout(listener(&self.http));
        command.stderr(stderr.reopen().expect("the same file"));
        command.env("LISTEN_FDS", "2").env("NOTIFY_SOCKET", self.dir.path().join(SOCKET_NAME));
        if let Some(names) = self.names {
            command.env("LISTEN_FDNAMES", names);
        }
        if let Some(watchdog) = watchdog {
            command.env("WATCHDOG_USEC", watchdog.as_micros().to_string());
        }
        Service { process: command.spawn().expect("the daemon starts"), stderr }
    }

    /// Waits for a notification; others before it are passed over.
    pub fn await_notification(&self, wanted: &str) {
        await_that(wanted, || self.notification().as_deref() == Some(wanted));
    }

    /// The next notification, if one comes soon.
    pub fn notification(&self) -> Option<String> {
        let mut text = [0; 256];
        let len = self.notifications.recv(&mut text).ok()?;
        Some(String::from_utf8_lossy(&text[..len]).trim_end().to_owned())
    }
}

fn handed_over(wrapper: &[&str], daemon: &Command) -> Command {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", HAND_OVER, "sh"]).args(wrapper).arg(daemon.get_program()).args(daemon.get_args());
    for (name, value) in daemon.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command
}

impl Service {
    pub fn signal(&self, name: &str) {
        signal(self.process.id(), name);
    }

    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    pub fn wait(&mut self) -> ExitStatus {
        wait(&mut self.process)
    }

    pub fn is_running(&mut self) -> bool {
        self.process.try_wait().expect("a child").is_none()
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.stderr.path()).expect("text")
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        eprint!("{}", self.log());
    }
}
