//! Opening the index: under a deadline, checked against the journal, caught up or rebuilt.
//!
//! Opening sled may fail, panic or hang on damaged files, and may succeed with rows missing. Each leads to a new
//! generation that is folded from the journal, never to a failed start.

use super::board::StateNames;
use super::board_rows as board;
use super::fold::{Checkpoint, FoldState, LAYOUT, digest_of, fold_iterator, id_digest, is_summed, row_digest};
use super::overlay::Resident;
use super::rows;
use super::sled_store::SledStore;
use super::store::{StoreError, ViewStore};
use crate::base::planted::{Bug, planted};
use crate::model::{Fact, Location, NumbersGiven, Sequence, Tally, TileEntry};
use serde::de::DeserializeOwned;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Ending of the mark's name.
const UNFINISHED: &str = "unfinished";

/// Where facts come from: the journal, seen from here.
pub trait FactSource {
    /// The data directory's identity.
    fn store_id(&self) -> [u8; 16];

    /// Count and digest of the facts up to `last`.
    ///
    /// # Errors
    /// The journal can not be read.
    fn tally_until(&self, last: Sequence) -> Result<Tally, StoreError>;

    /// As [`Self::tally_until`], record by record: what sums over whole segments count may not be found any more.
    ///
    /// # Errors
    /// The journal can not be read.
    fn recount_until(&self, last: Sequence) -> Result<Tally, StoreError> {
        self.tally_until(last)
    }

    /// Whether the record at a place can be read.
    fn can_read(&self, _: Location) -> bool {
        false
    }

    /// The facts behind `after`, in order.
    fn facts_after(&self, after: Sequence) -> Box<dyn Iterator<Item = Result<Fact, StoreError>> + '_>;

    /// Facts are lost: sees to it, for good, that nothing of what was given with them is given again. Called before the
    /// only index that knows of it goes.
    ///
    /// # Errors
    /// It could not be made durable.
    fn keep_given(&self, _: &NumbersGiven) -> Result<(), StoreError> {
        Ok(())
    }
}

/// How the index is kept.
#[derive(Clone, Copy, Debug)]
pub struct IndexOptions {
    /// sled's cache, bytes.
    pub cache_bytes: u64,
    /// Most tiles in the overlay; each version of one counts.
    pub overlay_tiles_max: usize,
    /// Time for opening and checking the store; one more second for each GB of its files.
    pub open_limit: Duration,
}

impl Default for IndexOptions {
    fn default() -> Self {
        Self { cache_bytes: 256 << 20, overlay_tiles_max: 65_536, open_limit: Duration::from_secs(10) }
    }
}

/// How the store was brought up to date.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OpenOutcome {
    /// It held; facts behind its checkpoint were folded in.
    CaughtUp,
    /// There was none.
    Built,
    /// It did not hold, and was built anew. The reason.
    Rebuilt(String),
}

/// What opening the index came to.
#[derive(Clone, Debug)]
pub struct OpenReport {
    /// How.
    pub outcome: OpenOutcome,
    /// Facts folded in.
    pub folded: u64,
    /// Records that the index had folded in and the journal does not hold any more.
    pub lost: u64,
    /// Time taken.
    pub took: Duration,
}

/// A store that is up to date, and how it became so.
pub(super) type Ready = (Arc<dyn ViewStore>, FoldState, OpenReport);

type Opened = (Arc<dyn ViewStore>, FoldState);

pub(super) fn open(dir: &Path, source: &dyn FactSource, options: &IndexOptions) -> Result<Ready, StoreError> {
    let began = Instant::now();
    std::fs::create_dir_all(dir).map_err(|error| StoreError::Store(format!("{}: {error}", dir.display())))?;
    remove_unfinished(dir);
    let generations = list_generations(dir);
    let report = |outcome, folded, lost| OpenReport { outcome, folded, lost, took: began.elapsed() };
    let doubt = match generations.last() {
        Some((_, path)) => match open_checked(path, options).and_then(|opened| catch_up(opened, source)) {
            Ok((store, state, folded)) => {
                remove_others(&generations, path);
                return Ok((store, state, report(OpenOutcome::CaughtUp, folded, 0)));
            }
            Err(doubt) => Some(doubt),
        },
        None => None,
    };
    let lost = match &doubt {
        Some(StoreError::Lost { records, given }) => {
            keep_given(*records, given, source)?;
            *records
        }
        Some(doubt) => {
            tracing::warn!(reason = %doubt, "the index does not agree with the journal: rebuilding it, nothing is lost");
            0
        }
        None => 0,
    };
    let number = generations.last().map_or(1, |(number, _)| number + 1);
    let path = dir.join(format!("gen-{number:08}"));
    let store: Arc<dyn ViewStore> = Arc::new(SledStore::open(&path, options.cache_bytes)?);
    let (state, folded) = fold_anew(&*store, source)?;
    remove_others(&generations, &path);
    Ok((
        store,
        state,
        report(doubt.map_or(OpenOutcome::Built, |doubt| OpenOutcome::Rebuilt(doubt.to_string())), folded, lost),
    ))
}

