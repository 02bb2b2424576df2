//! What a capture connection reads and writes: a socket, or an encrypted session on one.
//!
//! A plain connection costs a match and no more. An encrypted one is on trial until its handshake is done: only so many
//! may be, and of one address, each only for a short time. Who fails hears the protocol's alert and nothing else, and is
//! then read, and not understood, until it goes or the time is over: closed at once, the alert would be lost to a reset.

use crate::base::admission::Admitted;
use crate::telemetry::{Metrics, TlsClient, TlsRefusal};
use crate::tls::{Handshakes, ServerSession, ServerTls};
use mio::net::TcpStream;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Time for a handshake. The reactor looks once a second, so all are closed within 5 s.
const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(4);

/// The encrypted side of the capture port.
pub(super) struct Encryption {
    tls: ServerTls,
    handshakes: Handshakes,
    metrics: Arc<Metrics>,
}

pub(super) enum Transport {
    Plain(TcpStream),
    Tls(Box<Encrypted>),
}

/// A connection with a session.
pub(super) struct Encrypted {
    stream: TcpStream,
    session: ServerSession,
    peer: SocketAddr,
    metrics: Arc<Metrics>,
    phase: Phase,
}

enum Phase {
    /// The handshake is not done.
    Trial {
        began: Instant,
        _unfinished: Admitted,
    },
    /// The handshake failed.
    Refused {
        began: Instant,
        _unfinished: Admitted,
    },
    Open {
        name: String,
        _client: TlsClient,
    },
    /// Between two others.
    Gone,
}

impl Encryption {
    pub(super) fn new(tls: ServerTls, metrics: &Arc<Metrics>) -> Self {
        Self { tls, handshakes: Handshakes::default(), metrics: Arc::clone(metrics) }
    }

    /// A session on a new connection, if there is a place for its handshake.
    pub(super) fn begin(&self, stream: TcpStream, peer: SocketAddr) -> Option<Transport> {
        let unfinished = self.handshakes.begin(peer.ip()).inspect_err(|why| self.metrics.tls_refused(*why)).ok()?;
        let session = self.tls.session().inspect_err(|_| self.metrics.tls_refused(TlsRefusal::Other)).ok()?;
        let phase = Phase::Trial { began: Instant::now(), _unfinished: unfinished };
        let metrics = Arc::clone(&self.metrics);
        Some(Transport::Tls(Box::new(Encrypted { stream, session, peer, metrics, phase })))
    }
}

impl Transport {
    pub(super) fn socket(&mut self) -> &mut TcpStream {
        match self {
            Self::Plain(stream) => stream,
            Self::Tls(encrypted) => &mut encrypted.stream,
        }
    }

    pub(super) fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(into),
            Self::Tls(encrypted) => encrypted.read(into),
        }
    }

    /// Reads into two places, the second one only behind a full first one.
    pub(super) fn read_both(&mut self, first: &mut [u8], second: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read_vectored(&mut [IoSliceMut::new(first), IoSliceMut::new(second)]),
            Self::Tls(encrypted) => {
                let read = encrypted.read(first)?;
                Ok(if read == first.len() { read + encrypted.session.take_record(second) } else { read })
            }
        }
    }

    /// After a read: nothing more is there, and news will bring a new event.
    pub(super) fn is_emptied(&self, read: usize, asked: usize) -> bool {
        match self {
            Self::Plain(_) => read < asked,
            Self::Tls(encrypted) => read < asked && encrypted.session.has_emptied(),
        }
    }

    /// After `WouldBlock` come again with the same bytes at the front: a record, once made, must go out.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.write(bytes),
            Self::Tls(encrypted) => encrypted.session.write(&mut encrypted.stream, &[IoSlice::new(bytes)]),
        }
    }

    /// No more will be written.
    /// False when the connection is gone already.
    pub(super) fn shut_down_write(&mut self) -> bool {
        self.socket().shutdown(Shutdown::Write).is_ok()
    }

    pub(super) fn is_encrypted(&self) -> bool {
        matches!(self, Self::Tls(_))
    }

    /// The name in the peer's certificate, once its handshake is done.
    pub(super) fn client(&self) -> Option<&str> {
        match self {
            Self::Tls(encrypted) => match &encrypted.phase {
                Phase::Open { name, .. } => Some(name),
                _ => None,
            },
            Self::Plain(_) => None,
        }
    }

    /// The handshake failed, or has not been done by the time that is given for it.
    pub(super) fn is_refused(&self) -> bool {
        matches!(self, Self::Tls(encrypted) if !matches!(encrypted.phase, Phase::Open { .. }))
    }

    /// True when the time for the handshake, or for the peer to take note of its failure, is over.
    pub(super) fn is_overdue(&mut self) -> bool {
        let Self::Tls(encrypted) = self else { return false };
        match &encrypted.phase {
            Phase::Trial { began, .. } if began.elapsed() >= HANDSHAKE_TIME_MAX => {
                encrypted.refuse(TlsRefusal::Timeout);
                true
            }
            Phase::Refused { began, .. } => began.elapsed() >= HANDSHAKE_TIME_MAX,
            _ => false,
        }
    }
}

impl Encrypted {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if matches!(self.phase, Phase::Refused { .. }) {
            return self.read_away();
        }
        let read = self.session.read(&mut self.stream, into);
        if let Phase::Trial { .. } = self.phase {
            return self.judge(read);
        }
        read
    }

    /// After a read of one who is on trial.
    fn judge(&mut self, read: io::Result<usize>) -> io::Result<usize> {
        if let Some(why) = self.session.refusal() {
            self.refuse(why);
            return self.read_away();
        }
        if !self.session.is_handshaking() {
            self.welcome();
        }
        match &read {
            Ok(0) => self.refuse(TlsRefusal::Cut),
            Err(error) if !matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                self.refuse(TlsRefusal::Cut);
            }
            _ => {}
        }
        read
    }

    fn welcome(&mut self) {
        let client = self.session.client_name().unwrap_or_else(|| "unnamed".to_owned());
        tracing::info!(client, peer = %self.peer, "a sender has connected, encrypted");
        self.phase = Phase::Open { _client: self.metrics.tls_client(&client), name: client };
    }

    /// Ends the trial; whoever is no longer on trial is not refused.
    fn refuse(&mut self, why: TlsRefusal) {
        self.phase = match std::mem::replace(&mut self.phase, Phase::Gone) {
            Phase::Trial { began, _unfinished } => {
                tracing::debug!(peer = %self.peer, ?why, "a TLS handshake failed");
                self.metrics.tls_refused(why);
                let _ = self.stream.shutdown(Shutdown::Write);
                Phase::Refused { began, _unfinished }
            }
            other => other,
        };
    }

    /// Throws away what comes.
    fn read_away(&mut self) -> io::Result<usize> {
        let mut sink = [0; 16 << 10];
        match self.stream.read(&mut sink) {
            Ok(0) => Ok(0),
            // Let others have a turn; then come again.
            Ok(_) => Err(io::ErrorKind::Interrupted.into()),
            Err(error) => Err(error),
        }
    }
}
