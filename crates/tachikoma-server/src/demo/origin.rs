//! An origin that is slow, so that a hit can be felt: one page that may be kept for a minute.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum::body::Body;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Request, Response};
use tachikoma_cache::{Clock, SystemClock};

use crate::config::Limits;
use crate::listener::{self, Handler, Terms};
use crate::shutdown::Shutdown;

/// How long the page takes.
pub(super) const SLOW: Duration = Duration::from_millis(300);

/// Starts the origin on a free port and returns where it is.
pub(super) async fn start(clock: SystemClock, shutdown: Shutdown) -> anyhow::Result<SocketAddr> {
    let free = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let listener = listener::bind("origin", free).await?;
    let address = listener.local_addr().context("the origin has no address")?;
    let clock: Arc<dyn Clock> = Arc::new(clock);
    let terms = Terms::new(Limits::default(), Duration::from_secs(1), Arc::clone(&clock));
    tokio::spawn(listener::serve(listener, SlowPage(clock), terms, shutdown));
    Ok(address)
}

#[derive(Clone)]
struct SlowPage(Arc<dyn Clock>);

impl Handler for SlowPage {
    async fn handle(&self, _: Request<Body>) -> Response<Body> {
        self.0.sleep(SLOW).await;
        let mut response = Response::new(Body::from("This page took a while to make.\n"));
        let headers = response.headers_mut();
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("max-age=60"));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        response
    }
}
