//! What an operator says to a running daemon: over HTTP, and by `tilecatcher admin`.

use super::access::{Tokens, bearer};
use super::support::{ACQ, Daemon, PATIENCE, await_found, data_dir, frame, key, noise, program, segments, tile};
use super::web::{ask, get, get_json, head, name, tile_path, upload};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const BASE: &str = "/api/v1/admin";

fn post(daemon: &Daemon, path: &str) -> Value {
    let answer = ask(daemon, "POST", &format!("{BASE}/{path}"), "", b"");
    assert!(matches!(answer.status, 200 | 202), "{}", answer.text());
    answer.json()
}

fn put(daemon: &Daemon, path: &str, body: &Value) -> super::web::Answer {
    ask(daemon, "PUT", &format!("{BASE}/{path}"), "", body.to_string().as_bytes())
}

/// `tilecatcher admin`: exit code, what it printed, what it complained.
fn admin(daemon: &Daemon, args: &[&str]) -> (i32, String, String) {
    let url = format!("http://{}", daemon.http_address);
    let run = program().arg("admin").args(args).args(["--http", &url]).output().expect("runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (run.status.code().expect("ended by itself"), text(&run.stdout), text(&run.stderr))
}

fn image(col: u32, row: u32) -> Vec<u8> {
    noise((u64::from(col) << 32) | u64::from(row), [700, 20_000, 90_000][row as usize % 3])
}

/// Sends one tile of a column after another until it is told to end or the daemon is gone. Returns how many were
/// acknowledged.
fn send_until(daemon: &Daemon, col: u32, first: u32, end: &AtomicBool, acknowledged: &Mutex<Vec<(u32, u32)>>) {
    let mut client = daemon.client(4);
    let note = |row: u32| acknowledged.lock().expect("no panic").push((col, row));
    for row in first..first + 100_000 {
        if end.load(Ordering::SeqCst) {
            break;
        }
        let image = image(col, row);
        match client.send(&tile(key(col, row), &image), row) {
            Ok(answered) => answered.into_iter().for_each(|answered| {
                assert_eq!(answered.response.status, 0, "{:?}", answered.response);
                note(answered.tag);
            }),
            Err(_) => break,
        }
    }
    while let Ok(Some(answered)) = client.receive() {
        assert_eq!(answered.response.status, 0);
        note(answered.tag);
    }
}

fn assert_all_there(daemon: &Daemon, acknowledged: &[(u32, u32)]) {
    for (col, row) in acknowledged.iter().copied() {
        let content = daemon.http.content(ACQ, col, row).expect("an acknowledged tile is stored");
        assert!(content.bytes == image(col, row), "tile {col}, {row} is altered");
    }
}

fn await_index(daemon: &Daemon) -> Value {
    await_found(|| get_json(daemon, &format!("{BASE}/index")), |job| job["state"] != "running")
}

/// Something of every kind, so that the index has rows of all kinds.
fn fill(daemon: &Daemon) {
    let mut connection = daemon.connect();
    for (col, row) in [(0, 0), (1, 0), (0, 0), (2, 1)] {
        connection.send(&frame(key(col, row), &image(col, row + u32::from(col == 0))));
        assert_eq!(connection.answer().status, 0);
    }
    connection.send(&frame(key(1, 0), b"another content: a new version"));
    assert_eq!(connection.answer().status, 0);
    super::web::create_rois(daemon, ACQ.0, &[("5800", &[(0, 0), (1, 0), (5, 5)])]).with(200);
}

#[test]
fn paused_capture_holds_senders_back_and_resumed_answers_them() {
    let data = data_dir();
    let daemon = Daemon::start(data.path(), &[]);
    let mut connection = daemon.connect();
    connection.assert_works(1);
    // One that has begun is taken.
    let mut begun = daemon.connect();
    let message = frame(key(2, 0), b"begun before the pause");
    begun.send(&message[..20]);
    daemon.await_metric_that("tilecatcher_received_bytes_total", |bytes| bytes > message.len() as f64);
    assert_eq!(post(&daemon, "capture/pause")["state"], "paused");
    assert_eq!(post(&daemon, "capture/pause")["changed"], false);
    begun.send(&message[20..]);
    assert_eq!(begun.answer().status, 0);
    begun.stream.set_read_timeout(Some(Duration::from_millis(300))).expect("a timeout");
    // Nobody reads what comes now, on old connections and on new ones.
    let mut late = daemon.connect();
    for sender in [&mut connection, &mut begun, &mut late] {
        sender.stream.set_read_timeout(Some(Duration::from_millis(200))).expect("a timeout");
        sender.send(&frame(key(3, 0), b"held back"));
        assert!(sender.stream.read(&mut [0; 1]).is_err(), "answered while paused");
        sender.stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    }
    let ping = get(&daemon, "/service/v1/ping").with(200);
    assert_eq!((ping.header("capture-status"), ping.header("system-status")), (Some("PAUSED"), Some("RED")));
    assert_eq!(get_json(&daemon, "/readyz")["capture"], "paused");
    assert_eq!(daemon.metric("tilecatcher_capture_paused"), 1.0);
    let path = tile_path(ACQ.0, &name(4, 0));
    let refused = ask(&daemon, "PUT", &path, "", b"II*\0");
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")), "{}", refused.text());
    daemon.await_metric("tilecatcher_tiles_refused_total{reason=\"paused\"}", 1.0);
    // Commands and queries go on.
    daemon.http.start_acquisition("124_x.ini", super::support::LOG.as_bytes()).expect("started");
    assert_eq!(daemon.http.content(ACQ, 2, 0).expect("served").bytes, b"begun before the pause");
    let (code, said, _) = admin(&daemon, &["resume"]);
    assert_eq!((code, said.as_str()), (0, "capture is running\n"));
    for sender in [&mut connection, &mut begun, &mut late] {
        assert_eq!(sender.answer().status, 0);
    }
    ask(&daemon, "PUT", &path, "", b"II*\0").with(200);
    assert_eq!(daemon.metric("tilecatcher_capture_paused"), 0.0);
    let ping = get(&daemon, "/service/v1/ping").with(200);
    assert_eq!((ping.header("capture-status"), ping.header("system-status")), (Some("RUNNING"), Some("GREEN")));
    // A pause does not outlive the daemon, nor keeps it from ending.
    post(&daemon, "capture/pause");
    daemon.stop();
    Daemon::start(data.path(), &[]).connect().assert_works(1);
}

#[test]
fn rotation_seals_what_is_open_and_capture_goes_on() {
    let data = data_dir();
    let daemon = Daemon::start(data.path(), &["storage.lanes=2"]);
    let mut connection = daemon.connect();
    (0..8).for_each(|col| connection.assert_works(col));
    assert_eq!(admin(&daemon, &["rotate"]), (0, "3 segments sealed\n".to_owned(), String::new()));
    assert_eq!(post(&daemon, "journal/rotate")["sealed"], 0, "nothing is open");
    let sealed = || segments(data.path()).iter().filter(|path| is_sealed(path)).count();
    assert_eq!(sealed(), 3);
    (8..16).for_each(|col| connection.assert_works(col));
    assert_eq!(post(&daemon, "journal/rotate")["sealed"], 2);
    assert_eq!(sealed(), 5);
    (0..16).for_each(|col| assert_eq!(daemon.http.content(ACQ, col, 7).expect("there").bytes, b"still works"));
    daemon.kill();
    let daemon = Daemon::start(data.path(), &["storage.lanes=2"]);
    (0..16).for_each(|col| assert_eq!(daemon.http.content(ACQ, col, 7).expect("there").bytes, b"still works"));
}

/// Sealed segments end with a trailer, open ones with zeros.
fn is_sealed(path: &Path) -> bool {
    let bytes = std::fs::read(path).expect("a segment");
    bytes[bytes.len() - 4096..].iter().any(|byte| *byte != 0)
}

#[test]
fn the_scrub_is_started_stopped_and_says_what_is_damaged() {
    let data = data_dir();
    let daemon = Daemon::start(data.path(), &[]);
    daemon.connect().assert_works(1);
    let refused = ask(&daemon, "POST", &format!("{BASE}/scrub/start"), "", b"").refused(409);
    assert!(refused.contains("scrub.rate"), "{refused}");
    let (code, said, _) = admin(&daemon, &["limits", "scrub.rate=unlimited"]);
    assert!(code == 0 && said.contains("scrub.rate = unlimited    # default 32MiB; admin;"), "{said}");
    daemon.await_metric("tilecatcher_scrub_passes_total", 1.0);
    assert_eq!(post(&daemon, "scrub/stop")["phase"], "stopped");
    assert_eq!(admin(&daemon, &["scrub", "report"]).0, 0);
    post(&daemon, "journal/rotate");
    let (segment, at) = super::rot::find(data.path(), b"still works");
    super::rot::Flip::make(&segment, at);
    let (code, said, _) = admin(&daemon, &["scrub", "start"]);
    // So small a journal may be done with already.
    assert!(code == 0 && (said.starts_with("scrub running") || said.starts_with("scrub waiting")), "{said}");
    daemon.await_metric("tilecatcher_corrupt_records", 1.0);
    let report = get_json(&daemon, &format!("{BASE}/scrub"));
    let damaged = &report["damaged"][0];
    assert_eq!((&damaged["tile"]["col"], &damaged["found_by"]), (&json!(1), &json!("scrub")), "{report}");
    assert_eq!((&report["damaged_records"], &report["rate"]), (&json!(1), &json!("unlimited")));
    let (code, said, _) = admin(&daemon, &["scrub", "report"]);
    assert!(code == 1 && said.contains("at column 1, row 7"), "{said}");
}

#[test]
fn the_log_level_changes_at_run_time() {
    let data = data_dir();
    let daemon = Daemon::start(data.path(), &[]);
    post(&daemon, "journal/rotate");
    assert!(!daemon.log().contains("sealed by an operator"), "info lines at level error");
    assert_eq!(admin(&daemon, &["log-level"]).1, "error\n");
    assert_eq!(admin(&daemon, &["log-level", "info"]), (0, "info\n".to_owned(), String::new()));
    post(&daemon, "journal/rotate");
    assert!(daemon.log().contains("sealed by an operator"), "{}", daemon.log());
    // Without an audit log the command itself is named.
    assert!(daemon.log().contains("command of an operator"), "{}", daemon.log());
    let (code, _, complaint) = admin(&daemon, &["log-level", "loud"]);
    assert!(code == 2 && complaint.contains("no log level"), "{complaint}");
}

#[test]
fn limits_are_listed_and_changed_and_none_locks_the_operator_out() {
    let data = data_dir();
    let daemon = Daemon::start(data.path(), &["capture.connections_per_peer=3"]);
    let listed = get_json(&daemon, &format!("{BASE}/limits"));
    let limit = |listed: &Value, key: &str| {
        let limits = listed["limits"].as_array().expect("a list");
        limits.iter().find(|limit| limit["key"] == key).cloned().unwrap_or_else(|| panic!("no {key} in {listed}"))
    };
    let per_peer = limit(&listed, "capture.connections_per_peer");
    assert_eq!((&per_peer["value"], &per_peer["source"]), (&json!("3"), &json!("flag --set")));
    assert_eq!(limit(&listed, "capture.slow_grace")["source"], "default");
    let mut first = daemon.connect();
    first.assert_works(1);
    let changed = put(&daemon, "limits", &json!({ "capture.connections_per_peer": "1", "http.listing_max": "2" }));
    let per_peer = limit(&changed.with(200).json(), "capture.connections_per_peer");
    assert_eq!((&per_peer["value"], &per_peer["source"]), (&json!("1"), &json!("admin")));
    assert!(daemon.connect().is_closed(), "a second connection of one peer");
    first.assert_works(2);
    first.assert_works(3);
    let tiles = get_json(&daemon, &format!("/service/v1/acquisition/{ACQ}/tiles?length=10"));
    assert_eq!(tiles["n_returned_tiles_for_all_acqs"], 2, "{tiles}");
    for (key, value, hint) in [
        ("http.connections_max", "1", "at least 8"),
        ("http.connections_max", "1000000000", "LimitNOFILE"),
        ("capture.slow_grace", "0s", "at least 1s"),
        ("scrub.rate", "quick", "no size"),
        ("storage.ack", "received", "can not be changed at run time"),
    ] {
        let message = put(&daemon, "limits", &json!({ key: value })).refused(400);
        assert!(message.contains(hint), "{key}={value}: {message}");
        let (code, _, complaint) = admin(&daemon, &["limits", &format!("{key}={value}")]);
        assert!(code == 2 && complaint.contains(hint), "{complaint}");
    }
    // One that can not be set: the others stay, too.
    let wanted = json!({ "capture.connections_per_peer": "5", "capture.slow_rate": "7KiB", "http.listing_max": "0" });
    assert!(put(&daemon, "limits", &wanted).refused(400).contains("http.listing_max"));
    let listed = get_json(&daemon, &format!("{BASE}/limits"));
    let value_of = |key: &str| (limit(&listed, key)["value"].clone(), limit(&listed, key)["source"].clone());
    assert_eq!(value_of("capture.connections_per_peer"), (json!("1"), json!("admin")));
    assert_eq!(value_of("capture.slow_rate").1, "default");
}

#[test]
fn a_slow_sender_is_judged_by_the_limits_as_they_are_now() {
    let data = data_dir();
    let daemon = Daemon::start(data.path(), &["capture.slow_grace=1h"]);
    let mut slow = daemon.connect();
    slow.send(&frame(key(1, 0), &noise(1, 50_000))[..1000]);
    daemon.await_metric_that("tilecatcher_received_bytes_total", |bytes| bytes >= 1000.0);
    put(&daemon, "limits", &json!({ "capture.slow_grace": "1s", "capture.slow_rate": "1MiB" })).with(200);
    assert!(slow.is_closed());
    daemon.await_metric("tilecatcher_connections_closed_total{reason=\"slow\"}", 1.0);
}

#[test]
fn the_index_is_checked_and_built_anew_under_load_and_nothing_is_missing() {
    let data = data_dir();
    let daemon = Daemon::start(data.path(), &["storage.lanes=2", "storage.segment_size=2MiB"]);
    fill(&daemon);
    let (end, acknowledged) = (AtomicBool::new(false), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for sender in 0..3 {
            let (daemon, end, acknowledged) = (&daemon, &end, &acknowledged);
            scope.spawn(move || send_until(daemon, 10 + sender, 0, end, acknowledged));
        }
        for _ in 0..2 {
            let (code, said, complaint) = admin(&daemon, &["index", "check"]);
            assert!(code == 0 && said.contains("agrees"), "{said}{complaint}");
            let (code, said, complaint) = admin(&daemon, &["index", "rebuild"]);
            assert!(code == 0 && said.contains("built anew"), "{said}{complaint}");
        }
        end.store(true, Ordering::SeqCst);
    });
    let acknowledged = acknowledged.into_inner().expect("no panic");
    assert!(acknowledged.len() > 20, "only {} tiles: the test shows nothing", acknowledged.len());
    assert_all_there(&daemon, &acknowledged);
    assert_eq!(daemon.http.content(ACQ, 1, 0).expect("there").bytes, b"another content: a new version");
    assert_eq!(admin(&daemon, &["index", "check"]).0, 0);
    let generations = std::fs::read_dir(data.path().join("index")).expect("an index").count();
    assert_eq!(generations, 1, "the old store and the one compared with are gone");
    daemon.stop();
    let verified = program().args(["verify", "--data"]).arg(data.path()).output().expect("runs");
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stdout));
}

