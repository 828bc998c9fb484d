//! What an answer of the server means.
//!
//! Decides which kind of error each refusal is and whether the connection is still good after it.
//! It sends nothing. Texts of the server are shown only as far as they cannot hold what a caller or
//! a configuration wrote.

use ::redis::{RedisError, ServerError, ServerErrorKind, Value};

use crate::error::{Error, ErrorKind};

/// What to do with the connection on which an error came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Then {
    /// The server answered; go on with it.
    Keep,
    /// Go on with it, but look: another server may be meant by the address now.
    Look,
    /// Log in anew: the login ended.
    Reconnect,
    /// It is gone.
    Drop,
}

/// An answer that is not the one that was hoped for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) kind: ErrorKind,
    pub(super) then: Then,
    /// The server's word for it, such as `LOADING`; empty if it did not come from the server.
    pub(super) code: String,
    text: String,
}

impl Fault {
    pub(super) fn new(kind: ErrorKind, then: Then, text: impl Into<String>) -> Self {
        Self { kind, then, code: String::new(), text: text.into() }
    }

    /// The rule of each code that Redis 7 and Valkey 8 answer with.
    pub(super) fn of_server(error: &ServerError) -> Self {
        let code = error.code();
        let detail = error.details().unwrap_or_default();
        let (kind, then, text) = match code {
            "LOADING" => unavailable("it is loading its data"),
            "MASTERDOWN" => unavailable("it is a replica that has lost its primary"),
            "CLUSTERDOWN" => unavailable("the cluster is down"),
            "TRYAGAIN" => unavailable("the keys are moving to another node"),
            "BUSY" | "UNKILLABLE" => unavailable("it is busy with a script"),
            "ERR" if detail.contains("max number of clients") => {
                unavailable("it has too many clients")
            }
            "READONLY" => rejected(Then::Look, "it is a read-only replica; name the primary"),
            "NOAUTH" => rejected(Then::Reconnect, "it asks for a login; set user and password"),
            "WRONGPASS" => rejected(Then::Reconnect, "user or password are wrong"),
            "OOM" => rejected(
                Then::Keep,
                "it is over its memory limit; raise maxmemory or let it evict (allkeys-lru)",
            ),
            "MISCONF" => rejected(
                Then::Keep,
                "it cannot save its data and takes no writes; its log says why",
            ),
            "NOREPLICAS" => rejected(
                Then::Keep,
                "it takes no writes with so few replicas (min-replicas-to-write)",
            ),
            "MOVED" | "ASK" | "CROSSSLOT" => rejected(
                Then::Keep,
                "it is part of a cluster, which is not supported; name a server of its own",
            ),
            "NOPERM" => rejected(
                Then::Keep,
                "the user lacks a right; the guide lists those that a cache needs",
            ),
            "WRONGTYPE" => rejected(Then::Keep, "the key holds something else"),
            _ => rejected(Then::Keep, ""),
        };
        let text = if text.is_empty() { harmless(detail, 160) } else { text.to_owned() };
        let code = harmless(code, 32);
        Self { kind, then, text: format!("{code}, {text}"), code }
    }

    /// Of an error that the client found: a lost connection, an answer that makes no sense, or a
    /// refused login.
    pub(super) fn of_client(error: &RedisError) -> Self {
        // Of one command, or of the first that failed in a transaction.
        if let Some(errors) = error.clone().into_server_errors()
            && let Some((_, first)) = errors.first()
        {
            return Self::of_server(first);
        }
        let text = match error.kind() {
            ::redis::ErrorKind::RESP3NotSupported => {
                let text = "the server is older than Redis 6 (no RESP3)";
                return Self::new(ErrorKind::Rejected, Then::Drop, text);
            }
            // Of all that the client itself makes of an answer only this one is left here.
            ::redis::ErrorKind::Server(ServerErrorKind::ResponseError) => {
                let text = "the database cannot be selected";
                return Self::new(ErrorKind::Rejected, Then::Drop, text);
            }
            ::redis::ErrorKind::Parse => "the answer makes no sense",
            _ if error.is_connection_refusal() => "nobody listens there; check host and port",
            _ if error.to_string().contains("certificate") => {
                "its certificate is not accepted (SSL_CERT_FILE names authorities)"
            }
            _ if error.is_timeout() => "no answer in time",
            _ => "the connection is lost",
        };
        Self::new(ErrorKind::Unavailable, Then::Drop, text)
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        Self::new(fault.kind, format!("Redis: {}", fault.text))
    }
}

