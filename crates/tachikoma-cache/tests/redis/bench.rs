//! One store on one server of its own.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tachikoma_cache::clock::Deadline;
use tachikoma_cache::entry::{CodecId, Entry, Meta, TypeTag};
use tachikoma_cache::glob::Glob;
use tachikoma_cache::invalidation::{Group, How, Marks};
use tachikoma_cache::key::Key;
use tachikoma_cache::store::redis::{RedisConfig, RedisStore};
use tachikoma_cache::store::{Begun, Cursor, Cx, Item, Lease, Removed, Store, Want, When, Written};
use tachikoma_cache::{Clock, Error, Guarantee, Health, Namespace, StaleReason, SystemClock, Time};
use tachikoma_testkit::{FaultProxy, RedisServer, Stopwatch, allowed};

pub(crate) const MINUTE: Duration = Duration::from_secs(60);

/// Softly invalidated within its time.
pub(crate) const INVALIDATED: Option<Guarantee> =
    Some(Guarantee::Stale { reason: StaleReason::Invalidated, age: Duration::ZERO });

/// A duration in milliseconds.
pub(crate) fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// The rights that the guide lists. Most tests of this suite run with them, and so show that they
/// are enough.
const RIGHTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/redis.acl");

/// The user of that file.
pub(crate) fn shipped_user() -> String {
    let text = std::fs::read_to_string(RIGHTS).unwrap();
    text.lines().find(|line| line.starts_with("user tachikoma ")).unwrap().to_owned()
}

pub(crate) fn config(server: &RedisServer) -> RedisConfig {
    // A test machine may be slow; a test that measures time sets its own.
    RedisConfig::from_url(&server.url()).unwrap().0.timeout(Duration::from_secs(5))
}

/// The settings that a user gets, through a proxy that can break.
pub(crate) fn through(proxy: &FaultProxy) -> RedisConfig {
    RedisConfig::from_url(&format!("redis://127.0.0.1:{}/0", proxy.port())).unwrap().0
}

/// Calls with short names, each in the namespace of the tests.
pub(crate) struct Client {
    pub(crate) store: RedisStore,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) space: Namespace,
    pub(crate) budget: Duration,
}

impl Client {
    pub(crate) async fn new(server: &RedisServer) -> Self {
        let config = RedisConfig::from_url(&server.url_of_user_in(RIGHTS)).unwrap().0;
        let config = config.timeout(Duration::from_secs(5));
        Self::with(config, Arc::new(SystemClock::new())).await
    }

    pub(crate) async fn with(config: RedisConfig, clock: Arc<dyn Clock>) -> Self {
        let store = RedisStore::connect(config, Arc::clone(&clock)).await.unwrap();
        let space = Namespace::new("test").unwrap();
        Self { store, clock, space, budget: Duration::from_secs(5) }
    }

    pub(crate) fn cx(&self) -> Cx {
        Cx { now: self.clock.now(), deadline: Deadline::after(self.budget) }
    }

    pub(crate) fn key<'a>(&'a self, name: &'a str) -> Key<'a> {
        Key::new(&self.space, name).unwrap()
    }

    pub(crate) fn meta(&self, ttl: Option<Duration>) -> Meta {
        let now = self.clock.now();
        let expiry = ttl.map(|ttl| now.saturating_add(ttl));
        Meta {
            soft_expiry: expiry,
            hard_expiry: expiry,
            ..Meta::new(now, TypeTag::named("text"), CodecId::Json)
        }
    }

    pub(crate) fn entry(&self, value: &str, ttl: Option<Duration>) -> Entry {
        Entry::from_bytes(self.meta(ttl), Bytes::from(value.to_owned()))
    }

    /// An entry of these tags, by the counters of now or of a lease.
    pub(crate) async fn tagged(&self, value: &str, tags: &[&str], lease: Option<&Lease>) -> Entry {
        let at = match lease {
            Some(lease) => lease.groups,
            None => self.store.groups().snapshot(&self.space, &self.cx()).await.unwrap(),
        };
        let marks = Marks::new(&Group::tags(tags).unwrap(), at);
        let meta = Meta { marks, ..self.meta(Some(MINUTE)) };
        Entry::from_bytes(meta, Bytes::from(value.to_owned()))
    }

    pub(crate) async fn write(
        &self,
        name: &str,
        entry: Entry,
        when: When<'_>,
    ) -> Result<Written, Error> {
        self.store.write(&self.key(name), entry, when, &self.cx()).await
    }

    pub(crate) async fn set(&self, name: &str, value: &str) {
        let entry = self.entry(value, Some(MINUTE));
        assert_eq!(self.write(name, entry, When::Always).await.unwrap(), Written::Stored);
    }

