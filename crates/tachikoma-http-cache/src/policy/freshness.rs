//! Decides how long a response is fresh, counted from its creation. Never looks at a request.
//!
//! RFC 9111 §4.2.1 (explicit lifetimes), §4.2.2 (heuristic), §4.2.4 with RFC 5861 (stale windows).

use std::time::{Duration, SystemTime};

use http::StatusCode;

use super::{Options, date::DateField, response::ResponseFacts};

/// The longest lifetime that is guessed from `Last-Modified`.
const MAX_HEURISTIC: Duration = Duration::from_hours(24);

/// Where a lifetime comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// `s-maxage`
    SMaxAge,
    /// `max-age`
    MaxAge,
    /// `Expires`
    Expires,
    /// A tenth of the time since `Last-Modified`.
    Heuristic,
    /// The operator's default.
    Default,
    /// The operator's rule, whatever the response says.
    Rule,
    /// Nothing states one: it is stale at once.
    Nothing,
}

impl Source {
    /// Whether the response itself, or a rule about it, states its lifetime.
    pub fn is_explicit(self) -> bool {
        matches!(self, Self::SMaxAge | Self::MaxAge | Self::Expires | Self::Rule)
    }
}

/// A freshness lifetime and where it comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Freshness {
    /// How long after its creation the response is fresh.
    pub lifetime: Duration,
    /// Who says so.
    pub source: Source,
}

/// Returns the freshness lifetime for a shared cache ([RFC 9111 §4.2.1], [§4.2.2]).
///
/// The first of `s-maxage`, `max-age` and `Expires` that is there decides, even if it is invalid
/// (then it is zero). An error response never lives longer than `options.max_error_ttl`.
///
/// [RFC 9111 §4.2.1]: https://www.rfc-editor.org/rfc/rfc9111#section-4.2.1
/// [§4.2.2]: https://www.rfc-editor.org/rfc/rfc9111#section-4.2.2
pub fn freshness(response: &ResponseFacts, received: SystemTime, options: &Options) -> Freshness {
    let ruled = options.ttl.filter(|_| !response.is_error());
    let ruled = ruled.map(|lifetime| Freshness { lifetime, source: Source::Rule });
    let mut freshness = ruled
        .or_else(|| explicit(response, received))
        .or_else(|| implicit(response, received, options))
        .unwrap_or(Freshness { lifetime: Duration::ZERO, source: Source::Nothing });
    if response.is_error() {
        freshness.lifetime = freshness.lifetime.min(options.max_error_ttl);
    }
    freshness
}

fn explicit(response: &ResponseFacts, received: SystemTime) -> Option<Freshness> {
    let directives = &response.directives;
    if let Some(lifetime) = directives.s_maxage {
        return Some(Freshness { lifetime, source: Source::SMaxAge });
    }
    if let Some(lifetime) = directives.max_age {
        return Some(Freshness { lifetime, source: Source::MaxAge });
    }
    let lifetime = match response.expires {
        DateField::Absent => return None,
        DateField::Invalid => Duration::ZERO,
        DateField::At(expires) => {
            expires.duration_since(response.date.unwrap_or(received)).unwrap_or_default()
        }
    };
    Some(Freshness { lifetime, source: Source::Expires })
}

fn implicit(
    response: &ResponseFacts,
    received: SystemTime,
    options: &Options,
) -> Option<Freshness> {
    if !response.directives.public && !is_heuristically_cacheable(response.status) {
        return None;
    }
    if let Some(modified) = response.validators.last_modified.filter(|_| options.heuristic) {
        let unchanged_for = response.date.unwrap_or(received).duration_since(modified);
        let lifetime = (unchanged_for.unwrap_or_default() / 10).min(MAX_HEURISTIC);
        return Some(Freshness { lifetime, source: Source::Heuristic });
    }
    // An error is only kept when it says so itself.
    let lifetime = options.default_ttl.filter(|_| !response.is_error())?;
    Some(Freshness { lifetime, source: Source::Default })
}

