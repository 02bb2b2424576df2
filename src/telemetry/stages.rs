//! The stages of a tile's way, timed: moments, and histograms that a thread fills alone and publishes now and then.
//!
//! A tile costs two readings of the clock more than none: when its first byte is awaited and when it is verified. All
//! else is read once a batch. Must never take a lock nor allocate for a tile.

use prometheus::Histogram;
#[cfg(not(feature = "no-telemetry"))]
use prometheus::local::LocalHistogram;
use std::time::{Duration, Instant};

/// A moment on a tile's way. Built without telemetry it is not there, and what has passed since is nothing.
#[derive(Clone, Copy, Debug)]
pub struct Stamp(#[cfg(not(feature = "no-telemetry"))] Instant);

#[cfg(not(feature = "no-telemetry"))]
impl Stamp {
    /// This moment.
    #[must_use]
    pub fn now() -> Self {
        Self(Instant::now())
    }

    /// A moment that is known already.
    #[must_use]
    pub fn at(instant: Instant) -> Self {
        Self(instant)
    }

    /// Time from `earlier` to this moment.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_duration_since(earlier.0)
    }
}

#[cfg(feature = "no-telemetry")]
impl Stamp {
    /// Nothing.
    #[must_use]
    pub fn now() -> Self {
        Self()
    }

    /// Nothing.
    #[must_use]
    pub fn at(_: Instant) -> Self {
        Self()
    }

    /// Nothing.
    #[must_use]
    pub fn since(self, _: Self) -> Duration {
        Duration::ZERO
    }
}

/// A histogram of times of one thread.
pub struct LocalTimes(#[cfg(not(feature = "no-telemetry"))] LocalHistogram);

#[cfg(not(feature = "no-telemetry"))]
impl LocalTimes {
    pub(super) fn of(shared: &Histogram) -> Self {
        Self(shared.local())
    }

    /// Adds a time.
    pub fn add(&self, time: Duration) {
        self.0.observe(time.as_secs_f64());
    }

    /// Adds everything to the shared histogram and starts again from nothing.
    pub fn publish(&self) {
        self.0.flush();
    }
}

#[cfg(feature = "no-telemetry")]
impl LocalTimes {
    pub(super) fn of(_: &Histogram) -> Self {
        Self()
    }

    /// Nothing.
    pub fn add(&self, _: Duration) {}

    /// Nothing.
    pub fn publish(&self) {}
}

/// What a lane times.
pub struct LaneTimes {
    /// Of a tile: room for it given to its last byte received.
    pub receive: LocalTimes,
    /// Of a tile: last byte received to verified.
    pub verify: LocalTimes,
    /// Of a tile: verified to taken out of its lane's queue.
    pub queue: LocalTimes,
    /// Of a group commit: its write.
    pub write: LocalTimes,
    /// Of a group commit: its sync.
    pub sync: LocalTimes,
    /// Of a group commit: waiting for room in the index, and making it visible there.
    pub index: LocalTimes,
}

impl LaneTimes {
    /// Adds everything to the shared histograms.
    pub fn publish(&self) {
        for times in [&self.receive, &self.verify, &self.queue, &self.write, &self.sync, &self.index] {
            times.publish();
        }
    }
}

#[cfg(all(test, not(feature = "no-telemetry")))]
mod tests {
    use super::*;
    use crate::telemetry::Metrics;

    #[test]
    fn times_are_on_the_page_when_they_are_published_and_once() {
        let metrics = Metrics::new();
        let times = metrics.lane_times();
        times.queue.add(Duration::from_millis(3));
        assert!(metrics.render().contains("tilecatcher_queue_seconds_count 0\n"));
        times.publish();
        times.publish();
        let page = metrics.render();
        assert!(page.contains("tilecatcher_queue_seconds_count 1\n"), "{page}");
        assert!(page.contains("tilecatcher_queue_seconds_bucket{le=\"0.0032\"} 1\n"), "{page}");
        assert!(page.contains("tilecatcher_queue_seconds_bucket{le=\"0.0016\"} 0\n"), "{page}");
    }

    #[test]
    fn a_stamp_that_is_not_earlier_gives_no_time() {
        let first = Stamp::now();
        let second = Stamp::at(Instant::now() + Duration::from_secs(1));
        assert!(second.since(first) >= Duration::from_secs(1));
        assert_eq!(first.since(second), Duration::ZERO);
    }
}
