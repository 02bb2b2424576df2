//! What an acquisition should have and has: completeness.

use super::AppState;
use super::answer::{Failure, Path, blocking, number};
use super::query::Query;
use crate::catalog::{CatalogError, Tally3};
use crate::model::AcqId;
use axum::Json;
use axum::extract::State;
use serde::Serialize;
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// Counts of tiles.
#[derive(Serialize, ToSchema)]
pub(super) struct Counts {
    expected: u64,
    received: u64,
    missing: u64,
}

impl From<Tally3> for Counts {
    fn from(sums: Tally3) -> Self {
        Self { expected: sums.expected, received: sums.received, missing: sums.missing }
    }
}

/// A place in the mosaic.
#[derive(Serialize, ToSchema)]
pub(super) struct Place {
    col: u32,
    row: u32,
}

/// Missing tiles of one column.
#[derive(Serialize, ToSchema)]
pub(super) struct Run {
    col: u32,
    first_row: u32,
    last_row: u32,
}

/// How complete an acquisition is.
#[derive(Serialize, ToSchema)]
pub(super) struct CompletenessShape {
    acq_id: u64,
    /// rois, or mosaic when no ROI was given.
    expected_by: String,
    expected: u64,
    received: u64,
    missing: u64,
    /// Stored stable tiles that nobody expects.
    unexpected: u64,
    /// By nominal section; a tile in two sections counts in both.
    sections: BTreeMap<String, Counts>,
    /// By camera; -1: no tile of that place in the camera pattern has come yet.
    cameras: BTreeMap<String, Counts>,
    /// A page of them, by column and row.
    missing_tiles: Vec<Place>,
    /// The same page as runs.
    missing_ranges: Vec<Run>,
    offset: u64,
}

/// Which tiles are there, which are missing.
#[utoipa::path(get, path = "/service/v1/acquisition/{acqid}/completeness", tag = "acquisitions",
    params(("acqid" = u64, Path), ("offset" = Option<u64>, Query, description = "of missing_tiles"),
        ("length" = Option<u32>, Query, description = "of missing_tiles, 1000 when absent")),
    responses((status = 200, body = CompletenessShape)))]
pub(super) async fn completeness(
    State(state): State<AppState>,
    Path(acqid): Path<String>,
    query: Query,
) -> Result<Json<CompletenessShape>, Failure> {
    let acq = AcqId(number("acqid", &acqid)?);
    let offset: u64 = query.number("offset")?.unwrap_or(0);
    let length = query.number("length")?.unwrap_or(super::query::LENGTH_DEFAULT).min(state.listing_max());
    let looked = blocking(&state, move |catalog| {
        let sums = catalog.completeness(acq)?;
        Ok::<_, CatalogError>((sums, catalog.missing_tiles(acq, offset, length)?))
    });
    let (sums, page) = looked.await.map_err(Failure::unknown_is_missing)?;
    let by_text = |sums: Vec<(String, Tally3)>| sums.into_iter().map(|(name, sum)| (name, sum.into())).collect();
    Ok(Json(CompletenessShape {
        acq_id: acq.0,
        expected_by: format!("{:?}", sums.expected_by).to_lowercase(),
        expected: sums.all.expected,
        received: sums.all.received,
        missing: sums.all.missing,
        unexpected: sums.unexpected,
        sections: by_text(sums.sections.iter().map(|(section, sum)| (section.to_string(), *sum)).collect()),
        cameras: by_text(sums.cameras.iter().map(|(camera, sum)| (camera.to_string(), *sum)).collect()),
        missing_ranges: page
            .runs()
            .into_iter()
            .map(|run| Run { col: run.col, first_row: run.first_row, last_row: run.last_row })
            .collect(),
        missing_tiles: page.tiles.into_iter().map(|(col, row)| Place { col, row }).collect(),
        offset,
    }))
}
