//! Control: what is asked for against what is achieved, by the grader and by the reward model.
//! What is asked is in `plan.rs`.

use super::answer::{Answering, Ask};
use super::figures::Answered;
use super::grader::Grading;
use super::plan::{Plan, Probe, Purpose};
use crate::data::Claims;
use crate::model::generate::{Answer, Sampling};
use crate::model::kernels::Kernels;
use crate::model::packed::{Group, Packed, chunks};
use crate::model::transformer::Transformer;
use crate::text::corpus::EncodedQuestion;
use crate::text::{Said, Tokenizer};
use anyhow::Result;
use moslim_shared::config::EvaluationConfig;
use moslim_shared::distribution::argmax;
use moslim_shared::memory::ASKED;
use moslim_shared::metrics::{slope, spearman, wilson};
use moslim_shared::objective::Objective;
use moslim_shared::summary::{ControlHead, ControlReport, Diversity, PartReport, WordingReport};
use rand::SeedableRng;
use rand::rngs::StdRng;

/// Answers whose likelihood is taken.
const READ: usize = 128;

/// What a method answered to a plan.
pub struct Examination {
    /// `[probe][objective]`, by the grader and by the reward model.
    graded: Vec<Vec<usize>>,
    model: Vec<Vec<usize>>,
    fluent: Vec<bool>,
    texts: Vec<String>,
    /// What was written, `[probe]`, with the end of the sequence where it was.
    tokens: Vec<Vec<u32>>,
    /// Claims, where the prompt wants some.
    claims: Vec<Option<Claims>>,
}

/// Asks a method everything that is planned. `each` is told how many answers are done and may stop the evaluation.
///
/// # Errors
/// When the tokenizer fails, or `each` does.
pub fn examine<B: Kernels>(
    x: &Answering<B>,
    plan: &Plan,
    grading: &Grading<B>,
    config: &EvaluationConfig,
    max_new_tokens: usize,
    seed: u64,
    mut each: impl FnMut(usize) -> Result<()>,
) -> Result<Examination> {
    let mut out = Examination {
        graded: Vec::new(),
        model: Vec::new(),
        fluent: Vec::new(),
        texts: Vec::new(),
        tokens: Vec::new(),
        claims: Vec::new(),
    };
    for (c, chunk) in plan.probes.chunks(ASKED).enumerate() {
        let sampling =
            Sampling { temperature: config.temperature, top_p: 1.0, max_new_tokens, seed: seed ^ ((c as u64 + 1) << 32) };
        let asks: Vec<(usize, Ask)> = chunk.iter().map(|p| (p.question, Ask::of(p.preference.clone()))).collect();
        let answers = x.answer(&asks, &sampling)?;
        let pairs: Vec<(usize, &Answer)> = chunk.iter().map(|p| p.question).zip(&answers).collect();
        out.model.extend(x.classified(&pairs).iter().map(|heads| heads.iter().map(|p| argmax(p)).collect::<Vec<usize>>()));
        for ((grades, text), probe) in grading.grade(x, &pairs)?.into_iter().zip(chunk) {
            out.claims.push(grading.seeks_claims(&probe.preference).then_some(grades.claims));
            out.graded.push(grades.classes);
            out.fluent.push(grades.fluent);
            out.texts.push(text);
        }
        out.tokens.extend(answers.into_iter().map(|a| a.tokens));
        each(out.graded.len())?;
    }
    Ok(out)
}

/// Mean log-likelihood of a token of the answers under `model`, asked without a wish, nats; over [`READ`] answers at most, spread over the
/// plan. `None` where nothing was written.
pub fn likelihood<B: Kernels>(
    examination: &Examination,
    plan: &Plan,
    model: &Transformer<B>,
    (questions, tokenizer): (&[EncodedQuestion], &Tokenizer),
) -> Option<f64> {
    let step = plan.len().div_ceil(READ).max(1);
    let some = || plan.probes.iter().zip(&examination.tokens).step_by(step).filter(|(_, answer)| !answer.is_empty());
    let prompts: Vec<Vec<u32>> = some().map(|(p, _)| tokenizer.untagged_prompt(&questions[p.question].tokens)).collect();
    let groups: Vec<Group> = prompts.iter().zip(some()).map(|(p, (_, a))| Group { prompt: p, answers: vec![a] }).collect();
    let (mut sum, mut count) = (0.0, 0);
    for groups in chunks::<B, _>(&groups, Group::tokens) {
        let log_probs: Vec<f32> = model.answer_log_probs(&Packed::new(groups), 1.0).into_data().to_vec().unwrap_or_default();
        sum += log_probs.iter().map(|&l| f64::from(l)).sum::<f64>();
        count += log_probs.len();
    }
    (count > 0).then(|| sum / count as f64)
}

