//! Opening a data directory, the commands that append facts, and the queries that read the index.

use super::activity::Activity;
use super::control::{Control, Draft, Sharing};
use super::damage::{DamageLog, Finding, FoundBy};
use super::endings::Endings;
use super::facts::JournalFacts;
use super::index_job::IndexJobs;
use super::lane::{LaneOptions, Lanes};
use super::live_limits::LiveLimits;
use super::roi_limits;
use super::scrub_control::ScrubControl;
use super::sections::earlier_with_sections;
use super::switch::{CaptureState, CaptureSwitch};
use crate::base::pool::Pool;
use crate::base::stop::{Stop, StopReason};
use crate::index::{AcquisitionView, Index, IndexOptions, OpenReport, StoreError, ViewStore};
use crate::journal::{
    DirectoryLock, Filesystem, Journal, JournalError, JournalOptions, MirrorPhase, ReadError, RecoveryReport,
};
use crate::model::{
    AckLevel, AcqId, AcquisitionDeleted, AcquisitionEnded, AcquisitionStarted, AncillaryKind, Calibration,
    CalibrationsImported, FactBody, FileStored, ManifestMade, Pressure, Roi, RoisCreated, Sequence, Temca,
    TemcaConfigured, TileEntry, TileId, TileKey, TileVersion, TilesJudged,
};
use crate::telemetry::Metrics;
use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Time between two looks at a directory that is in use.
const LOCK_POLL: Duration = Duration::from_millis(20);

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
    /// How long to wait for a directory that is in use.
    pub lock_wait: Duration,
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
    /// What was asked for makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// Too much is waiting: come again.
    #[error("too many commands are waiting: try again")]
    Busy,
    /// The daemon stops.
    #[error("the daemon is stopping: try again after its restart")]
    Stopping,
    /// No room, found out with another command.
    #[error("{0}")]
    NoSpace(String),
    /// Writing failed, found out with another command.
    #[error("{0}")]
    Storage(String),
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
    control: Control,
    next_tile: Arc<AtomicU64>,
    damage: DamageLog,
    endings: Endings,
    activity: Arc<Activity>,
    ack: AckLevel,
    switch: CaptureSwitch,
    scrub: ScrubControl,
    limits: LiveLimits,
    index_jobs: IndexJobs,
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
    /// Takes the directory's lock (waits for it as long as the options say, or until the stop), recovers the journal, opens
    /// the index, starts the lanes.
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
        Self::open_on(dir, filesystem, None, options, metrics, stop)
    }

    /// As [`Self::open`], with the index on a store that is at hand instead of sled's files below `dir`.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_on(
        dir: &Path,
        filesystem: Arc<dyn Filesystem>,
        index: Option<Arc<dyn ViewStore>>,
        options: &CatalogOptions,
        metrics: &Arc<Metrics>,
        stop: &Stop,
    ) -> Result<OpenedCatalog, CatalogError> {
        let lock = await_directory(dir, &*filesystem, options.lock_wait, stop)?;
        let (journal, recovery) = Journal::open(dir, filesystem, options.journal)?;
        let journal = Arc::new(journal);
        let safe = {
            let journal = Arc::clone(&journal);
            Box::new(move || journal.safe_sequence())
        };
        let facts = JournalFacts(&journal);
        let (index, report) = match index {
            Some(store) => Index::open_on(store, &facts, safe, &options.index)?,
            None => Index::open(&dir.join("index"), &facts, safe, &options.index)?,
        };
        let (index, activity) = (Arc::new(index), Arc::new(Activity::default()));
        let told = Arc::clone(&activity);
        index.on_publish(move |facts| told.published(facts));
        let first_tile = (journal.max_tile_id() + 1).max(index.settings().tile_floor);
        let next_tile = Arc::new(AtomicU64::new(first_tile));
        let directory_error = |source| CatalogError::Directory { dir: dir.to_owned(), source };
        let pool = Pool::new(options.memory_bytes).map_err(directory_error)?;
        let segments: BTreeSet<u64> = journal.segments().into_iter().map(|(number, _)| number).collect();
        let damage = DamageLog::open(dir, metrics, &activity, |segment| segments.contains(&segment));
        let (lanes, threads) = Lanes::start(options.lanes, &journal, &index, &next_tile, metrics, &damage, stop)
            .map_err(directory_error)?;
        let control = Control::start(journal.control_writer(), &index, stop).map_err(directory_error)?;
        let catalog = Arc::new(Self {
            journal,
            index,
            pool,
            metrics: Arc::clone(metrics),
            control,
            next_tile,
            damage,
            endings: Endings::default(),
            activity,
            ack: options.lanes.ack,
            switch: CaptureSwitch::default(),
            scrub: ScrubControl::default(),
            limits: LiveLimits::default(),
            index_jobs: IndexJobs::default(),
            stop: stop.clone(),
            _lock: lock,
        });
        Ok(OpenedCatalog { catalog, lanes, threads, recovery, index: report })
    }

    pub(super) fn control(&self) -> &Control {
        &self.control
    }

    /// Starts an acquisition, or starts it again: fields are updated, it is open again. Its TEMCA is that with the log's
    /// IP address; returns false when there is none.
    ///
    /// # Errors
    /// The fact could not be made durable.
    pub fn start_acquisition(&self, started: AcquisitionStarted) -> Result<bool, CatalogError> {
        self.start_acquisition_with(started, None)
    }

    /// As [`Self::start_acquisition`], and keeps the log's bytes as a file: for one that its text does not give back.
    ///
    /// # Errors
    /// The facts could not be made durable.
    pub fn start_acquisition_with(
        &self,
        mut started: AcquisitionStarted,
        log: Option<NewFile>,
    ) -> Result<bool, CatalogError> {
        let decide = move |index: &Index, _: &mut _| {
            let settings = index.settings();
            let address = started.facts.tem_ip_address.as_str();
            let found = settings.temcas.values().find(|temca| !address.is_empty() && temca.tem_ip_address == address);
            started.temca = found.map_or(0, |temca| temca.id);
            let (known, acq) = (started.temca != 0, started.acq);
            let before = index.acquisition(acq);
            let before = before.as_ref().and_then(|view| view.head.started.as_ref());
            let before = before.map_or(0, |before| before.log_text.len() + before.facts.text_bytes());
            check_memory(index, (started.log_text.len() + started.facts.text_bytes()).saturating_sub(before))?;
            let mut drafts = vec![Draft::from(FactBody::AcquisitionStarted(Box::new(started)))];
            drafts.extend(log.map(|log| log.into_draft(acq)));
            Ok((drafts, known))
        };
        Ok(self.control.run(Sharing::Alone, decide)?.0)
    }

    /// Ends an acquisition. Late tiles are still accepted.
    ///
    /// # Errors
    /// It was never started; the fact could not be made durable.
    pub fn end_acquisition(&self, acq: AcqId) -> Result<(), CatalogError> {
        self.of_started(acq, move |_, _| Ok(FactBody::AcquisitionEnded(AcquisitionEnded { acq }))).map(drop)
    }

    /// Creates ROIs with the places that lie in them, and keeps the two files that say so: all or nothing. The number
    /// of earlier acquisitions with their section is found out here.
    ///
    /// # Errors
    /// The acquisition was never started; the facts could not be made durable.
    pub fn create_rois(&self, acq: AcqId, rois: Vec<RoiPlaces>, files: Vec<NewFile>) -> Result<(), CatalogError> {
        let decide = move |index: &Index, _: &mut _| {
            let Some(view) = started(index, acq) else { return Err(CatalogError::UnknownAcquisition(acq)) };
            check_files(&view, files.len())?;
            let names = rois.iter().map(|(roi, _)| roi.name.len());
            check_memory(index, names.chain(files.iter().map(NewFile::memory_bytes)).sum())?;
            // Of a ROI that is known only the places count.
            let known: HashMap<&str, u32> = view.head.rois.iter().map(|roi| (roi.name.as_str(), roi.prev)).collect();
            let new: Vec<i64> = rois
                .iter()
                .filter(|(roi, _)| !known.contains_key(roi.name.as_str()))
                .map(|(roi, _)| roi.section)
                .collect();
            if view.head.rois.len() + new.len() > usize::from(u16::MAX) {
                return Err(CatalogError::Invalid(format!("acquisition {acq} would have more than 65535 ROIs")));
            }
            roi_limits::check(index, acq, &view, &rois)?;
            let earlier = earlier_with_sections(&index.acquisitions(), (acq, &view), new.into_iter());
            let rois = rois.into_iter().map(|(roi, cells)| {
                let prev = known.get(roi.name.as_str()).or_else(|| earlier.get(&roi.section)).copied().unwrap_or(0);
                (Roi { prev, ..roi }, cells)
            });
            let created = RoisCreated { acq, rois: rois.collect() };
            let mut drafts: Vec<Draft> = files.into_iter().map(|file| file.into_draft(acq)).collect();
            // Behind the files: when the power goes between the two, there are no ROIs yet.
            drafts.push(FactBody::RoisCreated(Box::new(created)).into());
            Ok((drafts, ()))
        };
        self.control.run(Sharing::Alone, decide).map(drop)
    }

    /// Keeps a file with its acquisition; returns its identifier.
    ///
    /// # Errors
    /// The acquisition was never started or has too many files; the fact could not be made durable.
    pub fn store_file(&self, acq: AcqId, file: NewFile) -> Result<Sequence, CatalogError> {
        let decide = move |index: &Index, _: &mut _| {
            let Some(view) = started(index, acq) else { return Err(CatalogError::UnknownAcquisition(acq)) };
            check_files(&view, 1)?;
            check_memory(index, file.memory_bytes())?;
            Ok((vec![file.into_draft(acq)], ()))
        };
        let (_, sequences) = self.control.run(Sharing::Alone, decide)?;
        sequences.first().copied().ok_or(CatalogError::Stopping)
    }

    /// The bytes of a file, checked against their CRC-32.
    ///
    /// # Errors
    /// They can not be read, or are not what was stored.
    pub fn read_file(&self, entry: &crate::index::FileEntry) -> Result<Vec<u8>, CatalogError> {
        let read = self.journal.read_control(entry.location).and_then(|payload| {
            let content = super::facts::decode_file(&payload).map(|(_, content)| content.to_vec());
            content.filter(|content| crc32fast::hash(content) == entry.file.crc).ok_or(ReadError::Damaged {
                segment: entry.location.segment,
                offset: entry.location.offset,
                what: "the file does not match its CRC-32",
            })
        });
        read.map_err(|error| {
            self.metrics.read_damaged.inc();
            self.damage.found(&Finding::of_record(entry.location, Some(entry.id.0), &error, FoundBy::Read));
            CatalogError::Storage(format!("{}: the stored file is damaged: {error}", entry.file.name))
        })
    }

    /// Imports calibrations, all with one record; each becomes the transformation of its camera.
    ///
    /// # Errors
    /// All together would take too much memory: they are never deleted. The fact could not be made durable.
    pub fn import_calibrations(&self, calibrations: Vec<Calibration>) -> Result<(), CatalogError> {
        let decide = move |index: &Index, _: &mut _| {
            let settings = index.settings();
            let (before, after) = settings.calibration_bytes(&calibrations);
            // More may be there from earlier versions: what makes it no more is taken.
            if after > CALIBRATION_BYTES_MAX.max(before) {
                let problem = format!("all calibrations would take {after} bytes: at most {CALIBRATION_BYTES_MAX}");
                return Err(CatalogError::Invalid(problem));
            }
            let temcas = settings.temcas_with(&calibrations);
            if temcas > TEMCAS_MAX.max(settings.temcas.len()) {
                return Err(CatalogError::Invalid(format!("there would be {temcas} TEMCAs: at most {TEMCAS_MAX}")));
            }
            let imported = CalibrationsImported { calibrations };
            Ok((vec![Draft::from(FactBody::CalibrationsImported(Box::new(imported)))], ()))
        };
        self.control.run(Sharing::Alone, decide).map(drop)
    }

    /// Describes a TEMCA, anew if it was described; nothing is recorded when nothing changes.
    ///
    /// # Errors
    /// A description that contradicts itself; the fact could not be made durable.
    pub fn configure_temca(&self, temca: Temca) -> Result<(), CatalogError> {
        if let Some(problem) = temca.problem() {
            return Err(CatalogError::Invalid(format!("TEMCA {}: {problem}", temca.id)));
        }
        let decide = move |index: &Index, _: &mut _| {
            if index.settings().temcas.get(&temca.id) == Some(&temca) {
                return Ok((Vec::new(), ()));
            }
            Ok((vec![Draft::from(FactBody::TemcaConfigured(Box::new(TemcaConfigured { temca })))], ()))
        };
        self.control.run(Sharing::Alone, decide).map(drop)
    }

    /// Describes a TEMCA as the configuration file does. Which calibrations its cameras have, and what the file leaves
    /// out, stays as it is.
    ///
    /// # Errors
    /// As [`Self::configure_temca`].
    pub fn assert_temca(&self, mut temca: Temca) -> Result<(), CatalogError> {
        if let Some(known) = self.index.settings().temcas.get(&temca.id) {
            for camera in &known.cameras {
                let described = temca.camera_mut(camera.camera);
                described.transformation = described.transformation.take().or_else(|| camera.transformation.clone());
            }
        }
        self.configure_temca(temca)
    }

    /// Deletes an acquisition: what it holds so far is dead, its space is freed by compaction.
    ///
    /// # Errors
    /// There is no such acquisition; the fact could not be made durable.
    pub fn delete_acquisition(&self, acq: AcqId) -> Result<(), CatalogError> {
        let next_tile = Arc::clone(&self.next_tile);
        let decide = move |index: &Index, _: &mut _| {
            if index.acquisition(acq).is_none() {
                return Err(CatalogError::UnknownAcquisition(acq));
            }
            let next_tile = next_tile.load(Ordering::SeqCst);
            Ok((vec![Draft::from(FactBody::AcquisitionDeleted(AcquisitionDeleted { acq, next_tile }))], ()))
        };
        self.control.run(Sharing::Alone, decide).map(drop)
    }

    /// Records the manifest that an acquisition had at its end.
    ///
    /// # Errors
    /// The acquisition was never started; the fact could not be made durable.
    pub fn record_manifest(&self, made: ManifestMade) -> Result<(), CatalogError> {
        let acq = made.acq;
        self.of_started(acq, move |_, _| Ok(FactBody::ManifestMade(Box::new(made)))).map(drop)
    }

    /// Records what was found of tiles' pixels, with other commands that are waiting; `answer` is told whether it was,
    /// on the control thread.
    ///
    /// # Errors
    /// Too much is waiting, or the daemon stops: nothing will be recorded.
    pub fn record_judgements(
        &self,
        judged: TilesJudged,
        answer: impl FnOnce(Result<(), CatalogError>) + Send + 'static,
    ) -> Result<(), CatalogError> {
        let decide = move |_: &Index, _: &mut _| Ok((vec![Draft::from(FactBody::TilesJudged(Box::new(judged)))], ()));
        self.control.submit(Sharing::Stating, decide, move |done| answer(done.map(drop)))
    }

    /// Records one fact about an acquisition that was started.
    fn of_started(
        &self,
        acq: AcqId,
        fact: impl FnOnce(&Index, &AcquisitionView) -> Result<FactBody, CatalogError> + Send + 'static,
    ) -> Result<Vec<Sequence>, CatalogError> {
        let decide = move |index: &Index, _: &mut _| {
            let Some(view) = started(index, acq) else { return Err(CatalogError::UnknownAcquisition(acq)) };
            Ok((vec![Draft::from(fact(index, &view)?)], ()))
        };
        self.control.run(Sharing::Alone, decide).map(|(_, sequences)| sequences)
    }

    /// A version of a tile, current or replaced.
    ///
    /// # Errors
    /// The index can not be read.
    pub fn tile_version(&self, id: TileId, version: TileVersion) -> Result<Option<TileEntry>, CatalogError> {
        Ok(self.index.tile_version(id, version)?)
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

    /// What is known to be damaged.
    #[must_use]
    pub fn damage(&self) -> &DamageLog {
        &self.damage
    }

    /// Whether tiles are taken: to be looked at and thrown.
    #[must_use]
    pub fn switch(&self) -> &CaptureSwitch {
        &self.switch
    }

    /// Whether tiles are taken now.
    #[must_use]
    pub fn capture_state(&self) -> CaptureState {
        match (self.stop.reason(), self.switch.is_paused()) {
            (Some(_), _) => CaptureState::Draining,
            (None, true) => CaptureState::Paused,
            (None, false) => CaptureState::Running,
        }
    }

    /// What is said to the scrub.
    #[must_use]
    pub fn scrub(&self) -> &ScrubControl {
        &self.scrub
    }

    /// Limits that may change.
    #[must_use]
    pub fn limits(&self) -> &LiveLimits {
        &self.limits
    }

    /// Comparisons of the index with the journal, and rebuilds.
    #[must_use]
    pub fn index_jobs(&self) -> &IndexJobs {
        &self.index_jobs
    }

    /// Has every open segment sealed, and goes on in new ones. Returns how many there were. Waits until they are sealed.
    ///
    /// # Errors
    /// A sync failed, and the daemon stops; or it stops anyway; or a segment could not be sealed: its records are safe.
    pub fn rotate(&self, lanes: &Lanes) -> Result<usize, CatalogError> {
        let failures = self.journal.seal_failures();
        let lanes = lanes.rotate().ok_or(CatalogError::Stopping)?;
        let control = self.control.rotate()?;
        self.journal.settle();
        if self.journal.seal_failures() > failures {
            let problem = "a segment could not be sealed: its records are safe, and read again at the next start; the log says why";
            return Err(CatalogError::Storage(problem.to_owned()));
        }
        Ok(lanes + usize::from(control))
    }

    /// Ends of acquisitions that nobody has taken notice of yet.
    #[must_use]
    pub fn endings(&self) -> &Endings {
        &self.endings
    }

    /// What happened lately.
    #[must_use]
    pub fn activity(&self) -> &Arc<Activity> {
        &self.activity
    }

    /// How full the index' queue is.
    #[must_use]
    pub fn index_pressure(&self) -> Pressure {
        let lag = self.index.lag();
        if lag.store_failed { Pressure::Red } else { Pressure::of(lag.tiles, lag.tiles_max) }
    }

    /// How full the disk is.
    #[must_use]
    pub fn disk_pressure(&self) -> Pressure {
        self.journal.disk_pressure()
    }

    /// True while storage works: what a health check asks.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        !matches!(self.stop.reason(), Some(StopReason::StorageFailed | StopReason::Panicked))
            && !self.index.lag().store_failed
    }

    /// What stops the daemon.
    #[must_use]
    pub fn stop(&self) -> &Stop {
        &self.stop
    }

    /// Brings the gauges up to date that nobody counts as they change.
    pub fn refresh_gauges(&self) {
        let bytes = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
        let (status, lag, metrics) = (self.journal.status(), self.index.lag(), &self.metrics);
        Metrics::set(&metrics.capture_paused, usize::from(self.switch.is_paused()));
        Metrics::set(&metrics.buffer_bytes, self.pool.used());
        Metrics::set(&metrics.buffer_limit_bytes, self.pool.capacity());
        Metrics::set(&metrics.buffer_waiters, self.pool.waiting());
        Metrics::set(&metrics.index_lag_tiles, lag.tiles);
        Metrics::set(&metrics.acquisitions_memory_bytes, self.index.head_bytes());
        Metrics::set(&metrics.acquisitions_memory_limit_bytes, HEADS_BYTES_MAX);
        Metrics::set(&metrics.index_store_failed, usize::from(lag.store_failed));
        Metrics::set(&metrics.segments, status.segments);
        Metrics::set(&metrics.segment_bytes, bytes(status.segment_bytes));
        Metrics::set(&metrics.disk_free_bytes, bytes(status.free_bytes));
        Metrics::set(&metrics.seal_failures, bytes(status.seal_failures));
        Metrics::set(&metrics.ack_level, self.level_in_force() as usize);
        if let Some(mirror) = self.journal.mirror() {
            let mirror = mirror.status();
            Metrics::set(&metrics.mirror_configured, 1);
            Metrics::set(&metrics.mirror_in_sync, usize::from(mirror.phase == MirrorPhase::InSync));
            Metrics::set(&metrics.mirror_left_bytes, bytes(mirror.left_bytes));
            Metrics::set(&metrics.mirror_losses, bytes(mirror.losses));
            Metrics::set(&metrics.mirror_repairs, bytes(mirror.repairs));
        }
    }

    /// The ack level now: without its mirror, `replicated` is `durable`.
    #[must_use]
    pub fn level_in_force(&self) -> AckLevel {
        let in_sync = self.journal.mirror().is_some_and(|mirror| mirror.is_in_sync());
        if in_sync { self.ack } else { self.ack.min(AckLevel::Durable) }
    }

    /// Syncs and seals everything. Call after the lanes have ended; commands fail from now on.
    ///
    /// # Errors
    /// A sync failed.
    pub fn close(&self) -> Result<(), CatalogError> {
        let closed = self.control.close();
        self.index.close();
        self.journal.close();
        Ok(closed?)
    }
}

