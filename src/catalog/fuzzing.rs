//! Streams of frames, control records and manifests of any content: see `crate::fuzzing`.

use super::facts::{encode_control, fact_of_record};
use super::frame::FrameBuffer;
use super::manifest::{ManifestReader, ManifestWriter, manifest_place, sort_for_manifest};
use super::verify::{HashBatch, Verdict, VerifiedTile, VerifyPolicy, verify};
use crate::base::pool::Pool;
use crate::fuzzing::Input;
use crate::index::fuzzing::fold_both_ways;
use crate::journal::{RecordHeader, RecordKind, StoredRecord};
use crate::model::{
    AcqId, ByteRange, Checksum, Fact, FactBody, FrameNumber, Location, Sequence, TileEntry, TileId, TileKey,
    TileVersion,
};
use crate::wire::fuzzing::{checksum, frame};
use crate::wire::{LengthPrefix, PREFIX_BYTES};
use sha1::Digest;
use std::collections::HashMap;
use std::sync::OnceLock;

/// The longest frame that is taken here.
const FRAME_BYTES_MAX: usize = 64 << 10;
const FRAMES_MAX: usize = 16;

/// What came of a stream: each frame, then the length that ended it, if one did.
#[derive(Debug, PartialEq)]
struct Taken {
    frames: Vec<(Vec<u8>, u32)>,
    refused: Option<u32>,
}

/// A connection's bytes: the same frames come of them however they were cut, with the checksums of their bytes; and no
/// tile passes whose checksum does not hold.
pub fn wire_stream(data: &[u8]) {
    let mut input = Input::new(data);
    let stream = if input.flag() { edited_stream(&mut input) } else { input.bytes(20_000).to_vec() };
    let whole = take(&stream, &mut || stream.len().max(1));
    let pieces = take(&stream, &mut || usize::from(input.byte()) % 97 + 1);
    assert_eq!(whole, pieces, "what is read depends on how it was cut");
    for (bytes, crc) in &whole.frames {
        assert_eq!(crc32fast::hash(bytes), *crc);
        check(bytes);
    }
}

fn edited_stream(input: &mut Input<'_>) -> Vec<u8> {
    let mut stream = Vec::new();
    for _ in 0..=input.byte() % 4 {
        let frame = frame(input);
        stream.extend_from_slice(&u32::try_from(frame.len()).expect("short").to_le_bytes());
        stream.extend_from_slice(&frame);
    }
    input.edit(&mut stream);
    stream
}

fn pool() -> &'static Pool {
    static POOL: OnceLock<Pool> = OnceLock::new();
    POOL.get_or_init(|| Pool::new(1 << 20).expect("a small mapping"))
}

fn frame_buffer(len: usize) -> FrameBuffer {
    let buffer = pool().try_reserve(FrameBuffer::buffer_bytes(len)).expect("few at a time");
    FrameBuffer::new(buffer, len, crate::telemetry::Stamp::now())
}

/// Reads a stream in pieces, as a connection does.
fn take(mut stream: &[u8], piece: &mut dyn FnMut() -> usize) -> Taken {
    let mut taken = Taken { frames: Vec::new(), refused: None };
    let mut prefix = LengthPrefix::default();
    while taken.frames.len() < FRAMES_MAX {
        let Some(len) = prefix.complete() else {
            let room = prefix.unfilled();
            let n = piece().min(room.len()).min(stream.len());
            if n == 0 {
                break;
            }
            room[..n].copy_from_slice(&stream[..n]);
            prefix.advance(n);
            stream = &stream[n..];
            continue;
        };
        prefix = LengthPrefix::default();
        if len as usize > FRAME_BYTES_MAX {
            taken.refused = Some(len);
            break;
        }
        let mut frame = frame_buffer(len as usize);
        while frame.missing() > 0 && !stream.is_empty() {
            let room = frame.unfilled(piece());
            let n = room.len().min(stream.len());
            room[..n].copy_from_slice(&stream[..n]);
            frame.advance(n);
            stream = &stream[n..];
        }
        let Ok(frame) = frame.complete() else { break };
        taken.frames.push((frame.bytes().to_vec(), frame.crc));
    }
    taken
}

