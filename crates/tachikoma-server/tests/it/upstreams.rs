//! Several upstreams by host and path, and how much of one may be used at once.

use std::fs;
use std::sync::{Arc, Barrier};
use std::time::Duration;

use tachikoma_testkit::{Stopwatch, free_port, wait_until};
use tempfile::TempDir;

use crate::support::{Answer, Connection, Origin, Tachikoma, run, send};

/// A server with this configuration file.
struct Configured {
    server: Tachikoma,
    _folder: TempDir,
}

fn serve(text: &str) -> Configured {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("t.toml");
    fs::write(&file, text).unwrap();
    let server = Tachikoma::serve(&["--config", file.to_str().unwrap()]);
    Configured { server, _folder: folder }
}

fn ask(server: &Tachikoma, host: &str, target: &str) -> Answer {
    let lines = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    send(server.address(), lines)
}

fn named(name: &'static str) -> Origin {
    Origin::answering(move |seen| {
        let body = format!("{name} {}", seen.target());
        let length = body.len();
        format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nCache-Control: max-age=60\r\n\r\n{body}"
        )
        .into_bytes()
    })
}

#[test]
fn a_request_goes_to_the_upstream_of_its_host_with_the_longest_prefix() {
    let (root, api, other) = (named("root"), named("api"), named("other"));
    let Configured { server, .. } = &serve(&format!(
        "[[upstreams]]\nname = 'root'\nurl = '{}'\nhosts = ['a.test', '*.a.test']\n\
         [[upstreams]]\nname = 'api'\nurl = '{}'\nhosts = ['a.test']\npath_prefix = '/api'\n\
         [[upstreams]]\nname = 'other'\nurl = '{}'\nhosts = ['b.test']\npath_prefix = '/b/'\n",
        root.url(),
        api.url(),
        other.url()
    ));
    for (host, target, body) in [
        ("a.test", "/", "root /"),
        ("A.TEST:81", "/apis", "root /apis"),
        ("x.a.test", "/api", "root /api"),
        ("a.test", "/api", "api /api"),
        ("a.test", "/api/x?y", "api /api/x?y"),
        ("b.test", "/b/x", "other /b/x"),
    ] {
        for _ in 0..2 {
            assert_eq!(ask(server, host, target).text(), body, "{host} {target}");
        }
    }
    let before = root.seen().len() + api.seen().len() + other.seen().len();
    assert_eq!(before, 6, "each was fetched once and then a hit");
    ask(server, "b.test", "/").assert_problem(404);
    for host in ["c.test", "127.0.0.1", "a.test.evil", "evil-a.test"] {
        ask(server, host, "/").assert_problem(421);
    }
    assert_eq!(root.seen().len() + api.seen().len() + other.seen().len(), before);
}

#[test]
fn two_hosts_never_share_a_response_though_one_server_answers_for_both() {
    let origin = Origin::answering(|seen| {
        let host = seen.all("host").concat();
        format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nCache-Control: max-age=60\r\n\r\n{host}",
            host.len()
        )
        .into_bytes()
    });
    let entry = |name: &str| {
        format!("[[upstreams]]\nname='{name}'\nurl='{}'\nhosts=['{name}.test']\n", origin.url())
    };
    let Configured { server, .. } = &serve(&(entry("one") + &entry("two")));
    for _ in 0..2 {
        for host in ["one.test", "two.test", "one.test:81"] {
            assert_eq!(ask(server, host, "/same").text(), host);
        }
    }
    assert_eq!(origin.seen().len(), 3);
}

/// HS-063: a response is confirmed by the server that it came from, whatever others say of the
/// same path and the same tag.
#[test]
fn what_is_stored_of_one_upstream_is_validated_by_that_one_only() {
    let version = |name: &'static str, is_changed: bool| {
        Origin::answering(move |seen| {
            let rules = "Cache-Control: max-age=0\r\nETag: \"1\"";
            let answer = if is_changed || seen.all("if-none-match").is_empty() {
                let length = name.len();
                format!("HTTP/1.1 200 OK\r\n{rules}\r\nContent-Length: {length}\r\n\r\n{name}")
            } else {
                format!("HTTP/1.1 304 Not Modified\r\n{rules}\r\n\r\n")
            };
            answer.into_bytes()
        })
    };
    let (one, two) = (version("one", false), version("two", true));
    let entry = |name: &str, origin: &Origin| {
        format!("[[upstreams]]\nname='{name}'\nurl='{}'\nhosts=['{name}.test']\n", origin.url())
    };
    let Configured { server, .. } = &serve(&(entry("one", &one) + &entry("two", &two)));
    for round in 0..3 {
        let (first, second) = (ask(server, "one.test", "/x"), ask(server, "two.test", "/x"));
        assert_eq!((first.text(), second.text()), ("one".to_owned(), "two".to_owned()), "{round}");
        let is_confirmed =
            |answer: &Answer| answer.header("cache-status").unwrap().contains("fwd-status=304");
        assert_eq!((is_confirmed(&first), is_confirmed(&second)), (round > 0, false));
    }
    assert_eq!((one.seen().len(), two.seen().len()), (3, 3));
}

