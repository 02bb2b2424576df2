//! Whether a TIFF is whole: the first image's directory is there, and all its strips or tiles lie inside the file.
//!
//! Reads classic and big TIFF, both byte orders, no pixel. Must never allocate by what a stranger's file says, nor
//! look at more than [`PIECES_MAX`] pieces.

use super::FormatError;

/// Strips or tiles of an image that are looked at. An image of 2^20 rows has as many strips at most.
const PIECES_MAX: u64 = 1 << 20;

const IMAGE_WIDTH: u16 = 256;
const IMAGE_LENGTH: u16 = 257;
/// Strips, then tiles: tags of their offsets and of their lengths.
const PIECES: [(u16, u16); 2] = [(273, 279), (324, 325)];

/// Checks that the first image of a TIFF is complete.
///
/// # Errors
/// Not a TIFF; a directory or a part of the image outside the file: it was cut off, or is still being written.
pub fn check_whole_tiff(bytes: &[u8]) -> Result<(), FormatError> {
    let file = File::open(bytes).ok_or_else(|| FormatError::Content("not a TIFF".to_owned()))?;
    let directory = file.directory().ok_or_else(|| cut("its directory", bytes.len()))?;
    let find = |tag| directory.find(tag);
    if find(IMAGE_WIDTH).is_none() || find(IMAGE_LENGTH).is_none() {
        return Err(FormatError::Content("a TIFF without width and height in its first directory".to_owned()));
    }
    let pieces = PIECES.into_iter().find_map(|(offsets, lengths)| Some((find(offsets)?, find(lengths)?)));
    let (offsets, lengths) = pieces
        .ok_or_else(|| FormatError::Content("a TIFF without strips or tiles in its first directory".to_owned()))?;
    for n in 0..offsets.count.min(lengths.count).min(PIECES_MAX) {
        let end = offsets.value(n).zip(lengths.value(n)).and_then(|(offset, length)| offset.checked_add(length));
        if end.is_none_or(|end| end > bytes.len() as u64) {
            return Err(cut("the image", bytes.len()));
        }
    }
    Ok(())
}

fn cut(what: &str, len: usize) -> FormatError {
    FormatError::Content(format!("a TIFF that is cut off: {what} goes on behind the file's {len} bytes"))
}

/// A TIFF's bytes, byte order, and size of offsets.
#[derive(Clone, Copy)]
pub(crate) struct File<'a> {
    bytes: &'a [u8],
    pub(crate) little_endian: bool,
    big: bool,
}

pub(crate) struct Directory<'a> {
    file: File<'a>,
    /// Where its entries begin.
    at: u64,
    entries: u64,
}

/// The values of a tag.
pub(crate) struct Values<'a> {
    file: File<'a>,
    at: u64,
    width: u64,
    pub(crate) count: u64,
}

impl<'a> File<'a> {
    /// `None`: not a TIFF.
    pub(crate) fn open(bytes: &'a [u8]) -> Option<Self> {
        let little_endian = match bytes.get(..2)? {
            b"II" => true,
            b"MM" => false,
            _ => return None,
        };
        let file = Self { bytes, little_endian, big: false };
        match file.number(2, 2)? {
            42 => Some(file),
            43 => Some(Self { big: true, ..file }),
            _ => None,
        }
    }

    /// The first image's directory. `None`: it does not lie inside the file.
    pub(crate) fn directory(self) -> Option<Directory<'a>> {
        let (at, count_width) = if self.big { (self.number(8, 8)?, 8) } else { (self.number(4, 4)?, 2) };
        let directory =
            Directory { file: self, at: at.checked_add(count_width)?, entries: self.number(at, count_width)? };
        // Behind the entries stands where the next directory lies.
        let next_width = if self.big { 8 } else { 4 };
        let end = directory.entries.checked_mul(directory.entry_bytes())?.checked_add(directory.at + next_width)?;
        (end <= self.bytes.len() as u64).then_some(directory)
    }

    /// An unsigned number of `width` bytes.
    fn number(&self, at: u64, width: u64) -> Option<u64> {
        let (at, width) = (usize::try_from(at).ok()?, usize::try_from(width).ok()?);
        let bytes = self.bytes.get(at..at.checked_add(width)?)?;
        let push = |number: u64, byte: &u8| (number << 8) | u64::from(*byte);
        Some(if self.little_endian { bytes.iter().rev().fold(0, push) } else { bytes.iter().fold(0, push) })
    }
}

impl<'a> Directory<'a> {
    fn entry_bytes(&self) -> u64 {
        if self.file.big { 20 } else { 12 }
    }

