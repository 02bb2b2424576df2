//! Tiles are judged by their pixels behind their acknowledgement: what is found is there for readers, survives kill -9, is
//! the same when the index is built anew, and goes with the tile that it is about.

use super::support::{Daemon, await_found, await_that, data_dir, noise, program};
use super::web::{ask, get, get_json, name, put};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use std::path::Path;
use std::time::{Duration, Instant};
use tilecatcher::formats::{encode_gray8, encode_gray16};

const ACQ: u64 = 123;
const ON: &str = "quality.enabled=true";

/// A picture with structure: blocks of noise, of 6 pixels a side.
fn picture(seed: u64) -> Vec<u8> {
    let blocks = noise(seed, 20 * 20);
    let pixels: Vec<u8> = (0..120usize * 120).map(|n| 40 + blocks[n / 120 / 6 * 20 + n % 120 / 6] / 2).collect();
    encode_gray8(120, 120, &pixels).expect("an image")
}

fn flat(grey: u8) -> Vec<u8> {
    encode_gray8(120, 120, &[grey; 120 * 120]).expect("an image")
}

fn tiles(daemon: &Daemon, query: &str) -> Vec<Value> {
    let page = get_json(daemon, &format!("/api/v1/acquisitions/{ACQ}/tiles?{query}"));
    page["tiles"].as_array().expect("tiles").clone()
}

fn cols(daemon: &Daemon, query: &str) -> Vec<u64> {
    tiles(daemon, query).iter().map(|tile| tile["col"].as_u64().expect("a column")).collect()
}

/// Waits until every tile is judged.
fn await_judged(daemon: &Daemon) {
    let unjudged = || Value::from(tiles(daemon, "quality=unjudged&frame-type=all"));
    await_found(unjudged, |tiles| tiles.as_array().is_some_and(Vec::is_empty));
}

fn quality(daemon: &Daemon, id: u64) -> Value {
    get_json(daemon, &format!("/api/v1/tiles/{id}"))["quality"].clone()
}

fn rebuild(data: &Path) {
    let rebuilt = program().args(["index", "rebuild", "--data"]).arg(data).output().expect("runs");
    assert!(rebuilt.status.success(), "{}", String::from_utf8_lossy(&rebuilt.stderr));
}

#[test]
fn tiles_are_judged_by_their_pixels_and_listed_by_what_was_found() {
    let data = data_dir();
    let daemon = Daemon::start(data.path(), &[ON]);
    let stripes: Vec<u8> = (0..120u32 * 120).map(|n| if n % 20 < 10 { 51 } else { 204 }).collect();
    let striped = put(&daemon, ACQ, &name(0, 0), &encode_gray8(120, 120, &stripes).expect("an image"));
    put(&daemon, ACQ, &name(1, 0), &flat(90));
    put(&daemon, ACQ, &name(2, 0), &flat(0));
    let white: Vec<u16> = (0..120u16 * 120).map(|n| if n % 3 == 0 { 4095 } else { n % 1000 + 100 }).collect();
    put(&daemon, ACQ, &name(3, 0), &encode_gray16(120, 120, &white).expect("an image"));
    let text = put(&daemon, ACQ, &name(4, 0), b"no image");
    put(&daemon, ACQ, &name(5, 0), &picture(5));
    put(&daemon, ACQ, "Dump_cam0_frame000003_col0005_row0000.tif", &flat(7));
    await_judged(&daemon);

    let found = quality(&daemon, striped);
    assert_eq!((found["mean"].as_f64(), found["contrast"].as_f64()), (Some(127.5), Some(0.6)));
    assert_eq!(
        (&found["saturated"], &found["blank"], &found["flags"]),
        (&0.0.into(), &false.into(), &Value::Array(vec![]))
    );
    assert!(found["focus"].as_f64().expect("a number") > 0.0);
    assert_eq!(quality(&daemon, text)["flags"], serde_json::json!(["undecodable"]));
    assert_eq!(cols(&daemon, "quality=good"), [0, 5]);
    assert_eq!(cols(&daemon, "quality=flagged"), [1, 2, 3, 4]);
    assert_eq!(cols(&daemon, "quality=blank"), [1, 2]);
    assert_eq!(cols(&daemon, "quality=saturated"), [3]);
    assert_eq!(cols(&daemon, "quality=undecodable"), [4]);
    assert_eq!(cols(&daemon, "quality=blank&frame-type=drift"), [5]);
    assert!(get(&daemon, &format!("/api/v1/acquisitions/{ACQ}/tiles?quality=bad")).refused(400).contains("blank"));
    let mosaic = get_json(&daemon, &format!("/api/v1/acquisitions/{ACQ}/mosaic"));
    let cells = STANDARD.decode(mosaic["cells"].as_str().expect("cells")).expect("base64");
    let marks: Vec<u8> = cells.iter().take(6).map(|cell| cell & 0x60).collect();
    assert_eq!(marks, [0, 0x20, 0x20, 0x20, 0x60, 0], "bits of the first row's cells");
    assert_eq!(mosaic["quality_flags"], serde_json::json!(["blank", "saturated", "blurred", "undecodable"]));
    // One that is on its way to the index may be judged a second time.
    daemon.await_metric_that("tilecatcher_quality_judged_total", |tiles| tiles >= 7.0);
    daemon.await_metric_that("tilecatcher_quality_flagged_total{flag=\"blank\"}", |tiles| tiles >= 3.0);
    daemon.stop();
}

