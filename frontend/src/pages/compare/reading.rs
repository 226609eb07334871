//! What is computed of several runs.

use crate::json::written;
use crate::parts::format;
use crate::state::RunState;
use crate::words::{self, t};
use moslim_shared::config::{RunConfig, differences};
use moslim_shared::event::{PolicyStep, RunInfo};
use moslim_shared::summary::{ControlHead, ControlReport, FrontReport};
use std::collections::BTreeMap;

/// A row of a table: a figure of every run.
#[derive(Debug, Clone, PartialEq)]
pub struct Figure {
    pub name: String,
    pub cells: Vec<String>,
    /// The numbers, where more is better; empty where nothing is best.
    pub values: Vec<f64>,
}

/// The run with the highest value, if there is one alone.
pub fn best(row: &Figure) -> Option<usize> {
    let highest = row.values.iter().copied().filter(|v| v.is_finite()).fold(f64::NEG_INFINITY, f64::max);
    let mut at = row.values.iter().enumerate().filter(|(_, v)| **v == highest).map(|(n, _)| n);
    let first = at.next()?;
    at.next().is_none().then_some(first)
}

/// Hit rates by objective, and what else an evaluation reports, of every group of runs: of seeds their mean, the lowest and the highest.
pub fn figures(runs: &[&RunState], groups: &[Vec<usize>]) -> Vec<Figure> {
    let mut rows = Vec::new();
    let mut row = |name: String, text: fn(f64) -> String, of: &dyn Fn(&RunState) -> Option<f64>| {
        let known = |members: &Vec<usize>| {
            let values = members.iter().filter_map(|n| of(runs[*n])).filter(|v| v.is_finite());
            values.collect::<Vec<f64>>()
        };
        let values: Vec<Vec<f64>> = groups.iter().map(known).collect();
        if values.iter().any(|v| !v.is_empty()) {
            let cells = values.iter().map(|v| spread(v, text)).collect();
            rows.push(Figure { name, cells, values: values.iter().map(|v| mean(v)).collect() });
        }
    };
    let mut add = |name: String, of: &dyn Fn(&RunState) -> Option<f64>| row(name, format::percent, of);
    for id in objectives(runs) {
        let name = runs.iter().find_map(|r| r.objectives.iter().find(|o| o.id == id)).map_or(id.clone(), |o| o.name.clone());
        let title = words::said("{0}, as asked", &[&name]);
        add(title, &|run| run.measured()?.heads.iter().find(|h| h.objective == id).map(|h| h.hit_rate));
    }
    let figure = |of: fn(&ControlReport) -> f64| move |run: &RunState| run.measured().map(of);
    add(t("All objectives, mean").into(), &figure(ControlReport::mean_hit_rate));
    add(t("Every objective of a prompt met").into(), &figure(|r| r.joint_hit_rate));
    add(t("Combinations never trained on").into(), &figure(|r| r.held_out_hit_rate));
    add(t("Nearer to the wish than SFT").into(), &figure(|r| r.win_rate));
    add(t("Answers without a double").into(), &figure(|r| r.diversity.unique));
    add(t("Fluent").into(), &figure(|r| r.fluency));
    let number = |value: f64| format::number(value, 3);
    // Of other objectives, or another number of them, these are other units.
    let first = runs.iter().find_map(|run| run.trade_offs());
    let same = |front: &FrontReport| first.is_some_and(|first| first.objectives == front.objectives);
    row(t("Hypervolume above the worst class of everything").into(), number, &|run| {
        run.trade_offs().filter(|front| same(front)).map(|front| front.hypervolume)
    });
    row(t("Expected utility over the trade-offs").into(), number, &|run| {
        run.trade_offs().filter(|front| same(front))?.expected_utility
    });
    let seconds = |run: &RunState| run.summary.as_ref().map(|s| s.seconds.total);
    row(t("Time, stages from the cache left out").into(), format::duration, &seconds);
    // Less of it is better: no run is marked.
    if let Some(time) = rows.last_mut().filter(|_| runs.iter().any(|run| seconds(run).is_some())) {
        time.values.clear();
    }
    rows
}

/// The mean; NaN of nothing.
fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// A figure of some runs in words: of several their mean, the lowest and the highest.
fn spread(values: &[f64], text: fn(f64) -> String) -> String {
    match values {
        [] => text(f64::NAN),
        [only] => text(*only),
        _ => {
            let edge = |start: f64, pick: fn(f64, f64) -> f64| text(values.iter().copied().fold(start, pick));
            let (low, high) = (edge(f64::INFINITY, f64::min), edge(f64::NEG_INFINITY, f64::max));
            words::said("{0} ({1} to {2})", &[&text(mean(values)), &low, &high])
        }
    }
}

