//! What a run has come to, in words; and what looks wrong with it.

use super::progress::Phase;
use super::reading::{MATRIX_WINDOW, matrix_of, recent};
use super::run::RunState;
use crate::words::{said, t};
use moslim_shared::event::{PolicyStep, Stage};
use moslim_shared::metrics::diagonal;
use moslim_shared::objective::Objective;
use moslim_shared::summary::Answerer;

/// An entropy of class mass, as a share of the largest possible, below which one class has nearly all of it.
const COLLAPSED: f64 = 0.12;
/// KL divergence that nothing good was ever learnt beyond, nats per answer.
const FAR: f64 = 40.0;
/// A fall of the hit rate by the rules, while the reward model's rises, that is no accident.
const FALL: f64 = 0.08;
/// Share of groups whose samples all have the same reward, of which nothing is learnt.
const ALIKE: f64 = 0.5;

impl RunState {
    /// The stage that is at work, or the last that was.
    pub fn active(&self) -> Stage {
        let mut begun = self.stage_list().into_iter().filter(|s| self.stages[*s as usize].phase != Phase::Waiting);
        begun.next_back().unwrap_or(Stage::Sft)
    }

    /// Asked x achieved on the answers of the ten steps up to `step`, each row a share; rows with no answer are all zero.
    pub fn rollout_matrix_at(&self, objective: usize, step: usize) -> Option<Vec<Vec<f64>>> {
        let end = self.policy().partition_point(|p| p.step <= step);
        matrix_of(recent(&self.policy()[..end]), objective)
    }

    /// The run in a sentence or two: how well it obeys, or what it is doing.
    pub fn verdict(&self) -> String {
        if let Some(text) = self.evaluated() {
            return text;
        }
        match self.active() {
            Stage::Answers => t("The model answers questions; from its own answers it will learn what its tags mean.").into(),
            Stage::Sft => t("It learns the language. No preference is involved yet.").into(),
            Stage::HeldOutRewardModel | Stage::RewardModel => self.grading(),
            Stage::Calibration => {
                t("The reward model's probabilities are being calibrated, and its rewards put on one scale.").into()
            }
            Stage::PreferenceSft => t("It learns from labelled answers what its tags mean.").into(),
            Stage::Policy => self.learning(),
            Stage::Evaluation => t("It answers held-out questions, to be graded by who had no part in its training.").into(),
        }
    }

    fn grading(&self) -> String {
        let known = self.objectives.iter().enumerate().filter_map(|(i, o)| {
            let last = self.validation.get(&(Stage::RewardModel, i)).and_then(|curve| curve.last())?;
            Some((o, last.1))
        });
        let known: Vec<(&Objective, f64)> = known.collect();
        let (Some(worst), Some(best)) =
            (known.iter().min_by(|a, b| a.1.total_cmp(&b.1)), known.iter().max_by(|a, b| a.1.total_cmp(&b.1)))
        else {
            return t("The reward model learns to grade answers.").into();
        };
        said(
            "The reward model learns to grade: its agreement with the labels is {0} for {1} and {2} for {3} (1 is perfect, 0 is chance).",
            &[&format!("{:.2}", best.1), &best.0.name.to_lowercase(), &format!("{:.2}", worst.1), &worst.0.name.to_lowercase()],
        )
    }

    fn learning(&self) -> String {
        let Some(step) = self.policy().last().map(|p| p.step).filter(|_| self.asks()) else {
            return said("{0} trains its policies.", &[self.method().title()]);
        };
        let hits: Vec<(usize, f64)> =
            (0..self.objectives.len()).filter_map(|i| Some((i, diagonal(&self.rollout_matrix_at(i, step)?)?))).collect();
        let text = self.best_and_worst(&hits);
        if text.is_empty() {
            t("It answers, and is paid for what was asked of it.").into()
        } else {
            said("So far: {0}", &[&text])
        }
    }

    fn best_and_worst(&self, hits: &[(usize, f64)]) -> String {
        let by = |a: &&(usize, f64), b: &&(usize, f64)| a.1.total_cmp(&b.1);
        let (Some(best), Some(worst)) = (hits.iter().max_by(by), hits.iter().min_by(by)) else { return String::new() };
        let told = |(i, share): (usize, f64)| {
            let o = &self.objectives[i];
            let (obeys, chance) = (share * 10.0, 10.0 / o.class_count() as f64);
            let often = said("{0} times of 10 (by chance {1})", &[&format!("{obeys:.0}"), &format!("{chance:.0}")]);
            (o.name.to_lowercase(), often)
        };
        let (name, often) = told(*best);
        let first = said("asked for {0} it obeys {1}", &[&name, &often]);
        if best.0 == worst.0 {
            return said("{0}.", &[&first]);
        }
        let (name, often) = told(*worst);
        said("{0}; hardest is {1}, {2}.", &[&first, &name, &often])
    }

