//! A grey TIFF as rows of samples. Uncompressed ones are read where they lie; others a strip or tile at a time.
//!
//! Every number of the file is checked before it is used. Must never allocate more than a row, or one strip or tile of a
//! compressed image.

use super::{Depth, PIXELS_MAX, PixelError, Region, SIDE_MAX};
use crate::base::clock::thread_cpu;
use crate::formats::{TiffFile, TiffValues};
use std::io::Cursor;
use std::time::Duration;
use tiff::TiffError;
use tiff::decoder::{Decoder, DecodingResult, Limits};

/// Bytes of the arrays of a directory.
const ARRAYS_MAX: u64 = 16 << 20;
/// Bytes of a decompressed strip or tile.
const CHUNK_BYTES_MAX: usize = 128 << 20;
/// Strips or tiles of an image.
const CHUNKS_MAX: u64 = 1 << 20;
/// Bytes of all strips or tiles of a compressed image, decompressed, with what hangs over its edges.
const DECODED_BYTES_MAX: u64 = 1 << 30;
/// Strips or tiles may share bytes of the file (blank ones), but not come to more than so many files.
const SHARED_MAX: u64 = 4;
/// Longest work on one compressed image, time of the processor.
const WORK_MAX: Duration = Duration::from_secs(5);

/// Compressions besides none: LZW, deflate under both its numbers, PackBits.
const COMPRESSIONS: [u64; 4] = [5, 8, 32946, 32773];

/// Tags of a directory.
mod tag {
    pub const WIDTH: u16 = 256;
    pub const HEIGHT: u16 = 257;
    pub const BITS: u16 = 258;
    pub const COMPRESSION: u16 = 259;
    pub const PHOTOMETRIC: u16 = 262;
    pub const SAMPLES: u16 = 277;
    pub const ROWS_PER_STRIP: u16 = 278;
    pub const STRIPS: (u16, u16) = (273, 279);
    pub const PREDICTOR: u16 = 317;
    pub const TILE_WIDTH: u16 = 322;
    pub const TILE_HEIGHT: u16 = 323;
    pub const TILES: (u16, u16) = (324, 325);
    pub const SAMPLE_FORMAT: u16 = 339;
}

/// An image that is open for reading.
pub struct GreyTiff<'a> {
    /// Columns.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// Bits of its pixels.
    pub depth: Depth,
    grid: Grid,
    coding: Coding<'a>,
    /// What this thread's processor clock showed when it was opened.
    began: Duration,
}

/// Neighbouring samples of a row.
pub struct Piece<'p> {
    /// Column of the first one.
    pub x: u32,
    /// Its row.
    pub y: u32,
    /// The samples; black is 0.
    pub samples: Samples<'p>,
}