/// What is verified is what its sender's checksum says.
fn check(bytes: &[u8]) {
    let mut frame = frame_buffer(bytes.len());
    frame.unfilled(bytes.len()).copy_from_slice(bytes);
    frame.advance(bytes.len());
    let frame = frame.complete().map_err(|_| "incomplete").expect("every byte is there");
    let mut asked = None;
    let verdict = verify(frame, VerifyPolicy { require_checksum: bytes.len() % 2 == 1 }, &mut |acq| {
        asked = Some(acq);
        acq.0 % 7 != 6
    });
    match verdict {
        Verdict::Verified(tile) => verified(&tile, bytes, asked),
        Verdict::Pending(tile) => {
            let mut tiles = vec![(tile, ())];
            HashBatch::default().verify(&mut tiles, |tile, ()| {
                if let Ok(tile) = tile {
                    verified(&tile, bytes, asked);
                }
            });
        }
        Verdict::Refused(..) => {}
    }
}

fn verified(tile: &VerifiedTile, bytes: &[u8], asked: Option<AcqId>) {
    assert_eq!(asked, Some(tile.key().acq), "stored to an acquisition that was not asked for");
    let image = tile.image();
    assert!(!image.is_empty() && image == &bytes[tile.image.bounds()]);
    assert_eq!(tile.image_crc, crc32fast::hash(image));
    match tile.checksum {
        Checksum::None => {}
        Checksum::Crc32(crc) => assert_eq!(crc, tile.image_crc),
        Checksum::Md5(digest) => assert_eq!(digest, md5_simd::digest(image)),
        Checksum::Sha1(digest) => assert_eq!(digest[..], sha1::Sha1::digest(image)[..]),
        Checksum::Sha256(digest) => assert_eq!(digest[..], sha2::Sha256::digest(image)[..]),
    }
}

/// Records of any content read as facts: a fact is written as a record that says the same; the index that is folded from
/// them holds in itself.
pub fn facts(data: &[u8]) {
    let mut input = Input::new(data);
    let (mut tiles, mut facts) = (Tiles::default(), Vec::new());
    while !input.is_empty() && facts.len() < 60 {
        let sequence = Sequence(facts.len() as u64 + 1);
        let body = if input.byte().is_multiple_of(3) {
            FactBody::TileStored(tiles.next(&mut input, sequence))
        } else {
            control(&mut input)
        };
        let digest = u64::from(input.byte());
        facts.push(Fact { sequence, at_ns: i64::from(input.byte()), digest, location: Location::default(), body });
    }
    fold_both_ways(&facts);
}

fn control(input: &mut Input<'_>) -> FactBody {
    let kind = RecordKind(0x100 + u16::from(input.byte() % 11));
    let payload = input.bytes(3000);
    let Some(body) = read(kind, payload) else { return FactBody::Unknown { kind: kind.0 } };
    let content = b"content";
    if let Some((kind, written)) = encode_control(&body, content) {
        assert_eq!(read(kind, &written).as_ref(), Some(&body), "what we write we read");
    }
    body
}

fn read(kind: RecordKind, payload: &[u8]) -> Option<FactBody> {
    let header = RecordHeader {
        kind,
        sequence: Sequence(1),
        offset: 4096,
        payload_len: u32::try_from(payload.len()).ok()?,
        payload_crc: 0,
        durable: Sequence(0),
        received_ns: 0,
        tile: None,
    };
    fact_of_record(&StoredRecord { header, segment: 1 }, &mut || Ok(payload.to_vec())).ok().map(|fact| fact.body)
}

/// Tiles as the lanes make them: a key has one id, its versions count from 1.
#[derive(Default)]
struct Tiles(HashMap<TileKey, (TileId, u32)>);

