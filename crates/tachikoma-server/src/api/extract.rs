//! Decides how a request's path, query, headers and body become typed values.
//!
//! What cannot be read is a [`Problem`] that names where it stood. The rules for the fields of a
//! body are those of [`fields`](super::fields).

use axum::{
    body::Body,
    extract::{FromRequest, FromRequestParts, Path, Query, Request},
};
use bytes::Bytes;
use http::{HeaderMap, header, request::Parts};
use http_body_util::LengthLimitError;
use uuid::Uuid;

use super::{
    fields::{Fields, Object, Payload},
    limits,
    problem::{FieldError, Kind, Problem},
};

/// What an id in a path must be.
const UUID: &str = "a UUID as xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx in hexadecimal digits";

/// The bounded, checked JSON body of a request.
pub(crate) struct JsonBody<T>(pub(crate) T);

impl<S: Sync, T: Payload> FromRequest<S> for JsonBody<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        let (parts, body) = request.into_parts();
        check_media_type(&parts.headers)?;
        let bytes = collect(&parts.headers, body).await?;
        let object = parse(&bytes)?;
        match Fields::read(object) {
            Ok(payload) => Ok(Self(payload)),
            Err(errors) => Err(Problem::fields(Kind::InvalidFields, errors)),
        }
    }
}

/// JSON in no coding; parameters as `charset` are ignored, since JSON is UTF-8 (RFC 8259 §8.1).
fn check_media_type(headers: &HeaderMap) -> Result<(), Problem> {
    let refused = |name: &str, value: Option<&str>, allowed: &str| {
        let field = format!("header.{name}");
        let error = match value {
            Some(value) => FieldError::new(field, value, allowed),
            None => FieldError::hidden(field, allowed),
        };
        Err(Problem::fields(Kind::UnsupportedMediaType, vec![error]))
    };
    let text = |name| headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()));
    let given = text(header::CONTENT_TYPE);
    let essence = given.as_deref().and_then(|given| given.split(';').next()).unwrap_or_default();
    let essence = essence.trim().to_ascii_lowercase();
    let is_json = essence == "application/json"
        || (essence.starts_with("application/") && essence.ends_with("+json"));
    if !is_json {
        return refused("content-type", given.as_deref(), "application/json");
    }
    match text(header::CONTENT_ENCODING) {
        Some(coding) if !coding.eq_ignore_ascii_case("identity") => {
            refused("content-encoding", Some(&coding), "left out")
        }
        _ => Ok(()),
    }
}

/// The whole body, within its bounds of size and time.
async fn collect(headers: &HeaderMap, body: Body) -> Result<Bytes, Problem> {
    let too_large = || {
        let detail = format!("the body must be at most {} bytes long", limits::BODY_BYTES);
        Problem::new(Kind::BodyTooLarge, detail)
    };
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    if announced.and_then(|n| n.parse().ok()).is_some_and(|n: u64| n > limits::BODY_BYTES as u64) {
        return Err(too_large());
    }
    let read = axum::body::to_bytes(body, limits::BODY_BYTES);
    match tokio::time::timeout(limits::BODY_TIME, read).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(error)) if is_too_long(&error) => Err(too_large()),
        Ok(Err(_)) => Err(Problem::new(Kind::InvalidRequest, "the body ended too early")),
        Err(_) => {
            let seconds = limits::BODY_TIME.as_secs();
            let detail = format!("the body must arrive within {seconds} seconds");
            Err(Problem::new(Kind::RequestTimeout, detail))
        }
    }
}

fn is_too_long(error: &axum::Error) -> bool {
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        if error.is::<LengthLimitError>() {
            return true;
        }
        cause = error.source();
    }
    false
}

/// The object of a body. Says where it stops being JSON, never what stands there: it may be a
/// password.
fn parse(bytes: &[u8]) -> Result<Object, Problem> {
    serde_json::from_slice(bytes).map_err(|error| {
        if error.is_data() {
            let error = FieldError::hidden("body", "a JSON object");
            return Problem::fields(Kind::InvalidFields, vec![error]);
        }
        let (line, column) = (error.line(), error.column());
        let detail = format!("the body is not JSON from line {line}, column {column} on");
        Problem::new(Kind::InvalidJson, detail)
    })
}

/// The values in the path, by name, percent-decoded.
struct PathValues(Vec<(String, String)>);

impl PathValues {
    async fn read<S: Send + Sync>(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let path = Path::<Vec<(String, String)>>::from_request_parts(parts, state).await;
        path.map(|Path(values)| Self(values)).map_err(|_| {
            Problem::request(FieldError::new("path", parts.uri.path(), "valid UTF-8 when decoded"))
        })
    }

    fn get(&self, name: &str) -> &str {
        let found = self.0.iter().find(|(given, _)| given == name);
        found.map_or("", |(_, value)| value)
    }

    /// The id under `id`. Only the hyphenated form: each resource has one address.
    fn id(&self) -> Result<Uuid, Problem> {
        let given = self.get("id");
        let id = (given.len() == 36).then(|| Uuid::try_parse(given).ok()).flatten();
        id.ok_or_else(|| Problem::request(FieldError::new("path.id", given, UUID)))
    }

