//! The runtime and the locks that loads run on: Tokio and std, or shuttle's when its scheduler
//! drives the tests.

use std::future::Future;

#[cfg(not(feature = "__shuttle"))]
pub(crate) use std::sync::{Mutex, MutexGuard, PoisonError};

#[cfg(feature = "__shuttle")]
pub(crate) use shuttle::sync::{Mutex, MutexGuard, PoisonError};

/// A lock that a panic elsewhere does not poison for good: what it guards is consistent between any
/// two of its statements.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs a future by itself. Without a runtime it is dropped, unpolled, and `false` comes back.
#[cfg(not(feature = "__shuttle"))]
pub(crate) fn spawn(future: impl Future<Output = ()> + Send + 'static) -> bool {
    match tokio::runtime::Handle::try_current() {
        Ok(runtime) => {
            runtime.spawn(future);
            true
        }
        Err(_) => false,
    }
}

#[cfg(feature = "__shuttle")]
pub(crate) fn spawn(future: impl Future<Output = ()> + Send + 'static) -> bool {
    shuttle::future::spawn(future);
    true
}
