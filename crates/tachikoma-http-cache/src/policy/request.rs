//! Decides, from a request alone, whether the cache may take part in the exchange at all.
//!
//! Never looks at what is stored. RFC 9111 §4 and §5.2.1, and the rule "unkeyed means unseen": a
//! header that changes what an application answers, and that no key holds, keeps the exchange out
//! of the cache unless the response's `Vary` names it.

mod deny;
#[cfg(test)]
mod tests;

pub use deny::is_forwarding;

use http::{
    HeaderMap, HeaderName, Method,
    header::{
        AUTHORIZATION, CONTENT_LENGTH, COOKIE, EXPECT, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH,
        IF_UNMODIFIED_SINCE, RANGE, TRANSFER_ENCODING, UPGRADE,
    },
};

use super::{Options, decision::Bypass, directives::RequestDirectives};

/// What the head of a request says about caching.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestFacts {
    /// HEAD: the answer has no body.
    pub head: bool,
    /// POST: its answer is stored only if it states how long it is fresh.
    pub post: bool,
    /// Its `Cache-Control`.
    pub directives: RequestDirectives,
    /// It has an `Authorization`.
    pub has_authorization: bool,
    /// It has a `Cookie`, and cookies matter.
    pub has_cookie: bool,
    /// It asks a condition that a cache can answer: `If-None-Match` or `If-Modified-Since`.
    pub has_condition: bool,
    /// It asks for a part.
    pub has_range: bool,
    /// Headers of the deny list that it carries and that only a `Vary` which names them keeps
    /// apart.
    pub denied: Vec<HeaderName>,
    /// Headers that must be among those which selected a response, for it to be an answer: the
    /// denied ones, and those that a proxy in front wrote.
    pub must_select: Vec<HeaderName>,
    /// A line over 8 KiB or a head over 32 KiB: an error may be its own fault.
    pub oversize: bool,
}

/// Reads a request, or says why the cache takes no part in it ([RFC 9111 §4]).
///
/// `has_body` is whether anything is known to follow the head.
///
/// [RFC 9111 §4]: https://www.rfc-editor.org/rfc/rfc9111#section-4
pub fn admit(
    method: &Method,
    headers: &HeaderMap,
    has_body: bool,
    options: &Options,
) -> Result<RequestFacts, Bypass> {
    if method != Method::GET && method != Method::HEAD {
        return Err(Bypass::Method);
    }
    if options.bypass {
        return Err(Bypass::Rule);
    }
    if has_body || headers.contains_key(TRANSFER_ENCODING) || states_a_length(headers) {
        return Err(Bypass::RequestBody);
    }
    facts(method, headers, options)
}

/// Reads a POST whose answer may be stored for a GET ([RFC 9110 §9.3.3]), or says why none may.
///
/// [RFC 9110 §9.3.3]: https://www.rfc-editor.org/rfc/rfc9110#section-9.3.3
pub fn admit_post(headers: &HeaderMap, options: &Options) -> Result<RequestFacts, Bypass> {
    if options.bypass {
        return Err(Bypass::Rule);
    }
    facts(&Method::POST, headers, options)
}

fn facts(method: &Method, headers: &HeaderMap, options: &Options) -> Result<RequestFacts, Bypass> {
    if headers.contains_key(UPGRADE) || headers.contains_key(EXPECT) {
        return Err(Bypass::Upgrade);
    }
    if headers.contains_key(IF_MATCH) || headers.contains_key(IF_UNMODIFIED_SINCE) {
        return Err(Bypass::Precondition);
    }
    let directives = if options.ignore_request_directives {
        RequestDirectives::default()
    } else {
        RequestDirectives::read(headers)
    };
    if directives.no_store {
        // The answer may not be stored (§5.2.1.5), and who asks for that wants the source.
        return Err(Bypass::RequestNoStore);
    }
    let denied = deny::denied(headers, options);
    let must_select = denied.iter().cloned().chain(deny::keyed(headers, options)).collect();
    Ok(RequestFacts {
        head: method == Method::HEAD,
        post: method == Method::POST,
        directives,
        has_authorization: headers.contains_key(AUTHORIZATION),
        has_cookie: headers.contains_key(COOKIE) && !options.ignore_cookies && !options.force_store,
        has_condition: headers.contains_key(IF_NONE_MATCH)
            || headers.contains_key(IF_MODIFIED_SINCE),
        has_range: headers.contains_key(RANGE) && method == Method::GET,
        denied,
        must_select,
        oversize: is_oversize(headers),
    })
}

/// The request headers that select a variant whatever `Vary` says: the operator's, and those that
/// a proxy in front wrote about host, scheme, port and prefix.
pub fn always_selecting(headers: &HeaderMap, options: &Options) -> Vec<HeaderName> {
    let mut names = options.key_headers.clone();
    names.extend(deny::keyed(headers, options));
    names.sort_by(|a, b| a.as_str().cmp(b.as_str()));
    names.dedup();
    names
}

/// `Content-Length: 0` on a GET is odd but says that nothing follows.
fn states_a_length(headers: &HeaderMap) -> bool {
    headers.get_all(CONTENT_LENGTH).iter().any(|value| value.as_bytes() != b"0")
}

/// The sizes at which many origins refuse a head that others let pass (cache-poisoned denial
/// of service).
fn is_oversize(headers: &HeaderMap) -> bool {
    const MAX_LINE: usize = 8 * 1024;
    const MAX_HEAD: usize = 32 * 1024;
    let mut total = 0;
    headers.iter().any(|(name, value)| {
        let line = name.as_str().len() + value.len() + 4;
        total += line;
        line > MAX_LINE || total > MAX_HEAD
    })
}
