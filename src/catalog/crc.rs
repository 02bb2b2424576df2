//! Arithmetic on CRC-32 values: the checksum of a part from the checksum of the whole, without reading it again.

/// What `crc` becomes when `len` zero bytes are appended and the usual pre- and post-conditioning is left out:
/// the contribution of a prefix to the CRC of prefix and suffix together.
fn shift(crc: u32, len: u64) -> u32 {
    // combine(a, b) = shift(a, len b) ^ b, and the CRC of nothing is 0.
    let mut prefix = crc32fast::Hasher::new_with_initial_len(crc, 0);
    prefix.combine(&crc32fast::Hasher::new_with_initial_len(0, len));
    prefix.finalize()
}

/// Undoes [`shift`]. The polynomial is primitive: shifting by 2^32 - 1 bits is no shift, and so is shifting by
/// 2^32 - 1 bytes, for 8 and 2^32 - 1 have no common factor.
fn unshift(crc: u32, len: u64) -> u32 {
    const PERIOD: u64 = (1 << 32) - 1;
    shift(crc, PERIOD - len % PERIOD)
}

/// CRC-32 of two runs of bytes behind one another, given the CRC-32 of each and the length of the second.
#[must_use]
pub fn join(front: u32, back: u32, back_len: u64) -> u32 {
    let mut joined = crc32fast::Hasher::new_with_initial_len(front, 0);
    joined.combine(&crc32fast::Hasher::new_with_initial_len(back, back_len));
    joined.finalize()
}

/// CRC-32 of the bytes between `prefix` and `suffix`, given the CRC-32 of all three together.
///
/// `middle_len` is the length of the middle in bytes. Costs a pass over prefix and suffix only.
#[must_use]
pub fn crc_of_middle(whole: u32, prefix: &[u8], middle_len: u64, suffix: &[u8]) -> u32 {
    let rest = whole ^ shift(crc32fast::hash(prefix), middle_len + suffix.len() as u64);
    unshift(rest ^ crc32fast::hash(suffix), suffix.len() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn middle_is_derived_exactly(
            prefix in proptest::collection::vec(0u8.., 0..200),
            middle in proptest::collection::vec(0u8.., 0..5000),
            suffix in proptest::collection::vec(0u8.., 0..200),
        ) {
            let whole = crc32fast::hash(&[prefix.as_slice(), &middle, &suffix].concat());
            let derived = crc_of_middle(whole, &prefix, middle.len() as u64, &suffix);
            proptest::prop_assert_eq!(derived, crc32fast::hash(&middle));
        }
    }
}
