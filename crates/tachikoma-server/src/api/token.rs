//! Decides how session tokens look and how they are kept: 256 random bits for the client, a keyed
//! hash everywhere else.
//!
//! Only the client ever holds a token. The database and the cache see its BLAKE2b MAC (RFC 7693
//! §2.9), so whoever reads a row, a cache key or a log owns no session.

use std::fmt;

use blake2::{
    Blake2bMac,
    digest::{FixedOutput, KeyInit, Update, consts::U32},
};
use rand::RngExt;

/// Bytes of a token, of the key and of a hash.
const BYTES: usize = 32;

/// A session token as the client holds it. `Debug` does not show it.
pub(crate) struct Token(String);

impl Token {
    /// A new token from the operating system's seeded generator.
    pub(crate) fn random() -> Self {
        Self(hex(&random_bytes()))
    }

    /// The token in an `Authorization: Bearer …` header (RFC 6750 §2.1), if it looks like one.
    pub(crate) fn from_bearer(header: &str) -> Option<Self> {
        let (scheme, token) = header.split_once(' ')?;
        let token = token.trim();
        let looks_right = token.len() == BYTES * 2
            && token.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        (scheme.eq_ignore_ascii_case("bearer") && looks_right).then(|| Self(token.to_owned()))
    }

    /// The token itself, for the one answer that hands it out.
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// The keyed hash of a session token: what may be stored and logged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenHash([u8; BYTES]);

impl TokenHash {
    /// The bytes of the hash.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for TokenHash {
    /// In hexadecimal digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

/// Hashes tokens under one key, which all processes on one database share.
pub(crate) struct TokenHasher(Blake2bMac<U32>);

impl TokenHasher {
    /// A hasher with this key; `None` when it has another length than [`random_bytes`] gives.
    pub(crate) fn new(key: &[u8]) -> Option<Self> {
        if key.len() != BYTES {
            return None;
        }
        Blake2bMac::new_from_slice(key).ok().map(Self)
    }

    /// The hash of a token.
    pub(crate) fn hash(&self, token: &Token) -> TokenHash {
        let mut mac = self.0.clone();
        mac.update(token.0.as_bytes());
        TokenHash(mac.finalize_fixed().into())
    }
}

impl fmt::Debug for TokenHasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenHasher(…)")
    }
}

/// New random bytes, as many as a token and a key have.
pub(crate) fn random_bytes() -> [u8; BYTES] {
    let mut bytes = [0; BYTES];
    rand::rng().fill(&mut bytes);
    bytes
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |nibble: u8| char::from(DIGITS[usize::from(nibble)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_depends_on_the_token_and_on_the_key() {
        let (one, other) = (Token::random(), Token::random());
        let (first, second) =
            (TokenHasher::new(&[1; 32]).unwrap(), TokenHasher::new(&[2; 32]).unwrap());
        assert_eq!(first.hash(&one), first.hash(&one));
        assert_ne!(first.hash(&one), first.hash(&other));
        assert_ne!(first.hash(&one), second.hash(&one));
        assert!(!first.hash(&one).to_string().contains(one.reveal()));
        assert!(TokenHasher::new(&[1; 31]).is_none());
    }

    #[test]
    fn a_token_is_shown_to_its_client_only() {
        let token = Token::random();
        assert_eq!(token.reveal().len(), 64);
        assert_eq!(format!("{token:?}"), "Token(…)");
    }

    #[track_caller]
    fn check(header: &str, expected: bool) {
        assert_eq!(Token::from_bearer(header).is_some(), expected, "{header:?}");
    }

    #[test]
    fn only_a_bearer_token_of_our_form_is_looked_up() {
        let token = "0123456789abcdef".repeat(4);
        check(&format!("Bearer {token}"), true);
        check(&format!("bearer  {token}"), true);
        check(&format!("Basic {token}"), false);
        check(&format!("Bearer{token}"), false);
        check(&format!("Bearer {}", token.to_uppercase()), false);
        check(&format!("Bearer {token}0"), false);
        check(&format!("Bearer {token}, Bearer {token}"), false);
        check("Bearer", false);
        check("", false);
    }
}
