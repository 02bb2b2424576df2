//! The index against the journal while the daemon runs: compared with fold(journal), or replaced by it.
//!
//! A second store is folded from the journal beside the first one. Facts that come meanwhile are kept by the owner as it
//! folds them (bounded; with too many the second store is brought up again from the journal). At the end the owner rests
//! for as long as folding those takes: then both stores hold the same facts, and either the rows that differed are looked at
//! again, or the second store takes the place of the first one. Readers and lanes never wait for any of it: what is
//! published goes into the overlay. A fold that does not give the facts that the index has folded never replaces it.
//!
//! Needs disk and cache for a second store as long as it runs, and ends where the disk has no room for one: the index in use
//! and the journal come first. A store that is not finished has a mark beside it, by which the next start removes it.

use super::Index;
use super::compare::{Differences, Doubts, Noting, doubts, settle};
use super::fold::{FoldState, fold, fold_iterator};
use super::open::{FactSource, IndexOptions, list_generations, mark_of, remove_others, remove_store};
use super::owner::Held;
use super::sled_store::SledStore;
use super::store::{MemoryStore, StoreError, ViewStore};
use crate::base::stop::Stop;
use crate::model::{Fact, Sequence};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How often the second store is brought up again before capture is called too fast for it.
const ROUNDS_MAX: usize = 16;
/// Longest wait for readers of the old store before its files are left to the next start.
const READERS_MAX: Duration = Duration::from_secs(60);
/// The cache of a store that is only compared with.
const COMPARE_CACHE_BYTES: u64 = 32 << 20;

/// What following the journal needs of those who know it.
pub struct LiveSource<'a> {
    /// The journal's sealed facts; an error for one that can not be read.
    pub facts: &'a dyn FactSource,
    /// Sees to it that everything written so far is sealed.
    pub seal: &'a dyn Fn() -> Result<(), StoreError>,
    /// True while the disk has room for more than the journal.
    pub has_room: &'a dyn Fn() -> bool,
    /// Ends it.
    pub stop: &'a Stop,
    /// How far it is.
    pub progress: &'a LiveProgress,
}

/// How far a comparison or rebuild is.
#[derive(Debug, Default)]
pub struct LiveProgress {
    /// Facts folded.
    pub folded: AtomicU64,
    /// Facts to be folded, as far as that is known.
    pub facts: AtomicU64,
}

impl Index {
    /// Compares every row with what the journal's facts give.
    ///
    /// # Errors
    /// Journal or store can not be read, the journal does not give all facts, or the daemon stops.
    pub fn check_live(&self, source: &LiveSource<'_>) -> Result<Differences, StoreError> {
        going_on(source)?;
        let beside = Beside::make(self.home.as_ref(), "check", COMPARE_CACHE_BYTES)?;
        let found = std::cell::RefCell::new(Doubts::default());
        let go_on = || going_on(source);
        let compare =
            |side: &dyn ViewStore| doubts(&*self.store, side, &go_on).map(|doubts| drop(found.replace(doubts)));
        let (_, held) = self.follow(&*beside.store, source, &compare, &mut |written| {
            written.into_iter().for_each(|key| found.borrow_mut().add(key));
        })?;
        let differences = settle(&*self.store, &*beside.store, found.take());
        drop(held);
        differences
    }

    /// Builds the view anew and takes it into use. Returns the number of facts.
    ///
    /// # Errors
    /// As [`Self::check_live`]; the view stays as it is.
    pub fn rebuild_live(&self, source: &LiveSource<'_>) -> Result<u64, StoreError> {
        going_on(source)?;
        let name = self.home.as_ref().map(|(dir, _)| {
            let last = list_generations(dir).last().map_or(0, |(number, _)| *number);
            format!("gen-{:08}", last + 1)
        });
        let cache = self.home.as_ref().map_or(0, |(_, options)| options.cache_bytes);
        let beside = Beside::make(self.home.as_ref(), &name.unwrap_or_default(), cache)?;
        let (state, held) = self.follow(&*beside.store, source, &|side| side.flush(), &mut drop)?;
        beside.store.flush()?;
        let folded = state.checkpoint.facts.records;
        let old = held.adopt(Arc::clone(&beside.store), state)?;
        if let (Some((dir, _)), Some(path)) = (&self.home, beside.keep()) {
            remove_when_unused(old, dir, &path, source.stop);
        }
        Ok(folded)
    }

