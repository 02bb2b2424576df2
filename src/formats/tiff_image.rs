//! TIFF images of one grey channel: written with the `tiff` crate, which only `pixels` imports besides, and measured by
//! hand.
//!
//! Must never decode pixels. The width and height of a stranger's file are read here without the crate's decoder: it
//! reads every array of the directory before a limit can be set, up to 256 MiB a file.

use super::FormatError;
use std::io::Cursor;
use tiff::TiffResult;
use tiff::encoder::{TiffEncoder, colortype};

/// Room for a header, a directory and the offsets of the strips, bytes.
const OVERHEAD: usize = 64 * 1024;

/// Tags of a TIFF directory.
const IMAGE_WIDTH: u16 = 256;
const IMAGE_LENGTH: u16 = 257;
/// Bytes of a directory entry: tag 2, type 2, count 4, value 4.
const ENTRY_BYTES: usize = 12;

/// An uncompressed image of 8 bits a pixel; `pixels` are `width` x `height`, row-major.
///
/// # Errors
/// The pixels are fewer or more, or too many for a TIFF (4 GiB).
pub fn encode_gray8(width: u32, height: u32, pixels: &[u8]) -> Result<Vec<u8>, FormatError> {
    check_count(width, height, pixels.len())?;
    encode(pixels.len(), |encoder| encoder.write_image::<colortype::Gray8>(width, height, pixels))
}

/// An uncompressed image of 16 bits a pixel, little-endian; `pixels` are `width` x `height`, row-major.
///
/// # Errors
/// The pixels are fewer or more, or too many for a TIFF (4 GiB).
pub fn encode_gray16(width: u32, height: u32, pixels: &[u16]) -> Result<Vec<u8>, FormatError> {
    check_count(width, height, pixels.len())?;
    encode(pixels.len() * 2, |encoder| encoder.write_image::<colortype::Gray16>(width, height, pixels))
}

fn check_count(width: u32, height: u32, pixels: usize) -> Result<(), FormatError> {
    if u64::from(width) * u64::from(height) == pixels as u64 && pixels > 0 {
        return Ok(());
    }
    Err(FormatError::Content(format!("{pixels} pixels are no image of {width} x {height}")))
}

fn encode(
    bytes: usize,
    write: impl FnOnce(&mut TiffEncoder<&mut Cursor<Vec<u8>>>) -> TiffResult<()>,
) -> Result<Vec<u8>, FormatError> {
    let mut out = Cursor::new(Vec::with_capacity(bytes + OVERHEAD));
    let written = TiffEncoder::new(&mut out).and_then(|mut encoder| write(&mut encoder));
    written.map_err(|error| FormatError::Content(format!("image can not be written as TIFF: {error}")))?;
    Ok(out.into_inner())
}

/// Width and height in pixels of the first image, read from its header and directory alone. Allocates nothing.
///
/// # Errors
/// Not a TIFF (a `BigTIFF` is not taken for one), cut off within the directory, or without both dimensions above 0.
pub fn dimensions(bytes: &[u8]) -> Result<(u32, u32), FormatError> {
    let tiff = Tiff::open(bytes).ok_or_else(|| FormatError::Content("not a TIFF".to_owned()))?;
    let size = tiff.tag(IMAGE_WIDTH).zip(tiff.tag(IMAGE_LENGTH)).filter(|(width, height)| *width > 0 && *height > 0);
    size.ok_or_else(|| FormatError::Content("a TIFF without width and height in its first directory".to_owned()))
}

/// Where the first directory of a TIFF lies: for reading the dimensions of a file that is not in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Directory {
    /// Offset in the file, bytes.
    pub offset: u32,
    order: [u8; 2],
}

impl Directory {
    /// Bytes of a directory that are looked at: more than 160 entries.
    pub const BYTES_MAX: usize = 2048;

    /// Reads a file's first 8 bytes. `None`: no TIFF.
    #[must_use]
    pub fn find(head: &[u8; 8]) -> Option<Self> {
        let offset = Tiff::open(head)?.long(4)?;
        Some(Self { offset, order: [head[0], head[1]] })
    }

    /// Width and height as the directory's bytes say.
    #[must_use]
    pub fn dimensions(&self, directory: &[u8]) -> Option<(u32, u32)> {
        let (magic, behind) = (42u16, 8u32);
        let mut moved = self.order.to_vec();
        if &self.order == b"II" {
            moved.extend_from_slice(&magic.to_le_bytes());
            moved.extend_from_slice(&behind.to_le_bytes());
        } else {
            moved.extend_from_slice(&magic.to_be_bytes());
            moved.extend_from_slice(&behind.to_be_bytes());
        }
        moved.extend_from_slice(directory);
        dimensions(&moved).ok()
    }
}

/// The bytes of a TIFF and their order.
struct Tiff<'a> {
    bytes: &'a [u8],
    little_endian: bool,
}

