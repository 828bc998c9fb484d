//! Write guards in Redis: see [`Store::guard`](crate::store::Store::guard).
//!
//! The guards of a key are a sorted set beside it, from token to the server's time at which it ends
//! by itself; the member `+` says that two of them overlapped. Whether there is one is asked after
//! a lease was taken and before it is used: a guard that begins later ends the lease. So who has a
//! lease began after every guard of its key had ended. While it is open, a guard has the lease of
//! its key itself: without it, what it would publish is older than a removal or a write.

use std::time::Duration;

use ::redis::Pipeline;

use super::Shared;
use super::courier::{self, Errand};
use super::layout;
use super::link::Connection;
use super::pending::Work;
use super::reply;
use super::scripts;
use super::write::{Life, pending};
use crate::entry::Entry;
use crate::error::{Error, ErrorKind};
use crate::key::Key;
use crate::store::{Cx, Guard, Written};

impl Shared {
    pub(super) async fn guard(
        &self,
        keys: &[Key<'_>],
        life: Duration,
        cx: &Cx,
    ) -> Result<Guard, Error> {
        let first = keys.first().ok_or_else(|| Error::from(ErrorKind::InvalidKey))?;
        let deadline = self.link.deadline(cx.deadline);
        let connection = self.link.connection()?;
        // Before the source is written: a group that is invalidated from here on takes the value.
        let groups = self.snapshot_on(&connection, first.namespace(), deadline).await?;
        let token: u128 = rand::random();
        let asked = Asked { shared: self, keys, token, is_held: false };
        let millis = life.as_millis().to_string();
        let mut commands = Pipeline::new();
        for key in keys {
            let names = names(key);
            let arguments: [&[u8]; 2] = [&token.to_be_bytes(), millis.as_bytes()];
            commands.add_command(
                scripts::GUARD.by_text(&[&names[0], &names[1], &names[2]], &arguments),
            );
        }
        for answer in self.link.pipeline(&connection, &commands, deadline).await? {
            reply::integer(answer).map_err(|fault| self.link.refused(&connection, fault))?;
        }
        asked.forget_nothing();
        Ok(Guard { token, groups })
    }

    pub(super) async fn end_guard(
        &self,
        guard: &Guard,
        ends: &[(Key<'_>, Option<Entry>)],
        cx: &Cx,
    ) -> Result<Vec<Written>, Error> {
        let Some((first, _)) = ends.first() else { return Ok(Vec::new()) };
        let names = ends.iter().map(|(key, _)| key.name().to_owned()).collect();
        let owed = ends.iter().any(|(key, _)| self.is_pending(key));
        // If the answer does not come, all of them are removed.
        let sending = self.book.enter(first.namespace(), Work::Keys(names));
        let deadline = self.link.deadline(cx.deadline);
        let connection = self.link.connection().map_err(pending)?;
        let mut commands = Pipeline::new();
        for (key, entry) in ends {
            let stored = entry.as_ref().filter(|_| !owed);
            let stored = stored.and_then(|entry| self.published(&connection, key, entry, cx));
            let (bytes, left) = stored.unwrap_or_default();
            let names = self::names(key);
            let arguments: [&[u8]; 3] = [&guard.token.to_be_bytes(), &bytes, left.as_bytes()];
            commands.add_command(
                scripts::END_GUARD.by_text(&[&names[0], &names[1], &names[2]], &arguments),
            );
        }
        let answers =
            self.link.pipeline(&connection, &commands, deadline).await.map_err(pending)?;
        let mut written = Vec::with_capacity(ends.len());
        for answer in answers {
            let answer = reply::integer(answer);
            let stored =
                answer.map_err(|fault| pending(self.link.refused(&connection, fault)))? == 1;
            written.push(if stored { Written::Stored } else { Written::Refused });
        }
        let names = ends.iter().map(|(key, _)| key.name());
        courier::outdate(&self.link, &connection, first.namespace(), names, deadline)
            .await
            .map_err(pending)?;
        sending.confirm();
        Ok(written)
    }

    pub(super) fn abandon_guard(&self, guard: &Guard, keys: &[Key<'_>]) {
        let Some(first) = keys.first() else { return };
        let names = keys.iter().map(|key| key.name().to_owned()).collect();
        self.book.defer(first.namespace(), Work::Keys(names));
        self.forget_guard(guard.token, keys);
    }

    fn forget_guard(&self, token: u128, keys: &[Key<'_>]) {
        for key in keys {
            let (guards, token) = (layout::guards(key), token.to_be_bytes());
            self.errands.add(Errand::Unguard { guards, token });
            self.errands.add(Errand::Release { lease: layout::lease(key), token });
        }
    }

    /// The bytes of a value to store and its time to live, unless that is over or there are none.
    fn published(
        &self,
        connection: &Connection,
        key: &Key<'_>,
        entry: &Entry,
        cx: &Cx,
    ) -> Option<(Vec<u8>, String)> {
        let life = self.life(entry.meta(), cx.now);
        let packed = self.packed(entry).ok().filter(|_| life != Life::Over)?;
        let incarnation = connection.incarnation();
        let bytes = self.bytes(connection, key, entry.meta(), &packed, incarnation);
        Some((bytes, life.argument()))
    }
}

fn names(key: &Key<'_>) -> [String; 3] {
    [layout::entry(key), layout::lease(key), layout::guards(key)]
}

/// A guard that was asked for: forgotten unless the answer says that it is held.
struct Asked<'a> {
    shared: &'a Shared,
    keys: &'a [Key<'a>],
    token: u128,
    is_held: bool,
}

impl Asked<'_> {
    fn forget_nothing(mut self) {
        self.is_held = true;
    }
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        if !self.is_held {
            self.shared.forget_guard(self.token, self.keys);
        }
    }
}
