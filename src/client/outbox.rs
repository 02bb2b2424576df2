//! The tiles that wait to be sent: handed out in order, each when it is due; those that come back go first.
//!
//! Owns who has what: an item is waiting, taken, or settled, and never two of these. Bounded by who fills it
//! ([`Outbox::push`] waits for room). Must never lose an item, nor call back while its lock is held.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long [`Outbox::take`] waits at most: whoever waits looks up in between.
const TAKE_WAIT: Duration = Duration::from_millis(100);

/// Items of one run.
pub struct Outbox<I> {
    state: Mutex<State<I>>,
    changed: Condvar,
    capacity: usize,
}

struct State<I> {
    waiting: VecDeque<Waiting<I>>,
    /// Items that came back, with the time before which they are not sent again.
    returned: VecDeque<Waiting<I>>,
    taken: usize,
    closed: bool,
    stopped: bool,
}

struct Waiting<I> {
    parcel: Parcel<I>,
    due: Option<Instant>,
}

/// An item on its way, and how often it has failed.
#[derive(Debug)]
pub(super) struct Parcel<I> {
    pub(super) item: I,
    /// Bytes of its image, once it was read.
    pub(super) bytes: u64,
    /// Times that a connection broke while it was sent, and others had been stored since the last time.
    pub(super) breaks: u32,
    /// How many tiles of the run were stored when that last happened.
    stored_at_break: Option<u64>,
    /// Times that the server asked to have it later.
    pub(super) deferrals: u32,
}

impl<I> Parcel<I> {
    /// Notes that a connection broke while it was sent, `stored` tiles into the run. Where nothing was stored since the
    /// last time, it is not this tile: the server is away.
    pub(super) fn note_break(&mut self, stored: u64) {
        self.breaks += u32::from(self.stored_at_break != Some(stored));
        self.stored_at_break = Some(stored);
    }
}

/// What [`Outbox::take`] found.
pub(super) enum Take<I> {
    /// An item that is due.
    Item(Parcel<I>),
    /// Nothing yet: see to the answers that are outstanding.
    NotYet,
    /// Nothing any more.
    Over,
}

