//! Answers without the origin: from a stored response, or that there is none.
//!
//! Never decides whether a stored response may be used, only how it is sent.

use std::{ops::Range, time::SystemTime};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Response, StatusCode,
    header::{AGE, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, DATE, RANGE},
};

use crate::{
    body::CacheBody,
    cache_status,
    head::set,
    multipart,
    policy::{
        date,
        decision::Decision,
        range::{Held, Part, part},
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
    if is_unchanged(stored.status, &stored.headers, request) {
        status = StatusCode::NOT_MODIFIED;
        not_modified_head(&mut headers);
    } else if !is_head {
        let held = stored.held();
        match asked_part(stored, request, &held) {
            // What is not held is no answer, and no verdict makes it one.
            Part::Whole | Part::Missing => body = CacheBody::stored(stored.body.clone()),
            Part::Bytes(parts) => {
                status = StatusCode::PARTIAL_CONTENT;
                let bytes = partial(stored, &parts, held.total, &mut headers);
                headers.insert(CONTENT_LENGTH, HeaderValue::from(bytes.len()));
                body = CacheBody::stored(bytes);
            }
            Part::Unsatisfiable => {
                status = StatusCode::RANGE_NOT_SATISFIABLE;
                // Of the stored head nothing: another cache must not keep this for that long.
                headers = HeaderMap::new();
                if let Some(total) = held.total {
                    set(&mut headers, CONTENT_RANGE, &format!("bytes */{total}"));
                }
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

/// The bytes of these parts, and the fields that say which they are: one part as it is, several as
/// `multipart/byteranges`.
fn partial(
    stored: &StoredResponse,
    parts: &[(Range<u64>, Range<usize>)],
    total: Option<u64>,
    headers: &mut HeaderMap,
) -> Bytes {
    if let [(range, place)] = parts {
        set(headers, CONTENT_RANGE, &multipart::content_range(range, total));
        return stored.body.slice(place.clone());
    }
    let kind = stored.headers.get(CONTENT_TYPE);
    let Some((body, kind)) = multipart::body(&stored.body, parts, kind, total) else {
        return Bytes::new();
    };
    headers.insert(CONTENT_TYPE, kind);
    body
}

/// Whether what is stored answers this request: all of it, or the part that is asked for.
pub(crate) fn is_held(stored: &StoredResponse, request: &HeaderMap, is_head: bool) -> bool {
    let Some(held) = &stored.part else {
        return true;
    };
    !is_head && part(request, &stored.headers, held) != Part::Missing
}

fn asked_part(stored: &StoredResponse, request: &HeaderMap, held: &Held) -> Part {
    let is_divisible = [StatusCode::OK, StatusCode::PARTIAL_CONTENT].contains(&stored.status);
    if is_divisible && request.contains_key(RANGE) {
        return part(request, &stored.headers, held);
    }
    Part::Whole
}

/// Whether the client has a response with this head already, as its own condition says.
pub(crate) fn is_unchanged(status: StatusCode, stored: &HeaderMap, request: &HeaderMap) -> bool {
    let asks = request.contains_key(http::header::IF_NONE_MATCH)
        || request.contains_key(http::header::IF_MODIFIED_SINCE);
    asks && is_unchanged_for(
        request,
        status,
        &Validators::read(stored),
        date::read(stored, &DATE).valid(),
    )
}

/// The answer when the origin says of what is stored that it is current, and that it is not.
pub(crate) fn bad_gateway<B>(decision: &Decision) -> Response<CacheBody<B>> {
    let mut response = Response::new(CacheBody::empty());
    *response.status_mut() = StatusCode::BAD_GATEWAY;
    cache_status::add(response.headers_mut(), decision);
    response
}

/// The answer to `only-if-cached` when there is none (RFC 9111 §5.2.1.7).
pub(crate) fn only_if_cached<B>() -> Response<CacheBody<B>> {
    let mut response = Response::new(CacheBody::empty());
    *response.status_mut() = StatusCode::GATEWAY_TIMEOUT;
    cache_status::add(response.headers_mut(), &Decision::OnlyIfCached);
    response
}
