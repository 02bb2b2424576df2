//! From measures to flags: thresholds, what is usual, and how long a camera has shown nothing.

use super::QualityOptions;
use crate::model::{AcqId, QualityFlag, QualityFlags};
use crate::pixels::Measured;
use crate::telemetry::Metrics;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

/// Tiles by which is known what is usual.
const USUAL_OF: usize = 64;
/// With fewer, nothing is known.
const USUAL_LEAST: usize = 16;
/// Cameras of acquisitions of which it is known.
const USUAL_KEPT: usize = 256;
/// Cameras that are told apart in metrics.
const CAMERAS: i32 = 16;

/// The flags of an image. `usual` learns from those that show something.
pub(super) fn flags(options: &QualityOptions, measured: &Measured, usual: &mut Sharpness) -> QualityFlags {
    let mut flags = QualityFlags::default();
    let share = |e4: u32| f64::from(e4) / 1e4;
    let measures = &measured.measures;
    let is_blank = share(measures.contrast_e4) < options.blank_below;
    if is_blank {
        flags.add(QualityFlag::Blank);
    }
    // A camera that sees no light is not overexposed, though all its pixels are at the end of its range.
    if share(measures.saturated_e4) > options.saturated_above && !(is_blank && measured.is_dark) {
        flags.add(QualityFlag::Saturated);
    }
    if flags.is_empty() {
        let is_below = |median: u32| f64::from(measures.focus_e4) < f64::from(median) * options.blurred_below;
        if usual.median().is_some_and(is_below) {
            flags.add(QualityFlag::Blurred);
        }
        usual.learn(measures.focus_e4);
    }
    flags
}

/// How sharp the last images of a camera were, in an acquisition.
#[derive(Default)]
pub(super) struct Sharpness(VecDeque<u32>);

impl Sharpness {
    fn learn(&mut self, focus_e4: u32) {
        if self.0.len() == USUAL_OF {
            self.0.pop_front();
        }
        self.0.push_back(focus_e4);
    }

    fn median(&self) -> Option<u32> {
        let mut sorted: Vec<u32> = self.0.iter().copied().collect();
        sorted.sort_unstable();
        sorted.get(sorted.len() / 2).copied().filter(|_| sorted.len() >= USUAL_LEAST)
    }
}

/// What is usual, by acquisition and camera.
#[derive(Default)]
pub(super) struct Usual(HashMap<(AcqId, i32), Sharpness>);

impl Usual {
    pub(super) fn of(&mut self, acq: AcqId, camera: i32) -> &mut Sharpness {
        if self.0.len() >= USUAL_KEPT && !self.0.contains_key(&(acq, camera)) {
            // The one being made goes on; what is usual in others is learnt again when they do.
            self.0.retain(|(other, _), _| *other == acq);
            self.0.shrink_to(USUAL_KEPT);
            if self.0.len() >= USUAL_KEPT {
                self.0.clear();
            }
        }
        self.0.entry((acq, camera)).or_default()
    }
}

/// How many of a camera's last tiles were all blank, and all saturated.
pub(super) struct Runs {
    cameras: BTreeMap<String, [i64; 2]>,
    metrics: Arc<Metrics>,
}

impl Runs {
    pub(super) fn new(metrics: &Arc<Metrics>) -> Self {
        Self { cameras: BTreeMap::new(), metrics: Arc::clone(metrics) }
    }

    pub(super) fn add(&mut self, camera: i32, flags: QualityFlags) {
        let name = if (0..CAMERAS).contains(&camera) { camera.to_string() } else { "other".to_owned() };
        let runs = self.cameras.entry(name.clone()).or_default();
        for (run, flag) in runs.iter_mut().zip([QualityFlag::Blank, QualityFlag::Saturated]) {
            *run = if flags.has(flag) { *run + 1 } else { 0 };
        }
        self.metrics.camera_runs(&name, runs[0], runs[1]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Measures;

    const OPTIONS: QualityOptions =
        QualityOptions { is_on: true, blank_below: 0.02, saturated_above: 0.2, blurred_below: 0.3 };

    fn measured(contrast_e4: u32, saturated_e4: u32, focus_e4: u32) -> Measured {
        Measured { measures: Measures { mean_c: 0, contrast_e4, saturated_e4, focus_e4 }, is_dark: false }
    }

    fn names(measured: &Measured, usual: &mut Sharpness) -> Vec<&'static str> {
        flags(&OPTIONS, measured, usual).iter().map(QualityFlag::name).collect()
    }

    #[test]
    fn thresholds_make_flags() {
        let mut usual = Sharpness::default();
        assert_eq!(names(&measured(5000, 100, 900), &mut usual), [""; 0]);
        assert_eq!(names(&measured(199, 0, 900), &mut usual), ["blank"]);
        assert_eq!(names(&measured(5000, 2001, 900), &mut usual), ["saturated"]);
        assert_eq!(names(&measured(0, 10_000, 0), &mut usual), ["blank", "saturated"]);
        let dark = Measured { is_dark: true, ..measured(0, 10_000, 0) };
        assert_eq!(names(&dark, &mut usual), ["blank"], "no light is not too much light");
    }

    #[test]
    fn a_tile_is_blurred_against_what_is_usual_once_that_is_known() {
        let mut usual = Sharpness::default();
        for _ in 0..USUAL_LEAST {
            assert_eq!(names(&measured(5000, 0, 10), &mut Sharpness::default()), [""; 0]);
            assert_eq!(names(&measured(5000, 0, 1000), &mut usual), [""; 0]);
        }
        assert_eq!(names(&measured(5000, 0, 299), &mut usual), ["blurred"]);
        assert_eq!(names(&measured(5000, 0, 301), &mut usual), [""; 0]);
        assert_eq!(names(&measured(10, 0, 0), &mut usual), ["blank"], "what shows nothing is not blurred");
    }

    #[test]
    fn runs_end_with_the_first_tile_that_is_different_and_cameras_are_few() {
        let metrics = Arc::new(Metrics::new());
        let mut runs = Runs::new(&metrics);
        let mut blank = QualityFlags::default();
        blank.add(QualityFlag::Blank);
        for (camera, flags) in [(0, blank), (0, blank), (1, blank), (1, QualityFlags::default()), (99, blank)] {
            runs.add(camera, flags);
        }
        let page = metrics.render();
        for line in [
            "tilecatcher_camera_blank_run_tiles{camera=\"0\"} 2",
            "tilecatcher_camera_blank_run_tiles{camera=\"1\"} 0",
            "tilecatcher_camera_blank_run_tiles{camera=\"other\"} 1",
            "tilecatcher_camera_saturated_run_tiles{camera=\"0\"} 0",
        ] {
            assert!(page.lines().any(|found| found == line), "{line} is missing from\n{page}");
        }
    }
}
