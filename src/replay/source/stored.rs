//! Tiles that exist, in an acquisition folder or elsewhere: again and again, each time at new columns.
//!
//! What fits the memory that is given is read before the start; else a thread reads ahead, and a tile that is due before
//! it was read is late and counted.

use super::{Fed, Feed, Image, ImageId, Kind, Place, SourceError, SourceTile};
use crate::client::ChecksumChoice;
use crate::formats::{AcquisitionFolder, FolderTile};
use bytes::Bytes;
use crossbeam_channel::{Receiver, TryRecvError, bounded};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Tiles that exist.
pub struct StoredTiles {
    places: Vec<Place>,
    images: Box<dyn StoredImages>,
    /// Columns that one time through takes.
    cols: u32,
    bytes: u64,
    checksum: ChecksumChoice,
}

/// Where the images of tiles are read from.
pub(super) trait StoredImages: Send + Sync {
    /// The image of the tile at this place of the list.
    ///
    /// # Errors
    /// It is not there, or damaged.
    fn read(&self, index: usize) -> Result<Vec<u8>, SourceError>;
}

/// Images in files, in order.
struct Files(Vec<PathBuf>);

impl StoredImages for Files {
    fn read(&self, index: usize) -> Result<Vec<u8>, SourceError> {
        let path = &self.0[index];
        std::fs::read(path).map_err(|error| unreadable(&path.to_string_lossy(), &error))
    }
}

impl StoredTiles {
    /// The tiles of an acquisition folder, in the order in which they were taken.
    ///
    /// # Errors
    /// It is none, or has no tiles.
    pub fn of_folder(dir: &Path, checksum: ChecksumChoice) -> Result<Self, SourceError> {
        let unusable = |error: &dyn ToString| SourceError::Unusable(error.to_string());
        let folder = AcquisitionFolder::open(dir).map_err(|error| unusable(&error))?;
        let listing = folder.tiles().map_err(|error| unusable(&error))?;
        let mut bytes = 0;
        let (mut places, mut files) = (Vec::new(), Vec::new());
        for FolderTile { path, name } in listing.tiles {
            let meta = std::fs::metadata(&path);
            bytes += meta.map_err(|error| unreadable(&path.to_string_lossy(), &error))?.len();
            places.push(Place { col: name.col, row: name.row, frame: name.frame, camera: name.camera });
            files.push(path);
        }
        Self::new(places, Box::new(Files(files)), bytes, checksum, &dir.to_string_lossy())
    }

    /// Tiles from anywhere; `bytes` is the length of all images together, `what` names them in errors.
    pub(super) fn new(
        places: Vec<Place>,
        images: Box<dyn StoredImages>,
        bytes: u64,
        checksum: ChecksumChoice,
        what: &str,
    ) -> Result<Self, SourceError> {
        let cols = places.iter().map(|place| place.col + 1).max();
        let cols = cols.ok_or_else(|| SourceError::Unusable(format!("{what}: has no tiles to send")))?;
        Ok(Self { places, images, cols, bytes, checksum })
    }

    /// Mean length of an image, bytes.
    #[must_use]
    pub fn mean_bytes(&self) -> f64 {
        self.bytes as f64 / self.places.len() as f64
    }

    /// Reads an image.
    ///
    /// # Errors
    /// It is not there, or damaged.
    pub fn load(&self, index: u32) -> Result<Image, SourceError> {
        Ok(Image::new(Bytes::from(self.images.read(index as usize)?), self.checksum))
    }

    /// The place of the `n`th tile when they are gone through again and again.
    fn place(&self, n: u64) -> (Place, u32) {
        let len = self.places.len() as u64;
        let index = u32::try_from(n % len).unwrap_or(0);
        let mut place = self.places[index as usize];
        let lap = u32::try_from(n / len).unwrap_or(u32::MAX);
        place.col = place.col.saturating_add(lap.saturating_mul(self.cols));
        (place, index)
    }
}

pub(super) fn unreadable(path: &str, problem: &dyn ToString) -> SourceError {
    SourceError::Tile { path: path.to_owned(), problem: problem.to_string() }
}

pub(super) struct StoredFeed {
    tiles: Arc<StoredTiles>,
    way: Way,
}

#[derive(Clone)]
enum Way {
    /// All are in memory; the counter is shared, so that the tiles leave in order whoever sends them.
    Loaded(Arc<Vec<Image>>, Arc<AtomicU64>),
    /// Read ahead.
    Ahead(Receiver<Result<(u64, Image), SourceError>>),
}

