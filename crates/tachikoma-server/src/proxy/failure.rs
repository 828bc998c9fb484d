//! Why the upstream gave no answer, and what the client is told about it.

use std::error::Error as StdError;
use std::{fmt, io};

use axum::body::Body;
use http::{Response, StatusCode};
use hyper_util::client::legacy;

use crate::problem::problem;
use crate::timed::Stalled;

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
    /// The client did not send the rest of its body.
    ClientStalled,
    /// The client went away while it sent its body.
    ClientGone,
}

impl Failure {
    pub(super) fn from_client(error: legacy::Error) -> Self {
        let mut source = Some(&error as &(dyn StdError + 'static));
        let (mut timed_out, mut closed, mut user) = (false, false, false);
        while let Some(cause) = source {
            if cause.is::<Stalled>() {
                return Self::ClientStalled;
            }
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
            Self::ClientStalled => {
                (StatusCode::REQUEST_TIMEOUT, "The rest of the request did not come in time.")
            }
            Self::ClientGone => (StatusCode::BAD_REQUEST, "The request ended early."),
        };
        problem(status, detail)
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
            Self::ClientStalled => f.write_str("the client stopped sending its body"),
            Self::ClientGone => f.write_str("the client ended its body early"),
        }
    }
}
