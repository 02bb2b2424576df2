//! The protocol peer: a blocking client for the capture port and the HTTP port.
//!
//! Serves send, demo, tests and benchmarks alike. Uses portable calls only. Must never say that a tile is stored
//! before the server has.

mod capture;
mod folder;
mod http;
mod pipelined;

pub use capture::{Answered, CaptureClient, CaptureError, Tile};
pub use folder::{ChecksumChoice, SendError, SendOptions, SendReport, checksum_of, send_folder};
pub use http::{HttpClient, HttpClientError, TileContent};
pub use pipelined::{
    Interest, PipelinedAnswer, PipelinedClient, PipelinedError, Readiness, WriteState, Writing,
    wait as wait_for_connections,
};
