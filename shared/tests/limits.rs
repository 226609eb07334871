//! Limits and lists at both of their ends: what is just allowed, and what is just not.

use moslim_shared::agreement::mean_kappa;
use moslim_shared::config::{ClassWeights, PolicyOptimizer, RunConfig};
use moslim_shared::dialogue::Speaker;
use moslim_shared::event::{About, DeviceReport, Event, EventBody, RunInfo, RunStatus, Stage};
use moslim_shared::inference::{GenerateEvent, GenerateRequest, MILESTONES, MOST_SAMPLES, Source};
use moslim_shared::listing::{Figures, Filter};
use moslim_shared::method::Method;
use moslim_shared::objective::Objective;
use moslim_shared::ordinal::RewardLoss;
use moslim_shared::presets;
use moslim_shared::summary::{ChosenFront, ControlHead, ControlReport, FrontReport};

fn fields(problems: &[moslim_shared::config::Problem]) -> Vec<&str> {
    problems.iter().map(|p| p.field.as_str()).collect()
}

#[test]
fn what_is_said_of_a_run_has_limits() {
    let about = |name: &str, note: &str, tags: &[&str]| About {
        name: name.into(),
        note: note.into(),
        tags: tags.iter().map(|t| (*t).to_string()).collect(),
        archived: false,
    };
    let of = |about: About| fields(&about.problems()).into_iter().map(String::from).collect::<Vec<_>>();
    let long = "ä".repeat(4001);
    assert!(of(about(&long[..240], "two\nlines", &[&long[..80]; 32])).is_empty());
    assert_eq!(of(about(&long[..242], "", &[])), ["name"]);
    assert!(of(about("", &long[..8000], &[])).is_empty());
    assert_eq!(of(about("", &long, &[])), ["note"]);
    assert_eq!(of(about("two\nlines", "a\ttab", &["a\nb"])), ["name", "note", "tags[0]"]);
    assert_eq!(of(about("", "", &["ok", &long[..82]])), ["tags[1]"]);
    assert_eq!(of(about("", "", &["t"; 33])), ["tags"]);
    assert_eq!(of(about("", "", &[&long[..82]; 33])).len(), 34, "each is looked at, and that they are too many");
}

#[test]
fn a_request_may_ask_for_so_much() {
    let ask = || GenerateRequest { prompt: "How do I make tea?".into(), ..Default::default() };
    let of = |request: GenerateRequest| fields(&request.problems()).into_iter().map(String::from).collect::<Vec<_>>();
    for fine in [
        GenerateRequest { n: 1000, best_of: 4, ..ask() },
        GenerateRequest { n: 4, best_of: 1000, ..ask() },
        GenerateRequest { temperature: 0.0, top_p: 1.0, max_new_tokens: 1024, ..ask() },
        GenerateRequest { temperature: 5.0, top_p: 1e-9, max_new_tokens: 1, ..ask() },
        GenerateRequest { prompt: "ä".repeat(20_000), ..ask() },
    ] {
        assert!(fine.problems().is_empty(), "{:?}", fine.problems());
    }
    assert_eq!(of(GenerateRequest { n: 1001, ..ask() }), ["n"]);
    assert_eq!(of(GenerateRequest { n: 0, best_of: 0, ..ask() }), ["n", "best_of"]);
    assert_eq!(of(GenerateRequest { n: 1000, best_of: 5, ..ask() }), ["best_of"]);
    assert_eq!(of(GenerateRequest { temperature: 5.1, ..ask() }), ["temperature"]);
    assert_eq!(of(GenerateRequest { temperature: f64::NAN, top_p: 1.1, max_new_tokens: 0, ..ask() }).len(), 3);
    assert_eq!(of(GenerateRequest { max_new_tokens: 1025, ..ask() }), ["max_new_tokens"]);
    assert_eq!(of(GenerateRequest { prompt: " ".into(), target: "ä".repeat(20_001), ..ask() }), ["prompt", "target"]);
    // One request to a lab that others use is smaller.
    let one = |n, best_of| GenerateRequest { n, best_of, ..ask() }.problems_for_one().len();
    assert_eq!((one(MOST_SAMPLES, 1), one(MOST_SAMPLES / 4, 4), one(MOST_SAMPLES + 1, 1), one(0, 1)), (0, 0, 1, 1));
}

