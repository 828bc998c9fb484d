//! Decides what the handlers share: the database, the data cache, the clock, the secrets.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tachikoma_cache::Cache;

use super::{
    database::Database,
    login_limit::LoginLimit,
    password::Passwords,
    timestamp::Timestamp,
    token::{self, TokenHasher},
};

/// The name under which the database keeps the key of the token hashes.
const TOKEN_KEY: &str = "session-token-key";

/// The API could not be opened.
///
/// `Display` names the database URL; the cause is the [`source`](std::error::Error::source).
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct OpenError {
    message: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl OpenError {
    fn new(
        message: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self { message: message.into(), source: Some(source.into()) }
    }
}

/// What the API may be told apart from where its rows and its cache are.
#[derive(Debug, Clone)]
pub struct ApiOptions {
    /// How long the data cache keeps what it read. Default: 60 s.
    ///
    /// Writes through this API take out what they change, for all processes that share a Redis.
    /// This is the longest that anything else stays unseen: a row changed by other means, a write
    /// of another process that has a memory cache of its own, a write whose process was killed
    /// before it could tell the cache.
    pub read_ttl: Duration,
    /// How long a session lasts. Default: 24 hours.
    pub session_life: Duration,
}

impl Default for ApiOptions {
    fn default() -> Self {
        Self { read_ttl: Duration::from_secs(60), session_life: Duration::from_secs(24 * 60 * 60) }
    }
}

/// The API's database, data cache and settings. Cheap to clone.
///
/// Rows and sessions have the time of the cache's clock.
#[derive(Clone)]
pub struct ApiState {
    inner: Arc<Inner>,
}

struct Inner {
    database: Database,
    cache: Cache,
    options: ApiOptions,
    tokens: TokenHasher,
    passwords: Passwords,
    logins: Mutex<LoginLimit>,
}

impl ApiState {
    /// Opens the database of a `sqlite://` URL, creates the file if there is none, and brings its
    /// schema to this version. Several processes may share the file.
    ///
    /// # Errors
    ///
    /// The URL is not one of a file, the file cannot be opened, or a later version wrote it.
    pub async fn open(database_url: &str, cache: Cache) -> Result<Self, OpenError> {
        Self::open_with(database_url, cache, ApiOptions::default()).await
    }

    /// As [`open`](Self::open), with other options than the defaults.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub async fn open_with(
        database_url: &str,
        cache: Cache,
        options: ApiOptions,
    ) -> Result<Self, OpenError> {
        let opened = Database::open(database_url).await;
        let database = opened.map_err(|error| {
            let message = error.to_string();
            OpenError::new(message, error)
        })?;
        let failed = |error| OpenError::new("the key of the sessions could not be read", error);
        let fresh = token::random_bytes().to_vec();
        let key = database.secret(TOKEN_KEY, fresh).await.map_err(failed)?;
        let tokens = TokenHasher::new(&key)
            .ok_or_else(|| OpenError::new("the key of the sessions is damaged", "wrong length"))?;
        let passwords = Passwords::default();
        let logins = Mutex::default();
        let inner = Inner { database, cache, options, tokens, passwords, logins };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Closes the database; what is under way ends first.
    pub async fn close(&self) {
        self.inner.database.close().await;
    }

    /// The data cache.
    #[must_use]
    pub fn cache(&self) -> &Cache {
        &self.inner.cache
    }

    pub(crate) fn database(&self) -> &Database {
        &self.inner.database
    }

    pub(crate) fn options(&self) -> &ApiOptions {
        &self.inner.options
    }

    pub(crate) fn tokens(&self) -> &TokenHasher {
        &self.inner.tokens
    }

    pub(crate) fn passwords(&self) -> &Passwords {
        &self.inner.passwords
    }

    /// Runs `work` on the attempts to log in.
    pub(crate) fn logins<T>(&self, work: impl FnOnce(&mut LoginLimit) -> T) -> T {
        work(&mut self.inner.logins.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Now by the clock of the cache, as rows keep it.
    pub(crate) fn now(&self) -> Timestamp {
        let millis = self.inner.cache.clock().now().as_millis();
        Timestamp::from_millis(i64::try_from(millis).unwrap_or(i64::MAX))
    }
}

impl fmt::Debug for ApiState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiState").field("options", &self.inner.options).finish_non_exhaustive()
    }
}
