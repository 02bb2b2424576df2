//! watch, as it runs beside a microscope: files that grow, names that appear, ends of every kind, kills on both sides.

use super::folders::{DUPLICATE, FOLDER_ACQ, NEW, await_stored, replace, run, simulate, stderr, stored, text, write};
use super::rot::{Flip, find};
use super::support::{Daemon, await_found, await_that, data_dir, program, signal, wait};
use serde_json::Value;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use tempfile::{NamedTempFile, TempDir};
use tilecatcher::formats::{AcquisitionFolder, TileName, encode_gray8};

/// Unless a test gives others.
const FAST: [[&str; 2]; 3] = [["--settle", "50ms"], ["--poll", "50ms"], ["--give-up-on", "300ms"]];
const LOG: &str = "9_8x4_logfile.ini";
const BESIDE: [&str; 4] = [LOG, "9_8x4_ROI_spec.ini", "9_8x4_ROI_tiles.csv", "9_8x4_DAQ timing.csv"];

/// A daemon, an acquisition as the microscope will have written it, and the folder in which it appears.
struct Scene {
    daemon: Daemon,
    data: TempDir,
    folders: TempDir,
    source: PathBuf,
    dir: PathBuf,
}

impl Scene {
    fn new(settings: &[&str]) -> Self {
        let (data, folders) = (data_dir(), data_dir());
        let daemon = Daemon::start_bare(data.path(), settings);
        let source = simulate(&folders.path().join("source"), "1");
        let dir = folders.path().join("9_8x4");
        fs::create_dir(&dir).expect("made");
        Self { daemon, data, folders, source, dir }
    }

    /// Paths of the tiles below the folder.
    fn tiles(&self) -> Vec<PathBuf> {
        let listing = AcquisitionFolder::open(&self.source).and_then(|folder| folder.tiles_by_place());
        let below = |path: &Path| path.strip_prefix(&self.source).expect("inside").to_owned();
        listing.expect("a folder").tiles.iter().map(|tile| below(&tile.path)).collect()
    }

    fn bytes(&self, below: impl AsRef<Path>) -> Vec<u8> {
        fs::read(self.source.join(below)).expect("a file")
    }

    /// The microscope writes whole files.
    fn put(&self, paths: &[impl AsRef<Path>]) {
        paths.iter().for_each(|below| write(&self.dir.join(below), &self.bytes(below)));
    }

    fn stop_file(&self) {
        write(&self.dir.join("STOP"), b"");
    }

    fn args(&self) -> Vec<String> {
        let (capture, http) = (self.daemon.capture.to_string(), format!("http://{}", self.daemon.http_address));
        ["watch", text(&self.dir), "--capture", &capture, "--http", &http].map(str::to_owned).to_vec()
    }

    fn watch(&self, more: &[&str]) -> Watcher {
        Watcher::start(&self.args(), more)
    }

    /// Acknowledged, and on disk: a kill does not make these tiles be sent again.
    fn await_recorded(&self, tiles: usize) {
        let record = || fs::read_to_string(self.dir.join(".tilecatcher-sent")).unwrap_or_default();
        await_that("so many lines in the record", || record().lines().count() == tiles);
    }

    /// The daemon has the bytes of the source's tiles, each once.
    fn assert_equal(&self) {
        let stored = stored(&self.daemon);
        assert_eq!(stored.len(), self.tiles().len());
        assert!(stored.values().all(|(_, version)| *version == 1), "something was sent before it was complete");
        for (col, row, _) in stored.keys() {
            let content = self.daemon.http.content(FOLDER_ACQ, *col, *row).expect("a tile").bytes;
            let of_place = format!("col{col:04}_row{row:04}_");
            let tiles = self.tiles();
            let below = tiles.iter().find(|below| below.to_string_lossy().contains(&of_place)).expect("a tile");
            assert!(content == self.bytes(below), "{below:?} is stored otherwise");
        }
    }
}

/// A watch that runs beside the test; killed when dropped.
struct Watcher {
    process: Child,
    stderr: NamedTempFile,
}

impl Watcher {
    fn start(args: &[String], more: &[&str]) -> Self {
        let stderr = NamedTempFile::new().expect("a temporary file");
        let mut command = program();
        let fast = FAST.iter().filter(|[flag, _]| !more.contains(flag)).flatten();
        command.args(args).args(fast).args(more).arg("--json").stdout(Stdio::piped());
        let process = command.stderr(stderr.reopen().expect("the same file")).spawn().expect("runs");
        Self { process, stderr }
    }

