//! Serves one connection to its end: HTTP/1.1 or HTTP/2, each within the limits on clients.
//!
//! It bounds what a client may hold and for how long: the time for a head, for the next piece of a
//! body, for taking what is written, and what an HTTP/2 client may cost without asking for
//! anything. It knows nothing of what is served.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;

use axum::body::Body;
use http::{Request, Response, Version};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;

use super::budget::Within;
use super::interim::{InterimIo, Waiting};
use super::pulse::{Beat, Pulse, PulseBody};
use super::reading::Reading;
use super::sniff::{Speaks, sniff};
use super::{Handler, Link, Peer, Terms};
use crate::shutdown::Shutdown;
use crate::timed::{TimedBody, TimedWrite};

/// The number of fields that hyper has room for without an allocation.
const HYPERS_OWN_FIELDS: u16 = 100;

/// Requests that one HTTP/2 connection may have open at once.
const STREAMS: u32 = 128;

/// Bytes of a request body that an HTTP/2 client may send before they are read, per request and
/// for all.
const STREAM_WINDOW: u32 = 256 << 10;
const CONNECTION_WINDOW: u32 = 1 << 20;

/// Bytes of a response that wait to be taken by an HTTP/2 client, per request.
const SEND_BUFFER: usize = 256 << 10;

/// Streams that an HTTP/2 client may have reset for its own mistakes before its connection ends.
const OWN_ERRORS: usize = 64;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What a connection is served with.
pub(super) struct Serving<H> {
    pub(super) handler: H,
    pub(super) terms: Terms,
    pub(super) shutdown: Shutdown,
    pub(super) slot: Option<OwnedSemaphorePermit>,
}

/// Serves one connection.
pub(super) async fn serve<H: Handler>(stream: TcpStream, address: SocketAddr, serving: Serving<H>) {
    // Answers go out when they are ready, not when a packet is full.
    let _ = stream.set_nodelay(true);
    let Terms { limits, clock, .. } = serving.terms.clone();
    let stream = TimedWrite::new(stream, limits.body_timeout.0, Arc::clone(&clock));
    let mut shutdown = serving.shutdown.clone();
    // Until something was asked for, nothing is lost.
    let no_more = async {
        tokio::select! {
            () = shutdown.asked() => {}
            () = clock.sleep(limits.head_timeout.0) => {}
        }
    };
    let result = if let Some(tls) = serving.terms.tls.clone() {
        let accepted = tokio::select! {
            biased;
            accepted = tls.accept(stream) => accepted,
            () = no_more => return,
        };
        match accepted {
            Ok((true, stream)) => serving.http2(stream, address, true).await,
            Ok((false, stream)) => serving.http1(stream, address, true).await,
            Err(error) => Err(error.into()),
        }
    } else {
        let found = tokio::select! {
            biased;
            found = sniff(stream) => found,
            () = no_more => return,
        };
        match found {
            Ok((Speaks::Http1, stream)) => serving.http1(stream, address, false).await,
            Ok((Speaks::Http2, stream)) => serving.http2(stream, address, false).await,
            Err(error) => Err(error.into()),
        }
    };
    if let Err(error) = result {
        tracing::debug!(peer = %address, %error, "a connection ended early");
    }
}

