//! The daemon as a whole: builds everything in order, stops it in reverse. A list of starts, nothing else.

use crate::access::{Access, AccessError, Exposed, ExposureError, check_exposure};
use crate::base::stop::{Stop, StopReason};
use crate::catalog::{Catalog, CatalogError, OpenedCatalog};
use crate::config::Config;
use crate::http::{HttpError, HttpServer};
use crate::index::{OpenOutcome, OpenReport};
use crate::ingest::{Capture, IngestError};
use crate::journal::{DamageKind, RealFilesystem, RecoveryReport};
use crate::telemetry::Metrics;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

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
}

/// A running daemon.
pub struct Server {
    catalog: Arc<Catalog>,
    access: Arc<Access>,
    capture: Capture,
    http: HttpServer,
    lanes: Vec<JoinHandle<()>>,
    stop: Stop,
    stop_time: Duration,
    data: PathBuf,
}

impl Server {
    /// Opens the data directory, then the ports. When this returns, tiles are accepted.
    ///
    /// # Errors
    /// Directory or ports can not be used; nothing is left running.
    pub fn start(config: &Config, stop: &Stop) -> Result<Self, ServerError> {
        check_exposure(&ports(config))?;
        let metrics = Arc::new(Metrics::new());
        metrics.add_process_metrics();
        let access = Access::start(config.access.clone(), &metrics)?;
        let filesystem = Arc::new(RealFilesystem);
        let OpenedCatalog { catalog, lanes, threads, recovery, index } =
            Catalog::open(&config.data, filesystem, &config.catalog, &metrics, stop)?;
        report(&recovery, &index, &metrics);
        for temca in &config.temcas {
            catalog.assert_temca(temca.clone())?;
        }
        let http = HttpServer::start(&config.http, &catalog, &lanes, config.catalog.lanes.ack, &access)?;
        let capture = Capture::start_guarded(config.ingest, &catalog, &lanes, &access)?;
        let data = std::fs::canonicalize(&config.data).unwrap_or_else(|_| config.data.clone());
        let (stop, stop_time) = (stop.clone(), config.stop_time);
        Ok(Self { catalog, access, capture, http, lanes: threads, stop, stop_time, data })
    }

    /// Where senders connect.
    #[must_use]
    pub fn capture_address(&self) -> SocketAddr {
        self.capture.address()
    }

    /// Where the HTTP port is.
    #[must_use]
    pub fn http_address(&self) -> SocketAddr {
        self.http.address()
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
    pub fn shut_down(self) -> Result<Option<StopReason>, ServerError> {
        self.capture.stop();
        self.http.stop(self.stop_time / 4);
        for lane in self.lanes {
            let _ = lane.join();
        }
        let closed = self.catalog.close();
        self.access.close();
        closed?;
        Ok(self.stop.reason())
    }
}

/// The ports, and what guards them. The capture port knows no tokens: senders have no place for one.
fn ports(config: &Config) -> [Exposed; 2] {
    let has_networks = !config.access.networks.is_empty();
    let capture = Exposed {
        key: "capture.address",
        address: config.ingest.address,
        is_guarded: has_networks,
        remedy: "name the senders' networks in access.networks",
    };
    let http = Exposed {
        key: "http.address",
        address: config.http.address,
        is_guarded: has_networks || config.access.tokens.is_some(),
        remedy: "name trusted networks in access.networks, or a file of tokens in access.tokens",
    };
    [capture, http]
}

fn report(recovery: &RecoveryReport, index: &OpenReport, metrics: &Metrics) {
    let count = |kind| recovery.damage.iter().filter(|damage| damage.kind == kind).count();
    Metrics::set(&metrics.recovery_torn, count(DamageKind::Torn));
    Metrics::set(&metrics.recovery_corrupt, count(DamageKind::Corrupt));
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
