//! Bytes that change on the disk: an error for whoever asks for them, a line in the report, and all else as before.

use super::support::{
    ACQ, Daemon, await_found, await_that, data_dir, frame, frame_with, key, noise, program, segments,
};
use super::web::{Form, ask, get, get_json, name, put};
use serde_json::Value;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tilecatcher::client::{ChecksumChoice, checksum_of};

const SCRUB_OFF: &str = "scrub.rate=off";
const SCRUB_ALWAYS: [&str; 2] = ["scrub.rate=unlimited", "scrub.interval=20ms"];
const IMAGE: usize = 50_000;

/// A byte of a file, and its change and return.
pub struct Flip {
    file: std::fs::File,
    offset: u64,
}

impl Flip {
    pub fn make(path: &Path, offset: u64) -> Self {
        let file = std::fs::File::options().read(true).write(true).open(path).expect("a segment");
        let flip = Self { file, offset };
        flip.toggle();
        flip
    }

    fn toggle(&self) {
        let mut byte = [0];
        self.file.read_exact_at(&mut byte, self.offset).expect("a byte");
        self.file.write_all_at(&[byte[0] ^ 0x10], self.offset).expect("changed");
        // On the disk, too: the scrub does not look into the page cache.
        self.file.sync_all().expect("synced");
    }

    fn undo(self) {
        self.toggle();
    }
}

/// Where the first bytes of `content` lie: segment and offset.
pub fn find(data: &Path, content: &[u8]) -> (PathBuf, u64) {
    let wanted = &content[..64.min(content.len())];
    let found = segments(data).into_iter().find_map(|path| {
        let bytes = std::fs::read(&path).expect("a segment");
        let at = bytes.windows(wanted.len()).position(|window| window == wanted)?;
        Some((path, at as u64))
    });
    found.expect("stored")
}

fn report(data: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(data.join("quarantine/damage.jsonl")).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
}

fn content_path(col: u32) -> String {
    format!("/service/v1/acquisition/{ACQ}/tile/{col}/0/content")
}

fn send(daemon: &Daemon, col: u32, choice: ChecksumChoice) -> u64 {
    let image = noise(u64::from(col), IMAGE);
    let mut connection = daemon.connect();
    connection.send(&frame_with(key(col, 0), &image, checksum_of(choice, &image)));
    let answer = connection.answer();
    assert_eq!(answer.status, 0);
    answer.tile.0
}

#[test]
fn no_read_of_a_damaged_tile_gives_a_byte_of_it_and_its_neighbours_are_served() {
    let data = data_dir();
    let daemon = Daemon::start(data.path(), &[SCRUB_OFF]);
    let ids: Vec<u64> = (0..3).map(|col| send(&daemon, col, ChecksumChoice::Md5)).collect();
    let (segment, image) = find(data.path(), &noise(1, IMAGE));
    let record = (image - 192) / 4096 * 4096;
    let last = image + IMAGE as u64 - 1;
    for (n, offset) in [record + 3, record + 25, record + 100, image, image + 20_000, last].into_iter().enumerate() {
        let flip = Flip::make(&segment, offset);
        for range in ["", "Range: bytes=0-9\r\n", "Range: bytes=19990-20010\r\n", "Range: bytes=-5\r\n"] {
            for path in [content_path(1), format!("/service/v1/tile/{}/content", ids[1])] {
                let message = ask(&daemon, "GET", &path, range, b"").refused(500);
                assert!(message.contains("damaged"), "{message}");
            }
        }
        get(&daemon, &format!("/service/v1/verify-tile/{ACQ}/tile/{}", ids[1])).refused(417);
        for col in [0, 2] {
            assert!(daemon.http.content(ACQ, col, 0).expect("whole").bytes == noise(u64::from(col), IMAGE));
        }
        flip.undo();
        assert!(daemon.http.content(ACQ, 1, 0).expect("whole again").bytes == noise(1, IMAGE));
        daemon.await_metric("tilecatcher_read_damaged_total", (n as f64 + 1.0) * 9.0);
    }
    assert_eq!(daemon.metric("tilecatcher_corrupt_records"), 1.0, "one record, however often it was read");
    let lines = report(data.path());
    assert_eq!(lines.len(), 1, "{lines:?}");
    let (line, tile) = (&lines[0], &lines[0]["tile"]);
    assert_eq!((line["event"].as_str(), line["found_by"].as_str()), (Some("damaged"), Some("read")), "{line}");
    assert_eq!(
        (line["offset"].as_u64(), tile["col"].as_u64(), tile["id"].as_u64()),
        (Some(record), Some(1), Some(ids[1]))
    );
    assert!(line["sequence"].is_u64() && line["segment"].is_u64() && line["time"].is_string(), "{line}");
    // What lies around the image is checked by the record's CRC, and no reader is given it.
    let ready = get_json(&daemon, "/readyz");
    assert_eq!((ready["ready"].as_bool(), ready["degraded"].as_bool()), (Some(true), Some(true)), "{ready}");
}

