//! File names of tiles: `col0001_row0002_cam3.tif`, and of drift frames: `Dump_cam3_frame000004_col0001_row0002.tif`.

use super::FormatError;
use crate::model::FrameNumber;
use std::fmt;
use std::str::FromStr;

/// What a tile's file name says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TileName {
    /// Camera index.
    pub camera: i32,
    /// Column.
    pub col: u32,
    /// Row.
    pub row: u32,
    /// Stable tile or drift frame.
    pub frame: FrameNumber,
}

impl FromStr for TileName {
    type Err = FormatError;

    /// Reads the base name of a path; anchored at both ends.
    fn from_str(path: &str) -> Result<Self, FormatError> {
        let base = path.rsplit(['/', '\\']).next().unwrap_or_default();
        parse_stable(base)
            .or_else(|| parse_drift(base))
            .ok_or_else(|| FormatError::Content(format!("\"{base}\" is no tile name like col0001_row0002_cam3.tif")))
    }
}

fn parse_stable(base: &str) -> Option<TileName> {
    let rest = base.strip_suffix(".tif")?;
    let (col, rest) = number::<u32>(rest.strip_prefix("col")?)?;
    let (row, rest) = number::<u32>(rest.strip_prefix("_row")?)?;
    let (camera, rest) = number::<i32>(rest.strip_prefix("_cam")?)?;
    rest.is_empty().then_some(TileName { camera, col, row, frame: FrameNumber::STABLE })
}

fn parse_drift(base: &str) -> Option<TileName> {
    let rest = base.strip_suffix(".tif")?.strip_prefix("Dump_cam")?;
    let (camera, rest) = number::<i32>(rest)?;
    let (frame, rest) = number::<i32>(rest.strip_prefix("_frame")?)?;
    let (col, rest) = number::<u32>(rest.strip_prefix("_col")?)?;
    let (row, rest) = number::<u32>(rest.strip_prefix("_row")?)?;
    (rest.is_empty() && camera <= 9).then_some(TileName { camera, col, row, frame: FrameNumber(frame) })
}

/// The digits at the front as a number, and what follows them.
fn number<T: FromStr>(text: &str) -> Option<(T, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    Some((text[..end].parse().ok()?, &text[end..]))
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

    proptest::proptest! {
        #[test]
        fn names_survive_writing_and_reading(camera in 0i32..10, col: u32, row: u32, frame in -1i32..) {
            let name = TileName { camera, col, row, frame: FrameNumber(frame) };
            proptest::prop_assert_eq!(format!("some/dir\\{name}").parse::<TileName>().ok(), Some(name));
        }
    }

    #[test]
    fn names_are_anchored_and_numbers_bounded() {
        for bad in [
            "xcol0001_row0002_cam3.tif",
            "col0001_row0002_cam3.tiff",
            "col0001_row0002_cam3.tif/",
            "col-1_row0002_cam3.tif",
            "col4294967296_row0_cam0.tif",
            "Dump_cam10_frame0_col0_row0.tif",
            "",
        ] {
            assert!(bad.parse::<TileName>().is_err(), "{bad}");
        }
    }
}
