//! The values a setting may have: addresses, the upstream, the cache, the database, the log.
//!
//! Each is checked when it is read, so that the rest of the server never meets a bad one, and
//! each knows how to print itself without the password it may carry.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use http::Uri;
use http::uri::Authority;

use super::redact::redacted;
use super::text::{Refused, as_text};
use crate::tls;

/// An address to listen on: an IP address and a port. Port 0 takes any free port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listen(pub SocketAddr);

impl FromStr for Listen {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        text.parse().map(Self).map_err(|_| {
            Refused(
                "an address is an IP address and a port (0 to 65535), like 127.0.0.1:8080 or \
                 [::]:8080"
                    .to_owned(),
            )
        })
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Where the admin listener is: an address, or nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admin {
    /// No admin listener.
    Off,
    /// The admin API answers here.
    At(SocketAddr),
}

impl FromStr for Admin {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        match text {
            "off" => Ok(Self::Off),
            _ => match text.parse() {
                Ok(Listen(address)) => Ok(Self::At(address)),
                Err(Refused(allowed)) => Err(Refused(format!("`off`, or an address: {allowed}"))),
            },
        }
    }
}

impl fmt::Display for Admin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("off"),
            Self::At(address) => address.fmt(f),
        }
    }
}

/// An origin server that the proxy forwards to: `http://host` or, with the feature `tls`,
/// `https://host`, with an optional port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upstream {
    authority: Authority,
    secure: bool,
}

impl Upstream {
    /// The `host:port` to connect to and, without a `Host` from the client, to name.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// The host to resolve: no brackets around an IPv6 address.
    pub fn host(&self) -> &str {
        self.authority.host().trim_start_matches('[').trim_end_matches(']')
    }

    /// The port to connect to. Default: 80, with TLS 443.
    pub fn port(&self) -> u16 {
        self.authority.port_u16().unwrap_or(if self.secure { 443 } else { 80 })
    }

    /// Whether it is spoken to within TLS.
    pub fn is_secure(&self) -> bool {
        self.secure
    }
}

impl FromStr for Upstream {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        let refuse = |why: &str| {
            Err(Refused(format!("{why}; write http://host:port, like http://127.0.0.1:3000")))
        };
        let Ok(uri) = text.parse::<Uri>() else {
            return refuse("not a URL");
        };
        match uri.scheme_str() {
            Some("http") => {}
            Some("https") if tls::AVAILABLE => {}
            Some("https") => return refuse("TLS needs the feature `tls`, which is not built in"),
            Some(_) => return refuse("only http:// and https:// are spoken to an upstream"),
            None => return refuse("the scheme is missing"),
        }
        let Some(authority) = uri.authority() else {
            return refuse("the host is missing");
        };
        if authority.as_str().contains('@') {
            return refuse("a user or password cannot be sent to the upstream");
        }
        if authority.host().is_empty() {
            return refuse("the host is missing");
        }
        let port = &authority.as_str()[authority.host().len()..];
        if !port.is_empty() && authority.port_u16().is_none_or(|port| port == 0) {
            return refuse("the port is not between 1 and 65535");
        }
        // A path would be a rewrite rule: requests are forwarded with the target they came with.
        if uri.path() != "/" || uri.query().is_some() || text.contains('#') {
            return refuse("a path cannot be part of the upstream");
        }
        let secure = uri.scheme_str() == Some("https");
        Ok(Self { authority: authority.clone(), secure })
    }
}

impl fmt::Display for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.secure { "https" } else { "http" };
        write!(f, "{scheme}://{}", self.authority)
    }
}

/// A URL that may carry a password. `Debug`, `Display` and `config show` print `***` instead.
#[derive(Clone, PartialEq, Eq)]
struct Guarded(String);

impl Guarded {
    fn redacted(&self) -> String {
        redacted(&self.0)
    }
}

/// Which store the cache uses: `memory` or `redis://…`, with the options that store takes.
#[derive(Clone, PartialEq, Eq)]
pub struct CacheUrl(Guarded);

impl CacheUrl {
    /// The URL with its password, for the one who connects.
    pub fn reveal(&self) -> &str {
        &self.0.0
    }

    /// Whether the store is this process's own memory.
    pub fn is_memory(&self) -> bool {
        self.0.0.starts_with("memory")
    }
}

