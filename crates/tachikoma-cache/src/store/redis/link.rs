//! The connection that operations share, and when it is not used.
//!
//! Decides from the outcome of each call whether the connection is still trusted: when the
//! [`breaker`](super::breaker) opens, or when it is lost, it is withdrawn, and calls fail at once
//! until [`manager`](super::manager) publishes another. It never connects and never retries a call.
//!
//! # Cancel safety
//!
//! A call that is dropped leaves the connection as it was: the client keeps its place in the order
//! of answers and throws the answer away.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use ::redis::{Cmd, Pipeline, RedisResult, Value};
use tokio::sync::Notify;

use super::breaker::Breaker;
use super::config::RedisConfig;
use super::groups::Tables;
use super::reply::{self, Fault, Then};
use super::scripts::Lua;
use super::tracking::Tracking;
use crate::clock::{Clock, Deadline, Stopwatch, Time, has_timers};
use crate::envelope::Offset;
use crate::error::ErrorKind;
use crate::stats::ErrorCounters;
use crate::store::Health;

/// Why a server that answers cannot do everything.
pub(super) const LOADING: &str = "it is loading its data";
pub(super) const REPLICA: &str = "it is a read-only replica; name the primary";
pub(super) const CLUSTER: &str =
    "it is part of a cluster, which is not supported; name a server of its own";

/// One logged-in connection.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) client: MultiplexedConnection,
    /// Tells connections apart; never used twice.
    pub(super) number: u64,
    incarnation: AtomicU64,
    offset: AtomicI64,
    breaker: Breaker,
    tripped: AtomicBool,
    /// Since when the server tells of changes on it, when it was published.
    pub(super) tracked: Option<Time>,
}

impl Connection {
    pub(super) fn new(
        client: MultiplexedConnection,
        number: u64,
        incarnation: u64,
        offset: Offset,
        tracked: Option<Time>,
    ) -> Self {
        Self {
            client,
            number,
            incarnation: AtomicU64::new(incarnation),
            offset: AtomicI64::new(offset.0),
            breaker: Breaker::default(),
            tripped: AtomicBool::new(false),
            tracked,
        }
    }

    /// Which run of which data set the server serves. Entries of another one may have survived a
    /// rollback that lost their invalidation.
    pub(super) fn incarnation(&self) -> u64 {
        self.incarnation.load(Ordering::Acquire)
    }

    pub(super) fn offset(&self) -> Offset {
        Offset(self.offset.load(Ordering::Relaxed))
    }

    /// Whether it was open and did not answer.
    pub(super) fn has_tripped(&self) -> bool {
        self.tripped.load(Ordering::Relaxed)
    }

    pub(super) fn update(&self, incarnation: u64, offset: Offset) {
        self.incarnation.store(incarnation, Ordering::Release);
        self.offset.store(offset.0, Ordering::Relaxed);
    }
}

#[derive(Debug)]
enum State {
    Up(Arc<Connection>),
    Down {
        since: Time,
        fault: Fault,
    },
    /// The runtime that drove the connection has ended, so there will be no other.
    Ended {
        since: Time,
    },
}

/// What operations, the manager and the courier share.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) config: RedisConfig,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) errors: ErrorCounters,
    /// Wakes the manager: the connection was withdrawn, or the server is not what it was.
    pub(super) attention: Notify,
    /// Who hears of changes.
    pub(super) tracking: Tracking,
    /// What is known of groups.
    pub(super) groups: Arc<Tables>,
    state: RwLock<State>,
    /// What the heartbeat saw while the connection itself is good.
    limited: RwLock<Option<(Time, &'static str)>>,
}

impl Link {
    pub(super) fn new(
        config: RedisConfig,
        clock: Arc<dyn Clock>,
        tracking: Tracking,
        groups: Arc<Tables>,
    ) -> Self {
        let fault = Fault::new(ErrorKind::Unavailable, Then::Drop, "not connected yet");
        let since = clock.now();
        Self {
            config,
            clock,
            errors: ErrorCounters::default(),
            attention: Notify::new(),
            tracking,
            groups,
            state: RwLock::new(State::Down { since, fault }),
            limited: RwLock::new(None),
        }
    }

    /// The connection, if there is a good one.
    pub(super) fn connection(&self) -> Result<Arc<Connection>, Fault> {
        match &*self.state.read().unwrap_or_else(PoisonError::into_inner) {
            State::Up(connection) => Ok(Arc::clone(connection)),
            State::Down { fault, .. } => Err(fault.clone()),
            State::Ended { .. } => {
                let text = "the runtime in which the store was made has ended";
                Err(Fault::new(ErrorKind::Unavailable, Then::Keep, text))
            }
        }
    }

