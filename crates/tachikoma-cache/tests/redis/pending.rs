//! Invalidations that Redis could not be told at once.

use std::error::Error as _;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use tachikoma_cache::glob::Glob;
use tachikoma_cache::invalidation::How;
use tachikoma_cache::store::redis::RedisConfig;
use tachikoma_cache::store::{Lease, Store, Want, When, Written};
use tachikoma_cache::{Cache, ErrorKind, Guarantee, Namespace, SystemClock};
use tachikoma_testkit::{Fault, FaultProxy, RedisServer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::bench::{Client, INVALIDATED, MINUTE, ms, pause, soon, through, until_down, until_up};

struct Setup {
    server: RedisServer,
    proxy: FaultProxy,
    c: Client,
}

/// A store that reaches its server through a proxy.
async fn setup() -> Setup {
    let server = RedisServer::start();
    let proxy = FaultProxy::to(server.port());
    let c = Client::with(through(&proxy), Arc::new(SystemClock::new())).await;
    Setup { server, proxy, c }
}

async fn delivered(c: &Client) {
    soon("delivered", ms(3000), async || c.store.stats().pending == 0).await;
}

#[tokio::test]
async fn a_removal_during_an_outage_is_kept_and_sent_when_the_server_is_back() {
    let Setup { server, proxy, c } = setup().await;
    c.set("k", "old").await;
    c.set("other", "v").await;
    proxy.set(Fault::Refuse);
    until_down(&c).await;
    let error = c.try_remove(&["k"]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Pending);
    assert!(error.source().is_some());
    assert_eq!(c.store.stats().pending, 1);
    assert_eq!(c.get("k").await, None, "shown as absent, also without a server");
    assert!(c.begin("k").await.is_err());
    assert!(c.try_get("other").await.is_err());
    assert_eq!(server.command(&["EXISTS", "test:{vk}"]).integer(), 1);
    proxy.set(Fault::Pass);
    until_up(&c).await;
    delivered(&c).await;
    assert_eq!(server.command(&["EXISTS", "test:{vk}"]).integer(), 0);
    assert_eq!(c.get("other").await.unwrap(), "v");
}

#[tokio::test]
async fn a_removal_whose_caller_goes_away_is_sent_all_the_same() {
    let Setup { server, proxy, c } = setup().await;
    c.set("k", "old").await;
    proxy.set(Fault::Stall);
    {
        let keys = [c.key("k")];
        let cx = c.cx();
        let mut remove = c.store.remove(&keys, &cx);
        let polled = poll_fn(|cx| Poll::Ready(remove.as_mut().poll(cx))).await;
        assert!(polled.is_pending());
    }
    assert_eq!(c.store.stats().pending, 1);
    assert_eq!(c.get("k").await, None);
    proxy.set(Fault::Pass);
    delivered(&c).await;
    assert_eq!(server.command(&["EXISTS", "test:{vk}"]).integer(), 0);
}

#[tokio::test]
async fn a_stopped_server_gets_the_removal_when_it_goes_on() {
    let Setup { server, proxy: _proxy, c } = setup().await;
    c.set("k", "old").await;
    server.stop();
    assert_eq!(c.try_remove(&["k"]).await.unwrap_err().kind(), ErrorKind::Pending);
    assert_eq!(c.get("k").await, None);
    server.cont();
    delivered(&c).await;
    assert_eq!(server.command(&["EXISTS", "test:{vk}"]).integer(), 0);
}

/// A network that keeps what the first connection sends from now on, and passes it on later, after
/// what newer connections sent.
struct Delayed {
    port: u16,
    hold: watch::Sender<bool>,
}

impl Delayed {
    async fn to(server: u16) -> Self {
        let (hold, held) = watch::channel(false);
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            let mut first = true;
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(("127.0.0.1", server)).await.unwrap();
                let held = std::mem::take(&mut first).then(|| held.clone());
                let (from_client, to_client) = client.into_split();
                let (from_server, to_server) = server.into_split();
                tokio::spawn(Self::pump(from_client, to_server, held));
                tokio::spawn(Self::pump(from_server, to_client, None));
            }
        });
        Self { port, hold }
    }

    async fn pump(
        mut from: OwnedReadHalf,
        mut to: OwnedWriteHalf,
        mut held: Option<watch::Receiver<bool>>,
    ) {
        let mut buffer = vec![0; 4096];
        while let Ok(length @ 1..) = from.read(&mut buffer).await {
            if let Some(held) = &mut held {
                held.wait_for(|held| !held).await.unwrap();
            }
            if to.write_all(&buffer[..length]).await.is_err() {
                return;
            }
        }
    }
}

