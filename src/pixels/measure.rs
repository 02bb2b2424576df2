//! Measures of an image by a sample of its rows: brightness, contrast, saturation, sharpness.
//!
//! Bands of [`BAND`] rows, at most [`BANDS_MAX`] of them, spread over the whole height: half a million pixels of a common
//! camera, which decide the third digit. Rows between them are not read where they are not compressed.

use super::contrast::percentiles_of;
use super::{Depth, GreyTiff, Piece, PixelError, Region, Samples};
use crate::model::Measures;

/// Rows that lie together: three of means of 2 x 2, for a Laplacian.
const BAND: u32 = 6;
const BANDS_MAX: u32 = 32;
/// The highest values of cameras that write 16 bits: of 12, 14 and 16.
const WHITES: [u16; 3] = [4095, 16383, u16::MAX];
/// Share of the pixels left out at either end of the contrast.
const LEFT_OUT: f64 = 0.01;

/// What was measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Measured {
    /// The measures.
    pub measures: Measures,
    /// True when the mean lies in the darker half of the camera's range.
    pub is_dark: bool,
}

/// Measures an image.
///
/// # Errors
/// The file is cut off or damaged.
pub fn measure(tiff: &mut GreyTiff<'_>) -> Result<Measured, PixelError> {
    let bands = (tiff.height / BAND).clamp(1, BANDS_MAX);
    let step = (tiff.height / bands).max(1);
    let end = if bands == 1 { tiff.height } else { bands * step };
    let region = Region::whole(tiff.width, tiff.height);
    let mut sample = Sample::new(tiff.depth, step);
    tiff.visit(region, &|y| y < end && y % step < BAND, &mut |piece| sample.add(&piece))?;
    Ok(sample.result())
}

struct Sample {
    depth: Depth,
    step: u32,
    histogram: Vec<u64>,
    /// The rows of the band that is being read, behind one another, from column `x` on.
    band: Vec<u16>,
    x: u32,
    next_y: u32,
    width: usize,
    laplacian: Laplacian,
}

/// Energy of the Laplacian of means of 2 x 2 pixels, times 4 each.
#[derive(Default)]
struct Laplacian {
    squares: u64,
    count: u64,
}

impl Sample {
    fn new(depth: Depth, step: u32) -> Self {
        let histogram = vec![0; usize::from(depth.max()) + 1];
        let (band, laplacian) = (Vec::new(), Laplacian::default());
        Self { depth, step, histogram, band, x: 0, next_y: 0, width: 0, laplacian }
    }

    /// Bands that are cut by the edge of a strip or tile count for all but sharpness.
    fn add(&mut self, piece: &Piece<'_>) {
        let goes_on = (piece.x, piece.y, piece.samples.len()) == (self.x, self.next_y, self.width);
        if piece.y.is_multiple_of(self.step) || !goes_on {
            self.band.clear();
            (self.x, self.width) = (piece.x, piece.samples.len());
        }
        self.next_y = piece.y + 1;
        let is_of_band = piece.y.is_multiple_of(self.step) || !self.band.is_empty();
        match piece.samples {
            Samples::Eight(samples) => {
                samples.iter().for_each(|sample| self.histogram[usize::from(*sample)] += 1);
                self.band.extend(samples.iter().filter(|_| is_of_band).map(|sample| u16::from(*sample)));
            }
            Samples::Sixteen(samples) => {
                samples.iter().for_each(|sample| self.histogram[usize::from(*sample)] += 1);
                self.band.extend(samples.iter().filter(|_| is_of_band));
            }
        }
        if self.band.len() == self.width * BAND as usize {
            self.laplacian.add(&self.band, self.width);
            self.band.clear();
        }
    }

    fn result(&self) -> Measured {
        let count: u64 = self.histogram.iter().sum();
        let values = || (0u32..).zip(&self.histogram).map(|(value, n)| (f64::from(value), *n as f64));
        let n = (count as f64).max(1.0);
        let mean = values().map(|(value, n)| value * n).sum::<f64>() / n;
        let variance = values().map(|(value, n)| (value - mean).powi(2) * n).sum::<f64>() / n;
        let white = self.white();
        let [low, high] = percentiles_of(&self.histogram, [LEFT_OUT, 1.0 - LEFT_OUT]);
        let extreme = self.histogram[0] + self.histogram[usize::from(white)];
        let energy = self.laplacian.squares as f64 / 16.0 / (self.laplacian.count as f64).max(1.0);
        let measures = Measures {
            mean_c: units(mean, 100.0),
            contrast_e4: units(f64::from(high.saturating_sub(low)) / f64::from(white), 1e4),
            saturated_e4: units(extreme as f64 / n, 1e4),
            focus_e4: if variance > 0.0 { units(energy / variance, 1e4) } else { 0 },
        };
        Measured { measures, is_dark: mean < f64::from(white) / 2.0 }
    }

