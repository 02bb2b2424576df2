//! Tilespecs: how render, the stitching software of the field, is told of a tile and where it lies.
//!
//! # Source
//! Field names and the two stage formulas are those of Janelia's imagecatcher service. Must never look anything up: all
//! that a tilespec says is passed in.

use crate::model::{AcquisitionFacts, CameraCount, Cell, Roi, TileSpecId};
use serde::Serialize;
use serde_json::{Value, json};

/// Where a tile lies on the stage, pixels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StagePosition {
    /// To the right.
    pub x: f64,
    /// Down.
    pub y: f64,
}

impl StagePosition {
    /// The place of a column and row in the mosaic that a log describes.
    #[must_use]
    pub fn of(facts: &AcquisitionFacts, col: u32, row: u32) -> Self {
        let real = |n: i64| n as f64;
        let (xs, ys) = (real(facts.x_small_step_pix), real(facts.y_small_step_pix));
        let (xb, yb) = (real(facts.x_big_step_pix), real(facts.y_big_step_pix));
        let (nx, ny) = (f64::from(facts.x_steps), f64::from(facts.y_steps));
        let (col, row) = (f64::from(col), f64::from(row));
        let ppu = facts.pix_per_um;
        let (x0, y0) = (-(facts.x_center_m * 1e6 * ppu), (facts.y_center_m + facts.y_tem_m) * 1e6 * ppu);
        let at = match facts.cameras {
            CameraCount::One => Self { x: x0 - xs * nx / 2.0 + col * xs, y: y0 - ys * ny / 2.0 + row * ys },
            CameraCount::Four => Self {
                x: x0 - (xb + xs) * (nx / 4.0) + (xb + xs) * (col / 4.0) + xs * (col % 4.0),
                y: y0 - (yb + ys) * (ny / 4.0) + (yb + ys) * (row / 4.0) + ys * (row % 4.0),
            },
        };
        Self { x: finite(at.x), y: finite(at.y) }
    }
}

/// What a tilespec is made of.
pub struct TileSpecParts<'a> {
    /// The tile and its section.
    pub id: TileSpecId,
    /// The ROI in which it lies.
    pub roi: &'a Roi,
    /// What the log says.
    pub facts: &'a AcquisitionFacts,
    /// The TEMCA; 0 when it is not known.
    pub temca: u32,
    /// The camera.
    pub camera: i32,
    /// Width and height, pixels.
    pub size: (u32, u32),
    /// Where its content is.
    pub image_url: String,
    /// Where its mask is.
    pub mask_url: Option<&'a str>,
    /// The calibration of its camera.
    pub calibration: Option<&'a str>,
}

/// A tilespec.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TileSpec {
    /// `<acq>.<col>.<row>.<section>.<prev>`.
    pub tile_id: String,
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
    /// The section as a number: `<section>.<prev>`.
    pub z: f64,
    /// Where the image is, by mipmap level.
    pub mipmap_levels: Value,
    /// Where the tile lies.
    pub layout: Value,
    /// How it is transformed.
    pub transforms: Value,
}

impl TileSpec {
    /// Puts a tilespec together.
    #[must_use]
    pub fn new(parts: &TileSpecParts<'_>) -> Self {
        let Cell(col, row, _) = parts.id.cell;
        let stage = StagePosition::of(parts.facts, col, row);
        let section = parts.roi.section_id();
        let mut level = json!({ "imageUrl": parts.image_url });
        if let Some(mask) = parts.mask_url {
            level["maskUrl"] = mask.into();
        }
        let place = json!({
            "type": "leaf",
            "className": "mpicbg.trakem2.transform.AffineModel2D",
            "dataString": format!("1.0 0.0 0.0 1.0 {} {}", whole(stage.x), whole(stage.y)),
        });
        let lens = parts.calibration.map(|name| json!({ "type": "ref", "refId": name }));
        let transforms: Vec<Value> = lens.into_iter().chain([place]).collect();
        Self {
            tile_id: parts.id.to_string(),
            width: parts.size.0,
            height: parts.size.1,
            z: section.parse().unwrap_or_default(),
            mipmap_levels: json!({ "0": level }),
            layout: json!({
                "camera": parts.camera,
                "imageCol": col,
                "imageRow": row,
                "sectionId": section,
                "temca": parts.temca.to_string(),
                "stageX": stage.x,
                "stageY": stage.y,
                "rotation": 0,
            }),
            transforms: json!({ "type": "list", "specList": transforms }),
        }
    }
}

