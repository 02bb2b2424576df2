//! The server's side: its certificate, whose clients it trusts, sessions for the capture port, streams for the HTTP port.

use super::files::{authorities, certificates, key, provider, wrong};
use super::name::client_name;
use super::session::{End, Session};
use super::{ServerFiles, TlsError};
use crate::telemetry::TlsRefusal;
use rustls::server::{NoServerSessionStorage, ServerConnectionData, UnbufferedServerConnection, WebPkiClientVerifier};
use rustls::unbuffered::UnbufferedStatus;
use rustls::version::TLS13;
use rustls::{CertificateError, Error, ServerConfig};
use std::io;
use std::sync::{Arc, PoisonError, RwLock};
use tokio::net::TcpStream;

/// A server's session.
pub type ServerSession = Session<UnbufferedServerConnection>;

/// An encrypted connection of the HTTP port.
pub type Encrypted = tokio_rustls::server::TlsStream<TcpStream>;

/// How a port encrypts. Clones share it, and see it when it is read again.
#[derive(Clone)]
pub struct ServerTls {
    files: ServerFiles,
    config: Arc<RwLock<Arc<ServerConfig>>>,
}

impl ServerTls {
    /// Reads the files.
    ///
    /// # Errors
    /// One can not be read, is not what it should be, or others may use the key.
    pub fn load(files: &ServerFiles) -> Result<Self, TlsError> {
        let config = Arc::new(RwLock::new(Arc::new(configure(files)?)));
        Ok(Self { files: files.clone(), config })
    }

    /// Reads the files again, for connections to come. What is wrong with them leaves everything as it is.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn reload(&self) -> Result<(), TlsError> {
        let config = Arc::new(configure(&self.files)?);
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = config;
        Ok(())
    }

    /// A session for a new connection.
    ///
    /// # Errors
    /// None that is known; the configuration was checked when it was read.
    pub fn session(&self) -> io::Result<ServerSession> {
        UnbufferedServerConnection::new(self.current()).map(Session::new).map_err(io::Error::other)
    }

    /// Shakes hands on a connection of the HTTP port.
    ///
    /// # Errors
    /// The client is not to be trusted, does not speak TLS, or has gone: how that is counted.
    pub async fn accept(&self, stream: TcpStream) -> Result<Encrypted, TlsRefusal> {
        let accepted = tokio_rustls::TlsAcceptor::from(self.current()).accept(stream).await;
        accepted.map_err(|error| match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
            Some(error) => refusal(error),
            None => TlsRefusal::Cut,
        })
    }

    fn current(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.config.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl ServerSession {
    /// What the client's certificate calls it.
    #[must_use]
    pub fn client_name(&self) -> Option<String> {
        self.state().peer_certificates().and_then(<[_]>::first).map(client_name)
    }

    /// Why the session failed, as it is counted.
    #[must_use]
    pub fn refusal(&self) -> Option<TlsRefusal> {
        self.failure().map(refusal)
    }
}

/// No session is resumed: a capture connection lives for hours, and what is not kept can not leak.
fn configure(files: &ServerFiles) -> Result<ServerConfig, TlsError> {
    let builder = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .expect("the provider has TLS 1.3");
    let builder = match &files.client_ca {
        Some(path) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(authorities(path)?), provider());
            builder.with_client_cert_verifier(verifier.build().map_err(|error| wrong(path, error))?)
        }
        None => builder.with_no_client_auth(),
    };
    let chain = certificates(&files.certificate)?;
    let mut config = builder
        .with_single_cert(chain, key(&files.key)?)
        .map_err(|error| wrong(&files.certificate, format!("does not go with {}: {error}", files.key.display())))?;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

fn refusal(error: &Error) -> TlsRefusal {
    use CertificateError::{Expired, ExpiredContext, NotValidYet, NotValidYetContext};
    match error {
        Error::NoCertificatesPresented => TlsRefusal::NoCertificate,
        Error::InvalidCertificate(Expired | ExpiredContext { .. } | NotValidYet | NotValidYetContext { .. }) => {
            TlsRefusal::Expired
        }
        Error::InvalidCertificate(_) => TlsRefusal::BadCertificate,
        Error::InvalidMessage(_) => TlsRefusal::NotTls,
        Error::AlertReceived(_) => TlsRefusal::ByClient,
        _ => TlsRefusal::Other,
    }
}

impl End for UnbufferedServerConnection {
    type Data = ServerConnectionData;

    fn process<'c, 'i>(&'c mut self, incoming: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(incoming)
    }
}
