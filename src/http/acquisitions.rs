//! Acquisitions: start, ROIs, end, deletion; their listings.

use super::answer::{Failure, Path, blocking, number};
use super::guard::About;
use super::parts::{Parts, read_parts};
use super::query::Query;
use super::shapes::{Acquisition, AcquisitionListing, Empty, FileResults, Project, ProjectListing, Started};
use super::{AppState, files};
use crate::catalog::{CatalogError, Completeness, Ending, NewFile};
use crate::formats::{AcquisitionLog, acq_id_from_file_name, parse_roi_spec, parse_roi_tiles, safe_file_name};
use crate::index::AcquisitionView;
use crate::model::{AcqId, AcquisitionStarted, AncillaryKind, Roi};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::{Extension, Json};
use std::collections::BTreeSet;

/// Listings above this length are made one at a time: each acquisition carries its log.
const LONG_LISTING: usize = 1000;
const LOG_PART: &str = "acq-inilog";
const ROI_SPEC_PART: &str = "roi-spec";
const ROI_TILES_PART: &str = "roi-tiles";

/// Starts an acquisition with its log; the file's name begins with the acquisition's number.
#[utoipa::path(post, path = "/service/v1/start-acquisition", tag = "acquisitions",
    request_body(content_type = "multipart/form-data", content = Object, description = "File part `acq-inilog`"),
    responses((status = 200, body = Started)))]
pub(super) async fn start(
    State(state): State<AppState>,
    request: Request,
) -> Result<(Extension<About>, Json<Started>), Failure> {
    let (mut parts, place) = read_parts(&state, request).await?.ok_or_else(not_multipart)?;
    let (file_name, log) = take_file(&mut parts, LOG_PART)?;
    let unusable = |error: String| Failure::bad_request(format!("{LOG_PART} \"{file_name}\": {error}"));
    let acq = acq_id_from_file_name(&file_name).map_err(|error| unusable(error.to_string()))?;
    let (facts, warnings) = AcquisitionLog::parse(&log).map_err(|error| unusable(error.to_string()))?;
    for warning in warnings {
        tracing::warn!(acquisition = acq.0, warning, "acquisition log");
    }
    let base_name = safe_file_name(&file_name).map_err(|error| unusable(error.to_string()))?.to_owned();
    let log_text = String::from_utf8_lossy(&log).into_owned();
    let address = facts.tem_ip_address.clone();
    let as_sent = (log_text.as_bytes() != log).then(|| NewFile {
        name: base_name.clone(),
        path: file_name.clone(),
        kind: AncillaryKind::Logfile,
        content: log,
    });
    let started = AcquisitionStarted { acq, log_name: base_name, facts, log_text, temca: 0 };
    let is_configured = blocking(&state, move |catalog| {
        let _place = place;
        catalog.start_acquisition_with(started, as_sent)
    });
    if !is_configured.await? {
        tracing::warn!(acquisition = acq.0, address, "no TEMCA is configured with this IP address: it counts as 0");
    }
    tracing::info!(acquisition = acq.0, "acquisition started");
    Ok((Extension(About(acq.0)), Json(Started { uid: acq.0 })))
}

fn not_multipart() -> Failure {
    Failure::bad_request("the body is no multipart/form-data with a boundary")
}

/// The file part of this name: its file name and bytes.
fn take_file(parts: &mut Parts, name: &str) -> Result<(String, Vec<u8>), Failure> {
    let part = parts.take(name)?.ok_or_else(|| Failure::bad_request(format!("there is no part {name}")))?;
    let Some(file_name) = part.file_name else {
        return Err(Failure::bad_request(format!("the part {name} has no file name")));
    };
    if part.bytes.is_empty() {
        return Err(Failure::bad_request(format!("the part {name} is empty")));
    }
    Ok((file_name, part.bytes))
}

/// Creates an acquisition's ROIs; asked again, what is there is kept.
#[utoipa::path(post, path = "/service/v1/create-rois/{acqid}", tag = "acquisitions",
    params(("acqid" = u64, Path)),
    request_body(content_type = "multipart/form-data", content = Object,
        description = "File parts `roi-tiles` (CSV) and `roi-spec` (INI), in any order"),
    responses((status = 200, body = Empty)))]
