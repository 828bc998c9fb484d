//! Whether each crate that is published could be: `cargo package` takes it, nothing is missing that
//! a registry asks for, and nothing is in it that nobody needs.
//!
//! Nothing is uploaded, and nothing built: other checks build.

use super::Finding;
use crate::Failure;
use crate::metadata::{Metadata, Package};
use crate::process::{cargo, output};

/// More than this is a mistake: a registry takes 10 MiB.
const MOST_FILES: usize = 400;

/// What keeps a crate from being published.
pub(super) fn findings(metadata: &Metadata) -> Result<Vec<Finding>, Failure> {
    let mut findings = Vec::new();
    for package in metadata.members().filter(|package| package.is_library() && package.published) {
        let select = ["package", "--list", "--allow-dirty", "-p", &package.name];
        let files = output(&mut cargo(&select))?;
        findings.extend(of_package(package, &files));
    }
    Ok(findings)
}

fn of_package(package: &Package, files: &str) -> Vec<Finding> {
    let name = &package.name;
    let has = |wanted: &str| files.lines().any(|file| file == wanted);
    let mut findings = Vec::new();
    for wanted in ["Cargo.toml", "README.md", "src/lib.rs"] {
        if !has(wanted) {
            findings.push(format!("{name}: {wanted} is not in the package"));
        }
    }
    let count = files.lines().count();
    if count > MOST_FILES {
        findings.push(format!("{name}: {count} files in the package; at most {MOST_FILES}"));
    }
    for (field, value) in [("description", &package.description), ("licence", &package.licence)] {
        if value.as_ref().is_none_or(String::is_empty) {
            findings.push(format!("{name}: it has no {field}"));
        }
    }
    for (field, values) in [("keywords", package.keywords), ("categories", package.categories)] {
        if !(1..=5).contains(&values) {
            findings.push(format!("{name}: {values} {field}; allowed are 1 to 5"));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package() -> Package {
        Package {
            name: "a".into(),
            version: "1.0.0".into(),
            licence: Some("MIT".into()),
            description: Some("what it is".into()),
            keywords: 5,
            categories: 1,
            published: true,
            source: None,
            features: vec![],
            targets: vec![],
        }
    }

    #[test]
    fn a_complete_package_is_fine_and_each_lack_is_named() {
        let files = "Cargo.toml\nREADME.md\nsrc/lib.rs\n";
        assert!(of_package(&package(), files).is_empty());
        let bare = Package { description: None, keywords: 6, categories: 0, ..package() };
        let found = of_package(&bare, "Cargo.toml\nsrc/lib.rs\n");
        assert_eq!(
            found,
            [
                "a: README.md is not in the package",
                "a: it has no description",
                "a: 6 keywords; allowed are 1 to 5",
                "a: 0 categories; allowed are 1 to 5",
            ]
        );
    }
}