impl<I> Outbox<I> {
    /// An outbox in which `capacity` items may wait.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        let (waiting, returned) = (VecDeque::new(), VecDeque::new());
        let state = State { waiting, returned, taken: 0, closed: false, stopped: false };
        Self { state: Mutex::new(state), changed: Condvar::new(), capacity: capacity.max(1) }
    }

    /// An outbox with all items there are; `due` is when each may leave, at once when absent.
    pub fn filled(items: impl IntoIterator<Item = (I, Option<Instant>)>) -> Self {
        let outbox = Self::new(usize::MAX);
        outbox.lock().waiting.extend(items.into_iter().map(|(item, due)| Waiting::new(item, due)));
        outbox.close();
        outbox
    }

    /// Adds an item; waits for room. An outbox that was stopped gives it back.
    ///
    /// # Errors
    /// Stopped: nothing leaves any more.
    pub fn push(&self, item: I) -> Result<(), I> {
        let full = |state: &mut State<I>| state.waiting.len() >= self.capacity && !state.stopped;
        let mut state = self.changed.wait_while(self.lock(), full).unwrap_or_else(PoisonError::into_inner);
        if state.stopped {
            return Err(item);
        }
        state.waiting.push_back(Waiting::new(item, None));
        self.changed.notify_all();
        Ok(())
    }

    /// Adds an item where there is room.
    ///
    /// # Errors
    /// There is none now, or the outbox was stopped: the item.
    pub fn try_push(&self, item: I) -> Result<(), I> {
        let mut state = self.lock();
        if state.stopped || state.waiting.len() >= self.capacity {
            return Err(item);
        }
        state.waiting.push_back(Waiting::new(item, None));
        self.changed.notify_all();
        Ok(())
    }

    /// No more items will come.
    pub fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    /// Nothing is handed out any more; what is taken may still be settled.
    pub fn stop(&self) {
        self.lock().stopped = true;
        self.changed.notify_all();
    }

    /// Items that were neither settled nor are taken.
    #[must_use]
    pub fn left(&self) -> usize {
        let state = self.lock();
        state.waiting.len() + state.returned.len()
    }

    /// The next item. With `wait`, waits a short while for one: items that are not due yet, and those that others hold
    /// and may give back.
    pub(super) fn take(&self, wait: bool) -> Take<I> {
        let (mut state, until) = (self.lock(), Instant::now() + TAKE_WAIT);
        loop {
            if state.stopped || state.is_over() {
                return Take::Over;
            }
            let now = Instant::now();
            if let Some(parcel) = state.next_due(now) {
                state.taken += 1;
                self.changed.notify_all(); // There is room for who pushes.
                return Take::Item(parcel);
            }
            let left = until.saturating_duration_since(now);
            if !wait || left.is_zero() {
                return Take::NotYet;
            }
            let due = state.earliest().map_or(left, |due| due.saturating_duration_since(now).min(left));
            state = self.changed.wait_timeout(state, due).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// A taken item is done with.
    pub(super) fn settle(&self) {
        self.lock().taken -= 1;
        self.changed.notify_all();
    }

    /// A taken item comes back, to be sent again after `delay`.
    pub(super) fn give_back(&self, parcel: Parcel<I>, delay: Duration) {
        let mut state = self.lock();
        state.taken -= 1;
        let due = (!delay.is_zero()).then(|| Instant::now() + delay);
        state.returned.push_back(Waiting { parcel, due });
        self.changed.notify_all();
    }

    /// Waits, at most `delay`, or until the outbox is stopped.
    pub(super) fn pause(&self, delay: Duration) {
        let until = Instant::now() + delay;
        let mut state = self.lock();
        while !state.stopped {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<I>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<I> Waiting<I> {
    fn new(item: I, due: Option<Instant>) -> Self {
        Self { parcel: Parcel { item, bytes: 0, breaks: 0, stored_at_break: None, deferrals: 0 }, due }
    }
}

impl<I> State<I> {
    fn is_over(&self) -> bool {
        self.closed && self.taken == 0 && self.waiting.is_empty() && self.returned.is_empty()
    }

    fn next_due(&mut self, now: Instant) -> Option<Parcel<I>> {
        let is_due = |waiting: &Waiting<I>| waiting.due.is_none_or(|due| due <= now);
        if let Some(at) = self.returned.iter().position(is_due) {
            return self.returned.remove(at).map(|waiting| waiting.parcel);
        }
        let ready = self.waiting.front().is_some_and(is_due);
        if ready { self.waiting.pop_front().map(|waiting| waiting.parcel) } else { None }
    }

    fn earliest(&self) -> Option<Instant> {
        self.returned.iter().chain(self.waiting.front()).filter_map(|waiting| waiting.due).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parcel<I>(take: Take<I>) -> Parcel<I> {
        match take {
            Take::Item(parcel) => parcel,
            Take::NotYet | Take::Over => panic!("no item"),
        }
    }

    fn item<I>(take: Take<I>) -> I {
        parcel(take).item
    }

    #[test]
    fn items_come_in_order_and_those_given_back_come_first() {
        let outbox = Outbox::filled([(1, None), (2, None), (3, None)]);
        let first = parcel(outbox.take(false));
        assert_eq!((first.item, item(outbox.take(false))), (1, 2));
        outbox.give_back(first, Duration::ZERO);
        assert_eq!([item(outbox.take(false)), item(outbox.take(false))], [1, 3]);
        assert!(matches!(outbox.take(false), Take::NotYet), "three items are taken and may come back");
        (0..3).for_each(|_| outbox.settle());
        assert!(matches!(outbox.take(true), Take::Over));
    }

    #[test]
    fn breaks_count_against_an_item_only_where_others_are_stored_in_between() {
        let outbox = Outbox::filled([(1, None)]);
        let mut parcel = parcel(outbox.take(false));
        for (stored, breaks) in [(0, 1), (0, 1), (0, 1), (7, 2), (7, 2), (8, 3)] {
            parcel.note_break(stored);
            assert_eq!(parcel.breaks, breaks, "{stored} stored");
        }
    }

    #[test]
    fn an_item_that_is_not_due_is_waited_for_only_when_asked() {
        let due = Instant::now() + Duration::from_millis(20);
        let outbox = Outbox::filled([(1, Some(due))]);
        assert!(matches!(outbox.take(false), Take::NotYet));
        assert_eq!(item(outbox.take(true)), 1);
        assert!(Instant::now() >= due);
    }

    #[test]
    fn who_pushes_waits_for_room_and_a_stopped_outbox_gives_items_back() {
        let outbox = Outbox::new(1);
        outbox.push(1).expect("room");
        assert_eq!(outbox.try_push(2), Err(2), "no room");
        std::thread::scope(|scope| {
            let pushed = scope.spawn(|| outbox.push(2));
            assert_eq!(item(outbox.take(true)), 1);
            assert_eq!(pushed.join().expect("no panic"), Ok(()));
        });
        outbox.stop();
        assert_eq!(outbox.push(3), Err(3));
        assert!(matches!(outbox.take(true), Take::Over));
        assert_eq!(outbox.left(), 1);
    }
}
