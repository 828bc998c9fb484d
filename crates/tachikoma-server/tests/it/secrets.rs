//! The password of the Redis URL in ten places where people and programs look (DS-13), and what
//! logs may hold (DS-14). The library's own places are tested there.

use std::time::Duration;

use tachikoma_testkit::{RedisServer, wait_until};

use crate::support::{Origin, Tachikoma, get, run};

const SENTINEL: &str = "s3ntinel-pw";

#[track_caller]
fn check(sink: &str, shown: &str) {
    assert!(!shown.is_empty(), "{sink} shows nothing");
    assert!(!shown.contains(SENTINEL), "{sink}: {shown}");
}

/// Nobody listens there.
fn away() -> String {
    format!("redis://user:{SENTINEL}@127.0.0.1:{}/0", tachikoma_testkit::free_port())
}

/// No server has it; its password stands in the query.
fn socket() -> String {
    format!("unix:///run/nobody.sock?user=me&pass={SENTINEL}&db=1")
}

#[test]
fn help_shows_no_password() {
    for arguments in [&["--help"][..], &["serve", "--help"], &["config", "show", "--help"]] {
        let ended = run(arguments, &[("TACHIKOMA_CACHE", &away())]);
        check("--help", &(ended.out + &ended.err));
    }
}

#[test]
fn the_settings_in_force_show_no_password() {
    for cache in [away(), socket()] {
        for command in ["show", "check"] {
            let ended = run(&["config", command, "--api"], &[("TACHIKOMA_CACHE", &cache)]);
            assert_eq!(ended.code, Some(0), "{ended:?}");
            check("config", &(ended.out + &ended.err));
        }
    }
}

#[test]
fn errors_of_arguments_and_variables_show_no_password() {
    for bad in [
        format!("http://user:{SENTINEL}@127.0.0.1:1/0"),
        format!("redis://user:{SENTINEL}@127.0.0.1:1/0 "),
        format!("redis//user:{SENTINEL}@h"),
        format!("redis://user:{SENTINEL}@127.0.0.1:1/0?colour=red"),
        format!("redis://user:{SENTINEL}@127.0.0.1:999999/0"),
        format!("unix//run/r.sock?pass={SENTINEL}"),
        format!("http:///run/r.sock?user=me&pass={SENTINEL}"),
        format!("unix:///run/r.sock?pass={SENTINEL}&colour=red"),
        format!("unix:///run/r.sock?db=x&pass={SENTINEL}"),
    ] {
        let base = ["serve", "--api", "--listen", "127.0.0.1:0", "--admin", "off"];
        let by_flag = run(&[&base[..], &["--cache", &bad]].concat(), &[]);
        let by_variable = run(&base, &[("TACHIKOMA_CACHE", &bad)]);
        for ended in [by_flag, by_variable] {
            assert_ne!(ended.code, Some(0), "{ended:?}");
            check("the error", &ended.err);
        }
    }
    for arguments in [
        &["serve", &away()][..],
        &[&away()],
        &["config", &away()],
        &["serve", &socket()],
        &[&socket()],
    ] {
        let ended = run(arguments, &[]);
        assert_eq!(ended.code, Some(2), "{ended:?}");
        check("the error of an argument that is not known", &ended.err);
    }
    let twice = run(&["serve", "--cache", &away(), "--cache", &away()], &[]);
    check("the error of a flag given twice", &twice.err);
}

#[test]
fn errors_of_the_file_show_no_password() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("tachikoma.toml");
    for text in [
        format!("cache = \"http://user:{SENTINEL}@h/0\"\n"),
        format!("cache = \"redis://user:{SENTINEL}@h/0\n"),
        format!("cache = redis://user:{SENTINEL}@h/0\n"),
        format!("cahce = \"redis://user:{SENTINEL}@h/0\"\n"),
        format!("cache = [\"redis://user:{SENTINEL}@h/0\"]\n"),
        format!("cache = \"redis://user:{SENTINEL}@h/0\" x\n"),
        format!("cache = \"http:///r.sock?user=me&pass={SENTINEL}\"\n"),
        format!("cache = \"unix:///r.sock?pass={SENTINEL}\n"),
        format!("cache = unix:///r.sock?pass={SENTINEL}\n"),
        format!("cache = [\"unix:///r.sock?pass={SENTINEL}\"]\n"),
        format!("listen = \"unix:///r.sock?pass={SENTINEL}\"\n"),
    ] {
        std::fs::write(&file, &text).unwrap();
        let ended = run(&["config", "check", "--config", file.to_str().unwrap()], &[]);
        assert_ne!(ended.code, Some(0), "{text}: {ended:?}");
        check("the error", &(ended.out + &ended.err));
    }
}

/// Against a server that refuses the password and against none, with everything logged.
#[test]
fn logs_metrics_and_the_admin_view_show_no_password_and_no_value() {
    let redis = RedisServer::builder().password("another-password").start();
    let origin = Origin::saying("s3ntinel-pw as a body");
    let cache = away();
    let mut server =
        Tachikoma::serve(&["--upstream", &origin.url(), "--cache", &cache, "--log", "trace"]);
    for target in ["/a", "/a", "/%1b%5b31m", "/b"] {
        assert_eq!(get(server.address(), target).status, 200);
    }
    for target in ["/metrics", "/stats", "/readyz", "/livez"] {
        check(target, &get(server.admin(), target).text());
    }
    assert!(wait_until(Duration::from_secs(5), || server.log().len() > 20));
    server.signal(rustix::process::Signal::TERM);
    server.wait();
    let log = server.log().join("\n");
    check("the log at trace", &log);
    assert!(!log.contains('\x1b'), "an escape of the terminal in the log");

    let url = format!("redis://default:{SENTINEL}@127.0.0.1:{}/0", redis.port());
    let base = ["serve", "--api", "--listen", "127.0.0.1:0", "--admin", "off", "--log", "trace"];
    let ended = run(&[&base[..], &["--cache", &url]].concat(), &[]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    check("the log of a refused login", &ended.err);
}
