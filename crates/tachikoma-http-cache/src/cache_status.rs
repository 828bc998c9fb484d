//! Says in the `Cache-Status` field what the cache decided ([RFC 9211]). Decides nothing.
//!
//! [RFC 9211]: https://www.rfc-editor.org/rfc/rfc9211

use http::{HeaderMap, HeaderName, HeaderValue};
use sfv::{KeyRef, ListSerializer, RefBareItem, StringRef, TokenRef};

use crate::policy::decision::{Decision, Forward};

const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

/// Appends this cache's member: the last one is the cache nearest to the client.
pub(crate) fn add(headers: &mut HeaderMap, decision: &Decision) {
    if let Some(value) = member(decision).and_then(|text| HeaderValue::from_str(&text).ok()) {
        headers.append(CACHE_STATUS, value);
    }
}

/// The member of one decision, as text.
pub(crate) fn member(decision: &Decision) -> Option<String> {
    // The serialiser is the library's, so whatever comes in, what goes out is a structured field.
    let mut list = ListSerializer::new();
    let name = RefBareItem::Token(TokenRef::from_str("tachikoma").ok()?);
    let mut parameters = list.bare_item(name);
    let key = |name| KeyRef::from_str(name).ok();

    let seconds = |duration: std::time::Duration| i64::try_from(duration.as_secs()).ok();
    let detail;
    match decision {
        Decision::Hit { ttl } => {
            parameters = parameters.parameter(key("hit")?, true);
            parameters = parameters.parameter(key("ttl")?, integer(seconds(*ttl)?)?);
        }
        Decision::Stale { by, allowed } => {
            parameters = parameters.parameter(key("hit")?, true);
            parameters = parameters.parameter(key("ttl")?, integer(-seconds(*by)?)?);
            parameters = parameters.parameter(key("detail")?, token(allowed.name())?);
        }
        Decision::OnlyIfCached => {
            parameters = parameters.parameter(key("detail")?, token("only-if-cached")?);
        }
        Decision::Forwarded { why, status, collapsed, stored } => {
            parameters = parameters.parameter(key("fwd")?, token(why.token())?);
            if let Some(status) = status {
                let status = integer(i64::from(status.as_u16()))?;
                parameters = parameters.parameter(key("fwd-status")?, status);
            }
            if *collapsed {
                parameters = parameters.parameter(key("collapsed")?, true);
            }
            match stored {
                Some(Ok(())) => parameters = parameters.parameter(key("stored")?, true),
                Some(Err(refusal)) => {
                    detail = refusal.to_string();
                    let detail = match token(&detail) {
                        Some(token) => token,
                        None => RefBareItem::String(StringRef::from_str(&detail).ok()?),
                    };
                    parameters = parameters.parameter(key("detail")?, detail);
                }
                None => {}
            }
            if let Forward::Bypass(why) = why {
                parameters = parameters.parameter(key("detail")?, token(why.name())?);
            }
        }
    }
    let _ = parameters.finish();
    list.finish()
}

fn token(name: &str) -> Option<RefBareItem<'_>> {
    TokenRef::from_str(name).ok().map(RefBareItem::Token)
}

fn integer<'a>(value: i64) -> Option<RefBareItem<'a>> {
    sfv::Integer::try_from(value).ok().map(RefBareItem::Integer)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::StatusCode;
    use sfv::{List, Parser};

    use super::*;
    use crate::policy::decision::{Bypass, Refusal, StaleUse};

    #[track_caller]
    #[allow(clippy::needless_pass_by_value)] // Each row reads as a table.
    fn check(decision: Decision, expected: &str) {
        let text = member(&decision).unwrap();
        assert_eq!(text, expected, "{decision:?}");
        Parser::new(&text).parse::<List>().unwrap();
    }

    #[test]
    fn each_decision_is_said_in_the_words_of_the_rfc() {
        let forwarded =
            |why, stored| Decision::Forwarded { why, status: None, collapsed: false, stored };
        check(Decision::Hit { ttl: Duration::from_millis(7_900) }, "tachikoma;hit;ttl=7");
        check(
            Decision::Stale { by: Duration::from_secs(3), allowed: StaleUse::WhileRevalidate },
            "tachikoma;hit;ttl=-3;detail=stale-while-revalidate",
        );
        check(Decision::OnlyIfCached, "tachikoma;detail=only-if-cached");
        check(forwarded(Forward::UriMiss, Some(Ok(()))), "tachikoma;fwd=uri-miss;stored");
        check(forwarded(Forward::VaryMiss, None), "tachikoma;fwd=vary-miss");
        check(
            forwarded(Forward::UriMiss, Some(Err(Refusal::SetCookie))),
            "tachikoma;fwd=uri-miss;detail=set-cookie",
        );
        let name = HeaderName::from_static("x-forwarded-host");
        check(
            forwarded(Forward::UriMiss, Some(Err(Refusal::Unkeyed(name)))),
            "tachikoma;fwd=uri-miss;detail=\"unkeyed x-forwarded-host\"",
        );
        check(Decision::bypass(Bypass::Method), "tachikoma;fwd=method;detail=method");
        check(forwarded(Forward::Partial, Some(Ok(()))), "tachikoma;fwd=partial;stored");
        check(forwarded(Forward::Elsewhere, Some(Ok(()))), "tachikoma;fwd=miss;stored");
        let revalidated = Decision::Forwarded {
            why: Forward::Stale,
            status: Some(StatusCode::NOT_MODIFIED),
            collapsed: true,
            stored: Some(Ok(())),
        };
        check(revalidated, "tachikoma;fwd=stale;fwd-status=304;collapsed;stored");
    }

    #[test]
    fn a_cache_further_away_keeps_its_member() {
        let mut headers = HeaderMap::new();
        headers.insert(CACHE_STATUS, HeaderValue::from_static("far;hit"));
        add(&mut headers, &Decision::OnlyIfCached);
        let all: Vec<_> = headers.get_all(CACHE_STATUS).iter().collect();
        assert_eq!(all, ["far;hit", "tachikoma;detail=only-if-cached"]);
    }
}