/// Says that records are lost, and sees to it that what was given with them is not given again.
fn keep_given(records: u64, given: &NumbersGiven, source: &dyn FactSource) -> Result<(), StoreError> {
    tracing::error!(
        records,
        "stored records are gone from the journal: they are damaged, or a segment file is missing or was cut; put it back before anything else is stored. The index is rebuilt from what is there"
    );
    source.keep_given(given)
}

/// Before the index in `dir` is removed by hand: if it knows of records that are lost, nobody else does.
///
/// # Errors
/// What it knows could not be kept.
pub fn keep_what_is_known(dir: &Path, source: &dyn FactSource, options: &IndexOptions) -> Result<(), StoreError> {
    let Some((_, path)) = list_generations(dir).pop() else { return Ok(()) };
    let compared = open_checked(&path, options).and_then(|(store, state)| agrees(&*store, &state, source));
    match compared {
        Err(StoreError::Lost { records, given }) => keep_given(records, &given, source),
        _ => Ok(()),
    }
}

/// As [`open`], on a store that is at hand: its rows are checked and caught up, or all replaced.
pub(super) fn open_on(store: Arc<dyn ViewStore>, source: &dyn FactSource) -> Result<Ready, StoreError> {
    let began = Instant::now();
    let report = |outcome, folded| OpenReport { outcome, folded, lost: 0, took: began.elapsed() };
    let doubt = match check_rows(&*store).and_then(|state| catch_up((Arc::clone(&store), state), source)) {
        Ok((store, state, folded)) => return Ok((store, state, report(OpenOutcome::CaughtUp, folded))),
        Err(doubt) => doubt.to_string(),
    };
    let mut rows = Vec::new();
    store.scan(&[], &mut |key, _| {
        rows.push((key.to_vec(), None));
        true
    })?;
    let outcome = if rows.is_empty() { OpenOutcome::Built } else { OpenOutcome::Rebuilt(doubt) };
    store.apply(rows)?;
    let (state, folded) = fold_anew(&*store, source)?;
    Ok((store, state, report(outcome, folded)))
}

/// Folds all facts into a store without rows.
fn fold_anew(store: &dyn ViewStore, source: &dyn FactSource) -> Result<(FoldState, u64), StoreError> {
    let mut state = FoldState::default();
    state.checkpoint.store = source.store_id();
    let folded = fold_iterator(store, &mut state, &mut source.facts_after(Sequence(0)))?;
    store.flush()?;
    Ok((state, folded))
}

/// The generations below `dir`, oldest first. One that is half built has no checkpoint and fails the check.
pub(super) fn list_generations(dir: &Path) -> Vec<(u64, PathBuf)> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let mut generations: Vec<(u64, PathBuf)> = entries
        .filter_map(|entry| {
            let number = entry.file_name().to_str()?.strip_prefix("gen-")?.parse().ok()?;
            Some((number, entry.path()))
        })
        .collect();
    generations.sort();
    generations
}

/// Stands beside a store as long as that is not finished.
pub(super) fn mark_of(store: &Path) -> PathBuf {
    store.with_extension(UNFINISHED)
}

/// Removes stores that were being built, or compared with, when the process was killed: the one in use is beside them.
fn remove_unfinished(dir: &Path) {
    let marks = std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    for mark in marks.filter(|path| path.extension().is_some_and(|extension| extension == UNFINISHED)) {
        if let Err(error) = remove_store(&mark.with_extension("")).and_then(|()| std::fs::remove_file(&mark)) {
            tracing::warn!(path = %mark.display(), %error, "could not remove an unfinished index");
        }
    }
}

