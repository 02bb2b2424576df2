//! An acquisition folder as microscopes write it: the log, companion files, tiles in `col%04d/`, drift frames in `Dump__*/`.

use super::daq_timing::parse_daq_timing;
use super::tile_name::TileName;
use super::{FormatError, acq_id_from_file_name};
use crate::model::AcqId;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

const LOG_SUFFIX: &str = "_logfile.ini";
const TIMING_SUFFIX: &str = "_DAQ timing.csv";

/// A folder with one acquisition.
#[derive(Clone, Debug)]
pub struct AcquisitionFolder {
    dir: PathBuf,
    log: PathBuf,
    timing: Option<PathBuf>,
    acq: AcqId,
}

/// A tile's file.
#[derive(Clone, Debug)]
pub struct FolderTile {
    /// The file.
    pub path: PathBuf,
    /// What its name says.
    pub name: TileName,
}

/// The tiles of a folder.
#[derive(Clone, Debug, Default)]
pub struct TileListing {
    /// Stable tiles, then drift frames, in the order in which they are sent.
    pub tiles: Vec<FolderTile>,
    /// Files in tile directories that are no tiles by their name.
    pub skipped: Vec<PathBuf>,
}

impl AcquisitionFolder {
    /// Finds the log and the companion files.
    ///
    /// # Errors
    /// The folder can not be read, or has not exactly one `*_logfile.ini`.
    pub fn open(dir: &Path) -> Result<Self, FormatError> {
        let names = list(dir)?;
        let with_suffix = |suffix: &str| -> Vec<&PathBuf> {
            names.iter().filter(|path| path.to_string_lossy().ends_with(suffix)).collect()
        };
        let problem = |problem: String| FormatError::Path { path: dir.to_owned(), problem };
        let log = match with_suffix(LOG_SUFFIX)[..] {
            [log] => log.clone(),
            [] => return Err(problem(format!("no *{LOG_SUFFIX} here: is this an acquisition folder?"))),
            ref several => return Err(problem(format!("{} files end in {LOG_SUFFIX}: keep one", several.len()))),
        };
        let acq = acq_id_from_file_name(&log.to_string_lossy()).map_err(|error| problem(error.to_string()))?;
        let timing = with_suffix(TIMING_SUFFIX).first().map(|path| (*path).clone());
        Ok(Self { dir: dir.to_owned(), log, timing, acq })
    }

    /// The acquisition's identifier.
    #[must_use]
    pub fn acq(&self) -> AcqId {
        self.acq
    }

    /// The log file.
    #[must_use]
    pub fn log_path(&self) -> &Path {
        &self.log
    }

    /// The log file's base name.
    #[must_use]
    pub fn log_name(&self) -> String {
        self.log.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// Lists the tiles: in the order of the DAQ timing file where there is one, else by column, row and camera.
    ///
    /// # Errors
    /// A directory or the timing file can not be read.
    pub fn tiles(&self) -> Result<TileListing, FormatError> {
        let mut listing = TileListing::default();
        for dir in list(&self.dir)?.into_iter().filter(|path| path.is_dir()) {
            let name = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if name.starts_with("col") || name.starts_with("Dump__") {
                listing.add_directory(&dir)?;
            }
        }
        let order = self.timing_order()?;
        listing.tiles.sort_by_key(|FolderTile { name, .. }| {
            let step = order.get(&(name.col, name.row)).copied().unwrap_or(usize::MAX);
            (!name.frame.is_stable(), step, name.col, name.row, name.camera, name.frame)
        });
        Ok(listing)
    }

    /// The step at which each position was taken; empty without a timing file.
    fn timing_order(&self) -> Result<HashMap<(u32, u32), usize>, FormatError> {
        let Some(path) = &self.timing else { return Ok(HashMap::new()) };
        let problem = |problem: String| FormatError::Path { path: path.clone(), problem };
        let text = std::fs::read(path).map_err(|error| problem(error.to_string()))?;
        let steps = parse_daq_timing(&String::from_utf8_lossy(&text)).map_err(|error| problem(error.to_string()))?;
        let positions = steps.into_iter().flatten().flatten();
        Ok(positions.enumerate().map(|(step, position)| (position, step)).collect())
    }
}

impl TileListing {
    fn add_directory(&mut self, dir: &Path) -> Result<(), FormatError> {
        for path in list(dir)? {
            match path.to_string_lossy().parse() {
                Ok(name) => self.tiles.push(FolderTile { path, name }),
                Err(_) => self.skipped.push(path),
            }
        }
        Ok(())
    }
}

fn list(dir: &Path) -> Result<Vec<PathBuf>, FormatError> {
    let problem = |error: std::io::Error| FormatError::Path { path: dir.to_owned(), problem: error.to_string() };
    let mut paths = std::fs::read_dir(dir)
        .and_then(|entries| entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>())
        .map_err(problem)?;
    paths.sort();
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_without_one_log_says_so() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let none = AcquisitionFolder::open(dir.path()).expect_err("no log");
        assert!(none.to_string().contains("no *_logfile.ini"), "{none}");
        for name in ["1_a_logfile.ini", "1_b_logfile.ini"] {
            std::fs::write(dir.path().join(name), "").expect("write");
        }
        let two = AcquisitionFolder::open(dir.path()).expect_err("two logs");
        assert!(two.to_string().contains("2 files"), "{two}");
    }

    #[test]
    fn tiles_come_in_daq_order_drift_frames_last_and_strangers_are_listed() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let put = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().expect("inside the folder")).expect("make directory");
            std::fs::write(path, text).expect("write");
        };
        put("9_x_logfile.ini", "");
        put("9_x_DAQ timing.csv", "Cam 0 Col,Cam 0 Row\n1,0\n0,0\n");
        for name in ["col0000/col0000_row0000_cam0.tif", "col0001/col0001_row0000_cam0.tif", "col0001/notes.txt"] {
            put(name, "x");
        }
        put("Dump__9_x/Dump_cam0_frame000001_col0001_row0000.tif", "x");
        let folder = AcquisitionFolder::open(dir.path()).expect("a folder");
        let listing = folder.tiles().expect("readable");
        let order: Vec<(u32, i32)> = listing.tiles.iter().map(|tile| (tile.name.col, tile.name.frame.0)).collect();
        assert_eq!(order, [(1, -1), (0, -1), (1, 1)]);
        assert_eq!(listing.skipped.len(), 1);
        assert_eq!(folder.acq(), AcqId(9));
    }
}
