//! What an operator does to the running daemon: capture, journal, log level, limits. Scrub and index are beside it.
//!
//! Everything here needs the scope admin, says in the audit log what it changed, and may be asked twice. Must never make a
//! tile wait.

use super::AppState;
use super::answer::{Failure, Path, blocking, number};
use super::query::utc_time;
use super::shapes::ErrorBody;
use super::states::JsonBody;
use super::status::SenderShape;
use crate::base::stop::StopReason;
use crate::catalog::{CaptureState, Limit};
use crate::telemetry::{LogLevel, log_level, set_log_level};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// Senders that are listed.
const SENDERS_MAX: usize = 1000;

/// Put into an answer: what was changed, for the audit log.
#[derive(Clone)]
pub(super) struct Changed(pub(super) String);

/// An answer that says what it changed.
pub(super) fn changed(what: impl Into<String>, answer: impl IntoResponse) -> Response {
    let mut response = answer.into_response();
    response.extensions_mut().insert(Changed(what.into()));
    response
}

/// Whether tiles are taken.
#[derive(Serialize, ToSchema)]
pub(super) struct CaptureShape {
    /// running, paused or draining.
    #[schema(value_type = String)]
    state: CaptureState,
    /// When it was last paused or resumed, RFC 3339 UTC; absent: never since the start.
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<String>,
    /// True when this request changed it.
    changed: bool,
}

fn capture_shape(state: &AppState, changed: bool) -> Json<CaptureShape> {
    let since = Some(state.catalog.switch().since_ns()).filter(|since| *since != 0).map(utc_time);
    Json(CaptureShape { state: state.catalog.capture_state(), since, changed })
}

/// Whether tiles are taken.
#[utoipa::path(get, path = "/api/v1/admin/capture", tag = "admin", responses((status = 200, body = CaptureShape)))]
pub(super) async fn capture(State(state): State<AppState>) -> Json<CaptureShape> {
    capture_shape(&state, false)
}

/// Holds tiles back: those that have begun are taken and answered, the capture port begins no other, the HTTP port answers
/// 503. Everything else goes on. Until it is resumed, or the daemon restarts.
#[utoipa::path(post, path = "/api/v1/admin/capture/pause", tag = "admin", responses((status = 200, body = CaptureShape)))]
pub(super) async fn pause(State(state): State<AppState>) -> Response {
    switch(&state, true)
}

/// Takes tiles again.
#[utoipa::path(post, path = "/api/v1/admin/capture/resume", tag = "admin", responses((status = 200, body = CaptureShape)))]
pub(super) async fn resume(State(state): State<AppState>) -> Response {
    switch(&state, false)
}

fn switch(state: &AppState, paused: bool) -> Response {
    let has_changed = state.catalog.switch().set_paused(paused);
    if has_changed && paused {
        tracing::warn!("capture is paused by an operator: no tile is taken until it is resumed");
    } else if has_changed {
        tracing::warn!("capture is resumed by an operator");
    }
    let what = if paused { "capture paused" } else { "capture resumed" };
    changed(what, capture_shape(state, has_changed))
}

/// Ends the daemon as SIGTERM does: takes no new tile, answers what is in flight, syncs, seals, ends with code 0.
#[utoipa::path(post, path = "/api/v1/admin/drain", tag = "admin", responses((status = 202, body = CaptureShape)))]
pub(super) async fn drain(State(state): State<AppState>) -> Response {
    let has_changed = state.catalog.stop().reason().is_none();
    tracing::warn!("asked by an operator to drain: the daemon answers what is in flight and ends");
    state.catalog.stop().raise(StopReason::Requested);
    changed("drain", (StatusCode::ACCEPTED, capture_shape(&state, has_changed)))
}

/// What was sealed.
#[derive(Serialize, ToSchema)]
pub(super) struct RotatedShape {
    /// Segments that were open and are sealed now.
    sealed: usize,
}

/// Seals every segment that is open; records go on in new ones. Answers when they are sealed.
#[utoipa::path(post, path = "/api/v1/admin/journal/rotate", tag = "admin", responses((status = 200, body = RotatedShape)))]
pub(super) async fn rotate(State(state): State<AppState>) -> Result<Response, Failure> {
    let lanes = state.lanes.clone();
    let sealed = blocking(&state, move |catalog| catalog.rotate(&lanes)).await?;
    tracing::info!(sealed, "segments were sealed by an operator");
    Ok(changed(format!("{sealed} segments sealed"), Json(RotatedShape { sealed })))
}

/// The least severe events that are logged.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct LogLevelShape {
    /// off, error, warn, info, debug or trace.
    level: String,
}

