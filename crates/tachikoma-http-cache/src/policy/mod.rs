//! Decides what a shared cache may store, reuse, select, validate and must invalidate.
//!
//! Pure functions of their arguments: no clock, no store, no `async`. Time comes in as a
//! [`SystemTime`](std::time::SystemTime), and each decision is a value that carries its reason.
//!
//! The rules are those of RFC 9111, with RFC 5861 for the stale windows and RFC 9213 for targeted
//! fields; each function names its section. Where the RFC leaves a choice, or where this cache is
//! stricter, the reason stands
//! beside the code.

pub mod age;
pub mod date;
pub mod decision;
pub mod directives;
pub mod fields;
pub mod freshness;
pub mod invalidation;
pub mod normal;
pub mod range;
pub mod request;
pub mod response;
pub mod reuse;
pub mod storable;
pub mod targeted;
pub mod validation;
pub mod vary;

use std::time::Duration;

use http::HeaderName;
use tachikoma_cache::glob::Glob;

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
    /// Do not heed `Cache-Control` and `Pragma` of requests, which are advisory (RFC 9111 §5.2.1):
    /// else whoever likes can have each request reach the origin.
    ///
    /// Default: off, they are heeded.
    pub ignore_request_directives: bool,
    /// Request headers that always select a variant, as if each `Vary` named them.
    ///
    /// Default: none.
    pub key_headers: Vec<HeaderName>,
    /// Response fields that stand in for `Cache-Control`, the most specific one first (RFC 9213).
    ///
    /// Default: `CDN-Cache-Control`.
    pub targeted: Vec<HeaderName>,
    /// Compare selecting request fields in their normal form, so that two spellings of the same
    /// `Accept-Language` select the same variant (RFC 9111 §4.1); else byte for byte.
    ///
    /// Default: on.
    pub normalize: bool,
    /// How long past its freshness a response may be sent because the origin cannot be reached,
    /// unless it forbids stale use (RFC 9111 §4.2.4). Nothing is kept for longer than
    /// [`keep_stale`](Self::keep_stale) for this.
    ///
    /// Default: one hour.
    pub stale_if_disconnected: Duration,
    /// Take no part in the exchange. Default: off.
    pub bypass: bool,
    /// The lifetime of a response that is no error, from when it comes, whatever it says itself.
    ///
    /// Default: none, what it says.
    pub ttl: Option<Duration>,
    /// Store also what says `no-store`, `private` or `no-cache` or carries `Set-Cookie`, which is
    /// taken off, and share it between requests with different cookies.
    ///
    /// Default: off.
    pub force_store: bool,
    /// Parameters that are taken out of the query, so that neither the key nor the inner service
    /// sees them. Default: none.
    pub ignore_query: Vec<Glob>,
    /// Tags for each response, beside its own. Default: none.
    pub tags: Vec<String>,
    /// Response headers that name tags, separated by commas or spaces, beside `Surrogate-Key` and
    /// `Cache-Tag`. Default: none.
    pub tag_headers: Vec<HeaderName>,
    /// How the `Content-Type` must begin of what is stored; empty for any. Default: any.
    pub content_types: Vec<&'static str>,
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
            ignore_request_directives: false,
            key_headers: Vec::new(),
            targeted: vec![HeaderName::from_static("cdn-cache-control")],
            normalize: true,
            stale_if_disconnected: Duration::from_hours(1),
            bypass: false,
            ttl: None,
            force_store: false,
            ignore_query: Vec::new(),
            tags: Vec::new(),
            tag_headers: Vec::new(),
            content_types: Vec::new(),
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
