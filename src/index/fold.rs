//! Folds a run of facts, in order, into rows: reads each row that changes once, writes it once.

use super::rows::{self, KeyBlock, Pack};
use super::store::{Row, StoreError, ViewStore};
use super::view::{AcquisitionView, View, apply};
use crate::model::{AcqId, Fact, FactBody, Sequence, Tally, TileEntry};
use serde::{Deserialize, Serialize};
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

/// Facts folded with one write to the store.
const FOLD_STEP: usize = 16_384;

/// How far the store has come: written together with the rows, so that it never says more than they hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Checkpoint {
    /// The data directory that the facts are from.
    pub store: [u8; 16],
    /// The last fact that was folded in.
    pub applied: Sequence,
    /// All facts folded in.
    pub facts: Tally,
    /// The tile facts among them, current and replaced versions.
    pub tiles: Tally,
}

/// What the owner keeps in memory beside the store.
#[derive(Clone, Debug, Default)]
pub struct FoldState {
    pub checkpoint: Checkpoint,
    pub acquisitions: BTreeMap<AcqId, AcquisitionView>,
}

/// A view of the store with the changes of one run of facts, not yet written.
pub struct BatchView<'a> {
    store: &'a dyn ViewStore,
    state: &'a mut FoldState,
    packs: BTreeMap<Vec<u8>, Pack>,
    blocks: BTreeMap<Vec<u8>, KeyBlock>,
    replaced: Vec<TileEntry>,
    changed: BTreeSet<AcqId>,
    error: Option<StoreError>,
}

impl View for BatchView<'_> {
    fn put_tile(&mut self, entry: &TileEntry) {
        if let Err(error) = self.try_put_tile(entry) {
            self.error.get_or_insert(error);
        }
    }

    fn update_acquisition(&mut self, acq: AcqId, change: &mut dyn FnMut(&mut AcquisitionView)) {
        change(self.state.acquisitions.entry(acq).or_default());
        self.changed.insert(acq);
    }
}

impl BatchView<'_> {
    fn try_put_tile(&mut self, entry: &TileEntry) -> Result<(), StoreError> {
        let pack = load(self.store, &mut self.packs, rows::pack_key(entry.id), rows::decode_pack)?;
        let before = pack.put(rows::pack_slot(entry.id), *entry);
        self.replaced.extend(before);
        let block = load(self.store, &mut self.blocks, rows::block_key(&entry.key), rows::decode_block)?;
        block.put(rows::block_slot(&entry.key), entry.id);
        Ok(())
    }

    fn into_rows(self) -> Result<Vec<Row>, StoreError> {
        if let Some(error) = self.error {
            return Err(error);
        }
        let mut out: Vec<Row> = Vec::with_capacity(self.packs.len() + self.blocks.len() + self.changed.len() * 2 + 1);
        for acq in &self.changed {
            let view = &self.state.acquisitions[acq];
            if let Some(started) = &view.started {
                out.push((rows::acquisition_key(*acq), Some(rows::seal(json(started)))));
            }
            out.push((rows::counters_key(*acq), Some(rows::seal(json(&view.counters)))));
        }
        out.extend(self.blocks.iter().map(|(key, block)| (key.clone(), Some(rows::encode_block(block)))));
        out.push((rows::CHECKPOINT.to_vec(), Some(rows::seal(json(&self.state.checkpoint)))));
        out.extend(self.packs.iter().map(|(key, pack)| (key.clone(), Some(rows::encode_pack(pack)))));
        let replaced = self.replaced.iter();
        out.extend(
            replaced.map(|entry| (rows::version_key(entry.id, entry.version), Some(rows::encode_version(entry)))),
        );
        out.sort();
        Ok(out)
    }
}

/// The row's value, from the changes so far, else from the store, else empty.
fn load<'m, T: Default>(
    store: &dyn ViewStore,
    changes: &'m mut BTreeMap<Vec<u8>, T>,
    key: Vec<u8>,
    decode: fn(&[u8], &[u8]) -> Result<T, StoreError>,
) -> Result<&'m mut T, StoreError> {
    match changes.entry(key) {
        Entry::Occupied(there) => Ok(there.into_mut()),
        Entry::Vacant(free) => {
            let stored = match store.get(free.key())? {
                Some(value) => decode(free.key(), &value)?,
                None => T::default(),
            };
            Ok(free.insert(stored))
        }
    }
}

/// Folds facts, which must be in order and behind the checkpoint, and writes them with one batch.
pub(super) fn fold(store: &dyn ViewStore, state: &mut FoldState, facts: &[Fact]) -> Result<(), StoreError> {
    for fact in facts {
        debug_assert!(fact.sequence > state.checkpoint.applied, "facts are folded in order, each once");
        state.checkpoint.applied = fact.sequence;
        state.checkpoint.facts.add(fact.digest);
        if matches!(fact.body, FactBody::TileStored(_)) {
            state.checkpoint.tiles.add(fact.digest);
        }
    }
    let mut view = BatchView {
        store,
        state,
        packs: BTreeMap::new(),
        blocks: BTreeMap::new(),
        replaced: Vec::new(),
        changed: BTreeSet::new(),
        error: None,
    };
    for fact in facts {
        apply(fact, &mut view);
    }
    store.apply(view.into_rows()?)
}

/// Folds any number of facts in steps; returns how many.
///
/// # Errors
/// The facts can not be read, the store not written.
pub fn fold_all(
    store: &dyn ViewStore,
    state_store_id: [u8; 16],
    facts: &mut dyn Iterator<Item = Result<Fact, StoreError>>,
) -> Result<u64, StoreError> {
    let mut state = FoldState::default();
    state.checkpoint.store = state_store_id;
    fold_iterator(store, &mut state, facts)
}

pub(super) fn fold_iterator(
    store: &dyn ViewStore,
    state: &mut FoldState,
    facts: &mut dyn Iterator<Item = Result<Fact, StoreError>>,
) -> Result<u64, StoreError> {
    let mut folded = 0;
    loop {
        let step = facts.take(FOLD_STEP).collect::<Result<Vec<Fact>, StoreError>>()?;
        // The last, empty step writes the checkpoint of an empty journal too: without it the store counts as doubtful.
        fold(store, state, &step)?;
        folded += step.len() as u64;
        if step.len() < FOLD_STEP {
            return Ok(folded);
        }
    }
}

fn json<T: Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).expect("views are plain data: every one has a JSON form")
}
