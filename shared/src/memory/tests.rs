//! Every part of every moment, counted by hand for tiny models; and what was measured of real ones.

use super::shape::TINY;
use super::*;
use crate::config::{AdapterTarget, BaseConfig, HeadPooling, ModelConfig, PolicyConfig, TaskConfig};
use crate::presets;

/// Two objectives, of three and two classes.
fn objectives() -> Vec<Objective> {
    vec![Objective::new("a", "A", "", &["x", "y", "z"]), Objective::new("b", "B", "", &["x", "y"])]
}

/// A run of the lab's own model of the shape [`TINY`], which has 1,080 weights.
fn own() -> RunConfig {
    let model = ModelConfig { layers: 2, d_model: 8, d_ff: 12, heads: 2, kv_heads: 1, ..Default::default() };
    let policy = PolicyConfig { prompts: 4, samples_per_prompt: 2, max_new_tokens: 8, ..Default::default() };
    let task = TaskConfig { rows: 1_000, ..Default::default() };
    let mut c = RunConfig { vocabulary: 10, model: model.clone(), reward_trunk: model, policy, task, ..Default::default() };
    (c.sft.batch, c.reward_model.batch) = (4, 4);
    (c.evaluation.questions, c.evaluation.joint) = (3, 5);
    c
}

/// A run that begins with a model of the shape [`TINY`] in bf16, under adapters of rank 3: 696 numbers, and 348 on the one layer of the reward
/// model.
fn adapted() -> RunConfig {
    let base = BaseConfig { model: "tiny".into(), rank: 3, reward_layers: 1, weights: Precision::Bf16, ..Default::default() };
    let mut c = RunConfig { base, ..own() };
    c.task.kind = TaskKind::Style;
    c.policy.prompts = 10;
    (c.reward_model.batch, c.reward_model.pooling, c.reward_model.beginnings) = (6, HeadPooling::LastAndMean, 0.3);
    (c.method.preference_sft, c.method.ric.batch) = (1, 3);
    c
}

/// `process, weights, training, heads, activations, logits, cache` of every moment on two threads.
fn check(c: &RunConfig, base: Option<&Shape>, expected: &[(Stage, [f64; 7])]) {
    let found: Vec<(Stage, [f64; 7])> = moments(c, base, &objectives(), 2)
        .into_iter()
        .map(|m| (m.stage, [m.process, m.weights, m.training, m.heads, m.activations, m.logits, m.cache]))
        .collect();
    assert_eq!(found, expected);
}

