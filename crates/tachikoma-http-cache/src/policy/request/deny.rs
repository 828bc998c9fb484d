//! The request headers that applications and frameworks obey and that no cache key holds.
//!
//! Each stands for a published way to poison a cache: URL and method override, framework-internal
//! switches, prefetch markers, forwarding. Unknown headers are not on the list: an unrelated
//! header changes nothing.

use http::{HeaderMap, HeaderName};

use crate::policy::{Forwarded, Options};

/// They replace the method, the path, or the kind of answer.
const OVERRIDES: [&str; 22] = [
    "x-http-method-override",
    "x-http-method",
    "x-method-override",
    "x-original-url",
    "x-original-uri",
    "x-original-host",
    "x-original-path",
    "x-rewrite-url",
    "x-override-url",
    "x-request-uri",
    "x-middleware-prefetch",
    "x-middleware-subrequest",
    "x-middleware-invoke",
    "x-now-route-matches",
    "x-matched-path",
    "x-nextjs-data",
    "x-prerender-revalidate",
    "purpose",
    "sec-purpose",
    "x-purpose",
    "x-moz",
    "rsc",
];

/// Frameworks keep whole families of such headers.
const OVERRIDE_PREFIXES: [&str; 4] = ["x-invoke-", "x-middleware-", "next-router-", "x-nextjs-"];

/// They say which host, scheme, port or prefix the client used.
const ROUTING: [&str; 19] = [
    "forwarded",
    "x-forwarded",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-forwarded-protocol",
    "x-forwarded-scheme",
    "x-forwarded-port",
    "x-forwarded-server",
    "x-forwarded-prefix",
    "x-forwarded-path",
    "x-forwarded-uri",
    "x-forwarded-url",
    "x-forwarded-ssl",
    "x-host",
    "x-http-host-override",
    "x-url-scheme",
    "x-scheme",
    "front-end-https",
    "x-proxyuser-host",
];

/// They say who the client is.
const CLIENT: [&str; 8] = [
    "x-forwarded-for",
    "x-forwarded-by",
    "x-real-ip",
    "x-client-ip",
    "x-cluster-client-ip",
    "client-ip",
    "true-client-ip",
    "cf-connecting-ip",
];

enum Kind {
    Override,
    Routing,
    Client,
}

fn kind(name: &HeaderName) -> Option<Kind> {
    let name = name.as_str();
    if OVERRIDES.contains(&name) || OVERRIDE_PREFIXES.iter().any(|start| name.starts_with(start)) {
        Some(Kind::Override)
    } else if CLIENT.contains(&name) {
        Some(Kind::Client)
    } else if ROUTING.contains(&name) || name.starts_with("x-forwarded-") {
        Some(Kind::Routing)
    } else {
        None
    }
}

/// Whether a field says who the client is, or which host, scheme, port or prefix it used: what a
/// proxy that faces clients takes away and writes itself.
pub fn is_forwarding(name: &HeaderName) -> bool {
    matches!(kind(name), Some(Kind::Routing | Kind::Client))
}

/// The headers of a request that only a `Vary` which names them can make harmless.
pub(super) fn denied(headers: &HeaderMap, options: &Options) -> Vec<HeaderName> {
    let is_denied = |name: &&HeaderName| match kind(name) {
        Some(Kind::Override) => true,
        Some(Kind::Routing | Kind::Client) => options.forwarded == Forwarded::Bypass,
        None => false,
    };
    headers
        .keys()
        .filter(is_denied)
        .filter(|name| !options.key_headers.contains(name))
        .cloned()
        .collect()
}

/// The headers of a request that a proxy in front wrote and that select a variant.
pub(super) fn keyed<'a>(
    headers: &'a HeaderMap,
    options: &Options,
) -> impl Iterator<Item = HeaderName> + use<'a> {
    let keyed = options.forwarded == Forwarded::Keyed;
    headers.keys().filter(move |name| keyed && matches!(kind(name), Some(Kind::Routing))).cloned()
}
