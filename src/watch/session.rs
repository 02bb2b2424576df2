//! A started acquisition: couriers and recorder at work while the folder is followed.
//!
//! Must never return before the couriers and the recorder have ended.

use super::after::After;
use super::ending::Ending;
use super::follow::Follower;
use super::record::{Earlier, Record};
use super::recorder::{Recorded, Recorder};
use super::settle::Sighting;
use super::table::Ready;
use super::tiles::{Acked, Job, WatchedTiles};
use super::{EndedBy, WatchError, WatchReport};
use crate::client::{
    Companions, Compare, Outbox, Problem, SendError, SendReport, StoredTiles, Tally, Undelivered, deliver,
};
use crate::formats::AcquisitionFolder;
use crate::model::AcqId;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;
use std::time::Instant;

/// Tiles that wait for a courier, and acknowledgements that wait for the recorder.
const QUEUE: usize = 1024;

/// Follows the folder to its end, and ends the acquisition.
pub(super) fn run(
    mut follower: Follower<'_>,
    folder: AcquisitionFolder,
    mut record: Record,
    record_path: PathBuf,
) -> Result<WatchReport, WatchError> {
    let (acq, patient, options) = (folder.acq(), follower.patient, follower.options);
    let mut report = SendReport::new(acq);
    report.before = Some(patient.ask(|http| http.completeness(acq))?);
    // What goes from here must rest on an acknowledgement, for which the server reads what it has, and not on a list.
    let compare = if options.after == After::Keep { Compare::Checksum } else { Compare::Nothing };
    let stored = patient.ask(|http| StoredTiles::ask(http, acq, compare))?;
    let tally = Tally::new(report, patient.listener);
    let mut session = Session {
        acq,
        folder,
        stored: &stored,
        tally: &tally,
        outbox: &Outbox::new(QUEUE),
        earlier: std::mem::take(&mut record.earlier),
        recorded: 0,
        rois_sent: None,
        log_problem: None,
        roi_problem: None,
    };
    let recorder = Recorder {
        dir: follower.dir.clone(),
        acq,
        record,
        record_path,
        after: options.after.clone(),
        trust_ack: options.trust_ack,
        patient,
        inbox: follower.inbox.clone(),
    };
    let began = Instant::now();
    let over = session.work(&mut follower, recorder);
    let Session { folder, recorded, rois_sent, log_problem, roi_problem, .. } = session;
    let mut report = tally.into_report();
    report.took = began.elapsed();
    report.ack_times.sort();
    report.refused_files.extend(log_problem.into_iter().chain(roi_problem));
    Ending { follower, folder, recorded, rois_sent: rois_sent.is_some(), report }.finish(over)
}

/// How the work ended.
pub(super) struct Over {
    pub(super) ended_by: Result<EndedBy, SendError>,
    pub(super) undelivered: Option<Undelivered>,
    pub(super) recorded: Recorded,
}

struct Session<'a> {
    acq: AcqId,
    folder: AcquisitionFolder,
    stored: &'a StoredTiles,
    tally: &'a Tally<'a>,
    outbox: &'a Outbox<Job>,
    earlier: Earlier,
    /// Tiles that the record showed to be stored.
    recorded: u64,
    /// The ROI files as they were sent.
    rois_sent: Option<(Sighting, Sighting)>,
    log_problem: Option<Problem>,
    roi_problem: Option<Problem>,
}

