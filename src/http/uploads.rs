//! Places for bodies that are held whole in memory: a few for long ones, others for those that say that they are short.
//!
//! A place is kept until nothing of the body is left. Must never make a short body wait for long ones, however slowly those
//! come, nor give one peer more than half of either kind.

use super::answer::Failure;
use super::parts::PATIENCE;
use super::peers::PerPeer;
use std::net::IpAddr;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// Long bodies at a time, each of up to [`super::parts::BODY_BYTES_MAX`].
const LONG_AT_ONCE: usize = 4;
/// Short bodies at a time.
const SHORT_AT_ONCE: usize = 64;
/// Longest short body.
const SHORT_BYTES_MAX: usize = 1 << 20;

/// All places. Clones share them.
#[derive(Clone)]
pub(super) struct Uploads {
    long: Places,
    short: Places,
}

/// Places of one kind.
#[derive(Clone)]
struct Places {
    all: Arc<Semaphore>,
    peers: PerPeer,
}

/// A place; given back when it is dropped.
pub(super) struct Place {
    _of_all: OwnedSemaphorePermit,
    _of_peer: OwnedSemaphorePermit,
}

impl Default for Uploads {
    fn default() -> Self {
        Self { long: Places::new(LONG_AT_ONCE), short: Places::new(SHORT_AT_ONCE) }
    }
}

impl Uploads {
    /// Takes a place for a body of this length, waiting its turn; one that does not say its length may be long.
    pub(super) async fn take(&self, length: Option<usize>, peer: IpAddr) -> Result<Place, Failure> {
        let is_short = length.is_some_and(|length| length <= SHORT_BYTES_MAX);
        let places = if is_short { &self.short } else { &self.long };
        timeout(PATIENCE, places.take(peer)).await.ok().flatten().ok_or_else(Failure::busy)
    }
}

impl Places {
    fn new(count: usize) -> Self {
        Self { all: Arc::new(Semaphore::new(count)), peers: PerPeer::new(count / 2) }
    }

    /// First of the peer's own: who waits for those must not hold a place of all meanwhile.
    async fn take(&self, peer: IpAddr) -> Option<Place> {
        let of_peer = self.peers.of(peer).acquire_owned().await.ok()?;
        let of_all = Arc::clone(&self.all).acquire_owned().await.ok()?;
        Some(Place { _of_all: of_all, _of_peer: of_peer })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(host: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, host])
    }

    #[tokio::test(start_paused = true)]
    async fn one_peer_takes_half_of_the_long_places_and_nobody_takes_the_short_ones_with_long_bodies() {
        let uploads = Uploads::default();
        let mut held = Vec::new();
        for _ in 0..LONG_AT_ONCE / 2 {
            held.push(uploads.take(None, peer(1)).await.expect("a place"));
        }
        assert!(uploads.take(Some(SHORT_BYTES_MAX + 1), peer(1)).await.is_err(), "more than half");
        for _ in 0..LONG_AT_ONCE / 2 {
            held.push(uploads.take(None, peer(2)).await.expect("a place"));
        }
        assert!(uploads.take(None, peer(3)).await.is_err(), "there are no more");
        for host in 1..4 {
            held.push(uploads.take(Some(SHORT_BYTES_MAX), peer(host)).await.expect("a place"));
        }
        held.clear();
        assert!(uploads.take(None, peer(1)).await.is_ok(), "places come back");
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_a_place_in_vain_is_told_to_come_again() {
        let uploads = Uploads::default();
        let mut held = Vec::new();
        for _ in 0..SHORT_AT_ONCE / 2 {
            held.push(uploads.take(Some(100), peer(1)).await.expect("a place"));
        }
        let began = tokio::time::Instant::now();
        assert!(uploads.take(Some(100), peer(1)).await.is_err());
        assert_eq!(began.elapsed(), PATIENCE);
        assert!(uploads.take(Some(100), peer(2)).await.is_ok());
    }
}
