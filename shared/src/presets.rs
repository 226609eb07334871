//! Shipped presets: from a test of seconds to a run worth reporting.

use crate::config::{EvaluationConfig, ModelConfig, PolicyConfig, RewardModelConfig, RunConfig, SupervisedConfig, TaskConfig};
use crate::event::PresetInfo;
use crate::mapping::{MappingConfig, MappingFunction};

/// All presets, smallest first.
pub fn all() -> Vec<PresetInfo> {
    vec![smoke(), quick(), standard()]
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
            task: TaskConfig { rows: 2_000, ..Default::default() },
            vocabulary: 512,
            model: model.clone(),
            reward_trunk: model,
            sft: SupervisedConfig { steps: 40, batch: 32, ..Default::default() },
            reward_model: RewardModelConfig { steps: 40, batch: 32, ..Default::default() },
            policy: PolicyConfig { iterations: 16, prompts: 8, samples_per_prompt: 4, checkpoint_every: 3, ..Default::default() },
            evaluation: EvaluationConfig { questions: 8, joint: 16, held_out: 8, front: 4, paraphrased: 8, ..Default::default() },
            ..Default::default()
        },
    )
}

/// The ordinal mapping of `quick` and `standard`. With the paper's `p[t]` an answer two classes away from the one asked
/// for earns as little as one four classes away, and the far classes of a head are forgotten before they are learnt.
fn ordinal() -> MappingConfig {
    MappingConfig { function: MappingFunction::RankedProbability, ..Default::default() }
}

fn quick() -> PresetInfo {
    named(
        "quick",
        "Quick",
        "Minutes on two CPU cores. A tiny model learns to obey its tags.",
        RunConfig {
            sft: SupervisedConfig { steps: 400, learning_rate: 4e-3, ..Default::default() },
            reward_model: RewardModelConfig { steps: 500, ..Default::default() },
            mapping: ordinal(),
            policy: PolicyConfig { iterations: 220, minibatches: 2, kl_coefficient: 0.05, ..Default::default() },
            ..Default::default()
        },
    )
}

fn standard() -> PresetInfo {
    named(
        "standard",
        "Standard",
        "Nine times the samples of quick, and more supervised steps.",
        RunConfig {
            sft: SupervisedConfig { steps: 1_000, learning_rate: 4e-3, ..Default::default() },
            reward_model: RewardModelConfig { steps: 1_500, ..Default::default() },
            mapping: ordinal(),
            policy: PolicyConfig {
                iterations: 1_000,
                prompts: 64,
                minibatches: 2,
                learning_rate: 7e-4,
                kl_coefficient: 0.05,
                checkpoint_every: 50,
                ..Default::default()
            },
            evaluation: EvaluationConfig {
                questions: 128,
                joint: 512,
                held_out: 128,
                front: 128,
                paraphrased: 256,
                ..Default::default()
            },
            ..Default::default()
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The README compares the two: nothing but the mapping may differ.
    #[test]
    fn the_paper_mapping_beside_quick_differs_in_the_mapping_alone() {
        let beside: RunConfig = serde_json::from_str(include_str!("../../docs/quick-paper-mapping.json")).unwrap();
        let quick = quick().config;
        assert_ne!(beside.mapping, quick.mapping);
        assert_eq!(beside.mapping, MappingConfig::default());
        assert_eq!(
            RunConfig { name: quick.name.clone(), preset: quick.preset.clone(), mapping: quick.mapping.clone(), ..beside },
            quick
        );
    }
}
