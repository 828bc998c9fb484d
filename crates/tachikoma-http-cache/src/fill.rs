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
use tachikoma_cache::{
    Error,
    dependencies::{Dependencies, Recorder},
};

use crate::{
    feed::Taker,
    flight::Lead,
    handle::Shared,
    head,
    key::Key,
    parts::{Content, combine},
    policy::{Options, range::Held, storable::Storable, targeted::governing},
    stats::add_one,
    storage::{FillLease, Stored, StoredResponse},
};

/// How long those who wait for a response wait for the store to take it: one deadline of it.
const BRING_AFTER: Duration = Duration::from_millis(250);

/// All that is known of a response before its body.
#[derive(Debug)]
pub(crate) struct Fill {
    pub(crate) shared: Arc<Shared>,
    pub(crate) key: Key,
    /// Without one it is not stored, only brought to those who wait for it.
    pub(crate) lease: Option<FillLease>,
    pub(crate) lead: Option<Lead>,
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) storable: Storable,
    pub(crate) tags: Vec<String>,
    pub(crate) options: Arc<Options>,
    /// Something is stored that is no longer current, now that this came.
    pub(crate) replaces: bool,
    pub(crate) body: Arriving,
    /// What it is made of, up to its end.
    pub(crate) read: Option<Recorder>,
}

/// What a body is, when it is whole.
#[derive(Debug)]
pub(crate) enum Arriving {
    /// All of the representation.
    Whole,
    /// A part, to be combined with what is stored where they belong together.
    Part(Option<Arc<Stored>>),
    /// What is stored already: these bytes.
    Stored(Option<Held>),
}

impl Arriving {
    /// The body of an answer with this status; `known` is what is stored.
    pub(crate) fn of(status: StatusCode, known: Option<Arc<Stored>>) -> Self {
        if status == StatusCode::PARTIAL_CONTENT { Self::Part(known) } else { Self::Whole }
    }
}

impl Fill {
    /// The body is whole: stores the response, at once where the store does not wait. Else in the
    /// background, for storing never delays an answer. Returns what is being stored: nothing, if
    /// nobody can say which bytes a part has.
    pub(crate) fn complete(self, body: Bytes) -> Option<Arc<Stored>> {
        let read = self.read.as_ref().map(Recorder::dependencies).unwrap_or_default();
        if !read.is_known() {
            Taker::no_room(Box::new(self));
            return None;
        }
        if let Some(lead) = &self.lead {
            lead.storing();
        }
        let Self {
            shared,
            key,
            lease,
            lead,
            status,
            headers,
            storable,
            tags,
            options,
            body: arriving,
            ..
        } = self;
        let Content { status, headers, body, part } = match arriving {
            Arriving::Whole => Content { status, headers, body, part: None },
            Arriving::Stored(part) => Content { status, headers, body, part },
            Arriving::Part(known) => {
                let known = known.as_deref().and_then(Stored::response);
                combine(headers, body, known, shared.max_body_size)?
            }
        };
        let directives = governing(&headers, &options.targeted).directives;
        let received = shared.entries().clock().wall();
        let stored = Arc::new(Stored::Response(StoredResponse {
            whole: key.whole.clone(),
            status,
            headers: head::to_store(
                headers,
                &directives,
                status,
                Some(body.len() as u64),
                received,
            ),
            body,
            part,
            terms: storable.terms,
            selector: storable.selector,
            tags,
            is_made_of: !read.is_empty(),
        }));
        let Some(lease) = lease else {
            bring(lead, &stored);
            return Some(stored);
        };
        let filling = Filling {
            shared: Arc::clone(&shared),
            lead,
            stored: Arc::clone(&stored),
            read: read.clone(),
        };
        let given = Arc::clone(&stored);
        let mut fill = Box::pin(async move {
            shared.storage.fill(&key, lease, given, &read, &options, shared.now()).await
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
        Some(stored)
    }

    /// Its end was not proved.
    pub(crate) fn incomplete(self) {
        add_one(&self.shared.counters.incomplete);
    }
}

impl Taker for Fill {
    fn complete(self: Box<Self>, body: Bytes) {
        Self::complete(*self, body);
    }

    fn too_large(self: Box<Self>) {
        let older = self.replaces.then(|| (Arc::clone(&self.shared), self.key.clone()));
        // The lease is given back first, so that the removal need not end it.
        self.no_room();
        if let Some((shared, key)) = older
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(async move { shared.invalidate(&[key]).await });
        }
    }

    fn no_room(self: Box<Self>) {
        let Self { shared, lead, .. } = *self;
        if let Some(lead) = lead {
            lead.decline(shared.entries().clock().now());
        }
    }

    fn incomplete(self: Box<Self>) {
        Self::incomplete(*self);
    }
}

/// A response that the store is taking, and those who wait for it.
struct Filling {
    shared: Arc<Shared>,
    lead: Option<Lead>,
    stored: Arc<Stored>,
    read: Dependencies,
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
                // What it is made of may have gone meanwhile: then who waits looks again.
                if self.shared.entries().is_current(&self.read) {
                    bring(self.lead, &self.stored);
                }
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
