//! Takes connections, bounds what a client may hold, and drains them at shutdown.
//!
//! It knows nothing of what is served: a handler gets each request with its peer's address.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum::body::Body;
use futures_util::FutureExt as _;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tachikoma_cache::Clock;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::config::Limits;
use crate::shutdown::Shutdown;
use crate::timed::{TimedBody, TimedWrite};

/// The address a request came from, among its extensions.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer(pub(crate) SocketAddr);

/// The number of fields that hyper has room for without an allocation.
const HYPERS_OWN_FIELDS: u16 = 100;

/// Connections that the admin listener holds at once.
const ADMIN_CONNECTIONS: u32 = 64;

/// How long answers of the admin listener may take when the server stops.
const ADMIN_DRAIN: Duration = Duration::from_secs(1);

/// Answers requests.
pub(crate) trait Handler: Clone + Send + Sync + 'static {
    fn handle(&self, request: Request<Body>) -> impl Future<Output = Response<Body>> + Send;
}

/// Binds the listener that the setting `name` asks for.
///
/// # Errors
///
/// The address is in use, is not of this machine, or needs more rights; said with the setting.
pub(crate) async fn bind(name: &str, address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => anyhow::anyhow!(
            "{name}: {address} is in use by another process; stop it or choose another port"
        ),
        io::ErrorKind::AddrNotAvailable => {
            anyhow::anyhow!("{name}: {address} is not an address of this machine")
        }
        io::ErrorKind::PermissionDenied => anyhow::anyhow!(
            "{name}: {address} needs more rights; ports from 1024 on are free for all"
        ),
        _ => anyhow::Error::new(error).context(format!("{name}: {address} cannot be listened on")),
    })
}

/// How connections are held.
#[derive(Clone)]
pub(crate) struct Terms {
    pub(crate) limits: Limits,
    pub(crate) drain: Duration,
    pub(crate) clock: Arc<dyn Clock>,
    /// Permits for open connections; what is not available is open.
    pub(crate) slots: Arc<Semaphore>,
}

impl Terms {
    pub(crate) fn new(limits: Limits, drain: Duration, clock: Arc<dyn Clock>) -> Self {
        let slots = Arc::new(Semaphore::new(limits.connections as usize));
        Self { limits, drain, clock, slots }
    }

    /// The terms of the admin listener: few clients, who are not waited for.
    pub(crate) fn for_admin(&self) -> Self {
        let limits = Limits { connections: ADMIN_CONNECTIONS, ..self.limits };
        Self::new(limits, ADMIN_DRAIN, Arc::clone(&self.clock))
    }

    /// Connections that are open now.
    pub(crate) fn open(&self) -> usize {
        (self.limits.connections as usize).saturating_sub(self.slots.available_permits())
    }
}

/// Serves until shutdown is asked for, then finishes open requests for at most `terms.drain`.
pub(crate) async fn serve<H: Handler>(
    listener: TcpListener,
    handler: H,
    terms: Terms,
    mut shutdown: Shutdown,
) -> anyhow::Result<()> {
    let graceful = GracefulShutdown::new();
    let mut tasks = JoinSet::new();
    loop {
        let slot = tokio::select! {
            biased;
            () = shutdown.asked() => break,
            slot = Arc::clone(&terms.slots).acquire_owned() => slot.context("slots are closed")?,
        };
        let accepted = tokio::select! {
            biased;
            () = shutdown.asked() => break,
            Some(_) = tasks.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                let connection = connection(stream, peer, &handler, &terms, graceful.watcher());
                tasks.spawn(connection.map(|()| drop(slot)));
            }
            Err(error) => {
                // Out of file descriptors, as a rule: it passes when connections end, so wait a
                // little instead of asking again and again.
                tracing::warn!(%error, "a connection cannot be taken");
                terms.clock.sleep(Duration::from_millis(50)).await;
            }
        }
    }
    // Clients whose connection the system has already taken believe that they are being served.
    while let Some(Ok((stream, peer))) = listener.accept().now_or_never() {
        tasks.spawn(connection(stream, peer, &handler, &terms, graceful.watcher()));
    }
    drop(listener);
    let drained = async {
        graceful.shutdown().await;
        while tasks.join_next().await.is_some() {}
    };
    if tokio::time::timeout(terms.drain, drained).await.is_err() {
        tracing::warn!(connections = tasks.len(), "cut off: not done when the drain time was over");
    }
    tasks.shutdown().await;
    Ok(())
}

/// Serves one connection until its end.
fn connection<H: Handler>(
    stream: TcpStream,
    peer: SocketAddr,
    handler: &H,
    terms: &Terms,
    watcher: Watcher,
) -> impl Future<Output = ()> + Send + use<H> {
    let Limits { head_bytes, head_fields, head_timeout, body_timeout, .. } = terms.limits;
    let head_bytes = usize::try_from(head_bytes.0).unwrap_or(usize::MAX);
    let (handler, clock) = (handler.clone(), Arc::clone(&terms.clock));
    // Answers go out when they are ready, not when a packet is full.
    let _ = stream.set_nodelay(true);
    let io = TokioIo::new(TimedWrite::new(stream, body_timeout.0, Arc::clone(&clock)));
    let service = service_fn(move |request: Request<Incoming>| {
        let (handler, clock) = (handler.clone(), Arc::clone(&clock));
        async move {
            let mut request =
                request.map(|body| Body::new(TimedBody::new(body, body_timeout.0, clock)));
            request.extensions_mut().insert(Peer(peer));
            Ok::<_, Infallible>(handler.handle(request).await)
        }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(head_timeout.0)
        .max_header_size(head_bytes)
        .max_buf_size(head_bytes.max(64 << 10));
    if head_fields != HYPERS_OWN_FIELDS {
        // Any other number costs an allocation per request.
        http.max_headers(usize::from(head_fields));
    }
    let connection = http.serve_connection(io, service);
    async move {
        if let Err(error) = watcher.watch(connection).await {
            tracing::debug!(%peer, %error, "a connection ended early");
        }
    }
}
