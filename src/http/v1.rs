//! `/api/v1`: the shapes for newer clients, only where the legacy ones hurt. Same catalog, same filters.
//!
//! Tiles come with a cursor instead of an offset, so that the millionth page costs what the first does; times are RFC 3339
//! UTC; contents are named by their key.

use super::AppState;
use super::acquisitions::find;
use super::answer::{Failure, Path, blocking, number};
use super::content::serve;
use super::peers::Peer;
use super::query::{Query, utc_time};
use super::shapes::{ErrorBody, acquired, stored_checksum};
use super::tiles::TileFilter;
use crate::catalog::CatalogError;
use crate::index::{AcquisitionView, Membership};
use crate::model::{AcqId, Judgement, Measures, QualityFlag, QualityFlags, TileEntry, TileId, TileKey, TileVersion};
use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use serde::Serialize;
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// Tiles that are looked at for one page at most: a filter that takes few gives short pages.
const LOOKED_AT_MAX: usize = 20_000;
/// Most tiles of a page.
const PAGE_MAX: usize = 10_000;

/// A tile's place in a ROI.
#[derive(Serialize, ToSchema)]
pub(super) struct RoiPlace {
    /// The section's identifier in the ROI specification.
    roi: String,
    section: i64,
    /// Earlier acquisitions of the sample with this section.
    prev: u32,
    state: String,
}

/// A stored tile.
#[derive(Serialize, ToSchema)]
pub(super) struct TileV1 {
    id: u64,
    acquisition: u64,
    col: u32,
    row: u32,
    /// Absent for a stable tile.
    #[serde(skip_serializing_if = "Option::is_none")]
    frame: Option<i32>,
    camera: i32,
    version: u32,
    /// Bytes.
    size: u32,
    /// Name of the algorithm and hex.
    checksum: String,
    /// RFC 3339 UTC.
    received: String,
    /// Key of the content: /api/v1/contents/{key}.
    content_key: String,
    /// Absent while its pixels were not judged.
    #[serde(skip_serializing_if = "Option::is_none")]
    quality: Option<QualityV1>,
    /// True when its stored bytes are known to be damaged: sent again, it is stored again. Absent otherwise.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    damaged: bool,
    rois: Vec<RoiPlace>,
}

/// What a tile's pixels say of it.
#[derive(Serialize, ToSchema)]
pub(super) struct QualityV1 {
    /// Mean grey value.
    mean: f64,
    /// From the darkest to the brightest 1 % of the pixels, as share of the camera's range.
    contrast: f64,
    /// Share of the pixels that are as dark or as bright as they can be.
    saturated: f64,
    /// Sharpness, for comparing tiles of one camera.
    focus: f64,
    /// True when it shows nothing.
    blank: bool,
    /// blank, saturated, blurred, undecodable.
    flags: Vec<String>,
}

impl QualityV1 {
    fn of(judgement: &Judgement) -> Self {
        let Measures { mean_c, contrast_e4, saturated_e4, focus_e4 } = judgement.measures;
        let share = |e4: u32| f64::from(e4) / 1e4;
        Self {
            mean: f64::from(mean_c) / 100.0,
            contrast: share(contrast_e4),
            saturated: share(saturated_e4),
            focus: share(focus_e4),
            blank: judgement.flags.has(QualityFlag::Blank),
            flags: judgement.flags.iter().map(|flag| flag.name().to_owned()).collect(),
        }
    }
}

/// Which tiles a listing takes by their quality.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum QualityFilter {
    Any,
    Unjudged,
    Good,
    Flagged,
    With(QualityFlag),
}

impl QualityFilter {
    fn read(query: &Query) -> Result<Self, Failure> {
        Ok(match query.text("quality") {
            None => Self::Any,
            Some("unjudged") => Self::Unjudged,
            Some("good") => Self::Good,
            Some("flagged") => Self::Flagged,
            Some(name) => Self::With(QualityFlag::named(name).ok_or_else(|| {
                let known = "good, flagged, unjudged, blank, saturated, blurred, undecodable";
                Failure::bad_request(format!("quality \"{name}\" is none of {known}"))
            })?),
        })
    }

    fn takes(self, judgement: Option<&Judgement>) -> bool {
        let has = |takes: fn(QualityFlags) -> bool| judgement.is_some_and(|judgement| takes(judgement.flags));
        match self {
            Self::Any => true,
            Self::Unjudged => judgement.is_none(),
            Self::Good => has(QualityFlags::is_empty),
            Self::Flagged => has(|flags| !flags.is_empty()),
            Self::With(flag) => judgement.is_some_and(|judgement| judgement.flags.has(flag)),
        }
    }
}