    /// Whether there is none.
    #[cfg(feature = "memory")]
    pub(super) fn is_away(&self) -> bool {
        !matches!(&*self.state.read().unwrap_or_else(PoisonError::into_inner), State::Up(_))
    }

    /// Whether the server tells of changes on it, if there is one.
    #[cfg(feature = "memory")]
    pub(super) fn tells(&self) -> Option<bool> {
        match &*self.state.read().unwrap_or_else(PoisonError::into_inner) {
            State::Up(connection) => Some(connection.tracked.is_some()),
            State::Down { .. } | State::Ended { .. } => None,
        }
    }

    pub(super) fn is_current(&self, number: u64) -> bool {
        matches!(
            &*self.state.read().unwrap_or_else(PoisonError::into_inner),
            State::Up(connection) if connection.number == number
        )
    }

    pub(super) fn health(&self) -> Health {
        let (since, reason) = match &*self.state.read().unwrap_or_else(PoisonError::into_inner) {
            State::Up(_) => match *self.limited.read().unwrap_or_else(PoisonError::into_inner) {
                None => return Health::Up,
                Some((since, reason)) => (since, reason.to_owned()),
            },
            State::Down { since, fault } => (*since, fault.text().to_owned()),
            State::Ended { since } => (*since, "the runtime has ended".to_owned()),
        };
        Health::Degraded { since, reason: format!("Redis: {reason}") }
    }

    pub(super) fn set_limited(&self, reason: Option<&'static str>) {
        let mut limited = self.limited.write().unwrap_or_else(PoisonError::into_inner);
        *limited = match (*limited, reason) {
            (_, None) => None,
            (Some((since, _)), Some(reason)) => Some((since, reason)),
            (None, Some(reason)) => Some((self.clock.now(), reason)),
        };
    }

    /// Whether what this server has is all there is: a removal by pattern could otherwise find
    /// nothing here and leave keys elsewhere.
    pub(super) fn whole(&self) -> Result<(), Fault> {
        match *self.limited.read().unwrap_or_else(PoisonError::into_inner) {
            Some((_, reason)) if reason != LOADING => {
                Err(Fault::new(ErrorKind::Rejected, Then::Keep, reason))
            }
            _ => Ok(()),
        }
    }

