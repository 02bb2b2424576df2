//! The folder's tiles on their way: read, checked, compared with what the server has, delivered.
//!
//! Must never keep more than one image a connection in memory.

use super::SendOptions;
use super::plan::{Plan, Planned};
use crate::base::stop::Stop;
use crate::client::{
    Event, Label, Listener, Outbox, Problem, SendReport, Settled, StoredTiles, Tally, Tiles, Undelivered, checksum_of,
    deliver,
};
use crate::formats::{FolderTile, check_whole_tiff};
use crate::model::AcqId;
use std::fs::File;
use std::io::Read;
use std::time::Instant;

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
    let tally = Tally::new(std::mem::replace(report, SendReport::new(acq)), listener);
    let tiles = FolderTiles { acq, stored, options, tally };
    let delivered = deliver(&tiles, &outbox, &options.delivery, stop);
    *report = tiles.tally.into_report();
    report.took = began.elapsed();
    report.ack_times.sort();
    report.stopped = stop.reason().is_some() && outbox.left() > 0;
    delivered
}

struct FolderTiles<'a> {
    acq: AcqId,
    stored: &'a StoredTiles,
    options: &'a SendOptions,
    tally: Tally<'a>,
}

impl<'a> Tiles for FolderTiles<'a> {
    type Item = &'a FolderTile;

    fn load(&self, tile: &&'a FolderTile, image: &mut Vec<u8>) -> Option<Label> {
        let FolderTile { path, name } = tile;
        match self.read(tile, image) {
            Ok(true) => Some(Label {
                key: name.key(self.acq),
                camera: name.camera,
                checksum: checksum_of(self.options.checksum, image),
            }),
            Ok(false) => {
                self.tally.done(|report| report.already_stored += 1);
                None
            }
            Err(problem) => {
                self.tally.note(&format!("{}: {problem}; not sent", path.display()));
                self.tally.done(|report| report.unreadable.push(Problem::new(path, problem)));
                None
            }
        }
    }

    fn settled(&self, tile: &'a FolderTile, settled: Settled) {
        match settled {
            Settled::Stored { bytes, took, .. } => self.tally.acknowledged(bytes, took),
            Settled::Refused(refused) => self.tally.refused(&tile.path, refused.to_string()),
        }
    }

    fn noticed(&self, event: Event) {
        self.tally.noticed(event);
    }
}

impl FolderTiles<'_> {
    /// Reads the image. False: the server has it.
    fn read(&self, tile: &FolderTile, image: &mut Vec<u8>) -> Result<bool, String> {
        let mut file = File::open(&tile.path).map_err(|error| error.to_string())?;
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
}
