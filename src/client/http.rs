//! The HTTP port's client: acquisitions, tiles, contents. Blocking.

use crate::model::AcqId;
use std::io::Read;
use std::time::Duration;

/// The longest answer that is read into memory.
const BODY_BYTES_MAX: u64 = 512 << 20;
const BOUNDARY: &str = "tilecatcher-part-7d3f0c1a9b52";

/// A client of one server.
#[derive(Clone)]
pub struct HttpClient {
    agent: ureq::Agent,
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

impl HttpClient {
    /// A client of the server at `base`, such as `http://127.0.0.1:5001`.
    #[must_use]
    pub fn new(base: &str, timeout: Duration) -> Self {
        let config = ureq::Agent::config_builder().timeout_global(Some(timeout)).http_status_as_error(false).build();
        Self { agent: config.into(), base: base.trim_end_matches('/').to_owned() }
    }

    /// Starts an acquisition with its log; returns its identifier.
    ///
    /// # Errors
    /// The server refuses it or does not answer.
    pub fn start_acquisition(&self, log_name: &str, log: &[u8]) -> Result<AcqId, HttpClientError> {
        let head = format!(
            "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"acq-inilog\"; filename=\"{}\"\r\nContent-Type: text/plain\r\n\r\n",
            log_name.replace(['"', '\r', '\n'], "_"),
        );
        let body = [head.as_bytes(), log, format!("\r\n--{BOUNDARY}--\r\n").as_bytes()].concat();
        let url = format!("{}/service/v1/start-acquisition", self.base);
        let request = self.agent.post(&url).content_type(format!("multipart/form-data; boundary={BOUNDARY}"));
        let answer = self.answer(&url, request.send(&body[..]))?;
        let uid = serde_json::from_slice::<serde_json::Value>(&answer.bytes).ok().and_then(|json| json["uid"].as_u64());
        uid.map(AcqId).ok_or_else(|| HttpClientError::Unexpected { url, problem: "no uid".to_owned() })
    }

    /// Ends an acquisition.
    ///
    /// # Errors
    /// As [`Self::start_acquisition`].
    pub fn end_acquisition(&self, acq: AcqId) -> Result<(), HttpClientError> {
        let url = format!("{}/service/v1/end-acquisition/{acq}", self.base);
        self.answer(&url, self.agent.post(&url).send_empty()).map(drop)
    }

    /// Deletes an acquisition for ever.
    ///
    /// # Errors
    /// As [`Self::start_acquisition`].
    pub fn delete_acquisition(&self, acq: AcqId) -> Result<(), HttpClientError> {
        let url = format!("{}/service/v1/acquisition/{acq}?confirm={acq}", self.base);
        self.answer(&url, self.agent.delete(&url).call()).map(drop)
    }

    /// The stable tile at a position, as the server describes it.
    ///
    /// # Errors
    /// As [`Self::start_acquisition`].
    pub fn tile(&self, acq: AcqId, col: u32, row: u32) -> Result<serde_json::Value, HttpClientError> {
        let url = format!("{}/service/v1/acquisition/{acq}/tile/{col}/{row}", self.base);
        let answer = self.get(&url)?;
        serde_json::from_slice(&answer.bytes)
            .map_err(|error| HttpClientError::Unexpected { url, problem: error.to_string() })
    }

    /// The content of the stable tile at a position.
    ///
    /// # Errors
    /// As [`Self::start_acquisition`].
    pub fn content(&self, acq: AcqId, col: u32, row: u32) -> Result<TileContent, HttpClientError> {
        self.get(&format!("{}/service/v1/acquisition/{acq}/tile/{col}/{row}/content", self.base))
    }

    /// Any path of the server, such as `/metrics`.
    ///
    /// # Errors
    /// As [`Self::start_acquisition`].
    pub fn get_path(&self, path: &str) -> Result<TileContent, HttpClientError> {
        self.get(&format!("{}{path}", self.base))
    }

    fn get(&self, url: &str) -> Result<TileContent, HttpClientError> {
        self.answer(url, self.agent.get(url).call())
    }

    fn answer(
        &self,
        url: &str,
        answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
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
