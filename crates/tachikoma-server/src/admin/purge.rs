//! `POST /purge` and `PURGE url`: removes what a key, a pattern, a tag, a URL or a prefix names,
//! and says how much it was.
//!
//! A key is one of the data cache, a URL and a prefix are those of the response cache. A pattern is
//! for keys, or, if it begins with `http://`, `https://` or `/`, for URLs. A tag is looked for in
//! both. What the store could not be told yet is kept and retried by the cache; the
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
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HOST};
use http::uri::PathAndQuery;
use http::{HeaderMap, Request, Response, StatusCode, Version};
use http_body::Body as _;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde::Serialize;
use tachikoma_cache::store::{Cursor, Want};
use tachikoma_cache::{Cache, Error, ErrorKind, Pattern, Removed};
use tachikoma_http_cache::{Purge, PurgeError};

use super::asked::Asked;
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

/// What is named.
#[derive(Debug)]
enum Target {
    Key(String),
    Pattern(String),
    Tag(String),
    /// A matter of the response cache alone; one URL may be several.
    Responses(Vec<Purge>),
}

/// What was, or would be, removed. `null`: the tier is not there, or does not count.
#[derive(Debug, Default, Serialize)]
struct Purged {
    dry_run: bool,
    /// Whether responses became stale instead of being removed.
    soft: bool,
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
    let peer = request.extensions().get::<Peer>().map(|peer| peer.address.ip());
    match asked(request).await {
        Ok((target, soft, dry_run)) => answer(&sources, peer, target, soft, dry_run).await,
        Err(refused) => *refused,
    }
}

/// `PURGE http://host/path`, or `PURGE /path` with the site's `Host`: as other caches have it.
/// `Fastly-Soft-Purge` asks for a soft one. A path alone, with this machine as its host, is
/// that path on every host. In HTTP/2 the host of the target is the `Host`.
pub(super) async fn by_method(sources: &Arc<Sources>, request: Request<()>) -> Response<Body> {
    let peer = request.extensions().get::<Peer>().map(|peer| peer.address.ip());
    let (uri, headers) = (request.uri(), request.headers());
    let path = uri.path_and_query().map_or("/", PathAndQuery::as_str);
    let named = headers.get(HOST).and_then(|host| host.to_str().ok());
    let (whole, named) = match uri.authority() {
        Some(authority) if request.version() == Version::HTTP_2 => {
            (false, Some(named.unwrap_or(authority.as_str())))
        }
        target => (target.is_some(), named),
    };
    let named = named.filter(|host| !super::guard::is_own(host));
    let purges = match named {
        _ if whole => vec![Purge::url(uri.to_string())],
        // The site is the one that is served here, so what its scheme may be is known.
        Some(host) => {
            let url = |scheme: &&str| Purge::url(format!("{scheme}://{host}{path}"));
            sources.schemes.iter().map(url).collect()
        }
        None => vec![Purge::pattern(Pattern::new().literal(path).as_str())],
    };
    let soft = headers.contains_key("fastly-soft-purge");
    let purges = purges.into_iter().map(|purge| if soft { purge.soft() } else { purge }).collect();
    answer(sources, peer, Target::Responses(purges), soft, false).await
}

async fn answer(
    sources: &Arc<Sources>,
    peer: Option<IpAddr>,
    target: Target,
    soft: bool,
    dry_run: bool,
) -> Response<Body> {
    if dry_run {
        return told(peer, &target, soft, true, count(sources, &target).await);
    }
    let sources = Arc::clone(sources);
    // A task of its own: a client that goes away leaves no purge half done and none unlogged.
    let purging = tokio::spawn(async move {
        let removed = remove(&sources, &target, soft).await;
        told(peer, &target, soft, false, removed)
    });
    purging.await.unwrap_or_else(|_| {
        problem(StatusCode::INTERNAL_SERVER_ERROR, "The purge broke off; ask for it again.")
    })
}

