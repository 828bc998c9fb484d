//! Takes connections, bounds what a client may hold, and drains them at shutdown.
//!
//! It knows nothing of what is served: a handler gets each request with what is known of its peer.

mod budget;
mod connection;
mod interim;
mod pulse;
mod reading;
mod sniff;
mod tunnels;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum::body::Body;
use futures_util::FutureExt as _;
use http::{Request, Response};
use tachikoma_cache::Clock;
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;

use crate::config::Limits;
use crate::shutdown::Shutdown;
use crate::tls;
use connection::Serving;
pub(crate) use interim::Interim;
pub(crate) use tunnels::{Tunnel, Tunnels};

/// Where a request came from, among its extensions.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    pub(crate) address: SocketAddr,
    /// Whether it came over TLS.
    pub(crate) secure: bool,
    /// Takes interim responses, where there is a way to send them.
    pub(crate) interim: Option<Interim>,
    /// Its connection, where that can become a tunnel.
    pub(crate) link: Option<Arc<Link>>,
}

/// A connection, as far as a tunnel over it goes.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) tunnels: Tunnels,
    /// It counts as open for as long as the tunnel is.
    _slot: Option<OwnedSemaphorePermit>,
}

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
    /// The connections that became tunnels.
    tunnels: Tunnels,
    /// With it, TLS is spoken and nothing else.
    tls: Option<tls::Acceptor>,
    /// A client that has sent all may end its side: what it asked for is done all the same.
    half_close: bool,
}

impl Terms {
    pub(crate) fn new(limits: Limits, drain: Duration, clock: Arc<dyn Clock>) -> Self {
        let slots = Arc::new(Semaphore::new(limits.connections as usize));
        Self { limits, drain, clock, slots, tunnels: Tunnels::new(), tls: None, half_close: false }
    }

    /// Speaks TLS from now on.
    pub(crate) fn within(mut self, tls: Option<tls::Acceptor>) -> Self {
        self.tls = tls;
        self
    }

    /// The terms of the admin listener: few clients, who are not waited for.
    pub(crate) fn for_admin(&self) -> Self {
        let limits = Limits { connections: ADMIN_CONNECTIONS, ..self.limits };
        let terms = Self::new(limits, ADMIN_DRAIN, Arc::clone(&self.clock));
        // Else a purge whose client is gone by the time that it is read would not be made.
        Self { half_close: true, ..terms }
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
                let serving = Serving {
                    handler: handler.clone(),
                    terms: terms.clone(),
                    shutdown: shutdown.clone(),
                    slot: Some(slot),
                };
                tasks.spawn(connection::serve(stream, peer, serving));
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
        let serving = Serving {
            handler: handler.clone(),
            terms: terms.clone(),
            shutdown: shutdown.clone(),
            slot: None,
        };
        tasks.spawn(connection::serve(stream, peer, serving));
    }
    drop(listener);
    let drained = async {
        while tasks.join_next().await.is_some() {}
        terms.tunnels.none_open().await;
    };
    if tokio::time::timeout(terms.drain, drained).await.is_err() {
        let connections = tasks.len() + terms.tunnels.cut();
        tracing::warn!(connections, "cut off: not done when the drain time was over");
    }
    tasks.shutdown().await;
    Ok(())
}
