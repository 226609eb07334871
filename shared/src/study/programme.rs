//! The whole comparison: studies in an order, of which later ones take from earlier ones which settings suit whom.
//!
//! Every method and every optimiser gets the same number of tries, on validation questions, with a seed of its own; the settings
//! with the best figures of a table are the ones that the table shows, on test questions, with other seeds.

use super::choice::{Table, chosen};
use super::longer;
use super::method_tries::{MOC, SFT_MIX, method_tries};
use super::plan::{Axis, StudyConfig, Variant};
use super::results::StudyResults;
use super::shipped::{self, budgeted};
use super::tries::{optimizer_tries, taken};
use crate::config::{Aggregation, EvaluationSplit, PolicyOptimizer, RunConfig};
use crate::method::Method;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Ids of the studies, in their order.
pub const PROGRAMME: [&str; 14] = [
    "methods-tuning",
    "methods",
    "rehearsal",
    "ideas",
    "ideas-again",
    "ceiling",
    "optimisers-tuning",
    "optimisers",
    "stages",
    "mappings",
    "reward-size",
    "labels",
    longer::ID,
    longer::AGAIN,
];

/// Studies of the programme that are only done when they are named: these take longer than all others together.
pub const ON_REQUEST: [&str; 2] = [longer::ID, longer::AGAIN];

/// Share of SFT's rows among supervised ones where they are rehearsed.
const REHEARSED: f64 = 0.5;

/// The label of what ideas change one thing of.
const AS_TUNED: &str = "as tuned";
/// How many ideas are tried again, with other seeds.
const AGAIN: usize = 3;

/// The studies of the programme that one of them takes from.
pub fn before(id: &str) -> &'static [&'static str] {
    match id {
        "methods" | "rehearsal" | "ideas" | longer::ID => &["methods-tuning"],
        "ideas-again" => &["methods-tuning", "ideas"],
        longer::AGAIN => &["methods-tuning", longer::ID],
        "optimisers" => &["optimisers-tuning"],
        _ => &[],
    }
}

