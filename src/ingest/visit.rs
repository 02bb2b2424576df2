//! What is told of a capture connection: counted in plain numbers while it lasts, published once a wake-up to whoever looks
//! on, and told to the audit log once when it ends.
//!
//! Must never do more for a tile than add 1 (invariant 5).

use crate::access::{Access, By, Event, NotAdmitted};
use crate::catalog::{Activity, Connected, SenderCounts, SenderPort};
use crate::model::AcqId;
use crate::telemetry::CloseReason;
use std::net::SocketAddr;

/// A connection from its beginning to its end.
#[derive(Default)]
pub(super) struct Visit {
    peer: Option<SocketAddr>,
    /// On what it rests; not known before a handshake is done.
    by: Option<By>,
    tiles: u64,
    refused: u64,
    bytes: u64,
    /// Its place in the list of senders; none while it is on trial.
    connected: Option<Connected>,
    /// What was not published yet.
    fresh: SenderCounts,
}

impl Visit {
    /// Begins. Nothing is said of who has still to show a certificate.
    pub(super) fn begin(peer: SocketAddr) -> Self {
        Self { peer: Some(peer), ..Self::default() }
    }

    /// Says that it was let in, once.
    pub(super) fn let_in(&mut self, by: impl FnOnce(SocketAddr) -> By, access: &Access) {
        if let (Some(peer), None) = (self.peer, &self.by) {
            let by = by(peer);
            access.record(Event::Connected { peer, by: by.clone() });
            self.by = Some(by);
        }
    }

    /// The other end.
    pub(super) fn peer(&self) -> Option<SocketAddr> {
        self.peer
    }

    /// Counts an answered request.
    pub(super) fn count(&mut self, acq: AcqId, is_stored: bool) {
        self.tiles += u64::from(is_stored);
        self.refused += u64::from(!is_stored);
        self.fresh.tiles += u64::from(is_stored);
        self.fresh.refused += u64::from(!is_stored);
        self.fresh.acq = Some(acq);
    }

    /// Counts bytes.
    pub(super) fn received(&mut self, bytes: u64) {
        self.bytes += bytes;
        self.fresh.bytes += bytes;
    }

    /// Lists the connection as a sender, if it is not. `cut` cuts it off.
    pub(super) fn list(
        &mut self,
        activity: &Activity,
        port: SenderPort,
        name: Option<&str>,
        cut: impl Fn() + Send + Sync + 'static,
    ) {
        if self.connected.is_none()
            && let Some(peer) = self.peer()
        {
            let connected = activity.connected(peer, port, name.map(str::to_owned));
            connected.when_cut(cut);
            self.connected = Some(connected);
        }
    }

    /// Tells what was counted since the last time.
    pub(super) fn publish(&mut self) {
        if let Some(connected) = &self.connected
            && self.fresh != SenderCounts::default()
        {
            connected.add(std::mem::take(&mut self.fresh));
        }
    }

    /// Says how it was.
    pub(super) fn end(self, why: CloseReason, access: &Access) {
        let Self { peer: Some(peer), by, tiles, refused, bytes, .. } = self else { return };
        access.record(match by {
            Some(by) => Event::Disconnected { peer, by, why: why.name(), tiles, refused, bytes },
            None => Event::NotAdmitted { peer, why: NotAdmitted::Handshake },
        });
    }
}
