//! Tickets of requests: a client that was told of a write is shown nothing older.
//!
//! Decides which ticket a request brings. What it is good for, the cache decides
//! ([`Cache::honour`]).

use http::{HeaderMap, HeaderName};
use tachikoma_cache::{Cache, Ticket};

/// The field that carries a [`Ticket`]: the answer to a write gives it, later requests bring it.
pub const CACHE_TICKET: HeaderName = HeaderName::from_static("cache-ticket");

/// The ticket of a request, if it brings one. What is no ticket, or several, stands for everything
/// until now: to pass it over would show what its sender may know to be old.
pub(crate) fn of(headers: &HeaderMap, cache: &Cache) -> Option<Ticket> {
    let mut values = headers.get_all(CACHE_TICKET).iter();
    let first = values.next()?;
    let only = values.next().is_none().then_some(first);
    let ticket = only.and_then(|value| value.to_str().ok()?.trim().parse().ok());
    Some(ticket.unwrap_or_else(|| cache.ticket()))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn what_is_no_ticket_stands_for_everything_until_now() {
        let cache = Cache::memory().build().unwrap();
        let known = cache.ticket();
        let text = HeaderValue::from_str(&known.to_string()).unwrap();
        let read = |values: &[&HeaderValue]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(CACHE_TICKET, (*value).clone());
            }
            of(&headers, &cache)
        };
        assert_eq!(read(&[]), None);
        assert_eq!(read(&[&text]), Some(known));
        let (empty, bytes) = (HeaderValue::from_static(""), HeaderValue::from_bytes(b"1-\xff"));
        for bad in [&[&empty][..], &[&bytes.unwrap()], &[&text, &text]] {
            let read = read(bad);
            assert!(read.is_some_and(|ticket| ticket != known), "{bad:?}");
        }
    }
}
