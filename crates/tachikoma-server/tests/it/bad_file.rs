//! Bad configuration files, one by one (catalogue §7): each ends `config check` with code 2, at
//! once, on at most five lines that name the key, its value and what is allowed.

use std::fs;
use std::time::Duration;

use tachikoma_testkit::Stopwatch;

use crate::support::run;

/// What is in the file, and what is said of it.
type Row<'a> = (&'a str, &'a [&'a str]);

/// Checks all rows in the time that a second for each would take together: each takes far less, and
/// on a busy machine one may have to wait for the others.
#[track_caller]
fn check(rows: &[Row<'_>]) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.toml");
    let watch = Stopwatch::start();
    for (text, said) in rows {
        fs::write(&path, text).unwrap();
        check_refused(path.to_str().unwrap(), &text.chars().take(80).collect::<String>(), said);
    }
    watch.within(Duration::from_secs(rows.len() as u64));
}

#[track_caller]
fn check_refused(path: &str, shown: &str, said: &[&str]) {
    let ended = run(&["config", "check", "--config", path], &[]);
    assert_eq!(ended.code, Some(2), "{shown:?}: {ended:?}");
    for part in said {
        assert!(ended.err.contains(part), "{shown:?}\n  said: {}\n  not:  {part}", ended.err);
    }
    assert!(ended.err.lines().count() <= 5 && ended.err.len() < 1200, "{shown:?}: {}", ended.err);
    assert!(ended.err.starts_with("error: ") && !ended.err.contains("panicked"), "{}", ended.err);
    assert_eq!(ended.out, "", "{shown:?}");
}

const NOTHING: &[&str] = &["neither upstream nor api is set", "hint: "];

#[test]
fn a_file_that_says_nothing_or_is_no_toml() {
    let deep = format!("api = {}{}", "[".repeat(100_000), "]".repeat(100_000));
    let long = format!("api = true\n{} = 1\n", "x".repeat(100_000));
    check(&[
        ("", NOTHING),
        ("\u{feff}", NOTHING),
        ("\r\n\r\n", NOTHING),
        ("\t\t\n\t", NOTHING),
        ("# nothing\n", NOTHING),
        ("drain = '1s'\n", NOTHING),
        ("a = '\0'", &["t.toml:1: a: "]),
        (&deep, &["t.toml:1: api: ", "recurs"]),
        (&long, &["t.toml:2: unknown key", "…"]),
        ("{\"api\": true}", &["t.toml:1: "]),
        ("api: true\n", &["t.toml:1: ", "expected `=`"]),
        ("api = true\n[proxy\n", &["t.toml:2: [proxy: ", "expected `]`"]),
        ("api =\n", &["t.toml:1: api: "]),
        ("= true\n", &["t.toml:1: ", "key"]),
        ("api\n", &["t.toml:1: ", "expected `=`"]),
        ("listen = '127.0.0.1:1\n", &["t.toml:1: listen: ", "expected `'`"]),
        ("api = true\rlisten = 'x'", &["t.toml:1: api: ", "carriage return"]),
        ("database = \"sqlite://\\q\"", &["t.toml:1: database: "]),
    ]);
}

#[test]
fn what_is_no_file_to_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.toml");
    let path = path.to_str().unwrap();
    for (bytes, said) in [
        (b"\xff\xfea\0p\0".to_vec(), "t.toml: not UTF-8"),
        (b"api = true # \xe9".to_vec(), "t.toml: not UTF-8"),
        (vec![b'#'; 10 << 20], "t.toml: larger than 1 MiB"),
    ] {
        fs::write(path, bytes).unwrap();
        check_refused(path, said, &[said]);
    }
    let pipe = folder.path().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    for path in [folder.path().to_str().unwrap(), pipe.to_str().unwrap(), "/dev/zero"] {
        check_refused(path, path, &[path, "not a regular file"]);
    }
    // A file that is there and cannot be read, whoever asks.
    for path in ["/proc/self/mem", "/no/such/file", "/dev/null/t.toml"] {
        check_refused(path, path, &[path, "cannot be read"]);
    }
}

