//! One upstream: connects to it, forwards requests and its answers, streaming both ways.
//!
//! It connects nowhere else, whatever a request names. A body that breaks off at the origin breaks
//! off at the client, so that nobody takes a part for the whole; a head that two recipients could
//! read differently is answered with 502, and its connection is not used again.
//!
//! The upstream may close a kept connection just when it is used again (RFC 9112 §9.3.1). What
//! means the same twice is asked once more then (RFC 9110 §9.2.2), with its body if that is short;
//! other methods never are. A body that could not be sent again has a connection of its own.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum::body::Body;
use http::header::CONNECTION;
use http::request::Parts;
use http::uri::{Authority, Scheme};
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, Version};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::capture_connection;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tachikoma_cache::Clock;
use tachikoma_http_cache::EndUnproved;
use tachikoma_http_cache::policy::fields::remove_hop_by_hop;
use tokio::sync::Notify;

use super::failure::Failure;
use super::forwarding::Forwarding;
use super::gate::{Gate, Pass};
use super::held::HeldBody;
use super::upgrade::{self, Wanted};
use super::upload::{Upload, Uploads};
use super::{fields, interim};
use crate::config;
use crate::listener::{Interim, Link, Peer};
use crate::throttle::Throttle;
use crate::timed::TimedBody;
use crate::tls::{self, Connector, Trust};

/// How long a connection to the upstream is kept for the next request. Many servers close theirs
/// after five seconds, and what is sent on one just then is lost.
const KEPT_IDLE: Duration = Duration::from_secs(4);

/// Connections that are kept at most.
const MOST_KEPT: usize = 256;

/// What means the same when it is asked twice (RFC 9110 §9.2.2).
const IDEMPOTENT: [Method; 5] =
    [Method::GET, Method::HEAD, Method::OPTIONS, Method::PUT, Method::DELETE];

pub(super) struct Origin {
    name: String,
    scheme: Scheme,
    authority: Authority,
    /// Keeps connections for the next request.
    kept: Client<Connector, Body>,
    /// Has a new connection for each request.
    single: Client<Connector, Body>,
    terms: config::Proxy,
    uploads: Uploads,
    gate: Gate,
    clock: Arc<dyn Clock>,
    failures: Throttle,
}

impl Origin {
    pub(super) fn new(
        settings: &config::upstreams::Origin,
        trust: Option<&Trust>,
        uploads: Uploads,
        clock: Arc<dyn Clock>,
    ) -> anyhow::Result<Self> {
        let terms = settings.terms;
        let shown = settings.url.is_secure().then(|| settings.url.host());
        let connector = tls::connect_to(shown, trust, terms.connect_timeout.0)
            .with_context(|| format!("{}: {}", settings.name, settings.url))?;
        let mut kept = Client::builder(TokioExecutor::new());
        kept.pool_timer(TokioTimer::new())
            .pool_idle_timeout(KEPT_IDLE)
            .pool_max_idle_per_host(MOST_KEPT)
            .set_host(false);
        let mut single = Client::builder(TokioExecutor::new());
        single.pool_max_idle_per_host(0).set_host(false);
        Ok(Self {
            name: settings.name.clone(),
            scheme: if settings.url.is_secure() { Scheme::HTTPS } else { Scheme::HTTP },
            authority: settings.url.authority().clone(),
            kept: kept.build(connector.clone()),
            single: single.build(connector),
            terms,
            uploads,
            gate: Gate::new(&terms),
            clock,
            failures: Throttle::default(),
        })
    }

    /// Forwards a request, and answers for the upstream when it does not.
    pub(super) async fn forward(&self, request: Request<Body>) -> Response<Body> {
        match self.exchange(request).await {
            Ok(response) => response,
            Err(failure) => {
                if let Some(skipped) = self.failures.pass(self.clock.now()) {
                    let upstream = &self.name;
                    tracing::warn!(%upstream, cause = %failure, skipped, "no response");
                }
                failure.response()
            }
        }
    }

