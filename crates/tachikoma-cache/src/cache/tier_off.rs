//! Stands for `tier.rs` in a build without memory.

use std::sync::Arc;

use super::CacheConfig;
use crate::clock::Clock;
use crate::error::{Error, ErrorKind};
use crate::store::Store;
use crate::store::redis::RedisConfig;

/// A build without memory keeps no copies.
pub(super) const IS_DEFAULT: bool = false;

/// Says which feature is off.
#[allow(clippy::unused_async)] // As the function that it stands for.
pub(super) async fn connect(
    _config: &CacheConfig,
    _redis: RedisConfig,
    _clock: Arc<dyn Clock>,
) -> Result<Arc<dyn Store>, Error> {
    Err(Error::new(ErrorKind::Config, "memory: this build has no memory (feature `memory`)"))
}