fn unavailable(text: &'static str) -> (ErrorKind, Then, &'static str) {
    (ErrorKind::Unavailable, Then::Keep, text)
}

fn rejected(then: Then, text: &'static str) -> (ErrorKind, Then, &'static str) {
    (ErrorKind::Rejected, then, text)
}

/// So much of a server's text as can be shown. It repeats the arguments of a command that it does
/// not know; they stay out.
fn harmless(text: &str, most: usize) -> String {
    let text = text.split(", with args").next().unwrap_or_default();
    text.chars().flat_map(char::escape_debug).take(most).collect()
}

/// The bytes of a value that may be missing; `Err` for anything else.
pub(super) fn bytes(value: Value) -> Result<Option<Vec<u8>>, Fault> {
    match value {
        Value::Nil => Ok(None),
        Value::BulkString(bytes) => Ok(Some(bytes)),
        other => Err(unexpected(other)),
    }
}

pub(super) fn integer(value: Value) -> Result<i64, Fault> {
    match value {
        Value::Int(number) => Ok(number),
        other => Err(unexpected(other)),
    }
}

pub(super) fn array(value: Value) -> Result<Vec<Value>, Fault> {
    match value {
        Value::Array(values) => Ok(values),
        other => Err(unexpected(other)),
    }
}

/// True for `OK`, false for nothing: how `SET … NX` answers.
pub(super) fn is_ok(value: Value) -> Result<bool, Fault> {
    match value {
        Value::Okay => Ok(true),
        Value::Nil => Ok(false),
        other => Err(unexpected(other)),
    }
}

