//! A second data directory: nothing acknowledged is lost with either of them, damage is mended, a mirror that goes and
//! comes back is brought up to date.

use super::support::{ACQ, Daemon, PATIENCE, await_found, command, data_dir, key, noise, program, segments, tile};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;
use tempfile::TempDir;
use tilecatcher::client::{Answered, CaptureClient};

/// Two directories and the settings that make the second one the first one's mirror.
struct Sides {
    data: TempDir,
    mirror: TempDir,
}

impl Sides {
    fn new() -> Self {
        Self { data: data_dir(), mirror: data_dir() }
    }

    fn data(&self) -> &Path {
        self.data.path()
    }

    /// A directory that may be removed and made again.
    fn mirror(&self) -> PathBuf {
        self.mirror.path().join("second")
    }

    fn settings(&self, more: &[&str]) -> Vec<String> {
        mirrored_to(&self.mirror(), more)
    }

    fn start(&self, more: &[&str]) -> Daemon {
        start(self.data(), &self.settings(more))
    }
}

fn mirrored_to(dir: &Path, more: &[&str]) -> Vec<String> {
    let own = [format!("mirror.data={}", dir.display()), "mirror.retry=20ms".to_owned(), "mirror.rate=0".to_owned()];
    let level = "storage.ack=replicated".to_owned();
    own.into_iter().chain([level]).chain(more.iter().map(|setting| (*setting).to_owned())).collect()
}

fn start(data: &Path, settings: &[String]) -> Daemon {
    let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    Daemon::start(data, &settings)
}

/// Runs a daemon that is expected not to start; its exit code and what it said.
fn refused(data: &Path, settings: &[String]) -> (Option<i32>, String) {
    let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    let Err((status, said)) = Daemon::try_run(command(data, &settings)) else { panic!("it was not refused") };
    (status.code(), said)
}

fn image(n: u32) -> Vec<u8> {
    noise(u64::from(n) + 77, [900, 40_000, 300_000][n as usize % 3])
}

fn send(daemon: &Daemon, numbers: std::ops::Range<u32>) -> Vec<i16> {
    let mut client = daemon.client(1);
    let mut statuses = Vec::new();
    for n in numbers {
        let image = image(n);
        let answered = client.send(&tile(key(n, 0), &image), n).expect("sent");
        statuses.extend(answered.map(|answered| answered.response.status));
    }
    while let Some(answered) = client.receive().expect("an answer") {
        statuses.push(answered.response.status);
    }
    statuses
}

fn store(daemon: &Daemon, numbers: std::ops::Range<u32>) {
    assert!(send(daemon, numbers).iter().all(|status| *status == 0));
}

fn check(daemon: &Daemon, numbers: impl IntoIterator<Item = u32>) {
    for n in numbers {
        let content = daemon.http.content(ACQ, n, 0).unwrap_or_else(|error| panic!("tile {n}: {error}"));
        assert!(content.bytes == image(n), "tile {n} is altered");
    }
}

fn await_sync(daemon: &Daemon) {
    daemon.await_metric("tilecatcher_mirror_in_sync", 1.0);
}

fn ready(daemon: &Daemon) -> serde_json::Value {
    serde_json::from_slice(&daemon.http.get_path("/readyz").expect("ready").bytes).expect("JSON")
}

fn verify(data: &Path, mirror: &Path) -> (bool, String) {
    let output = program().args(["verify", "--data"]).arg(data).arg("--mirror").arg(mirror).output().expect("runs");
    (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
}

fn assert_equal(sides: &Sides) {
    let (good, text) = verify(sides.data(), &sides.mirror());
    assert!(good, "{text}");
    let names = |dir: &Path| -> Vec<_> {
        segments(dir).iter().map(|path| path.file_name().expect("a name").to_owned()).collect()
    };
    assert_eq!(names(sides.data()), names(&sides.mirror()));
}

fn wipe(dir: &Path) {
    for entry in std::fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) }.expect("removed");
    }
}

/// The mirror is gone from one moment to the next.
fn take_away(sides: &Sides) {
    let elsewhere = sides.mirror.path().join("gone");
    std::fs::rename(sides.mirror(), &elsewhere).expect("renamed");
    std::fs::remove_dir_all(elsewhere).expect("removed");
}

