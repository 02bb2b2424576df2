//! The control thread: appends every fact that is not a tile, in one order, several with one sync.
//!
//! A command is decided here, on this thread, against the index as all earlier commands left it, so that two commands can
//! never both win. Commands that arrive together share a write and a sync when their decisions do not depend on each
//! other ([`Sharing`]). Must never answer before its records are synced and visible (invariant 1).

use super::commands::CatalogError;
use super::facts::encode_control;
use crate::base::clock;
use crate::base::guard::stop_on_panic;
use crate::base::stop::{Stop, StopReason};
use crate::index::Index;
use crate::journal::{JournalError, LaneWriter, RecordKind};
use crate::model::{Fact, FactBody, Location, RoiTileKey, Sequence, Tally};
use crossbeam_channel::{Receiver, RecvTimeoutError, SendTimeoutError, Sender, bounded};
use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Commands that may wait.
const QUEUE: usize = 1024;
/// Commands that share a sync.
const BATCH_COMMANDS: usize = 256;
/// Bytes of records that share a write, as far as one command does not exceed them by itself.
const BATCH_BYTES: usize = 4 << 20;
/// Longest wait for a place in the queue.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest pause between two looks at leases.
const LEASES_EVERY: Duration = Duration::from_secs(1);
/// Tiles that return with one record.
const RETURNED_AT_ONCE: usize = 10_000;

/// Which commands may share a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sharing {
    /// None: its decision must see what all earlier ones did.
    Alone,
    /// Others that hand out tiles: each sees what the others of the batch have claimed.
    HandingOut,
    /// Others that only say what is so now.
    Stating,
}

/// A fact to be recorded, with the bytes of its file if it is one.
pub(super) struct Draft {
    pub(super) body: FactBody,
    pub(super) content: Vec<u8>,
}

impl From<FactBody> for Draft {
    fn from(body: FactBody) -> Self {
        Self { body, content: Vec::new() }
    }
}

/// What a command came to: its own answer, and the sequences of the facts that it asked for.
pub(super) type Done<T> = Result<(T, Vec<Sequence>), CatalogError>;

/// ROI tiles that commands of the batch have taken.
pub(super) type Claims = HashSet<RoiTileKey>;

trait Job: Send {
    /// Something to be done with the writer before the decision.
    fn prepare(&mut self, _: &mut LaneWriter) -> Result<(), JournalError> {
        Ok(())
    }
    fn sharing(&self) -> Sharing;
    /// What is to be recorded; `None` when the command has failed and was answered.
    fn decide(&mut self, index: &Index, claims: &mut Claims) -> Option<Vec<Draft>>;
    fn finish(self: Box<Self>, recorded: Result<Vec<Sequence>, CatalogError>);
}

struct Command<T, D, A> {
    sharing: Sharing,
    decide: Option<D>,
    value: Option<T>,
    answer: Option<A>,
}

impl<T, D, A> Job for Command<T, D, A>
where
    T: Send,
    D: FnOnce(&Index, &mut Claims) -> Result<(Vec<Draft>, T), CatalogError> + Send,
    A: FnOnce(Done<T>) + Send,
{
    fn sharing(&self) -> Sharing {
        self.sharing
    }

    fn decide(&mut self, index: &Index, claims: &mut Claims) -> Option<Vec<Draft>> {
        let decide = self.decide.take()?;
        match decide(index, claims) {
            Ok((drafts, value)) => {
                self.value = Some(value);
                Some(drafts)
            }
            Err(error) => {
                if let Some(answer) = self.answer.take() {
                    answer(Err(error));
                }
                None
            }
        }
    }

    fn finish(mut self: Box<Self>, recorded: Result<Vec<Sequence>, CatalogError>) {
        if let (Some(answer), Some(value)) = (self.answer.take(), self.value.take()) {
            answer(recorded.map(|sequences| (value, sequences)));
        }
    }
}

/// The control segment is to be sealed: where it is said whether there was one.
struct Rotation {
    reply: Sender<bool>,
}

impl Job for Rotation {
    fn prepare(&mut self, writer: &mut LaneWriter) -> Result<(), JournalError> {
        let had_one = writer.rotate()?;
        let _ = self.reply.send(had_one);
        Ok(())
    }

    fn sharing(&self) -> Sharing {
        Sharing::Alone
    }

    fn decide(&mut self, _: &Index, _: &mut Claims) -> Option<Vec<Draft>> {
        None
    }

    fn finish(self: Box<Self>, _: Result<Vec<Sequence>, CatalogError>) {}
}

