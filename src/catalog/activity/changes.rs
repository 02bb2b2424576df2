//! Which places changed: one ring that all subscribers read, each from its own position. A subscriber that does not read
//! holds nothing; when the ring has gone past it, it is told so and looks at everything anew.
//!
//! Only places are kept, not what they look like: that is looked up when they are read, so that what is told last is what
//! holds.

use super::Activity;
use crate::model::{AcqId, Fact, FactBody};
use std::collections::{BTreeSet, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Changes that are kept.
const KEPT: usize = 1 << 16;
/// Most subscribers.
pub const SUBSCRIBERS_MAX: usize = 64;
/// Changes that are read with one hold of the lock.
const STEP: usize = 4096;
/// Places of one fact that are told one by one; of more it is said that everything changed.
const PLACES_OF_FACT: usize = 4096;

/// A place, or everything (`None`) of an acquisition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Change {
    acq: AcqId,
    place: Option<(u32, u32)>,
}

#[derive(Default)]
pub(super) struct Changes {
    subscribers: AtomicUsize,
    ring: Mutex<Ring>,
}

#[derive(Default)]
struct Ring {
    kept: VecDeque<Change>,
    /// Number of the first change that is kept.
    first: u64,
}

/// What a subscriber has missed since it last asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changed {
    /// Columns and rows of stable tiles, each once.
    pub places: Vec<(u32, u32)>,
    /// More than that: everything is to be looked at anew.
    pub everything: bool,
    /// There is more to ask for at once.
    pub more: bool,
}

impl Changes {
    /// A subscriber counts itself before it looks at the index, a writer looks for subscribers after it has made facts
    /// visible: one of the two sees the other. The fences are what makes that hold.
    fn is_watched(&self) -> bool {
        fence(Ordering::SeqCst);
        self.subscribers.load(Ordering::SeqCst) > 0
    }

    pub(super) fn of_facts(&self, facts: &[Fact]) {
        if self.is_watched() {
            let mut changes = Vec::with_capacity(facts.len());
            facts.iter().for_each(|fact| add_changes(fact, &mut changes));
            self.lock().add(changes.into_iter());
        }
    }

