//! Decides which tags a response carries. Never invalidates any.
//!
//! `Surrogate-Key` (Fastly) separates them by spaces, `Cache-Tag` (Cloudflare, Akamai) by commas.

use http::HeaderMap;
use tachikoma_cache::invalidation::{MAX_TAG_BYTES, MAX_TAGS};

use crate::policy::decision::Refusal;

/// The tags of a response, each once.
///
/// # Errors
///
/// [`Refusal::Tags`] beyond the store's limits: what cannot be purged by all its tags is not kept.
pub(crate) fn tags(headers: &HeaderMap) -> Result<Vec<String>, Refusal> {
    let mut tags: Vec<String> = Vec::new();
    for (name, separator) in [("surrogate-key", b' '), ("cache-tag", b',')] {
        for line in headers.get_all(name) {
            for tag in line.as_bytes().split(|b| *b == separator).map(<[u8]>::trim_ascii) {
                let tag = String::from_utf8_lossy(tag);
                if tag.len() > MAX_TAG_BYTES || tags.len() > MAX_TAGS {
                    return Err(Refusal::Tags);
                }
                if !tag.is_empty() && !tags.iter().any(|known| *known == tag) {
                    tags.push(tag.into_owned());
                }
            }
        }
    }
    if tags.len() > MAX_TAGS { Err(Refusal::Tags) } else { Ok(tags) }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn of(fields: &[(&'static str, &str)]) -> Result<Vec<String>, Refusal> {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        tags(&headers)
    }

    #[test]
    fn both_headers_name_tags() {
        let fields = [
            ("surrogate-key", "mission:1  user:2"),
            ("surrogate-key", "user:2"),
            ("cache-tag", "a b, c,,user:2"),
        ];
        assert_eq!(of(&fields).unwrap(), ["mission:1", "user:2", "a b", "c"]);
        assert!(of(&[]).unwrap().is_empty());
    }

    #[test]
    fn more_than_the_store_can_keep_is_refused() {
        let many = |n: usize| (0..n).map(|i| format!("t{i}")).collect::<Vec<_>>().join(" ");
        assert_eq!(of(&[("surrogate-key", &many(64))]).unwrap().len(), 64);
        assert_eq!(of(&[("surrogate-key", &many(65))]), Err(Refusal::Tags));
        assert_eq!(of(&[("cache-tag", &"x".repeat(257))]), Err(Refusal::Tags));
    }
}
