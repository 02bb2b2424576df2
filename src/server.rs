//! The daemon as a whole: builds everything in order, stops it in reverse. A list of starts, nothing else.

use crate::access::{Access, AccessError, Exposed, ExposureError, check_exposure};
use crate::base::descriptors;
use crate::base::stop::{Stop, StopReason};
use crate::catalog::{Catalog, CatalogError, CatalogOptions, Configured, Finding, OpenedCatalog, Sampler, Scrub};
use crate::config::{Config, all_keys};
use crate::http::{HttpError, HttpServer};
use crate::index::{OpenOutcome, OpenReport};
use crate::ingest::{Capture, CaptureListeners, IngestError};
use crate::journal::{DamageKind, Filesystem, JournalError, MirroredFilesystem, RealFilesystem, RecoveryReport};
use crate::notify::{Channels, Notifier, NotifyError};
use crate::preview::Previews;
use crate::quality::Judge;
use crate::service::{self, Ports};
use crate::telemetry::Metrics;
use crate::tls::{ServerTls, TlsError};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

/// How long a start on inherited listeners waits for the data directory: somewhat longer than a stop takes by default, so
/// that the process before may still be draining.
const LOCK_WAIT_INHERITED: Duration = Duration::from_secs(30);

/// Why the daemon did not start.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// A port would be open to everybody.
    #[error(transparent)]
    Exposure(#[from] ExposureError),
    /// Tokens or audit log.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// The data directory.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// The capture port.
    #[error(transparent)]
    Capture(#[from] IngestError),
    /// The HTTP port.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// The watchdog's thread.
    #[error("the watchdog's thread can not be started: {0}")]
    Watchdog(std::io::Error),
    /// The thread that closes the seconds of the figures.
    #[error("the sampler's thread can not be started: {0}")]
    Sampler(std::io::Error),
    /// Certificates and keys.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A channel for notifications.
    #[error(transparent)]
    Notify(#[from] NotifyError),
    /// A thread for notifications.
    #[error("a thread for notifications can not be started: {0}")]
    NotifyThread(std::io::Error),
}

/// A running daemon.
pub struct Server {
    catalog: Arc<Catalog>,
    access: Arc<Access>,
    capture: Capture,
    http: HttpServer,
    lanes: Vec<JoinHandle<()>>,
    scrub: Scrub,
    previews: Arc<Previews>,
    judge: Judge,
    notifier: Notifier,
    sampler: Sampler,
    stop: Stop,
    stop_time: Duration,
    data: PathBuf,
    certificates: Certificates,
}

/// What the ports are encrypted with.
#[derive(Clone, Default)]
pub struct Certificates {
    capture: Option<ServerTls>,
    http: Option<ServerTls>,
}

impl Server {
    /// Opens the data directory, then the ports. When this returns, tiles are accepted.
    ///
    /// # Errors
    /// Directory or ports can not be used; nothing is left running.
    pub fn start(config: &Config, stop: &Stop) -> Result<Self, ServerError> {
        Self::start_on(Ports::default(), config, stop)
    }

    /// As [`Self::start`], on listeners that exist already, as far as there are any.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_on(ports: Ports, config: &Config, stop: &Stop) -> Result<Self, ServerError> {
        check_exposure(&exposed(config, &ports))?;
        let config = &fit_to_descriptors(config);
        let certificates = Certificates::load(config, &ports)?;
        let channels = Channels::load(&config.notify)?;
        let metrics = Arc::new(Metrics::new());
        metrics.add_process_metrics();
        let access = Access::start(config.access.clone(), &metrics)?;
        let filesystem = filesystem(config);
        let options = catalog_options(config, &ports);
        let OpenedCatalog { catalog, lanes, threads, recovery, index } =
            Catalog::open(&config.data, filesystem, &options, &metrics, stop)?;
        report(&recovery, &index, &metrics);
        recovery
            .damage
            .iter()
            .filter_map(Finding::of_recovery)
            .for_each(|finding| _ = catalog.damage().found(&finding));
        tell_origins(config, &catalog);
        for temca in &config.temcas {
            match catalog.assert_temca(temca.clone()) {
                Err(CatalogError::Journal(error @ JournalError::NoSpace { .. })) => {
                    tracing::error!(%error, temca = temca.id, "the disk is too full to note what the configuration says of this TEMCA: the next start tries again");
                }
                asserted => asserted?,
            }
        }
        let judge = Judge::start(config.quality, &catalog, &lanes)
            .map_err(|source| CatalogError::Directory { dir: config.data.clone(), source })?;
        let previews = Previews::start(config.preview, &config.data, &catalog, &lanes)
            .map_err(|source| CatalogError::Directory { dir: config.data.clone(), source })?;
        let tls = certificates.http.as_ref();
        let http = HttpServer::start(&config.http, ports.http, tls, &catalog, &lanes, &access, &previews)?;
        let listeners = CaptureListeners { plain: ports.capture, tls: ports.capture_tls };
        let tls = certificates.capture.as_ref();
        let capture = Capture::start_guarded(config.ingest, listeners, tls, &catalog, &lanes, &access)?;
        service::start_watchdog(Arc::clone(&metrics.life), stop.clone()).map_err(ServerError::Watchdog)?;
        let data = std::fs::canonicalize(&config.data).unwrap_or_else(|_| config.data.clone());
        let scrub = Scrub::start(config.scrub, &config.data, &catalog, &lanes)
            .map_err(|source| CatalogError::Directory { dir: config.data.clone(), source })?;
        let sampler = Sampler::start(&catalog).map_err(ServerError::Sampler)?;
        let notifier = Notifier::start(channels, &catalog, &data).map_err(ServerError::NotifyThread)?;
        let (stop, stop_time) = (stop.clone(), config.stop_time);
        Ok(Self {
            catalog,
            access,
            capture,
            http,
            lanes: threads,
            scrub,
            previews,
            judge,
            sampler,
            notifier,
            stop,
            stop_time,
            data,
            certificates,
        })
    }

    /// Where senders connect; `None`: that port is off.
    #[must_use]
    pub fn capture_address(&self) -> Option<SocketAddr> {
        self.capture.address()
    }

    /// Where senders connect with TLS; `None`: that port is off.
    #[must_use]
    pub fn capture_tls_address(&self) -> Option<SocketAddr> {
        self.capture.tls_address()
    }

    /// What the ports are encrypted with, to be read again.
    #[must_use]
    pub fn certificates(&self) -> Certificates {
        self.certificates.clone()
    }

    /// Where the HTTP port is.
    #[must_use]
    pub fn http_address(&self) -> SocketAddr {
        self.http.address()
    }

    /// What the daemon stores, for figures.
    #[must_use]
    pub fn catalog(&self) -> &Arc<Catalog> {
        &self.catalog
    }

    /// Who may do what: for reading tokens and opening the audit log again.
    #[must_use]
    pub fn access(&self) -> &Arc<Access> {
        &self.access
    }

    /// The data directory, as an absolute path.
    #[must_use]
    pub fn data_dir(&self) -> &std::path::Path {
        &self.data
    }

    /// Stops accepting, answers what is in flight, syncs and seals, closes. Returns why it stopped.
    ///
    /// # Errors
    /// A last sync failed.
    pub fn shut_down(mut self) -> Result<Option<StopReason>, ServerError> {
        self.http.begin_stop();
        self.notifier.look_now();
        self.scrub.stop();
        // Those that look on are told first and waited for last: who sends tiles need not wait for them.
        self.previews.begin_stop();
        self.judge.begin_stop();
        self.capture.stop();
        self.previews.stop();
        self.judge.stop();
        self.sampler.stop();
        self.http.stop(self.stop_time / 4);
        // Lanes end when nobody can hand them tiles or look at them any more.
        drop(self.previews);
        for lane in self.lanes {
            let _ = lane.join();
        }
        let closed = self.catalog.close();
        self.access.close();
        self.notifier.stop(self.stop_time / 8);
        closed?;
        Ok(self.stop.reason())
    }
}

/// The ports, and what guards them. The plain capture port knows no tokens: senders have no place for one. The encrypted one
/// lets nobody in without a certificate.
fn exposed(config: &Config, ports: &Ports) -> Vec<Exposed> {
    let address = |inherited: &Option<std::net::TcpListener>, configured| match inherited {
        Some(listener) => listener.local_addr().ok(),
        None => configured,
    };
    let has_networks = !config.access.networks.is_empty();
    let capture = address(&ports.capture, config.ingest.address).map(|address| Exposed {
        key: "capture.address",
        address,
        is_guarded: has_networks,
        remedy: "name the senders' networks in access.networks, or encrypt (capture.tls_address)",
    });
    let http = address(&ports.http, Some(config.http.address)).map(|address| Exposed {
        key: "http.address",
        address,
        is_guarded: has_networks || config.access.tokens.is_some(),
        remedy: "name trusted networks in access.networks, or a file of tokens in access.tokens",
    });
    capture.into_iter().chain(http).collect()
}

/// Where the values of limits that may change come from.
fn tell_origins(config: &Config, catalog: &Catalog) {
    for key in all_keys() {
        let source = config.origins.get(key.name).cloned().unwrap_or_default();
        let (default, about) = (key.default.to_owned(), key.about.to_owned());
        catalog.limits().configure(key.name, Configured { default, source, about });
    }
}

/// Connections beyond the descriptors that there are would take those of the journal.
fn fit_to_descriptors(config: &Config) -> Config {
    let mut config = config.clone();
    let Some(limit) = descriptors::raise() else { return config };
    let wanted = [config.ingest.connections_max, config.http.connections.connections_max];
    let [capture, http] = descriptors::fit(wanted, limit);
    if [capture, http] != wanted {
        tracing::warn!(
            limit,
            capture,
            http,
            "capture.connections_max and http.connections_max are lowered to what the limit on open files holds: raise LimitNOFILE, or lower them"
        );
    }
    (config.ingest.connections_max, config.http.connections.connections_max) = (capture, http);
    config
}

fn catalog_options(config: &Config, ports: &Ports) -> CatalogOptions {
    let inherited = if ports.any() { LOCK_WAIT_INHERITED } else { Duration::ZERO };
    CatalogOptions { lock_wait: config.lock_wait.unwrap_or(inherited), ..config.catalog }
}

/// The operating system's, on one directory or on two.
fn filesystem(config: &Config) -> Arc<dyn Filesystem> {
    if config.mirror.dir.as_os_str().is_empty() {
        return Arc::new(RealFilesystem);
    }
    let side = || Arc::new(RealFilesystem);
    Arc::new(MirroredFilesystem::new(side(), side(), &config.data, config.mirror.clone()))
}

impl Certificates {
    /// An encrypted listener that was handed over needs a certificate, whatever its own address would be.
    fn load(config: &Config, ports: &Ports) -> Result<Self, TlsError> {
        let load = |is_on: bool, files| is_on.then(|| ServerTls::load(files)).transpose();
        Ok(Self {
            capture: load(config.ingest.tls_address.is_some() || ports.capture_tls.is_some(), &config.capture_tls)?,
            http: load(!config.http_tls.certificate.as_os_str().is_empty(), &config.http_tls)?,
        })
    }

    /// True where no port is encrypted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.capture.is_none() && self.http.is_none()
    }

    /// Reads all files again, for connections to come. A port whose files are wrong goes on with what it had.
    pub fn reload(&self) {
        for (port, tls) in [("capture", &self.capture), ("http", &self.http)] {
            match tls.as_ref().map(ServerTls::reload) {
                Some(Ok(())) => tracing::info!(port, "certificates are read again, for new connections"),
                Some(Err(error)) => tracing::error!(port, %error, "certificates are left as they were"),
                None => {}
            }
        }
    }
}

