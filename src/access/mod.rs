//! Who may do what, on both ports: by a peer's address, and by the token that a request carries.
//!
//! Owns the trusted networks, the tokens (as digests only), the count of wrong tokens, the host names that are ours, and the
//! audit log. Knows no router and no socket: the HTTP port and the capture port ask here and do what they are told.
//!
//! | who | no tokens configured | tokens configured |
//! |---|---|---|
//! | loopback | everything | capture port, open paths |
//! | a peer in `access.networks` | capture port, open paths, ingest, read | capture port, open paths, ingest |
//! | anybody else | nothing | what the token says |
//!
//! A token adds to what the address may do. What rests on an address is checked against web pages that a browser on a trusted
//! machine was made to send: its `Host` must be ours, its `Origin` the same.
//!
//! Must never hold, log or write a token, must never answer "yes" for want of a rule, must never make a request wait.

mod exposure;
mod failures;
mod hosts;
mod keyring;
mod networks;
mod refusals;
mod scope;
mod standing;
mod token;
mod token_file;
mod trail;

pub use exposure::{Exposed, ExposureError, check_exposure};
pub use networks::{Network, Networks};
pub use scope::{Need, Scope, Scopes};
pub use standing::Standing;
pub use token::{Token, TokenName};
pub use token_file::{TokenEntry, TokenFile, TokenFileError};
pub use trail::{Event, NotAdmitted, TrailError};

use crate::base::limited_log::LimitedLog;
use crate::telemetry::{Metrics, RefusedAccess};
use failures::Failures;
use hosts::is_ours;
use keyring::Keyring;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use trail::Trail;

/// What can be opened to trusted addresses without a token.
pub const OPENABLE_PATHS: [&str; 5] =
    ["/healthz", "/readyz", "/metrics", "/service/v1/ping", "/service/v1/openapi.json"];

/// Who may do what, as it is configured.
#[derive(Clone, Debug, Default)]
pub struct AccessOptions {
    /// Peers that are trusted to send.
    pub networks: Networks,
    /// File of tokens.
    pub tokens: Option<PathBuf>,
    /// Paths that trusted addresses need no token for.
    pub open_paths: Vec<String>,
    /// Names, besides addresses and localhost, under which the HTTP port is asked.
    pub host_names: Vec<String>,
    /// Where the audit log goes.
    pub audit_file: Option<PathBuf>,
}

/// Access can not be guarded as configured.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// The tokens can not be read.
    #[error("access.tokens: {0}")]
    Tokens(#[from] TokenFileError),
    /// The audit log can not be written.
    #[error("audit.file: {0}")]
    Trail(#[from] TrailError),
    /// The operating system gives no thread.
    #[error("no thread for access.tokens: {0}")]
    Thread(std::io::Error),
}

/// Where a peer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Loopback,
    Trusted(Network),
    Elsewhere,
}

/// On what a caller's rights rest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum By {
    /// This machine.
    Loopback,
    /// A network of `access.networks`.
    Network(Network),
    /// A token.
    Token(TokenName),
    /// A certificate with this name, shown on the encrypted capture port.
    Certificate(String),
    /// Nothing: a stranger.
    Nobody,
}

/// A request, as far as it says who asks for what.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// The other end of the connection.
    pub peer: IpAddr,
    /// What stands behind `Authorization: Bearer`.
    pub bearer: Option<&'a str>,
    /// The host that the request names, with or without a port.
    pub host: Option<&'a str>,
    /// `Origin`: a browser says for which page it asks.
    pub origin: Option<&'a str>,
    /// `Sec-Fetch-Site`: a browser says how far its page is from here, for what is no link that somebody follows.
    pub asked_by: Option<&'a str>,
    /// The path.
    pub path: &'a str,
    /// What the route needs; `None`: nobody has said so, and nobody gets in.
    pub need: Option<Need>,
}

/// Why a request is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Denied {
    /// It needs a token and carries none.
    NoToken,
    /// Its token is not known, or no longer.
    BadToken,
    /// Too many wrong tokens came from its address: wait so long.
    TooMany(Duration),
    /// Who asks is known and may not do this.
    Lacks(Need),
    /// It trusts in an address, and names a host that is not ours.
    Host(String),
    /// It trusts in an address, and comes from the page of another site.
    Origin(String),
    /// The route has no scope.
    NoScope,
}

