//! Puts the parts together: listeners, the cache, the API, the proxy.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum::body::Body;
use futures_util::FutureExt as _;
use http::{HeaderValue, Request, Response};
use tachikoma_cache::{Cache, CacheConfig};
use tachikoma_http_cache::{HttpCache, HttpCacheLayer};
use tokio::net::TcpListener;
use tower::util::BoxCloneSyncService;
use tower::{Layer as _, Service, ServiceExt as _};

use crate::access_log::AccessLog;
use crate::admin::Admin;
use crate::admin::snapshot::{Origins, Sources};
use crate::api::reads::TO_THIS_SERVER;
use crate::api::{self, ApiState};
use crate::config::upstreams::Origin;
use crate::config::{Config, Secrets, same_place, values};
use crate::front::{Admission, Front, Route, Upstreams};
use crate::listener::{self, Terms};
use crate::proxy::Proxy;
use crate::shutdown::{self, Shutdown};
use crate::tls::{Acceptor, Trust};
use crate::traffic::Traffic;

/// How long the database may take to end what is under way.
const DATABASE_CLOSE: Duration = Duration::from_secs(5);

/// How long writing the snapshot of the cache may take at the end.
const SNAPSHOT_SAVE: Duration = Duration::from_secs(30);

/// A server that holds its ports and is ready to serve.
pub struct Server {
    public: TcpListener,
    address: SocketAddr,
    scheme: &'static str,
    schemes: &'static [&'static str],
    admin: Option<(TcpListener, SocketAddr)>,
    secrets: Secrets,
    front: Front,
    terms: Terms,
    log: AccessLog,
    traffic: Arc<Traffic>,
    cache: Cache,
    responses: HttpCache,
    origins: Origins,
    in_memory: bool,
    api: Option<ApiState>,
}

impl Server {
    /// Binds the ports and opens what the server needs.
    ///
    /// # Errors
    ///
    /// An address cannot be listened on, the cache or the database cannot be opened, or the
    /// upstream turns out to be this server.
    pub async fn start(config: Config) -> anyhow::Result<Self> {
        let public = listener::bind("listen", config.listen.0).await?;
        let address = public.local_addr().context("the public listener has no address")?;
        let admin = match config.admin {
            values::Admin::Off => None,
            values::Admin::At(at) => {
                let listener = listener::bind("admin", at).await?;
                let at = listener.local_addr().context("the admin listener has no address")?;
                Some((listener, at))
            }
        };
        let origins = config.origins();
        for origin in &origins {
            refuse_loop(origin, address).await?;
        }
        let cache = open_cache(config.cache.reveal()).await.context("cache")?;
        let clock = Arc::clone(cache.clock());
        let api = if config.api {
            Some(
                ApiState::open(config.database.reveal(), cache.clone())
                    .await
                    .context("database")?,
            )
        } else {
            None
        };
        // Its keys are apart from those of the data.
        let layer = config.response_cache(cache.namespace("http")?)?;
        let responses = layer.handle();
        // Tickets are the API's own; an upstream has its own or none.
        let of_api = layer.clone().tickets(true);
        let api_route = api.clone().map(|state| {
            let route = behind(&of_api, api::router(state));
            BoxCloneSyncService::new(route.map_response(|mut response| {
                response.headers_mut().remove(TO_THIS_SERVER);
                response
            }))
        });
        let trust = origins.iter().any(|origin| origin.url.is_secure());
        let trust = trust.then(|| Trust::load(config.tls.upstream_ca.as_deref())).transpose()?;
        let upstreams = if origins.is_empty() {
            None
        } else {
            let proxy = Proxy::new(&origins, trust.as_ref(), rand::random(), &clock)?;
            Some(Upstreams {
                cached: behind(&layer, proxy.clone()),
                direct: BoxCloneSyncService::new(proxy.clone()),
                proxy,
            })
        };
        let behind_the_cache = Origins {
            api: api.clone().map(|state| BoxCloneSyncService::new(api::router(state))),
            upstreams: upstreams.as_ref().map(|upstreams| upstreams.direct.clone()),
        };
        let own_host = HeaderValue::from_str(&address.to_string())?;
        let log = AccessLog::start(config.access_log, config.access_log_query)
            .context("the access log cannot start")?;
        let traffic = Arc::new(Traffic::default());
        let trusted = config.trusted_proxies.clone();
        let front = Front::new(
            api_route,
            upstreams,
            Admission { limits: config.limits, own_host, trusted },
            Arc::clone(&traffic),
            log.clone(),
            Arc::clone(&clock),
        );
        let acceptor = match (&config.tls.cert, &config.tls.key) {
            (Some(cert), Some(key)) => Some(Acceptor::load(cert, key, clock.wall())?),
            _ => None,
        };
        let scheme = if acceptor.is_some() { "https" } else { "http" };
        let schemes: &[_] = match (config.trusted_proxies.is_empty(), scheme) {
            (false, _) => &["http", "https"],
            (true, "https") => &["https"],
            (true, _) => &["http"],
        };
        let terms = Terms::new(config.limits, config.drain.0, clock).within(acceptor);
        let secrets = config.secrets;
        let in_memory = config.cache.is_memory();
        Ok(Self {
            public,
            address,
            scheme,
            schemes,
            admin,
            secrets,
            front,
            terms,
            log,
            traffic,
            cache,
            responses,
            origins: behind_the_cache,
            in_memory,
            api,
        })
    }

