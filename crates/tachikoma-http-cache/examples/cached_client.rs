//! A client to another server behind the response cache: the smallest caching gateway.
//!
//! ```text
//! cargo run -p tachikoma-http-cache --example cached_client -- 127.0.0.1:8080 http://127.0.0.1:81
//! ```
//!
//! It shows the layer in front of a client service. For a gateway of your own, look at what
//! `tachikoma serve --upstream` does beside it: hop-by-hop fields, limits, timeouts, forwarding
//! headers. The public conformance tests
//! are run against this program.

use std::{convert::Infallible, env, error::Error, time::Duration};

use axum::{body::Body, response::IntoResponse as _};
use http::{Request, Response, StatusCode, Uri};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tachikoma_cache::Cache;
use tachikoma_http_cache::{Disconnected, HttpCacheLayer};
use tokio::net::TcpListener;
use tower::{Layer as _, service_fn, util::MapRequest};

type HttpClient = Client<HttpConnector, Body>;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args().skip(1);
    let (Some(listen), Some(upstream)) = (arguments.next(), arguments.next()) else {
        return Err("usage: cached_client LISTEN UPSTREAM".into());
    };
    let upstream: Uri = upstream.parse()?;

    let client: HttpClient = Client::builder(TokioExecutor::new())
        // Many servers close theirs after five seconds, and what is sent just then is lost.
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(Duration::from_secs(4))
        .set_host(false)
        .build_http();
    let asking = service_fn(move |request| ask(client.clone(), upstream.clone(), request));
    let cache = Cache::memory().max_bytes(64 << 20).build()?;
    let cached = HttpCacheLayer::new(cache).heuristic(true).empty_body(Body::empty).layer(asking);

    let listener = TcpListener::bind(&listen).await?;
    println!("Listening on http://{}", listener.local_addr()?);
    loop {
        let (stream, _) = listener.accept().await?;
        let service = MapRequest::new(cached.clone(), |request: Request<_>| request.map(Body::new));
        let server = hyper::server::conn::http1::Builder::new()
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
        tokio::spawn(async move {
            if let Err(error) = server.await {
                eprintln!("a connection ended early: {error}");
            }
        });
    }
}

/// Asks the other server; when it gives no answer, the client gets a 502.
async fn ask(
    client: HttpClient,
    upstream: Uri,
    mut request: Request<Body>,
) -> Result<Response<Body>, Infallible> {
    let mut uri = request.uri().clone().into_parts();
    uri.scheme = upstream.scheme().cloned();
    uri.authority = upstream.authority().cloned();
    let Ok(uri) = Uri::from_parts(uri) else {
        return Ok(StatusCode::BAD_REQUEST.into_response());
    };
    *request.uri_mut() = uri;
    Ok(match client.request(request).await {
        Ok(response) => response.map(Body::new),
        Err(error) => {
            eprintln!("no answer: {error}");
            let mut response = StatusCode::BAD_GATEWAY.into_response();
            // So the cache knows that it may cover for the other server.
            response.extensions_mut().insert(Disconnected);
            response
        }
    })
}
