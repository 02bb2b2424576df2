//! Tiles on their way from a lane to the judge, still in memory: a bounded number, a bounded share of the buffers.

use crate::catalog::{HotTiles, VerifiedTile};
use crate::model::{AcqId, TileEntry};
use crate::telemetry::Metrics;
use crossbeam_channel::{Receiver, Sender, bounded};
use crossbeam_queue::ArrayQueue;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

/// Tiles that may wait.
const TILES: usize = 4096;
/// Acquisitions that are noted before the judge looks.
const DEFERRED: usize = 256;

/// A stored tile with its bytes.
pub(super) struct HotTile {
    pub(super) entry: TileEntry,
    pub(super) tile: VerifiedTile,
    _held: Held,
}

/// Bytes of the share; given back when it is dropped.
struct Held {
    bytes: usize,
    queue: Arc<Share>,
}

struct Share {
    bytes: AtomicUsize,
    bytes_max: usize,
}

/// Where lanes put tiles.
pub(super) struct HotQueue {
    tiles: Sender<HotTile>,
    share: Arc<Share>,
    /// Acquisitions with tiles that found no room.
    deferred: ArrayQueue<AcqId>,
    /// The last of them: so that a run of tiles is noted once. Stored by lanes, cleared by the judge before it empties
    /// `deferred`; relaxed, for an acquisition that is noted twice or by a late lane is only looked at again.
    last_deferred: AtomicU64,
    /// A tile was stored since the judge last asked; relaxed, for it only decides when it takes its time.
    has_come: AtomicBool,
    metrics: Arc<Metrics>,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.queue.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl HotQueue {
    pub(super) fn new(bytes_max: usize, metrics: &Arc<Metrics>) -> (Arc<Self>, Receiver<HotTile>) {
        let (tiles, queue) = bounded(TILES);
        let share = Arc::new(Share { bytes: AtomicUsize::new(0), bytes_max });
        let (deferred, last_deferred) = (ArrayQueue::new(DEFERRED), AtomicU64::new(0));
        let (has_come, metrics) = (AtomicBool::new(false), Arc::clone(metrics));
        (Arc::new(Self { tiles, share, deferred, last_deferred, has_come, metrics }), queue)
    }

    /// Acquisitions with tiles that found no room since the last call.
    pub(super) fn take_deferred(&self) -> Vec<AcqId> {
        self.last_deferred.store(0, Ordering::Relaxed);
        std::iter::from_fn(|| self.deferred.pop()).collect()
    }

    /// True when a tile was stored since the last call.
    pub(super) fn has_come(&self) -> bool {
        self.has_come.swap(false, Ordering::Relaxed)
    }

    fn hold(&self, bytes: usize) -> Option<Held> {
        let before = self.share.bytes.fetch_add(bytes, Ordering::Relaxed);
        let held = Held { bytes, queue: Arc::clone(&self.share) };
        (before + bytes <= self.share.bytes_max).then_some(held)
    }

    fn defer(&self, acq: AcqId) {
        self.metrics.quality_deferred.inc();
        if self.last_deferred.swap(acq.0, Ordering::Relaxed) != acq.0 {
            let _ = self.deferred.push(acq);
        }
    }
}

impl HotTiles for HotQueue {
    fn stored(&self, entry: TileEntry, tile: VerifiedTile) {
        self.has_come.store(true, Ordering::Relaxed);
        let acq = entry.key.acq;
        let Some(held) = self.hold(tile.held_bytes()) else { return self.defer(acq) };
        if self.tiles.try_send(HotTile { entry, tile, _held: held }).is_err() {
            self.defer(acq);
        }
    }
}
