//! The DAQ timing table (`*_DAQ timing.csv`): which tile each camera took at each step of the stage.
//!
//! Owns the finding of columns by name; must never guess a position: a field that is no number is an error.

use super::{FormatError, excerpt};

/// A place in the mosaic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GridPosition {
    /// Column, from 0.
    pub col: u32,
    /// Row, from 0.
    pub row: u32,
}

/// What each camera took at one step; `None` where it took nothing.
pub type DaqStep = [Option<GridPosition>; 4];

/// Where a camera's column and row stand in a line.
#[derive(Clone, Copy)]
struct CameraFields {
    col: usize,
    row: usize,
}

/// Reads the steps in the order in which they were taken; a camera without columns took nothing.
///
/// # Errors
/// No camera has both columns; a field that is neither blank, -1 nor a number.
pub fn parse_daq_timing(bytes: &[u8]) -> Result<Vec<DaqStep>, FormatError> {
    let text = String::from_utf8_lossy(bytes);
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let mut lines = text.lines().zip(1..);
    let cameras = camera_fields(lines.next().map_or("", |(header, _)| header));
    if cameras.iter().all(Option::is_none) {
        return Err(FormatError::Line { line: 1, problem: "no columns \"Cam 0 Col\" and \"Cam 0 Row\"".to_owned() });
    }
    let steps = lines.filter(|(line, _)| !line.trim().is_empty());
    steps.map(|(line, number)| step(line, cameras).map_err(|problem| at(number, problem))).collect()
}

/// Headers of a column that says when a step was taken, and how many of its units make a second. The table's own
/// definition has no such column; these are the ways in which others write one.
const TIME_COLUMNS: [(&str, f64); 9] = [
    ("ms", 1e3),
    ("time (ms)", 1e3),
    ("time ms", 1e3),
    ("elapsed (ms)", 1e3),
    ("s", 1.0),
    ("time", 1.0),
    ("time (s)", 1.0),
    ("time s", 1.0),
    ("elapsed (s)", 1.0),
];

/// When each step was taken, seconds from any beginning, as many as [`parse_daq_timing`] gives; `None` for a table
/// without such a column.
///
/// # Errors
/// A step without a number there.
pub fn daq_step_times(bytes: &[u8]) -> Result<Option<Vec<f64>>, FormatError> {
    let text = String::from_utf8_lossy(bytes);
    let mut lines = text.strip_prefix('\u{feff}').unwrap_or(&text).lines().zip(1..);
    let names: Vec<&str> = lines.next().map_or("", |(header, _)| header).split(',').map(plain).collect();
    let known = |name: &&str| TIME_COLUMNS.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
    let Some((column, units)) = names.iter().enumerate().find_map(|(column, name)| Some((column, known(name)?.1)))
    else {
        return Ok(None);
    };
    let steps = lines.filter(|(line, _)| !line.trim().is_empty());
    let time = |(line, number): (&str, usize)| {
        let text = line.split(',').nth(column).map(plain).unwrap_or_default();
        let time: Option<f64> = text.parse().ok().filter(|time: &f64| time.is_finite());
        time.map(|time| time / units).ok_or_else(|| at(number, format!("\"{}\" is no time", excerpt(text))))
    };
    steps.map(time).collect::<Result<Vec<f64>, FormatError>>().map(Some)
}

fn at(line: usize, problem: String) -> FormatError {
    FormatError::Line { line, problem }
}

fn camera_fields(header: &str) -> [Option<CameraFields>; 4] {
    let names: Vec<&str> = header.split(',').map(plain).collect();
    let find = |camera: i32, what: &str| {
        let wanted = format!("Cam {camera} {what}");
        names.iter().position(|name| name.eq_ignore_ascii_case(&wanted))
    };
    [0, 1, 2, 3].map(|camera| Some(CameraFields { col: find(camera, "Col")?, row: find(camera, "Row")? }))
}

fn step(line: &str, cameras: [Option<CameraFields>; 4]) -> Result<DaqStep, String> {
    let fields: Vec<&str> = line.split(',').map(plain).collect();
    let mut step = DaqStep::default();
    for (place, CameraFields { col, row }) in step.iter_mut().zip(cameras).filter_map(|(p, c)| Some((p, c?))) {
        *place = match (coordinate(&fields, col)?, coordinate(&fields, row)?) {
            (Some(col), Some(row)) => Some(GridPosition { col, row }),
            _ => None,
        };
    }
    Ok(step)
}

fn coordinate(fields: &[&str], index: usize) -> Result<Option<u32>, String> {
    match fields.get(index).copied().unwrap_or_default() {
        "" | "-1" => Ok(None),
        text => text.parse().map(Some).map_err(|_| format!("\"{}\" is no column or row", excerpt(text))),
    }
}

/// A field without the spaces and quotes around it: the fields read here are numbers, the others only passed over.
fn plain(field: &str) -> &str {
    field.trim().trim_matches('"')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(col: u32, row: u32) -> Option<GridPosition> {
        Some(GridPosition { col, row })
    }

    fn error(text: &str) -> String {
        parse_daq_timing(text.as_bytes()).expect_err("a bad table").to_string()
    }

    #[test]
    fn columns_are_found_by_name_in_any_order() {
        let text = "\u{feff}ms,Cam 1 Row, \"Cam 1 Col\",Cam 3 Col,Cam 3 Row,cam 0 col,cam 0 row\r\n\
                    0.5,2,1,7,8,3,4\r\n\r\n0.6,12,11,17,18,13,14\r\n";
        let steps = parse_daq_timing(text.as_bytes()).expect("a good table");
        assert_eq!(steps, [[at(3, 4), at(1, 2), None, at(7, 8)], [at(13, 14), at(11, 12), None, at(17, 18)]]);
    }

    #[test]
    fn blank_minus_one_and_missing_fields_are_no_tile() {
        let text = "Cam 0 Col,Cam 0 Row,Cam 1 Col,Cam 1 Row\n1,2,-1,-1\n, ,3,4\n5,6\n-1,7,8,\n";
        let steps = parse_daq_timing(text.as_bytes()).expect("a good table");
        let none = None;
        let expected =
            [[at(1, 2), none, none, none], [none, at(3, 4), none, none], [at(5, 6), none, none, none], [none; 4]];
        assert_eq!(steps, expected);
    }

    #[test]
    fn times_are_found_by_name_and_unit() {
        let times = |text: &str| daq_step_times(text.as_bytes());
        assert_eq!(times("Cam 0 Col,Cam 0 Row\n1,2\n").expect("good"), None);
        assert_eq!(times("MS,Cam 0 Col\n500,1\n\n1500.5,1\n").expect("good"), Some(vec![0.5, 1.5005]));
        assert_eq!(times("Cam 0 Col, \"Time (s)\"\r\n1,2.5\r\n").expect("good"), Some(vec![2.5]));
        let error = times("ms,Cam 0 Col\n1,1\nlate,1\n").expect_err("no number").to_string();
        assert_eq!(error, "line 3: \"late\" is no time");
    }

    #[test]
    fn a_table_without_cameras_or_with_words_for_numbers_is_refused() {
        assert!(error("").starts_with("line 1: no columns"));
        assert!(error("Cam 0 Col,time\n1,2\n").starts_with("line 1: no columns"));
        assert_eq!(error("Cam 0 Col,Cam 0 Row\n1,2\n\n3,x\n"), "line 4: \"x\" is no column or row");
        assert_eq!(error("Cam 0 Col,Cam 0 Row\n-2,2\n"), "line 2: \"-2\" is no column or row");
    }
}
