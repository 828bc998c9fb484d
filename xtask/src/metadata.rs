//! What cargo knows of this workspace: its crates, their targets and features, all dependencies.

use std::path::PathBuf;

use crate::Failure;
use crate::json::{self, Json};
use crate::process::{cargo, output};

/// The workspace and everything it depends on.
#[derive(Debug)]
pub(crate) struct Metadata {
    pub(crate) target_directory: PathBuf,
    pub(crate) packages: Vec<Package>,
}

/// A crate of the workspace or a dependency.
#[derive(Debug)]
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) licence: Option<String>,
    pub(crate) description: Option<String>,
    /// How many it has.
    pub(crate) keywords: usize,
    /// How many it has.
    pub(crate) categories: usize,
    /// Whether it may be given to a registry.
    pub(crate) published: bool,
    /// `None` for the crates of this workspace.
    pub(crate) source: Option<String>,
    pub(crate) features: Vec<String>,
    pub(crate) targets: Vec<Target>,
}

/// A library, binary, test, example or benchmark of a crate.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) name: String,
    pub(crate) kind: String,
    pub(crate) path: PathBuf,
    pub(crate) required_features: Vec<String>,
}

impl Metadata {
    /// Asks cargo, for the versions in `Cargo.lock` and for every platform.
    pub(crate) fn read() -> Result<Self, Failure> {
        let arguments = ["metadata", "--format-version", "1", "--locked"];
        let document = json::parse(&output(&mut cargo(&arguments))?)?;
        Ok(Self {
            target_directory: PathBuf::from(text(&document, "target_directory")?),
            packages: list(&document, "packages").iter().map(package).collect::<Result<_, _>>()?,
        })
    }

    /// The crates of this workspace.
    pub(crate) fn members(&self) -> impl Iterator<Item = &Package> {
        self.packages.iter().filter(|package| package.source.is_none())
    }

    /// All targets of one kind in this workspace, each with its crate.
    pub(crate) fn targets(&self, kind: &str) -> impl Iterator<Item = (&Package, &Target)> {
        self.members()
            .flat_map(|package| package.targets.iter().map(move |target| (package, target)))
            .filter(move |(_, target)| target.kind == kind)
    }
}

impl Package {
    /// Whether other crates can depend on this one.
    pub(crate) fn is_library(&self) -> bool {
        self.targets.iter().any(|target| matches!(target.kind.as_str(), "lib" | "proc-macro"))
    }
}

impl Target {
    /// Whether this target is built with a feature that changes what the crate is compiled to.
    ///
    /// Such features begin with `__`; they are for tests of this project only and are never
    /// turned on together with others.
    pub(crate) fn is_apart(&self) -> bool {
        self.required_features.iter().any(|feature| feature.starts_with("__"))
    }
}

fn package(value: &Json) -> Result<Package, Failure> {
    let optional = |name| value.get(name).and_then(Json::text).map(str::to_owned);
    Ok(Package {
        name: text(value, "name")?,
        version: text(value, "version")?,
        licence: optional("license"),
        description: optional("description"),
        keywords: list(value, "keywords").len(),
        categories: list(value, "categories").len(),
        // Null: to any registry; an empty list: to none.
        published: !matches!(value.get("publish"), Some(Json::Array(to)) if to.is_empty()),
        source: optional("source"),
        features: value
            .get("features")
            .map_or(&[][..], Json::members)
            .iter()
            .map(|(name, _)| name.clone())
            .collect(),
        targets: list(value, "targets").iter().map(target).collect::<Result<_, _>>()?,
    })
}

fn target(value: &Json) -> Result<Target, Failure> {
    let texts = |name| list(value, name).iter().filter_map(Json::text).map(str::to_owned);
    Ok(Target {
        name: text(value, "name")?,
        kind: texts("kind").next().unwrap_or_default(),
        path: PathBuf::from(text(value, "src_path")?),
        required_features: texts("required-features").collect(),
    })
}

fn text(value: &Json, name: &str) -> Result<String, Failure> {
    let found = value.get(name).and_then(Json::text);
    found.map(str::to_owned).ok_or_else(|| format!("cargo metadata has no {name:?}"))
}

fn list<'a>(value: &'a Json, name: &str) -> &'a [Json] {
    value.get(name).map_or(&[], Json::array)
}
