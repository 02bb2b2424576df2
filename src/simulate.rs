//! Writes an acquisition folder as a microscope would: log, ROI files, DAQ timing, and real TIFF tiles whose
//! texture is continuous from tile to neighbour. Everyone has input; nothing is copied from a real acquisition.

use crate::formats::{FormatError, TileName, encode_gray8, encode_gray16};
use crate::model::{AcqId, CameraCount, FrameNumber};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// What to simulate.
#[derive(Clone, Copy, Debug)]
pub struct SimulateOptions {
    /// The acquisition's identifier.
    pub acq: AcqId,
    /// One camera, or four in a 2 x 2 array.
    pub cameras: CameraCount,
    /// Stage steps in x.
    pub x_steps: u32,
    /// Stage steps in y.
    pub y_steps: u32,
    /// Tile width, pixels.
    pub width: u32,
    /// Tile height, pixels.
    pub height: u32,
    /// 8 or 16 bits a pixel.
    pub bits: Bits,
    /// Another seed, another specimen.
    pub seed: u64,
}

/// Bits a pixel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bits {
    /// 8.
    Eight,
    /// 16.
    Sixteen,
}

/// What was written.
#[derive(Clone, Debug)]
pub struct Simulated {
    /// The acquisition folder.
    pub folder: PathBuf,
    /// Number of tiles.
    pub tiles: u64,
    /// Bytes of all tiles.
    pub bytes: u64,
}

