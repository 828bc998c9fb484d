//! Arguments: what is refused, with which exit code, and how the error helps.

use std::net::TcpListener;

use crate::support::{Origin, Tachikoma, get, run, send};

#[track_caller]
fn check(arguments: &[&str], variables: &[(&str, &str)], code: i32, said: &str) {
    let ended = run(arguments, variables);
    assert_eq!(ended.code, Some(code), "{arguments:?}: {ended:?}");
    let output = format!("{}{}", ended.out, ended.err);
    assert!(output.contains(said), "{arguments:?}\n  said: {output}\n  not:  {said}");
    assert!(!output.contains("panicked"), "{output}");
}

#[test]
fn help_and_version_are_printed_and_nothing_else_is_asked() {
    check(&["--help"], &[], 0, "Usage: tachikoma <COMMAND>");
    check(&["serve", "--help"], &[], 0, "TACHIKOMA_UPSTREAM");
    check(&["--version"], &[], 0, env!("CARGO_PKG_VERSION"));
    check(&[], &[], 2, "Usage: tachikoma <COMMAND>");
}

#[test]
fn what_is_asked_for_the_wrong_way_is_refused_with_code_2() {
    check(&["serve"], &[], 2, "neither upstream nor api is set");
    check(&["serve"], &[], 2, "hint: tachikoma serve --upstream http://127.0.0.1:3000");
    check(&["server"], &[], 2, "'serve'");
    check(&["serve", "--upstreem", "x"], &[], 2, "--upstream");
    check(&["serve", "--upstream"], &[], 2, "a value is required");
    check(&["serve", "--api", "--api"], &[], 2, "cannot be used multiple times");
    check(&["serve", "--api", "extra"], &[], 2, "unexpected argument 'extra'");
    check(&["serve", "--api=maybe"], &[], 2, "invalid value 'maybe'");
    check(&["serve", "--", "--api"], &[], 2, "unexpected argument");
    check(&["serve", "--listen", "8080"], &[], 2, "an address is an IP address and a port");
    check(&["serve", "--listen", "127.0.0.1:99999"], &[], 2, "0 to 65535");
    check(&["serve", "--drain=-1s"], &[], 2, "--drain");
    check(&["serve", "--drain=5 parsec"], &[], 2, "(ms, s, m, h, d)");
    check(&["serve", "--upstream", "localhost:80"], &[], 2, "http://host:port");
    check(&["serve", "--api", "--config", "/no/such/file.toml"], &[], 2, "cannot be read");
    check(&["serve", "--api", "--admin", "0.0.0.0:9090"], &[], 2, "no token is set");
    let same = ["serve", "--api", "--listen", "127.0.0.1:81", "--admin", "127.0.0.1:81"];
    check(&same, &[], 2, "listen and admin are both 127.0.0.1:81");
    let own = ["serve", "--listen", "127.0.0.1:82", "--upstream", "http://127.0.0.1:82"];
    check(&own, &[], 2, "is this server itself");
}

#[test]
fn an_argument_that_is_not_text_is_refused() {
    use std::os::unix::ffi::OsStrExt as _;
    let bytes = std::ffi::OsStr::from_bytes(b"--listen=\xff\xfe");
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_tachikoma"));
    let output = command.arg("serve").arg(bytes).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
}

#[test]
fn a_bad_variable_is_named_in_its_error() {
    for (name, value) in [
        ("TACHIKOMA_LISTEN", "8080"),
        ("TACHIKOMA_UPSTREAM", "x"),
        ("TACHIKOMA_API", "maybe"),
        ("TACHIKOMA_DRAIN", "5"),
        ("TACHIKOMA_LIMITS_HEAD_FIELDS", "many"),
        ("TACHIKOMA_PROXY_HEAD_TIMEOUT", ""),
        ("TACHIKOMA_ADMIN_TOKEN", "short"),
    ] {
        // A flag wins over its variable, so it is not given where the variable is tested.
        let others = ["--listen=127.0.0.1:0", "--upstream=http://127.0.0.1:9", "--admin=off"];
        let flag = name.trim_start_matches("TACHIKOMA_").to_lowercase();
        let others = others.iter().filter(|other| !other[2..].starts_with(&format!("{flag}=")));
        let arguments: Vec<_> = ["serve"].iter().chain(others).copied().collect();
        check(&arguments, &[(name, value)], 2, name);
    }
}

