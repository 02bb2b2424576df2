//! The messages that wait for one channel: bounded, the oldest goes first, whether sent or dropped.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A queue that never makes its writer wait.
pub(super) struct Queue<T> {
    most: usize,
    state: Mutex<Waiting<T>>,
    changed: Condvar,
}

struct Waiting<T> {
    items: VecDeque<T>,
    is_closed: bool,
}

impl<T> Queue<T> {
    pub(super) fn new(most: usize) -> Self {
        let state = Mutex::new(Waiting { items: VecDeque::with_capacity(most), is_closed: false });
        Self { most, state, changed: Condvar::new() }
    }

    /// Takes an item in; gives back the oldest one when there is no room for both.
    pub(super) fn push(&self, item: T) -> Option<T> {
        let mut state = self.lock();
        let dropped = if state.items.len() >= self.most { state.items.pop_front() } else { None };
        state.items.push_back(item);
        drop(state);
        self.changed.notify_all();
        dropped
    }

    /// The oldest item, waiting for one; `None` when there is none and there will be none.
    pub(super) fn pop(&self) -> Option<T> {
        let mut state = self.lock();
        loop {
            if let Some(item) = state.items.pop_front() {
                return Some(item);
            }
            if state.is_closed {
                return None;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Nothing more will come.
    pub(super) fn close(&self) {
        self.lock().is_closed = true;
        self.changed.notify_all();
    }

    /// Waits for so long, or until it is closed; says whether it is.
    pub(super) fn rest(&self, limit: Duration) -> bool {
        let wait = self.changed.wait_timeout_while(self.lock(), limit, |state| !state.is_closed);
        wait.unwrap_or_else(PoisonError::into_inner).0.is_closed
    }

    fn lock(&self) -> MutexGuard<'_, Waiting<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_queue_drops_its_oldest_item_and_a_closed_one_gives_what_it_has() {
        let queue = Queue::new(2);
        assert_eq!([queue.push(1), queue.push(2), queue.push(3)], [None, None, Some(1)]);
        queue.close();
        assert_eq!([queue.pop(), queue.pop(), queue.pop()], [Some(2), Some(3), None]);
        assert!(queue.rest(Duration::from_secs(60)), "a closed queue lets nobody rest");
    }

    #[test]
    fn who_rests_is_not_woken_by_items() {
        let queue = Queue::new(2);
        queue.push(1);
        assert!(!queue.rest(Duration::from_millis(1)));
    }
}
