//! What callers see while the server is away, and how soon it is used again.

use std::sync::Arc;
use std::time::Duration;

use tachikoma_cache::store::redis::RedisConfig;
use tachikoma_cache::store::{Store, When};
use tachikoma_cache::{ErrorKind, Guarantee, Health, SystemClock};
use tachikoma_testkit::{Fault, FaultProxy, RedisServer, Stopwatch, allowed};

use crate::bench::{Client, MINUTE, ms, soon, through, until_down, until_up};

/// A store with the settings that a user gets.
async fn client(server: &RedisServer) -> Client {
    let config = RedisConfig::from_url(&server.url()).unwrap().0;
    Client::with(config, Arc::new(SystemClock::new())).await
}

/// Fails a read and says how long that took.
async fn failing_read(c: &Client) -> Duration {
    let watch = Stopwatch::start();
    let error = c.try_get("k").await.unwrap_err();
    assert!(error.kind().is_transient(), "{error}");
    watch.elapsed()
}

/// Calls fail within their deadline, then at once.
async fn check_outage(c: &Client, first: Duration) {
    for call in 0..5 {
        let took = failing_read(c).await;
        let most = allowed(first, took);
        assert!(took <= most, "call {call} took {took:?}, and {most:?} is allowed");
    }
    until_down(c).await;
    let watch = Stopwatch::start();
    for _ in 0..100 {
        failing_read(c).await;
    }
    watch.within(100 * ms(5));
}

async fn check_recovery(c: &Client) {
    soon("recovered", ms(2000), async || c.try_get("k").await.is_ok()).await;
    until_up(c).await;
    c.set("k", "after").await;
    assert_eq!(c.get("k").await.unwrap(), "after");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_server_costs_five_calls_their_deadline_and_the_others_nothing() {
    let server = RedisServer::start();
    let c = client(&server).await;
    c.set("k", "v").await;
    server.stop();
    check_outage(&c, ms(300)).await;
    server.cont();
    check_recovery(&c).await;
}

#[tokio::test]
async fn five_calls_without_an_answer_open_the_breaker_before_a_heartbeat_can() {
    let server = RedisServer::start();
    let c = client(&server).await;
    server.stop();
    let watch = Stopwatch::start();
    let reads = futures_util::future::join_all((0..5).map(|_| c.try_get("k"))).await;
    assert!(reads.iter().all(Result::is_err));
    assert!(matches!(c.store.health(), Health::Degraded { .. }));
    watch.within(ms(400));
    server.cont();
    check_recovery(&c).await;
}

#[tokio::test]
async fn a_killed_server_fails_calls_at_once() {
    let mut server = RedisServer::start();
    let c = client(&server).await;
    c.set("k", "v").await;
    server.kill();
    check_outage(&c, ms(100)).await;
    server.restart();
    check_recovery(&c).await;
}

#[tokio::test]
async fn a_lost_connection_is_replaced_in_milliseconds() {
    let server = RedisServer::start();
    let proxy = FaultProxy::to(server.port());
    let c = Client::with(through(&proxy), Arc::new(SystemClock::new())).await;
    c.set("k", "v").await;
    for _ in 0..5 {
        crate::bench::pause(ms(1100)).await;
        proxy.drop_connections();
        let took = soon("lost", ms(2000), async || c.try_get("k").await.is_err()).await;
        let back = soon("back", ms(2000), async || c.try_get("k").await.is_ok()).await;
        assert!(took + back <= ms(500), "{took:?} {back:?}");
    }
}

#[tokio::test]
async fn a_slow_server_is_waited_for_and_not_longer_than_the_deadline() {
    let server = RedisServer::start();
    let proxy = FaultProxy::to(server.port());
    let c = Client::with(through(&proxy), Arc::new(SystemClock::new())).await;
    c.set("k", "v").await;
    proxy.set(Fault::Delay(ms(100)));
    assert_eq!(c.get("k").await.unwrap(), "v");
    proxy.set(Fault::Delay(ms(600)));
    let took = failing_read(&c).await;
    assert!(took <= allowed(ms(300), took), "{took:?}");
    proxy.set(Fault::Pass);
    check_recovery(&c).await;
}

#[tokio::test]
async fn no_call_outlives_the_deadline_of_its_caller() {
    let server = RedisServer::start();
    let mut c = client(&server).await;
    c.set("k", "v").await;
    c.budget = ms(40);
    server.stop();
    let entry = c.entry("v", Some(MINUTE));
    let watch = Stopwatch::start();
    assert!(c.try_get("k").await.is_err());
    assert!(c.begin("k").await.is_err());
    assert!(c.write("k", entry, When::Always).await.is_err());
    assert_eq!(c.try_remove(&["k"]).await.unwrap_err().kind(), ErrorKind::Pending);
    assert!(c.store.groups().snapshot(&c.space, &c.cx()).await.is_err());
    // Five calls of 40 ms.
    watch.within(ms(5 * 60));
    server.cont();
}

#[tokio::test]
async fn a_readonly_replica_is_read_and_written_again_when_it_is_promoted() {
    let (server, primary) = (RedisServer::start(), RedisServer::start());
    let c = client(&server).await;
    let port = primary.port().to_string();
    server.command(&["REPLICAOF", "127.0.0.1", &port]);
    soon("read-only", ms(5000), async || {
        let entry = c.entry("v", Some(MINUTE));
        let result = c.write("k", entry, When::Always).await;
        result.is_err_and(|error| error.kind() == ErrorKind::Rejected)
    })
    .await;
    server.command(&["REPLICAOF", "NO", "ONE"]);
    let took = soon("writable", ms(2000), async || {
        let entry = c.entry("v", Some(MINUTE));
        c.write("k", entry, When::Always).await.is_ok()
    })
    .await;
    assert!(took <= ms(2000), "{took:?}");
    assert_eq!(c.guarantee("k").await, Some(Guarantee::Fresh));
}

#[tokio::test]
async fn a_server_that_is_busy_with_a_script_is_unavailable_and_then_used_again() {
    let server = RedisServer::builder().arguments(["--lua-time-limit", "10"]).start();
    let c = client(&server).await;
    c.set("k", "v").await;
    let mut script = server.connection();
    script.send(&["EVAL", "while true do end", "0"]).unwrap();
    soon("busy", ms(5000), async || c.try_get("k").await.is_err()).await;
    let error = c.try_get("k").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    soon("killed", ms(5000), async || server.connection().command(&["SCRIPT", "KILL"]).is_ok())
        .await;
    check_recovery(&c).await;
}

#[tokio::test]
async fn health_says_since_when_and_why() {
    let mut server = RedisServer::start();
    let c = client(&server).await;
    assert_eq!(c.store.health(), Health::Up);
    server.kill();
    until_down(&c).await;
    let before = c.store.health();
    let Health::Degraded { since, reason } = &before else { panic!("{before:?}") };
    assert!(c.clock.now().since(*since) < ms(5000));
    assert!(reason.starts_with("Redis: "), "{reason}");
    crate::bench::pause(ms(300)).await;
    let after = c.store.health();
    let Health::Degraded { since: still, .. } = after else { panic!("{after:?}") };
    assert_eq!(still, *since, "further attempts do not move it");
    server.restart();
    until_up(&c).await;
}
