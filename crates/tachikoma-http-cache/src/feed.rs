//! One body that arrives once and is read by many, each at its own pace.
//!
//! There is no task behind it: whichever reader has read all that came asks the source for more,
//! and wakes the others. So the origin is asked as fast as the fastest reader reads, and a reader
//! that stops holds up nobody. What is to be stored is held whole, within a cap and a bound on all
//! of them together. Past either it is not stored any more, and only what somebody has yet to
//! read is held, a small window; then a reader that is far too slow is cut off, so that it does not
//! hold up the others for ever. The same if all its readers are far too slow and another body finds
//! no room: clients that hardly read must not keep others from being stored.
//!
//! Never ends cleanly for any reader unless the end was proved: the number of bytes that
//! `Content-Length` promised, or the stream's own end.

mod pieces;
mod readers;

use std::{
    error::Error as StdError,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError, Weak},
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as _, Frame};
use http_body_util::combinators::UnsyncBoxBody;
use tachikoma_cache::{Clock, Time};

use crate::budget::{Holder, Room};
use pieces::Pieces;
use readers::{Readers, Stall, Wakers, is_too_slow};

pub(crate) type BoxError = Box<dyn StdError + Send + Sync>;

/// The source of a body, whatever its type.
pub(crate) type Source = UnsyncBoxBody<Bytes, BoxError>;

/// How far the fastest reader of a body that is not stored may be ahead of the slowest one.
const WINDOW: u64 = 256 << 10;

/// How often in a row a reader asks a source that brings nothing.
const MAX_TURNS: u32 = 32;

/// So much is asked for at once, before anybody reads.
const AT_ONCE: u64 = 64 << 10;

/// The body of a response broke off: the source failed, or ended before its announced end.
#[derive(Debug, Clone)]
pub struct BrokenOff {
    why: Why,
}

#[derive(Debug, Clone)]
enum Why {
    Source(Arc<BoxError>),
    Length,
    TooSlow,
    Gone,
}

impl BrokenOff {
    /// Less or more came than was promised.
    pub(crate) fn length() -> Self {
        Self { why: Why::Length }
    }
}

impl fmt::Display for BrokenOff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.why {
            Why::Source(_) => "the response broke off at its source",
            Why::Length => "the response is not as long as it said",
            Why::TooSlow => "the response was read too slowly, while others waited for it",
            Why::Gone => "the response was given up",
        })
    }
}

impl StdError for BrokenOff {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match &self.why {
            Why::Source(error) => Some(&***error),
            _ => None,
        }
    }
}

/// What takes a body once it is known how it ended; told once. Dropped untold, it takes nothing.
pub(crate) trait Taker: fmt::Debug + Send {
    /// Its end was proved: this is all of it.
    fn complete(self: Box<Self>, body: Bytes);

    /// More came than is stored of one body.
    fn too_large(self: Box<Self>);

    /// There is no room for it, or others need that more.
    fn no_room(self: Box<Self>);

    /// Its end was not proved: less or more came than was promised, or it broke off.
    fn incomplete(self: Box<Self>);
}

/// What is needed to store a body when it is whole.
#[derive(Debug)]
pub(crate) struct Keep {
    pub(crate) taker: Box<dyn Taker>,
    pub(crate) room: Room,
    /// The largest body that is stored, in bytes.
    pub(crate) cap: usize,
}

/// What is known of a body before it comes.
pub(crate) struct Opening {
    pub(crate) source: Source,
    /// What `Content-Length` or the source itself promised.
    pub(crate) promised: Option<u64>,
    pub(crate) keep: Keep,
    pub(crate) clock: Arc<dyn Clock>,
    /// How long it goes on when nobody reads it any more.
    pub(crate) finish_limit: Duration,
}

/// A body under way.
pub(crate) struct Feed {
    state: Mutex<State>,
    wakers: Arc<Wakers>,
    /// What the source wakes: every reader that waits.
    waker: Waker,
    promised: Option<u64>,
    finish_limit: Duration,
}

impl fmt::Debug for Feed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Feed").field("promised", &self.promised).finish_non_exhaustive()
    }
}

struct State {
    /// `None` once it is over.
    source: Option<Source>,
    pieces: Pieces,
    promised: Option<u64>,
    /// `None` once it is stored, or known that it will not be.
    keep: Option<Keep>,
    /// Its end was proved: all of it is held.
    is_whole: bool,
    end: Option<End>,
    readers: Readers,
    stall: Option<Stall>,
    clock: Arc<dyn Clock>,
    opened_at: Time,
}

#[derive(Clone)]
enum End {
    Whole(Option<HeaderMap>),
    Broken(BrokenOff),
}

