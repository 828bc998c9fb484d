//! Where a Redis store connects to, and how long it waits.
//!
//! Decides which URLs are allowed. It opens nothing, and neither its errors nor its `Debug` ever
//! show a password.

use std::fmt;
use std::time::Duration;

use ::redis::io::tcp::{TcpSettings, socket2::TcpKeepalive};
use ::redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo, ProtocolVersion};

use super::tls;
use crate::error::{Error, ErrorKind};

const SCHEMES: &str = "redis://, rediss://, redis+unix:// and unix://";

/// The settings of a [`RedisStore`](super::RedisStore).
#[derive(Clone)]
pub struct RedisConfig {
    info: ConnectionInfo,
    connect_timeout: Duration,
    timeout: Duration,
    lease: Duration,
}

impl RedisConfig {
    /// The settings that a URL gives, and the parameters of its query that are not about Redis, in
    /// their order: the caller uses or refuses them.
    ///
    /// `redis://user:password@host:port/database`, the same with `rediss://` for TLS (feature
    /// `redis-tls`), and `redis+unix:///path` or `unix:///path` for a unix socket, where the query
    /// gives `db`, `user` and `pass`. User and password are percent-encoded. Default: port 6379,
    /// database 0, no password.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] if it is no such URL.
    pub fn from_url(url: &str) -> Result<(Self, Vec<(String, String)>), Error> {
        let url = ::redis::parse_redis_url(url)
            .ok_or_else(|| refused(format!("not a URL of a known kind; allowed are {SCHEMES}")))?;
        let unix = match url.scheme() {
            "redis" | "valkey" => false,
            "rediss" | "valkeys" if tls::AVAILABLE => false,
            "rediss" | "valkeys" => {
                return Err(refused("rediss:// needs the feature \"redis-tls\""));
            }
            "redis+unix" | "valkey+unix" | "unix" => true,
            other => {
                return Err(refused(format!("the scheme {other:?}; allowed are {SCHEMES}")));
            }
        };
        if url.fragment().is_some() {
            return Err(refused("a fragment (#…); certificates are always checked"));
        }
        let mut others = Vec::new();
        for (name, value) in url.query_pairs() {
            match &*name {
                "db" if unix => check_database(&value)?,
                "user" | "pass" if unix => {}
                "protocol" => return Err(refused("the parameter \"protocol\": it is always 3")),
                _ => others.push((name.into_owned(), value.into_owned())),
            }
        }
        if !unix {
            check_database(url.path().trim_matches('/'))?;
        }
        // Its message could show parts of the URL; what is left to be wrong is said here instead.
        let info = url
            .into_connection_info()
            .map_err(|_| refused("host, path, user or password are not valid"))?;
        Ok((Self::new(info), others))
    }

    fn new(info: ConnectionInfo) -> Self {
        let redis = info
            .redis_settings()
            .clone()
            .set_protocol(ProtocolVersion::RESP3)
            .set_lib_name("tachikoma", env!("CARGO_PKG_VERSION"));
        let keepalive = TcpKeepalive::new()
            .with_time(Duration::from_secs(15))
            .with_interval(Duration::from_secs(5));
        let tcp = TcpSettings::default().set_nodelay(true).set_keepalive(keepalive);
        #[cfg(target_os = "linux")]
        let tcp = tcp.set_user_timeout(Duration::from_secs(5));
        Self {
            info: info.set_redis_settings(redis).set_tcp_settings(tcp),
            connect_timeout: Duration::from_millis(500),
            timeout: Duration::from_millis(250),
            lease: Duration::from_secs(30),
        }
    }

    /// How long an attempt to connect may take, with login. Default: 500 ms.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// How long one operation waits for the server, if its own deadline is not earlier.
    /// Default: 250 ms.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// How long a load may keep its key before another process may load it too. A load that takes
    /// longer is not stored. Default: 30 s.
    #[must_use]
    pub fn lease(mut self, lease: Duration) -> Self {
        self.lease = lease;
        self
    }

    pub(super) fn get_connect_timeout(&self) -> Duration {
        self.connect_timeout
    }

    pub(super) fn get_timeout(&self) -> Duration {
        self.timeout
    }

    /// Whole milliseconds, at least one.
    pub(super) fn lease_millis(&self) -> u64 {
        u64::try_from(self.lease.as_millis()).unwrap_or(u64::MAX).clamp(1, 86_400_000)
    }

    pub(super) fn info(&self) -> &ConnectionInfo {
        &self.info
    }
}

