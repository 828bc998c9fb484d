//! Keeps something for as long as a body lasts.

use std::pin::Pin;
use std::task::{Context, Poll};

use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

pin_project! {
    /// A body that holds on to `kept` until it is dropped.
    pub(super) struct HeldBody<B, T> {
        #[pin]
        inner: B,
        kept: T,
    }
}

impl<B, T> HeldBody<B, T> {
    pub(super) fn new(inner: B, kept: T) -> Self {
        Self { inner, kept }
    }
}

impl<B: Body, T> Body for HeldBody<B, T> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        self.project().inner.poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
