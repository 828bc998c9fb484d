//! Keeps responses in the cache below, and finds the one that a request selects.
//!
//! A response that nothing but its URL selects lies under its primary key. Where `Vary` selected
//! one, an index lies there, and each variant under a key of its own. Whoever fetches takes a lease
//! first: of the primary key while nothing is known of the URL, else of its variant, so that
//! variants are fetched side by side, also by several processes. An invalidation during the fetch
//! is not undone: it ends the lease of the primary key; or it takes the index away, whose random
//! generation a variant must meet again to be listed; or its tag is among those of the variant.
//!
//! The index is changed by one at a time: under a lock in this process, and a short lease.
//!
//! Of a large response, a store behind a network gets only the head; [`large`] has the body.
//!
//! Never decides what may be stored or reused. A store that fails is a miss, never an error.

mod form;
mod large;
mod purge;
mod stored;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, SystemTime},
};

use http::{HeaderMap, HeaderName, header::DATE};
use tachikoma_cache::{
    Entries, EntryLease, Error, Health, Removed, Ttl, dependencies::Dependencies, expiry::MAX_TTL,
    invalidation::MAX_TAGS,
};
use tokio::sync::{Mutex, MutexGuard};
use xxhash_rust::xxh3::xxh3_128_with_seed;

use crate::{
    key::Key,
    policy::{Options, date, decision::Forward, request::RequestFacts},
};

use large::Large;
pub(crate) use large::MAX_SHARED;
pub(crate) use purge::{Matching, beginning, matching};
pub(crate) use stored::{Index, Stored, StoredResponse, Variant};

/// At most this many variants of one URL are kept: the most recent ones.
const MAX_VARIANTS: usize = 32;

/// How often a variant tries to get into the index that others are changing; each time it waits
/// a few milliseconds longer, in all about half a second.
const LIST_TRIES: u32 = 12;

/// Locks for the indexes, shared by hash.
const LOCKS: usize = 16;

/// A key that no response has: every name goes on after the method.
const NOWHERE: &str = "GET";

/// Where a response belongs that is fetched for a request: under the primary key, or into the index
/// of this generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Place(Option<u128>);

/// What is stored for a request.
#[derive(Debug)]
pub(crate) enum Found {
    /// This response is selected.
    Response(Arc<Stored>, Place),
    /// Nothing is, and why; and the request fields that are known to select its variants.
    Nothing(Forward, Vec<HeaderName>, Place),
}

impl Found {
    /// Nothing is known of this URL.
    pub(crate) fn nothing() -> Self {
        Self::Nothing(Forward::UriMiss, Vec::new(), Place::default())
    }

    pub(crate) fn place(&self) -> Place {
        match self {
            Self::Response(_, place) | Self::Nothing(_, _, place) => *place,
        }
    }
}

/// What allows a response to be stored.
#[derive(Debug)]
pub(crate) enum Right {
    /// This does.
    Lease(FillLease),
    /// Nothing: another process is fetching it.
    Held,
    /// Nothing: the store does not work.
    Failed,
}

/// The right to store a response in its place.
#[derive(Debug)]
pub(crate) struct FillLease {
    lease: EntryLease,
    /// The variant's own key and the generation of the index that it belongs to.
    variant: Option<(u128, u128)>,
}

/// The store could not say what it has.
#[derive(Debug)]
pub(crate) struct StoreFailed;

/// Responses in a cache.
#[derive(Debug)]
pub(crate) struct Storage {
    entries: Entries,
    large: Large,
    /// Makes the names of variants unique: random per process, counted within it.
    seed: u64,
    next: AtomicU64,
    /// Held by who changes an index.
    locks: [Mutex<()>; LOCKS],
}

