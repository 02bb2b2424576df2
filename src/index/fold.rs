//! Folds a run of facts, in order, into rows: reads each row that changes once, writes it once.

use super::board::{Block, BlockKey, StateId, StateNames};
use super::board_rows as board;
use super::rows::{self, Judgements, KeyBlock, Pack};
use super::store::{Row, StoreError, ViewStore};
use super::view::{AcquisitionView, Counters, Settings, View, apply};
use crate::model::{
    AcqId, Cell, Fact, FactBody, Judgement, Location, RoiIndex, Sequence, Tally, TileEntry, TileId, TileKey,
    TileVersion,
};
use serde::{Deserialize, Serialize};
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

/// Facts folded with one write to the store.
const FOLD_STEP: usize = 16_384;

/// How far the store has come: written together with the rows, so that it never says more than they hold.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Checkpoint {
    /// The data directory that the facts are from.
    pub store: [u8; 16],
    /// The last fact that was folded in.
    pub applied: Sequence,
    /// All facts folded in.
    pub facts: Tally,
    /// The tile facts among them, current and replaced versions, without those deleted.
    pub tiles: Tally,
    /// Tile ids under whose key a later record has another id: each key names one of them. Two ids of one key are nothing
    /// that a lane makes, but what a segment that was lost and put back does.
    #[serde(default)]
    pub superseded: Tally,
    /// All rows but tiles, their keys and versions, and this one.
    pub others: Tally,
    /// Layout of the rows: another one means that they are built anew.
    pub layout: u32,
    /// Records that could not be read when they were folded in, the first ones: once one can be, what it says is missing.
    #[serde(default)]
    pub unread: Vec<Location>,
}

/// Records that a checkpoint names as unread.
const UNREAD_MAX: usize = 1000;

/// Layout of the rows that this program writes.
pub const LAYOUT: u32 = 6;

/// What the owner keeps in memory beside the store.
#[derive(Clone, Debug, Default)]
pub struct FoldState {
    pub checkpoint: Checkpoint,
    pub acquisitions: BTreeMap<AcqId, AcquisitionView>,
    pub states: StateNames,
    pub settings: Settings,
}

/// A view of the store with the changes of one run of facts, not yet written.
pub struct BatchView<'a> {
    store: &'a dyn ViewStore,
    state: &'a mut FoldState,
    packs: BTreeMap<Vec<u8>, Pack>,
    keys: BTreeMap<Vec<u8>, KeyBlock>,
    orders: BTreeMap<Vec<u8>, u64>,
    boards: BTreeMap<Vec<u8>, Block>,
    judgements: BTreeMap<Vec<u8>, Judgements>,
    replaced: Vec<TileEntry>,
    removed: Vec<Vec<u8>>,
    heads: BTreeSet<AcqId>,
    counters: BTreeSet<AcqId>,
    states_changed: bool,
    settings_changed: bool,
    error: Option<StoreError>,
}

impl View for BatchView<'_> {
    fn put_tile(&mut self, entry: &TileEntry) {
        if let Err(error) = self.try_put_tile(entry) {
            self.error.get_or_insert(error);
        }
    }

    fn acquisition(&self, acq: AcqId) -> Option<&AcquisitionView> {
        self.state.acquisitions.get(&acq)
    }

    fn update_acquisition(&mut self, acq: AcqId, change: &mut dyn FnMut(&mut AcquisitionView)) {
        change(self.state.acquisitions.entry(acq).or_default());
        self.heads.insert(acq);
    }

    fn update_counters(&mut self, acq: AcqId, change: &mut dyn FnMut(&mut Counters)) {
        change(&mut self.state.acquisitions.entry(acq).or_default().counters);
        self.counters.insert(acq);
    }

    fn update_block(&mut self, acq: AcqId, key: BlockKey, change: &mut dyn FnMut(&mut Block)) {
        match load(self.store, &mut self.boards, board::board_key(acq, &key), board::decode_block_row) {
            Ok(block) => change(block),
            Err(error) => drop(self.error.get_or_insert(error)),
        }
    }

    fn block(&mut self, acq: AcqId, key: BlockKey) -> Option<Block> {
        let row = board::board_key(acq, &key);
        if let Some(block) = self.boards.get(&row) {
            return Some(block.clone());
        }
        let read = self.store.get(&row).and_then(|value| match value {
            Some(value) => board::decode_block_row(&row, &value).map(Some),
            None => Ok(None),
        });
        read.unwrap_or_else(|error| {
            self.error.get_or_insert(error);
            None
        })
    }

    fn drift_blocks(&mut self, acq: AcqId) -> Vec<BlockKey> {
        let mut found = BTreeSet::new();
        let prefix = board::family_of(b'r', acq);
        let mut note = |key: &[u8]| {
            found.extend(board::block_of_key(key).filter(|(_, block)| block.drift).map(|(_, block)| block));
        };
        self.boards.keys().filter(|key| key.starts_with(&prefix)).for_each(|key| note(key));
        let scanned = self.store.scan(&prefix, &mut |key, _| {
            note(key);
            true
        });
        if let Err(error) = scanned {
            self.error.get_or_insert(error);
        }
        found.into_iter().collect()
    }

    fn state_id(&mut self, name: &str) -> StateId {
        self.states_changed |= self.state.states.find(name).is_none();
        self.state.states.intern(name)
    }

    fn update_settings(&mut self, change: &mut dyn FnMut(&mut Settings)) {
        change(&mut self.state.settings);
        self.settings_changed = true;
    }

    /// Facts behind and before a deletion are never in one batch with it: there are no changes to look through.
    fn remove_tiles(&mut self, acq: AcqId, _before: Sequence) {
        debug_assert!(self.packs.is_empty() && self.boards.is_empty());
        if let Err(error) = self.try_remove_tiles(acq) {
            self.error.get_or_insert(error);
        }
        self.state.acquisitions.entry(acq).or_default().counters = Counters::default();
        self.counters.insert(acq);
    }

    fn put_judgement(&mut self, acq: AcqId, id: TileId, _: Sequence, judgement: Option<Judgement>) {
        let key = board::judgement_key(acq, id);
        match load(self.store, &mut self.judgements, key, rows::decode_judgements) {
            Ok(row) => match judgement {
                Some(judgement) => drop(row.put(rows::pack_slot(id), judgement)),
                None => drop(row.take(rows::pack_slot(id))),
            },
            Err(error) => drop(self.error.get_or_insert(error)),
        }
    }

    /// Facts come in order here.
    fn is_judged_behind(&mut self, _: AcqId, _: TileId, _: Sequence) -> bool {
        false
    }

    /// Facts come in order here.
    fn is_overtaken(&mut self, _: AcqId, _: RoiIndex, _: Cell, _: Sequence) -> bool {
        false
    }
}

