//! Where a Redis store connects to, and how long it waits.
//!
//! Decides which URLs are allowed. It opens nothing, and neither its errors nor its `Debug` ever
//! show a password.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use ::redis::io::tcp::{TcpSettings, socket2::TcpKeepalive};
use ::redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo, ProtocolVersion};

use super::credentials::{self, Credentials, Source};
use super::reply::Fault;
use super::tls;
use crate::compression::{Compression, Packing};
use crate::error::{BoxError, Error, ErrorKind};
use crate::signature::{SignKey, SignKeys};

/// The longest text that Redis keeps (`proto-max-bulk-len`, 512 MiB), less what is stored around a
/// value.
const MAX_VALUE_BYTES: usize = 511 << 20;

/// The default of [`RedisConfig::lease`].
const DEFAULT_LEASE: Duration = Duration::from_secs(3);

/// The shortest lease: a third of it is enough for the server to answer.
const MIN_LEASE: Duration = Duration::from_millis(100);

/// The longest lease.
const MAX_LEASE: Duration = Duration::from_secs(3600);

/// As that of a cache's `store_timeout`.
const MAX_TIMEOUT: Duration = Duration::from_secs(86_400);

/// The default of [`RedisConfig::max_value_bytes`].
const DEFAULT_MAX_VALUE_BYTES: usize = 64 << 20;

const SCHEMES: &str = "redis://, rediss://, redis+unix:// and unix://";

/// The settings of a [`RedisStore`](super::RedisStore).
#[derive(Clone)]
pub struct RedisConfig {
    info: ConnectionInfo,
    login: Source,
    connect_timeout: Duration,
    timeout: Duration,
    lease: Duration,
    packing: Packing,
    max_value_bytes: usize,
    sign_keys: SignKeys,
    dependencies: bool,
}

impl RedisConfig {
    /// The settings that a URL gives, and the parameters of its query that are not about Redis, in
    /// their order: the caller uses or refuses them.
    ///
    /// `redis://user:password@host:port/database`, the same with `rediss://` for TLS (feature
    /// `redis-tls`), and `redis+unix:///path` or `unix:///path` for a unix socket, where the query
    /// gives `db`, `user` and `pass`. User and password are percent-encoded. Default: port 6379,
    /// database 0, no password. `?password_file=/run/secrets/redis` is
    /// [`password_file`](Self::password_file).
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
        let mut file = None;
        for (name, value) in url.query_pairs() {
            match &*name {
                "db" if unix => check_database(&value)?,
                "user" | "pass" if unix => {}
                "password_file" => file = Some(PathBuf::from(&*value)),
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
        let config = Self::new(info);
        Ok((if let Some(file) = file { config.password_file(file)? } else { config }, others))
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
            login: Source::Url,
            connect_timeout: Duration::from_millis(500),
            timeout: Duration::from_millis(250),
            lease: DEFAULT_LEASE,
            packing: Packing::default(),
            max_value_bytes: DEFAULT_MAX_VALUE_BYTES,
            sign_keys: SignKeys::default(),
            dependencies: false,
        }
    }

    /// Whether what is removed or written here takes along what was made of it
    /// ([`dependencies`](crate::dependencies)). The same in all processes that share the server.
    /// Default: off.
    #[must_use]
    pub fn dependencies(mut self, on: bool) -> Self {
        self.dependencies = on;
        self
    }

    pub(super) fn has_dependencies(&self) -> bool {
        self.dependencies
    }

    /// How long an attempt to connect may take, with login. Default: 500 ms. Allowed: more than
    /// zero, at most a day.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// How long one operation waits for the server, if its own deadline is not earlier.
    /// Default: 250 ms. Allowed: more than zero, at most a day.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// How long after a process that loads a key has died, or was stopped, another one may load it.
    /// A load may take longer: its process renews the lease each third of this time. Default: 3 s.
    /// Allowed: 100 ms to an hour.
    #[must_use]
    pub fn lease(mut self, lease: Duration) -> Self {
        self.lease = lease;
        self
    }

    /// A file that holds the password of the URL's user, such as a mounted secret. It is read
    /// anew for each login, so a password that is changed while the program runs is picked up: at
    /// the next connection, or within a second after the server began to refuse the old one.
    /// Default: the password of the URL.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] if it cannot be read now, is empty or is no text.
    pub fn password_file(mut self, path: impl Into<PathBuf>) -> Result<Self, Error> {
        let path = path.into();
        credentials::check(&path)?;
        self.login = Source::File(path);
        Ok(self)
    }

