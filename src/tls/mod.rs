//! Encryption: certificates from files, TLS 1.3 sessions for non-blocking and blocking sockets, names of clients.
//!
//! Owns everything that knows a key. The only place that imports `rustls`, `webpki` and `tokio-rustls`. Without the
//! feature `tls` the same types are there and can not be made, so that nothing else has to tell the two apart.
//!
//! A session stands between a socket and whoever reads or writes plain bytes. It never owns the socket and never waits by
//! itself. It is bounded: one buffer for records that have arrived, one for records on their way, and the rest of a
//! record that found no room. Must never tell a peer more than the alert that the protocol has for it, nor log a key.

#[cfg(not(feature = "tls"))]
mod absent;
#[cfg(feature = "tls")]
mod client;
#[cfg(feature = "tls")]
mod files;
#[cfg(feature = "daemon")]
mod handshakes;
#[cfg(all(feature = "tls", feature = "daemon"))]
mod name;
#[cfg(all(feature = "tls", feature = "daemon"))]
mod server;
#[cfg(feature = "tls")]
mod session;
#[cfg(all(test, feature = "tls", feature = "daemon"))]
mod tests;

#[cfg(not(feature = "tls"))]
pub use absent::*;
#[cfg(feature = "tls")]
pub use client::{ClientSession, ClientTls};
#[cfg(all(feature = "tls", feature = "mail"))]
pub use files::{check_authorities, provide_for_all};
#[cfg(feature = "daemon")]
pub use handshakes::Handshakes;
#[cfg(all(feature = "tls", feature = "daemon"))]
pub use server::{Encrypted, ServerSession, ServerTls};

use std::path::PathBuf;

/// A certificate, key or CA file that can not be used.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {problem}")]
pub struct TlsError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong, and what would help.
    pub problem: String,
}

/// A server's files, PEM.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerFiles {
    /// The certificate, with those between it and the CA behind it.
    pub certificate: PathBuf,
    /// Its key; nobody but its owner and group may read it.
    pub key: PathBuf,
    /// Whose certificates clients must have; `None`: they need none.
    pub client_ca: Option<PathBuf>,
}

/// A client's files, PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientFiles {
    /// Who vouches for the server.
    pub ca: PathBuf,
    /// The client's own certificate and key, where the server wants one.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// The name that the server's certificate must have on the capture port; `None`: its IP address.
    pub server_name: Option<String>,
}
