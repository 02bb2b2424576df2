//! A storage error at each call of a small history in turn: what was not stored is refused and not visible, what was
//! acknowledged is kept, a file whose sync failed is not touched again, and the next start recovers.

use crate::dice::Dice;
use crate::disk::{Call, CrashFs, Fault};
use crate::history::{image_of, key, started};
use crate::store::Store;
use rustix::io::Errno;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tilecatcher::catalog::Outcome;
use tilecatcher::index::MemoryStore;
use tilecatcher::model::{AcqId, Refusal, TileKey};

pub const CALLS: [Call; 15] = [
    Call::CreateDir,
    Call::List,
    Call::Create,
    Call::OpenRead,
    Call::OpenWrite,
    Call::Remove,
    Call::Rename,
    Call::SyncDir,
    Call::FreeBytes,
    Call::Write,
    Call::Read,
    Call::Sync,
    Call::SetLen,
    Call::Length,
    Call::NextData,
];

/// What the cases came by together.
#[derive(Debug, Default)]
pub struct Met {
    pub cases: AtomicU64,
    pub refused_starts: AtomicU64,
    pub no_space: AtomicU64,
    pub storage_failed: AtomicU64,
    pub accepted: AtomicU64,
    pub failed_closes: AtomicU64,
}

fn met(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::SeqCst);
}

/// What a sender was told.
#[derive(Default)]
struct Told {
    accepted: Vec<(TileKey, u64)>,
    refused: Vec<(TileKey, u64)>,
}

impl Told {
    /// Sends tiles whose content follows from their key, so that a tile sent again is the same one.
    fn send(&mut self, store: &Store, cols: &[u64], met_all: &Met) {
        let tiles: Vec<(TileKey, u64)> = cols.iter().map(|col| (key(1 + col % 3, *col), 1000 + col)).collect();
        let images: Vec<_> = tiles.iter().map(|(key, content)| (*key, image_of(*content))).collect();
        for (tile, outcome) in tiles.into_iter().zip(store.send(&images, 0)) {
            match outcome {
                Outcome::Accepted(_) => {
                    met(&met_all.accepted);
                    self.refused.retain(|(key, _)| *key != tile.0);
                    self.accepted.push(tile);
                }
                Outcome::Refused(refusal) => {
                    let how = if refusal == Refusal::NoSpace { &met_all.no_space } else { &met_all.storage_failed };
                    met(how);
                    if !self.accepted.contains(&tile) {
                        assert!(store.image(&tile.0).is_none(), "{}: refused and visible", tile.0);
                        self.refused.push(tile);
                    }
                }
            }
        }
    }

    fn check(&self, store: &Store, when: &str) {
        for (key, content) in &self.accepted {
            let image = store.image(key).map(|(_, image)| image);
            assert!(image == Some(Ok(image_of(*content))), "{key} was acknowledged and is lost or altered {when}");
        }
    }
}

/// The calls that matter: more tiles than a segment holds, control records, tiles that are stored already, an end.
fn work(store: &Store, told: &mut Told, met_all: &Met) {
    let _ = store.catalog.start_acquisition(started(1));
    for n in 0..6 {
        told.send(store, &[n, n + 10, n + 20], met_all);
    }
    let _ = store.catalog.end_acquisition(AcqId(1));
    told.send(store, &[0, 10, 40], met_all);
}

/// A store with a sealed segment of each lane, and open ones that a killed process left.
fn killed_store(dir: &Path, told: &mut Told, met_all: &Met) -> CrashFs {
    let fs = CrashFs::default();
    for life in 0..2 {
        let (store, _) = Store::open(dir, &fs, Arc::new(MemoryStore::default())).expect("opens");
        told.send(&store, &[100 + 10 * life, 101 + 10 * life, 102 + 10 * life], met_all);
        let _ = store.catalog.start_acquisition(started(9));
        if life == 1 {
            return fs.copy();
        }
        store.close().expect("the disk works");
    }
    fs
}

/// How often the history makes each call.
pub fn calls_made(dir: &Path) -> Vec<(Call, u64)> {
    let (mut told, met_all) = (Told::default(), Met::default());
    let fs = killed_store(dir, &mut told, &met_all);
    let (store, _) = Store::open(dir, &fs, Arc::new(MemoryStore::default())).expect("opens");
    work(&store, &mut told, &met_all);
    store.close().expect("the disk works");
    let counts = fs.lock().counts.clone();
    CALLS.iter().map(|call| (*call, counts.get(call).copied().unwrap_or(0))).collect()
}

/// One error, and everything that must hold from then on.
pub fn one_case(fault: Fault, met_all: &Met) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (dir, mut told) = (dir.path(), Told::default());
    let fs = killed_store(dir, &mut told, met_all);
    fs.inject(fault);
    met(&met_all.cases);
    match Store::open(dir, &fs, Arc::new(MemoryStore::default())) {
        Err(_) => met(&met_all.refused_starts),
        Ok((store, _)) => {
            work(&store, &mut told, met_all);
            if store.close().is_err() {
                met(&met_all.failed_closes);
            }
        }
    }
    assert_eq!(fs.lock().touched_after_failed_sync, 0, "a file whose sync had failed was written to or synced again");
    // The page cache still shows what a failed sync has lost; a cut shows what the disk has.
    let mut dice = Dice::new(fault.nth);
    for (image, how) in [(fs.copy(), "behind the end of the process"), (fs.after_cut(&mut dice), "behind a cut")] {
        recovers(dir, &image, &told, how, met_all);
    }
}

