//! What a request still sends when its answer is made already.
//!
//! Many clients send all before they read. Closing on unread bytes resets their connection, and the answer is lost: so
//! what is left of a body is read and dropped first, within bounds. A client that asked first (`Expect: 100-continue`) and
//! was not told to go on sends nothing; it must not be told so by reading. Where a body is not read to its end, the
//! connection ends with the answer: hyper would read what is left of it, and the next requests, before the answer is taken,
//! and keep answers without end for a peer that does not read. Must never keep bytes.

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::Request;
use axum::http::{HeaderValue, header};
use axum::middleware::Next;
use axum::response::Response;
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::timeout;

/// A body with more than this left is not read to its end.
const BYTES_MAX: u64 = 64 << 20;
const TIME_MAX: Duration = Duration::from_secs(5);

/// A request's body that can still be reached when its reader is gone.
#[derive(Clone)]
struct Shared(Arc<Mutex<Inner>>);

struct Inner {
    body: Body,
    asked_for: bool,
    ended: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl HttpBody for Shared {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let mut inner = self.lock();
        inner.asked_for = true;
        let frame = Pin::new(&mut inner.body).poll_frame(context);
        inner.ended |= matches!(frame, Poll::Ready(None));
        frame
    }

    fn is_end_stream(&self) -> bool {
        let inner = self.lock();
        inner.ended || inner.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.lock().body.size_hint()
    }
}

/// Lets an answer go when its request has come to its end, or is given up.
pub(super) async fn read_first(request: Request, next: Next) -> Response {
    let asks_first = request.headers().contains_key(header::EXPECT);
    let (head, body) = request.into_parts();
    let body = Shared(Arc::new(Mutex::new(Inner { body, asked_for: false, ended: false })));
    let mut response = next.run(Request::from_parts(head, Body::new(body.clone()))).await;
    let may_read = !asks_first || body.lock().asked_for;
    if may_read {
        drain(body.clone()).await;
    }
    if !body.is_end_stream() {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

async fn drain(mut body: Shared) {
    let drained = async {
        let mut left = BYTES_MAX;
        while !body.is_end_stream() && body.size_hint().lower() <= left {
            let Some(Ok(frame)) = body.frame().await else { return };
            let read = frame.into_data().map_or(0, |data| data.len() as u64);
            left = left.saturating_sub(read);
            if left == 0 {
                return;
            }
        }
    };
    let _ = timeout(TIME_MAX, drained).await;
}