    fn lines(&self) -> String {
        fs::read_to_string(self.stderr.path()).expect("text")
    }

    fn await_line(&self, part: &str) {
        await_found(|| self.lines(), |lines| lines.contains(part));
    }

    /// Exit code and summary, null when there is none.
    fn finish(mut self) -> (Option<i32>, Value, String) {
        let status = wait(&mut self.process);
        let mut summary = String::new();
        self.process.stdout.take().expect("a pipe").read_to_string(&mut summary).expect("text");
        (status.code(), serde_json::from_str(&summary).unwrap_or(Value::Null), self.lines())
    }

    fn kill(mut self) {
        self.process.kill().expect("killed");
        self.process.wait().expect("gone");
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn what_is_written_in_pieces_is_sent_when_it_is_complete_with_hints_and_without() {
    for more in [&[][..], &["--poll-only"]] {
        let scene = Scene::new(&[]);
        let watcher = scene.watch(more);
        let log = scene.bytes(LOG);
        let mut file = File::create(scene.dir.join(LOG)).expect("made");
        file.write_all(&log[..log.len() / 3]).expect("written");
        watcher.await_line("waiting for it to change");
        file.write_all(&log[log.len() / 3..]).expect("written");
        watcher.await_line("acquisition 9 is started");
        scene.put(&BESIDE[1..]);
        let tiles = scene.tiles();
        for (n, pair) in tiles.chunks(2).enumerate() {
            // The one is half written while the other comes and is stored.
            let whole = scene.bytes(&pair[0]);
            let path = scene.dir.join(&pair[0]);
            write(&path, &whole[..whole.len() / 2]);
            scene.put(&pair[1..]);
            await_stored(&scene.daemon, n as f64 * 2.0 + 1.0);
            let mut rest = File::options().append(true).open(&path).expect("there");
            rest.write_all(&whole[whole.len() / 2..]).expect("written");
            await_stored(&scene.daemon, n as f64 * 2.0 + 2.0);
        }
        scene.stop_file();
        let (code, summary, lines) = watcher.finish();
        assert_eq!((code, &summary["complete"]), (Some(0), &true.into()), "{lines}{summary}");
        assert_eq!((&summary["acknowledged"], &summary["ended_by"]), (&32.into(), &"stop-file".into()));
        scene.assert_equal();
        assert_eq!(scene.daemon.metric(DUPLICATE), 0.0);
        assert_eq!(scene.daemon.http.completeness(FOLDER_ACQ).expect("answered").expected_by, "rois");
        assert!(scene.daemon.http.acquisition(FOLDER_ACQ).expect("answered").expect("known").ended);
        let mut names: Vec<_> =
            scene.daemon.http.files(FOLDER_ACQ).expect("files").into_iter().map(|f| f.name).collect();
        names.sort();
        assert_eq!(names, ["9_8x4_DAQ timing.csv", "9_8x4_ROI_spec.ini", "9_8x4_ROI_tiles.csv"]);
    }
}

#[test]
fn a_name_that_appears_by_a_rename_is_not_waited_for() {
    let scene = Scene::new(&[]);
    let tiles = scene.tiles();
    tiles.iter().for_each(|below| fs::create_dir_all(scene.dir.join(below).parent().expect("a folder")).expect("made"));
    let watcher = scene.watch(&["--settle", "1h", "--poll", "1h"]);
    let appear = |below: &Path| {
        let path = scene.dir.join(below);
        let part = path.with_extension("part");
        write(&part, &scene.bytes(below));
        fs::rename(&part, &path).expect("renamed");
    };
    watcher.await_line("waiting for the acquisition's log");
    // A listing before this rename would leave the log to --settle.
    appear(Path::new(LOG));
    watcher.await_line("acquisition 9 is started");
    tiles.iter().for_each(|below| appear(below));
    await_stored(&scene.daemon, 32.0);
    scene.stop_file();
    let (code, summary, lines) = watcher.finish();
    assert_eq!((code, &summary["acknowledged"]), (Some(0), &32.into()), "{lines}");
    scene.assert_equal();
}

#[test]
fn a_folder_that_is_written_already_is_caught_up_with_and_ends_by_idleness_and_again_from_the_record() {
    let scene = Scene::new(&[]);
    scene.put(&scene.tiles());
    scene.put(&BESIDE);
    let drift = encode_gray8(8, 8, &[3; 64]).expect("encoded");
    write(&scene.dir.join("Dump__9_8x4/Dump_cam0_frame000001_col0000_row0000.tif"), &drift);
    write(&scene.dir.join("col0000/Thumbs.db"), b"x");
    let (code, first, lines) = scene.watch(&["--idle", "300ms"]).finish();
    assert_eq!((code, &first["acknowledged"], &first["ended_by"]), (Some(0), &33.into(), &"idle".into()), "{lines}");
    assert!(lines.contains("Thumbs.db: no tile by its name"), "{lines}");
    let before = stored(&scene.daemon);
    let again = |what: &str| {
        let (code, summary, lines) = scene.watch(&[]).finish();
        assert_eq!((code, &summary["acknowledged"]), (Some(0), &0.into()), "{what}: {lines}");
        assert_eq!((&summary["already_stored"], &summary["ended_by"]), (&33.into(), &"server".into()), "{what}");
        assert_eq!((stored(&scene.daemon) == before, scene.daemon.metric(DUPLICATE)), (true, 0.0));
        (summary["recorded"].as_u64(), lines)
    };
    assert_eq!(again("recorded").0, Some(33));
    // The last line was cut off.
    let record = scene.dir.join(".tilecatcher-sent");
    let bytes = fs::read(&record).expect("a record");
    write(&record, &bytes[..bytes.len() - 20]);
    let (recorded, lines) = again("torn");
    assert_eq!(recorded, Some(32));
    assert!(lines.contains("1 lines can not be read"), "{lines}");
    assert_eq!(again("mended").0, Some(33));
    fs::remove_file(&record).expect("removed");
    assert_eq!(again("lost").0, Some(0));
    // The record's word is not enough: the server must have the tile.
    scene.daemon.http.delete_acquisition(FOLDER_ACQ).expect("deleted");
    let (code, summary, lines) = scene.watch(&["--idle", "300ms"]).finish();
    assert_eq!((code, &summary["acknowledged"], &summary["recorded"]), (Some(0), &33.into(), &0.into()), "{lines}");
}

#[test]
fn an_acquisition_that_is_ended_on_the_server_ends_the_watch() {
    let scene = Scene::new(&[]);
    let watcher = scene.watch(&[]);
    scene.put(&BESIDE);
    scene.put(&scene.tiles());
    await_stored(&scene.daemon, 32.0);
    scene.daemon.http.end_acquisition(FOLDER_ACQ).expect("ended");
    let (code, summary, lines) = watcher.finish();
    assert_eq!((code, &summary["ended_by"], &summary["ended"]), (Some(0), &"server".into(), &true.into()), "{lines}");
}

#[test]
fn a_watch_that_was_killed_goes_on_where_it_was() {
    let scene = Scene::new(&[]);
    scene.put(&BESIDE);
    let tiles = scene.tiles();
    let watcher = scene.watch(&[]);
    scene.put(&tiles[..16]);
    scene.await_recorded(16);
    watcher.kill();
    scene.put(&tiles[16..]);
    scene.stop_file();
    let (code, summary, lines) = scene.watch(&[]).finish();
    assert_eq!((code, &summary["acknowledged"], &summary["recorded"]), (Some(0), &16.into(), &16.into()), "{lines}");
    scene.daemon.await_metric(NEW, 32.0);
    assert_eq!(scene.daemon.metric(DUPLICATE), 0.0);
    scene.assert_equal();
}

#[test]
fn kills_of_the_watch_under_load_send_at_most_again_what_was_in_flight() {
    let (data, folders) = (data_dir(), data_dir());
    let daemon = Daemon::start_bare(data.path(), &[]);
    let made = ["simulate", text(folders.path()), "--acq", "9", "--steps", "22x16", "--size", "128x96"];
    assert!(run(&made).status.success());
    let dir = folders.path().join("9_44x32");
    let (capture, http) = (daemon.capture.to_string(), format!("http://{}", daemon.http_address));
    let args = ["watch", text(&dir), "--capture", &capture, "--http", &http].map(str::to_owned);
    let mut kills = 0.0;
    while daemon.metric(NEW) < 1400.0 && kills < 5.0 {
        let (watcher, before) = (Watcher::start(&args, &[]), daemon.metric(NEW));
        await_that("another 100 tiles", || daemon.metric(NEW) >= (before + 100.0).min(1408.0));
        watcher.kill();
        kills += 1.0;
    }
    let (code, summary, lines) = Watcher::start(&args, &["--idle", "300ms"]).finish();
    assert_eq!((code, &summary["complete"]), (Some(0), &true.into()), "{lines}");
    daemon.await_metric(NEW, 1408.0);
    let duplicates = daemon.metric(DUPLICATE);
    // Four connections with two tiles each.
    assert!(duplicates <= 8.0 * kills, "{duplicates} after {kills} kills");
    assert!(stored(&daemon).values().all(|(_, version)| *version == 1));
}

#[test]
fn a_daemon_that_is_killed_while_nothing_comes_and_while_tiles_come_loses_nothing() {
    let mut scene = Scene::new(&[]);
    scene.put(&BESIDE);
    let tiles = scene.tiles();
    let watcher = scene.watch(&["--timeout", "10s"]);
    scene.put(&tiles[..8]);
    await_stored(&scene.daemon, 8.0);
    let ids = stored(&scene.daemon);
    scene.daemon = replace(scene.daemon, scene.data.path());
    scene.put(&tiles[8..16]);
    await_stored(&scene.daemon, 8.0);
    let (capture, http) = (scene.daemon.capture, scene.daemon.http_address);
    let Scene { daemon, data, folders, source, dir } = scene;
    daemon.kill();
    for below in &tiles[16..] {
        write(&dir.join(below), &fs::read(source.join(below)).expect("a file"));
    }
    watcher.await_line("trying again");
    let settings = [format!("capture.address={capture}"), format!("http.address={http}")];
    let daemon = Daemon::start_bare(data.path(), &[&settings[0], &settings[1]]);
    let scene = Scene { daemon, data, folders, source, dir };
    await_stored(&scene.daemon, 16.0);
    scene.stop_file();
    let (code, summary, lines) = watcher.finish();
    assert_eq!((code, &summary["acknowledged"]), (Some(0), &32.into()), "{lines}");
    assert!(summary["reconnects"].as_u64() >= Some(2), "{summary}");
    scene.assert_equal();
    assert!(ids.iter().all(|(place, id)| stored(&scene.daemon).get(place) == Some(id)));
}

#[test]
fn a_tile_that_changes_is_sent_again_as_a_new_version() {
    let scene = Scene::new(&[]);
    let watcher = scene.watch(&[]);
    scene.put(&BESIDE);
    scene.put(&scene.tiles());
    await_stored(&scene.daemon, 32.0);
    let other = encode_gray8(128, 96, &[9; 128 * 96]).expect("encoded");
    write(&scene.dir.join("col0002/col0002_row0001_cam2.tif"), &other);
    await_that("a second version", || stored(&scene.daemon)[&(2, 1, -1)].1 == 2);
    scene.stop_file();
    let (code, summary, lines) = watcher.finish();
    assert_eq!((code, &summary["acknowledged"]), (Some(0), &33.into()), "{lines}");
    assert_eq!(scene.daemon.http.content(FOLDER_ACQ, 2, 1).expect("a tile").bytes, other);
}

#[test]
fn files_are_deleted_when_their_tiles_are_stored_and_not_while_the_daemon_is_away() {
    let mut scene = Scene::new(&[]);
    let tiles = scene.tiles();
    let watcher = scene.watch(&["--after", "delete", "--timeout", "10s"]);
    scene.put(&BESIDE);
    scene.put(&tiles[..8]);
    await_that("8 files deleted", || tiles[..8].iter().all(|below| !scene.dir.join(below).exists()));
    scene.daemon.await_metric(NEW, 8.0);
    let (capture, http) = (scene.daemon.capture, scene.daemon.http_address);
    let Scene { daemon, data, folders, source, dir } = scene;
    daemon.kill();
    for below in &tiles[8..] {
        write(&dir.join(below), &fs::read(source.join(below)).expect("a file"));
    }
    watcher.await_line("trying again");
    assert!(tiles[8..].iter().all(|below| dir.join(below).exists()), "deleted, and not stored");
    let settings = [format!("capture.address={capture}"), format!("http.address={http}")];
    let daemon = Daemon::start_bare(data.path(), &[&settings[0], &settings[1]]);
    scene = Scene { daemon, data, folders, source, dir };
    await_that("all deleted", || tiles.iter().all(|below| !scene.dir.join(below).exists()));
    assert!(BESIDE.iter().all(|name| scene.dir.join(name).exists()));
    scene.stop_file();
    let (code, summary, lines) = watcher.finish();
    assert_eq!((code, &summary["removed"], &summary["left"]), (Some(0), &32.into(), &Value::Array(vec![])), "{lines}");
    assert!(BESIDE.iter().all(|name| scene.dir.join(name).exists()), "only tiles are deleted");
    assert!(!scene.dir.join("col0000").exists(), "empty directories go");
    scene.assert_equal();
}

#[test]
fn files_whose_tiles_are_refused_stay() {
    let scene = Scene::new(&["storage.on_conflict=reject"]);
    let other = simulate(&scene.folders.path().join("other"), "2");
    let (capture, http) = (scene.daemon.capture.to_string(), format!("http://{}", scene.daemon.http_address));
    assert!(
        run(&["send", text(&other), "--capture", &capture, "--http", &http, "--only", "log", "--only", "tiles"])
            .status
            .success()
    );
    scene.put(&BESIDE);
    scene.put(&scene.tiles());
    let (code, summary, lines) = scene.watch(&["--after", "delete", "--idle", "300ms"]).finish();
    assert_eq!((code, &summary["removed"], &summary["complete"]), (Some(1), &0.into(), &false.into()), "{lines}");
    assert_eq!(lines.lines().filter(|line| line.starts_with("refused ")).count(), 32, "{lines}");
    assert!(scene.tiles().iter().all(|below| scene.dir.join(below).exists()));
}

#[test]
fn a_folder_is_moved_and_what_lies_beside_the_tiles_goes_last() {
    let scene = Scene::new(&[]);
    let target = scene.folders.path().join("moved");
    let watcher = scene.watch(&["--after", &format!("move:{}", text(&target))]);
    scene.put(&BESIDE);
    let tiles = scene.tiles();
    scene.put(&tiles);
    let there = target.join("9_8x4");
    await_that("all moved", || tiles.iter().all(|below| there.join(below).exists() && !scene.dir.join(below).exists()));
    assert!(BESIDE.iter().all(|name| scene.dir.join(name).exists() && !there.join(name).exists()));
    scene.stop_file();
    let (code, summary, lines) = watcher.finish();
    assert_eq!((code, &summary["removed"]), (Some(0), &36.into()), "{lines}{summary}");
    for below in tiles.iter().map(PathBuf::as_path).chain(BESIDE.iter().map(Path::new)) {
        assert_eq!(fs::read(there.join(below)).expect("moved"), scene.bytes(below));
        assert!(!scene.dir.join(below).exists());
    }
    let inside = format!("move:{}", text(&scene.dir.join("done")));
    let (code, _, lines) = scene.watch(&["--after", &inside]).finish();
    assert!(code == Some(2) && lines.contains("can not be moved into the folder"), "{lines}");
}

#[test]
fn a_folder_is_not_moved_to_where_it_is() {
    let scene = Scene::new(&[]);
    scene.put(&BESIDE);
    scene.put(&scene.tiles());
    let link = scene.folders.path().join("done");
    std::os::unix::fs::symlink(scene.folders.path(), &link).expect("linked");
    for target in [scene.folders.path(), &link] {
        let after = format!("move:{}", text(target));
        let (code, _, lines) = scene.watch(&["--after", &after, "--idle", "300ms"]).finish();
        assert!(code == Some(2) && lines.contains("to where they are"), "{lines}");
    }
    let all = scene.tiles().into_iter().chain(BESIDE.map(PathBuf::from));
    assert!(all.into_iter().all(|below| scene.dir.join(below).exists()));
}

#[test]
fn a_file_goes_only_when_its_tile_was_compared_with_what_is_stored() {
    let scene = Scene::new(&["scrub.rate=off"]);
    scene.put(&BESIDE);
    let tiles = scene.tiles();
    scene.put(&tiles);
    let (code, _, lines) = scene.watch(&["--idle", "300ms"]).finish();
    assert_eq!(code, Some(0), "{lines}");
    let (segment, at) = find(scene.data.path(), &scene.bytes(&tiles[5]));
    let _rot = Flip::make(&segment, at + 30);
    let (code, summary, lines) = scene.watch(&["--after", "delete", "--idle", "300ms"]).finish();
    assert_eq!((code, &summary["removed"]), (Some(0), &32.into()), "{lines}");
    for below in &tiles {
        let name: TileName = below.file_name().and_then(|name| name.to_str()).expect("a name").parse().expect("a tile");
        let content = scene.daemon.http.content(FOLDER_ACQ, name.col, name.row).expect("served").bytes;
        assert!(content == scene.bytes(below), "{below:?}: the last good copy is gone");
    }
}

/// Two servers stand for one that was replaced: the tiles go to the first, and the second is asked what is there.
#[test]
fn files_whose_tiles_the_server_that_answers_does_not_have_stay() {
    let (scene, other) = (Scene::new(&[]), Scene::new(&[]));
    scene.put(&BESIDE);
    let tiles = scene.tiles();
    scene.put(&tiles);
    let capture = scene.daemon.capture.to_string();
    assert!(
        run(&[
            "send",
            text(&scene.dir),
            "--capture",
            &capture,
            "--http",
            &format!("http://{}", scene.daemon.http_address)
        ])
        .status
        .success()
    );
    let http = format!("http://{}", other.daemon.http_address);
    let args = ["watch", text(&scene.dir), "--capture", &capture, "--http", &http].map(str::to_owned);
    let (code, summary, lines) = Watcher::start(&args, &["--after", "delete", "--idle", "300ms"]).finish();
    assert_eq!((code, &summary["removed"]), (Some(1), &0.into()), "{lines}");
    assert!(lines.contains("the server does not have it"), "{lines}");
    assert!(tiles.iter().all(|below| scene.dir.join(below).exists()), "deleted on the word of another server");
}

#[test]
fn files_are_removed_only_after_durable_acknowledgements_or_on_demand() {
    let scene = Scene::new(&["storage.ack=written"]);
    scene.put(&BESIDE);
    scene.put(&scene.tiles());
    let (code, _, lines) = scene.watch(&["--after", "delete", "--idle", "300ms"]).finish();
    assert!(code == Some(2) && lines.contains("at the level \"written\"") && lines.contains("--trust-ack"), "{lines}");
    assert_eq!(scene.daemon.metric(NEW), 0.0);
    let (code, summary, lines) = scene.watch(&["--after", "delete", "--trust-ack", "--idle", "300ms"]).finish();
    assert_eq!((code, &summary["removed"]), (Some(0), &32.into()), "{lines}");
}

#[test]
fn tiles_that_can_not_be_sent_are_named_once_and_the_others_are_sent() {
    let scene = Scene::new(&[]);
    scene.put(&BESIDE);
    scene.put(&scene.tiles());
    let cut = scene.dir.join("col0000/col0000_row0000_cam0.tif");
    let bytes = fs::read(&cut).expect("a tile");
    write(&cut, &bytes[..bytes.len() - 100]);
    // A regular file that opens and can not be read, even by root.
    let unreadable = scene.dir.join("col0001/col0001_row0000_cam1.tif");
    fs::remove_file(&unreadable).expect("removed");
    std::os::unix::fs::symlink("/proc/self/mem", &unreadable).expect("linked");
    let watcher = scene.watch(&[]);
    watcher.await_line("a TIFF that is cut off");
    await_stored(&scene.daemon, 30.0);
    // It goes while it waits.
    let gone = scene.dir.join("col0009/col0009_row0000_cam1.tif");
    write(&gone, b"II");
    await_that("noticed", || watcher.lines().contains("col0009_row0000_cam1.tif"));
    fs::remove_file(&gone).expect("removed");
    scene.stop_file();
    let (code, summary, lines) = watcher.finish();
    assert_eq!((code, &summary["complete"]), (Some(1), &false.into()), "{lines}");
    assert!(lines.contains("the server misses 2 of 32 tiles (column/row 0/0, 1/0)"), "{lines}");
    for file in ["col0000_row0000_cam0.tif", "col0001_row0000_cam1.tif"] {
        let told = lines.lines().filter(|line| line.contains(file) && line.contains("tried again")).count();
        let given_up = lines.lines().filter(|line| line.contains(file) && line.contains("not sent")).count();
        assert!(told <= 1 && given_up == 1, "{file} in {lines}");
        assert!(summary["unreadable"].to_string().contains(file), "{summary}");
    }
    let (code, summary, lines) = scene.watch(&["--any-content", "--no-end"]).finish();
    assert_eq!((code, &summary["acknowledged"]), (Some(1), &1.into()), "{lines}");
    assert_eq!(scene.daemon.http.content(FOLDER_ACQ, 0, 0).expect("a tile").bytes, bytes[..bytes.len() - 100]);
}

#[test]
fn a_second_watch_on_a_folder_is_refused() {
    let scene = Scene::new(&[]);
    let first = scene.watch(&[]);
    first.await_line("waiting for the acquisition's log");
    for more in [&[][..], &["--record", text(&scene.folders.path().join("record"))]] {
        let (code, _, lines) = scene.watch(more).finish();
        assert!(code == Some(2) && lines.contains("another watch is at work"), "{lines}");
    }
}

#[test]
fn a_watch_that_is_interrupted_says_what_it_did_and_ends_with_exit_code_1() {
    let scene = Scene::new(&[]);
    let waiting = scene.watch(&[]);
    waiting.await_line("waiting for the acquisition's log");
    signal(waiting.process.id(), "-INT");
    let (code, _, lines) = waiting.finish();
    assert!(code == Some(1) && lines.contains("nothing was sent"), "{lines}");
    scene.put(&BESIDE);
    scene.put(&scene.tiles()[..5]);
    let watcher = scene.watch(&[]);
    await_stored(&scene.daemon, 5.0);
    signal(watcher.process.id(), "-INT");
    let (code, summary, lines) = watcher.finish();
    assert_eq!((code, &summary["stopped"], &summary["ended"]), (Some(1), &true.into(), &false.into()), "{lines}");
    assert_eq!((&summary["acknowledged"], &summary["ended_by"]), (&5.into(), &"interrupted".into()));
}

#[test]
fn bad_folders_end_with_exit_code_2_and_servers_that_are_away_with_3() {
    let scene = Scene::new(&[]);
    let missing = run(&["watch", "/no/such/folder"]);
    assert!(missing.status.code() == Some(2) && stderr(&missing).contains("/no/such/folder: "));
    let (code, _, lines) = scene.watch(&["--idle", "100ms"]).finish();
    assert!(code == Some(2) && lines.contains("no *_logfile.ini") && lines.contains("nothing was sent"), "{lines}");
    write(&scene.dir.join(LOG), b"no section\n");
    let (code, _, lines) = scene.watch(&["--idle", "300ms"]).finish();
    assert!(code == Some(2) && lines.contains("(idle)") && lines.contains("9_8x4_logfile.ini: http://"), "{lines}");
    // Port 1 is nobody's.
    let (capture, http) = ("127.0.0.1:1", "http://127.0.0.1:1");
    for away in [["--http", http], ["--capture", capture]] {
        let mut args = scene.args();
        let at = args.iter().position(|arg| arg == away[0]).expect("given");
        args[at + 1] = away[1].to_owned();
        let (code, _, lines) = Watcher::start(&args, &[]).finish();
        assert!(code == Some(3) && lines.contains("is the daemon running"), "{lines}");
    }
}

#[test]
fn a_daemon_that_stays_away_ends_the_watch_with_exit_code_3_and_nothing_is_lost() {
    let scene = Scene::new(&[]);
    scene.put(&BESIDE);
    let watcher = scene.watch(&["--retry-for", "200ms"]);
    scene.put(&scene.tiles()[..4]);
    scene.await_recorded(4);
    let args = scene.args();
    let Scene { daemon, data, folders, source, dir } = scene;
    daemon.kill();
    for below in ["col0003/col0003_row0001_cam3.tif", "col0003/col0003_row0002_cam1.tif"] {
        write(&dir.join(below), &encode_gray8(8, 8, &[3; 64]).expect("encoded"));
    }
    let (code, summary, lines) = watcher.finish();
    assert_eq!((code, &summary["ended_by"]), (Some(3), &"server-lost".into()), "{lines}");
    let settings = [format!("capture.address={}", args[3]), format!("http.address={}", &args[5][7..])];
    let daemon = Daemon::start_bare(data.path(), &[&settings[0], &settings[1]]);
    let scene = Scene { daemon, data, folders, source, dir };
    let (_, summary, lines) = scene.watch(&["--idle", "300ms"]).finish();
    assert_eq!((&summary["acknowledged"], &summary["recorded"]), (&2.into(), &4.into()), "{lines}");
}
