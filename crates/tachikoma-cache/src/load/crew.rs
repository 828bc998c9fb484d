//! What the members of one flight share.
//!
//! Who joined before the load began to read may have its value as soon as there is one. Who joined
//! later asked maybe after an invalidation that the load did not see; whether one came in between
//! only the store can tell, so they wait for its verdict on the value.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::Outcome;
use super::wave::Wave;

pub(super) struct Crew {
    running: AtomicBool,
    loaded: Arc<Wave<Outcome>>,
    /// `None`: not for those who joined late, they must ask again.
    verdict: Arc<Wave<Option<Outcome>>>,
}

impl Crew {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            running: AtomicBool::new(false),
            loaded: Wave::new(),
            verdict: Wave::new(),
        })
    }

    /// The load reads from now on, the store first and then the source.
    pub(super) fn start(&self) {
        self.running.store(true, Ordering::SeqCst);
    }

    /// Whether who joins now joins late.
    pub(super) fn is_running(&self) -> bool {
        self.running.load(Ordering::SeqCst)
    }

    /// Gives the outcome to those who joined before the load began to read.
    pub(super) fn publish(&self, outcome: Outcome) {
        self.loaded.publish(outcome);
    }

    /// Gives an outcome to all.
    pub(super) fn publish_to_all(&self, outcome: Outcome) {
        self.loaded.publish(outcome.clone());
        self.verdict.publish(Some(outcome));
    }

    /// Sends those who joined late away.
    pub(super) fn refuse(&self) {
        self.verdict.publish(None);
    }

    /// The outcome as a member gets it; `None` if it joined `late` and must ask again.
    pub(super) async fn outcome(&self, late: bool) -> Option<Outcome> {
        if late { self.verdict.outcome().await } else { Some(self.loaded.outcome().await) }
    }
}
