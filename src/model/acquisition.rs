//! What an acquisition's log file says about it, as it is written into the journal.

use serde::{Deserialize, Serialize};

/// Number of cameras in the microscope's array: a TEMCA has 1 or 4.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum CameraCount {
    /// One camera (`TFFF` in the log).
    #[default]
    One,
    /// Four cameras (`TTTT` in the log).
    Four,
}

impl CameraCount {
    /// The count as a number.
    #[must_use]
    pub fn count(self) -> u32 {
        match self {
            Self::One => 1,
            Self::Four => 4,
        }
    }
}

/// A mosaic's extent in tiles: columns x rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct GridShape {
    /// Number of columns.
    pub cols: u32,
    /// Number of rows.
    pub rows: u32,
}

impl GridShape {
    /// True for a place outside a grid that has any place.
    #[must_use]
    pub fn leaves_out(self, col: u32, row: u32) -> bool {
        self.cols > 0 && self.rows > 0 && (col >= self.cols || row >= self.rows)
    }
}

/// The facts of an acquisition log (INI). Lengths in m and pixels as the field names say.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Default)]
#[serde(default)]
pub struct AcquisitionFacts {
    /// `General / Sample name`.
    pub sample_name: String,
    /// `General / Microscopist name`.
    pub microscopist_name: String,
    /// `General / Notes`.
    pub notes: String,
    /// `General / Date`: seconds since 1970-01-01 UTC; `None` when it was missing or unreadable.
    pub acquired_unix_s: Option<i64>,
    /// `Camera Connections / Acq1..Acq4`.
    pub cameras: CameraCount,
    /// Small step in x, pixels.
    pub x_small_step_pix: i64,
    /// Small step in y, pixels.
    pub y_small_step_pix: i64,
    /// Big step in x, pixels.
    pub x_big_step_pix: i64,
    /// Big step in y, pixels.
    pub y_big_step_pix: i64,
    /// Number of stage steps in x.
    pub x_steps: u32,
    /// Number of stage steps in y.
    pub y_steps: u32,
    /// Centre of the mosaic in x, m.
    pub x_center_m: f64,
    /// Centre of the mosaic in y, m.
    pub y_center_m: f64,
    /// TEM stage y, m.
    pub y_tem_m: f64,
    /// Magnification.
    pub magnification: f64,
    /// Pixels per um.
    pub pix_per_um: f64,
    /// `Machine IDs / TEM IP address`.
    pub tem_ip_address: String,
    /// `ImageCatcher / project`.
    pub project_name: String,
    /// `ImageCatcher / owner`.
    pub project_owner: String,
    /// `ImageCatcher / stack`.
    pub stack_name: String,
    /// `ImageCatcher / mosaicType`.
    pub mosaic_type: String,
}

impl AcquisitionFacts {
    /// Bytes of all its texts.
    #[must_use]
    pub fn text_bytes(&self) -> usize {
        let Self { sample_name, microscopist_name, notes, tem_ip_address, .. } = self;
        let Self { project_name, project_owner, stack_name, mosaic_type, .. } = self;
        let about = [sample_name, microscopist_name, notes, tem_ip_address];
        about.into_iter().chain([project_name, project_owner, stack_name, mosaic_type]).map(String::len).sum()
    }

    /// The mosaic's extent in tiles: the stage steps for one camera, twice as many each way for four.
    #[must_use]
    pub fn grid(&self) -> GridShape {
        let factor = match self.cameras {
            CameraCount::One => 1,
            CameraCount::Four => 2,
        };
        GridShape { cols: self.x_steps.saturating_mul(factor), rows: self.y_steps.saturating_mul(factor) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn four_cameras_double_the_grid_each_way() {
        let mut facts = AcquisitionFacts { x_steps: 40, y_steps: 168, ..AcquisitionFacts::default() };
        assert_eq!(facts.grid(), GridShape { cols: 40, rows: 168 });
        facts.cameras = CameraCount::Four;
        assert_eq!(facts.grid(), GridShape { cols: 80, rows: 336 });
    }

    proptest::proptest! {
        /// They are written to the journal as JSON.
        #[test]
        fn numbers_come_back_from_json_bit_by_bit(
            any in proptest::num::f64::NORMAL | proptest::num::f64::SUBNORMAL,
            position in -0.002..0.002_f64,
        ) {
            let facts = AcquisitionFacts { magnification: any, x_center_m: position, ..AcquisitionFacts::default() };
            let written = serde_json::to_vec(&facts).expect("plain data");
            let read: AcquisitionFacts = serde_json::from_slice(&written).expect("what we write we read");
            proptest::prop_assert_eq!(
                (read.magnification.to_bits(), read.x_center_m.to_bits()),
                (any.to_bits(), position.to_bits())
            );
        }
    }
}