#[tokio::test]
async fn a_write_that_was_given_up_does_not_come_back_after_a_removal() {
    let server = RedisServer::start();
    let network = Delayed::to(server.port()).await;
    let url = format!("redis://127.0.0.1:{}/0", network.port);
    let config = RedisConfig::from_url(&url).unwrap().0;
    let c = Client::with(config, Arc::new(SystemClock::new())).await;
    network.hold.send(true).unwrap();
    let error = c.write("k", c.entry("late", Some(MINUTE)), When::Always).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    soon("another connection", ms(3000), async || c.try_get("k").await.is_ok()).await;
    assert_eq!(c.remove(&["k"]).await, 0);
    network.hold.send(false).unwrap();
    pause(ms(100)).await;
    assert_eq!(c.get("k").await, None);
}

#[tokio::test]
async fn a_new_value_ends_the_wait_for_the_removal_of_the_old_one() {
    let Setup { server, proxy: _proxy, c } = setup().await;
    c.set("k", "old").await;
    server.command(&["ACL", "SETUSER", "default", "-unlink"]);
    let error = c.try_remove(&["k"]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Pending);
    assert_eq!(c.get("k").await, None);
    let absent = c.write("k", c.entry("new", Some(MINUTE)), When::Absent).await.unwrap();
    assert_eq!(absent, Written::Stored, "what is pending is absent");
    assert_eq!(c.get("k").await.unwrap(), "new");
    assert_eq!(c.store.stats().pending, 0);
    assert!(c.try_remove(&["k"]).await.is_err());
    c.set("k", "newer").await;
    assert_eq!(c.get("k").await.unwrap(), "newer");
    assert!(c.try_remove(&["k"]).await.is_err());
    server.command(&["ACL", "SETUSER", "default", "+unlink"]);
    delivered(&c).await;
    assert_eq!(c.get("k").await, None);
}

#[tokio::test]
async fn tags_are_invalidated_when_the_server_is_back() {
    let Setup { server, proxy, c } = setup().await;
    let direct = Client::new(&server).await;
    for (name, tag) in [("h", "hard"), ("s", "soft"), ("n", "none")] {
        let entry = c.tagged("v", &[tag], None).await;
        c.write(name, entry, When::Always).await.unwrap();
    }
    let lease = Client::lead(c.begin("l").await.unwrap());
    proxy.set(Fault::Refuse);
    until_down(&c).await;
    assert!(c.invalidate(&["hard"], How::Hard).await.unwrap_err().is_pending());
    assert!(c.invalidate(&["soft"], How::Soft).await.unwrap_err().is_pending());
    assert_eq!(c.store.stats().pending, 2);
    assert_eq!(direct.get("h").await.unwrap(), "v", "others cannot know yet");
    proxy.set(Fault::Pass);
    // From the first read on, whether it is in by then or not.
    let found = soon("up", ms(2000), async || c.read(&["h"]).await.is_ok());
    found.await;
    assert_eq!(c.get("h").await, None);
    assert_eq!(c.guarantee("s").await, INVALIDATED);
    assert_eq!(c.guarantee("n").await, Some(Guarantee::Fresh));
    delivered(&c).await;
    assert_eq!(direct.get("h").await, None);
    assert_eq!(direct.guarantee("s").await, INVALIDATED);
    let entry = c.tagged("old", &["hard"], Some(&lease)).await;
    c.write("l", entry, When::Leased(&lease)).await.unwrap();
    assert_eq!(c.get("l").await, None);
}