/// Objectives that some run was graded on, in their order.
fn objectives(runs: &[&RunState]) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    for head in runs.iter().filter_map(|r| r.measured()).flat_map(|r| &r.heads) {
        if !all.contains(&head.objective) {
            all.push(head.objective.clone());
        }
    }
    all
}

/// The mean of a figure over the members of a group that have been measured; NaN where there is none.
fn pooled(runs: &[&RunState], members: &[usize], of: &dyn Fn(&ControlReport) -> Option<f64>) -> f64 {
    mean(&members.iter().filter_map(|n| of(runs[*n].measured()?)).collect::<Vec<f64>>())
}

/// What a report says of one objective.
fn head<'a>(report: &'a ControlReport, objective: &str) -> Option<&'a ControlHead> {
    report.heads.iter().find(|h| h.objective == objective)
}

/// Which of the first two groups obeys better, and where, in words.
pub fn said((runs, titles): (&[&RunState], &[String]), groups: &[Vec<usize>]) -> String {
    let [first, second, ..] = groups else { return String::new() };
    let gap = |of: &dyn Fn(&ControlReport) -> Option<f64>| [first, second].map(|members| pooled(runs, members, of));
    let [a, b] = gap(&|r| Some(r.mean_hit_rate()));
    if a.is_nan() || b.is_nan() {
        return t("One of the first two has no evaluation yet: it comes at the end of a run.").into();
    }
    let mut names = [first, second].map(|members| titles[members[0]].clone());
    if names[0] == names[1] {
        names = [t("The first").into(), t("The second").into()];
    }
    let (winner, high, low) =
        if b > a { (1, format::percent(b), format::percent(a)) } else { (0, format::percent(a), format::percent(b)) };
    let whole = if high == low {
        words::said("On the whole they obey alike: {0}.", &[&high])
    } else {
        words::said("{0} obeys better on the whole: {1} against {2}.", &[&names[winner], &high, &low])
    };
    let gaps = steered(runs).into_iter().map(|[id, name]| {
        let [a, b] = gap(&|r| head(r, &id).map(|h| h.hit_rate));
        (name.to_lowercase(), b - a)
    });
    let widest = gaps.filter(|(_, gap)| gap.abs() > 0.0).max_by(|x, y| x.1.abs().total_cmp(&y.1.abs()));
    let where_ = widest.map(|(label, gap)| {
        let points = format!("{:.0}", gap.abs() * 100.0);
        words::said(
            " They differ most in {0}, where {1} is {2} points ahead.",
            &[&label, &names[usize::from(gap > 0.0)], &points],
        )
    });
    whole + &where_.unwrap_or_default()
}

/// The matrices of the second group less those of the first, by objective: name, classes, and differences.
pub fn difference((runs, _): (&[&RunState], &[String]), groups: &[Vec<usize>]) -> Vec<(String, Vec<String>, Vec<Vec<f64>>)> {
    let [first, second, ..] = groups else { return Vec::new() };
    let of = |[id, name]: [String; 2]| {
        let classes = runs.iter().flat_map(|r| &r.objectives).find(|o| o.id == id)?.classes.clone();
        let cell = |asked: usize, got: usize| {
            let share = |r: &ControlReport| head(r, &id)?.matrix.get(asked)?.get(got).copied();
            pooled(runs, second, &share) - pooled(runs, first, &share)
        };
        let places = || 0..classes.len();
        let rows: Vec<Vec<f64>> = places().map(|asked| places().map(|got| cell(asked, got)).collect()).collect();
        rows.iter().flatten().all(|gap| gap.is_finite()).then_some((name, classes, rows))
    };
    steered(runs).into_iter().filter_map(of).collect()
}

/// Settings in which some run differs from the first.
pub fn differing(runs: &[&RunState]) -> Vec<Figure> {
    let configs: Vec<&RunConfig> = runs.iter().filter_map(|r| r.config.as_ref()).collect();
    let Some(first) = configs.first().filter(|_| configs.len() == runs.len()) else { return Vec::new() };
    let mut rows: BTreeMap<String, Vec<Option<String>>> = BTreeMap::new();
    let mut base: BTreeMap<String, String> = BTreeMap::new();
    for (n, config) in configs.iter().enumerate() {
        for change in differences(first, config) {
            base.insert(change.path.clone(), change.old);
            rows.entry(change.path).or_insert_with(|| vec![None; configs.len()])[n] = Some(change.new);
        }
    }
    let row = |(path, cells): (String, Vec<Option<String>>)| {
        let own = base.get(&path).cloned().unwrap_or_default();
        Figure { cells: cells.into_iter().map(|c| c.unwrap_or_else(|| own.clone())).collect(), name: path, values: Vec::new() }
    };
    rows.into_iter().map(row).collect()
}

