//! What a reader makes of the bytes of an answer, for the fuzzers.

use super::reply;

/// The texts in these bytes, if they are an answer; each part of it goes through every function
/// that reads one.
pub(crate) fn texts(data: &[u8]) -> Vec<Vec<u8>> {
    let Ok(value) = ::redis::parse_redis_value(data) else { return Vec::new() };
    let _ = reply::scored(value.clone());
    let parts = reply::array(value.clone()).unwrap_or_else(|_| vec![value]);
    let text = |part: ::redis::Value| {
        let _ = reply::integer(part.clone());
        let _ = reply::number(part.clone());
        let _ = reply::is_ok(part.clone());
        let _ = reply::score(part.clone());
        let _ = reply::text(part.clone());
        reply::bytes(part).ok().flatten()
    };
    parts.into_iter().filter_map(text).collect()
}