    fn spec_id(&self) -> Result<String, Problem> {
        let given = self.get("spec_id");
        if is_spec_id(given) {
            return Ok(given.to_owned());
        }
        let allowed = format!(
            "1 to {} of A-Z, a-z, 0-9, '.', '_', '-', the first a letter or digit",
            limits::SPEC_ID_CHARS
        );
        Err(Problem::request(FieldError::new("path.spec_id", given, allowed)))
    }
}

/// Whether a text may name a spec: it stands in paths, keys and tags without escapes.
pub(crate) fn is_spec_id(text: &str) -> bool {
    text.len() <= limits::SPEC_ID_CHARS
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

/// The `{id}` of a path.
pub(crate) struct IdPath(pub(crate) Uuid);

impl<S: Send + Sync> FromRequestParts<S> for IdPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        Ok(Self(PathValues::read(parts, state).await?.id()?))
    }
}

/// The `{id}` and `{spec_id}` of a path.
pub(crate) struct SpecPath {
    pub(crate) mission_id: Uuid,
    pub(crate) spec_id: String,
}

impl<S: Send + Sync> FromRequestParts<S> for SpecPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let values = PathValues::read(parts, state).await?;
        Ok(Self { mission_id: values.id()?, spec_id: values.spec_id()? })
    }
}

/// Which page of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Paging {
    pub(crate) page: u32,
    pub(crate) page_size: u32,
}

impl<S: Send + Sync> FromRequestParts<S> for Paging {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let query = Query::<Vec<(String, String)>>::from_request_parts(parts, state).await;
        let Ok(Query(given)) = query else {
            let value = parts.uri.query().unwrap_or_default();
            let allowed = "page=<number>&page_size=<number>";
            return Err(Problem::request(FieldError::new("query", value, allowed)));
        };
        Self::parse(&given).map_err(|errors| Problem::fields(Kind::InvalidRequest, errors))
    }
}

impl Paging {
    /// The page that the query asks for; all errors if there are any.
    fn parse(given: &[(String, String)]) -> Result<Self, Vec<FieldError>> {
        let mut errors = Vec::new();
        let mut number = |name: &str, default: u32, most: u32| {
            let mut values =
                given.iter().filter(|(given, _)| given == name).map(|(_, value)| value);
            let Some(value) = values.next() else { return default };
            // `parse` takes a leading plus, which a form decoder makes of nothing else.
            let digits = value.bytes().all(|b| b.is_ascii_digit());
            let number = value.parse().ok().filter(|n| digits && (1..=most).contains(n));
            if number.is_none() || values.next().is_some() {
                let allowed = format!("one whole number from 1 to {most}");
                errors.push(FieldError::new(format!("query.{name}"), value, allowed));
            }
            number.unwrap_or(default)
        };
        let page = number("page", 1, limits::PAGE_MAX);
        let page_size = number("page_size", limits::PAGE_SIZE_DEFAULT, limits::PAGE_SIZE_MAX);
        for (name, value) in given {
            if name != "page" && name != "page_size" {
                let name = name.chars().take(64).collect::<String>();
                let allowed = "left out: the parameters are page and page_size";
                errors.push(FieldError::new(format!("query.{name}"), value, allowed));
            }
        }
        if errors.is_empty() { Ok(Self { page, page_size }) } else { Err(errors) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(query: &[(&str, &str)], expected: Result<(u32, u32), &[&str]>) {
        let given: Vec<_> = query.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        let actual = Paging::parse(&given).map(|paging| (paging.page, paging.page_size));
        let actual = actual
            .map_err(|errors| -> Vec<_> { errors.into_iter().map(|error| error.field).collect() });
        assert_eq!(actual, expected.map_err(|e| e.iter().map(ToString::to_string).collect()));
    }

    #[test]
    fn a_page_has_defaults_and_bounds() {
        check(&[], Ok((1, 20)));
        check(&[("page", "3"), ("page_size", "100")], Ok((3, 100)));
        check(&[("page", "1000000")], Ok((1_000_000, 20)));
        for wrong in ["0", "-1", "+1", "1.0", "", " 1", "1e3", "1000001", "99999999999999999999"] {
            check(&[("page", wrong)], Err(&["query.page"]));
        }
        check(&[("page_size", "101")], Err(&["query.page_size"]));
        check(&[("page", "0"), ("page_size", "x")], Err(&["query.page", "query.page_size"]));
        check(&[("page", "1"), ("page", "2")], Err(&["query.page"]));
        check(&[("pagesize", "5")], Err(&["query.pagesize"]));
    }

    #[test]
    fn a_spec_id_needs_no_escape_anywhere() {
        for allowed in ["a", "338", "api.v2_final-1", &"x".repeat(64)] {
            assert!(is_spec_id(allowed), "{allowed:?}");
        }
        for refused in ["", ".", "..", "-a", "a b", "a/b", "a:b", "ä", "a\0", "a*", &"x".repeat(65)]
        {
            assert!(!is_spec_id(refused), "{refused:?}");
        }
    }
}
