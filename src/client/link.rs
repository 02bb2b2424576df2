//! One way to a server: a connection to the capture port, or requests to the HTTP port, with one face.
//!
//! Must never decide what happens to a tile that was not stored: that is the delivery's.

use super::capture::{Answered, CaptureClient, CaptureError, Tile};
use super::http::{HttpClient, HttpClientError};
use super::token::BearerToken;
use crate::model::TileId;
use crate::tls::ClientTls;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::{Duration, Instant};

/// How tiles travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// The capture port, several tiles in flight.
    Tcp,
    /// HTTP PUT with a raw body, one at a time on each connection.
    Put,
    /// HTTP POST of a form, one at a time on each connection.
    Post,
}

impl FromStr for Via {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "tcp" => Ok(Self::Tcp),
            "put" => Ok(Self::Put),
            "post" => Ok(Self::Post),
            other => Err(format!("\"{other}\" is no way to send: tcp, put or post")),
        }
    }
}

/// Where a server is, and how to speak to it.
#[derive(Clone, Debug)]
pub struct LinkOptions {
    /// The capture port.
    pub capture: SocketAddr,
    /// The HTTP port's URL.
    pub http: String,
    /// How tiles travel.
    pub via: Via,
    /// Number of connections.
    pub connections: usize,
    /// Tiles in flight on each connection to the capture port.
    pub window: usize,
    /// Longest wait for an answer.
    pub timeout: Duration,
    /// How the capture port and `https://` URLs are spoken to; `None`: not encrypted.
    pub tls: Option<ClientTls>,
    /// Shown to the HTTP port; the capture port takes none.
    pub token: Option<BearerToken>,
}

impl LinkOptions {
    /// A client of the HTTP port.
    #[must_use]
    pub fn http_client(&self) -> HttpClient {
        self.http_client_waiting(self.timeout)
    }

    /// A client of the HTTP port that waits so long for an answer.
    #[must_use]
    pub fn http_client_waiting(&self, timeout: Duration) -> HttpClient {
        HttpClient::with(&self.http, timeout, self.tls.as_ref(), self.token.as_ref())
    }
}

/// What the server said of a tile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Stored, at the server's ack level.
    Stored(TileId),
    /// Not stored.
    Refused(Refused),
}

/// A tile that was not stored.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("status {status} ({reason})")]
pub struct Refused {
    /// As on the wire: 1 do not resend unchanged, 2 overloaded, 3 no space, 4 storage failed.
    pub status: i16,
    /// What it means, or what the server says.
    pub reason: String,
}

impl Refused {
    /// A refusal by its wire status.
    #[must_use]
    pub fn of_status(status: i16) -> Self {
        let reason = match status {
            1 => "unknown acquisition, bad key, bad checksum or bad message: do not resend unchanged",
            2 => "the server is overloaded: resend later",
            3 => "the server has no space: free some, then resend",
            4 => "the server's storage failed",
            _ => "unknown to this program",
        };
        Self { status, reason: reason.to_owned() }
    }

    /// The same tile may be stored later.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        matches!(self.status, 2..=4)
    }
}

/// A tile's answer.
pub(super) struct Reply<T> {
    pub(super) tag: T,
    pub(super) verdict: Verdict,
    pub(super) took: Duration,
}

/// Why a link does not work.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The capture port.
    #[error(transparent)]
    Capture(#[from] CaptureError),
    /// The HTTP port.
    #[error(transparent)]
    Http(#[from] HttpClientError),
}

impl LinkError {
    /// Another attempt may succeed: the server is away, not something else, nor are its certificates in the way.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Capture(CaptureError::Io { source, .. }) => source.kind() != std::io::ErrorKind::PermissionDenied,
            Self::Http(error) => matches!(error, HttpClientError::Unreachable { .. }),
            Self::Capture(_) => false,
        }
    }
}

pub(super) enum Link<T> {
    Capture(CaptureClient<T>),
    Http { client: HttpClient, post: bool, unanswered: Option<T> },
}