    /// Asks the application for user and password before each login, for tokens that end and for
    /// stores of secrets. It is asked within [`connect_timeout`](Self::connect_timeout); an error
    /// counts as a server that cannot be reached. Default: what the URL says.
    ///
    /// ```
    /// # use tachikoma_cache::store::redis::{Credentials, RedisConfig};
    /// # async fn token() -> std::io::Result<String> { Ok("t".into()) }
    /// # fn main() -> Result<(), tachikoma_cache::Error> {
    /// let (config, _) = RedisConfig::from_url("redis://cache.internal/0")?;
    /// let config = config.credentials(|| async {
    ///     token().await.map(|token| Credentials::user("app", token))
    /// });
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn credentials<F, Fut, E>(mut self, ask: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Credentials, E>> + Send + 'static,
        E: Into<BoxError>,
    {
        self.login = Source::application(ask);
        self
    }

    /// What to connect to and log in with now.
    pub(super) async fn login(&self) -> Result<ConnectionInfo, Fault> {
        let redis = self.login.login(&self.info).await?;
        Ok(self.info.clone().set_redis_settings(redis))
    }

    /// How values are compressed. Default: [`Compression::None`]. What others compressed is read
    /// all the same, if the build has the feature.
    #[must_use]
    pub fn compression(mut self, compression: Compression) -> Self {
        self.packing.compression = compression;
        self
    }

    /// Only values of more bytes are compressed. Default: 1 KiB.
    #[must_use]
    pub fn compress_above(mut self, bytes: usize) -> Self {
        self.packing.above = bytes;
        self
    }

    /// The most bytes that a value may have, before it is compressed and when it is inflated. A
    /// larger one is [`TooLarge`](ErrorKind::TooLarge). Default: 64 MiB; at most 511 MiB, because
    /// Redis keeps no longer text.
    #[must_use]
    pub fn max_value_bytes(mut self, bytes: usize) -> Self {
        self.max_value_bytes = bytes;
        self
    }

    /// Signs what is written with this key, and reads only what is signed. Default: nothing is
    /// signed, and nothing is checked.
    #[must_use]
    pub fn sign_key(mut self, key: SignKey) -> Self {
        self.sign_keys.sign_with(key);
        self
    }

    /// Reads what is signed with this key, too. To rotate: every node accepts the new key, then
    /// every node signs with it and accepts the old one, then the old one goes.
    /// It needs a [`sign_key`](Self::sign_key) beside it.
    #[must_use]
    pub fn accept_key(mut self, key: SignKey) -> Self {
        self.sign_keys.accept(key);
        self
    }

    /// Says which setting is not allowed, before anything is connected.
    pub(super) fn check(&self) -> Result<(), Error> {
        self.packing.compression.check()?;
        self.sign_keys.check()?;
        if !(1..=MAX_VALUE_BYTES).contains(&self.max_value_bytes) {
            let bytes = self.max_value_bytes;
            let detail = format!("max_value_bytes is {bytes}; allowed is 1 to {MAX_VALUE_BYTES}");
            return Err(Error::new(ErrorKind::Config, detail));
        }
        for (name, timeout) in
            [("connect_timeout", self.connect_timeout), ("timeout", self.timeout)]
        {
            if timeout.is_zero() || timeout > MAX_TIMEOUT {
                let detail =
                    format!("{name} is {timeout:?}; allowed is more than zero, at most a day");
                return Err(Error::new(ErrorKind::Config, detail));
            }
        }
        if !(MIN_LEASE..=MAX_LEASE).contains(&self.lease) {
            let detail = format!("lease is {:?}; allowed is 100 ms to an hour", self.lease);
            return Err(Error::new(ErrorKind::Config, detail));
        }
        Ok(())
    }

    pub(super) fn packing(&self) -> Packing {
        self.packing
    }

    pub(super) fn get_max_value_bytes(&self) -> usize {
        self.max_value_bytes
    }

    pub(super) fn sign_keys(&self) -> &SignKeys {
        &self.sign_keys
    }

    pub(super) fn get_connect_timeout(&self) -> Duration {
        self.connect_timeout
    }

    pub(super) fn get_timeout(&self) -> Duration {
        self.timeout
    }

    /// Whole milliseconds.
    pub(super) fn lease_millis(&self) -> u64 {
        u64::try_from(self.lease.as_millis()).unwrap_or(u64::MAX)
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
            .field("login", &self.login)
            .field("connect_timeout", &self.connect_timeout)
            .field("timeout", &self.timeout)
            .field("lease", &self.lease)
            .field("packing", &self.packing)
            .field("max_value_bytes", &self.max_value_bytes)
            .field("signed", &self.sign_keys.are_needed())
            .field("dependencies", &self.dependencies)
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
