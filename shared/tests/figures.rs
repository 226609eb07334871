//! Figures of studies and settings of optimisers, by values that were worked out by hand.

use moslim_shared::config::cost::{optimisation, seconds};
use moslim_shared::config::{KlLoss, KlPenalty, KlPlacement, PolicyConfig, PolicyOptimizer, RewardModelConfig};
use moslim_shared::method::Method;
use moslim_shared::objective::Objective;
use moslim_shared::pareto::hypervolume;
use moslim_shared::presets;
use moslim_shared::ratings::{Agree, Bins, Change, Shaped};
use moslim_shared::refusal::ApiError;
use moslim_shared::study::{Axis, METRICS, Spread, StudyConfig, StudyResults, StudyRow};
use moslim_shared::summary::{ControlFigures, ControlHead, RewardHeadReport, RunSummary, StageSeconds};

fn metric(id: &str) -> usize {
    METRICS.iter().position(|m| m.id == id).expect("a known figure")
}

#[test]
fn figures_of_a_run_are_means_over_its_heads_with_their_own_intervals() {
    let mut summary = RunSummary::default();
    summary.reward_model.heads = [0.2, 0.7].map(|qwk| RewardHeadReport { qwk, ..Default::default() }).to_vec();
    summary.control.policy.heads = [0.1, 0.5].map(|hit_rate| ControlHead { hit_rate, ..Default::default() }).to_vec();
    let bounds = [0.25, 0.45].map(|hit_rate| ControlFigures { hit_rate, fluency: hit_rate / 2.0, ..Default::default() });
    summary.control.policy.intervals = Some(bounds);
    assert!(((METRICS[metric("qwk")].of)(&summary) - 0.45).abs() < 1e-12);
    assert!(((METRICS[metric("hit_rate")].of)(&summary) - 0.3).abs() < 1e-12);
    assert_eq!((METRICS[metric("hit_rate")].interval)(&summary), Some([0.25, 0.45]));
    assert_eq!((METRICS[metric("fluency")].interval)(&summary), Some([0.125, 0.225]));
    assert_eq!((METRICS[metric("hit_rate")].interval)(&RunSummary::default()), None);
}

#[test]
fn an_interval_is_as_wide_as_seeds_and_topics_make_it() {
    // Equal values without intervals need no draws; equal values with intervals do.
    assert_eq!(Spread::over(&[(0.5, None), (0.5, None)]), Spread { mean: 0.5, low: 0.5, high: 0.5 });
    assert_eq!(Spread::over(&[]), Spread { mean: 0.0, low: 0.0, high: 0.0 });
    // Two seeds, each 0.2 wide: the mean is narrower by the root of two.
    let both = Spread::over(&[(0.5, Some([0.4, 0.6])), (0.5, Some([0.4, 0.6]))]);
    assert!((both.high - both.low - 0.2 / 2f64.sqrt()).abs() < 0.01, "{both:?}");
    // Draws with replacement from 0 and 1, three at a time: all three are 0 once in eight, more than a fortieth.
    let far = Spread::over(&[(0.0, None), (1.0, None), (1.0, None)]);
    assert_eq!((far.low, far.high), (0.0, 1.0));
    assert!((far.mean - 2.0 / 3.0).abs() < 1e-12);
}

#[test]
fn a_study_has_a_name_and_seeds() {
    let objectives = [Objective::new("a", "A", "It is measured.", &["low", "high"])];
    let mut base = presets::find("quick").unwrap().config;
    base.targets.held_out.clear();
    let study = |name: &str, seeds: &[u64]| StudyConfig {
        name: name.into(),
        question: String::new(),
        base: base.clone(),
        axes: Vec::new(),
        seeds: seeds.to_vec(),
    };
    let wrong = |name: &str, seeds: &[u64]| -> Vec<String> {
        study(name, seeds).plan(&objectives).err().into_iter().flatten().map(|p| p.field).collect()
    };
    let long = "ä".repeat(121);
    assert!(wrong(&long[..240], &[1, 2]).is_empty(), "{:?}", wrong(&long[..240], &[1, 2]));
    for name in [&long, " ", "two\nlines"] {
        assert_eq!(wrong(name, &[1]), ["name"], "{name:?}");
    }
    assert_eq!(wrong("a", &[]), ["seeds"]);
    assert_eq!(wrong("a", &[1, 2, 1]), ["seeds[2]"]);
}

