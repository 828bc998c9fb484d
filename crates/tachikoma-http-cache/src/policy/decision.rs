//! What the cache decided about one exchange, and why: one value for the `Cache-Status` header,
//! the log line and the metric.
//!
//! Decides nothing itself. The words follow RFC 9211 where it has one.

use std::{fmt, time::Duration};

use http::{HeaderName, StatusCode};
use tachikoma_cache::dependencies::Unknown;

/// Why the cache took no part in an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bypass {
    /// Neither GET nor HEAD.
    Method,
    /// The request has a body.
    RequestBody,
    /// It asks for another protocol, or waits for `100-continue`.
    Upgrade,
    /// It states a condition that only the origin can judge: `If-Match`, `If-Unmodified-Since`.
    Precondition,
    /// It says `no-store`.
    RequestNoStore,
    /// Its target names no resource of this server: no valid host, or two that differ.
    Target,
    /// A rule of the operator says so.
    Rule,
}

impl Bypass {
    /// Every reason, in the order of [`index`](Self::index).
    pub const ALL: [Self; 7] = [
        Self::Method,
        Self::RequestBody,
        Self::Upgrade,
        Self::Precondition,
        Self::RequestNoStore,
        Self::Target,
        Self::Rule,
    ];

    /// Its place in [`ALL`](Self::ALL), for counters.
    pub fn index(self) -> usize {
        self as usize
    }

    /// Its name in headers, logs and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Method => "method",
            Self::RequestBody => "request-body",
            Self::Upgrade => "upgrade",
            Self::Precondition => "precondition",
            Self::RequestNoStore => "request-no-store",
            Self::Target => "target",
            Self::Rule => "rule",
        }
    }
}

/// Why a response was not stored, or why a stored one was not for this request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// The answer to a HEAD has no body to store.
    Head,
    /// This status is about one request or one connection, or is not final.
    Status,
    /// A part that does not say which bytes it is, or that nobody asked for.
    Part,
    /// `no-store`
    NoStore,
    /// `private`
    Private,
    /// `must-understand` with a status that this cache does not understand.
    NotUnderstood,
    /// `Set-Cookie`
    SetCookie,
    /// `Vary: *`
    VaryStar,
    /// A `Vary` that is not a list of field names, or is too long.
    VaryInvalid,
    /// `Vary` names a credential that the request carries.
    VaryCredentials,
    /// The request has `Authorization`, and the response does not say that it may be shared.
    Authorization,
    /// The request has `Cookie`, and the response does not say that it may be shared.
    Cookie,
    /// The request has a header that no key holds and that `Vary` does not name.
    Unkeyed(HeaderName),
    /// An error that the size of the request may have caused.
    Oversize,
    /// Nothing says how long it is fresh, and its status is not cacheable by default.
    NoFreshness,
    /// Neither fresh nor able to be validated: it could never be used.
    NeverUsable,
    /// A transfer coding other than `chunked`.
    TransferCoding,
    /// Its `Content-Type` is not what the rule for its path is about.
    ContentType,
    /// Larger than `max_body_size`.
    TooLarge,
    /// `max_fill_bytes` are held by other responses under way.
    NoRoom,
    /// Its end cannot be told from a broken connection.
    EndUnproved,
    /// More than 64 tags, or one over 256 bytes.
    Tags,
    /// A part, which would take the place of the whole that another process has.
    Elsewhere,
    /// It is not known what it was made of, or that was not read anew.
    Dependencies(Unknown),
    /// The store could not be asked, so a fill could undo an invalidation.
    Store,
}

impl Refusal {
    /// Its name in headers, logs and metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Head => "head",
            Self::Status => "status",
            Self::Part => "part",
            Self::NoStore => "no-store",
            Self::Private => "private",
            Self::NotUnderstood => "not-understood",
            Self::SetCookie => "set-cookie",
            Self::VaryStar => "vary-star",
            Self::VaryInvalid => "vary-invalid",
            Self::VaryCredentials => "vary-credentials",
            Self::Authorization => "authorization",
            Self::Cookie => "cookie",
            Self::Unkeyed(_) => "unkeyed",
            Self::Oversize => "oversize",
            Self::NoFreshness => "no-freshness",
            Self::NeverUsable => "never-usable",
            Self::ContentType => "content-type",
            Self::TransferCoding => "transfer-coding",
            Self::TooLarge => "too-large",
            Self::NoRoom => "no-room",
            Self::EndUnproved => "end-unproved",
            Self::Tags => "tags",
            Self::Elsewhere => "elsewhere",
            Self::Dependencies(_) => "dependencies",
            Self::Store => "store",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unkeyed(name) => write!(f, "unkeyed {name}"),
            refusal => f.write_str(refusal.name()),
        }
    }
}

