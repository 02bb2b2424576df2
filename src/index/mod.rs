//! The index: a view of the journal's facts that answers queries. index = fold(journal), invariant 2.
//!
//! A small in-memory overlay holds the most recent facts and is read first; one owner thread folds them, in the
//! journal's order, into packed rows of a [`ViewStore`] (sled in the daemon). The store never gates an ack and
//! never justifies one: it is checked against the journal at every start, caught up, or rebuilt on any doubt.
//!
//! Owns the rows and the overlay. Must never be asked whether something is durable.

mod board;
mod board_rows;
mod compare;
mod current;
mod distribution;
mod fold;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod live;
mod open;
#[cfg(test)]
mod order;
mod overlay;
mod owner;
mod rows;
mod sled_store;
mod store;
mod view;

pub use board::{Block, BlockKey, Board, StateCounts, StateId, StateNames, slots};
pub use compare::{Differences, RowProblem};
pub use distribution::{PickFilter, Picked};
pub use fold::{BatchView, Checkpoint, fold_all};
pub use live::{LiveProgress, LiveSource};
pub use open::{FactSource, IndexOptions, OpenOutcome, OpenReport, keep_what_is_known, read_checkpoint};
pub use rows::{count_tiles, read_tile, read_tile_id, row_name};
pub use sled_store::SledStore;
pub use store::{MemoryStore, Row, StoreError, ViewStore};
pub use view::{
    AcquisitionHead, AcquisitionView, CalibrationEntry, Counters, FileEntry, ManifestView, Settings, StartedView, View,
    apply, parity,
};

use crate::model::{AcqId, Cell, Fact, Judgement, Roi, RoiIndex, Sequence, TileEntry, TileId, TileKey, TileVersion};
use current::Current;
use overlay::Overlay;
use owner::Owner;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

/// The index of one data directory.
pub struct Index {
    overlay: Arc<Overlay>,
    store: Arc<dyn ViewStore>,
    owner: Owner,
    /// Where the store's files are; without, it is in memory.
    home: Option<(PathBuf, IndexOptions)>,
    /// Grows whenever an acquisition is started: lets a reader keep what it looked up before.
    acquisitions_changed: AtomicU64,
    listeners: RwLock<Vec<Listener>>,
}

/// Hears of facts that have become visible.
type Listener = Box<dyn Fn(&[Fact]) + Send + Sync>;

/// How far the store is behind, for metrics and pressure.
#[derive(Clone, Copy, Debug, Default)]
pub struct IndexLag {
    /// Tiles, each version of one, that are in the overlay and not yet in the store.
    pub tiles: usize,
    /// The overlay's limit.
    pub tiles_max: usize,
    /// True after the store failed: nothing more is folded until a restart rebuilds it.
    pub store_failed: bool,
}

impl Index {
    /// Opens the index below `dir`, checks it against `source`, catches it up or rebuilds it.
    ///
    /// # Errors
    /// The journal can not be read, or not even a new store can be made.
    pub fn open(
        dir: &Path,
        source: &dyn FactSource,
        safe_sequence: Box<dyn Fn() -> Sequence + Send>,
        options: &IndexOptions,
    ) -> Result<(Self, OpenReport), StoreError> {
        let (mut index, report) = Self::with(open::open(dir, source, options)?, safe_sequence, options)?;
        index.home = Some((dir.to_owned(), *options));
        Ok((index, report))
    }

