//! Acquisition folders for the commands that send them, and what the daemon has of them afterwards.

use super::support::{Daemon, program};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Output;
use tilecatcher::model::AcqId;

pub const FOLDER_ACQ: AcqId = AcqId(9);
pub const NEW: &str = "tilecatcher_tiles_stored_total{as=\"new\"}";
pub const DUPLICATE: &str = "tilecatcher_tiles_stored_total{as=\"duplicate\"}";

pub fn run(args: &[&str]) -> Output {
    program().args(args).output().expect("runs")
}

pub fn text(path: &Path) -> &str {
    path.to_str().expect("a path")
}

/// A folder of 8 x 4 tiles in a block of 2 x 2 for each step.
pub fn simulate(dir: &Path, seed: &str) -> PathBuf {
    let made = run(&["simulate", text(dir), "--acq", "9", "--steps", "4x2", "--size", "128x96", "--seed", seed]);
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    PathBuf::from(String::from_utf8(made.stdout).expect("text").trim())
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// (column, row, frame) of every tile with its identifier and version.
pub fn stored(daemon: &Daemon) -> BTreeMap<(u32, u32, i32), (u64, u32)> {
    let mut tiles = BTreeMap::new();
    let asked = daemon.http.stored_tiles(FOLDER_ACQ, |tile| {
        tiles.insert((tile.col, tile.row, tile.frame.0), (tile.id.0, tile.version));
    });
    asked.expect("a listing");
    tiles
}

pub fn write(path: &Path, bytes: &[u8]) {
    std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
    std::fs::write(path, bytes).expect("written");
}

pub fn await_stored(daemon: &Daemon, tiles: f64) {
    daemon.await_metric_that(NEW, |stored| stored >= tiles);
}

/// kill -9, and another daemon on the same ports.
pub fn replace(daemon: Daemon, data: &Path) -> Daemon {
    let (capture, http) =
        (format!("capture.address={}", daemon.capture), format!("http.address={}", daemon.http_address));
    daemon.kill();
    Daemon::start_bare(data, &[&capture, &http])
}
