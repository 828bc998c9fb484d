//! The service: answers from memory at once, and hands everything else to
//! [`exchange`](crate::exchange).

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body::Body;
use tachikoma_cache::Time;
use tower_service::Service;

use crate::{
    body::CacheBody,
    exchange::{self, Asked, Verdict},
    feed::BoxError,
    future::ResponseFuture,
    handle::Shared,
    policy::{decision::Bypass, request::admit},
    tickets,
};

/// A service with an HTTP cache in front; made by [`HttpCacheLayer`](crate::HttpCacheLayer).
#[derive(Debug, Clone)]
pub struct HttpCacheService<S> {
    inner: S,
    shared: Arc<Shared>,
    /// Whether tickets of requests are heeded.
    tickets: bool,
}

impl<S> HttpCacheService<S> {
    pub(crate) fn new(inner: S, shared: Arc<Shared>, tickets: bool) -> Self {
        Self { inner, shared, tickets }
    }

    /// Answers a request, with nothing that began before `since`.
    fn answer<B, R>(
        &mut self,
        mut request: Request<B>,
        since: Option<Time>,
    ) -> ResponseFuture<R, S::Error>
    where
        S: Service<Request<B>, Response = Response<R>> + Clone + Send + 'static,
        S::Future: Send + 'static,
        S::Error: Send + 'static,
        B: Body + Send + 'static,
        R: Body<Data = Bytes> + Send + 'static,
        R::Error: Into<BoxError>,
    {
        let shared = Arc::clone(&self.shared);
        let has_body = !request.body().is_end_stream();
        let (target, options) = shared.target(&mut request);
        let headers = request.headers();
        let admitted = admit(request.method(), headers, has_body, &options);
        let (target, facts) = match (target, admitted) {
            (Some(target), Err(Bypass::Method)) if request.method() == Method::POST => {
                let inner = self.inner.clone();
                return ResponseFuture::waiting(exchange::post(
                    shared, inner, request, target, options,
                ));
            }
            (target, Err(why)) => {
                let inner = self.inner.clone();
                return ResponseFuture::waiting(exchange::pass(
                    shared, inner, request, why, target,
                ));
            }
            (None, Ok(_)) => {
                let (inner, why) = (self.inner.clone(), Bypass::Target);
                return ResponseFuture::waiting(exchange::pass(shared, inner, request, why, None));
            }
            (Some(target), Ok(facts)) => (target, facts),
        };
        let asked = Asked { key: target.key(), facts, options, since };
        if let Some(found) = shared.storage.peek(&asked.key, headers, &asked.facts)
            && let Verdict::Answer(decision, stored) =
                exchange::verdict(found, headers, &asked.facts, shared.now())
            && let Some(stored) = stored.response()
        {
            shared.decided(&decision);
            let (is_head, now) = (asked.facts.head, shared.now());
            let response = crate::answer::from_stored(stored, headers, is_head, now, &decision);
            return ResponseFuture::ready(response);
        }
        ResponseFuture::waiting(exchange::run(shared, self.inner.clone(), request, asked))
    }
}

impl<S, B, R> Service<Request<B>> for HttpCacheService<S>
where
    S: Service<Request<B>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
    B: Body + Send + 'static,
    R: Body<Data = Bytes> + Send + 'static,
    R::Error: Into<BoxError>,
{
    type Response = Response<CacheBody<R>>;
    type Error = S::Error;
    type Future = ResponseFuture<R, S::Error>;

    /// Always ready: a hit needs nothing of the inner service, and a miss waits for a clone of it.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let cache = self.shared.entries().cache();
        let ticket = if self.tickets { tickets::of(request.headers(), cache) } else { None };
        let Some(ticket) = ticket else { return self.answer(request, None) };
        let mut service = self.clone();
        ResponseFuture::waiting(async move {
            let since = service.shared.entries().cache().honour(ticket).await;
            service.answer(request, Some(since)).await
        })
    }
}