impl Feed {
    /// A body under way, with its first reader, who gets its trailers too.
    pub(crate) fn open(opening: Opening) -> Reader {
        let Opening { source, promised, keep, clock, finish_limit } = opening;
        let wakers = Arc::new(Wakers::default());
        let state = State {
            source: Some(source),
            pieces: Pieces::default(),
            promised,
            keep: Some(keep),
            is_whole: false,
            end: None,
            readers: Readers::default(),
            stall: None,
            opened_at: clock.now(),
            clock,
        };
        let waker = Waker::from(Arc::clone(&wakers));
        let feed =
            Arc::new(Self { state: Mutex::new(state), wakers, waker, promised, finish_limit });
        let holder: Weak<dyn Holder> = Arc::downgrade(&feed) as Weak<dyn Holder>;
        let mut state = feed.lock();
        let slot = state.readers.add(0);
        if let Some(keep) = &mut state.keep {
            keep.room.held_by(holder);
        }
        drop(state);
        Reader { feed, slot, at: 0, is_done: false, trailers: true, finishes: false }
    }

    /// Another reader, from the beginning; `None` if that is not held any more.
    pub(crate) fn join(self: &Arc<Self>) -> Option<Reader> {
        let mut state = self.lock();
        let is_broken = matches!(state.end, Some(End::Broken(_)));
        if is_broken || (state.keep.is_none() && !state.is_whole) {
            return None;
        }
        let slot = state.readers.add(0);
        drop(state);
        let feed = Arc::clone(self);
        Some(Reader { feed, slot, at: 0, is_done: false, trailers: false, finishes: false })
    }

    /// Takes what the source has already, up to a few pieces; whether that was all.
    pub(crate) fn take_what_is_there(&self) -> bool {
        let mut state = self.lock();
        while !state.is_whole && state.end.is_none() && state.pieces.end() < AT_ONCE {
            if state.drive(&mut Context::from_waker(&self.waker)).is_pending() {
                break;
            }
        }
        state.is_whole
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A source that panics is taken out while it is asked: what is left is a broken body.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Holder for Feed {
    fn give_way(&self) {
        let mut state = match self.state.try_lock() {
            Ok(state) => state,
            Err(TryLockError::Poisoned(state)) => state.into_inner(),
            // Something is coming just now; or it is the one that needs the room.
            Err(TryLockError::WouldBlock) => return,
        };
        let time = state.clock.now().since(state.opened_at);
        if !is_too_slow(state.pieces.end(), time) {
            return;
        }
        let keep = state.keep.take();
        state.forget_what_is_read();
        drop(state);
        if let Some(keep) = keep {
            keep.taker.no_room();
        }
    }
}

impl State {
    /// Asks the source for more; ready if anything changed.
    fn drive(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.is_held_whole() {
            if self.pieces.held() >= WINDOW && self.is_held_up(cx) {
                return Poll::Pending;
            }
            if self.pieces.held() <= WINDOW / 2 {
                self.stall = None;
            }
        }
        let Some(mut source) = self.source.take() else {
            self.break_off(Why::Gone);
            return Poll::Ready(());
        };
        let Poll::Ready(frame) = std::pin::Pin::new(&mut source).poll_frame(cx) else {
            self.source = Some(source);
            return Poll::Pending;
        };
        match frame {
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => self.arrived(data, source.is_end_stream()),
                Err(frame) => {
                    if let Ok(trailers) = frame.into_trailers() {
                        self.ended(Some(trailers));
                    }
                }
            },
            Some(Err(error)) => self.break_off(Why::Source(Arc::new(error))),
            None => self.ended(None),
        }
        if self.end.is_none() {
            self.source = Some(source);
        }
        Poll::Ready(())
    }

    /// All that came is held, to be stored or because it is stored.
    fn is_held_whole(&self) -> bool {
        self.keep.is_some() || self.is_whole
    }

    fn arrived(&mut self, data: Bytes, is_end: bool) {
        if self.is_whole {
            // More than was promised, and more than any reader takes.
            self.end = Some(End::Whole(None));
            return;
        }
        self.pieces.push(data);
        let length = self.pieces.end();
        if self.promised.is_some_and(|promised| length > promised) {
            self.break_off(Why::Length);
        } else if is_end {
            self.ended(None);
        } else if self.promised == Some(length) {
            // The server above stops reading here, so this is the last chance to store it. Trailers
            // may follow.
            self.complete();
        } else {
            self.stay_within_bounds(length);
        }
    }

    fn stay_within_bounds(&mut self, length: u64) {
        let Some(keep) = &mut self.keep else { return };
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let is_too_large = length > keep.cap;
        if is_too_large || !keep.room.reach(length) {
            if let Some(keep) = self.keep.take() {
                if is_too_large { keep.taker.too_large() } else { keep.taker.no_room() }
            }
            self.forget_what_is_read();
        }
    }

    fn ended(&mut self, trailers: Option<HeaderMap>) {
        if self.promised.is_some_and(|promised| promised != self.pieces.end()) {
            self.break_off(Why::Length);
            return;
        }
        self.complete();
        self.end = Some(End::Whole(trailers));
    }

    /// The end is proved: stores the body, if it is still to be stored.
    fn complete(&mut self) {
        let Some(keep) = self.keep.take() else { return };
        let cap = keep.cap as u64;
        if self.pieces.end() > cap {
            keep.taker.too_large();
            return;
        }
        let whole = self.pieces.join();
        self.pieces = Pieces::whole(whole.clone());
        self.is_whole = true;
        keep.taker.complete(whole);
    }

    fn break_off(&mut self, why: Why) {
        self.source = None;
        self.end = Some(End::Broken(BrokenOff { why }));
        if let Some(keep) = self.keep.take() {
            keep.taker.incomplete();
        }
    }

    /// What every reader has read is held no more, if it is not to be stored; whether that makes
    /// room for one who waits for it.
    fn forget_what_is_read(&mut self) -> bool {
        if self.is_held_whole() {
            return false;
        }
        let slowest = self.readers.slowest().unwrap_or_else(|| self.pieces.end());
        self.pieces.forget_before(slowest);
        self.stall.is_some() && self.pieces.held() < WINDOW
    }

    /// The slowest reader is too far behind. For how long that may last is a matter of its pace.
    fn is_held_up(&mut self, cx: &mut Context<'_>) -> bool {
        while self.pieces.held() >= WINDOW {
            let end = self.pieces.end();
            let slowest = self.readers.slowest().unwrap_or(end);
            let clock = &self.clock;
            let stall = self.stall.get_or_insert_with(|| Stall::begin(clock, slowest));
            let Some(least) = stall.is_over(cx) else { return true };
            self.stall = None;
            if slowest < least {
                // Not those who are nearly as far as the fastest, whatever they have read since.
                let least = least.min(end - WINDOW / 2).max(slowest + 1);
                self.readers.cut_off(least);
                self.forget_what_is_read();
            }
        }
        false
    }
}

/// One who reads a body under way.
pub(crate) struct Reader {
    feed: Arc<Feed>,
    slot: usize,
    at: u64,
    /// There is nothing more to read, trailers and all.
    is_done: bool,
    trailers: bool,
    /// Reads for nobody, so that the body is stored.
    finishes: bool,
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader").field("at", &self.at).finish_non_exhaustive()
    }
}