#[test]
fn what_was_found_survives_a_kill_and_is_the_same_in_an_index_built_anew() {
    let data = data_dir();
    let daemon = Daemon::start(data.path(), &[ON]);
    for col in 0..30 {
        let image = if col % 7 == 3 { flat(9) } else { picture(u64::from(col)) };
        put(&daemon, ACQ, &name(col, 0), &image);
    }
    put(&daemon, ACQ, &name(3, 0), &picture(77));
    put(&daemon, ACQ, &name(4, 0), &flat(200));
    await_judged(&daemon);
    let before = tiles(&daemon, "");
    assert_eq!(cols(&daemon, "quality=blank"), [4, 10, 17, 24]);
    daemon.kill();
    let daemon = Daemon::start_bare(data.path(), &[ON]);
    assert_eq!(tiles(&daemon, ""), before);
    daemon.stop();
    rebuild(data.path());
    let daemon = Daemon::start_bare(data.path(), &[]);
    assert_eq!(tiles(&daemon, ""), before);
    // A new content is not what the old one was.
    put(&daemon, ACQ, &name(10, 0), &picture(3));
    assert_eq!(cols(&daemon, "quality=blank"), [4, 17, 24]);
    assert_eq!(cols(&daemon, "quality=unjudged"), [10]);
    daemon.stop();
    // What an earlier run left is caught up with.
    let daemon = Daemon::start_bare(data.path(), &[ON]);
    await_judged(&daemon);
    assert_eq!(cols(&daemon, "quality=good&col=10"), [10]);
    daemon.stop();
}

#[test]
fn a_camera_that_shows_nothing_is_seen_while_it_does() {
    let data = data_dir();
    let daemon = Daemon::start(data.path(), &[ON]);
    let run = |camera: u32| format!("tilecatcher_camera_blank_run_tiles{{camera=\"{camera}\"}}");
    for col in 0..5u32 {
        put(&daemon, ACQ, &format!("col{col:04}_row0000_cam2.tif"), &flat(0));
        put(&daemon, ACQ, &format!("col{col:04}_row0001_cam1.tif"), &picture(u64::from(col)));
    }
    daemon.await_metric("tilecatcher_quality_judged_total", 10.0);
    daemon.await_metric(&run(2), 5.0);
    assert_eq!(daemon.metric(&run(1)), 0.0);
    put(&daemon, ACQ, "col0006_row0000_cam2.tif", &picture(1));
    daemon.await_metric(&run(2), 0.0);
    let over = "tilecatcher_camera_saturated_run_tiles{camera=\"3\"}";
    (0..3).for_each(|col| _ = put(&daemon, ACQ, &format!("col{col:04}_row0002_cam3.tif"), &flat(255)));
    daemon.await_metric(over, 3.0);
    daemon.stop();
}

#[test]
fn what_was_found_goes_with_its_acquisition_and_its_records_with_a_compaction() {
    let data = data_dir();
    let daemon = Daemon::start(data.path(), &[ON]);
    (0..4).for_each(|col| _ = put(&daemon, ACQ, &name(col, 0), &flat(9)));
    await_judged(&daemon);
    ask(&daemon, "DELETE", &format!("/service/v1/acquisition/{ACQ}?confirm={ACQ}"), "", b"").with(200);
    daemon.start_acquisition();
    put(&daemon, ACQ, &name(0, 0), &picture(1));
    await_judged(&daemon);
    assert_eq!((cols(&daemon, "quality=good"), cols(&daemon, "quality=flagged")), (vec![0], vec![]));
    let before = tiles(&daemon, "");
    daemon.stop();
    let compacted = program().args(["compact", "--data"]).arg(data.path()).output().expect("runs");
    assert!(compacted.status.success(), "{}", String::from_utf8_lossy(&compacted.stderr));
    let daemon = Daemon::start_bare(data.path(), &[ON]);
    assert_eq!(tiles(&daemon, ""), before);
    daemon.stop();
}

/// No buffer to spare for the judge: all tiles are left for later, and none waits for it.
#[test]
fn tiles_that_find_no_room_are_judged_when_no_others_come() {
    let data = data_dir();
    let daemon = Daemon::start(data.path(), &[ON, "memory.buffers=4MiB", "capture.frame_max=3MiB"]);
    let pixels = noise(1, 1000 * 700);
    let large = encode_gray8(1000, 700, &pixels).expect("an image");
    (0..5).for_each(|col| _ = put(&daemon, ACQ, &name(col, 0), &large));
    daemon.await_metric("tilecatcher_quality_deferred_total", 5.0);
    await_judged(&daemon);
    assert_eq!(cols(&daemon, "quality=good"), [0, 1, 2, 3, 4]);
    daemon.stop();
}

/// A reserve that no disk has: records of what was found have no room, and would be made over and over.
#[test]
fn nothing_that_was_left_is_judged_while_the_disk_is_full() {
    let data = data_dir();
    let daemon = Daemon::start(data.path(), &["quality.enabled=false"]);
    (0..4).for_each(|col| _ = put(&daemon, ACQ, &name(col, 0), &picture(col.into())));
    daemon.stop();
    let daemon = Daemon::start_bare(data.path(), &[ON, "storage.reserve=1000TiB"]);
    let began = Instant::now();
    await_that("several looks at what was left", || began.elapsed() > Duration::from_secs(3));
    assert_eq!(daemon.metric("tilecatcher_quality_judged_total"), 0.0);
    daemon.stop();
    let daemon = Daemon::start_bare(data.path(), &[ON]);
    await_judged(&daemon);
    daemon.stop();
}
