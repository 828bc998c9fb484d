//! Decides how the API says that something went wrong: `application/problem+json` (RFC 9457).
//!
//! Every answer with a status of 400 or more is one of these, and each names the field, the value
//! and what is allowed. Never shows a secret, a path of the server or the text of a database error:
//! those go to the log.

use axum::response::{IntoResponse, Response};
use http::{HeaderName, HeaderValue, StatusCode, header};
use serde::Serialize;

use super::{
    database::{DatabaseError, WriteError},
    revision::Refused,
};

/// The media type of a problem (RFC 9457 §3).
pub(crate) const MEDIA_TYPE: &str = "application/problem+json";

/// Characters of a refused value that a problem repeats.
const VALUE_CHARS: usize = 64;

/// What is wrong with one field of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct FieldError {
    /// Where it is: `body.title`, `path.id`, `query.page`, `header.content-type`.
    pub(crate) field: String,
    /// What was there, shortened; absent when nothing was, or when it is a secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) value: Option<String>,
    /// What may be there.
    pub(crate) allowed: String,
}

impl FieldError {
    /// An error that repeats the refused value.
    pub(crate) fn new(
        field: impl Into<String>,
        value: impl AsRef<str>,
        allowed: impl Into<String>,
    ) -> Self {
        Self { value: Some(shortened(value.as_ref())), ..Self::hidden(field, allowed) }
    }

    /// An error that does not repeat the value: there is none, or it is a secret.
    pub(crate) fn hidden(field: impl Into<String>, allowed: impl Into<String>) -> Self {
        Self { field: field.into(), value: None, allowed: allowed.into() }
    }
}

/// The kinds of problem; each has one status and one URN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    InvalidRequest,
    InvalidJson,
    Unauthenticated,
    WrongCredentials,
    NotFound,
    NoSuchRoute,
    MethodNotAllowed,
    RequestTimeout,
    StaleVersion,
    EmailTaken,
    TooManySpecs,
    PreconditionFailed,
    BodyTooLarge,
    UnsupportedMediaType,
    InvalidFields,
    TooManyLogins,
    Internal,
    Busy,
}

impl Kind {
    /// All of them, for the OpenAPI document.
    pub(crate) const ALL: [Self; 18] = [
        Self::InvalidRequest,
        Self::InvalidJson,
        Self::Unauthenticated,
        Self::WrongCredentials,
        Self::NotFound,
        Self::NoSuchRoute,
        Self::MethodNotAllowed,
        Self::RequestTimeout,
        Self::StaleVersion,
        Self::EmailTaken,
        Self::TooManySpecs,
        Self::PreconditionFailed,
        Self::BodyTooLarge,
        Self::UnsupportedMediaType,
        Self::InvalidFields,
        Self::TooManyLogins,
        Self::Internal,
        Self::Busy,
    ];

