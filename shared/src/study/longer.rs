//! The methods at ten times the budget: once with everything that was taken at one, then what led once more, with other seeds.

use super::choice::{Table, chosen};
use super::method_tries::{SFT_MIX, method_tries};
use super::plan::{Axis, StudyConfig, Variant};
use super::results::{StudyGroup, StudyResults};
use super::shipped;
use crate::config::RunConfig;
use crate::method::Method;
use serde_json::{Value, json};

/// Who is ahead at ten times the budget.
pub const ID: &str = "methods-long";
/// Who still is, with other seeds.
pub const AGAIN: &str = "methods-long-again";

/// By how much the budget is larger.
const LONGER: usize = 10;
const RIVALS: [Method; 4] = [Method::Moslim, Method::Morlhf, Method::RewardedSoups, Method::RicClass];
const TABLES: [Table; 2] = [Table::Fronts, Table::Control];

/// Every rival as `tuning` found it best for fronts and for control, and kept from forgetting what SFT knew, with the first of `seeds`.
pub fn study(base: RunConfig, seeds: &[u64], tuning: &StudyResults) -> Option<StudyConfig> {
    let (base, rivals) = planned(base, tuning);
    let question = "Who is ahead at ten times the budget?";
    Some(compared(ID, question, base, rivals.into_iter().flatten(), seeds.get(..1)?))
}

/// Of every rival what led in `once`, in fronts and in control, with all of `seeds` but the first, which `once` was done with; `None`
/// where there is no other.
pub fn again(base: RunConfig, seeds: &[u64], tuning: &StudyResults, once: &StudyResults) -> Option<StudyConfig> {
    let (base, rivals) = planned(base, tuning);
    let seeds = seeds.get(1..).filter(|rest| !rest.is_empty())?;
    let question = "Who of those that led at ten times the budget leads with other seeds?";
    Some(compared(AGAIN, question, base, rivals.into_iter().flat_map(|own| leading(own, once)), seeds))
}

fn compared(id: &str, question: &str, base: RunConfig, variants: impl Iterator<Item = Variant>, seeds: &[u64]) -> StudyConfig {
    let axes = vec![Axis { name: "method".into(), variants: variants.collect() }];
    StudyConfig { name: id.into(), question: question.into(), base, axes, seeds: seeds.to_vec() }
}

/// The base with the larger budget, and what each of [`RIVALS`] is tried with.
fn planned(mut base: RunConfig, tuning: &StudyResults) -> (RunConfig, Vec<Vec<Variant>>) {
    let short = shipped::affordable(&base);
    base.policy.passes = base.policy.passes.map(|passes| passes * LONGER as f64);
    base.policy.iterations *= LONGER;
    let tries = method_tries(&base);
    let rival = |m: &Method| {
        let chosen = chosen(m.title(), &tries, tuning, &TABLES);
        if m.optimises() { chosen.into_iter().flat_map(|v| kept_from_forgetting(v, short)).collect() } else { chosen }
    };
    let rivals = RIVALS.iter().map(rival).collect();
    (base, rivals)
}

/// A rival's variants with the highest sum of each table's figures in `once`, each one once.
fn leading(own: Vec<Variant>, once: &StudyResults) -> Vec<Variant> {
    let group = |v: &Variant| once.groups.iter().find(|g: &&StudyGroup| g.labels.first() == Some(&v.label));
    let best = |table: Table| {
        let sums = own.iter().enumerate().filter_map(|(at, v)| Some((table.sum(group(v)?), at)));
        sums.reduce(|most, next| if next.0 > most.0 { next } else { most }).map(|(_, at)| at)
    };
    let taken: Vec<usize> = TABLES.into_iter().filter_map(best).collect();
    own.iter().enumerate().filter(|(at, _)| taken.contains(at)).map(|(_, v)| v.clone()).collect()
}

/// A setting, and the same with SFT's answers in every update, where it has none; where it begins with preference SFT, which grows with
/// the budget, also with `short` steps of it. Validation questions are about topics that training knew, so tries on them cannot tell
/// what a long run forgets of others: here everybody who is optimised gets all that applies to them.
fn kept_from_forgetting(taken: Variant, short: usize) -> Vec<Variant> {
    let with = |to: &Variant, said: &str, field: &str, value: Value| {
        let mut new = to.clone();
        new.label.push_str(said);
        let before = new.set.insert(field.into(), value);
        (new, before)
    };
    let (mixed, before) = with(&taken, ", SFT answers mixed in", "policy.sft_mix", json!(SFT_MIX));
    let (less, long) = with(&mixed, ", short preference SFT", "method.preference_sft", json!(short));
    let own = before.is_none().then_some(mixed);
    let less = long.is_some().then_some(less);
    std::iter::once(taken).chain(own).chain(less).collect()
}

#[cfg(test)]
mod tests {
    use super::super::results::{METRICS, Spread};
    use super::*;

    fn results(of: &[(&str, f64, f64)]) -> StudyResults {
        let group = |(label, fronts, control): &(&str, f64, f64)| {
            let mut metrics = vec![Spread::default(); METRICS.len()];
            for (at, metric) in METRICS.iter().enumerate() {
                metrics[at].mean = match metric.id {
                    "hypervolume" => *fronts,
                    "hit_rate" => *control,
                    _ => 0.0,
                };
            }
            StudyGroup { labels: vec![label.to_string()], metrics, ..Default::default() }
        };
        StudyResults { groups: of.iter().map(group).collect(), ..Default::default() }
    }

    #[test]
    fn what_led_at_ten_times_the_budget_is_compared_again_with_other_seeds() {
        let base = crate::presets::find("world").unwrap().config;
        let tuning = results(&[("MOSLIM · preference SFT", 0.5, 0.5), ("MORLHF · as shipped", 0.5, 0.5)]);
        let all = study(base.clone(), &[1, 2, 3], &tuning).unwrap();
        let once = results(&[
            ("MOSLIM", 0.2, 0.9),
            ("MOSLIM, SFT answers mixed in", 0.3, 0.2),
            ("MOSLIM, SFT answers mixed in, short preference SFT", 0.1, 0.3),
            ("MORLHF", 0.1, 0.1),
            ("MORLHF, SFT answers mixed in", 0.4, 0.2),
        ]);
        assert_eq!(all.seeds, [1]);
        let led = again(base.clone(), &[1, 2, 3], &tuning, &once).unwrap();
        let labels = |s: &StudyConfig| s.axes[0].variants.iter().map(|v| v.label.clone()).collect::<Vec<_>>();
        assert_eq!(labels(&led), ["MOSLIM", "MOSLIM, SFT answers mixed in", "MORLHF, SFT answers mixed in"]);
        assert_eq!((&led.seeds[..], &led.base), (&[2, 3][..], &all.base));
        for variant in &led.axes[0].variants {
            assert!(all.axes[0].variants.contains(variant), "{variant:?}");
        }
        assert!(again(base, &[1], &tuning, &once).is_none(), "its one seed is the first study's");
    }
}
