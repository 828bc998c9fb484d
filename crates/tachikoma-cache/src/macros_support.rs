//! What the code that `#[cached]` writes calls. Not for use by hand; it may change at any time.

use std::fmt::Display;
use std::time::Duration;

use crate::cache::duration_millis;

/// The value and the error of a function's result.
pub trait Fallible {
    /// What it returns when it succeeds.
    type Value;
    /// What it returns when it fails.
    type Error;
}

impl<T, E> Fallible for Result<T, E> {
    type Value = T;
    type Error = E;
}

/// Appends an argument to a key, so that no argument can pass for two.
pub fn push_part(key: &mut String, part: &impl Display) {
    crate::key::push_escaped(key, part);
}

/// The duration of `ttl = "…"`, at compile time.
pub const fn duration(text: &str) -> Duration {
    match duration_millis(text) {
        Some(millis) if millis > 0 => Duration::from_millis(millis),
        _ => panic!(
            "ttl: write a number above zero and its unit: \"250ms\", \"30s\", \"5m\", \"2h\""
        ),
    }
}
