//! What the leader of a load does: ask the store once more, load, give the value out, store it.
//!
//! Whatever the store does, the loader's value is returned: looking up and storing share one
//! budget, and storing never delays the answer. A value is stored only under the lease that was
//! taken before its load, with the marks of its tags as they stood then.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::select;

use super::Job;
use super::call::call;
use super::crew::{Crew, Verdict};
use super::flight::FlightId;
use super::outcome::{Basis, By, Failure, Given, Held};
use super::patience::Patience;
use super::storing::{Asked, Plan, Unmarked};
use crate::clock::{Deadline, Time, real_sleep};
use crate::codec::TypeOps;
use crate::entry::Entry;
use crate::error::{Error, ErrorKind};
use crate::key::{Key, Namespace};
use crate::runtime::lock;
use crate::shared::Shared;
use crate::store::{Begun, Cx, Holder, Lease, When, Written};

/// The leader's place in the table. However its task ends, the flight ends and all waiters know.
pub(super) struct Seat {
    shared: Arc<Shared>,
    namespace: Namespace,
    name: String,
    /// `None`: its name is no key, so that nobody joins.
    id: Option<FlightId>,
    pub(super) crew: Arc<Crew>,
    pub(super) lease: Option<Lease>,
    /// Whether the store has an older value.
    pub(super) has_older: bool,
    /// Whether it has left the table.
    left: bool,
}

impl Seat {
    pub(super) fn new(shared: &Arc<Shared>, job: &Job, id: FlightId, crew: Arc<Crew>) -> Self {
        Self::at(shared, &job.namespace, &job.name, Some(id), crew)
    }

    pub(super) fn at(
        shared: &Arc<Shared>,
        namespace: &Namespace,
        name: &str,
        id: Option<FlightId>,
        crew: Arc<Crew>,
    ) -> Self {
        Self {
            shared: Arc::clone(shared),
            namespace: namespace.clone(),
            name: name.to_owned(),
            id,
            crew,
            lease: None,
            has_older: false,
            left: false,
        }
    }

    pub(super) fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }

    /// Whose load it is.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Leaves the table: who asks from now on loads anew.
    pub(super) fn leave(&mut self) {
        if !self.left
            && let Some(id) = self.id
            && let Ok(key) = Key::new(&self.namespace, self.name.as_str())
        {
            lock(self.shared.flights.shard(&key)).finish(&key, id);
            self.left = true;
        }
    }

    /// Leaves with what somebody stored meanwhile: it is for those who came before it was asked
    /// for, the others ask for themselves.
    pub(super) fn found(&mut self, held: Held) {
        let Held { object, guarantee, entry, .. } = held;
        let basis = Basis::Stored(entry);
        let by = if self.crew.has_waited() { By::Elsewhere } else { By::Store };
        if by == By::Elsewhere {
            self.shared.counters.coalesced.add_one();
        }
        self.give_back();
        self.leave();
        self.crew.publish(Ok(Given { object, guarantee, by, basis }));
        self.crew.judge(Verdict::AskAgain);
    }

    /// Gives a right that was not used back, before anybody may want it again.
    fn give_back(&mut self) {
        if let Some(lease) = self.lease.take()
            && let Ok(key) = Key::new(&self.namespace, self.name.as_str())
        {
            self.shared.store.abandon(&key, lease);
        }
    }

    /// Gives out what was loaded, and what those who joined late get of it.
    pub(super) fn give(&mut self, given: Given, verdict: Verdict) {
        self.give_back();
        self.leave();
        self.crew.publish(Ok(given));
        self.crew.judge(verdict);
    }

    /// Leaves the table unless somebody joined who has no other value; whether it left.
    pub(super) fn leave_unless_needed(&mut self) -> bool {
        let Ok(key) = Key::new(&self.namespace, self.name.as_str()) else { return false };
        let mut table = lock(self.shared.flights.shard(&key));
        self.left = !self.crew.is_needed();
        if self.left
            && let Some(id) = self.id
        {
            table.finish(&key, id);
        }
        self.left
    }

    /// Leaves before the error is given out, or the next caller would get it too.
    pub(super) fn fail(&mut self, failure: Failure) {
        self.give_back();
        self.leave();
        self.crew.publish_to_all(Err(failure));
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.fail(Failure::Aborted);
    }
}

/// What a load may do with its value.
#[derive(Clone, Copy)]
pub(super) enum Right {
    /// Store it.
    Lease(Lease),
    /// Only return it: another process is loading the key.
    Taken(Option<Holder>),
    /// Only return it: somebody is writing the source.
    Guarded,
    /// Only return it: the store failed.
    Nothing,
}