/// Asks the first `count` prompts of `plan` that name several classes, and fit into the policy's context however they are
/// worded, in every way that the method's prompts can say it.
///
/// # Errors
/// When the tokenizer fails.
pub fn wordings<B: Kernels>(
    x: &Answering<B>,
    plan: &Plan,
    grading: &Grading<B>,
    count: usize,
    sampling: &Sampling,
) -> Result<Vec<WordingReport>> {
    let ways = x.route.wordings(matches!(x.tokenizer.manner(0).said, Said::Both(_)));
    let asks = |probe: &Probe, wording| (probe.question, Ask { wording, ..Ask::of(probe.preference.clone()) });
    let mut probes: Vec<&Probe> = Vec::new();
    for probe in plan.probes.iter().filter(|p| p.purpose == Purpose::Joint) {
        let all: Vec<(usize, Ask)> = ways.iter().map(|&wording| asks(probe, wording)).collect();
        if probes.len() < count && x.fit(&all, sampling.max_new_tokens)? {
            probes.push(probe);
        }
    }
    let asked: usize = probes.iter().map(|p| p.preference.active()).sum();
    if asked == 0 {
        return Ok(Vec::new());
    }
    let mut out = Vec::new();
    for &wording in ways {
        let asks: Vec<(usize, Ask)> = probes.iter().map(|p| asks(p, wording)).collect();
        let mut met = 0;
        let answers = x.answer(&asks, sampling)?;
        let pairs: Vec<(usize, &Answer)> = probes.iter().map(|p| p.question).zip(&answers).collect();
        for (probe, (achieved, _)) in probes.iter().zip(grading.grade(x, &pairs)?) {
            met += probe.preference.asked().filter(|&(i, class)| achieved.classes[i] == class).count();
        }
        out.push(WordingReport { wording, n: probes.len(), hit_rate: met as f64 / asked as f64 });
    }
    Ok(out)
}

impl Examination {
    /// Control as the grader and as the reward model see it; `baseline`: what the win rate is against; `parts`: names of the parts
    /// of the split.
    pub fn reports(
        &self,
        plan: &Plan,
        (questions, parts): (&[EncodedQuestion], &[String]),
        objectives: &[Objective],
        baseline: Option<&Self>,
    ) -> [ControlReport; 2] {
        let unique = unique(&self.texts);
        let topics: Vec<usize> = plan.probes.iter().map(|p| questions[p.question].topic).collect();
        [(&self.graded, baseline.map(|b| &b.graded)), (&self.model, baseline.map(|b| &b.model))].map(|(achieved, other)| {
            let answered = Answered {
                plan,
                achieved,
                other: other.map(Vec::as_slice),
                fluent: &self.fluent,
                unique: &unique,
                claims: &self.claims,
                objectives,
            };
            let mut report = report(plan, achieved, &self.texts, objectives);
            let all: Vec<usize> = (0..plan.len()).collect();
            let figures = answered.figures(&all);
            report.joint_hit_rate = figures.joint_hit_rate;
            report.held_out_hit_rate = figures.held_out_hit_rate;
            report.fluency = figures.fluency;
            report.on_topic = self.claims.iter().flatten().any(|c| c.all > 0).then_some(figures.on_topic);
            report.diversity = Diversity { unique: figures.unique, ..diversity(&self.texts) };
            report.empty =
                self.texts.iter().filter(|t| !t.contains(char::is_alphanumeric)).count() as f64 / self.texts.len().max(1) as f64;
            if other.is_some() {
                let joint = plan.probes.iter().filter(|p| p.purpose == Purpose::Joint).count();
                report.win_rate = figures.win_rate;
                report.win_rate_interval = wilson(figures.win_rate * joint as f64, joint);
            }
            report.intervals = Some(answered.intervals(&topics, &mut StdRng::seed_from_u64(0xC1)));
            report.parts = parts
                .iter()
                .enumerate()
                .map(|(n, part)| {
                    let own: Vec<usize> = all.iter().copied().filter(|&p| questions[plan.probes[p].question].part == n).collect();
                    PartReport { part: part.clone(), n: own.len(), figures: answered.figures(&own) }
                })
                .filter(|part| part.n > 0)
                .collect();
            report
        })
    }
}

/// Which texts no other equals.
fn unique(texts: &[String]) -> Vec<bool> {
    let mut whole: std::collections::HashMap<&str, usize> = std::collections::HashMap::new();
    texts.iter().for_each(|t| *whole.entry(t).or_default() += 1);
    texts.iter().map(|t| whole[t.as_str()] == 1).collect()
}

