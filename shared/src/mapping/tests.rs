//! Vectors of the mapping.

use super::*;

fn close(a: f64, b: f64) {
    assert!((a - b).abs() < 1e-5, "{a} is not {b}");
}

fn vector() -> (RewardStatistics, Vec<Vec<f64>>, Preference) {
    let statistics = RewardStatistics {
        mean: vec![vec![0.0, 0.40], vec![0.35, 0.0], vec![0.70, 0.0]],
        std: vec![vec![1.0, 0.20], vec![0.15, 1.0], vec![0.10, 1.0]],
        ..Default::default()
    };
    let distributions = vec![vec![0.38, 0.62], vec![0.25, 0.75], vec![0.90, 0.10]];
    (statistics, distributions, Preference(vec![Some(1), Some(0), None]))
}

#[test]
fn statistics_follow_what_samples_get() {
    let mut statistics = RewardStatistics { mean: vec![vec![0.5, 0.5]], std: vec![vec![0.1, 0.1]], ..Default::default() };
    let samples = [(vec![vec![0.2, 0.8]], Preference(vec![Some(1)])), (vec![vec![0.4, 0.6]], Preference(vec![Some(1)]))];
    let config = MappingConfig::default();
    statistics.observe(&config, samples.iter().map(|(d, p)| (d.as_slice(), p)), 0.25);
    // A quarter of the way to 0.7; squares about the old mean: (0.09 + 0.01) / 2.
    close(statistics.mean[0][1], 0.55);
    close(statistics.std[0][1], (0.75_f64 * 0.01 + 0.25 * 0.05).sqrt());
    assert_eq!((statistics.mean[0][0], statistics.std[0][0]), (0.5, 0.1), "nobody asked for it");
}

#[test]
fn the_mapping_matches_the_vectors() {
    let (statistics, distributions, preference) = vector();
    let mut config = MappingConfig { divisor: Divisor::Objectives, ..Default::default() };
    let reward = map_reward(&config, &statistics, &distributions, &preference);
    close(reward.contributions[0] * 3.0, 1.1);
    close(reward.contributions[1] * 3.0, -0.666667);
    assert_eq!(reward.contributions[2], 0.0);
    close(reward.scalar, 0.144444);
    config.divisor = Divisor::Active;
    close(map_reward(&config, &statistics, &distributions, &preference).scalar, 0.216667);
}

#[test]
fn a_smooth_minimum_lies_between_the_least_and_the_mean() {
    let (statistics, distributions, preference) = vector();
    let with = |smoothing: f64, weights: &[f64]| {
        let config = MappingConfig { tchebycheff: Some(smoothing), weights: weights.to_vec(), ..Default::default() };
        map_reward(&config, &statistics, &distributions, &preference)
    };
    // Of 1.1 and -0.666667: -0.5 ln((exp(-2.2) + exp(1.333333)) / 2), of which the second has exp(1.333333) / 3.904471.
    let reward = with(0.5, &[]);
    close(reward.scalar, -0.334488);
    // By which that is less than their mean, 0.216667, they bear in these shares.
    close(reward.contributions[0], 1.1 / 2.0 - 0.028379 * 0.551155);
    close(reward.contributions[1], -0.666667 / 2.0 - 0.971621 * 0.551155);
    close(reward.contributions.iter().sum(), reward.scalar);
    assert_eq!(reward.contributions[2], 0.0, "nobody asked for it");
    // The more, the nearer to the mean; the less, the nearer to the least.
    close(with(1e6, &[]).scalar, 0.216667);
    close(with(1e-9, &[]).scalar, -0.666667);
    // Half of 1.1 and twice -0.666667; the second alone, and half of it, as the sum has it that is divided by two objectives.
    close(with(0.5, &[0.5, 2.0, 1.0]).scalar, -0.5 * (((-1.1f64).exp() + (8.0f64 / 3.0).exp()) / 2.0).ln());
    close(with(0.5, &[0.0, 1.0, 1.0]).scalar, -0.333333);
    // As large as a sum: of three objectives, two of which are asked for.
    let printed = MappingConfig { tchebycheff: Some(0.5), divisor: Divisor::Objectives, ..Default::default() };
    close(map_reward(&printed, &statistics, &distributions, &preference).scalar, -0.334488 * 2.0 / 3.0);
    let nothing = Preference(vec![None; 3]);
    assert_eq!(map_reward(&printed, &statistics, &distributions, &nothing).scalar, 0.0);
}

