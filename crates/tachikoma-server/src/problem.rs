//! Errors as clients see them: `application/problem+json` (RFC 9457), never stored.
//!
//! A detail says what the client can know and do. Addresses, causes and other people's data go to
//! the log instead.

use axum::body::Body;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Response, StatusCode};

/// Makes the answer to a request that failed. `detail` is one sentence for the client.
pub(crate) fn problem(status: StatusCode, detail: &str) -> Response<Body> {
    let body = serde_json::json!({
        "type": "about:blank",
        "title": status.canonical_reason().unwrap_or("Error"),
        "status": status.as_u16(),
        "detail": detail,
    });
    let mut response = Response::new(Body::from(body.to_string()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Answers 405 and names the methods that are allowed (RFC 9110 §15.5.6).
pub(crate) fn method_not_allowed(allowed: &'static str, detail: &str) -> Response<Body> {
    let mut response = problem(StatusCode::METHOD_NOT_ALLOWED, detail);
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    response
}
