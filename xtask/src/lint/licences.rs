//! Which licences and sources a dependency may have, and which crates are not to be depended on
//! (DS-22, DS-40).
//!
//! The expressions are SPDX ones (`AND`, `OR`, `WITH`, parentheses), plus `/` for `OR`, which old
//! crates use. A dependency without an expression, or from anywhere but a registry, is refused.

use super::{Finding, list};
use crate::Failure;
use crate::metadata::{Metadata, Package};

/// Crates that no dependency may bring in, and why: bytes from a cache are not to be trusted.
const REFUSED: [(&str, &str); 4] = [
    ("bincode", "it is unmaintained (RUSTSEC-2025-0141)"),
    ("rkyv", "it reads values out of bytes that nobody has checked"),
    ("serde_yml", "it is unsound and unmaintained"),
    ("serde_cbor", "it is unmaintained (RUSTSEC-2021-0127)"),
];

/// What is not allowed by `xtask/licences.txt`.
pub(super) fn findings(metadata: &Metadata) -> Result<Vec<Finding>, Failure> {
    let allowed = list("licences.txt")?;
    Ok(metadata.packages.iter().filter_map(|package| refusal(package, &allowed)).collect())
}

fn refusal(package: &Package, allowed: &[String]) -> Option<Finding> {
    let name = format!("{} {}", package.name, package.version);
    if let Some((_, why)) = REFUSED.iter().find(|(refused, _)| *refused == package.name) {
        return Some(format!("{name}: {why}"));
    }
    if let Some(source) = &package.source
        && !source.starts_with("registry+")
        && !source.starts_with("sparse+")
    {
        return Some(format!("{name}: comes from {source}, not from a registry"));
    }
    match &package.licence {
        None => Some(format!("{name}: names no licence")),
        Some(expression) if !satisfied(expression, allowed) => {
            Some(format!("{name}: {expression} is not allowed by xtask/licences.txt"))
        }
        Some(_) => None,
    }
}

/// Whether the allowed licences fulfil an expression; `false` too if it cannot be read.
fn satisfied(expression: &str, allowed: &[String]) -> bool {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let mut words = spaced.split_whitespace().peekable();
    let result = alternatives(&mut words, allowed);
    result == Some(true) && words.next().is_none()
}

type Words<'a> = std::iter::Peekable<std::str::SplitWhitespace<'a>>;

fn alternatives(words: &mut Words<'_>, allowed: &[String]) -> Option<bool> {
    let mut result = all(words, allowed)?;
    while words.next_if_eq(&"OR").is_some() {
        result |= all(words, allowed)?;
    }
    Some(result)
}

fn all(words: &mut Words<'_>, allowed: &[String]) -> Option<bool> {
    let mut result = one(words, allowed)?;
    while words.next_if_eq(&"AND").is_some() {
        result &= one(words, allowed)?;
    }
    Some(result)
}

fn one(words: &mut Words<'_>, allowed: &[String]) -> Option<bool> {
    if words.next_if_eq(&"(").is_some() {
        let result = alternatives(words, allowed);
        return words.next_if_eq(&")").and(result);
    }
    let mut licence = words.next()?.to_owned();
    if words.next_if_eq(&"WITH").is_some() {
        licence = format!("{licence} WITH {}", words.next()?);
    }
    Some(allowed.contains(&licence))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(expression: &str, expected: bool) {
        let allowed = ["MIT", "Apache-2.0", "ISC", "Apache-2.0 WITH LLVM-exception"];
        let allowed: Vec<String> = allowed.map(str::to_owned).to_vec();
        assert_eq!(satisfied(expression, &allowed), expected, "{expression}");
    }

    #[test]
    fn an_expression_is_read_as_spdx_says() {
        check("MIT", true);
        check("GPL-3.0-only", false);
        check("MIT OR GPL-3.0-only", true);
        check("MIT/Apache-2.0", true);
        check("MIT AND GPL-3.0-only", false);
        check("GPL-3.0-only OR MIT AND ISC", true);
        check("GPL-3.0-only OR MIT AND OpenSSL", false);
        check("ISC AND (Apache-2.0 OR OpenSSL)", true);
        check("(MIT OR Apache-2.0) AND Unicode-3.0", false);
        check("Apache-2.0 WITH LLVM-exception OR GPL-2.0-only", true);
        check("MIT WITH LLVM-exception", false);
    }

    #[test]
    fn what_cannot_be_read_is_refused() {
        for expression in ["", "MIT OR", "(MIT", "MIT)", "MIT ISC", "AND"] {
            check(expression, false);
        }
    }

    fn package(licence: Option<&str>, source: Option<&str>) -> Package {
        Package {
            name: "a".into(),
            version: "1.0.0".into(),
            licence: licence.map(Into::into),
            description: None,
            keywords: 0,
            categories: 0,
            published: true,
            source: source.map(Into::into),
            features: vec![],
            targets: vec![],
        }
    }

    #[test]
    fn ds_22_a_refused_crate_is_named_with_the_reason() {
        let allowed = ["MIT".to_owned()];
        for (refused, why) in REFUSED {
            let mut found = package(Some("MIT"), Some("registry+https://example.com"));
            found.name = refused.into();
            assert!(refusal(&found, &allowed).is_some_and(|text| text.contains(why)), "{refused}");
        }
    }

    #[test]
    fn a_dependency_comes_from_a_registry_and_names_its_licence() {
        let allowed = ["MIT".to_owned()];
        let git = package(Some("MIT"), Some("git+https://example.com/a"));
        assert!(refusal(&git, &allowed).is_some_and(|text| text.contains("not from a registry")));
        assert!(refusal(&package(None, None), &allowed).is_some());
        assert_eq!(
            refusal(&package(Some("MIT"), Some("registry+https://example.com")), &allowed),
            None
        );
        assert_eq!(refusal(&package(Some("MIT"), None), &allowed), None);
    }
}
