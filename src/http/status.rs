//! The daemon at a glance: `/api/v1/status`, and what a stream of events tells once a second.
//!
//! Made at most twice a second, whoever asks; how far an acquisition is is counted again only when it got a tile or changed.

use super::AppState;
use super::answer::Failure;
use super::events::{put, time};
use super::health::pressures;
use super::query::utc_time;
use crate::catalog::{Catalog, Progress, Rates, Sample, SenderView};
use crate::index::{AcquisitionHead, AcquisitionView};
use crate::model::{AckLevel, AcqId};
use crate::telemetry::{Warning, warnings_after};
use axum::Json;
use axum::extract::State;
use bytes::Bytes;
use serde::Serialize;
use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};
use utoipa::ToSchema;

/// A status is given again to whoever asks within this.
const FRESH: Duration = Duration::from_millis(500);
/// Longest wait to say that the daemon stops.
const LAST_WORDS_MAX: Duration = Duration::from_millis(500);
/// Acquisitions that are listed.
const ACQUISITIONS: usize = 50;
/// Sections of an acquisition that are listed, and how much of names: every second each stream gets all this.
const SECTIONS: usize = 100;
const NAME_CHARS: usize = 100;
/// Senders that are listed.
const SENDERS: usize = 100;

/// How full the queues are.
#[derive(Clone, Serialize, ToSchema)]
struct PressureShape {
    /// GREEN, YELLOW or RED; the worse of both, or RED when not ready.
    system: String,
    tile_queue: String,
    content_queue: String,
}

/// The data directory's file system.
#[derive(Clone, Serialize, ToSchema)]
struct DiskShape {
    free_bytes: u64,
    /// 0 where the system does not say.
    total_bytes: u64,
    /// Seconds until tiles are refused, at the journal's growth of the last minutes; null while it does not grow.
    full_in_s: Option<u64>,
}

#[derive(Clone, Serialize, ToSchema)]
struct JournalShape {
    segments: usize,
    /// As allocated.
    bytes: u64,
}

#[derive(Clone, Serialize, ToSchema)]
struct IndexShape {
    /// Tiles that the store does not hold yet.
    lag_tiles: usize,
    store_failed: bool,
}

#[derive(Clone, Serialize, ToSchema)]
struct MirrorShape {
    /// in_sync, resynchronising or lost.
    phase: String,
    left_bytes: u64,
    losses: u64,
    repairs: u64,
}

#[derive(Clone, Serialize, ToSchema)]
struct ScrubShape {
    /// Of the present pass, 0 to 1.
    progress: f64,
    passes: u64,
    findings: u64,
}

#[derive(Clone, Serialize, ToSchema)]
struct QueuesShape {
    /// Of the fullest lane.
    lane_tiles: usize,
    lane_limit_tiles: usize,
    buffer_bytes: usize,
    buffer_limit_bytes: usize,
    /// Connections that wait for a buffer.
    buffer_waiters: usize,
}

/// The last few seconds.
#[derive(Clone, Serialize, ToSchema)]
struct NowShape {
    tiles_per_s: f64,
    bytes_per_s: f64,
    refused_per_s: f64,
    /// Last byte received to answer sent; null where there was none.
    ack_p50_ms: Option<f64>,
    ack_p99_ms: Option<f64>,
}

/// One second.
#[derive(Clone, Serialize, ToSchema)]
struct SampleShape {
    at: String,
    tiles: u64,
    bytes: u64,
    refused: u64,
    ack_p50_ms: Option<f64>,
    ack_p99_ms: Option<f64>,
}

/// A connection that sends tiles.
#[derive(Clone, Serialize, ToSchema)]
pub(super) struct SenderShape {
    id: u64,
    peer: String,
    /// Of its certificate or token.
    name: Option<String>,
    /// capture, capture-tls or http.
    port: String,
    since: String,
    tiles: u64,
    bytes: u64,
    refused: u64,
    last_tile: Option<String>,
    /// That of its last tile.
    acquisition: Option<u64>,
}

#[derive(Clone, Serialize, ToSchema)]
struct SectionShape {
    section: i64,
    /// The name of the (first) ROI in it.
    name: String,
}

