//! The HTTP side port: acquisitions, tiles, contents, health, metrics. The only place that imports `axum`.
//!
//! Runs on its own small tokio runtime, away from the data plane: a slow browser never delays a tile. Reads are
//! done on blocking threads into buffers of the same bounded pool. Must never touch a tile's way in.

mod acquisitions;
mod answer;
mod content;
mod health;
mod tiles;

use crate::catalog::{Catalog, Lanes};
use crate::model::AckLevel;
use axum::extract::{Request, State};
use axum::handler::HandlerWithoutStateExt;
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Router, ServiceExt};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::sync::oneshot;
use tower_http::normalize_path::NormalizePathLayer;
use tower_layer::Layer;

/// How the HTTP port works.
#[derive(Clone, Debug)]
pub struct HttpOptions {
    /// Where to listen.
    pub address: SocketAddr,
    /// Threads of its runtime.
    pub threads: usize,
    /// Base of the URLs given to clients; empty for relative ones.
    pub public_url: String,
}

/// The HTTP port can not be opened.
#[derive(Debug, thiserror::Error)]
#[error("HTTP port {address}: {source}; choose another with --http, or stop what uses it")]
pub struct HttpError {
    /// The address.
    pub address: SocketAddr,
    /// The operating system's answer.
    pub source: std::io::Error,
}

/// What every handler can reach.
#[derive(Clone)]
struct AppState {
    catalog: Arc<Catalog>,
    lanes: Lanes,
    ack: AckLevel,
    public_url: Arc<str>,
}

/// The running HTTP port.
pub struct HttpServer {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    runtime: tokio::runtime::Runtime,
    served: tokio::task::JoinHandle<()>,
}

impl HttpServer {
    /// Binds the port and starts serving.
    ///
    /// # Errors
    /// The port can not be bound, the runtime not started.
    pub fn start(
        options: &HttpOptions,
        catalog: &Arc<Catalog>,
        lanes: &Lanes,
        ack: AckLevel,
    ) -> Result<Self, HttpError> {
        let state = AppState {
            catalog: Arc::clone(catalog),
            lanes: lanes.clone(),
            ack,
            public_url: options.public_url.as_str().into(),
        };
        Self::try_start(options, state).map_err(|source| HttpError { address: options.address, source })
    }

    fn try_start(options: &HttpOptions, state: AppState) -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(options.threads)
            .max_blocking_threads(16)
            .thread_name("http")
            .enable_all()
            .build()?;
        let listener = runtime.block_on(tokio::net::TcpListener::bind(options.address))?;
        let address = listener.local_addr()?;
        let (stop, stopped) = oneshot::channel::<()>();
        let app = NormalizePathLayer::trim_trailing_slash().layer(router(state));
        let served = runtime.spawn(async move {
            let service = ServiceExt::<Request>::into_make_service(app);
            let server = axum::serve(listener, service).with_graceful_shutdown(async {
                let _ = stopped.await;
            });
            if let Err(error) = server.await {
                tracing::error!(%error, "the HTTP port failed");
            }
        });
        Ok(Self { address, stop, runtime, served })
    }

    /// The bound address.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends requests in progress, within `limit`, and closes the port.
    pub fn stop(self, limit: std::time::Duration) {
        let _ = self.stop.send(());
        let served = self.served;
        let _ = self.runtime.block_on(async { tokio::time::timeout(limit, served).await });
        self.runtime.shutdown_timeout(limit);
    }
}

fn router(state: AppState) -> Router {
    let service = Router::new()
        .route("/ping", get(health::ping))
        .route("/start-acquisition", post(acquisitions::start))
        .route("/end-acquisition/{acqid}", post(acquisitions::end))
        .route("/acquisition/{acqid}/tile/{col}/{row}", get(tiles::by_position))
        .route("/acquisition/{acqid}/tile/{col}/{row}/content", get(content::by_position))
        .route("/tile/{tileid}", get(tiles::by_id))
        .route("/tile/{tileid}/content", get(content::by_id));
    Router::new()
        .nest("/service/v1", service)
        .route("/healthz", get(health::healthz))
        .route("/readyz", get(health::readyz))
        .route("/metrics", get(health::metrics))
        .fallback_service(answer::not_found.into_service())
        .method_not_allowed_fallback(answer::wrong_method)
        .layer(middleware::from_fn_with_state(state.clone(), count))
        .with_state(state)
}

/// Counts every answer by its status.
async fn count(State(state): State<AppState>, request: Request, next: Next) -> Response {
    let response = next.run(request).await;
    state.catalog.metrics().http_request(response.status().as_u16());
    response
}
