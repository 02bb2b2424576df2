//! What must hold of a disk when a store is started on it, whatever happened to it before.

use crate::dice::Dice;
use crate::disk::CrashFs;
use crate::history::{Life, content_of, deletion, image_of};
use crate::store::{Records, Store, fold_of, journal_options, records, rows_of};
use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tilecatcher::index::{MemoryStore, OpenOutcome, Row, ViewStore};
use tilecatcher::journal::{DamageKind, Journal, verify_segments};
use tilecatcher::model::{Sequence, TileKey, TileVersion};

/// What all cuts together came by: a test that never gets there shows nothing.
#[derive(Debug, Default)]
pub struct Seen {
    pub cuts: AtomicU64,
    pub kills: AtomicU64,
    pub cut_recoveries: AtomicU64,
    pub torn: AtomicU64,
    pub swaps: AtomicU64,
    pub leftovers: AtomicU64,
    pub unacknowledged_lost: AtomicU64,
    pub unacknowledged_kept: AtomicU64,
    pub index_caught_up: AtomicU64,
    pub index_rebuilt: AtomicU64,
}

pub fn count(counter: &AtomicU64, more: usize) {
    counter.fetch_add(more as u64, Ordering::SeqCst);
}

/// Checks a disk; where something does not hold, keeps it as a data directory.
pub fn check(
    dir: &Path,
    image: &CrashFs,
    life: &Life,
    calls: usize,
    rows: MemoryStore,
    dice: &mut Dice,
    seen: &Seen,
) -> Records {
    let before = image.copy();
    let checked = catch_unwind(AssertUnwindSafe(|| checked(dir, image, life, calls, rows, dice, seen)));
    checked.unwrap_or_else(|panic| {
        if cfg!(feature = "planted-bugs") {
            resume_unwind(panic);
        }
        eprintln!("the cut behind call {calls} of {}; the disk: {}", life.ops.len(), keep(dir, &before).display());
        resume_unwind(panic)
    })
}

/// Writes a disk to files, to look at with the program.
fn keep(dir: &Path, image: &CrashFs) -> PathBuf {
    let kept = tempfile::Builder::new().prefix("crash-").tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    for (path, bytes) in image.everything() {
        let path = kept.path().join(path.strip_prefix(dir).expect("in the data directory"));
        std::fs::create_dir_all(path.parent().expect("has one")).expect("a directory");
        std::fs::write(path, bytes).expect("written");
    }
    kept.keep()
}

fn checked(
    dir: &Path,
    image: &CrashFs,
    life: &Life,
    calls: usize,
    rows: MemoryStore,
    dice: &mut Dice,
    seen: &Seen,
) -> Records {
    let promised = life.promised(calls);
    let (store, opened) = Store::open(dir, image, Arc::new(rows)).expect("a start after a cut");
    let is_corrupt = |kind: DamageKind| kind == DamageKind::Corrupt;
    let damage = &opened.recovery.damage;
    assert!(!damage.iter().any(|damage| is_corrupt(damage.kind)), "a power cut is no corruption: {damage:?}");
    let journal = store.catalog.journal();
    let found = records(journal);
    compare(&found, &life.truth, &promised);
    // Whatever a start has found may be answered as a duplicate at once: another cut must not take it.
    let cut = image.after_cut(dice);
    check_tiles(&store, &found);
    let (folded, rows) = (fold_of(journal), Arc::clone(&store.rows));
    store.close().expect("the disk works");
    assert_same_rows(&rows_of(&*rows), &folded, &opened.index.outcome);
    check_again(dir, &cut, &found, image);

    count(&seen.cuts, 1);
    count(&seen.torn, damage.len());
    count(&seen.swaps, usize::try_from(opened.recovery.completed_swaps).expect("small"));
    count(&seen.leftovers, usize::try_from(opened.recovery.removed_leftovers).expect("small"));
    count(&seen.unacknowledged_kept, found.keys().filter(|sequence| !promised.contains(sequence)).count());
    count(&seen.unacknowledged_lost, life.truth.keys().filter(|sequence| !found.contains_key(sequence)).count());
    match opened.index.outcome {
        OpenOutcome::CaughtUp => count(&seen.index_caught_up, 1),
        OpenOutcome::Built => {}
        OpenOutcome::Rebuilt(_) => count(&seen.index_rebuilt, 1),
    }
    found
}

