//! A wire frame while it arrives: the bytes in their final place, and their CRC-32 computed while they are hot.

use crate::base::clock;
use crate::base::limits::round_up_to_block;
use crate::base::pool::TileBuffer;
use crate::journal::RECORD_HEADER_BYTES;
use crate::telemetry::Stamp;
use std::net::SocketAddr;

/// A frame that is still arriving. Lies behind the room for its record's header, so that header, frame and
/// padding later leave in one aligned write without a copy.
pub struct FrameBuffer {
    buffer: TileBuffer,
    len: usize,
    filled: usize,
    hasher: crc32fast::Hasher,
    begun_at: Stamp,
}

/// A complete frame with the CRC-32 of its bytes. Made only by [`FrameBuffer::complete`].
pub struct ReceivedFrame {
    pub(super) buffer: TileBuffer,
    pub(super) len: u32,
    pub(super) crc: u32,
    pub(super) received_ns: i64,
    pub(super) peer: Option<SocketAddr>,
    /// When there was room for its first byte.
    pub(super) begun_at: Stamp,
    pub(super) received_at: Stamp,
}

impl FrameBuffer {
    /// Bytes that a buffer must have for a frame of `len` bytes.
    #[must_use]
    pub fn buffer_bytes(len: usize) -> usize {
        round_up_to_block(RECORD_HEADER_BYTES + len)
    }

    /// An empty frame of `len` bytes in a buffer of at least [`Self::buffer_bytes`], begun at `begun_at`.
    ///
    /// # Panics
    /// The buffer is too short.
    #[must_use]
    pub fn new(buffer: TileBuffer, len: usize, begun_at: Stamp) -> Self {
        assert!(buffer.len() >= Self::buffer_bytes(len), "the buffer was reserved for this frame");
        Self { buffer, len, filled: 0, hasher: crc32fast::Hasher::new(), begun_at }
    }

    /// Where the missing bytes go, at most `limit` of them.
    pub fn unfilled(&mut self, limit: usize) -> &mut [u8] {
        let start = RECORD_HEADER_BYTES + self.filled;
        let len = limit.min(self.len - self.filled);
        &mut self.buffer[start..start + len]
    }

    /// Takes note of `n` bytes written to the front of [`Self::unfilled`], and hashes them while they are in cache.
    pub fn advance(&mut self, n: usize) {
        let start = RECORD_HEADER_BYTES + self.filled;
        self.hasher.update(&self.buffer[start..start + n]);
        self.filled += n;
    }

    /// Bytes still missing.
    #[must_use]
    pub fn missing(&self) -> usize {
        self.len - self.filled
    }

    /// The frame, if every byte is there.
    ///
    /// # Errors
    /// Gives itself back while bytes are missing.
    pub fn complete(self) -> Result<ReceivedFrame, Box<Self>> {
        if self.missing() > 0 {
            return Err(Box::new(self));
        }
        Ok(ReceivedFrame {
            buffer: self.buffer,
            len: u32::try_from(self.len).expect("a frame's length came from a u32 prefix"),
            crc: self.hasher.finalize(),
            received_ns: clock::unix_ns(),
            peer: None,
            begun_at: self.begun_at,
            received_at: Stamp::now(),
        })
    }
}

impl ReceivedFrame {
    /// The same, with its sender, as far as that is known: its record will name it.
    #[must_use]
    pub fn sent_by(self, peer: Option<SocketAddr>) -> Self {
        Self { peer, ..self }
    }

    /// The frame's bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.buffer[RECORD_HEADER_BYTES..RECORD_HEADER_BYTES + self.len as usize]
    }
}
