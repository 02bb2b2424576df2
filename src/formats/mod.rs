//! The field's file formats: acquisition logs, tile names, acquisition folders, TIFF. Pure parsing, except that
//! [`AcquisitionFolder`] lists directories.
//!
//! Must never talk to a server or keep anything between calls.

mod acquisition_log;
mod daq_timing;
mod folder;
mod ini;
mod tiff_image;
mod tile_name;

pub use acquisition_log::{AcquisitionLog, acq_id_from_file_name};
pub use daq_timing::{DaqStep, parse_daq_timing};
pub use folder::{AcquisitionFolder, FolderTile, TileListing};
pub use tiff_image::{encode_gray8, encode_gray16};
pub use tile_name::TileName;

use std::path::PathBuf;

/// Why a file or name is not what it should be.
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
    /// The content as a whole.
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
