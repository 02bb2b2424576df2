//! The field's file formats: acquisition logs, regions of interest, calibrations, names of tiles and ancillary files,
//! DAQ timing, acquisition folders, TIFF.
//!
//! Owns the reading of text and bytes that others wrote, and the names we write. Must never open a socket, keep
//! anything between calls, or change a file: only [`AcquisitionFolder`] touches the disk, and it only reads.

mod acquisition_log;
mod ancillary;
mod calibrations;
mod daq_timing;
mod folder;
#[cfg(all(feature = "daemon", any(test, fuzzing)))]
pub(crate) mod fuzzing;
mod ini;
#[cfg(test)]
mod properties;
mod roi_spec;
mod roi_tiles;
mod tiff_image;
mod tiff_layout;
mod tile_name;
mod tile_spec;

pub use acquisition_log::{AcquisitionLog, acq_id_from_file_name};
pub use ancillary::{ancillary_kind, safe_file_name};
pub use calibrations::parse_calibrations;
pub use daq_timing::{DaqStep, GridPosition, daq_step_times, parse_daq_timing};
pub use folder::{AcquisitionFolder, FolderTile, OWN_FILES, TileListing, is_tile_directory};
pub use roi_spec::{RoiSection, parse_roi_spec};
pub use roi_tiles::{RoiTileRow, RoiTileTable, parse_roi_tiles};
pub use tiff_image::{Directory, dimensions, encode_gray8, encode_gray16};
pub use tiff_layout::check_whole_tiff;
#[cfg(feature = "daemon")]
pub(crate) use tiff_layout::{File as TiffFile, Values as TiffValues};
pub use tile_name::TileName;
pub use tile_spec::{StagePosition, TileSpec, TileSpecParts};

use std::path::{Path, PathBuf};

/// Why a file, a name or an image is not what it should be.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    /// A line of a text file.
    #[error("line {line}: {problem}")]
    Line {
        /// Counted from 1.
        line: usize,
        /// What is wrong.
        problem: String,
    },
    /// The content or the name as a whole.
    #[error("{0}")]
    Content(String),
    /// A file or directory.
    #[error("{path}: {problem}")]
    Path {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
}

impl FormatError {
    /// The same problem, said of a file.
    fn at(path: &Path, problem: impl ToString) -> Self {
        Self::Path { path: path.to_owned(), problem: problem.to_string() }
    }
}

/// The last part of a path written on either kind of system.
fn base_name(path: &str) -> &str {
    path.rsplit(['/', '\\']).next().unwrap_or(path)
}

/// The front of a text that a stranger wrote, short enough for a message.
fn excerpt(text: &str) -> String {
    const CHARS_MAX: usize = 60;
    let mut front: String = text.chars().take(CHARS_MAX).collect();
    if front.len() < text.len() {
        front.push_str("...");
    }
    front
}
