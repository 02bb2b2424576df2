//! The domain's nouns: identifiers, keys, checksums, acquisitions, calibrations, ancillary files, refusals, pressure.
//!
//! Owns meaning, not mechanism: nothing here reads a socket, a file or a clock, and nothing here
//! knows a vendor crate except `serde` and `serde_json` for the facts that are written into the journal.

mod acquisition;
mod ancillary;
mod calibration;
mod checksum;
mod fact;
mod ids;
mod outcome;
mod quality;
mod roi;
mod temca;

pub use acquisition::{AcquisitionFacts, CameraCount, GridShape};
pub use ancillary::AncillaryKind;
pub use calibration::{Calibration, CalibrationRecord};
pub use checksum::{Checksum, ChecksumError, ChecksumKind, hex};
pub use fact::{
    AcquisitionDeleted, AcquisitionEnded, AcquisitionStarted, CalibrationsImported, Fact, FactBody, FileStored, Lease,
    Location, ManifestMade, NumbersGiven, RoisCreated, StatesChanged, Tally, TemcaConfigured, TileEntry,
};
pub use ids::{AcqId, FrameNumber, Sequence, TileId, TileKey, TileKeyError, TileVersion};
pub use outcome::{AckLevel, Pressure, Refusal};
pub use quality::{JudgedTile, Judgement, Measures, QualityFlag, QualityFlags, TilesJudged};
pub use roi::{
    Cell, Roi, RoiCells, RoiIndex, RoiTileKey, STATE_CREATE, STATE_IN_PROGRESS, STATE_NAME_BYTES_MAX, STATE_READY,
    TileSpecId, TileSpecIdError, state_name_problem,
};
pub use temca::{Camera, Temca};

/// A run of bytes inside a larger one: `offset .. offset + len`, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct ByteRange {
    /// First byte, counted from the start of the enclosing run.
    pub offset: u32,
    /// Number of bytes.
    pub len: u32,
}

impl ByteRange {
    /// The same run as `usize` bounds, for slicing.
    #[must_use]
    pub fn bounds(self) -> std::ops::Range<usize> {
        let start = self.offset as usize;
        start..start + self.len as usize
    }
}
