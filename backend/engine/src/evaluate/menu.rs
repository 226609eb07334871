//! What a method offers to users who weigh the objectives, tried on training questions with the reward model.
//!
//! A method that reads classes in its prompt offers combinations of them, and weights where it learnt to read those, too; MORLHF its
//! policies, Rewarded Soups mixtures of its experts. A user is not asked to guess which of them suits: all are tried, with the same
//! number of samples for every method, and from what the reward model says of the answers follows which offers to keep
//! ([`Menu::widest`]) and which to give to whom ([`Menu::best`]). Held-out questions and the grader have no part in it.

use super::answer::{Answering, Ask, Route};
use crate::model::generate::{Answer, Sampling};
use crate::model::kernels::Kernels;
use crate::policy::targets::{tenths, written};
use anyhow::Result;
use moslim_shared::distribution::expected_class;
use moslim_shared::objective::Objective;
use moslim_shared::pareto::{hypervolume, widest};
use moslim_shared::preference::Preference;
use moslim_shared::summary::{FrontSeen, MenuReport, Work};

/// Answers with which a menu is tried, whatever its length.
const SAMPLES: usize = 5_184;
/// Answers with which it is tried, and what is kept of it measured, while a policy is optimised.
const SAMPLES_ON_THE_WAY: usize = 518;
/// Most combinations.
const CANDIDATES: usize = 256;

/// What can be asked of a method, and what it brings.
pub struct Menu {
    pub offers: Vec<Ask>,
    /// Mean utility, `[offer][objective]`, as the reward model sees answers to training questions.
    reached: Vec<Vec<f64>>,
    pub report: MenuReport,
}

/// What a method can be asked for. `trade_offs`: weights of all objectives; `weighted`: whether a policy that reads tags learnt to read
/// weights, too, so that every trade-off is offered to it, in tenths.
pub fn offers(route: &Route, trade_offs: &[Vec<f64>], weighted: bool, objectives: &[Objective], steered: &[usize]) -> Vec<Ask> {
    let nothing = Preference::none(objectives.len());
    let numbered = |count: usize| (0..count).map(|n| Ask { offer: Some(n), ..Ask::of(nothing.clone()) }).collect();
    match route {
        Route::Untagged => vec![Ask::of(nothing)],
        Route::Tags | Route::Scores { .. } => {
            let mut out: Vec<Ask> = candidates(objectives, steered).into_iter().map(Ask::of).collect();
            let read: &[Vec<f64>] = if weighted && *route == Route::Tags { trade_offs } else { &[] };
            for trade_off in read {
                let weights = Some(written(&tenths(trade_off), steered));
                // Two trade-offs may be the same in tenths.
                if out.iter().all(|ask| ask.weights != weights) {
                    out.push(Ask { weights, ..Ask::of(nothing.clone()) });
                }
            }
            out
        }
        Route::Nearest { weights, .. } => numbered(weights.len()),
        Route::BestOf(_) => numbered(trade_offs.len()),
    }
}

/// Training questions on which each of `offers` is tried.
pub fn questions_each(offers: usize, samples: usize) -> usize {
    questions_of(SAMPLES, offers, samples)
}

/// Questions for each of `offers` when there are `answers` in all, and `samples` of them for every one that is given.
fn questions_of(answers: usize, offers: usize, samples: usize) -> usize {
    (answers / samples / offers.max(1)).max(1)
}

/// `n` of `all` places that lie evenly, each `after` behind the first of its own part.
fn spread_over(all: usize, n: usize, after: usize) -> Vec<usize> {
    (0..n).map(|part| (part * (all / n.max(1)) + after) % all).collect()
}

