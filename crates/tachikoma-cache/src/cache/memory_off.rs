//! Stands for `memory.rs` in a build without that feature.

use super::{Cache, CacheBuilder, CacheConfig};
use crate::error::{Error, ErrorKind};

/// Says which feature is off.
pub(super) fn build(_config: &CacheConfig, _builder: CacheBuilder<()>) -> Result<Cache, Error> {
    Err(Error::new(ErrorKind::Config, "url: this build has no store in memory (feature `memory`)"))
}
