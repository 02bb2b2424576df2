//! replay against a running daemon: rates, sources, faults with their outcomes, expectations, bad input.
//!
//! Counts and outcomes are asserted, not times: others may be busy on the machine.

use super::support::{Daemon, data_dir, program, signal, wait};
use serde_json::Value;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use tilecatcher::client::HttpClientError;

fn command(daemon: &Daemon, args: &[&str]) -> Command {
    let mut command = program();
    command.args(["replay", "--capture", &daemon.capture.to_string(), "--json", "-"]);
    command.args(["--http", &format!("http://{}", daemon.http_address)]).args(args);
    command
}

/// Words, as a shell would split them.
fn words(line: &str) -> Vec<&str> {
    line.split_whitespace().collect()
}

fn replay(daemon: &Daemon, line: &str) -> Output {
    command(daemon, &words(line)).output().expect("runs")
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn report(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", stderr(output)))
}

/// A replay that everything went well in.
fn good(daemon: &Daemon, line: &str) -> Value {
    let output = replay(daemon, line);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    report(&output)
}

/// A command that must fail, without a daemon.
fn failure(args: &[&str], code: i32) -> String {
    let output = program().arg("replay").args(args).output().expect("runs");
    assert_eq!(output.status.code(), Some(code), "{}", stderr(&output));
    stderr(&output)
}

fn is_there(daemon: &Daemon, report: &Value) -> bool {
    match daemon.http.get_path(&format!("/api/v1/acquisitions/{}", report["acquisition"])) {
        Ok(_) => true,
        Err(HttpClientError::Refused { status: 404, .. }) => false,
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn an_open_loop_sends_every_tile_that_is_due_and_all_are_stored_as_sent() {
    let data = data_dir();
    let daemon = Daemon::start_bare(data.path(), &[]);
    let report = good(&daemon, "--rate 200 --tile-size 2kB --connections 3 --duration 2s --drain 60s --verify all");
    for (key, expected) in [("due", 400), ("acknowledged", 400), ("stored", 400), ("unsent", 0), ("unanswered", 0)] {
        assert_eq!(report[key], expected, "{key}: {report}");
    }
    assert_eq!((&report["verify"]["checked"], &report["verify"]["equal"]), (&400.into(), &400.into()));
    let rate = report["tiles_per_s"].as_f64().expect("a rate");
    // What is answered after the end does not count: at most what was due within the longest answer before it.
    let longest_s = report["latency"]["max_ms"].as_f64().expect("a time") / 1e3;
    let least = 200.0 * (1.0 - longest_s / 2.0) - 1.0;
    assert!((least..=200.0).contains(&rate), "{rate} tiles/s, {longest_s} s");
    assert_eq!(report["latency"]["count"], 400);
    let told = report["schedule_error"]["count"].as_u64().zip(report["behind"]["count"].as_u64()).expect("counts");
    assert_eq!(told.0 + told.1, 400);
    let series = report["series"].as_array().expect("a series");
    assert_eq!(series.iter().map(|point| point["tiles"].as_u64().expect("a number")).sum::<u64>(), 400);
    assert!(report["client"]["cpu_s"].as_f64().is_some_and(|cpu_s| cpu_s > 0.0));
    assert_eq!((&report["versions"]["ack_level"], &report["settings"]["senders"]), (&"durable".into(), &3.into()));
    assert!(!is_there(&daemon, &report), "it deletes what it made");
    daemon.await_metric("tilecatcher_tiles_stored_total{as=\"new\"}", 400.0);
}

#[test]
fn a_closed_loop_keeps_its_windows_full() {
    let data = data_dir();
    let daemon = Daemon::start_bare(data.path(), &[]);
    let line =
        "--mode closed --connections 3 --window 8 --tile-size 4kB --duration 10min --threads 2 --verify 50 --keep";
    let child = running(&daemon, line, 3 * 8 * 3);
    signal(child.id(), "-INT");
    let output = child.wait_with_output().expect("ended");
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let report = report(&output);
    let acknowledged = report["acknowledged"].as_u64().expect("a number");
    // More than one window after another: then sending and reading go on together.
    assert!(acknowledged > 3 * 8 * 2, "{acknowledged}");
    assert_eq!((&report["stored"], &report["verify"]["equal"]), (&acknowledged.into(), &50.into()));
    assert_eq!((&report["settings"]["mode"], &report["settings"]["threads"]), (&"closed".into(), &2.into()));
    assert!(is_there(&daemon, &report), "it was to be kept");
}

#[test]
fn each_fault_has_the_outcome_that_it_must_have() {
    let data = data_dir();
    let daemon = Daemon::start_bare(data.path(), &[]);
    for fault in ["cut", "slow", "corrupt", "duplicate", "reorder"] {
        let line =
            format!("--rate 200 --tile-size 20kB --connections 8 --duration 1s --verify all --fault {fault}=10%");
        let report = good(&daemon, &line);
        let count = &report["faults"][fault];
        let made = count["made"].as_u64().unwrap_or_else(|| panic!("no {fault}: {report}"));
        assert!(made > 0, "{count}");
        assert_eq!((&count["as_expected"], &count["unexpected"]), (&made.into(), &0.into()), "{fault}");
        let not_stored = if fault == "corrupt" { made } else { 0 };
        assert_eq!(report["due"].as_u64(), report["acknowledged"].as_u64().map(|n| n + not_stored), "{fault}");
        assert_eq!((&report["stored"], &report["verify"]["equal"]), (&report["acknowledged"], &report["acknowledged"]));
        assert_eq!(report["connections_broken"], 0);
    }
}

#[test]
fn connections_that_the_daemon_closes_are_made_again_and_their_tiles_sent_again() {
    let data = data_dir();
    // Frames that take longer than this are cut off by the daemon: slow ones never end.
    let impatient = ["capture.slow_grace=1ms", "capture.slow_rate=100MiB"];
    let daemon = Daemon::start_bare(data.path(), &impatient);
    // The daemon looks once a second: in one frame or another that is sent.
    let line = "--rate 10 --tile-size 500kB --connections 2 --duration 4s --drain 60s --fault slow=100% --verify all";
    let report = good(&daemon, line);
    assert!(report["connections_broken"].as_u64().is_some_and(|broken| broken > 0), "{report}");
    assert_eq!((&report["due"], &report["acknowledged"], &report["stored"]), (&40.into(), &40.into(), &40.into()));
    assert_eq!(report["verify"]["equal"], 40);
}

#[test]
fn failed_expectations_are_named_and_end_with_exit_code_1() {
    let data = data_dir();
    let daemon = Daemon::start_bare(data.path(), &[]);
    let short = "--rate 50 --tile-size 1kB --duration 1s";
    let failed = replay(&daemon, &format!("{short} --expect-rate 100000 --expect-p99 1us"));
    assert_eq!(failed.status.code(), Some(1));
    let told = stderr(&failed);
    assert!(told.contains("expected rate of at least 100000.00 tiles/s"), "{told}");
    assert!(told.contains("expected p99 of at most 0.001 ms"), "{told}");
    let met = good(&daemon, "--rate 50 --tile-size 1kB --duration 3s --expect-rate 0.1 --expect-p99 60s");
    assert_eq!((&met["expectations"][0]["met"], &met["expectations"][1]["met"]), (&true.into(), &true.into()));
}

#[test]
fn refused_tiles_are_counted_by_status_and_end_with_exit_code_1() {
    let full = data_dir();
    let daemon = Daemon::start_bare(full.path(), &["storage.reserve=1000TiB"]);
    let no_space = replay(&daemon, "--rate 20 --tile-size 1kB --duration 1s");
    assert_eq!(no_space.status.code(), Some(3));
    assert!(stderr(&no_space).contains("no space"), "{}", stderr(&no_space));

    let unchecked = data_dir();
    let daemon = Daemon::start_bare(unchecked.path(), &[]);
    let refused = replay(&daemon, "--rate 20 --tile-size 1kB --duration 1s --checksum none");
    assert_eq!(refused.status.code(), Some(1), "{}", stderr(&refused));
    let counts = report(&refused);
    assert_eq!((&counts["refused"]["1"], &counts["acknowledged"], &counts["due"]), (&20.into(), &0.into(), &20.into()));
    assert!(stderr(&refused).contains("20 tiles were refused with status 1"), "{}", stderr(&refused));

    let data = data_dir();
    let daemon = Daemon::start_bare(data.path(), &[]);
    // capture.frame_max is 8 MiB here. The answer may be lost with the connection; then it is given up.
    let too_long = replay(&daemon, "--rate 4 --tile-size 20MB --connections 1 --duration 1s --drain 1s --patience 1s");
    assert!(matches!(too_long.status.code(), Some(1 | 3)), "{}", stderr(&too_long));
    assert_eq!(report(&too_long)["acknowledged"], 0);
}

#[test]
fn what_can_not_be_is_said_in_one_line() {
    let unknown = failure(&["--profile", "temca9"], 2);
    assert!(unknown.contains("temca2, gridtape, piteam") && unknown.lines().count() == 1, "{unknown}");
    let file = tempfile::Builder::new().suffix(".toml").tempfile().expect("a file");
    std::fs::write(file.path(), "name = \"x\"\nassumption = \"y\"\nspeed = 3\n").expect("written");
    let bad = failure(&["--profile", file.path().to_str().expect("a path")], 2);
    assert!(bad.contains("line 3: unknown field `speed`") && bad.lines().count() == 1, "{bad}");
    assert!(failure(&[], 2).contains("--list-profiles"));
    assert!(failure(&["--rate", "fast"], 2).contains("is no rate"));
    assert!(failure(&["--rate", "2x"], 2).contains("needs a --profile"));
    assert!(failure(&["--mode", "closed", "--rate", "5"], 2).contains("closed loop has no rate"));
    // Port 1 is nobody's.
    let unreachable = failure(&["--rate", "5", "--http", "http://127.0.0.1:1"], 3);
    assert!(unreachable.contains("is the daemon running") && unreachable.lines().count() == 1, "{unreachable}");
    assert!(failure(&["--rate", "5", "--folder", "/nowhere"], 2).contains("/nowhere"));
}

#[test]
fn wrong_ports_and_acquisitions_that_exist_are_refused() {
    let data = data_dir();
    let daemon = Daemon::start(data.path(), &[]);
    let taken = replay(&daemon, "--rate 5 --acq 123");
    assert_eq!(taken.status.code(), Some(2));
    assert!(stderr(&taken).contains("acquisition 123 is there already"), "{}", stderr(&taken));
    let http = daemon.http_address.to_string();
    let (base, nobody) = (format!("http://{http}"), "127.0.0.1:1");
    let closed = failure(&["--rate", "5", "--http", &base, "--capture", nobody], 3);
    assert!(closed.contains("its capture port"), "{closed}");
    let args = ["--rate", "5", "--duration", "1s", "--patience", "300ms", "--http", &base, "--capture", &http];
    let wrong = failure(&args, 3);
    assert!(wrong.contains("capture port"), "{wrong}");
    assert!(daemon.http.tile(super::support::ACQ, 0, 0).is_err() && daemon.log().is_empty(), "{}", daemon.log());
}

#[test]
fn profiles_are_listed_printed_and_replayed() {
    let listed = program().args(["replay", "--list-profiles"]).output().expect("runs");
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    assert!(["temca2", "gridtape", "piteam", "multisem", "lightsheet"].iter().all(|name| listed.contains(name)));
    let printed = program().args(["replay", "--print-profile", "temca2"]).output().expect("runs").stdout;
    let (data, plot) = (data_dir(), data_dir());
    let daemon = Daemon::start_bare(data.path(), &[]);
    let file = plot.path().join("mine.toml");
    std::fs::write(&file, printed).expect("written");
    let picture = plot.path().join("mine.svg");
    let (file, picture_name) = (file.to_str().expect("a path"), picture.to_str().expect("a path"));
    let line =
        format!("--profile {file} --rate 0.5x --tile-size 10kB --duration 2s --arrivals poisson --plot {picture_name}");
    let report = good(&daemon, &line);
    let due = report["due"].as_u64().expect("a number");
    assert!((25..100).contains(&due), "57 of a Poisson process: {due}");
    assert_eq!((&report["settings"]["profile"], &report["settings"]["senders"]), (&"temca2".into(), &9.into()));
    assert!(std::fs::read_to_string(picture).expect("a picture").starts_with("<svg "));
}

#[test]
fn a_folder_and_a_journal_are_sent_again_and_again() {
    let (data, folders) = (data_dir(), data_dir());
    let simulated = program()
        .args(["simulate", folders.path().to_str().expect("a path"), "--acq", "9", "--steps", "2x1", "--size", "64x48"])
        .output()
        .expect("runs");
    let folder = String::from_utf8(simulated.stdout).expect("text");
    let daemon = Daemon::start_bare(data.path(), &[]);
    let line = format!("--rate 40 --duration 1s --verify all --checksum md5 --keep --folder {}", folder.trim());
    let sent = good(&daemon, &line);
    assert_eq!((&sent["due"], &sent["verify"]["equal"], &sent["stored"]), (&40.into(), &40.into(), &40.into()));
    let acq = sent["acquisition"].as_u64().expect("a number");
    // 8 tiles in 4 columns: the fifth time through begins at column 16.
    let first = daemon.http.content(tilecatcher::model::AcqId(acq), 0, 0).expect("stored").bytes;
    let fifth = daemon.http.content(tilecatcher::model::AcqId(acq), 16, 0).expect("stored").bytes;
    assert_eq!(first, fifth);
    assert_eq!(
        first,
        std::fs::read(Path::new(folder.trim()).join("col0000/col0000_row0000_cam0.tif")).expect("a tile")
    );
    let path = data.path().to_str().expect("a path");
    // Read ahead where there is no memory for all.
    for memory in ["64MiB", "1kB"] {
        let line =
            format!("--rate 60 --duration 1s --verify all --from-data {path} --memory {memory} --acq {}", acq + 1);
        let again = good(&daemon, &line);
        assert_eq!((&again["due"], &again["verify"]["equal"]), (&60.into(), &60.into()));
    }
}

#[test]
fn a_timing_table_says_where_and_when() {
    let (data, dir) = (data_dir(), data_dir());
    let table = dir.path().join("table.csv");
    std::fs::write(&table, "ms,Cam 0 Col,Cam 0 Row,Cam 1 Col,Cam 1 Row\n0,0,0,1,0\n10,2,5,-1,-1\n100,4,0,5,0\n")
        .expect("written");
    let daemon = Daemon::start_bare(data.path(), &[]);
    let path = table.to_str().expect("a path");
    let line = format!("--timing {path} --tile-size 1kB --duration 140ms --verify all --keep");
    let report = good(&daemon, &line);
    assert_eq!(
        (&report["due"], &report["verify"]["equal"], &report["settings"]["senders"]),
        (&5.into(), &5.into(), &2.into())
    );
    let acq = tilecatcher::model::AcqId(report["acquisition"].as_u64().expect("a number"));
    let tile = daemon.http.tile(acq, 5, 0).expect("stored");
    assert_eq!(tile["tile_camera"], 1, "{tile}");
}

/// Starts a long replay and waits until more than so many tiles are stored.
fn running(daemon: &Daemon, line: &str, stored: u32) -> Child {
    let child = command(daemon, &words(line)).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("runs");
    daemon.await_metric_that("tilecatcher_tiles_stored_total{as=\"new\"}", |tiles| tiles > f64::from(stored));
    child
}

#[test]
fn a_daemon_that_dies_ends_the_run_with_what_is_known_so_far() {
    let data = data_dir();
    let daemon = Daemon::start_bare(data.path(), &[]);
    // More than its four windows of two: then it has read an answer.
    let mut child = running(&daemon, "--rate 100 --tile-size 2kB --duration 10min --patience 300ms", 8);
    daemon.kill();
    wait(&mut child);
    let output = child.wait_with_output().expect("ended");
    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
    let report = report(&output);
    assert!(report["failure"].as_str().is_some_and(|text| text.contains("capture port")), "{report}");
    assert!(report["acknowledged"].as_u64().is_some_and(|n| n > 0) && report["kept"] == true);
}

#[test]
fn ctrl_c_ends_early_with_a_report_of_what_was_sent() {
    let data = data_dir();
    let daemon = Daemon::start_bare(data.path(), &[]);
    let mut child = running(&daemon, "--rate 100 --tile-size 2kB --duration 10min", 0);
    signal(child.id(), "-INT");
    wait(&mut child);
    let output = child.wait_with_output().expect("ended");
    let code = output.status.code();
    let report = report(&output);
    let count = |key: &str| report[key].as_u64().unwrap_or_else(|| panic!("no {key}: {report}"));
    // What was due as it came, and not begun, is said.
    assert_eq!(code, Some(i32::from(count("unsent") > 0)), "{}", stderr(&output));
    assert!(report["seconds"].as_f64().is_some_and(|seconds| seconds < 300.0));
    assert_eq!(count("due"), count("acknowledged") + count("unsent"));
    assert_eq!((count("stored"), count("unanswered")), (count("acknowledged"), 0));
    assert!(!is_there(&daemon, &report));
}
