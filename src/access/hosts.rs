//! Whose name a request used. A web page can give its own name our address (DNS rebinding) and then have a browser on this
//! machine ask us; what it can not do is make the browser name us by an address, or by a name without a dot.
//!
//! Must never look a name up.

use std::net::{IpAddr, Ipv6Addr};

/// True for an address, for localhost, for a name without a dot (those are not given out by public servers), and for the
/// configured names.
pub(super) fn is_ours(host: &str, names: &[String]) -> bool {
    let Some(name) = bare(host) else { return false };
    is_address(name)
        || is_plain(name)
        || name.to_ascii_lowercase().ends_with(".localhost")
        || names.iter().any(|known| known.eq_ignore_ascii_case(name))
}

/// True when a page from `origin` asks the site that it came from.
pub(super) fn is_same_site(origin: &str, host: Option<&str>) -> bool {
    let site = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
    site.zip(host).is_some_and(|(site, host)| site.eq_ignore_ascii_case(host))
}

/// A host without its port and a dot at its end.
fn bare(host: &str) -> Option<&str> {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?.0,
        None => host.split_once(':').map_or(host, |(name, _)| name),
    };
    let name = name.strip_suffix('.').unwrap_or(name);
    (!name.is_empty()).then_some(name)
}

fn is_address(name: &str) -> bool {
    name.parse::<IpAddr>().is_ok() || name.parse::<Ipv6Addr>().is_ok()
}

fn is_plain(name: &str) -> bool {
    name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_no_stranger_can_have_are_ours() {
        let names = ["catcher.lab.example".to_owned()];
        for ours in
            ["127.0.0.1:5001", "[::1]:5001", "[::1]", "localhost", "LOCALHOST:1", "catcher", "Catcher.Lab.example.:80"]
        {
            assert!(is_ours(ours, &names), "{ours}");
        }
        for other in ["evil.example", "evil.example:5001", "127.0.0.1.evil.example", "", ":80", "[::1", "lab.example"] {
            assert!(!is_ours(other, &names), "{other}");
        }
    }

    #[test]
    fn a_page_may_ask_only_where_it_came_from() {
        assert!(is_same_site("http://127.0.0.1:5001", Some("127.0.0.1:5001")));
        for origin in ["null", "http://evil.example", "http://127.0.0.1:8000", ""] {
            assert!(!is_same_site(origin, Some("127.0.0.1:5001")), "{origin}");
        }
        assert!(!is_same_site("http://127.0.0.1", None));
    }
}
