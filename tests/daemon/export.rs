//! `export`, `manifest make` and `manifest verify`, of a stopped daemon's directory and beside a running one.

use super::support::{ACQ, Daemon, LOG, data_dir, key, noise, segments, tile};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use tempfile::TempDir;
use tilecatcher::catalog::{Catalog, NewFile, OpenedCatalog};
use tilecatcher::config::Settings;
use tilecatcher::journal::RealFilesystem;
use tilecatcher::model::{
    AcqId, AcquisitionFacts, AcquisitionStarted, AncillaryKind, Cell, FrameNumber, Roi, TileSpecId,
};
use tilecatcher::telemetry::Metrics;

type Files = BTreeMap<String, Vec<u8>>;

fn run(args: &[&str], paths: &[&Path], data: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tilecatcher"));
    command.args(args).args(paths).arg("--data").arg(data).output().expect("runs")
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn assert_code(output: &Output, code: i32) {
    assert_eq!(output.status.code(), Some(code), "{}", text(output));
}

fn json(output: &Output) -> serde_json::Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", text(output)))
}

/// All files below a directory, by their path in it.
fn files(dir: &Path) -> Files {
    let mut found = Files::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(next) = dirs.pop() {
        for entry in std::fs::read_dir(&next).expect("a directory") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                dirs.push(path);
            } else {
                let name = path.strip_prefix(dir).expect("below it").to_string_lossy().into_owned();
                found.insert(name, std::fs::read(&path).expect("readable"));
            }
        }
    }
    found
}

/// A simulated acquisition 7 of 16 tiles, sent to a daemon.
struct Sent {
    dir: TempDir,
    data: TempDir,
    daemon: Daemon,
}

fn sent() -> Sent {
    let (dir, data) = (tempfile::tempdir().expect("a directory"), data_dir());
    let simulate = ["simulate", "--acq", "7", "--steps", "2x2", "--size", "200x100"];
    let simulated = Command::new(env!("CARGO_BIN_EXE_tilecatcher")).args(simulate).arg(dir.path()).output();
    assert_code(&simulated.expect("runs"), 0);
    let daemon = Daemon::start_bare(data.path(), &["storage.lanes=2"]);
    let http = format!("http://{}", daemon.http_address);
    let capture = daemon.capture.to_string();
    let send = ["send", "--http", &http, "--capture", &capture, "--checksum", "md5"];
    let sent = Command::new(env!("CARGO_BIN_EXE_tilecatcher")).args(send).arg(dir.path().join("7_4x4")).output();
    assert_code(&sent.expect("runs"), 0);
    Sent { dir, data, daemon }
}

impl Sent {
    /// What an export must give: the sender's folder, 16 tiles and 4 files.
    fn expected(&self) -> Files {
        let sent = files(&self.dir.path().join("7_4x4"));
        assert_eq!(sent.len(), 20);
        sent
    }
}

fn export(out: &Path, data: &Path, more: &[&str]) -> Output {
    run(&[&["export", "7"], more].concat(), &[out], data)
}

/// Changes one byte in the middle of these bytes, wherever they lie in a segment.
fn flip_stored(data: &Path, image: &[u8]) {
    let flipped = segments(data).into_iter().any(|path| {
        let mut bytes = std::fs::read(&path).expect("readable");
        let Some(at) = bytes.windows(image.len()).position(|window| window == image) else { return false };
        bytes[at + image.len() / 2] ^= 1;
        std::fs::write(&path, bytes).expect("written");
        true
    });
    assert!(flipped, "the image is in no segment");
}

