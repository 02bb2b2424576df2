//! The door of the HTTP port: takes connections within the limits, serves each on a task of its own, ends them at a stop.
//!
//! [`Door::serve`] takes any stream, so that what encrypts can stand between socket and HTTP. Every connection is counted
//! in and out, with why it ended. Must never spin when there is nothing to accept with.

use super::events::Endless;
use super::pace::PaceLimits;
use super::sender::SenderPlace;
use super::watched::{AnswerBody, Watch, Watched, WatchedBody};
use crate::base::admission::{Admission, Admitted, Denied};
use crate::base::keepalive;
use crate::telemetry::{HttpCloseReason, Metrics, TlsRefusal};
use crate::tls::{Encrypted, Handshakes, ServerTls};
use axum::body::Body;
use axum::extract::{ConnectInfo, Request};
use axum::response::Response;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

/// Time for which accepting rests after it failed.
const REST: Duration = Duration::from_millis(200);
/// Time between two warnings of the same.
const WARN_AGAIN: Duration = Duration::from_secs(60);
/// Most bytes that one read takes, and so that an unfinished head holds.
const READ_BUFFER: usize = 64 << 10;
/// A head that is so much too long is still read, to be answered by the gate; beyond that HTTP itself refuses it.
const HEAD_SLACK: usize = 8 << 10;
/// Time for a TLS handshake.
const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(5);

/// Time for the end of a stream to be taken when the daemon stops.
const ENDLESS_TIME_MAX: Duration = Duration::from_millis(500);

/// How patient the HTTP port is, and with how many.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionLimits {
    /// Most connections.
    pub connections_max: usize,
    /// Most connections of one peer address.
    pub connections_per_peer: usize,
    /// Longest head of a request, bytes.
    pub head_bytes_max: usize,
    /// Longest time that a head may take.
    pub head_time: Duration,
    /// Longest time between requests.
    pub idle_max: Duration,
    /// Bytes/s below which a body that comes, or an answer that goes, is slow.
    pub slow_rate: usize,
    /// Time that they may take at any rate.
    pub slow_grace: Duration,
}

/// What every connection needs. `S` answers requests.
#[derive(Clone)]
pub(super) struct Door<S> {
    limits: ConnectionLimits,
    admission: Admission,
    tls: Option<Encryption>,
    metrics: Arc<Metrics>,
    service: S,
    /// True once the port stops; whoever holds this is not done.
    stopping: watch::Receiver<bool>,
}

