//! Index check and rebuild beside capture: one at a time, on a thread of its own; the last one's outcome is kept.
//!
//! Must never hold the daemon's end up for longer than a step.

use super::facts::StrictFacts;
use super::{Catalog, Lanes};
use crate::base::clock;
use crate::index::{Differences, LiveProgress, LiveSource, StoreError};
use crate::model::Pressure;
use serde::Serialize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum IndexJobKind {
    /// The index is compared with what the journal gives.
    Check,
    /// It is replaced by what the journal gives.
    Rebuild,
}

/// What came of it.
#[derive(Clone, Debug)]
pub enum IndexJobOutcome {
    /// Nothing yet.
    Running,
    /// Compared.
    Checked(Differences),
    /// Replaced.
    Rebuilt,
    /// It could not be done; the index is as it was.
    Failed(String),
}

/// A check or a rebuild.
#[derive(Clone, Debug)]
pub struct IndexJob {
    /// Which.
    pub kind: IndexJobKind,
    /// When it began, ns since 1970 UTC.
    pub began_ns: i64,
    /// How long it took, or has taken so far.
    pub took: Duration,
    /// Facts folded so far.
    pub folded: u64,
    /// Facts to be folded, as far as that is known.
    pub facts: u64,
    /// What came of it.
    pub outcome: IndexJobOutcome,
}

struct Running {
    job: IndexJob,
    began: Instant,
    progress: Arc<LiveProgress>,
}

/// The last job. One for each daemon.
#[derive(Default)]
pub struct IndexJobs(Mutex<Option<Running>>);

impl IndexJobs {
    /// The job that runs, or the last one.
    #[must_use]
    pub fn last(&self) -> Option<IndexJob> {
        let running = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let running = running.as_ref()?;
        let mut job = running.job.clone();
        job.folded = running.progress.folded.load(Ordering::Relaxed);
        job.facts = running.progress.facts.load(Ordering::Relaxed);
        if matches!(job.outcome, IndexJobOutcome::Running) {
            job.took = running.began.elapsed();
        }
        Some(job)
    }

    /// Begins a job, if none runs. `Err`: another kind runs.
    fn begin(&self, kind: IndexJobKind) -> Result<Option<Arc<LiveProgress>>, IndexJobKind> {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match last.as_ref().filter(|last| matches!(last.job.outcome, IndexJobOutcome::Running)) {
            Some(running) if running.job.kind == kind => return Ok(None),
            Some(running) => return Err(running.job.kind),
            None => {}
        }
        let (began_ns, began, progress) = (clock::unix_ns(), Instant::now(), Arc::new(LiveProgress::default()));
        let outcome = IndexJobOutcome::Running;
        let job = IndexJob { kind, began_ns, took: Duration::ZERO, folded: 0, facts: 0, outcome };
        *last = Some(Running { job, began, progress: Arc::clone(&progress) });
        Ok(Some(progress))
    }

    fn end(&self, outcome: IndexJobOutcome) {
        if let Some(running) = &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            (running.job.took, running.job.outcome) = (running.began.elapsed(), outcome);
        }
    }
}

impl Catalog {
    /// Begins a check or a rebuild; one of this kind that runs already goes on.
    ///
    /// # Errors
    /// One of the other kind runs.
    pub fn begin_index_job(self: &Arc<Self>, lanes: &Lanes, kind: IndexJobKind) -> Result<(), IndexJobKind> {
        let Some(progress) = self.index_jobs().begin(kind)? else { return Ok(()) };
        let (catalog, lanes) = (Arc::clone(self), lanes.clone());
        let run = move || {
            let done = catch_unwind(AssertUnwindSafe(|| catalog.do_index_job(&lanes, kind, &progress)));
            // sled may panic where another store would return an error.
            let done = done.unwrap_or_else(|_| Err(StoreError::Store("it panicked".to_owned())));
            let outcome = done.unwrap_or_else(|error| IndexJobOutcome::Failed(error.to_string()));
            catalog.tell(kind, &outcome);
            catalog.index_jobs().end(outcome);
        };
        if let Err(error) = std::thread::Builder::new().name("index-job".into()).spawn(run) {
            self.index_jobs().end(IndexJobOutcome::Failed(format!("no thread for it: {error}")));
        }
        Ok(())
    }

    fn do_index_job(
        &self,
        lanes: &Lanes,
        kind: IndexJobKind,
        progress: &LiveProgress,
    ) -> Result<IndexJobOutcome, StoreError> {
        let facts = StrictFacts(self.journal());
        let seal = || self.rotate(lanes).map(drop).map_err(|error| StoreError::Facts(error.to_string()));
        let has_room = || self.disk_pressure() != Pressure::Red;
        let source = LiveSource { facts: &facts, seal: &seal, has_room: &has_room, stop: self.stop(), progress };
        match kind {
            IndexJobKind::Check => self.index().check_live(&source).map(IndexJobOutcome::Checked),
            IndexJobKind::Rebuild => self.index().rebuild_live(&source).map(|_| IndexJobOutcome::Rebuilt),
        }
    }

    fn tell(&self, kind: IndexJobKind, outcome: &IndexJobOutcome) {
        match outcome {
            IndexJobOutcome::Checked(found) if found.rows > 0 || found.more => {
                tracing::error!(rows = found.rows, first = ?found.named.first(), "the index does not say what the journal says: rebuild it (`tilecatcher admin index rebuild`)");
            }
            IndexJobOutcome::Failed(problem) => {
                tracing::error!(?kind, problem, "the index could not be checked or rebuilt")
            }
            _ => tracing::info!(?kind, "the index agrees with the journal"),
        }
    }
}