#[test]
fn parts_of_a_model_that_is_trained_whole_are_those_counted_by_hand() {
    // 100 MiB, two threads of 8 MiB, 1,000 rows of 1,200 bytes, ten entries of 256.
    let process = 116.0 * 1_048_576.0 + 1_200_000.0 + 2_560.0;
    check(
        &own(),
        None,
        &[
            // Four rows of 64 tokens, 40 of them answer, in two pieces of two rows. Weights, two moments and two sums of gradients: 5 times
            // 1,080 numbers of 4 bytes. Two pieces at work, each of 3 layers (one for gradients on their way) of 96 numbers for 128 tokens; and
            // twice 80 rows of 10 scores.
            (Stage::Sft, [process, 0.0, 21_600.0, 0.0, 4.0 * 2.0 * 3.0 * 96.0 * 128.0, 4.0 * 2.0 * 2.0 * 80.0 * 10.0, 0.0]),
            // The same without scores, beside the policy. Heads: 8 x 5 weights, five times; and 8 numbers of two answers in each piece.
            (Stage::RewardModel, [process, 4_320.0, 21_600.0, 4.0 * 8.0 * (25.0 + 4.0), 294_912.0, 0.0, 0.0]),
            // 64 pairs of rows of 128 tokens: 22 pieces of at most three, in eight sums of three pieces each, two more on their way, and what the
            // first of two heads had. Policy and reward model rest.
            (Stage::Calibration, [process, 8_640.0, 4.0 * 1_080.0 * 11.0, 160.0, 4.0 * 2.0 * 3.0 * 96.0 * 384.0, 0.0, 0.0]),
            // Policy, reference and reward model rest; two moments. Eight answers, four on each thread, to two prompts of 24 tokens: 52 numbers
            // of each are read, 16 remembered of them and of 32 tokens of answers; twice 4 rows of 10 scores.
            (
                Stage::Policy,
                [process, 12_960.0, 8_640.0, 160.0, 4.0 * 2.0 * 48.0 * 52.0, 4.0 * 2.0 * 2.0 * 40.0, 4.0 * 2.0 * 16.0 * 80.0],
            ),
            // Four prompts of 24 tokens with two answers of 8 are two pieces of 80 tokens, 32 of them answers. The reference reads them.
            (Stage::Policy, [process, 12_960.0, 8_640.0, 160.0, 4.0 * 2.0 * 80.0 * 52.0, 4.0 * 2.0 * 32.0 * 10.0, 0.0]),
            // The update.
            (
                Stage::Policy,
                [process, 12_960.0, 21_600.0, 160.0, 4.0 * 2.0 * 3.0 * 96.0 * 80.0, 4.0 * 2.0 * 2.0 * 32.0 * 10.0, 0.0],
            ),
            // Three questions for each of five classes, and five more: ten on each thread.
            (
                Stage::Evaluation,
                [process, 12_960.0, 0.0, 160.0, 4.0 * 2.0 * 240.0 * 52.0, 4.0 * 2.0 * 2.0 * 100.0, 4.0 * 2.0 * 16.0 * 320.0],
            ),
        ],
    );
}

#[test]
fn parts_of_a_model_under_adapters_are_those_counted_by_hand() {
    let process = 116.0 * 1_048_576.0 + 2_560.0;
    // 1,080 weights in bf16, once.
    let weights = 2_160.0;
    check(
        &adapted(),
        Some(&TINY),
        &[
            // Adapters of policy and trunk rest; of one layer 348 numbers, five times. Six rows of 72 tokens are two pieces of 216: two layers
            // (one for gradients on their way) of 117 numbers, and 288 of widened adapters. Heads read 16 numbers: 16 x 5 weights, five
            // times, and 24 tokens of answers in each piece.
            (
                Stage::RewardModel,
                [
                    weights,
                    4.0 * (2.0 * 696.0 + 5.0 * 348.0),
                    4.0 * 16.0 * (25.0 + 2.0 * 24.0),
                    8.0 * (2.0 * 117.0 * 216.0 + 288.0),
                    0.0,
                    0.0,
                ],
            ),
            // 64 pairs of rows of 144 tokens: 24 pieces of at most three, in eight sums, two more on their way, and what one head had.
            (
                Stage::Calibration,
                [weights, 4.0 * (2.0 * 696.0 + 12.0 * 348.0), 320.0, 8.0 * (2.0 * 117.0 * 432.0 + 288.0), 0.0, 0.0],
            ),
            // Three rows are pieces of two and one: 144 tokens, 16 of them answers.
            (
                Stage::PreferenceSft,
                [
                    weights,
                    4.0 * (2.0 * 696.0 + 348.0 + 5.0 * 696.0),
                    320.0,
                    8.0 * (3.0 * 117.0 * 144.0 + 2.0 * 288.0),
                    8.0 * 2.0 * 16.0 * 10.0,
                    0.0,
                ],
            ),
            // Adapters of trunk, reference, policy with two moments, and reward model; those of two layers widened. Ten answers on each thread,
            // to five prompts of 64 tokens.
            (
                Stage::Policy,
                [
                    weights,
                    4.0 * (5.0 * 696.0 + 348.0 + 2.0 * 288.0),
                    320.0,
                    8.0 * 320.0 * 52.0,
                    8.0 * 2.0 * 100.0,
                    8.0 * 16.0 * 400.0,
                ],
            ),
            // Ten prompts of 64 tokens with two answers of 8: four pieces, the largest of three. The reference reads them.
            (Stage::Policy, [weights, 4.0 * (5.0 * 696.0 + 348.0), 320.0, 8.0 * 240.0 * 52.0, 8.0 * 48.0 * 10.0, 0.0]),
            // The update: four sums of gradients.
            (
                Stage::Policy,
                [
                    weights,
                    4.0 * (3.0 * 696.0 + 348.0 + 7.0 * 696.0),
                    320.0,
                    8.0 * (3.0 * 117.0 * 240.0 + 2.0 * 288.0),
                    8.0 * 2.0 * 48.0 * 10.0,
                    0.0,
                ],
            ),
            // Ten prompts of 64 tokens on each thread, and ten answers of 8.
            (
                Stage::Evaluation,
                [
                    weights,
                    4.0 * (3.0 * 696.0 + 348.0 + 2.0 * 288.0),
                    320.0,
                    8.0 * 640.0 * 52.0,
                    8.0 * 2.0 * 100.0,
                    8.0 * 16.0 * 720.0,
                ],
            ),
        ]
        .map(|(stage, [w, t, h, a, l, k])| (stage, [process, w, t, h, a, l, k])),
    );
    assert!(moments(&adapted(), None, &objectives(), 2).is_empty(), "a shape that is not known");
}

