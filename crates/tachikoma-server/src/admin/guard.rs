//! Decides who may use the admin listener. Pure: a request head and the rules in, a verdict out.
//!
//! Three dangers, three checks. A web page the operator visits may make the browser call a
//! loopback port under a name of its own (DNS rebinding): the `Host` must be this machine. It may
//! post forms across sites: what a browser marks as cross-site is refused, and only JSON is taken.
//! Others may reach a listener that is not on loopback: they need the token.

use std::collections::HashMap;
use std::hint::black_box;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};

use http::header::{AUTHORIZATION, HOST, HeaderName, ORIGIN};
use http::uri::Authority;
use http::{HeaderMap, Method, StatusCode};
use tachikoma_cache::Time;

use crate::config::Secrets;
use crate::config::values::Secret;

/// Wrong tokens that one address may send within a second.
const TRIES: u32 = 10;

/// Addresses whose wrong tokens are counted at once; more share one count.
const ADDRESSES: usize = 1024;

/// Why a request is not served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) detail: &'static str,
}

const fn refuse(status: StatusCode, detail: &'static str) -> Result<(), Refusal> {
    Err(Refusal { status, detail })
}

/// The rules of one admin listener.
#[derive(Debug)]
pub(super) struct Guard {
    loopback: bool,
    admin: Option<Secret>,
    read: Option<Secret>,
    failures: Mutex<Failures>,
}

#[derive(Debug, Default)]
struct Failures {
    second: u64,
    by_address: HashMap<IpAddr, u32>,
}

impl Guard {
    pub(super) fn new(address: IpAddr, secrets: &Secrets) -> Self {
        Self {
            loopback: address.is_loopback(),
            admin: secrets.admin.clone(),
            read: secrets.admin_read.clone(),
            failures: Mutex::default(),
        }
    }

    /// Whether the request may be served. `named`: the host in its target, which stands above the
    /// `Host` (RFC 9112 §3.2.2). `probe`: it asks for nothing but whether we live.
    pub(super) fn admit(
        &self,
        method: &Method,
        named: Option<&Authority>,
        headers: &HeaderMap,
        probe: bool,
        peer: IpAddr,
        now: Time,
    ) -> Result<(), Refusal> {
        let host = if headers.contains_key(HOST) {
            one(headers, &HOST).and_then(|host| Authority::try_from(host).ok())
        } else {
            // HTTP/2 has `:authority` in its place (RFC 9113 §8.3.1).
            named.cloned()
        };
        let is_purge = method.as_str() == "PURGE";
        let is_named = named.is_none_or(|named| is_this_machine(named.host())) || is_purge;
        // On another address the token is what protects, and names in front of it are usual.
        // And PURGE names the site in it; no page can send that with a token that it does not know.
        let names_a_site = is_purge && self.admin.is_some();
        let is_own = host.as_ref().is_some_and(|host| is_this_machine(host.host()));
        if self.loopback && !(is_named && (is_own || names_a_site)) {
            return refuse(
                StatusCode::MISDIRECTED_REQUEST,
                "Host must be localhost or an address.",
            );
        }
        if cross_site(headers, host.as_ref()) {
            return refuse(StatusCode::FORBIDDEN, "Requests from other sites are not served.");
        }
        if probe {
            return Ok(());
        }
        self.token(method, headers, peer, now)
    }

    fn token(
        &self,
        method: &Method,
        headers: &HeaderMap,
        peer: IpAddr,
        now: Time,
    ) -> Result<(), Refusal> {
        let Some(admin) = &self.admin else {
            return Ok(());
        };
        if self.failed(peer, now, 0) >= TRIES {
            return refuse(StatusCode::TOO_MANY_REQUESTS, "Too many wrong tokens; wait a second.");
        }
        let sent = one(headers, &AUTHORIZATION).and_then(|value| value.strip_prefix("Bearer "));
        let sent = sent.unwrap_or_default().as_bytes();
        // Both are compared whatever the first says, so that time tells nothing.
        let is_admin = equal(sent, admin.reveal().as_bytes());
        let is_read = self.read.as_ref().is_some_and(|read| equal(sent, read.reveal().as_bytes()));
        match (is_admin, is_read) {
            (true, _) => Ok(()),
            (_, true) if method.is_safe() => Ok(()),
            (_, true) => refuse(StatusCode::FORBIDDEN, "This token may only read."),
            _ => {
                self.failed(peer, now, 1);
                refuse(StatusCode::UNAUTHORIZED, "A token is needed: Authorization: Bearer TOKEN.")
            }
        }
    }

