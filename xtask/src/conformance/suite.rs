//! The package of tests: fetched by npm, checked, unpacked, and read.
//!
//! It lies under `target/`, so that it is fetched once. Nothing of it is part of this project, and
//! no name that it uses is known to the cache: [`Suite::renamed`] proves it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::Failure;
use crate::json::{self, Json};
use crate::metadata::Metadata;
use crate::process::{Report, output, run as run_process};

const PACKAGE: &str = "http-cache-tests@0.4.5";
const ARCHIVE: &str = "http-cache-tests-0.4.5.tgz";
/// What the package fetches with: it has no way to do so itself.
const CLIENT: &str = "node-fetch@2.7.0";
/// The first 32 digits of the archive's SHA-512.
const DIGEST: &str = "0e3bb037d9d46572d35bec1abf52d111";
const LIMIT: Duration = Duration::from_mins(3);

/// Prints all tests as JSON.
const LIST: &str = "
import groups from './tests/index.mjs'
import surrogate from './tests/surrogate-control.mjs'
const list = []
for (const group of [...groups, surrogate]) {
  for (const test of group.tests) {
    if (test.browser_only) continue
    list.push({
      group: group.id,
      title: group.name,
      id: test.id,
      kind: test.kind || 'required',
      depends_on: test.depends_on || []
    })
  }
}
console.log(JSON.stringify(list))
";

/// How much a test counts for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// Every cache has to behave so.
    Required,
    /// The best ones do.
    Optimal,
    /// A question, without a right answer.
    Check,
}

impl Kind {
    pub(crate) const ALL: [Self; 3] = [Self::Required, Self::Optimal, Self::Check];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Required => "required",
            Self::Optimal => "optimal",
            Self::Check => "check",
        }
    }

    fn read(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// One test, as the package describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Test {
    pub(crate) group: String,
    pub(crate) title: String,
    pub(crate) id: String,
    pub(crate) kind: Kind,
    pub(crate) depends_on: Vec<String>,
}

/// The unpacked package.
#[derive(Debug)]
pub(crate) struct Suite {
    pub(crate) folder: PathBuf,
}

impl Suite {
    /// Fetches it, unless that was done before.
    pub(crate) fn fetch(report: Report) -> Result<Self, Failure> {
        let place = Metadata::read()?.target_directory.join("conformance");
        let suite = Self { folder: place.join("package") };
        let done = place.join("fetched");
        if fs::read_to_string(&done).is_ok_and(|digest| digest == DIGEST) {
            return Ok(suite);
        }
        fs::create_dir_all(&place).map_err(|error| cannot("create", &place, &error))?;
        report.line(format!("    fetching {PACKAGE} with npm"));
        let quiet = ["--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"];
        npm(&place, &[&["pack", PACKAGE], &quiet[..]].concat())?;
        // `npm install` looks for a package above, and would write into the first it finds.
        let own = place.join("package.json");
        fs::write(&own, "{\"private\":true}").map_err(|error| cannot("write", &own, &error))?;
        npm(&place, &[&["install", "--no-save", CLIENT], &quiet[..]].concat())?;
        let archive = place.join(ARCHIVE);
        let sum = output(Command::new("sha512sum").arg(&archive))?;
        if !sum.starts_with(DIGEST) {
            return Err(format!("{} is not the package that was tested: {sum}", archive.display()));
        }
        output(Command::new("tar").arg("-xzf").arg(&archive).arg("-C").arg(&place))?;
        fs::write(&done, DIGEST).map_err(|error| cannot("write", &done, &error))?;
        Ok(suite)
    }

    /// A copy in which the suite's own header names and paths are others.
    pub(crate) fn renamed(&self) -> Result<Self, Failure> {
        let folder = self.folder.with_file_name("renamed");
        let _ = fs::remove_dir_all(&folder);
        output(Command::new("cp").arg("-r").arg(&self.folder).arg(&folder))?;
        for part in ["client", "server", "lib", "tests"] {
            let place = folder.join(part);
            let files = fs::read_dir(&place).map_err(|error| cannot("read", &place, &error))?;
            for file in files.flatten().map(|entry| entry.path()) {
                if file.extension().is_some_and(|extension| extension == "mjs") {
                    rename(&file)?;
                }
            }
        }
        Ok(Self { folder })
    }

