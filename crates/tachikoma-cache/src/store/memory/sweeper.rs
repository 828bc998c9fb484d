//! Frees what has expired without traffic: one thread for all stores in memory of the process.
//!
//! It decides when to look, not what goes. It needs no runtime, starts with the first store and
//! ends after the last one is gone. A panic in a store's clock or in its listener does not end it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use super::MemoryStore;
use crate::error::{Error, ErrorKind};

/// How long what has expired stays at most, if the machine is not overloaded. A test clock moves
/// without telling, so looking is all that can be done; it costs one comparison per shard.
const PAUSE: Duration = Duration::from_millis(500);

/// So many entries at a time, then other stores and threads have their turn.
const AT_A_TIME: usize = 1024;

struct Watched {
    stores: Vec<Weak<MemoryStore>>,
    running: bool,
}

static WATCHED: Mutex<Watched> = Mutex::new(Watched { stores: Vec::new(), running: false });

fn watched() -> MutexGuard<'static, Watched> {
    WATCHED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Frees what expires in `store` from now on, as long as it lives.
pub(super) fn watch(store: &Arc<MemoryStore>) -> Result<(), Error> {
    let mut watched = watched();
    if !watched.running {
        std::thread::Builder::new().name("cache-sweeper".to_owned()).spawn(run).map_err(
            |error| {
                Error::new(ErrorKind::Unavailable, "the sweeper thread cannot start")
                    .with_source(error)
            },
        )?;
        watched.running = true;
    }
    watched.stores.push(Arc::downgrade(store));
    Ok(())
}

fn run() {
    loop {
        std::thread::sleep(PAUSE);
        let stores = {
            let mut watched = watched();
            watched.stores.retain(|store| store.strong_count() > 0);
            if watched.stores.is_empty() {
                watched.running = false;
                return;
            }
            watched.stores.clone()
        };
        for store in stores {
            let sweep = || while sweep_once(&store) {};
            // The panic hook has reported it; the next round tries again.
            let _ = catch_unwind(AssertUnwindSafe(sweep));
        }
    }
}

/// Whether there may be more to free.
fn sweep_once(store: &Weak<MemoryStore>) -> bool {
    // Held for one slice only: a store whose last user goes is freed here, and at once.
    let Some(store) = store.upgrade() else { return false };
    let sweep = store.sweep(AT_A_TIME);
    std::thread::yield_now();
    sweep.freed == AT_A_TIME
}