impl Storage {
    /// Responses in these entries; in memory at most so many bytes of large bodies.
    pub(crate) fn new(entries: Entries, max_large_bytes: u64) -> Self {
        // The random state of the standard library's maps is the one source of randomness here.
        let seed = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), 0_u8);
        let large = Large::new(max_large_bytes, Arc::clone(entries.clock()));
        Self { entries, large, seed, next: AtomicU64::new(0), locks: Default::default() }
    }

    pub(crate) fn max_large_bytes(&self) -> u64 {
        self.large.max_bytes()
    }

    /// How many bytes of large bodies are held in memory now.
    pub(crate) fn large_bytes(&self) -> u64 {
        self.large.used()
    }

    /// Whether entries cross a network: only a store that has all of them here can say at once that
    /// it has none.
    fn is_remote(&self) -> bool {
        self.entries.peek::<Stored>(NOWHERE).is_none()
    }

    pub(crate) fn entries(&self) -> &Entries {
        &self.entries
    }

    /// What a request selects, if that needs no waiting.
    pub(crate) fn peek(
        &self,
        key: &Key,
        request: &HeaderMap,
        facts: &RequestFacts,
    ) -> Option<Found> {
        let primary = self.entries.peek::<Stored>(&key.name)?;
        let index = match under(key, primary) {
            Some(stored) => match whole_or_index(stored, facts) {
                Ok(found) => return Some(self.with_body(key, found, &[])),
                Err(index) => index,
            },
            None => return Some(Found::nothing()),
        };
        let (variants, place) = (variants(&index), place(&index));
        for variant in candidates(variants, request, facts) {
            let stored = self.entries.peek::<Stored>(&key.variant(variant.id))?;
            if let Some(stored) = under(key, stored).filter(|stored| selected(stored, request)) {
                return Some(self.with_body(key, Found::Response(stored, place), variants));
            }
        }
        Some(Found::Nothing(Forward::VaryMiss, names(variants), place))
    }

    /// What a request selects.
    pub(crate) async fn find(
        &self,
        key: &Key,
        request: &HeaderMap,
        facts: &RequestFacts,
    ) -> Result<Found, StoreFailed> {
        let index = match under(key, self.get(&key.name).await?) {
            Some(stored) => match whole_or_index(stored, facts) {
                Ok(found) => return Ok(self.with_body(key, found, &[])),
                Err(index) => index,
            },
            None => return Ok(Found::nothing()),
        };
        let (variants, place) = (variants(&index), place(&index));
        for variant in candidates(variants, request, facts) {
            let stored = self.get(&key.variant(variant.id)).await?;
            if let Some(stored) = under(key, stored).filter(|stored| selected(stored, request)) {
                return Ok(self.with_body(key, Found::Response(stored, place), variants));
            }
        }
        Ok(Found::Nothing(Forward::VaryMiss, names(variants), place))
    }

    /// The same with its body. An older variant is not used where this process has not got that of
    /// the most recent one.
    fn with_body(&self, key: &Key, found: Found, variants: &[Variant]) -> Found {
        let Found::Response(stored, place) = found else { return found };
        match self.large.join(key, stored) {
            Some(stored) => Found::Response(stored, place),
            None => Found::Nothing(Forward::Elsewhere, names(variants), place),
        }
    }

    async fn get(&self, name: &str) -> Result<Option<Arc<Stored>>, StoreFailed> {
        self.entries.get(name).await.map_err(|error| {
            tracing::debug!(%error, "the response cache could not look up: a miss");
            StoreFailed
        })
    }

    /// The right to store a response, to be taken before the origin is asked. `variant` names what
    /// is fetched among the variants of its URL.
    pub(crate) async fn begin(&self, key: &Key, place: Place, variant: &str) -> Right {
        let variant = place.0.map(|generation| {
            let seed = u64::try_from(generation & u128::from(u64::MAX)).unwrap_or_default();
            (xxh3_128_with_seed(variant.as_bytes(), seed), generation)
        });
        let begun = match variant {
            Some((id, _)) => self.entries.begin(&key.variant(id)).await,
            None => self.entries.begin(&key.name).await,
        };
        match begun {
            Ok(lease) if lease.may_store() => Right::Lease(FillLease { lease, variant }),
            Ok(_) if self.entries.cache().health() == Health::Up => Right::Held,
            _ => Right::Failed,
        }
    }

    /// Stores a response; whether it is visible now.
    pub(crate) async fn fill(
        &self,
        key: &Key,
        lease: FillLease,
        stored: Arc<Stored>,
        read: &Dependencies,
        options: &Options,
        now: SystemTime,
    ) -> Result<bool, Error> {
        let Some(head) = stored.head() else { return Ok(false) };
        let keep = head.terms.worth_keeping(now, options.keep_stale);
        let keep = keep.clamp(Duration::from_millis(1), MAX_TTL);
        let large = stored.response().filter(|whole| whole.body.len() > MAX_SHARED);
        let Some(large) = large.filter(|_| self.is_remote()) else {
            return self.fill_entry(key, lease, stored, read, keep, now).await;
        };
        let (apart, name) = self.large.part(large)?;
        let visible = self.fill_entry(key, lease, Arc::new(apart), read, keep, now).await?;
        if visible {
            self.large.put(key, name, stored, keep).await;
        }
        Ok(visible)
    }

    async fn fill_entry(
        &self,
        key: &Key,
        lease: FillLease,
        stored: Arc<Stored>,
        read: &Dependencies,
        keep: Duration,
        now: SystemTime,
    ) -> Result<bool, Error> {
        let Some(response) = stored.head() else { return Ok(false) };
        let tags = response.tags.clone();
        let variant = |id| Variant {
            id,
            created: date::read(&response.headers, &DATE).valid().unwrap_or(now),
            expires: now + keep,
            selector: response.selector.clone(),
            tags: tags.clone(),
        };
        if let Some((id, generation)) = lease.variant {
            let variant = variant(id);
            if !self.entries.fill_with(lease.lease, stored, keep, &tags, read).await? {
                return Ok(false);
            }
            return self.list(key, generation, variant, now).await;
        }
        let _one = self.lock(key).await;
        let known = under(key, self.get(&key.name).await.unwrap_or_default());
        let known = known.as_deref().and_then(Stored::index);
        if response.selector.fields.is_empty() && known.is_none() {
            return self.entries.fill_with(lease.lease, stored, keep, tags, read).await;
        }
        let id = self.unique(key);
        let variant = variant(id);
        self.entries.put_with(&key.variant(id), stored, keep, &tags, read).await?;
        let generation = known.map_or_else(|| self.unique(key), |index| index.generation);
        let (index, replaced) = with_variant(key, generation, known, variant, now);
        let visible = self.fill_index(lease.lease, index, now).await;
        // What nothing points to any more would only wait for its end.
        let orphans = if matches!(visible, Ok(true)) { replaced } else { vec![id] };
        self.drop_orphans(key, &orphans).await;
        visible
    }

    /// Lists a variant that is stored in the index of its generation; whether it is visible now.
    async fn list(
        &self,
        key: &Key,
        generation: u128,
        variant: Variant,
        now: SystemTime,
    ) -> Result<bool, Error> {
        let _one = self.lock(key).await;
        for attempt in 1..=LIST_TRIES {
            let lease = self.entries.begin(&key.name).await?;
            if lease.may_store() {
                // Read under the lease: whoever changes it from here on ends the lease.
                let known = under(key, self.entries.get(&key.name).await?);
                let known = known.as_deref().and_then(Stored::index);
                let Some(known) = known.filter(|known| known.generation == generation) else {
                    // Invalidated meanwhile.
                    break;
                };
                let id = variant.id;
                let (index, gone) =
                    with_variant(key, generation, Some(known), variant.clone(), now);
                if self.fill_index(lease, index, now).await? {
                    self.drop_orphans(key, &gone).await;
                    return Ok(!gone.contains(&id));
                }
            }
            pause(Duration::from_millis(u64::from(attempt) * 7)).await;
        }
        self.drop_orphans(key, &[variant.id]).await;
        Ok(false)
    }

    async fn fill_index(
        &self,
        lease: EntryLease,
        index: Index,
        now: SystemTime,
    ) -> Result<bool, Error> {
        let life = index.variants.iter().map(|variant| variant.expires).max();
        let life = life.and_then(|end| end.duration_since(now).ok()).unwrap_or_default();
        let life = life.clamp(Duration::from_millis(1), MAX_TTL);
        let tags: Vec<String> = all_tags(&index.variants);
        self.entries.fill(lease, Arc::new(Stored::Index(index)), Ttl::from(life), tags).await
    }

    async fn lock(&self, key: &Key) -> MutexGuard<'_, ()> {
        let hash = xxh3_128_with_seed(key.name.as_bytes(), self.seed) % LOCKS as u128;
        self.locks[usize::try_from(hash).unwrap_or_default()].lock().await
    }

    /// Removes all that is stored under these keys; how many responses that were.
    ///
    /// The primary keys go first, and together: with them, each variant and each fill under way is
    /// out of reach.
    pub(crate) async fn remove(&self, keys: &[Key]) -> Result<Removed, Error> {
        let (mut indexes, mut orphans) = (0, Vec::new());
        for key in keys {
            // A store that fails here fails below too, where it is said.
            let Ok(known) = self.get(&key.name).await else { break };
            if let Some(Index { variants, .. }) = known.as_deref().and_then(Stored::index) {
                indexes += 1;
                orphans.extend(variants.iter().map(|variant| key.variant(variant.id)));
            }
        }
        let names: Vec<_> = keys.iter().map(|key| &key.name).collect();
        let removed = self.entries.remove(&names).await?;
        let but_indexes = |count: u64| count.saturating_sub(indexes);
        let removed = Removed {
            memory: removed.memory.map(but_indexes),
            redis: removed.redis.map(but_indexes),
        };
        if orphans.is_empty() {
            return Ok(removed);
        }
        Ok(removed.and(self.entries.remove(&orphans).await?))
    }

    /// Lets go of the large bodies of these keys, which nobody can reach once they are removed.
    pub(crate) async fn forget_bodies(&self, keys: &[Key]) {
        self.large.forget(keys).await;
    }

    /// How many responses [`remove`](Self::remove) would remove.
    pub(crate) async fn count(&self, key: &Key) -> Result<u64, Error> {
        let Some(stored) = self.entries.get::<Stored>(&key.name).await? else {
            return Ok(0);
        };
        let Some(index) = stored.index() else {
            return Ok(1);
        };
        let mut live = 0;
        for variant in &index.variants {
            let name = key.variant(variant.id);
            live += u64::from(self.entries.cache().exists(&name).await?);
        }
        Ok(live)
    }

    async fn drop_orphans(&self, key: &Key, ids: &[u128]) {
        let names: Vec<String> = ids.iter().map(|id| key.variant(*id)).collect();
        if let Err(error) = self.entries.remove(&names).await {
            tracing::debug!(%error, "an unused variant stays until its end");
        }
    }

    fn unique(&self, key: &Key) -> u128 {
        let count = self.next.fetch_add(1, Relaxed);
        let text = format!("{count} {}", key.name);
        xxh3_128_with_seed(text.as_bytes(), self.seed)
    }
}

