//! The mosaic of an acquisition as a picture: one byte a place.

use super::AppState;
use super::answer::{Failure, Path, blocking, number};
use super::peers::Peer;
use super::query::Query;
use super::shapes::ErrorBody;
use super::share::sending;
use crate::catalog::{CatalogError, MosaicError, MosaicFilter};
use crate::model::{AcqId, QualityFlag};
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use utoipa::ToSchema;

/// A picture of a mosaic.
#[derive(Serialize, ToSchema)]
pub(super) struct MosaicShape {
    acquisition: u64,
    cols: u32,
    rows: u32,
    /// The column of the first cell.
    first_col: u32,
    /// The row of the first cell.
    first_row: u32,
    /// What the lower five bits of a cell mean: none, missing, refused, received, then the states of ROI tiles.
    legend: Vec<String>,
    /// Base64 of rows * cols bytes, row-major. Bit 5: a quality flag is set; bit 6: the image can not be decoded; bit 7: the
    /// stored tile is damaged.
    cells: String,
    /// Everything below this in the journal's order is in it.
    sequence: u64,
    /// Names of the quality flags that there are.
    quality_flags: Vec<String>,
}

impl From<MosaicError> for Failure {
    fn from(error: MosaicError) -> Self {
        match error {
            MosaicError::Catalog(CatalogError::UnknownAcquisition(acq)) => {
                Self::missing(format!("there is no acquisition {acq}"))
            }
            MosaicError::Catalog(error) => error.into(),
            MosaicError::TooLarge { .. } => Self::new(StatusCode::UNPROCESSABLE_ENTITY, error.to_string()),
        }
    }
}

/// Every place of an acquisition's mosaic: whether its tile is expected, was refused, has come, and in which state it is. Of
/// one section or camera only, all other places are none.
#[utoipa::path(get, path = "/api/v1/acquisitions/{acqid}/mosaic", tag = "api v1",
    params(("acqid" = u64, Path), ("section" = Option<i64>, Query), ("camera" = Option<i32>, Query)),
    responses((status = 200, body = MosaicShape), (status = 422, body = ErrorBody)))]
pub(super) async fn mosaic(
    State(state): State<AppState>,
    Path(acqid): Path<String>,
    query: Query,
    Peer(peer): Peer,
) -> Result<Response, Failure> {
    let acq = AcqId(number("acqid", &acqid)?);
    let section = query.number::<i64>("section")?;
    if section.is_some_and(|section| section < -1) {
        return Err(Failure::bad_request("section is a nominal section, or -1 for any"));
    }
    let filter = MosaicFilter { section: section.filter(|section| *section >= 0), camera: query.number("camera")? };
    let _place = state.live.pictures.acquire().await;
    let json = blocking(&state, move |catalog| {
        let mosaic = catalog.mosaic(acq, filter)?;
        let shape = MosaicShape {
            acquisition: acq.0,
            cols: mosaic.cols,
            rows: mosaic.rows,
            first_col: mosaic.first_col,
            first_row: mosaic.first_row,
            legend: mosaic.legend,
            cells: STANDARD.encode(&mosaic.cells),
            sequence: mosaic.sequence.0,
            quality_flags: QualityFlag::ALL.map(|flag| flag.name().to_owned()).into(),
        };
        Ok::<_, MosaicError>(serde_json::to_vec(&shape).expect("numbers and texts can be written"))
    });
    let json = json.await?;
    // Behind the making, of which there are few at a time: those who wait here are no more.
    let room = state.showing.take(peer, json.len()).await?;
    Ok(([(header::CONTENT_TYPE, "application/json")], sending(json, room)).into_response())
}
