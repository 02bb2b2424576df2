//! Opening a data directory, the commands that append facts, and the queries that read the index.

use super::facts::{JournalFacts, encode_control};
use super::lane::{LaneOptions, Lanes};
use crate::base::clock;
use crate::base::pool::Pool;
use crate::base::stop::{Stop, StopReason};
use crate::index::{AcquisitionView, Index, IndexOptions, OpenReport, StoreError};
use crate::journal::{DirectoryLock, Filesystem, Journal, JournalError, JournalOptions, LaneWriter, RecoveryReport};
use crate::model::{
    AcqId, AcquisitionEnded, AcquisitionStarted, Fact, FactBody, Pressure, Tally, TileEntry, TileId, TileKey,
};
use crate::telemetry::Metrics;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

/// How a catalog is opened.
#[derive(Clone, Copy, Debug)]
pub struct CatalogOptions {
    /// The journal.
    pub journal: JournalOptions,
    /// The index.
    pub index: IndexOptions,
    /// The lanes.
    pub lanes: LaneOptions,
    /// Memory for tile buffers, bytes.
    pub memory_bytes: usize,
}

/// Why a command was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// Somebody else works on the directory.
    #[error("{dir}: in use by another tilecatcher; stop it first, or give this one another directory (--data)")]
    Locked {
        /// The directory.
        dir: PathBuf,
    },
    /// The directory can not be made or locked.
    #[error("{dir}: {source}; check that it exists and that this user may write to it")]
    Directory {
        /// The directory.
        dir: PathBuf,
        /// The operating system's answer.
        source: std::io::Error,
    },
    /// There is no such acquisition.
    #[error("acquisition {0} was never started")]
    UnknownAcquisition(AcqId),
    /// The journal says no.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The index says no.
    #[error(transparent)]
    Index(#[from] StoreError),
}

/// Commands and queries on one data directory.
pub struct Catalog {
    journal: Arc<Journal>,
    index: Arc<Index>,
    pool: Pool,
    metrics: Arc<Metrics>,
    control: Mutex<Option<LaneWriter>>,
    stop: Stop,
    _lock: DirectoryLock,
}

/// A catalog with its lanes running, and what opening it found.
pub struct OpenedCatalog {
    /// The catalog.
    pub catalog: Arc<Catalog>,
    /// The lanes' queues.
    pub lanes: Lanes,
    /// The lanes' threads; they end when all clones of `lanes` are dropped.
    pub threads: Vec<JoinHandle<()>>,
    /// What the journal's recovery found.
    pub recovery: RecoveryReport,
    /// How the index was brought up to date.
    pub index: OpenReport,
}

impl Catalog {
    /// Takes the directory's lock, recovers the journal, opens the index, starts the lanes.
    ///
    /// # Errors
    /// The directory is in use or unusable.
    pub fn open(
        dir: &Path,
        filesystem: Arc<dyn Filesystem>,
        options: &CatalogOptions,
        metrics: &Arc<Metrics>,
        stop: &Stop,
    ) -> Result<OpenedCatalog, CatalogError> {
        let (lock, journal, recovery) = open_journal(dir, filesystem, options.journal)?;
        let journal = Arc::new(journal);
        let safe = {
            let journal = Arc::clone(&journal);
            Box::new(move || journal.safe_sequence())
        };
        let (index, report) = Index::open(&dir.join("index"), &JournalFacts(&journal), safe, &options.index)?;
        let index = Arc::new(index);
        let next_tile = Arc::new(AtomicU64::new(journal.max_tile_id() + 1));
        let directory_error = |source| CatalogError::Directory { dir: dir.to_owned(), source };
        let pool = Pool::new(options.memory_bytes).map_err(directory_error)?;
        let (lanes, threads) =
            Lanes::start(options.lanes, &journal, &index, &next_tile, metrics, stop).map_err(directory_error)?;
        let control = Mutex::new(Some(journal.control_writer()));
        let catalog = Arc::new(Self {
            journal,
            index,
            pool,
            metrics: Arc::clone(metrics),
            control,
            stop: stop.clone(),
            _lock: lock,
        });
        Ok(OpenedCatalog { catalog, lanes, threads, recovery, index: report })
    }

    /// Starts an acquisition, or starts it again: fields are updated, it is open again.
    ///
    /// # Errors
    /// The fact could not be made durable.
    pub fn start_acquisition(&self, started: AcquisitionStarted) -> Result<(), CatalogError> {
        self.record(FactBody::AcquisitionStarted(Box::new(started)))
    }

    /// Ends an acquisition. Late tiles are still accepted.
    ///
    /// # Errors
    /// It was never started; the fact could not be made durable.
    pub fn end_acquisition(&self, acq: AcqId) -> Result<(), CatalogError> {
        if !self.index.is_started(acq) {
            return Err(CatalogError::UnknownAcquisition(acq));
        }
        self.record(FactBody::AcquisitionEnded(AcquisitionEnded { acq }))
    }

