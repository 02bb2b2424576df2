//! Reading a tile's bytes back: whole and verified, or a part with the checksum of the whole.

use super::Catalog;
use crate::base::pool::TileBuffer;
use crate::formats::Directory;
use crate::journal::{ReadError, RecordHeader};
use crate::model::{ByteRange, Checksum, ChecksumKind, TileEntry};
use sha1::Digest;

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
        let check = |header: RecordHeader, bytes: &[u8]| {
            let bytes = &bytes[..part.len as usize];
            let same = header.sequence == entry.sequence;
            let whole = part == ByteRange { offset: 0, len: entry.image.len };
            if same && (!whole || crc32fast::hash(bytes) == entry.image_crc) {
                return Ok(());
            }
            let what = if same { "the image does not match its CRC-32" } else { "another record lies here" };
            Err(ReadError::Damaged { segment: entry.location.segment, offset: entry.location.offset, what })
        };
        let journal = self.journal();
        let read = journal.read(entry.location, in_payload, &mut buffer).and_then(|header| check(header, &buffer));
        let read = read.or_else(|error| match journal.read_mended(entry.location, in_payload, &mut buffer) {
            Ok(header) => check(header, &buffer),
            Err(_) => Err(error),
        });
        if let Err(error) = read {
            self.metrics().read_damaged.inc();
            tracing::error!(tile = entry.id.0, key = %entry.key, %error, "a stored tile can not be read as it was stored; run `tilecatcher verify`");
            return Err(error.into());
        }
        Ok(TileContent { buffer, len: part.len as usize })
    }

    /// Reads a tile's image again and computes a checksum of it.
    ///
    /// # Errors
    /// No buffer, damage.
    pub fn checksum_again(&self, entry: &TileEntry, kind: ChecksumKind) -> Result<Checksum, ContentError> {
        let content = self.read_image(entry, ByteRange { offset: 0, len: entry.image.len })?;
        let bytes = content.as_ref();
        Ok(match kind {
            ChecksumKind::None => Checksum::None,
            ChecksumKind::Crc32 => Checksum::Crc32(crc32fast::hash(bytes)),
            ChecksumKind::Md5 => {
                let mut digests = [[0; 16]];
                md5_simd::Md5Engine.hash_many(&[bytes], &mut digests);
                Checksum::Md5(digests[0])
            }
            ChecksumKind::Sha1 => Checksum::Sha1(sha1::Sha1::digest(bytes).into()),
            ChecksumKind::Sha256 => Checksum::Sha256(sha2::Sha256::digest(bytes).into()),
        })
    }

    /// Width and height as a stored TIFF says, read from its header and directory alone. `None` for anything else.
    #[must_use]
    pub fn image_dimensions(&self, entry: &TileEntry) -> Option<(u32, u32)> {
        let read = |offset: u32, len: u32, bytes: &mut [u8]| {
            let range = ByteRange { offset: entry.image.offset.checked_add(offset)?, len };
            let inside = offset.checked_add(len)? <= entry.image.len;
            inside.then(|| self.journal().read(entry.location, range, bytes).ok()).flatten()
        };
        let mut head = [0; 8];
        read(0, 8, &mut head)?;
        let directory = Directory::find(&head)?;
        let mut entries = [0; Directory::BYTES_MAX];
        let len = Directory::BYTES_MAX.min(usize::try_from(entry.image.len.checked_sub(directory.offset)?).ok()?);
        read(directory.offset, u32::try_from(len).ok()?, &mut entries)?;
        directory.dimensions(&entries[..len])
    }
}
