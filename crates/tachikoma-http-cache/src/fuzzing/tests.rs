use std::path::Path;

use super::{mutate::Mutator, *};

/// How many changed inputs of each kind; `TACHIKOMA_MUTATIONS` and `TACHIKOMA_SEED` say otherwise.
const MUTATIONS: u64 = 5_000;

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().expect("a number"))
}

/// Any bytes, with what was kept of earlier runs, and with changes of it.
#[track_caller]
fn check(name: &str, target: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(name);
    let files =
        std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    files.sort();
    let inputs: Vec<Vec<u8>> = files.iter().map(|file| std::fs::read(file).unwrap()).collect();
    assert!(!inputs.is_empty(), "{} is empty", folder.display());
    for input in &inputs {
        target(input);
    }
    let seed = number("TACHIKOMA_SEED", 1);
    let mut mutator = Mutator::new(seed);
    for _ in 0..number("TACHIKOMA_MUTATIONS", MUTATIONS) {
        let (which, other) = (mutator.below(inputs.len()), mutator.below(inputs.len()));
        let changed = mutator.mutate(&inputs[which], &inputs[other]);
        let broken = std::panic::catch_unwind(|| target(&changed)).is_err();
        assert!(!broken, "{name}, seed {seed}: {:?}", changed.escape_ascii().to_string());
    }
}

#[test]
fn cache_control_breaks_no_law() {
    check("cache_control", cache_control);
}

#[test]
fn vary_breaks_no_law() {
    check("vary", vary);
}

#[test]
fn ranges_break_no_law() {
    check("byte_range", byte_range);
}

#[test]
fn ages_and_dates_break_no_law() {
    check("age_date", age_date);
}

#[test]
fn heads_of_requests_break_no_law() {
    check("request_head", request_head);
}

#[test]
fn no_bytes_at_all_break_no_law() {
    for target in [cache_control, vary, byte_range, age_date, request_head] {
        target(b"");
        target(&[0xFF; 8]);
    }
}