/// Why the folder was not written.
#[derive(Debug, thiserror::Error)]
pub enum SimulateError {
    /// The folder is there and has something in it.
    #[error("{0}: exists and is not empty; remove it or choose another --acq")]
    NotEmpty(PathBuf),
    /// A file can not be written.
    #[error("{path}: {source}")]
    Write {
        /// The file.
        path: PathBuf,
        /// The operating system's answer.
        source: std::io::Error,
    },
    /// The image can not be encoded.
    #[error(transparent)]
    Image(#[from] FormatError),
}

/// Neighbouring tiles overlap by this part of their width and height.
const OVERLAP: u32 = 10;

/// One tile of the mosaic.
#[derive(Clone, Copy)]
struct Place {
    camera: i32,
    col: u32,
    row: u32,
}

/// Writes `<acq>_<cols>x<rows>/` below `dir`. `progress` is called with (tiles written, tiles in all).
///
/// # Errors
/// The folder is not empty, or can not be written.
pub fn simulate(
    dir: &Path,
    options: &SimulateOptions,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Simulated, SimulateError> {
    let places = schedule(options);
    let factor = if options.cameras == CameraCount::Four { 2 } else { 1 };
    let base = format!("{}_{}x{}", options.acq, options.x_steps * factor, options.y_steps * factor);
    let folder = dir.join(&base);
    if std::fs::read_dir(&folder).is_ok_and(|mut entries| entries.next().is_some()) {
        return Err(SimulateError::NotEmpty(folder));
    }
    write(&folder.join(format!("{base}_logfile.ini")), log_text(options).as_bytes())?;
    write(&folder.join(format!("{base}_ROI_spec.ini")), b"[Inclusion Section Numbers]\nRegion 0 = \"1\"\n")?;
    write(&folder.join(format!("{base}_ROI_tiles.csv")), roi_tiles(&places).as_bytes())?;
    write(&folder.join(format!("{base}_DAQ timing.csv")), daq_timing(&places, options.cameras).as_bytes())?;
    let texture = Texture::new(options.seed);
    let mut bytes = 0;
    for (n, place) in places.iter().enumerate() {
        let name = TileName { camera: place.camera, col: place.col, row: place.row, frame: FrameNumber::STABLE };
        let image = render(options, &texture, *place)?;
        bytes += image.len() as u64;
        write(&folder.join(format!("col{:04}", place.col)).join(name.to_string()), &image)?;
        progress(n as u64 + 1, places.len() as u64);
    }
    Ok(Simulated { folder, tiles: places.len() as u64, bytes })
}

/// Tiles in the order in which they are taken: the stage goes down a column, then to the next; four cameras take
/// a 2 x 2 block at each step.
fn schedule(options: &SimulateOptions) -> Vec<Place> {
    let mut places = Vec::new();
    for x in 0..options.x_steps {
        for y in 0..options.y_steps {
            match options.cameras {
                CameraCount::One => places.push(Place { camera: 0, col: x, row: y }),
                CameraCount::Four => {
                    places.extend([(0, 0, 0), (1, 1, 0), (2, 0, 1), (3, 1, 1)].map(|(camera, dx, dy)| Place {
                        camera,
                        col: 2 * x + dx,
                        row: 2 * y + dy,
                    }))
                }
            }
        }
    }
    places
}

fn log_text(options: &SimulateOptions) -> String {
    let date =
        jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).strftime("%m/%d/%Y     %I:%M:%S %p").to_string();
    let four = if options.cameras == CameraCount::Four { "TRUE" } else { "FALSE" };
    let step = |pixels: u32| pixels - pixels / OVERLAP;
    let (x_step, y_step) = (step(options.width), step(options.height));
    format!(
        "[General]\nDate = \"{date}\"\nSample name = \"simulated\"\nSection number = \"1\"\n\
         Microscopist name = \"tilecatcher simulate\"\nNotes = \"seed {seed}\"\n\n\
         [Camera Connections]\nAcq1 = TRUE\nAcq2 = {four}\nAcq3 = {four}\nAcq4 = {four}\n\n\
         [Machine IDs]\nTEM IP address = \"127.0.0.1\"\n\n\
         [Mosaic Settings]\nNumber of X steps = {x_steps}\nNumber of Y steps = {y_steps}\n\
         X big step (pix) = {x_big}\nX sm step (pix) = {x_step}\nY big step (pix) = {y_big}\nY sm step (pix) = {y_step}\n\
         Center X (m) = 0\nCenter Y (m) = 0\nTEM Y (m) = 0\n\n\
         [TEM Settings]\nMagnification = 2900\nPixels per um = 250\n\n\
         [ImageCatcher]\nproject = simulation\nowner = tilecatcher\nstack = stack1\nmosaicType = TEM\n",
        seed = options.seed,
        x_steps = options.x_steps,
        y_steps = options.y_steps,
        x_big = 2 * x_step,
        y_big = 2 * y_step,
    )
}

fn roi_tiles(places: &[Place]) -> String {
    let mut text = "Col,Row,Inclusion,Excluded?,Included?,# Inclusions,Section number\n".to_owned();
    for place in places {
        let _ = writeln!(text, "{}, {}, 0, 0, 1, 1, 1", place.col, place.row);
    }
    text
}

fn daq_timing(places: &[Place], cameras: CameraCount) -> String {
    let mut text = (0..4).map(|n| format!("Cam {n} Col,Cam {n} Row")).collect::<Vec<_>>().join(",") + "\n";
    for step in places.chunks(cameras.count() as usize) {
        let fields = (0..4).map(|camera| {
            let place = step.iter().find(|place| place.camera == camera);
            place.map_or_else(|| "-1,-1".to_owned(), |place| format!("{},{}", place.col, place.row))
        });
        text += &fields.collect::<Vec<_>>().join(",");
        text.push('\n');
    }
    text
}

/// A specimen: cell-like bands on a smooth ground, by value noise on two lattices.
struct Texture {
    seed: u64,
}

/// Distance of the lattice's points, pixels: coarse and fine.
const LATTICE: [u32; 2] = [96, 17];

impl Texture {
    fn new(seed: u64) -> Self {
        Self { seed }
    }

    /// A row of `width` grey values, 0..=255, at (`x`, `y`) of the specimen.
    fn row(&self, x: u32, y: u32, out: &mut [u8]) {
        let mut smooth = vec![[0f32; 2]; out.len()];
        for (n, step) in LATTICE.into_iter().enumerate() {
            let (v, fy) = (y / step, (y % step) as f32 / step as f32);
            let column = |u: u32| {
                let low = self.lattice(n as u64, u, v);
                low + (self.lattice(n as u64, u, v + 1) - low) * fy
            };
            let (mut u, mut left, mut right) = (x / step, column(x / step), column(x / step + 1));
            for (value, x) in smooth.iter_mut().zip(x..) {
                if x / step != u {
                    (u, left, right) = (x / step, right, column(x / step + 1));
                }
                value[n] = left + (right - left) * ((x % step) as f32 / step as f32);
            }
        }
        let mut grain = mix(self.seed ^ (u64::from(x) << 32) ^ u64::from(y)) | 1;
        for (pixel, [coarse, fine]) in out.iter_mut().zip(smooth) {
            grain ^= grain << 13;
            grain ^= grain >> 7;
            grain ^= grain << 17;
            let membrane = if (coarse * 9.0).fract() < 0.12 { 90 } else { 0 };
            let ground = 110 + Self::grey(coarse * 70.0) + Self::grey(fine * 40.0);
            let noise = u8::try_from(grain & 31).unwrap_or(0);
            *pixel = ground.saturating_add(noise).saturating_sub(membrane);
        }
    }

