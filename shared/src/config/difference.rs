//! What differs between two configurations.

use super::models::TaskKind;
use super::policy::PolicyOptimizer;
use super::run::{Problem, RunConfig};
use super::settings::brief;
use crate::method::Method;
use crate::order::sorted;
use serde_json::Value;

/// A field whose values differ, both as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    pub path: String,
    pub old: String,
    pub new: String,
}

/// Every field in which `new` differs from `old`, by path: the order of a JSON object's keys is a feature of the build.
pub fn differences(old: &RunConfig, new: &RunConfig) -> Vec<Difference> {
    let mut found = Vec::new();
    let json = |config: &RunConfig| serde_json::to_value(config).unwrap_or_default();
    compare("", &json(old), &json(new), &mut found);
    sorted(found, |a: &Difference, b| a.path.cmp(&b.path))
}

fn compare(path: &str, old: &Value, new: &Value, found: &mut Vec<Difference>) {
    match (old, new) {
        (Value::Object(a), Value::Object(b)) => {
            for (key, value) in b {
                let below = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                compare(&below, a.get(key).unwrap_or(&Value::Null), value, found);
            }
            // Fields that are left out when they are nothing.
            for (key, value) in a.iter().filter(|(key, _)| !b.contains_key(*key)) {
                let below = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                compare(&below, value, &Value::Null, found);
            }
        }
        _ if old == new => {}
        _ => found.push(Difference { path: path.to_string(), old: brief(old), new: brief(new) }),
    }
}

/// What a fork may change besides the settings of `policy` and `evaluation`: nothing that is computed depends on it.
const FREE: [&str; 4] = ["name", "preset", "fork", "base.checkpointing"];

impl RunConfig {
    /// Why this run cannot evaluate what a finished run with the configuration `source` has trained: only how that is done may differ.
    pub fn evaluation_problems(&self, source: &RunConfig) -> Vec<Problem> {
        let free = |path: &str| FREE.contains(&path) || path.starts_with("evaluation.");
        let problem = |d: Difference| {
            let message = format!("is {}; a fork of a run that has finished evaluates what it has trained with {}", d.new, d.old);
            Problem { field: d.path, message }
        };
        differences(source, self).into_iter().filter(|d| !free(&d.path)).map(problem).collect()
    }

