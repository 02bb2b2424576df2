//! File names of tiles: `col0001_row0002_cam3.tif`, and of drift frames: `Dump_cam3_frame000004_col0001_row0002.tif`.
//!
//! Owns both directions, reading and writing. Must never look at another part of a path than its base name.

use super::{FormatError, base_name, excerpt};
use crate::model::{AcqId, FrameNumber, TileKey};
use std::{fmt, str::FromStr};

/// What a tile's file name says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TileName {
    /// Camera in the microscope's array, from 0; one digit for a drift frame.
    pub camera: i32,
    /// Column in the mosaic, from 0.
    pub col: u32,
    /// Row in the mosaic, from 0.
    pub row: u32,
    /// Stable tile or drift frame.
    pub frame: FrameNumber,
}

impl TileName {
    /// The name of a tile's file.
    #[must_use]
    pub fn of(key: TileKey, camera: i32) -> Self {
        Self { camera, col: key.col, row: key.row, frame: key.frame }
    }

    /// The key of the tile in an acquisition.
    #[must_use]
    pub fn key(&self, acq: AcqId) -> TileKey {
        TileKey { acq, col: self.col, row: self.row, frame: self.frame }
    }
}

impl FromStr for TileName {
    type Err = FormatError;

    /// Reads the base name of a path; nothing may stand before or after it.
    ///
    /// # Errors
    /// Another form, or a number too large for its type.
    fn from_str(path: &str) -> Result<Self, FormatError> {
        let base = base_name(path);
        stable(base).or_else(|| drift(base)).ok_or_else(|| {
            let base = excerpt(base);
            FormatError::Content(format!("\"{base}\" is no tile name like col0001_row0002_cam3.tif"))
        })
    }
}

/// `col(\d+)_row(\d+)_cam(\d+)\.tif`
fn stable(base: &str) -> Option<TileName> {
    let (col, rest) = number(base.strip_prefix("col")?)?;
    let (row, rest) = number(rest.strip_prefix("_row")?)?;
    let (camera, rest) = number(rest.strip_prefix("_cam")?)?;
    (rest == ".tif").then_some(TileName { camera, col, row, frame: FrameNumber::STABLE })
}

/// `Dump_cam(\d)_frame(\d+)_col(\d+)_row(\d+)\.tif`
fn drift(base: &str) -> Option<TileName> {
    let rest = base.strip_prefix("Dump_cam")?;
    let (digit, rest) = rest.split_at_checked(1)?;
    let (camera, _) = number(digit)?;
    let (frame, rest) = number(rest.strip_prefix("_frame")?)?;
    let (col, rest) = number(rest.strip_prefix("_col")?)?;
    let (row, rest) = number(rest.strip_prefix("_row")?)?;
    (rest == ".tif").then_some(TileName { camera, col, row, frame: FrameNumber(frame) })
}

/// The number that the digits at the front make, and what follows them.
fn number<T: FromStr>(text: &str) -> Option<(T, &str)> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (front, rest) = text.split_at(digits);
    Some((front.parse().ok()?, rest))
}

impl fmt::Display for TileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { camera, col, row, frame } = self;
        if frame.is_stable() {
            write!(f, "col{col:04}_row{row:04}_cam{camera}.tif")
        } else {
            write!(f, "Dump_cam{camera}_frame{:06}_col{col:04}_row{row:04}.tif", frame.0)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<TileName> {
        text.parse().ok()
    }

    proptest::proptest! {
        #[test]
        fn a_written_name_is_read_back(camera in 0..10, col: u32, row: u32, frame in -1..i32::MAX) {
            let name = TileName { camera, col, row, frame: FrameNumber(frame) };
            proptest::prop_assert_eq!(read(&name.to_string()), Some(name));
            proptest::prop_assert_eq!(read(&format!("/in/col1\\{name}")), Some(name));
        }

        #[test]
        fn any_text_is_read_without_a_panic(text in "(Dump_cam)?[col_row_cam0-9\u{e9}.tif]{0,40}") {
            let _ = read(&text);
        }
    }

    #[test]
    fn names_have_the_widths_of_the_original() {
        let name = TileName { camera: 3, col: 1, row: 20_000, frame: FrameNumber::STABLE };
        assert_eq!(name.to_string(), "col0001_row20000_cam3.tif");
        assert_eq!(
            TileName { frame: FrameNumber(4), ..name }.to_string(),
            "Dump_cam3_frame000004_col0001_row20000.tif"
        );
    }

    #[test]
    fn digits_need_no_padding_and_a_stable_tile_any_camera() {
        let name = TileName { camera: 12, col: 5, row: 0, frame: FrameNumber::STABLE };
        assert_eq!(read("col5_row0_cam12.tif"), Some(name));
    }

    #[test]
    fn names_are_anchored_at_both_ends() {
        for bad in [
            "",
            "xcol0001_row0002_cam3.tif",
            "col0001_row0002_cam3.tiff",
            "col0001_row0002_cam3.TIF",
            "col0001_row0002_cam3.tif/",
            "col0001_row0002_cam3.tif\n",
            "col_row0002_cam3.tif",
            "col-1_row0002_cam3.tif",
            "col+1_row0002_cam3.tif",
            "col1_row2_cam3",
            "Dump_cam_frame1_col1_row1.tif",
            "Dump_cam12_frame1_col1_row1.tif",
            "Dump_cam01_frame1_col1_row1.tif",
            "Dump_cam\u{e9}_frame1_col1_row1.tif",
            "Dump_cam1_frame-1_col1_row1.tif",
        ] {
            assert_eq!(read(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn numbers_beyond_their_type_are_refused() {
        for bad in [
            "col4294967296_row0_cam0.tif",
            "col0_row4294967296_cam0.tif",
            "col0_row0_cam2147483648.tif",
            "Dump_cam0_frame2147483648_col0_row0.tif",
        ] {
            assert_eq!(read(bad), None, "{bad}");
        }
        assert!(read("col4294967295_row0_cam2147483647.tif").is_some());
    }
}
