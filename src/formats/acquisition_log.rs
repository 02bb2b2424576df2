//! The acquisition log: the INI file with which the microscope's software describes a run, and the identifier in its name.
//!
//! Owns which section and key becomes which fact, and which defect is an error or a warning. Must never let a
//! number through that JSON can not hold (NaN, infinity): the facts are written into the journal.

use super::ini::Ini;
use super::{FormatError, base_name, excerpt};
use crate::model::{AcqId, AcquisitionFacts, CameraCount};
use jiff::{civil::DateTime, tz::TimeZone};
use std::str::FromStr;

const GENERAL: &str = "General";
const CAMERAS: &str = "Camera Connections";
const MOSAIC: &str = "Mosaic Settings";
const TEM: &str = "TEM Settings";
const MACHINES: &str = "Machine IDs";
const CATCHER: &str = "ImageCatcher";
/// Longest log: forty times one of the field. All are kept in memory.
const LOG_BYTES_MAX: usize = 256 << 10;
/// Longest value that is a fact, and longest notes.
const TEXT_BYTES_MAX: usize = 1 << 10;
const NOTES_BYTES_MAX: usize = 64 << 10;

/// Reads acquisition logs.
pub struct AcquisitionLog;

impl AcquisitionLog {
    /// Reads a log: its facts, and a warning for each value that was taken as 0 or left out.
    ///
    /// # Errors
    /// A log above 256 KiB, or a text in it above 1 KiB (notes: 64 KiB); a line that is no INI; cameras other than TTTT and
    /// TFFF; `Pixels per um` missing or no number.
    pub fn parse(bytes: &[u8]) -> Result<(AcquisitionFacts, Vec<String>), FormatError> {
        if bytes.len() > LOG_BYTES_MAX {
            return Err(FormatError::Content(format!("the log has {} bytes: at most {LOG_BYTES_MAX}", bytes.len())));
        }
        let mut log = Reader { ini: Ini::parse(bytes)?, warnings: Vec::new() };
        let facts = AcquisitionFacts {
            sample_name: log.text(GENERAL, "Sample name")?,
            microscopist_name: log.text(GENERAL, "Microscopist name")?,
            notes: log.text_up_to(GENERAL, "Notes", NOTES_BYTES_MAX)?,
            acquired_unix_s: log.date(GENERAL, "Date"),
            cameras: log.cameras()?,
            x_small_step_pix: log.integer(MOSAIC, "X sm step (pix)"),
            y_small_step_pix: log.integer(MOSAIC, "Y sm step (pix)"),
            x_big_step_pix: log.integer(MOSAIC, "X big step (pix)"),
            y_big_step_pix: log.integer(MOSAIC, "Y big step (pix)"),
            x_steps: log.integer(MOSAIC, "Number of X steps"),
            y_steps: log.integer(MOSAIC, "Number of Y steps"),
            x_center_m: log.real(MOSAIC, "Center X (m)"),
            y_center_m: log.real(MOSAIC, "Center Y (m)"),
            y_tem_m: log.real(MOSAIC, "TEM Y (m)"),
            magnification: log.real(TEM, "Magnification"),
            pix_per_um: log.pixels_per_um()?,
            tem_ip_address: log.text(MACHINES, "TEM IP address")?,
            project_name: log.text(CATCHER, "project")?,
            project_owner: log.text(CATCHER, "owner")?,
            stack_name: log.text(CATCHER, "stack")?,
            mosaic_type: log.text(CATCHER, "mosaicType")?,
        };
        Ok((facts, log.warnings))
    }
}

/// A log's values, and what was wrong with those read so far.
struct Reader {
    ini: Ini,
    warnings: Vec<String>,
}

impl Reader {
    fn text(&self, section: &str, key: &str) -> Result<String, FormatError> {
        self.text_up_to(section, key, TEXT_BYTES_MAX)
    }

    fn text_up_to(&self, section: &str, key: &str, bytes_max: usize) -> Result<String, FormatError> {
        let text = self.ini.get(section, key).unwrap_or_default();
        if text.len() > bytes_max {
            let problem = format!("longer than {bytes_max} bytes");
            return Err(FormatError::Content(self.complaint(section, key, &problem)));
        }
        Ok(text.to_owned())
    }

