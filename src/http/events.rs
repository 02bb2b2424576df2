//! Live events: what changes in an acquisition, the status once a second, warnings; as server-sent events.
//!
//! A stream is made as fast as its reader takes it: while it does not, nothing is looked up and nothing waits for it but its
//! position in what has changed. A reader that was passed by hears `lagged` and fetches the mosaic again. Who takes nothing
//! for long is cut off as with every answer.

use super::AppState;
use super::acquisitions::find;
use super::answer::{Failure, blocking};
use super::peers::Peer;
use super::query::{Query, utc_time};
use super::status::{self, WarningShape};
use crate::access::Standing;
use crate::catalog::{CatalogError, Subscription};
use crate::model::AcqId;
use crate::telemetry::{last_warning, warnings_after};
use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde::Serialize;
use std::convert::Infallible;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, sleep_until};

/// Longest time that a change waits for others.
const BATCHED: Duration = Duration::from_millis(100);
/// Cells of one event; what is more comes at once behind it.
const CELLS: usize = 2000;
/// Longest stream that can be asked for, s.
const FOR_MAX_S: u64 = 86_400;
/// Longest stream otherwise, s: who looks on for longer connects again, and shows again who he is.
const FOR_S: u64 = 3600;

/// An answer that is a stream without an end of its own: its connection is not waited for when the daemon stops.
#[derive(Clone, Copy)]
pub(super) struct Endless;

/// Cells that changed.
#[derive(Serialize)]
struct Tiles {
    acquisition: u64,
    /// Column, row, cell as in the mosaic.
    cells: Vec<(u32, u32, u8)>,
}

/// What happens, as server-sent events: `tiles` with the cells of the acquisition that changed, `status` once a second and
/// before the daemon stops, `warning`, and `lagged` when the mosaic is to be fetched again. Open the stream first, then fetch
/// the mosaic. Ends after `for` seconds, without it after an hour; and when its token is revoked.
#[utoipa::path(get, path = "/api/v1/events", tag = "api v1",
    params(("acquisition" = Option<u64>, Query), ("for" = Option<u64>, Query)),
    responses((status = 200, content_type = "text/event-stream", body = String)))]
