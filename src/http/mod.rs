//! The HTTP side port: acquisitions, tiles, contents, health, metrics. The only place that imports `axum`.
//!
//! Runs on its own small tokio runtime, away from the data plane: a slow browser never delays a tile. Reads are
//! done on blocking threads into buffers of the same bounded pool. Must never touch a tile's way in.

mod acquisitions;
mod admin;
mod admin_storage;
mod answer;
mod capture;
mod completeness;
mod content;
mod described;
mod events;
mod files;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod guard;
mod health;
mod leftover;
mod listener;
mod live;
mod manifest;
mod mosaic;
mod openapi;
mod pace;
mod page;
mod parts;
mod peers;
mod places;
mod previews;
mod query;
mod scopes;
mod sender;
mod settings;
mod shapes;
mod share;
mod states;
mod status;
mod tiles;
mod uploads;
mod v1;
mod watched;

use crate::access::Access;
use crate::base::admission::Admission;
use crate::base::failpoint;
use crate::base::life::Pulse;
use crate::catalog::{Catalog, Lanes};
use crate::model::AcqId;
use crate::preview::Previews;
use crate::tls::ServerTls;
use axum::Router;
use axum::extract::{Request, State};
use axum::handler::HandlerWithoutStateExt;
use axum::middleware::{self, Next};
use axum::response::Response;
use guard::{Gate, guard, harden};
use listener::Door;
use live::Live;
use scopes::Needs;
use share::Share;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::sync::{Semaphore, watch};
use tower_http::normalize_path::NormalizePathLayer;
use tower_layer::Layer;
use uploads::Uploads;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub use listener::ConnectionLimits;

/// How the HTTP port works.
#[derive(Clone, Debug)]
pub struct HttpOptions {
    /// Where to listen.
    pub address: SocketAddr,
    /// Threads of its runtime.
    pub threads: usize,
    /// Base of the URLs given to clients; empty for relative ones.
    pub public_url: String,
    /// Most records of a listing.
    pub listing_max: usize,
    /// Seconds after which handed-out tiles return, when the caller does not say; `None`: never.
    pub default_lease_s: Option<u32>,
    /// Width and height of tiles of which neither configuration nor header tells, pixels.
    pub default_tile_size: (u32, u32),
    /// Longest body of a tile, bytes.
    pub frame_bytes_max: usize,
    /// Store tiles of acquisitions that were never started.
    pub accept_unknown: bool,
    /// TEMCAs that the configuration file describes.
    pub fixed_temcas: BTreeSet<u32>,
    /// How many connections, and how patient with them.
    pub connections: ConnectionLimits,
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

/// Threads for what waits for the disk, or for the control thread.
const BLOCKING_THREADS: usize = 16;
/// Listings that may walk at a time: the others of these threads are for commands.
const WALKS_MAX: usize = 4;

/// What every handler can reach.
#[derive(Clone)]
struct AppState {
    catalog: Arc<Catalog>,
    lanes: Lanes,
    public_url: Arc<str>,
    default_lease_s: Option<u32>,
    default_tile_size: (u32, u32),
    frame_bytes_max: usize,
    accept_unknown: bool,
    fixed_temcas: Arc<BTreeSet<u32>>,
    /// What of the tile buffers contents on their way to readers may hold; of this, too, one address has half.
    reading: Share,
    /// Bytes of images and pictures of mosaics that may be on their way, beside the tile buffers.
    showing: Share,
    /// What of the tile buffers tiles on their way from HTTP senders may hold.
    sending: Share,
    /// Places for bodies that are held in memory.
    uploads: Uploads,
    /// Long listings are made one at a time.
    long_listings: Arc<Semaphore>,
    /// Listings that go through the tiles of an acquisition, or of all: few of the threads that commands need, too.
    walks: Arc<Semaphore>,
    /// Where images of tiles and mosaics are made.
    previews: Arc<Previews>,
    /// What those who look on share.
    live: Arc<Live>,
    /// The OpenAPI description, JSON.
    api: bytes::Bytes,
}

impl AppState {
    /// True when tiles of this acquisition are stored.
    fn accepts(&self, acq: AcqId) -> bool {
        self.accept_unknown || self.catalog.index().is_started(acq)
    }

