//! Stands for `signature.rs` in a build without the feature `sign`: there are no keys, and what
//! others signed is read without a look at the signature.

use crate::error::{Error, ErrorKind};
use crate::key::Key;

/// A key to sign entries with. Without the feature `sign` there is none.
#[derive(Debug, Clone)]
pub enum SignKey {}

impl SignKey {
    /// Says which feature is off.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`], always.
    pub fn new(_: impl AsRef<[u8]>) -> Result<Self, Error> {
        Err(Error::new(ErrorKind::Config, "sign_key: it needs the feature \"sign\""))
    }
}

/// No keys: there is none to put in.
#[derive(Debug, Clone, Default)]
pub(crate) struct SignKeys(Vec<SignKey>);

impl SignKeys {
    pub(crate) fn sign_with(&mut self, key: SignKey) {
        self.0.push(key);
    }

    pub(crate) fn accept(&mut self, key: SignKey) {
        self.0.push(key);
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        self.0.first().map_or(Ok(()), |key| match *key {})
    }

    pub(crate) fn sign(&self, _: &Key<'_>, _: &[u8]) -> Option<[u8; 32]> {
        self.0.first().map(|key| match *key {})
    }

    pub(crate) fn are_needed(&self) -> bool {
        !self.0.is_empty()
    }

    pub(crate) fn accept_signature(&self, _: &Key<'_>, _: &[u8], _: &[u8]) -> bool {
        self.0.first().is_some_and(|key| match *key {})
    }
}
