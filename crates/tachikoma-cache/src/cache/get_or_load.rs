//! `get_or_load` and its kin as a caller writes them: options, then `.await`.
//!
//! A hit is answered here, without a task, a box or an allocation; only a miss makes a future. A
//! stale hit that is to be renewed starts a load and is answered at once all the same.

use std::future::{Future, IntoFuture};
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;

use super::gives::{Adaptive, Optional, Value};
use super::loaded::{LoadCx, Loaded};
use super::{Cache, Hit, Source};
use crate::clock::Time;
use crate::codec::{Cacheable, TypeOps};
use crate::entry::{Entry, Object};
use crate::error::LoadError;
use crate::expiry::Ttl;
use crate::invalidation::Group;
use crate::key::Key;
use crate::load::answer::{Answer, Decision, Known, Request, Way, answer, renew};
use crate::load::choose::{Choice, Found, choose};
use crate::load::flight::Kind;
use crate::load::options::{LoadOptions, option_methods};
use crate::load::outcome::{Failure, Loader, Made, Product, SourceError};
use crate::reading::Reading;
use crate::shared::Shared;
use crate::store::{Guarantee, Peek};

/// A load that was asked for; `.await` it. Made by [`Cache::get_or_load`],
/// [`Cache::get_or_load_optional`] and [`Cache::get_or_load_with`], which `Gives` tells apart.
#[must_use = "it does nothing until it is awaited"]
pub struct Load<'a, T, E, F, Tags, Gives = Value> {
    cache: &'a Cache,
    key: &'a str,
    loader: F,
    /// `None`: the cache's, so that a call without options copies none.
    options: Option<LoadOptions>,
    tags: Tags,
    types: Types<T, E, Gives>,
}

type Types<T, E, Gives> = PhantomData<fn() -> (T, E, Gives)>;

/// The tags of a load that names none.
pub type NoTags = [&'static str; 0];

impl<'a, T, E, F, Gives> Load<'a, T, E, F, NoTags, Gives> {
    pub(super) fn new(cache: &'a Cache, key: &'a str, loader: F) -> Self {
        Self { cache, key, loader, options: None, tags: [], types: PhantomData }
    }
}

impl<'a, T, E, F, Tags, Gives> Load<'a, T, E, F, Tags, Gives> {
    /// How long a loaded value lives. Default: the cache's.
    ///
    /// A time that is not allowed (zero, or more than ten years) means that the value is returned
    /// but not stored; the error is counted.
    pub fn ttl(self, ttl: impl Into<Ttl>) -> Self {
        self.change(|options| options.ttl(ttl))
    }

    /// All options at once, in place of the cache's and of those set before.
    pub fn options(mut self, options: LoadOptions) -> Self {
        self.options = Some(options);
        self
    }

    fn change(mut self, change: impl FnOnce(LoadOptions) -> LoadOptions) -> Self {
        let options = self.options.unwrap_or_else(|| self.cache.shared().options);
        self.options = Some(change(options));
        self
    }

    option_methods!("for this load");

    /// The tags of a loaded value: [`Cache::invalidate_tag`] of any of them takes it away. Looked
    /// at on a miss only. With tags that are not allowed the value is returned but not stored.
    pub fn tags<More>(self, tags: More) -> Load<'a, T, E, F, More, Gives>
    where
        More: IntoIterator,
        More::Item: AsRef<str>,
    {
        let Self { cache, key, loader, options, types, tags: _ } = self;
        Load { cache, key, loader, options, tags, types }
    }
}

/// The future of a [`Load`]: ready at once on a hit in memory.
#[must_use = "it does nothing until it is awaited"]
pub enum LoadFuture<'a, R, E> {
    /// The answer was there; `None` once it was handed out.
    Ready(Option<R>),
    /// It is being looked up or loaded.
    Pending(BoxFuture<'a, Result<R, LoadError<E>>>),
}

impl<R, E> Future for LoadFuture<'_, R, E> {
    type Output = Result<R, LoadError<E>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.get_mut() {
            // Polled again after its end it stays pending, as a finished future may.
            Self::Ready(answer) => {
                answer.take().map_or(Poll::Pending, |answer| Poll::Ready(Ok(answer)))
            }
            Self::Pending(load) => load.as_mut().poll(cx),
        }
    }
}

