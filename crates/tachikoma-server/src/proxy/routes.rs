//! Decides which upstream a request is for, by its host and the beginning of its path.
//!
//! Pure. The host is compared without its port, whatever its case; the path byte for byte, so that
//! what is compared is what is forwarded. The nearer host goes first (its name, then the longest
//! `*.` domain, then those who answer for all), and among those of one host the longest prefix.

use crate::config::upstreams::{HostPattern, PathPrefix};

/// Why a request is for nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Nobody {
    /// Nobody answers for this host (421, RFC 9110 §15.5.20).
    Host,
    /// Somebody answers for this host, but not for this path (404).
    Path,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Hosts {
    Exactly(String),
    Below(String),
    All,
}

#[derive(Debug)]
struct Entry<T> {
    hosts: Hosts,
    prefix: PathPrefix,
    to: T,
}

/// Who answers for which hosts and paths.
#[derive(Debug)]
pub(crate) struct Routes<T>(Vec<Entry<T>>);

impl<T: Clone> Routes<T> {
    pub(crate) fn new(
        origins: impl IntoIterator<Item = (Vec<HostPattern>, PathPrefix, T)>,
    ) -> Self {
        let mut entries = Vec::new();
        for (patterns, prefix, to) in origins {
            let named = patterns.iter().map(|pattern| match pattern.domain() {
                Some(domain) => Hosts::Below(domain.to_owned()),
                None => Hosts::Exactly(pattern.as_str().to_owned()),
            });
            let all = patterns.is_empty().then_some(Hosts::All);
            let hosts: Vec<_> = named.chain(all).collect();
            let entry = |hosts| Entry { hosts, prefix: prefix.clone(), to: to.clone() };
            entries.extend(hosts.into_iter().map(entry));
        }
        // In the order in which they are asked.
        entries.sort_by(|a, b| {
            let depth = |hosts: &Hosts| match hosts {
                Hosts::Exactly(_) => (0, 0),
                Hosts::Below(domain) => (1, usize::MAX - domain.len()),
                Hosts::All => (2, 0),
            };
            let length = |entry: &Entry<T>| usize::MAX - entry.prefix.as_str().len();
            (depth(&a.hosts), length(a)).cmp(&(depth(&b.hosts), length(b)))
        });
        Self(entries)
    }
}

impl<T> Routes<T> {
    /// Who answers for `path` of `host`, a valid `Host` with or without a port.
    pub(crate) fn find(&self, host: &str, path: &str) -> Result<&T, Nobody> {
        let host = name(host);
        let mut known = false;
        for entry in &self.0 {
            if !entry.hosts.has(host) {
                continue;
            }
            known = true;
            let rest = path.strip_prefix(entry.prefix.as_str());
            if rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/')) {
                return Ok(&entry.to);
            }
        }
        Err(if known { Nobody::Path } else { Nobody::Host })
    }
}

impl Hosts {
    fn has(&self, host: &str) -> bool {
        match self {
            Self::Exactly(name) => name.eq_ignore_ascii_case(host),
            Self::Below(domain) => {
                let at = host.len().checked_sub(domain.len());
                at.is_some_and(|at| {
                    at > 1
                        && host.is_char_boundary(at)
                        && host[at..].eq_ignore_ascii_case(domain)
                        && host.as_bytes()[at - 1] == b'.'
                })
            }
            Self::All => true,
        }
    }
}

/// The name in a `Host`: without the port, and without the dot that a full name may end with.
fn name(host: &str) -> &str {
    let name = match host.rfind(']') {
        Some(end) => &host[..=end],
        None => host.split(':').next().unwrap_or_default(),
    };
    name.strip_suffix('.').unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routes() -> Routes<&'static str> {
        let row = |hosts: &[&str], prefix: &str, to| {
            let hosts = hosts.iter().map(|host| host.parse().expect("a host")).collect();
            (hosts, prefix.parse().expect("a prefix"), to)
        };
        Routes::new([
            row(&["*.test"], "/", "below"),
            row(&["a.test", "b.test"], "/", "root"),
            row(&["a.test"], "/api", "api"),
            row(&["a.test"], "/api/v1", "v1"),
            row(&["*.deep.test"], "/", "deep"),
            row(&["c.test"], "/only", "only"),
            row(&["[::1]"], "/", "six"),
        ])
    }

    #[track_caller]
    fn check(host: &str, path: &str, expected: Result<&str, Nobody>) {
        assert_eq!(routes().find(host, path).copied(), expected, "{host} {path}");
    }

    #[test]
    fn the_longest_prefix_of_the_host_wins() {
        check("a.test", "/", Ok("root"));
        check("a.test", "/api", Ok("api"));
        check("a.test", "/api/", Ok("api"));
        check("a.test", "/api/v1/x", Ok("v1"));
        check("a.test", "/apis", Ok("root"));
        check("a.test", "/api%2Fv1", Ok("root"));
        check("a.test", "/%61pi", Ok("root"));
        check("a.test", "//api", Ok("root"));
        check("b.test", "/api", Ok("root"));
    }

    #[test]
    fn a_host_is_compared_without_port_case_and_last_dot() {
        for host in ["A.Test", "a.test:81", "a.test.", "a.test.:81"] {
            check(host, "/", Ok("root"));
        }
        check("[::1]:80", "/", Ok("six"));
        check("[::2]", "/", Err(Nobody::Host));
    }

    #[test]
    fn the_nearer_host_goes_first() {
        check("x.deep.test", "/", Ok("deep"));
        check("deep.test", "/", Ok("below"));
        check("x.test", "/", Ok("below"));
        check("test", "/", Err(Nobody::Host));
        check(".test", "/", Err(Nobody::Host));
        check("evil-deep.test", "/", Ok("below"));
        check("c.test", "/only/x", Ok("only"));
        check("c.test", "/other", Ok("below"));
    }

    #[test]
    fn who_is_not_named_is_nobody_unless_somebody_answers_for_all() {
        check("evil", "/", Err(Nobody::Host));
        let one = Routes::new([(vec!["a.test".parse().expect("a host")], prefix("/x"), 1)]);
        assert_eq!(one.find("a.test", "/"), Err(Nobody::Path));
        let all = Routes::new([(Vec::new(), prefix("/"), 1)]);
        assert_eq!(all.find("anything:1", "/x"), Ok(&1));
    }

    fn prefix(text: &str) -> PathPrefix {
        text.parse().expect("a prefix")
    }
}
