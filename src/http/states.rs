//! Distribution to stitching software: next-tile with its tilespecs, and tile-state.

use super::AppState;
use super::answer::{Failure, blocking, command};
use super::parts::{PATIENCE, check_length, take_place, too_large};
use super::query::Query;
use super::shapes::{NextTile, NextTilesAnswer, StateUpdates, image_url};
use crate::catalog::{Catalog, CatalogError, NextTiles};
use crate::formats::{TileSpec, TileSpecParts};
use crate::model::{RoiTileKey, STATE_IN_PROGRESS, STATE_READY, TileKey, TileSpecId};
use axum::Json;
use axum::body::Bytes;
use axum::extract::{FromRequest, Request, State};
use bytes::BytesMut;
use http_body_util::BodyExt;
use serde::Deserialize;
use tokio::time::timeout;

/// Most tiles that one call hands out.
pub(super) const TILES_MAX: usize = 1000;
/// Longest lease, seconds.
pub(super) const LEASE_S_MAX: u32 = 30 * 24 * 3600;
/// Longest body of tile-state: room for half a million identifiers.
const STATE_BYTES_MAX: usize = 16 << 20;
/// Longest body of parameters.
const FORM_BYTES_MAX: usize = 64 << 10;

/// A body up to `limit` bytes, whole, whatever type it claims to be.
pub(super) async fn read_body(request: Request, limit: usize) -> Result<Bytes, Failure> {
    check_length(request.headers(), limit)?;
    let mut body = request.into_body();
    let mut read = BytesMut::new();
    loop {
        let frame = timeout(PATIENCE, body.frame()).await.map_err(|_| Failure::timed_out())?;
        let Some(frame) = frame else { return Ok(read.freeze()) };
        let frame = frame.map_err(|error| Failure::bad_request(format!("the body is cut: {error}")))?;
        let Ok(data) = frame.into_data() else { continue };
        if data.len() > limit - read.len() {
            return Err(too_large(limit));
        }
        read.extend_from_slice(&data);
    }
}

/// Hands out tiles: moves them from one state into another, each for one caller only. Parameters come in the query, or
/// as a form in the body.
#[utoipa::path(post, path = "/service/v1/next-tile", tag = "distribution",
    params(("acqid" = Option<u64>, Query), ("section" = Option<i64>, Query, description = "-1: any"),
        ("ntiles" = Option<u32>, Query, description = "1 when absent, at most 1000"),
        ("project" = Option<String>, Query), ("sample" = Option<String>, Query), ("stack" = Option<String>, Query),
        ("owner" = Option<String>, Query), ("mosaic-type" = Option<String>, Query),
        ("oldState" = Option<String>, Query, description = "READY when absent"),
        ("newState" = Option<String>, Query, description = "IN_PROGRESS when absent"),
        ("tile-from" = Option<String>, Query), ("tile-to" = Option<String>, Query),
        ("frame-type" = Option<String>, Query),
        ("lease" = Option<u32>, Query, description = "seconds after which tiles return to oldState; 0: never")),
    responses((status = 200, body = NextTilesAnswer)))]
pub(super) async fn next_tile(
    State(state): State<AppState>,
    mut query: Query,
    request: Request,
) -> Result<Json<NextTilesAnswer>, Failure> {
    let body = read_body(request, FORM_BYTES_MAX).await?;
    query.add(Query::parse(&body));
    let ask = read_ask(state.default_lease_s, &query)?;
    let (acq, section, limit) = (ask.of.acq, ask.section, ask.limit);
    let (result, tiles) = command(|answer| state.catalog.next_tiles(ask, answer)).await?;
    let context = SpecContext { public_url: state.public_url.to_string(), default_size: state.default_tile_size };
    let results = match tiles.is_empty() {
        true => Vec::new(),
        false => blocking(&state, move |catalog| specs(catalog, &tiles, &context)).await?,
    };
    Ok(Json(NextTilesAnswer {
        result_type: result.name().to_owned(),
        requested_acq_id: acq.map(|acq| acq.0),
        requested_section: section,
        n_tiles_requested: limit,
        n_tiles_found: results.len(),
        results,
    }))
}

pub(super) fn read_ask(default_lease_s: Option<u32>, query: &Query) -> Result<NextTiles, Failure> {
    let limit: usize = query.number("ntiles")?.unwrap_or(1);
    if limit == 0 {
        return Err(Failure::bad_request("ntiles is 0"));
    }
    // A client that asks for more gets what it can get, and is told for how much it was taken to ask.
    let limit = limit.min(TILES_MAX);
    let section: Option<i64> = query.number("section")?;
    if section.is_some_and(|section| section < -1) {
        return Err(Failure::bad_request("section is below -1"));
    }
    let lease: Option<u32> = query.number("lease")?;
    if lease.is_some_and(|lease| lease > LEASE_S_MAX) {
        return Err(Failure::bad_request(format!("lease is above {LEASE_S_MAX} seconds")));
    }
    Ok(NextTiles {
        of: query.acquisitions()?,
        section: section.filter(|section| *section >= 0),
        limit,
        old_state: query.owned("oldState").unwrap_or_else(|| STATE_READY.to_owned()),
        new_state: query.owned("newState").unwrap_or_else(|| STATE_IN_PROGRESS.to_owned()),
        frames: query.frame_type()?,
        received: query.received()?,
        lease_s: lease.or(default_lease_s).filter(|lease| *lease > 0),
    })
}