/// Guards both ports.
pub struct Access {
    options: AccessOptions,
    keyring: Option<Keyring>,
    failures: Failures,
    trail: Option<Trail>,
    metrics: Arc<Metrics>,
    /// Each port has its own, so that strangers on the one do not hide those on the other.
    capture_log: LimitedLog,
    http_log: LimitedLog,
}

impl Access {
    /// Reads the tokens, opens the audit log, starts the threads that look after both.
    ///
    /// # Errors
    /// Either can not be used.
    pub fn start(options: AccessOptions, metrics: &Arc<Metrics>) -> Result<Arc<Self>, AccessError> {
        let keyring = options.tokens.clone().map(|path| Keyring::open(path, metrics)).transpose()?;
        let trail = options.audit_file.clone().map(|path| Trail::open(path, metrics)).transpose()?;
        if let Some(all) = options.networks.widest().filter(|network| network.is_everything()) {
            tracing::warn!(network = %all, "access.networks trusts every address: whoever reaches the ports may send");
        }
        let failures = Failures::default();
        let (capture_log, http_log) = (LimitedLog::default(), LimitedLog::default());
        Ok(Arc::new(Self { options, keyring, failures, trail, metrics: Arc::clone(metrics), capture_log, http_log }))
    }

    /// Trusts loopback and nobody else.
    #[must_use]
    pub fn loopback_only(metrics: &Arc<Metrics>) -> Arc<Self> {
        let failures = Failures::default();
        let (capture_log, http_log) = (LimitedLog::default(), LimitedLog::default());
        let (options, metrics) = (AccessOptions::default(), Arc::clone(metrics));
        Arc::new(Self { options, keyring: None, failures, trail: None, metrics, capture_log, http_log })
    }

    /// True when this peer may connect to the capture port; else that is logged (not each time) and recorded.
    #[must_use]
    pub fn admits_capture(&self, peer: SocketAddr) -> bool {
        if self.place(peer.ip()) != Place::Elsewhere {
            return true;
        }
        self.capture_log.warn(|more| {
            tracing::warn!(%peer, more, "capture connection refused: not in access.networks");
        });
        self.record(Event::NotAdmitted { peer, why: NotAdmitted::Address });
        false
    }

    /// On what a peer's rights rest when it shows no token.
    #[must_use]
    pub fn by_address(&self, peer: IpAddr) -> By {
        match self.place(peer) {
            Place::Loopback => By::Loopback,
            Place::Trusted(network) => By::Network(network),
            Place::Elsewhere => By::Nobody,
        }
    }

    /// Who asks, and whether it may: the second is `Err` with the reason when it may not.
    pub fn judge(&self, asked: &Asked<'_>) -> (By, Result<(), Denied>) {
        let by_address = self.by_address(asked.peer);
        let (by, judged) = match self.token_of(asked) {
            Err(denied) => (by_address, Err(denied)),
            Ok(None) => {
                let judged = self.judge_address(asked, Scopes::NONE);
                (by_address, judged)
            }
            Ok(Some(entry)) => {
                let by_token = asked.need.is_some_and(|need| entry.scopes.allow(need));
                let judged = if by_token { Ok(()) } else { self.judge_address(asked, entry.scopes) };
                (By::Token(entry.name), judged)
            }
        };
        if let Err(denied) = &judged {
            self.metrics.access_refused(denied.reason());
            self.http_log.warn(|more| {
                tracing::warn!(peer = %asked.peer, %by, path = asked.path, reason = denied.reason().name(), more, "request refused");
            });
        }
        (by, judged)
    }

    /// Puts a line into the audit log, if there is one. Never waits.
    pub fn record(&self, event: Event) {
        match (&self.trail, event) {
            (Some(trail), event) => trail.put(event),
            // Without an audit log, who administers is named in the log at least.
            (None, Event::Request { peer, by, path, status, detail: Some(detail), .. }) => {
                tracing::info!(%peer, %by, path, status, detail, "command of an operator");
            }
            (None, _) => {}
        }
    }

    /// Reads the tokens again and opens the audit log again, whether they have changed or not.
    pub fn reload(&self) {
        if let Some(keyring) = &self.keyring {
            keyring.reload();
        }
        if let Some(trail) = &self.trail {
            trail.reopen();
        }
    }

