//! Policy optimisation: optimisers, targets, and their settings.

use serde::{Deserialize, Serialize};

/// How a policy is updated from its samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum PolicyOptimizer {
    /// REINFORCE leave-one-out.
    #[default]
    Rloo,
    /// Group relative policy optimisation.
    Grpo,
    /// GRPO without the division by the group's deviation and by the answer's length.
    DrGrpo,
    /// GRPO averaged over tokens, clipped higher upwards, without KL; groups of equal rewards are drawn again.
    Dapo,
    /// REINFORCE with a batch-wide baseline and PPO's clipping.
    ReinforcePlusPlus,
    /// Proximal policy optimisation with a critic.
    Ppo,
    /// Direct preference optimisation on the best and the worst sample of each prompt.
    OnlineDpo,
    /// The same with IPO's squared loss.
    OnlineIpo,
}

/// Where an optimiser has its KL penalty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KlPlacement {
    /// k1, summed or per token, is subtracted from the reward.
    Reward,
    /// k2 or k3 is added to the loss.
    Loss,
    /// The loss itself holds the policy near the reference.
    Implicit,
    /// There is none.
    None,
}

impl PolicyOptimizer {
    /// All optimisers.
    pub const ALL: [Self; 8] =
        [Self::Rloo, Self::Grpo, Self::DrGrpo, Self::Dapo, Self::ReinforcePlusPlus, Self::Ppo, Self::OnlineDpo, Self::OnlineIpo];

    /// Name for people.
    pub fn title(self) -> &'static str {
        match self {
            Self::Rloo => "RLOO",
            Self::Grpo => "GRPO",
            Self::DrGrpo => "Dr. GRPO",
            Self::Dapo => "DAPO",
            Self::ReinforcePlusPlus => "REINFORCE++",
            Self::Ppo => "PPO",
            Self::OnlineDpo => "Online DPO",
            Self::OnlineIpo => "Online IPO",
        }
    }

    /// Where the KL penalty is, as in the optimiser's source.
    pub fn kl_placement(self) -> KlPlacement {
        match self {
            Self::Rloo | Self::ReinforcePlusPlus | Self::Ppo => KlPlacement::Reward,
            Self::Grpo | Self::DrGrpo => KlPlacement::Loss,
            Self::Dapo => KlPlacement::None,
            Self::OnlineDpo | Self::OnlineIpo => KlPlacement::Implicit,
        }
    }

    /// Whether it compares the samples of a prompt and so needs at least two.
    pub fn compares_samples(self) -> bool {
        !matches!(self, Self::ReinforcePlusPlus | Self::Ppo)
    }
}

/// Which estimate of the KL from the reference an optimiser is penalised by, and where; see [`crate::kl`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum KlPenalty {
    /// As in the optimiser's source: k1 in the reward (RLOO, REINFORCE++, PPO), k3 in the loss (GRPO, Dr. GRPO), none (DAPO).
    #[default]
    Own,
    /// k1, subtracted from the reward: the gradient of the reverse KL.
    K1Reward,
    /// k2 in the loss: the gradient of the reverse KL, on samples of the policy itself.
    K2Loss,
    /// k3 in the loss: its value estimates the reverse KL, its gradient is that of the forward KL.
    K3Loss,
    /// k3 times the probability ratio, in the loss: value and gradient of the reverse KL.
    K3RatioLoss,
}

/// What is added to the loss of each token for the KL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KlLoss {
    K2,
    K3,
    K3Ratio,
}

/// How rewards of several objectives become one advantage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Aggregation {
    /// The mapping adds the objectives; the optimiser normalises the sum.
    #[default]
    SumThenNormalise,
    /// GDPO: every objective is normalised within its group, then they are added, then the batch is normalised. For GRPO and
    /// its variants.
    NormaliseThenSum,
    /// MOC (arXiv 2604.04497): objectives are weighed so that their advantages together are shortest, which keeps one from drowning
    /// the others. For RLOO and GRPO's family.
    MinNorm,
}

/// What PPO has besides the others.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct PpoConfig {
    /// Discount of later rewards.
    pub gamma: f64,
    /// Lambda of the advantage estimator.
    pub lambda: f64,
    /// Learning rate of the critic.
    pub critic_learning_rate: f64,
    /// Clipping range of a value around its old one.
    pub value_clip: f64,
    /// First iterations in which only the critic learns.
    pub critic_warm_up: usize,
}

impl Default for PpoConfig {
    fn default() -> Self {
        Self { gamma: 1.0, lambda: 0.95, critic_learning_rate: 2e-3, value_clip: 0.5, critic_warm_up: 5 }
    }
}

