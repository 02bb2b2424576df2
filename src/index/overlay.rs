//! The overlay: recent facts in memory, visible before the store has them. Also all acquisitions and boards, which are
//! small: readers of those never wait for the store.

use super::board::{Block, BlockKey, Board, StateId, StateNames};
use super::view::{AcquisitionView, Counters, Settings, View, apply};
use crate::model::{
    AcqId, Cell, Fact, FactBody, Judgement, RoiIndex, Sequence, TileEntry, TileId, TileKey, TileVersion,
};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Condvar, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

/// Recent facts. Bounded: writers wait for room before they add.
pub(super) struct Overlay {
    live: RwLock<Live>,
    tiles_max: usize,
    /// Notified after every trim. The mutex guards nothing but the wait.
    trimmed: (Mutex<()>, Condvar),
}

/// What the store holds of acquisitions, for filling the overlay at the start.
#[derive(Default)]
pub(super) struct Resident {
    pub(super) acquisitions: BTreeMap<AcqId, AcquisitionView>,
    pub(super) blocks: Vec<(AcqId, BlockKey, Block)>,
    pub(super) states: StateNames,
    pub(super) settings: Settings,
}

/// Everything that is in memory.
#[derive(Default)]
pub(super) struct Live {
    tiles: HashMap<TileKey, TileEntry>,
    keys: BTreeMap<TileId, TileKey>,
    /// Versions that were replaced before they were folded.
    replaced: HashMap<(TileId, TileVersion), TileEntry>,
    pub(super) acquisitions: BTreeMap<AcqId, AcquisitionView>,
    /// Memory that their heads take.
    pub(super) head_bytes: usize,
    pub(super) boards: HashMap<AcqId, Board>,
    pub(super) states: StateNames,
    pub(super) settings: Arc<Settings>,
    /// Acquisitions with ROI tiles that wait in a state, by the time that their log gives.
    pub(super) work: BTreeSet<(StateId, i64, AcqId)>,
    /// What `work` holds of an acquisition.
    listed: HashMap<AcqId, (i64, Vec<StateId>)>,
    /// ROI tiles that are lent, by when they return.
    pub(super) leases: BTreeSet<(i64, AcqId, BlockKey, RoiIndex, u8)>,
    /// What was found of tiles, or taken back, by facts that are not folded yet.
    judgements: HashMap<(AcqId, TileId), (Sequence, Option<Judgement>)>,
    /// The last facts that set states, until they are folded: see [`View::is_overtaken`].
    recent: HashMap<(AcqId, RoiIndex, Cell), Sequence>,
}

impl View for Live {
    fn put_tile(&mut self, entry: &TileEntry) {
        self.keys.insert(entry.id, entry.key);
        if let Some(before) = self.tiles.insert(entry.key, *entry) {
            self.replaced.insert((before.id, before.version), before);
        }
    }

    fn acquisition(&self, acq: AcqId) -> Option<&AcquisitionView> {
        self.acquisitions.get(&acq)
    }

    fn update_acquisition(&mut self, acq: AcqId, change: &mut dyn FnMut(&mut AcquisitionView)) {
        let before = self.acquisitions.get(&acq).map_or(0, |view| view.head.memory_bytes());
        let view = self.acquisitions.entry(acq).or_default();
        change(view);
        self.head_bytes = (self.head_bytes + view.head.memory_bytes()).saturating_sub(before);
        let head = Arc::clone(&view.head);
        self.boards.entry(acq).or_default().set_rois(&head.rois);
        self.list_work(acq);
    }

    fn update_counters(&mut self, acq: AcqId, change: &mut dyn FnMut(&mut Counters)) {
        change(&mut self.acquisitions.entry(acq).or_default().counters);
    }

    fn update_block(&mut self, acq: AcqId, key: BlockKey, change: &mut dyn FnMut(&mut Block)) {
        let board = self.boards.entry(acq).or_default();
        let before = board.block(&key).map(|block| block.leases.clone()).unwrap_or_default();
        board.update(key, change);
        let after = board.block(&key).map(|block| block.leases.clone()).unwrap_or_default();
        let has_states = board.block(&key).is_some_and(|block| !block.states.is_empty());
        if before != after {
            for lease in before {
                self.leases.remove(&(lease.until_ns, acq, key, lease.roi, lease.slot));
            }
            self.leases.extend(after.iter().map(|lease| (lease.until_ns, acq, key, lease.roi, lease.slot)));
        }
        if has_states {
            self.list_work(acq);
        }
    }

    fn block(&mut self, acq: AcqId, key: BlockKey) -> Option<Block> {
        self.boards.get(&acq)?.block(&key).cloned()
    }

    fn drift_blocks(&mut self, acq: AcqId) -> Vec<BlockKey> {
        let first = BlockKey { drift: true, ..BlockKey::FIRST };
        self.boards.get(&acq).map(|board| board.blocks_from(first).map(|(key, _)| *key).collect()).unwrap_or_default()
    }

    fn state_id(&mut self, name: &str) -> StateId {
        self.states.intern(name)
    }

