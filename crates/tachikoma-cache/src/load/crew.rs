//! What the members of one flight share.
//!
//! Who joined before the load began to read may have its value as soon as there is one. Who joined
//! later asked maybe after an invalidation that the load did not see; whether one came in between
//! only the store can tell, so they wait for its verdict on the value. Who joins while the value is
//! being stored can have none of it: it may be in and removed again. They ask again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use super::outcome::Outcome;
use super::wave::Wave;

/// When a member joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Joining {
    BeforeReading,
    Reading,
    Storing,
}

/// What those who joined late get.
#[derive(Clone)]
pub(super) enum Verdict {
    /// The outcome, as everybody.
    Good(Outcome),
    /// Nothing: an invalidation may have come in between. They ask the store again.
    AskAgain,
    /// Nothing, and the store does not answer. They load without it.
    StoreAway,
}

pub(super) struct Crew {
    phase: AtomicU8,
    loaded: Arc<Wave<Outcome>>,
    verdict: Arc<Wave<Verdict>>,
}

impl Crew {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { phase: AtomicU8::new(0), loaded: Wave::new(), verdict: Wave::new() })
    }

    /// The load reads from now on, the store first and then the source.
    pub(super) fn start_reading(&self) {
        self.phase.store(1, Ordering::SeqCst);
    }

    /// The value is being stored from now on.
    pub(super) fn start_storing(&self) {
        self.phase.store(2, Ordering::SeqCst);
    }

    /// When somebody joins who joins now.
    pub(super) fn joining(&self) -> Joining {
        match self.phase.load(Ordering::SeqCst) {
            0 => Joining::BeforeReading,
            1 => Joining::Reading,
            _ => Joining::Storing,
        }
    }

    /// Gives the outcome to those who joined before the load began to read.
    pub(super) fn publish(&self, outcome: Outcome) {
        self.loaded.publish(outcome);
    }

    /// Gives an outcome to all but those who joined while it was stored.
    pub(super) fn publish_to_all(&self, outcome: Outcome) {
        self.loaded.publish(outcome.clone());
        self.verdict.publish(Verdict::Good(outcome));
    }

    /// Says what those who joined late get.
    pub(super) fn judge(&self, verdict: Verdict) {
        self.verdict.publish(verdict);
    }

    /// What a member gets.
    pub(super) async fn outcome(&self, joining: Joining) -> Verdict {
        match joining {
            Joining::BeforeReading => Verdict::Good(self.loaded.outcome().await),
            Joining::Reading => self.verdict.outcome().await,
            Joining::Storing => match self.verdict.outcome().await {
                Verdict::Good(_) | Verdict::AskAgain => Verdict::AskAgain,
                Verdict::StoreAway => Verdict::StoreAway,
            },
        }
    }
}
