//! Decides the settings a server runs with, and refuses those that cannot work.
//!
//! Sources, the stronger first: flags, `TACHIKOMA_*` variables, the file, the defaults. One struct,
//! [`Settings`], is what a source may say; [`Config`] is what holds after all have spoken. Nothing
//! is opened or bound here except the files that are named.

mod check;
pub(crate) mod error;
pub mod file;
pub mod networks;
pub(crate) mod redact;
pub mod responses;
mod sections;
mod settings;
mod suggest;
mod text;
pub mod units;
pub mod upstreams;
pub mod values;

pub(crate) use check::same_place;
pub use error::ConfigError;
pub use sections::{LimitSettings, Limits, Proxy, ProxySettings};
pub use settings::{Config, Secrets, Settings, Tls, TlsSettings};

impl Config {
    /// Lets `file` and then `flags` (which hold the variables too) overrule the defaults, reads
    /// the secrets that are named, and checks that it all fits together.
    ///
    /// `variable` reads an environment variable: the secrets that no flag may carry, because
    /// flags show in the list of processes.
    ///
    /// # Errors
    ///
    /// The first setting that cannot work, by name, with what is allowed.
    pub fn resolve(
        file: Settings,
        flags: Settings,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, ConfigError> {
        let mut config = Self::default();
        config.apply(file);
        config.apply(flags);
        config.secrets = check::secrets(&config, variable)?;
        check::together(&config)?;
        Ok(config)
    }
}

#[cfg(test)]
mod tests;
