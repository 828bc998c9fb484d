use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;

#[track_caller]
fn check(pattern: &str, key: &str, expected: bool) {
    let glob = Glob::new(pattern).unwrap();
    assert_eq!(glob.matches(key.as_bytes()), expected, "{pattern:?} on {key:?}");
}

#[test]
fn literals_match_only_themselves() {
    check("user:1", "user:1", true);
    check("user:1", "user:12", false);
    check("user:1", "superuser:1", false);
    check("", "", true);
    check("", "a", false);
    check("é", "é", true);
}

#[test]
fn a_star_matches_any_text_and_none() {
    check("*", "", true);
    check("**", "", true);
    check("*", "anything", true);
    check("user:*", "user:", true);
    check("user:*", "user", false);
    check("user:*:name", "user:a:b:name", true);
    check("user:1*", "superuser:12", false);
    check("*a*b*", "xxaxxbxx", true);
    check("*a*b*", "xxbxxaxx", false);
    check("*ab", "aab", true);
    check("a*a", "a", false);
}

#[test]
fn a_question_mark_matches_one_byte_not_one_character() {
    check("?", "a", true);
    check("?", "", false);
    check("?", "é", false);
    check("??", "é", true);
    check("a?c", "abc", true);
}

#[test]
fn a_set_matches_one_of_its_bytes() {
    check("[abc]", "b", true);
    check("[abc]", "d", false);
    check("[a-c]", "b", true);
    check("[c-a]", "b", true);
    check("[^a-c]", "b", false);
    check("[^a-c]", "d", true);
    check("[^a-c]", "", false);
    check("[a-cx-z]", "y", true);
    check("[a^]", "^", true);
    check(r"[\]]", "]", true);
    check(r"[\^a]", "^", true);
}

