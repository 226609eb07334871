//! A finished run at work: scoring answers and generating them.

use super::device::{Device, choose};
use crate::data::TaskCard;
use crate::evaluate::answer::{Ask, Route};
use crate::keep::models::Models;
use crate::keep::{model_file, read_config};
use crate::model::adapter::AdapterConfig;
use crate::model::files::ModelFiles;
use crate::model::generate::{Sampling, generate};
use crate::model::kernels::Kernels;
use crate::model::packed::Group;
use crate::model::store::from_safetensors;
use crate::model::transformer::Transformer;
use crate::policy::rollout::ended_answer;
use crate::reward::RewardModel;
use crate::reward::frozen::{Calibration, FrozenRewardModel};
use crate::text::{ChatFormat, Tokenizer};
use anyhow::{Context, Result, bail};
use moslim_shared::config::{DeviceChoice, RunConfig};
use moslim_shared::mapping::{MappedReward, map_reward};
use moslim_shared::objective::Objective;
use moslim_shared::ordinal::RewardLoss;
use moslim_shared::preference::Preference;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// A line of input of `moslim-lab score`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScoreLine {
    pub prompt: String,
    pub response: String,
}

/// What the reward model says about one answer.
#[derive(Debug, Clone, Serialize)]
pub struct Scored {
    /// Calibrated, `[objective][class]`.
    pub distributions: Vec<Vec<f64>>,
    /// Present when a preference was given.
    pub reward: Option<MappedReward>,
}

fn read_json<T: DeserializeOwned>(file: &Path) -> Result<T> {
    let bytes = std::fs::read(file).with_context(|| format!("reading {}", file.display()))?;
    serde_json::from_slice(&bytes).with_context(|| format!("reading {}", file.display()))
}

/// What of a run's folder every use of it begins with.
struct Opened {
    config: RunConfig,
    objectives: Vec<Objective>,
    tokenizer: Tokenizer,
    /// The off-the-shelf model that the run is about.
    base: Option<ModelFiles>,
}

fn open(folder: &Path) -> Result<Opened> {
    if !folder.is_dir() {
        bail!("there is no run in {}", folder.display());
    }
    let file = |name: &str| match std::fs::read(folder.join(name)) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        read => read.map(Some),
    };
    let config = read_config(file).with_context(|| format!("reading the configuration in {}", folder.display()))?;
    let objectives = TaskCard::read(folder)?.objectives;
    if config.base.model.is_empty() {
        let tokenizer = Tokenizer::load(&folder.join("tokenizer.json"), &objectives)?;
        return Ok(Opened { config, objectives, tokenizer, base: None });
    }
    let format: ChatFormat = read_json(&folder.join("chat.json"))?;
    let path = folder.join("tokenizer.json");
    let json = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let tokenizer = Tokenizer::chat(&json, &format, &objectives).with_context(|| format!("reading {}", path.display()))?;
    // A run lies in the data folder in which its model is known.
    let data = std::path::absolute(folder)?;
    let data = data.parent().and_then(Path::parent).context("the run lies in no data folder")?;
    let base = Models::of(data).open(&config.base.model)?.1;
    Ok(Opened { config, objectives, tokenizer, base: Some(base) })
}

impl Opened {
    /// A model of the policy's shape: an off-the-shelf one with fresh adapters, or one of the lab's own with random weights.
    fn policy<B: Kernels>(&self, device: &B::Device) -> Result<Transformer<B>> {
        let (c, t) = (&self.config, &self.tokenizer);
        Ok(match &self.base {
            Some(files) => {
                files.load(c.model.context, c.model.precision, device, |_| {})?.adapted(&AdapterConfig::of(&c.base), 0)
            }
            None => Transformer::new(&c.model, t.vocabulary(), t.outputs(), 0, device),
        })
    }

    /// A reward model of this run's shape.
    fn reward_model<B: Kernels>(&self, classes: &[usize], loss: RewardLoss, device: &B::Device) -> Result<RewardModel<B>> {
        Ok(match &self.base {
            Some(_) => RewardModel::on_trunk(self.policy(device)?, classes, loss, 0),
            None => RewardModel::new(&self.config.reward_trunk, self.tokenizer.vocabulary(), classes, loss, 0, device),
        })
    }
}