    async fn exchange(&self, request: Request<Body>) -> Result<Response<Body>, Failure> {
        let (mut parts, body) = request.into_parts();
        // First, so that a slow client keeps nobody else out.
        let upload = self.uploads.take(body).await?;
        let pass = self.gate.enter(&*self.clock).await.map_err(|_| Failure::Full)?;
        let is_head = parts.method == Method::HEAD;
        let peer = parts.extensions.remove::<Peer>();
        let wanted = parts.extensions.remove::<Wanted>();
        let client = parts.extensions.remove::<OnUpgrade>();
        let direct = || Some(Forwarding::direct(peer.as_ref()?.address.ip()));
        let way = parts.extensions.remove::<Forwarding>().or_else(direct);
        let secure = parts.uri.scheme() == Some(&Scheme::HTTPS);
        fields::add_forwarding(&mut parts.headers, way.as_ref(), secure, parts.version);
        if let Some(wanted) = &wanted {
            wanted.ask(&mut parts.headers);
        }
        let (interim, link) = peer.map_or((None, None), |peer| (peer.interim, peer.link));
        let mut uri = parts.uri.into_parts();
        uri.scheme = Some(self.scheme.clone());
        uri.authority = Some(self.authority.clone());
        parts.uri = Uri::from_parts(uri).map_err(|_| Failure::BadTarget)?;
        parts.version = Version::HTTP_11;
        let response = self.send(parts, upload, interim).await?;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            let switch = wanted.zip(client).zip(link).ok_or(Failure::Unasked)?;
            let ((wanted, client), link) = switch;
            let protocol = wanted.is_met_by(response.headers()).ok_or(Failure::Unasked)?;
            return Ok(self.switch(response, protocol, client, link, pass));
        }
        Ok(self.answer(response, is_head, pass))
    }

    /// Passes the connection on. The pass is given back at its end.
    fn switch(
        &self,
        mut response: Response<Incoming>,
        protocol: HeaderValue,
        client: OnUpgrade,
        link: Arc<Link>,
        pass: Pass,
    ) -> Response<Body> {
        let upstream = hyper::upgrade::on(&mut response);
        let open = link.tunnels.open();
        let tunnel = upgrade::tunnel(client, upstream, open, Arc::clone(&self.clock));
        tokio::spawn(async move {
            tunnel.await;
            drop((link, pass));
        });
        let received = response.version();
        let mut response = response.map(|_| Body::empty());
        remove_hop_by_hop(response.headers_mut());
        fields::add_via(response.headers_mut(), received);
        upgrade::switch_to(response.headers_mut(), protocol);
        response
    }

    /// Sends the request on the right kind of connection, and once more where a kept one was lost.
    async fn send(
        &self,
        parts: Parts,
        upload: Upload,
        client: Option<Interim>,
    ) -> Result<Response<Incoming>, Failure> {
        let (body, _room) = match upload {
            Upload::Whole(body, room) => (body, room),
            Upload::Streamed(body) => return self.alone(parts, body, client).await,
        };
        let again = IDEMPOTENT.contains(&parts.method).then(|| parts.clone());
        let first = Request::from_parts(parts, Body::from(body.clone()));
        match (self.once(&self.kept, first, client.clone()).await, again) {
            // Others that are kept may be lost too.
            (Err(Failure::Closed(_)), Some(again)) => {
                self.alone(again, Body::from(body), client).await
            }
            (result, _) => result,
        }
    }

    /// Sends the request on a connection that no other has.
    async fn alone(
        &self,
        mut parts: Parts,
        body: Body,
        client: Option<Interim>,
    ) -> Result<Response<Incoming>, Failure> {
        // Who is told so ends it first (RFC 9112 §9.6). One that is to become a tunnel says that.
        let close = HeaderValue::from_static("close");
        parts.headers.entry(CONNECTION).or_insert(close);
        self.once(&self.single, Request::from_parts(parts, body), client).await
    }

    /// Sends the request and waits for the head of the response, which must be one that can be
    /// passed on. The time for it begins anew with each piece of the request body, so that a long
    /// upload is not cut off.
    async fn once(
        &self,
        over: &Client<Connector, Body>,
        mut request: Request<Body>,
        client: Option<Interim>,
    ) -> Result<Response<Incoming>, Failure> {
        let progress = Arc::new(Notify::new());
        let connection = capture_connection(&mut request);
        let flood = interim::pass_on(&mut request, client);
        let request = if request.body().is_end_stream() {
            request
        } else {
            // Its own pieces are timed where the client's connection is served.
            let day = Duration::from_secs(86_400);
            request.map(|body| {
                let timed = TimedBody::new(body, day, Arc::clone(&self.clock));
                Body::new(timed.telling(Arc::clone(&progress)))
            })
        };
        let mut response = std::pin::pin!(over.request(request));
        let limit = self.terms.head_timeout.0;
        let response = loop {
            tokio::select! {
                biased;
                () = flood.notified() => break Err(Failure::InterimFlood),
                response = &mut response => break response.map_err(Failure::from_client),
                () = progress.notified() => {}
                () = self.clock.sleep(limit) => break Err(Failure::HeadTimeout),
            }
        };
        let checked = response.and_then(checked);
        if checked.is_err()
            && let Some(connection) = connection.connection_metadata().as_ref()
        {
            // Where this answer ends is not known, so neither is where the next one begins.
            connection.poison();
        }
        checked
    }

    /// What the client gets of an answer. The pass is given back with the end of the body.
    fn answer(&self, response: Response<Incoming>, is_head: bool, pass: Pass) -> Response<Body> {
        let ends_with_connection = !is_head && fields::is_unframed(&response);
        let received = response.version();
        let mut response = response.map(|body| {
            if body.is_end_stream() {
                return Body::empty();
            }
            let limit = self.terms.body_timeout.0;
            let timed = TimedBody::new(body, limit, Arc::clone(&self.clock));
            Body::new(HeldBody::new(timed, pass))
        });
        remove_hop_by_hop(response.headers_mut());
        fields::add_via(response.headers_mut(), received);
        if ends_with_connection {
            // A part looks like the whole then, so nobody may keep it.
            response.extensions_mut().insert(EndUnproved);
        }
        response
    }
}

/// Refuses a head that must not be passed on.
fn checked(mut response: Response<Incoming>) -> Result<Response<Incoming>, Failure> {
    // Whether somebody asked to switch is seen later; the others are no answers.
    let status = response.status();
    if status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS {
        return Err(Failure::Unasked);
    }
    // Other codings than `chunked` were not asked for, and their bytes would be taken for the
    // content once the field that names them is gone.
    if !fields::is_only_chunked(response.headers()) {
        return Err(Failure::Coding);
    }
    fields::settle_length(&mut response).map_err(|_| Failure::Misframed)?;
    fields::check_named(response.headers()).map_err(|_| Failure::NamesEndToEnd)?;
    Ok(response)
}