#[test]
fn more_requests_than_the_upstream_may_have_wait_and_those_beyond_the_queue_get_503() {
    let gate = Arc::new(Barrier::new(2));
    let held = Arc::clone(&gate);
    let origin = Origin::answering(move |seen| {
        if seen.target().starts_with("/slow") {
            held.wait();
        }
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nCache-Control: no-store\r\n\r\nok".to_vec()
    });
    let Configured { server, .. } = &serve(&format!(
        "[[upstreams]]\nname = 'one'\nurl = '{}'\nmax_concurrent = 1\nmax_waiting = 1\n",
        origin.url()
    ));
    let open = |target: &str| {
        let mut connection = Connection::to(server.address());
        connection.write(format!("GET {target} HTTP/1.1\r\nHost: a.test\r\n\r\n")).unwrap();
        connection
    };
    let mut first = open("/slow");
    assert!(wait_until(Duration::from_secs(5), || origin.seen().len() == 1));
    let mut second = open("/second");
    std::thread::sleep(Duration::from_millis(200));
    let watch = Stopwatch::start();
    let refused = ask(server, "a.test", "/third");
    refused.assert_problem(503);
    assert_eq!(refused.header("retry-after").as_deref(), Some("1"));
    assert!(watch.elapsed() < Duration::from_secs(2));
    assert_eq!(origin.seen().len(), 1, "the second waits");
    gate.wait();
    assert_eq!(first.read().unwrap().status, 200);
    assert_eq!(second.read().unwrap().status, 200);
    server.assert_logged("the queue is full or too slow");
    assert_eq!(ask(server, "a.test", "/fourth").status, 200);
}

#[test]
fn who_leaves_the_queue_gives_its_place_to_another() {
    let gate = Arc::new(Barrier::new(2));
    let held = Arc::clone(&gate);
    let origin = Origin::answering(move |seen| {
        if seen.target() == "/slow" {
            held.wait();
        }
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nCache-Control: no-store\r\n\r\nok".to_vec()
    });
    let Configured { server, .. } = &serve(&format!(
        "upstream = '{}'\n[proxy]\nmax_concurrent = 1\nmax_waiting = 1\nwait_timeout = '5s'\n",
        origin.url()
    ));
    let open = |target: &str| {
        let mut connection = Connection::to(server.address());
        let head = format!("POST {target} HTTP/1.1\r\nHost: a.test\r\nContent-Length: 0\r\n\r\n");
        connection.write(head).unwrap();
        connection
    };
    let mut first = open("/slow");
    assert!(wait_until(Duration::from_secs(5), || origin.seen().len() == 1));
    drop(open("/gone"));
    let freed = wait_until(Duration::from_secs(5), || {
        std::thread::sleep(Duration::from_millis(50));
        let mut waiting = open("/probe");
        std::thread::sleep(Duration::from_millis(50));
        // Refused at once, or still waiting in the place of the one that left.
        !waiting.has_answer()
    });
    assert!(freed);
    gate.wait();
    assert_eq!(first.read().unwrap().status, 200);
}

#[test]
fn what_is_stale_is_served_where_allowed_while_there_is_no_room() {
    let gate = Arc::new(Barrier::new(2));
    let held = Arc::clone(&gate);
    let origin = Origin::answering(move |seen| {
        if seen.target() == "/slow" {
            held.wait();
        }
        b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nETag: \"1\"\r\n\
          Cache-Control: max-age=0, stale-if-error=60\r\n\r\nkept"
            .to_vec()
    });
    let Configured { server, .. } = &serve(&format!(
        "upstream = '{}'\n[proxy]\nmax_concurrent = 1\nmax_waiting = 0\n",
        origin.url()
    ));
    assert_eq!(ask(server, "a.test", "/page").text(), "kept");
    let mut slow = Connection::to(server.address());
    slow.write("GET /slow HTTP/1.1\r\nHost: a.test\r\n\r\n").unwrap();
    assert!(wait_until(Duration::from_secs(5), || origin.seen().len() == 2));
    let stale = ask(server, "a.test", "/page");
    assert_eq!((stale.status, stale.text().as_str()), (200, "kept"), "{stale:?}");
    ask(server, "a.test", "/other").assert_problem(503);
    gate.wait();
    assert_eq!(slow.read().unwrap().status, 200);
}

