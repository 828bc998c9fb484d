//! Hears what a cache does: `cargo run -p tachikoma-cache --example events`.
//!
//! A listener is a function. Here it writes one line for each event and keeps its own count of
//! what was evicted; in a server it would feed a log or a trace.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tachikoma_cache::Cache;
use tachikoma_cache::events::EventKind;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let evicted = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&evicted);
    let cache = Cache::memory()
        .max_entries(2)
        .on_event(move |event| {
            println!("{:<12} {}", event.kind.label(), event.key.unwrap_or("-"));
            if let EventKind::Evicted { bytes, .. } = event.kind {
                counter.fetch_add(bytes.unwrap_or(0), Ordering::Relaxed);
            }
        })
        .build()?;

    for name in ["motoko", "batou", "togusa"] {
        let load = move || async move { Ok::<_, std::io::Error>(name.to_uppercase()) };
        cache.get_or_load(name, load).ttl(Duration::from_secs(60)).tags(["section-9"]).await?;
    }
    cache.get::<String>("togusa").await?;
    cache.invalidate_tag("section-9").await?;
    cache.get::<String>("togusa").await?;
    println!("{} bytes made room for others", evicted.load(Ordering::Relaxed));
    Ok(())
}
