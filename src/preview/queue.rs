//! What waits to be made: in the order in which it was asked for, equal questions once, a bounded number.

use super::{Answer, Ask, PreviewError};
use crate::model::AcqId;
use std::collections::{HashMap, VecDeque};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use tokio::sync::oneshot::{Receiver, Sender, channel};

/// The queue of all threads that make previews.
pub(super) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
    places: usize,
}

#[derive(Default)]
struct State {
    order: VecDeque<Ask>,
    askers: HashMap<Ask, Vec<Sender<Answer>>>,
    /// Number of all askers.
    waiting: usize,
    forget: Vec<AcqId>,
    stopped: bool,
}

/// What a thread has to do.
pub(super) enum Job {
    /// A question, and those who wait for its answer.
    Make(Ask, Askers),
    /// An acquisition was deleted.
    Forget(AcqId),
}

/// Those who wait for one answer.
pub(super) struct Askers(Vec<Sender<Answer>>);

impl Askers {
    pub(super) fn answer(self, answer: Answer) {
        for asker in self.0 {
            let _ = asker.send(answer.clone());
        }
    }
}

impl Queue {
    pub(super) fn new(places: usize) -> Self {
        Self { state: Mutex::default(), changed: Condvar::new(), places }
    }

    /// Takes a place; the answer comes through what is returned. `None`: full, or stopped.
    pub(super) fn put(&self, ask: Ask) -> Option<Receiver<Answer>> {
        let mut state = self.lock();
        if state.stopped || state.waiting >= self.places {
            return None;
        }
        let (asker, answer) = channel();
        state.waiting += 1;
        let askers = state.askers.entry(ask).or_default();
        askers.push(asker);
        if askers.len() == 1 {
            state.order.push_back(ask);
            self.changed.notify_one();
        }
        Some(answer)
    }

    /// Has the files of an acquisition removed.
    pub(super) fn forget(&self, acq: AcqId) {
        self.lock().forget.push(acq);
        self.changed.notify_one();
    }

    /// Waits for something to do. Questions that nobody waits for any more are passed over. `None`: stopped.
    pub(super) fn take(&self) -> Option<Job> {
        let mut state = self.lock();
        loop {
            if state.stopped {
                return None;
            }
            if let Some(acq) = state.forget.pop() {
                return Some(Job::Forget(acq));
            }
            let Some(ask) = state.order.pop_front() else {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let mut askers = state.askers.remove(&ask).unwrap_or_default();
            state.waiting -= askers.len();
            askers.retain(|asker| !asker.is_closed());
            if !askers.is_empty() {
                return Some(Job::Make(ask, Askers(askers)));
            }
        }
    }

    /// Answers all who wait, and everybody else, that it is over.
    pub(super) fn stop(&self) {
        let mut state = self.lock();
        state.stopped = true;
        state.order.clear();
        let askers: Vec<Sender<Answer>> = state.askers.drain().flat_map(|(_, askers)| askers).collect();
        drop(state);
        self.changed.notify_all();
        Askers(askers).answer(Err(PreviewError::Busy("the daemon is stopping")));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{TileId, TileVersion};

    fn ask(id: u64) -> Ask {
        let (id, version) = (TileId(id), TileVersion(1));
        Ask::Tile { id, version, region: None, size: None, contrast: None }
    }

    fn taken(queue: &Queue) -> (u64, usize) {
        match queue.take() {
            Some(Job::Make(Ask::Tile { id, .. }, askers)) => (id.0, askers.0.len()),
            _ => panic!("something else"),
        }
    }

    #[test]
    fn equal_questions_are_one_and_the_first_asked_is_the_first_done() {
        let queue = Queue::new(10);
        let held: Vec<_> = [3, 1, 3, 2].map(|id| queue.put(ask(id)).expect("a place")).into();
        assert_eq!([taken(&queue), taken(&queue), taken(&queue)], [(3, 2), (1, 1), (2, 1)]);
        drop(held);
    }

    #[test]
    fn a_full_queue_takes_no_more_and_what_nobody_awaits_is_not_done() {
        let queue = Queue::new(2);
        let (gone, held) = (queue.put(ask(1)), queue.put(ask(2)));
        assert!(queue.put(ask(3)).is_none());
        drop(gone);
        assert_eq!(taken(&queue), (2, 1));
        assert!(queue.put(ask(3)).is_some());
        drop(held);
    }

    #[test]
    fn a_stop_answers_those_who_wait() {
        let queue = Queue::new(2);
        let mut held = queue.put(ask(1)).expect("a place");
        queue.forget(AcqId(1));
        queue.stop();
        assert!(matches!(held.try_recv(), Ok(Err(PreviewError::Busy(_)))));
        assert!(queue.take().is_none() && queue.put(ask(2)).is_none());
    }
}
