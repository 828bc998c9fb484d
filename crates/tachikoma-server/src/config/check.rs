//! Decides whether settings that are each right also work together, and reads the secrets.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use tachikoma_cache::{Clock as _, SystemClock};

use super::error::{ConfigError, quoted};
use super::file;
use super::responses::checked;
use super::sections::Proxy;
use super::settings::{Config, Secrets};
use super::units::{Size, Span};
use super::values::{Admin, Secret};
use crate::tls;

/// Reads the secrets from the files and variables that name them.
pub(super) fn secrets(
    config: &Config,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Secrets, ConfigError> {
    let one = |name: &str, path: Option<&Path>| match (path, variable(name)) {
        (Some(path), _) => secret_file(name, path).map(Some),
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

/// The secret that the variable `name` would hold, from the file that is named instead.
fn secret_file(name: &str, path: &Path) -> Result<Secret, ConfigError> {
    let setting = name.trim_start_matches("TACHIKOMA_").to_ascii_lowercase();
    let refused = |why: String| ConfigError::new(why).at(format!("{setting}_file"));
    let text = file::read(path).map_err(|error| refused(error.to_string()))?;
    warn_if_readable_by_all(path);
    Secret::new(&text).map_err(|allowed| refused(format!("{}: {allowed}", path.display())))
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
    if config.upstream.is_none() && config.upstreams.is_empty() && !config.api {
        return Err(ConfigError::new("nothing to serve: neither upstream nor api is set")
            .hint("tachikoma serve --upstream http://127.0.0.1:3000, or --api, or both"));
    }
    certificates(config)?;
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
    upstreams(config)?;
    responses(config)?;
    for origin in config.origins() {
        let upstream = &origin.url;
        let own = [Some(listen), if let Admin::At(at) = config.admin { Some(at) } else { None }];
        let host = if upstream.host() == "localhost" { "127.0.0.1" } else { upstream.host() };
        let at = host.parse().map(|ip| SocketAddr::new(ip, upstream.port()));
        if at.is_ok_and(|at| own.into_iter().flatten().any(|own| same_place(own, at))) {
            let name = &origin.name;
            return Err(ConfigError::new(format!("{name}: {upstream} is this server itself"))
                .hint("give the address of the origin server"));
        }
    }
    Ok(())
}

/// Refuses certificates that clients would refuse, before the first one does.
fn certificates(config: &Config) -> Result<(), ConfigError> {
    let both = "set both, or neither";
    match (&config.tls.cert, &config.tls.key) {
        (Some(_), None) => {
            return Err(ConfigError::new("tls.cert is set, tls.key is not").hint(both));
        }
        (None, Some(_)) => {
            return Err(ConfigError::new("tls.key is set, tls.cert is not").hint(both));
        }
        (Some(cert), Some(key)) => {
            warn_if_readable_by_all(key);
            tls::Acceptor::load(cert, key, SystemClock::new().wall())?;
        }
        (None, None) => {}
    }
    if let Some(ca) = &config.tls.upstream_ca {
        tls::Trust::load(Some(ca))?;
    }
    Ok(())
}

/// Refuses upstreams that contradict each other or lie outside their ranges.
fn upstreams(config: &Config) -> Result<(), ConfigError> {
    if config.upstream.is_some() && !config.upstreams.is_empty() {
        return Err(ConfigError::new("upstream and [[upstreams]] are both set")
            .hint("write the one as [[upstreams]] too; without hosts it answers for all others"));
    }
    let mut names = BTreeSet::new();
    let mut places = BTreeMap::new();
    for said in &config.upstreams {
        let name = &said.name;
        let is_name = (1..=64).contains(&name.len())
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
        if !is_name {
            return Err(ConfigError::new(format!(
                "upstreams.name: {} is refused: 1 to 64 letters, digits and `-_.` are allowed",
                quoted(name)
            )));
        }
        if !names.insert(name) {
            return Err(ConfigError::new(format!(
                "upstreams.name: {} is there twice: each has its own",
                quoted(name)
            )));
        }
        let all = [String::new()];
        let hosts: Vec<String> = said.hosts.iter().map(ToString::to_string).collect();
        for host in if hosts.is_empty() { &all[..] } else { &hosts } {
            let place = (host.clone(), said.path_prefix.clone());
            if let Some(other) = places.insert(place, name) {
                let whose = if host.is_empty() { "all hosts" } else { host };
                return Err(ConfigError::new(format!(
                    "upstreams {other} and {name} both answer for {whose} under {}",
                    said.path_prefix
                ))
                .hint("give them different hosts or a different path_prefix"));
            }
        }
        terms(&format!("upstreams.{name}"), &said.terms(&config.proxy))?;
    }
    Ok(())
}

/// Refuses bounds of the response cache outside their ranges, and rules that cannot work.
fn responses(config: &Config) -> Result<(), ConfigError> {
    let said = &config.responses;
    let (least, most) = (Size(1 << 10), Size(1 << 30));
    for (name, size) in
        [("max_body_size", said.max_body_size), ("max_fill_bytes", said.max_fill_bytes)]
    {
        if !(least..=most).contains(&size) {
            return Err(outside(&format!("responses.{name}"), &size, &least, &most));
        }
    }
    let (few, many) = (Size(8 << 20), Size(1 << 40));
    if !(few..=many).contains(&said.max_large_bytes) {
        return Err(outside("responses.max_large_bytes", &said.max_large_bytes, &few, &many));
    }
    // One value of Redis per response: a larger one would hold up all others on its connection. It
    // is kept in memory, with its head.
    let room = Size(said.max_large_bytes.0.saturating_sub(1 << 20).max(few.0));
    if !config.cache.is_memory() && said.max_body_size > room {
        let name = "responses.max_body_size";
        return Err(outside(name, &said.max_body_size, &least, &room).hint(
            "over 8MiB a response is kept in memory, not in Redis: max_large_bytes is for all of \
             them, and must be 1MiB more",
        ));
    }
    if said.max_body_size > said.max_fill_bytes {
        let (name, most) = ("responses.max_body_size", said.max_fill_bytes);
        return Err(outside(name, &said.max_body_size, &least, &most)
            .hint("max_fill_bytes is for all that is arriving together, so for one too"));
    }
    wait("responses.wait_limit", said.wait_limit, Duration::ZERO)?;
    wait("responses.finish_limit", said.finish_limit, Duration::ZERO)?;
    checked(&config.rules).map(drop)
}

/// Whether a connection to `at` would reach a listener bound to `own`.
pub(crate) fn same_place(own: SocketAddr, at: SocketAddr) -> bool {
    let covers = own.ip() == at.ip()
        || at.ip().is_unspecified()
        || (own.ip().is_unspecified() && at.ip().is_loopback());
    own.port() != 0 && own.port() == at.port() && covers
}

fn ranges(config: &Config) -> Result<(), ConfigError> {
    let limits = &config.limits;
    wait("drain", config.drain, Duration::ZERO)?;
    wait("limits.head_timeout", limits.head_timeout, INSTANT)?;
    wait("limits.body_timeout", limits.body_timeout, INSTANT)?;
    terms("proxy", &config.proxy)?;
    let (least, most) = (Size(8 << 10), Size(1 << 20));
    if !(least..=most).contains(&limits.head_bytes) {
        return Err(outside("limits.head_bytes", &limits.head_bytes, &least, &most));
    }
    let least = Size(1 << 10);
    if !(least..=limits.head_bytes).contains(&limits.line_bytes) {
        return Err(outside("limits.line_bytes", &limits.line_bytes, &least, &limits.head_bytes));
    }
    let (least, most) = (Size(1 << 10), Size(1 << 40));
    if !(least..=most).contains(&limits.body_bytes) {
        return Err(outside("limits.body_bytes", &limits.body_bytes, &least, &most));
    }
    if !(10..=1000).contains(&limits.head_fields) {
        return Err(outside("limits.head_fields", &limits.head_fields, &10, &1000));
    }
    if !(1..=1_000_000).contains(&limits.connections) {
        return Err(outside("limits.connections", &limits.connections, &1, &1_000_000));
    }
    Ok(())
}

const INSTANT: Duration = Duration::from_millis(1);

fn wait(name: &str, span: Span, least: Duration) -> Result<(), ConfigError> {
    let day = Duration::from_secs(86_400);
    if (least..=day).contains(&span.0) {
        return Ok(());
    }
    Err(outside(name, &span, &Span(least), &Span(day)))
}

/// The waits on an upstream and its bounds.
fn terms(section: &str, terms: &Proxy) -> Result<(), ConfigError> {
    let name = |key: &str| format!("{section}.{key}");
    wait(&name("connect_timeout"), terms.connect_timeout, INSTANT)?;
    wait(&name("head_timeout"), terms.head_timeout, INSTANT)?;
    wait(&name("body_timeout"), terms.body_timeout, INSTANT)?;
    wait(&name("wait_timeout"), terms.wait_timeout, Duration::ZERO)?;
    if !(1..=1_000_000).contains(&terms.max_concurrent) {
        return Err(outside(&name("max_concurrent"), &terms.max_concurrent, &1, &1_000_000));
    }
    if terms.max_waiting > 1_000_000 {
        return Err(outside(&name("max_waiting"), &terms.max_waiting, &0, &1_000_000));
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
