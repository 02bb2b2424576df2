//! The acquisition log: an INI file that the microscope's software writes, and the name that carries its id.

use super::FormatError;
use super::ini::Ini;
use crate::model::{AcqId, AcquisitionFacts, CameraCount};
use std::str::FromStr;

/// Reads acquisition logs.
pub struct AcquisitionLog;

/// Collects what could not be read but need not be.
struct Reader {
    ini: Ini,
    warnings: Vec<String>,
}

impl AcquisitionLog {
    /// Reads a log; gives its facts and warnings about values that were replaced by 0 or left out.
    ///
    /// # Errors
    /// A line that is not INI, a camera pattern other than TTTT and TFFF, a bad `Pixels per um`.
    pub fn parse(bytes: &[u8]) -> Result<(AcquisitionFacts, Vec<String>), FormatError> {
        let mut log = Reader { ini: Ini::parse(&String::from_utf8_lossy(bytes))?, warnings: Vec::new() };
        let facts = AcquisitionFacts {
            sample_name: log.text("General", "Sample name"),
            microscopist_name: log.text("General", "Microscopist name"),
            notes: log.text("General", "Notes"),
            acquired_unix_s: log.date("General", "Date"),
            cameras: log.cameras()?,
            x_small_step_pix: log.number("Mosaic Settings", "X sm step (pix)"),
            y_small_step_pix: log.number("Mosaic Settings", "Y sm step (pix)"),
            x_big_step_pix: log.number("Mosaic Settings", "X big step (pix)"),
            y_big_step_pix: log.number("Mosaic Settings", "Y big step (pix)"),
            x_steps: log.number("Mosaic Settings", "Number of X steps"),
            y_steps: log.number("Mosaic Settings", "Number of Y steps"),
            x_center_m: log.number("Mosaic Settings", "Center X (m)"),
            y_center_m: log.number("Mosaic Settings", "Center Y (m)"),
            y_tem_m: log.number("Mosaic Settings", "TEM Y (m)"),
            magnification: log.number("TEM Settings", "Magnification"),
            pix_per_um: log.pixels_per_um()?,
            tem_ip_address: log.text("Machine IDs", "TEM IP address"),
            project_name: log.text("ImageCatcher", "project"),
            project_owner: log.text("ImageCatcher", "owner"),
            stack_name: log.text("ImageCatcher", "stack"),
            mosaic_type: log.text("ImageCatcher", "mosaicType"),
        };
        Ok((facts, log.warnings))
    }
}

impl Reader {
    fn text(&self, section: &str, key: &str) -> String {
        self.ini.get(section, key).unwrap_or_default().to_owned()
    }

    fn number<T: FromStr + Default>(&mut self, section: &str, key: &str) -> T {
        let text = self.text(section, key);
        text.parse().unwrap_or_else(|_| {
            self.warnings.push(format!("[{section}] {key} = \"{text}\" is not a number in range: taken as 0"));
            T::default()
        })
    }

    /// `MM/dd/yyyy hh:mm:ss AM`, taken as UTC; runs of spaces count as one.
    fn date(&mut self, section: &str, key: &str) -> Option<i64> {
        let text = self.text(section, key);
        let words: Vec<&str> = text.split_whitespace().collect();
        let parsed = jiff::civil::DateTime::strptime("%m/%d/%Y %I:%M:%S %p", words.join(" "));
        let utc = parsed.ok().and_then(|date| date.to_zoned(jiff::tz::TimeZone::UTC).ok());
        if utc.is_none() {
            self.warnings.push(format!("[{section}] {key} = \"{text}\" is no date like 03/04/2015 10:46:49 AM"));
        }
        utc.map(|date| date.timestamp().as_second())
    }

    fn cameras(&self) -> Result<CameraCount, FormatError> {
        let connected =
            |key| self.ini.get("Camera Connections", key).is_some_and(|text| text.eq_ignore_ascii_case("true"));
        match ["Acq1", "Acq2", "Acq3", "Acq4"].map(connected) {
            [true, true, true, true] => Ok(CameraCount::Four),
            [true, false, false, false] => Ok(CameraCount::One),
            other => {
                let pattern: String = other.map(|on| if on { 'T' } else { 'F' }).iter().collect();
                let problem = format!("[Camera Connections] Acq1..Acq4 are {pattern}: neither TTTT (4) nor TFFF (1)");
                Err(FormatError::Content(problem))
            }
        }
    }

