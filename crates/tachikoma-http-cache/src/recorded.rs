//! What the inner service reads through caches while it makes a response is noted: until the end of
//! its body, whoever polls that. It decides nothing.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tachikoma_cache::dependencies::Recorder;

use crate::handle::Shared;

/// What the inner service reads is noted, if responses depend on it.
pub(crate) fn recorder(shared: &Shared) -> Option<Recorder> {
    shared.dependencies.then(Recorder::new)
}

/// Runs what the inner service does within its recording.
pub(crate) async fn within<F: Future>(read: Option<Recorder>, asking: F) -> F::Output {
    match read {
        Some(recorder) => recorder.scope(asking).await,
        None => asking.await,
    }
}

pin_project! {
    /// A body that is made while it is read.
    pub(crate) struct Recorded<B> {
        #[pin]
        inner: B,
        recorder: Recorder,
    }
}

impl<B> Recorded<B> {
    pub(crate) fn new(inner: B, recorder: Recorder) -> Self {
        Self { inner, recorder }
    }
}

impl<B: Body> Body for Recorded<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let this = self.project();
        this.recorder.enter(|| this.inner.poll_frame(cx))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
