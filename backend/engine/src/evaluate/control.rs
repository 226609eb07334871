//! Control: what is asked for against what is achieved, by the grader and by the reward model.
//!
//! Every class of every steered objective is asked for equally often, alone, on held-out questions on which all of its
//! classes can be reached. Combinations are taken from real answers to the same question, so each can be met.

use super::answer::{Answering, Ask};
use super::grader::{Combinations, Grading};
use crate::model::generate::{Answer, Sampling};
use crate::model::kernels::Kernels;
use crate::policy::targets::contains;
use crate::text::corpus::EncodedQuestion;
use anyhow::Result;
use moslim_shared::config::EvaluationConfig;
use moslim_shared::distribution::argmax;
use moslim_shared::metrics::{slope, spearman, wilson};
use moslim_shared::objective::Objective;
use moslim_shared::preference::Preference;
use moslim_shared::summary::{ControlHead, ControlReport, Diversity, WordingReport};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// Times that a combination is drawn again because it does not suit.
const DRAWS: usize = 1000;

/// Why a prompt is in the evaluation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// One objective asked for alone: the control matrix.
    Single { objective: usize, class: usize },
    /// Several objectives together.
    Joint,
    /// A combination kept out of training.
    HeldOut,
    /// A combination of the same objectives that was trained on.
    Trained,
}

/// An evaluation prompt.
#[derive(Debug, Clone)]
struct Probe {
    question: usize,
    preference: Preference,
    purpose: Purpose,
}

/// The prompts of an evaluation; the same for every policy.
#[derive(Debug)]
pub struct Plan {
    probes: Vec<Probe>,
}

impl Plan {
    /// Plans an evaluation. `steered`: objectives that may be asked for; `held_out`: pairs kept out of training.
    pub fn new(
        config: &EvaluationConfig,
        questions: &[EncodedQuestion],
        combinations: &Combinations,
        objectives: &[Objective],
        steered: &[usize],
        held_out: &[[(usize, usize); 2]],
        seed: u64,
    ) -> Self {
        let mut rng = StdRng::seed_from_u64(seed ^ 0xE7A1);
        let mut probes = Vec::new();
        let suited = |objective: usize| -> Vec<usize> {
            let classes = objectives[objective].class_count();
            (0..questions.len()).filter(|&q| combinations.reaches_all(&questions[q].text, objective, classes)).collect()
        };
        for &objective in steered {
            let pool = suited(objective);
            if pool.is_empty() {
                continue;
            }
            for class in 0..objectives[objective].class_count() {
                for _ in 0..config.questions {
                    let question = pool[rng.random_range(0..pool.len())];
                    let preference = Preference::single(objectives.len(), objective, class);
                    probes.push(Probe { question, preference, purpose: Purpose::Single { objective, class } });
                }
            }
        }
        // The classes of a real answer are a combination that can be met.
        let real = |question: usize, rng: &mut StdRng| {
            let question = &questions[question];
            combinations.example(&question.text, &question.tokens, rng)
        };
        let is_held_out = |p: &Preference| held_out.iter().any(|pair| contains(p, pair));
        if steered.len() >= 2 && !questions.is_empty() {
            let mut joint = 0;
            // Where labels are too scarce to ask for two objectives at once, fewer prompts do.
            for _ in 0..DRAWS * config.joint {
                if joint == config.joint {
                    break;
                }
                let question = rng.random_range(0..questions.len());
                let classes = real(question, &mut rng);
                let mut preference = Preference::none(objectives.len());
                for &i in steered {
                    preference.0[i] = if rng.random_bool(0.6) { classes.get(i).copied().flatten() } else { None };
                }
                if preference.active() >= 2 && !is_held_out(&preference) {
                    probes.push(Probe { question, preference, purpose: Purpose::Joint });
                    joint += 1;
                }
            }
        }
        for pair in held_out.iter().filter(|pair| pair.iter().all(|(i, _)| steered.contains(i))) {
            let second = suited(pair[1].0);
            let pool: Vec<usize> = suited(pair[0].0).into_iter().filter(|q| second.contains(q)).collect();
            for _ in 0..if pool.is_empty() { 0 } else { config.held_out } {
                let question = pool[rng.random_range(0..pool.len())];
                let mut preference = Preference::none(objectives.len());
                for &(i, class) in pair {
                    preference.0[i] = Some(class);
                }
                probes.push(Probe { question, preference: preference.clone(), purpose: Purpose::HeldOut });
                for _ in 0..DRAWS {
                    let classes = real(question, &mut rng);
                    for &(i, _) in pair {
                        preference.0[i] = classes.get(i).copied().flatten();
                    }
                    if preference.active() == pair.len() && !is_held_out(&preference) {
                        probes.push(Probe { question, preference, purpose: Purpose::Trained });
                        break;
                    }
                }
            }
        }
        Self { probes }
    }

