//! Is it alive, is it ready, how is it: ping, /healthz, /readyz, /metrics.

use super::AppState;
use super::shapes::Empty;
use crate::catalog::CaptureState;
use crate::model::{AckLevel, Pressure};
use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use serde::Serialize;
use utoipa::ToSchema;

/// How full all is (RED when no tiles are taken), the index' queue, and what waits for the disk.
pub(super) fn pressures(state: &AppState) -> [Pressure; 3] {
    let all = state.catalog.pressures(&state.lanes);
    let takes_tiles = state.catalog.is_healthy() && state.catalog.capture_state() == CaptureState::Running;
    let system = if takes_tiles { all.worst() } else { Pressure::Red };
    [system, all.tile_queue, all.content_queue]
}

/// How full the queues are, as every answer to a sender carries it; and whether tiles are taken.
pub(super) fn queue_status(state: &AppState) -> [(&'static str, String); 4] {
    let [system, tile_queue, content_queue] = pressures(state);
    [
        ("System-Status", system.to_string()),
        ("Tile-Queue-Status", tile_queue.to_string()),
        ("Content-Queue-Status", content_queue.to_string()),
        ("Capture-Status", state.catalog.capture_state().name().to_uppercase()),
    ]
}

/// Do index and store work; how full the queues are is in the headers.
#[utoipa::path(get, path = "/service/v1/ping", tag = "service",
    responses((status = 200, body = Empty), (status = 503, body = Empty)))]
pub(super) async fn ping(State(state): State<AppState>) -> impl IntoResponse {
    (ok_or_unavailable(state.catalog.is_healthy()), queue_status(&state), Json(Empty {}))
}

/// The process answers.
#[derive(Serialize, ToSchema)]
pub(super) struct Health {
    /// ok.
    status: String,
}

/// The process answers.
#[utoipa::path(get, path = "/healthz", tag = "service", responses((status = 200, body = Health)))]
pub(super) async fn healthz() -> impl IntoResponse {
    Json(Health { status: "ok".to_owned() })
}

/// Can tiles be stored and found.
#[derive(Serialize, ToSchema)]
pub(super) struct Ready {
    ready: bool,
    /// When a tile is acknowledged, as it is now: without its mirror, replicated is durable.
    #[schema(value_type = String)]
    ack_level: AckLevel,
    /// Whether tiles are taken: running, paused or draining.
    #[schema(value_type = String)]
    capture: CaptureState,
    /// How the mirror is.
    mirror: String,
    /// Tiles that the index' store does not hold yet.
    index_lag_tiles: usize,
    /// True until a restart after the index' store failed.
    index_store_failed: bool,
    /// True while something stored is known to be damaged. All else is served, and tiles are stored.
    degraded: bool,
    /// Stored records that are known to be damaged.
    corrupt_records: usize,
}

/// Tiles can be stored and found; says the ack level.
#[utoipa::path(get, path = "/readyz", tag = "service",
    responses((status = 200, body = Ready), (status = 503, body = Ready)))]
pub(super) async fn readyz(State(state): State<AppState>) -> impl IntoResponse {
    let lag = state.catalog.index().lag();
    let healthy = state.catalog.is_healthy();
    let corrupt_records = state.catalog.damage().count();
    let body = Ready {
        ready: healthy,
        ack_level: state.catalog.level_in_force(),
        capture: state.catalog.capture_state(),
        mirror: state.catalog.journal().mirror().map_or("off", |mirror| mirror.phase().name()).to_owned(),
        index_lag_tiles: lag.tiles,
        index_store_failed: lag.store_failed,
        degraded: corrupt_records > 0,
        corrupt_records,
    };
    (ok_or_unavailable(healthy), Json(body))
}

/// Metrics, in the Prometheus text format 0.0.4.
#[utoipa::path(get, path = "/metrics", tag = "service",
    responses((status = 200, content_type = "text/plain", body = String)))]
pub(super) async fn metrics(State(state): State<AppState>) -> impl IntoResponse {
    state.catalog.refresh_gauges();
    let [system, tile_queue, content_queue] = pressures(&state);
    state.catalog.metrics().show_pressure(system, tile_queue, content_queue);
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], state.catalog.metrics().render())
}

fn ok_or_unavailable(healthy: bool) -> StatusCode {
    if healthy { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}
