//! Identifiers and the tile key. Every one is a newtype, so that two of them can not be swapped.

use super::Cell;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Identifier of an acquisition (`acq_id`, `uid`): the digits before the first `_` of the log's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct AcqId(pub u64);

/// Identifier of a tile. Above 0 for a stored tile and below 2^53, so that browsers keep it exact.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TileId(pub u64);

impl TileId {
    /// The first identifier that may not be handed out: 2^53.
    pub const LIMIT: u64 = 1 << 53;
    /// The wire's value for "no tile": what a refusal carries.
    pub const NONE: TileId = TileId(0);
}

/// Position of a record in the journal's single order. Starts at 1; gaps are legal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, Default)]
#[serde(transparent)]
pub struct Sequence(pub u64);

/// Version of a tile's content: 1 for the first content stored under a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TileVersion(pub u32);

impl TileVersion {
    /// The version that the first content of a key gets.
    pub const FIRST: TileVersion = TileVersion(1);
}

/// Camera frame number: -1 for a stable tile, 0 and above for a drift frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FrameNumber(pub i32);

impl FrameNumber {
    /// The stable tile of a position.
    pub const STABLE: FrameNumber = FrameNumber(-1);

    /// True for the stable tile, false for a drift frame.
    #[must_use]
    pub fn is_stable(self) -> bool {
        self == Self::STABLE
    }
}

/// What makes a tile unique: acquisition, column, row, frame. The camera is an attribute, not part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TileKey {
    /// The acquisition.
    pub acq: AcqId,
    /// Column in the mosaic, from 0.
    pub col: u32,
    /// Row in the mosaic, from 0.
    pub row: u32,
    /// Stable tile or drift frame.
    pub frame: FrameNumber,
}

impl TileKey {
    /// Its place in the acquisition.
    #[must_use]
    pub fn cell(&self) -> Cell {
        Cell(self.col, self.row, self.frame)
    }
}

/// Why four wire integers are not a tile key.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum TileKeyError {
    /// Column below 0.
    #[error("column {0} is negative")]
    NegativeColumn(i32),
    /// Row below 0.
    #[error("row {0} is negative")]
    NegativeRow(i32),
    /// Frame below -1.
    #[error("frame {0} is below -1")]
    FrameBelowStable(i32),
}

impl TileKey {
    /// Makes a key of the wire's signed integers.
    ///
    /// # Errors
    /// Negative column or row, frame below -1.
    pub fn from_wire(acq: AcqId, col: i32, row: i32, frame: i32) -> Result<Self, TileKeyError> {
        let col = u32::try_from(col).map_err(|_| TileKeyError::NegativeColumn(col))?;
        let row = u32::try_from(row).map_err(|_| TileKeyError::NegativeRow(row))?;
        if frame < FrameNumber::STABLE.0 {
            return Err(TileKeyError::FrameBelowStable(frame));
        }
        Ok(Self { acq, col, row, frame: FrameNumber(frame) })
    }

    /// A number that is the same for equal keys and spreads neighbours: picks the key's lane.
    #[must_use]
    pub fn spread(&self) -> u64 {
        let position = (u64::from(self.col) << 32) | u64::from(self.row);
        let mut x = self.acq.0 ^ position.rotate_left(17) ^ u64::from(self.frame.0.cast_unsigned());
        x = (x ^ (x >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
        x = (x ^ (x >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
        x ^ (x >> 32)
    }
}

impl fmt::Display for AcqId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for TileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for TileKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "acquisition {} col {} row {}", self.acq, self.col, self.row)?;
        if self.frame.is_stable() { Ok(()) } else { write!(f, " frame {}", self.frame.0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn negative_positions_are_not_keys() {
        let acq = AcqId(1);
        assert_eq!(TileKey::from_wire(acq, -1, 0, -1), Err(TileKeyError::NegativeColumn(-1)));
        assert_eq!(TileKey::from_wire(acq, 0, -7, -1), Err(TileKeyError::NegativeRow(-7)));
        assert_eq!(TileKey::from_wire(acq, 0, 0, -2), Err(TileKeyError::FrameBelowStable(-2)));
        assert!(TileKey::from_wire(acq, 0, 0, -1).is_ok_and(|key| key.frame.is_stable()));
    }

    #[test]
    fn spread_divides_a_mosaic_evenly() {
        let mut lanes = [0usize; 4];
        for col in 0..100 {
            for row in 0..100 {
                let key = TileKey { acq: AcqId(150_304), col, row, frame: FrameNumber::STABLE };
                lanes[usize::try_from(key.spread() % 4).expect("below 4")] += 1;
            }
        }
        for lane in lanes {
            assert!((2_300..2_700).contains(&lane), "uneven lanes: {lanes:?}");
        }
    }
}