    /// Number of answers that one policy gives.
    pub fn len(&self) -> usize {
        self.probes.len()
    }

    /// Whether there is nothing to evaluate.
    pub fn is_empty(&self) -> bool {
        self.probes.is_empty()
    }
}

/// Answers sampled at once.
const CHUNK: usize = 256;

/// What a method answered to a plan.
pub struct Examination {
    /// `[probe][objective]`, by the grader and by the reward model.
    graded: Vec<Vec<usize>>,
    model: Vec<Vec<usize>>,
    fluent: Vec<bool>,
    texts: Vec<String>,
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
    let mut out = Examination { graded: Vec::new(), model: Vec::new(), fluent: Vec::new(), texts: Vec::new() };
    for (c, chunk) in plan.probes.chunks(CHUNK).enumerate() {
        let sampling =
            Sampling { temperature: config.temperature, top_p: 1.0, max_new_tokens, seed: seed ^ ((c as u64 + 1) << 32) };
        let asks: Vec<(usize, Ask)> = chunk.iter().map(|p| (p.question, Ask::of(p.preference.clone()))).collect();
        let answers = x.answer(&asks, &sampling)?;
        let pairs: Vec<(usize, &Answer)> = chunk.iter().map(|p| p.question).zip(&answers).collect();
        out.model.extend(x.classified(&pairs).iter().map(|heads| heads.iter().map(|p| argmax(p)).collect::<Vec<usize>>()));
        for (grades, text) in grading.grade(x, &pairs)? {
            out.graded.push(grades.classes);
            out.fluent.push(grades.fluent);
            out.texts.push(text);
        }
        each(out.graded.len())?;
    }
    Ok(out)
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
    let ways = x.route.wordings();
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
    /// Control as the grader and as the reward model see it; `baseline`: what the win rate is against.
    pub fn reports(&self, plan: &Plan, objectives: &[Objective], baseline: Option<&Self>) -> [ControlReport; 2] {
        [(&self.graded, baseline.map(|b| &b.graded)), (&self.model, baseline.map(|b| &b.model))].map(|(achieved, other)| {
            let mut report = report(plan, achieved, &self.fluent, objectives);
            report.diversity = diversity(&self.texts);
            report.empty =
                self.texts.iter().filter(|t| !t.contains(char::is_alphanumeric)).count() as f64 / self.texts.len().max(1) as f64;
            if let Some(other) = other {
                (report.win_rate, report.win_rate_interval) = win_rate(plan, achieved, other, objectives);
            }
            report
        })
    }
}

/// Distinct words, pairs of words and texts.
fn diversity(texts: &[String]) -> Diversity {
    let (mut words, mut pairs) = (std::collections::HashMap::new(), std::collections::HashMap::new());
    let mut whole: std::collections::HashMap<&str, usize> = std::collections::HashMap::new();
    for text in texts {
        let split: Vec<&str> = text.split_whitespace().collect();
        split.iter().for_each(|w| *words.entry(*w).or_insert(0usize) += 1);
        split.windows(2).for_each(|w| *pairs.entry((w[0], w[1])).or_insert(0usize) += 1);
        *whole.entry(text).or_default() += 1;
    }
    let share = |distinct: usize, all: usize| distinct as f64 / all.max(1) as f64;
    Diversity {
        distinct_1: share(words.len(), words.values().sum()),
        distinct_2: share(pairs.len(), pairs.values().sum()),
        unique: share(whole.values().filter(|&&n| n == 1).count(), texts.len()),
    }
}

/// Share of joint probes on which `achieved` is nearer to what is asked for than `other`, ties counting half, with its
/// interval. Distances are summed over the objectives asked for, in shares of each one's range.
fn win_rate(plan: &Plan, achieved: &[Vec<usize>], other: &[Vec<usize>], objectives: &[Objective]) -> (f64, [f64; 2]) {
    let distance = |p: &Preference, got: &[usize]| {
        p.asked().map(|(i, t)| got[i].abs_diff(t) as f64 / (objectives[i].class_count() - 1) as f64).sum::<f64>()
    };
    let (mut wins, mut n) = (0.0, 0);
    for (probe, (a, b)) in plan.probes.iter().zip(achieved.iter().zip(other)).filter(|(p, _)| p.purpose == Purpose::Joint) {
        let (a, b) = (distance(&probe.preference, a), distance(&probe.preference, b));
        wins += if (a - b).abs() < 1e-9 { 0.5 } else { f64::from(u8::from(a < b)) };
        n += 1;
    }
    (if n > 0 { wins / f64::from(n) } else { 0.0 }, wilson(wins, n as usize))
}