#[tokio::test]
async fn a_load_is_not_stored_while_its_tag_is_pending() {
    let Setup { server, proxy: _proxy, c } = setup().await;
    let lease = Client::lead(c.begin("k").await.unwrap());
    server.command(&["ACL", "SETUSER", "default", "-zadd"]);
    assert!(c.invalidate(&["t"], How::Hard).await.unwrap_err().is_pending());
    let entry = c.tagged("old", &["t"], Some(&lease)).await;
    let written = c.write("k", entry, When::Leased(&lease)).await.unwrap();
    assert_eq!(written, Written::Refused);
    let entry = c.tagged("set", &["t"], None).await;
    c.write("k", entry, When::Always).await.unwrap();
    assert_eq!(c.get("k").await, None);
    server.command(&["ACL", "SETUSER", "default", "+zadd"]);
    delivered(&c).await;
    assert_eq!(c.get("k").await, None, "it was read before the invalidation was in");
}

#[tokio::test]
async fn a_pattern_is_removed_when_the_server_is_back() {
    let Setup { server, proxy, c } = setup().await;
    for name in ["user:1", "user:2", "order:1"] {
        c.set(name, "v").await;
    }
    let lease = Client::lead(c.begin("user:3").await.unwrap());
    proxy.set(Fault::Refuse);
    until_down(&c).await;
    let glob = Glob::new("user:*").unwrap();
    c.store.defer_pattern(&c.space, &glob).unwrap();
    assert_eq!(c.get("user:1").await, None);
    proxy.set(Fault::Pass);
    until_up(&c).await;
    delivered(&c).await;
    assert_eq!(c.names("*").await, ["order:1"]);
    assert_eq!(c.fill("user:3", "old", &lease).await, Written::Refused);
    for gone in ["test:{vuser:1}", "test:{vuser:2}", "test:{vuser:3}:l"] {
        assert_eq!(server.command(&["EXISTS", gone]).integer(), 0, "{gone}");
    }
}

#[tokio::test]
async fn too_many_removals_become_one_of_the_whole_namespace() {
    let Setup { server: _server, proxy, c } = setup().await;
    let other = Client { space: Namespace::new("other").unwrap(), ..setup_on(&proxy).await };
    c.set("never named", "v").await;
    other.set("k", "v").await;
    let entry = c.tagged("v", &["t"], None).await;
    c.write("tagged", entry, When::Always).await.unwrap();
    proxy.set(Fault::Refuse);
    until_down(&c).await;
    let names: Vec<String> = (0..100_001).map(|i| i.to_string()).collect();
    for chunk in names.chunks(10_000) {
        let chunk: Vec<&str> = chunk.iter().map(String::as_str).collect();
        assert!(c.try_remove(&chunk).await.unwrap_err().is_pending());
    }
    assert_eq!(c.store.stats().pending, 2, "the floor, and all keys");
    assert_eq!(c.get("never named").await, None);
    proxy.set(Fault::Pass);
    until_up(&c).await;
    delivered(&c).await;
    assert!(c.scan("*", Want::Names).await.is_empty());
    until_up(&other).await;
    assert_eq!(other.get("k").await.unwrap(), "v");
}

async fn setup_on(proxy: &FaultProxy) -> Client {
    Client::with(through(proxy), Arc::new(SystemClock::new())).await
}

/// The courier cannot deliver: what comes later must not wait for it.
async fn stuck() -> Setup {
    let setup = setup().await;
    setup.server.command(&["ACL", "SETUSER", "default", "-scan"]);
    setup
}

#[tokio::test]
async fn what_is_written_after_a_pending_pattern_stays() {
    let Setup { server, proxy: _proxy, c } = stuck().await;
    for name in ["user:1", "user:2", "user:3"] {
        c.set(name, "old").await;
    }
    c.store.defer_pattern(&c.space, &Glob::new("user:*").unwrap()).unwrap();
    assert_eq!(c.get("user:1").await, None);
    c.set("user:1", "new").await;
    assert_eq!(c.get("user:1").await.unwrap(), "new", "at once");
    // A load delivers the removal of its key itself.
    let lease = Client::lead(c.begin("user:2").await.unwrap());
    assert_eq!(c.fill("user:2", "loaded", &lease).await, Written::Stored);
    assert_eq!(c.get("user:2").await.unwrap(), "loaded");
    assert_eq!(c.get("user:3").await, None);
    server.command(&["ACL", "SETUSER", "default", "+scan"]);
    delivered(&c).await;
    assert_eq!(c.get("user:1").await.unwrap(), "new");
    assert_eq!(c.get("user:2").await.unwrap(), "loaded");
    assert_eq!(c.names("*").await, ["user:1", "user:2"]);
}