impl<H: Handler> Serving<H> {
    async fn http1<S>(self, stream: S, address: SocketAddr, secure: bool) -> Result<(), BoxError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Self { handler, terms, mut shutdown, slot } = self;
        let limits = terms.limits;
        let waiting = Arc::new(Waiting::default());
        let io = TokioIo::new(InterimIo::new(stream, Arc::clone(&waiting)));
        let link = Arc::new(Link { tunnels: terms.tunnels.clone(), _slot: slot });
        let clock = terms.clock;
        let service = service_fn(move |request: Request<Incoming>| {
            let (handler, clock) = (handler.clone(), Arc::clone(&clock));
            let (waiting, link) = (Arc::clone(&waiting), Arc::clone(&link));
            async move {
                let mut request = request.map(|body| {
                    let timed = TimedBody::new(body, limits.body_timeout.0, clock);
                    Body::new(timed.paced().at_most(limits.body_bytes.0))
                });
                let interim = waiting.begin();
                // An HTTP/1.0 client would take it for the final one.
                let interim = (request.version() == Version::HTTP_11).then_some(interim);
                let peer = Peer { address, secure, interim, link: Some(link) };
                request.extensions_mut().insert(peer);
                let response = handler.handle(request).await;
                waiting.end();
                Ok::<_, Infallible>(response)
            }
        });
        let head_bytes = usize::try_from(limits.head_bytes.0).unwrap_or(usize::MAX);
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new())
            .half_close(terms.half_close)
            .header_read_timeout(limits.head_timeout.0)
            .max_header_size(head_bytes)
            .max_buf_size(head_bytes.max(64 << 10));
        if limits.head_fields != HYPERS_OWN_FIELDS {
            // Any other number costs an allocation per request.
            http.max_headers(usize::from(limits.head_fields));
        }
        let mut connection = pin!(http.serve_connection(io, service).with_upgrades());
        tokio::select! {
            biased;
            result = connection.as_mut() => return Ok(result?),
            () = shutdown.asked() => connection.as_mut().graceful_shutdown(),
        }
        Ok(connection.await?)
    }

    async fn http2<S>(self, stream: S, address: SocketAddr, secure: bool) -> Result<(), BoxError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Self { handler, terms, mut shutdown, slot: _slot } = self;
        let Terms { limits, clock, .. } = terms;
        let pulse = Arc::new(Pulse::default());
        let io = TokioIo::new(Reading::new(stream, Within::new(Arc::clone(&clock))));
        let (beating, timing) = (Arc::clone(&pulse), Arc::clone(&clock));
        let service = service_fn(move |request: Request<Incoming>| {
            let (handler, clock) = (handler.clone(), Arc::clone(&timing));
            let stream = beating.stream();
            async move {
                let mut request = request.map(|body| {
                    let timed = TimedBody::new(body, limits.body_timeout.0, clock);
                    Body::new(timed.paced().at_most(limits.body_bytes.0))
                });
                let peer = Peer { address, secure, interim: None, link: None };
                request.extensions_mut().insert(peer);
                let response: Response<Body> = handler.handle(request).await;
                Ok::<_, Infallible>(response.map(|body| PulseBody::new(body, stream)))
            }
        });
        let head_bytes = u32::try_from(limits.head_bytes.0).unwrap_or(u32::MAX);
        let mut http = http2::Builder::new(TokioExecutor::new());
        http.timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS)
            .max_header_list_size(head_bytes)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_send_buf_size(SEND_BUFFER)
            .max_local_error_reset_streams(OWN_ERRORS)
            .keep_alive_interval(limits.body_timeout.0)
            .keep_alive_timeout(limits.head_timeout.0);
        let mut connection = pin!(http.serve_connection(io, service));
        let mut closing = false;
        let mut beat = pulse.beat();
        loop {
            let limit = if pulse.is_idle() { limits.head_timeout.0 } else { limits.body_timeout.0 };
            tokio::select! {
                biased;
                result = connection.as_mut() => return Ok(result?),
                () = shutdown.asked(), if !closing => {
                    closing = true;
                    connection.as_mut().graceful_shutdown();
                }
                () = clock.sleep(limit) => match pulse.since(&mut beat) {
                    // What moves keeps only itself.
                    Beat::Alive => pulse.end_untaken(limit),
                    Beat::Idle if !closing => {
                        closing = true;
                        connection.as_mut().graceful_shutdown();
                    }
                    // It takes nothing of what it asked for, or does not even say goodbye.
                    Beat::Idle | Beat::Stalled => return Err("its client stalled".into()),
                },
            }
        }
    }
}
