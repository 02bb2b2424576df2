//! How fast it goes: tiles, bytes, refusals and latencies, second by second, for two minutes. Filled by the sampler.

use crate::base::clock;
use crate::model::AcqId;
use crate::telemetry::DiskForecast;
use hdrhistogram::Histogram;
use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Seconds that are remembered.
const HISTORY: usize = 120;
/// Seconds that "now" is taken over.
const NOW: usize = 5;
/// Latencies above are counted as this.
const LATENCY_MAX_US: u64 = 120_000_000;
/// Two digits are enough for a picture.
const DIGITS: u8 = 2;

/// One second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// Its end, ns since 1970 UTC.
    pub at_ns: i64,
    /// Tiles accepted.
    pub tiles: u64,
    /// Bytes received from senders.
    pub bytes: u64,
    /// Requests refused.
    pub refused: u64,
    /// Median time to the acknowledgement, ms; `None` where there was none.
    pub ack_p50_ms: Option<f64>,
    /// 99 % took no longer.
    pub ack_p99_ms: Option<f64>,
}

/// The last few seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rates {
    /// Tiles accepted a second.
    pub tiles_per_s: f64,
    /// Bytes received a second.
    pub bytes_per_s: f64,
    /// Requests refused a second.
    pub refused_per_s: f64,
    /// Median time to the acknowledgement, ms; `None` where there was none.
    pub ack_p50_ms: Option<f64>,
    /// 99 % took no longer.
    pub ack_p99_ms: Option<f64>,
}

/// The disk and the journal on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskFigures {
    /// Free bytes of the data directory's file system.
    pub free_bytes: u64,
    /// All of them; 0 where the system does not say.
    pub total_bytes: u64,
    /// Until tiles are refused, at the journal's present growth; `None`: it does not grow.
    pub full_in: Option<Duration>,
    /// Segment files.
    pub segments: usize,
    /// Bytes of all segment files, as allocated.
    pub segment_bytes: u64,
}

/// Counters as they stand.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Totals {
    pub(super) tiles: u64,
    pub(super) bytes: u64,
    pub(super) refused: u64,
    /// Bytes written to the journal.
    pub(super) written_bytes: u64,
}

pub(super) struct Figures {
    latencies: Mutex<Histogram<u32>>,
    recent: Mutex<Recent>,
}

struct Recent {
    last: Option<(Instant, Totals)>,
    history: VecDeque<Sample>,
    /// Length and latencies of the last seconds.
    seconds: VecDeque<(Duration, Histogram<u32>)>,
    /// Tiles of acquisitions that get some, at the ends of the last seconds.
    acquisitions: HashMap<AcqId, VecDeque<u64>>,
    forecast: DiskForecast,
    disk: DiskFigures,
}

fn histogram() -> Histogram<u32> {
    Histogram::new_with_bounds(1, LATENCY_MAX_US, DIGITS).expect("constant bounds that fit each other")
}

fn quantile_ms(latencies: &Histogram<u32>, quantile: f64) -> Option<f64> {
    (!latencies.is_empty()).then(|| latencies.value_at_quantile(quantile) as f64 / 1000.0)
}

impl Default for Figures {
    fn default() -> Self {
        let recent = Recent {
            last: None,
            history: VecDeque::with_capacity(HISTORY),
            seconds: VecDeque::with_capacity(NOW),
            acquisitions: HashMap::new(),
            forecast: DiskForecast::default(),
            disk: DiskFigures::default(),
        };
        Self { latencies: Mutex::new(histogram()), recent: Mutex::new(recent) }
    }
}

impl Figures {
    pub(super) fn answered(&self, ages: &[Duration]) {
        if ages.is_empty() {
            return;
        }
        let mut latencies = self.latencies.lock().unwrap_or_else(PoisonError::into_inner);
        for age in ages {
            latencies.saturating_record(u64::try_from(age.as_micros()).unwrap_or(u64::MAX).max(1));
        }
    }

    pub(super) fn history(&self) -> Vec<Sample> {
        self.lock().history.iter().copied().collect()
    }

    pub(super) fn rates(&self) -> Rates {
        let recent = self.lock();
        let seconds = recent.seconds.iter().map(|(length, _)| length.as_secs_f64()).sum::<f64>();
        if seconds <= 0.0 {
            return Rates::default();
        }
        let samples = || recent.history.iter().rev().take(recent.seconds.len());
        let rate = |count: fn(&Sample) -> u64| samples().map(count).sum::<u64>() as f64 / seconds;
        let mut latencies = histogram();
        for (_, of_second) in &recent.seconds {
            // All have the same bounds: adding one to another can not fail.
            let _ = latencies.add(of_second);
        }
        Rates {
            tiles_per_s: rate(|sample| sample.tiles),
            bytes_per_s: rate(|sample| sample.bytes),
            refused_per_s: rate(|sample| sample.refused),
            ack_p50_ms: quantile_ms(&latencies, 0.5),
            ack_p99_ms: quantile_ms(&latencies, 0.99),
        }
    }