#[test]
fn who_answers_has_one_name_everywhere() {
    for source in Source::ALL {
        assert_eq!(serde_json::to_value(source).unwrap(), source.id());
        assert_eq!((Source::of(source.id()), source.id().parse::<Source>()), (Some(source), Ok(source)));
        assert_eq!(source.milestone(), source.id().parse::<u8>().ok());
    }
    assert_eq!(Source::ALL.into_iter().filter_map(Source::milestone).collect::<Vec<_>>(), MILESTONES);
    assert!("20".parse::<Source>().unwrap_err().contains("allowed are policy, start, 25, 50, 75, newest"));
}

#[test]
fn an_answer_ends_once() {
    let whole = GenerateEvent::Ended { tokens: 3, seconds: 1.0, processor_seconds: None };
    let ended = [whole, GenerateEvent::Failed { message: "no".into() }];
    assert!(ended.iter().all(GenerateEvent::is_last));
    assert!(!GenerateEvent::Text { answer: 0, text: "a".into() }.is_last());
}

#[test]
fn a_run_has_the_stages_that_its_configuration_asks_for() {
    let mut config = RunConfig::default();
    config.method.preference_sft = 0;
    let plain = [Stage::Sft, Stage::RewardModel, Stage::Calibration, Stage::Policy, Stage::Evaluation];
    assert_eq!(Stage::of(&config), plain);
    config.method.preference_sft = 1;
    config.evaluation.held_out_reward_model = true;
    config.base.model = "some".into();
    let all = Stage::of(&config);
    assert_eq!(all.len(), 7);
    assert_eq!((all[0], all[1], all[4]), (Stage::Answers, Stage::HeldOutRewardModel, Stage::PreferenceSft));
    let ids: std::collections::HashSet<_> = Stage::ALL.map(Stage::id).into_iter().collect();
    let titles: std::collections::HashSet<_> = Stage::ALL.map(Stage::title).into_iter().collect();
    assert_eq!((ids.len(), titles.len()), (8, 8));
}

fn device() -> DeviceReport {
    DeviceReport { device: "cpu".into(), name: "a processor".into(), reason: "it is there".into() }
}

#[test]
fn a_run_is_called_by_the_best_name_that_it_has() {
    let mut config = RunConfig { preset: "quick".into(), seed: 7, ..Default::default() };
    config.policy.optimizer = PolicyOptimizer::Grpo;
    let mut run = RunInfo::new("id", &config, 5);
    assert_eq!(run.title(), "quick, seed 7, GRPO");
    run.config.method.kind = Method::Ric;
    run.preset.clear();
    assert_eq!(run.title(), format!("own settings, seed 7, {}", Method::Ric.title()));
    run.name = "by its file".into();
    assert_eq!(run.title(), "by its file");
    run.about.name = "by a person".into();
    assert_eq!(run.title(), "by a person");
    // It begins anew with what its journal says of it; the first event alone dates it.
    let other = RunConfig { name: "other".into(), seed: 9, ..Default::default() };
    let started = |seq, time| {
        let body = EventBody::Started { config: other.clone(), device: device(), objectives: Vec::new(), resumed: false };
        Event { seq, time, body }
    };
    run.message = "it has not begun".into();
    run.hear(&started(2, 70));
    assert_eq!((run.created, run.seed, run.name.as_str(), run.status), (5, 9, "other", RunStatus::Running));
    assert!(run.message.is_empty());
    run.hear(&started(1, 80));
    assert_eq!(run.created, 80);
}

