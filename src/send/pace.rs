//! How fast tiles leave: each gets a time, counted from the first.
//!
//! Pure arithmetic. Must never let a late tile delay those behind it: times do not depend on what happened.

use std::collections::HashMap;
use std::str::FromStr;
use std::time::Duration;

/// A speed limit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rate {
    /// Tiles a second, all cameras together.
    Tiles(f64),
    /// Bytes a second, all cameras together.
    Bytes(f64),
    /// Each camera sends one tile in this time, as at each step of a stage.
    Step(Duration),
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("\"{text}\" is no rate: 57 or 57/s (tiles), 300MB/s, or 150ms (each camera's step)");
        let positive = |number: &str| number.trim().parse::<f64>().ok().filter(|n| n.is_finite() && *n > 0.0);
        if let Some(megabytes) = text.strip_suffix("MB/s") {
            return positive(megabytes).map(|n| Self::Bytes(n * 1e6)).ok_or_else(wrong);
        }
        if let Some(ms) = text.strip_suffix("ms") {
            let step = positive(ms).and_then(|ms| Duration::try_from_secs_f64(ms / 1e3).ok());
            return step.filter(|step| !step.is_zero()).map(Self::Step).ok_or_else(wrong);
        }
        let tiles = text.strip_suffix("/s").unwrap_or(text);
        positive(tiles).map(Self::Tiles).ok_or_else(wrong)
    }
}

/// Gives out times.
pub(super) struct Pacer {
    rate: Option<Rate>,
    tiles: u64,
    bytes: u64,
    cameras: HashMap<i32, u32>,
}

impl Pacer {
    pub(super) fn new(rate: Option<Rate>) -> Self {
        Self { rate, tiles: 0, bytes: 0, cameras: HashMap::new() }
    }

    /// When the next tile, of this camera and size, leaves.
    pub(super) fn next(&mut self, camera: i32, bytes: u64) -> Option<Duration> {
        let due = match self.rate? {
            Rate::Tiles(rate) => Duration::from_secs_f64(self.tiles as f64 / rate),
            Rate::Bytes(rate) => Duration::from_secs_f64(self.bytes as f64 / rate),
            Rate::Step(step) => step.saturating_mul(self.cameras.get(&camera).copied().unwrap_or(0)),
        };
        self.tiles += 1;
        self.bytes += bytes;
        *self.cameras.entry(camera).or_insert(0) += 1;
        Some(due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_carry_their_units() {
        assert_eq!("57".parse(), Ok(Rate::Tiles(57.0)));
        assert_eq!("0.5/s".parse(), Ok(Rate::Tiles(0.5)));
        assert_eq!("300MB/s".parse(), Ok(Rate::Bytes(3e8)));
        assert_eq!("150ms".parse(), Ok(Rate::Step(Duration::from_millis(150))));
        for bad in ["", "0", "-1", "fast", "NaN", "inf/s", "0ms", "5 GB/s", "1e300ms"] {
            assert!(bad.parse::<Rate>().is_err(), "{bad}");
        }
    }

    #[test]
    fn tiles_and_bytes_are_spread_evenly() {
        let mut tiles = Pacer::new(Some(Rate::Tiles(4.0)));
        let times = [0, 1, 2, 3].map(|camera| tiles.next(camera, 10).expect("a time").as_millis());
        assert_eq!(times, [0, 250, 500, 750]);
        let mut bytes = Pacer::new(Some(Rate::Bytes(1000.0)));
        let times = [500, 250, 1].map(|len| bytes.next(0, len).expect("a time").as_millis());
        assert_eq!(times, [0, 500, 750]);
    }

    #[test]
    fn each_camera_has_its_own_steps() {
        let mut pacer = Pacer::new(Some(Rate::Step(Duration::from_millis(150))));
        let times = [0, 1, 0, 1, 1].map(|camera| pacer.next(camera, 1).expect("a time").as_millis());
        assert_eq!(times, [0, 0, 150, 150, 300]);
        assert_eq!(Pacer::new(None).next(0, 1), None);
    }
}