    pub(super) fn tiles_per_s(&self, acq: AcqId) -> f64 {
        let recent = self.lock();
        let Some(counts) = recent.acquisitions.get(&acq) else { return 0.0 };
        let (first, last) = (counts.front().copied().unwrap_or(0), counts.back().copied().unwrap_or(0));
        last.saturating_sub(first) as f64 / (counts.len().max(2) - 1) as f64
    }

    pub(super) fn disk(&self) -> DiskFigures {
        self.lock().disk
    }

    /// Closes a second. `disk` comes without its forecast; `left_bytes` may still be written. Returns when the disk is full.
    pub(super) fn end_second(
        &self,
        now: Instant,
        totals: Totals,
        disk: DiskFigures,
        left_bytes: u64,
    ) -> Option<Duration> {
        let mut recent = self.lock();
        let fresh = recent.spare();
        let latencies = std::mem::replace(&mut *self.latencies.lock().unwrap_or_else(PoisonError::into_inner), fresh);
        recent.forecast.note(now, totals.written_bytes);
        let full_in = if left_bytes == 0 { Some(Duration::ZERO) } else { recent.forecast.full_in(left_bytes) };
        recent.disk = DiskFigures { full_in, ..disk };
        let last = recent.last.replace((now, totals));
        let Some((then, before)) = last else { return full_in };
        let sample = Sample {
            at_ns: clock::unix_ns(),
            tiles: totals.tiles.saturating_sub(before.tiles),
            bytes: totals.bytes.saturating_sub(before.bytes),
            refused: totals.refused.saturating_sub(before.refused),
            ack_p50_ms: quantile_ms(&latencies, 0.5),
            ack_p99_ms: quantile_ms(&latencies, 0.99),
        };
        if recent.history.len() >= HISTORY {
            recent.history.pop_front();
        }
        recent.history.push_back(sample);
        recent.seconds.push_back((now.saturating_duration_since(then), latencies));
        full_in
    }

    /// Takes the tiles that acquisitions have now, of all that got some lately.
    pub(super) fn note_acquisitions(&self, counts: impl Iterator<Item = (AcqId, u64)>) {
        let mut recent = self.lock();
        let mut before = std::mem::take(&mut recent.acquisitions);
        for (acq, count) in counts {
            let mut known = before.remove(&acq).unwrap_or_default();
            if known.len() > NOW {
                known.pop_front();
            }
            known.push_back(count);
            recent.acquisitions.insert(acq, known);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Recent> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Recent {
    /// An empty histogram: that of a second that is no longer needed, if there is one.
    fn spare(&mut self) -> Histogram<u32> {
        if self.seconds.len() < NOW {
            return histogram();
        }
        self.seconds.pop_front().map_or_else(histogram, |(_, mut latencies)| {
            latencies.reset();
            latencies
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn totals(n: u64) -> Totals {
        Totals { tiles: 10 * n, bytes: 1000 * n, refused: n, written_bytes: 1000 * n }
    }

    #[test]
    fn seconds_are_told_apart_and_only_so_many_are_kept() {
        let (figures, start) = (Figures::default(), Instant::now());
        for second in 0..=200 {
            figures.answered(&[Duration::from_millis(second), Duration::from_millis(second)]);
            let now = start + Duration::from_secs(second);
            figures.end_second(now, totals(second), DiskFigures::default(), 1_000_000);
        }
        let history = figures.history();
        assert_eq!(history.len(), HISTORY);
        let last = history.last().expect("a second");
        assert_eq!((last.tiles, last.bytes, last.refused), (10, 1000, 1));
        let near = |found: Option<f64>, ms: f64| found.is_some_and(|found| (found / ms - 1.0).abs() < 0.02);
        assert!(near(last.ack_p50_ms, 200.0), "{last:?}");
        let rates = figures.rates();
        assert!((rates.tiles_per_s - 10.0).abs() < 0.01 && (rates.refused_per_s - 1.0).abs() < 0.01, "{rates:?}");
        assert!(near(rates.ack_p50_ms, 198.0) && near(rates.ack_p99_ms, 200.0), "{rates:?}");
        assert_eq!(figures.disk().full_in, Some(Duration::from_secs(1000)));
    }

    #[test]
    fn a_second_without_answers_has_no_latency() {
        let (figures, start) = (Figures::default(), Instant::now());
        assert_eq!(figures.rates(), Rates::default());
        for second in 0..8 {
            figures.end_second(start + Duration::from_secs(second), totals(0), DiskFigures::default(), 1);
        }
        assert_eq!(figures.history().last().expect("a second").ack_p99_ms, None);
        assert_eq!((figures.rates(), figures.disk().full_in), (Rates::default(), None));
    }

    #[test]
    fn an_acquisition_has_a_rate_as_long_as_it_gets_tiles() {
        let figures = Figures::default();
        (0..20).for_each(|second| figures.note_acquisitions([(AcqId(1), 30 * second)].into_iter()));
        assert!((figures.tiles_per_s(AcqId(1)) - 30.0).abs() < 0.01);
        assert_eq!(figures.tiles_per_s(AcqId(2)), 0.0);
        figures.note_acquisitions(std::iter::empty());
        assert_eq!(figures.tiles_per_s(AcqId(1)), 0.0);
    }
}
