//! Many keys at once: one query for all users of a page that are not in the cache.
//!
//! `cargo run -p tachikoma-cache --example batch`

use std::collections::HashMap;
use std::convert::Infallible;
use std::time::Duration;

use tachikoma_cache::Cache;

/// What a database would answer to `SELECT … WHERE id IN (…)`.
async fn query(keys: Vec<String>) -> Result<HashMap<String, String>, Infallible> {
    println!("query: {keys:?}");
    tokio::task::yield_now().await;
    let name = |key: &str| match key {
        "user:1" => Some("Motoko"),
        "user:2" => Some("Batou"),
        "user:3" => Some("Togusa"),
        _ => None,
    };
    let found = keys.into_iter().filter_map(|key| name(&key).map(|name| (key, name.to_owned())));
    Ok(found.collect())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let cache = Cache::memory().max_concurrent_loads(16).build()?;
    let minute = Duration::from_secs(60);

    for page in [["user:1", "user:2"], ["user:2", "user:3"], ["user:3", "user:9"]] {
        let users = cache
            .get_or_load_many(page, |missing| async move { query(missing).await })
            .ttl(minute)
            // That there is no such user is remembered for a shorter time.
            .negative_ttl(Duration::from_secs(5))
            .tags(["users"])
            .await?;
        for (key, user) in page.iter().zip(&users) {
            println!("  {key}: {}", user.as_deref().map_or("nobody", String::as_str));
        }
    }

    cache.set_many([("team:9", "Section 9".to_owned())], minute).await?;
    let page = cache.keys().prefix("user:").limit(10).await?;
    println!("in the cache: {:?}", page.keys);
    println!("deleted: {}", cache.delete_many(&page.keys).await?);
    Ok(())
}
