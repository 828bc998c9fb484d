//! Reads once, from the head of a response, all that the other modules ask about it.
//! Never decides anything.

use std::time::{Duration, SystemTime};

use http::{
    HeaderMap, HeaderName, StatusCode,
    header::{DATE, EXPIRES, SET_COOKIE, TRANSFER_ENCODING},
};

use super::{
    age,
    date::{self, DateField},
    directives::ResponseDirectives,
    range::content_range,
    targeted::governing,
    validation::Validators,
    vary::Vary,
};

/// What the head of a response says about caching.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResponseFacts {
    /// Its status.
    pub status: StatusCode,
    /// Its `Cache-Control`, or what a targeted field says instead.
    pub directives: ResponseDirectives,
    /// The targeted field that states the directives (RFC 9213).
    pub targeted: Option<HeaderName>,
    /// Its `Date`.
    pub date: Option<SystemTime>,
    /// Its `Age`.
    pub age: Option<Duration>,
    /// Its `Expires`; absent where a targeted field states the directives.
    pub expires: DateField,
    /// Its validators.
    pub validators: Validators,
    /// Its `Vary`.
    pub vary: Vary,
    /// Its `Content-Range` names one range of bytes.
    pub is_part: bool,
    /// It has a `Set-Cookie`.
    pub sets_cookie: bool,
    /// It carries a transfer coding that this cache would have to undo.
    pub has_transfer_encoding: bool,
}

impl ResponseFacts {
    /// Reads the head of a response; `targeted` are the fields that may stand in for
    /// `Cache-Control`, the most specific one first.
    pub fn read(status: StatusCode, headers: &HeaderMap, targeted: &[HeaderName]) -> Self {
        let governing = governing(headers, targeted);
        let expires = match &governing.field {
            Some(_) => DateField::Absent,
            None => date::read(headers, &EXPIRES),
        };
        Self {
            status,
            directives: governing.directives,
            targeted: governing.field,
            date: date::read(headers, &DATE).valid(),
            age: age::read(headers),
            expires,
            validators: Validators::read(headers),
            vary: Vary::read(headers),
            is_part: content_range(headers).is_some(),
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
