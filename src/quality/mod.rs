//! Quality control: what the pixels of a tile say of it, found while the microscope is still there.
//!
//! Behind its acknowledgement a tile's buffer is handed to one thread of the lowest importance, which measures it and
//! records what it found: one journal record for many tiles. The tiles that wait hold at most an eighth of the buffers;
//! what finds no room is left for when no tiles come, and is then read back from the journal like by any reader, as are
//! the tiles of open acquisitions that an earlier run did not come to.
//!
//! Must never make a lane wait, change an answer, or judge anything but verified bytes (invariant 10).

mod hot;
mod pending;
mod verdict;

use crate::base::importance;
use crate::catalog::{Catalog, CatalogError, ContentError, Lanes};
use crate::model::{AcqId, ByteRange, JudgedTile, QualityFlag, QualityFlags, TileEntry, TileId};
use crate::pixels::{GreyTiff, Measured, PixelError, measure};
use crossbeam_channel::{Receiver, Sender, bounded, select};
use hot::{HotQueue, HotTile};
use pending::Pending;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use verdict::{Runs, Usual};

/// Without a tile for so long, what was left is looked at.
const IDLE: Duration = Duration::from_millis(500);
/// The thread rests so many times as long as it worked: it takes a fifth of a CPU at most, however many tiles come.
const REST: u32 = 4;
/// Pause between two tiles that were left.
const LEFT_PAUSE: Duration = Duration::from_millis(1);
/// Longest rest: where other threads have the CPU, time goes by without work.
const REST_MAX: Duration = Duration::from_millis(20);
/// Pause between two looks whether capture leaves room.
const PRESSED: Duration = Duration::from_millis(50);
/// Tiles that are looked at for one that was left.
const STEP: usize = 256;

/// How tiles are judged.
#[derive(Clone, Copy, Debug)]
pub struct QualityOptions {
    /// Whether they are.
    pub is_on: bool,
    /// Contrast, as share of the camera's range, below which a tile is blank.
    pub blank_below: f64,
    /// Share of pixels at either end of the range above which a tile is saturated.
    pub saturated_above: f64,
    /// Share of the usual sharpness below which a tile is blurred; 0: none is.
    pub blurred_below: f64,
}

/// Acquisitions with tiles that were left, each with the tile behind which to look.
type Left = Arc<Mutex<BTreeMap<AcqId, TileId>>>;

/// The thread that judges.
pub struct Judge {
    /// Dropped, it ends the thread.
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Judge {
    /// Starts judging the tiles that the lanes store; does nothing when that is switched off.
    ///
    /// # Errors
    /// The thread can not be started.
    pub fn start(options: QualityOptions, catalog: &Arc<Catalog>, lanes: &Lanes) -> std::io::Result<Self> {
        let (stop, stopping) = bounded(0);
        if !options.is_on {
            return Ok(Self { stop: None, thread: None });
        }
        let left = Left::default();
        let (queue, tiles) = HotQueue::new(catalog.pool().capacity() / 8, catalog.metrics());
        lanes.keep_hot(Arc::clone(&queue) as Arc<_>);
        let worker = Worker {
            options,
            catalog: Arc::clone(catalog),
            lanes: lanes.clone(),
            queue,
            tiles,
            stopping,
            pending: Pending::new(catalog, &left),
            left,
            usual: Usual::default(),
            runs: Runs::new(catalog.metrics()),
        };
        let thread = std::thread::Builder::new().name("quality".into()).spawn(move || worker.run())?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }

    /// Tells the thread to end.
    pub fn begin_stop(&mut self) {
        self.stop = None;
    }

    /// Ends the thread, within a tile; what was found is recorded. What was not is caught up with after a start.
    pub fn stop(mut self) {
        self.begin_stop();
        if let Some(thread) = self.thread {
            let _ = thread.join();
        }
    }
}

struct Worker {
    options: QualityOptions,
    catalog: Arc<Catalog>,
    lanes: Lanes,
    queue: Arc<HotQueue>,
    tiles: Receiver<HotTile>,
    stopping: Receiver<()>,
    pending: Pending,
    left: Left,
    usual: Usual,
    runs: Runs,
}

impl Worker {
    fn run(mut self) {
        importance::yield_to_others();
        self.leave_open_acquisitions();
        let mut pause = IDLE;
        let mut last_came = Instant::now();
        loop {
            select! {
                recv(self.stopping) -> _ => break,
                recv(self.tiles) -> tile => match tile {
                    Ok(tile) => {
                        let began = Instant::now();
                        self.judge_hot(&tile);
                        drop(tile);
                        std::thread::sleep((began.elapsed() * REST).min(REST_MAX));
                    }
                    Err(_) => break,
                },
                default(pause.min(self.pending.due_in())) => {}
            }
            self.pending.flush_if_due();
            if self.queue.has_come() {
                last_came = Instant::now();
            }
            pause = IDLE;
            if self.tiles.is_empty() && last_came.elapsed() >= IDLE && self.has_left() {
                pause = if self.judge_one_that_was_left() { LEFT_PAUSE } else { PRESSED };
            }
        }
        // No more are taken, and what waits there frees its buffers.
        drop(self.tiles);
        self.pending.flush();
    }