    /// A lattice point's value, 0..1.
    fn lattice(&self, layer: u64, u: u32, v: u32) -> f32 {
        let hash = mix(self.seed ^ (layer << 60) ^ (u64::from(u) << 30) ^ u64::from(v));
        f32::from(u16::try_from(hash >> 48).unwrap_or(0)) / 65536.0
    }

    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // Callers keep the value within 0..=255.
    fn grey(value: f32) -> u8 {
        value as u8
    }
}

fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 31)).wrapping_mul(0x7fb5_d329_728e_a185);
    x = (x ^ (x >> 27)).wrapping_mul(0x81da_def4_bc2d_d44d);
    x ^ (x >> 33)
}

fn render(options: &SimulateOptions, texture: &Texture, place: Place) -> Result<Vec<u8>, FormatError> {
    let (width, height) = (options.width, options.height);
    let (left, top) = (place.col * (width - width / OVERLAP), place.row * (height - height / OVERLAP));
    let mut pixels = vec![0; width as usize * height as usize];
    for (row, y) in pixels.chunks_mut(width as usize).zip(top..) {
        texture.row(left, y, row);
    }
    match options.bits {
        Bits::Eight => encode_gray8(width, height, &pixels),
        Bits::Sixteen => {
            let pixels: Vec<u16> = pixels.iter().map(|grey| u16::from(*grey) * 257).collect();
            encode_gray16(width, height, &pixels)
        }
    }
}

/// Writes a file under a temporary name, then gives it its own: nobody ever sees half of it.
fn write(path: &Path, bytes: &[u8]) -> Result<(), SimulateError> {
    let failed = |source| SimulateError::Write { path: path.to_owned(), source };
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(failed)?;
    }
    let partial = path.with_extension("part");
    std::fs::write(&partial, bytes).and_then(|()| std::fs::rename(&partial, path)).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::{AcquisitionFolder, AcquisitionLog};
    use crate::model::GridShape;

    fn options() -> SimulateOptions {
        SimulateOptions {
            acq: AcqId(77),
            cameras: CameraCount::Four,
            x_steps: 2,
            y_steps: 3,
            width: 40,
            height: 30,
            bits: Bits::Eight,
            seed: 5,
        }
    }

    #[test]
    fn a_simulated_folder_is_an_acquisition() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let made = simulate(dir.path(), &options(), &mut |_, _| {}).expect("written");
        let folder = AcquisitionFolder::open(&made.folder).expect("a folder");
        let log = std::fs::read(folder.log_path()).expect("a log");
        let (facts, warnings) = AcquisitionLog::parse(&log).expect("a good log");
        assert!(warnings.is_empty(), "{warnings:?}");
        assert_eq!(facts.grid(), GridShape { cols: 4, rows: 6 });
        let listing = folder.tiles().expect("readable");
        assert_eq!((listing.tiles.len(), listing.skipped.len(), made.tiles), (24, 0, 24));
        let cameras: Vec<i32> = listing.tiles.iter().take(4).map(|tile| tile.name.camera).collect();
        assert_eq!(cameras, [0, 1, 2, 3], "the first step's four tiles come first");
        let again = simulate(dir.path(), &options(), &mut |_, _| {}).expect_err("not empty");
        assert!(matches!(again, SimulateError::NotEmpty(_)));
    }

    #[test]
    fn texture_goes_on_from_tile_to_tile() {
        let texture = Texture::new(9);
        let (mut whole, mut part) = (vec![0; 200], vec![0; 100]);
        texture.row(0, 11, &mut whole);
        texture.row(100, 11, &mut part);
        // Equal but for the grain, which is at most 31 grey values.
        assert!(whole[100..].iter().zip(&part).all(|(a, b)| a.abs_diff(*b) <= 31));
    }
}
