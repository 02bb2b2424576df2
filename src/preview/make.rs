//! Making previews: contents into images, thumbnails of squares from those of the four squares in them.
//!
//! One tile buffer at a time, and only while capture leaves most of them free. A composite that takes longer than
//! [`BUDGET`] is given up for now: the thumbnails below it are kept, so whoever asks again finds less to do, and others
//! had their turn meanwhile.

use super::cache::{Cache, Kept};
use super::pyramid::{Pyramids, Stamp};
use super::{Answer, Ask, At, Layer, Preview, PreviewError, THUMBNAIL_SIDE};
use crate::catalog::{Catalog, ContentError, Lanes, TileContent};
use crate::model::{AcqId, ByteRange, FrameNumber, Pressure, TileEntry, TileKey};
use crate::pixels::{
    Contrast, GreyAlpha, GreyTiff, PixelError, Raster, Region, decode_png, encode_grey, encode_grey_alpha,
};
use bytes::Bytes;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Longest work for one composite.
const BUDGET: Duration = Duration::from_secs(1);
/// Longest wait for capture to leave room.
const PATIENCE: Duration = Duration::from_secs(3);
/// Pause between two looks whether it does.
const PRESSED: Duration = Duration::from_millis(20);

/// What threads make previews with.
pub(super) struct Maker {
    catalog: Arc<Catalog>,
    lanes: Lanes,
    cache: Cache,
    pyramids: Pyramids,
}

/// A thumbnail as pixels. `is_whole` is false when a tile in it could not be read this time; `png` is the same image,
/// once somebody needed it.
struct Canvas {
    image: GreyAlpha,
    is_whole: bool,
    png: Option<Bytes>,
}

impl Canvas {
    fn png(&mut self) -> Bytes {
        self.png.get_or_insert_with(|| encode_grey_alpha(&self.image).into()).clone()
    }
}

impl Maker {
    pub(super) fn new(catalog: Arc<Catalog>, lanes: Lanes, cache: Cache, pyramids: Pyramids) -> Self {
        Self { catalog, lanes, cache, pyramids }
    }

    pub(super) fn open_cache(&self) {
        self.cache.open(|acq| self.catalog.acquisition(acq).is_some());
    }

    pub(super) fn forget(&self, acq: AcqId) {
        // It may have been started anew since.
        if self.catalog.acquisition(acq).is_none() {
            self.cache.remove_all(acq);
        }
    }

    /// A thumbnail that is in the cache.
    pub(super) fn at_hand(&self, layer: &Layer, at: At) -> Option<Preview> {
        let stamp = self.pyramids.stamp_at_hand(layer, at)?;
        match self.cache.get(&cached_as(layer, at), at, stamp)? {
            Kept::Image(png) => Some(preview(stamp, png)),
            Kept::Refused(_) => None,
        }
    }

    pub(super) fn make(&self, ask: &Ask) -> Answer {
        let made = match ask {
            Ask::Tile { id, version, region, size, contrast } => {
                let found = self.catalog.tile_version(*id, *version).map_err(storage)?;
                let entry = found.ok_or_else(|| PreviewError::Missing(format!("no tile has the id {id}")))?;
                let png = self.tile(&entry, *region, *size, *contrast)?;
                Ok(Preview { etag: String::new(), png })
            }
            Ask::Thumbnail { layer, at } => self.thumbnail(layer, *at),
        };
        if made.is_ok() {
            self.catalog.metrics().previews_made.inc();
        }
        made
    }

    fn tile(
        &self,
        entry: &TileEntry,
        region: Option<Region>,
        size: Option<u32>,
        contrast: Option<Contrast>,
    ) -> Result<Bytes, PreviewError> {
        let content = self.read(entry)?;
        let mut tiff = GreyTiff::open(content.as_ref()).map_err(refused)?;
        let region = region.unwrap_or(Region::whole(tiff.width, tiff.height));
        let size = size.map_or((region.width, region.height), |side| region.fit(side));
        let raster = Raster::of(&mut tiff, region, size).map_err(refused)?;
        drop(content);
        let grey = contrast.unwrap_or(Contrast::usual(raster.depth)).apply(&raster);
        Ok(encode_grey(raster.width, raster.height, &grey).into())
    }

    fn thumbnail(&self, layer: &Layer, at: At) -> Answer {
        let empty = || PreviewError::Missing("no tile is stored there".to_owned());
        let stamp = self.pyramids.stamp(layer, at)?.ok_or_else(empty)?;
        if let Some(found) = self.at_hand(layer, at) {
            return Ok(found);
        }
        let mut canvas = self.canvas(layer, at, Instant::now() + BUDGET)?.ok_or_else(empty)?;
        let mut made = preview(stamp, canvas.png());
        // A composite without a tile that can not be read now is not the one that its name stands for.
        if !canvas.is_whole {
            made.etag = made.etag.replacen('"', "\"part-", 1);
        }
        Ok(made)
    }