    /// Where the public listener is; with port 0 in the settings, the port that was free.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where the admin listener is, if it is on.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin.as_ref().map(|(_, address)| *address)
    }

    /// The reference API, if it is on.
    pub fn api(&self) -> Option<&ApiState> {
        self.api.as_ref()
    }

    /// Serves until `shutdown` is asked for and open requests are done, or the drain time is over.
    ///
    /// # Errors
    ///
    /// A listener fails for good.
    pub async fn run(self, shutdown: Shutdown) -> anyhow::Result<()> {
        let cache = self.cache.clone();
        // The admin listener outlives the public one: it says how the draining goes.
        let (public_is_done, admin_shutdown) = shutdown::channel();
        let sources = Arc::new(Sources {
            clock: Arc::clone(&self.terms.clock),
            cache: self.cache,
            schemes: self.schemes,
            responses: self.responses,
            in_memory: self.in_memory,
            started: self.terms.clock.now(),
            traffic: self.traffic,
            terms: self.terms.clone(),
            log: self.log.clone(),
            draining: shutdown.clone(),
            origins: self.origins,
        });
        let admin = self.admin.map(|(listener, address)| {
            tracing::info!(address = %format_args!("http://{address}"), "admin");
            let handler = Admin::new(address.ip(), &self.secrets, sources);
            let terms = self.terms.for_admin();
            tokio::spawn(listener::serve(listener, handler, terms, admin_shutdown))
        });
        tracing::info!(address = %format_args!("{}://{}", self.scheme, self.address), "serving");
        let served = listener::serve(self.public, self.front, self.terms, shutdown).await;
        public_is_done.ask();
        if let Some(admin) = admin {
            admin.await.context("the admin listener failed")??;
        }
        if let Some(api) = self.api
            && tokio::time::timeout(DATABASE_CLOSE, api.close()).await.is_err()
        {
            tracing::warn!("the database did not close in time");
        }
        save_snapshot(&cache).await;
        self.log.close();
        tracing::info!("stopped");
        served
    }
}

/// Writes what the cache holds, if it is to start warm the next time.
async fn save_snapshot(cache: &Cache) {
    if cache.stats().snapshot.is_none() {
        return;
    }
    match tokio::time::timeout(SNAPSHOT_SAVE, cache.save_snapshot()).await {
        Ok(Ok(entries)) => tracing::info!(entries, "snapshot written"),
        // It was logged where it happened.
        Ok(Err(_)) => {}
        Err(_) => tracing::warn!("the snapshot was not written in time"),
    }
}

/// How long the store may take for an operation, where the URL does not say.
///
/// A read of the API looks into the response cache and then into the data cache: a Redis that
/// hangs must not cost it more than 300 ms.
const STORE_TIMEOUT: &str = "120ms";

async fn open_cache(url: &str) -> Result<Cache, tachikoma_cache::Error> {
    let settings = CacheConfig {
        url: Some(url.to_owned()),
        store_timeout: Some(STORE_TIMEOUT.to_owned()),
        ..CacheConfig::default()
    };
    Cache::from_config(&settings).await
}

/// Refuses what the cache would refuse of its URL when it is opened.
///
/// It does so before it waits for anything, and on a runtime that nobody drives no server is asked.
///
/// # Errors
///
/// The setting that is not known or not allowed.
pub(crate) fn check_cache(config: &Config) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("the runtime cannot start")?;
    let _entered = runtime.enter();
    let (place, options) = config.cache.reveal().split_once('?').unwrap_or_default();
    // A snapshot would be read now, and written when this cache goes.
    let options = options.split('&').filter(|option| !option.starts_with("snapshot"));
    let url = format!("{place}?{}", options.collect::<Vec<_>>().join("&"));
    match open_cache(if place.is_empty() { config.cache.reveal() } else { &url }).now_or_never() {
        Some(Err(error)) => Err(anyhow::Error::new(error).context("cache")),
        _ => Ok(()),
    }
}

/// Puts the response cache in front of a service.
fn behind<S>(layer: &HttpCacheLayer, service: S) -> Route
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S: Clone + Send + Sync + 'static,
    S::Future: Send + 'static,
{
    let cached = layer.layer(service);
    BoxCloneSyncService::new(cached.map_response(|response| response.map(Body::new)))
}

/// Refuses an upstream whose name leads back to this server's own port.
async fn refuse_loop(origin: &Origin, own: SocketAddr) -> anyhow::Result<()> {
    let Origin { name, url, .. } = origin;
    // An unknown name is no reason not to start: the origin's name may appear later.
    let found = tokio::net::lookup_host((url.host(), url.port())).await;
    for at in found.into_iter().flatten() {
        anyhow::ensure!(
            !same_place(own, at),
            "{name}: {url} is this server itself; give the address of the origin server"
        );
    }
    Ok(())
}