    /// Adds to the wrong tokens of an address in this second, and returns how many there are.
    fn failed(&self, peer: IpAddr, now: Time, more: u32) -> u32 {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let second = now.as_millis() / 1000;
        if failures.second != second {
            *failures = Failures { second, by_address: HashMap::new() };
        }
        let known = failures.by_address.contains_key(&peer);
        let full = !known && failures.by_address.len() >= ADDRESSES;
        let peer = if full { IpAddr::V6(Ipv6Addr::UNSPECIFIED) } else { peer };
        if more == 0 {
            return failures.by_address.get(&peer).copied().unwrap_or(0);
        }
        let count = failures.by_address.entry(peer).or_insert(0);
        *count = count.saturating_add(more);
        *count
    }
}

/// The one value of a field that must not be repeated.
fn one<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => value.to_str().ok(),
        _ => None,
    }
}

/// Whether a `Host` names this machine, not a site.
pub(super) fn is_own(host: &str) -> bool {
    Authority::try_from(host).is_ok_and(|host| is_this_machine(host.host()))
}

/// A rebound name is a name: an address cannot be rebound, and `localhost` never leaves the
/// machine.
fn is_this_machine(host: &str) -> bool {
    let literal = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    host.eq_ignore_ascii_case("localhost") || literal.parse::<IpAddr>().is_ok()
}

fn cross_site(headers: &HeaderMap, host: Option<&Authority>) -> bool {
    let mut sites = headers.get_all("sec-fetch-site").iter();
    if sites.any(|site| site != "same-origin" && site != "none") {
        return true;
    }
    let own = host.map(|host| format!("http://{host}"));
    let mut origins = headers.get_all(ORIGIN).iter();
    origins.any(|origin| Some(origin.as_bytes()) != own.as_deref().map(str::as_bytes))
}

