//! Decides which parts of a stored response a request asks for, what of a response is held, and
//! what
//! two parts make together. Never touches a byte of a body.
//!
//! RFC 9110 §13.1.5, §14 and §15.3.7; RFC 9111 §3.3 and §3.4. What the RFC lets a server ignore is
//! answered whole: other units, what is no range, and more ranges than a client has use for.

use std::ops::Range;

use http::{
    HeaderMap,
    header::{CONTENT_RANGE, CONTENT_TYPE, DATE, ETAG, IF_RANGE, LAST_MODIFIED, RANGE},
};

use super::{
    date,
    validation::{ETag, Validators},
};

/// More ranges than this in one request are answered whole.
pub const MAX_RANGES: usize = 16;

/// Which bytes of a representation are held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// In order, apart from one another, none empty.
    pub spans: Vec<Range<u64>>,
    /// Where it ends, if that is known.
    pub end: Option<u64>,
    /// Its whole length, as its server states it; unknown where that contradicts what it sent.
    pub total: Option<u64>,
}

impl Held {
    /// All of a representation.
    pub fn whole(length: u64) -> Self {
        let spans = (length > 0).then_some(0..length).into_iter().collect();
        Self { spans, end: Some(length), total: Some(length) }
    }

    /// The part that a 206 carries, by its `Content-Range` and the number of bytes that came
    /// ([RFC 9110 §14.4]); `None` unless it is one range of bytes.
    ///
    /// Where the two contradict each other, what came counts, from its first position on, and a
    /// part that says it is the last one is. Then the whole length is not known, and nothing is
    /// combined with it.
    ///
    /// [RFC 9110 §14.4]: https://www.rfc-editor.org/rfc/rfc9110#section-14.4
    pub fn part(headers: &HeaderMap, length: u64) -> Option<Self> {
        let (stated, total) = content_range(headers)?;
        let came = stated.start..stated.start.checked_add(length).filter(|_| length > 0)?;
        if came == stated {
            return Some(Self { spans: vec![came], end: total, total });
        }
        let end = (total == Some(stated.end)).then_some(came.end);
        Some(Self { spans: vec![came], end, total: None })
    }

    /// How many bytes that is; `None` if the spans are not in order or one is empty.
    pub fn length(&self) -> Option<u64> {
        let mut length = 0_u64;
        let mut before = None;
        for span in &self.spans {
            if span.is_empty() || before.is_some_and(|end| span.start < end) {
                return None;
            }
            before = Some(span.end);
            length = span.end.saturating_sub(span.start).saturating_add(length);
        }
        Some(length)
    }

    /// Whether nothing is missing.
    pub fn is_whole(&self) -> bool {
        self.total.is_some_and(|total| *self == Self::whole(total))
    }

    /// The only bytes that are missing, where its length is known and they follow one another.
    pub fn gap(&self) -> Option<Range<u64>> {
        let total = self.total?;
        let mut gaps = Vec::new();
        let mut at = 0;
        for span in &self.spans {
            if at < span.start {
                gaps.push(at..span.start);
            }
            at = span.end;
        }
        if at < total {
            gaps.push(at..total);
        }
        if let [gap] = gaps.as_slice() { Some(gap.clone()) } else { None }
    }

    /// Whether two parts are of one representation, so that they may be combined
    /// ([RFC 9111 §3.4]): the same strong validator, and the same length.
    ///
    /// [RFC 9111 §3.4]: https://www.rfc-editor.org/rfc/rfc9111#section-3.4
    pub fn combines(&self, own: &Validators, other: &Self, others: &Validators) -> bool {
        let same_tag = own
            .etag
            .as_ref()
            .zip(others.etag.as_ref())
            .is_some_and(|(own, other)| own.strongly_equals(other));
        same_tag && self.total.is_some() && self.total == other.total
    }

