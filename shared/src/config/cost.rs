//! How long a run takes, roughly: enough to say whether to wait. What memory it takes is in [`crate::memory`].

use super::{ModelConfig, RunConfig};
use crate::method::Budget;
use crate::summary::StageSeconds;

/// Tokens of a row, of a prompt and of an answer, about.
const ROW: f64 = 40.0;
const PROMPT: f64 = 20.0;
const ANSWER: f64 = 25.0;
/// Share of a run's time that calibration and evaluation take, about.
const MEASURING: f64 = 0.12;

/// A product of two counts. What nobody has found to be in its range yet may be larger than any whole number holds.
fn product(a: usize, b: usize) -> f64 {
    a as f64 * b as f64
}

/// Weights of policy and reward model, roughly; those of an off-the-shelf model are not known from the configuration.
pub fn parameters(c: &RunConfig) -> f64 {
    let of = |m: &ModelConfig| {
        let d = m.d_model as f64;
        m.layers as f64 * (4.0 * d * d + 3.0 * d * m.d_ff as f64) + c.vocabulary as f64 * d
    };
    of(&c.model) + of(&c.reward_trunk)
}

/// Floating-point operations of the stages before the policy, in units of two a weight.
pub fn supervised(c: &RunConfig) -> f64 {
    let rows = product(c.sft.steps, c.sft.batch) + product(c.reward_model.steps, c.reward_model.batch);
    parameters(c) * 3.0 * ROW * rows
}

/// Those of training policies; `steered`: how many objectives are.
pub fn optimisation(c: &RunConfig, steered: usize) -> f64 {
    if c.method.kind.policies(2, 2) == 0 {
        return 0.0;
    }
    let policies = match c.method.budget {
        Budget::Total => 1,
        Budget::PerPolicy => {
            c.method.kind.policies(steered, c.method.weight_vectors(&(0..steered).collect::<Vec<_>>(), steered).len())
        }
    };
    let group = PROMPT + ANSWER * c.policy.samples_per_prompt as f64;
    let iterations = group * product(c.policy.iterations, c.policy.prompts) * 6.0;
    parameters(c) * c.policy.passes.map_or(iterations, |p| p * 1e6) * policies as f64
}

/// Seconds that a run will take where others took what is given, each with its configuration: at the median speed of those that began with
/// the same off-the-shelf model, or with none, and, where there are such, have models of about the size. `None` where there is no such run.
pub fn seconds<'a>(c: &RunConfig, steered: usize, known: impl Iterator<Item = (&'a RunConfig, &'a StageSeconds)>) -> Option<f64> {
    let mut known: Vec<(&RunConfig, &StageSeconds)> = known.filter(|(other, _)| other.base.model == c.base.model).collect();
    let size = |(other, _): &(&RunConfig, &StageSeconds)| (0.5..=2.0).contains(&(parameters(other) / parameters(c)));
    if known.iter().any(size) {
        known.retain(size);
    }
    // What came from the cache took no time, and says nothing.
    let speed = |work: &dyn Fn(&RunConfig) -> f64, took: &dyn Fn(&StageSeconds) -> f64| {
        let all = known.iter().filter(|(_, t)| took(t) > 0.5).map(|(other, t)| work(other) / took(t));
        median(all.filter(|speed| *speed > 0.0 && speed.is_finite()).collect())
    };
    let policy = speed(&|other| optimisation(other, steered), &|t| t.policy)?;
    let before = speed(&supervised, &|t| if t.sft > 0.5 && t.reward_model > 0.5 { t.sft + t.reward_model } else { 0.0 });
    Some((supervised(c) / before.unwrap_or(policy) + optimisation(c, steered) / policy) * (1.0 + MEASURING))
}

