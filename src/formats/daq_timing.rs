//! DAQ timing CSV (`*_DAQ timing.csv`): which tile each camera took at each step.
//!
//! Columns `Cam 0 Col`, `Cam 0 Row` .. `Cam 3 Col`, `Cam 3 Row`, found by name; one row a step; blank or -1 where a
//! camera took none. Fields are plain numbers, never quoted.

use super::FormatError;

/// (col, row) by camera.
pub type DaqStep = [Option<(u32, u32)>; 4];

/// Reads the steps in order.
///
/// # Errors
/// No column of any camera; a field that is no number.
pub fn parse_daq_timing(text: &str) -> Result<Vec<DaqStep>, FormatError> {
    let mut lines = text.trim_start_matches('\u{feff}').lines().enumerate();
    let header: Vec<&str> = lines.next().map_or(Vec::new(), |(_, line)| line.split(',').map(str::trim).collect());
    let column = |name: String| header.iter().position(|found| *found == name);
    let columns: [Option<(usize, usize)>; 4] =
        [0, 1, 2, 3].map(|camera| column(format!("Cam {camera} Col")).zip(column(format!("Cam {camera} Row"))));
    if columns.iter().all(Option::is_none) {
        return Err(FormatError::Line { line: 1, problem: "no columns named `Cam 0 Col`, `Cam 0 Row`".to_owned() });
    }
    let mut steps = Vec::new();
    for (n, line) in lines.filter(|(_, line)| !line.trim().is_empty()) {
        let fields: Vec<&str> = line.split(',').map(str::trim).collect();
        let mut step = DaqStep::default();
        for (place, columns) in step.iter_mut().zip(columns) {
            if let Some((col, row)) = columns {
                *place = position(&fields, col, n)?.zip(position(&fields, row, n)?);
            }
        }
        steps.push(step);
    }
    Ok(steps)
}

fn position(fields: &[&str], column: usize, line: usize) -> Result<Option<u32>, FormatError> {
    match fields.get(column).copied().unwrap_or_default() {
        "" | "-1" => Ok(None),
        text => text
            .parse()
            .map(Some)
            .map_err(|_| FormatError::Line { line: line + 1, problem: format!("\"{text}\" is no column or row") }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_found_by_name_and_blanks_are_no_tile() {
        let text = "t,Cam 1 Row,Cam 1 Col,Cam 0 Col,Cam 0 Row\n0.1,2,1,3,4\n0.2,-1,-1,5,6\n\n0.3,7,8\n";
        let steps = parse_daq_timing(text).expect("good");
        assert_eq!(steps[0], [Some((3, 4)), Some((1, 2)), None, None]);
        assert_eq!(steps[1], [Some((5, 6)), None, None, None]);
        assert_eq!(steps[2], [None, Some((8, 7)), None, None]);
        assert!(parse_daq_timing("a,b\n1,2\n").is_err());
        let error = parse_daq_timing("Cam 0 Col,Cam 0 Row\n1,x\n").expect_err("x");
        assert_eq!(error.to_string(), "line 2: \"x\" is no column or row");
    }
}