    pub(crate) async fn read(
        &self,
        names: &[&str],
    ) -> Result<Vec<Option<(Entry, Guarantee)>>, Error> {
        let keys: Vec<_> = names.iter().map(|name| self.key(name)).collect();
        self.store.read(&keys, &self.cx()).await
    }

    pub(crate) async fn try_get(&self, name: &str) -> Result<Option<String>, Error> {
        let found = self.read(&[name]).await?.remove(0);
        Ok(found.map(|(entry, _)| text(&entry)))
    }

    pub(crate) async fn get(&self, name: &str) -> Option<String> {
        self.try_get(name).await.unwrap()
    }

    pub(crate) async fn guarantee(&self, name: &str) -> Option<Guarantee> {
        self.read(&[name]).await.unwrap().remove(0).map(|(_, guarantee)| guarantee)
    }

    pub(crate) async fn begin(&self, name: &str) -> Result<Begun, Error> {
        let keys = [self.key(name)];
        Ok(self.store.begin(&keys, &self.cx()).await?.remove(0))
    }

    #[track_caller]
    #[expect(clippy::needless_pass_by_value, reason = "it is what a call returned")]
    pub(crate) fn lead(begun: Begun) -> Lease {
        begun.lease.expect("it should lead")
    }

    pub(crate) async fn fill(&self, name: &str, value: &str, lease: &Lease) -> Written {
        let entry = self.entry(value, Some(MINUTE));
        self.write(name, entry, When::Leased(lease)).await.unwrap()
    }

    pub(crate) async fn try_remove(&self, names: &[&str]) -> Result<Removed, Error> {
        let keys: Vec<_> = names.iter().map(|name| self.key(name)).collect();
        self.store.remove(&keys, &self.cx()).await
    }

    pub(crate) async fn remove(&self, names: &[&str]) -> u64 {
        self.try_remove(names).await.unwrap().redis.unwrap()
    }

    pub(crate) async fn touch(&self, name: &str, expiry: Option<Time>) -> bool {
        self.store.touch(&self.key(name), expiry, &self.cx()).await.unwrap()
    }

    pub(crate) async fn invalidate(&self, tags: &[&str], how: How) -> Result<(), Error> {
        let groups = Group::tags(tags).unwrap();
        self.store.groups().invalidate(&self.space, &groups, how, &self.cx()).await
    }

    pub(crate) async fn scan(&self, glob: &str, want: Want) -> Vec<Item> {
        let glob = Glob::new(glob).unwrap();
        let (mut items, mut at) = (Vec::new(), Cursor::START);
        loop {
            let page = self.store.scan(&self.space, at, &glob, want, 10, &self.cx()).await.unwrap();
            items.extend(page.items);
            let Some(next) = page.next else { break };
            at = next;
        }
        items.sort_by(|a, b| a.name.cmp(&b.name));
        items.dedup_by(|a, b| a.name == b.name);
        items
    }

    pub(crate) async fn names(&self, glob: &str) -> Vec<String> {
        self.scan(glob, Want::Names).await.into_iter().map(|item| item.name).collect()
    }
}

pub(crate) fn text(entry: &Entry) -> String {
    String::from_utf8(entry.bytes().unwrap().to_vec()).unwrap()
}

/// Waits for what the store does by itself; panics after what `limit` allows, else says how long it
/// took.
#[track_caller]
pub(crate) fn soon(
    what: &'static str,
    limit: Duration,
    mut done: impl AsyncFnMut() -> bool,
) -> impl Future<Output = Duration> {
    let watch = Stopwatch::start();
    async move {
        let (mut most, mut is_busy) = (limit, false);
        while !done().await {
            if watch.elapsed() >= most && !is_busy {
                (most, is_busy) = (allowed(limit, watch.elapsed() + ms(1)), true);
            }
            assert!(watch.elapsed() < most, "{what}: not within {most:?} (quiet: {limit:?})");
            pause(ms(2)).await;
        }
        watch.elapsed()
    }
}

/// Waits in real time: what is tested is that nothing happens meanwhile.
pub(crate) async fn pause(duration: Duration) {
    tokio::time::timeout(duration, std::future::pending::<()>()).await.unwrap_err();
}

/// Waits until the store has noticed that its server is back. How soon it must, the fault matrix
/// measures; so with [`until_down`].
pub(crate) async fn until_up(client: &Client) {
    soon("up", ms(20_000), async || client.store.health() == Health::Up).await;
}

pub(crate) async fn until_down(client: &Client) {
    soon("down", ms(20_000), async || client.store.health() != Health::Up).await;
}
