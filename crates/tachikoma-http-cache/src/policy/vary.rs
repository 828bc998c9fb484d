//! Decides which request fields select a stored response, and whether a request selects it.
//!
//! RFC 9111 §4.1. Values are compared on the whole combined field, in its [normal](super::normal)
//! form unless that is switched off. Stricter than the RFC: a `Vary` that is invalid or too long is
//! never stored, and neither is a credential as a selector.

use http::{
    HeaderMap, HeaderName,
    header::{AUTHORIZATION, COOKIE, VARY},
};

use super::{
    decision::Refusal,
    normal::{combined, normal, normal_value},
};

/// More names than this in one `Vary` are not stored.
pub const MAX_FIELDS: usize = 32;

/// What the `Vary` of a response says, all its lines together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Vary {
    /// These request fields select it, sorted and each once; none if there is no `Vary`.
    Fields(Vec<HeaderName>),
    /// `*` stands somewhere: more than the request selects it.
    Star,
    /// Not a list of field names, or more than [`MAX_FIELDS`].
    Invalid,
}

impl Vary {
    /// Reads each `Vary` line ([RFC 9110 §12.5.5]).
    ///
    /// [RFC 9110 §12.5.5]: https://www.rfc-editor.org/rfc/rfc9110#section-12.5.5
    pub fn read(headers: &HeaderMap) -> Self {
        let (mut fields, mut valid) = (Vec::new(), true);
        for line in headers.get_all(VARY) {
            for member in line.as_bytes().split(|b| *b == b',').map(<[u8]>::trim_ascii) {
                match HeaderName::from_bytes(member) {
                    // `*` is a valid field name to the parser, and so is any list with it in.
                    _ if member == b"*" => return Self::Star,
                    _ if member.is_empty() => {}
                    Ok(name) => fields.push(name),
                    Err(_) => valid = false,
                }
            }
        }
        fields.sort_by(|a, b| a.as_str().cmp(b.as_str()));
        fields.dedup();
        if valid && fields.len() <= MAX_FIELDS { Self::Fields(fields) } else { Self::Invalid }
    }

    /// The names, with `always` among them, or why such a response is never selected.
    ///
    /// # Errors
    ///
    /// [`Refusal::VaryStar`] and [`Refusal::VaryInvalid`].
    pub fn with(&self, always: &[HeaderName]) -> Result<Vec<HeaderName>, Refusal> {
        let fields = match self {
            Self::Fields(fields) => fields,
            Self::Star => return Err(Refusal::VaryStar),
            Self::Invalid => return Err(Refusal::VaryInvalid),
        };
        let mut all: Vec<HeaderName> = fields.iter().chain(always).cloned().collect();
        all.sort_by(|a, b| a.as_str().cmp(b.as_str()));
        all.dedup();
        Ok(all)
    }
}

/// The request fields that select a stored response, with the values they had.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Selector {
    /// Sorted by name; `None` where the request did not have the field.
    pub fields: Vec<(HeaderName, Option<Vec<u8>>)>,
    /// Values are compared byte for byte, not in their normal form.
    pub exact: bool,
}

impl Selector {
    /// The values of `names` in this request; `normalize` is how they are compared.
    ///
    /// # Errors
    ///
    /// [`Refusal::VaryCredentials`]: credentials are never written to a store.
    pub fn of(
        names: Vec<HeaderName>,
        request: &HeaderMap,
        normalize: bool,
    ) -> Result<Self, Refusal> {
        let is_credential = |name: &HeaderName| {
            (name == COOKIE || name == AUTHORIZATION) && request.contains_key(name)
        };
        if names.iter().any(is_credential) {
            return Err(Refusal::VaryCredentials);
        }
        let fields = names.into_iter().map(|name| {
            let value = if normalize { normal(request, &name) } else { combined(request, &name) };
            (name, value)
        });
        Ok(Self { fields: fields.collect(), exact: !normalize })
    }

    /// Whether a request selects this response ([RFC 9111 §4.1]).
    ///
    /// [RFC 9111 §4.1]: https://www.rfc-editor.org/rfc/rfc9111#section-4.1
    pub fn matches(&self, request: &HeaderMap) -> bool {
        self.fields.iter().all(|(name, value)| same(request, name, value.as_deref(), self.exact))
    }

    /// Whether each of these request headers takes part in the selection.
    pub fn covers(&self, names: &[HeaderName]) -> bool {
        names.iter().all(|name| self.fields.iter().any(|(known, _)| known == name))
    }
}

