//! The stop signal: one flag with a reason that every thread can look at and anyone can wait for.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

/// Why the daemon stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum StopReason {
    /// Asked to, by a signal or by the program around it.
    Requested,
    /// One of its threads panicked.
    Panicked,
    /// A write or sync failed: what is unacknowledged was refused (invariant 9).
    StorageFailed,
}

/// A handle to the flag; clones share it.
#[derive(Clone, Default)]
pub struct Stop {
    shared: Arc<(Mutex<Option<StopReason>>, Condvar)>,
}

impl Stop {
    /// Raises the flag. The worst reason is said, whatever came first.
    pub fn raise(&self, reason: StopReason) {
        let (state, changed) = &*self.shared;
        let mut raised = state.lock().unwrap_or_else(PoisonError::into_inner);
        *raised = (*raised).max(Some(reason));
        drop(raised);
        changed.notify_all();
    }

    /// The reason, once raised.
    #[must_use]
    pub fn reason(&self) -> Option<StopReason> {
        *self.shared.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Blocks until the flag is raised.
    #[must_use]
    pub fn wait(&self) -> StopReason {
        let (state, changed) = &*self.shared;
        let mut reason = state.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(reason) = *reason {
                return reason;
            }
            reason = changed.wait(reason).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Blocks until the flag is raised or the time is over.
    #[must_use]
    pub fn wait_for(&self, limit: Duration) -> Option<StopReason> {
        let (state, changed) = &*self.shared;
        let reason = state.lock().unwrap_or_else(PoisonError::into_inner);
        let (reason, _) = changed
            .wait_timeout_while(reason, limit, |reason| reason.is_none())
            .unwrap_or_else(PoisonError::into_inner);
        *reason
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_storage_failure_during_a_stop_is_not_hidden_by_it() {
        let stop = Stop::default();
        stop.raise(StopReason::Requested);
        stop.raise(StopReason::StorageFailed);
        stop.raise(StopReason::Requested);
        assert_eq!(stop.wait(), StopReason::StorageFailed);
    }
}