fn report(recovery: &RecoveryReport, index: &OpenReport, metrics: &Metrics) {
    let count = |kind| recovery.damage.iter().filter(|damage| damage.kind == kind).count();
    Metrics::set(&metrics.recovery_torn, count(DamageKind::Torn));
    let lost = count(DamageKind::Corrupt) + count(DamageKind::Unreadable);
    Metrics::set(&metrics.recovery_corrupt, lost.max(usize::from(index.lost > 0)));
    metrics.index_open_seconds.set(index.took.as_secs_f64());
    for damage in &recovery.damage {
        let (path, offset, len) = (damage.path.display(), damage.offset, damage.len);
        match damage.kind {
            DamageKind::Torn => {
                tracing::warn!(%path, offset, len, "a write was cut off; it was never acknowledged as durable and is set aside in quarantine");
            }
            DamageKind::Corrupt => {
                tracing::error!(%path, offset, len, "stored data is damaged; it is left as it is, all else is served: run `tilecatcher verify`");
            }
            DamageKind::Unreadable => {
                tracing::error!(%path, offset, len, "the disk does not give this, which may be stored data: the segment is left as it is and looked at again at the next start, all else is served: check the disk");
            }
        }
    }
    let outcome = match &index.outcome {
        OpenOutcome::CaughtUp => "caught up",
        OpenOutcome::Built => "built",
        OpenOutcome::Rebuilt(_) => "rebuilt",
    };
    let took_ms = u64::try_from(index.took.as_millis()).unwrap_or(u64::MAX);
    tracing::info!(
        sealed = recovery.sealed_segments,
        recovered = recovery.recovered_segments,
        records = recovery.records,
        index = outcome,
        folded = index.folded,
        took_ms,
        "data directory opened"
    );
}
