//! Forwards requests to the one upstream and its answers back, streaming both ways.
//!
//! It connects nowhere else, whatever a request names. It does not decide what is cached: the
//! response cache stands in front of it. A body that breaks off at the origin breaks off at the
//! client, so that nobody takes a part for the whole.

mod failure;
pub(crate) mod fields;
pub(crate) mod target;

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::Body;
use futures_util::future::BoxFuture;
use http::uri::{Authority, Scheme};
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, Version, header};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tachikoma_cache::Clock;
use tachikoma_http_cache::EndUnproved;
use tokio::sync::Notify;

use crate::config;
use crate::config::values::Upstream;
use crate::listener::Peer;
use crate::problem::problem;
use crate::throttle::Throttle;
use crate::timed::TimedBody;
use failure::Failure;

/// How long a connection to the upstream is kept for the next request.
const KEPT_IDLE: std::time::Duration = std::time::Duration::from_secs(30);

/// The `tower` service that forwards to the upstream. Cheap to clone; clones share connections.
#[derive(Clone)]
pub(crate) struct Proxy {
    client: Client<HttpConnector, Body>,
    upstream: Authority,
    waits: config::Proxy,
    clock: Arc<dyn Clock>,
    failures: Arc<Throttle>,
}

impl Proxy {
    pub(crate) fn new(upstream: &Upstream, waits: config::Proxy, clock: Arc<dyn Clock>) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(waits.connect_timeout.0));
        connector.set_nodelay(true);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(KEPT_IDLE)
            .pool_max_idle_per_host(256)
            .set_host(false)
            .build(connector);
        Self {
            client,
            upstream: upstream.authority().clone(),
            waits,
            clock,
            failures: Arc::default(),
        }
    }

    async fn forward(&self, mut request: Request<Body>) -> Response<Body> {
        if fields::strip_hop_by_hop(request.headers_mut()).is_err() {
            return problem(
                StatusCode::BAD_REQUEST,
                "Connection names a field that is not for this connection alone.",
            );
        }
        let peer = request.extensions().get::<Peer>().map(|peer| peer.0);
        let received = request.version();
        fields::add_forwarding(request.headers_mut(), peer, received);
        match self.exchange(request).await {
            Ok(response) => response,
            Err(failure) => {
                if let Some(skipped) = self.failures.pass(self.clock.now()) {
                    let upstream = &self.upstream;
                    tracing::warn!(%upstream, cause = %failure, skipped, "no response");
                }
                failure.response()
            }
        }
    }

    async fn exchange(&self, request: Request<Body>) -> Result<Response<Body>, Failure> {
        let (mut parts, body) = request.into_parts();
        let is_head = parts.method == Method::HEAD;
        let mut uri = parts.uri.into_parts();
        uri.scheme = Some(Scheme::HTTP);
        uri.authority = Some(self.upstream.clone());
        parts.uri = Uri::from_parts(uri).map_err(|_| Failure::BadTarget)?;
        parts.version = Version::HTTP_11;
        // The upstream may close a kept connection just when it is used again. Asking once more is
        // right where asking twice means the same and the body is not spent (RFC 9110 §9.2.2).
        let again = [Method::GET, Method::HEAD, Method::OPTIONS].contains(&parts.method)
            && body.is_end_stream();
        let retry = again.then(|| parts.clone());
        let first = self.send(Request::from_parts(parts, body)).await;
        match (first, retry) {
            (Err(Failure::Closed(_)), Some(parts)) => {
                self.send(Request::from_parts(parts, Body::empty())).await
            }
            (result, _) => result,
        }
        .and_then(|response| self.answer(response, is_head))
    }

    /// Sends the request and waits for the head of the response. The time for it begins anew with
    /// each piece of the request body, so that a long upload is not cut off.
    async fn send(&self, request: Request<Body>) -> Result<Response<Incoming>, Failure> {
        let progress = Arc::new(Notify::new());
        let limit = self.waits.head_timeout.0;
        let request = if request.body().is_end_stream() {
            request
        } else {
            // Its own pieces are timed where the client's connection is served.
            let day = std::time::Duration::from_secs(86_400);
            request.map(|body| {
                let timed = TimedBody::new(body, day, Arc::clone(&self.clock));
                Body::new(timed.telling(Arc::clone(&progress)))
            })
        };
        let mut response = std::pin::pin!(self.client.request(request));
        loop {
            tokio::select! {
                biased;
                response = &mut response => return response.map_err(Failure::from_client),
                () = progress.notified() => {}
                () = self.clock.sleep(limit) => return Err(Failure::HeadTimeout),
            }
        }
    }

    fn answer(
        &self,
        response: Response<Incoming>,
        is_head: bool,
    ) -> Result<Response<Body>, Failure> {
        // Nobody asked to switch: `Upgrade` ends at this hop.
        if response.status().is_informational() {
            return Err(Failure::Unasked);
        }
        // Other codings than `chunked` were not asked for, and their bytes would be taken for the
        // content once the field that names them is gone.
        if !fields::is_only_chunked(response.headers()) {
            return Err(Failure::Coding);
        }
        let ends_with_connection = !is_head && fields::is_unframed(&response);
        let received = response.version();
        let mut response = response.map(|body| {
            let limit = self.waits.body_timeout.0;
            Body::new(TimedBody::new(body, limit, Arc::clone(&self.clock)))
        });
        fields::strip_hop_by_hop(response.headers_mut()).map_err(|_| Failure::NamesEndToEnd)?;
        fields::add_via(response.headers_mut(), received);
        if ends_with_connection {
            // A part looks like the whole then, so nobody may keep it.
            response.extensions_mut().insert(EndUnproved);
        }
        Ok(response)
    }
}

impl tower::Service<Request<Body>> for Proxy {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let proxy = self.clone();
        Box::pin(async move { Ok(proxy.forward(request).await) })
    }
}

/// Answers `OPTIONS *`, which asks about this server and not about a resource (RFC 9110 §9.3.7).
pub(crate) fn about_this_server() -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let allow = HeaderValue::from_static(target::ALLOWED_METHODS);
    response.headers_mut().insert(header::ALLOW, allow);
    response
}
