//! Reads an `ImageTileRequest`: verifies the FlatBuffers structure and says where its parts lie.

use super::generated::idls::tilerequests::ImageTileRequest;
use crate::model::ByteRange;
use flatbuffers::VerifierOptions;

/// A verified request's fields, copied out once; checksum and image as ranges of the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParsedRequest {
    /// Acquisition.
    pub acq: u64,
    /// Camera index.
    pub camera: i32,
    /// -1 for a stable tile.
    pub frame: i32,
    /// Column.
    pub col: i32,
    /// Row.
    pub row: i32,
    /// The sender's checksum; length 0 when absent.
    pub checksum: ByteRange,
    /// The image's bytes.
    pub image: ByteRange,
}

/// Why a frame is not a request.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum BadRequest {
    /// The verifier found damage.
    #[error("not an ImageTileRequest: {0}")]
    Structure(String),
    /// The image is absent or has no bytes.
    #[error("the request carries no image")]
    NoImage,
}

/// Verifies and reads a frame (without its length prefix).
///
/// # Errors
/// Damaged structure, no image.
pub fn parse_request(frame: &[u8]) -> Result<ParsedRequest, BadRequest> {
    let request = flatbuffers::root_with_opts::<ImageTileRequest>(&verifier_options(frame), frame)
        .map_err(|error| BadRequest::Structure(first_line(&error.to_string())))?;
    let image = request.image().map(|image| range_in(frame, image.bytes())).unwrap_or_default();
    if image.len == 0 {
        return Err(BadRequest::NoImage);
    }
    Ok(ParsedRequest {
        acq: request.acqId(),
        camera: request.camera(),
        frame: request.frame(),
        col: request.col(),
        row: request.row(),
        checksum: request.checksum().map(|checksum| range_in(frame, checksum.bytes())).unwrap_or_default(),
        image,
    })
}

/// One table, depth 1: the crate's own defaults (a million tables, 2 GiB) invite work by hostile frames.
pub(super) fn verifier_options(frame: &[u8]) -> VerifierOptions {
    VerifierOptions {
        max_depth: 4,
        max_tables: 4,
        max_apparent_size: frame.len() + 4096,
        ignore_missing_null_terminator: false,
    }
}

/// Where `part` lies in `whole`. `part` is a view into `whole`, as the verifier has shown.
fn range_in(whole: &[u8], part: &[u8]) -> ByteRange {
    let offset = part.as_ptr().addr() - whole.as_ptr().addr();
    debug_assert!(offset + part.len() <= whole.len());
    let narrow = |n: usize| u32::try_from(n).expect("frames are shorter than 4 GiB: the prefix is a u32");
    ByteRange { offset: narrow(offset), len: narrow(part.len()) }
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::super::generated::idls::tilerequests::ImageTileRequestArgs;
    use super::*;
    use flatbuffers::FlatBufferBuilder;

    /// A frame as the legacy senders build it: image first, then checksum, defaults left out.
    fn legacy_frame(image: &[u8], checksum: Option<&[u8]>, col: i32) -> Vec<u8> {
        let mut builder = FlatBufferBuilder::new();
        let image = builder.create_vector(image);
        let checksum = checksum.map(|checksum| builder.create_vector(checksum));
        let args = ImageTileRequestArgs { acqId: 7, camera: 0, frame: -1, col, row: 0, checksum, image: Some(image) };
        let root = ImageTileRequest::create(&mut builder, &args);
        builder.finish(root, None);
        builder.finished_data().to_vec()
    }

    #[test]
    fn reads_a_legacy_frame_in_place() {
        let frame = legacy_frame(b"image bytes", Some(&[9; 16]), 3);
        let request = parse_request(&frame).expect("a good frame");
        assert_eq!((request.acq, request.camera, request.frame, request.col, request.row), (7, 0, -1, 3, 0));
        assert_eq!(&frame[request.image.bounds()], b"image bytes");
        assert_eq!(&frame[request.checksum.bounds()], &[9; 16]);
    }

    #[test]
    fn absent_checksum_is_an_empty_range_and_absent_image_is_refused() {
        let request = parse_request(&legacy_frame(b"x", None, 0)).expect("a good frame");
        assert_eq!(request.checksum.len, 0);
        assert_eq!(parse_request(&legacy_frame(b"", None, 0)), Err(BadRequest::NoImage));
    }

    #[test]
    fn garbage_and_truncation_are_refused_without_panic() {
        let frame = legacy_frame(&[5; 300], Some(&[1; 4]), 1);
        for len in 0..frame.len() - 8 {
            assert!(parse_request(&frame[..len]).is_err(), "accepted the first {len} bytes");
        }
        assert!(parse_request(&[0xff; 64]).is_err());
        assert!(parse_request(&[0; 64]).is_err());
    }

    proptest::proptest! {
        #[test]
        fn any_damage_is_answered_not_panicked_on(position in 0usize..400, value: u8) {
            let mut frame = legacy_frame(&[5; 300], Some(&[1; 16]), 1);
            let position = position % frame.len();
            frame[position] = value;
            if let Ok(request) = parse_request(&frame) {
                proptest::prop_assert!(request.image.bounds().end <= frame.len());
                proptest::prop_assert!(request.checksum.bounds().end <= frame.len());
            }
        }
    }
}