    /// The current version of the tile under a key.
    ///
    /// # Errors
    /// The index can not be read.
    pub fn tile_by_key(&self, key: &TileKey) -> Result<Option<TileEntry>, CatalogError> {
        Ok(self.index.tile_by_key(key)?)
    }

    /// The current version of a tile.
    ///
    /// # Errors
    /// The index can not be read.
    pub fn tile_by_id(&self, id: TileId) -> Result<Option<TileEntry>, CatalogError> {
        Ok(self.index.tile_by_id(id)?)
    }

    /// An acquisition, if it was started or has tiles.
    #[must_use]
    pub fn acquisition(&self, acq: AcqId) -> Option<AcquisitionView> {
        self.index.acquisition(acq)
    }

    /// The journal under the catalog.
    #[must_use]
    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    /// The index under the catalog.
    #[must_use]
    pub fn index(&self) -> &Arc<Index> {
        &self.index
    }

    /// The tile buffers.
    #[must_use]
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// The daemon's metrics.
    #[must_use]
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// How full the index' queue is.
    #[must_use]
    pub fn index_pressure(&self) -> Pressure {
        let lag = self.index.lag();
        if lag.store_failed { Pressure::Red } else { Pressure::of(lag.tiles, lag.tiles_max) }
    }

    /// True while storage works: what a health check asks.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.stop.reason() != Some(StopReason::StorageFailed) && !self.index.lag().store_failed
    }

    /// Brings the gauges up to date that nobody counts as they change.
    pub fn refresh_gauges(&self) {
        let bytes = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
        let (status, lag, metrics) = (self.journal.status(), self.index.lag(), &self.metrics);
        Metrics::set(&metrics.buffer_bytes, self.pool.used());
        Metrics::set(&metrics.buffer_limit_bytes, self.pool.capacity());
        Metrics::set(&metrics.buffer_waiters, self.pool.waiting());
        Metrics::set(&metrics.index_lag_tiles, lag.tiles);
        Metrics::set(&metrics.index_store_failed, usize::from(lag.store_failed));
        Metrics::set(&metrics.segments, status.segments);
        Metrics::set(&metrics.segment_bytes, bytes(status.segment_bytes));
        Metrics::set(&metrics.disk_free_bytes, bytes(status.free_bytes));
        Metrics::set(&metrics.seal_failures, bytes(status.seal_failures));
    }

    /// Syncs and seals everything. Call after the lanes have ended; commands fail from now on.
    ///
    /// # Errors
    /// A sync failed.
    pub fn close(&self) -> Result<(), CatalogError> {
        let control = self.control.lock().unwrap_or_else(PoisonError::into_inner).take();
        let closed = control.map_or(Ok(()), LaneWriter::close);
        self.index.close();
        self.journal.close();
        Ok(closed?)
    }

    /// Appends a control fact, syncs it, makes it visible.
    fn record(&self, body: FactBody) -> Result<(), CatalogError> {
        let at_ns = clock::unix_ns();
        let (kind, payload) = encode_control(&body).expect("commands make control facts");
        let digest_crc = crc32fast::hash(&payload);
        let mut control = self.control.lock().unwrap_or_else(PoisonError::into_inner);
        let writer = control.as_mut().ok_or_else(|| JournalError::Unusable {
            path: "control records".into(),
            problem: "the daemon is stopping: try again after its restart".to_owned(),
        })?;
        let placed = writer.append_small(&[(kind, at_ns, &payload)]).and_then(|placed| {
            writer.sync()?;
            Ok(placed)
        });
        let placed = placed.inspect_err(|error| {
            // Nothing will be published for the sequences taken: the index must not wait for it.
            writer.release_floor();
            if !matches!(error, JournalError::NoSpace { .. }) {
                self.stop.raise(StopReason::StorageFailed);
            }
        })?;
        let facts = placed.into_iter().map(|(sequence, _)| Fact {
            sequence,
            at_ns,
            digest: Tally::digest_of(sequence, digest_crc),
            body: body.clone(),
        });
        self.index.publish(facts.collect());
        writer.release_floor();
        Ok(())
    }
}

/// Locks a data directory and opens its journal: also for offline tools.
pub(crate) fn open_journal(
    dir: &Path,
    filesystem: Arc<dyn Filesystem>,
    options: JournalOptions,
) -> Result<(DirectoryLock, Journal, RecoveryReport), CatalogError> {
    let lock = lock_directory(dir, &*filesystem)?;
    let (journal, recovery) = Journal::open(dir, filesystem, options)?;
    Ok((lock, journal, recovery))
}

pub(crate) fn lock_directory(dir: &Path, filesystem: &dyn Filesystem) -> Result<DirectoryLock, CatalogError> {
    let directory_error = |source| CatalogError::Directory { dir: dir.to_owned(), source };
    filesystem.create_dir_all(dir).map_err(directory_error)?;
    DirectoryLock::take(&dir.join("lock"))
        .map_err(directory_error)?
        .ok_or_else(|| CatalogError::Locked { dir: dir.to_owned() })
}
