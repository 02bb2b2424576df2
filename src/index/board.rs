//! Boards: which places of an acquisition have content, and in which state its ROI tiles are.
//!
//! 64 neighbouring places share a [`Block`] of bitmaps, about 200 bytes, so that all boards can stay in memory:
//! distribution, completeness and the states in listings never read the store. The same blocks are rows of the store.
//! Must never decide what a fact means: that is `apply`'s.

use crate::model::{Cell, FrameNumber, QualityFlag, QualityFlags, Roi, RoiIndex, TileKey};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// Number of a state's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StateId(pub u16);

impl StateId {
    /// [`crate::model::STATE_CREATE`].
    pub const CREATE: StateId = StateId(0);
    /// [`crate::model::STATE_READY`].
    pub const READY: StateId = StateId(1);
}

/// Names of states, numbered in the order in which facts first used them.
#[derive(Clone, Debug)]
pub struct StateNames {
    names: Vec<Arc<str>>,
    ids: HashMap<Arc<str>, StateId>,
}

impl Default for StateNames {
    fn default() -> Self {
        let mut names = Self { names: Vec::new(), ids: HashMap::new() };
        names.intern(crate::model::STATE_CREATE);
        names.intern(crate::model::STATE_READY);
        names
    }
}

impl StateNames {
    /// Most names.
    pub const MAX: usize = 65_535;

    /// The number of a name, which is added if it is new. Behind [`Self::MAX`] all new names are the last one.
    pub fn intern(&mut self, name: &str) -> StateId {
        if let Some(id) = self.ids.get(name) {
            return *id;
        }
        let id = StateId(u16::try_from(self.names.len().min(Self::MAX)).expect("cut to u16"));
        if self.names.len() <= Self::MAX {
            let name: Arc<str> = name.into();
            self.names.push(Arc::clone(&name));
            self.ids.insert(name, id);
        }
        id
    }

    /// The number of a name that some fact has used.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<StateId> {
        self.ids.get(name).copied()
    }

    /// The name of a number.
    #[must_use]
    pub fn name(&self, id: StateId) -> Arc<str> {
        self.names.get(usize::from(id.0)).cloned().unwrap_or_else(|| "?".into())
    }

    /// All names, in order.
    pub fn all(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(|name| &**name)
    }
}

/// Which 64 places a block holds: rows of one column for stable tiles, frames of one place for drift frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BlockKey {
    /// True for drift frames.
    pub drift: bool,
    /// Column.
    pub col: u32,
    /// Row / 64 for stable tiles, the row for drift frames.
    pub row: u32,
    /// 0 for stable tiles, frame / 64 for drift frames.
    pub frame: u32,
}

impl BlockKey {
    /// The first of an acquisition's blocks.
    pub const FIRST: BlockKey = BlockKey { drift: false, col: 0, row: 0, frame: 0 };

    /// The block of a place, and its slot in it.
    #[must_use]
    pub fn of(cell: Cell) -> (Self, u8) {
        let Cell(col, row, frame) = cell;
        let slot = |n: u32| u8::try_from(n % 64).expect("below 64");
        match u32::try_from(frame.0) {
            Err(_) => (Self { drift: false, col, row: row / 64, frame: 0 }, slot(row)),
            Ok(frame) => (Self { drift: true, col, row, frame: frame / 64 }, slot(frame)),
        }
    }

    /// The block and slot of a tile.
    #[must_use]
    pub fn of_tile(key: &TileKey) -> (Self, u8) {
        Self::of(Cell(key.col, key.row, key.frame))
    }

    /// True when there are places of these numbers: what a row's key says may be damaged.
    pub(super) fn is_of_places(&self) -> bool {
        if self.drift {
            self.frame <= i32::MAX.unsigned_abs() / 64
        } else {
            self.row <= u32::MAX / 64 && self.frame == 0
        }
    }

    /// The place of a slot.
    #[must_use]
    pub fn cell(&self, slot: u8) -> Cell {
        if self.drift {
            let frame = i32::try_from(self.frame * 64 + u32::from(slot)).unwrap_or(i32::MAX);
            Cell(self.col, self.row, FrameNumber(frame))
        } else {
            Cell(self.col, self.row * 64 + u32::from(slot), FrameNumber::STABLE)
        }
    }
}

