//! How full all is, worked out in one place for everybody who is told or who gives way. Pure readings, nothing kept.

use super::{Catalog, Lanes};
use crate::model::Pressure;

/// How full queues and disk are, as every answer to a sender says it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pressures {
    /// The index' queue.
    pub tile_queue: Pressure,
    /// The worst of lane queues, tile buffers and disk.
    pub content_queue: Pressure,
}

impl Pressures {
    /// The worse of both.
    #[must_use]
    pub fn worst(self) -> Pressure {
        self.tile_queue.max(self.content_queue)
    }
}

impl Catalog {
    /// How full all is.
    #[must_use]
    pub fn pressures(&self, lanes: &Lanes) -> Pressures {
        Pressures {
            tile_queue: self.index_pressure(),
            content_queue: self.memory_pressure(lanes).max(self.disk_pressure()),
        }
    }

    /// How full lane queues and tile buffers are.
    pub(super) fn memory_pressure(&self, lanes: &Lanes) -> Pressure {
        let pool = self.pool();
        lane_pressure(lanes).max(Pressure::of(pool.used(), pool.capacity()))
    }

    /// True when work that can wait may take `bytes` of the tile buffers: nobody waits for buffers or places, and it leaves
    /// half of the buffers, or is the only one.
    #[must_use]
    pub fn has_leisure(&self, lanes: &Lanes, bytes: usize) -> bool {
        let pool = self.pool();
        let used = pool.used();
        pool.waiting() == 0
            && (used == 0 || used + bytes <= pool.capacity() / 2)
            && lane_pressure(lanes) == Pressure::Green
            && self.index_pressure() == Pressure::Green
    }
}

fn lane_pressure(lanes: &Lanes) -> Pressure {
    let (waiting, places) = lanes.fill();
    Pressure::of(waiting, places)
}
