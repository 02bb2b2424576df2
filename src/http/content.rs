//! A tile's bytes, as they were sent: whole or a range, verified before any of them leaves.

use super::AppState;
use super::answer::{Failure, Path, blocking, number};
use super::peers::Peer;
use super::query::Query;
use super::shapes::{ErrorBody, VerifiedTile, stored_checksum};
use super::share::sending;
use super::tiles::{asked_version, find_by_id, find_by_position, whole};
use crate::catalog::{Catalog, ContentError, TileContent};
use crate::model::{ByteRange, Checksum, ChecksumKind, TileEntry};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use std::sync::Arc;

const REPR_DIGEST: HeaderName = HeaderName::from_static("repr-digest");

/// The content of the stable tile at a place, as it was sent.
#[utoipa::path(get, path = "/service/v1/acquisition/{acqid}/tile/{col}/{row}/content", tag = "tiles",
    params(("acqid" = u64, Path), ("col" = u32, Path), ("row" = u32, Path),
        ("version" = Option<u32>, Query, description = "an earlier version")),
    responses((status = 200, content_type = "image/tiff", body = Vec<u8>),
        (status = 206, content_type = "image/tiff", body = Vec<u8>), (status = 304), (status = 416, body = ErrorBody)))]
pub(super) async fn by_position(
    State(state): State<AppState>,
    Path((acqid, col, row)): Path<(String, String, String)>,
    query: Query,
    peer: Peer,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let entry = find_by_position(&state, &acqid, &col, &row).await?;
    let entry = asked_version(&state, entry, &query).await?;
    serve(&state, entry, peer, &headers).await
}

/// A tile's content, as it was sent.
#[utoipa::path(get, path = "/service/v1/tile/{tileid}/content", tag = "tiles",
    params(("tileid" = u64, Path), ("version" = Option<u32>, Query, description = "an earlier version")),
    responses((status = 200, content_type = "image/tiff", body = Vec<u8>),
        (status = 206, content_type = "image/tiff", body = Vec<u8>), (status = 304), (status = 416, body = ErrorBody)))]
pub(super) async fn by_id(
    State(state): State<AppState>,
    Path(tileid): Path<String>,
    query: Query,
    peer: Peer,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let entry = find_by_id(&state, &tileid).await?;
    let entry = asked_version(&state, entry, &query).await?;
    serve(&state, entry, peer, &headers).await
}

/// What a `Range` header asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Asked {
    Whole,
    Part(ByteRange),
    Unsatisfiable,
}

pub(super) async fn serve(
    state: &AppState,
    entry: TileEntry,
    Peer(peer): Peer,
    headers: &HeaderMap,
) -> Result<Response, Failure> {
    let etag = etag(&entry);
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    if text(header::IF_NONE_MATCH).is_some_and(|tags| matches_tag(tags, &etag)) {
        return Ok((StatusCode::NOT_MODIFIED, [(header::ETAG, etag)]).into_response());
    }
    // A range is only of use to a client whose other parts are of this same content.
    let range = text(header::RANGE).filter(|_| text(header::IF_RANGE).is_none_or(|tag| tag.trim() == etag));
    let asked = range.map_or(Asked::Whole, |range| parse_range(range, entry.image.len));
    let total = entry.image.len;
    let (status, part) = match asked {
        Asked::Whole => (StatusCode::OK, ByteRange { offset: 0, len: total }),
        Asked::Part(part) => (StatusCode::PARTIAL_CONTENT, part),
        Asked::Unsatisfiable => {
            let failure = Failure::new(StatusCode::RANGE_NOT_SATISFIABLE, format!("the tile has {total} bytes"));
            return Ok(([(header::CONTENT_RANGE, format!("bytes */{total}"))], failure).into_response());
        }
    };
    // Readers share a part of the buffers, so that slow ones can not hold up capture.
    let room = state.reading.take(peer, part.len as usize).await?;
    let (content, media_type) = blocking(state, move |catalog| read(catalog, &entry, part)).await?;
    let mut response = Response::new(sending(content, room));
    *response.status_mut() = status;
    let out = response.headers_mut();
    out.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    out.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    insert(out, header::ETAG, &etag);
    insert(out, REPR_DIGEST, &repr_digest(&stored_checksum(&entry)));
    if status == StatusCode::PARTIAL_CONTENT {
        let last = part.offset + part.len - 1;
        insert(out, header::CONTENT_RANGE, &format!("bytes {}-{last}/{total}", part.offset));
    }
    Ok(response)
}

/// Reads a tile's content again, from the store, and computes a checksum of it.
#[utoipa::path(get, path = "/service/v1/verify-tile/{acqid}/tile/{tileid}", tag = "tiles",
    params(("acqid" = u64, Path), ("tileid" = u64, Path),
        ("checksum-algorithm" = Option<String>, Query, description = "MD5 (default), SHA1, CRC32 or SHA256")),
    responses((status = 200, body = VerifiedTile), (status = 417, body = ErrorBody)))]
