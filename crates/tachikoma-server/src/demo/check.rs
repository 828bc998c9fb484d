//! Types the demonstration's own lines once and says whether they show what they promise.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use axum::body::Body;
use http::{HeaderMap, Uri};
use http_body_util::{BodyExt as _, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

use super::Lines;
use crate::print;

/// How long one answer may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// The largest answer that is read.
const MAX_ANSWER: usize = 1 << 20;

/// Asks for the page and the mission twice each, and for the counters.
pub(super) async fn check(lines: &Lines) -> anyhow::Result<()> {
    let client = Client::builder(TokioExecutor::new()).build_http();
    for (url, name, miss, hit) in [
        (lines.page(), "cache-status", "fwd=uri-miss", "hit"),
        (lines.mission(), "server-timing", "desc=load", "desc=hit"),
    ] {
        for (which, expected) in [("miss", miss), ("hit", hit)] {
            let (headers, _) = get(&client, &url).await?;
            let said = headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("nothing");
            print(&format!("{which:<5} {url}  {name}: {said}\n"));
            let is_there = said.split([';', ',']).any(|part| part.trim() == expected);
            ensure!(is_there, "{url}: {name} is {said:?}, not a {which}");
        }
    }
    let (_, body) = get(&client, &lines.stats()).await?;
    let stats: Value = serde_json::from_slice(&body).context("the counters are not JSON")?;
    for cache in ["cache", "response_cache"] {
        let hits = stats[cache]["hits"].as_u64().unwrap_or(0);
        print(&format!("stats {}  {cache}: {hits} hits\n", lines.stats()));
        ensure!(hits > 0, "the hit was not counted in {cache}");
    }
    Ok(())
}

async fn get(
    client: &Client<HttpConnector, Body>,
    url: &str,
) -> anyhow::Result<(HeaderMap, Vec<u8>)> {
    let uri: Uri = url.parse()?;
    let exchange = async {
        let response = client.get(uri).await?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, MAX_ANSWER).collect().await;
        let body = body.map_err(|error| anyhow::anyhow!("the answer broke off: {error}"))?;
        ensure!(head.status.is_success(), "{}", head.status);
        Ok((head.headers, body.to_bytes().to_vec()))
    };
    let answered = tokio::time::timeout(PATIENCE, exchange).await;
    answered.with_context(|| format!("{url}: no answer"))?.with_context(|| url.to_owned())
}