/// Samples of either depth.
#[derive(Clone, Copy)]
pub enum Samples<'p> {
    /// Of 8 bits.
    Eight(&'p [u8]),
    /// Of 16 bits.
    Sixteen(&'p [u16]),
}

/// How strips or tiles cover the image; a strip is as wide as it.
#[derive(Clone, Copy)]
struct Grid {
    chunk_width: u32,
    chunk_height: u32,
    across: u32,
}

enum Coding<'a> {
    Plain(Plain<'a>),
    Coded(Box<Decoder<Cursor<&'a [u8]>>>),
}

/// Samples that lie in the file as they are.
struct Plain<'a> {
    bytes: &'a [u8],
    offsets: TiffValues<'a>,
    lengths: TiffValues<'a>,
    little_endian: bool,
    white_is_zero: bool,
}

/// One strip or tile, and the part of it that is asked for: columns and rows of the image.
struct Chunk {
    index: u32,
    x: u32,
    y: u32,
    columns: std::ops::Range<u32>,
    rows: std::ops::Range<u32>,
}

impl<'a> GreyTiff<'a> {
    /// Reads the first image's directory.
    ///
    /// # Errors
    /// No TIFF, not grey of 8 or 16 bits, cut off, beyond the limits.
    pub fn open(bytes: &'a [u8]) -> Result<Self, PixelError> {
        let file = TiffFile::open(bytes).ok_or(PixelError::NotTiff)?;
        let directory = file.directory().ok_or_else(|| damaged("its directory goes on behind its end"))?;
        let one = |tag| directory.find(tag).filter(|values| values.count == 1).and_then(|values| values.value(0));
        let (width, height) = size(one(tag::WIDTH), one(tag::HEIGHT))?;
        let depth = grey_depth(one(tag::SAMPLES), directory.find(tag::BITS), one(tag::SAMPLE_FORMAT))?;
        let photometric = one(tag::PHOTOMETRIC).unwrap_or(1);
        if photometric > 1 {
            return Err(PixelError::Unsupported(format!("its pixels are no grey values (photometric {photometric})")));
        }
        let is_tiled = directory.find(tag::TILES.0).is_some();
        let grid = if is_tiled {
            Grid::new((width, height), one(tag::TILE_WIDTH), one(tag::TILE_HEIGHT))?
        } else {
            let rows = one(tag::ROWS_PER_STRIP).unwrap_or(u64::from(height)).min(u64::from(height));
            Grid::new((width, height), Some(u64::from(width)), Some(rows))?
        };
        let compression = one(tag::COMPRESSION).unwrap_or(1);
        let coding = if compression == 1 && one(tag::PREDICTOR).unwrap_or(1) == 1 {
            let (offsets, lengths) = if is_tiled { tag::TILES } else { tag::STRIPS };
            let pieces = directory.find(offsets).zip(directory.find(lengths));
            let (offsets, lengths) = pieces.ok_or_else(|| damaged("it says not where its pixels are"))?;
            let (little_endian, white_is_zero) = (file.little_endian, photometric == 0);
            Coding::Plain(Plain { bytes, offsets, lengths, little_endian, white_is_zero })
        } else {
            let arrays = directory.array_bytes().ok_or_else(|| damaged("its directory goes on behind its end"))?;
            if arrays > ARRAYS_MAX {
                return Err(PixelError::TooLarge(format!("a TIFF with {arrays} bytes of directory")));
            }
            grid.check_decoded((width, height), depth)?;
            let lengths = directory.find(if is_tiled { tag::TILES.1 } else { tag::STRIPS.1 });
            let coded = lengths
                .map_or(0, |lengths| (0..lengths.count).filter_map(|n| lengths.value(n)).fold(0, u64::saturating_add));
            if coded > (bytes.len() as u64).saturating_mul(SHARED_MAX).saturating_add(1 << 20) {
                return Err(damaged("its pieces are longer than the file"));
            }
            Coding::Coded(Box::new(decoder(bytes, compression)?))
        };
        Ok(Self { width, height, depth, grid, coding, began: thread_cpu().unwrap_or_default() })
    }

    /// Refuses a region that is not in the image.
    pub(super) fn check(&self, region: Region) -> Result<(), PixelError> {
        let (width, height) = (self.width, self.height);
        let outside = || PixelError::OutOfRange(format!("the region is not in the image of {width} x {height} pixels"));
        region.is_inside(width, height).then_some(()).ok_or_else(outside)
    }

    /// Gives the rows of a region of which `is_wanted` says so, in pieces: strip by strip from the top, tile by tile.
    ///
    /// # Errors
    /// The region is not in the image; the file is cut off or damaged.
    pub fn visit(
        &mut self,
        region: Region,
        is_wanted: &dyn Fn(u32) -> bool,
        each: &mut dyn FnMut(Piece<'_>),
    ) -> Result<(), PixelError> {
        self.check(region)?;
        let chunks = self.grid.chunks(&region);
        match &mut self.coding {
            Coding::Plain(plain) => {
                let mut row = Vec::new();
                for chunk in chunks {
                    plain.visit(&chunk, &self.grid, self.depth, &mut row, is_wanted, each)?;
                }
            }
            Coding::Coded(decoder) => {
                let (width, height) = (self.width, self.height);
                for chunk in chunks.filter(|chunk| chunk.rows.clone().any(is_wanted)) {
                    if thread_cpu().unwrap_or_default().saturating_sub(self.began) > WORK_MAX {
                        return Err(PixelError::TooLarge("a TIFF that takes too long to decompress".to_owned()));
                    }
                    let stride = self.grid.chunk_width.min(width - chunk.x) as usize;
                    let rows = self.grid.chunk_height.min(height - chunk.y) as usize;
                    let decoded = decoder.read_chunk(chunk.index).map_err(|error| unreadable(&error))?;
                    visit_decoded(&chunk, &decoded, (stride, rows), is_wanted, each)?;
                }
            }
        }
        Ok(())
    }
}

impl Grid {
    fn new(
        (width, height): (u32, u32),
        chunk_width: Option<u64>,
        chunk_height: Option<u64>,
    ) -> Result<Self, PixelError> {
        let side = |len: Option<u64>| len.and_then(|len| u32::try_from(len).ok()).filter(|len| *len > 0);
        let sides =
            side(chunk_width).zip(side(chunk_height)).filter(|(width, height)| (*width).max(*height) <= SIDE_MAX);
        let (chunk_width, chunk_height) = sides.ok_or_else(|| damaged("its strips or tiles have no size"))?;
        let (across, down) = (width.div_ceil(chunk_width), height.div_ceil(chunk_height));
        if u64::from(across) * u64::from(down) > CHUNKS_MAX {
            return Err(PixelError::TooLarge(format!("a TIFF of {across} x {down} pieces")));
        }
        Ok(Self { chunk_width, chunk_height, across })
    }

    /// What is to be decompressed must be about as much as is shown.
    fn check_decoded(&self, (width, height): (u32, u32), depth: Depth) -> Result<(), PixelError> {
        let chunk = u64::from(self.chunk_width) * u64::from(self.chunk_height) * depth.bytes() as u64;
        let chunks = u64::from(width.div_ceil(self.chunk_width)) * u64::from(height.div_ceil(self.chunk_height));
        if chunk > CHUNK_BYTES_MAX as u64 || chunk.saturating_mul(chunks) > DECODED_BYTES_MAX {
            return Err(PixelError::TooLarge("a TIFF with strips or tiles that are too large".to_owned()));
        }
        Ok(())
    }

    /// The strips or tiles that a region touches.
    fn chunks(&self, region: &Region) -> impl Iterator<Item = Chunk> + use<> {
        let (grid, region) = (*self, *region);
        let (end_x, end_y) = (region.x + region.width, region.y + region.height);
        let downs = region.y / grid.chunk_height..=(end_y - 1) / grid.chunk_height;
        downs.flat_map(move |down| {
            let acrosses = region.x / grid.chunk_width..=(end_x - 1) / grid.chunk_width;
            acrosses.map(move |across| {
                let (x, y) = (across * grid.chunk_width, down * grid.chunk_height);
                Chunk {
                    index: down * grid.across + across,
                    x,
                    y,
                    columns: region.x.max(x)..end_x.min(x.saturating_add(grid.chunk_width)),
                    rows: region.y.max(y)..end_y.min(y.saturating_add(grid.chunk_height)),
                }
            })
        })
    }
}

impl Plain<'_> {
    fn visit(
        &self,
        chunk: &Chunk,
        grid: &Grid,
        depth: Depth,
        row: &mut Vec<u16>,
        is_wanted: &dyn Fn(u32) -> bool,
        each: &mut dyn FnMut(Piece<'_>),
    ) -> Result<(), PixelError> {
        let cut = || damaged(&format!("piece {} of its pixels goes on behind its end", chunk.index));
        let index = u64::from(chunk.index);
        let at = self.offsets.value(index).filter(|_| index < self.offsets.count && index < self.lengths.count);
        let (at, len) = at.zip(self.lengths.value(index)).ok_or_else(cut)?;
        let stride = grid.chunk_width as usize * depth.bytes();
        let (at, len) = (usize::try_from(at).map_err(|_| cut())?, usize::try_from(len).map_err(|_| cut())?);
        let piece = self.bytes.get(at..at.checked_add(len).ok_or_else(cut)?).ok_or_else(cut)?;
        let first = (chunk.columns.start - chunk.x) as usize * depth.bytes();
        let wide = chunk.columns.len() * depth.bytes();
        for y in chunk.rows.clone().filter(|y| is_wanted(*y)) {
            let from = (y - chunk.y) as usize * stride + first;
            let samples = piece.get(from..from + wide).ok_or_else(cut)?;
            let x = chunk.columns.start;
            match depth {
                Depth::Eight if self.white_is_zero => {
                    let inverted: Vec<u8> = samples.iter().map(|sample| !sample).collect();
                    each(Piece { x, y, samples: Samples::Eight(&inverted) });
                }
                Depth::Eight => each(Piece { x, y, samples: Samples::Eight(samples) }),
                Depth::Sixteen => {
                    self.read_sixteen(samples, row);
                    each(Piece { x, y, samples: Samples::Sixteen(row) });
                }
            }
        }
        Ok(())
    }

    fn read_sixteen(&self, bytes: &[u8], row: &mut Vec<u16>) {
        row.clear();
        let (pairs, _) = bytes.as_chunks::<2>();
        if self.little_endian {
            row.extend(pairs.iter().map(|pair| u16::from_le_bytes(*pair)));
        } else {
            row.extend(pairs.iter().map(|pair| u16::from_be_bytes(*pair)));
        }
        if self.white_is_zero {
            row.iter_mut().for_each(|sample| *sample = !*sample);
        }
    }
}

fn visit_decoded(
    chunk: &Chunk,
    decoded: &DecodingResult,
    (stride, rows): (usize, usize),
    is_wanted: &dyn Fn(u32) -> bool,
    each: &mut dyn FnMut(Piece<'_>),
) -> Result<(), PixelError> {
    let wrong = || damaged(&format!("piece {} of its pixels is not as long as it should be", chunk.index));
    let first = (chunk.columns.start - chunk.x) as usize;
    for y in chunk.rows.clone().filter(|y| is_wanted(*y)) {
        let from = (y - chunk.y) as usize * stride + first;
        let range = from..from + chunk.columns.len();
        let samples = match decoded {
            DecodingResult::U8(all) if all.len() >= stride * rows => Samples::Eight(all.get(range).ok_or_else(wrong)?),
            DecodingResult::U16(all) if all.len() >= stride * rows => {
                Samples::Sixteen(all.get(range).ok_or_else(wrong)?)
            }
            _ => return Err(wrong()),
        };
        each(Piece { x: chunk.columns.start, y, samples });
    }
    Ok(())
}

fn size(width: Option<u64>, height: Option<u64>) -> Result<(u32, u32), PixelError> {
    let (width, height) = width.zip(height).ok_or_else(|| damaged("it says not how large it is"))?;
    if width == 0 || height == 0 {
        return Err(damaged("it has no pixels"));
    }
    let side = |len: u64| u32::try_from(len).ok().filter(|len| *len <= SIDE_MAX);
    match side(width).zip(side(height)) {
        Some((width, height)) if u64::from(width) * u64::from(height) <= PIXELS_MAX => Ok((width, height)),
        _ => Err(PixelError::TooLarge(format!(
            "a TIFF of {width} x {height} pixels: shown are images up to {PIXELS_MAX} pixels, {SIDE_MAX} a side"
        ))),
    }
}

fn grey_depth(samples: Option<u64>, bits: Option<TiffValues<'_>>, format: Option<u64>) -> Result<Depth, PixelError> {
    let other = |what: String| Err(PixelError::Unsupported(what));
    match (samples.unwrap_or(1), bits.and_then(|bits| bits.value(0)).unwrap_or(1), format.unwrap_or(1)) {
        (1, 8, 1) => Ok(Depth::Eight),
        (1, 16, 1) => Ok(Depth::Sixteen),
        (1, bits, 1) => other(format!("{bits} bits a pixel, not 8 or 16")),
        (1, ..) => other("its samples are signed or floating-point numbers".to_owned()),
        (samples, ..) => other(format!("{samples} samples a pixel, not one grey value")),
    }
}

fn decoder(bytes: &[u8], compression: u64) -> Result<Decoder<Cursor<&[u8]>>, PixelError> {
    if compression != 1 && !COMPRESSIONS.contains(&compression) {
        return Err(PixelError::Unsupported(format!("compression {compression}, not LZW, deflate, PackBits or none")));
    }
    let mut limits = Limits::default();
    limits.decoding_buffer_size = CHUNK_BYTES_MAX;
    limits.intermediate_buffer_size = CHUNK_BYTES_MAX;
    let opened = Decoder::new(Cursor::new(bytes)).map_err(|error| unreadable(&error))?;
    Ok(opened.with_limits(limits))
}

fn unreadable(error: &TiffError) -> PixelError {
    let text = error.to_string();
    match error {
        TiffError::UnsupportedError(_) => PixelError::Unsupported(text),
        TiffError::LimitsExceeded => PixelError::TooLarge("a TIFF with strips or tiles that are too large".to_owned()),
        _ => damaged(&text),
    }
}

fn damaged(what: &str) -> PixelError {
    PixelError::Damaged(what.to_owned())
}
