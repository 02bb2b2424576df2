//! Which tiles a thumbnail shows, without asking the index for each: of every square of places, a sum over the tiles in it.
//!
//! Made from the index when an acquisition is first asked for, kept up to date by what is published since, in any order:
//! lanes do not wait for each other. A square with another sum has changed: that is all a composite must know. Bounded:
//! the acquisitions that were not asked for longest go first.

use super::{At, LEVEL_MAX, Layer, PreviewError};
use crate::index::{Index, StoreError};
use crate::model::{AcqId, Fact, FactBody, Sequence, TileEntry, TileId, TileKey};
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Squares of all pyramids together; one of a million tiles has a million and a third.
const SQUARES_MAX: usize = 1 << 21;
/// Pyramids: who asks for sections that there are not gets small ones, but many.
const PYRAMIDS_MAX: usize = 64;
/// Changes that may wait to be taken over.
const CHANGES_MAX: usize = 1 << 16;
/// Tiles read from the index at a time.
const STEP: usize = 4096;

/// Stands for all current tiles of a square: another one when any of them is another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Stamp(pub(super) u64);

/// The newest tile of a place; later ones are greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Newest {
    /// Its record's place in the journal.
    sequence: Sequence,
    /// CRC-32 of its image: a journal that was put back to an earlier day gives sequences again.
    crc: u32,
}

/// What was published and no pyramid knows yet.
#[derive(Default)]
pub(super) struct Changes {
    state: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    /// False while there is no pyramid.
    wanted: bool,
    changes: Vec<Change>,
    /// Some were dropped.
    lagged: bool,
}

enum Change {
    Tile(TileKey, i32, Newest),
    /// Something that makes the acquisition's pyramids wrong as a whole.
    Reset(AcqId),
}

/// The pyramids that are held.
pub(super) struct Pyramids {
    index: Arc<Index>,
    changes: Arc<Changes>,
    /// The one asked for last at the end.
    held: Mutex<Vec<(Layer, Pyramid)>>,
}

/// Squares by level; the last one has all tiles in its first square.
#[derive(Default)]
struct Pyramid {
    /// Level 0.
    tiles: HashMap<(u32, u32), Newest>,
    /// From level 1 on.
    above: Vec<HashMap<(u32, u32), Stamp>>,
}

impl Changes {
    /// On the thread that publishes: one short lock.
    pub(super) fn published(&self, facts: &[Fact]) {
        let mut waiting = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if !waiting.wanted {
            return;
        }
        let change = |fact: &Fact| match &fact.body {
            FactBody::TileStored(entry) => {
                entry.key.frame.is_stable().then(|| Change::Tile(entry.key, entry.camera, Newest::of(entry)))
            }
            FactBody::RoisCreated(created) => Some(Change::Reset(created.acq)),
            FactBody::AcquisitionDeleted(deleted) => Some(Change::Reset(deleted.acq)),
            _ => None,
        };
        if waiting.changes.len() + facts.len() > CHANGES_MAX {
            (waiting.changes, waiting.lagged) = (Vec::new(), true);
        } else {
            waiting.changes.extend(facts.iter().filter_map(change));
        }
    }

    fn take(&self) -> (Vec<Change>, bool) {
        let mut waiting = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        (std::mem::take(&mut waiting.changes), std::mem::take(&mut waiting.lagged))
    }

    fn want(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).wanted = true;
    }
}

impl Newest {
    fn of(entry: &TileEntry) -> Self {
        Self { sequence: entry.sequence, crc: entry.image_crc }
    }

    /// Mixed, so that sums of different tiles differ.
    fn stamp(&self) -> Stamp {
        let mut mixed = DefaultHasher::new();
        self.hash(&mut mixed);
        Stamp(mixed.finish())
    }
}

impl Stamp {
    fn add(&mut self, other: Self) {
        self.0 = self.0.wrapping_add(other.0);
    }

    fn subtract(&mut self, other: Self) {
        self.0 = self.0.wrapping_sub(other.0);
    }
}