impl TileV1 {
    fn of(entry: &TileEntry, judgement: Option<&Judgement>, damaged: bool, places: Vec<Membership>) -> Self {
        let checksum = stored_checksum(entry);
        let place = |place: Membership| RoiPlace {
            roi: place.roi.name,
            section: place.roi.section,
            prev: place.roi.prev,
            state: place.state.to_string(),
        };
        Self {
            id: entry.id.0,
            acquisition: entry.key.acq.0,
            col: entry.key.col,
            row: entry.key.row,
            frame: (!entry.key.frame.is_stable()).then_some(entry.key.frame.0),
            camera: entry.camera,
            version: entry.version.0,
            size: entry.image.len,
            checksum: format!("{}:{checksum}", checksum.kind().name()),
            received: utc_time(entry.received_ns),
            content_key: format!("{}-{}", entry.id, entry.version.0),
            quality: judgement.map(QualityV1::of),
            damaged,
            rois: places.into_iter().map(place).collect(),
        }
    }
}

/// A page of tiles.
#[derive(Serialize, ToSchema)]
pub(super) struct TilePage {
    tiles: Vec<TileV1>,
    /// For the next page; absent at the end. A page may be short, or empty, before the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

/// Tiles of an acquisition, each once, in the order in which they were first stored.
#[utoipa::path(get, path = "/api/v1/acquisitions/{acqid}/tiles", tag = "api v1",
    params(("acqid" = u64, Path), ("cursor" = Option<String>, Query, description = "next_cursor of the page before"),
        ("length" = Option<u32>, Query, description = "1 to 10000, 1000 when absent"),
        ("col" = Option<u32>, Query), ("row" = Option<u32>, Query), ("camera" = Option<i32>, Query),
        ("tile-state" = Option<String>, Query, description = "in some ROI"),
        ("frame-type" = Option<String>, Query, description = "stable (default), drift or all"),
        ("quality" = Option<String>, Query),
        ("tile-from" = Option<String>, Query), ("tile-to" = Option<String>, Query)),
    responses((status = 200, body = TilePage)))]
pub(super) async fn tiles(
    State(state): State<AppState>,
    Path(acqid): Path<String>,
    query: Query,
) -> Result<Json<TilePage>, Failure> {
    let acq = AcqId(number("acqid", &acqid)?);
    find(&state, acq)?;
    let after = match query.text("cursor") {
        None => TileId::NONE,
        Some(cursor) => TileId(
            u64::from_str_radix(cursor, 16)
                .map_err(|_| Failure::bad_request("cursor is none: it is the next_cursor of the page before"))?,
        ),
    };
    let quality = QualityFilter::read(&query)?;
    let (filter, length) = (TileFilter::read(&query)?, query.page(PAGE_MAX)?.length.max(1));
    let page = blocking(&state, move |catalog| {
        let mut page = TilePage { tiles: Vec::new(), next_cursor: None };
        let (mut after, mut looked_at) = (after, 0);
        loop {
            let step = (length - page.tiles.len()).clamp(1, 1024);
            let entries = catalog.index().tiles_of(acq, after, step)?;
            let ended = entries.len() < step;
            looked_at += entries.len();
            after = entries.last().map_or(after, |entry| entry.id);
            let entries: Vec<TileEntry> = entries.into_iter().filter(|entry| filter.takes(entry)).collect();
            let keys: Vec<TileKey> = entries.iter().map(|entry| entry.key).collect();
            let judged = catalog.index().judgements(&entries)?;
            let found = entries.iter().zip(&judged).zip(catalog.index().memberships(&keys));
            for ((entry, judgement), places) in found {
                let state_taken = filter.state.is_none() || places.iter().any(|place| filter.takes_state(&place.state));
                if state_taken && quality.takes(judgement.as_ref()) && page.tiles.len() < length {
                    let damaged = catalog.damage().has(entry);
                    page.tiles.push(TileV1::of(entry, judgement.as_ref(), damaged, places));
                }
            }
            if ended {
                return Ok::<_, CatalogError>(page);
            }
            if page.tiles.len() >= length || looked_at >= LOOKED_AT_MAX {
                page.next_cursor = Some(format!("{:x}", after.0));
                return Ok(page);
            }
        }
    })
    .await?;
    Ok(Json(page))
}

