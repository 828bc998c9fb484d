//! Counts test cases in what `cargo test` and `cargo nextest run` print.
//!
//! A suite is a test binary, the documentation examples of one crate, or the examples; it counts
//! once it has run a case. A case belongs to a store when its path has a module of that name
//! inside another one, as in `conformance::redis::a_value_comes_back`.

use std::collections::{BTreeMap, BTreeSet};

/// The stores whose cases are counted apart.
const STORES: [&str; 2] = ["memory", "redis"];

/// What has run so far.
#[derive(Debug, Default)]
pub(crate) struct Count {
    suites: BTreeSet<String>,
    stores: BTreeMap<&'static str, usize>,
    passed: usize,
    skipped: usize,
    failures: Vec<String>,
}

impl Count {
    /// Counts one case that ran.
    pub(crate) fn case(&mut self, suite: &str, path: &str, passed: bool) {
        self.suites.insert(suite.to_owned());
        for store in STORES {
            if path.contains(&format!("::{store}::")) {
                *self.stores.entry(store).or_default() += 1;
            }
        }
        if passed {
            self.passed += 1;
        } else {
            self.failures.push(format!("{suite} {path}"));
        }
    }

    pub(crate) fn suites(&self) -> usize {
        self.suites.len()
    }

    pub(crate) fn cases(&self) -> usize {
        self.passed + self.failures.len()
    }

    pub(crate) fn passed(&self) -> usize {
        self.passed
    }

    pub(crate) fn failed(&self) -> usize {
        self.failures.len()
    }

    pub(crate) fn skipped(&self) -> usize {
        self.skipped
    }

    pub(crate) fn failures(&self) -> impl Iterator<Item = &str> {
        self.failures.iter().map(String::as_str)
    }

    /// Each store that had a case, and how many.
    pub(crate) fn stores(&self) -> impl Iterator<Item = (&'static str, usize)> {
        self.stores.iter().map(|(store, cases)| (*store, *cases))
    }
}

/// Reads the lines of one cargo command.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    suite: String,
    /// What failed tests printed may look like cases, until the result of the binary.
    in_failures: bool,
    /// Nextest shows the output of a failed test, which looks like the lines of `cargo test`.
    nextest: bool,
    /// Nextest prints failures a second time, after its summary.
    summed_up: bool,
}

impl Reader {
    /// Counts what this line says, if it says anything.
    pub(crate) fn line(&mut self, line: &str, count: &mut Count) {
        let line = line.trim();
        if self.nextest {
            self.nextest_line(line, count);
        } else if line.starts_with("Nextest run ID ") {
            self.nextest = true;
        } else {
            self.libtest_line(line, count);
        }
    }

    fn nextest_line(&mut self, line: &str, count: &mut Count) {
        if line.starts_with("Summary [") {
            self.summed_up = true;
            count.skipped += number_before(line, " skipped");
        } else if let Some((suite, path, passed)) = nextest_case(line)
            && !self.summed_up
        {
            count.case(suite, path, passed);
        }
    }

    fn libtest_line(&mut self, line: &str, count: &mut Count) {
        if let Some(rest) = line.strip_prefix("Running ") {
            // `Running tests/it/main.rs (target/debug/deps/it-0123456789abcdef)`
            rest.clone_into(&mut self.suite);
        } else if let Some(name) = line.strip_prefix("Doc-tests ") {
            self.suite = format!("doc-tests {name}");
        } else if line.starts_with("test result: ") {
            self.in_failures = false;
            count.skipped += number_before(line, " ignored");
        } else if self.in_failures || line == "failures:" {
            self.in_failures = true;
        } else if let Some((path, result)) = libtest_case(line) {
            count.case(&self.suite, path, result);
        }
    }
}

/// `test a::b ... ok`; `test src/lib.rs - f (line 3) - compile ... FAILED`
fn libtest_case(line: &str) -> Option<(&str, bool)> {
    let (path, result) = line.strip_prefix("test ")?.rsplit_once(" ... ")?;
    let path = path.trim_end_matches(" - should panic");
    match result {
        "ok" => Some((path, true)),
        result if result.starts_with("FAILED") => Some((path, false)),
        _ => None,
    }
}