    /// What is held once `newer` is added: each span, and where it lies in the one or the other.
    pub fn with(&self, newer: &Self) -> Combined {
        let mut pieces: Vec<Piece> = Vec::new();
        let mut spans: Vec<Range<u64>> = Vec::new();
        let mut edges: Vec<u64> = self.spans.iter().chain(&newer.spans).map(|s| s.start).collect();
        edges.extend(self.spans.iter().chain(&newer.spans).map(|s| s.end));
        edges.sort_unstable();
        edges.dedup();
        for (start, end) in edges.iter().zip(edges.iter().skip(1)) {
            let (part, is_newer) = match (newer.place(&(*start..*end)), self.place(&(*start..*end)))
            {
                (Some(part), _) => (part, true),
                (None, Some(part)) => (part, false),
                (None, None) => continue,
            };
            pieces.push(Piece { part, is_newer });
            match spans.last_mut().filter(|last| last.end == *start) {
                Some(last) => last.end = *end,
                None => spans.push(*start..*end),
            }
        }
        Combined { pieces, held: Self { spans, end: newer.end, total: newer.total } }
    }

    /// Where in the stored bytes a part of the representation lies; they follow one another in the
    /// order of the spans.
    fn place(&self, part: &Range<u64>) -> Option<Range<u64>> {
        let mut before = 0;
        for span in &self.spans {
            if span.start <= part.start && part.end <= span.end {
                let start = before + (part.start - span.start);
                return Some(start..start + (part.end - part.start));
            }
            before += span.end - span.start;
        }
        None
    }
}

/// What two parts make together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Combined {
    /// The bytes, in order.
    pub pieces: Vec<Piece>,
    /// What they are.
    pub held: Held,
}

/// Some bytes of one of two parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// Where they lie among the stored bytes of their part.
    pub part: Range<u64>,
    /// They are of the newer part.
    pub is_newer: bool,
}

/// `Content-Range: bytes first-last/length` ([RFC 9110 §14.4]), with the length unless it is `*`.
///
/// `None` for what is not one valid range of bytes.
///
/// [RFC 9110 §14.4]: https://www.rfc-editor.org/rfc/rfc9110#section-14.4
pub fn content_range(headers: &HeaderMap) -> Option<(Range<u64>, Option<u64>)> {
    let mut lines = headers.get_all(CONTENT_RANGE).iter();
    let line = lines.next().filter(|_| lines.next().is_none())?.to_str().ok()?;
    let (unit, rest) = line.trim().split_once(' ')?;
    let (range, length) = rest.trim().split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last) = (exact(first)?, exact(last)?);
    let total = if length == "*" { None } else { Some(exact(length)?) };
    let is_valid = unit.eq_ignore_ascii_case("bytes")
        && first <= last
        && last < total.unwrap_or(u64::MAX)
        && !is_multipart(headers);
    // Only then does it have a next one.
    is_valid.then(|| (first..last + 1, total))
}

fn is_multipart(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|kind| {
        kind.as_bytes().to_ascii_lowercase().trim_ascii_start().starts_with(b"multipart/byteranges")
    })
}

/// What of a stored response answers a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// All of it.
    Whole,
    /// These bytes of the representation, each with its place among the stored bytes.
    Bytes(Vec<(Range<u64>, Range<usize>)>),
    /// Every range lies behind its end: 416.
    Unsatisfiable,
    /// Bytes that are not held.
    Missing,
}

/// Decides which part of a stored response answers a request ([RFC 9110 §14.2]).
///
/// [RFC 9110 §14.2]: https://www.rfc-editor.org/rfc/rfc9110#section-14.2
pub fn part(request: &HeaderMap, stored: &HeaderMap, held: &Held) -> Part {
    let asked = asked(request).filter(|_| is_unchanged(request, stored));
    let Some(specs) = asked else {
        return if held.is_whole() { Part::Whole } else { Part::Missing };
    };
    let (mut parts, mut bytes) = (Vec::new(), 0_u64);
    for spec in specs {
        let range = match spec.resolve(held.end) {
            Resolved::Range(range) => range,
            Resolved::Behind => continue,
            Resolved::Unknown => return Part::Missing,
        };
        let Some(place) = held.place(&range).and_then(|place| {
            Some(usize::try_from(place.start).ok()?..usize::try_from(place.end).ok()?)
        }) else {
            return Part::Missing;
        };
        bytes = bytes.saturating_add(range.end - range.start);
        parts.push((range, place));
    }
    match parts.len() {
        0 => Part::Unsatisfiable,
        1 => Part::Bytes(parts),
        // Ranges that overlap so much that they are more than all that is held (RFC 9110 §14.2).
        _ if held.length().is_none_or(|length| bytes > length) => {
            if held.is_whole() {
                Part::Whole
            } else {
                Part::Missing
            }
        }
        _ => Part::Bytes(parts),
    }
}

