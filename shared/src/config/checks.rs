//! Rules between the fields of a configuration. What one field may be by itself is in the table of settings.

use super::models::{AdapterTarget, ClassWeights, ModelConfig, TaskKind};
use super::policy::{Aggregation, PolicyOptimizer, TargetWording};
use super::run::{Problem, RunConfig};
use super::settings;
use crate::mapping::Pooling;
use crate::method::{ChosenBy, Method};
use crate::objective::{Objective, index_of};
use crate::ordinal::RewardLoss;

/// Collects problems with their field paths.
struct Checker {
    problems: Vec<Problem>,
}

impl Checker {
    fn require(&mut self, ok: bool, field: &str, message: impl Into<String>) {
        if !ok {
            self.problems.push(Problem { field: field.into(), message: message.into() });
        }
    }

    fn model(&mut self, path: &str, model: &ModelConfig) {
        let f = |name: &str| format!("{path}.{name}");
        if model.heads > 0 && model.kv_heads > 0 {
            let divides = model.d_model.is_multiple_of(model.heads) && (model.d_model / model.heads).is_multiple_of(2);
            self.require(
                divides,
                &f("heads"),
                format!("d_model ({}) must be an even multiple of heads ({})", model.d_model, model.heads),
            );
            self.require(
                model.heads.is_multiple_of(model.kv_heads),
                &f("kv_heads"),
                format!("must divide heads ({}), is {}", model.heads, model.kv_heads),
            );
        }
    }

    /// A list of one number for each objective, or none.
    fn per_objective(&mut self, field: &str, values: &[f64], objectives: usize) {
        let fits = values.is_empty() || values.len() == objectives;
        self.require(fits, field, format!("has {} numbers; one for each of the {objectives} objectives, or none", values.len()));
        let good = values.iter().all(|w| w.is_finite() && *w >= 0.0) && (values.is_empty() || values.iter().any(|w| *w > 0.0));
        self.require(good, field, "must not be negative, nor all 0");
    }

    fn reward_model(&mut self, c: &RunConfig, objectives: usize) {
        let r = &c.reward_model;
        self.require(
            r.label_smoothing == 0.0 || r.loss == RewardLoss::CrossEntropy,
            "reward_model.label_smoothing",
            "is used by the cross-entropy alone; it must be 0 with another loss",
        );
        self.per_objective("reward_model.head_weights", &r.head_weights, objectives);
        self.require(
            !r.learned_head_weights || r.head_weights.is_empty(),
            "reward_model.learned_head_weights",
            "cannot be on when head_weights are given",
        );
        self.require(
            r.loss != RewardLoss::BradleyTerry || r.batch.is_multiple_of(2),
            "reward_model.batch",
            "must be even for pairs",
        );
        self.require(
            r.class_weights == ClassWeights::Equal || matches!(r.loss, RewardLoss::CrossEntropy | RewardLoss::SquaredEmd),
            "reward_model.class_weights",
            "are used by cross_entropy and squared_emd alone",
        );
        self.require(
            r.per_prompt == 1 || r.loss != RewardLoss::BradleyTerry,
            "reward_model.per_prompt",
            "must be 1 for pairs, which are two answers to one prompt already",
        );
        self.require(
            !r.separate || r.steps >= objectives,
            "reward_model.steps",
            format!("is {}; separate models need at least one step for each of the {objectives} objectives", r.steps),
        );
    }

    fn method(&mut self, c: &RunConfig, objectives: &[Objective]) {
        let m = &c.method;
        let steered = c.steered(objectives).len();
        for (n, weights) in m.weights.iter().enumerate() {
            let field = format!("method.weights[{n}]");
            let fits = weights.len() == steered;
            self.require(
                fits,
                &field,
                format!("has {} numbers; one for each of the {steered} steered objectives", weights.len()),
            );
            let sum: f64 = weights.iter().sum();
            let good = weights.iter().all(|w| w.is_finite() && *w >= 0.0) && (sum - 1.0).abs() < 1e-6;
            self.require(good, &field, format!("must not be negative and sum to 1; the sum is {sum}"));
        }
        self.require(
            m.kind != Method::BestOfN || m.chosen_by == ChosenBy::RewardModel || c.task.kind != TaskKind::Ratings,
            "method.chosen_by",
            "is rules; a task of people's ratings has none, so that only the reward model can choose",
        );
        self.require(
            m.kind == Method::Moslim || c.from.is_none(),
            "from",
            "is for moslim alone; the other methods start several policies, or none",
        );
        for (field, run) in [("from", &c.from), ("fork", &c.fork)] {
            let Some(run) = run else { continue };
            let named = !run.is_empty()
                && run.len() <= 64
                && run.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
            self.require(named, field, "is not the name of a run: lower-case letters, digits and -");
        }
        let policies = m.kind.policies(steered, m.weight_vectors(&c.steered(objectives), objectives.len()).len());
        self.require(
            m.budget == crate::method::Budget::PerPolicy || c.policy.passes.is_some() || policies <= c.policy.iterations.max(1),
            "policy.iterations",
            format!("is {}; {policies} policies share them and need at least one each", c.policy.iterations),
        );
    }

