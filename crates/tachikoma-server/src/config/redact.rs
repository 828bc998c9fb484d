//! Takes passwords out of texts that are, or were meant to be, URLs.
//!
//! A password stands before the last `@`, or, for a Unix socket, in the query. What is shown of a
//! text that cannot be taken apart is rather too little.

/// The text with `***` for each password that may stand in it.
pub(crate) fn redacted(text: &str) -> String {
    let is_scheme = |scheme: &str| scheme.chars().all(|c| c.is_ascii_alphanumeric() || c == '+');
    let (scheme, rest) = match text.split_once("://") {
        Some((scheme, rest)) if is_scheme(scheme) => (Some(scheme), rest),
        _ => (None, text),
    };
    let start = scheme.map_or_else(String::new, |scheme| format!("{scheme}://"));
    // The last `@` ends the user part: a password may hold an unescaped one, or a `/`.
    let Some((user, host)) = rest.rsplit_once('@') else {
        return start + &without_pass(rest);
    };
    // A password in the query may hold one too, and which it is cannot be told.
    if without_pass(user) != user {
        return format!("{start}***");
    }
    let host = without_pass(host);
    match (scheme, user.split_once(':')) {
        (Some(_), name) => format!("{start}{}:***@{host}", name.map_or("", |(name, _)| name)),
        (None, _) => format!("***@{host}"),
    }
}

/// The text with `***` for each value of a parameter that is, or could be, a password.
fn without_pass(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for part in text.split_inclusive(['?', '&']) {
        let (pair, end) = match part.strip_suffix(['?', '&']) {
            Some(pair) => (pair, &part[pair.len()..]),
            None => (part, ""),
        };
        match pair.split_once('=') {
            Some((name, _)) if is_secret(name) => {
                out.push_str(name);
                out.push_str("=***");
            }
            _ => out.push_str(pair),
        }
        out.push_str(end);
    }
    out
}

/// Whether a parameter may hold a password: `pass`, what is near it, and a name that is escaped.
fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    (name.starts_with("pass") && name != "password_file") || name.contains('%')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_password_is_shown_wherever_it_stands() {
        for (text, shown) in [
            ("memory", "memory"),
            ("redis://host/0?max_bytes=1MiB", "redis://host/0?max_bytes=1MiB"),
            ("redis://me:pw@host/0", "redis://me:***@host/0"),
            ("redis://pw@host", "redis://:***@host"),
            ("redis://me:p@w/x?y=1@host?a=b", "redis://me:***@host?a=b"),
            ("redis//me:p://w@host", "***@host"),
            ("unix:///r.sock?user=me&pass=pw&db=1", "unix:///r.sock?user=me&pass=***&db=1"),
            ("unix:///r.sock?PASS=pw?x", "unix:///r.sock?PASS=***?x"),
            ("unix:///r.sock?%70ass=pw", "unix:///r.sock?%70ass=***"),
            ("unix:///r.sock?password=pw", "unix:///r.sock?password=***"),
            ("unix:///r.sock?password_file=/f", "unix:///r.sock?password_file=/f"),
            ("unix:///r.sock?user=me&pass=p@w", "unix://***"),
            ("unix//r.sock?pass=pw", "unix//r.sock?pass=***"),
        ] {
            assert_eq!(redacted(text), shown, "{text}");
        }
    }
}
