//! `backup` beside a daemon that is being written to: what was acknowledged before it began is in it.

use super::rot::{Flip, find};
use super::support::{ACQ, Daemon, await_found, data_dir, key, noise, program, segments, tile};
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

fn backup(data: &Path, to: &Path) -> Output {
    program().args(["backup", "--data"]).arg(data).arg("--to").arg(to).output().expect("runs")
}

fn report(output: &Output) -> serde_json::Value {
    let stderr = String::from_utf8_lossy(&output.stderr);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {stderr}"))
}

fn image(n: u32) -> Vec<u8> {
    noise(u64::from(n) + 5, [900, 40_000, 200_000][n as usize % 3])
}

fn send_while(daemon: &Daemon, on: &AtomicBool, sender: u32, acknowledged: &Mutex<Vec<u32>>) {
    let mut client = daemon.client(3);
    let mut note = |answered: tilecatcher::client::Answered<u32>| {
        assert_eq!(answered.response.status, 0);
        acknowledged.lock().expect("no panic").push(answered.tag);
    };
    for n in (sender * 100_000..).take_while(|_| on.load(Ordering::SeqCst)) {
        let image = image(n);
        client.send(&tile(key(n, 0), &image), n).expect("sent").into_iter().for_each(&mut note);
    }
    while let Some(answered) = client.receive().expect("an answer") {
        note(answered);
    }
}

fn await_tiles(acknowledged: &Mutex<Vec<u32>>, least: usize) -> Vec<u32> {
    await_found(|| acknowledged.lock().expect("no panic").len(), |tiles| *tiles >= least);
    acknowledged.lock().expect("no panic").clone()
}

#[test]
fn a_backup_under_load_holds_what_was_acknowledged_before_it_began() {
    let (data, to) = (data_dir(), data_dir());
    let daemon = Daemon::start(data.path(), &["storage.lanes=2"]);
    let (on, acknowledged) = (AtomicBool::new(true), Mutex::new(Vec::new()));
    let known = std::thread::scope(|scope| {
        for sender in 0..2 {
            let (daemon, on, acknowledged) = (&daemon, &on, &acknowledged);
            scope.spawn(move || send_while(daemon, on, sender, acknowledged));
        }
        await_tiles(&acknowledged, 60);
        let first = backup(data.path(), to.path());
        assert!(first.status.success(), "{}", String::from_utf8_lossy(&first.stderr));
        let first = report(&first);
        let known = await_tiles(&acknowledged, 200);
        let second = backup(data.path(), to.path());
        on.store(false, Ordering::SeqCst);
        assert!(second.status.success(), "{}", String::from_utf8_lossy(&second.stderr));
        let second = report(&second);
        assert!(first["segments_open"].as_u64() > Some(0), "{first}");
        assert!(second["segments_equal"].as_u64() > Some(0), "nothing was there already: {second}");
        assert!(second["records"].as_u64() >= u64::try_from(known.len()).ok(), "{second}");
        known
    });
    daemon.stop();
    let verified = program().args(["verify", "--data"]).arg(to.path()).output().expect("runs");
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stdout));
    let daemon = Daemon::start_bare(to.path(), &[]);
    for n in known {
        let content = daemon.http.content(ACQ, n, 0).unwrap_or_else(|error| panic!("tile {n}: {error}"));
        assert!(content.bytes == image(n), "tile {n} is altered");
    }
    assert_eq!(daemon.metric("tilecatcher_recovery_torn") + daemon.metric("tilecatcher_recovery_corrupt"), 0.0);
}

#[test]
fn a_damaged_segment_is_named_and_foreign_directories_are_refused() {
    let (data, to, other) = (data_dir(), data_dir(), data_dir());
    let daemon = Daemon::start(data.path(), &[]);
    let (on, acknowledged) = (AtomicBool::new(true), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        let (daemon, on, acknowledged) = (&daemon, &on, &acknowledged);
        scope.spawn(move || {
            await_tiles(acknowledged, 20);
            on.store(false, Ordering::SeqCst);
        });
        send_while(daemon, on, 0, acknowledged);
    });
    daemon.stop();
    let twice = [backup(data.path(), to.path()), backup(data.path(), to.path())].map(|output| report(&output));
    assert_eq!((&twice[1]["segments_copied"], &twice[1]["segments"]), (&0.into(), &twice[0]["segments"]));

    Daemon::start(other.path(), &[]).stop();
    assert_eq!(backup(other.path(), to.path()).status.code(), Some(2));
    assert_eq!(backup(data.path(), data.path()).status.code(), Some(2));
    assert_eq!(backup(&data.path().join("nothing"), to.path()).status.code(), Some(2));

    let segment = lane_segment(data.path());
    let mut bytes = std::fs::read(&segment).expect("readable");
    bytes[4096 + 192 + 300] ^= 1;
    std::fs::write(&segment, bytes).expect("written");
    let fresh = data_dir();
    let damaged = backup(data.path(), fresh.path());
    let said = String::from_utf8_lossy(&damaged.stderr).into_owned();
    let name = segment.file_name().expect("a name").to_string_lossy().into_owned();
    assert!(damaged.status.code() == Some(1) && said.contains(&name), "{:?} {said}", damaged.status);
    assert_eq!(report(&damaged)["segments"], twice[0]["segments"], "the others are there");
    let source: Vec<_> = segments(data.path());
    let lost = &source[source.len() - 1];
    std::fs::remove_file(lost).expect("removed");
    for run in 1..=2 {
        let later = backup(data.path(), to.path());
        let said = String::from_utf8_lossy(&later.stderr).into_owned();
        assert!(later.status.code() == Some(1) && said.contains("is gone"), "run {run}: {:?} {said}", later.status);
        assert_eq!(report(&later)["segments_superseded"], 0, "run {run}: {said}");
        assert!(held(to.path(), "journal", lost).is_some(), "run {run}: the only copy was moved away");
    }
}

