//! One cache on one real store, with a clock that the test moves.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use tachikoma_cache::store::Store;
use tachikoma_cache::store::memory::{MemoryConfig, MemoryStore};
use tachikoma_cache::store::redis::{RedisConfig, RedisStore};
use tachikoma_cache::store::tiered::{TierConfig, TieredStore};
use tachikoma_cache::{Cache, CacheBuilder, TestClock};
use tachikoma_testkit::RedisServer;

/// The rights that the guide lists: every law holds with them.
const RIGHTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/redis.acl");

/// What a call of the store may take: no law is about that.
const PATIENCE: Duration = Duration::from_secs(60);

/// A cache to test.
pub(crate) struct Bench {
    pub(crate) cache: Cache,
    pub(crate) clock: TestClock,
    store: Arc<dyn Store>,
    kind: Kind,
    /// What must outlive the test: the store's server.
    _server: Box<dyn Any + Send + Sync>,
}

/// Where a bench's entries are, and how other nodes get there.
#[derive(Clone)]
enum Kind {
    Memory,
    Redis(RedisConfig),
    Tiered(RedisConfig),
}

impl Bench {
    pub(crate) fn memory() -> Self {
        Self::in_memory(MemoryConfig::default())
    }

    fn in_memory(config: MemoryConfig) -> Self {
        let clock = TestClock::new();
        let store = MemoryStore::new(config, Arc::new(clock.clone())).unwrap();
        Self::of(Kind::Memory, store, clock, Box::new(()))
    }

    /// On a Redis server of its own.
    pub(crate) async fn redis() -> Self {
        let server = Watched(RedisServer::start());
        let kind = Kind::Redis(Self::config(&server.0));
        Self::at(kind, Box::new(server)).await
    }

    /// The same with a memory tier. The virtual clock makes leaps, so a copy may be shown for long;
    /// that one is shown only while it is known to be good needs a real clock.
    pub(crate) async fn tiered() -> Self {
        let server = RedisServer::start();
        let kind = Kind::Tiered(Self::config(&server));
        Self::at(kind, Box::new(server)).await
    }

    /// One of the same kind in which what was made of entries goes with them.
    pub(crate) async fn with_dependencies(self) -> Self {
        let Self { kind, _server: server, .. } = self;
        match kind {
            Kind::Memory => {
                Self::in_memory(MemoryConfig { dependencies: true, ..MemoryConfig::default() })
            }
            Kind::Redis(config) => Self::at(Kind::Redis(config.dependencies(true)), server).await,
            Kind::Tiered(config) => Self::at(Kind::Tiered(config.dependencies(true)), server).await,
        }
    }

    async fn at(kind: Kind, server: Box<dyn Any + Send + Sync>) -> Self {
        let clock = TestClock::new();
        let store = Self::connect(&kind, &clock).await.unwrap();
        Self::of(kind, store, clock, server)
    }

    /// Another node: a store of its own on the same server. In memory it is the same.
    pub(crate) async fn node(&self) -> Cache {
        let store = Self::connect(&self.kind, &self.clock).await;
        builder(store.as_ref().unwrap_or(&self.store), &self.clock).build().unwrap()
    }

    async fn connect(kind: &Kind, clock: &TestClock) -> Option<Arc<dyn Store>> {
        let clock = Arc::new(clock.clone());
        match kind.clone() {
            Kind::Memory => None,
            Kind::Redis(config) => {
                Some(Arc::new(RedisStore::connect(config, clock).await.unwrap()))
            }
            Kind::Tiered(config) => {
                let freshness = Duration::from_secs(60);
                let tier = TierConfig { freshness, ..TierConfig::default() };
                Some(Arc::new(TieredStore::connect(config, tier, clock).await.unwrap()))
            }
        }
    }

    fn of(
        kind: Kind,
        store: Arc<dyn Store>,
        clock: TestClock,
        server: Box<dyn Any + Send + Sync>,
    ) -> Self {
        let cache = builder(&store, &clock).build().unwrap();
        Self { cache, clock, store, kind, _server: server }
    }

    /// Another cache on the same store, with settings of its own.
    pub(crate) fn with(
        &self,
        settings: impl FnOnce(CacheBuilder<Arc<dyn Store>>) -> CacheBuilder<Arc<dyn Store>>,
    ) -> Cache {
        settings(builder(&self.store, &self.clock)).build().unwrap()
    }

    /// A cache on this server, with a clock of its own.
    pub(crate) async fn on(server: &RedisServer) -> (Cache, TestClock) {
        let clock = TestClock::new();
        let kind = Kind::Redis(Self::config(server));
        let store = Self::connect(&kind, &clock).await.unwrap();
        (builder(&store, &clock).build().unwrap(), clock)
    }

    fn config(server: &RedisServer) -> RedisConfig {
        let (config, _) = RedisConfig::from_url(&server.url_of_user_in(RIGHTS)).unwrap();
        // The virtual clock does not run while a busy machine makes an operation wait.
        config.timeout(PATIENCE).connect_timeout(PATIENCE).lease(6 * PATIENCE)
    }

    pub(crate) fn advance(&self, millis: u64) {
        self.clock.advance(Duration::from_millis(millis));
    }
}

/// A server that must not have refused anything for want of rights when the test ends (DS-35).
struct Watched(RedisServer);

impl Drop for Watched {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let refused = self.0.command(&["ACL", "LOG"]);
            assert!(refused.array().is_empty(), "{RIGHTS} is not enough: {refused:?}");
        }
    }
}

fn builder(store: &Arc<dyn Store>, clock: &TestClock) -> CacheBuilder<Arc<dyn Store>> {
    Cache::on(Arc::clone(store)).clock(Arc::new(clock.clone())).store_timeout(PATIENCE)
}

/// Writes each law once and runs it on every store, as `memory::law`, `redis::law` and
/// `tiered::law`.
macro_rules! laws {
    ($($(#[$doc:meta])* async fn $law:ident($bench:ident) $body:block)*) => {
        $($(#[$doc])* async fn $law($bench: crate::bench::Bench) $body)*

        mod memory {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $law() {
                super::$law(crate::bench::Bench::memory()).await;
            })*
        }

        mod redis {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $law() {
                super::$law(crate::bench::Bench::redis().await).await;
            })*
        }

        mod tiered {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $law() {
                super::$law(crate::bench::Bench::tiered().await).await;
            })*
        }
    };
}
