//! A run's folder, opened: its configuration, its tokenizer, and models of the shapes that its weights are of.

use crate::data::TaskCard;
use crate::evaluate::answer::Route;
use crate::keep::bundle::unpack;
use crate::keep::checkpoint::{self, Header};
use crate::keep::files::{Disk, Files};
use crate::keep::models::{KnownModel, Models};
use crate::keep::{CALIBRATION, ROUTE, START, TRAINED, milestone_file, model_file, read_checked, read_config};
use crate::model::adapter::AdapterConfig;
use crate::model::files::ModelFiles;
use crate::model::kernels::Kernels;
use crate::model::store::from_safetensors;
use crate::model::transformer::Transformer;
use crate::reward::RewardModel;
use crate::reward::frozen::Calibration;
use crate::text::{ChatFormat, Tokenizer};
use anyhow::{Context, Result};
use burn::module::Module;
use burn_store::ModuleSnapshot;
use moslim_shared::config::RunConfig;
use moslim_shared::event::Stage;
use moslim_shared::inference::Source;
use moslim_shared::method::Method;
use moslim_shared::objective::Objective;
use serde::de::DeserializeOwned;
use std::io;
use std::path::Path;
use std::sync::Arc;

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
    files: Arc<dyn Files>,
    /// Its folder among them; empty where they are its own alone.
    folder: String,
    /// Name of the task.
    pub task: String,
    pub config: RunConfig,
    pub objectives: Vec<Objective>,
    pub tokenizer: Tokenizer,
    /// The off-the-shelf model that the run is about.
    pub base: Option<(KnownModel, ModelFiles)>,
}

/// Opens a run's folder on a disk.
///
/// # Errors
/// As [`open_in`].
pub fn open(folder: &Path) -> Result<Opened> {
    anyhow::ensure!(folder.is_dir(), "there is no run in {}", folder.display());
    open_in(Arc::new(Disk(folder.to_path_buf())), String::new())
}

/// Opens the run in a folder of `files`.
///
/// # Errors
/// When there is no run in it, a file is missing or damaged (named), or its off-the-shelf model is gone or has changed.
pub fn open_in(files: Arc<dyn Files>, folder: String) -> Result<Opened> {
    let path = |name: &str| if folder.is_empty() { name.to_string() } else { format!("{folder}/{name}") };
    let plain = |name: &str| files.read(&path(name));
    let file = |name: &str| read_checked(&plain, name).map_err(io::Error::other);
    let config = read_config(plain).with_context(|| format!("reading the configuration in {}", files.describe(&folder)))?;
    let whole = |name: &str| -> Result<Vec<u8>> {
        let of = || format!("reading {}", files.describe(&path(name)));
        file(name).and_then(|read| read.ok_or(io::ErrorKind::NotFound.into())).with_context(of)
    };
    let TaskCard { name: task, objectives, .. } = TaskCard::read(file).with_context(|| files.describe(&folder))?;
    let json = String::from_utf8(whole("tokenizer.json")?).with_context(|| files.describe(&path("tokenizer.json")))?;
    let of = || format!("reading {}", files.describe(&path("tokenizer.json")));
    if config.base.model.is_empty() {
        let tokenizer = Tokenizer::from_json(&json, &objectives).with_context(of)?;
        return Ok(Opened { files, folder, task, config, objectives, tokenizer, base: None });
    }
    let format: ChatFormat = serde_json::from_slice(&whole("chat.json")?).context("chat.json")?;
    let tokenizer = Tokenizer::chat(&json, &format, &objectives).with_context(of)?;
    // A run lies in the data folder in which its model is known.
    let own = files.folder().context("an off-the-shelf model needs the lab with a server")?;
    let own = std::path::absolute(own.join(&folder))?;
    let data = own.parent().and_then(Path::parent).context("the run lies in no data folder")?;
    let base = Models::of(data).open(&config.base.model)?;
    Ok(Opened { files, folder, task, config, objectives, tokenizer, base: Some(base) })
}

impl Opened {
    fn path(&self, name: &str) -> String {
        if self.folder.is_empty() { name.to_string() } else { format!("{}/{name}", self.folder) }
    }

    /// A file of the run, for messages.
    fn describe(&self, name: &str) -> String {
        self.files.describe(&self.path(name))
    }

    /// A file of the run as JSON, or `None` where there is none.
    ///
    /// # Errors
    /// When it is damaged (named).
    pub fn json<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>> {
        let Some(bytes) = self.checked(name)? else { return Ok(None) };
        serde_json::from_slice(&bytes).map(Some).with_context(|| format!("reading {}", self.describe(name)))
    }

    /// A file of the run as it was written, or `None` where there is none.
    fn checked(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let of = || format!("reading {}", self.describe(name));
        read_checked(&|name| self.files.read(&self.path(name)), name).with_context(of)
    }

    /// Whether it has a file.
    fn has(&self, name: &str) -> bool {
        self.files.list(&self.folder).unwrap_or_default().iter().any(|n| n == name)
    }

    /// Whether everything that its method trains is there.
    pub fn is_trained(&self) -> bool {
        self.has(TRAINED)
    }

    /// Whether its reward model is there.
    pub fn is_calibrated(&self) -> bool {
        self.has(CALIBRATION)
    }

    /// Files with the last checkpoint of its policy's optimisation, and with the one before. Of other methods a checkpoint is of one policy
    /// among several, or of one that is not asked by tags.
    fn checkpoints(&self) -> Vec<String> {
        let files = [checkpoint::file(Stage::Policy), checkpoint::older(Stage::Policy)];
        files.into_iter().filter(|_| self.config.method.kind == Method::Moslim).collect()
    }

