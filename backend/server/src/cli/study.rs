//! Arguments of the commands that train many runs.

use super::FolderArgs;
use crate::failure::Failure;
use crate::id::RunId;
use crate::json::{JsonError, read_toml};
use crate::launch::ray::RayProfile;
use crate::launch::slurm::Profile;
use crate::launch::{Launcher, Local, Ray, Slurm};
use clap::{ArgGroup, Args, ValueEnum};
use moslim_shared::config::Problem;
use serde::de::DeserializeOwned;
use std::path::{Path, PathBuf};

#[derive(Debug, Args)]
#[command(group(ArgGroup::new("what").args(["preset", "config", "study"]).required(true)))]
pub struct StudyArgs {
    /// A shipped study: methods, ceiling, optimisers, credit, mappings, reward-size, stages, labels.
    #[arg(long)]
    pub preset: Option<String>,
    /// A study of your own: a JSON file with name, base, axes and seeds.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Go on with this study.
    #[arg(long, value_name = "ID")]
    pub study: Option<RunId>,
    /// Run preset that a shipped study varies.
    #[arg(long, default_value = "quick")]
    pub base: String,
    /// Seeds, separated by commas [default: 1,2,3].
    #[arg(long, value_delimiter = ',')]
    pub seeds: Option<Vec<u64>>,
    /// Runs at a time [default: as many as cores and memory allow].
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub jobs: Option<u16>,
    /// Show what would be run, and end.
    #[arg(long)]
    pub dry: bool,
    #[command(flatten)]
    pub host: HostArgs,
    #[command(flatten)]
    pub folder: FolderArgs,
    /// Print one JSON document.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct CompareArgs {
    /// Run preset that the studies vary.
    #[arg(long, default_value = "world")]
    pub base: String,
    /// Seeds of the results, separated by commas [default: 1,2,3].
    #[arg(long, value_delimiter = ',')]
    pub seeds: Option<Vec<u64>>,
    /// Seed with which settings are tried.
    #[arg(long, default_value_t = 4)]
    pub tuning_seed: u64,
    /// Only these studies, separated by commas; others count as far as they are done.
    #[arg(long, value_delimiter = ',')]
    pub only: Option<Vec<String>>,
    /// Folder to write plans and results to. A study that lies there with today's plan is done.
    #[arg(long, value_name = "DIR")]
    pub to: Option<PathBuf>,
    /// Runs at a time [default: as many as cores and memory allow].
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub jobs: Option<u16>,
    #[command(flatten)]
    pub host: HostArgs,
    #[command(flatten)]
    pub folder: FolderArgs,
}

/// Where runs are trained.
#[derive(Debug, Args)]
pub struct HostArgs {
    /// here; slurm: as a job array of the cluster that this machine can submit to; or ray: as jobs of a Ray cluster.
    #[arg(long, default_value = "here", value_name = "WHERE")]
    pub on: HostArg,
    /// How the cluster wants its jobs: a TOML file with partition, time, memory, cores, modules and more.
    #[arg(long, value_name = "FILE")]
    pub profile: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum HostArg {
    Here,
    Slurm,
    Ray,
}

impl HostArgs {
    /// The way to run them.
    ///
    /// # Errors
    /// A profile that cannot be used names its field; a cluster that does not answer.
    pub fn launcher(&self) -> Result<Box<dyn Launcher>, Failure> {
        match (self.on, &self.profile) {
            (HostArg::Here, Some(_)) => Err(Failure::field("profile", "is for a cluster; say --on slurm or --on ray as well")),
            (HostArg::Here, None) => Ok(Box::new(Local::new()?)),
            (HostArg::Slurm, file) => {
                let profile = file.as_deref().map(profile).transpose()?.unwrap_or_default();
                Ok(Box::new(Slurm::new(profile).map_err(|e| Failure::field("on", format!("{e:#}")))?))
            }
            (HostArg::Ray, file) => {
                let profile = file.as_deref().map(ray_profile).transpose()?.unwrap_or_default();
                Ok(Box::new(Ray::new(profile).map_err(|e| Failure::field("on", format!("{e:#}")))?))
            }
        }
    }
}

/// Reads a Slurm cluster's profile.
///
/// # Errors
/// Names the field.
pub fn profile(file: &Path) -> Result<Profile, Failure> {
    read(file, Profile::problems)
}

/// Reads a Ray cluster's profile.
///
/// # Errors
/// Names the field.
pub fn ray_profile(file: &Path) -> Result<RayProfile, Failure> {
    read(file, RayProfile::problems)
}

fn read<T: DeserializeOwned>(file: &Path, problems: impl Fn(&T) -> Vec<Problem>) -> Result<T, Failure> {
    let shown = file.display();
    let bytes = std::fs::read(file).map_err(|e| Failure::field("profile", format!("{shown} cannot be read: {e}")))?;
    let profile: T = read_toml(&bytes).map_err(|error| match error {
        JsonError::Syntax(message) => Failure::field("profile", format!("{shown}: {message}")),
        JsonError::Field(p) => Failure::field("profile", format!("{shown}: {}: {}", p.field, p.message)),
    })?;
    let problems = problems(&profile).into_iter();
    let problems: Vec<_> = problems.map(|p| Problem { field: format!("profile: {shown}: {}", p.field), ..p }).collect();
    if problems.is_empty() { Ok(profile) } else { Err(Failure::problems(&problems)) }
}
