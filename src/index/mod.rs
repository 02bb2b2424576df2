//! The index: a view of the journal's facts that answers queries. index = fold(journal), invariant 2.
//!
//! A small in-memory overlay holds the most recent facts and is read first; one owner thread folds them, in the
//! journal's order, into packed rows of a [`ViewStore`] (sled in the daemon). The store never gates an ack and
//! never justifies one: it is checked against the journal at every start, caught up, or rebuilt on any doubt.
//!
//! Owns the rows and the overlay. Must never be asked whether something is durable.

mod fold;
mod open;
mod overlay;
mod owner;
mod rows;
mod sled_store;
mod store;
mod view;

pub use fold::{BatchView, Checkpoint, fold_all};
pub use open::{FactSource, IndexOptions, OpenOutcome, OpenReport, read_checkpoint};
pub use rows::{count_tiles, read_tile, read_tile_id, row_name};
pub use sled_store::SledStore;
pub use store::{MemoryStore, Row, StoreError, ViewStore};
pub use view::{AcquisitionView, Counters, StartedView, View, apply};

use crate::model::{AcqId, Fact, Sequence, TileEntry, TileId, TileKey};
use overlay::Overlay;
use owner::Owner;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The index of one data directory.
pub struct Index {
    overlay: Arc<Overlay>,
    store: Arc<dyn ViewStore>,
    owner: Owner,
    /// Grows whenever an acquisition is started: lets a reader keep what it looked up before.
    acquisitions_changed: AtomicU64,
}

/// How far the store is behind, for metrics and pressure.
#[derive(Clone, Copy, Debug, Default)]
pub struct IndexLag {
    /// Tiles that are in the overlay and not yet in the store.
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
        let (store, state, report) = open::open(dir, source, options)?;
        let overlay = Arc::new(Overlay::new(state.acquisitions.clone(), options.overlay_tiles_max));
        let owner = Owner::start(Arc::clone(&store), Arc::clone(&overlay), state, safe_sequence)?;
        Ok((Self { overlay, store, owner, acquisitions_changed: AtomicU64::new(1) }, report))
    }

    /// Makes facts visible to readers, then hands them to the owner. One lock for the whole batch.
    pub fn publish(&self, facts: Vec<Fact>) {
        if facts.is_empty() {
            return;
        }
        if self.overlay.publish(&facts) {
            self.acquisitions_changed.fetch_add(1, Ordering::Release);
        }
        self.owner.take(facts);
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
        if let Some(entry) = self.overlay.by_key(key) {
            return Ok(Some(entry));
        }
        match read_tile_id(&*self.store, key)? {
            Some(id) => read_tile(&*self.store, id),
            None => Ok(None),
        }
    }

    /// The current version of a tile.
    ///
    /// # Errors
    /// The store can not be read.
    pub fn tile_by_id(&self, id: TileId) -> Result<Option<TileEntry>, StoreError> {
        match self.overlay.by_id(id) {
            Some(entry) => Ok(Some(entry)),
            None => read_tile(&*self.store, id),
        }
    }

    /// An acquisition, if it was started or has tiles.
    #[must_use]
    pub fn acquisition(&self, acq: AcqId) -> Option<AcquisitionView> {
        self.overlay.acquisition(acq)
    }

    /// All acquisitions, by identifier.
    #[must_use]
    pub fn acquisitions(&self) -> Vec<(AcqId, AcquisitionView)> {
        self.overlay.acquisitions()
    }

    /// True when the acquisition was started.
    #[must_use]
    pub fn is_started(&self, acq: AcqId) -> bool {
        self.overlay.is_started(acq)
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
