//! What the audit log says of a capture connection: counted in plain numbers while it lasts, told once when it ends.
//!
//! Must never do more for a tile than add 1 (invariant 5).

use crate::access::{Access, By, Event};
use crate::telemetry::CloseReason;
use std::net::SocketAddr;

/// A connection from its beginning to its end.
#[derive(Default)]
pub(super) struct Visit {
    peer: Option<(SocketAddr, By)>,
    tiles: u64,
    refused: u64,
    pub(super) bytes: u64,
}

impl Visit {
    /// Begins, and says so.
    pub(super) fn begin(peer: SocketAddr, by: By, access: &Access) -> Self {
        access.record(Event::Connected { peer, by: by.clone() });
        Self { peer: Some((peer, by)), ..Self::default() }
    }

    /// Counts an answered request.
    pub(super) fn count(&mut self, is_stored: bool) {
        self.tiles += u64::from(is_stored);
        self.refused += u64::from(!is_stored);
    }

    /// Says how it was.
    pub(super) fn end(self, why: CloseReason, access: &Access) {
        let Self { peer: Some((peer, by)), tiles, refused, bytes } = self else { return };
        access.record(Event::Disconnected { peer, by, why: why.name(), tiles, refused, bytes });
    }
}
