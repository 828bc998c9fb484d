//! Decides how the parts of a key become one text, so that different parts never meet.
//!
//! Pure: it joins and escapes. It never shortens, hashes or checks a length; the cache refuses
//! keys that are too long.
//!
//! The encoding is this project's: parts are joined with `:`; inside a part `%`, `:` and control
//! characters are percent-encoded as UTF-8 bytes ([RFC 3986 §2.1]); an absent part is `%-`, which
//! no text encodes to. Ordinary parts stay as they are.
//!
//! [RFC 3986 §2.1]: https://www.rfc-editor.org/rfc/rfc3986#section-2.1

use std::fmt::{self, Write as _};

use crate::pattern::Pattern;

const SEPARATOR: char = ':';
const ABSENT: &str = "%-";

/// Builds a cache key from parts: different sequences of parts give different keys.
///
/// ```
/// # use tachikoma_cache::CacheKeyBuilder;
/// let key = CacheKeyBuilder::new("mission").add(42).build();
/// assert_eq!(key, "mission:42");
///
/// // A part cannot pass for two, and an absent part leaves its trace.
/// assert_eq!(CacheKeyBuilder::new("file").add("c:d").build(), "file:c%3Ad");
/// assert_eq!(CacheKeyBuilder::new("list").add_opt(None::<u32>).add(2).build(), "list:%-:2");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[must_use = "a builder does nothing until `build`"]
pub struct CacheKeyBuilder {
    key: String,
}

impl CacheKeyBuilder {
    /// Starts a key with its first part, usually the kind of thing it names.
    pub fn new(prefix: impl fmt::Display) -> Self {
        let mut key = String::new();
        push_escaped(&mut key, &prefix);
        Self { key }
    }

    /// Adds one part. An empty part is a part: `new("a").add("")` is not `new("a")`.
    #[expect(clippy::should_implement_trait, reason = "the name that callers know")]
    pub fn add(mut self, part: impl fmt::Display) -> Self {
        self.key.push(SEPARATOR);
        push_escaped(&mut self.key, &part);
        self
    }

    /// Adds a part that may be absent; `None` differs from every text and from adding nothing.
    pub fn add_opt(mut self, part: Option<impl fmt::Display>) -> Self {
        if let Some(part) = part {
            return self.add(part);
        }
        self.key.push(SEPARATOR);
        self.key.push_str(ABSENT);
        self
    }

    /// The key.
    #[must_use]
    pub fn build(self) -> String {
        self.key
    }

    /// A pattern for all keys that have these parts first and at least one more.
    ///
    /// The key of exactly these parts is not among them: delete it by itself.
    ///
    /// ```
    /// # use tachikoma_cache::CacheKeyBuilder;
    /// let specs = CacheKeyBuilder::new("spec").add("m*1").pattern_below();
    /// assert_eq!(specs.as_str(), r"spec:m\*1:*");
    /// ```
    pub fn pattern_below(&self) -> Pattern {
        Pattern::new().literal(&self.key).literal(SEPARATOR).any()
    }
}

