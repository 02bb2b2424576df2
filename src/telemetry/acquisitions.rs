//! What is counted of acquisitions and their cameras, one line each on the page.
//!
//! Bounded, whatever senders write into their tiles: so many acquisitions and cameras have lines of their own, all others
//! share `other`. Which acquisitions are worth a line is told from outside ([`AcquisitionLines::keep`]); what is told no
//! more is removed. Must never be asked for a tile: a batch takes the lock once.

use super::counts::Part;
use super::maker::Maker;
use crate::model::AcqId;
use prometheus::{GaugeVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Acquisitions that have lines of their own at once.
const ACQUISITIONS_MAX: usize = 24;
/// Cameras of all acquisitions that have lines of their own at once.
const CAMERAS_MAX: usize = 1024;
/// The line of all others.
const OTHER: &str = "other";

/// A camera of an acquisition; with neither, all others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CameraOf {
    acq: Option<AcqId>,
    camera: Option<i32>,
}

/// How an acquisition stands.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AcquisitionState {
    /// Which.
    pub acq: AcqId,
    /// Started and not ended.
    pub is_open: bool,
    /// Tiles that should come.
    pub expected: u64,
    /// Of these, not stored.
    pub missing: u64,
    /// Time since a tile of it was stored or, before the first, since it was started.
    pub quiet: Duration,
}

/// The lines of acquisitions and cameras.
pub(super) struct AcquisitionLines {
    tiles: IntCounterVec,
    bytes: IntCounterVec,
    refused: IntCounterVec,
    open: IntGaugeVec,
    expected: IntGaugeVec,
    missing: IntGaugeVec,
    idle: GaugeVec,
    rows: Mutex<Rows>,
}

struct Rows {
    known: BTreeMap<AcqId, Row>,
    other: Row,
}

/// The counters of one acquisition.
struct Row {
    name: String,
    refused: IntCounter,
    cameras: BTreeMap<i32, Camera>,
    other: Camera,
    /// When a tile of it was last accepted: also one that was there already.
    last: Option<Instant>,
}

struct Camera {
    tiles: IntCounter,
    bytes: IntCounter,
}

impl CameraOf {
    pub(super) const OTHER: CameraOf = CameraOf { acq: None, camera: None };

    pub(super) fn new(acq: AcqId, camera: i32) -> Self {
        Self { acq: Some(acq), camera: Some(camera) }
    }

    /// For what is not known of a camera.
    pub(super) fn any(acq: AcqId) -> Self {
        Self { acq: Some(acq), camera: None }
    }
}

impl AcquisitionLines {
    pub(super) fn new(make: &Maker) -> Self {
        let labels = ["acquisition", "camera"];
        let tiles = make.counters_by("acquisition_tiles_total", "Tiles accepted, by acquisition and camera", &labels);
        let bytes =
            make.counters_by("acquisition_bytes_total", "Bytes of accepted images, by acquisition and camera", &labels);
        let refused = make.counters("acquisition_refused_tiles_total", "Tiles refused, by acquisition", "acquisition");
        // There from the start: a metric without a line would not be on the page.
        let other = Row::new(OTHER.to_owned(), &refused, &tiles, &bytes);
        Self {
            open: make.gauges("acquisition_open", "1 while the acquisition is started and not ended", "acquisition"),
            expected: make.gauges("acquisition_expected_tiles", "Tiles that should come", "acquisition"),
            missing: make.gauges("acquisition_missing_tiles", "Expected tiles that are not stored", "acquisition"),
            idle: make.gauges_f(
                "acquisition_idle_seconds",
                "Seconds since the last tile of an open acquisition, or since its start",
                "acquisition",
            ),
            rows: Mutex::new(Rows { known: BTreeMap::new(), other }),
            tiles,
            bytes,
            refused,
        }
    }

