//! What may happen to a data directory and to the clock while nobody looks: each has a behaviour, and none a false
//! acknowledgement.

use super::io_errors::has;
use super::support::{ACQ, Daemon, PATIENCE, command, data_dir, frame, key, noise, program, remove_directory, tile};
use super::web::{create_rois, handed_out, next_tile, put};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;
use tilecatcher::client::CaptureClient;

const IMAGE: usize = 100_000;

fn send(daemon: &Daemon, col: u32) -> u64 {
    let mut connection = daemon.connect();
    connection.send(&frame(key(col, 0), &noise(u64::from(col), IMAGE)));
    let answer = connection.answer();
    assert_eq!(answer.status, 0, "tile {col}");
    answer.tile.0
}

fn assert_stored(daemon: &Daemon, cols: impl IntoIterator<Item = u32>) {
    for col in cols {
        let content = daemon.http.content(ACQ, col, 0).expect("an acknowledged tile");
        assert!(content.bytes == noise(u64::from(col), IMAGE), "tile {col}");
    }
}

/// Sends until something is not acknowledged or the connection ends; the columns that were acknowledged.
fn send_until_refused(daemon: &Daemon, from: u32, most: u32) -> Vec<u32> {
    let mut acknowledged = Vec::new();
    let Ok(mut client) = CaptureClient::connect(daemon.capture, 1, PATIENCE) else { return acknowledged };
    for col in from..from + most {
        let image = noise(u64::from(col), IMAGE);
        if client.send(&tile(key(col, 0), &image), col).is_err() {
            break;
        }
        match client.receive() {
            Ok(Some(answered)) if answered.response.status == 0 => acknowledged.push(col),
            _ => break,
        }
    }
    acknowledged
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("made");
    for entry in std::fs::read_dir(from).expect("readable") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => copy(&entry.path(), &target),
            // What is gone by now was only on its way.
            _ => drop(std::fs::copy(entry.path(), target)),
        }
    }
}

fn faketime_library() -> Option<PathBuf> {
    let dirs = std::fs::read_dir("/usr/lib").ok()?.flatten().map(|entry| entry.path());
    dirs.map(|dir| dir.join("faketime/libfaketimeMT.so.1")).find(|path| path.exists())
}

#[test]
fn a_clock_that_jumps_changes_no_order_no_id_and_no_lease() {
    let library = faketime_library();
    if !has("libfaketime", library.is_some()) {
        return;
    }
    let (data, clock) = (data_dir(), tempfile::NamedTempFile::new().expect("a file"));
    let set = |time: &str| std::fs::write(clock.path(), format!("{time}\n")).expect("set");
    set("+0d");
    let mut faked = command(data.path(), &["http.lease=10min"]);
    faked.env("LD_PRELOAD", library.expect("checked")).env("FAKETIME_TIMESTAMP_FILE", clock.path());
    faked.env("FAKETIME_NO_CACHE", "1").env("DONT_FAKE_MONOTONIC", "1");
    let daemon = Daemon::run(faked);
    daemon.start_acquisition();
    create_rois(&daemon, ACQ.0, &[("5", &[(70, 0), (70, 1)])]).with(200);
    (0..2).for_each(|row| _ = put(&daemon, ACQ.0, &super::web::name(70, row), b"x"));
    let query = format!("acqid={ACQ}&ntiles=1");
    let lent = handed_out(&next_tile(&daemon, &query));
    assert_eq!(lent.len(), 1);
    let mut ids = Vec::new();
    // Forward 10 years, back behind the start, to 1970, to a leap second, and back to what it is.
    let times = ["+3650d", "-1000d", "@1970-01-01 00:00:01", "@2016-12-31 23:59:60", "+0d"];
    for (col, time) in times.into_iter().enumerate() {
        set(time);
        ids.push(send(&daemon, u32::try_from(col).expect("few")));
        daemon.http.tile(ACQ, 0, 0).expect("described");
    }
    assert!(ids.is_sorted(), "{ids:?}");
    // Looked at once a second: the lease is over for nobody, and lent to nobody else.
    set("+3650d");
    let until = Instant::now() + std::time::Duration::from_millis(2500);
    while Instant::now() < until {
        daemon.http.tile(ACQ, 0, 0).expect("described");
    }
    let other = handed_out(&next_tile(&daemon, &query));
    assert!(other.len() == 1 && other != lent, "a lease ended because the clock was set: {other:?} and {lent:?}");
    assert!(handed_out(&next_tile(&daemon, &query)).is_empty(), "a tile was lent twice");
    daemon.kill();
    let daemon = Daemon::start_bare(data.path(), &[]);
    assert_stored(&daemon, 0..5);
    assert!(send(&daemon, 6) > *ids.last().expect("ids"), "an id is given again");
    daemon.stop();
}

