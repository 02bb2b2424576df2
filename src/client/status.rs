//! The daemon at a glance, as its clients read it: `/api/v1/status`, its events, and the mosaic of an acquisition.
//!
//! Owns shapes and what is wrong by them. What an older daemon does not say is empty; what a newer one says besides is passed
//! over.

use super::http::{HttpClient, HttpClientError};
use crate::model::AcqId;
use serde::Deserialize;

/// Seconds until the disk is full below which that is called a problem.
const FULL_SOON_S: u64 = 3600;

/// The daemon at a glance.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
#[allow(missing_docs)] // Fields mean what the HTTP port's description says of them.
pub struct DaemonStatus {
    pub version: String,
    pub uptime_s: u64,
    pub ready: bool,
    pub ack_level: String,
    pub pressure: PressureStatus,
    pub capture: String,
    pub disk: DiskStatus,
    pub journal: JournalStatus,
    pub index: IndexStatus,
    pub mirror: Option<MirrorStatus>,
    pub scrub: ScrubStatus,
    pub damaged_records: u64,
    pub queues: QueueStatus,
    pub now: RateStatus,
    pub sample: Option<SampleStatus>,
    pub history: Vec<SampleStatus>,
    pub senders: Vec<SenderStatus>,
    pub senders_total: u64,
    pub acquisitions: Vec<AcquisitionStatus>,
    pub acquisitions_total: u64,
    pub warnings: Vec<WarningStatus>,
}

/// GREEN, YELLOW or RED.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct PressureStatus {
    pub system: String,
    pub tile_queue: String,
    pub content_queue: String,
}

/// The data directory's file system.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct DiskStatus {
    pub free_bytes: u64,
    pub total_bytes: u64,
    pub full_in_s: Option<u64>,
}

/// Segment files.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct JournalStatus {
    pub segments: u64,
    pub bytes: u64,
}

/// The index.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct IndexStatus {
    pub lag_tiles: u64,
    pub store_failed: bool,
}

/// The mirror.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct MirrorStatus {
    pub phase: String,
    pub left_bytes: u64,
}

/// The scrub.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct ScrubStatus {
    pub progress: f64,
    pub passes: u64,
    pub findings: u64,
}

/// What is on its way.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct QueueStatus {
    pub lane_tiles: u64,
    pub lane_limit_tiles: u64,
    pub buffer_bytes: u64,
    pub buffer_limit_bytes: u64,
    pub buffer_waiters: u64,
}

/// The last few seconds.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct RateStatus {
    pub tiles_per_s: f64,
    pub bytes_per_s: f64,
    pub refused_per_s: f64,
    pub ack_p50_ms: Option<f64>,
    pub ack_p99_ms: Option<f64>,
}

/// One second.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct SampleStatus {
    pub at: String,
    pub tiles: u64,
    pub bytes: u64,
    pub refused: u64,
    pub ack_p99_ms: Option<f64>,
}

/// A connection that sends tiles.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct SenderStatus {
    pub id: u64,
    pub peer: String,
    pub name: Option<String>,
    pub port: String,
    pub tiles: u64,
    pub bytes: u64,
    pub refused: u64,
    pub last_tile: Option<String>,
    pub acquisition: Option<u64>,
}

/// How far an acquisition is.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct AcquisitionStatus {
    pub id: u64,
    pub name: String,
    pub project: String,
    pub state: String,
    pub cols: u32,
    pub rows: u32,
    pub expected: u64,
    pub received: u64,
    pub missing: u64,
    pub refused: u64,
    pub drift: u64,
    pub tiles_per_s: f64,
    pub last_tile: Option<String>,
}

/// Something that the operator should know.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct WarningStatus {
    pub at: String,
    pub level: String,
    pub message: String,
}

/// Every place of a mosaic, a byte each.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct MosaicStatus {
    pub acquisition: u64,
    pub cols: u32,
    pub rows: u32,
    pub first_col: u32,
    pub first_row: u32,
    /// What the lower five bits of a cell stand for.
    pub legend: Vec<String>,
    /// Base64.
    pub cells: String,
}

impl DaemonStatus {
    /// What is wrong, a line each; none: it is healthy.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut wrong = |is_so: bool, what: String| problems.extend(is_so.then_some(what));
        wrong(self.index.store_failed, "the index store failed: restart the daemon, it rebuilds the index".to_owned());
        wrong(!self.ready && !self.index.store_failed, "not ready: the storage failed, see the log".to_owned());
        wrong(self.capture == "paused", "capture is paused: `tilecatcher admin resume`".to_owned());
        wrong(self.capture == "draining", "the daemon is about to end".to_owned());
        let red = |pressure: &str| pressure == "RED";
        wrong(red(&self.pressure.tile_queue), "the index' queue is full: senders are held back".to_owned());
        wrong(
            red(&self.pressure.content_queue),
            "queues, buffers or the disk are full: senders are held back".to_owned(),
        );
        let damaged = self.damaged_records;
        wrong(damaged > 0, format!("{damaged} stored records are damaged: `tilecatcher admin scrub report`"));
        if let Some(mirror) = self.mirror.as_ref().filter(|mirror| mirror.phase != "in_sync") {
            wrong(
                true,
                format!("the mirror is {}: {:.1} MB are not on it", mirror.phase, mirror.left_bytes as f64 / 1e6),
            );
        }
        if let Some(full_in_s) = self.disk.full_in_s.filter(|time| *time < FULL_SOON_S) {
            wrong(true, format!("the disk is full in {} min at this rate", full_in_s / 60));
        }
        problems
    }
}

impl HttpClient {
    /// The daemon at a glance.
    ///
    /// # Errors
    /// The server refuses or does not answer.
    pub fn status(&self) -> Result<DaemonStatus, HttpClientError> {
        self.get_json("/api/v1/status")
    }

    /// The mosaic of an acquisition as it is now.
    ///
    /// # Errors
    /// The server refuses (there is none, or it is too large) or does not answer.
    pub fn mosaic(&self, acq: AcqId) -> Result<MosaicStatus, HttpClientError> {
        self.get_json(&format!("/api/v1/acquisitions/{acq}/mosaic"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_said_and_what_is_right_is_not() {
        let right = r#"{"ready":true,"capture":"running","pressure":{"system":"GREEN","tile_queue":"GREEN","content_queue":"YELLOW"},
            "mirror":{"phase":"in_sync"},"disk":{"full_in_s":900000},"new":[1]}"#;
        let mut status: DaemonStatus = serde_json::from_str(right).expect("a status");
        assert_eq!(status.problems(), Vec::<String>::new());
        (status.capture, status.damaged_records) = ("paused".to_owned(), 3);
        (status.disk.full_in_s, status.mirror) =
            (Some(120), Some(MirrorStatus { phase: "lost".to_owned(), left_bytes: 0 }));
        assert_eq!(status.problems().len(), 4, "{:?}", status.problems());
    }
}