/// A ROI and the places (column, row) of its stable tiles.
pub type RoiPlaces = (Roi, Vec<(u32, u32)>);

/// Most files of one acquisition.
const FILES_MAX: usize = 10_000;
/// Memory for all calibrations: some ten thousand as microscopes have them. They are kept for ever.
const CALIBRATION_BYTES_MAX: usize = 64 << 20;
/// TEMCAs that calibrations make known.
const TEMCAS_MAX: usize = 1000;

/// A file that is to be kept with its acquisition.
#[derive(Clone, Debug)]
pub struct NewFile {
    /// Base name.
    pub name: String,
    /// The path or name with which it was sent.
    pub path: String,
    /// What it is.
    pub kind: AncillaryKind,
    /// Its bytes.
    pub content: Vec<u8>,
}

impl NewFile {
    /// What stays of it in memory.
    fn memory_bytes(&self) -> usize {
        self.name.len() + self.path.len()
    }

    fn into_draft(self, acq: AcqId) -> Draft {
        let crc = crc32fast::hash(&self.content);
        let len = self.content.len() as u64;
        let file = FileStored { acq, name: self.name, path: self.path, kind: self.kind, len, crc };
        Draft { body: FactBody::FileStored(Box::new(file)), content: self.content }
    }
}

fn started(index: &Index, acq: AcqId) -> Option<AcquisitionView> {
    index.acquisition(acq).filter(|view| view.head.started.is_some())
}

