//! Answers without the origin: from a stored response, or that there is none.
//!
//! Never decides whether a stored response may be used, only how it is sent.

use std::time::SystemTime;

use http::{
    HeaderMap, HeaderValue, Response, StatusCode,
    header::{AGE, CONTENT_LENGTH, CONTENT_RANGE, DATE, RANGE},
};

use crate::{
    body::CacheBody,
    cache_status,
    head::set,
    policy::{
        date,
        decision::Decision,
        range::{Part, part},
        validation::{Validators, is_unchanged_for, not_modified_head},
    },
    storage::StoredResponse,
};

/// An answer from a stored response: whole, a part of it, or 304 where the client has it already;
/// without a body for HEAD.
pub(crate) fn from_stored<B>(
    stored: &StoredResponse,
    request: &HeaderMap,
    is_head: bool,
    now: SystemTime,
    decision: &Decision,
) -> Response<CacheBody<B>> {
    let mut headers = stored.headers.clone();
    let mut status = stored.status;
    let mut body = CacheBody::empty();
    if is_unchanged(stored, request) {
        status = StatusCode::NOT_MODIFIED;
        not_modified_head(&mut headers);
    } else if !is_head {
        match asked_part(stored, request) {
            Part::Whole => body = CacheBody::stored(stored.body.clone()),
            Part::Bytes(part) => {
                status = StatusCode::PARTIAL_CONTENT;
                let (first, last, all) = (part.start, part.end - 1, stored.body.len());
                set(&mut headers, CONTENT_RANGE, &format!("bytes {first}-{last}/{all}"));
                headers.insert(CONTENT_LENGTH, HeaderValue::from(part.len()));
                body = CacheBody::stored(stored.body.slice(part));
            }
            Part::Unsatisfiable => {
                status = StatusCode::RANGE_NOT_SATISFIABLE;
                // Of the stored head nothing: another cache must not keep this for that long.
                headers = HeaderMap::new();
                set(&mut headers, CONTENT_RANGE, &format!("bytes */{}", stored.body.len()));
                headers.insert(CONTENT_LENGTH, HeaderValue::from(0));
            }
        }
    }
    headers.insert(AGE, HeaderValue::from(stored.terms.age(now).as_secs()));
    cache_status::add(&mut headers, decision);
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

fn asked_part(stored: &StoredResponse, request: &HeaderMap) -> Part {
    if stored.status == StatusCode::OK && request.contains_key(RANGE) {
        return part(request, &stored.headers, stored.body.len());
    }
    Part::Whole
}

fn is_unchanged(stored: &StoredResponse, request: &HeaderMap) -> bool {
    let asks = request.contains_key(http::header::IF_NONE_MATCH)
        || request.contains_key(http::header::IF_MODIFIED_SINCE);
    asks && is_unchanged_for(
        request,
        stored.status,
        &Validators::read(&stored.headers),
        date::read(&stored.headers, &DATE).valid(),
    )
}

/// The answer to `only-if-cached` when there is none (RFC 9111 §5.2.1.7).
pub(crate) fn only_if_cached<B>() -> Response<CacheBody<B>> {
    let mut response = Response::new(CacheBody::empty());
    *response.status_mut() = StatusCode::GATEWAY_TIMEOUT;
    cache_status::add(response.headers_mut(), &Decision::OnlyIfCached);
    response
}
