//! Control: what is asked for against what is achieved, by the gold judge and by the reward model.
//!
//! Every class of every steered objective is asked for equally often, alone, on held-out questions on which all of its
//! classes can be reached. Combinations are taken from real answers of the world to the same question, so each can be met.

use crate::data::world::World;
use crate::model::generate::{Sampling, generate};
use crate::model::kernels::Kernels;
use crate::model::packed::Group;
use crate::model::transformer::Transformer;
use crate::policy::rollout::judged_answer;
use crate::policy::targets::contains;
use crate::reward::judge::Judge;
use crate::text::Tokenizer;
use crate::text::corpus::EncodedQuestion;
use moslim_shared::config::EvaluationConfig;
use moslim_shared::distribution::argmax;
use moslim_shared::metrics::spearman;
use moslim_shared::objective::Objective;
use moslim_shared::preference::Preference;
use moslim_shared::summary::{ControlHead, ControlReport};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

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
        objectives: &[Objective],
        steered: &[usize],
        held_out: &[[(usize, usize); 2]],
        seed: u64,
    ) -> Self {
        let world = World::get();
        let mut rng = StdRng::seed_from_u64(seed ^ 0xE7A1);
        let mut probes = Vec::new();
        let suited = |objective: usize| -> Vec<usize> {
            (0..questions.len()).filter(|&q| world.can_reach_all(&questions[q].question, objective)).collect()
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
            let question = &questions[question].question;
            world.judge(question, &world.answer(question, rng)).classes
        };
        let is_held_out = |p: &Preference| held_out.iter().any(|pair| contains(p, pair));
        if steered.len() >= 2 && !questions.is_empty() {
            let mut joint = 0;
            while joint < config.joint {
                let question = rng.random_range(0..questions.len());
                let classes = real(question, &mut rng);
                let mut preference = Preference::none(objectives.len());
                for &i in steered {
                    preference.0[i] = rng.random_bool(0.6).then_some(classes[i]);
                }
                if preference.active() >= 2 && !is_held_out(&preference) {
                    probes.push(Probe { question, preference, purpose: Purpose::Joint });
                    joint += 1;
                }
            }
        }
        for pair in held_out.iter().filter(|pair| pair.iter().all(|(i, _)| steered.contains(i))) {
            let pool: Vec<usize> =
                suited(pair[0].0).into_iter().filter(|&q| world.can_reach_all(&questions[q].question, pair[1].0)).collect();
            for _ in 0..if pool.is_empty() { 0 } else { config.held_out } {
                let question = pool[rng.random_range(0..pool.len())];
                let mut preference = Preference::none(objectives.len());
                for &(i, class) in pair {
                    preference.0[i] = Some(class);
                }
                probes.push(Probe { question, preference: preference.clone(), purpose: Purpose::HeldOut });
                loop {
                    let classes = real(question, &mut rng);
                    for &(i, _) in pair {
                        preference.0[i] = Some(classes[i]);
                    }
                    if !is_held_out(&preference) {
                        break;
                    }
                }
                probes.push(Probe { question, preference, purpose: Purpose::Trained });
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

/// What an evaluation needs.
pub struct Examined<'a, B: Kernels> {
    pub policy: &'a Transformer<B>,
    pub judge: &'a Judge<B>,
    pub tokenizer: &'a Tokenizer,
    pub questions: &'a [EncodedQuestion],
    pub objectives: &'a [Objective],
    /// Whether the prompts carry their tags. The SFT baseline, which never learnt any, is asked without.
    pub tagged: bool,
}

/// Answers sampled at once.
const CHUNK: usize = 256;

/// Control of one policy as seen by the gold judge and by the reward model. `each` is told how many answers are done and
/// may stop the evaluation.
pub fn examine<B: Kernels>(
    x: &Examined<B>,
    plan: &Plan,
    config: &EvaluationConfig,
    max_new_tokens: usize,
    seed: u64,
    mut each: impl FnMut(usize) -> anyhow::Result<()>,
) -> anyhow::Result<[ControlReport; 2]> {
    let world = World::get();
    let order: Vec<usize> = (0..x.objectives.len()).collect();
    let (mut gold, mut model, mut fluent) = (Vec::new(), Vec::new(), Vec::new());
    for (c, chunk) in plan.probes.chunks(CHUNK).enumerate() {
        let prompts: Vec<Vec<u32>> = chunk
            .iter()
            .map(|p| {
                let question = &x.questions[p.question].tokens;
                if x.tagged { x.tokenizer.prompt(question, &p.preference, &order) } else { x.tokenizer.untagged_prompt(question) }
            })
            .collect();
        let sampling =
            Sampling { temperature: config.temperature, top_p: 1.0, max_new_tokens, seed: seed ^ ((c as u64 + 1) << 32) };
        let inputs: Vec<&[u32]> = prompts.iter().map(Vec::as_slice).collect();
        let answers = generate(x.policy, &inputs, 1, x.tokenizer.eos, &sampling);
        let judged: Vec<(Vec<u32>, Vec<u32>)> = chunk
            .iter()
            .zip(&answers)
            .map(|(p, a)| {
                let question = x.tokenizer.untagged_prompt(&x.questions[p.question].tokens);
                (question, judged_answer(&a.tokens, x.tokenizer.eos))
            })
            .collect();
        let groups: Vec<Group> = judged.iter().map(|(q, a)| Group { prompt: q, answers: vec![a] }).collect();
        for heads in x.judge.distributions(&groups) {
            model.push(heads.iter().map(|p| argmax(p)).collect::<Vec<usize>>());
        }
        for (probe, answer) in chunk.iter().zip(&answers) {
            let verdict = world.judge(&x.questions[probe.question].question, &x.tokenizer.decode(&answer.tokens)?);
            gold.push(verdict.classes);
            fluent.push(verdict.fluent && answer.ended);
        }
        each(gold.len())?;
    }
    Ok([gold, model].map(|achieved| report(plan, &achieved, &fluent, x.objectives)))
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
    ControlReport {
        heads,
        joint_hit_rate: share(Purpose::Joint, true),
        held_out_hit_rate: share(Purpose::HeldOut, false),
        trained_hit_rate: share(Purpose::Trained, false),
        fluency: fluent.iter().filter(|&&f| f).count() as f64 / fluent.len().max(1) as f64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::world::{HARMLESSNESS, Kind, objectives};

    fn questions() -> Vec<EncodedQuestion> {
        World::get().questions().into_iter().step_by(7).map(|question| EncodedQuestion { question, tokens: vec![] }).collect()
    }

    fn plan(questions: &[EncodedQuestion]) -> Plan {
        let config = EvaluationConfig { questions: 20, joint: 30, held_out: 10, temperature: 1.0 };
        Plan::new(&config, questions, &objectives(), &[0, 1, 2, 3], &[[(0, 2), (3, 3)]], 1)
    }

    #[test]
    fn harmlessness_is_measured_on_risky_questions_only() {
        let questions = questions();
        let plan = plan(&questions);
        assert_eq!(plan.len(), 17 * 20 + 30 + 20);
        for p in &plan.probes {
            if let Purpose::Single { objective: HARMLESSNESS, .. } = p.purpose {
                assert_eq!(World::get().kind(&questions[p.question].question), Kind::Risky);
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
        let constant = vec![vec![1; 4]; plan.len()];
        for head in &report(&plan, &constant, &fluent, &objectives()).heads {
            assert!((head.hit_rate - head.chance).abs() < 1e-12);
            assert_eq!(head.spearman, 0.0);
        }
    }
}
