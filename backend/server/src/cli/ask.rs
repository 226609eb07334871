//! Commands that ask a run.

use crate::id::RunId;
use clap::{ArgGroup, Args};
use moslim_shared::config::DeviceChoice;
use moslim_shared::inference::Source;
use std::path::PathBuf;

/// Which trained run to use.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("source").required(true).args(["run", "folder"])))]
pub struct SourceArgs {
    /// Identifier of a finished run in the data folder.
    #[arg(long, value_name = "ID")]
    pub run: Option<RunId>,
    /// Folder of a finished run.
    #[arg(long, value_name = "PATH")]
    pub folder: Option<PathBuf>,
    /// Data folder [default: MOSLIM_LAB_DATA, else lab-data in the current folder].
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Device to compute on: auto, cpu, cuda or wgpu.
    #[arg(long, default_value = "auto")]
    pub device: DeviceChoice,
}

#[derive(Debug, Args)]
pub struct ScoreArgs {
    #[command(flatten)]
    pub source: SourceArgs,
    /// What is asked for, for example helpfulness=4,verbosity=1; adds the scalar reward and its parts to each line.
    #[arg(long)]
    pub target: Option<String>,
}

#[derive(Debug, Args)]
pub struct GenerateArgs {
    #[command(flatten)]
    pub source: SourceArgs,
    /// The question.
    #[arg(long)]
    pub prompt: String,
    /// What is asked for, for example helpfulness=4,verbosity=1 [default: nothing].
    #[arg(long, default_value = "", hide_default_value = true)]
    pub target: String,
    /// Number of answers.
    #[arg(long, default_value_t = 1)]
    pub n: usize,
    /// Take for each answer the one of this many that the reward model likes best.
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub best_of: usize,
    /// Who answers: policy, start (what it started from, which knows no tags), 25, 50 or 75 (the policy after so many per cent of its
    /// optimisation), or newest (what a run that is not finished has learnt by its last checkpoint).
    #[arg(long = "source", default_value = "policy", value_name = "NAME")]
    pub who: Source,
    /// The same as --source start.
    #[arg(long, conflicts_with = "who")]
    pub start: bool,
    /// Sampling temperature; 0 takes the most probable token [default: that of the run's report].
    #[arg(long)]
    pub temperature: Option<f64>,
    /// Probability mass that tokens are sampled from.
    #[arg(long, default_value_t = 1.0)]
    pub top_p: f64,
    /// Longest answer, tokens [default: that of the run's report].
    #[arg(long)]
    pub max_new_tokens: Option<usize>,
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Print one JSON document.
    #[arg(long)]
    pub json: bool,
}
