//! The gate behind the door of the HTTP port: sizes, who asks, whether it may, what is recorded of it, and the headers of every answer.
//!
//! Decides nothing by itself: `access` does. Must never let a request pass that it could not judge.

use super::admin::Changed;
use super::answer::Failure;
use super::scopes::Needs;
use crate::access::{Access, Asked, By, Denied, Event, Need, Standing};
use axum::extract::{ConnectInfo, FromRequestParts, MatchedPath, RawPathParams, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

/// Longest path with its query.
const URI_BYTES_MAX: usize = 4 << 10;
const CHALLENGE: &str = "Bearer realm=\"tilecatcher\"";
const CHALLENGE_WRONG: &str = "Bearer realm=\"tilecatcher\", error=\"invalid_token\"";
/// A page that one of our answers is made into can load nothing from elsewhere, and stand in no other page.
const SECURITY_HEADERS: [(HeaderName, HeaderValue); 4] = [
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'self'; frame-ancestors 'none'")),
    (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (HeaderName::from_static("cross-origin-resource-policy"), HeaderValue::from_static("same-origin")),
];
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const FETCH_DEST: HeaderName = HeaderName::from_static("sec-fetch-dest");

/// What requests are judged by.
pub(super) struct Gate {
    pub(super) access: Arc<Access>,
    pub(super) needs: Needs,
    /// Longest headers, all together.
    pub(super) head_bytes_max: usize,
}

/// Put into an answer by a handler: the acquisition that it was about, where the path does not say.
#[derive(Clone, Copy)]
pub(super) struct About(pub(super) u64);

/// What is recorded of a request, taken before a handler has it.
struct Visit {
    peer: SocketAddr,
    method: String,
    path: String,
    acquisition: Option<u64>,
    bytes: Option<u64>,
    /// Why it is refused, if it is.
    refused: Option<&'static str>,
    /// Its route takes the acquisition from the query.
    is_named_by_query: bool,
}

/// Lets a request in, or answers it here.
pub(super) async fn guard(State(gate): State<Arc<Gate>>, mut request: Request, next: Next) -> Response {
    if let Some(refusal) = too_long(&request, gate.head_bytes_max) {
        return refusal.into_response();
    }
    // Without the connection's address nobody is trusted for it.
    let nowhere = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>().map_or(nowhere, |ConnectInfo(peer)| *peer);
    let route = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
    let need = gate.needs.for_request(request.method(), route);
    let (by, judged) = gate.access.judge(&asked(&request, peer, need));
    let is_change = need.is_some_and(Need::is_writing) && !matches!(*request.method(), Method::GET | Method::HEAD);
    let mut record = None;
    if judged.is_err() || is_change {
        let mut visit = Visit::of(&request, peer, route, judged.as_ref().err());
        request = visit.note_acquisition(request).await;
        record = Some(Recording { access: Arc::clone(&gate.access), by: by.clone(), visit: Some(visit) });
    }
    if matches!(by, By::Token(_)) {
        request.extensions_mut().insert(by.clone());
        let standing = Standing::of(&gate.access, bearer(request.headers()).unwrap_or_default());
        request.extensions_mut().insert(standing);
    }
    let mut response = match judged {
        Ok(()) => next.run(request).await,
        Err(denied) => refusal(&denied),
    };
    if matches!(by, By::Token(_)) {
        keep_private(response.headers_mut());
    }
    if let Some(mut record) = record {
        record.answered(&response);
    }
    response
}

/// A request that is recorded whatever becomes of it: with its answer, or, when its connection ends or its handler panics
/// before there is one, without.
struct Recording {
    access: Arc<Access>,
    by: By,
    visit: Option<Visit>,
}

impl Recording {
    fn answered(&mut self, response: &Response) {
        if let Some(visit) = self.visit.take() {
            self.access.record(visit.event(self.by.clone(), Some(response)));
        }
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        if let Some(visit) = self.visit.take() {
            self.access.record(visit.event(self.by.clone(), None));
        }
    }
}

/// The headers that every answer has.
pub(super) fn harden(response: &mut Response) {
    let status = response.status();
    for (name, value) in SECURITY_HEADERS {
        response.headers_mut().entry(name).or_insert(value);
    }
    if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::TOO_MANY_REQUESTS) {
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
}

/// What was given for a token is for whoever has it, not for a cache on the way.
fn keep_private(headers: &mut HeaderMap) {
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("private, no-cache"));
    headers.append(header::VARY, HeaderValue::from_static("authorization"));
}

fn too_long(request: &Request, head_bytes_max: usize) -> Option<Failure> {
    let uri = request.uri().path_and_query().map_or(0, |target| target.as_str().len());
    if uri > URI_BYTES_MAX {
        let problem = format!("the path with its query has {uri} bytes: at most {URI_BYTES_MAX}");
        return Some(Failure::new(StatusCode::URI_TOO_LONG, problem));
    }
    // As on the wire: a colon, a space, the line's end.
    let line = |(name, value): (&HeaderName, &HeaderValue)| name.as_str().len() + value.len() + 4;
    let headers: usize = request.headers().iter().map(line).sum();
    let problem = format!("the headers have {headers} bytes: at most {head_bytes_max}");
    (headers > head_bytes_max).then(|| Failure::new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, problem))
}