    /// Adds what a thread has counted. One lock for all.
    pub(super) fn add(&self, parts: &[Part]) {
        let mut rows = self.rows();
        for part in parts {
            let row = match part.of.acq {
                // A refused tile may name any acquisition: that alone is not worth a line.
                Some(acq) if part.tiles > 0 => self.row(&mut rows, acq),
                Some(acq) if rows.known.contains_key(&acq) => self.row(&mut rows, acq),
                _ => &mut rows.other,
            };
            row.refused.inc_by(part.refused);
            if part.tiles > 0 {
                row.last = Some(Instant::now());
            }
        }
        for part in parts.iter().filter(|part| part.tiles > 0) {
            let has_place = rows.cameras() < CAMERAS_MAX;
            let row = match part.of.acq {
                Some(acq) => self.row(&mut rows, acq),
                None => &mut rows.other,
            };
            let camera = row.camera(part.of.camera, has_place, self);
            camera.tiles.inc_by(part.tiles);
            camera.bytes.inc_by(part.bytes);
        }
    }

    /// Shows how these acquisitions stand, and removes the lines of all others.
    pub(super) fn keep(&self, states: &[AcquisitionState]) {
        let mut rows = self.rows();
        let gone: Vec<AcqId> =
            rows.known.keys().filter(|acq| !states.iter().any(|state| state.acq == **acq)).copied().collect();
        gone.into_iter().filter_map(|acq| rows.known.remove(&acq)).for_each(|row| self.remove(&row));
        for state in states {
            if rows.known.len() < ACQUISITIONS_MAX || rows.known.contains_key(&state.acq) {
                let row = self.row(&mut rows, state.acq);
                self.show(row, state);
            }
        }
    }

    fn rows(&self) -> MutexGuard<'_, Rows> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An acquisition's row, made if there is room for one more, or that of all others.
    fn row<'a>(&self, rows: &'a mut Rows, acq: AcqId) -> &'a mut Row {
        if rows.known.len() >= ACQUISITIONS_MAX && !rows.known.contains_key(&acq) {
            return &mut rows.other;
        }
        let new = || Row::new(acq.to_string(), &self.refused, &self.tiles, &self.bytes);
        rows.known.entry(acq).or_insert_with(new)
    }

    fn show(&self, row: &Row, state: &AcquisitionState) {
        let gauge = |gauges: &IntGaugeVec, value: u64| {
            let gauge: IntGauge = gauges.with_label_values(&[&row.name]);
            gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        };
        gauge(&self.open, u64::from(state.is_open));
        gauge(&self.expected, state.expected);
        gauge(&self.missing, state.missing);
        if state.is_open {
            let quiet = row.last.map_or(state.quiet, |last| state.quiet.min(last.elapsed()));
            self.idle.with_label_values(&[&row.name]).set(quiet.as_secs_f64());
        } else {
            // Not there: fine.
            let _ = self.idle.remove_label_values(&[&row.name]);
        }
    }

    fn remove(&self, row: &Row) {
        let name = row.name.as_str();
        let cameras = row.cameras.keys().map(ToString::to_string).chain([OTHER.to_owned()]);
        for camera in cameras {
            let _ = self.tiles.remove_label_values(&[name, &camera]);
            let _ = self.bytes.remove_label_values(&[name, &camera]);
        }
        let _ = self.refused.remove_label_values(&[name]);
        let _ = self.idle.remove_label_values(&[name]);
        for gauges in [&self.open, &self.expected, &self.missing] {
            let _ = gauges.remove_label_values(&[name]);
        }
    }
}

impl Rows {
    fn cameras(&self) -> usize {
        self.known.values().chain([&self.other]).map(|row| row.cameras.len()).sum()
    }
}

impl Row {
    fn new(name: String, refused: &IntCounterVec, tiles: &IntCounterVec, bytes: &IntCounterVec) -> Self {
        let other = Camera::new(&name, OTHER, tiles, bytes);
        Self { refused: refused.with_label_values(&[&name]), cameras: BTreeMap::new(), other, last: None, name }
    }

    fn camera(&mut self, camera: Option<i32>, has_place: bool, lines: &AcquisitionLines) -> &Camera {
        let Some(camera) = camera else { return &self.other };
        if !has_place && !self.cameras.contains_key(&camera) {
            return &self.other;
        }
        let new = || Camera::new(&self.name, &camera.to_string(), &lines.tiles, &lines.bytes);
        self.cameras.entry(camera).or_insert_with(new)
    }
}

