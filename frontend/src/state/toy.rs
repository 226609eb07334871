//! A policy small enough to be seen whole: it chooses among ten written answers to one question. It is paid and trained by the functions
//! that the trainer uses; only its size is a toy's.

use crate::words::t;
use moslim_shared::advantage::{dr_grpo, grpo, rloo};
use moslim_shared::distribution::{entropy, softmax};
use moslim_shared::mapping::{MappingConfig, MappingFunction, RewardStatistics, map_reward};
use moslim_shared::objective::Objective;
use moslim_shared::preference::Preference;

/// The question.
pub const QUESTION: &str = "How do I keep bread fresh?";

/// An answer, and its classes by the rules: how much it helps, and how long it is.
pub struct Answer {
    pub text: &'static str,
    pub classes: [usize; 2],
}

const fn answer(text: &'static str, help: usize, length: usize) -> Answer {
    Answer { text, classes: [help, length] }
}

/// All answers. None helps fully and is short: that cannot be had.
pub const ANSWERS: [Answer; 10] = [
    answer("Good question!", 0, 0),
    answer("Use a bread box.", 1, 0),
    answer("Keep it cool.", 1, 0),
    answer("Bread is a fine thing, and people have baked it for thousands of years.", 0, 1),
    answer("Wrap it in cloth and keep it in a box.", 1, 1),
    answer("Wrap it in cloth, box it, and freeze what you will not eat soon.", 2, 1),
    answer("Freeze it in slices, and toast them when you want them.", 2, 1),
    answer(
        "Many people love bread! There are so many kinds, dark and light, and every one of them has friends everywhere.",
        0,
        2,
    ),
    answer("A box helps. Some people like one of wood, others one of clay, and my aunt had a blue one for many years.", 1, 2),
    answer(
        "Wrap it in cloth, keep it in a box away from heat, never in the fridge, and freeze in slices what you will not eat in two days.",
        2,
        2,
    ),
];

/// What is translated where it is shown.
#[cfg(test)]
pub fn texts() -> impl Iterator<Item = &'static str> {
    ANSWERS.iter().map(|a| a.text).chain([QUESTION])
}

/// The answer that a flawed reward model takes for the most helpful one; real help it finds only so-so.
pub const FLATTERY: usize = 7;

/// The two objectives.
pub fn objectives() -> [Objective; 2] {
    [
        Objective::new("helpfulness", t("Helpfulness"), t("How much it helps."), &[t("no help"), t("some help"), t("full help")]),
        Objective::new("length", t("Length"), t("How long it is."), &[t("short"), t("medium"), t("long")]).lower_is_better(),
    ]
}

/// How the policy is trained.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Settings {
    pub optimizer: Optimizer,
    /// Answers drawn for every prompt and step.
    pub samples: usize,
    pub learning_rate: f64,
    /// KL coefficient.
    pub beta: f64,
    /// Whether the reward model takes flattery for help.
    pub flawed: bool,
    pub seed: u64,
}

impl Settings {
    /// Settings that nothing is wrong with.
    pub const PLAIN: Self =
        Self { optimizer: Optimizer::Rloo, samples: 4, learning_rate: 0.5, beta: 0.05, flawed: false, seed: 1 };
}

impl Default for Settings {
    fn default() -> Self {
        Self::PLAIN
    }
}

/// Whose advantages it learns from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Optimizer {
    Rloo,
    Grpo,
    DrGrpo,
}

impl Optimizer {
    pub const ALL: [Self; 3] = [Self::Rloo, Self::Grpo, Self::DrGrpo];

    pub fn title(self) -> &'static str {
        match self {
            Self::Rloo => "RLOO",
            Self::Grpo => "GRPO",
            Self::DrGrpo => "Dr. GRPO",
        }
    }

    fn advantages(self, rewards: &[f64]) -> Vec<f64> {
        match self {
            Self::Rloo => rloo(rewards),
            Self::Grpo => grpo(rewards),
            Self::DrGrpo => dr_grpo(rewards),
        }
    }
}

/// What is known of the policy after a step, over all prompts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Figures {
    /// Mean mapped reward, before the KL penalty.
    pub reward: f64,
    /// Share of the classes asked for that are met, by the rules.
    pub met: f64,
    /// KL divergence from its start, nats.
    pub kl: f64,
    /// Entropy of its choice, nats.
    pub entropy: f64,
}