    /// Bytes of all arrays that entries point to; `None` when one goes on behind the file's end, or is of no known type.
    /// What reads a directory whole allocates as much.
    #[cfg(feature = "daemon")]
    pub(crate) fn array_bytes(&self) -> Option<u64> {
        let offset_width = if self.file.big { 8 } else { 4 };
        let mut all = 0u64;
        for n in 0..self.entries {
            let entry = self.at + n * self.entry_bytes();
            let width = match self.file.number(entry + 2, 2)? {
                1 | 2 | 6 | 7 => 1,
                3 | 8 => 2,
                4 | 9 | 11 | 13 => 4,
                5 | 10 | 12 | 16 | 17 | 18 => 8,
                _ => return None,
            };
            let bytes = self.file.number(entry + 4, offset_width)?.checked_mul(width)?;
            if bytes > offset_width {
                let end = self.file.number(entry + 4 + offset_width, offset_width)?.checked_add(bytes)?;
                all = (end <= self.file.bytes.len() as u64).then(|| all.checked_add(bytes))??;
            }
        }
        Some(all)
    }

    /// The values of a tag with numbers of 2, 4 or 8 bytes.
    pub(crate) fn find(&self, tag: u16) -> Option<Values<'a>> {
        let entries = (0..self.entries).map(|n| self.at + n * self.entry_bytes());
        let entry = entries.into_iter().find(|at| self.file.number(*at, 2) == Some(u64::from(tag)))?;
        // SHORT, LONG, LONG8.
        let width = match self.file.number(entry + 2, 2)? {
            3 => 2,
            4 => 4,
            16 => 8,
            _ => return None,
        };
        let offset_width = if self.file.big { 8 } else { 4 };
        let (count, field) = (self.file.number(entry + 4, offset_width)?, entry + 4 + offset_width);
        let inside = count.checked_mul(width)? <= offset_width;
        let at = if inside { field } else { self.file.number(field, offset_width)? };
        Some(Values { file: self.file, at, width, count })
    }
}

impl Values<'_> {
    pub(crate) fn value(&self, n: u64) -> Option<u64> {
        self.file.number(n.checked_mul(self.width)?.checked_add(self.at)?, self.width)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{encode_gray8, encode_gray16};
    use super::*;

    fn problem(bytes: &[u8]) -> String {
        check_whole_tiff(bytes).expect_err("not whole").to_string()
    }

    #[test]
    fn what_we_write_is_whole_and_every_prefix_of_it_is_not() {
        let eight = encode_gray8(31, 17, &[7; 31 * 17]).expect("encoded");
        let sixteen = encode_gray16(31, 17, &[7; 31 * 17]).expect("encoded");
        for tiff in [eight, sixteen] {
            check_whole_tiff(&tiff).expect("whole");
            let last = (0..tiff.len()).rev().find(|len| check_whole_tiff(&tiff[..*len]).is_ok());
            assert!(last.is_none(), "{last:?} of {} bytes pass for a whole file", tiff.len());
        }
    }

    #[test]
    fn big_tiff_of_the_other_byte_order_is_read() {
        // Header 16 bytes, one directory of 4 entries, 12 bytes of image in one strip behind it.
        let image_at = 16 + 8 + 4 * 20 + 8u64;
        let mut tiff = b"MM\0\x2b\0\x08\0\0".to_vec();
        tiff.extend(16u64.to_be_bytes());
        tiff.extend(4u64.to_be_bytes());
        for (tag, value) in [(256u16, 4u64), (257, 3), (273, image_at), (279, 12)] {
            tiff.extend(tag.to_be_bytes());
            tiff.extend(16u16.to_be_bytes());
            tiff.extend(1u64.to_be_bytes());
            tiff.extend(value.to_be_bytes());
        }
        tiff.extend([0; 8]);
        tiff.extend([9; 12]);
        check_whole_tiff(&tiff).expect("whole");
        tiff.pop();
        assert_eq!(
            problem(&tiff),
            format!("a TIFF that is cut off: the image goes on behind the file's {} bytes", tiff.len())
        );
    }

    #[test]
    fn strangers_are_named() {
        assert_eq!(problem(b""), "not a TIFF");
        assert_eq!(problem(b"PNG and so on"), "not a TIFF");
        assert!(problem(b"II\x2a\0\xff\xff\xff\xff").contains("its directory"));
        assert!(problem(b"II\x2a\0\x08\0\0\0\0\0\0\0\0\0").contains("without width and height"));
    }
}
