//! Decides which resource a request is about, and under which key its responses are stored.
//!
//! The rule is "key what you send": the key holds the scheme, the authority, and path and query
//! byte for byte, with nothing decoded, merged or sorted. A request about which two servers could
//! disagree has no key, and passes the cache by.

#[cfg_attr(not(feature = "axum"), path = "key/plain.rs")]
mod nested;

use http::{Extensions, HeaderMap, Uri, header::HOST, uri::Authority};
use xxhash_rust::xxh3::xxh3_128;

pub(crate) use nested::rewrite;

/// Stands for "no `Host`". A real request can never name it: userinfo is refused.
const NO_HOST: &str = "-@-";

/// Longer names are replaced by a hash, and the whole is compared with what is stored. Below the
/// limit of the store, so that a variant's name fits too.
const MAX_NAME: usize = 3_800;

/// A resource: its absolute URL, as a request names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    url: String,
}

impl Target {
    /// The target of a request, or `None` if it names none, or two.
    pub(crate) fn of(uri: &Uri, headers: &HeaderMap, extensions: &Extensions) -> Option<Self> {
        let uri = nested::whole_uri(uri, extensions)?;
        let mut hosts = headers.get_all(HOST).iter();
        let host = hosts.next().map(http::HeaderValue::as_bytes);
        if hosts.next().is_some() {
            return None;
        }
        let authority = match (uri.authority().map(|named| named.as_str().as_bytes()), host) {
            (Some(named), Some(host)) if !named.eq_ignore_ascii_case(host) => return None,
            (Some(authority), _) | (None, Some(authority)) => Some(valid_authority(authority)?),
            (None, None) => None,
        };
        Self::new(uri.scheme_str().unwrap_or("http"), authority, uri)
    }

    /// The target that a URL names. A path alone names what a request without `Host` asks for.
    pub(crate) fn parse(url: &str) -> Option<Self> {
        let uri: Uri = url.parse().ok()?;
        Self::from_uri(&uri)
    }

    /// The target of an absolute URI, or of a path alone.
    pub(crate) fn from_uri(uri: &Uri) -> Option<Self> {
        let authority = match uri.authority() {
            Some(authority) if authority.as_str() == NO_HOST => None,
            Some(authority) => Some(valid_authority(authority.as_str().as_bytes())?),
            None => None,
        };
        Self::new(uri.scheme_str().unwrap_or("http"), authority, uri)
    }

    fn new(scheme: &str, authority: Option<&str>, uri: &Uri) -> Option<Self> {
        let (path, query) = (uri.path(), uri.query());
        if !path.starts_with('/') {
            return None;
        }
        let authority = authority.unwrap_or(NO_HOST);
        let length = scheme.len() + authority.len() + path.len() + query.map_or(0, str::len) + 4;
        let mut url = String::with_capacity(length);
        url.push_str(scheme);
        url.push_str("://");
        url.push_str(authority);
        url.make_ascii_lowercase();
        url.push_str(path);
        if let Some(query) = query {
            url.push('?');
            url.push_str(query);
        }
        Some(Self { url })
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Its host, without the port.
    pub(crate) fn host(&self) -> &str {
        let rest = self.url.split_once("://").map_or("", |(_, rest)| rest);
        let authority = rest.split_once('/').map_or(rest, |(authority, _)| authority);
        match authority.rsplit_once(':') {
            // The last colon of an IPv6 address stands within its brackets.
            Some((host, port)) if !port.ends_with(']') => host,
            _ => authority,
        }
    }

    /// Its path, as it is sent.
    pub(crate) fn path(&self) -> &str {
        let rest = self.url.split_once("://").map_or("", |(_, rest)| rest);
        let target = rest.find('/').and_then(|at| rest.get(at..)).unwrap_or("/");
        target.split_once('?').map_or(target, |(path, _)| path)
    }

    /// It as a URI, to resolve references against.
    pub(crate) fn uri(&self) -> Option<Uri> {
        self.url.parse().ok()
    }

    /// Where its responses are stored.
    pub(crate) fn key(&self) -> Key {
        // Neither a space nor `#` occurs in a URL that was parsed: no two keys are alike.
        if self.url.len() <= MAX_NAME {
            return Key { name: format!("GET {}", self.url), whole: None };
        }
        let hash = xxh3_128(self.url.as_bytes());
        Key { name: format!("GET #{hash:032x}"), whole: Some(self.url.as_str().into()) }
    }
}

/// The primary key of a resource's responses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Key {
    /// Its name in the store.
    pub(crate) name: String,
    /// The whole URL where the name holds only a hash of it.
    pub(crate) whole: Option<Box<str>>,
}