    /// Folds the journal into a store until it holds exactly what the index holds, and has the owner rest. `while_running`
    /// is called when little is left, `written` with the rows written after that. The owner rests for few facts only: it
    /// folds none meanwhile.
    fn follow<'a>(
        &'a self,
        side: &dyn ViewStore,
        source: &LiveSource<'_>,
        while_running: &dyn Fn(&dyn ViewStore) -> Result<(), StoreError>,
        written: &mut dyn FnMut(Vec<Vec<u8>>),
    ) -> Result<(FoldState, Held<'a>), StoreError> {
        let mut state = FoldState::default();
        state.checkpoint.store = source.facts.store_id();
        for round in 0..ROUNDS_MAX {
            let (reached, _kept) = self.owner.keep_facts()?;
            source.progress.facts.store(reached.facts.records, Ordering::Relaxed);
            (source.seal)()?;
            let noting = Noting::new(side);
            let into: &dyn ViewStore = if round == 0 { side } else { &noting };
            fold_until(into, &mut state, reached.applied, source)?;
            written(noting.into_written());
            if state.checkpoint.facts != reached.facts {
                let (journal, index) = (state.checkpoint.facts.records, reached.facts.records);
                let problem = format!(
                    "the journal gives {journal} of the {index} facts that the index holds, or other ones: look in the log for a segment that could not be sealed, and run `tilecatcher verify`; the index stays as it is"
                );
                return Err(StoreError::Facts(problem));
            }
            if round == 0 {
                while_running(side)?;
            }
            let Some(mut held) = self.owner.rest()? else { continue };
            let noting = Noting::new(side);
            fold(&noting, &mut state, &held.take_facts())?;
            written(noting.into_written());
            if state.checkpoint.facts != held.reached().facts {
                return Err(StoreError::Facts("facts were lost on the way to the second store".to_owned()));
            }
            return Ok((state, held));
        }
        Err(StoreError::Store(
            "capture brings facts faster than they are folded: try again when it is slower".to_owned(),
        ))
    }
}

/// Folds what the journal holds up to `last`, behind what is folded already.
fn fold_until(
    side: &dyn ViewStore,
    state: &mut FoldState,
    last: Sequence,
    source: &LiveSource<'_>,
) -> Result<(), StoreError> {
    let is_due = |fact: &Result<Fact, StoreError>| fact.as_ref().map_or(true, |fact| fact.sequence <= last);
    let mut facts = source.facts.facts_after(state.checkpoint.applied).take_while(is_due).map(|fact| {
        going_on(source)?;
        source.progress.folded.fetch_add(1, Ordering::Relaxed);
        fact
    });
    fold_iterator(side, state, &mut facts).map(drop)
}

fn going_on(source: &LiveSource<'_>) -> Result<(), StoreError> {
    if source.stop.reason().is_some() {
        return Err(StoreError::Store("the daemon stops".to_owned()));
    }
    if !(source.has_room)() {
        return Err(StoreError::Store(
            "the disk has too little room: a second index lies beside the first one meanwhile; make room and try again"
                .to_owned(),
        ));
    }
    Ok(())
}

/// A second store; its files go when it is dropped, unless they are kept.
struct Beside {
    store: Arc<dyn ViewStore>,
    path: Option<PathBuf>,
}

impl Beside {
    fn make(home: Option<&(PathBuf, IndexOptions)>, name: &str, cache_bytes: u64) -> Result<Self, StoreError> {
        let Some((dir, _)) = home else { return Ok(Self { store: Arc::new(MemoryStore::default()), path: None }) };
        let path = dir.join(name);
        let failed = |error: io::Error| StoreError::Store(format!("{}: {error}", path.display()));
        // Rows that were left there would be taken for the journal's.
        remove_store(&path).map_err(failed)?;
        std::fs::write(mark_of(&path), []).map_err(failed)?;
        let store = Arc::new(SledStore::open(&path, cache_bytes)?);
        Ok(Self { store, path: Some(path) })
    }

    /// It is finished: the files stay.
    fn keep(mut self) -> Option<PathBuf> {
        let path = self.path.take()?;
        let _ = std::fs::remove_file(mark_of(&path));
        Some(path)
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        if let Some(path) = self.path.take() {
            self.store = Arc::new(MemoryStore::default());
            if std::fs::remove_dir_all(&path).is_ok() {
                let _ = std::fs::remove_file(mark_of(&path));
            }
        }
    }
}

