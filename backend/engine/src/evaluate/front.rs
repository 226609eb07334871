//! What a method reaches over its trade-offs: one point for each offer, by the grader, their hypervolume, and what users with
//! given weights get of them.

use super::answer::{Answering, Ask, Route};
use super::figures::by_topic;
use super::grader::Grading;
use super::menu::Menu;
use super::questions::spread;
use crate::model::generate::{Answer, Sampling};
use crate::model::kernels::Kernels;
use anyhow::Result;
use moslim_shared::metrics::middle;
use moslim_shared::pareto::hypervolume;
use moslim_shared::summary::{ChosenFront, FrontPart, FrontPoint, FrontReport, Served, expected_utility};
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::collections::BTreeMap;

/// Resamples of the bootstrap.
const RESAMPLES: usize = 400;

/// What an offer reaches on held-out questions.
struct Measured {
    /// Utilities, `[question][steered objective]`.
    rows: Vec<Vec<f64>>,
    fluency: f64,
}

impl Measured {
    /// Mean utility over questions, which may repeat.
    fn mean(&self, questions: &[usize]) -> Vec<f64> {
        let width = self.rows.first().map_or(0, Vec::len);
        let n = questions.len().max(1) as f64;
        (0..width).map(|i| questions.iter().map(|&q| self.rows[q][i]).sum::<f64>() / n).collect()
    }
}

/// Positions of offers in a menu.
struct Choice {
    /// Those that together reach furthest, as many as there are trade-offs at most.
    kept: Vec<usize>,
    /// Of them, the best for each trade-off.
    served: Vec<usize>,
    /// Of the whole menu, the best for each trade-off.
    best: Vec<usize>,
}

impl Choice {
    fn of(menu: &Menu, steered: &[usize], trade_offs: &[Vec<f64>]) -> Self {
        let all: Vec<usize> = (0..menu.offers.len()).collect();
        let best: Vec<usize> = trade_offs.iter().map(|w| menu.best(&all, w)).collect();
        let mut kept = menu.widest(steered, trade_offs.len());
        // Where nothing reaches anything in every objective, the best for each trade-off is all there is.
        if kept.is_empty() {
            kept.clone_from(&best);
            kept.sort_unstable();
            kept.dedup();
        }
        let served = trade_offs.iter().map(|w| menu.best(&kept, w)).collect();
        Self { kept, served, best }
    }
}

/// What the chosen offers reached, from which the figures of any questions follow.
struct Reached<'a> {
    choice: &'a Choice,
    /// Every chosen offer of the menu.
    measured: &'a BTreeMap<usize, Measured>,
    steered: &'a [usize],
    trade_offs: &'a [Vec<f64>],
}

impl Reached<'_> {
    /// Hypervolume and expected utility of what is kept, then of the best for each trade-off, on `questions`, which may repeat.
    fn figures(&self, questions: &[usize]) -> [f64; 4] {
        let Choice { kept, served, best } = self.choice;
        [
            self.volume(kept, questions),
            self.utility(served, questions),
            self.volume(best, questions),
            self.utility(best, questions),
        ]
    }

    fn volume(&self, offers: &[usize], questions: &[usize]) -> f64 {
        // The worst class everywhere. A method that reaches nothing better than the worst class in one objective gains nothing.
        let reference = vec![0.0; self.steered.len()];
        hypervolume(&offers.iter().map(|o| self.measured[o].mean(questions)).collect::<Vec<_>>(), &reference)
    }

    fn utility(&self, serving: &[usize], questions: &[usize]) -> f64 {
        let reached: Vec<Vec<f64>> = serving.iter().map(|o| self.measured[o].mean(questions)).collect();
        let pairs: Vec<(&[f64], &[f64])> =
            self.trade_offs.iter().map(Vec::as_slice).zip(reached.iter().map(Vec::as_slice)).collect();
        expected_utility(&pairs, self.steered)
    }

    /// The 95 % interval of each figure. `topics`: of every question.
    fn intervals(&self, topics: &[usize], rng: &mut StdRng) -> [[f64; 2]; 4] {
        let mut draws = [const { Vec::new() }; 4];
        for resample in by_topic(topics, RESAMPLES, rng) {
            draws.iter_mut().zip(self.figures(&resample)).for_each(|(all, v)| all.push(v));
        }
        draws.map(|d| if d.is_empty() { [0.0; 2] } else { middle(d) })
    }

    /// The figures on the questions of each of `parts`. `of`: the part of every question.
    fn parts(&self, of: &[usize], parts: &[String]) -> Vec<FrontPart> {
        let figures = |(n, part): (usize, &String)| {
            let own: Vec<usize> = (0..of.len()).filter(|&q| of[q] == n).collect();
            let [hypervolume, expected_utility, ..] = self.figures(&own);
            FrontPart { part: part.clone(), n: own.len(), hypervolume, expected_utility }
        };
        parts.iter().enumerate().map(figures).filter(|part| part.n > 0).collect()
    }
}

