//! The folder's tiles on their way: read, checked, compared with what the server has, delivered.
//!
//! Must never keep more than one image a connection in memory.

use super::plan::{Plan, Planned};
use super::report::{Problem, SendReport};
use super::stored::StoredTiles;
use super::{Listener, SendOptions};
use crate::base::stop::Stop;
use crate::client::{Event, Label, Outbox, Settled, Tiles, Undelivered, checksum_of, deliver};
use crate::formats::{FolderTile, check_whole_tiff};
use crate::model::{AcqId, TileKey};
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How often trouble that goes on is told of.
const TELL_EVERY: Duration = Duration::from_secs(5);

/// Delivers the plan's tiles; the report gets what became of them.
pub(super) fn send(
    plan: &Plan,
    stored: &StoredTiles,
    options: &SendOptions,
    listener: &dyn Listener,
    stop: &Stop,
    report: &mut SendReport,
) -> Result<(), Undelivered> {
    let began = Instant::now();
    let due = |planned: &Planned| planned.due.map(|due| began + due);
    let outbox = Outbox::filled(plan.tiles.iter().map(|planned| (&planned.tile, due(planned))));
    let acq = report.acq;
    let tiles = FolderTiles { acq, stored, options, listener, report: Mutex::new(report), told: Mutex::default() };
    let delivered = deliver(&tiles, &outbox, &options.delivery, stop);
    let report = tiles.report.into_inner().unwrap_or_else(PoisonError::into_inner);
    report.took = began.elapsed();
    report.ack_times.sort();
    report.stopped = stop.reason().is_some() && outbox.left() > 0;
    delivered
}

struct FolderTiles<'a> {
    acq: AcqId,
    stored: &'a StoredTiles,
    options: &'a SendOptions,
    listener: &'a dyn Listener,
    report: Mutex<&'a mut SendReport>,
    /// When trouble was last told of: several connections have the same, again and again.
    told: Mutex<Option<Instant>>,
}

impl<'a> Tiles for FolderTiles<'a> {
    type Item = &'a FolderTile;

    fn load(&self, tile: &&'a FolderTile, image: &mut Vec<u8>) -> Option<Label> {
        let FolderTile { path, name } = tile;
        match self.read(path, tile, image) {
            Ok(true) => {
                let key = TileKey { acq: self.acq, col: name.col, row: name.row, frame: name.frame };
                Some(Label { key, camera: name.camera, checksum: checksum_of(self.options.checksum, image) })
            }
            Ok(false) => {
                self.done(|report| report.already_stored += 1);
                None
            }
            Err(problem) => {
                self.listener.note(&format!("{}: {problem}; not sent", path.display()));
                self.done(|report| report.unreadable.push(Problem::new(path, problem)));
                None
            }
        }
    }

    fn settled(&self, tile: &'a FolderTile, settled: Settled) {
        match settled {
            Settled::Stored { bytes, took, .. } => self.done(|report| {
                report.acknowledged += 1;
                report.bytes += bytes;
                report.ack_times.push(took);
            }),
            Settled::Refused(refused) => {
                let what = format!("status {} ({})", refused.status, refused.reason);
                self.listener.note(&format!("refused {}: {what}", tile.path.display()));
                self.done(|report| report.refused.push(Problem::new(&tile.path, what)));
            }
        }
    }

    fn noticed(&self, event: Event) {
        match event {
            Event::Broken { problem, unanswered } => {
                let mut report = self.report();
                report.reconnects += 1;
                report.resent += unanswered as u64;
                drop(report);
                self.trouble(&problem);
            }
            Event::Restored => {
                *self.told() = None;
                self.listener.note("the server takes tiles again");
            }
            Event::Deferred(refused) => {
                self.report().resent += 1;
                self.trouble(&refused.reason);
            }
        }
    }
}

impl<'a> FolderTiles<'a> {
    /// Reads the image. False: the server has it.
    fn read(&self, path: &Path, tile: &FolderTile, image: &mut Vec<u8>) -> Result<bool, String> {
        let mut file = File::open(path).map_err(|error| error.to_string())?;
        let bytes = file.metadata().map_err(|error| error.to_string())?.len();
        if self.stored.has_by_size(&tile.name, bytes) {
            return Ok(false);
        }
        file.read_to_end(image).map_err(|error| error.to_string())?;
        if self.stored.has(&tile.name, image) {
            return Ok(false);
        }
        if image.is_empty() {
            return Err("an empty file".to_owned());
        }
        if !self.options.any_content {
            check_whole_tiff(image).map_err(|error| format!("{error} (--any-content sends it as it is)"))?;
        }
        Ok(true)
    }

    fn report(&self) -> MutexGuard<'_, &'a mut SendReport> {
        self.report.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells of trouble, once in a while.
    fn trouble(&self, problem: &str) {
        let mut told = self.told();
        if told.is_none_or(|told| told.elapsed() > TELL_EVERY) {
            *told = Some(Instant::now());
            drop(told);
            self.listener.note(&format!("{problem}; trying again"));
        }
    }

    fn told(&self) -> MutexGuard<'_, Option<Instant>> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Another tile is done with.
    fn done(&self, note: impl FnOnce(&mut SendReport)) {
        let mut report = self.report();
        note(&mut report);
        let problems = report.refused.len() + report.unreadable.len();
        let done = report.acknowledged + report.already_stored + problems as u64;
        let (total, bytes) = (report.tiles, report.bytes);
        drop(report);
        self.listener.progress(done, total, bytes);
    }
}