impl<'a> BatchView<'a> {
    fn new(store: &'a dyn ViewStore, state: &'a mut FoldState) -> Self {
        Self {
            store,
            state,
            packs: BTreeMap::new(),
            keys: BTreeMap::new(),
            orders: BTreeMap::new(),
            boards: BTreeMap::new(),
            judgements: BTreeMap::new(),
            replaced: Vec::new(),
            removed: Vec::new(),
            heads: BTreeSet::new(),
            counters: BTreeSet::new(),
            states_changed: false,
            settings_changed: false,
            error: None,
        }
    }

    fn try_put_tile(&mut self, entry: &TileEntry) -> Result<(), StoreError> {
        self.state.checkpoint.tiles.add(digest_of(entry));
        let pack = load(self.store, &mut self.packs, rows::pack_key(entry.id), rows::decode_pack)?;
        let before = pack.put(rows::pack_slot(entry.id), *entry);
        self.replaced.extend(before);
        let keys = load(self.store, &mut self.keys, rows::block_key(&entry.key), rows::decode_block)?;
        if let Some(other) = keys.put(rows::block_slot(&entry.key), entry.id).filter(|other| *other != entry.id) {
            self.state.checkpoint.superseded.add(id_digest(&entry.key, other));
            if before.is_some() {
                self.state.checkpoint.superseded.remove(id_digest(&entry.key, entry.id));
            }
        }
        let order = board::order_key(entry.key.acq, entry.id);
        *load(self.store, &mut self.orders, order, board::decode_order)? |= 1 << rows::pack_slot(entry.id);
        Ok(())
    }

    /// Takes an acquisition's tiles out of the rows that they share with others, and removes the rows that they don't.
    fn try_remove_tiles(&mut self, acq: AcqId) -> Result<(), StoreError> {
        let mut orders: Vec<(Vec<u8>, u64)> = Vec::new();
        let mut failure = None;
        self.store.scan(&board::family_of(b'o', acq), &mut |key, value| {
            match board::decode_order(key, value) {
                Ok(bits) => orders.push((key.to_vec(), bits)),
                Err(error) => failure = Some(error),
            }
            failure.is_none()
        })?;
        failure.map_or(Ok(()), Err)?;
        for (key, bits) in orders {
            let first = board::first_id_of_order_key(&key).ok_or_else(|| StoreError::Damaged(rows::row_name(&key)))?;
            let pack = load(self.store, &mut self.packs, rows::pack_key(TileId(first)), rows::decode_pack)?;
            for slot in super::board::slots(bits) {
                if let Some(entry) = pack.take(u32::from(slot)) {
                    self.state.checkpoint.tiles.remove(digest_of(&entry));
                    if self.state.checkpoint.superseded.records > 0
                        && rows::read_tile_id(self.store, &entry.key)? != Some(entry.id)
                    {
                        self.state.checkpoint.superseded.remove(id_digest(&entry.key, entry.id));
                    }
                    for version in TileVersion::FIRST.0..entry.version.0 {
                        let key = rows::version_key(entry.id, TileVersion(version));
                        if let Some(value) = self.store.get(&key)? {
                            self.state.checkpoint.tiles.remove(digest_of(&rows::decode_version(&key, &value)?));
                            self.removed.push(key);
                        }
                    }
                }
            }
            self.removed.push(key);
        }
        for family in [b'k', b'r', b'q'] {
            self.store.scan(&board::family_of(family, acq), &mut |key, _| {
                self.removed.push(key.to_vec());
                true
            })?;
        }
        Ok(())
    }