    /// Writes what the audit log still has to say.
    pub fn close(&self) {
        if let Some(trail) = &self.trail {
            trail.close();
        }
    }

    fn place(&self, peer: IpAddr) -> Place {
        let peer = peer.to_canonical();
        if peer.is_loopback() {
            return Place::Loopback;
        }
        self.options.networks.of(peer).map_or(Place::Elsewhere, Place::Trusted)
    }

    /// The token that the request carries. Where none are configured nobody could say which is right: they are passed over.
    fn token_of(&self, asked: &Asked<'_>) -> Result<Option<TokenEntry>, Denied> {
        let (Some(keyring), Some(bearer)) = (&self.keyring, asked.bearer) else { return Ok(None) };
        // A right one counts whatever others showed: behind a proxy they share its address, and nobody guesses 256 bits.
        if let Some(entry) = keyring.find(bearer) {
            return Ok(Some(entry));
        }
        if let Some(wait) = self.failures.refused_for(asked.peer) {
            return Err(Denied::TooMany(wait));
        }
        self.failures.note(asked.peer);
        Err(Denied::BadToken)
    }

    /// What the address allows, together with the scopes of a token.
    fn judge_address(&self, asked: &Asked<'_>, token: Scopes) -> Result<(), Denied> {
        let need = asked.need.ok_or(Denied::NoScope)?;
        let place = self.place(asked.peer);
        let is_open = place != Place::Elsewhere && self.options.open_paths.iter().any(|path| path == asked.path);
        if !is_open && !token.and(self.scopes_of(asked.peer, place)).allow(need) {
            let nameless = token == Scopes::NONE && self.keyring.is_some();
            return Err(if nameless { Denied::NoToken } else { Denied::Lacks(need) });
        }
        self.check_browser(asked, place)
    }

    fn scopes_of(&self, peer: IpAddr, place: Place) -> Scopes {
        let has_tokens = self.keyring.is_some();
        let is_trusted = matches!(place, Place::Trusted(_)) || self.options.networks.of(peer.to_canonical()).is_some();
        match place {
            Place::Loopback if !has_tokens => Scopes::of(&[Scope::Admin]),
            _ if is_trusted && has_tokens => Scopes::of(&[Scope::Ingest]),
            _ if is_trusted => Scopes::of(&[Scope::Ingest, Scope::Read]),
            _ => Scopes::NONE,
        }
    }

    /// A page of another site can make a browser ask us, and the browser has a trusted address. Senders in the networks use
    /// names that we can not guess, so there the host is checked when names are configured.
    fn check_browser(&self, asked: &Asked<'_>, place: Place) -> Result<(), Denied> {
        let names = &self.options.host_names;
        let checks_host = place == Place::Loopback || !names.is_empty();
        if let Some(host) = asked.host.filter(|host| checks_host && !is_ours(host, names)) {
            return Err(Denied::Host(host.to_owned()));
        }
        match (asked.origin, asked.asked_by) {
            (Some(origin), _) if !hosts::is_same_site(origin, asked.host) => Err(Denied::Origin(origin.to_owned())),
            // Images and the like are asked for without an origin.
            (_, Some(site @ ("cross-site" | "same-site"))) if asked.need != Some(Need::Nothing) => {
                Err(Denied::Origin(format!("a {site} page")))
            }
            _ => Ok(()),
        }
    }
}

impl Denied {
    /// The label of the metric.
    #[must_use]
    pub fn reason(&self) -> RefusedAccess {
        match self {
            Self::NoToken => RefusedAccess::NoToken,
            Self::BadToken => RefusedAccess::BadToken,
            Self::TooMany(_) => RefusedAccess::TooMany,
            Self::Lacks(_) => RefusedAccess::Scope,
            Self::Host(_) => RefusedAccess::Host,
            Self::Origin(_) => RefusedAccess::Origin,
            Self::NoScope => RefusedAccess::NoScope,
        }
    }
}

impl std::fmt::Display for By {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Loopback => f.write_str("loopback"),
            Self::Network(network) => write!(f, "network {network}"),
            Self::Token(name) => write!(f, "token {name}"),
            Self::Certificate(name) => write!(f, "certificate {name}"),
            Self::Nobody => f.write_str("nobody"),
        }
    }
}

#[cfg(test)]
mod tests;