/// What a policy reaches now, as the reward model sees answers to training questions: a menu is tried on some of them, and what is kept
/// of it measured on others, so that what was lucky when it was chosen does not count. As many offers are kept as there are trade-offs at
/// most. `weighted`: as for [`offers`]; `step`: iterations before.
///
/// # Errors
/// When the tokenizer fails, or `each` stops it.
pub fn front_seen<B: Kernels>(
    x: &Answering<B>,
    weighted: bool,
    step: usize,
    sampling: &Sampling,
    mut each: impl FnMut() -> Result<()>,
) -> Result<FrontSeen> {
    let all = offers(x.route, x.trade_offs, weighted, x.objectives, x.steered);
    let n = questions_of(SAMPLES_ON_THE_WAY, all.len(), 1);
    let menu = Menu::on(x, all, (n, 0), sampling, |_| each())?;
    let kept = menu.widest(x.steered, x.trade_offs.len());
    let kept: Vec<Ask> = kept.into_iter().map(|offer| menu.offers[offer].clone()).collect();
    let asked = kept.iter().map(|ask| ask.preference.clone()).collect();
    let mut weights: Vec<Vec<f64>> = kept.iter().map(|ask| ask.weighed().unwrap_or_default()).collect();
    if weights.iter().all(Vec::is_empty) {
        weights.clear();
    }
    let n = questions_of(SAMPLES_ON_THE_WAY, kept.len(), 1);
    let measured = Menu::on(x, kept, (n, 1), sampling, |_| each())?;
    let points = measured.points(x.steered);
    let hypervolume = hypervolume(&points, &vec![0.0; x.steered.len()]);
    let objectives = x.steered.iter().map(|&i| x.objectives[i].id.clone()).collect();
    Ok(FrontSeen { step, objectives, asked, weights, points, hypervolume })
}

impl Menu {
    /// Tries every offer on some questions, which must be training questions. `each` is told how many answers are done, and may stop
    /// it.
    ///
    /// # Errors
    /// When the tokenizer fails, or `each` does.
    pub fn tried<B: Kernels>(
        x: &Answering<B>,
        offers: Vec<Ask>,
        sampling: &Sampling,
        each: impl FnMut(usize) -> Result<()>,
    ) -> Result<Self> {
        let samples = x.route.samples();
        let n = questions_each(offers.len(), samples);
        Self::on(x, offers, (n, 0), sampling, each)
    }

    /// As [`Menu::tried`], on `n` questions that lie evenly among all, each `after` places behind the first of its own.
    fn on<B: Kernels>(
        x: &Answering<B>,
        offers: Vec<Ask>,
        (n, after): (usize, usize),
        sampling: &Sampling,
        mut each: impl FnMut(usize) -> Result<()>,
    ) -> Result<Self> {
        let samples = x.route.samples();
        let n = n.min(x.questions.len());
        let chosen = spread_over(x.questions.len(), n, after);
        let mut report = MenuReport { offers: offers.len(), questions: n, work: Work::default() };
        let mut reached: Vec<Vec<f64>> = Vec::with_capacity(offers.len());
        let framing = x.tokenizer.framing();
        for offer in &offers {
            let asks: Vec<(usize, Ask)> = chosen.iter().map(|&q| (q, offer.clone())).collect();
            // The same random numbers for every offer.
            let answers = x.answer(&asks, sampling)?;
            let pairs: Vec<(usize, &Answer)> = chosen.iter().copied().zip(&answers).collect();
            let mut means = vec![0.0; x.objectives.len()];
            for heads in x.classified(&pairs) {
                for ((mean, p), objective) in means.iter_mut().zip(heads).zip(x.objectives) {
                    *mean += objective.utility(expected_class(&p)) / n as f64;
                }
            }
            // The policy reads roles, tags or weights, and question, the reward model the same without either; both read the answer.
            let question = |q: usize| x.questions[q].tokens.len() + framing;
            let said = match &offer.weights {
                Some(weights) => x.tokenizer.weighed_prompt(&[], weights)?.len().saturating_sub(framing),
                None => offer.preference.active(),
            };
            let read = pairs.iter().map(|(q, a)| 2 * question(*q) + said + 2 * a.tokens.len());
            report.work.forward_tokens += (samples * read.sum::<usize>()) as u64;
            reached.push(means);
            each(n)?;
        }
        Ok(Self { offers, reached, report })
    }

    /// Mean class of each objective, `[offer][objective]`.
    pub fn classes(&self, objectives: &[Objective]) -> Vec<Vec<f64>> {
        // Utility is linear in the class.
        let class = |(o, u): (&Objective, &f64)| {
            let most = (o.class_count() - 1) as f64;
            if o.higher_is_better { u * most } else { (1.0 - u) * most }
        };
        self.reached.iter().map(|row| objectives.iter().zip(row).map(class).collect()).collect()
    }

    /// At most `count` offers that together reach the largest hypervolume over the `steered` objectives, greedily.
    pub fn widest(&self, steered: &[usize], count: usize) -> Vec<usize> {
        widest(&self.points(steered), &vec![0.0; steered.len()], count)
    }

