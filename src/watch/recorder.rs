//! The thread behind the acknowledgements: writes the record, syncs it, then moves or deletes files, then says "done".
//!
//! Bounded by its queue, which holds couriers back. Must never remove a file whose line is not synced, nor while the
//! server acknowledges tiles before they are durable, nor one whose tile the server that answers now does not have.

use super::after::{After, Removal, remove};
use super::inbox::{Inbox, Outcome};
use super::record::{Record, Sent};
use super::tiles::Acked;
use crate::client::{Patient, Problem, StoredTile};
use crate::formats::TileName;
use crate::model::{AckLevel, AcqId, Checksum};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

/// Lines are synced together that come within this time.
const SYNC_EVERY: Duration = Duration::from_millis(100);
/// The most lines that are synced together.
const BATCH_MAX: usize = 1024;

/// What it works with.
pub(super) struct Recorder<'a> {
    pub(super) dir: PathBuf,
    pub(super) acq: AcqId,
    pub(super) record: Record,
    pub(super) record_path: PathBuf,
    pub(super) after: After,
    /// Files are removed whatever the server's ack level is.
    pub(super) trust_ack: bool,
    pub(super) patient: Patient<'a>,
    pub(super) inbox: Inbox,
}

/// What it did.
#[derive(Default)]
pub(super) struct Recorded {
    /// Files that were moved or deleted.
    pub(super) removed: u64,
    /// Files that should have been, and were not.
    pub(super) left: Vec<Problem>,
    /// Why the record could not be written.
    pub(super) failed: Option<Problem>,
}

impl Recorder<'_> {
    /// Works until nobody sends any more.
    pub(super) fn run(mut self, queue: &Receiver<Acked>) -> Recorded {
        let (mut done, mut synced) = (Recorded::default(), Instant::now() - SYNC_EVERY);
        while let Ok(first) = queue.recv() {
            let batch = collect(first, queue, synced + SYNC_EVERY);
            let is_synced = self.write(&batch, &mut done);
            synced = Instant::now();
            let may_remove = self.after != After::Keep && is_synced && self.is_durable();
            for acked in batch {
                self.finish(acked, may_remove, &mut done);
            }
        }
        done
    }

    /// Syncs the lines. After a failure nothing is written any more: what a failed sync left behind is not known.
    fn write(&mut self, batch: &[Acked], done: &mut Recorded) -> bool {
        if done.failed.is_some() {
            return false;
        }
        let lines = batch.iter().filter(|acked| !acked.is_recorded).map(|acked| (&*acked.path, acked.sent));
        let Err(error) = self.record.append(lines, self.acq) else { return true };
        let what = "nothing is recorded, moved or deleted from here on; a new start compares with the server's list";
        let problem = Problem::new(&self.record_path, format!("{error}; {what}"));
        self.patient.listener.note(&format!("{}: {}", problem.path.display(), problem.what));
        done.failed = Some(problem);
        false
    }

    /// Asked for each batch: the server may be another by now.
    fn is_durable(&self) -> bool {
        let level = || self.patient.ask(|http| http.ack_level());
        self.trust_ack || level().is_ok_and(|level| level >= Some(AckLevel::Durable))
    }

    /// A file that changed after it was read stays: the follower sees the change, and sends it again.
    fn finish(&self, acked: Acked, may_remove: bool, done: &mut Recorded) {
        if self.after != After::Keep {
            let why = "its acknowledgement is not known to be durable, or not recorded";
            let removal = if may_remove { self.remove(&acked) } else { Removal::Left(why.to_owned()) };
            match removal {
                Removal::Done => done.removed += 1,
                Removal::Changed => {}
                Removal::Left(why) => {
                    let path = self.dir.join(&acked.path);
                    if done.left.last().is_none_or(|last| last.what != why) {
                        self.patient.listener.note(&format!("{}: {why}; the file stays", path.display()));
                    }
                    done.left.push(Problem::new(&path, why));
                }
            }
        }
        self.inbox.tell(acked.path, Outcome::Done(acked.sent.sighting));
    }

    /// The server that acknowledged the tile may be no more, and another one, or a backup, answer in its place; or the two
    /// ports may be those of two servers.
    fn is_there(&self, acked: &Acked) -> Result<(), String> {
        let Sent { sighting, checksum, tile } = acked.sent;
        match self.patient.ask(|http| http.tile_by_id(self.acq, tile)) {
            Ok(Some(stored)) if is_same(&stored, sighting.size, checksum) && is_at(&stored, &acked.path) => Ok(()),
            Ok(_) => Err("it was acknowledged, and the server does not have it: is it still the same one?".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }

    fn remove(&self, acked: &Acked) -> Removal {
        if !self.trust_ack
            && let Err(why) = self.is_there(acked)
        {
            return Removal::Left(why);
        }
        let path = self.dir.join(&acked.path);
        remove(&path, acked.sent.sighting, moved_to(&self.after, &self.dir, &acked.path).as_deref())
    }
}

/// Whoever stored it first may have given another kind of checksum.
fn is_same(stored: &StoredTile, size: u64, checksum: Checksum) -> bool {
    let is_comparable = stored.checksum.kind() == checksum.kind();
    stored.size == size && !stored.damaged && (!is_comparable || stored.checksum == checksum)
}

fn is_at(stored: &StoredTile, path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()?.parse::<TileName>().ok());
    name.is_some_and(|name| (name.col, name.row, name.frame) == (stored.col, stored.row, stored.frame))
}

/// Where a file of the folder is moved to.
pub(super) fn moved_to(after: &After, dir: &Path, below: &Path) -> Option<PathBuf> {
    match after {
        After::Move(target) => Some(target.join(dir.file_name().unwrap_or_default()).join(below)),
        After::Keep | After::Delete => None,
    }
}

/// What comes until `until`, and what is there at once.
fn collect(first: Acked, queue: &Receiver<Acked>, until: Instant) -> Vec<Acked> {
    let mut batch = vec![first];
    while batch.len() < BATCH_MAX {
        match queue.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(acked) => batch.push(acked),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
        }
    }
    batch
}