    /// As [`Self::open`], on a store that is at hand instead of sled's files.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_on(
        store: Arc<dyn ViewStore>,
        source: &dyn FactSource,
        safe_sequence: Box<dyn Fn() -> Sequence + Send>,
        options: &IndexOptions,
    ) -> Result<(Self, OpenReport), StoreError> {
        Self::with(open::open_on(store, source)?, safe_sequence, options)
    }

    fn with(
        (store, state, report): open::Ready,
        safe_sequence: Box<dyn Fn() -> Sequence + Send>,
        options: &IndexOptions,
    ) -> Result<(Self, OpenReport), StoreError> {
        let resident = open::resident(&*store, &state)?;
        let overlay = Arc::new(Overlay::new(resident, options.overlay_tiles_max));
        let current = Arc::new(Current::new(store));
        let store = Arc::clone(&current) as Arc<dyn ViewStore>;
        let owner = Owner::start(current, Arc::clone(&overlay), state, safe_sequence)?;
        let (acquisitions_changed, listeners) = (AtomicU64::new(1), RwLock::default());
        Ok((Self { overlay, store, owner, home: None, acquisitions_changed, listeners }, report))
    }

    /// Makes facts visible to readers, then hands them to the owner. One lock for the whole batch.
    pub fn publish(&self, facts: Vec<Fact>) {
        if facts.is_empty() {
            return;
        }
        if self.overlay.publish(&facts) {
            self.acquisitions_changed.fetch_add(1, Ordering::Release);
        }
        self.listeners.read().unwrap_or_else(PoisonError::into_inner).iter().for_each(|listener| listener(&facts));
        self.owner.take(facts);
    }

    /// Tells `listener` of every batch of facts once it is visible, on the thread that published it: it must be
    /// short, and never wait.
    pub fn on_publish(&self, listener: impl Fn(&[Fact]) + Send + Sync + 'static) {
        self.listeners.write().unwrap_or_else(PoisonError::into_inner).push(Box::new(listener));
    }

    /// Waits until the overlay has room for `tiles` more. False: the store is stuck and `limit` is over.
    #[must_use]
    pub fn wait_for_room(&self, tiles: usize, limit: Duration) -> bool {
        self.overlay.wait_for_room(tiles, limit)
    }

    /// The current version of the tile under a key.
    ///
    /// # Errors
    /// The store can not be read.
    pub fn tile_by_key(&self, key: &TileKey) -> Result<Option<TileEntry>, StoreError> {
        if let Some(entry) = self.overlay.read().by_key(key) {
            return Ok(Some(entry));
        }
        let stored = match read_tile_id(&*self.store, key)? {
            Some(id) => read_tile(&*self.store, id)?,
            None => None,
        };
        Ok(stored.filter(|entry| !self.overlay.read().is_deleted(entry)))
    }

    /// The current version of a tile.
    ///
    /// # Errors
    /// The store can not be read.
    pub fn tile_by_id(&self, id: TileId) -> Result<Option<TileEntry>, StoreError> {
        if let Some(entry) = self.overlay.read().by_id(id) {
            return Ok(Some(entry));
        }
        Ok(read_tile(&*self.store, id)?.filter(|entry| !self.overlay.read().is_deleted(entry)))
    }

    /// A version of a tile, current or replaced.
    ///
    /// # Errors
    /// The store can not be read.
    pub fn tile_version(&self, id: TileId, version: TileVersion) -> Result<Option<TileEntry>, StoreError> {
        if let Some(entry) = self.overlay.read().version(id, version) {
            return Ok(Some(entry));
        }
        let key = rows::version_key(id, version);
        let stored = match self.store.get(&key)? {
            Some(value) => Some(rows::decode_version(&key, &value)?),
            None => read_tile(&*self.store, id)?.filter(|entry| entry.version == version),
        };
        Ok(stored.filter(|entry| !self.overlay.read().is_deleted(entry)))
    }

    /// The first `limit` tiles of an acquisition behind `after`, current versions, by id: in the order in which they
    /// were first stored.
    ///
    /// # Errors
    /// The store can not be read.
    pub fn tiles_of(&self, acq: AcqId, after: TileId, limit: usize) -> Result<Vec<TileEntry>, StoreError> {
        let mut found: BTreeMap<TileId, TileEntry> =
            self.overlay.read().tiles_behind(acq, after).take(limit).map(|entry| (entry.id, entry)).collect();
        let from = board_rows::order_key(acq, after);
        let (mut stored, mut failure) = (0, None);
        self.store.scan_from(&board_rows::family_of(b'o', acq), &from, &mut |key, value| {
            let pack = tiles_in_pack(&*self.store, key, value);
            match pack {
                Ok(entries) => {
                    for entry in entries.into_iter().filter(|entry| entry.id > after) {
                        stored += 1;
                        found.entry(entry.id).or_insert(entry);
                    }
                }
                Err(error) => failure = Some(error),
            }
            failure.is_none() && stored < limit
        })?;
        failure.map_or(Ok(()), Err)?;
        let live = self.overlay.read();
        Ok(found.into_values().filter(|entry| !live.is_deleted(entry)).take(limit).collect())
    }

    /// An acquisition, if it was started or has tiles.
    #[must_use]
    pub fn acquisition(&self, acq: AcqId) -> Option<AcquisitionView> {
        self.overlay.read().acquisitions.get(&acq).filter(|view| is_there(view)).cloned()
    }

    /// All acquisitions, by identifier.
    #[must_use]
    pub fn acquisitions(&self) -> Vec<(AcqId, AcquisitionView)> {
        let live = self.overlay.read();
        live.acquisitions.iter().filter(|(_, view)| is_there(view)).map(|(acq, view)| (*acq, view.clone())).collect()
    }

    /// Looks at each acquisition, by identifier. Keeps writers waiting: must be short.
    pub fn each_acquisition(&self, look: &mut dyn FnMut(AcqId, &AcquisitionView)) {
        let live = self.overlay.read();
        live.acquisitions.iter().filter(|(_, view)| is_there(view)).for_each(|(acq, view)| look(*acq, view));
    }

    /// Started acquisitions by how much they matter now: at most `open` of those that are open, the one with the latest
    /// tile first, then at most `ended` others, the one that was ended last first.
    #[must_use]
    pub fn present_acquisitions(&self, open: usize, ended: usize) -> Vec<(AcqId, AcquisitionView)> {
        let live = self.overlay.read();
        let mut times: Vec<(Option<i64>, i64, AcqId)> = Vec::new();
        for (acq, view) in &live.acquisitions {
            if let Some(started) = &view.head.started {
                times.push((started.ended_ns, view.counters.last_received_ns.max(started.first_started_ns), *acq));
            }
        }
        times.sort_unstable_by_key(|(ended_ns, last_ns, _)| std::cmp::Reverse((*ended_ns, *last_ns)));
        let of = |is_open: bool| times.iter().filter(move |(ended_ns, ..)| ended_ns.is_none() == is_open);
        let chosen = of(true).take(open).chain(of(false).take(ended)).map(|(.., acq)| *acq);
        chosen.filter_map(|acq| Some((acq, live.acquisitions.get(&acq)?.clone()))).collect()
    }

    /// True when the acquisition was started.
    #[must_use]
    pub fn is_started(&self, acq: AcqId) -> bool {
        self.overlay.read().acquisitions.get(&acq).is_some_and(|view| view.head.started.is_some())
    }

    /// Calibrations, TEMCAs.
    #[must_use]
    pub fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.overlay.read().settings)
    }

    /// Looks at an acquisition's board, with the names of states. Keeps writers waiting: must be short.
    pub fn with_board<T>(&self, acq: AcqId, look: impl FnOnce(&Board, &StateNames) -> T) -> T {
        let live = self.overlay.read();
        match live.boards.get(&acq) {
            Some(board) => look(board, &live.states),
            None => look(&Board::default(), &live.states),
        }
    }

    /// Memory that logs, ROIs and files of all acquisitions take, about.
    #[must_use]
    pub fn head_bytes(&self) -> usize {
        self.overlay.read().head_bytes
    }

    /// Blocks of all boards: what is kept in memory of places.
    #[must_use]
    pub fn blocks(&self) -> usize {
        self.overlay.read().boards.values().map(Board::len).sum()
    }

    /// The ROIs of each tile, by section, and its state in each.
    #[must_use]
    pub fn memberships(&self, keys: &[TileKey]) -> Vec<Vec<Membership>> {
        let live = self.overlay.read();
        keys.iter().map(|key| live.memberships(key)).collect()
    }

    /// What was found of the current versions of tiles of one acquisition, in their order.
    ///
    /// # Errors
    /// The store can not be read.
    pub fn judgements(&self, tiles: &[TileEntry]) -> Result<Vec<Option<Judgement>>, StoreError> {
        let mut held: Option<(Vec<u8>, rows::Judgements)> = None;
        let mut found = Vec::with_capacity(tiles.len());
        for tile in tiles {
            let live = self.overlay.read().judgement(tile.key.acq, tile.id);
            let judgement = match live {
                Some(judgement) => judgement,
                None => {
                    let key = board_rows::judgement_key(tile.key.acq, tile.id);
                    if held.as_ref().is_none_or(|(row, _)| *row != key) {
                        let row =
                            self.store.get(&key)?.map(|value| rows::decode_judgements(&key, &value)).transpose()?;
                        held = Some((key, row.unwrap_or_default()));
                    }
                    held.as_ref().and_then(|(_, row)| row.get(rows::pack_slot(tile.id)))
                }
            };
            found.push(judgement.filter(|judgement| judgement.version == tile.version));
        }
        Ok(found)
    }

    /// The number of a state that was ever used.
    #[must_use]
    pub fn find_state(&self, name: &str) -> Option<StateId> {
        self.overlay.read().states.find(name)
    }

    /// Number of different states that were ever used.
    #[must_use]
    pub fn states_used(&self) -> usize {
        self.overlay.read().states.all().count()
    }

    /// A number that changes when [`Self::is_started`] may answer differently.
    #[must_use]
    pub fn acquisitions_generation(&self) -> u64 {
        self.acquisitions_changed.load(Ordering::Acquire)
    }

    /// How far the store is behind.
    #[must_use]
    pub fn lag(&self) -> IndexLag {
        let (tiles, tiles_max) = self.overlay.fill();
        IndexLag { tiles, tiles_max, store_failed: self.owner.has_failed() }
    }

    /// The store, for comparing a live index with a rebuilt one.
    #[must_use]
    pub fn store(&self) -> &Arc<dyn ViewStore> {
        &self.store
    }

    /// Folds what is left, flushes, and ends the owner's thread. Nothing may be published after it.
    pub fn close(&self) {
        self.owner.stop();
    }
}