#[test]
fn permuting_objectives_permutes_contributions() {
    let (statistics, distributions, preference) = vector();
    let config = MappingConfig::default();
    let before = map_reward(&config, &statistics, &distributions, &preference);
    let order = [2usize, 0, 1];
    let pick = |rows: &[Vec<f64>]| order.iter().map(|&i| rows[i].clone()).collect::<Vec<_>>();
    let after = map_reward(
        &config,
        &RewardStatistics { mean: pick(&statistics.mean), std: pick(&statistics.std), ..Default::default() },
        &pick(&distributions),
        &Preference(order.iter().map(|&i| preference.0[i]).collect()),
    );
    close(before.scalar, after.scalar);
    for (j, &i) in order.iter().enumerate() {
        close(after.contributions[j], before.contributions[i]);
    }
}

#[test]
fn guards_hold() {
    let statistics = RewardStatistics { mean: vec![vec![0.0, 0.0]], std: vec![vec![0.0, 0.0]], ..Default::default() };
    let config = MappingConfig::default();
    let reward = map_reward(&config, &statistics, &[vec![0.0, 1.0]], &Preference(vec![Some(1)]));
    assert_eq!(reward.scalar, 5.0, "the z-score is clipped and a zero deviation is floored");
    let nothing = map_reward(&config, &statistics, &[vec![0.0, 1.0]], &Preference(vec![None]));
    assert_eq!(nothing.scalar, 0.0);
}

#[test]
fn weights_take_the_place_of_masks() {
    let (statistics, distributions, preference) = vector();
    let config = MappingConfig { weights: vec![2.0, 0.0, 1.0], ..Default::default() };
    let reward = map_reward(&config, &statistics, &distributions, &preference);
    close(reward.scalar, 2.0 * 1.1 / 2.0);
}

#[test]
fn a_group_is_standardised_by_itself() {
    let config = MappingConfig { pooling: Pooling::Group, std_floor: 0.0, ..Default::default() };
    let group = vec![vec![vec![0.2, 0.8]], vec![vec![0.6, 0.4]]];
    let rewards = map_group(&config, &RewardStatistics::default(), &group, &Preference(vec![Some(0)]));
    close(rewards[0].scalar, -1.0);
    close(rewards[1].scalar, 1.0);
}

#[test]
fn running_statistics_move_towards_what_is_seen() {
    let config = MappingConfig { pooling: Pooling::Running, ..Default::default() };
    let mut statistics = RewardStatistics { mean: vec![vec![0.5, 0.5]], std: vec![vec![0.1, 0.1]], ..Default::default() };
    let (distributions, preference) = (vec![vec![0.9, 0.1]], Preference(vec![Some(0)]));
    for _ in 0..200 {
        statistics.observe(&config, [(distributions.as_slice(), &preference)].into_iter(), 0.1);
    }
    close(statistics.mean[0][0], 0.9);
    assert!(statistics.std[0][0] < 0.01);
    assert_eq!((statistics.mean[0][1], statistics.std[0][1]), (0.5, 0.1), "nobody asked for class 1");
}

#[test]
fn weighted_sums_know_which_way_is_better() {
    let rows = vec![vec![vec![1.0, 0.0], vec![1.0, 0.0]], vec![vec![0.0, 1.0], vec![0.0, 1.0]]];
    let config = MappingConfig::default();
    let statistics = RewardStatistics::over(&config, &rows);
    let reward = map_weighted(&config, &statistics, &rows[1], &[0.75, 0.25], &[true, false]);
    close(reward.contributions[0], 0.75);
    close(reward.contributions[1], -0.25);
    close(reward.scalar, 0.5);
}