impl Pyramids {
    pub(super) fn new(index: Arc<Index>, changes: Arc<Changes>) -> Self {
        Self { index, changes, held: Mutex::default() }
    }

    /// What stands for the tiles of a square. `None`: it is empty.
    pub(super) fn stamp(&self, layer: &Layer, at: At) -> Result<Option<Stamp>, PreviewError> {
        let mut held = self.lock();
        self.catch_up(&mut held);
        if let Some(n) = held.iter().position(|(known, _)| known == layer) {
            let found = held.remove(n);
            held.push(found);
        } else {
            self.changes.want();
            let built = self.build(layer).map_err(|error| PreviewError::Storage(error.to_string()))?;
            let mut squares = built.squares();
            if squares > SQUARES_MAX {
                let problem = format!("acquisition {} has too many tiles for thumbnails", layer.acq);
                return Err(PreviewError::Invalid(problem));
            }
            if held.len() >= PYRAMIDS_MAX {
                held.remove(0);
            }
            held.push((*layer, built));
            held.reverse();
            held.retain(|(known, pyramid)| {
                let fits = known == layer || squares + pyramid.squares() <= SQUARES_MAX;
                squares += if fits && known != layer { pyramid.squares() } else { 0 };
                fits
            });
            held.reverse();
        }
        Ok(held.last().and_then(|(_, pyramid)| pyramid.stamp(at)))
    }

    /// As [`Self::stamp`], from what is there; `None` when that is not known without work.
    pub(super) fn stamp_at_hand(&self, layer: &Layer, at: At) -> Option<Stamp> {
        let mut held = self.held.try_lock().ok()?;
        self.catch_up(&mut held);
        held.iter().find(|(known, _)| known == layer).and_then(|(_, pyramid)| pyramid.stamp(at))
    }

    fn catch_up(&self, held: &mut Vec<(Layer, Pyramid)>) {
        let (changes, lagged) = self.changes.take();
        if lagged {
            held.clear();
        }
        for change in changes {
            match change {
                Change::Reset(acq) => held.retain(|(layer, _)| layer.acq != acq),
                Change::Tile(key, camera, tile) => {
                    for (layer, pyramid) in held.iter_mut().filter(|(layer, _)| layer.acq == key.acq) {
                        if self.takes(layer, &key, camera) {
                            pyramid.put(key.col, key.row, tile);
                        }
                    }
                }
            }
        }
    }

    /// Changes that are published meanwhile are taken over behind it: a tile that is put twice is there once.
    fn build(&self, layer: &Layer) -> Result<Pyramid, StoreError> {
        let (mut pyramid, mut after) = (Pyramid::default(), TileId::NONE);
        loop {
            let entries = self.index.tiles_of(layer.acq, after, STEP)?;
            for entry in entries.iter().filter(|entry| entry.key.frame.is_stable()) {
                if self.takes(layer, &entry.key, entry.camera) {
                    pyramid.put(entry.key.col, entry.key.row, Newest::of(entry));
                }
            }
            match entries.last() {
                Some(last) if entries.len() == STEP && pyramid.squares() <= SQUARES_MAX => after = last.id,
                _ => return Ok(pyramid),
            }
        }
    }

