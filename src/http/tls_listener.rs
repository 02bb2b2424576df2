//! Accepts encrypted connections of the HTTP port. Handshakes are done beside the accepting, each within its time, so many
//! at once; who is done waits in a short queue for axum to take it.

use crate::telemetry::{Metrics, TlsRefusal};
use crate::tls::{Encrypted, ServerTls};
use axum::serve::Listener;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};

/// Most handshakes at a time.
const HANDSHAKES_MAX: usize = 64;
/// Time for one.
const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(5);

/// A listener whose connections are encrypted.
pub(super) struct TlsListener {
    address: SocketAddr,
    shaken: mpsc::Receiver<(Encrypted, SocketAddr)>,
    accepting: tokio::task::JoinHandle<()>,
}

impl TlsListener {
    /// Starts accepting, on the runtime that this is called on.
    pub(super) fn start(listener: TcpListener, tls: ServerTls, metrics: Arc<Metrics>) -> Self {
        let address = listener.local_addr().unwrap_or(SocketAddr::from(([0, 0, 0, 0], 0)));
        let (done, shaken) = mpsc::channel(1);
        let accepting = tokio::spawn(accept_all(listener, Handshakes { tls, metrics, done }));
        Self { address, shaken, accepting }
    }
}

/// The port is closed with its listener.
impl Drop for TlsListener {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Listener for TlsListener {
    type Io = Encrypted;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Encrypted, SocketAddr) {
        match self.shaken.recv().await {
            Some(accepted) => accepted,
            // The task that accepts ends with this listener only.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}

#[derive(Clone)]
struct Handshakes {
    tls: ServerTls,
    metrics: Arc<Metrics>,
    done: mpsc::Sender<(Encrypted, SocketAddr)>,
}

async fn accept_all(mut listener: TcpListener, handshakes: Handshakes) {
    let places = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    loop {
        // axum's own accept rests where descriptors run out.
        let (stream, peer) = Listener::accept(&mut listener).await;
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            handshakes.metrics.tls_refused(TlsRefusal::Limit);
            continue;
        };
        let handshakes = handshakes.clone();
        tokio::spawn(async move {
            let shaken = handshakes.shake(stream).await;
            drop(place);
            if let Some(stream) = shaken {
                // The port is about to close when nobody takes it.
                let _ = handshakes.done.send((stream, peer)).await;
            }
        });
    }
}

impl Handshakes {
    async fn shake(&self, stream: TcpStream) -> Option<Encrypted> {
        let shaken = tokio::time::timeout(HANDSHAKE_TIME_MAX, self.tls.accept(stream)).await;
        let refused = match shaken {
            Ok(Ok(stream)) => return Some(stream),
            Ok(Err(why)) => why,
            Err(_) => TlsRefusal::Timeout,
        };
        self.metrics.tls_refused(refused);
        None
    }
}