/// The log level.
#[utoipa::path(get, path = "/api/v1/admin/log-level", tag = "admin", responses((status = 200, body = LogLevelShape)))]
pub(super) async fn level() -> Json<LogLevelShape> {
    Json(LogLevelShape { level: log_level().map_or_else(|| "off".to_owned(), |level| level.to_string()) })
}

/// Sets the log level, until the daemon restarts.
#[utoipa::path(put, path = "/api/v1/admin/log-level", tag = "admin", request_body = LogLevelShape,
    responses((status = 200, body = LogLevelShape)))]
pub(super) async fn put_level(JsonBody(body): JsonBody<LogLevelShape>) -> Result<Response, Failure> {
    let level: LogLevel = body.level.parse().map_err(Failure::bad_request)?;
    let before = set_log_level(level).ok_or_else(|| Failure::bad_request("this process does not log by itself"))?;
    tracing::info!(%before, now = %level, "the log level was changed by an operator");
    Ok(changed(format!("log level {before} -> {level}"), Json(LogLevelShape { level: level.to_string() })))
}

/// A limit that can be changed at run time.
#[derive(Serialize, ToSchema)]
pub(super) struct LimitShape {
    /// Key of the configuration.
    key: String,
    /// As the configuration would have it.
    value: String,
    default: String,
    /// default, file, environment, flag, or admin: set at run time.
    source: String,
    about: String,
}

/// The limits that can be changed at run time.
#[derive(Serialize, ToSchema)]
pub(super) struct LimitsShape {
    limits: Vec<LimitShape>,
}

/// What limits are to be: value by key.
#[derive(Deserialize, ToSchema)]
pub(super) struct LimitsBody(BTreeMap<String, String>);

fn limits_shape(state: &AppState) -> Json<LimitsShape> {
    let shape = |limit: Limit| LimitShape {
        key: limit.key.to_owned(),
        value: limit.value,
        default: limit.configured.default,
        source: limit.configured.source,
        about: limit.configured.about,
    };
    Json(LimitsShape { limits: state.catalog.list_limits().into_iter().map(shape).collect() })
}

/// The limits that can be changed at run time, with their values.
#[utoipa::path(get, path = "/api/v1/admin/limits", tag = "admin", responses((status = 200, body = LimitsShape)))]
pub(super) async fn limits(State(state): State<AppState>) -> Json<LimitsShape> {
    limits_shape(&state)
}

/// Sets limits, until the daemon restarts; when one of them can not be set, none is. Connections that are there stay.
#[utoipa::path(put, path = "/api/v1/admin/limits", tag = "admin", request_body = LimitsBody,
    responses((status = 200, body = LimitsShape), (status = 400, body = ErrorBody)))]
pub(super) async fn put_limits(
    State(state): State<AppState>,
    JsonBody(LimitsBody(wanted)): JsonBody<LimitsBody>,
) -> Result<Response, Failure> {
    let done = state.catalog.set_limits(&wanted).map_err(Failure::bad_request)?;
    for (key, before, now) in &done {
        tracing::info!(key, before, now, "a limit was changed by an operator");
    }
    let done: Vec<String> = done.iter().map(|(key, before, now)| format!("{key} {before} -> {now}")).collect();
    Ok(changed(done.join(", "), limits_shape(&state)))
}

/// Who sends tiles now.
#[derive(Serialize, ToSchema)]
pub(super) struct SendersShape {
    /// At most 1000.
    senders: Vec<SenderShape>,
    senders_total: usize,
}

/// Connections that send tiles, on both ports.
#[utoipa::path(get, path = "/api/v1/admin/senders", tag = "admin", responses((status = 200, body = SendersShape)))]
pub(super) async fn senders(State(state): State<AppState>) -> Json<SendersShape> {
    let (senders, senders_total) = state.catalog.activity().senders(SENDERS_MAX);
    Json(SendersShape { senders: senders.into_iter().map(SenderShape::from).collect(), senders_total })
}

/// A sender that was cut off.
#[derive(Serialize, ToSchema)]
pub(super) struct CutOffShape {
    sender: u64,
}

/// Cuts a sender's connection off, in the middle of whatever it sends. Tiles that were acknowledged stay; of others the sender
/// hears nothing, and may connect again.
#[utoipa::path(delete, path = "/api/v1/admin/senders/{sender}", tag = "admin", params(("sender" = u64, Path)),
    responses((status = 200, body = CutOffShape)))]
pub(super) async fn cut_off(State(state): State<AppState>, Path(sender): Path<String>) -> Result<Response, Failure> {
    let sender: u64 = number("sender", &sender)?;
    if !state.catalog.activity().cut_off(sender) {
        return Err(Failure::missing(format!("there is no sender {sender} now")));
    }
    tracing::warn!(sender, "a sender was cut off by an operator");
    Ok(changed(format!("sender {sender} cut off"), Json(CutOffShape { sender })))
}