    /// Most records of a listing.
    fn listing_max(&self) -> usize {
        self.catalog.limits().listing_max.count()
    }

    /// The TEMCA of an acquisition; 0 when it is not known.
    fn temca_of(&self, acq: AcqId) -> u32 {
        let view = self.catalog.acquisition(acq);
        view.and_then(|view| view.head.started.as_ref().map(|started| started.temca)).unwrap_or(0)
    }
}

/// The running HTTP port.
pub struct HttpServer {
    address: SocketAddr,
    stop: watch::Sender<bool>,
    runtime: tokio::runtime::Runtime,
}

impl HttpServer {
    /// Starts serving on `listener`, or on one that it binds.
    ///
    /// # Errors
    /// The port can not be bound, the runtime not started.
    pub fn start(
        options: &HttpOptions,
        listener: Option<std::net::TcpListener>,
        tls: Option<&ServerTls>,
        catalog: &Arc<Catalog>,
        lanes: &Lanes,
        access: &Arc<Access>,
        previews: &Arc<Previews>,
    ) -> Result<Self, HttpError> {
        let state = AppState {
            catalog: Arc::clone(catalog),
            lanes: lanes.clone(),
            public_url: options.public_url.as_str().into(),
            default_lease_s: options.default_lease_s,
            default_tile_size: options.default_tile_size,
            frame_bytes_max: options.frame_bytes_max,
            accept_unknown: options.accept_unknown,
            fixed_temcas: Arc::new(options.fixed_temcas.clone()),
            reading: Share::new(catalog.pool().capacity() / 4),
            showing: Share::new(catalog.pool().capacity() / 4),
            sending: Share::new(catalog.pool().capacity() / 2),
            uploads: Uploads::default(),
            long_listings: Arc::new(Semaphore::new(1)),
            walks: Arc::new(Semaphore::new(WALKS_MAX)),
            previews: Arc::clone(previews),
            live: Arc::default(),
            api: bytes::Bytes::new(),
        };
        catalog.limits().listing_max.set_count(options.listing_max);
        Self::try_start(options, (listener, tls), state, access)
            .map_err(|source| HttpError { address: options.address, source })
    }

    fn try_start(
        options: &HttpOptions,
        (listener, tls): (Option<std::net::TcpListener>, Option<&ServerTls>),
        state: AppState,
        access: &Arc<Access>,
    ) -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(options.threads)
            .max_blocking_threads(BLOCKING_THREADS)
            .thread_name("http")
            .enable_all()
            .build()?;
        let listener = runtime.block_on(open(options.address, listener))?;
        runtime.spawn(give_signs(state.catalog.metrics().life.pulse("http")));
        let address = listener.local_addr()?;
        let (stop, stopping) = watch::channel(false);
        runtime.spawn(live::run(state.clone(), stopping.clone()));
        let metrics = Arc::clone(state.catalog.metrics());
        let limits = state.catalog.limits().http.clone();
        let app = NormalizePathLayer::trim_trailing_slash().layer(router(state, access, options));
        limits.connections.set_count(options.connections.connections_max);
        limits.connections_per_peer.set_count(options.connections.connections_per_peer);
        let admission = Admission::live(limits, usize::MAX);
        runtime
            .spawn(Door::new(options.connections, admission, tls.cloned(), &metrics, app, stopping).listen(listener));
        Ok(Self { address, stop, runtime })
    }

    /// The bound address.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Closes the port; what is being asked goes on.
    pub fn begin_stop(&self) {
        self.stop.send_replace(true);
    }

    /// Closes the port and ends requests in progress, within `limit`.
    pub fn stop(self, limit: std::time::Duration) {
        self.begin_stop();
        let _ = self.runtime.block_on(async { tokio::time::timeout(limit, self.stop.closed()).await });
        self.runtime.shutdown_timeout(limit);
    }
}

async fn open(
    address: SocketAddr,
    inherited: Option<std::net::TcpListener>,
) -> std::io::Result<tokio::net::TcpListener> {
    match inherited {
        None => tokio::net::TcpListener::bind(address).await,
        Some(listener) => {
            listener.set_nonblocking(true)?;
            tokio::net::TcpListener::from_std(listener)
        }
    }
}

