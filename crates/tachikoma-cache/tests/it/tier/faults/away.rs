//! What is left of the memory tier while Redis cannot be asked: stale values, for those who accept
//! them, which say what they are.

use tachikoma_cache::{Health, LoadError, LoadOptions, StaleReason};
use tachikoma_testkit::FaultRow;

use super::*;

/// For callers to whom a stale value is as good.
fn at_once() -> LoadOptions {
    LoadOptions::new().stale_while_revalidate(MINUTE)
}

/// For callers to whom it is better than none.
fn fail_safe() -> LoadOptions {
    LoadOptions::new().stale_if_error(MINUTE)
}

type Got = Result<(u64, Guarantee), &'static str>;

/// Loads a key of the tier; its loader gives this.
async fn load(cache: &Cache, options: LoadOptions, gives: Result<u64, &'static str>) -> Got {
    match cache.get_or_load("k", move || async move { gives }).options(options).await {
        Ok(hit) => Ok((*hit, hit.guarantee())),
        Err(LoadError::Source(error)) => Err(*error),
        Err(_) => Err("another error"),
    }
}

fn reason(got: &Got) -> Option<StaleReason> {
    match got {
        Ok((_, Guarantee::Stale { reason, .. })) => Some(*reason),
        _ => None,
    }
}

/// Waits for this, at most 10 s; how long it took.
async fn soon(what: &str, mut done: impl AsyncFnMut() -> bool) -> Duration {
    let watch = Stopwatch::start();
    while !done().await {
        assert!(watch.elapsed() < Duration::from_secs(10), "not {what}");
        pause(ms(2)).await;
    }
    watch.elapsed()
}

