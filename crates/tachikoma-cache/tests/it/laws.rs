//! What holds for every store alike. The numbers are those of the project's catalogue of laws.

mod batch;
mod capacity;
mod dependencies;
mod flight;
mod guard;
mod list;
mod load_many;
mod map;
mod names;
mod options;
mod pattern;
mod stale;
mod tags;
mod ttl;
mod waiters;

use std::time::Duration;

pub(crate) const MINUTE: Duration = Duration::from_secs(60);

/// A duration in milliseconds.
pub(crate) fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}
