//! Reading a tile's bytes back: whole and verified, or a part with the checksum of the whole.

use super::Catalog;
use crate::base::pool::TileBuffer;
use crate::journal::ReadError;
use crate::model::{ByteRange, TileEntry};

/// Bytes of a stored image, in a buffer of the pool.
pub struct TileContent {
    buffer: TileBuffer,
    len: usize,
}

/// Why a tile's bytes were not given.
#[derive(Debug, thiserror::Error)]
pub enum ContentError {
    /// Every buffer is in use: come again.
    #[error("no buffer free to read the tile into: try again")]
    Busy,
    /// The stored bytes can not be read or do not match their checksum.
    #[error("the stored content is damaged: {0}")]
    Damaged(#[from] ReadError),
}

impl AsRef<[u8]> for TileContent {
    fn as_ref(&self) -> &[u8] {
        &self.buffer[..self.len]
    }
}

impl Catalog {
    /// A part of a tile's image; `part` counts from the image's start. A whole image is verified against its
    /// CRC-32 before it is given; a part can not be, and is served with the checksum of the whole (invariant 10).
    ///
    /// # Errors
    /// No buffer, damage.
    pub fn read_image(&self, entry: &TileEntry, part: ByteRange) -> Result<TileContent, ContentError> {
        let mut buffer = self.pool().try_reserve(part.len as usize).ok_or(ContentError::Busy)?;
        let in_payload = ByteRange { offset: entry.image.offset + part.offset, len: part.len };
        let read = self.journal().read(entry.location, in_payload, &mut buffer).and_then(|header| {
            let bytes = &buffer[..part.len as usize];
            let same = header.sequence == entry.sequence;
            let whole = part == ByteRange { offset: 0, len: entry.image.len };
            if same && (!whole || crc32fast::hash(bytes) == entry.image_crc) {
                return Ok(());
            }
            let what = if same { "the image does not match its CRC-32" } else { "another record lies here" };
            Err(ReadError::Damaged { segment: entry.location.segment, offset: entry.location.offset, what })
        });
        if let Err(error) = read {
            self.metrics().read_damaged.inc();
            tracing::error!(tile = entry.id.0, key = %entry.key, %error, "a stored tile can not be read as it was stored; run `tilecatcher verify`");
            return Err(error.into());
        }
        Ok(TileContent { buffer, len: part.len as usize })
    }
}
