//! What is in a cache, page by page, and what is known of one entry: for people who look, not for
//! requests.
//!
//! Decides how large a page is and how long it may take. It never asks a server for all keys at
//! once, and it shows names and times, never values.

use std::fmt;
use std::future::IntoFuture;
use std::str::FromStr;
use std::time::Duration;

use futures_util::future::BoxFuture;

use super::Cache;
use crate::clock::{Stopwatch, Time};
use crate::dependencies::Unknown;
use crate::entry::{CodecId, Entry};
use crate::error::{Error, ErrorKind};
use crate::expiry::KeyTtl;
use crate::glob::{Glob, escape};
use crate::pattern::Pattern;
use crate::store::{Cursor, Guarantee, Want};

/// The most keys of one page.
const MOST: usize = 1000;

/// A page ends after this, with what it found, where few keys match among very many.
const WITHIN: Duration = Duration::from_millis(100);

/// A page of keys; `.await` it. Made by [`Cache::keys`].
#[must_use = "it does nothing until it is awaited"]
pub struct Keys<'a> {
    cache: &'a Cache,
    glob: Result<Glob, Error>,
    limit: usize,
    after: Option<KeyCursor>,
}

impl Keys<'_> {
    /// Only keys that begin so; the text matches only itself.
    pub fn prefix(mut self, prefix: &str) -> Self {
        self.glob = Glob::new(&format!("{}*", escape(prefix)));
        self
    }

    /// Only keys that match.
    pub fn matching(mut self, pattern: &Pattern) -> Self {
        self.glob = pattern.glob();
        self
    }

    /// At most so many keys: 1 to 1,000. Default: 100. Redis finds keys in groups of a few: there a
    /// page of less than ten may have some more.
    pub fn limit(mut self, limit: usize) -> Self {
        self.limit = limit;
        self
    }

    /// Where the page before ended: its [`next`](KeyPage::next). Default: the beginning.
    pub fn after(mut self, cursor: KeyCursor) -> Self {
        self.after = Some(cursor);
        self
    }
}

impl<'a> IntoFuture for Keys<'a> {
    type Output = Result<KeyPage, Error>;
    type IntoFuture = BoxFuture<'a, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.page())
    }
}

/// Some keys, and where the next ones begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyPage {
    /// Their names, sorted. It may be empty although more follow.
    pub keys: Vec<String>,
    /// Where the next page begins; `None` if this is the last one.
    pub next: Option<KeyCursor>,
}

/// A place in a listing. As text (`Display`, `FromStr`) it can travel through a URL; it is good for
/// the same namespace and store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyCursor(Cursor);

impl fmt::Display for KeyCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0.0)
    }
}

/// # Errors
///
/// [`ErrorKind::InvalidPage`] if no listing gave this text.
impl FromStr for KeyCursor {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let digits = text.bytes().all(|byte| byte.is_ascii_hexdigit());
        match u64::from_str_radix(text, 16) {
            Ok(at) if digits => Ok(Self(Cursor(at))),
            _ => Err(Error::new(
                ErrorKind::InvalidPage,
                "the cursor; allowed is the `next` of the page before",
            )),
        }
    }
}

/// What is known of one entry.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct EntryInfo {
    /// Whether a lookup would find it, or only those who accept a stale value.
    pub freshness: Guarantee,
    /// When its source was read or it was set.
    pub created: Time,
    /// How long ago that was.
    pub age: Duration,
    /// What is left until it is stale; [`KeyTtl::NoKey`] if it is.
    pub ttl: KeyTtl,
    /// What is left until it is gone.
    pub gone_in: KeyTtl,
    /// It is gone earlier if nobody reads it for so long.
    pub idle: Option<Duration>,
    /// How long its load took, to the millisecond; zero if that is not known.
    pub load_time: Duration,
    /// What the value holds in memory, or its length where it is kept as bytes.
    pub bytes: u64,
    /// How its bytes are or would be made.
    pub codec: CodecId,
    /// The source said that there is nothing.
    pub negative: bool,
    /// Its tags.
    pub tags: Vec<String>,
}

impl EntryInfo {
    fn of(entry: &Entry, freshness: Guarantee, now: Time) -> Self {
        let meta = entry.meta();
        let tags = meta.marks.own().iter().filter_map(|mark| mark.group.as_tag());
        Self {
            freshness,
            created: meta.created,
            age: now.since(meta.created),
            ttl: match freshness {
                Guarantee::Stale { .. } => KeyTtl::NoKey,
                Guarantee::Fresh | Guarantee::Within(_) => KeyTtl::of(meta.soft_expiry, now),
            },
            gone_in: KeyTtl::of(meta.hard_expiry, now),
            idle: meta.idle,
            load_time: meta.load_time,
            bytes: entry.weight().map_or(0, |weight| weight as u64),
            codec: meta.codec,
            negative: meta.negative,
            tags: tags.map(str::to_owned).collect(),
        }
    }
}