impl Camera {
    fn new(acquisition: &str, camera: &str, tiles: &IntCounterVec, bytes: &IntCounterVec) -> Self {
        let labels = [acquisition, camera];
        Self { tiles: tiles.with_label_values(&labels), bytes: bytes.with_label_values(&labels) }
    }
}

#[cfg(all(test, not(feature = "no-telemetry")))]
mod tests {
    use super::*;
    use crate::telemetry::{LocalCounts, Metrics};

    fn lines(metrics: &Metrics, name: &str) -> usize {
        metrics.render().lines().filter(|line| line.starts_with(&format!("tilecatcher_{name}{{"))).count()
    }

    fn open(acq: u64) -> AcquisitionState {
        let (expected, missing) = (64, 60);
        AcquisitionState { acq: AcqId(acq), is_open: true, expected, missing, quiet: Duration::from_secs(3) }
    }

    fn has(metrics: &Metrics, line: &str) -> bool {
        metrics.render().lines().any(|found| found == format!("tilecatcher_{line}"))
    }

    #[test]
    fn tiles_are_counted_by_acquisition_and_camera() {
        let metrics = Metrics::new();
        let mut counts = LocalCounts::default();
        for (acq, camera) in [(7, 0), (7, 0), (7, 3), (8, 0)] {
            counts.accepted_of(AcqId(acq), camera, 100);
        }
        counts.refused_of(AcqId(7));
        counts.refused_of(AcqId(99));
        counts.publish(&metrics);
        counts.publish(&metrics);
        assert!(has(&metrics, "acquisition_tiles_total{acquisition=\"7\",camera=\"0\"} 2"), "{}", metrics.render());
        assert!(has(&metrics, "acquisition_bytes_total{acquisition=\"7\",camera=\"3\"} 100"));
        assert!(has(&metrics, "acquisition_tiles_total{acquisition=\"8\",camera=\"0\"} 1"));
        assert!(has(&metrics, "acquisition_refused_tiles_total{acquisition=\"7\"} 1"));
        assert!(has(&metrics, "acquisition_refused_tiles_total{acquisition=\"other\"} 1"), "nobody knows 99");
    }

    #[test]
    fn what_is_told_no_more_leaves_the_page() {
        let metrics = Metrics::new();
        let mut counts = LocalCounts::default();
        counts.accepted_of(AcqId(7), 2, 100);
        counts.publish(&metrics);
        metrics.show_acquisitions(&[open(7), open(8)]);
        assert!(has(&metrics, "acquisition_missing_tiles{acquisition=\"8\"} 60"));
        assert!(has(&metrics, "acquisition_idle_seconds{acquisition=\"8\"} 3"));
        metrics.show_acquisitions(&[AcquisitionState { is_open: false, ..open(8) }]);
        assert!(!metrics.render().contains("{acquisition=\"7\""), "{}", metrics.render());
        assert!(has(&metrics, "acquisition_open{acquisition=\"8\"} 0"));
        assert!(!metrics.render().contains("acquisition_idle_seconds{"), "only open ones are waited for");
    }

    #[test]
    fn acquisitions_and_cameras_beyond_the_bound_share_a_line() {
        let metrics = Metrics::new();
        let mut counts = LocalCounts::default();
        for acq in 0..200 {
            counts.accepted_of(AcqId(acq), 1, 100);
            counts.publish(&metrics);
        }
        assert!(
            has(&metrics, "acquisition_tiles_total{acquisition=\"other\",camera=\"1\"} 176"),
            "{}",
            metrics.render()
        );
        for camera in 0..3000 {
            counts.accepted_of(AcqId(0), camera, 100);
            counts.publish(&metrics);
        }
        // One line for each camera, and `other` for each acquisition and for all others.
        assert_eq!(lines(&metrics, "acquisition_tiles_total"), CAMERAS_MAX + ACQUISITIONS_MAX + 1);
        metrics.show_acquisitions(&(1000..1100).map(open).collect::<Vec<_>>());
        assert_eq!(lines(&metrics, "acquisition_missing_tiles"), ACQUISITIONS_MAX);
    }
}
