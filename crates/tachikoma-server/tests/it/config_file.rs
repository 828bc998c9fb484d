//! Configuration files: what `config check` refuses, with which line, and what `show` prints.

use std::fs;
use std::path::Path;

use tempfile::TempDir;

use crate::support::{Origin, Tachikoma, get, run};

fn written(folder: &TempDir, bytes: &[u8]) -> String {
    let path = folder.path().join("t.toml");
    fs::write(&path, bytes).unwrap();
    path.to_str().unwrap().to_owned()
}

/// `config check` of a file with these bytes ends with code 2 and says this on at most 5 lines.
#[track_caller]
fn check_refused(bytes: &[u8], said: &str) {
    let folder = tempfile::tempdir().unwrap();
    let path = written(&folder, bytes);
    let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(80)]);
    let ended = run(&["config", "check", "--config", &path], &[]);
    assert_eq!(ended.code, Some(2), "{shown:?}: {ended:?}");
    assert!(ended.err.contains(said), "{shown:?}\n  said: {}\n  not:  {said}", ended.err);
    assert!(ended.err.lines().count() <= 5, "{}", ended.err);
    assert_eq!(ended.out, "");
}

#[test]
fn a_file_that_cannot_work_is_refused_with_its_line() {
    check_refused(b"", "neither upstream nor api is set");
    check_refused(b"\n\nlistn = '127.0.0.1:1'\n", "t.toml:3: unknown key \"listn\"");
    check_refused(b"\n\nlistn = '127.0.0.1:1'\n", "hint: did you mean `listen`?");
    check_refused(b"api = true\napi = true\n", "t.toml:2");
    check_refused(b"api = \n", "t.toml:1");
    check_refused(b"api = true\n[proxy\n", "t.toml:2");
    check_refused(b"api = true\ndrain = '5 parsec'\n", "t.toml:2: drain: \"5 parsec\" is refused");
    check_refused(b"api = true\n[limits]\nhead_bytes = '1GiB'\n", "limits.head_bytes");
    check_refused(b"\xff\xfe\x00a\x00", "not UTF-8");
    check_refused(&vec![b'#'; 10 << 20], "larger than 1 MiB");
    check_refused(b"a = '\x00'", "t.toml:1");
    let deep = format!("api = {}{}", "[".repeat(100_000), "]".repeat(100_000));
    check_refused(deep.as_bytes(), "t.toml:1");
}

#[test]
fn what_is_not_a_readable_file_is_refused_and_never_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    for path in [folder.path(), &pipe, Path::new("/dev/zero"), Path::new("/no/such/file")] {
        let ended = run(&["config", "check", "--config", path.to_str().unwrap()], &[]);
        assert_eq!(ended.code, Some(2), "{}: {ended:?}", path.display());
        assert!(ended.err.contains(path.to_str().unwrap()), "{}", ended.err);
    }
}

#[test]
fn a_variable_overrules_the_file_and_a_flag_overrules_both() {
    let folder = tempfile::tempdir().unwrap();
    let file = written(&folder, b"\xef\xbb\xbfapi = true\r\ndrain = '1s'\r\nlog = 'warn'\r\n");
    let variables = [("TACHIKOMA_CONFIG", file.as_str()), ("TACHIKOMA_DRAIN", "2s")];
    let shown = run(&["config", "show"], &variables).out;
    assert!(shown.contains("api = true") && shown.contains("drain = \"2s\""), "{shown}");
    assert!(shown.contains("log = \"warn\"") && shown.contains("head_fields = 100"), "{shown}");
    let shown = run(
        &["config", "show", "--drain", "3s", "--api=false", "--upstream", "http://h"],
        &variables,
    )
    .out;
    assert!(shown.contains("drain = \"3s\"") && shown.contains("api = false"), "{shown}");
}

#[test]
fn a_server_starts_from_a_file_alone() {
    let origin = Origin::saying("hello");
    let folder = tempfile::tempdir().unwrap();
    let file = written(&folder, format!("upstream = '{}'\n", origin.url()).as_bytes());
    assert_eq!(run(&["config", "check", "--config", &file], &[]).out, "ok\n");
    let server = Tachikoma::serve(&["--config", &file]);
    assert_eq!(get(server.address(), "/").text(), "hello");
}

#[test]
fn init_writes_a_file_that_checks_and_overwrites_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("new.toml");
    let path = path.to_str().unwrap();
    assert_eq!(run(&["config", "init", path], &[]).code, Some(0));
    assert_eq!(run(&["config", "check", "--config", path, "--api"], &[]).code, Some(0));
    fs::write(path, "mine").unwrap();
    let again = run(&["config", "init", path], &[]);
    assert_eq!(again.code, Some(1), "{again:?}");
    assert!(again.err.contains("--force"), "{}", again.err);
    assert_eq!(fs::read_to_string(path).unwrap(), "mine");
    assert_eq!(run(&["config", "init", "--force", path], &[]).code, Some(0));
    assert_eq!(run(&["config", "init", "-"], &[]).out, fs::read_to_string(path).unwrap());
}

#[test]
fn a_secret_that_others_can_read_is_warned_about_and_never_shown() {
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    fs::write(&token, "0123456789abcdef\n").unwrap();
    let token = token.to_str().unwrap();
    let ended = run(&["config", "show", "--api", "--admin-token-file", token], &[]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.err.contains("every user can read this secret"), "{}", ended.err);
    assert!(!format!("{ended:?}").contains("0123456789"), "{ended:?}");
    fs::write(token, "short\n").unwrap();
    let ended = run(&["config", "check", "--api", "--admin-token-file", token], &[]);
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(ended.err.contains("at least 16 characters"), "{}", ended.err);
    assert!(!ended.err.contains("short"), "{}", ended.err);
}
