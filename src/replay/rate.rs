//! Rates as people write them: `57`, `2x`, `300MB/s`; and parts: `1%`.

use crate::base::units::ByteSize;
use std::fmt;
use std::str::FromStr;

/// How fast to send.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rate {
    /// Tiles a second of all senders together.
    Tiles(f64),
    /// Bytes a second of all senders together.
    Bytes(f64),
    /// As many times what the profile says.
    Times(f64),
}

impl Rate {
    /// By how much senders of these rates must be sped up.
    #[must_use]
    pub fn factor(self, tiles_per_s: f64, bytes_per_s: f64) -> f64 {
        match self {
            Self::Tiles(tiles) => tiles / tiles_per_s,
            Self::Bytes(bytes) => bytes / bytes_per_s,
            Self::Times(times) => times,
        }
    }
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("\"{text}\" is no rate: tiles a second (57), a multiple (2x) or bytes a second (300MB/s)");
        let positive = |text: &str| text.trim().parse().ok().filter(|n: &f64| n.is_finite() && *n > 0.0);
        let trimmed = text.trim();
        if let Some(times) = trimmed.strip_suffix('x') {
            return positive(times).map(Self::Times).ok_or_else(wrong);
        }
        if let Some(size) = trimmed.strip_suffix("B/s") {
            let size: ByteSize = format!("{size}B").parse().map_err(|_| wrong())?;
            return (size.0 > 0).then_some(Self::Bytes(size.0 as f64)).ok_or_else(wrong);
        }
        let tiles = trimmed.strip_suffix("tiles/s").or_else(|| trimmed.strip_suffix("/s")).unwrap_or(trimmed);
        positive(tiles).map(Self::Tiles).ok_or_else(wrong)
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tiles(tiles) => write!(f, "{tiles} tiles/s"),
            Self::Bytes(bytes) => write!(f, "{} MB/s", bytes / 1e6),
            Self::Times(times) => write!(f, "{times}x"),
        }
    }
}

/// Reads a part of a whole: `1%` or `0.01`.
///
/// # Errors
/// It is none between 0 and 100 %.
pub fn parse_part(text: &str) -> Result<f64, String> {
    let wrong = || format!("\"{text}\" is no part: 0% to 100%");
    let (number, of) = text.trim().strip_suffix('%').map_or((text.trim(), 1.0), |percent| (percent, 100.0));
    let part = number.trim().parse::<f64>().map_err(|_| wrong())? / of;
    if (0.0..=1.0).contains(&part) { Ok(part) } else { Err(wrong()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_tiles_multiples_or_bytes() {
        for (text, rate) in [
            ("57", Rate::Tiles(57.0)),
            ("0.5", Rate::Tiles(0.5)),
            ("57/s", Rate::Tiles(57.0)),
            ("500 tiles/s", Rate::Tiles(500.0)),
            ("2x", Rate::Times(2.0)),
            ("1.5x", Rate::Times(1.5)),
            ("300MB/s", Rate::Bytes(300e6)),
            ("64KiB/s", Rate::Bytes(65536.0)),
        ] {
            assert_eq!(text.parse(), Ok(rate), "{text}");
        }
        for bad in ["", "0", "-1", "x", "fast", "0x", "NaN", "inf", "MB/s", "1.5MB/s", "5 MB"] {
            assert!(bad.parse::<Rate>().is_err(), "{bad} parsed");
        }
        assert_eq!(Rate::Bytes(300e6).factor(57.0, 150e6), 2.0);
        assert_eq!(Rate::Tiles(57.0).factor(114.0, 1.0), 0.5);
    }

    #[test]
    fn parts_are_percent_or_fractions() {
        assert_eq!((parse_part("1%"), parse_part("0.5"), parse_part("100 %")), (Ok(0.01), Ok(0.5), Ok(1.0)));
        for bad in ["", "%", "101%", "-1%", "2", "x"] {
            assert!(parse_part(bad).is_err(), "{bad} parsed");
        }
    }
}
