//! A task that the engine does not know: two objectives, its own rules, and no file but this one. Every stage runs on it, with gold
//! rules and without; the run is kept in memory.

use moslim_engine::data::{Gold, Grades, Row, Splits, Task, TaskCard, TaskQuestion};
use moslim_engine::keep::files::{Files, Memory};
use moslim_engine::keep::{Job, journal};
use moslim_engine::progress::Stop;
use moslim_engine::run::train_on;
use moslim_shared::config::RunConfig;
use moslim_shared::event::{EventBody, Outcome, Stage};
use moslim_shared::objective::Objective;
use moslim_shared::pareto::hypervolume;
use moslim_shared::presets;
use moslim_shared::summary::{FrontSeen, Grader, RunSummary};
use std::sync::Arc;

/// Polite answers say please; long ones have more words.
struct Rules;

impl Gold for Rules {
    fn grade(&self, _question: &str, answer: &str) -> Grades {
        let length = (answer.split_whitespace().count() / 4).min(2);
        Grades {
            classes: vec![usize::from(answer.contains("please")), length],
            fluent: answer.ends_with('.'),
            ..Default::default()
        }
    }
}

fn objectives() -> Vec<Objective> {
    vec![
        Objective::new("politeness", "Politeness", "Whether it says please.", &["rude", "polite"]),
        Objective::new("length", "Length", "Words.", &["short", "middle", "long"]).lower_is_better(),
    ]
}

fn rows(questions: &[TaskQuestion], answers: usize) -> Vec<Row> {
    let colours = ["red", "green", "blue", "grey", "pink", "white"];
    let mut rows = Vec::new();
    for (q, question) in questions.iter().enumerate() {
        for a in 0..answers {
            let words = vec![colours[(q + a) % colours.len()]; 1 + a % 11].join(" ");
            let answer = if a % 2 == 0 { format!("Take {words}, please.") } else { format!("Take {words}.") };
            let labels = Rules.grade(&question.text, &answer).classes.into_iter().map(Some).collect();
            rows.push(Row { question: question.text.clone(), answer, labels, part: 0 });
        }
    }
    rows
}

fn task(gold: bool) -> Task {
    let question = |n: usize| TaskQuestion { text: format!("Which colour suits number {n}?"), topic: n, part: 0 };
    let questions = |from: usize, to: usize| (from..to).map(question).collect::<Vec<TaskQuestion>>();
    let (train, validation, test) = (questions(0, 40), questions(40, 48), questions(48, 56));
    let splits = Splits {
        train: rows(&train, 22),
        validation: rows(&validation, 22),
        test: rows(&test, 22),
        train_questions: train,
        validation_questions: validation,
        test_questions: test,
        ..Default::default()
    };
    Task { name: "colours".into(), objectives: objectives(), splits, gold: gold.then(|| Box::new(Rules) as Box<dyn Gold>) }
}

fn config() -> RunConfig {
    let mut config = presets::find("smoke").expect("a shipped preset").config;
    config.targets.held_out.clear();
    config
}

fn run(gold: bool) -> (RunSummary, Vec<EventBody>, Memory) {
    run_as(config(), gold)
}

fn run_as(config: RunConfig, gold: bool) -> (RunSummary, Vec<EventBody>, Memory) {
    let files = Memory::default();
    let job = Job::new("mine", config, Arc::new(files.clone()));
    let summary = train_on(&job, task(gold), &Stop::default(), &mut |_| {}).expect("a finished run");
    let text = files.read("runs/mine/events.jsonl").unwrap().expect("a journal");
    (summary, journal::events(&text).into_iter().map(|e| e.body).collect(), files)
}

#[test]
fn every_stage_runs_on_a_task_of_its_own() {
    let (summary, events, files) = run(true);
    let heads: Vec<&str> = summary.control.policy.heads.iter().map(|h| h.objective.as_str()).collect();
    assert_eq!((summary.control.grader, heads), (Grader::Gold, vec!["politeness", "length"]));
    assert!(summary.kl_frontier.iter().all(|p| p.gold_hit_rate.is_some()));
    assert!(matches!(&events[0], EventBody::Started { objectives: own, .. } if *own == objectives()));
    assert!(matches!(events.last(), Some(EventBody::Ended { outcome: Outcome::Finished, .. })));
    let began: Vec<Stage> =
        events.iter().filter_map(|e| if let EventBody::StageBegan { stage, .. } = e { Some(*stage) } else { None }).collect();
    assert_eq!(began, [Stage::Sft, Stage::RewardModel, Stage::Calibration, Stage::Policy, Stage::Evaluation]);
    // What is needed to score and show it later lies with the run.
    let card: TaskCard = serde_json::from_slice(&files.read("runs/mine/task.json").unwrap().unwrap()).unwrap();
    assert_eq!((card.name.as_str(), card.objectives), ("colours", objectives()));
    assert_eq!(card.fingerprint, task(true).fingerprint());
    assert!(!files.list("runs/mine").unwrap().iter().any(|f| f.starts_with("checkpoint-")));
}

