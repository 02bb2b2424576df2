//! The built binary on storage that fails: system calls that strace turns into errors, file systems that are full or
//! frozen, block devices that fail, writes that are cut short. Nothing is acknowledged falsely, and what was acknowledged is
//! there afterwards.
//!
//! Needs root, strace, a C compiler, loop devices and mounts; a test that does not find its tools says so and passes, unless
//! TILECATCHER_REQUIRE_FAULT_TOOLS=1. Loop devices are never required: containers have none.

mod block_errors;
mod short_writes;

use super::support::{
    ACQ, Daemon, PATIENCE, RawConnection, await_that, command, data_dir, frame, key, noise, program, signal, tile,
};
use super::web::{Form, ask, get, name};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tilecatcher::model::Pressure;

const IMAGE: usize = 30_000;

fn succeeds(command: &mut Command) -> bool {
    command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

/// True when the tool is there; else the test is over, and has failed if the tool was required.
pub fn has(what: &str, works: bool) -> bool {
    if !works {
        eprintln!("skipped: {what} can not be used here");
        assert!(
            std::env::var_os("TILECATCHER_REQUIRE_FAULT_TOOLS").is_none(),
            "{what} is required and can not be used"
        );
    }
    works
}

/// `serve` under strace, with faults. The process that is started is the daemon: strace stands aside.
fn traced(data: &Path, faults: &[&str], settings: &[&str]) -> Command {
    let plain = command(data, settings);
    let calls: Vec<&str> = faults.iter().filter_map(|fault| fault.split(':').next()).collect();
    let mut traced = Command::new("strace");
    traced.args(["-D", "-f", "-qq", "--seccomp-bpf", "-o", "/dev/null", "-e", &format!("trace={}", calls.join(","))]);
    for fault in faults {
        traced.args(["-e", &format!("inject={fault}")]);
    }
    through(traced, &plain)
}

/// A command run by another program, which becomes it.
fn through(mut by: Command, plain: &Command) -> Command {
    by.arg(plain.get_program()).args(plain.get_args());
    for (name, _) in plain.get_envs() {
        by.env_remove(name);
    }
    by
}

/// Builds `faults.c`, which runs a program with faults that strace can not inject.
fn build_faults(dir: &Path) -> Option<PathBuf> {
    let (source, program) = (dir.join("faults.c"), dir.join("faults"));
    std::fs::write(&source, include_str!("io_errors/faults.c")).expect("a file");
    let built = succeeds(Command::new("cc").args(["-O1", "-Wall", "-Werror", "-o"]).arg(&program).arg(&source));
    has("cc with Linux' headers", built).then_some(program)
}

fn strace_works() -> bool {
    has(
        "strace",
        succeeds(Command::new("strace").args(["-D", "-f", "-qq", "--seccomp-bpf", "-o", "/dev/null", "true"])),
    )
}

/// Sends until something is not acknowledged; the columns that were. A refusal must be a 4.
fn send_until_refused(daemon: &Daemon, row: u32, most: u32) -> Vec<u32> {
    let mut acknowledged = Vec::new();
    let Ok(mut client) = tilecatcher::client::CaptureClient::connect(daemon.capture, 1, PATIENCE) else {
        return acknowledged;
    };
    for col in 0..most {
        let image = noise(u64::from(row * 1000 + col), IMAGE);
        if client.send(&tile(key(col, row), &image), col).is_err() {
            break;
        }
        match client.receive() {
            Ok(Some(answered)) if answered.response.status == 0 => acknowledged.push(col),
            Ok(Some(answered)) => {
                assert_eq!(answered.response.status, 4, "{:?}", answered.response);
                break;
            }
            _ => break,
        }
    }
    acknowledged
}

/// Sends with several tiles in flight, until the connection ends; the columns that were acknowledged. Refusals must be a 3 or 4.
fn send_ahead(daemon: &Daemon, row: u32, cols: std::ops::Range<u32>) -> Vec<u32> {
    let mut acknowledged = Vec::new();
    let Ok(mut client) = tilecatcher::client::CaptureClient::connect(daemon.capture, 8, PATIENCE) else {
        return acknowledged;
    };
    let mut note = |answered: tilecatcher::client::Answered<u32>| match answered.response.status {
        0 => acknowledged.push(answered.tag),
        status => assert!(matches!(status, 3 | 4), "{:?}", answered.response),
    };
    for col in cols {
        let image = noise(u64::from(row * 1000 + col), IMAGE);
        match client.send(&tile(key(col, row), &image), col) {
            Ok(answered) => answered.into_iter().for_each(&mut note),
            Err(_) => break,
        }
    }
    while let Ok(Some(answered)) = client.receive() {
        note(answered);
    }
    acknowledged
}

fn assert_stored(daemon: &Daemon, row: u32, cols: &[u32]) {
    for col in cols {
        let content = daemon.http.content(ACQ, *col, row).expect("an acknowledged tile");
        assert!(content.bytes == noise(u64::from(row * 1000 + col), IMAGE), "tile {col}/{row} is altered");
    }
}

#[test]
fn a_call_that_fails_once_ends_the_process_with_4_and_loses_nothing_that_was_acknowledged() {
    if !strace_works() {
        return;
    }
    let data = data_dir();
    Daemon::start(data.path(), &[]).stop();
    let mut all: Vec<(u32, Vec<u32>)> = Vec::new();
    let (mut at_start, mut later) = (0, 0);
    for (call, error) in [("fdatasync", "EIO"), ("pwritev", "EIO"), ("fallocate", "EIO"), ("fdatasync", "ENOSPC")] {
        for when in [1, 3, 6, 9, 14] {
            let row = u32::try_from(all.len()).expect("few");
            let fault = format!("{call}:error={error}:when={when}");
            // Small segments, so that calls that make and seal them fail, too.
            let command = traced(data.path(), &[&fault], &["storage.segment_size=1MiB", "scrub.rate=off"]);
            match Daemon::try_run(command) {
                Err((status, log)) => {
                    assert_eq!(status.code(), Some(4), "{fault}: {log}");
                    assert!(log.contains("failed") && log.lines().count() < 8, "{fault}: {log}");
                    at_start += 1;
                }
                Ok(mut daemon) => {
                    let acknowledged = send_until_refused(&daemon, row, 60);
                    // A spare segment that can not be made, or a seal that fails, costs nothing that was acknowledged.
                    if acknowledged.len() < 60 {
                        assert_eq!(daemon.wait().code(), Some(4), "{fault}: {}", daemon.log());
                        assert!(daemon.log().contains("failed"), "{fault}: {}", daemon.log());
                        later += 1;
                    } else {
                        daemon.terminate();
                        let code = daemon.wait().code();
                        assert!(matches!(code, Some(0 | 4)), "{fault}: {code:?} {}", daemon.log());
                    }
                    all.push((row, acknowledged));
                }
            }
        }
    }
    let daemon = Daemon::start_bare(data.path(), &[]);
    all.iter().for_each(|(row, cols)| assert_stored(&daemon, *row, cols));
    daemon.connect().assert_works(0);
    daemon.stop();
    assert!(program().args(["verify", "--data"]).arg(data.path()).output().expect("runs").status.success());
    eprintln!("{at_start} failures at a start, {later} while tiles came, {} runs in all", all.len() + at_start);
    assert!(at_start > 0 && later > 2, "{at_start} and {later}: the test shows nothing");
}

#[test]
fn interrupted_calls_are_not_seen() {
    if !strace_works() {
        return;
    }
    let data = data_dir();
    let faults = ["pwritev:error=EINTR:when=1+2", "fdatasync:error=EINTR:when=1+2", "fallocate:error=EINTR:when=1+2"];
    let command = traced(data.path(), &faults, &["storage.segment_size=1MiB"]);
    let daemon = Daemon::try_run(command).map_err(|(_, log)| log).expect("it starts");
    daemon.start_acquisition();
    let sent = send_until_refused(&daemon, 0, 60);
    assert_eq!(sent.len(), 60, "{}", daemon.log());
    daemon.stop();
    assert_stored(&Daemon::start_bare(data.path(), &[]), 0, &sent);
}

/// A small file system of its own; unmounted when it goes.
struct Mount {
    dir: TempDir,
    _image: Option<tempfile::NamedTempFile>,
}

impl Mount {
    fn tmpfs(size: &str) -> Option<Self> {
        let dir = data_dir();
        let size = format!("size={size}");
        let made = succeeds(Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(dir.path()));
        has("mount -t tmpfs", made).then_some(Self { dir, _image: None })
    }

    fn ext4(bytes: u64) -> Option<Self> {
        let image = tempfile::NamedTempFile::new().expect("a file");
        image.as_file().set_len(bytes).expect("sparse");
        let made = succeeds(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(image.path()));
        let mut mount = made.then(|| Self::image(image.path())).flatten();
        match &mut mount {
            Some(mount) => mount._image = Some(image),
            None => eprintln!("skipped: loop devices can not be used here"),
        }
        mount
    }

    /// A file with a file system in it, through a loop device that goes with the mount.
    fn image(image: &Path) -> Option<Self> {
        let dir = data_dir();
        let mounted = succeeds(Command::new("mount").args(["-o", "loop"]).arg(image).arg(dir.path()));
        mounted.then_some(Self { dir, _image: None })
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn free_bytes(&self) -> u64 {
        use tilecatcher::journal::Filesystem;
        tilecatcher::journal::RealFilesystem.free_bytes(self.dir.path()).expect("statvfs")
    }

    /// Fills the file system up to `left` bytes.
    fn fill(&self, left: u64) -> PathBuf {
        let ballast = self.dir.path().join("ballast");
        let bytes = self.free_bytes().saturating_sub(left);
        std::fs::write(&ballast, vec![1; usize::try_from(bytes).expect("small")]).expect("there is room");
        ballast
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let until = Instant::now() + PATIENCE;
        while !succeeds(Command::new("umount").arg(self.dir.path())) && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

const RESERVE: u64 = 8 << 20;

/// Fills a disk with tiles until they are refused, frees it, and again.
fn fills_and_frees(mount: &Mount) {
    let data = mount.path();
    let settings = ["storage.reserve=8MiB", "scrub.rate=off"];
    let daemon = Daemon::start(&data, &settings);
    let (mut stored, mut col) = (Vec::new(), 0);
    let image = |col: u32| noise(u64::from(col), 1_000_000);
    for cycle in 0..3 {
        let ballast = mount.fill(RESERVE + (14 << 20));
        let mut pressed = false;
        let refused = loop {
            let mut connection = daemon.connect();
            connection.send(&frame(key(col, 0), &image(col)));
            let answer = connection.answer();
            if answer.status != 0 {
                break answer;
            }
            pressed |= answer.system == Pressure::Red && answer.content_queue == Pressure::Red;
            stored.push(col);
            col += 1;
            assert!(col < 200, "it never gets full");
        };
        assert_eq!(refused.status, 3, "{refused:?}");
        assert!(pressed || cycle > 0, "no RED before the first refusal");
        let free = mount.free_bytes();
        assert!(free >= RESERVE * 9 / 10, "tiles took of the reserve: {free} bytes are free");
        let path = format!("/service/v1/capture-image-content/{ACQ}?tile-filename={}", name(col, 0));
        ask(&daemon, "PUT", &path, "", &image(col)).refused(507);
        assert_eq!(get(&daemon, "/service/v1/ping").header("Content-Queue-Status"), Some("RED"));
        // What is small and matters still gets its place; reads and duplicates go on.
        for n in 0..3 {
            let form = Form::new().file("ancillary-file", &format!("{n}.csv"), &noise(n, 500_000));
            form.post(&daemon, &format!("/service/v1/store-ancillary-files/{ACQ}")).with(200);
        }
        daemon.http.end_acquisition(ACQ).expect("an acquisition can be ended on a full disk");
        assert!(mount.free_bytes() >= RESERVE / 2, "control records took more than half of the reserve");
        daemon.start_acquisition();
        let last = *stored.last().expect("some fit");
        let mut connection = daemon.connect();
        connection.send(&frame(key(last, 0), &image(last)));
        assert_eq!(connection.answer().status, 0, "a duplicate");
        assert!(daemon.http.content(ACQ, last, 0).expect("readable").bytes == image(last));
        std::fs::remove_file(ballast).expect("freed");
        let until = Instant::now() + PATIENCE;
        loop {
            let mut connection = daemon.connect();
            connection.send(&frame(key(col, 0), &image(col)));
            if connection.answer().status == 0 {
                break;
            }
            assert!(Instant::now() < until, "capture does not resume");
        }
        stored.push(col);
        col += 1;
    }
    daemon.kill();
    let daemon = Daemon::start_bare(&data, &settings);
    for col in &stored {
        assert!(daemon.http.content(ACQ, *col, 0).expect("stored").bytes == image(*col), "tile {col}");
    }
    daemon.stop();
    eprintln!("{} tiles in 3 cycles", stored.len());
}

#[test]
fn a_full_tmpfs_presses_then_refuses_and_resumes_when_there_is_room_again() {
    if let Some(mount) = Mount::tmpfs("120m") {
        fills_and_frees(&mount);
    }
}

#[test]
fn a_full_ext4_presses_then_refuses_and_resumes_when_there_is_room_again() {
    if let Some(mount) = Mount::ext4(160 << 20) {
        fills_and_frees(&mount);
    }
}

#[test]
fn a_full_disk_is_told_also_where_tiles_are_acknowledged_before_they_are_written() {
    let Some(mount) = Mount::tmpfs("120m") else { return };
    let data = mount.path();
    let settings = ["storage.reserve=8MiB", "scrub.rate=off", "storage.ack=received"];
    let daemon = Daemon::start(&data, &settings);
    let _ballast = mount.fill(RESERVE + (14 << 20));
    let image = |col: u32| noise(u64::from(col), 1_000_000);
    let mut connection = daemon.connect();
    let statuses: Vec<(u32, i16)> = (0..60)
        .map(|col| {
            connection.send(&frame(key(col, 0), &image(col)));
            (col, connection.answer().status)
        })
        .collect();
    let refused = statuses.iter().filter(|(_, status)| *status == 3).count();
    assert!(refused > 20, "{statuses:?}");
    daemon.stop();
    let daemon = Daemon::start_bare(&data, &settings);
    for (col, _) in statuses.iter().filter(|(_, status)| *status == 0) {
        assert!(daemon.http.content(ACQ, *col, 0).expect("stored").bytes == image(*col), "tile {col}");
    }
    daemon.stop();
}

/// A file system that does not take a write. Thawed by another process at the latest after a while.
struct Frozen<'a> {
    mount: &'a Mount,
    timer: Child,
}

impl<'a> Frozen<'a> {
    fn freeze(mount: &'a Mount) -> Option<Self> {
        let thaw = format!("sleep 40; fsfreeze -u {}", mount.dir.path().display());
        let timer = Command::new("sh").args(["-c", &thaw]).stderr(Stdio::null()).spawn().ok()?;
        let frozen = succeeds(Command::new("fsfreeze").arg("-f").arg(mount.dir.path()));
        let guard = Self { mount, timer };
        frozen.then_some(guard)
    }
}

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        succeeds(Command::new("fsfreeze").arg("-u").arg(self.mount.dir.path()));
        let _ = self.timer.kill();
        let _ = self.timer.wait();
    }
}

/// Every sync of a running daemon takes some seconds longer, as long as this lives.
struct SlowSyncs(Child);

impl SlowSyncs {
    fn begin(daemon: &Daemon, seconds: u32) -> Self {
        let fault = format!("inject=fdatasync:delay_enter={}", seconds * 1_000_000);
        let mut strace = Command::new("strace");
        strace.args([
            "-f",
            "-qq",
            "-o",
            "/dev/null",
            "-e",
            "trace=fdatasync",
            "-e",
            &fault,
            "-p",
            &daemon.pid().to_string(),
        ]);
        let slow = Self(strace.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("strace runs"));
        let is_traced = |task: std::io::Result<std::fs::DirEntry>| {
            let status = std::fs::read_to_string(task.expect("a thread").path().join("status")).unwrap_or_default();
            !status.contains("TracerPid:\t0\n")
        };
        let tasks = format!("/proc/{}/task", daemon.pid());
        await_that("strace is there", || std::fs::read_dir(&tasks).expect("threads").all(is_traced));
        slow
    }
}

impl Drop for SlowSyncs {
    fn drop(&mut self) {
        signal(self.0.id(), "-TERM");
        let _ = self.0.wait();
    }
}

#[test]
fn a_framing_error_takes_no_answer_from_tiles_that_a_slow_disk_still_stores() {
    if !strace_works() {
        return;
    }
    let data = data_dir();
    let daemon = Daemon::start(data.path(), &[]);
    let mut connection = daemon.connect();
    // Longer than a connection is drained for.
    let slow = SlowSyncs::begin(&daemon, 8);
    connection.send(&frame(key(1, 1), b"on its way"));
    connection.send(&u32::MAX.to_le_bytes());
    assert_eq!(connection.answer().status, 0);
    assert_eq!(connection.answer().status, 1);
    assert!(connection.is_closed());
    drop(slow);
    daemon.await_metric("tilecatcher_connections_closed_total{reason=\"framing\"}", 1.0);
}

#[test]
fn every_tile_of_a_sender_that_is_cut_off_is_counted_also_the_one_that_no_lane_has_taken() {
    if !strace_works() {
        return;
    }
    let data = data_dir();
    let daemon = Daemon::start(data.path(), &["storage.lanes=1", "storage.lane_queue=4"]);
    let mut connection = daemon.connect();
    connection.assert_works(0);
    let first = frame(key(0, 7), b"still works").len() as f64;
    daemon.await_metric_that("tilecatcher_received_bytes_total", |bytes| bytes >= first);
    let sender = get(&daemon, "/api/v1/admin/senders").with(200).json()["senders"][0]["id"].to_string();
    let (received, slow) = (daemon.metric("tilecatcher_received_bytes_total"), SlowSyncs::begin(&daemon, 20));
    let mut length = 0;
    for col in 1..40 {
        let message = frame(key(col, 0), b"one of many");
        length = message.len();
        connection.send(&message);
    }
    daemon.await_metric_that("tilecatcher_lane_queue_tiles", |waiting| waiting >= 4.0);
    ask(&daemon, "DELETE", &format!("/api/v1/admin/senders/{sender}"), "", b"").with(200);
    daemon.await_metric("tilecatcher_connections", 0.0);
    let read = (daemon.metric("tilecatcher_received_bytes_total") - received) / length as f64;
    drop(slow);
    // None was answered: the disk has not stored one meanwhile.
    daemon.await_metric("tilecatcher_answers_undelivered_total", read.floor());
}

#[test]
fn a_disk_that_hangs_delays_answers_and_nothing_else() {
    let Some(mount) = Mount::ext4(160 << 20) else { return };
    let daemon = Daemon::start(&mount.path(), &["memory.buffers=16MiB", "capture.frame_max=4MiB"]);
    daemon.connect().assert_works(0);
    let Some(frozen) = Frozen::freeze(&mount) else {
        eprintln!("skipped: fsfreeze can not be used here");
        return;
    };
    let count = 30;
    std::thread::scope(|scope| {
        let senders: Vec<_> = (1..=count)
            .map(|col| {
                let daemon = &daemon;
                scope.spawn(move || {
                    let mut connection = RawConnection::new(daemon.capture);
                    connection.stream.set_read_timeout(Some(PATIENCE * 3)).expect("a timeout");
                    connection.send(&frame(key(col, 0), &noise(u64::from(col), 1_000_000)));
                    connection.answer().status
                })
            })
            .collect();
        // All that the buffers hold is taken, and no more.
        daemon.await_metric_that("tilecatcher_buffer_bytes", |bytes| bytes > 10e6);
        let mut probe = daemon.connect();
        probe.send(&frame(key(0, 1), b"hangs, too"));
        probe.stream.set_read_timeout(Some(Duration::from_secs(1))).expect("a timeout");
        assert!(probe.stream.read(&mut [0]).is_err(), "answered while the disk hangs");
        assert!(daemon.metric("tilecatcher_buffer_bytes") <= f64::from(16 << 20));
        assert!(daemon.metric("process_resident_memory_bytes") < 400e6);
        get(&daemon, "/healthz").with(200);
        assert!(senders.iter().all(|sender| !sender.is_finished()), "acknowledged while the disk hangs");
        drop(frozen);
        probe.stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        assert_eq!(probe.answer().status, 0);
        senders.into_iter().for_each(|sender| assert_eq!(sender.join().expect("no panic"), 0));
    });
    for col in 1..=count {
        assert!(daemon.http.content(ACQ, col, 0).expect("stored").bytes == noise(u64::from(col), 1_000_000));
    }
    daemon.stop();
}