/// Escapes what `part` displays as, without building it first.
pub(crate) fn push_escaped(key: &mut String, part: &impl fmt::Display) {
    struct Escape<'a>(&'a mut String);

    impl fmt::Write for Escape<'_> {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            for character in text.chars() {
                if matches!(character, '%' | SEPARATOR) || character.is_control() {
                    let mut utf8 = [0; 4];
                    for byte in character.encode_utf8(&mut utf8).bytes() {
                        write!(self.0, "%{byte:02X}")?;
                    }
                } else {
                    self.0.push(character);
                }
            }
            Ok(())
        }
    }

    // A `Display` that fails says nothing more: what it wrote so far is the part.
    let _ = write!(Escape(key), "{part}");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::glob::Glob;

    #[track_caller]
    fn check(parts: &[Option<&str>], expected: &str) {
        assert_eq!(build(parts), expected, "{parts:?}");
    }

    fn build(parts: &[Option<&str>]) -> String {
        builder(parts).build()
    }

    fn builder(parts: &[Option<&str>]) -> CacheKeyBuilder {
        let (first, rest) = parts.split_first().unwrap();
        rest.iter().fold(CacheKeyBuilder::new(first.unwrap_or_default()), |key, part| match part {
            Some(text) => key.add(text),
            None => key.add_opt(None::<&str>),
        })
    }

    #[test]
    fn ordinary_parts_stay_readable() {
        check(&[Some("mission"), Some("42")], "mission:42");
        check(&[Some("user"), Some("anna@example.org")], "user:anna@example.org");
        check(&[Some("Größe"), Some("東京")], "Größe:東京");
        check(&[Some("q"), Some("a b*c?[d]\\")], "q:a b*c?[d]\\");
    }

    #[test]
    fn separators_percents_and_control_characters_are_escaped() {
        check(&[Some("a"), Some("b:c")], "a:b%3Ac");
        check(&[Some("a:b"), Some("c")], "a%3Ab:c");
        check(&[Some("a"), Some("%3A")], "a:%253A");
        check(&[Some("a"), Some("x\r\n\0\u{1b}")], "a:x%0D%0A%00%1B");
        check(&[Some("a"), Some("\u{85}")], "a:%C2%85");
    }

    #[test]
    fn absent_empty_and_the_text_that_looks_absent_are_three_keys() {
        check(&[Some("a"), None], "a:%-");
        check(&[Some("a"), Some("")], "a:");
        check(&[Some("a"), Some("%-")], "a:%25-");
        check(&[Some("a")], "a");
        check(&[Some("a"), None, Some("b")], "a:%-:b");
    }

    #[test]
    fn add_opt_of_some_is_add() {
        assert_eq!(
            CacheKeyBuilder::new("a").add_opt(Some(7)).build(),
            CacheKeyBuilder::new("a").add(7).build()
        );
    }

    type Parts = Vec<Option<String>>;

    /// Parts in which the encoding's own letters are frequent.
    fn parts() -> impl Strategy<Value = Parts> {
        let part = proptest::option::weighted(0.8, "([:%3A\\-*\\\\\n]|\\PC){0,4}");
        ("[a:%]{0,3}", proptest::collection::vec(part, 0..4))
            .prop_map(|(first, rest)| std::iter::once(Some(first)).chain(rest).collect())
    }

    fn as_strs(parts: &Parts) -> Vec<Option<&str>> {
        parts.iter().map(Option::as_deref).collect()
    }

    /// Reads the parts back: that this works is what injective means.
    fn decode(key: &str) -> Parts {
        key.split(SEPARATOR)
            .map(|part| {
                if part == ABSENT {
                    return None;
                }
                let mut bytes = Vec::new();
                let mut rest = part.as_bytes();
                while let Some((&first, tail)) = rest.split_first() {
                    if first == b'%' {
                        let hex = std::str::from_utf8(&tail[..2]).unwrap();
                        bytes.push(u8::from_str_radix(hex, 16).unwrap());
                        rest = &tail[2..];
                    } else {
                        bytes.push(first);
                        rest = tail;
                    }
                }
                Some(String::from_utf8(bytes).unwrap())
            })
            .collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        #[test]
        fn the_parts_can_be_read_back_from_the_key(parts in parts()) {
            prop_assert_eq!(decode(&build(&as_strs(&parts))), parts);
        }

        #[test]
        fn different_parts_give_different_keys(one in parts(), other in parts()) {
            prop_assert_eq!(build(&as_strs(&one)) == build(&as_strs(&other)), one == other);
        }

        #[test]
        fn the_pattern_below_matches_exactly_the_keys_with_more_parts(
            first in parts(), other in parts(), more in parts(),
        ) {
            let pattern = builder(&as_strs(&first)).pattern_below();
            let glob = Glob::new(pattern.as_str()).unwrap();
            let extended: Parts = first.iter().chain(&more).cloned().collect();
            for parts in [&other, &extended, &first] {
                let below = parts.len() > first.len() && parts.starts_with(&first);
                prop_assert_eq!(glob.matches(build(&as_strs(parts)).as_bytes()), below);
            }
        }
    }
}
