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
    use crate::data::world::{self, HARMLESSNESS, Rules, objectives};
    use crate::data::{Gold, Grades};
    use crate::evaluate::little;
    use crate::text::corpus::Encoded;

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

    /// Every question says which preference it cannot meet.
    struct Cannot;

    impl Gold for Cannot {
        fn grade(&self, _question: &str, _answer: &str) -> Grades {
            Grades::default()
        }

        fn meets(&self, question: &str, preference: &Preference) -> bool {
            preference.print(&little::objectives()) != question
        }
    }

    /// Questions of one token, their number.
    fn saying(texts: &[&str]) -> Vec<EncodedQuestion> {
        let question =
            |(n, text): (usize, &&str)| EncodedQuestion { text: text.to_string(), tokens: vec![n as u32], topic: n, part: 0 };
        texts.iter().enumerate().map(question).collect()
    }

    /// A row that answers the first question.
    fn row(labels: [Option<usize>; 3]) -> Encoded {
        Encoded { tokens: vec![90, 0, 91, 5, 92], answer: 3, question: 1..2, labels: labels.to_vec(), part: 0 }
    }

    fn counts(questions: usize, joint: usize, held_out: usize) -> EvaluationConfig {
        EvaluationConfig { questions, joint, held_out, ..Default::default() }
    }

    /// The highest classes of the first and of the third objective are held out together.
    const PAIR: [(usize, usize); 2] = [(0, 1), (2, 4)];

    #[test]
    fn held_out_pairs_are_asked_for_where_each_of_the_two_can_be_controlled_and_both_met() {
        let objectives = little::objectives();
        let questions = saying(&["nothing", "a=0", "c=2", "a=1,c=4"]);
        // Of two known answers one has the pair.
        let rows = [row([Some(1), None, Some(4)]), row([Some(1), Some(2), Some(0)])];
        let combinations = Combinations::new(Some(&Cannot), &rows);
        let plan = |steered: &[usize]| Plan::new(&counts(20, 0, 9), &questions, &combinations, &objectives, steered, &[PAIR], 1);
        let whole = plan(&[0, 1, 2]);
        let of = |purpose: Purpose| whole.probes.iter().filter(move |p| p.purpose == purpose);
        assert_eq!((of(Purpose::HeldOut).count(), of(Purpose::Trained).count()), (9, 9));
        let pair = Preference(vec![Some(1), None, Some(4)]);
        assert!(of(Purpose::HeldOut).all(|p| p.question == 0 && p.preference == pair));
        let other = Preference(vec![Some(1), None, Some(0)]);
        assert!(of(Purpose::Trained).all(|p| p.question == 0 && p.preference == other));
        // Alone, an objective is asked for where all of its classes can be met, whichever is asked for.
        let asked = |objective: usize| {
            let own = |p: &&Probe| matches!(p.purpose, Purpose::Single { objective: own, .. } if own == objective);
            let own: Vec<usize> = whole.probes.iter().filter(own).map(|p| p.question).collect();
            (own.len(), [0, 1, 2, 3].map(|q| own.contains(&q)))
        };
        assert_eq!(asked(0), (40, [true, false, true, true]));
        assert_eq!(asked(1), (60, [true; 4]));
        assert_eq!(asked(2), (100, [true, true, false, true]));
        assert_eq!(whole.len(), 40 + 60 + 100 + 18);
        // A pair of which one is not steered is not asked for.
        let purposes: Vec<Purpose> = plan(&[0, 1]).probes.iter().map(|p| p.purpose).collect();
        assert!(purposes.len() == 100 && purposes.iter().all(|p| matches!(p, Purpose::Single { objective: 0 | 1, .. })));
    }

    #[test]
    fn what_no_question_can_reach_is_not_asked_for() {
        let (objectives, rows) = (little::objectives(), []);
        let combinations = Combinations::new(Some(&Cannot), &rows);
        let questions = saying(&["b=1", "b=1"]);
        let plan = Plan::new(&counts(3, 0, 9), &questions, &combinations, &objectives, &[0, 1], &[[(0, 1), (1, 2)]], 1);
        assert_eq!(plan.len(), 6);
        assert!(plan.probes.iter().all(|p| matches!(p.purpose, Purpose::Single { objective: 0, .. })));
        let none = Plan::new(&counts(3, 9, 9), &[], &combinations, &objectives, &[0, 1], &[PAIR], 1);
        assert_eq!((none.len(), none.is_empty(), plan.is_empty()), (0, true, false));
    }

    /// Which classes joint prompts ask for, of a question with this one answer; without rules.
    fn joint(labels: [Option<usize>; 3], steered: &[usize], held_out: &[[(usize, usize); 2]], n: usize) -> Vec<Preference> {
        let (questions, rows) = (saying(&["why"]), [row(labels)]);
        let combinations = Combinations::new(None, &rows);
        let plan = Plan::new(&counts(0, n, 0), &questions, &combinations, &little::objectives(), steered, held_out, 1);
        assert!(plan.probes.iter().all(|p| p.purpose == Purpose::Joint));
        plan.probes.into_iter().map(|p| p.preference).collect()
    }

    #[test]
    fn joint_prompts_ask_for_two_or_more_classes_of_a_real_answer() {
        let labels = [Some(1), Some(2), Some(4)];
        let all = joint(labels, &[0, 1, 2], &[], 2_000);
        assert_eq!(all.len(), 2_000);
        assert!(all.iter().all(|p| p.active() >= 2 && p.asked().all(|(i, class)| labels[i] == Some(class))));
        // Each of three with probability 0.6: three with 0.216, two with 3 x 0.144.
        let three = all.iter().filter(|p| p.active() == 3).count() as f64 / 2_000.0;
        assert!((three - 0.216 / 0.648).abs() < 0.05, "{three}");
        // Without the first and the third together, two are left at a time.
        let trained = joint(labels, &[0, 1, 2], &[PAIR], 60);
        let pairs = [Preference(vec![Some(1), Some(2), None]), Preference(vec![None, Some(2), Some(4)])];
        assert!(trained.len() == 60 && trained.iter().all(|p| pairs.contains(p)) && pairs.iter().all(|p| trained.contains(p)));
        // What is not steered or not known is not asked for, and two are enough.
        let known = Preference(vec![Some(1), None, Some(4)]);
        assert_eq!(joint(labels, &[0, 2], &[], 5), vec![known.clone(); 5]);
        assert_eq!(joint([Some(1), None, Some(4)], &[0, 1, 2], &[], 5), vec![known; 5]);
        assert!(joint([None, Some(2), None], &[0, 1, 2], &[], 2).is_empty() && joint(labels, &[1], &[], 2).is_empty());
    }

    /// Runs with other seeds and policies answer the same questions: what is drawn depends on the task's seed alone.
    #[test]
    fn questions_are_drawn_from_the_seed() {
        let (questions, rows) = (saying(&["why"; 64]), [row([None; 3])]);
        let combinations = Combinations::new(None, &rows);
        let plan = Plan::new(&counts(8, 0, 0), &questions, &combinations, &little::objectives(), &[1], &[], 0x2001);
        let pool = Pool::new((0..64).collect(), &questions);
        // 0xE7A1 and 0x2001 have bits in common.
        let mut rng = StdRng::seed_from_u64(0xC7A0);
        let want: Vec<usize> = (0..24).map(|n| pool.turn(n, &mut rng)).collect();
        assert_eq!(plan.probes.iter().map(|p| p.question).collect::<Vec<_>>(), want);
        assert_eq!(plan.probes[9].purpose, Purpose::Single { objective: 1, class: 1 });
    }
}