#[test]
fn filters_have_limits_and_fields() {
    let config = RunConfig { preset: "quick".into(), seed: 7, ..Default::default() };
    let mut run = RunInfo::new("20261127-1", &config, 0);
    run.about.note = "Looks odd".into();
    run.about.tags = vec!["Thesis".into()];
    let figures = Some(Figures { hit: 0.5, joint: 0.25, kl: 2.0, seconds: 60.0 });
    let takes = |text: &str| Filter::parse(text).unwrap().takes((&run, figures));
    for (yes, no) in [
        ("preset:quick", "preset:tab"),
        ("optimizer:rloo", "optimizer:ppo"),
        ("status:interrupted", "status:failed"),
        ("tag:thesis", "tag:paper"),
        ("task:world", "task:style"),
        ("odd", "even"),
        ("seed:7", "seed:8"),
        ("seed<7.5", "seed<7"),
        ("hit>0.49", "hit<0.5"),
        ("joint>0.2", "joint>0.25"),
        ("kl<2.1", "kl>2"),
        ("seconds<61", "seconds<60"),
    ] {
        assert_eq!((takes(yes), takes(no)), (true, false), "{yes}, {no}");
    }
    assert!(Filter::parse(&"a".repeat(400)).is_ok() && Filter::parse(&"a".repeat(401)).is_err());
    assert!(Filter::parse(&"a ".repeat(16)).is_ok() && Filter::parse(&"a ".repeat(17)).is_err());
}

#[test]
fn speakers_are_known_by_the_names_that_data_sets_use() {
    for (name, speaker) in [
        ("system", Some(Speaker::System)),
        ("User", Some(Speaker::User)),
        ("human", Some(Speaker::User)),
        ("prompter", Some(Speaker::User)),
        ("ASSISTANT", Some(Speaker::Assistant)),
        ("gpt", Some(Speaker::Assistant)),
        ("bot", Some(Speaker::Assistant)),
        ("model", Some(Speaker::Assistant)),
        ("tool", None),
    ] {
        assert_eq!(Speaker::of(name), speaker, "{name}");
    }
}

#[test]
fn kappa_is_the_mean_over_pairs_of_raters() {
    // Raters 0 and 1 agree on both units, 0 and 2 (and 1 and 2) never: kappas of 1, -1 and -1. Who rated twice is no pair.
    let units = [vec![(0, 0), (1, 0), (2, 1), (0, 1)], vec![(0, 1), (1, 1), (2, 0)]];
    let (mean, pairs) = mean_kappa(&units[1..], 2, 1).unwrap();
    assert_eq!(pairs, 3);
    assert!(mean < 1.0);
    let plain = vec![units[0][..3].to_vec(), units[1].clone()];
    let (mean, pairs) = mean_kappa(&plain, 2, 2).unwrap();
    assert_eq!(pairs, 3);
    assert!((mean + 1.0 / 3.0).abs() < 1e-12, "{mean}");
    // Who is named first in a unit does not matter.
    assert_eq!(mean_kappa(&[vec![(0, 0), (1, 0)], vec![(1, 1), (0, 1)]], 2, 2), Some((1.0, 1)));
}

#[test]
fn classes_are_worth_what_their_direction_says() {
    let mut objective = Objective::new("helpfulness", "Helpfulness", "How much it helps.", &["nothing", "some", "everything"]);
    assert_eq!([0, 1, 2].map(|c| objective.utility(c as f64)), [0.0, 0.5, 1.0]);
    assert_eq!(objective.best_class(), 2);
    objective.higher_is_better = false;
    assert_eq!([0, 1, 2].map(|c| objective.utility(c as f64)), [1.0, 0.5, 0.0]);
    assert_eq!(objective.best_class(), 0);
}

#[test]
fn classes_are_asked_for_in_words() {
    let objective = Objective::new("length", "Length", "How long it is.", &["short", "long"]);
    assert_eq!((objective.said(1, 0).as_str(), objective.trained_wordings()), ("Length: long.", 1));
    let own = objective.clone().in_words(&[&["Be brief.", "Briefly.", "In short."], &["At length.", "In full.", "Go on."]]);
    assert_eq!((own.said(0, 1).as_str(), own.said(1, 7).as_str(), own.trained_wordings()), ("Briefly.", "Go on.", 2));
    assert_eq!(objective.in_words(&[&["Be brief."], &["At length.", "In full."]]).trained_wordings(), 1);
}

#[test]
fn means_of_control_are_over_the_objectives() {
    let head = |hit_rate, spearman| ControlHead { hit_rate, spearman, ..Default::default() };
    let report = ControlReport { heads: vec![head(0.5, 0.1), head(0.2, 0.5), head(0.2, 0.9)], ..Default::default() };
    assert!((report.mean_hit_rate() - 0.3).abs() < 1e-12 && (report.mean_spearman() - 0.5).abs() < 1e-12);
    assert_eq!(ControlReport::default().mean_hit_rate(), 0.0);
}