#[test]
fn an_acquisition_comes_back_byte_for_byte() {
    let sent = sent();
    let expected = sent.expected();
    let out = tempfile::tempdir().expect("a directory");
    let Sent { daemon, data, .. } = sent;
    let beside = out.path().join("beside");
    assert_code(&export(&beside, data.path(), &[]), 0);
    assert!(files(&beside.join("7_4x4")) == expected, "beside a running daemon");
    daemon.kill();
    let before = files(data.path());
    let after_kill = out.path().join("after kill");
    let exported = export(&after_kill, data.path(), &["--json"]);
    assert_code(&exported, 0);
    assert!(files(&after_kill.join("7_4x4")) == expected, "after a kill");
    assert!(files(data.path()) == before, "the export changed the data directory");
    let report = json(&exported);
    assert_eq!(
        (report["tiles"].as_u64(), report["files"].as_u64(), report["skipped"].as_u64()),
        (Some(16), Some(4), Some(0))
    );
    // What was exported can be sent again, and is nothing new.
    let daemon = Daemon::start_bare(data.path(), &[]);
    let (http, capture) = (format!("http://{}", daemon.http_address), daemon.capture.to_string());
    let again = Command::new(env!("CARGO_BIN_EXE_tilecatcher"))
        .args(["send", "--http", &http, "--capture", &capture])
        .arg(after_kill.join("7_4x4"))
        .output();
    assert_code(&again.expect("runs"), 0);
    daemon.stop();
    let stopped = out.path().join("stopped");
    assert_code(&export(&stopped, data.path(), &[]), 0);
    assert!(files(&stopped.join("7_4x4")) == expected, "after a stop");
}

#[test]
fn an_export_is_taken_up_where_it_was_left() {
    let sent = sent();
    let expected = sent.expected();
    sent.daemon.stop();
    let out = tempfile::tempdir().expect("a directory");
    let folder = out.path().join("7_4x4");
    assert_code(&export(out.path(), sent.data.path(), &[]), 0);
    std::fs::remove_file(folder.join("col0001/col0001_row0000_cam1.tif")).expect("removed");
    let changed = folder.join("col0002/col0002_row0002_cam0.tif");
    let mut bytes = std::fs::read(&changed).expect("readable");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&changed, &bytes).expect("changed");
    std::fs::write(folder.join("col0003/col0003_row0003_cam3.tif"), b"short").expect("cut");
    std::fs::write(folder.join("col0003/.tilecatcher-export-2.part"), b"left over").expect("written");
    let again = export(out.path(), sent.data.path(), &["--json"]);
    assert_code(&again, 0);
    assert_eq!((json(&again)["skipped"].as_u64(), json(&again)["tiles"].as_u64()), (Some(17), Some(16)));
    assert!(files(&folder) == expected);
}

#[test]
fn a_damaged_tile_is_named_and_the_rest_is_exported() {
    let sent = sent();
    let expected = sent.expected();
    sent.daemon.stop();
    let (name, image) = expected.iter().find(|(name, _)| name.contains("col0001_row0002")).expect("a tile");
    let out = tempfile::tempdir().expect("a directory");
    flip_stored(sent.data.path(), image);
    let exported = export(out.path(), sent.data.path(), &[]);
    assert_code(&exported, 1);
    assert!(text(&exported).contains(&format!("not exported {name}: ")), "{}", text(&exported));
    let mut rest = expected.clone();
    rest.remove(name);
    assert!(files(&out.path().join("7_4x4")) == rest);
}

