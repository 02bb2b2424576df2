//! send and demo, as a person runs them: whole folders, parts, bad input, daemons that go away.

use super::folders::{DUPLICATE, FOLDER_ACQ, NEW, await_stored, replace, run, simulate, stderr, stored, text, write};
use super::rot::{Flip, find};
use super::support::{Daemon, data_dir, program, signal, wait};
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::Read;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Output, Stdio};
use tilecatcher::formats::{AcquisitionFolder, encode_gray8};

fn send_args(daemon: &Daemon, folder: &Path) -> Vec<String> {
    let (capture, http) = (daemon.capture.to_string(), format!("http://{}", daemon.http_address));
    ["send", text(folder), "--capture", &capture, "--http", &http].map(str::to_owned).to_vec()
}

fn send(daemon: &Daemon, folder: &Path, more: &[&str]) -> Output {
    program().args(send_args(daemon, folder)).args(more).output().expect("runs")
}

/// Sends, and reads the summary.
fn send_json(daemon: &Daemon, folder: &Path, more: &[&str]) -> (Option<i32>, Value) {
    let sent = send(daemon, folder, &[&["--json"], more].concat());
    let summary = serde_json::from_slice(&sent.stdout);
    (sent.status.code(), summary.unwrap_or_else(|error| panic!("{error}: {}", stderr(&sent))))
}

#[test]
fn a_folder_is_sent_with_all_its_parts_and_a_second_time_nothing_is() {
    let (data, folders) = (data_dir(), data_dir());
    let daemon = Daemon::start_bare(data.path(), &[]);
    let folder = simulate(folders.path(), "1");
    let drift = encode_gray8(8, 8, &[3; 64]).expect("encoded");
    write(&folder.join("Dump__9_8x4/Dump_cam0_frame000001_col0000_row0000.tif"), &drift);
    write(&folder.join("9_8x4_mosaic.png"), b"a picture");
    write(&folder.join("9_8x4_statistics_cam0.csv"), b"a,b\n1,2\n");
    let (code, first) = send_json(&daemon, &folder, &[]);
    assert_eq!((code, &first["acknowledged"], &first["complete"]), (Some(0), &33.into(), &true.into()), "{first}");
    assert_eq!((&first["files"], &first["ended"], &first["after"]["missing"]), (&3.into(), &true.into(), &0.into()));
    let names: Vec<String> = daemon.http.files(FOLDER_ACQ).expect("files").into_iter().map(|file| file.name).collect();
    for name in ["9_8x4_ROI_spec.ini", "9_8x4_ROI_tiles.csv", "9_8x4_DAQ timing.csv", "9_8x4_mosaic.png"] {
        assert_eq!(names.iter().filter(|stored| *stored == name).count(), 1, "{name} in {names:?}");
    }
    let before = stored(&daemon);
    assert_eq!(before.len(), 33);
    let (code, second) = send_json(&daemon, &folder, &[]);
    assert_eq!((code, &second["acknowledged"], &second["already_stored"]), (Some(0), &0.into(), &33.into()));
    assert_eq!((&second["files"], stored(&daemon)), (&0.into(), before));
    daemon.await_metric(NEW, 33.0);
    assert_eq!(daemon.metric(DUPLICATE), 0.0);
    assert!(daemon.http.acquisition(FOLDER_ACQ).expect("answered").expect("known").ended);
}

