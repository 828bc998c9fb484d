//! The outcome that the members of one flight wait for. Set once; it never loses a waiter.

use std::sync::{Arc, OnceLock};

use tokio::sync::Notify;

use super::Outcome;

pub(super) struct Wave {
    outcome: OnceLock<Outcome>,
    published: Notify,
}

impl Wave {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { outcome: OnceLock::new(), published: Notify::new() })
    }

    /// Wakes all who wait. Only the first outcome counts.
    pub(super) fn publish(&self, outcome: Outcome) {
        if self.outcome.set(outcome).is_ok() {
            self.published.notify_waiters();
        }
    }

    /// Waits for the outcome.
    pub(super) fn outcome(&self) -> std::pin::Pin<Box<impl Future<Output = Outcome> + Send + '_>> {
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
