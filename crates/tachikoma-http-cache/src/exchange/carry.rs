//! Carries an exchange through to the head of its answer, though its client leaves before that: the
//! origin carries out what it was sent, and what that makes invalid must be known.
//!
//! Never goes on for long: an answer that does not come is given up.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tachikoma_cache::Clock;
use tokio::runtime::Handle;

/// How long an answer is waited for when nobody else waits for it.
const LIMIT: Duration = Duration::from_secs(60);

/// An exchange under way. Dropped before its end, it goes on in a task of its own.
pub(super) struct Carried<T: Send + 'static> {
    clock: Arc<dyn Clock>,
    exchange: Option<Pin<Box<dyn Future<Output = T> + Send>>>,
}

impl<T: Send + 'static> Carried<T> {
    pub(super) fn new(
        clock: &Arc<dyn Clock>,
        exchange: impl Future<Output = T> + Send + 'static,
    ) -> Self {
        Self { clock: Arc::clone(clock), exchange: Some(Box::pin(exchange)) }
    }
}

impl<T: Send + 'static> Future for Carried<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        // Taken out while it runs: one that panics does not go on.
        let Some(mut exchange) = self.exchange.take() else { return Poll::Pending };
        let polled = exchange.as_mut().poll(cx);
        if polled.is_pending() {
            self.exchange = Some(exchange);
        }
        polled
    }
}

impl<T: Send + 'static> Drop for Carried<T> {
    fn drop(&mut self) {
        let Some(exchange) = self.exchange.take() else { return };
        let Ok(runtime) = Handle::try_current() else { return };
        let limit = self.clock.sleep(LIMIT);
        runtime.spawn(async move {
            tokio::select! {
                biased;
                _ = exchange => {}
                () = limit => {
                    tracing::debug!("the answer to a write that its client left did not come");
                }
            }
        });
    }
}
