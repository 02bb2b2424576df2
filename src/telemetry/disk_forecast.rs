//! When the disk will be full, if tiles go on coming as they did in the last minute.
//!
//! From what the journal writes, not from how the free space falls: that goes down by whole segments. What other programs
//! write on the same file system shows in the free space only. Holds a minute of samples, no more.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Time over which the rate is taken.
const WINDOW: Duration = Duration::from_secs(60);
/// Samples come no closer than this.
const STEP: Duration = Duration::from_millis(900);
/// No rate is told from less time.
const LEAST: Duration = Duration::from_secs(2);

/// What was written in the last minute, and what room is left.
#[derive(Debug, Default)]
pub struct DiskForecast {
    samples: VecDeque<(Instant, u64)>,
    room_bytes: u64,
}

impl DiskForecast {
    /// Takes note of all bytes that were ever written, and of the room that is left for more.
    pub fn observe(&mut self, at: Instant, written_bytes: u64, room_bytes: u64) {
        self.room_bytes = room_bytes;
        if self.samples.back().is_none_or(|(last, _)| at.saturating_duration_since(*last) >= STEP) {
            self.samples.push_back((at, written_bytes));
        }
        // The oldest one is kept that the window begins with, or there would be none after a pause.
        while self.samples.get(1).is_some_and(|(second, _)| at.saturating_duration_since(*second) >= WINDOW) {
            self.samples.pop_front();
        }
    }

    /// Bytes a second, over the last minute.
    #[must_use]
    pub fn bytes_per_s(&self) -> f64 {
        let (Some((from, first)), Some((to, last))) = (self.samples.front(), self.samples.back()) else { return 0.0 };
        let time = to.saturating_duration_since(*from);
        if time < LEAST { 0.0 } else { last.saturating_sub(*first) as f64 / time.as_secs_f64() }
    }

    /// Seconds until there is no more room; `None` while nothing is written. 0 when there is none.
    #[must_use]
    pub fn full_in_s(&self) -> Option<f64> {
        if self.room_bytes == 0 && !self.samples.is_empty() {
            return Some(0.0);
        }
        let rate = self.bytes_per_s();
        (rate > 0.0).then(|| self.room_bytes as f64 / rate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(began: Instant, seconds: u64) -> Instant {
        began + Duration::from_secs(seconds)
    }

    #[test]
    fn the_rate_of_the_last_minute_says_when_the_disk_is_full() {
        let (mut forecast, began) = (DiskForecast::default(), Instant::now());
        assert_eq!(forecast.full_in_s(), None);
        for second in 0..600 {
            // First 1000 bytes a second, then 100.
            let written = if second < 300 { second * 1000 } else { 300_000 + (second - 300) * 100 };
            forecast.observe(after(began, second), written, 50_000);
        }
        assert_eq!(forecast.bytes_per_s(), 100.0);
        assert_eq!(forecast.full_in_s(), Some(500.0));
        assert!(forecast.samples.len() <= 62, "{}", forecast.samples.len());
    }

    #[test]
    fn nothing_written_is_no_forecast_and_no_room_is_now() {
        let (mut forecast, began) = (DiskForecast::default(), Instant::now());
        (0..90).for_each(|second| forecast.observe(after(began, second), 777, 1 << 30));
        assert_eq!(forecast.full_in_s(), None);
        forecast.observe(after(began, 91), 777, 0);
        assert_eq!(forecast.full_in_s(), Some(0.0));
    }

    #[test]
    fn one_moment_tells_no_rate_and_samples_in_a_hurry_are_one() {
        let (mut forecast, began) = (DiskForecast::default(), Instant::now());
        (0..1000).for_each(|n| forecast.observe(began + Duration::from_millis(n), n << 20, 1 << 40));
        assert_eq!((forecast.samples.len(), forecast.full_in_s()), (2, None));
    }
}
