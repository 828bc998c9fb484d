//! The programs that the tests start: found, or installed from the distribution's packages.
//!
//! Only root installs, only through `apt-get`, and no service is started: the tests run their own
//! servers on free ports.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::Failure;
use crate::process::{Report, run};

/// A program, the variable that may name it (none: an empty one), and the Debian package of it.
type Program = (&'static str, &'static str, &'static str);

/// What all tests start.
pub(crate) const TESTS: &[Program] = &[
    ("redis-server", "TACHIKOMA_REDIS_SERVER", "redis-server"),
    ("nginx", "TACHIKOMA_NGINX", "nginx"),
    NODE,
    NPM,
];

/// What the conformance tests start.
pub(crate) const CONFORMANCE: &[Program] = &[NODE, NPM];

const NODE: Program = ("node", "", "nodejs");
const NPM: Program = ("npm", "", "npm");

/// Makes sure that all programs are there, or says what to do.
pub(crate) fn ensure(programs: &[Program], report: Report) -> Result<(), Failure> {
    let missing: Vec<&str> = programs
        .iter()
        .filter(|(name, variable, _)| find(name, variable).is_none())
        .map(|(_, _, package)| *package)
        .collect();
    if !missing.is_empty() {
        install(&missing, report)?;
    }
    for (name, variable, package) in programs {
        let path = find(name, variable)
            .ok_or_else(|| format!("{package} was installed, but {name} is not in PATH"))?;
        report.line(format!("    found {}", path.display()));
    }
    Ok(())
}

fn find(name: &str, variable: &str) -> Option<PathBuf> {
    if let Some(path) = std::env::var_os(variable) {
        return Some(PathBuf::from(path)).filter(|path| path.is_file());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from);
    std::env::split_paths(&path)
        .chain(system)
        .map(|folder| folder.join(name))
        .find(|candidate| candidate.is_file())
}

fn install(packages: &[&str], report: Report) -> Result<(), Failure> {
    let names = packages.join(" ");
    let root = fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0);
    if !root || find("apt-get", "").is_none() {
        return Err(format!(
            "the tests need {names}: install them (on Debian and Ubuntu: sudo apt-get install \
             {names}); TACHIKOMA_REDIS_SERVER and TACHIKOMA_NGINX may name those two"
        ));
    }
    report.line(format!("    installing {names} with apt-get (no service is started)"));
    let _guard = NoServices::set()?;
    apt(&["update"], report)?;
    let mut arguments = vec!["install", "--yes", "--no-install-recommends"];
    arguments.extend(packages);
    apt(&arguments, report)
}

fn apt(arguments: &[&str], report: Report) -> Result<(), Failure> {
    let mut command = Command::new("apt-get");
    command.args(["-qq", "-o", "Acquire::Retries=3"]).args(arguments);
    command.env("DEBIAN_FRONTEND", "noninteractive");
    let ended = run(&mut command, Duration::from_mins(5), |_| ())?;
    if ended.success {
        report.line(format!("    apt-get {} took {:.1?}", arguments[0], ended.took));
        return Ok(());
    }
    Err(format!("apt-get {} failed:\n{}", arguments.join(" "), ended.lines.join("\n")))
}

/// Debian asks this script whether a package may start its service; 101 means no.
struct NoServices {
    written: bool,
}

const POLICY: &str = "/usr/sbin/policy-rc.d";

impl NoServices {
    fn set() -> Result<Self, Failure> {
        if Path::new(POLICY).exists() {
            return Ok(Self { written: false });
        }
        let failed = |error| format!("cannot write {POLICY}: {error}");
        fs::write(POLICY, "#!/bin/sh\nexit 101\n").map_err(failed)?;
        let guard = Self { written: true };
        fs::set_permissions(POLICY, fs::Permissions::from_mode(0o755)).map_err(failed)?;
        Ok(guard)
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        if self.written {
            let _ = fs::remove_file(POLICY);
        }
    }
}