impl FromStr for CacheUrl {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        // What else the URL may hold is the business of the library, which says it when it opens
        // it.
        const SCHEMES: [&str; 8] = [
            "memory:",
            "memory?",
            "redis://",
            "rediss://",
            "valkey://",
            "valkeys://",
            "unix://",
            "redis+unix://",
        ];
        if text == "memory" || SCHEMES.iter().any(|scheme| text.starts_with(scheme)) {
            Ok(Self(Guarded(text.to_owned())))
        } else {
            Err(Refused("a cache is `memory`, or redis://host:port/database".to_owned()))
        }
    }
}

/// The database file of the reference API: `sqlite://path`.
#[derive(Clone, PartialEq, Eq)]
pub struct DatabaseUrl(Guarded);

impl DatabaseUrl {
    /// The URL as it was written.
    pub fn reveal(&self) -> &str {
        &self.0.0
    }
}

impl FromStr for DatabaseUrl {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        match text.strip_prefix("sqlite:") {
            Some(path) if !path.trim_start_matches('/').is_empty() => {
                Ok(Self(Guarded(text.to_owned())))
            }
            _ => Err(Refused("a database is a SQLite file, like sqlite://missions.db".to_owned())),
        }
    }
}

impl Default for CacheUrl {
    fn default() -> Self {
        Self(Guarded("memory".to_owned()))
    }
}

impl Default for DatabaseUrl {
    fn default() -> Self {
        Self(Guarded("sqlite://tachikoma.db".to_owned()))
    }
}

impl Default for LogFilter {
    fn default() -> Self {
        Self("info".to_owned())
    }
}

macro_rules! guarded {
    ($($name:ident),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0.redacted())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    )*};
}

guarded!(CacheUrl, DatabaseUrl);

/// A token or key. Printed as `***` everywhere.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Takes a secret out of the text of a file or variable, without the line end.
    ///
    /// # Errors
    ///
    /// Shorter than 16 characters, or not one line of visible ASCII: a header cannot carry it.
    pub fn new(text: &str) -> Result<Self, Refused> {
        let text = text.trim_end_matches(['\r', '\n']);
        if text.len() < 16 {
            return Err(Refused("a secret is at least 16 characters long".to_owned()));
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(Refused("a secret is one line of visible ASCII, no spaces".to_owned()));
        }
        Ok(Self(text.to_owned()))
    }

    /// The secret itself, for the one who compares or signs.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl FromStr for Secret {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        Self::new(text)
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// What is logged: `tracing` directives, like `info` or `warn,tachikoma_server=debug`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogFilter(String);

impl LogFilter {
    /// The directives as they were written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for LogFilter {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        // An unknown bare word would be taken for a module name and silence everything.
        const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
        let word = |part: &str| part.contains('=') || LEVELS.contains(&part.trim());
        let parses = tracing_subscriber::EnvFilter::builder().parse(text).is_ok();
        if parses && text.split(',').all(word) {
            Ok(Self(text.to_owned()))
        } else {
            Err(Refused(
                "a level (off, error, warn, info, debug, trace) or directives, like \
                 info,tachikoma_server=debug"
                    .to_owned(),
            ))
        }
    }
}

impl fmt::Display for LogFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One of a few words, written as in the list.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident {
        $($(#[$variant_doc:meta])* $variant:ident = $word:literal,)*
    }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name { $($(#[$variant_doc])* $variant,)* }

        impl FromStr for $name {
            type Err = Refused;

            fn from_str(text: &str) -> Result<Self, Refused> {
                match text {
                    $($word => Ok(Self::$variant),)*
                    _ => Err(Refused(format!("one of: {}", [$($word),*].join(", ")))),
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $(Self::$variant => $word,)* })
            }
        }
    };
}

words! {
    /// The form of the access log on standard output.
    AccessLog {
        /// No access log.
        Off = "off",
        /// The Common Log Format of the NCSA server.
        Common = "common",
        /// One JSON object per line.
        Json = "json",
    }
}

words! {
    /// The form of the server's own log on standard error.
    LogFormat {
        /// Pretty on a terminal, JSON otherwise.
        Auto = "auto",
        /// For people.
        Pretty = "pretty",
        /// One JSON object per line.
        Json = "json",
    }
}

as_text!(Listen, Admin, Upstream, CacheUrl, DatabaseUrl, LogFilter, AccessLog, LogFormat);

#[cfg(test)]
mod tests;