    fn integer<T: FromStr + Default>(&mut self, section: &str, key: &str) -> T {
        let number = self.ini.get(section, key).and_then(|text| text.parse().ok());
        number.unwrap_or_else(|| {
            self.warn(section, key, "no whole number in range, taken as 0");
            T::default()
        })
    }

    fn real(&mut self, section: &str, key: &str) -> f64 {
        self.finite(section, key).unwrap_or_else(|| {
            self.warn(section, key, "no finite number, taken as 0");
            0.0
        })
    }

    /// LabVIEW writes `NaN` and `Inf` for what it does not know; JSON has no form for them, so they count as missing.
    fn finite(&self, section: &str, key: &str) -> Option<f64> {
        self.ini.get(section, key)?.parse().ok().filter(|number: &f64| number.is_finite())
    }

    /// `MM/dd/yyyy hh:mm:ss AM` with any run of spaces between the words, taken as UTC; seconds since 1970.
    fn date(&mut self, section: &str, key: &str) -> Option<i64> {
        let words = self.ini.get(section, key).unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ");
        let date = DateTime::strptime("%m/%d/%Y %I:%M:%S %p", words).ok();
        let seconds = date.and_then(|date| TimeZone::UTC.to_timestamp(date).ok()).map(|instant| instant.as_second());
        if seconds.is_none() {
            self.warn(section, key, "no date like 12/31/2026 11:59:59 PM, left out");
        }
        seconds
    }

    fn cameras(&self) -> Result<CameraCount, FormatError> {
        let on = |key| self.ini.get(CAMERAS, key).is_some_and(|text| text.eq_ignore_ascii_case("true"));
        let pattern = ["Acq1", "Acq2", "Acq3", "Acq4"].map(on);
        match pattern {
            [true, true, true, true] => Ok(CameraCount::Four),
            [true, false, false, false] => Ok(CameraCount::One),
            _ => {
                let letters: String = pattern.iter().map(|on| if *on { 'T' } else { 'F' }).collect();
                let problem = format!("[{CAMERAS}] Acq1..Acq4 are {letters}: neither TTTT (4) nor TFFF (1)");
                Err(FormatError::Content(problem))
            }
        }
    }

    fn pixels_per_um(&self) -> Result<f64, FormatError> {
        let key = "Pixels per um";
        self.finite(TEM, key).ok_or_else(|| FormatError::Content(self.complaint(TEM, key, "no finite number")))
    }

    fn warn(&mut self, section: &str, key: &str, problem: &str) {
        let warning = self.complaint(section, key, problem);
        self.warnings.push(warning);
    }

    fn complaint(&self, section: &str, key: &str, problem: &str) -> String {
        match self.ini.get(section, key) {
            Some(text) => format!("[{section}] {key} = \"{}\": {problem}", excerpt(text)),
            None => format!("[{section}] {key} is missing: {problem}"),
        }
    }
}