/// `PASS [   0.019s] ( 1/19) crate::it module::case`
fn nextest_case(line: &str) -> Option<(&str, &str, bool)> {
    let (status, rest) = line.split_once(" [")?;
    let passed = match status {
        "PASS" | "LEAK" => true,
        "FAIL" | "TIMEOUT" | "LEAK-FAIL" | "FAIL + LEAK" => false,
        signal if signal.starts_with("SIG") => false,
        _ => return None,
    };
    let (_time, rest) = rest.split_once(']')?;
    let rest = match rest.trim().strip_prefix('(') {
        Some(numbered) => numbered.split_once(')')?.1,
        None => rest,
    };
    let (suite, path) = rest.trim().split_once(' ')?;
    Some((suite, path, passed))
}

fn number_before(line: &str, word: &str) -> usize {
    let Some((before, _)) = line.split_once(word) else {
        return 0;
    };
    before.rsplit(' ').next().and_then(|number| number.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(text: &str) -> Count {
        let (mut reader, mut count) = (Reader::default(), Count::default());
        text.lines().for_each(|line| reader.line(line, &mut count));
        count
    }

    const LIBTEST: &str = "\
     Running unittests src/lib.rs (target/debug/deps/a-01)

running 0 tests

test result: ok. 0 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s

     Running tests/it/main.rs (target/debug/deps/it-02)

running 3 tests
test conformance::memory::a_value_comes_back ... ok
test conformance::redis::a_value_comes_back ... FAILED
test glob::it_panics - should panic ... ok
test later ... ignored

failures:

---- conformance::redis::a_value_comes_back stdout ----
test conformance::redis::of_another_kind ... ok

test result: FAILED. 2 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out; finished in 1.00s

   Doc-tests tachikoma_cache

running 2 tests
test crates/a/src/lib.rs - (line 10) ... ok
test crates/a/src/lib.rs - get (line 30) - compile ... ok
";

    #[test]
    fn cases_of_cargo_test_are_counted_by_suite_and_store() {
        let count = counted(LIBTEST);
        assert_eq!((count.suites(), count.cases(), count.passed()), (2, 5, 4));
        assert_eq!(count.stores().collect::<Vec<_>>(), [("memory", 1), ("redis", 1)]);
        assert_eq!(count.skipped(), 1);
        let failures: Vec<_> = count.failures().collect();
        assert_eq!(failures.len(), 1);
        assert!(failures[0].ends_with(" conformance::redis::a_value_comes_back"), "{failures:?}");
    }

    const NEXTEST: &str = "\
 Nextest run ID ca325ae3-87a7-4ffb-ab1d-ba4bff3d74e4 with nextest profile: default
    Starting 19 tests across 2 binaries
        PASS [   0.019s] ( 1/19) a::it conformance::memory::a_value_comes_back
        FAIL [   0.114s] ( 2/19) a::it conformance::redis::a_value_comes_back
  stdout ───
    test conformance::redis::a_value_comes_back ... FAILED
    test result: FAILED. 0 passed; 1 failed; 3 ignored; 0 measured
        PASS [   0.129s] ( 3/19) a store::memory::tests::it_is_bounded
        SLOW [> 60.000s] a::it fault::a_stall
     TIMEOUT [  60.114s] ( 4/19) a::it fault::a_stall
     SIGABRT [   0.200s] ( 5/19) b::bin/b it_aborts
────────────
     Summary [   0.849s] 5 tests run: 2 passed, 3 failed, 2 skipped
        FAIL [   0.114s] ( 2/19) a::it conformance::redis::a_value_comes_back
     TIMEOUT [  60.114s] ( 4/19) a::it fault::a_stall
";

    #[test]
    fn cases_of_nextest_are_counted_once() {
        let count = counted(NEXTEST);
        assert_eq!((count.suites(), count.cases(), count.passed()), (3, 5, 2));
        assert_eq!(count.stores().collect::<Vec<_>>(), [("memory", 2), ("redis", 1)]);
        assert_eq!((count.failed(), count.skipped()), (3, 2));
    }
}