impl<R, E> Unpin for LoadFuture<'_, R, E> {}

impl<'a, T, E, F, Fut, Tags> IntoFuture for Load<'a, T, E, F, Tags, Value>
where
    T: Cacheable,
    E: Send + Sync + 'static,
    F: FnOnce() -> Fut + Send + 'static,
    Fut: Future<Output = Result<T, E>> + Send + 'static,
    Tags: IntoIterator,
    Tags::Item: AsRef<str>,
{
    type Output = Result<Hit<T>, LoadError<E>>;
    type IntoFuture = LoadFuture<'a, Hit<T>, E>;

    fn into_future(self) -> Self::IntoFuture {
        let start = self.start(Kind::of::<T, E>(), false, |loader| {
            Box::new(move |_| {
                Box::pin(async move {
                    let loaded = loader().await.map_err(|error| Arc::new(error) as SourceError);
                    loaded.map(|value| Product::of(Made::Value(Arc::new(value))))
                })
            })
        });
        match start {
            Start::Here(Some(hit)) => LoadFuture::Ready(Some(hit)),
            Start::Here(None) => LoadFuture::Pending(Box::pin(async { Err(LoadError::Aborted) })),
            Start::Away(answer) => LoadFuture::Pending(Box::pin(
                answer.map(|outcome| typed(outcome).and_then(|hit| hit.ok_or(LoadError::Aborted))),
            )),
        }
    }
}

impl<'a, T, E, F, Fut, Tags> IntoFuture for Load<'a, T, E, F, Tags, Optional>
where
    T: Cacheable,
    E: Send + Sync + 'static,
    F: FnOnce() -> Fut + Send + 'static,
    Fut: Future<Output = Result<Option<T>, E>> + Send + 'static,
    Tags: IntoIterator,
    Tags::Item: AsRef<str>,
{
    type Output = Result<Option<Hit<T>>, LoadError<E>>;
    type IntoFuture = LoadFuture<'a, Option<Hit<T>>, E>;

    fn into_future(self) -> Self::IntoFuture {
        let start = self.start(Kind::of::<Option<T>, E>(), true, |loader| {
            Box::new(move |_| {
                Box::pin(async move {
                    let loaded = loader().await.map_err(|error| Arc::new(error) as SourceError)?;
                    let made = loaded.map(|value| Made::Value(Arc::new(value)));
                    Ok(Product::of(made.unwrap_or(Made::Nothing)))
                })
            })
        });
        match start {
            Start::Here(answer) => LoadFuture::Ready(Some(answer)),
            Start::Away(answer) => LoadFuture::Pending(Box::pin(answer.map(typed))),
        }
    }
}

impl<'a, T, E, F, Fut, Tags> IntoFuture for Load<'a, T, E, F, Tags, Adaptive>
where
    T: Cacheable,
    E: Send + Sync + 'static,
    F: FnOnce(LoadCx<T>) -> Fut + Send + 'static,
    Fut: Future<Output = Result<Loaded<T>, E>> + Send + 'static,
    Tags: IntoIterator,
    Tags::Item: AsRef<str>,
{
    type Output = Result<Hit<T>, LoadError<E>>;
    type IntoFuture = LoadFuture<'a, Hit<T>, E>;

    fn into_future(self) -> Self::IntoFuture {
        let start = self.start(Kind::of::<Loaded<T>, E>(), false, |loader| {
            Box::new(move |held: Option<Object>| {
                Box::pin(async move {
                    let loaded = loader(LoadCx::new(held)).await;
                    loaded.map(Loaded::erased).map_err(|error| Arc::new(error) as SourceError)
                })
            })
        });
        match start {
            Start::Here(Some(hit)) => LoadFuture::Ready(Some(hit)),
            Start::Here(None) => LoadFuture::Pending(Box::pin(async { Err(LoadError::Aborted) })),
            Start::Away(answer) => LoadFuture::Pending(Box::pin(
                answer.map(|outcome| typed(outcome).and_then(|hit| hit.ok_or(LoadError::Aborted))),
            )),
        }
    }
}

