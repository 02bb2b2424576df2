//! Servers as child processes: started as an ordinary user, ended by their ids, never left behind.

use anyhow::{Context, bail};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const START_TIME: Duration = Duration::from_secs(30);
const STOP_TIME: Duration = Duration::from_secs(30);
const LOG: &str = "server.log";

/// Who servers run as when this program runs as root; PostgreSQL insists, the others had better.
pub struct User {
    pub name: &'static str,
    pub uid: u32,
    pub gid: u32,
}

impl User {
    /// None when we are an ordinary user ourselves.
    pub fn of_servers() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            return None;
        }
        let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
        let line = passwd.lines().find_map(|line| line.strip_prefix("nobody:"));
        let mut ids = line.unwrap_or_default().split(':').skip(1).filter_map(|id| id.parse().ok());
        Some(Self { name: "nobody", uid: ids.next().unwrap_or(65534), gid: ids.next().unwrap_or(65534) })
    }

    pub fn can_write(&self, dir: &Path) -> bool {
        command("test").arg("-w").arg(dir).status().is_ok_and(|status| status.success())
    }
}

/// A command that runs as [`User::of_servers`] and is told to end when this program dies.
pub fn command(program: impl AsRef<Path>) -> Command {
    let mut command = Command::new("setpriv");
    if let Some(user) = User::of_servers() {
        command.arg(format!("--reuid={}", user.uid)).arg(format!("--regid={}", user.gid)).arg("--clear-groups");
    }
    command.args(["--pdeathsig", "TERM", "--"]).arg(program.as_ref()).stdin(Stdio::null());
    command
}

/// The first line that a program prints when asked for its version.
///
/// # Errors
/// It is not installed.
pub fn version_of(program: impl AsRef<Path>, flag: &str, remedy: &str) -> anyhow::Result<String> {
    let program = program.as_ref();
    let output = Command::new(program).arg(flag).output();
    let output = output.with_context(|| format!("{}: can not be run; {remedy}", program.display()))?;
    // nginx says it to stderr.
    let said = if output.stdout.is_empty() { output.stderr } else { output.stdout };
    let said = String::from_utf8_lossy(&said);
    let word = said
        .split(|c: char| c.is_whitespace() || "/=v".contains(c))
        .find(|word| word.starts_with(|c: char| c.is_ascii_digit()) && word.contains('.'));
    word.map(str::to_owned).with_context(|| format!("{}: does not tell its version", program.display()))
}

/// A port that was free just now.
pub fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

/// A running server; ended when dropped.
pub struct Server {
    child: Child,
    log: PathBuf,
    end_signal: &'static str,
}

impl Server {
    /// Starts a server that says nothing when it is ready, and waits until it listens.
    pub fn start(command: &mut Command, dir: &Path, address: SocketAddr) -> anyhow::Result<Self> {
        let log = dir.join(LOG);
        let child = command.stdout(File::create(&log)?).stderr(File::options().append(true).open(&log)?).spawn()?;
        let mut server = Self { child, log, end_signal: "TERM" };
        server.retry(|| Ok(TcpStream::connect(address)?))?;
        Ok(server)
    }

    /// Starts a server that prints a line when it is ready.
    pub fn start_with_line(command: &mut Command, dir: &Path) -> anyhow::Result<(Self, String)> {
        let log = dir.join(LOG);
        let mut child = command.stdout(Stdio::piped()).stderr(File::create(&log)?).spawn()?;
        let stdout = child.stdout.take().context("a pipe")?;
        let server = Self { child, log, end_signal: "TERM" };
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        if line.is_empty() {
            bail!("it did not start: {}", server.last_words());
        }
        Ok((server, line))
    }

    /// Ends it with another signal than TERM.
    pub fn ended_by(mut self, signal: &'static str) -> Self {
        self.end_signal = signal;
        self
    }

    /// Tries until it works, the server ends, or its time to start is over.
    pub fn retry<T>(&mut self, mut attempt: impl FnMut() -> anyhow::Result<T>) -> anyhow::Result<T> {
        let until = Instant::now() + START_TIME;
        loop {
            match attempt() {
                Ok(value) => return Ok(value),
                Err(error) if Instant::now() > until => return Err(error.context(self.last_words())),
                Err(_) if self.child.try_wait()?.is_some() => bail!("it did not start: {}", self.last_words()),
                Err(_) => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Tells it to end and waits.
    ///
    /// # Errors
    /// It had ended before, or had to be killed.
    pub fn end(mut self) -> anyhow::Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("the server ended by itself ({status}): {}", self.last_words());
        }
        if !self.ended() {
            bail!("the server did not end within {} s and was killed", STOP_TIME.as_secs());
        }
        Ok(())
    }

    fn last_words(&self) -> String {
        let log = std::fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().filter(|line| !line.trim().is_empty()).collect();
        lines[lines.len().saturating_sub(3)..].join(" / ")
    }

    /// False when it had to be killed.
    fn ended(&mut self) -> bool {
        let _ = Command::new("kill").arg(format!("-{}", self.end_signal)).arg(self.id().to_string()).status();
        let until = Instant::now() + STOP_TIME;
        while Instant::now() < until {
            match self.child.try_wait() {
                Ok(None) => std::thread::sleep(Duration::from_millis(10)),
                _ => return true,
            }
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        false
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.ended();
        }
    }
}