#[test]
fn killed_while_it_is_paused_rotated_and_built_anew_it_has_every_acknowledged_tile() {
    let data = data_dir();
    let mut all: Vec<(u32, u32)> = Vec::new();
    for cycle in 0..6_u32 {
        let daemon = Daemon::start(data.path(), &["storage.lanes=2", "storage.segment_size=2MiB"]);
        assert_all_there(&daemon, &all);
        let (end, acknowledged) = (AtomicBool::new(false), Mutex::new(Vec::new()));
        std::thread::scope(|scope| {
            for sender in 0..2 {
                let (daemon, end, acknowledged) = (&daemon, &end, &acknowledged);
                scope.spawn(move || send_until(daemon, 10 + cycle * 2 + sender, 0, end, acknowledged));
            }
            scope.spawn(|| operate_until_killed(&daemon, cycle));
            await_found(|| acknowledged.lock().expect("no panic").len(), |tiles| *tiles >= 30);
            std::thread::sleep(Duration::from_millis(u64::from(cycle) * 37));
            super::support::signal(daemon.pid(), "-KILL");
        });
        daemon.kill();
        all.extend(acknowledged.into_inner().expect("no panic"));
    }
    let daemon = Daemon::start(data.path(), &[]);
    assert_all_there(&daemon, &all);
    post(&daemon, "index/check");
    assert_eq!(await_index(&daemon)["state"], "agrees");
    daemon.stop();
}