#[test]
fn an_index_that_is_deleted_under_a_daemon_costs_nothing_but_a_rebuild() {
    let data = data_dir();
    let daemon = Daemon::start(data.path(), &["index.overlay_max=1024"]);
    let mut ids: Vec<u64> = (0..5).map(|col| send(&daemon, col)).collect();
    remove_directory(&data.path().join("index"));
    ids.extend((5..30).map(|col| send(&daemon, col)));
    assert_stored(&daemon, 0..30);
    daemon.terminate();
    drop(daemon);
    let daemon = Daemon::start_bare(data.path(), &[]);
    assert_stored(&daemon, 0..30);
    for (col, id) in ids.iter().enumerate() {
        let col = u32::try_from(col).expect("few");
        assert_eq!(daemon.http.tile(ACQ, col, 0).expect("described")["tile_id"].as_u64(), Some(*id));
    }
}

#[test]
fn an_index_of_another_directory_is_not_believed() {
    let (mine, other) = (data_dir(), data_dir());
    for (data, cols) in [(mine.path(), 0..4), (other.path(), 10..30)] {
        let daemon = Daemon::start(data, &[]);
        cols.for_each(|col| _ = send(&daemon, col));
        daemon.stop();
    }
    std::fs::remove_dir_all(mine.path().join("index")).expect("removed");
    copy(&other.path().join("index"), &mine.path().join("index"));
    let daemon = Daemon::start_bare(mine.path(), &[]);
    assert_stored(&daemon, 0..4);
    assert!(daemon.http.tile(ACQ, 10, 0).is_err(), "a tile of another directory is described");
    assert_eq!(send(&daemon, 4), 5, "ids go on where this directory's ended");
}

#[test]
fn a_copy_that_was_made_while_tiles_came_holds_all_that_was_acknowledged_before() {
    let (data, copied) = (data_dir(), data_dir());
    let daemon = Daemon::start(data.path(), &["storage.segment_size=1MiB"]);
    let before = send_until_refused(&daemon, 0, 40);
    assert_eq!(before.len(), 40);
    std::thread::scope(|scope| {
        let sender = scope.spawn(|| send_until_refused(&daemon, 40, 60));
        copy(data.path(), copied.path());
        assert_eq!(sender.join().expect("no panic").len(), 60);
    });
    let copy = Daemon::start_bare(copied.path(), &[]);
    assert_stored(&copy, 0..40);
    // What came meanwhile is there or is not; it is never something else.
    for col in 40..100 {
        if let Ok(content) = copy.http.content(ACQ, col, 0) {
            assert!(content.bytes == noise(u64::from(col), IMAGE), "tile {col}");
        }
    }
    assert_eq!(send_until_refused(&copy, 40, 60).len(), 60, "what is missing is taken");
    assert_stored(&copy, 0..100);
    assert_stored(&daemon, 0..100);
}

/// A directory that is mounted on itself, to be read only.
struct ReadOnly<'a>(&'a Path);

impl Drop for ReadOnly<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0).status();
    }
}

#[test]
fn a_directory_that_can_only_be_read_is_refused_with_one_line_and_exit_code_2() {
    let data = data_dir();
    let daemon = Daemon::start(data.path(), &[]);
    send(&daemon, 0);
    daemon.stop();
    let mount = |arguments: &[&str]| {
        Command::new("mount").args(arguments).arg(data.path()).stderr(std::process::Stdio::null()).status()
    };
    let path = data.path().to_str().expect("text");
    let works = mount(&["--bind", path]).is_ok_and(|status| status.success());
    if !has("mount --bind", works) {
        return;
    }
    let guard = ReadOnly(data.path());
    let remounted = mount(&["-o", "remount,bind,ro"]).is_ok_and(|status| status.success());
    assert!(has("mount -o remount,bind,ro", remounted) || !works);
    let refused = command(data.path(), &[]).output().expect("runs");
    let line = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(2), "{line}");
    assert!(line.contains(path) && line.contains("write") && line.lines().count() == 1, "{line}");
    let verified = program().args(["verify", "--data"]).arg(data.path()).output().expect("runs");
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stderr));
    drop(guard);
    assert_stored(&Daemon::start_bare(data.path(), &[]), 0..1);
}

#[test]
fn a_directory_that_is_renamed_under_a_daemon_keeps_all_that_is_acknowledged() {
    let (parent, settings) = (data_dir(), ["storage.segment_size=1MiB"]);
    let (first, second) = (parent.path().join("first"), parent.path().join("second"));
    let mut daemon = Daemon::start(&first, &settings);
    let mut acknowledged = send_until_refused(&daemon, 0, 5);
    std::fs::rename(&first, &second).expect("renamed");
    // The open segment is still there, and is written. The next one can not be made.
    acknowledged.extend(send_until_refused(&daemon, 5, 100));
    assert!((10..105).contains(&acknowledged.len()), "{} tiles", acknowledged.len());
    assert_eq!(daemon.wait().code(), Some(4), "{}", daemon.log());
    assert!(daemon.log().contains("first/journal"), "{}", daemon.log());
    assert!(!first.exists());
    assert_stored(&Daemon::start_bare(&second, &settings), acknowledged);
}

