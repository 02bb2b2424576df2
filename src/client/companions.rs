//! The files of a folder beside its tiles: log, ROIs, calibrations, and all the others.
//!
//! Must never start an acquisition again that the server has with this very log: that would reopen one that was ended.

use super::http::HttpClientError;
use super::link::{LinkOptions, Via};
use super::patience::Patient;
use super::report::Problem;
use super::service::{FileToStore, StoredFile};
use super::socket;
use crate::formats::{AcquisitionFolder, FormatError};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// Why nothing, or not all that could be, was sent of a folder.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// The folder is not an acquisition.
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
        address: SocketAddr,
        /// The operating system's answer.
        source: std::io::Error,
    },
    /// The HTTP port.
    #[error(transparent)]
    Http(#[from] HttpClientError),
}

impl SendError {
    /// The folder is to blame, not the server.
    #[must_use]
    pub fn is_input(&self) -> bool {
        matches!(self, Self::Folder(_) | Self::File { .. } | Self::Unwanted { .. })
    }
}

/// Whether somebody listens on the capture port, where tiles go there.
///
/// # Errors
/// [`SendError::NoCapturePort`].
pub fn probe_capture_port(link: &LinkOptions) -> Result<(), SendError> {
    if link.via == Via::Tcp {
        let address = link.capture;
        socket::probe(address, link.timeout, link.tls.as_ref())
            .map_err(|source| SendError::NoCapturePort { address, source })?;
    }
    Ok(())
}

/// What became of the files that belong to no other part.
#[derive(Clone, Debug, Default)]
pub struct OtherFiles {
    /// Files that were stored now.
    pub stored: u64,
    /// Files that the server has, from now or before.
    pub there: Vec<PathBuf>,
    /// Files that the server refused.
    pub refused: Vec<Problem>,
    /// Files that could not be read.
    pub unreadable: Vec<Problem>,
}

/// Sends what lies beside the tiles of a folder.
#[derive(Clone, Copy)]
pub struct Companions<'a> {
    /// The way to the server.
    pub patient: Patient<'a>,
    /// The folder.
    pub folder: &'a AcquisitionFolder,
}

impl Companions<'_> {
    /// Starts the acquisition.
    ///
    /// # Errors
    /// The log can not be read, the server does not want it, or stays away.
    pub fn send_log(&self) -> Result<(), SendError> {
        let path = self.folder.log_path();
        let log = read_file(path)?;
        let acq = self.folder.acq();
        let known = self.patient.ask(|http| http.acquisition(acq))?;
        // The server keeps text: of a log in another encoding, such as one with a µ of Windows, what is left of it.
        if known.is_some_and(|known| known.log == String::from_utf8_lossy(&log)) {
            self.patient.listener.note(&format!("acquisition {acq} is known to the server"));
            return Ok(());
        }
        let started = self.patient.ask(|http| http.start_acquisition(&self.folder.log_name(), &log));
        started.map(drop).map_err(|error| of_file(path, error))
    }

    /// Creates the ROIs, where both files are there; what is there already is kept by the server. A problem with the
    /// files themselves is no reason to lose tiles: it is returned.
    ///
    /// # Errors
    /// As [`Self::send_log`].
    pub fn send_rois(&self) -> Result<Option<Problem>, SendError> {
        let (tiles_path, spec_path) = match (self.folder.roi_tiles_path(), self.folder.roi_spec_path()) {
            (Some(tiles), Some(spec)) => (tiles, spec),
            (None, None) => return Ok(None),
            (Some(one), None) | (None, Some(one)) => {
                return Ok(Some(self.problem(one, "the other ROI file is missing: ROIs are not created")));
            }
        };
        let (tiles, spec) = (read_file(tiles_path)?, read_file(spec_path)?);
        let stored = self.patient.ask(|http| http.files(self.folder.acq()))?;
        let is_stored = |path: &Path, bytes: &[u8]| holds(&stored, &base_name(path), bytes);
        if is_stored(tiles_path, &tiles) && is_stored(spec_path, &spec) {
            return Ok(None);
        }
        let (tiles_name, spec_name) = (base_name(tiles_path), base_name(spec_path));
        let created = self.patient.ask(|http| {
            let tiles = FileToStore { name: &tiles_name, bytes: &tiles };
            http.create_rois(self.folder.acq(), tiles, FileToStore { name: &spec_name, bytes: &spec })
        });
        match created {
            Ok(()) => Ok(None),
            Err(error @ HttpClientError::Refused { status: 400, .. }) => {
                Ok(Some(self.problem(tiles_path, format!("{error}; ROIs are not created"))))
            }
            Err(error) => Err(of_file(tiles_path, error)),
        }
    }

    /// Imports calibrations.
    ///
    /// # Errors
    /// As [`Self::send_log`].
    pub fn send_calibrations(&self, path: &Path) -> Result<(), SendError> {
        let json = read_file(path)?;
        self.patient.ask(|http| http.import_calibrations(&json)).map_err(|error| of_file(path, error))
    }

    /// Stores those of the folder's other files that `wanted` takes, but for those that are stored already.
    ///
    /// # Errors
    /// The folder can not be read, or the server stays away. What is wrong with a single file is in the result.
    pub fn send_others(&self, wanted: impl Fn(&Path) -> bool) -> Result<OtherFiles, SendError> {
        let mut others = OtherFiles::default();
        let paths: Vec<PathBuf> = self.folder.other_files()?.into_iter().filter(|path| wanted(path)).collect();
        if paths.is_empty() {
            return Ok(others);
        }
        let stored = self.patient.ask(|http| http.files(self.folder.acq()))?;
        for path in paths {
            self.send_other(path, &stored, &mut others)?;
        }
        Ok(others)
    }

    fn send_other(&self, path: PathBuf, stored: &[StoredFile], others: &mut OtherFiles) -> Result<(), SendError> {
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) => {
                others.unreadable.push(self.problem(&path, format!("{error}; not sent")));
                return Ok(());
            }
        };
        if bytes.is_empty() {
            self.patient.listener.note(&format!("{}: an empty file; not sent", path.display()));
            return Ok(());
        }
        let name = base_name(&path);
        if !holds(stored, &name, &bytes) {
            let file = FileToStore { name: &name, bytes: &bytes };
            if let Some(refused) = self.patient.ask(|http| http.store_file(self.folder.acq(), file))? {
                self.patient.listener.note(&format!("refused {}: {}", path.display(), refused.problem));
                others.refused.push(Problem::new(&path, refused.problem));
                return Ok(());
            }
            others.stored += 1;
        }
        others.there.push(path);
        Ok(())
    }

    fn problem(&self, path: &Path, what: impl ToString) -> Problem {
        let problem = Problem::new(path, what);
        self.patient.listener.note(&format!("{}: {}", path.display(), problem.what));
        problem
    }
}

/// The server holds this very file; of several with one name the latest counts.
fn holds(stored: &[StoredFile], name: &str, bytes: &[u8]) -> bool {
    let latest = stored.iter().rev().find(|file| file.name == name);
    latest.is_some_and(|file| file.size == bytes.len() as u64 && file.crc32 == crc32fast::hash(bytes))
}

fn base_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn read_file(path: &Path) -> Result<Vec<u8>, SendError> {
    std::fs::read(path).map_err(|source| SendError::File { path: path.to_owned(), source })
}

/// What the server has against a file names the file.
fn of_file(path: &Path, error: HttpClientError) -> SendError {
    match error {
        source @ HttpClientError::Refused { .. } if !source.is_passing() => {
            SendError::Unwanted { path: path.to_owned(), source }
        }
        other => SendError::Http(other),
    }
}
