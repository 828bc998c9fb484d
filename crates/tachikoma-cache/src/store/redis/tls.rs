//! TLS to the server: rustls, which trusts the certificates that the system trusts.
//!
//! Decides only which cryptography is used where the program has not chosen one.

/// Whether `rediss://` can be used.
pub(super) const AVAILABLE: bool = true;

/// Chooses the cryptography of this process, unless that is done.
pub(super) fn prepare() {
    // An error: the program has chosen, and that holds.
    let _ = rustls::crypto::ring::default_provider().install_default();
}
