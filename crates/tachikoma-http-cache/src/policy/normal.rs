//! Brings the value of a selecting request field into a form in which values that mean the same are
//! the same bytes. Never says that two are the same that a server may tell apart by its rules.
//!
//! RFC 9111 §4.1 allows it: whitespace, lines that are combined, and what the field's own
//! specification calls equal. RFC 9110 §12.4 and §12.5 say that of the `Accept` fields: names
//! without regard to case, a weight of 1 is no weight, and the order says nothing.

use http::{
    HeaderMap, HeaderName,
    header::{ACCEPT, ACCEPT_CHARSET, ACCEPT_ENCODING, ACCEPT_LANGUAGE},
};

/// The lines of a field as one value, normalised; `None` if there is none.
pub fn normal(headers: &HeaderMap, name: &HeaderName) -> Option<Vec<u8>> {
    combined(headers, name).map(|value| normal_value(name, &value))
}

/// The value of all lines of a field, as if they were one ([RFC 9110 §5.3]).
///
/// [RFC 9110 §5.3]: https://www.rfc-editor.org/rfc/rfc9110#section-5.3
pub fn combined(headers: &HeaderMap, name: &HeaderName) -> Option<Vec<u8>> {
    let lines: Vec<&[u8]> =
        headers.get_all(name).iter().map(|line| line.as_bytes().trim_ascii()).collect();
    (!lines.is_empty()).then(|| lines.join(&b", "[..]))
}

/// One value, normalised ([RFC 9111 §4.1]). Normalising twice changes nothing.
///
/// [RFC 9111 §4.1]: https://www.rfc-editor.org/rfc/rfc9111#section-4.1
pub fn normal_value(name: &HeaderName, value: &[u8]) -> Vec<u8> {
    let members = members(value);
    let weighted = [ACCEPT, ACCEPT_CHARSET, ACCEPT_ENCODING, ACCEPT_LANGUAGE].contains(name);
    if weighted
        && let Some(mut members) =
            members.iter().map(|member| Weighted::read(member)).collect::<Option<Vec<_>>>()
    {
        members.sort_by(|a, b| b.weight.cmp(&a.weight).then_with(|| a.text.cmp(&b.text)));
        members.dedup();
        let members: Vec<Vec<u8>> = members.into_iter().map(Weighted::write).collect();
        return members.join(&b", "[..]);
    }
    members.join(&b", "[..])
}

/// Splits at the commas that are not inside a quoted string, and trims.
fn members(value: &[u8]) -> Vec<&[u8]> {
    split(value, b',').into_iter().map(<[u8]>::trim_ascii).collect()
}

