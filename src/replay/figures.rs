//! Figures of a report: distributions of times, seconds, refusals.

use super::tally::{Interval, Refusals};
use hdrhistogram::Histogram;
use serde::Serialize;
use std::collections::BTreeMap;

/// Times of many tiles, milliseconds.
#[derive(Clone, Debug, Default, Serialize)]
#[allow(missing_docs)] // The names say it.
pub struct Distribution {
    pub count: u64,
    pub mean_ms: f64,
    pub p50_ms: f64,
    pub p90_ms: f64,
    pub p99_ms: f64,
    pub p999_ms: f64,
    pub max_ms: f64,
    /// Percentile and milliseconds.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub percentiles: Vec<(f64, f64)>,
}

impl Distribution {
    /// The figures of a histogram of microseconds.
    #[must_use]
    pub fn of(times: &Histogram<u64>) -> Self {
        let at = |percentile: f64| times.value_at_quantile(percentile / 100.0) as f64 / 1e3;
        if times.is_empty() {
            return Self::default();
        }
        Self {
            count: times.len(),
            mean_ms: times.mean() / 1e3,
            p50_ms: at(50.0),
            p90_ms: at(90.0),
            p99_ms: at(99.0),
            p999_ms: at(99.9),
            max_ms: times.max() as f64 / 1e3,
            percentiles: Vec::new(),
        }
    }

    /// The same, and percentiles.
    pub(super) fn with_percentiles(times: &Histogram<u64>) -> Self {
        const PERCENTILES: [f64; 16] =
            [0.0, 1.0, 5.0, 10.0, 25.0, 50.0, 75.0, 90.0, 95.0, 98.0, 99.0, 99.5, 99.9, 99.99, 99.999, 100.0];
        let at = |percentile: f64| (percentile, times.value_at_quantile(percentile / 100.0) as f64 / 1e3);
        let percentiles = if times.is_empty() { Vec::new() } else { PERCENTILES.map(at).to_vec() };
        Self { percentiles, ..Self::of(times) }
    }
}

/// One second.
#[derive(Clone, Debug, Serialize)]
pub struct Point {
    /// Which, from 0.
    pub second: u64,
    /// Tiles acknowledged.
    pub tiles: u64,
    /// Bytes of their images / 10^6.
    pub mb: f64,
    /// Tiles in flight at its end.
    pub in_flight: u64,
    /// How late the tile is that is due and waits the longest, at its end, milliseconds.
    pub late_ms: f64,
    /// Tiles refused, for a fault too, by status.
    pub refused: BTreeMap<String, u64>,
    /// The worst pressure of any answer.
    pub pressure: Option<String>,
    /// From when tiles were due to their answers.
    pub latency: Distribution,
}

impl Point {
    /// The figures of an interval.
    #[must_use]
    pub fn of(interval: &Interval) -> Self {
        Self {
            second: interval.second,
            tiles: interval.tiles,
            mb: interval.bytes as f64 / 1e6,
            in_flight: interval.in_flight,
            late_ms: interval.late_ns as f64 / 1e6,
            refused: refusals(&interval.refused),
            pressure: interval.worst().map(|pressure| pressure.to_string()),
            latency: Distribution::of(&interval.latency),
        }
    }
}

/// Refusals by status; those that did not happen left out.
pub(super) fn refusals(counts: &Refusals) -> BTreeMap<String, u64> {
    let names = ["1", "2", "3", "4", "other"].map(str::to_owned);
    names.into_iter().zip(*counts).filter(|(_, count)| *count > 0).collect()
}

/// What a refusal's status says.
pub(super) fn meaning(status: &str) -> &'static str {
    match status {
        "1" => "do not resend unchanged: bad key, checksum or message",
        "2" => "the daemon is overloaded: a lower --rate, or see its log",
        "3" => "the daemon has no space: free some, or compact",
        "4" => "the daemon's storage failed: see its log",
        _ => "unknown to this program",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replay::tally::times;

    #[test]
    fn distributions_are_in_milliseconds() {
        let mut histogram = times(3);
        (1..=1000u64).for_each(|ms| histogram.saturating_record(ms * 1000));
        assert_eq!(Distribution::of(&times(2)).count, 0);
        let times = Distribution::with_percentiles(&histogram);
        assert_eq!((times.count, times.percentiles.len()), (1000, 16));
        assert!((499.0..502.0).contains(&times.p50_ms) && (989.0..992.0).contains(&times.p99_ms), "{times:?}");
        assert!((999.0..1002.0).contains(&times.max_ms) && (499.0..502.0).contains(&times.mean_ms), "{times:?}");
    }

    #[test]
    fn refusals_are_named_by_status() {
        assert_eq!(
            refusals(&[0, 2, 0, 0, 1]).into_iter().collect::<Vec<_>>(),
            [("2".to_owned(), 2), ("other".to_owned(), 1)]
        );
    }
}