/// Removes the files of a store that was replaced, when its last reader is done.
fn remove_when_unused(old: Arc<dyn ViewStore>, dir: &Path, keep: &Path, stop: &Stop) {
    let until = Instant::now() + READERS_MAX;
    while Arc::strong_count(&old) > 1 && Instant::now() < until {
        // A daemon that stops does not wait for it.
        if stop.wait_for(Duration::from_millis(10)).is_some() {
            return;
        }
    }
    let is_unused = Arc::strong_count(&old) == 1;
    drop(old);
    if is_unused {
        remove_others(&list_generations(dir), keep);
    }
}

#[cfg(test)]
mod tests {
    use super::super::OpenOutcome;
    use super::super::compare::RowProblem;
    use super::*;
    use crate::model::{
        AcqId, AcquisitionDeleted, ByteRange, Checksum, FactBody, FrameNumber, Location, Tally, TileEntry, TileId,
        TileKey, TileVersion,
    };
    use std::sync::atomic::AtomicU64;

    fn tile(n: u64) -> Fact {
        let key = TileKey { acq: AcqId(1), col: u32::try_from(n).expect("small"), row: 0, frame: FrameNumber::STABLE };
        let location = Location { segment: 1, offset: n * 4096, payload_len: 100 };
        let (sequence, version) = (Sequence(n), TileVersion::FIRST);
        let image = ByteRange { offset: 0, len: 10 };
        let entry = TileEntry {
            id: TileId(n),
            key,
            camera: 0,
            version,
            location,
            image,
            image_crc: 1,
            payload_crc: 2,
            checksum: Checksum::None,
            received_ns: 5,
            sequence,
        };
        let digest = Tally::digest_of(sequence, 2);
        Fact { sequence, at_ns: 5, digest, location, body: FactBody::TileStored(entry) }
    }

    struct Facts(Vec<Fact>);

    impl FactSource for Facts {
        fn store_id(&self) -> [u8; 16] {
            [7; 16]
        }

        fn tally_until(&self, last: Sequence) -> Result<Tally, StoreError> {
            let mut tally = Tally::default();
            self.0.iter().filter(|fact| fact.sequence <= last).for_each(|fact| tally.add(fact.digest));
            Ok(tally)
        }

