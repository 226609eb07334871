//! Options about runs as files.

use super::FolderArgs;
use crate::id::RunId;
use clap::{Args, Subcommand};
use std::path::PathBuf;

#[derive(Debug, Args)]
pub struct RunsArgs {
    #[command(subcommand)]
    pub command: RunsCommand,
}

#[derive(Debug, Subcommand)]
pub enum RunsCommand {
    /// Write everything about a run into one file, which another lab opens: one with a server, or one in a browser's tab.
    Pack(PackArgs),
    /// Add a run that another lab has packed.
    Open(OpenArgs),
}

#[derive(Debug, Args)]
pub struct PackArgs {
    /// Identifier of a run in the data folder.
    pub run: RunId,
    /// File to write; what was there is replaced.
    #[arg(long, value_name = "FILE")]
    pub to: PathBuf,
    #[command(flatten)]
    pub folder: FolderArgs,
}

#[derive(Debug, Args)]
pub struct OpenArgs {
    /// The file.
    pub file: PathBuf,
    #[command(flatten)]
    pub folder: FolderArgs,
}