pub(super) async fn verify_tile(
    State(state): State<AppState>,
    Path((acqid, tileid)): Path<(String, String)>,
    query: Query,
) -> Result<axum::Json<VerifiedTile>, Failure> {
    let acq: u64 = number("acqid", &acqid)?;
    let algorithm = match query.text("checksum-algorithm").unwrap_or("MD5").to_ascii_uppercase().as_str() {
        "MD5" => ChecksumKind::Md5,
        "SHA1" => ChecksumKind::Sha1,
        "CRC32" => ChecksumKind::Crc32,
        "SHA256" => ChecksumKind::Sha256,
        other => {
            let problem = format!("checksum-algorithm \"{other}\" is none of MD5, SHA1, CRC32, SHA256");
            return Err(Failure::bad_request(problem));
        }
    };
    let entry = find_by_id(&state, &tileid).await?;
    if entry.key.acq.0 != acq {
        return Err(Failure::missing(format!("tile {tileid} is not of acquisition {acq}")));
    }
    let calculated = blocking(&state, move |catalog| match catalog.checksum_again(&entry, algorithm) {
        Err(ContentError::Damaged(error)) => Err(Failure::new(StatusCode::EXPECTATION_FAILED, error.to_string())),
        Err(busy) => Err(busy.into()),
        Ok(calculated) if calculated.kind() == entry.checksum.kind() && calculated != entry.checksum => {
            let problem = format!("the content has {calculated}, its sender said {}", entry.checksum);
            Err(Failure::new(StatusCode::EXPECTATION_FAILED, problem))
        }
        Ok(calculated) => Ok(calculated),
    })
    .await?;
    Ok(axum::Json(VerifiedTile { tile: whole(&state, &entry), calculated_checksum: calculated.to_string() }))
}

fn insert(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    headers.insert(name, HeaderValue::from_str(value).expect("made of hex, base64 and digits"));
}

fn read(
    catalog: &Arc<Catalog>,
    entry: &TileEntry,
    part: ByteRange,
) -> Result<(TileContent, &'static str), ContentError> {
    let content = catalog.read_image(entry, part)?;
    let media_type = media_type(&content.head()[..content.head().len().min(entry.image.len as usize)]);
    Ok((content, media_type))
}

/// What the content is, by its first bytes.
pub(super) fn media_type(bytes: &[u8]) -> &'static str {
    match bytes {
        [b'I', b'I', 42 | 43, 0, ..] | [b'M', b'M', 0, 42 | 43, ..] => "image/tiff",
        [0x89, b'P', b'N', b'G', ..] => "image/png",
        [0xff, 0xd8, 0xff, ..] => "image/jpeg",
        _ => "application/octet-stream",
    }
}

/// A strong tag: names the content by its checksum, and its version where the checksum is only a CRC.
fn etag(entry: &TileEntry) -> String {
    let checksum = stored_checksum(entry);
    let kind = checksum.kind();
    if kind.identifies_content() {
        format!("\"{}-{checksum}\"", kind.name())
    } else {
        format!("\"{}-{checksum}-{}-{}-{}\"", kind.name(), entry.image.len, entry.id, entry.version.0)
    }
}

pub(super) fn matches_tag(tags: &str, etag: &str) -> bool {
    tags.split(',').map(str::trim).any(|tag| tag == "*" || tag.trim_start_matches("W/") == etag)
}

/// RFC 9530. `crc32` is not registered there; a client that does not know it ignores it.
fn repr_digest(checksum: &Checksum) -> String {
    let (name, bytes) = match checksum {
        Checksum::None => ("crc32", Vec::new()),
        Checksum::Crc32(crc) => ("crc32", crc.to_be_bytes().to_vec()),
        Checksum::Md5(digest) => ("md5", digest.to_vec()),
        Checksum::Sha1(digest) => ("sha", digest.to_vec()),
        Checksum::Sha256(digest) => ("sha-256", digest.to_vec()),
    };
    format!("{name}=:{}:", base64::engine::general_purpose::STANDARD.encode(bytes))
}

/// One byte range; several, or another unit, mean the whole (RFC 9110 lets a server ignore them).
pub(super) fn parse_range(text: &str, total: u32) -> Asked {
    let Some((first, last)) = text.trim().strip_prefix("bytes=").and_then(|range| range.split_once('-')) else {
        return Asked::Whole;
    };
    let number = |text: &str| text.trim().parse::<u64>();
    let total = u64::from(total);
    let (start, end) = match (number(first), number(last)) {
        (Ok(start), Ok(last)) if start <= last => (start, last.saturating_add(1).min(total)),
        (Ok(start), Err(_)) if last.trim().is_empty() => (start, total),
        (Err(_), Ok(count)) if first.trim().is_empty() => (total - count.min(total), total),
        _ => return Asked::Whole,
    };
    match (u32::try_from(start), u32::try_from(end.saturating_sub(start))) {
        (Ok(offset), Ok(len)) if len > 0 => Asked::Part(ByteRange { offset, len }),
        _ => Asked::Unsatisfiable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_follow_rfc_9110() {
        let part = |offset, len| Asked::Part(ByteRange { offset, len });
        for (text, asked) in [
            ("bytes=0-9", part(0, 10)),
            ("bytes=90-200", part(90, 10)),
            ("bytes=95-", part(95, 5)),
            ("bytes=-7", part(93, 7)),
            ("bytes=-700", part(0, 100)),
            ("bytes=100-", Asked::Unsatisfiable),
            ("bytes=-0", Asked::Unsatisfiable),
            ("bytes=5-4", Asked::Whole),
            ("bytes=0-1,5-6", Asked::Whole),
            ("lines=1-2", Asked::Whole),
            ("bytes=18446744073709551615-", Asked::Unsatisfiable),
            ("bytes=90-18446744073709551615", part(90, 10)),
        ] {
            assert_eq!(parse_range(text, 100), asked, "{text}");
        }
    }

    #[test]
    fn a_tag_list_is_searched() {
        assert!(matches_tag("\"a\", W/\"md5-00\"", "\"md5-00\""));
        assert!(matches_tag("*", "\"x\""));
        assert!(!matches_tag("\"md5-01\"", "\"md5-00\""));
    }
}
