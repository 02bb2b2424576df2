//! After the last tile: the other files, the end of the acquisition, whether the server misses anything, tidying up.
//!
//! Must never end an acquisition before all that lies in the folder was sent, nor move the log before all is stored.

use super::after::{After, Removal, remove};
use super::follow::Follower;
use super::recorder::{Recorded, moved_to};
use super::session::Over;
use super::{EndedBy, WatchError, WatchReport};
use crate::client::{Companions, Problem, SendError, SendReport};
use crate::formats::AcquisitionFolder;
use std::path::{Path, PathBuf};

/// What is left to do.
pub(super) struct Ending<'a> {
    pub(super) follower: Follower<'a>,
    pub(super) folder: AcquisitionFolder,
    pub(super) recorded: u64,
    pub(super) rois_sent: bool,
    pub(super) report: SendReport,
}

impl Ending<'_> {
    pub(super) fn finish(mut self, over: Over) -> Result<WatchReport, WatchError> {
        let (unreadable, refused) = self.follower.table.unsent();
        self.report.tiles += (unreadable.len() + refused.len()) as u64;
        (self.report.unreadable, self.report.refused) = (unreadable, refused);
        self.report.skipped = self.folder.tiles_by_place().map(|listing| listing.skipped).unwrap_or_default();
        let waiting = self.follower.table.waiting() as u64;
        let mut files = Vec::new();
        let ended_by = match (over.ended_by, over.undelivered) {
            (_, Some(lost)) => self.lost(lost.to_string()),
            (Err(error), None) => self.lost(error.to_string()),
            (Ok(EndedBy::Interrupted), None) => {
                self.report.stopped = true;
                EndedBy::Interrupted
            }
            (Ok(ended_by), None) => match self.finish_on_server(ended_by) {
                Ok(there) => {
                    files = there;
                    ended_by
                }
                Err(SendError::Http(error)) if error.is_passing() => self.lost(error.to_string()),
                Err(error) => return Err(error.into()),
            },
        };
        let Recorded { removed, left, failed } = over.recorded;
        let sent = self.report.clone();
        let record_failed = failed;
        let mut report = WatchReport { sent, recorded: self.recorded, removed, left, record_failed, waiting, ended_by };
        if report.is_complete() && self.follower.options.after != After::Keep {
            self.clear_up(&files, &mut report);
        }
        Ok(report)
    }

    fn lost(&mut self, why: String) -> EndedBy {
        self.report.gave_up = Some(why);
        EndedBy::ServerLost
    }

    /// Files, end, completeness; the files beside the tiles that the server has.
    fn finish_on_server(&mut self, ended_by: EndedBy) -> Result<Vec<PathBuf>, SendError> {
        let (acq, patient) = (self.report.acq, self.follower.patient);
        let companions = Companions { patient, folder: &self.folder };
        if !self.rois_sent {
            self.report.refused_files.extend(companions.send_rois()?);
        }
        let has_rois = self.report.refused_files.is_empty();
        let others = companions.send_others(|path| self.follower.is_part(path))?;
        let mut there = others.there.clone();
        self.report.add_files(others);
        if self.follower.options.end && ended_by != EndedBy::Server {
            patient.ask(|http| http.end_acquisition(acq))?;
        }
        self.report.ended = self.follower.options.end || ended_by == EndedBy::Server;
        self.report.after = Some(patient.ask(|http| http.completeness(acq))?);
        if has_rois {
            there.extend(
                [self.folder.roi_spec_path(), self.folder.roi_tiles_path()].into_iter().flatten().map(Path::to_owned),
            );
        }
        there.push(self.folder.log_path().to_owned());
        Ok(there)
    }

    /// All is stored: what lies beside the tiles follows them, when they were moved; empty tile directories go.
    fn clear_up(&self, files: &[PathBuf], report: &mut WatchReport) {
        let (dir, after) = (&self.follower.dir, &self.follower.options.after);
        for path in files.iter().filter(|_| matches!(after, After::Move(_))) {
            let target = moved_to(after, dir, Path::new(path.file_name().unwrap_or_default()));
            let Some(seen) = self.follower.table.has_settled(path) else { continue };
            match remove(path, seen, target.as_deref()) {
                Removal::Done => report.removed += 1,
                Removal::Changed => report.left.push(Problem::new(path, "it changed at the end")),
                Removal::Left(why) => report.left.push(Problem::new(path, why)),
            }
        }
        self.follower.table.tile_directories().for_each(|dir| {
            // Those that are not empty stay.
            let _ = std::fs::remove_dir(dir);
        });
    }
}
