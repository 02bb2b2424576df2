//! Images of tiles and of whole mosaics, PNG: made by the preview threads, or at hand.
//!
//! A browser keeps what it has and asks whether it still holds (ETag). Must never make an image on a thread of its own.

use super::AppState;
use super::acquisitions::find;
use super::answer::{Failure, Path, blocking, number};
use super::content::matches_tag;
use super::peers::Peer;
use super::query::Query;
use super::shapes::ErrorBody;
use super::share::{Room, sending};
use super::tiles::{find_by_id, find_by_position};
use crate::index::AcquisitionView;
use crate::model::{AcqId, TileEntry};
use crate::pixels::{Contrast, Region, SIDE_MAX};
use crate::preview::{Ask, At, LEVEL_MAX, Layer, Preview, PreviewError, tile_ask};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use std::sync::Arc;

/// A browser may keep an image, and asks each time whether it is still the one.
const KEEP: HeaderValue = HeaderValue::from_static("private, no-cache");

impl From<PreviewError> for Failure {
    fn from(error: PreviewError) -> Self {
        let status = match &error {
            PreviewError::Off | PreviewError::Busy(_) => StatusCode::SERVICE_UNAVAILABLE,
            PreviewError::Missing(_) => StatusCode::NOT_FOUND,
            PreviewError::Refused(_) => StatusCode::UNPROCESSABLE_ENTITY,
            PreviewError::Invalid(_) => StatusCode::BAD_REQUEST,
            PreviewError::Storage(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::new(status, error.to_string())
    }
}

/// A tile as PNG, 8 bit grey.
#[utoipa::path(get, path = "/api/v1/tiles/{tileid}/image", tag = "api v1",
    params(("tileid" = u64, Path), ("size" = Option<u32>, Query), ("region" = Option<String>, Query),
        ("contrast" = Option<String>, Query)),
    responses((status = 200, content_type = "image/png", body = Vec<u8>), (status = 304),
        (status = 422, body = ErrorBody, description = "The content is no grey TIFF that can be shown")))]
pub(super) async fn image_by_id(
    State(state): State<AppState>,
    Path(tileid): Path<String>,
    query: Query,
    peer: Peer,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let wanted = Wanted::read(&query)?;
    let entry = find_by_id(&state, &tileid).await?;
    image(&state, &entry, wanted, peer, &headers).await
}

/// The stable tile at a place as PNG, 8 bit grey.
#[utoipa::path(get, path = "/api/v1/acquisitions/{acqid}/tile/{col}/{row}/image", tag = "api v1",
    params(("acqid" = u64, Path), ("col" = u32, Path), ("row" = u32, Path), ("size" = Option<u32>, Query),
        ("region" = Option<String>, Query), ("contrast" = Option<String>, Query)),
    responses((status = 200, content_type = "image/png", body = Vec<u8>), (status = 304),
        (status = 422, body = ErrorBody, description = "The content is no grey TIFF that can be shown")))]
pub(super) async fn image_by_place(
    State(state): State<AppState>,
    Path((acqid, col, row)): Path<(String, String, String)>,
    query: Query,
    peer: Peer,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let wanted = Wanted::read(&query)?;
    let entry = find_by_position(&state, &acqid, &col, &row).await?;
    image(&state, &entry, wanted, peer, &headers).await
}

/// 2^level x 2^level places of a mosaic as PNG of 256 x 256 pixels, transparent where no tile is. Tiles are stretched to
/// squares, so that neighbours meet.
#[utoipa::path(get, path = "/api/v1/acquisitions/{acqid}/thumbnails/{level}/{x}/{y}", tag = "api v1",
    params(("acqid" = u64, Path), ("level" = u32, Path), ("x" = u32, Path), ("y" = u32, Path),
        ("section" = Option<i64>, Query), ("camera" = Option<i32>, Query)),
    responses((status = 200, content_type = "image/png", body = Vec<u8>), (status = 304),
        (status = 422, body = ErrorBody, description = "The one tile is no grey TIFF that can be shown")))]
