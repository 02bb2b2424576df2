//! Previews: images of stored tiles and of whole mosaics, for pages and people.
//!
//! A few threads of the lowest importance ([`PreviewOptions::threads`]) do what is asked for, one thing after another,
//! from a bounded queue in which equal questions are one. They read through the catalog's verified contents
//! (invariant 10), hold one tile buffer each, and only while capture leaves most of the buffers free. Thumbnails are
//! kept below `cache/` in the data directory: a bounded number of bytes, which may vanish or rot at any time, for every
//! file says which tiles it shows and carries its own checksum.
//!
//! Must never make capture wait, believe a file of the cache, or justify an answer about a tile by it.

mod cache;
mod make;
mod pyramid;
mod queue;

use crate::base::{failpoint, importance};
use crate::catalog::{Catalog, Lanes};
use crate::model::{AcqId, Fact, FactBody, TileEntry, TileId, TileVersion};
use crate::pixels::{Contrast, Region};
use bytes::Bytes;
use cache::Cache;
use make::Maker;
use pyramid::{Changes, Pyramids};
use queue::Queue;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

/// Columns and rows of a thumbnail, pixels.
pub const THUMBNAIL_SIDE: u32 = 256;
/// Highest level of thumbnails: one covers 2^level x 2^level places, and there are 2^32 a side.
pub const LEVEL_MAX: u8 = 31;
/// Questions that may wait, and those who may wait for their answers.
const QUEUE: usize = 512;

/// How previews are made.
#[derive(Clone, Copy, Debug)]
pub struct PreviewOptions {
    /// Threads that make them; 0: none are made.
    pub threads: usize,
    /// Bytes of thumbnails that are kept.
    pub cache_bytes: u64,
}

/// Which tiles of an acquisition a thumbnail shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Layer {
    /// The acquisition.
    pub acq: AcqId,
    /// Only those in ROIs of this section.
    pub section: Option<i64>,
    /// Only those of this camera.
    pub camera: Option<i32>,
}

/// A thumbnail's place: columns from `x` * 2^level on, rows from `y` * 2^level on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct At {
    /// 0 for one tile.
    pub level: u8,
    /// Column of thumbnails.
    pub x: u32,
    /// Row of thumbnails.
    pub y: u32,
}

/// What can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ask {
    /// A version of a tile.
    Tile {
        /// The tile.
        id: TileId,
        /// Which of its contents.
        version: TileVersion,
        /// A part of it; `None`: all.
        region: Option<Region>,
        /// Longest side of the answer, pixels; `None`: as it is.
        size: Option<u32>,
        /// Which grey values become black and white; `None`: 8 bits as they are, 16 bits as `auto`.
        contrast: Option<Contrast>,
    },
    /// A thumbnail.
    Thumbnail {
        /// Of which tiles.
        layer: Layer,
        /// Which places.
        at: At,
    },
}

/// An image on its way to whoever asked.
#[derive(Clone, Debug)]
pub struct Preview {
    /// Names what it shows: another one when a tile in it has changed.
    pub etag: String,
    /// PNG.
    pub png: Bytes,
}