impl<S> Door<S>
where
    S: tower_service::Service<Request, Response = Response, Error = Infallible> + Clone + Send + Sync + 'static,
    S::Future: Send,
{
    pub(super) fn new(
        limits: ConnectionLimits,
        admission: Admission,
        tls: Option<ServerTls>,
        metrics: &Arc<Metrics>,
        service: S,
        stopping: watch::Receiver<bool>,
    ) -> Self {
        let tls = tls.map(|tls| Encryption { tls, handshakes: Handshakes::default() });
        Self { limits, admission, tls, metrics: Arc::clone(metrics), service, stopping }
    }

    /// Takes connections until the stop.
    pub(super) async fn listen(self, listener: TcpListener) {
        let mut stopped = pin!(stopped(self.stopping.clone()));
        let mut warned: Option<Instant> = None;
        loop {
            let accepted = tokio::select! {
                () = stopped.as_mut() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => self.admit(stream, peer),
                Err(error) if is_the_peers(&error) => {}
                Err(error) => {
                    if warned.is_none_or(|at| at.elapsed() >= WARN_AGAIN) {
                        warned = Some(Instant::now());
                        tracing::warn!(%error, "can not accept an HTTP connection: raise LimitNOFILE or close some");
                    }
                    sleep(REST).await;
                }
            }
        }
    }

    fn admit(&self, stream: TcpStream, peer: SocketAddr) {
        self.metrics.http_connections_total.inc();
        match self.admission.enter(peer.ip()) {
            Ok(place) => {
                set_up(&stream);
                let door = self.clone();
                tokio::spawn(async move { door.begin(stream, peer, place).await });
            }
            Err(Denied::Full) => self.metrics.http_connection_closed(HttpCloseReason::Limit),
            Err(Denied::PeerFull) => self.metrics.http_connection_closed(HttpCloseReason::PeerLimit),
        }
    }

    async fn begin(self, stream: TcpStream, peer: SocketAddr, place: Admitted) {
        let Some(tls) = &self.tls else { return self.serve(stream, peer, place).await };
        match tls.shake(stream, peer).await {
            Ok(stream) => self.serve(stream, peer, place).await,
            Err(why) => {
                self.metrics.tls_refused(why);
                self.metrics.http_connection_closed(HttpCloseReason::Handshake);
            }
        }
    }

    /// Serves one connection to its end.
    pub(super) async fn serve<T>(self, stream: T, peer: SocketAddr, place: Admitted)
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        // Counted down even if a handler panics: that ends this task, and nothing else.
        let mut open = Open::new(&self.metrics, place);
        let watch = Arc::new(Watch::default());
        let ended = self.answer_all(stream, peer, &watch).await;
        open.why = watch.verdict().unwrap_or_else(|| match ended {
            _ if *self.stopping.borrow() => HttpCloseReason::Stopping,
            Ok(()) => HttpCloseReason::Done,
            Err(error) if error.is_timeout() => HttpCloseReason::Idle,
            Err(_) => HttpCloseReason::Broken,
        });
    }

    async fn answer_all<T>(&self, stream: T, peer: SocketAddr, watch: &Arc<Watch>) -> hyper::Result<()>
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let limits = self.limits;
        let pace = PaceLimits { rate: limits.slow_rate, grace: limits.slow_grace };
        let stream = Watched::new(stream, Arc::clone(watch), limits.head_time, pace);
        let sender = SenderPlace::default();
        let inner = TowerToHyperService::new(self.service.clone());
        let service = service_fn(|request: Request<Incoming>| {
            let busy = watch.begin();
            let mut request = request.map(|body| Body::new(WatchedBody::new(Body::new(body), Arc::clone(watch), pace)));
            request.extensions_mut().insert(ConnectInfo(peer));
            request.extensions_mut().insert(sender.clone());
            let answered = inner.call(request);
            async move {
                let response = answered.await?;
                if response.extensions().get::<Endless>().is_some() {
                    watch.mark_endless();
                }
                Ok::<_, Infallible>(response.map(|body| AnswerBody { body, _busy: busy }))
            }
        });
        let mut connection = pin!(
            http1::Builder::new()
                .timer(TokioTimer::new())
                // Whoever has sent a whole request may close behind it: it is carried out, and answered if there is a way.
                .half_close(true)
                .header_read_timeout(limits.idle_max.max(limits.head_time))
                .max_header_size(limits.head_bytes_max + HEAD_SLACK)
                .max_buf_size(READ_BUFFER.max(limits.head_bytes_max + HEAD_SLACK))
                .serve_connection(TokioIo::new(stream), service)
        );
        tokio::select! {
            ended = connection.as_mut() => return ended,
            () = sender.cut_off() => return Ok(()),
            () = stopped(self.stopping.clone()) => {}
        }
        connection.as_mut().graceful_shutdown();
        if watch.has_endless() {
            // Its stream has ended; who does not take the end is not waited for.
            return timeout(ENDLESS_TIME_MAX, connection).await.unwrap_or(Ok(()));
        }
        connection.await
    }
}

/// A port that is encrypted: only so many handshakes at a time, each within its time.
#[derive(Clone)]
struct Encryption {
    tls: ServerTls,
    handshakes: Handshakes,
}

impl Encryption {
    async fn shake(&self, stream: TcpStream, peer: SocketAddr) -> Result<Encrypted, TlsRefusal> {
        let _place = self.handshakes.begin(peer.ip())?;
        timeout(HANDSHAKE_TIME_MAX, self.tls.accept(stream)).await.unwrap_or(Err(TlsRefusal::Timeout))
    }
}

async fn stopped(mut stopping: watch::Receiver<bool>) {
    let _ = stopping.wait_for(|stopping| *stopping).await;
}

/// A connection that is open.
struct Open {
    metrics: Arc<Metrics>,
    _place: Admitted,
    why: HttpCloseReason,
}

impl Open {
    fn new(metrics: &Arc<Metrics>, place: Admitted) -> Self {
        metrics.http_connections.inc();
        Self { metrics: Arc::clone(metrics), _place: place, why: HttpCloseReason::Broken }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.metrics.http_connections.dec();
        self.metrics.http_connection_closed(self.why);
    }
}

/// What fails here fails for a peer that is gone already, and the next read says so.
fn set_up(stream: &TcpStream) {
    let _ = stream.set_nodelay(true);
    keepalive::ask_when_silent(stream);
}

/// Errors that are of the connection that was about to come, not of the port.
fn is_the_peers(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}
