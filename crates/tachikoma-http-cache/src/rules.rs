//! What an operator may say about some of the URLs: rules, by host and path.
//!
//! Decides which rules are about a request and what holds for it then. Every rule that matches
//! holds, in the order they were given: a later one overrules what an earlier one says, and adds
//! to its lists. Never looks at a response.

mod query;
#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    error::Error as StdError,
    fmt,
    ops::{Deref, DerefMut},
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use http::{
    HeaderMap, HeaderName,
    header::{AUTHORIZATION, COOKIE},
};
use tachikoma_cache::{
    glob::Glob,
    invalidation::{MAX_TAG_BYTES, MAX_TAGS},
};

use crate::policy::Options;

pub(crate) use query::without;

/// At most this many rules.
const MAX_RULES: usize = 64;

/// A rule about the requests for some hosts and paths.
///
/// ```
/// # use std::time::Duration;
/// # use tachikoma_http_cache::Rule;
/// # fn main() -> Result<(), tachikoma_http_cache::RuleError> {
/// let pages = Rule::path("/news/*")?.ttl(Duration::from_secs(30)).ignore_query(["utm_*"])?;
/// let images = Rule::path("*.png")?.ttl(Duration::from_secs(86_400));
/// let cart = Rule::path("/cart*")?.host("shop.test")?.bypass();
/// # let _ = (pages, images, cart);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Rule {
    path: Glob,
    host: Option<String>,
    /// The kinds of content that a file name at the pattern's end promises.
    content_types: &'static [&'static str],
    changes: Changes,
}

#[derive(Debug, Clone, Default)]
struct Changes {
    ttl: Option<Duration>,
    bypass: bool,
    ignore_cookies: bool,
    ignore_request_directives: bool,
    force_store: bool,
    key_headers: Vec<HeaderName>,
    ignore_query: Vec<Glob>,
    tags: Vec<String>,
}

impl Rule {
    /// A rule about the paths that match a glob pattern, byte for byte as they are sent: `*` stands
    /// for any bytes, `/` included, `?` for one, `[a-c]` for one of several.
    ///
    /// A pattern that ends with a file name extension (`*.css`) is only about requests without
    /// `Cookie` and `Authorization`, and stores only responses whose `Content-Type` fits it: else
    /// `/account/x.css` would make an account a style sheet.
    ///
    /// # Errors
    ///
    /// The pattern begins neither with `/` nor with `*`, so that it would match nothing, or is over
    /// 4,096 bytes.
    pub fn path(pattern: &str) -> Result<Self, RuleError> {
        if !pattern.starts_with(['/', '*', '?', '[']) {
            return Err(RuleError::new("path", pattern, "a pattern that begins with `/` or `*`"));
        }
        let allowed = "a pattern of at most 4,096 bytes";
        let path = Glob::new(pattern).map_err(|_| RuleError::new("path", pattern, allowed))?;
        let content_types = promised_types(pattern);
        Ok(Self { path, host: None, content_types, changes: Changes::default() })
    }

    /// A rule about the paths that begin with this text, byte for byte.
    ///
    /// # Errors
    ///
    /// The text does not begin with `/`, or is over 2,000 bytes.
    pub fn prefix(prefix: &str) -> Result<Self, RuleError> {
        if !prefix.starts_with('/') || prefix.len() > 2_000 {
            let allowed = "the beginning of a path, like `/static/`, of at most 2,000 bytes";
            return Err(RuleError::new("prefix", prefix, allowed));
        }
        let mut rule = Self::path(&format!("{}*", escaped(prefix)))?;
        rule.content_types = &[];
        Ok(rule)
    }

    /// Only for this host, without a port, or with `*.` for all below it. Default: all.
    ///
    /// # Errors
    ///
    /// It is no name of a host.
    pub fn host(mut self, host: &str) -> Result<Self, RuleError> {
        let name = host.strip_prefix("*.").unwrap_or(host);
        let is_name = !name.is_empty()
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.[]:".contains(&b))
            && (!name.contains(':') || name.starts_with('['));
        if !is_name {
            let allowed = "a name without scheme, port and path, like shop.test or *.shop.test";
            return Err(RuleError::new("host", host, allowed));
        }
        self.host = Some(host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase());
        Ok(self)
    }