/// A text such as that of `INFO`.
pub(super) fn text(value: Value) -> Result<String, Fault> {
    match value {
        Value::VerbatimString { text, .. } | Value::SimpleString(text) => Ok(text),
        Value::BulkString(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        other => Err(unexpected(other)),
    }
}

/// A number that Redis keeps as text.
pub(super) fn number(value: Value) -> Result<Option<u64>, Fault> {
    match value {
        Value::Int(number) => Ok(u64::try_from(number).ok()),
        other => Ok(bytes(other)?.and_then(|bytes| std::str::from_utf8(&bytes).ok()?.parse().ok())),
    }
}

/// The members of a sorted set with their numbers.
pub(super) fn scored(value: Value) -> Result<Vec<(Vec<u8>, u64)>, Fault> {
    let pair = |pair: Value| match <[Value; 2]>::try_from(array(pair)?) {
        Ok([member, number]) => Ok((bytes(member)?.unwrap_or_default(), score(number)?)),
        Err(_) => Err(unexpected(Value::Nil)),
    };
    array(value)?.into_iter().map(pair).collect()
}

/// The number of a member of a sorted set; zero if it is not there.
pub(super) fn score(value: Value) -> Result<u64, Fault> {
    match value {
        Value::Nil => Ok(0),
        // Whole and below 2^53: it was counted. Anything else is as near as can be.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates")]
        Value::Double(number) => Ok(number as u64),
        other => Err(unexpected(other)),
    }
}

/// The error that an answer is, or that it is none of those that the command can have.
pub(super) fn unexpected(value: Value) -> Fault {
    match value {
        Value::ServerError(error) => Fault::of_server(&error),
        // The answers are out of step with the questions, or this is no Redis: leave it.
        _ => Fault::new(ErrorKind::Unavailable, Then::Drop, "the answer makes no sense"),
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{RngExt as _, SeedableRng as _};

    use super::*;

    fn fault(line: &str) -> Fault {
        unexpected(::redis::parse_redis_value(format!("-{line}\r\n").as_bytes()).unwrap())
    }

    #[track_caller]
    fn check(line: &str, kind: ErrorKind, then: Then) {
        let fault = fault(line);
        assert_eq!((fault.kind, fault.then), (kind, then), "{line}");
        let error = Error::from(fault);
        assert_eq!(error.kind(), kind, "{line}");
        let code = line.split(' ').next().unwrap();
        assert!(error.to_string().contains(code), "{error}");
    }

    #[test]
    fn every_refusal_of_redis_has_its_kind() {
        use ErrorKind::{Rejected, Unavailable};
        check("LOADING Redis is loading the dataset in memory", Unavailable, Then::Keep);
        check("MASTERDOWN Link with MASTER is down", Unavailable, Then::Keep);
        check("CLUSTERDOWN The cluster is down", Unavailable, Then::Keep);
        check("TRYAGAIN Multiple keys request during rehashing of slot", Unavailable, Then::Keep);
        check("BUSY Redis is busy running a script.", Unavailable, Then::Keep);
        check("UNKILLABLE Sorry the script already executed write", Unavailable, Then::Keep);
        check("ERR max number of clients reached", Unavailable, Then::Keep);
        check("READONLY You can't write against a read only replica.", Rejected, Then::Look);
        check("NOAUTH Authentication required.", Rejected, Then::Reconnect);
        check("WRONGPASS invalid username-password pair", Rejected, Then::Reconnect);
        check("OOM command not allowed when used memory > 'maxmemory'.", Rejected, Then::Keep);
        check("MISCONF Redis is configured to save RDB snapshots", Rejected, Then::Keep);
        check("NOREPLICAS Not enough good replicas to write.", Rejected, Then::Keep);
        check("MOVED 3999 127.0.0.1:6381", Rejected, Then::Keep);
        check("ASK 3999 127.0.0.1:6381", Rejected, Then::Keep);
        check("CROSSSLOT Keys in request don't hash to the same slot", Rejected, Then::Keep);
        check("NOPERM this user has no permissions", Rejected, Then::Keep);
        check("WRONGTYPE Operation against a key", Rejected, Then::Keep);
        check("ERR syntax error", Rejected, Then::Keep);
        check("WHATEVER comes next", Rejected, Then::Keep);
    }

    #[test]
    fn a_text_of_the_server_shows_no_arguments_and_no_escapes() {
        let line = "ERR unknown command 'HELLO', with args beginning with: '3' 'AUTH' 's3ntinel'";
        let error = Error::from(fault(line));
        assert!(!error.to_string().contains("s3ntinel"), "{error}");
        assert!(!fault("ERR \x1b[31m").text().contains('\x1b'));
        assert!(fault(&format!("ERR {}", "é".repeat(500))).text().chars().count() < 200);
    }

    #[test]
    fn an_answer_of_another_shape_ends_the_connection() {
        assert_eq!(bytes(Value::Int(1)).unwrap_err().then, Then::Drop);
        assert_eq!(integer(Value::Okay).unwrap_err().kind, ErrorKind::Unavailable);
        assert_eq!(bytes(Value::Nil).unwrap(), None);
        assert_eq!(number(Value::BulkString(b"18446744073709551615".to_vec())), Ok(Some(u64::MAX)));
        assert_eq!(number(Value::BulkString(b"x".to_vec())), Ok(None));
    }

    /// Replies as they come, each with some bytes changed, put in or left out.
    #[test]
    fn changed_replies_are_read_or_refused() {
        const SEEDS: [&str; 9] = [
            "+OK\r\n",
            "$-1\r\n",
            ":42\r\n",
            "$11\r\nhello world\r\n",
            "-NOPERM this user has no permissions\r\n",
            "*3\r\n$3\r\nabc\r\n$-1\r\n:7\r\n",
            "=15\r\ntxt:Some string\r\n",
            "%2\r\n+first\r\n:1\r\n+second\r\n*1\r\n#t\r\n",
            ">2\r\n+invalidate\r\n*1\r\n$1\r\nk\r\n",
        ];
        let mut random = StdRng::seed_from_u64(9);
        let mut read = 0;
        for round in 0..200_000 {
            let mut reply = SEEDS[round % SEEDS.len()].as_bytes().to_vec();
            for _ in 0..random.random_range(1..4) {
                let place = random.random_range(0..reply.len());
                match random.random_range(0..4) {
                    0 => reply[place] = random.random(),
                    1 => reply[place] = b"$*%:+-0123456789\r\n"[random.random_range(0..18)],
                    2 => reply.insert(place, reply[place]),
                    _ if reply.len() > 1 => drop(reply.remove(place)),
                    _ => {}
                }
            }
            let Ok(value) = ::redis::parse_redis_value(&reply) else { continue };
            read += 1;
            for fault in [
                bytes(value.clone()).err(),
                integer(value.clone()).err(),
                array(value.clone()).err(),
                is_ok(value.clone()).err(),
                text(value.clone()).err(),
                number(value.clone()).err(),
            ]
            .into_iter()
            .flatten()
            {
                assert!(fault.text().chars().count() < 200, "{fault:?}");
                assert!(!fault.text().contains(char::is_control), "{fault:?}");
            }
        }
        assert!(read > 10_000, "{read} could be read: they are changed too much");
    }
}