pub(super) async fn create_rois(
    State(state): State<AppState>,
    Path(acqid): Path<String>,
    request: Request,
) -> Result<Json<Empty>, Failure> {
    let acq = AcqId(number("acqid", &acqid)?);
    let (mut parts, place) = read_parts(&state, request).await?.ok_or_else(not_multipart)?;
    let (spec_path, spec) = take_file(&mut parts, ROI_SPEC_PART)?;
    let (tiles_path, tiles) = take_file(&mut parts, ROI_TILES_PART)?;
    blocking(&state, move |catalog| {
        let _place = place;
        let bad = |part: &str, error: String| Failure::bad_request(format!("{part}: {error}"));
        let sections = parse_roi_spec(&spec).map_err(|error| bad(ROI_SPEC_PART, error.to_string()))?;
        let table = parse_roi_tiles(&tiles, &sections).map_err(|error| bad(ROI_TILES_PART, error.to_string()))?;
        for warning in &table.warnings {
            tracing::warn!(acquisition = acq.0, warning, "ROI tiles");
        }
        let roi = |section: &crate::formats::RoiSection| Roi {
            name: section.name.clone(),
            section: section.section,
            prev: 0,
        };
        let mut rois: Vec<(Roi, Vec<(u32, u32)>)> = sections.iter().map(|section| (roi(section), Vec::new())).collect();
        table.tiles.iter().for_each(|tile| rois[tile.roi].1.push((tile.col, tile.row)));
        let file = |path: String, content, kind, part| {
            let name = safe_file_name(&path).map_err(|error| bad(part, error.to_string()))?.to_owned();
            Ok::<NewFile, Failure>(NewFile { name, path, kind, content })
        };
        let files = vec![
            file(spec_path, spec, AncillaryKind::RoiSpec, ROI_SPEC_PART)?,
            file(tiles_path, tiles, AncillaryKind::RoiTiles, ROI_TILES_PART)?,
        ];
        let count = table.tiles.len();
        catalog.create_rois(acq, rois, files)?;
        tracing::info!(acquisition = acq.0, rois = sections.len(), tiles = count, "ROIs created");
        Ok::<(), Failure>(())
    })
    .await?;
    Ok(Json(Empty {}))
}

/// Ends an acquisition; late tiles are still accepted. Files that come along are kept, and the acquisition is ended even
/// if one of them can not be.
#[utoipa::path(post, path = "/service/v1/end-acquisition/{acqid}", tag = "acquisitions",
    params(("acqid" = u64, Path)),
    request_body(content_type = "multipart/form-data", content = Option<Object>,
        description = "Nothing, or file parts `ancillary-file`"),
    responses((status = 200, body = FileResults), (status = 400, body = FileResults)))]
pub(super) async fn end(
    State(state): State<AppState>,
    Path(acqid): Path<String>,
    request: Request,
) -> Result<(StatusCode, Json<FileResults>), Failure> {
    let (acq, files) = files::receive(&state, &acqid, request).await?;
    // A task of its own, which comes to its end even when the connection is cut off: what is ended must be told of, too.
    let ended = tokio::spawn(async move {
        let (status, mut results) = files::store_all(&state, acq, files).await;
        results.completeness = serde_json::to_value(end_now(&state, acq).await?).ok();
        Ok((status, Json(results)))
    });
    ended.await.unwrap_or_else(|_| Err(Failure::inside()))
}

/// Ends an acquisition, and says so to all who want to know.
async fn end_now(state: &AppState, acq: AcqId) -> Result<Completeness, Failure> {
    let completeness = blocking(state, move |catalog| {
        catalog.end_acquisition(acq)?;
        super::manifest::record(catalog, acq)?;
        catalog.completeness(acq)
    })
    .await?;
    report_end(state, acq, &completeness);
    state.catalog.endings().push(Ending { acq, completeness: completeness.clone() });
    Ok(completeness)
}

fn report_end(state: &AppState, acq: AcqId, completeness: &Completeness) {
    let (expected, missing) = (completeness.all.expected, completeness.all.missing);
    if missing == 0 {
        tracing::info!(acquisition = acq.0, expected, "acquisition ended, complete");
        return;
    }
    state.catalog.metrics().ended_incomplete.inc();
    state.catalog.metrics().ended_missing_tiles.inc_by(missing);
    tracing::warn!(acquisition = acq.0, expected, missing, "acquisition ended with tiles missing");
}

/// Deletes an acquisition: it is gone at once, its space when the directory is compacted.
#[utoipa::path(delete, path = "/service/v1/acquisition/{acqid}", tag = "acquisitions",
    params(("acqid" = u64, Path), ("confirm" = u64, Query)),
    responses((status = 200, body = Empty)))]
pub(super) async fn delete(
    State(state): State<AppState>,
    Path(acqid): Path<String>,
    query: Query,
) -> Result<Json<Empty>, Failure> {
    let acq = AcqId(number("acqid", &acqid)?);
    find(&state, acq)?;
    if query.number::<u64>("confirm")? != Some(acq.0) {
        let problem = format!("to delete acquisition {acq} for ever, say so: ?confirm={acq}");
        return Err(Failure::bad_request(problem));
    }
    blocking(&state, move |catalog| catalog.delete_acquisition(acq)).await?;
    tracing::warn!(acquisition = acq.0, "acquisition deleted; `tilecatcher compact` frees its space");
    Ok(Json(Empty {}))
}

