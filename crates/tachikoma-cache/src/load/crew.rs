//! What the members of one flight share.
//!
//! Who joined before the load began to read may have its value as soon as there is one. Who joined
//! later asked maybe after an invalidation that the load did not see; whether one came in between
//! only the store can tell, so they wait for its verdict on the value. Who joins while the value is
//! being stored can have none of it: it may be in and removed again. They ask again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use tokio::sync::Notify;

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
    needed: AtomicBool,
    waited: AtomicBool,
    hurried: Arc<Notify>,
    loaded: Arc<Wave<Outcome>>,
    verdict: Arc<Wave<Verdict>>,
}

impl Crew {
    pub(super) fn new() -> Arc<Self> {
        Self::hurried_by(Arc::new(Notify::new()))
    }

    /// One of several crews whose load is one, so that who hurries one hurries it.
    pub(super) fn hurried_by(hurried: Arc<Notify>) -> Arc<Self> {
        Arc::new(Self {
            phase: AtomicU8::new(0),
            needed: AtomicBool::new(false),
            waited: AtomicBool::new(false),
            hurried,
            loaded: Wave::new(),
            verdict: Wave::new(),
        })
    }

    /// Somebody joins who has no other value. Said under the lock of the table.
    pub(super) fn need(&self) {
        self.needed.store(true, Ordering::SeqCst);
    }

    /// Whether somebody joined who has no other value. Asked under the lock of the table.
    pub(super) fn is_needed(&self) -> bool {
        self.needed.load(Ordering::SeqCst)
    }

    /// A load waits for this one, so that it must not queue behind it.
    pub(super) fn hurry(&self) {
        self.hurried.notify_one();
    }

    /// Tells the leader, also afterwards, that somebody [hurries](Self::hurry).
    pub(super) fn hurried(&self) -> &Notify {
        &self.hurried
    }

    /// The load reads from now on, the store first and then the source.
    pub(super) fn start_reading(&self) {
        self.phase.store(1, Ordering::SeqCst);
    }

    /// What was read is not used: another process is loading, and the store is read again. Who
    /// joins until then is in time.
    pub(super) fn wait(&self) {
        self.waited.store(true, Ordering::SeqCst);
        self.phase.store(0, Ordering::SeqCst);
    }

    /// Whether another process's load was waited for, so that this one takes longer.
    pub(super) fn has_waited(&self) -> bool {
        self.waited.load(Ordering::SeqCst)
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
