//! What is shown of a policy while it is optimised: averages of its samples, a few of them, and reward against KL as others see
//! it. Nothing here reaches an optimiser.

use super::setting::{Ready, Setting};
use crate::data::Gold;
use crate::model::TrainBackend;
use crate::policy::rollout::{Prompt, Rollout, classify_answers};
use anyhow::Result;
use moslim_shared::distribution::argmax;
use moslim_shared::event::{PolicyStep, Sample};
use moslim_shared::objective::Objective;
use moslim_shared::summary::KlPoint;

/// Samples shown per report.
const SHOWN_SAMPLES: usize = 4;

/// Where the policy stands between reward and KL, as the reward model, the gold grader and the held-out reward model see its
/// samples.
///
/// # Errors
/// When the tokenizer fails.
pub fn kl_point<B: TrainBackend>(
    report: &PolicyStep,
    rollouts: &[Rollout],
    prompts: &[Prompt],
    setting: &Setting,
    ready: &Ready<B>,
) -> Result<KlPoint> {
    let gold = setting.gold.as_deref().map(|gold| gold_classes(rollouts, prompts, setting, gold)).transpose()?;
    let held_out = ready.held_out.as_ref().map(|model| {
        let answers: Vec<(usize, &[u32])> = rollouts.iter().map(|r| (r.prompt, r.answer.tokens.as_slice())).collect();
        classify_answers(model, &answers, prompts, &setting.corpus.train_questions, &setting.tokenizer, false).answers
    });
    Ok(KlPoint {
        step: report.step,
        kl: report.kl,
        proxy: report.score,
        proxy_hit_rate: hit_rate(rollouts, prompts, |n, i| argmax(&rollouts[n].distributions[i])),
        gold_hit_rate: gold.map(|classes| hit_rate(rollouts, prompts, |n, i| classes[n][i])),
        held_out_hit_rate: held_out.map(|seen| hit_rate(rollouts, prompts, |n, i| argmax(&seen[n][i]))),
    })
}
/// Share of the classes asked for that are met; `achieved(rollout, objective)` tells the class.
fn hit_rate(rollouts: &[Rollout], prompts: &[Prompt], achieved: impl Fn(usize, usize) -> usize) -> f64 {
    let (mut hits, mut asked) = (0.0, 0.0);
    for (n, r) in rollouts.iter().enumerate() {
        for (i, t) in prompts[r.prompt].preference.asked() {
            asked += 1.0;
            hits += f64::from(u8::from(achieved(n, i) == t));
        }
    }
    hits / f64::max(asked, 1.0)
}

/// Class of each objective by the gold grader, `[rollout][objective]`.
fn gold_classes(rollouts: &[Rollout], prompts: &[Prompt], setting: &Setting, gold: &dyn Gold) -> Result<Vec<Vec<usize>>> {
    let class = |r: &Rollout| {
        let text = setting.tokenizer.decode(&r.answer.tokens)?;
        Ok(gold.grade(&setting.corpus.train_questions[prompts[r.prompt].question].text, &text).classes)
    };
    rollouts.iter().map(class).collect()
}

/// Averages of a batch of rollouts.
pub fn describe(rollouts: &[Rollout], prompts: &[Prompt], objectives: &[Objective]) -> PolicyStep {
    let n = rollouts.len().max(1) as f64;
    let mean = |f: &dyn Fn(&Rollout) -> f64| rollouts.iter().map(f).sum::<f64>() / n;
    let tokens: f64 = rollouts.iter().map(|r| r.answer.tokens.len() as f64).sum();
    let entropy: f64 = rollouts.iter().flat_map(|r| &r.answer.entropies).map(|&e| e as f64).sum();
    let mut step = PolicyStep {
        reward: mean(&|r| r.reward),
        score: mean(&|r| r.score),
        kl: mean(&|r| r.kl),
        entropy: entropy / tokens.max(1.0),
        length: tokens / n,
        eos_rate: mean(&|r| f64::from(r.answer.ended)),
        ..Default::default()
    };
    for (i, objective) in objectives.iter().enumerate() {
        let classes = objective.class_count();
        let mut mass = vec![0.0; classes];
        let mut matrix = vec![vec![0.0; classes]; classes];
        let (mut contribution, mut on_target, mut asked) = (0.0, 0.0, 0.0);
        for r in rollouts {
            for (m, p) in mass.iter_mut().zip(&r.distributions[i]) {
                *m += p / n;
            }
            if let Some(class) = prompts[r.prompt].preference.0[i] {
                asked += 1.0;
                contribution += r.contributions[i];
                on_target += r.distributions[i][class];
                for (m, p) in matrix[class].iter_mut().zip(&r.distributions[i]) {
                    *m += p;
                }
            }
        }
        step.distributions.push(mass);
        step.matrix.push(matrix);
        step.contributions.push(contribution / f64::max(asked, 1.0));
        step.on_target.push(on_target / f64::max(asked, 1.0));
    }
    step
}