    fn into_rows(self) -> Result<Vec<Row>, StoreError> {
        if let Some(error) = self.error {
            return Err(error);
        }
        let state = self.state;
        // Rows whose sum the checkpoint keeps: the old value goes out of it, the new one comes in.
        let mut others: Vec<Row> = Vec::new();
        for acq in &self.heads {
            others.push((rows::acquisition_key(*acq), Some(rows::seal(json(&*state.acquisitions[acq].head)))));
        }
        for acq in &self.counters {
            let counters = &state.acquisitions[acq].counters;
            let value = (*counters != Counters::default()).then(|| rows::seal(json(counters)));
            others.push((rows::counters_key(*acq), value));
        }
        others.extend(self.orders.iter().map(|(key, bits)| (key.clone(), Some(board::encode_order(*bits)))));
        others.extend(self.boards.iter().map(|(key, block)| (key.clone(), Some(board::encode_block_row(block)))));
        others.extend(self.judgements.iter().map(|(key, row)| {
            let value = row.iter().next().map(|_| rows::encode_judgements(row));
            (key.clone(), value)
        }));
        if self.states_changed {
            let names: Vec<&str> = state.states.all().collect();
            others.push((board::STATE_NAMES.to_vec(), Some(rows::seal(json(&names)))));
        }
        if self.settings_changed {
            others.push((board::SETTINGS.to_vec(), Some(rows::seal(json(&state.settings)))));
        }
        let (summed, plain): (Vec<_>, Vec<_>) = self.removed.into_iter().partition(|key| is_summed(key));
        others.extend(summed.into_iter().map(|key| (key, None)));
        for (key, value) in &others {
            if let Some(before) = self.store.get(key)? {
                state.checkpoint.others.remove(row_digest(key, &before));
            }
            if let Some(value) = value {
                state.checkpoint.others.add(row_digest(key, value));
            }
        }
        let mut out = others;
        out.extend(plain.into_iter().map(|key| (key, None)));
        out.extend(self.keys.iter().map(|(key, block)| (key.clone(), Some(rows::encode_block(block)))));
        out.push((rows::CHECKPOINT.to_vec(), Some(rows::seal(json(&state.checkpoint)))));
        out.extend(
            self.packs
                .iter()
                .map(|(key, pack)| (key.clone(), (pack.iter().next().is_some()).then(|| rows::encode_pack(pack)))),
        );
        let replaced = self.replaced.iter();
        out.extend(
            replaced.map(|entry| (rows::version_key(entry.id, entry.version), Some(rows::encode_version(entry)))),
        );
        out.sort();
        Ok(out)
    }
}

/// The rows that [`Checkpoint::others`] sums.
pub(super) fn is_summed(key: &[u8]) -> bool {
    key.first().is_some_and(|family| b"acoqrgs".contains(family))
}

/// What a row adds to [`Checkpoint::others`].
pub(super) fn row_digest(key: &[u8], value: &[u8]) -> u64 {
    let (key, value) = (crc32fast::hash(key), crc32fast::hash(value));
    Tally::digest_of(Sequence((u64::from(key) << 32) | u64::from(value)), value)
}

/// What an id adds to the sums over ids and over keys.
pub(super) fn id_digest(key: &TileKey, id: TileId) -> u64 {
    key.spread() ^ id.0
}

pub(super) fn digest_of(entry: &TileEntry) -> u64 {
    Tally::digest_of(entry.sequence, entry.payload_crc)
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

/// Folds facts, which must be in order and behind the checkpoint, and writes them with one batch; a deletion with one
/// of its own, for it goes through what is stored.
pub(super) fn fold(store: &dyn ViewStore, state: &mut FoldState, facts: &[Fact]) -> Result<(), StoreError> {
    let is_deletion = |fact: &Fact| matches!(fact.body, FactBody::AcquisitionDeleted(_));
    let runs = facts.chunk_by(|one, next| !is_deletion(one) && !is_deletion(next));
    if facts.is_empty() {
        return fold_run(store, state, facts);
    }
    runs.into_iter().try_for_each(|run| fold_run(store, state, run))
}

fn fold_run(store: &dyn ViewStore, state: &mut FoldState, facts: &[Fact]) -> Result<(), StoreError> {
    state.checkpoint.layout = LAYOUT;
    for fact in facts {
        debug_assert!(fact.sequence > state.checkpoint.applied, "facts are folded in order, each once");
        state.checkpoint.applied = fact.sequence;
        state.checkpoint.facts.add(fact.digest);
        if matches!(fact.body, FactBody::Unread) && state.checkpoint.unread.len() < UNREAD_MAX {
            state.checkpoint.unread.push(fact.location);
        }
    }
    let mut view = BatchView::new(store, state);
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