/// Says what was done, in the log and in the answer.
fn told(
    peer: Option<IpAddr>,
    target: &Target,
    soft: bool,
    dry_run: bool,
    done: Result<Removed, Failed>,
) -> Response<Body> {
    let purged = match done {
        Ok(removed) => Purged { dry_run, soft, pending: false, removed: removed.into() },
        Err(Failed::Cache(error)) if error.kind() == ErrorKind::Pending => {
            Purged { dry_run, soft, pending: true, removed: Tiers::default() }
        }
        Err(failed) => return failed.response(),
    };
    audit(peer, target, &purged);
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

/// What is named, whether softly, and whether only to be counted.
async fn asked(request: Request<Body>) -> Result<(Target, bool, bool), Refused> {
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
    let responses =
        |purge: Purge| Target::Responses(vec![if asked.soft { purge.soft() } else { purge }]);
    let target = match (asked.key, asked.pattern, asked.tag, asked.url, asked.prefix) {
        (Some(key), None, None, None, None) => Target::Key(key),
        (None, Some(pattern), None, None, None) if names_urls(&pattern) => {
            responses(Purge::pattern(pattern))
        }
        (None, Some(pattern), None, None, None) => Target::Pattern(pattern),
        (None, None, Some(tag), None, None) => Target::Tag(tag),
        (None, None, None, Some(url), None) => responses(Purge::url(url)),
        (None, None, None, None, Some(prefix)) => responses(Purge::prefix(prefix)),
        _ => {
            let detail = "Exactly one of key, pattern, tag, url and prefix is needed.";
            return refused(StatusCode::BAD_REQUEST, detail);
        }
    };
    if asked.soft && matches!(target, Target::Key(_) | Target::Pattern(_)) {
        let detail = "Only responses can be purged softly: by url, prefix, tag, or a pattern of \
                      URLs.";
        return refused(StatusCode::BAD_REQUEST, detail);
    }
    Ok((target, asked.soft, asked.dry_run))
}

/// Whether a pattern is for URLs: no key of the data cache is meant to begin like one.
fn names_urls(pattern: &str) -> bool {
    ["http://", "https://", "/"].iter().any(|start| pattern.starts_with(start))
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

async fn remove(sources: &Sources, target: &Target, soft: bool) -> Result<Removed, Failed> {
    match target {
        Target::Key(key) => Ok(sources.cache.entries().remove(&[key]).await?),
        Target::Pattern(pattern) => {
            Ok(sources.cache.delete_pattern(&Pattern::raw(pattern)?).await?)
        }
        Target::Tag(tag) if soft => {
            // Values have no softer end: they are left as they are.
            Ok(counted(sources, sources.responses.purge(&Purge::tag(tag).soft()).await?))
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
        Target::Responses(purges) => {
            let mut done = Vec::new();
            for purge in purges {
                done.push(sources.responses.purge(purge).await);
            }
            // Each is told before any may fail.
            let mut removed = Removed::default();
            for more in done {
                let more = more?;
                removed.memory = sum(removed.memory, more.memory);
                removed.redis = sum(removed.redis, more.redis);
            }
            Ok(counted(sources, removed))
        }
    }
}

/// What two purges removed from one tier; nothing, if neither counted there.
fn sum(one: Option<u64>, other: Option<u64>) -> Option<u64> {
    one.map_or(other, |one| Some(one + other.unwrap_or(0)))
}

/// Nothing found is zero in the tier there is.
fn counted(sources: &Sources, removed: Removed) -> Removed {
    if removed == Removed::default() { sources.in_tier(0) } else { removed }
}

async fn count(sources: &Sources, target: &Target) -> Result<Removed, Failed> {
    let found = match target {
        Target::Key(key) => u64::from(sources.cache.exists(key).await?),
        Target::Pattern(pattern) => matching(&sources.cache, &Pattern::raw(pattern)?).await?,
        Target::Tag(tag) => tagged(sources, tag).await?,
        Target::Responses(purges) => {
            let mut found = 0;
            for purge in purges {
                found += sources.responses.count(purge).await?;
            }
            found
        }
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
