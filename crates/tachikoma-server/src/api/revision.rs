//! Decides which revision of a row a request is about: strong entity tags, `If-Match`,
//! `If-None-Match` and the expected version of a body.
//!
//! Pure: rows and headers come in, a verdict goes out. The rules are RFC 9110 §8.8.3 (entity tags)
//! and §13.1 (preconditions); the version of a body is the API's own and answers 409.

use blake2::{Blake2s128, Digest};
use http::{HeaderMap, HeaderValue, header};

use super::timestamp::Timestamp;

/// The form in which this version of the program writes a row as JSON. Must change when a field
/// is added, renamed or formatted in another way: the bytes change then and the version does not.
const FORMAT: u8 = 1;

/// What tells one state of a row from all others.
///
/// The version alone would not: a file restored from a backup counts the same numbers again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Revision {
    /// The row's version, from 1.
    pub(crate) version: u32,
    /// When the row last changed.
    pub(crate) updated_at: Timestamp,
}

impl Revision {
    /// The strong entity tag of this revision, with its quotes.
    pub(crate) fn etag(self) -> String {
        format!("\"{FORMAT}-{}-{:x}\"", self.version, self.updated_at.millis())
    }
}

/// The strong entity tag of a list: one for each content, since a row's text follows from its name
/// and revision.
pub(crate) fn list_etag(total: u64, rows: impl Iterator<Item = (String, Revision)>) -> String {
    let mut hash = Blake2s128::new();
    for (name, revision) in rows {
        // Names hold no separator: ids of missions and specs.
        hash.update(format!("{name}={};", revision.etag()));
    }
    format!("\"{FORMAT}-{total}-{:x}\"", u128::from_be_bytes(hash.finalize().into()))
}

/// The entity tags of an `If-Match` or `If-None-Match` header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum EntityTags {
    /// `*`: any state, but there must be one.
    Any,
    /// The listed tags, quotes included, and whether each is weak. Empty when the header cannot
    /// be read: it matches nothing then.
    Listed(Vec<(String, bool)>),
}

impl EntityTags {
    /// Reads all lines of the header `name`; `None` when there is none.
    fn from_headers(headers: &HeaderMap, name: header::HeaderName) -> Option<Self> {
        let mut values = headers.get_all(name).iter().peekable();
        values.peek()?;
        let mut tags = Vec::new();
        for value in values {
            match parse(value) {
                Some(Self::Any) => return Some(Self::Any),
                Some(Self::Listed(more)) => tags.extend(more),
                None => return Some(Self::Listed(Vec::new())),
            }
        }
        Some(Self::Listed(tags))
    }

    /// Strong comparison ([RFC 9110 §8.8.3.2]): no weak tag is equal to anything.
    ///
    /// [RFC 9110 §8.8.3.2]: https://www.rfc-editor.org/rfc/rfc9110#section-8.8.3.2
    fn matches_strongly(&self, etag: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Listed(tags) => tags.iter().any(|(tag, weak)| !weak && tag == etag),
        }
    }

    /// Weak comparison (RFC 9110 §8.8.3.2): the opaque parts are equal.
    fn matches_weakly(&self, etag: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Listed(tags) => tags.iter().any(|(tag, _)| tag == etag),
        }
    }
}

/// Whether a client that sent `headers` already has the representation with this tag.
pub(crate) fn not_modified(headers: &HeaderMap, etag: &str) -> bool {
    EntityTags::from_headers(headers, header::IF_NONE_MATCH)
        .is_some_and(|tags| tags.matches_weakly(etag))
}

/// What a write demands of the row that it changes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Preconditions {
    /// The version that the body expects.
    pub(crate) version: Option<u32>,
    if_match: Option<EntityTags>,
    if_none_match: Option<EntityTags>,
}

/// The row is not what the request demands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    /// The body expects another version.
    #[error("expected version {expected}, the row has {current:?}")]
    Version {
        /// What the body expects.
        expected: u32,
        /// What the row has; `None` when there is no row.
        current: Option<u32>,
    },
    /// `If-Match` or `If-None-Match` does not hold.
    #[error("{header} does not hold")]
    Header {
        /// The name of the header.
        header: &'static str,
    },
}

impl Preconditions {
    /// The preconditions of a request's headers and of the version in its body.
    pub(crate) fn new(headers: &HeaderMap, version: Option<u32>) -> Self {
        Self {
            version,
            if_match: EntityTags::from_headers(headers, header::IF_MATCH),
            if_none_match: EntityTags::from_headers(headers, header::IF_NONE_MATCH),
        }
    }

