//! Stands for `tls.rs` in a build without that feature: nothing of it can be had.

use std::convert::Infallible;
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

use hyper_util::client::legacy::connect::HttpConnector;

use crate::config::error::ConfigError;

/// Whether TLS is built in.
pub(crate) const AVAILABLE: bool = false;

/// A stream within TLS, which there is not.
pub(crate) type Stream<S> = S;

/// What connects to an upstream.
pub(crate) type Connector = HttpConnector;

#[allow(clippy::unnecessary_wraps, reason = "it is one with the feature")]
pub(crate) fn connect_to(
    _: Option<&str>,
    _: Option<&Trust>,
    limit: Duration,
) -> anyhow::Result<Connector> {
    let mut http = HttpConnector::new();
    http.set_connect_timeout(Some(limit));
    http.set_nodelay(true);
    Ok(http)
}

/// What would speak TLS with clients.
#[derive(Clone)]
pub(crate) struct Acceptor(Infallible);

/// Which servers would be trusted.
#[derive(Clone)]
pub(crate) struct Trust(Infallible);

impl Acceptor {
    pub(crate) fn load(_: &Path, _: &Path, _: SystemTime) -> Result<Self, ConfigError> {
        Err(ConfigError::new("tls: this program was built without the feature `tls`"))
    }

    #[allow(clippy::unused_async, reason = "it is one with the feature")]
    pub(crate) async fn accept<S>(&self, _: S) -> io::Result<(bool, Stream<S>)> {
        match self.0 {}
    }
}

impl Trust {
    pub(crate) fn load(_: Option<&Path>) -> Result<Self, ConfigError> {
        Err(ConfigError::new("tls: this program was built without the feature `tls`"))
    }
}
