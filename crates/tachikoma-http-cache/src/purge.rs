//! What an operator wants gone from the cache: by URL, prefix, pattern or tag, for good or only
//! made stale.
//!
//! Never decides when: that is the operator's. What is being fetched meanwhile is not stored.

use std::{error::Error as StdError, fmt};

use tachikoma_cache::{Error, Removed};

use crate::{
    HttpCache,
    key::{Key, Target},
    storage::{Matching, beginning, matching},
};

/// So many keys are removed in one step.
const BATCH: usize = 256;

/// A wish to purge.
///
/// ```
/// # use tachikoma_http_cache::Purge;
/// let page = Purge::url("http://shop.test/cart?id=1");
/// let images = Purge::prefix("http://shop.test/images/").soft();
/// let styles = Purge::pattern("http://*.shop.test/*.css");
/// # let _ = (page, images, styles);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Purge {
    what: What,
    soft: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum What {
    Url(String),
    Prefix(String),
    Pattern(String),
    Tag(String),
}

impl Purge {
    /// All variants of one URL, absolute, as its requests name it.
    pub fn url(url: impl Into<String>) -> Self {
        Self { what: What::Url(url.into()), soft: false }
    }

    /// All URLs that begin with this one, byte for byte; or, if it begins with `/`, all whose path
    /// does, on every host.
    pub fn prefix(prefix: impl Into<String>) -> Self {
        Self { what: What::Prefix(prefix.into()), soft: false }
    }

    /// All URLs that match a glob (`http://shop.test/*.css`); or, if it begins with `/`, all whose
    /// path and query do, on every host. `*` stands for any bytes, `/` included.
    pub fn pattern(pattern: impl Into<String>) -> Self {
        Self { what: What::Pattern(pattern.into()), soft: false }
    }

    /// All responses with this tag (`Surrogate-Key`, `Cache-Tag`).
    pub fn tag(tag: impl Into<String>) -> Self {
        Self { what: What::Tag(tag.into()), soft: false }
    }

    /// Makes them stale instead of removing them: they are validated before they are used again,
    /// and may be used meanwhile as far as `stale-while-revalidate` and `stale-if-error` allow.
    #[must_use]
    pub fn soft(mut self) -> Self {
        self.soft = true;
        self
    }
}

impl HttpCache {
    /// Purges; how many responses, in each tier. A tag that is not purged softly is invalidated at
    /// once, whatever it covers, and not counted; [`count`](Self::count) does.
    ///
    /// A prefix, a pattern and a soft tag look at every stored response; a soft tag holds all that
    /// has it in memory until it is put back.
    ///
    /// # Errors
    ///
    /// [`PurgeError::Url`] and [`PurgeError::Pattern`], and [`PurgeError::Store`] if the store
    /// failed; with the kind [`Pending`](tachikoma_cache::ErrorKind::Pending) the removal is kept
    /// and retried. A prefix or a pattern that cannot be looked for then removes every response.
    pub async fn purge(&self, purge: &Purge) -> Result<Removed, PurgeError> {
        let (shared, storage) = (self.shared(), &self.shared().storage);
        let purged = match &purge.what {
            What::Url(url) => self.remove(&[self.key_of(url)?], purge.soft).await,
            What::Tag(tag) if purge.soft => {
                shared.flights.detach_all();
                let softened = match storage.tagged(tag).await {
                    Ok(keys) => shared.soften(&keys, Some(tag)).await,
                    Err(error) => Err(error),
                };
                // Nobody knows the tags of what is being fetched.
                shared.flights.detach_all();
                softened
            }
            What::Tag(tag) => {
                return self.purge_tag(tag).await.map(|()| Removed::default());
            }
            What::Prefix(_) | What::Pattern(_) => {
                let matching = named(&purge.what)?;
                // What is being fetched may match too.
                shared.flights.detach_all();
                let removed = match storage.matching(&matching).await {
                    Ok(keys) => self.remove(&keys, purge.soft).await,
                    Err(error) => Err(storage.remove_later(error).await),
                };
                // Also what began meanwhile, whose key may not say which URL it is of.
                shared.flights.detach_all();
                removed
            }
        };
        purged.map_err(PurgeError::Store)
    }

    /// How many responses [`purge`](Self::purge) would concern now. Except for a URL, it looks at
    /// every stored response.
    ///
    /// # Errors
    ///
    /// As [`purge`](Self::purge).
    pub async fn count(&self, purge: &Purge) -> Result<u64, PurgeError> {
        let storage = &self.shared().storage;
        let keys = match &purge.what {
            What::Url(url) => vec![self.key_of(url)?],
            What::Tag(tag) => return self.count_tag(tag).await,
            what => storage.matching(&named(what)?).await.map_err(PurgeError::Store)?,
        };
        let mut count = 0;
        for key in &keys {
            count += storage.count(key).await.map_err(PurgeError::Store)?;
        }
        Ok(count)
    }

    async fn remove(&self, keys: &[Key], soft: bool) -> Result<Removed, Error> {
        let shared = self.shared();
        let mut removed = Removed::default();
        // Nothing matched: that is zero in the tiers there are, and the store knows which.
        let batches: Vec<&[Key]> =
            if keys.is_empty() { vec![&[]] } else { keys.chunks(BATCH).collect() };
        for batch in batches {
            let one =
                if soft { shared.soften(batch, None).await? } else { shared.remove(batch).await? };
            removed = removed.and(one);
        }
        Ok(removed)
    }

    pub(crate) fn key_of(&self, url: &str) -> Result<Key, PurgeError> {
        let target = Target::parse(url).ok_or_else(|| PurgeError::Url(url.to_owned()))?;
        Ok(self.shared().as_requested(target).key())
    }
}

fn named(what: &What) -> Result<Matching, PurgeError> {
    let (text, found) = match what {
        What::Prefix(prefix) => (prefix, beginning(prefix)),
        What::Pattern(text) | What::Url(text) | What::Tag(text) => (text, matching(text)),
    };
    found.ok_or_else(|| PurgeError::Pattern(text.clone()))
}

/// A purge failed.
#[derive(Debug)]
#[non_exhaustive]
pub enum PurgeError {
    /// Not an absolute `http` or `https` URL, nor a path.
    Url(String),
    /// Neither the beginning of a URL or a path, nor a pattern for them.
    Pattern(String),
    /// The store says why.
    Store(Error),
}

impl fmt::Display for PurgeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url(url) => write!(
                f,
                "{url:?} is not a URL; allowed are an absolute one (http://host/path?query) and a \
                 path (/path)"
            ),
            Self::Pattern(pattern) => write!(
                f,
                "{pattern:?} names no URLs; allowed is what begins with http://, https:// or /"
            ),
            Self::Store(_) => f.write_str("the store did not take the purge"),
        }
    }
}

impl StdError for PurgeError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::Url(_) | Self::Pattern(_) => None,
            Self::Store(error) => Some(error),
        }
    }
}