#[tokio::test]
async fn what_is_written_with_tags_after_a_pending_clear_stays() {
    let Setup { server, proxy, c } = stuck().await;
    let direct = Client::new(&server).await;
    let entry = c.tagged("old", &["t"], None).await;
    c.write("k", entry.clone(), When::Always).await.unwrap();
    c.write("other", entry, When::Always).await.unwrap();
    proxy.set(Fault::Refuse);
    until_down(&c).await;
    c.store.defer_pattern(&c.space, &Glob::everything()).unwrap();
    assert!(c.invalidate(&["t"], How::Hard).await.unwrap_err().is_pending());
    proxy.set(Fault::Pass);
    until_up(&c).await;
    // The counters are read after the invalidations are in.
    let entry = c.tagged("new", &["t"], None).await;
    c.write("k", entry, When::Always).await.unwrap();
    assert_eq!(c.get("k").await.unwrap(), "new");
    assert_eq!(direct.get("other").await, None, "all that have tags are gone in one step");
    server.command(&["ACL", "SETUSER", "default", "+scan"]);
    delivered(&c).await;
    assert_eq!(c.get("k").await.unwrap(), "new");
    assert_eq!(direct.names("*").await, ["k"]);
}

#[tokio::test]
async fn a_load_delivers_the_pending_removal_of_its_key() {
    let Setup { server, proxy, c } = setup().await;
    c.set("k", "old").await;
    proxy.set(Fault::Refuse);
    until_down(&c).await;
    assert!(c.try_remove(&["k"]).await.unwrap_err().is_pending());
    proxy.set(Fault::Pass);
    soon("lease", ms(3000), async || {
        let Ok(begun) = c.begin("k").await else { return false };
        assert!(begun.found.is_none());
        let lease = begun.lease.expect("it leads");
        assert_eq!(c.fill("k", "new", &lease).await, Written::Stored);
        true
    })
    .await;
    delivered(&c).await;
    assert_eq!(c.get("k").await.unwrap(), "new");
    assert_eq!(server.command(&["EXISTS", "test:{vk}:l"]).integer(), 0);
}

/// Writers write as soon as the server is back, while the courier sends what is pending.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_write_is_lost_while_removals_are_sent_again() {
    let Setup { server: _server, proxy, c } = setup().await;
    let c = Arc::new(c);
    for round in 0..3 {
        let names: Vec<String> = (0..200).map(|i| format!("k{i}")).collect();
        for name in &names {
            c.set(name, "old").await;
        }
        proxy.set(Fault::Refuse);
        until_down(&c).await;
        let all: Vec<&str> = names.iter().map(String::as_str).collect();
        assert!(c.try_remove(&all).await.unwrap_err().is_pending());
        c.store.defer_pattern(&c.space, &Glob::new("k1*").unwrap()).unwrap();
        proxy.set(Fault::Pass);
        let writers = names.chunks(20).map(|chunk| {
            let (c, chunk) = (Arc::clone(&c), chunk.to_vec());
            tokio::spawn(async move {
                for name in &chunk {
                    let value = format!("new {round}");
                    let mut written = false;
                    for _ in 0..1000 {
                        let shown = c.try_get(name).await.ok().flatten();
                        assert_ne!(shown.as_deref(), Some("old"), "{name}");
                        let entry = c.entry(&value, Some(MINUTE));
                        written = c.write(name, entry, When::Always).await.is_ok();
                        if written {
                            break;
                        }
                        pause(ms(5)).await;
                    }
                    assert!(written, "{name} could not be written");
                    assert_eq!(c.get(name).await.unwrap(), value, "{name}");
                }
            })
        });
        for writer in writers.collect::<Vec<_>>() {
            writer.await.unwrap();
        }
        delivered(&c).await;
        for name in &names {
            assert_eq!(c.get(name).await.unwrap(), format!("new {round}"), "{name}");
        }
    }
}

