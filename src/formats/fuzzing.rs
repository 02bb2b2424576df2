//! The field's files with any content: see `crate::fuzzing`.

use super::{
    AcquisitionLog, Directory, FormatError, TileName, acq_id_from_file_name, ancillary_kind, check_whole_tiff,
    daq_step_times, dimensions, parse_calibrations, parse_daq_timing, parse_roi_spec, parse_roi_tiles, safe_file_name,
};
use crate::fuzzing::Input;

/// What was read, when what is said of a bad input is short enough to be sent and logged.
fn read<T>(result: Result<T, FormatError>) -> Option<T> {
    result.map_err(|error| assert!(error.to_string().len() < 500, "{error}")).ok()
}

fn lines(bytes: &[u8]) -> usize {
    bytes.iter().filter(|byte| matches!(byte, b'\r' | b'\n')).count() + 1
}

/// Acquisition logs, and the ROI specification, which is INI text, too.
pub fn ini(data: &[u8]) {
    if let Some((facts, warnings)) = read(AcquisitionLog::parse(data)) {
        assert!(warnings.len() < 30);
        assert!(facts.x_center_m.is_finite() && facts.y_center_m.is_finite() && facts.pix_per_um.is_finite());
        // The facts go through JSON into the journal, and must come out as they were.
        let written = serde_json::to_vec(&facts).expect("plain data");
        assert_eq!(serde_json::from_slice::<crate::model::AcquisitionFacts>(&written).expect("what we write"), facts);
    }
    if let Some(sections) = read(parse_roi_spec(data)) {
        assert!(!sections.is_empty() && sections.len() <= lines(data));
        assert!(sections.iter().all(|roi| roi.section >= 0 && !roi.name.is_empty()));
        assert!(sections.is_sorted_by(|one, next| one.region < next.region));
    }
}

/// The sections that ROI tables of the corpus name.
const SPEC: &[u8] = b"[Inclusion Section Numbers]\nRegion 0 = \"7\"\nRegion 1 = \"A.8\"\nRegion 2 = \"7\"\n";

/// Tables: ROI tiles and DAQ timing.
pub fn csv(data: &[u8]) {
    let sections = parse_roi_spec(SPEC).expect("a good file");
    if let Some(table) = read(parse_roi_tiles(data, &sections)) {
        assert!(table.tiles.len() + table.warnings.len() <= lines(data));
        assert!(table.tiles.iter().all(|tile| tile.roi < sections.len()));
        assert!(table.warnings.iter().all(|warning| warning.len() < 500));
    }
    let (steps, times) = (read(parse_daq_timing(data)), read(daq_step_times(data)));
    if let Some(steps) = steps {
        assert!(steps.len() < lines(data));
        if let Some(times) = times.flatten() {
            assert_eq!(times.len(), steps.len(), "a time for each step");
            assert!(times.iter().all(|time| time.is_finite()));
        }
    }
}

/// Calibrations: JSON of whatever depth.
pub fn calibrations(data: &[u8]) {
    for calibration in read(parse_calibrations(data)).into_iter().flatten() {
        assert!(!calibration.name.is_empty() && calibration.date.len() == 8);
        let written = serde_json::to_vec(&calibration).expect("plain data");
        let again: crate::model::Calibration = serde_json::from_slice(&written).expect("what we write we read");
        assert_eq!(again, calibration);
    }
}

/// Images: whether they are whole, and their size, read from all bytes or from the two places that say it.
pub fn tiff(data: &[u8]) {
    let size = read(dimensions(data));
    assert!(size.is_none_or(|(width, height)| width > 0 && height > 0));
    let is_whole = read(check_whole_tiff(data)).is_some();
    if let Some(directory) = data.first_chunk::<8>().and_then(Directory::find) {
        let at = usize::try_from(directory.offset).expect("32 bits");
        let bytes = data.get(at..).unwrap_or_default();
        let found = directory.dimensions(&bytes[..bytes.len().min(Directory::BYTES_MAX)]);
        if let (Some(found), Some(size)) = (found, size) {
            assert_eq!(found, size, "two ways to one size");
        }
    }
    if is_whole {
        let mut longer = data.to_vec();
        longer.extend_from_slice(b"what stands behind an image does not matter");
        assert!(check_whole_tiff(&longer).is_ok());
        assert!(check_whole_tiff(&data[..7]).is_err());
    }
}

/// Names of files: what is kept of a path is safe, and a tile's name is written as one that reads the same.
pub fn names(data: &[u8]) {
    let mut input = Input::new(data);
    let front = input.text(40);
    let name = front + &String::from_utf8_lossy(input.rest());
    let kind = ancillary_kind(&name);
    if let Some(acq) = read(acq_id_from_file_name(&name)) {
        assert_eq!(acq_id_from_file_name(&format!("/in/{acq}_40x168_logfile.ini")).expect("a good name"), acq);
    }
    if let Some(tile) = read(name.parse::<TileName>()) {
        assert_eq!(tile.to_string().parse::<TileName>().expect("what we write we read"), tile);
    }
    if let Some(safe) = read(safe_file_name(&name)) {
        assert!((1..=255).contains(&safe.len()));
        assert!(!safe.contains(['/', '\\']) && !safe.contains(char::is_control) && safe != ".." && safe != ".");
        assert_eq!(ancillary_kind(safe), kind, "the folder before a name says nothing of its kind");
        assert_eq!(safe_file_name(safe).expect("safe once, safe twice"), safe);
    }
}
