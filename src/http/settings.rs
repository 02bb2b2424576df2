//! Calibrations, and TEMCAs with their cameras.

use super::AppState;
use super::answer::{Failure, Path, blocking, number};
use super::parts::take_place;
use super::query::Query;
use super::shapes::{CalibrationListing, CalibrationShape, Empty, ErrorBody};
use super::states::{JsonBody, read_body};
use crate::formats::parse_calibrations;
use crate::index::CalibrationEntry;
use crate::model::{Camera, Temca};
use axum::Json;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Longest body of calibrations: room for a thousand as microscopes have them.
const CALIBRATION_BYTES_MAX: usize = 2 << 20;

fn shape(entry: &CalibrationEntry) -> CalibrationShape {
    CalibrationShape {
        id: entry.id,
        name: entry.calibration.name.clone(),
        calibration_date: entry.calibration.date.clone(),
        content: entry.calibration.content.clone(),
    }
}

/// Imports calibrations, all or none; of a name that is known the new one counts.
#[utoipa::path(post, path = "/service/v1/calibrations", tag = "calibrations",
    request_body(content_type = "application/json", content = Vec<Object>),
    responses((status = 200, body = CalibrationListing)))]
pub(super) async fn import(
    State(state): State<AppState>,
    request: Request,
) -> Result<Json<CalibrationListing>, Failure> {
    let place = take_place(&state, &request, CALIBRATION_BYTES_MAX)?.await?;
    let body = read_body(request, CALIBRATION_BYTES_MAX).await?;
    let calibrations = parse_calibrations(&body).map_err(|error| Failure::bad_request(error.to_string()))?;
    let names: Vec<String> = calibrations.iter().map(|calibration| calibration.name.clone()).collect();
    if !calibrations.is_empty() {
        blocking(&state, move |catalog| {
            let _place = place;
            catalog.import_calibrations(calibrations)
        })
        .await?;
    }
    let settings = state.catalog.index().settings();
    let imported: Vec<CalibrationShape> =
        names.iter().filter_map(|name| settings.calibrations.get(name)).map(shape).collect();
    Ok(Json(CalibrationListing { length: imported.len(), calibrations: imported }))
}

/// Calibrations by name.
#[utoipa::path(get, path = "/service/v1/calibrations", tag = "calibrations",
    params(("offset" = Option<u32>, Query), ("length" = Option<u32>, Query)),
    responses((status = 200, body = CalibrationListing)))]
pub(super) async fn list(State(state): State<AppState>, query: Query) -> Result<Json<CalibrationListing>, Failure> {
    let page = query.page(state.listing_max())?;
    let settings = state.catalog.index().settings();
    let calibrations: Vec<CalibrationShape> =
        settings.calibrations.values().skip(page.offset).take(page.length).map(shape).collect();
    Ok(Json(CalibrationListing { length: calibrations.len(), calibrations }))
}

/// One calibration; `{}` with status 404 when there is none.
#[utoipa::path(get, path = "/service/v1/calibration/name/{name}", tag = "calibrations", params(("name" = String, Path)),
    responses((status = 200, body = CalibrationShape), (status = 404, body = Empty)))]
pub(super) async fn by_name(State(state): State<AppState>, Path(name): Path<String>) -> Response {
    match state.catalog.index().settings().calibrations.get(&name) {
        Some(entry) => Json(shape(entry)).into_response(),
        None => (StatusCode::NOT_FOUND, Json(Empty {})).into_response(),
    }
}

/// A camera of a TEMCA.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CameraShape {
    /// Index in the array, from 0.
    camera: u32,
    /// Pixels; when absent, as the tile says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    width: Option<u32>,
    /// Pixels; when absent, as the tile says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    height: Option<u32>,
    /// URL of the mask of its tiles.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mask_url: Option<String>,
    /// Name of the calibration that transforms its tiles.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    transformation: Option<String>,
}

/// A TEMCA.
#[derive(Serialize, ToSchema)]
pub(super) struct TemcaShape {
    id: u32,
    tem_ip_address: String,
    cameras: Vec<CameraShape>,
    /// True when the configuration file describes it: it is changed there, not here.
    in_configuration_file: bool,
}

/// A TEMCA's description.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct TemcaBody {
    tem_ip_address: String,
    #[serde(default)]
    cameras: Vec<CameraShape>,
}

/// TEMCAs.
#[derive(Serialize, ToSchema)]
pub(super) struct TemcaListing {
    length: usize,
    temcas: Vec<TemcaShape>,
}

fn temca_shape(state: &AppState, temca: &Temca) -> TemcaShape {
    let camera = |camera: &Camera| CameraShape {
        camera: camera.camera,
        width: camera.width,
        height: camera.height,
        mask_url: camera.mask_url.clone(),
        transformation: camera.transformation.clone(),
    };
    TemcaShape {
        id: temca.id,
        tem_ip_address: temca.tem_ip_address.clone(),
        cameras: temca.cameras.iter().map(camera).collect(),
        in_configuration_file: state.fixed_temcas.contains(&temca.id),
    }
}

/// TEMCAs by number.
#[utoipa::path(get, path = "/service/v1/temcas", tag = "temcas", responses((status = 200, body = TemcaListing)))]
pub(super) async fn temcas(State(state): State<AppState>) -> Json<TemcaListing> {
    let settings = state.catalog.index().settings();
    let temcas: Vec<TemcaShape> = settings.temcas.values().map(|temca| temca_shape(&state, temca)).collect();
    Json(TemcaListing { length: temcas.len(), temcas })
}

/// A TEMCA.
#[utoipa::path(get, path = "/service/v1/temca/{id}", tag = "temcas", params(("id" = u32, Path)),
    responses((status = 200, body = TemcaShape)))]
pub(super) async fn temca(State(state): State<AppState>, Path(id): Path<String>) -> Result<Json<TemcaShape>, Failure> {
    let id: u32 = number("id", &id)?;
    let settings = state.catalog.index().settings();
    let temca = settings.temcas.get(&id).ok_or_else(|| Failure::missing(format!("there is no TEMCA {id}")))?;
    Ok(Json(temca_shape(&state, temca)))
}

/// Describes a TEMCA, anew if it was described. Acquisitions started from now on are of it when their log names its IP
/// address.
#[utoipa::path(put, path = "/service/v1/temca/{id}", tag = "temcas", params(("id" = u32, Path)),
    request_body = TemcaBody, responses((status = 200, body = TemcaShape), (status = 409, body = ErrorBody)))]
pub(super) async fn put_temca(
    State(state): State<AppState>,
    Path(id): Path<String>,
    JsonBody(body): JsonBody<TemcaBody>,
) -> Result<Json<TemcaShape>, Failure> {
    let id: u32 = number("id", &id)?;
    if state.fixed_temcas.contains(&id) {
        let problem = format!("TEMCA {id} is described in the configuration file: change it there and restart");
        return Err(Failure::new(StatusCode::CONFLICT, problem));
    }
    let camera = |camera: CameraShape| Camera {
        camera: camera.camera,
        width: camera.width,
        height: camera.height,
        mask_url: camera.mask_url,
        transformation: camera.transformation,
    };
    let cameras = body.cameras.into_iter().map(camera).collect();
    let temca = Temca { id, tem_ip_address: body.tem_ip_address, cameras };
    let shape = temca_shape(&state, &temca);
    blocking(&state, move |catalog| catalog.configure_temca(temca)).await?;
    Ok(Json(shape))
}
