//! A connection whose peer is watched: heads that do not end, bodies that trickle in, answers that are not taken.
//!
//! Sits between the socket (or what encrypts it) and hyper, and around each request's body; both write why they gave up
//! into one [`Watch`]. Must never touch the bytes.

use super::pace::{Pace, PaceLimits, TooSlow};
use crate::telemetry::HttpCloseReason;
use axum::BoxError;
use axum::body::{Body, Bytes, HttpBody};
use http_body::{Frame, SizeHint};
use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

/// What the parts of a connection know of each other.
#[derive(Default)]
pub(super) struct Watch {
    /// Requests whose head has come.
    requests: AtomicU64,
    /// One of them is being answered.
    busy: AtomicBool,
    /// The answer goes on until somebody ends it.
    endless: AtomicBool,
    verdict: Mutex<Option<HttpCloseReason>>,
}

/// A request is being answered as long as this lives.
pub(super) struct Busy(Arc<Watch>);

impl Watch {
    /// A head has come.
    pub(super) fn begin(self: &Arc<Self>) -> Busy {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.busy.store(true, Ordering::Relaxed);
        Busy(Arc::clone(self))
    }

    /// The answer that is under way has no end of its own.
    pub(super) fn mark_endless(&self) {
        self.endless.store(true, Ordering::Relaxed);
    }

    /// True while such an answer is under way.
    pub(super) fn has_endless(&self) -> bool {
        self.endless.load(Ordering::Relaxed) && self.busy.load(Ordering::Relaxed)
    }

    /// Why the connection was given up, if it was.
    pub(super) fn verdict(&self) -> Option<HttpCloseReason> {
        *self.verdict.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn give_up(&self, why: HttpCloseReason) -> io::Error {
        self.verdict.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(why);
        io::ErrorKind::TimedOut.into()
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.endless.store(false, Ordering::Relaxed);
        self.0.busy.store(false, Ordering::Relaxed);
    }
}

/// A timer that is made when it is first needed.
#[derive(Default)]
struct Timer(Option<Pin<Box<Sleep>>>);

impl Timer {
    /// Ready at `at`; wakes the task then.
    fn poll(&mut self, at: Instant, context: &mut Context<'_>) -> Poll<()> {
        let sleep = self.0.get_or_insert_with(|| Box::pin(sleep_until(at)));
        if sleep.deadline() != at {
            sleep.as_mut().reset(at);
        }
        sleep.as_mut().poll(context)
    }
}

/// Polls until the peer has had its time: for what waits for a peer.
fn poll_pace(pace: &mut Pace, timer: &mut Timer, context: &mut Context<'_>) -> Poll<TooSlow> {
    loop {
        match pace.wait(Instant::now()) {
            Ok(again) => ready!(timer.poll(again, context)),
            Err(slow) => return Poll::Ready(slow),
        }
    }
}

/// The socket, watched.
pub(super) struct Watched<S> {
    stream: S,
    watch: Arc<Watch>,
    head_time: Duration,
    /// When the first byte of a head came.
    head_began: Option<Instant>,
    /// Requests that had come by then: while one is answered, nobody may read.
    heads: u64,
    head_timer: Timer,
    limits: PaceLimits,
    writing: Pace,
    /// The request that `writing` is about.
    request: u64,
    /// Everything written so far has been taken by the system.
    is_flushed: bool,
    write_timer: Timer,
}

impl<S> Watched<S> {
    /// `head_time` is the longest that a request's head may take from its first byte on.
    pub(super) fn new(stream: S, watch: Arc<Watch>, head_time: Duration, limits: PaceLimits) -> Self {
        Self {
            stream,
            watch,
            head_time,
            head_began: None,
            heads: 0,
            head_timer: Timer::default(),
            limits,
            writing: Pace::new(limits),
            request: 0,
            is_flushed: true,
            write_timer: Timer::default(),
        }
    }

    /// What came of a read: `true` when bytes did.
    fn has_read(&mut self, some: bool) {
        let (heads, is_busy) = (self.watch.requests.load(Ordering::Relaxed), self.watch.busy.load(Ordering::Relaxed));
        if is_busy || std::mem::replace(&mut self.heads, heads) != heads {
            self.head_began = None;
        }
        if !is_busy && some && self.head_began.is_none() {
            self.head_began = Some(Instant::now());
        }
    }

    fn poll_head(&mut self, context: &mut Context<'_>) -> Poll<io::Error> {
        self.has_read(false);
        let Some(began) = self.head_began else { return Poll::Pending };
        ready!(self.head_timer.poll(began + self.head_time, context));
        Poll::Ready(self.watch.give_up(HttpCloseReason::SlowHead))
    }

    /// An answer begins: behind one that was taken, its time is its own.
    fn begin_write(&mut self) {
        let request = self.watch.requests.load(Ordering::Relaxed);
        if std::mem::replace(&mut self.is_flushed, false) && request != self.request {
            (self.request, self.writing) = (request, Pace::new(self.limits));
        }
    }

    fn has_written<T>(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<T>>,
        bytes: impl Fn(&T) -> usize,
    ) -> Poll<io::Result<T>> {
        match written {
            Poll::Ready(Ok(done)) => {
                self.writing.progress(bytes(&done), Instant::now());
                Poll::Ready(Ok(done))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => {
                ready!(poll_pace(&mut self.writing, &mut self.write_timer, context));
                Poll::Ready(Err(self.watch.give_up(HttpCloseReason::Unread)))
            }
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        match Pin::new(&mut self.stream).poll_read(context, buffer) {
            Poll::Ready(Ok(())) => {
                self.has_read(buffer.filled().len() > before);
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => self.poll_head(context).map(Err),
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.begin_write();
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.has_written(context, written, |n| *n)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.begin_write();
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.has_written(context, written, |n| *n)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        self.is_flushed |= matches!(flushed, Poll::Ready(Ok(())));
        self.has_written(context, flushed, |()| 0)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let ended = Pin::new(&mut self.stream).poll_shutdown(context);
        self.has_written(context, ended, |()| 0)
    }
}

/// A request's body, watched.
pub(super) struct WatchedBody {
    body: Body,
    pace: Pace,
    timer: Timer,
    watch: Arc<Watch>,
}

impl WatchedBody {
    pub(super) fn new(body: Body, watch: Arc<Watch>, limits: PaceLimits) -> Self {
        Self { body, pace: Pace::new(limits), timer: Timer::default(), watch }
    }
}

impl HttpBody for WatchedBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        match Pin::new(&mut this.body).poll_frame(context) {
            Poll::Ready(Some(Ok(frame))) => {
                this.pace.progress(frame.data_ref().map_or(0, Bytes::len), Instant::now());
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(other) => Poll::Ready(other.map(|frame| frame.map_err(Into::into))),
            Poll::Pending => {
                let slow = ready!(poll_pace(&mut this.pace, &mut this.timer, context));
                this.watch.give_up(HttpCloseReason::SlowBody);
                Poll::Ready(Some(Err(slow.into())))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// An answer's body; its request is over when it has gone, or is given up.
pub(super) struct AnswerBody {
    pub(super) body: Body,
    pub(super) _busy: Busy,
}

impl HttpBody for AnswerBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
