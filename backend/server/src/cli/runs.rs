//! Options about runs: as files, and as what waits, is paused or ends.

use super::FolderArgs;
use crate::id::RunId;
use crate::queue::Priority;
use clap::{ArgGroup, Args, Subcommand};
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
    /// Write the curves of runs as event files, which TensorBoard shows and Trackio imports.
    Tensorboard(TensorboardArgs),
    /// Write a run as one HTML file that needs nothing else: its matrices, figures, curves, answers and configuration.
    Page(PackArgs),
    /// List the runs in the data folder.
    List(ListRunsArgs),
    /// Give a run that waits for its turn another priority.
    Priority(PriorityArgs),
    /// Put a run into the trash, where it stays for thirty days.
    Delete(NamedRunArgs),
    /// Take a run out of the trash.
    Restore(NamedRunArgs),
    /// List what is in the trash, or empty it.
    Trash(TrashArgs),
}

#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Read every file of every run, study, task and model, and compare it with its checksum.
    #[arg(long)]
    pub deep: bool,
    #[command(flatten)]
    pub folder: FolderArgs,
    /// Print one JSON document.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct BackupArgs {
    /// Folder to copy to; it is made where it is not there.
    #[arg(long, value_name = "DIR")]
    pub to: PathBuf,
    #[command(flatten)]
    pub folder: FolderArgs,
}

#[derive(Debug, Args)]
pub struct RestoreArgs {
    /// Folder of a backup.
    #[arg(long, value_name = "DIR")]
    pub from: PathBuf,
    #[command(flatten)]
    pub folder: FolderArgs,
}

#[derive(Debug, Args)]
pub struct ListRunsArgs {
    /// Only runs like this: words, or conditions such as method:moslim hit>0.6.
    #[arg(long, default_value = "", value_name = "FILTER")]
    pub filter: String,
    /// Most runs.
    #[arg(long, default_value_t = 50)]
    pub limit: usize,
    #[command(flatten)]
    pub folder: FolderArgs,
    /// Print one JSON document.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct NamedRunArgs {
    /// Identifier of a run.
    pub run: RunId,
    #[command(flatten)]
    pub folder: FolderArgs,
}

#[derive(Debug, Args)]
pub struct TrashArgs {
    /// Remove what is in it for good, instead of listing it.
    #[arg(long)]
    pub empty: bool,
    /// Only this run.
    #[arg(long, value_name = "ID", requires = "empty")]
    pub run: Option<RunId>,
    #[command(flatten)]
    pub folder: FolderArgs,
    /// Print one JSON document.
    #[arg(long)]
    pub json: bool,
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
pub struct TensorboardArgs {
    /// Identifiers of runs.
    #[arg(required = true)]
    pub runs: Vec<RunId>,
    /// Folder that gets a folder for each run; an earlier file of the same run is replaced.
    #[arg(long, value_name = "DIR")]
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

#[derive(Debug, Args)]
pub struct PriorityArgs {
    /// Identifier of a run that waits.
    pub run: RunId,
    /// From -100 to 100; the highest goes first.
    #[arg(allow_negative_numbers = true)]
    pub priority: Priority,
    #[command(flatten)]
    pub folder: FolderArgs,
}

/// What to end.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("what").required(true).args(["run", "study"])))]
pub struct StopArgs {
    /// Identifier of a run; it can be resumed.
    #[arg(long, value_name = "ID")]
    pub run: Option<RunId>,
    /// Identifier of a study; its runs stop at checkpoints.
    #[arg(long, value_name = "ID")]
    pub study: Option<RunId>,
    #[command(flatten)]
    pub folder: FolderArgs,
}
