//! Where tiles come from: made up, an acquisition folder, a data directory's journal, the order of a DAQ timing table.
//!
//! Owns images and places; must never touch a socket. Checksums are computed once an image is made or read, never while
//! it is sent.

mod grid;
#[cfg(feature = "daemon")]
mod journal;
mod stored;
mod table;

pub use grid::Prepared;
pub use stored::StoredTiles;
pub use table::{TimingFile, TimingTable};

use crate::client::{ChecksumChoice, checksum_of};
use crate::model::{AcqId, Checksum, FrameNumber};
use bytes::Bytes;
use grid::GridFeed;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use stored::StoredFeed;
use table::TableFeed;

/// Where tiles come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceChoice {
    /// Made up, as the profile says.
    Synthetic,
    /// The tiles of an acquisition folder, in the order of its DAQ timing table.
    Folder(PathBuf),
    /// The tiles of an acquisition in a data directory's journal.
    Journal {
        /// The data directory.
        data: PathBuf,
        /// The acquisition; the only one when absent.
        acq: Option<AcqId>,
    },
    /// Made up, at the places and in the order of a DAQ timing table; each camera is a sender.
    Timing {
        /// The table.
        file: PathBuf,
        /// Time of a step where the table has none.
        step: Option<Duration>,
    },
}

/// An image and its checksum. Clones share the bytes.
#[derive(Clone, Debug)]
pub struct Image {
    /// The bytes.
    pub bytes: Bytes,
    /// Their checksum.
    pub checksum: Checksum,
}

impl Image {
    fn new(bytes: Bytes, choice: ChecksumChoice) -> Self {
        let checksum = checksum_of(choice, &bytes);
        Self { bytes, checksum }
    }
}

/// A place in the acquisition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    /// Column.
    pub col: u32,
    /// Row.
    pub row: u32,
    /// Frame.
    pub frame: FrameNumber,
    /// Camera.
    pub camera: i32,
}

/// Which image: to find it again when it is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageId {
    /// The group of senders; 0 for stored tiles.
    pub group: u32,
    /// The image in it.
    pub index: u32,
}

/// A tile to be sent.
#[derive(Clone, Debug)]
pub struct SourceTile {
    /// Where to.
    pub place: Place,
    /// Which image.
    pub id: ImageId,
    /// The image.
    pub image: Image,
}

/// What a feed has.
#[derive(Debug)]
pub enum Fed {
    /// A tile.
    Tile(SourceTile),
    /// None yet: it is being read.
    Later,
}

/// Why there are no tiles, or no more.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// What was given is no source.
    #[error("{0}")]
    Unusable(String),
    /// A tile can not be read.
    #[error("{path}: {problem}")]
    Tile {
        /// The file, or the tile's name in the journal.
        path: String,
        /// Why.
        problem: String,
    },
}

/// The tiles of one sender, one after another, without end.
pub struct Feed(Kind);

enum Kind {
    Grid(GridFeed),
    Stored(StoredFeed),
    Table(TableFeed),
}

impl Feed {
    /// The next tile.
    ///
    /// # Errors
    /// It can not be read.
    pub fn next(&mut self) -> Result<Fed, SourceError> {
        match &mut self.0 {
            Kind::Grid(feed) => Ok(Fed::Tile(feed.next())),
            Kind::Stored(feed) => feed.next(),
            Kind::Table(feed) => Ok(Fed::Tile(feed.next())),
        }
    }
}

/// Images of a running replay, by which what was stored is compared.
pub enum Images {
    /// Of each group of senders.
    Prepared(Vec<Arc<Prepared>>),
    /// Read again.
    Stored(Arc<StoredTiles>),
}

impl Images {
    /// The image.
    ///
    /// # Errors
    /// It can not be read any more.
    pub fn get(&self, id: ImageId) -> Result<Image, SourceError> {
        match self {
            Self::Prepared(groups) => Ok(groups[id.group as usize].image(id.index)),
            Self::Stored(tiles) => tiles.load(id.index),
        }
    }
}
