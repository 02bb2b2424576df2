//! Multipart bodies of small files: read whole, within limits of size and number.
//!
//! Must never hold more than its limit: each body has a place, which its reader keeps until nothing of it is left.

use super::AppState;
use super::answer::Failure;
use super::peers::peer_of;
use super::uploads::Place;
use axum::BoxError;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::multipart::{Field, Multipart, MultipartError};
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, StatusCode, header};
use http_body::{Frame, SizeHint};
use http_body_util::Limited;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::timeout;

/// Longest body of files.
pub(super) const BODY_BYTES_MAX: usize = 64 << 20;
/// Most parts of a body.
const PARTS_MAX: usize = 256;
/// Most bytes that the parser may keep to itself: it hands the content of a part out as it comes.
const KEPT_BYTES_MAX: usize = 256 << 10;
/// Longest wait for a place, and for the next bytes.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// One part of a multipart body.
pub(super) struct Part {
    pub(super) name: String,
    pub(super) file_name: Option<String>,
    pub(super) bytes: Vec<u8>,
}

/// All parts of a multipart body, in their order.
pub(super) struct Parts(pub(super) Vec<Part>);

impl Parts {
    /// Takes the part of this name out.
    pub(super) fn take(&mut self, name: &str) -> Result<Option<Part>, Failure> {
        let count = self.0.iter().filter(|part| part.name == name).count();
        if count > 1 {
            return Err(Failure::bad_request(format!("the part {name} is there {count} times")));
        }
        Ok(self.0.iter().position(|part| part.name == name).map(|n| self.0.remove(n)))
    }
}

/// True for a body that says it is multipart.
pub(super) fn is_multipart(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    kind.is_some_and(|kind| kind.trim_start().get(..10).is_some_and(|kind| kind.eq_ignore_ascii_case("multipart/")))
}

/// A multipart body on its way.
pub(super) struct Form {
    body: Multipart,
    kept: Kept,
}

/// A part on its way.
pub(super) struct FormField<'a> {
    field: Field<'a>,
    kept: Kept,
}

/// Bytes that the parser has taken since it last gave something: it keeps what stands before a part's content.
#[derive(Clone, Default)]
struct Kept(Arc<AtomicUsize>);

/// A body that ends with an error where the parser would keep too much of it.
struct Counted<B> {
    body: B,
    kept: Kept,
}

impl Kept {
    /// What the parser gave, or why it ended.
    fn give<T>(&self, given: Result<T, MultipartError>) -> Result<T, Failure> {
        if self.0.swap(0, Ordering::Relaxed) > KEPT_BYTES_MAX {
            let problem = format!("what stands before a part, or between two, is longer than {KEPT_BYTES_MAX} bytes");
            return Err(Failure::new(StatusCode::PAYLOAD_TOO_LARGE, problem));
        }
        given.map_err(broken)
    }
}

impl<B: HttpBody<Data = Bytes, Error: Into<BoxError>> + Unpin> HttpBody for Counted<B> {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        let bytes = frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref()).map_or(0, Bytes::len);
        if self.kept.0.fetch_add(bytes, Ordering::Relaxed) + bytes > KEPT_BYTES_MAX {
            return Poll::Ready(Some(Err("too much is kept".into())));
        }
        Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A body without a length is cut off at the limit, too.
pub(super) async fn open(request: Request, limit: usize) -> Result<Form, Failure> {
    let kept = Kept::default();
    let counted = |body| Body::new(Counted { body: Limited::new(body, limit), kept: kept.clone() });
    let body = Multipart::from_request(request.map(counted), &()).await;
    let body = body.map_err(|rejection| Failure::bad_request(rejection.body_text()))?;
    Ok(Form { body, kept })
}

impl FormField<'_> {
    pub(super) fn name(&self) -> Option<&str> {
        self.field.name()
    }

    pub(super) fn file_name(&self) -> Option<&str> {
        self.field.file_name()
    }
}

/// Reads all parts; `None` when the body does not say that it is multipart. Their place is to be kept as long as they are.
pub(super) async fn read_parts(state: &AppState, request: Request) -> Result<Option<(Parts, Place)>, Failure> {
    if !is_multipart(request.headers()) {
        return Ok(None);
    }
    let place = take_place(state, &request, BODY_BYTES_MAX)?.await?;
    Ok(Some((read_all(request).await?, place)))
}

/// Checks a body's length, and takes a place for it.
pub(super) fn take_place<'a>(
    state: &'a AppState,
    request: &Request,
    limit: usize,
) -> Result<impl Future<Output = Result<Place, Failure>> + use<'a>, Failure> {
    let (length, peer) = (check_length(request.headers(), limit)?, peer_of(request));
    Ok(state.uploads.take(length, peer))
}

/// Reads all parts of a multipart body.
pub(super) async fn read_all(request: Request) -> Result<Parts, Failure> {
    let mut body = open(request, BODY_BYTES_MAX).await?;
    let mut parts = Vec::new();
    let mut left = BODY_BYTES_MAX;
    while let Some(field) = next_field(&mut body).await? {
        if parts.len() == PARTS_MAX {
            return Err(Failure::bad_request(format!("more than {PARTS_MAX} parts")));
        }
        parts.push(read_part(field, &mut left).await?);
    }
    Ok(Parts(parts))
}

/// A body whose announced length is above the limit is refused before a byte is read.
pub(super) fn check_length(headers: &HeaderMap, limit: usize) -> Result<Option<usize>, Failure> {
    let length = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    let Some(length) = length else { return Ok(None) };
    usize::try_from(length).ok().filter(|length| *length <= limit).map(Some).ok_or_else(|| too_large(limit))
}

pub(super) fn too_large(limit: usize) -> Failure {
    Failure::new(StatusCode::PAYLOAD_TOO_LARGE, format!("the body is longer than {limit} bytes"))
}

pub(super) async fn next_field(form: &mut Form) -> Result<Option<FormField<'_>>, Failure> {
    let Form { body, kept } = form;
    let field = timeout(PATIENCE, body.next_field()).await.map_err(|_| Failure::timed_out())?;
    let field = kept.give(field)?;
    Ok(field.map(|field| FormField { field, kept: kept.clone() }))
}

pub(super) async fn next_chunk(part: &mut FormField<'_>) -> Result<Option<Bytes>, Failure> {
    let chunk = timeout(PATIENCE, part.field.chunk()).await.map_err(|_| Failure::timed_out())?;
    part.kept.give(chunk)
}

/// Reads one part, taking its length from what is left.
pub(super) async fn read_part(mut field: FormField<'_>, left: &mut usize) -> Result<Part, Failure> {
    let name = field.name().unwrap_or_default().to_owned();
    let file_name = field.file_name().map(str::to_owned);
    let mut bytes = Vec::new();
    while let Some(chunk) = next_chunk(&mut field).await? {
        *left = left.checked_sub(chunk.len()).ok_or_else(|| too_large(BODY_BYTES_MAX))?;
        bytes.extend_from_slice(&chunk);
    }
    Ok(Part { name, file_name, bytes })
}

fn broken(error: MultipartError) -> Failure {
    let status = if error.status().is_server_error() { StatusCode::BAD_REQUEST } else { error.status() };
    Failure::new(status, format!("the multipart body can not be read: {}", error.body_text()))
}
