//! Shipped presets: from a test of seconds to a run worth reporting.

use crate::config::{
    BaseConfig, ClassWeights, EvaluationConfig, HeadPooling, ModelConfig, PolicyConfig, RewardModelConfig, RunConfig,
    SupervisedConfig, TargetConfig, TargetWording, TaskConfig, TaskKind,
};
use crate::event::PresetInfo;
use crate::mapping::{MappingConfig, MappingFunction};
use crate::method::{MethodConfig, RicConfig};

/// All presets, smallest first; last the one for models that people bring.
pub fn all() -> Vec<PresetInfo> {
    let [noisy, sparse, biased] = IMPERFECT.map(|labels| labels.preset());
    vec![smoke(), quick(), tab(), noisy, sparse, biased, world(), standard(), offtheshelf(), ratings()]
}

/// Labels that are not what the gold rules say.
#[derive(Debug, Clone, Copy)]
pub struct Imperfect {
    pub id: &'static str,
    title: &'static str,
    description: &'static str,
    label_noise: f64,
    missing_labels: f64,
    length_bias: f64,
}

/// The ways in which people's labels are imperfect, each as a preset: `quick` with such labels.
pub const IMPERFECT: [Imperfect; 3] = [
    Imperfect {
        id: "noisy",
        title: "Noisy labels",
        description: "Quick, where three labels in ten are off by one class.",
        label_noise: 0.3,
        missing_labels: 0.0,
        length_bias: 0.0,
    },
    Imperfect {
        id: "sparse",
        title: "Sparse labels",
        description: "Quick, where four labels in five are missing.",
        label_noise: 0.0,
        missing_labels: 0.8,
        length_bias: 0.0,
    },
    Imperfect {
        id: "biased",
        title: "Biased labels",
        description: "Quick, where half of the long answers are taken for more helpful than they are.",
        label_noise: 0.0,
        missing_labels: 0.0,
        length_bias: 0.5,
    },
];

impl Imperfect {
    /// `task` with such labels.
    pub fn of(&self, task: &TaskConfig) -> TaskConfig {
        let Self { label_noise, missing_labels, length_bias, .. } = *self;
        TaskConfig { label_noise, missing_labels, length_bias, ..task.clone() }
    }

    fn preset(&self) -> PresetInfo {
        let config = quick().config;
        named(self.id, self.title, self.description, RunConfig { task: self.of(&config.task), ..config })
    }
}

/// The preset called `id`.
pub fn find(id: &str) -> Option<PresetInfo> {
    all().into_iter().find(|p| p.id == id)
}

fn named(id: &str, title: &str, description: &str, config: RunConfig) -> PresetInfo {
    let config = RunConfig { preset: id.into(), ..config };
    PresetInfo { id: id.into(), title: title.into(), description: description.into(), config }
}

fn smoke() -> PresetInfo {
    let model = ModelConfig { layers: 1, d_model: 32, heads: 2, kv_heads: 1, d_ff: 64, ..Default::default() };
    named(
        "smoke",
        "Smoke",
        "Seconds. Every stage runs, nothing is learnt: for tests.",
        RunConfig {
            task: TaskConfig { rows: 2_000, topics: 22, ..Default::default() },
            vocabulary: 640,
            model: model.clone(),
            reward_trunk: model,
            sft: SupervisedConfig { steps: 40, batch: 32, ..Default::default() },
            reward_model: RewardModelConfig { steps: 40, batch: 32, ..Default::default() },
            policy: PolicyConfig { iterations: 16, prompts: 8, samples_per_prompt: 4, checkpoint_every: 3, ..Default::default() },
            evaluation: EvaluationConfig {
                questions: 8,
                joint: 16,
                held_out: 8,
                front: 4,
                fronts_seen: 2,
                paraphrased: 8,
                ..Default::default()
            },
            ..Default::default()
        },
    )
}

/// The ordinal mapping of `quick` and `standard`. With the paper's `p[t]` an answer two classes away from the one asked
/// for earns as little as one four classes away, and the far classes of a head are forgotten before they are learnt.
fn ordinal() -> MappingConfig {
    MappingConfig { function: MappingFunction::RankedProbability, ..Default::default() }
}

/// How the presets that are to be looked at learn: tags are taught on SFT's own answers first, half of the targets lie near the front, and
/// a share of SFT's answers keeps what SFT knows: of all topics among those first ones, of the topics that have labels beside the samples. The paper
/// does without; so does `world`, which studies vary.
fn guided(config: RunConfig, preference_sft: usize) -> RunConfig {
    let mut config = config;
    (config.method.preference_sft, config.method.rehearsal) = (preference_sft, Some(0.25));
    config.targets.near_front_share = 0.5;
    config.policy.sft_mix = 0.5;
    config
}

