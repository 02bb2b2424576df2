//! Compaction of a directory with deleted acquisitions: what lives stays, whatever happens in the middle.

use super::support::{Daemon, LOG, data_dir, frame, noise};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;
use tilecatcher::model::{AcqId, FrameNumber, TileKey};

const COLS: u32 = 40;
const KEPT: [u64; 2] = [201, 203];
const DELETED: u64 = 202;

fn image(acq: u64, col: u32) -> Vec<u8> {
    noise(acq * 1000 + u64::from(col), 150_000)
}

/// Three acquisitions whose tiles alternate, the middle one deleted. Returns the highest tile id.
fn fill(data: &Path) -> u64 {
    let daemon = Daemon::start_bare(data, &[]);
    for acq in [KEPT[0], DELETED, KEPT[1]] {
        daemon.http.start_acquisition(&format!("{acq}_log.ini"), LOG.as_bytes()).expect("started");
    }
    let mut connection = daemon.connect();
    let mut highest = 0;
    for col in 0..COLS {
        for acq in [KEPT[0], KEPT[1], DELETED] {
            let key = TileKey { acq: AcqId(acq), col, row: 0, frame: FrameNumber::STABLE };
            connection.send(&frame(key, &image(acq, col)));
            let answer = connection.answer();
            assert_eq!(answer.status, 0);
            highest = highest.max(answer.tile.0);
        }
    }
    daemon.http.delete_acquisition(AcqId(DELETED)).expect("deleted");
    daemon.stop();
    highest
}

fn assert_kept(daemon: &Daemon) {
    for acq in KEPT {
        for col in 0..COLS {
            let content = daemon.http.content(AcqId(acq), col, 0).expect("stored");
            assert!(content.bytes == image(acq, col), "acquisition {acq} col {col}");
        }
    }
    assert!(daemon.http.tile(AcqId(DELETED), 0, 0).is_err(), "deleted");
}

fn compact(data: &Path, flags: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tilecatcher"));
    command.arg("compact").arg("--data").arg(data).args(["--reserve", "1MiB"]).args(flags);
    command
}

fn report(output: &Output) -> serde_json::Value {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

fn bytes_of_journal(data: &Path) -> u64 {
    let entries = std::fs::read_dir(data.join("journal")).expect("a journal");
    entries.map(|entry| entry.expect("an entry").metadata().expect("its length").len()).sum()
}

fn assert_verified(data: &Path) {
    let mut verify = Command::new(env!("CARGO_BIN_EXE_tilecatcher"));
    let verified = verify.arg("verify").arg("--data").arg(data).output().expect("runs");
    let said = String::from_utf8_lossy(&verified.stdout);
    assert!(verified.status.success() && said.contains("the index agrees"), "{said}");
}

#[test]
fn compaction_frees_what_was_deleted_and_keeps_the_rest() {
    let data = data_dir();
    let highest = fill(data.path());
    let before = bytes_of_journal(data.path());
    let dry = report(&compact(data.path(), &["--json", "--dry-run"]).output().expect("runs"));
    assert_eq!((dry["deleted_acquisitions"].as_u64(), dry["journal"].is_null()), (Some(1), true));
    assert_eq!(bytes_of_journal(data.path()), before);
    assert_verified(data.path());
    let done = report(&compact(data.path(), &["--json"]).output().expect("runs"));
    let dead = done["dead_bytes"].as_u64().expect("a number");
    assert!(dead > 40 * 150_000, "{done}");
    assert!(bytes_of_journal(data.path()) + dead <= before, "{done}");
    let again = report(&compact(data.path(), &["--json"]).output().expect("runs"));
    assert_eq!(again["journal"]["records_dropped"].as_u64().unwrap_or(0), 0, "{again}");
    assert_verified(data.path());
    let daemon = Daemon::start_bare(data.path(), &[]);
    assert_kept(&daemon);
    // The highest ids were of the deleted acquisition: they are not given again.
    daemon.http.start_acquisition("204_log.ini", LOG.as_bytes()).expect("started");
    let mut connection = daemon.connect();
    let key = TileKey { acq: AcqId(204), col: 0, row: 0, frame: FrameNumber::STABLE };
    connection.send(&frame(key, b"new"));
    assert!(connection.answer().tile.0 > highest);
}

#[test]
fn a_compaction_killed_at_any_moment_loses_nothing() {
    let data = data_dir();
    fill(data.path());
    for wait_ms in [5, 12, 20, 30, 45] {
        let mut running = compact(data.path(), &[]).stdout(Stdio::null()).spawn().expect("starts");
        // Not a wait for something to happen: the moment of the kill is what varies.
        std::thread::sleep(Duration::from_millis(wait_ms));
        let _ = running.kill();
        let _ = running.wait();
        let daemon = Daemon::start_bare(data.path(), &[]);
        assert_kept(&daemon);
        daemon.stop();
    }
    assert!(compact(data.path(), &[]).output().expect("runs").status.success());
    assert_kept(&Daemon::start_bare(data.path(), &[]));
}

#[test]
fn a_directory_in_use_or_without_deletions_is_left_as_it_is() {
    let data = data_dir();
    let daemon = Daemon::start(data.path(), &[]);
    let refused = compact(data.path(), &[]).output().expect("runs");
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("in use"));
    daemon.stop();
    let before = bytes_of_journal(data.path());
    assert!(compact(data.path(), &[]).output().expect("runs").status.success());
    assert_eq!(bytes_of_journal(data.path()), before);
    assert_eq!(compact(Path::new("/no/such"), &[]).output().expect("runs").status.code(), Some(2));
}
