//! What is counted apart: how a tile was accepted, why a connection ended, why a request was not allowed.
//!
//! Each has its name in metrics here. Must never hold more values than a metric may have lines.

/// How an accepted tile was accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoredAs {
    /// The first content of its key.
    New,
    /// The content was there already.
    Duplicate,
    /// It replaced another content.
    Replaced,
}

/// Why a capture connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// The peer closed between frames.
    Peer,
    /// The peer closed inside a frame, or the connection broke.
    Cut,
    /// A frame above the limit.
    Framing,
    /// Too slow inside a frame.
    Slow,
    /// The peer does not read its answers.
    Unread,
    /// More connections than allowed.
    Limit,
    /// More connections than allowed from one address.
    PeerLimit,
    /// The daemon stops.
    Stopping,
    /// The TLS handshake failed or took too long.
    Handshake,
    /// The peer is neither on this machine nor in a trusted network.
    NotAllowed,
    /// An operator cut it off.
    Operator,
}

/// Why a request to the HTTP port may not do what it asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusedAccess {
    /// It carries no token.
    NoToken,
    /// Its token is not known.
    BadToken,
    /// Too many wrong tokens came from its address.
    TooMany,
    /// Its token or address lacks the scope.
    Scope,
    /// It names a host that is not this one.
    Host,
    /// It comes from the page of another site.
    Origin,
    /// The route has no scope.
    NoScope,
}

impl StoredAs {
    pub(super) const ALL: [StoredAs; 3] = [Self::New, Self::Duplicate, Self::Replaced];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Duplicate => "duplicate",
            Self::Replaced => "replaced",
        }
    }
}

impl CloseReason {
    pub(super) const ALL: [CloseReason; 11] = [
        Self::Peer,
        Self::Cut,
        Self::Framing,
        Self::Slow,
        Self::Unread,
        Self::Limit,
        Self::PeerLimit,
        Self::Stopping,
        Self::Handshake,
        Self::NotAllowed,
        Self::Operator,
    ];

    /// The metric's label.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Peer => "peer",
            Self::Cut => "cut",
            Self::Framing => "framing",
            Self::Slow => "slow",
            Self::Unread => "unread",
            Self::Limit => "limit",
            Self::PeerLimit => "peer_limit",
            Self::Stopping => "stopping",
            Self::Handshake => "handshake",
            Self::NotAllowed => "not_allowed",
            Self::Operator => "operator",
        }
    }
}

impl RefusedAccess {
    pub(super) const ALL: [RefusedAccess; 7] =
        [Self::NoToken, Self::BadToken, Self::TooMany, Self::Scope, Self::Host, Self::Origin, Self::NoScope];

    /// The metric's label.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::NoToken => "no_token",
            Self::BadToken => "bad_token",
            Self::TooMany => "too_many",
            Self::Scope => "scope",
            Self::Host => "host",
            Self::Origin => "origin",
            Self::NoScope => "no_scope",
        }
    }
}