    /// What the evaluation found.
    fn evaluated(&self) -> Option<String> {
        let grader = self.grader();
        let after = self.measured()?;
        let place = |id: &str| self.objectives.iter().position(|o| o.id == id);
        let hits: Vec<(usize, f64)> = after.heads.iter().filter_map(|h| Some((place(&h.objective)?, h.hit_rate))).collect();
        let text = self.best_and_worst(&hits);
        // The class that is met least often: where a reader looks first.
        let before = self.control(Answerer::Sft, grader);
        let weakest = after.heads.iter().flat_map(|h| {
            h.matrix.iter().enumerate().filter(|(_, row)| row.iter().sum::<f64>() > 0.0).map(move |(c, row)| (h, c, row[c]))
        });
        let weakest = weakest.min_by(|a, b| a.2.total_cmp(&b.2)).and_then(|(head, class, share)| {
            let objective = &self.objectives[place(&head.objective)?];
            let was = before
                .and_then(|b| b.heads.iter().find(|h| h.objective == head.objective)?.matrix.get(class)?.get(class).copied());
            let was = was.map(|w| said(" (was {0} %)", &[&format!("{:.0}", w * 100.0)])).unwrap_or_default();
            let (class, met) = (objective.classes.get(class)?, format!("{:.0}", share * 100.0));
            Some(said(" \"{0}\" is met {1} % of the time{2}.", &[class, &met, &was]))
        });
        Some(said("On questions it never saw: {0}{1}", &[&text, &weakest.unwrap_or_default()]))
    }

    /// What looks wrong, in words for people who have not seen it before.
    pub fn alerts(&self) -> Vec<String> {
        let steps = self.policy();
        let Some(last) = steps.last() else { return Vec::new() };
        let recent = recent(steps);
        let mut alerts = Vec::new();
        if !(last.reward.is_finite() && last.kl.is_finite() && last.gradient_norm.is_finite()) {
            alerts.push(t("A value is no number any more: the policy has broken. A lower learning rate helps.").to_string());
        }
        let of = |f: fn(&PolicyStep) -> f64| mean(&recent.iter().map(f).filter(|v| v.is_finite()).collect::<Vec<_>>());
        let kl = of(|p| p.kl);
        if kl > FAR {
            alerts.push(said(
                "It has moved {0} nats away from what it started from: it may have forgotten how to speak. A larger KL coefficient or a \
                 lower learning rate holds it.",
                &[&format!("{kl:.0}")],
            ));
        }
        let alike = of(|p| p.zero_std_groups);
        if recent.len() == MATRIX_WINDOW && alike > ALIKE {
            alerts.push(said(
                "In {0} % of the groups all answers have the same reward: nothing is learnt from them. A higher temperature or more samples help.",
                &[&format!("{:.0}", alike * 100.0)],
            ));
        }
        if recent.len() == MATRIX_WINDOW && self.asks() {
            for (i, objective) in self.objectives.iter().enumerate() {
                if let Some((class, share)) = self.collapsed(recent, i) {
                    let name = objective.classes.get(class).cloned().unwrap_or_default();
                    alerts.push(said(
                        "{0}: whatever is asked, {1} % of the answers are \"{2}\". It no longer reads this tag.",
                        &[&objective.name, &format!("{:.0}", share * 100.0), &name],
                    ));
                }
            }
        }
        alerts.extend(self.exploited());
        alerts
    }

    /// The class that has nearly all mass of an objective, although others are asked for too.
    fn collapsed(&self, recent: &[PolicyStep], objective: usize) -> Option<(usize, f64)> {
        let classes = self.objectives[objective].class_count();
        let asked = matrix_of(recent, objective)?.iter().filter(|row| row.iter().sum::<f64>() > 0.0).count();
        if asked < 2 {
            return None;
        }
        let share =
            |c: usize| mean(&recent.iter().filter_map(|p| p.distributions.get(objective)?.get(c).copied()).collect::<Vec<_>>());
        let shares: Vec<f64> = (0..classes).map(share).collect();
        let entropy: f64 = shares.iter().filter(|p| **p > 0.0).map(|p| -p * p.ln()).sum();
        let top = (0..classes).max_by(|a, b| shares[*a].total_cmp(&shares[*b]))?;
        (entropy / (classes as f64).ln() < COLLAPSED).then_some((top, shares[top]))
    }

    /// That the reward model is pleased while who has no part in training is not.
    fn exploited(&self) -> Option<String> {
        let other = |p: &moslim_shared::summary::KlPoint| p.gold_hit_rate.or(p.held_out_hit_rate);
        let last = self.frontier.last()?;
        let best = self
            .frontier
            .iter()
            .filter(|p| other(p).is_some())
            .max_by(|a, b| other(a).partial_cmp(&other(b)).unwrap_or(std::cmp::Ordering::Equal))?;
        let fall = other(best)? - other(last)?;
        (fall > FALL && last.proxy_hit_rate > best.proxy_hit_rate).then(|| {
            said(
                "Since step {0} its own reward model likes it better, and who grades it from outside {1} points less: it exploits the reward model.",
                &[&best.step.to_string(), &format!("{:.0}", fall * 100.0)],
            )
        })
    }
}

