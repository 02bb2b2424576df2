//! What a server's processes have used so far, as Linux counts it.

use std::collections::HashMap;
use std::os::linux::fs::MetadataExt;
use std::path::Path;

const SECTOR: f64 = 512.0;
const TICKS_PER_SECOND: f64 = 100.0;

/// Counters of a process with its children, those that have ended included.
pub struct Usage {
    /// User and system time. What kernel threads write back later is in nobody's.
    pub cpu_seconds: f64,
    /// Bytes that the processes caused to be sent to a disk: `write_bytes` of /proc/PID/io. Other programs do not
    /// show in it.
    pub written_bytes: f64,
    /// Bytes that the disk below the data took from everybody, file system's journal included; none where the file
    /// system has no single disk.
    pub device_bytes: Option<f64>,
}

impl Usage {
    pub fn of(server: u32, dir: &Path) -> Self {
        let processes = tree(server);
        Self {
            cpu_seconds: processes.iter().map(|pid| cpu_seconds(*pid)).sum(),
            written_bytes: processes.iter().map(|pid| written_bytes(*pid)).sum(),
            device_bytes: device_bytes(dir),
        }
    }
}

/// The process and all that descend from it.
fn tree(root: u32) -> Vec<u32> {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    for pid in entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()) {
        if let Some(parent) = stat(pid).get(1).and_then(|parent| parent.parse().ok()) {
            children.entry(parent).or_default().push(pid);
        }
    }
    let mut found = vec![root];
    let mut next = 0;
    while let Some(pid) = found.get(next) {
        found.extend(children.remove(pid).unwrap_or_default());
        next += 1;
    }
    found
}

/// The fields of /proc/PID/stat behind the name; empty for a process that has ended.
fn stat(pid: u32) -> Vec<String> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    text.rsplit(')').next().unwrap_or_default().split_whitespace().map(str::to_owned).collect()
}

/// Own time, and that of children that have ended.
fn cpu_seconds(pid: u32) -> f64 {
    let ticks = stat(pid).into_iter().skip(11).take(4).filter_map(|text| text.parse::<f64>().ok());
    ticks.sum::<f64>() / TICKS_PER_SECOND
}

/// The kernel adds what a child had written to its parent's when the child ends.
fn written_bytes(pid: u32) -> f64 {
    let io = std::fs::read_to_string(format!("/proc/{pid}/io")).unwrap_or_default();
    let line = io.lines().find_map(|line| line.strip_prefix("write_bytes:"));
    line.and_then(|text| text.trim().parse().ok()).unwrap_or(0.0)
}

fn device_bytes(dir: &Path) -> Option<f64> {
    let device = std::fs::metadata(dir).ok()?.st_dev();
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let stat = std::fs::read_to_string(format!("/sys/dev/block/{major}:{minor}/stat")).ok()?;
    Some(stat.split_whitespace().nth(6)?.parse::<f64>().ok()? * SECTOR)
}
