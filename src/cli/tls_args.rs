//! The arguments of encryption, the same for everything that speaks to a daemon.

use super::{BAD_INPUT, Failure, OrExit};
use crate::tls::{ClientFiles, ClientTls};
use clap::Args;
use std::path::PathBuf;

/// Files for TLS, PEM.
#[derive(Args, Clone)]
pub(super) struct TlsArgs {
    /// Encrypt the capture connections, and trust daemons whose certificate this CA has signed (https URLs, too)
    #[arg(long, value_name = "FILE")]
    tls_ca: Option<PathBuf>,
    /// This client's certificate
    #[arg(long, value_name = "FILE", requires_all = ["tls_ca", "tls_key"])]
    tls_cert: Option<PathBuf>,
    /// Its key
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Name in the daemon's certificate, where that does not have the IP address of the capture port
    #[arg(long, value_name = "NAME", requires = "tls_ca")]
    tls_name: Option<String>,
}

impl TlsArgs {
    /// The files, read; `http`: the URL they are used with.
    pub(super) fn load(&self, http: &str) -> Result<Option<ClientTls>, Failure> {
        let Some(ca) = &self.tls_ca else {
            if http.starts_with("https:") {
                let error = anyhow::anyhow!("{http}: who vouches for this daemon? give --tls-ca");
                return Err(Failure { code: BAD_INPUT, error });
            }
            return Ok(None);
        };
        let identity = self.tls_cert.clone().zip(self.tls_key.clone());
        let files = ClientFiles { ca: ca.clone(), identity, server_name: self.tls_name.clone() };
        ClientTls::load(&files).map(Some).or_exit(BAD_INPUT)
    }
}
