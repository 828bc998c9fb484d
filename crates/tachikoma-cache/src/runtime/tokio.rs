//! Tokio's tasks and std's locks.

use std::future::Future;

pub(crate) use std::sync::{Mutex, MutexGuard};

use super::Carried;
use crate::clock::has_timers;

tokio::task_local! {
    static CARRIED: Carried;
}

/// Runs a future by itself, with something that [`carried`] finds in it. Without a runtime it is
/// dropped, unpolled.
pub(crate) fn spawn(carried: Carried, future: impl Future<Output = ()> + Send + 'static) {
    if let Ok(runtime) = tokio::runtime::Handle::try_current() {
        runtime.spawn(CARRIED.scope(carried, future));
    }
}

/// Whether a load can run here: it needs a task of its own, and a timer to end it.
pub(crate) fn can_load() -> bool {
    has_timers()
}

/// What the running task was spawned with.
pub(crate) fn carried() -> Option<Carried> {
    CARRIED.try_with(Carried::clone).ok()
}