/// Where commands are handed in.
pub(super) struct Control {
    jobs: Mutex<Option<Sender<Box<dyn Job>>>>,
    thread: Mutex<Option<JoinHandle<Result<(), JournalError>>>>,
}

impl Control {
    pub(super) fn start(writer: LaneWriter, index: &Arc<Index>, stop: &Stop) -> std::io::Result<Self> {
        let (jobs, queue) = bounded(QUEUE);
        let mut thread =
            ControlThread { writer, index: Arc::clone(index), stop: stop.clone(), queue, held: None, failed: false };
        let stop = stop.clone();
        let run = move || {
            let ran = stop_on_panic("control", &stop, || thread.run());
            ran.map_or(Ok(()), |()| thread.writer.close())
        };
        let thread = std::thread::Builder::new().name("control".into()).spawn(run)?;
        Ok(Self { jobs: Mutex::new(Some(jobs)), thread: Mutex::new(Some(thread)) })
    }

    /// Hands a command in without waiting. `answer` is called once, on the control thread: it must not block.
    pub(super) fn submit<T: Send + 'static>(
        &self,
        sharing: Sharing,
        decide: impl FnOnce(&Index, &mut Claims) -> Result<(Vec<Draft>, T), CatalogError> + Send + 'static,
        answer: impl FnOnce(Done<T>) + Send + 'static,
    ) -> Result<(), CatalogError> {
        self.submit_within(Duration::ZERO, sharing, decide, answer)
    }

    fn submit_within<T: Send + 'static>(
        &self,
        patience: Duration,
        sharing: Sharing,
        decide: impl FnOnce(&Index, &mut Claims) -> Result<(Vec<Draft>, T), CatalogError> + Send + 'static,
        answer: impl FnOnce(Done<T>) + Send + 'static,
    ) -> Result<(), CatalogError> {
        let jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner).clone().ok_or(CatalogError::Stopping)?;
        let command = Command { sharing, decide: Some(decide), value: None, answer: Some(answer) };
        jobs.send_timeout(Box::new(command), patience).map_err(|error| match error {
            SendTimeoutError::Timeout(_) => CatalogError::Busy,
            SendTimeoutError::Disconnected(_) => CatalogError::Stopping,
        })
    }

    /// Has the open segment sealed, behind the commands that wait. False: there was none.
    pub(super) fn rotate(&self) -> Result<bool, CatalogError> {
        let jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner).clone().ok_or(CatalogError::Stopping)?;
        let (reply, rotated) = bounded(1);
        jobs.send_timeout(Box::new(Rotation { reply }), PATIENCE).map_err(|_| CatalogError::Busy)?;
        rotated.recv().map_err(|_| CatalogError::Stopping)
    }

    /// Hands a command in and waits for its end.
    pub(super) fn run<T: Send + 'static>(
        &self,
        sharing: Sharing,
        decide: impl FnOnce(&Index, &mut Claims) -> Result<(Vec<Draft>, T), CatalogError> + Send + 'static,
    ) -> Done<T> {
        let (answer, answered) = bounded(1);
        self.submit_within(PATIENCE, sharing, decide, move |done| drop(answer.send(done)))?;
        answered.recv().unwrap_or(Err(CatalogError::Stopping))
    }

    /// Ends the thread when what was handed in is done; syncs and seals.
    pub(super) fn close(&self) -> Result<(), JournalError> {
        drop(self.jobs.lock().unwrap_or_else(PoisonError::into_inner).take());
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        thread.and_then(|thread| thread.join().ok()).unwrap_or(Ok(()))
    }
}

struct ControlThread {
    writer: LaneWriter,
    index: Arc<Index>,
    stop: Stop,
    queue: Receiver<Box<dyn Job>>,
    /// A command that could not share the last batch.
    held: Option<Box<dyn Job>>,
    failed: bool,
}

/// Commands that share a sync, each with its records.
#[derive(Default)]
struct Batch {
    jobs: Vec<(Box<dyn Job>, usize)>,
    facts: Vec<FactBody>,
    records: Vec<(RecordKind, i64, Vec<u8>)>,
    claims: Claims,
    bytes: usize,
}

impl ControlThread {
    fn run(&mut self) {
        let mut looked = Instant::now();
        loop {
            let first = match self.held.take() {
                Some(job) => Some(job),
                None => match self.queue.recv_timeout(LEASES_EVERY) {
                    Ok(job) => Some(job),
                    Err(RecvTimeoutError::Timeout) => None,
                    Err(RecvTimeoutError::Disconnected) => return,
                },
            };
            if looked.elapsed() >= LEASES_EVERY || first.is_none() {
                self.return_overdue();
                looked = Instant::now();
            }
            if let Some(first) = first {
                self.serve(first);
            }
        }
    }

