//! Images made here, decoded and made smaller, against the same done pixel by pixel.

use super::{Depth, GreyTiff, PixelError, Raster, Region, Samples};
use crate::formats::{encode_gray8, encode_gray16};
use std::io::Cursor;
use tiff::encoder::{Compression, DeflateLevel, TiffEncoder, colortype};

const WIDTH: u32 = 37;
const HEIGHT: u32 = 29;

fn pixel(x: u32, y: u32) -> u16 {
    u16::try_from((x * 7 + y * 13 + x * y) % 251).expect("small")
}

fn pixels() -> impl Iterator<Item = u16> {
    (0..HEIGHT).flat_map(|y| (0..WIDTH).map(move |x| pixel(x, y)))
}

fn eight() -> Vec<u8> {
    pixels().map(|value| u8::try_from(value).expect("below 256")).collect()
}

fn sixteen() -> Vec<u16> {
    pixels().map(|value| value * 256 + 3).collect()
}

fn compressed(compression: Compression) -> Vec<u8> {
    let mut out = Cursor::new(Vec::new());
    let mut encoder = TiffEncoder::new(&mut out).expect("a TIFF").with_compression(compression);
    encoder.write_image::<colortype::Gray16>(WIDTH, HEIGHT, &sixteen()).expect("written");
    out.into_inner()
}

/// A TIFF of one directory, with its pixels behind the header.
struct Made {
    big_endian: bool,
    /// Tag and value, all LONG.
    tags: Vec<(u16, Vec<u32>)>,
    data: Vec<u8>,
}

impl Made {
    /// `chunks` lie behind one another.
    fn new(chunks: &[Vec<u8>], tags: &[(u16, u32)], places: (u16, u16)) -> Self {
        let mut offset = 8;
        let offsets = chunks.iter().map(|chunk| {
            let at = offset;
            offset += u32::try_from(chunk.len()).expect("small");
            at
        });
        let offsets: Vec<u32> = offsets.collect();
        let lengths = chunks.iter().map(|chunk| u32::try_from(chunk.len()).expect("small")).collect();
        let mut all: Vec<(u16, Vec<u32>)> = tags.iter().map(|(tag, value)| (*tag, vec![*value])).collect();
        all.extend([(places.0, offsets), (places.1, lengths)]);
        all.sort();
        Self { big_endian: false, tags: all, data: chunks.concat() }
    }

    fn set(mut self, tag: u16, value: u32) -> Self {
        self.tags.retain(|(known, _)| *known != tag);
        self.tags.push((tag, vec![value]));
        self.tags.sort();
        self
    }

    fn bytes(&self) -> Vec<u8> {
        let short = |n: u16| if self.big_endian { n.to_be_bytes() } else { n.to_le_bytes() };
        let long = |n: u32| if self.big_endian { n.to_be_bytes() } else { n.to_le_bytes() };
        let len = |n: usize| u32::try_from(n).expect("small");
        let mut arrays = self.data.clone();
        let mut entries = Vec::new();
        for (tag, values) in &self.tags {
            entries.extend(short(*tag));
            entries.extend(short(4));
            entries.extend(long(len(values.len())));
            if values.len() == 1 {
                entries.extend(long(values[0]));
            } else {
                entries.extend(long(len(8 + arrays.len())));
                values.iter().for_each(|value| arrays.extend(long(*value)));
            }
        }
        let mut out = if self.big_endian { b"MM".to_vec() } else { b"II".to_vec() };
        out.extend(short(42));
        out.extend(long(len(8 + arrays.len())));
        out.extend(arrays);
        out.extend(short(u16::try_from(self.tags.len()).expect("few")));
        out.extend(entries);
        out.extend(long(0));
        out
    }
}

const BASE: [(u16, u32); 5] = [(256, WIDTH), (257, HEIGHT), (258, 8), (262, 1), (277, 1)];

/// Tiles of 16 x 16, those at the edges filled up.
fn tiled() -> Made {
    let tile = |across: u32, down: u32| -> Vec<u8> {
        let at = |n: u32| (across * 16 + n % 16, down * 16 + n / 16);
        (0..256).map(at).map(|(x, y)| if x < WIDTH && y < HEIGHT { pixel(x, y).to_le_bytes()[0] } else { 99 }).collect()
    };
    let tiles: Vec<Vec<u8>> = (0..2).flat_map(|down| (0..3).map(move |across| tile(across, down))).collect();
    let tags = [BASE.as_slice(), &[(322, 16), (323, 16)]].concat();
    Made::new(&tiles, &tags, (324, 325))
}