/// Of 20 who ask at once to store `new N` at the key if it is absent, one does, and its value is
/// there. `meanwhile` begins before they do.
async fn one_wins<R>(c: &Client, name: &str, meanwhile: impl Future<Output = R>) {
    let write = async |i: u32| {
        let value = format!("new {i}");
        let written = c.write(name, c.entry(&value, Some(MINUTE)), When::Absent).await;
        (written.unwrap() == Written::Stored).then_some(value)
    };
    let writes = futures_util::future::join_all((0..20).map(write));
    let (_, written) = tokio::join!(meanwhile, writes);
    let won: Vec<_> = written.into_iter().flatten().collect();
    assert_eq!(won.len(), 1, "{won:?}");
    assert_eq!(c.get(name).await.as_ref(), won.first());
    delivered(c).await;
    assert_eq!(c.get(name).await.as_ref(), won.first(), "also when all is in");
}

#[tokio::test]
async fn one_of_many_stores_what_is_absent_while_the_key_is_being_removed() {
    let Setup { server: _server, proxy: _proxy, c } = setup().await;
    for round in 0..20 {
        let name = format!("k{round}");
        c.set(&name, "old").await;
        one_wins(&c, &name, c.remove(&[&name])).await;
    }
}

#[tokio::test]
async fn one_of_many_stores_what_is_absent_while_a_removal_is_pending() {
    let Setup { server, proxy: _proxy, c } = setup().await;
    for round in 0..5 {
        let name = format!("k{round}");
        c.set(&name, "old").await;
        server.command(&["ACL", "SETUSER", "default", "-unlink"]);
        assert!(c.try_remove(&[&name]).await.unwrap_err().is_pending());
        server.command(&["ACL", "SETUSER", "default", "+unlink"]);
        one_wins(&c, &name, async {}).await;
    }
}

#[tokio::test]
async fn one_of_many_stores_what_is_absent_while_a_pattern_is_pending() {
    let Setup { server, proxy: _proxy, c } = stuck().await;
    c.set("user:1", "old").await;
    c.store.defer_pattern(&c.space, &Glob::new("user:*").unwrap()).unwrap();
    one_wins(&c, "user:1", async {
        pause(ms(100)).await;
        server.command(&["ACL", "SETUSER", "default", "+scan"]);
    })
    .await;
}

/// Another process's loads of 400 keys, that began when there were 20,000 others. They store bit by
/// bit while those are removed, so that each finds the scan somewhere else.
struct Loads {
    client: Client,
    leases: Vec<(String, Lease)>,
}

impl Loads {
    async fn begin(server: &RedisServer) -> Self {
        let client = Client::new(server).await;
        let script = "for i = 1, 20000 do redis.call('SET', 'test:{vx' .. i .. '}', 'v') end";
        server.command(&["EVAL", script, "0"]);
        let mut leases = Vec::new();
        for i in 0..400 {
            let name = format!("load {i}");
            let lease = Client::lead(client.begin(&name).await.unwrap());
            leases.push((name, lease));
        }
        Self { client, leases }
    }

    /// Once nothing is being removed any more, nothing of them is left.
    async fn store_while(self, is_removing: impl Fn() -> bool) {
        for part in self.leases.chunks(4) {
            if is_removing() {
                for (name, lease) in part {
                    self.client.fill(name, "old", lease).await;
                }
            }
        }
        soon("removed", ms(20_000), async || !is_removing()).await;
        for (name, _) in &self.leases {
            assert_eq!(self.client.get(name).await, None, "{name}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_is_loaded_during_a_sweep_outlives_it() {
    let Setup { server, proxy: _proxy, c } = setup().await;
    let loads = Loads::begin(&server).await;
    c.store.defer_pattern(&c.space, &Glob::everything()).unwrap();
    loads.store_while(|| c.store.stats().pending > 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_is_loaded_during_a_clear_outlives_it() {
    let server = RedisServer::start();
    let c = Client::new(&server).await;
    let loads = Loads::begin(&server).await;
    let cache = Cache::on(Arc::new(c.store)).namespace(c.space.as_str());
    let cache = cache.store_timeout(ms(5000)).build().unwrap();
    let clear = tokio::spawn(async move { cache.clear().await });
    loads.store_while(|| !clear.is_finished()).await;
    clear.await.unwrap().unwrap();
}