/// ROI tiles of one ROI in one state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct StateBits {
    /// The ROI.
    pub roi: RoiIndex,
    /// The state.
    pub state: StateId,
    /// A bit for each slot.
    pub bits: u64,
}

/// A ROI tile that is lent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SlotLease {
    /// The ROI.
    pub roi: RoiIndex,
    /// The slot.
    pub slot: u8,
    /// The state to which it returns.
    pub back_to: StateId,
    /// When, ns since 1970 UTC.
    pub until_ns: i64,
}

/// 64 neighbouring places.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Block {
    /// Places with content.
    pub stored: u64,
    /// Places whose content has a quality flag.
    pub flagged: u64,
    /// Places whose content can not be decoded.
    pub undecodable: u64,
    /// The ROI tiles, by ROI and state; a ROI tile is in one of them.
    pub states: Vec<StateBits>,
    /// Those that are lent.
    pub leases: Vec<SlotLease>,
}

/// The slots of a bitmap, ascending.
pub fn slots(mut bits: u64) -> impl Iterator<Item = u8> {
    std::iter::from_fn(move || {
        let slot = u8::try_from(bits.trailing_zeros()).ok().filter(|slot| *slot < 64)?;
        bits &= bits - 1;
        Some(slot)
    })
}

impl Block {
    /// What was found of a place's content; nothing is kept of a place without any.
    pub fn judge(&mut self, slot: u8, flags: QualityFlags) {
        let bit = self.stored & (1 << slot);
        let put = |bits: u64, is_set: bool| if is_set { bits | bit } else { bits & !bit };
        self.flagged = put(self.flagged, !flags.is_empty());
        self.undecodable = put(self.undecodable, flags.has(QualityFlag::Undecodable));
    }

    /// True when the place's content has a quality flag, and when it can not be decoded: bits of a mosaic's cell.
    #[must_use]
    pub fn quality_bits(&self, slot: u8) -> (bool, bool) {
        (self.flagged >> slot & 1 == 1, self.undecodable >> slot & 1 == 1)
    }

    /// The state of a ROI tile; `None` when it is none.
    #[must_use]
    pub fn state(&self, roi: RoiIndex, slot: u8) -> Option<StateId> {
        self.states.iter().find(|bits| bits.roi == roi && bits.bits >> slot & 1 == 1).map(|bits| bits.state)
    }

    /// The ROIs in which a place lies.
    pub fn rois_at(&self, slot: u8) -> impl Iterator<Item = (RoiIndex, StateId)> {
        self.states.iter().filter(move |bits| bits.bits >> slot & 1 == 1).map(|bits| (bits.roi, bits.state))
    }

    /// The ROI tiles of a ROI that are in a state and have content.
    fn waiting(&self, roi: RoiIndex, state: StateId) -> u64 {
        let here = self.states.iter().find(|bits| bits.roi == roi && bits.state == state);
        here.map_or(0, |bits| bits.bits & self.stored)
    }

    /// The places of a ROI.
    #[must_use]
    pub fn members(&self, roi: RoiIndex) -> u64 {
        self.states.iter().filter(|bits| bits.roi == roi).fold(0, |all, bits| all | bits.bits)
    }

    /// The places of any ROI.
    #[must_use]
    pub fn expected(&self) -> u64 {
        self.states.iter().fold(0, |all, bits| all | bits.bits)
    }

    /// Puts ROI tiles into a state, whatever they were, or makes them; whoever lent them loses them.
    pub fn set(&mut self, roi: RoiIndex, slots: u64, state: StateId) {
        if slots == 0 {
            return;
        }
        for bits in self.states.iter_mut().filter(|bits| bits.roi == roi) {
            bits.bits &= !slots;
        }
        match self.states.iter_mut().find(|bits| bits.roi == roi && bits.state == state) {
            Some(bits) => bits.bits |= slots,
            None => self.states.push(StateBits { roi, state, bits: slots }),
        }
        self.states.retain(|bits| bits.bits != 0);
        self.states.sort_unstable();
        self.leases.retain(|lease| lease.roi != roi || slots >> lease.slot & 1 == 0);
    }

