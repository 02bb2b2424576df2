//! Whether tiles are taken: the state that an operator sets, and who is told when it changes.
//!
//! Paused, a begun tile is still taken and answered, and no further one is begun. On the capture port that is done by not
//! reading: a sender that waits for its answer stands still and loses nothing, and needs to know no status for it. (A
//! refusal would cost the tile with every sender that takes each answer for an end, as the microscopes' own do.) The HTTP
//! port can not leave a request alone for hours and answers 503. Not kept over a restart: a daemon that came back at night
//! and took no tiles would be worse than one that takes them too early. Must never be asked once a tile under a lock.

use crate::base::clock;
use serde::Serialize;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Mutex, PoisonError};

/// Whether tiles are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CaptureState {
    /// They are.
    Running,
    /// An operator holds them back.
    Paused,
    /// The daemon is about to end.
    Draining,
}

impl CaptureState {
    /// As status and headers have it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Draining => "draining",
        }
    }
}

/// Told after the state has changed.
type Watcher = Box<dyn Fn() + Send + Sync>;

/// The state. One for each daemon.
#[derive(Default)]
pub struct CaptureSwitch {
    paused: AtomicBool,
    since_ns: AtomicI64,
    watchers: Mutex<Vec<Watcher>>,
}

impl CaptureSwitch {
    /// True while tiles are held back. What is sent after the switch was thrown finds it thrown.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.paused.load(Ordering::Acquire)
    }

    /// When the state was last changed, ns since 1970 UTC; 0: never.
    #[must_use]
    pub fn since_ns(&self) -> i64 {
        self.since_ns.load(Ordering::Relaxed)
    }

    /// Throws the switch; false: it stood so.
    pub fn set_paused(&self, paused: bool) -> bool {
        let changed = self.paused.swap(paused, Ordering::AcqRel) != paused;
        if changed {
            self.since_ns.store(clock::unix_ns(), Ordering::Relaxed);
            self.watchers.lock().unwrap_or_else(PoisonError::into_inner).iter().for_each(|tell| tell());
        }
        changed
    }

    /// Calls this after each change. It must not block.
    pub fn watch(&self, tell: impl Fn() + Send + Sync + 'static) {
        self.watchers.lock().unwrap_or_else(PoisonError::into_inner).push(Box::new(tell));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;

    #[test]
    fn watchers_hear_of_changes_only() {
        let (switch, heard) = (CaptureSwitch::default(), Arc::new(AtomicUsize::new(0)));
        let count = Arc::clone(&heard);
        switch.watch(move || _ = count.fetch_add(1, Ordering::Relaxed));
        assert!(!switch.set_paused(false) && switch.set_paused(true) && !switch.set_paused(true));
        assert!(switch.is_paused() && switch.since_ns() > 0);
        assert!(switch.set_paused(false));
        assert_eq!(heard.load(Ordering::Relaxed), 2);
    }
}