    /// Why this run cannot go on with the policy optimisation of one that has the configuration `source`: what was made before its
    /// checkpoint, which is everything but `policy`, must be the same, or the policy would go on with another reward.
    pub fn fork_problems(&self, source: &RunConfig) -> Vec<Problem> {
        let problem = |field: &str, message: String| Problem { field: field.into(), message };
        if source.method.kind != Method::Moslim {
            let title = source.method.kind.title();
            return vec![problem("fork", format!("names a run of {title}; only MOSLIM trains one policy that can go on"))];
        }
        // Preference SFT is trained with the one, and answers of an off-the-shelf model are sampled, and ratings left out, by the other.
        let early = |path: &str| match path {
            "policy.max_gradient_norm" => source.method.preference_sft > 0,
            "policy.max_new_tokens" => source.task.kind != TaskKind::World || !source.base.model.is_empty(),
            _ => false,
        };
        let free =
            |path: &str| FREE.contains(&path) || path.starts_with("evaluation.") || path.starts_with("policy.") && !early(path);
        let mut found: Vec<Problem> = differences(source, self)
            .into_iter()
            .filter(|d| !free(&d.path))
            .map(|d| problem(&d.path, format!("is {}; a fork keeps what its run was trained with, {}", d.new, d.old)))
            .collect();
        let critic = |c: &RunConfig| c.policy.optimizer == PolicyOptimizer::Ppo;
        if critic(self) != critic(source) {
            let (new, old) = (self.policy.optimizer.title(), source.policy.optimizer.title());
            found.push(problem(
                "policy.optimizer",
                format!("is {new}; of it and {old}, which the fork goes on from, one has a critic"),
            ));
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{AdapterTarget, EvaluationSplit};

    #[test]
    fn a_fork_changes_the_policy_alone() {
        let source = RunConfig::default();
        let fields = |change: fn(&mut RunConfig)| {
            let mut fork = RunConfig { fork: Some("a".into()), name: "b".into(), ..source.clone() };
            change(&mut fork);
            fork.fork_problems(&source).into_iter().map(|p| p.field).collect::<Vec<_>>()
        };
        assert!(fields(|c| (c.policy.kl_coefficient, c.policy.iterations, c.evaluation.questions) = (0.3, 7, 9)).is_empty());
        assert!(fields(|c| c.base.checkpointing = true).is_empty(), "its numbers are the same");
        assert_eq!(fields(|c| (c.seed, c.mapping.z_clip) = (9, 2.0)), ["mapping.z_clip", "seed"]);
        assert_eq!(fields(|c| c.policy.optimizer = PolicyOptimizer::Ppo), ["policy.optimizer"]);
        assert!(fields(|c| c.policy.optimizer = PolicyOptimizer::Grpo).is_empty());
        assert_eq!(fields(|c| c.from = Some("z".into())), ["from"], "it would have another reference");
        let from = RunConfig { from: Some("z".into()), ..source.clone() };
        assert_eq!(source.fork_problems(&from)[0].field, "from", "also where it is left out");
        // Early stages read these of the policy's settings.
        let mut taught = source.clone();
        (taught.method.preference_sft, taught.base.model) = (9, "m".into());
        let mut fork = taught.clone();
        (fork.policy.max_gradient_norm, fork.policy.max_new_tokens) = (0.1, 3);
        let early: Vec<String> = fork.fork_problems(&taught).into_iter().map(|p| p.field).collect();
        assert_eq!(early, ["policy.max_gradient_norm", "policy.max_new_tokens"]);
        assert!(fields(|c| (c.policy.max_gradient_norm, c.policy.max_new_tokens) = (0.1, 3)).is_empty());
        // A checkpoint of other adapters is not gone on from.
        let mut other = RunConfig { fork: Some("a".into()), ..source.clone() };
        other.base.targets = vec![AdapterTarget::QProj, AdapterTarget::VProj];
        let found = other.fork_problems(&source);
        assert_eq!((found.len(), found[0].field.as_str()), (1, "base.targets"));
        let told = &found[0].message;
        assert!(told.starts_with("is q_proj, v_proj; ") && told.ends_with("up_proj, down_proj"), "{told}");
        let mut other = source.clone();
        other.method.kind = Method::Morlhf;
        assert_eq!(source.fork_problems(&other)[0].field, "fork");
    }

    #[test]
    fn of_what_is_trained_only_the_evaluation_changes() {
        let mut source = RunConfig::default();
        source.method.kind = Method::Morlhf;
        let mut fork = RunConfig { fork: Some("a".into()), name: "b".into(), preset: "custom".into(), ..source.clone() };
        (fork.evaluation.questions, fork.evaluation.split) = (9, EvaluationSplit::Validation);
        assert_eq!(fork.evaluation_problems(&source), []);
        (fork.policy.iterations, fork.seed) = (7, 9);
        let fields: Vec<String> = fork.evaluation_problems(&source).into_iter().map(|p| p.field).collect();
        assert_eq!(fields, ["policy.iterations", "seed"]);
    }

    #[test]
    fn differences_name_the_path() {
        let mut new = RunConfig::default();
        new.policy.iterations = 7;
        new.policy.kl_target = Some(2.0);
        let found = differences(&RunConfig::default(), &new);
        let shown: Vec<_> = found.iter().map(|d| (d.path.as_str(), d.old.as_str(), d.new.as_str())).collect();
        assert_eq!(shown, [("policy.iterations", "200", "7"), ("policy.kl_target", "none", "2")]);
        assert!(differences(&new, &new).is_empty());
    }
}