/// Compares without stopping at the first difference; only the length of `sent` shows in the time.
fn equal(sent: &[u8], secret: &[u8]) -> bool {
    let mut difference = u8::from(sent.len() != secret.len());
    for (index, byte) in sent.iter().enumerate() {
        // A secret is never empty; past its end the comparison goes on with its beginning.
        difference |= black_box(byte ^ secret[index % secret.len()]);
    }
    black_box(difference) == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use std::net::Ipv4Addr;

    const ADMIN: &str = "admin-token-0123456789";
    const READ: &str = "read-token-0123456789";

    fn guard(address: &str, with_token: bool) -> Guard {
        let secret = |text| with_token.then(|| Secret::new(text).expect("long enough"));
        let secrets = Secrets { admin: secret(ADMIN), admin_read: secret(READ) };
        Guard::new(address.parse().expect("an address"), &secrets)
    }

    fn admit(guard: &Guard, method: &Method, lines: &[(&str, &str)], at: u64) -> u16 {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(
                HeaderName::from_bytes(name.as_bytes()).expect("a name"),
                HeaderValue::from_str(value).expect("a value"),
            );
        }
        let peer = IpAddr::V4(Ipv4Addr::LOCALHOST);
        match guard.admit(method, None, &headers, false, peer, Time::from_millis(at)) {
            Ok(()) => 200,
            Err(refusal) => refusal.status.as_u16(),
        }
    }

    #[track_caller]
    fn check_host(host: &[&str], expected: u16) {
        let lines: Vec<_> = host.iter().map(|host| ("host", *host)).collect();
        let actual = admit(&guard("127.0.0.1", false), &Method::GET, &lines, 0);
        assert_eq!(actual, expected, "{host:?}");
    }

    #[test]
    fn on_loopback_the_host_is_this_machine() {
        for good in ["localhost", "LOCALHOST:9090", "127.0.0.1:9090", "[::1]:9090", "10.0.0.1"] {
            check_host(&[good], 200);
        }
        for bad in ["evil.com", "localhost.evil.com", "127.0.0.1.evil.com", "", "a b", "[x]:1"] {
            check_host(&[bad], 421);
        }
        check_host(&[], 421);
        check_host(&["localhost", "localhost"], 421);
    }

    #[test]
    fn what_a_browser_sends_for_another_site_is_refused() {
        let host = ("host", "localhost:9090");
        for (line, expected) in [
            (("origin", "http://localhost:9090"), 200),
            (("sec-fetch-site", "same-origin"), 200),
            (("sec-fetch-site", "none"), 200),
            (("origin", "https://evil"), 403),
            (("origin", "null"), 403),
            (("origin", "http://localhost:1"), 403),
            (("origin", "https://localhost:9090"), 403),
            (("sec-fetch-site", "cross-site"), 403),
            (("sec-fetch-site", "same-site"), 403),
        ] {
            for method in [Method::GET, Method::POST] {
                let actual = admit(&guard("127.0.0.1", false), &method, &[host, line], 0);
                assert_eq!(actual, expected, "{method} {line:?}");
            }
        }
    }

    #[track_caller]
    fn check_token(method: &Method, authorization: Option<&str>, expected: u16) {
        let mut lines = vec![("host", "cache.example")];
        lines.extend(authorization.map(|value| ("authorization", value)));
        let actual = admit(&guard("0.0.0.0", true), method, &lines, 0);
        assert_eq!(actual, expected, "{method} {authorization:?}");
    }

    #[test]
    fn where_a_token_is_set_only_the_token_opens() {
        check_token(&Method::POST, Some(&format!("Bearer {ADMIN}")), 200);
        check_token(&Method::GET, Some(&format!("Bearer {ADMIN}")), 200);
        for wrong in [
            None,
            Some(""),
            Some("Bearer"),
            Some("Bearer "),
            Some("Bearer wrong-token-0123456789"),
            Some("Basic YWRtaW46YWRtaW4="),
            Some(&format!("bearer {ADMIN}")),
            Some(&format!("Bearer {ADMIN}x")),
            Some(&format!("Bearer {ADMIN}{ADMIN}")),
            Some(&format!("Bearer  {ADMIN}")),
            Some(ADMIN),
        ] {
            check_token(&Method::GET, wrong, 401);
        }
    }

    #[test]
    fn the_read_token_may_only_read() {
        let read = format!("Bearer {READ}");
        check_token(&Method::GET, Some(&read), 200);
        check_token(&Method::HEAD, Some(&read), 200);
        check_token(&Method::POST, Some(&read), 403);
        check_token(&Method::DELETE, Some(&read), 403);
    }

    #[test]
    fn ten_wrong_tokens_in_a_second_close_the_door_until_the_next_one() {
        let guard = guard("127.0.0.1", true);
        let wrong = [("host", "localhost"), ("authorization", "Bearer nope")];
        let right = format!("Bearer {ADMIN}");
        let right = [("host", "localhost"), ("authorization", right.as_str())];
        for _ in 0..10 {
            assert_eq!(admit(&guard, &Method::GET, &wrong, 5_000), 401);
        }
        assert_eq!(admit(&guard, &Method::GET, &wrong, 5_900), 429);
        assert_eq!(admit(&guard, &Method::GET, &right, 5_900), 429);
        assert_eq!(admit(&guard, &Method::GET, &right, 6_000), 200);
    }

    #[test]
    fn equal_compares_every_byte_and_the_length() {
        assert!(equal(b"abc", b"abc"));
        for wrong in [&b""[..], b"ab", b"abd", b"xbc", b"abcabc", b"abca"] {
            assert!(!equal(wrong, b"abc"), "{wrong:?}");
        }
    }
}
