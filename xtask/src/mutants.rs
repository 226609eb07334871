//! `cargo lab mutants`: formulas are broken one by one (a sign, a comparison, a constant), and the tests must notice. A job of hours,
//! for once a week.

use super::{cargo, run};
use anyhow::{Result, bail};

/// What is broken: the crate of formulas, and the engine's files in which a wrong one would go into a figure.
const FILES: [&str; 4] = [
    "shared/src/**/*.rs",
    "backend/engine/src/policy/**/*.rs",
    "backend/engine/src/reward/loss.rs",
    "backend/engine/src/evaluate/**/*.rs",
];
/// What holds no formula: tables, texts and what is shown of them.
const LEFT_OUT: [&str; 4] =
    ["shared/src/config/settings/*.rs", "shared/src/presets.rs", "shared/src/study/shipped.rs", "shared/src/study/programme.rs"];

/// Runs cargo-mutants on the formulas. `rest`: more options for it, such as `--shard 0/8` or `--file`.
pub fn mutants(rest: &[String]) -> Result<()> {
    let known = cargo(&["mutants", "--version"]).output().is_ok_and(|o| o.status.success());
    if !known {
        bail!("cargo-mutants is not installed: cargo install --locked cargo-mutants");
    }
    let mut command = cargo(&["mutants", "--package", "moslim-shared", "--package", "moslim-engine"]);
    // Tests of the mutated crate alone, without the slow link-time optimisation; a mutant that hangs is a mutant that is noticed.
    command.args(["--baseline", "skip", "--timeout", "120", "--in-place", "--no-shuffle", "--output", "target"]);
    if !rest.iter().any(|a| a.starts_with("--file")) {
        for file in FILES {
            command.args(["--file", file]);
        }
    }
    for file in LEFT_OUT {
        command.args(["--exclude", file]);
    }
    command.args(rest).args(["--", "--lib"]);
    command.env("CARGO_PROFILE_DEV_LTO", "off");
    run(command)
}
