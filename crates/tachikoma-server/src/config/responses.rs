//! The `[responses]` and `[[rules]]` of a file: what the response cache does, for all URLs and for
//! some.
//!
//! Says only what was written; what a rule means is decided by `tachikoma-http-cache`, which also
//! refuses those that cannot work.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use http::HeaderName;
use serde::{Deserialize, Serialize};
use tachikoma_cache::Cache;
use tachikoma_http_cache::{HttpCacheLayer, Rule, RuleError};

use super::error::ConfigError;
use super::text::{Refused, as_text};
use super::units::{Size, Span};
use crate::api::reads::TO_THIS_SERVER;

/// What holds for every response.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Responses {
    /// The largest body that is stored. Default: 8 MiB.
    pub max_body_size: Size,
    /// What bodies over 8 MiB take in memory, where the cache is Redis. Default: 256 MiB.
    pub max_large_bytes: Size,
    /// What all responses under way hold together before they are stored. Default: 128 MiB.
    pub max_fill_bytes: Size,
    /// The lifetime of a response that states none. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_ttl: Option<Span>,
    /// Whether a lifetime is guessed from `Last-Modified`. Default: yes.
    pub heuristic: bool,
    /// The longest lifetime of an error. Default: 10 s.
    pub max_error_ttl: Span,
    /// How long a stale response is kept to be validated. Default: 1 h.
    pub keep_stale: Span,
    /// How long a request waits for another one that fetches the same. Default: 10 s.
    pub wait_limit: Span,
    /// How long a response is read on for the store when no client is left. Default: 10 s.
    pub finish_limit: Span,
    /// Request headers that always select a variant. Default: none.
    pub key_headers: Vec<FieldName>,
    /// Query parameters that neither the key nor an upstream sees. Default: none.
    pub ignore_query: Vec<String>,
    /// Response headers that name tags, beside `Surrogate-Key` and `Cache-Tag`. Default: none.
    pub tags_from_header: Vec<FieldName>,
    /// Response headers that stand in for `Cache-Control`. Default: `cdn-cache-control`.
    pub targeted: Vec<FieldName>,
    /// Whether spellings of the same `Accept-Language` select the same variant. Default: yes.
    pub normalize: bool,
    /// How long past its end a response may be sent because the upstream cannot be reached.
    /// Default: 1 h.
    pub stale_if_disconnected: Span,
}

impl Default for Responses {
    fn default() -> Self {
        Self {
            max_body_size: Size(8 << 20),
            max_large_bytes: Size(256 << 20),
            max_fill_bytes: Size(128 << 20),
            default_ttl: None,
            heuristic: true,
            max_error_ttl: Span(Duration::from_secs(10)),
            keep_stale: Span(Duration::from_secs(3_600)),
            wait_limit: Span(Duration::from_secs(10)),
            finish_limit: Span(Duration::from_secs(10)),
            key_headers: Vec::new(),
            ignore_query: Vec::new(),
            tags_from_header: Vec::new(),
            targeted: vec![FieldName(HeaderName::from_static("cdn-cache-control"))],
            normalize: true,
            stale_if_disconnected: Span(Duration::from_secs(3_600)),
        }
    }
}

/// What holds for the responses of some URLs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RuleSettings {
    /// Which paths, as a pattern: `/news/*`, `*.css`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Which paths, by how they begin: `/static/`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// Which host. Default: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Their lifetime, whatever they say themselves.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl: Option<Span>,
    /// They are not cached.
    pub bypass: bool,
    /// They do not depend on cookies.
    pub ignore_cookies: bool,
    /// What their requests say in `Cache-Control` and `Pragma` is not heeded.
    pub ignore_request_directives: bool,
    /// They are stored for `ttl` even where they forbid it.
    pub force_store: bool,
    /// Request headers that always select a variant.
    pub key_headers: Vec<FieldName>,
    /// Query parameters that neither the key nor an upstream sees.
    pub ignore_query: Vec<String>,
    /// Tags for them, beside their own.
    pub tags: Vec<String>,
}

/// The name of a header field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldName(HeaderName);

impl FromStr for FieldName {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        let refused = || Refused("the name of a header, like accept-language".to_owned());
        HeaderName::from_bytes(text.as_bytes()).map(Self).map_err(|_| refused())
    }
}

