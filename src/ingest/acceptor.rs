//! The door of the capture port: takes connections, within the limits, and sets their sockets up.
//!
//! Must never spin when there is nothing to accept with, nor keep a connection that it does not let in.

use super::transport::{Encryption, Transport};
use crate::access::Access;
use crate::base::admission::{Admission, Admitted, Denied};
use crate::base::keepalive;
use crate::telemetry::{CloseReason, Metrics};
use mio::net::{TcpListener, TcpStream};
use mio::{Interest, Registry, Token};
use rustix::net::sockopt;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Connections that are accepted at a time.
const TURN: usize = 64;
/// Time for which accepting rests after it failed: out of descriptors, most likely.
const REST: Duration = Duration::from_millis(200);
/// Time between two warnings of the same.
const WARN_AGAIN: Duration = Duration::from_secs(60);
/// A peer that acknowledges none of the bytes sent to it for so long is gone: as with keepalive, with answers under way.
const UNACKNOWLEDGED_MAX_MS: u32 = 60_000;

pub(super) struct Acceptor {
    listener: Option<TcpListener>,
    /// What connections of this port are encrypted with, if they are.
    encryption: Option<Encryption>,
    admission: Admission,
    again: Option<Instant>,
    warned: Option<Instant>,
}

impl Acceptor {
    /// Listens with this; readiness comes under `token`.
    pub(super) fn new(
        mut listener: TcpListener,
        encryption: Option<Encryption>,
        admission: Admission,
        registry: &Registry,
        token: Token,
    ) -> io::Result<Self> {
        registry.register(&mut listener, token, Interest::READABLE)?;
        Ok(Self { listener: Some(listener), encryption, admission, again: None, warned: None })
    }

    /// Takes connections that wait, a bounded number at a time; `admit` gets those that may come in.
    pub(super) fn accept(
        &mut self,
        metrics: &Metrics,
        access: &Access,
        mut admit: impl FnMut(Transport, Admitted, SocketAddr),
    ) {
        let Some(listener) = &self.listener else { return };
        for _ in 0..TURN {
            match listener.accept() {
                Ok((stream, address)) => {
                    metrics.connections_total.inc();
                    match self.let_in(stream, address, access) {
                        Ok((stream, place)) => admit(stream, place, address),
                        Err(why) => metrics.connection_closed(why),
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return self.rest(&error),
            }
        }
        // Others have their turn: a flood of connections must not keep the reactor from those that are let in.
        self.again = Some(Instant::now());
    }

    fn let_in(
        &self,
        stream: TcpStream,
        address: SocketAddr,
        access: &Access,
    ) -> Result<(Transport, Admitted), CloseReason> {
        // On an encrypted port the certificate decides.
        if self.encryption.is_none() && !access.admits_capture(address) {
            return Err(CloseReason::NotAllowed);
        }
        let place = self.admission.enter(address.ip()).map_err(reason)?;
        set_up(&stream);
        let transport = match &self.encryption {
            None => Transport::Plain(stream),
            Some(encryption) => encryption.begin(stream, address).ok_or(CloseReason::Limit)?,
        };
        Ok((transport, place))
    }

    /// Whatever failed, trying again at once would spin.
    fn rest(&mut self, error: &io::Error) {
        self.again = Some(Instant::now() + REST);
        if is_out_of_resources(error) && self.warned.is_none_or(|at| at.elapsed() >= WARN_AGAIN) {
            self.warned = Some(Instant::now());
            tracing::warn!(%error, "can not accept a capture connection: raise LimitNOFILE or close some");
        }
    }

    /// When accepting is to be tried again.
    pub(super) fn again_at(&self) -> Option<Instant> {
        self.again
    }

    /// True once when the rest is over.
    pub(super) fn has_rested(&mut self) -> bool {
        self.again.take_if(|at| Instant::now() >= *at).is_some()
    }

    /// Closes the port.
    pub(super) fn close(&mut self, registry: &Registry) {
        self.again = None;
        if let Some(mut listener) = self.listener.take() {
            let _ = registry.deregister(&mut listener);
        }
    }
}

/// What fails here fails for a peer that is gone already, and the next read says so.
fn set_up(stream: &TcpStream) {
    let _ = stream.set_nodelay(true);
    keepalive::ask_when_silent(stream);
    let _ = sockopt::set_tcp_user_timeout(stream, UNACKNOWLEDGED_MAX_MS);
}

fn reason(denied: Denied) -> CloseReason {
    match denied {
        Denied::Full => CloseReason::Limit,
        Denied::PeerFull => CloseReason::PeerLimit,
    }
}

fn is_out_of_resources(error: &io::Error) -> bool {
    // EMFILE, ENFILE, ENOBUFS, ENOMEM
    matches!(error.raw_os_error(), Some(24 | 23 | 105 | 12))
}
