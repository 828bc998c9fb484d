//! A source that is slow and then away: `cargo run -p tachikoma-cache --example fail_safe`.
//!
//! Callers get a value all the time, and each says how good it is.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tachikoma_cache::{Cache, Clock, Guarantee, SystemClock};

/// A source with a bad day: it works, then it is slow, then it fails, then it works again.
async fn exchange_rate(asked: Arc<AtomicU32>) -> Result<f64, std::io::Error> {
    match asked.fetch_add(1, Ordering::Relaxed) {
        0 => Ok(1.08),
        1 => {
            SystemClock::new().sleep(Duration::from_millis(300)).await;
            Ok(1.09)
        }
        2 => Err(std::io::Error::other("the source is away")),
        _ => Ok(1.10),
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let cache = Cache::memory()
        .default_ttl(Duration::from_millis(200))
        .stale_if_error(Duration::from_secs(60))
        .soft_timeout(Duration::from_millis(50))
        .retry_after(Duration::from_millis(300))
        .build()?;
    let asked = Arc::new(AtomicU32::new(0));
    for _ in 0..16 {
        let asked = Arc::clone(&asked);
        let rate = cache.get_or_load("EUR/USD", || exchange_rate(asked)).await?;
        match rate.guarantee() {
            Guarantee::Stale { reason, age } => println!("{:.2}  stale: {reason}, {age:?}", *rate),
            _ => println!("{:.2}  {:?}", *rate, rate.source()),
        }
        cache.clock().sleep(Duration::from_millis(100)).await;
    }
    let stats = cache.stats();
    println!("{} loads, {} of them failed", stats.loads, stats.load_failures);
    println!("{} answers were stale", stats.stale_hits);
    Ok(())
}
