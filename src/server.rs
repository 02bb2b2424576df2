//! The daemon as a whole: builds everything in order, stops it in reverse. A list of starts, nothing else.

use crate::base::stop::{Stop, StopReason};
use crate::catalog::{Catalog, CatalogError, Finding, OpenedCatalog, Scrub};
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
    capture: Capture,
    http: HttpServer,
    lanes: Vec<JoinHandle<()>>,
    scrub: Scrub,
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
        let metrics = Arc::new(Metrics::new());
        metrics.add_process_metrics();
        let filesystem = Arc::new(RealFilesystem);
        let OpenedCatalog { catalog, lanes, threads, recovery, index } =
            Catalog::open(&config.data, filesystem, &config.catalog, &metrics, stop)?;
        report(&recovery, &index, &metrics);
        recovery
            .damage
            .iter()
            .filter_map(Finding::of_recovery)
            .for_each(|finding| _ = catalog.damage().found(&finding));
        for temca in &config.temcas {
            catalog.assert_temca(temca.clone())?;
        }
        let http = HttpServer::start(&config.http, &catalog, &lanes, config.catalog.lanes.ack)?;
        let capture = Capture::start(config.ingest, &catalog, &lanes)?;
        let scrub = Scrub::start(config.scrub, &config.data, &catalog, &lanes)
            .map_err(|source| CatalogError::Directory { dir: config.data.clone(), source })?;
        let data = std::fs::canonicalize(&config.data).unwrap_or_else(|_| config.data.clone());
        Ok(Self {
            catalog,
            capture,
            http,
            lanes: threads,
            scrub,
            stop: stop.clone(),
            stop_time: config.stop_time,
            data,
        })
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
        self.scrub.stop();
        self.capture.stop();
        self.http.stop(self.stop_time / 4);
        for lane in self.lanes {
            let _ = lane.join();
        }
        self.catalog.close()?;
        Ok(self.stop.reason())
    }
}

fn report(recovery: &RecoveryReport, index: &OpenReport, metrics: &Metrics) {
    let count = |kind| recovery.damage.iter().filter(|damage| damage.kind == kind).count();
    Metrics::set(&metrics.recovery_torn, count(DamageKind::Torn));
    Metrics::set(&metrics.recovery_corrupt, count(DamageKind::Corrupt).max(usize::from(index.lost > 0)));
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
