//! The public listener's handler: who answers a request, and what is counted and logged of it.
//!
//! `/api` goes to the reference API when that is on, everything else to the upstream when there is
//! one, else it is 404. The admin API is not reachable from here: it is another handler on another
//! listener.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::Body;
use http::header::CONNECTION;
use http::{HeaderValue, Method, Request, Response, StatusCode, Version};
use tachikoma_cache::Clock;
use tower::ServiceExt as _;
use tower::util::BoxCloneSyncService;

use crate::access_log::{AccessLog, Line, Source};
use crate::config::Limits;
use crate::config::networks::TrustedProxies;
use crate::listener::{Handler, Peer};
use crate::observed::ObservedBody;
use crate::problem::{method_not_allowed, problem};
use crate::proxy::fields::{drop_claims, is_only_chunked, join_crumbs, strip_hop_by_hop};
use crate::proxy::forwarding::Forwarding;
use crate::proxy::target::{self, Refusal};
use crate::proxy::{Proxy, about_this_server, upgrade};
use crate::traffic::Traffic;

/// A service that answers a part of the public paths.
pub(crate) type Route = BoxCloneSyncService<Request<Body>, Response<Body>, Infallible>;

/// The handler of the public listener. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Front(Arc<Inner>);

/// The upstreams, behind the response cache.
#[derive(Clone)]
pub(crate) struct Upstreams {
    pub(crate) cached: Route,
    pub(crate) direct: Route,
    pub(crate) proxy: Proxy,
}

/// What the settings say of requests that come in.
pub(crate) struct Admission {
    pub(crate) limits: Limits,
    /// Stands in for the `Host` that an HTTP/1.0 request may leave out.
    pub(crate) own_host: HeaderValue,
    /// Who is believed where a request came from.
    pub(crate) trusted: TrustedProxies,
}

struct Inner {
    api: Option<Route>,
    upstreams: Option<Upstreams>,
    admission: Admission,
    traffic: Arc<Traffic>,
    log: AccessLog,
    clock: Arc<dyn Clock>,
}

impl Front {
    pub(crate) fn new(
        api: Option<Route>,
        upstreams: Option<Upstreams>,
        admission: Admission,
        traffic: Arc<Traffic>,
        log: AccessLog,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self(Arc::new(Inner { api, upstreams, admission, traffic, log, clock }))
    }

    async fn answer(&self, mut request: Request<Body>, way: Option<Forwarding>) -> Response<Body> {
        let version = request.version();
        let wanted = upgrade::wanted(&request);
        let secure = request.extensions().get::<Peer>().is_some_and(|peer| peer.secure);
        let Admission { limits, own_host, .. } = &self.0.admission;
        let admitted = admit(&mut request, limits, own_host, secure);
        let admitted = admitted.and_then(|()| way.map_or(Ok(()), |way| way.apply(&mut request)));
        if let Err(refusal) = admitted {
            return last(refused(refusal), version);
        }
        let path = request.uri().path();
        if path == "*" {
            return about_this_server();
        }
        let is_api = path == "/api" || path.starts_with("/api/");
        let route = match (&self.0.api, &self.0.upstreams) {
            (Some(api), _) if is_api => api,
            (_, Some(upstreams)) => match upstreams.proxy.check(&request) {
                Ok(()) => match wanted {
                    // A connection that becomes another protocol's is nothing to be cached.
                    Some(wanted) => {
                        request.extensions_mut().insert(wanted);
                        &upstreams.direct
                    }
                    None => &upstreams.cached,
                },
                Err(refusal) => return refused(refusal),
            },
            _ => return problem(StatusCode::NOT_FOUND, "There is nothing at this path."),
        };
        match route.clone().oneshot(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }
}

/// Refuses what two servers could read differently, and removes what ends at this hop, so that
/// the response cache decides about the very request that is forwarded.
///
/// `own_host` stands in for a `Host` that may be left out; `secure`: it came over TLS.
pub(crate) fn admit(
    request: &mut Request<Body>,
    limits: &Limits,
    own_host: &HeaderValue,
    secure: bool,
) -> Result<(), Refusal> {
    target::bounded(request, limits)?;
    target::normalise(request, own_host, secure)?;
    if !is_only_chunked(request.headers()) {
        return Err(Refusal {
            status: StatusCode::NOT_IMPLEMENTED,
            detail: "No transfer coding but chunked is understood here.",
        });
    }
    strip_hop_by_hop(request.headers_mut()).map_err(|_| Refusal {
        status: StatusCode::BAD_REQUEST,
        detail: "Connection names a field that is not for this connection alone.",
    })?;
    drop_claims(request.headers_mut());
    if request.version() == Version::HTTP_2 {
        join_crumbs(request.headers_mut());
    }
    Ok(())
}

/// The answer to a request that is not served.
pub(crate) fn refused(refusal: Refusal) -> Response<Body> {
    if refusal.status == StatusCode::METHOD_NOT_ALLOWED {
        return method_not_allowed(target::ALLOWED_METHODS, refusal.detail);
    }
    problem(refusal.status, refusal.detail)
}

/// The last answer on its connection: what follows a request that is refused for its form may be
/// a part of it.
fn last(mut response: Response<Body>, version: Version) -> Response<Body> {
    // HTTP/2 has other means, and no such field.
    if version <= Version::HTTP_11 {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

impl Handler for Front {
    async fn handle(&self, request: Request<Body>) -> Response<Body> {
        let Inner { admission, traffic, log, clock, .. } = &*self.0;
        let started = clock.now();
        let peer = request.extensions().get::<Peer>().map(|peer| peer.address.ip());
        let way =
            peer.and_then(|peer| Forwarding::believed(request.headers(), peer, &admission.trusted));
        let line = log.is_on().then(|| {
            let client = way.as_ref().and_then(Forwarding::client).or(peer);
            let source = Source { peer, client };
            Line::of_request(&request, source, clock.wall(), log.has_queries())
        });
        let counted = traffic.begin();
        let is_head = request.method() == Method::HEAD;
        let response = self.answer(request, way).await;
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