/// Strips of 4 rows.
fn stripped() -> Made {
    let strips: Vec<Vec<u8>> = eight().chunks(4 * WIDTH as usize).map(<[u8]>::to_vec).collect();
    Made::new(&strips, &[BASE.as_slice(), &[(278, 4)]].concat(), (273, 279))
}

/// Box by box, sample by sample.
fn slow(samples: &[u16], region: Region, (width, height): (u32, u32)) -> Vec<u16> {
    let edge = |n: u32, len: u32, boxes: u32| n * len / boxes;
    let mut out = Vec::new();
    for (row, column) in (0..height).flat_map(|row| (0..width).map(move |column| (row, column))) {
        let mut all = Vec::new();
        for y in edge(row, region.height, height)..edge(row + 1, region.height, height) {
            for x in edge(column, region.width, width)..edge(column + 1, region.width, width) {
                all.push(u64::from(samples[((region.y + y) * WIDTH + region.x + x) as usize]));
            }
        }
        let n = all.len() as u64;
        out.push(u16::try_from((all.iter().sum::<u64>() + n / 2) / n).expect("a mean"));
    }
    out
}

fn reduced(bytes: &[u8], region: Region, size: (u32, u32)) -> Result<Raster, PixelError> {
    Raster::of(&mut GreyTiff::open(bytes)?, region, size)
}

#[test]
fn every_layout_and_compression_gives_the_pixels_that_were_written() {
    let wide: Vec<u16> = sixteen();
    let narrow: Vec<u16> = pixels().collect();
    let mut other_order = stripped();
    other_order.big_endian = true;
    let files = [
        (encode_gray8(WIDTH, HEIGHT, &eight()).expect("written"), &narrow),
        (encode_gray16(WIDTH, HEIGHT, &wide).expect("written"), &wide),
        (stripped().bytes(), &narrow),
        (other_order.bytes(), &narrow),
        (tiled().bytes(), &narrow),
        (compressed(Compression::Lzw), &wide),
        (compressed(Compression::Deflate(DeflateLevel::Fast)), &wide),
        (compressed(Compression::Packbits), &wide),
    ];
    let regions = [
        Region::whole(WIDTH, HEIGHT),
        Region { x: 3, y: 5, width: 30, height: 20 },
        Region { x: 36, y: 28, width: 1, height: 1 },
    ];
    for (n, (bytes, samples)) in files.iter().enumerate() {
        for region in regions {
            for side in [1, 2, 7, 16, 64] {
                let size = region.fit(side);
                let found = reduced(bytes, region, size).expect("an image");
                assert_eq!(found.samples, slow(samples, region, size), "file {n}, {region:?} as {size:?}");
            }
        }
    }
}

#[test]
fn white_that_is_zero_is_turned_round() {
    let whole = Region::whole(WIDTH, HEIGHT);
    let found = reduced(&stripped().set(262, 0).bytes(), whole, (WIDTH, HEIGHT)).expect("an image");
    assert_eq!(found.samples, pixels().map(|value| 255 - value).collect::<Vec<u16>>());
    assert_eq!(found.depth, Depth::Eight);
}

#[test]
fn many_rows_in_one_box_do_not_overflow() {
    let white = encode_gray8(3, 5000, &[255; 15_000]).expect("written");
    assert_eq!(reduced(&white, Region::whole(3, 5000), (1, 2)).expect("an image").samples, [255, 255]);
    let white = encode_gray16(2, 3000, &[u16::MAX; 6000]).expect("written");
    assert_eq!(reduced(&white, Region::whole(2, 3000), (2, 1)).expect("an image").samples, [u16::MAX; 2]);
}

#[test]
fn what_is_not_grey_of_eight_or_sixteen_bits_is_refused_by_name() {
    let why = |made: Made| GreyTiff::open(&made.bytes()).err().expect("refused").to_string();
    for (tag, value, word) in [
        (277, 3, "3 samples"),
        (258, 1, "1 bits"),
        (258, 32, "32 bits"),
        (339, 3, "floating-point"),
        (262, 3, "photometric 3"),
        (259, 6, "compression 6"),
    ] {
        let text = why(stripped().set(tag, value));
        assert!(text.contains(word), "{tag} = {value}: {text}");
    }
    assert_eq!(GreyTiff::open(b"PNG").err(), Some(PixelError::NotTiff));
}

