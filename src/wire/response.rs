//! Writes and reads an `ImageTileResponse`. Every response has the same 60-byte shape, prefix included, so
//! that writing one is filling in numbers: no builder, no allocation.

use super::framing::PREFIX_BYTES;
use super::generated::idls::tilerequests::ImageTileResponse;
use super::request::verifier_options;
use crate::model::{Pressure, TileId};

/// The answer to one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Response {
    /// The request's acquisition.
    pub acq: u64,
    /// The stored tile; [`TileId::NONE`] on a refusal.
    pub tile: TileId,
    /// 0 accepted, else a [`crate::model::Refusal::status`].
    pub status: i16,
    /// The worst of the others, RED on a refusal.
    pub system: Pressure,
    /// How full the index' queue is.
    pub tile_queue: Pressure,
    /// How full the content store's queues and buffers are.
    pub content_queue: Pressure,
}

/// Length of an encoded response with its prefix.
pub const RESPONSE_BYTES: usize = PREFIX_BYTES + BODY;

/// Body layout, offsets in bytes: 0 root offset, 4 vtable (16) with its field offsets, 20 padding, 24 table.
const BODY: usize = 56;
const VTABLE: usize = 4;
const TABLE: usize = 24;
/// The same as written: body length, root offset, distance from the table back to its vtable.
const BODY_FIELD: u32 = 56;
const TABLE_FIELD: u32 = 24;
const VTABLE_FIELD: i32 = 20;
const _: () = assert!(BODY_FIELD as usize == BODY && TABLE_FIELD as usize == TABLE);
/// Offsets of the six fields from the table's start: two 8-byte numbers, then four shorts. The table's own
/// start lies at 24, so the 8-byte numbers at 32 and 40 are aligned.
const FIELDS: [u16; 6] = [8, 16, 24, 26, 28, 30];
const TABLE_BYTES: u16 = 32;
const VTABLE_BYTES: u16 = 16;

/// The response with its length prefix, ready for one write.
#[must_use]
pub fn encode_response(response: &Response) -> [u8; RESPONSE_BYTES] {
    let mut out = [0; RESPONSE_BYTES];
    let (prefix, body) = out.split_at_mut(PREFIX_BYTES);
    prefix.copy_from_slice(&BODY_FIELD.to_le_bytes());
    body[..4].copy_from_slice(&TABLE_FIELD.to_le_bytes());
    body[VTABLE..VTABLE + 2].copy_from_slice(&VTABLE_BYTES.to_le_bytes());
    body[VTABLE + 2..VTABLE + 4].copy_from_slice(&TABLE_BYTES.to_le_bytes());
    for (slot, offset) in FIELDS.iter().enumerate() {
        let at = VTABLE + 4 + 2 * slot;
        body[at..at + 2].copy_from_slice(&offset.to_le_bytes());
    }
    let table = &mut body[TABLE..];
    table[..4].copy_from_slice(&VTABLE_FIELD.to_le_bytes());
    table[8..16].copy_from_slice(&response.acq.to_le_bytes());
    table[16..24].copy_from_slice(&response.tile.0.to_le_bytes());
    let shorts = [response.status, response.system.code(), response.tile_queue.code(), response.content_queue.code()];
    for (short, at) in shorts.iter().zip([24, 26, 28, 30]) {
        table[at..at + 2].copy_from_slice(&short.to_le_bytes());
    }
    out
}

/// Reads a response body (without its prefix). `None` when it is not one.
#[must_use]
pub fn parse_response(body: &[u8]) -> Option<Response> {
    let response = flatbuffers::root_with_opts::<ImageTileResponse>(&verifier_options(body), body).ok()?;
    let pressure = |code: i16| Pressure::from_code(u8::try_from(code).unwrap_or(u8::MAX));
    Some(Response {
        acq: response.acqId(),
        tile: TileId(u64::try_from(response.tileId()).ok()?),
        status: response.status(),
        system: pressure(response.systemStatus()),
        tile_queue: pressure(response.tileQueueStatus()),
        content_queue: pressure(response.contentQueueStatus()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_is_what_a_flatbuffers_reader_sees() {
        let response = Response {
            acq: 150_304_104_649,
            tile: TileId(TileId::LIMIT - 1),
            status: 2,
            system: Pressure::Red,
            tile_queue: Pressure::Green,
            content_queue: Pressure::Yellow,
        };
        let bytes = encode_response(&response);
        assert_eq!(bytes[..4], 56u32.to_le_bytes());
        assert_eq!(parse_response(&bytes[4..]), Some(response));
    }

    #[test]
    fn a_damaged_response_is_not_read() {
        assert_eq!(parse_response(&[0xff; BODY]), None);
        assert_eq!(parse_response(&[]), None);
    }
}