impl Tiles {
    fn next(&mut self, input: &mut Input<'_>, sequence: Sequence) -> TileEntry {
        let key = TileKey {
            acq: AcqId(u64::from(input.byte() % 4)),
            col: u32::from(input.byte() % 16),
            row: if input.byte() % 8 == 7 { u32::MAX } else { u32::from(input.byte() % 70) },
            frame: FrameNumber(if input.flag() { -1 } else { i32::from(input.byte()) }),
        };
        let id = TileId(self.0.len() as u64 + 1);
        let (id, version) = *self.0.entry(key).and_modify(|known| known.1 += 1).or_insert((id, 1));
        entry(input, sequence, key, id, TileVersion(version))
    }
}

fn entry(input: &mut Input<'_>, sequence: Sequence, key: TileKey, id: TileId, version: TileVersion) -> TileEntry {
    TileEntry {
        id,
        key,
        camera: i32::from(input.byte()) - 1,
        version,
        location: Location { segment: 1, offset: 4096, payload_len: 900 },
        image: ByteRange { offset: 112, len: input.word() },
        image_crc: input.word(),
        payload_crc: input.word(),
        checksum: checksum(input),
        received_ns: i64::from(input.byte()),
        sequence,
    }
}

/// Manifests: one that was made is read whole, and with any byte changed, or added, or cut off it is refused; one of any
/// bytes is read only if it is what would have been written.
pub fn manifest(data: &[u8]) {
    let mut input = Input::new(data);
    if !input.flag() {
        return any_manifest(input.rest());
    }
    let (text, tiles) = made(&mut input);
    let (lines, root) = read_manifest(&text).expect("what we write we read");
    assert_eq!((lines.len(), root.0), (tiles, tiles as u64));
    let (at, value) = (input.word() as usize % text.len(), input.byte());
    let mut changed = text.clone();
    changed[at] = value;
    assert!(changed == text || read_manifest(&changed).is_none(), "a changed byte at {at} passes");
    assert!(read_manifest(&text[..at]).is_none(), "cut at {at} it passes");
    assert!(read_manifest(&[text.as_slice(), b"\n"].concat()).is_none(), "with an empty line behind it passes");
}

fn any_manifest(bytes: &[u8]) {
    let Some((lines, _)) = read_manifest(bytes) else { return };
    let length: usize = lines.iter().map(|line| line.len() + 1).sum();
    assert!(length < bytes.len(), "more was read than was there");
}

/// All tile lines, count and root of a manifest that holds.
fn read_manifest(bytes: &[u8]) -> Option<(Vec<String>, (u64, String))> {
    let mut reader = ManifestReader::open(bytes).ok()?;
    let mut lines = Vec::new();
    while let Some((_, line)) = reader.next_tile().ok()? {
        lines.push(line);
    }
    let summary = reader.summary().expect("the end was reached");
    Some((lines, (summary.tiles, summary.root.clone())))
}

fn made(input: &mut Input<'_>) -> (Vec<u8>, usize) {
    let mut entries = Vec::new();
    for n in 0..u64::from(input.byte() % 12) {
        let key = TileKey {
            acq: AcqId(9),
            col: input.word(),
            row: u32::from(input.byte()),
            frame: FrameNumber(i32::from(input.byte()) - 1),
        };
        let version = TileVersion(1 + u32::from(input.byte()));
        entries.push(entry(input, Sequence(n), key, TileId(n + 1), version));
    }
    sort_for_manifest(&mut entries);
    entries.dedup_by_key(|entry| manifest_place(entry));
    let mut writer = ManifestWriter::new(AcqId(9));
    let mut lines = vec![writer.header().to_owned()];
    for entry in &entries {
        lines.push(writer.push(entry));
    }
    lines.push(writer.finish().0);
    ((lines.join("\n") + "\n").into_bytes(), entries.len())
}

const _: () = assert!(PREFIX_BYTES == 4, "edited_stream writes it");
