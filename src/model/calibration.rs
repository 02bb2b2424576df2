//! A camera's calibration: the transformation that its tiles are given by those who render them.

use serde::{Deserialize, Serialize};

/// One record of a calibrations file, as it is written into the journal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// Its name, which the record calls `id`; never empty.
    pub name: String,
    /// Day on which it was made, `yyyymmdd`.
    pub date: String,
    /// Number of the microscope.
    pub temca: u32,
    /// Camera in the microscope's array, from 0.
    pub camera: u32,
    /// The record as it was sent; its lists of transformations are not interpreted.
    pub content: serde_json::Value,
}