/// A tile with its versions' count.
#[utoipa::path(get, path = "/api/v1/tiles/{tileid}", tag = "api v1", params(("tileid" = u64, Path)),
    responses((status = 200, body = TileV1)))]
pub(super) async fn tile(State(state): State<AppState>, Path(tileid): Path<String>) -> Result<Json<TileV1>, Failure> {
    let entry = super::tiles::find_by_id(&state, &tileid).await?;
    let places = state.catalog.index().memberships(&[entry.key]).pop().unwrap_or_default();
    let judged = blocking(&state, move |catalog| Ok::<_, CatalogError>(catalog.index().judgements(&[entry])?)).await?;
    let judgement = judged.into_iter().next().flatten();
    Ok(Json(TileV1::of(&entry, judgement.as_ref(), state.catalog.damage().has(&entry), places)))
}

/// The content with this key: of one version of one tile, for ever the same bytes.
#[utoipa::path(get, path = "/api/v1/contents/{key}", tag = "api v1", params(("key" = String, Path)),
    responses((status = 200, content_type = "image/tiff", body = Vec<u8>),
        (status = 206, content_type = "image/tiff", body = Vec<u8>), (status = 304), (status = 416, body = ErrorBody)))]
pub(super) async fn content(
    State(state): State<AppState>,
    Path(key): Path<String>,
    peer: Peer,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let wrong = || Failure::bad_request("a content key is like 17-1");
    let (id, version) = key.split_once('-').ok_or_else(wrong)?;
    let (id, version) = (id.parse().map_err(|_| wrong())?, version.parse().map_err(|_| wrong())?);
    let found = blocking(&state, move |catalog| catalog.tile_version(TileId(id), TileVersion(version))).await?;
    let entry = found.ok_or_else(|| Failure::missing("there is no content with this key"))?;
    serve(&state, entry, peer, &headers).await
}

/// An acquisition, what it holds, and how far it is.
#[derive(Serialize, ToSchema)]
pub(super) struct AcquisitionV1 {
    id: u64,
    /// RFC 3339 UTC; absent when its log does not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    acquired: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    started: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ended: Option<String>,
    temca: u32,
    sample: String,
    project: String,
    owner: String,
    stack: String,
    mosaic_type: String,
    /// Stored stable tiles.
    tiles: u64,
    drift_frames: u64,
    /// Contents that were replaced by newer ones.
    replaced_versions: u64,
    /// Bytes of all contents, all versions.
    image_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_received: Option<String>,
    /// ROI tiles by state.
    states: BTreeMap<String, u64>,
    /// Merkle root of the manifest at its last end.
    #[serde(skip_serializing_if = "Option::is_none")]
    manifest_root: Option<String>,
}

/// An acquisition.
#[utoipa::path(get, path = "/api/v1/acquisitions/{acqid}", tag = "api v1", params(("acqid" = u64, Path)),
    responses((status = 200, body = AcquisitionV1)))]
pub(super) async fn acquisition(
    State(state): State<AppState>,
    Path(acqid): Path<String>,
) -> Result<Json<AcquisitionV1>, Failure> {
    let acq = AcqId(number("acqid", &acqid)?);
    let view = find(&state, acq)?;
    let states = state.catalog.index().with_board(acq, |board, names| {
        board.counts().by_state().into_iter().map(|(state, n)| (names.name(state).to_string(), n)).collect()
    });
    Ok(Json(shape(acq, &view, states)))
}

fn shape(acq: AcqId, view: &AcquisitionView, states: BTreeMap<String, u64>) -> AcquisitionV1 {
    let started = view.head.started.as_ref();
    let facts = started.map(|started| started.facts.clone()).unwrap_or_default();
    let counters = &view.counters;
    AcquisitionV1 {
        id: acq.0,
        acquired: started.filter(|started| started.facts.acquired_unix_s.is_some()).map(acquired),
        started: started.map(|started| utc_time(started.first_started_ns)),
        ended: started.and_then(|started| started.ended_ns).map(utc_time),
        temca: started.map_or(0, |started| started.temca),
        sample: facts.sample_name,
        project: facts.project_name,
        owner: facts.project_owner,
        stack: facts.stack_name,
        mosaic_type: facts.mosaic_type,
        tiles: counters.tiles,
        drift_frames: counters.drift_frames,
        replaced_versions: counters.replaced,
        image_bytes: counters.image_bytes,
        last_received: (counters.last_received_ns > 0).then(|| utc_time(counters.last_received_ns)),
        states,
        manifest_root: view.head.manifest.as_ref().map(|manifest| manifest.root.clone()),
    }
}