/// Memory that logs, ROIs and files of all acquisitions may take, as the index counts it.
const HEADS_BYTES_MAX: usize = 256 << 20;

/// What an acquisition brings along stays in memory until it is deleted.
fn check_memory(index: &Index, more: usize) -> Result<(), CatalogError> {
    let bytes = index.head_bytes() + more;
    if more > 0 && bytes > HEADS_BYTES_MAX {
        return Err(CatalogError::Invalid(format!(
            "logs, ROIs and files of all acquisitions would take {bytes} bytes of memory: at most {HEADS_BYTES_MAX}; delete \
             acquisitions that are not needed here any more"
        )));
    }
    Ok(())
}

fn check_files(view: &AcquisitionView, more: usize) -> Result<(), CatalogError> {
    if view.head.files.len() + more > FILES_MAX {
        return Err(CatalogError::Invalid(format!("the acquisition has {} files already", view.head.files.len())));
    }
    Ok(())
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

/// Locks a data directory, within `limit` if somebody else holds it.
fn await_directory(
    dir: &Path,
    filesystem: &dyn Filesystem,
    limit: Duration,
    stop: &Stop,
) -> Result<DirectoryLock, CatalogError> {
    let until = Instant::now() + limit;
    let mut told = false;
    loop {
        match lock_directory(dir, filesystem) {
            Err(CatalogError::Locked { .. }) if Instant::now() < until && stop.wait_for(LOCK_POLL).is_none() => {
                if !std::mem::replace(&mut told, true) {
                    tracing::info!(dir = %dir.display(), "waiting for the data directory: another tilecatcher uses it");
                }
            }
            other => return other,
        }
    }
}

pub(crate) fn lock_directory(dir: &Path, filesystem: &dyn Filesystem) -> Result<DirectoryLock, CatalogError> {
    let directory_error = |source| CatalogError::Directory { dir: dir.to_owned(), source };
    filesystem.create_dir_all(dir).map_err(directory_error)?;
    DirectoryLock::take(&dir.join("lock"))
        .map_err(directory_error)?
        .ok_or_else(|| CatalogError::Locked { dir: dir.to_owned() })
}
