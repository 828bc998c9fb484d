//! What the code that `#[cached]` writes calls. Not for use by hand; it may change at any time.

use std::fmt::Display;
use std::time::Duration;

use crate::expiry::MAX_TTL;
use crate::load::options::{DAY, MAX_BETA};
use crate::units::duration_millis;

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

/// A function's result that may be nothing, for `negative_ttl`.
#[diagnostic::on_unimplemented(
    message = "`negative_ttl` needs a function that returns `Option<T>` or `Result<Option<T>, E>`",
    label = "this is no `Option`"
)]
pub trait Optional {
    /// What it returns if there is something.
    type Value;
}

impl<T> Optional for Option<T> {
    type Value = T;
}

/// A time to live. Like all of these it is for constants: what is not allowed is an error of the
/// compiler, in the attribute's words.
pub const fn life(text: &str, message: &str) -> Duration {
    duration(text, 1, MAX_TTL, message)
}

/// For how long a stale value is good.
pub const fn window(text: &str, message: &str) -> Duration {
    duration(text, 0, MAX_TTL, message)
}

/// For how long somebody waits.
pub const fn timeout(text: &str, message: &str) -> Duration {
    duration(text, 1, DAY, message)
}

/// For how long nothing is tried.
pub const fn pause(text: &str, message: &str) -> Duration {
    duration(text, 0, DAY, message)
}

/// The factor of an early refresh.
pub const fn factor(value: f64, message: &str) -> f64 {
    assert!(value > 0.0 && value <= MAX_BETA, "{}", message);
    value
}

/// A part of a whole.
pub const fn fraction(value: f64, message: &str) -> f64 {
    assert!(value >= 0.0 && value <= 1.0, "{}", message);
    value
}

const fn duration(text: &str, least: u64, most: Duration, message: &str) -> Duration {
    match duration_millis(text) {
        Some(millis) if millis >= least && millis as u128 <= most.as_millis() => {
            Duration::from_millis(millis)
        }
        _ => panic!("{}", message),
    }
}

#[cfg(test)]
mod tests {
    use std::panic::catch_unwind;

    use super::*;

    #[track_caller]
    fn check(of: fn(&'static str, &'static str) -> Duration, text: &'static str, ok: bool) {
        assert_eq!(catch_unwind(|| of(text, "message")).is_ok(), ok, "{text}");
    }

    #[test]
    fn the_attribute_allows_what_the_options_allow() {
        for (of, zero, ten_years, too_long) in [
            (life as fn(&'static str, &'static str) -> Duration, false, true, "3651d"),
            (window, true, true, "3651d"),
            (timeout, false, false, "25h"),
            (pause, true, false, "25h"),
        ] {
            check(of, "1ms", true);
            check(of, "0s", zero);
            check(of, "3650d", ten_years);
            for bad in [too_long, "", "5", "1.5s", "-1s", "1 s", "99999999999999999999s"] {
                check(of, bad, false);
            }
        }
        for (of, bad) in [
            (factor as fn(f64, &'static str) -> f64, [0.0, -1.0, 100.5, f64::NAN]),
            (fraction, [-0.1, 1.1, f64::INFINITY, f64::NAN]),
        ] {
            assert!(catch_unwind(|| of(1.0, "message")).is_ok());
            for bad in bad {
                assert!(catch_unwind(|| of(bad, "message")).is_err(), "{bad}");
            }
        }
    }
}
