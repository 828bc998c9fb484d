//! `GET /explain?url=…&header=…`: what the response cache would do with a request, and why.
//!
//! Nothing is changed by asking, not even a counter. With `fetch=true` the origin is asked too,
//! past the cache, and its answer is judged by its head and dropped. Who may only read may ask so:
//! what reaches the origin is a GET or HEAD without a body, as the public listener lets it through.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Query, State};
use axum::response::{IntoResponse as _, Json};
use http::header::{HOST, HeaderName};
use http::uri::PathAndQuery;
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri};
use serde_json::{Value, json};
use tachikoma_http_cache::Explanation;
use tower::ServiceExt as _;

use super::snapshot::Sources;
use crate::front::{admit, refused};
use crate::problem::problem;
use crate::proxy::fields::drop_claims;

/// How long the origin may take.
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) async fn explain(
    State(sources): State<Arc<Sources>>,
    query: Result<Query<Vec<(String, String)>>, axum::extract::rejection::QueryRejection>,
) -> Response<Body> {
    let Ok(Query(query)) = query else {
        return problem(StatusCode::BAD_REQUEST, "The query cannot be read.");
    };
    let asked = match Asked::read(&query) {
        Ok(asked) => asked,
        Err(detail) => return problem(StatusCode::BAD_REQUEST, &detail),
    };
    let request = asked.request();
    let explanation = if asked.fetch {
        let mut sent = asked.request().map(|()| Body::empty());
        let (limits, own_host) = (&sources.terms.limits, HeaderValue::from_static("localhost"));
        if let Err(refusal) = admit(&mut sent, limits, &own_host, asked.is_secure()) {
            return refused(refusal);
        }
        let Some(origin) = sources.origin(&sent) else {
            return problem(StatusCode::BAD_REQUEST, "There is no origin to ask for this URL.");
        };
        match tokio::time::timeout(PATIENCE, origin.oneshot(sent)).await {
            Ok(Ok(answer)) => {
                // Only its head is looked at.
                let answer = answer.map(drop);
                sources.responses.explain_answer(&request, &answer).await
            }
            Ok(Err(never)) => match never {},
            Err(_) => {
                return problem(StatusCode::GATEWAY_TIMEOUT, "The origin did not answer in time.");
            }
        }
    } else {
        sources.responses.explain(&request).await
    };
    Json(said(&asked, &explanation)).into_response()
}

/// Fields that say where a request ends or what becomes of its connection: of a request that is
/// made here, nobody else says that.
const OF_THE_CONNECTION: [&str; 10] = [
    "connection",
    "content-length",
    "expect",
    "http2-settings",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// What is asked about.
struct Asked {
    method: Method,
    uri: Uri,
    headers: Vec<(HeaderName, HeaderValue)>,
    fetch: bool,
}

impl Asked {
    fn read(query: &[(String, String)]) -> Result<Self, String> {
        let (mut method, mut uri, mut headers, mut fetch) = (Method::GET, None, Vec::new(), false);
        for (name, value) in query {
            match name.as_str() {
                "url" if uri.is_none() => uri = Some(parsed_url(value)?),
                "method" => {
                    let refused = |_| format!("method: {value:?} is not the name of a method.");
                    method = Method::from_bytes(value.as_bytes()).map_err(refused)?;
                }
                "header" => headers.push(parsed_header(value)?),
                "fetch" => match value.as_str() {
                    "true" | "1" | "" => fetch = true,
                    "false" | "0" => fetch = false,
                    _ => {
                        return Err(format!(
                            "fetch: {value:?} is refused; true and false are allowed."
                        ));
                    }
                },
                "url" => return Err("url is there twice.".to_owned()),
                _ => {
                    let known = "known are url, header, method and fetch";
                    return Err(format!("{name:?} is not known here; {known}."));
                }
            }
        }
        let uri = uri.ok_or("url is needed: explain?url=http://host/path")?;
        let asked = Self { method, uri, headers, fetch };
        if fetch { asked.may_be_sent().map(|()| asked) } else { Ok(asked) }
    }

    /// Refuses what the origin must not get from who only asks.
    fn may_be_sent(&self) -> Result<(), String> {
        if ![Method::GET, Method::HEAD].contains(&self.method) {
            let method = self.method.as_str();
            return Err(format!(
                "method: {method:?} is refused; with fetch, GET and HEAD are sent."
            ));
        }
        let is_refused = |name: &&HeaderName| OF_THE_CONNECTION.contains(&name.as_str());
        match self.headers.iter().map(|(name, _)| name).find(is_refused) {
            Some(name) => Err(format!(
                "header: {:?} is refused; with fetch, no field about the connection is sent.",
                name.as_str()
            )),
            None => Ok(()),
        }
    }

    fn is_secure(&self) -> bool {
        self.uri.scheme_str() == Some("https")
    }

    /// The request as the response cache sees it: a path, and the host in `Host`; over TLS in the
    /// absolute form, because its scheme is another.
    fn request(&self) -> Request<()> {
        let mut request = Request::new(());
        *request.method_mut() = self.method.clone();
        let headers = request.headers_mut();
        for (name, value) in &self.headers {
            headers.append(name.clone(), value.clone());
        }
        let host = self.uri.authority().map(ToString::to_string);
        if let Some(host) = host.and_then(|host| HeaderValue::from_str(&host).ok()) {
            headers.insert(HOST, host);
        }
        drop_claims(request.headers_mut());
        if self.is_secure() {
            *request.uri_mut() = self.uri.clone();
            return request;
        }
        let path = self.uri.path_and_query().cloned();
        *request.uri_mut() = Uri::from(path.unwrap_or_else(|| PathAndQuery::from_static("/")));
        request
    }
}

fn parsed_url(text: &str) -> Result<Uri, String> {
    let allowed = "an absolute URL is needed, like http://host/path?query";
    let uri: Uri = text.parse().map_err(|_| format!("url: {text:?} is refused; {allowed}."))?;
    let is_http = matches!(uri.scheme_str(), Some("http" | "https"));
    let is_plain = uri.authority().is_some_and(|authority| !authority.as_str().contains('@'));
    if is_http && is_plain { Ok(uri) } else { Err(format!("url: {text:?} is refused; {allowed}.")) }
}

fn parsed_header(line: &str) -> Result<(HeaderName, HeaderValue), String> {
    let refused = || format!("header: {line:?} is refused; `Name: value` is needed.");
    let (name, value) = line.split_once(':').ok_or_else(refused)?;
    let name = HeaderName::from_bytes(name.trim().as_bytes()).map_err(|_| refused())?;
    let value = HeaderValue::from_str(value.trim()).map_err(|_| refused())?;
    Ok((name, value))
}

fn said(asked: &Asked, explanation: &Explanation) -> Value {
    let steps: Vec<Value> = explanation
        .steps
        .iter()
        .map(|step| {
            json!({
                "about": step.about,
                "question": step.question,
                "answer": if step.answer { "yes" } else { "no" },
                "section": step.section,
                "detail": step.detail,
            })
        })
        .collect();
    json!({
        "url": asked.uri.to_string(),
        "method": asked.method.as_str(),
        "decision": explanation.decision.name(),
        "cache_status": explanation.cache_status(),
        "asks_origin": explanation.asks_origin,
        "would_be_cached_with": explanation.remedy,
        "steps": steps,
        "text": explanation.to_string(),
    })
}
