//! A microscope without a microscope: writes a whole acquisition folder (log, ROI files, DAQ timing, TIFF tiles).
//!
//! Owns the synthetic specimen and the folder's content; the same options give the same tiles. Must never write into a
//! folder that holds something, nor leave half a file under its final name.

use crate::formats::{FormatError, GridPosition, TileName, encode_gray8, encode_gray16};
use crate::model::{AcqId, AcquisitionFacts, CameraCount, FrameNumber, GridShape};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// What to simulate.
#[derive(Clone, Copy, Debug)]
pub struct SimulateOptions {
    /// The acquisition's identifier, above 0.
    pub acq: AcqId,
    /// One camera, or four that take a block of 2 x 2 tiles at each step.
    pub cameras: CameraCount,
    /// Stage steps in x.
    pub x_steps: u32,
    /// Stage steps in y.
    pub y_steps: u32,
    /// Tile width, pixels.
    pub width: u32,
    /// Tile height, pixels.
    pub height: u32,
    /// Bits a pixel.
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
    /// Bytes of all tiles' files.
    pub bytes: u64,
}

/// Why the folder was not written, or not to its end.
#[derive(Debug, thiserror::Error)]
pub enum SimulateError {
    /// Options that make no acquisition: change them.
    #[error("nothing to simulate: {0} must be above 0")]
    Zero(&'static str),
    /// More columns, rows or pixels than can be counted: ask for fewer.
    #[error("too large: {0}")]
    TooLarge(String),
    /// The folder holds something: remove it, or choose another number.
    #[error("{0}: exists and is not empty")]
    NotEmpty(PathBuf),
    /// A file or directory can not be written.
    #[error("{path}: {source}")]
    Write {
        /// Which.
        path: PathBuf,
        /// The operating system's answer.
        source: std::io::Error,
    },
    /// A tile can not be encoded.
    #[error(transparent)]
    Image(#[from] FormatError),
}

/// Neighbouring tiles share one part in this many of their width and height.
const OVERLAP: u32 = 10;

/// Most pixels of a tile: 16 bits each of them fit into a TIFF.
const PIXELS_MAX: u64 = 1 << 30;

/// A tile to take.
#[derive(Clone, Copy)]
struct Shot {
    camera: i32,
    place: GridPosition,
}

/// Writes `<acq>_<cols>x<rows>/` below `dir`. `progress` is called with (tiles written, tiles in all) after each tile.
///
/// # Errors
/// Options of 0 or too large; the folder is not empty; it can not be written.
pub fn simulate(
    dir: &Path,
    options: &SimulateOptions,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Simulated, SimulateError> {
    let grid = checked_grid(options)?;
    let base = format!("{}_{}x{}", options.acq, grid.cols, grid.rows);
    let folder = empty_folder(dir.join(&base))?;
    let write_text = |suffix: &str, text: String| write(&folder.join(format!("{base}_{suffix}")), text.as_bytes());
    write_text("logfile.ini", log_text(options))?;
    write_text("ROI_spec.ini", "[Inclusion Section Numbers]\nRegion 0 = \"1\"\n".to_owned())?;
    write_text("ROI_tiles.csv", roi_tiles_text(grid))?;
    write_text("DAQ timing.csv", daq_timing_text(options))?;

    let total = u64::from(grid.cols) * u64::from(grid.rows);
    let mut made = Simulated { folder, tiles: 0, bytes: 0 };
    let mut painter = Painter::new(options);
    for shot in steps(options).flatten() {
        let image = painter.tile(shot.place)?;
        write(&tile_path(&made.folder, shot)?, &image)?;
        made.tiles += 1;
        made.bytes += image.len() as u64;
        progress(made.tiles, total);
    }
    Ok(made)
}

fn checked_grid(options: &SimulateOptions) -> Result<GridShape, SimulateError> {
    let SimulateOptions { acq, cameras, x_steps, y_steps, width, height, .. } = *options;
    let sizes = [("steps in x", x_steps), ("steps in y", y_steps), ("width", width), ("height", height)];
    if let Some((what, _)) = sizes.into_iter().find(|(_, size)| *size == 0) {
        return Err(SimulateError::Zero(what));
    }
    if acq.0 == 0 {
        return Err(SimulateError::Zero("the acquisition's number"));
    }
    if u64::from(width) * u64::from(height) > PIXELS_MAX {
        return Err(SimulateError::TooLarge(format!("a tile of {width} x {height}, at most {PIXELS_MAX} pixels")));
    }
    if x_steps.max(y_steps) > u32::MAX / 2 {
        return Err(SimulateError::TooLarge(format!("{x_steps} x {y_steps} steps")));
    }
    Ok(AcquisitionFacts { cameras, x_steps, y_steps, ..AcquisitionFacts::default() }.grid())
}

fn empty_folder(folder: PathBuf) -> Result<PathBuf, SimulateError> {
    let failed = |source| SimulateError::Write { path: folder.clone(), source };
    fs::create_dir_all(&folder).map_err(failed)?;
    if fs::read_dir(&folder).map_err(failed)?.next().is_some() {
        return Err(SimulateError::NotEmpty(folder));
    }
    Ok(folder)
}

/// The tiles of each step, in the order of time: the stage goes along a column of blocks, then to the next column.
fn steps(options: &SimulateOptions) -> impl Iterator<Item = Vec<Shot>> {
    let SimulateOptions { cameras, x_steps, y_steps, .. } = *options;
    (0..x_steps).flat_map(move |x| (0..y_steps).map(move |y| step(cameras, x, y)))
}

fn step(cameras: CameraCount, x: u32, y: u32) -> Vec<Shot> {
    match cameras {
        CameraCount::One => vec![Shot { camera: 0, place: GridPosition { col: x, row: y } }],
        CameraCount::Four => {
            let block = [(0, 0, 0), (1, 1, 0), (2, 0, 1), (3, 1, 1)];
            block
                .map(|(camera, dx, dy)| Shot { camera, place: GridPosition { col: 2 * x + dx, row: 2 * y + dy } })
                .into()
        }
    }
}

/// Distance of neighbouring tiles, pixels.
fn pitch(pixels: u32) -> u32 {
    pixels - pixels / OVERLAP
}

/// A big step is three small ones, as on TEMCA microscopes: four columns are a small and a big step wide.
fn log_text(options: &SimulateOptions) -> String {
    let date = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).strftime("%m/%d/%Y     %I:%M:%S %p");
    let others = if options.cameras == CameraCount::Four { "TRUE" } else { "FALSE" };
    let (x_small, y_small) = (u64::from(pitch(options.width)), u64::from(pitch(options.height)));
    let SimulateOptions { x_steps, y_steps, seed, .. } = options;
    let (x_big, y_big) = (3 * x_small, 3 * y_small);
    format!(
        "[General]\nDate = \"{date}\"\nSample name = \"simulated {seed}\"\nSection number = \"1\"\n\
         Microscopist name = \"tilecatcher simulate\"\nNotes = \"synthetic specimen\\0Aseed {seed}\"\n\n\
         [Camera Connections]\nAcq1 = TRUE\nAcq2 = {others}\nAcq3 = {others}\nAcq4 = {others}\n\n\
         [Machine IDs]\nTEM IP address = \"127.0.0.1\"\n\n\
         [Mosaic Settings]\nNumber of X steps = {x_steps}\nNumber of Y steps = {y_steps}\n\
         X big step (pix) = {x_big}\nX sm step (pix) = {x_small}\n\
         Y big step (pix) = {y_big}\nY sm step (pix) = {y_small}\n\
         Center X (m) = 0\nCenter Y (m) = 0\nTEM Y (m) = 0\n\n\
         [TEM Settings]\nPixels per um = \"250\"\nMagnification = \"3000\"\n\n\
         [ImageCatcher]\nproject = simulation\nowner = tilecatcher\nstack = simulated\nmosaicType = synthetic\n"
    )
}

/// Every tile lies in the one section.
fn roi_tiles_text(grid: GridShape) -> String {
    let mut text = "Col,Row,Inclusion,Excluded?,Included?,# Inclusions,Section number\n".to_owned();
    for col in 0..grid.cols {
        for row in 0..grid.rows {
            writeln!(text, "{col},{row},0,0,1,1,1").expect("a String takes every text");
        }
    }
    text
}

fn daq_timing_text(options: &SimulateOptions) -> String {
    let header = [0, 1, 2, 3].map(|camera| format!("Cam {camera} Col,Cam {camera} Row")).join(",");
    let mut text = header + "\n";
    for shots in steps(options) {
        let fields = [0, 1, 2, 3].map(|camera| {
            let shot = shots.iter().find(|shot| shot.camera == camera);
            shot.map_or("-1,-1".to_owned(), |shot| format!("{},{}", shot.place.col, shot.place.row))
        });
        text += &fields.join(",");
        text.push('\n');
    }
    text
}

fn tile_path(folder: &Path, shot: Shot) -> Result<PathBuf, SimulateError> {
    let Shot { camera, place: GridPosition { col, row } } = shot;
    let column = folder.join(format!("col{col:04}"));
    fs::create_dir_all(&column).map_err(|source| SimulateError::Write { path: column.clone(), source })?;
    Ok(column.join(TileName { camera, col, row, frame: FrameNumber::STABLE }.to_string()))
}

/// Writes a file under a temporary name, then gives it its own.
fn write(path: &Path, bytes: &[u8]) -> Result<(), SimulateError> {
    let mut partial = path.as_os_str().to_owned();
    partial.push(".part");
    let partial = PathBuf::from(partial);
    fs::write(&partial, bytes).and_then(|()| fs::rename(&partial, path)).map_err(|source| {
        let _ = fs::remove_file(&partial); // The write's own error is the one to tell.
        SimulateError::Write { path: path.to_owned(), source }
    })
}

/// Paints tiles of the specimen. Every pixel is a sum of three precomputed tables, so that painting costs little
/// more than copying: a smooth ground and dark membranes, both a function of the place in the specimen alone, and
/// the camera's noise, which differs from tile to tile.
struct Painter {
    options: SimulateOptions,
    ground: Table,
    membranes: Table,
    noise: Vec<u8>,
    /// The tile being painted, kept for the next.
    specimen: Vec<u8>,
    row_noise: Vec<u8>,
}

/// A square of `side` x `side` grey values that repeats without a seam.
struct Table {
    side: usize,
    values: Vec<u8>,
}

/// Sides without a common divisor: the specimen repeats only after their product, 1 254 400 pixels.
const GROUND_SIDE: u32 = 1024;
const MEMBRANE_SIDE: u32 = 1225;
/// Bytes of noise; rows start anywhere in them.
const NOISE_BYTES: usize = 1 << 20;

impl Painter {
    fn new(options: &SimulateOptions) -> Self {
        let seed = options.seed;
        let mut noise = Vec::with_capacity(NOISE_BYTES);
        noise.extend((0..NOISE_BYTES as u64 / 8).flat_map(|n| hash([seed, 4, n]).to_le_bytes()));
        let coarse = Lattice { seed: hash([seed, 1]), side: GROUND_SIDE, spacing: 64 };
        let fine = Lattice { seed: hash([seed, 2]), side: GROUND_SIDE, spacing: 16 };
        let cells = Lattice { seed: hash([seed, 3]), side: MEMBRANE_SIDE, spacing: 175 };
        Self {
            options: *options,
            ground: Table::new(GROUND_SIDE, |x, y| 70 + coarse.at(x, y) / 4 + fine.at(x, y) / 8),
            membranes: Table::new(MEMBRANE_SIDE, |x, y| membrane(cells.at(x, y))),
            noise,
            specimen: Vec::new(),
            row_noise: Vec::new(),
        }
    }

    fn tile(&mut self, place: GridPosition) -> Result<Vec<u8>, FormatError> {
        let SimulateOptions { width, height, bits, .. } = self.options;
        self.paint_specimen(place);
        match bits {
            Bits::Eight => {
                self.each_row(place, |grey, noise| *grey += noise / 4);
                encode_gray8(width, height, &self.specimen)
            }
            Bits::Sixteen => {
                let mut pixels = Vec::with_capacity(self.specimen.len());
                self.each_row(place, |grey, noise| pixels.push(u16::from_be_bytes([*grey, noise])));
                encode_gray16(width, height, &pixels)
            }
        }
    }

    /// What every tile that shows this part of the specimen shares: grey values of 0..=164, so that noise finds room.
    fn paint_specimen(&mut self, place: GridPosition) {
        let (width, height) = (self.options.width as usize, self.options.height as usize);
        let left = u64::from(place.col) * u64::from(pitch(self.options.width));
        let top = u64::from(place.row) * u64::from(pitch(self.options.height));
        self.specimen.resize(width * height, 0);
        for (row, y) in self.specimen.chunks_exact_mut(width).zip(top..) {
            self.ground.runs(left, y, row, |greys, table| greys.copy_from_slice(table));
            self.membranes.runs(left, y, row, |greys, table| {
                greys.iter_mut().zip(table).for_each(|(grey, dark)| *grey = grey.saturating_sub(*dark));
            });
        }
    }

    /// Calls `mix` for each pixel of the tile, row by row, with its byte of noise.
    fn each_row(&mut self, place: GridPosition, mut mix: impl FnMut(&mut u8, u8)) {
        let tile = hash([self.options.seed, u64::from(place.col), u64::from(place.row)]);
        for (row, y) in self.specimen.chunks_exact_mut(self.options.width as usize).zip(0..) {
            let mut from = modulo(hash([tile, y]), NOISE_BYTES);
            self.row_noise.clear();
            while self.row_noise.len() < row.len() {
                let run = (row.len() - self.row_noise.len()).min(NOISE_BYTES - from);
                self.row_noise.extend_from_slice(&self.noise[from..from + run]);
                from = 0;
            }
            row.iter_mut().zip(&self.row_noise).for_each(|(grey, noise)| mix(grey, *noise));
        }
    }
}

impl Table {
    fn new(side: u32, value: impl Fn(u32, u32) -> u8) -> Self {
        let values = (0..side).flat_map(|y| (0..side).map(move |x| (x, y))).map(|(x, y)| value(x, y)).collect();
        Self { side: side as usize, values }
    }

    /// Calls `apply` with each run of `row` and the table's values there; `row` begins at (`left`, `y`).
    fn runs(&self, left: u64, y: u64, row: &mut [u8], apply: impl Fn(&mut [u8], &[u8])) {
        let line = &self.values[modulo(y, self.side) * self.side..][..self.side];
        let mut from = modulo(left, self.side);
        let mut rest = row;
        while !rest.is_empty() {
            let run = rest.len().min(self.side - from);
            let (now, later) = rest.split_at_mut(run);
            apply(now, &line[from..from + run]);
            (rest, from) = (later, 0);
        }
    }
}

/// Random values at the points of a square lattice that repeats after `side`, with smooth values between them.
struct Lattice {
    seed: u64,
    side: u32,
    /// Distance of the points, a divisor of `side`, pixels.
    spacing: u32,
}

impl Lattice {
    fn at(&self, x: u32, y: u32) -> u8 {
        let (u, v, right, down) = (x / self.spacing, y / self.spacing, x % self.spacing, y % self.spacing);
        let between = |a: u32, b: u32, part: u32| (a * (self.spacing - part) + b * part) / self.spacing;
        let above = between(self.point(u, v), self.point(u + 1, v), right);
        let below = between(self.point(u, v + 1), self.point(u + 1, v + 1), right);
        u8::try_from(between(above, below, down)).expect("a mean of bytes is a byte")
    }

    fn point(&self, u: u32, v: u32) -> u32 {
        let points = self.side / self.spacing;
        u32::from(hash([self.seed, u64::from(u % points), u64::from(v % points)]).to_le_bytes()[0])
    }
}

/// How much darker a membrane makes a place: it follows the lines of equal height of a smooth field.
fn membrane(height: u8) -> u8 {
    const BAND: u8 = 48;
    const HALF_WIDTH: u8 = 5;
    let from_line = (height % BAND).abs_diff(BAND / 2);
    HALF_WIDTH.saturating_sub(from_line) * 16
}

fn modulo(number: u64, divisor: usize) -> usize {
    usize::try_from(number % divisor as u64).expect("below a usize")
}

/// A number that looks random and depends on all parts and their order.
fn hash<const N: usize>(parts: [u64; N]) -> u64 {
    parts.into_iter().fold(0x51_7c_c1_b7_27_22_0a_95, |state: u64, part| {
        let mixed = (state.rotate_left(23) ^ part).wrapping_mul(0xff51_afd7_ed55_8ccd);
        let mixed = (mixed ^ (mixed >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
        mixed ^ (mixed >> 29)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::{AcquisitionFolder, AcquisitionLog, dimensions};
    use std::collections::HashSet;

    const OPTIONS: SimulateOptions = SimulateOptions {
        acq: AcqId(77),
        cameras: CameraCount::Four,
        x_steps: 2,
        y_steps: 3,
        width: 40,
        height: 30,
        bits: Bits::Eight,
        seed: 5,
    };

    fn made(options: &SimulateOptions) -> (tempfile::TempDir, Simulated) {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let made = simulate(dir.path(), options, &mut |_, _| {}).expect("simulated");
        (dir, made)
    }

    fn facts(folder: &AcquisitionFolder) -> AcquisitionFacts {
        let log = fs::read(folder.log_path()).expect("a log");
        let (facts, warnings) = AcquisitionLog::parse(&log).expect("a good log");
        assert!(warnings.is_empty(), "{warnings:?}");
        facts
    }

    #[test]
    fn a_simulated_folder_opens_as_an_acquisition() {
        let (_dir, made) = made(&OPTIONS);
        assert!(made.folder.ends_with("77_4x6"));
        let folder = AcquisitionFolder::open(&made.folder).expect("an acquisition folder");
        assert_eq!((folder.acq(), folder.warnings().len()), (AcqId(77), 0));
        assert!(folder.roi_spec_path().is_some() && folder.roi_tiles_path().is_some());
        let listing = folder.tiles().expect("readable");
        assert_eq!((listing.stable().len(), listing.drift_frames().len(), listing.skipped.len()), (24, 0, 0));
        let sizes = listing.tiles.iter().map(|tile| fs::metadata(&tile.path).expect("a file").len());
        assert_eq!((made.tiles, made.bytes), (24, sizes.sum()));
        let step: Vec<_> =
            listing.tiles[4..8].iter().map(|tile| (tile.name.camera, tile.name.col, tile.name.row)).collect();
        assert_eq!(step, [(0, 0, 2), (1, 1, 2), (2, 0, 3), (3, 1, 3)], "the second step is a block of 2 x 2");
    }

    #[test]
    fn the_log_says_what_was_simulated() {
        let (_dir, four) = made(&OPTIONS);
        let facts_of_four = facts(&AcquisitionFolder::open(&four.folder).expect("an acquisition folder"));
        assert_eq!(facts_of_four.grid(), GridShape { cols: 4, rows: 6 });
        assert_eq!((facts_of_four.x_small_step_pix, facts_of_four.x_big_step_pix), (36, 108));
        let age = jiff::Timestamp::now().as_second() - facts_of_four.acquired_unix_s.expect("a date");
        assert!((0..60).contains(&age), "{age} s old");
        let (_dir, one) = made(&SimulateOptions { cameras: CameraCount::One, ..OPTIONS });
        assert!(one.folder.ends_with("77_2x3") && one.tiles == 6);
        assert_eq!(facts(&AcquisitionFolder::open(&one.folder).expect("a folder")).cameras, CameraCount::One);
    }

    #[test]
    fn tiles_are_tiffs_all_different_and_the_same_for_the_same_seed() {
        let images = |options: SimulateOptions| -> HashSet<Vec<u8>> {
            let (_dir, made) = made(&options);
            let listing = AcquisitionFolder::open(&made.folder).expect("a folder").tiles().expect("readable");
            listing.tiles.iter().map(|tile| fs::read(&tile.path).expect("a tile")).collect()
        };
        for bits in [Bits::Eight, Bits::Sixteen] {
            let options = SimulateOptions { bits, ..OPTIONS };
            let first = images(options);
            assert_eq!(first.len(), 24);
            assert!(first.iter().all(|image| dimensions(image).is_ok_and(|size| size == (40, 30))));
            assert_eq!(first, images(options));
            assert!(first.is_disjoint(&images(SimulateOptions { seed: 6, ..options })));
        }
    }

    #[test]
    fn neighbours_show_the_same_specimen_where_they_overlap() {
        let options = SimulateOptions { width: 2000, height: 20, ..OPTIONS };
        let mut painter = Painter::new(&options);
        let overlap = usize::try_from(options.width - pitch(options.width)).expect("small");
        painter.paint_specimen(GridPosition { col: 3, row: 1 });
        let left: Vec<u8> = painter.specimen[2000 - overlap..2000].to_vec();
        painter.paint_specimen(GridPosition { col: 4, row: 1 });
        assert_eq!(left, painter.specimen[..overlap]);
    }

    #[test]
    fn grey_values_leave_room_for_noise_and_are_not_flat() {
        let mut painter = Painter::new(&SimulateOptions { width: 3000, height: 1300, ..OPTIONS });
        painter.paint_specimen(GridPosition { col: 0, row: 0 });
        let range = (painter.specimen.iter().min().copied(), painter.specimen.iter().max().copied());
        assert!(range.0 < Some(60) && range.1 > Some(140) && range.1 <= Some(164), "{range:?}");
    }

    #[test]
    fn lattices_repeat_without_a_seam() {
        let lattice = Lattice { seed: 1, side: 1225, spacing: 175 };
        for y in 0..1225 {
            assert!(lattice.at(1224, y).abs_diff(lattice.at(0, y)) <= 3, "row {y}");
        }
    }

    #[test]
    fn a_folder_that_holds_something_is_left_alone() {
        let (dir, made) = made(&OPTIONS);
        let before = fs::read_dir(&made.folder).expect("readable").count();
        let again = simulate(dir.path(), &OPTIONS, &mut |_, _| {}).expect_err("not empty");
        assert!(matches!(again, SimulateError::NotEmpty(folder) if folder == made.folder));
        assert_eq!(fs::read_dir(&made.folder).expect("readable").count(), before);
    }

    #[test]
    fn progress_counts_every_tile_up_to_the_total() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut calls = Vec::new();
        simulate(dir.path(), &OPTIONS, &mut |done, total| calls.push((done, total))).expect("simulated");
        assert_eq!(calls, (1..=24).map(|done| (done, 24)).collect::<Vec<_>>());
    }

    #[test]
    fn impossible_options_are_refused_before_anything_is_written() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        for options in [
            SimulateOptions { acq: AcqId(0), ..OPTIONS },
            SimulateOptions { x_steps: 0, ..OPTIONS },
            SimulateOptions { height: 0, ..OPTIONS },
            SimulateOptions { width: u32::MAX, height: 2, ..OPTIONS },
            SimulateOptions { y_steps: u32::MAX, ..OPTIONS },
        ] {
            assert!(simulate(dir.path(), &options, &mut |_, _| {}).is_err(), "{options:?}");
        }
        assert_eq!(fs::read_dir(dir.path()).expect("readable").count(), 0);
    }

    #[test]
    fn far_columns_do_not_overflow() {
        let mut painter = Painter::new(&SimulateOptions { width: 5000, height: 2, ..OPTIONS });
        assert!(painter.tile(GridPosition { col: u32::MAX, row: u32::MAX }).is_ok());
    }
}
