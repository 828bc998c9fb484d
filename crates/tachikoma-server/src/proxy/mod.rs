//! Forwards requests to the upstreams and their answers back.
//!
//! It decides who answers for a request and whether it goes round in circles; one upstream is
//! spoken to in [`origin`]. It does not decide what is cached: the response cache stands in front
//! of it.

mod failure;
pub(crate) mod fields;
mod forwarded;
pub(crate) mod forwarding;
mod gate;
mod held;
mod interim;
mod loops;
mod origin;
mod routes;
pub(crate) mod target;
pub(crate) mod upgrade;
mod upload;

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::Body;
use futures_util::future::BoxFuture;
use http::header::HOST;
use http::{HeaderValue, Request, Response, StatusCode, header};
use tachikoma_cache::Clock;

use crate::config;
use crate::problem::problem;
use crate::tls::Trust;
use loops::Identity;
use origin::Origin;
use routes::{Nobody, Routes};
use target::Refusal;
use upload::Uploads;

/// The `tower` service that forwards to the upstreams. Cheap to clone; clones share connections.
#[derive(Clone)]
pub(crate) struct Proxy(Arc<Inner>);

struct Inner {
    routes: Routes<Arc<Origin>>,
    identity: Identity,
}

impl Proxy {
    /// A proxy to these origins; `random` tells this process from others like it.
    ///
    /// # Errors
    ///
    /// An upstream within TLS has no name that a certificate could have.
    pub(crate) fn new(
        origins: &[config::upstreams::Origin],
        trust: Option<&Trust>,
        random: u64,
        clock: &Arc<dyn Clock>,
    ) -> anyhow::Result<Self> {
        let (mut rows, uploads) = (Vec::with_capacity(origins.len()), Uploads::new());
        for settings in origins {
            let origin =
                Arc::new(Origin::new(settings, trust, uploads.clone(), Arc::clone(clock))?);
            rows.push((settings.hosts.clone(), settings.path_prefix.clone(), origin));
        }
        let inner = Inner { routes: Routes::new(rows), identity: Identity::new(random) };
        Ok(Self(Arc::new(inner)))
    }

    /// Refuses what was here before and what is for nobody here.
    ///
    /// Asked before the response cache is: it has nothing for either.
    pub(crate) fn check<B>(&self, request: &Request<B>) -> Result<(), Refusal> {
        if self.0.identity.has_seen(request.headers()) {
            let detail = "This request was here before: two servers lead to each other.";
            return Err(Refusal { status: StatusCode::LOOP_DETECTED, detail });
        }
        self.origin(request).map(|_| ())
    }

    fn origin<B>(&self, request: &Request<B>) -> Result<&Origin, Refusal> {
        let host = request.headers().get(HOST).and_then(|host| host.to_str().ok());
        let found = self.0.routes.find(host.unwrap_or_default(), request.uri().path());
        found.map(AsRef::as_ref).map_err(|nobody| match nobody {
            Nobody::Path => {
                Refusal { status: StatusCode::NOT_FOUND, detail: "There is nothing at this path." }
            }
            Nobody::Host => Refusal {
                status: StatusCode::MISDIRECTED_REQUEST,
                detail: "This host is not served here.",
            },
        })
    }

    async fn forward(&self, mut request: Request<Body>) -> Response<Body> {
        self.0.identity.mark(request.headers_mut());
        match self.origin(&request) {
            Ok(origin) => origin.forward(request).await,
            Err(refusal) => problem(refusal.status, refusal.detail),
        }
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
