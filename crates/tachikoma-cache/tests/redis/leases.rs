//! Who may store what was loaded.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use tachikoma_cache::SystemClock;
use tachikoma_cache::invalidation::How;
use tachikoma_cache::store::{Begun, Store, When, Written};
use tachikoma_testkit::{RedisServer, Stopwatch};

use crate::bench::{Client, MINUTE, config, ms, soon};

#[tokio::test]
async fn a_lease_is_given_once_and_ends_when_it_is_used() {
    let server = RedisServer::start();
    let (c, other) = (Client::new(&server).await, Client::new(&server).await);
    let lease = Client::lead(c.begin("k").await.unwrap());
    assert!(other.begin("k").await.unwrap().lease.is_none());
    assert!(c.begin("k").await.unwrap().lease.is_none());
    assert_eq!(c.fill("k", "v", &lease).await, Written::Stored);
    assert_eq!(c.fill("k", "w", &lease).await, Written::Refused);
    assert_eq!(other.get("k").await.unwrap(), "v");
    assert_eq!(server.command(&["EXISTS", "test:{vk}:l"]).integer(), 0);
}

#[tokio::test]
async fn of_many_who_begin_at_once_one_leads() {
    let server = RedisServer::start();
    let c = Client::new(&server).await;
    let begun = futures_util::future::join_all((0..100).map(|_| c.begin("k"))).await;
    let leads =
        begun.iter().filter(|begin| matches!(begin, Ok(Begun { lease: Some(_), .. }))).count();
    assert_eq!(leads, 1);
}

#[tokio::test]
async fn an_abandoned_lease_is_free_at_once() {
    let server = RedisServer::start();
    let c = Client::new(&server).await;
    let lease = Client::lead(c.begin("k").await.unwrap());
    c.store.abandon(&c.key("k"), lease);
    soon("free", ms(5000), async || c.begin("k").await.unwrap().lease.is_some()).await;
}

#[tokio::test]
async fn the_lease_of_a_dead_holder_ends() {
    let server = RedisServer::start();
    let short = config(&server).lease(ms(300));
    let dead = Client::with(short, Arc::new(SystemClock::new())).await;
    let lease = Client::lead(dead.begin("k").await.unwrap());
    let c = Client::new(&server).await;
    drop(dead);
    let next = {
        let mut next = None;
        soon("free", ms(5000), async || {
            if let Some(lease) = c.begin("k").await.unwrap().lease {
                next = Some(lease);
            }
            next.is_some()
        })
        .await;
        next.unwrap()
    };
    assert_eq!(c.fill("k", "late", &lease).await, Written::Refused);
    assert_eq!(c.fill("k", "v", &next).await, Written::Stored);
    assert_eq!(c.get("k").await.unwrap(), "v");
}

#[tokio::test]
async fn a_living_holder_keeps_its_lease_for_as_long_as_it_needs() {
    let server = RedisServer::start();
    let short = config(&server).lease(ms(1000));
    let holder = Client::with(short, Arc::new(SystemClock::new())).await;
    let lease = Client::lead(holder.begin("k").await.unwrap());
    let given_back = Client::lead(holder.begin("other").await.unwrap());
    holder.store.abandon(&holder.key("other"), given_back);
    let c = Client::new(&server).await;
    let clock = Stopwatch::start();
    while clock.elapsed() < ms(3000) {
        assert!(c.begin("k").await.unwrap().lease.is_none(), "lost after {:?}", clock.elapsed());
        holder.clock.sleep(ms(50)).await;
    }
    assert_eq!(server.command(&["EXISTS", "test:{vother}:l"]).integer(), 0);
    assert_eq!(holder.fill("k", "v", &lease).await, Written::Stored);
    assert_eq!(
        server.command(&["EXISTS", "test:{vk}:l"]).integer(),
        0,
        "and does not bring it back"
    );
}

