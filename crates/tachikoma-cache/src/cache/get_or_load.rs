//! `get_or_load` as a caller writes it: options, then `.await`.
//!
//! A hit is answered here, without a task, a box or an allocation; only a miss makes a future.

use std::future::{Future, IntoFuture};
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::future::BoxFuture;

use super::{Cache, Hit, Source};
use crate::codec::{Cacheable, TypeOps, json_object};
use crate::error::{Error, LoadError};
use crate::expiry::Ttl;
use crate::invalidation::Group;
use crate::key::{Key, Namespace};
use crate::load::flight::Kind;
use crate::load::outcome::{Failure, Outcome, SourceError};
use crate::load::{self, Job, Loader, Ran, lookup};
use crate::shared::Shared;
use crate::store::{Guarantee, Peek};

/// A load that was asked for; `.await` it. Made by [`Cache::get_or_load`].
#[must_use = "it does nothing until it is awaited"]
pub struct Load<'a, T, E, F, Tags> {
    cache: &'a Cache,
    key: &'a str,
    loader: F,
    ttl: Ttl,
    tags: Tags,
    types: PhantomData<fn() -> (T, E)>,
}

/// The tags of a load that names none.
pub type NoTags = [&'static str; 0];

impl<'a, T, E, F> Load<'a, T, E, F, NoTags> {
    pub(super) fn new(cache: &'a Cache, key: &'a str, loader: F) -> Self {
        Self { cache, key, loader, ttl: Ttl::Default, tags: [], types: PhantomData }
    }
}

impl<'a, T, E, F, Tags> Load<'a, T, E, F, Tags> {
    /// How long a loaded value lives. Default: the cache's.
    ///
    /// A time that is not allowed (zero, or more than ten years) means that the value is returned
    /// but not stored; the error is counted.
    pub fn ttl(mut self, ttl: impl Into<Ttl>) -> Self {
        self.ttl = ttl.into();
        self
    }

    /// The tags of a loaded value: [`Cache::invalidate_tag`] of any of them takes it away. Looked
    /// at on a miss only. With tags that are not allowed the value is returned but not stored.
    pub fn tags<More>(self, tags: More) -> Load<'a, T, E, F, More>
    where
        More: IntoIterator,
        More::Item: AsRef<str>,
    {
        let Self { cache, key, loader, ttl, types, tags: _ } = self;
        Load { cache, key, loader, ttl, tags, types }
    }
}

/// The future of a [`Load`]: ready at once on a hit in memory.
#[must_use = "it does nothing until it is awaited"]
pub enum LoadFuture<'a, T, E> {
    /// The value was there; `None` once it was handed out.
    Ready(Option<Hit<T>>),
    /// It is being looked up or loaded.
    Pending(BoxFuture<'a, Result<Hit<T>, LoadError<E>>>),
}

impl<T, E> Future for LoadFuture<'_, T, E> {
    type Output = Result<Hit<T>, LoadError<E>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.get_mut() {
            // Polled again after its end it stays pending, as a finished future may.
            Self::Ready(hit) => hit.take().map_or(Poll::Pending, |hit| Poll::Ready(Ok(hit))),
            Self::Pending(load) => load.as_mut().poll(cx),
        }
    }
}

impl<T, E> Unpin for LoadFuture<'_, T, E> {}

impl<'a, T, E, F, Fut, Tags> IntoFuture for Load<'a, T, E, F, Tags>
where
    T: Cacheable,
    E: Send + Sync + 'static,
    F: FnOnce() -> Fut + Send + 'static,
    Fut: Future<Output = Result<T, E>> + Send + 'static,
    Tags: IntoIterator,
    Tags::Item: AsRef<str>,
{
    type Output = Result<Hit<T>, LoadError<E>>;
    type IntoFuture = LoadFuture<'a, T, E>;

    fn into_future(self) -> Self::IntoFuture {
        let Self { cache, key, loader, ttl, tags, types: _ } = self;
        let shared = cache.shared();
        let look = Key::new(cache.namespace_ref(), key).map(|key| shared.look::<T>(&key));
        let known = match look {
            Ok((Some(hit), _)) => return LoadFuture::Ready(Some(hit)),
            Ok((None, peek)) => Ok(peek),
            Err(error) => {
                shared.counters.misses.add_one();
                Err(error)
            }
        };
        let loader: Loader = Box::new(move || {
            Box::pin(async move {
                let loaded = loader().await;
                loaded.map(|value| Arc::new(value) as _).map_err(|e| Arc::new(e) as SourceError)
            })
        });
        let request = Request {
            namespace: cache.namespace_ref().clone(),
            name: key.to_owned(),
            kind: Kind::of::<T, E>(),
            tags: Group::tags(tags),
            ttl,
            loader,
        };
        LoadFuture::Pending(Box::pin(look_up_or_load(Arc::clone(shared), known, request)))
    }
}