fn split(value: &[u8], separator: u8) -> Vec<&[u8]> {
    let (mut parts, mut start, mut quoted, mut escaped) = (Vec::new(), 0, false, false);
    for (at, byte) in value.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            _ if *byte == separator && !quoted => {
                parts.push(&value[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&value[start..]);
    parts
}

/// A member of an `Accept` field: what is acceptable, and how much in thousandths.
#[derive(Debug, PartialEq, Eq)]
struct Weighted {
    text: Vec<u8>,
    weight: u16,
}

impl Weighted {
    /// `None` for what is no such member: then nothing is known of what the order means.
    fn read(member: &[u8]) -> Option<Self> {
        let mut parts = split(member, b';').into_iter().map(<[u8]>::trim_ascii);
        let mut text = parts.next()?.to_ascii_lowercase();
        let is_name = |b: &u8| b.is_ascii_alphanumeric() || b"-_./*+!#$%&'^`|~".contains(b);
        if text.is_empty() || !text.iter().all(is_name) {
            return None;
        }
        let mut weight = None;
        for parameter in parts {
            let at = parameter.iter().position(|b| *b == b'=')?;
            let (name, value) = (&parameter[..at], &parameter[at + 1..]);
            if name.eq_ignore_ascii_case(b"q") {
                // Of two weights nobody can say which one holds.
                if weight.replace(thousandths(value)?).is_some() {
                    return None;
                }
            } else {
                text.push(b';');
                // Names without regard to case; what a value means, only its type knows.
                text.extend_from_slice(&name.to_ascii_lowercase());
                text.push(b'=');
                text.extend_from_slice(value);
            }
        }
        Some(Self { text, weight: weight.unwrap_or(1_000) })
    }

    fn write(self) -> Vec<u8> {
        let Self { mut text, weight } = self;
        if weight < 1_000 {
            let digits = format!("{weight:03}");
            let digits = digits.trim_end_matches('0');
            let weight = if digits.is_empty() { ";q=0".into() } else { format!(";q=0.{digits}") };
            text.extend_from_slice(weight.as_bytes());
        }
        text
    }
}

/// A `qvalue` (RFC 9110 §12.4.2): `0` to `1` with at most three decimals.
fn thousandths(value: &[u8]) -> Option<u16> {
    let text = std::str::from_utf8(value).ok()?;
    let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
    let is_number = decimals.len() <= 3 && decimals.bytes().all(|b| b.is_ascii_digit());
    let decimals: u16 = format!("{decimals:0<3}").parse().ok().filter(|_| is_number)?;
    match whole {
        "0" => Some(decimals),
        "1" if decimals == 0 => Some(1_000),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OTHER: HeaderName = HeaderName::from_static("x-other");

    #[track_caller]
    fn check(name: &HeaderName, value: &str, expected: &str) {
        let actual = normal_value(name, value.as_bytes());
        assert_eq!(String::from_utf8(actual).unwrap(), expected, "{name}: {value:?}");
    }

    #[test]
    fn whitespace_between_members_says_nothing() {
        check(&OTHER, "1,2", "1, 2");
        check(&OTHER, " 1 ,\t2 ", "1, 2");
        check(&OTHER, "\"a,  b\",c", "\"a,  b\", c");
        check(&OTHER, "\"a\\\",  b\",c", "\"a\\\",  b\", c");
        check(&OTHER, "a  b", "a  b");
        check(&OTHER, "B, a", "B, a");
        check(&OTHER, "", "");
    }

    #[test]
    fn languages_are_compared_by_what_they_ask_for() {
        for same in ["en, de", "de, en", "eN, De", " en ,   de", "de;q=1, en;q=1.000", "en, de, EN"]
        {
            check(&ACCEPT_LANGUAGE, same, "de, en");
        }
        check(&ACCEPT_LANGUAGE, "de;q=0.5, en", "en, de;q=0.5");
        check(&ACCEPT_LANGUAGE, "en;Q=0.50 , de ; q=0.800", "de;q=0.8, en;q=0.5");
        check(&ACCEPT_LANGUAGE, "*;q=0", "*;q=0");
    }

    #[test]
    fn codings_and_media_types_too() {
        check(&ACCEPT_ENCODING, "gzip, deflate, br", "br, deflate, gzip");
        check(&ACCEPT_ENCODING, "GZIP;q=1.0,identity;q=0", "gzip, identity;q=0");
        let accept = "text/html,application/xml;q=0.9,*/*;q=0.8";
        check(&ACCEPT, accept, "text/html, application/xml;q=0.9, */*;q=0.8");
        check(&ACCEPT, "Text/HTML;Level=1;q=0.4", "text/html;level=1;q=0.4");
        check(&ACCEPT, "a/b;p=\"x;y, z\"", "a/b;p=\"x;y, z\"");
    }

    #[test]
    fn what_does_not_follow_the_grammar_keeps_its_order() {
        for odd in [
            "en, d e",
            "en;q=2, de",
            "en;q=0.1234, de",
            "en;q=0.5;q=0, de",
            "b, , a",
            "en;q, de",
            "b;q=, a",
        ] {
            check(&ACCEPT_LANGUAGE, odd, odd);
        }
    }

    proptest! {
        #[test]
        fn normalising_twice_changes_nothing(
            value in "[ -~]{0,40}",
            tags in "[a-cA-C;q=01., ]{0,30}",
        ) {
            for name in [&OTHER, &ACCEPT_LANGUAGE, &ACCEPT] {
                for value in [&value, &tags] {
                    let once = normal_value(name, value.as_bytes());
                    prop_assert_eq!(normal_value(name, &once), once);
                }
            }
        }

        #[test]
        fn the_order_of_languages_says_nothing(
            members in prop::collection::vec("[a-e]{2}(;q=0\\.[1-9])?", 1..6),
            seed: u64,
        ) {
            let mut shuffled = members.clone();
            let length = shuffled.len();
            let seed = usize::try_from(seed).unwrap_or(7);
            for at in 0..length {
                shuffled.swap(at, seed.wrapping_add(at * 31) % length);
            }
            prop_assert_eq!(
                normal_value(&ACCEPT_LANGUAGE, members.join(", ").as_bytes()),
                normal_value(&ACCEPT_LANGUAGE, shuffled.join(",").as_bytes())
            );
        }
    }
}
