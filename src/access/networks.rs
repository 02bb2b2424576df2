//! Networks that are trusted: CIDRs of IPv4 and IPv6. An IPv4 address in IPv6's clothes counts as IPv4.
//!
//! Must never take a network that says something else than it looks like: bits behind the mask are an error.

use ipnet::{IpNet, Ipv4Net};
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// A network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network(IpNet);

/// Networks, in the order of the configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks(Vec<Network>);

/// Bits of an IPv6 address before the IPv4 address that it maps.
const MAPPED_BITS: u8 = 96;

impl Network {
    /// True when this is every address of its family.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        self.0.prefix_len() == 0
    }
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |_| format!("\"{text}\" is no network: such as 192.168.1.0/24, fd00::/8 or a single address");
        let net = match text.parse::<IpAddr>() {
            Ok(address) => IpNet::from(address),
            Err(_) => text.parse().map_err(wrong)?,
        };
        if net.addr() != net.network() {
            return Err(format!("\"{text}\" has bits behind its mask: {} is the network", net.trunc()));
        }
        Ok(Self(unmapped(net)))
    }
}

/// A network of mapped addresses, as IPv4.
fn unmapped(net: IpNet) -> IpNet {
    let IpNet::V6(v6) = net else { return net };
    let prefix = v6.prefix_len().checked_sub(MAPPED_BITS);
    let mapped = v6.addr().to_ipv4_mapped().zip(prefix).and_then(|(addr, prefix)| Ipv4Net::new(addr, prefix).ok());
    mapped.map_or(net, IpNet::V4)
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Networks {
    /// The first one that holds this address.
    #[must_use]
    pub fn of(&self, address: IpAddr) -> Option<Network> {
        let address = address.to_canonical();
        self.0.iter().find(|network| network.0.contains(&address)).copied()
    }

    /// True when nothing is trusted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The one with the shortest mask.
    #[must_use]
    pub fn widest(&self) -> Option<Network> {
        self.0.iter().min_by_key(|network| network.0.prefix_len()).copied()
    }
}

impl FromStr for Networks {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let named = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        named.map(str::parse).collect::<Result<Vec<_>, _>>().map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holds(networks: &str, address: &str) -> bool {
        let networks: Networks = networks.parse().expect("networks");
        networks.of(address.parse().expect("an address")).is_some()
    }

    #[test]
    fn addresses_are_found_in_their_network_whatever_they_wear() {
        assert!(holds("192.0.2.0/24, fd00::/8", "192.0.2.255"));
        assert!(holds("192.0.2.0/24, fd00::/8", "fd12::1"));
        assert!(!holds("192.0.2.0/24, fd00::/8", "192.0.3.0"));
        assert!(holds("192.0.2.0/24", "::ffff:192.0.2.9"));
        assert!(holds("::ffff:192.0.2.0/120", "192.0.2.9"));
        assert!(holds("192.0.2.7", "192.0.2.7") && !holds("192.0.2.7", "192.0.2.8"));
        assert!(!holds("", "127.0.0.1") && !holds("0.0.0.0/0", "2001:db8::1"));
    }

    #[test]
    fn what_is_no_network_is_named_with_what_was_meant() {
        for (text, hint) in [("lab", "no network"), ("10.0.0.0/33", "no network"), ("10.1.2.3/8", "10.0.0.0/8")] {
            let problem = text.parse::<Networks>().expect_err(text);
            assert!(problem.contains(hint), "{problem}");
        }
        assert!("0.0.0.0/0".parse::<Network>().expect("all").is_everything());
    }
}
