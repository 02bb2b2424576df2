//! Whole stores under power cuts and kills: thousands of short histories, each cut at some of its calls; and one small
//! history cut behind every call, with every subset of what was not synced.

use crate::campaign::one_history;
use crate::check::{Seen, check};
use crate::dice::{Dice, cuts_wanted};
use crate::disk::CrashFs;
use crate::history::{Life, Oracle, User, found_on, key, started};
use crate::store::{Store, copy_of};
use crate::threads::over_seeds;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tilecatcher::index::MemoryStore;
use tilecatcher::model::AcqId;

/// Up to so many pending changes every subset of them is tried.
const SUBSETS_OF: usize = 8;

#[test]
fn whole_stores_keep_what_they_acknowledged_wherever_they_are_cut() {
    let (seen, wanted) = (Seen::default(), cuts_wanted(10_000));
    let name = "whole_stores_keep";
    over_seeds(name, 0, |_| seen.cuts.load(Ordering::SeqCst) >= wanted, |seed| one_history(seed, &seen));
    eprintln!("{seen:?}");
    let reached =
        [&seen.kills, &seen.cut_recoveries, &seen.torn, &seen.swaps, &seen.leftovers, &seen.unacknowledged_lost];
    let reached = reached.into_iter().chain([&seen.unacknowledged_kept, &seen.index_caught_up, &seen.index_rebuilt]);
    let rare = reached.map(|counter| counter.load(Ordering::SeqCst)).min();
    assert!(rare > Some(10) || seen.cuts.load(Ordering::SeqCst) < 5000, "{seen:?}");
}

/// Two lanes, new tiles, a duplicate, a new version, control records, a full segment.
fn small_history(dir: &Path, fs: &CrashFs) -> Life {
    let before = fs.record();
    let (store, _) = Store::open(dir, fs, Arc::new(MemoryStore::default())).expect("opens");
    let mut oracle = Oracle::default();
    let mut user = User { store: &store, fs, oracle: &mut oracle, promises: Vec::new() };
    store.catalog.start_acquisition(started(1)).expect("started");
    user.send(&[(key(1, 0), 1), (key(1, 1), 2), (key(1, 2), 3)]);
    user.send(&[(key(1, 0), 1), (key(1, 1), 4)]);
    store.catalog.end_acquisition(AcqId(1)).expect("ended");
    (0..4).for_each(|n| user.send(&[(key(1, 5), 10 + n), (key(1, 6), 20 + n)]));
    store.catalog.delete_acquisition(AcqId(1)).expect("deleted");
    user.send(&[(key(2, 0), 30)]);
    let (promises, rows_after) = (user.promises, Arc::clone(&store.rows));
    store.close().expect("the disk works");
    let (ops, truth) = (fs.recorded(), found_on(dir, fs));
    let (base, dead, rows_before) = Default::default();
    Life { before, ops, promises, base, truth, dead, rows_before, rows_after: copy_of(&rows_after) }
}

#[test]
fn every_call_of_a_history_may_be_the_last_with_any_subset_of_what_was_not_synced() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let life = small_history(dir.path(), &CrashFs::default());
    let seen = Seen::default();
    let is_last = |seed: u64| seed > life.ops.len() as u64;
    over_seeds("every_call", 0, is_last, |seed| {
        cut_behind(dir.path(), &life, usize::try_from(seed).expect("small"), &seen);
    });
    eprintln!("{} calls: {seen:?}", life.ops.len());
    assert!(seen.cuts.load(Ordering::SeqCst) > 2 * life.ops.len() as u64, "{seen:?}");
}

fn cut_behind(dir: &Path, life: &Life, calls: usize, seen: &Seen) {
    // A directory of its own, for its lock.
    let own = tempfile::tempdir().expect("a temporary directory");
    let mut dice = Dice::new(calls as u64);
    let mut disk = life.before.clone();
    life.advance(&mut disk, 0, calls);
    let all_subsets = disk.pending() <= SUBSETS_OF;
    for subset in 0..1u64 << disk.pending().min(SUBSETS_OF) {
        let image = if all_subsets { disk.after_cut_with(subset) } else { disk.after_cut(&mut dice) };
        let image = image.moved(dir, own.path());
        check(own.path(), &image, life, calls, MemoryStore::default(), &mut dice, seen);
    }
}