    /// Mean utilities, `[offer][steered objective]`.
    fn points(&self, steered: &[usize]) -> Vec<Vec<f64>> {
        self.reached.iter().map(|row| steered.iter().map(|&i| row[i]).collect()).collect()
    }

    /// Of the offers at `among` the one with the highest weighted utility; the first on a tie.
    pub fn best(&self, among: &[usize], weights: &[f64]) -> usize {
        let score = |n: usize| self.reached[n].iter().zip(weights).map(|(u, w)| u * w).sum::<f64>();
        among.iter().copied().fold(among[0], |best, n| if score(n) > score(best) { n } else { best })
    }
}

/// Every combination of: not asked for, the best class, the second best (where there are three or more, and where that is not
/// too many), over the steered objectives; then the best class of all but one, which is asked for in any.
fn candidates(objectives: &[Objective], steered: &[usize]) -> Vec<Preference> {
    let mut out = high(objectives, steered);
    let mut all_best = Preference::none(objectives.len());
    steered.iter().for_each(|&i| all_best.0[i] = Some(objectives[i].best_class()));
    for &i in steered {
        for class in 0..objectives[i].class_count() {
            let mut near_front = all_best.clone();
            near_front.0[i] = Some(class);
            if !out.contains(&near_front) {
                out.push(near_front);
            }
        }
    }
    out
}

