//! A finished run's folder, opened: its configuration, its tokenizer, and models of the shapes that its weights are of.

use crate::data::TaskCard;
use crate::evaluate::answer::Route;
use crate::keep::models::{KnownModel, Models};
use crate::keep::{model_file, read_config};
use crate::model::adapter::AdapterConfig;
use crate::model::files::ModelFiles;
use crate::model::kernels::Kernels;
use crate::model::store::from_safetensors;
use crate::model::transformer::Transformer;
use crate::reward::RewardModel;
use crate::reward::frozen::Calibration;
use crate::text::{ChatFormat, Tokenizer};
use anyhow::{Context, Result, bail};
use burn::module::Module;
use burn_store::ModuleSnapshot;
use moslim_shared::config::RunConfig;
use moslim_shared::objective::Objective;
use serde::de::DeserializeOwned;
use std::path::{Path, PathBuf};

/// A JSON file.
///
/// # Errors
/// When it is missing or damaged; the message names it.
pub fn read_json<T: DeserializeOwned>(file: &Path) -> Result<T> {
    let bytes = std::fs::read(file).with_context(|| format!("reading {}", file.display()))?;
    serde_json::from_slice(&bytes).with_context(|| format!("reading {}", file.display()))
}

/// What of a run's folder every use of it begins with.
pub struct Opened {
    pub folder: PathBuf,
    /// Name of the task.
    pub task: String,
    pub config: RunConfig,
    pub objectives: Vec<Objective>,
    pub tokenizer: Tokenizer,
    /// The off-the-shelf model that the run is about.
    pub base: Option<(KnownModel, ModelFiles)>,
}

/// Opens a run's folder.
///
/// # Errors
/// When there is no run in it, a file is missing or damaged (named), or its off-the-shelf model is gone or has changed.
pub fn open(folder: &Path) -> Result<Opened> {
    if !folder.is_dir() {
        bail!("there is no run in {}", folder.display());
    }
    let file = |name: &str| match std::fs::read(folder.join(name)) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        read => read.map(Some),
    };
    let config = read_config(file).with_context(|| format!("reading the configuration in {}", folder.display()))?;
    let TaskCard { name: task, objectives, .. } = TaskCard::read(folder)?;
    let folder = folder.to_path_buf();
    let path = folder.join("tokenizer.json");
    if config.base.model.is_empty() {
        let tokenizer = Tokenizer::load(&path, &objectives)?;
        return Ok(Opened { folder, task, config, objectives, tokenizer, base: None });
    }
    let format: ChatFormat = read_json(&folder.join("chat.json"))?;
    let json = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let tokenizer = Tokenizer::chat(&json, &format, &objectives).with_context(|| format!("reading {}", path.display()))?;
    // A run lies in the data folder in which its model is known.
    let data = std::path::absolute(&folder)?;
    let data = data.parent().and_then(Path::parent).context("the run lies in no data folder")?;
    let base = Models::of(data).open(&config.base.model)?;
    Ok(Opened { folder, task, config, objectives, tokenizer, base: Some(base) })
}

impl Opened {
    /// How its policies are asked. A run from before there were several methods has one policy, which reads tags.
    ///
    /// # Errors
    /// When the file is damaged.
    pub fn route(&self) -> Result<Route> {
        let file = self.folder.join("route.json");
        if file.exists() { read_json(&file) } else { Ok(Route::Tags) }
    }

    /// What was frozen with its reward model.
    ///
    /// # Errors
    /// When the file is missing or damaged.
    pub fn calibration(&self) -> Result<Calibration> {
        read_json(&self.folder.join("calibration.json"))
    }

    /// The off-the-shelf model with fresh adapters, whose weights policies and reward models share; `None` where the run is about one
    /// of the lab's own.
    ///
    /// # Errors
    /// When a weight is missing or damaged.
    pub fn trunk<B: Kernels>(&self, device: &B::Device) -> Result<Option<Transformer<B>>> {
        let Some((_, files)) = &self.base else { return Ok(None) };
        let c = &self.config;
        let trunk = files.load(c.model.context, c.model.precision, device, |_| {})?;
        Ok(Some(trunk.adapted(&AdapterConfig::of(&c.base), 0)))
    }

    /// The `n`th policy that was kept, on the run's [`Self::trunk`].
    ///
    /// # Errors
    /// When its file is missing or damaged (named).
    pub fn policy<B: Kernels>(&self, n: usize, trunk: Option<&Transformer<B>>, device: &B::Device) -> Result<Transformer<B>> {
        let (c, t) = (&self.config, &self.tokenizer);
        let own = || Transformer::new(&c.model, t.vocabulary(), t.outputs(), 0, device);
        self.weights("policy", n, trunk.cloned().unwrap_or_else(own))
    }

    /// The frozen reward model on the run's [`Self::trunk`]: one with all heads, or one for each objective.
    ///
    /// # Errors
    /// When a file is missing or damaged (named).
    pub fn reward_models<B: Kernels>(
        &self,
        calibration: &Calibration,
        trunk: Option<&Transformer<B>>,
        device: &B::Device,
    ) -> Result<Vec<RewardModel<B>>> {
        let classes: Vec<usize> = self.objectives.iter().map(Objective::class_count).collect();
        let separate = self.config.reward_model.separate;
        let sets: Vec<Vec<usize>> = if separate { classes.iter().map(|&c| vec![c]).collect() } else { vec![classes] };
        let own = |(n, classes): (usize, &Vec<usize>)| {
            let (loss, vocabulary) = (calibration.loss, self.tokenizer.vocabulary());
            let model = match trunk {
                Some(trunk) => {
                    RewardModel::on_trunk(trunk.clone().first_layers(self.config.base.reward_layers), classes, loss, 0)
                }
                None => RewardModel::new(&self.config.reward_trunk, vocabulary, classes, loss, 0, device),
            };
            self.weights("reward", n, model)
        };
        sets.iter().enumerate().map(own).collect()
    }

    /// `model` with the weights of the `n`th file of its kind.
    fn weights<B: Kernels, M: Module<B> + ModuleSnapshot<B>>(&self, kind: &str, n: usize, model: M) -> Result<M> {
        let file = self.folder.join(model_file(kind, n));
        let of = || format!("reading {}", file.display());
        let weights = match std::fs::read(&file) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => bail!("{} is missing; is the run finished?", file.display()),
            read => read.with_context(of)?,
        };
        from_safetensors(model, weights).with_context(of)
    }
}
