//! Calibrations: a JSON array of records, each the transformation of one camera.
//!
//! Owns which fields a record must have. Must never interpret the transformations, nor let through a record that is
//! nested so deeply that it could not be read back from the journal.

use super::{FormatError, excerpt};
use crate::model::Calibration;
use jiff::civil::Date;
use serde_json::Value;
use std::collections::HashSet;

/// Arrays and objects inside each other in one record: half of what the JSON reader bears, so that a record can be
/// read back from inside whatever it is stored in.
const LEVELS_MAX: usize = 64;

/// Cameras of a microscope: each that a calibration names is kept with it.
const CAMERAS_MAX: u32 = 1024;

/// Reads all records or none. Messages count the records from 0, as `Record i: ...`.
///
/// # Errors
/// Not a JSON array; a record without an `id`, a day (`yymmdd`), the numbers of TEMCA and camera (below 1024) as text, or
/// at least one transformation in its `specList`; a record nested above 64 levels; an `id` given twice.
pub fn parse_calibrations(bytes: &[u8]) -> Result<Vec<Calibration>, FormatError> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let records: Vec<Value> = serde_json::from_slice(bytes).map_err(|error| not_json(&error))?;
    let mut names = HashSet::new();
    let mut calibrations = Vec::with_capacity(records.len());
    for (i, record) in records.into_iter().enumerate() {
        let read = calibration(record).and_then(|read| match names.insert(read.name.clone()) {
            true => Ok(read),
            false => Err(format!("\"id\" \"{}\" is given twice", excerpt(&read.name))),
        });
        calibrations.push(read.map_err(|problem| FormatError::Content(format!("Record {i}: {problem}")))?);
    }
    Ok(calibrations)
}

fn not_json(error: &serde_json::Error) -> FormatError {
    let text = error.to_string();
    let problem = text.rsplit_once(" at line ").map_or(text.as_str(), |(problem, _)| problem);
    let problem = format!("not a JSON array of calibrations: {}", excerpt(problem));
    FormatError::Line { line: error.line().max(1), problem }
}

fn calibration(record: Value) -> Result<Calibration, String> {
    if levels(&record) > LEVELS_MAX {
        return Err(format!("nested above {LEVELS_MAX} levels"));
    }
    let name = text(&record, "id")?.to_owned();
    if name.trim().is_empty() {
        return Err("\"id\" is empty".to_owned());
    }
    let metadata = record.get("metadata").ok_or("\"metadata\" is missing")?;
    let date = date(text(metadata, "calibration_data")?)?;
    let (temca, camera) = (number(metadata, "temca")?, number(metadata, "camera")?);
    if camera >= CAMERAS_MAX {
        return Err(format!("\"camera\" {camera} is not below {CAMERAS_MAX}"));
    }
    match record.get("specList").and_then(Value::as_array) {
        Some(specs) if !specs.is_empty() => Ok(Calibration { name, date, temca, camera, content: record.into() }),
        _ => Err("\"specList\" is missing or empty".to_owned()),
    }
}

fn text<'a>(object: &'a Value, key: &str) -> Result<&'a str, String> {
    object.get(key).and_then(Value::as_str).ok_or_else(|| format!("\"{key}\" is missing or no text"))
}

fn number(object: &Value, key: &str) -> Result<u32, String> {
    let text = text(object, key)?;
    let digits = text.bytes().all(|byte| byte.is_ascii_digit()).then_some(text);
    digits.and_then(|digits| digits.parse().ok()).ok_or_else(|| format!("\"{key}\" \"{}\" is no number", excerpt(text)))
}

/// `yymmdd` of this century as `yyyymmdd`.
fn date(yymmdd: &str) -> Result<String, String> {
    let date = format!("20{yymmdd}");
    let plain = date.len() == 8 && date.bytes().all(|byte| byte.is_ascii_digit());
    match plain && Date::strptime("%Y%m%d", &date).is_ok() {
        true => Ok(date),
        false => Err(format!("\"calibration_data\" \"{}\" is no date like 311231", excerpt(yymmdd))),
    }
}

