//! An outcome that many wait for. Set once; it never loses a waiter.

use std::sync::{Arc, OnceLock};

use futures_util::future::BoxFuture;
use tokio::sync::Notify;

pub(super) struct Wave<T> {
    outcome: OnceLock<T>,
    published: Notify,
}

impl<T: Clone + Send + Sync> Wave<T> {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { outcome: OnceLock::new(), published: Notify::new() })
    }

    /// Wakes all who wait. Only the first outcome counts.
    pub(super) fn publish(&self, outcome: T) {
        if self.outcome.set(outcome).is_ok() {
            self.published.notify_waiters();
        }
    }

    /// Waits for the outcome.
    pub(super) fn outcome(&self) -> BoxFuture<'_, T> {
        Box::pin(async move {
            loop {
                let published = self.published.notified();
                // `notified` counts as waiting from its creation on, so a publication between this
                // look and the wait is not missed.
                if let Some(outcome) = self.outcome.get() {
                    return outcome.clone();
                }
                published.await;
            }
        })
    }
}
