//! The HTTP port's client: requests and answers. Blocking, keeps connections alive. What can be asked is in `service`.
//!
//! Must never read an answer without end into memory, nor hide what the server said.

use super::token::BearerToken;
use crate::tls::ClientTls;
use serde::de::DeserializeOwned;
use std::io::Read;
use std::time::Duration;
use ureq::http::header::AUTHORIZATION;
use ureq::http::{HeaderValue, Request, Response};
use ureq::middleware::{Middleware, MiddlewareNext};
use ureq::typestate::WithBody;
use ureq::{RequestBuilder, SendBody};

/// The longest answer that is read into memory.
const BODY_BYTES_MAX: u64 = 512 << 20;
const BOUNDARY: &str = "tilecatcher-part-7d3f0c1a9b52";

/// Of a body that the system has taken, what may still be on its way to the server goes at least so fast. Bytes a second.
const RATE_MIN: u64 = 64 << 10;

/// A client of one server.
#[derive(Clone)]
pub struct HttpClient {
    agent: ureq::Agent,
    timeout: Duration,
    base: String,
}

/// A tile's bytes and what the server says of them.
#[derive(Clone, Debug)]
pub struct TileContent {
    /// The stored bytes.
    pub bytes: Vec<u8>,
    /// Their `ETag`.
    pub etag: String,
    /// Their media type.
    pub media_type: String,
}

/// Puts a token's header into each request. Not shown to where a redirect leads: those are no requests of ours.
struct ShownToken(HeaderValue);

/// A part of a multipart body.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part<'a> {
    /// The form's name of it.
    pub(super) name: &'a str,
    /// Its file name, when it is a file.
    pub(super) file_name: Option<&'a str>,
    pub(super) bytes: &'a [u8],
}

/// What went wrong, with the URL.
#[derive(Debug, thiserror::Error)]
pub enum HttpClientError {
    /// No answer.
    #[error("{url}: {problem}; is the daemon running, and is this its HTTP port?")]
    Unreachable {
        /// What was asked for.
        url: String,
        /// Why there is no answer.
        problem: String,
    },
    /// An answer that says no.
    #[error("{url}: status {status}: {message}")]
    Refused {
        /// What was asked for.
        url: String,
        /// The HTTP status.
        status: u16,
        /// The server's `errormessage`, or its body.
        message: String,
    },
    /// An answer that can not be understood.
    #[error("{url}: the answer is not what a tilecatcher sends: {problem}")]
    Unexpected {
        /// What was asked for.
        url: String,
        /// What is wrong with it.
        problem: String,
    },
}

impl HttpClientError {
    /// The same request may succeed later: the server is away, overloaded, or has no space; the body came too slowly;
    /// somebody at this address showed wrong tokens.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Refused { status: 408 | 429 | 500.., .. })
    }
}

impl ShownToken {
    fn of(token: &BearerToken) -> Option<Self> {
        let mut header = HeaderValue::try_from(token.header()).ok()?;
        header.set_sensitive(true);
        Some(Self(header))
    }
}

impl Middleware for ShownToken {
    fn handle(
        &self,
        mut request: Request<SendBody<'_>>,
        next: MiddlewareNext<'_>,
    ) -> Result<Response<ureq::Body>, ureq::Error> {
        request.headers_mut().insert(AUTHORIZATION, self.0.clone());
        next.handle(request)
    }
}

impl HttpClient {
    /// A client of the server at `base`, such as `http://127.0.0.1:5001`. `timeout`: the longest wait for the next step,
    /// be it a connection, the server taking more bytes, its answer, or more of that.
    #[must_use]
    pub fn new(base: &str, timeout: Duration) -> Self {
        Self::with(base, timeout, None, None)
    }

    /// The same, for `https://` too, where `tls` says whom to trust and what to show; `token` goes along with each request.
    #[must_use]
    pub fn with(base: &str, timeout: Duration, tls: Option<&ClientTls>, token: Option<&BearerToken>) -> Self {
        // No bound on the whole: a large image over a slow line takes its time, as long as it moves.
        let config = ureq::Agent::config_builder()
            .timeout_resolve(Some(timeout))
            .timeout_connect(Some(timeout))
            .timeout_recv_response(Some(timeout))
            .timeout_per_read(Some(timeout))
            .timeout_per_write(Some(timeout))
            .http_status_as_error(false);
        #[cfg(feature = "tls")]
        let config = match tls {
            Some(tls) => config.tls_config(tls.for_http()),
            None => config,
        };
        #[cfg(not(feature = "tls"))]
        let _ = tls;
        let config = match token.and_then(ShownToken::of) {
            Some(shown) => config.middleware(shown),
            None => config,
        };
        Self { agent: config.build().into(), timeout, base: base.trim_end_matches('/').to_owned() }
    }

    /// Any path of the server, such as `/metrics`.
    ///
    /// # Errors
    /// As [`Self::start_acquisition`].
    pub fn get_path(&self, path: &str) -> Result<TileContent, HttpClientError> {
        let url = self.url(path);
        self.answer(&url, self.agent.get(&url).call())
    }

    /// Any path of the server, read as JSON.
    ///
    /// # Errors
    /// The server refuses or does not answer; the answer is not this JSON.
    pub fn get_json<T: DeserializeOwned>(&self, path: &str) -> Result<T, HttpClientError> {
        self.json(path, &self.get_path(path)?.bytes)
    }