/// What online DPO and IPO have besides the others.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct DpoConfig {
    /// Strength of the pull towards the reference: beta of the loss.
    pub beta: f64,
    /// Pairs whose scores differ by less are left out: their order is noise.
    pub margin: f64,
    /// Assumed share of wrongly ordered pairs, in [0, 0.5) (conservative DPO).
    pub label_smoothing: f64,
    /// Whether an answer's log-probability is the mean over its tokens instead of their sum. The papers sum; for IPO the field's
    /// libraries take means, because the squared loss asks for one fixed distance, however long the answers are.
    pub mean_log_probs: bool,
}

impl Default for DpoConfig {
    fn default() -> Self {
        Self { beta: 0.1, margin: 0.05, label_smoothing: 0.0, mean_log_probs: false }
    }
}

/// What DAPO has besides the others.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct DapoConfig {
    /// The last tokens before the longest answer, over which its soft penalty for length rises to 1. Longer answers than the
    /// rest of the room are punished, so it must leave room for the longest that are asked for.
    pub overlong_buffer: usize,
    /// Groups whose scores deviate by less are drawn again: classifying rewards are never exactly equal.
    pub least_deviation: f64,
}

impl Default for DapoConfig {
    fn default() -> Self {
        Self { overlong_buffer: 6, least_deviation: 0.05 }
    }
}

/// An (objective, class) pair.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Target {
    pub objective: String,
    pub class: usize,
}

/// How preferences are drawn for training prompts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct TargetConfig {
    /// Objectives that prompts may ask for; empty means all.
    pub objectives: Vec<String>,
    /// Probability that a prompt asks for an objective; at least one is always asked for. In (0, 1].
    pub active_probability: f64,
    /// Share of classes drawn from their frequency in the data instead of uniformly, in [0, 1].
    pub empirical_share: f64,
    /// Share of prompts that write the tags in random order, in [0, 1]; the others keep the order of the objectives.
    pub shuffled_share: f64,
    /// Share of prompts whose target is drawn whatever the question, in [0, 1]. The others get one that an answer to their question
    /// can meet.
    pub impossible_share: f64,
    /// Share of prompts that ask for what is near the front, in [0, 1]: half of them for the best class of every objective but one, as
    /// RiC draws its goals, half for the best class of some objectives.
    pub near_front_share: f64,
    /// Share of prompts that say, instead of classes, how much each steered objective weighs, in (0, 1]: weights drawn uniformly from the
    /// simplex, in tenths, by which the answers are rewarded ([`crate::mapping::map_weighted`]; preference-conditioned policies as in Panacea,
    /// Zhong et al. 2024, and CLP, Wang et al. 2024). `None`: all ask for classes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weighted_share: Option<f64>,
    /// How prompts say what they ask for.
    pub wording: TargetWording,
    /// Pairs of targets that never occur together in training; evaluation measures them apart.
    pub held_out: Vec<[Target; 2]>,
}

/// How a training prompt says what it asks for. The lab's own models, which have a token for every tag, read nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum TargetWording {
    #[default]
    Tags,
    /// In one of the task's wordings.
    Words,
    /// A third in tags, a third in words, a third in both.
    Mixed,
}

impl Default for TargetConfig {
    fn default() -> Self {
        let pair = |a: &str, i: usize, b: &str, j: usize| {
            [Target { objective: a.into(), class: i }, Target { objective: b.into(), class: j }]
        };
        Self {
            objectives: Vec::new(),
            active_probability: 0.5,
            empirical_share: 0.0,
            shuffled_share: 0.5,
            impossible_share: 0.05,
            near_front_share: 0.0,
            weighted_share: None,
            wording: TargetWording::Tags,
            held_out: vec![
                pair("helpfulness", 2, "verbosity", 3),
                pair("helpfulness", 1, "verbosity", 1),
                pair("honesty", 2, "verbosity", 2),
            ],
        }
    }
}