/// A tile's place in one ROI.
#[derive(Clone, Debug, PartialEq)]
pub struct Membership {
    /// The ROI's index.
    pub index: RoiIndex,
    /// The ROI.
    pub roi: Roi,
    /// The tile's state in it.
    pub state: Arc<str>,
}

impl overlay::Live {
    fn memberships(&self, key: &TileKey) -> Vec<Membership> {
        let (Some(board), Some(view)) = (self.boards.get(&key.acq), self.acquisitions.get(&key.acq)) else {
            return Vec::new();
        };
        let found = board.memberships(Cell(key.col, key.row, key.frame)).into_iter().filter_map(|(index, state)| {
            let roi = view.head.roi(index)?.clone();
            Some(Membership { index, roi, state: self.states.name(state) })
        });
        let mut found: Vec<Membership> = found.collect();
        found.sort_by_key(|membership| (membership.roi.section, membership.index));
        found
    }
}

/// What is left of a deleted acquisition is not there.
fn is_there(view: &AcquisitionView) -> bool {
    let head = &view.head;
    head.started.is_some() || !head.rois.is_empty() || view.counters != Counters::default()
}

fn tiles_in_pack(store: &dyn ViewStore, key: &[u8], value: &[u8]) -> Result<Vec<TileEntry>, StoreError> {
    let bits = board_rows::decode_order(key, value)?;
    let first = board_rows::first_id_of_order_key(key).ok_or_else(|| StoreError::Damaged(row_name(key)))?;
    let pack_key = rows::pack_key(TileId(first));
    let Some(pack) = store.get(&pack_key)? else { return Ok(Vec::new()) };
    let pack = rows::decode_pack(&pack_key, &pack)?;
    Ok(pack.iter().filter(|(slot, _)| bits >> slot & 1 == 1).map(|(_, entry)| entry).collect())
}