#[test]
fn awkward_sets_mean_what_redis_makes_of_them() {
    check("[abc", "b", true);
    check("[^abc", "b", false);
    check("[^abc", "d", true);
    check("[", "[", false);
    check("[", "", false);
    check("[^", "x", true);
    check("[]", "]", false);
    check("[]abc]", "a", false);
    check("[^]", "x", true);
    check("[^]", "xy", false);
    check("[a-]", "b", false); // from `]` to `a`
    check("[a-]", "^", true);
    check("[a-", "-", true);
    check("[a-", "b", false);
    check("[--a]", "0", true);
    check(r"[\a-c]", "b", false); // `a`, `-`, `c`
    check(r"[\a-c]", "-", true);
    check(r"[a-\]]", "_]", true); // from `\` to `a`, then a literal `]`
    check(r"[a\", r"\", true);
    check("[[]", "[", true);
}

#[test]
fn a_backslash_takes_the_meaning_from_the_next_byte() {
    check(r"\*", "*", true);
    check(r"\*", "a", false);
    check(r"\\", r"\", true);
    check(r"a\", r"a\", true);
    check(r"\a", "a", true);
    check(r"\[a]", "[a]", true);
}

#[test]
fn what_redis_does_not_know_is_literal() {
    check("{a,b}", "a", false);
    check("{a,b}", "{a,b}", true);
    check("[!a]", "a", true);
    check("[!a]", "!", true);
    check("[!a]", "b", false);
    check("a|b", "a|b", true);
}

#[test]
fn a_pattern_longer_than_the_limit_is_refused_with_both_figures() {
    assert!(Glob::new(&"a".repeat(MAX_PATTERN_BYTES)).is_ok());
    let error = Glob::new(&"a".repeat(MAX_PATTERN_BYTES + 1)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidPattern);
    assert!(error.to_string().ends_with("4097 bytes; at most 4096 are allowed"), "{error}");
}

#[test]
fn the_literal_prefix_ends_at_the_first_wildcard() {
    for (pattern, prefix) in [
        ("user:*", "user:"),
        (r"a\*b*", "a*b"),
        ("*", ""),
        ("é?", "é"),
        (r"\é[a]", "é"),
        ("ab[c]", "ab"),
        ("plain", "plain"),
        (r"a\", r"a\"),
    ] {
        assert_eq!(Glob::new(pattern).unwrap().literal_prefix(), prefix, "{pattern:?}");
    }
}

#[test]
fn only_stars_match_everything() {
    for (pattern, all) in [("*", true), ("***", true), ("", false), ("?*", false), ("*a", false)] {
        assert_eq!(Glob::new(pattern).unwrap().is_match_all(), all, "{pattern:?}");
    }
}

#[test]
#[expect(clippy::disallowed_methods, reason = "the property is a real duration")]
fn fifty_stars_on_a_long_key_take_no_time_to_speak_of() {
    let glob = Glob::new(&format!("{}b", "a*".repeat(50))).unwrap();
    let key = "a".repeat(5000);
    let started = Instant::now();
    assert!(!glob.matches(key.as_bytes()));
    assert!(started.elapsed() <= Duration::from_millis(50), "{:?}", started.elapsed());
}

/// The definition, read off Redis's documentation and behaviour: no tokens, every split tried.
fn reference(pattern: &[u8], key: &[u8]) -> bool {
    match *pattern {
        [] => key.is_empty(),
        [b'*', ref rest @ ..] => (0..=key.len()).any(|split| reference(rest, &key[split..])),
        _ => {
            let Some((&byte, key)) = key.split_first() else {
                return false;
            };
            match *pattern {
                [b'?', ref rest @ ..] => reference(rest, key),
                [b'[', ref set @ ..] => {
                    let (hit, rest) = reference_set(set, byte);
                    hit && reference(rest, key)
                }
                [b'\\', escaped, ref rest @ ..] => escaped == byte && reference(rest, key),
                [literal, ref rest @ ..] => literal == byte && reference(rest, key),
                [] => false,
            }
        }
    }
}

fn reference_set(set: &[u8], byte: u8) -> (bool, &[u8]) {
    let (negated, mut set) = match set {
        [b'^', rest @ ..] => (true, rest),
        _ => (false, set),
    };
    let mut hit = false;
    loop {
        set = match *set {
            [] => return (hit != negated, set),
            [b']', ref rest @ ..] => return (hit != negated, rest),
            [b'\\', escaped, ref rest @ ..] => {
                hit |= escaped == byte;
                rest
            }
            [from, b'-', to, ref rest @ ..] => {
                let (from, to, byte) = (from.cast_signed(), to.cast_signed(), byte.cast_signed());
                hit |= (from.min(to)..=from.max(to)).contains(&byte);
                rest
            }
            [single, ref rest @ ..] => {
                hit |= single == byte;
                rest
            }
        };
    }
}

/// Few letters, so that patterns and keys meet often.
const PATTERN: &str = r"[abc*?\[\]\^\\!é{},-]{0,10}";
const KEY: &str = r"[abc*?\[\]\^\\!é{},-]{0,8}";

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2048))]

    #[test]
    fn it_agrees_with_the_plain_definition(pattern in PATTERN, key in KEY) {
        let glob = Glob::new(&pattern).unwrap();
        prop_assert_eq!(
            glob.matches(key.as_bytes()),
            reference(pattern.as_bytes(), key.as_bytes())
        );
    }

    #[test]
    fn an_escaped_key_matches_that_key_and_no_other(key in KEY, other in KEY) {
        let glob = Glob::new(&escape(&key)).unwrap();
        prop_assert!(glob.matches(key.as_bytes()));
        prop_assert_eq!(glob.matches(other.as_bytes()), key == other);
        prop_assert_eq!(glob.literal_prefix(), key);
    }

    #[test]
    fn every_match_begins_with_the_literal_prefix(pattern in PATTERN, key in KEY) {
        let glob = Glob::new(&pattern).unwrap();
        if glob.matches(key.as_bytes()) {
            prop_assert!(key.starts_with(glob.literal_prefix()));
        }
    }

    #[test]
    fn embedded_between_other_text_a_pattern_keeps_its_meaning(pattern in PATTERN, key in KEY) {
        let glob = Glob::new(&pattern).unwrap();
        let embedded = [b"{v", glob.embeddable().as_slice(), b"}"].concat();
        let outer = format!("{{v{key}}}");
        prop_assert_eq!(
            reference(&embedded, outer.as_bytes()),
            glob.matches(key.as_bytes())
        );
    }
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(pattern in "\\PC{0,16}", key in "\\PC{0,8}") {
        Glob::new(&pattern).unwrap().matches(key.as_bytes());
    }
}
