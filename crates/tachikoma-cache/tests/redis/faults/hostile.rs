//! A server that lies about lengths, or answers what was not asked.

use std::net::TcpListener;

use peak_alloc::PeakAlloc;
use tachikoma_testkit::FaultRow;

use super::*;

#[global_allocator]
static ALLOCATED: PeakAlloc = PeakAlloc;

/// The most memory that this process has had, in KiB.
fn peak_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

async fn check(row: &mut FaultRow, what: &str, answer: impl Into<Vec<u8>>) {
    let cache = connect(stub::start_with(answer)).await;
    let found = cache.get::<u64>("known").await;
    let shown = matches!(found, Ok(Some(_)));
    row.holds(&format!("get, {what}"), "no value", told(&found), !shown);
    let removed = told(&cache.delete("d").await);
    let good = matches!(removed, "pending" | "ok");
    row.holds(&format!("delete, {what}"), "pending|ok", removed, good);
    let (good, own) = load(&cache, "k").await;
    row.holds(&format!("get_or_load, {what}"), "ok", if good { "ok" } else { "failed" }, good);
    row.at_most(&format!("get_or_load over the loader, {what}"), ms(300), own);
}

#[tokio::test]
async fn ds_17_lengths_that_are_not_true() {
    measured(async || {
        let mut row = FaultRow::new("DS-17", "replies that claim to be long or deep (a stub)");
        let before = peak_memory();
        for (what, answer) in [
            ("4 GiB of bytes", "$4294967296\r\nx"),
            ("512 MiB of bytes", "$536870912\r\nx"),
            ("2^31 values", "*2147483647\r\n"),
            ("2^63 values", "*9223372036854775807\r\n"),
            ("2^31 pairs", "%2147483647\r\n"),
            ("a negative length", "$-7\r\n"),
        ] {
            check(&mut row, what, answer).await;
        }
        check(&mut row, "100,000 levels", "*1\r\n".repeat(100_000)).await;
        row.count("growth of the process in MiB", 8, (peak_memory() - before) / 1024);
        row
    })
    .await;
}

/// What is allocated at most while these bytes are the answer, in KiB. Pages would not show it: who
/// reserves gigabytes and writes nothing has none of them.
async fn allocated(answer: &str) -> usize {
    let cache = connect(stub::start_with(answer)).await;
    ALLOCATED.reset_peak_usage();
    let before = ALLOCATED.current_usage();
    assert!(!matches!(cache.get::<u64>("known").await, Ok(Some(_))), "{answer:?}");
    (ALLOCATED.peak_usage() - before) / 1024
}

#[tokio::test]
async fn ds_17_what_is_not_there_is_not_allocated() {
    let mut row = FaultRow::new("DS-17", "a length of 4 GiB, and what is allocated for it");
    for (what, answer) in [
        ("4 GiB of bytes", "$4294967296\r\nx"),
        ("just less than 512 MiB of bytes", "$536870911\r\nx"),
        ("4 GiB of text", "=4294967296\r\ntxt:x"),
        ("2^32 values", "*4294967296\r\n"),
        ("2^31 - 1 values", "*2147483647\r\n:1\r\n"),
        ("2^20 values", "*1048576\r\n:1\r\n"),
        ("2^32 pairs", "%4294967296\r\n"),
    ] {
        let kib = allocated(answer).await;
        row.count(&format!("KiB allocated for {what}"), 1024, kib as u64);
    }
    row.report();
}

/// The other host is whoever answers, not who was configured: nothing of ours goes there.
#[tokio::test]
async fn ds_37_nobody_follows_a_redirection_to_another_host() {
    measured(async || {
        let mut row = FaultRow::new("DS-37", "MOVED and ASK name another host (a stub)");
        let other = TcpListener::bind("127.0.0.1:0").unwrap();
        other.set_nonblocking(true).unwrap();
        let address = other.local_addr().unwrap();
        for kind in ["MOVED", "ASK"] {
            let cache = connect(stub::start_with(format!("-{kind} 42 {address}\r\n"))).await;
            let found = cache.get::<u64>("known").await;
            row.holds(&format!("get, {kind}"), "an error", told(&found), found.is_err());
            let (_, failed) = loads(&cache, "k", 10).await;
            row.count(&format!("get_or_load, {kind}, callers that saw an error"), 0, failed);
        }
        pause(ms(100)).await;
        row.count("connections to the other host", 0, u64::from(other.accept().is_ok()));
        row
    })
    .await;
}

#[tokio::test]
async fn ds_15_answers_to_other_questions() {
    measured(async || {
        let mut row =
            FaultRow::new("DS-15", "answers of another kind than the command has (a stub)");
        for (what, answer) in [
            ("a number", ":7\r\n"),
            ("a text", "+PONG\r\n"),
            ("a truth", "#t\r\n"),
            ("a list", "*2\r\n$1\r\na\r\n$1\r\nb\r\n"),
            ("a push", ">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n"),
            ("nothing of RESP", "HTTP/1.1 400 Bad Request\r\n\r\n"),
            ("an error without a word", "-\r\n"),
            ("an end in the middle", "$9\r\nabc"),
        ] {
            check(&mut row, what, answer).await;
        }
        row
    })
    .await;
}
