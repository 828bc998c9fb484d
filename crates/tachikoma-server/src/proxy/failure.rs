//! Why the upstream gave no answer, and what the client is told about it.

use std::error::Error as StdError;
use std::{fmt, io};

use axum::body::Body;
use http::header::RETRY_AFTER;
use http::{HeaderValue, Response, StatusCode};
use hyper_util::client::legacy;
use tachikoma_http_cache::Disconnected;

use crate::problem::problem;
use crate::timed::Broken;

/// An exchange with the upstream that failed before there was a head to forward.
#[derive(Debug)]
pub(super) enum Failure {
    /// The target cannot be written into a request.
    BadTarget,
    /// The upstream does not take connections, or has no address.
    Connect(legacy::Error),
    /// It took no connection in time.
    ConnectTimeout,
    /// The connection ended before there was an answer.
    Closed(legacy::Error),
    /// No head came in time.
    HeadTimeout,
    /// What came is not HTTP, or does not say where it ends.
    Malformed(legacy::Error),
    /// It switched protocols without being asked.
    Unasked,
    /// Its body has a transfer coding that was not asked for.
    Coding,
    /// Its `Connection` names a field that is for everyone.
    NamesEndToEnd,
    /// Its head says in two ways where its body ends, or in an impossible one.
    Misframed,
    /// It sent interim responses and nothing else.
    InterimFlood,
    /// It has all the requests that it may have, and others are waiting.
    Full,
    /// The client did not send the rest of its body.
    ClientStalled,
    /// The client went away while it sent its body.
    ClientGone,
    /// The client's body is larger than is allowed.
    ClientTooLarge,
}

impl Failure {
    /// Why the body of the client did not come whole.
    pub(super) fn from_body(error: &(dyn StdError + 'static)) -> Self {
        let mut source = Some(error);
        while let Some(cause) = source {
            match cause.downcast_ref::<Broken>() {
                Some(Broken::Stalled) => return Self::ClientStalled,
                Some(Broken::TooLarge) => return Self::ClientTooLarge,
                None => source = cause.source(),
            }
        }
        Self::ClientGone
    }

    pub(super) fn from_client(error: legacy::Error) -> Self {
        match Self::from_body(&error) {
            Self::ClientGone => {}
            failure => return failure,
        }
        let mut source = Some(&error as &(dyn StdError + 'static));
        let (mut timed_out, mut closed, mut user) = (false, false, false);
        while let Some(cause) = source {
            if let Some(io) = cause.downcast_ref::<io::Error>() {
                timed_out |= io.kind() == io::ErrorKind::TimedOut;
                closed |= matches!(
                    io.kind(),
                    io::ErrorKind::ConnectionReset
                        | io::ErrorKind::BrokenPipe
                        | io::ErrorKind::ConnectionAborted
                        | io::ErrorKind::UnexpectedEof
                );
            }
            if let Some(hyper) = cause.downcast_ref::<hyper::Error>() {
                closed |= hyper.is_incomplete_message() || hyper.is_canceled() || hyper.is_closed();
                user |= hyper.is_user();
            }
            source = cause.source();
        }
        match () {
            () if error.is_connect() && timed_out => Self::ConnectTimeout,
            () if error.is_connect() => Self::Connect(error),
            () if user => Self::ClientGone,
            () if closed => Self::Closed(error),
            () => Self::Malformed(error),
        }
    }

    /// What the client is told: what happened, but neither addresses nor causes.
    pub(super) fn response(&self) -> Response<Body> {
        let (status, detail) = match self {
            Self::BadTarget => (StatusCode::BAD_REQUEST, "The target is not valid."),
            Self::Connect(_) => (StatusCode::BAD_GATEWAY, "The upstream takes no connection."),
            Self::ConnectTimeout => {
                (StatusCode::GATEWAY_TIMEOUT, "The upstream took no connection in time.")
            }
            Self::Closed(_) => {
                (StatusCode::BAD_GATEWAY, "The upstream closed the connection without an answer.")
            }
            Self::HeadTimeout => {
                (StatusCode::GATEWAY_TIMEOUT, "The upstream did not answer in time.")
            }
            Self::Malformed(_) => {
                (StatusCode::BAD_GATEWAY, "The upstream's answer is not valid HTTP.")
            }
            Self::Unasked => {
                (StatusCode::BAD_GATEWAY, "The upstream switched protocols without being asked.")
            }
            Self::Coding => (
                StatusCode::BAD_GATEWAY,
                "The upstream used a transfer coding that it was not asked for.",
            ),
            Self::NamesEndToEnd => (
                StatusCode::BAD_GATEWAY,
                "The upstream's Connection names a field that is not for this connection alone.",
            ),
            Self::Misframed => (
                StatusCode::BAD_GATEWAY,
                "The upstream's answer does not say clearly where it ends.",
            ),
            Self::InterimFlood => {
                (StatusCode::BAD_GATEWAY, "The upstream sent interim responses without an end.")
            }
            Self::Full => {
                (StatusCode::SERVICE_UNAVAILABLE, "The upstream has no room for more requests now.")
            }
            Self::ClientTooLarge => {
                (StatusCode::PAYLOAD_TOO_LARGE, "The request body is larger than is allowed here.")
            }
            Self::ClientStalled => {
                (StatusCode::REQUEST_TIMEOUT, "The rest of the request did not come in time.")
            }
            Self::ClientGone => (StatusCode::BAD_REQUEST, "The request ended early."),
        };
        let mut response = problem(status, detail);
        if matches!(self, Self::Full) {
            // A second is soon, and longer than the most impatient of clients waits by itself.
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        if matches!(
            self,
            Self::Connect(_) | Self::ConnectTimeout | Self::Closed(_) | Self::HeadTimeout
        ) {
            // The cache may then send what it has, though it is stale.
            response.extensions_mut().insert(Disconnected);
        }
        response
    }
}

impl fmt::Display for Failure {
    /// With all causes: this goes to the log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect(error) | Self::Closed(error) | Self::Malformed(error) => {
                write!(f, "{error}")?;
                let mut source = error.source();
                while let Some(cause) = source {
                    write!(f, ": {cause}")?;
                    source = cause.source();
                }
                Ok(())
            }
            Self::BadTarget => f.write_str("bad target"),
            Self::ConnectTimeout => f.write_str("connecting took too long"),
            Self::HeadTimeout => f.write_str("the head of the response took too long"),
            Self::Unasked => f.write_str("an informational status that nobody asked for"),
            Self::Coding => f.write_str("a transfer coding that nobody asked for"),
            Self::NamesEndToEnd => f.write_str("Connection names an end-to-end field"),
            Self::Misframed => f.write_str("two lengths, or a length where there is no body"),
            Self::InterimFlood => f.write_str("too many interim responses"),
            Self::Full => {
                f.write_str("max_concurrent exchanges, and the queue is full or too slow")
            }
            Self::ClientTooLarge => f.write_str("the client's body is larger than body_bytes"),
            Self::ClientStalled => f.write_str("the client stopped sending its body"),
            Self::ClientGone => f.write_str("the client ended its body early"),
        }
    }
}