    /// Decides and records a command, and those behind it that may share its sync and wait already.
    fn serve(&mut self, mut first: Box<dyn Job>) {
        if !self.failed
            && let Err(error) = first.prepare(&mut self.writer)
        {
            tracing::error!(%error, "storage failed: the daemon stops");
            self.failed = true;
            self.stop.raise(StopReason::StorageFailed);
        }
        let sharing = first.sharing();
        let mut batch = Batch::default();
        self.add(&mut batch, first);
        while sharing != Sharing::Alone && batch.jobs.len() < BATCH_COMMANDS && batch.bytes < BATCH_BYTES {
            let Ok(next) = self.queue.try_recv() else { break };
            if next.sharing() != sharing {
                self.held = Some(next);
                break;
            }
            self.add(&mut batch, next);
        }
        self.commit(batch);
    }

    fn add(&self, batch: &mut Batch, mut job: Box<dyn Job>) {
        let Some(drafts) = job.decide(&self.index, &mut batch.claims) else { return };
        let at_ns = clock::unix_ns();
        batch.jobs.push((job, drafts.len()));
        for Draft { body, content } in drafts {
            let (kind, payload) = encode_control(&body, &content).expect("commands make control facts");
            batch.bytes += payload.len();
            batch.records.push((kind, at_ns, payload));
            batch.facts.push(body);
        }
    }

    fn commit(&mut self, batch: Batch) {
        let recorded = self.record(&batch.records, batch.facts);
        let mut sequences = match recorded {
            Ok(sequences) => sequences.into_iter(),
            Err(error) => {
                let no_space = matches!(error, CatalogError::Journal(JournalError::NoSpace { .. }));
                let text = error.to_string();
                let mut first = Some(error);
                for (job, _) in batch.jobs {
                    let other = || {
                        if no_space { CatalogError::NoSpace(text.clone()) } else { CatalogError::Storage(text.clone()) }
                    };
                    job.finish(Err(first.take().unwrap_or_else(other)));
                }
                return;
            }
        };
        for (job, facts) in batch.jobs {
            job.finish(Ok(sequences.by_ref().take(facts).collect()));
        }
    }

    /// Appends records, syncs them, makes their facts visible.
    fn record(
        &mut self,
        records: &[(RecordKind, i64, Vec<u8>)],
        facts: Vec<FactBody>,
    ) -> Result<Vec<Sequence>, CatalogError> {
        if records.is_empty() {
            return Ok(Vec::new());
        }
        if self.failed {
            return Err(CatalogError::Storage("an earlier write failed: the daemon is stopping".to_owned()));
        }
        let borrowed: Vec<(RecordKind, i64, &[u8])> =
            records.iter().map(|(kind, at_ns, payload)| (*kind, *at_ns, payload.as_slice())).collect();
        let placed = self.writer.append_small(&borrowed).and_then(|placed| {
            self.writer.sync()?;
            Ok(placed)
        });
        let placed: Vec<(Sequence, Location)> = placed.inspect_err(|error| {
            // Nothing will be published for the sequences taken: the index must not wait for it.
            self.writer.release_floor();
            if !matches!(error, JournalError::NoSpace { .. }) {
                self.failed = true;
                self.stop.raise(StopReason::StorageFailed);
            }
        })?;
        let facts = placed.iter().zip(records).zip(facts).map(|((place, record), body)| {
            let (sequence, location) = *place;
            let digest = Tally::digest_of(sequence, crc32fast::hash(&record.2));
            Fact { sequence, at_ns: record.1, digest, location, body }
        });
        self.index.publish(facts.collect());
        self.writer.release_floor();
        Ok(placed.into_iter().map(|(sequence, _)| sequence).collect())
    }

    /// Returns lent tiles whose time is over.
    fn return_overdue(&mut self) {
        let overdue = self.index.overdue(clock::steady_unix_ns(), RETURNED_AT_ONCE);
        if overdue.is_empty() {
            return;
        }
        tracing::info!(tiles = overdue.len(), "leases are over: tiles return to their earlier state");
        let drafts = super::states::returned(overdue);
        let at_ns = clock::unix_ns();
        let encode = |body: &FactBody| encode_control(body, &[]).map(|(kind, payload)| (kind, at_ns, payload));
        let records: Vec<_> = drafts.iter().filter_map(encode).collect();
        if let Err(error) = self.record(&records, drafts) {
            tracing::warn!(%error, "tiles whose lease is over could not be returned yet");
        }
    }
}
