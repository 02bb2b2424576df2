//! Handshakes that are not done: so many on a port, and so many of one address, so that nobody takes the places of all others.
//!
//! Of IPv6 a network of 64 bits counts as one address. Must never let one wait: who finds no place is closed.

use crate::base::admission::{Admission, Admitted, Limits};
use crate::base::network::network_of;
use crate::telemetry::TlsRefusal;
use std::net::IpAddr;

/// Most on a port.
const HANDSHAKES_MAX: usize = 64;
/// Most of one address: more connections than a sender opens at once.
const HANDSHAKES_PER_PEER: usize = 16;

/// The places of a port. Clones share them.
#[derive(Clone)]
pub struct Handshakes(Admission);

impl Handshakes {
    /// A place for a handshake, until it is dropped.
    ///
    /// # Errors
    /// There is none, or none for this address.
    pub fn begin(&self, peer: IpAddr) -> Result<Admitted, TlsRefusal> {
        self.0.enter(network_of(peer)).map_err(|_| TlsRefusal::Limit)
    }
}

impl Default for Handshakes {
    fn default() -> Self {
        let (connections, connections_per_peer) = (HANDSHAKES_MAX, HANDSHAKES_PER_PEER);
        Self(Admission::new(Limits { connections, connections_per_peer, bytes_per_peer: 0 }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_takes_a_share_of_the_places_and_all_together_no_more_than_there_are() {
        let places = Handshakes::default();
        let begin = |address: &str| places.begin(address.parse().expect("an address")).ok();
        let mut held: Vec<Admitted> = (0..20).filter_map(|_| begin("192.0.2.1")).collect();
        assert_eq!(held.len(), 16);
        held.extend((0..20).filter_map(|n| begin(&format!("2001:db8::{n}"))));
        assert_eq!(held.len(), 32, "a network of 64 bits is one");
        held.extend((2..100).filter_map(|n| begin(&format!("192.0.2.{n}"))));
        assert_eq!(held.len(), 64);
        held.clear();
        assert!(begin("192.0.2.1").is_some(), "places are given back");
    }
}
