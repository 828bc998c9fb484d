//! Decides whom a request is for, and refuses the requests about which two servers could disagree.
//!
//! Whatever form the target came in, what goes on has the origin form (path and query, byte for
//! byte as sent) and exactly one `Host`: the cache key and what the origin sees are made of the
//! same bytes. The rules are RFC 9112 §3.2 and RFC 9110 §7.2; each choice stands beside the code.

use http::header::{HOST, HeaderName};
use http::uri::{Authority, Parts, PathAndQuery, Scheme};
use http::{HeaderValue, Method, Request, StatusCode, Uri, Version};
use http_body::Body;

use crate::config::Limits;

/// Why a request is not served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    pub(crate) detail: &'static str,
}

const fn refuse(status: StatusCode, detail: &'static str) -> Refusal {
    Refusal { status, detail }
}

/// Methods that no caller of the public listener may use.
///
/// `CONNECT` would make this an open proxy, `TRACE` shows a client's own credentials to scripts,
/// and `PURGE` and `BAN` empty caches: that is what the admin listener is for.
const REFUSED_METHODS: [&str; 6] = ["CONNECT", "TRACE", "TRACK", "PURGE", "BAN", "REFRESH"];

/// What a 405 says is allowed.
pub(crate) const ALLOWED_METHODS: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";

/// Refuses a request that is larger than is allowed.
///
/// The lines are bounded so that this server takes nothing that an origin behind it would refuse:
/// such a refusal looks like an answer about the resource.
pub(crate) fn bounded<B: Body>(request: &Request<B>, limits: &Limits) -> Result<(), Refusal> {
    let line = usize::try_from(limits.line_bytes.0).unwrap_or(usize::MAX);
    let target = request.uri().path_and_query().map_or(0, |target| target.as_str().len());
    if target > line {
        let detail = "The target is longer than is allowed here.";
        return Err(refuse(StatusCode::URI_TOO_LONG, detail));
    }
    let fields = request.headers();
    let long =
        |(name, value): (&HeaderName, &HeaderValue)| name.as_str().len() + value.len() > line;
    if fields.len() > usize::from(limits.head_fields) || fields.iter().any(long) {
        let detail = "The head has more or longer fields than are allowed here.";
        return Err(refuse(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, detail));
    }
    if request.body().size_hint().lower() > limits.body_bytes.0 {
        let detail = "The request body is larger than is allowed here.";
        return Err(refuse(StatusCode::PAYLOAD_TOO_LARGE, detail));
    }
    Ok(())
}

/// Puts the target into origin form and leaves exactly one valid `Host`.
///
/// `own` is the `Host` of an HTTP/1.0 request that names none. Over TLS (`secure`) the target gets
/// the absolute form, because its scheme is another.
pub(crate) fn normalise<B>(
    request: &mut Request<B>,
    own: &HeaderValue,
    secure: bool,
) -> Result<(), Refusal> {
    if REFUSED_METHODS.contains(&request.method().as_str()) {
        return Err(refuse(StatusCode::METHOD_NOT_ALLOWED, "this method is not served here"));
    }
    let is_http2 = request.version() == Version::HTTP_2;
    let own_scheme = if secure { "https" } else { "http" };
    let host = host(request)?;
    let target = request.uri();
    let path = match target.path_and_query() {
        Some(path) if path.as_str() == "*" && request.method() != Method::OPTIONS => {
            return Err(refuse(StatusCode::BAD_REQUEST, "`*` is a target of OPTIONS only"));
        }
        Some(path) => path.as_str(),
        None => "/",
    };
    let named = match (target.scheme_str(), target.authority()) {
        (None, None) => None,
        // What `:scheme` says is not asked: what is forwarded says how the request really came.
        (Some(scheme), Some(authority))
            if scheme == own_scheme || (is_http2 && ["http", "https"].contains(&scheme)) =>
        {
            Some(checked(authority.as_str().as_bytes())?)
        }
        (Some(_), _) => {
            return Err(refuse(
                StatusCode::BAD_REQUEST,
                "targets of this scheme are not served here",
            ));
        }
        (None, Some(_)) => {
            return Err(refuse(StatusCode::BAD_REQUEST, "the target must begin with `/`"));
        }
    };
    // RFC 9112 §3.2.2 would let the target win over `Host`. Two names in one request are an attack
    // or a mistake, so they must agree.
    if let (Some(named), Some(host)) = (&named, &host)
        && !same_authority(named, host, secure)
    {
        return Err(refuse(StatusCode::BAD_REQUEST, "the target and Host name different servers"));
    }
    // `http://host?query` has an empty path, which is `/` (RFC 9110 §4.2.3).
    let origin_form = if path.starts_with('/') || path == "*" {
        PathAndQuery::try_from(path)
    } else {
        PathAndQuery::try_from(format!("/{path}"))
    };
    let origin_form =
        origin_form.map_err(|_| refuse(StatusCode::BAD_REQUEST, "the target is not valid"))?;
    let missing = request.headers().get(HOST).is_none();
    if missing {
        let value = match named {
            Some(named) => HeaderValue::from_str(named.as_str())
                .map_err(|_| refuse(StatusCode::BAD_REQUEST, "the target is not valid"))?,
            None => own.clone(),
        };
        request.headers_mut().insert(HOST, value);
    }
    *request.uri_mut() = Uri::from(origin_form);
    set_scheme(request, secure)
}

