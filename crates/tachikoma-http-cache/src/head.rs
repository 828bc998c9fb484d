//! Prepares the head of a response that is to be stored.
//!
//! Never decides whether it is stored.

use std::time::SystemTime;

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, StatusCode,
    header::{CONTENT_LENGTH, DATE},
};

use crate::policy::{date, directives::ResponseDirectives, fields::remove_unstored};

/// The head as it is stored: without what is not, with its true length and a `Date`.
///
/// A missing `Date` is the time of receipt (RFC 9110 §6.6.1): caches further on count from it.
pub(crate) fn to_store(
    mut headers: HeaderMap,
    directives: &ResponseDirectives,
    status: StatusCode,
    body: &Bytes,
    received: SystemTime,
) -> HeaderMap {
    remove_unstored(&mut headers, directives);
    if status == StatusCode::NO_CONTENT {
        headers.remove(CONTENT_LENGTH);
    } else {
        headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
    }
    if date::read(&headers, &DATE).valid().is_none() {
        set(&mut headers, DATE, &httpdate::fmt_http_date(received));
    }
    headers
}

/// Sets a field, if its value is one that a field can have.
pub(crate) fn set(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}
