//! Invalidations that Redis has not confirmed yet.
//!
//! Decides what has to be sent again, in which order with later writes, and what this process must
//! not show meanwhile. The [`list`] is pure; [`Book`] puts a lock around it. Each invalidation is
//! entered before it is sent and taken out when Redis has confirmed it, so a caller that goes away
//! loses nothing.
//!
//! A write of a key does what its pending removal would do, so it ends it, and a pattern that was
//! entered before the write spares the key from then on. A write that begins while the removal is
//! just being sent again waits for the answer: sent side by side, the removal could come last and
//! take the new value.
//!
//! The list is bounded. When a namespace has too much in it, everything of that namespace becomes
//! pending instead: more than was asked for, never less.

mod list;

use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Poll;

use tokio::sync::Notify;
use tokio::time::timeout;

use crate::clock::{Deadline, has_timers};
use crate::invalidation::{Group, How};
use crate::key::Namespace;
pub(super) use list::{Claim, Work};
use list::{MAX_PENDING, Pending};

/// The list, shared.
#[derive(Debug)]
pub(super) struct Book {
    list: Mutex<Pending>,
    len: AtomicU64,
    /// Nothing is pending, and nothing that was is on its way: all that most calls ask for.
    idle: AtomicBool,
    /// Wakes the courier.
    pub(super) left_over: Notify,
    /// Wakes whoever waits for something that is being sent.
    settled: Notify,
}

impl Default for Book {
    fn default() -> Self {
        Self {
            list: Mutex::new(Pending::new(MAX_PENDING)),
            len: AtomicU64::new(0),
            idle: AtomicBool::new(true),
            left_over: Notify::new(),
            settled: Notify::new(),
        }
    }
}

impl Book {
    /// How much is pending.
    pub(super) fn len(&self) -> u64 {
        self.len.load(Ordering::Acquire)
    }

