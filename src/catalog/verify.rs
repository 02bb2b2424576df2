//! From a received frame to a verified tile: structure, key, acquisition, checksum.
//!
//! CRC-32 is checked by arithmetic on what was computed while the bytes arrived. MD5, SHA-1 and SHA-256 need a
//! second pass: such a tile is [`PendingTile`] until a [`HashBatch`] has verified it, several MD5 at once.

use super::crc::crc_of_middle;
use super::frame::ReceivedFrame;
use crate::base::pool::TileBuffer;
use crate::journal::RECORD_HEADER_BYTES;
use crate::model::{AcqId, ByteRange, Checksum, ChecksumKind, Refusal, TileKey};
use crate::telemetry::Stamp;
use crate::wire::{BadRequest, parse_request};
use sha1::Digest;
use std::net::SocketAddr;

/// A tile whose bytes were checked against its sender's checksum. Made only here.
pub struct VerifiedTile {
    /// Room for the record's header, then the frame.
    pub(super) buffer: TileBuffer,
    pub(super) frame_len: u32,
    pub(super) frame_crc: u32,
    pub(super) key: TileKey,
    pub(super) camera: i32,
    pub(super) image: ByteRange,
    pub(super) image_crc: u32,
    pub(super) checksum: Checksum,
    pub(super) received_ns: i64,
    pub(super) peer: Option<SocketAddr>,
    pub(super) begun_at: Stamp,
    pub(super) received_at: Stamp,
    pub(super) verified_at: Stamp,
}

/// A tile whose checksum still has to be computed.
pub struct PendingTile(VerifiedTile);

/// What came of a frame.
pub enum Verdict {
    /// Good.
    Verified(VerifiedTile),
    /// Good if its digest is.
    Pending(PendingTile),
    /// Refused; with what could be read of its key.
    Refused(ReadKey, Refusal),
}

/// What could be read of a refused tile's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadKey {
    /// The acquisition only; 0 where not even that could be read.
    Acquisition(AcqId),
    /// All of it.
    Whole(TileKey),
}

impl ReadKey {
    /// The acquisition, or 0.
    #[must_use]
    pub fn acq(&self) -> AcqId {
        match self {
            Self::Acquisition(acq) => *acq,
            Self::Whole(key) => key.acq,
        }
    }
}

/// What the daemon insists on.
#[derive(Clone, Copy, Debug)]
pub struct VerifyPolicy {
    /// Refuse tiles without a checksum.
    pub require_checksum: bool,
}

impl VerifiedTile {
    /// The tile's key.
    #[must_use]
    pub fn key(&self) -> TileKey {
        self.key
    }

    /// When its last byte arrived.
    #[must_use]
    pub fn received_at(&self) -> Stamp {
        self.received_at
    }

    /// The image's bytes.
    #[must_use]
    pub fn image(&self) -> &[u8] {
        &self.buffer[RECORD_HEADER_BYTES..][self.image.bounds()]
    }

    /// Bytes of the tile buffers that it holds: a frame may be much longer than its image.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.buffer.len()
    }
}

impl PendingTile {
    /// The tile's key.
    #[must_use]
    pub fn key(&self) -> TileKey {
        self.0.key
    }

    /// When its last byte arrived.
    #[must_use]
    pub fn received_at(&self) -> Stamp {
        self.0.received_at
    }
}

/// Reads and checks a frame. `is_known` answers whether an acquisition may be stored to.
pub fn verify(frame: ReceivedFrame, policy: VerifyPolicy, is_known: &mut dyn FnMut(AcqId) -> bool) -> Verdict {
    let bytes = frame.bytes();
    let request = match parse_request(bytes) {
        Ok(request) => request,
        Err(BadRequest::Structure(_) | BadRequest::NoImage) => {
            return Verdict::Refused(ReadKey::Acquisition(AcqId(0)), Refusal::BadMessage);
        }
    };
    let acq = AcqId(request.acq);
    let Ok(key) = TileKey::from_wire(acq, request.col, request.row, request.frame) else {
        return Verdict::Refused(ReadKey::Acquisition(acq), Refusal::BadKey);
    };
    let refused = |why| Verdict::Refused(ReadKey::Whole(key), why);
    if !is_known(acq) {
        return refused(Refusal::UnknownAcquisition);
    }
    let Ok(checksum) = Checksum::from_wire(&bytes[request.checksum.bounds()]) else {
        return refused(Refusal::BadChecksum);
    };
    let image = request.image.bounds();
    let image_crc = crc_of_middle(frame.crc, &bytes[..image.start], u64::from(request.image.len), &bytes[image.end..]);
    let tile = VerifiedTile {
        buffer: frame.buffer,
        frame_len: frame.len,
        frame_crc: frame.crc,
        key,
        camera: request.camera,
        image: request.image,
        image_crc,
        checksum,
        received_ns: frame.received_ns,
        peer: frame.peer,
        begun_at: frame.begun_at,
        received_at: frame.received_at,
        verified_at: Stamp::now(),
    };
    match checksum {
        Checksum::None if policy.require_checksum => refused(Refusal::MissingChecksum),
        Checksum::Crc32(given) if given != image_crc => refused(Refusal::BadChecksum),
        Checksum::None | Checksum::Crc32(_) => Verdict::Verified(tile),
        Checksum::Md5(_) | Checksum::Sha1(_) | Checksum::Sha256(_) => Verdict::Pending(PendingTile(tile)),
    }
}

/// Verifies digests of several tiles in one call. Keeps its scratch space between calls.
#[derive(Default)]
pub struct HashBatch {
    engine: md5_simd::Md5Engine,
    digests: Vec<[u8; 16]>,
}

impl HashBatch {
    /// Gives each tile, in order, as verified or refused. Tiles of one length are hashed side by side.
    pub fn verify<T>(
        &mut self,
        tiles: &mut Vec<(PendingTile, T)>,
        mut each: impl FnMut(Result<VerifiedTile, TileKey>, T),
    ) {
        tiles.sort_by_key(|(tile, _)| (tile.0.checksum.kind() as u8, tile.0.image.len));
        let md5 = tiles.iter().filter(|(tile, _)| tile.0.checksum.kind() == ChecksumKind::Md5);
        let images: Vec<&[u8]> = md5.map(|(tile, _)| tile.0.image()).collect();
        self.digests.clear();
        self.digests.resize(images.len(), [0; 16]);
        self.engine.hash_many(&images, &mut self.digests);
        let mut digests = self.digests.iter();
        for (PendingTile(mut tile), tag) in tiles.drain(..) {
            let holds = match tile.checksum {
                Checksum::Md5(given) => digests.next() == Some(&given),
                Checksum::Sha1(given) => sha1::Sha1::digest(tile.image())[..] == given,
                Checksum::Sha256(given) => sha2::Sha256::digest(tile.image())[..] == given,
                Checksum::None | Checksum::Crc32(_) => true,
            };
            let key = tile.key;
            tile.verified_at = Stamp::now();
            each(if holds { Ok(tile) } else { Err(key) }, tag);
        }
    }
}