/// The identifier in a log's file name or path: the digits before the first `_` of the base name, or all of it.
///
/// # Errors
/// Those are not digits only, or the number is 0 or above 2^64 - 1.
pub fn acq_id_from_file_name(path_or_name: &str) -> Result<AcqId, FormatError> {
    let base = base_name(path_or_name);
    let digits = base.split('_').next().filter(|front| front.bytes().all(|byte| byte.is_ascii_digit()));
    match digits.and_then(|digits| digits.parse().ok()) {
        Some(id) if id > 0 => Ok(AcqId(id)),
        _ => {
            let base = excerpt(base);
            Err(FormatError::Content(format!("\"{base}\" does not begin with an acquisition's number and \"_\"")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = r#"
; written by a test
[General]
Date = "07/09/2031     12:05:06 AM"
Sample name = "Leaf; 3"
Microscopist name = "A. Nobody"
Notes = "first line\0Asecond = line"
[Camera Connections]
Acq1 = TRUE
Acq2 = TRUE
Acq3 = TRUE
Acq4 = TRUE
[Machine IDs]
TEM IP address = "192.0.2.7"
[Mosaic Settings]
Number of X steps = 11
NUMBER OF Y STEPS = 12
X big step (pix) = 5400
X sm step (pix) = 1800
Y big step (pix) = 4200
Y sm step (pix) = -1400
Center X (m) = -2.5E-5
Center Y (m) = 4E-5
TEM Y (m) = -0.0001
[TEM Settings]
Pixels per um = "200.5"
Magnification = "3000"
[ImageCatcher]
project = proj
owner = own
stack = st
mosaicType = type
"#;

    fn parse(text: &str) -> (AcquisitionFacts, Vec<String>) {
        AcquisitionLog::parse(text.as_bytes()).expect("a usable log")
    }

    fn error(text: &str) -> String {
        AcquisitionLog::parse(text.as_bytes()).expect_err("an unusable log").to_string()
    }

    #[test]
    fn every_fact_is_read() {
        let expected = AcquisitionFacts {
            sample_name: "Leaf; 3".to_owned(),
            microscopist_name: "A. Nobody".to_owned(),
            notes: "first line\\0Asecond = line".to_owned(),
            acquired_unix_s: Some(1_941_321_906),
            cameras: CameraCount::Four,
            x_small_step_pix: 1800,
            y_small_step_pix: -1400,
            x_big_step_pix: 5400,
            y_big_step_pix: 4200,
            x_steps: 11,
            y_steps: 12,
            x_center_m: -2.5e-5,
            y_center_m: 4e-5,
            y_tem_m: -0.0001,
            magnification: 3000.0,
            pix_per_um: 200.5,
            tem_ip_address: "192.0.2.7".to_owned(),
            project_name: "proj".to_owned(),
            project_owner: "own".to_owned(),
            stack_name: "st".to_owned(),
            mosaic_type: "type".to_owned(),
        };
        assert_eq!(parse(LOG), (expected, Vec::new()));
    }

    #[test]
    fn texts_and_logs_that_are_too_long_are_refused() {
        let with = |name: usize, notes: usize| {
            let text = LOG.replace("Leaf; 3", &"x".repeat(name)).replace("first line", &"y".repeat(notes));
            AcquisitionLog::parse(text.as_bytes())
        };
        let (longest, rest) = (NOTES_BYTES_MAX - "\\0Asecond = line".len(), "longer than 1024 bytes");
        assert_eq!(with(1024, longest).expect("a usable log").0.notes.len(), NOTES_BYTES_MAX);
        let problem = with(1025, 0).expect_err("a long name").to_string();
        assert!(problem.starts_with("[General] Sample name = \"xxx") && problem.ends_with(rest), "{problem}");
        assert!(with(1, longest + 1).expect_err("long notes").to_string().contains("Notes"));
        let comment = |bytes: usize| format!("{LOG}#{}", "z".repeat(bytes - LOG.len() - 1));
        assert_eq!(parse(&comment(LOG_BYTES_MAX)).0, parse(LOG).0);
        assert_eq!(error(&comment(LOG_BYTES_MAX + 1)), "the log has 262145 bytes: at most 262144");
    }

    #[test]
    fn bytes_in_another_encoding_and_windows_line_ends_are_read() {
        let mut bytes = LOG.replace('\n', "\r\n").into_bytes();
        let name = bytes.windows(6).position(|window| window == b"Nobody").expect("in the log");
        bytes[name] = 0xd1;
        let (facts, warnings) = AcquisitionLog::parse(&bytes).expect("a usable log");
        assert_eq!((facts.microscopist_name.as_str(), warnings.len()), ("A. \u{fffd}obody", 0));
    }

    #[test]
    fn noon_and_midnight_are_told_apart() {
        let at = |time: &str| parse(&LOG.replace("07/09/2031     12:05:06 AM", time)).0.acquired_unix_s;
        assert_eq!(at("01/01/1970 12:00:00 AM"), Some(0));
        assert_eq!(at("01/01/1970 12:00:00 PM"), Some(43_200));
        assert_eq!(at("1/2/1970   1:00:01 PM"), Some(86_400 + 46_801));
    }

    #[test]
    fn a_bad_date_is_none_with_a_warning() {
        for bad in ["31/12/2026 10:00:00 AM", "2026-12-31", "02/30/2026 10:00:00 AM", "01/01/2026 13:00:00 PM", ""] {
            let (facts, warnings) = parse(&LOG.replace("07/09/2031     12:05:06 AM", bad));
            assert_eq!((facts.acquired_unix_s, warnings.len()), (None, 1), "{bad}");
            assert!(warnings[0].contains("[General] Date"), "{warnings:?}");
        }
    }

    #[test]
    fn bad_numbers_are_zero_with_a_warning_each() {
        let text = LOG.replace("= 11", "= eleven").replace("= 12\n", "= -12\n").replace("= 4E-5", "= NaN");
        let text = text.replace("TEM Y (m) = -0.0001\n", "").replace("\"3000\"", "\"Inf\"");
        let (facts, warnings) = parse(&text);
        assert_eq!((facts.x_steps, facts.y_steps), (0, 0));
        assert_eq!((facts.y_center_m, facts.y_tem_m, facts.magnification), (0.0, 0.0, 0.0));
        assert_eq!(warnings.len(), 5, "{warnings:?}");
        assert!(warnings.iter().any(|warning| warning.starts_with("[Mosaic Settings] TEM Y (m) is missing")));
    }

    #[test]
    fn facts_survive_json_whatever_numbers_the_log_holds() {
        for odd in ["NaN", "inf", "-Infinity", "1e999", "-0", "1e-320"] {
            let (facts, _) = parse(&LOG.replace("4E-5", odd).replace("-2.5E-5", odd).replace("\"3000\"", odd));
            let json = serde_json::to_string(&facts).expect("JSON");
            assert_eq!(serde_json::from_str::<AcquisitionFacts>(&json).expect("the same facts"), facts, "{odd}");
        }
    }

    #[test]
    fn one_or_four_cameras_and_nothing_between() {
        let with = |states: [&str; 4]| {
            let lines: String = states.iter().zip(1..).map(|(state, n)| format!("Acq{n} = {state}\n")).collect();
            format!("[TEM Settings]\nPixels per um = 1\n[Camera Connections]\n{lines}")
        };
        assert_eq!(parse(&with(["true", "FALSE", "FALSE", "FALSE"])).0.cameras, CameraCount::One);
        assert_eq!(parse(&with(["TRUE", "\"TRUE\"", "True", "TRUE"])).0.cameras, CameraCount::Four);
        assert!(error(&with(["TRUE", "TRUE", "FALSE", "TRUE"])).contains("TTFT"));
        assert!(error("[TEM Settings]\nPixels per um = 1\n").contains("FFFF"));
    }

    #[test]
    fn pixels_per_um_must_be_there_and_a_number() {
        for bad in ["many", "", "NaN", "inf"] {
            assert!(error(&LOG.replace("200.5", bad)).starts_with("[TEM Settings] Pixels per um"), "{bad}");
        }
        assert!(error(&LOG.replace("Pixels per um = \"200.5\"\n", "")).contains("is missing"));
    }

    #[test]
    fn the_identifier_is_the_number_before_the_first_underscore() {
        let id = |name| acq_id_from_file_name(name).ok().map(|acq| acq.0);
        assert_eq!(id("123_40x168_logfile.ini"), Some(123));
        assert_eq!(id("123"), Some(123));
        assert_eq!(id("/data/5_x/77_logfile.ini"), Some(77));
        assert_eq!(id("M:\\data\\990101121314_logfile.ini"), Some(990_101_121_314));
        assert_eq!(id("18446744073709551615_"), Some(u64::MAX));
        for bad in
            ["", "_1", "x1_2", "1x_2", "0_1", "-1_2", "+1_2", "1.ini", "18446744073709551616_x", "a/", "\u{661}_1"]
        {
            assert_eq!(id(bad), None, "{bad}");
        }
    }
}