#[test]
fn parts_of_a_tile_are_right_wherever_they_lie() {
    let data = data_dir();
    let daemon = Daemon::start(data.path(), &[SCRUB_OFF]);
    let image = [b"II*\0", noise(5, 700_000).as_slice()].concat();
    let mut connection = daemon.connect();
    connection.send(&frame(key(0, 0), &image));
    assert_eq!(connection.answer().status, 0);
    let step = 256 << 10;
    for (first, last) in [(0, 0), (0, 7), (step - 1, step), (step, 2 * step - 1), (5, 2 * step + 7), (700_003, 700_003)]
    {
        let range = format!("Range: bytes={first}-{last}\r\n");
        let answer = ask(&daemon, "GET", &content_path(0), &range, b"").with(206);
        assert!(answer.body == image[first..=last], "{first}-{last}");
        assert_eq!(answer.header("content-type"), Some("image/tiff"), "{first}-{last}");
    }
}

#[test]
fn a_resend_of_a_damaged_tile_is_stored_again_whatever_its_checksum_and_the_policy() {
    for policy in ["replace", "reject"] {
        let data = data_dir();
        let daemon = Daemon::start(data.path(), &[SCRUB_OFF, &format!("storage.on_conflict={policy}")]);
        for (col, choice) in [(0, ChecksumChoice::Crc32), (1, ChecksumChoice::Md5), (2, ChecksumChoice::Sha256)] {
            let id = send(&daemon, col, choice);
            for in_header in [false, true] {
                let (segment, image) = newest(data.path(), col);
                Flip::make(&segment, if in_header { image / 4096 * 4096 + 30 } else { image + 333 });
                assert_eq!(send(&daemon, col, choice), id);
                assert!(daemon.http.content(ACQ, col, 0).expect("whole").bytes == noise(u64::from(col), IMAGE));
            }
            assert_eq!(send(&daemon, col, choice), id, "now it is a duplicate");
        }
        daemon.await_metric("tilecatcher_tiles_stored_total{as=\"replaced\"}", 6.0);
        daemon.await_metric("tilecatcher_tiles_stored_total{as=\"duplicate\"}", 3.0);
        assert_eq!(daemon.metric("tilecatcher_corrupt_records"), 6.0);
        assert!(report(data.path()).iter().all(|line| line["found_by"] == "resend"));
        // Over HTTP as over TCP.
        let (segment, image) = newest(data.path(), 0);
        Flip::make(&segment, image + 700);
        put(&daemon, ACQ.0, &name(0, 0), &noise(0, IMAGE));
        assert!(daemon.http.content(ACQ, 0, 0).expect("whole").bytes == noise(0, IMAGE));
    }
}

/// Where the last copy of a tile's image lies.
fn newest(data: &Path, col: u32) -> (PathBuf, u64) {
    let image = noise(u64::from(col), IMAGE);
    let copies = segments(data).into_iter().flat_map(|path| {
        let bytes = std::fs::read(&path).expect("a segment");
        let at: Vec<usize> =
            bytes.windows(64).enumerate().filter(|(_, w)| *w == &image[..64]).map(|(n, _)| n).collect();
        at.into_iter().map(move |at| (path.clone(), at as u64))
    });
    copies.max_by_key(|(_, at)| *at).expect("stored")
}

#[test]
fn a_damaged_file_is_an_error_and_the_other_is_served() {
    let data = data_dir();
    let daemon = Daemon::start(data.path(), &[SCRUB_OFF]);
    let files = [("a.csv", noise(7, 3000)), ("b.csv", noise(8, 3000))];
    for (name, bytes) in &files {
        let form = Form::new().file("ancillary-file", name, bytes);
        form.post(&daemon, &format!("/service/v1/store-ancillary-files/{ACQ}")).with(200);
    }
    let path = |name: &str| format!("/service/v1/acquisition/{ACQ}/files/{name}");
    let (segment, at) = find(data.path(), &files[0].1);
    for offset in [at, at + 2999, at - 10, at - 200] {
        let flip = Flip::make(&segment, offset);
        assert!(get(&daemon, &path("a.csv")).refused(500).contains("damaged"), "byte {offset}");
        assert!(get(&daemon, &path("b.csv")).with(200).body == files[1].1);
        flip.undo();
    }
    assert!(get(&daemon, &path("a.csv")).with(200).body == files[0].1);
    daemon.await_metric("tilecatcher_read_damaged_total", 4.0);
    assert_eq!(daemon.metric("tilecatcher_corrupt_records"), 1.0);
}

