//! The checksum that a sender gives with a tile: its algorithm is named by its length.

use serde::{Deserialize, Serialize};
use std::fmt;

/// A sender's checksum of the image bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Checksum {
    /// The sender gave none.
    None,
    /// CRC-32 (IEEE 802.3), 4 bytes little-endian on the wire.
    Crc32(u32),
    /// MD5, what every legacy sender gives.
    Md5([u8; 16]),
    /// SHA-1.
    Sha1([u8; 20]),
    /// SHA-256.
    Sha256([u8; 32]),
}

/// The algorithm of a [`Checksum`]; the number is its code in the journal's record header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[repr(u8)]
pub enum ChecksumKind {
    /// No checksum.
    None = 0,
    /// CRC-32 (IEEE).
    Crc32 = 1,
    /// MD5.
    Md5 = 2,
    /// SHA-1.
    Sha1 = 3,
    /// SHA-256.
    Sha256 = 4,
}

/// A checksum field whose length names no algorithm.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("a checksum of {0} bytes names no algorithm: 0 none, 4 CRC-32, 16 MD5, 20 SHA-1, 32 SHA-256")]
pub struct ChecksumError(pub usize);

impl ChecksumKind {
    /// The longest checksum in bytes.
    pub const BYTES_MAX: usize = 32;

    /// The kind with this journal code.
    #[must_use]
    pub fn from_code(code: u8) -> Option<Self> {
        [Self::None, Self::Crc32, Self::Md5, Self::Sha1, Self::Sha256].into_iter().find(|kind| *kind as u8 == code)
    }

    /// Length of the checksum in bytes.
    #[must_use]
    pub fn len(self) -> usize {
        match self {
            Self::None => 0,
            Self::Crc32 => 4,
            Self::Md5 => 16,
            Self::Sha1 => 20,
            Self::Sha256 => 32,
        }
    }

    /// True for "no checksum".
    #[must_use]
    pub fn is_empty(self) -> bool {
        self == Self::None
    }

    /// Lower-case name, as in HTTP digests and in metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Crc32 => "crc32",
            Self::Md5 => "md5",
            Self::Sha1 => "sha1",
            Self::Sha256 => "sha256",
        }
    }

    /// True where equal checksums of this kind stand for equal bytes.
    #[must_use]
    pub fn identifies_content(self) -> bool {
        matches!(self, Self::Md5 | Self::Sha1 | Self::Sha256)
    }
}

impl Checksum {
    /// Reads the wire's checksum field.
    ///
    /// # Errors
    /// A length that names no algorithm.
    pub fn from_wire(bytes: &[u8]) -> Result<Self, ChecksumError> {
        match bytes.len() {
            0 => Ok(Self::None),
            4 => Ok(Self::Crc32(u32::from_le_bytes(array(bytes)))),
            16 => Ok(Self::Md5(array(bytes))),
            20 => Ok(Self::Sha1(array(bytes))),
            32 => Ok(Self::Sha256(array(bytes))),
            other => Err(ChecksumError(other)),
        }
    }

    /// The algorithm.
    #[must_use]
    pub fn kind(&self) -> ChecksumKind {
        match self {
            Self::None => ChecksumKind::None,
            Self::Crc32(_) => ChecksumKind::Crc32,
            Self::Md5(_) => ChecksumKind::Md5,
            Self::Sha1(_) => ChecksumKind::Sha1,
            Self::Sha256(_) => ChecksumKind::Sha256,
        }
    }

    /// The wire's bytes, left-aligned in a fixed field; the first `kind().len()` of them count.
    #[must_use]
    pub fn to_field(&self) -> [u8; ChecksumKind::BYTES_MAX] {
        let mut field = [0; ChecksumKind::BYTES_MAX];
        match self {
            Self::None => {}
            Self::Crc32(crc) => field[..4].copy_from_slice(&crc.to_le_bytes()),
            Self::Md5(digest) => field[..16].copy_from_slice(digest),
            Self::Sha1(digest) => field[..20].copy_from_slice(digest),
            Self::Sha256(digest) => field[..32].copy_from_slice(digest),
        }
        field
    }

    /// Reads the display form; its length names the algorithm.
    #[must_use]
    pub fn from_hex(text: &str) -> Option<Self> {
        let digits = text.as_bytes();
        if !digits.len().is_multiple_of(2) || !digits.iter().all(u8::is_ascii_hexdigit) {
            return None;
        }
        let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
        let mut bytes = digits.chunks(2).map(byte).collect::<Option<Vec<u8>>>()?;
        if bytes.len() == ChecksumKind::Crc32.len() {
            bytes.reverse();
        }
        Self::from_wire(&bytes).ok().filter(|checksum| !checksum.kind().is_empty())
    }

    /// The checksum's bytes as on the wire.
    #[must_use]
    pub fn to_wire(&self) -> Vec<u8> {
        self.to_field()[..self.kind().len()].to_vec()
    }
}

/// Lower-case hex, two digits a byte, first byte first.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    use fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The display form is hex: a CRC-32 as the number is written (most significant digit first), digests byte by byte.
impl fmt::Display for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Crc32(crc) => write!(f, "{crc:08x}"),
            other => f.write_str(&hex(&other.to_wire())),
        }
    }
}

fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(bytes);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_names_its_algorithm_by_its_length_and_reads_back_what_is_displayed() {
        assert_eq!(Checksum::from_hex("deadbeef"), Some(Checksum::Crc32(0xdead_beef)));
        assert_eq!(Checksum::from_hex(&"0A".repeat(16)), Some(Checksum::Md5([10; 16])));
        for checksum in [Checksum::Crc32(0x0102_0304), Checksum::Sha1([8; 20]), Checksum::Sha256([9; 32])] {
            assert_eq!(Checksum::from_hex(&checksum.to_string()), Some(checksum));
        }
        for bad in ["", "x", "abc", "zz", "+1+1+1+1", "ab", "\u{e9}\u{e9}\u{e9}\u{e9}", &"0a".repeat(33)] {
            assert_eq!(Checksum::from_hex(bad), None, "{bad}");
        }
    }

    #[test]
    fn length_names_the_algorithm_and_survives_the_wire() {
        for len in [0usize, 4, 16, 20, 32] {
            let bytes: Vec<u8> = (1..).take(len).collect();
            let checksum = Checksum::from_wire(&bytes).expect("a known length");
            assert_eq!(checksum.kind().len(), len);
            assert_eq!(checksum.to_wire(), bytes);
            assert_eq!(ChecksumKind::from_code(checksum.kind() as u8), Some(checksum.kind()));
        }
        assert_eq!(Checksum::from_wire(&[0; 5]), Err(ChecksumError(5)));
    }

    #[test]
    fn crc_is_little_endian_on_the_wire_and_big_endian_for_people() {
        let checksum = Checksum::from_wire(&[0x26, 0x39, 0xf4, 0xcb]).expect("4 bytes");
        assert_eq!(checksum.to_string(), "cbf43926");
    }
}
