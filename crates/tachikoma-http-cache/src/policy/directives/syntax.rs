//! Takes a `Cache-Control` line apart. Knows no directive by name.
//!
//! The grammar is RFC 9111 §5.2 (`token [ "=" ( token / quoted-string ) ]`, in a list), and a
//! line that breaks it still yields each directive that can be seen in it.

use std::time::Duration;

use http::HeaderValue;

/// One directive: its name in lower case, and its value without quotes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directive {
    /// The name, in lower case.
    pub name: String,
    /// What stands after `=`, unquoted and trimmed.
    pub value: Option<String>,
}

/// The longest time that counts (RFC 9111 §1.2.2): 2³¹ seconds.
pub(crate) const MAX_DELTA: Duration = Duration::from_secs(1 << 31);

/// Reads `delta-seconds` ([RFC 9111 §1.2.2]): only digits; what does not fit counts as 2³¹.
///
/// [RFC 9111 §1.2.2]: https://www.rfc-editor.org/rfc/rfc9111#section-1.2.2
pub fn delta_seconds(text: &str) -> Option<Duration> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    // All digits: the only way to fail is to be too large.
    let seconds = text.parse().unwrap_or(u64::MAX);
    Some(Duration::from_secs(seconds).min(MAX_DELTA))
}

/// The directives of one line, in order.
pub fn directives(line: &HeaderValue) -> Vec<Directive> {
    let text = String::from_utf8_lossy(line.as_bytes());
    members(&text).into_iter().filter_map(directive).collect()
}

/// Splits at the commas that are not inside a quoted value. A quote that does not follow `=`, or
/// that never closes, is no quote, so that it cannot hide a `no-store` behind it.
fn members(text: &str) -> Vec<&str> {
    let bytes = text.as_bytes();
    let mut members = Vec::new();
    let (mut start, mut at) = (0, 0);
    while at < bytes.len() {
        match bytes[at] {
            b',' => {
                members.push(&text[start..at]);
                start = at + 1;
            }
            b'"' if text[start..at].trim_end().ends_with('=') => {
                at = closing_quote(bytes, at).unwrap_or(at);
            }
            _ => {}
        }
        at += 1;
    }
    members.push(&text[start..]);
    members
}

fn closing_quote(bytes: &[u8], open: usize) -> Option<usize> {
    let mut at = open + 1;
    while at < bytes.len() {
        match bytes[at] {
            b'"' => return Some(at),
            b'\\' => at += 1,
            _ => {}
        }
        at += 1;
    }
    None
}

fn directive(member: &str) -> Option<Directive> {
    let (name, value) = match member.split_once('=') {
        Some((name, value)) => (name, Some(unquote(value.trim()))),
        None => (member, None),
    };
    let name = name.trim().to_ascii_lowercase();
    (!name.is_empty()).then_some(Directive { name, value })
}

fn unquote(value: &str) -> String {
    let Some(inner) =
        value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).filter(|_| value.len() > 1)
    else {
        return value.to_owned();
    };
    let mut unquoted = String::with_capacity(inner.len());
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        unquoted.push(if c == '\\' { chars.next().unwrap_or('\\') } else { c });
    }
    unquoted
}
