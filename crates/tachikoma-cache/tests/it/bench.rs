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
    /// What must outlive the test: the store's server.
    _server: Box<dyn Any + Send + Sync>,
}

impl Bench {
    pub(crate) fn memory() -> Self {
        let clock = TestClock::new();
        let store = MemoryStore::new(MemoryConfig::default(), Arc::new(clock.clone())).unwrap();
        Self::of(store, clock, Box::new(()))
    }

    /// On a Redis server of its own.
    pub(crate) async fn redis() -> Self {
        let server = Watched(RedisServer::start());
        let clock = TestClock::new();
        let store = Self::store_on(&server.0, &clock).await;
        Self::of(store, clock, Box::new(server))
    }

    /// The same with a memory tier. The virtual clock makes leaps, so a copy may be shown for long;
    /// that one is shown only while it is known to be good needs a real clock.
    pub(crate) async fn tiered() -> Self {
        let server = RedisServer::start();
        let clock = TestClock::new();
        let tier = TierConfig { freshness: Duration::from_secs(60), ..TierConfig::default() };
        let shared = Arc::new(clock.clone());
        let store = TieredStore::connect(Self::config(&server), tier, shared).await.unwrap();
        Self::of(Arc::new(store), clock, Box::new(server))
    }

    fn of(store: Arc<dyn Store>, clock: TestClock, server: Box<dyn Any + Send + Sync>) -> Self {
        let cache = builder(&store, &clock).build().unwrap();
        Self { cache, clock, store, _server: server }
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
        let store = Self::store_on(server, &clock).await;
        (builder(&store, &clock).build().unwrap(), clock)
    }

    async fn store_on(server: &RedisServer, clock: &TestClock) -> Arc<dyn Store> {
        let clock = Arc::new(clock.clone());
        Arc::new(RedisStore::connect(Self::config(server), clock).await.unwrap())
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