/// Why a request went on to the origin (`fwd`, RFC 9211 §2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forward {
    /// The cache takes no part in such requests.
    Bypass(Bypass),
    /// Nothing is stored for this target.
    UriMiss,
    /// Something is stored for this target, but nothing that this request selects.
    VaryMiss,
    /// What is stored is stale, or must be validated each time.
    Stale,
    /// What is stored is fresh, but the request asks for more.
    Request,
    /// Only a part is stored, and the request asks for other bytes.
    Partial,
    /// Its large body is in the memory of another process, or was pushed out of this one's.
    Elsewhere,
}

impl Forward {
    /// The token of RFC 9211 §2.2.
    pub fn token(self) -> &'static str {
        match self {
            Self::Bypass(Bypass::Method) => "method",
            Self::Bypass(_) => "bypass",
            Self::UriMiss => "uri-miss",
            Self::VaryMiss => "vary-miss",
            Self::Stale => "stale",
            Self::Request => "request",
            Self::Partial => "partial",
            Self::Elsewhere => "miss",
        }
    }
}

/// What allowed a stale response to be sent (RFC 9111 §4.2.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StaleUse {
    /// The request's `max-stale`.
    MaxStale,
    /// The response's `stale-while-revalidate`; it is being refreshed.
    WhileRevalidate,
    /// `stale-if-error`, of the request or the response; the origin failed.
    IfError,
    /// The origin cannot be reached, and the response does not forbid it.
    Disconnected,
}

impl StaleUse {
    /// Its name in headers, logs and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::MaxStale => "max-stale",
            Self::WhileRevalidate => "stale-while-revalidate",
            Self::IfError => "stale-if-error",
            Self::Disconnected => "disconnected",
        }
    }
}

/// What the cache did with one exchange.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Answered from the store, fresh.
    Hit {
        /// What is left of its freshness.
        ttl: Duration,
    },
    /// Answered from the store, stale.
    Stale {
        /// For how long it has been stale.
        by: Duration,
        /// What allows it.
        allowed: StaleUse,
    },
    /// `only-if-cached`, and nothing usable is stored: 504.
    OnlyIfCached,
    /// The origin was asked.
    Forwarded {
        /// Why.
        why: Forward,
        /// What the origin answered, where the client got something else.
        status: Option<StatusCode>,
        /// Another request asked on behalf of this one.
        collapsed: bool,
        /// Stored once its end is proved; or why not; `None` where the question does not arise.
        stored: Option<Result<(), Refusal>>,
    },
}

impl Decision {
    /// Went on to the origin, and the cache takes no part in it.
    pub fn bypass(why: Bypass) -> Self {
        Self::Forwarded { why: Forward::Bypass(why), status: None, collapsed: false, stored: None }
    }

    /// The label of its metric.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Hit { .. } => "hit",
            Self::Stale { .. } => "stale",
            Self::OnlyIfCached => "only-if-cached",
            Self::Forwarded { why: Forward::Bypass(_), .. } => "bypass",
            Self::Forwarded { collapsed: true, .. } => "collapsed",
            Self::Forwarded { status: Some(StatusCode::NOT_MODIFIED), .. } => "revalidated",
            Self::Forwarded { .. } => "miss",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_bypass_has_its_own_place_and_name() {
        for (place, bypass) in Bypass::ALL.into_iter().enumerate() {
            assert_eq!(bypass.index(), place, "{bypass:?}");
        }
        let mut names = Bypass::ALL.map(Bypass::name);
        names.sort_unstable();
        assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "{names:?}");
    }
}
