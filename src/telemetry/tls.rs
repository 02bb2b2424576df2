//! What is counted of encryption: handshakes that failed, and connections by the name of their client.
//!
//! Bounded: so many names have a line of their own, all further ones share one.

use prometheus::{IntGauge, IntGaugeVec};
use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

/// Names that have a line of their own.
const NAMES_MAX: usize = 64;
/// The line of all others.
const OTHER: &str = "other";

/// Why a TLS handshake failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsRefusal {
    /// What came is no TLS.
    NotTls,
    /// The client shows no certificate.
    NoCertificate,
    /// Its certificate is of another CA, or not for this.
    BadCertificate,
    /// Its certificate is no longer valid, or not yet.
    Expired,
    /// The client does not trust this server.
    ByClient,
    /// It took too long.
    Timeout,
    /// The client went away.
    Cut,
    /// Too many at once.
    Limit,
    /// Anything else, such as no version or cipher in common.
    Other,
}

impl TlsRefusal {
    pub(super) const ALL: [TlsRefusal; 9] = [
        Self::NotTls,
        Self::NoCertificate,
        Self::BadCertificate,
        Self::Expired,
        Self::ByClient,
        Self::Timeout,
        Self::Cut,
        Self::Limit,
        Self::Other,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::NotTls => "not_tls",
            Self::NoCertificate => "no_certificate",
            Self::BadCertificate => "bad_certificate",
            Self::Expired => "expired",
            Self::ByClient => "by_client",
            Self::Timeout => "timeout",
            Self::Cut => "cut",
            Self::Limit => "limit",
            Self::Other => "other",
        }
    }
}

/// Connections by client.
pub(super) struct TlsClients {
    connections: IntGaugeVec,
    names: Mutex<BTreeSet<String>>,
}

/// One connection of a client, counted until this is dropped.
pub struct TlsClient(IntGauge);

impl TlsClients {
    pub(super) fn new(connections: IntGaugeVec) -> Self {
        Self { connections, names: Mutex::default() }
    }

    pub(super) fn connected(&self, name: &str) -> TlsClient {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        let has_line = names.contains(name) || names.len() < NAMES_MAX && names.insert(name.to_owned());
        let connections = self.connections.with_label_values(&[if has_line { name } else { OTHER }]);
        connections.inc();
        TlsClient(connections)
    }
}

impl Drop for TlsClient {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[cfg(test)]
mod tests {
    use crate::telemetry::Metrics;

    #[test]
    fn clients_beyond_the_bound_share_a_line_and_those_that_leave_are_not_counted() {
        let metrics = Metrics::new();
        let clients: Vec<_> = (0..70).map(|n| metrics.tls_client(&format!("pc-{n}"))).collect();
        let again = metrics.tls_client("pc-3");
        let page = metrics.render();
        assert!(page.contains("tilecatcher_tls_connections{client=\"pc-3\"} 2\n"), "{page}");
        assert!(page.contains("tilecatcher_tls_connections{client=\"other\"} 6\n"), "{page}");
        drop((clients, again));
        assert_eq!(metrics.render().matches("tilecatcher_tls_connections{").count(), 65);
        assert!(metrics.render().contains("tilecatcher_tls_connections{client=\"other\"} 0\n"));
    }
}
