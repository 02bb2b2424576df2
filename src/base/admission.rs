//! Who may come in: connections in total and from one peer, and the memory that one peer's unfinished frames may hold.
//!
//! One gate for each port. Counts only: it knows no socket. Takes one short lock for each connection that comes or goes,
//! and none for each frame. Must never admit more than its limits, nor forget to count a connection out.

use super::live::Live;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What a gate lets in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most connections.
    pub connections: usize,
    /// Most connections of one peer address.
    pub connections_per_peer: usize,
    /// Most bytes that the unfinished frames of one peer address hold.
    pub bytes_per_peer: usize,
}

/// Why a connection is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    /// There are as many as there may be.
    Full,
    /// This peer has as many as it may have.
    PeerFull,
}

/// The numbers of [`Limits`] that may change at run time. Who is in already stays in.
#[derive(Clone, Debug)]
pub struct LiveConnections {
    /// Most connections.
    pub connections: Live,
    /// Most connections of one peer address.
    pub connections_per_peer: Live,
}

/// The gate. Clones share it.
#[derive(Clone)]
pub struct Admission {
    shared: Arc<Shared>,
}

/// A connection's place; given back when it is dropped.
pub struct Admitted {
    shared: Arc<Shared>,
    address: IpAddr,
    peer: Arc<Peer>,
}

/// Memory that counts against a peer; given back when it is dropped.
pub struct Held {
    shared: Arc<Shared>,
    peer: Arc<Peer>,
    bytes: usize,
}

/// A connection that waits for its peer's share of memory, as long as this lives.
pub struct Short {
    shared: Arc<Shared>,
}

struct Shared {
    limits: LiveConnections,
    bytes_per_peer: usize,
    state: Mutex<State>,
    /// Connections that wait for their peer's share: raised before the last try of [`Admitted::hold_or_wait`].
    short: AtomicUsize,
    /// A share was given back while somebody waited for one.
    freed: AtomicBool,
}

#[derive(Default)]
struct State {
    connections: usize,
    peers: HashMap<IpAddr, (usize, Arc<Peer>)>,
}

#[derive(Default)]
struct Peer {
    held: AtomicUsize,
}

impl Admission {
    /// An empty house.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        let live = LiveConnections {
            connections: Live::new(limits.connections as u64),
            connections_per_peer: Live::new(limits.connections_per_peer as u64),
        };
        Self::live(live, limits.bytes_per_peer)
    }

    /// As [`Self::new`], with limits that somebody else may change.
    #[must_use]
    pub fn live(limits: LiveConnections, bytes_per_peer: usize) -> Self {
        let (state, short, freed) = (Mutex::new(State::default()), AtomicUsize::new(0), AtomicBool::new(false));
        Self { shared: Arc::new(Shared { limits, bytes_per_peer, state, short, freed }) }
    }

    /// Lets a connection in.
    ///
    /// # Errors
    /// There is no place, or none for this peer.
    pub fn enter(&self, address: IpAddr) -> Result<Admitted, Denied> {
        let address = address.to_canonical();
        let mut state = self.shared.lock();
        if state.connections >= self.shared.limits.connections.count() {
            return Err(Denied::Full);
        }
        let (connections, peer) = state.peers.entry(address).or_default();
        if *connections >= self.shared.limits.connections_per_peer.count() {
            return Err(Denied::PeerFull);
        }
        *connections += 1;
        let peer = Arc::clone(peer);
        state.connections += 1;
        Ok(Admitted { shared: Arc::clone(&self.shared), address, peer })
    }

    /// True while a connection waits for its peer's share of memory.
    #[must_use]
    pub fn is_short(&self) -> bool {
        self.shared.short.load(Ordering::SeqCst) > 0
    }

    /// True once after memory came back that somebody waits for.
    #[must_use]
    pub fn take_freed(&self) -> bool {
        self.shared.freed.load(Ordering::SeqCst) && self.shared.freed.swap(false, Ordering::SeqCst)
    }
}

impl Admitted {
    /// Counts `bytes` against this peer, if its share has room. A peer that holds nothing may hold anything: a frame
    /// longer than the share could never come else.
    #[must_use]
    pub fn hold(&self, bytes: usize) -> Option<Held> {
        let max = self.shared.bytes_per_peer;
        let more = |held: usize| (held == 0 || held.saturating_add(bytes) <= max).then(|| held.saturating_add(bytes));
        self.peer.held.fetch_update(Ordering::SeqCst, Ordering::SeqCst, more).ok()?;
        Some(Held { shared: Arc::clone(&self.shared), peer: Arc::clone(&self.peer), bytes })
    }

    /// As [`Self::hold`]; without room, a sign that somebody waits, until it is dropped.
    ///
    /// # Errors
    /// The peer's share has no room.
    pub fn hold_or_wait(&self, bytes: usize) -> Result<Held, Short> {
        if let Some(held) = self.hold(bytes) {
            return Ok(held);
        }
        self.shared.short.fetch_add(1, Ordering::SeqCst);
        let short = Short { shared: Arc::clone(&self.shared) };
        // Whoever gave room back before the line above did not see that somebody waits.
        self.hold(bytes).ok_or(short)
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.connections -= 1;
        if let Some((connections, _)) = state.peers.get_mut(&self.address) {
            *connections -= 1;
            if *connections == 0 {
                state.peers.remove(&self.address);
            }
        }
    }
}

impl Drop for Short {
    fn drop(&mut self) {
        self.shared.short.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.peer.held.fetch_sub(self.bytes, Ordering::SeqCst);
        if self.shared.short.load(Ordering::SeqCst) > 0 {
            self.shared.freed.store(true, Ordering::SeqCst);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { connections: 3, connections_per_peer: 2, bytes_per_peer: 100 };

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn one_peer_can_not_take_every_place_and_places_come_back() {
        let gate = Admission::new(LIMITS);
        let (one, other) = (address("192.0.2.1"), address("192.0.2.2"));
        let first = gate.enter(one).expect("a place");
        let second = gate.enter(address("::ffff:192.0.2.1")).expect("a place: the same peer, written otherwise");
        assert_eq!(gate.enter(one).err(), Some(Denied::PeerFull));
        let third = gate.enter(other).expect("a place");
        assert_eq!(gate.enter(other).err(), Some(Denied::Full));
        drop((first, second, third));
        assert!(gate.shared.lock().peers.is_empty());
        assert!(gate.enter(one).is_ok());
    }

    #[test]
    fn the_share_is_the_peers_not_the_connections() {
        let gate = Admission::new(LIMITS);
        let one = gate.enter(address("192.0.2.1")).expect("a place");
        let twin = gate.enter(address("192.0.2.1")).expect("a place");
        let other = gate.enter(address("192.0.2.2")).expect("a place");
        let held = one.hold(70).expect("room");
        assert!(twin.hold(31).is_none());
        assert!(other.hold(5000).is_some(), "alone, a peer may hold more than its share");
        let Err(short) = twin.hold_or_wait(31) else { panic!("more than the share") };
        assert!(gate.is_short() && !gate.take_freed());
        drop(held);
        assert!(gate.take_freed() && !gate.take_freed());
        let waited = twin.hold_or_wait(31);
        drop(short);
        assert!(waited.is_ok() && !gate.is_short());
    }
}
