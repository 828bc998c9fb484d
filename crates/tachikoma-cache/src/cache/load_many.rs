//! `get_or_load_many` as a caller writes it: options, then `.await`.

use std::collections::HashMap;
use std::fmt;
use std::future::{Future, IntoFuture};
use std::marker::PhantomData;
use std::sync::Arc;

use futures_util::future::BoxFuture;

use super::get_or_load::{error_of, hit_of};
use super::{Cache, Hit};
use crate::codec::{Cacheable, TypeOps};
use crate::entry::Object;
use crate::error::{Error, LoadError};
use crate::expiry::Ttl;
use crate::invalidation::Group;
use crate::load::answer::Answer;
use crate::load::batch::{Found, Source, Terms};
use crate::load::flight::Kind;
use crate::load::many::{Wanted, answer_many};
use crate::load::options::{LoadOptions, option_methods};
use crate::load::outcome::{Made, Product, SourceError};
use crate::runtime::{Mutex, lock};

/// A load of several keys that was asked for; `.await` it. Made by [`Cache::get_or_load_many`].
#[must_use = "it does nothing until it is awaited"]
pub struct LoadMany<'a, T, E, F> {
    cache: &'a Cache,
    keys: Vec<String>,
    loader: F,
    options: LoadOptions,
    tags: Result<Vec<Group>, Error>,
    types: PhantomData<fn() -> (T, E)>,
}

impl<T, E, F> LoadMany<'_, T, E, F> {
    /// How long loaded values live. Default: the cache's. As [`Load::ttl`](super::Load::ttl).
    pub fn ttl(mut self, ttl: impl Into<Ttl>) -> Self {
        self.options = self.options.ttl(ttl);
        self
    }

    /// All options at once, in place of the cache's and of those set before.
    pub fn options(mut self, options: LoadOptions) -> Self {
        self.options = options;
        self
    }

    fn change(mut self, change: impl FnOnce(LoadOptions) -> LoadOptions) -> Self {
        self.options = change(self.options);
        self
    }

    option_methods!("for this load");

    /// The tags of each loaded value. As [`Load::tags`](super::Load::tags).
    pub fn tags<S: AsRef<str>>(mut self, tags: impl IntoIterator<Item = S>) -> Self {
        self.tags = Group::tags(tags);
        self
    }
}

impl<T, E, F> fmt::Debug for LoadMany<'_, T, E, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoadMany").field("keys", &self.keys.len()).finish_non_exhaustive()
    }
}

impl<'a, T, E, F, Fut, Items> IntoFuture for LoadMany<'a, T, E, F>
where
    T: Cacheable,
    E: Send + Sync + 'static,
    F: FnOnce(Vec<String>) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = Result<Items, E>> + Send + 'static,
    Items: IntoIterator<Item = (String, T)>,
{
    type Output = Result<Vec<Option<Hit<T>>>, LoadError<E>>;
    type IntoFuture = BoxFuture<'a, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        let Self { cache, keys, loader, options, tags, types: _ } = self;
        let shared = Arc::clone(cache.shared());
        let terms = Terms {
            namespace: cache.namespace_ref().clone(),
            kind: Kind::of::<T, E>(),
            tags: Vec::new(),
            options,
            ops: TypeOps::by::<T>(&shared.codecs),
            store: true,
            local: true,
            source: source(loader),
        };
        // Before anything is looked at.
        let mut reading = shared.reading(cache.namespace_ref());
        Box::pin(async move {
            // Each name once, and where in the answers it is.
            let mut places: HashMap<String, usize> = HashMap::with_capacity(keys.len());
            let mut names = Vec::new();
            let mut order = Vec::with_capacity(keys.len());
            for key in keys {
                let next = names.len();
                let place = *places.entry(key).or_insert_with_key(|key| {
                    names.push(key.clone());
                    next
                });
                order.push(place);
            }
            let (space, noted) = (terms.namespace.clone(), reading.as_ref().map(|_| names.clone()));
            shared.settle(&mut reading, &space).await;
            let wanted = Wanted { names, tags, terms };
            let answers = answer_many(&shared, wanted).await;
            if let (Some(reading), Some(names)) = (reading, noted) {
                for (place, name) in names.iter().enumerate() {
                    match answers.as_ref().ok().and_then(|answers| answers.get(place)) {
                        Some(Answer { basis, guarantee, .. }) => {
                            reading.value(&space, name, basis, *guarantee);
                        }
                        None => reading.key(&space, name),
                    }
                }
            }
            let answers = answers.map_err(error_of)?;
            let hits: Vec<Option<Hit<T>>> = answers.into_iter().map(hit_of).collect();
            Ok(order.into_iter().map(|place| hits.get(place).cloned().flatten()).collect())
        })
    }
}