/// Distinct words and pairs of words.
fn diversity(texts: &[String]) -> Diversity {
    let (mut words, mut pairs) = (std::collections::HashMap::new(), std::collections::HashMap::new());
    for text in texts {
        let split: Vec<&str> = text.split_whitespace().collect();
        split.iter().for_each(|w| *words.entry(*w).or_insert(0usize) += 1);
        split.windows(2).for_each(|w| *pairs.entry((w[0], w[1])).or_insert(0usize) += 1);
    }
    let share = |distinct: usize, all: usize| distinct as f64 / all.max(1) as f64;
    Diversity {
        distinct_1: share(words.len(), words.values().sum()),
        distinct_2: share(pairs.len(), pairs.values().sum()),
        unique: 0.0,
    }
}

/// Sums up `achieved[probe][objective]` and how long the answers are.
fn report(plan: &Plan, achieved: &[Vec<usize>], texts: &[String], objectives: &[Objective]) -> ControlReport {
    let mut heads = Vec::new();
    for (i, objective) in objectives.iter().enumerate() {
        let classes = objective.class_count();
        let (mut pairs, mut counts, mut words) = (Vec::new(), vec![vec![0f64; classes]; classes], vec![0.0; classes]);
        for ((p, a), text) in plan.probes.iter().zip(achieved).zip(texts) {
            let Purpose::Single { objective, class } = p.purpose else { continue };
            if objective == i {
                pairs.push((class, a[i]));
                counts[class][a[i]] += 1.0;
                words[class] += text.split_whitespace().count() as f64;
            }
        }
        if pairs.is_empty() {
            continue;
        }
        for (words, row) in words.iter_mut().zip(&counts) {
            *words /= row.iter().sum::<f64>().max(1.0);
        }
        let matrix: Vec<Vec<f64>> = counts
            .iter()
            .map(|row| {
                let n: f64 = row.iter().sum();
                row.iter().map(|c| c / n.max(1.0)).collect()
            })
            .collect();
        let near = |distance: usize| {
            let share =
                |asked: usize| (0..classes).filter(|g| g.abs_diff(asked) <= distance).map(|g| matrix[asked][g]).sum::<f64>();
            (0..classes).map(share).sum::<f64>() / classes as f64
        };
        let (asked, got): (Vec<f64>, Vec<f64>) = pairs.iter().map(|&(a, g)| (a as f64, g as f64)).unzip();
        heads.push(ControlHead {
            objective: objective.id.clone(),
            n: pairs.len(),
            hit_rate: near(0),
            within_one: near(1),
            chance: 1.0 / classes as f64,
            spearman: spearman(&asked, &got),
            matrix,
            words,
        });
    }
    let (mut hits, mut n) = (0.0, 0.0);
    for (p, a) in plan.probes.iter().zip(achieved).filter(|(p, _)| p.purpose == Purpose::Trained) {
        hits += p.preference.asked().filter(|&(i, class)| a[i] == class).count() as f64 / p.preference.active() as f64;
        n += 1.0;
    }
    let trained_hit_rate = if n > 0.0 { hits / n } else { 0.0 };
    let mut by_active: Vec<(f64, f64)> = Vec::new();
    let mut cross_talk = vec![vec![0.0; objectives.len()]; objectives.len()];
    for (p, a) in plan.probes.iter().zip(achieved).filter(|(p, _)| matches!(p.purpose, Purpose::Single { .. } | Purpose::Joint)) {
        let active = p.preference.active();
        by_active.resize(by_active.len().max(active), (0.0, 0.0));
        let (hits, n) = &mut by_active[active - 1];
        *hits += p.preference.asked().filter(|&(i, class)| a[i] == class).count() as f64;
        *n += active as f64;
    }
    for (i, row) in cross_talk.iter_mut().enumerate() {
        let of = |p: &Probe| match p.purpose {
            Purpose::Single { objective, class } if objective == i => Some(class as f64),
            _ => None,
        };
        let asked: Vec<(f64, &Vec<usize>)> = plan.probes.iter().zip(achieved).filter_map(|(p, a)| Some((of(p)?, a))).collect();
        let x: Vec<f64> = asked.iter().map(|(x, _)| *x).collect();
        for (j, cell) in row.iter_mut().enumerate() {
            *cell = slope(&x, &asked.iter().map(|(_, a)| a[j] as f64).collect::<Vec<_>>());
        }
    }
    ControlReport {
        hit_rate_by_active: by_active.into_iter().map(|(hits, n)| if n > 0.0 { hits / n } else { 0.0 }).collect(),
        cross_talk,
        heads,
        trained_hit_rate,
        ..Default::default()
    }
}

#[cfg(test)]
mod tests;
