//! Keeps responses in the cache below, and finds the one that a request selects.
//!
//! A response that nothing but its URL selects lies under its primary key. Where `Vary` selected
//! one, an index lies there, and each variant under a key of its own that is never used twice, so
//! that no fill can touch what another one stored. Only the fill of the primary key makes anything
//! visible, and that goes through a lease: an invalidation during the fetch is not undone.
//!
//! Two processes that add variants at the same moment may lose one: it is fetched once more.
//!
//! Never decides what may be stored or reused. A store that fails is a miss, never an error.

mod form;
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
    Entries, EntryLease, Error, Health, Removed, Ttl, expiry::MAX_TTL, invalidation::MAX_TAGS,
};
use xxhash_rust::xxh3::xxh3_128_with_seed;

use crate::{
    key::Key,
    policy::{Options, date, decision::Forward, request::RequestFacts},
};

pub(crate) use stored::{Index, Stored, StoredResponse, Variant};

/// At most this many variants of one URL are kept: the most recent ones.
const MAX_VARIANTS: usize = 32;

/// What is stored for a request.
#[derive(Debug)]
pub(crate) enum Found {
    /// This response is selected.
    Response(Arc<Stored>),
    /// Nothing is, and why; and the request fields that are known to select its variants.
    Nothing(Forward, Vec<HeaderName>),
}

/// What allows a response to be stored.
#[derive(Debug)]
pub(crate) enum Right {
    /// This does.
    Lease(EntryLease),
    /// Nothing: another process is fetching it.
    Held,
    /// Nothing: the store does not work.
    Failed,
}

/// The store could not say what it has.
#[derive(Debug)]
pub(crate) struct StoreFailed;

/// Responses in a cache.
#[derive(Debug)]
pub(crate) struct Storage {
    entries: Entries,
    /// Makes the names of variants unique: random per process, counted within it.
    seed: u64,
    next: AtomicU64,
}

impl Storage {
    pub(crate) fn new(entries: Entries) -> Self {
        // The random state of the standard library's maps is the one source of randomness here.
        let seed = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), 0_u8);
        Self { entries, seed, next: AtomicU64::new(0) }
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
                Ok(found) => return Some(found),
                Err(index) => index,
            },
            None => return Some(Found::Nothing(Forward::UriMiss, Vec::new())),
        };
        let variants = variants(&index);
        for variant in candidates(variants, request, facts) {
            let stored = self.entries.peek::<Stored>(&key.variant(variant.id))?;
            if let Some(stored) = under(key, stored).filter(|stored| selected(stored, request)) {
                return Some(Found::Response(stored));
            }
        }
        Some(Found::Nothing(Forward::VaryMiss, names(variants)))
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
                Ok(found) => return Ok(found),
                Err(index) => index,
            },
            None => return Ok(Found::Nothing(Forward::UriMiss, Vec::new())),
        };
        let variants = variants(&index);
        for variant in candidates(variants, request, facts) {
            let stored = self.get(&key.variant(variant.id)).await?;
            if let Some(stored) = under(key, stored).filter(|stored| selected(stored, request)) {
                return Ok(Found::Response(stored));
            }
        }
        Ok(Found::Nothing(Forward::VaryMiss, names(variants)))
    }

    async fn get(&self, name: &str) -> Result<Option<Arc<Stored>>, StoreFailed> {
        self.entries.get(name).await.map_err(|error| {
            tracing::debug!(%error, "the response cache could not look up: a miss");
            StoreFailed
        })
    }

    /// The right to store a response of this key, to be taken before the origin is asked.
    pub(crate) async fn begin(&self, key: &Key) -> Right {
        match self.entries.begin(&key.name).await {
            Ok(lease) if lease.may_store() => Right::Lease(lease),
            Ok(_) if self.entries.cache().health() == Health::Up => Right::Held,
            _ => Right::Failed,
        }
    }

    /// Stores a response; whether it is visible now.
    pub(crate) async fn fill(
        &self,
        key: &Key,
        lease: EntryLease,
        stored: Arc<Stored>,
        options: &Options,
        now: SystemTime,
    ) -> Result<bool, Error> {
        let Some(response) = stored.response() else { return Ok(false) };
        let keep = response.terms.worth_keeping(now, options.keep_stale);
        let keep = keep.clamp(Duration::from_millis(1), MAX_TTL);
        let tags = response.tags.clone();
        let known = under(key, self.get(&key.name).await.unwrap_or_default());
        let is_alone = known.as_deref().is_none_or(|known| known.index().is_none());
        if response.selector.fields.is_empty() && is_alone {
            return self.entries.fill(lease, stored, Ttl::from(keep), tags).await;
        }
        let id = self.unique(key);
        let variant = Variant {
            id,
            created: date::read(&response.headers, &DATE).valid().unwrap_or(now),
            expires: now + keep,
            selector: response.selector.clone(),
            tags: tags.clone(),
        };
        let name = key.variant(id);
        self.entries.put(&name, stored, Ttl::from(keep), &tags).await?;
        let (index, replaced) = with_variant(key, known.as_deref(), variant, now);
        let life = index.variants.iter().map(|variant| variant.expires).max();
        let life = life.and_then(|end| end.duration_since(now).ok()).unwrap_or(keep);
        let tags: Vec<String> = all_tags(&index.variants);
        let index = Arc::new(Stored::Index(index));
        let visible = self.entries.fill(lease, index, Ttl::from(life.min(MAX_TTL)), tags).await;
        // What nothing points to any more would only wait for its end.
        let orphans = if matches!(visible, Ok(true)) {
            replaced.into_iter().map(|id| key.variant(id)).collect()
        } else {
            vec![name]
        };
        self.drop_orphans(&orphans).await;
        visible
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

    async fn drop_orphans(&self, names: &[String]) {
        if let Err(error) = self.entries.remove(names).await {
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
        Stored::Response(_) if !facts.must_select.is_empty() => {
            Ok(Found::Nothing(Forward::VaryMiss, Vec::new()))
        }
        Stored::Response(_) => Ok(Found::Response(stored)),
    }
}

fn variants(stored: &Stored) -> &[Variant] {
    stored.index().map_or(&[], |index| &index.variants)
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
    covers.then_some(Found::Response(stored))
}

fn selected(stored: &Stored, request: &HeaderMap) -> bool {
    stored.response().is_some_and(|response| response.selector.matches(request))
}

/// An index with one more variant, and the variants that it no longer lists.
fn with_variant(
    key: &Key,
    known: Option<&Stored>,
    variant: Variant,
    now: SystemTime,
) -> (Index, Vec<u128>) {
    let known = known.and_then(Stored::index).map_or(&[][..], |index| &index.variants);
    let (mut kept, gone): (Vec<_>, Vec<_>) = known
        .iter()
        .cloned()
        .partition(|known| known.selector != variant.selector && known.expires > now);
    let mut gone: Vec<u128> = gone.into_iter().map(|variant| variant.id).collect();
    kept.push(variant);
    // Where several match, the one with the most recent `Date` is selected (RFC 9111 §4).
    kept.sort_by_key(|variant| variant.created);
    while kept.len() > 1 && (kept.len() > MAX_VARIANTS || all_tags(&kept).len() > MAX_TAGS) {
        gone.push(kept.remove(0).id);
    }
    (Index { whole: key.whole.clone(), variants: kept }, gone)
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
