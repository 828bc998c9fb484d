//! Tickets: who brings one is shown nothing older, also by a node that hears of changes late.

use super::*;

/// A node that hears of each change some time after it has ended, and one that does not.
struct Rig {
    server: RedisServer,
    proxy: FaultProxy,
    late: Cache,
    writer: Cache,
}

/// By how much.
const DELAY: Duration = Duration::from_millis(2);

impl Rig {
    async fn start() -> Self {
        let server = RedisServer::start();
        let proxy = FaultProxy::to(server.port());
        let (late, writer) = (patient(proxy.port()).await, patient(server.port()).await);
        proxy.set(Fault::Delay(DELAY));
        Self { server, proxy, late, writer }
    }

    /// Waits until the late node has this value in its memory.
    async fn until_copied(&self, value: u64) {
        let watch = Stopwatch::start();
        let is_copy = |seen: Seen| seen.value == value && in_memory(Some(seen));
        while !look(&self.late, "k").await.is_some_and(is_copy) {
            assert!(watch.elapsed() < Duration::from_secs(10), "{value} is not in memory");
        }
    }

    /// How often the late node shows what is gone: directly after this change, or once it has
    /// honoured a ticket.
    async fn shows_old(&self, rounds: u64, with_tickets: bool, change: Change) -> u64 {
        let mut old = 0;
        for round in 0..rounds {
            self.writer.set("k", round, MINUTE).tags(["t"]).await.unwrap();
            self.until_copied(round).await;
            match change {
                Change::Delete => assert!(self.writer.delete("k").await.unwrap()),
                Change::Tag => self.writer.invalidate_tag("t").await.unwrap(),
                Change::Set => {
                    self.writer.set("k", u64::MAX, MINUTE).tags(["t"]).await.unwrap();
                }
            }
            let ticket = self.writer.ticket();
            if with_tickets {
                self.late.honour(ticket.to_string().parse().unwrap()).await;
            }
            let seen = look(&self.late, "k").await;
            old += u64::from(seen.is_some_and(|seen| seen.value == round));
        }
        old
    }
}

#[derive(Debug, Clone, Copy)]
enum Change {
    Delete,
    Tag,
    Set,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_ticket_no_node_shows_what_was_gone_before() {
    let rig = Rig::start().await;
    for change in [Change::Delete, Change::Tag, Change::Set] {
        assert!(rig.shows_old(10, false, change).await > 0, "{change:?}: nothing is late here");
        assert_eq!(rig.shows_old(200, true, change).await, 0, "{change:?}");
    }
    assert_eq!(rig.proxy.accepted(), 1, "all of it on one connection");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ticket_costs_one_round_trip_and_only_where_it_was_not_met() {
    let rig = Rig::start().await;
    let asked = || {
        let stats = rig.server.command(&["INFO", "commandstats"]).text();
        let line = stats.lines().find_map(|line| line.strip_prefix("cmdstat_client|getredir:"));
        let calls = line.and_then(|line| line.strip_prefix("calls=")?.split(',').next());
        calls.unwrap().parse::<u64>().unwrap()
    };
    let ticket = rig.writer.ticket();
    let met = rig.late.honour(ticket).await;
    // A cheap one: heartbeats ask the same, four times a second.
    let (watch, before) = (Stopwatch::start(), asked());
    for _ in 0..10_000 {
        assert_eq!(rig.late.honour(ticket).await, met);
    }
    let beats = |watch: &Stopwatch| watch.elapsed().as_secs() * 4 + 6;
    assert!(asked() - before <= 2 * beats(&watch), "a ticket that was met asks nobody");
    let (watch, before) = (Stopwatch::start(), asked());
    let many = (0..1000).map(|_| rig.late.honour(rig.writer.ticket()));
    futures_util::future::join_all(many).await;
    let questions = asked() - before;
    assert!(questions <= 2 + 2 * beats(&watch), "{questions} questions for 1,000 at once");
}

/// FM-07, with a ticket.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_cut_off_waits_until_it_shows_nothing_older() {
    let mut server = RedisServer::start();
    let proxy = FaultProxy::to(server.port());
    let (writer, far) = (node(server.port()).await, node(proxy.port()).await);
    writer.set("k", 1_u64, MINUTE).await.unwrap();
    until_in_memory(&far, "k").await;
    proxy.set(Fault::Stall);
    assert!(writer.delete("k").await.unwrap());
    assert!(far.try_get::<u64>("k").is_some(), "it has not heard of it");
    let watch = Stopwatch::start();
    far.honour(writer.ticket()).await;
    let waited = watch.elapsed();
    assert!(far.try_get::<u64>("k").is_none(), "shown after {waited:?}");
    let bar = allowed(FRESHNESS + ms(200), waited);
    assert!(waited <= bar, "{waited:?} of {bar:?}");
    // Where nobody is connected nothing is shown as fresh, so there is nothing to wait for.
    server.kill();
    proxy.drop_connections();
    let watch = Stopwatch::start();
    while far.health() == Health::Up {
        assert!(watch.elapsed() < Duration::from_secs(10), "the loss is not noticed");
        pause(ms(5)).await;
    }
    let watch = Stopwatch::start();
    far.honour(writer.ticket()).await;
    let waited = watch.elapsed();
    assert!(waited <= allowed(ms(50), waited), "{waited:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn outside_of_a_runtime_a_ticket_costs_the_copies() {
    let server = RedisServer::start();
    let cache = patient(server.port()).await;
    for key in ["k", "other"] {
        cache.set(key, 1_u64, MINUTE).await.unwrap();
        until_in_memory(&cache, key).await;
    }
    std::thread::scope(|scope| {
        scope
            .spawn(|| futures_util::FutureExt::now_or_never(cache.honour(cache.ticket())).unwrap());
    });
    assert!(cache.try_get::<u64>("k").is_none());
    until_in_memory(&cache, "other").await;
}

#[tokio::test]
async fn stores_without_a_tier_are_never_behind() {
    let clock = tachikoma_cache::TestClock::new();
    let cache = Cache::memory().clock(std::sync::Arc::new(clock.clone())).build().unwrap();
    let ticket = cache.ticket();
    let met = cache.honour(ticket).await;
    clock.advance(MINUTE);
    assert_eq!(cache.honour(ticket).await, met);
    assert!(cache.honour(cache.ticket()).await > met);
    let redis = Bench::redis().await;
    redis.cache.honour(ticket).await;
}
