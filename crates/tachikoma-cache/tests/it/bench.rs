//! One cache on one real store, with a clock that the test moves.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use tachikoma_cache::store::redis::{RedisConfig, RedisStore};
use tachikoma_cache::{Cache, TestClock};
use tachikoma_testkit::RedisServer;

/// A cache to test.
pub(crate) struct Bench {
    pub(crate) cache: Cache,
    pub(crate) clock: TestClock,
    /// What must outlive the test: the store's server.
    _server: Box<dyn Any + Send + Sync>,
}

impl Bench {
    pub(crate) fn memory() -> Self {
        let clock = TestClock::new();
        let cache = Cache::memory().clock(Arc::new(clock.clone())).build().unwrap();
        Self { cache, clock, _server: Box::new(()) }
    }

    /// On a Redis server of its own.
    pub(crate) async fn redis() -> Self {
        let server = RedisServer::start();
        let (cache, clock) = Self::on(&server).await;
        Self { cache, clock, _server: Box::new(server) }
    }

    /// A cache on this server, with a clock of its own.
    pub(crate) async fn on(server: &RedisServer) -> (Cache, TestClock) {
        let clock = TestClock::new();
        let (config, _) = RedisConfig::from_url(&server.url()).unwrap();
        // The virtual clock does not run while a busy machine makes an operation wait.
        let config = config.timeout(Duration::from_secs(10));
        let store = RedisStore::connect(config, Arc::new(clock.clone())).await.unwrap();
        let cache = Cache::on(Arc::new(store))
            .clock(Arc::new(clock.clone()))
            .store_timeout(Duration::from_secs(10))
            .build()
            .unwrap();
        (cache, clock)
    }

    pub(crate) fn advance(&self, millis: u64) {
        self.clock.advance(Duration::from_millis(millis));
    }
}

/// Writes each law once and runs it on every store, as `memory::law` and `redis::law`.
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
    };
}
