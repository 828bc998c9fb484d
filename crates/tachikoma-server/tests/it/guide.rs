//! The configuration reference in the guide names every setting with its default.

use std::collections::BTreeMap;

use crate::support::run;

const PAGE: &str = include_str!("../../../../docs/src/configuration.md");

/// Each flag with its default, from rows such as `` | `key` | `--flag` | `default` | … | ``.
fn documented() -> BTreeMap<String, String> {
    let cells = |line: &str| -> Vec<String> {
        line.split('|').map(|cell| cell.trim().trim_matches('`').to_owned()).collect()
    };
    PAGE.lines()
        .map(cells)
        .filter(|cells| cells.len() > 3 && cells[2].starts_with("--") && cells[2] != "---")
        .map(|cells| (cells[2].clone(), cells[3].clone()))
        .collect()
}

/// Each flag of `tachikoma serve` with its default, from its help.
fn offered() -> BTreeMap<String, String> {
    let help = run(&["serve", "--help"], &[]);
    assert_eq!(help.code, Some(0), "{}", help.err);
    let mut flags = BTreeMap::new();
    let mut last = String::new();
    for line in help.out.lines().map(str::trim) {
        if line.starts_with("--") {
            let name = line.split([' ', '[', '=']).next().unwrap_or_default();
            name.clone_into(&mut last);
            flags.insert(last.clone(), "none".to_owned());
        }
        if let Some((_, rest)) = line.split_once("[default: ") {
            let default = rest.split(']').next().unwrap_or_default().trim_matches('`');
            flags.insert(last.clone(), default.to_owned());
        }
    }
    flags.remove("--config");
    flags
}

#[test]
fn the_reference_names_every_flag_with_its_default() {
    let (documented, mut offered) = (documented(), offered());
    // Without a word in the help: a flag that is off unless it is given.
    offered.insert("--api".to_owned(), "false".to_owned());
    assert_eq!(documented, offered);
    assert!(documented.len() > 15, "{documented:?}");
}
