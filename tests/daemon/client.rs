//! simulate, send and demo, as a person runs them.

use super::support::{Daemon, data_dir, program};
use std::path::{Path, PathBuf};
use std::process::Output;

fn run(args: &[&str]) -> Output {
    program().args(args).output().expect("runs")
}

fn simulate(dir: &Path, seed: &str) -> PathBuf {
    let dir = dir.to_str().expect("a path");
    let made = run(&["simulate", dir, "--acq", "9", "--steps", "2x2", "--size", "128x96", "--seed", seed]);
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    PathBuf::from(String::from_utf8(made.stdout).expect("text").trim())
}

fn send(daemon: &Daemon, folder: &Path, more: &[&str]) -> Output {
    let (capture, http) = (daemon.capture.to_string(), format!("http://{}", daemon.http_address));
    let args = ["send", folder.to_str().expect("a path"), "--capture", &capture, "--http", &http];
    run(&[&args[..], more].concat())
}

#[test]
fn a_simulated_folder_is_sent_whole_and_again_without_storing_twice() {
    let (data, folders) = (data_dir(), data_dir());
    let daemon = Daemon::start_bare(data.path(), &[]);
    let folder = simulate(folders.path(), "1");
    for checksum in ["md5", "crc32", "sha256"] {
        let sent = send(&daemon, &folder, &["--json", "--checksum", checksum]);
        let summary: serde_json::Value = serde_json::from_slice(&sent.stdout).expect("JSON");
        assert_eq!((sent.status.code(), &summary["acknowledged"]), (Some(0), &16.into()));
    }
    daemon.await_metric("tilecatcher_tiles_stored_total{as=\"new\"}", 16.0);
    daemon.await_metric("tilecatcher_tiles_stored_total{as=\"duplicate\"}", 32.0);
    assert_eq!(daemon.metric("tilecatcher_tiles_beyond_grid_total"), 0.0);
}

#[test]
fn refused_tiles_are_named_and_end_with_exit_code_1() {
    let (data, first, second) = (data_dir(), data_dir(), data_dir());
    let daemon = Daemon::start_bare(data.path(), &["storage.on_conflict=reject"]);
    assert_eq!(send(&daemon, &simulate(first.path(), "1"), &[]).status.code(), Some(0));
    let refused = send(&daemon, &simulate(second.path(), "2"), &[]);
    assert_eq!(refused.status.code(), Some(1));
    let lines = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(lines.lines().filter(|line| line.starts_with("refused ")).count(), 16, "{lines}");
}

#[test]
fn a_folder_that_is_none_and_a_daemon_that_is_none_are_named() {
    let folders = data_dir();
    let none = run(&["send", folders.path().to_str().expect("a path")]);
    assert_eq!(none.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&none.stderr).contains("no *_logfile.ini"));
    let folder = simulate(folders.path(), "1");
    // Port 1 is nobody's.
    let unreachable = run(&["send", folder.to_str().expect("a path"), "--http", "http://127.0.0.1:1"]);
    assert_eq!(unreachable.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&unreachable.stderr).contains("is the daemon running"));
}

#[test]
fn the_demo_shows_every_tile_stored_and_equal() {
    let demo = run(&["demo", "--steps", "2x1", "--size", "200x100", "--bits", "16"]);
    let text = String::from_utf8_lossy(&demo.stdout).into_owned();
    assert!(demo.status.success(), "{text}{}", String::from_utf8_lossy(&demo.stderr));
    assert!(
        text.contains("8 tiles acknowledged, 0 refused") && text.contains("8 equal byte for byte, 0 different"),
        "{text}"
    );
}
