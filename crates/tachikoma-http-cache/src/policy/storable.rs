//! Decides whether a shared cache may store a response. Never looks at what is stored already.
//!
//! RFC 9111 §3, and stricter in what a wrong guess would leak: `Set-Cookie` is never stored, and
//! a request with `Cookie` shares only what says that it is shared.

use http::{HeaderMap, StatusCode};

use super::{
    Options,
    age::{Received, initial_age},
    decision::Refusal,
    directives::{ResponseDirectives, Scope},
    freshness::{Source, freshness, is_heuristically_cacheable},
    request::{RequestFacts, always_selecting},
    response::ResponseFacts,
    reuse::Terms,
    vary::Selector,
};

/// A response that may be stored: on which terms, and for which requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Storable {
    /// When it may be reused.
    pub terms: Terms,
    /// Which requests select it.
    pub selector: Selector,
}

/// Decides whether a response may be stored, and on which terms ([RFC 9111 §3]).
///
/// # Errors
///
/// The [`Refusal`] that says why not.
///
/// [RFC 9111 §3]: https://www.rfc-editor.org/rfc/rfc9111#section-3
pub fn storable(
    request: &RequestFacts,
    request_headers: &HeaderMap,
    response: &ResponseFacts,
    received: &Received,
    options: &Options,
) -> Result<Storable, Refusal> {
    if request.head {
        return Err(Refusal::Head);
    }
    status_allows(response)?;
    if response.status == StatusCode::PARTIAL_CONTENT && !(request.has_range && response.is_part) {
        return Err(Refusal::Part);
    }
    // What an operator forces is stored as if it said nothing of its own, without its cookies.
    if !options.force_store {
        directives_allow(response)?;
    }
    if response.sets_cookie && !options.force_store {
        return Err(Refusal::SetCookie);
    }
    if response.has_transfer_encoding {
        return Err(Refusal::TransferCoding);
    }
    credentials_allow(request, &response.directives)?;
    let always = always_selecting(request_headers, options);
    let names = response.vary.with(&always)?;
    let selector = Selector::of(names, request_headers, options.normalize)?;
    if let Some(name) =
        request.denied.iter().find(|name| !selector.covers(std::slice::from_ref(*name)))
    {
        return Err(Refusal::Unkeyed(name.clone()));
    }
    if request.oversize && response.is_error() {
        return Err(Refusal::Oversize);
    }
    if request.post && !freshness(response, received.at, options).source.is_explicit() {
        return Err(Refusal::NoFreshness);
    }
    let terms = usable_terms(response, received, options)?;
    Ok(Storable { terms, selector })
}

/// Which status codes are stored at all (RFC 9111 §3, §3.3; RFC 9110 §15).
///
/// Beside 1xx and 304, those that speak of this client, this connection or this request's
/// headers: shared, one client's mistake would be another's outage.
fn status_allows(response: &ResponseFacts) -> Result<(), Refusal> {
    let never = matches!(
        response.status.as_u16(),
        100..=199
            | 304
            | 401
            | 403
            | 407
            | 408
            | 411
            | 412
            | 413
            | 415
            | 416
            | 417
            | 421
            | 425
            | 426
            | 428
            | 429
            | 431
            | 511
    );
    if never { Err(Refusal::Status) } else { Ok(()) }
}

/// `no-store`, `private` and `must-understand` (RFC 9111 §5.2.2.3, §5.2.2.5, §5.2.2.7).
fn directives_allow(response: &ResponseFacts) -> Result<(), Refusal> {
    let directives = &response.directives;
    if directives.must_understand {
        if !is_understood(response.status) {
            return Err(Refusal::NotUnderstood);
        }
        // §5.2.2.3: who understands the status is to ignore the `no-store` beside it.
    } else if directives.no_store {
        return Err(Refusal::NoStore);
    }
    if directives.private == Scope::Whole { Err(Refusal::Private) } else { Ok(()) }
}

/// The status codes whose caching rules this cache follows.
fn is_understood(status: StatusCode) -> bool {
    matches!(
        status.as_u16(),
        200..=204 | 206 | 300..=303 | 307 | 308 | 400 | 404..=406 | 409 | 410 | 414 | 500..=505
    )
}

/// `Authorization` (RFC 9111 §3.5) and, by the same reason, `Cookie`.
///
/// # Errors
///
/// [`Refusal::Authorization`] or [`Refusal::Cookie`].
fn credentials_allow(
    request: &RequestFacts,
    directives: &ResponseDirectives,
) -> Result<(), Refusal> {
    let shared = is_shared(directives);
    if request.has_authorization && !shared && !directives.must_revalidate {
        return Err(Refusal::Authorization);
    }
    if request.has_cookie && !shared { Err(Refusal::Cookie) } else { Ok(()) }
}

fn is_shared(directives: &ResponseDirectives) -> bool {
    directives.public || directives.s_maxage.is_some()
}

/// The terms of reuse, if there is any way that it will be reused (RFC 9111 §3, last conditions).
fn usable_terms(
    response: &ResponseFacts,
    received: &Received,
    options: &Options,
) -> Result<Terms, Refusal> {
    let directives = &response.directives;
    let freshness = freshness(response, received.at, options);
    let is_default = is_heuristically_cacheable(response.status) || directives.public;
    if !freshness.source.is_explicit() && (!is_default || is_unstated_error(response, options)) {
        return Err(Refusal::NoFreshness);
    }
    let forbids_stale = directives.forbids_stale();
    let window = |stated: Option<std::time::Duration>| {
        if forbids_stale { std::time::Duration::ZERO } else { stated.unwrap_or_default() }
    };
    let initial_age = initial_age(received);
    let lifetime = match freshness.source {
        // Counted from now, not from when the response was made.
        Source::Rule => freshness.lifetime.saturating_add(initial_age),
        _ => freshness.lifetime,
    };
    let terms = Terms {
        received_at: received.at,
        initial_age,
        lifetime,
        always_validate: directives.no_cache == Scope::Whole && !options.force_store,
        forbids_stale,
        stale_while_revalidate: window(directives.stale_while_revalidate),
        stale_if_error: window(directives.stale_if_error),
        shared: is_shared(directives) || options.force_store,
        authorized: is_shared(directives) || directives.must_revalidate,
    };
    let is_ever_fresh = !terms.always_validate && terms.is_fresh_at(received.at);
    let has_window = !terms.stale_while_revalidate.is_zero() || !terms.stale_if_error.is_zero();
    let can_be_validated = response.validators.any() && !response.is_error();
    // Older than its lifetime when it came, it may still be sent to who accepts that (§4.2.4).
    let may_be_stale = !terms.lifetime.is_zero() && !terms.forbids_stale;
    if is_ever_fresh || has_window || can_be_validated || may_be_stale {
        Ok(terms)
    } else {
        Err(Refusal::NeverUsable)
    }
}

/// An error without explicit freshness is kept only by the heuristic.
fn is_unstated_error(response: &ResponseFacts, options: &Options) -> bool {
    let guessed = options.heuristic && response.validators.last_modified.is_some();
    response.is_error() && !guessed
}

#[cfg(test)]
mod tests;
