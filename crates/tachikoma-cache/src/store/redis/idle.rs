//! Time to idle in Redis: what nobody reads is gone earlier than its TTL says.
//!
//! Redis keeps such an entry for its idle time, and a reader has that begin anew. Decides when the
//! server is told: by an errand that no reader waits for, and for each key at most every eighth of
//! the idle time. So that no read comes too late for that, the server keeps an entry for an eighth
//! longer.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::Shared;
use super::courier::Errand;
use super::layout;
use super::write::Life;
use crate::clock::Time;
use crate::closed::Closed;
use crate::entry::Meta;
use crate::key::Key;

/// How many keys are remembered for which the server was told a short while ago. What is forgotten
/// is told once more.
const MAX_KEYS: usize = 10_000;

/// The keys for which the server was told a short while ago.
pub(super) struct Told(Mutex<Closed>);

impl Default for Told {
    fn default() -> Self {
        Self(Mutex::new(Closed::new(MAX_KEYS)))
    }
}

impl Told {
    /// Whether it is time to tell the server of a key; then it is not for this long.
    fn is_due(&self, key: &Key<'_>, now: Time, pause: Duration) -> bool {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let due = !told.is_closed(key.hash(), now);
        if due {
            told.close(key.hash(), now.saturating_add(pause));
        }
        due
    }
}

/// Until when the server keeps an entry that is written or read at `now`.
fn kept_until(meta: &Meta, now: Time) -> Option<Time> {
    let idle = meta.idle.map(|idle| now.saturating_add(idle.saturating_add(idle / 8)));
    [meta.hard_expiry, idle].into_iter().flatten().min()
}

impl Shared {
    /// How long the server is to keep an entry. Its clock is real: by a virtual one only the expiry
    /// in the entry counts.
    pub(super) fn life(&self, meta: &Meta, now: Time) -> Life {
        match Life::until(kept_until(meta, now), now) {
            Life::Millis(_) if !self.link.clock.is_real() => Life::Forever,
            life => life,
        }
    }

    /// An entry was read: it stays for another idle time.
    pub(super) fn was_read(&self, key: &Key<'_>, meta: &Meta, now: Time) {
        let Some(idle) = meta.idle else { return };
        if let Life::Millis(left) = self.life(meta, now)
            && self.told.is_due(key, now, idle / 8)
        {
            self.errands.add(Errand::Keep { entry: layout::entry(key), left });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::{CodecId, TypeTag};
    use crate::key::Namespace;

    #[track_caller]
    fn check(hard: Option<u64>, idle: Option<u64>, now: u64, expected: Option<u64>) {
        let meta = Meta {
            hard_expiry: hard.map(Time::from_millis),
            idle: idle.map(Duration::from_millis),
            ..Meta::new(Time::EPOCH, TypeTag(1), CodecId::Json)
        };
        let actual = kept_until(&meta, Time::from_millis(now)).map(Time::as_millis);
        assert_eq!(actual, expected, "{hard:?} {idle:?} at {now}");
    }

    #[test]
    fn an_entry_is_kept_for_its_idle_time_and_an_eighth_but_never_beyond_its_ttl() {
        check(Some(1000), None, 0, Some(1000));
        check(Some(1000), Some(80), 0, Some(90));
        check(Some(1000), Some(80), 950, Some(1000));
        check(None, Some(80), 950, Some(1040));
        check(None, None, 950, None);
    }

    #[test]
    fn the_server_is_told_every_eighth_of_the_idle_time() {
        let (told, space) = (Told::default(), Namespace::default());
        let key = Key::new(&space, "k").unwrap();
        let due = |now| told.is_due(&key, Time::from_millis(now), Duration::from_millis(10));
        assert_eq!([0, 9, 10, 15, 20, 40].map(due), [true, false, true, false, true, true]);
    }
}