    /// Lends a ROI tile.
    pub fn lend(&mut self, lease: SlotLease) {
        self.leases.retain(|held| (held.roi, held.slot) != (lease.roi, lease.slot));
        self.leases.push(lease);
        self.leases.sort_unstable();
    }
}

/// A ROI tile that waits. Ordered as ROI tiles are distributed: stable tiles by section, column, row, ROI; then drift
/// frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Waiting {
    drift: bool,
    section: i64,
    key: BlockKey,
    slot: u8,
    /// The ROI.
    pub roi: RoiIndex,
}

impl Waiting {
    /// The place.
    #[must_use]
    pub fn cell(&self) -> Cell {
        self.key.cell(self.slot)
    }
}

/// Where ROI tiles in some state may be waiting: state, drift frames, section, block, ROI. In the order of distribution.
type Work = (StateId, bool, i64, BlockKey, RoiIndex);

/// Sums that the listings of acquisitions ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StateCounts {
    /// ROI tiles by drift or stable, section, state. No zeros.
    by_section: BTreeMap<(bool, i64, StateId), u64>,
}

impl StateCounts {
    fn change(&mut self, drift: bool, section: i64, state: StateId, bits: u64, add: bool) {
        let count = self.by_section.entry((drift, section, state)).or_default();
        let n = u64::from(bits.count_ones());
        *count = if add { *count + n } else { count.saturating_sub(n) };
        if *count == 0 {
            self.by_section.remove(&(drift, section, state));
        }
    }

    /// ROI tiles in a state, of all ROI tiles that `filter` (drift, section) takes.
    #[must_use]
    pub fn of(&self, state: Option<StateId>, filter: impl Fn(bool, i64) -> bool) -> (u64, u64) {
        let taken = self.by_section.iter().filter(|((drift, section, _), _)| filter(*drift, *section));
        taken.fold((0, 0), |(of, all), ((_, _, found), n)| (of + if Some(*found) == state { *n } else { 0 }, all + n))
    }

    /// ROI tiles by state.
    #[must_use]
    pub fn by_state(&self) -> BTreeMap<StateId, u64> {
        let mut sums = BTreeMap::new();
        for ((_, _, state), n) in &self.by_section {
            *sums.entry(*state).or_default() += n;
        }
        sums
    }
}

/// All places of one acquisition.
#[derive(Debug, Default)]
pub struct Board {
    blocks: BTreeMap<BlockKey, Block>,
    sections: Vec<i64>,
    work: BTreeSet<Work>,
    counts: StateCounts,
}

impl Board {
    /// Tells the sections of the ROIs, by their index. They are only ever appended.
    pub fn set_rois(&mut self, rois: &[Roi]) {
        self.sections = rois.iter().map(|roi| roi.section).collect();
    }

    /// A block.
    #[must_use]
    pub fn block(&self, key: &BlockKey) -> Option<&Block> {
        self.blocks.get(key)
    }

    /// The blocks from `from` on.
    pub fn blocks_from(&self, from: BlockKey) -> impl Iterator<Item = (&BlockKey, &Block)> {
        self.blocks.range(from..)
    }

    /// Number of blocks.
    #[must_use]
    pub fn len(&self) -> usize {
        self.blocks.len()
    }

    /// True without any block.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    /// The sums.
    #[must_use]
    pub fn counts(&self) -> &StateCounts {
        &self.counts
    }

    /// Changes a block; makes it if it was not there.
    pub fn update(&mut self, key: BlockKey, change: &mut dyn FnMut(&mut Block)) {
        let mut block = self.blocks.remove(&key).unwrap_or_default();
        self.account(&key, &block, false);
        change(&mut block);
        self.account(&key, &block, true);
        self.blocks.insert(key, block);
    }

    fn account(&mut self, key: &BlockKey, block: &Block, add: bool) {
        for bits in &block.states {
            let section = self.sections.get(usize::from(bits.roi.0)).copied().unwrap_or(-1);
            self.counts.change(key.drift, section, bits.state, bits.bits, add);
            let work = (bits.state, key.drift, section, *key, bits.roi);
            if !add {
                self.work.remove(&work);
            } else if bits.bits & block.stored != 0 {
                self.work.insert(work);
            }
        }
    }