impl fmt::Display for FieldName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_str())
    }
}

fn names(names: &[FieldName]) -> Vec<HeaderName> {
    names.iter().map(|name| name.0.clone()).collect()
}

impl RuleSettings {
    fn rule(&self) -> Result<Rule, ConfigError> {
        let refused = |error: RuleError| ConfigError::new(error.to_string());
        let mut rule = match (&self.path, &self.prefix) {
            (Some(path), None) => Rule::path(path).map_err(refused)?,
            (None, Some(prefix)) => Rule::prefix(prefix).map_err(refused)?,
            _ => {
                return Err(ConfigError::new("a rule needs either path or prefix").hint(
                    "path = \"/news/*\" for a pattern, prefix = \"/static/\" for a beginning",
                ));
            }
        };
        if let Some(host) = &self.host {
            rule = rule.host(host).map_err(refused)?;
        }
        rule = match (self.ttl, self.force_store) {
            (Some(ttl), true) => rule.force_store(ttl.0),
            (Some(ttl), false) => rule.ttl(ttl.0),
            (None, false) => rule,
            (None, true) => {
                return Err(ConfigError::new("force_store needs a ttl").hint("ttl = \"1m\""));
            }
        };
        if self.bypass {
            rule = rule.bypass();
        }
        if self.ignore_cookies {
            rule = rule.ignore_cookies();
        }
        if self.ignore_request_directives {
            rule = rule.ignore_request_directives();
        }
        rule = rule.key_headers(names(&self.key_headers));
        rule = rule.ignore_query(&self.ignore_query).map_err(refused)?;
        for tag in &self.tags {
            rule = rule.tag(tag).map_err(refused)?;
        }
        if *self
            == (Self {
                path: self.path.clone(),
                prefix: self.prefix.clone(),
                host: self.host.clone(),
                ..Self::default()
            })
        {
            return Err(ConfigError::new("a rule that changes nothing").hint(
                "say ttl, bypass, ignore_cookies, ignore_request_directives, force_store, \
                 key_headers, ignore_query or tags",
            ));
        }
        Ok(rule)
    }
}

as_text!(FieldName);

impl Responses {
    /// The response cache that this and the rules describe, on a cache.
    ///
    /// # Errors
    ///
    /// The first setting that cannot work, by name.
    pub(super) fn layer(
        &self,
        cache: Cache,
        rules: &[RuleSettings],
        has_api: bool,
    ) -> Result<HttpCacheLayer, ConfigError> {
        let bytes = |size: Size| usize::try_from(size.0).unwrap_or(usize::MAX);
        let mut layer = HttpCacheLayer::new(cache)
            .max_body_size(bytes(self.max_body_size))
            .max_large_bytes(self.max_large_bytes.0)
            .max_fill_bytes(bytes(self.max_fill_bytes))
            .heuristic(self.heuristic)
            .max_error_ttl(self.max_error_ttl.0)
            .keep_stale(self.keep_stale.0)
            .wait_limit(self.wait_limit.0)
            .finish_limit(self.finish_limit.0)
            .key_headers(names(&self.key_headers))
            .tags_from_header(names(&self.tags_from_header))
            .targeted(has_api.then_some(TO_THIS_SERVER).into_iter().chain(names(&self.targeted)))
            .normalize(self.normalize)
            .stale_if_disconnected(self.stale_if_disconnected.0)
            .empty_body(axum::body::Body::empty)
            .ignore_query(&self.ignore_query)
            .map_err(|error| ConfigError::new(format!("responses.{error}")))?;
        if let Some(ttl) = self.default_ttl {
            layer = layer.default_ttl(ttl.0);
        }
        for rule in checked(rules)? {
            layer = layer.rule(rule).map_err(|error| ConfigError::new(error.to_string()))?;
        }
        Ok(layer)
    }
}

/// The rules, each checked.
pub(super) fn checked(rules: &[RuleSettings]) -> Result<Vec<Rule>, ConfigError> {
    let numbered = rules.iter().zip(1..);
    numbered
        .map(|(said, number)| {
            said.rule().map_err(|error| error.at(format!("[[rules]] number {number}")))
        })
        .collect()
}
