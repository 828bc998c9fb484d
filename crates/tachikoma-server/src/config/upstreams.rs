//! The `[[upstreams]]` of a file: which origin server answers for which hosts and paths.
//!
//! Says only what was written and what holds with the defaults of `[proxy]`; whether several of
//! them fit together is decided in `check`, who gets a request in `proxy::routes`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::sections::Proxy;
use super::text::{Refused, as_text};
use super::units::Span;
use super::values::Upstream;

/// One origin server, as a file describes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpstreamSettings {
    /// What logs and errors call it.
    pub name: String,
    /// Where it is.
    pub url: Upstream,
    /// The hosts it answers for. Default: all that no other upstream names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<HostPattern>,
    /// Where the paths begin that it answers for, in whole segments. Default: `/`, all.
    #[serde(default)]
    pub path_prefix: PathPrefix,
    /// Until it takes a connection. Default: that of `[proxy]`, as with the others below.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connect_timeout: Option<Span>,
    /// Until the head of its response is in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub head_timeout: Option<Span>,
    /// Between two pieces of its response body.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body_timeout: Option<Span>,
    /// Exchanges with it at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_concurrent: Option<u32>,
    /// Requests that wait while it has its most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_waiting: Option<u32>,
    /// How long one of them waits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wait_timeout: Option<Span>,
}

impl UpstreamSettings {
    /// What holds for it: what it says itself, else what `[proxy]` says.
    pub(super) fn terms(&self, proxy: &Proxy) -> Proxy {
        Proxy {
            connect_timeout: self.connect_timeout.unwrap_or(proxy.connect_timeout),
            head_timeout: self.head_timeout.unwrap_or(proxy.head_timeout),
            body_timeout: self.body_timeout.unwrap_or(proxy.body_timeout),
            max_concurrent: self.max_concurrent.unwrap_or(proxy.max_concurrent),
            max_waiting: self.max_waiting.unwrap_or(proxy.max_waiting),
            wait_timeout: self.wait_timeout.unwrap_or(proxy.wait_timeout),
        }
    }
}

/// One origin server and all that holds for it.
#[derive(Debug, Clone)]
pub struct Origin {
    /// What logs and errors call it.
    pub name: String,
    /// Where it is.
    pub url: Upstream,
    /// The hosts it answers for; none means all that no other names.
    pub hosts: Vec<HostPattern>,
    /// Where its paths begin.
    pub path_prefix: PathPrefix,
    /// Waits and bounds.
    pub terms: Proxy,
}

/// The origin servers: the one of `upstream`, and those of `[[upstreams]]`.
pub(super) fn origins(
    upstream: Option<&Upstream>,
    upstreams: &[UpstreamSettings],
    proxy: &Proxy,
) -> Vec<Origin> {
    let one = upstream.into_iter().map(|url| Origin {
        name: "upstream".to_owned(),
        url: url.clone(),
        hosts: Vec::new(),
        path_prefix: PathPrefix::default(),
        terms: *proxy,
    });
    let several = upstreams.iter().map(|said| Origin {
        name: said.name.clone(),
        url: said.url.clone(),
        hosts: said.hosts.clone(),
        path_prefix: said.path_prefix.clone(),
        terms: said.terms(proxy),
    });
    one.chain(several).collect()
}

/// A host, or with `*.` all hosts below a domain. Lower case, without a port.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostPattern(String);

impl HostPattern {
    /// The domain of `*.domain`.
    pub fn domain(&self) -> Option<&str> {
        self.0.strip_prefix("*.")
    }

    /// It as it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for HostPattern {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        let name = text.strip_prefix("*.").unwrap_or(text);
        let is_address = name
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
            .is_some_and(|inside| inside.parse::<std::net::Ipv6Addr>().is_ok());
        let is_name = !name.is_empty()
            && name.len() <= 253
            && name.split('.').all(|label| !label.is_empty() && label.len() <= 63)
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
        if is_name || (is_address && name.len() == text.len()) {
            Ok(Self(text.to_ascii_lowercase()))
        } else {
            Err(Refused(
                "a host is a name without scheme, port and path, like shop.test, or *.shop.test \
                 for all below it"
                    .to_owned(),
            ))
        }
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where paths begin: `/`, or whole segments like `/api/v1`. It is compared byte for byte, with
/// nothing decoded.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct PathPrefix(String);

impl PathPrefix {
    /// It without a slash at its end: empty for `/`.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for PathPrefix {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        let inside = text.strip_suffix('/').unwrap_or(text);
        let is_path = text.starts_with('/')
            && text.bytes().all(|b| b.is_ascii_graphic() && !b"?#\"<>\\^`{|}".contains(&b))
            && inside.split('/').skip(1).all(|part| !["", ".", ".."].contains(&part));
        if is_path {
            Ok(Self(inside.to_owned()))
        } else {
            Err(Refused(
                "a path prefix is `/` or whole segments, like /api/v1; no query, no `..`"
                    .to_owned(),
            ))
        }
    }
}

impl fmt::Display for PathPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "/" } else { &self.0 })
    }
}

as_text!(HostPattern, PathPrefix);

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check<T: FromStr<Err = Refused> + fmt::Display>(text: &str, expected: Option<&str>) {
        let actual = text.parse::<T>().ok().map(|value| value.to_string());
        assert_eq!(actual.as_deref(), expected, "{text:?}");
    }

    #[test]
    fn a_host_is_a_name_or_all_names_below_one() {
        check::<HostPattern>("Shop.Test", Some("shop.test"));
        check::<HostPattern>("*.shop.test", Some("*.shop.test"));
        check::<HostPattern>("127.0.0.1", Some("127.0.0.1"));
        check::<HostPattern>("[::1]", Some("[::1]"));
        let bad = ["", "*", "*.", "a..b", ".a", "a.", "a:80", "http://a", "a/b", "a.*", "*.[::1]"];
        for bad in bad.into_iter().chain(["[::g]", "a b", "ä.test", "**.a"]) {
            check::<HostPattern>(bad, None);
        }
    }

    #[test]
    fn a_path_prefix_is_whole_segments() {
        check::<PathPrefix>("/", Some("/"));
        check::<PathPrefix>("/api", Some("/api"));
        check::<PathPrefix>("/api/v1/", Some("/api/v1"));
        check::<PathPrefix>("/a%20b", Some("/a%20b"));
        for bad in ["", "api", "//", "/a//b", "/a/../b", "/.", "/a?b", "/a#b", "/a b", "http://a/"]
        {
            check::<PathPrefix>(bad, None);
        }
    }
}