    /// States in which some ROI tile with content is.
    pub fn states_with_work(&self) -> impl Iterator<Item = StateId> {
        let mut next = self.work.first().map(|work| work.0);
        std::iter::from_fn(move || {
            let state = next?;
            next = state.0.checked_add(1).and_then(|above| {
                let from = (StateId(above), false, i64::MIN, BlockKey::FIRST, RoiIndex(0));
                self.work.range(from..).next().map(|work| work.0)
            });
            Some(state)
        })
    }

    /// ROI tiles with content in a state, in the order of distribution, behind `after`. `section` takes one section only,
    /// `drift` one kind only. Ends when `each` returns false.
    pub fn each_waiting(
        &self,
        state: StateId,
        section: Option<i64>,
        drift: Option<bool>,
        after: Option<Waiting>,
        each: &mut dyn FnMut(Waiting) -> bool,
    ) -> bool {
        let (low, high) = section.map_or((i64::MIN, i64::MAX), |section| (section, section));
        let last = BlockKey { drift: true, col: u32::MAX, row: u32::MAX, frame: u32::MAX };
        let mut here = Vec::new();
        for kind in [false, true].into_iter().filter(|kind| drift.is_none_or(|wanted| wanted == *kind)) {
            let (from, key) = match after {
                Some(after) if after.drift && !kind => continue,
                Some(after) if after.drift == kind && (low..=high).contains(&after.section) => {
                    (after.section, after.key)
                }
                _ => (low, BlockKey::FIRST),
            };
            let range = (state, kind, from, key, RoiIndex(0))..=(state, kind, high, last, RoiIndex(u16::MAX));
            let mut works = self.work.range(range).peekable();
            while let Some((_, _, section, key, roi)) = works.next() {
                let Some(block) = self.blocks.get(key) else { continue };
                here.clear();
                here.push((*roi, block.waiting(*roi, state)));
                // ROIs of one section share its order of columns and rows.
                while let Some(next) = works.next_if(|next| (next.2, next.3) == (*section, *key)) {
                    here.push((next.4, block.waiting(next.4, state)));
                }
                for slot in slots(here.iter().fold(0, |all, (_, bits)| all | bits)) {
                    for (roi, _) in here.iter().filter(|(_, bits)| bits >> slot & 1 == 1) {
                        let found = Waiting { drift: kind, section: *section, key: *key, slot, roi: *roi };
                        if after.is_none_or(|after| found > after) && !each(found) {
                            return false;
                        }
                    }
                }
            }
        }
        true
    }

