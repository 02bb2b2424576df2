//! Names of ancillary files: what a name says of the content, and which part of a sender's path may be kept.
//!
//! Owns the suffixes the microscope's software writes. Must never hand on a directory or a control character: what
//! passes here becomes part of a path in the store.

use super::{FormatError, base_name, excerpt};
use crate::model::AncillaryKind;

/// Bytes of a file name that every file system here can hold.
const NAME_BYTES_MAX: usize = 255;
/// Bytes of a whole path: it is kept as it was sent.
const PATH_BYTES_MAX: usize = 4096;

/// What stands at the end of a name, compared with case.
const SUFFIXES: [(&str, AncillaryKind); 10] = [
    ("Add pulse.csv", AncillaryKind::AddPulse),
    ("Controller elapsed.csv", AncillaryKind::ControllerElapsed),
    ("Controller timing.csv", AncillaryKind::ControllerTiming),
    ("DAQ timing.csv", AncillaryKind::DaqTiming),
    ("ROI_spec.ini", AncillaryKind::RoiSpec),
    ("ROI_tiles.csv", AncillaryKind::RoiTiles),
    ("logfile.ini", AncillaryKind::Logfile),
    ("mosaic.png", AncillaryKind::Mosaic),
    ("statistics.csv", AncillaryKind::Statistics),
    ("stored_image_list.csv", AncillaryKind::StoredImageList),
];

/// Endings of the tables that are written once per camera.
const CAMERA_ENDINGS: [&str; 4] = ["_cam0.csv", "_cam1.csv", "_cam2.csv", "_cam3.csv"];

/// What the file of this name holds, by the end of the name; `_cam0.csv` to `_cam3.csv` count as `.csv`.
#[must_use]
pub fn ancillary_kind(name: &str) -> AncillaryKind {
    let of_camera = CAMERA_ENDINGS.iter().find_map(|ending| name.strip_suffix(ending));
    let ends_with = |suffix: &str| match (of_camera, suffix.strip_suffix(".csv")) {
        (Some(front), Some(stem)) => front.ends_with(stem),
        _ => name.ends_with(suffix),
    };
    SUFFIXES.iter().find(|(suffix, _)| ends_with(suffix)).map_or(AncillaryKind::Unknown, |(_, kind)| *kind)
}

/// The base name of a path written on Windows or Unix, when a file of the store may be called so.
///
/// # Errors
/// It is empty, `.` or `..`, longer than 255 bytes, or holds a control character (NUL and line ends among them); or the
/// path is longer than 4096 bytes.
pub fn safe_file_name(path: &str) -> Result<&str, FormatError> {
    let base = base_name(path);
    let problem = match base {
        "" | "." | ".." => "names no file",
        _ if base.len() > NAME_BYTES_MAX => "is longer than 255 bytes",
        _ if path.len() > PATH_BYTES_MAX => "stands behind a path that is longer than 4096 bytes",
        _ if base.contains(char::is_control) => "holds a control character",
        _ => return Ok(base),
    };
    Err(FormatError::Content(format!("file name {:?} {problem}", excerpt(base))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(path: &str) -> String {
        safe_file_name(path).expect_err("an unsafe name").to_string()
    }

    #[test]
    fn every_kind_is_known_by_its_suffix() {
        for (suffix, kind) in SUFFIXES {
            assert_eq!(ancillary_kind(&format!("77_2x3_{suffix}")), kind, "{suffix}");
            assert_eq!(ancillary_kind(suffix), kind, "{suffix}");
        }
    }

    #[test]
    fn a_table_of_one_camera_is_the_same_kind_of_table() {
        assert_eq!(ancillary_kind("x_statistics_cam2.csv"), AncillaryKind::Statistics);
        assert_eq!(ancillary_kind("x_stored_image_list_cam0.csv"), AncillaryKind::StoredImageList);
        assert_eq!(ancillary_kind("x_Add pulse_cam3.csv"), AncillaryKind::AddPulse);
    }

    #[test]
    fn other_names_are_unknown() {
        let others = ["", "notes.txt", "statistics.csv.bak", "statistics_cam4.csv", "statistics_cam1_cam1.csv"];
        for other in others.into_iter().chain(["x_mosaic_cam1.png", "roi_spec.ini", "ROI_spec_cam0.csv"]) {
            assert_eq!(ancillary_kind(other), AncillaryKind::Unknown, "{other}");
        }
    }

    #[test]
    fn only_the_base_name_is_kept() {
        assert_eq!(safe_file_name("M:\\run 5\\5_mosaic.png").expect("a name"), "5_mosaic.png");
        assert_eq!(safe_file_name("../../etc/passwd").expect("a name"), "passwd");
        assert_eq!(safe_file_name("/a\\b/..c d\u{e9}").expect("a name"), "..c d\u{e9}");
    }

    #[test]
    fn names_that_are_no_file_names_are_refused() {
        for bad in ["", ".", "..", "a/", "a\\", "a/..", "..\\.", "/"] {
            assert!(error(bad).ends_with("names no file"), "{bad}");
        }
        for bad in ["a\0b", "a\nb", "\u{7f}", "a\u{85}", "d/\tx"] {
            assert!(error(bad).ends_with("holds a control character"), "{bad:?}");
        }
        assert_eq!(error("a\nb"), "file name \"a\\nb\" holds a control character");
    }

    #[test]
    fn names_of_255_bytes_are_the_longest() {
        let longest = "\u{e9}".repeat(127) + "x";
        assert_eq!(safe_file_name(&format!("dir/{longest}")).expect("a name"), longest);
        assert!(error(&(longest + "x")).ends_with("is longer than 255 bytes"));
    }

    #[test]
    fn paths_of_4096_bytes_are_the_longest() {
        let longest = format!("{}/name", "d".repeat(4091));
        assert_eq!(safe_file_name(&longest).expect("a name"), "name");
        assert!(error(&("d".to_owned() + &longest)).ends_with("longer than 4096 bytes"));
    }
}
