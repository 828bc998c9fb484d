//! Stands for `redis.rs` in a build without that feature.

use super::{Cache, CacheBuilder, CacheConfig};
use crate::error::{Error, ErrorKind};

/// Says which feature is off.
#[allow(clippy::unused_async)] // As the function that it stands for.
pub(super) async fn connect(
    _config: &CacheConfig,
    _builder: CacheBuilder<()>,
    _url: &str,
    _rest: Vec<(String, String)>,
) -> Result<Cache, Error> {
    Err(Error::new(ErrorKind::Config, "url: this build has no Redis store (feature `redis`)"))
}