/// Policy optimisation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct PolicyConfig {
    /// How the policy is updated.
    pub optimizer: PolicyOptimizer,
    /// How several objectives become one advantage.
    pub aggregation: Aggregation,
    /// Iterations: sample, score, update.
    pub iterations: usize,
    /// Budget of everything that the method does once the reward model is there, in millions of token passes (tokens read, three
    /// times where a gradient is computed). When set, iterations end where it is spent, instead of by their number.
    pub passes: Option<f64>,
    /// Prompts (with one preference each) per iteration.
    pub prompts: usize,
    /// Samples per prompt `G`; optimisers that compare samples need at least 2.
    pub samples_per_prompt: usize,
    /// Learning rate of Adam: warm-up over the first twentieth, then constant, with a linear decay over the last quarter.
    pub learning_rate: f64,
    /// Passes over each batch of samples.
    pub epochs: usize,
    /// Minibatches per pass.
    pub minibatches: usize,
    /// Clipping range of the probability ratio.
    pub clip: f64,
    /// Clipping range upwards where it differs (DAPO advises 0.28).
    pub clip_high: Option<f64>,
    /// Which KL estimate is penalised, and where.
    pub kl_penalty: KlPenalty,
    /// KL coefficient beta, per nat; DPO and IPO have their own.
    pub kl_coefficient: f64,
    /// When set, beta adapts towards this KL (nats per answer).
    pub kl_target: Option<f64>,
    /// Sampling temperature.
    pub temperature: f64,
    /// Longest answer, tokens.
    pub max_new_tokens: usize,
    /// Subtracted from the score of an answer that was cut off before its end.
    pub missing_eos_penalty: f64,
    /// Weight of the log-likelihood of as many of SFT's answers as there are prompts, in every iteration (PPO-ptx, Ouyang et al.
    /// 2022); 0 leaves them out.
    pub sft_mix: f64,
    /// Weight of the log-likelihood of as many rated answers, tagged with their labels; 0 leaves them out. For prompts with tags.
    pub rated_mix: f64,
    /// Weight of the log-likelihood of one sample of each prompt, tagged with the classes that it achieved (hindsight
    /// relabelling, Zhang et al. 2023); 0 leaves them out. For prompts with tags.
    pub hindsight: f64,
    /// When set, each token has an advantage of its own: what the reward model's heads expect of an answer before each of its tokens,
    /// mapped to what is asked, is the critic of generalised advantage estimation with this lambda, in [0, 1]. Other
    /// optimisers than RLOO do not read it.
    pub head_credit: Option<f64>,
    /// Share of the iterations, the last ones, whose weights are averaged into the final policy; 0 takes the last weights.
    pub average: f64,
    /// Gradients are scaled down to this norm.
    pub max_gradient_norm: f64,
    /// Iterations between checkpoints.
    pub checkpoint_every: usize,
    pub ppo: PpoConfig,
    pub dpo: DpoConfig,
    pub dapo: DapoConfig,
}

impl PolicyConfig {
    /// Lambda of the credit by the heads, where the optimiser gives any.
    pub fn credit(&self) -> Option<f64> {
        self.head_credit.filter(|_| self.optimizer == PolicyOptimizer::Rloo)
    }

    /// Where the KL penalty is: as chosen, or as in the optimiser's source.
    pub fn kl_placement(&self) -> KlPlacement {
        match (self.kl_penalty, self.optimizer.kl_placement()) {
            (_, KlPlacement::Implicit) => KlPlacement::Implicit,
            (KlPenalty::Own, own) => own,
            (KlPenalty::K1Reward, _) => KlPlacement::Reward,
            _ => KlPlacement::Loss,
        }
    }

    /// What is added to the loss of each token, where the penalty is there.
    pub fn kl_loss(&self) -> Option<KlLoss> {
        (self.kl_placement() == KlPlacement::Loss).then_some(match self.kl_penalty {
            KlPenalty::K2Loss => KlLoss::K2,
            KlPenalty::K3RatioLoss => KlLoss::K3Ratio,
            _ => KlLoss::K3,
        })
    }
}

impl Default for PolicyConfig {
    fn default() -> Self {
        Self {
            optimizer: PolicyOptimizer::Rloo,
            aggregation: Aggregation::SumThenNormalise,
            iterations: 200,
            passes: None,
            prompts: 32,
            samples_per_prompt: 8,
            learning_rate: 1e-3,
            epochs: 1,
            minibatches: 1,
            clip: 0.2,
            clip_high: None,
            kl_penalty: KlPenalty::Own,
            kl_coefficient: 0.03,
            kl_target: None,
            temperature: 1.0,
            max_new_tokens: 48,
            missing_eos_penalty: 1.0,
            sft_mix: 0.0,
            rated_mix: 0.0,
            hindsight: 0.0,
            head_credit: None,
            average: 0.0,
            max_gradient_norm: 1.0,
            checkpoint_every: 25,
            ppo: PpoConfig::default(),
            dpo: DpoConfig::default(),
            dapo: DapoConfig::default(),
        }
    }
}