#[test]
fn a_smooth_minimum_takes_the_place_of_a_weighted_sum() {
    let statistics =
        RewardStatistics { expected_mean: vec![1.0, 0.5, 0.5], expected_std: vec![0.5, 0.25, 0.5], ..Default::default() };
    // A deviation better, one worse (less is better), and one better that nobody weighs.
    let answer = [vec![0.0, 0.5, 0.5], vec![0.25, 0.75], vec![0.0, 1.0]];
    let with = |tchebycheff: Option<f64>, weights: [f64; 3]| {
        let config = MappingConfig { tchebycheff, ..Default::default() };
        map_weighted(&config, &statistics, &answer, &weights, &[true, false, true])
    };
    let uneven = [0.6, 0.4, 0.0];
    close(with(None, uneven).scalar, 0.2);
    // The best classes are 2, 2 and 1 deviations above the mean: weighed, the answer is 0.6 and 1.2 from them, and twice that counts.
    // 0.6 * 2 + 0.4 * 2 - 0.5 ln((exp(2.4) + exp(4.8)) / 2), of which the second has 0.916827.
    let reward = with(Some(0.5), uneven);
    close(reward.scalar, -0.096844486);
    close(reward.contributions[0], 0.575310644);
    close(reward.contributions[1], -0.672155129);
    close(reward.contributions.iter().sum(), reward.scalar);
    assert_eq!(reward.contributions[2], 0.0, "it weighs nothing");
    // The more, the nearer to the sum; the less, the nearer to what is furthest from its best: 2 - 2 * 1.2.
    close(with(Some(1e6), uneven).scalar, 0.2);
    close(with(Some(1e-9), uneven).scalar, -0.4);
    let even = with(Some(0.5), [1.0 / 3.0; 3]);
    close(even.scalar, -0.794317758);
    close(even.contributions[2], 0.330595106);
    // One objective alone: its z-score.
    close(with(Some(0.5), [0.0, 1.0, 0.0]).scalar, -1.0);
    assert_eq!(with(Some(0.5), [0.0; 3]).scalar, 0.0);
}

#[test]
fn every_function_prefers_the_class_asked_for() {
    let on = [0.05, 0.05, 0.8, 0.1];
    let off = [0.8, 0.1, 0.05, 0.05];
    use MappingFunction::*;
    for f in [Moslim, Log, Expected, RankedProbability, Argmax] {
        assert!(f.value(&on, 2) > f.value(&off, 2), "{f:?}");
    }
    close(-RankedProbability.value(&[0.1, 0.2, 0.4, 0.2, 0.1], 3), 0.15);
}

#[test]
fn functions_match_the_vectors() {
    use MappingFunction::*;
    let p = [0.1, 0.2, 0.3, 0.4];
    close(Moslim.value(&p, 1), 0.2);
    close(Log.value(&p, 1), 0.2f64.ln());
    // A probability of 0 has a logarithm all the same.
    assert!(Log.value(&[0.0, 1.0], 0).is_finite());
    // E = 2, one class from 1 and two from 0, of three.
    close(Expected.value(&p, 1), -1.0 / 3.0);
    close(Expected.value(&p, 0), -2.0 / 3.0);
    close(RankedProbability.value(&[0.1, 0.2, 0.4, 0.2, 0.1], 0), -0.35);
    close(RankedProbability.value(&[0.1, 0.2, 0.4, 0.2, 0.1], 4), -0.35);
    assert_eq!((Argmax.value(&p, 3), Argmax.value(&p, 2)), (1.0, 0.0));
}

