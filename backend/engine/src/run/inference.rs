//! A finished run at work: scoring answers and generating them.

use super::device::{Device, choose};
use super::opened::{Opened, open};
use crate::evaluate::answer::{Ask, Route};
use crate::model::generate::{Sampling, generate};
use crate::model::kernels::Kernels;
use crate::model::packed::Group;
use crate::model::transformer::Transformer;
use crate::policy::rollout::ended_answer;
use crate::reward::frozen::FrozenRewardModel;
use crate::text::Tokenizer;
use anyhow::{Result, bail};
use moslim_shared::config::DeviceChoice;
use moslim_shared::mapping::{MappedReward, map_reward};
use moslim_shared::objective::Objective;
use moslim_shared::preference::Preference;
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
        let calibration = opened.calibration()?;
        let config = &opened.config;
        let context = if opened.base.is_some() { config.model.context } else { config.reward_trunk.context };
        macro_rules! on {
            ($backend:ty, $device:expr) => {{
                let trunk = opened.trunk::<$backend>($device)?;
                let models = opened.reward_models(&calibration, trunk.as_ref(), $device)?;
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
            let question = self.tokenizer.untagged_prompt(&self.tokenizer.question(question)?);
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
        let (config, objectives, eos) = (&opened.config, &opened.objectives, opened.tokenizer.eos);
        let route = opened.route()?;
        if let Route::BestOf(_) = route {
            bail!("best-of-n chooses with the reward model and has no policy of its own to generate with");
        }
        let steered = config.steered(objectives);
        let kept = route.kept(steered.len());
        macro_rules! on {
            ($backend:ty, $device:expr) => {{
                let trunk = opened.trunk::<$backend>($device)?;
                let policies = (0..kept).map(|n| opened.policy(n, trunk.as_ref(), $device)).collect::<Result<_>>()?;
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
        let tokens = self.route.prompt(&self.tokenizer.question(prompt)?, &ask, &self.tokenizer, &self.objectives)?;
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
