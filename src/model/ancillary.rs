//! What else belongs to an acquisition besides its tiles: logs, tables, an overview image.

use serde::{Deserialize, Serialize};

/// What an ancillary file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AncillaryKind {
    /// Pulses that were added (CSV).
    AddPulse,
    /// Elapsed times of the controller (CSV).
    ControllerElapsed,
    /// Timing of the controller (CSV).
    ControllerTiming,
    /// Timing of the data acquisition: which tile each camera took when (CSV).
    DaqTiming,
    /// Which region of interest is which section (INI).
    RoiSpec,
    /// Which tile lies in which region of interest (CSV).
    RoiTiles,
    /// The acquisition log (INI).
    Logfile,
    /// Overview image of the mosaic (PNG).
    Mosaic,
    /// Statistics of the tiles (CSV).
    Statistics,
    /// List of the images the microscope's software stored (CSV).
    StoredImageList,
    /// Anything else.
    Unknown,
}

impl AncillaryKind {
    /// The kind as it is written into the journal and the API.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::AddPulse => "add_pulse",
            Self::ControllerElapsed => "controller_elapsed",
            Self::ControllerTiming => "controller_timing",
            Self::DaqTiming => "daq_timing",
            Self::RoiSpec => "roi_spec",
            Self::RoiTiles => "roi_tiles",
            Self::Logfile => "logfile",
            Self::Mosaic => "mosaic",
            Self::Statistics => "statistics",
            Self::StoredImageList => "stored_image_list",
            Self::Unknown => "unknown",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::AncillaryKind::*;
    use super::*;

    #[test]
    fn the_journal_holds_the_name() {
        let kinds = [AddPulse, ControllerElapsed, ControllerTiming, DaqTiming, RoiSpec, RoiTiles, Logfile, Mosaic];
        for kind in kinds.into_iter().chain([Statistics, StoredImageList, Unknown]) {
            assert_eq!(serde_json::to_value(kind).expect("JSON"), kind.name());
            assert_eq!(serde_json::from_value::<AncillaryKind>(kind.name().into()).expect("a kind"), kind);
        }
    }
}