    fn optimizer(&mut self, c: &RunConfig) {
        let p = &c.policy;
        self.require(
            p.optimizer != PolicyOptimizer::Dapo || p.dapo.overlong_buffer < p.max_new_tokens,
            "policy.dapo.overlong_buffer",
            format!("is {}; it must be less than policy.max_new_tokens ({})", p.dapo.overlong_buffer, p.max_new_tokens),
        );
        self.require(
            p.samples_per_prompt != 1 || !p.optimizer.compares_samples(),
            "policy.samples_per_prompt",
            format!("is {}; {} compares the samples of a prompt and needs at least 2", p.samples_per_prompt, p.optimizer.title()),
        );
        let groups = matches!(p.optimizer, PolicyOptimizer::Grpo | PolicyOptimizer::DrGrpo | PolicyOptimizer::Dapo);
        self.require(
            p.aggregation != Aggregation::NormaliseThenSum || groups,
            "policy.aggregation",
            "normalise_then_sum is for grpo, dr_grpo and dapo",
        );
        self.require(
            p.aggregation != Aggregation::MinNorm || groups || p.optimizer == PolicyOptimizer::Rloo,
            "policy.aggregation",
            "min_norm is for rloo, grpo, dr_grpo and dapo",
        );
        if p.credit().is_some() {
            let reads = c.reward_model.beginnings().is_some();
            self.require(
                reads && p.aggregation == Aggregation::SumThenNormalise && c.mapping.pooling != Pooling::Group,
                "policy.head_credit",
                "needs reward_model.beginnings above 0, no loss of pairs, sum_then_normalise, and another mapping.pooling than group",
            );
        }
        // What takes the objectives apart, and what expects something of each of them.
        self.require(
            c.mapping.tchebycheff.is_none()
                || !matches!(c.method.kind, Method::Moslim | Method::Morlhf)
                || (p.aggregation == Aggregation::SumThenNormalise && p.credit().is_none()),
            "mapping.tchebycheff",
            "is one number for all objectives: it needs policy.aggregation sum_then_normalise, and no policy.head_credit",
        );
        self.require(
            c.mapping.pooling != Pooling::Group || p.samples_per_prompt >= 2,
            "mapping.pooling",
            "group needs at least 2 samples per prompt",
        );
    }
}

/// Most members of a list that has one for each objective, of pairs that are held out, and of weight vectors.
const MOST_OBJECTIVES: usize = 64;
const MOST_PAIRS: usize = 32;
const MOST_WEIGHTS: usize = 200;
/// Characters of a name that is repeated to whoever sent it.
const SHOWN: usize = 64;

impl RunConfig {
    /// Lists that are longer than any task could want. They are counted before anything looks at their members.
    pub fn too_long(&self) -> Vec<Problem> {
        let lists = [
            ("targets.objectives", self.targets.objectives.len(), MOST_OBJECTIVES),
            ("targets.held_out", self.targets.held_out.len(), MOST_PAIRS),
            ("method.weights", self.method.weights.len(), MOST_WEIGHTS),
            ("method.weights[0]", self.method.weights.iter().map(Vec::len).max().unwrap_or(0), MOST_OBJECTIVES),
            ("reward_model.head_weights", self.reward_model.head_weights.len(), MOST_OBJECTIVES),
            ("mapping.weights", self.mapping.weights.len(), MOST_OBJECTIVES),
            ("base.targets", self.base.targets.len(), AdapterTarget::ALL.len()),
        ];
        let over = lists.into_iter().filter(|(_, count, most)| count > most);
        over.map(|(field, count, most)| Problem { field: field.into(), message: format!("has {count} members; at most {most}") })
            .collect()
    }

