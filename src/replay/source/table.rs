//! A DAQ timing table as a schedule: which camera takes which place when.

use super::{Feed, Kind, Place, Prepared, SourceError, SourceTile};
use crate::formats::{DaqStep, GridPosition, daq_step_times, parse_daq_timing};
use crate::model::FrameNumber;
use fastrand::Rng;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// What each camera takes, and when; each camera is a sender.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimingTable {
    /// Of each camera that takes anything.
    pub cameras: Vec<CameraTable>,
    /// How long the whole takes.
    pub lap: Duration,
    /// Columns that it takes.
    pub cols: u32,
    /// True when the table itself says when.
    pub timed: bool,
}

/// One camera's tiles.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CameraTable {
    /// The camera.
    pub camera: i32,
    /// Where.
    pub places: Arc<[GridPosition]>,
    /// When, nanoseconds from the first step.
    pub times: Arc<[u64]>,
}

/// A table as it was read.
pub struct TimingFile {
    steps: Vec<DaqStep>,
    /// Of each step, seconds from the first.
    times: Vec<f64>,
    /// True when the table itself says when.
    timed: bool,
}

impl TimingFile {
    /// Reads a table. Steps follow one another after `step` where the table has no times.
    ///
    /// # Errors
    /// It can not be read, takes no tile, or has no times and no `step` was given.
    pub fn read(path: &Path, step: Option<Duration>) -> Result<Self, SourceError> {
        let unusable =
            |problem: &dyn ToString| SourceError::Unusable(format!("{}: {}", path.display(), problem.to_string()));
        let bytes = std::fs::read(path).map_err(|error| unusable(&error))?;
        let steps = parse_daq_timing(&bytes).map_err(|error| unusable(&error))?;
        let said = daq_step_times(&bytes).map_err(|error| unusable(&error))?;
        let timed = said.is_some();
        let times = match (said, step) {
            (Some(times), _) => from_first(&times),
            (None, Some(step)) => (0..steps.len()).map(|n| step.as_secs_f64() * n as f64).collect(),
            (None, None) => {
                return Err(unusable(
                    &"the table has no times (a column ms, time (ms) or time (s)): give --step-period",
                ));
            }
        };
        if steps.iter().flatten().all(Option::is_none) {
            return Err(unusable(&"no camera takes a tile"));
        }
        Ok(Self { steps, times, timed })
    }
}

impl TimingTable {
    /// What a file says, `speed` times as fast.
    #[must_use]
    pub fn new(file: &TimingFile, speed: f64) -> Self {
        let TimingFile { steps, times, timed } = file;
        let times: Vec<u64> = times.iter().map(|time| nanoseconds(time / speed)).collect();
        let cameras: Vec<CameraTable> = (0..4).filter_map(|camera| camera_table(camera, steps, &times)).collect();
        let last = times.iter().copied().max().unwrap_or(0);
        // One more step of the mean length lies between the last and the first again.
        let between = last / (times.len() as u64 - 1).max(1);
        let cols = steps.iter().flatten().flatten().map(|place| place.col + 1).max().unwrap_or(1);
        Self { cameras, lap: Duration::from_nanos((last + between).max(1)), cols, timed: *timed }
    }

    /// Tiles a second.
    #[must_use]
    pub fn tiles_per_s(&self) -> f64 {
        let tiles: usize = self.cameras.iter().map(|camera| camera.places.len()).sum();
        tiles as f64 / self.lap.as_secs_f64()
    }
}

fn from_first(times: &[f64]) -> Vec<f64> {
    let first = times.iter().copied().fold(f64::INFINITY, f64::min);
    times.iter().map(|time| time - first).collect()
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // Times from the first step on.
fn nanoseconds(seconds: f64) -> u64 {
    (seconds * 1e9).round() as u64
}

fn camera_table(camera: usize, steps: &[DaqStep], times: &[u64]) -> Option<CameraTable> {
    let mut taken: Vec<(u64, GridPosition)> =
        steps.iter().zip(times).filter_map(|(step, time)| Some((*time, step[camera]?))).collect();
    taken.sort_by_key(|(time, _)| *time);
    let (times, places): (Vec<u64>, Vec<GridPosition>) = taken.into_iter().unzip();
    let camera = i32::try_from(camera).ok()?;
    (!places.is_empty()).then(|| CameraTable { camera, places: places.into(), times: times.into() })
}

pub(super) struct TableFeed {
    prepared: Arc<Prepared>,
    table: CameraTable,
    cols: u32,
    n: u64,
    random: Rng,
}

impl Feed {
    /// Prepared images at the places of one camera of a table, again and again, each time at new columns.
    #[must_use]
    pub fn table(prepared: Arc<Prepared>, table: &CameraTable, cols: u32, seed: u64) -> Self {
        Self(Kind::Table(TableFeed { prepared, table: table.clone(), cols, n: 0, random: Rng::with_seed(seed) }))
    }
}

impl TableFeed {
    pub(super) fn next(&mut self) -> SourceTile {
        let len = self.table.places.len() as u64;
        let GridPosition { col, row } = self.table.places[usize::try_from(self.n % len).unwrap_or(0)];
        let lap = u32::try_from(self.n / len).unwrap_or(u32::MAX);
        let col = col.saturating_add(lap.saturating_mul(self.cols));
        self.n += 1;
        let place = Place { col, row, frame: FrameNumber::STABLE, camera: self.table.camera };
        self.prepared.tile(place, &mut self.random)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, step: Option<Duration>, speed: f64) -> Result<TimingTable, SourceError> {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("table.csv");
        std::fs::write(&path, text).expect("written");
        Ok(TimingTable::new(&TimingFile::read(&path, step)?, speed))
    }

    const PLACES: &str = "Cam 0 Col,Cam 0 Row,Cam 2 Col,Cam 2 Row\n0,0,1,0\n2,0,-1,-1\n4,0,5,0\n";

    #[test]
    fn steps_without_times_follow_the_period_and_each_camera_sends_its_own() {
        let table = read(PLACES, Some(Duration::from_millis(100)), 2.0).expect("a table");
        assert_eq!(table.cameras.iter().map(|c| c.camera).collect::<Vec<_>>(), [0, 2]);
        assert_eq!(*table.cameras[0].times, [0, 50_000_000, 100_000_000]);
        assert_eq!(*table.cameras[1].times, [0, 100_000_000]);
        assert_eq!((table.lap, table.cols, table.timed), (Duration::from_millis(150), 6, false));
        assert!((table.tiles_per_s() - 5.0 / 0.15).abs() < 1e-9);
        assert!(read(PLACES, None, 1.0).expect_err("no times").to_string().contains("--step-period"));
    }

    #[test]
    fn times_of_the_table_count_from_its_first() {
        let text = "ms,Cam 0 Col,Cam 0 Row\n1000.5,0,0\n1250.5,1,0\n1300.5,2,0\n";
        let table = read(text, Some(Duration::from_secs(9)), 1.0).expect("a table");
        assert_eq!(*table.cameras[0].times, [0, 250_000_000, 300_000_000]);
        assert_eq!((table.lap, table.timed), (Duration::from_millis(450), true));
    }
}