pub(super) async fn lead(mut seat: Seat, mut job: Box<Job>) {
    let shared = Arc::clone(&seat.shared);
    let (namespace, name) = (seat.namespace.clone(), seat.name.clone());
    let Ok(key) = Key::new(&namespace, name.as_str()) else {
        return;
    };
    let keys = [key];
    seat.crew.start_reading();
    let asked = if job.store {
        ask(&mut seat, &keys, &Asking::of(&job)).await
    } else {
        // Without a store nobody can tell what late joiners may have: they load again, together.
        Some((None, Right::Nothing, job.budget))
    };
    let Some((found, right, left)) = asked else { return };
    seat.has_older = found.is_some();
    let held = found.or(job.held.take());
    let (timeout, crew) = (job.options.load_timeout, Arc::clone(&seat.crew));
    let given = held.as_ref().and_then(|held| held.object.clone());
    let name = Some(name.as_str());
    let called = call(&shared, &namespace, name, job.loader, given, timeout, crew.hurried());
    let (product, began) = match called.await {
        Ok(called) => called,
        Err(failure) => {
            if held.is_some() && !job.options.retry_after.is_zero() {
                let until = shared.clock.now().saturating_add(job.options.retry_after);
                shared.throttle.close(&keys[0], until);
            }
            return seat.fail(failure);
        }
    };
    shared.throttle.open(&keys[0]);
    let (now, default_ttl) = (shared.clock.now(), shared.options.ttl);
    let asked = Asked {
        options: job.options,
        ops: job.ops,
        tags: job.tags,
        space: &namespace,
        default_ttl,
    };
    let plan = asked.plan(product, held.as_ref(), now, now.since(began), rand::random());
    let Some(Plan { object, stored, basis }) = plan else {
        shared.counters.load_failures.add_one();
        return seat.fail(Failure::NotModified);
    };
    let given = Given::by_loader(object, basis);
    let verdict = match next(&shared, &keys[0], right, stored, seat.has_older, now) {
        Next::Store(entry, lease) => {
            store(&mut seat, &keys[0], entry, lease, left, &given, job.local).await
        }
        Next::Give(verdict) => verdict,
    };
    seat.give(given, verdict);
}

/// What counts of a [`Job`] before it is run.
struct Asking {
    ops: TypeOps,
    optional: bool,
    renews: Option<Time>,
    has_fallback: bool,
    budget: Duration,
    timeout: Duration,
}

impl Asking {
    fn of(job: &Job) -> Self {
        let &Job { ops, optional, renews, has_fallback, budget, .. } = job;
        let timeout = job.options.load_timeout;
        Self { ops, optional, renews, has_fallback, budget, timeout }
    }
}

