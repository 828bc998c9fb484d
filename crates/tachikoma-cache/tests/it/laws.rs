//! What holds for every store alike. The numbers are those of the project's catalogue of laws.

mod flight;
mod map;
mod pattern;
mod tags;
mod ttl;

use std::time::Duration;

pub(crate) const MINUTE: Duration = Duration::from_secs(60);

/// A duration in milliseconds.
pub(crate) fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}
