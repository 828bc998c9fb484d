//! Decides whether an entry was written by somebody who has the key: HMAC-SHA-256 (RFC 2104) over
//! the names of its place and all its bytes.
//!
//! Pure. The place is signed too, so that nobody can move an entry to another key or namespace. An
//! older entry of the same key is as good as the newest, for as long as it has not expired: against
//! replay there is only the time to live. No key is ever shown.

use std::fmt;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use crate::error::{Error, ErrorKind};
use crate::key::Key;

/// Shorter keys can be guessed.
const MIN_KEY_BYTES: usize = 16;

/// A key to sign entries with, and to check them. Never shown.
#[derive(Clone)]
pub struct SignKey(Hmac<Sha256>);

impl SignKey {
    /// A key of at least 16 bytes, which should be random: `openssl rand -hex 32`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] if it is shorter, or without the feature `sign`.
    pub fn new(key: impl AsRef<[u8]>) -> Result<Self, Error> {
        let key = key.as_ref();
        let refused = || {
            let detail = format!("sign_key: at least {MIN_KEY_BYTES} bytes are needed");
            Error::new(ErrorKind::Config, detail)
        };
        if key.len() < MIN_KEY_BYTES {
            return Err(refused());
        }
        Hmac::new_from_slice(key).map(Self).map_err(|_| refused())
    }

    fn of(&self, place: &Key<'_>, bytes: &[u8]) -> Hmac<Sha256> {
        let mut mac = self.0.clone();
        // With their lengths, so that the parts cannot shift.
        for part in [place.namespace().as_str(), place.name()] {
            mac.update(&(part.len() as u64).to_le_bytes());
            mac.update(part.as_bytes());
        }
        mac.update(bytes);
        mac
    }
}

impl fmt::Debug for SignKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// The keys of a cache. None: entries are not signed.
#[derive(Debug, Clone, Default)]
pub(crate) struct SignKeys {
    sign: Option<SignKey>,
    accept: Vec<SignKey>,
}

impl SignKeys {
    /// Signs with this key.
    pub(crate) fn sign_with(&mut self, key: SignKey) {
        self.sign = Some(key);
    }

    /// Accepts this key, too.
    pub(crate) fn accept(&mut self, key: SignKey) {
        self.accept.push(key);
    }

    /// Says that a key is missing to sign with.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`].
    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.sign.is_none() && !self.accept.is_empty() {
            return Err(Error::new(ErrorKind::Config, "accept_key: it needs a sign_key beside it"));
        }
        Ok(())
    }

    /// The signature of an entry's bytes at its place; `None` if entries are not signed.
    pub(crate) fn sign(&self, place: &Key<'_>, bytes: &[u8]) -> Option<[u8; 32]> {
        let key = self.sign.as_ref()?;
        Some(key.of(place, bytes).finalize().into_bytes().into())
    }

    /// Whether entries need a signature.
    pub(crate) fn are_needed(&self) -> bool {
        self.sign.is_some()
    }

    /// Whether one of the keys made this signature. The time it takes tells nothing about it.
    pub(crate) fn accept_signature(&self, place: &Key<'_>, bytes: &[u8], signed: &[u8]) -> bool {
        let mut keys = self.sign.iter().chain(&self.accept);
        keys.any(|key| key.of(place, bytes).verify_slice(signed).is_ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Namespace;

    const KEY: &str = "s3ntinel-0123456";

    fn keys(sign: &str, accept: &[&str]) -> SignKeys {
        let mut keys = SignKeys::default();
        keys.sign_with(SignKey::new(sign).unwrap());
        for key in accept {
            keys.accept(SignKey::new(key).unwrap());
        }
        keys
    }

    #[test]
    fn a_signature_is_good_for_one_place_and_its_bytes() {
        let keys = keys(KEY, &[]);
        let (space, other) = (Namespace::new("ab").unwrap(), Namespace::new("a").unwrap());
        let place = |space, name: &'static str| Key::new(space, name).unwrap();
        let signed = keys.sign(&place(&space, "c"), b"value").unwrap();
        let accepted = |key: &Key<'_>, bytes: &[u8]| keys.accept_signature(key, bytes, &signed);
        assert!(accepted(&place(&space, "c"), b"value"));
        assert!(!accepted(&place(&space, "d"), b"value"));
        assert!(!accepted(&place(&other, "bc"), b"value"), "the parts cannot shift");
        assert!(!accepted(&place(&space, "c"), b"valuf"));
        assert!(!keys.accept_signature(&place(&space, "c"), b"value", &signed[..31]));
    }

    #[test]
    fn two_keys_are_accepted_while_they_are_rotated() {
        let (old, new) = ("the old key......", "the new key......");
        let space = Namespace::default();
        let place = Key::new(&space, "k").unwrap();
        let by_old = keys(old, &[]).sign(&place, b"v").unwrap();
        assert!(keys(new, &[old]).accept_signature(&place, b"v", &by_old));
        assert!(keys(old, &[new]).accept_signature(&place, b"v", &by_old));
        assert!(!keys(new, &[]).accept_signature(&place, b"v", &by_old));
        let by_new = keys(new, &[old]).sign(&place, b"v").unwrap();
        assert!(keys(new, &[]).accept_signature(&place, b"v", &by_new));
    }

    #[test]
    fn a_key_is_long_enough_and_never_shown() {
        let error = SignKey::new("s3ntinel-012345").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        let shown = format!("{error} {error:?} {:?}", keys(KEY, &[KEY]));
        let mut no_key_to_sign = SignKeys::default();
        assert!(no_key_to_sign.check().is_ok());
        no_key_to_sign.accept(SignKey::new(KEY).unwrap());
        assert_eq!(no_key_to_sign.check().unwrap_err().kind(), ErrorKind::Config);
        assert!(!shown.contains("s3ntinel"), "{shown}");
    }

    /// By Python: `hmac.new(key, place + bytes, "sha256")`.
    #[test]
    fn the_signature_keeps_its_form() {
        let space = Namespace::new("shop").unwrap();
        let signed = keys(KEY, &[]).sign(&Key::new(&space, "user:1").unwrap(), b"bytes").unwrap();
        assert_eq!(signed[..4], [0xe3, 0xdf, 0x3b, 0x1c]);
    }
}
