//! Decides what stands in a key for a secret: a digest that only who has the application's own
//! secret can make.
//!
//! Pure: HMAC-SHA-256 (RFC 2104). Without a secret of its own a digest of a short token could be
//! found by trying all of them.

use std::fmt::{self, Write as _};

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use crate::error::{Error, ErrorKind};

/// Shorter secrets can be guessed.
const MIN_SECRET_BYTES: usize = 16;

/// Makes parts of keys from what must not be seen: session tokens, e-mail addresses, API keys.
///
/// Keys stand in logs, in events, in lists of top keys and in Redis. A digest may stand there.
///
/// ```
/// # use tachikoma_cache::{CacheKeyBuilder, KeyHasher};
/// let hasher = KeyHasher::new("a secret of the application, at least 16 bytes")?;
/// let key = CacheKeyBuilder::new("session").add(hasher.hash("token-of-motoko")).build();
/// assert!(!key.contains("motoko"));
/// # Ok::<(), tachikoma_cache::Error>(())
/// ```
#[derive(Clone)]
pub struct KeyHasher(Hmac<Sha256>);

impl KeyHasher {
    /// With a secret of at least 16 bytes, which should be random: `openssl rand -hex 32`. All
    /// processes that share keys need the same one; with another one every key is new.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] if it is shorter.
    pub fn new(secret: impl AsRef<[u8]>) -> Result<Self, Error> {
        let secret = secret.as_ref();
        let hmac = Hmac::new_from_slice(secret).ok().filter(|_| secret.len() >= MIN_SECRET_BYTES);
        hmac.map(Self).ok_or_else(|| {
            let detail = format!("hash secret: at least {MIN_SECRET_BYTES} bytes are needed");
            Error::new(ErrorKind::Config, detail)
        })
    }

    /// The digest of a token: 64 hexadecimal digits.
    pub fn hash(&self, token: impl AsRef<[u8]>) -> String {
        let mut hmac = self.0.clone();
        hmac.update(token.as_ref());
        let mut digits = String::with_capacity(64);
        for byte in hmac.finalize().into_bytes() {
            // A string takes everything.
            let _ = write!(digits, "{byte:02x}");
        }
        digits
    }
}

impl fmt::Debug for KeyHasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_that_of_hmac_sha_256() {
        // RFC 4231, test case 1.
        let hasher = KeyHasher::new([0x0B; 20]).unwrap();
        let expected = "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7";
        assert_eq!(hasher.hash("Hi There"), expected);
    }

    #[test]
    fn another_token_or_another_secret_is_another_digest() {
        let one = KeyHasher::new("0123456789abcdef").unwrap();
        let other = KeyHasher::new("0123456789abcdeg").unwrap();
        assert_ne!(one.hash("a"), one.hash("b"));
        assert_ne!(one.hash("a"), other.hash("a"));
        assert_eq!(one.hash("a"), one.clone().hash(b"a"));
    }

    #[test]
    fn a_secret_is_long_enough_and_never_shown() {
        let error = KeyHasher::new("s3ntinel-pw").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(!format!("{error} {error:?}").contains("s3ntinel"));
        let hasher = KeyHasher::new("s3ntinel-pw-s3ntinel-pw").unwrap();
        assert!(!format!("{hasher:?}").contains("s3ntinel"));
    }
}
