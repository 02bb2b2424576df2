//! Distribution: which ROI tiles come next, and which are to be returned. Reads memory only.

use super::board::{Board, StateId, Waiting};
use super::overlay::{Live, acquired_of};
use super::view::AcquisitionView;
use super::{Index, StoreError};
use crate::model::{AcqId, RoiCells, RoiTileKey, TileKey};
use std::collections::{BTreeMap, HashSet};

/// Candidates that are looked at with one hold of the lock, when they have to be looked up in the store.
const LOOK_STEP: usize = 256;

/// Which ROI tiles are asked for.
pub struct PickFilter<'a> {
    /// Their state.
    pub state: &'a str,
    /// Most of them.
    pub limit: usize,
    /// One acquisition only.
    pub acq: Option<AcqId>,
    /// One nominal section only.
    pub section: Option<i64>,
    /// Drift frames only, or stable tiles only.
    pub drift: Option<bool>,
    /// Of which acquisitions.
    pub takes: &'a dyn Fn(AcqId, &AcquisitionView) -> bool,
    /// When they were received: from (inclusive) and to (exclusive), ns since 1970 UTC.
    pub received: Option<(i64, i64)>,
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Picked {
    /// The ROI tiles, in the order of distribution.
    pub tiles: Vec<RoiTileKey>,
}

impl Picked {
    /// The tiles as a fact names them.
    #[must_use]
    pub fn by_roi(&self) -> Vec<RoiCells> {
        let mut parts: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for tile in &self.tiles {
            parts.entry((tile.acq, tile.roi)).or_default().push(tile.cell);
        }
        parts.into_iter().map(|((acq, roi), cells)| RoiCells { acq, roi, cells }).collect()
    }
}

impl PickFilter<'_> {
    /// The acquisitions that have such tiles waiting, in the order of their time.
    fn acquisitions(&self, live: &Live, state: StateId) -> Vec<AcqId> {
        let all = (state, i64::MIN, AcqId(0))..=(state, i64::MAX, AcqId(u64::MAX));
        // Whose last tile came before that has none: old work that nobody does costs no look-up each time.
        let has_come =
            |view: &AcquisitionView| self.received.is_none_or(|(from, _)| view.counters.last_received_ns >= from);
        let takes =
            |acq: AcqId| live.acquisitions.get(&acq).is_some_and(|view| has_come(view) && (self.takes)(acq, view));
        match self.acq {
            Some(acq) => live.boards.get(&acq).filter(|_| takes(acq)).map(|_| acq).into_iter().collect(),
            None => live.work.range(all).map(|(_, _, acq)| *acq).filter(|acq| takes(*acq)).collect(),
        }
    }
}

impl Index {
    /// The first ROI tiles with content that the filter takes and `claimed` does not hold.
    ///
    /// # Errors
    /// A time is asked for, and the store can not be read.
    pub fn pick(&self, filter: &PickFilter<'_>, claimed: &HashSet<RoiTileKey>) -> Result<Picked, StoreError> {
        let mut picked = Picked::default();
        let acquisitions = {
            let live = self.overlay.read();
            let Some(state) = live.states.find(filter.state) else { return Ok(picked) };
            filter.acquisitions(&live, state)
        };
        for acq in acquisitions {
            let mut after = None;
            while picked.tiles.len() < filter.limit {
                // With a time filter candidates are looked up in the store, and not under the lock.
                let step = if filter.received.is_some() { LOOK_STEP } else { filter.limit - picked.tiles.len() };
                let candidates = self.candidates(acq, filter, claimed, after, step);
                after = candidates.last().copied().or(after);
                let ended = candidates.len() < step;
                for waiting in candidates {
                    let tile = RoiTileKey { acq, roi: waiting.roi, cell: waiting.cell() };
                    if picked.tiles.len() < filter.limit && self.is_in_time(&tile, filter.received)? {
                        picked.tiles.push(tile);
                    }
                }
                if ended {
                    break;
                }
            }
        }
        Ok(picked)
    }

    fn candidates(
        &self,
        acq: AcqId,
        filter: &PickFilter<'_>,
        claimed: &HashSet<RoiTileKey>,
        after: Option<Waiting>,
        limit: usize,
    ) -> Vec<Waiting> {
        let live = self.overlay.read();
        let (Some(board), Some(state)) = (live.boards.get(&acq), live.states.find(filter.state)) else {
            return Vec::new();
        };
        let mut found = Vec::new();
        board.each_waiting(state, filter.section, filter.drift, after, &mut |waiting| {
            if !claimed.contains(&RoiTileKey { acq, roi: waiting.roi, cell: waiting.cell() }) {
                found.push(waiting);
            }
            found.len() < limit
        });
        found
    }

    fn is_in_time(&self, tile: &RoiTileKey, received: Option<(i64, i64)>) -> Result<bool, StoreError> {
        let Some((from, to)) = received else { return Ok(true) };
        let key = TileKey { acq: tile.acq, col: tile.cell.0, row: tile.cell.1, frame: tile.cell.2 };
        let entry = self.tile_by_key(&key)?;
        Ok(entry.is_some_and(|entry| entry.received_ns >= from && entry.received_ns < to))
    }

    /// Lent ROI tiles whose time is over, with the state to which they return; at most `limit`.
    #[must_use]
    pub fn overdue(&self, now_ns: i64, limit: usize) -> Vec<(String, RoiTileKey)> {
        let live = self.overlay.read();
        let over = live.leases.iter().take_while(|(until_ns, ..)| *until_ns <= now_ns).take(limit);
        let back = over.filter_map(|(_, acq, key, roi, slot)| {
            let block = live.boards.get(acq)?.block(key)?;
            let lease = block.leases.iter().find(|lease| lease.roi == *roi && lease.slot == *slot)?;
            let tile = RoiTileKey { acq: *acq, roi: *roi, cell: key.cell(*slot) };
            Some((live.states.name(lease.back_to).to_string(), tile))
        });
        back.collect()
    }

    /// When the next lent ROI tile returns, ns since 1970 UTC.
    #[must_use]
    pub fn next_due_ns(&self) -> Option<i64> {
        self.overlay.read().leases.first().map(|lease| lease.0)
    }

    /// When an acquisition was made, as its log says, seconds since 1970 UTC; the smallest number when it does not.
    #[must_use]
    pub fn acquired_s(view: &AcquisitionView) -> i64 {
        acquired_of(view)
    }

    /// ROI tiles in `state`, and all ROI tiles, that `takes` (drift, section) takes.
    #[must_use]
    pub fn count_in_state(&self, acq: AcqId, state: &str, takes: impl Fn(bool, i64) -> bool) -> (u64, u64) {
        self.with_board(acq, |board: &Board, names| board.counts().of(names.find(state), takes))
    }
}
