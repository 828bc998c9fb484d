//! Decides what a pattern for deleting keys is made of: wildcards that were asked for, and text
//! that is only itself.
//!
//! Pure: it builds the text of a glob. Matching is [`glob`](crate::glob), deleting is the store's.
//! It refuses to match every key: that is what `clear` is for, and nobody calls it by accident.
//!
//! The language is Redis's glob; see [`glob`](crate::glob) for its rules.

use std::fmt;

use crate::error::{Error, ErrorKind};
use crate::glob::{Glob, escape};

/// A pattern of keys, as `delete_pattern` takes it.
///
/// Made of parts it is safe with any input: literal text matches only itself, whatever it holds.
///
/// ```
/// # use tachikoma_cache::Pattern;
/// let tenant = "*"; // from outside
/// let pattern = Pattern::new().literal("user:").literal(tenant).literal(":").any();
/// assert_eq!(pattern.as_str(), r"user:\*:*");
/// ```
#[derive(Clone, PartialEq, Eq, Default)]
#[must_use = "a pattern does nothing by itself"]
pub struct Pattern {
    text: String,
}

impl Pattern {
    /// An empty pattern to add parts to. Left empty it matches only the empty key.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes `glob` as it is, wildcards and all. Never put input into it: use
    /// [`literal`](Self::literal) for that.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidPattern`] if it is longer than
    /// [`MAX_PATTERN_BYTES`](crate::glob::MAX_PATTERN_BYTES) or matches every key.
    pub fn raw(glob: &str) -> Result<Self, Error> {
        let pattern = Self { text: glob.to_owned() };
        pattern.glob()?;
        Ok(pattern)
    }

    /// Adds text that matches only itself.
    pub fn literal(mut self, part: impl fmt::Display) -> Self {
        self.text.push_str(&escape(&part.to_string()));
        self
    }

    /// Adds `*`: any text, also none, and across `:` as well.
    pub fn any(mut self) -> Self {
        self.text.push('*');
        self
    }

    /// The pattern as a glob.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Compiles the pattern.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidPattern`] if the parts together, escapes included, are longer than
    /// [`MAX_PATTERN_BYTES`](crate::glob::MAX_PATTERN_BYTES) or match every key.
    pub fn glob(&self) -> Result<Glob, Error> {
        let glob = Glob::new(&self.text)?;
        if glob.is_match_all() {
            return Err(Error::new(
                ErrorKind::InvalidPattern,
                format!("{:?} matches every key; use `clear` to remove all of them", self.text),
            ));
        }
        Ok(glob)
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Pattern").field(&self.text).finish()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(pattern: &Pattern, key: &str, expected: bool) {
        let glob = pattern.glob().unwrap();
        assert_eq!(glob.matches(key.as_bytes()), expected, "{pattern:?} on {key:?}");
    }

    #[test]
    fn a_literal_part_is_never_a_wildcard() {
        let pattern = Pattern::new().literal("user:").literal("*").literal(":").any();
        check(&pattern, "user:*:name", true);
        check(&pattern, "user:anna:name", false);
    }

    #[test]
    fn a_raw_pattern_is_a_glob() {
        let pattern = Pattern::raw("user:[0-9]*").unwrap();
        check(&pattern, "user:12", true);
        check(&pattern, "superuser:12", false);
        assert!(Pattern::raw(&"*".repeat(4097)).is_err());
    }

    #[test]
    fn a_pattern_for_every_key_is_refused_and_names_clear() {
        for text in ["*", "***"] {
            let error = Pattern::raw(text).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidPattern);
            assert!(error.to_string().contains("`clear`"), "{error}");
        }
        assert!(Pattern::new().literal("").any().glob().is_err());
        assert!(Pattern::raw("?*").is_ok());
    }

    #[test]
    fn parts_that_grow_too_long_are_refused_when_compiled() {
        assert!(Pattern::new().literal("a".repeat(4096)).glob().is_ok());
        assert!(Pattern::new().literal("*".repeat(4096)).glob().is_err());
    }

    proptest! {
        #[test]
        fn literal_then_any_is_exactly_starts_with(
            prefix in r"[ab*?\[\]\\]{0,4}", key in r"[ab*?\[\]\\]{0,8}",
        ) {
            prop_assume!(!prefix.is_empty());
            let glob = Pattern::new().literal(&prefix).any().glob().unwrap();
            prop_assert_eq!(glob.matches(key.as_bytes()), key.starts_with(&prefix));
        }
    }
}
