//! The client's side: whom it trusts, what it shows.

use super::files::{authorities, certificates, key, provider, wrong};
use super::session::{End, Session};
use super::{ClientFiles, TlsError};
use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::pki_types::ServerName;
use rustls::unbuffered::UnbufferedStatus;
use rustls::version::TLS13;
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use ureq::tls::{Certificate, ClientCert, PrivateKey, RootCerts, TlsConfig, TlsProvider};

/// A client's session.
pub type ClientSession = Session<UnbufferedClientConnection>;

/// How a client encrypts. Clones share it.
#[derive(Clone)]
pub struct ClientTls {
    config: Arc<rustls::ClientConfig>,
    server_name: Option<ServerName<'static>>,
    for_http: TlsConfig,
}

impl fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientTls").field("server_name", &self.server_name).finish_non_exhaustive()
    }
}

impl ClientTls {
    /// Reads the files.
    ///
    /// # Errors
    /// One can not be read, is not what it should be, or others may use the key.
    pub fn load(files: &ClientFiles) -> Result<Self, TlsError> {
        let builder = rustls::ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])
            .expect("the provider has TLS 1.3")
            .with_root_certificates(authorities(&files.ca)?);
        let config = match &files.identity {
            Some((path, key_path)) => builder
                .with_client_auth_cert(certificates(path)?, key(key_path)?)
                .map_err(|error| wrong(path, format!("does not go with {}: {error}", key_path.display())))?,
            None => builder.with_no_client_auth(),
        };
        let server_name = files.server_name.as_ref().map(|name| {
            let problem = || wrong(&files.ca, format!("\"{name}\" is no name that a certificate can have"));
            ServerName::try_from(name.clone()).map_err(|_| problem())
        });
        let (config, server_name) = (Arc::new(config), server_name.transpose()?);
        let for_http = for_http(files, &config)?;
        Ok(Self { config, server_name, for_http })
    }

    /// A session with the capture port at an address.
    ///
    /// # Errors
    /// None that is known; the configuration was checked when it was read.
    pub fn session(&self, address: IpAddr) -> io::Result<ClientSession> {
        let name = self.server_name.clone().unwrap_or_else(|| ServerName::from(address));
        let end = UnbufferedClientConnection::new(Arc::clone(&self.config), name);
        end.map(Session::new).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, format!("TLS: {error}")))
    }

    /// The same for the HTTP client.
    #[must_use]
    pub fn for_http(&self) -> TlsConfig {
        self.for_http.clone()
    }
}

fn for_http(files: &ClientFiles, config: &rustls::ClientConfig) -> Result<TlsConfig, TlsError> {
    let owned = |path: &Path| -> Result<Vec<_>, TlsError> {
        Ok(certificates(path)?.iter().map(|der| Certificate::from_der(der).to_owned()).collect())
    };
    let identity = match &files.identity {
        Some((path, key_path)) => {
            let text = std::fs::read(key_path).map_err(|error| wrong(key_path, error))?;
            let key = PrivateKey::from_pem(&text).map_err(|_| wrong(key_path, "holds no key that can be read"))?;
            Some(ClientCert::new_with_certs(&owned(path)?, key))
        }
        None => None,
    };
    Ok(TlsConfig::builder()
        .provider(TlsProvider::Rustls)
        .unversioned_rustls_crypto_provider(Arc::clone(config.crypto_provider()))
        .root_certs(RootCerts::new_with_certs(&owned(&files.ca)?))
        .client_cert(identity)
        .build())
}

impl End for UnbufferedClientConnection {
    type Data = ClientConnectionData;

    fn process<'c, 'i>(&'c mut self, incoming: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(incoming)
    }
}
