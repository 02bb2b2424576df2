//! Why connections to the HTTP port end.

/// Why a connection to the HTTP port ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HttpCloseReason {
    /// Between requests, by either side.
    Done,
    /// Inside a request or an answer, by the peer, or the request could not be read.
    Broken,
    /// No request for too long.
    Idle,
    /// A request's head took too long.
    SlowHead,
    /// A request's body came too slowly.
    SlowBody,
    /// The peer takes its answer too slowly.
    Unread,
    /// More connections than allowed.
    Limit,
    /// More connections than allowed from one address.
    PeerLimit,
    /// The daemon stops.
    Stopping,
    /// The TLS handshake failed, or took too long.
    Handshake,
}

impl HttpCloseReason {
    pub(super) const ALL: [HttpCloseReason; 10] = [
        Self::Done,
        Self::Broken,
        Self::Idle,
        Self::SlowHead,
        Self::SlowBody,
        Self::Unread,
        Self::Limit,
        Self::PeerLimit,
        Self::Stopping,
        Self::Handshake,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Broken => "broken",
            Self::Idle => "idle",
            Self::SlowHead => "slow_head",
            Self::SlowBody => "slow_body",
            Self::Unread => "unread",
            Self::Limit => "limit",
            Self::PeerLimit => "peer_limit",
            Self::Stopping => "stopping",
            Self::Handshake => "handshake",
        }
    }
}
