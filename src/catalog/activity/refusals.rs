//! Tiles that were refused and whose keys could be read: the most recent ones, and the places that they were for.

use crate::model::{AcqId, Refusal, TileKey};
use std::collections::{BTreeMap, HashSet, VecDeque};
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Refusals that are remembered.
const KEPT: usize = 10_000;

/// A tile that was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RefusedTile {
    /// Its key.
    pub key: TileKey,
    /// Why.
    pub why: Refusal,
    /// Who sent it; `None` when it was gone before the answer.
    pub peer: Option<SocketAddr>,
    /// When, ns since 1970 UTC.
    pub at_ns: i64,
}

#[derive(Default)]
pub(super) struct Refusals(Mutex<Log>);

#[derive(Default)]
struct Log {
    recent: VecDeque<RefusedTile>,
    /// How many of `recent` are about a stable tile's place.
    places: BTreeMap<(AcqId, u32, u32), u32>,
}

impl Refusals {
    pub(super) fn note(&self, tiles: &[RefusedTile]) {
        let mut log = self.lock();
        for tile in tiles {
            if log.recent.len() >= KEPT
                && let Some(oldest) = log.recent.pop_front()
            {
                log.count(&oldest, false);
            }
            log.recent.push_back(*tile);
            log.count(tile, true);
        }
    }

    pub(super) fn of_place(&self, acq: AcqId, col: u32, row: u32) -> Vec<RefusedTile> {
        let is_here = |tile: &&RefusedTile| (tile.key.acq, tile.key.col, tile.key.row) == (acq, col, row);
        self.lock().recent.iter().filter(is_here).copied().collect()
    }

    pub(super) fn places_of(&self, acq: AcqId) -> HashSet<(u32, u32)> {
        let log = self.lock();
        let places = log.places.range((acq, 0, 0)..=(acq, u32::MAX, u32::MAX));
        places.map(|((_, col, row), _)| (*col, *row)).collect()
    }

    pub(super) fn forget(&self, acq: AcqId) {
        let mut log = self.lock();
        log.recent.retain(|tile| tile.key.acq != acq);
        log.places.retain(|place, _| place.0 != acq);
    }

    fn lock(&self) -> MutexGuard<'_, Log> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Log {
    fn count(&mut self, tile: &RefusedTile, is_new: bool) {
        let TileKey { acq, col, row, frame } = tile.key;
        if !frame.is_stable() {
            return;
        }
        let place = (acq, col, row);
        let count = self.places.entry(place).or_default();
        *count = if is_new { *count + 1 } else { count.saturating_sub(1) };
        if *count == 0 {
            self.places.remove(&place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::FrameNumber;

    fn refused(acq: u64, col: u32, frame: i32) -> RefusedTile {
        let key = TileKey { acq: AcqId(acq), col, row: 0, frame: FrameNumber(frame) };
        RefusedTile { key, why: Refusal::BadChecksum, peer: None, at_ns: 1 }
    }

    #[test]
    fn the_oldest_are_forgotten_and_their_places_with_the_last_of_them() {
        let log = Refusals::default();
        log.note(&[refused(1, 0, -1), refused(1, 0, -1), refused(1, 1, 5), refused(2, 0, -1)]);
        assert_eq!(log.places_of(AcqId(1)), HashSet::from([(0, 0)]));
        assert_eq!((log.of_place(AcqId(1), 0, 0).len(), log.of_place(AcqId(1), 1, 0).len()), (2, 1));
        log.note(&vec![refused(3, 3, -1); KEPT - 3]);
        assert_eq!(log.places_of(AcqId(1)).len(), 1, "one of the two is still remembered");
        log.note(&[refused(3, 3, -1)]);
        assert_eq!(log.places_of(AcqId(1)).len(), 0);
        assert_eq!(log.lock().recent.len(), KEPT);
    }

    #[test]
    fn a_deleted_acquisition_leaves_nothing() {
        let log = Refusals::default();
        log.note(&[refused(1, 0, -1), refused(2, 0, -1)]);
        log.forget(AcqId(1));
        assert!(log.places_of(AcqId(1)).is_empty() && log.of_place(AcqId(1), 0, 0).is_empty());
        assert_eq!(log.places_of(AcqId(2)).len(), 1);
    }
}