#[test]
fn adapters_of_some_matrices_take_the_memory_of_these_alone() {
    let mut c = adapted();
    c.base.targets = vec![AdapterTarget::QProj, AdapterTarget::VProj];
    let all = moments(&c, Some(&TINY), &objectives(), 2);
    // Queries 8 + 8 and values 8 + 4, three times, in two layers: 168 numbers, and 84 on the reward model's one. A token keeps 6 more numbers
    // than without adapters, and 6 rows of 16 are widened.
    let reward = all.iter().find(|m| m.stage == Stage::RewardModel).unwrap();
    assert_eq!(reward.training, 4.0 * (2.0 * 168.0 + 5.0 * 84.0));
    assert_eq!(reward.activations, 8.0 * (2.0 * 102.0 * 216.0 + 96.0));
    let update = all.iter().rfind(|m| m.stage == Stage::Policy).unwrap();
    assert_eq!(update.training, 4.0 * (3.0 * 168.0 + 84.0 + 7.0 * 168.0));
    assert_eq!(update.activations, 8.0 * (3.0 * 102.0 * 240.0 + 2.0 * 96.0));
    let evaluation = all.last().unwrap();
    assert_eq!(evaluation.training, 4.0 * (3.0 * 168.0 + 84.0 + 2.0 * 96.0));
}

#[test]
fn with_checkpointing_the_residual_stream_is_kept_and_one_layer() {
    let again = |c: &RunConfig| RunConfig { base: BaseConfig { checkpointing: true, ..c.base.clone() }, ..c.clone() };
    let [with, without] = [again(&adapted()), adapted()].map(|c| moments(&c, Some(&TINY), &objectives(), 2));
    // Reward model, calibration, preference SFT, sampling, reading, update, evaluation: 8 numbers for each layer, of which the reward model has
    // one, and twice the 117 of a layer; of widened adapters those of a layer.
    let trained = [8.0 * (242.0 * 216.0 + 288.0), 8.0 * (242.0 * 432.0 + 288.0), 8.0 * (250.0 * 144.0 + 288.0)];
    assert_eq!([with[0], with[1], with[2]].map(|m| m.activations), trained);
    assert_eq!(with[5].activations, 8.0 * (250.0 * 240.0 + 288.0));
    for (n, (with, without)) in with.iter().zip(&without).enumerate() {
        let trains = [0, 1, 2, 5].contains(&n);
        let activations = if trains { with.activations } else { without.activations };
        assert_eq!(*with, Memory { activations, ..*without });
    }
    // What is trained whole is trained as before.
    assert_eq!(moments(&again(&own()), None, &objectives(), 2), moments(&own(), None, &objectives(), 2));
}

