//! Decides which field states how a response may be cached: `Cache-Control`, or one that is
//! targeted at caches like this one (`CDN-Cache-Control`). Never what follows from it.
//!
//! RFC 9213: a targeted field is a Structured Field, so unlike `Cache-Control` it is valid as a
//! whole or not there at all.

use http::{HeaderMap, HeaderName, HeaderValue};
use sfv::{BareItem, Dictionary, Item, ListEntry, Parser};

use super::directives::{Directive, ResponseDirectives};

/// The directives of a response, and who states them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Governing {
    /// What is stated.
    pub directives: ResponseDirectives,
    /// The targeted field that states it; `None` for `Cache-Control`, with `Expires`.
    pub field: Option<HeaderName>,
}

/// Reads the directives that govern a response ([RFC 9213 §2.2]): those of the first field of
/// `targeted` that is there, valid and not empty, which replaces `Cache-Control` and `Expires`;
/// else those of `Cache-Control`.
///
/// [RFC 9213 §2.2]: https://www.rfc-editor.org/rfc/rfc9213#section-2.2
pub fn governing(headers: &HeaderMap, targeted: &[HeaderName]) -> Governing {
    for name in targeted {
        if let Some(directives) = read(headers, name) {
            return Governing { directives, field: Some(name.clone()) };
        }
    }
    Governing { directives: ResponseDirectives::read(headers), field: None }
}

/// A targeted field as a dictionary ([RFC 9213 §2.1]); `None` if it is not one, or empty.
///
/// [RFC 9213 §2.1]: https://www.rfc-editor.org/rfc/rfc9213#section-2.1
fn read(headers: &HeaderMap, name: &HeaderName) -> Option<ResponseDirectives> {
    let lines: Vec<&[u8]> = headers.get_all(name).iter().map(HeaderValue::as_bytes).collect();
    if lines.is_empty() {
        return None;
    }
    let members = Parser::new(&lines.join(&b", "[..])).parse::<Dictionary>().ok()?;
    let directives = members.iter().map(|(name, member)| directive(name.as_str(), member));
    let directives = ResponseDirectives::of(directives);
    (!members.is_empty()).then_some(directives)
}

/// A member as a directive. A value of a type that the directive does not take is kept as one that
/// nothing accepts: it counts, like any invalid value, as the strictest.
fn directive(name: &str, member: &ListEntry) -> Directive {
    let value = match member {
        ListEntry::Item(Item { bare_item: BareItem::Boolean(_), .. }) => None,
        ListEntry::Item(Item { bare_item: BareItem::Integer(number), .. })
            if !names_fields(name) =>
        {
            Some(number.to_string())
        }
        // Field names are quoted; a number that is quoted is none here.
        ListEntry::Item(Item { bare_item: BareItem::String(text), .. }) if names_fields(name) => {
            Some(text.as_str().to_owned())
        }
        _ => Some(INVALID.to_owned()),
    };
    Directive { name: name.to_owned(), value }
}

/// No number and no field name.
const INVALID: &str = "?";

fn names_fields(name: &str) -> bool {
    matches!(name, "no-cache" | "private")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::policy::directives::Scope;

    const CDN: HeaderName = HeaderName::from_static("cdn-cache-control");
    const OWN: HeaderName = HeaderName::from_static("tachikoma-cache-control");

    fn governing_of(fields: &[(&str, &str)]) -> Governing {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            headers.append(name, HeaderValue::from_str(value).unwrap());
        }
        governing(&headers, &[OWN, CDN])
    }

    /// What governs beside `Cache-Control: max-age=7`.
    #[track_caller]
    fn check(value: &str, field: Option<&HeaderName>, max_age: Option<u64>) {
        let fields = [("cache-control", "max-age=7"), ("cdn-cache-control", value)];
        let Governing { directives, field: actual } = governing_of(&fields);
        assert_eq!(actual.as_ref(), field, "{value:?}");
        assert_eq!(directives.max_age, max_age.map(Duration::from_secs), "{value:?}");
    }

    #[test]
    fn a_targeted_field_replaces_cache_control() {
        check("max-age=60", Some(&CDN), Some(60));
        check("foo, max-age=60", Some(&CDN), Some(60));
        check("max-age=60;param", Some(&CDN), Some(60));
        check("max-age=1, max-age=60", Some(&CDN), Some(60));
        check("max-age=99999999999", Some(&CDN), Some(1 << 31));
        check("no-store", Some(&CDN), None);
        check("foo", Some(&CDN), None);
    }

    #[test]
    fn one_that_is_invalid_or_empty_is_not_there() {
        for value in [
            "",
            "max-age=60, &&&&&",
            "MaX-aGe=60",
            "max-age =60",
            "max-age= 60",
            "max-age=60,",
            "max-age=1234567890123456",
            "max-age=\"60",
            "no-store; ;",
        ] {
            check(value, None, Some(7));
        }
    }

    #[test]
    fn a_value_of_the_wrong_type_is_the_strictest() {
        for value in ["max-age=\"60\"", "max-age=60.5", "max-age=abc", "max-age=(60)", "max-age=-1"]
        {
            check(value, Some(&CDN), Some(0));
        }
        let directives = |value| governing_of(&[("cdn-cache-control", value)]).directives;
        for value in ["no-store", "no-store=?0", "no-store=5", "no-store=\"x\""] {
            assert!(directives(value).no_store, "{value}");
        }
        assert_eq!(directives("private").private, Scope::Whole);
        assert_eq!(directives("private=5").private, Scope::Whole);
        let named = Scope::Fields(vec![HeaderName::from_static("x-user")]);
        assert_eq!(directives("private=\"x-user\"").private, named);
    }

    #[test]
    fn the_first_of_the_list_that_is_valid_governs() {
        let both = [("cdn-cache-control", "max-age=60"), ("tachikoma-cache-control", "max-age=5")];
        let first = governing_of(&both);
        assert_eq!(
            (first.field, first.directives.max_age),
            (Some(OWN), Some(Duration::from_secs(5)))
        );
        let invalid =
            [("cdn-cache-control", "max-age=60"), ("tachikoma-cache-control", "max-age=")];
        assert_eq!(governing_of(&invalid).field, Some(CDN));
        let other = [("surrogate-control", "max-age=60"), ("cache-control", "no-store")];
        assert!(governing_of(&other).directives.no_store);
    }

    #[test]
    fn lines_are_one_dictionary() {
        let lines = [("cdn-cache-control", "max-age=60"), ("cdn-cache-control", "no-store")];
        let Governing { directives, .. } = governing_of(&lines);
        assert!(directives.no_store && directives.max_age.is_some());
    }

    proptest! {
        #[test]
        fn whatever_stands_in_it_something_governs(value in "[ -~]{0,40}") {
            let _ = governing_of(&[("cdn-cache-control", value.trim())]);
        }
    }
}
