//! The table of loads at rest, which only the inside sees (DS-31).

use std::time::Duration;

use crate::{Cache, LoadError, Loaded};

#[tokio::test]
async fn the_table_is_empty_when_all_loads_have_ended() {
    let cache = Cache::memory().load_timeout(Duration::from_millis(20)).build().unwrap();
    let keys = std::env::var("TACHIKOMA_KEYS").ok().and_then(|keys| keys.parse().ok());
    for i in 0..keys.unwrap_or(10_000) {
        let key = i.to_string();
        match i % 6 {
            0 => drop(cache.get_or_load(&key, move || async move { Ok::<_, ()>(i) }).await),
            1 => drop(cache.get_or_load(&key, || async { Err::<(), _>("no") }).await),
            2 => {
                let load = cache.get_or_load(&key, || async { panic!("as the test wants") });
                let outcome: Result<crate::Hit<u8>, LoadError<()>> = load.await;
                assert!(matches!(outcome, Err(LoadError::Panicked)), "{outcome:?}");
            }
            3 => drop(
                cache.get_or_load_optional(&key, || async { Ok::<Option<u8>, ()>(None) }).await,
            ),
            4 => drop(
                cache
                    .get_or_load_with(&key, |_| async { Ok::<_, ()>(Loaded::<u8>::not_modified()) })
                    .await,
            ),
            _ => {
                // Dropped after its first poll: the load goes on without it.
                let load = cache.get_or_load(&key, move || async move { Ok::<_, ()>(i) });
                let _ = tokio::time::timeout(Duration::ZERO, load).await;
            }
        }
    }
    for _ in 0..1000 {
        if cache.loads_under_way() == 0 {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("{} loads are left in the table", cache.loads_under_way());
}
