//! The data plane: capture connections, from socket readiness to a tile in its lane, and answers back.
//!
//! Bandwidth sketch, per tile of n bytes in the steady state: n bytes copied once, from the kernel into the buffer
//! that is written; n / 256 KiB + 1 reads (the last one takes the next length prefix along); CRC-32 over bytes that
//! are still in L2; one queue hop to the lane, one back; one write for all answers of a wake-up. No allocation, no
//! log line; locks: the pool's (twice a tile, uncontended) and, for MD5 and SHA senders, a second pass over the bytes
//! on a hasher thread.
//!
//! The only place that imports `mio`. Must never block on anything but readiness (invariant 5).

mod acceptor;
mod connection;
mod hasher;
mod inbox;
mod reactor;
mod transport;

pub use reactor::{Capture, CaptureListeners, IngestError, IngestOptions};
