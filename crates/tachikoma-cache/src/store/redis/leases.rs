//! The leases that this process holds: renewed while their loads go on, and ended once.
//!
//! A lease is short, so that the load of a process that dies is soon taken over; a load may be
//! long. So the holder renews: each lease when a third of its time has passed, by a script that
//! looks at the token first and never brings a lost one back. It decides only when. It is a part of
//! the store's one background task: a process that is stopped renews nothing.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ::redis::Pipeline;
use futures_util::future::join_all;
use tokio::sync::Notify;

use super::Shared;
use super::courier::Errand;
use super::layout;
use super::link::{Connection, Link};
use super::read::is_current;
use super::reply;
use super::scripts;
use crate::clock::{Deadline, Stopwatch, real_sleep};
use crate::key::Key;
use crate::store::{Lease, When};

/// So many leases are renewed at once.
const AT_ONCE: usize = 500;

/// The leases in use, by token.
#[derive(Debug, Default)]
pub(super) struct Leases {
    held: Mutex<HashMap<u128, Held>>,
    first: Notify,
}

#[derive(Debug)]
struct Held {
    /// The key of the lease in the server.
    name: String,
    /// Since its time last began, or a little longer.
    since: Stopwatch,
}

impl Leases {
    /// Renews a lease from now on, whose time began when `since` was started.
    pub(super) fn hold(&self, name: String, token: u128, since: Stopwatch) {
        let mut held = self.lock();
        let is_first = held.is_empty();
        held.insert(token, Held { name, since });
        drop(held);
        if is_first {
            self.first.notify_one();
        }
    }

    /// Does not renew a lease any more.
    pub(super) fn let_go(&self, token: u128) {
        self.lock().remove(&token);
    }

    fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    /// The leases whose time began so long ago.
    fn due(&self, age: Duration) -> Vec<(u128, String)> {
        let held = self.lock();
        let due = held.iter().filter(|(_, held)| held.since.elapsed() >= age);
        due.map(|(token, held)| (*token, held.name.clone())).collect()
    }

    /// The time of a lease began anew, unless it was let go.
    fn renewed(&self, token: u128, at: Stopwatch) {
        if let Some(held) = self.lock().get_mut(&token) {
            held.since = at;
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u128, Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Works until it is dropped.
pub(super) async fn run(link: &Link, leases: &Leases) {
    let lease = Duration::from_millis(link.config.lease_millis());
    loop {
        if leases.is_empty() {
            leases.first.notified().await;
        }
        // Often enough that one is renewed soon after a third of its time.
        real_sleep(lease / 12).await;
        let due = leases.due(lease / 3);
        // Without a connection it is tried again in a moment, while there is time.
        if let Ok(connection) = link.connection() {
            let parts = due.chunks(AT_ONCE).map(|part| renew(link, &connection, leases, part));
            join_all(parts).await;
        }
    }
}

async fn renew(link: &Link, connection: &Connection, leases: &Leases, due: &[(u128, String)]) {
    let millis = link.config.lease_millis().to_string();
    let mut commands = Pipeline::new();
    let mut asked = Vec::with_capacity(due.len());
    for (token, name) in due {
        if is_current(*token, connection) {
            let arguments: [&[u8]; 2] = [&token.to_be_bytes(), millis.as_bytes()];
            commands.add_command(scripts::RENEW.by_text(&[name], &arguments));
            asked.push(*token);
        } else {
            // It was given by another run of the server and fills nothing.
            leases.let_go(*token);
        }
    }
    if asked.is_empty() {
        return;
    }
    let (sent, deadline) = (Stopwatch::start(), Deadline::after(link.config.get_timeout()));
    match link.pipeline(connection, &commands, deadline).await {
        Ok(answers) => {
            for (token, answer) in asked.into_iter().zip(answers) {
                match reply::integer(answer) {
                    Ok(1) => leases.renewed(token, sent),
                    // Taken away by an invalidation, or somebody else's by now.
                    Ok(_) => leases.let_go(token),
                    Err(fault) => link.errors.count(link.refused(connection, fault).kind),
                }
            }
        }
        Err(fault) => link.errors.count(fault.kind),
    }
}

/// A lease on its way to its end: given back unless the server has ended it, also if whoever writes
/// with it goes away.
pub(super) struct Ending<'a> {
    shared: &'a Shared,
    lease: Option<(String, u128)>,
}

impl Ending<'_> {
    /// The server has ended it, or somebody else has before.
    pub(super) fn is_over(&mut self) {
        self.lease = None;
    }
}

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        if let Some((lease, token)) = self.lease.take() {
            self.shared.errands.add(Errand::Release { lease, token: token.to_be_bytes() });
        }
    }
}

impl Shared {
    /// The end of the lease that a write needs, if it needs one.
    pub(super) fn ending(&self, key: &Key<'_>, when: When<'_>) -> Ending<'_> {
        let lease = match when {
            When::Leased(lease) => {
                self.leases.let_go(lease.token);
                Some((layout::lease(key), lease.token))
            }
            When::Always | When::Absent => None,
        };
        Ending { shared: self, lease }
    }

    /// Gives a lease back in the background.
    pub(super) fn abandon(&self, key: &Key<'_>, lease: Lease) {
        drop(self.ending(key, When::Leased(&lease)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_due_by_its_age_until_it_is_let_go() {
        let leases = Leases::default();
        let (long, since) = (Duration::from_secs(3600), Stopwatch::start());
        leases.hold("a".into(), 1, since);
        leases.hold("b".into(), 2, since);
        assert!(leases.due(long).is_empty());
        assert_eq!(leases.due(Duration::ZERO).len(), 2);
        leases.let_go(1);
        leases.renewed(1, since);
        assert_eq!(leases.due(Duration::ZERO), [(2, "b".to_owned())]);
        leases.let_go(2);
        assert!(leases.is_empty());
    }
}