        fn facts_after(&self, after: Sequence) -> Box<dyn Iterator<Item = Result<Fact, StoreError>> + '_> {
            Box::new(self.0.iter().filter(move |fact| fact.sequence > after).cloned().map(Ok))
        }
    }

    /// An index on the first 100 of the facts, which one more is published to whenever the journal is sealed.
    fn open(facts: &Facts) -> (Arc<Index>, Arc<AtomicU64>) {
        let sequence = Arc::new(AtomicU64::new(101));
        let safe = Arc::clone(&sequence);
        let safe = Box::new(move || Sequence(safe.load(Ordering::SeqCst)));
        let first = Facts(facts.0[..100].to_vec());
        let opened = Index::open_on(Arc::new(MemoryStore::default()), &first, safe, &IndexOptions::default());
        (Arc::new(opened.expect("memory").0), sequence)
    }

    #[test]
    fn a_wrong_row_is_found_and_mended_while_facts_come() {
        let facts = Facts((1..=200).map(tile).collect());
        let (index, sequence) = open(&facts);
        let (stop, progress) = (Stop::default(), LiveProgress::default());
        let seal = || {
            let next = sequence.load(Ordering::SeqCst);
            index.publish(vec![facts.0[usize::try_from(next).expect("small") - 1].clone()]);
            sequence.store(next + 1, Ordering::SeqCst);
            Ok(())
        };
        let source = LiveSource { facts: &facts, seal: &seal, has_room: &|| true, stop: &stop, progress: &progress };
        assert_eq!(index.check_live(&source).expect("compared"), Differences::default());
        let wrong = super::super::rows::pack_key(TileId(1));
        index.store().apply(vec![(wrong.clone(), None), (b"zz".to_vec(), Some(Vec::new()))]).expect("memory");
        assert_eq!(index.tile_by_id(TileId(1)).expect("memory"), None);
        let found = index.check_live(&source).expect("compared");
        assert_eq!(found.rows, 2);
        assert_eq!(
            found.named.iter().map(|(_, problem)| *problem).collect::<Vec<_>>(),
            [RowProblem::Missing, RowProblem::Extra]
        );
        assert!(index.rebuild_live(&source).expect("rebuilt") >= 100);
        assert!(index.tile_by_id(TileId(1)).expect("memory").is_some());
        assert_eq!(index.check_live(&source).expect("compared"), Differences::default());
        (1..sequence.load(Ordering::SeqCst)).for_each(|id| {
            assert!(index.tile_by_id(TileId(id)).expect("memory").is_some(), "tile {id}");
        });
    }

    #[test]
    fn a_disk_without_room_ends_it_and_what_was_not_finished_is_removed() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let facts = Facts((1..=100).map(tile).collect());
        let open = || {
            let safe = Box::new(|| Sequence(101));
            Index::open(dir.path(), &facts, safe, &IndexOptions::default()).expect("opens")
        };
        let (index, _) = open();
        let (stop, progress) = (Stop::default(), LiveProgress::default());
        let looks = AtomicU64::new(0);
        let has_room = || looks.fetch_add(1, Ordering::SeqCst) < 50;
        let source =
            LiveSource { facts: &facts, seal: &|| Ok(()), has_room: &has_room, stop: &stop, progress: &progress };
        let problem = index.rebuild_live(&source).expect_err("there is no room").to_string();
        assert!(problem.contains("room"), "{problem}");
        let names = || {
            let entries = std::fs::read_dir(dir.path()).expect("a directory");
            let mut names: Vec<_> = entries.map(|entry| entry.expect("an entry").file_name()).collect();
            names.sort();
            names
        };
        assert_eq!(names(), ["gen-00000001"]);
        assert!(index.tile_by_id(TileId(1)).expect("sled").is_some());
        drop(index);
        // Killed in the middle of a rebuild and of a check.
        for name in ["gen-00000002", "check"] {
            std::fs::create_dir(dir.path().join(name)).expect("made");
            std::fs::write(mark_of(&dir.path().join(name)), []).expect("made");
        }
        let (_index, report) = open();
        assert_eq!(report.outcome, OpenOutcome::CaughtUp);
        assert_eq!(names(), ["gen-00000001"]);
    }

    #[test]
    fn a_key_with_two_ids_is_no_reason_to_build_the_index_anew() {
        let mut facts = Facts((1..=4).map(tile).collect());
        let key = TileKey { acq: AcqId(1), col: 1, row: 0, frame: FrameNumber::STABLE };
        let FactBody::TileStored(again) = &mut facts.0[2].body else { panic!("a tile") };
        again.key = key;
        let store = Arc::new(MemoryStore::default());
        let open = |facts: &Facts| {
            let view = Arc::clone(&store) as Arc<dyn ViewStore>;
            Index::open_on(view, facts, Box::new(|| Sequence(9)), &IndexOptions::default()).expect("memory")
        };
        assert_eq!(open(&facts).1.outcome, OpenOutcome::Built);
        let (index, report) = open(&facts);
        assert_eq!(report.outcome, OpenOutcome::CaughtUp);
        let ids = |entry: Option<TileEntry>| entry.map(|entry| entry.id);
        assert_eq!(ids(index.tile_by_key(&key).expect("memory")), Some(TileId(3)));
        assert_eq!(ids(index.tile_by_id(TileId(1)).expect("memory")), Some(TileId(1)), "a client may hold it");
        drop(index);
        let body = FactBody::AcquisitionDeleted(AcquisitionDeleted { acq: AcqId(1), next_tile: 5 });
        facts.0.push(Fact { sequence: Sequence(5), at_ns: 5, digest: 9, location: Location::default(), body });
        for _ in 0..2 {
            let (index, report) = open(&facts);
            assert_eq!(report.outcome, OpenOutcome::CaughtUp);
            assert_eq!(ids(index.tile_by_id(TileId(1)).expect("memory")), None);
        }
    }

    #[test]
    fn a_journal_that_lacks_a_fact_replaces_nothing() {
        let facts = Facts((1..=100).map(tile).collect());
        let (index, _) = open(&facts);
        let short = Facts(facts.0[1..].to_vec());
        let (stop, progress) = (Stop::default(), LiveProgress::default());
        let source =
            LiveSource { facts: &short, seal: &|| Ok(()), has_room: &|| true, stop: &stop, progress: &progress };
        let problem = index.rebuild_live(&source).expect_err("a fact is missing").to_string();
        assert!(problem.contains("99 of the 100"), "{problem}");
        assert!(index.tile_by_id(TileId(1)).expect("memory").is_some());
    }
}