/// Host and port, or the path of the socket.
impl fmt::Display for RedisConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.info.addr() {
            ConnectionAddr::TcpTls { host, port, .. } => write!(f, "rediss://{host}:{port}"),
            ConnectionAddr::Unix(path) => write!(f, "unix://{}", path.display()),
            address => write!(f, "redis://{address}"),
        }
    }
}

impl fmt::Debug for RedisConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let redis = self.info.redis_settings();
        f.debug_struct("RedisConfig")
            .field("address", &format_args!("{self}"))
            .field("database", &redis.db())
            .field("user", &redis.username())
            .field("password", &redis.password().map(|_| format_args!("***")))
            .field("connect_timeout", &self.connect_timeout)
            .field("timeout", &self.timeout)
            .field("lease", &self.lease)
            .finish()
    }
}

fn check_database(text: &str) -> Result<(), Error> {
    if text.is_empty() || text.parse::<u32>().is_ok() {
        return Ok(());
    }
    Err(refused("the database; allowed is a number from 0"))
}

fn refused(detail: impl fmt::Display) -> Error {
    Error::new(ErrorKind::Config, format!("the Redis URL: {detail}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(url: &str) -> RedisConfig {
        RedisConfig::from_url(url).unwrap().0
    }

    #[track_caller]
    fn check(url: &str, shown: &str, database: i64, login: (Option<&str>, Option<&str>)) {
        let config = parsed(url);
        let redis = config.info.redis_settings();
        assert_eq!(config.to_string(), shown);
        assert_eq!(redis.db(), database, "{url}");
        assert_eq!((redis.username(), redis.password()), login, "{url}");
    }

    #[test]
    fn a_url_gives_address_database_and_login() {
        check("redis://localhost", "redis://localhost:6379", 0, (None, None));
        check("redis://:pw@127.0.0.1:7000/3", "redis://127.0.0.1:7000", 3, (None, Some("pw")));
        check("redis://me:p%40%3A@[::1]/", "redis://::1:6379", 0, (Some("me"), Some("p@:")));
        check(
            "unix:///run/r.sock?db=2&user=me&pass=pw",
            "unix:///run/r.sock",
            2,
            (Some("me"), Some("pw")),
        );
        check("redis+unix:///run/r.sock", "unix:///run/r.sock", 0, (None, None));
    }

    #[test]
    fn parameters_of_others_are_given_back() {
        let (_, others) = RedisConfig::from_url("redis://h/0?namespace=shop&x=%41").unwrap();
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(others, [pair("namespace", "shop"), pair("x", "A")]);
        let (_, others) = RedisConfig::from_url("redis://h/0?db=2").unwrap();
        assert_eq!(others, [pair("db", "2")], "only a socket has it in the query");
    }

    #[test]
    fn other_urls_are_refused_without_showing_the_password() {
        for url in [
            "",
            "localhost:6379",
            "http://u:s3ntinel-pw@host/",
            "file:///etc/passwd",
            "valkey+other://u:s3ntinel-pw@host/",
            "redis://u:s3ntinel-pw@",
            "redis://u:s3ntinel-pw@host:99999/",
            "redis://u:s3ntinel-pw@host/x",
            "redis://u:s3ntinel-pw@host/-1",
            "redis://u:s3ntinel-pw@0.0.0.0/",
            "redis://u:s3ntinel-pw@host/0#insecure",
            "redis://u:s3ntinel-pw@host/0?protocol=2",
            "redis://u:s3ntinel-pw%FF@host/0",
            "redis://u:s3ntinel-pw:x/y@host/0",
            "unix:///r.sock?db=x&pass=s3ntinel-pw",
        ] {
            let error = RedisConfig::from_url(url).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config, "{url:?}");
            let shown = format!("{error} {error:?}");
            assert!(!shown.contains("s3ntinel"), "{shown}");
        }
    }

    #[test]
    fn tls_without_its_feature_is_said_to_need_it() {
        let result = RedisConfig::from_url("rediss://u:s3ntinel-pw@host/");
        match result {
            Ok((config, _)) if tls::AVAILABLE => {
                assert_eq!(config.to_string(), "rediss://host:6379");
            }
            Ok((config, _)) => panic!("{config}"),
            Err(error) => assert!(error.to_string().contains("redis-tls"), "{error}"),
        }
    }

    #[test]
    fn debug_and_display_do_not_show_the_password() {
        for url in ["redis://me:s3ntinel-pw@host/1", "unix:///r.sock?user=me&pass=s3ntinel-pw"] {
            let shown = format!("{0} {0:?} {0:#?}", parsed(url));
            assert!(!shown.contains("s3ntinel"), "{shown}");
            assert!(shown.contains("***"), "{shown}");
        }
    }
}