    /// Enters what the caller is about to send. Until [`Sending::confirm`], also if the caller goes
    /// away, it is pending.
    pub(super) fn enter(&self, namespace: &Namespace, work: Work) -> Sending<'_> {
        let claim = self.change(|list| list.enter(namespace, work));
        Sending { book: self, claim: Some(claim) }
    }

    /// Enters a change of keys that are pending, once nobody is sending their removal: what the
    /// caller sends then comes after it. `None` if that lasts beyond the deadline.
    pub(super) async fn enter_in_order(
        &self,
        namespace: &Namespace,
        names: Vec<String>,
        deadline: Deadline,
    ) -> Option<Sending<'_>> {
        self.in_order(deadline, |list| {
            if names.iter().any(|name| list.is_busy(namespace, name)) {
                return None;
            }
            Some(list.enter(namespace, Work::Keys(names.clone())))
        })
        .await
        .map(|claim| Sending { book: self, claim: Some(claim) })
    }

    /// The pending removal of a key, which the caller's write does too; without a claim once none
    /// is pending. Of several who ask one gets it, and the others wait for what comes of it. `None`
    /// if that lasts beyond the deadline.
    pub(super) async fn take_key(
        &self,
        namespace: &Namespace,
        name: &str,
        deadline: Deadline,
    ) -> Option<Sending<'_>> {
        let taken = self.in_order(deadline, |list| match list.take_key(namespace, name) {
            Poll::Ready(claim) => Some(claim),
            Poll::Pending => None,
        });
        taken.await.map(|claim| Sending { book: self, claim })
    }

    /// What is left over of the invalidations of groups of this namespace, to be sent now; nothing
    /// once all are in, or are not in by the deadline.
    pub(super) async fn take_groups(
        &self,
        namespace: &Namespace,
        deadline: Deadline,
    ) -> Option<Sending<'_>> {
        let taken = self.in_order(deadline, |list| match list.take_groups(namespace, u64::MAX) {
            Some(claim) => Some(Some(claim)),
            None if list.is_busy_with_groups(namespace) => None,
            None => Some(None),
        });
        let claim = taken.await.flatten()?;
        Some(Sending { book: self, claim: Some(claim) })
    }

    /// Tries again whenever something has been sent.
    async fn in_order<R>(
        &self,
        deadline: Deadline,
        mut attempt: impl FnMut(&mut Pending) -> Option<R>,
    ) -> Option<R> {
        loop {
            let mut settled = pin!(self.settled.notified());
            // From here on nothing is missed.
            settled.as_mut().enable();
            if let Some(result) = self.change(&mut attempt) {
                return Some(result);
            }
            if !has_timers() {
                return None;
            }
            timeout(deadline.remaining(), settled).await.ok()?;
        }
    }

    /// Enters what cannot be sent now.
    pub(super) fn defer(&self, namespace: &Namespace, work: Work) {
        drop(self.enter(namespace, work));
    }

    /// Begins to send everything again, each once.
    pub(super) fn round(&self) -> u64 {
        self.change(Pending::ticket)
    }

    /// Something to send again that has not been sent since `round` began.
    pub(super) fn take(&self, round: u64) -> Option<Sending<'_>> {
        if self.len() == 0 {
            return None;
        }
        let claim = self.change(|list| list.take(round))?;
        Some(Sending { book: self, claim: Some(claim) })
    }

    /// Of the keys that a sweep has found, those that it must remove.
    pub(super) fn take_found(&self, namespace: &Namespace, found: Vec<String>) -> Sending<'_> {
        let claim = self.change(|list| list.take_found(namespace, found));
        Sending { book: self, claim: Some(claim) }
    }

    /// Whether nothing is pending, and nothing that was is on its way.
    pub(super) fn is_idle(&self) -> bool {
        self.idle.load(Ordering::Acquire)
    }

    /// Whether a write of this key has to be entered, so that it comes in its order.
    pub(super) fn concerns(&self, namespace: &Namespace, name: &str) -> bool {
        if self.is_idle() {
            return false;
        }
        let list = self.lock();
        list.covers(namespace, name) || list.is_busy(namespace, name)
    }

    /// Whether this key must be shown as absent.
    pub(super) fn covers(&self, namespace: &Namespace, name: &str) -> bool {
        self.len() > 0 && self.lock().covers(namespace, name)
    }

    /// How the entries of this group must be treated, if not as usual.
    pub(super) fn of_group(&self, namespace: &Namespace, group: &Group) -> Option<How> {
        if self.len() == 0 {
            return None;
        }
        self.lock().of_group(namespace, group)
    }

    /// Whether an invalidation of groups of this namespace is pending or on its way.
    pub(super) fn owes_groups(&self, namespace: &Namespace) -> bool {
        !self.is_idle() && self.lock().owes_groups(namespace)
    }

    fn change<R>(&self, act: impl FnOnce(&mut Pending) -> R) -> R {
        let mut list = self.lock();
        let result = act(&mut list);
        self.len.store(list.len() as u64, Ordering::Release);
        self.idle.store(list.is_idle(), Ordering::Release);
        result
    }

    fn lock(&self) -> MutexGuard<'_, Pending> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An invalidation on its way. Dropped without [`confirm`](Self::confirm) it is sent again.
#[derive(Debug)]
pub(super) struct Sending<'a> {
    book: &'a Book,
    claim: Option<Claim>,
}

impl Sending<'_> {
    /// What is to be sent; `None` once it is confirmed.
    pub(super) fn claim(&self) -> Option<&Claim> {
        self.claim.as_ref()
    }

    /// Redis has taken it.
    pub(super) fn confirm(mut self) {
        if let Some(claim) = self.claim.take() {
            self.book.change(|list| list.confirm(&claim));
            self.book.settled.notify_waiters();
        }
    }
}

impl Drop for Sending<'_> {
    fn drop(&mut self) {
        if let Some(claim) = self.claim.take() {
            self.book.change(|list| list.release(&claim));
            self.book.left_over.notify_one();
            self.book.settled.notify_waiters();
        }
    }
}

#[cfg(test)]
mod order;
#[cfg(test)]
mod tests;
