//! One call of the inner service: only when it is ready, and that very one, as `tower` asks.
//!
//! Never decides whether it is called.

use std::future::poll_fn;

use http::Request;
use tower_service::Service;

/// Calls a service once, as its contract asks: only when it is ready.
pub(super) async fn oneshot<S, B>(
    mut service: S,
    request: Request<B>,
) -> Result<S::Response, S::Error>
where
    S: Service<Request<B>>,
{
    once(&mut service, request).await
}

pub(super) async fn once<S, B>(
    service: &mut S,
    request: Request<B>,
) -> Result<S::Response, S::Error>
where
    S: Service<Request<B>>,
{
    poll_fn(|cx| service.poll_ready(cx)).await?;
    service.call(request).await
}
