//! ROIs, the tiles in them, and the states in which those are: what is distributed to stitching software.
//!
//! A ROI is a region of one nominal section. A tile that lies in it is a ROI tile with a state of its own; a tile in
//! two ROIs has two. Owns names and identifiers only: must never know which states exist right now.

use super::{AcqId, FrameNumber};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// State of a ROI tile whose content has not come.
pub const STATE_CREATE: &str = "CREATE";
/// State of a ROI tile whose content is stored and that nobody has asked for.
pub const STATE_READY: &str = "READY";
/// State that next-tile gives by default.
pub const STATE_IN_PROGRESS: &str = "IN_PROGRESS";
/// Longest name of a state, bytes.
pub const STATE_NAME_BYTES_MAX: usize = 64;

/// Position of a ROI in its acquisition's list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RoiIndex(pub u16);

/// A region of one nominal section.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Roi {
    /// The section's identifier as the ROI specification writes it: unique in an acquisition.
    pub name: String,
    /// Nominal section.
    pub section: i64,
    /// Number of earlier acquisitions of the same sample that hold this section.
    pub prev: u32,
}

impl Roi {
    /// `<section>.<prev>`, as tilespecs write it.
    #[must_use]
    pub fn section_id(&self) -> String {
        format!("{}.{}", self.section, self.prev)
    }
}

/// A place in an acquisition: column, row, frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Cell(pub u32, pub u32, pub FrameNumber);

/// Places in one ROI of one acquisition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoiCells {
    /// The acquisition.
    pub acq: AcqId,
    /// The ROI.
    pub roi: RoiIndex,
    /// The places.
    pub cells: Vec<Cell>,
}

/// One ROI tile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RoiTileKey {
    /// The acquisition.
    pub acq: AcqId,
    /// The ROI.
    pub roi: RoiIndex,
    /// The place.
    pub cell: Cell,
}

/// Identifier of a tile in render: `<acq>.<col>.<row>.<section>.<prev>`, with `.<frame>` behind it for a drift frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TileSpecId {
    /// The acquisition.
    pub acq: AcqId,
    /// The place.
    pub cell: Cell,
    /// Nominal section.
    pub section: i64,
    /// Number of earlier acquisitions of the sample with this section.
    pub prev: u32,
}

impl fmt::Display for TileSpecId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Cell(col, row, frame) = self.cell;
        write!(f, "{}.{col:03}.{row:03}.{}.{}", self.acq, self.section, self.prev)?;
        if frame.is_stable() { Ok(()) } else { write!(f, ".{}", frame.0) }
    }
}

/// A text that is no [`TileSpecId`].
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("\"{0}\" is no tile id like 150304.012.034.5800.0")]
pub struct TileSpecIdError(String);

impl FromStr for TileSpecId {
    type Err = TileSpecIdError;

    fn from_str(text: &str) -> Result<Self, TileSpecIdError> {
        let wrong = || TileSpecIdError(text.chars().take(60).collect());
        let parts: Vec<u64> = text.split('.').map(digits).collect::<Option<_>>().ok_or_else(wrong)?;
        let (front, frame) = match parts[..] {
            [a, b, c, d, e] => ([a, b, c, d, e], FrameNumber::STABLE),
            [a, b, c, d, e, f] => ([a, b, c, d, e], FrameNumber(i32::try_from(f).map_err(|_| wrong())?)),
            _ => return Err(wrong()),
        };
        let small = |n: u64| u32::try_from(n).map_err(|_| wrong());
        Ok(Self {
            acq: AcqId(front[0]),
            cell: Cell(small(front[1])?, small(front[2])?, frame),
            section: i64::try_from(front[3]).map_err(|_| wrong())?,
            prev: small(front[4])?,
        })
    }
}

fn digits(text: &str) -> Option<u64> {
    (!text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())).then(|| text.parse().ok()).flatten()
}

/// Why a text can not be the name of a state. `None`: it can.
#[must_use]
pub fn state_name_problem(name: &str) -> Option<String> {
    if name.is_empty() {
        return Some("a state must not be empty".to_owned());
    }
    if name.len() > STATE_NAME_BYTES_MAX || name.chars().any(char::is_control) {
        let front: String = name.chars().take(20).flat_map(char::escape_default).collect();
        return Some(format!(
            "\"{front}\" is no state: at most {STATE_NAME_BYTES_MAX} bytes and no control characters"
        ));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn a_written_id_is_read_back(acq: u64, col: u32, row: u32, section in 0i64.., prev: u32, frame in -1..i32::MAX) {
            let id = TileSpecId { acq: AcqId(acq), cell: Cell(col, row, FrameNumber(frame)), section, prev };
            proptest::prop_assert_eq!(id.to_string().parse(), Ok(id));
        }

        #[test]
        fn any_text_is_read_without_a_panic(text in "[0-9.\\-+x\u{e9}]{0,60}") {
            let _ = text.parse::<TileSpecId>();
        }
    }

    #[test]
    fn ids_have_the_widths_of_the_original() {
        let id = TileSpecId { acq: AcqId(7), cell: Cell(3, 1234, FrameNumber::STABLE), section: 5800, prev: 2 };
        assert_eq!(id.to_string(), "7.003.1234.5800.2");
    }

    #[test]
    fn malformed_ids_are_refused() {
        for bad in
            ["", "1.2.3.4", "1.2.3.4.5.6.7", "1.2.3.4.x", "1..3.4.5", "-1.2.3.4.5", "1.4294967296.3.4.5", "+1.2.3.4.5"]
        {
            assert!(bad.parse::<TileSpecId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_state_is_short_and_plain() {
        assert_eq!(state_name_problem("MY STATE"), None);
        assert!(state_name_problem("").is_some());
        assert!(state_name_problem("a\nb").is_some());
        assert!(state_name_problem(&"x".repeat(65)).is_some());
    }
}