#[tokio::test]
async fn a_lease_that_was_taken_away_is_not_renewed_back() {
    let server = RedisServer::start();
    let short = config(&server).lease(ms(200));
    let holder = Client::with(short, Arc::new(SystemClock::new())).await;
    let lease = Client::lead(holder.begin("k").await.unwrap());
    let c = Client::new(&server).await;
    c.remove(&["k"]).await;
    holder.clock.sleep(ms(300)).await;
    assert_eq!(server.command(&["EXISTS", "test:{vk}:l"]).integer(), 0);
    let next = Client::lead(c.begin("k").await.unwrap());
    assert_eq!(holder.fill("k", "old", &lease).await, Written::Refused);
    assert_eq!(c.fill("k", "v", &next).await, Written::Stored);
}

/// How often a script ran, also in vain.
fn scripts(server: &RedisServer) -> usize {
    let stats = server.command(&["INFO", "commandstats"]).text();
    let calls = |name: &str| {
        let line = stats.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(":calls="));
        line.map_or(0, |line| line.split(',').next().unwrap().parse().unwrap())
    };
    calls("cmdstat_eval") + calls("cmdstat_evalsha")
}

#[tokio::test]
async fn a_lease_whose_write_was_refused_is_not_given_back_besides() {
    let server = RedisServer::start();
    let c = Client::new(&server).await;
    let lease = Client::lead(c.begin("first").await.unwrap());
    assert_eq!(c.fill("first", "v", &lease).await, Written::Stored);
    let lease = Client::lead(c.begin("k").await.unwrap());
    c.remove(&["k"]).await;
    let before = scripts(&server);
    assert_eq!(c.fill("k", "v", &lease).await, Written::Refused);
    assert_eq!(scripts(&server) - before, 1);
    // Errands go in their order: were there one for the lease above, it came before this.
    let lease = Client::lead(c.begin("last").await.unwrap());
    c.store.abandon(&c.key("last"), lease);
    soon("given back", ms(5000), async || {
        server.command(&["EXISTS", "test:{vlast}:l"]).integer() == 0
    })
    .await;
    assert_eq!(scripts(&server) - before, 2);
}

#[tokio::test]
async fn a_write_that_nobody_waits_for_ends_its_lease() {
    let server = RedisServer::start();
    let c = Client::new(&server).await;
    let lease = Client::lead(c.begin("k").await.unwrap());
    let (key, cx) = (c.key("k"), c.cx());
    drop(c.store.write(&key, c.entry("v", None), When::Leased(&lease), &cx));
    assert!(c.begin("k").await.unwrap().lease.is_some());
}

#[tokio::test]
async fn a_begin_that_is_dropped_leaves_no_lease() {
    let server = RedisServer::start();
    let c = Client::new(&server).await;
    for polls in 0..50 {
        let keys = [c.key("k")];
        let cx = c.cx();
        let mut begin = c.store.begin(&keys, &cx);
        let mut begun = Poll::Pending;
        for _ in 0..polls % 5 {
            begun = poll_fn(|cx| Poll::Ready(begin.as_mut().poll(cx))).await;
            if begun.is_ready() {
                break;
            }
            tokio::task::yield_now().await;
        }
        if let Poll::Ready(begun) = begun
            && let Some(lease) = begun.unwrap().remove(0).lease
        {
            c.store.abandon(&c.key("k"), lease);
        }
    }
    soon("free", ms(5000), async || c.begin("k").await.unwrap().lease.is_some()).await;
}

/// One key may be refused, for want of memory or of rights, when others have their leases.
#[tokio::test]
async fn a_begin_that_fails_for_one_key_leaves_no_lease_of_the_others() {
    let server = RedisServer::start();
    let c = Client::with(config(&server).lease(ms(500)), Arc::new(SystemClock::new())).await;
    let rights = ["resetkeys", "~test:{va}*", "~test:g", "%R~test:{vb}*"];
    server.command(&[&["ACL", "SETUSER", "default"][..], &rights].concat());
    let keys = [c.key("a"), c.key("b")];
    c.store.begin(&keys, &c.cx()).await.unwrap_err();
    server.command(&["ACL", "SETUSER", "default", "allkeys"]);
    soon("given back", ms(5000), async || {
        server.command(&["EXISTS", "test:{va}:l"]).integer() == 0
    })
    .await;
}