/// Asks `questions` held-out questions for every offer of `menu` that is kept: for the hypervolume, as many as there are trade-offs,
/// and the best for each trade-off. The questions are the same for each and for every method. `parts`: names of the parts of the
/// split; `steered`: the objectives that count.
///
/// # Errors
/// When the tokenizer fails, or `each`, which is told the number of answers to every offer, stops it.
pub fn front<B: Kernels>(
    (x, grading, parts): (&Answering<B>, &Grading<B>, &[String]),
    menu: &Menu,
    (steered, trade_offs): (&[usize], &[Vec<f64>]),
    questions: usize,
    sampling: &Sampling,
    task_seed: u64,
    mut each: impl FnMut(usize) -> Result<()>,
) -> Result<FrontReport> {
    let mut rng = StdRng::seed_from_u64(task_seed ^ 0xF207);
    let asked = spread(x.questions, questions, &mut rng);
    let choice = Choice::of(menu, steered, trade_offs);
    let mut measured: BTreeMap<usize, Measured> = BTreeMap::new();
    for &offer in choice.kept.iter().chain(&choice.best) {
        if measured.contains_key(&offer) {
            continue;
        }
        let asks: Vec<(usize, Ask)> = asked.iter().map(|&q| (q, menu.offers[offer].clone())).collect();
        let own = Sampling { seed: sampling.seed ^ ((offer as u64 + 1) << 40), ..sampling.clone() };
        let answers = x.answer(&asks, &own)?;
        let pairs: Vec<(usize, &Answer)> = asked.iter().copied().zip(&answers).collect();
        let mut fluent = 0usize;
        let mut rows = Vec::with_capacity(asked.len());
        for (grades, _) in grading.grade(x, &pairs)? {
            fluent += usize::from(grades.fluent);
            rows.push(steered.iter().map(|&i| x.objectives[i].utility(grades.classes[i] as f64)).collect::<Vec<f64>>());
        }
        measured.insert(offer, Measured { rows, fluency: fluent as f64 / asked.len().max(1) as f64 });
        each(asked.len())?;
    }
    let topics: Vec<usize> = asked.iter().map(|&q| x.questions[q].topic).collect();
    let every: Vec<usize> = (0..asked.len()).collect();
    let reached = Reached { choice: &choice, measured: &measured, steered, trade_offs };
    let (values, intervals) = (reached.figures(&every), reached.intervals(&topics, &mut rng));
    let of: Vec<usize> = asked.iter().map(|&q| x.questions[q].part).collect();
    let point = |offer: usize, weights: Option<&Vec<f64>>| {
        let ask = &menu.offers[offer];
        let own = || ask.offer.and_then(|n| x.offered_weights(n)).cloned().or_else(|| ask.weighed());
        let classes = matches!(x.route, Route::Tags | Route::Scores { .. }) && ask.weights.is_none();
        FrontPoint {
            weights: weights.cloned().or_else(own).unwrap_or_default(),
            asked: classes.then(|| ask.preference.clone()),
            utility: measured[&offer].mean(&every),
            fluency: measured[&offer].fluency,
        }
    };
    let place = |offer: &usize| choice.kept.iter().position(|k| k == offer).expect("it is served from what is kept");
    Ok(FrontReport {
        objectives: steered.iter().map(|&i| x.objectives[i].id.clone()).collect(),
        points: choice.kept.iter().map(|&o| point(o, None)).collect(),
        reference: vec![0.0; steered.len()],
        hypervolume: values[0],
        interval: intervals[0],
        expected_utility: Some(values[1]),
        utility_interval: intervals[1],
        served: trade_offs.iter().zip(&choice.served).map(|(w, o)| Served { weights: w.clone(), point: place(o) }).collect(),
        chosen: Some(ChosenFront {
            points: choice.best.iter().zip(trade_offs).map(|(&o, w)| point(o, Some(w))).collect(),
            hypervolume: values[2],
            interval: intervals[2],
            expected_utility: values[3],
            utility_interval: intervals[3],
        }),
        menu: Some(menu.report),
        parts: reached.parts(&of, parts),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluate::little::{ByWord, Little};
    use crate::evaluate::menu::tests::menu;
    use crate::text::corpus::EncodedQuestion;
    use moslim_shared::preference::Preference;

    /// Three objectives, of which the first and the last are steered.
    const STEERED: [usize; 2] = [0, 2];

    fn trade_offs() -> Vec<Vec<f64>> {
        vec![vec![1.0, 0.0, 0.0], vec![0.25, 0.0, 0.75]]
    }

    #[test]
    fn users_are_served_from_what_is_kept_and_the_best_is_of_all() {
        // On training questions the third offer is best for the first user; two others span the larger area.
        let menu = menu(&[[0.6, 0.9, 0.7], [0.62, 0.0, 0.6], [0.95, 0.0, 0.05], [0.2, 0.1, 0.9]]);
        let choice = Choice::of(&menu, &STEERED, &trade_offs());
        assert_eq!(
            (choice.kept.as_slice(), choice.served.as_slice(), choice.best.as_slice()),
            (&[0, 3][..], &[0, 3][..], &[2, 3][..])
        );
        // Nobody reaches anything in every objective: each gets the best there is.
        let flat = self::menu(&[[0.5, 0.0, 0.0], [0.0, 0.0, 0.9]]);
        let choice = Choice::of(&flat, &STEERED, &trade_offs());
        assert_eq!((choice.kept.as_slice(), choice.served.as_slice()), (&[0, 1][..], &[0, 1][..]));
    }

    #[test]
    fn figures_are_of_the_offers_that_are_named() {
        let choice = Choice { kept: vec![0, 3], served: vec![0, 3], best: vec![2, 3] };
        let measured = |rows: &[[f64; 2]]| Measured { rows: rows.iter().map(|r| r.to_vec()).collect(), fluency: 1.0 };
        // Held-out questions of two topics, and other values than on training questions.
        let all: BTreeMap<usize, Measured> = [
            (0, measured(&[[0.5, 0.5], [0.7, 0.3]])),
            (3, measured(&[[0.2, 1.0], [0.2, 0.8]])),
            (2, measured(&[[1.0, 0.0], [0.8, 0.2]])),
        ]
        .into();
        let trade_offs = trade_offs();
        let reached = Reached { choice: &choice, measured: &all, steered: &STEERED, trade_offs: &trade_offs };
        let intervals = reached.intervals(&[4, 9], &mut StdRng::seed_from_u64(1));
        // Points (0.6, 0.4) and (0.2, 0.9); then (0.9, 0.1) and (0.2, 0.9).
        let want = [
            0.2 * 0.9 + 0.4 * 0.4,
            (0.6 + 0.25 * 0.2 + 0.75 * 0.9) / 2.0,
            0.2 * 0.9 + 0.7 * 0.1,
            (0.9 + 0.25 * 0.2 + 0.75 * 0.9) / 2.0,
        ];
        for ((value, want), [low, high]) in reached.figures(&[0, 1]).into_iter().zip(want).zip(intervals) {
            assert!((value - want).abs() < 1e-12, "{value} is not {want}");
            assert!(low < value && value < high, "{low} {value} {high}");
        }
        // With one topic there is nothing to resample but itself.
        let one = reached.intervals(&[4, 4], &mut StdRng::seed_from_u64(1));
        assert_eq!(one.map(|[low, high]| high - low), [0.0; 4]);
        // The second question is of the first part, and nothing was asked of the second part.
        let names = ["seen", "odd", "new"].map(String::from);
        let parts = reached.parts(&[2, 0], &names);
        assert_eq!(parts.iter().map(|p| (p.part.as_str(), p.n)).collect::<Vec<_>>(), [("seen", 1), ("new", 1)]);
        // Points (0.7, 0.3) and (0.2, 0.8); then (0.5, 0.5) and (0.2, 1).
        for (part, volume, utility) in [
            (&parts[0], 0.2 * 0.8 + 0.5 * 0.3, (0.7 + 0.25 * 0.2 + 0.75 * 0.8) / 2.0),
            (&parts[1], 0.2 * 1.0 + 0.3 * 0.5, (0.5 + 0.25 * 0.2 + 0.75) / 2.0),
        ] {
            assert!((part.hypervolume - volume).abs() < 1e-12, "{part:?}");
            assert!((part.expected_utility - utility).abs() < 1e-12, "{part:?}");
        }
    }

    /// The most probable tokens, at most four.
    const GREEDY: Sampling = Sampling { temperature: 0.0, top_p: 1.0, max_new_tokens: 4, seed: 1 };

    fn near(value: f64, want: f64) {
        assert!((value - want).abs() < 1e-9, "{value}, not {want}");
    }

    /// A menu of `offers` that reach these utilities.
    fn of<const N: usize>(offers: [Ask; N], reached: &[[f64; 3]; N]) -> Menu {
        let mut menu = menu(reached);
        menu.offers = offers.into();
        menu
    }

    /// "red" of the first part, and "green grey" of the second, each a topic.
    fn two(lab: &Little) -> &[EncodedQuestion] {
        &lab.questions[..2]
    }

    /// The rules give an answer its first class where the question has the word, and of five of the third red has 3, green 4 and grey 0; grey is
    /// fluent only where the question has it. Three questions are asked: the first, the second and the first.
    #[test]
    fn a_front_is_measured_of_what_is_kept_and_of_the_best_on_the_same_questions() {
        let lab = Little::new();
        let policies = ["red", "blue", "grey", "green"].map(|word| lab.policy(&[("<assistant>", word), (word, "<eos>")], 64));
        let weights: Vec<Vec<f64>> = (0..4).map(|n| vec![f64::from(n), 0.0, 1.0]).collect();
        let route = Route::Nearest { behaviour: Vec::new(), weights, mixed: false };
        let (trade_offs, names) = (trade_offs(), ["seen", "new", "odd"].map(String::from));
        let x =
            Answering { questions: two(&lab), trade_offs: &trade_offs, steered: &STEERED, ..lab.answering(&policies, &route) };
        // As above, 0 and 3 are kept, and the best are 2 and 3: nobody is answered by the second.
        let numbered = [0, 1, 2, 3].map(|n| Ask { offer: Some(n), ..Ask::of(Preference::none(3)) });
        let menu = of(numbered, &[[0.6, 0.9, 0.7], [0.62, 0.0, 0.6], [0.95, 0.0, 0.05], [0.2, 0.1, 0.9]]);
        let grading = Grading::Gold(&ByWord);
        let mut told = Vec::new();
        let each = |n: usize| {
            told.push(n);
            Ok(())
        };
        let report = front((&x, &grading, &names), &menu, (&STEERED, &trade_offs), 3, &GREEDY, 7, each).unwrap();
        assert_eq!(told, [3; 3]);
        assert_eq!(
            (report.objectives.as_slice(), report.reference.as_slice()),
            (&["a", "c"].map(String::from)[..], &[0.0; 2][..])
        );
        // Red: two of three have the word, and 3 of 4. Green: one of three, and 4 of 4. Grey: one of three, and nothing.
        let chosen = report.chosen.as_ref().unwrap();
        let points = [&report.points[0], &report.points[1], &chosen.points[0], &chosen.points[1]];
        for (point, want) in points.iter().zip([[2.0 / 3.0, 0.75], [1.0 / 3.0, 1.0], [1.0 / 3.0, 0.0], [1.0 / 3.0, 1.0]]) {
            assert!(point.asked.is_none() && point.utility.len() == 2);
            point.utility.iter().zip(want).for_each(|(value, want)| near(*value, want));
        }
        points.iter().zip([1.0, 1.0, 1.0 / 3.0, 1.0]).for_each(|(point, want)| near(point.fluency, want));
        // A policy has its own weights, one that serves a trade-off those of that.
        let weights = points.map(|point| point.weights.as_slice());
        assert_eq!(weights, [&[0.0, 0.0, 1.0][..], &[3.0, 0.0, 1.0], &[1.0, 0.0, 0.0], &[0.25, 0.0, 0.75]]);
        assert_eq!((report.points.len(), chosen.points.len()), (2, 2));
        let served: Vec<(&[f64], usize)> = report.served.iter().map(|s| (s.weights.as_slice(), s.point)).collect();
        assert_eq!(served, [(trade_offs[0].as_slice(), 0), (trade_offs[1].as_slice(), 1)]);
        // What is kept reaches 2/3 by 3/4, and beyond that 1/3 by 1/4; the best, 1/3 by 1. Users get 2/3 or 1/3 of the first, and 1/12 + 3/4.
        near(report.hypervolume, 0.5 + 1.0 / 12.0);
        near(report.expected_utility.unwrap(), (2.0 / 3.0 + 1.0 / 12.0 + 0.75) / 2.0);
        near(chosen.hypervolume, 1.0 / 3.0);
        near(chosen.expected_utility, (1.0 / 3.0 + 1.0 / 12.0 + 0.75) / 2.0);
        // On the first question alone, (1, 3/4), (0, 1) and (0, 0), on the second (0, 3/4), (1, 1) and (1, 0): the figures of a part, and of a
        // resample that has but one of the two topics, which every fourth has, and another fourth the other.
        let parts: Vec<(&str, usize)> = report.parts.iter().map(|part| (part.part.as_str(), part.n)).collect();
        assert_eq!(parts, [("seen", 2), ("new", 1)]);
        let figures = report.parts.iter().flat_map(|part| [part.hypervolume, part.expected_utility]);
        figures.zip([0.75, (1.0 + 0.75) / 2.0, 1.0, (0.0 + 1.0) / 2.0]).for_each(|(value, want)| near(value, want));
        let intervals = [report.interval, report.utility_interval, chosen.interval, chosen.utility_interval];
        let want = [[0.5 + 1.0 / 12.0, 1.0], [0.5, 0.875], [0.0, 1.0], [0.375, 1.0]];
        intervals.as_flattened().iter().zip(want.as_flattened()).for_each(|(value, want)| near(*value, *want));
    }

    /// What a policy is asked for, or for what weights it is, is told as its route has it.
    #[test]
    fn points_say_what_was_asked_for() {
        let lab = Little::new();
        let policies = [lab.policy(&[("<assistant>", "red"), ("red", "<eos>")], 64)];
        let trade_offs = [vec![0.5, 0.0, 0.5], vec![0.0, 0.0, 1.0]];
        let classes = Preference(vec![Some(1), None, Some(4)]);
        let tagged = Ask::of(classes.clone());
        let weighed = Ask { weights: Some(vec![Some(0.6), None, Some(0.4)]), ..Ask::of(Preference::none(3)) };
        let offered = |n: usize| Ask { offer: Some(n), ..Ask::of(Preference::none(3)) };
        let points = |route: &Route, offers: [Ask; 2]| -> Vec<(Option<Preference>, Vec<f64>)> {
            let x = Answering { questions: two(&lab), trade_offs: &trade_offs, ..lab.answering(&policies, route) };
            let menu = of(offers, &[[0.9, 0.0, 0.2], [0.2, 0.0, 0.9]]);
            let asked = (&STEERED[..], &trade_offs[..]);
            let front = front((&x, &Grading::Gold(&ByWord), &[]), &menu, asked, 2, &GREEDY, 7, |_| Ok(())).unwrap();
            front.points.into_iter().map(|point| (point.asked, point.weights)).collect()
        };
        let said = points(&Route::Tags, [tagged.clone(), weighed]);
        assert_eq!(said, [(Some(classes.clone()), vec![]), (None, vec![0.6, 0.0, 0.4])]);
        let scores = Route::Scores { mean: vec![0.0; 3], std: vec![1.0; 3] };
        assert_eq!(points(&scores, [tagged.clone(), tagged])[1], (Some(classes), vec![]));
        let chosen = points(&Route::BestOf(2), [offered(0), offered(1)]);
        assert_eq!(chosen, trade_offs.clone().map(|weights| (None::<Preference>, weights)));
    }

    /// A policy that writes anything, which the rules grade by its length: every offer has random numbers of its own.
    #[test]
    fn every_offer_is_answered_with_other_random_numbers() {
        let lab = Little::new();
        let policies = [lab.policy(&[], 64)];
        let trade_offs = trade_offs();
        let x = Answering { questions: two(&lab), trade_offs: &trade_offs, ..lab.answering(&policies, &Route::Tags) };
        let offers = [0, 1].map(|class| Ask::of(Preference::single(3, 1, class)));
        let menu = of(offers.clone(), &[[0.9, 0.0, 0.2], [0.2, 0.0, 0.9]]);
        let grading = Grading::Gold(&ByWord);
        // Bits 40 and 41 are those that tell the offers apart.
        let sampling = Sampling { temperature: 1.0, top_p: 1.0, max_new_tokens: 6, seed: (3 << 40) | 7 };
        let report = front((&x, &grading, &[]), &menu, (&STEERED, &trade_offs), 60, &sampling, 7, |_| Ok(())).unwrap();
        let third = |offer: &Ask, seed: u64| {
            let asks: Vec<(usize, Ask)> = (0..60).map(|n| (n % 2, offer.clone())).collect();
            let answers = x.answer(&asks, &Sampling { seed, ..sampling.clone() }).unwrap();
            let pairs: Vec<(usize, &Answer)> = asks.iter().map(|(q, _)| *q).zip(&answers).collect();
            grading.grade(&x, &pairs).unwrap().iter().map(|(grades, _)| grades.classes[2] as f64 / 4.0).sum::<f64>() / 60.0
        };
        let want = [third(&offers[0], (2 << 40) | 7), third(&offers[1], (1 << 40) | 7)];
        report.points.iter().zip(want).for_each(|(point, want)| near(point.utility[1], want));
        assert_eq!(report.points.len(), 2);
    }

    #[test]
    fn a_mean_over_no_question_is_nothing() {
        let measured = Measured { rows: vec![vec![0.5, 1.0], vec![1.0, 0.25]], fluency: 1.0 };
        assert_eq!(
            [measured.mean(&[1]), measured.mean(&[0, 1, 1, 1]), measured.mean(&[])],
            [[1.0, 0.25], [0.875, 0.4375], [0.0; 2]]
        );
    }
}