/// The type of a closure that depends on the backend cannot be named, so each use is an object.
trait Score: Send {
    fn distributions(&self, groups: &[Group]) -> Vec<Vec<Vec<f64>>>;
    fn reward(&self, distributions: &[Vec<f64>], preference: &Preference) -> MappedReward;
    fn context(&self) -> usize;
}

struct ScoreOn<B: Kernels> {
    reward_model: FrozenRewardModel<B>,
    context: usize,
}

impl<B: Kernels> Score for ScoreOn<B> {
    fn distributions(&self, groups: &[Group]) -> Vec<Vec<Vec<f64>>> {
        self.reward_model.distributions(groups)
    }
    fn reward(&self, distributions: &[Vec<f64>], preference: &Preference) -> MappedReward {
        let c = &self.reward_model.calibration;
        map_reward(&c.mapping, &c.statistics, distributions, preference)
    }
    fn context(&self) -> usize {
        self.context
    }
}

/// Scores answers with a run's frozen reward model.
pub struct Scorer {
    inner: Box<dyn Score>,
    objectives: Vec<Objective>,
    tokenizer: Tokenizer,
}

impl Scorer {
    /// Loads the reward model and its calibration from a run's folder.
    ///
    /// # Errors
    /// When a file is missing or damaged (named), or a forced device is not available.
    pub fn load(folder: &Path, device: DeviceChoice) -> Result<Self> {
        let opened = open(folder)?;
        let (config, objectives) = (&opened.config, &opened.objectives);
        let calibration: Calibration = read_json(&folder.join("calibration.json"))?;
        let classes: Vec<usize> = objectives.iter().map(Objective::class_count).collect();
        // One model with all heads, or one for each objective.
        let sets: Vec<Vec<usize>> =
            if config.reward_model.separate { classes.iter().map(|&c| vec![c]).collect() } else { vec![classes] };
        let files: Vec<_> = (0..sets.len()).map(|n| folder.join(model_file("reward", n))).collect();
        let context = if opened.base.is_some() { config.model.context } else { config.reward_trunk.context };
        macro_rules! on {
            ($backend:ty, $device:expr) => {{
                let mut models = Vec::new();
                for (classes, file) in sets.iter().zip(&files) {
                    let weights = std::fs::read(file).with_context(|| format!("reading {}", file.display()))?;
                    let loss = calibration.loss;
                    let model = opened.reward_model::<$backend>(classes, loss, $device)?;
                    models.push(from_safetensors(model, weights).with_context(|| format!("reading {}", file.display()))?);
                }
                Box::new(ScoreOn { reward_model: FrozenRewardModel { models, calibration }, context }) as Box<dyn Score>
            }};
        }
        let inner = match choose(device)?.0 {
            Device::Cpu(d) => on!(burn::backend::Flex, &d),
            #[cfg(feature = "cuda")]
            Device::Cuda(d) => on!(burn::backend::Cuda, &d),
            #[cfg(feature = "wgpu")]
            Device::Wgpu(d) => on!(burn::backend::Wgpu, &d),
        };
        let Opened { objectives, tokenizer, .. } = opened;
        Ok(Self { inner, objectives, tokenizer })
    }

    /// The objectives of the reward model's heads, in order.
    pub fn objectives(&self) -> &[Objective] {
        &self.objectives
    }

    /// Scores (question, answer) pairs; with a preference also their reward.
    ///
    /// # Errors
    /// When a pair does not fit into the reward model's context; the message names it, counted from 1.
    pub fn score(&self, rows: &[(String, String)], preference: Option<&Preference>) -> Result<Vec<Scored>> {
        let mut pairs = Vec::with_capacity(rows.len());
        for (n, (question, answer)) in rows.iter().enumerate() {
            let question = self.tokenizer.untagged_prompt(&self.tokenizer.encode(question)?);
            let answer = ended_answer(&self.tokenizer.encode(answer)?, self.tokenizer.eos);
            let tokens = question.len() + answer.len();
            if tokens > self.inner.context() {
                bail!("pair {} is {} tokens long; the reward model reads at most {}", n + 1, tokens, self.inner.context());
            }
            pairs.push((question, answer));
        }
        let groups: Vec<Group> = pairs.iter().map(|(q, a)| Group { prompt: q, answers: vec![a] }).collect();
        let scored = self.inner.distributions(&groups).into_iter().map(|distributions| {
            let reward = preference.map(|p| self.inner.reward(&distributions, p));
            Scored { distributions, reward }
        });
        Ok(scored.collect())
    }
}