/// After what happens in between, the load that began before must not be stored.
async fn check_refused<F: AsyncFnOnce(&Client)>(what: &str, meanwhile: F) {
    let server = RedisServer::start();
    let (c, other) = (Client::new(&server).await, Client::new(&server).await);
    let lease = Client::lead(c.begin("k").await.unwrap());
    meanwhile(&other).await;
    assert_eq!(c.fill("k", "old", &lease).await, Written::Refused, "{what}");
    assert_ne!(c.get("k").await.as_deref(), Some("old"), "{what}");
}

#[tokio::test]
async fn what_was_loaded_before_a_change_is_not_stored_after_it() {
    check_refused("remove", async |c| assert_eq!(c.remove(&["k"]).await, 0)).await;
    check_refused("set", async |c| c.set("k", "new").await).await;
    check_refused("set if absent", async |c| {
        let entry = c.entry("new", Some(MINUTE));
        assert_eq!(c.write("k", entry, When::Absent).await.unwrap(), Written::Stored);
    })
    .await;
    check_refused("scan and remove", async |c| {
        let names = c.names("*").await;
        assert_eq!(names, ["k"], "a key that is being loaded is found");
        assert_eq!(c.remove(&["k"]).await, 0);
    })
    .await;
}

#[tokio::test]
async fn what_was_loaded_before_its_tag_was_invalidated_is_not_shown() {
    let server = RedisServer::start();
    let c = Client::new(&server).await;
    let lease = Client::lead(c.begin("k").await.unwrap());
    c.invalidate(&["t"], How::Hard).await.unwrap();
    let entry = c.tagged("old", &["t"], Some(&lease)).await;
    c.write("k", entry, When::Leased(&lease)).await.unwrap();
    assert_eq!(c.get("k").await, None);
    let lease = Client::lead(c.begin("k").await.unwrap());
    let entry = c.tagged("new", &["t"], Some(&lease)).await;
    assert_eq!(c.write("k", entry, When::Leased(&lease)).await.unwrap(), Written::Stored);
    assert_eq!(c.get("k").await.unwrap(), "new");
}

#[tokio::test]
async fn a_refresh_takes_the_lease_though_a_fresh_entry_is_there() {
    let server = RedisServer::start();
    let c = Client::new(&server).await;
    c.set("k", "v").await;
    let keys = [c.key("k")];
    let begun = c.store.begin(&keys, &c.cx()).await.unwrap().remove(0);
    let lease = Client::lead(begun);
    assert_eq!(c.fill("k", "w", &lease).await, Written::Stored);
    assert_eq!(c.get("k").await.unwrap(), "w");
}

/// Every order of a load's two steps and a removal: a value read before the removal is never left.
#[tokio::test]
async fn no_order_of_load_and_remove_leaves_the_old_value() {
    let server = RedisServer::start();
    let (c, other) = (Client::new(&server).await, Client::new(&server).await);
    for round in 0..300 {
        let name = format!("k{round}");
        let source = std::sync::atomic::AtomicU32::new(1);
        let load = async {
            if let Some(lease) = c.begin(&name).await.unwrap().lease {
                let read = source.load(std::sync::atomic::Ordering::SeqCst).to_string();
                tokio::task::yield_now().await;
                c.fill(&name, &read, &lease).await;
            }
        };
        let change = async {
            for _ in 0..round % 7 {
                tokio::task::yield_now().await;
            }
            source.store(2, std::sync::atomic::Ordering::SeqCst);
            other.remove(&[&name]).await;
        };
        tokio::join!(load, change);
        assert_ne!(c.get(&name).await.as_deref(), Some("1"), "round {round}");
    }
}

#[tokio::test]
async fn what_was_given_back_is_free_at_once() {
    let server = RedisServer::start();
    let c = Client::new(&server).await;
    for round in 0..200 {
        let lease = Client::lead(c.begin("k").await.unwrap());
        c.store.abandon(&c.key("k"), lease);
        let again = c.begin("k").await.unwrap().lease;
        let again = again.unwrap_or_else(|| panic!("its own lease is in its way, round {round}"));
        assert!(c.begin("k").await.unwrap().lease.is_none(), "this one was not given back");
        assert_eq!(c.fill("k", "v", &again).await, Written::Stored);
        c.remove(&["k"]).await;
    }
}