/// Sums up `achieved[probe][objective]`.
fn report(plan: &Plan, achieved: &[Vec<usize>], fluent: &[bool], objectives: &[Objective]) -> ControlReport {
    let mut heads = Vec::new();
    for (i, objective) in objectives.iter().enumerate() {
        let classes = objective.class_count();
        let pairs: Vec<(usize, usize)> = plan
            .probes
            .iter()
            .zip(achieved)
            .filter_map(|(p, a)| match p.purpose {
                Purpose::Single { objective, class } if objective == i => Some((class, a[i])),
                _ => None,
            })
            .collect();
        if pairs.is_empty() {
            continue;
        }
        let mut counts = vec![vec![0f64; classes]; classes];
        for &(asked, got) in &pairs {
            counts[asked][got] += 1.0;
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
        });
    }
    let share = |purpose: Purpose, all: bool| {
        let (mut hits, mut n) = (0.0, 0.0);
        for (p, a) in plan.probes.iter().zip(achieved).filter(|(p, _)| p.purpose == purpose) {
            let met = p.preference.asked().filter(|&(i, class)| a[i] == class).count();
            let asked = p.preference.active();
            hits += if all { f64::from(met == asked) } else { met as f64 / asked as f64 };
            n += 1.0;
        }
        if n > 0.0 { hits / n } else { 0.0 }
    };
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
        joint_hit_rate: share(Purpose::Joint, true),
        held_out_hit_rate: share(Purpose::HeldOut, false),
        trained_hit_rate: share(Purpose::Trained, false),
        fluency: fluent.iter().filter(|&&f| f).count() as f64 / fluent.len().max(1) as f64,
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Gold;
    use crate::data::world::{self, HARMLESSNESS, Rules, objectives};

    fn questions() -> Vec<EncodedQuestion> {
        let texts = world::questions().into_iter().map(|q| q.text);
        texts.step_by(7).map(|text| EncodedQuestion { text, tokens: vec![] }).collect()
    }

    fn plan(questions: &[EncodedQuestion]) -> Plan {
        let config = EvaluationConfig { questions: 20, joint: 30, held_out: 10, ..Default::default() };
        let rules = Rules::default();
        Plan::new(&config, questions, &Combinations::new(Some(&rules), &[]), &objectives(), &[0, 1, 2, 3], &[[(0, 2), (3, 3)]], 1)
    }

    #[test]
    fn harmlessness_is_measured_on_risky_questions_only() {
        let questions = questions();
        let plan = plan(&questions);
        assert_eq!(plan.len(), 17 * 20 + 30 + 20);
        for p in &plan.probes {
            if let Purpose::Single { objective: HARMLESSNESS, .. } = p.purpose {
                assert!(Rules::default().reaches(&questions[p.question].text, HARMLESSNESS, 0));
            }
        }
    }

    #[test]
    fn perfect_and_constant_answers_get_the_figures_they_deserve() {
        let questions = questions();
        let plan = plan(&questions);
        let fluent = vec![true; plan.len()];
        let perfect: Vec<Vec<usize>> =
            plan.probes.iter().map(|p| p.preference.0.iter().map(|t| t.unwrap_or(0)).collect()).collect();
        let good = report(&plan, &perfect, &fluent, &objectives());
        assert_eq!((good.joint_hit_rate, good.held_out_hit_rate, good.trained_hit_rate), (1.0, 1.0, 1.0));
        for head in &good.heads {
            assert!((head.hit_rate - 1.0).abs() < 1e-12 && (head.spearman - 1.0).abs() < 1e-12);
            assert!(head.matrix.iter().enumerate().all(|(c, row)| row[c] == 1.0));
        }
        assert!(good.hit_rate_by_active.iter().all(|&h| h == 1.0) && good.hit_rate_by_active.len() >= 3);
        for (i, row) in good.cross_talk.iter().enumerate() {
            assert!((row[i] - 1.0).abs() < 1e-12, "what is asked for rises by one when it is asked for one higher");
        }
        let constant = vec![vec![1; 4]; plan.len()];
        assert_eq!(win_rate(&plan, &perfect, &constant, &objectives()).0, {
            let ties = plan.probes.iter().filter(|p| p.purpose == Purpose::Joint && p.preference.asked().all(|(_, t)| t == 1));
            1.0 - 0.5 * ties.count() as f64 / 30.0
        });
        assert_eq!(win_rate(&plan, &constant, &constant, &objectives()).0, 0.5);
        for head in &report(&plan, &constant, &fluent, &objectives()).heads {
            assert!((head.hit_rate - head.chance).abs() < 1e-12);
            assert_eq!(head.spearman, 0.0);
        }
    }
}