impl<T> Link<T> {
    pub(super) fn connect(options: &LinkOptions) -> Result<Self, LinkError> {
        let post = match options.via {
            Via::Tcp => {
                let LinkOptions { capture, window, timeout, tls, .. } = options;
                return Ok(Self::Capture(CaptureClient::connect_with(*capture, *window, *timeout, tls.as_ref())?));
            }
            Via::Put => false,
            Via::Post => true,
        };
        Ok(Self::Http { client: options.http_client(), post, unanswered: None })
    }

    /// Sends a tile; the answer to this one or an earlier one, when one came.
    pub(super) fn send(&mut self, tile: &Tile<'_>, tag: T) -> Result<Option<Reply<T>>, LinkError> {
        match self {
            Self::Capture(client) => Ok(client.send(tile, tag)?.map(Reply::from)),
            Self::Http { client, post, unanswered } => {
                let sent = Instant::now();
                let answer = if *post { client.post_tile(tile) } else { client.put_tile(tile) };
                match verdict(answer) {
                    Ok(verdict) => Ok(Some(Reply { tag, verdict, took: sent.elapsed() })),
                    Err(error) => {
                        *unanswered = Some(tag);
                        Err(error.into())
                    }
                }
            }
        }
    }

    /// Waits for the oldest answer; `None` when nothing is in flight.
    pub(super) fn receive(&mut self) -> Result<Option<Reply<T>>, LinkError> {
        match self {
            Self::Capture(client) => Ok(client.receive()?.map(Reply::from)),
            Self::Http { .. } => Ok(None),
        }
    }

    pub(super) fn in_flight(&self) -> usize {
        match self {
            Self::Capture(client) => client.in_flight(),
            Self::Http { .. } => 0,
        }
    }

    /// Ends a broken link: answers that came before it broke go to `each`, the tags without one are returned.
    pub(super) fn give_up(self, each: impl FnMut(Reply<T>)) -> Vec<T> {
        /// Whatever the server said before it closed is here already, or on a short way.
        const LAST_WORDS: Duration = Duration::from_millis(500);
        match self {
            Self::Capture(mut client) => {
                let mut each = each;
                client.salvage(LAST_WORDS, |answered| each(answered.into()));
                client.into_unanswered().collect()
            }
            Self::Http { unanswered, .. } => unanswered.into_iter().collect(),
        }
    }
}

impl<T> From<Answered<T>> for Reply<T> {
    fn from(answered: Answered<T>) -> Self {
        let verdict = match answered.response.status {
            0 => Verdict::Stored(answered.response.tile),
            status => Verdict::Refused(Refused::of_status(status)),
        };
        Self { tag: answered.tag, verdict, took: answered.took }
    }
}

/// An answer that says no is a verdict; only silence and nonsense are errors.
fn verdict(sent: Result<TileId, HttpClientError>) -> Result<Verdict, HttpClientError> {
    match sent {
        Ok(tile) => Ok(Verdict::Stored(tile)),
        Err(HttpClientError::Refused { status, message, .. }) => {
            let wire = match status {
                500 => 4,
                408 | 429 | 502..=504 => 2,
                507 => 3,
                _ => 1,
            };
            Ok(Verdict::Refused(Refused { status: wire, reason: format!("status {status}: {message}") }))
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn http_refusals_that_pass_are_told_from_those_that_stay() {
        let refused = |status| {
            let error = HttpClientError::Refused { url: String::new(), status, message: String::new() };
            match verdict(Err(error)) {
                Ok(Verdict::Refused(refused)) => refused,
                other => panic!("{other:?}"),
            }
        };
        let passing = [408, 429, 500, 503, 507].map(|status| refused(status).is_passing());
        let staying = [400, 404, 409, 413].map(|status| refused(status).is_passing());
        assert_eq!((passing, staying), ([true; 5], [false; 4]));
        let silence = HttpClientError::Unreachable { url: String::new(), problem: String::new() };
        assert!(verdict(Err(silence)).is_err());
    }
}
