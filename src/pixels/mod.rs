//! Pixels: what a stored image shows. Grey TIFF decoded, made smaller, brightened, cut out, written as PNG.
//!
//! Pure functions over bytes that strangers wrote: no size in a file is believed before it was held against a limit and
//! the file's own length. The only place that imports `png`. Must never open a file, keep anything between calls, or
//! hold a second copy of an uncompressed image.

mod contrast;
mod encode;
mod measure;
mod reduce;
mod source;
#[cfg(test)]
mod tests;

pub use contrast::{Contrast, ContrastError};
pub use encode::{GreyAlpha, decode_png, encode_grey, encode_grey_alpha};
pub use measure::{Measured, measure};
pub use reduce::{Raster, Reducer};
pub use source::{GreyTiff, Piece, Samples};

/// Longest side of an image, pixels.
pub const SIDE_MAX: u32 = 1 << 16;
/// Most pixels of an image.
pub const PIXELS_MAX: u64 = 1 << 28;
/// Most pixels of an answer.
pub const OUTPUT_PIXELS_MAX: u64 = 1 << 25;

/// Bits of a pixel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// 0 to 255.
    Eight,
    /// 0 to 65535.
    Sixteen,
}

impl Depth {
    /// The highest value.
    #[must_use]
    pub fn max(self) -> u16 {
        match self {
            Self::Eight => 255,
            Self::Sixteen => u16::MAX,
        }
    }

    fn bytes(self) -> usize {
        match self {
            Self::Eight => 1,
            Self::Sixteen => 2,
        }
    }
}

/// A part of an image, pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Region {
    /// Its left column.
    pub x: u32,
    /// Its top row.
    pub y: u32,
    /// Columns, above 0.
    pub width: u32,
    /// Rows, above 0.
    pub height: u32,
}

impl Region {
    /// The whole of an image.
    #[must_use]
    pub fn whole(width: u32, height: u32) -> Self {
        Self { x: 0, y: 0, width, height }
    }

    /// True when it has pixels and all of them lie in an image of this size.
    #[must_use]
    pub fn is_inside(&self, width: u32, height: u32) -> bool {
        let ends = |from: u32, len: u32, all: u32| len > 0 && from.checked_add(len).is_some_and(|end| end <= all);
        ends(self.x, self.width, width) && ends(self.y, self.height, height)
    }

    /// Pixels.
    #[must_use]
    pub fn area(&self) -> u64 {
        u64::from(self.width) * u64::from(self.height)
    }

    /// The size in which it fits into a square of `side`, never larger than it is.
    #[must_use]
    pub fn fit(&self, side: u32) -> (u32, u32) {
        let longest = self.width.max(self.height);
        let shrink = |len: u32| {
            let scaled = (u64::from(len) * u64::from(side) + u64::from(longest) / 2) / u64::from(longest.max(1));
            u32::try_from(scaled).unwrap_or(len).max(1)
        };
        if side >= longest { (self.width, self.height) } else { (shrink(self.width), shrink(self.height)) }
    }
}

/// Why an image can not be shown.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PixelError {
    /// It is no TIFF at all.
    #[error("not a TIFF")]
    NotTiff,
    /// A kind of TIFF that is not taken.
    #[error("a TIFF of a kind that is not shown: {0}")]
    Unsupported(String),
    /// The file contradicts itself or is cut off.
    #[error("a damaged TIFF: {0}")]
    Damaged(String),
    /// Larger than the limits.
    #[error("{0}")]
    TooLarge(String),
    /// What was asked for is not in the image.
    #[error("{0}")]
    OutOfRange(String),
}