pub(super) async fn events(
    State(state): State<AppState>,
    standing: Option<Extension<Standing>>,
    query: Query,
    Peer(peer): Peer,
) -> Result<Response, Failure> {
    let acq = query.number::<u64>("acquisition")?.map(AcqId);
    if let Some(acq) = acq {
        find(&state, acq)?;
    }
    let seconds = query.number::<u64>("for")?;
    if seconds.is_some_and(|seconds| !(1..=FOR_MAX_S).contains(&seconds)) {
        return Err(Failure::bad_request(format!("for is a number of seconds, 1 to {FOR_MAX_S}")));
    }
    let full = || Failure::new(StatusCode::SERVICE_UNAVAILABLE, "too many look on: close a view, or try again");
    let place = state.live.of_peers.of(peer).try_acquire_owned().map_err(|_| full())?;
    let subscription = state.catalog.activity().subscribe().ok_or_else(full)?;
    let standing = standing.map(|Extension(standing)| standing);
    let stream = Stream::begin(state, standing, acq, (subscription, place), seconds.unwrap_or(FOR_S)).await;
    let body = Body::from_stream(futures_util::stream::unfold(stream, Stream::next));
    let headers = [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-store")];
    let mut response = (headers, body).into_response();
    response.extensions_mut().insert(Endless);
    Ok(response)
}

struct Stream {
    state: AppState,
    /// With which token it was opened, if with one.
    standing: Option<Standing>,
    acq: Option<AcqId>,
    subscription: Subscription,
    /// What counts against its reader's address.
    _place: OwnedSemaphorePermit,
    status: watch::Receiver<Bytes>,
    ended: watch::Receiver<bool>,
    /// The last warning that was told.
    warning: u64,
    tick: Interval,
    until: Instant,
    has_begun: bool,
}

impl Stream {
    async fn begin(
        state: AppState,
        standing: Option<Standing>,
        acq: Option<AcqId>,
        (subscription, _place): (Subscription, OwnedSemaphorePermit),
        seconds: u64,
    ) -> Self {
        let (mut status, ended) = (state.live.status.subscribe(), state.live.ended.subscribe());
        status::tell(&state).await;
        status.mark_changed();
        let mut tick = interval(BATCHED);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let until = Instant::now() + Duration::from_secs(seconds);
        let warning = last_warning();
        Self { state, standing, acq, subscription, _place, status, ended, warning, tick, until, has_begun: false }
    }

    /// Waits for something to tell; `None`: the stream is over. Called when the reader has room. What ends with the port tells
    /// its last status first; whoever's token was revoked hears nothing more.
    async fn next(mut self) -> Option<(Result<Bytes, Infallible>, Self)> {
        loop {
            let is_ended = tokio::select! {
                biased;
                _ = self.ended.wait_for(|ended| *ended) => true,
                () = sleep_until(self.until) => return None,
                _ = self.tick.tick() => false,
            };
            if self.standing.as_ref().is_some_and(|standing| !standing.holds()) {
                return None;
            }
            if is_ended {
                return self.last_words();
            }
            let mut chunk = Vec::new();
            if !std::mem::replace(&mut self.has_begun, true) {
                chunk.extend_from_slice(b": tilecatcher\nretry: 2000\n\n");
            }
            self.tell_tiles(&mut chunk).await;
            self.tell_status(&mut chunk);
            self.tell_warnings(&mut chunk);
            if !chunk.is_empty() {
                return Some((Ok(chunk.into()), self));
            }
        }
    }

    fn last_words(mut self) -> Option<(Result<Bytes, Infallible>, Self)> {
        let mut chunk = Vec::new();
        self.tell_status(&mut chunk);
        (!chunk.is_empty()).then(|| (Ok(chunk.into()), self))
    }

    async fn tell_tiles(&mut self, chunk: &mut Vec<u8>) {
        let Some(acq) = self.acq else { return };
        let changed = self.subscription.changed(acq, CELLS);
        if changed.more {
            self.tick.reset_immediately();
        }
        if changed.everything {
            put(chunk, "lagged", &serde_json::json!({ "acquisition": acq.0 }));
        }
        if changed.places.is_empty() {
            return;
        }
        let cells =
            blocking(&self.state, move |catalog| Ok::<_, CatalogError>(catalog.cells(acq, &changed.places))).await;
        match cells {
            Ok(cells) => put(chunk, "tiles", &Tiles { acquisition: acq.0, cells }),
            // What could not be looked up must not be missed.
            Err(_) => put(chunk, "lagged", &serde_json::json!({ "acquisition": acq.0 })),
        }
    }

    fn tell_status(&mut self, chunk: &mut Vec<u8>) {
        if self.status.has_changed().unwrap_or(false) {
            chunk.extend_from_slice(&self.status.borrow_and_update());
        }
    }

    fn tell_warnings(&mut self, chunk: &mut Vec<u8>) {
        if last_warning() == self.warning {
            return;
        }
        for warning in warnings_after(self.warning) {
            self.warning = warning.number;
            put(chunk, "warning", &WarningShape::from(warning));
        }
    }
}

/// Adds an event. JSON has no line breaks of its own, so that one line holds it.
pub(super) fn put(chunk: &mut Vec<u8>, name: &str, data: &impl Serialize) {
    chunk.extend_from_slice(format!("event: {name}\ndata: ").as_bytes());
    serde_json::to_writer(&mut *chunk, data).expect("plain data has a JSON form");
    chunk.extend_from_slice(b"\n\n");
}

/// A time, or nothing.
pub(super) fn time(unix_ns: Option<i64>) -> Option<String> {
    unix_ns.map(utc_time)
}
