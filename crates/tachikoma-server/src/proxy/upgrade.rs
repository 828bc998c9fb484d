//! Passes a connection on to the upstream once that has agreed to switch protocols (RFC 9110 §7.8).
//!
//! Nothing but the request goes to the upstream before its 101: what a client sends behind the
//! request is read only then, or it is the next request. From then on bytes are passed on as they
//! are, in both directions, until both ends are done, nothing moves for long, or the server stops.
//!
//! HTTP's own versions are no protocols to switch to here: through a tunnel of HTTP/2 every request
//! would go around all the rules of this server.

use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use http::header::{CONNECTION, UPGRADE};
use http::{HeaderMap, HeaderValue, Method, Request, Version};
use http_body::Body as _;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tachikoma_cache::Clock;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::listener::Tunnel;

/// How long nothing may move in a tunnel.
const IDLE: Duration = Duration::from_secs(3_600);

/// What a client wants to switch to, among the extensions of its request.
#[derive(Debug, Clone)]
pub(crate) struct Wanted(HeaderValue);

/// What a request wants to switch to, if that can be passed on.
pub(crate) fn wanted(request: &Request<Body>) -> Option<Wanted> {
    let headers = request.headers();
    let asks = request.method() == Method::GET
        && request.version() == Version::HTTP_11
        && request.body().is_end_stream()
        && names_upgrade(headers);
    let mut values = headers.get_all(UPGRADE).iter();
    let value = values.next().filter(|_| asks && values.next().is_none())?;
    let tokens = value.to_str().ok()?.split(',').map(str::trim);
    let refused = |token: &str| {
        let name = token.split('/').next().unwrap_or_default().to_ascii_lowercase();
        ["", "h2c", "h2", "h3", "http", "tls"].contains(&name.as_str())
    };
    (!tokens.into_iter().any(refused)).then(|| Wanted(value.clone()))
}

fn names_upgrade(headers: &HeaderMap) -> bool {
    let lines = headers.get_all(CONNECTION).into_iter();
    let mut names = lines.flat_map(|line| line.as_bytes().split(|b| *b == b','));
    names.any(|name| name.trim_ascii().eq_ignore_ascii_case(b"upgrade"))
}

impl Wanted {
    /// Asks for it on the next connection.
    pub(super) fn ask(&self, headers: &mut HeaderMap) {
        switch_to(headers, self.0.clone());
    }

    /// Whether the upstream switched to what was asked for.
    pub(super) fn is_met_by(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        let mut values = headers.get_all(UPGRADE).iter();
        let answer = values.next().filter(|_| values.next().is_none())?;
        let asked = self.0.to_str().ok()?;
        let met = answer.to_str().ok()?.trim();
        let is_asked = asked.split(',').any(|token| token.trim().eq_ignore_ascii_case(met));
        (is_asked && names_upgrade(headers)).then(|| answer.clone())
    }
}

/// Says in a head that this connection switches.
pub(super) fn switch_to(headers: &mut HeaderMap, protocol: HeaderValue) {
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, protocol);
}

/// Passes bytes on in both directions until the tunnel ends.
pub(super) async fn tunnel(
    client: OnUpgrade,
    upstream: OnUpgrade,
    mut open: Tunnel,
    clock: Arc<dyn Clock>,
) {
    let both = async { tokio::try_join!(client, upstream) };
    let Ok((client, upstream)) = both.await else { return };
    let moved = Arc::new(AtomicU64::new(0));
    let mut client = Counted { inner: TokioIo::new(client), moved: Arc::clone(&moved) };
    let mut upstream = TokioIo::new(upstream);
    let mut copying = pin!(tokio::io::copy_bidirectional(&mut client, &mut upstream));
    loop {
        let before = moved.load(Relaxed);
        tokio::select! {
            biased;
            result = &mut copying => {
                if let Err(error) = result {
                    tracing::debug!(%error, "a tunnel broke");
                }
                return;
            }
            () = open.cut() => return,
            () = clock.sleep(IDLE) => {
                if moved.load(Relaxed) == before {
                    return;
                }
            }
        }
    }
}

/// Counts the bytes that pass.
struct Counted<S> {
    inner: S,
    moved: Arc<AtomicU64>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.inner).poll_read(cx, buffer);
        if result.is_ready() {
            self.moved.fetch_add(1, Relaxed);
        }
        result
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.inner).poll_write(cx, bytes);
        if result.is_ready() {
            self.moved.fetch_add(1, Relaxed);
        }
        result
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(method: &str, upgrade: &[&str], connection: &str, expected: Option<&str>) {
        let mut request = Request::builder().method(method).header(CONNECTION, connection);
        for value in upgrade {
            request = request.header(UPGRADE, *value);
        }
        let request = request.body(Body::empty()).expect("a request");
        let actual = wanted(&request).map(|wanted| wanted.0);
        let actual = actual.as_ref().map(|value| value.to_str().expect("text"));
        assert_eq!(actual, expected, "{method} {upgrade:?} {connection}");
    }

    #[test]
    fn a_get_that_names_another_protocol_wants_to_switch() {
        check("GET", &["websocket"], "Upgrade", Some("websocket"));
        check("GET", &["chat/2, x"], "keep-alive, upgrade", Some("chat/2, x"));
        check("GET", &["websocket"], "keep-alive", None);
        check("POST", &["websocket"], "upgrade", None);
        check("GET", &["a", "b"], "upgrade", None);
        for http in ["h2c", "H2C", "websocket, h2c", "HTTP/2.0", "TLS/1.2", ""] {
            check("GET", &[http], "upgrade", None);
        }
    }

    #[test]
    fn the_answer_must_be_one_that_was_asked_for() {
        let wanted = Wanted(HeaderValue::from_static("chat, WebSocket"));
        let answer = |upgrade: &str, connection: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(UPGRADE, upgrade.parse().expect("a value"));
            headers.insert(CONNECTION, connection.parse().expect("a value"));
            wanted.is_met_by(&headers).is_some()
        };
        assert!(answer("websocket", "upgrade"));
        assert!(!answer("h2c", "upgrade"));
        assert!(!answer("websocket", "close"));
    }
}