/// Names for people, as far as runs have said theirs.
pub fn titles(runs: &[&RunState]) -> Vec<String> {
    runs.iter().map(|r| r.info().map(RunInfo::title).unwrap_or_default()).collect()
}

/// Name for people of runs that belong together; with a number where others are called the same.
pub fn named(titles: &[String], members: &[usize]) -> String {
    let own = &titles[members[0]];
    let others = titles.iter().enumerate().any(|(n, title)| !members.contains(&n) && title == own);
    if others { format!("{own} ({})", members[0] + 1) } else { own.clone() }
}

/// Objectives that runs are steered by, in their order: id and name.
pub fn steered(runs: &[&RunState]) -> Vec<[String; 2]> {
    let mut all: Vec<[String; 2]> = Vec::new();
    for run in runs {
        let wanted = run.config.as_ref().map_or_else(|| (0..run.objectives.len()).collect(), |c| c.steered(&run.objectives));
        for objective in wanted.into_iter().filter_map(|n| run.objectives.get(n)) {
            if !all.iter().any(|[id, _]| *id == objective.id) {
                all.push([objective.id.clone(), objective.name.clone()]);
            }
        }
    }
    all
}

/// How likely the class asked for of an objective is, where the run has it and a prompt of the step asks for it.
pub fn on_target(run: &RunState, step: &PolicyStep, objective: &str) -> Option<f64> {
    asked(step, run.objectives.iter().position(|o| o.id == objective)?)
}

/// The mean of that over the objectives that are asked for.
pub fn obedience(step: &PolicyStep) -> f64 {
    let known: Vec<f64> = (0..step.on_target.len()).filter_map(|n| asked(step, n)).collect();
    mean(&known)
}

/// What a step says of an objective that nobody asked for is no figure.
fn asked(step: &PolicyStep, objective: usize) -> Option<f64> {
    let is_asked = step.matrix.get(objective)?.iter().flatten().any(|share| *share > 0.0);
    step.on_target.get(objective).copied().filter(|_| is_asked)
}

/// Of each run, which group it belongs to: each to its own, or, `together`, the seeds of the same settings to one.
pub fn places(runs: &[&RunState], together: bool) -> Vec<u64> {
    let mut keys: Vec<String> = Vec::new();
    let place = |(n, run): (usize, &&RunState)| {
        // What is not known yet is like nothing.
        let key = if together && run.config.is_some() { settings(run) } else { n.to_string() };
        let known = keys.iter().position(|k| *k == key);
        known.unwrap_or_else(|| {
            keys.push(key);
            keys.len() - 1
        }) as u64
    };
    runs.iter().enumerate().map(place).collect()
}

/// The members of each group, of the places of all runs.
pub fn groups(places: &[u64]) -> Vec<Vec<usize>> {
    let count = places.iter().max().map_or(0, |last| last + 1);
    let members = |group: u64| (0..places.len()).filter(|n| places[*n] == group).collect();
    (0..count).map(members).collect()
}

