//! Finds what an operator wants gone: the keys of all URLs that match, and what they hold.
//!
//! It looks at every stored response: for people who ask, not for requests.

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tachikoma_cache::{
    Error, ErrorKind, Pattern, Removed,
    dependencies::Dependencies,
    glob::Glob,
    store::{Cursor, Want},
};

use super::{Place, Right, Storage, Stored, under};
use crate::{
    key::{Key, Target},
    policy::Options,
};

/// So many keys are looked at in one step.
const PAGE: usize = 256;

/// How long the put-back of one softened response may take its place after another one's.
const PUT_BACK_TRIES: u32 = 5;

/// Which URLs are meant.
#[derive(Debug, Clone)]
pub(crate) enum Matching {
    /// Those that match as a whole.
    Url(Glob),
    /// Those whose path and query match, of every host.
    Path(Glob),
}

impl Matching {
    fn matches(&self, url: &str) -> bool {
        match self {
            Self::Url(glob) => glob.matches(url.as_bytes()),
            Self::Path(glob) => {
                let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
                let path = rest.find('/').and_then(|at| rest.get(at..)).unwrap_or("/");
                glob.matches(path.as_bytes())
            }
        }
    }
}

impl Storage {
    /// The keys of all URLs that match, of those too that are only being fetched.
    pub(crate) async fn matching(&self, matching: &Matching) -> Result<Vec<Key>, Error> {
        let mut found = Vec::new();
        let mut seen = HashSet::new();
        let all = Pattern::new().literal("GET ").any();
        for _ in 0..if self.entries.scan_may_miss() { 2 } else { 1 } {
            let mut at = Some(Cursor::START);
            while let Some(cursor) = at {
                let page = self.entries.scan(&all, cursor, Want::Names, PAGE).await?;
                for item in page.items {
                    let Some(key) = self.primary(&item.name).await? else { continue };
                    // Of a long one that is only being fetched nobody knows the URL.
                    let is_unknown = key.whole.is_none() && key.target_url().starts_with('#');
                    if (is_unknown || matching.matches(key.target_url()))
                        && seen.insert(key.name.clone())
                    {
                        found.push(key);
                    }
                }
                at = page.next;
            }
        }
        Ok(found)
    }

    /// The keys of all URLs with a response that has this tag.
    pub(crate) async fn tagged(&self, tag: &str) -> Result<Vec<Key>, Error> {
        let mut found = Vec::new();
        let mut seen = HashSet::new();
        let mut at = Some(Cursor::START);
        let all = Pattern::new().literal("GET ").any();
        while let Some(cursor) = at {
            let page = self.entries.scan(&all, cursor, Want::Entries, PAGE).await?;
            for item in &page.items {
                let Some(stored) = self.entries.object::<Stored>(item) else { continue };
                let is_tagged = stored
                    .head()
                    .is_some_and(|response| response.tags.iter().any(|known| known == tag));
                let name = primary_name(&item.name);
                if is_tagged && seen.insert(name.to_owned()) {
                    let whole = stored.whole().map(Into::into);
                    found.push(Key { name: name.to_owned(), whole });
                }
            }
            at = page.next;
        }
        Ok(found)
    }

    /// The primary key that a name in the store is of; `None` if it belongs to one already.
    async fn primary(&self, name: &str) -> Result<Option<Key>, Error> {
        let url = name.strip_prefix("GET ").unwrap_or_default();
        if url.contains(' ') {
            return Ok(None);
        }
        if !url.starts_with('#') {
            return Ok(Some(Key { name: name.to_owned(), whole: None }));
        }
        // The name holds only a hash.
        let stored = self.entries.get::<Stored>(name).await?;
        let whole = stored.as_deref().and_then(Stored::whole).map(Into::into);
        Ok(Some(Key { name: name.to_owned(), whole }))
    }

    /// What is stored under a key, each variant.
    async fn all_of(&self, key: &Key) -> Result<Vec<Arc<Stored>>, Error> {
        let Some(stored) = under(key, self.entries.get(&key.name).await?) else {
            return Ok(Vec::new());
        };
        let Some(index) = stored.index() else {
            return Ok(vec![stored]);
        };
        let mut all = Vec::new();
        for variant in &index.variants {
            all.extend(under(key, self.entries.get(&key.variant(variant.id)).await?));
        }
        Ok(all)
    }

