//! The runtime and the locks that loads run on: Tokio and std, or shuttle's when its scheduler
//! drives the tests.

#[cfg_attr(feature = "__shuttle", path = "runtime/shuttle.rs")]
#[cfg_attr(not(feature = "__shuttle"), path = "runtime/tokio.rs")]
mod chosen;

use std::any::Any;
use std::sync::Arc;

pub(crate) use chosen::{Mutex, can_load, carried, spawn};

/// What a task carries along for the code that runs in it.
pub(crate) type Carried = Arc<dyn Any + Send + Sync>;

/// A lock that a panic elsewhere does not poison for good: what it guards is consistent between any
/// two of its statements.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> chosen::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
