//! Brings one response into the store, once it is whole.
//!
//! Dropped before that, it stores nothing, gives its lease back and wakes who waits for it.

use std::{
    future::Future,
    sync::Arc,
    task::{Context, Waker},
};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use tachikoma_cache::EntryLease;

use crate::{
    flight::Lead,
    handle::Shared,
    head,
    key::Key,
    policy::{directives::ResponseDirectives, storable::Storable},
    stats::add_one,
    storage::{Stored, StoredResponse},
};

/// All that is known of a response before its body.
#[derive(Debug)]
pub(crate) struct Fill {
    pub(crate) shared: Arc<Shared>,
    pub(crate) key: Key,
    pub(crate) lease: EntryLease,
    pub(crate) lead: Option<Lead>,
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) storable: Storable,
    pub(crate) tags: Vec<String>,
}

impl Fill {
    /// The body is whole: stores the response, at once where the store does not wait. Else in the
    /// background, for storing never delays an answer. Returns what is being stored.
    pub(crate) fn complete(self, body: Bytes) -> Arc<Stored> {
        if let Some(lead) = &self.lead {
            lead.storing();
        }
        let Self { shared, key, lease, lead, status, headers, storable, tags } = self;
        let directives = ResponseDirectives::read(&headers);
        let received = shared.entries().clock().wall();
        let stored = Arc::new(Stored::Response(StoredResponse {
            whole: key.whole.clone(),
            status,
            headers: head::to_store(headers, &directives, status, &body, received),
            body,
            terms: storable.terms,
            selector: storable.selector,
            tags,
        }));
        let filled = Arc::clone(&stored);
        now_or_in_background(async move {
            match shared.storage.fill(&key, lease, filled, &shared.options, shared.now()).await {
                Ok(true) => add_one(&shared.counters.stored),
                Ok(false) => add_one(&shared.counters.refused_fills),
                Err(error) => {
                    add_one(&shared.counters.refused_fills);
                    tracing::debug!(%error, "a response was not stored");
                }
            }
            drop(lead);
        });
        stored
    }

    /// More came than is stored.
    pub(crate) fn too_large(&mut self) {
        if let Some(lead) = self.lead.take() {
            lead.decline(self.shared.entries().clock().now());
        }
    }

    /// Less or more came than was promised.
    pub(crate) fn incomplete(self) {
        add_one(&self.shared.counters.incomplete);
    }
}

/// Runs a future to its end: here if it never waits, else in a task of its own.
pub(crate) fn now_or_in_background(future: impl Future<Output = ()> + Send + 'static) {
    let mut future = Box::pin(future);
    if future.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending() {
        // Without a runtime nothing could have been waited for: then it is dropped, and not stored.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(future);
        }
    }
}
