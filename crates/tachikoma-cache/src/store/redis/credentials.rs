//! With which user and password each connection logs in.
//!
//! Decides where they come from: the URL, a file, or the application. A source is asked anew for
//! each connection, so a password that is changed while the program runs is used from the next
//! login on. It keeps no password itself and shows none.

use std::error::Error as StdError;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ::redis::{ConnectionInfo, RedisConnectionInfo};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;

use super::reply::{Fault, Then};
use crate::error::{Error, ErrorKind};

/// A longer file is no password.
const MAX_PASSWORD_BYTES: u64 = 64 * 1024;

/// What to log in with. `Debug` does not show the password.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    user: Option<String>,
    password: String,
}

impl Credentials {
    /// The password of the default user.
    pub fn password(password: impl Into<String>) -> Self {
        Self { user: None, password: password.into() }
    }

    /// A user of the server's access control list and their password.
    pub fn user(user: impl Into<String>, password: impl Into<String>) -> Self {
        Self { user: Some(user.into()), password: password.into() }
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("user", &self.user)
            .field("password", &format_args!("***"))
            .finish()
    }
}

type BoxError = Box<dyn StdError + Send + Sync>;
type Ask = dyn Fn() -> BoxFuture<'static, Result<Credentials, BoxError>> + Send + Sync;

/// Where they come from.
#[derive(Clone)]
pub(super) enum Source {
    /// They stand in the URL, if there are any.
    Url,
    /// The password of the URL's user stands in this file.
    File(PathBuf),
    Application(Arc<Ask>),
}

impl Source {
    pub(super) fn application<F, Fut, E>(ask: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Credentials, E>> + Send + 'static,
        E: Into<BoxError>,
    {
        Self::Application(Arc::new(move || {
            let asked = ask();
            async move { asked.await.map_err(Into::into) }.boxed()
        }))
    }

    /// The login of the next connection to `info`.
    pub(super) async fn login(&self, info: &ConnectionInfo) -> Result<RedisConnectionInfo, Fault> {
        let redis = info.redis_settings().clone();
        match self {
            Self::Url => Ok(redis),
            Self::File(path) => {
                let from = path.clone();
                // A file may lie on a slow disk or a network.
                let read = tokio::task::spawn_blocking(move || read(&from)).await;
                let password = read.map_err(|_| missing("the file was not read"))?;
                Ok(redis.set_password(password.map_err(missing)?))
            }
            Self::Application(ask) => {
                let asked = ask().await;
                // Its text is the application's: it may hold what must not be shown.
                let Credentials { user, password } =
                    asked.map_err(|_| missing("the application has none now"))?;
                let redis = match user {
                    Some(user) => redis.set_username(user),
                    None => redis,
                };
                Ok(redis.set_password(password))
            }
        }
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url => f.write_str("Url"),
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            Self::Application(_) => f.write_str("Application"),
        }
    }
}

fn missing(why: impl fmt::Display) -> Fault {
    let text = format!("there are no credentials to log in with: {why}");
    Fault::new(ErrorKind::Unavailable, Then::Drop, text)
}

/// Whether the file can be used now.
pub(super) fn check(path: &Path) -> Result<(), Error> {
    read(path)
        .map(drop)
        .map_err(|why| Error::new(ErrorKind::Config, format!("the Redis URL: {why}")))
}

/// The file without the end of its line. The message is for the person who named it.
fn read(path: &Path) -> Result<String, String> {
    let refused = |why: &dyn fmt::Display| format!("the password_file {}: {why}", path.display());
    let length = std::fs::metadata(path).map_err(|error| refused(&error.kind()))?.len();
    if length > MAX_PASSWORD_BYTES {
        return Err(refused(&format_args!("{length} bytes; at most {MAX_PASSWORD_BYTES}")));
    }
    let mut text = std::fs::read_to_string(path).map_err(|error| refused(&error.kind()))?;
    text.truncate(text.trim_end_matches(['\r', '\n']).len());
    if text.is_empty() { Err(refused(&"it is empty")) } else { Ok(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_holds_one_password_and_maybe_the_end_of_a_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("password");
        for (text, password) in [("p", "p"), ("p w\n", "p w"), (" p\r\n", " p"), ("a\nb\n", "a\nb")]
        {
            std::fs::write(&path, text).unwrap();
            assert_eq!(read(&path).as_deref(), Ok(password), "{text:?}");
        }
        for text in ["", "\n"] {
            std::fs::write(&path, text).unwrap();
            let error = check(&path).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config);
            assert!(error.to_string().contains("password_file"), "{error}");
        }
        std::fs::write(&path, "x".repeat(70_000)).unwrap();
        assert!(read(&path).unwrap_err().contains("70000 bytes"));
        assert!(read(&folder.path().join("none")).unwrap_err().contains("not found"));
    }

    #[test]
    fn a_password_is_not_shown() {
        let shown = format!("{:?}", Credentials::user("me", "s3ntinel-pw"));
        assert!(shown.contains("me") && shown.contains("***"), "{shown}");
        assert!(!shown.contains("s3ntinel"), "{shown}");
    }
}