/// A start finds what was acknowledged, takes what was refused, and keeps both through another cut.
fn recovers(dir: &Path, image: &CrashFs, told: &Told, how: &str, met_all: &Met) {
    let (store, _) = Store::open(dir, image, Arc::new(MemoryStore::default())).expect("a start behind an error");
    told.check(&store, how);
    let mut again = Told { accepted: told.accepted.clone(), refused: Vec::new() };
    let cols: Vec<u64> = told.refused.iter().map(|(_, content)| content - 1000).collect();
    again.send(&store, &cols, met_all);
    assert!(again.refused.is_empty(), "refused although the error is gone");
    let cut = image.after_cut(&mut Dice::new(7));
    drop(store);
    let (store, _) = Store::open(dir, &cut, Arc::new(MemoryStore::default())).expect("a start behind a cut");
    again.check(&store, "behind a restart and a cut");
}

/// Each error at each call: everywhere with EIO, with others at the first, second and tenth.
pub fn all_faults(made: &[(Call, u64)]) -> Vec<Fault> {
    let mut faults = Vec::new();
    for (call, count) in made {
        for nth in 1..=*count {
            for errno in [Errno::IO, Errno::NOSPC, Errno::DQUOT, Errno::ROFS] {
                for lasts in [false, true] {
                    if errno == Errno::IO && nth <= 60 || [1, 2, 10].contains(&nth) {
                        faults.push(Fault { call: *call, nth, errno: errno.raw_os_error(), lasts });
                    }
                }
            }
        }
    }
    faults
}

#[cfg(not(feature = "planted-bugs"))]
#[test]
fn an_error_at_any_call_is_refused_and_loses_nothing() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let made = calls_made(dir.path());
    let (faults, met_all) = (all_faults(&made), Met::default());
    let is_last = |seed: u64| seed >= faults.len() as u64;
    crate::threads::over_seeds("an_error_at_any_call", 0, is_last, |seed| {
        let fault = faults[usize::try_from(seed).expect("small")];
        let case = std::panic::AssertUnwindSafe(|| one_case(fault, &met_all));
        std::panic::catch_unwind(case).unwrap_or_else(|_| panic!("{fault:?}: see above"));
    });
    eprintln!("{met_all:?}; calls {made:?}");
    let reached = [&met_all.refused_starts, &met_all.no_space, &met_all.storage_failed, &met_all.failed_closes];
    assert!(reached.into_iter().all(|counter| counter.load(Ordering::SeqCst) > 10), "{met_all:?}");
}

#[cfg(not(feature = "planted-bugs"))]
#[test]
fn when_the_disk_is_full_for_a_moment_capture_resumes_by_itself() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    for (call, errno) in [(Call::Create, Errno::NOSPC), (Call::Create, Errno::DQUOT), (Call::Write, Errno::NOSPC)] {
        let (fs, met_all, mut told) = (CrashFs::default(), Met::default(), Told::default());
        let (store, _) = Store::open(dir.path(), &fs, Arc::new(MemoryStore::default())).expect("opens");
        told.send(&store, &[1], &met_all);
        fs.inject(Fault { call, nth: 1, errno: errno.raw_os_error(), lasts: true });
        (2..20).for_each(|col| told.send(&store, &[col], &met_all));
        assert!(met_all.no_space.load(Ordering::SeqCst) > 0, "{call:?}: {met_all:?}");
        assert_eq!(
            (met_all.storage_failed.load(Ordering::SeqCst), store.stop.reason()),
            (0, None),
            "{call:?} {errno:?}"
        );
        told.send(&store, &[1], &met_all);
        assert!(told.refused.iter().all(|(refused, _)| *refused != key(2, 1)), "a duplicate needs no space");
        fs.lock().heal();
        (2..20).for_each(|col| told.send(&store, &[col], &met_all));
        assert!(told.refused.is_empty(), "{call:?}: refused although there is space again");
        told.check(&store, "in the same process");
    }
}

#[cfg(not(feature = "planted-bugs"))]
#[test]
fn slow_syncs_delay_acknowledgements_and_nothing_else() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (fs, met_all, mut told) = (CrashFs::default(), Met::default(), Told::default());
    fs.slow_syncs();
    let (store, _) = Store::open(dir.path(), &fs, Arc::new(MemoryStore::default())).expect("opens");
    work(&store, &mut told, &met_all);
    assert!(told.refused.is_empty());
    let cut = fs.after_cut(&mut Dice::new(1));
    drop(store);
    let (store, _) = Store::open(dir.path(), &cut, Arc::new(MemoryStore::default())).expect("opens");
    told.check(&store, "behind a cut");
}
