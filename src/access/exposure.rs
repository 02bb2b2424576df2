//! What may listen where: a port that others than this machine can reach needs something that says who they are.
//!
//! A new kind of port says in [`Exposed`] what guards it, and is checked with the others.

use std::net::SocketAddr;

/// A port about to be opened.
#[derive(Clone, Copy, Debug)]
pub struct Exposed {
    /// The key of its address.
    pub key: &'static str,
    /// The address.
    pub address: SocketAddr,
    /// Something tells its friends from strangers.
    pub is_guarded: bool,
    /// The keys that would: for the message.
    pub remedy: &'static str,
}

/// A port would be open to everybody.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{key} = {address} would be open to everybody: {remedy}, or listen on 127.0.0.1")]
pub struct ExposureError {
    key: &'static str,
    address: SocketAddr,
    remedy: &'static str,
}

/// Refuses ports that anybody could reach and use.
///
/// # Errors
/// The first such port, with the remedy.
pub fn check_exposure(ports: &[Exposed]) -> Result<(), ExposureError> {
    let is_open = |port: &&Exposed| !port.is_guarded && !port.address.ip().to_canonical().is_loopback();
    match ports.iter().find(is_open) {
        Some(Exposed { key, address, remedy, .. }) => Err(ExposureError { key, address: *address, remedy }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_needs_no_guard() {
        let port = |address: &str, is_guarded| Exposed {
            key: "capture.address",
            address: address.parse().expect("an address"),
            is_guarded,
            remedy: "set access.networks",
        };
        for (address, is_local) in
            [("127.9.9.9:1", true), ("[::1]:1", true), ("[::ffff:127.0.0.1]:1", true), ("0.0.0.0:1", false)]
        {
            let ports = [port("127.0.0.1:2", false), port(address, false)];
            assert_eq!(check_exposure(&ports).is_ok(), is_local, "{address}");
            assert!(check_exposure(&[port(address, true)]).is_ok(), "{address}");
        }
        let error = check_exposure(&[port("[::]:1", false)]).expect_err("open").to_string();
        assert!(error.contains("capture.address = [::]:1") && error.contains("set access.networks"), "{error}");
    }
}