    /// The status of the answer.
    pub(crate) fn status(self) -> StatusCode {
        match self {
            Self::InvalidRequest | Self::InvalidJson => StatusCode::BAD_REQUEST,
            Self::Unauthenticated | Self::WrongCredentials => StatusCode::UNAUTHORIZED,
            Self::NotFound | Self::NoSuchRoute => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::RequestTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::StaleVersion | Self::EmailTaken | Self::TooManySpecs => StatusCode::CONFLICT,
            Self::PreconditionFailed => StatusCode::PRECONDITION_FAILED,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::InvalidFields => StatusCode::UNPROCESSABLE_ENTITY,
            Self::TooManyLogins => StatusCode::TOO_MANY_REQUESTS,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Busy => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// The `type` of the problem: a name that stays, not an address to open.
    pub(crate) fn urn(self) -> &'static str {
        match self {
            Self::InvalidRequest => "urn:tachikoma:problem:invalid-request",
            Self::InvalidJson => "urn:tachikoma:problem:invalid-json",
            Self::Unauthenticated => "urn:tachikoma:problem:unauthenticated",
            Self::WrongCredentials => "urn:tachikoma:problem:wrong-credentials",
            Self::NotFound => "urn:tachikoma:problem:not-found",
            Self::NoSuchRoute => "urn:tachikoma:problem:no-such-route",
            Self::MethodNotAllowed => "urn:tachikoma:problem:method-not-allowed",
            Self::RequestTimeout => "urn:tachikoma:problem:request-timeout",
            Self::StaleVersion => "urn:tachikoma:problem:stale-version",
            Self::EmailTaken => "urn:tachikoma:problem:email-taken",
            Self::TooManySpecs => "urn:tachikoma:problem:too-many-specs",
            Self::PreconditionFailed => "urn:tachikoma:problem:precondition-failed",
            Self::BodyTooLarge => "urn:tachikoma:problem:body-too-large",
            Self::UnsupportedMediaType => "urn:tachikoma:problem:unsupported-media-type",
            Self::InvalidFields => "urn:tachikoma:problem:invalid-fields",
            Self::TooManyLogins => "urn:tachikoma:problem:too-many-logins",
            Self::Internal => "urn:tachikoma:problem:internal",
            Self::Busy => "urn:tachikoma:problem:busy",
        }
    }

    fn title(self) -> &'static str {
        match self {
            Self::InvalidRequest => "The request is not valid",
            Self::InvalidJson => "The body is not JSON",
            Self::Unauthenticated => "A session is needed",
            Self::WrongCredentials => "The email address or the password is wrong",
            Self::NotFound => "There is no such thing",
            Self::NoSuchRoute => "There is nothing at this path",
            Self::MethodNotAllowed => "The method is not allowed here",
            Self::RequestTimeout => "The body took too long to arrive",
            Self::StaleVersion => "The version is stale",
            Self::EmailTaken => "The email address has a user",
            Self::TooManySpecs => "The mission has as many specs as it may",
            Self::PreconditionFailed => "A precondition does not hold",
            Self::BodyTooLarge => "The body is too large",
            Self::UnsupportedMediaType => "The media type is not supported",
            Self::InvalidFields => "A field is not valid",
            Self::TooManyLogins => "Too many attempts to log in",
            Self::Internal => "The server failed",
            Self::Busy => "The server is busy",
        }
    }
}

/// An answer that says what went wrong.
#[derive(Debug, Clone)]
pub(crate) struct Problem {
    kind: Kind,
    detail: String,
    errors: Vec<FieldError>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

/// The JSON of a problem.
#[derive(Serialize)]
struct Body<'a> {
    r#type: &'static str,
    title: &'static str,
    status: u16,
    detail: &'a str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    errors: &'a [FieldError],
}

impl Problem {
    /// A problem of this kind; `detail` is one sentence about this request.
    pub(crate) fn new(kind: Kind, detail: impl Into<String>) -> Self {
        Self { kind, detail: detail.into(), errors: Vec::new(), headers: Vec::new() }
    }

    /// A problem with fields of the request.
    pub(crate) fn fields(kind: Kind, errors: Vec<FieldError>) -> Self {
        let named: Vec<_> = errors
            .iter()
            .map(|error| match &error.value {
                Some(value) => {
                    format!("{} is {value:?} but must be {}", error.field, error.allowed)
                }
                None => format!("{} must be {}", error.field, error.allowed),
            })
            .collect();
        Self { errors, ..Self::new(kind, named.join("; ")) }
    }

    /// A problem with one part of the request's address or headers.
    pub(crate) fn request(error: FieldError) -> Self {
        Self::fields(Kind::InvalidRequest, vec![error])
    }

    /// Adds a header to the answer.
    #[must_use]
    pub(crate) fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// The status of the answer.
    pub(crate) fn status(&self) -> StatusCode {
        self.kind.status()
    }

    /// 404: `what` names the thing, as `mission 0b92…`.
    pub(crate) fn not_found(what: &str) -> Self {
        Self::new(Kind::NotFound, format!("there is no {what}"))
    }

    /// 500 for what only the log may explain.
    pub(crate) fn internal() -> Self {
        Self::new(Kind::Internal, "the request could not be answered; the server's log says why")
    }