pub(super) async fn thumbnail(
    State(state): State<AppState>,
    Path((acqid, level, x, y)): Path<(String, String, String, String)>,
    query: Query,
    peer: Peer,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let acq = AcqId(number("acqid", &acqid)?);
    let (level, x, y) = (number::<u8>("level", &level)?, number("x", &x)?, number("y", &y)?);
    if level > LEVEL_MAX {
        return Err(Failure::bad_request(format!("level {level}: at most {LEVEL_MAX}")));
    }
    let section = query.number::<i64>("section")?.filter(|section| *section >= 0);
    let layer = Layer { acq, section, camera: query.number("camera")? };
    if !may_have_tiles(&find(&state, acq)?, &layer) {
        return Err(Failure::missing("no tile is stored there"));
    }
    let ask = Ask::Thumbnail { layer, at: At { level, x, y } };
    let previews = Arc::clone(&state.previews);
    let at_hand = blocking(&state, move |_| Ok::<_, Failure>(previews.at_hand(&ask))).await?;
    let preview = match at_hand {
        Some(preview) => preview,
        None => state.previews.make(ask).await?,
    };
    if has(&headers, &preview.etag) {
        return Ok(unchanged(&preview.etag));
    }
    let room = state.showing.take(peer.0, preview.png.len()).await?;
    Ok(respond(preview, room))
}

/// False when the acquisition is known to have no such section or camera: then no tile need be looked at.
fn may_have_tiles(view: &AcquisitionView, layer: &Layer) -> bool {
    let has_section = |section| view.head.rois.iter().any(|roi| roi.section == section);
    let counters = &view.counters;
    // A version that replaced another may be of another camera, and those of high numbers are counted as one.
    let counted: u64 = counters.cameras.values().flatten().sum();
    let are_known = counters.replaced == 0 && counted == counters.tiles && !counters.cameras.contains_key(&-1);
    let has_camera = |camera| !are_known || counters.cameras.contains_key(&camera);
    layer.section.is_none_or(has_section) && layer.camera.is_none_or(has_camera)
}

/// What of a tile is asked for.
#[derive(Clone, Copy)]
struct Wanted {
    region: Option<Region>,
    size: Option<u32>,
    contrast: Option<Contrast>,
}

impl Wanted {
    fn read(query: &Query) -> Result<Self, Failure> {
        let size = query.number("size")?;
        if size.is_some_and(|size| size == 0 || size > SIDE_MAX) {
            return Err(Failure::bad_request(format!("size: 1 to {SIDE_MAX} pixels")));
        }
        let contrast = query.text("contrast").map(str::parse).transpose();
        let contrast = contrast.map_err(|error| Failure::bad_request(format!("contrast {error}")))?;
        let region = query.text("region").map(|text| {
            let wrong = || format!("region \"{text}\" is not x,y,width,height such as 0,0,256,256");
            read_region(text).ok_or_else(|| Failure::bad_request(wrong()))
        });
        Ok(Self { region: region.transpose()?, size, contrast })
    }

    /// About how large the image will be: hardly more than it has pixels, or than the content has bytes.
    fn bytes(&self, entry: &TileEntry) -> usize {
        let pixels = |width: u32, height: u32| u64::from(width) * u64::from(height);
        let region = self.region.map_or(u64::MAX, |region| pixels(region.width, region.height));
        let size = self.size.map_or(u64::MAX, |side| pixels(side, side));
        usize::try_from(region.min(size).min(entry.image.len.into())).unwrap_or(usize::MAX)
    }

