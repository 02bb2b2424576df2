//! A log line that strangers, or a disk, can cause at any rate: one in a while, with the number of those that were left out.
//!
//! Must never wait but for another line.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

const EVERY: Duration = Duration::from_secs(5);

/// When a line was said last, and how often it was not since.
#[derive(Debug, Default)]
pub struct LimitedLog {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    last: Option<Instant>,
    left_out: u64,
}

impl LimitedLog {
    /// Calls `say` with the number of lines left out since the last one, or counts this one among them.
    pub fn warn(&self, say: impl FnOnce(u64)) {
        if let Some(left_out) = self.turn(Instant::now()) {
            say(left_out);
        }
    }

    fn turn(&self, now: Instant) -> Option<u64> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.last.is_some_and(|last| now < last + EVERY) {
            state.left_out += 1;
            return None;
        }
        state.last = Some(now);
        Some(std::mem::take(&mut state.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_left_out_are_counted_in_the_next_one() {
        let (log, start) = (LimitedLog::default(), Instant::now());
        assert_eq!(log.turn(start), Some(0));
        assert_eq!([log.turn(start), log.turn(start)], [None, None]);
        assert_eq!(log.turn(start + EVERY), Some(2));
    }
}