/// What callers get while the server is away, and after it.
async fn drill(mut row: FaultRow, fault: impl Fn(&Rig), end: impl Fn(&Rig)) -> FaultRow {
    let rig = Rig::start().await;
    rig.writer.set("k", 1_u64, MINUTE).await.unwrap();
    until_in_memory(&rig.far, "k").await;
    fault(&rig);
    let (watch, mut longest, mut wrong) = (Stopwatch::start(), Duration::ZERO, 0);
    while rig.far.health() == Health::Up || watch.elapsed() < 2 * FRESHNESS {
        let (begun, one) = (watch.elapsed(), Stopwatch::start());
        let got = load(&rig.far, at_once(), Err("not wanted")).await;
        longest = longest.max(one.elapsed());
        let (value, guarantee) = got.unwrap_or((0, Guarantee::Fresh));
        wrong += u64::from(value != 1);
        // The last heartbeat was sent before the fault.
        wrong += u64::from(!guarantee.is_stale() && begun > FRESHNESS);
        assert!(watch.elapsed() < Duration::from_secs(20), "it is not noticed");
    }
    row.at_most("get_or_load that takes stale values, longest", ms(300), longest);
    row.count("the same, without the value or beyond the freshness", 0, wrong);

    let mut times = Vec::new();
    let (mut disconnected, mut failed) = (0, 0);
    for _ in 0..200 {
        let one = Stopwatch::start();
        let got = load(&rig.far, at_once(), Err("not wanted")).await;
        times.push(one.elapsed());
        disconnected += u64::from(reason(&got) == Some(StaleReason::Disconnected));
        let got = load(&rig.far, fail_safe(), Err("the source fails")).await;
        let says = matches!(reason(&got), Some(StaleReason::LoadFailed | StaleReason::Throttled));
        failed += u64::from(!says);
    }
    row.at_most("get_or_load that takes stale values, p99 of 200", ms(5), p99(&mut times));
    row.holds("what it says, of 200", "disconnected", disconnected, disconnected == 200);
    row.count("stale_if_error and a source that fails, errors of 200", 0, failed);
    let loaded = load(&rig.far, LoadOptions::new(), Ok(2)).await == Ok((2, Guarantee::Fresh));
    row.holds("get_or_load of others", "the source's value", loaded, loaded);
    let error = rig.far.get::<u64>("k").await.is_err() && rig.far.try_get::<u64>("k").is_none();
    row.holds("get and try_get", "an error and nothing", error, error);
    // It is gone elsewhere, or is going to be.
    let _ = rig.writer.delete("k").await;
    let _ = rig.writer.set("k", 3_u64, MINUTE).await;
    end(&rig);
    let back = soon("back", async || {
        rig.writer.set("k", 3_u64, MINUTE).await.is_ok()
            && load(&rig.far, at_once(), Err("no")).await.is_ok_and(|got| !got.1.is_stale())
    });
    row.at_most("recovery", ms(2000), back.await);
    let got = load(&rig.far, at_once(), Err("no")).await;
    let new = got.is_ok_and(|(value, guarantee)| value == 3 && !guarantee.is_stale());
    row.holds("what changed meanwhile", "known", new, new);
    row
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fm_01_a_stopped_server() {
    measured(async || {
        let row = FaultRow::new("FM-01", "with a memory tier; redis-server is stopped (SIGSTOP)");
        drill(row, |rig| rig.server.stop(), |rig| rig.server.cont()).await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fm_03_nobody_listens() {
    measured(async || {
        let row = FaultRow::new("FM-03", "with a memory tier; connections are refused");
        drill(row, |rig| rig.proxy.set(Fault::Refuse), |rig| rig.proxy.set(Fault::Pass)).await
    })
    .await;
}

/// What stale values cost, beside hits of a healthy server: both need nobody else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fm_03_half_of_the_healthy_throughput() {
    const CALLS: u32 = 20_000;
    measured(async || {
        let rig = Rig::start().await;
        rig.writer.set("k", 1_u64, MINUTE).await.unwrap();
        until_in_memory(&rig.far, "k").await;
        let calls = async |stale| {
            let watch = Stopwatch::start();
            for _ in 0..CALLS {
                let got = load(&rig.far, at_once(), Err("not wanted")).await;
                assert_eq!(got.unwrap().1.is_stale(), stale);
            }
            watch.elapsed() / CALLS
        };
        let mut row = FaultRow::new("FM-03", "with a memory tier; connections are refused");
        let healthy = calls(false).await;
        rig.proxy.set(Fault::Refuse);
        soon("away", async || {
            reason(&load(&rig.far, at_once(), Err("no")).await).is_some()
                && rig.far.health() != Health::Up
        })
        .await;
        let away = calls(true).await;
        let share = healthy.as_secs_f64() / away.as_secs_f64() * 100.0;
        let shown = format!("{share:.0} % ({healthy:?}, {away:?})");
        row.holds("hits, share of the healthy throughput", "≥ 50 %", shown, share >= 50.0);
        row
    })
    .await;
}

/// RG-34: the first who asks does not wait for the store's deadline.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fm_02_who_does_not_want_to_wait_gets_a_stale_value() {
    measured(async || {
        let rig = Rig::start().await;
        // Short, so that nobody has noticed yet that nothing is answered.
        let url = format!("redis://127.0.0.1:{}/0?freshness=200ms", rig.proxy.port());
        let far = Cache::connect(&url).await.unwrap();
        rig.writer.set("k", 1_u64, MINUTE).await.unwrap();
        soon("in memory", async || {
            look(&far, "k").await.is_some() && far.try_get::<u64>("k").is_some()
        })
        .await;
        let mut row = FaultRow::new("FM-02", "with a memory tier; nothing is answered any more");
        rig.proxy.set(Fault::Stall);
        soon("lapsed", async || far.try_get::<u64>("k").is_none()).await;
        let hurried = fail_safe().soft_timeout(ms(20));
        let one = Stopwatch::start();
        let got = load(&far, hurried, Ok(2)).await;
        row.at_most("the first get_or_load with a soft_timeout of 20 ms", ms(100), one.elapsed());
        let says = reason(&got).map_or("nothing", StaleReason::label);
        row.holds("what it says", "soft_timeout", says, says == "soft_timeout");
        row
    })
    .await;
}
