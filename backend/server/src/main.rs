//! `moslim-lab`: the laboratory's server and command line.

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
mod legacy;
mod listen;
mod log;
mod offline;
mod pictures;
mod progress;
mod queue;
mod ready;
mod report;
mod request;
mod signals;
mod starts;
mod state;
mod stream;
mod studies;
mod study;
mod supervisor;
mod tasks;
mod tensorboard;

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    // A panic has printed its message already; it must not leak its own exit code (101) into the contract of 0, 1 and 2.
    let Ok(result) = std::panic::catch_unwind(|| commands::run(cli)) else { return ExitCode::from(failure::RUN_FAILED) };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{}", failure::printable(&failure.to_string()));
            ExitCode::from(failure.code())
        }
    }
}