/// Removes the files of a store, if there are any.
pub(super) fn remove_store(path: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Removes all generations but one, for good: one that came back after a power cut, in place of the one that was kept, could
/// agree with the journal in number and content of the facts, and not in their times and places.
pub(super) fn remove_others(generations: &[(u64, PathBuf)], keep: &Path) {
    let others = || generations.iter().filter(|(_, path)| path != keep);
    for (_, path) in others() {
        if let Err(error) = std::fs::remove_dir_all(path) {
            tracing::warn!(path = %path.display(), %error, "could not remove an old generation of the index");
        }
    }
    let Some(dir) = keep.parent().filter(|_| others().next().is_some()) else { return };
    if let Err(error) = File::open(dir).and_then(|dir| dir.sync_all()) {
        tracing::warn!(path = %dir.display(), %error, "old generations of the index may come back after a power cut");
    }
}

/// Opens and reads the whole store on a thread of its own, which is left behind if it does not come back in time.
fn open_checked(path: &Path, options: &IndexOptions) -> Result<Opened, StoreError> {
    let limit = options.open_limit + Duration::from_secs(size_of_files(path) >> 30);
    let (answer, answered) = crossbeam_channel::bounded(1);
    let (path, cache_bytes) = (path.to_owned(), options.cache_bytes);
    std::thread::Builder::new()
        .name("index-open".into())
        .spawn(move || {
            let opened = SledStore::open(&path, cache_bytes).and_then(|store| {
                let state = check_rows(&store)?;
                Ok((Arc::new(store) as Arc<dyn ViewStore>, state))
            });
            let _ = answer.send(opened);
        })
        .map_err(|error| StoreError::Store(format!("can not start a thread: {error}")))?;
    match answered.recv_timeout(limit) {
        Ok(opened) => opened,
        Err(crossbeam_channel::RecvTimeoutError::Timeout) => {
            Err(StoreError::Store(format!("opening it took longer than {limit:?}")))
        }
        Err(crossbeam_channel::RecvTimeoutError::Disconnected) => {
            Err(StoreError::Store("opening it panicked".to_owned()))
        }
    }
}

fn size_of_files(dir: &Path) -> u64 {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.metadata().ok()).map(|metadata| metadata.len()).sum()
}

/// Compares the checkpoint with the journal; folds in what came after it.
fn catch_up(
    (store, mut state): Opened,
    source: &dyn FactSource,
) -> Result<(Arc<dyn ViewStore>, FoldState, u64), StoreError> {
    agrees(&*store, &state, source)?;
    let after = state.checkpoint.applied;
    let mut facts = source.facts_after(after).peekable();
    let folded = if facts.peek().is_some() { fold_iterator(&*store, &mut state, &mut facts)? } else { 0 };
    drop(facts);
    Ok((store, state, folded))
}

/// Whether a store is a fold of what the journal has up to the store's checkpoint.
fn agrees(store: &dyn ViewStore, state: &FoldState, source: &dyn FactSource) -> Result<(), StoreError> {
    let Checkpoint { applied, facts, unread, .. } = &state.checkpoint;
    if state.checkpoint.store != source.store_id() {
        return Err(StoreError::Store("it belongs to another data directory".to_owned()));
    }
    if planted(Bug::IndexAsTruth) {
        return Ok(());
    }
    let mut there = source.tally_until(*applied)?;
    if there != *facts {
        there = source.recount_until(*applied)?;
    }
    if there.records < facts.records {
        let records = facts.records - there.records;
        return Err(StoreError::Lost { records, given: given_until(store, state)? });
    }
    if there != *facts {
        return Err(StoreError::Store("its checkpoint and the journal count different facts".to_owned()));
    }
    if unread.iter().any(|location| source.can_read(*location)) {
        return Err(StoreError::Store("a record can be read that could not be when it was built".to_owned()));
    }
    Ok(())
}

/// The highest numbers that a store knows of.
fn given_until(store: &dyn ViewStore, state: &FoldState) -> Result<NumbersGiven, StoreError> {
    let (sequence, next_tile) = (state.checkpoint.applied, state.settings.tile_floor);
    let mut given = NumbersGiven { sequence, next_tile, segment: 0 };
    each_row(store, b"t", |key, value| {
        for (_, entry) in rows::decode_pack(key, value)?.iter() {
            given.next_tile = given.next_tile.max(entry.id.0 + 1);
            given.segment = given.segment.max(entry.location.segment);
        }
        Ok(())
    })?;
    Ok(given)
}

/// How far a store has come.
///
/// # Errors
/// The store can not be read, or has no checkpoint.
pub fn read_checkpoint(store: &dyn ViewStore) -> Result<Checkpoint, StoreError> {
    let missing = || StoreError::Store("it has no checkpoint".to_owned());
    json(rows::CHECKPOINT, &store.get(rows::CHECKPOINT)?.ok_or_else(missing)?)
}

