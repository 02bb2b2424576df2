//! What one peer address may hold: permits of its own, so that the others find some left.
//!
//! Must never keep an address of which nobody holds or awaits anything.

use axum::extract::{ConnectInfo, FromRequestParts, Request};
use axum::http::Extensions;
use axum::http::request::Parts;
use std::collections::HashMap;
use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::Semaphore;

/// The same number of permits for each peer. Clones share them.
#[derive(Clone)]
pub(super) struct PerPeer {
    permits: usize,
    peers: Arc<Mutex<HashMap<IpAddr, Arc<Semaphore>>>>,
}

impl PerPeer {
    pub(super) fn new(permits: usize) -> Self {
        Self { permits, peers: Arc::default() }
    }

    /// The permits of a peer.
    pub(super) fn of(&self, peer: IpAddr) -> Arc<Semaphore> {
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        // Whoever holds or awaits a permit holds its semaphore.
        peers.retain(|_, permits| Arc::strong_count(permits) > 1);
        let new = || Arc::new(Semaphore::new(self.permits));
        Arc::clone(peers.entry(peer.to_canonical()).or_insert_with(new))
    }
}

/// Where a request comes from; all whose address is not known are one peer.
pub(super) fn peer_of(request: &Request) -> IpAddr {
    address_in(request.extensions())
}

/// The same, for a handler that does not take the request.
pub(super) struct Peer(pub(super) IpAddr);

impl<S: Sync> FromRequestParts<S> for Peer {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self(address_in(&parts.extensions)))
    }
}

fn address_in(extensions: &Extensions) -> IpAddr {
    let peer = extensions.get::<ConnectInfo<SocketAddr>>();
    peer.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |ConnectInfo(peer)| peer.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_forgotten_when_nobody_of_it_holds_anything() {
        let (peers, one) = (PerPeer::new(2), IpAddr::from([192, 0, 2, 1]));
        let held = peers.of(one).try_acquire_many_owned(2).expect("both");
        assert!(peers.of("::ffff:192.0.2.1".parse().expect("an address")).try_acquire().is_err(), "the same peer");
        assert!(peers.of(IpAddr::from([192, 0, 2, 2])).try_acquire().is_ok());
        drop(held);
        assert!(peers.of(one).try_acquire().is_ok());
        assert_eq!(peers.peers.lock().expect("no panic").len(), 1);
    }
}