fn quick() -> PresetInfo {
    let config = RunConfig {
        task: TaskConfig { topics: 24, ..Default::default() },
        sft: SupervisedConfig { steps: 1_000, learning_rate: 4e-3, ..Default::default() },
        reward_model: RewardModelConfig { steps: 900, ..Default::default() },
        mapping: ordinal(),
        policy: PolicyConfig { iterations: 120, minibatches: 2, learning_rate: 5e-4, kl_coefficient: 0.05, ..Default::default() },
        evaluation: EvaluationConfig { fronts_seen: 6, ..Default::default() },
        ..Default::default()
    };
    named(
        "quick",
        "Quick",
        "Minutes on two CPU cores. A tiny model learns to obey its tags, in a world of 24 topics.",
        guided(config, 470),
    )
}

fn world() -> PresetInfo {
    named(
        "world",
        "World",
        "All 60 topics, with the budget that methods are compared at.",
        RunConfig {
            sft: SupervisedConfig { steps: 4_000, learning_rate: 4e-3, ..Default::default() },
            reward_model: RewardModelConfig { steps: 3_000, ..Default::default() },
            mapping: ordinal(),
            policy: PolicyConfig {
                iterations: 240,
                passes: Some(10.0),
                minibatches: 2,
                kl_coefficient: 0.05,
                ..Default::default()
            },
            evaluation: EvaluationConfig { questions: 72, front: 96, ..Default::default() },
            ..Default::default()
        },
    )
}

/// What one thread of a browser does in two minutes: one layer, and two objectives to be steered, those that a reward model of this size
/// tells apart well enough.
fn tab() -> PresetInfo {
    let quick = quick().config;
    let model = ModelConfig { layers: 1, d_model: 64, d_ff: 172, ..quick.model.clone() };
    let mut config = RunConfig {
        task: TaskConfig { rows: 8_000, topics: 22, ..Default::default() },
        model: model.clone(),
        reward_trunk: model,
        sft: SupervisedConfig { steps: 420, batch: 32, learning_rate: 6e-3, ..quick.sft },
        reward_model: RewardModelConfig { steps: 380, batch: 32, ..quick.reward_model },
        targets: TargetConfig {
            objectives: vec!["honesty".into(), "verbosity".into()],
            held_out: Vec::new(),
            ..quick.targets.clone()
        },
        policy: PolicyConfig { iterations: 60, prompts: 16, minibatches: 1, learning_rate: 1e-3, sft_mix: 0.25, ..quick.policy },
        evaluation: EvaluationConfig { questions: 32, joint: 64, held_out: 0, front: 16, paraphrased: 32, ..Default::default() },
        method: quick.method,
        ..quick
    };
    (config.method.preference_sft, config.method.rehearsal) = (330, None);
    config.method.ric.batch = 32;
    named(
        "tab",
        "Tab",
        "Two minutes on one thread, as a browser's tab has it. A smaller model learns whether to say what is true, and at what length.",
        config,
    )
}

