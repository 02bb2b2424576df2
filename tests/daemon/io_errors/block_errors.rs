//! The built binary on a block device that fails: a sparse image on a full tmpfs behind a loop device. Through the page cache
//! writes succeed and the sync fails, once or twice; a later one would succeed, and what was not written is lost as soon as
//! the kernel forgets it. Without the page cache it is the write that fails.

use super::{Mount, assert_stored, build_faults, has, send_ahead, strace_works, succeeds, through};
use crate::support::{Daemon, PATIENCE, command, data_dir, program, whole_trace};
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

/// Tiles sent while there is room behind the device, and when there is none.
const GOOD: std::ops::Range<u32> = 0..40;
const BAD: std::ops::Range<u32> = 40..120;
const SETTINGS: [&str; 2] = ["storage.segment_size=8MiB", "log.level=warn"];

/// An ext4 that believes to have room. What it has not written before needs some of the tmpfs that holds it.
struct ThinDisk {
    // Unmounted first: fields go in this order.
    ext4: Option<Mount>,
    tmpfs: Mount,
}

impl ThinDisk {
    fn new(journal: bool) -> Option<Self> {
        let tmpfs = Mount::tmpfs("48m")?;
        let mut disk = Self { ext4: None, tmpfs };
        File::create(disk.image()).and_then(|file| file.set_len(256 << 20)).expect("sparse");
        let features = if journal { "has_journal" } else { "^has_journal" };
        let mut format = Command::new("mkfs.ext4");
        // With blocks of less than a page a write may begin in a page that the tmpfs has and end in one that it can not get.
        // The loop driver takes such a write, which is cut short, for done: a device that lies.
        format.args(["-q", "-F", "-b", "4096", "-N", "1024", "-O", features]).arg(disk.image());
        (has("mkfs.ext4", succeeds(&mut format)) && disk.mount()).then_some(disk)
    }

    fn image(&self) -> PathBuf {
        self.tmpfs.dir.path().join("image")
    }

    fn ballast(&self) -> PathBuf {
        self.tmpfs.dir.path().join("ballast")
    }

    fn data(&self) -> PathBuf {
        self.ext4.as_ref().expect("mounted").path()
    }

    fn mount(&mut self) -> bool {
        self.ext4 = Mount::image(&self.image());
        if self.ext4.is_none() {
            eprintln!("skipped: loop devices can not be used here");
        }
        self.ext4.is_some()
    }

    /// From now on the device takes nothing in a place that it has not written before.
    fn fill(&self) {
        let mut ballast = File::create(self.ballast()).expect("a file");
        while ballast.write_all(&[1; 4096]).is_ok() {}
    }

    fn give_room(&self) {
        let _ = std::fs::remove_file(self.ballast());
    }

    /// Forgets all caches, gives the device room again, and mends the file system as a start of the machine would.
    fn repair(&mut self) {
        self.ext4 = None;
        self.give_room();
        let status = Command::new("e2fsck").arg("-fy").arg(self.image()).output().expect("e2fsck runs").status;
        assert!(status.code().is_some_and(|code| code < 4), "e2fsck: {status}");
        assert!(self.mount());
    }
}

/// Every sync and write of the journal, with the files' names, as strace tells them.
struct Trace(PathBuf);

impl Trace {
    const CALLS: &str = "trace=fsync,fdatasync,sync_file_range,pwritev,pwritev2,pwrite64";

    fn wrap(&self, plain: &Command) -> Command {
        let mut strace = Command::new("strace");
        strace.args(["-D", "-f", "-y", "-q", "--seccomp-bpf", "-s", "0", "-e", Self::CALLS, "-o"]).arg(&self.0);
        through(strace, plain)
    }

    fn text(&self, pid: u32) -> String {
        let text = whole_trace(&self.0, pid);
        let is_end = |line: &str| line.split_whitespace().take(3).eq([pid.to_string().as_str(), "+++", "exited"]);
        assert!(text.lines().any(is_end), "it was killed:\n{text}");
        text
    }
}

/// How many calls on segments failed, by call. An error when a file was written or synced after one of its syncs, or a write
/// with anything but a want of space, had failed.
fn failed_calls(trace: &str) -> Result<HashMap<String, u32>, String> {
    let (mut begun, mut poisoned, mut failed) = (HashMap::new(), HashSet::new(), HashMap::new());
    for line in trace.lines() {
        let (thread, rest) = line.split_once(' ').expect("a thread and what it did");
        let (is_result, rest) = match rest.trim_start().strip_prefix("<... ") {
            Some(rest) => (true, rest),
            None => (false, rest.trim_start()),
        };
        let call = rest.split(['(', ' ']).next().expect("a word");
        let path = rest.split_once('<').and_then(|(_, path)| path.split_once('>')).map(|(path, _)| path);
        if let Some(path) = path.filter(|path| !is_result && path.contains("/journal/")) {
            if poisoned.contains(path) {
                return Err(format!("{call} on {path} after a failure:\n{trace}"));
            }
            begun.insert(thread, path);
        } else if !is_result {
            begun.remove(thread);
        }
        let Some(path) = begun.get(thread).filter(|_| rest.contains(" = -1 ")) else { continue };
        *failed.entry(call.to_owned()).or_default() += 1;
        if call.ends_with("sync") || !rest.contains("ENOSPC") {
            poisoned.insert(*path);
        }
    }
    Ok(failed)
}

