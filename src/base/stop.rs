//! The stop signal: one flag with a reason that every thread can look at and anyone can wait for.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

/// Why the daemon stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// Asked to, by a signal or by the program around it.
    Requested,
    /// A write or sync failed: what is unacknowledged was refused (invariant 9).
    StorageFailed,
}

/// A handle to the flag; clones share it. The first reason stays.
#[derive(Clone, Default)]
pub struct Stop {
    shared: Arc<(Mutex<Option<StopReason>>, Condvar)>,
}

impl Stop {
    /// Raises the flag.
    pub fn raise(&self, reason: StopReason) {
        let (state, changed) = &*self.shared;
        state.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(reason);
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
