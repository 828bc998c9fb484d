//! What the leader of several keys does: what [`lead`](super::lead) does for one, with one question
//! to the store, one call of the loader and one write for all. Keys that other processes are
//! loading are waited for beside that, and what is left of them is loaded together.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{Either, join_all, select};
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _};
use tokio::sync::Notify;

use super::batch::{AT_ONCE, Found, Terms, Want};
use super::call::call;
use super::crew::Verdict;
use super::lead::{Next, Right, Seat, begin, makes_needless, next};
use super::outcome::{Failure, Given, Held, Made, Product};
use super::patience::Patience;
use super::storing::{Asked, Plan};
use crate::clock::{Deadline, Time, real_sleep};
use crate::entry::Entry;
use crate::error::ErrorKind;
use crate::key::{Key, Namespace};
use crate::shared::Shared;
use crate::store::{Cx, Lease, When, Write};

/// One key about which the store is to be asked.
struct Asking {
    seat: Seat,
    want: Want,
    patience: Patience,
}

/// What the store said.
struct Prepared<'a> {
    /// Is to be loaded now.
    loading: Vec<Loading<'a>>,
    /// Others are loading it: to be asked about again after the pause.
    taken: Vec<Asking>,
    pause: Duration,
}

/// One key on its way.
struct Loading<'a> {
    seat: Seat,
    /// `None`: its name is none, so it is only loaded.
    key: Option<Key<'a>>,
    right: Right,
    held: Option<Held>,
}

/// One key whose value is to be stored.
struct Storing<'a> {
    seat: Seat,
    key: Key<'a>,
    entry: Entry,
    lease: Lease,
    given: Given,
}

pub(super) async fn lead_many(seats: Vec<(Seat, Want)>, hurried: Arc<Notify>, terms: Terms) {
    let Some(shared) = seats.first().map(|(seat, _)| seat.shared()) else { return };
    let namespace = terms.namespace.clone();
    let patience = || Patience::new(shared.clock.now(), terms.options.load_timeout);
    let seats = seats.into_iter().map(|(seat, want)| Asking { seat, want, patience: patience() });
    let mut asking: Vec<_> = seats.collect();
    let mut loads = FuturesUnordered::new();
    // What may be loaded is loaded at once, while the loads of others are waited for.
    loop {
        let keys = asking.iter().map(|one| Key::new(&namespace, one.want.name.clone()));
        let keys: Vec<_> = keys.filter_map(Result::ok).collect();
        // Before the question, so that no change is missed.
        let changed = shared.store.changed(&keys);
        let deadline = Deadline::after(shared.store_timeout);
        let (mut loading, mut taken, mut pause) = (Vec::new(), Vec::new(), Duration::MAX);
        for chunk in chunks(asking) {
            let prepared = prepare(&shared, chunk, &namespace, &terms, deadline);
            let prepared = beside(&mut loads, prepared).await;
            loading.extend(prepared.loading);
            taken.extend(prepared.taken);
            pause = pause.min(prepared.pause);
        }
        if !loading.is_empty() {
            loads.push(load(&shared, loading, &namespace, &terms, &hurried, deadline));
        }
        asking = taken;
        if asking.is_empty() {
            break;
        }
        beside(&mut loads, select(changed, pin!(real_sleep(pause)))).await;
    }
    while loads.next().await.is_some() {}
}

/// What comes of something while loads go on.
async fn beside<T>(
    loads: &mut FuturesUnordered<impl Future<Output = ()>>,
    something: impl Future<Output = T>,
) -> T {
    let mut something = pin!(something);
    while !loads.is_empty() {
        if let Either::Left((done, _)) = select(something.as_mut(), loads.next()).await {
            return done;
        }
    }
    something.await
}

/// Loads these keys and stores what was found.
async fn load(
    shared: &Shared,
    loading: Vec<Loading<'_>>,
    namespace: &Namespace,
    terms: &Terms,
    hurried: &Notify,
    deadline: Deadline,
) {
    let left = deadline.remaining();
    let names = loading.iter().map(|one| one.seat.name().to_owned()).collect();
    let (loader, timeout) = ((terms.source)(names), terms.options.load_timeout);
    let called = call(shared, namespace, None, loader, None, timeout, hurried).await;
    let called = called.and_then(|(mut product, began)| {
        let read = std::mem::take(&mut product.read);
        Ok((found(product)?, read, began))
    });
    let (mut found, read, began) = match called {
        Ok(found) => found,
        Err(failure) => return fail(shared, loading, terms, &failure),
    };
    let now = shared.clock.now();
    let mut storing = Vec::new();
    for Loading { mut seat, key, right, held } in loading {
        if let Some(key) = &key {
            shared.throttle.open(key);
        }
        let made = found.remove(seat.name()).map_or(Made::Nothing, Made::Value);
        let product = Product { read: read.clone(), ..Product::of(made) };
        let plan = plan(shared, terms, product, held.as_ref(), now, began);
        let Some(Plan { object, stored, basis }) = plan else {
            seat.fail(Failure::Aborted); // Only what is not modified has none.
            continue;
        };
        let given = Given::by_loader(object, basis);
        let Some(key) = key else {
            seat.give(given.clone(), Verdict::Good(Ok(given)));
            continue;
        };
        match next(shared, &key, right, stored, seat.has_older, now) {
            Next::Store(entry, lease) => storing.push(Storing { seat, key, entry, lease, given }),
            Next::Give(verdict) => seat.give(given, verdict),
        }
    }
    store(shared, storing, terms.local, Deadline::after(left)).await;
}

fn chunks<T>(items: Vec<T>) -> impl Iterator<Item = Vec<T>> {
    let mut items = items.into_iter();
    std::iter::from_fn(move || {
        let chunk: Vec<T> = items.by_ref().take(AT_ONCE).collect();
        (!chunk.is_empty()).then_some(chunk)
    })
}

