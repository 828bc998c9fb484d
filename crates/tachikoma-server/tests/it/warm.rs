//! A server that keeps a snapshot starts warm.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use rustix::process::Signal;

use crate::support::{Origin, Tachikoma, send};

const REQUEST: &str = "GET /page HTTP/1.1\r\nHost: a.test\r\n\r\n";

#[test]
fn after_a_restart_responses_are_served_without_the_origin() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counting = Arc::clone(&asked);
    let origin = Origin::start(move |_, stream| {
        use std::io::Write as _;
        counting.fetch_add(1, Relaxed);
        let _ = stream.write_all(
            b"HTTP/1.1 200 OK\r\nCache-Control: max-age=600\r\nContent-Length: 4\r\n\r\nwarm",
        );
    });
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("cache.snapshot");
    let cache = format!("memory:?snapshot={}", file.display());
    for (run, expected) in [("first", "fwd=uri-miss"), ("second", "hit")] {
        let mut server = Tachikoma::serve(&["--upstream", &origin.url(), "--cache", &cache]);
        let answer = send(server.address(), REQUEST);
        assert_eq!((answer.status, answer.text().as_str()), (200, "warm"), "{run}");
        let status = answer.header("cache-status").unwrap_or_default();
        assert!(status.contains(expected), "{run}: {status}");
        server.signal(Signal::TERM);
        assert_eq!(server.wait(), Some(0));
        server.assert_logged("snapshot written");
    }
    assert_eq!(asked.load(Relaxed), 1);
}