/// The policy, and how it is paid.
#[derive(Debug, Clone, PartialEq)]
pub struct Toy {
    pub settings: Settings,
    pub prompts: Vec<Preference>,
    /// `[prompt][answer]`.
    logits: Vec<Vec<f64>>,
    start: Vec<f64>,
    /// `[prompt][answer]`: what each answer is paid.
    pub rewards: Vec<Vec<f64>>,
    random: u64,
    pub history: Vec<Figures>,
}

/// What the reward model says of an answer: most of the mass on its class, some beside it.
pub fn distributions(answer: usize, flawed: bool) -> Vec<Vec<f64>> {
    let mut classes = ANSWERS[answer].classes;
    if flawed {
        classes[0] = if answer == FLATTERY { 2 } else { classes[0].min(1) };
    }
    classes.iter().map(|c| softmax(&(0..3).map(|k| -1.8 * (k as f64 - *c as f64).abs()).collect::<Vec<_>>(), 1.0)).collect()
}

impl Toy {
    /// A policy that has learnt to talk and nothing else.
    pub fn new(prompts: Vec<Preference>, settings: Settings) -> Self {
        let mapping = MappingConfig { function: MappingFunction::RankedProbability, ..Default::default() };
        let all: Vec<Vec<Vec<f64>>> = (0..ANSWERS.len()).map(|a| distributions(a, settings.flawed)).collect();
        let statistics = RewardStatistics::over(&mapping, &all);
        let pay = |p: &Preference| all.iter().map(|d| map_reward(&mapping, &statistics, d, p).scalar).collect();
        let rewards = prompts.iter().map(pay).collect();
        // Answers of medium length come easiest.
        let start: Vec<f64> = ANSWERS.iter().map(|a| if a.classes[1] == 1 { 0.6 } else { 0.0 }).collect();
        let logits = vec![start.clone(); prompts.len()];
        let mut toy =
            Self { settings, prompts, logits, start, rewards, random: settings.seed.wrapping_mul(2) | 1, history: Vec::new() };
        toy.history.push(toy.figures());
        toy
    }

    /// Probabilities of the answers to a prompt.
    pub fn policy(&self, prompt: usize) -> Vec<f64> {
        softmax(&self.logits[prompt], 1.0)
    }

    /// A number in [0, 1): the same for the same seed, everywhere.
    fn draw(&mut self) -> f64 {
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }

    /// One step of policy optimisation on every prompt. Returns the answers that were drawn for the first.
    pub fn step(&mut self) -> Vec<usize> {
        let Settings { optimizer, samples, learning_rate, beta, .. } = self.settings;
        let reference = softmax(&self.start, 1.0);
        let mut first = Vec::new();
        for prompt in 0..self.prompts.len() {
            let policy = self.policy(prompt);
            let drawn: Vec<usize> = (0..samples).map(|_| pick(&policy, self.draw())).collect();
            let paid: Vec<f64> =
                drawn.iter().map(|&a| self.rewards[prompt][a] - beta * (policy[a] / reference[a]).ln()).collect();
            let advantages = optimizer.advantages(&paid);
            for (answer, logit) in self.logits[prompt].iter_mut().enumerate() {
                // The gradient of ln p(drawn) with respect to a logit is 1 where it was drawn, less its probability.
                let gradient: f64 =
                    drawn.iter().zip(&advantages).map(|(d, a)| a * (f64::from(*d == answer) - policy[answer])).sum();
                *logit += learning_rate * gradient / samples as f64;
            }
            if prompt == 0 {
                first = drawn;
            }
        }
        self.history.push(self.figures());
        first
    }

    fn figures(&self) -> Figures {
        let reference = softmax(&self.start, 1.0);
        let mut sum = Figures { reward: 0.0, met: 0.0, kl: 0.0, entropy: 0.0 };
        for (n, preference) in self.prompts.iter().enumerate() {
            let policy = self.policy(n);
            let asked = preference.active().max(1) as f64;
            for (a, p) in policy.iter().enumerate() {
                let met = preference.asked().filter(|(i, t)| ANSWERS[a].classes[*i] == *t).count() as f64 / asked;
                sum.reward += p * self.rewards[n][a];
                sum.met += p * met;
                sum.kl += p * (p / reference[a]).ln();
            }
            sum.entropy += entropy(&policy);
        }
        let n = self.prompts.len() as f64;
        Figures { reward: sum.reward / n, met: sum.met / n, kl: sum.kl / n, entropy: sum.entropy / n }
    }