#[test]
fn the_penalty_is_where_it_was_put_or_where_the_optimiser_has_it() {
    let of = |optimizer, kl_penalty| PolicyConfig { optimizer, kl_penalty, ..Default::default() };
    for (optimizer, penalty, placement, loss) in [
        (PolicyOptimizer::Rloo, KlPenalty::Own, KlPlacement::Reward, None),
        (PolicyOptimizer::Rloo, KlPenalty::K2Loss, KlPlacement::Loss, Some(KlLoss::K2)),
        (PolicyOptimizer::Grpo, KlPenalty::Own, KlPlacement::Loss, Some(KlLoss::K3)),
        (PolicyOptimizer::Grpo, KlPenalty::K3RatioLoss, KlPlacement::Loss, Some(KlLoss::K3Ratio)),
        (PolicyOptimizer::Grpo, KlPenalty::K1Reward, KlPlacement::Reward, None),
        (PolicyOptimizer::Grpo, KlPenalty::K3Loss, KlPlacement::Loss, Some(KlLoss::K3)),
    ] {
        let config = of(optimizer, penalty);
        assert_eq!((config.kl_placement(), config.kl_loss()), (placement, loss), "{optimizer:?} {penalty:?}");
    }
    let reward = RewardModelConfig { steps: 7, batch: 5, learning_rate: 0.25, ..Default::default() }.schedule();
    assert_eq!((reward.steps, reward.batch, reward.learning_rate), (7, 5, 0.25));
}

#[test]
fn a_study_is_complete_with_every_run_and_a_group_is_as_sure_as_its_runs() {
    let base = presets::find("quick").unwrap().config;
    let axes = vec![Axis::field("rate", "policy.learning_rate", &[0.001.into(), 0.002.into()])];
    let config = StudyConfig { name: "rates".into(), question: String::new(), base, axes, seeds: vec![1, 2] };
    let row = |label: &str, seed, interval| StudyRow {
        run: format!("{label}-{seed}"),
        labels: vec![label.into()],
        seed,
        metrics: vec![0.5; METRICS.len()],
        intervals: vec![interval; METRICS.len()],
        ..Default::default()
    };
    let of = |rows: Vec<StudyRow>| StudyResults::of(&config, rows, Default::default());
    let all = ["0.001", "0.002"].iter().flat_map(|l| [1, 2].map(|seed| row(l, seed, None))).collect::<Vec<_>>();
    assert!(of(all.clone()).is_complete(&config) && !of(all[..3].to_vec()).is_complete(&config));
    // Seeds that agree are sure only as far as each of them is.
    let group = |interval| of([1, 2].map(|seed| row("0.001", seed, interval)).to_vec()).groups[0].metrics[0];
    let (sure, unsure) = (group(None), group(Some([0.3, 0.7])));
    assert_eq!((sure.low, sure.high), (0.5, 0.5));
    assert!(unsure.low < 0.4 && unsure.high > 0.6, "{unsure:?}");
}

#[test]
fn the_last_objective_of_a_task_stays() {
    let shaped = |id: &str| Shaped {
        imported: 0,
        objective: Objective::new(id, id, "It is measured.", &["low", "high"]),
        bins: Bins::of(2, Agree::Mean),
    };
    let leave = Change::Leave { objective: "a".into() };
    let left = leave.applied(vec![shaped("a"), shaped("b")]).unwrap();
    assert_eq!(left.iter().map(|s| s.objective.id.as_str()).collect::<Vec<_>>(), ["b"]);
    assert!(leave.applied(vec![shaped("a")]).unwrap_err().contains("the last objective"));
}

#[test]
fn a_volume_is_measured_from_its_reference() {
    assert!((hypervolume(&[vec![0.5], vec![0.3]], &[0.2]) - 0.3).abs() < 1e-12);
    assert!((hypervolume(&[vec![0.5, 0.6]], &[0.2, 0.1]) - 0.15).abs() < 1e-12);
}

#[test]
fn classes_are_merged_until_two_are_left() {
    let shaped = || {
        vec![Shaped {
            imported: 0,
            objective: Objective::new("a", "A", "It is measured.", &["low", "middle", "high"]),
            bins: Bins::of(3, Agree::Mean),
        }]
    };
    let merge = |from, to| Change::Merge { objective: "a".into(), from, to, name: "both".into() }.applied(shaped());
    assert_eq!(merge(1, 2).unwrap()[0].objective.classes, ["low", "both"]);
    assert!(merge(0, 2).unwrap_err().contains("fewer than two"));
    assert!(merge(1, 1).unwrap_err().contains("are not several"));
}

#[test]
fn every_status_that_is_sent_has_its_name() {
    let title = |status| ApiError::new(status, "why", Vec::new()).title;
    let known = [400, 401, 403, 404, 405, 409, 413, 415, 422, 429, 500, 503].map(title);
    assert!(known.iter().all(|t| t != "Error") && known[2] == "Forbidden", "{known:?}");
    assert_eq!(title(418), "Error");
}

#[test]
fn a_run_without_optimisation_says_nothing_of_its_speed() {
    let config = presets::find("quick").unwrap().config;
    let mut other = config.clone();
    other.method.kind = Method::TaggedSft;
    let took = StageSeconds { policy: 9.0, sft: 9.0, reward_model: 9.0, ..Default::default() };
    assert_eq!(optimisation(&other, 4), 0.0);
    assert_eq!(seconds(&config, 4, [(&other, &took)].into_iter()), None);
}
