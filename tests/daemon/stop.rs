//! Starting and stopping: signals, exit codes, two daemons on one directory.

use super::support::{ACQ, Daemon, command, data_dir, frame, key, noise, program, segments, wait};
use std::process::Stdio;

#[test]
fn sigterm_answers_what_is_in_flight_seals_and_exits_0() {
    let data = data_dir();
    let mut daemon = Daemon::start(data.path(), &[]);
    let mut connection = daemon.connect();
    let image = noise(2, 2_000_000);
    let message = frame(key(0, 0), &image);
    // The tile has begun when the signal comes, and ends after it.
    connection.send(&message[..1_000_000]);
    let begun = connection.stream.try_clone().expect("a clone");
    daemon.await_metric("tilecatcher_connections", 1.0);
    daemon.terminate();
    connection.send(&message[1_000_000..]);
    assert_eq!(connection.answer().status, 0);
    drop(begun);
    assert_eq!(daemon.wait().code(), Some(0));
    for segment in segments(data.path()) {
        let bytes = std::fs::read(&segment).expect("a segment");
        assert_eq!(&bytes[bytes.len() - 4096..][..8], b"TILEFOOT", "{} is not sealed", segment.display());
    }
    let daemon = Daemon::start_bare(data.path(), &[]);
    assert_eq!(daemon.http.content(ACQ, 0, 0).expect("stored").bytes, image);
}

#[test]
fn a_second_daemon_on_the_same_directory_is_refused_with_one_line() {
    let data = data_dir();
    let daemon = Daemon::start(data.path(), &[]);
    let second = command(data.path(), &[]).output().expect("runs");
    assert_eq!(second.status.code(), Some(2));
    let line = String::from_utf8_lossy(&second.stderr);
    assert!(line.contains("in use by another tilecatcher") && line.lines().count() == 1, "{line}");
    daemon.connect().assert_works(0);
}

#[test]
fn wrong_settings_exit_2_with_key_and_remedy() {
    let run = |args: &[&str]| {
        let out = program().args(args).output().expect("runs");
        (out.status.code(), String::from_utf8_lossy(&out.stderr).into_owned())
    };
    let (code, line) = run(&["serve", "--set", "memory.bufers=1GiB"]);
    assert_eq!(code, Some(2));
    assert!(line.contains("memory.bufers") && line.contains("tilecatcher config"), "{line}");
    let (code, line) = run(&["serve", "--capture", "nowhere"]);
    assert_eq!((code, line.contains("capture.address")), (Some(2), true), "{line}");
    let (code, line) = run(&["serve", "--config", "/nonexistent.toml"]);
    assert_eq!((code, line.contains("/nonexistent.toml")), (Some(2), true), "{line}");
    let (code, line) = run(&["verify", "--data", "/nonexistent"]);
    assert_eq!((code, line.contains("/nonexistent")), (Some(2), true), "{line}");
}

#[test]
fn a_port_in_use_is_refused_and_the_directory_left_usable() {
    let (one, two) = (data_dir(), data_dir());
    let daemon = Daemon::start(one.path(), &[]);
    let mut taken = command(two.path(), &[]);
    taken.args(["--set", &format!("capture.address={}", daemon.capture)]).stderr(Stdio::piped());
    let mut process = taken.spawn().expect("runs");
    assert_eq!(wait(&mut process).code(), Some(2));
    Daemon::start(two.path(), &[]).stop();
}

#[test]
fn the_printed_configuration_is_a_configuration() {
    let run = |args: &[&str]| program().args(args).output().expect("runs");
    let printed = run(&["config", "--set", "storage.lanes=3"]).stdout;
    let text = String::from_utf8(printed).expect("text");
    assert!(text.contains("flag --set; default auto; TILECATCHER_STORAGE_LANES"), "{text}");
    let dir = data_dir();
    let file = dir.path().join("config.toml");
    std::fs::write(&file, &text).expect("written");
    let again = run(&["config", "--json", "--config", file.to_str().expect("a path")]);
    assert!(again.status.success(), "{}", String::from_utf8_lossy(&again.stderr));
    let keys: serde_json::Value = serde_json::from_slice(&again.stdout).expect("JSON");
    let lanes = keys.as_array().expect("a list").iter().find(|key| key["key"] == "storage.lanes").expect("listed");
    assert_eq!(lanes["value"], "3");
}

#[test]
fn a_directory_that_is_not_there_is_made_below_the_working_directory_too() {
    let data = data_dir();
    for dir in ["new", "./other", "deep/er"] {
        let mut relative = command(std::path::Path::new(dir), &[]);
        relative.current_dir(data.path());
        let daemon = Daemon::run(relative);
        daemon.start_acquisition();
        daemon.connect().assert_works(0);
        assert!(data.path().join(dir).join("store").exists());
    }
}