    /// The highest value that the camera can give, by the highest that it gave.
    fn white(&self) -> u16 {
        let highest = self.histogram.iter().rposition(|n| *n > 0).unwrap_or(0);
        match self.depth {
            Depth::Eight => self.depth.max(),
            Depth::Sixteen => {
                WHITES.into_iter().find(|white| usize::from(*white) >= highest).unwrap_or(self.depth.max())
            }
        }
    }
}

impl Laplacian {
    fn add(&mut self, band: &[u16], width: usize) {
        let binned = |row: usize| -> Vec<i32> {
            let (upper, lower) = (&band[row * 2 * width..][..width], &band[(row * 2 + 1) * width..][..width]);
            let pairs = upper.as_chunks::<2>().0.iter().zip(lower.as_chunks::<2>().0);
            pairs.map(|([a, b], [c, d])| [a, b, c, d].into_iter().map(|value| i32::from(*value)).sum()).collect()
        };
        let (above, here, below) = (binned(0), binned(1), binned(2));
        for n in 1..here.len().saturating_sub(1) {
            let bend = 4 * here[n] - here[n - 1] - here[n + 1] - above[n] - below[n];
            // At most 2^40 each, and 2^20 of them: a check of each sum would only cost time.
            let bend = u64::from(bend.unsigned_abs());
            self.squares = self.squares.wrapping_add(bend * bend);
        }
        self.count += here.len().saturating_sub(2) as u64;
    }
}

/// A measure as a whole number of its unit; the most that fits for what is beyond.
fn units(value: f64, per_one: f64) -> u32 {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // Saturates.
    let whole = (value * per_one).round() as u32;
    whole
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::{encode_gray8, encode_gray16};

    fn measured(tiff: &[u8]) -> Measured {
        measure(&mut GreyTiff::open(tiff).expect("a TIFF")).expect("measures")
    }

    fn image(pixel: impl Fn(u32, u32) -> u8) -> Measured {
        let pixels: Vec<u8> = (0..200).flat_map(|y| (0..200).map(move |x| (x, y))).map(|(x, y)| pixel(x, y)).collect();
        measured(&encode_gray8(200, 200, &pixels).expect("an image"))
    }

    #[test]
    fn one_grey_value_has_a_mean_and_nothing_else() {
        let grey = image(|_, _| 100);
        let nothing = Measures { mean_c: 10_000, ..Measures::default() };
        assert_eq!(grey, Measured { measures: nothing, is_dark: true });
        assert!(!image(|_, _| 200).is_dark);
    }

    #[test]
    fn stripes_have_their_contrast_and_extremes_are_saturated() {
        let stripes = image(|x, _| if x % 20 < 10 { 51 } else { 204 }).measures;
        assert_eq!((stripes.mean_c, stripes.contrast_e4, stripes.saturated_e4), (12_750, 6000, 0));
        let extremes = image(|x, _| if x % 20 < 10 { 0 } else { 200 }).measures;
        assert_eq!(extremes.saturated_e4, 5000);
        assert_eq!(image(|_, _| 255).measures.saturated_e4, 10_000);
    }

    #[test]
    fn what_is_smoothed_is_less_sharp() {
        let grey = |x: u32, y: u32| if (x / 20 + y / 20).is_multiple_of(2) { 60 } else { 180 };
        let smoothed = |x: u32, y: u32| {
            let near = (0..81).map(|n| grey(x + n % 9, y + n / 9));
            u8::try_from(near.sum::<u32>() / 81).expect("a grey")
        };
        let sharp = image(|x, y| u8::try_from(grey(x, y)).expect("a grey")).measures.focus_e4;
        let smooth = image(smoothed).measures.focus_e4;
        assert!(smooth * 3 < sharp, "{smooth} and {sharp}");
    }

    #[test]
    fn the_white_of_sixteen_bits_is_that_of_the_camera() {
        let of = |white: u16| {
            let pixels: Vec<u16> = (0..10_000).map(|n| if n % 4 == 0 { white } else { 1000 }).collect();
            measured(&encode_gray16(100, 100, &pixels).expect("an image")).measures.saturated_e4
        };
        assert_eq!([of(4095), of(16_383), of(u16::MAX), of(5000)], [2500, 2500, 2500, 0]);
    }

    #[test]
    fn images_of_any_size_are_measured() {
        for (width, height) in [(1, 1), (3, 5), (2, 6), (7, 13), (1, 400), (400, 1)] {
            let pixels: Vec<u8> = (0..width * height).map(|n| u8::try_from(n % 256).expect("small")).collect();
            let tiff = encode_gray8(width, height, &pixels).expect("an image");
            assert!(measured(&tiff).measures.mean_c <= 25_500, "{width} x {height}");
        }
    }
}