impl Feed {
    /// Feeds for `n` senders that share the tiles. Holds about `memory` bytes.
    ///
    /// # Errors
    /// A tile can not be read.
    pub fn stored(tiles: &Arc<StoredTiles>, n: usize, memory: u64) -> Result<Vec<Self>, SourceError> {
        let way = if tiles.bytes <= memory { load_all(tiles)? } else { read_ahead(tiles, memory)? };
        let feed = || Self(Kind::Stored(StoredFeed { tiles: Arc::clone(tiles), way: way.clone() }));
        Ok((0..n).map(|_| feed()).collect())
    }
}

fn load_all(tiles: &Arc<StoredTiles>) -> Result<Way, SourceError> {
    let count = u32::try_from(tiles.places.len()).map_err(|_| SourceError::Unusable("too many tiles".to_owned()))?;
    let images = (0..count).map(|index| tiles.load(index)).collect::<Result<Vec<_>, _>>()?;
    Ok(Way::Loaded(Arc::new(images), Arc::default()))
}

fn read_ahead(tiles: &Arc<StoredTiles>, memory: u64) -> Result<Way, SourceError> {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // A number of tiles.
    let places = (memory as f64 / tiles.mean_bytes()) as usize;
    let (ahead, read) = bounded(places.max(2));
    let tiles = Arc::clone(tiles);
    // Ends when the feeds are gone, or after an error.
    let reader = move || {
        for n in 0.. {
            let loaded = tiles.load(tiles.place(n).1).map(|image| (n, image));
            let failed = loaded.is_err();
            if ahead.send(loaded).is_err() || failed {
                return;
            }
        }
    };
    let started = std::thread::Builder::new().name("read-ahead".into()).spawn(reader);
    started.map_err(|error| SourceError::Unusable(format!("no thread to read ahead: {error}")))?;
    Ok(Way::Ahead(read))
}

impl StoredFeed {
    pub(super) fn next(&mut self) -> Result<Fed, SourceError> {
        let (n, image) = match &self.way {
            Way::Loaded(images, counter) => {
                let n = counter.fetch_add(1, Ordering::Relaxed);
                (n, images[self.tiles.place(n).1 as usize].clone())
            }
            Way::Ahead(read) => match read.try_recv() {
                Ok(loaded) => loaded?,
                Err(TryRecvError::Empty) => return Ok(Fed::Later),
                Err(TryRecvError::Disconnected) => {
                    return Err(SourceError::Unusable("reading ahead has ended".to_owned()));
                }
            },
        };
        let (place, index) = self.tiles.place(n);
        Ok(Fed::Tile(SourceTile { place, id: ImageId { group: 0, index }, image }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{AcqId, CameraCount};
    use crate::simulate::{Bits, SimulateOptions, simulate};
    use std::collections::HashMap;

    fn folder() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().expect("a directory");
        let (acq, cameras, bits) = (AcqId(5), CameraCount::Four, Bits::Eight);
        let options = SimulateOptions { acq, cameras, x_steps: 2, y_steps: 1, width: 40, height: 30, bits, seed: 1 };
        let made = simulate(dir.path(), &options, &mut |_, _| {}).expect("simulated");
        (dir, made.folder)
    }

    fn next(feed: &mut Feed) -> SourceTile {
        loop {
            match feed.next().expect("readable") {
                Fed::Tile(tile) => return tile,
                Fed::Later => std::thread::yield_now(),
            }
        }
    }

    #[test]
    fn a_folder_is_gone_through_in_order_and_again_at_new_columns() {
        let (_dir, folder) = folder();
        for memory in [u64::MAX, 1] {
            let tiles = Arc::new(StoredTiles::of_folder(&folder, ChecksumChoice::Md5).expect("a folder"));
            let mut feeds = Feed::stored(&tiles, 2, memory).expect("feeds");
            let sent: Vec<SourceTile> = (0..16).map(|n| next(&mut feeds[n % 2])).collect();
            let places: HashMap<Place, usize> = sent.iter().map(|tile| tile.place).zip(0..).collect();
            assert_eq!(places.len(), 16);
            assert!((0..8).all(|n| sent[n].image.bytes == sent[n + 8].image.bytes && sent[n].place.col < 4));
            assert!((0..8).all(|n| sent[n].place.col + 4 == sent[n + 8].place.col));
            let again = tiles.load(sent[3].id.index).expect("readable");
            assert_eq!((&again.bytes, again.checksum), (&sent[3].image.bytes, sent[3].image.checksum));
        }
    }

    #[test]
    fn a_tile_that_can_not_be_read_is_named() {
        let (_dir, folder) = folder();
        let tiles = Arc::new(StoredTiles::of_folder(&folder, ChecksumChoice::Md5).expect("a folder"));
        std::fs::remove_file(folder.join("col0000/col0000_row0000_cam0.tif")).expect("removed");
        let error = Feed::stored(&tiles, 1, u64::MAX).err().expect("unreadable").to_string();
        assert!(error.contains("col0000_row0000_cam0.tif"), "{error}");
    }
}
