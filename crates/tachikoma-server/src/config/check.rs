//! Decides whether settings that are each right also work together, and reads the secrets.

use std::path::Path;
use std::time::Duration;

use super::error::{ConfigError, quoted};
use super::units::Span;
use super::values::{Admin, Secret};
use super::{Config, Secrets, file};

use std::net::SocketAddr;

/// Reads the secrets from the files and variables that name them.
pub(super) fn secrets(
    config: &Config,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Secrets, ConfigError> {
    let one = |name: &str, path: Option<&Path>| match (path, variable(name)) {
        (Some(path), _) => secret_file(path).map(Some),
        (None, Some(text)) => Secret::new(&text)
            .map(Some)
            .map_err(|allowed| ConfigError::new(allowed.to_string()).at(name)),
        (None, None) => Ok(None),
    };
    let secrets = Secrets {
        admin: one("TACHIKOMA_ADMIN_TOKEN", config.admin_token_file.as_deref())?,
        admin_read: one("TACHIKOMA_ADMIN_READ_TOKEN", config.admin_read_token_file.as_deref())?,
    };
    if secrets.admin_read.is_some() && secrets.admin.is_none() {
        // Without it the listener would be open to all who can reach it, for writing too.
        return Err(ConfigError::new("a read token is set, but no admin token")
            .hint("set admin_token_file or TACHIKOMA_ADMIN_TOKEN as well"));
    }
    if secrets.admin.is_some() && secrets.admin == secrets.admin_read {
        return Err(ConfigError::new("the admin token and the read token are the same"));
    }
    Ok(secrets)
}

fn secret_file(path: &Path) -> Result<Secret, ConfigError> {
    warn_if_readable_by_all(path);
    Secret::new(&file::read(path)?)
        .map_err(|allowed| ConfigError::new(allowed.to_string()).at(path.display().to_string()))
}

#[cfg(unix)]
fn warn_if_readable_by_all(path: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    let mode = std::fs::metadata(path).map_or(0, |meta| meta.permissions().mode());
    if mode & 0o004 != 0 {
        eprintln!("warning: {}: every user can read this secret (chmod 600)", path.display());
    }
}

#[cfg(not(unix))]
fn warn_if_readable_by_all(_path: &Path) {}

/// Refuses settings that contradict each other or lie outside their range.
pub(super) fn together(config: &Config) -> Result<(), ConfigError> {
    ranges(config)?;
    if config.upstream.is_none() && !config.api {
        return Err(ConfigError::new("nothing to serve: neither upstream nor api is set")
            .hint("tachikoma serve --upstream http://127.0.0.1:3000, or --api, or both"));
    }
    let listen = config.listen.0;
    if let Admin::At(admin) = config.admin {
        if same_place(listen, admin) {
            return Err(ConfigError::new(format!("listen and admin are both {admin}"))
                .hint("the admin API has its own port: --admin 127.0.0.1:9090, or --admin off"));
        }
        if !admin.ip().is_loopback() && config.secrets.admin.is_none() {
            return Err(ConfigError::new(format!(
                "admin: {admin} can be reached by others, and no token is set"
            ))
            .hint("--admin-token-file FILE or TACHIKOMA_ADMIN_TOKEN, or a loopback address"));
        }
    }
    if let Some(upstream) = &config.upstream {
        let own = [Some(listen), if let Admin::At(at) = config.admin { Some(at) } else { None }];
        let host = if upstream.host() == "localhost" { "127.0.0.1" } else { upstream.host() };
        let at = host.parse().map(|ip| SocketAddr::new(ip, upstream.port()));
        if at.is_ok_and(|at| own.into_iter().flatten().any(|own| same_place(own, at))) {
            return Err(ConfigError::new(format!("upstream: {upstream} is this server itself"))
                .hint("give the address of the origin server"));
        }
    }
    Ok(())
}

/// Whether a connection to `at` would reach a listener bound to `own`.
pub(crate) fn same_place(own: SocketAddr, at: SocketAddr) -> bool {
    let covers = own.ip() == at.ip()
        || at.ip().is_unspecified()
        || (own.ip().is_unspecified() && at.ip().is_loopback());
    own.port() != 0 && own.port() == at.port() && covers
}

fn ranges(config: &Config) -> Result<(), ConfigError> {
    let day = Duration::from_secs(86_400);
    let instant = Duration::from_millis(1);
    let waits = [
        ("drain", config.drain, Duration::ZERO),
        ("proxy.connect_timeout", config.proxy.connect_timeout, instant),
        ("proxy.head_timeout", config.proxy.head_timeout, instant),
        ("proxy.body_timeout", config.proxy.body_timeout, instant),
        ("limits.head_timeout", config.limits.head_timeout, instant),
        ("limits.body_timeout", config.limits.body_timeout, instant),
    ];
    for (name, span, least) in waits {
        if !(least..=day).contains(&span.0) {
            return Err(outside(name, &span, &Span(least), &Span(day)));
        }
    }
    let limits = &config.limits;
    let (least, most) = (super::Size(8 << 10), super::Size(1 << 20));
    if !(least..=most).contains(&limits.head_bytes) {
        return Err(outside("limits.head_bytes", &limits.head_bytes, &least, &most));
    }
    if !(10..=1000).contains(&limits.head_fields) {
        return Err(outside("limits.head_fields", &limits.head_fields, &10, &1000));
    }
    if !(1..=1_000_000).contains(&limits.connections) {
        return Err(outside("limits.connections", &limits.connections, &1, &1_000_000));
    }
    Ok(())
}

fn outside<T: ToString>(name: &str, value: &T, least: &T, most: &T) -> ConfigError {
    ConfigError::new(format!(
        "{name}: {} is refused: between {} and {} is allowed",
        quoted(&value.to_string()),
        least.to_string(),
        most.to_string()
    ))
}