#[test]
fn listings_states_and_manifest_do_not_depend_on_damaged_bytes_and_an_export_names_them() {
    let data = data_dir();
    let daemon = Daemon::start(data.path(), &[SCRUB_OFF]);
    (0..3).for_each(|col| _ = send(&daemon, col, ChecksumChoice::Sha256));
    let paths = [
        format!("/service/v1/acquisition/{ACQ}/manifest?summary=true"),
        format!("/service/v1/acquisition/{ACQ}/tiles"),
        format!("/service/v1/acquisition/{ACQ}/completeness"),
    ];
    let before: Vec<Value> = paths.iter().map(|path| get_json(&daemon, path)).collect();
    let (segment, image) = find(data.path(), &noise(1, IMAGE));
    Flip::make(&segment, image + 5);
    assert_eq!(paths.iter().map(|path| get_json(&daemon, path)).collect::<Vec<_>>(), before);
    let out = data_dir();
    let acq = ACQ.to_string();
    let export = |data: &Path| {
        let mut command = program();
        command.args(["export", &acq]).arg(out.path()).arg("--data").arg(data);
        command.output().expect("runs")
    };
    let exported = export(data.path());
    let text = String::from_utf8_lossy(&exported.stdout).into_owned() + &String::from_utf8_lossy(&exported.stderr);
    assert_eq!(exported.status.code(), Some(1), "{text}");
    assert!(text.contains("col0001") && text.contains("CRC-32"), "{text}");
}

/// A daemon that scrubs without a pause, with more than one sealed segment; the images are `noise(col, 200_000)`.
fn scrubbed(data: &Path) -> Daemon {
    let daemon = Daemon::start(data, &[SCRUB_ALWAYS.as_slice(), &["storage.segment_size=1MiB"]].concat());
    let mut connection = daemon.connect();
    for col in 0..12 {
        connection.send(&frame(key(col, 0), &noise(u64::from(col), 200_000)));
        assert_eq!(connection.answer().status, 0);
    }
    daemon
}

fn await_passes(daemon: &Daemon, more: f64) {
    let before = daemon.metric("tilecatcher_scrub_passes_total");
    daemon.await_metric_that("tilecatcher_scrub_passes_total", |passes| passes >= before + more);
}

#[test]
fn the_scrub_finds_damage_of_every_kind_once_and_notices_when_it_is_mended() {
    let data = data_dir();
    let daemon = scrubbed(data.path());
    await_passes(&daemon, 2.0);
    assert_eq!(daemon.metric("tilecatcher_corrupt_records"), 0.0, "{}", daemon.log());
    let sealed = |path: &PathBuf| {
        let bytes = std::fs::read(path).expect("a segment");
        bytes[bytes.len() - 4096..].starts_with(b"TILEFOOT")
    };
    let (first, image) = find(data.path(), &noise(0, 200_000));
    let (second, other) = find(data.path(), &noise(6, 200_000));
    let (open, late) = find(data.path(), &noise(10, 200_000));
    assert_ne!(first, second);
    await_that("both are sealed", || sealed(&first) && sealed(&second));
    let len = std::fs::metadata(&second).expect("a segment").len();
    let trailer = std::fs::read(&second).expect("a segment")[usize::try_from(len).expect("small") - 4096..].to_vec();
    let table = u64::from_le_bytes(trailer[48..56].try_into().expect("8 bytes"));
    let places = [
        (&first, image + 100_000),
        (&first, 9),
        (&second, other / 4096 * 4096 + 40),
        (&second, table + 3),
        (&second, len - 4000),
        (&open, late + 5),
    ];
    let flips: Vec<Flip> = places.iter().map(|(path, offset)| Flip::make(path, *offset)).collect();
    daemon.await_metric("tilecatcher_corrupt_records", places.len() as f64);
    await_passes(&daemon, 2.0);
    daemon.await_metric("tilecatcher_scrub_findings_total", places.len() as f64);
    let lines = report(data.path());
    assert_eq!(lines.len(), places.len(), "each once: {lines:?}");
    let tile = lines.iter().find(|line| line["tile"]["col"] == 0).expect("the tile's line");
    assert_eq!((tile["found_by"].as_str(), tile["offset"].as_u64()), (Some("scrub"), Some(image / 4096 * 4096)));
    assert!(tile["what"].as_str().is_some_and(|what| what.contains("payload")), "{tile}");
    assert_eq!(daemon.log().matches("a stored record is damaged").count(), places.len());
    assert!(get_json(&daemon, "/readyz")["ready"].as_bool().expect("a flag"), "degraded is not down");
    // All that is not damaged is served.
    for col in [1, 2, 7, 11] {
        assert!(daemon.http.content(ACQ, col, 0).expect("whole").bytes == noise(u64::from(col), 200_000));
    }
    flips.into_iter().for_each(Flip::undo);
    // The open one is looked at whole when it is sealed.
    daemon.await_metric_that("tilecatcher_corrupt_records", |count| count <= 1.0);
    daemon.stop();
    let daemon = Daemon::start_bare(data.path(), &SCRUB_ALWAYS);
    daemon.await_metric("tilecatcher_corrupt_records", 0.0);
    daemon.stop();
    assert!(program().args(["verify", "--data"]).arg(data.path()).output().expect("runs").status.success());
}