impl<'a> Tiff<'a> {
    fn open(bytes: &'a [u8]) -> Option<Self> {
        let little_endian = match bytes.get(..2)? {
            b"II" => true,
            b"MM" => false,
            _ => return None,
        };
        let tiff = Self { bytes, little_endian };
        (tiff.short(2)? == 42).then_some(tiff)
    }

    /// The value of a tag of the first directory that holds one number of 2 or 4 bytes.
    fn tag(&self, wanted: u16) -> Option<u32> {
        const SHORT: u16 = 3;
        const LONG: u16 = 4;
        let directory = usize::try_from(self.long(4)?).ok()?;
        let mut entries =
            (0..usize::from(self.short(directory)?)).map_while(|n| directory.checked_add(2 + n * ENTRY_BYTES));
        let entry = entries.find(|entry| self.short(*entry) == Some(wanted))?;
        match (self.short(entry + 2)?, self.long(entry + 4)?) {
            (SHORT, 1) => self.short(entry + 8).map(u32::from),
            (LONG, 1) => self.long(entry + 8),
            _ => None,
        }
    }

    fn short(&self, offset: usize) -> Option<u16> {
        let bytes = self.array(offset)?;
        Some(if self.little_endian { u16::from_le_bytes(bytes) } else { u16::from_be_bytes(bytes) })
    }

    fn long(&self, offset: usize) -> Option<u32> {
        let bytes = self.array(offset)?;
        Some(if self.little_endian { u32::from_le_bytes(bytes) } else { u32::from_be_bytes(bytes) })
    }

    fn array<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.bytes.get(offset..offset.checked_add(N)?)?.try_into().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tiff::decoder::{Decoder, DecodingResult};

    fn decoded(bytes: &[u8]) -> DecodingResult {
        Decoder::new(Cursor::new(bytes)).expect("a TIFF").read_image().expect("an image")
    }

    #[test]
    fn pixels_survive_encoding() {
        let eight: Vec<u8> = (0..=255).cycle().take(70 * 50).collect();
        let sixteen: Vec<u16> = (0..70 * 50).map(|n| n * 17).collect();
        match decoded(&encode_gray8(70, 50, &eight).expect("an image")) {
            DecodingResult::U8(pixels) => assert_eq!(pixels, eight),
            other => panic!("not 8 bit: {other:?}"),
        }
        match decoded(&encode_gray16(70, 50, &sixteen).expect("an image")) {
            DecodingResult::U16(pixels) => assert_eq!(pixels, sixteen),
            other => panic!("not 16 bit: {other:?}"),
        }
    }

    #[test]
    fn dimensions_are_those_of_the_encoded_image() {
        assert_eq!(dimensions(&encode_gray8(70, 50, &[0; 3500]).expect("an image")).expect("a TIFF"), (70, 50));
        assert_eq!(dimensions(&encode_gray16(1, 2, &[0; 2]).expect("an image")).expect("a TIFF"), (1, 2));
    }

    #[test]
    fn a_wrong_number_of_pixels_is_refused() {
        assert_eq!(encode_gray8(7, 5, &[0; 34]).expect_err("34").to_string(), "34 pixels are no image of 7 x 5");
        assert!(encode_gray8(7, 5, &[0; 36]).is_err());
        assert!(encode_gray16(0, 5, &[]).is_err());
    }

    /// A big-endian file of one directory, with the width as a short and the height as a long.
    fn big_endian() -> Vec<u8> {
        let mut bytes = b"MM\0\x2a\0\0\0\x08\0\x02".to_vec();
        bytes.extend(b"\x01\x00\0\x03\0\0\0\x01\x0a\0\0\0");
        bytes.extend(b"\x01\x01\0\x04\0\0\0\x01\0\0\x08\x70");
        bytes
    }

    #[test]
    fn either_byte_order_and_number_size_is_read() {
        assert_eq!(dimensions(&big_endian()).expect("a TIFF"), (2560, 2160));
    }

    #[test]
    fn a_directory_far_from_the_header_is_read_by_itself() {
        for file in [encode_gray8(70, 50, &[0; 3500]).expect("an image"), big_endian()] {
            let head: &[u8; 8] = file.first_chunk().expect("a header");
            let directory = Directory::find(head).expect("a TIFF");
            let from = usize::try_from(directory.offset).expect("small");
            assert_eq!(directory.dimensions(&file[from..]), dimensions(&file).ok());
        }
        assert_eq!(Directory::find(b"PNG.....").map(|found| found.offset), None);
    }

    #[test]
    fn damaged_headers_are_errors_wherever_they_are_cut_or_changed() {
        let whole = big_endian();
        for end in 0..whole.len() {
            assert!(dimensions(&whole[..end]).is_err(), "cut at {end}");
        }
        for place in 0..whole.len() {
            let mut changed = whole.clone();
            changed[place] ^= 0xff;
            let _ = dimensions(&changed); // Must not panic.
        }
        assert!(dimensions(b"MM\0\x2a\xff\xff\xff\xff").is_err());
        assert!(dimensions(b"II\x2b\0\x08\0\0\0").is_err());
    }
}
