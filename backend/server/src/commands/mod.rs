//! The commands, one file each.

mod backup;
mod bench;
mod compare;
mod crossval;
mod data;
mod devices;
mod doctor;
mod export;
mod generate;
mod import;
mod inference;
mod models;
mod rate;
mod reindex;
mod runs;
mod score;
mod serve;
mod stop;
mod study;
mod token;
mod train;
mod worker;

use crate::cli::{Cli, Command, DataCommand, RunsCommand, SourceArgs};
use crate::failure::{Failure, printable};
use crate::folder::DataFolder;
use crate::log;
use moslim_shared::objective::Objective;
use moslim_shared::preference::Preference;
use serde::Serialize;
use std::io::Write;
use std::path::PathBuf;

/// Runs the command of a command line.
///
/// # Errors
/// Whatever the command says; the kind of failure decides the exit code.
pub fn run(cli: Cli) -> Result<(), Failure> {
    // Of a server the log is all that its owner sees; the other commands say by themselves how they get on.
    log::show(if matches!(cli.command, Command::Serve(_)) { "info,sqlx=warn" } else { "warn" });
    match cli.command {
        Command::Serve(args) => serve::run(args),
        Command::Token(args) => token::run(&args),
        Command::Train(args) => train::run(args),
        Command::Evaluate(args) => train::evaluate(args),
        Command::Study(args) => study::run(&args),
        Command::Compare(args) => compare::run(&args),
        Command::Stop(args) => stop::run(&args),
        Command::Pause(args) => stop::pause(&args),
        Command::Kill(args) => stop::kill(&args),
        Command::Reindex(args) => reindex::run(&args),
        Command::Worker(args) => worker::run(&args),
        Command::Inference(args) => inference::run(&args),
        Command::Score(args) => score::run(&args),
        Command::Generate(args) => generate::run(&args),
        Command::Export(args) => export::run(&args),
        Command::Runs(args) => match &args.command {
            RunsCommand::Pack(args) => runs::pack(args),
            RunsCommand::Open(args) => runs::open(args),
            RunsCommand::Tensorboard(args) => runs::tensorboard(args),
            RunsCommand::Page(args) => runs::page(args),
            RunsCommand::List(args) => runs::list(args),
            RunsCommand::Priority(args) => runs::priority(args),
            RunsCommand::Delete(args) => runs::delete(args),
            RunsCommand::Restore(args) => runs::restore(args),
            RunsCommand::Trash(args) => runs::trash(args),
        },
        Command::Devices(args) => devices::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Rate(args) => rate::run(&args),
        Command::Import(args) => import::run(&args),
        Command::Data(args) => match &args.command {
            DataCommand::Sample(args) => data::sample(args),
            DataCommand::List(args) => data::list(args),
            DataCommand::Show(args) => data::show(args),
            DataCommand::Stats(args) => data::stats(args),
            DataCommand::Crossval(args) => crossval::run(args),
            DataCommand::Noise(args) => data::noise(args),
            DataCommand::Mix(args) => data::mix(args),
            DataCommand::Export(args) => data::export(args),
            DataCommand::Edit(args) => data::edit(args),
        },
        Command::Models(args) => models::run(&args.command),
        Command::Doctor(args) => doctor::run(&args),
        Command::Backup(args) => backup::backup(&args),
        Command::Restore(args) => backup::restore(&args),
    }
}

/// Prints one line of JSON.
fn print_json(value: &impl Serialize) -> Result<(), Failure> {
    print_exactly(&serde_json::to_string(value)?)
}

/// Prints a line for people, in which nothing that a file or a request has put there does anything to a terminal.
fn print_line(text: &str) -> Result<(), Failure> {
    print_exactly(&printable(text))
}

/// Prints a line as it is, for programs. Not by `println!`, which panics when the reader has gone.
fn print_exactly(text: &str) -> Result<(), Failure> {
    let mut output = std::io::stdout().lock();
    writeln!(output, "{text}")?;
    output.flush()?;
    Ok(())
}

/// The folder of the run that the command line names.
///
/// # Errors
/// When it does not exist; the message names the option.
fn source_folder(source: &SourceArgs) -> Result<PathBuf, Failure> {
    let (option, folder) = match (&source.run, &source.folder) {
        (Some(id), _) => ("run", DataFolder::resolve(source.data.clone()).run(id)),
        (None, Some(folder)) => ("folder", folder.clone()),
        (None, None) => return Err(Failure::field("run", "name a run with --run or --folder")),
    };
    if folder.is_dir() { Ok(folder) } else { Err(Failure::field(option, format!("there is no folder {}", folder.display()))) }
}

/// Reads `--target`.
///
/// # Errors
/// When it names an objective or class that the run does not have.
fn read_target(text: &str, objectives: &[Objective]) -> Result<Preference, Failure> {
    Preference::parse(text, objectives).map_err(|e| Failure::field("target", e))
}