    /// Which content, and how it is shown.
    fn etag(&self, entry: &TileEntry) -> String {
        let contrast = self.contrast.map_or_else(|| "usual".to_owned(), |contrast| contrast.to_string());
        let Region { x, y, width, height } = self.region.unwrap_or(Region::whole(0, 0));
        let (id, version, size) = (entry.id, entry.version.0, self.size.unwrap_or(0));
        format!("\"{id}-{version}-{:08x}-{size}-{x}.{y}.{width}.{height}-{contrast}\"", entry.image_crc)
    }
}

fn read_region(text: &str) -> Option<Region> {
    let numbers: Option<Vec<u32>> = text.split(',').map(|number| number.parse().ok()).collect();
    match numbers?.as_slice() {
        &[x, y, width, height] if width > 0 && height > 0 => Some(Region { x, y, width, height }),
        _ => None,
    }
}

async fn image(
    state: &AppState,
    entry: &TileEntry,
    wanted: Wanted,
    Peer(peer): Peer,
    headers: &HeaderMap,
) -> Result<Response, Failure> {
    let etag = wanted.etag(entry);
    if has(headers, &etag) {
        return Ok(unchanged(&etag));
    }
    // Taken first: whole images are large, and those who wait for room must not hold one meanwhile.
    let room = state.showing.take(peer, wanted.bytes(entry)).await?;
    let made = state.previews.make(tile_ask(entry, wanted.region, wanted.size, wanted.contrast)).await?;
    let room = state.showing.resize(peer, room, made.png.len()).await?;
    Ok(respond(Preview { etag, ..made }, room))
}

fn respond(preview: Preview, room: Room) -> Response {
    let mut response = Response::new(sending(preview.png, room));
    let out = response.headers_mut();
    out.insert(header::CONTENT_TYPE, HeaderValue::from_static("image/png"));
    out.insert(header::CACHE_CONTROL, KEEP);
    out.insert(header::ETAG, tag(&preview.etag));
    response
}

fn unchanged(etag: &str) -> Response {
    (StatusCode::NOT_MODIFIED, [(header::ETAG, tag(etag)), (header::CACHE_CONTROL, KEEP)]).into_response()
}

fn has(headers: &HeaderMap, etag: &str) -> bool {
    let tags = headers.get(header::IF_NONE_MATCH).and_then(|tags| tags.to_str().ok());
    tags.is_some_and(|tags| matches_tag(tags, etag))
}

fn tag(etag: &str) -> HeaderValue {
    HeaderValue::from_str(etag).expect("made of hex, digits and words")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_and_cameras_that_are_not_there_are_known_without_a_look_at_tiles() {
        let mut view = AcquisitionView::default();
        view.counters.tiles = 5;
        view.counters.cameras.insert(2, [5, 0, 0, 0]);
        let of = |section, camera| Layer { acq: AcqId(1), section, camera };
        assert!(may_have_tiles(&view, &of(None, None)) && may_have_tiles(&view, &of(None, Some(2))));
        assert!(!may_have_tiles(&view, &of(None, Some(3))) && !may_have_tiles(&view, &of(Some(7), None)));
        view.counters.replaced = 1;
        assert!(may_have_tiles(&view, &of(None, Some(3))), "by the tile that replaced another");
    }

    #[test]
    fn a_region_is_four_numbers_with_pixels() {
        assert_eq!(read_region("1,2,3,4"), Some(Region { x: 1, y: 2, width: 3, height: 4 }));
        for bad in ["", "1,2,3", "1,2,3,4,5", "1,2,0,4", "1,2,3,0", "-1,2,3,4", "a,b,c,d", "1,2,3,4294967296"] {
            assert_eq!(read_region(bad), None, "{bad}");
        }
    }

    #[test]
    fn wrong_questions_are_refused() {
        let read = |text: &str| Wanted::read(&Query::parse(text.as_bytes())).is_ok();
        assert!(read("") && read("size=256&contrast=auto&region=0,0,5,5"));
        for bad in ["size=0", "size=65537", "size=x", "contrast=bright", "region=5"] {
            assert!(!read(bad), "{bad}");
        }
    }
}
