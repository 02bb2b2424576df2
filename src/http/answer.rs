//! Answers that every route shares: errors as `{"errormessage": ...}`, blocking work, path numbers.

use super::AppState;
use crate::catalog::{Catalog, CatalogError, ContentError};
use crate::journal::JournalError;
use axum::Json;
use axum::extract::{self, FromRequestParts};
use axum::http::request::Parts;
use axum::http::{HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use http_body_util::{BodyExt, Limited};
use serde::de::DeserializeOwned;
use serde_json::json;
use std::sync::Arc;
use tokio::sync::oneshot;

/// An error on its way to a client.
#[derive(Debug)]
pub(super) struct Failure {
    status: StatusCode,
    message: String,
}

impl Failure {
    pub(super) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }

    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// For queries: an acquisition that is not known is not found.
    pub(super) fn unknown_is_missing(self) -> Self {
        let unknown = self.status == StatusCode::BAD_REQUEST && self.message.ends_with("was never started");
        if unknown { Self::new(StatusCode::NOT_FOUND, self.message) } else { self }
    }

    pub(super) fn message(&self) -> &str {
        &self.message
    }

    /// Too much is going on: come again.
    pub(super) fn busy() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "too much is going on: try again")
    }

    /// The client is too slow.
    pub(super) fn timed_out() -> Self {
        Self::new(StatusCode::REQUEST_TIMEOUT, "the body stopped coming")
    }

    /// Our own fault.
    pub(super) fn inside() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "the request failed inside; see the log")
    }

    pub(super) fn missing(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, message)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let body = Json(json!({ "errormessage": self.message }));
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            return (self.status, [(header::RETRY_AFTER, "1")], body).into_response();
        }
        (self.status, body).into_response()
    }
}

impl From<CatalogError> for Failure {
    fn from(error: CatalogError) -> Self {
        let status = match &error {
            CatalogError::UnknownAcquisition(_) | CatalogError::Invalid(_) => StatusCode::BAD_REQUEST,
            CatalogError::Journal(JournalError::NoSpace { .. }) | CatalogError::NoSpace(_) => {
                StatusCode::INSUFFICIENT_STORAGE
            }
            CatalogError::Busy | CatalogError::Stopping => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::new(status, error.to_string())
    }
}

impl From<ContentError> for Failure {
    fn from(error: ContentError) -> Self {
        let status = match &error {
            ContentError::Busy => StatusCode::SERVICE_UNAVAILABLE,
            ContentError::Damaged(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::new(status, error.to_string())
    }
}

/// Hands a command to the catalog and awaits its end, without a thread of its own.
pub(super) async fn command<T: Send + 'static>(
    submit: impl FnOnce(Answer<T>) -> Result<(), CatalogError>,
) -> Result<T, Failure> {
    let (answer, answered) = oneshot::channel();
    submit(Box::new(move |done| drop(answer.send(done))))?;
    match answered.await {
        Ok(done) => done.map_err(Into::into),
        Err(_) => Err(Failure::from(CatalogError::Stopping)),
    }
}

/// Takes a command's end.
pub(super) type Answer<T> = Box<dyn FnOnce(Result<T, CatalogError>) + Send>;

/// Runs catalog work on a blocking thread.
pub(super) async fn blocking<T, E>(
    state: &AppState,
    work: impl FnOnce(&Arc<Catalog>) -> Result<T, E> + Send + 'static,
) -> Result<T, Failure>
where
    T: Send + 'static,
    E: Into<Failure> + Send + 'static,
{
    let catalog = Arc::clone(&state.catalog);
    match tokio::task::spawn_blocking(move || work(&catalog)).await {
        Ok(done) => done.map_err(Into::into),
        Err(_) => Err(Failure::inside()),
    }
}

/// What a path says in its variable places. Places that are no UTF-8 are answered like all that is wrong.
pub(super) struct Path<T>(pub(super) T);

impl<T, S> FromRequestParts<S> for Path<T>
where
    T: DeserializeOwned + Send,
    S: Send + Sync,
{
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        let read = extract::Path::from_request_parts(parts, state).await;
        let extract::Path(places) = read.map_err(|bad| Failure::new(bad.status(), bad.body_text()))?;
        Ok(Self(places))
    }
}

/// A number in a path.
pub(super) fn number<T: std::str::FromStr>(name: &str, text: &str) -> Result<T, Failure> {
    text.parse().map_err(|_| Failure::bad_request(format!("{name} \"{text}\" is not a number in range")))
}

/// Longest message that is taken over from an answer that is not ours.
const MESSAGE_BYTES_MAX: usize = 4096;

/// Errors that the framework answers by itself, such as a path that is no UTF-8, in the shape of all others.
pub(super) async fn in_json(response: Response) -> Response {
    let status = response.status();
    let kind = response.headers().get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    if !(status.is_client_error() || status.is_server_error()) || kind == Some(b"application/json") {
        return response;
    }
    let body = Limited::new(response.into_body(), MESSAGE_BYTES_MAX).collect().await;
    let body = body.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    Failure::new(status, String::from_utf8_lossy(&body)).into_response()
}

pub(super) async fn not_found(uri: Uri) -> Failure {
    Failure::missing(format!("there is nothing at {}", uri.path()))
}

pub(super) async fn wrong_method(method: Method, uri: Uri) -> Failure {
    Failure::new(StatusCode::METHOD_NOT_ALLOWED, format!("{} does not take {method}", uri.path()))
}
