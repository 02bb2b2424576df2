//! What the benchmarks share: servers as processes, and what Linux says of them.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use tilecatcher::client::HttpClient;

/// The log of the benchmark's acquisition: a grid that nothing falls out of.
#[allow(dead_code)] // Not every benchmark starts an acquisition.
pub const LOG: &str = "[General]\nDate = \"01/01/2026 01:00:00 AM\"\n[Camera Connections]\nAcq1 = TRUE\n\
    [Mosaic Settings]\nNumber of X steps = 100000\nNumber of Y steps = 10000000\n[TEM Settings]\nPixels per um = 250\n";

/// A server; killed when dropped.
pub struct Process(Child);

impl Process {
    /// Starts a server and waits for its ready line.
    pub fn start(command: &mut Command) -> (Self, String) {
        let mut process = Self(command.stdout(Stdio::piped()).spawn().expect("a server"));
        let mut ready = String::new();
        let stdout = process.0.stdout.take().expect("a pipe");
        BufReader::new(stdout).read_line(&mut ready).expect("a ready line");
        (process, ready)
    }

    /// Starts a daemon on free ports.
    #[allow(dead_code)] // Not every benchmark runs the program that it was built with.
    pub fn daemon(data: &Path, settings: &[String]) -> (Self, String) {
        Self::start(&mut daemon_command(data, settings))
    }

    /// The process' id.
    #[allow(dead_code)] // Not every benchmark asks.
    pub fn id(&self) -> u32 {
        self.0.id()
    }

    /// User and system time so far. Linux.
    #[allow(dead_code)] // Not every benchmark asks.
    pub fn cpu_seconds(&self) -> f64 {
        cpu_seconds(&std::fs::read_to_string(format!("/proc/{}/stat", self.0.id())).expect("a process"))
    }

    /// User and system time of the HTTP threads so far. Linux.
    #[allow(dead_code)] // Not every benchmark asks.
    pub fn http_cpu_seconds(&self) -> f64 {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.0.id())).expect("a process");
        let seconds = |path: PathBuf| {
            let stat = std::fs::read_to_string(path.join("stat")).unwrap_or_default();
            let is_http = stat.split(['(', ')']).nth(1).is_some_and(|name| name.starts_with("http"));
            if is_http { cpu_seconds(&stat) } else { 0.0 }
        };
        tasks.flatten().map(|task| seconds(task.path())).sum()
    }

    /// Highest resident set so far, MB. Linux.
    #[allow(dead_code)] // Not every benchmark asks.
    pub fn peak_megabytes(&self) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.id())).expect("a process");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
        line.split_whitespace().next().and_then(|text| text.parse::<f64>().ok()).unwrap_or(0.0) / 1e3
    }

    /// SIGTERM, and waits for the end.
    #[allow(dead_code)] // Not every benchmark stops its servers in order.
    pub fn stop(mut self) {
        let pid = self.0.id().to_string();
        Command::new("kill").args(["-TERM", &pid]).status().expect("kill runs");
        assert!(self.0.wait().expect("a child").success(), "the daemon did not stop in order");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What starts a daemon on free ports.
#[allow(dead_code)] // Not every benchmark runs the program that it was built with.
pub fn daemon_command(data: &Path, settings: &[String]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tilecatcher"));
    command.args(["serve", "--capture", "127.0.0.1:0", "--http", "127.0.0.1:0", "--set", "log.level=error"]);
    command.arg("--data").arg(data);
    settings.iter().for_each(|setting| {
        command.arg("--set").arg(setting);
    });
    command
}

/// User and system time in a text of /proc/PID/stat.
#[allow(dead_code)] // Not every benchmark asks.
pub fn cpu_seconds(stat: &str) -> f64 {
    let behind_name = stat.rsplit(')').next().unwrap_or_default();
    let ticks = behind_name.split_whitespace().skip(11).take(2).filter_map(|text| text.parse::<f64>().ok());
    ticks.sum::<f64>() / 100.0
}

/// The value of a metric, by its full line up to the value.
#[allow(dead_code)] // Not every benchmark asks.
pub fn metric(http: &HttpClient, name: &str) -> f64 {
    let page = String::from_utf8(http.get_path("/metrics").expect("metrics").bytes).expect("text");
    let value = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok());
    value.unwrap_or_else(|| panic!("no {name} in\n{page}"))
}

/// An image of so many bytes, without a pattern that a disk could press.
#[allow(dead_code)] // Not every benchmark sends tiles.
pub fn image_of(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|n| u8::try_from((n * 31 + n / 251) % 251).unwrap_or(0)).collect()
}

/// The middle value, or the mean of the two in the middle.
#[allow(dead_code)] // Not every benchmark repeats.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { f64::midpoint(values[middle - 1], values[middle]) }
}

/// A field of a ready line.
pub fn field<'a>(ready: &'a str, name: &str) -> &'a str {
    let value = ready.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
    value.unwrap_or_else(|| panic!("no {name} in {ready:?}"))
}
