//! Tells how much of a body went out and whether it came to its end.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::body::Body;
use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};

/// A body that calls `done(bytes, complete)` exactly once: at its end, at its error, or when it is
/// dropped before. A dropped body is complete if nothing was left to send.
pub(crate) struct ObservedBody<F: FnOnce(u64, bool)> {
    inner: Body,
    sent: u64,
    /// What the head promises, as far as it does.
    expected: Option<u64>,
    done: Option<F>,
}

impl<F: FnOnce(u64, bool)> ObservedBody<F> {
    pub(crate) fn new(inner: Body, done: F) -> Self {
        let expected = inner.size_hint().exact();
        Self { inner, sent: 0, expected, done: Some(done) }
    }

    fn finish(&mut self, complete: bool) {
        if let Some(done) = self.done.take() {
            done(self.sent, complete);
        }
    }
}

impl<F: FnOnce(u64, bool) + Unpin> http_body::Body for ObservedBody<F> {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => {
                self.sent += frame.data_ref().map_or(0, |data| data.len() as u64);
            }
            Some(Err(_)) => self.finish(false),
            None => self.finish(true),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl<F: FnOnce(u64, bool)> Drop for ObservedBody<F> {
    fn drop(&mut self) {
        // With a known length nobody asks for the end.
        let complete = self.inner.is_end_stream() || self.expected == Some(self.sent);
        self.finish(complete);
    }
}