    pub(super) fn of_places(&self, places: &[(AcqId, u32, u32)]) {
        if !places.is_empty() && self.is_watched() {
            self.lock().add(places.iter().map(|(acq, col, row)| Change { acq: *acq, place: Some((*col, *row)) }));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ring {
    fn end(&self) -> u64 {
        self.first + self.kept.len() as u64
    }

    fn add(&mut self, changes: impl Iterator<Item = Change>) {
        for change in changes {
            if self.kept.len() >= KEPT {
                self.kept.pop_front();
                self.first += 1;
            }
            self.kept.push_back(change);
        }
    }

    /// Changes from `position` on; `None`: they are gone.
    fn from(&self, position: u64) -> Option<impl Iterator<Item = &Change>> {
        let passed = usize::try_from(position.checked_sub(self.first)?).ok()?;
        Some(self.kept.range(passed.min(self.kept.len())..))
    }
}

fn add_changes(fact: &Fact, changes: &mut Vec<Change>) {
    let mut everything = |acq| changes.push(Change { acq, place: None });
    match &fact.body {
        FactBody::TileStored(entry) if entry.key.frame.is_stable() => {
            changes.push(Change { acq: entry.key.acq, place: Some((entry.key.col, entry.key.row)) });
        }
        FactBody::StatesChanged(changed) => {
            for part in &changed.tiles {
                let stable = part.cells.iter().filter(|cell| cell.2.is_stable());
                let places = stable.map(|cell| Change { acq: part.acq, place: Some((cell.0, cell.1)) });
                if part.cells.len() > PLACES_OF_FACT {
                    changes.push(Change { acq: part.acq, place: None });
                } else {
                    changes.extend(places);
                }
            }
        }
        FactBody::TilesJudged(judged) => {
            let shown = judged.tiles.iter().filter(|tile| tile.cell.2.is_stable() && !tile.flags.is_empty());
            changes.extend(shown.map(|tile| Change { acq: judged.acq, place: Some((tile.cell.0, tile.cell.1)) }));
        }
        FactBody::RoisCreated(created) => everything(created.acq),
        FactBody::AcquisitionStarted(started) => everything(started.acq),
        FactBody::AcquisitionDeleted(deleted) => everything(deleted.acq),
        _ => {}
    }
}

/// Somebody who follows what changes.
pub struct Subscription {
    activity: Arc<Activity>,
    position: u64,
}

impl Subscription {
    pub(super) fn begin(activity: &Arc<Activity>) -> Option<Self> {
        let changes = &activity.changes;
        if changes.subscribers.fetch_add(1, Ordering::SeqCst) >= SUBSCRIBERS_MAX {
            changes.subscribers.fetch_sub(1, Ordering::SeqCst);
            return None;
        }
        fence(Ordering::SeqCst);
        let position = changes.lock().end();
        Some(Self { activity: Arc::clone(activity), position })
    }

    /// What of an acquisition has changed since the last call: at most `limit` places.
    #[must_use]
    pub fn changed(&mut self, acq: AcqId, limit: usize) -> Changed {
        let (mut changed, mut places) = (Changed::default(), BTreeSet::new());
        loop {
            let ring = self.activity.changes.lock();
            let Some(changes) = ring.from(self.position) else {
                self.position = ring.end();
                return Changed { everything: true, ..Changed::default() };
            };
            let mut read = 0;
            for change in changes.take(STEP) {
                if places.len() >= limit {
                    break;
                }
                read += 1;
                match change.place.filter(|_| change.acq == acq) {
                    Some(place) => _ = places.insert(place),
                    None => changed.everything |= change.acq == acq,
                }
            }
            self.position += read;
            changed.more = self.position < ring.end();
            drop(ring);
            if !changed.more || places.len() >= limit {
                changed.places = places.into_iter().collect();
                return changed;
            }
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let changes = &self.activity.changes;
        let mut ring = changes.lock();
        if changes.subscribers.fetch_sub(1, Ordering::SeqCst) == 1 {
            // Nobody is left to read them.
            ring.first = ring.end();
            ring.kept = VecDeque::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACQ: AcqId = AcqId(7);

    fn subscribed() -> (Arc<Activity>, Subscription) {
        let activity = Arc::new(Activity::default());
        let subscription = activity.subscribe().expect("a place");
        (activity, subscription)
    }

    #[test]
    fn nothing_is_kept_while_nobody_looks() {
        let (activity, subscription) = subscribed();
        activity.place_changed(ACQ, 1, 2);
        assert_eq!(activity.changes.lock().kept.len(), 1);
        drop(subscription);
        activity.place_changed(ACQ, 1, 2);
        assert_eq!(activity.changes.lock().kept.capacity(), 0);
        let mut later = activity.subscribe().expect("a place");
        assert_eq!(later.changed(ACQ, 10), Changed::default());
    }

    #[test]
    fn each_subscriber_reads_from_its_own_position_and_a_place_once() {
        let (activity, mut first) = subscribed();
        activity.place_changed(ACQ, 1, 2);
        let mut second = activity.subscribe().expect("a place");
        activity.place_changed(AcqId(8), 5, 5);
        activity.place_changed(ACQ, 1, 2);
        activity.place_changed(ACQ, 0, 9);
        assert_eq!(first.changed(ACQ, 10).places, [(0, 9), (1, 2)]);
        assert_eq!(second.changed(AcqId(8), 10).places, [(5, 5)]);
        assert_eq!(first.changed(ACQ, 10), Changed::default());
    }

    #[test]
    fn what_does_not_fit_comes_with_the_next_call() {
        let (activity, mut subscription) = subscribed();
        (0..10_000).for_each(|col| activity.place_changed(ACQ, col, 0));
        let (mut seen, mut calls) = (0, 0);
        loop {
            let changed = subscription.changed(ACQ, 3000);
            (seen, calls) = (seen + changed.places.len(), calls + 1);
            if !changed.more {
                break;
            }
        }
        assert_eq!((seen, calls), (10_000, 4));
    }

    #[test]
    fn who_is_passed_by_the_ring_is_told_once_and_goes_on() {
        let (activity, mut slow) = subscribed();
        let all: Vec<(AcqId, u32, u32)> = (0..100).map(|col| (ACQ, col, 0)).collect();
        (0..=KEPT / 100).for_each(|_| activity.changes.of_places(&all));
        assert_eq!(activity.changes.lock().kept.len(), KEPT);
        assert_eq!(slow.changed(ACQ, 10), Changed { everything: true, ..Changed::default() });
        activity.place_changed(ACQ, 3, 3);
        assert_eq!(slow.changed(ACQ, 10), Changed { places: vec![(3, 3)], ..Changed::default() });
    }

    #[test]
    fn only_so_many_may_look() {
        let activity = Arc::new(Activity::default());
        let all: Vec<Subscription> = std::iter::from_fn(|| activity.subscribe()).take(1000).collect();
        assert_eq!(all.len(), SUBSCRIBERS_MAX);
        drop(all);
        assert!(activity.subscribe().is_some());
    }
}
