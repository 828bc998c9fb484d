//! Puts a deadline on each wait for a piece of a body and for a reader who stopped reading, and a
//! bound on what a body may bring.
//!
//! It bounds the time between two pieces, not the whole: a long download is fine as long as it
//! moves. Of clients it also expects a least pace while they are waited for, because a byte now and
//! then would hold a place at an upstream for ever. An origin may be as slow as it likes between
//! two deadlines: it may have nothing to say.

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
use tachikoma_cache::{Clock, Time};
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

/// The least that a client moves in a second, on average over the time that it is waited for.
const LEAST_PER_SECOND: u64 = 1 << 10;

/// What must have moved within this much waiting.
pub(crate) fn least_within(limit: Duration) -> u64 {
    let millis = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
    millis.saturating_mul(LEAST_PER_SECOND) / 1000
}

/// A timer that is set when a wait begins and forgotten when it ends.
///
/// If it is paced, waits add up: once they make a limit together, the least pace must have been
/// kept meanwhile, and the sum begins anew.
struct Wait {
    limit: Duration,
    clock: Arc<dyn Clock>,
    paced: bool,
    open: Option<Open>,
    /// What was waited, and what moved, since the pace was last looked at.
    waited: Duration,
    moved: u64,
}

/// A wait under way.
struct Open {
    since: Time,
    /// Since when it is a part of the sum.
    counted: Time,
    timer: BoxFuture<'static, ()>,
}

impl Wait {
    fn new(limit: Duration, clock: Arc<dyn Clock>) -> Self {
        Self { limit, clock, paced: false, open: None, waited: Duration::ZERO, moved: 0 }
    }

    /// Ready once this wait has lasted for the limit, or all of them have with too little moved.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Self { limit, clock, paced, open, waited, moved } = self;
        let open = open.get_or_insert_with(|| {
            let since = clock.now();
            Open { since, counted: since, timer: clock.sleep(limit.saturating_sub(*waited)) }
        });
        loop {
            ready!(open.timer.as_mut().poll(cx));
            let now = clock.now();
            let lasted = now.since(open.since);
            if !*paced || lasted >= *limit || *moved < least_within(*limit) {
                return Poll::Ready(());
            }
            (*waited, *moved, open.counted) = (Duration::ZERO, 0, now);
            open.timer = clock.sleep(limit.saturating_sub(lasted));
        }
    }

    /// The wait has ended, and so much has moved.
    fn over(&mut self, moved: u64) {
        if let Some(open) = self.open.take()
            && self.paced
        {
            self.waited += self.clock.now().since(open.counted);
            // Nobody looked when the timer rang: it was not the client who was waited for.
            if self.waited >= self.limit {
                (self.waited, self.moved) = (Duration::ZERO, 0);
            }
        }
        self.moved = self.moved.saturating_add(moved);
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

    /// Expects the least pace of a client, too.
    pub(crate) fn paced(mut self) -> Self {
        self.wait.paced = true;
        self
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
                let data = frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref());
                let length = data.map_or(0, |data| data.len() as u64);
                this.wait.over(length);
                if let Some(progress) = this.progress {
                    progress.notify_one();
                }
                match this.left.checked_sub(length) {
                    Some(left) => *this.left = left,
                    None => return Poll::Ready(Some(Err(Broken::TooLarge.into()))),
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

/// A connection whose peer must take some of what is written within a limit, and at the least pace.
///
/// Without it a client that stops reading holds its connection and buffers for ever.
pub(crate) struct TimedWrite<S> {
    inner: S,
    wait: Wait,
}

impl<S> TimedWrite<S> {
    pub(crate) fn new(inner: S, limit: Duration, clock: Arc<dyn Clock>) -> Self {
        let mut wait = Wait::new(limit, clock);
        wait.paced = true;
        Self { inner, wait }
    }

    /// `written` says what a result has moved.
    fn bounded<T>(
        &mut self,
        result: Poll<io::Result<T>>,
        written: fn(&T) -> u64,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<T>> {
        if let Poll::Ready(done) = &result {
            self.wait.over(done.as_ref().map_or(0, written));
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
        self.bounded(result, |count| *count as u64, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.inner).poll_write_vectored(cx, slices);
        self.bounded(result, |count| *count as u64, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.inner).poll_flush(cx);
        self.bounded(result, |()| 0, cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.inner).poll_shutdown(cx);
        self.bounded(result, |()| 0, cx)
    }
}
