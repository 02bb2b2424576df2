//! What all threads of a running replay share: when it began, when it ends, whether it is broken off.

use super::plan::Plan;
use crate::model::AcqId;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A running replay. Times are nanoseconds from its beginning. Each atomic is alone in what it says, so relaxed loads and
/// stores will do.
pub(super) struct Course<'a> {
    pub(super) plan: &'a Plan,
    pub(super) acq: AcqId,
    began: Instant,
    /// Tiles are due before this; earlier than planned when someone has asked for it.
    end: AtomicU64,
    /// What was due is still begun for so long afterwards.
    drain: AtomicU64,
    broken_off: AtomicBool,
}

impl<'a> Course<'a> {
    pub(super) fn new(plan: &'a Plan, acq: AcqId, began: Instant) -> Self {
        let (end, drain) = (nanoseconds(plan.duration), nanoseconds(plan.drain));
        Self { plan, acq, began, end: end.into(), drain: drain.into(), broken_off: AtomicBool::new(false) }
    }

    pub(super) fn now(&self) -> u64 {
        self.time_of(Instant::now())
    }

    pub(super) fn time_of(&self, instant: Instant) -> u64 {
        nanoseconds(instant.saturating_duration_since(self.began))
    }

    /// Waits for the beginning, which lies so far ahead that all threads run by then.
    pub(super) fn await_beginning(&self) {
        std::thread::sleep(self.began.saturating_duration_since(Instant::now()));
    }

    /// No tile is due from then on.
    pub(super) fn end(&self) -> u64 {
        self.end.load(Ordering::Relaxed)
    }

    /// What was due is not begun any more from then on.
    pub(super) fn drained(&self) -> u64 {
        self.end().saturating_add(self.drain.load(Ordering::Relaxed))
    }

    /// Nothing is due and nothing is begun any more: the run ends as soon as everything is answered.
    pub(super) fn end_now(&self) {
        let now = self.now();
        if self.end.fetch_min(now, Ordering::Relaxed) > now {
            self.drain.store(0, Ordering::Relaxed);
        }
    }

    /// Ends the run without waiting for answers.
    pub(super) fn break_off(&self) {
        self.end_now();
        self.broken_off.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_broken_off(&self) -> bool {
        self.broken_off.load(Ordering::Relaxed)
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
