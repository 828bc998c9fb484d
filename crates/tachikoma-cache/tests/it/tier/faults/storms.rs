//! Many changes at once, heard of late or not at all: gaps on three nodes, floods of pushes, tags
//! without number, and numbers of tags that the server has evicted.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;

/// What the environment says, for longer runs; otherwise this.
fn number(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

/// How often the server has run a command.
fn calls(server: &RedisServer, command: &str) -> u64 {
    let stats = server.command(&["INFO", "commandstats"]).text();
    let line =
        stats.lines().find_map(|line| line.strip_prefix(&format!("cmdstat_{command}:calls=")));
    line.and_then(|rest| rest.split(',').next()?.parse().ok()).unwrap_or(0)
}

/// FM-06 and RG-37. `TACHIKOMA_GAPS` and `TACHIKOMA_GAP_MS` make more and longer ones.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fm_06_three_nodes_show_nothing_old_after_a_gap() {
    let (gaps, lasting) = (number("TACHIKOMA_GAPS", 6), ms(number("TACHIKOMA_GAP_MS", 150)));
    let server = RedisServer::start();
    let writer = patient(server.port()).await;
    let mut nodes = Vec::new();
    for _ in 0..3 {
        let proxy = FaultProxy::to(server.port());
        nodes.push((node(proxy.port()).await, proxy));
    }
    let mut old = 0;
    for gap in 1..=gaps {
        writer.set("k", 2 * gap, MINUTE).await.unwrap();
        for (node, _) in &nodes {
            until_in_memory(node, "k").await;
        }
        for (_, proxy) in &nodes {
            proxy.set(if gap % 2 == 0 { Fault::Refuse } else { Fault::Stall });
        }
        writer.set("k", 2 * gap + 1, MINUTE).await.unwrap();
        let changed = Stopwatch::start();
        pause(lasting).await;
        for (_, proxy) in &nodes {
            proxy.set(Fault::Pass);
        }
        for (node, _) in &nodes {
            loop {
                let begun = changed.elapsed();
                let seen = look(node, "k").await;
                if seen.is_some_and(|seen| seen.value == 2 * gap + 1) && in_memory(seen) {
                    break;
                }
                let is_old = seen.is_some_and(|seen| seen.value <= 2 * gap);
                old += u64::from(is_old && begun > FRESHNESS);
                assert!(begun < lasting + Duration::from_secs(30), "not in memory: {seen:?}");
            }
        }
    }
    let mut row = FaultRow::new("FM-06", "three nodes hear of nothing while a key changes");
    row.count(&format!("old values 1 s after the change, {gaps} gaps"), 0, old);
    row.report();
}

/// RG-36: a change tells a node to forget, not to read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rg_36_a_thousand_invalidations_make_no_node_read() {
    let server = RedisServer::start();
    let writer = patient(server.port()).await;
    let nodes = [patient(server.port()).await, patient(server.port()).await];
    writer.set("k", 0_u64, MINUTE).await.unwrap();
    for node in &nodes {
        until_in_memory(node, "k").await;
    }
    let before = calls(&server, "get");
    for _ in 0..1000 {
        writer.delete("k").await.unwrap();
    }
    writer.set("k", 1_u64, MINUTE).await.unwrap();
    let meanwhile = calls(&server, "get") - before;
    for node in &nodes {
        until_in_memory(node, "k").await;
        for _ in 0..100 {
            assert_eq!(look(node, "k").await.map(|seen| seen.value), Some(1));
        }
    }
    let mut row = FaultRow::new("RG-36", "1,000 invalidations of a key that two nodes have");
    row.count("reads of Redis meanwhile", 0, meanwhile);
    // Two reads make a copy: the first may have met the push of the last change.
    row.count("reads of Redis for 200 hits after them", 8, calls(&server, "get") - before);
    row.report();
}

