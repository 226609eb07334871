//! Options about data: importing ratings, looking at tasks, changing their classes.

use super::FolderArgs;
use crate::id::RunId;
use clap::{Args, Subcommand, ValueEnum};
use moslim_import::import::Bad;
use moslim_shared::config::DeviceChoice;
use std::path::PathBuf;

/// What is done with records that cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum BadRows {
    Drop,
    Stop,
}

impl From<BadRows> for Bad {
    fn from(rows: BadRows) -> Self {
        match rows {
            BadRows::Drop => Self::Drop,
            BadRows::Stop => Self::Stop,
        }
    }
}

#[derive(Debug, Args)]
pub struct ImportArgs {
    /// Files (JSON Lines, JSON, CSV, TSV or Parquet; plain, gzip or zstd), or OWNER/NAME of a data set on the hub. Without them, what the
    /// mapping names on the hub is fetched.
    #[arg(value_name = "FILE|ID")]
    pub files: Vec<String>,
    /// Mapping that says which column is what: a TOML file, or the name of one that the lab brings. Without it, what is in the first
    /// file is shown, with a mapping to begin with.
    #[arg(long, short, value_name = "FILE|NAME")]
    pub mapping: Option<String>,
    /// Name of the task [default: that of the mapping].
    #[arg(long)]
    pub name: Option<String>,
    /// Of a data set on the hub, the branch, tag or commit [default: main].
    #[arg(long, value_name = "REVISION")]
    pub revision: Option<String>,
    /// Records that cannot be used: drop them with place and reason, or stop at the first.
    #[arg(long, value_enum, default_value_t = BadRows::Drop)]
    pub bad_rows: BadRows,
    /// Largest share of answers that may be dropped, from 0 to 1.
    #[arg(long, value_name = "SHARE", default_value_t = 0.05)]
    pub most_bad: f64,
    /// Replace a task of that name.
    #[arg(long)]
    pub replace: bool,
    #[command(flatten)]
    pub folder: FolderArgs,
    /// Print one JSON document.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct DataArgs {
    #[command(subcommand)]
    pub command: DataCommand,
}

#[derive(Debug, Subcommand)]
pub enum DataCommand {
    /// Print rows of the built-in world.
    Sample(SampleArgs),
    /// List the tasks that were imported.
    List(ListTasksArgs),
    /// Print rows of an imported task, with every rater's label and where it comes from.
    Show(ShowTaskArgs),
    /// Count an imported task: labels, agreement of raters, lengths, near duplicates.
    Stats(TaskStatsArgs),
    /// Train a reward model for every fold of an imported task, and say how well it agrees with the labels of rows that it never saw.
    Crossval(CrossvalArgs),
    /// Rows whose labels a run's reward model finds the least likely: candidates for noise.
    Noise(NoiseArgs),
    /// Make one task of several, in proportions.
    Mix(MixArgs),
    /// Write an imported task as JSON Lines or CSV, with a mapping that imports it again.
    Export(ExportTaskArgs),
    /// Merge, rename or re-bin classes of an imported task, without a new import.
    Edit(EditTaskArgs),
}

#[derive(Debug, Args)]
pub struct SampleArgs {
    /// The built-in world; the only source there is, and the default.
    #[arg(long)]
    pub world: bool,
    /// Number of rows.
    #[arg(long, default_value_t = 20)]
    pub n: usize,
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Share of labels moved to a neighbouring class.
    #[arg(long, default_value_t = 0.0)]
    pub label_noise: f64,
    /// Share of labels removed.
    #[arg(long, default_value_t = 0.0)]
    pub missing_labels: f64,
    /// Print one JSON document.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct ListTasksArgs {
    #[command(flatten)]
    pub folder: FolderArgs,
    /// Print one JSON document.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct ShowTaskArgs {
    /// Name of the task.
    pub task: String,
    /// Number of rows.
    #[arg(long, default_value_t = 5)]
    pub n: usize,
    /// Rows before the first that is shown.
    #[arg(long, default_value_t = 0)]
    pub from: usize,
    /// Rows of one split alone: train, validation or test.
    #[arg(long)]
    pub split: Option<String>,
    /// Rows whose raters chose different classes alone.
    #[arg(long)]
    pub disagreed: bool,
    #[command(flatten)]
    pub folder: FolderArgs,
    /// Print one JSON document.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct TaskStatsArgs {
    /// Name of the task.
    pub task: String,
    /// Count lengths in tokens of this off-the-shelf model, instead of words.
    #[arg(long, value_name = "NAME")]
    pub model: Option<String>,
    /// Count the rows that are longer than this.
    #[arg(long, value_name = "LENGTH")]
    pub context: Option<usize>,
    #[command(flatten)]
    pub folder: FolderArgs,
    /// Print one JSON document.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct CrossvalArgs {
    /// Name of the task.
    pub task: String,
    /// Off-the-shelf model that the reward model begins with, by the name that it was added under [default: the lab's own tiny one].
    #[arg(long, value_name = "NAME")]
    pub model: Option<String>,
    /// File with the configuration of a run, whose reward model is trained (JSON, or TOML) [default: the preset ratings].
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Seed of every random choice; overrides the file.
    #[arg(long)]
    pub seed: Option<u64>,
    /// Shares of the prompts to train on, for a learning curve, such as 0.25,0.5,1: five reward models for each [default: what the
    /// configuration says].
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub shares: Vec<f64>,
    /// Device to compute on: auto, cpu, cuda or wgpu.
    #[arg(long, default_value = "auto")]
    pub device: DeviceChoice,
    #[command(flatten)]
    pub folder: FolderArgs,
    /// Print one JSON document.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct NoiseArgs {
    /// Name of the task.
    pub task: String,
    /// A finished run whose reward model knows the task's objectives.
    #[arg(long, value_name = "ID")]
    pub run: RunId,
    /// Number of rows.
    #[arg(long, default_value_t = 20)]
    pub n: usize,
    /// Device to compute on: auto, cpu, cuda or wgpu.
    #[arg(long, default_value = "auto")]
    pub device: DeviceChoice,
    #[command(flatten)]
    pub folder: FolderArgs,
    /// Print one JSON document.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct MixArgs {
    /// Name of the new task.
    pub name: String,
    /// An imported task and its share of the rows: TASK=SHARE; at least two.
    #[arg(long, value_name = "TASK=SHARE")]
    pub of: Vec<String>,
    /// Replace a task of that name.
    #[arg(long)]
    pub replace: bool,
    #[command(flatten)]
    pub folder: FolderArgs,
    /// Print one JSON document.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct ExportTaskArgs {
    /// Name of the task.
    pub task: String,
    /// File to write, .jsonl or .csv; the mapping goes beside it, as .toml.
    #[arg(long, value_name = "FILE")]
    pub to: PathBuf,
    #[command(flatten)]
    pub folder: FolderArgs,
}

