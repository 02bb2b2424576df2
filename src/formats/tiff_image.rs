//! TIFF images of one grey channel. The only place that imports `tiff`.

use super::FormatError;
use std::io::Cursor;
use tiff::encoder::{TiffEncoder, colortype};

/// An 8-bit image, uncompressed; `pixels` row by row, `width` x `height` of them.
///
/// # Errors
/// Width and height do not fit the pixels.
pub fn encode_gray8(width: u32, height: u32, pixels: &[u8]) -> Result<Vec<u8>, FormatError> {
    encode(pixels.len(), |encoder| encoder.write_image::<colortype::Gray8>(width, height, pixels))
}

/// A 16-bit image, uncompressed; `pixels` row by row, `width` x `height` of them.
///
/// # Errors
/// Width and height do not fit the pixels.
pub fn encode_gray16(width: u32, height: u32, pixels: &[u16]) -> Result<Vec<u8>, FormatError> {
    encode(pixels.len() * 2, |encoder| encoder.write_image::<colortype::Gray16>(width, height, pixels))
}

fn encode(
    bytes: usize,
    write: impl FnOnce(&mut TiffEncoder<&mut Cursor<Vec<u8>>>) -> tiff::TiffResult<()>,
) -> Result<Vec<u8>, FormatError> {
    let mut out = Cursor::new(Vec::with_capacity(bytes + 1024));
    let failed = |error: tiff::TiffError| FormatError::Content(format!("TIFF: {error}"));
    TiffEncoder::new(&mut out).map_err(failed).and_then(|mut encoder| write(&mut encoder).map_err(failed))?;
    Ok(out.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tiff::decoder::{Decoder, DecodingResult};

    #[test]
    fn what_is_encoded_is_decoded_pixel_by_pixel() {
        let pixels: Vec<u16> = (0..35).map(|n| n * 1000).collect();
        let bytes = encode_gray16(7, 5, &pixels).expect("fits");
        let mut decoder = Decoder::new(Cursor::new(bytes)).expect("a TIFF");
        assert_eq!(decoder.dimensions().expect("a header"), (7, 5));
        match decoder.read_image().expect("an image") {
            DecodingResult::U16(decoded) => assert_eq!(decoded, pixels),
            other => panic!("not 16 bit: {other:?}"),
        }
        assert!(encode_gray8(7, 5, &[0; 3]).is_err());
    }
}