/// The middle of some values, the upper one of two.
fn median(mut values: Vec<f64>) -> Option<f64> {
    let middle = values.len() / 2;
    (!values.is_empty()).then(|| *values.select_nth_unstable_by(middle, f64::total_cmp).1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::presets;

    #[test]
    fn twice_the_work_takes_twice_as_long_at_the_speed_of_the_middle() {
        let config = presets::find("quick").unwrap().config;
        let took = |policy| StageSeconds { policy, sft: 1.0, reward_model: 4.0, ..Default::default() };
        let [fast, middle, slow] = [10.0, 20.0, 50.0].map(took);
        let known = [(&config, &fast), (&config, &slow), (&config, &middle)];
        let all = seconds(&config, 4, known.into_iter()).unwrap();
        assert!((all - 25.0 * 1.12).abs() < 1e-6, "{all}");
        // Where the stages before came from the cache, they are taken to be as fast as the policy's.
        let cached = [20.0].map(|policy| StageSeconds { policy, ..Default::default() });
        let guessed = seconds(&config, 4, [(&config, &cached[0])].into_iter()).unwrap();
        assert!((guessed - 20.0 * 1.12 * (1.0 + supervised(&config) / optimisation(&config, 4))).abs() < 1e-6, "{guessed}");
        // A model of another size is not asked while there is one of this size.
        let tiny = presets::find("smoke").unwrap().config;
        let other = took(0.6);
        let same = seconds(&config, 4, known.into_iter().chain([(&tiny, &other), (&tiny, &other), (&tiny, &other)])).unwrap();
        assert!((same - all).abs() < 1e-6, "{same}");
        let mut longer = config.clone();
        longer.policy.iterations *= 2;
        longer.policy.passes = None;
        let more = seconds(&longer, 4, known.into_iter()).unwrap() - all;
        let policy = optimisation(&longer, 4) / optimisation(&config, 4) - 1.0;
        assert!((more - 20.0 * 1.12 * policy).abs() < 1e-6, "{more}");
    }

    #[test]
    fn work_is_counted_as_it_is_done() {
        let model = ModelConfig { layers: 2, d_model: 8, d_ff: 16, ..Default::default() };
        let mut c = RunConfig { vocabulary: 100, model: model.clone(), reward_trunk: model, ..Default::default() };
        // A layer: four square matrices and three of the feed-forward part; and an embedding. Policy and reward model.
        assert_eq!(parameters(&c), 2.0 * (2.0 * (4.0 * 64.0 + 3.0 * 128.0) + 800.0));
        (c.sft.steps, c.sft.batch, c.reward_model.steps, c.reward_model.batch) = (10, 4, 5, 6);
        assert_eq!(supervised(&c), parameters(&c) * 3.0 * 40.0 * 70.0);
        (c.policy.iterations, c.policy.prompts, c.policy.samples_per_prompt, c.policy.passes) = (3, 2, 4, None);
        assert_eq!(optimisation(&c, 4), parameters(&c) * (20.0 + 25.0 * 4.0) * 6.0 * 6.0);
        c.policy.passes = Some(2.5);
        assert_eq!(optimisation(&c, 4), parameters(&c) * 2.5e6);
        c.method.kind = crate::method::Method::Morlhf;
        c.method.budget = Budget::PerPolicy;
        c.method.weights = vec![vec![0.5, 0.5], vec![1.0, 0.0], vec![0.0, 1.0]];
        assert_eq!(optimisation(&c, 2), parameters(&c) * 2.5e6 * 3.0);
    }

    #[test]
    fn what_was_not_measured_is_not_told() {
        let config = presets::find("quick").unwrap().config;
        let cached = StageSeconds { policy: 0.0, ..Default::default() };
        assert_eq!(seconds(&config, 4, [(&config, &cached)].into_iter()), None);
        let mut other = config.clone();
        other.base.model = "smollm".into();
        let took = StageSeconds { policy: 9.0, ..Default::default() };
        assert_eq!(seconds(&config, 4, [(&other, &took)].into_iter()), None);
        // Half of what is before the policy came from the cache: the other half says nothing of its speed.
        let half = StageSeconds { policy: 20.0, sft: 30.0, reward_model: 0.1, ..Default::default() };
        let none = StageSeconds { policy: 20.0, ..Default::default() };
        let of = |took: &StageSeconds| seconds(&config, 4, [(&config, took)].into_iter());
        assert_eq!(of(&half), of(&none));
    }
}
