//! What to do with what was found: serve it, renew it, load with it at hand, or load.
//!
//! Pure: what is known of the entry and what the caller accepts go in, the choice comes out. Chance
//! and the throttle are asked for only where they count.

use std::time::Duration;

use super::options::LoadOptions;
use crate::clock::Time;
use crate::entry::Meta;
use crate::store::{Guarantee, StaleReason};

/// The natural logarithm of the smallest draw is no further from zero than this.
const FARTHEST: f64 = 37.0;

/// What counts of an entry.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Found {
    pub(crate) guarantee: Guarantee,
    /// What is left of its TTL; `None`: it has none.
    pub(crate) left: Option<Duration>,
    /// How long its load took.
    pub(crate) load_time: Duration,
}

impl Found {
    pub(crate) fn of(meta: &Meta, guarantee: Guarantee, now: Time) -> Self {
        let left = meta.soft_expiry.map(|at| at.since(now));
        Self { guarantee, left, load_time: meta.load_time }
    }
}

/// What a caller gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Choice {
    /// What was found.
    Serve(Guarantee),
    /// What was found, and one load renews it in the background.
    ServeAndRefresh(Guarantee),
    /// What is loaded, or what was found if that does not work.
    LoadWithFallback,
    /// What is loaded.
    Load,
}

/// Chooses by what the caller accepts. `throttled`: whether the source is not to be asked now;
/// `draw`: a number from 0 (excluded) to 1.
pub(crate) fn choose(
    found: Option<Found>,
    options: &LoadOptions,
    throttled: impl FnOnce() -> bool,
    draw: impl FnOnce() -> f64,
) -> Choice {
    let Some(found) = found else { return Choice::Load };
    let Guarantee::Stale { reason, age } = found.guarantee else {
        return if is_early(found, options.early_refresh, draw) && !throttled() {
            Choice::ServeAndRefresh(found.guarantee)
        } else {
            Choice::Serve(found.guarantee)
        };
    };
    let now = is_within(age, options.stale_while_revalidate);
    if !now && !is_within(age, options.stale_if_error) {
        return Choice::Load;
    }
    let stale = |reason| Guarantee::Stale { reason, age };
    if now && reason == StaleReason::Disconnected {
        // Nobody could store what a load brings.
        Choice::Serve(stale(reason))
    } else if throttled() {
        Choice::Serve(stale(StaleReason::Throttled))
    } else if now {
        Choice::ServeAndRefresh(stale(StaleReason::Revalidating))
    } else {
        Choice::LoadWithFallback
    }
}

/// Whether somebody who accepts values of this window gets one of this age. Like a TTL a window is
/// over at its end; one of zero accepts none, also not what became stale this moment.
pub(crate) fn is_within(age: Duration, window: Duration) -> bool {
    age < window
}

/// Whether a fresh value is to be renewed now: `XFetch` of Vattani et al. (2015), with the time
/// that its own load took.
fn is_early(found: Found, beta: Option<f64>, draw: impl FnOnce() -> f64) -> bool {
    let (Some(beta), Some(left)) = (beta, found.left) else { return false };
    let (reach, left) = (beta * found.load_time.as_secs_f64(), left.as_secs_f64());
    // Mostly it is too early for every draw.
    left <= reach * FARTHEST && left <= -reach * draw().ln()
}

#[cfg(test)]
mod tests;
