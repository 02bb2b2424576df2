//! The text files of a folder: log, ROIs, calibrations, and all the others.
//!
//! Must never start an acquisition again that the server has with this very log: that would reopen one that was ended.

use super::report::Problem;
use super::{Run, SendError, read_file};
use crate::client::{FileToStore, HttpClientError};
use std::path::Path;

/// Starts the acquisition.
pub(super) fn send_log(run: &mut Run<'_>) -> Result<(), SendError> {
    let path = run.folder.log_path();
    let log = read_file(path)?;
    let acq = run.folder.acq();
    let known = run.patiently(|| run.http.acquisition(acq))?;
    if known.is_some_and(|known| known.log.as_bytes() == log) {
        run.listener.note(&format!("acquisition {acq} is known to the server"));
        return Ok(());
    }
    let started = run.patiently(|| run.http.start_acquisition(&run.folder.log_name(), &log));
    started.map(drop).map_err(|error| of_file(path, error))
}

/// Creates the ROIs, where both files are there; what is there already is kept by the server.
pub(super) fn send_rois(run: &mut Run<'_>) -> Result<(), SendError> {
    let (tiles_path, spec_path) = match (run.folder.roi_tiles_path(), run.folder.roi_spec_path()) {
        (Some(tiles), Some(spec)) => (tiles, spec),
        (None, None) => return Ok(()),
        (Some(one), None) | (None, Some(one)) => {
            let what = "the other ROI file is missing: ROIs are not created";
            run.listener.note(&format!("{}: {what}", one.display()));
            run.report.refused_files.push(Problem::new(one, what));
            return Ok(());
        }
    };
    let (tiles, spec) = (read_file(tiles_path)?, read_file(spec_path)?);
    let stored = run.patiently(|| run.http.files(run.folder.acq()))?;
    let is_stored = |path: &Path, bytes: &[u8]| holds(&stored, &base_name(path), bytes);
    if is_stored(tiles_path, &tiles) && is_stored(spec_path, &spec) {
        return Ok(());
    }
    let (tiles_name, spec_name) = (base_name(tiles_path), base_name(spec_path));
    let created = run.patiently(|| {
        let tiles = FileToStore { name: &tiles_name, bytes: &tiles };
        run.http.create_rois(run.folder.acq(), tiles, FileToStore { name: &spec_name, bytes: &spec })
    });
    match created {
        Err(error @ HttpClientError::Refused { status: 400, .. }) => {
            // Bad ROI files are no reason to lose tiles.
            run.listener.note(&format!("{}: {error}; ROIs are not created", tiles_path.display()));
            run.report.refused_files.push(Problem::new(tiles_path, error));
            Ok(())
        }
        other => other.map_err(|error| of_file(tiles_path, error)),
    }
}

/// Imports calibrations.
pub(super) fn send_calibrations(run: &mut Run<'_>, path: &Path) -> Result<(), SendError> {
    let json = read_file(path)?;
    run.patiently(|| run.http.import_calibrations(&json)).map_err(|error| of_file(path, error))
}

/// Stores all other files of the folder with the acquisition, but those that are stored already.
pub(super) fn send_others(run: &mut Run<'_>) -> Result<(), SendError> {
    let paths = run.folder.other_files()?;
    if paths.is_empty() {
        return Ok(());
    }
    let acq = run.folder.acq();
    let stored = run.patiently(|| run.http.files(acq))?;
    for path in paths {
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) => {
                run.listener.note(&format!("{}: {error}; not sent", path.display()));
                run.report.unreadable.push(Problem::new(&path, error));
                continue;
            }
        };
        let name = base_name(&path);
        if bytes.is_empty() {
            run.listener.note(&format!("{}: an empty file; not sent", path.display()));
            continue;
        }
        if holds(&stored, &name, &bytes) {
            continue;
        }
        let file = FileToStore { name: &name, bytes: &bytes };
        match run.patiently(|| run.http.store_file(acq, file))? {
            None => run.report.files += 1,
            Some(refused) => {
                run.listener.note(&format!("refused {}: {}", path.display(), refused.problem));
                run.report.refused_files.push(Problem::new(&path, refused.problem));
            }
        }
    }
    Ok(())
}

/// The server holds this very file; of several with one name the latest counts.
fn holds(stored: &[crate::client::StoredFile], name: &str, bytes: &[u8]) -> bool {
    let latest = stored.iter().rev().find(|file| file.name == name);
    latest.is_some_and(|file| file.size == bytes.len() as u64 && file.crc32 == crc32fast::hash(bytes))
}

fn base_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
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