    /// What is kept of its policy on the way: milestones, and the last checkpoint.
    pub fn on_the_way(&self) -> Vec<Source> {
        let kept = |source: &Source| match source {
            Source::Policy | Source::Start => false,
            Source::Newest => self.checkpoints().iter().any(|file| self.has(file)),
            milestone => milestone.milestone().is_some_and(|share| self.has(&milestone_file(share))),
        };
        Source::ALL.into_iter().filter(kept).collect()
    }

    /// Weights of its policy as it was on the way, at a milestone or at the last checkpoint; `None` where they are not kept. Whoever trains
    /// the run replaces its checkpoints whole, and is not disturbed.
    ///
    /// # Errors
    /// When they are damaged, or a checkpoint was not whole after all.
    pub fn weights_on_the_way(&self, source: Source) -> Result<Option<Vec<u8>>> {
        if let Some(share) = source.milestone() {
            return self.checked(&milestone_file(share));
        }
        for file in self.checkpoints() {
            let of = || format!("reading {}", self.describe(&file));
            let Some(bytes) = self.files.read(&self.path(&file)).with_context(of)? else { continue };
            let again = "the run's checkpoint was replaced while it was read, or is damaged; ask again";
            let (_, models) = unpack::<Header<serde_json::Value>>(&bytes).context(again)?;
            return Ok(models.into_iter().next());
        }
        Ok(None)
    }

    /// How its policies are asked. A run from before there were several methods has one policy, which reads tags.
    ///
    /// # Errors
    /// When the file is damaged.
    pub fn route(&self) -> Result<Route> {
        Ok(self.json(ROUTE)?.unwrap_or(Route::Tags))
    }

    /// What was frozen with its reward model; `None` where it has none.
    ///
    /// # Errors
    /// When the file is damaged.
    pub fn calibration(&self) -> Result<Option<Calibration>> {
        self.json(CALIBRATION)
    }

    /// The policy that optimisation started from, on the run's [`Self::trunk`]; `None` where the run kept none.
    ///
    /// # Errors
    /// When its file is damaged (named).
    pub fn start<B: Kernels>(&self, trunk: Option<&Transformer<B>>, device: &B::Device) -> Result<Option<Transformer<B>>> {
        let kept = self.files.read(&self.path(&model_file(START, 0)))?.is_some();
        kept.then(|| self.transformer(START, 0, trunk, device)).transpose()
    }

    /// The off-the-shelf model with fresh adapters, whose weights policies and reward models share; `None` where the run is about one
    /// of the lab's own.
    ///
    /// # Errors
    /// When a weight is missing or damaged.
    pub fn trunk<B: Kernels>(&self, device: &B::Device) -> Result<Option<Transformer<B>>> {
        let Some((_, files)) = &self.base else { return Ok(None) };
        let c = &self.config;
        let trunk = files.load(c.model.context, (c.model.precision, c.base.weights), device, || Ok(()))?;
        Ok(Some(trunk.adapted(&AdapterConfig::of(&c.base), 0)))
    }

    /// The `n`th policy that was kept, on the run's [`Self::trunk`].
    ///
    /// # Errors
    /// When its file is missing or damaged (named).
    pub fn policy<B: Kernels>(&self, n: usize, trunk: Option<&Transformer<B>>, device: &B::Device) -> Result<Transformer<B>> {
        self.transformer("policy", n, trunk, device)
    }

    fn transformer<B: Kernels>(
        &self,
        kind: &str,
        n: usize,
        trunk: Option<&Transformer<B>>,
        device: &B::Device,
    ) -> Result<Transformer<B>> {
        self.weights(kind, n, self.blank(trunk, device))
    }

    /// A policy of the run's shape that has learnt nothing, on the run's [`Self::trunk`].
    pub fn blank<B: Kernels>(&self, trunk: Option<&Transformer<B>>, device: &B::Device) -> Transformer<B> {
        let (c, t) = (&self.config, &self.tokenizer);
        let own = || Transformer::new(&c.model, t.vocabulary(), t.outputs(), 0, device);
        trunk.cloned().map_or_else(own, |trunk| trunk.with_tags(t.added()))
    }

    /// The frozen reward model on the run's [`Self::trunk`]: one with all heads, or one for each objective.
    ///
    /// # Errors
    /// When a file is missing or damaged (named).
    pub fn reward_models<B: Kernels>(&self, trunk: Option<&Transformer<B>>, device: &B::Device) -> Result<Vec<RewardModel<B>>> {
        let classes: Vec<usize> = self.objectives.iter().map(Objective::class_count).collect();
        let separate = self.config.reward_model.separate;
        let sets: Vec<Vec<usize>> = if separate { classes.iter().map(|&c| vec![c]).collect() } else { vec![classes] };
        let own = |(n, classes): (usize, &Vec<usize>)| {
            let c = &self.config;
            let model = match trunk {
                Some(trunk) => {
                    RewardModel::on_trunk(trunk.clone().first_layers(c.base.reward_layers), classes, &c.reward_model, 0)
                }
                None => {
                    let vocabulary = self.tokenizer.vocabulary();
                    RewardModel::new(&c.reward_trunk, vocabulary, classes, &c.reward_model, 0, device)
                }
            };
            self.weights("reward", n, model)
        };
        sets.iter().enumerate().map(own).collect()
    }

    /// `model` with the weights of the `n`th file of its kind.
    fn weights<B: Kernels, M: Module<B> + ModuleSnapshot<B>>(&self, kind: &str, n: usize, model: M) -> Result<M> {
        let file = model_file(kind, n);
        let missing = || format!("{} is missing; is the run finished?", self.describe(&file));
        let weights = self.checked(&file)?.with_context(missing)?;
        from_safetensors(model, weights).with_context(|| format!("reading {}", self.describe(&file)))
    }
}