    /// All tests, those for browsers left out.
    pub(crate) fn tests(&self) -> Result<Vec<Test>, Failure> {
        let mut node = Command::new("node");
        node.args(["--input-type=module", "-e", LIST]).current_dir(&self.folder);
        parse(&output(&mut node)?)
    }
}

fn parse(text: &str) -> Result<Vec<Test>, Failure> {
    let text_of = |test: &Json, name: &str| {
        let found = test.get(name).and_then(Json::text).map(str::to_owned);
        found.ok_or_else(|| format!("a test has no {name:?}"))
    };
    json::parse(text.trim())?
        .array()
        .iter()
        .map(|test| {
            let kind = text_of(test, "kind")?;
            let depends_on = test.get("depends_on").map_or(&[][..], Json::array);
            Ok(Test {
                group: text_of(test, "group")?,
                title: text_of(test, "title")?,
                id: text_of(test, "id")?,
                kind: Kind::read(&kind).ok_or_else(|| format!("unknown kind {kind:?}"))?,
                depends_on: depends_on.iter().filter_map(Json::text).map(str::to_owned).collect(),
            })
        })
        .collect()
}

/// What the suite calls things, and what it calls them in the renamed copy.
const NAMES: [(&str, &str); 14] = [
    ("server-request-count", "origin-saw"),
    ("client-request-count", "client-sent"),
    ("server-base-url", "origin-target"),
    ("server-now", "origin-clock"),
    ("capability-seen", "origin-noticed"),
    ("request-numbers", "origin-order"),
    ("test-name", "case-title"),
    ("test-id", "case-mark"),
    ("req-num", "case-step"),
    ("template-a", "sample-q"),
    ("/config/", "/scripts/"),
    ("/state/", "/record/"),
    ("/test/", "/page/"),
    ("nothing-to-see-here", "just-passing-by"),
];

fn rename(file: &Path) -> Result<(), Failure> {
    let text = fs::read_to_string(file).map_err(|error| cannot("read", file, &error))?;
    let mut renamed = text;
    for (name, other) in NAMES {
        renamed = replace_any_case(&renamed, name, other);
    }
    for (name, other) in [("config", "scripts"), ("state", "record"), ("test", "page")] {
        renamed =
            renamed.replace(&format!("dispatch === '{name}'"), &format!("dispatch === '{other}'"));
    }
    fs::write(file, renamed).map_err(|error| cannot("write", file, &error))
}

/// Replaces a name in whatever case it is written; paths of imports stay.
fn replace_any_case(text: &str, name: &str, other: &str) -> String {
    let lower = text.to_ascii_lowercase();
    let mut replaced = String::with_capacity(text.len());
    let mut at = 0;
    while let Some(found) = lower[at..].find(name) {
        replaced.push_str(&text[at..at + found]);
        replaced.push_str(other);
        at += found + name.len();
    }
    replaced.push_str(&text[at..]);
    replaced
}

fn npm(place: &Path, arguments: &[&str]) -> Result<(), Failure> {
    let ended = run_process(Command::new("npm").args(arguments).current_dir(place), LIMIT, |_| ())?;
    if ended.success {
        return Ok(());
    }
    Err(format!("npm {} failed:\n{}", arguments.join(" "), ended.lines.join("\n")))
}

fn cannot(what: &str, path: &Path, error: &std::io::Error) -> Failure {
    format!("cannot {what} {}: {error}", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_are_read_with_what_they_depend_on() {
        let text = r#"[{"group":"g","title":"G","id":"a","kind":"optimal","depends_on":["b"]}]"#;
        let tests = parse(text).expect("tests");
        assert_eq!(tests[0].kind, Kind::Optimal);
        assert_eq!(tests[0].depends_on, ["b"]);
        for text in ["[{}]", r#"[{"group":"g","title":"G","id":"a","kind":"odd"}]"#, "["] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_name_is_replaced_in_whatever_case() {
        assert_eq!(
            replace_any_case("Test-ID test-id TEST-ID x", "test-id", "mark"),
            "mark mark mark x"
        );
        assert_eq!(replace_any_case("nothing", "test-id", "mark"), "nothing");
    }
}