impl Key {
    /// The URL; of a long one only what stands for it, if that is all that is known.
    pub(crate) fn target_url(&self) -> &str {
        let name = || self.name.strip_prefix("GET ").unwrap_or(&self.name);
        self.whole.as_deref().unwrap_or_else(name)
    }

    /// What names the resource among those of this process.
    pub(crate) fn url(&self) -> &str {
        self.whole.as_deref().unwrap_or(&self.name)
    }

    /// The name of one variant.
    pub(crate) fn variant(&self, id: u128) -> String {
        format!("{} #{id:032x}", self.name)
    }

    /// The name of a large body among those in memory.
    pub(crate) fn body(&self, hash: u128) -> String {
        format!("{}{hash:032x}", self.bodies())
    }

    /// How the names of all its large bodies begin.
    pub(crate) fn bodies(&self) -> String {
        format!("{} ", self.name)
    }
}

/// Letters, digits and what RFC 3986 §3.2 allows in a host and a port: no userinfo, no path.
fn valid_authority(bytes: &[u8]) -> Option<&str> {
    let allowed = |b: &u8| b.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=%:[]".contains(b);
    if bytes.is_empty() || !bytes.iter().all(allowed) {
        return None;
    }
    let text = std::str::from_utf8(bytes).ok()?;
    // What is allowed byte by byte is not always an authority (`[`, `a:b:c`), nor one with a host.
    let is_valid = || !text.starts_with(':') && text.parse::<Authority>().is_ok();
    (is_usual(text) || is_valid()).then_some(text)
}