#[test]
fn an_acquisition_whose_log_is_no_utf8_is_not_started_again() {
    let (data, folders) = (data_dir(), data_dir());
    let daemon = Daemon::start_bare(data.path(), &[]);
    let folder = simulate(folders.path(), "1");
    let is_log = |path: &Path| path.to_string_lossy().ends_with("_logfile.ini");
    let mut files = std::fs::read_dir(&folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    let log = files.find(|path| is_log(path)).expect("a log");
    let mut bytes = std::fs::read(&log).expect("a log");
    bytes.extend_from_slice(b"; 5 \xb5m\n");
    write(&log, &bytes);
    let notes = || stderr(&send(&daemon, &folder, &[]));
    let (first, second) = (notes(), notes());
    assert!(!first.contains("is known to the server"), "{first}");
    assert!(second.contains("is known to the server"), "{second}");
}

#[test]
fn a_tile_that_the_daemon_knows_is_damaged_is_sent_again() {
    let (data, folders) = (data_dir(), data_dir());
    let daemon = Daemon::start_bare(data.path(), &["scrub.rate=off"]);
    let folder = simulate(folders.path(), "1");
    assert_eq!(send_json(&daemon, &folder, &[]).0, Some(0));
    let tile =
        AcquisitionFolder::open(&folder).and_then(|folder| folder.tiles_by_place()).expect("a folder").tiles.remove(9);
    let (content, name) = (std::fs::read(&tile.path).expect("a file"), tile.name);
    let (segment, at) = find(data.path(), &content);
    let _rot = Flip::make(&segment, at + 30);
    daemon.http.content(FOLDER_ACQ, name.col, name.row).expect_err("damaged");
    let (col, row) = (name.col.to_string(), name.row.to_string());
    let (code, summary) = send_json(&daemon, &folder, &["--only", "tile", "--col", &col, "--row", &row]);
    assert_eq!(
        (code, &summary["acknowledged"], &summary["already_stored"]),
        (Some(0), &1.into(), &0.into()),
        "{summary}"
    );
    assert!(daemon.http.content(FOLDER_ACQ, name.col, name.row).expect("served").bytes == content);
    let (code, summary) = send_json(&daemon, &folder, &[]);
    assert_eq!((code, &summary["acknowledged"]), (Some(0), &0.into()), "{summary}");
}

#[test]
fn tiles_that_can_not_be_looked_at_are_not_passed_over() {
    let (data, folders) = (data_dir(), data_dir());
    let daemon = Daemon::start_bare(data.path(), &[]);
    let folder = simulate(folders.path(), "1");
    let (gone, drift) = (folders.path().join("gone"), folder.join("Dump__9_8x4"));
    std::os::unix::fs::symlink(&gone, &drift).expect("linked");
    let sent = send(&daemon, &folder, &[]);
    assert!(sent.status.code() == Some(2) && stderr(&sent).contains("Dump__9_8x4"), "{}", stderr(&sent));
    std::fs::remove_file(&drift).expect("removed");
    let tile = folder.join("col0000/col0000_row0000_cam0.tif");
    std::fs::remove_file(&tile).expect("removed");
    std::os::unix::fs::symlink(&gone, &tile).expect("linked");
    let sent = send(&daemon, &folder, &["--only", "tiles"]);
    assert!(sent.status.code() == Some(1) && stderr(&sent).contains("col0000_row0000"), "{}", stderr(&sent));
}

#[test]
fn every_way_and_checksum_brings_the_same_tiles() {
    let (data, folders) = (data_dir(), data_dir());
    let daemon = Daemon::start_bare(data.path(), &[]);
    let folder = simulate(folders.path(), "1");
    let mut sent = Vec::new();
    for (via, checksum) in [("put", "crc32"), ("post", "md5"), ("tcp", "sha1"), ("tcp", "sha256")] {
        let more = ["--via", via, "--checksum", checksum, "--compare", "nothing"];
        let (code, summary) = send_json(&daemon, &folder, &more);
        assert_eq!((code, &summary["acknowledged"]), (Some(0), &32.into()), "{via} {checksum}: {summary}");
        sent.push(stored(&daemon));
    }
    assert!(sent.windows(2).all(|pair| pair[0] == pair[1]), "{sent:?}");
    daemon.await_metric(NEW, 32.0);
    daemon.await_metric(DUPLICATE, 96.0);
    assert_eq!(daemon.metric("tilecatcher_tiles_beyond_grid_total"), 0.0);
}

#[test]
fn a_file_that_changed_is_sent_again_as_a_new_version_and_alone() {
    let (data, folders) = (data_dir(), data_dir());
    let daemon = Daemon::start_bare(data.path(), &[]);
    let folder = simulate(folders.path(), "1");
    assert_eq!(send_json(&daemon, &folder, &[]).0, Some(0));
    let other = encode_gray8(128, 96, &[9; 128 * 96]).expect("encoded");
    write(&folder.join("col0002/col0002_row0001_cam2.tif"), &other);
    let (code, summary) = send_json(&daemon, &folder, &[]);
    assert_eq!((code, &summary["acknowledged"], &summary["already_stored"]), (Some(0), &1.into(), &31.into()));
    let versions: Vec<u32> = stored(&daemon).values().map(|(_, version)| *version).collect();
    assert_eq!(versions.iter().filter(|version| **version == 2).count(), 1);
}

#[test]
fn parts_are_sent_by_themselves() {
    let (data, folders) = (data_dir(), data_dir());
    let daemon = Daemon::start_bare(data.path(), &[]);
    let folder = simulate(folders.path(), "1");
    let code = |more: &[&str]| send(&daemon, &folder, more).status.code();
    assert_eq!(code(&["--only", "tiles"]), Some(1), "nobody has started the acquisition");
    assert_eq!(code(&["--only", "log", "--only", "rois"]), Some(0));
    assert_eq!(daemon.http.completeness(FOLDER_ACQ).expect("answered").expected_by, "rois");
    assert_eq!(code(&["--only", "tile", "--col", "3"]), Some(2), "a tile has a row, too");
    assert_eq!(code(&["--only", "tile", "--col", "3", "--row", "2"]), Some(0));
    assert_eq!(stored(&daemon).keys().copied().collect::<Vec<_>>(), [(3, 2, -1)]);
    assert_eq!(code(&["--only", "tiles", "--camera", "0"]), Some(0));
    assert_eq!(stored(&daemon).len(), 9);
    assert_eq!(code(&["--only", "files", "--only", "end"]), Some(0));
    assert!(daemon.http.acquisition(FOLDER_ACQ).expect("answered").expect("known").ended);
    let (code, summary) = send_json(&daemon, &folder, &["--order", "folder"]);
    assert_eq!((code, &summary["before"]["missing"], &summary["acknowledged"]), (Some(0), &23.into(), &23.into()));
}

#[test]
fn a_rate_spreads_the_tiles_over_time() {
    let (data, folders) = (data_dir(), data_dir());
    let daemon = Daemon::start_bare(data.path(), &[]);
    let folder = simulate(folders.path(), "1");
    // 8 tiles a camera, one each 100 ms: the last leaves after 700 ms.
    let (code, summary) = send_json(&daemon, &folder, &["--rate", "100ms"]);
    assert_eq!(code, Some(0));
    assert!(summary["seconds"].as_f64().expect("a number") >= 0.7, "{summary}");
    assert_eq!(send(&daemon, &folder, &["--rate", "fast"]).status.code(), Some(2));
}

#[test]
fn refused_tiles_are_named_and_end_with_exit_code_1() {
    let (data, first, second) = (data_dir(), data_dir(), data_dir());
    let daemon = Daemon::start_bare(data.path(), &["storage.on_conflict=reject"]);
    assert_eq!(send(&daemon, &simulate(first.path(), "1"), &[]).status.code(), Some(0));
    let refused = send(&daemon, &simulate(second.path(), "2"), &[]);
    assert_eq!(refused.status.code(), Some(1));
    let lines = stderr(&refused);
    assert_eq!(lines.lines().filter(|line| line.starts_with("refused ")).count(), 32, "{lines}");
}

#[test]
fn a_tile_that_can_not_be_sent_is_named_and_the_others_are_sent() {
    let (data, folders) = (data_dir(), data_dir());
    let daemon = Daemon::start_bare(data.path(), &[]);
    let folder = simulate(folders.path(), "1");
    let cut = folder.join("col0000/col0000_row0000_cam0.tif");
    let bytes = std::fs::read(&cut).expect("a tile");
    write(&cut, &bytes[..bytes.len() - 100]);
    write(&folder.join("col0001/col0001_row0000_cam1.tif"), b"");
    let dangling = folder.join("col0002/col0002_row0000_cam0.tif");
    std::fs::remove_file(&dangling).expect("removed");
    std::os::unix::fs::symlink("/nowhere/at/all", &dangling).expect("linked");
    write(&folder.join("col0000/Thumbs.db"), b"x");
    let sent = send(&daemon, &folder, &[]);
    let lines = stderr(&sent);
    assert_eq!(sent.status.code(), Some(1), "{lines}");
    for (file, problem) in [
        ("col0000_row0000_cam0.tif", "cut off"),
        ("col0001_row0000_cam1.tif", "an empty file"),
        ("col0002_row0000_cam0.tif", "No such file"),
        ("Thumbs.db", "no tile by its name"),
    ] {
        assert!(lines.lines().any(|line| line.contains(file) && line.contains(problem)), "{file} in {lines}");
    }
    assert!(lines.contains("the server misses 3 of 32 tiles (column/row 0/0, 1/0, 2/0)"), "{lines}");
    assert_eq!(stored(&daemon).len(), 29);
    // As it is, on demand.
    let (code, summary) = send_json(&daemon, &folder, &["--any-content"]);
    assert_eq!((code, &summary["acknowledged"], &summary["after"]["missing"]), (Some(1), &1.into(), &2.into()));
}

#[test]
fn bad_tables_cost_their_use_and_not_the_tiles() {
    let (data, folders) = (data_dir(), data_dir());
    let daemon = Daemon::start_bare(data.path(), &[]);
    let folder = simulate(folders.path(), "1");
    write(&folder.join("9_8x4_DAQ timing.csv"), b"Cam 0 Col,Cam 0 Row\nx,1\n");
    let rois = folder.join("9_8x4_ROI_tiles.csv");
    let good = std::fs::read_to_string(&rois).expect("a table");
    write(&rois, format!("{good}x,1,0,0,1,1,1\n").as_bytes());
    let sent = send(&daemon, &folder, &[]);
    let lines = stderr(&sent);
    assert_eq!(sent.status.code(), Some(0), "{lines}");
    assert!(lines.contains("line 2: \"x\" is no column or row; tiles are sent by column and row instead"), "{lines}");
    assert!(lines.contains("9_8x4_ROI_tiles.csv: line 34: "), "{lines}");
    // A table that is none: the ROIs are not created, which is a problem, but everything else is stored.
    write(&rois, b"no,table\n");
    let sent = send(&daemon, &folder, &[]);
    assert_eq!(sent.status.code(), Some(1), "{}", stderr(&sent));
    assert!(stderr(&sent).contains("ROIs are not created"), "{}", stderr(&sent));
}

#[test]
fn folders_that_are_none_end_with_exit_code_2() {
    let folders = data_dir();
    let problem = |dir: &Path| {
        let sent = run(&["send", text(dir)]);
        assert_eq!(sent.status.code(), Some(2));
        stderr(&sent)
    };
    assert!(problem(Path::new("/no/such/folder")).contains("/no/such/folder: "));
    assert!(problem(folders.path()).contains("no *_logfile.ini"));
    for name in ["9_a_logfile.ini", "9_b_logfile.ini"] {
        write(&folders.path().join(name), b"");
    }
    assert!(problem(folders.path()).contains("9_a_logfile.ini, 9_b_logfile.ini"));
}

#[test]
fn a_log_that_the_daemon_refuses_is_named_and_ends_with_exit_code_2() {
    let (data, folders) = (data_dir(), data_dir());
    let daemon = Daemon::start_bare(data.path(), &[]);
    let folder = simulate(folders.path(), "1");
    write(&folder.join("9_8x4_logfile.ini"), b"no section\n");
    let sent = send(&daemon, &folder, &[]);
    assert_eq!(sent.status.code(), Some(2));
    assert!(stderr(&sent).contains("9_8x4_logfile.ini: http://"), "{}", stderr(&sent));
}

#[test]
fn servers_that_are_away_or_none_end_with_exit_code_3() {
    let (data, folders) = (data_dir(), data_dir());
    let daemon = Daemon::start_bare(data.path(), &[]);
    let folder = simulate(folders.path(), "1");
    let (capture, http) = (daemon.capture.to_string(), format!("http://{}", daemon.http_address));
    let problem = |capture: &str, http: &str| {
        let more = ["--capture", capture, "--http", http, "--retry-for", "200ms", "--timeout", "5s"];
        let sent = run(&[&["send", text(&folder)], &more[..]].concat());
        assert_eq!(sent.status.code(), Some(3), "{}", stderr(&sent));
        stderr(&sent)
    };
    // Port 1 is nobody's.
    assert!(problem(&capture, "http://127.0.0.1:1").contains("is the daemon running"));
    assert!(problem("127.0.0.1:1", &http).contains("is this its capture port"));
    // Each port for the other.
    assert!(problem(&capture, &format!("http://{capture}")).contains("is this its HTTP port"));
    assert!(problem(&daemon.http_address.to_string(), &http).contains("is this a tilecatcher?"));
    // One that takes connections and closes them.
    let closer = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = closer.local_addr().expect("an address").to_string();
    std::thread::spawn(move || closer.incoming().for_each(drop));
    assert!(problem(&address, &http).contains("gave up with 32 tiles undelivered"));
}

#[test]
fn a_daemon_without_space_is_tried_again_and_then_named() {
    let (data, folders) = (data_dir(), data_dir());
    // A reserve that no disk has.
    let settings = ["storage.reserve=1000TiB", "capture.accept_unknown_acquisitions=true"];
    let daemon = Daemon::start_bare(data.path(), &settings);
    let folder = simulate(folders.path(), "1");
    let log = send(&daemon, &folder, &["--retry-for", "100ms"]);
    assert_eq!(log.status.code(), Some(3), "{}", stderr(&log));
    assert!(stderr(&log).contains("free some space"), "{}", stderr(&log));
    let tiles = send(&daemon, &folder, &["--retry-for", "100ms", "--only", "tiles"]);
    let lines = stderr(&tiles);
    assert_eq!(tiles.status.code(), Some(1), "{lines}");
    assert!(lines.contains("no space: free some, then resend; trying again"), "{lines}");
    assert!(lines.lines().any(|line| line.starts_with("refused ") && line.contains("status 3")), "{lines}");
}

/// A sender that runs beside the test.
struct Sender(Child);

impl Sender {
    fn start(daemon: &Daemon, folder: &Path, more: &[&str]) -> Self {
        let mut command = program();
        command.args(send_args(daemon, folder)).args(more).arg("--json");
        Self(command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("runs"))
    }

    fn finish(mut self) -> (Option<i32>, Value) {
        let status = wait(&mut self.0);
        let mut summary = String::new();
        self.0.stdout.take().expect("a pipe").read_to_string(&mut summary).expect("text");
        (status.code(), serde_json::from_str(&summary).expect("JSON"))
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_run_survives_ten_kills_of_the_daemon_with_nothing_missing_nothing_twice_and_ids_as_they_were() {
    let (data, folders) = (data_dir(), data_dir());
    let made = ["simulate", text(folders.path()), "--acq", "9", "--steps", "22x16", "--size", "256x160"];
    assert!(run(&made).status.success());
    let folder = folders.path().join("9_44x32");
    let mut daemon = Daemon::start_bare(data.path(), &[]);
    let sender = Sender::start(&daemon, &folder, &["--rate", "400/s", "--timeout", "10s"]);
    let mut ids = BTreeMap::new();
    for _ in 0..10 {
        await_stored(&daemon, 12.0);
        daemon = replace(daemon, data.path());
        let now = stored(&daemon);
        assert!(ids.iter().all(|(place, id)| now.get(place) == Some(id)), "an identifier changed, or a tile is gone");
        ids = now;
    }
    let (code, summary) = sender.finish();
    assert_eq!((code, &summary["acknowledged"]), (Some(0), &1408.into()), "{summary}");
    assert!(summary["reconnects"].as_u64() >= Some(10), "{summary}");
    let end = stored(&daemon);
    assert!(ids.iter().all(|(place, id)| end.get(place) == Some(id)));
    assert_eq!(end.len(), 1408);
    assert!(end.values().all(|(_, version)| *version == 1), "a tile was stored twice");
    let distinct: std::collections::BTreeSet<u64> = end.values().map(|(id, _)| *id).collect();
    assert_eq!(distinct.len(), 1408);
    daemon.stop();
    let verified = program().args(["verify", "--data"]).arg(data.path()).output().expect("runs");
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stdout));
}

#[test]
fn a_sender_that_was_killed_goes_on_where_it_was() {
    let (data, folders) = (data_dir(), data_dir());
    let daemon = Daemon::start_bare(data.path(), &[]);
    let folder = simulate(folders.path(), "1");
    let mut sender = Sender::start(&daemon, &folder, &["--rate", "50/s"]);
    await_stored(&daemon, 9.0);
    sender.0.kill().expect("killed");
    sender.0.wait().expect("gone");
    let (code, summary) = send_json(&daemon, &folder, &[]);
    let acknowledged = summary["acknowledged"].as_u64().expect("a number");
    assert_eq!(code, Some(0), "{summary}");
    assert!(acknowledged <= 23 && summary["already_stored"].as_u64() == Some(32 - acknowledged), "{summary}");
    daemon.await_metric(NEW, 32.0);
    assert_eq!(stored(&daemon).len(), 32);
}

#[test]
fn a_sender_that_is_interrupted_says_what_it_did_and_ends_with_exit_code_1() {
    let (data, folders) = (data_dir(), data_dir());
    let daemon = Daemon::start_bare(data.path(), &[]);
    let folder = simulate(folders.path(), "1");
    // The first tile of each of four cameras; the next ones are due in a minute.
    let sender = Sender::start(&daemon, &folder, &["--rate", "60000ms"]);
    await_stored(&daemon, 3.0);
    signal(sender.0.id(), "-INT");
    let (code, summary) = sender.finish();
    assert_eq!((code, &summary["stopped"], &summary["ended"]), (Some(1), &true.into(), &false.into()), "{summary}");
    assert_eq!(summary["acknowledged"].as_u64(), Some(stored(&daemon).len() as u64));
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