/// Puts the target of a request that has its `Host` into the form for its scheme: the absolute one
/// over TLS. What is forwarded says which scheme it is, so it is part of what is asked for.
pub(super) fn set_scheme<B>(request: &mut Request<B>, secure: bool) -> Result<(), Refusal> {
    let mut uri = Parts::default();
    uri.path_and_query = request.uri().path_and_query().cloned();
    if secure && uri.path_and_query.as_ref().is_some_and(|path| path.as_str() != "*") {
        uri.scheme = Some(Scheme::HTTPS);
        uri.authority = request.headers().get(HOST).and_then(|host| checked(host.as_bytes()).ok());
    }
    *request.uri_mut() = Uri::from_parts(uri)
        .map_err(|_| refuse(StatusCode::BAD_REQUEST, "the target is not valid"))?;
    Ok(())
}

/// The one `Host` of a request; none is right in HTTP/1.0 only (RFC 9112 §3.2).
fn host<B>(request: &Request<B>) -> Result<Option<Authority>, Refusal> {
    let mut hosts = request.headers().get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(_), Some(_)) => Err(refuse(StatusCode::BAD_REQUEST, "Host is there more than once")),
        (Some(host), None) => checked(host.as_bytes()).map(Some),
        (None, _) if request.version() < Version::HTTP_11 => Ok(None),
        // HTTP/2 has `:authority` in its place (RFC 9113 §8.3.1).
        (None, _) if request.version() == Version::HTTP_2 && request.uri().host().is_some() => {
            Ok(None)
        }
        (None, _) => Err(refuse(StatusCode::BAD_REQUEST, "Host is missing")),
    }
}

/// An authority that is a name and a port.
pub(super) fn checked(authority: &[u8]) -> Result<Authority, Refusal> {
    let wrong = refuse(StatusCode::BAD_REQUEST, "Host is not a name and a port");
    let authority = Authority::try_from(authority).map_err(|_| wrong)?;
    let port = &authority.as_str()[authority.host().len().min(authority.as_str().len())..];
    let good = !authority.host().is_empty()
        // A comma is a letter of a name by the grammar; in truth it joins two `Host` lines.
        && !authority.as_str().contains(['@', ','])
        && (port.is_empty() || authority.port_u16().is_some());
    if good { Ok(authority) } else { Err(wrong) }
}

