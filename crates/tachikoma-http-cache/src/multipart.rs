//! Writes several parts of a stored response as one body (RFC 9110 §14.6, `multipart/byteranges`).
//!
//! Never decides which parts.

use std::{fmt::Write as _, hash::BuildHasher as _, ops::Range};

use bytes::Bytes;
use http::HeaderValue;

/// The body and its media type; `None` if no header can hold that. `kind` is the `Content-Type` of
/// the whole, `total` its length if that is known.
pub(crate) fn body(
    stored: &Bytes,
    parts: &[(Range<u64>, Range<usize>)],
    kind: Option<&HeaderValue>,
    total: Option<u64>,
) -> Option<(Bytes, HeaderValue)> {
    // Random in each process and for each set of parts: no content can be made to contain it.
    let hash = std::hash::RandomState::new().hash_one(parts);
    let boundary = format!("tachikoma-{hash:016x}");
    let length: usize = parts.iter().map(|(_, place)| place.len() + 200).sum();
    let mut body = Vec::with_capacity(length);
    for (range, place) in parts {
        let mut head = format!("\r\n--{boundary}\r\n");
        if let Some(kind) = kind.and_then(|kind| kind.to_str().ok()) {
            // Writing into a string cannot fail.
            let _ = write!(head, "Content-Type: {kind}\r\n");
        }
        let _ = write!(head, "Content-Range: {}\r\n\r\n", content_range(range, total));
        body.extend_from_slice(head.as_bytes());
        body.extend_from_slice(&stored[place.clone()]);
    }
    body.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
    let kind = HeaderValue::from_str(&format!("multipart/byteranges; boundary={boundary}")).ok()?;
    Some((body.into(), kind))
}

/// The value of `Content-Range` for these bytes.
pub(crate) fn content_range(range: &Range<u64>, total: Option<u64>) -> String {
    let (first, last) = (range.start, range.end.saturating_sub(1));
    match total {
        Some(total) => format!("bytes {first}-{last}/{total}"),
        None => format!("bytes {first}-{last}/*"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_part_has_its_head_and_the_boundary_ends_the_last() {
        let stored = Bytes::from_static(b"0123456789");
        let kind = HeaderValue::from_static("text/plain");
        let parts = [(0..2, 0..2), (7..9, 7..9)];
        let (body, written) = body(&stored, &parts, Some(&kind), Some(10)).unwrap();
        let written = written.to_str().unwrap().to_owned();
        let boundary = written.strip_prefix("multipart/byteranges; boundary=").unwrap();
        let expected = format!(
            "\r\n--{boundary}\r\nContent-Type: text/plain\r\nContent-Range: bytes 0-1/10\r\n\r\n01\
             \r\n--{boundary}\r\nContent-Type: text/plain\r\nContent-Range: bytes 7-8/10\r\n\r\n78\
             \r\n--{boundary}--\r\n"
        );
        assert_eq!(body, expected);
    }

    #[test]
    fn an_unknown_length_is_a_star() {
        assert_eq!(content_range(&(4..9), None), "bytes 4-8/*");
        assert_eq!(content_range(&(0..1), Some(1)), "bytes 0-0/1");
    }
}