    /// The pixels of a square; `None` when it is empty.
    fn canvas(&self, layer: &Layer, at: At, until: Instant) -> Result<Option<Canvas>, PreviewError> {
        let Some(stamp) = self.pyramids.stamp(layer, at)? else { return Ok(None) };
        let name = cached_as(layer, at);
        match self.cache.get(&name, at, stamp) {
            Some(Kept::Refused(reason)) => return Err(PreviewError::Refused(reason)),
            Some(Kept::Image(png)) => match decode_png(&png, THUMBNAIL_SIDE) {
                Ok(image) => return Ok(Some(Canvas { image, is_whole: true, png: Some(png) })),
                Err(_) => self.cache.remove(&name, at),
            },
            None => {}
        }
        if at.level > 0 && Instant::now() > until {
            return Err(PreviewError::Busy("the thumbnail is being made"));
        }
        let mut made = if at.level == 0 { self.tile_canvas(layer, at) } else { self.composite(layer, at, until) };
        // Tiles need what is left of a disk that is nearly full.
        if self.catalog.disk_pressure() == Pressure::Green {
            match &mut made {
                Ok(canvas) if canvas.is_whole => self.cache.put(&name, at, stamp, &Kept::Image(canvas.png())),
                Err(PreviewError::Refused(reason)) => {
                    self.cache.put(&name, at, stamp, &Kept::Refused(reason.clone()));
                }
                _ => {}
            }
        }
        made.map(Some)
    }

    fn tile_canvas(&self, layer: &Layer, at: At) -> Result<Canvas, PreviewError> {
        let key = TileKey { acq: layer.acq, col: at.x, row: at.y, frame: FrameNumber::STABLE };
        let entry = self.catalog.tile_by_key(&key).map_err(storage)?;
        let entry = entry.ok_or_else(|| PreviewError::Missing("no tile is stored there".to_owned()))?;
        let content = self.read(&entry)?;
        Ok(Canvas { image: shrink_to_square(content.as_ref())?, is_whole: true, png: None })
    }

    /// From the four squares of the level below. Tiles that can not be shown are holes.
    fn composite(&self, layer: &Layer, at: At, until: Instant) -> Result<Canvas, PreviewError> {
        let mut canvas = Canvas { image: GreyAlpha::empty(THUMBNAIL_SIDE), is_whole: true, png: None };
        for quarter in 0..4u32 {
            let (right, down) = (quarter % 2, quarter / 2);
            let Some(below) = below(at, right, down) else { continue };
            match self.canvas(layer, below, until) {
                Ok(Some(part)) => {
                    canvas.is_whole &= part.is_whole;
                    put_quarter(&mut canvas.image, &part.image, right, down);
                }
                Ok(None) | Err(PreviewError::Refused(_) | PreviewError::Missing(_)) => {}
                Err(PreviewError::Storage(_)) => canvas.is_whole = false,
                Err(other) => return Err(other),
            }
        }
        Ok(canvas)
    }

    /// A content, once capture leaves most of the buffers free.
    fn read(&self, entry: &TileEntry) -> Result<TileContent, PreviewError> {
        let until = Instant::now() + PATIENCE;
        let whole = ByteRange { offset: 0, len: entry.image.len };
        loop {
            if self.catalog.has_leisure(&self.lanes, entry.image.len as usize) {
                match self.catalog.read_image(entry, whole) {
                    Ok(content) => return Ok(content),
                    Err(ContentError::Damaged(error)) => return Err(storage(ContentError::Damaged(error))),
                    Err(ContentError::Busy) => {}
                }
            }
            if Instant::now() > until {
                return Err(PreviewError::Busy("tiles come in too fast for previews"));
            }
            std::thread::sleep(PRESSED);
        }
    }
}

/// A tile looks the same with all others or alone.
fn cached_as(layer: &Layer, at: At) -> Layer {
    if at.level == 0 { Layer { acq: layer.acq, section: None, camera: None } } else { *layer }
}

fn preview(stamp: Stamp, png: Bytes) -> Preview {
    Preview { etag: format!("\"{:016x}\"", stamp.0), png }
}

/// A square of the level below; `None` for one behind the last place.
fn below(at: At, right: u32, down: u32) -> Option<At> {
    let twice = |n: u32, more: u32| n.checked_mul(2)?.checked_add(more);
    Some(At { level: at.level.checked_sub(1)?, x: twice(at.x, right)?, y: twice(at.y, down)? })
}