/// Flips a byte of every tile's payload that lies in a segment of lane 0.
fn damage(dir: &Path) {
    let is_lane = |path: &PathBuf| path.to_string_lossy().ends_with("-0000.tcj");
    let segment = segments(dir).into_iter().find(is_lane).expect("a segment of the lane");
    let mut bytes = std::fs::read(&segment).expect("readable");
    let needles: Vec<Vec<u8>> = (0..6).map(|n| image(n)[200..232].to_vec()).collect();
    for needle in needles {
        let at = bytes.windows(32).position(|window| window == needle).expect("the tile is in this segment");
        bytes[at] ^= 1;
    }
    std::fs::write(&segment, bytes).expect("written");
}

#[test]
fn replicated_needs_a_mirror_that_is_no_other_ones() {
    let (sides, other) = (Sides::new(), Sides::new());
    let (code, said) = refused(sides.data(), &["storage.ack=replicated".to_owned()]);
    assert!(code == Some(2) && said.contains("mirror.data"), "{code:?} {said}");
    let inside = mirrored_to(&sides.data().join("mirror"), &[]);
    assert_eq!(refused(sides.data(), &inside).0, Some(2));
    let daemon = sides.start(&[]);
    let in_use = mirrored_to(&sides.mirror(), &[]);
    let (code, said) = refused(other.data(), &in_use);
    assert!(code == Some(2) && said.contains("in use"), "{code:?} {said}");
    daemon.stop();
    Daemon::start(other.data(), &[]).stop();
    let (code, said) = refused(other.data(), &in_use);
    assert!(code == Some(2) && said.contains("another data directory"), "{code:?} {said}");
}

#[test]
fn damage_on_either_side_is_read_right_and_mended() {
    let sides = Sides::new();
    let daemon = sides.start(&[]);
    assert_eq!((&ready(&daemon)["ack_level"], &ready(&daemon)["mirror"]), (&"replicated".into(), &"in_sync".into()));
    assert_eq!(daemon.metric("tilecatcher_ack_level"), 3.0);
    store(&daemon, 0..6);
    daemon.stop();
    assert_equal(&sides);
    damage(sides.data());
    assert!(!verify(sides.data(), &sides.mirror()).0);
    let daemon = sides.start(&[]);
    check(&daemon, 0..6);
    daemon.await_metric("tilecatcher_mirror_repairs", 6.0);
    daemon.stop();
    assert_equal(&sides);
    damage(&sides.mirror());
    let (good, text) = verify(sides.data(), &sides.mirror());
    assert!(!good && text.contains("mirror: "), "{text}");
    check(&sides.start(&[]), 0..6);
}

#[test]
fn a_segment_that_is_missing_on_either_side_comes_back_at_the_start() {
    let sides = Sides::new();
    let daemon = sides.start(&[]);
    store(&daemon, 0..12);
    daemon.stop();
    for dir in [sides.data().to_owned(), sides.mirror()] {
        for segment in segments(&dir) {
            std::fs::remove_file(&segment).expect("removed");
            let daemon = sides.start(&[]);
            await_sync(&daemon);
            check(&daemon, 0..12);
            daemon.stop();
            assert!(segment.exists(), "{} did not come back", segment.display());
        }
        assert_equal(&sides);
    }
}

#[test]
fn capture_goes_on_without_the_mirror_and_it_is_brought_up_to_date_when_it_is_back() {
    let sides = Sides::new();
    let daemon = sides.start(&[]);
    store(&daemon, 0..20);
    take_away(&sides);
    daemon.await_metric("tilecatcher_mirror_in_sync", 0.0);
    assert_eq!((&ready(&daemon)["ack_level"], &ready(&daemon)["mirror"]), (&"durable".into(), &"lost".into()));
    assert_eq!(daemon.metric("tilecatcher_ack_level"), 2.0);
    await_found(|| daemon.log(), |log| log.contains("the mirror is lost"));
    store(&daemon, 20..60);
    std::fs::create_dir(sides.mirror()).expect("made");
    store(&daemon, 60..100);
    await_sync(&daemon);
    store(&daemon, 100..120);
    assert_eq!(daemon.metric("tilecatcher_mirror_losses"), 1.0);
    check(&daemon, 0..120);
    daemon.kill();
    // The mirror alone has everything that was acknowledged.
    let daemon = Daemon::start(&sides.mirror(), &[]);
    check(&daemon, 0..120);
}

