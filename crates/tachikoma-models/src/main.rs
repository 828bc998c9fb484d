//! Prints what the searches found: `cargo run -p tachikoma-models`.

use std::process::ExitCode;

use tachikoma_models::SUITES;

fn main() -> ExitCode {
    let mut good = true;
    for suite in SUITES {
        for outcome in (suite.run)() {
            println!("{}: {outcome}", suite.name);
            good &= outcome.is_as_expected();
        }
    }
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