/// How many arrays and objects lie inside each other; the JSON reader has bounded them.
fn levels(value: &Value) -> usize {
    let inside = match value {
        Value::Array(items) => items.iter().map(levels).max(),
        Value::Object(fields) => fields.values().map(levels).max(),
        _ => return 0,
    };
    1 + inside.unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn record(id: &str) -> Value {
        json!({
            "id": id, "type": "list",
            "metadata": {"calibration_data": "310228", "group": "lens", "temca": "12", "camera": "3"},
            "specList": [{"className": "made.up.Transform", "dataString": "1 0 0 1"}]
        })
    }

    fn parse(records: &Value) -> Result<Vec<Calibration>, String> {
        parse_calibrations(records.to_string().as_bytes()).map_err(|error| error.to_string())
    }

    fn error(text: &str) -> String {
        parse_calibrations(text.as_bytes()).expect_err("no calibrations").to_string()
    }

    /// What is said of a record of which one field is other, or missing.
    fn error_with(pointer: &str, value: Option<Value>) -> String {
        let mut bad = record("b");
        let (parent, key) = pointer.rsplit_once('/').expect("a pointer");
        let parent = bad.pointer_mut(parent).and_then(Value::as_object_mut).expect("an object");
        match value {
            Some(value) => parent.insert(key.to_owned(), value),
            None => parent.remove(key),
        };
        let problem = parse(&json!([record("a"), bad])).expect_err("a bad record");
        problem.strip_prefix("Record 1: ").expect("the record's number").to_owned()
    }

    #[test]
    fn a_record_is_read_and_kept_as_sent() {
        let records = [record("first"), record("second")];
        let read = parse(&json!(records)).expect("calibrations");
        let expected = |name: &str| Calibration {
            name: name.to_owned(),
            date: "20310228".to_owned(),
            temca: 12,
            camera: 3,
            content: record(name).into(),
        };
        assert_eq!(read, [expected("first"), expected("second")]);
        assert_eq!(parse(&json!([])), Ok(Vec::new()));
    }

    #[test]
    fn a_calibration_survives_json() {
        let read = parse(&json!([record("a")])).expect("calibrations");
        let json = serde_json::to_string(&read).expect("JSON");
        assert_eq!(serde_json::from_str::<Vec<Calibration>>(&json).expect("the same"), read);
    }

    #[test]
    fn missing_fields_are_named_with_the_record() {
        assert_eq!(error_with("/id", None), "\"id\" is missing or no text");
        assert_eq!(error_with("/metadata", None), "\"metadata\" is missing");
        for key in ["calibration_data", "temca", "camera"] {
            assert_eq!(error_with(&format!("/metadata/{key}"), None), format!("\"{key}\" is missing or no text"));
        }
        assert_eq!(error_with("/specList", None), "\"specList\" is missing or empty");
        assert_eq!(error("[7]"), "Record 0: \"id\" is missing or no text");
    }

    #[test]
    fn wrong_fields_are_named_with_the_record() {
        assert_eq!(error_with("/id", Some(json!(" "))), "\"id\" is empty");
        assert_eq!(error_with("/id", Some(json!("a"))), "\"id\" \"a\" is given twice");
        assert_eq!(error_with("/metadata", Some(json!([1]))), "\"calibration_data\" is missing or no text");
        assert_eq!(error_with("/specList", Some(json!([]))), "\"specList\" is missing or empty");
        assert_eq!(error_with("/metadata/temca", Some(json!(2))), "\"temca\" is missing or no text");
        for bad in ["", "x", "-1", "+1", " 1", "4294967296"] {
            let problem = error_with("/metadata/camera", Some(json!(bad)));
            assert_eq!(problem, format!("\"camera\" \"{bad}\" is no number"));
        }
        assert_eq!(error_with("/metadata/camera", Some(json!("1024"))), "\"camera\" 1024 is not below 1024");
    }

    #[test]
    fn the_date_must_be_in_the_calendar() {
        for bad in ["", "310229", "311301", "310100", "20310101", "31011", "31-1-1", "31010\u{e9}", "+10101"] {
            let problem = error_with("/metadata/calibration_data", Some(json!(bad)));
            assert_eq!(problem, format!("\"calibration_data\" \"{bad}\" is no date like 311231"));
        }
    }

    #[test]
    fn what_is_no_array_is_refused_with_its_line() {
        assert!(error("").starts_with("line 1: not a JSON array of calibrations: "));
        assert!(error("\n{}").starts_with("line 2: not a JSON array of calibrations: invalid type: map"));
        assert!(error("[\n{\n\"id\": }]").starts_with("line 3: "));
        assert!(error("[] x").starts_with("line 1: "));
        assert!(error(&format!("\"{}\"", "x".repeat(10_000))).len() < 150, "a long text is cut in the message");
    }

    #[test]
    fn deep_nesting_is_refused() {
        assert!(error(&"[".repeat(100_000)).contains("recursion limit"));
        assert!(error(&"[{\"id\":".repeat(100_000)).contains("recursion limit"));
        let nested = (1..LEVELS_MAX).fold(json!("core"), |inside, _| json!([inside]));
        let mut deep = record("a");
        deep["extra"] = nested.clone();
        assert!(parse(&json!([deep])).is_ok());
        deep["extra"] = json!([nested]);
        assert_eq!(parse(&json!([deep])), Err("Record 0: nested above 64 levels".to_owned()));
    }
}
