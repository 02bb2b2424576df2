//! An image that arrives without its wire frame, over HTTP: put into the middle of the frame that is built around it.
//!
//! The record of such a tile is the frame that a sender on the capture port would have sent. The image lands where it
//! stays; head and tail are written when everything is known. Must never hold more than the buffer it was given.

use super::crc::join;
use super::frame::ReceivedFrame;
use crate::base::clock;
use crate::base::limits::round_up_to_block;
use crate::base::pool::TileBuffer;
use crate::journal::RECORD_HEADER_BYTES;
use crate::telemetry::Stamp;
use crate::wire::{FrameHead, FrameTail, PREFIX_BYTES, RequestFields};

/// Where the image begins in the buffer.
const IMAGE: usize = RECORD_HEADER_BYTES + FrameHead::BYTES - PREFIX_BYTES;
/// The longest tail of a frame.
const TAIL_BYTES_MAX: usize = 7;

/// An image that is still arriving.
pub struct ImageUpload {
    buffer: TileBuffer,
    len: usize,
    hasher: crc32fast::Hasher,
    begun_at: Stamp,
}

impl ImageUpload {
    /// Bytes that a buffer must have for an image of `len` bytes.
    #[must_use]
    pub fn buffer_bytes(len: usize) -> usize {
        round_up_to_block(IMAGE + len + TAIL_BYTES_MAX)
    }

    /// An empty image in a buffer.
    #[must_use]
    pub fn new(buffer: TileBuffer) -> Self {
        Self { buffer, len: 0, hasher: crc32fast::Hasher::new(), begun_at: Stamp::now() }
    }

    /// Bytes so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// True while there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes that still fit.
    #[must_use]
    pub fn room(&self) -> usize {
        self.buffer.len().saturating_sub(IMAGE + self.len + TAIL_BYTES_MAX)
    }

    /// Adds bytes; they must fit.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer[IMAGE + self.len..][..bytes.len()].copy_from_slice(bytes);
        self.hasher.update(bytes);
        self.len += bytes.len();
    }

    /// The frame around the image, in as much of the buffer as it takes. `None` when that is too long for one.
    #[must_use]
    pub fn finish(mut self, fields: &RequestFields) -> Option<ReceivedFrame> {
        let head = FrameHead::new(fields, self.len)?;
        let head = &head.bytes()[PREFIX_BYTES..];
        let tail = FrameTail::new(self.len);
        let (tail, image_len) = (tail.bytes(), self.len as u64);
        self.buffer.shrink_to(Self::buffer_bytes(self.len));
        self.buffer[RECORD_HEADER_BYTES..IMAGE].copy_from_slice(head);
        self.buffer[IMAGE + self.len..][..tail.len()].copy_from_slice(tail);
        let crc = join(
            join(crc32fast::hash(head), self.hasher.finalize(), image_len),
            crc32fast::hash(tail),
            tail.len() as u64,
        );
        Some(ReceivedFrame {
            buffer: self.buffer,
            len: u32::try_from(head.len() + self.len + tail.len()).ok()?,
            crc,
            received_ns: clock::unix_ns(),
            peer: None,
            begun_at: self.begun_at,
            received_at: Stamp::now(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::pool::Pool;
    use crate::model::{AcqId, Checksum, FrameNumber, TileKey};

    #[test]
    fn the_frame_is_what_a_sender_would_have_sent() {
        let pool = Pool::new(1 << 20).expect("a small pool");
        let key = TileKey { acq: AcqId(7), col: 3, row: 4, frame: FrameNumber::STABLE };
        let fields = RequestFields { key, camera: 2, checksum: Checksum::Md5([9; 16]) };
        for len in [1usize, 7, 8, 5000, 100_001] {
            let image: Vec<u8> = (0..=255).cycle().take(len).collect();
            let mut upload = ImageUpload::new(pool.try_reserve(ImageUpload::buffer_bytes(len)).expect("room"));
            image.chunks(999).for_each(|part| upload.push(part));
            let frame = upload.finish(&fields).expect("fits");
            let head = FrameHead::new(&fields, len).expect("fits");
            let sent = [&head.bytes()[PREFIX_BYTES..], &image, FrameTail::new(len).bytes()].concat();
            assert!(frame.bytes() == sent, "{len}");
            assert_eq!(frame.crc, crc32fast::hash(&sent), "{len}");
        }
    }

    #[test]
    fn a_frame_keeps_no_more_of_a_long_buffer_than_it_takes() {
        let pool = Pool::new(1 << 20).expect("a small pool");
        let mut upload = ImageUpload::new(pool.try_reserve(1 << 20).expect("room"));
        upload.push(&[1; 5000]);
        let key = TileKey { acq: AcqId(7), col: 3, row: 4, frame: FrameNumber::STABLE };
        let frame = upload.finish(&RequestFields { key, camera: 0, checksum: Checksum::None }).expect("fits");
        assert_eq!(pool.used(), ImageUpload::buffer_bytes(5000));
        assert_eq!(frame.crc, crc32fast::hash(frame.bytes()));
    }
}