#[test]
fn a_request_that_comes_back_is_refused_with_508_and_not_sent_round_again() {
    let (a, b) = (free_port(), free_port());
    let pair = |own: u16, next: u16| {
        let listen = format!("127.0.0.1:{own}");
        let upstream = format!("http://127.0.0.1:{next}");
        Tachikoma::serve(&["--listen", &listen, "--upstream", &upstream])
    };
    let (first, _second) = (pair(a, b), pair(b, a));
    let watch = Stopwatch::start();
    ask(&first, "a.test", "/").assert_problem(508);
    assert!(watch.elapsed() < Duration::from_secs(5), "{:?}", watch.elapsed());
    // A line of different ones is no loop.
    let origin = Origin::saying("hello");
    let inner = Tachikoma::serve(&["--upstream", &origin.url()]);
    let outer = Tachikoma::serve(&["--upstream", &format!("http://{}", inner.address())]);
    assert_eq!(ask(&outer, "a.test", "/").text(), "hello");
    let seen = origin.only();
    assert_eq!(seen.all("via"), ["1.1 tachikoma", "1.1 tachikoma"]);
    assert_eq!(seen.all("cdn-loop").len(), 2, "{}", seen.head);
}

#[track_caller]
fn check_refused(text: &str, said: &str) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("t.toml");
    fs::write(&file, text).unwrap();
    let ended = run(&["config", "check", "--config", file.to_str().unwrap()], &[]);
    assert_eq!(ended.code, Some(2), "{text:?}: {ended:?}");
    assert!(ended.err.contains(said), "{text:?}\n  said: {}\n  not:  {said}", ended.err);
    assert!(ended.err.lines().count() <= 5, "{}", ended.err);
}

#[test]
fn upstreams_that_cannot_work_are_refused_by_name() {
    let one = "[[upstreams]]\nname = 'one'\nurl = 'http://h'\n";
    let two = "[[upstreams]]\nname = 'two'\nurl = 'http://h'\n";
    check_refused("[[upstreams]]\nurl = 'http://h'\n", "missing field `name`");
    check_refused("[[upstreams]]\nname = 'one'\n", "missing field `url`");
    check_refused(&format!("{one}host = ['a']\n"), "did you mean `hosts`?");
    check_refused(&format!("{one}path = '/a'\n"), "unknown key \"path\"");
    check_refused(&format!("{one}hosts = ['http://a']\n"), "a host is a name without scheme");
    check_refused(&format!("{one}path_prefix = 'a'\n"), "path_prefix: \"a\" is refused");
    check_refused(&format!("{one}max_concurrent = 0\n"), "upstreams.one.max_concurrent: \"0\"");
    check_refused(&format!("{one}head_timeout = '0s'\n"), "upstreams.one.head_timeout");
    check_refused(&format!("{one}{one}"), "upstreams.name: \"one\" is there twice");
    check_refused(&format!("{one}{two}"), "upstreams one and two both answer for all hosts");
    let same = "hosts = ['a.test']\npath_prefix = '/x'\n";
    let said = "both answer for a.test under /x";
    check_refused(&format!("{one}{same}{two}{same}"), said);
    check_refused(&format!("upstream = 'http://h'\n{one}"), "upstream and [[upstreams]] are both");
    check_refused(&one.replace("'one'", "'o n e'"), "letters, digits and `-_.` are allowed");
    check_refused(
        "[[upstreams]]\nname='x'\nurl='http://127.0.0.1:8080'\n",
        "is this server itself",
    );
}

#[test]
fn what_show_prints_of_upstreams_reads_back_equal() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("t.toml");
    let text = "[[upstreams]]\nname = 'one'\nurl = 'http://h:81'\nhosts = ['*.a.test']\n\
                path_prefix = '/x/'\nhead_timeout = '7s'\n[[upstreams]]\nname = 'two'\n\
                url = 'http://h:82'\n";
    fs::write(&file, text).unwrap();
    let shown = run(&["config", "show", "--config", file.to_str().unwrap()], &[]).out;
    assert!(shown.contains("path_prefix = \"/x\"") && shown.contains("name = \"two\""), "{shown}");
    fs::write(&file, &shown).unwrap();
    assert_eq!(run(&["config", "show", "--config", file.to_str().unwrap()], &[]).out, shown);
}