    /// The answer of a path as it comes, for at most `limit`.
    ///
    /// # Errors
    /// The server refuses or does not answer.
    pub fn stream(&self, path: &str, limit: Duration) -> Result<impl Read + Send + use<>, HttpClientError> {
        let url = self.url(path);
        let asked = self.agent.get(&url).config().timeout_global(Some(limit)).build().call();
        let response =
            asked.map_err(|error| HttpClientError::Unreachable { url: url.clone(), problem: error.to_string() })?;
        if response.status().is_success() {
            return Ok(response.into_body().into_reader());
        }
        let refused = self.answer(&url, Ok(response)).err();
        Err(refused.unwrap_or(HttpClientError::Unexpected { url, problem: "no stream".to_owned() }))
    }

    pub(super) fn json<T: DeserializeOwned>(&self, path: &str, body: &[u8]) -> Result<T, HttpClientError> {
        serde_json::from_slice(body)
            .map_err(|error| HttpClientError::Unexpected { url: self.url(path), problem: error.to_string() })
    }

    pub(super) fn post_empty(&self, path: &str) -> Result<TileContent, HttpClientError> {
        let url = self.url(path);
        self.answer(&url, self.agent.post(&url).send_empty())
    }

    pub(super) fn post_bytes(&self, path: &str, body: &[u8]) -> Result<TileContent, HttpClientError> {
        let url = self.url(path);
        self.answer(&url, self.uploading(self.agent.post(&url), body).send(body))
    }

    pub(super) fn put_bytes(&self, path: &str, body: &[u8]) -> Result<TileContent, HttpClientError> {
        let url = self.url(path);
        self.answer(&url, self.uploading(self.agent.put(&url), body).send(body))
    }

    pub(super) fn post_parts(&self, path: &str, parts: &[Part<'_>]) -> Result<TileContent, HttpClientError> {
        let url = self.url(path);
        let body = multipart(parts);
        let request = self.agent.post(&url).content_type(format!("multipart/form-data; boundary={BOUNDARY}"));
        self.answer(&url, self.uploading(request, &body).send(&body[..]))
    }

    /// The wait for the answer begins when the system has taken the body, not when the server has it.
    fn uploading(&self, request: RequestBuilder<WithBody>, body: &[u8]) -> RequestBuilder<WithBody> {
        let on_its_way = Duration::from_millis(body.len() as u64 * 1000 / RATE_MIN);
        request.config().timeout_recv_response(Some(self.timeout + on_its_way)).build()
    }

    pub(super) fn delete(&self, path: &str) -> Result<TileContent, HttpClientError> {
        let url = self.url(path);
        self.answer(&url, self.agent.delete(&url).call())
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    fn answer(
        &self,
        url: &str,
        answer: Result<Response<ureq::Body>, ureq::Error>,
    ) -> Result<TileContent, HttpClientError> {
        let unreachable = |problem: String| HttpClientError::Unreachable { url: url.to_owned(), problem };
        let mut response = answer.map_err(|error| unreachable(error.to_string()))?;
        let mut bytes = Vec::new();
        let body = response.body_mut().with_config().limit(BODY_BYTES_MAX).reader().read_to_end(&mut bytes);
        body.map_err(|error| unreachable(error.to_string()))?;
        let status = response.status();
        if !status.is_success() {
            let json = serde_json::from_slice::<serde_json::Value>(&bytes).ok();
            let message = json.and_then(|json| json["errormessage"].as_str().map(str::to_owned));
            let message = message.unwrap_or_else(|| String::from_utf8_lossy(&bytes).into_owned());
            return Err(HttpClientError::Refused { url: url.to_owned(), status: status.as_u16(), message });
        }
        let header = |name: &str| {
            response.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
        };
        Ok(TileContent { etag: header("etag"), media_type: header("content-type"), bytes })
    }
}

/// One body of all parts. The boundary is long and odd enough for no log, table or image to hold it.
fn multipart(parts: &[Part<'_>]) -> Vec<u8> {
    let mut body = Vec::with_capacity(parts.iter().map(|part| part.bytes.len() + 256).sum());
    for Part { name, file_name, bytes } in parts {
        let file = file_name.map(|name| format!("; filename=\"{}\"", name.replace(['"', '\r', '\n'], "_")));
        let head = format!(
            "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"{name}\"{}\r\n\r\n",
            file.unwrap_or_default()
        );
        body.extend_from_slice(head.as_bytes());
        body.extend_from_slice(bytes);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(format!("--{BOUNDARY}--\r\n").as_bytes());
    body
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};
    use std::thread;

    /// A server that takes `steps` MiB of a body, one after each `pause`, and then answers, or not; its connection.
    fn slow_server(steps: usize, pause: Duration, answers: bool) -> (String, thread::JoinHandle<TcpStream>) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("bound"));
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a client");
            let mut step = vec![0; 1 << 20];
            for _ in 0..steps {
                thread::sleep(pause);
                stream.read_exact(&mut step).expect("bytes");
            }
            if answers {
                // The request's head is what is left of it.
                let _ = stream.read(&mut step).expect("bytes");
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}").expect("written");
            }
            stream
        });
        (url, server)
    }

    #[test]
    fn a_body_may_take_longer_than_the_longest_wait_while_it_moves() {
        // Far shorter than the whole, far longer than a busy machine may keep one step waiting.
        let timeout = Duration::from_secs(3);
        let (url, server) = slow_server(24, timeout / 16, true);
        let put = HttpClient::new(&url, timeout).put_bytes("/", &vec![7; 24 << 20]);
        assert_eq!(put.expect("answered").bytes, b"{}");
        drop(server.join());
    }

    #[test]
    fn a_server_that_takes_or_says_nothing_more_is_given_up() {
        let timeout = Duration::from_millis(200);
        for bytes in [1 << 10, 24 << 20] {
            let (url, server) = slow_server(0, Duration::ZERO, false);
            let put = HttpClient::new(&url, timeout).put_bytes("/", &vec![7; bytes]);
            assert!(matches!(put, Err(HttpClientError::Unreachable { .. })), "{put:?}");
            drop(server.join());
        }
    }
}
