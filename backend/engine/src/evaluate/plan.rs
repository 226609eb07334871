//! The prompts of an evaluation, the same for every policy.
//!
//! Every class of every steered objective is asked for equally often, alone, on held-out questions on which all of its classes can
//! be reached. Combinations are taken from real answers to the same question, so each can be met.

use super::grader::Combinations;
use super::questions::Pool;
use crate::policy::targets::contains;
use crate::text::corpus::EncodedQuestion;
use moslim_shared::config::EvaluationConfig;
use moslim_shared::objective::Objective;
use moslim_shared::preference::Preference;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// Times that a combination is drawn again because it does not suit.
const DRAWS: usize = 1000;

/// Why a prompt is in the evaluation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
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
pub struct Probe {
    pub question: usize,
    pub preference: Preference,
    pub purpose: Purpose,
}

/// The prompts of an evaluation; the same for every policy.
#[derive(Debug)]
pub struct Plan {
    pub probes: Vec<Probe>,
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
        let suited = |objective: usize| -> Pool {
            let reaches = |q: &usize| combinations.reaches_all(&questions[*q].text, objective, objectives);
            Pool::new((0..questions.len()).filter(reaches).collect(), questions)
        };
        for &objective in steered {
            let pool = suited(objective);
            if pool.is_empty() {
                continue;
            }
            for class in 0..objectives[objective].class_count() {
                for n in 0..config.questions {
                    let question = pool.turn(n, &mut rng);
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
            let (mut joint, everything) = (0, Pool::new((0..questions.len()).collect(), questions));
            // Where labels are too scarce to ask for two objectives at once, fewer prompts do.
            for _ in 0..DRAWS * config.joint {
                if joint == config.joint {
                    break;
                }
                let question = everything.turn(joint, &mut rng);
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
            let mut wanted = Preference::none(objectives.len());
            for &(i, class) in pair {
                wanted.0[i] = Some(class);
            }
            let second: std::collections::HashSet<usize> = suited(pair[1].0).all().collect();
            // Both must be reachable together, too.
            let both = |q: &usize| second.contains(q) && combinations.meets(&questions[*q].text, &wanted);
            let pool = Pool::new(suited(pair[0].0).all().filter(both).collect(), questions);
            for n in 0..if pool.is_empty() { 0 } else { config.held_out } {
                let question = pool.turn(n, &mut rng);
                let mut preference = wanted.clone();
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

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::data::Gold;
    use crate::data::world::{self, HARMLESSNESS, Rules, objectives};

    /// Every part of the split, with few questions in the second.
    pub fn questions() -> Vec<EncodedQuestion> {
        let all = world::questions().into_iter().step_by(7).enumerate();
        all.map(|(n, q)| EncodedQuestion {
            text: q.text,
            tokens: vec![],
            topic: q.topic,
            part: if n % 10 == 0 { 1 } else { 2 * (n % 2) },
        })
        .collect()
    }

    pub fn plan(questions: &[EncodedQuestion]) -> Plan {
        let config = EvaluationConfig { questions: 21, joint: 30, held_out: 9, ..Default::default() };
        let rules = Rules::default();
        Plan::new(&config, questions, &Combinations::new(Some(&rules), &[]), &objectives(), &[0, 1, 2, 3], &[[(0, 2), (3, 3)]], 1)
    }

    #[test]
    fn prompts_ask_for_what_can_be_met_and_for_all_parts_alike() {
        let questions = questions();
        let (plan, rules) = (plan(&questions), Rules::default());
        assert_eq!(plan.len(), 17 * 21 + 30 + 18);
        let mut parts = [0; 3];
        for p in &plan.probes {
            let question = &questions[p.question];
            assert!(rules.meets(&question.text, &p.preference), "{} {:?}", question.text, p.preference);
            parts[question.part] += 1;
            if let Purpose::Single { objective: HARMLESSNESS, .. } = p.purpose {
                assert!(rules.meets(&question.text, &Preference::single(4, HARMLESSNESS, 0)));
            }
        }
        assert_eq!(parts, [135; 3]);
    }

    #[test]
    fn pairs_that_no_answer_can_have_are_not_asked_for() {
        let (questions, rules) = (questions(), Rules::default());
        let config = EvaluationConfig { questions: 3, joint: 3, held_out: 9, ..Default::default() };
        let combinations = Combinations::new(Some(&rules), &[]);
        let asked = |pair| {
            let plan = Plan::new(&config, &questions, &combinations, &objectives(), &[0, 1, 2, 3], &[pair], 1);
            plan.probes.iter().filter(|p| p.purpose == Purpose::HeldOut).count()
        };
        // Four points take more than six words.
        assert_eq!((asked([(0, 4), (3, 0)]), asked([(0, 4), (3, 2)])), (0, 9));
    }
}
