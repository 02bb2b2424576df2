//! The overlay: recent facts in memory, visible before the store has them. Also all acquisitions, which are few.

use super::view::{AcquisitionView, View, apply};
use crate::model::{AcqId, Fact, FactBody, Sequence, TileEntry, TileId, TileKey};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Condvar, Mutex, PoisonError, RwLock};
use std::time::Duration;

/// Recent facts. Bounded: writers wait for room before they add.
pub(super) struct Overlay {
    live: RwLock<Live>,
    tiles_max: usize,
    /// Notified after every trim. The mutex guards nothing but the wait.
    trimmed: (Mutex<()>, Condvar),
}

#[derive(Default)]
struct Live {
    tiles: HashMap<TileKey, TileEntry>,
    keys: HashMap<TileId, TileKey>,
    acquisitions: BTreeMap<AcqId, AcquisitionView>,
}

impl View for Live {
    fn put_tile(&mut self, entry: &TileEntry) {
        self.keys.insert(entry.id, entry.key);
        self.tiles.insert(entry.key, *entry);
    }

    fn update_acquisition(&mut self, acq: AcqId, change: &mut dyn FnMut(&mut AcquisitionView)) {
        change(self.acquisitions.entry(acq).or_default());
    }
}

impl Overlay {
    pub(super) fn new(acquisitions: BTreeMap<AcqId, AcquisitionView>, tiles_max: usize) -> Self {
        let live = Live { acquisitions, ..Live::default() };
        Self { live: RwLock::new(live), tiles_max, trimmed: (Mutex::new(()), Condvar::new()) }
    }

    /// Applies facts; returns true when an acquisition was started.
    pub(super) fn publish(&self, facts: &[Fact]) -> bool {
        let mut live = self.write();
        for fact in facts {
            apply(fact, &mut *live);
        }
        facts.iter().any(|fact| matches!(fact.body, FactBody::AcquisitionStarted(_)))
    }

    /// Drops the tiles of facts that the store holds now.
    pub(super) fn trim(&self, folded: &[Fact]) {
        let mut live = self.write();
        for fact in folded {
            if let FactBody::TileStored(entry) = &fact.body {
                live.drop_tile(entry, fact.sequence);
            }
        }
        drop(live);
        let _guard = self.trimmed.0.lock().unwrap_or_else(PoisonError::into_inner);
        self.trimmed.1.notify_all();
    }

    pub(super) fn wait_for_room(&self, tiles: usize, limit: Duration) -> bool {
        let has_room = || self.read().tiles.len() + tiles <= self.tiles_max;
        if has_room() {
            return true;
        }
        let guard = self.trimmed.0.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.trimmed.1.wait_timeout_while(guard, limit, |()| !has_room());
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    pub(super) fn by_key(&self, key: &TileKey) -> Option<TileEntry> {
        self.read().tiles.get(key).copied()
    }

    pub(super) fn by_id(&self, id: TileId) -> Option<TileEntry> {
        let live = self.read();
        live.keys.get(&id).and_then(|key| live.tiles.get(key)).filter(|entry| entry.id == id).copied()
    }

    pub(super) fn acquisition(&self, acq: AcqId) -> Option<AcquisitionView> {
        self.read().acquisitions.get(&acq).cloned()
    }

    pub(super) fn acquisitions(&self) -> Vec<(AcqId, AcquisitionView)> {
        self.read().acquisitions.iter().map(|(acq, view)| (*acq, view.clone())).collect()
    }

    pub(super) fn is_started(&self, acq: AcqId) -> bool {
        self.read().acquisitions.get(&acq).is_some_and(|view| view.started.is_some())
    }

    /// Tiles held, and the most that may be held.
    pub(super) fn fill(&self) -> (usize, usize) {
        (self.read().tiles.len(), self.tiles_max)
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Live> {
        self.live.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, Live> {
        self.live.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Live {
    /// Keeps the tile when a later fact has changed it since.
    fn drop_tile(&mut self, entry: &TileEntry, sequence: Sequence) {
        if self.tiles.get(&entry.key).is_some_and(|held| held.sequence == sequence) {
            self.tiles.remove(&entry.key);
            self.keys.remove(&entry.id);
        }
    }
}
