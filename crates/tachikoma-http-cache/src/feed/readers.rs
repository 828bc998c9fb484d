//! Who reads a body under way, how far each is, and whom to wake.
//!
//! Never touches the body itself.

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Wake, Waker},
    time::Duration,
};

use tachikoma_cache::Clock;

/// How long a reader may hold up others before its pace is looked at …
const GRACE: Duration = Duration::from_secs(10);

/// … and what it must have read by then: 64 KiB a second.
const LEAST: u64 = 640 << 10;

/// Whether a body of which so much came in this time came too slowly to hold room that others need.
/// It comes as fast as its fastest reader reads.
pub(super) fn is_too_slow(came: u64, time: Duration) -> bool {
    let least = u128::from(LEAST) * time.as_millis();
    time >= GRACE && u128::from(came) * GRACE.as_millis() < least
}

/// The places of all readers.
#[derive(Debug, Default)]
pub(super) struct Readers {
    slots: Vec<Option<Place>>,
    free: Vec<usize>,
    /// How far the slowest one is, if that was asked since it changed.
    slowest: Option<u64>,
}

#[derive(Debug, Clone, Copy)]
struct Place {
    at: u64,
    is_cut_off: bool,
}

impl Readers {
    /// A new reader; its slot.
    pub(super) fn add(&mut self, at: u64) -> usize {
        self.slowest = None;
        let place = Some(Place { at, is_cut_off: false });
        if let Some(slot) = self.free.pop() {
            self.slots[slot] = place;
            return slot;
        }
        self.slots.push(place);
        self.slots.len() - 1
    }

    pub(super) fn remove(&mut self, slot: usize) {
        self.slowest = None;
        if self.slots.get_mut(slot).is_some_and(|place| place.take().is_some()) {
            self.free.push(slot);
        }
    }

    pub(super) fn moved(&mut self, slot: usize, to: u64) {
        if let Some(Some(place)) = self.slots.get_mut(slot) {
            if self.slowest == Some(place.at) {
                self.slowest = None;
            }
            place.at = to;
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.free.len() == self.slots.len()
    }

    pub(super) fn is_cut_off(&self, slot: usize) -> bool {
        matches!(self.slots.get(slot), Some(Some(place)) if place.is_cut_off)
    }

    /// How far the slowest one is that is not cut off.
    pub(super) fn slowest(&mut self) -> Option<u64> {
        if self.slowest.is_none() {
            let places = self.slots.iter().flatten().filter(|place| !place.is_cut_off);
            self.slowest = places.map(|place| place.at).min();
        }
        self.slowest
    }

    /// Cuts off all who have not come as far as this.
    pub(super) fn cut_off(&mut self, least: u64) {
        self.slowest = None;
        for place in self.slots.iter_mut().flatten().filter(|place| place.at < least) {
            place.is_cut_off = true;
        }
    }
}

/// The time a slow reader has.
pub(super) struct Stall {
    timer: Pin<Box<dyn Future<Output = ()> + Send>>,
    least: u64,
}

impl Stall {
    pub(super) fn begin(clock: &Arc<dyn Clock>, slowest: u64) -> Self {
        Self { timer: clock.sleep(GRACE), least: slowest.saturating_add(LEAST) }
    }

    /// Where every reader must be by now, if the time is over.
    pub(super) fn is_over(&mut self, cx: &mut Context<'_>) -> Option<u64> {
        // Without a runtime there is no timer, and nobody can be waited for.
        let has_timer = tokio::runtime::Handle::try_current().is_ok();
        let is_over = !has_timer || self.timer.as_mut().poll(cx).is_ready();
        is_over.then_some(self.least)
    }
}

/// The tasks that wait for more, by the slot of their reader.
#[derive(Debug, Default)]
pub(super) struct Wakers(Mutex<Vec<Option<Waker>>>);

impl Wakers {
    fn lock(&self) -> MutexGuard<'_, Vec<Option<Waker>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn wait(&self, slot: usize, waker: &Waker) {
        let mut wakers = self.lock();
        if wakers.len() <= slot {
            wakers.resize(slot + 1, None);
        }
        match &mut wakers[slot] {
            Some(known) => known.clone_from(waker),
            empty => *empty = Some(waker.clone()),
        }
    }

    pub(super) fn forget(&self, slot: usize) {
        if let Some(waker) = self.lock().get_mut(slot) {
            *waker = None;
        }
    }

    /// Wakes everybody but the one who is awake already.
    pub(super) fn wake_but(&self, slot: usize) {
        let waiting: Vec<Waker> = {
            let mut wakers = self.lock();
            let others = wakers.iter_mut().enumerate().filter(|(other, _)| *other != slot);
            others.filter_map(|(_, waker)| waker.take()).collect()
        };
        waiting.into_iter().for_each(Waker::wake);
    }
}

impl Wake for Wakers {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.wake_but(usize::MAX);
    }
}