#[test]
fn a_key_that_is_not_known_or_there_twice() {
    let top = &["known here: listen, upstream"];
    check(&[
        ("api = true\ncolour = 'red'\n", &["t.toml:2: unknown key \"colour\"", top[0]]),
        ("upsteam = 'http://h'\n", &["t.toml:1: ", "did you mean `upstream`?"]),
        ("API = true\n", &["did you mean `api`?"]),
        ("[limits]\nhead_byte = '64KiB'\n", &["t.toml:2: ", "did you mean `head_bytes`?"]),
        ("proxy.conect_timeout = '1s'\n", &["did you mean `connect_timeout`?"]),
        ("[limit]\nhead_bytes = '64KiB'\n", &["did you mean `limits`?"]),
        ("[proxy]\nlisten = '127.0.0.1:1'\n", &["`listen` belongs at the top"]),
        ("head_fields = 10\n", &["`head_fields` belongs under [limits]"]),
        ("include = 't.toml'\n", &["unknown key \"include\"", top[0]]),
        ("admin_token = '0123456789abcdef'\n", &["unknown key \"admin_token\"", top[0]]),
        ("[[upstreams]]\nname='a'\nurl='http://h'\nhost=['x']\n", &["t.toml:4: ", "`hosts`?"]),
        ("[[rules]]\npath='/a'\ntl='1s'\n", &["t.toml:3: ", "did you mean `ttl`?"]),
        ("api = true\napi = true\n", &["t.toml:2: api: ", "duplicate key"]),
        ("[proxy]\n[proxy]\n", &["t.toml:2: [proxy]: ", "duplicate key"]),
        ("[limits]\nhead_fields = 10\nhead_fields = 11\n", &["t.toml:3: head_fields: "]),
    ]);
}

#[test]
fn a_value_of_another_type() {
    let flag = "true and false are allowed";
    let small = "a whole number from 0 to 65535 is allowed";
    check(&[
        ("listen = 8080\n", &["listen: \"8080\" is refused", "an IP address and a port"]),
        ("listen = ['127.0.0.1:1']\n", &["listen: ", "an IP address and a port"]),
        ("upstream = true\n", &["upstream: \"true\"", "http://host:port"]),
        ("api = 'yes'\n", &["api: \"yes\"", flag]),
        ("api = 1\n", &["api: \"1\"", flag]),
        ("cache = {}\n", &["cache: \"{}\"", "`memory`, or redis://"]),
        ("admin = false\n", &["admin: \"false\"", "`off`, or an address"]),
        ("log = 3\n", &["log: \"3\"", "off, error, warn, info, debug, trace"]),
        ("drain = 30\n", &["drain: \"30\"", "(ms, s, m, h, d)"]),
        ("drain = 1.5\n", &["drain: \"1.5\"", "(ms, s, m, h, d)"]),
        ("drain = 1979-05-27\n", &["drain: \"1979-05-27\"", "(ms, s, m, h, d)"]),
        ("proxy = 'fast'\n", &["proxy: \"fast\"", "a section is allowed"]),
        ("[limits]\nhead_fields = '100'\n", &["head_fields: \"100\"", small]),
        ("[limits]\nhead_fields = 1.0\n", &["head_fields: \"1.0\"", small]),
        ("[limits]\nhead_bytes = 65536\n", &["head_bytes: \"65536\"", "KiB"]),
        ("[upstreams]\nname = 'a'\n", &["t.toml:1: [upstreams]: ", "a list is allowed"]),
        ("rules = 'all'\n", &["rules: \"all\"", "a list is allowed"]),
        ("[responses]\nheuristic = 'yes'\n", &["heuristic: \"yes\"", flag]),
        ("[responses]\nkey_headers = 'a'\n", &["key_headers: \"a\"", "a list is allowed"]),
        ("admin_token_file = 1\n", &["admin_token_file: \"1\"", "a path in quotes is allowed"]),
    ]);
}