impl Reader {
    pub(crate) fn feed(&self) -> &Arc<Feed> {
        &self.feed
    }

    pub(crate) fn is_done(&self) -> bool {
        self.is_done
    }

    /// How many bytes are still to come, if that is known.
    pub(crate) fn left(&self) -> Option<u64> {
        self.feed.promised.map(|promised| promised.saturating_sub(self.at))
    }

    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.is_done {
            return Poll::Ready(None);
        }
        let (mut woken, mut turns) = (false, 0);
        let mut state = self.feed.lock();
        let read = loop {
            if state.readers.is_cut_off(self.slot) {
                self.is_done = true;
                break Poll::Ready(Some(Err(BrokenOff { why: Why::TooSlow }.into())));
            }
            if let Some(data) = state.pieces.read(self.at) {
                self.at += data.len() as u64;
                state.readers.moved(self.slot, self.at);
                woken |= state.forget_what_is_read();
                let is_last = self.at == state.pieces.end();
                if is_last && matches!(state.end, Some(End::Whole(None))) {
                    self.is_done = true;
                }
                break Poll::Ready(Some(Ok(Frame::data(data))));
            }
            match &state.end {
                Some(End::Whole(trailers)) => {
                    self.is_done = true;
                    let trailers = trailers.clone().filter(|_| self.trailers);
                    break Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))));
                }
                Some(End::Broken(broken)) => {
                    self.is_done = true;
                    break Poll::Ready(Some(Err(broken.clone().into())));
                }
                None => {}
            }
            turns += 1;
            if turns > MAX_TURNS {
                // A source that goes on and brings nothing must not keep this task to itself.
                cx.waker().wake_by_ref();
                break Poll::Pending;
            }
            self.feed.wakers.wait(self.slot, cx.waker());
            if state.drive(&mut Context::from_waker(&self.feed.waker)).is_pending() {
                break Poll::Pending;
            }
            woken = true;
        };
        drop(state);
        if woken {
            self.feed.wakers.wake_but(self.slot);
        }
        read
    }

    /// Reads to the end for nobody.
    async fn finish(mut self) {
        while let Some(Ok(_)) = std::future::poll_fn(|cx| self.poll_frame(cx)).await {}
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut state = self.feed.lock();
        state.readers.remove(self.slot);
        self.feed.wakers.forget(self.slot);
        if !state.readers.is_empty() {
            let makes_room = state.forget_what_is_read();
            drop(state);
            if makes_room {
                self.feed.wakers.wake_but(self.slot);
            }
            return;
        }
        if state.end.is_some() {
            return;
        }
        // The last one is gone. What may still be stored is read on for a while.
        let goes_on = state.keep.is_some() && !self.finishes && !self.feed.finish_limit.is_zero();
        if goes_on && let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let at = self.at;
            let slot = state.readers.add(at);
            drop(state);
            let feed = Arc::clone(&self.feed);
            let last = Reader { feed, slot, at, is_done: false, trailers: false, finishes: true };
            let limit = self.feed.finish_limit;
            runtime.spawn(async move {
                if tokio::time::timeout(limit, last.finish()).await.is_err() {
                    tracing::debug!("a response that nobody reads took too long and was given up");
                }
            });
            return;
        }
        let source = state.source.take();
        state.break_off(Why::Gone);
        drop(state);
        // It may do anything when dropped.
        drop(source);
    }
}
