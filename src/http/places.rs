//! Why a tile is there, or why not: the life of a place.
//!
//! Reads much of the journal: one request at a time, as other long listings.

use super::AppState;
use super::answer::{Failure, Path, blocking, number};
use super::query::Query;
use crate::catalog::PlaceLife;
use crate::model::{AcqId, FrameNumber, TileKey};
use axum::Json;
use axum::extract::State;
use serde::Serialize;
use std::time::Duration;
use utoipa::ToSchema;

/// Longest wait for a turn.
const PATIENCE: Duration = Duration::from_secs(30);

/// The life of a place; described beside the routes, for it is made below them.
#[derive(Serialize, ToSchema)]
#[serde(transparent)]
pub(super) struct PlaceShape {
    #[schema(value_type = Object)]
    life: PlaceLife,
}

/// The life of a place: what the journal says of it in its order, which refusals are remembered, what it came to and why.
#[utoipa::path(get, path = "/api/v1/acquisitions/{acqid}/places/{col}/{row}", tag = "api v1",
    params(("acqid" = u64, Path), ("col" = u32, Path), ("row" = u32, Path), ("frame" = Option<i32>, Query)),
    responses((status = 200, body = PlaceShape)))]
pub(super) async fn place(
    State(state): State<AppState>,
    Path((acqid, col, row)): Path<(String, String, String)>,
    query: Query,
) -> Result<Json<PlaceShape>, Failure> {
    let frame: i32 = query.number("frame")?.unwrap_or(FrameNumber::STABLE.0);
    if frame < FrameNumber::STABLE.0 {
        return Err(Failure::bad_request("frame is a drift frame's number, or -1 for the stable tile"));
    }
    let acq = AcqId(number("acqid", &acqid)?);
    let key = TileKey { acq, col: number("col", &col)?, row: number("row", &row)?, frame: FrameNumber(frame) };
    let turn = tokio::time::timeout(PATIENCE, state.long_listings.clone().acquire_owned()).await;
    let Ok(Ok(turn)) = turn else { return Err(Failure::busy()) };
    let life = blocking(&state, move |catalog| {
        let _turn = turn;
        catalog.place_life(&key)
    });
    Ok(Json(PlaceShape { life: life.await? }))
}