#[test]
fn a_value_out_of_its_range() {
    let address = "an IP address and a port (0 to 65535)";
    let span = "a whole number and a unit (ms, s, m, h, d)";
    let whole = "a whole number from 0 to 4294967295 is allowed";
    check(&[
        ("listen = '127.0.0.1:65536'\n", &["t.toml:1: listen: \"127.0.0.1:65536\"", address]),
        ("listen = '127.0.0.1:-1'\n", &["listen: \"127.0.0.1:-1\"", address]),
        ("listen = '127.0.0.1'\n", &["listen: ", address]),
        ("listen = 'localhost:80'\n", &["listen: ", address]),
        ("admin = 'on'\n", &["admin: \"on\"", address]),
        ("drain = '5'\n", &["drain: \"5\"", span]),
        ("drain = '5 parsec'\n", &["drain: \"5 parsec\"", span]),
        ("drain = '-1s'\n", &["drain: \"-1s\"", span]),
        ("drain = '1e400s'\n", &["drain: \"1e400s\"", span]),
        ("api = true\ndrain = '2d'\n", &["drain: \"2d\"", "between 0ms and 1d"]),
        ("[proxy]\nhead_timeout = '0s'\n", &["proxy.head_timeout: ", "between 1ms and 1d"]),
        ("[proxy]\nconnect_timeout = '25h'\n", &["proxy.connect_timeout: \"25h\"", "1d"]),
        ("[proxy]\nmax_concurrent = 0\n", &["proxy.max_concurrent: \"0\"", "between 1 and"]),
        ("[limits]\nhead_bytes = '10XB'\n", &["head_bytes: \"10XB\"", "KiB"]),
        ("[limits]\nhead_bytes = '1GiB'\n", &["limits.head_bytes: \"1GiB\"", "8KiB and 1MiB"]),
        ("[limits]\nline_bytes = '64KiB'\n", &["limits.line_bytes: ", "1KiB and 32KiB"]),
        ("[limits]\nbody_bytes = '99999999999GiB'\n", &["body_bytes: ", "too large"]),
        ("[limits]\nhead_fields = 0\n", &["limits.head_fields: \"0\"", "10 and 1000"]),
        ("[limits]\nhead_fields = 70000\n", &["head_fields: \"70000\"", "0 to 65535"]),
        ("[limits]\nconnections = 0\n", &["limits.connections: \"0\"", "1 and 1000000"]),
        ("[limits]\nconnections = 9223372036854775808\n", &["connections: ", whole]),
        (
            "api = true\n[responses]\nmax_body_size = '1B'\n",
            &["responses.max_body_size: \"1B\"", "1KiB"],
        ),
        ("log = 'loud'\n", &["log: \"loud\"", "error, warn, info"]),
        ("trusted_proxies = '10.0.0.1'\n", &["t.toml:1: trusted_proxies: ", "a list is allowed"]),
        (
            "trusted_proxies = ['10.0.0.1', '10.0.0.7/8']\n",
            &[
                "t.toml:1: trusted_proxies: \"10.0.0.7/8\" is refused",
                "begins where its prefix says",
            ],
        ),
        ("trusted_proxies = [7]\n", &["t.toml:1: trusted_proxies: ", "a text in quotes"]),
        ("access_log = 'xml'\n", &["access_log: \"xml\"", "off, common, json"]),
        ("cache = 'disk'\n", &["cache: \"disk\"", "`memory`, or redis://"]),
        ("database = 'postgres://x'\n", &["database: \"postgres://x\"", "SQLite"]),
    ]);
}

#[test]
fn a_cache_whose_own_settings_are_wrong() {
    let api = |cache: &str| format!("api = true\ncache = '{cache}'\n");
    for (cache, said) in [
        ("memory:?colour=red", "\"colour\" is not known; allowed are namespace"),
        ("memory:?max_entries=many", "max_entries"),
        ("memory:?default_ttl=5", "default_ttl"),
        ("memory:?snapshot=/nowhere/s&jitter=2", "jitter is 2.0; allowed is 0 to 1"),
        ("redis://127.0.0.1:1/0?colour=red", "\"colour\" is not known"),
        ("redis://127.0.0.1:1/0?memory=off&max_bytes=1MiB", "maxmemory"),
        ("redis://127.0.0.1:1/0?memory=some", "memory: \"some\"; allowed are on and off"),
        ("redis://127.0.0.1:1/zero", "the database; allowed is a number from 0"),
    ] {
        check(&[(&api(cache), &["cache: ", said])]);
    }
}