/// A name or an address of four numbers, maybe with a port: nearly all are, and need no parser.
fn is_usual(authority: &str) -> bool {
    let (host, port) = authority.split_once(':').unwrap_or((authority, "80"));
    let is_host = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'.';
    let is_port = !port.is_empty() && port.len() <= 5 && port.bytes().all(|b| b.is_ascii_digit());
    is_port && !host.is_empty() && host.bytes().all(is_host)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn of(uri: &str, hosts: &[&str]) -> Option<String> {
        let mut headers = HeaderMap::new();
        for host in hosts {
            headers.append(HOST, HeaderValue::from_bytes(host.as_bytes()).unwrap());
        }
        Target::of(&uri.parse().unwrap(), &headers, &Extensions::new()).map(|target| target.url)
    }

    #[track_caller]
    fn check(uri: &str, host: &str, expected: Option<&str>) {
        assert_eq!(of(uri, &[host]).as_deref(), expected, "{uri:?} {host:?}");
    }

    #[test]
    fn the_key_is_what_is_sent_byte_for_byte() {
        check("/a/b?x=1&y=2", "shop.test", Some("http://shop.test/a/b?x=1&y=2"));
        check("/a//b/../c", "shop.test", Some("http://shop.test/a//b/../c"));
        check("/%41%2f", "shop.test", Some("http://shop.test/%41%2f"));
        check("/a?", "shop.test", Some("http://shop.test/a?"));
        check("/a?cb=a&cb=evil", "shop.test", Some("http://shop.test/a?cb=a&cb=evil"));
        check("/a;x|y:z", "shop.test", Some("http://shop.test/a;x|y:z"));
        check("/A", "SHOP.test", Some("http://shop.test/A"));
        check("/", "shop.test:1337", Some("http://shop.test:1337/"));
        check("/", "shop.test:80", Some("http://shop.test:80/"));
        check("/", "[::1]:80", Some("http://[::1]:80/"));
    }

    #[test]
    fn an_absolute_target_must_agree_with_host() {
        check("http://a.test/x", "a.test", Some("http://a.test/x"));
        check("http://a.test/x", "A.TEST", Some("http://a.test/x"));
        check("https://a.test/x", "a.test", Some("https://a.test/x"));
        check("http://a.test?q", "a.test", Some("http://a.test/?q"));
        check("http://a.test/x", "b.test", None);
        assert_eq!(of("http://a.test/x", &[]).as_deref(), Some("http://a.test/x"));
    }

    #[test]
    fn a_host_that_could_mean_two_things_has_no_key() {
        for host in [
            "",
            "a.test/b",
            "a|/b",
            "u@a.test",
            "a b",
            "a\u{e9}.test",
            "a?b",
            "a#b",
            "-@-",
            "[",
            "a]",
            "a:b:c",
            "a%41.test",
            ":80",
            ":",
        ] {
            check("/", host, None);
        }
        assert_eq!(of("/", &["a.test", "a.test"]), None);
        check("*", "a.test", None);
    }

    #[test]
    fn a_fragment_is_neither_keyed_nor_forwarded() {
        check("/account#x.css", "a.test", Some("http://a.test/account"));
    }

    #[test]
    fn a_request_without_host_is_apart_from_every_host() {
        assert_eq!(of("/x", &[]).as_deref(), Some("http://-@-/x"));
        assert_eq!(
            Target::parse("/x"),
            Target::of(&"/x".parse().unwrap(), &HeaderMap::new(), &Extensions::new())
        );
    }

    #[test]
    fn a_target_knows_its_host_and_path() {
        for (url, host, path) in [
            ("http://a.test/x/y?z=/", "a.test", "/x/y"),
            ("http://a.test:8080/", "a.test", "/"),
            ("http://[::1]:80/x:1", "[::1]", "/x:1"),
            ("http://[::1]/", "[::1]", "/"),
            ("/x", NO_HOST, "/x"),
        ] {
            let target = Target::parse(url).unwrap();
            assert_eq!((target.host(), target.path()), (host, path), "{url}");
        }
    }

    #[test]
    fn a_url_names_the_target_of_its_request() {
        let target = Target::parse("http://Shop.test/a?b").unwrap();
        assert_eq!(Some(target.url.clone()), of("/a?b", &["shop.test"]));
        assert_eq!(Target::from_uri(&target.uri().unwrap()), Some(target));
        assert_eq!(Target::parse("not a url"), None);
    }

    #[test]
    fn a_long_target_is_hashed_and_kept_whole() {
        let long = format!("http://a.test/{}", "x".repeat(5_000));
        let key = Target::parse(&long).unwrap().key();
        assert!(key.name.len() < 50, "{}", key.name);
        assert_eq!(key.whole.as_deref(), Some(long.as_str()));
        assert_eq!(Target::parse("http://a.test/x").unwrap().key().whole, None);
    }

    proptest! {
        #[test]
        fn different_targets_have_different_keys(
            a in "/[a-z/?&=%|:;.]{0,8}", b in "/[a-z/?&=%|:;.]{0,8}",
            host_a in "[a-c.1]{1,3}(:[1-9]{1,2})?", host_b in "[a-c.1]{1,3}(:[1-9]{1,2})?",
        ) {
            let key = |path: &str, host: &str| {
                let mut headers = HeaderMap::new();
                headers.insert(HOST, HeaderValue::from_str(host).unwrap());
                let uri: Uri = path.parse().unwrap();
                Target::of(&uri, &headers, &Extensions::new()).map(|target| target.key().name)
            };
            prop_assert_eq!(key(&a, &host_a) == key(&b, &host_b), a == b && host_a == host_b);
        }
    }
}
