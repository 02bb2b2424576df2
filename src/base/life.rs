//! Signs of life: which threads are stuck, for a watchdog.
//!
//! A thread says when it moves on, and when it waits for something outside of this process: work to come, the disk. Who
//! waits is not stuck, for a restart of the process mends neither. Must never block a thread that gives a sign.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// In place of a time: the thread waits.
const WAITS: u64 = u64::MAX;

/// All threads that give signs of life.
pub struct Life {
    began: Instant,
    threads: Mutex<Vec<Arc<Pulse>>>,
}

/// One thread's signs.
pub struct Pulse {
    name: String,
    began: Instant,
    /// Milliseconds from `began` to the last sign, or [`WAITS`]. Stored by the thread, loaded by [`Life::stuck`]; a late
    /// value only delays what the watchdog sees, so both are relaxed.
    last_ms: AtomicU64,
}

impl Default for Life {
    fn default() -> Self {
        Self { began: Instant::now(), threads: Mutex::default() }
    }
}

impl Life {
    /// The pulse of a thread that moves from now on.
    #[must_use]
    pub fn pulse(&self, name: &str) -> Arc<Pulse> {
        let pulse = Arc::new(Pulse { name: name.to_owned(), began: self.began, last_ms: AtomicU64::new(0) });
        pulse.moves();
        self.threads.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&pulse));
        pulse
    }

    /// The name of a thread that does not wait and has given no sign for longer than `limit`.
    #[must_use]
    pub fn stuck(&self, limit: Duration) -> Option<String> {
        let now_ms = elapsed_ms(self.began);
        let limit_ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        let threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        let stuck = threads.iter().find(|pulse| match pulse.last_ms.load(Ordering::Relaxed) {
            WAITS => false,
            last_ms => now_ms.saturating_sub(last_ms) > limit_ms,
        });
        stuck.map(|pulse| pulse.name.clone())
    }
}

impl Pulse {
    /// The thread moves on: the next sign is due soon.
    pub fn moves(&self) {
        self.last_ms.store(elapsed_ms(self.began), Ordering::Relaxed);
    }

    /// The thread waits for work or for the disk, however long that takes.
    pub fn waits(&self) {
        self.last_ms.store(WAITS, Ordering::Relaxed);
    }
}

fn elapsed_ms(began: Instant) -> u64 {
    u64::try_from(began.elapsed().as_millis()).unwrap_or(WAITS - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_millis(20);

    fn age() {
        let began = Instant::now();
        while began.elapsed() <= LIMIT + Duration::from_millis(2) {
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_thread_without_a_sign_is_stuck_until_it_moves_again() {
        let life = Life::default();
        let lane = life.pulse("lane-0");
        assert_eq!(life.stuck(Duration::from_secs(60)), None);
        age();
        assert_eq!(life.stuck(LIMIT).as_deref(), Some("lane-0"));
        lane.moves();
        assert_eq!(life.stuck(Duration::from_secs(60)), None);
    }

    #[test]
    fn a_thread_that_waits_is_not_stuck_and_hides_no_other() {
        let life = Life::default();
        let (lane, reactor) = (life.pulse("lane-0"), life.pulse("reactor-0"));
        lane.waits();
        reactor.waits();
        age();
        assert_eq!(life.stuck(LIMIT), None);
        reactor.moves();
        age();
        assert_eq!(life.stuck(LIMIT).as_deref(), Some("reactor-0"));
    }
}