#[test]
fn tags_that_are_tokens_take_memory_with_policies_alone() {
    let mut c = adapted();
    c.base.added_tokens = true;
    let all = moments(&c, Some(&TINY), &objectives(), 2);
    // Five classes of 8 numbers each, with every 696 of a policy: one that rests while a reward model is trained, two and the one that is updated.
    let reward = all.iter().find(|m| m.stage == Stage::RewardModel).unwrap();
    assert_eq!(reward.training, 4.0 * (2.0 * 696.0 + 40.0 + 5.0 * 348.0));
    let update = all.iter().rfind(|m| m.stage == Stage::Policy).unwrap();
    assert_eq!(update.training, 4.0 * (3.0 * 696.0 + 2.0 * 40.0 + 348.0 + 7.0 * 736.0));
    // The lab's own models have such tokens anyhow.
    let mut c = own();
    c.base.added_tokens = true;
    assert_eq!(moments(&c, None, &objectives(), 2), moments(&own(), None, &objectives(), 2));
}

#[test]
fn optimisers_and_methods_keep_what_they_need() {
    let update = |change: &dyn Fn(&mut RunConfig)| {
        let mut c = own();
        change(&mut c);
        let all = moments(&c, None, &objectives(), 2);
        *all.iter().rfind(|m| m.stage == Stage::Policy).unwrap()
    };
    let plain = update(&|_| {});
    // A critic with two moments; a mean of the weights.
    assert_eq!(update(&|c| c.policy.optimizer = PolicyOptimizer::Ppo).training, plain.training + 3.0 * 4_320.0);
    assert_eq!(update(&|c| c.policy.average = 0.1).training, plain.training + 4_320.0);
    // Of four answers two are read.
    let pairs = update(&|c| (c.policy.optimizer, c.policy.samples_per_prompt) = (PolicyOptimizer::OnlineDpo, 4));
    assert_eq!((pairs.activations, pairs.logits), (plain.activations, plain.logits));
    // One policy for each of two objectives; a reward model for each, and as many that grade.
    assert_eq!(update(&|c| c.method.kind = Method::RewardedSoups).weights, plain.weights + 4_320.0);
    let many = update(&|c| (c.reward_model.separate, c.evaluation.held_out_reward_model) = (true, true));
    assert_eq!(many.weights, plain.weights + 3.0 * 4_320.0);
    // Half of the prompts at a time are one piece on each thread, and all of them one after the other one piece.
    let halves = update(&|c| c.policy.minibatches = 2);
    let one = update(&|c| c.policy.minibatches = 4);
    assert_eq!([halves, one].map(|m| m.activations), [2.0, 4.0].map(|n| plain.activations / n));
    // 400 prompts are 42 pieces of at most ten; seven sums of six pieces each, and two that are on their way.
    let large = update(&|c| c.policy.prompts = 400);
    assert_eq!(large.training, 4.0 * 1_080.0 * (3.0 + 7.0 + 2.0));
    assert_eq!(large.activations, 5.0 * plain.activations);
    // As many threads as there are pieces read, and train no more than the sums.
    let all = |threads| moments(&own(), None, &objectives(), threads);
    let [two, many] = [2, 64].map(|threads| all(threads).into_iter().filter(|m| m.stage == Stage::Policy).collect::<Vec<_>>());
    assert_eq!((many[1].logits, many[2].logits), (two[1].logits, two[2].logits));
    let mut c = own();
    c.policy.prompts = 400;
    let read = moments(&c, None, &objectives(), 64)[4];
    assert_eq!(read.logits, 4.0 * 42.0 * 10.0 * 16.0 * 10.0);
    // Nothing is optimised.
    let mut c = own();
    c.method.kind = Method::BestOfN;
    let stages: Vec<Stage> = moments(&c, None, &objectives(), 2).iter().map(|m| m.stage).collect();
    assert_eq!(stages, [Stage::Sft, Stage::RewardModel, Stage::Calibration, Stage::Evaluation]);
}