trait Generate: Send {
    fn generate(&self, route: &Route, policy: usize, prompt: &[u32], n: usize, sampling: &Sampling) -> Vec<Vec<u32>>;
}

struct GenerateOn<B: Kernels> {
    policies: Vec<Transformer<B>>,
    /// Positions of the steered objectives.
    steered: Vec<usize>,
    eos: u32,
}

impl<B: Kernels> Generate for GenerateOn<B> {
    fn generate(&self, route: &Route, policy: usize, prompt: &[u32], n: usize, sampling: &Sampling) -> Vec<Vec<u32>> {
        let policy = route.take(policy, &self.policies, &self.steered);
        generate(&policy, &[prompt], n, self.eos, sampling).into_iter().map(|a| a.tokens).collect()
    }
}

/// Generates answers with what a run's method has trained.
pub struct Generator {
    inner: Box<dyn Generate>,
    route: Route,
    objectives: Vec<Objective>,
    tokenizer: Tokenizer,
    context: usize,
}

impl Generator {
    /// Loads the policy from a finished run's folder.
    ///
    /// # Errors
    /// When a file is missing or damaged (named), or a forced device is not available.
    pub fn load(folder: &Path, device: DeviceChoice) -> Result<Self> {
        let opened = open(folder)?;
        let (config, objectives, tokenizer) = (&opened.config, &opened.objectives, &opened.tokenizer);
        // A run from before there were several methods has one policy, which reads tags.
        let file = folder.join("route.json");
        let route = if file.exists() { read_json(&file)? } else { Route::Tags };
        if let Route::BestOf(_) = route {
            bail!("best-of-n chooses with the reward model and has no policy of its own to generate with");
        }
        let steered = config.steered(objectives);
        let files: Vec<_> = (0..route.kept(steered.len())).map(|n| folder.join(model_file("policy", n))).collect();
        let eos = tokenizer.eos;
        macro_rules! on {
            ($backend:ty, $device:expr) => {{
                let mut policies = Vec::new();
                let like = opened.policy::<$backend>($device)?;
                for file in &files {
                    let weights =
                        std::fs::read(file).with_context(|| format!("reading {} (is the run finished?)", file.display()))?;
                    policies
                        .push(from_safetensors(like.clone(), weights).with_context(|| format!("reading {}", file.display()))?);
                }
                Box::new(GenerateOn { policies, steered, eos }) as Box<dyn Generate>
            }};
        }
        let inner = match choose(device)?.0 {
            Device::Cpu(d) => on!(burn::backend::Flex, &d),
            #[cfg(feature = "cuda")]
            Device::Cuda(d) => on!(burn::backend::Cuda, &d),
            #[cfg(feature = "wgpu")]
            Device::Wgpu(d) => on!(burn::backend::Wgpu, &d),
        };
        let context = config.model.context;
        let Opened { objectives, tokenizer, .. } = opened;
        Ok(Self { inner, route, objectives, tokenizer, context })
    }

    /// The objectives that can be asked for.
    pub fn objectives(&self) -> &[Objective] {
        &self.objectives
    }

    /// Samples `n` answers to `prompt` under `preference`.
    ///
    /// # Errors
    /// When prompt and answer do not fit into the policy's context.
    #[allow(clippy::too_many_arguments)]
    pub fn generate(
        &self,
        prompt: &str,
        preference: &Preference,
        n: usize,
        temperature: f64,
        top_p: f64,
        max_new_tokens: usize,
        seed: u64,
    ) -> Result<Vec<String>> {
        let ask = Ask::of(preference.clone());
        let policy = self.route.policy(&ask, &self.objectives);
        let tokens = self.route.prompt(&self.tokenizer.encode(prompt)?, &ask, &self.tokenizer, &self.objectives)?;
        if tokens.len() + max_new_tokens > self.context {
            bail!(
                "the prompt's {} tokens and {max_new_tokens} new ones do not fit into the policy's context of {}",
                tokens.len(),
                self.context
            );
        }
        let sampling = Sampling { temperature, top_p, max_new_tokens, seed };
        self.inner.generate(&self.route, policy, &tokens, n, &sampling).iter().map(|a| self.tokenizer.decode(a)).collect()
    }
}
