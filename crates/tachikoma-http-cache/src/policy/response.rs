//! Reads once, from the head of a response, all that the other modules ask about it.
//! Never decides anything.

use std::time::{Duration, SystemTime};

use http::{
    HeaderMap, StatusCode,
    header::{DATE, EXPIRES, SET_COOKIE, TRANSFER_ENCODING},
};

use super::{
    age,
    date::{self, DateField},
    directives::ResponseDirectives,
    validation::Validators,
    vary::Vary,
};

/// What the head of a response says about caching.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResponseFacts {
    /// Its status.
    pub status: StatusCode,
    /// Its `Cache-Control`.
    pub directives: ResponseDirectives,
    /// Its `Date`.
    pub date: Option<SystemTime>,
    /// Its `Age`.
    pub age: Option<Duration>,
    /// Its `Expires`.
    pub expires: DateField,
    /// Its validators.
    pub validators: Validators,
    /// Its `Vary`.
    pub vary: Vary,
    /// It has a `Set-Cookie`.
    pub sets_cookie: bool,
    /// It carries a transfer coding that this cache would have to undo.
    pub has_transfer_encoding: bool,
}

impl ResponseFacts {
    /// Reads the head of a response.
    pub fn read(status: StatusCode, headers: &HeaderMap) -> Self {
        Self {
            status,
            directives: ResponseDirectives::read(headers),
            date: date::read(headers, &DATE).valid(),
            age: age::read(headers),
            expires: date::read(headers, &EXPIRES),
            validators: Validators::read(headers),
            vary: Vary::read(headers),
            sets_cookie: headers.contains_key(SET_COOKIE) || headers.contains_key("set-cookie2"),
            // `chunked` is framing, which the server below has already taken off.
            has_transfer_encoding: headers
                .get_all(TRANSFER_ENCODING)
                .iter()
                .any(|value| !value.as_bytes().eq_ignore_ascii_case(b"chunked")),
        }
    }

    /// A 4xx or 5xx.
    pub fn is_error(&self) -> bool {
        self.status.is_client_error() || self.status.is_server_error()
    }
}
