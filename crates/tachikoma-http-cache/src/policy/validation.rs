//! Decides whether a stored response is still the current one: builds the question to the origin,
//! applies its 304, and answers the same question of a client.
//!
//! RFC 9111 §3.2 and §4.3; RFC 9110 §8.8 and §13. Never decides whether to ask.

use std::time::SystemTime;

use http::{
    HeaderMap, HeaderName, HeaderValue, StatusCode,
    header::{
        CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG,
        IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED,
    },
};

use super::{date, directives::ResponseDirectives, fields::remove_unstored};

/// An entity tag ([RFC 9110 §8.8.3]).
///
/// [RFC 9110 §8.8.3]: https://www.rfc-editor.org/rfc/rfc9110#section-8.8.3
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ETag {
    /// `W/`: equal tags mean equivalent, not identical bytes.
    pub weak: bool,
    /// What stands between the quotes.
    pub opaque: Vec<u8>,
}

impl ETag {
    /// Reads `ETag`; `None` unless it is there exactly once and valid.
    pub fn read(headers: &HeaderMap) -> Option<Self> {
        let mut lines = headers.get_all(ETAG).iter();
        let (tag, rest) = Self::parse(lines.next()?.as_bytes().trim_ascii())?;
        (rest.is_empty() && lines.next().is_none()).then_some(tag)
    }

    /// One tag at the start, and what follows it.
    fn parse(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (weak, quoted) = match bytes.strip_prefix(b"W/") {
            Some(rest) => (true, rest),
            None => (false, bytes),
        };
        let inner = quoted.strip_prefix(b"\"")?;
        let end = inner.iter().position(|b| *b == b'"')?;
        let opaque = &inner[..end];
        let is_tag_char = |b: &u8| *b == 0x21 || (0x23..=0x7e).contains(b) || *b >= 0x80;
        opaque
            .iter()
            .all(is_tag_char)
            .then(|| (Self { weak, opaque: opaque.to_vec() }, &inner[end + 1..]))
    }

    /// The weak comparison ([RFC 9110 §8.8.3.2]).
    ///
    /// [RFC 9110 §8.8.3.2]: https://www.rfc-editor.org/rfc/rfc9110#section-8.8.3.2
    pub fn weakly_equals(&self, other: &Self) -> bool {
        self.opaque == other.opaque
    }

    /// The strong comparison (RFC 9110 §8.8.3.2).
    pub fn strongly_equals(&self, other: &Self) -> bool {
        !self.weak && !other.weak && self.opaque == other.opaque
    }
}

/// What tells one version of a representation from another.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Validators {
    /// Its `ETag`.
    pub etag: Option<ETag>,
    /// Its `Last-Modified`.
    pub last_modified: Option<SystemTime>,
}

impl Validators {
    /// Reads the head of a response.
    pub fn read(headers: &HeaderMap) -> Self {
        Self {
            etag: ETag::read(headers),
            last_modified: date::read(headers, &LAST_MODIFIED).valid(),
        }
    }

    /// Whether there is any.
    pub fn any(&self) -> bool {
        self.etag.is_some() || self.last_modified.is_some()
    }
}

/// Asks, in the headers of a request, whether the stored response is current ([RFC 9111 §4.3.1]).
///
/// Replaces the client's own condition: it is answered from the outcome.
///
/// [RFC 9111 §4.3.1]: https://www.rfc-editor.org/rfc/rfc9111#section-4.3.1
pub fn ask(request: &mut HeaderMap, stored: &HeaderMap, validators: &Validators) {
    let etag = stored.get(ETAG).filter(|_| validators.etag.is_some());
    let modified = stored.get(LAST_MODIFIED).filter(|_| validators.last_modified.is_some());
    for (name, value) in [(IF_NONE_MATCH, etag), (IF_MODIFIED_SINCE, modified)] {
        request.remove(&name);
        if let Some(value) = value {
            request.insert(name, value.clone());
        }
    }
}

/// Whether a 304 speaks of the stored response, so that it may update it ([RFC 9111 §4.3.4]).
///
/// [RFC 9111 §4.3.4]: https://www.rfc-editor.org/rfc/rfc9111#section-4.3.4
pub fn confirms(stored: &Validators, answer: &Validators) -> bool {
    match (&answer.etag, answer.last_modified) {
        (Some(tag), _) if tag.weak => {
            stored.etag.as_ref().is_some_and(|stored| stored.weakly_equals(tag))
        }
        (Some(tag), _) => stored.etag.as_ref().is_some_and(|stored| stored.strongly_equals(tag)),
        (None, Some(modified)) => stored.last_modified.is_none_or(|stored| stored == modified),
        // It names no version: it can only mean the one that was asked about.
        (None, None) => true,
    }
}