    fn pixels_per_um(&self) -> Result<f64, FormatError> {
        let text = self.text("TEM Settings", "Pixels per um");
        let number = text.parse().ok().filter(|number: &f64| number.is_finite());
        number.ok_or_else(|| FormatError::Content(format!("[TEM Settings] Pixels per um = \"{text}\" is not a number")))
    }
}

/// The identifier in a log's file name: the digits before the first `_` of its base name.
///
/// # Errors
/// There are none, or they are 0 or above 2^64 - 1.
pub fn acq_id_from_file_name(name: &str) -> Result<AcqId, FormatError> {
    let base = name.rsplit(['/', '\\']).next().unwrap_or_default();
    let digits = base.split('_').next().unwrap_or_default();
    let id = if digits.bytes().all(|byte| byte.is_ascii_digit()) { digits.parse().ok() } else { None };
    id.filter(|id| *id > 0).map(AcqId).ok_or_else(|| {
        FormatError::Content(format!("the name \"{base}\" does not begin with an acquisition's number and _"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "[General]\nDate = \"11/21/2026    01:02:03 PM\"\nSample name = \"S 1\"\nNotes = \"a\\0Ab\"\n\
        [Camera Connections]\nAcq1 = TRUE\nAcq2 = TRUE\nAcq3 = TRUE\nAcq4 = TRUE\n\
        [Mosaic Settings]\nNumber of X steps = 5\nNumber of Y steps = 6\nX sm step (pix) = 1950\nY sm step (pix) = 1850\n\
        X big step (pix) = 5550\nY big step (pix) = 5450\nCenter X (m) = -1.5E-5\nCenter Y (m) = 2E-5\nTEM Y (m) = -0.0002\n\
        [TEM Settings]\nMagnification = 2900\nPixels per um = 250.5\n[Machine IDs]\nTEM IP address = \"10.0.0.9\"\n\
        [ImageCatcher]\nproject = P\nowner = O\nstack = St\nmosaicType = M\n";

    #[test]
    fn every_field_is_read() {
        let (facts, warnings) = AcquisitionLog::parse(LOG.as_bytes()).expect("good");
        assert!(warnings.is_empty(), "{warnings:?}");
        assert_eq!(facts.acquired_unix_s, Some(1_795_266_123));
        assert_eq!((facts.cameras, facts.x_steps, facts.y_steps), (CameraCount::Four, 5, 6));
        assert_eq!((facts.sample_name.as_str(), facts.notes.as_str()), ("S 1", "a\\0Ab"));
        assert_eq!((facts.y_tem_m, facts.pix_per_um, facts.x_center_m), (-0.0002, 250.5, -1.5e-5));
        assert_eq!((facts.project_name.as_str(), facts.mosaic_type.as_str()), ("P", "M"));
        assert_eq!(facts.tem_ip_address, "10.0.0.9");
    }

    #[test]
    fn bad_numbers_and_dates_are_warnings_bad_cameras_and_pixels_are_errors() {
        let (facts, warnings) =
            AcquisitionLog::parse(LOG.replace("= 5\n", "= five\n").replace("11/21", "13/41").as_bytes())
                .expect("usable");
        assert_eq!((facts.x_steps, facts.acquired_unix_s, warnings.len()), (0, None, 2));
        let cameras = AcquisitionLog::parse(LOG.replace("Acq3 = TRUE", "Acq3 = FALSE").as_bytes()).expect_err("TTFT");
        assert!(cameras.to_string().contains("TTFT"), "{cameras}");
        let pixels = AcquisitionLog::parse(LOG.replace("250.5", "many").as_bytes()).expect_err("many");
        assert!(pixels.to_string().contains("many"), "{pixels}");
    }

    #[test]
    fn the_id_is_the_number_before_the_first_underscore() {
        let id = |name| acq_id_from_file_name(name).ok().map(|acq| acq.0);
        assert_eq!(id("123_40x168_logfile.ini"), Some(123));
        assert_eq!(id("C:\\data\\150304104649_log.ini"), Some(150_304_104_649));
        assert_eq!(id("a/b/7"), Some(7));
        for bad in ["", "_x", "abc_1", "0_x", "+1_x", "123.ini", "99999999999999999999_x"] {
            assert_eq!(id(bad), None, "{bad}");
        }
    }
}
