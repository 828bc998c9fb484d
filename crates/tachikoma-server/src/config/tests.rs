use std::time::Duration;

use super::units::{Size, Span};
use super::values::Secret;
use super::*;

fn none(_: &str) -> Option<String> {
    None
}

fn resolved(text: &str) -> Result<Config, String> {
    let settings = file::parse(text, "t.toml").map_err(|error| error.to_string())?;
    Config::resolve(settings, Settings::default(), none).map_err(|error| error.to_string())
}

const RUNS: &str = "api = true\n";

#[track_caller]
fn check_refused(text: &str, expected: &str) {
    match resolved(text) {
        Ok(_) => panic!("{text:?} was taken"),
        Err(error) => {
            assert!(error.contains(expected), "{text:?}\n  said: {error}\n  not:  {expected}");
            assert!(error.lines().count() <= 5, "{error}");
        }
    }
}

#[test]
fn a_file_may_begin_with_a_mark_and_end_its_lines_in_both_ways() {
    for text in ["api = true", "\u{feff}api = true\n", "api = true\r\n[proxy]\r\n", "\tapi=true"] {
        assert!(resolved(text).is_ok_and(|config| config.api), "{text:?}");
    }
}

#[test]
fn an_unknown_key_is_refused_with_its_line_and_the_nearest_known_one() {
    check_refused("\n\nlistn = '127.0.0.1:1'", "t.toml:3: unknown key \"listn\"");
    check_refused("listn = '127.0.0.1:1'", "did you mean `listen`?");
    check_refused("access-log = 'off'", "did you mean `access_log`?");
    check_refused("[proxy]\nconect_timeout = '1s'", "t.toml:2: unknown key \"conect_timeout\"");
    check_refused("[proxy]\nconect_timeout = '1s'", "did you mean `connect_timeout`?");
    check_refused("connect_timeout = '1s'", "`connect_timeout` belongs under [proxy]");
    check_refused("[limits]\nlisten = '127.0.0.1:1'", "`listen` belongs at the top");
    check_refused("colour = 1", "known here: listen, upstream");
    check_refused("admin_token = 'x'", "unknown key");
}

#[test]
fn a_duplicate_key_is_refused_with_its_line() {
    check_refused("api = true\napi = false", "t.toml:2");
}

#[test]
fn a_value_of_the_wrong_type_is_refused_by_name_with_what_is_allowed() {
    for (text, key) in [
        ("listen = 8080", "listen"),
        ("listen = ['127.0.0.1:1']", "listen"),
        ("upstream = true", "upstream"),
        ("api = 'yes'", "api"),
        ("api = 1", "api"),
        ("database = 1", "database"),
        ("cache = {}", "cache"),
        ("admin = false", "admin"),
        ("log = 3", "log"),
        ("access_log = true", "access_log"),
        ("drain = 30", "drain"),
        ("drain = 1.5", "drain"),
        ("proxy = 'fast'", "proxy"),
        ("admin_token_file = 1", "admin_token_file"),
    ] {
        check_refused(text, &format!("t.toml:1: {key}: "));
    }
    check_refused("drain = 30", "a whole number and a unit (ms, s, m, h, d)");
    check_refused("listen = 8080", "an IP address and a port");
}

#[test]
fn a_value_out_of_range_is_refused_by_name_with_the_range() {
    for (text, name) in [
        ("listen = '127.0.0.1:65536'", "listen"),
        ("listen = '127.0.0.1:-1'", "listen"),
        ("admin = 'on'", "admin"),
        ("drain = '5'", "drain"),
        ("drain = '5 parsec'", "drain"),
        ("drain = '-1s'", "drain"),
        ("drain = '1e400s'", "drain"),
        ("drain = '2d'", "drain"),
        ("cache = 'disk'", "cache"),
        ("database = 'postgres://x'", "database"),
        ("access_log = 'xml'", "access_log"),
        ("log = 'loud'", "log"),
        ("[proxy]\nhead_timeout = '0s'", "proxy.head_timeout"),
        ("[proxy]\nconnect_timeout = '25h'", "proxy.connect_timeout"),
        ("[limits]\nhead_bytes = '10XB'", "head_bytes"),
        ("[limits]\nhead_bytes = '1GiB'", "limits.head_bytes"),
        ("[limits]\nhead_bytes = '1B'", "limits.head_bytes"),
        ("[limits]\nhead_fields = 0", "limits.head_fields"),
        ("[limits]\nhead_fields = 70000", "head_fields"),
        ("[limits]\nhead_fields = -1", "head_fields"),
        ("[limits]\nconnections = 0", "limits.connections"),
    ] {
        check_refused(text, &format!("{name}: "));
    }
    check_refused("drain = '2d'", "between 0ms and 1d is allowed");
    check_refused("drain = '5 parsec'", "drain: \"5 parsec\" is refused");
}

