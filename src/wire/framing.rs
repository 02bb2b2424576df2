//! The 4-byte length prefix: collected byte by byte, whatever way it arrives.

/// Length of the prefix: `u32`, little-endian.
pub const PREFIX_BYTES: usize = 4;

/// A length prefix that may still be incomplete.
#[derive(Clone, Copy, Debug, Default)]
pub struct LengthPrefix {
    bytes: [u8; PREFIX_BYTES],
    filled: usize,
}

impl LengthPrefix {
    /// Where the missing bytes go.
    pub fn unfilled(&mut self) -> &mut [u8] {
        &mut self.bytes[self.filled..]
    }

    /// Takes note of `n` bytes written to the front of [`Self::unfilled`].
    pub fn advance(&mut self, n: usize) {
        self.filled = (self.filled + n).min(PREFIX_BYTES);
    }

    /// The frame's length in bytes once all four bytes are there.
    #[must_use]
    pub fn complete(&self) -> Option<u32> {
        (self.filled == PREFIX_BYTES).then(|| u32::from_le_bytes(self.bytes))
    }

    /// True before the first byte.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.filled == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefix_split_at_every_byte_gives_the_same_length() {
        let wire = 0x0102_0304_u32.to_le_bytes();
        for first in 0..=PREFIX_BYTES {
            let mut prefix = LengthPrefix::default();
            for part in [&wire[..first], &wire[first..]] {
                prefix.unfilled()[..part.len()].copy_from_slice(part);
                prefix.advance(part.len());
            }
            assert_eq!(prefix.complete(), Some(0x0102_0304));
        }
    }

    #[test]
    fn incomplete_prefix_has_no_length() {
        let mut prefix = LengthPrefix::default();
        assert!(prefix.is_empty());
        prefix.advance(3);
        assert_eq!(prefix.complete(), None);
    }
}