    /// Makes what is stored under these keys stale, or of it only what has a tag; how many
    /// responses that were. What is being fetched for them is not stored.
    ///
    /// They are removed and put back, but for those that go with what they were made of: a response
    /// that is fetched meanwhile stays. For a tag these
    /// must be all that have it: what is not read before it is invalidated cannot be put back.
    pub(crate) async fn soften(
        &self,
        keys: &[Key],
        tag: Option<&str>,
        options: &Options,
        now: SystemTime,
    ) -> Result<Removed, Error> {
        let mut kept = Vec::new();
        for key in keys {
            kept.push((key, self.all_of(key).await?));
        }
        if let Some(tag) = tag {
            self.entries.invalidate_tags([tag]).await?;
        }
        let removed = self.remove(keys).await?;
        let mut softened = 0;
        for (key, all) in kept {
            for stored in all {
                let Some(head) = stored.head() else { continue };
                let is_meant = tag.is_none_or(|tag| head.tags.iter().any(|own| own == tag));
                softened += u64::from(is_meant);
                // Whether what it was made of is still there could not be told any more.
                if head.is_made_of {
                    continue;
                }
                let kept = if is_meant { Arc::new(stale(&stored, now)) } else { stored };
                self.put_back(key, kept, options, now).await?;
            }
        }
        let counted = |tier: Option<u64>| tier.map(|_| softened);
        Ok(Removed { memory: counted(removed.memory), redis: counted(removed.redis) })
    }

    async fn put_back(
        &self,
        key: &Key,
        stored: Arc<Stored>,
        options: &Options,
        now: SystemTime,
    ) -> Result<(), Error> {
        for attempt in 1..=PUT_BACK_TRIES {
            let Right::Lease(lease) = self.begin(key, Place::default(), "").await else {
                super::pause(Duration::from_millis(u64::from(attempt) * 10)).await;
                continue;
            };
            let known = under(key, self.entries.get(&key.name).await?);
            // A newer one of the same kind is there by now.
            let is_replaced = known.as_deref().is_some_and(|known| match known.index() {
                None => true,
                Some(index) => index
                    .variants
                    .iter()
                    .any(|known| stored.head().is_some_and(|own| own.selector == known.selector)),
            });
            if !is_replaced {
                let nothing = Dependencies::default();
                self.fill(key, lease, Arc::clone(&stored), &nothing, options, now).await?;
            }
            return Ok(());
        }
        // Somebody is fetching it: that is as good.
        Ok(())
    }

    /// Whether a failure means that the store is to be told later; it keeps what it was told.
    pub(crate) async fn remove_later(&self, error: Error) -> Error {
        if !error.kind().is_transient() {
            return error;
        }
        // It cannot be looked through now: all that might be meant goes when it is back.
        let all = Pattern::new().literal("GET ").any();
        match self.entries.remove_pattern(&all).await {
            Err(pending) if pending.kind() == ErrorKind::Pending => pending,
            _ => error,
        }
    }
}

/// The name of the primary key: that of a variant goes on after a space.
fn primary_name(name: &str) -> &str {
    let url_at = "GET ".len();
    match name.get(url_at..).and_then(|rest| rest.find(' ')) {
        Some(end) => &name[..url_at + end],
        None => name,
    }
}

/// The same response, at the end of its freshness.
fn stale(stored: &Stored, now: SystemTime) -> Stored {
    let mut stale = stored.clone();
    if let Stored::Response(head) | Stored::Apart(head, _) = &mut stale {
        head.terms.lifetime = head.terms.lifetime.min(head.terms.age(now));
    }
    stale
}

/// What a text that names URLs means: an absolute URL, or a path of any host.
pub(crate) fn matching(pattern: &str) -> Option<Matching> {
    if pattern.starts_with('/') {
        return Glob::new(pattern).ok().map(Matching::Path);
    }
    let (scheme, rest) = pattern.split_once("://")?;
    let is_scheme = ["http", "https", "http*", "*"].contains(&scheme);
    if !is_scheme || rest.is_empty() {
        return None;
    }
    // The host is lower case in every key. Without a slash, what follows a star may be a path.
    let (host, path) =
        rest.split_at(rest.find('/').or_else(|| rest.find('*')).unwrap_or(rest.len()));
    let lower = format!("{scheme}://{}{path}", host.to_ascii_lowercase());
    Glob::new(&lower).ok().map(Matching::Url)
}

/// The pattern for all URLs that begin with a text.
pub(crate) fn beginning(prefix: &str) -> Option<Matching> {
    let is_url =
        prefix.starts_with('/') || prefix.starts_with("http://") || prefix.starts_with("https://");
    // The host is lower case in every key.
    let lower = match Target::parse(prefix) {
        Some(target) if !prefix.starts_with('/') => target.url().to_owned(),
        _ => prefix.to_owned(),
    };
    is_url.then(|| Pattern::new().literal(lower).any()).and_then(|text| matching(text.as_str()))
}
