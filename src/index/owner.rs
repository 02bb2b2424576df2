//! The owner: the one thread that writes the store. Collects published facts, puts them into the journal's order,
//! folds them in batches. Readers never wait for it.

use super::current::Current;
use super::fold::{Checkpoint, FoldState, fold};
use super::overlay::Overlay;
use super::store::{StoreError, ViewStore};
use crate::model::{Fact, FactBody, Sequence};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, unbounded};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Longest time that a fact waits for company before it is folded.
const FOLD_AFTER: Duration = Duration::from_millis(100);
/// Facts that are folded at once without waiting. Many, because neighbours share rows.
const FOLD_AT: usize = 4096;
/// Most facts that are kept for a second store, by [`weight`]; with more it reads them from the journal again.
const KEPT_MAX: usize = 65_536;
/// Most facts that the owner rests for: it folds none until they are folded elsewhere.
const REST_MAX: usize = 8192;
/// Time between flushes of the store.
const FLUSH_EVERY: Duration = Duration::from_secs(1);

/// Handle to the owner's thread.
pub(super) struct Owner {
    /// Unbounded in type; bounded by the overlay, whose limit publishers wait for.
    words: Sender<Word>,
    failed: Arc<AtomicBool>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// What the owner is told.
enum Word {
    /// Facts that were published.
    Facts(Vec<Fact>),
    /// From now on, keep what is folded. Answered with what was folded so far.
    Keep(Sender<Checkpoint>),
    /// Nobody wants what is kept.
    Forget,
    /// Say what was kept, and rest until somebody says how to go on.
    Rest(Sender<Rest>),
    /// Fold what is left, and end.
    Stop,
}

/// The owner while it rests.
struct Rest {
    /// What was folded since [`Word::Keep`]; `None`: too much.
    facts: Option<Vec<Fact>>,
    reached: Checkpoint,
    go_on: Sender<GoOn>,
}

/// A store to be taken into use, with its state, and where the old one goes. Nothing said: as before.
type GoOn = (Arc<dyn ViewStore>, FoldState, Sender<Arc<dyn ViewStore>>);

/// The owner rests as long as this lives.
pub(super) struct Held<'a> {
    rest: Rest,
    _owner: &'a Owner,
}

/// Facts are kept as long as this lives, unless the owner rests before.
pub(super) struct Kept<'a>(&'a Owner);

impl Drop for Kept<'_> {
    fn drop(&mut self) {
        let _ = self.0.words.send(Word::Forget);
    }
}

impl Held<'_> {
    /// What was folded since facts are kept.
    pub(super) fn take_facts(&mut self) -> Vec<Fact> {
        self.rest.facts.take().unwrap_or_default()
    }

    /// What the store in use holds.
    pub(super) fn reached(&self) -> &Checkpoint {
        &self.rest.reached
    }

    /// Has the owner go on with another store, which holds the same facts. Returns the old one.
    pub(super) fn adopt(self, store: Arc<dyn ViewStore>, state: FoldState) -> Result<Arc<dyn ViewStore>, StoreError> {
        let (reply, replaced) = bounded(1);
        let _ = self.rest.go_on.send((store, state, reply));
        replaced.recv().map_err(|_| ended())
    }
}

struct Folder {
    store: Arc<Current>,
    overlay: Arc<Overlay>,
    state: FoldState,
    safe_sequence: Box<dyn Fn() -> Sequence + Send>,
    inbox: Receiver<Word>,
    waiting: BTreeMap<Sequence, Fact>,
    /// What was folded since somebody asked for it; `Some(None)`: too much.
    kept: Option<Option<Vec<Fact>>>,
    /// How much that is: [`weight`].
    kept_weight: usize,
    stopping: bool,
    failed: Arc<AtomicBool>,
}

impl Owner {
    pub(super) fn start(
        store: Arc<Current>,
        overlay: Arc<Overlay>,
        state: FoldState,
        safe_sequence: Box<dyn Fn() -> Sequence + Send>,
    ) -> Result<Self, StoreError> {
        let (words, inbox) = unbounded();
        let failed = Arc::new(AtomicBool::new(false));
        let folder = Folder {
            store,
            overlay,
            state,
            safe_sequence,
            inbox,
            waiting: BTreeMap::new(),
            kept: None,
            kept_weight: 0,
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
        Ok(Self { words, failed, thread: Mutex::new(Some(thread)) })
    }

    pub(super) fn take(&self, facts: Vec<Fact>) {
        let _ = self.words.send(Word::Facts(facts));
    }

    /// Keeps what is folded from now on. Returns what was folded so far.
    pub(super) fn keep_facts(&self) -> Result<(Checkpoint, Kept<'_>), StoreError> {
        if self.has_failed() {
            return Err(StoreError::Store("it failed: restart the daemon, it rebuilds the index".to_owned()));
        }
        let (reply, reached) = bounded(1);
        let _ = self.words.send(Word::Keep(reply));
        let kept = Kept(self);
        Ok((reached.recv().map_err(|_| ended())?, kept))
    }

    /// Has the owner rest. `None`: it folded more than it rests for.
    pub(super) fn rest(&self) -> Result<Option<Held<'_>>, StoreError> {
        let (reply, rests) = bounded(1);
        let _ = self.words.send(Word::Rest(reply));
        let rest: Rest = rests.recv().map_err(|_| ended())?;
        Ok(rest.facts.is_some().then_some(Held { rest, _owner: self }))
    }

    pub(super) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    pub(super) fn stop(&self) {
        let _ = self.words.send(Word::Stop);
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

    fn note(&mut self, word: Word) {
        match word {
            Word::Facts(facts) => self.waiting.extend(facts.into_iter().map(|fact| (fact.sequence, fact))),
            Word::Keep(reply) => {
                (self.kept, self.kept_weight) = (Some(Some(Vec::new())), 0);
                let _ = reply.send(self.state.checkpoint.clone());
            }
            Word::Forget => self.kept = None,
            Word::Rest(reply) => self.rest(&reply),
            Word::Stop => self.stopping = true,
        }
    }

    /// Rests until whoever asked for it says how to go on, or is gone.
    fn rest(&mut self, reply: &Sender<Rest>) {
        let (go_on, goes_on) = bounded(1);
        let facts = self.kept.take().flatten();
        let facts = facts.filter(|facts| facts.len() <= REST_MAX && !self.failed.load(Ordering::Relaxed));
        let _ = reply.send(Rest { facts, reached: self.state.checkpoint.clone(), go_on });
        if let Ok((store, state, old)) = goes_on.recv() {
            self.state = state;
            let _ = old.send(self.store.replace(store));
        }
    }

    /// Keeps what was folded, for whoever asked for that.
    fn keep(&mut self, folded: Vec<Fact>) {
        let Some(kept) = &mut self.kept else { return };
        let weight = folded.iter().map(weight).sum::<usize>();
        match kept {
            Some(facts) if self.kept_weight + weight <= KEPT_MAX => {
                facts.extend(folded);
                self.kept_weight += weight;
            }
            _ => *kept = None,
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
                self.keep(facts);
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

/// A fact about many places counts for as many.
fn weight(fact: &Fact) -> usize {
    match &fact.body {
        FactBody::StatesChanged(changed) => changed.tiles.iter().map(|tiles| tiles.cells.len()).sum::<usize>().max(1),
        FactBody::RoisCreated(created) => created.rois.iter().map(|(_, places)| places.len()).sum::<usize>().max(1),
        FactBody::TilesJudged(judged) => judged.tiles.len().max(1),
        _ => 1,
    }
}

fn ended() -> StoreError {
    StoreError::Store("the index thread has ended".to_owned())
}