/// Whether a 304 says that another version is current than the stored one: by a strong tag
/// ([RFC 9111 §4.3.4]). Then the stored one is no answer.
///
/// [RFC 9111 §4.3.4]: https://www.rfc-editor.org/rfc/rfc9111#section-4.3.4
pub fn contradicts(stored: &Validators, answer: &Validators) -> bool {
    stored
        .etag
        .as_ref()
        .zip(answer.etag.as_ref())
        .is_some_and(|(stored, named)| !named.weak && !stored.weakly_equals(named))
}

/// Whether the 200 to a HEAD speaks of the stored response, so that it may update it
/// ([RFC 9111 §4.3.5]): each validator that it has is the stored one, and so is its length.
///
/// [RFC 9111 §4.3.5]: https://www.rfc-editor.org/rfc/rfc9111#section-4.3.5
pub fn confirms_by_head(stored: &HeaderMap, length: u64, answer: &HeaderMap) -> bool {
    let same = |name| answer.get(&name).is_none_or(|value| stored.get(&name) == Some(value));
    let same_length = answer.get(CONTENT_LENGTH).is_none_or(|stated| {
        stated.to_str().ok().and_then(|text| text.parse().ok()) == Some(length)
    });
    same(ETAG) && same(LAST_MODIFIED) && same_length
}

/// Fields that describe the stored bytes themselves, which a 304 does not replace.
const OF_THE_BODY: [HeaderName; 6] = [
    CONTENT_LENGTH,
    CONTENT_ENCODING,
    CONTENT_RANGE,
    HeaderName::from_static("content-md5"),
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("repr-digest"),
];

/// Updates a stored head with that of a 304 ([RFC 9111 §3.2]): each field replaces the stored one
/// of its name, except those of the connection and those that describe the stored bytes.
///
/// [RFC 9111 §3.2]: https://www.rfc-editor.org/rfc/rfc9111#section-3.2
pub fn update(stored: &mut HeaderMap, mut answer: HeaderMap) {
    let directives = ResponseDirectives::read(&answer);
    remove_unstored(&mut answer, &directives);
    for name in OF_THE_BODY {
        answer.remove(name);
    }
    for name in answer.keys() {
        stored.remove(name);
    }
    for (name, value) in &answer {
        stored.append(name, value.clone());
    }
}

/// Whether a client's condition finds the stored response unchanged, so that the answer is a 304
/// ([RFC 9111 §4.3.2]). `If-None-Match` decides alone where it is there.
///
/// `date` is the `Date` of the stored response, which stands in for a missing `Last-Modified`.
///
/// [RFC 9111 §4.3.2]: https://www.rfc-editor.org/rfc/rfc9111#section-4.3.2
pub fn is_unchanged_for(
    request: &HeaderMap,
    status: StatusCode,
    stored: &Validators,
    date: Option<SystemTime>,
) -> bool {
    if status != StatusCode::OK && status != StatusCode::PARTIAL_CONTENT {
        return false;
    }
    if request.contains_key(IF_NONE_MATCH) {
        return request.get_all(IF_NONE_MATCH).iter().any(|line| names(line, stored.etag.as_ref()));
    }
    let since = date::read(request, &IF_MODIFIED_SINCE).valid();
    match (since, stored.last_modified.or(date)) {
        (Some(since), Some(modified)) => modified <= since,
        _ => false,
    }
}

/// Whether a line of `If-None-Match` names this tag, by the weak comparison.
fn names(line: &HeaderValue, etag: Option<&ETag>) -> bool {
    let mut rest = line.as_bytes().trim_ascii();
    if rest == b"*" {
        return true;
    }
    loop {
        while let Some((b' ' | b'\t' | b',', after)) = rest.split_first() {
            rest = after;
        }
        let Some((tag, after)) = ETag::parse(rest) else {
            return false;
        };
        if etag.is_some_and(|etag| etag.weakly_equals(&tag)) {
            return true;
        }
        rest = after;
    }
}

/// Leaves of a stored head what a 304 says ([RFC 9110 §15.4.5]): without what describes the body
/// that it does not have.
///
/// [RFC 9110 §15.4.5]: https://www.rfc-editor.org/rfc/rfc9110#section-15.4.5
pub fn not_modified_head(headers: &mut HeaderMap) {
    for name in [CONTENT_TYPE, CONTENT_LANGUAGE] {
        headers.remove(name);
    }
    for name in OF_THE_BODY {
        headers.remove(name);
    }
    if headers.contains_key(ETAG) {
        headers.remove(LAST_MODIFIED);
    }
}

#[cfg(test)]
mod tests;