#[test]
fn what_was_found_is_counted_over_a_restart_and_a_lost_segment_is_found() {
    let data = data_dir();
    let daemon = scrubbed(data.path());
    let (first, image) = find(data.path(), &noise(0, 200_000));
    Flip::make(&first, image + 1);
    daemon.await_metric("tilecatcher_corrupt_records", 1.0);
    daemon.kill();
    let daemon = Daemon::start_bare(data.path(), &[SCRUB_OFF]);
    assert_eq!(daemon.metric("tilecatcher_corrupt_records"), 1.0);
    assert_eq!(get_json(&daemon, "/readyz")["corrupt_records"].as_u64(), Some(1));
    daemon.stop();
    let (second, _) = find(data.path(), &noise(6, 200_000));
    let daemon = Daemon::start_bare(data.path(), &SCRUB_ALWAYS);
    std::fs::remove_file(second).expect("removed");
    daemon.await_metric("tilecatcher_corrupt_records", 2.0);
}

#[test]
fn the_scrub_keeps_to_its_rate_stops_at_once_and_goes_on_where_it_was() {
    let data = data_dir();
    let daemon = scrubbed(data.path());
    daemon.stop();
    let _ = std::fs::remove_file(data.path().join("scrub"));
    let began = Instant::now();
    let daemon = Daemon::start_bare(data.path(), &["scrub.rate=1MiB"]);
    daemon.await_metric_that("tilecatcher_scrub_bytes_total", |bytes| bytes >= f64::from(2 << 20));
    // The first step is read at once, the others a second behind each MiB; a tenth of a second may be caught up.
    assert!(began.elapsed() > Duration::from_millis(700), "{:?}", began.elapsed());
    let hint = || serde_json::from_slice::<Value>(&std::fs::read(data.path().join("scrub")).ok()?).ok();
    // A number, or none when the pass is through by now.
    let is_kept = |hint: &Value| hint["began_s"].as_i64() > Some(0) && hint["next_segment"].as_u64() != Some(0);
    await_found(|| hint().unwrap_or_default(), is_kept);
    daemon.stop();
    // A hint that makes no sense costs a pass, nothing else.
    std::fs::write(data.path().join("scrub"), b"{").expect("written");
    let daemon = Daemon::start_bare(data.path(), &["scrub.rate=unlimited"]);
    daemon.await_metric("tilecatcher_scrub_passes_total", 1.0);
    daemon.stop();
    // A pass that is through is not begun again by a restart.
    let daemon = Daemon::start_bare(data.path(), &["scrub.rate=unlimited"]);
    daemon.await_metric("tilecatcher_scrub_progress", 1.0);
    assert_eq!(daemon.metric("tilecatcher_scrub_bytes_total"), 0.0);
    daemon.stop();
    let began = Instant::now();
    let _ = std::fs::remove_file(data.path().join("scrub"));
    Daemon::start_bare(data.path(), &["scrub.rate=1B"]).stop();
    assert!(began.elapsed() < Duration::from_secs(20), "a scrub that waits for its turn holds up the stop");
}

#[test]
fn the_scrub_mends_a_record_from_the_mirror_and_reports_nothing() {
    let (data, mirror) = (data_dir(), data_dir());
    let twin = format!("mirror.data={}", mirror.path().display());
    let settings = [SCRUB_ALWAYS.as_slice(), &["storage.ack=replicated", "storage.segment_size=1MiB", &twin]].concat();
    let daemon = Daemon::start(data.path(), &settings);
    let mut connection = daemon.connect();
    for col in 0..12 {
        connection.send(&frame(key(col, 0), &noise(u64::from(col), 200_000)));
        assert_eq!(connection.answer().status, 0);
    }
    let (segment, image) = find(data.path(), &noise(1, 200_000));
    Flip::make(&segment, image + 77);
    daemon.await_metric_that("tilecatcher_mirror_repairs", |repairs| repairs >= 1.0);
    await_passes(&daemon, 2.0);
    assert_eq!(daemon.metric("tilecatcher_corrupt_records"), 0.0, "{:?}", report(data.path()));
    let bytes = std::fs::read(&segment).expect("a segment");
    let at = usize::try_from(image).expect("small");
    assert!(bytes[at..at + 200_000] == noise(1, 200_000), "not mended on the disk");
}
