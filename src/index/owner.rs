//! The owner: the one thread that writes the store. Collects published facts, puts them into the journal's order,
//! folds them in batches. Readers never wait for it.

use super::fold::{FoldState, fold};
use super::overlay::Overlay;
use super::store::{StoreError, ViewStore};
use crate::model::{Fact, Sequence};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, unbounded};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Longest time that a fact waits for company before it is folded.
const FOLD_AFTER: Duration = Duration::from_millis(100);
/// Facts that are folded at once without waiting. Many, because neighbours share rows.
const FOLD_AT: usize = 4096;
/// Time between flushes of the store.
const FLUSH_EVERY: Duration = Duration::from_secs(1);

/// Handle to the owner's thread.
pub(super) struct Owner {
    /// Unbounded in type; bounded by the overlay, whose limit publishers wait for.
    facts: Sender<Option<Vec<Fact>>>,
    failed: Arc<AtomicBool>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Folder {
    store: Arc<dyn ViewStore>,
    overlay: Arc<Overlay>,
    state: FoldState,
    safe_sequence: Box<dyn Fn() -> Sequence + Send>,
    inbox: Receiver<Option<Vec<Fact>>>,
    waiting: BTreeMap<Sequence, Fact>,
    stopping: bool,
    failed: Arc<AtomicBool>,
}

impl Owner {
    pub(super) fn start(
        store: Arc<dyn ViewStore>,
        overlay: Arc<Overlay>,
        state: FoldState,
        safe_sequence: Box<dyn Fn() -> Sequence + Send>,
    ) -> Result<Self, StoreError> {
        let (facts, inbox) = unbounded();
        let failed = Arc::new(AtomicBool::new(false));
        let folder = Folder {
            store,
            overlay,
            state,
            safe_sequence,
            inbox,
            waiting: BTreeMap::new(),
            stopping: false,
            failed: Arc::clone(&failed),
        };
        let thread = std::thread::Builder::new()
            .name("index".into())
            .spawn(move || {
                let lost = Arc::clone(&folder.failed);
                if std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| folder.run())).is_err() {
                    tracing::error!(
                        "the index thread panicked: capture goes on until the overlay is full; restart the daemon"
                    );
                    lost.store(true, Ordering::Relaxed);
                }
            })
            .map_err(|error| StoreError::Store(format!("can not start the index thread: {error}")))?;
        Ok(Self { facts, failed, thread: Mutex::new(Some(thread)) })
    }

    pub(super) fn take(&self, facts: Vec<Fact>) {
        let _ = self.facts.send(Some(facts));
    }

    pub(super) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    pub(super) fn stop(&self) {
        let _ = self.facts.send(None);
        if let Some(thread) = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Folder {
    fn run(mut self) {
        let mut flushed = Instant::now();
        let mut unflushed = false;
        while !self.stopping {
            self.collect();
            unflushed |= self.fold_what_is_safe();
            if unflushed && (self.stopping || flushed.elapsed() >= FLUSH_EVERY) {
                if let Err(error) = self.store.flush() {
                    self.fail(&error);
                }
                (flushed, unflushed) = (Instant::now(), false);
            }
        }
    }

    /// Waits for facts, then for more of them, but no longer than [`FOLD_AFTER`].
    fn collect(&mut self) {
        match self.inbox.recv_timeout(FLUSH_EVERY) {
            Ok(message) => self.note(message),
            Err(RecvTimeoutError::Timeout) => return,
            Err(RecvTimeoutError::Disconnected) => self.stopping = true,
        }
        let until = Instant::now() + FOLD_AFTER;
        while !self.stopping && self.waiting.len() < FOLD_AT {
            match self.inbox.recv_deadline(until) {
                Ok(message) => self.note(message),
                Err(_) => return,
            }
        }
    }

    fn note(&mut self, message: Option<Vec<Fact>>) {
        match message {
            Some(facts) => self.waiting.extend(facts.into_iter().map(|fact| (fact.sequence, fact))),
            None => self.stopping = true,
        }
    }

    /// Folds everything below the journal's safe sequence. The order matters: first ask what is safe, then drain
    /// the queue, because writers publish first and raise their floor afterwards.
    fn fold_what_is_safe(&mut self) -> bool {
        let safe = (self.safe_sequence)();
        while let Ok(message) = self.inbox.try_recv() {
            self.note(message);
        }
        let later = self.waiting.split_off(&safe);
        let facts: Vec<Fact> = std::mem::replace(&mut self.waiting, later).into_values().collect();
        if facts.is_empty() || self.failed.load(Ordering::Relaxed) {
            return false;
        }
        // sled may panic where another store would return an error.
        let (store, state) = (&*self.store, &mut self.state);
        let folded = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| fold(store, state, &facts)));
        match folded.unwrap_or_else(|_| Err(StoreError::Store("it panicked".to_owned()))) {
            Ok(()) => {
                self.overlay.trim(&facts);
                true
            }
            Err(error) => {
                self.fail(&error);
                false
            }
        }
    }

    fn fail(&self, error: &StoreError) {
        self.failed.store(true, Ordering::Relaxed);
        tracing::error!(%error, "the index store failed: capture goes on until the overlay is full; restart the daemon, it rebuilds the index");
    }
}
