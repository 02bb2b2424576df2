//! Writes an `ImageTileRequest` around an image without copying it: a head, the image, a tail.
//!
//! The layout is one that the FlatBuffers builder could have made with the image first, so any reader takes it.

use super::framing::PREFIX_BYTES;
use crate::model::{Checksum, TileKey};

/// The scalar fields of a request and its checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestFields {
    /// Acquisition, column, row, frame.
    pub key: TileKey,
    /// Camera index.
    pub camera: i32,
    /// Checksum of the image.
    pub checksum: Checksum,
}

/// What goes before the image: prefix, table, checksum and the image's length.
#[derive(Clone, Copy, Debug)]
pub struct FrameHead {
    bytes: [u8; FrameHead::BYTES],
}

/// What goes behind the image: zeros up to the next multiple of 8.
#[derive(Clone, Copy, Debug)]
pub struct FrameTail {
    len: usize,
}

/// Frame layout (offsets behind the prefix): 0 root offset, 4 vtable (18), 24 table (36), 60 checksum length,
/// 64 checksum (room for 32), 108 image length, 112 image.
const VTABLE: usize = 4;
const TABLE: usize = 24;
const CHECKSUM: usize = 60;
const IMAGE: usize = 108;
/// Offsets of acqId, camera, frame, col, row, checksum, image from the table's start; acqId lies at 24 + 8 = 32.
const FIELDS: [u16; 7] = [8, 4, 16, 20, 24, 28, 32];
const TABLE_BYTES: u16 = 36;
const VTABLE_BYTES: u16 = 18;

impl FrameHead {
    /// Length of every head, prefix included.
    pub const BYTES: usize = PREFIX_BYTES + IMAGE + 4;

    /// The head for an image of `image_len` bytes. `None` when prefix or image length do not fit 32 bits.
    #[must_use]
    pub fn new(fields: &RequestFields, image_len: usize) -> Option<Self> {
        let frame_len = u32::try_from(IMAGE + 4 + image_len + FrameTail::new(image_len).bytes().len()).ok()?;
        let image_len = u32::try_from(image_len).ok()?;
        let mut bytes = [0; Self::BYTES];
        let (prefix, frame) = bytes.split_at_mut(PREFIX_BYTES);
        prefix.copy_from_slice(&frame_len.to_le_bytes());
        put_u32(frame, 0, distance(0, TABLE));
        put_u16(frame, VTABLE, VTABLE_BYTES);
        put_u16(frame, VTABLE + 2, TABLE_BYTES);
        let checksum_len = fields.checksum.kind().len();
        for (slot, offset) in FIELDS.into_iter().enumerate() {
            let absent = slot == 5 && checksum_len == 0;
            put_u16(frame, VTABLE + 4 + 2 * slot, if absent { 0 } else { offset });
        }
        put_u32(frame, TABLE, distance(VTABLE, TABLE));
        put_u32(frame, TABLE + 4, fields.camera.cast_unsigned());
        frame[TABLE + 8..TABLE + 16].copy_from_slice(&fields.key.acq.0.to_le_bytes());
        put_u32(frame, TABLE + 16, fields.key.frame.0.cast_unsigned());
        put_u32(frame, TABLE + 20, fields.key.col);
        put_u32(frame, TABLE + 24, fields.key.row);
        put_u32(frame, TABLE + 28, distance(TABLE + 28, CHECKSUM));
        put_u32(frame, TABLE + 32, distance(TABLE + 32, IMAGE));
        put_u32(frame, CHECKSUM, u32::try_from(checksum_len).ok()?);
        frame[CHECKSUM + 4..CHECKSUM + 36].copy_from_slice(&fields.checksum.to_field());
        put_u32(frame, IMAGE, image_len);
        Some(Self { bytes })
    }

    /// The bytes to send before the image.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl FrameTail {
    /// The tail for an image of `image_len` bytes.
    #[must_use]
    pub fn new(image_len: usize) -> Self {
        Self { len: (IMAGE + 4 + image_len).next_multiple_of(8) - (IMAGE + 4 + image_len) }
    }

    /// The bytes to send behind the image: 0 to 7 zeros.
    #[must_use]
    pub fn bytes(&self) -> &'static [u8] {
        &[0; 7][..self.len]
    }
}

/// FlatBuffers names places by their distance.
fn distance(from: usize, to: usize) -> u32 {
    u32::try_from(to - from).expect("the head is a few hundred bytes")
}

fn put_u16(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_le_bytes());
}

fn put_u32(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::super::request::parse_request;
    use super::*;
    use crate::model::{AcqId, FrameNumber};

    #[test]
    fn an_encoded_frame_is_read_back_field_by_field() {
        let checksums = [
            Checksum::None,
            Checksum::Crc32(0xdead_beef),
            Checksum::Md5([7; 16]),
            Checksum::Sha1([8; 20]),
            Checksum::Sha256([9; 32]),
        ];
        for checksum in checksums {
            for image_len in [1usize, 4, 5, 1000, 4099] {
                let key = TileKey { acq: AcqId(u64::MAX), col: 3, row: 70_000, frame: FrameNumber::STABLE };
                let image = vec![0xab; image_len];
                let head = FrameHead::new(&RequestFields { key, camera: 3, checksum }, image_len).expect("fits");
                let wire = [head.bytes(), &image, FrameTail::new(image_len).bytes()].concat();
                let prefix = u32::from_le_bytes(wire[..4].try_into().expect("four bytes"));
                let frame = &wire[4..];
                assert_eq!(prefix as usize, frame.len());
                let request = parse_request(frame).expect("a good frame");
                assert_eq!((request.acq, request.camera, request.frame), (u64::MAX, 3, -1));
                assert_eq!((request.col, request.row), (3, 70_000));
                assert_eq!(&frame[request.image.bounds()], &image[..]);
                assert_eq!(Checksum::from_wire(&frame[request.checksum.bounds()]), Ok(checksum));
            }
        }
    }
}