#[test]
fn an_upstream_that_is_not_a_plain_origin_is_refused() {
    for url in ["http://h/app", "http://u:p@h", "ftp://h", "h:80", "unix:/run/x", "http://h:0", ""]
    {
        check_refused(&format!("upstream = '{url}'"), "t.toml:1: upstream: ");
    }
}

#[test]
fn settings_that_contradict_each_other_are_refused_with_a_way_out() {
    check_refused("", "neither upstream nor api is set");
    check_refused("", "hint: tachikoma serve --upstream");
    let both = "listen = '127.0.0.1:7000'\nadmin = '127.0.0.1:7000'\napi = true";
    check_refused(both, "listen and admin are both 127.0.0.1:7000");
    let all = "listen = '0.0.0.0:7000'\nadmin = '127.0.0.1:7000'\napi = true";
    check_refused(all, "listen and admin are both");
    for upstream in ["127.0.0.1:8080", "localhost:8080", "127.0.0.1:9090", "0.0.0.0:8080"] {
        check_refused(&format!("upstream = 'http://{upstream}'"), "is this server itself");
    }
    check_refused("listen = '[::]:80'\nupstream = 'http://[::1]'", "is this server itself");
    check_refused("api = true\nadmin = '0.0.0.0:9090'", "no token is set");
    check_refused("api = true\nadmin = '[::]:9090'", "--admin-token-file");
}

#[test]
fn a_secret_comes_from_its_variable_and_is_never_printed() {
    let variable =
        |name: &str| (name == "TACHIKOMA_ADMIN_TOKEN").then(|| "0123456789abcdef".to_owned());
    let said = file::parse("api = true\nadmin = '0.0.0.0:9090'", "t").expect("parses");
    let config = Config::resolve(said.clone(), Settings::default(), variable).expect("a token");
    assert_eq!(config.secrets.admin.as_ref().map(Secret::reveal), Some("0123456789abcdef"));
    assert!(!format!("{config:?}{}", config.to_toml()).contains("0123456789"));

    let short = |_: &str| Some("short".to_owned());
    let error = Config::resolve(said, Settings::default(), short).expect_err("too short");
    assert_eq!(error.to_string(), "TACHIKOMA_ADMIN_TOKEN: a secret is at least 16 characters long");
}

#[test]
fn a_read_token_needs_another_token_beside_it() {
    let read_only = |name: &str| (name.contains("READ")).then(|| "0123456789abcdef".to_owned());
    let same = |name: &str| (name.contains("ADMIN")).then(|| "0123456789abcdef".to_owned());
    let said = file::parse(RUNS, "t").expect("parses");
    for (variable, expected) in
        [(&read_only as &dyn Fn(&str) -> Option<String>, "no admin token"), (&same, "are the same")]
    {
        let error = Config::resolve(said.clone(), Settings::default(), variable);
        assert!(error.expect_err("refused").to_string().contains(expected));
    }
}

#[test]
fn a_flag_overrules_the_file_and_the_file_the_default() {
    let said = file::parse("api = true\ndrain = '5s'\nlog = 'warn'", "t").expect("parses");
    let flags = Settings { drain: Some(Span(Duration::from_secs(7))), ..Settings::default() };
    let config = Config::resolve(said, flags, none).expect("resolves");
    assert_eq!(config.drain, Span(Duration::from_secs(7)));
    assert_eq!(config.log.as_str(), "warn");
    assert_eq!(config.limits.head_fields, 100);
}