/// A whole tile as a thumbnail, its sides stretched to a square: so neighbours meet.
fn shrink_to_square(content: &[u8]) -> Result<GreyAlpha, PreviewError> {
    let mut tiff = GreyTiff::open(content).map_err(refused)?;
    let region = Region::whole(tiff.width, tiff.height);
    let size = (tiff.width.min(THUMBNAIL_SIDE), tiff.height.min(THUMBNAIL_SIDE));
    let raster = Raster::of(&mut tiff, region, size).map_err(refused)?;
    let grey = Contrast::usual(raster.depth).apply(&raster);
    let mut image = GreyAlpha::empty(THUMBNAIL_SIDE);
    image.alpha.fill(255);
    for (n, pixel) in (0u32..).zip(&mut image.grey) {
        let (x, y) = (n % THUMBNAIL_SIDE, n / THUMBNAIL_SIDE);
        let (x, y) = (x * raster.width / THUMBNAIL_SIDE, y * raster.height / THUMBNAIL_SIDE);
        *pixel = grey[(y * raster.width + x) as usize];
    }
    Ok(image)
}

/// Draws a thumbnail at half its size into a quarter of another: the mean of the pixels that are there.
fn put_quarter(into: &mut GreyAlpha, part: &GreyAlpha, right: u32, down: u32) {
    let (side, half) = (part.side as usize, part.side as usize / 2);
    let (left, top) = (right as usize * half, down as usize * half);
    for y in 0..half {
        for x in 0..half {
            let first = y * 2 * side + x * 2;
            let four = [first, first + 1, first + side, first + side + 1];
            let weight: u32 = four.iter().map(|n| u32::from(part.alpha[*n])).sum();
            let sum: u32 = four.iter().map(|n| u32::from(part.alpha[*n]) * u32::from(part.grey[*n])).sum();
            let at = (top + y) * side + left + x;
            into.grey[at] = u8::try_from((sum + weight / 2).checked_div(weight).unwrap_or(0)).unwrap_or(255);
            into.alpha[at] = u8::try_from((weight + 2) / 4).unwrap_or(255);
        }
    }
}

fn refused(error: PixelError) -> PreviewError {
    match error {
        PixelError::OutOfRange(what) => PreviewError::Invalid(what),
        other => PreviewError::Refused(other.to_string()),
    }
}

fn storage(error: impl std::fmt::Display) -> PreviewError {
    PreviewError::Storage(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::{encode_gray8, encode_gray16};

    fn filled(grey: u8, alpha: u8) -> GreyAlpha {
        let mut image = GreyAlpha::empty(THUMBNAIL_SIDE);
        image.grey.fill(grey);
        image.alpha.fill(alpha);
        image
    }

    #[test]
    fn quarters_lie_where_their_squares_do() {
        let mut image = GreyAlpha::empty(THUMBNAIL_SIDE);
        put_quarter(&mut image, &filled(10, 255), 0, 0);
        put_quarter(&mut image, &filled(20, 255), 1, 0);
        put_quarter(&mut image, &filled(30, 255), 0, 1);
        let pixel = |x: usize, y: usize| (image.grey[y * 256 + x], image.alpha[y * 256 + x]);
        assert_eq!([pixel(0, 0), pixel(127, 127)], [(10, 255); 2]);
        assert_eq!([pixel(128, 0), pixel(255, 127)], [(20, 255); 2]);
        assert_eq!([pixel(0, 128), pixel(128, 128)], [(30, 255), (0, 0)]);
    }

    #[test]
    fn pixels_that_are_not_there_do_not_darken_their_neighbours() {
        let mut part = filled(200, 255);
        part.alpha[0] = 0;
        part.grey[0] = 0;
        let mut image = GreyAlpha::empty(THUMBNAIL_SIDE);
        put_quarter(&mut image, &part, 0, 0);
        assert_eq!((image.grey[0], image.alpha[0]), (200, 191));
    }

    #[test]
    fn a_square_has_four_below_it_and_none_behind_the_last_place() {
        let at = At { level: 3, x: 5, y: 6 };
        assert_eq!(below(at, 1, 0), Some(At { level: 2, x: 11, y: 12 }));
        assert_eq!(below(At { level: 3, x: u32::MAX, y: 0 }, 0, 0), None);
    }

    #[test]
    fn small_tiles_are_enlarged_and_long_ones_stretched_to_the_square() {
        let small = shrink_to_square(&encode_gray8(2, 1, &[10, 200]).expect("an image")).expect("a thumbnail");
        assert_eq!((small.grey[0], small.grey[127], small.grey[128], small.grey[255]), (10, 10, 200, 200));
        let long: Vec<u16> = (0..512 * 4).map(|n| n * 16).collect();
        let long = shrink_to_square(&encode_gray16(512, 4, &long).expect("an image")).expect("a thumbnail");
        assert_eq!((long.grey[0], long.grey[256 * 256 - 1]), (0, 255), "16 bits are stretched by themselves");
    }
}