/// The final status codes that may be cached without explicit freshness ([RFC 9110 §15.1]).
///
/// [RFC 9110 §15.1]: https://www.rfc-editor.org/rfc/rfc9110#section-15.1
pub fn is_heuristically_cacheable(status: StatusCode) -> bool {
    matches!(status.as_u16(), 200 | 203 | 204 | 206 | 300 | 301 | 308 | 404 | 405 | 410 | 414 | 501)
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use http::{HeaderMap, HeaderName, HeaderValue};
    use proptest::prelude::*;

    use super::*;

    const NOW: u64 = 784_111_777;

    fn date(secs: u64) -> String {
        httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(secs))
    }

    fn of(status: u16, fields: &[(&str, &str)], options: &Options) -> Freshness {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(
                HeaderName::from_bytes(name.as_bytes()).unwrap(),
                HeaderValue::from_str(value).unwrap(),
            );
        }
        let facts = ResponseFacts::read(StatusCode::from_u16(status).unwrap(), &headers, &[]);
        freshness(&facts, UNIX_EPOCH + Duration::from_secs(NOW), options)
    }

    #[track_caller]
    fn check(fields: &[(&str, &str)], secs: u64, source: Source) {
        let expected = Freshness { lifetime: Duration::from_secs(secs), source };
        assert_eq!(of(200, fields, &Options::default()), expected, "{fields:?}");
    }

    #[test]
    fn the_most_specific_lifetime_decides() {
        let expires = ("expires", &*date(NOW + 30));
        check(&[("cache-control", "s-maxage=10, max-age=20"), expires], 10, Source::SMaxAge);
        check(&[("cache-control", "max-age=20"), expires], 20, Source::MaxAge);
        check(&[expires], 30, Source::Expires);
        check(&[("cache-control", "public"), expires], 30, Source::Expires);
        check(&[], 0, Source::Nothing);
    }

    #[test]
    fn an_invalid_lifetime_is_zero_and_not_skipped() {
        let expires = ("expires", &*date(NOW + 30));
        check(&[("cache-control", "max-age=x"), expires], 0, Source::MaxAge);
        check(&[("cache-control", "s-maxage=, max-age=20")], 0, Source::SMaxAge);
        check(&[("expires", "0")], 0, Source::Expires);
        check(&[expires, ("expires", "0")], 0, Source::Expires);
        check(&[expires, ("expires", &date(NOW + 60))], 0, Source::Expires);
    }

    #[test]
    fn expires_counts_from_the_date_of_the_response() {
        check(&[("expires", &date(NOW + 30)), ("date", &date(NOW + 10))], 20, Source::Expires);
        check(&[("expires", &date(NOW + 30)), ("date", "x")], 30, Source::Expires);
        check(&[("expires", &date(NOW - 30))], 0, Source::Expires);
        check(&[("expires", "Sunday, 06-Nov-94 08:50:07 GMT")], 30, Source::Expires);
        check(&[("expires", "Sun Nov  6 08:50:07 1994")], 30, Source::Expires);
    }

    #[test]
    fn a_lifetime_is_guessed_only_when_asked_for() {
        let modified = [("last-modified", &*date(NOW - 1_000))];
        check(&modified, 0, Source::Nothing);
        let guess = Options { heuristic: true, ..Options::default() };
        let hundred = Freshness { lifetime: Duration::from_secs(100), source: Source::Heuristic };
        assert_eq!(of(200, &modified, &guess), hundred);
        assert_eq!(of(501, &modified, &guess).lifetime, Duration::from_secs(10));
        for status in [201, 302, 303, 307, 400, 403, 500, 503, 599] {
            assert_eq!(of(status, &modified, &guess).source, Source::Nothing, "{status}");
        }
        let old = [("last-modified", "Sun, 06 Nov 1983 08:49:37 GMT")];
        assert_eq!(of(200, &old, &guess).lifetime, MAX_HEURISTIC);
        let future = [("last-modified", &*date(NOW + 1_000))];
        assert_eq!(of(200, &future, &guess).lifetime, Duration::ZERO);
        let public = [("last-modified", &*date(NOW - 50)), ("cache-control", "public")];
        assert_eq!(of(302, &public, &guess).lifetime, Duration::from_secs(5));
    }

    #[test]
    fn a_default_lifetime_never_replaces_a_stated_one_and_never_keeps_errors() {
        let minute = Options { default_ttl: Some(Duration::from_mins(1)), ..Options::default() };
        assert_eq!(of(200, &[], &minute).lifetime, Duration::from_mins(1));
        assert_eq!(of(200, &[("cache-control", "max-age=0")], &minute).lifetime, Duration::ZERO);
        for status in [201, 302, 404, 500] {
            assert_eq!(of(status, &[], &minute).source, Source::Nothing, "{status}");
        }
    }

    #[test]
    fn an_error_lives_ten_seconds_at_most() {
        let hour = [("cache-control", "max-age=3600")];
        for status in [400, 404, 410, 500, 503] {
            let lifetime = of(status, &hour, &Options::default()).lifetime;
            assert_eq!(lifetime, Duration::from_secs(10), "{status}");
        }
    }

    proptest! {
        #[test]
        fn no_lifetime_exceeds_the_largest_number_of_seconds(value: u64, status in 200u16..600) {
            let line = format!("max-age={value}");
            let freshness = of(status, &[("cache-control", &line)], &Options::default());
            prop_assert!(freshness.lifetime <= Duration::from_secs(1 << 31));
        }
    }
}
