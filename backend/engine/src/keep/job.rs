//! A run to be trained, and its folder.

use super::files::Files;
use super::sums;
use crate::sums::read_checked;
use anyhow::{Context, Result};
use moslim_shared::config::RunConfig;
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::sync::Arc;

/// Name of the weights of the policy that optimisation started from.
pub const START: &str = "start";
/// File with the configuration of a run. Where it is, there is a run.
pub const CONFIG: &str = "config.toml";
/// File with what is frozen beside the weights of a reward model.
pub const CALIBRATION: &str = "calibration.json";
/// File that says how policies are asked.
pub const ROUTE: &str = "route.json";
/// File that says what a run has trained. Where it is, all of it is.
pub const TRAINED: &str = "trained.json";

/// A run to be trained.
#[derive(Clone)]
pub struct Job {
    /// Identifier; names the run's folder.
    pub run: String,
    pub config: RunConfig,
    /// Everything that the lab keeps: `cache/` and `runs/`.
    pub files: Arc<dyn Files>,
}

impl Job {
    /// A run of the lab that `files` keeps.
    pub fn new(run: &str, config: RunConfig, files: Arc<dyn Files>) -> Self {
        Self { run: run.into(), config, files }
    }

    /// The path of a file in the run's folder.
    pub fn path(&self, file: &str) -> String {
        format!("runs/{}/{file}", self.run)
    }

    /// The path of a file in the run's folder, for messages.
    pub fn describe(&self, file: &str) -> String {
        self.files.describe(&self.path(file))
    }

    /// A file of the run's folder as it was written, or `None`.
    ///
    /// # Errors
    /// When it is there and cannot be read, or has changed since; the message names it.
    pub fn read(&self, file: &str) -> Result<Option<Vec<u8>>> {
        read_checked(&|name| self.files.read(&self.path(name)), file).with_context(|| format!("reading {}", self.describe(file)))
    }

    /// Writes a file of the run's folder, whole or not at all, and its checksum beside it.
    ///
    /// # Errors
    /// When it cannot be written; the message names it.
    pub fn write(&self, file: &str, bytes: &[u8]) -> Result<()> {
        sums::write(self.files.as_ref(), &format!("runs/{}", self.run), file, bytes)
    }

    /// Removes what a process that was killed in the middle of a write has left in the run's folder. Whoever trains the run is the only one
    /// who writes there, but for what people say of it.
    pub fn tidy(&self) {
        let folder = format!("runs/{}", self.run);
        let left = |name: &String| name.starts_with('.') && name.ends_with(".tmp") && !name.starts_with(".about.");
        for name in self.files.list(&folder).unwrap_or_default().iter().filter(|name| left(name)) {
            let _ = self.files.remove(&format!("{folder}/{name}"));
        }
    }

    /// Writes a file of the run's folder as JSON for people.
    ///
    /// # Errors
    /// As [`Job::write`].
    pub fn write_json(&self, file: &str, value: &impl Serialize) -> Result<()> {
        self.write(file, &serde_json::to_vec_pretty(value)?)
    }

    /// Writes the run's configuration, `config.toml`.
    ///
    /// # Errors
    /// As [`Job::write`].
    pub fn write_config(&self) -> Result<()> {
        self.write(CONFIG, toml::to_string(&self.config)?.as_bytes())
    }
}

/// The first twelve digits of the SHA-256 of `config.toml`, as [`Job::write_config`] writes it: what `sha256sum` says of the file. Empty where
/// it cannot be written.
pub fn config_hash(config: &RunConfig) -> String {
    let Ok(text) = toml::to_string(config) else { return String::new() };
    Sha256::digest(text.as_bytes()).iter().take(6).map(|b| format!("{b:02x}")).collect()
}

/// The configuration in a run's folder: `config.toml`, or the `config.json` of older runs. `read` gives a file of the folder.
///
/// # Errors
/// When there is none, or it is damaged.
pub fn read_config(read: impl Fn(&str) -> std::io::Result<Option<Vec<u8>>>) -> Result<RunConfig> {
    if let Some(bytes) = read_checked(&read, CONFIG).context("reading config.toml")? {
        return toml::from_str(std::str::from_utf8(&bytes).context(CONFIG)?).context(CONFIG);
    }
    let bytes = read("config.json").context("reading config.json")?.context("there is no config.toml")?;
    serde_json::from_slice(&bytes).context("config.json")
}

/// File with the weights of the policy after `share` per cent of its optimisation.
pub fn milestone_file(share: u8) -> String {
    model_file(&format!("milestone-{share}"), 0)
}

/// Name of the `n`th file of weights called `name`, from 0.
pub fn model_file(name: &str, n: usize) -> String {
    if n == 0 { format!("{name}.safetensors") } else { format!("{name}-{}.safetensors", n + 1) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keep::files::Memory;
    use moslim_shared::presets;

    #[test]
    fn what_a_killed_process_has_left_goes_and_nothing_else() {
        let files = Arc::new(Memory::default());
        let job = Job::new("a", RunConfig::default(), files.clone());
        for name in [".policy.safetensors.1f.tmp", ".about.json.2.tmp", "policy.safetensors", "notes.tmp"] {
            files.write(&job.path(name), b"x").unwrap();
        }
        job.tidy();
        assert_eq!(files.list("runs/a").unwrap(), [".about.json.2.tmp", "notes.tmp", "policy.safetensors"]);
    }

    #[test]
    fn configurations_come_back_from_toml_and_from_the_json_of_older_runs() {
        for preset in presets::all() {
            let files = Arc::new(Memory::default());
            let mut config = preset.config;
            config.policy.kl_target = Some(0.1 + 0.2);
            config.method.weights = vec![vec![1.0 / 3.0, 2.0 / 3.0, 0.0, 0.0]];
            let job = Job::new("a", config.clone(), files);
            job.write_config().unwrap();
            let read = |file: &str| job.files.read(&job.path(file));
            assert_eq!(read_config(read).unwrap(), config);
            // What anybody can check with the file in hand.
            let sum = Sha256::digest(read(CONFIG).unwrap().unwrap()).iter().map(|b| format!("{b:02x}")).collect::<String>();
            assert_eq!(config_hash(&config), sum[..12]);
            let json = serde_json::to_vec(&config).unwrap();
            assert_eq!(read_config(|f| Ok((f == "config.json").then(|| json.clone()))).unwrap(), config);
        }
        assert!(read_config(|_| Ok(None)).unwrap_err().to_string().contains("config.toml"));
    }
}