#[test]
fn what_show_prints_reads_back_as_the_same_settings() {
    let text = "api = true\nupstream = 'http://origin.test:81'\nadmin = 'off'\n\
                drain = '1500ms'\n[limits]\nhead_bytes = '64KiB'\n";
    let shown = resolved(text).expect("resolves").to_toml();
    assert_eq!(resolved(&shown).expect("reads back").to_toml(), shown);
    assert!(shown.contains("drain = \"1500ms\""), "{shown}");
}

#[test]
fn a_password_in_a_refused_value_is_not_repeated() {
    check_refused("cache = 'http://u:hunter2@h'", "cache: ");
    for text in ["cache = 'http://u:hunter2@h'", "upstream = 'http://u:hunter2@h'"] {
        assert!(!resolved(text).expect_err("refused").contains("hunter2"));
    }
}

#[test]
fn a_rule_that_cannot_work_is_refused_by_its_number() {
    let rule = |text: &str| format!("{RUNS}[[rules]]\nprefix = '/'\nttl = '1s'\n[[rules]]\n{text}");
    for (text, expected) in [
        ("path = 'static/*'\nttl = '1s'", "[[rules]] number 2: path: \"static/*\" is refused"),
        ("ttl = '1s'", "either path or prefix"),
        ("path = '/a'\nprefix = '/b'", "either path or prefix"),
        ("path = '/a'", "changes nothing"),
        ("path = '/a'\nforce_store = true", "force_store needs a ttl"),
        ("path = '/a'\nhost = 'http://a.test'\nttl = '1s'", "host: \"http://a.test\" is refused"),
        ("path = '/a'\nignore_query = ['']", "ignore_query"),
        ("path = '/a'\ntags = ['']", "tag: \"\" is refused"),
        ("path = '/a'\nkey_headers = ['a b']", "key_headers"),
        ("path = '/a'\ntl = '1s'", "unknown key \"tl\""),
    ] {
        check_refused(&rule(text), expected);
    }
    let whole = rule("path = '/a*'\nhost = '*.a.test'\nttl = '1m'\nignore_query = ['utm_*']");
    let config = resolved(&whole).unwrap();
    assert_eq!(config.rules.len(), 2);
    assert_eq!(resolved(&config.to_toml()).unwrap().rules, config.rules);
}

#[test]
fn the_bounds_of_the_response_cache_are_checked() {
    let section = |text: &str| format!("{RUNS}[responses]\n{text}");
    check_refused(&section("max_body_size = '1B'"), "responses.max_body_size");
    check_refused(&section("max_fill_bytes = '2GiB'"), "responses.max_fill_bytes");
    check_refused(&section("max_fill_bytes = '4MiB'"), "responses.max_body_size");
    check_refused(&section("wait_limit = '2d'"), "responses.wait_limit");
    check_refused(&section("max_large_bytes = '7MiB'"), "between 8MiB and 1024GiB is allowed");
    let redis = |text: &str| format!("cache = 'redis://127.0.0.1/'\n{}", section(text));
    check_refused(&redis("max_body_size = '256MiB'"), "between 1KiB and 255MiB is allowed");
    let small = "max_body_size = '9MiB'\nmax_large_bytes = '9MiB'";
    check_refused(&redis(small), "between 1KiB and 8MiB is allowed");
    assert!(resolved(&section(small)).is_ok(), "in memory the cache itself is the bound");
    let config = resolved(&redis("max_body_size = '64MiB'")).unwrap();
    assert_eq!(config.responses.max_large_bytes, Size(256 << 20));
    check_refused(&section("max_bodysize = '1MiB'"), "did you mean `max_body_size`?");
    check_refused(&section("heuristic = 'yes'"), "heuristic");
    let config = resolved(&section("heuristic = false\ndefault_ttl = '5s'")).unwrap();
    assert!(!config.responses.heuristic);
    assert_eq!(resolved(&config.to_toml()).unwrap().responses, config.responses);
}
