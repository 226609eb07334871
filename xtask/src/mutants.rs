//! `cargo lab mutants`: formulas are broken one by one (a sign, a comparison, a constant), and the tests must notice. A job of hours,
//! for once a week.

use super::cargo;
use anyhow::{Result, bail};

/// What is broken: the crate of formulas, whose examples in the documentation are tests as well, and the engine's files in which a wrong
/// one would go into a figure.
const SHARED: [&str; 1] = ["shared/src/**/*.rs"];
const ENGINE: [&str; 3] =
    ["backend/engine/src/policy/**/*.rs", "backend/engine/src/reward/loss.rs", "backend/engine/src/evaluate/**/*.rs"];
/// What holds no formula: tables, texts and what is shown of them.
const LEFT_OUT: [&str; 4] =
    ["shared/src/config/settings/*.rs", "shared/src/presets.rs", "shared/src/study/shipped.rs", "shared/src/study/programme.rs"];

/// Runs cargo-mutants on the formulas. `rest`: more options for it, such as `--shard 0/8` or `--file`. What came out is in
/// `target/mutants-CRATE`.
pub fn mutants(rest: &[String]) -> Result<()> {
    let known = cargo(&["mutants", "--version"]).output().is_ok_and(|o| o.status.success());
    if !known {
        bail!("cargo-mutants is not installed: cargo install --locked cargo-mutants");
    }
    on("moslim-shared", &SHARED, rest, &[])?;
    on("moslim-engine", &ENGINE, rest, &["--", "--lib"])
}

fn on(package: &str, files: &[&str], rest: &[String], tests: &[&str]) -> Result<()> {
    let mut command = cargo(&["mutants", "--package", package]);
    // Tests of the mutated crate alone, without the slow link-time optimisation; a mutant that hangs is a mutant that is noticed.
    let output = format!("target/mutants-{package}");
    command.args(["--baseline", "skip", "--timeout", "120", "--in-place", "--no-shuffle", "--output", &output]);
    if !rest.iter().any(|a| a.starts_with("--file")) {
        for file in files {
            command.args(["--file", file]);
        }
    }
    for file in LEFT_OUT {
        command.args(["--exclude", file]);
    }
    command.args(rest).args(tests);
    command.env("CARGO_PROFILE_DEV_LTO", "off");
    // Some are always missed: that is what it is run for.
    match command.status()?.code() {
        Some(0 | 2 | 3) => Ok(()),
        code => bail!("cargo mutants on {package} ended with {code:?}"),
    }
}
