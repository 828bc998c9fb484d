//! The server changes its part, loads its data, or has no memory left.

use std::sync::atomic::AtomicBool;

use tachikoma_testkit::FaultRow;

use super::*;

/// Waits until a replica has what its primary has.
fn synced(replica: &RedisServer) {
    let synced = tachikoma_testkit::wait_until(ms(20_000), || {
        replica.command(&["INFO", "replication"]).text().contains("master_link_status:up")
    });
    assert!(synced, "the replica does not follow");
}

/// A server whose replicas need not wait.
fn quick() -> RedisBuilder {
    RedisServer::builder().arguments(["--repl-diskless-sync-delay", "0"])
}

fn follow(replica: &RedisServer, primary: &RedisServer) {
    replica.command(&["REPLICAOF", "127.0.0.1", &primary.port().to_string()]);
}

/// Reads all the time, and counts what fails, until the flag is set.
fn reader(cache: &Cache, stop: &Arc<AtomicBool>) -> tokio::task::JoinHandle<u64> {
    let (cache, stop) = (cache.clone(), Arc::clone(stop));
    tokio::spawn(async move {
        let mut failed = 0;
        while !stop.load(Ordering::Relaxed) {
            failed += u64::from(cache.get::<u64>("known").await.is_err());
            pause(ms(2)).await;
        }
        failed
    })
}

/// The bars while `cache` has a replica, and after `promote` has made a primary reachable.
async fn read_only(row: &mut FaultRow, cache: &Cache, promote: impl FnOnce()) {
    soon("read-only", ms(5000), async || told(&cache.set("s", 1_u64, MINUTE).await) == "rejected")
        .await;
    let stop = Arc::new(AtomicBool::new(false));
    let reads = reader(cache, &stop);
    pause(ms(200)).await;
    let expected = ["ok", "rejected", "pending", "pending", "pending", "ok"];
    Six::of(cache).await.report(row, expected, ms(300));
    pause(ms(1200)).await;
    promote();
    row.at_most("recovery of writes", ms(2000), recovery(cache).await);
    stop.store(true, Ordering::Relaxed);
    row.count("get, failures meanwhile", 0, reads.await.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fm_08_the_server_is_made_a_replica_and_a_primary_again() {
    measured(async || {
        let (rig, primary) = (Rig::on(quick()).await, quick().start());
        follow(&rig.server, &primary);
        synced(&rig.server);
        let mut row = FaultRow::new("FM-08", "READONLY: demoted, and promoted 1.4 s later");
        read_only(&mut row, &rig.cache, || {
            rig.server.command(&["REPLICAOF", "NO", "ONE"]);
        })
        .await;
        row
    })
    .await;
}

/// RG-33.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fm_08_the_address_leads_to_the_new_primary() {
    measured(async || {
        let (rig, other) = (Rig::on(quick()).await, quick().start());
        put(&rig.cache, "known").await;
        follow(&other, &rig.server);
        synced(&other);
        other.command(&["REPLICAOF", "NO", "ONE"]);
        follow(&rig.server, &other);
        synced(&rig.server);
        let mut row = FaultRow::new("FM-08", "READONLY: failover to a server of the same name");
        read_only(&mut row, &rig.cache, || rig.proxy.retarget(other.port())).await;
        let stored = other.command(&["EXISTS", "test:{vprobe}"]).integer();
        row.holds("set, at the new primary", "there", stored, stored == 1);
        row
    })
    .await;
}

/// RG-33.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fm_09_loading() {
    measured(async || {
        let builder = RedisServer::builder()
            .arguments(["--loading-process-events-interval-bytes", "1024"])
            .arguments(["--key-load-delay", "1000"]);
        let Rig { mut server, proxy, cache } = Rig::on(builder).await;
        for batch in 0..20 {
            let keys: Vec<String> = (0..100).map(|i| format!("k{batch}:{i}")).collect();
            let writes = keys.iter().map(|key| async { cache.set(key, 1_u64, MINUTE).await });
            futures_util::future::join_all(writes).await.into_iter().for_each(Result::unwrap);
        }
        server.command(&["SAVE"]);
        let mut row = FaultRow::new("FM-09", "LOADING: a restart that loads for 2 s");
        server.kill();
        until_degraded(&cache).await;
        let restart = tokio::task::spawn_blocking(move || {
            server.restart();
            server
        });
        soon("loading", ms(10_000), async || {
            let error = cache.get::<u64>("k0:0").await.err();
            error.is_some_and(|error| error.to_string().contains("LOADING"))
        })
        .await;
        let (before, watch) = (proxy.accepted(), Stopwatch::start());
        let expected = ["unavailable", "unavailable", "pending", "pending", "pending", "ok"];
        Six::of(&cache).await.report(&mut row, expected, ms(50));
        let mut failed = 0;
        while !restart.is_finished() {
            let (good, _) = load(&cache, "f").await;
            failed += u64::from(!good);
            pause(ms(5)).await;
        }
        let attempts = proxy.accepted() - before;
        let most = u64::try_from(watch.elapsed().as_millis() / 100).unwrap();
        row.count("get_or_load, callers that saw an error", 0, failed);
        row.count("attempts to connect, one each 100 ms", most, attempts);
        let loaded =
            soon("loaded", ms(5000), async || cache.get::<u64>("k0:0").await.is_ok()).await;
        row.at_most("get, after the data is loaded", ms(1000), loaded);
        let server = restart.await.unwrap();
        row.at_most("recovery", ms(2000), recovery(&cache).await);
        drop(server);
        row
    })
    .await;
}

#[tokio::test]
async fn fm_10_out_of_memory() {
    measured(async || {
        let mut row = FaultRow::new("FM-10", "OOM: maxmemory is reached, noeviction");
        let rig = Rig::on(RedisServer::builder().max_memory("4mb")).await;
        for key in ["known", "d", "p1"] {
            rig.cache.set(key, 1_u64, MINUTE).tags(["t"]).await.unwrap();
        }
        let mut redis = rig.server.connection();
        let mut filled = false;
        for i in 0..10_000 {
            let key = format!("filler{i}");
            let answer = redis.command(&["SET".as_bytes(), key.as_bytes(), &[b'x'; 4000]]).unwrap();
            filled = matches!(answer, tachikoma_testkit::Resp::Error(_));
            if filled {
                break;
            }
        }
        assert!(filled, "it is never full");
        let before = rig.cache.stats();
        let expected = ["ok", "rejected", "ok", "ok", "ok", "ok"];
        Six::of(&rig.cache).await.report(&mut row, expected, ms(300));
        let (_, failed) = loads(&rig.cache, "a", 20).await;
        row.count("get_or_load, callers that saw an error", 0, failed);
        let gone = ["d", "p1"].map(|key| format!("test:{{v{key}}}"));
        let left = rig.server.command(&["EXISTS", &gone[0], &gone[1]]).integer();
        row.count("delete and delete_pattern, left", 0, u64::try_from(left).unwrap());
        let counted = rig.cache.stats().errors.total() - before.errors.total();
        row.holds("counted errors", "≥ 21", counted, counted >= 21);
        for i in 0..1000 {
            redis.command(&["DEL", &format!("filler{i}")]).unwrap();
        }
        row.at_most("recovery", ms(2000), recovery(&rig.cache).await);
        row
    })
    .await;
}
