//! Everything that takes entries away: by key, pattern, tag, or all of a namespace.
//!
//! The order is always the same: loads under way are cut off, the store removes, and loads that
//! began meanwhile are cut off too, so that nobody who asks after the answer joins a load that read
//! its source before the store removed.

use std::time::Duration;

use tracing::debug;

use super::Cache;
use crate::error::{Error, ErrorKind};
use crate::glob::Glob;
use crate::invalidation::{Group, How};
use crate::key::{Key, Shown};
use crate::pattern::Pattern;
use crate::store::{Cursor, Removed, Want};

/// How many keys one step of a pattern removes: small, so that the server's other clients hardly
/// wait and a step ends well within the time that one operation has.
const PAGE: usize = 256;

impl Cache {
    /// Removes a key; whether it had a value.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Pending`] if the store could not be told yet: the removal is kept and retried,
    /// and until it is in, this process does not serve the key. Otherwise as [`get`](Self::get).
    pub async fn delete(&self, key: &str) -> Result<bool, Error> {
        let key = self.key(key)?;
        Ok(self.remove_keys(&[key]).await?.total() > 0)
    }

    /// Removes a key and waits until no process can show its old value as fresh any more; how long
    /// it waited.
    ///
    /// For one that has it in its memory alone, there is nothing to wait for. On Redis it waits for
    /// the `freshness` of the memory tier, 1 s by default, which is the same in all processes that
    /// share a server: a process without a memory tier of its own waits for the default.
    ///
    /// ```
    /// # use {std::time::Duration, tachikoma_cache::Cache};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let cache = Cache::memory().build()?;
    /// let waited = cache.invalidate_strict("rights:42").await?;
    /// // From here on nobody acts on the rights that were taken away.
    /// # assert_eq!(waited, Duration::ZERO);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`delete`](Self::delete), without waiting; after [`ErrorKind::Pending`] other processes
    /// may show the old value.
    ///
    /// # Cancel safety
    ///
    /// Who does not wait for its end knows no more than after [`delete`](Self::delete).
    pub async fn invalidate_strict(&self, key: &str) -> Result<Duration, Error> {
        self.delete(key).await?;
        Ok(self.outwait_copies().await)
    }

    /// Removes every key of this namespace that matches; how many had a value, tier by tier.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidPattern`] if it is too long or would match every key: deleting
    /// everything is [`clear`](Self::clear). [`ErrorKind::Pending`] as [`delete`](Self::delete).
    pub async fn delete_pattern(&self, pattern: &Pattern) -> Result<Removed, Error> {
        let glob = self.shared().counted(pattern.glob())?;
        if glob.is_match_all() {
            return self.shared().counted(Err(Error::new(
                ErrorKind::InvalidPattern,
                "it matches every key; clear() deletes everything of the namespace",
            )));
        }
        self.remove_matching(&glob).await
    }

    /// Removes everything of this namespace and nothing else.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Pending`] as [`delete`](Self::delete).
    pub async fn clear(&self) -> Result<Removed, Error> {
        self.remove_matching(&Glob::everything()).await
    }

    /// Takes away every entry with this tag whose source was read before now. The cost does not
    /// depend on how many there are.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidTag`]; [`ErrorKind::Pending`] as [`delete`](Self::delete).
    pub async fn invalidate_tag(&self, tag: &str) -> Result<(), Error> {
        self.invalidate_tags([tag]).await
    }

    /// The same for every entry with any of these tags, in one step.
    ///
    /// # Errors
    ///
    /// As [`invalidate_tag`](Self::invalidate_tag).
    pub async fn invalidate_tags<S: AsRef<str>>(
        &self,
        tags: impl IntoIterator<Item = S>,
    ) -> Result<(), Error> {
        self.invalidate_groups(Group::tags(tags), How::Hard).await
    }

    /// Invalidates tags, as [`invalidate_tags`](Self::invalidate_tags) does, and waits until no
    /// process can show an entry with one of them as fresh any more; how long it waited. For the
    /// rest it is as [`invalidate_strict`](Self::invalidate_strict).
    ///
    /// # Errors
    ///
    /// As [`invalidate_tag`](Self::invalidate_tag), without waiting; after [`ErrorKind::Pending`]
    /// other processes may show such entries.
    ///
    /// # Cancel safety
    ///
    /// Who does not wait for its end knows no more than after
    /// [`invalidate_tags`](Self::invalidate_tags).
    pub async fn invalidate_tags_strict<S: AsRef<str>>(
        &self,
        tags: impl IntoIterator<Item = S>,
    ) -> Result<Duration, Error> {
        self.invalidate_tags(tags).await?;
        Ok(self.outwait_copies().await)
    }

