//! Prepares the head of a response that is to be stored.
//!
//! Never decides whether it is stored.

use std::time::SystemTime;

use http::{
    HeaderMap, HeaderName, HeaderValue, StatusCode,
    header::{CONTENT_LENGTH, DATE},
};

use crate::policy::{date, directives::ResponseDirectives, fields::remove_unstored};

/// The head as it is stored: without what is not, with its true length, as far as it is known yet,
/// and a `Date`.
///
/// A missing `Date` is the time of receipt (RFC 9110 §6.6.1): caches further on count from it.
pub(crate) fn to_store(
    mut headers: HeaderMap,
    directives: &ResponseDirectives,
    status: StatusCode,
    length: Option<u64>,
    received: SystemTime,
) -> HeaderMap {
    remove_unstored(&mut headers, directives);
    match length.filter(|_| status != StatusCode::NO_CONTENT) {
        Some(length) => drop(headers.insert(CONTENT_LENGTH, HeaderValue::from(length))),
        None => drop(headers.remove(CONTENT_LENGTH)),
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

/// What `Content-Length` says, if that is a number.
pub(crate) fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.trim().parse().ok()
}
