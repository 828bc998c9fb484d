//! Puts a deadline on each wait for a piece of a body and for a reader who stopped reading, and a
//! bound on what a body may bring.
//!
//! It bounds the time between two pieces, not the whole: a long download is fine as long as it
//! moves.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tachikoma_cache::Clock;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Why a body ended before its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Broken {
    /// No piece of it came within the time allowed.
    Stalled,
    /// More of it came than is allowed.
    TooLarge,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stalled => "no more of the body came in time",
            Self::TooLarge => "the body is larger than is allowed",
        })
    }
}

impl std::error::Error for Broken {}

/// A timer that is set when a wait begins and forgotten when it ends.
struct Wait {
    limit: Duration,
    clock: Arc<dyn Clock>,
    timer: Option<BoxFuture<'static, ()>>,
}

impl Wait {
    fn new(limit: Duration, clock: Arc<dyn Clock>) -> Self {
        Self { limit, clock, timer: None }
    }

    /// Ready once this wait has lasted for the limit.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let timer = self.timer.get_or_insert_with(|| self.clock.sleep(self.limit));
        timer.as_mut().poll(cx)
    }

    fn over(&mut self) {
        self.timer = None;
    }
}

pin_project! {
    /// A body whose next piece must come within a limit; else it ends with [`Broken`].
    pub(crate) struct TimedBody<B> {
        #[pin]
        inner: B,
        wait: Wait,
        left: u64,
        progress: Option<Arc<Notify>>,
    }
}

impl<B> TimedBody<B> {
    pub(crate) fn new(inner: B, limit: Duration, clock: Arc<dyn Clock>) -> Self {
        Self { inner, wait: Wait::new(limit, clock), left: u64::MAX, progress: None }
    }

    /// Lets at most this many bytes through.
    pub(crate) fn at_most(mut self, bytes: u64) -> Self {
        self.left = bytes;
        self
    }

    /// Tells `progress` of each piece that came.
    pub(crate) fn telling(mut self, progress: Arc<Notify>) -> Self {
        self.progress = Some(progress);
        self
    }
}

impl<B> Body for TimedBody<B>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.project();
        match this.inner.poll_frame(cx) {
            Poll::Ready(frame) => {
                this.wait.over();
                if let Some(progress) = this.progress {
                    progress.notify_one();
                }
                if let Some(Ok(frame)) = &frame {
                    let length = frame.data_ref().map_or(0, |data| data.len() as u64);
                    match this.left.checked_sub(length) {
                        Some(left) => *this.left = left,
                        None => return Poll::Ready(Some(Err(Broken::TooLarge.into()))),
                    }
                }
                Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
            }
            Poll::Pending => {
                ready!(this.wait.poll(cx));
                Poll::Ready(Some(Err(Broken::Stalled.into())))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// A connection whose peer must take some of what is written within a limit.
///
/// Without it a client that stops reading holds its connection and buffers for ever.
pub(crate) struct TimedWrite<S> {
    inner: S,
    wait: Wait,
}

impl<S> TimedWrite<S> {
    pub(crate) fn new(inner: S, limit: Duration, clock: Arc<dyn Clock>) -> Self {
        Self { inner, wait: Wait::new(limit, clock) }
    }

    fn bounded<T>(
        &mut self,
        result: Poll<io::Result<T>>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<T>> {
        if result.is_ready() {
            self.wait.over();
            return result;
        }
        ready!(self.wait.poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for TimedWrite<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for TimedWrite<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.inner).poll_write(cx, bytes);
        self.bounded(result, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.inner).poll_write_vectored(cx, slices);
        self.bounded(result, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.inner).poll_flush(cx);
        self.bounded(result, cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.inner).poll_shutdown(cx);
        self.bounded(result, cx)
    }
}
