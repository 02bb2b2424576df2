//! Shares of the tile buffers: HTTP clients, however slow and many, leave the rest to the capture port.

use super::answer::Failure;
use super::peers::PerPeer;
use crate::base::limits::BLOCK;
use axum::body::Body;
use bytes::Bytes;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// Longest wait for room.
const PATIENCE: Duration = Duration::from_secs(10);

/// A number of bytes that clients of one kind may hold together.
#[derive(Clone)]
pub(super) struct Share {
    blocks: Arc<Semaphore>,
    capacity: u32,
    /// Half of the blocks, for each peer.
    peers: PerPeer,
}

/// Room that is taken; given back when it is dropped.
pub(super) struct Room {
    permit: OwnedSemaphorePermit,
    /// What of it counts against a peer.
    of_peer: OwnedSemaphorePermit,
}

/// Bytes on their way to a client, and the room that they take until they are gone.
struct Sending<T> {
    content: T,
    _room: Room,
}

/// A body that gives its room back when its last byte is gone.
pub(super) fn sending<T: AsRef<[u8]> + Send + 'static>(content: T, room: Room) -> Body {
    Body::from(Bytes::from_owner(Sending { content, _room: room }))
}

impl<T: AsRef<[u8]>> AsRef<[u8]> for Sending<T> {
    fn as_ref(&self) -> &[u8] {
        self.content.as_ref()
    }
}

impl Share {
    pub(super) fn new(bytes: usize) -> Self {
        let capacity = u32::try_from(bytes / BLOCK).unwrap_or(u32::MAX).max(1);
        let peers = PerPeer::new(per_peer(capacity) as usize);
        Self { blocks: Arc::new(Semaphore::new(capacity as usize)), capacity, peers }
    }

    /// Takes room for `bytes`, waiting its turn, and no more than half of the share for one peer. What is more than that takes
    /// all of its half; what is more than the whole share takes all of it.
    pub(super) async fn take(&self, peer: IpAddr, bytes: usize) -> Result<Room, Failure> {
        let blocks = self.blocks_of(bytes);
        let of_peer = acquire(self.peers.of(peer), blocks.min(per_peer(self.capacity))).await?;
        let permit = acquire(Arc::clone(&self.blocks), blocks).await?;
        Ok(Room { permit, of_peer })
    }

    /// Room for `bytes` out of room that the same peer took for a guess.
    pub(super) async fn resize(&self, peer: IpAddr, mut room: Room, bytes: usize) -> Result<Room, Failure> {
        let blocks = self.blocks_of(bytes) as usize;
        match room.permit.num_permits().checked_sub(blocks) {
            Some(surplus) => {
                drop(room.permit.split(surplus));
                let surplus = room.of_peer.num_permits().saturating_sub(blocks);
                drop(room.of_peer.split(surplus));
                Ok(room)
            }
            None => {
                drop(room);
                self.take(peer, bytes).await
            }
        }
    }

    fn blocks_of(&self, bytes: usize) -> u32 {
        u32::try_from(bytes.div_ceil(BLOCK)).unwrap_or(u32::MAX).min(self.capacity)
    }
}

async fn acquire(permits: Arc<Semaphore>, count: u32) -> Result<OwnedSemaphorePermit, Failure> {
    let permit = timeout(PATIENCE, permits.acquire_many_owned(count)).await;
    permit.ok().and_then(Result::ok).ok_or_else(Failure::busy)
}

/// Blocks of a share that one peer may have.
fn per_peer(capacity: u32) -> u32 {
    (capacity / 2).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(host: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, host])
    }

    #[tokio::test(start_paused = true)]
    async fn one_peer_leaves_half_of_a_share_to_others() {
        let share = Share::new(10 * BLOCK);
        let held = share.take(peer(1), 3 * BLOCK).await.expect("room");
        assert!(share.take(peer(1), 3 * BLOCK).await.is_err(), "more than half");
        let others = share.take(peer(2), 4 * BLOCK).await.expect("room");
        drop((held, others));
        let long = share.take(peer(1), 8 * BLOCK).await.expect("one may be longer than that");
        assert!(share.take(peer(1), 1).await.is_err());
        drop(long);
        assert!(share.take(peer(1), 5 * BLOCK).await.is_ok(), "nothing is lost");
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_share_makes_others_wait_and_in_the_end_come_again() {
        let share = Share::new(10 * BLOCK);
        let held = share.take(peer(1), 7 * BLOCK).await.expect("room");
        assert!(share.take(peer(2), 4 * BLOCK).await.is_err());
        drop(held);
        let all = share.take(peer(1), 1000 * BLOCK).await.expect("the whole share");
        assert!(share.take(peer(2), 1).await.is_err());
        drop(all);
        assert!(share.take(peer(2), 1).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_guessed_too_much_is_given_back_and_too_little_is_taken_anew() {
        let share = Share::new(10 * BLOCK);
        let room = share.take(peer(1), 8 * BLOCK).await.expect("room");
        let small = share.resize(peer(1), room, 3 * BLOCK).await.expect("less");
        drop(share.take(peer(1), 2 * BLOCK).await.expect("the rest of its half"));
        let others = share.take(peer(2), 7 * BLOCK).await.expect("the rest");
        assert!(share.resize(peer(1), small, 4 * BLOCK).await.is_err(), "all else is taken");
        drop(others);
        for host in [1, 2] {
            assert!(share.take(peer(host), 10 * BLOCK).await.is_ok(), "nothing is lost");
        }
    }
}
