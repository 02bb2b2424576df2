//! Places where a test makes the daemon fail. In a release build there are none.
//!
//! `CATCHER_FAILPOINT=lane:3` panics where the third time [`pass`]`("lane")` is called.

/// Panics here if the environment says so.
#[cfg(debug_assertions)]
pub fn pass(name: &str) {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};
    static PLANNED: OnceLock<Option<(String, u64)>> = OnceLock::new();
    static PASSED: AtomicU64 = AtomicU64::new(0);
    let read = || {
        let text = std::env::var("CATCHER_FAILPOINT").ok()?;
        let (name, times) = text.split_once(':')?;
        Some((name.to_owned(), times.parse().ok()?))
    };
    if let Some((planned, times)) = PLANNED.get_or_init(read)
        && planned == name
    {
        let passed = PASSED.fetch_add(1, Ordering::Relaxed) + 1;
        assert!(passed != *times, "failpoint {name}");
    }
}

/// Nothing.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub fn pass(_: &str) {}