/// A study of the programme over `base`; `None` where there is no such study, or one that it takes settings from is not `done` yet ([`before`]),
/// or where `seeds` are too few for it.
pub fn study(
    id: &str,
    base: &RunConfig,
    seeds: &[u64],
    tuning_seed: u64,
    done: &BTreeMap<String, StudyResults>,
) -> Option<StudyConfig> {
    let base = budgeted(base.clone());
    let tuned = |tuning: &str, variants: Vec<Variant>, question: &str| {
        let mut base = base.clone();
        base.evaluation.split = EvaluationSplit::Validation;
        let axes = vec![Axis { name: "setting".into(), variants }];
        StudyConfig { name: tuning.into(), question: question.into(), base, axes, seeds: vec![tuning_seed] }
    };
    match id {
        "methods-tuning" => Some(tuned(id, method_tries(&base), "Which settings suit each method, on validation questions?")),
        "optimisers-tuning" => Some(tuned(id, optimizer_tries(), "Which settings suit each optimiser, on validation questions?")),
        "methods" => {
            let (tries, results) = (method_tries(&base), done.get("methods-tuning")?);
            let mut variants = Vec::new();
            for method in Method::ALL {
                if method == Method::Morlhf {
                    variants.extend(chosen(MOC, &tries, results, &[Table::Fronts, Table::Control]));
                }
                let own = chosen(method.title(), &tries, results, &[Table::Fronts, Table::Control]);
                let bare = Variant { label: method.title().into(), set: [("method.kind".into(), json!(method))].into() };
                variants.extend(if own.is_empty() { vec![bare] } else { own });
            }
            let question = "Does one tag-steered policy beat the methods that train many, at an equal budget?";
            let axes = vec![Axis { name: "method".into(), variants }];
            Some(StudyConfig { name: id.into(), question: question.into(), base, axes, seeds: seeds.to_vec() })
        }
        "rehearsal" => {
            let (tries, results) = (method_tries(&base), done.get("methods-tuning")?);
            let tables = [Table::Fronts, Table::Control];
            let taken = [Method::Moslim, Method::RicClass].into_iter().flat_map(|m| chosen(m.title(), &tries, results, &tables));
            // MOSLIM without preference SFT trains on no rows.
            let taught =
                |v: &Variant| !v.label.starts_with(Method::Moslim.title()) || v.set.contains_key("method.preference_sft");
            let rehearsed = |mut taken: Variant| {
                taken.label.push_str(", SFT rehearsed");
                taken.set.insert("method.rehearsal".into(), json!(REHEARSED));
                taken
            };
            let axes = vec![Axis { name: "method".into(), variants: taken.filter(taught).map(rehearsed).collect() }];
            let question = "What do methods that are taught on answers about some subjects gain by rehearsing SFT's, about all?";
            Some(StudyConfig { name: id.into(), question: question.into(), base, axes, seeds: seeds.to_vec() })
        }
        "ideas" => {
            let question = "What does each idea of the literature bring to one tag-steered policy, on validation questions?";
            Some(tuned(id, ideas(&base, done.get("methods-tuning")?)?, question))
        }
        "ideas-again" => {
            let (mut variants, once) = (ideas(&base, done.get("methods-tuning")?)?, done.get("ideas")?);
            let leading = leading(once, Table::Fronts, AGAIN);
            variants.retain(|v| v.label == AS_TUNED || leading.contains(&v.label.as_str()));
            let question = "Which of the ideas that led on one seed lead on others, on validation questions?";
            let mut study = tuned(id, variants, question);
            // Seeds that no result has, from the tuning's on.
            study.seeds = (tuning_seed + 1..).take(seeds.len().max(2) - 1).collect();
            Some(study)
        }
        longer::ID => longer::study(base, seeds, done.get("methods-tuning")?),
        longer::AGAIN => longer::again(base, seeds, done.get("methods-tuning")?, done.get(longer::ID)?),
        "optimisers" => {
            let (tries, results) = (optimizer_tries(), done.get("optimisers-tuning")?);
            let variants =
                PolicyOptimizer::ALL.iter().flat_map(|o| chosen(o.title(), &tries, results, &[Table::SpokenControl])).collect();
            let axes = vec![Axis { name: "optimiser".into(), variants }];
            let question = "Which policy optimiser gets furthest at an equal budget?";
            Some(StudyConfig { name: id.into(), question: question.into(), base, axes, seeds: seeds.to_vec() })
        }
        other if PROGRAMME.contains(&other) => shipped::preset(other, base, seeds.to_vec()),
        _ => None,
    }
}

/// MOSLIM as it is tuned for fronts, and the same with one thing changed at a time, for as many token passes; `None` where tuning
/// has not found what suits it.
fn ideas(base: &RunConfig, tuning: &StudyResults) -> Option<Vec<Variant>> {
    let own = chosen(Method::Moslim.title(), &method_tries(base), tuning, &[Table::Fronts]).into_iter().next()?;
    let set = |label: &str, fields: &[(&str, Value)]| {
        let fields = fields.iter().map(|(field, value)| (field.to_string(), value.clone()));
        Variant { label: label.into(), set: own.set.clone().into_iter().chain(fields).collect() }
    };
    let rate = own.set.get("policy.learning_rate").and_then(Value::as_f64).unwrap_or(base.policy.learning_rate);
    let (prompts, samples) = (base.policy.prompts, base.policy.samples_per_prompt);
    let grpo = taken(PolicyOptimizer::Grpo).set.into_iter().collect::<Vec<_>>();
    let grpo: Vec<(&str, Value)> = grpo.iter().map(|(field, value)| (field.as_str(), value.clone())).collect();
    let normalised = [&grpo[..], &[("policy.aggregation", json!(Aggregation::NormaliseThenSum))]].concat();
    let credit = [("reward_model.beginnings", json!(0.3)), ("policy.head_credit", json!(0.95))];
    let weighted = [("targets.weighted_share", json!(0.5)), ("mapping.tchebycheff", json!(0.5))];
    let broader = [
        ("policy.learning_rate", json!(rate / 2.0)),
        ("policy.prompts", json!((prompts / 2).max(1))),
        ("policy.samples_per_prompt", json!(samples * 2)),
    ];
    Some(vec![
        set(AS_TUNED, &[]),
        set("without averaged weights", &[("policy.average", json!(0.0))]),
        set("half near the front", &[("targets.near_front_share", json!(0.5))]),
        set("none near the front", &[("targets.near_front_share", json!(0.0))]),
        set("without preference SFT", &[("method.preference_sft", json!(0))]),
        set("SFT answers mixed in", &[("policy.sft_mix", json!(SFT_MIX))]),
        set("rated answers mixed in", &[("policy.rated_mix", json!(SFT_MIX))]),
        set("own samples relabelled", &[("policy.hindsight", json!(SFT_MIX))]),
        set("half the rate, twice the samples of a prompt", &broader),
        set("one deviation a head", &[("mapping.pooling", json!("head"))]),
        set("a smooth minimum for the sum", &[("mapping.tchebycheff", json!(0.5))]),
        set("weights in half of the prompts", &weighted[..1]),
        set("weights in half of the prompts, smooth minimum", &weighted),
        set("credit for every token", &credit),
        set("GRPO", &grpo),
        set("GRPO, objectives normalised first", &normalised),
    ])
}

