//! What the attribute refuses, and in which words.

use super::*;

#[track_caller]
fn check(options: &str, function: &str, expected: &str) {
    let parsed = syn::parse_str::<Options>(options);
    let expanded = parsed.and_then(|options| expand(&options, &syn::parse_str(function)?));
    match expanded {
        Ok(code) => assert!(expected.is_empty(), "{options} gave {code}, not {expected:?}"),
        Err(error) => {
            let text = error.to_string();
            assert!(!expected.is_empty() && text.contains(expected), "{options}: {text}");
        }
    }
}

#[test]
fn options_that_are_known_are_taken() {
    let function = "async fn f(id: u64) -> Result<Option<u32>, E> { g(id).await }";
    for options in [
        "cache = C, key = \"k:{id}\"",
        "key = \"k\", cache = cache_of(x).inner,",
        "cache = C, key = \"k\", tags(\"a\", \"b:{id}\"), ttl = \"1m\", negative_ttl = \"5s\"",
        "cache = C, key = \"k\", stale_while_revalidate = \"30s\", stale_if_error = \"1h\"",
        "cache = C, key = \"k\", soft_timeout = \"50ms\", load_timeout = \"2s\"",
        "cache = C, key = \"k\", retry_after = \"0s\"",
        "cache = C, key = \"k\", time_to_idle = \"10m\", early_refresh = 1, jitter = 0.1",
        "cache = C, key = \"k\", options = OPTIONS.jitter(0.2)",
    ] {
        check(options, function, "");
    }
}

#[test]
fn what_is_wrong_with_an_option_is_said() {
    let function = "async fn f(id: u64) -> u32 { 1 }";
    for (options, expected) in [
        ("", "`cache = …` is missing"),
        ("cache = C", "`key = \"…\"` is missing"),
        ("key = \"k\"", "`cache = …` is missing"),
        ("cache = C, key = \"k\", ttl = \"1s\", ttl = \"2s\"", "`ttl` stands twice"),
        ("cache = C, key = \"k\", cache = D", "`cache` stands twice"),
        ("cache = C, key = \"k\", swr = \"1s\"", "`swr` is not known; allowed are cache, key"),
        ("cache = C, key = \"k\", swr = \"1s\"", "stale_while_revalidate"),
        ("cache = C, key = k", "`key = …` needs a text"),
        ("cache = C, key(\"k\")", "`key = …` needs a text"),
        ("cache = C, key = \"k\", ttl = 60", "`ttl = …` needs a duration, as \"30s\""),
        ("cache = C, key = \"k\", stale_if_error", "`stale_if_error = …` needs a duration"),
        ("cache = C, key = \"k\", jitter = \"0.1\"", "`jitter = …` needs a number"),
        ("cache = C, key = \"k\", tags = \"a\"", "write the tags as tags("),
        ("cache = C, key = \"k:{name}\"", "`name` is not an argument"),
        ("cache = C, key = \"k\", tags(\"{name}\")", "`name` is not an argument"),
        ("cache = C key = \"k\"", "expected `,`"),
    ] {
        check(options, function, expected);
    }
}

#[test]
fn what_is_wrong_with_the_function_is_said() {
    let options = "cache = C, key = \"k\"";
    check(options, "fn f() -> u32 { 1 }", "needs an async function");
    check(options, "async fn f(&self) -> u32 { 1 }", "without self");
    check(options, "async fn f(id: &str) -> u32 { 1 }", "needs owned arguments");
    check(options, "async fn f(id: &'static str) -> u32 { 1 }", "");
    check(options, "async fn f((a, b): (u8, u8)) -> u32 { 1 }", "arguments with a name");
}
