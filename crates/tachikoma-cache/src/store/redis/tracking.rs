//! What the server tells of changes of the keys that this connection has read.
//!
//! Decides who hears of it, and when what was heard is complete. `CLIENT TRACKING` in its default
//! mode is used (Redis 7 or newer, RESP3): the server remembers what the connection has read and
//! pushes the name of each such key when it changes, whoever changes it, this connection included.
//! It pushes a name before it answers what was sent after the change, so the answer of a heartbeat
//! proves that all earlier changes have been told. Followers are called by the client's own loop
//! that reads answers, in their order; a channel in between would break that proof.

use std::sync::Arc;
use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use ::redis::{Cmd, Pipeline, Value};

use super::layout::{self, Part};
use super::reply::{self, Fault};
use crate::clock::{Clock, Time};
use crate::key::{Key, Namespace};

/// The first version that never pushes into the middle of an answer (redis issue 8935).
const FIRST_MAJOR: u32 = 7;

/// How long after a change a copy may be shown, where nobody says otherwise.
pub(crate) const DEFAULT_FRESHNESS: Duration = Duration::from_secs(1);

/// Hears of changes. Called while answers wait to be read: it must be quick, must not wait and must
/// not call the store.
pub(crate) trait Follower: Send + Sync {
    /// This key may have changed.
    fn changed(&self, key: &Key<'_>);

    /// The lease of this key may have ended.
    fn freed(&self, key: &Key<'_>);

    /// A group of this namespace may have changed.
    fn groups_changed(&self, space: &Namespace);

    /// From now on changes may be missed, until [`confirmed`](Self::confirmed) is called.
    fn lost(&self);

    /// Changes were missed, or everything has changed: what was read before is not followed.
    fn forget(&self);

    /// Everything that happened before this time has been told.
    fn confirmed(&self, at: Time);
}

/// Who follows, and how often a heartbeat proves that nothing was missed. Nobody: the server is
/// not asked to tell.
#[derive(Clone, Default)]
pub(crate) struct Tracking {
    followers: Vec<Arc<dyn Follower>>,
    every: Option<Duration>,
}

impl Tracking {
    /// One follower, with a heartbeat at least so often.
    #[cfg(any(test, feature = "memory"))]
    pub(crate) fn of(follower: Arc<dyn Follower>, every: Duration) -> Self {
        Self { followers: vec![follower], every: Some(every) }
    }

    pub(super) fn is_wanted(&self) -> bool {
        !self.followers.is_empty()
    }

    /// The time between two heartbeats: `usual`, or less.
    pub(super) fn pause(&self, usual: Duration) -> Duration {
        self.every.map_or(usual, |every| every.min(usual))
    }

    /// Hands on what an invalidation push says.
    pub(super) fn told(&self, data: &[Value]) {
        let Some(Value::Array(names)) = data.first() else {
            // A null: the whole data set was emptied. Anything else is no push that is known.
            return self.forget();
        };
        for name in names {
            let Value::BulkString(name) = name else { continue };
            if let Some(space) = layout::parse_groups(name) {
                self.followers.iter().for_each(|follower| follower.groups_changed(&space));
                continue;
            }
            // There are names of others, too.
            let Some((space, part)) = layout::parse_any(name) else { continue };
            let Ok(key) = Key::new(&space, part.name()) else { continue };
            self.followers.iter().for_each(|follower| match part {
                Part::Entry(_) => follower.changed(&key),
                Part::Lease(_) => follower.freed(&key),
            });
        }
    }

    pub(super) fn lost(&self) {
        self.followers.iter().for_each(|follower| follower.lost());
    }

    pub(super) fn forget(&self) {
        self.followers.iter().for_each(|follower| follower.forget());
    }

    pub(super) fn confirmed(&self, at: Time) {
        self.followers.iter().for_each(|follower| follower.confirmed(at));
    }
}

impl std::fmt::Debug for Tracking {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tracking").field("every", &self.every).finish_non_exhaustive()
    }
}

/// Whether a server of this version may be asked to track.
pub(super) fn is_supported(version: &str) -> bool {
    version.split('.').next().and_then(|major| major.parse().ok()).unwrap_or(0) >= FIRST_MAJOR
}

/// Asks the server to tell of changes; the time from which on it does, or why it does not.
///
/// # Errors
///
/// If the connection does not answer.
pub(super) async fn arm(
    client: &mut MultiplexedConnection,
    clock: &dyn Clock,
) -> Result<Result<Time, String>, Fault> {
    let mut commands = Pipeline::new();
    commands.cmd("CLIENT").arg("TRACKING").arg("ON");
    add_watch(&mut commands);
    let before = clock.now();
    let answers = client
        .send_packed_commands(&commands, 0, commands.len())
        .await
        .map_err(|error| Fault::of_client(&error))?;
    let mut answers = answers.into_iter();
    let mut next = || answers.next().unwrap_or_default();
    Ok(match reply::is_ok(next()) {
        Ok(true) if is_on(next()) => Ok(before),
        Ok(_) => Err("it does not track".to_owned()),
        Err(fault) => Err(fault.text().to_owned()),
    })
}

/// Asks whether tracking is on. A `PING` would prove only that the connection is.
pub(super) fn add_watch(commands: &mut Pipeline) {
    commands.add_command(watch());
}

/// The question itself. What had changed before it was sent is told before its answer.
pub(super) fn watch() -> Cmd {
    let mut command = ::redis::cmd("CLIENT");
    command.arg("GETREDIR");
    command
}

/// The answer: −1 if tracking is off, 0 if it tells this connection.
pub(super) fn is_on(answer: Value) -> bool {
    reply::integer(answer).is_ok_and(|redirected| redirected == 0)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[derive(Default)]
    struct Heard(Mutex<Vec<String>>);

    impl Heard {
        fn add(&self, what: impl Into<String>) {
            self.0.lock().unwrap().push(what.into());
        }
    }

    impl Follower for Heard {
        fn changed(&self, key: &Key<'_>) {
            self.add(format!("{} {}", key.namespace().as_str(), key.name()));
        }
        fn freed(&self, key: &Key<'_>) {
            self.add(format!("{} {} freed", key.namespace().as_str(), key.name()));
        }
        fn groups_changed(&self, space: &Namespace) {
            self.add(format!("{} groups", space.as_str()));
        }
        fn lost(&self) {
            self.add("lost");
        }
        fn forget(&self) {
            self.add("forget");
        }
        fn confirmed(&self, at: Time) {
            self.add(at.as_millis().to_string());
        }
    }

    #[track_caller]
    fn check(data: &[Value], expected: &[&str]) {
        let heard = Arc::new(Heard::default());
        Tracking::of(heard.clone(), Duration::from_secs(1)).told(data);
        assert_eq!(*heard.0.lock().unwrap(), expected, "{data:?}");
    }

    fn names(names: &[&str]) -> Value {
        Value::Array(names.iter().map(|name| Value::BulkString((*name).into())).collect())
    }

    #[test]
    fn a_push_names_keys_or_everything() {
        check(&[names(&["shop:{va}", "shop/7:{v}x}}", "x:{v}"])], &["shop a", "shop/7 }x}", "x "]);
        check(&[names(&["shop:{va}:l", "shop:{v}:l}"])], &["shop a freed", "shop }:l"]);
        check(&[names(&["other", "", "no space:{va}"])], &[]);
        check(&[names(&["shop/7:g", "x:{vg}"])], &["shop/7 groups", "x g"]);
        check(&[names(&[])], &[]);
        check(&[Value::Nil], &["forget"]);
        check(&[], &["forget"]);
    }

    #[test]
    fn servers_that_push_into_answers_are_not_asked() {
        for (version, supported) in
            [("7.0.15", true), ("7.2.4", true), ("10.0", true), ("6.2.20", false), ("", false)]
        {
            assert_eq!(is_supported(version), supported, "{version}");
        }
    }

    #[test]
    fn only_zero_says_that_this_connection_is_told() {
        assert!(is_on(Value::Int(0)));
        for other in [Value::Int(-1), Value::Int(7), Value::Nil, Value::Okay] {
            assert!(!is_on(other));
        }
    }
}
