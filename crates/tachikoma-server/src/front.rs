//! The public listener's handler: who answers a request, and what is counted and logged of it.
//!
//! `/api` goes to the reference API when that is on, everything else to the upstream when there is
//! one, else it is 404. The admin API is not reachable from here: it is another handler on another
//! listener.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::Body;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use tachikoma_cache::Clock;
use tower::ServiceExt as _;
use tower::util::BoxCloneSyncService;

use crate::access_log::{AccessLog, Line};
use crate::listener::{Handler, Peer};
use crate::observed::ObservedBody;
use crate::problem::{method_not_allowed, problem};
use crate::proxy::fields::{drop_claims, is_only_chunked};
use crate::proxy::{about_this_server, target};
use crate::traffic::Traffic;

/// A service that answers a part of the public paths.
pub(crate) type Route = BoxCloneSyncService<Request<Body>, Response<Body>, Infallible>;

/// The handler of the public listener. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Front(Arc<Inner>);

struct Inner {
    api: Option<Route>,
    upstream: Option<Route>,
    own_host: HeaderValue,
    traffic: Arc<Traffic>,
    log: AccessLog,
    clock: Arc<dyn Clock>,
}

impl Front {
    /// `own_host` stands in for the `Host` that an HTTP/1.0 request may leave out.
    pub(crate) fn new(
        api: Option<Route>,
        upstream: Option<Route>,
        own_host: HeaderValue,
        traffic: Arc<Traffic>,
        log: AccessLog,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self(Arc::new(Inner { api, upstream, own_host, traffic, log, clock }))
    }

    async fn answer(&self, mut request: Request<Body>) -> Response<Body> {
        if let Err(refusal) = target::normalise(&mut request, &self.0.own_host) {
            return if refusal.status == StatusCode::METHOD_NOT_ALLOWED {
                method_not_allowed(target::ALLOWED_METHODS, refusal.detail)
            } else {
                problem(refusal.status, refusal.detail)
            };
        }
        if !is_only_chunked(request.headers()) {
            let detail = "No transfer coding but chunked is understood here.";
            return problem(StatusCode::NOT_IMPLEMENTED, detail);
        }
        drop_claims(request.headers_mut());
        let path = request.uri().path();
        if path == "*" {
            return about_this_server();
        }
        let is_api = path == "/api" || path.starts_with("/api/");
        let route = match (&self.0.api, &self.0.upstream) {
            (Some(api), _) if is_api => api,
            (_, Some(upstream)) => upstream,
            _ => return problem(StatusCode::NOT_FOUND, "There is nothing at this path."),
        };
        match route.clone().oneshot(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }
}

impl Handler for Front {
    async fn handle(&self, request: Request<Body>) -> Response<Body> {
        let Inner { traffic, log, clock, .. } = &*self.0;
        let started = clock.now();
        let line = log.is_on().then(|| {
            let peer = request.extensions().get::<Peer>().map(|peer| peer.0.ip());
            Line::of_request(&request, peer, clock.wall())
        });
        let counted = traffic.begin();
        let is_head = request.method() == Method::HEAD;
        let response = self.answer(request).await;
        counted.answered(response.status());
        let line = line.map(|line| line.with_response(&response));
        let (log, clock) = (log.clone(), Arc::clone(clock));
        response.map(|body| {
            Body::new(ObservedBody::new(body, move |sent, complete| {
                // Of the body that HEAD only announces, nothing is asked for.
                let complete = complete || is_head;
                counted.ended(sent, complete);
                if let Some(line) = line {
                    log.write(&line, sent, complete, clock.now().since(started));
                }
            }))
        })
    }
}
