//! Decides which tags a response carries. Never invalidates any.
//!
//! `Surrogate-Key` (Fastly) separates them by spaces, `Cache-Tag` (Cloudflare, Akamai) by commas.

use http::{HeaderMap, HeaderName};
use tachikoma_cache::invalidation::{MAX_TAG_BYTES, MAX_TAGS};

use crate::policy::{Options, decision::Refusal};

/// The tags of a response, each once: those it names, and those that the options give it.
///
/// # Errors
///
/// [`Refusal::Tags`] beyond the store's limits: what cannot be purged by all its tags is not kept.
pub(crate) fn tags(headers: &HeaderMap, options: &Options) -> Result<Vec<String>, Refusal> {
    let mut tags = Tags(Vec::new());
    let named = [("surrogate-key", &b" "[..]), ("cache-tag", b",")];
    let named = named.map(|(name, separators)| (HeaderName::from_static(name), separators));
    let own = options.tag_headers.iter().map(|name| (name.clone(), &b", \t"[..]));
    for (name, separators) in named.into_iter().chain(own) {
        for line in headers.get_all(name) {
            for tag in line.as_bytes().split(|b| separators.contains(b)).map(<[u8]>::trim_ascii) {
                tags.add(&String::from_utf8_lossy(tag))?;
            }
        }
    }
    for tag in &options.tags {
        tags.add(tag)?;
    }
    Ok(tags.0)
}

struct Tags(Vec<String>);

impl Tags {
    fn add(&mut self, tag: &str) -> Result<(), Refusal> {
        if tag.is_empty() || self.0.iter().any(|known| known == tag) {
            return Ok(());
        }
        if tag.len() > MAX_TAG_BYTES || self.0.len() >= MAX_TAGS {
            return Err(Refusal::Tags);
        }
        self.0.push(tag.to_owned());
        Ok(())
    }
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
        let tag_headers = vec![HeaderName::from_static("x-topics")];
        tags(&headers, &Options { tag_headers, tags: vec!["all".into()], ..Options::default() })
    }

    #[test]
    fn both_headers_name_tags() {
        let fields = [
            ("surrogate-key", "mission:1  user:2"),
            ("surrogate-key", "user:2"),
            ("cache-tag", "a b, c,,user:2"),
        ];
        assert_eq!(of(&fields).unwrap(), ["mission:1", "user:2", "a b", "c", "all"]);
        assert_eq!(of(&[]).unwrap(), ["all"]);
        assert_eq!(of(&[("x-topics", "a,b c, d")]).unwrap(), ["a", "b", "c", "d", "all"]);
    }

    #[test]
    fn more_than_the_store_can_keep_is_refused() {
        let many = |n: usize| (0..n).map(|i| format!("t{i}")).collect::<Vec<_>>().join(" ");
        assert_eq!(of(&[("surrogate-key", &many(63))]).unwrap().len(), 64);
        assert_eq!(of(&[("surrogate-key", &many(64))]), Err(Refusal::Tags));
        assert_eq!(of(&[("cache-tag", &"x".repeat(257))]), Err(Refusal::Tags));
    }
}