#[test]
fn an_upstream_that_is_no_origin_or_fits_no_other() {
    let two = |a: &str, b: &str| format!("[[upstreams]]\n{a}\n[[upstreams]]\n{b}\n");
    let one = |more: &str| format!("[[upstreams]]\nname='a'\nurl='http://h'\n{more}\n");
    let same_name = two("name='a'\nurl='http://h'\nhosts=['x']", "name='a'\nurl='http://g'");
    let same_place = two("name='a'\nurl='http://h'", "name='b'\nurl='http://g'");
    check(&[
        ("upstream = 'http://h/app'\n", &["upstream: \"http://h/app\"", "a path cannot"]),
        ("upstream = 'http://u:pw@h'\n", &["upstream: ", "a user or password"]),
        ("upstream = 'h:80'\n", &["upstream: \"h:80\"", "http://host:port"]),
        ("upstream = 'unix:/run/x'\n", &["upstream: ", "http://host:port"]),
        ("upstream = 'http://::1'\n", &["upstream: ", "http://host:port"]),
        ("upstream = 'http://h:0'\n", &["upstream: ", "between 1 and 65535"]),
        ("upstream = 'ftp://h'\n", &["upstream: ", "only http:// and https://"]),
        ("upstream = 'http://h?x'\n", &["upstream: ", "a path cannot"]),
        ("upstream = ''\n", &["upstream: \"\"", "http://host:port"]),
        ("[[upstreams]]\nname='a'\n", &["t.toml:1: [[upstreams]]: missing field `url`"]),
        (&one("hosts=['http://x']"), &["hosts: \"http://x\"", "a name without scheme"]),
        (&one("path_prefix='/a/../b'"), &["path_prefix: \"/a/../b\"", "whole segments"]),
        (&one("max_concurrent=0"), &["upstreams.a.max_concurrent: \"0\"", "between 1 and"]),
        ("[[upstreams]]\nname='a b'\nurl='http://h'\n", &["upstreams.name: \"a b\"", "letters"]),
        (&same_name, &["upstreams.name: \"a\" is there twice"]),
        (&same_place, &["upstreams a and b both answer for all hosts under /"]),
    ]);
}

#[test]
fn settings_that_do_not_go_together() {
    let both =
        format!("upstream = 'http://127.0.0.1:9'\n{}", "[[upstreams]]\nname='a'\nurl='http://h'\n");
    check(&[
        (
            "api = true\nlisten = '127.0.0.1:70'\nadmin = '127.0.0.1:70'\n",
            &["listen and admin are both 127.0.0.1:70", "hint: "],
        ),
        (
            "api = true\nlisten = '0.0.0.0:70'\nadmin = '127.0.0.1:70'\n",
            &["listen and admin are both", "--admin off"],
        ),
        ("upstream = 'http://127.0.0.1:8080'\n", &["upstream: http://127.0.0.1:8080 is this"]),
        ("upstream = 'http://localhost:9090'\n", &["upstream: ", "is this server itself"]),
        (&both, &["upstream and [[upstreams]] are both set"]),
        ("api = true\nadmin = '0.0.0.0:9090'\n", &["admin: 0.0.0.0:9090", "no token is set"]),
        ("api = true\n[tls]\ncert = '/nowhere'\n", &["tls.cert is set, tls.key is not"]),
        ("api = true\n[tls]\nkey = '/nowhere'\n", &["tls.key is set, tls.cert is not"]),
        (
            "api = true\ncache='redis://127.0.0.1/'\n[responses]\nmax_body_size='300MiB'\n",
            &["responses.max_body_size: \"300MiB\"", "between 1KiB and 255MiB", "max_large_bytes"],
        ),
    ]);
}

#[test]
fn files_that_a_file_names() {
    check(&[
        (
            "api = true\n[tls]\ncert = '/nowhere'\nkey='/nowhere'\n",
            &["tls.cert: /nowhere cannot be read"],
        ),
        ("api = true\n[tls]\nupstream_ca = '/dev/zero'\n", &["tls.upstream_ca: /dev/zero is not"]),
        ("api = true\n[tls]\nupstream_ca = '/etc/hosts'\n", &["holds no certificate"]),
        ("api = true\nadmin_token_file = '/nowhere'\n", &["admin_token_file: /nowhere: cannot"]),
        ("api = true\nadmin_token_file = '/dev/zero'\n", &["admin_token_file: /dev/zero: not a"]),
        (
            "api = true\nadmin_read_token_file = '/dev/zero'\n",
            &["admin_read_token_file: /dev/zero: not a regular file"],
        ),
    ]);
}

#[test]
fn a_rule_that_cannot_work() {
    let bomb = format!("path='/{}'\nttl='1s'", "*a".repeat(5000));
    for (rule, said) in [
        ("path='/a'", "a rule that changes nothing"),
        ("ttl='1s'", "either path or prefix"),
        ("path='/a'\nprefix='/b'\nttl='1s'", "either path or prefix"),
        ("path='/a'\nforce_store=true", "force_store needs a ttl"),
        (&bomb, "at most 4,096 bytes"),
        ("path='/a'\nignore_query=['']", "ignore_query: \"\" is refused"),
        ("path='/a'\nttl='1s'\nhost='http://x'", "host: \"http://x\" is refused"),
    ] {
        let text = format!("api = true\n[[rules]]\n{rule}\n");
        check(&[(&text, &["[[rules]] number 1: ", said])]);
    }
}