    /// An earlier run may not have come to all tiles of what is still being made.
    fn leave_open_acquisitions(&self) {
        let open = self.catalog.index().acquisitions().into_iter().filter(|(_, view)| {
            let is_open = view.head.started.as_ref().is_none_or(|started| started.ended_ns.is_none());
            is_open && view.counters.tiles + view.counters.drift_frames > 0
        });
        self.left.lock().unwrap_or_else(PoisonError::into_inner).extend(open.map(|(acq, _)| (acq, TileId::NONE)));
    }

    fn judge_hot(&mut self, hot: &HotTile) {
        let flags = self.judge(&hot.entry, hot.tile.image());
        self.runs.add(hot.entry.camera, flags);
    }

    /// Judges an image; a decoder that panics on a stranger's file finds it undecodable.
    fn judge(&mut self, entry: &TileEntry, image: &[u8]) -> QualityFlags {
        let measured = std::panic::catch_unwind(|| GreyTiff::open(image).and_then(|mut tiff| measure(&mut tiff)));
        let measured = measured.unwrap_or_else(|_| Err(PixelError::Damaged("the decoder failed inside".to_owned())));
        let flags = self.flags(entry, &measured);
        let (measures, cell) = (measured.map(|found| found.measures).unwrap_or_default(), entry.key.cell());
        let (id, version, sequence) = (entry.id, entry.version, entry.sequence);
        self.pending.add(entry.key.acq, JudgedTile { id, version, sequence, cell, measures, flags });
        self.catalog.metrics().quality_judged.inc();
        self.catalog.metrics().quality_flagged(flags);
        flags
    }

    fn flags(&mut self, entry: &TileEntry, measured: &Result<Measured, PixelError>) -> QualityFlags {
        match measured {
            Ok(measured) => {
                let usual = self.usual.of(entry.key.acq, entry.camera);
                verdict::flags(&self.options, measured, usual)
            }
            Err(_) => {
                let mut flags = QualityFlags::default();
                flags.add(QualityFlag::Undecodable);
                flags
            }
        }
    }

    /// Takes over what found no room; true when there is anything to look through.
    fn has_left(&self) -> bool {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        left.extend(self.queue.take_deferred().into_iter().map(|acq| (acq, TileId::NONE)));
        !left.is_empty()
    }

    /// Judges one tile that was left, or looks at some that need not be. False: not now, capture needs the room, or what
    /// is found could not be recorded.
    fn judge_one_that_was_left(&mut self) -> bool {
        if self.pending.is_in_vain() {
            return false;
        }
        let next = self.left.lock().unwrap_or_else(PoisonError::into_inner).first_key_value().map(|(k, v)| (*k, *v));
        let Some((acq, after)) = next else { return true };
        match self.next_unjudged(acq, after) {
            Ok(found) => {
                let reached = found.reached;
                if found.entry.is_some_and(|entry| !self.judge_stored(&entry)) {
                    return false;
                }
                let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
                match reached {
                    Some(id) => _ = left.insert(acq, id),
                    None => _ = left.remove(&acq),
                }
            }
            Err(error) => {
                tracing::debug!(%error, acquisition = acq.0, "tiles could not be looked at for their quality");
                self.left.lock().unwrap_or_else(PoisonError::into_inner).remove(&acq);
            }
        }
        true
    }

    /// Reads a tile back and judges it. False: not now, capture needs the room.
    fn judge_stored(&mut self, entry: &TileEntry) -> bool {
        if !self.catalog.has_leisure(&self.lanes, entry.image.len as usize) {
            return false;
        }
        match self.catalog.read_image(entry, ByteRange { offset: 0, len: entry.image.len }) {
            Ok(content) => _ = self.judge(entry, content.as_ref()),
            Err(ContentError::Busy) => return false,
            // Said where damage is said; nothing is known of its pixels.
            Err(ContentError::Damaged(_)) => {}
        }
        true
    }

    fn next_unjudged(&self, acq: AcqId, after: TileId) -> Result<Found, CatalogError> {
        let tiles = self.catalog.index().tiles_of(acq, after, STEP)?;
        let judged = self.catalog.index().judgements(&tiles)?;
        let unjudged = tiles
            .iter()
            .zip(&judged)
            .find(|(tile, judgement)| judgement.is_none() && !self.pending.has(tile.key.acq, tile.id, tile.version));
        let entry = unjudged.map(|(tile, _)| *tile);
        let reached = entry.or(tiles.last().copied().filter(|_| tiles.len() == STEP)).map(|tile| tile.id);
        Ok(Found { entry, reached })
    }
}

/// What a look for tiles came to.
struct Found {
    /// A tile that is not judged.
    entry: Option<TileEntry>,
    /// Where the next look begins; `None`: that was all.
    reached: Option<TileId>,
}