    /// How long its responses are fresh from when they come, whatever lifetime they state. Errors
    /// and what may not be stored at all (`no-store`, `private`, …) are left as they are, and what
    /// says `no-cache` is validated for each request all the same.
    #[must_use]
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.changes.ttl = Some(ttl);
        self
    }

    /// The cache takes no part in its exchanges.
    #[must_use]
    pub fn bypass(mut self) -> Self {
        self.changes.bypass = true;
        self
    }

    /// Its responses do not depend on cookies: requests with different ones share them.
    #[must_use]
    pub fn ignore_cookies(mut self) -> Self {
        self.changes.ignore_cookies = true;
        self
    }

    /// Its requests have no say: their `Cache-Control` and `Pragma` are not heeded, as RFC 9111
    /// §5.2.1 permits, so that nobody can have each request reach the origin.
    #[must_use]
    pub fn ignore_request_directives(mut self) -> Self {
        self.changes.ignore_request_directives = true;
        self
    }

    /// Stores its responses, fresh for this long from when they come, even if they say `no-store`,
    /// `private` or `no-cache`, carry `Set-Cookie`, or the request has cookies. A cookie reaches
    /// the client that asked the origin and is not stored.
    ///
    /// Only for what is the same for everybody. `Vary: *`, and `Authorization` without the
    /// response's permission, are still not stored.
    #[must_use]
    pub fn force_store(mut self, ttl: Duration) -> Self {
        self.changes.ttl = Some(ttl);
        self.changes.force_store = true;
        self
    }

    /// Request headers that always select a variant, as if each `Vary` named them.
    #[must_use]
    pub fn key_headers(mut self, names: impl IntoIterator<Item = HeaderName>) -> Self {
        self.changes.key_headers.extend(names);
        self
    }

    /// Parameters of the query that are taken away from its requests, by name or pattern
    /// (`utm_*`): neither the key nor the inner service sees them.
    ///
    /// # Errors
    ///
    /// A pattern is empty or over 4,096 bytes.
    pub fn ignore_query<S: AsRef<str>>(
        mut self,
        names: impl IntoIterator<Item = S>,
    ) -> Result<Self, RuleError> {
        self.changes.ignore_query.extend(query_names(names)?);
        Ok(self)
    }

    /// A tag for its responses, beside those that they name themselves.
    ///
    /// # Errors
    ///
    /// It is empty or over 256 bytes.
    pub fn tag(mut self, tag: &str) -> Result<Self, RuleError> {
        if tag.is_empty() || tag.len() > MAX_TAG_BYTES || self.changes.tags.len() >= MAX_TAGS {
            return Err(RuleError::new("tag", tag, "1 to 256 bytes, and at most 64 tags"));
        }
        self.changes.tags.push(tag.to_owned());
        Ok(self)
    }

    fn is_about(&self, host: &str, path: &str, headers: &HeaderMap) -> bool {
        let has_credentials =
            || headers.contains_key(COOKIE) || headers.contains_key(AUTHORIZATION);
        // A last dot names the same host, as it does for whoever finds its upstream.
        let host = host.strip_suffix('.').unwrap_or(host);
        let is_host = match self.host.as_deref() {
            None => true,
            Some(name) => match name.strip_prefix('*') {
                // What stands before the dot is at least one label.
                Some(domain) => host.len() > domain.len() && host.ends_with(domain),
                None => host == name,
            },
        };
        is_host
            && self.path.matches(path.as_bytes())
            && (self.content_types.is_empty() || !has_credentials())
    }
}

/// Patterns for the names of query parameters.
pub(crate) fn query_names<S: AsRef<str>>(
    names: impl IntoIterator<Item = S>,
) -> Result<Vec<Glob>, RuleError> {
    let compiled = names.into_iter().map(|name| {
        let name = name.as_ref();
        let allowed = "the name of a parameter, or a pattern like `utm_*`";
        match Glob::new(name) {
            Ok(glob) if !name.is_empty() => Ok(glob),
            _ => Err(RuleError::new("ignore_query", name, allowed)),
        }
    });
    compiled.collect()
}

fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for char in text.chars() {
        if "*?[]\\^-".contains(char) {
            escaped.push('\\');
        }
        escaped.push(char);
    }
    escaped
}