    /// Asked x achieved of an objective, over the prompts that ask for it alone.
    pub fn matrix(&self, objective: usize) -> Vec<Vec<f64>> {
        let mut rows = vec![vec![0.0; 3]; 3];
        for (n, preference) in self.prompts.iter().enumerate() {
            if let (1, Some(asked)) = (preference.active(), preference.0[objective]) {
                for (a, p) in self.policy(n).iter().enumerate() {
                    rows[asked][ANSWERS[a].classes[objective]] += p;
                }
            }
        }
        rows
    }
}

/// The entry of a distribution at a number in [0, 1).
fn pick(p: &[f64], at: f64) -> usize {
    let mut left = at;
    for (i, share) in p.iter().enumerate() {
        left -= share;
        if left < 0.0 {
            return i;
        }
    }
    p.len() - 1
}

/// A prompt for every class of every objective alone.
pub fn every_class() -> Vec<Preference> {
    (0..2).flat_map(|i| (0..3).map(move |c| Preference::single(2, i, c))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trained(prompts: Vec<Preference>, settings: Settings, steps: usize) -> Toy {
        let mut toy = Toy::new(prompts, settings);
        for _ in 0..steps {
            toy.step();
        }
        toy
    }

    #[test]
    fn every_optimiser_turns_the_matrices_diagonal() {
        for optimizer in Optimizer::ALL {
            for seed in 1..4 {
                let toy = trained(every_class(), Settings { optimizer, seed, samples: 8, ..Settings::default() }, 300);
                for i in 0..2 {
                    let diagonal: f64 = (0..3).map(|c| toy.matrix(i)[c][c]).sum::<f64>() / 3.0;
                    assert!(diagonal > 0.8, "{optimizer:?}, seed {seed}, objective {i}: {diagonal}");
                }
            }
        }
    }

    #[test]
    fn what_cannot_be_had_is_not_got() {
        let toy = trained(vec![Preference(vec![Some(2), Some(0)])], Settings::default(), 400);
        assert!(ANSWERS.iter().all(|a| a.classes != [2, 0]));
        let last = toy.history[toy.history.len() - 1];
        assert!(last.met < 0.6 && last.reward > toy.history[0].reward, "{last:?}");
    }

    #[test]
    fn the_zoo_shows_what_it_says() {
        let wish = || vec![Preference::single(2, 0, 2)];
        let last = |toy: &Toy| toy.history[toy.history.len() - 1];
        // A flawed reward model is pleased; the rules are not.
        for seed in 1..6 {
            let flawed = Settings { flawed: true, beta: 0.0, samples: 8, learning_rate: 0.8, seed, ..Settings::default() };
            let hacked = trained(wish(), flawed, 300);
            let (first, end) = (hacked.history[0], last(&hacked));
            assert!(end.reward > first.reward + 1.0 && end.met < 0.1 && first.met > 0.3, "seed {seed}: {first:?}, {end:?}");
        }
        // A group of one has no other to be compared with.
        let alone = trained(wish(), Settings { samples: 1, ..Settings::default() }, 100);
        assert_eq!(last(&alone), alone.history[0]);
        // Without a KL penalty it ends with one answer; with a large one it stays near its start.
        let free = trained(wish(), Settings { beta: 0.0, learning_rate: 2.0, ..Settings::default() }, 400);
        let held = trained(wish(), Settings { beta: 5.0, ..Settings::default() }, 400);
        assert!(last(&free).entropy < 0.3, "{:?}", last(&free));
        assert!(last(&held).kl < 0.1 && last(&held).entropy > 1.5, "{:?}", last(&held));
    }

    #[test]
    fn the_same_seed_draws_the_same() {
        let [a, b, c] = [1, 1, 2].map(|seed| trained(every_class(), Settings { seed, ..Settings::default() }, 5));
        assert_eq!(a.history, b.history);
        assert_ne!(a.history, c.history);
        assert_eq!((pick(&[0.25, 0.75], 0.2), pick(&[0.25, 0.75], 0.25), pick(&[0.5, 0.5], 0.999)), (0, 1, 1));
    }
}
