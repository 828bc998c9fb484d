//! One process: the reference API, and versions that are read through the cache in other ways.
//!
//! | route | answers |
//! |---|---|
//! | `GET /read/{class}?ids=1,2` | `keys`, `tags`: a line `ID VERSION SOURCE GUARANTEE` for each |
//! | `GET /pages/{id}` | a version, behind the response cache |
//! | `GET /parts/{id}` | a version that is read through the cache, behind the response cache |
//! | `POST /write/{class}/{id}` | raises a version and invalidates; 202 and why while that is pending |
//! | `/api/…` | the reference API |
//!
//! It ends when its standard input does, so that it never outlives who started it.

use std::io::Read as _;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use axum::extract::{Path, RawQuery, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use futures_util::future::try_join_all;
use http::StatusCode;
use tachikoma_cache::{Cache, ErrorKind, Guarantee, Hit, Source as CameBy};
use tachikoma_http_cache::{HttpCache, HttpCacheLayer, PurgeError};
use tachikoma_server::api::{self, ApiOptions, ApiState};

use crate::Node as Options;
use crate::naive::Naive;
use crate::source::Source;

/// Nothing ends by its time within a run.
const TTL: Duration = Duration::from_mins(15);

#[derive(Clone)]
struct Node {
    source: Source,
    cached: Cached,
}

#[derive(Clone)]
enum Cached {
    By { caches: Vec<Cache>, pages: HttpCache },
    Naively(Naive),
}

/// Any failure: the client counts it and goes on.
struct Failed(anyhow::Error);

impl<E: Into<anyhow::Error>> From<E> for Failed {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl IntoResponse for Failed {
    fn into_response(self) -> Response {
        (StatusCode::INTERNAL_SERVER_ERROR, format!("{:#}\n", self.0)).into_response()
    }
}

/// Serves until standard input ends.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    std::thread::spawn(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(serve(options))
}

async fn serve(options: &Options) -> anyhow::Result<()> {
    let url = format!("sqlite://{}", options.database.display());
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", options.port)).await?;
    let caches = options.strategy.caches(&options.redis, &options.query).await?;
    let api_cache = match caches.first() {
        Some(cache) => cache.namespace("api")?,
        None => Cache::memory().build()?,
    };
    let with = ApiOptions { read_ttl: TTL, ..ApiOptions::default() };
    let api = ApiState::open_with(&url, api_cache, with).await.context("the reference API")?;
    let source = Source::open(&options.database).await?;
    let router = if let Some(cache) = caches.first() {
        let layer = HttpCacheLayer::new(cache.namespace("http")?)
            .dependencies(options.strategy.notes_dependencies());
        let cached = Cached::By { caches, pages: layer.handle() };
        let node = Node { source, cached };
        let pages = Router::new().route("/pages/{id}", get(page)).route("/parts/{id}", get(part));
        pages.layer(layer).with_state(node.clone()).merge(routes(node))
    } else {
        let port = options.redis.rsplit_once(':').and_then(|(_, rest)| rest.split('/').next());
        let port = port.and_then(|port| port.parse().ok()).context("the port of Redis")?;
        routes(Node { source, cached: Cached::Naively(Naive::new(port)) })
    };
    axum::serve(listener, router.merge(api::router(api))).await?;
    Ok(())
}

fn routes(node: Node) -> Router {
    Router::new()
        .route("/read/{class}", get(read))
        .route("/write/{class}/{id}", post(write))
        .with_state(node)
}

async fn read(
    State(node): State<Node>,
    Path(class): Path<String>,
    RawQuery(query): RawQuery,
) -> Result<String, Failed> {
    let query = query.unwrap_or_default();
    let ids = query.strip_prefix("ids=").unwrap_or_default().split(',');
    let lines = try_join_all(ids.map(|id| node.read(&class, id))).await?;
    Ok(lines.concat())
}

impl Node {
    /// A row, through a cache.
    async fn through(
        &self,
        cache: &Cache,
        name: &str,
        tag: Option<&str>,
    ) -> anyhow::Result<Hit<u32>> {
        let (source, row) = (self.source.clone(), name.to_owned());
        let load = cache.get_or_load(name, move || async move { source.read(&row).await });
        let hit = load.ttl(TTL).tags(tag).await;
        hit.map_err(|error| anyhow::anyhow!("{name}: {error}"))
    }

    async fn read(&self, class: &str, id: &str) -> anyhow::Result<String> {
        let name = format!("{class}:{id}");
        match &self.cached {
            Cached::By { caches, .. } => {
                let cache = &caches[rand::random_range(0..caches.len())];
                let tag = (class == "tags").then_some(name.as_str());
                let hit = self.through(cache, &name, tag).await?;
                let came_by = match hit.source() {
                    CameBy::Hit => "hit",
                    CameBy::Stale => "stale",
                    _ => "load",
                };
                let guarantee = match hit.guarantee() {
                    Guarantee::Fresh => "fresh",
                    Guarantee::Stale { .. } => "stale",
                    // What is newer than this program holds after some time.
                    _ => "within",
                };
                Ok(format!("{id} {} {came_by} {guarantee}\n", *hit))
            }
            Cached::Naively(naive) => {
                if let Ok(Some(version)) = naive.get(&name).await {
                    return Ok(format!("{id} {version} hit fresh\n"));
                }
                let version = self.source.read(&name).await?;
                let _ = naive.set(&name, version).await;
                Ok(format!("{id} {version} load fresh\n"))
            }
        }
    }

    /// `Some`: why it is pending.
    async fn invalidate(&self, class: &str, name: &str) -> anyhow::Result<Option<String>> {
        let told = match &self.cached {
            Cached::By { caches, .. } if class == "keys" || class == "parts" => {
                caches[0].delete(name).await.map(drop)
            }
            Cached::By { caches, .. } if class == "tags" => caches[0].invalidate_tag(name).await,
            Cached::By { pages, .. } => match pages.purge_tag(name).await {
                Err(PurgeError::Store(error)) => Err(error),
                other => return Ok(other.map(|()| None)?),
            },
            Cached::Naively(naive) => {
                return Ok(naive.remove(name).await.err().map(|error| error.to_string()));
            }
        };
        match told {
            Ok(()) => Ok(None),
            Err(error) if error.kind() == ErrorKind::Pending => {
                Ok(Some(format!("{:#}", anyhow::Error::from(error))))
            }
            Err(error) => Err(error.into()),
        }
    }
}

async fn write(
    State(node): State<Node>,
    Path((class, id)): Path<(String, String)>,
) -> Result<Response, Failed> {
    let name = Arc::new(format!("{class}:{id}"));
    let version = node.source.raise(&name).await?;
    Ok(match node.invalidate(&class, &name).await? {
        None => format!("{version}\n").into_response(),
        Some(why) => (StatusCode::ACCEPTED, why).into_response(),
    })
}

async fn page(State(node): State<Node>, Path(id): Path<String>) -> Result<Response, Failed> {
    let name = format!("pages:{id}");
    let version = node.source.read(&name).await?;
    let headers = [("cache-control", "max-age=900".to_owned()), ("surrogate-key", name)];
    Ok((headers, format!("{version}\n")).into_response())
}

/// Every other one shows what was made of the row, which is cached as well.
async fn part(State(node): State<Node>, Path(id): Path<String>) -> Result<Response, Failed> {
    let Cached::By { caches, .. } = &node.cached else {
        return Ok(StatusCode::NOT_FOUND.into_response());
    };
    let (cache, name) = (caches[0].clone(), format!("parts:{id}"));
    let version = if id.ends_with(['1', '3', '5', '7', '9']) {
        let (node, of, made) = (node.clone(), cache.clone(), format!("made of {name}"));
        let make = move || async move { node.through(&of, &name, None).await.map(|hit| *hit) };
        let made = cache.get_or_load(&made, make).ttl(TTL).await;
        *made.map_err(|error| anyhow::anyhow!("{error}"))?
    } else {
        *node.through(&cache, &name, None).await?
    };
    Ok(([("cache-control", "max-age=900")], format!("{version}\n")).into_response())
}
