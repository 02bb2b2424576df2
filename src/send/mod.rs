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

mod files;
mod pace;
mod plan;
mod report;
mod stored;
mod tiles;

pub use pace::Rate;
pub use plan::{Order, Selection};
pub use report::{Problem, SendReport};
pub use stored::Compare;

use crate::base::stop::Stop;
use crate::client::{ChecksumChoice, DeliveryOptions, HttpClient, HttpClientError, Undelivered};
use crate::formats::{AcquisitionFolder, FormatError};
use plan::Plan;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use stored::StoredTiles;

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

/// Why nothing, or not all that could be, was sent.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// The folder is not an acquisition, or a file in it is not what it should be.
    #[error(transparent)]
    Folder(#[from] FormatError),
    /// A file can not be read.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// The operating system's answer.
        source: std::io::Error,
    },
    /// The server does not want a file of the folder.
    #[error("{path}: {source}")]
    Unwanted {
        /// The file.
        path: PathBuf,
        /// What the server says.
        source: HttpClientError,
    },
    /// Nobody listens on the capture port.
    #[error("capture port {address}: {source}; is the daemon running, and is this its capture port?")]
    NoCapturePort {
        /// The address.
        address: std::net::SocketAddr,
        /// The operating system's answer.
        source: std::io::Error,
    },
    /// The HTTP port.
    #[error(transparent)]
    Http(#[from] HttpClientError),
}

/// What a run tells while it goes on. Called from several threads.
pub trait Listener: Sync {
    /// Tiles done (stored, there already, or refused), tiles in all, bytes acknowledged.
    fn progress(&self, done: u64, total: u64, bytes: u64);

    /// A line for people: a warning, a lost connection, a step done.
    fn note(&self, line: &str);
}

/// Nobody listens.
pub struct Quiet;

impl Listener for Quiet {
    fn progress(&self, _: u64, _: u64, _: u64) {}
    fn note(&self, _: &str) {}
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
    let http = HttpClient::new(&link.http, link.timeout);
    let mut run = Run { folder: &folder, options, listener, http, report: SendReport::new(folder.acq(), &plan) };
    run.probe(&plan)?;
    run.begin()?;
    let stored = run.what_is_stored(&plan)?;
    let undelivered = tiles::send(&plan, &stored, options, listener, stop, &mut run.report);
    run.finish(undelivered.err())
}

/// A run under way.
struct Run<'a> {
    folder: &'a AcquisitionFolder,
    options: &'a SendOptions,
    listener: &'a dyn Listener,
    http: HttpClient,
    report: SendReport,
}

impl Run<'_> {
    /// Finds out at once, and without patience, whether the ports are what they should be.
    fn probe(&mut self, plan: &Plan) -> Result<(), SendError> {
        let _ = self.http.acquisition(self.folder.acq())?;
        let link = &self.options.delivery.link;
        if link.via == crate::client::Via::Tcp && !plan.tiles.is_empty() {
            let address = link.capture;
            std::net::TcpStream::connect_timeout(&address, link.timeout)
                .map_err(|source| SendError::NoCapturePort { address, source })?;
        }
        Ok(())
    }

    /// Log, ROIs, calibrations.
    fn begin(&mut self) -> Result<(), SendError> {
        if self.options.wants(Part::Log) {
            files::send_log(self)?;
        }
        if self.options.wants(Part::Rois) {
            files::send_rois(self)?;
        }
        if let Some(path) = &self.options.calibrations {
            files::send_calibrations(self, path)?;
        }
        Ok(())
    }

    /// The server's list of tiles, and how complete it was before this run.
    fn what_is_stored(&mut self, plan: &Plan) -> Result<StoredTiles, SendError> {
        if plan.tiles.is_empty() {
            return Ok(StoredTiles::default());
        }
        let (acq, http) = (self.folder.acq(), &self.http);
        let known = self.patiently(|| http.acquisition(acq))?.is_some();
        if !known {
            return Ok(StoredTiles::default());
        }
        self.report.before = Some(self.patiently(|| http.completeness(acq))?);
        self.patiently(|| StoredTiles::ask(http, acq, self.options.compare)).map_err(SendError::from)
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
            files::send_others(self)?;
        }
        let acq = self.folder.acq();
        if self.options.wants(Part::End) && !self.report.stopped {
            self.patiently(|| self.http.end_acquisition(acq))?;
            self.report.ended = true;
        }
        if self.options.sends_everything() {
            self.report.after = Some(self.patiently(|| self.http.completeness(acq))?);
        }
        Ok(())
    }

    /// Asks again while the server is away, for as long as the options allow.
    fn patiently<T>(&self, ask: impl Fn() -> Result<T, HttpClientError>) -> Result<T, HttpClientError> {
        let (began, mut pause) = (Instant::now(), Duration::from_millis(50));
        loop {
            match ask() {
                Err(error) if error.is_passing() && began.elapsed() < self.options.delivery.retry_for => {
                    self.listener.note(&format!("{error}; trying again"));
                    std::thread::sleep(pause);
                    pause = (pause * 2).min(Duration::from_secs(2));
                }
                answer => return answer,
            }
        }
    }
}

fn read_file(path: &Path) -> Result<Vec<u8>, SendError> {
    std::fs::read(path).map_err(|source| SendError::File { path: path.to_owned(), source })
}