/// What a run's settings are but for its seed and names.
fn settings(run: &RunState) -> String {
    let config = run.config.clone().map(|c| RunConfig { seed: 0, name: String::new(), ..c });
    written(&config)
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use moslim_shared::event::{Event, EventBody};
    use moslim_shared::objective::Objective;
    use moslim_shared::summary::{Answerer, ControlHead, Grader};

    pub fn run(seed: u64, lr: f64, hits: [f64; 2], rewards: &[f64]) -> RunState {
        let mut state = RunState::default();
        let mut config = RunConfig { seed, ..Default::default() };
        config.policy.learning_rate = lr;
        state.config = Some(config);
        for id in ["kind", "short"] {
            state.objectives.push(Objective::new(id, id, "", &["no", "yes"]));
        }
        let head = |n: usize| ControlHead {
            objective: ["kind", "short"][n].into(),
            n: 10,
            hit_rate: hits[n],
            within_one: 1.0,
            chance: 0.5,
            spearman: 0.0,
            matrix: vec![vec![hits[n], 1.0 - hits[n]], vec![0.5, 0.5]],
            ..Default::default()
        };
        let report = ControlReport { heads: vec![head(0), head(1)], ..Default::default() };
        let control = EventBody::Control { policy: Answerer::Policy, grader: Grader::Gold, report };
        let steps = rewards.iter().zip(1..).map(|(reward, step)| EventBody::Policy {
            part: None,
            total: 9,
            step: PolicyStep { step, reward: *reward, ..Default::default() },
        });
        for (body, seq) in steps.chain([control]).zip(1..) {
            state.apply(Event { seq, time: 0, body });
        }
        state
    }

    #[test]
    fn the_sentence_says_who_is_ahead_on_the_whole_and_where_most() {
        let (a, b) = (run(1, 1e-3, [0.9, 0.5], &[]), run(2, 1e-3, [0.8, 0.9], &[]));
        let none = [String::new(), String::new()];
        let apart = [vec![0], vec![1]];
        let text = said((&[&a, &b], &none), &apart);
        assert_eq!(
            text,
            "The second obeys better on the whole: 85 % against 70 %. They differ most in short, where The second is 40 points ahead."
        );
        let alike = said((&[&run(1, 1e-3, [0.9, 0.5], &[]), &run(2, 1e-3, [0.502, 0.9], &[])], &none), &apart);
        assert!(alike.starts_with("On the whole they obey alike: 70 %. They differ most in "), "{alike}");
        let row = &figures(&[&a, &b], &[vec![0], vec![1]])[0];
        assert_eq!(
            (row.name.as_str(), &row.cells, best(row)),
            ("kind, as asked", &vec!["90 %".to_string(), "80 %".to_string()], Some(0))
        );
        // Of seeds the mean, the lowest and the highest.
        let c = run(1, 5e-4, [0.86, 0.5], &[]);
        let row = &figures(&[&a, &c, &b], &[vec![0, 2], vec![1]])[0];
        assert_eq!((row.cells.join(", "), best(row)), ("85 % (80 % to 90 %), 86 %".into(), Some(1)));
        // Of groups the means count, whichever of their runs comes first.
        let (low, high) = (run(3, 5e-4, [0.2, 0.6], &[]), run(4, 5e-4, [0.8, 0.8], &[]));
        let names = ["one", "one", "two"].map(String::from);
        let groups = said((&[&low, &high, &b], &names), &[vec![0, 1], vec![2]]);
        assert!(groups.ends_with("85 % against 60 %. They differ most in kind, where two is 30 points ahead."), "{groups}");
        assert_eq!(said((&[&a, &RunState::default()], &none), &apart).split(' ').next(), Some("One"));
        let apart = difference((&[&a, &b], &none), &apart);
        assert!((apart[1].2[0][0] - 0.4).abs() < 1e-9 && (apart[1].2[0][1] + 0.4).abs() < 1e-9, "{apart:?}");
    }

    #[test]
    fn equal_figures_have_no_best_and_missing_ones_do_not_win() {
        let row = |values: &[f64]| Figure { name: String::new(), cells: Vec::new(), values: values.to_vec() };
        assert_eq!((best(&row(&[0.5, 0.5])), best(&row(&[f64::NAN, 0.1])), best(&row(&[]))), (None, Some(1), None));
    }

    #[test]
    fn only_what_differs_is_listed_with_the_value_of_every_run() {
        let runs = [run(1, 1e-3, [0.0; 2], &[]), run(2, 1e-3, [0.0; 2], &[]), run(1, 5e-4, [0.0; 2], &[])];
        let rows = differing(&runs.iter().collect::<Vec<_>>());
        let cells = |path: &str| rows.iter().find(|r| r.name == path).map(|r| r.cells.join(" "));
        assert_eq!(cells("seed").as_deref(), Some("1 2 1"));
        assert!(cells("policy.learning_rate").is_some_and(|c| c.ends_with("0.0005")), "{rows:?}");
        assert_eq!(rows.len(), 2);
    }

    #[test]
    fn objectives_are_found_by_name_in_every_run() {
        let (a, mut b) = (run(1, 1e-3, [0.0; 2], &[1.0]), run(2, 1e-3, [0.0; 2], &[1.0]));
        b.objectives.swap(0, 1);
        b.objectives.push(Objective::new("true", "Honest", "", &["no", "yes"]));
        let rows = |share: f64| vec![vec![share, 0.0]];
        let step = PolicyStep { on_target: vec![0.25, 0.75], matrix: vec![rows(1.0), rows(0.5)], ..Default::default() };
        let of = |run: &RunState, id: &str| on_target(run, &step, id);
        assert_eq!([of(&a, "kind"), of(&b, "kind"), of(&a, "true"), of(&b, "true")], [Some(0.25), Some(0.75), None, None]);
        // Nobody asked for the second one: the 0 that is told is no figure, and no part of the mean.
        let quiet = PolicyStep { on_target: vec![0.25, 0.0], matrix: vec![rows(1.0), rows(0.0)], ..Default::default() };
        assert_eq!((on_target(&a, &quiet, "short"), obedience(&quiet), obedience(&step)), (None, 0.25, 0.5));
        let mut narrow = run(1, 1e-3, [0.0; 2], &[]);
        narrow.config.as_mut().unwrap().targets.objectives = vec!["short".into()];
        assert_eq!(steered(&[&narrow]).len(), 1);
        let ids: Vec<String> = steered(&[&a, &b]).into_iter().map(|[id, _]| id).collect();
        assert_eq!(ids, ["kind", "short", "true"]);
    }
}