    fn takes(&self, layer: &Layer, key: &TileKey, camera: i32) -> bool {
        let in_section = |section: i64| {
            let places = self.index.memberships(&[*key]).pop().unwrap_or_default();
            places.iter().any(|place| place.roi.section == section)
        };
        layer.camera.is_none_or(|wanted| wanted == camera) && layer.section.is_none_or(in_section)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(Layer, Pyramid)>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pyramid {
    fn put(&mut self, col: u32, row: u32, tile: Newest) {
        let before = self.tiles.get(&(col, row)).copied();
        if before.is_some_and(|before| before >= tile) {
            return;
        }
        while self.above.len() < usize::from(LEVEL_MAX) && (col | row) >> self.above.len() > 0 {
            self.grow();
        }
        self.tiles.insert((col, row), tile);
        let (old, new) = (before.map(|before| before.stamp()).unwrap_or_default(), tile.stamp());
        for (level, squares) in (1..).zip(&mut self.above) {
            let square = squares.entry((col >> level, row >> level)).or_default();
            square.subtract(old);
            square.add(new);
        }
    }

    /// Another level on top.
    fn grow(&mut self) {
        let mut above: HashMap<(u32, u32), Stamp> = HashMap::new();
        let mut add = |(x, y): &(u32, u32), stamp| above.entry((x / 2, y / 2)).or_default().add(stamp);
        match self.above.last() {
            Some(below) => below.iter().for_each(|(place, stamp)| add(place, *stamp)),
            None => self.tiles.iter().for_each(|(place, tile)| add(place, tile.stamp())),
        }
        self.above.push(above);
    }

    /// Above the top there is but one square.
    fn stamp(&self, at: At) -> Option<Stamp> {
        let (level, place) = (usize::from(at.level), (at.x, at.y));
        if level > self.above.len() && place != (0, 0) {
            return None;
        }
        match level.min(self.above.len()).checked_sub(1) {
            Some(n) => self.above[n].get(&place).copied(),
            None => self.tiles.get(&place).map(Newest::stamp),
        }
    }

    fn squares(&self) -> usize {
        self.tiles.len() + self.above.iter().map(HashMap::len).sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tile(sequence: u64) -> Newest {
        Newest { sequence: Sequence(sequence), crc: 0 }
    }

    fn found(pyramid: &Pyramid, level: u8, x: u32, y: u32) -> Option<Stamp> {
        pyramid.stamp(At { level, x, y })
    }

    fn sum(sequences: &[u64]) -> Option<Stamp> {
        let mut sum = Stamp::default();
        sequences.iter().for_each(|sequence| sum.add(tile(*sequence).stamp()));
        Some(sum)
    }

    #[test]
    fn a_square_stands_for_its_current_tiles_whatever_the_order() {
        for order in [[(0, 0, 5), (1, 1, 9), (7, 2, 3)], [(7, 2, 3), (1, 1, 9), (0, 0, 5)]] {
            let mut pyramid = Pyramid::default();
            order.into_iter().for_each(|(col, row, sequence)| pyramid.put(col, row, tile(sequence)));
            assert_eq!(found(&pyramid, 0, 0, 0), sum(&[5]));
            assert_eq!(found(&pyramid, 1, 0, 0), sum(&[5, 9]));
            assert_eq!((found(&pyramid, 1, 3, 1), found(&pyramid, 1, 1, 0)), (sum(&[3]), None));
            let all = sum(&[3, 5, 9]);
            assert_eq!(
                (found(&pyramid, 3, 0, 0), found(&pyramid, 20, 0, 0), found(&pyramid, 20, 1, 0)),
                (all, all, None)
            );
            pyramid.put(1, 1, tile(4));
            assert_eq!(found(&pyramid, 3, 0, 0), all, "an older one changes nothing");
            pyramid.put(1, 1, tile(10));
            assert_eq!((found(&pyramid, 0, 1, 1), found(&pyramid, 3, 0, 0)), (sum(&[10]), sum(&[3, 5, 10])));
        }
    }

    #[test]
    fn an_earlier_tile_that_is_published_later_changes_its_squares() {
        let mut pyramid = Pyramid::default();
        pyramid.put(0, 0, tile(10));
        pyramid.put(5, 5, tile(11));
        let before = found(&pyramid, 1, 0, 0);
        pyramid.put(1, 0, tile(9));
        assert_ne!(found(&pyramid, 1, 0, 0), before);
    }

    #[test]
    fn the_last_place_of_all_fits() {
        let mut pyramid = Pyramid::default();
        pyramid.put(u32::MAX, 0, tile(1));
        pyramid.put(0, u32::MAX, tile(2));
        assert_eq!(found(&pyramid, 31, 1, 0), sum(&[1]));
        assert_eq!(found(&pyramid, 31, 0, 1), sum(&[2]));
    }
}
