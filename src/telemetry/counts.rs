//! What one thread counts before it publishes: plain numbers, no lock, no label look-up for a tile.
//!
//! Bounded: so many acquisitions and cameras are told apart between two publications, all further ones share one.

use super::acquisitions::CameraOf;
use super::{Metrics, StoredAs};
use crate::model::{AcqId, Refusal};

/// Acquisitions with their cameras that are told apart between two publications.
const PARTS_MAX: usize = 256;

/// Counts of one thread since it last published.
#[derive(Default)]
pub struct LocalCounts {
    stored: [u64; 3],
    refused: [u64; Refusal::ALL.len()],
    /// Bytes read from sockets.
    pub received_bytes: u64,
    /// Bytes written to the journal.
    pub stored_bytes: u64,
    /// Bytes of whole records written to the journal: headers, payloads, padding.
    pub journal_bytes: u64,
    /// Tiles outside the announced grid.
    pub beyond_grid: u64,
    /// Answers whose peer was gone.
    pub unanswered: u64,
    pub(super) parts: Vec<Part>,
}

/// What was counted of a camera of an acquisition.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part {
    pub(super) of: CameraOf,
    pub(super) tiles: u64,
    pub(super) bytes: u64,
    pub(super) refused: u64,
}

impl LocalCounts {
    /// Counts an accepted tile.
    pub fn stored(&mut self, how: StoredAs) {
        if cfg!(feature = "no-telemetry") {
            return;
        }
        self.stored[how as usize] += 1;
    }

    /// Counts the bytes of an accepted tile's image to its acquisition and camera.
    pub fn accepted_of(&mut self, acq: AcqId, camera: i32, bytes: u32) {
        if let Some(part) = self.part(CameraOf::new(acq, camera)) {
            part.tiles += 1;
            part.bytes += u64::from(bytes);
        }
    }

    /// Counts a refusal.
    pub fn refused(&mut self, why: Refusal) {
        let n = Refusal::ALL.iter().position(|refusal| *refusal == why).expect("ALL names every refusal");
        self.refused[n] += 1;
    }

    /// Counts a refusal to the acquisition for which the tile was.
    pub fn refused_of(&mut self, acq: AcqId) {
        if let Some(part) = self.part(CameraOf::any(acq)) {
            part.refused += 1;
        }
    }

    /// Where a camera is counted; `None`: nowhere, built without telemetry.
    fn part(&mut self, of: CameraOf) -> Option<&mut Part> {
        if cfg!(feature = "no-telemetry") {
            return None;
        }
        let found = self.parts.iter().position(|part| part.of == of);
        let n = found.unwrap_or_else(|| {
            let of = if self.parts.len() < PARTS_MAX { of } else { CameraOf::OTHER };
            let shared = self.parts.iter().position(|part| part.of == of);
            shared.unwrap_or_else(|| {
                self.parts.push(Part { of, tiles: 0, bytes: 0, refused: 0 });
                self.parts.len() - 1
            })
        });
        self.parts.get_mut(n)
    }

    /// Adds everything to the shared metrics and starts again from 0.
    pub fn publish(&mut self, metrics: &Metrics) {
        if cfg!(feature = "no-telemetry") {
            return;
        }
        let mut counts = std::mem::take(self);
        if !counts.parts.is_empty() {
            metrics.acquisitions.add(&counts.parts);
            counts.parts.clear();
        }
        // Its room is used again.
        self.parts = counts.parts;
        metrics.count(&counts.stored, &counts.refused);
        metrics.received_bytes.inc_by(counts.received_bytes);
        metrics.stored_bytes.inc_by(counts.stored_bytes);
        metrics.journal_bytes.inc_by(counts.journal_bytes);
        metrics.beyond_grid.inc_by(counts.beyond_grid);
        metrics.unanswered.inc_by(counts.unanswered);
    }
}

#[cfg(all(test, not(feature = "no-telemetry")))]
mod tests {
    use super::*;
    use crate::telemetry::CloseReason;

    #[test]
    fn local_counts_reach_the_page_once() {
        let metrics = Metrics::new();
        let mut counts = LocalCounts { received_bytes: 10, ..LocalCounts::default() };
        counts.stored(StoredAs::Duplicate);
        counts.refused(Refusal::BadKey);
        counts.publish(&metrics);
        counts.publish(&metrics);
        metrics.connection_closed(CloseReason::Slow);
        let page = metrics.render();
        for line in [
            "tilecatcher_tiles_stored_total{as=\"duplicate\"} 1",
            "tilecatcher_tiles_stored_total{as=\"new\"} 0",
            "tilecatcher_tiles_refused_total{reason=\"bad_key\"} 1",
            "tilecatcher_received_bytes_total 10",
            "tilecatcher_connections_closed_total{reason=\"slow\"} 1",
        ] {
            assert!(page.lines().any(|found| found == line), "{line} is missing from\n{page}");
        }
    }

    #[test]
    fn a_thread_tells_so_many_cameras_apart_and_loses_none() {
        let mut counts = LocalCounts::default();
        (0..3 * PARTS_MAX as u64).for_each(|acq| counts.accepted_of(AcqId(acq), 0, 10));
        assert_eq!(counts.parts.len(), PARTS_MAX + 1);
        assert_eq!(counts.parts.iter().map(|part| part.tiles).sum::<u64>(), 3 * PARTS_MAX as u64);
    }
}
