//! An acquisition folder as microscopes leave it: the log, its companions, tiles in `col*/`, drift frames in `Dump__*/`.
//!
//! Owns what lies where and the order in which tiles are sent. Must never open a tile or change a file; what it does not
//! know it reports as skipped.

use super::daq_timing::{GridPosition, parse_daq_timing};
use super::{FormatError, TileName, acq_id_from_file_name};
use crate::model::AcqId;
use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Names that begin like this are ours: notes beside the microscope's files, never part of the acquisition.
pub const OWN_FILES: &str = ".tilecatcher-";
const LOG_SUFFIX: &str = "_logfile.ini";

/// A folder with one acquisition.
#[derive(Clone, Debug)]
pub struct AcquisitionFolder {
    dir: PathBuf,
    acq: AcqId,
    log: PathBuf,
    roi_spec: Option<PathBuf>,
    roi_tiles: Option<PathBuf>,
    daq_timing: Option<PathBuf>,
    mosaic: Option<PathBuf>,
    warnings: Vec<String>,
}

/// A tile's file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FolderTile {
    /// The file.
    pub path: PathBuf,
    /// What its name says.
    pub name: TileName,
}

/// The tiles of a folder.
#[derive(Clone, Debug, Default)]
pub struct TileListing {
    /// Stable tiles, then drift frames, each in the order in which they are sent.
    pub tiles: Vec<FolderTile>,
    /// What lies in tile directories and is no tile by its name.
    pub skipped: Vec<PathBuf>,
}

impl AcquisitionFolder {
    /// Finds the log and its companions.
    ///
    /// # Errors
    /// The folder can not be read, has not exactly one `*_logfile.ini`, or that begins with no acquisition's number.
    pub fn open(dir: &Path) -> Result<Self, FormatError> {
        let files: Vec<PathBuf> = entries(dir)?.into_iter().filter(|path| path.is_file()).collect();
        let ending = |suffix: &str| files.iter().filter(|path| file_name(path).ends_with(suffix)).collect::<Vec<_>>();
        let mut warnings = Vec::new();
        let mut companion = |suffix: &str| {
            let found = ending(suffix);
            if found.len() > 1 {
                warnings.push(format!("{}: {} files end in {suffix}, the first is taken", dir.display(), found.len()));
            }
            found.first().map(|path| path.to_path_buf())
        };
        let (roi_spec, roi_tiles) = (companion("_ROI_spec.ini"), companion("_ROI_tiles.csv"));
        let (daq_timing, mosaic) = (companion("_DAQ timing.csv"), companion("_mosaic.png"));
        let log = only_log(dir, &ending(LOG_SUFFIX))?;
        let acq = acq_id_from_file_name(&file_name(&log)).map_err(|error| FormatError::at(&log, error))?;
        warnings.extend(prefix_warning(dir, acq));
        Ok(Self { dir: dir.to_owned(), acq, log, roi_spec, roi_tiles, daq_timing, mosaic, warnings })
    }

    /// The acquisition's identifier, as the log's name gives it.
    #[must_use]
    pub fn acq(&self) -> AcqId {
        self.acq
    }

    /// `*_logfile.ini`.
    #[must_use]
    pub fn log_path(&self) -> &Path {
        &self.log
    }

    /// The log's base name.
    #[must_use]
    pub fn log_name(&self) -> String {
        file_name(&self.log)
    }

    /// `*_ROI_spec.ini`.
    #[must_use]
    pub fn roi_spec_path(&self) -> Option<&Path> {
        self.roi_spec.as_deref()
    }

    /// `*_ROI_tiles.csv`.
    #[must_use]
    pub fn roi_tiles_path(&self) -> Option<&Path> {
        self.roi_tiles.as_deref()
    }

    /// `*_DAQ timing.csv`.
    #[must_use]
    pub fn daq_timing_path(&self) -> Option<&Path> {
        self.daq_timing.as_deref()
    }

    /// `*_mosaic.png`.
    #[must_use]
    pub fn mosaic_path(&self) -> Option<&Path> {
        self.mosaic.as_deref()
    }

    /// What looks wrong and does not hinder: a folder named after another acquisition, a companion found twice.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Lists the tiles: in the order of the DAQ timing table where there is one, those not in it after the others; each
    /// part by column, row and camera. Drift frames follow, by their stable tile's place and frame.
    ///
    /// # Errors
    /// A directory or the timing table can not be read.
    pub fn tiles(&self) -> Result<TileListing, FormatError> {
        self.list(&self.steps()?)
    }

    /// Lists the tiles by column, row and camera, then the drift frames; the timing table is not looked at.
    ///
    /// # Errors
    /// A directory can not be read.
    pub fn tiles_by_place(&self) -> Result<TileListing, FormatError> {
        self.list(&HashMap::new())
    }