/// How far an acquisition is.
#[derive(Clone, Serialize, ToSchema)]
struct AcquisitionShape {
    id: u64,
    /// The sample's, or that of its log file; the first 100 characters.
    name: String,
    /// The first 100 characters.
    project: String,
    /// Type of mosaic; the first 100 characters.
    mosaic: String,
    temca: u32,
    /// open or ended.
    state: String,
    started: Option<String>,
    ended: Option<String>,
    cols: u32,
    rows: u32,
    /// Cameras of which tiles have come.
    cameras: Vec<i32>,
    /// The first 100.
    sections: Vec<SectionShape>,
    /// Stable tiles, as its completeness counts them.
    expected: u64,
    received: u64,
    missing: u64,
    /// Places of which a tile was refused and none has come.
    refused: u64,
    /// Drift frames.
    drift: u64,
    tiles_per_s: f64,
    last_tile: Option<String>,
}

/// Something that the operator should know.
#[derive(Clone, Serialize, ToSchema)]
pub(super) struct WarningShape {
    at: String,
    /// warn or error.
    level: String,
    message: String,
}

impl From<Warning> for WarningShape {
    fn from(warning: Warning) -> Self {
        Self { at: utc_time(warning.at_ns), level: warning.level.to_owned(), message: warning.message }
    }
}

/// The daemon at a glance.
#[derive(Clone, Serialize, ToSchema)]
pub(super) struct Status {
    version: String,
    uptime_s: u64,
    started: String,
    ready: bool,
    /// As it is in force.
    #[schema(value_type = String)]
    ack_level: AckLevel,
    pressure: PressureShape,
    /// running, paused or draining.
    capture: String,
    disk: DiskShape,
    journal: JournalShape,
    index: IndexShape,
    /// null without one.
    mirror: Option<MirrorShape>,
    scrub: ScrubShape,
    damaged_records: usize,
    queues: QueuesShape,
    now: NowShape,
    /// The last second; in events only.
    #[serde(skip_serializing_if = "Option::is_none")]
    sample: Option<SampleShape>,
    /// The last 120 seconds, oldest first; not in events.
    #[serde(skip_serializing_if = "Option::is_none")]
    history: Option<Vec<SampleShape>>,
    /// At most 100.
    senders: Vec<SenderShape>,
    senders_total: usize,
    /// Open ones first, then newest first; at most 50.
    acquisitions: Vec<AcquisitionShape>,
    acquisitions_total: usize,
    /// The last 50, oldest first.
    warnings: Vec<WarningShape>,
}

/// What the last status knew.
#[derive(Default)]
pub(super) struct Known {
    made: Option<(Instant, Arc<Status>)>,
    progress: HashMap<AcqId, KnownProgress>,
}

struct KnownProgress {
    head: Arc<AcquisitionHead>,
    tiles: u64,
    progress: Progress,
}

/// The daemon at a glance: its health, its load, who sends, and how far acquisitions are.
#[utoipa::path(get, path = "/api/v1/status", tag = "api v1", responses((status = 200, body = Status)))]
pub(super) async fn status(State(state): State<AppState>) -> Result<Json<Status>, Failure> {
    let status = current(&state).await?;
    let history = state.catalog.activity().history().into_iter().map(SampleShape::from).collect();
    Ok(Json(Status { sample: None, history: Some(history), ..Status::clone(&status) }))
}

/// Hands the status to all streams.
pub(super) async fn tell(state: &AppState) {
    if let Ok(status) = current(state).await {
        send(state, &status);
    }
}

fn send(state: &AppState, status: &Status) {
    let mut event = Vec::new();
    put(&mut event, "status", status);
    state.live.status.send_replace(Bytes::from(event));
}

/// Says to all streams that the daemon takes no more tiles. All else is as it was: nothing is counted while it stops.
pub(super) async fn tell_last(state: &AppState) {
    // One that is being made may hang on a disk that hangs.
    let Ok(known) = tokio::time::timeout(LAST_WORDS_MAX, state.live.known.lock()).await else { return };
    let Some((_, status)) = &known.made else { return };
    let capture = state.catalog.capture_state().name().to_owned();
    send(
        state,
        &Status { ready: state.catalog.is_healthy(), pressure: pressure(state), capture, ..Status::clone(status) },
    );
}