/// A daemon while the device begins to fail: what it acknowledged before and after.
fn captures_until_it_fails(disk: &ThinDisk, daemon: &Daemon) -> Vec<u32> {
    let mut acknowledged = send_ahead(daemon, 0, GOOD);
    assert_eq!(acknowledged.len(), GOOD.len(), "{}", daemon.log());
    disk.fill();
    let more = send_ahead(daemon, 0, BAD);
    assert!(more.len() < BAD.len(), "the device did not fail");
    acknowledged.extend(more);
    acknowledged
}

/// The next daemon, with the page cache that a failed sync left behind: what it acknowledges, of the same tiles. `None`: it
/// did not start.
fn comes_back(disk: &ThinDisk) -> Option<Vec<u32>> {
    match Daemon::try_run(command(&disk.data(), &SETTINGS)) {
        Err((status, log)) => {
            // 2: the file system has become one that is only read.
            assert!(matches!(status.code(), Some(2 | 4)), "{status} {log}");
            None
        }
        Ok(daemon) => {
            let acknowledged = send_ahead(&daemon, 0, BAD);
            daemon.kill();
            Some(acknowledged)
        }
    }
}

/// With a device that works again and empty caches, everything acknowledged is there.
fn assert_survived(disk: &mut ThinDisk, acknowledged: &[u32]) {
    disk.repair();
    let daemon = Daemon::start(&disk.data(), &SETTINGS);
    assert_stored(&daemon, 0, acknowledged);
    assert_eq!(send_ahead(&daemon, 0, BAD).len(), BAD.len(), "{}", daemon.log());
    daemon.stop();
    let verified = program().args(["verify", "--data"]).arg(disk.data()).output().expect("runs");
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stdout));
}

/// False: a tool is missing.
fn a_failed_sync_is_believed(faults: &Path, journal: bool) -> bool {
    let Some(mut disk) = ThinDisk::new(journal) else { return false };
    let dir = data_dir();
    let trace = Trace(dir.path().join("trace"));
    let mut cached = Command::new(faults);
    cached.arg("cached");
    let mut daemon = Daemon::run(trace.wrap(&through(cached, &command(&disk.data(), &SETTINGS))));
    daemon.start_acquisition();
    let mut acknowledged = captures_until_it_fails(&disk, &daemon);
    let first = acknowledged.len();
    assert_eq!(daemon.wait().code(), Some(4), "{}", daemon.log());
    assert!(daemon.log().contains("refuses O_DIRECT") && daemon.log().contains("failed"), "{}", daemon.log());
    let failed = failed_calls(&trace.text(daemon.pid())).expect("a failed sync is not tried again");
    assert!(failed.get("fdatasync").is_some_and(|count| *count > 0), "no sync failed: {failed:?}");
    let on_full_device = comes_back(&disk);
    disk.give_room();
    let with_old_cache = comes_back(&disk);
    // A file system with a journal lets nobody write to it any more.
    assert!(journal || with_old_cache.as_ref().is_some_and(|cols| cols.len() == BAD.len()), "{with_old_cache:?}");
    let again = [on_full_device, with_old_cache];
    acknowledged.extend(again.iter().flatten().flatten());
    assert_survived(&mut disk, &acknowledged);
    let again = again.map(|cols| cols.map_or("did not start".to_owned(), |cols| cols.len().to_string()));
    eprintln!("journal {journal}: failed {failed:?}; acknowledged {first}, by daemons behind it {again:?}; all there");
    true
}

#[test]
fn a_sync_that_fails_on_the_device_is_believed_and_not_tried_again() {
    let tools = data_dir();
    if let Some(faults) = build_faults(tools.path()).filter(|_| strace_works()) {
        [false, true].into_iter().take_while(|journal| a_failed_sync_is_believed(&faults, *journal)).count();
    }
}

#[test]
fn a_device_that_is_full_behind_its_file_system_refuses_and_resumes_when_it_has_room() {
    let Some(mut disk) = ThinDisk::new(false) else { return };
    let daemon = Daemon::start(&disk.data(), &SETTINGS[..1]);
    let mut acknowledged = captures_until_it_fails(&disk, &daemon);
    daemon.await_metric_that("tilecatcher_tiles_refused_total{reason=\"no_space\"}", |tiles| tiles > 0.0);
    disk.give_room();
    let until = Instant::now() + PATIENCE;
    let more = loop {
        let more = send_ahead(&daemon, 0, BAD);
        if more.len() == BAD.len() {
            break more;
        }
        acknowledged.extend(more);
        assert!(Instant::now() < until, "capture does not resume: {}", daemon.log());
    };
    acknowledged.extend(more);
    // The index met the full device, too, and may not be able to stop in order; the journal needs no order.
    daemon.kill();
    assert_survived(&mut disk, &acknowledged);
}

#[test]
fn the_trace_is_understood() {
    let good = "7 pwritev(5</d/journal/a>, [...], 2, 0) = 8192\n7 fdatasync(5</d/journal/a> <unfinished ...>\n\
        8 fdatasync(6</d/journal/b>) = 0\n7 <... fdatasync resumed>)  = -1 EIO (Input/output error)\n\
        8 fdatasync(6</d/journal/b>) = 0\n8 pwritev(6</d/journal/b>, [...], 2, 0) = -1 ENOSPC (No space left on device)\n\
        8 pwritev(6</d/journal/b>, [...], 2, 0) = 8192\n7 +++ exited with 4 +++\n";
    assert_eq!(failed_calls(good), Ok(HashMap::from([("fdatasync".to_owned(), 1), ("pwritev".to_owned(), 1)])));
    let again = format!("{good}8 fdatasync(9</d/journal/a>) = 0\n");
    assert!(failed_calls(&again).is_err(), "a second sync is not seen");
}