    /// Every problem of this configuration for a task with `objectives`; empty when it is valid.
    pub fn problems(&self, objectives: &[Objective]) -> Vec<Problem> {
        let too_long = self.too_long();
        if !too_long.is_empty() {
            return too_long;
        }
        let mut c = Checker { problems: settings::problems(self) };
        c.require(self.name.chars().count() <= 120, "name", "is longer than 120 characters");
        c.require(!self.name.chars().any(char::is_control), "name", "contains control characters");
        c.model("model", &self.model);
        c.model("reward_trunk", &self.reward_trunk);
        c.require(
            !self.reward_from_sft || !self.base.model.is_empty() || self.evaluation.held_out_layers <= self.model.layers,
            "evaluation.held_out_layers",
            format!(
                "is {}; the held-out reward model begins as the first layers of the SFT model, which has {}",
                self.evaluation.held_out_layers, self.model.layers
            ),
        );
        c.require(
            !self.reward_from_sft || self.model == self.reward_trunk,
            "reward_from_sft",
            "needs reward_trunk to have the sizes of model; make them equal or switch it off",
        );
        c.require(self.sft.label_smoothing == 0.0, "sft.label_smoothing", "is used by the reward model alone; it must be 0 here");
        c.reward_model(self, objectives.len());
        c.method(self, objectives);
        c.optimizer(self);

        c.per_objective("mapping.weights", &self.mapping.weights, objectives.len());

        let targets = &self.targets;
        let known = || objectives.iter().map(|o| o.id.as_str()).collect::<Vec<_>>().join(", ");
        for (n, id) in targets.objectives.iter().enumerate() {
            let field = format!("targets.objectives[{n}]");
            c.require(
                index_of(objectives, id).is_some(),
                &field,
                format!("unknown objective \"{id:.SHOWN$}\"; known are {}", known()),
            );
            c.require(!targets.objectives[..n].contains(id), &field, format!("\"{id:.SHOWN$}\" is named twice"));
        }
        c.require(
            !self.base.added_tokens || targets.wording != TargetWording::Words,
            "base.added_tokens",
            "is on, and targets.wording is words: no prompt would have a tag",
        );
        c.require(targets.active_probability > 0.0, "targets.active_probability", "must be larger than 0");
        let weighted = targets.weighted_share;
        for (fits, message) in [
            (weighted.is_none_or(|share| share.is_finite() && share > 0.0), "must be a number larger than 0"),
            (
                weighted.is_none() || self.method.kind == Method::Moslim,
                "is for moslim alone; no other method reads in its prompts how much objectives weigh",
            ),
            (
                weighted.is_none() || self.base.model.is_empty(),
                "is for the lab's own models; those off the shelf (base.model) are asked for classes alone",
            ),
            (
                weighted.is_none() || self.policy.aggregation != Aggregation::NormaliseThenSum,
                "needs another policy.aggregation than normalise_then_sum, which makes all that weighs something weigh the same",
            ),
        ] {
            c.require(fits, "targets.weighted_share", message);
        }
        for (n, pair) in targets.held_out.iter().enumerate() {
            for (m, target) in pair.iter().enumerate() {
                let field = format!("targets.held_out[{n}][{m}]");
                match index_of(objectives, &target.objective) {
                    None => {
                        let id = &target.objective;
                        c.require(false, &field, format!("unknown objective \"{id:.SHOWN$}\"; known are {}", known()))
                    }
                    Some(i) => {
                        let (class, most) = (target.class, objectives[i].class_count() - 1);
                        c.require(class <= most, &format!("{field}.class"), format!("is {class}; allowed is 0 to {most}"));
                    }
                }
            }
            c.require(
                pair[0].objective != pair[1].objective,
                &format!("targets.held_out[{n}]"),
                "names one objective twice; a pair needs two objectives",
            );
        }

        let policy = &self.policy;
        c.require(
            policy.minibatches <= policy.prompts.max(1),
            "policy.minibatches",
            "is larger than the number of prompts; samples of one prompt stay together",
        );
        // JSON, which the table is read against, has nothing in place of these.
        let optional =
            [("policy.clip_high", policy.clip_high), ("policy.kl_target", policy.kl_target), ("policy.passes", policy.passes)];
        for (field, value) in optional {
            c.require(value.is_none_or(f64::is_finite), field, "is not a number");
        }
        c.require(
            policy.kl_target.is_none() || policy.kl_coefficient > 0.0,
            "policy.kl_coefficient",
            "must be larger than 0 for policy.kl_target to move it",
        );
        c.require(
            policy.max_new_tokens.saturating_add(40) <= self.model.context,
            "policy.max_new_tokens",
            format!("plus 40 tokens of prompt must fit into model.context ({})", self.model.context),
        );
        c.require(
            policy.max_new_tokens.saturating_add(40) <= self.reward_trunk.context,
            "policy.max_new_tokens",
            format!("plus 40 tokens of prompt must fit into reward_trunk.context ({})", self.reward_trunk.context),
        );

        c.problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::presets;

    fn objectives() -> Vec<Objective> {
        vec![
            Objective::new("helpfulness", "", "", &["0", "1", "2", "3", "4"]),
            Objective::new("harmlessness", "", "", &["0", "1", "2", "3"]),
            Objective::new("honesty", "", "", &["0", "1", "2"]),
            Objective::new("verbosity", "", "", &["0", "1", "2", "3", "4"]),
        ]
    }

    /// Changes a valid configuration and expects exactly one problem, at `field`.
    fn check(change: impl Fn(&mut RunConfig), field: &str) {
        let mut config = RunConfig::default();
        change(&mut config);
        let problems = config.problems(&objectives());
        assert_eq!(problems.iter().map(|p| p.field.as_str()).collect::<Vec<_>>(), [field], "{problems:?}");
    }

    #[test]
    fn presets_are_valid_and_survive_serialisation() {
        for preset in presets::all() {
            assert_eq!(preset.config.problems(&objectives()), [], "{}", preset.id);
            let text = serde_json::to_string(&preset.config).unwrap();
            assert_eq!(serde_json::from_str::<RunConfig>(&text).unwrap(), preset.config);
        }
    }

    #[test]
    fn problems_name_their_field() {
        check(|c| c.policy.samples_per_prompt = 1, "policy.samples_per_prompt");
        check(|c| (c.model.d_model, c.reward_from_sft) = (90, false), "model.heads");
        check(|c| (c.model.kv_heads, c.reward_from_sft) = (3, false), "model.kv_heads");
        check(|c| c.reward_trunk.layers = 3, "reward_from_sft");
        check(|c| c.evaluation.held_out_layers = 3, "evaluation.held_out_layers");
        check(|c| c.task.label_noise = f64::NAN, "task.label_noise");
        check(|c| c.sft.learning_rate = -1.0, "sft.learning_rate");
        check(|c| c.policy.clip_high = Some(f64::NAN), "policy.clip_high");
        check(|c| c.policy.kl_target = Some(0.0), "policy.kl_target");
        check(|c| c.targets.objectives = vec!["kindness".into()], "targets.objectives[0]");
        check(|c| c.targets.held_out[0][1].class = 9, "targets.held_out[0][1].class");

        check(|c| c.evaluation.temperature = 9.0, "evaluation.temperature");
        check(|c| (c.policy.optimizer, c.policy.samples_per_prompt) = (PolicyOptimizer::Grpo, 1), "policy.samples_per_prompt");
        check(|c| c.method.weights = vec![vec![0.5, 0.5, 0.0, 0.0], vec![0.5, 0.6, 0.0, 0.0]], "method.weights[1]");
        check(|c| c.method.weights = vec![vec![1.0]], "method.weights[0]");
        check(|c| (c.method.kind, c.policy.iterations) = (Method::Morlhf, 5), "policy.iterations");
        check(|c| c.reward_model.head_weights = vec![1.0], "reward_model.head_weights");
        check(
            |c| (c.reward_model.loss, c.reward_model.label_smoothing) = (RewardLoss::Corn, 0.1),
            "reward_model.label_smoothing",
        );
        check(|c| c.policy.aggregation = Aggregation::NormaliseThenSum, "policy.aggregation");
        // Heads as critic: of a reward model that knows beginnings, of values that are the same in every group.
        let credit = |change: fn(&mut RunConfig)| {
            check(
                |c| {
                    (c.reward_model.beginnings, c.policy.head_credit) = (0.3, Some(0.5));
                    change(c);
                },
                "policy.head_credit",
            );
        };
        credit(|c| c.policy.head_credit = Some(1.1));
        credit(|c| c.reward_model.beginnings = 0.0);
        credit(|c| c.reward_model.loss = RewardLoss::BradleyTerry);
        credit(|c| c.policy.aggregation = Aggregation::MinNorm);
        credit(|c| c.mapping.pooling = Pooling::Group);
        check(
            |c| {
                (c.reward_model.beginnings, c.policy.head_credit) = (0.3, Some(0.5));
                c.mapping.tchebycheff = Some(0.5);
            },
            "mapping.tchebycheff",
        );
        check(|c| (c.mapping.tchebycheff, c.policy.aggregation) = (Some(0.5), Aggregation::MinNorm), "mapping.tchebycheff");
        check(|c| c.mapping.tchebycheff = Some(0.0), "mapping.tchebycheff");
        // MORLHF has one number for all objectives, too; experts of Soups have one objective each, and who optimises nothing reads no aggregation.
        let split = |kind: Method| {
            let mut config = RunConfig::default();
            (config.method.kind, config.mapping.tchebycheff) = (kind, Some(0.5));
            config.policy.aggregation = Aggregation::MinNorm;
            config.problems(&objectives()).into_iter().map(|p| p.field).collect::<Vec<_>>()
        };
        assert_eq!(split(Method::Morlhf), ["mapping.tchebycheff"]);
        assert!([Method::RewardedSoups, Method::BestOfN].into_iter().all(|kind| split(kind).is_empty()));
        // Weights in prompts: a share, of MOSLIM, of the lab's own models.
        for share in [0.0, 1.5, f64::NAN, f64::INFINITY] {
            check(|c| c.targets.weighted_share = Some(share), "targets.weighted_share");
        }
        for kind in Method::ALL.into_iter().filter(|kind| *kind != Method::Moslim) {
            check(|c| (c.targets.weighted_share, c.method.kind) = (Some(0.5), kind), "targets.weighted_share");
        }
        check(|c| (c.targets.weighted_share, c.base.model) = (Some(0.5), "any".into()), "targets.weighted_share");
        let undone = Aggregation::NormaliseThenSum;
        check(
            |c| (c.targets.weighted_share, c.policy.optimizer, c.policy.aggregation) = (Some(0.5), PolicyOptimizer::Grpo, undone),
            "targets.weighted_share",
        );
        for share in [0.01, 1.0] {
            let mut config = RunConfig::default();
            config.targets.weighted_share = Some(share);
            assert_eq!(config.problems(&objectives()), []);
        }
        // Where nobody reads it, it is in nobody's way.
        let mut other = RunConfig::default();
        (other.policy.optimizer, other.policy.head_credit) = (PolicyOptimizer::Ppo, Some(0.5));
        (other.reward_model.loss, other.reward_model.beginnings) = (RewardLoss::BradleyTerry, 0.3);
        assert_eq!(other.problems(&objectives()), []);
        check(|c| c.mapping.weights = vec![0.0; 4], "mapping.weights");
        check(|c| c.from = Some("../x".into()), "from");
        check(|c| c.fork = Some("../x".into()), "fork");
        // A list that is too long is counted and not read.
        check(|c| c.targets.objectives = vec!["kindness".into(); 65], "targets.objectives");
        check(|c| c.targets.held_out = vec![c.targets.held_out[0].clone(); 33], "targets.held_out");
        check(|c| c.method.weights = vec![vec![-1.0]; 201], "method.weights");
        check(|c| c.method.weights = vec![vec![-1.0; 65]], "method.weights[0]");
        check(|c| c.mapping.weights = vec![-1.0; 65], "mapping.weights");
        // Matrices with adapters: at least one, none twice.
        check(|c| c.base.targets.clear(), "base.targets");
        check(|c| c.base.targets = vec![AdapterTarget::QProj, AdapterTarget::VProj, AdapterTarget::VProj], "base.targets");
        check(|c| c.base.targets = vec![AdapterTarget::QProj; 8], "base.targets");
        check(|c| (c.base.added_tokens, c.targets.wording) = (true, TargetWording::Words), "base.added_tokens");
    }

    #[test]
    fn optimisers_that_compare_nothing_take_one_sample() {
        let mut config = RunConfig::default();
        config.policy.samples_per_prompt = 1;
        for optimizer in PolicyOptimizer::ALL {
            config.policy.optimizer = optimizer;
            assert_eq!(config.problems(&objectives()).is_empty(), !optimizer.compares_samples(), "{optimizer:?}");
        }
    }

    #[test]
    fn a_task_is_read_under_its_old_name() {
        let config: RunConfig = serde_json::from_str(r#"{"world": {"rows": 700}}"#).unwrap();
        assert_eq!(config.task.rows, 700);
    }

    #[test]
    fn unknown_fields_are_refused() {
        let error = serde_json::from_str::<RunConfig>(r#"{"sead": 1}"#).unwrap_err().to_string();
        assert!(error.contains("unknown field `sead`"), "{error}");
    }
}
