//! What is sent of a folder, in which order, and when.
//!
//! Must never open a tile: names and sizes are enough.

use super::pace::Pacer;
use super::{Part, SendOptions};
use crate::client::{Listener, SendError};
use crate::formats::{AcquisitionFolder, FolderTile, TileListing, TileName, parse_roi_spec, parse_roi_tiles};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// Which tiles are sent: all that match what is given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// Only of this column.
    pub col: Option<u32>,
    /// Only of this row.
    pub row: Option<u32>,
    /// Only of this camera.
    pub camera: Option<i32>,
}

impl Selection {
    pub(super) fn is_everything(&self) -> bool {
        *self == Self::default()
    }

    fn takes(&self, name: &TileName) -> bool {
        self.col.is_none_or(|col| col == name.col)
            && self.row.is_none_or(|row| row == name.row)
            && self.camera.is_none_or(|camera| camera == name.camera)
    }
}

/// The order of tiles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// As the DAQ timing table has them, the others behind; by column and row where there is no table.
    Daq,
    /// By column, row, camera.
    Folder,
}

impl FromStr for Order {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "daq" => Ok(Self::Daq),
            "folder" => Ok(Self::Folder),
            other => Err(format!("\"{other}\" is no order: daq or folder")),
        }
    }
}

/// A tile to send.
pub(super) struct Planned {
    pub(super) tile: FolderTile,
    /// From the beginning, when there is a rate.
    pub(super) due: Option<Duration>,
}

/// The tiles to send.
pub(super) struct Plan {
    pub(super) tiles: Vec<Planned>,
    /// What lies among them and is no tile by its name.
    pub(super) skipped: Vec<PathBuf>,
}

impl Plan {
    pub(super) fn make(
        folder: &AcquisitionFolder,
        options: &SendOptions,
        listener: &dyn Listener,
    ) -> Result<Self, SendError> {
        if options.wants(Part::Rois) {
            warn_of_roi_rows(folder, listener);
        }
        if !options.wants(Part::Tiles) {
            return Ok(Self { tiles: Vec::new(), skipped: Vec::new() });
        }
        let TileListing { tiles, skipped } = ordered(folder, options.order, listener)?;
        let taken = tiles.into_iter().filter(|tile| options.selection.takes(&tile.name));
        let mut pacer = Pacer::new(options.rate);
        let planned = |tile: FolderTile| {
            let bytes = if options.rate.is_some() { size_of(&tile) } else { 0 };
            Planned { due: pacer.next(tile.name.camera, bytes), tile }
        };
        Ok(Self { tiles: taken.map(planned).collect(), skipped })
    }
}

/// A timing table that can not be read costs the order, not the tiles.
fn ordered(folder: &AcquisitionFolder, order: Order, listener: &dyn Listener) -> Result<TileListing, SendError> {
    if order == Order::Daq {
        match folder.tiles() {
            Ok(listing) => return Ok(listing),
            Err(error) => listener.note(&format!("{error}; tiles are sent by column and row instead")),
        }
    }
    Ok(folder.tiles_by_place()?)
}

/// 0 for a file that has gone since: reading it will say so.
fn size_of(tile: &FolderTile) -> u64 {
    std::fs::metadata(&tile.path).map_or(0, |metadata| metadata.len())
}

/// The server skips rows with bad numbers; whoever sends them should hear of it. Files that can not be read at all are
/// found when they are sent.
fn warn_of_roi_rows(folder: &AcquisitionFolder, listener: &dyn Listener) {
    let (Some(spec), Some(tiles)) = (folder.roi_spec_path(), folder.roi_tiles_path()) else { return };
    let (Ok(spec), Ok(rows)) = (std::fs::read(spec), std::fs::read(tiles)) else { return };
    let table = parse_roi_spec(&spec).and_then(|sections| parse_roi_tiles(&rows, &sections));
    if let Ok(table) = table {
        table.warnings.iter().for_each(|warning| listener.note(&format!("{}: {warning}", tiles.display())));
    }
}
