//! Requests that are made again while the server is away; and who hears of it.
//!
//! Must never repeat a request that the server has refused for good, nor hold up who asked to stop.

use super::http::{HttpClient, HttpClientError};
use crate::base::stop::Stop;
use std::time::{Duration, Instant};

/// The first pause before something is tried again; doubled up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(50);
pub(super) const PAUSE_MAX: Duration = Duration::from_secs(2);
/// The same trouble is told of again after this, then after twice as long, up to [`TELL_MAX`].
const TELL_MIN: Duration = Duration::from_secs(5);
const TELL_MAX: Duration = Duration::from_secs(600);

/// What a run tells while it goes on. Called from several threads.
pub trait Listener: Sync {
    /// Tiles done (stored, there already, or refused), tiles in all, bytes acknowledged.
    fn progress(&self, done: u64, total: u64, bytes: u64);

    /// A line for people: a warning, a lost connection, a step done.
    fn note(&self, line: &str);
}

/// Nobody listens.
pub struct Quiet;

impl Listener for Quiet {
    fn progress(&self, _: u64, _: u64, _: u64) {}
    fn note(&self, _: &str) {}
}

/// When trouble that goes on is told of: at once, then less and less often.
#[derive(Default)]
pub(super) struct Reminder {
    last: Option<(Instant, Duration)>,
}

impl Reminder {
    /// True when it is time to tell.
    pub(super) fn is_due(&mut self) -> bool {
        let now = Instant::now();
        let gap = match self.last {
            Some((told, gap)) if now.duration_since(told) < gap => return false,
            Some((_, gap)) => (gap * 2).min(TELL_MAX),
            None => TELL_MIN,
        };
        self.last = Some((now, gap));
        true
    }
}

/// Asks a server, again and again while it is away.
#[derive(Clone, Copy)]
pub struct Patient<'a> {
    /// The server.
    pub http: &'a HttpClient,
    /// For how long.
    pub retry_for: Duration,
    /// Hears of each failed attempt.
    pub listener: &'a dyn Listener,
    /// Ends the waiting.
    pub stop: &'a Stop,
}

impl Patient<'_> {
    /// The answer; the last problem when time is over, or when asked to stop.
    ///
    /// # Errors
    /// The server refuses, is none, or stays away.
    pub fn ask<T>(&self, ask: impl Fn(&HttpClient) -> Result<T, HttpClientError>) -> Result<T, HttpClientError> {
        let (began, mut reminder) = (Instant::now(), Reminder::default());
        let mut attempts = 0;
        loop {
            match ask(self.http) {
                Err(error) if error.is_passing() && began.elapsed() < self.retry_for => {
                    if reminder.is_due() {
                        self.listener.note(&format!("{error}; trying again"));
                    }
                    if self.stop.wait_for(pause(attempts)).is_some() {
                        return Err(error);
                    }
                    attempts += 1;
                }
                answer => return answer,
            }
        }
    }
}

/// The pause before attempt `n` + 1.
pub(super) fn pause(n: u32) -> Duration {
    PAUSE_MIN.saturating_mul(1 << n.min(16)).min(PAUSE_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_bound() {
        let pauses = [0, 1, 2, 5, 6, 40].map(|n| pause(n).as_millis());
        assert_eq!(pauses, [50, 100, 200, 1600, 2000, 2000]);
    }
}