struct SpecContext {
    public_url: String,
    default_size: (u32, u32),
}

fn specs(catalog: &Catalog, tiles: &[RoiTileKey], context: &SpecContext) -> Result<Vec<NextTile>, CatalogError> {
    let settings = catalog.index().settings();
    let mut found = Vec::with_capacity(tiles.len());
    for tile in tiles {
        let (acq, cell) = (tile.acq, tile.cell);
        let Some(view) = catalog.acquisition(acq) else { continue };
        let (Some(started), Some(roi)) = (view.head.started.as_ref(), view.head.roi(tile.roi)) else { continue };
        let key = TileKey { acq, col: cell.0, row: cell.1, frame: cell.2 };
        let Some(entry) = catalog.tile_by_key(&key)? else { continue };
        let temca = settings.temcas.get(&started.temca);
        let camera = temca.and_then(|temca| temca.camera(entry.camera));
        let configured = camera.and_then(|camera| Some((camera.width?, camera.height?)));
        let spec = TileSpec::new(&TileSpecParts {
            id: TileSpecId { acq, cell, section: roi.section, prev: roi.prev },
            roi,
            facts: &started.facts,
            temca: started.temca,
            camera: entry.camera,
            size: configured.or_else(|| catalog.image_dimensions(&entry)).unwrap_or(context.default_size),
            image_url: image_url(&context.public_url, &entry),
            mask_url: camera.and_then(|camera| camera.mask_url.as_deref()),
            calibration: camera.and_then(|camera| camera.transformation.as_deref()),
        });
        found.push(NextTile { acqid: acq.0, section: roi.section, tilespec: spec });
    }
    Ok(found)
}

#[derive(Deserialize, utoipa::ToSchema)]
pub(super) struct StateChange {
    /// The new state.
    state: String,
    /// `acq.col.row.section.prev`; with `.frame` behind it for a drift frame.
    #[serde(rename = "tileSpecIds")]
    tile_spec_ids: Vec<String>,
}

/// Puts tiles into a state, all or none; identifiers that are not known are passed over.
#[utoipa::path(put, path = "/service/v1/tile-state", tag = "distribution", request_body = StateChange,
    responses((status = 200, body = StateUpdates)))]
pub(super) async fn set_state(State(state): State<AppState>, request: Request) -> Result<Json<StateUpdates>, Failure> {
    let _place = take_place(&state, &request, STATE_BYTES_MAX)?.await?;
    let body = read_body(request, STATE_BYTES_MAX).await?;
    let change: StateChange = read_json(&body)?;
    let ids: Result<Vec<TileSpecId>, _> = change.tile_spec_ids.iter().map(|id| id.parse()).collect();
    let ids = ids.map_err(|error: crate::model::TileSpecIdError| Failure::bad_request(error.to_string()))?;
    let n_updates = command(|answer| state.catalog.set_states(change.state, ids, answer)).await?;
    Ok(Json(StateUpdates { n_updates }))
}

/// Reads JSON of whatever type it claims to be.
pub(super) fn read_json<T: serde::de::DeserializeOwned>(body: &[u8]) -> Result<T, Failure> {
    serde_json::from_slice(body)
        .map_err(|error| Failure::bad_request(format!("the body is not the JSON expected: {error}")))
}

/// The body of a request, read as JSON, and how long it may be.
pub(super) struct JsonBody<T>(pub(super) T);

impl<T: serde::de::DeserializeOwned, S: Send + Sync> FromRequest<S> for JsonBody<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, _: &S) -> Result<Self, Failure> {
        read_json(&read_body(request, 1 << 20).await?).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;
    use std::convert::Infallible;
    use std::time::Duration;

    /// A body of so many bytes, each of which takes its time.
    fn slow(bytes: usize, each: Duration) -> Request {
        let next = move |left: usize| async move {
            tokio::time::sleep(each).await;
            Some((Ok::<_, Infallible>(Bytes::from_static(b"x")), left.checked_sub(1)?))
        };
        Request::new(Body::from_stream(futures_util::stream::unfold(bytes, next)))
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_may_take_its_time_as_long_as_it_comes() {
        let steady = read_body(slow(100, PATIENCE / 2), 100).await.expect("whole");
        assert_eq!(steady.len(), 100);
        assert!(read_body(slow(1, PATIENCE * 2), 100).await.is_err(), "it stopped coming");
        assert!(read_body(slow(101, Duration::ZERO), 100).await.is_err(), "longer than allowed");
    }
}