#[test]
fn with_refuse_no_tile_is_acknowledged_that_has_one_copy_only() {
    let sides = Sides::new();
    let daemon = sides.start(&["mirror.when_lost=refuse"]);
    store(&daemon, 0..5);
    take_away(&sides);
    daemon.await_metric("tilecatcher_mirror_in_sync", 0.0);
    assert!(send(&daemon, 0..8).iter().all(|status| *status == 3), "a tile was acknowledged");
    daemon.await_metric("tilecatcher_tiles_refused_total{reason=\"mirror_lost\"}", 8.0);
    check(&daemon, 0..5);
    std::fs::create_dir(sides.mirror()).expect("made");
    await_sync(&daemon);
    store(&daemon, 0..8);
    daemon.stop();
    assert_equal(&sides);
}

#[test]
fn acknowledged_tiles_survive_kill_9_and_the_loss_of_either_side() {
    let cycles: u32 = if std::env::var_os("TILECATCHER_LONG").is_some() { 60 } else { 4 };
    let seed = u64::from(std::process::id());
    eprintln!("seed {seed}, {cycles} cycles");
    let sides = Sides::new();
    let mut all: Vec<u32> = Vec::new();
    for cycle in 0..cycles {
        let daemon = sides.start(&[]);
        await_sync(&daemon);
        check(&daemon, all.iter().copied());
        let acknowledged = Mutex::new(Vec::new());
        let lifetime = Duration::from_millis(u64::from(noise(seed + u64::from(cycle), 1)[0]));
        std::thread::scope(|scope| {
            let (daemon, acknowledged) = (&daemon, &acknowledged);
            for sender in 0..2 {
                scope.spawn(move || send_until_killed(daemon, cycle * 2 + sender, acknowledged));
            }
            // However slow the machine is, each life shows something.
            await_found(|| acknowledged.lock().expect("no panic").len(), |tiles| *tiles >= 2);
            std::thread::sleep(lifetime);
            super::support::signal(daemon.pid(), "-KILL");
        });
        daemon.kill();
        all.extend(acknowledged.into_inner().expect("senders do not panic"));
        // Every other time the mirror, else the data directory: then the mirror fills it.
        wipe(&if cycle % 2 == 0 { sides.mirror() } else { sides.data().to_owned() });
    }
    // The data directory is gone: a daemon on the mirror alone, as the manual says.
    wipe(sides.data());
    let daemon = Daemon::start(&sides.mirror(), &[]);
    check(&daemon, all.iter().copied());
    daemon.stop();
    assert!(all.len() > cycles as usize, "only {} tiles were acknowledged: the test shows nothing", all.len());
    eprintln!("{} tiles acknowledged, all there", all.len());
}

fn send_until_killed(daemon: &Daemon, sender: u32, acknowledged: &Mutex<Vec<u32>>) {
    // The other sender's tile may be the one that ends this life before it began.
    let Ok(mut client) = CaptureClient::connect(daemon.capture, 2, PATIENCE) else { return };
    let mut note = |answered: Answered<u32>| {
        assert_eq!(answered.response.status, 0);
        acknowledged.lock().expect("no panic").push(answered.tag);
    };
    for n in sender * 100_000.. {
        let image = image(n);
        match client.send(&tile(key(n, 0), &image), n) {
            Ok(answered) => answered.into_iter().for_each(&mut note),
            Err(_) => break,
        }
    }
    while let Ok(Some(answered)) = client.receive() {
        note(answered);
    }
}

#[test]
fn a_mirror_that_was_being_filled_is_never_taken_for_whole() {
    let sides = Sides::new();
    let daemon = Daemon::start(sides.data(), &[]);
    store(&daemon, 0..60);
    daemon.stop();
    let mut begun = 0;
    for cycle in 0..6u64 {
        // Slow enough to be caught in the middle.
        let daemon = sides.start(&["mirror.rate=256KiB", "storage.ack=durable"]);
        std::thread::sleep(Duration::from_millis(30 * cycle));
        let in_sync = daemon.metric("tilecatcher_mirror_in_sync") == 1.0;
        daemon.kill();
        if !in_sync && sides.mirror().join("mirror").exists() {
            let (code, said) = refused(&sides.mirror(), &[]);
            assert!(code == Some(2) && said.contains("incomplete"), "{code:?} {said}");
            begun += 1;
        }
    }
    assert!(begun > 0, "no kill hit the filling: the test shows nothing");
    let daemon = sides.start(&[]);
    await_sync(&daemon);
    daemon.stop();
    assert_equal(&sides);
    let daemon = Daemon::start(&sides.mirror(), &[]);
    check(&daemon, 0..60);
}