    /// Makes every entry with this tag stale: the next lookup loads it anew, and only those who
    /// accept a stale value still see it.
    ///
    /// # Errors
    ///
    /// As [`invalidate_tag`](Self::invalidate_tag).
    pub async fn expire_tag(&self, tag: &str) -> Result<(), Error> {
        self.invalidate_groups(Group::tags([tag]), How::Soft).await
    }

    /// Waits until no memory tier shows a copy of what was invalidated before; how long.
    async fn outwait_copies(&self) -> Duration {
        let (clock, lag) = (self.clock(), self.shared().store.lag());
        if lag.is_zero() {
            return lag;
        }
        let before = clock.now();
        clock.sleep(lag).await;
        clock.now().since(before).max(lag)
    }

    pub(super) async fn remove_keys(&self, keys: &[Key<'_>]) -> Result<Removed, Error> {
        let shared = self.shared();
        shared.flights.detach_all(keys);
        let removed = shared.store.remove(keys, &shared.cx()).await;
        shared.flights.detach_all(keys);
        shared.counted(removed)
    }

    pub(super) async fn remove_matching(&self, glob: &Glob) -> Result<Removed, Error> {
        let shared = self.shared();
        let namespace = self.namespace_ref();
        let loading = shared.flights.detach_matching(namespace, glob);
        let mut removed = self.scan_and_remove(glob, loading).await;
        if shared.dependencies && removed.is_ok() {
            // What was made of keys that are no longer here could not be looked for.
            let (any, cx) = ([Group::of_any_key()], shared.cx());
            let done = shared.store.groups().invalidate(namespace, &any, How::Hard, &cx).await;
            removed = removed.and_then(|removed| done.map(|()| removed));
        }
        shared.flights.detach_matching(namespace, glob);
        // What could not be looked for is remembered, if the store can be away at all.
        let removed = removed.map_err(|error| match shared.store.defer_pattern(namespace, glob) {
            Ok(()) => Error::from(ErrorKind::Pending).with_source(error),
            Err(_) => error,
        });
        let removed = shared.counted(removed)?;
        debug!(
            namespace = namespace.as_str(),
            pattern = %Shown(glob.as_str()),
            removed = removed.total(),
            "removed by pattern"
        );
        Ok(removed)
    }

    async fn scan_and_remove(&self, glob: &Glob, loading: Vec<String>) -> Result<Removed, Error> {
        let shared = self.shared();
        let namespace = self.namespace_ref();
        // Their leases end, although they have no entry that the scan would find.
        let mut removed = self.remove_names(loading).await?;
        for _ in 0..if shared.store.scan_may_miss() { 2 } else { 1 } {
            let mut at = Some(Cursor::START);
            while let Some(from) = at {
                let cx = shared.cx();
                let page = shared.store.scan(namespace, from, glob, Want::Names, PAGE, &cx).await?;
                let names = page.items.into_iter().map(|item| item.name).collect();
                removed = removed.and(self.remove_names(names).await?);
                at = page.next;
            }
        }
        Ok(removed)
    }

    async fn remove_names(&self, names: Vec<String>) -> Result<Removed, Error> {
        let shared = self.shared();
        let mut removed = Removed::default();
        for chunk in names.chunks(PAGE) {
            let keys = chunk.iter().map(|name| Key::found(self.namespace_ref(), name.as_str()));
            let keys: Vec<_> = keys.collect();
            removed = removed.and(shared.store.remove(&keys, &shared.cx()).await?);
        }
        Ok(removed)
    }

    async fn invalidate_groups(
        &self,
        groups: Result<Vec<Group>, Error>,
        how: How,
    ) -> Result<(), Error> {
        let shared = self.shared();
        let groups = shared.counted(groups)?;
        let namespace = self.namespace_ref();
        shared.flights.detach_tagged(namespace, &groups);
        let done = shared.store.groups().invalidate(namespace, &groups, how, &shared.cx()).await;
        shared.flights.detach_tagged(namespace, &groups);
        shared.counted(done)
    }
}