/// One command after another, until nobody answers.
fn operate_until_killed(daemon: &Daemon, cycle: u32) {
    let commands = ["index/rebuild", "journal/rotate", "capture/pause", "capture/resume", "index/check"];
    for n in cycle.. {
        let path = format!("{BASE}/{}", commands[n as usize % commands.len()]);
        let Ok(mut stream) = TcpStream::connect(daemon.http_address) else { return };
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let mut answer = Vec::new();
        let sent = stream.write_all(head("POST", &path, "Content-Length: 0\r\n").as_bytes());
        if sent.and_then(|()| stream.read_to_end(&mut answer)).is_err() || answer.is_empty() {
            return;
        }
        let text = String::from_utf8_lossy(&answer);
        assert!(["200", "202", "409"].iter().any(|ok| text.starts_with(&format!("HTTP/1.1 {ok}"))), "{path}: {text}");
    }
}

#[test]
fn a_sender_is_listed_and_cut_off_and_may_come_again() {
    let data = data_dir();
    let daemon = Daemon::start(data.path(), &[]);
    let mut connection = daemon.connect();
    connection.assert_works(1);
    let mut upload = upload(&daemon, ACQ.0, &name(4, 0), "", b"II*\0");
    let listed = get_json(&daemon, &format!("{BASE}/senders"));
    assert_eq!(listed["senders_total"], 2, "{listed}");
    let senders = listed["senders"].as_array().expect("a list");
    for sender in senders {
        let id = sender["id"].to_string();
        let (code, said, _) = admin(&daemon, &["senders"]);
        assert!(code == 0 && said.contains(sender["peer"].as_str().expect("an address")), "{said}");
        assert_eq!(admin(&daemon, &["disconnect", &id]), (0, format!("sender {id} is cut off\n"), String::new()));
    }
    assert!(connection.is_closed());
    assert!(matches!(upload.read(&mut [0; 1]), Ok(0) | Err(_)));
    daemon.await_metric("tilecatcher_connections_closed_total{reason=\"operator\"}", 1.0);
    let (code, _, complaint) = admin(&daemon, &["disconnect", "77"]);
    assert!(code == 2 && complaint.contains("there is no sender 77"), "{complaint}");
    daemon.connect().assert_works(2);
}

