//! PNG: written in grey, or grey with transparency, quickly rather than small; and read back, our own only.

use super::PixelError;
use png::{BitDepth, ColorType, Compression, Decoder, Encoder};
use std::io::Cursor;

/// Grey values and how opaque each is; both `side` x `side`, row-major.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GreyAlpha {
    /// Columns and rows.
    pub side: u32,
    /// 0 black to 255 white.
    pub grey: Vec<u8>,
    /// 0 nothing there to 255.
    pub alpha: Vec<u8>,
}

impl GreyAlpha {
    /// Nothing anywhere.
    #[must_use]
    pub fn empty(side: u32) -> Self {
        let pixels = side as usize * side as usize;
        Self { side, grey: vec![0; pixels], alpha: vec![0; pixels] }
    }

    fn is_opaque(&self) -> bool {
        self.alpha.iter().all(|alpha| *alpha == 255)
    }
}

/// Grey of 8 bits; `grey` is `width` x `height`.
#[must_use]
pub fn encode_grey(width: u32, height: u32, grey: &[u8]) -> Vec<u8> {
    encode((width, height), ColorType::Grayscale, grey)
}

/// Grey with transparency, or without where nothing is transparent.
#[must_use]
pub fn encode_grey_alpha(image: &GreyAlpha) -> Vec<u8> {
    if image.is_opaque() {
        return encode_grey(image.side, image.side, &image.grey);
    }
    let pairs: Vec<u8> = image.grey.iter().zip(&image.alpha).flat_map(|(grey, alpha)| [*grey, *alpha]).collect();
    encode((image.side, image.side), ColorType::GrayscaleAlpha, &pairs)
}

fn encode((width, height): (u32, u32), color: ColorType, samples: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(samples.len() / 2 + 1024);
    let mut encoder = Encoder::new(&mut out, width, height);
    encoder.set_color(color);
    encoder.set_depth(BitDepth::Eight);
    encoder.set_compression(Compression::Fast);
    let written = encoder.write_header().and_then(|mut writer| writer.write_image_data(samples));
    written.expect("a vector takes everything, and there are width x height samples");
    out
}

/// Reads a square image that [`encode_grey_alpha`] has written.
///
/// # Errors
/// It is another, or damaged.
pub fn decode_png(bytes: &[u8], side: u32) -> Result<GreyAlpha, PixelError> {
    let damaged = |error: png::DecodingError| PixelError::Damaged(error.to_string());
    let mut reader = Decoder::new(Cursor::new(bytes)).read_info().map_err(damaged)?;
    let info = reader.info();
    let (size, color, depth) = ((info.width, info.height), info.color_type, info.bit_depth);
    let channels = match color {
        ColorType::Grayscale => 1,
        ColorType::GrayscaleAlpha => 2,
        _ => 0,
    };
    if size != (side, side) || depth != BitDepth::Eight || channels == 0 {
        return Err(PixelError::Damaged("no preview".to_owned()));
    }
    let mut samples = vec![0; side as usize * side as usize * channels];
    reader.next_frame(&mut samples).map_err(damaged)?;
    Ok(if channels == 1 {
        GreyAlpha { side, alpha: vec![255; samples.len()], grey: samples }
    } else {
        let (pairs, _) = samples.as_chunks::<2>();
        let (grey, alpha) = pairs.iter().map(|[grey, alpha]| (*grey, *alpha)).unzip();
        GreyAlpha { side, grey, alpha }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let grey: Vec<u8> = (0..64 * 64).map(|n| u8::try_from(n % 251).expect("small")).collect();
        let opaque = GreyAlpha { side: 64, alpha: vec![255; grey.len()], grey };
        let mut holed = opaque.clone();
        holed.alpha[100..200].fill(0);
        for image in [opaque, holed] {
            assert_eq!(decode_png(&encode_grey_alpha(&image), 64).expect("whole"), image);
        }
    }

    #[test]
    fn another_size_and_every_cut_are_refused() {
        let whole = encode_grey_alpha(&GreyAlpha::empty(8));
        assert!(decode_png(&whole, 9).is_err());
        for len in 0..whole.len() - 12 {
            assert!(decode_png(&whole[..len], 8).is_err(), "{len} of {}", whole.len());
        }
    }
}
