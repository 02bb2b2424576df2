//! What one reactor saw since it last published: plain memory, handed over once a wake-up.
//!
//! Must never do more for a tile than push a number (invariant 5): its room is made once.

use super::{Activity, RefusedTile};
use crate::base::clock;
use crate::model::{Refusal, TileKey};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// Answers that are handed over together at most.
const ANSWERS: usize = 1024;
/// Refusals of one wake-up that are told; more are only counted, by the metrics.
const REFUSALS: usize = 256;

/// What one thread saw.
pub struct LocalActivity {
    activity: Arc<Activity>,
    ages: Vec<Duration>,
    refused: Vec<RefusedTile>,
}

impl LocalActivity {
    /// Nothing yet.
    #[must_use]
    pub fn new(activity: &Arc<Activity>) -> Self {
        let (ages, refused) = (Vec::with_capacity(ANSWERS), Vec::with_capacity(REFUSALS));
        Self { activity: Arc::clone(activity), ages, refused }
    }

    /// Who is told.
    #[must_use]
    pub fn activity(&self) -> &Arc<Activity> {
        &self.activity
    }

    /// A tile was answered so long after its last byte.
    pub fn answered(&mut self, age: Duration) {
        if self.ages.len() == ANSWERS {
            self.activity.answered(&self.ages);
            self.ages.clear();
        }
        self.ages.push(age);
    }

    /// A tile was refused.
    pub fn refused(&mut self, key: TileKey, why: Refusal, peer: Option<SocketAddr>) {
        if self.refused.len() < REFUSALS {
            self.refused.push(RefusedTile { key, why, peer, at_ns: clock::unix_ns() });
        }
    }

    /// Tells everything and starts again from nothing.
    pub fn publish(&mut self) {
        self.activity.answered(&self.ages);
        self.activity.refused(&self.refused);
        self.ages.clear();
        self.refused.clear();
    }
}
