//! Tiles on their way: read once, checked, compared with what the server had, delivered, handed to the recorder.
//!
//! What is sent is exactly what was seen: size and time of change are the same before and after the file was read. Must
//! never keep more than one image a connection in memory.

use super::inbox::{Inbox, Outcome};
use super::record::Sent;
use super::settle::Sighting;
use super::table::Ready;
use crate::client::{ChecksumChoice, Event, Label, Settled, StoredTile, StoredTiles, Tally, Tiles, checksum_of};
use crate::formats::check_whole_tiff;
use crate::model::{AcqId, Checksum, TileId};
use std::cell::Cell;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::mpsc::SyncSender;

/// A tile on its way.
pub(super) struct Job {
    ready: Ready,
    /// Of what was read last.
    checksum: Cell<Checksum>,
}

impl Job {
    pub(super) fn new(ready: Ready) -> Self {
        Self { ready, checksum: Cell::new(Checksum::None) }
    }
}

/// A tile that the server has.
pub(super) struct Acked {
    pub(super) path: std::sync::Arc<Path>,
    pub(super) sent: Sent,
    /// Its line is in the record already.
    pub(super) is_recorded: bool,
}

/// What the couriers need.
pub(super) struct WatchedTiles<'a> {
    pub(super) dir: PathBuf,
    pub(super) acq: AcqId,
    pub(super) checksum: ChecksumChoice,
    /// What the server had at the beginning.
    pub(super) stored: &'a StoredTiles,
    pub(super) tally: &'a Tally<'a>,
    pub(super) inbox: Inbox,
    pub(super) recorder: SyncSender<Acked>,
}

impl Tiles for WatchedTiles<'_> {
    type Item = Job;

    fn load(&self, job: &Job, image: &mut Vec<u8>) -> Option<Label> {
        let outcome = match self.read(&job.ready, image) {
            Ok(None) => {
                let name = job.ready.name;
                job.checksum.set(checksum_of(self.checksum, image));
                return Some(Label { key: name.key(self.acq), camera: name.camera, checksum: job.checksum.get() });
            }
            Ok(Some(stored)) => {
                self.tally.done(|report| report.already_stored += 1);
                self.record(job.ready.path.clone(), job.ready.seen, stored.checksum, stored.id);
                return None;
            }
            Err(outcome) => outcome,
        };
        self.tally.change(|report| report.tiles -= 1);
        self.inbox.tell(job.ready.path.clone(), outcome);
        None
    }

    fn settled(&self, job: Job, settled: Settled) {
        match settled {
            Settled::Stored { tile, bytes, took } => {
                self.tally.acknowledged(bytes, took);
                self.record(job.ready.path, job.ready.seen, job.checksum.get(), tile);
            }
            Settled::Refused(refused) => {
                self.tally.change(|report| report.tiles -= 1);
                self.inbox.tell(job.ready.path, Outcome::Refused(refused.to_string()));
            }
        }
    }

    fn noticed(&self, event: Event) {
        self.tally.noticed(event);
    }
}

impl WatchedTiles<'_> {
    /// Reads the image; where the server has it already, what it has.
    fn read(&self, ready: &Ready, image: &mut Vec<u8>) -> Result<Option<StoredTile>, Outcome> {
        let bytes = read_unchanged(&self.dir.join(&ready.path), ready.seen, image);
        match bytes {
            Ok(true) => {}
            Ok(false) => return Err(Outcome::Changed),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(Outcome::Gone),
            Err(error) => return Err(Outcome::Unreadable(error.to_string())),
        }
        // The list is as old as the watch: of what was sent since, it knows nothing.
        if !ready.again && self.stored.has(&ready.name, image) {
            return Ok(self.stored.find(&ready.name).copied());
        }
        let not_whole = |problem: String| Outcome::NotWhole { problem, as_is: ready.as_is };
        if image.is_empty() {
            return Err(not_whole("an empty file".to_owned()));
        }
        if !ready.as_is {
            check_whole_tiff(image).map_err(|error| not_whole(error.to_string()))?;
        }
        Ok(None)
    }

    fn record(&self, path: std::sync::Arc<Path>, sighting: Sighting, checksum: Checksum, tile: TileId) {
        let acked = Acked { path, sent: Sent { sighting, checksum, tile }, is_recorded: false };
        // The recorder lives longer than the couriers.
        let _ = self.recorder.send(acked);
    }
}

/// Reads a file that is, before and after, what was seen. False: it is another.
fn read_unchanged(path: &Path, seen: Sighting, image: &mut Vec<u8>) -> io::Result<bool> {
    let mut file = File::open(path)?;
    if Sighting::of(&file.metadata()?) != seen {
        return Ok(false);
    }
    file.read_to_end(image)?;
    Ok(Sighting::of(&file.metadata()?) == seen && image.len() as u64 == seen.size)
}
