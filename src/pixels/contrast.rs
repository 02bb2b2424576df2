//! Contrast: which grey values become black and white.

use super::{Depth, Raster};
use std::fmt;
use std::str::FromStr;

/// Share of the pixels that `auto` lets become black, and as many white: a few dead pixels must not decide.
const CLIPPED: f64 = 0.005;

/// How grey values become the 8 bits of a PNG.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Contrast {
    /// Black is 0, white the depth's highest value.
    None,
    /// By the pixels themselves.
    Auto,
    /// Given values.
    Levels {
        /// Becomes black, and all below it.
        black: u16,
        /// Becomes white, and all above it; above `black`.
        white: u16,
    },
}

/// A text that names no contrast.
#[derive(Debug, thiserror::Error)]
#[error("\"{0}\" is none of auto, none, LO-HI such as 20-180 with LO below HI and HI at most 65535")]
pub struct ContrastError(String);

impl FromStr for Contrast {
    type Err = ContrastError;

    fn from_str(text: &str) -> Result<Self, ContrastError> {
        let levels = || {
            let (black, white) = text.split_once('-')?;
            let (black, white) = (black.parse().ok()?, white.parse().ok()?);
            (black < white).then_some(Self::Levels { black, white })
        };
        match text {
            "none" => Ok(Self::None),
            "auto" => Ok(Self::Auto),
            _ => levels().ok_or_else(|| ContrastError(text.to_owned())),
        }
    }
}

impl fmt::Display for Contrast {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Auto => f.write_str("auto"),
            Self::Levels { black, white } => write!(f, "{black}-{white}"),
        }
    }
}

impl Contrast {
    /// For who does not say: 8 bits as they are; 16 bits hold what a screen can not show, so by the pixels.
    #[must_use]
    pub fn usual(depth: Depth) -> Self {
        match depth {
            Depth::Eight => Self::None,
            Depth::Sixteen => Self::Auto,
        }
    }

    /// The pixels in 8 bits.
    #[must_use]
    pub fn apply(self, raster: &Raster) -> Vec<u8> {
        let (black, white) = match self {
            Self::None => (0, raster.depth.max()),
            Self::Auto => auto(raster),
            Self::Levels { black, white } => (black, white),
        };
        let span = u32::from(white - black);
        let grey = |sample: &u16| {
            let above = u32::from(sample.saturating_sub(black)).min(span);
            u8::try_from((above * 255 + span / 2) / span).expect("above is at most span")
        };
        raster.samples.iter().map(grey).collect()
    }
}

/// The values between which nearly all pixels lie, at least one apart.
fn auto(raster: &Raster) -> (u16, u16) {
    let [black, white] = percentiles(&raster.samples, raster.depth, [CLIPPED, 1.0 - CLIPPED]);
    let least = black.min(raster.depth.max() - 1);
    (least, white.max(least + 1))
}

/// The values below which these shares of the samples lie.
fn percentiles<const N: usize>(samples: &[u16], depth: Depth, shares: [f64; N]) -> [u16; N] {
    let mut histogram = vec![0u64; usize::from(depth.max()) + 1];
    for sample in samples {
        histogram[usize::from((*sample).min(depth.max()))] += 1;
    }
    percentiles_of(&histogram, shares)
}

/// As [`percentiles`], of samples that are counted by their value.
pub(super) fn percentiles_of<const N: usize>(histogram: &[u64], shares: [f64; N]) -> [u16; N] {
    let all: u64 = histogram.iter().sum();
    shares.map(|share| {
        let wanted = share * all as f64;
        let mut below = 0u64;
        let found = histogram.iter().position(|count| {
            below += count;
            below as f64 > wanted
        });
        found.and_then(|value| u16::try_from(value).ok()).unwrap_or(u16::MAX)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raster(depth: Depth, samples: Vec<u16>) -> Raster {
        Raster { width: u32::try_from(samples.len()).expect("few"), height: 1, depth, samples }
    }

    #[test]
    fn a_contrast_is_a_word_or_two_levels() {
        assert_eq!("20-180".parse::<Contrast>().ok(), Some(Contrast::Levels { black: 20, white: 180 }));
        for text in ["none", "auto", "0-65535"] {
            assert_eq!(text.parse::<Contrast>().expect("one").to_string(), text);
        }
        for bad in ["", "180-20", "5-5", "-5", "5-", "1-65536", "Auto", "1-2-3"] {
            assert!(bad.parse::<Contrast>().is_err(), "{bad}");
        }
    }

    #[test]
    fn without_contrast_eight_bits_are_what_they_were() {
        let samples: Vec<u16> = (0..=255).collect();
        let eight: Vec<u8> = (0..=255).collect();
        assert_eq!(Contrast::None.apply(&raster(Depth::Eight, samples)), eight);
        assert_eq!(Contrast::None.apply(&raster(Depth::Sixteen, vec![0, 257, 32896, u16::MAX])), [0, 1, 128, 255]);
    }

    #[test]
    fn levels_become_black_and_white() {
        let levels = Contrast::Levels { black: 100, white: 200 };
        assert_eq!(levels.apply(&raster(Depth::Eight, vec![0, 100, 150, 200, 255])), [0, 0, 128, 255, 255]);
    }

    #[test]
    fn auto_stretches_what_is_there_and_heeds_no_single_pixel() {
        let mut samples = vec![1000; 500];
        samples.extend([1100; 500]);
        samples[0] = 0;
        samples[999] = u16::MAX;
        let shown = Contrast::Auto.apply(&raster(Depth::Sixteen, samples));
        assert_eq!((shown[1], shown[600]), (0, 255));
    }

    #[test]
    fn auto_of_one_value_is_no_division_by_zero() {
        for value in [0, 7, 255] {
            assert_eq!(Contrast::Auto.apply(&raster(Depth::Eight, vec![value; 9])).len(), 9);
        }
        assert_eq!(Contrast::Auto.apply(&raster(Depth::Sixteen, vec![u16::MAX; 9])).len(), 9);
    }
}