/// The index is the fold of the journal.
fn assert_same_rows(index: &[Row], folded: &[Row], outcome: &OpenOutcome) {
    let only = |rows: &[Row], others: &[Row]| {
        let rows = rows.iter().filter(|row| !others.contains(row));
        let text = |(key, value): &Row| {
            [Some(key), value.as_ref()].map(|part| part.map(|bytes| bytes.escape_ascii().to_string()))
        };
        format!("{:?}", rows.map(text).collect::<Vec<_>>())
    };
    if index != folded {
        let (too_many, missing) = (only(index, folded), only(folded, index));
        panic!("the index ({outcome:?}) is not the fold of the journal: {too_many} instead of {missing}");
    }
}

fn compare(found: &Records, truth: &Records, promised: &BTreeSet<Sequence>) {
    for sequence in promised {
        assert!(
            found.contains_key(sequence),
            "record {sequence} was acknowledged and is lost: {:?}",
            truth[sequence].0
        );
    }
    for (sequence, record) in found {
        assert!(truth.get(sequence) == Some(record), "record {sequence} was invented or altered: {:?}", record.0);
    }
}

/// Every tile that the records make, in every version, can be asked for, and has the bytes that were sent.
fn check_tiles(store: &Store, found: &Records) {
    let mut current: BTreeMap<TileKey, (Sequence, u64)> = BTreeMap::new();
    let mut versions = BTreeMap::new();
    for (header, payload) in found.values() {
        if let Some(tile) = &header.tile {
            let content = content_of(&payload[tile.image.bounds()]);
            assert!(payload[tile.image.bounds()] == image_of(content), "record {} is altered", header.sequence);
            current.insert(tile.key, (header.sequence, content));
            versions.insert((tile.key, tile.id, tile.version.0), header.sequence);
        } else if let Some(deleted) = deletion(header.kind, payload) {
            current.retain(|key, _| key.acq != deleted.acq);
            versions.retain(|(key, ..), _| key.acq != deleted.acq);
        }
    }
    for (key, (sequence, content)) in &current {
        let (stored, image) = store.image(key).unwrap_or_else(|| panic!("{key} is not in the index"));
        assert_eq!(stored, *sequence, "{key}: another version is current");
        assert!(image.as_ref() == Ok(&image_of(*content)), "{key}: {:?}", image.err());
    }
    for ((key, id, version), sequence) in versions {
        let entry = store.catalog.tile_version(id, TileVersion(version)).expect("readable");
        assert_eq!(entry.map(|entry| entry.sequence), Some(sequence), "version {version} of {key}");
    }
}

/// A second start on a disk that was cut right behind the first one finds the same and changes nothing.
fn check_again(dir: &Path, cut: &CrashFs, found: &Records, first: &CrashFs) {
    let (journal, report) = Journal::open(dir, Arc::new(cut.clone()), journal_options()).expect("recovery");
    assert!(records(&journal) == *found, "a cut behind the recovery took something from what it had found");
    drop(journal);
    let settled = report.completed_swaps + report.removed_leftovers + report.recovered_segments;
    assert!(report.damage.is_empty() && settled == 0, "a second recovery had something to do: {report:?}");
    assert!(cut.everything() == first.everything(), "a second recovery changed a file");
    let verified = verify_segments(dir, cut, &mut |_| {}).expect("readable");
    assert!(verified.problems.is_empty(), "{:?}", verified.problems);
}

/// The rows that a start may find: none, those of some moment, or damaged ones. The index' store promises nothing.
pub fn rows_after_crash(life: &Life, dice: &mut Dice) -> MemoryStore {
    let rows = match dice.below(4) {
        0 => return MemoryStore::default(),
        1 => &life.rows_before,
        _ => &life.rows_after,
    };
    let mut rows = rows_of(rows);
    if !rows.is_empty() && dice.once_in(3) {
        let victim = dice.index(rows.len());
        match (dice.once_in(2), &mut rows[victim].1) {
            (true, Some(value)) if !value.is_empty() => {
                let byte = dice.index(value.len());
                value[byte] ^= 1;
            }
            _ => drop(rows.remove(victim)),
        }
    }
    let store = MemoryStore::default();
    store.apply(rows).expect("in memory");
    store
}
