//! The protocol's other end: a blocking client for the capture port and the HTTP port, for anything that sends.
//!
//! - [`CaptureClient`]: one connection to the capture port with a window of tiles in flight;
//! - [`PipelinedClient`]: the same without ever waiting, for many connections on one thread;
//! - [`HttpClient`]: acquisitions, ROIs, files, tiles, completeness, contents;
//! - [`deliver`]: several connections of either kind that reconnect, back off and send again what was not acknowledged;
//! - [`Companions`], [`StoredTiles`], [`Patient`], [`Tally`]: what all that send folders have in common.
//!
//! Serves send, watch, replay, demo, tests and benchmarks alike. Portable calls only: camera computers often run Windows.
//! Must never say that a tile is stored before the server has.
//!
//! ```no_run
//! use std::time::Duration;
//! use tilecatcher::client::{CaptureClient, ChecksumChoice, HttpClient, Tile, checksum_of};
//! use tilecatcher::model::{FrameNumber, TileKey};
//!
//! let timeout = Duration::from_secs(30);
//! let http = HttpClient::new("http://127.0.0.1:5001", timeout);
//! let acq = http.start_acquisition("7_run_logfile.ini", &std::fs::read("7_run_logfile.ini")?)?;
//! let mut capture = CaptureClient::connect("127.0.0.1:5002".parse()?, 4, timeout)?;
//! for row in 0..10 {
//!     let image = std::fs::read(format!("col0000_row{row:04}_cam0.tif"))?;
//!     let key = TileKey { acq, col: 0, row, frame: FrameNumber::STABLE };
//!     let checksum = checksum_of(ChecksumChoice::Crc32, &image);
//!     capture.send(&Tile { key, camera: 0, checksum, image: &image }, row)?;
//! }
//! while let Some(answered) = capture.receive()? {
//!     println!("row {}: status {}", answered.tag, answered.response.status);
//! }
//! http.end_acquisition(acq)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod admin;
mod capture;
mod checksums;
mod companions;
mod delivery;
mod http;
mod link;
mod outbox;
mod patience;
mod pipelined;
mod report;
mod service;
mod socket;
mod status;
mod stored;
mod tally;
mod token;

pub use capture::{Answered, CaptureClient, CaptureError, Tile};
pub use checksums::{ChecksumChoice, checksum_of};
pub use companions::{Companions, OtherFiles, SendError, probe_capture_port};
pub use delivery::{DeliveryOptions, Event, Label, Settled, Tiles, Undelivered, deliver};
pub use http::{HttpClient, HttpClientError, TileContent};
pub use link::{LinkError, LinkOptions, Refused, Via};
pub use outbox::Outbox;
pub use patience::{Listener, Patient, Quiet};
pub use pipelined::{
    Interest, PipelinedAnswer, PipelinedClient, PipelinedError, Readiness, WriteState, Writing,
    wait as wait_for_connections,
};
pub use report::{Problem, SendReport};
pub use service::{
    FileToStore, KnownAcquisition, MissingTile, RefusedFile, ServerCompleteness, StoredFile, StoredTile,
};
pub use status::{
    AcquisitionStatus, DaemonStatus, DiskStatus, IndexStatus, JournalStatus, MirrorStatus, MosaicStatus,
    PressureStatus, QueueStatus, RateStatus, SampleStatus, ScrubStatus, SenderStatus, WarningStatus,
};
pub use stored::{Compare, StoredTiles};
pub use tally::Tally;
pub use token::{BearerToken, TokenReadError};
