//! Pages that go when what they show is changed: no handler names a page.
//!
//! ```text
//! cargo run -p tachikoma-http-cache --example dependencies
//! ```
//!
//! It renders a page of two missions, changes one, and shows which pages were rendered anew.
// xtask: run

use std::{error::Error, time::Duration};

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::{Path, State},
    http::Request,
    response::IntoResponse,
    routing::get,
};
use tachikoma_cache::Cache;
use tachikoma_http_cache::HttpCacheLayer;
use tower::ServiceExt as _;

const MINUTE: Duration = Duration::from_secs(60);

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // On several nodes: Cache::connect("redis://…?memory=on&dependencies=true").
    let data = Cache::memory().dependencies(true).build()?;
    let layer = HttpCacheLayer::new(data.namespace("http")?).dependencies(true);
    let app = Router::new()
        .route("/missions/{id}", get(mission))
        .route("/missions", get(missions))
        .with_state(data.clone())
        .layer(layer);

    data.set("mission:1", "Infiltrate".to_owned(), MINUTE).await?;
    data.set("mission:2", "Escort".to_owned(), MINUTE).await?;
    let urls = ["/missions", "/missions/1", "/missions/2"];
    println!("At first:");
    show(&app, &urls).await?;
    println!("Again:");
    let hits = show(&app, &urls).await?;
    assert_eq!(hits, 3, "all from the cache");

    data.set("mission:1", "Retreat".to_owned(), MINUTE).await?;
    println!("After mission 1 was changed:");
    let hits = show(&app, &urls).await?;
    assert_eq!(hits, 1, "the page of mission 2 alone");
    Ok(())
}

async fn mission(State(data): State<Cache>, Path(id): Path<u32>) -> impl IntoResponse {
    ([("cache-control", "max-age=600")], title(&data, id).await)
}

async fn missions(State(data): State<Cache>) -> impl IntoResponse {
    let text = format!("{}, {}", title(&data, 1).await, title(&data, 2).await);
    ([("cache-control", "max-age=600")], text)
}

async fn title(data: &Cache, id: u32) -> String {
    let found = data.get::<String>(&format!("mission:{id}")).await.ok().flatten();
    found.map_or_else(|| "none".to_owned(), |title| title.as_str().to_owned())
}

/// Prints what these URLs bring; how many of them were stored.
async fn show(app: &Router, urls: &[&str]) -> Result<usize, Box<dyn Error>> {
    let mut hits = 0;
    for url in urls {
        let request = Request::get(*url).header("host", "localhost").body(Body::empty())?;
        let response = app.clone().oneshot(request).await?;
        let status = response.headers().get("cache-status").cloned();
        let said = status.as_ref().and_then(|said| said.to_str().ok()).unwrap_or("-").to_owned();
        hits += usize::from(said.contains(";hit"));
        let body = to_bytes(response.into_body(), 1 << 16).await?;
        println!("  {url:<12} {:<20} {said}", String::from_utf8_lossy(&body));
    }
    Ok(hits)
}