/// An acquisition that was started or has tiles.
pub(super) fn find(state: &AppState, acq: AcqId) -> Result<AcquisitionView, Failure> {
    state.catalog.acquisition(acq).ok_or_else(|| Failure::missing(format!("there is no acquisition {acq}")))
}

/// For commands: an acquisition that was never started is the caller's mistake.
pub(super) fn require_started(state: &AppState, acq: AcqId) -> Result<AcquisitionView, Failure> {
    let view = state.catalog.acquisition(acq).filter(|view| view.head.started.is_some());
    view.ok_or_else(|| Failure::from(CatalogError::UnknownAcquisition(acq)))
}

/// Acquisitions that were started, by number.
#[utoipa::path(get, path = "/service/v1/acquisitions", tag = "acquisitions",
    params(("acqid" = Option<u64>, Query), ("sample" = Option<String>, Query), ("project" = Option<String>, Query),
        ("owner" = Option<String>, Query), ("stack" = Option<String>, Query), ("mosaic-type" = Option<String>, Query),
        ("acq-from" = Option<String>, Query, description = "yyyyMMdd[HH[mm[ss]]], local time, inclusive"),
        ("acq-to" = Option<String>, Query, description = "as acq-from, exclusive"),
        ("exists-tile-in-state" = Option<String>, Query, description = "some ROI tile is in this state"),
        ("all-tiles-in-state" = Option<String>, Query, description = "there are ROI tiles, and all are in this state"),
        ("offset" = Option<u32>, Query), ("length" = Option<u32>, Query, description = "1000 when absent")),
    responses((status = 200, body = AcquisitionListing)))]
pub(super) async fn list(State(state): State<AppState>, query: Query) -> Result<Json<AcquisitionListing>, Failure> {
    let (filter, page) = (query.acquisitions()?, query.page(state.listing_max())?);
    let _place = if page.length > LONG_LISTING { Some(state.long_listings.acquire().await) } else { None };
    let (exists, all) = (query.text("exists-tile-in-state"), query.text("all-tiles-in-state"));
    let catalog = &state.catalog;
    let count = |acq, wanted: &str| catalog.index().count_in_state(acq, wanted, |_, _| true);
    let takes = |acq: AcqId, view: &AcquisitionView| {
        view.head.started.is_some()
            && filter.takes(acq, view)
            && exists.is_none_or(|wanted| count(acq, wanted).0 > 0)
            && all.is_none_or(|wanted| matches!(count(acq, wanted), (found, all) if all > 0 && found == all))
    };
    let taken = catalog.index().acquisitions().into_iter().filter(|(acq, view)| takes(*acq, view));
    let page = taken.skip(page.offset).take(page.length);
    let acquisitions: Vec<Acquisition> =
        page.filter_map(|(acq, view)| Acquisition::of(acq, &view, &state.public_url)).collect();
    Ok(Json(AcquisitionListing { length: acquisitions.len(), acquisitions }))
}

/// Projects and their owners, as acquisitions name them.
#[utoipa::path(get, path = "/service/v1/projects", tag = "acquisitions",
    params(("project" = Option<String>, Query), ("owner" = Option<String>, Query), ("sample" = Option<String>, Query),
        ("stack" = Option<String>, Query), ("mosaic-type" = Option<String>, Query),
        ("has-acq-from" = Option<String>, Query, description = "with an acquisition from then on: yyyyMMdd[HH[mm[ss]]]"),
        ("has-acq-to" = Option<String>, Query, description = "with an acquisition before then"),
        ("offset" = Option<u32>, Query), ("length" = Option<u32>, Query)),
    responses((status = 200, body = ProjectListing)))]
pub(super) async fn projects(State(state): State<AppState>, mut query: Query) -> Result<Json<ProjectListing>, Failure> {
    for (name, known) in [("has-acq-from", "acq-from"), ("has-acq-to", "acq-to")] {
        if let Some(time) = query.owned(name) {
            query.put(known, time);
        }
    }
    let (filter, page) = (query.acquisitions()?, query.page(state.listing_max())?);
    let all = state.catalog.index().acquisitions();
    let taken = all.iter().filter(|(acq, view)| filter.takes(*acq, view));
    let project = |view: &AcquisitionView| {
        let facts = &view.head.started.as_ref()?.facts;
        let (project_name, project_owner) = (facts.project_name.clone(), facts.project_owner.clone());
        Some(Project { project_name, project_owner })
    };
    let projects: BTreeSet<Project> = taken.filter_map(|(_, view)| project(view)).collect();
    let projects: Vec<Project> = projects.into_iter().skip(page.offset).take(page.length).collect();
    Ok(Json(ProjectListing { length: projects.len(), projects }))
}
