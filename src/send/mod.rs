//! Sends a whole acquisition folder: log, ROIs, calibrations, tiles, drift frames, files, the end; and may be run again.
//!
//! ```text
//!  folder -> plan (what, in which order, when) -> server: what is there already? -> deliver (several connections,
//!  reconnecting) -> files -> end -> server: is it complete?
//! ```
//!
//! The server's own list decides what is sent: a tile that it has with the same checksum stays here. So a run that was
//! cut off on either side is resumed by running it again. Portable calls only. Must never report an acquisition as
//! complete unless the server says so, nor change anything in the folder.

mod pace;
mod plan;
mod tiles;

pub use pace::Rate;
pub use plan::{Order, Selection};

use crate::base::stop::Stop;
use crate::client::{
    ChecksumChoice, Companions, Compare, DeliveryOptions, Listener, Patient, SendError, SendReport, StoredTiles,
    Undelivered, probe_capture_port,
};
use crate::formats::AcquisitionFolder;
use plan::Plan;
use std::path::{Path, PathBuf};

/// The parts of an acquisition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The log: starts the acquisition.
    Log,
    /// The two ROI files.
    Rois,
    /// Tiles and drift frames.
    Tiles,
    /// All other files.
    Files,
    /// The end of the acquisition.
    End,
}

/// What to send, where, and how.
#[derive(Clone, Debug)]
pub struct SendOptions {
    /// Where to, over how many connections, how long to try.
    pub delivery: DeliveryOptions,
    /// Checksum that goes with each tile.
    pub checksum: ChecksumChoice,
    /// Only these parts; all when empty.
    pub only: Vec<Part>,
    /// Only these tiles.
    pub selection: Selection,
    /// Order of the tiles.
    pub order: Order,
    /// At most so fast.
    pub rate: Option<Rate>,
    /// A file with calibrations to import.
    pub calibrations: Option<PathBuf>,
    /// How a tile that is there already is recognised.
    pub compare: Compare,
    /// Send files that are no whole TIFF, too.
    pub any_content: bool,
}

impl SendOptions {
    /// All of a folder to a server, with the defaults of the `send` command.
    #[must_use]
    pub fn new(delivery: DeliveryOptions) -> Self {
        Self {
            delivery,
            checksum: ChecksumChoice::Md5,
            only: Vec::new(),
            selection: Selection::default(),
            order: Order::Daq,
            rate: None,
            calibrations: None,
            compare: Compare::Checksum,
            any_content: false,
        }
    }

    fn wants(&self, part: Part) -> bool {
        self.only.is_empty() || self.only.contains(&part)
    }

    fn sends_everything(&self) -> bool {
        self.only.is_empty() && self.selection.is_everything()
    }
}

/// Sends the folder. `stop` ends it early: what is in flight is still answered.
///
/// # Errors
/// The folder can not be read, the server not reached at the beginning, or it refuses the log. What happens later (a
/// server that stays away, refused tiles) is in the report.
pub fn send_folder(
    dir: &Path,
    options: &SendOptions,
    listener: &dyn Listener,
    stop: &Stop,
) -> Result<SendReport, SendError> {
    let folder = AcquisitionFolder::open(dir)?;
    folder.warnings().iter().for_each(|warning| listener.note(warning));
    let plan = Plan::make(&folder, options, listener)?;
    let link = &options.delivery.link;
    let http = link.http_client(link.timeout);
    let patient = Patient { http: &http, retry_for: options.delivery.retry_for, listener, stop };
    let companions = Companions { patient, folder: &folder };
    let mut run = Run { companions, options, report: SendReport::new(folder.acq()) };
    run.report.tiles = plan.tiles.len() as u64;
    run.report.skipped.clone_from(&plan.skipped);
    let was_known = run.probe(&plan)?;
    run.begin()?;
    let is_known = was_known || options.wants(Part::Log);
    let stored = if is_known { run.what_is_stored(&plan)? } else { StoredTiles::default() };
    let undelivered = tiles::send(&plan, &stored, options, listener, stop, &mut run.report);
    run.finish(undelivered.err())
}

/// A run under way.
struct Run<'a> {
    companions: Companions<'a>,
    options: &'a SendOptions,
    report: SendReport,
}

impl Run<'_> {
    /// Finds out at once, and without patience, whether the ports are what they should be; and whether the server
    /// knows the acquisition.
    fn probe(&self, plan: &Plan) -> Result<bool, SendError> {
        let known = self.companions.patient.http.acquisition(self.report.acq)?;
        if !plan.tiles.is_empty() {
            probe_capture_port(&self.options.delivery.link)?;
        }
        Ok(known.is_some())
    }

    /// Log, ROIs, calibrations.
    fn begin(&mut self) -> Result<(), SendError> {
        if self.options.wants(Part::Log) {
            self.companions.send_log()?;
        }
        if self.options.wants(Part::Rois) {
            self.report.refused_files.extend(self.companions.send_rois()?);
        }
        if let Some(path) = &self.options.calibrations {
            self.companions.send_calibrations(path)?;
        }
        Ok(())
    }

    /// The server's list of tiles, and how complete it was before this run.
    fn what_is_stored(&mut self, plan: &Plan) -> Result<StoredTiles, SendError> {
        if plan.tiles.is_empty() {
            return Ok(StoredTiles::default());
        }
        let (acq, patient) = (self.report.acq, self.companions.patient);
        self.report.before = Some(patient.ask(|http| http.completeness(acq))?);
        Ok(patient.ask(|http| StoredTiles::ask(http, acq, self.options.compare))?)
    }

    /// Files, end, completeness; unless the server was lost before.
    fn finish(mut self, lost: Option<Undelivered>) -> Result<SendReport, SendError> {
        if let Some(lost) = lost {
            self.report.gave_up = Some(lost.to_string());
            return Ok(self.report);
        }
        if let Err(error) = self.finish_on_server() {
            match error {
                SendError::Http(error) if error.is_passing() => self.report.gave_up = Some(error.to_string()),
                other => return Err(other),
            }
        }
        Ok(self.report)
    }

    fn finish_on_server(&mut self) -> Result<(), SendError> {
        if self.options.wants(Part::Files) {
            let others = self.companions.send_others(|_| true)?;
            self.report.add_files(others);
        }
        let (acq, patient) = (self.report.acq, self.companions.patient);
        if self.options.wants(Part::End) && !self.report.stopped {
            patient.ask(|http| http.end_acquisition(acq))?;
            self.report.ended = true;
        }
        if self.options.sends_everything() {
            self.report.after = Some(patient.ask(|http| http.completeness(acq))?);
        }
        Ok(())
    }
}