/// What is known of a load when the memory did not have the value.
struct Request {
    namespace: Namespace,
    name: String,
    kind: Kind,
    tags: Result<Vec<Group>, Error>,
    ttl: Ttl,
    loader: Loader,
}

async fn look_up_or_load<T: Cacheable, E: Send + Sync + 'static>(
    shared: Arc<Shared>,
    known: Result<Peek, Error>,
    request: Request,
) -> Result<Hit<T>, LoadError<E>> {
    let Request { namespace, name, kind, tags, ttl, loader } = request;
    let mut ttl = Some(ttl);
    let (local, budget) = match known {
        Ok(Peek::Ask) => {
            let Ok(key) = Key::new(&namespace, name.as_str()) else {
                return Err(LoadError::Aborted); // It was a key before.
            };
            let answer = lookup::look_up(&shared, &key).await;
            let found = answer.found.as_ref().ok().and_then(Option::as_ref);
            if let Some(hit) = shared.judge::<T>(&key, found) {
                return Ok(hit);
            }
            if let Some(error) = answer.error() {
                shared.note("look up", &key, &error);
                // A store that does not answer is not asked for the right to store either.
                ttl = None;
            }
            // One budget for all of it; a fifth remains even after a slow answer, since without the
            // right to store this load helps nobody else.
            let left = shared.store_timeout.saturating_sub(answer.took);
            (false, left.max(shared.store_timeout / 5))
        }
        Ok(Peek::Seen | Peek::Absent) => (true, shared.store_timeout),
        Err(error) => {
            shared.counters.errors.count(error.kind());
            (true, shared.store_timeout)
        }
    };
    // Stored without its tags a value could outlive an invalidation, so it is not stored then.
    let tags = tags.unwrap_or_else(|error| {
        shared.counters.errors.count(error.kind());
        ttl = None;
        Vec::new()
    });
    let ops = TypeOps::json::<T>();
    let job = Job { namespace, name, kind, tags, ttl, ops, loader, budget, local, again: false };
    let job = match load::run(&shared, job).await {
        Ran::Done(outcome, followed) => return typed(outcome, followed),
        Ran::Again(job) => job,
    };
    if job.ttl.is_some()
        && let Some(hit) = found_meanwhile(&shared, &job.namespace, &job.name).await
    {
        return Ok(hit);
    }
    match load::run(&shared, job).await {
        Ran::Done(outcome, followed) => typed(outcome, followed),
        Ran::Again(_) => Err(LoadError::Aborted), // Only a first wait is in vain.
    }
}

/// The value, if it was stored while this caller waited in vain. Not counted again: its lookup was
/// a miss.
async fn found_meanwhile<T: Cacheable>(
    shared: &Arc<Shared>,
    namespace: &Namespace,
    name: &str,
) -> Option<Hit<T>> {
    let key = Key::new(namespace, name).ok()?;
    match lookup::look_up(shared, &key).await.found.ok()?? {
        (entry, Guarantee::Fresh) => {
            Some(Hit::new(json_object(&entry).ok()?, Guarantee::Fresh, Source::Hit))
        }
        _ => None,
    }
}

fn typed<T, E>(outcome: Outcome, followed: bool) -> Result<Hit<T>, LoadError<E>>
where
    T: Send + Sync + 'static,
    E: Send + Sync + 'static,
{
    match outcome {
        Ok(loaded) => {
            let source = match (loaded.by_loader, followed) {
                (false, _) => Source::Hit,
                (true, false) => Source::Loaded,
                (true, true) => Source::Coalesced,
            };
            // The flight's kind has these very types, so neither downcast can fail.
            let value = loaded.object.downcast::<T>().map_err(|_| LoadError::Aborted)?;
            Ok(Hit::new(value, loaded.guarantee, source))
        }
        Err(Failure::Source(error)) => {
            Err(error.downcast::<E>().map_or(LoadError::Aborted, LoadError::Source))
        }
        Err(Failure::Panicked) => Err(LoadError::Panicked),
        Err(Failure::TimedOut) => Err(LoadError::TimedOut),
        Err(Failure::Reentrant) => Err(LoadError::Reentrant),
        Err(Failure::Aborted) => Err(LoadError::Aborted),
    }
}
