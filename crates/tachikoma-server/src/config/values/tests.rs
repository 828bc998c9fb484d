use super::*;

#[track_caller]
fn check<T: FromStr<Err = Refused> + fmt::Display>(good: &[(&str, &str)], bad: &[&str]) {
    for (text, shown) in good {
        match text.parse::<T>() {
            Ok(value) => assert_eq!(value.to_string(), *shown),
            Err(refused) => panic!("{text:?} was refused: {refused}"),
        }
    }
    for text in bad {
        assert!(text.parse::<T>().is_err(), "{text:?} was taken");
    }
}

#[test]
fn an_address_is_an_ip_address_and_a_port() {
    check::<Listen>(
        &[("127.0.0.1:0", "127.0.0.1:0"), ("[::1]:8080", "[::1]:8080")],
        &[
            "",
            "8080",
            ":8080",
            "localhost:8080",
            "127.0.0.1",
            "127.0.0.1:65536",
            "127.0.0.1:-1",
            "127.0.0.1:http",
            "::1:8080",
            "http://127.0.0.1:80",
        ],
    );
    check::<Admin>(&[("off", "off"), ("127.0.0.1:9090", "127.0.0.1:9090")], &["", "on", "Off"]);
}

#[test]
fn an_upstream_is_an_origin_without_a_path() {
    check::<Upstream>(
        &[
            ("http://127.0.0.1:3000", "http://127.0.0.1:3000"),
            ("http://example.test", "http://example.test"),
            ("http://[::1]:3000/", "http://[::1]:3000"),
        ],
        &[
            "",
            "127.0.0.1:3000",
            "localhost",
            "//example.test",
            "ftp://example.test",
            "unix:///run/app.sock",
            "http://",
            "http://:80",
            "http://user:secret@example.test",
            "http://example.test/app",
            "http://example.test/?q",
            "http://example.test:0",
            "http://example.test:65536",
            "http://example.test:x",
            "http://a b",
            "http://example.test/#x",
            "http://example.test#x",
        ],
    );
}

#[test]
fn an_upstream_within_tls_needs_its_feature_and_has_its_own_port() {
    match "https://example.test".parse::<Upstream>() {
        Ok(upstream) => {
            assert!(tls::AVAILABLE && upstream.is_secure());
            assert_eq!(
                (upstream.port(), upstream.to_string().as_str()),
                (443, "https://example.test")
            );
        }
        Err(refused) => assert!(!tls::AVAILABLE && refused.to_string().contains("feature `tls`")),
    }
}

#[test]
fn the_host_of_an_ipv6_upstream_has_no_brackets() {
    let upstream: Upstream = "http://[::1]".parse().expect("good");
    assert_eq!((upstream.host(), upstream.port()), ("::1", 80));
}

#[test]
fn a_cache_url_never_shows_its_password() {
    check::<CacheUrl>(
        &[
            ("memory", "memory"),
            ("memory://?max_bytes=64MiB", "memory://?max_bytes=64MiB"),
            ("redis://host/0", "redis://host/0"),
            ("redis://user:secret@host/0", "redis://user:***@host/0"),
            ("redis://:s@cr/t@host:1", "redis://:***@host:1"),
            ("rediss://secret@host", "rediss://:***@host"),
            ("unix:///r.sock?user=me&pass=s&db=1", "unix:///r.sock?user=me&pass=***&db=1"),
            ("unix:///r.sock?password_file=/f", "unix:///r.sock?password_file=/f"),
            ("redis://u:s@host/0?max_bytes=1MiB", "redis://u:***@host/0?max_bytes=1MiB"),
        ],
        &["", "disk", "host:6379", "http://host", "redis:/host"],
    );
    let url: CacheUrl = "redis://u:hunter2@host".parse().expect("good");
    assert_eq!(format!("{url:?}"), "redis://u:***@host");
}

#[test]
fn a_database_is_a_sqlite_file() {
    check::<DatabaseUrl>(
        &[("sqlite://a.db", "sqlite://a.db"), ("sqlite:///var/a.db", "sqlite:///var/a.db")],
        &["", "a.db", "postgres://host/db", "sqlite://", "sqlite:"],
    );
}

#[test]
fn a_log_filter_is_a_level_or_directives() {
    check::<LogFilter>(
        &[("info", "info"), ("warn,tachikoma_server=debug", "warn,tachikoma_server=debug")],
        &["", "loud", "info,", "a=b=c", "tachikoma_server=loud"],
    );
}

#[test]
fn words_are_taken_as_they_are_written_only() {
    check::<AccessLog>(&[("off", "off"), ("json", "json")], &["", "JSON", "combined"]);
    check::<LogFormat>(&[("auto", "auto"), ("pretty", "pretty")], &["", "xml"]);
}

#[test]
fn a_secret_is_long_enough_fits_a_header_and_is_never_printed() {
    let secret = Secret::new("0123456789abcdef\r\n").expect("good");
    assert_eq!(secret.reveal(), "0123456789abcdef");
    assert_eq!(format!("{secret} {secret:?}"), "*** ***");
    for bad in ["", "short", "has a space in it", "two\nlines of text!", "ünïcödé-secret-xx"] {
        assert!(Secret::new(bad).is_err(), "{bad:?}");
    }
}
