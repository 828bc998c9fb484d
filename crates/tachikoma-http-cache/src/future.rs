//! The future of a response: ready at once on a hit in memory, else boxed.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use http::Response;

use crate::body::CacheBody;

type Answer<B, E> = Result<Response<CacheBody<B>>, E>;

/// The future of [`HttpCacheService`](crate::HttpCacheService).
pub struct ResponseFuture<B, E> {
    state: State<B, E>,
}

enum State<B, E> {
    Ready(Option<Box<Response<CacheBody<B>>>>),
    Waiting(Pin<Box<dyn Future<Output = Answer<B, E>> + Send>>),
}

impl<B, E> ResponseFuture<B, E> {
    pub(crate) fn ready(response: Response<CacheBody<B>>) -> Self {
        Self { state: State::Ready(Some(Box::new(response))) }
    }

    pub(crate) fn waiting(future: impl Future<Output = Answer<B, E>> + Send + 'static) -> Self {
        Self { state: State::Waiting(Box::pin(future)) }
    }
}

// Nothing in it is pinned in place.
impl<B, E> Unpin for ResponseFuture<B, E> {}

impl<B, E> Future for ResponseFuture<B, E> {
    type Output = Answer<B, E>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.state {
            State::Ready(response) => match response.take() {
                Some(response) => Poll::Ready(Ok(*response)),
                // Polled after its end: like an ended stream, it never wakes again.
                None => Poll::Pending,
            },
            State::Waiting(future) => future.as_mut().poll(cx),
        }
    }
}

impl<B, E> fmt::Debug for ResponseFuture<B, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture")
            .field("ready", &matches!(self.state, State::Ready(_)))
            .finish()
    }
}