/// Shows that the runtime still gives its tasks their turns.
async fn give_signs(pulse: Arc<Pulse>) {
    let mut every = tokio::time::interval(std::time::Duration::from_secs(1));
    loop {
        every.tick().await;
        pulse.moves();
    }
}

/// Every route, with its description.
fn described() -> OpenApiRouter<AppState> {
    OpenApiRouter::with_openapi(openapi::Description::openapi())
        .routes(routes!(page::index))
        .routes(routes!(page::file))
        .routes(routes!(health::healthz))
        .routes(routes!(health::readyz))
        .routes(routes!(health::metrics))
        .routes(routes!(health::ping))
        .routes(routes!(acquisitions::start))
        .routes(routes!(acquisitions::create_rois))
        .routes(routes!(acquisitions::end))
        .routes(routes!(acquisitions::delete))
        .routes(routes!(acquisitions::list))
        .routes(routes!(acquisitions::projects))
        .routes(routes!(completeness::completeness))
        .routes(routes!(manifest::manifest))
        .routes(routes!(files::store))
        .routes(routes!(files::list))
        .routes(routes!(files::content))
        .routes(routes!(capture::capture))
        .routes(routes!(tiles::of_acquisition))
        .routes(routes!(tiles::of_all))
        .routes(routes!(tiles::by_position))
        .routes(routes!(content::by_position))
        .routes(routes!(tiles::by_id))
        .routes(routes!(content::by_id))
        .routes(routes!(content::verify_tile))
        .routes(routes!(states::next_tile))
        .routes(routes!(states::set_state))
        .routes(routes!(settings::import, settings::list))
        .routes(routes!(settings::by_name))
        .routes(routes!(settings::temcas))
        .routes(routes!(settings::temca, settings::put_temca))
        .routes(routes!(openapi::serve))
        .routes(routes!(status::status))
        .routes(routes!(events::events))
        .routes(routes!(mosaic::mosaic))
        .routes(routes!(v1::acquisition))
        .routes(routes!(v1::tiles))
        .routes(routes!(v1::tile))
        .routes(routes!(v1::content))
        .routes(routes!(places::place))
        .routes(routes!(admin::capture))
        .routes(routes!(admin::pause))
        .routes(routes!(admin::resume))
        .routes(routes!(admin::drain))
        .routes(routes!(admin::rotate))
        .routes(routes!(admin::level, admin::put_level))
        .routes(routes!(admin::limits, admin::put_limits))
        .routes(routes!(admin::senders))
        .routes(routes!(admin::cut_off))
        .routes(routes!(admin_storage::scrub))
        .routes(routes!(admin_storage::start_scrub))
        .routes(routes!(admin_storage::stop_scrub))
        .routes(routes!(admin_storage::index))
        .routes(routes!(admin_storage::check_index))
        .routes(routes!(admin_storage::rebuild_index))
        .routes(routes!(previews::image_by_id))
        .routes(routes!(previews::image_by_place))
        .routes(routes!(previews::thumbnail))
}

fn router(mut state: AppState, access: &Arc<Access>, options: &HttpOptions) -> Router {
    let (service, api) = described().split_for_parts();
    let api = openapi::complete(api);
    let head_bytes_max = options.connections.head_bytes_max;
    let gate = Arc::new(Gate { access: Arc::clone(access), needs: Needs::of(&api), head_bytes_max });
    state.api = api.to_string().into();
    service
        .fallback_service(answer::not_found.into_service())
        .method_not_allowed_fallback(answer::wrong_method)
        .layer(axum::extract::DefaultBodyLimit::disable())
        .layer(middleware::from_fn_with_state(gate, guard))
        .layer(middleware::from_fn(leftover::read_first))
        .layer(middleware::from_fn_with_state(state.clone(), count))
        .with_state(state)
}

/// Counts every answer by its status; errors are all of one shape, and all answers have the headers that browsers heed.
async fn count(State(state): State<AppState>, request: Request, next: Next) -> Response {
    failpoint::pass("http");
    let mut response = answer::in_json(next.run(request).await).await;
    harden(&mut response);
    state.catalog.metrics().http_request(response.status().as_u16());
    response
}