#[test]
fn running_statistics_move_by_their_rate() {
    let config = MappingConfig { pooling: Pooling::Running, ..Default::default() };
    let mut statistics = RewardStatistics { mean: vec![vec![0.5, 0.5]], std: vec![vec![0.1, 0.1]], ..Default::default() };
    let (distributions, preference) = (vec![vec![0.9, 0.1]], Preference(vec![Some(0)]));
    statistics.observe(&config, [(distributions.as_slice(), &preference)].into_iter(), 0.1);
    close(statistics.mean[0][0], 0.54);
    close(statistics.std[0][0], 0.025f64.sqrt());
}

#[test]
fn heads_of_different_size_are_pooled_by_themselves() {
    let rows = vec![
        vec![vec![0.2, 0.8], vec![0.1, 0.2, 0.7]],
        vec![vec![0.6, 0.4], vec![0.5, 0.2, 0.3]],
        vec![vec![0.7, 0.3], vec![0.3, 0.6, 0.1]],
    ];
    let plain = RewardStatistics::over(&MappingConfig::default(), &rows);
    let pooled = RewardStatistics::over(&MappingConfig { pooling: Pooling::Head, ..Default::default() }, &rows);
    assert_eq!(plain.mean, pooled.mean);
    for head in 0..2 {
        let squares: f64 = plain.std[head].iter().map(|s| s * s).sum();
        let want = (squares / plain.std[head].len() as f64).sqrt();
        assert!(pooled.std[head].iter().all(|s| (s - want).abs() < 1e-12));
    }
    // Means of E[c]: 0.5 of 0.8, 0.4, 0.3, and 1.6, 0.8, 0.8.
    close(plain.expected_mean[0], 0.5);
    close(plain.expected_mean[1], 3.2 / 3.0);
    close(plain.expected_std[1], (2.0 * 0.8f64 * 0.8 / 9.0).sqrt());
}

#[test]
fn statistics_are_those_of_the_reference_answers() {
    let rows = vec![vec![vec![0.2, 0.8]], vec![vec![0.6, 0.4]]];
    let statistics = RewardStatistics::over(&MappingConfig::default(), &rows);
    close(statistics.mean[0][0], 0.4);
    close(statistics.mean[0][1], 0.6);
    close(statistics.std[0][0], 0.2);
    let pooled = RewardStatistics::over(&MappingConfig { pooling: Pooling::Head, ..Default::default() }, &rows);
    close(pooled.std[0][1], 0.2);
}

/// Of what the heads expect of an answer that has only begun: the mean of what it may become.
#[test]
fn a_beginning_is_worth_the_mean_of_what_it_may_become() {
    let certain = |a: usize, b: usize| vec![one_hot(3, a), one_hot(2, b)];
    let mixed = vec![vec![0.25, 0.0, 0.75], vec![0.5, 0.5]];
    let wish = Preference(vec![Some(0), Some(1)]);
    let functions = [MappingFunction::Moslim, MappingFunction::Expected, MappingFunction::RankedProbability];
    // The logarithm of a class that is out of the question lies beyond the clip.
    for function in functions.into_iter().chain([MappingFunction::Log]) {
        let config = MappingConfig { function, weights: vec![2.0, 1.0], ..Default::default() };
        let statistics = RewardStatistics {
            mean: vec![vec![0.3, 0.1, 0.2], vec![0.4, -0.2]],
            std: vec![vec![0.5; 3], vec![0.25; 2]],
            ..Default::default()
        };
        let reward = |d: &[Vec<f64>]| map_reward(&config, &statistics, d, &wish).scalar;
        let want: f64 = [(0, 0.25), (2, 0.75)].iter().flat_map(|&(a, p)| [0, 1].map(|b| p * 0.5 * reward(&certain(a, b)))).sum();
        close(expected_reward(&config, &statistics, &mixed, &wish), want);
    }
}

fn one_hot(classes: usize, class: usize) -> Vec<f64> {
    (0..classes).map(|c| f64::from(u8::from(c == class))).collect()
}