/// Why there is no image.
#[derive(Clone, Debug, thiserror::Error)]
pub enum PreviewError {
    /// No threads make them.
    #[error("previews are switched off: set preview.threads")]
    Off,
    /// Too much is waiting, or it takes longer: come again.
    #[error("{0}: try again")]
    Busy(&'static str),
    /// There is no tile there.
    #[error("{0}")]
    Missing(String),
    /// The stored content can not be shown.
    #[error("the content can not be shown: {0}")]
    Refused(String),
    /// The question makes no sense for this content.
    #[error("{0}")]
    Invalid(String),
    /// The stored bytes, or the index, can not be read.
    #[error("{0}")]
    Storage(String),
}

/// What comes of a question.
pub type Answer = Result<Preview, PreviewError>;

/// The threads that make previews, and what they have made.
pub struct Previews {
    queue: Arc<Queue>,
    maker: Arc<Maker>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    is_on: bool,
}

impl Previews {
    /// Starts the threads on a data directory's catalog.
    ///
    /// # Errors
    /// A thread can not be started.
    pub fn start(
        options: PreviewOptions,
        data_dir: &Path,
        catalog: &Arc<Catalog>,
        lanes: &Lanes,
    ) -> std::io::Result<Arc<Self>> {
        let (queue, changes) = (Arc::new(Queue::new(QUEUE)), Arc::new(Changes::default()));
        let cache = Cache::new(data_dir.join("cache"), options.cache_bytes, catalog.metrics());
        let pyramids = Pyramids::new(Arc::clone(catalog.index()), Arc::clone(&changes), catalog.stop().clone());
        let maker = Arc::new(Maker::new(Arc::clone(catalog), lanes.clone(), cache, pyramids));
        let is_on = options.threads > 0;
        if is_on {
            let queue = Arc::clone(&queue);
            catalog.index().on_publish(move |facts| {
                changes.published(facts);
                forget_deleted(&queue, facts);
            });
        }
        let mut threads = Vec::new();
        for n in 0..options.threads {
            let (queue, maker) = (Arc::clone(&queue), Arc::clone(&maker));
            let thread = std::thread::Builder::new().name(format!("preview-{n}"));
            threads.push(thread.spawn(move || work(&queue, &maker, n == 0))?);
        }
        Ok(Arc::new(Self { queue, maker, threads: Mutex::new(threads), is_on }))
    }

    /// The answer, when it takes no making. Blocks on the disk.
    #[must_use]
    pub fn at_hand(&self, ask: &Ask) -> Option<Preview> {
        match ask {
            Ask::Thumbnail { layer, at } if self.is_on => self.maker.at_hand(layer, *at),
            _ => None,
        }
    }

    /// Has a preview made.
    ///
    /// # Errors
    /// See [`PreviewError`].
    pub async fn make(&self, ask: Ask) -> Answer {
        if !self.is_on {
            return Err(PreviewError::Off);
        }
        let answer = self.queue.put(ask).ok_or(PreviewError::Busy("too many previews are asked for"))?;
        answer.await.unwrap_or(Err(PreviewError::Busy("the daemon is stopping")))
    }

    /// Tells the threads to end, and whoever waits that they do.
    pub fn begin_stop(&self) {
        self.queue.stop();
    }

    /// Ends the threads; each does what it is at, which takes about a second at most.
    pub fn stop(&self) {
        self.begin_stop();
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            let _ = thread.join();
        }
    }
}

fn forget_deleted(queue: &Queue, facts: &[Fact]) {
    for fact in facts {
        if let FactBody::AcquisitionDeleted(deleted) = &fact.body {
            queue.forget(deleted.acq);
        }
    }
}

/// A thread's work. The first one also looks after the cache.
fn work(queue: &Queue, maker: &Maker, is_first: bool) {
    importance::yield_to_others();
    if is_first {
        maker.open_cache();
    }
    while let Some(job) = queue.take() {
        match job {
            queue::Job::Forget(acq) => maker.forget(acq),
            queue::Job::Make(ask, askers) => {
                askers.answer(guarded(|| {
                    failpoint::pass("preview");
                    maker.make(&ask)
                }));
            }
        }
    }
}

/// A decoder that panics on a stranger's file is no reason to stop capturing.
fn guarded(make: impl FnOnce() -> Answer) -> Answer {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(make)).unwrap_or_else(|_| {
        tracing::error!("a preview could not be made: the decoder failed inside");
        Err(PreviewError::Refused("the decoder failed inside".to_owned()))
    })
}

/// The current content of a tile, as a question.
#[must_use]
pub fn tile_ask(entry: &TileEntry, region: Option<Region>, size: Option<u32>, contrast: Option<Contrast>) -> Ask {
    Ask::Tile { id: entry.id, version: entry.version, region, size, contrast }
}
