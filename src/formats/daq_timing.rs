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
    fn a_table_without_cameras_or_with_words_for_numbers_is_refused() {
        assert!(error("").starts_with("line 1: no columns"));
        assert!(error("Cam 0 Col,time\n1,2\n").starts_with("line 1: no columns"));
        assert_eq!(error("Cam 0 Col,Cam 0 Row\n1,2\n\n3,x\n"), "line 4: \"x\" is no column or row");
        assert_eq!(error("Cam 0 Col,Cam 0 Row\n-2,2\n"), "line 2: \"-2\" is no column or row");
    }
}
