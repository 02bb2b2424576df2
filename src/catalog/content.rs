//! Reading a tile's bytes back, all of it or a part: never a byte of an image that does not hold as a whole.

use super::Catalog;
use super::damage::{Finding, FoundBy};
use crate::base::pool::TileBuffer;
use crate::formats::Directory;
use crate::journal::{Journal, ReadError};
use crate::model::{ByteRange, Checksum, ChecksumKind, TileEntry};
use sha1::Digest;

/// Bytes of an image by which its format is known.
pub const HEAD_BYTES: usize = 8;
/// Step in which the rest of an image is read, when a part is asked for.
const STEP: usize = 256 << 10;

/// Bytes of a stored image, in a buffer of the pool.
pub struct TileContent {
    buffer: TileBuffer,
    len: usize,
    head: [u8; HEAD_BYTES],
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

impl TileContent {
    /// The first bytes of the whole image; zeros behind its end.
    #[must_use]
    pub fn head(&self) -> &[u8; HEAD_BYTES] {
        &self.head
    }
}

impl Catalog {
    /// A part of a tile's image; `part` counts from the image's start. All of the image is read and verified against its
    /// CRC-32 before any of it is given (invariant 10).
    ///
    /// # Errors
    /// No buffer, damage.
    pub fn read_image(&self, entry: &TileEntry, part: ByteRange) -> Result<TileContent, ContentError> {
        self.read_image_for(entry, part, FoundBy::Read)
    }

    fn read_image_for(&self, entry: &TileEntry, part: ByteRange, reader: FoundBy) -> Result<TileContent, ContentError> {
        let len = part.len as usize;
        let mut buffer = self.pool().try_reserve(len).ok_or(ContentError::Busy)?;
        let wanted = &mut buffer[..len];
        let read = read_verified(self.journal(), entry, part, wanted);
        let read = read.or_else(|error| read_mended(self.journal(), entry, part, wanted).ok_or(error));
        let head = read.inspect_err(|error| {
            self.metrics().read_damaged.inc();
            self.damage().found(&Finding::of_tile(entry, error, reader));
        })?;
        Ok(TileContent { buffer, len, head })
    }

    /// Reads a tile's image again and computes a checksum of it.
    ///
    /// # Errors
    /// No buffer, damage.
    pub fn checksum_again(&self, entry: &TileEntry, kind: ChecksumKind) -> Result<Checksum, ContentError> {
        let whole = ByteRange { offset: 0, len: entry.image.len };
        let content = self.read_image_for(entry, whole, FoundBy::Verify)?;
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

/// Reads all of an image, checks it, and leaves the wanted part in `wanted`; returns the image's first bytes. What is
/// given was part of what was checked: nothing is read twice.
fn read_verified(
    journal: &Journal,
    entry: &TileEntry,
    part: ByteRange,
    wanted: &mut [u8],
) -> Result<[u8; HEAD_BYTES], ReadError> {
    let total = entry.image.len;
    let mut head = [0; HEAD_BYTES];
    let head_len = HEAD_BYTES.min(total as usize);
    let crc = if part == (ByteRange { offset: 0, len: total }) {
        read_piece(journal, entry, 0, wanted)?;
        head[..head_len].copy_from_slice(&wanted[..head_len]);
        crc32fast::hash(wanted)
    } else {
        let mut step = vec![0; STEP.min(total as usize)];
        let mut hasher = crc32fast::Hasher::new();
        let mut offset = 0;
        while offset < total {
            let len = step.len().min((total - offset) as usize);
            read_piece(journal, entry, offset, &mut step[..len])?;
            hasher.update(&step[..len]);
            copy_overlap(&step[..len], offset, part, wanted);
            if offset == 0 {
                head[..head_len].copy_from_slice(&step[..head_len]);
            }
            offset += u32::try_from(len).expect("a step is far below 4 GiB");
        }
        hasher.finalize()
    };
    if crc == entry.image_crc { Ok(head) } else { Err(damaged(entry, "the image does not match its CRC-32")) }
}

/// As [`read_verified`], from a mirror, where there is one that holds; the copy that does not is written anew from it.
fn read_mended(journal: &Journal, entry: &TileEntry, part: ByteRange, wanted: &mut [u8]) -> Option<[u8; HEAD_BYTES]> {
    journal.mirror()?;
    let mut image = vec![0; entry.image.len as usize];
    let header = journal.read_mended(entry.location, entry.image, &mut image).ok()?;
    if header.sequence != entry.sequence || crc32fast::hash(&image) != entry.image_crc {
        return None;
    }
    copy_overlap(&image, 0, part, wanted);
    let mut head = [0; HEAD_BYTES];
    let head_len = HEAD_BYTES.min(image.len());
    head[..head_len].copy_from_slice(&image[..head_len]);
    Some(head)
}

/// Reads a piece of an image, from the record that the entry names and no other.
fn read_piece(journal: &Journal, entry: &TileEntry, offset: u32, piece: &mut [u8]) -> Result<(), ReadError> {
    let len = u32::try_from(piece.len()).expect("a piece is not longer than an image");
    let in_payload = ByteRange { offset: entry.image.offset + offset, len };
    let header = journal.read(entry.location, in_payload, piece)?;
    if header.sequence == entry.sequence { Ok(()) } else { Err(damaged(entry, "another record lies here")) }
}

fn damaged(entry: &TileEntry, what: &'static str) -> ReadError {
    ReadError::Damaged { segment: entry.location.segment, offset: entry.location.offset, what }
}

/// Copies what of `piece`, which begins at `offset`, lies in `part`, to its place in `wanted`.
fn copy_overlap(piece: &[u8], offset: u32, part: ByteRange, wanted: &mut [u8]) {
    let (piece_start, part_start) = (offset as usize, part.offset as usize);
    let start = piece_start.max(part_start);
    let end = (piece_start + piece.len()).min(part_start + part.len as usize);
    if start < end {
        wanted[start - part_start..end - part_start].copy_from_slice(&piece[start - piece_start..end - piece_start]);
    }
}

/// What a stored image is to one that is sent again with the same length and CRC-32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StoredCopy {
    /// It is the same, byte for byte.
    Same,
    /// It holds, and is another image.
    Other,
}

/// Compares an image with its stored copy, whatever their checksums say: equal checksums tell what was stored, not that
/// it is still there. `step` is room for pieces.
pub(super) fn compare_with_stored(
    journal: &Journal,
    entry: &TileEntry,
    image: &[u8],
    step: &mut [u8],
) -> Result<StoredCopy, ReadError> {
    let (mut same, mut offset) = (true, 0);
    let mut hasher = crc32fast::Hasher::new();
    for part in image.chunks(step.len()) {
        let stored = &mut step[..part.len()];
        read_piece(journal, entry, offset, stored)?;
        same &= *stored == *part;
        hasher.update(stored);
        offset += u32::try_from(part.len()).expect("a step is far below 4 GiB");
    }
    Ok(match (same, hasher.finalize() == entry.image_crc) {
        (true, _) => StoredCopy::Same,
        (false, true) => StoredCopy::Other,
        (false, false) => return Err(damaged(entry, "the image does not match its CRC-32")),
    })
}