#[test]
fn drained_it_answers_what_is_in_flight_and_ends_in_order() {
    let data = data_dir();
    let mut daemon = Daemon::start(data.path(), &[]);
    let (end, acknowledged) = (AtomicBool::new(false), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        let (shared, end, acknowledged) = (&daemon, &end, &acknowledged);
        scope.spawn(move || send_until(shared, 1, 0, end, acknowledged));
        shared.await_metric_that("tilecatcher_tiles_stored_total{as=\"new\"}", |tiles| tiles > 5.0);
        assert_eq!(admin(shared, &["drain"]), (0, "capture is draining\n".to_owned(), String::new()));
    });
    assert_eq!(daemon.wait().code(), Some(0));
    let (code, _, complaint) = admin(&daemon, &["capture"]);
    assert!(code == 3 && complaint.contains("is the daemon running"), "{complaint}");
    let daemon = Daemon::start(data.path(), &[]);
    let acknowledged = acknowledged.into_inner().expect("no panic");
    assert_all_there(&daemon, &acknowledged);
    assert!(
        daemon.http.tile(ACQ, 1, u32::try_from(acknowledged.len()).expect("few")).is_err(),
        "a tile is stored that nobody was told of"
    );
}

#[test]
fn commands_need_the_scope_admin_and_are_in_the_audit_log() {
    let data = data_dir();
    let (tokens, audit) = (Tokens::new(data.path()), data.path().join("audit.jsonl"));
    let (reader, operator) = (bearer(&tokens.add("reader", "read")), bearer(&tokens.add("operator", "admin")));
    let audit_file = format!("audit.file={}", audit.display());
    let daemon = Daemon::start_bare(&data.path().join("data"), &[&tokens.setting, &audit_file]);
    for path in ["capture/pause", "drain", "journal/rotate", "index/rebuild"] {
        let path = format!("{BASE}/{path}");
        ask(&daemon, "POST", &path, &reader, b"").refused(403);
        ask(&daemon, "POST", &path, "", b"").refused(401);
    }
    ask(&daemon, "GET", &format!("{BASE}/limits"), &reader, b"").refused(403);
    ask(&daemon, "POST", &format!("{BASE}/capture/pause"), &operator, b"").with(200);
    ask(&daemon, "GET", &format!("{BASE}/limits"), &operator, b"").with(200);
    let body = json!({ "capture.slow_grace": "20s" }).to_string();
    ask(&daemon, "PUT", &format!("{BASE}/limits"), &operator, body.as_bytes()).with(200);
    daemon.stop();
    let audit = std::fs::read_to_string(audit).expect("an audit log");
    let lines: Vec<Value> = audit.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let commands: Vec<&Value> = lines.iter().filter(|line| line["event"] == "command").collect();
    let details: Vec<&str> = commands.iter().filter_map(|line| line["detail"].as_str()).collect();
    assert_eq!(details, ["capture paused", "capture.slow_grace 30s -> 20s"], "{audit}");
    assert!(commands.iter().all(|line| line["by"] == "token operator"), "{audit}");
}
