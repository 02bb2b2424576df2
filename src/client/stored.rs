//! What the server has already, by its own list.
//!
//! Must never take a tile for stored because of its name alone, nor one of which the server knows that it is damaged.

use super::checksums::{ChecksumChoice, checksum_of};
use super::http::{HttpClient, HttpClientError};
use super::service::StoredTile;
use crate::formats::TileName;
use crate::model::{AcqId, FrameNumber};
use std::collections::HashMap;
use std::str::FromStr;

/// How a tile that is there already is recognised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compare {
    /// Same size and same checksum: every file is read.
    Checksum,
    /// Same size: quick, and blind to a file that was rewritten with the same size.
    Size,
    /// Send everything; the server recognises duplicates.
    Nothing,
}

impl FromStr for Compare {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "checksum" => Ok(Self::Checksum),
            "size" => Ok(Self::Size),
            "nothing" => Ok(Self::Nothing),
            other => Err(format!("\"{other}\" is no way to compare: checksum, size or nothing")),
        }
    }
}

/// The tiles of an acquisition on the server.
#[derive(Default)]
pub struct StoredTiles {
    tiles: HashMap<(u32, u32, FrameNumber), StoredTile>,
    by_size: bool,
}

impl StoredTiles {
    /// Asks the server for all tiles of the acquisition; for none when nothing is compared.
    ///
    /// # Errors
    /// The server refuses or does not answer.
    pub fn ask(http: &HttpClient, acq: AcqId, compare: Compare) -> Result<Self, HttpClientError> {
        let mut tiles = HashMap::new();
        if compare != Compare::Nothing {
            http.stored_tiles(acq, |tile| {
                if !tile.damaged {
                    tiles.insert((tile.col, tile.row, tile.frame), tile);
                }
            })?;
        }
        Ok(Self { tiles, by_size: compare == Compare::Size })
    }

    /// Without its content: a file of this size is there.
    #[must_use]
    pub fn has_by_size(&self, name: &TileName, bytes: u64) -> bool {
        self.by_size && self.find(name).is_some_and(|stored| stored.size == bytes)
    }

    /// This very image is there.
    #[must_use]
    pub fn has(&self, name: &TileName, image: &[u8]) -> bool {
        self.find(name).is_some_and(|stored| {
            let same_size = stored.size == image.len() as u64;
            same_size && stored.checksum == checksum_of(ChecksumChoice::from(stored.checksum.kind()), image)
        })
    }

    /// What is stored at a tile's place.
    #[must_use]
    pub fn find(&self, name: &TileName) -> Option<&StoredTile> {
        self.tiles.get(&(name.col, name.row, name.frame))
    }
}
