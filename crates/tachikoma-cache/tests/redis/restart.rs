//! What survives a restart of the server, and how far it is trusted.

use tachikoma_cache::Guarantee;
use tachikoma_cache::store::{Store, When, Written};
use tachikoma_testkit::RedisServer;

use crate::bench::{Client, ms, soon, until_down, until_up};

#[tokio::test]
async fn an_entry_that_survived_a_restart_is_stale() {
    let mut server = RedisServer::start();
    let c = Client::new(&server).await;
    c.set("k", "v").await;
    server.command(&["SAVE"]);
    server.kill();
    until_down(&c).await;
    server.restart();
    until_up(&c).await;
    assert_eq!(c.guarantee("k").await, Some(Guarantee::Stale));
    let lease = Client::lead(c.begin("k").await.unwrap());
    assert_eq!(c.fill("k", "new", &lease).await, Written::Stored);
    assert_eq!(c.guarantee("k").await, Some(Guarantee::Fresh));
}

#[tokio::test]
async fn a_lease_that_survived_a_restart_stores_nothing() {
    let mut server = RedisServer::start();
    let c = Client::new(&server).await;
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
    let c = Client::new(&server).await;
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
    let c = Client::new(&server).await;
    c.set("k", "v").await;
    assert_eq!(c.guarantee("k").await, Some(Guarantee::Fresh));
    server.command(&["DEBUG", "CHANGE-REPL-ID"]);
    soon("stale", ms(2000), async || c.guarantee("k").await == Some(Guarantee::Stale)).await;
    assert_eq!(c.store.health(), tachikoma_cache::Health::Up);
    c.set("k", "w").await;
    assert_eq!(c.guarantee("k").await, Some(Guarantee::Fresh));
}