/// Asks the store once more, and for the right to store. While another process has that, it is
/// waited for. What was found, the right, and what is left of the budget; `None`: no load is
/// needed.
async fn ask(
    seat: &mut Seat,
    keys: &[Key<'_>],
    asking: &Asking,
) -> Option<(Option<Held>, Right, Duration)> {
    let shared = seat.shared();
    let mut patience = Patience::new(shared.clock.now(), asking.timeout);
    loop {
        // Before the question, so that no change is missed.
        let changed = shared.store.changed(keys);
        seat.crew.start_reading();
        let lookup = Deadline::after(asking.budget);
        let cx = Cx { now: shared.clock.now(), deadline: lookup };
        let mut begun = begin(&shared, keys, asking.ops, asking.optional, &cx).await;
        let (mut found, right) = begun.pop().unwrap_or((None, Right::Nothing));
        if let Right::Lease(lease) = right {
            seat.lease = Some(lease);
        }
        if let Some(held) = found.take_if(|held| makes_needless(held, asking.renews)) {
            seat.found(held);
            return None;
        }
        let asked = (found, right, lookup.remaining());
        let Right::Taken(holder) = right else { return Some(asked) };
        if asking.has_fallback && seat.leave_unless_needed() {
            seat.crew.publish_to_all(Err(Failure::Elsewhere));
            return None;
        }
        let Some(pause) = patience.pause(holder, shared.clock.now(), rand::random()) else {
            return Some(asked);
        };
        seat.crew.wait();
        select(changed, pin!(real_sleep(pause))).await;
    }
}

/// What is to be done with what was loaded.
pub(super) enum Next {
    Store(Entry, Lease),
    /// It is not stored. What those who joined late get of it.
    Give(Verdict),
}

pub(super) fn next(
    shared: &Shared,
    key: &Key<'_>,
    right: Right,
    stored: Result<Option<Unmarked>, Error>,
    has_older: bool,
    now: Time,
) -> Next {
    Next::Give(match right {
        Right::Lease(lease) => {
            let stored = stored.unwrap_or_else(|error| {
                shared.note("store", key, &error);
                None
            });
            // What is there is older than what the source says now.
            match stored.or_else(|| has_older.then(|| Unmarked::note(now))) {
                Some(unmarked) => {
                    return Next::Store(unmarked.entry(key.namespace(), lease.groups), lease);
                }
                None => Verdict::AskAgain,
            }
        }
        Right::Taken(_) | Right::Guarded => Verdict::AskAgain,
        // Another process may reach the store and have invalidated meanwhile: nobody here can tell.
        Right::Nothing => Verdict::StoreAway,
    })
}

/// Whether what was found is as good as what would be loaded.
pub(super) fn makes_needless(held: &Held, renews: Option<Time>) -> bool {
    held.guarantee.is_fresh() && renews.is_none_or(|stored| held.entry.meta().created > stored)
}

/// Asks the store once more, and for leases. Its failure is only counted, once; then there is
/// nothing for any key.
pub(super) async fn begin(
    shared: &Shared,
    keys: &[Key<'_>],
    ops: TypeOps,
    optional: bool,
    cx: &Cx,
) -> Vec<(Option<Held>, Right)> {
    let begun = shared.store.begin(keys, cx).await.unwrap_or_else(|error| {
        if let Some(key) = keys.first() {
            shared.note("look up", key, &error);
        }
        Vec::new()
    });
    let begun = keys.iter().zip(begun).map(|(key, Begun { found, lease, holder, guarded })| {
        // What is not a value of this type is replaced.
        let held = found.and_then(|found| shared.hold(key, found, ops, optional));
        let right = match lease {
            Some(lease) => Right::Lease(lease),
            None if guarded => Right::Guarded,
            None => Right::Taken(holder),
        };
        (held, right)
    });
    begun.collect()
}

/// Stores what was loaded and gives it out; what those who joined late get of it.
async fn store(
    seat: &mut Seat,
    key: &Key<'_>,
    entry: Entry,
    lease: Lease,
    left: Duration,
    given: &Given,
    local: bool,
) -> Verdict {
    let shared = Arc::clone(&seat.shared);
    let tagged = !entry.meta().marks.is_empty();
    if !local {
        // Now, so that the write below is on its way at once. Its error, and the panic of a type's
        // own code, come again there.
        let _ = catch_unwind(AssertUnwindSafe(|| entry.bytes().is_ok()));
    }
    seat.crew.start_storing();
    seat.lease = None; // From here on it is the store's.
    let cx = Cx { now: shared.clock.now(), deadline: Deadline::after(left) };
    let write = async { shared.store.write(key, entry, When::Leased(&lease), &cx).await };
    let mut write = pin!(AssertUnwindSafe(write).catch_unwind());
    // On its way before the value is given out: whoever asks after that finds it. The answer of the
    // store is not waited for.
    let at_once = write.as_mut().now_or_never();
    if at_once.is_some() {
        seat.leave();
    }
    seat.crew.publish(Ok(given.clone()));
    let written = match at_once {
        Some(written) => written,
        None => write.await,
    };
    let written = written.unwrap_or_else(|_panic| Err(ErrorKind::Unencodable.into()));
    let (verdict, outdated) = seat.stored(key, written, tagged, given);
    if outdated && let Err(error) = shared.store.remove(std::slice::from_ref(key), &cx).await {
        shared.note("remove", key, &error);
    }
    verdict
}

impl Seat {
    /// What those who joined late get after this was the store's answer, and whether the older
    /// value is to be removed because the new one cannot be stored.
    pub(super) fn stored(
        &self,
        key: &Key<'_>,
        written: Result<Written, Error>,
        tagged: bool,
        given: &Given,
    ) -> (Verdict, bool) {
        match written {
            Ok(Written::Stored) => {
                // A lease tells nothing of the tags: whether they were invalidated meanwhile is
                // asked with the next lookup.
                let verdict =
                    if tagged { Verdict::AskAgain } else { Verdict::Good(Ok(given.clone())) };
                (verdict, false)
            }
            Ok(Written::Refused) => {
                self.shared.counters.refused_fills.add_one();
                (Verdict::AskAgain, false)
            }
            Err(error) => {
                self.shared.note("store", key, &error);
                if error.kind().is_transient() {
                    return (Verdict::StoreAway, false);
                }
                // Whether it was overtaken is not known either: the store did not come to look.
                (Verdict::AskAgain, self.has_older)
            }
        }
    }
}