/// One range of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Spec {
    /// `first-last` and `first-`
    From(u64, Option<u64>),
    /// `-length`
    Suffix(u64),
}

enum Resolved {
    Range(Range<u64>),
    Behind,
    /// Where the representation ends is not known.
    Unknown,
}

impl Spec {
    fn resolve(self, end: Option<u64>) -> Resolved {
        let range = match (self, end) {
            (Self::Suffix(length), Some(end)) => end.saturating_sub(length)..end,
            (Self::From(first, last), Some(end)) => {
                first..last.map_or(end, |last| last.saturating_add(1).min(end))
            }
            (Self::From(first, Some(last)), None) => first..last.saturating_add(1),
            (Self::Suffix(_) | Self::From(_, None), None) => return Resolved::Unknown,
        };
        if range.is_empty() { Resolved::Behind } else { Resolved::Range(range) }
    }
}

/// The ranges of bytes that a request asks for; `None` if it asks for none that is understood.
fn asked(request: &HeaderMap) -> Option<Vec<Spec>> {
    let mut lines = request.get_all(RANGE).iter();
    let line = lines.next().filter(|_| lines.next().is_none())?.to_str().ok()?;
    let (unit, set) = line.split_once('=')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return None;
    }
    let members: Vec<&str> =
        set.split(',').map(str::trim).filter(|member| !member.is_empty()).collect();
    if members.is_empty() || members.len() > MAX_RANGES {
        return None;
    }
    members.into_iter().map(spec).collect()
}

/// `first-last`, `first-` or `-suffix`; `None` for anything else.
fn spec(member: &str) -> Option<Spec> {
    let (first, last) = member.split_once('-')?;
    match (first, last) {
        ("", "") => None,
        ("", suffix) => Some(Spec::Suffix(position(suffix)?)),
        (first, "") => Some(Spec::From(position(first)?, None)),
        (first, last) => {
            let (first, last) = (position(first)?, position(last)?);
            (first <= last).then_some(Spec::From(first, Some(last)))
        }
    }
}

/// `If-Range` ([RFC 9110 §13.1.5]): a strong tag, or a date that is one; without it, always.
///
/// [RFC 9110 §13.1.5]: https://www.rfc-editor.org/rfc/rfc9110#section-13.1.5
fn is_unchanged(request: &HeaderMap, stored: &HeaderMap) -> bool {
    let mut lines = request.get_all(IF_RANGE).iter();
    let Some(line) = lines.next() else {
        return true;
    };
    if lines.next().is_some() {
        return false;
    }
    let mut asked = HeaderMap::new();
    asked.insert(ETAG, line.clone());
    if let Some(asked) = ETag::read(&asked) {
        return ETag::read(stored).is_some_and(|stored| stored.strongly_equals(&asked));
    }
    let since = line.to_str().ok().and_then(date::parse);
    let modified = date::read(stored, &LAST_MODIFIED).valid();
    let created = date::read(stored, &DATE).valid();
    // Strong only if nothing can have changed within the same second (RFC 9110 §8.8.2.2).
    since.is_some() && since == modified && created > modified
}

/// Only digits; what is too large is behind any end.
fn position(text: &str) -> Option<u64> {
    let is_number = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    is_number.then(|| text.parse().unwrap_or(u64::MAX))
}

/// Only digits, and not too large.
fn exact(text: &str) -> Option<u64> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests;
