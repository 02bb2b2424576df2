//! The capture port's messages: framing, requests, responses. Bytes in, bytes out; never sees a socket.
//!
//! The only place that imports `flatbuffers`. Layouts: schema/README.md.

mod encode;
mod framing;
#[cfg(all(feature = "daemon", any(test, fuzzing)))]
pub(crate) mod fuzzing;
#[allow(warnings, clippy::all, clippy::pedantic, missing_docs, unsafe_code, unused_qualifications)]
#[rustfmt::skip]
mod generated; // Reason for the lint exceptions: the file is flatc's output, checked by schema/generate.sh.
mod request;
mod response;

pub use encode::{FrameHead, FrameTail, RequestFields};
pub use framing::{LengthPrefix, PREFIX_BYTES};
pub use request::{BadRequest, ParsedRequest, parse_request};
pub use response::{RESPONSE_BYTES, Response, encode_response, parse_response};