    fn is_limited(&self) -> bool {
        self.limited.read().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    pub(super) fn publish(&self, connection: Arc<Connection>) {
        let (number, tracked) = (connection.number, connection.tracked);
        self.tracking.lost();
        *self.state.write().unwrap_or_else(PoisonError::into_inner) = State::Up(connection);
        // What was read before was read on another connection, and so was what still waits for its
        // answer. From here on everybody reads on this one, which is armed already.
        self.tracking.forget();
        if let Some(at) = tracked {
            self.confirmed(number, at);
        }
    }

    /// A heartbeat that was sent at this time on this connection was answered.
    pub(super) fn confirmed(&self, number: u64, at: Time) {
        // Under the lock, so that the connection is not lost in between.
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        if matches!(&*state, State::Up(connection) if connection.number == number) {
            self.tracking.confirmed(at);
        }
    }

    /// Says why there is no connection; the time since when stays that of the first reason.
    pub(super) fn set_down(&self, fault: Fault) {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        let since = match &*state {
            State::Down { since, .. } => *since,
            State::Up(_) => self.clock.now(),
            State::Ended { .. } => return,
        };
        *state = State::Down { since, fault };
        self.tracking.lost();
    }

    pub(super) fn end(&self) {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        *state = State::Ended { since: self.clock.now() };
        self.tracking.lost();
    }

    /// Takes this connection away from callers, unless another has replaced it already.
    pub(super) fn withdraw(&self, number: u64, fault: Fault) {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        if matches!(&*state, State::Up(connection) if connection.number == number) {
            *state = State::Down { since: self.clock.now(), fault };
            self.tracking.lost();
            drop(state);
            self.attention.notify_one();
        }
    }

    /// When an operation that begins now must have ended.
    pub(super) fn deadline(&self, deadline: Deadline) -> Deadline {
        Deadline::after(deadline.remaining().min(self.config.get_timeout()))
    }

    /// Sends one command.
    pub(super) async fn call(
        &self,
        connection: &Connection,
        command: &Cmd,
        deadline: Deadline,
    ) -> Result<Value, Fault> {
        let mut client = connection.client.clone();
        let answer =
            self.bounded(connection, deadline, client.send_packed_command(command)).await?;
        if let Value::ServerError(error) = &answer {
            return Err(self.refused(connection, Fault::of_server(error)));
        }
        Ok(answer)
    }

    /// Sends some commands at once; each has its own answer, which may be an error.
    pub(super) async fn pipeline(
        &self,
        connection: &Connection,
        commands: &Pipeline,
        deadline: Deadline,
    ) -> Result<Vec<Value>, Fault> {
        let count = commands.len();
        let mut client = connection.client.clone();
        let sent = client.send_packed_commands(commands, 0, count);
        let answers = self.bounded(connection, deadline, sent).await?;
        if answers.len() == count { Ok(answers) } else { Err(reply::unexpected(Value::Nil)) }
    }

    /// Sends some commands as one `MULTI` … `EXEC`: all take place or none.
    pub(super) async fn transaction(
        &self,
        connection: &Connection,
        commands: &mut Pipeline,
        deadline: Deadline,
    ) -> Result<Vec<Value>, Fault> {
        commands.atomic();
        let mut client = connection.client.clone();
        let sent = client.send_packed_commands(commands, commands.len() + 1, 1);
        let mut answers = self.bounded(connection, deadline, sent).await?;
        let answers = reply::array(answers.pop().unwrap_or_default())?;
        for answer in &answers {
            if let Value::ServerError(error) = answer {
                return Err(self.refused(connection, Fault::of_server(error)));
            }
        }
        Ok(answers)
    }

    /// Runs a script by its hash, or with its text if the server does not know it yet.
    pub(super) async fn eval(
        &self,
        connection: &Connection,
        script: &Lua,
        keys: &[&str],
        arguments: &[&[u8]],
        deadline: Deadline,
    ) -> Result<Value, Fault> {
        match self.call(connection, &script.by_hash(keys, arguments), deadline).await {
            Err(fault) if fault.code == "NOSCRIPT" => {
                self.call(connection, &script.by_text(keys, arguments), deadline).await
            }
            other => other,
        }
    }

    /// Acts on what the server refused, and hands it on.
    pub(super) fn refused(&self, connection: &Connection, fault: Fault) -> Fault {
        match fault.then {
            Then::Keep => {}
            // Known already, it is looked after by itself.
            Then::Look if self.is_limited() => {}
            Then::Look => self.attention.notify_one(),
            Then::Reconnect | Then::Drop => self.withdraw(connection.number, fault.clone()),
        }
        fault
    }

    async fn bounded<T>(
        &self,
        connection: &Connection,
        deadline: Deadline,
        call: impl Future<Output = RedisResult<T>>,
    ) -> Result<T, Fault> {
        let budget = deadline.remaining();
        if budget.is_zero() {
            return Err(timed_out());
        }
        // Without one there is no timer, and a call without an end is worse than none.
        if !has_timers() {
            let reason = "the call was not made within a Tokio runtime whose time is enabled";
            return Err(Fault::new(ErrorKind::Unavailable, Then::Keep, reason));
        }
        match tokio::time::timeout(budget, call).await {
            Ok(Ok(answer)) => {
                connection.breaker.answered();
                Ok(answer)
            }
            Ok(Err(error)) => {
                let fault = Fault::of_client(&error);
                Err(self.refused(connection, fault))
            }
            Err(_) => {
                self.count_timeout(connection, budget);
                Err(timed_out())
            }
        }
    }

    fn count_timeout(&self, connection: &Connection, budget: Duration) {
        // A caller that had no patience proves nothing.
        if budget < self.config.get_timeout() / 4 {
            return;
        }
        if connection.breaker.timed_out() {
            connection.tripped.store(true, Ordering::Relaxed);
            let fault = Fault::new(
                ErrorKind::Unavailable,
                Then::Drop,
                "it accepts connections and does not answer",
            );
            self.withdraw(connection.number, fault);
        }
    }
}

pub(super) fn timed_out() -> Fault {
    Fault::new(ErrorKind::TimedOut, Then::Keep, "no answer in time")
}

/// Lets through one log line a second.
#[derive(Debug, Default)]
pub(super) struct LogLimit(Option<Stopwatch>);

impl LogLimit {
    pub(super) fn allows(&mut self) -> bool {
        let allowed = self.0.is_none_or(|last| last.elapsed() >= Duration::from_secs(1));
        if allowed {
            self.0 = Some(Stopwatch::start());
        }
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::TestClock;

    #[test]
    fn a_limit_keeps_its_beginning_and_says_what_it_is_now() {
        let clock = TestClock::new();
        let config = RedisConfig::from_url("redis://h/0").unwrap().0;
        let link = Link::new(config, Arc::new(clock.clone()), Tracking::default(), Arc::default());
        assert!(link.whole().is_ok());
        let since = clock.now();
        link.set_limited(Some(LOADING));
        assert!(link.whole().is_ok(), "it says itself that it is loading");
        clock.advance(Duration::from_secs(5));
        link.set_limited(Some(REPLICA));
        assert_eq!(*link.limited.read().unwrap(), Some((since, REPLICA)));
        assert!(link.whole().is_err());
        link.set_limited(None);
        assert!(link.whole().is_ok());
    }
}