/// RLOO on adapters of an off-the-shelf model. As in the paper, no preference training before it. A prompt says its wishes in words;
/// the objectives are about style.
fn offtheshelf() -> PresetInfo {
    let config = RunConfig {
        task: TaskConfig { kind: TaskKind::Style, rows: 768, ..Default::default() },
        // Warmer, a small model talks nonsense, and a policy would learn it.
        // How a text is written shows in the lower layers, spread over its tokens: heads there read it better, at less than half of the cost.
        base: BaseConfig { temperature: 0.8, reward_layers: 12, ..Default::default() },
        model: ModelConfig { context: 320, ..Default::default() },
        reward_trunk: ModelConfig { context: 320, ..Default::default() },
        reward_model: RewardModelConfig {
            steps: 160,
            pooling: HeadPooling::LastAndMean,
            batch: 16,
            learning_rate: 5e-4,
            class_weights: ClassWeights::InverseSqrt,
            // What an answer will be shows long before its end: heads that have learnt so agree better with the rules.
            beginnings: 0.3,
            ..Default::default()
        },
        mapping: ordinal(),
        // Used where somebody asks for preference SFT: what adapters bear.
        method: MethodConfig { ric: RicConfig { batch: 16, learning_rate: 5e-4, ..Default::default() }, ..Default::default() },
        // A small model follows two wishes at once at most, and words that it half understands.
        targets: TargetConfig {
            wording: TargetWording::Words,
            active_probability: 0.3,
            held_out: Vec::new(),
            ..Default::default()
        },
        policy: PolicyConfig {
            iterations: 80,
            prompts: 6,
            samples_per_prompt: 8,
            // Answers are long and few: what each token changes is told from what its neighbours do.
            head_credit: Some(1.0),
            // A long answer, of more than 45 words, has room to end.
            max_new_tokens: 80,
            // At twice the rate and a third of the coefficient it forgets how to talk within ten iterations.
            learning_rate: 1e-4,
            kl_coefficient: 0.05,
            // Cooler than what is rated: half of the noise, and answers that mean something. It is answered as cool as people ask such models.
            temperature: 0.5,
            // Of the model's own answers four in five are cut off: a firmer hand makes all of them short before any is told from another.
            missing_eos_penalty: 0.3,
            checkpoint_every: 6,
            ..Default::default()
        },
        evaluation: EvaluationConfig {
            questions: 16,
            joint: 16,
            held_out: 0,
            temperature: 0.3,
            front: 0,
            paraphrased: 16,
            ..Default::default()
        },
        ..Default::default()
    };
    named(
        "offtheshelf",
        "Off the shelf",
        "An instruction model that you have added learns to write as its prompt asks: how long, how easy, how warm.",
        config,
    )
}

/// A task of imported ratings, with an off-the-shelf model or the lab's own tiny one, for which it is a smoke test. Nobody can grade by
/// rules; a held-out reward model does.
fn ratings() -> PresetInfo {
    let own = ModelConfig { context: 512, ..Default::default() };
    let shelf = offtheshelf().config;
    let config = RunConfig {
        task: TaskConfig { kind: TaskKind::Ratings, ..Default::default() },
        vocabulary: 4_096,
        // People rate more than how a text is written.
        base: BaseConfig { reward_layers: 0, ..shelf.base.clone() },
        reward_model: RewardModelConfig { steps: 96, pooling: HeadPooling::Last, beginnings: 0.0, ..shelf.reward_model.clone() },
        model: own.clone(),
        reward_trunk: own,
        sft: SupervisedConfig { steps: 300, batch: 16, ..Default::default() },
        policy: PolicyConfig { iterations: 36, head_credit: None, ..shelf.policy.clone() },
        evaluation: EvaluationConfig { questions: 16, held_out_reward_model: true, ..shelf.evaluation },
        ..shelf
    };
    named(
        "ratings",
        "Ratings",
        "A task that you have imported: a reward model of people's ratings, and a policy that obeys it.",
        config,
    )
}

fn standard() -> PresetInfo {
    let config = RunConfig {
        sft: SupervisedConfig { steps: 6_000, learning_rate: 4e-3, ..Default::default() },
        reward_model: RewardModelConfig { steps: 4_000, ..Default::default() },
        mapping: ordinal(),
        policy: PolicyConfig {
            iterations: 1_000,
            prompts: 64,
            minibatches: 2,
            learning_rate: 5e-4,
            kl_coefficient: 0.05,
            checkpoint_every: 50,
            ..Default::default()
        },
        evaluation: EvaluationConfig {
            questions: 128,
            joint: 512,
            held_out: 128,
            front: 128,
            fronts_seen: 9,
            paraphrased: 256,
            ..Default::default()
        },
        ..Default::default()
    };
    named(
        "standard",
        "Standard",
        "All 60 topics, with many times the samples of quick and more supervised steps.",
        guided(config, 2_000),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The README compares the two: nothing but the mapping may differ.
    #[test]
    fn the_paper_mapping_beside_quick_differs_in_the_mapping_alone() {
        let quick = quick().config;
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/quick-paper-mapping.json");
        if std::env::var_os("UPDATE_DOCS").is_some() {
            let paper = RunConfig { mapping: MappingConfig::default(), ..quick.clone() };
            std::fs::write(file, serde_json::to_string_pretty(&paper).unwrap() + "\n").unwrap();
        }
        let beside: RunConfig = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
        assert_ne!(beside.mapping, quick.mapping);
        assert_eq!(beside.mapping, MappingConfig::default());
        assert_eq!(
            RunConfig { name: quick.name.clone(), preset: quick.preset.clone(), mapping: quick.mapping.clone(), ..beside },
            quick
        );
    }
}