fn store(daemon: &Daemon, numbers: std::ops::Range<u32>) {
    let mut client = daemon.client(1);
    for n in numbers {
        client.send(&tile(key(n, 0), &image(n)), n).expect("sent");
    }
    while let Some(answered) = client.receive().expect("an answer") {
        assert_eq!(answered.response.status, 0);
    }
}

fn lane_segment(data: &Path) -> PathBuf {
    let is_lane = |path: &PathBuf| path.to_string_lossy().ends_with("-0000.tcj");
    segments(data).into_iter().find(is_lane).expect("a segment of the lane")
}

/// The bytes that a backup has of a segment in `dir`, if it is there.
fn held(to: &Path, dir: &str, segment: &Path) -> Option<Vec<u8>> {
    std::fs::read(to.join(dir).join(segment.file_name().expect("a name"))).ok()
}

#[test]
fn a_segment_that_lost_records_never_takes_its_backup_away() {
    let data = data_dir();
    let daemon = Daemon::start(data.path(), &[]);
    store(&daemon, 0..12);
    daemon.stop();
    let segment = lane_segment(data.path());
    let whole = std::fs::read(&segment).expect("readable");
    let cut = whole[..whole.len() / 2].to_vec();
    let (mut headless, mut damaged) = (whole.clone(), whole[..whole.len() - 4096].to_vec());
    headless[..4096].fill(0x5a);
    damaged[4096 + 30] ^= 1;
    let cases = [
        ("cut", cut.clone(), "journal"),
        ("cut and sealed again", cut, "journal"),
        ("without its trailer and a record", damaged, "journal"),
        ("without a header", headless, "journal"),
        ("unreadable", vec![0x5a; whole.len()], "journal"),
        ("zeros", vec![0; whole.len()], "journal"),
        ("all behind its header zeros", [&whole[..4096], &vec![0; whole.len() - 4096]].concat(), "journal"),
    ];
    for (what, bytes, place) in cases {
        let to = data_dir();
        assert!(backup(data.path(), to.path()).status.success());
        std::fs::write(&segment, bytes).expect("written");
        if what.contains("sealed again") {
            Daemon::start_bare(data.path(), &[]).stop();
        }
        let output = backup(data.path(), to.path());
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            output.status.code() == Some(1) && said.contains("earlier backup"),
            "{what}: {:?} {said}",
            output.status
        );
        assert!(held(to.path(), place, &segment).as_ref() == Some(&whole), "{what}: not in {place}: {said}");
        std::fs::write(&segment, &whole).expect("put back");
        assert!(backup(data.path(), to.path()).status.success(), "{what}: put back");
        assert!(held(to.path(), "journal", &segment).as_ref() == Some(&whole), "{what}: put back");
    }
}

#[test]
fn a_record_that_rots_while_its_segment_grows_is_kept_from_the_earlier_backup() {
    let (data, to) = (data_dir(), data_dir());
    let daemon = Daemon::start(data.path(), &[]);
    store(&daemon, 0..5);
    assert!(backup(data.path(), to.path()).status.success());
    let (segment, at) = find(data.path(), &image(1));
    let earlier = held(to.path(), "journal", &segment).expect("backed up");
    let _rot = Flip::make(&segment, at + 100);
    store(&daemon, 5..10);
    let output = backup(data.path(), to.path());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1) && said.contains("earlier backup"), "{:?} {said}", output.status);
    assert!(held(to.path(), "superseded", &segment) == Some(earlier), "{said}");
    find(to.path(), &image(9));
}

#[test]
fn a_segment_with_the_number_of_a_lost_one_does_not_replace_its_backup() {
    let (data, to) = (data_dir(), data_dir());
    let daemon = Daemon::start(data.path(), &[]);
    store(&daemon, 0..5);
    daemon.stop();
    assert!(backup(data.path(), to.path()).status.success());
    let segment = lane_segment(data.path());
    let earlier = std::fs::read(&segment).expect("readable");
    segments(data.path()).iter().for_each(|segment| std::fs::remove_file(segment).expect("removed"));
    // The index knows what was given.
    std::fs::remove_dir_all(data.path().join("index")).expect("removed");
    let daemon = Daemon::start(data.path(), &[]);
    store(&daemon, 5..10);
    daemon.stop();
    let output = report(&backup(data.path(), to.path()));
    assert!(output["segments_superseded"].as_u64() > Some(0), "{output}");
    assert!(held(to.path(), "superseded", &segment) == Some(earlier), "{output}");
    let now = std::fs::read(&segment).expect("the number was not given again: the test shows nothing");
    assert!(held(to.path(), "journal", &segment) == Some(now), "{output}");
}
