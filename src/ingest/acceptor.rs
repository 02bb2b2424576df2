//! The door of the capture port: takes connections, within the limits, and sets their sockets up.
//!
//! Must never spin when there is nothing to accept with, nor keep a connection that it does not let in.

use crate::base::admission::{Admission, Admitted, Denied};
use crate::telemetry::{CloseReason, Metrics};
use mio::net::{TcpListener, TcpStream};
use mio::{Interest, Registry, Token};
use rustix::net::sockopt;
use std::io;
use std::time::{Duration, Instant};

/// Time for which accepting rests after it failed: out of descriptors, most likely.
const REST: Duration = Duration::from_millis(200);
/// Time between two warnings of the same.
const WARN_AGAIN: Duration = Duration::from_secs(60);
/// A silent peer is asked whether it is there after this time, then three times more, this far apart.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
const KEEPALIVE_AGAIN: Duration = Duration::from_secs(10);
const KEEPALIVE_TIMES: u32 = 3;
/// A peer that acknowledges none of the bytes sent to it for so long is gone: the same time, with answers under way.
const UNACKNOWLEDGED_MAX_MS: u32 = 60_000;

pub(super) struct Acceptor {
    listener: Option<TcpListener>,
    admission: Admission,
    again: Option<Instant>,
    warned: Option<Instant>,
}

impl Acceptor {
    /// Listens with this, if it is the reactor that does; readiness comes under `token`.
    pub(super) fn new(
        mut listener: Option<TcpListener>,
        admission: Admission,
        registry: &Registry,
        token: Token,
    ) -> io::Result<Self> {
        if let Some(listener) = listener.as_mut() {
            registry.register(listener, token, Interest::READABLE)?;
        }
        Ok(Self { listener, admission, again: None, warned: None })
    }

    /// Takes every connection that waits; `admit` gets those that may come in.
    pub(super) fn accept(&mut self, metrics: &Metrics, mut admit: impl FnMut(TcpStream, Admitted)) {
        let Some(listener) = &self.listener else { return };
        loop {
            match listener.accept() {
                Ok((stream, address)) => {
                    metrics.connections_total.inc();
                    match self.admission.enter(address.ip()) {
                        Ok(place) => {
                            set_up(&stream);
                            admit(stream, place);
                        }
                        Err(denied) => metrics.connection_closed(reason(denied)),
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return self.rest(&error),
            }
        }
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
    let _ = sockopt::set_socket_keepalive(stream, true);
    let _ = sockopt::set_tcp_keepidle(stream, KEEPALIVE_IDLE);
    let _ = sockopt::set_tcp_keepintvl(stream, KEEPALIVE_AGAIN);
    let _ = sockopt::set_tcp_keepcnt(stream, KEEPALIVE_TIMES);
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
