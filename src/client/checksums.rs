//! Which checksum a sender gives, and its computation.

use crate::model::{Checksum, ChecksumKind};
use sha1::Digest;
use std::str::FromStr;

/// Which checksum goes with each tile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChecksumChoice {
    /// None: the server must be configured to accept that.
    None,
    /// CRC-32: the fastest.
    Crc32,
    /// MD5: what legacy senders give.
    Md5,
    /// SHA-1.
    Sha1,
    /// SHA-256.
    Sha256,
}

impl FromStr for ChecksumChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "none" => Ok(Self::None),
            "crc32" => Ok(Self::Crc32),
            "md5" => Ok(Self::Md5),
            "sha1" => Ok(Self::Sha1),
            "sha256" => Ok(Self::Sha256),
            other => Err(format!("\"{other}\" is no checksum: none, crc32, md5, sha1 or sha256")),
        }
    }
}

impl From<ChecksumKind> for ChecksumChoice {
    fn from(kind: ChecksumKind) -> Self {
        match kind {
            ChecksumKind::None => Self::None,
            ChecksumKind::Crc32 => Self::Crc32,
            ChecksumKind::Md5 => Self::Md5,
            ChecksumKind::Sha1 => Self::Sha1,
            ChecksumKind::Sha256 => Self::Sha256,
        }
    }
}

/// Computes a checksum.
#[must_use]
pub fn checksum_of(choice: ChecksumChoice, bytes: &[u8]) -> Checksum {
    match choice {
        ChecksumChoice::None => Checksum::None,
        ChecksumChoice::Crc32 => Checksum::Crc32(crc32fast::hash(bytes)),
        ChecksumChoice::Md5 => Checksum::Md5(md5_simd::digest(bytes)),
        ChecksumChoice::Sha1 => Checksum::Sha1(sha1::Sha1::digest(bytes).into()),
        ChecksumChoice::Sha256 => Checksum::Sha256(sha2::Sha256::digest(bytes).into()),
    }
}