    /// The files beside the tiles, by name, without the log, the ROI files, and ours ([`OWN_FILES`]).
    ///
    /// # Errors
    /// The folder can not be read.
    pub fn other_files(&self) -> Result<Vec<PathBuf>, FormatError> {
        let known = [Some(self.log.as_path()), self.roi_spec_path(), self.roi_tiles_path()];
        let is_other = |path: &PathBuf| {
            path.is_file() && !known.contains(&Some(path.as_path())) && !file_name(path).starts_with(OWN_FILES)
        };
        Ok(entries(&self.dir)?.into_iter().filter(is_other).collect())
    }

    fn list(&self, steps: &HashMap<GridPosition, usize>) -> Result<TileListing, FormatError> {
        let mut listing = TileListing::default();
        for dir in entries(&self.dir)?.into_iter().filter(|path| is_tile_directory(&file_name(path))) {
            // One that can not be looked at may have tiles in it.
            if fs::metadata(&dir).map_err(|error| FormatError::at(&dir, error))?.is_dir() {
                listing.add(entries(&dir)?);
            }
        }
        listing.tiles.sort_by_key(|FolderTile { name: TileName { camera, col, row, frame }, .. }| {
            let step = steps.get(&GridPosition { col: *col, row: *row }).copied().unwrap_or(usize::MAX);
            (!frame.is_stable(), step, *col, *row, *camera, *frame)
        });
        Ok(listing)
    }

    /// The step at which each place was first taken; nothing without a timing table.
    fn steps(&self) -> Result<HashMap<GridPosition, usize>, FormatError> {
        let mut first = HashMap::new();
        if let Some(path) = &self.daq_timing {
            let bytes = fs::read(path).map_err(|error| FormatError::at(path, error))?;
            let steps = parse_daq_timing(&bytes).map_err(|error| FormatError::at(path, error))?;
            for (place, n) in steps.into_iter().flatten().flatten().zip(0..) {
                first.entry(place).or_insert(n);
            }
        }
        Ok(first)
    }
}

impl TileListing {
    /// The stable tiles.
    #[must_use]
    pub fn stable(&self) -> &[FolderTile] {
        &self.tiles[..self.first_drift_frame()]
    }

    /// The drift frames.
    #[must_use]
    pub fn drift_frames(&self) -> &[FolderTile] {
        &self.tiles[self.first_drift_frame()..]
    }

    fn first_drift_frame(&self) -> usize {
        self.tiles.partition_point(|tile| tile.name.frame.is_stable())
    }

    fn add(&mut self, paths: Vec<PathBuf>) {
        for path in paths {
            match file_name(&path).parse() {
                // One that can not be looked at is a tile that can not be read.
                Ok(name) if fs::metadata(&path).map_or(true, |found| found.is_file()) => {
                    self.tiles.push(FolderTile { path, name });
                }
                _ => self.skipped.push(path),
            }
        }
    }
}

fn only_log(dir: &Path, logs: &[&PathBuf]) -> Result<PathBuf, FormatError> {
    match logs {
        [log] => Ok(log.to_path_buf()),
        [] => Err(FormatError::at(dir, format!("no *{LOG_SUFFIX} here: is this an acquisition folder?"))),
        several => {
            let names: Vec<String> = several.iter().map(|path| file_name(path)).collect();
            Err(FormatError::at(dir, format!("more than one *{LOG_SUFFIX}, keep one: {}", names.join(", "))))
        }
    }
}

/// A warning where the folder's own name carries another number than the log's.
fn prefix_warning(dir: &Path, acq: AcqId) -> Option<String> {
    let named = acq_id_from_file_name(&file_name(dir)).ok().filter(|named| *named != acq)?;
    Some(format!("{}: named after acquisition {named}, but its log is of {acq}", dir.display()))
}

/// What lies in a directory, by name.
fn entries(dir: &Path) -> Result<Vec<PathBuf>, FormatError> {
    let listed: Result<Vec<PathBuf>, _> =
        fs::read_dir(dir).and_then(|entries| entries.map(|entry| entry.map(|entry| entry.path())).collect());
    let mut paths = listed.map_err(|error| FormatError::at(dir, error))?;
    paths.sort();
    Ok(paths)
}

