//! The server accepts and never answers, answers slowly, or is not there.

use tachikoma_cache::store::Store;
use tachikoma_testkit::{Fault, FaultRow, pace};

use super::*;
use crate::protocol::Log;

const AWAY: [&str; 6] =
    ["timed_out|unavailable", "timed_out|unavailable", "pending", "pending", "pending", "ok"];

/// The bars of a fault in which each call waits for its deadline until the breaker opens.
async fn waits(mut row: FaultRow, fault: impl Fn(&Rig), end: impl Fn(&Rig)) -> FaultRow {
    let rig = Rig::start().await;
    put(&rig.cache, "known").await;
    put(&rig.cache, "d").await;
    fault(&rig);
    Six::of(&rig.cache).await.report(&mut row, AWAY, ms(300));
    end(&rig);
    row.at_most("recovery", ms(2000), recovery(&rig.cache).await);
    let gone = matches!(rig.cache.get::<u64>("d").await, Ok(None));
    row.holds("deleted meanwhile", "gone", if gone { "gone" } else { "there" }, gone);

    let before = tasks();
    fault(&rig);
    let (first, failed) = loads(&rig.cache, "a", 5).await;
    row.at_most("get_or_load over the loader, first 5", ms(300), first[4]);
    until_degraded(&rig.cache).await;
    let (open, failed_too) = loads(&rig.cache, "b", 200).await;
    row.at_most("get_or_load over the loader, breaker open, p99 of 200", ms(5), p99(&open));
    let together = (0..64).map(|i| {
        let cache = rig.cache.clone();
        tokio::spawn(async move { load(&cache, &format!("c{i}")).await.0 })
    });
    let mut wrong = failed + failed_too;
    for one in together.collect::<Vec<_>>() {
        wrong += u64::from(!one.await.unwrap());
    }
    row.count("get_or_load, callers that saw an error", 0, wrong);
    let left = async || tasks() <= before;
    let _ = tokio::time::timeout(ms(2000), soon("tasks", ms(5000), left)).await;
    row.count("tasks that hang", 0, tasks().saturating_sub(before) as u64);
    end(&rig);
    row.at_most("recovery from an open breaker", ms(2000), recovery(&rig.cache).await);
    row
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fm_01_a_stopped_server() {
    measured(async || {
        let row = FaultRow::new("FM-01", "redis-server is stopped (SIGSTOP)");
        waits(row, |rig| rig.server.stop(), |rig| rig.server.cont()).await
    })
    .await;
}

/// RG-28: with the settings that are shipped, and no others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fm_01_a_black_hole() {
    measured(async || {
        let row = FaultRow::new("FM-01", "the network takes everything and gives nothing");
        waits(row, |rig| rig.proxy.set(Fault::Stall), |rig| rig.proxy.set(Fault::Pass)).await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fm_02_slow_replies() {
    measured(async || {
        let rig = Rig::start().await;
        put(&rig.cache, "known").await;
        let mut row = FaultRow::new("FM-02", "each reply comes 200 ms late");
        rig.proxy.set(Fault::Delay(ms(200)));
        let any = "ok|timed_out|unavailable";
        let told = "ok|pending";
        Six::of(&rig.cache).await.report(&mut row, [any, any, told, told, told, "ok"], ms(300));
        let (times, failed) = loads(&rig.cache, "a", 8).await;
        row.at_most("get_or_load over the loader, longest of 8", ms(300), times[7]);
        row.count("get_or_load, callers that saw an error", 0, failed);
        rig.proxy.set(Fault::Pass);
        row.at_most("recovery", ms(2000), recovery(&rig.cache).await);
        row
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fm_02_a_trickle() {
    measured(async || {
        let rig = Rig::start().await;
        put(&rig.cache, "known").await;
        let mut row = FaultRow::new("FM-02", "replies come at 100 bytes a second");
        rig.proxy.set(Fault::Throttle(100));
        let (times, failed) = loads(&rig.cache, "a", 20).await;
        row.at_most("get_or_load over the loader, longest of 20", ms(300), times[19]);
        row.count("get_or_load, callers that saw an error", 0, failed);
        let deleted = rig.cache.delete("known").await;
        row.holds(
            "delete",
            "ok|pending",
            told(&deleted),
            matches!(told(&deleted), "ok" | "pending"),
        );
        rig.proxy.set(Fault::Pass);
        row.at_most("recovery", ms(2000), recovery(&rig.cache).await);
        row
    })
    .await;
}

#[tokio::test]
async fn fm_03_nobody_listens() {
    let log = Log::default();
    let _log = tracing::subscriber::set_default(log.clone());
    measured(async || {
        let rig = Rig::start().await;
        put(&rig.cache, "known").await;
        let mut row = FaultRow::new("FM-03", "connections are refused");
        rig.proxy.set(Fault::Refuse);
        Six::of(&rig.cache).await.report(&mut row, AWAY, ms(10));
        until_degraded(&rig.cache).await;
        log.forget();
        let watch = Stopwatch::start();
        let (times, failed) = loads(&rig.cache, "a", 200).await;
        row.at_most("get_or_load over the loader, p99 of 200", ms(5), p99(&times));
        row.count("get_or_load, callers that saw an error", 0, failed);
        pause(ms(2000)).await;
        let seconds = watch.elapsed().as_secs();
        row.count("log lines of the outage", seconds + 1, log.lines("Redis cannot be used"));
        rig.proxy.set(Fault::Pass);
        row.at_most("recovery", ms(2000), recovery(&rig.cache).await);
        row
    })
    .await;
}

#[tokio::test]
async fn fm_03_a_half_closed_connection() {
    measured(async || {
        let rig = Rig::start().await;
        put(&rig.cache, "known").await;
        let mut row = FaultRow::new("FM-03", "the server ends its half of the connection");
        rig.proxy.set(Fault::HalfClose);
        Six::of(&rig.cache).await.report(&mut row, AWAY, ms(300));
        rig.proxy.set(Fault::Pass);
        row.at_most("recovery", ms(2000), recovery(&rig.cache).await);
        row
    })
    .await;
}

/// RG-29: the deadline of a call does not cut a connection short, nor the other way round.
#[tokio::test]
async fn rg_29_a_slow_login_is_not_a_slow_call() {
    measured(async || {
        let rig = Rig::start().await;
        rig.proxy.set(Fault::Delay(ms(60)));
        let mut row = FaultRow::new("RG-29", "each reply comes 60 ms late, calls have 100 ms");
        let url = format!("redis://127.0.0.1:{}/0", rig.proxy.port());
        let config = tachikoma_cache::store::redis::RedisConfig::from_url(&url).unwrap().0;
        let config = config.timeout(ms(100)).connect_timeout(ms(5000));
        let clock = Arc::new(tachikoma_cache::SystemClock::new());
        let c = crate::bench::Client::with(config, clock).await;
        let up = c.store.health() == Health::Up;
        row.holds("connect", "up", if up { "up" } else { "degraded" }, up);
        let answered = c.try_get("k").await;
        row.holds("get", "ok", told(&answered), answered.is_ok());
        row
    })
    .await;
}

/// RG-32: whenever the login is given up, no later call gets an answer that belongs to it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rg_32_a_login_that_is_given_up_shifts_no_answers() {
    let rig = Rig::start().await;
    for i in 0..64 {
        rig.cache.set(&format!("k{i}"), format!("value of k{i}"), MINUTE).await.unwrap();
    }
    let mut row = FaultRow::new("RG-32", "the login is given up at each of its steps");
    let (mut wrong, mut logins) = (0, 0);
    // On a busy machine a login outlasts the patience for it, so everything is slower there.
    let slower = pace().ceil();
    for patience in [5, 15, 25, 35, 45, 55, 65, 75] {
        let (late, patience) = (ms(20).mul_f64(slower), ms(patience).mul_f64(slower));
        rig.proxy.set(Fault::Delay(late));
        let before = rig.proxy.accepted();
        let url = format!("redis://127.0.0.1:{}/0", rig.proxy.port());
        let config = tachikoma_cache::store::redis::RedisConfig::from_url(&url).unwrap().0;
        let config = config.connect_timeout(patience);
        let clock = Arc::new(tachikoma_cache::SystemClock::new());
        let store =
            tachikoma_cache::store::redis::RedisStore::connect(config, clock).await.unwrap();
        let cache = Cache::on(Arc::new(store)).namespace("test").build().unwrap();
        pause(ms(150).mul_f64(slower)).await;
        rig.proxy.set(Fault::Pass);
        soon("up", ms(30_000), async || cache.health() == Health::Up).await;
        logins += rig.proxy.accepted() - before;
        for i in 0..64 {
            let key = format!("k{i}");
            match cache.get::<String>(&key).await {
                Ok(Some(value)) if *value == format!("value of {key}") => {}
                other => {
                    wrong += 1;
                    println!("{key}: {other:?}");
                }
            }
        }
    }
    row.holds("logins that were given up", "≥ 8", logins, logins >= 8);
    row.count("wrong answers of 512", 0, wrong);
    row.report();
}
