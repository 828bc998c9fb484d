//! A site under test: a programmable origin behind the cache, in both modes, and its request log.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{Router, body::Body};
use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri};
use http_body_util::BodyExt as _;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use tachikoma_cache::{Cache, TestClock};
use tachikoma_http_cache::{HttpCache, HttpCacheLayer};
use tower::{Layer as _, ServiceExt as _, service_fn, util::BoxCloneSyncService};

type Service = BoxCloneSyncService<Request<Body>, Response<Body>, Infallible>;
type Handler = Arc<dyn Fn(&Seen) -> Response<Body> + Send + Sync>;

/// Where the cache stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// A layer in an axum app.
    Layer,
    /// In front of a hyper client to an origin on loopback.
    Proxy,
}

pub(crate) const MODES: [Mode; 2] = [Mode::Layer, Mode::Proxy];

/// What the origin saw of a request.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) method: Method,
    pub(crate) uri: Uri,
    pub(crate) headers: HeaderMap,
    /// How many came before it.
    pub(crate) before: usize,
}

/// An origin behind a cache.
pub(crate) struct Site {
    service: Service,
    pub(crate) log: Arc<Mutex<Vec<Seen>>>,
    pub(crate) cache: HttpCache,
    pub(crate) clock: TestClock,
}

/// A response, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    /// `Err` if it broke off.
    pub(crate) body: Result<Bytes, String>,
}

impl Answer {
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.body.as_ref().unwrap().to_vec()).unwrap()
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The `Cache-Status` member of this cache.
    pub(crate) fn said(&self) -> &str {
        self.header("cache-status")
    }

    pub(crate) fn is_hit(&self) -> bool {
        self.said().starts_with("tachikoma;hit")
    }
}

pub(crate) async fn read(response: Response<Body>) -> Answer {
    let (parts, body) = response.into_parts();
    let body = body.collect().await.map(http_body_util::Collected::to_bytes);
    let body = body.map_err(|error| error.to_string());
    Answer { status: parts.status, headers: parts.headers, body }
}

impl Site {
    pub(crate) async fn new(
        mode: Mode,
        handler: impl Fn(&Seen) -> Response<Body> + Send + Sync + 'static,
    ) -> Self {
        Self::with(mode, |layer| layer, handler).await
    }

    pub(crate) async fn with(
        mode: Mode,
        options: impl FnOnce(HttpCacheLayer) -> HttpCacheLayer,
        handler: impl Fn(&Seen) -> Response<Body> + Send + Sync + 'static,
    ) -> Self {
        let clock = TestClock::new();
        let cache = Cache::memory().max_bytes(64 << 20).clock(Arc::new(clock.clone()));
        let cache = cache.build().unwrap();
        Self::on(cache, clock, mode, options, handler).await
    }

    pub(crate) async fn on(
        cache: Cache,
        clock: TestClock,
        mode: Mode,
        options: impl FnOnce(HttpCacheLayer) -> HttpCacheLayer,
        handler: impl Fn(&Seen) -> Response<Body> + Send + Sync + 'static,
    ) -> Self {
        let log = Arc::new(Mutex::new(Vec::new()));
        let origin = origin(Arc::clone(&log), Arc::new(handler));
        let layer = options(HttpCacheLayer::new(cache));
        let cache = layer.handle();
        let service = match mode {
            Mode::Layer => BoxCloneSyncService::new(origin.layer(layer)),
            Mode::Proxy => proxy(&layer, serve(origin).await),
        };
        Self { service, log, cache, clock }
    }

    pub(crate) async fn open(&self, request: Request<Body>) -> Response<Body> {
        let answer = self.service.clone().oneshot(request);
        // A hang is a failure, not a test that never ends.
        tokio::time::timeout(Duration::from_secs(20), answer).await.expect("no answer").unwrap()
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> Answer {
        read(self.open(request).await).await
    }

    pub(crate) async fn get(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        self.send(request("GET", path, headers)).await
    }

    /// How many requests reached the origin.
    pub(crate) fn fetched(&self) -> usize {
        self.log.lock().unwrap().len()
    }

    /// The last request that reached the origin.
    pub(crate) fn last(&self) -> Seen {
        self.log.lock().unwrap().last().unwrap().clone()
    }

    pub(crate) fn advance(&self, secs: u64) {
        self.clock.advance(Duration::from_secs(secs));
    }
}

pub(crate) fn request(method: &str, path: &str, headers: &[(&str, &str)]) -> Request<Body> {
    let mut request = Request::builder().method(method).uri(path);
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
        request = request.header("host", "shop.test");
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Body::empty()).unwrap()
}

/// A response with these headers.
pub(crate) fn response(
    status: u16,
    headers: &[(&str, &str)],
    body: impl Into<Body>,
) -> Response<Body> {
    let mut response = Response::builder().status(status);
    for (name, value) in headers {
        response = response.header(*name, *value);
    }
    response.body(body.into()).unwrap()
}

fn origin(log: Arc<Mutex<Vec<Seen>>>, handler: Handler) -> Router {
    Router::new().fallback(move |request: Request<Body>| {
        let seen = {
            let mut log = log.lock().unwrap();
            let (parts, _) = request.into_parts();
            let before = log.len();
            let Seen { method, uri, headers, .. } =
                Seen { method: parts.method, uri: parts.uri, headers: parts.headers, before };
            log.push(Seen { method, uri, headers, before });
            log[before].clone()
        };
        let response = handler(&seen);
        async move { response }
    })
}

async fn serve(app: Router) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let service = hyper_util::service::TowerToHyperService::new(app.clone());
            let io = hyper_util::rt::TokioIo::new(stream);
            tokio::spawn(async move {
                let _ =
                    hyper::server::conn::http1::Builder::new().serve_connection(io, service).await;
            });
        }
    });
    address
}

fn proxy(layer: &HttpCacheLayer, origin: String) -> Service {
    let client = Client::builder(TokioExecutor::new()).set_host(false).build_http::<Body>();
    let forward = service_fn(move |mut request: Request<Body>| {
        let client = client.clone();
        let path = request.uri().path_and_query().unwrap().clone();
        *request.uri_mut() = format!("http://{origin}{path}").parse().unwrap();
        async move {
            Ok::<_, Infallible>(match client.request(request).await {
                Ok(response) => response.map(Body::new),
                Err(error) => response(502, &[], error.to_string()),
            })
        }
    });
    BoxCloneSyncService::new(layer.layer(forward).map_response(|response| response.map(Body::new)))
}

/// Lets other tasks go on for a moment of real time.
pub(crate) async fn pause() {
    let _ = tokio::time::timeout(Duration::from_millis(2), std::future::pending::<()>()).await;
}
