//! Requests of any bytes, as far as reading them is ours: see `crate::fuzzing`.

use super::answer::Failure;
use super::content::{Asked, matches_tag, media_type, parse_range};
use super::parts::{self, Part};
use super::query::{LENGTH_DEFAULT, Query};
use super::states::{LEASE_S_MAX, StateChange, TILES_MAX, read_ask, read_json};
use super::tiles::TileFilter;
use super::{answer, capture, files};
use crate::formats::TileName;
use crate::fuzzing::Input;
use crate::model::{Checksum, TileSpecId};
use axum::body::Body;
use axum::extract::Request;
use axum::http::header;
use bytes::Bytes;
use std::convert::Infallible;

/// Parameters in a query or form: what is read of them is within its limits.
pub fn http_query(data: &[u8]) {
    let query = Query::parse(data);
    let known = |failure: Failure| assert!(failure.message().len() < data.len() * 3 + 300, "{}", failure.message());
    if let Err(failure) = read_page(&query).and_then(|()| read_tiles(&query)).and_then(|()| read_lease(&query)) {
        known(failure);
    }
    let mut other = Query::parse(b"col=1&row=2");
    other.add(Query::parse(data));
    assert_eq!((other.text("col"), other.text("row")), (Some("1"), Some("2")), "what was said first counts");
}

fn read_page(query: &Query) -> Result<(), Failure> {
    let page = query.page(5000)?;
    assert!(page.length <= 5000);
    if query.text("length").is_none() {
        assert_eq!(page.length, LENGTH_DEFAULT);
    }
    Ok(())
}

fn read_tiles(query: &Query) -> Result<(), Failure> {
    let filter = TileFilter::read(query)?;
    if let Some((from, to)) = filter.received {
        assert!(from <= to, "a span that ends before it begins");
    }
    Ok(())
}

fn read_lease(query: &Query) -> Result<(), Failure> {
    let ask = read_ask(Some(60), query)?;
    assert!((1..=TILES_MAX).contains(&ask.limit));
    assert!(ask.lease_s.is_none_or(|lease| (1..=LEASE_S_MAX).contains(&lease)));
    assert!(ask.section.is_none_or(|section| section >= 0));
    let (from, to) = (ask.of.acquired_from_s, ask.of.acquired_to_s);
    assert!(from.zip(to).is_none_or(|(from, to)| from <= to));
    Ok(())
}

/// Single values of paths, headers and bodies: what is read is written as a value that reads the same.
pub fn http_values(data: &[u8]) {
    let mut input = Input::new(data);
    let (kind, total) = (input.byte(), input.word());
    let bytes = input.rest();
    let text = String::from_utf8_lossy(bytes);
    match kind % 8 {
        0 => range(&text, total),
        1 => tags(&text),
        2 => hex(&text),
        3 => tile_name(&text),
        4 => tile_spec_id(&text),
        5 => drop(read_json::<StateChange>(bytes)),
        6 => path_part(&text),
        _ => drop((media_type(bytes), answer::number::<u64>("acqid", &text), answer::number::<i32>("camera", &text))),
    }
}

fn range(text: &str, total: u32) {
    if let Asked::Part(part) = parse_range(text, total) {
        assert!(part.len > 0 && u64::from(part.offset) + u64::from(part.len) <= u64::from(total), "{text}: {part:?}");
        let same = format!("bytes={}-{}", part.offset, part.offset + (part.len - 1));
        assert_eq!(parse_range(&same, total), Asked::Part(part), "{text}");
    }
}

fn tags(text: &str) {
    let tag = "\"md5-00112233445566778899aabbccddeeff\"";
    let alone = matches_tag(text, tag);
    assert!(matches_tag(&format!("{text},{tag}"), tag), "{text}");
    assert_eq!(matches_tag(&format!("{text}, \"other\""), tag), alone, "{text}");
}

fn hex(text: &str) {
    if let Ok(checksum) = capture::parse_hex(text) {
        assert_eq!(checksum.to_string(), text.to_ascii_lowercase());
        assert_eq!(Checksum::from_wire(&checksum.to_wire()), Ok(checksum));
    }
}

fn tile_name(text: &str) {
    if let Ok(name) = text.parse::<TileName>() {
        assert_eq!(name.to_string().parse::<TileName>().expect("what we write we read"), name);
    }
}

fn tile_spec_id(text: &str) {
    if let Ok(id) = text.parse::<TileSpecId>() {
        assert_eq!(id.to_string().parse(), Ok(id));
    }
}

fn path_part(text: &str) {
    let escaped = files::escaped(text);
    assert!(escaped.bytes().all(|byte| byte.is_ascii_graphic() && !b"/?#\"<>".contains(&byte)), "{escaped}");
}

/// A multipart body, in pieces: whole parts of it come back as they were sent, and never more bytes than came.
pub fn multipart(data: &[u8]) {
    let mut input = Input::new(data);
    let (is_made, piece) = (input.flag(), usize::from(input.byte()) + 1);
    let sent: Vec<Part> = if is_made { made_parts(&mut input) } else { Vec::new() };
    let body = if is_made { written(&sent) } else { input.rest().to_vec() };
    let read = read(&body, piece);
    if !is_made {
        let held = read.iter().flatten().map(|part| part.bytes.len() + part.name.len()).sum::<usize>();
        assert!(held <= body.len());
        return;
    }
    let read = read.expect("a good body");
    assert_eq!(read.len(), sent.len());
    for (read, sent) in read.iter().zip(&sent) {
        assert_eq!((&read.name, &read.file_name, &read.bytes), (&sent.name, &sent.file_name, &sent.bytes));
    }
}

const BOUNDARY: &str = "fuzz-8f1e";

fn made_parts(input: &mut Input<'_>) -> Vec<Part> {
    let word =
        |input: &mut Input<'_>| -> String { input.bytes(12).iter().map(|byte| char::from(b'a' + byte % 26)).collect() };
    let mut parts = Vec::new();
    while !input.is_empty() && parts.len() < 20 {
        let name = word(input);
        let file_name = input.flag().then(|| word(input));
        let bytes = input.bytes(700).to_vec();
        // A line of the content that is the boundary would end the part.
        if !bytes.windows(BOUNDARY.len()).any(|run| run == BOUNDARY.as_bytes()) {
            parts.push(Part { name, file_name, bytes });
        }
    }
    parts
}

fn written(parts: &[Part]) -> Vec<u8> {
    let mut body = Vec::new();
    for part in parts {
        let file = part.file_name.as_ref().map_or(String::new(), |file| format!("; filename=\"{file}\""));
        let head = format!("--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"{}\"{file}\r\n\r\n", part.name);
        body.extend_from_slice(head.as_bytes());
        body.extend_from_slice(&part.bytes);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(format!("--{BOUNDARY}--\r\n").as_bytes());
    body
}

fn read(body: &[u8], piece: usize) -> Option<Vec<Part>> {
    thread_local! {
        static RUNTIME: tokio::runtime::Runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .expect("a runtime without I/O");
    }
    let pieces: Vec<Result<Bytes, Infallible>> =
        body.chunks(piece).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
    let request = Request::builder()
        .header(header::CONTENT_TYPE, format!("multipart/form-data; boundary={BOUNDARY}"))
        .body(Body::from_stream(futures_util::stream::iter(pieces)))
        .expect("a request");
    assert!(parts::is_multipart(request.headers()));
    RUNTIME.with(|runtime| runtime.block_on(parts::read_all(request))).ok().map(|parts| parts.0)
}
