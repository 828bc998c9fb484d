//! Decides what a shared cache may store, reuse, select, validate and must invalidate.
//!
//! Pure functions of their arguments: no clock, no store, no `async`. Time comes in as a
//! [`SystemTime`](std::time::SystemTime), and each decision is a value that carries its reason.
//!
//! The rules are those of RFC 9111 (and RFC 5861 for the stale windows); each function names its
//! section. Where the RFC leaves a choice, or where this cache is stricter, the reason stands
//! beside the code.

pub mod age;
pub mod date;
pub mod decision;
pub mod directives;
pub mod fields;
pub mod freshness;
pub mod invalidation;
pub mod range;
pub mod request;
pub mod response;
pub mod reuse;
pub mod storable;
pub mod validation;
pub mod vary;

use std::time::Duration;

use http::HeaderName;

/// What an operator may choose; each default is the safe one.
#[derive(Debug, Clone)]
pub struct Options {
    /// Guess a lifetime from `Last-Modified` where the response states none (RFC 9111 §4.2.2).
    ///
    /// Default: off.
    pub heuristic: bool,
    /// The lifetime of a response that states none, if its status may be cached by default.
    ///
    /// Default: none, such a response is stored only to be validated.
    pub default_ttl: Option<Duration>,
    /// The longest lifetime of a stored 4xx or 5xx response. Default: 10 seconds.
    pub max_error_ttl: Duration,
    /// How long a response stays stored after it became stale, so that it can be validated
    /// instead of fetched. Default: one hour.
    pub keep_stale: Duration,
    /// Share responses between requests with different `Cookie`s without asking the response.
    ///
    /// Default: off: a request with `Cookie` shares only what says `public` or `s-maxage`.
    pub ignore_cookies: bool,
    /// Request headers that always select a variant, as if each `Vary` named them.
    ///
    /// Default: none.
    pub key_headers: Vec<HeaderName>,
    /// What `X-Forwarded-*` and their kin on a request mean. Default: [`Forwarded::Bypass`].
    pub forwarded: Forwarded,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            heuristic: false,
            default_ttl: None,
            max_error_ttl: Duration::from_secs(10),
            keep_stale: Duration::from_hours(1),
            ignore_cookies: false,
            key_headers: Vec::new(),
            forwarded: Forwarded::Bypass,
        }
    }
}

/// Who wrote the forwarding headers (`X-Forwarded-Host`, `Forwarded`, …) of a request.
///
/// An application that builds links from them shows one client's header to the next one who gets
/// the stored response, so they are never just ignored by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Forwarded {
    /// Anybody: such a request is neither answered from the cache nor stored, unless the
    /// response's `Vary` names the header.
    #[default]
    Bypass,
    /// A proxy in front that overwrites what clients send: those about host, scheme, port and
    /// prefix select a variant, those about the client's address are ignored.
    Keyed,
    /// This process, from the very authority and scheme that are in the cache key: ignored.
    Overwritten,
}