#[test]
fn a_directory_that_is_deleted_under_a_daemon_ends_it_before_anything_more_is_acknowledged() {
    let parent = data_dir();
    let data = parent.path().join("data");
    let mut daemon = Daemon::start(&data, &["scrub.rate=off"]);
    assert_eq!(send_until_refused(&daemon, 0, 5).len(), 5);
    remove_directory(&data);
    assert!(send_until_refused(&daemon, 5, 1).is_empty(), "acknowledged into a file that is gone");
    assert_eq!(daemon.wait().code(), Some(4), "{}", daemon.log());
    assert!(daemon.log().contains("removed while it was being written"), "{}", daemon.log());
}

#[test]
fn a_segment_that_is_missing_at_a_start_is_an_error_and_the_others_are_served() {
    for cut in [false, true] {
        let data = data_dir();
        let daemon = Daemon::start(data.path(), &["storage.segment_size=1MiB"]);
        assert_eq!(send_until_refused(&daemon, 0, 30).len(), 30);
        daemon.stop();
        let lanes = |path: &PathBuf| path.to_string_lossy().ends_with("-0000.tcj");
        let segment = super::support::segments(data.path()).into_iter().find(lanes).expect("a segment of tiles");
        if cut {
            let file = std::fs::File::options().write(true).open(&segment).expect("a segment");
            file.set_len(500_000).expect("cut");
        } else {
            std::fs::remove_file(&segment).expect("removed");
        }
        let daemon = Daemon::start_bare(data.path(), &[]);
        assert!(daemon.log().contains("stored records are gone from the journal"), "{}", daemon.log());
        assert_eq!(daemon.metric("tilecatcher_recovery_corrupt"), 1.0);
        assert!(daemon.http.tile(ACQ, 9, 0).is_err() || cut);
        assert_stored(&daemon, 10..30);
        // What is gone is taken when it is sent again.
        assert_eq!(send_until_refused(&daemon, 0, 30).len(), 30);
        assert_stored(&daemon, 0..30);
    }
}

/// The segments of tiles but the first.
fn later_segments(data: &Path) -> Vec<PathBuf> {
    let all = super::support::segments(data).into_iter();
    all.filter(|path| !path.to_string_lossy().ends_with("-ffff.tcj")).skip(1).collect()
}

#[test]
fn what_was_given_with_tiles_that_are_gone_is_not_given_again() {
    let none = |_: &Path| ();
    let by_hand = |data: &Path| {
        for command in [&["index", "rebuild"][..], &["compact"]] {
            let output = program().args(command).arg("--data").arg(data).output().expect("runs");
            assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
        }
    };
    lose_and_put_back(none);
    lose_and_put_back(by_hand);
}

/// Tiles, then segments that are gone, then what an operator does before the next start.
fn lose_and_put_back(meanwhile: impl Fn(&Path)) {
    let (data, aside) = (data_dir(), data_dir());
    let daemon = Daemon::start(data.path(), &["storage.segment_size=1MiB"]);
    let ids: Vec<u64> = (0..30).map(|col| send(&daemon, col)).collect();
    let highest = *ids.iter().max().expect("tiles");
    daemon.stop();
    let gone = later_segments(data.path());
    assert!(gone.len() > 1, "{gone:?}");
    let kept_aside = |path: &PathBuf| aside.path().join(path.file_name().expect("a name"));
    for path in &gone {
        std::fs::copy(path, kept_aside(path)).expect("copied");
        std::fs::remove_file(path).expect("removed");
    }
    meanwhile(data.path());
    Daemon::start_bare(data.path(), &[]).stop();
    // The index that knew of them is gone by now.
    let daemon = Daemon::start_bare(data.path(), &[]);
    assert!(!daemon.log().contains("stored records are gone from the journal"), "{}", daemon.log());
    let new = send(&daemon, 40);
    assert!(new > highest, "tile {new} was given before, up to {highest}");
    daemon.stop();
    for path in &gone {
        assert!(!path.exists(), "{} is another segment now", path.display());
        std::fs::copy(kept_aside(path), path).expect("put back");
    }
    let daemon = Daemon::start_bare(data.path(), &[]);
    assert_stored(&daemon, (0..30).chain([40]));
    assert_eq!((send(&daemon, 29), send(&daemon, 40)), (ids[29], new));
}

#[test]
fn two_segments_with_one_number_stop_the_start() {
    let data = data_dir();
    let daemon = Daemon::start(data.path(), &["storage.segment_size=1MiB"]);
    assert_eq!(send_until_refused(&daemon, 0, 30).len(), 30);
    daemon.stop();
    let segment = later_segments(data.path()).pop().expect("a segment");
    let name = segment.file_name().expect("a name").to_string_lossy().into_owned();
    let other = format!("{}-0005.tcj", &name[..16]);
    std::fs::copy(&segment, segment.with_file_name(&other)).expect("copied");
    let (status, log) = Daemon::try_run(command(data.path(), &[])).err().expect("a start that is refused");
    assert_eq!(status.code(), Some(2), "{log}");
    assert!(log.contains(&name) && log.contains(&other) && log.contains("same number"), "{log}");
    std::fs::remove_file(segment.with_file_name(&other)).expect("removed");
    assert_stored(&Daemon::start_bare(data.path(), &[]), 0..30);
}
