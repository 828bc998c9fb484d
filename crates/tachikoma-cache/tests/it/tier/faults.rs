//! What a node shows of its memory while it cannot hear of changes.

mod away;
mod storms;

use tachikoma_testkit::FaultRow;

use super::*;

/// Runs a drill until its bars are met, at most three times: machines that run tests are shared.
async fn measured(mut drill: impl AsyncFnMut() -> FaultRow) {
    for _ in 0..2 {
        let row = drill().await;
        if row.is_met() {
            return row.report();
        }
    }
    drill().await.report();
}

fn p99(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times.get((times.len() * 99).div_ceil(100).saturating_sub(1)).copied().unwrap_or(Duration::MAX)
}

/// A node behind a proxy, and one that is not.
struct Rig {
    server: RedisServer,
    proxy: FaultProxy,
    far: Cache,
    writer: Cache,
}

impl Rig {
    async fn start() -> Self {
        let server = RedisServer::start();
        let proxy = FaultProxy::to(server.port());
        let (far, writer) = (node(proxy.port()).await, node(server.port()).await);
        Self { server, proxy, far, writer }
    }

    /// Reads a deleted key for so long: none shows it once the freshness has passed.
    async fn never_shown_beyond_the_freshness(
        &self,
        key: &str,
        watch: Stopwatch,
        lasting: Duration,
    ) {
        while watch.elapsed() < lasting {
            let begun = watch.elapsed();
            if let Some(seen) = look(&self.far, key).await {
                assert!(begun <= FRESHNESS, "{seen:?} after {begun:?}");
            }
            pause(ms(5)).await;
        }
    }
}

/// FM-07: nothing arrives and nothing ends, so only time tells.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fm_07_a_node_that_is_cut_off_shows_its_copies_no_longer_than_the_freshness() {
    let rig = Rig::start().await;
    for round in 0..2_u64 {
        rig.writer.set("k", round, MINUTE).await.unwrap();
        until_in_memory(&rig.far, "k").await;
        rig.proxy.set(Fault::Stall);
        assert!(rig.writer.delete("k").await.unwrap());
        let watch = Stopwatch::start();
        rig.never_shown_beyond_the_freshness("k", watch, ms(1500)).await;
        rig.proxy.set(Fault::Pass);
        rig.never_shown_beyond_the_freshness("k", watch, ms(2500)).await;
        // And it works again.
        rig.writer.set("other", round, MINUTE).await.unwrap();
        until_in_memory(&rig.far, "other").await;
        assert_eq!(look(&rig.far, "k").await, None);
    }
}

/// Laws 41 and FM-03: what changes while the connection is lost is known after it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fm_03_nothing_is_trusted_across_a_lost_connection() {
    let rig = Rig::start().await;
    for round in 0..8_u64 {
        rig.writer.set("k", round, MINUTE).await.unwrap();
        rig.writer.set("kept", round, MINUTE).await.unwrap();
        until_in_memory(&rig.far, "k").await;
        until_in_memory(&rig.far, "kept").await;
        if round % 2 == 0 {
            rig.proxy.set(Fault::Refuse);
        } else {
            rig.proxy.drop_connections();
        }
        assert!(rig.writer.delete("k").await.unwrap());
        let watch = Stopwatch::start();
        rig.never_shown_beyond_the_freshness("k", watch, ms(100)).await;
        rig.proxy.set(Fault::Pass);
        until(&rig.far, "kept", "read anew", |seen| seen.is_some()).await;
        assert_eq!(look(&rig.far, "k").await, None);
    }
}

/// FM-05, and servers that are killed from under a node.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fm_05_a_restart_with_empty_data_empties_the_memory() {
    let mut rig = Rig::start().await;
    for round in 0..3_u64 {
        rig.writer.set("k", round, MINUTE).await.unwrap();
        until_in_memory(&rig.far, "k").await;
        rig.server.restart();
        let watch = Stopwatch::start();
        until(&rig.far, "k", "gone", |seen| seen.is_none()).await;
        while rig.far.get::<u64>("k").await.is_err() {
            assert!(watch.elapsed() < Duration::from_secs(5), "it does not come back");
            pause(ms(5)).await;
        }
        assert_eq!(look(&rig.far, "k").await, None);
        let set = async || rig.writer.set("probe", round, MINUTE).await.is_ok();
        while !set().await {
            assert!(watch.elapsed() < Duration::from_secs(5), "it does not come back");
            pause(ms(5)).await;
        }
    }
}

/// FM-02: a server that is slow does not make a hit slow.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fm_02_a_hit_in_memory_waits_for_no_server() {
    measured(async || {
        let rig = Rig::start().await;
        rig.writer.set("k", 1_u64, MINUTE).await.unwrap();
        until_in_memory(&rig.far, "k").await;
        rig.proxy.set(Fault::Delay(ms(200)));
        let mut times = Vec::new();
        let watch = Stopwatch::start();
        while watch.elapsed() < ms(3000) {
            let one = Stopwatch::start();
            if in_memory(look(&rig.far, "k").await) {
                times.push(one.elapsed());
            }
            pause(ms(2)).await;
        }
        let mut row = FaultRow::new("FM-02", "with a memory tier; each reply comes 200 ms late");
        row.holds("hits in memory within 3 s", "≥ 200", times.len(), times.len() >= 200);
        row.at_most("the same, p99", ms(1), p99(&mut times));
        row
    })
    .await;
}
