//! Shuttle's tasks and locks: its scheduler decides at each of them who goes on.

use std::cell::RefCell;
use std::future::Future;

pub(crate) use shuttle::sync::{Mutex, MutexGuard};

use super::Carried;

shuttle::thread_local! {
    // Tokio's would be seen by whoever the scheduler runs in between: its tasks share a thread.
    static CARRIED: RefCell<Option<Carried>> = RefCell::new(None);
}

/// Runs a future by itself, with something that [`carried`] finds in it.
pub(crate) fn spawn(carried: Carried, future: impl Future<Output = ()> + Send + 'static) {
    shuttle::future::spawn(async move {
        CARRIED.with(|mine| *mine.borrow_mut() = Some(carried));
        future.await;
    });
}

/// Whether a load can run here.
pub(crate) fn can_load() -> bool {
    true
}

/// What the running task was spawned with.
pub(crate) fn carried() -> Option<Carried> {
    CARRIED.with(|mine| mine.borrow().clone())
}