    fn update_settings(&mut self, change: &mut dyn FnMut(&mut Settings)) {
        change(Arc::make_mut(&mut self.settings));
    }

    fn remove_tiles(&mut self, acq: AcqId, before: Sequence) {
        let held = self.tiles.values().chain(self.replaced.values());
        let mut of_acq: Vec<TileEntry> = held.filter(|entry| entry.key.acq == acq).copied().collect();
        of_acq.sort_unstable_by_key(|entry| entry.sequence);
        for entry in &of_acq {
            self.tiles.remove(&entry.key);
            self.keys.remove(&entry.id);
        }
        self.replaced.retain(|_, entry| entry.key.acq != acq);
        self.judgements.retain(|(of, _), _| *of != acq);
        if let Some(view) = self.acquisitions.get_mut(&acq) {
            view.counters = Counters::default();
        }
        self.leases.retain(|(_, lent, ..)| *lent != acq);
        self.boards.remove(&acq);
        self.list_work(acq);
        // A lane may have published tiles that are younger than the deletion before the deletion was published.
        for entry in of_acq.into_iter().filter(|entry| entry.sequence > before) {
            let body = FactBody::TileStored(entry);
            let at_ns = entry.received_ns;
            apply(&Fact { sequence: entry.sequence, at_ns, digest: 0, location: entry.location, body }, self);
        }
    }

    fn put_judgement(&mut self, acq: AcqId, id: TileId, sequence: Sequence, judgement: Option<Judgement>) {
        self.judgements.insert((acq, id), (sequence, judgement));
    }

    fn is_judged_behind(&mut self, acq: AcqId, id: TileId, sequence: Sequence) -> bool {
        self.judgements.get(&(acq, id)).is_some_and(|(last, _)| *last > sequence)
    }

    fn is_overtaken(&mut self, acq: AcqId, roi: RoiIndex, cell: Cell, sequence: Sequence) -> bool {
        let last = self.recent.entry((acq, roi, cell)).or_insert(sequence);
        if *last > sequence {
            return true;
        }
        *last = sequence;
        false
    }
}

impl Live {
    fn new(resident: Resident) -> Self {
        let mut live = Self {
            acquisitions: resident.acquisitions,
            states: resident.states,
            settings: Arc::new(resident.settings),
            ..Self::default()
        };
        live.head_bytes = live.acquisitions.values().map(|view| view.head.memory_bytes()).sum();
        let heads: Vec<(AcqId, Vec<crate::model::Roi>)> =
            live.acquisitions.iter().map(|(acq, view)| (*acq, view.head.rois.clone())).collect();
        for (acq, rois) in heads {
            live.boards.entry(acq).or_default().set_rois(&rois);
        }
        for (acq, key, block) in resident.blocks {
            live.leases.extend(block.leases.iter().map(|lease| (lease.until_ns, acq, key, lease.roi, lease.slot)));
            live.boards.entry(acq).or_default().update(key, &mut |empty| *empty = block.clone());
        }
        let all: Vec<AcqId> = live.boards.keys().copied().collect();
        all.into_iter().for_each(|acq| live.list_work(acq));
        live
    }

    /// Brings `work` in line with the acquisition's board and time.
    fn list_work(&mut self, acq: AcqId) {
        let time = self.acquisitions.get(&acq).map_or(i64::MIN, acquired_of);
        let mut states = self.listed.get_mut(&acq).map(|listed| std::mem::take(&mut listed.1)).unwrap_or_default();
        let before = self.listed.get(&acq).map_or(time, |listed| listed.0);
        let waiting = || self.boards.get(&acq).into_iter().flat_map(Board::states_with_work);
        if before != time || !waiting().eq(states.iter().copied()) {
            for state in &states {
                self.work.remove(&(*state, before, acq));
            }
            states.clear();
            states.extend(waiting());
            self.work.extend(states.iter().map(|state| (*state, time, acq)));
        }
        if states.is_empty() {
            self.listed.remove(&acq);
        } else {
            self.listed.insert(acq, (time, states));
        }
    }

    /// Keeps the tile when a later fact has changed it since.
    fn drop_tile(&mut self, entry: &TileEntry, sequence: Sequence) {
        if self.tiles.get(&entry.key).is_some_and(|held| held.sequence == sequence) {
            self.tiles.remove(&entry.key);
            self.keys.remove(&entry.id);
        }
        self.replaced.remove(&(entry.id, entry.version));
    }

    /// Versions that the store does not hold yet, each of them memory.
    fn held(&self) -> usize {
        self.tiles.len() + self.replaced.len()
    }

    pub(super) fn version(&self, id: TileId, version: TileVersion) -> Option<TileEntry> {
        let replaced = self.replaced.get(&(id, version)).copied();
        replaced.or_else(|| self.by_id(id).filter(|entry| entry.version == version))
    }

    /// True for what the store still holds of a deleted acquisition.
    pub(super) fn is_deleted(&self, entry: &TileEntry) -> bool {
        self.acquisitions.get(&entry.key.acq).is_some_and(|view| entry.sequence < view.head.deleted_before)
    }

