//! `moslim-lab`: the laboratory's server and command line.

#![deny(clippy::print_stdout, clippy::print_stderr, reason = "they panic when nobody listens; see log.rs and commands/mod.rs")]

mod access;
mod allocator;
mod api;
mod assets;
mod cli;
mod clock;
mod commands;
mod curves;
mod devices;
mod error;
mod failure;
mod folder;
mod follow;
mod guard;
mod html;
mod hub;
mod id;
mod index;
mod inference;
mod json;
mod launch;
mod leftovers;
mod legacy;
mod listen;
mod log;
mod offline;
mod origin;
mod pictures;
mod progress;
mod pulse;
mod queue;
mod ready;
mod report;
mod request;
mod signals;
mod starts;
mod state;
mod states;
mod stream;
mod studies;
mod study;
mod supervisor;
mod tasks;
mod tensorboard;

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    // What people asked, rated and trained is their own wherever it is written: in the data folder, a backup, or a file that they name.
    #[cfg(unix)]
    rustix::process::umask(rustix::fs::Mode::RWXG | rustix::fs::Mode::RWXO);
    let cli = cli::Cli::parse();
    // A panic has printed its message already; it must not leak its own exit code (101) into the contract of 0, 1 and 2.
    let Ok(result) = std::panic::catch_unwind(|| commands::run(cli)) else { return ExitCode::from(failure::RUN_FAILED) };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            log::say(&failure.to_string());
            ExitCode::from(failure.code())
        }
    }
}