/// What is stored, if it is of this very URL: a hash in its name proves nothing.
fn under(key: &Key, stored: Option<Arc<Stored>>) -> Option<Arc<Stored>> {
    stored.filter(|stored| stored.whole() == key.whole.as_deref())
}

/// What lies under a primary key: a response that every request selects, or else an index.
fn whole_or_index(stored: Arc<Stored>, facts: &RequestFacts) -> Result<Found, Arc<Stored>> {
    match &*stored {
        Stored::Index(_) => Err(stored),
        // A header that no key holds could have changed the answer to this request.
        Stored::Response(_) | Stored::Apart(..) if !facts.must_select.is_empty() => {
            Ok(Found::Nothing(Forward::VaryMiss, Vec::new(), Place::default()))
        }
        Stored::Response(_) | Stored::Apart(..) => Ok(Found::Response(stored, Place::default())),
    }
}

fn variants(stored: &Stored) -> &[Variant] {
    stored.index().map_or(&[], |index| &index.variants)
}

fn place(stored: &Stored) -> Place {
    Place(stored.index().map(|index| index.generation))
}

/// The request fields that select among these variants.
fn names(variants: &[Variant]) -> Vec<HeaderName> {
    let fields = variants.iter().flat_map(|variant| &variant.selector.fields);
    let mut names: Vec<_> = fields.map(|(name, _)| name.clone()).collect();
    names.sort_by(|a, b| a.as_str().cmp(b.as_str()));
    names.dedup();
    names
}

