//! What other mappings would have paid for the answers of a run. Nothing here was trained on: it is arithmetic over answers that were
//! kept, and says so wherever it is shown.

use super::run::RunState;
use moslim_shared::mapping::{MappingConfig, MappingFunction, Pooling, RewardStatistics, map_reward};

/// Answers that mean and deviation are taken over: the first ones, before much was learnt.
const REFERENCE: usize = 64;

/// One mapping over the answers of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct WhatIf {
    pub function: MappingFunction,
    /// Whether the policy was optimised on it.
    pub own: bool,
    /// (step, mean scalar of its answers, in deviations of the first ones).
    pub curve: Vec<(f64, f64)>,
    /// Of two answers of one iteration that both mappings tell apart: the share in which both pay more for the same one.
    pub same_order: Option<f64>,
}

/// All functions over the answers that are kept; nothing where no prompt asks, or nothing is kept yet.
pub fn what_if(state: &RunState, functions: &[MappingFunction]) -> Vec<WhatIf> {
    let Some(config) = state.config.as_ref().filter(|_| state.asks() && !state.past.is_empty()) else { return Vec::new() };
    let own = config.mapping.function;
    let first: Vec<Vec<Vec<f64>>> =
        state.past.iter().flat_map(|(_, samples)| samples).take(REFERENCE).map(|s| s.distributions.clone()).collect();
    let scores = |function: MappingFunction| -> Vec<Vec<f64>> {
        // Statistics that follow the policy, or one prompt's samples, cannot be made again from the few answers that are kept.
        let pooling = if config.mapping.pooling == Pooling::Head { Pooling::Head } else { Pooling::Class };
        let mapping = MappingConfig { function, pooling, ..config.mapping.clone() };
        let statistics = RewardStatistics::over(&mapping, &first);
        let score = |s: &moslim_shared::event::Sample| map_reward(&mapping, &statistics, &s.distributions, &s.preference).scalar;
        state.past.iter().map(|(_, samples)| samples.iter().map(score).collect()).collect()
    };
    let paid = scores(own);
    functions
        .iter()
        .map(|&function| {
            let other = if function == own { paid.clone() } else { scores(function) };
            let steps = state.past.iter().map(|(step, _)| *step as f64);
            let mean = |values: &Vec<f64>| (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64);
            let curve = steps.zip(&other).filter_map(|(step, values)| Some((step, mean(values)?))).collect();
            WhatIf { function, own: function == own, curve, same_order: same_order(&paid, &other) }
        })
        .collect()
}

/// The share of pairs within each list that both order alike; pairs that one of them ties say nothing.
fn same_order(a: &[Vec<f64>], b: &[Vec<f64>]) -> Option<f64> {
    let (mut alike, mut all) = (0, 0);
    for (a, b) in a.iter().zip(b) {
        for i in 0..a.len() {
            for j in 0..i {
                let (x, y) = (a[i] - a[j], b[i] - b[j]);
                if x != 0.0 && y != 0.0 {
                    all += 1;
                    alike += usize::from((x > 0.0) == (y > 0.0));
                }
            }
        }
    }
    (all > 0).then(|| f64::from(alike as u32) / f64::from(all as u32))
}

#[cfg(test)]
mod tests {
    use super::*;
    use moslim_shared::config::RunConfig;
    use moslim_shared::event::{Event, EventBody, Sample};
    use moslim_shared::preference::Preference;

    fn sample(p: [f64; 3], asked: usize) -> Sample {
        Sample {
            preference: Preference(vec![Some(asked)]),
            distributions: vec![p.to_vec()],
            contributions: vec![0.0],
            ..Default::default()
        }
    }

    #[test]
    fn another_mapping_sees_the_same_answers_and_may_order_them_otherwise() {
        let mut state = RunState::default();
        let functions = [MappingFunction::Moslim, MappingFunction::RankedProbability];
        assert!(what_if(&state, &functions).is_empty());
        let mut config = RunConfig::default();
        config.mapping.function = MappingFunction::Moslim;
        state.config = Some(config);
        assert!(what_if(&state, &functions).is_empty(), "no answers yet");
        // p[2] prefers the first, the ranked probability score the second: most of its mass lies beside the class asked for.
        let step = |step, samples: Vec<Sample>| EventBody::Samples { part: None, step, samples };
        let far_and_near = vec![sample([0.7, 0.0, 0.3], 2), sample([0.0, 0.8, 0.2], 2)];
        let better = vec![sample([0.0, 0.1, 0.9], 2), sample([0.0, 0.2, 0.8], 2)];
        for (seq, body) in (1..).zip([step(1, far_and_near), step(5, better)]) {
            state.apply(Event { seq, time: 0, body });
        }
        let found = what_if(&state, &functions);
        assert_eq!(found.iter().map(|w| w.own).collect::<Vec<_>>(), [true, false]);
        assert_eq!((found[0].same_order, found[1].same_order), (Some(1.0), Some(0.5)));
        // By hand: p[2] is .3 .2 .9 .8, of mean .55 and deviation .3041; the first step has (.25 - .55) / .3041.
        let [(1.0, before), (5.0, after)] = found[0].curve[..] else { panic!("{:?}", found[0].curve) };
        assert!((before + 0.9864).abs() < 1e-3 && (after - 0.9864).abs() < 1e-3, "{before} {after}");
        assert!(found[1].curve[0].1 < found[1].curve[1].1);
    }

    #[test]
    fn ties_say_nothing_of_an_order() {
        assert_eq!(same_order(&[vec![1.0, 1.0]], &[vec![1.0, 2.0]]), None);
        assert_eq!(same_order(&[vec![1.0, 2.0, 3.0]], &[vec![1.0, 3.0, 3.0]]), Some(1.0));
    }
}
