//! What an operator has looked after in what is stored: the scrub with its report, the index against the journal.
//!
//! What takes longer than a request is begun by one and asked for by others. Must never make a tile wait.

use super::AppState;
use super::admin::changed;
use super::answer::{Failure, blocking};
use super::query::{Query, utc_time};
use super::shapes::ErrorBody;
use crate::catalog::{CatalogError, DamagedTile, IndexJob, IndexJobKind, IndexJobOutcome, ReportedDamage, ScrubPhase};
use crate::index::{Differences, RowProblem};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

/// Damaged records that one answer names.
const DAMAGE_MAX: usize = 10_000;

/// The scrub, and what is known to be damaged.
#[derive(Serialize, ToSchema)]
pub(super) struct ScrubReport {
    /// off, waiting, running or stopped.
    #[schema(value_type = String)]
    phase: ScrubPhase,
    /// Bytes a second it may read, off, or unlimited.
    rate: String,
    /// Seconds from the start of one pass to the start of the next.
    interval_s: u64,
    /// Share of the journal that the pass has read.
    progress: f64,
    /// Passes that came to their end since the start of the daemon.
    passes: u64,
    /// Damaged records that the scrub was the first to find, since the start.
    findings: u64,
    /// Stored records that are known to be damaged now.
    damaged_records: usize,
    /// The first of them, up to `length`.
    damaged: Vec<DamagedShape>,
}

/// A damaged record, or another damaged place of a segment.
#[derive(Serialize, ToSchema)]
pub(super) struct DamagedShape {
    /// RFC 3339 UTC.
    found: String,
    /// Number of the segment, hex, as in its file's name.
    segment: String,
    /// Bytes.
    offset: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    sequence: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tile: Option<DamagedTileShape>,
    /// What does not hold.
    what: String,
    /// scrub, read, verify, resend or start.
    found_by: String,
}

/// The tile that a damaged record holds.
#[derive(Serialize, ToSchema)]
pub(super) struct DamagedTileShape {
    id: u64,
    acquisition: u64,
    col: u32,
    row: u32,
    /// -1: a stable tile.
    frame: i32,
    version: u32,
}

fn damaged_shape(damage: ReportedDamage) -> DamagedShape {
    let tile = |tile: DamagedTile| DamagedTileShape {
        id: tile.id,
        acquisition: tile.acq,
        col: tile.col,
        row: tile.row,
        frame: tile.frame,
        version: tile.version,
    };
    let finding = damage.finding;
    DamagedShape {
        found: damage.time,
        segment: format!("{:016x}", finding.segment),
        offset: finding.offset,
        sequence: finding.sequence,
        tile: finding.tile.map(tile),
        what: finding.what,
        found_by: finding.found_by.name().to_owned(),
    }
}

async fn scrub_shape(state: &AppState, length: usize) -> Result<Json<ScrubReport>, Failure> {
    let read = move |catalog: &std::sync::Arc<crate::catalog::Catalog>| {
        let (scrub, metrics, damage) = (catalog.scrub(), catalog.metrics(), catalog.damage());
        Ok::<_, CatalogError>(ScrubReport {
            phase: scrub.phase(),
            rate: scrub.rate().to_string(),
            interval_s: scrub.interval().as_secs(),
            progress: metrics.scrub_progress.get(),
            passes: metrics.scrub_passes.get(),
            findings: metrics.scrub_findings.get(),
            damaged_records: damage.count(),
            damaged: damage.list(length).into_iter().map(damaged_shape).collect(),
        })
    };
    blocking(state, read).await.map(Json)
}

/// What the scrub does, and which records are known to be damaged.
#[utoipa::path(get, path = "/api/v1/admin/scrub", tag = "admin",
    params(("length" = Option<u32>, Query, description = "most damaged records named")),
    responses((status = 200, body = ScrubReport)))]
pub(super) async fn scrub(State(state): State<AppState>, query: Query) -> Result<Json<ScrubReport>, Failure> {
    let length = query.page(DAMAGE_MAX)?.length;
    scrub_shape(&state, length).await
}

/// Begins a pass of the scrub now, or goes on with the one that was stopped; one that runs goes on.
#[utoipa::path(post, path = "/api/v1/admin/scrub/start", tag = "admin",
    responses((status = 200, body = ScrubReport), (status = 409, body = ErrorBody)))]
pub(super) async fn start_scrub(State(state): State<AppState>) -> Result<Response, Failure> {
    if !state.catalog.scrub().run_now() {
        return Err(Failure::new(
            StatusCode::CONFLICT,
            "scrub.rate is off: set that limit first, to 32MiB for example",
        ));
    }
    Ok(changed("scrub started", scrub_shape(&state, 0).await?))
}

