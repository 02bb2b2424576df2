//! Who sends tiles over HTTP: a connection is a sender from its first tile on until it ends.

use super::AppState;
use crate::access::By;
use crate::base::clock;
use crate::catalog::{Connected, RefusedTile, SenderCounts, SenderPort};
use crate::model::{AcqId, Refusal, TileKey};
use axum::extract::{ConnectInfo, Request};
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use tokio::sync::Notify;

/// A connection's place in the list of senders, taken with its first tile. Every request of the connection carries it.
#[derive(Clone, Default)]
pub(super) struct SenderPlace {
    connected: Arc<OnceLock<Connected>>,
    cut: Arc<Notify>,
}

impl SenderPlace {
    /// Waits until the sender is to be cut off.
    pub(super) async fn cut_off(&self) {
        self.cut.notified().await;
    }
}

/// Who sent a request with a tile.
pub(super) struct HttpSender {
    place: SenderPlace,
    peer: Option<SocketAddr>,
    acq: AcqId,
}

impl HttpSender {
    /// Takes note of the connection that a request came on.
    pub(super) fn of(state: &AppState, request: &Request, acq: AcqId) -> Self {
        let extensions = request.extensions();
        let place = extensions.get::<SenderPlace>().cloned().unwrap_or_default();
        let peer = extensions.get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(peer)| *peer);
        if let Some(peer) = peer {
            let name = extensions.get::<By>().and_then(|by| match by {
                By::Token(name) => Some(name.to_string()),
                _ => None,
            });
            place.connected.get_or_init(|| {
                let connected = state.catalog.activity().connected(peer, SenderPort::Http, name);
                let cut = Arc::clone(&place.cut);
                connected.when_cut(move || cut.notify_one());
                connected
            });
        }
        Self { place, peer, acq }
    }

    /// Its address, where that is known.
    pub(super) fn peer(&self) -> Option<SocketAddr> {
        self.peer
    }

    /// Bytes of a tile have come.
    pub(super) fn received(&self, bytes: usize) {
        self.add(SenderCounts { bytes: bytes as u64, ..SenderCounts::default() });
    }

    /// A tile was accepted.
    pub(super) fn stored(&self) {
        self.add(SenderCounts { tiles: 1, acq: Some(self.acq), ..SenderCounts::default() });
    }

    /// A tile was refused.
    pub(super) fn refused(&self, state: &AppState, key: Option<TileKey>, why: Refusal) {
        self.add(SenderCounts { refused: 1, acq: Some(self.acq), ..SenderCounts::default() });
        if let Some(key) = key {
            let tile = RefusedTile { key, why, peer: self.peer, at_ns: clock::unix_ns() };
            state.catalog.activity().refused(&[tile]);
        }
    }

    fn add(&self, counts: SenderCounts) {
        if let Some(connected) = self.place.connected.get() {
            connected.add(counts);
        }
    }
}