/// Names are equal whatever their case, and without a port the scheme's own is meant.
fn same_authority(a: &Authority, b: &Authority, secure: bool) -> bool {
    let own = if secure { 443 } else { 80 };
    a.host().eq_ignore_ascii_case(b.host())
        && a.port_u16().unwrap_or(own) == b.port_u16().unwrap_or(own)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(method: &str, target: &str, hosts: &[&str], version: Version) -> Request<()> {
        let mut request = Request::builder().method(method).uri(target).version(version);
        for host in hosts {
            request = request.header(HOST, *host);
        }
        request.body(()).expect("a request")
    }

    /// Expects `Ok((target, host))` or `Err(status)`.
    #[track_caller]
    fn check(method: &str, target: &str, hosts: &[&str], expected: Result<(&str, &str), u16>) {
        check_version(method, target, hosts, Version::HTTP_11, expected);
    }

    #[track_caller]
    fn check_version(
        method: &str,
        target: &str,
        hosts: &[&str],
        version: Version,
        expected: Result<(&str, &str), u16>,
    ) {
        let mut request = request(method, target, hosts, version);
        let own = HeaderValue::from_static("own:8080");
        let actual =
            normalise(&mut request, &own, false).map_err(|refusal| refusal.status.as_u16());
        let host = || request.headers()[HOST].to_str().expect("text");
        let actual = actual.map(|()| (request.uri().to_string(), host()));
        let actual = actual.as_ref().map(|(uri, host)| (uri.as_str(), *host)).map_err(|s| *s);
        assert_eq!(actual, expected, "{method} {target} {hosts:?}");
    }

    #[test]
    fn the_path_and_query_go_on_as_they_were_sent() {
        for target in
            ["/", "/a?b=1", "//evil/", "/a/../b", "/a%2e%2E;c//d?x?y&&z=%", "/?", "/a.css"]
        {
            check("GET", target, &["a.test"], Ok((target, "a.test")));
        }
    }

    #[test]
    fn an_absolute_target_becomes_its_path_when_host_agrees() {
        check("GET", "http://a.test/x?y", &["a.test"], Ok(("/x?y", "a.test")));
        check("GET", "http://A.test:80/x", &["a.TEST"], Ok(("/x", "a.TEST")));
        check("GET", "http://a.test", &["a.test"], Ok(("/", "a.test")));
        check("GET", "http://a.test?q=1", &["a.test"], Ok(("/?q=1", "a.test")));
        check("GET", "http://b.test/", &["a.test"], Err(400));
        check("GET", "http://a.test:81/", &["a.test"], Err(400));
        check("GET", "http://user@a.test/", &["a.test"], Err(400));
        check("GET", "https://a.test/", &["a.test"], Err(400));
        check("GET", "ftp://a.test/", &["a.test"], Err(400));
        check("GET", "a.test:80", &["a.test"], Err(400));
        check("GET", "http://169.254.169.254/", &["a.test"], Err(400));
    }

    #[test]
    fn host_is_there_once_and_is_a_name_and_a_port() {
        check("GET", "/", &[], Err(400));
        check("GET", "/", &["a.test", "a.test"], Err(400));
        for bad in ["", "a b", "u@a.test", "a.test/x", "a.test:x", "a.test:99999", "a.test,b.test"]
        {
            check("GET", "/", &[bad], Err(400));
        }
        for good in ["a.test:1", "127.0.0.1", "[::1]:80", "localhost"] {
            check("GET", "/", &[good], Ok(("/", good)));
        }
    }

    #[test]
    fn an_http_1_0_request_may_name_no_host() {
        check_version("GET", "/", &[], Version::HTTP_10, Ok(("/", "own:8080")));
        check_version("GET", "http://a.test/", &[], Version::HTTP_10, Ok(("/", "a.test")));
    }

    #[test]
    fn methods_that_tunnel_echo_or_purge_are_refused() {
        for method in ["CONNECT", "TRACE", "PURGE", "BAN"] {
            check(method, "/", &["a.test"], Err(405));
        }
        check("CONNECT", "a.test:443", &["a.test:443"], Err(405));
        check("OPTIONS", "*", &["a.test"], Ok(("*", "a.test")));
        check("GET", "*", &["a.test"], Err(400));
        check("PROPFIND", "/", &["a.test"], Ok(("/", "a.test")));
    }
}