/// Reads every row, checks its CRC, and compares the sums over all rows with the checkpoint.
pub(super) fn check_rows(store: &dyn ViewStore) -> Result<FoldState, StoreError> {
    let mut state = FoldState { checkpoint: read_checkpoint(store)?, ..FoldState::default() };
    if state.checkpoint.layout != LAYOUT {
        return Err(StoreError::Store("its rows have the layout of another version".to_owned()));
    }
    let mut sums = Sums::default();
    each_row(store, b"t", |key, value| {
        rows::decode_pack(key, value)?.iter().for_each(|(_, entry)| sums.tile(&entry));
        Ok(())
    })?;
    each_row(store, b"v", |key, value| {
        sums.versions.add(digest_of(&rows::decode_version(key, value)?));
        Ok(())
    })?;
    each_row(store, b"k", |key, value| {
        for (slot, id) in rows::decode_block(key, value)?.iter() {
            let tile_key = rows::key_of_slot(key, slot).ok_or_else(|| StoreError::Damaged(rows::row_name(key)))?;
            sums.keys.add(id_digest(&tile_key, id));
        }
        Ok(())
    })?;
    each_row(store, b"a", |key, value| {
        let acq = rows::acq_of_key(key).ok_or_else(|| StoreError::Damaged(rows::row_name(key)))?;
        state.acquisitions.entry(acq).or_default().head = Arc::new(json(key, value)?);
        Ok(())
    })?;
    each_row(store, b"c", |key, value| {
        let acq = rows::acq_of_key(key).ok_or_else(|| StoreError::Damaged(rows::row_name(key)))?;
        state.acquisitions.entry(acq).or_default().counters = json(key, value)?;
        Ok(())
    })?;
    if let Some(names) = store.get(board::STATE_NAMES)? {
        let names: Vec<String> = json(board::STATE_NAMES, &names)?;
        state.states = StateNames::default();
        for name in &names {
            state.states.intern(name);
        }
    }
    if let Some(settings) = store.get(board::SETTINGS)? {
        state.settings = json(board::SETTINGS, &settings)?;
    }
    for family in b"acoqrgs" {
        each_row(store, &[*family], |key, value| {
            debug_assert!(is_summed(key));
            sums.others.add(row_digest(key, value));
            Ok(())
        })?;
    }
    sums.agree_with(&state.checkpoint)?;
    Ok(state)
}

#[derive(Default)]
struct Sums {
    versions: Tally,
    ids: Tally,
    keys: Tally,
    others: Tally,
}

impl Sums {
    fn tile(&mut self, entry: &TileEntry) {
        self.versions.add(digest_of(entry));
        self.ids.add(id_digest(&entry.key, entry.id));
    }

    fn agree_with(&self, checkpoint: &Checkpoint) -> Result<(), StoreError> {
        if self.versions != checkpoint.tiles {
            return Err(StoreError::Store("tile rows are missing or too many".to_owned()));
        }
        let mut named = self.keys;
        named.merge(checkpoint.superseded);
        if self.ids != named {
            return Err(StoreError::Store("tile keys and tile rows do not agree".to_owned()));
        }
        if self.others != checkpoint.others {
            return Err(StoreError::Store("rows of acquisitions are missing, too many or old".to_owned()));
        }
        Ok(())
    }
}

/// What is kept in memory of a store that was checked.
pub(super) fn resident(store: &dyn ViewStore, state: &FoldState) -> Result<Resident, StoreError> {
    let mut blocks = Vec::new();
    each_row(store, b"r", |key, value| {
        let (acq, block) = board::block_of_key(key).ok_or_else(|| StoreError::Damaged(rows::row_name(key)))?;
        blocks.push((acq, block, board::decode_block_row(key, value)?));
        Ok(())
    })?;
    Ok(Resident {
        acquisitions: state.acquisitions.clone(),
        blocks,
        states: state.states.clone(),
        settings: state.settings.clone(),
    })
}

fn each_row(
    store: &dyn ViewStore,
    prefix: &[u8],
    mut each: impl FnMut(&[u8], &[u8]) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let mut failure = None;
    store.scan(prefix, &mut |key, value| {
        failure = each(key, value).err();
        failure.is_none()
    })?;
    failure.map_or(Ok(()), Err)
}

fn json<T: DeserializeOwned>(key: &[u8], value: &[u8]) -> Result<T, StoreError> {
    serde_json::from_slice(rows::unseal(key, value)?).map_err(|_| StoreError::Damaged(rows::row_name(key)))
}