    /// Whether the write may go on with the row as it is now; `None` when there is no row.
    ///
    /// Headers first: RFC 9110 §13.2.1 wants them evaluated before the request's content.
    pub(crate) fn check(&self, current: Option<Revision>) -> Result<(), Refused> {
        let etag = current.map(Revision::etag);
        if let Some(tags) = &self.if_match
            && !etag.as_ref().is_some_and(|etag| tags.matches_strongly(etag))
        {
            return Err(Refused::Header { header: "If-Match" });
        }
        if let Some(tags) = &self.if_none_match
            && etag.as_ref().is_some_and(|etag| tags.matches_weakly(etag))
        {
            return Err(Refused::Header { header: "If-None-Match" });
        }
        match (self.version, current.map(|revision| revision.version)) {
            (Some(expected), current) if current != Some(expected) => {
                Err(Refused::Version { expected, current })
            }
            _ => Ok(()),
        }
    }
}

/// The tags of one header line; `None` when it is not a list of entity tags.
fn parse(value: &HeaderValue) -> Option<EntityTags> {
    let mut rest = value.to_str().ok()?.trim();
    if rest == "*" {
        return Some(EntityTags::Any);
    }
    let mut tags = Vec::new();
    while !rest.is_empty() {
        // The list rule allows empty elements (RFC 9110 §5.6.1).
        if let Some(after) = rest.strip_prefix(',') {
            rest = after.trim_start();
            continue;
        }
        let (weak, opaque) = match rest.strip_prefix("W/") {
            Some(opaque) => (true, opaque),
            None => (false, rest),
        };
        let end = opaque.strip_prefix('"')?.find('"')? + 2;
        let (tag, after) = opaque.split_at(end);
        tags.push((tag.to_owned(), weak));
        rest = after.trim_start();
        if !rest.is_empty() && !rest.starts_with(',') {
            return None;
        }
    }
    Some(EntityTags::Listed(tags))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Revision = Revision { version: 7, updated_at: Timestamp::from_millis(255) };

    fn headers(name: &header::HeaderName, lines: &[&'static str]) -> HeaderMap {
        let lines = lines.iter().map(|line| (name.clone(), HeaderValue::from_static(line)));
        lines.collect()
    }

    #[track_caller]
    fn check_get(lines: &[&'static str], expected: bool) {
        let headers = headers(&header::IF_NONE_MATCH, lines);
        assert_eq!(not_modified(&headers, &NOW.etag()), expected, "{lines:?}");
    }

    #[test]
    fn a_client_that_has_the_revision_is_told_that_nothing_changed() {
        check_get(&[], false);
        check_get(&["\"1-7-ff\""], true);
        check_get(&["W/\"1-7-ff\""], true);
        check_get(&["*"], true);
        check_get(&["\"1-6-ff\", \"1-7-ff\""], true);
        check_get(&["\"1-6-ff\"", ", ,\"1-7-ff\" ,"], true);
        check_get(&["\"1-7-fe\""], false);
        check_get(&["\"with, comma\", \"1-7-ff\""], true);
        check_get(&["1-7-ff"], false);
        check_get(&["\"1-7-ff"], false);
        check_get(&["\"a\" \"1-7-ff\""], false);
        check_get(&["w/\"1-7-ff\""], false);
    }

    #[track_caller]
    fn check_put(
        header: Option<(&header::HeaderName, &'static str)>,
        version: Option<u32>,
        current: Option<Revision>,
        expected: Result<(), Refused>,
    ) {
        let headers = header.map(|(name, line)| headers(name, &[line])).unwrap_or_default();
        let actual = Preconditions::new(&headers, version).check(current);
        assert_eq!(actual, expected, "{header:?} {version:?} {current:?}");
    }

    #[test]
    fn a_write_goes_on_only_with_the_revision_that_it_expects() {
        let if_match = Err(Refused::Header { header: "If-Match" });
        let if_none_match = Err(Refused::Header { header: "If-None-Match" });
        let stale = |expected, current| Err(Refused::Version { expected, current });

        check_put(None, None, Some(NOW), Ok(()));
        check_put(None, None, None, Ok(()));
        check_put(None, Some(7), Some(NOW), Ok(()));
        check_put(None, Some(6), Some(NOW), stale(6, Some(7)));
        check_put(None, Some(8), Some(NOW), stale(8, Some(7)));
        check_put(None, Some(1), None, stale(1, None));

        check_put(Some((&header::IF_MATCH, "\"1-7-ff\"")), None, Some(NOW), Ok(()));
        check_put(Some((&header::IF_MATCH, "*")), None, Some(NOW), Ok(()));
        check_put(Some((&header::IF_MATCH, "*")), None, None, if_match);
        check_put(Some((&header::IF_MATCH, "W/\"1-7-ff\"")), None, Some(NOW), if_match);
        check_put(Some((&header::IF_MATCH, "nonsense")), None, Some(NOW), if_match);
        check_put(Some((&header::IF_MATCH, "\"1-6-ff\"")), Some(6), Some(NOW), if_match);

        check_put(Some((&header::IF_NONE_MATCH, "*")), None, None, Ok(()));
        check_put(Some((&header::IF_NONE_MATCH, "*")), None, Some(NOW), if_none_match);
    }
}