/// How a load begins.
enum Start<T, Away> {
    /// It is already over; `None`: the source has no value.
    Here(Option<Hit<T>>),
    Away(Away),
}

impl<T, E, F, Tags, Gives> Load<'_, T, E, F, Tags, Gives>
where
    T: Cacheable,
    E: Send + Sync + 'static,
    Tags: IntoIterator,
    Tags::Item: AsRef<str>,
{
    /// Looks into memory; `erase` makes the loader of what may have to be done.
    #[inline]
    fn start(
        self,
        kind: Kind,
        optional: bool,
        erase: impl FnOnce(F) -> Loader,
    ) -> Start<T, impl Future<Output = Result<Answer, Failure>> + Send + 'static> {
        let Self { cache, key: name, loader, ref options, tags, types: _ } = self;
        let shared = cache.shared();
        let options = options.as_ref().unwrap_or(&shared.options);
        let request = || Request {
            namespace: cache.namespace_ref().clone(),
            name: name.to_owned(),
            kind,
            tags: Group::tags(tags),
            options: *options,
            ops: TypeOps::by::<T>(&shared.codecs),
            optional,
            loader: erase(loader),
        };
        // Before anything is looked at.
        let reading = shared.reading(cache.namespace_ref());
        let away = |known, request, reading| {
            Start::Away(answer(Arc::clone(shared), known, request, reading))
        };
        let key = match Key::new(cache.namespace_ref(), name) {
            Ok(key) => key,
            Err(error) => {
                shared.miss_of(cache.namespace_ref(), name);
                shared.counters.errors.count(error.kind());
                return away(Known::Load(None, false), request(), reading);
            }
        };
        let now = shared.clock.now();
        let Glance { value, guarantee, bytes, early, found, read, peek } =
            shared.glance::<T>(&key, options, now, reading.is_some());
        if let Some(value) = value {
            shared.hit(&key, bytes);
            if let (Some(reading), Some(entry)) = (reading, read) {
                reading.entry(key.namespace(), name, &entry);
            }
            if early.is_some_and(|early| shared.is_time(&key, early, options)) {
                let mut held = None;
                shared.peek(&key, &mut |entry, guarantee| held = Some((entry.clone(), guarantee)));
                let ops = TypeOps::by::<T>(&shared.codecs);
                if let Some(held) = held.and_then(|found| shared.hold(&key, found, ops, optional)) {
                    // What a memory tier shows is stored elsewhere.
                    let local = !peek.asks() && guarantee == Guarantee::Fresh;
                    renew(shared, &key, held, local, request);
                }
            }
            return Start::Here(Some(Hit::new(value, guarantee, Source::Hit)));
        }
        if peek == Peek::Ask && found.is_none() {
            return away(Known::Ask(None), request(), reading);
        }
        let ops = TypeOps::by::<T>(&shared.codecs);
        let held = found.and_then(|found| shared.hold(&key, found, ops, optional));
        if peek.asks() {
            let spared = held.as_ref().filter(|_| peek == Peek::Away);
            if let Some(answer) = spared.and_then(|held| shared.spared(&key, held, options)) {
                return Start::Here(hit_noted(answer, &key, reading));
            }
            return away(Known::Ask(held), request(), reading);
        }
        match shared.decide(&key, held, options) {
            Decision::Serve(answer) => Start::Here(hit_noted(answer, &key, reading)),
            Decision::Renew(answer, held) => {
                renew(shared, &key, held, true, request);
                Start::Here(hit_noted(answer, &key, reading))
            }
            Decision::Load(held, has_fallback) => {
                away(Known::Load(held, has_fallback), request(), reading)
            }
        }
    }
}

