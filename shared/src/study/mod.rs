//! Studies: a base configuration, axes along which it is varied, and seeds; what came of every run, and of all runs that
//! differ in nothing but their seed.
//!
//! Here belong plans, the shipped studies, how results are put together, and how a study stands. Running one does not.

mod choice;
mod longer;
mod method_tries;
mod plan;
mod programme;
mod results;
mod shipped;
mod state;
mod tries;

pub use choice::{Table, best};
pub use plan::{Axis, MOST_RUNS, PlannedRun, StudyConfig, Variant};
pub use programme::{ON_REQUEST, PROGRAMME, before, study as programme_study};
pub use results::{FrontAxes, METRICS, Metric, Spread, StudyGroup, StudyResults, StudyRow, aggregate, front_axes};
pub use shipped::{PRESETS, preset, preset_list};
pub use state::{Host, StudyPreset, StudyRequest, StudyRunState, StudyRunStatus, StudyState};
pub use tries::TAKEN;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{PolicyOptimizer, RunConfig};
    use crate::method::Method;
    use crate::objective::Objective;
    use crate::presets;
    use crate::summary::RunSummary;
    use crate::summary::{FrontPoint, FrontReport};
    use serde_json::json;

    fn objectives() -> Vec<Objective> {
        ["helpfulness", "harmlessness", "honesty", "verbosity"]
            .iter()
            .zip([5, 4, 3, 5])
            .map(|(id, c)| Objective::new(id, "", "", &["0", "1", "2", "3", "4"][..c]))
            .collect()
    }

    fn base() -> RunConfig {
        presets::find("quick").unwrap().config
    }

    fn study(axes: Vec<Axis>) -> StudyConfig {
        StudyConfig { name: "s".into(), question: String::new(), base: base(), axes, seeds: vec![1, 2] }
    }

    #[test]
    fn shipped_studies_can_be_planned() {
        for id in PRESETS {
            let study = preset(id, base(), vec![1, 2, 3]).unwrap();
            let runs = study.plan(&objectives()).unwrap();
            assert!(runs.len() >= 6 && runs.len().is_multiple_of(3), "{id}: {}", runs.len());
        }
        // Over every preset that steers the same objectives, whatever it has set.
        for base in presets::all().into_iter().filter(|p| p.id != "ratings" && p.id != "tab") {
            for id in PRESETS {
                let planned = preset(id, base.config.clone(), vec![1]).unwrap().plan(&objectives());
                assert!(planned.is_ok(), "{id} over {}: {planned:?}", base.id);
            }
        }
        // Eight methods, one of them in two ways, three planned for both budgets.
        assert_eq!(preset("methods", base(), vec![1]).unwrap().plan(&objectives()).unwrap().len(), 12);
        // What a base rehearses is no part of the comparison: it would cost the supervised methods alone.
        let quick = crate::presets::find("quick").unwrap().config;
        assert!(quick.method.rehearsal.is_some());
        let runs = preset("methods", quick, vec![1]).unwrap().plan(&objectives()).unwrap();
        assert!(runs.iter().all(|run| run.config.method.rehearsal.is_none()));
        // Weights in prompts are left to the method that reads them.
        let mut weighted = base();
        weighted.targets.weighted_share = Some(0.5);
        let runs = preset("methods", weighted, vec![1]).unwrap().plan(&objectives()).unwrap();
        let with = runs.iter().filter(|run| run.config.targets.weighted_share.is_some());
        assert!(with.clone().count() == 2 && with.clone().all(|run| run.config.method.kind == Method::Moslim));
        assert!(preset("everything", base(), vec![1]).is_none());
    }

    #[test]
    fn axes_change_the_fields_they_name_and_nothing_else() {
        let axes = vec![
            Axis::field("optimiser", "policy.optimizer", &[json!("rloo"), json!("ppo")]),
            Axis::field("policy", "policy", &[json!({"prompts": 16, "clip": 0.3})]),
        ];
        let runs = study(axes).plan(&objectives()).unwrap();
        assert_eq!(runs.len(), 4);
        let ppo = runs.iter().find(|r| r.labels[0] == "ppo" && r.config.seed == 2).unwrap();
        assert_eq!((ppo.config.policy.optimizer, ppo.config.policy.prompts), (PolicyOptimizer::Ppo, 16));
        let mut back = ppo.config.clone();
        back.policy = base().policy;
        (back.seed, back.name, back.preset) = (base().seed, base().name, base().preset);
        assert_eq!(back, base());
        let rehearsed =
            study(vec![Axis::field("x", "method.rehearsal", &[json!(null), json!(0.5)])]).plan(&objectives()).unwrap();
        let with = |share: Option<f64>| rehearsed.iter().filter(|r| r.config.method.rehearsal == share).count();
        assert_eq!([with(None), with(Some(0.5))], [2, 2]);
        let joined = study(vec![Axis::field("x", "mapping", &[json!({"tchebycheff": 0.5})])]).plan(&objectives()).unwrap();
        assert_eq!(joined[0].config.mapping.tchebycheff, Some(0.5));
    }

    #[test]
    fn refusals_name_the_place() {
        let refuse = |axes: Vec<Axis>| {
            let problems = study(axes).plan(&objectives()).unwrap_err();
            format!("{}: {}", problems[0].field, problems[0].message)
        };
        let text = refuse(vec![Axis::field("x", "policy.optimiser", &[json!("ppo")])]);
        assert!(text.starts_with("axes[0].variants[0].set: ") && text.contains("names no field") && text.contains("optimizer"));
        assert!(refuse(vec![Axis::field("x", "policy.optimizer", &[json!("sgd")])]).contains("unknown variant"));
        let text = refuse(vec![Axis::field("x", "policy.samples_per_prompt", &[json!(1)])]);
        assert!(text.starts_with("policy.samples_per_prompt (1)"), "{text}");
        assert!(refuse(vec![Axis { name: "x".into(), variants: vec![] }]).contains("is empty"));
        let mut twice = study(vec![]);
        twice.seeds = vec![1, 1];
        assert!(twice.plan(&objectives()).unwrap_err()[0].field.contains("seeds[1]"));
        // What is too much is refused for that alone, and nothing is tried of it.
        let mut many = study(vec![Axis::field("x", "no such field", &[json!(1)])]);
        many.seeds = (0..=MOST_RUNS as u64).collect();
        let problems = many.plan(&objectives()).unwrap_err();
        assert_eq!(problems.iter().map(|p| p.field.as_str()).collect::<Vec<_>>(), ["axes"]);
    }

    #[test]
    fn seeds_are_put_together() {
        let summary = |run: &str, seed: u64, hypervolume: f64| RunSummary {
            run: run.into(),
            seed,
            front: FrontReport {
                objectives: vec!["a".into()],
                points: vec![FrontPoint { utility: vec![hypervolume], ..Default::default() }],
                hypervolume,
                ..Default::default()
            },
            ..Default::default()
        };
        let label = |l: &str| vec![l.to_string()];
        let runs =
            [(label("x,y"), summary("r1", 1, 0.2)), (label("=z"), summary("r2", 1, 0.5)), (label("x,y"), summary("r3", 2, 0.4))];
        let runs: Vec<(Vec<String>, &RunSummary)> = runs.iter().map(|(labels, s)| (labels.clone(), s)).collect();
        let results = aggregate(&study(vec![Axis::field("axis", "seed", &[])]), &runs);
        assert_eq!(results.groups.len(), 2);
        let group = &results.groups[0];
        assert_eq!(group.seeds, [1, 2]);
        let spread = group.metrics[0];
        assert!((spread.mean - 0.3).abs() < 1e-12 && (spread.low, spread.high) == (0.2, 0.4));
        assert!((group.front[0][0] - 0.3).abs() < 1e-12);
        let csv = results.to_csv();
        assert_eq!(csv.lines().count(), 4);
        assert!(csv.contains("r1,1,\"x,y\",0.2,") && csv.contains("'=z"), "{csv}");
    }
}