#[test]
fn a_manifest_is_made_and_verified_and_what_changed_is_named() {
    let sent = sent();
    let expected = sent.expected();
    let out = tempfile::tempdir().expect("a directory");
    let (data, manifest) = (sent.data.path().to_owned(), out.path().join("manifest"));
    let beside = run(&["manifest", "make", "7"], &[], &data);
    assert_code(&beside, 0);
    sent.daemon.stop();
    let made = run(&["manifest", "make", "7"], &[], &data);
    assert_code(&made, 0);
    assert_eq!(beside.stdout, made.stdout, "the same tiles give the same manifest");
    let lines: Vec<&str> = std::str::from_utf8(&made.stdout).expect("text").lines().collect();
    assert_eq!((lines.len(), lines[0]), (18, r#"{"manifest":1,"acquisition":7}"#));
    assert!(
        lines[1].starts_with(r#"{"col":0,"row":0,"frame":-1,"version":1,"name":"col0000_row0000_cam0.tif","size":"#)
    );
    assert!(lines[1].contains(r#","checksum":"md5:"#) && lines[17].starts_with(r#"{"tiles":16,"root":""#));
    std::fs::write(&manifest, &made.stdout).expect("written");
    let verify = || run(&["manifest", "verify", "--json"], &[&manifest], &data);
    let good = verify();
    assert_code(&good, 0);
    let bytes: usize = expected.iter().filter(|(name, _)| name.ends_with(".tif")).map(|(_, image)| image.len()).sum();
    assert_eq!((json(&good)["good"].as_u64(), json(&good)["bytes"].as_u64()), (Some(16), Some(bytes as u64)));
    // A tampered manifest is none: nothing is compared.
    for (from, to) in [("\"row\":1", "\"row\":9"), ("\"version\":1", "\"version\":2"), ("cam0", "cam2"), ("16,", "15,")]
    {
        let tampered = String::from_utf8_lossy(&made.stdout).replacen(from, to, 1);
        std::fs::write(&manifest, tampered).expect("written");
        assert_code(&verify(), 2);
    }
    std::fs::write(&manifest, &made.stdout).expect("written");
    let (name, image) = expected.iter().find(|(name, _)| name.contains("col0003_row0001")).expect("a tile");
    flip_stored(&data, image);
    let bad = verify();
    assert_code(&bad, 1);
    let problems = json(&bad)["problems"].clone();
    assert_eq!((problems.as_array().map(Vec::len), json(&bad)["good"].as_u64()), (Some(1), Some(15)));
    assert_eq!((problems[0]["kind"].as_str(), problems[0]["line"].as_u64()), (Some("damaged"), Some(15)));
    assert!(name.ends_with(problems[0]["name"].as_str().expect("a name")));
}

#[test]
fn a_manifest_of_other_data_differs_or_is_missing_there() {
    let (one, other) = (data_dir(), data_dir());
    for (data, seeds, cols) in [(&one, [1, 2, 3], 3), (&other, [1, 9, 3], 2)] {
        let daemon = Daemon::start(data.path(), &[]);
        let mut client = daemon.client(1);
        for (col, seed) in (0..cols).zip(seeds) {
            client.send(&tile(key(col, 0), &noise(seed, 3000)), 0).expect("sent");
            assert_eq!(client.receive().expect("an answer").expect("one").response.status, 0);
        }
        daemon.stop();
    }
    let out = tempfile::tempdir().expect("a directory");
    let manifest = out.path().join("manifest");
    std::fs::write(&manifest, run(&["manifest", "make", "123"], &[], one.path()).stdout).expect("written");
    assert_code(&run(&["manifest", "verify"], &[&manifest], one.path()), 0);
    let elsewhere = run(&["manifest", "verify"], &[&manifest], other.path());
    assert_code(&elsewhere, 1);
    let told = text(&elsewhere);
    assert!(told.contains("line 3: differs col0001_row0000_cam1.tif"), "{told}");
    assert!(told.contains("line 4: missing col0002_row0000_cam1.tif"), "{told}");
    assert!(told.contains("1 of 3 tiles are there and unaltered"), "{told}");
    // A version that was replaced since is still there.
    let daemon = Daemon::start_bare(one.path(), &[]);
    let mut client = daemon.client(1);
    client.send(&tile(key(1, 0), &noise(77, 3000)), 0).expect("sent");
    client.receive().expect("an answer");
    assert_code(&run(&["manifest", "verify"], &[&manifest], one.path()), 0);
    let newer = run(&["manifest", "make", "123"], &[], one.path());
    assert!(text(&newer).contains(r#""version":2,"name":"col0001_row0000_cam1.tif""#), "{}", text(&newer));
}

#[test]
fn what_can_not_be_is_refused_with_the_remedy() {
    let sent = sent();
    sent.daemon.stop();
    let (data, out) = (sent.data.path(), tempfile::tempdir().expect("a directory"));
    let refused = |output: &Output, words: &str| {
        assert_code(output, 2);
        assert!(text(output).contains(words), "{}", text(output));
    };
    refused(&run(&["export", "8"], &[out.path()], data), "acquisition 8 was never started");
    refused(&export(out.path(), &out.path().join("none"), &[]), "no data directory");
    refused(&export(&data.join("journal/x"), data, &[]), "lies in the data directory");
    refused(&export(data, data, &[]), "lies in the data directory");
    refused(&export(out.path(), data, &["--section", "5"]), "no section 5: it has 1");
    refused(&run(&["manifest", "make", "8"], &[], data), "acquisition 8 was never started");
    refused(&run(&["manifest", "verify"], &[&out.path().join("none")], data), "none: ");
    std::fs::write(out.path().join("7_4x4"), b"a file where the folder should be").expect("written");
    let blocked = export(out.path(), data, &[]);
    assert_code(&blocked, 3);
    assert!(text(&blocked).contains("7_4x4: exists and is no directory"), "{}", text(&blocked));
}

/// Does something to the data directory of a daemon that does not run.
fn with_catalog(data: &Path, act: impl FnOnce(&Catalog)) {
    let set = |key: &str, value: &str| ("--set".to_owned(), key.to_owned(), value.to_owned());
    let flags = [
        set("storage.segment_size", "4MiB"),
        set("storage.control_segment_size", "1MiB"),
        set("storage.reserve", "0"),
        set("memory.buffers", "64MiB"),
        set("capture.frame_max", "8MiB"),
        set("index.cache", "16MiB"),
    ];
    let config = Settings::load(None, [], &flags).expect("good settings").config;
    let stop = tilecatcher::base::stop::Stop::default();
    let opened = Catalog::open(data, Arc::new(RealFilesystem), &config.catalog, &Arc::new(Metrics::new()), &stop);
    let OpenedCatalog { catalog, lanes, threads, .. } = opened.expect("opens");
    act(&catalog);
    drop(lanes);
    threads.into_iter().for_each(|thread| thread.join().expect("a lane"));
    catalog.close().expect("closed");
}

fn stored_file(name: &str, content: &[u8]) -> NewFile {
    NewFile { name: name.to_owned(), path: name.to_owned(), kind: AncillaryKind::Unknown, content: content.to_vec() }
}

/// Acquisition 123: 4 columns x 1 row, two drift frames, two sections.
fn with_sections() -> TempDir {
    let data = data_dir();
    let daemon = Daemon::start(data.path(), &[]);
    let mut client = daemon.client(1);
    let drift = |frame| tilecatcher::model::TileKey { frame: FrameNumber(frame), ..key(1, 0) };
    for (n, key) in (0..).zip([key(0, 0), key(1, 0), key(2, 0), key(3, 0), drift(0), drift(7)]) {
        client.send(&tile(key, &noise(n, 3000)), 0).expect("sent");
        assert_eq!(client.receive().expect("an answer").expect("one").response.status, 0);
    }
    daemon.stop();
    with_catalog(data.path(), |catalog| {
        let roi = |section: i64| Roi { name: section.to_string(), section, prev: 0 };
        let rois = vec![(roi(5), vec![(0, 0), (1, 0)]), (roi(6), vec![(1, 0), (2, 0), (9, 9)])];
        catalog.create_rois(ACQ, rois, vec![stored_file("123_ROI_spec.ini", b"spec")]).expect("created");
        catalog.store_file(ACQ, stored_file("123_mosaic.png", b"first")).expect("stored");
        catalog.store_file(ACQ, stored_file("123_mosaic.png", b"second")).expect("stored");
        let id = |col, section| TileSpecId { acq: ACQ, cell: Cell(col, 0, FrameNumber::STABLE), section, prev: 0 };
        let (answer, answered) = std::sync::mpsc::channel();
        let set = move |result: Result<usize, _>| answer.send(result.expect("set")).expect("heard");
        catalog.set_states("COMPLETE".to_owned(), vec![id(1, 6), id(0, 5)], set).expect("submitted");
        assert_eq!(answered.recv(), Ok(2));
    });
    data
}

#[test]
fn sections_cameras_states_and_drift_choose_tiles_and_files_come_along() {
    let data = with_sections();
    let names = |more: &[&str]| -> Vec<String> {
        let out = tempfile::tempdir().expect("a directory");
        let exported = run(&[&["export", "123"], more].concat(), &[out.path()], data.path());
        assert_code(&exported, 0);
        let found = files(&out.path().join("123_8x8"));
        assert_eq!(found["123_8x8_logfile.ini"], LOG.as_bytes());
        assert_eq!((&found["123_ROI_spec.ini"][..], &found["123_mosaic.png"][..]), (&b"spec"[..], &b"second"[..]));
        let tiles = found.keys().filter_map(|name| name.strip_suffix(".tif"));
        tiles.map(|name| name.replace("_row0000", "").replace("_cam1", "")).collect()
    };
    let drift = ["Dump__123_8x8/Dump_frame000000_col0001", "Dump__123_8x8/Dump_frame000007_col0001"];
    let stable = ["col0000/col0000", "col0001/col0001", "col0002/col0002", "col0003/col0003"];
    assert_eq!(names(&[]), [&drift[..], &stable[..]].concat());
    assert_eq!(names(&["--no-drift"]), stable);
    assert_eq!(names(&["--no-drift", "--drift"]).len(), 6);
    assert_eq!(names(&["--section", "5"]), [drift[0], drift[1], stable[0], stable[1]]);
    assert_eq!(names(&["--section", "5", "--section", "6", "--no-drift"]), stable[..3]);
    assert_eq!(names(&["--state", "COMPLETE"]), stable[..2]);
    assert_eq!(names(&["--state", "COMPLETE", "--section", "6"]), [stable[1]]);
    assert_eq!(names(&["--state", "READY", "--section", "6", "--no-drift"]), [stable[2]]);
    assert_eq!(names(&["--camera", "1"]).len(), 6);
    assert!(names(&["--camera", "0", "--camera", "3"]).is_empty());
}

#[test]
fn the_index_and_the_journal_give_the_same_manifest() {
    let data = with_sections();
    let mut live = String::new();
    with_catalog(data.path(), |catalog| {
        let summary = catalog.manifest(ACQ, &mut |line| {
            live += &format!("{line}\n");
            Ok(())
        });
        assert_eq!(summary.expect("made").tiles, 6);
        assert!(catalog.manifest(AcqId(9), &mut |_| Ok(())).is_err());
    });
    assert_eq!(String::from_utf8(run(&["manifest", "make", "123"], &[], data.path()).stdout).expect("text"), live);
}

#[test]
fn no_name_leads_out_of_the_folder() {
    let data = data_dir();
    let evil = ["../escape.txt", "/escape.txt", "..", "a\nb", "", "col0000", ".tilecatcher-export-0.part", "x/y"];
    with_catalog(data.path(), |catalog| {
        let started = |acq, log_name: &str| AcquisitionStarted {
            acq: AcqId(acq),
            log_name: log_name.to_owned(),
            facts: AcquisitionFacts::default(),
            log_text: "log".to_owned(),
            temca: 0,
        };
        catalog.start_acquisition(started(5, "../../5_up_logfile.ini")).expect("started");
        catalog.start_acquisition(started(6, "6_logfile.ini")).expect("started");
        for name in evil.into_iter().chain(["good.txt"]) {
            catalog.store_file(AcqId(6), stored_file(name, b"content")).expect("stored");
        }
    });
    let out = tempfile::tempdir().expect("a directory");
    let deep = out.path().join("a/b");
    let up = run(&["export", "5", "--json"], &[&deep], data.path());
    assert_code(&up, 1);
    assert_eq!(json(&up)["problems"].as_array().map(Vec::len), Some(1));
    let files_of_6 = run(&["export", "6", "--json"], &[&deep], data.path());
    assert_code(&files_of_6, 1);
    // `col0000` is only in the way where there is a column 0.
    assert_eq!(json(&files_of_6)["problems"].as_array().map(Vec::len), Some(evil.len() - 1), "{}", text(&files_of_6));
    let written: Vec<String> = files(out.path()).into_keys().collect();
    assert_eq!(written, ["a/b/6/6_logfile.ini", "a/b/6/col0000", "a/b/6/good.txt"]);
}

#[test]
fn links_in_the_folder_are_not_followed() {
    let sent = sent();
    let expected = sent.expected();
    sent.daemon.stop();
    let out = tempfile::tempdir().expect("a directory");
    let folder = out.path().join("7_4x4");
    let outside = tempfile::tempdir().expect("a directory");
    let victim: PathBuf = outside.path().join("victim");
    std::fs::write(&victim, b"untouched").expect("written");
    std::fs::create_dir_all(folder.join("col0001")).expect("made");
    let file_link = folder.join("col0001/col0001_row0000_cam1.tif");
    std::os::unix::fs::symlink(&victim, &file_link).expect("linked");
    assert_code(&export(out.path(), sent.data.path(), &[]), 0);
    assert!(files(&folder) == expected && !file_link.is_symlink(), "the link was not replaced");
    std::fs::remove_dir_all(folder.join("col0002")).expect("removed");
    std::os::unix::fs::symlink(outside.path(), folder.join("col0002")).expect("linked");
    assert_code(&export(out.path(), sent.data.path(), &[]), 3);
    let left = files(outside.path());
    assert_eq!(left.into_iter().collect::<Vec<_>>(), [("victim".to_owned(), b"untouched".to_vec())]);
}