/// What memory shows of a key.
struct Glance<T> {
    /// A fresh value.
    value: Option<Arc<T>>,
    /// What is known of that.
    guarantee: Guarantee,
    /// Its size, if somebody wants to hear of it.
    bytes: Option<usize>,
    /// What tells whether it is to be renewed early, if that is asked for.
    early: Option<Found>,
    /// What that was stored as, if the lookup is noted.
    read: Option<Entry>,
    /// What else there is.
    found: Option<(Entry, Guarantee)>,
    peek: Peek,
}

impl Shared {
    #[inline]
    fn glance<T: Cacheable>(
        &self,
        key: &Key<'_>,
        options: &LoadOptions,
        now: Time,
        is_noted: bool,
    ) -> Glance<T> {
        let (mut value, mut bytes, mut early, mut found) = (None, None, None, None);
        let (mut undecoded, mut read, mut fresh) = (None, None, Guarantee::Fresh);
        let peek = self.store.peek(key, now, &mut |entry, guarantee| {
            if !guarantee.is_fresh() || entry.meta().negative {
                found = Some((entry.clone(), guarantee));
                return;
            }
            fresh = guarantee;
            // Code of the type does not run under a lock: it may be slow, or use the cache.
            value = entry.decoded::<T>();
            if value.is_none() {
                undecoded = Some(entry.clone());
            }
            if self.listeners.is_some() {
                bytes = entry.known_bytes();
            }
            if is_noted {
                read = Some(entry.clone());
            }
            if options.early_refresh.is_some() {
                early = Some(Found::of(entry.meta(), guarantee, now));
            }
        });
        if let Some(entry) = undecoded {
            value = self.decode(key, &entry);
        }
        Glance { value, guarantee: fresh, bytes, early, read, found, peek }
    }

    /// Whether a fresh value is to be renewed now.
    fn is_time(&self, key: &Key<'_>, found: Found, options: &LoadOptions) -> bool {
        let draw = || 1.0 - rand::random::<f64>();
        let choice = choose(Some(found), options, || self.is_throttled(key, options), draw);
        matches!(choice, Choice::ServeAndRefresh(_))
    }
}

/// The hit of an answer that memory gave, noted.
fn hit_noted<T: Send + Sync + 'static>(
    answer: Answer,
    key: &Key<'_>,
    reading: Option<Reading>,
) -> Option<Hit<T>> {
    if let Some(reading) = reading {
        reading.value(key.namespace(), key.name(), &answer.basis, answer.guarantee);
    }
    hit_of(answer)
}

pub(super) fn hit_of<T: Send + Sync + 'static>(answer: Answer) -> Option<Hit<T>> {
    let Answer { object, guarantee, way, basis: _ } = answer;
    let source = match way {
        _ if guarantee.is_stale() => Source::Stale,
        Way::Found => Source::Hit,
        Way::Loaded => Source::Loaded,
        Way::Joined => Source::Coalesced,
    };
    // The flight's kind has this very type, so the downcast cannot fail.
    let value = object?.downcast::<T>().ok()?;
    Some(Hit::new(value, guarantee, source))
}

fn typed<T, E>(outcome: Result<Answer, Failure>) -> Result<Option<Hit<T>>, LoadError<E>>
where
    T: Send + Sync + 'static,
    E: Send + Sync + 'static,
{
    outcome.map(hit_of).map_err(error_of)
}

pub(super) fn error_of<E: Send + Sync + 'static>(failure: Failure) -> LoadError<E> {
    match failure {
        Failure::Source(error) => {
            error.downcast::<E>().map_or(LoadError::Aborted, LoadError::Source)
        }
        Failure::Panicked => LoadError::Panicked,
        Failure::TimedOut => LoadError::TimedOut,
        Failure::Reentrant => LoadError::Reentrant,
        Failure::NotModified => LoadError::NotModified,
        Failure::Overloaded => LoadError::Overloaded,
        Failure::NoRuntime => LoadError::NoRuntime,
        Failure::Aborted | Failure::Elsewhere => LoadError::Aborted,
    }
}