/// JSON has no form for what an absurd log can make of a position.
fn finite(position: f64) -> f64 {
    if position.is_nan() { 0.0 } else { position.clamp(f64::MIN, f64::MAX) }
}

/// Truncated toward zero.
#[allow(clippy::cast_possible_truncation)] // Saturates, and a stage is far smaller.
fn whole(position: f64) -> i64 {
    position as i64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{AcqId, FrameNumber};

    fn facts(cameras: CameraCount) -> AcquisitionFacts {
        AcquisitionFacts {
            cameras,
            x_small_step_pix: 1000,
            y_small_step_pix: 900,
            x_big_step_pix: 3000,
            y_big_step_pix: 2500,
            x_steps: 10,
            y_steps: 8,
            x_center_m: -2e-5,
            y_center_m: 3e-5,
            y_tem_m: -1e-5,
            pix_per_um: 200.0,
            ..AcquisitionFacts::default()
        }
    }

    fn near(found: f64, wanted: f64) {
        assert!((found - wanted).abs() < 1e-6, "{found} is not {wanted}");
    }

    /// By hand: x0 = 20 um x 200 = 4000, y0 = 20 um x 200 = 4000.
    #[test]
    fn one_camera_steps_by_small_steps_from_the_mosaics_corner() {
        let at = StagePosition::of(&facts(CameraCount::One), 3, 2);
        near(at.x, 4000.0 - 5000.0 + 3000.0);
        near(at.y, 4000.0 - 3600.0 + 1800.0);
    }

    #[test]
    fn four_cameras_step_by_big_and_small_steps() {
        let at = StagePosition::of(&facts(CameraCount::Four), 6, 5);
        near(at.x, 4000.0 - 4000.0 * 2.5 + 4000.0 * 1.5 + 1000.0 * 2.0);
        near(at.y, 4000.0 - 3400.0 * 2.0 + 3400.0 * 1.25 + 900.0);
    }

    #[test]
    fn an_absurd_log_gives_a_finite_position() {
        for center in [1e308, -1e308] {
            let facts = AcquisitionFacts { x_center_m: center, pix_per_um: 1e300, ..facts(CameraCount::Four) };
            assert!(StagePosition::of(&facts, u32::MAX, 0).x.is_finite());
        }
    }

    fn spec(calibration: Option<&str>, mask_url: Option<&str>) -> Value {
        let roi = Roi { name: "A.5800".to_owned(), section: 5800, prev: 2 };
        let cell = Cell(3, 2, FrameNumber::STABLE);
        let id = TileSpecId { acq: AcqId(7), cell, section: 5800, prev: 2 };
        let facts = facts(CameraCount::One);
        let image_url = "http://c/7".to_owned();
        let parts = TileSpecParts {
            id,
            roi: &roi,
            facts: &facts,
            temca: 2,
            camera: 1,
            size: (64, 32),
            image_url,
            mask_url,
            calibration,
        };
        serde_json::to_value(TileSpec::new(&parts)).expect("JSON")
    }

    #[test]
    fn a_tilespec_has_the_names_that_render_reads() {
        let spec = spec(Some("lens1"), Some("file:/mask"));
        assert_eq!(spec["tileId"], "7.003.002.5800.2");
        assert_eq!((&spec["width"], &spec["height"], &spec["z"]), (&json!(64), &json!(32), &json!(5800.2)));
        assert_eq!(spec["mipmapLevels"], json!({"0": {"imageUrl": "http://c/7", "maskUrl": "file:/mask"}}));
        assert_eq!(spec["layout"]["sectionId"], "5800.2");
        assert_eq!(spec["layout"]["temca"], "2");
        let list = &spec["transforms"]["specList"];
        assert_eq!(list[0], json!({"type": "ref", "refId": "lens1"}));
        assert_eq!(list[1]["dataString"], "1.0 0.0 0.0 1.0 2000 2200");
    }

    #[test]
    fn without_calibration_and_mask_there_is_no_entry_for_them() {
        let spec = spec(None, None);
        assert_eq!(spec["transforms"]["specList"].as_array().map(Vec::len), Some(1));
        assert_eq!(spec["mipmapLevels"]["0"].get("maskUrl"), None);
    }

    #[test]
    fn positions_are_truncated_toward_zero() {
        assert_eq!((whole(-1.9), whole(1.9), whole(f64::MAX)), (-1, 1, i64::MAX));
    }
}
