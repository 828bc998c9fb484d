//! Decides how passwords are hashed and checked: Argon2id with the parameters that the `argon2`
//! crate recommends (19 MiB, two passes: OWASP's first choice), each with its own salt.
//!
//! Bounded: a hash takes a core and 19 MiB, so few run at once and a request waits only a short
//! time for its turn. Never logs, shows or keeps a password.

use std::{fmt, sync::Arc};

use argon2::{Argon2, PasswordHasher, PasswordVerifier};
use tokio::sync::Semaphore;

use super::{limits, problem::Problem};

/// A hash with the parameters of all others that no known password has: the check for an unknown
/// email address takes as long as that of a wrong password.
const DECOY: &str = "$argon2id$v=19$m=19456,t=2,p=1$YSBzYWx0IG9mIG5vYm9keQ$\
                     AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8";

/// A password as it was sent. `Debug` does not show it.
#[derive(Clone)]
pub(crate) struct Password(String);

impl Password {
    /// A password that has been found valid.
    pub(crate) fn new(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(…)")
    }
}

/// Hashes and checks passwords, a few at a time.
#[derive(Debug)]
pub(crate) struct Passwords {
    turns: Arc<Semaphore>,
}

impl Default for Passwords {
    fn default() -> Self {
        Self { turns: Arc::new(Semaphore::new(limits::HASHES_AT_ONCE)) }
    }
}

impl Passwords {
    /// The hash of a new password in PHC string format, with a fresh salt.
    pub(crate) async fn hash(&self, password: Password) -> Result<String, Problem> {
        let hashed = self.run(move || {
            Argon2::default().hash_password(password.0.as_bytes()).map(|hash| hash.to_string())
        });
        hashed.await?.map_err(|error| {
            tracing::error!(%error, "a password could not be hashed");
            Problem::internal()
        })
    }

    /// Whether the password has this hash; with no hash it takes as long and says no.
    pub(crate) async fn check(
        &self,
        password: Password,
        hash: Option<String>,
    ) -> Result<bool, Problem> {
        let known = hash.is_some();
        let hash = hash.unwrap_or_else(|| DECOY.to_owned());
        let checked = self.run(move || {
            Argon2::default().verify_password(password.0.as_bytes(), hash.as_str()).is_ok()
        });
        Ok(checked.await? && known)
    }

    /// Runs `work` on a thread for blocking work, in its turn.
    async fn run<T, F>(&self, work: F) -> Result<T, Problem>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        let turn = Arc::clone(&self.turns).acquire_owned();
        let Ok(Ok(turn)) = tokio::time::timeout(limits::HASH_WAIT, turn).await else {
            return Err(Problem::busy("too many passwords are being checked"));
        };
        // The turn goes along: a caller that leaves does not free it before the work has ended.
        let done = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            work()
        });
        done.await.map_err(|error| {
            tracing::error!(%error, "the check of a password did not end");
            Problem::internal()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn password(text: &str) -> Password {
        Password::new(text.to_owned())
    }

    #[tokio::test]
    async fn a_password_has_its_own_hash_only_and_each_hash_its_salt() {
        let passwords = Passwords::default();
        let hash = passwords.hash(password("correct horse")).await.unwrap();
        let parameters = "$argon2id$v=19$m=19456,t=2,p=1$";
        assert!(hash.starts_with(parameters), "{hash}");
        assert!(DECOY.starts_with(parameters) && DECOY.len() == hash.len(), "{hash}");
        assert_ne!(hash, passwords.hash(password("correct horse")).await.unwrap());
        assert!(passwords.check(password("correct horse"), Some(hash.clone())).await.unwrap());
        assert!(!passwords.check(password("wrong horse"), Some(hash)).await.unwrap());
        assert!(!passwords.check(password("correct horse"), None).await.unwrap());
        assert!(!passwords.check(password("x"), Some("no hash".into())).await.unwrap());
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_waits_for_its_turn_only_so_long() {
        let passwords = Passwords { turns: Arc::new(Semaphore::new(0)) };
        let refused = passwords.hash(password("late")).await.unwrap_err();
        assert_eq!(refused.status(), http::StatusCode::SERVICE_UNAVAILABLE);
    }

    #[test]
    fn a_password_is_not_shown() {
        assert_eq!(format!("{:?}", password("hunter2")), "Password(…)");
    }
}
