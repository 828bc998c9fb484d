//! The admin API on its own listener: statistics, metrics, probes, purge, explain.
//!
//! It never shares a port, a router or a cache with the public listener. [`guard`] decides who may
//! come in before anything else looks at a request. Answers are never stored and never shown
//! inside another page.

mod asked;
mod explain;
mod guard;
mod metrics;
mod purge;
pub(crate) mod snapshot;

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse as _, Json};
use axum::routing::{get, post};
use http::header::{self, HeaderName};
use http::{HeaderValue, Request, Response, StatusCode};
use tachikoma_cache::Clock;
use tower::ServiceExt as _;

use crate::config::Secrets;
use crate::listener::{Handler, Peer};
use crate::problem::{method_not_allowed, problem};
use crate::throttle::Throttle;
use guard::Guard;
use snapshot::Sources;

/// Answered without a token: they say that the process lives, and nothing about what it holds.
const PROBES: [&str; 2] = ["/livez", "/readyz"];

/// On every answer: not stored, not framed, not guessed at, not followed elsewhere.
const PROTECTION: [(HeaderName, &str); 6] = [
    (header::CACHE_CONTROL, "no-store"),
    (header::CONTENT_SECURITY_POLICY, "default-src 'self'; frame-ancestors 'none'"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

/// The handler of the admin listener. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Admin {
    guard: Arc<Guard>,
    refusals: Arc<Throttle>,
    router: Router,
    sources: Arc<Sources>,
    clock: Arc<dyn Clock>,
}

impl Admin {
    /// `address` is where it listens: on loopback other rules hold than elsewhere.
    pub(crate) fn new(address: IpAddr, secrets: &Secrets, sources: Arc<Sources>) -> Self {
        let clock = Arc::clone(&sources.clock);
        let router = Router::new()
            .route("/stats", get(stats))
            .route("/metrics", get(metrics))
            .route("/livez", get(livez))
            .route("/readyz", get(readyz))
            .route("/explain", get(explain::explain))
            .route("/purge", post(purge::purge))
            .fallback(async || problem(StatusCode::NOT_FOUND, "There is nothing at this path."))
            .method_not_allowed_fallback(wrong_method)
            .with_state(Arc::clone(&sources));
        Self {
            guard: Arc::new(Guard::new(address, secrets)),
            refusals: Arc::default(),
            router,
            sources,
            clock,
        }
    }

    async fn answer(&self, request: Request<Body>) -> Response<Body> {
        let unknown = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        let peer = request.extensions().get::<Peer>().map_or(unknown, |peer| peer.address.ip());
        let probe = PROBES.contains(&request.uri().path());
        let (method, headers) = (request.method(), request.headers());
        let (named, now) = (request.uri().authority(), self.clock.now());
        if let Err(refusal) = self.guard.admit(method, named, headers, probe, peer, now) {
            if let Some(skipped) = self.refusals.pass(self.clock.now()) {
                let status = refusal.status.as_u16();
                tracing::warn!(%peer, status, skipped, "admin request refused");
            }
            let mut response = problem(refusal.status, refusal.detail);
            if refusal.status == StatusCode::UNAUTHORIZED {
                let scheme = HeaderValue::from_static("Bearer");
                response.headers_mut().insert(header::WWW_AUTHENTICATE, scheme);
            }
            return response;
        }
        if request.method().as_str() == "PURGE" {
            return purge::by_method(&self.sources, request.map(drop)).await;
        }
        let answered: Result<_, Infallible> = self.router.clone().oneshot(request).await;
        match answered {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }
}

impl Handler for Admin {
    async fn handle(&self, request: Request<Body>) -> Response<Body> {
        let mut response = self.answer(request).await;
        for (name, value) in PROTECTION {
            response.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        response
    }
}

async fn stats(State(sources): State<Arc<Sources>>) -> Response<Body> {
    Json(sources.snapshot()).into_response()
}

async fn metrics(State(sources): State<Arc<Sources>>) -> Response<Body> {
    match metrics::text(sources.snapshot()) {
        Ok(text) => ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response(),
        Err(_) => problem(StatusCode::INTERNAL_SERVER_ERROR, "The metrics cannot be written."),
    }
}

async fn livez() -> &'static str {
    "live\n"
}

/// Ready as long as requests are taken: without Redis they are answered too, only slower.
async fn readyz(State(sources): State<Arc<Sources>>) -> Response<Body> {
    if sources.draining.is_asked() {
        return problem(StatusCode::SERVICE_UNAVAILABLE, "The server is stopping.");
    }
    let status = if sources.is_degraded() { "degraded" } else { "ready" };
    let mut answer = serde_json::json!({ "status": status });
    if let Some(tier) = sources.tier() {
        answer["memory_tier"] = tier.into();
    }
    Json(answer).into_response()
}

async fn wrong_method(request: Request<Body>) -> Response<Body> {
    let allowed = if request.uri().path() == "/purge" { "POST" } else { "GET, HEAD" };
    method_not_allowed(allowed, "This method is not served here.")
}