#[test]
fn a_password_in_a_variable_or_argument_is_not_repeated() {
    let url = "redis://user:hunter2@127.0.0.1/0";
    let shown = run(&["config", "show", "--api"], &[("TACHIKOMA_CACHE", url)]);
    assert_eq!(shown.code, Some(0), "{shown:?}");
    assert!(shown.out.contains("redis://user:***@127.0.0.1/0"), "{}", shown.out);
    let help = run(&["serve", "--help"], &[("TACHIKOMA_CACHE", url)]);
    for ended in [shown, help] {
        assert!(!format!("{ended:?}").contains("hunter2"), "{ended:?}");
    }
}

#[test]
fn a_port_in_use_is_said_in_one_line_with_code_1() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let upstream = ["serve", "--upstream", "http://127.0.0.1:9"];
    let listen = [&upstream[..], &["--listen", &address, "--admin", "off"]].concat();
    check(&listen, &[], 1, &format!("listen: {address} is in use by another process"));
    let admin = [&upstream[..], &["--listen", "127.0.0.1:0", "--admin", &address]].concat();
    check(&admin, &[], 1, &format!("admin: {address} is in use by another process"));
    let foreign = [&upstream[..], &["--listen", "192.0.2.1:80", "--admin", "off"]].concat();
    check(&foreign, &[], 1, "listen: 192.0.2.1:80 is not an address of this machine");
}

#[test]
fn an_upstream_whose_name_leads_back_here_is_refused() {
    // `localhost` and all addresses of this machine lead to a listener on every address.
    let port = tachikoma_testkit::free_port();
    let listen = format!("0.0.0.0:{port}");
    let upstream = format!("http://localhost:{port}");
    let arguments = ["serve", "--listen", &listen, "--upstream", &upstream, "--admin", "off"];
    check(&arguments, &[], 2, "is this server itself");
}

#[test]
fn a_closed_standard_output_is_no_reason_to_stop() {
    let origin = Origin::saying("hello");
    let mut server = Tachikoma::serve(&["--upstream", &origin.url(), "--access-log", "common"]);
    server.close_output();
    for _ in 0..20 {
        assert_eq!(get(server.address(), "/").text(), "hello");
    }
}

#[test]
fn the_access_log_can_leave_out_what_stands_in_queries() {
    let origin = Origin::saying("hello");
    let base = ["--upstream", &origin.url(), "--access-log-query=false"];
    for form in ["common", "json"] {
        let server = Tachikoma::serve(&[&base[..], &["--access-log", form]].concat());
        let lines = "Host: a.test\r\nReferer: http://b.test/x?s3cret=1\r\nConnection: close";
        send(server.address(), format!("GET /a?s3cret=1 HTTP/1.1\r\n{lines}\r\n\r\n"));
        let line = server.line();
        assert!(line.contains("/a") && !line.contains("s3cret"), "{line}");
        assert_eq!(line.contains("http://b.test/x\""), form == "json", "{line}");
    }
}

#[test]
fn the_access_log_has_a_line_for_each_request() {
    let origin = Origin::saying("hello");
    let server = Tachikoma::serve(&["--upstream", &origin.url(), "--access-log", "common"]);
    assert_eq!(get(server.address(), "/a?b").status, 200);
    let line = server.line();
    assert!(line.starts_with("127.0.0.1 - - ["), "{line}");
    assert!(line.ends_with(" +0000] \"GET /a?b HTTP/1.1\" 200 5"), "{line}");

    let server = Tachikoma::serve(&["--upstream", &origin.url(), "--access-log", "json"]);
    assert_eq!(get(server.address(), "/a?b").status, 200);
    let line: serde_json::Value = serde_json::from_str(&server.line()).unwrap();
    assert_eq!((&line["target"], &line["status"]), (&"/a?b".into(), &200.into()));
    assert_eq!((&line["bytes"], &line["complete"]), (&5.into(), &true.into()));
}
