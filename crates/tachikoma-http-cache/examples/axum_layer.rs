//! An axum app behind the response cache.
//!
//! ```text
//! cargo run -p tachikoma-http-cache --example axum_layer
//! ```
//!
//! It prints the `curl` lines that show a miss, a hit, a variant, a 304 and a purge.

use std::error::Error;

use axum::{
    Router,
    extract::{Path, State},
    http::{HeaderMap, StatusCode},
    response::IntoResponse,
    routing::{get, post},
};
use tachikoma_cache::Cache;
use tachikoma_http_cache::{HttpCache, HttpCacheLayer};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let cache = Cache::memory().max_bytes(64 << 20).build()?;
    let layer = HttpCacheLayer::new(cache);
    let http_cache = layer.handle();

    let pages = Router::new()
        .route("/missions/{id}", get(mission))
        .route("/greeting", get(greeting))
        .route("/account", get(account))
        .layer(layer);
    // Purge and statistics stay outside the cache; put them on a listener of their own.
    let admin = Router::new()
        .route("/purge/{tag}", post(purge))
        .route("/stats", get(stats))
        .with_state(http_cache);

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    println!("Listening on {url}\nTry each of these twice:\n");
    println!("  curl -i {url}/missions/42                       # a miss, then a hit");
    println!("  curl -i {url}/missions/42 -H 'If-None-Match: \"mission-42\"'   # 304");
    println!("  curl -i {url}/greeting -H 'Accept-Language: ja' # one variant per language");
    println!("  curl -i {url}/account                           # private: never stored");
    println!("  curl -i -X POST {url}/purge/missions            # the missions are fetched anew");
    println!("  curl {url}/stats");
    axum::serve(listener, pages.merge(admin)).await?;
    Ok(())
}

async fn mission(Path(id): Path<u32>) -> impl IntoResponse {
    let headers = [
        ("cache-control", "max-age=60, stale-while-revalidate=30".to_owned()),
        ("etag", format!("\"mission-{id}\"")),
        ("surrogate-key", format!("missions mission:{id}")),
    ];
    (headers, format!("mission {id}, read from the database\n"))
}

async fn greeting(headers: HeaderMap) -> impl IntoResponse {
    let is_japanese =
        headers.get("accept-language").is_some_and(|wanted| wanted.as_bytes().starts_with(b"ja"));
    let text = if is_japanese { "こんにちは\n" } else { "hello\n" };
    ([("cache-control", "max-age=60"), ("vary", "accept-language")], text)
}

async fn account() -> impl IntoResponse {
    ([("cache-control", "private, max-age=60")], "yours alone\n")
}

async fn purge(State(cache): State<HttpCache>, Path(tag): Path<String>) -> impl IntoResponse {
    match cache.purge_tag(&tag).await {
        Ok(()) => (StatusCode::OK, "purged\n".to_owned()),
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")),
    }
}

async fn stats(State(cache): State<HttpCache>) -> String {
    format!("{:#?}\n", cache.stats())
}