fn asked(request: &Request, peer: SocketAddr, need: Option<Need>) -> Asked<'_> {
    let uri = request.uri();
    Asked {
        peer: peer.ip(),
        bearer: bearer(request.headers()),
        // A whole URL in the request line goes before the header.
        host: uri.authority().map(|authority| authority.as_str()).or_else(|| text(request.headers(), &header::HOST)),
        origin: text(request.headers(), &header::ORIGIN),
        // Whoever follows a link comes from another page, too, and is shown what no page can read.
        asked_by: text(request.headers(), &FETCH_SITE)
            .filter(|_| text(request.headers(), &FETCH_DEST) != Some("document")),
        path: uri.path(),
        need,
    }
}

/// The token behind `Authorization: Bearer`; another kind of authorization is none for us.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (kind, token) = text(headers, &header::AUTHORIZATION)?.split_once(' ')?;
    kind.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// A header; one that is no text is a name that nobody has.
fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name).map(|value| value.to_str().unwrap_or_default())
}

fn refusal(denied: &Denied) -> Response {
    let (status, problem) = match denied {
        Denied::NoToken => (StatusCode::UNAUTHORIZED, "this needs a token: Authorization: Bearer ...".to_owned()),
        Denied::BadToken => (StatusCode::UNAUTHORIZED, "the token is not known here, or was revoked".to_owned()),
        Denied::TooMany(_) => (
            StatusCode::TOO_MANY_REQUESTS,
            "the token is not known here, and too many such came from this address: wait".to_owned(),
        ),
        Denied::Lacks(need) => (StatusCode::FORBIDDEN, format!("this needs the scope {need}")),
        Denied::Host(host) => {
            let problem = format!("\"{host}\" is no name of this daemon: use its address, or set http.host_names");
            (StatusCode::FORBIDDEN, problem)
        }
        Denied::Origin(origin) => (StatusCode::FORBIDDEN, format!("pages of \"{origin}\" may not ask here")),
        Denied::NoScope => (StatusCode::FORBIDDEN, "nobody may do this: the route has no scope".to_owned()),
    };
    let mut response = Failure::new(status, problem).into_response();
    let headers = response.headers_mut();
    match denied {
        Denied::NoToken => drop(headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(CHALLENGE))),
        Denied::BadToken => drop(headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(CHALLENGE_WRONG))),
        Denied::TooMany(wait) => drop(headers.insert(header::RETRY_AFTER, (wait.as_secs() + 1).into())),
        _ => {}
    }
    response
}

impl Visit {
    fn of(request: &Request, peer: SocketAddr, route: Option<&str>, denied: Option<&Denied>) -> Self {
        Self {
            peer,
            method: request.method().to_string(),
            path: request.uri().path().to_owned(),
            acquisition: None,
            bytes: text(request.headers(), &header::CONTENT_LENGTH).and_then(|bytes| bytes.parse().ok()),
            refused: denied.map(|denied| denied.reason().name()),
            is_named_by_query: route.is_some_and(|route| BY_QUERY.iter().any(|name| route.ends_with(name))),
        }
    }

    /// Reads the acquisition as the handler will: from the path, decoded; from the query only where the route does.
    async fn note_acquisition(&mut self, request: Request) -> Request {
        let (mut head, body) = request.into_parts();
        let in_path = RawPathParams::from_request_parts(&mut head, &()).await.ok();
        let in_path = in_path.and_then(|params| acquisition_of(params.iter().find(|(name, _)| *name == "acqid")?.1));
        let in_query = || {
            let parameters = form_urlencoded::parse(head.uri.query().unwrap_or_default().as_bytes());
            acquisition_of(&parameters.into_iter().find(|(name, _)| name == "acqid")?.1)
        };
        self.acquisition = in_path.or_else(|| self.is_named_by_query.then(in_query).flatten());
        Request::from_parts(head, body)
    }

    fn event(self, by: By, response: Option<&Response>) -> Event {
        let extensions = response.map(Response::extensions);
        let told = extensions.and_then(|told| told.get::<About>()).map(|About(acq)| *acq);
        let detail = extensions.and_then(|told| told.get::<Changed>());
        let detail = detail.map(|Changed(what)| what.clone().into_boxed_str());
        let Self { peer, method, path, acquisition, bytes, refused, .. } = self;
        let status = response.map(|response| response.status().as_u16());
        Event::Request { peer, by, method, path, acquisition: told.or(acquisition), status, refused, bytes, detail }
    }
}

/// Ends of the routes that take the acquisition from the query.
const BY_QUERY: [&str; 3] = ["/next-tile", "/tiles", "/acquisitions"];

fn acquisition_of(text: &str) -> Option<u64> {
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_bearer_is_a_token() {
        let of = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, value.parse().expect("a header"));
            bearer(&headers).map(str::to_owned)
        };
        assert_eq!(of("Bearer abc").as_deref(), Some("abc"));
        assert_eq!(of("bearer  abc ").as_deref(), Some("abc"));
        assert_eq!((of("Basic abc"), of("abc")), (None, None));
        assert_eq!(bearer(&HeaderMap::new()), None);
    }
}
