//! Decides whether a request has been here before: two proxies that lead to each other would pass
//! it on for ever (RFC 8586, RFC 9110 §7.6.3).
//!
//! Each process marks what it forwards with an identity of its own, so that one instance may stand
//! behind another. `Via` has no room for an identity; it only bounds how often this kind of proxy
//! stands in one line, for a loop through something that removes `CDN-Loop`.

use http::header::VIA;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::fields::PSEUDONYM;

const CDN_LOOP: HeaderName = HeaderName::from_static("cdn-loop");

/// Instances of this proxy that one request may pass.
const MAX_INSTANCES: usize = 16;

/// The identity of this process, as it stands in `CDN-Loop`.
#[derive(Debug, Clone)]
pub(crate) struct Identity(HeaderValue);

impl Identity {
    /// `random` tells this process from the others.
    pub(crate) fn new(random: u64) -> Self {
        let member = format!("{PSEUDONYM};id=\"{random:016x}\"");
        // Letters, digits and quotes: always valid.
        Self(HeaderValue::from_str(&member).unwrap_or(HeaderValue::from_static(PSEUDONYM)))
    }

    /// Whether this process has forwarded the request already, or too many like it have.
    pub(crate) fn has_seen(&self, headers: &HeaderMap) -> bool {
        let own = members(headers, &CDN_LOOP).any(|member| member == self.0.as_bytes());
        let like_it = members(headers, &VIA).filter(|member| is_like_this(member));
        own || like_it.count() >= MAX_INSTANCES
    }

    /// Marks a request that is forwarded.
    pub(crate) fn mark(&self, headers: &mut HeaderMap) {
        headers.append(CDN_LOOP, self.0.clone());
    }
}

fn members<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a [u8]> {
    let lines = headers.get_all(name).into_iter();
    lines.flat_map(|line| line.as_bytes().split(|b| *b == b',')).map(<[u8]>::trim_ascii)
}

/// Whether a member of `Via` is of this kind of proxy: `1.1 tachikoma`, maybe with a comment.
fn is_like_this(member: &[u8]) -> bool {
    let mut words = member.split(u8::is_ascii_whitespace);
    words.nth(1).is_some_and(|word| word == PSEUDONYM.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(lines: &[(&'static str, &str)], expected: bool) {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, value.parse().expect("a value"));
        }
        assert_eq!(Identity::new(7).has_seen(&headers), expected, "{lines:?}");
    }

    #[test]
    fn a_request_is_refused_by_who_has_forwarded_it_already() {
        check(&[], false);
        check(&[("cdn-loop", "other, tachikoma;id=\"0000000000000008\"")], false);
        check(&[("cdn-loop", "tachikoma")], false);
        check(&[("cdn-loop", "a"), ("cdn-loop", "b , tachikoma;id=\"0000000000000007\"")], true);
        let mut headers = HeaderMap::new();
        Identity::new(7).mark(&mut headers);
        assert!(Identity::new(7).has_seen(&headers));
        assert!(!Identity::new(8).has_seen(&headers));
    }

    #[test]
    fn a_line_of_many_like_it_is_taken_for_a_loop() {
        check(&[("via", "1.1 tachikoma, 1.1 other")], false);
        check(&[("via", &vec!["1.1 tachikoma"; 15].join(", "))], false);
        check(&[("via", &vec!["1.1 tachikoma (x)"; 16].join(","))], true);
    }
}
