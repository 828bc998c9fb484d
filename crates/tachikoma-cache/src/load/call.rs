//! Runs a loader: when it is its turn, within its time, its panics contained, counted and told.

use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::{Either, select};

use tokio::sync::Notify;

use super::bulkhead::Full;
use super::outcome::{Failure, Loader, Product};
use crate::clock::{Stopwatch, Time};
use crate::dependencies::Recorder;
use crate::entry::Object;
use crate::events::{EventKind, LoadFailure};
use crate::key::Namespace;
use crate::shared::Shared;

/// What the loader makes, given the value at hand, and when it began, unless it takes longer than
/// `timeout`. Waiting for its turn counts; a loader whose turn does not come is not called.
pub(super) async fn call(
    shared: &Shared,
    namespace: &Namespace,
    name: Option<&str>,
    loader: Loader,
    held: Option<Object>,
    timeout: Duration,
    hurried: &Notify,
) -> Result<(Product, Time), Failure> {
    let waited = Stopwatch::start();
    let limit = shared.clock.sleep(timeout);
    let turn = pin!(shared.bulkhead.enter(hurried));
    let (_turn, limit) = match select(turn, limit).await {
        Either::Left((Ok(turn), limit)) => (turn, limit),
        Either::Left((Err(Full), _)) => {
            let kind =
                EventKind::LoadFailed { took: waited.elapsed(), why: LoadFailure::Overloaded };
            shared.tell_of(namespace, name, kind);
            return Err(Failure::Overloaded);
        }
        Either::Right(_) => {
            let kind = EventKind::LoadFailed { took: waited.elapsed(), why: LoadFailure::Timeout };
            shared.tell_of(namespace, name, kind);
            return Err(Failure::TimedOut);
        }
    };
    shared.counters.loads.add_one();
    let (took, began) = (Stopwatch::start(), shared.clock.now());
    // The call itself may panic as well as the future that it makes.
    let recorder = shared.dependencies.then(Recorder::apart);
    let recording = recorder.clone();
    let load = async move {
        match recording {
            Some(recorder) => recorder.scope(async move { loader(held).await }).await,
            None => loader(held).await,
        }
    };
    let load = AssertUnwindSafe(load).catch_unwind();
    let result = match select(Box::pin(load), limit).await {
        Either::Left((Ok(Ok(product)), _)) => Ok(product),
        Either::Left((Ok(Err(error)), _)) => Err(Failure::Source(error)),
        Either::Left((Err(_panic), _)) => Err(Failure::Panicked),
        Either::Right(_) => Err(Failure::TimedOut),
    };
    let took = took.elapsed();
    let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
    shared.counters.load_nanos.add(nanos);
    if result.is_err() {
        shared.counters.load_failures.add_one();
    }
    shared.tell_of(
        namespace,
        name,
        match &result {
            Ok(_) => EventKind::Loaded { took },
            Err(Failure::Panicked) => EventKind::LoadFailed { took, why: LoadFailure::Panic },
            Err(Failure::TimedOut) => EventKind::LoadFailed { took, why: LoadFailure::Timeout },
            Err(_) => EventKind::LoadFailed { took, why: LoadFailure::Error },
        },
    );
    let read = recorder.map(|recorder| recorder.dependencies()).unwrap_or_default();
    result.map(|product| (Product { read, ..product }, began))
}
