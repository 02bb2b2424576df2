//! Checks bytes against what is known of them, piece by piece: length, CRC-32, the sender's checksum.
//!
//! For content that passes through and is too large to hold. Owns nothing but the running sums.

use crate::model::{Checksum, TileEntry};
use sha1::Digest;

/// What is known of some bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnownContent {
    /// Their number.
    pub len: u64,
    /// Their CRC-32.
    pub crc: u32,
    /// The sender's checksum.
    pub checksum: Checksum,
}

impl KnownContent {
    /// A tile's image.
    #[must_use]
    pub fn of_image(entry: &TileEntry) -> Self {
        Self { len: u64::from(entry.image.len), crc: entry.image_crc, checksum: entry.checksum }
    }

    /// Bytes that are at hand.
    #[must_use]
    pub fn of_bytes(bytes: &[u8]) -> Self {
        Self { len: bytes.len() as u64, crc: crc32fast::hash(bytes), checksum: Checksum::None }
    }
}

/// The sums over the bytes so far.
pub struct ContentCheck {
    known: KnownContent,
    len: u64,
    crc: crc32fast::Hasher,
    digest: RunningDigest,
}

enum RunningDigest {
    None,
    Md5(Box<md5_simd::Md5>),
    Sha1(Box<sha1::Sha1>),
    Sha256(Box<sha2::Sha256>),
}

impl ContentCheck {
    /// A check against `known`, before the first byte.
    #[must_use]
    pub fn new(known: KnownContent) -> Self {
        let digest = match known.checksum {
            Checksum::None | Checksum::Crc32(_) => RunningDigest::None,
            Checksum::Md5(_) => RunningDigest::Md5(Box::new(md5_simd::Md5::new())),
            Checksum::Sha1(_) => RunningDigest::Sha1(Box::new(sha1::Sha1::new())),
            Checksum::Sha256(_) => RunningDigest::Sha256(Box::new(sha2::Sha256::new())),
        };
        Self { known, len: 0, crc: crc32fast::Hasher::new(), digest }
    }

    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.len += bytes.len() as u64;
        self.crc.update(bytes);
        match &mut self.digest {
            RunningDigest::None => {}
            RunningDigest::Md5(md5) => md5.update(bytes),
            RunningDigest::Sha1(sha1) => sha1.update(bytes),
            RunningDigest::Sha256(sha256) => sha256.update(bytes),
        }
    }

    /// What does not hold, when all bytes were taken. `None`: everything does.
    #[must_use]
    pub fn problem(self) -> Option<&'static str> {
        let Self { known, len, crc, digest } = self;
        let crc = crc.finalize();
        let computed = match digest {
            RunningDigest::None if known.checksum == Checksum::None => Checksum::None,
            RunningDigest::None => Checksum::Crc32(crc),
            RunningDigest::Md5(md5) => Checksum::Md5(md5.finalize()),
            RunningDigest::Sha1(sha1) => Checksum::Sha1(sha1.finalize().into()),
            RunningDigest::Sha256(sha256) => Checksum::Sha256(sha256.finalize().into()),
        };
        if len != known.len {
            Some("the length is wrong")
        } else if crc != known.crc {
            Some("the content does not match its CRC-32")
        } else if computed != known.checksum {
            Some("the content does not match the sender's checksum")
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(known: KnownContent, bytes: &[u8]) -> Option<&'static str> {
        let mut check = ContentCheck::new(known);
        bytes.chunks(7).for_each(|piece| check.update(piece));
        check.problem()
    }

    #[test]
    fn whatever_the_senders_checksum_a_changed_byte_is_found() {
        let bytes: Vec<u8> = (0..=255).collect();
        let mut other = bytes.clone();
        other[200] ^= 1;
        let checksums = [
            Checksum::None,
            Checksum::Crc32(crc32fast::hash(&bytes)),
            Checksum::Md5(md5_simd::digest(&bytes)),
            Checksum::Sha1(sha1::Sha1::digest(&bytes).into()),
            Checksum::Sha256(sha2::Sha256::digest(&bytes).into()),
        ];
        for checksum in checksums {
            let known = KnownContent { checksum, ..KnownContent::of_bytes(&bytes) };
            assert_eq!(checked(known, &bytes), None, "{checksum:?}");
            assert!(checked(known, &other).is_some_and(|problem| problem.contains("CRC-32")), "{checksum:?}");
            assert!(checked(known, &bytes[1..]).is_some_and(|problem| problem.contains("length")), "{checksum:?}");
            let forged = KnownContent { crc: crc32fast::hash(&other), ..known };
            assert_eq!(checked(forged, &other).is_some(), checksum != Checksum::None, "{checksum:?}");
        }
    }
}