impl Cache {
    /// A page of the keys of this namespace: `cache.keys().prefix("user:").limit(50).await`, and
    /// on with [`after`](Keys::after). For people who look: it reads the whole namespace bit by
    /// bit, wherever the keys are.
    ///
    /// A key that is there from the first page to the last is shown; on Redis maybe on two pages.
    /// One that comes or goes meanwhile may be shown or not. A page takes about 100 ms at most;
    /// then it ends with what it found, maybe with nothing, and [`next`](KeyPage::next) says where
    /// to go on.
    ///
    /// ```
    /// # use {std::time::Duration, tachikoma_cache::Cache};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), tachikoma_cache::Error> {
    /// let cache = Cache::memory().build()?;
    /// let entries = [("user:1", 1), ("user:2", 2), ("team:1", 3)];
    /// cache.set_many(entries, Duration::from_secs(60)).await?;
    /// let page = cache.keys().prefix("user:").await?;
    /// assert_eq!(page.keys, ["user:1", "user:2"]);
    /// assert!(page.next.is_none());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidPage`] if the limit is not allowed; [`ErrorKind::InvalidPattern`].
    /// Otherwise as [`get`](Self::get).
    pub fn keys(&self) -> Keys<'_> {
        Keys { cache: self, glob: Ok(Glob::everything()), limit: 100, after: None }
    }

    /// What is known of the entry of a key, also if it is stale; its value is not touched, and it
    /// is not counted as a lookup. In Redis it is a read, with which a time to idle begins anew.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    pub async fn entry_info(&self, key: &str) -> Result<Option<EntryInfo>, Error> {
        let key = self.key(key)?;
        let shared = self.shared();
        let cx = shared.cx();
        let mut found = None;
        // Described outside of the store's lock: weighing runs the type's own code.
        let mut see = |entry: &Entry, freshness| found = Some((entry.clone(), freshness));
        if shared.store.look(&key, cx.now, &mut see).asks() {
            let entries = shared.store.read(std::slice::from_ref(&key), &cx).await;
            found = shared.counted(entries)?.pop().flatten();
        }
        Ok(found.map(|(entry, freshness)| EntryInfo::of(&entry, freshness, cx.now)))
    }
}

impl Keys<'_> {
    async fn page(self) -> Result<KeyPage, Error> {
        let Self { cache, glob, limit, after } = self;
        let shared = cache.shared();
        let glob = shared.counted(glob)?;
        if !(1..=MOST).contains(&limit) {
            let detail = format!("limit: {limit}; allowed is 1 to {MOST}");
            return shared.counted(Err(Error::new(ErrorKind::InvalidPage, detail)));
        }
        if let Some(reading) = shared.reading(cache.namespace_ref()) {
            reading.spoil(Unknown::Listed);
        }
        let watch = Stopwatch::start();
        let mut keys: Vec<String> = Vec::new();
        let mut at = after.map_or(Cursor::START, |cursor| cursor.0);
        // How much of the store is looked at in one go.
        let mut step = limit;
        let next = loop {
            let room = limit - keys.len();
            let (cx, space) = (shared.cx(), cache.namespace_ref());
            let found = shared.store.scan(space, at, &glob, Want::Live, step, &cx).await;
            let found = shared.counted(found)?;
            let count = found.items.len();
            // A server gives somewhat more than was asked for. What has no room comes later.
            if count > room && !(step == 1 && keys.is_empty()) {
                if keys.len() * 2 >= limit || step == 1 {
                    break Some(at);
                }
                step = step * 3 / 4;
                continue;
            }
            keys.extend(found.items.into_iter().map(|item| item.name));
            let Some(further) = found.next else { break None };
            at = further;
            if keys.len() >= limit || watch.elapsed() >= WITHIN {
                break Some(at);
            }
            // Where little matches a step may be longer.
            step = if count * 2 < step { step * 2 } else { limit - keys.len() }.min(MOST);
        };
        keys.sort_unstable();
        keys.dedup();
        Ok(KeyPage { keys, next: next.map(KeyCursor) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_travels_as_text_and_others_are_refused() {
        for at in [0, 1, 0x2_0000_0001, u64::MAX] {
            let cursor = KeyCursor(Cursor(at));
            assert_eq!(cursor.to_string().parse::<KeyCursor>().unwrap(), cursor);
        }
        for bad in ["", "x", "-1", "+1", "0x1", "10000000000000000", " 1", "é"] {
            let error = bad.parse::<KeyCursor>().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidPage, "{bad:?}");
        }
    }
}