/// Labels of the `n` ideas with the highest sums of a table's figures, of all but what they change.
fn leading(results: &StudyResults, table: Table, n: usize) -> Vec<&str> {
    let mut ideas: Vec<_> = results.groups.iter().filter(|g| g.labels.first().is_some_and(|l| l != AS_TUNED)).collect();
    ideas.sort_by(|a, b| table.sum(b).total_cmp(&table.sum(a)));
    ideas.into_iter().take(n).map(|g| g.labels[0].as_str()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::study::choice::best;
    use crate::study::shipped::affordable;
    use crate::study::tries::APART;
    use crate::study::{METRICS, Spread, StudyGroup};

    fn results_of(figures: &[(&str, [f64; 4])]) -> StudyResults {
        let at = |id: &str| METRICS.iter().position(|m| m.id == id).unwrap();
        let ids = ["hypervolume", "expected_utility", "hit_rate", "joint_hit_rate"].map(at);
        let group = |(label, values): &(&str, [f64; 4])| {
            let mut metrics = vec![Spread::default(); METRICS.len()];
            for (m, mean) in ids.iter().zip(values) {
                metrics[*m] = Spread { mean: *mean, low: *mean, high: *mean };
            }
            StudyGroup { labels: vec![label.to_string()], metrics, ..Default::default() }
        };
        StudyResults { groups: figures.iter().map(group).collect(), ..Default::default() }
    }

    #[test]
    fn every_table_takes_what_is_best_in_its_own_figures() {
        let results = results_of(&[
            ("RiC · as shipped", [0.2, 0.7, 0.5, 0.2]),
            ("RiC · half the rate", [0.3, 0.7, 0.4, 0.2]),
            ("RiC · twice the rate", [0.1, 0.7, 0.6, 0.3]),
            ("RiC with class tags · half the rate", [0.9, 0.9, 0.9, 0.9]),
        ]);
        assert_eq!(best("RiC", &results, Table::Fronts).unwrap(), "RiC · half the rate");
        assert_eq!(best("RiC", &results, Table::Control).unwrap(), "RiC · twice the rate");
        assert_eq!(best("MORLHF", &results, Table::Control), None);
        let base = crate::presets::find("quick").unwrap().config;
        let done = [("methods-tuning".to_string(), results)].into();
        let study = study("methods", &base, &[1, 2], 4, &done).unwrap();
        let labels: Vec<&str> = study.axes[0].variants.iter().map(|v| v.label.as_str()).collect();
        let ric: Vec<&&str> = labels.iter().filter(|l| l.starts_with("RiC")).collect();
        assert_eq!(ric, [&"RiC", &"RiC, tuned for control", &"RiC with class tags"]);
        assert!(labels.contains(&"SFT with tags") && labels.contains(&"MORLHF"), "{labels:?}");
        let rate = |label: &str| {
            study.axes[0].variants.iter().find(|v| v.label == label).unwrap().set["method.ric.learning_rate"].clone()
        };
        assert_eq!((rate("RiC"), rate("RiC, tuned for control")), (json!(0.001), json!(0.004)));
        let rehearsed = super::study("rehearsal", &base, &[1, 2], 4, &done).unwrap();
        let [own] = &rehearsed.axes[0].variants[..] else { panic!("{rehearsed:?}") };
        assert_eq!((own.label.as_str(), &own.set["method.rehearsal"]), ("RiC with class tags, SFT rehearsed", &json!(0.5)));
        assert_eq!((own.set["method.ric.learning_rate"].clone(), &rehearsed.seeds[..]), (json!(0.001), &[1, 2][..]));
        let long = super::study("methods-long", &base, &[1, 2], 4, &done).unwrap();
        let budget = |study: &StudyConfig| (study.base.policy.passes.unwrap(), study.base.policy.iterations);
        assert_eq!(budget(&long), (10.0 * budget(&study).0, 10 * budget(&study).1));
        // Supervised methods read nothing else than SFT's answers.
        let labels: Vec<&str> = long.axes[0].variants.iter().map(|v| v.label.as_str()).collect();
        assert_eq!(labels, ["RiC with class tags"]);
        let tried = |label: &str| results_of(&[(label, [0.5; 4])]);
        let labels = |label: &str| {
            let done = [("methods-tuning".to_string(), tried(label))].into();
            let long = super::study("methods-long", &base, &[1], 4, &done).unwrap();
            let mix = |v: &Variant| (v.label.clone(), v.set.get("policy.sft_mix").cloned());
            long.axes[0].variants.iter().map(mix).collect::<Vec<_>>()
        };
        let mixed = |label: &str| (label.to_string(), Some(json!(0.5)));
        assert_eq!(labels("MORLHF · half the rate"), [("MORLHF".to_string(), None), mixed("MORLHF, SFT answers mixed in")]);
        assert_eq!(labels("MORLHF · SFT answers mixed in"), [mixed("MORLHF")]);
        let taught: Vec<String> = labels("MOSLIM · preference SFT").into_iter().map(|(label, _)| label).collect();
        let whole = "MOSLIM, SFT answers mixed in, short preference SFT";
        assert_eq!(taught, ["MOSLIM", "MOSLIM, SFT answers mixed in", whole]);
        let done = [("methods-tuning".to_string(), tried("MOSLIM · preference SFT"))].into();
        let [at_ten, at_hundred] = ["methods", "methods-long"].map(|id| super::study(id, &base, &[1], 4, &done).unwrap());
        let steps = |study: &StudyConfig, label: &str| {
            study.axes[0].variants.iter().find(|v| v.label == label).unwrap().set["method.preference_sft"].clone()
        };
        assert_eq!(steps(&at_hundred, whole), steps(&at_ten, "MOSLIM"));
        assert!(steps(&at_hundred, "MOSLIM").as_u64() > steps(&at_ten, "MOSLIM").as_u64());
    }

    #[test]
    fn a_study_waits_for_each_of_those_that_it_takes_from() {
        let base = crate::presets::find("world").unwrap().config;
        let whole = || results_of(&[("MOSLIM · preference SFT", [0.5; 4]), ("PPO · as shipped", [0.5; 4]), ("MOSLIM", [0.5; 4])]);
        let all: BTreeMap<String, StudyResults> = PROGRAMME.map(|id| (id.to_string(), whole())).into();
        for id in PROGRAMME {
            let planned = |done: &BTreeMap<String, StudyResults>| study(id, &base, &[1, 2], 4, done).is_some();
            let needed: Vec<&str> = PROGRAMME
                .into_iter()
                .filter(|b| {
                    let mut done = all.clone();
                    done.remove(*b);
                    !planned(&done)
                })
                .collect();
            assert!(planned(&all), "{id}");
            assert_eq!(needed, before(id), "{id}");
        }
    }

    #[test]
    fn a_policy_that_lost_its_language_is_taken_only_where_every_try_did() {
        let at = |id: &str| METRICS.iter().position(|m| m.id == id).unwrap();
        let with = |hits: f64, distinct: f64, fluency: f64| {
            let mut metrics = vec![Spread::default(); METRICS.len()];
            for (id, mean) in [("hit_rate", hits), ("unique", distinct), ("fluency", fluency), ("sft_fluency", 0.7)] {
                metrics[at(id)].mean = mean;
            }
            metrics
        };
        let group = |label: &str, metrics| StudyGroup { labels: vec![label.into()], metrics, ..Default::default() };
        let groups = vec![
            group("PPO · collapsed", with(0.9, 0.59, 0.9)),
            group("PPO · stammers", with(0.8, 0.9, 0.69)),
            group("PPO · speaks", with(0.5, 0.6, 0.7)),
            group("PPO · barely moved", with(0.3, 0.9, 0.9)),
            group("DAPO · stammers", with(0.4, 0.9, 0.1)),
            group("DAPO · stammers more", with(0.5, 0.9, 0.0)),
        ];
        let results = StudyResults { groups, ..Default::default() };
        let taken = |title, table| best(title, &results, table).unwrap();
        assert_eq!(taken("PPO", Table::SpokenControl), "PPO · speaks");
        assert_eq!(taken("PPO", Table::Control), "PPO · collapsed");
        assert_eq!(taken("DAPO", Table::SpokenControl), "DAPO · stammers more");
    }

    #[test]
    fn an_idea_changes_one_thing_on_questions_and_seeds_of_its_own() {
        let base = crate::presets::find("world").unwrap().config;
        assert!(study("ideas", &base, &[1, 2, 3], 4, &BTreeMap::new()).is_none(), "it waits for the tuning");
        let done = [("methods-tuning".to_string(), results_of(&[("MOSLIM · preference SFT", [0.5; 4])]))].into();
        let ideas = study("ideas", &base, &[1, 2, 3], 4, &done).unwrap();
        assert_eq!((ideas.base.evaluation.split, ideas.seeds.clone()), (EvaluationSplit::Validation, vec![4]));
        let variants = &ideas.axes[0].variants;
        let own = &variants[0].set;
        assert_eq!(own["method.preference_sft"], json!(affordable(&budgeted(base.clone()))));
        for variant in &variants[1..] {
            let kept = own.iter().filter(|(field, value)| variant.set.get(*field) == Some(value)).count();
            assert!(kept + 1 >= own.len() && variant.set != *own || variant.label.starts_with("GRPO"), "{}", variant.label);
        }
        let more = &variants.iter().find(|v| v.label.starts_with("half the rate")).unwrap().set;
        let of = |field: &str| more[field].as_f64().unwrap();
        assert_eq!(of("policy.learning_rate"), own["policy.learning_rate"].as_f64().unwrap() / 2.0);
        let batch = of("policy.prompts") * of("policy.samples_per_prompt");
        assert_eq!(batch as usize, base.policy.prompts * base.policy.samples_per_prompt);

        // Those that led are tried again, beside what they change, with other seeds.
        assert!(study("ideas-again", &base, &[1, 2, 3], 4, &done).is_none(), "it waits for the ideas");
        let figures = |n: usize| [n as f64 % 5.0, 0.0, 9.0 - n as f64, 0.0];
        let once: Vec<(&str, [f64; 4])> = variants.iter().enumerate().map(|(n, v)| (v.label.as_str(), figures(n))).collect();
        let done = done.into_iter().chain([("ideas".to_string(), results_of(&once))]).collect();
        let again = study("ideas-again", &base, &[1, 2, 3], 4, &done).unwrap();
        let labels: Vec<&str> = again.axes[0].variants.iter().map(|v| v.label.as_str()).collect();
        assert_eq!(labels, [0, 4, 9, 14].map(|n| variants[n].label.as_str()));
        assert_eq!((again.seeds, again.base), (vec![5, 6], ideas.base.clone()));
    }

    #[test]
    fn everybody_gets_as_many_tries_on_validation_questions() {
        let base = crate::presets::find("quick").unwrap().config;
        for (id, names, tries) in [
            ("methods-tuning", [&Method::ALL.map(Method::title)[..], &[MOC]].concat(), 8),
            ("optimisers-tuning", PolicyOptimizer::ALL.map(PolicyOptimizer::title).to_vec(), 9),
        ] {
            let study = study(id, &base, &[1], 4, &BTreeMap::new()).unwrap();
            assert_eq!((study.base.evaluation.split, study.seeds.as_slice()), (EvaluationSplit::Validation, &[4][..]));
            for name in names {
                let own = study.axes[0].variants.iter().filter(|v| v.label.split(APART).next() == Some(name)).count();
                assert!(own == tries || own == 0 && ["SFT with tags", "Best of n"].contains(&name), "{name}: {own}");
            }
        }
        assert!(study("methods", &base, &[1], 4, &BTreeMap::new()).is_none(), "it waits for the tuning");
    }
}
