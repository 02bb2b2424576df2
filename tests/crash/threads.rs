//! Histories on all processors: each worker takes the next seed until there are no more.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Runs `one` for seeds from `first` on, until `enough` says so. A seed that fails is named with the command that runs
/// it alone. `TILECATCHER_TEST_SEED` runs that seed and no other.
///
/// # Panics
/// A seed failed.
pub fn over_seeds(test: &str, first: u64, enough: impl Fn(u64) -> bool + Sync, one: impl Fn(u64) + Sync) {
    if let Some(seed) = std::env::var("TILECATCHER_TEST_SEED").ok().and_then(|text| text.parse().ok()) {
        return one(seed);
    }
    let (next, failed) = (AtomicU64::new(first), AtomicBool::new(false));
    let workers = std::thread::available_parallelism().map_or(2, usize::from).min(16);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::SeqCst);
                    if failed.load(Ordering::SeqCst) || enough(seed - first) {
                        return;
                    }
                    if catch_unwind(AssertUnwindSafe(|| one(seed))).is_err() {
                        failed.store(true, Ordering::SeqCst);
                        eprintln!(
                            "seed {seed} failed; alone: TILECATCHER_TEST_SEED={seed} cargo test --test crash {test}"
                        );
                    }
                }
            });
        }
    });
    assert!(!failed.load(Ordering::SeqCst), "a seed failed: see above");
}