/// Tiles, or drift frames, lie in a directory of this name.
#[must_use]
pub fn is_tile_directory(name: &str) -> bool {
    name.starts_with("col") || name.starts_with("Dump__")
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder called `9_2x2` with these files, each holding its text.
    struct Folder(tempfile::TempDir);

    impl Folder {
        fn with(files: &[(&str, &str)]) -> Self {
            let folder = Self(tempfile::tempdir().expect("a temporary directory"));
            fs::create_dir(folder.dir()).expect("made");
            for (name, text) in files {
                let path = folder.dir().join(name);
                fs::create_dir_all(path.parent().expect("inside the folder")).expect("made");
                fs::write(path, text).expect("written");
            }
            folder
        }

        fn dir(&self) -> PathBuf {
            self.0.path().join("9_2x2")
        }

        fn open(&self) -> AcquisitionFolder {
            AcquisitionFolder::open(&self.dir()).expect("an acquisition folder")
        }

        fn problem(&self) -> String {
            AcquisitionFolder::open(&self.dir()).expect_err("no acquisition folder").to_string()
        }
    }

    fn places(tiles: &[FolderTile]) -> Vec<(u32, u32, i32)> {
        tiles.iter().map(|tile| (tile.name.col, tile.name.row, tile.name.frame.0)).collect()
    }

    #[test]
    fn the_log_and_its_companions_are_found() {
        let names = ["9_2x2_logfile.ini", "9_2x2_ROI_spec.ini", "9_2x2_ROI_tiles.csv", "9_2x2_DAQ timing.csv"];
        let folder = Folder::with(&names.map(|name| (name, "")));
        let open = folder.open();
        assert_eq!((open.acq(), open.log_name().as_str()), (AcqId(9), names[0]));
        let found = [Some(open.log_path()), open.roi_spec_path(), open.roi_tiles_path(), open.daq_timing_path()];
        assert_eq!(found.map(|path| path.map(file_name)), names.map(|name| Some(name.to_owned())));
        assert_eq!((open.mosaic_path(), open.warnings().len()), (None, 0));
    }

    #[test]
    fn a_folder_must_hold_exactly_one_log_with_a_number() {
        let none = Folder::with(&[]);
        assert!(none.problem().starts_with(&format!("{}: no *_logfile.ini", none.dir().display())));
        let two = Folder::with(&[("9_a_logfile.ini", ""), ("9_b_logfile.ini", "")]).problem();
        assert!(two.contains("9_a_logfile.ini, 9_b_logfile.ini"), "{two}");
        let unnumbered = Folder::with(&[("x_logfile.ini", "")]).problem();
        assert!(unnumbered.contains("x_logfile.ini: "), "{unnumbered}");
        assert!(AcquisitionFolder::open(Path::new("/no/such/folder")).is_err());
    }

    #[test]
    fn a_folder_named_after_another_acquisition_is_a_warning() {
        let open = Folder::with(&[("8_logfile.ini", "")]).open();
        assert_eq!(open.acq(), AcqId(8));
        assert!(
            open.warnings()[0].ends_with("named after acquisition 9, but its log is of 8"),
            "{:?}",
            open.warnings()
        );
    }

    #[test]
    fn without_timing_tiles_come_by_column_row_and_camera_whatever_their_directory() {
        let folder = Folder::with(&[
            ("9_logfile.ini", ""),
            ("col0010/col0010_row0000_cam0.tif", ""),
            ("col2/col2_row1_cam0.tif", ""),
            ("col2/col2_row0_cam1.tif", ""),
            ("columns/col0000_row0005_cam0.tif", ""),
            ("other/col0000_row0000_cam0.tif", ""),
        ]);
        let listing = folder.open().tiles().expect("readable");
        assert_eq!(places(&listing.tiles), [(0, 5, -1), (2, 0, -1), (2, 1, -1), (10, 0, -1)]);
        assert!(listing.drift_frames().is_empty() && listing.skipped.is_empty());
    }

    #[test]
    fn timing_gives_the_order_by_the_first_visit_and_the_rest_follows() {
        let folder = Folder::with(&[
            ("9_logfile.ini", ""),
            ("9_DAQ timing.csv", "Cam 0 Col,Cam 0 Row,Cam 1 Col,Cam 1 Row\n1,1,1,0\n-1,-1,0,1\n1,1,,\n"),
            ("col0000/col0000_row0000_cam0.tif", ""),
            ("col0000/col0000_row0001_cam1.tif", ""),
            ("col0001/col0001_row0000_cam1.tif", ""),
            ("col0001/col0001_row0001_cam0.tif", ""),
        ]);
        let listing = folder.open().tiles().expect("readable");
        assert_eq!(places(&listing.tiles), [(1, 1, -1), (1, 0, -1), (0, 1, -1), (0, 0, -1)]);
    }

    #[test]
    fn drift_frames_are_apart_and_strangers_are_skipped_not_errors() {
        let folder = Folder::with(&[
            ("9_logfile.ini", ""),
            ("Dump__9/Dump_cam0_frame000002_col0000_row0000.tif", ""),
            ("Dump__9/Dump_cam0_frame000001_col0000_row0000.tif", ""),
            ("col0000/col0000_row0000_cam0.tif", ""),
            ("col0000/Thumbs.db", ""),
            ("col0000/col0000_row0001_cam0.tif/inside", ""),
        ]);
        let listing = folder.open().tiles().expect("readable");
        assert_eq!(places(listing.stable()), [(0, 0, -1)]);
        assert_eq!(places(listing.drift_frames()), [(0, 0, 1), (0, 0, 2)]);
        let skipped: Vec<String> = listing.skipped.iter().map(|path| file_name(path)).collect();
        assert_eq!(skipped, ["Thumbs.db", "col0000_row0001_cam0.tif"]);
    }

    #[test]
    fn a_bad_timing_table_is_named_with_its_line() {
        let folder = Folder::with(&[("9_logfile.ini", ""), ("9_DAQ timing.csv", "Cam 0 Col,Cam 0 Row\nx,1\n")]);
        let error = folder.open().tiles().expect_err("a bad table").to_string();
        assert!(error.ends_with("9_DAQ timing.csv: line 2: \"x\" is no column or row"), "{error}");
    }
}