#[test]
fn fronts_are_seen_on_the_way_and_change_nothing() {
    let with = |fronts_seen: usize| {
        let mut config = config();
        config.evaluation.fronts_seen = fronts_seen;
        let (summary, events, files) = run_as(config, true);
        let seen: Vec<FrontSeen> = events
            .into_iter()
            .filter_map(|e| if let EventBody::FrontSeen { front, .. } = e { Some(front) } else { None })
            .collect();
        (summary, seen, files.read("runs/mine/policy.safetensors").unwrap().expect("a policy"))
    };
    let (often, seen, policy) = with(3);
    assert_eq!(seen.iter().map(|f| f.step).collect::<Vec<_>>(), [0, 8, 16]);
    for front in &seen {
        assert_eq!(front.objectives, ["politeness", "length"]);
        assert_eq!(front.asked.len(), front.points.len());
        assert!(!front.points.is_empty() && front.points.iter().flatten().all(|u| (0.0..=1.0).contains(u)));
        assert_eq!(front.hypervolume, hypervolume(&front.points, &[0.0; 2]));
    }
    assert_ne!(seen[0].points, seen[2].points, "the policy has moved");
    let (never, none, same) = with(0);
    assert_eq!((none.len(), policy == same), (0, true));
    assert_eq!((often.control, often.front), (never.control, never.front));
}

#[test]
fn weights_that_prompts_say_are_trained_and_offered() {
    let with = |share: Option<f64>| {
        let mut config = config();
        config.targets.weighted_share = share;
        config.evaluation.fronts_seen = 2;
        let (summary, events, _) = run_as(config, true);
        let seen = |event: EventBody| if let EventBody::FrontSeen { front, .. } = event { Some(front) } else { None };
        (summary, events.into_iter().filter_map(seen).collect::<Vec<FrontSeen>>())
    };
    let ((plain, before), (mixed, seen)) = (with(None), with(Some(0.5)));
    // Five trade-offs between two objectives, beside combinations of classes.
    let offers = |summary: &RunSummary| summary.front.menu.expect("a menu").offers;
    assert_eq!(offers(&mixed), offers(&plain) + 5);
    assert!(before.iter().all(|front| front.weights.is_empty()));
    assert!(plain.front.points.iter().all(|p| p.asked.is_some() && p.weights.is_empty()));
    // What is kept asks for classes or for weights, whichever reaches further.
    let sums = |weights: &[f64]| (weights.iter().sum::<f64>() - 1.0).abs() < 1e-9;
    for point in &mixed.front.points {
        assert!(point.asked.is_some() == point.weights.is_empty(), "{point:?}");
        assert!(point.weights.is_empty() || sums(&point.weights), "{point:?}");
    }
    for front in &seen {
        assert!(front.weights.is_empty() || front.weights.len() == front.points.len(), "{front:?}");
        let mut asked = front.asked.iter().zip(&front.weights);
        assert!(asked.all(|(classes, weights)| weights.is_empty() || classes.active() == 0), "{front:?}");
    }
    assert!(seen.len() == 2 && seen[1].points != before[1].points, "it has learnt something else");
    assert!(mixed.policy.kl.is_finite() && mixed.kl_frontier.iter().all(|p| p.proxy_hit_rate.is_finite()));
}

#[test]
fn without_gold_rules_the_held_out_reward_model_grades_under_its_own_name() {
    let (summary, events, _) = run(false);
    assert_eq!(summary.control.grader, Grader::HeldOutRewardModel);
    // It learnt from other rows, and says how well.
    let [first, judge] = [Some(&summary.reward_model), summary.held_out_reward_model.as_ref()].map(|r| r.unwrap().heads.clone());
    assert_eq!((judge.len(), judge[0].n), (first.len(), first[0].n));
    assert_ne!(judge[0].nll, first[0].nll);
    assert!(summary.kl_frontier.iter().all(|p| p.gold_hit_rate.is_none() && p.held_out_hit_rate.is_some()));
    assert!(events.iter().any(|e| matches!(e, EventBody::StageEnded { stage: Stage::HeldOutRewardModel, .. })));
    let graders: Vec<Grader> =
        events.iter().filter_map(|e| if let EventBody::Control { grader, .. } = e { Some(*grader) } else { None }).collect();
    assert_eq!(graders, [Grader::HeldOutRewardModel, Grader::RewardModel, Grader::HeldOutRewardModel, Grader::RewardModel]);
}

#[test]
fn the_held_out_reward_model_may_be_of_another_size() {
    let sizes = |layers: usize| {
        let mut config = config();
        (config.model.layers, config.reward_trunk.layers, config.evaluation.held_out_layers) = (2, 2, layers);
        let (_, _, files) = run_as(config, false);
        let kept = files.list("cache").unwrap().into_iter().filter(|name| name.starts_with("reward-"));
        let mut sizes: Vec<usize> = kept.map(|name| files.read(&format!("cache/{name}")).unwrap().unwrap().len()).collect();
        sizes.sort_unstable();
        <[usize; 2]>::try_from(sizes).expect("two reward models")
    };
    // Beside the weights lie a few losses.
    let near = |a: usize, b: usize| a.abs_diff(b) * 50 < b;
    let (alike, [judge, first]) = (sizes(0), sizes(1));
    assert!(near(alike[0], alike[1]) && near(first, alike[1]), "the one that is optimised for stays as it is");
    assert!(judge * 6 < first * 5, "{judge} bytes beside {first}");
}

#[test]
fn another_label_is_another_task() {
    let mut other = task(true);
    other.splits.test[0].labels[0] = None;
    assert_ne!(other.fingerprint(), task(true).fingerprint());
    // Policies are optimised on questions, whether or not a row answers them.
    let mut other = task(true);
    other.splits.train_questions.push(TaskQuestion { text: "Which colour suits me?".into(), topic: 99, part: 0 });
    assert_ne!(other.fingerprint(), task(true).fingerprint());
}