/// How a `Content-Type` begins that fits the extension at the end of a pattern.
fn promised_types(pattern: &str) -> &'static [&'static str] {
    let extension = match pattern.rsplit_once('.') {
        Some((before, extension)) if before.contains(['*', '?', '[']) => extension,
        _ => return &[],
    };
    match extension.to_ascii_lowercase().as_str() {
        "css" => &["text/css"],
        "js" | "mjs" => &["text/javascript", "application/javascript", "application/x-javascript"],
        "png" | "jpg" | "jpeg" | "gif" | "webp" | "avif" | "svg" | "ico" | "bmp" => &["image/"],
        "woff" | "woff2" | "ttf" | "otf" | "eot" => {
            &["font/", "application/font", "application/x-font", "application/vnd.ms-fontobject"]
        }
        "mp4" | "webm" | "mov" | "m4v" => &["video/"],
        "mp3" | "ogg" | "wav" | "m4a" | "flac" => &["audio/", "video/ogg", "application/ogg"],
        "json" | "map" => &["application/json", "text/json"],
        "pdf" => &["application/pdf"],
        "wasm" => &["application/wasm"],
        "txt" => &["text/plain"],
        "xml" => &["text/xml", "application/xml"],
        "html" | "htm" => &["text/html"],
        extension if (1..=5).contains(&extension.len()) && is_plain(extension) => {
            &["application/", "audio/", "video/", "image/", "font/"]
        }
        _ => &[],
    }
}

fn is_plain(extension: &str) -> bool {
    extension.bytes().all(|b| b.is_ascii_alphanumeric())
}

/// A rule was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleError {
    what: &'static str,
    value: String,
    allowed: &'static str,
}

impl RuleError {
    fn new(what: &'static str, value: &str, allowed: &'static str) -> Self {
        Self { what, value: value.chars().take(100).collect(), allowed }
    }

    /// The part of the rule that is wrong.
    pub fn what(&self) -> &'static str {
        self.what
    }
}

impl fmt::Display for RuleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {:?} is refused; allowed is {}", self.what, self.value, self.allowed)
    }
}

impl StdError for RuleError {}

/// The options that hold where no rule matches.
#[derive(Debug, Clone, Default)]
pub(crate) struct Base(Arc<Options>);

impl Deref for Base {
    type Target = Options;

    fn deref(&self) -> &Options {
        &self.0
    }
}

impl DerefMut for Base {
    fn deref_mut(&mut self) -> &mut Options {
        Arc::make_mut(&mut self.0)
    }
}

/// How rules change the options of a cache.
#[derive(Debug, Default)]
pub(crate) struct Rules {
    rules: Vec<Rule>,
    /// What holds when these rules match, by their bits.
    known: RwLock<HashMap<u64, Arc<Options>>>,
}

impl Rules {
    pub(crate) fn new(rules: Vec<Rule>) -> Self {
        Self { rules, known: RwLock::default() }
    }

    /// One more rule.
    pub(crate) fn and(&self, rule: Rule) -> Result<Self, RuleError> {
        if self.rules.len() >= MAX_RULES {
            return Err(RuleError::new("rule", "one more", "at most 64 rules"));
        }
        let rules = self.rules.iter().cloned().chain([rule]);
        Ok(Self::new(rules.collect()))
    }

    /// The same rules, for other options.
    pub(crate) fn anew(&self) -> Self {
        Self::new(self.rules.clone())
    }

    /// What holds for a request.
    pub(crate) fn options(
        &self,
        base: &Base,
        host: &str,
        path: &str,
        headers: &HeaderMap,
    ) -> Arc<Options> {
        let mut matching = 0_u64;
        for (place, rule) in self.rules.iter().enumerate() {
            matching |= u64::from(rule.is_about(host, path, headers)) << place;
        }
        if matching == 0 {
            return Arc::clone(&base.0);
        }
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(options) = known.get(&matching) {
            return Arc::clone(options);
        }
        drop(known);
        let options = Arc::new(self.changed(base, matching));
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        // Clients choose what matches: a few hundred combinations are more than anybody means.
        if known.len() < 512 {
            known.insert(matching, Arc::clone(&options));
        }
        options
    }

    fn changed(&self, base: &Base, matching: u64) -> Options {
        let mut options = (**base).clone();
        let is_matching = |place: usize| matching & (1 << place) != 0;
        for (_, rule) in self.rules.iter().enumerate().filter(|(place, _)| is_matching(*place)) {
            let changes = &rule.changes;
            options.ttl = changes.ttl.or(options.ttl);
            options.bypass |= changes.bypass;
            options.ignore_cookies |= changes.ignore_cookies;
            options.ignore_request_directives |= changes.ignore_request_directives;
            options.force_store |= changes.force_store;
            options.key_headers.extend(changes.key_headers.iter().cloned());
            options.ignore_query.extend(changes.ignore_query.iter().cloned());
            options.tags.extend(changes.tags.iter().cloned());
            options.content_types.extend(rule.content_types);
        }
        options
    }
}
