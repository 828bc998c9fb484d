//! Reads a configuration file: bounded, regular files only, each error with its line.

use std::fs;
use std::io::Read;
use std::path::Path;

use super::error::{ConfigError, quoted};
use super::redact::redacted;
use super::settings::{Config, Settings};
use super::suggest::nearest;

/// The largest file that is read: one MiB, far more than any set of settings needs.
pub const MAX_BYTES: u64 = 1 << 20;

/// Reads and parses the file at `path`.
///
/// # Errors
///
/// It cannot be read, is not a regular file of at most [`MAX_BYTES`], is not UTF-8, not TOML, has
/// an unknown key or a value that is not allowed.
pub fn load(path: &Path) -> Result<Settings, ConfigError> {
    parse(&read(path)?, &path.display().to_string())
}

/// Reads the text of a file; of a pipe or a device nothing, because it may never end.
pub(super) fn read(path: &Path) -> Result<String, ConfigError> {
    let fail = |message: String| ConfigError::new(message).at(path.display().to_string());
    let cannot = |error: std::io::Error| fail(format!("cannot be read: {error}"));
    // Looked at before it is opened: opening a pipe waits for somebody to write.
    if !fs::metadata(path).map_err(cannot)?.is_file() {
        return Err(fail("not a regular file".to_owned()));
    }
    let mut bytes = Vec::new();
    fs::File::open(path)
        .and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut bytes))
        .map_err(cannot)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(fail("larger than 1 MiB".to_owned()));
    }
    String::from_utf8(bytes).map_err(|_| fail("not UTF-8".to_owned()))
}

/// Parses the text of a configuration file; `name` is how errors call it.
///
/// # Errors
///
/// As [`load`], without those of reading.
pub fn parse(text: &str, name: &str) -> Result<Settings, ConfigError> {
    // Some editors begin a file with a byte order mark.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    toml::from_str(text).map_err(|error| explain(text, name, &error))
}

fn explain(text: &str, name: &str, error: &toml::de::Error) -> ConfigError {
    let span = error.span().unwrap_or(0..0);
    let before = text.get(..span.start).unwrap_or_default();
    let line_number = before.matches('\n').count() + 1;
    let place = format!("{name}:{line_number}");
    let mut message = error.message().lines().next().unwrap_or_default();
    if let Some((unknown, known)) = unknown_field(message) {
        return unknown_key(unknown, &known).at(place);
    }
    message = message.strip_prefix("TOML parse error").unwrap_or(message);
    let message = in_words(message);
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    let line = text[line_start..].lines().next().unwrap_or_default();
    let value = text.get(span).unwrap_or_default();
    match line.split_once('=') {
        // A password may stand in any text value; what the user looks for is the key. What is
        // wrong may be a part of it, so the whole line is looked at.
        Some((key, _))
            if is_key(key.trim())
                && redacted(line) == line
                && !value.contains('\n')
                && !value.is_empty() =>
        {
            let key = key.trim();
            let value = value.trim_matches(['"', '\'']);
            ConfigError::new(format!("{key}: {} is refused: {message}", quoted(value))).at(place)
        }
        Some((key, _)) if is_key(key.trim()) => {
            ConfigError::new(format!("{}: {message}", key.trim())).at(place)
        }
        None if is_key(line.trim().trim_matches(['[', ']'])) && line.trim().starts_with('[') => {
            ConfigError::new(format!("{}: {message}", line.trim())).at(place)
        }
        _ => ConfigError::new(message).at(place),
    }
}

/// What serde expects, in the words of a file instead of the program's.
fn in_words(message: &str) -> String {
    const WORDS: [(&str, &str); 7] = [
        ("expected u16", "a whole number from 0 to 65535 is allowed"),
        ("expected u32", "a whole number from 0 to 4294967295 is allowed"),
        ("expected a boolean", "true and false are allowed"),
        ("expected a sequence", "a list is allowed"),
        ("expected path string", "a path in quotes is allowed"),
        ("expected a text", "allowed is a text"),
        ("expected struct", "a section is allowed"),
    ];
    for (expected, allowed) in WORDS {
        if let Some((before, after)) = message.split_once(expected) {
            // The name of a struct says nothing to who writes a file.
            let after = if expected.ends_with("struct") { "" } else { after };
            return format!("{before}{allowed}{after}");
        }
    }
    message.to_owned()
}

fn is_key(text: &str) -> bool {
    !text.is_empty() && text.len() <= 64 && text.chars().all(|c| c.is_alphanumeric() || c == '_')
}

/// Takes serde's account of an unknown field apart: its name and the names it knows.
fn unknown_field(message: &str) -> Option<(&str, Vec<&str>)> {
    let rest = message.strip_prefix("unknown field `")?;
    let (unknown, rest) = rest.split_once("`, expected ")?;
    Some((unknown, rest.split('`').skip(1).step_by(2).collect()))
}

fn unknown_key(unknown: &str, known: &[&str]) -> ConfigError {
    let error = ConfigError::new(format!("unknown key {}", quoted(unknown)));
    let as_written = unknown.replace('-', "_");
    if let Some(near) = nearest(unknown, known.iter().copied()) {
        error.hint(format!("did you mean `{near}`?"))
    } else if let Some(section) = section_of(&as_written) {
        error.hint(format!("`{as_written}` belongs {section}"))
    } else {
        error.hint(format!("known here: {}", known.join(", ")))
    }
}

/// Where a key that is known, but not here, belongs.
fn section_of(key: &str) -> Option<String> {
    let all: toml::Table = toml::from_str(&Config::default().to_toml()).ok()?;
    if ["upstream", "upstreams", "rules", "admin_token_file", "admin_read_token_file"]
        .contains(&key)
        || all.get(key).is_some_and(|value| !value.is_table())
    {
        return Some("at the top, before the first section".to_owned());
    }
    if ["cert", "key", "upstream_ca"].contains(&key) {
        return Some("under [tls]".to_owned());
    }
    let holds = |value: &toml::Value| value.as_table().is_some_and(|table| table.contains_key(key));
    let sections: Vec<String> =
        all.iter().filter(|(_, v)| holds(v)).map(|(name, _)| format!("[{name}]")).collect();
    (!sections.is_empty()).then(|| format!("under {}", sections.join(" or ")))
}