/// A status that is at most [`FRESH`] old. One is made at a time.
async fn current(state: &AppState) -> Result<Arc<Status>, Failure> {
    let mut known = Arc::clone(&state.live.known).lock_owned().await;
    if let Some((_, status)) = known.made.as_ref().filter(|(at, _)| at.elapsed() < FRESH) {
        return Ok(Arc::clone(status));
    }
    let state = state.clone();
    let made = tokio::task::spawn_blocking(move || {
        let status = Arc::new(make(&state, &mut known.progress));
        known.made = Some((Instant::now(), Arc::clone(&status)));
        status
    });
    made.await.map_err(|_| Failure::busy())
}

fn make(state: &AppState, known: &mut HashMap<AcqId, KnownProgress>) -> Status {
    let catalog = &*state.catalog;
    let (activity, metrics, lag) = (catalog.activity(), catalog.metrics(), catalog.index().lag());
    let (disk, ready) = (activity.disk(), catalog.is_healthy());
    let (began_ns, uptime) = activity.began();
    let (senders, senders_total) = activity.senders(SENDERS);
    let (chosen, acquisitions_total) = choose(catalog);
    known.retain(|acq, _| chosen.contains(acq));
    Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        uptime_s: uptime.as_secs(),
        started: utc_time(began_ns),
        ready,
        ack_level: catalog.level_in_force(),
        pressure: pressure(state),
        capture: catalog.capture_state().name().to_owned(),
        disk: DiskShape {
            free_bytes: disk.free_bytes,
            total_bytes: disk.total_bytes,
            full_in_s: disk.full_in.map(|time| time.as_secs()),
        },
        journal: JournalShape { segments: disk.segments, bytes: disk.segment_bytes },
        index: IndexShape { lag_tiles: lag.tiles, store_failed: lag.store_failed },
        mirror: mirror(catalog),
        scrub: ScrubShape {
            progress: metrics.scrub_progress.get(),
            passes: metrics.scrub_passes.get(),
            findings: metrics.scrub_findings.get(),
        },
        damaged_records: catalog.damage().count(),
        queues: queues(state),
        now: activity.rates().into(),
        sample: activity.history().pop().map(SampleShape::from),
        history: None,
        senders: senders.into_iter().map(SenderShape::from).collect(),
        senders_total,
        acquisitions: chosen.iter().filter_map(|acq| acquisition(catalog, *acq, known)).collect(),
        acquisitions_total,
        warnings: warnings_after(0).into_iter().map(WarningShape::from).collect(),
    }
}

fn pressure(state: &AppState) -> PressureShape {
    let [system, tile_queue, content_queue] = pressures(state).map(|pressure| pressure.to_string());
    PressureShape { system, tile_queue, content_queue }
}

fn queues(state: &AppState) -> QueuesShape {
    let ((lane_tiles, lane_limit_tiles), pool) = (state.lanes.fill(), state.catalog.pool());
    QueuesShape {
        lane_tiles,
        lane_limit_tiles,
        buffer_bytes: pool.used(),
        buffer_limit_bytes: pool.capacity(),
        buffer_waiters: pool.waiting(),
    }
}

fn mirror(catalog: &Catalog) -> Option<MirrorShape> {
    let status = catalog.journal().mirror()?.status();
    Some(MirrorShape {
        phase: status.phase.name().to_owned(),
        left_bytes: status.left_bytes,
        losses: status.losses,
        repairs: status.repairs,
    })
}

/// The acquisitions that are listed, and how many there are.
fn choose(catalog: &Catalog) -> (Vec<AcqId>, usize) {
    let mut all = Vec::new();
    catalog.index().each_acquisition(&mut |acq, view| {
        let started = view.head.started.as_ref();
        let is_ended = started.is_some_and(|started| started.ended_ns.is_some());
        let since_ns = started.map_or(view.counters.last_received_ns, |started| started.first_started_ns);
        all.push((is_ended, Reverse((since_ns, acq))));
    });
    let total = all.len();
    if total > ACQUISITIONS {
        all.select_nth_unstable(ACQUISITIONS);
        all.truncate(ACQUISITIONS);
    }
    all.sort_unstable();
    (all.into_iter().map(|(_, Reverse((_, acq)))| acq).collect(), total)
}

