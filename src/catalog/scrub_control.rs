//! What an operator says to the scrub: run now, stop, at which rate; and where the scrub says what it does.
//!
//! Owns the orders and the state, not the reading. A stop lasts until a start, and not over a restart of the daemon: what
//! is forgotten must not be that stored data is never looked at again. Must never wait with its lock held.

use super::scrub::ScrubRate;
use serde::Serialize;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What the scrub does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ScrubPhase {
    /// Its rate is off.
    #[default]
    Off,
    /// Until its next pass is due.
    Waiting,
    /// It reads.
    Running,
    /// An operator stopped it.
    Stopped,
}

/// The scrub must not go on now.
pub(super) struct Interrupted;

#[derive(Default)]
struct State {
    rate: Option<ScrubRate>,
    interval: Duration,
    halted: bool,
    /// A pass is to begin without waiting for its time.
    now: bool,
    running: bool,
    ended: bool,
}

/// The orders. One for each daemon.
#[derive(Default)]
pub struct ScrubControl {
    state: Mutex<State>,
    changed: Condvar,
}

impl State {
    fn rate(&self) -> ScrubRate {
        self.rate.unwrap_or(ScrubRate::Off)
    }

    fn may_run(&self) -> bool {
        !self.ended && !self.halted && self.rate() != ScrubRate::Off
    }
}

impl ScrubControl {
    /// The rate now.
    #[must_use]
    pub fn rate(&self) -> ScrubRate {
        self.lock().rate()
    }

    /// From the start of one pass to the start of the next.
    #[must_use]
    pub fn interval(&self) -> Duration {
        self.lock().interval
    }

    /// What the scrub does now.
    #[must_use]
    pub fn phase(&self) -> ScrubPhase {
        let state = self.lock();
        match state.rate() {
            _ if state.halted => ScrubPhase::Stopped,
            ScrubRate::Off => ScrubPhase::Off,
            _ if state.running || state.now => ScrubPhase::Running,
            _ => ScrubPhase::Waiting,
        }
    }

    /// Sets the rate, for the pass that is running, too.
    pub fn set_rate(&self, rate: ScrubRate) {
        self.change(|state| state.rate = Some(rate));
    }

    /// Begins a pass now, or goes on with the one that was stopped. False: its rate is off.
    pub fn run_now(&self) -> bool {
        let mut may_run = false;
        self.change(|state| {
            may_run = state.rate() != ScrubRate::Off;
            if may_run {
                (state.halted, state.now) = (false, !state.running);
            }
        });
        may_run
    }

    /// Stops the pass; what was read stays read. No other one begins until [`Self::run_now`].
    pub fn halt(&self) {
        self.change(|state| (state.halted, state.now) = (true, false));
    }

    /// How the scrub works at the start.
    pub(super) fn configure(&self, rate: ScrubRate, interval: Duration) {
        self.change(|state| (state.rate, state.interval) = (Some(rate), interval));
    }

    /// The daemon ends.
    pub(super) fn end(&self) {
        self.change(|state| state.ended = true);
    }

    /// Waits until passes may begin at all. False: the daemon ends.
    pub(super) fn await_allowed(&self) -> bool {
        let wait = |state: &mut State| !state.ended && !state.may_run();
        !self.changed.wait_while(self.lock(), wait).unwrap_or_else(PoisonError::into_inner).ended
    }

    /// Waits until a pass may begin: so long, or until it is asked for. False: the daemon ends.
    pub(super) fn await_turn(&self, wait: Duration) -> bool {
        let due = Instant::now() + wait;
        let mut state = self.lock();
        loop {
            if state.ended {
                return false;
            }
            let left = due.saturating_duration_since(Instant::now());
            if state.may_run() && (state.now || left.is_zero()) {
                (state.now, state.running) = (false, true);
                return true;
            }
            state = if state.may_run() {
                self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
            } else {
                self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
            };
        }
    }

    /// The pass is over, or was interrupted.
    pub(super) fn rests(&self) {
        self.lock().running = false;
    }

    /// Waits inside a pass. `Err`: it must not go on now.
    pub(super) fn pause(&self, time: Duration) -> Result<(), Interrupted> {
        self.pause_while(time, |_| true)
    }

    /// The same, until the rate is another one.
    pub(super) fn pause_at(&self, rate: ScrubRate, time: Duration) -> Result<(), Interrupted> {
        self.pause_while(time, |state| state.rate() == rate)
    }

    fn pause_while(&self, time: Duration, holds: impl Fn(&State) -> bool) -> Result<(), Interrupted> {
        let state = self.lock();
        let waited = self.changed.wait_timeout_while(state, time, |state| state.may_run() && holds(state));
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if state.may_run() { Ok(()) } else { Err(Interrupted) }
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_at_a_rate_hears_of_another_one() {
        let control = std::sync::Arc::new(ScrubControl::default());
        control.configure(ScrubRate::Bytes(1), Duration::from_secs(3600));
        let waiting = std::sync::Arc::clone(&control);
        let waiter =
            std::thread::spawn(move || waiting.pause_at(ScrubRate::Bytes(1), Duration::from_secs(86_400)).is_ok());
        control.set_rate(ScrubRate::Unlimited);
        assert!(waiter.join().expect("no panic"));
    }

    #[test]
    fn a_stop_lasts_until_a_start_and_without_a_rate_nothing_runs() {
        let control = ScrubControl::default();
        assert!(control.phase() == ScrubPhase::Off && !control.run_now());
        control.configure(ScrubRate::Unlimited, Duration::from_secs(3600));
        assert_eq!(control.phase(), ScrubPhase::Waiting);
        assert!(control.run_now() && control.await_turn(Duration::from_secs(3600)), "it does not wait for its time");
        assert!(control.pause(Duration::ZERO).is_ok() && control.phase() == ScrubPhase::Running);
        control.halt();
        assert!(control.pause(Duration::from_secs(3600)).is_err() && control.phase() == ScrubPhase::Stopped);
        control.rests();
        control.end();
        assert!(!control.await_turn(Duration::ZERO));
    }
}