    /// The ROIs and states of a place.
    #[must_use]
    pub fn memberships(&self, cell: Cell) -> Vec<(RoiIndex, StateId)> {
        let (key, slot) = BlockKey::of(cell);
        self.blocks.get(&key).map(|block| block.rois_at(slot).collect()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn board(cells: &[(u32, u32)]) -> Board {
        let mut board = Board::default();
        let roi = |section: i64| Roi { name: section.to_string(), section, prev: 0 };
        board.set_rois(&[roi(9), roi(4)]);
        for (col, row) in cells {
            let (key, slot) = BlockKey::of(Cell(*col, *row, FrameNumber::STABLE));
            board.update(key, &mut |block| {
                block.stored |= 1 << slot;
                block.set(RoiIndex(0), 1 << slot, StateId::READY);
                block.set(RoiIndex(1), 1 << slot, StateId::CREATE);
            });
        }
        board
    }

    fn waiting(board: &Board, state: StateId, section: Option<i64>) -> Vec<(u16, u32, u32)> {
        let mut found = Vec::new();
        let mut after = None;
        // One at a time: each goes on behind the one before.
        loop {
            let before = found.len();
            board.each_waiting(state, section, None, after, &mut |waiting| {
                let Cell(col, row, _) = waiting.cell();
                found.push((waiting.roi.0, col, row));
                after = Some(waiting);
                false
            });
            if found.len() == before {
                return found;
            }
        }
    }

    #[test]
    fn a_place_is_found_in_its_block_and_back() {
        for (col, row, frame) in [(0, 0, -1), (7, 1000, -1), (3, 5, 0), (3, 5, 200), (u32::MAX, u32::MAX, i32::MAX)] {
            let cell = Cell(col, row, FrameNumber(frame));
            let (key, slot) = BlockKey::of(cell);
            assert_eq!(key.cell(slot), cell);
        }
    }

    #[test]
    fn tiles_wait_by_section_column_and_row_and_only_with_content() {
        let mut board = board(&[(1, 70), (1, 3), (0, 200)]);
        assert_eq!(waiting(&board, StateId::READY, None), [(0, 0, 200), (0, 1, 3), (0, 1, 70)]);
        let (key, slot) = BlockKey::of(Cell(1, 3, FrameNumber::STABLE));
        board.update(key, &mut |block| block.set(RoiIndex(1), 1 << slot, StateId::READY));
        assert_eq!(waiting(&board, StateId::READY, None)[0], (1, 1, 3), "section 4 comes before section 9");
        assert_eq!(waiting(&board, StateId::READY, Some(9)).len(), 3);
        board.update(key, &mut |block| block.stored = 0);
        assert_eq!(waiting(&board, StateId::READY, None), [(0, 0, 200), (0, 1, 70)]);
        assert_eq!(board.states_with_work().collect::<Vec<_>>(), [StateId::CREATE, StateId::READY]);
    }

    #[test]
    fn rois_of_one_section_are_distributed_as_one() {
        let mut board = Board::default();
        let roi = |section: i64| Roi { name: String::new(), section, prev: 0 };
        board.set_rois(&[roi(5), roi(4), roi(5)]);
        for (n, cell) in [(0, (1, 1)), (2, (0, 9)), (0, (0, 70)), (2, (1, 1)), (0, (0, 8)), (1, (7, 7))] {
            let (key, slot) = BlockKey::of(Cell(cell.0, cell.1, FrameNumber::STABLE));
            board.update(key, &mut |block| {
                block.stored |= 1 << slot;
                block.set(RoiIndex(n), 1 << slot, StateId::READY);
            });
        }
        let wanted = [(1, 7, 7), (0, 0, 8), (2, 0, 9), (0, 0, 70), (0, 1, 1), (2, 1, 1)];
        assert_eq!(waiting(&board, StateId::READY, None), wanted);
        assert_eq!(waiting(&board, StateId::READY, Some(5)), wanted[1..]);
    }

    #[test]
    fn sums_follow_every_change() {
        let mut board = board(&[(1, 70), (1, 3), (0, 200)]);
        let all = |_: bool, _: i64| true;
        assert_eq!(board.counts().of(Some(StateId::READY), all), (3, 6));
        assert_eq!(board.counts().of(Some(StateId::READY), |_, section| section == 4), (0, 3));
        let (key, _) = BlockKey::of(Cell(1, 3, FrameNumber::STABLE));
        board.update(key, &mut |block| block.set(RoiIndex(0), block.members(RoiIndex(0)), StateId(7)));
        assert_eq!(board.counts().by_state(), BTreeMap::from([(StateId(0), 3), (StateId(1), 2), (StateId(7), 1)]));
    }

    #[test]
    fn a_changed_tile_is_lent_no_more() {
        let mut block = Block::default();
        block.set(RoiIndex(0), 0b11, StateId::READY);
        for slot in [0, 1] {
            block.lend(SlotLease { roi: RoiIndex(0), slot, back_to: StateId::READY, until_ns: 5 });
        }
        block.set(RoiIndex(0), 0b01, StateId(3));
        assert_eq!(block.leases.iter().map(|lease| lease.slot).collect::<Vec<_>>(), [1]);
    }

    #[test]
    fn names_keep_their_numbers() {
        let mut names = StateNames::default();
        let failed = names.intern("FAILED");
        assert_eq!((names.intern("FAILED"), names.find("READY")), (failed, Some(StateId::READY)));
        assert_eq!(&*names.name(failed), "FAILED");
    }
}