fn acquisition(catalog: &Catalog, acq: AcqId, known: &mut HashMap<AcqId, KnownProgress>) -> Option<AcquisitionShape> {
    let view = catalog.acquisition(acq)?;
    let Progress { tally, shape } = progress(catalog, acq, &view, known);
    let started = view.head.started.as_ref();
    let ended = started.and_then(|started| started.ended_ns);
    let text = |of: fn(&crate::model::AcquisitionFacts) -> &String| {
        started.map(|started| cut(of(&started.facts))).unwrap_or_default()
    };
    let sample = text(|facts| &facts.sample_name);
    let log_name = started.map(|started| cut(&started.log_name)).unwrap_or_default();
    let counters = &view.counters;
    Some(AcquisitionShape {
        id: acq.0,
        name: if sample.is_empty() { log_name } else { sample },
        project: text(|facts| &facts.project_name),
        mosaic: text(|facts| &facts.mosaic_type),
        temca: started.map_or(0, |started| started.temca),
        state: if ended.is_some() { "ended" } else { "open" }.to_owned(),
        started: time(started.map(|started| started.first_started_ns)),
        ended: time(ended),
        cols: shape.cols,
        rows: shape.rows,
        cameras: counters.cameras.keys().copied().collect(),
        sections: sections(&view),
        expected: tally.expected,
        received: tally.received,
        missing: tally.missing,
        refused: catalog.refused_and_missing(acq),
        drift: counters.drift_frames,
        tiles_per_s: catalog.activity().tiles_per_s(acq),
        last_tile: time(Some(counters.last_received_ns).filter(|at| *at > 0)),
    })
}

/// How far an acquisition is; as it was known where nothing has come since.
fn progress(
    catalog: &Catalog,
    acq: AcqId,
    view: &AcquisitionView,
    known: &mut HashMap<AcqId, KnownProgress>,
) -> Progress {
    let tiles = view.counters.tiles;
    let same = known.get(&acq).filter(|known| known.tiles == tiles && Arc::ptr_eq(&known.head, &view.head));
    if let Some(known) = same {
        return known.progress;
    }
    let progress = catalog.progress(acq, view);
    known.insert(acq, KnownProgress { head: Arc::clone(&view.head), tiles, progress });
    progress
}

fn cut(name: &str) -> String {
    name.chars().take(NAME_CHARS).collect()
}

fn sections(view: &AcquisitionView) -> Vec<SectionShape> {
    let mut names: BTreeMap<i64, &str> = BTreeMap::new();
    for roi in &view.head.rois {
        names.entry(roi.section).or_insert(&roi.name);
    }
    let shape = |(section, name): (i64, &str)| SectionShape { section, name: cut(name) };
    names.into_iter().take(SECTIONS).map(shape).collect()
}

impl From<Rates> for NowShape {
    fn from(rates: Rates) -> Self {
        let Rates { tiles_per_s, bytes_per_s, refused_per_s, ack_p50_ms, ack_p99_ms } = rates;
        Self { tiles_per_s, bytes_per_s, refused_per_s, ack_p50_ms, ack_p99_ms }
    }
}

impl From<Sample> for SampleShape {
    fn from(sample: Sample) -> Self {
        let Sample { at_ns, tiles, bytes, refused, ack_p50_ms, ack_p99_ms } = sample;
        Self { at: utc_time(at_ns), tiles, bytes, refused, ack_p50_ms, ack_p99_ms }
    }
}

impl From<SenderView> for SenderShape {
    fn from(sender: SenderView) -> Self {
        Self {
            id: sender.id,
            peer: sender.peer.to_string(),
            name: sender.name,
            port: sender.port.name().to_owned(),
            since: utc_time(sender.since_ns),
            tiles: sender.counts.tiles,
            bytes: sender.counts.bytes,
            refused: sender.counts.refused,
            last_tile: time(sender.last_tile_ns),
            acquisition: sender.counts.acq.map(|acq| acq.0),
        }
    }
}