#[test]
fn users_get_the_prompts_that_were_chosen_for_them() {
    let mut front = FrontReport::default();
    assert_eq!(front.served_utility(), 0.0);
    front.expected_utility = Some(0.25);
    assert_eq!(front.served_utility(), 0.25);
    front.chosen = Some(ChosenFront { expected_utility: 0.75, ..Default::default() });
    assert_eq!(front.served_utility(), 0.75);
}

#[test]
fn rules_of_a_configuration_hold_for_each_of_their_cases() {
    let objectives: Vec<Objective> = ["helpfulness", "harmlessness", "honesty", "verbosity"]
        .map(|id| Objective::new(id, id, "It is measured.", &["low", "middle", "high"]))
        .to_vec();
    let quick = || presets::find("quick").unwrap().config;
    let wrong = |change: &dyn Fn(&mut RunConfig)| {
        let mut config = quick();
        config.targets.held_out.clear();
        change(&mut config);
        fields(&config.problems(&objectives)).into_iter().map(String::from).collect::<Vec<_>>()
    };
    assert!(wrong(&|_| ()).is_empty(), "{:?}", wrong(&|_| ()));
    // Smoothing is of the cross-entropy alone.
    assert!(wrong(&|c| c.reward_model.label_smoothing = 0.1).is_empty());
    let other = |c: &mut RunConfig| c.reward_model.loss = RewardLoss::Coral;
    assert!(wrong(&other).is_empty());
    let smooth = |c: &mut RunConfig| {
        other(c);
        c.reward_model.label_smoothing = 0.1;
    };
    assert_eq!(wrong(&smooth), ["reward_model.label_smoothing"]);
    let weighted = |c: &mut RunConfig| {
        other(c);
        c.reward_model.class_weights = ClassWeights::InverseSqrt;
    };
    assert_eq!(wrong(&weighted), ["reward_model.class_weights"]);
    // Pairs need an even batch, and only they do.
    let odd = |loss| {
        move |c: &mut RunConfig| {
            c.reward_model.loss = loss;
            c.reward_model.batch = 33;
        }
    };
    assert!(wrong(&odd(RewardLoss::CrossEntropy)).is_empty());
    assert_eq!(wrong(&odd(RewardLoss::BradleyTerry)), ["reward_model.batch"]);
    // DAPO alone has a buffer, which must be shorter than an answer.
    let long = |optimizer| {
        move |c: &mut RunConfig| {
            c.policy.optimizer = optimizer;
            c.policy.dapo.overlong_buffer = c.policy.max_new_tokens;
        }
    };
    assert!(wrong(&long(PolicyOptimizer::Rloo)).is_empty());
    assert!(wrong(&long(PolicyOptimizer::Dapo)).contains(&"policy.dapo.overlong_buffer".to_string()));
    // One sample has nobody to be compared with; an optimiser with a critic needs no other.
    let alone = |optimizer| {
        move |c: &mut RunConfig| {
            c.policy.optimizer = optimizer;
            c.policy.samples_per_prompt = 1;
        }
    };
    assert!(wrong(&alone(PolicyOptimizer::Ppo)).iter().all(|f| f != "policy.samples_per_prompt"));
    assert!(wrong(&alone(PolicyOptimizer::Rloo)).contains(&"policy.samples_per_prompt".to_string()));
    // Each of several policies needs an iteration, unless each has a budget of its own.
    let shared = |iterations| {
        move |c: &mut RunConfig| {
            c.method.kind = Method::RewardedSoups;
            c.policy.passes = None;
            c.policy.iterations = iterations;
        }
    };
    assert!(!wrong(&shared(4)).contains(&"policy.iterations".to_string()));
    assert!(wrong(&shared(3)).contains(&"policy.iterations".to_string()));
    // Names of runs to start from.
    for (name, fine) in [("20261128-1a", true), ("", false), ("A", false), ("../x", false)] {
        assert_eq!(wrong(&|c| c.from = Some(name.into())).is_empty(), fine, "{name}");
    }
}
