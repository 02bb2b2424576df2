//! Requests and responses of any bytes: see `crate::fuzzing`.

use super::{
    FrameHead, FrameTail, PREFIX_BYTES, ParsedRequest, RequestFields, Response, encode_response, parse_request,
    parse_response,
};
use crate::fuzzing::{Input, aligned};
use crate::model::{AcqId, Checksum, FrameNumber, Pressure, TileId, TileKey};

/// A frame as a server reads it: what is read lies inside the frame, and a frame that is made of it reads the same.
pub fn wire_request(data: &[u8]) {
    let mut input = Input::new(data);
    let frame = if input.flag() { edited_frame(input) } else { input.rest().to_vec() };
    let buffer = aligned(&frame);
    let frame = &buffer[..frame.len()];
    let Ok(request) = parse_request(frame) else { return };
    assert!(request.image.len > 0 && request.image.bounds().end <= frame.len());
    assert!(request.checksum.bounds().end <= frame.len());
    read_again(&request, frame);
}

/// A good frame with a few bytes changed.
fn edited_frame(mut input: Input<'_>) -> Vec<u8> {
    let mut frame = frame(&mut input);
    input.edit(&mut frame);
    let cut = usize::from(input.byte());
    frame.truncate(frame.len().saturating_sub(cut));
    frame
}

/// A good frame, without its prefix.
pub(crate) fn frame(input: &mut Input<'_>) -> Vec<u8> {
    let key = TileKey {
        acq: AcqId(input.wide()),
        col: input.word(),
        row: input.word(),
        frame: FrameNumber(input.word().cast_signed()),
    };
    let (camera, checksum) = (i32::from(input.byte()), checksum(input));
    let image = input.bytes(2000);
    let head = FrameHead::new(&RequestFields { key, camera, checksum }, image.len()).expect("short");
    [&head.bytes()[PREFIX_BYTES..], image, FrameTail::new(image.len()).bytes()].concat()
}

pub(crate) fn checksum(input: &mut Input<'_>) -> Checksum {
    let digit = input.byte();
    match digit % 5 {
        0 => Checksum::None,
        1 => Checksum::Crc32(input.word()),
        2 => Checksum::Md5([digit; 16]),
        3 => Checksum::Sha1([digit; 20]),
        _ => Checksum::Sha256([digit; 32]),
    }
}

fn read_again(request: &ParsedRequest, frame: &[u8]) {
    let Ok(key) = TileKey::from_wire(AcqId(request.acq), request.col, request.row, request.frame) else { return };
    let Ok(checksum) = Checksum::from_wire(&frame[request.checksum.bounds()]) else { return };
    let image = &frame[request.image.bounds()];
    let fields = RequestFields { key, camera: request.camera, checksum };
    let head = FrameHead::new(&fields, image.len()).expect("shorter than the frame it came from");
    let made = [head.bytes(), image, FrameTail::new(image.len()).bytes()].concat();
    let (prefix, made) = made.split_at(PREFIX_BYTES);
    assert_eq!(prefix, u32::try_from(made.len()).expect("short").to_le_bytes());
    let buffer = aligned(made);
    let again = parse_request(&buffer[..made.len()]).expect("what we make we read");
    assert_eq!(&made[again.image.bounds()], image);
    assert_eq!(Checksum::from_wire(&made[again.checksum.bounds()]), Ok(checksum));
    let fields = |request: &ParsedRequest| (request.acq, request.camera, request.frame, request.col, request.row);
    assert_eq!(fields(&again), fields(request));
}

/// A response as a client reads it: what was read is written and read again as the same.
pub fn wire_response(data: &[u8]) {
    let mut input = Input::new(data);
    let body = if input.flag() { edited_response(input) } else { input.rest().to_vec() };
    let buffer = aligned(&body);
    let Some(response) = parse_response(&buffer[..body.len()]) else { return };
    let written = encode_response(&response);
    let again = aligned(&written[PREFIX_BYTES..]);
    assert_eq!(parse_response(&again[..written.len() - PREFIX_BYTES]), Some(response));
}

fn edited_response(mut input: Input<'_>) -> Vec<u8> {
    let mut pressure = || Pressure::from_code(input.byte());
    let (system, tile_queue, content_queue) = (pressure(), pressure(), pressure());
    let response = Response {
        acq: input.wide(),
        tile: TileId(input.wide()),
        status: input.short().cast_signed(),
        system,
        tile_queue,
        content_queue,
    };
    let mut body = encode_response(&response)[PREFIX_BYTES..].to_vec();
    input.edit(&mut body);
    body
}