#[test]
fn batches_are_cut_into_an_even_number_of_pieces_and_no_item_is() {
    let cases = [(4.0, 40.0), (10.0, 80.0), (6.0, 704.0), (400.0, 40.0), (1.0, 700.0), (0.0, 9.0)];
    let found = cases.map(|(items, tokens)| pieces(items, tokens));
    assert_eq!(found, [(2.0, 2.0), (4.0, 3.0), (6.0, 1.0), (42.0, 10.0), (1.0, 1.0), (1.0, 0.0)]);
    assert_eq!([0, 1_080, 70_000_000, 134_515_008, usize::MAX].map(partial_sums), [8, 8, 3, 2, 2]);
}

#[test]
fn a_sum_is_of_its_parts_and_of_what_lies_between_them() {
    let memory = Memory {
        stage: Stage::Policy,
        process: MIB,
        weights: 2.0 * MIB,
        training: 10.0 * MIB,
        heads: 20.0 * MIB,
        activations: 40.0 * MIB,
        logits: 20.0 * MIB,
        cache: 10.0 * MIB,
    };
    // 103 MiB, and 7 % of 100.
    assert_eq!((memory.mib(), memory.largest()), (110, (Part::Activations, 40)));
    let most = peak(&own(), None, &objectives(), 2).unwrap();
    assert!(moments(&own(), None, &objectives(), 2).iter().all(|m| m.bytes() <= most.bytes()));
}

fn off_the_shelf(weights: Precision, reward_layers: usize) -> RunConfig {
    let mut c = presets::find("offtheshelf").unwrap().config;
    (c.base.model, c.base.weights, c.base.reward_layers) = ("some".into(), weights, reward_layers);
    c
}

/// What is written down of runs on two threads: the preset with SmolLM2-135M took 2.9 GiB (docs/models.md), and with a model of the shape of
/// Qwen2.5-0.5B in f32, whose reward model has all layers, 6.6 GiB (docs/performance.md).
#[test]
fn runs_that_were_measured_are_estimated_within_a_tenth() {
    let smollm2 = Shape {
        layers: 30,
        d_model: 576,
        d_ff: 1_536,
        heads: 9,
        kv_heads: 3,
        head_dim: 64,
        vocabulary: 49_152,
        tied: true,
        qk_norm: false,
        tags: 0,
    };
    let qwen = Shape { layers: 24, d_model: 896, d_ff: 4_864, heads: 14, kv_heads: 2, vocabulary: 151_936, ..smollm2 };
    let estimated = |c: &RunConfig, shape: &Shape| peak(c, Some(shape), &[], 2).unwrap();
    for (c, shape, gib) in [(off_the_shelf(Precision::F32, 12), smollm2, 2.9), (off_the_shelf(Precision::F32, 0), qwen, 6.6)] {
        let found = estimated(&c, &shape);
        let share = found.bytes() / (gib * 1024.0 * MIB);
        assert!((0.9..1.1).contains(&share), "{} MiB for {gib} GiB: {found:?}", found.mib());
        assert_eq!((found.stage, found.largest().0), (Stage::Policy, Part::Activations));
    }
    // Half a billion weights in bf16 take their first step within 8 GiB, and within 4 where layers are computed twice.
    let mut c = off_the_shelf(Precision::Bf16, 0);
    let half = estimated(&c, &qwen);
    assert!(half.mib() < 8 * 1024, "{} MiB", half.mib());
    c.base.checkpointing = true;
    let again = estimated(&c, &qwen);
    assert!(again.mib() < 4 * 1024 && again.largest().0 == Part::Logits, "{} MiB: {again:?}", again.mib());
}