/// Every combination of: not asked for, the best class, the second best.
fn high(objectives: &[Objective], steered: &[usize]) -> Vec<Preference> {
    let second =
        steered.len() < usize::BITS as usize && 3usize.checked_pow(steered.len() as u32).is_some_and(|n| n <= CANDIDATES);
    let mut out = vec![Preference::none(objectives.len())];
    for &i in steered {
        let o = &objectives[i];
        let class = |from_best: usize| if o.higher_is_better { o.class_count() - 1 - from_best } else { from_best };
        let mut options = vec![Some(class(0))];
        if second && o.class_count() > 2 {
            options.push(Some(class(1)));
        }
        if 2 * out.len() > CANDIDATES {
            // Too many objectives to leave any of the rest out.
            out.iter_mut().for_each(|p| p.0[i] = options[0]);
            continue;
        }
        let with = |p: &Preference, option: &Option<usize>| {
            let mut p = p.clone();
            p.0[i] = *option;
            p
        };
        let more: Vec<Preference> = out.iter().flat_map(|p| options.iter().map(move |o| with(p, o))).collect();
        out.extend(more);
    }
    out
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::data::world::objectives;
    use crate::evaluate::little::{self, Little};
    use std::collections::HashSet;

    #[test]
    fn combinations_of_high_classes_are_tried() {
        let objectives = objectives();
        let all = high(&objectives, &[0, 1, 2, 3]);
        assert_eq!((all.len(), all[0].active()), (81, 0));
        let distinct: HashSet<_> = all.iter().collect();
        assert_eq!(distinct.len(), 81);
        // Brevity counts: the lowest classes of verbosity are its best.
        assert!(all.iter().all(|p| p.0[3].is_none_or(|c| c <= 1) && p.0[0].is_none_or(|c| c >= 3)));
        assert_eq!(high(&objectives, &[2]).len(), 3);
        let many: Vec<Objective> = (0..12).map(|n| Objective::new(&format!("o{n}"), "", "", &["0", "1", "2"])).collect();
        let all = high(&many, &(0..12).collect::<Vec<_>>());
        assert_eq!(all.len(), 256);
        assert!(all.iter().all(|p| p.0[11] == Some(2)));
    }

    #[test]
    fn what_is_chosen_on_some_questions_is_measured_on_others() {
        assert_eq!((spread_over(9, 3, 0), spread_over(9, 3, 1)), (vec![0, 3, 6], vec![1, 4, 7]));
        // Of 90 offers 5 questions each are tried, and of 14 that are kept 37: none is in both.
        let (first, then) = (spread_over(1_000, 5, 0), spread_over(1_000, 37, 1));
        assert!(first.iter().all(|q| !then.contains(q)), "{first:?} {then:?}");
        assert_eq!((spread_over(2, 2, 1), spread_over(3, 0, 1)), (vec![1, 0], vec![]));
    }

    #[test]
    fn goals_near_the_front_are_tried_too_each_once() {
        let all = candidates(&objectives(), &[0, 1, 2, 3]);
        let distinct: HashSet<_> = all.iter().collect();
        // Every class but the best two of five, four, three and five.
        assert_eq!((all.len(), distinct.len()), (81 + 3 + 2 + 1 + 3, 90));
        for (i, class) in [(0, 2), (1, 0), (2, 0), (3, 4)] {
            let mut near = Preference(vec![Some(4), Some(3), Some(2), Some(0)]);
            near.0[i] = Some(class);
            assert!(distinct.contains(&near), "{near:?}");
        }
        assert_eq!(candidates(&objectives(), &[2]).len(), 4);
    }

    #[test]
    fn weights_are_offered_after_the_classes_where_they_were_learnt() {
        let (objectives, steered) = (objectives(), [0, 1, 3]);
        // The second and the third are the same in tenths.
        let trade_offs =
            [vec![1.0, 0.0, 0.0, 0.0], vec![0.625, 0.125, 0.0, 0.25], vec![0.62, 0.13, 0.0, 0.25], vec![0.0, 0.5, 0.0, 0.5]];
        let offered = |route: &Route, weighted: bool| offers(route, &trade_offs, weighted, &objectives, &steered);
        let (classes, all) = (offered(&Route::Tags, false), offered(&Route::Tags, true));
        assert!(!classes.is_empty() && classes.iter().all(|ask| ask.weights.is_none() && ask.weighed().is_none()));
        assert_eq!(&all[..classes.len()], &classes[..]);
        let weighed = &all[classes.len()..];
        let wanted = [[1.0, 0.0, 0.0, 0.0], [0.6, 0.1, 0.0, 0.3], [0.0, 0.5, 0.0, 0.5]];
        assert_eq!(weighed.iter().filter_map(Ask::weighed).collect::<Vec<_>>(), wanted);
        assert_eq!(weighed[1].weights, Some(vec![Some(0.6), Some(0.1), None, Some(0.3)]), "honesty is not steered");
        assert!(weighed.iter().all(|ask| ask.preference.active() == 0 && ask.offer.is_none()));
        // Scores are no weights, and best of n chooses by weights that no prompt says.
        let scores = Route::Scores { mean: vec![0.0; 4], std: vec![1.0; 4] };
        assert_eq!(offered(&scores, true), offered(&scores, false));
        assert_eq!(offered(&Route::BestOf(2), true).iter().map(|ask| ask.offer).collect::<Vec<_>>(), [0, 1, 2, 3].map(Some));
    }

    /// A menu whose offers reach these utilities on training questions.
    pub fn menu<const N: usize>(reached: &[[f64; N]]) -> Menu {
        let offers = vec![Ask::of(Preference::none(N)); reached.len()];
        Menu { offers, reached: reached.iter().map(|r| r.to_vec()).collect(), report: MenuReport::default() }
    }

    #[test]
    fn the_highest_weighted_utility_wins_among_those_that_are_kept() {
        let menu = menu(&[[0.2, 0.9], [0.8, 0.5], [0.9, 0.1], [0.8, 0.5]]);
        for (weights, want) in [([1.0, 0.0], 2), ([0.0, 1.0], 0), ([0.5, 0.5], 1)] {
            assert_eq!(menu.best(&[0, 1, 2, 3], &weights), want);
        }
        assert_eq!(menu.best(&[3, 0], &[1.0, 0.0]), 3);
    }

    #[test]
    fn the_front_is_chosen_in_the_steered_objectives() {
        let menu = menu(&[[0.2, 0.9], [0.8, 0.5], [0.9, 0.1], [0.8, 0.5]]);
        assert_eq!(menu.widest(&[0, 1], 2), [1, 0]);
        assert_eq!(menu.widest(&[1], 3), [0]);
    }

    #[test]
    fn every_menu_is_tried_with_the_same_number_of_samples() {
        for (offers, samples) in [(90, 1), (14, 1), (94, 1), (14, 8)] {
            let all = offers * samples * questions_each(offers, samples);
            assert!((SAMPLES - offers * samples..=SAMPLES).contains(&all), "{all}");
        }
    }

    #[test]
    fn utilities_become_classes_again() {
        let objectives = [
            Objective::new("a", "", "", &["0", "1", "2", "3", "4"]),
            Objective::new("b", "", "", &["0", "1", "2", "3", "4"]).lower_is_better(),
        ];
        assert_eq!(menu(&[[0.25, 0.25]]).classes(&objectives), [[1.0, 3.0]]);
    }

    #[test]
    fn there_is_nothing_second_best_of_two_and_nothing_to_choose_without_tags() {
        let some = |classes: &[Option<usize>]| Preference(classes.to_vec());
        // The best and the second best of what less is better of; of two classes the best alone.
        assert_eq!(
            high(&little::objectives(), &[1]),
            [some(&[None; 3]), some(&[None, Some(0), None]), some(&[None, Some(1), None])]
        );
        assert_eq!(high(&little::objectives(), &[0]), [some(&[None; 3]), some(&[Some(1), None, None])]);
        // Five objectives have the second best still, six do not: 3^6 were too many.
        let many: Vec<Objective> = (0..6).map(|n| Objective::new(&format!("o{n}"), "", "", &["0", "1", "2"])).collect();
        assert_eq!([5, 6].map(|n| high(&many, &(0..n).collect::<Vec<_>>()).len()), [243, 64]);
        let offered = |route: &Route| offers(route, &[vec![1.0, 0.0, 0.0]], false, &little::objectives(), &[0]);
        let nearest = Route::Nearest { behaviour: Vec::new(), weights: vec![vec![]; 3], mixed: true };
        assert_eq!(offered(&Route::Untagged), [Ask::of(Preference::none(3))]);
        let policies = offered(&nearest);
        assert_eq!(policies.iter().map(|ask| ask.offer).collect::<Vec<_>>(), [Some(0), Some(1), Some(2)]);
        assert!(policies.iter().all(|ask| ask.preference == Preference::none(3) && ask.weights.is_none()));
    }

    #[test]
    fn samples_are_shared_out_among_offers() {
        // 5184 / 90; 5184 / 8 / 14; and one at least.
        assert_eq!([questions_each(90, 1), questions_each(14, 8), questions_each(6_000, 1)], [57, 46, 1]);
        assert_eq!([questions_of(518, 14, 1), questions_of(100, 7, 4), questions_of(100, 0, 4)], [37, 3, 25]);
        assert_eq!(SAMPLES / 10, SAMPLES_ON_THE_WAY);
    }

    /// The most probable tokens, at most two.
    const GREEDY: Sampling = Sampling { temperature: 0.0, top_p: 1.0, max_new_tokens: 2, seed: 1 };

    /// One policy says "blue" until the context of six tokens ends, one "red" and one "green", and then nothing. The reward model sees (1, 1, 2)
    /// in one blue and (1, 1, 3) in two; red is (0, 2, 4) and green (1, 0, 1).
    #[test]
    fn a_menu_is_what_the_reward_model_sees_on_average() {
        let lab = Little::new();
        let next = [("blue", "blue"), ("red", "<eos>"), ("green", "<eos>")];
        let policies = next.map(|(word, then)| lab.policy(&[("<assistant>", word), (word, then)], 6));
        let route = Route::Nearest { behaviour: Vec::new(), weights: vec![vec![]; 3], mixed: false };
        let trade_offs = [vec![1.0, 0.0, 0.0], vec![0.0, 1.0, 0.0]];
        let x = Answering { steered: &[1, 2], trade_offs: &trade_offs, ..lab.answering(&policies, &route) };
        let all = offers(&route, &trade_offs, false, &lab.objectives, &[1, 2]);
        let mut told = Vec::new();
        let each = |n: usize| {
            told.push(n);
            Ok(())
        };
        let menu = Menu::on(&x, all, (2, 1), &GREEDY, each).unwrap();
        // Of four questions the second and the last, of two and three words between two roles: of six tokens two are left, and one. Less of
        // the second objective is better.
        assert_eq!(menu.reached, [[1.0, 0.5, (0.75 + 0.5) / 2.0], [0.0, 0.0, 1.0], [1.0, 1.0, 0.25]]);
        // Each question is read twice, and so is each answer, of two tokens and of one.
        let read = 2 * (2 + 2) + 2 * 2 + 2 * (3 + 2) + 2;
        assert_eq!((menu.report.offers, menu.report.questions, told), (3, 2, vec![2; 3]));
        assert_eq!(menu.report.work, Work { forward_tokens: 3 * read, training_tokens: 0 });
        // Of all four questions, three leave room for two tokens. Red reaches nothing in the second objective, and so is not kept: boxes of 0.5
        // by 0.6875 and of 1 by 0.25.
        let front = front_seen(&x, false, 3, &GREEDY, || Ok(())).unwrap();
        assert_eq!(front.points, [[0.5, (3.0 * 0.75 + 0.5) / 4.0], [1.0, 0.25]]);
        assert_eq!((front.hypervolume, front.step), (0.25 + 0.5 * (0.6875 - 0.25), 3));
        assert_eq!((front.objectives, front.asked), (vec!["b".into(), "c".into()], vec![Preference::none(3); 2]));
        assert!(front.weights.is_empty(), "no prompt says any");
    }

    #[test]
    fn what_is_read_for_an_offer_is_what_its_prompt_says_and_every_sample() {
        let lab = Little::new();
        let policies = [lab.policy(&[("<assistant>", "red"), ("red", "<eos>")], 64)];
        let trade_offs = [vec![1.0, 0.0, 0.0]];
        let read = |route: &Route, offer: Ask| {
            let x = Answering { trade_offs: &trade_offs, ..lab.answering(&policies, route) };
            Menu::on(&x, vec![offer], (1, 0), &GREEDY, |_| Ok(())).unwrap().report.work.forward_tokens
        };
        let nothing = || Ask::of(Preference::none(3));
        let classes = Ask::of(Preference(vec![Some(1), None, Some(4)]));
        let weights = Ask { weights: Some(vec![Some(0.6), None, Some(0.4)]), ..nothing() };
        // Twice a question of one word between two roles, and twice an answer of a word and its end; two tags; the tokens of three numbers.
        let numbers = lab.tokenizer.encode("6 . 4").unwrap().len() as u64;
        let said = [nothing(), classes, weights].map(|ask| read(&Route::Tags, ask));
        assert_eq!(said, [10, 12, 10 + numbers]);
        assert_eq!(read(&Route::BestOf(2), Ask { offer: Some(0), ..nothing() }), 20);
    }

    #[test]
    fn weights_that_reach_further_than_classes_are_kept_and_told() {
        let lab = Little::new();
        let trade_offs = [vec![0.0, 1.0, 0.0]];
        let question = &lab.questions[0];
        let longest = lab.tokenizer.weighed_prompt(&question.tokens, &[None, Some(1.0), None]).unwrap().len();
        // Beside that prompt there is room for one word, beside the others for five: blue is 1 of the second objective, five of it are 2, the
        // worst.
        let policies = [lab.policy(&[("<assistant>", "blue"), ("blue", "blue")], longest + 1)];
        let questions = [question.clone()];
        let of_one = lab.answering(&policies, &Route::Tags);
        let x = Answering { questions: &questions, steered: &[1], trade_offs: &trade_offs, ..of_one };
        let seen = |weighted: bool| {
            let sampling = Sampling { max_new_tokens: 5, ..GREEDY };
            front_seen(&x, weighted, 0, &sampling, || Ok(())).unwrap()
        };
        let front = seen(true);
        assert_eq!((front.weights, front.asked), (vec![vec![0.0, 1.0, 0.0]], vec![Preference::none(3)]));
        assert_eq!((front.points, front.hypervolume), (vec![vec![0.5]], 0.5));
        let without = seen(false);
        assert_eq!((without.points.len(), without.weights.len(), without.hypervolume), (0, 0, 0.0));
    }

    /// 5184 samples, 2592 for every answer: two questions, the first and the third, each of one word and with room for two.
    #[test]
    fn a_menu_is_tried_with_all_samples_from_the_first_question_on() {
        let lab = Little::new();
        let policies = [lab.policy(&[("<assistant>", "blue"), ("blue", "blue")], 6)];
        let (route, trade_offs) = (Route::BestOf(2_592), [vec![1.0, 0.0, 0.0]]);
        let x = Answering { trade_offs: &trade_offs, ..lab.answering(&policies, &route) };
        let menu = Menu::tried(&x, offers(&route, &trade_offs, false, &lab.objectives, &[0]), &GREEDY, |_| Ok(())).unwrap();
        assert_eq!((menu.report.questions, menu.reached), (2, vec![vec![1.0, 0.5, 0.75]]));
        assert_eq!(menu.report.work.forward_tokens, 2_592 * 2 * 10);
    }
}
