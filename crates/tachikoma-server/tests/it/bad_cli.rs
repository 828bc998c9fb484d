//! Bad command lines, one by one (catalogue §7): each ends with code 2, or 1 if it was right and
//! could not be done, at once, with an error that names the argument and what is allowed.

use std::process::{Command, Stdio};
use std::time::Duration;

use tachikoma_testkit::Stopwatch;

use crate::support::run;

/// Arguments, the exit code, and what is said.
type Row<'a> = (&'a [&'a str], i32, &'a [&'a str]);

/// Checks all rows in the time that a second for each would take together.
#[track_caller]
fn check(rows: &[Row<'_>]) {
    let watch = Stopwatch::start();
    for (arguments, code, said) in rows {
        let shown: Vec<_> = arguments.iter().map(|a| &a[..a.len().min(40)]).collect();
        let ended = run(arguments, &[]);
        assert_eq!(ended.code, Some(*code), "{shown:?}: {ended:?}");
        for part in *said {
            assert!(ended.err.contains(part), "{shown:?}\n  said: {}\n  not:  {part}", ended.err);
        }
        // What the parser of arguments adds: a tip, the usage, and where to read more.
        assert!(ended.err.lines().count() <= 8 && ended.err.len() < 1200, "{shown:?}: {ended:?}");
        assert!(ended.err.starts_with("error: ") && !ended.err.contains("panicked"), "{ended:?}");
        assert_eq!(ended.out, "", "{shown:?}");
    }
    watch.within(Duration::from_secs(rows.len() as u64));
}

#[test]
fn a_command_or_flag_that_is_not_known() {
    check(&[
        (&["--flag"], 2, &["unexpected argument '--flag'"]),
        (&["serv"], 2, &["unrecognized subcommand 'serv'", "'serve'"]),
        (&["SERVE"], 2, &["unrecognized subcommand 'SERVE'"]),
        (&[""], 2, &["unrecognized subcommand ''"]),
        (&["--", "serve"], 2, &["unexpected argument 'serve'"]),
        (&["serve", "-x"], 2, &["unexpected argument '-x'"]),
        (&["serve", ""], 2, &["unexpected argument ''"]),
        (&["serve", "--upstreem", "x"], 2, &["'--upstreem'", "'--upstream'"]),
        (&["serve", "--up", "http://h"], 2, &["'--up'", "'--upstream'"]),
        (&["serve", "--", "--api"], 2, &["unexpected argument '--api'"]),
        (&["serve", "--api", "extra"], 2, &["unexpected argument 'extra'"]),
        (&["serve", "--api", "true"], 2, &["unexpected argument 'true'"]),
        (&["config", "chek"], 2, &["'chek'", "'check'"]),
        (&["config", "init", "a", "b"], 2, &["unexpected argument 'b'"]),
        (&["purge"], 2, &["required", "--pattern"]),
        (&["purge", "k", "--tag", "t"], 2, &["'--tag <TAG>'"]),
        (&["explain"], 2, &["required", "<URL>"]),
    ]);
}

#[test]
fn a_value_that_is_missing_twice_or_not_allowed() {
    let number = "a whole number from 0 to 4294967295 is allowed";
    let span = "a whole number and a unit (ms, s, m, h, d)";
    check(&[
        (&["serve", "--upstream"], 2, &["a value is required for '--upstream <URL>'"]),
        (&["serve", "--config", ""], 2, &["a value is required for '--config <FILE>'"]),
        (&["serve", "--upstream="], 2, &["invalid value '' for '--upstream", "http://host:port"]),
        (&["serve", "--api", "--api"], 2, &["'--api[=<BOOL>]' cannot be used multiple times"]),
        (&["serve", "--log=info", "--log=warn"], 2, &["'--log <FILTER>' cannot be used multiple"]),
        (&["serve", "--api=maybe"], 2, &["'maybe'", "true, false"]),
        (&["serve", "--drain=-1s"], 2, &["'-1s' for '--drain", span]),
        (&["serve", "--drain", "-1s"], 2, &["unexpected argument '-1'"]),
        (&["serve", "--drain=5"], 2, &["'5' for '--drain", span]),
        (&["serve", "--limit-connections=-1"], 2, &["'-1' for '--limit-connections", number]),
        (&["serve", "--limit-connections=99999999999"], 2, &["'99999999999'", number]),
        (&["serve", "--limit-head-fields=70000"], 2, &["'70000'", "0 to 65535 is allowed"]),
        (&["serve", "--limit-head-fields=1e3"], 2, &["'1e3'", "0 to 65535 is allowed"]),
        (&["serve", "--proxy-max-waiting= 5"], 2, &["' 5'", number]),
        (&["serve", "--listen", "127.0.0.1"], 2, &["'127.0.0.1'", "an IP address and a port"]),
        (&["serve", "--admin", "on"], 2, &["'on'", "`off`, or an address"]),
        (&["serve", "--log-format", "xml"], 2, &["'xml'", "auto, pretty, json"]),
        (&["serve", "--access-log", "xml"], 2, &["'xml'", "off, common, json"]),
        (&["serve", "--database", "x"], 2, &["'x'", "SQLite"]),
        (&["serve", "--tls-cert", "x", "--api"], 2, &["tls.cert is set, tls.key is not"]),
        (&["demo", "--check=x"], 2, &["'x' for '--check'"]),
        (&["stats", "--admin", "x"], 2, &["'x' for '--admin", "an IP address and a port"]),
    ]);
}

#[test]
fn an_argument_longer_than_any_that_means_something() {
    let long = "x".repeat(100_000);
    let flag = format!("--{long}");
    let value = format!("--upstream={long}");
    let refused = "bytes are refused: at most 16384 are allowed";
    check(&[
        (&[&long], 2, &["argument 1: 100000", refused]),
        (&[&flag], 2, &["argument 1: 100002", refused]),
        (&["serve", "--upstream", &long], 2, &["--upstream: 100000", refused]),
        (&["serve", &value], 2, &["argument 2: ", refused]),
        (&["purge", "--pattern", &long], 2, &["--pattern: 100000", refused]),
    ]);
}

#[test]
fn what_cannot_be_done_is_said_with_code_1() {
    let free = format!("127.0.0.1:{}", tachikoma_testkit::free_port());
    check(&[
        (&["config", "init", "/no/such/t.toml"], 1, &["/no/such/t.toml cannot be written"]),
        (&["config", "init", "/dev/full", "--force"], 1, &["/dev/full cannot be written"]),
        (&["stats", "--admin", &free], 1, &[&free, "is the server running?"]),
        (&["purge", "k", "--admin", &free], 1, &[&free, "is the server running?"]),
        (&["explain", "http://h", "--admin", &free], 1, &[&free, "is the server running?"]),
        (&["stats", "--admin-token-file", "/no"], 2, &["admin_token_file: /no: cannot be read"]),
    ]);
}

#[test]
fn nobody_who_listens_and_nobody_who_asks_is_no_reason_to_fail() {
    for arguments in [&["--help"][..], &["--version"], &["config", "show", "--api"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = Command::new(env!("CARGO_BIN_EXE_tachikoma"));
        command.args(arguments).stdin(Stdio::null()).stdout(writer).stderr(Stdio::piped());
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!((output.status.code(), said.as_str()), (Some(0), ""), "{arguments:?}");
        // All three closed, as by a parent that takes no care.
        let closed = format!(
            "exec {} {} <&- >&- 2>&-",
            env!("CARGO_BIN_EXE_tachikoma"),
            arguments.join(" ")
        );
        let status = Command::new("sh").args(["-c", &closed]).status().unwrap();
        assert_eq!(status.code(), Some(0), "{arguments:?}");
    }
}
