//! What the pixels of a tile say of it: measures, and what they mean.
//!
//! Whole numbers in fixed units, so that what is read back from the journal is what was written.

use super::{AcqId, Cell, Sequence, TileId, TileVersion};
use serde::{Deserialize, Serialize};

/// Measures of one image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Measures {
    /// Mean grey value, hundredths.
    #[serde(default)]
    pub mean_c: u32,
    /// From the darkest to the brightest 1 % of the pixels, as share of the camera's range, ten-thousandths.
    #[serde(default)]
    pub contrast_e4: u32,
    /// Pixels that are as dark or as bright as they can be, share of all, ten-thousandths.
    #[serde(default)]
    pub saturated_e4: u32,
    /// Fine structure against all structure: energy of the Laplacian by variance, ten-thousandths. Compares images of one
    /// camera, nothing else.
    #[serde(default)]
    pub focus_e4: u32,
}

/// Something that is wrong with an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum QualityFlag {
    /// It shows nothing.
    Blank = 1,
    /// Too much of it is as dark or as bright as it can be.
    Saturated = 2,
    /// Less sharp than the camera's images usually are.
    Blurred = 4,
    /// It can not be decoded: there are no measures.
    Undecodable = 8,
}

impl QualityFlag {
    /// All flags.
    pub const ALL: [QualityFlag; 4] = [Self::Blank, Self::Saturated, Self::Blurred, Self::Undecodable];

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Blank => "blank",
            Self::Saturated => "saturated",
            Self::Blurred => "blurred",
            Self::Undecodable => "undecodable",
        }
    }

    /// The flag of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|flag| flag.name() == name)
    }
}

/// A set of flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct QualityFlags(pub u8);

impl QualityFlags {
    /// Adds a flag.
    pub fn add(&mut self, flag: QualityFlag) {
        self.0 |= flag as u8;
    }

    /// True when the flag is there.
    #[must_use]
    pub fn has(self, flag: QualityFlag) -> bool {
        self.0 & flag as u8 != 0
    }

    /// True without any.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The flags that are there.
    pub fn iter(self) -> impl Iterator<Item = QualityFlag> {
        QualityFlag::ALL.into_iter().filter(move |flag| self.has(*flag))
    }
}

/// What was found of one version of a tile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// The version.
    pub version: TileVersion,
    /// Its measures; zeros when it can not be decoded.
    pub measures: Measures,
    /// What is wrong with it.
    pub flags: QualityFlags,
}

/// A tile in a record of judgements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JudgedTile {
    /// The tile.
    pub id: TileId,
    /// The version that was judged.
    pub version: TileVersion,
    /// Its place in the journal.
    pub sequence: Sequence,
    /// Its place in the mosaic.
    pub cell: Cell,
    /// The measures.
    #[serde(flatten)]
    pub measures: Measures,
    /// What is wrong.
    #[serde(default)]
    pub flags: QualityFlags,
}

impl JudgedTile {
    /// What is kept of it.
    #[must_use]
    pub fn judgement(&self) -> Judgement {
        Judgement { version: self.version, measures: self.measures, flags: self.flags }
    }
}

/// Tiles of an acquisition were judged by their pixels.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TilesJudged {
    /// The acquisition.
    pub acq: AcqId,
    /// The tiles.
    pub tiles: Vec<JudgedTile>,
}
