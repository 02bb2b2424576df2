//! When a peer that is waited for is too slow: pure reckoning, no timer of its own.
//!
//! Only time in which the peer was waited for counts: what the daemon takes for itself is not the peer's fault.

use std::time::Duration;
use tokio::time::Instant;

/// What a peer must keep.
#[derive(Clone, Copy, Debug)]
pub(super) struct PaceLimits {
    /// Bytes a second.
    pub(super) rate: usize,
    /// Time in which any rate will do; a third of it is what a rate is taken over.
    pub(super) grace: Duration,
}

/// The peer keeps less.
#[derive(Debug, thiserror::Error)]
#[error("slower than {rate} bytes a second")]
pub(super) struct TooSlow {
    rate: usize,
}

/// The progress of one direction of one request.
#[derive(Debug)]
pub(super) struct Pace {
    limits: PaceLimits,
    waited: Duration,
    /// Of the window that the rate is taken over.
    window_waited: Duration,
    window_bytes: usize,
    waiting_since: Option<Instant>,
}

impl Pace {
    pub(super) fn new(limits: PaceLimits) -> Self {
        Self { limits, waited: Duration::ZERO, window_waited: Duration::ZERO, window_bytes: 0, waiting_since: None }
    }

    /// Bytes have come or gone.
    pub(super) fn progress(&mut self, bytes: usize, now: Instant) {
        if let Some(since) = self.waiting_since.take() {
            // A look is due once a window: a longer time means that the daemon itself stood still.
            let waited = now.saturating_duration_since(since).min(self.limits.grace / 3);
            self.waited += waited;
            self.window_waited += waited;
        }
        self.window_bytes += bytes;
    }

    /// The peer is waited for. Says when to look again.
    pub(super) fn wait(&mut self, now: Instant) -> Result<Instant, TooSlow> {
        self.progress(0, now);
        self.waiting_since = Some(now);
        let window = self.limits.grace / 3;
        if self.window_waited >= window {
            let slow = (self.window_bytes as f64) < self.limits.rate as f64 * self.window_waited.as_secs_f64();
            if slow && self.waited >= self.limits.grace {
                return Err(TooSlow { rate: self.limits.rate });
            }
            (self.window_waited, self.window_bytes) = (Duration::ZERO, 0);
        }
        Ok(now + (window - self.window_waited).max(Duration::from_millis(1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: PaceLimits = PaceLimits { rate: 1000, grace: Duration::from_secs(30) };

    /// Seconds of waiting until the peer is too slow, if each second of it brings `bytes`.
    fn lasts(bytes: usize) -> Option<u64> {
        let (mut pace, start) = (Pace::new(LIMITS), Instant::now());
        (1..200).find(|second| {
            let now = start + Duration::from_secs(*second);
            pace.progress(bytes, now);
            pace.wait(now).is_err()
        })
    }

    #[test]
    fn a_rate_below_the_limit_ends_after_the_grace_and_one_above_it_never() {
        assert!(lasts(0).is_some_and(|seconds| (30..=41).contains(&seconds)), "{:?}", lasts(0));
        assert!(lasts(900).is_some_and(|seconds| (30..=41).contains(&seconds)), "{:?}", lasts(900));
        assert_eq!(lasts(1100), None);
    }

    #[test]
    fn a_fast_beginning_buys_no_time_later() {
        let (mut pace, start) = (Pace::new(LIMITS), Instant::now());
        pace.progress(100_000_000, start);
        let slow = (1..200).find(|second| pace.wait(start + Duration::from_secs(*second)).is_err());
        assert!(slow.is_some_and(|seconds| seconds <= 41), "{slow:?}");
    }

    #[test]
    fn a_daemon_that_was_suspended_blames_nobody() {
        let (mut pace, start) = (Pace::new(LIMITS), Instant::now());
        assert!(pace.wait(start).is_ok());
        assert!(pace.wait(start + Duration::from_secs(3600)).is_ok());
    }

    #[test]
    fn time_that_the_daemon_takes_is_not_the_peers() {
        let (mut pace, start) = (Pace::new(LIMITS), Instant::now());
        for minute in 0..100 {
            let asked = start + Duration::from_secs(60 * minute);
            assert!(pace.wait(asked).is_ok());
            pace.progress(2000, asked + Duration::from_secs(1));
        }
    }
}
