//! `POST /purge`: removes what a key, a pattern, a tag or a URL names, and says how much it was.
//!
//! A key and a pattern are those of the data cache, a URL is one of the response cache, a tag is
//! looked for in both. What the store could not be told yet is kept and retried by the cache; the
//! answer is then 202, not 200.

use std::collections::HashSet;
use std::hash::{BuildHasher as _, RandomState};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse as _, Json};
use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body::Body as _;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde::{Deserialize, Serialize};
use tachikoma_cache::store::{Cursor, Want};
use tachikoma_cache::{Cache, Error, ErrorKind, Pattern, Removed};
use tachikoma_http_cache::PurgeError;

use super::snapshot::Sources;
use crate::listener::Peer;
use crate::problem::problem;

/// The largest body: a key and a pattern are at most a few KiB.
const MAX_BODY: usize = 64 << 10;

/// How long the whole body may take.
const BODY_TIME: Duration = Duration::from_secs(5);

/// Keys that a dry run asks for at once.
const PAGE: usize = 1000;

/// How long a tag's purge may count before: what takes longer is purged uncounted (`null`).
const COUNT_TIME: Duration = Duration::from_secs(2);

/// What is asked for: exactly one of the four names.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    key: Option<String>,
    pattern: Option<String>,
    tag: Option<String>,
    url: Option<String>,
    #[serde(default)]
    dry_run: bool,
}

/// What is named.
#[derive(Debug)]
enum Target {
    Key(String),
    Pattern(String),
    Tag(String),
    Url(String),
}

/// What was, or would be, removed. `null`: the tier is not there, or does not count.
#[derive(Debug, Default, Serialize)]
struct Purged {
    dry_run: bool,
    /// Whether the store has yet to be told; it is being retried.
    pending: bool,
    removed: Tiers,
}

#[derive(Debug, Default, Serialize)]
struct Tiers {
    memory: Option<u64>,
    redis: Option<u64>,
}

impl From<Removed> for Tiers {
    fn from(removed: Removed) -> Self {
        Self { memory: removed.memory, redis: removed.redis }
    }
}

pub(super) async fn purge(
    State(sources): State<Arc<Sources>>,
    request: Request<Body>,
) -> Response<Body> {
    let peer = request.extensions().get::<Peer>().map(|peer| peer.0.ip());
    let (target, dry_run) = match asked(request).await {
        Ok(asked) => asked,
        Err(refused) => return *refused,
    };
    let done =
        if dry_run { count(&sources, &target).await } else { remove(&sources, &target).await };
    let purged = match done {
        Ok(removed) => Purged { dry_run, pending: false, removed: removed.into() },
        Err(Failed::Cache(error)) if error.kind() == ErrorKind::Pending => {
            Purged { dry_run, pending: true, removed: Tiers::default() }
        }
        Err(failed) => return failed.response(),
    };
    audit(peer, &target, &purged);
    let status = if purged.pending { StatusCode::ACCEPTED } else { StatusCode::OK };
    (status, Json(purged)).into_response()
}

/// Who removed what: the line that is looked for when something is gone.
fn audit(peer: Option<IpAddr>, target: &Target, purged: &Purged) {
    let peer = peer.map(|peer| peer.to_string());
    tracing::info!(peer, target_of = ?target, result = ?purged, "purge");
}

type Refused = Box<Response<Body>>;

fn refused<T>(status: StatusCode, detail: &str) -> Result<T, Refused> {
    Err(Box::new(problem(status, detail)))
}

async fn asked(request: Request<Body>) -> Result<(Target, bool), Refused> {
    let (parts, body) = request.into_parts();
    if !is_json(&parts.headers) {
        let detail = "The body must be application/json, not encoded.";
        return refused(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail);
    }
    let bytes = read(body).await?;
    let asked: Asked = match serde_json::from_slice(&bytes) {
        Ok(asked) => asked,
        Err(error) => {
            return refused(StatusCode::BAD_REQUEST, &format!("The body is wrong: {error}."));
        }
    };
    let target = match (asked.key, asked.pattern, asked.tag, asked.url) {
        (Some(key), None, None, None) => Target::Key(key),
        (None, Some(pattern), None, None) => Target::Pattern(pattern),
        (None, None, Some(tag), None) => Target::Tag(tag),
        (None, None, None, Some(url)) => Target::Url(url),
        _ => {
            let detail = "Exactly one of key, pattern, tag and url is needed.";
            return refused(StatusCode::BAD_REQUEST, detail);
        }
    };
    Ok((target, asked.dry_run))
}

