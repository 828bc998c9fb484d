//! TLS for clients and towards upstreams: rustls with ring, the same that Redis connections use.
//!
//! Decides which certificate is shown, which are trusted, and which HTTP is offered; says what is
//! wrong with a certificate before the server starts. The time comes in as an argument.

mod connector;
mod validity;

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;

use crate::config::error::ConfigError;
pub(crate) use connector::{Connector, connect_to};

/// Whether TLS is built in.
pub(crate) const AVAILABLE: bool = true;

/// A stream within TLS.
pub(crate) type Stream<S> = tokio_rustls::server::TlsStream<S>;

/// What speaks TLS with clients. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Acceptor(TlsAcceptor);

impl Acceptor {
    /// Reads the certificate chain and its key from PEM files.
    ///
    /// # Errors
    ///
    /// A file cannot be read or holds nothing of its kind, the certificate is not valid at `now`,
    /// or the key is another's. No error holds a part of the key.
    pub(crate) fn load(cert: &Path, key: &Path, now: SystemTime) -> Result<Self, ConfigError> {
        let chain = certificates(cert, "tls.cert")?;
        if let Some(own) = chain.first()
            && let Err(why) = validity::check(own, now)
        {
            return Err(wrong("tls.cert", cert, &why));
        }
        let pem = read(key, "tls.key")?;
        let secret = PrivateKeyDer::from_pem_slice(&pem)
            .map_err(|_| wrong("tls.key", key, "holds no private key in PEM form"))?;
        let config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| wrong("tls", cert, &error.to_string()))?
            .with_no_client_auth()
            .with_single_cert(chain, secret);
        let mut config = config.map_err(|error| {
            if matches!(error, rustls::Error::InconsistentKeys(_)) {
                let other = format!("is not the key of the certificate in {}", cert.display());
                return wrong("tls.key", key, &other);
            }
            wrong("tls.cert", cert, &format!("cannot be used: {error}"))
        })?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self(TlsAcceptor::from(Arc::new(config))))
    }

    /// Shakes hands; also says whether HTTP/2 was agreed on.
    pub(crate) async fn accept<S>(&self, stream: S) -> io::Result<(bool, Stream<S>)>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let stream = self.0.accept(stream).await?;
        let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        Ok((is_http2, stream))
    }
}

/// Which servers are trusted: those the system trusts, and those that a file of PEM certificates
/// vouches for. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Trust(Arc<ClientConfig>);

impl Trust {
    /// # Errors
    ///
    /// The file cannot be read or holds no certificate.
    pub(crate) fn load(also: Option<&Path>) -> Result<Self, ConfigError> {
        let mut roots = RootCertStore::empty();
        // What cannot be read of the system's certificates is not trusted, and no reason to stop:
        // a connection that needs it fails and says so.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if let Some(path) = also {
            for certificate in certificates(path, "tls.upstream_ca")? {
                roots
                    .add(certificate)
                    .map_err(|error| wrong("tls.upstream_ca", path, &error.to_string()))?;
            }
        }
        let config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| ConfigError::new(format!("tls: {error}")))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self(Arc::new(config)))
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn certificates(path: &Path, name: &str) -> Result<Vec<CertificateDer<'static>>, ConfigError> {
    let pem = read(path, name)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        _ => Err(wrong(name, path, "holds no certificate in PEM form")),
    }
}

/// At most a MiB of a regular file: more is no certificate, and a pipe may never end.
fn read(path: &Path, name: &str) -> Result<Vec<u8>, ConfigError> {
    let cannot = |error: io::Error| wrong(name, path, &format!("cannot be read: {error}"));
    if !std::fs::metadata(path).map_err(cannot)?.is_file() {
        return Err(wrong(name, path, "is not a regular file"));
    }
    let mut bytes = Vec::new();
    File::open(path).and_then(|file| file.take(1 << 20).read_to_end(&mut bytes)).map_err(cannot)?;
    Ok(bytes)
}

fn wrong(name: &str, path: &Path, why: &str) -> ConfigError {
    ConfigError::new(format!("{name}: {} {why}", path.display()))
}