/// The first sample of the first few groups, ready to be shown; where some prompts have weights, of the others, as far as there are any: a
/// sample says which classes were asked for, and nothing of weights.
pub fn show(rollouts: &[Rollout], prompts: &[Prompt], setting: &Setting) -> Result<Vec<Sample>> {
    let mut seen = std::collections::HashSet::new();
    let weighed = |r: &Rollout| prompts[r.prompt].weights.is_some();
    let all = rollouts.iter().all(weighed);
    rollouts
        .iter()
        .filter(|r| (all || !weighed(r)) && seen.insert(r.prompt))
        .take(SHOWN_SAMPLES)
        .map(|r| {
            let prompt = &prompts[r.prompt];
            Ok(Sample {
                question: setting.corpus.train_questions[prompt.question].text.clone(),
                preference: prompt.preference.clone(),
                answer: setting.tokenizer.decode(&r.answer.tokens)?,
                distributions: r.distributions.clone(),
                contributions: r.contributions.clone(),
                penalty: r.penalty,
                score: r.score,
                kl: r.kl,
                reward: r.reward,
                advantage: r.advantage,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::generate::Answer;
    use moslim_shared::preference::Preference;

    fn rollout(prompt: usize, first: f64, contribution: f64) -> Rollout {
        Rollout {
            index: prompt,
            prompt,
            answer: Answer::default(),
            distributions: vec![vec![first, 1.0 - first]],
            contributions: vec![contribution],
            penalty: 0.0,
            score: contribution,
            kl: 0.0,
            reward: contribution,
            reference_log_probs: Vec::new(),
            asked: vec![true],
            expected: Vec::new(),
            advantage: 0.0,
            per_token: None,
        }
    }

    #[test]
    fn figures_of_classes_are_of_the_prompts_that_ask_for_them() {
        let objectives = [Objective::new("a", "", "", &["0", "1"])];
        let prompt = |class: Option<usize>, weights: Option<Vec<f64>>| Prompt {
            question: 0,
            preference: Preference(vec![class]),
            weights,
            tokens: Vec::new(),
        };
        let weighed = || prompt(None, Some(vec![1.0]));
        let rollouts = [rollout(0, 0.75, 0.5), rollout(1, 0.25, 2.5)];
        let prompts = [prompt(Some(0), None), weighed()];
        let step = describe(&rollouts, &prompts, &objectives);
        assert_eq!((step.on_target, step.contributions, step.reward), (vec![0.75], vec![0.5], 1.5));
        assert_eq!((step.matrix[0][0].clone(), step.distributions), (vec![0.75, 0.25], vec![vec![0.5, 0.5]]));
        assert_eq!(hit_rate(&rollouts, &prompts, |n, i| argmax(&rollouts[n].distributions[i])), 1.0);
        // Where nobody asks for a class, none is met.
        let prompts = [weighed(), weighed()];
        let step = describe(&rollouts, &prompts, &objectives);
        assert_eq!((step.on_target, step.contributions), (vec![0.0], vec![0.0]));
        assert_eq!(hit_rate(&rollouts, &prompts, |_, _| 0), 0.0);
    }
}