#[derive(Debug, Args)]
pub struct EditTaskArgs {
    /// Name of the task.
    pub task: String,
    /// Make classes one: OBJECTIVE:FROM-TO=NAME.
    #[arg(long, value_name = "CHANGE")]
    pub merge: Vec<String>,
    /// Give a class or an objective another name: OBJECTIVE:CLASS=NAME or OBJECTIVE=NAME.
    #[arg(long, value_name = "CHANGE")]
    pub rename: Vec<String>,
    /// New classes from the raters' scores: OBJECTIVE:EDGE,EDGE=NAME,NAME,NAME, where 0 is the lowest class that was imported.
    #[arg(long, value_name = "CHANGE")]
    pub rebin: Vec<String>,
    /// How raters' labels become one: OBJECTIVE=mean, median or majority.
    #[arg(long, value_name = "CHANGE")]
    pub agree: Vec<String>,
    /// Which end is better: OBJECTIVE=higher or lower.
    #[arg(long, value_name = "CHANGE")]
    pub better: Vec<String>,
    /// Leave an objective out.
    #[arg(long, value_name = "OBJECTIVE")]
    pub leave: Vec<String>,
    /// Forget every change that was made since the import.
    #[arg(long)]
    pub undo_all: bool,
    #[command(flatten)]
    pub folder: FolderArgs,
    /// Print one JSON document.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct RateArgs {
    #[command(subcommand)]
    pub command: RateCommand,
}

#[derive(Debug, Subcommand)]
pub enum RateCommand {
    /// Grade answers of an imported task, objective by objective.
    Grades(RateGradesArgs),
    /// Choose between answers of two runs, without knowing whose they are.
    Pairs(RatePairsArgs),
}

#[derive(Debug, Args)]
pub struct RateGradesArgs {
    /// Name of the task whose answers are graded.
    pub task: String,
    /// Who grades.
    #[arg(long)]
    pub rater: String,
    /// File that grades are added to, JSON Lines; its mapping goes beside it, as .toml.
    #[arg(long, value_name = "FILE")]
    pub to: PathBuf,
    /// Number of answers.
    #[arg(long, default_value_t = 20)]
    pub n: usize,
    /// Answers before the first that is graded.
    #[arg(long, default_value_t = 0)]
    pub from: usize,
    /// Of which split: train, validation or test.
    #[arg(long, default_value = "test")]
    pub split: String,
    #[command(flatten)]
    pub folder: FolderArgs,
}

#[derive(Debug, Args)]
pub struct RatePairsArgs {
    /// A finished run.
    #[arg(long, value_name = "ID")]
    pub run: RunId,
    /// Another finished run.
    #[arg(long, value_name = "ID")]
    pub against: RunId,
    /// File with a prompt a line.
    #[arg(long, value_name = "FILE")]
    pub prompts: PathBuf,
    /// Who chooses.
    #[arg(long)]
    pub rater: String,
    /// File that votes are added to, JSON Lines; its mapping goes beside it, as .toml.
    #[arg(long, value_name = "FILE")]
    pub to: PathBuf,
    /// What both runs are asked for, for example helpfulness=4,verbosity=1.
    #[arg(long, default_value = "")]
    pub target: String,
    /// Sampling temperature [default: that of each run's report].
    #[arg(long)]
    pub temperature: Option<f64>,
    /// Longest answer, tokens [default: that of each run's report].
    #[arg(long)]
    pub max_new_tokens: Option<usize>,
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Device to compute on: auto, cpu, cuda or wgpu.
    #[arg(long, default_value = "auto")]
    pub device: DeviceChoice,
    #[command(flatten)]
    pub folder: FolderArgs,
}