fn source<T, E, F, Fut, Items>(loader: F) -> Source
where
    T: Cacheable,
    E: Send + Sync + 'static,
    F: FnOnce(Vec<String>) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = Result<Items, E>> + Send + 'static,
    Items: IntoIterator<Item = (String, T)>,
{
    let loader = Mutex::new(loader);
    Arc::new(move |names| {
        let loader = lock(&loader).clone();
        Box::new(move |_| {
            Box::pin(async move {
                let items = loader(names).await.map_err(|error| Arc::new(error) as SourceError)?;
                let found: Found = items
                    .into_iter()
                    .map(|(key, value)| (key, Arc::new(value) as Object))
                    .collect();
                Ok(Product::of(Made::Value(Arc::new(found))))
            })
        })
    })
}

impl Cache {
    /// The values of these keys, in their order; those that are not there are loaded by one call of
    /// the loader: `cache.get_or_load_many(keys, loader).await`, with options in between
    /// ([`LoadMany`]).
    ///
    /// All keys are looked up in one round trip to a server for each thousand. The loader is given
    /// those that are missing and that nobody else is loading, each once, and returns what it
    /// found, as a map or a list of pairs. What it does not return is `None`; with
    /// [`negative_ttl`](LoadMany::negative_ttl) that is stored too. Each key is loaded by one
    /// caller at a time, whether by this method or by [`get_or_load`](Self::get_or_load) with the
    /// same types: the others wait for it.
    ///
    /// ```
    /// # use {std::{collections::HashMap, io, time::Duration}, tachikoma_cache::Cache};
    /// # async fn users_of(keys: Vec<String>) -> io::Result<HashMap<String, String>> {
    /// #     Ok(keys.into_iter().map(|key| (key.clone(), key)).collect())
    /// # }
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let cache = Cache::memory().build()?;
    /// let keys = ["user:1", "user:2", "user:1"];
    /// let users = cache
    ///     .get_or_load_many(keys, |missing| async move { users_of(missing).await })
    ///     .ttl(Duration::from_secs(60))
    ///     .await?;
    /// assert_eq!(users[0].as_deref().map(String::as_str), Some("user:1"));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// The loader must be `Clone`, because it may be called again: for keys whose load by somebody
    /// else was overtaken by an invalidation, and to renew stale values in the background. A
    /// closure is if what it moves in is. It counts as one load for
    /// [`max_concurrent_loads`](crate::CacheBuilder::max_concurrent_loads) and in the statistics.
    ///
    /// # Errors
    ///
    /// [`LoadError`], mostly the loader's own: then no values are returned, also not those that
    /// were found; they stay in the cache. Who waits for one of the keys gets the error as well.
    ///
    /// # Cancel safety
    ///
    /// As [`get_or_load`](Self::get_or_load): a dropped future takes nobody along.
    pub fn get_or_load_many<T, E, K, F, Fut, Items>(
        &self,
        keys: impl IntoIterator<Item = K>,
        load: F,
    ) -> LoadMany<'_, T, E, F>
    where
        T: Cacheable,
        E: Send + Sync + 'static,
        K: Into<String>,
        F: FnOnce(Vec<String>) -> Fut + Clone + Send + 'static,
        Fut: Future<Output = Result<Items, E>> + Send + 'static,
        Items: IntoIterator<Item = (String, T)>,
    {
        LoadMany {
            cache: self,
            keys: keys.into_iter().map(Into::into).collect(),
            loader: load,
            options: self.shared().options,
            tags: Ok(Vec::new()),
            types: PhantomData,
        }
    }
}