    /// 503: the same request may succeed in a moment.
    pub(crate) fn busy(detail: &'static str) -> Self {
        Self::new(Kind::Busy, detail)
            .with_header(header::RETRY_AFTER, HeaderValue::from_static("1"))
    }

    /// What a write that did not happen is answered with; `what` names the thing.
    pub(crate) fn write(error: &WriteError, what: &str) -> Self {
        match error {
            WriteError::NotFound => Self::not_found(what),
            WriteError::Refused(Refused::Version { expected, current }) => {
                let allowed = match current {
                    Some(current) => format!("{current}, the version of {what}, or left out"),
                    None => format!("left out: there is no {what} yet"),
                };
                let error = FieldError::new("body.version", expected.to_string(), allowed);
                Self::fields(Kind::StaleVersion, vec![error])
            }
            WriteError::Refused(Refused::Header { header }) => Self::new(
                Kind::PreconditionFailed,
                format!("{header} does not hold for {what}; read it again for its ETag"),
            ),
            WriteError::Taken => Self::new(Kind::EmailTaken, "this email address has a user"),
            WriteError::Full => Self::new(
                Kind::TooManySpecs,
                format!("a mission has at most {} specs", super::limits::SPECS_PER_MISSION),
            ),
            WriteError::Database(error) => error.into(),
        }
    }
}

impl From<&DatabaseError> for Problem {
    fn from(error: &DatabaseError) -> Self {
        match error {
            DatabaseError::Busy(cause) => {
                tracing::warn!(%cause, "the database is busy");
                Self::busy("the database did not answer in time")
            }
            error => {
                let cause = std::error::Error::source(error);
                tracing::error!(%error, cause, "the database failed");
                Self::internal()
            }
        }
    }
}

impl From<DatabaseError> for Problem {
    fn from(error: DatabaseError) -> Self {
        (&error).into()
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = self.kind.status();
        let body = Body {
            r#type: self.kind.urn(),
            title: self.kind.title(),
            status: status.as_u16(),
            detail: &self.detail,
            errors: &self.errors,
        };
        // A struct of texts and a number always serialises.
        let body = serde_json::to_vec(&body).unwrap_or_default();
        let mut response = (status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
        // What went wrong now may go right in a moment.
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.extend(self.headers);
        response
    }
}

/// The first characters of a refused value: it comes from the client and has no bound.
fn shortened(value: &str) -> String {
    match value.char_indices().nth(VALUE_CHARS) {
        Some((end, _)) => format!("{}…", &value[..end]),
        None => value.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_its_own_name_and_an_error_status() {
        let mut names: Vec<_> = Kind::ALL.iter().map(|kind| kind.urn()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Kind::ALL.len());
        assert!(Kind::ALL.iter().all(|kind| kind.status().as_u16() >= 400));
    }

    #[test]
    fn a_problem_names_field_value_and_what_is_allowed() {
        let long = "é".repeat(100);
        let problem = Problem::request(FieldError::new("path.id", &long, "a UUID"));
        let expected = format!("path.id is \"{}…\" but must be a UUID", "é".repeat(64));
        assert_eq!(problem.detail, expected);
        let secret = Problem::request(FieldError::hidden("body.password", "8 to 256 characters"));
        assert_eq!(secret.detail, "body.password must be 8 to 256 characters");
    }

    #[test]
    fn a_stale_version_is_a_conflict_and_a_failed_header_is_not() {
        let stale = WriteError::Refused(Refused::Version { expected: 3, current: Some(5) });
        let problem = Problem::write(&stale, "mission 1");
        assert_eq!(problem.status(), StatusCode::CONFLICT);
        assert!(problem.detail.contains("\"3\" but must be 5"), "{}", problem.detail);
        let header = WriteError::Refused(Refused::Header { header: "If-Match" });
        let problem = Problem::write(&header, "mission 1");
        assert_eq!(problem.status(), StatusCode::PRECONDITION_FAILED);
    }
}
