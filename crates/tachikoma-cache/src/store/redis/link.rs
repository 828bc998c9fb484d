//! The connection that operations share, and when it is not used.
//!
//! Decides from the outcome of each call whether the connection is still trusted: after
//! [`TRIPS_AFTER`] failures in a row, or when it is lost, it is withdrawn, and calls fail at once
//! until [`manager`](super::manager) publishes another. It never connects and never retries a call.
//!
//! # Cancel safety
//!
//! A call that is dropped leaves the connection as it was: the client keeps its place in the order
//! of answers and throws the answer away.

use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use ::redis::{Cmd, Pipeline, RedisResult, Script, Value};
use tokio::runtime::Handle;
use tokio::sync::Notify;

use super::config::RedisConfig;
use super::reply::{self, Fault, Then};
use crate::clock::{Clock, Deadline, Stopwatch, Time};
use crate::envelope::Offset;
use crate::error::ErrorKind;
use crate::stats::ErrorCounters;
use crate::store::Health;

/// So many calls in a row must fail before the connection is withdrawn.
const TRIPS_AFTER: u32 = 5;

/// One logged-in connection.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) client: MultiplexedConnection,
    /// Tells connections apart; never used twice.
    pub(super) number: u64,
    incarnation: AtomicU64,
    offset: AtomicI64,
}

impl Connection {
    pub(super) fn new(
        client: MultiplexedConnection,
        number: u64,
        incarnation: u64,
        offset: Offset,
    ) -> Self {
        Self {
            client,
            number,
            incarnation: AtomicU64::new(incarnation),
            offset: AtomicI64::new(offset.0),
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
    /// Wakes the manager: the connection was withdrawn.
    pub(super) withdrawn: Notify,
    state: RwLock<State>,
    failures: AtomicU32,
    /// What the heartbeat saw while the connection itself is good.
    limited: RwLock<Option<(Time, &'static str)>>,
}

impl Link {
    pub(super) fn new(config: RedisConfig, clock: Arc<dyn Clock>) -> Self {
        let fault = Fault::new(ErrorKind::Unavailable, Then::Drop, "not connected yet");
        let since = clock.now();
        Self {
            config,
            clock,
            errors: ErrorCounters::default(),
            withdrawn: Notify::new(),
            state: RwLock::new(State::Down { since, fault }),
            failures: AtomicU32::new(0),
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
            (Some(before), Some(_)) => Some(before),
            (None, Some(reason)) => Some((self.clock.now(), reason)),
        };
    }

    pub(super) fn publish(&self, connection: Arc<Connection>) {
        self.failures.store(0, Ordering::Relaxed);
        *self.state.write().unwrap_or_else(PoisonError::into_inner) = State::Up(connection);
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
    }

    pub(super) fn end(&self) {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        *state = State::Ended { since: self.clock.now() };
    }

    /// Takes this connection away from callers, unless another has replaced it already.
    pub(super) fn withdraw(&self, number: u64, fault: Fault) {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        if matches!(&*state, State::Up(connection) if connection.number == number) {
            *state = State::Down { since: self.clock.now(), fault };
            drop(state);
            self.withdrawn.notify_one();
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
        if fault.then != Then::Keep {
            self.withdraw(connection.number, fault.clone());
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
        if Handle::try_current().is_err() {
            return Err(Fault::new(ErrorKind::Unavailable, Then::Keep, "there is no runtime"));
        }
        match tokio::time::timeout(budget, call).await {
            Ok(Ok(answer)) => {
                self.failures.store(0, Ordering::Relaxed);
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
        if self.failures.fetch_add(1, Ordering::Relaxed) + 1 >= TRIPS_AFTER {
            let fault = Fault::new(ErrorKind::Unavailable, Then::Drop, "it does not answer");
            self.withdraw(connection.number, fault);
        }
    }
}

fn timed_out() -> Fault {
    Fault::new(ErrorKind::TimedOut, Then::Keep, "no answer in time")
}

/// A script: its text never changes, what differs are keys and arguments.
#[derive(Debug)]
pub(super) struct Lua {
    text: &'static str,
    hash: String,
}

impl Lua {
    pub(super) fn new(text: &'static str) -> Self {
        Self { text, hash: Script::new(text).get_hash().to_owned() }
    }

    pub(super) fn by_hash(&self, keys: &[&str], arguments: &[&[u8]]) -> Cmd {
        Self::command("EVALSHA", &self.hash, keys, arguments)
    }

    pub(super) fn by_text(&self, keys: &[&str], arguments: &[&[u8]]) -> Cmd {
        Self::command("EVAL", self.text, keys, arguments)
    }

    fn command(name: &str, script: &str, keys: &[&str], arguments: &[&[u8]]) -> Cmd {
        let mut command = ::redis::cmd(name);
        command.arg(script).arg(keys.len());
        for key in keys {
            command.arg(*key);
        }
        for argument in arguments {
            command.arg(*argument);
        }
        command
    }
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