/// Asks the store once more, and for leases.
async fn prepare<'a>(
    shared: &Shared,
    asking: Vec<Asking>,
    namespace: &'a Namespace,
    terms: &Terms,
    deadline: Deadline,
) -> Prepared<'a> {
    let cx = Cx { now: shared.clock.now(), deadline };
    let keys: Vec<Option<Key<'a>>> =
        asking.iter().map(|one| Key::new(namespace, one.want.name.clone()).ok()).collect();
    for one in &asking {
        one.seat.crew.start_reading();
    }
    let mut begun = Vec::new();
    if terms.store {
        let asked: Vec<Key<'_>> = keys.iter().flatten().cloned().collect();
        begun = begin(shared, &asked, terms.ops, true, &cx).await;
    }
    let mut begun = begun.into_iter();
    let mut prepared = Prepared { loading: Vec::new(), taken: Vec::new(), pause: Duration::MAX };
    for (one, key) in asking.into_iter().zip(keys) {
        let Asking { mut seat, want, mut patience } = one;
        let asked = key.as_ref().and_then(|_| begun.next());
        let (mut found, right) = asked.unwrap_or((None, Right::Nothing));
        if let Right::Lease(lease) = right {
            seat.lease = Some(lease);
        }
        if let Some(held) = found.take_if(|held| makes_needless(held, want.renews)) {
            seat.found(held);
            continue;
        }
        if let Right::Taken(holder) = right {
            if want.has_fallback && seat.leave_unless_needed() {
                seat.crew.publish_to_all(Err(Failure::Elsewhere));
                continue;
            }
            if let Some(pause) = patience.pause(holder, shared.clock.now(), rand::random()) {
                seat.crew.wait();
                prepared.pause = prepared.pause.min(pause);
                prepared.taken.push(Asking { seat, want, patience });
                continue;
            }
        }
        seat.has_older = found.is_some();
        prepared.loading.push(Loading { seat, key, right, held: found.or(want.held) });
    }
    prepared
}

fn found(product: Product) -> Result<Found, Failure> {
    let Made::Value(object) = product.made else { return Err(Failure::Aborted) };
    // The source of this very load made it, so it is what it says.
    let found = object.downcast::<Found>().map_err(|_| Failure::Aborted)?;
    Ok(Arc::unwrap_or_clone(found))
}

fn fail(shared: &Shared, loading: Vec<Loading<'_>>, terms: &Terms, failure: &Failure) {
    for Loading { mut seat, key, held, .. } in loading {
        if let Some(key) = key
            && held.is_some()
            && !terms.options.retry_after.is_zero()
        {
            let until = shared.clock.now().saturating_add(terms.options.retry_after);
            shared.throttle.close(&key, until);
        }
        seat.fail(failure.clone());
    }
}

fn plan(
    shared: &Shared,
    terms: &Terms,
    product: Product,
    held: Option<&Held>,
    now: Time,
    began: Time,
) -> Option<Plan> {
    let (options, ops, tags) = (terms.options, terms.ops, terms.tags.clone());
    let (space, default_ttl) = (&terms.namespace, shared.options.ttl);
    let asked = Asked { options, ops, tags, space, default_ttl };
    asked.plan(product, held, now, now.since(began), rand::random())
}

/// Stores all values and gives them out.
async fn store(shared: &Shared, mut storing: Vec<Storing<'_>>, local: bool, deadline: Deadline) {
    if storing.is_empty() {
        return;
    }
    if !local {
        // Now, so that the writes below are on their way at once. An error, and the panic of a
        // type's own code, come again there.
        for one in &storing {
            let _ = catch_unwind(AssertUnwindSafe(|| one.entry.bytes().is_ok()));
        }
    }
    for one in &mut storing {
        one.seat.crew.start_storing();
        one.seat.lease = None; // From here on it is the store's.
    }
    let cx = Cx { now: shared.clock.now(), deadline };
    let leases: Vec<Lease> = storing.iter().map(|one| one.lease).collect();
    let writes = storing.iter().zip(&leases).map(|(one, lease)| Write {
        key: one.key.clone(),
        entry: one.entry.clone(),
        when: When::Leased(lease),
    });
    let writes: Vec<Write<'_>> = writes.collect();
    let parts = writes.chunks(AT_ONCE).map(|part| async {
        let written = AssertUnwindSafe(shared.store.write_many(part, &cx)).catch_unwind().await;
        let written = written.unwrap_or_else(|_panic| Err(ErrorKind::Unencodable.into()));
        match written {
            Ok(written) => written,
            Err(error) => part.iter().map(|_| Err(error.again())).collect(),
        }
    });
    let mut parts = Box::pin(join_all(parts));
    // On its way before the values are given out, as with one.
    let at_once = parts.as_mut().now_or_never();
    let is_done = at_once.is_some();
    for one in &mut storing {
        if is_done {
            one.seat.leave();
        }
        one.seat.crew.publish(Ok(one.given.clone()));
    }
    let written = match at_once {
        Some(written) => written,
        None => parts.await,
    };
    let mut outdated = Vec::new();
    for (one, written) in storing.into_iter().zip(written.into_iter().flatten()) {
        let Storing { mut seat, key, entry, given, .. } = one;
        let tagged = !entry.meta().marks.is_empty();
        let (verdict, is_outdated) = seat.stored(&key, written, tagged, &given);
        if is_outdated {
            outdated.push(key);
        }
        seat.give(given, verdict);
    }
    if let Some(key) = outdated.first()
        && let Err(error) = shared.store.remove(&outdated, &cx).await
    {
        shared.note("remove", key, &error);
    }
}
