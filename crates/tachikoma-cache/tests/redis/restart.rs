//! What survives a restart of the server, and how far it is trusted.

use std::sync::Arc;

use tachikoma_cache::store::{Store, When, Written};
use tachikoma_cache::{ErrorKind, Guarantee, Health, SystemClock};
use tachikoma_testkit::RedisServer;

use crate::bench::{Client, INVALIDATED, config, ms, pause, soon, until_down, until_up};

/// As the default user: others do not survive a restart.
async fn anybody(server: &RedisServer) -> Client {
    Client::with(config(server), Arc::new(SystemClock::new())).await
}

#[tokio::test]
async fn an_entry_that_survived_a_restart_is_stale() {
    let mut server = RedisServer::start();
    let c = anybody(&server).await;
    c.set("k", "v").await;
    server.command(&["SAVE"]);
    server.kill();
    until_down(&c).await;
    server.restart();
    until_up(&c).await;
    assert_eq!(c.guarantee("k").await, INVALIDATED);
    let lease = Client::lead(c.begin("k").await.unwrap());
    assert_eq!(c.fill("k", "new", &lease).await, Written::Stored);
    assert_eq!(c.guarantee("k").await, Some(Guarantee::Fresh));
}

#[tokio::test]
async fn a_lease_that_survived_a_restart_stores_nothing() {
    let mut server = RedisServer::start();
    let c = anybody(&server).await;
    let lease = Client::lead(c.begin("k").await.unwrap());
    server.command(&["SAVE"]);
    // The snapshot is from before this removal, so the restart brings the lease back.
    c.remove(&["k"]).await;
    server.kill();
    until_down(&c).await;
    server.restart();
    until_up(&c).await;
    assert_eq!(server.command(&["EXISTS", "test:{vk}:l"]).integer(), 1);
    assert_eq!(c.fill("k", "old", &lease).await, Written::Refused);
    soon("the lease is given back", ms(5000), async || c.begin("k").await.unwrap().lease.is_some())
        .await;
}

#[tokio::test]
async fn an_empty_restart_is_an_empty_cache() {
    let mut server = RedisServer::start();
    let c = anybody(&server).await;
    let entry = c.tagged("v", &["t"], None).await;
    c.write("k", entry, When::Always).await.unwrap();
    server.kill();
    until_down(&c).await;
    server.restart();
    until_up(&c).await;
    assert_eq!(c.get("k").await, None);
    let entry = c.tagged("v", &["t"], None).await;
    c.write("k", entry, When::Always).await.unwrap();
    assert_eq!(c.guarantee("k").await, Some(Guarantee::Fresh));
}

#[tokio::test]
async fn a_new_replication_history_is_noticed_on_the_living_connection() {
    let server = RedisServer::builder().arguments(["--enable-debug-command", "yes"]).start();
    let c = anybody(&server).await;
    c.set("k", "v").await;
    assert_eq!(c.guarantee("k").await, Some(Guarantee::Fresh));
    server.command(&["DEBUG", "CHANGE-REPL-ID"]);
    soon("stale", ms(2000), async || c.guarantee("k").await == INVALIDATED).await;
    assert_eq!(c.store.health(), Health::Up);
    c.set("k", "w").await;
    assert_eq!(c.guarantee("k").await, Some(Guarantee::Fresh));
}

#[tokio::test]
async fn a_server_that_loads_its_data_is_unavailable_and_then_used_at_once() {
    let mut server = RedisServer::builder()
        .arguments(["--loading-process-events-interval-bytes", "1024"])
        .arguments(["--key-load-delay", "1000"])
        .start();
    let c = anybody(&server).await;
    for batch in 0..20 {
        let names: Vec<String> = (0..100).map(|i| format!("k{batch}:{i}")).collect();
        let writes = names.iter().map(|name| c.set(name, "v"));
        futures_util::future::join_all(writes).await;
    }
    server.command(&["SAVE"]);
    server.kill();
    until_down(&c).await;
    let restart = tokio::task::spawn_blocking(move || {
        server.restart();
        server
    });
    let mut reasons = std::collections::BTreeSet::new();
    while !restart.is_finished() {
        if let Err(error) = c.try_get("k0:0").await {
            assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        }
        if let Health::Degraded { reason, .. } = c.store.health() {
            reasons.insert(reason);
        }
        pause(ms(5)).await;
    }
    assert!(reasons.iter().any(|reason| reason.contains("loading")), "{reasons:?}");
    let took = soon("loaded", ms(1000), async || c.try_get("k0:0").await.is_ok()).await;
    assert!(took <= ms(1000), "{took:?}");
    let _server = restart.await.unwrap();
    until_up(&c).await;
}