    /// Tiles of an acquisition behind `after`, by id.
    pub(super) fn tiles_behind(&self, acq: AcqId, after: TileId) -> impl Iterator<Item = TileEntry> {
        let behind = self.keys.range((std::ops::Bound::Excluded(after), std::ops::Bound::Unbounded));
        behind.filter(move |(_, key)| key.acq == acq).filter_map(|(_, key)| self.tiles.get(key).copied())
    }

    pub(super) fn by_id(&self, id: TileId) -> Option<TileEntry> {
        self.keys.get(&id).and_then(|key| self.tiles.get(key)).filter(|entry| entry.id == id).copied()
    }

    /// What the facts that are not folded yet say of a tile's quality; `None`: nothing.
    pub(super) fn judgement(&self, acq: AcqId, id: TileId) -> Option<Option<Judgement>> {
        self.judgements.get(&(acq, id)).map(|(_, judgement)| *judgement)
    }

    pub(super) fn by_key(&self, key: &TileKey) -> Option<TileEntry> {
        self.tiles.get(key).copied()
    }
}

/// When an acquisition was made, as its log says, seconds since 1970 UTC; the smallest number when it does not.
pub(super) fn acquired_of(view: &AcquisitionView) -> i64 {
    view.head.started.as_ref().and_then(|started| started.facts.acquired_unix_s).unwrap_or(i64::MIN)
}

impl Overlay {
    pub(super) fn new(resident: Resident, tiles_max: usize) -> Self {
        Self { live: RwLock::new(Live::new(resident)), tiles_max, trimmed: (Mutex::new(()), Condvar::new()) }
    }

    /// Applies facts; returns true when an acquisition was started or deleted.
    pub(super) fn publish(&self, facts: &[Fact]) -> bool {
        let mut live = self.write();
        for fact in facts {
            apply(fact, &mut *live);
        }
        facts.iter().any(|fact| matches!(fact.body, FactBody::AcquisitionStarted(_) | FactBody::AcquisitionDeleted(_)))
    }

    /// Drops what the store holds now of these facts.
    pub(super) fn trim(&self, folded: &[Fact]) {
        let mut live = self.write();
        let mut last = Sequence(0);
        for fact in folded {
            if let FactBody::TileStored(entry) = &fact.body {
                live.drop_tile(entry, fact.sequence);
            }
            last = last.max(fact.sequence);
        }
        if !live.judgements.is_empty() {
            live.judgements.retain(|_, (sequence, _)| *sequence > last);
        }
        if !live.recent.is_empty() {
            live.recent.retain(|_, sequence| *sequence > last);
        }
        drop(live);
        let _guard = self.trimmed.0.lock().unwrap_or_else(PoisonError::into_inner);
        self.trimmed.1.notify_all();
    }

    /// Replaced versions take room too: senders who change a few keys again and again fill it.
    pub(super) fn wait_for_room(&self, tiles: usize, limit: Duration) -> bool {
        let has_room = || self.read().held() + tiles <= self.tiles_max;
        if has_room() {
            return true;
        }
        let guard = self.trimmed.0.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.trimmed.1.wait_timeout_while(guard, limit, |()| !has_room());
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    /// Versions of tiles held, and the most that may be held.
    pub(super) fn fill(&self) -> (usize, usize) {
        (self.read().held(), self.tiles_max)
    }

    pub(super) fn read(&self) -> RwLockReadGuard<'_, Live> {
        self.live.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Live> {
        self.live.write().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{ByteRange, Checksum, FrameNumber, Location};

    /// The `n`th version of one tile.
    fn version(n: u32) -> Fact {
        let key = TileKey { acq: AcqId(1), col: 0, row: 0, frame: FrameNumber::STABLE };
        let sequence = Sequence(u64::from(n) + 1);
        let location = Location { segment: 1, offset: sequence.0 * 4096, payload_len: 100 };
        let entry = TileEntry {
            id: TileId(1),
            key,
            camera: 0,
            version: TileVersion(n),
            location,
            image: ByteRange { offset: 0, len: 10 },
            image_crc: 1,
            payload_crc: 2,
            checksum: Checksum::None,
            received_ns: 5,
            sequence,
        };
        Fact { sequence, at_ns: 5, digest: 0, location, body: FactBody::TileStored(entry) }
    }

    #[test]
    fn replaced_versions_of_one_key_fill_the_overlay_until_they_are_folded() {
        let overlay = Overlay::new(Resident::default(), 4);
        let facts: Vec<Fact> = (0..4).map(version).collect();
        overlay.publish(&facts[..3]);
        assert!(overlay.wait_for_room(1, Duration::ZERO));
        overlay.publish(&facts[3..]);
        assert_eq!(overlay.fill(), (4, 4));
        assert!(!overlay.wait_for_room(1, Duration::ZERO), "memory grows with each version");
        overlay.trim(&facts[..2]);
        assert_eq!(overlay.fill(), (2, 4));
        assert!(overlay.wait_for_room(2, Duration::ZERO));
    }
}