#[test]
fn two_sides_that_each_went_on_are_refused_and_a_compaction_alone_is_followed() {
    let sides = Sides::new();
    let daemon = sides.start(&[]);
    store(&daemon, 0..40);
    daemon.stop();
    let daemon = Daemon::start(sides.data(), &[]);
    store(&daemon, 40..45);
    daemon.http.delete_acquisition(ACQ).expect("deleted");
    daemon.start_acquisition();
    store(&daemon, 50..55);
    daemon.stop();
    let compacted = program().args(["compact", "--data"]).arg(sides.data()).output().expect("runs");
    assert!(compacted.status.code().is_some_and(|code| code <= 1), "{}", String::from_utf8_lossy(&compacted.stderr));
    let daemon = sides.start(&[]);
    await_sync(&daemon);
    check(&daemon, 50..55);
    daemon.stop();
    assert_equal(&sides);
    for dir in [sides.data().to_owned(), sides.mirror()] {
        Daemon::start(&dir, &[]).stop();
    }
    let (code, said) = refused(sides.data(), &sides.settings(&[]));
    assert!(code == Some(2) && said.contains("went on without the other"), "{code:?} {said}");
}

/// A file system of its own, unmounted at the end.
struct Mounted(PathBuf);

impl Mounted {
    /// `None` where this may not be done.
    fn new(dir: &Path, size: &str) -> Option<Self> {
        std::fs::create_dir_all(dir).expect("made");
        let size = format!("size={size}");
        let output = Command::new("mount").args(["-t", "tmpfs", "-o", size.as_str(), "tmpfs"]).arg(dir).output();
        let mounted = output.is_ok_and(|output| output.status.success());
        if mounted {
            return Some(Self(dir.to_owned()));
        }
        assert!(std::env::var_os("TILECATCHER_REQUIRE_FAULT_TOOLS").is_none(), "a tmpfs can not be mounted");
        eprintln!("skipped: a tmpfs can not be mounted here");
        None
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_full_mirror_is_lost_and_one_that_is_not_mounted_is_not_filled() {
    let sides = Sides::new();
    let Some(mounted) = Mounted::new(&sides.mirror(), "16m") else { return };
    let daemon = sides.start(&[]);
    await_sync(&daemon);
    store(&daemon, 0..150);
    daemon.await_metric_that("tilecatcher_mirror_losses", |losses| losses >= 1.0);
    assert_eq!(ready(&daemon)["ack_level"], "durable");
    check(&daemon, 0..150);
    drop(mounted);
    store(&daemon, 150..155);
    daemon.stop();
    assert_eq!(std::fs::read_dir(sides.mirror()).expect("the mount point").count(), 0, "written to the mount point");
    let daemon = sides.start(&[]);
    assert_eq!(ready(&daemon)["mirror"], "lost");
    let _mounted = Mounted::new(&sides.mirror(), "512m").expect("a larger disk");
    await_sync(&daemon);
    check(&daemon, 0..155);
    daemon.stop();
    assert_equal(&sides);
}

#[test]
fn a_new_mirror_that_is_unmounted_while_it_is_filled_is_not_filled_where_it_was() {
    let sides = Sides::new();
    let daemon = Daemon::start(sides.data(), &[]);
    store(&daemon, 0..150);
    daemon.stop();
    let Some(mounted) = Mounted::new(&sides.mirror(), "512m") else { return };
    let daemon = sides.start(&["mirror.rate=1MiB"]);
    await_found(|| ready(&daemon)["mirror"].to_string(), |phase| phase.contains("resynchronising"));
    drop(mounted);
    await_found(|| daemon.log(), |log| log.contains("is not mounted"));
    assert_eq!(std::fs::read_dir(sides.mirror()).expect("the mount point").count(), 0, "written to the mount point");
    store(&daemon, 150..155);
    daemon.stop();
    let _mounted = Mounted::new(&sides.mirror(), "512m").expect("the disk again");
    let daemon = sides.start(&[]);
    await_sync(&daemon);
    check(&daemon, 0..155);
    daemon.stop();
    assert_equal(&sides);
}
