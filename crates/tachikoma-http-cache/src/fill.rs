//! Brings one response into the store, once it is whole.
//!
//! Dropped before that, it stores nothing, gives its lease back and wakes who waits for it.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use tachikoma_cache::{EntryLease, Error};

use crate::{
    flight::Lead,
    handle::Shared,
    head,
    key::Key,
    policy::{directives::ResponseDirectives, storable::Storable},
    stats::add_one,
    storage::{Stored, StoredResponse},
};

/// How long those who wait for a response wait for the store to take it: one deadline of it.
const BRING_AFTER: Duration = Duration::from_millis(250);

/// All that is known of a response before its body.
#[derive(Debug)]
pub(crate) struct Fill {
    pub(crate) shared: Arc<Shared>,
    pub(crate) key: Key,
    /// Without one it is not stored, only brought to those who wait for it.
    pub(crate) lease: Option<EntryLease>,
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
        let Some(lease) = lease else {
            bring(lead, &stored);
            return stored;
        };
        let filling = Filling { shared: Arc::clone(&shared), lead, stored: Arc::clone(&stored) };
        let given = Arc::clone(&stored);
        let mut fill = Box::pin(async move {
            shared.storage.fill(&key, lease, given, &shared.options, shared.now()).await
        });
        match fill.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(result) => filling.end(result),
            // Without a runtime nothing could have been waited for: then it is not stored.
            Poll::Pending => {
                if let Ok(runtime) = tokio::runtime::Handle::try_current() {
                    runtime.spawn(filling.wait(fill));
                }
            }
        }
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

/// A response that the store is taking, and those who wait for it.
struct Filling {
    shared: Arc<Shared>,
    lead: Option<Lead>,
    stored: Arc<Stored>,
}

impl Filling {
    async fn wait(mut self, mut fill: Pin<Box<impl Future<Output = Result<bool, Error>>>>) {
        let in_time = tokio::time::timeout(BRING_AFTER, &mut fill).await;
        let result = if let Ok(result) = in_time {
            result
        } else {
            bring(self.lead.take(), &self.stored);
            fill.await
        };
        self.end(result);
    }

    fn end(self, result: Result<bool, Error>) {
        let counters = &self.shared.counters;
        match result {
            Ok(true) => {
                add_one(&counters.stored);
                bring(self.lead, &self.stored);
            }
            // Invalidated meanwhile: who waits looks again, and does not get this.
            Ok(false) => add_one(&counters.refused_fills),
            Err(error) => {
                add_one(&counters.refused_fills);
                tracing::debug!(%error, "a response was not stored");
                bring(self.lead, &self.stored);
            }
        }
    }
}

fn bring(lead: Option<Lead>, stored: &Arc<Stored>) {
    if let Some(lead) = lead {
        lead.bring(Arc::clone(stored));
    }
}