/// DS-24: there is no bus that anybody could write to, only what the server tells of its keys. A
/// client that changes them as fast as it can makes reads slow at most.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ds_24_a_flood_of_pushes_makes_nothing_wrong() {
    const KEYS: u64 = 100;
    let server = RedisServer::start();
    let (writer, node) = (patient(server.port()).await, patient(server.port()).await);
    let over = Arc::new(AtomicBool::new(false));
    let mut raw = server.connection();
    let flood = std::thread::spawn({
        let over = Arc::clone(&over);
        move || {
            let (mut sent, watch) = (0_u64, Stopwatch::start());
            while watch.elapsed() < ms(2000) {
                // What no cache wrote, deletions, and now and then all at once.
                for at in 0..100 {
                    let key = format!("tachikoma:{{vk{}}}", at % KEYS);
                    match sent % 50 {
                        0 => raw.send(&["FLUSHALL"]).unwrap(),
                        1..25 => raw.send(&["SET", &key, "garbage"]).unwrap(),
                        _ => raw.send(&["DEL", &key]).unwrap(),
                    }
                    sent += 1;
                }
                for _ in 0..100 {
                    raw.receive().unwrap();
                }
            }
            over.store(true, Ordering::Release);
            sent
        }
    });
    let (mut wrong, mut reads, mut longest) = (0, 0_u64, Duration::ZERO);
    while !over.load(Ordering::Acquire) {
        for key in 0..KEYS {
            let (name, one) = (format!("k{key}"), Stopwatch::start());
            if reads.is_multiple_of(7) {
                writer.set(&name, key, MINUTE).await.unwrap();
            }
            let seen = look(&node, &name).await;
            longest = longest.max(one.elapsed());
            wrong += u64::from(seen.is_some_and(|seen| seen.value != key));
            reads += 1;
        }
    }
    let sent = flood.join().unwrap();
    for key in 0..KEYS {
        let name = format!("k{key}");
        writer.set(&name, key, MINUTE).await.unwrap();
        until_in_memory(&node, &name).await;
    }
    let mut row = FaultRow::new("DS-24", "a client changes 100 keys without pause for 2 s");
    row.holds("its changes", "≥ 10000", sent, sent >= 10_000);
    row.count(&format!("wrong values of {reads}"), 0, wrong);
    row.at_most("the longest read", ms(1000), longest);
    row.report();
}

/// FM-14: an entry carries the numbers of its tags, so that a lost index takes it along.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fm_14_no_tagged_entry_survives_the_loss_of_the_index() {
    const ENTRIES: u64 = 10_000;
    let server = RedisServer::start();
    let nodes = [patient(server.port()).await, patient(server.port()).await];
    let entries = || (0..ENTRIES).map(|at| (format!("k{at}"), at));
    let keys: Vec<String> = entries().map(|(key, _)| key).collect();
    let count = async |cache: &Cache| {
        let found = cache.get_many::<u64>(&keys).await.unwrap();
        found.into_iter().flatten().count() as u64
    };
    let mut row = FaultRow::new("FM-14", "the numbers of tags are evicted; 10,000 tagged entries");
    for (what, invalidates) in [("evicted", false), ("evicted, then invalidated", true)] {
        nodes[0].set_many(entries(), MINUTE).tags(["t"]).await.unwrap();
        for node in &nodes {
            assert_eq!(count(node).await, ENTRIES);
        }
        server.command(&["DEL", "tachikoma:g"]);
        if invalidates {
            nodes[0].invalidate_tag("t").await.unwrap();
        }
        let gone = Stopwatch::start();
        while gone.elapsed() <= FRESHNESS && count(&nodes[1]).await > 0 {}
        for (node, name) in nodes.iter().zip(["here", "elsewhere"]) {
            row.count(&format!("entries left, {what}, {name}"), 0, count(node).await);
        }
    }
    row.report();
}

/// DS-30: what is remembered of tags has a bound. `TACHIKOMA_TAGS` makes more of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ds_30_tags_without_number_take_bounded_room() {
    const BOUND: u64 = 200_000;
    let tags = number("TACHIKOMA_TAGS", 250_000);
    let server = RedisServer::start();
    let (cache, other) = (patient(server.port()).await, patient(server.port()).await);
    let many: Vec<String> = (0..10_000).map(|at| format!("t{at}")).collect();
    let refused = cache.set("many", 1_u64, MINUTE).tags(&many).await.map_err(|error| error.kind());
    let mut times = Vec::new();
    let all: Vec<u64> = (0..tags).collect();
    for chunk in all.chunks(64) {
        cache.invalidate_tags(chunk.iter().map(|at| format!("t{at}"))).await.unwrap();
        let one = Stopwatch::start();
        other.set("k", 1_u64, MINUTE).await.unwrap();
        assert!(look(&other, "k").await.is_some());
        times.push(one.elapsed());
    }
    let left = server.command(&["ZCARD", "tachikoma:g"]).integer().unsigned_abs();
    let mut row = FaultRow::new("DS-30", &format!("{tags} different tags are invalidated"));
    let shown = format!("{refused:?}");
    row.holds(
        "an entry with 10,000 tags",
        "InvalidTag",
        shown,
        refused == Err(ErrorKind::InvalidTag),
    );
    row.count("numbers that are left", BOUND, left);
    row.at_most("a write and a read meanwhile, p99", ms(20), p99(&mut times));
    row.report();
}
