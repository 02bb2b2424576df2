//! What holds for every reader of a stranger's bytes: it ends without a panic, and what it gives or says is bounded.
//!
//! Each is fed with random bytes and with good input to which a few bytes were done.

use super::*;
use proptest::prelude::*;
use proptest::{collection, sample};

const LOG: &str = "[General]\nDate = \"07/09/2031   12:05:06 AM\"\n[Camera Connections]\nAcq1 = TRUE\nAcq2 = FALSE\n\
                   [Mosaic Settings]\nNumber of X steps = 11\nCenter X (m) = -2.5E-5\n[TEM Settings]\n\
                   Pixels per um = 2\n";
const TIMING: &str = "Cam 0 Col,Cam 0 Row,Cam 1 Col, \"Cam 1 Row\"\r\n1,2,-1,-1\r\n3,4,5,6\r\n\r\n7,8\r\n";
const SPEC: &str =
    "[Inclusion Section Numbers]\nRegion 0 = \"7\"\nRegion 1 = \"A.8\"\nRegion 2 = \"7\"\n[Other]\nx = y\n";
const TILES: &str = "Col,Row,Inclusion,Excluded?,Included?,# Inclusions,Section number\r\n0,0,-1,0,0,0,\r\n\
                     1,2,0,0,1,1,7\r\n1,3,0,0,1,1,7\r\n\r\n2,4,1,0,1,1,\"A.8\"\r\n";
const CALIBRATIONS: &str = r#"[{"id": "c", "type": "list", "metadata": {"calibration_data": "310228", "temca": "1",
"camera": "0"}, "specList": [{"className": "k", "dataString": "1 0"}]}]"#;
const TILE: &str = "in/col0001_row0002_cam3.tif";
const DRIFT: &str = "Dump_cam3_frame000004_col0001_row0002.tif";

/// Bytes that mean something in one format or another, and any other.
fn telling_byte() -> impl Strategy<Value = u8> {
    prop_oneof![sample::select(&b"\",=[]{}:;#-+._/\\\r\n 019e\x00\xff\xef"[..]), any::<u8>()]
}

/// Random bytes, or the good ones after up to eight edits.
fn input(good: Vec<u8>) -> impl Strategy<Value = Vec<u8>> {
    let edit = (any::<sample::Index>(), telling_byte(), 0..5);
    let mutated = collection::vec(edit, 0..=8).prop_map(move |edits| edits.iter().fold(good.clone(), edited));
    prop_oneof![collection::vec(telling_byte(), 0..400), mutated]
}

fn edited(mut bytes: Vec<u8>, (place, byte, kind): &(sample::Index, u8, i32)) -> Vec<u8> {
    let at = place.index(bytes.len() + 1);
    match kind {
        0 => bytes.insert(at, *byte),
        1 => drop(bytes.drain(at.min(bytes.len().saturating_sub(1))..at)),
        2 => bytes.truncate(at),
        3 => bytes.extend_from_within(at..),
        _ => bytes.iter_mut().skip(at).take(1).for_each(|old| *old = *byte),
    }
    bytes
}

fn text(good: &str) -> impl Strategy<Value = Vec<u8>> + use<> {
    input(good.as_bytes().to_vec())
}

/// What was read, when what is said of a bad input is short enough to be sent and logged.
fn read<T>(result: Result<T, FormatError>) -> Option<T> {
    result.map_err(|error| assert!(error.to_string().len() < 500, "{error}")).ok()
}

fn line_ends(bytes: &[u8]) -> usize {
    bytes.iter().filter(|byte| matches!(byte, b'\r' | b'\n')).count()
}

proptest! {
    #[test]
    fn acquisition_logs(bytes in text(LOG)) {
        if let Some((facts, warnings)) = read(AcquisitionLog::parse(&bytes)) {
            prop_assert!(warnings.len() < 20);
            prop_assert!(facts.x_center_m.is_finite() && facts.pix_per_um.is_finite());
        }
    }

    #[test]
    fn daq_timing(bytes in text(TIMING)) {
        if let Some(steps) = read(parse_daq_timing(&bytes)) {
            prop_assert!(steps.len() <= line_ends(&bytes));
        }
    }

    #[test]
    fn roi_specifications(bytes in text(SPEC)) {
        if let Some(sections) = read(parse_roi_spec(&bytes)) {
            prop_assert!(!sections.is_empty() && sections.len() <= line_ends(&bytes));
            prop_assert!(sections.iter().all(|roi| roi.section >= 0 && !roi.name.is_empty()));
            prop_assert!(sections.is_sorted_by(|a, b| a.region < b.region));
        }
    }

    #[test]
    fn roi_tiles(bytes in text(TILES)) {
        let sections = parse_roi_spec(SPEC.as_bytes()).expect("a good file");
        if let Some(table) = read(parse_roi_tiles(&bytes, &sections)) {
            prop_assert!(table.tiles.len() + table.warnings.len() <= line_ends(&bytes));
            prop_assert!(table.tiles.iter().all(|tile| tile.roi < sections.len()));
            prop_assert!(table.warnings.iter().all(|warning| warning.len() < 500));
        }
    }

    #[test]
    fn calibrations(bytes in text(CALIBRATIONS)) {
        for calibration in read(parse_calibrations(&bytes)).into_iter().flatten() {
            prop_assert!(!calibration.name.is_empty() && calibration.date.len() == 8);
        }
    }

    #[test]
    fn names(bytes in prop_oneof![text(TILE), text(DRIFT), text("5_mosaic.png")]) {
        let name = String::from_utf8_lossy(&bytes);
        let _ = (read(name.parse::<TileName>()), read(acq_id_from_file_name(&name)), ancillary_kind(&name));
        if let Some(safe) = read(safe_file_name(&name)) {
            prop_assert!((1..=255).contains(&safe.len()));
            prop_assert!(!safe.contains(['/', '\\', '\0', '\n']) && safe != "..");
        }
    }

    #[test]
    fn image_sizes(bytes in input(encode_gray8(3, 2, &[0; 6]).expect("an image"))) {
        if let Some((width, height)) = read(dimensions(&bytes)) {
            prop_assert!(width > 0 && height > 0);
        }
    }
}