/// The variants that a request selects (RFC 9111 §4.1), the most recent one first.
fn candidates<'a>(
    variants: &'a [Variant],
    request: &HeaderMap,
    facts: &RequestFacts,
) -> impl Iterator<Item = &'a Variant> {
    variants.iter().rev().filter(|variant| {
        variant.selector.matches(request) && variant.selector.covers(&facts.must_select)
    })
}

/// What another request brought, if this one selects it too.
pub(crate) fn brought(
    key: &Key,
    stored: Arc<Stored>,
    request: &HeaderMap,
    facts: &RequestFacts,
) -> Option<Found> {
    let stored = under(key, Some(stored)).filter(|stored| selected(stored, request))?;
    let covers = stored.response()?.selector.covers(&facts.must_select);
    covers.then_some(Found::Response(stored, Place::default()))
}

fn selected(stored: &Stored, request: &HeaderMap) -> bool {
    stored.head().is_some_and(|head| head.selector.matches(request))
}

/// An index with one more variant, and the variants that it no longer lists.
fn with_variant(
    key: &Key,
    generation: u128,
    known: Option<&Index>,
    variant: Variant,
    now: SystemTime,
) -> (Index, Vec<u128>) {
    let known = known.map_or(&[][..], |index| &index.variants);
    let (mut kept, gone): (Vec<_>, Vec<_>) = known.iter().cloned().partition(|known| {
        known.selector != variant.selector && known.id != variant.id && known.expires > now
    });
    let mut gone: Vec<u128> = gone.into_iter().map(|variant| variant.id).collect();
    gone.retain(|id| *id != variant.id);
    kept.push(variant);
    // Where several match, the one with the most recent `Date` is selected (RFC 9111 §4).
    kept.sort_by_key(|variant| variant.created);
    while kept.len() > 1 && (kept.len() > MAX_VARIANTS || all_tags(&kept).len() > MAX_TAGS) {
        gone.push(kept.remove(0).id);
    }
    (Index { whole: key.whole.clone(), generation, variants: kept }, gone)
}

/// Waits in real time.
pub(crate) async fn pause(time: Duration) {
    // Nothing ever comes, so it is the limit that ends it.
    let _ = tokio::time::timeout(time, std::future::pending::<()>()).await;
}

/// The index carries the tags of its variants: so an invalidation of any of them ends a fill that
/// is under way.
fn all_tags(variants: &[Variant]) -> Vec<String> {
    let mut tags: Vec<String> = variants.iter().flat_map(|variant| variant.tags.clone()).collect();
    tags.sort();
    tags.dedup();
    tags
}

#[cfg(test)]
mod tests;
