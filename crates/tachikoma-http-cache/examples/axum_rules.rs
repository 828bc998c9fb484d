//! A site whose operator knows more than its responses say: rules by path, purged by tag,
//! explained.
//!
//! `cargo run -p tachikoma-http-cache --example axum_rules`

use std::time::Duration;

use axum::{Router, body::Body, http::Request, routing::get};
use tachikoma_cache::Cache;
use tachikoma_http_cache::{HttpCacheLayer, Purge, Rule};
use tower::ServiceExt as _;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let cache = Cache::memory().max_bytes(16 << 20).build()?;
    let layer = HttpCacheLayer::new(cache)
        // Who came from which campaign is nobody's business behind this line.
        .ignore_query(["utm_*", "gclid"])?
        .rule(Rule::path("/news/*")?.ttl(Duration::from_secs(60)).tag("news")?)?
        .rule(Rule::prefix("/static/")?.ttl(Duration::from_secs(3_600)).ignore_cookies())?
        .rule(Rule::path("/news/live*")?.bypass())?;
    let http_cache = layer.handle();
    let app: Router = Router::new()
        .route("/news/{id}", get(|| async { "what happened" }))
        .route("/account", get(|| async { ([("cache-control", "private")], "who you are") }))
        .layer(layer);

    for path in ["/news/1?utm_source=mail", "/news/1", "/news/live", "/account"] {
        let request = Request::get(path).header("host", "shop.test").body(Body::empty())?;
        let response = app.clone().oneshot(request).await?;
        println!("{path:26} {:?}", response.headers()["cache-status"]);
    }

    let removed = http_cache.purge(&Purge::prefix("http://shop.test/news/")).await?;
    println!("purged: {} in memory", removed.memory.unwrap_or(0));

    let asked = Request::get("/account").header("host", "shop.test").body(())?;
    let answer = axum::http::Response::builder().header("cache-control", "private").body(())?;
    print!("{}", http_cache.explain_answer(&asked, &answer).await);
    Ok(())
}
