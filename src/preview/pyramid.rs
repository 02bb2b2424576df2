//! Which tiles a thumbnail shows, without asking the index for each: of every square of places, a sum over the tiles in it.
//!
//! Made from the index when an acquisition is first asked for, kept up to date by what is published since, in any order:
//! lanes do not wait for each other. A square with another sum has changed: that is all a composite must know. Bounded:
//! the acquisitions that were not asked for longest go first.

use super::{At, LEVEL_MAX, Layer, PreviewError};
use crate::base::stop::Stop;
use crate::index::Index;
use crate::model::{AcqId, Fact, FactBody, Sequence, TileEntry, TileId, TileKey};
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Squares of all pyramids together; one of a million tiles has a million and a third.
const SQUARES_MAX: usize = 1 << 21;
/// Pyramids: who asks for sections that there are not gets small ones, but many.
const PYRAMIDS_MAX: usize = 64;
/// Changes that may wait to be taken over.
const CHANGES_MAX: usize = 1 << 16;
/// Tiles read from the index at a time.
const STEP: usize = 4096;
/// How long it is remembered that there were too many tiles, and of how many pyramids.
const TOO_LARGE_FOR: Duration = Duration::from_secs(600);
const TOO_LARGE_MAX: usize = 256;

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
    stop: Stop,
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    /// The one asked for last at the end.
    pyramids: Vec<(Layer, Pyramid)>,
    /// Those that were not made, for there are too many tiles, and when that was found.
    too_large: Vec<(Layer, Instant)>,
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
    pub(super) fn new(index: Arc<Index>, changes: Arc<Changes>, stop: Stop) -> Self {
        Self { index, changes, stop, held: Mutex::default() }
    }

    /// What stands for the tiles of a square. `None`: it is empty.
    pub(super) fn stamp(&self, layer: &Layer, at: At) -> Result<Option<Stamp>, PreviewError> {
        let mut held = self.lock();
        self.catch_up(&mut held);
        if !held.touch(layer) {
            self.hold(&mut held, layer)?;
        }
        Ok(held.pyramids.last().and_then(|(_, pyramid)| pyramid.stamp(at)))
    }

    /// As [`Self::stamp`], from what is there; `None` when that is not known without work.
    pub(super) fn stamp_at_hand(&self, layer: &Layer, at: At) -> Option<Stamp> {
        let mut held = self.held.try_lock().ok()?;
        self.catch_up(&mut held);
        held.pyramids.iter().find(|(known, _)| known == layer).and_then(|(_, pyramid)| pyramid.stamp(at))
    }

    /// Makes a pyramid, at the end of those that are held.
    fn hold(&self, held: &mut Held, layer: &Layer) -> Result<(), PreviewError> {
        let too_large =
            || PreviewError::Invalid(format!("acquisition {} has too many tiles for thumbnails", layer.acq));
        if held.is_too_large(layer, Instant::now()) {
            return Err(too_large());
        }
        self.changes.want();
        let built = self.build(layer)?;
        if built.squares() > SQUARES_MAX {
            held.too_large(layer, Instant::now());
            return Err(too_large());
        }
        held.pyramids.push((*layer, built));
        held.fit(SQUARES_MAX);
        Ok(())
    }

    fn catch_up(&self, held: &mut Held) {
        let (changes, lagged) = self.changes.take();
        if lagged {
            *held = Held::default();
        }
        for change in changes {
            match change {
                Change::Reset(acq) => held.reset(acq),
                Change::Tile(key, camera, tile) => {
                    for (layer, pyramid) in held.pyramids.iter_mut().filter(|(layer, _)| layer.acq == key.acq) {
                        if self.takes(layer, &key, camera) {
                            pyramid.put(key.col, key.row, tile);
                        }
                    }
                }
            }
        }
        held.fit(SQUARES_MAX);
    }

    /// Changes that are published meanwhile are taken over behind it: a tile that is put twice is there once.
    fn build(&self, layer: &Layer) -> Result<Pyramid, PreviewError> {
        let (mut pyramid, mut after) = (Pyramid::default(), TileId::NONE);
        loop {
            if self.stop.reason().is_some() {
                return Err(PreviewError::Busy("the daemon is stopping"));
            }
            let entries = self.index.tiles_of(layer.acq, after, STEP);
            let entries = entries.map_err(|error| PreviewError::Storage(error.to_string()))?;
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

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    /// Puts a pyramid at the end; false when it is not there.
    fn touch(&mut self, layer: &Layer) -> bool {
        let found = self.pyramids.iter().position(|(known, _)| known == layer);
        if let Some(n) = found {
            self.pyramids[n..].rotate_left(1);
        }
        found.is_some()
    }

    /// Lets go those not asked for longest, until the others fit.
    fn fit(&mut self, squares_max: usize) {
        let mut squares: usize = self.pyramids.iter().map(|(_, pyramid)| pyramid.squares()).sum();
        while squares > squares_max || self.pyramids.len() > PYRAMIDS_MAX {
            squares -= self.pyramids.remove(0).1.squares();
        }
    }

    fn reset(&mut self, acq: AcqId) {
        self.pyramids.retain(|(layer, _)| layer.acq != acq);
        self.too_large.retain(|(layer, _)| layer.acq != acq);
    }

    fn too_large(&mut self, layer: &Layer, now: Instant) {
        if self.too_large.len() >= TOO_LARGE_MAX {
            self.too_large.remove(0);
        }
        self.too_large.push((*layer, now));
    }

    fn is_too_large(&mut self, layer: &Layer, now: Instant) -> bool {
        self.too_large.retain(|(_, found)| now.saturating_duration_since(*found) < TOO_LARGE_FOR);
        self.too_large.iter().any(|(known, _)| known == layer)
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

    fn layer(acq: u64) -> Layer {
        Layer { acq: AcqId(acq), section: None, camera: None }
    }

    #[test]
    fn pyramids_that_grow_drive_out_those_not_asked_for_longest() {
        let mut held = Held::default();
        for acq in 1..=3 {
            let mut pyramid = Pyramid::default();
            pyramid.put(0, 0, tile(acq));
            held.pyramids.push((layer(acq), pyramid));
        }
        assert!(held.touch(&layer(1)) && !held.touch(&layer(4)));
        let kept = |held: &Held| held.pyramids.iter().map(|(layer, _)| layer.acq.0).collect::<Vec<_>>();
        held.fit(3);
        assert_eq!(kept(&held), [2, 3, 1]);
        held.pyramids[1].1.put(1, 0, tile(9));
        assert_eq!(held.pyramids[1].1.squares(), 3);
        held.fit(4);
        assert_eq!(kept(&held), [3, 1]);
        held.fit(2);
        assert_eq!(kept(&held), [1]);
    }

    #[test]
    fn that_there_are_too_many_tiles_is_remembered_for_some_minutes_or_until_they_are_deleted() {
        let (mut held, now) = (Held::default(), Instant::now());
        for acq in 0..TOO_LARGE_MAX as u64 + 1 {
            held.too_large(&layer(acq), now);
        }
        assert_eq!(held.too_large.len(), TOO_LARGE_MAX);
        assert!(held.is_too_large(&layer(7), now) && !held.is_too_large(&layer(0), now));
        held.reset(AcqId(7));
        assert!(!held.is_too_large(&layer(7), now) && held.is_too_large(&layer(8), now));
        assert!(!held.is_too_large(&layer(8), now + TOO_LARGE_FOR));
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
