use std::hash::{BuildHasher as _, RandomState};
use std::path::Path;

use tachikoma_testkit::Stopwatch;

use super::{mutate::Mutator, *};

/// How many changed inputs of each kind; `TACHIKOMA_MUTATIONS` and `TACHIKOMA_SEED` say otherwise.
/// With `TACHIKOMA_FUZZ_SECONDS` it goes on for so long, and the seed is another one each time.
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
    let (watch, seconds) = (Stopwatch::start(), number("TACHIKOMA_FUZZ_SECONDS", 0));
    let any = if seconds > 0 { RandomState::new().hash_one(name) } else { 1 };
    let (seed, least) = (number("TACHIKOMA_SEED", any), number("TACHIKOMA_MUTATIONS", MUTATIONS));
    let (mut mutator, mut done) = (Mutator::new(seed), 0);
    while done < least || watch.elapsed().as_secs() < seconds {
        done += 1;
        let (which, other) = (mutator.below(inputs.len()), mutator.below(inputs.len()));
        let changed = mutator.mutate(&inputs[which], &inputs[other]);
        let broken = std::panic::catch_unwind(|| target(&changed)).is_err();
        assert!(!broken, "{name}, seed {seed}: {:?}", changed.escape_ascii().to_string());
    }
    println!("{name}, seed {seed}: {done} changed inputs");
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
