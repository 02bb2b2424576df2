//! When the disk will be full: from how fast the journal grew over the last minutes. Pure reckoning, no clock of its own.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// What the growth is taken over.
const WINDOW: Duration = Duration::from_secs(300);
/// Time between two points that are kept.
const STEP: Duration = Duration::from_secs(5);
/// Less says nothing: a mosaic has pauses.
const SEEN_MIN: Duration = Duration::from_secs(10);

/// The journal's growth over the last minutes.
#[derive(Clone, Debug, Default)]
pub struct DiskForecast {
    /// Bytes ever written, [`STEP`] apart, oldest first.
    points: VecDeque<(Instant, u64)>,
    latest: Option<(Instant, u64)>,
}

impl DiskForecast {
    /// Takes how many bytes were ever written to the journal by `now`.
    pub fn note(&mut self, now: Instant, written_bytes: u64) {
        if self.points.back().is_none_or(|(at, _)| now.saturating_duration_since(*at) >= STEP) {
            self.points.push_back((now, written_bytes));
        }
        self.latest = Some((now, written_bytes));
        // The newest point outside of the window stays, so that the points span it.
        while self.points.get(1).is_some_and(|(at, _)| now.saturating_duration_since(*at) >= WINDOW) {
            self.points.pop_front();
        }
    }

    /// Bytes a second; `None`: too little was seen.
    #[must_use]
    pub fn bytes_per_s(&self) -> Option<f64> {
        let ((began, first), (now, last)) = (self.points.front()?, self.latest?);
        let seen = now.saturating_duration_since(*began);
        (seen >= SEEN_MIN).then(|| last.saturating_sub(*first) as f64 / seen.as_secs_f64())
    }

    /// How long `left_bytes` last; `None`: nothing is written, too little was seen, or it is longer than anybody will wait.
    #[must_use]
    pub fn full_in(&self, left_bytes: u64) -> Option<Duration> {
        let rate = self.bytes_per_s().filter(|rate| *rate > 0.0)?;
        Duration::try_from_secs_f64(left_bytes as f64 / rate).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Notes `bytes_per_s` for so many seconds, beginning at `from`.
    fn run(forecast: &mut DiskForecast, start: Instant, seconds: std::ops::Range<u64>, written: &mut u64, rate: u64) {
        for second in seconds {
            *written += rate;
            forecast.note(start + Duration::from_secs(second), *written);
        }
    }

    #[test]
    fn what_is_left_lasts_as_long_as_the_growth_says() {
        let (mut forecast, start, mut written) = (DiskForecast::default(), Instant::now(), 0);
        run(&mut forecast, start, 0..10, &mut written, 100);
        assert_eq!(forecast.full_in(6000), None, "too little was seen");
        run(&mut forecast, start, 10..11, &mut written, 100);
        assert_eq!(forecast.full_in(6000), Some(Duration::from_secs(60)));
        assert_eq!(forecast.full_in(0), Some(Duration::ZERO));
    }

    #[test]
    fn only_the_last_minutes_count_and_a_pause_ends_the_alarm() {
        let (mut forecast, start, mut written) = (DiskForecast::default(), Instant::now(), 0);
        run(&mut forecast, start, 0..1000, &mut written, 1_000_000);
        run(&mut forecast, start, 1000..1310, &mut written, 100);
        let rate = forecast.bytes_per_s().expect("enough was seen");
        assert!((99.0..101.0).contains(&rate), "{rate}");
        run(&mut forecast, start, 1310..1620, &mut written, 0);
        assert_eq!((forecast.bytes_per_s(), forecast.full_in(5)), (Some(0.0), None));
        assert!(forecast.points.len() <= 62, "{}", forecast.points.len());
    }

    #[test]
    fn a_disk_that_lasts_for_ever_has_no_end() {
        let (mut forecast, start) = (DiskForecast::default(), Instant::now());
        forecast.note(start, 0);
        forecast.note(start + Duration::from_secs(300), 1);
        assert!(forecast.full_in(u64::MAX).is_none_or(|time| time > Duration::from_secs(1 << 40)));
    }
}