fn same(headers: &HeaderMap, name: &HeaderName, value: Option<&[u8]>, exact: bool) -> bool {
    let mut lines = headers.get_all(name).iter();
    let Some((line, value)) = lines.next().zip(value) else {
        return value.is_none() && !headers.contains_key(name);
    };
    // Most requests spell it like the one before; only other ones are taken apart.
    let is_same_line = lines.next().is_none() && line.as_bytes().trim_ascii() == value;
    is_same_line
        || combined(headers, name).is_some_and(|combined| {
            combined == value || (!exact && normal_value(name, &combined) == value)
        })
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            let value = HeaderValue::from_bytes(value.as_bytes()).unwrap();
            headers.append(HeaderName::from_static(name), value);
        }
        headers
    }

    fn vary(lines: &[&str]) -> Vary {
        let lines: Vec<_> = lines.iter().map(|line| ("vary", *line)).collect();
        Vary::read(&headers(&lines))
    }

    fn fields(names: &[&'static str]) -> Vary {
        Vary::Fields(names.iter().map(|name| HeaderName::from_static(name)).collect())
    }

    #[test]
    fn names_are_read_without_regard_to_case_order_and_lines() {
        assert_eq!(vary(&[]), fields(&[]));
        assert_eq!(vary(&["Foo, BAR"]), fields(&["bar", "foo"]));
        assert_eq!(vary(&["foo", "bar", "Foo"]), fields(&["bar", "foo"]));
        assert_eq!(vary(&[""]), fields(&[]));
        assert_eq!(vary(&[" , ,"]), fields(&[]));
    }

    #[test]
    fn a_star_anywhere_selects_nothing() {
        for lines in [&["*"][..], &["foo, *"], &["foo", " * "], &["*", "foo"], &["a b", "*"]] {
            assert_eq!(vary(lines), Vary::Star, "{lines:?}");
        }
    }

    #[test]
    fn what_is_no_list_of_names_is_invalid() {
        let many: Vec<String> = (0..200).map(|i| format!("x-{i}")).collect();
        for line in ["a b", "\"a\"", "é", "a;b", &many.join(",")] {
            assert_eq!(vary(&[line]), Vary::Invalid, "{line:?}");
        }
    }

    fn selector(names: &[&'static str], request: &HeaderMap) -> Selector {
        let names = names.iter().map(|name| HeaderName::from_static(name)).collect();
        Selector::of(names, request, true).unwrap()
    }

    #[track_caller]
    fn check(stored: &[(&'static str, &str)], request: &[(&'static str, &str)], expected: bool) {
        let actual = selector(&["x"], &headers(stored)).matches(&headers(request));
        assert_eq!(actual, expected, "{stored:?} {request:?}");
    }

    #[test]
    fn the_whole_combined_field_is_compared() {
        check(&[("x", "a"), ("x", "b")], &[("x", "a, b")], true);
        check(&[("x", "a, b")], &[("x", "a"), ("x", "b")], true);
        check(&[("x", "a"), ("x", "b")], &[("x", "a"), ("x", "c")], false);
        check(&[("x", "a"), ("x", "b")], &[("x", "a")], false);
        check(&[("x", "a")], &[("x", "a"), ("x", "b")], false);
        check(&[("x", "a")], &[("x", " a ")], true);
        check(&[("x", "a")], &[("x", "A")], false);
    }

    #[test]
    fn spellings_of_the_same_value_select_the_same_unless_that_is_off() {
        let language = HeaderName::from_static("accept-language");
        let stored = headers(&[("accept-language", "en, de;q=0.5")]);
        let asked = headers(&[("accept-language", "DE;q=0.50,en")]);
        let other = headers(&[("accept-language", "de, en;q=0.5")]);
        for (normalize, expected) in [(true, true), (false, false)] {
            let selector = Selector::of(vec![language.clone()], &stored, normalize).unwrap();
            assert!(selector.matches(&stored), "{normalize}");
            assert_eq!(selector.matches(&asked), expected, "{normalize}");
            assert!(!selector.matches(&other), "{normalize}");
        }
    }

    #[test]
    fn absent_and_empty_differ() {
        check(&[], &[], true);
        check(&[("x", "")], &[], false);
        check(&[], &[("x", "")], false);
        check(&[("x", "")], &[("x", "")], true);
        check(&[], &[("y", "1")], true);
    }

    #[test]
    fn credentials_are_never_selectors() {
        let request = headers(&[("cookie", "a=b")]);
        let refused = Selector::of(vec![COOKIE], &request, true);
        assert_eq!(refused, Err(Refusal::VaryCredentials));
        assert!(Selector::of(vec![COOKIE, AUTHORIZATION], &HeaderMap::new(), true).is_ok());
    }

    proptest! {
        #[test]
        fn a_request_selects_its_own_response(
            values in prop::collection::vec("[ -~]{0,12}", 0..4),
            other in "[ -~]{0,12}",
        ) {
            let lines: Vec<_> = values.iter().map(|value| ("x", value.as_str())).collect();
            let request = headers(&lines);
            let selector = selector(&["x", "y"], &request);
            prop_assert!(selector.matches(&request));
            let mut unrelated = request.clone();
            unrelated.insert("z", HeaderValue::from_str(&other).unwrap());
            prop_assert!(selector.matches(&unrelated));
        }
    }
}