impl Session<'_> {
    fn work(&mut self, follower: &mut Follower<'_>, recorder: Recorder<'_>) -> Over {
        let (sender, queue) = sync_channel(QUEUE);
        let (delivery, stop) = (&follower.options.delivery, follower.patient.stop);
        let tiles = WatchedTiles {
            dir: follower.dir.clone(),
            acq: self.acq,
            checksum: follower.options.checksum,
            stored: self.stored,
            tally: self.tally,
            inbox: follower.inbox.clone(),
            recorder: sender.clone(),
        };
        let outbox = self.outbox;
        thread::scope(|scope| {
            let recording = scope.spawn(move || recorder.run(&queue));
            let delivering = scope.spawn(move || {
                let delivered = deliver(&tiles, outbox, delivery, stop);
                tiles.inbox.delivery_ended();
                delivered
            });
            let ended_by = self.follow(follower, &sender);
            match &ended_by {
                Ok(_) => outbox.close(),
                Err(_) => outbox.stop(),
            }
            let undelivered = joined(delivering.join()).err();
            drop(sender);
            Over { ended_by, undelivered, recorded: joined(recording.join()) }
        })
    }

    fn follow(&mut self, follower: &mut Follower<'_>, recorder: &SyncSender<Acked>) -> Result<EndedBy, SendError> {
        // What settled before the acquisition was started is looked at, too.
        let mut beside_settled = true;
        loop {
            if follower.patient.stop.reason().is_some() {
                return Ok(EndedBy::Interrupted);
            }
            if beside_settled {
                self.see_beside(follower)?;
            }
            if follower.turn(Some(self.acq)) {
                // The couriers hear of a stop, too, and may be the first.
                let is_stopped = follower.patient.stop.reason().is_some();
                return Ok(if is_stopped { EndedBy::Interrupted } else { EndedBy::ServerLost });
            }
            beside_settled = std::mem::take(&mut follower.table.beside_settled);
            self.give_away(follower, recorder);
            if !beside_settled && follower.is_over() {
                return Ok(follower.ending.unwrap_or(EndedBy::Idle));
            }
        }
    }

    /// Files beside the tiles have settled: the log again, when it changed; the ROIs, when both files are there.
    fn see_beside(&mut self, follower: &mut Follower<'_>) -> Result<(), SendError> {
        let Some(folder) = follower.open_folder().filter(|folder| folder.acq() == self.acq) else { return Ok(()) };
        self.folder = folder;
        if let Some(sent) = follower.send_log_again(&self.folder) {
            self.log_problem = tolerated(follower, sent.map(|()| None))?;
        }
        let settled = |path: Option<&Path>| follower.table.has_settled(path?);
        let both = settled(self.folder.roi_spec_path()).zip(settled(self.folder.roi_tiles_path()));
        if both.is_some() && both != self.rois_sent {
            self.rois_sent = both;
            let sent = Companions { patient: follower.patient, folder: &self.folder }.send_rois();
            self.roi_problem = tolerated(follower, sent)?;
        }
        Ok(())
    }

    /// Gives tiles to the couriers, while there is room; what is recorded goes past them.
    fn give_away(&mut self, follower: &mut Follower<'_>, recorder: &SyncSender<Acked>) {
        while let Some(ready) = follower.table.ready.pop_front() {
            self.tally.change(|report| report.tiles += 1);
            if let Some(acked) = self.recorded(&ready) {
                self.recorded += 1;
                self.tally.done(|report| report.already_stored += 1);
                // The recorder ends after this thread.
                let _ = recorder.send(acked);
            } else if self.outbox.try_push(Job::new(ready.clone())).is_err() {
                self.tally.change(|report| report.tiles -= 1);
                follower.table.ready.push_front(ready);
                return;
            }
            follower.table.in_flight += 1;
        }
    }

    /// The record has this very file, and the server what was recorded.
    fn recorded(&self, ready: &Ready) -> Option<Acked> {
        if ready.again || ready.as_is {
            return None;
        }
        let sent = self.earlier.find(&ready.path, self.acq).filter(|sent| sent.sighting == ready.seen)?;
        let stored = self.stored.find(&ready.name)?;
        // A tile keeps its identifier when its content changes: only a checksum says that nobody sent another.
        let same = stored.id == sent.tile && stored.size == ready.seen.size && stored.checksum == sent.checksum;
        same.then(|| Acked { path: ready.path.clone(), sent, is_recorded: true })
    }
}

/// What is wrong with a file beside the tiles is no reason to lose tiles.
fn tolerated(follower: &Follower<'_>, sent: Result<Option<Problem>, SendError>) -> Result<Option<Problem>, SendError> {
    match sent {
        Err(error) if error.is_input() => {
            follower.patient.listener.note(&error.to_string());
            Ok(Some(Problem::new(&follower.dir, error)))
        }
        other => other,
    }
}

fn joined<T>(result: thread::Result<T>) -> T {
    result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