#[test]
fn sizes_that_are_lies_are_refused_before_memory_is_taken() {
    for (tag, value) in [(256, 70_000), (257, u32::MAX), (256, 0)] {
        assert!(GreyTiff::open(&stripped().set(tag, value).bytes()).is_err(), "{tag} = {value}");
    }
    let taller = stripped().set(257, HEIGHT + 1).set(278, HEIGHT + 1).bytes();
    let found = reduced(&taller, Region::whole(WIDTH, HEIGHT + 1), (4, 4));
    assert!(matches!(found, Err(PixelError::Damaged(_))), "{found:?}");
    let outside = reduced(&stripped().bytes(), Region { x: 1, y: 0, width: WIDTH, height: 1 }, (1, 1));
    assert!(matches!(outside, Err(PixelError::OutOfRange(_))), "{outside:?}");
}

#[test]
fn cut_and_changed_files_never_panic() {
    for whole in [stripped().bytes(), tiled().bytes(), compressed(Compression::Lzw)] {
        let shown = |bytes: &[u8]| {
            let Ok(mut tiff) = GreyTiff::open(bytes) else { return };
            let region = Region::whole(tiff.width, tiff.height);
            let _ = Raster::of(&mut tiff, region, region.fit(16));
        };
        (0..whole.len()).step_by(7).for_each(|len| shown(&whole[..len]));
        for at in (0..whole.len()).step_by(3) {
            let mut changed = whole.clone();
            changed[at] ^= 0xff;
            shown(&changed);
        }
    }
}

#[test]
fn rows_that_nobody_wants_are_passed_over() {
    for bytes in [stripped().bytes(), tiled().bytes(), compressed(Compression::Lzw)] {
        let mut tiff = GreyTiff::open(&bytes).expect("a TIFF");
        let (mut seen, whole) = (0, Region::whole(WIDTH, HEIGHT));
        let visited = tiff.visit(whole, &|y| y == 17, &mut |piece| {
            assert_eq!(piece.y, 17);
            seen += match piece.samples {
                Samples::Eight(samples) => samples.len(),
                Samples::Sixteen(samples) => samples.len(),
            };
        });
        assert_eq!((visited, seen), (Ok(()), WIDTH as usize));
    }
}

#[test]
fn an_image_is_fitted_by_its_longer_side_and_never_enlarged() {
    let region = Region::whole(2560, 2160);
    assert_eq!((region.fit(256), region.fit(2560), region.fit(9999)), ((256, 216), (2560, 2160), (2560, 2160)));
    assert_eq!((Region::whole(10, 1000).fit(20), Region::whole(1, 1).fit(1)), ((1, 20), (1, 1)));
}

#[test]
fn a_region_is_inside_only_with_all_its_pixels() {
    let inside = |x, y, width, height| Region { x, y, width, height }.is_inside(10, 8);
    assert!(inside(0, 0, 10, 8) && inside(9, 7, 1, 1));
    assert!(!inside(0, 0, 11, 8) && !inside(9, 7, 2, 1) && !inside(0, 0, 0, 1) && !inside(u32::MAX, 0, 2, 1));
}

/// Tags of a grey image of 8 bits in tiles: width, height, bits, compression, photometric, tile's width and height.
fn in_tiles(size: (u32, u32), compression: u32, tile: (u32, u32)) -> Vec<(u16, u32)> {
    let (width, height) = size;
    vec![(256, width), (257, height), (258, 8), (259, compression), (262, 1), (322, tile.0), (323, tile.1)]
}

#[test]
fn work_that_is_out_of_all_proportion_to_a_file_is_refused_before_it_is_done() {
    let refused = |made: &Made| match GreyTiff::open(&made.bytes()) {
        Ok(_) => panic!("taken"),
        Err(error) => error.to_string(),
    };
    // Thousands of tiles of one pixel that are all made of the same long run.
    let (tiles, run) = (4096, vec![0x80; 100_000]);
    let mut shared = Made::new(&[run], &in_tiles((64, 64), 32773, (1, 1)), (324, 325));
    for (tag, values) in shared.tags.iter_mut().filter(|(tag, _)| [324, 325].contains(tag)) {
        *values = vec![if *tag == 324 { 8 } else { 100_000 }; tiles];
    }
    assert!(refused(&shared).contains("longer than the file"), "{}", refused(&shared));
    // A column of pixels in tiles that are as wide as can be.
    let wide = Made::new(&vec![vec![0; 8]; 16], &in_tiles((1, 65_536), 32773, (65_536, 4096)), (324, 325));
    assert!(refused(&wide).contains("too large"), "{}", refused(&wide));
    let many = Made::new(&vec![vec![0; 8]; 4096], &in_tiles((1, 65_536), 32773, (65_536, 16)), (324, 325));
    assert!(refused(&many).contains("too large"), "{}", refused(&many));
}
