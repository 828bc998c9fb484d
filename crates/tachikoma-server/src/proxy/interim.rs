//! Passes interim responses (1xx) of the upstream on, and stops one who sends them without an end.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use axum::body::Body;
use http::{HeaderMap, Request, StatusCode};
use tachikoma_http_cache::policy::fields::remove_hop_by_hop;
use tokio::sync::Notify;

use crate::listener::Interim;

/// Interim responses to one request; whoever sends more sends them for ever.
const MOST: u32 = 100;

/// Passes the interim responses to `request` on to `client`. What is returned is notified when
/// there are too many.
pub(super) fn pass_on(request: &mut Request<Body>, client: Option<Interim>) -> Arc<Notify> {
    let too_many = Arc::new(Notify::new());
    let (seen, flood) = (AtomicU32::new(0), Arc::clone(&too_many));
    hyper::ext::on_informational(request, move |response| {
        if seen.fetch_add(1, Relaxed) >= MOST {
            flood.notify_one();
            return;
        }
        // 100 is of the connection that it came on: this server says it itself.
        if response.status() == StatusCode::CONTINUE {
            return;
        }
        if let Some(client) = &client {
            client.send(&head(response.status(), response.headers().clone()));
        }
    });
    too_many
}

/// The head as it is written in HTTP/1.1.
fn head(status: StatusCode, mut headers: HeaderMap) -> Vec<u8> {
    remove_hop_by_hop(&mut headers);
    // A head without content frames nothing (RFC 9110 §15.2).
    headers.remove(http::header::CONTENT_LENGTH);
    let reason = status.canonical_reason().unwrap_or("Interim");
    let mut bytes = format!("HTTP/1.1 {} {reason}\r\n", status.as_u16()).into_bytes();
    for (name, value) in &headers {
        bytes.extend_from_slice(name.as_str().as_bytes());
        bytes.extend_from_slice(b": ");
        bytes.extend_from_slice(value.as_bytes());
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"\r\n");
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interim_head_goes_on_without_what_ends_at_this_hop() {
        let mut headers = HeaderMap::new();
        for (name, value) in [("link", "</a>"), ("connection", "x"), ("x", "1"), ("link", "</b>")] {
            headers.append(name, value.parse().expect("a value"));
        }
        let text = String::from_utf8(head(StatusCode::EARLY_HINTS, headers)).expect("text");
        assert_eq!(text, "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\nlink: </b>\r\n\r\n");
    }
}
