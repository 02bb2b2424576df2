//! How acquisitions stand, for the metrics: what nobody counts as it changes, brought up to date once a second by the sampler.
//!
//! Must never hold the index' lock for longer than a few blocks of a board take.

use super::{Catalog, Tally3};
use crate::base::clock;
use crate::index::AcquisitionView;
use crate::model::{AcqId, Sequence};
use crate::telemetry::AcquisitionState;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Open acquisitions that are shown, and ended ones.
const OPEN_MAX: usize = 16;
const ENDED_MAX: usize = 4;
/// Looks after which an acquisition is counted anew, though nothing seems to have changed: places may have been added.
const TRUSTED_LOOKS: u32 = 10;

/// What the gauges of acquisitions show.
pub(super) struct Gauges {
    catalog: Arc<Catalog>,
    counted: BTreeMap<AcqId, Counted>,
}

/// A count, and what it rests on.
#[derive(Clone, Copy)]
struct Counted {
    tiles: u64,
    rois: usize,
    started: Option<Sequence>,
    looks: u32,
    tally: Tally3,
}

impl Gauges {
    pub(super) fn new(catalog: &Arc<Catalog>) -> Self {
        Self { catalog: Arc::clone(catalog), counted: BTreeMap::new() }
    }

    /// Shows how acquisitions stand now.
    pub(super) fn look(&mut self) {
        if cfg!(feature = "no-telemetry") {
            return;
        }
        let present = self.catalog.index().present_acquisitions(OPEN_MAX, ENDED_MAX);
        self.counted.retain(|acq, _| present.iter().any(|(present, _)| present == acq));
        let states: Vec<AcquisitionState> = present.iter().map(|(acq, view)| self.state(*acq, view)).collect();
        self.catalog.metrics().show_acquisitions(&states);
    }

    fn state(&mut self, acq: AcqId, view: &AcquisitionView) -> AcquisitionState {
        let tally = self.count(acq, view);
        let started = view.head.started.as_ref();
        let last_ns = view.counters.last_received_ns.max(started.map_or(0, |started| started.first_started_ns));
        let quiet_ns = u64::try_from(clock::unix_ns().saturating_sub(last_ns)).unwrap_or(0);
        AcquisitionState {
            acq,
            is_open: started.is_some_and(|started| started.ended_ns.is_none()),
            expected: tally.expected,
            missing: tally.missing,
            quiet: Duration::from_nanos(quiet_ns),
        }
    }

    /// Counts an acquisition if it has changed.
    fn count(&mut self, acq: AcqId, view: &AcquisitionView) -> Tally3 {
        let (tiles, rois) = (view.counters.tiles, view.head.rois.len());
        let started = view.head.started.as_ref().map(|started| started.last);
        if let Some(before) = self.counted.get_mut(&acq)
            && (before.tiles, before.rois, before.started) == (tiles, rois, started)
            && before.looks < TRUSTED_LOOKS
        {
            before.looks += 1;
            return before.tally;
        }
        let tally = self.catalog.tally(acq);
        self.counted.insert(acq, Counted { tiles, rois, started, looks: 0, tally });
        tally
    }
}
