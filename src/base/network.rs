//! Whose an address is, for limits: of IPv6 a network of 64 bits counts as one, for its owner has all of it.

use std::net::{IpAddr, Ipv6Addr};

/// The address as which a limit counts this one.
#[must_use]
pub fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        v4 => v4,
    }
}
