//! What happened lately, for whoever looks on: places that changed, tiles refused, who is connected, how fast it goes.
//!
//! Everything is bounded and nothing is waited for: writers publish once a batch, reactors once a wake-up, and with nobody
//! looking a batch costs one atomic load. What is kept here is lost at a stop; nothing is decided by it. Must never delay a
//! tile, and must never be asked whether something is stored.

mod changes;
mod figures;
mod local;
mod refusals;
mod sampler;
mod senders;

pub use changes::{Changed, SUBSCRIBERS_MAX, Subscription};
pub use figures::{DiskFigures, Rates, Sample};
pub use local::LocalActivity;
pub use refusals::RefusedTile;
pub use sampler::Sampler;
pub use senders::{Connected, SenderCounts, SenderPort, SenderView};

use crate::base::clock;
use crate::model::{AcqId, Fact, FactBody};
use changes::Changes;
use figures::Figures;
use refusals::Refusals;
use senders::Senders;
use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What happened lately in one data directory.
pub struct Activity {
    began: Instant,
    began_ns: i64,
    changes: Changes,
    refusals: Refusals,
    senders: Arc<Senders>,
    figures: Figures,
}

impl Default for Activity {
    fn default() -> Self {
        Self {
            began: Instant::now(),
            began_ns: clock::unix_ns(),
            changes: Changes::default(),
            refusals: Refusals::default(),
            senders: Arc::default(),
            figures: Figures::default(),
        }
    }
}

impl Activity {
    /// When the daemon started, ns since 1970 UTC, and how long ago that was.
    #[must_use]
    pub fn began(&self) -> (i64, Duration) {
        (self.began_ns, self.began.elapsed())
    }

    /// Follows what changes from now on. `None`: too many do already.
    #[must_use]
    pub fn subscribe(self: &Arc<Self>) -> Option<Subscription> {
        Subscription::begin(self)
    }

    /// Facts have become visible. Called by every writer, once a batch, behind the index.
    pub(super) fn published(&self, facts: &[Fact]) {
        for fact in facts {
            if let FactBody::AcquisitionDeleted(deleted) = &fact.body {
                self.refusals.forget(deleted.acq);
            }
        }
        self.changes.of_facts(facts);
    }

    /// A place looks different now, for another reason than a fact.
    pub(super) fn place_changed(&self, acq: AcqId, col: u32, row: u32) {
        self.changes.of_places(&[(acq, col, row)]);
    }

    /// Tiles were refused whose keys could be read.
    pub fn refused(&self, tiles: &[RefusedTile]) {
        if tiles.is_empty() {
            return;
        }
        self.refusals.note(tiles);
        let stable = tiles.iter().filter(|tile| tile.key.frame.is_stable());
        let places: Vec<(AcqId, u32, u32)> = stable.map(|tile| (tile.key.acq, tile.key.col, tile.key.row)).collect();
        self.changes.of_places(&places);
    }

    /// The refusals of a place that are remembered, its drift frames' included, oldest first.
    #[must_use]
    pub fn refusals_of(&self, acq: AcqId, col: u32, row: u32) -> Vec<RefusedTile> {
        self.refusals.of_place(acq, col, row)
    }

    /// Places of which a stable tile was refused, whether or not it came later.
    #[must_use]
    pub fn refused_places(&self, acq: AcqId) -> HashSet<(u32, u32)> {
        self.refusals.places_of(acq)
    }

    /// A sender has connected; it is listed for as long as the result lives.
    #[must_use]
    pub fn connected(&self, peer: SocketAddr, port: SenderPort, name: Option<String>) -> Connected {
        Connected::begin(&self.senders, peer, port, name)
    }

    /// The first `limit` senders that are connected, and how many there are.
    #[must_use]
    pub fn senders(&self, limit: usize) -> (Vec<SenderView>, usize) {
        self.senders.list(limit)
    }

    /// Cuts a sender off, in the middle of whatever it sends. False: there is none with this number.
    #[must_use]
    pub fn cut_off(&self, id: u64) -> bool {
        self.senders.cut(id)
    }

    /// Tiles were answered so long after their last byte.
    pub fn answered(&self, ages: &[Duration]) {
        self.figures.answered(ages);
    }

    /// The last two minutes, second by second, oldest first.
    #[must_use]
    pub fn history(&self) -> Vec<Sample> {
        self.figures.history()
    }

    /// The last few seconds.
    #[must_use]
    pub fn rates(&self) -> Rates {
        self.figures.rates()
    }

    /// Tiles stored a second, of one acquisition, over the last few seconds.
    #[must_use]
    pub fn tiles_per_s(&self, acq: AcqId) -> f64 {
        self.figures.tiles_per_s(acq)
    }

    /// The disk and the journal on it, at most about a second ago.
    #[must_use]
    pub fn disk(&self) -> DiskFigures {
        self.figures.disk()
    }
}
