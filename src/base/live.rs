//! A number that may change while others read it: a limit that an operator turns at run time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A number that can be set at run time. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Live(Arc<AtomicU64>);

impl Live {
    /// With this value.
    #[must_use]
    pub fn new(value: u64) -> Self {
        Self(Arc::new(AtomicU64::new(value)))
    }

    /// The value now.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// The value now, as a count.
    #[must_use]
    pub fn count(&self) -> usize {
        usize::try_from(self.get()).unwrap_or(usize::MAX)
    }

    /// The value now, as so many microseconds.
    #[must_use]
    pub fn time(&self) -> Duration {
        Duration::from_micros(self.get())
    }

    /// Sets it.
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// Sets it to a count.
    pub fn set_count(&self, value: usize) {
        self.set(value as u64);
    }

    /// Sets it to a time, in microseconds.
    pub fn set_time(&self, value: Duration) {
        self.set(u64::try_from(value.as_micros()).unwrap_or(u64::MAX));
    }
}