/// A form of another site cannot say `application/json` without asking first.
fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    kind.eq_ignore_ascii_case("application/json") && !headers.contains_key(CONTENT_ENCODING)
}

async fn read(body: Body) -> Result<Bytes, Refused> {
    const TOO_LARGE: &str = "The body is larger than 64 KiB.";
    // A length that is announced is refused before anything of it is read.
    if body.size_hint().lower() > MAX_BODY as u64 {
        return refused(StatusCode::PAYLOAD_TOO_LARGE, TOO_LARGE);
    }
    let read = tokio::time::timeout(BODY_TIME, Limited::new(body, MAX_BODY).collect()).await;
    match read {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            refused(StatusCode::PAYLOAD_TOO_LARGE, TOO_LARGE)
        }
        Ok(Err(_)) => refused(StatusCode::BAD_REQUEST, "The body ended early."),
        Err(_) => refused(StatusCode::REQUEST_TIMEOUT, "The body did not come in time."),
    }
}

/// Why nothing was removed.
enum Failed {
    Cache(Error),
    Url(PurgeError),
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self::Cache(error)
    }
}

impl From<PurgeError> for Failed {
    fn from(error: PurgeError) -> Self {
        match error {
            PurgeError::Store(error) => Self::Cache(error),
            error => Self::Url(error),
        }
    }
}

impl Failed {
    fn response(self) -> Response<Body> {
        match self {
            Self::Url(error) => problem(StatusCode::BAD_REQUEST, &format!("{error}.")),
            Self::Cache(error) => {
                let status = match error.kind() {
                    ErrorKind::InvalidKey | ErrorKind::InvalidPattern | ErrorKind::InvalidTag => {
                        StatusCode::BAD_REQUEST
                    }
                    kind if kind.is_transient() => StatusCode::SERVICE_UNAVAILABLE,
                    _ => StatusCode::INTERNAL_SERVER_ERROR,
                };
                problem(status, &format!("Nothing was removed: {error}."))
            }
        }
    }
}

async fn remove(sources: &Sources, target: &Target) -> Result<Removed, Failed> {
    match target {
        Target::Key(key) => Ok(sources.cache.entries().remove(&[key]).await?),
        Target::Pattern(pattern) => {
            Ok(sources.cache.delete_pattern(&Pattern::raw(pattern)?).await?)
        }
        Target::Tag(tag) => {
            // Before, since nobody sees them after; but a count never holds a purge up for long.
            let counted = tokio::time::timeout(COUNT_TIME, tagged(sources, tag)).await;
            // Both are told before either may fail: a caller who asks again asks for both.
            let (data, responses) =
                tokio::join!(sources.cache.invalidate_tag(tag), sources.responses.purge_tag(tag));
            data?;
            responses?;
            Ok(counted.ok().and_then(Result::ok).map(|n| sources.in_tier(n)).unwrap_or_default())
        }
        Target::Url(url) => Ok(sources.responses.purge_url(url).await?),
    }
}

async fn count(sources: &Sources, target: &Target) -> Result<Removed, Failed> {
    let found = match target {
        Target::Key(key) => u64::from(sources.cache.exists(key).await?),
        Target::Pattern(pattern) => matching(&sources.cache, &Pattern::raw(pattern)?).await?,
        Target::Tag(tag) => tagged(sources, tag).await?,
        Target::Url(url) => sources.responses.count_url(url).await?,
    };
    Ok(sources.in_tier(found))
}

/// Counts what has a tag, values and responses.
async fn tagged(sources: &Sources, tag: &str) -> Result<u64, Failed> {
    let values = sources.cache.entries().count_tagged(tag).await?;
    Ok(values + sources.responses.count_tag(tag).await?)
}

/// Counts the keys that match. A scan may show one twice; a hash is enough to tell.
async fn matching(cache: &Cache, pattern: &Pattern) -> Result<u64, Error> {
    let (entries, hasher) = (cache.entries(), RandomState::new());
    let mut seen = HashSet::new();
    let mut at = Some(Cursor::START);
    while let Some(cursor) = at {
        let page = entries.scan(pattern, cursor, Want::Entries, PAGE).await?;
        seen.extend(page.items.iter().map(|item| hasher.hash_one(&item.name)));
        at = page.next;
    }
    Ok(seen.len() as u64)
}