/// 0 of nothing.
fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use moslim_shared::event::{Event, EventBody, Frame};
    use moslim_shared::summary::{ControlHead, ControlReport, Grader, KlPoint};

    /// A run with one objective of two classes whose steps have these matrices, and this mass of the lower class.
    fn run(steps: usize, matrix: [[f64; 2]; 2], low: f64) -> RunState {
        let mut state = RunState::default();
        state.objectives.push(Objective::new("tone", "Tone", "", &["cold", "warm"]));
        let step = |step| PolicyStep {
            step,
            matrix: vec![matrix.map(|r| r.to_vec()).to_vec()],
            distributions: vec![vec![low, 1.0 - low]],
            ..Default::default()
        };
        let began = EventBody::StageBegan { stage: Stage::Policy, part: None, from: 0, total: steps };
        let policy = (1..=steps).map(|n| EventBody::Policy { part: None, total: steps, step: step(n) });
        let events = std::iter::once(began).chain(policy).zip(1..).map(|(body, seq)| Event { seq, time: seq, body }).collect();
        state.receive(Frame::Events { events });
        state
    }

    #[test]
    fn the_verdict_counts_in_tenths_and_names_the_weakest_class() {
        let state = run(3, [[9.0, 1.0], [3.0, 7.0]], 0.5);
        assert_eq!(state.verdict(), "So far: asked for tone it obeys 8 times of 10 (by chance 5).");
        let mut state = state;
        let head = |matrix: [[f64; 2]; 2], hit_rate| ControlHead {
            objective: "tone".into(),
            n: 10,
            hit_rate,
            within_one: 1.0,
            chance: 0.5,
            spearman: 0.0,
            matrix: matrix.map(|r| r.to_vec()).to_vec(),
            ..Default::default()
        };
        let control = |policy, head| EventBody::Control {
            policy,
            grader: Grader::Gold,
            report: ControlReport { heads: vec![head], ..Default::default() },
        };
        let seq = state.last_seq();
        for (n, body) in [
            control(Answerer::Sft, head([[0.5, 0.5], [0.6, 0.4]], 0.45)),
            control(Answerer::Policy, head([[0.9, 0.1], [0.3, 0.7]], 0.8)),
        ]
        .into_iter()
        .enumerate()
        {
            state.apply(Event { seq: seq + 1 + n as u64, time: 0, body });
        }
        assert_eq!(
            state.verdict(),
            "On questions it never saw: asked for tone it obeys 8 times of 10 (by chance 5). \"warm\" is met 70 % of the time (was 40 %)."
        );
    }

    #[test]
    fn what_looks_wrong_is_said_and_what_does_not_is_not() {
        let asked = [[5.0, 5.0], [5.0, 5.0]];
        assert_eq!(run(12, asked, 0.5).alerts(), Vec::<String>::new());
        let collapsed = run(12, asked, 0.995).alerts();
        assert!(collapsed.len() == 1 && collapsed[0].contains("\"cold\""), "{collapsed:?}");
        // Where one class alone is asked for, all answers may have it.
        assert_eq!(run(12, [[9.0, 0.0], [0.0, 0.0]], 0.995).alerts(), Vec::<String>::new());
        let mut state = run(12, asked, 0.5);
        for step in state.policies.values_mut().flatten() {
            (step.kl, step.zero_std_groups) = (60.0, 0.9);
        }
        let two = state.alerts();
        assert!(two.len() == 2 && two[0].contains("60 nats") && two[1].contains("90 %"), "{two:?}");
        state.policies.values_mut().flatten().for_each(|p| p.reward = f64::NAN);
        assert!(state.alerts()[0].contains("no number"));
    }

    #[test]
    fn a_reward_model_that_is_pleased_alone_is_exploited() {
        let mut state = run(12, [[5.0, 5.0], [5.0, 5.0]], 0.5);
        let point = |step, proxy, gold| KlPoint { step, proxy_hit_rate: proxy, gold_hit_rate: Some(gold), ..Default::default() };
        state.frontier = vec![point(1, 0.4, 0.4), point(5, 0.6, 0.6), point(9, 0.7, 0.5)];
        assert!(state.alerts()[0].contains("Since step 5") && state.alerts()[0].contains("10 points"), "{:?}", state.alerts());
        state.frontier[2].gold_hit_rate = Some(0.58);
        assert!(state.alerts().is_empty(), "a small fall is noise");
        (state.frontier[2].gold_hit_rate, state.frontier[2].proxy_hit_rate) = (Some(0.5), 0.55);
        assert!(state.alerts().is_empty(), "both fell");
    }

    #[test]
    fn the_matrix_at_a_step_knows_nothing_later() {
        let mut state = run(20, [[1.0, 0.0], [0.0, 1.0]], 0.5);
        for p in state.policies.values_mut().flatten().filter(|p| p.step > 10) {
            p.matrix[0] = vec![vec![0.0, 1.0], vec![1.0, 0.0]];
        }
        let hit = |step| state.rollout_matrix_at(0, step).and_then(|m| diagonal(&m));
        assert_eq!((hit(10), hit(15), hit(20), hit(0)), (Some(1.0), Some(0.5), Some(0.0), None));
    }
}