/// Stops the scrub where it is, until it is started or the daemon restarts.
#[utoipa::path(post, path = "/api/v1/admin/scrub/stop", tag = "admin", responses((status = 200, body = ScrubReport)))]
pub(super) async fn stop_scrub(State(state): State<AppState>) -> Result<Response, Failure> {
    state.catalog.scrub().halt();
    Ok(changed("scrub stopped", scrub_shape(&state, 0).await?))
}

/// A check or rebuild of the index: the one that runs, or the last one.
#[derive(Serialize, ToSchema)]
pub(super) struct IndexJobShape {
    /// check or rebuild; absent: there was none since the start.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    job: Option<IndexJobKind>,
    /// none, running, agrees, differs, rebuilt or failed.
    state: String,
    /// RFC 3339 UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    began: Option<String>,
    took_s: f64,
    /// Facts of the journal folded so far, more than once where that was needed.
    folded: u64,
    /// Facts to be folded.
    facts: u64,
    /// Rows of the index that do not say what the journal says.
    differing_rows: u64,
    /// More rows than can be looked at differ.
    more: bool,
    /// The first of them.
    differences: Vec<DifferenceShape>,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
}

/// A row of the index that does not say what the journal says.
#[derive(Serialize, ToSchema)]
pub(super) struct DifferenceShape {
    /// The row's kind and key, hex.
    row: String,
    /// missing, extra or differs.
    problem: String,
}

fn job_shape(job: Option<IndexJob>) -> IndexJobShape {
    let (state, differences, problem) = match job.as_ref().map(|job| job.outcome.clone()) {
        None => ("none", Differences::default(), None),
        Some(IndexJobOutcome::Running) => ("running", Differences::default(), None),
        Some(IndexJobOutcome::Checked(found)) if found.rows == 0 && !found.more => ("agrees", found, None),
        Some(IndexJobOutcome::Checked(found)) => ("differs", found, None),
        Some(IndexJobOutcome::Rebuilt) => ("rebuilt", Differences::default(), None),
        Some(IndexJobOutcome::Failed(problem)) => ("failed", Differences::default(), Some(problem)),
    };
    let difference = |(row, problem): (String, RowProblem)| {
        let problem = match problem {
            RowProblem::Missing => "missing",
            RowProblem::Extra => "extra",
            RowProblem::Differs => "differs",
        };
        DifferenceShape { row, problem: problem.to_owned() }
    };
    IndexJobShape {
        job: job.as_ref().map(|job| job.kind),
        state: state.to_owned(),
        began: job.as_ref().map(|job| utc_time(job.began_ns)),
        took_s: job.as_ref().map_or(0.0, |job| job.took.as_secs_f64()),
        folded: job.as_ref().map_or(0, |job| job.folded),
        facts: job.as_ref().map_or(0, |job| job.facts),
        differing_rows: differences.rows,
        more: differences.more,
        differences: differences.named.into_iter().map(difference).collect(),
        problem,
    }
}

/// The check or rebuild that runs, or the last one.
#[utoipa::path(get, path = "/api/v1/admin/index", tag = "admin", responses((status = 200, body = IndexJobShape)))]
pub(super) async fn index(State(state): State<AppState>) -> Json<IndexJobShape> {
    Json(job_shape(state.catalog.index_jobs().last()))
}

/// Begins to compare every row of the index with what the journal gives; capture and queries go on.
#[utoipa::path(post, path = "/api/v1/admin/index/check", tag = "admin",
    responses((status = 202, body = IndexJobShape), (status = 409, body = ErrorBody)))]
pub(super) async fn check_index(State(state): State<AppState>) -> Result<Response, Failure> {
    begin(&state, IndexJobKind::Check)
}

/// Begins to build the index anew from the journal, beside the one in use, which it replaces when it holds the same facts;
/// capture and queries go on.
#[utoipa::path(post, path = "/api/v1/admin/index/rebuild", tag = "admin",
    responses((status = 202, body = IndexJobShape), (status = 409, body = ErrorBody)))]
pub(super) async fn rebuild_index(State(state): State<AppState>) -> Result<Response, Failure> {
    begin(&state, IndexJobKind::Rebuild)
}

fn begin(state: &AppState, kind: IndexJobKind) -> Result<Response, Failure> {
    let other = |_| {
        let problem = "the index is being checked or rebuilt: wait for the end of that";
        Failure::new(StatusCode::CONFLICT, problem)
    };
    state.catalog.begin_index_job(&state.lanes, kind).map_err(other)?;
    let what = match kind {
        IndexJobKind::Check => "index check",
        IndexJobKind::Rebuild => "index rebuild",
    };
    Ok(changed(what, (StatusCode::ACCEPTED, Json(job_shape(state.catalog.index_jobs().last())))))
}
