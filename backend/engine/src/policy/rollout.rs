//! Rollouts: prompts with preferences, sampled answers, and everything that their rewards are made of.

use super::targets::{TargetSampler, written};
use crate::data::Gold;
use crate::model::generate::Answer;
use crate::model::kernels::Kernels;
use crate::model::packed::{Group, Packed, chunks, share};
use crate::model::transformer::Transformer;
use crate::reward::frozen::FrozenRewardModel;
use crate::text::Tokenizer;
use crate::text::corpus::EncodedQuestion;
use anyhow::Result;
use moslim_shared::config::PolicyConfig;
use moslim_shared::kl::k1;
use moslim_shared::mapping::{MappedReward, MappingConfig, RewardStatistics, expected_reward, map_group, map_weighted};
use moslim_shared::preference::Preference;
use rand::Rng;
use rand::rngs::StdRng;

/// A prompt that says what is wanted of its answers: classes, or how much objectives weigh.
#[derive(Debug, Clone)]
pub struct Prompt {
    /// Position in the list of questions.
    pub question: usize,
    /// Classes asked for; none where it has weights.
    pub preference: Preference,
    /// Weights of all objectives, in tenths that sum to 1, where it asks for these instead of classes.
    pub weights: Option<Vec<f64>>,
    pub tokens: Vec<u32>,
}

/// One sample with its reward.
#[derive(Debug, Clone)]
pub struct Rollout {
    /// Position among the rollouts of its iteration.
    pub index: usize,
    /// Position in the list of prompts; samples of one prompt form a group.
    pub prompt: usize,
    pub answer: Answer,
    /// `[objective][class]`, calibrated.
    pub distributions: Vec<Vec<f64>>,
    pub contributions: Vec<f64>,
    /// 0, or minus the penalty for an answer that did not end.
    pub penalty: f64,
    /// Mapped reward plus penalty.
    pub score: f64,
    /// `sum_t k1` against the reference, nats.
    pub kl: f64,
    /// `score - beta * kl`
    pub reward: f64,
    /// Log-probability of each token under the reference.
    pub reference_log_probs: Vec<f32>,
    /// Whether each objective is part of the reward.
    pub asked: Vec<bool>,
    /// The mapped reward that the reward model's heads expect before each token; empty where nobody asks for it.
    pub expected: Vec<f64>,
    /// Filled in by the optimiser.
    pub advantage: f64,
    /// Where the advantage differs from token to token.
    pub per_token: Option<Vec<f32>>,
}

impl Rollout {
    /// `k1` of each token.
    pub fn log_ratios(&self) -> Vec<f64> {
        let pairs = self.answer.log_probs.iter().zip(&self.reference_log_probs);
        pairs.map(|(&l, &r)| k1(f64::from(l), f64::from(r))).collect()
    }

    /// One advantage for each token.
    pub fn token_advantages(&self) -> Vec<f32> {
        self.per_token.clone().unwrap_or_else(|| vec![self.advantage as f32; self.answer.tokens.len()])
    }
}

/// What a policy is rewarded for.
#[derive(Debug, Clone, PartialEq)]
pub enum Aim {
    /// What its prompt asks for (MOSLIM).
    Preference,
    /// A weighted sum of the objectives, the same for every prompt; prompts carry no tags.
    Weights(Vec<f64>),
}

impl Aim {
    /// The weights by which answers to `prompt` are rewarded; `None` where they are for the classes that it asks for.
    fn weights<'a>(&'a self, prompt: &'a Prompt) -> Option<&'a [f64]> {
        match self {
            Self::Preference => prompt.weights.as_deref(),
            Self::Weights(weights) => Some(weights.as_slice()),
        }
    }
}

/// Draws `n` prompts; where the aim is what they ask for, they are tagged, or a share of them has weights. `gold` tells what a question can
/// meet.
pub fn draw_prompts(
    n: usize,
    questions: &[EncodedQuestion],
    (targets, gold): (&TargetSampler, Option<&dyn Gold>),
    tokenizer: &Tokenizer,
    aim: &Aim,
    rng: &mut StdRng,
) -> Result<Vec<Prompt>> {
    (0..n)
        .map(|_| {
            let question = rng.random_range(0..questions.len());
            let asked = &questions[question];
            let weights = if *aim == Aim::Preference { targets.draw_weights(rng) } else { None };
            if let Some(weights) = weights {
                let tokens = tokenizer.weighed_prompt(&asked.tokens, &written(&weights, &targets.steered))?;
                return Ok(Prompt { question, preference: Preference::none(weights.len()), weights: Some(weights), tokens });
            }
            let preference = match aim {
                Aim::Preference => targets.draw(&asked.text, gold, rng),
                Aim::Weights(weights) => Preference::none(weights.len()),
            };
            let tokens = tokenizer.prompt(&asked.tokens, &preference, &targets.manner(rng))?;
            Ok(Prompt { question, preference, weights: None, tokens })
        })
        .collect()
}

/// Groups of neighbouring rollouts that answer the same prompt.
pub fn groups<'a>(rollouts: &[&'a Rollout], prompts: &'a [Prompt]) -> Vec<Group<'a>> {
    rollouts
        .chunk_by(|a, b| a.prompt == b.prompt)
        .map(|same| Group {
            prompt: &prompts[same[0].prompt].tokens,
            answers: same.iter().map(|r| r.answer.tokens.as_slice()).collect(),
        })
        .collect()
}

/// Log-probability of every token of every answer under `model`, in order.
pub fn answer_log_probs<B: Kernels>(model: &Transformer<B>, groups: &[Group], temperature: f32) -> Vec<Vec<f32>> {
    let pieces = chunks::<B, _>(groups, Group::tokens);
    let values = share::<B, _, _, _>(model, pieces, |model, groups| {
        let values: Vec<f32> =
            model.answer_log_probs(&Packed::new(groups), temperature).into_data().to_vec().expect("log-probabilities are f32");
        let mut rest = values.as_slice();
        let mut out = Vec::new();
        for answer in groups.iter().flat_map(|g| &g.answers) {
            let (own, tail) = rest.split_at(answer.len());
            out.push(own.to_vec());
            rest = tail;
        }
        out
    });
    values.concat()
}

/// The answer as the reward model reads it: with an end-of-sequence, also where the policy forgot it.
pub fn ended_answer(answer: &[u32], eos: u32) -> Vec<u32> {
    let mut answer = answer.to_vec();
    if answer.last() != Some(&eos) {
        answer.push(eos);
    }
    answer
}

/// What a reward model says about answers to untagged questions.
pub struct Classified {
    /// `[answer][objective][class]`
    pub answers: Vec<Vec<Vec<f64>>>,
    /// What its heads expect before every token, `[answer][token][objective][class]`; empty where nobody asks for it.
    pub beginnings: Vec<Vec<Vec<Vec<f64>>>>,
    /// Tokens that it read.
    pub read: u64,
}

/// Reads `answers`: position of the prompt and tokens; those of one prompt are neighbours, and it is read once for all of them.
pub fn classify_answers<B: Kernels>(
    reward_model: &FrozenRewardModel<B>,
    answers: &[(usize, &[u32])],
    prompts: &[Prompt],
    questions: &[EncodedQuestion],
    tokenizer: &Tokenizer,
    beginnings: bool,
) -> Classified {
    let untagged: Vec<Vec<u32>> = prompts.iter().map(|p| tokenizer.untagged_prompt(&questions[p.question].tokens)).collect();
    let ended: Vec<Vec<u32>> = answers.iter().map(|(_, a)| ended_answer(a, tokenizer.eos)).collect();
    let mut rest = ended.as_slice();
    let groups: Vec<Group> = answers
        .chunk_by(|a, b| a.0 == b.0)
        .map(|same| {
            let (own, tail) = rest.split_at(same.len());
            rest = tail;
            Group { prompt: &untagged[same[0].0], answers: own.iter().map(Vec::as_slice).collect() }
        })
        .collect();
    let read = read(&groups);
    if !beginnings {
        return Classified { answers: reward_model.distributions(&groups), beginnings: Vec::new(), read };
    }
    let [whole, begun] = reward_model.distributions_and_beginnings(&groups);
    let mut begun = begun.into_iter();
    // What was put behind an answer is no token of the policy's.
    let own = |(ended, (_, answer)): (&Vec<u32>, &(usize, &[u32]))| {
        let mut own: Vec<Vec<Vec<f64>>> = begun.by_ref().take(ended.len()).collect();
        own.truncate(answer.len());
        own
    };
    Classified { answers: whole, beginnings: ended.iter().zip(answers).map(own).collect(), read }
}

/// Tokens of all groups; a prompt is read once for all its answers.
pub fn read(groups: &[Group]) -> u64 {
    groups.iter().map(|g| g.tokens() as u64).sum()
}

/// What an aim makes of class distributions: the scalar of every answer, `samples` neighbours to each prompt. For MOSLIM
/// `r = 1/sum m * sum_i m_i (f(p_i, t_i) - avg_i[t_i]) / std_i[t_i]`; for weights, fixed or of the prompt, a weighted sum of the
/// objectives. `higher_is_better`: of each objective.
pub fn map_rewards(
    aim: &Aim,
    mapping: &MappingConfig,
    statistics: &RewardStatistics,
    distributions: &[Vec<Vec<f64>>],
    prompts: &[Prompt],
    samples: usize,
    higher_is_better: &[bool],
) -> Vec<MappedReward> {
    let of_group = |(group, prompt): (&[Vec<Vec<f64>>], &Prompt)| -> Vec<MappedReward> {
        match aim.weights(prompt) {
            Some(weights) => group.iter().map(|d| map_weighted(mapping, statistics, d, weights, higher_is_better)).collect(),
            None => map_group(mapping, statistics, group, &prompt.preference),
        }
    };
    distributions.chunks(samples).zip(prompts).flat_map(of_group).collect()
}

/// What an aim makes of what the heads expect before each token: `[answer][token]`, of `[answer][token][objective][class]`, `samples`
/// neighbours to each prompt.
pub fn map_beginnings(
    aim: &Aim,
    mapping: &MappingConfig,
    statistics: &RewardStatistics,
    beginnings: &[Vec<Vec<Vec<f64>>>],
    prompts: &[Prompt],
    samples: usize,
    higher_is_better: &[bool],
) -> Vec<Vec<f64>> {
    let one = |n: usize, distributions: &Vec<Vec<f64>>| {
        let prompt = &prompts[n / samples];
        match aim.weights(prompt) {
            Some(weights) => map_weighted(mapping, statistics, distributions, weights, higher_is_better).scalar,
            None => expected_reward(mapping, statistics, distributions, &prompt.preference),
        }
    };
    beginnings.iter().enumerate().map(|(n, tokens)| tokens.iter().map(|d| one(n, d)).collect()).collect()
}

/// Puts samples together with what their rewards are made of. All but `prompts`: one for each answer; `samples` neighbours
/// answer the same prompt.
pub fn collect(
    answers: Vec<Answer>,
    reference: Vec<Vec<f32>>,
    distributions: Vec<Vec<Vec<f64>>>,
    mapped: Vec<MappedReward>,
    mut expected: Vec<Vec<f64>>,
    prompts: &[Prompt],
    (aim, config, beta): (&Aim, &PolicyConfig, f64),
) -> Vec<Rollout> {
    let samples = config.samples_per_prompt;
    let parts = answers.into_iter().zip(reference).zip(distributions).zip(mapped).enumerate();
    parts
        .map(|(n, (((answer, reference), distributions), mapped))| {
            let prompt = n / samples;
            let penalty = if answer.ended { 0.0 } else { -config.missing_eos_penalty };
            let score = mapped.scalar + penalty;
            let sum = |values: &[f32]| values.iter().map(|&l| f64::from(l)).sum::<f64>();
            let kl = k1(sum(&answer.log_probs), sum(&reference));
            let asked = match aim.weights(&prompts[prompt]) {
                Some(weights) => weights.iter().map(|&w| w > 0.0).collect(),
                None => prompts[prompt].preference.0.iter().map(Option::is_some).collect(),
            };
            Rollout {
                index: n,
                prompt,
                answer,
                distributions,
                contributions: mapped.contributions,
                penalty,
                score,
                kl,
                // The KL term is part of the reward whether or not the optimiser reads it there.
                reward: score - beta * kl,
                reference_log_probs: reference,
                asked,
                expected: expected.get_mut(n).map(std::mem::take).unwrap_or_default(),
                advantage: 0.0,
                per_token: None,
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Task, world};
    use crate::reward::RewardModel;
    use crate::reward::frozen::Calibration;
    use crate::text::{Manner, Said};
    use burn::backend::Flex;
    use moslim_shared::config::{ModelConfig, RunConfig, TaskConfig};
    use rand::SeedableRng;

    /// Of heads of 2, 2, 2 and 3 classes.
    fn statistics() -> RewardStatistics {
        let each = |of: fn(usize) -> f64| [2, 2, 2, 3].map(|n| (0..n).map(of).collect::<Vec<f64>>()).to_vec();
        RewardStatistics {
            mean: each(|c| 0.2 + 0.1 * c as f64),
            std: each(|c| 0.5 + 0.2 * c as f64),
            expected_mean: vec![0.4, 0.5, 0.6, 1.0],
            expected_std: vec![0.3, 0.4, 0.5, 0.6],
        }
    }

    fn prompts(preferences: &[[Option<usize>; 4]]) -> Vec<Prompt> {
        let of = |(question, wish): (usize, &[Option<usize>; 4])| Prompt {
            question,
            preference: Preference(wish.to_vec()),
            weights: None,
            tokens: Vec::new(),
        };
        preferences.iter().enumerate().map(of).collect()
    }

    /// What heads expect before a token is known of the tokens before it alone, whichever answers are read beside it; what is put behind an
    /// answer that did not end counts for the whole answer only.
    #[test]
    fn heads_are_asked_before_the_tokens_of_the_policy_alone() {
        let splits = Task::load(&TaskConfig { rows: 600, topics: 12, ..Default::default() }, &|_| Ok(None)).unwrap().splits;
        let tokenizer = Tokenizer::train(512, &splits, &world::objectives()).unwrap();
        let classes: Vec<usize> = world::objectives().iter().map(|o| o.class_count()).collect();
        let model = RewardModel::<Flex>::new(
            &ModelConfig { d_model: 24, d_ff: 40, ..Default::default() },
            tokenizer.vocabulary(),
            &classes,
            &Default::default(),
            3,
            &Default::default(),
        );
        let frozen = FrozenRewardModel { models: vec![model], calibration: Calibration::unfitted(classes) };
        let question =
            |text: &str| EncodedQuestion { text: text.into(), tokens: tokenizer.encode(text).unwrap(), topic: 0, part: 0 };
        let (questions, prompts) = ([question("How do I make tea?"), question("Why?")], prompts(&[[None; 4]; 2]));
        let [a, b, c, d] = [31, 32, 33, 34];
        let eos = tokenizer.eos;
        let answers: [(usize, &[u32]); 4] = [(0, &[a, b, c]), (0, &[a, b, d, eos]), (1, &[a]), (1, &[c, b, eos])];
        let told = |answers: &[(usize, &[u32])], beginnings: bool| {
            classify_answers(&frozen, answers, &prompts, &questions, &tokenizer, beginnings)
        };
        let all = told(&answers, true);
        assert_eq!(all.beginnings.iter().map(Vec::len).collect::<Vec<_>>(), [3, 4, 1, 3], "no more than the policy has said");
        // Each question once, and 4, 4, 2 and 3 tokens: every answer is ended, and none twice.
        let prompts_read: usize = questions.iter().map(|q| tokenizer.untagged_prompt(&q.tokens).len()).sum();
        assert_eq!([all.read, told(&answers, false).read], [prompts_read as u64 + 13; 2]);
        assert_eq!([&[a][..], &[a, eos], &[]].map(|answer| ended_answer(answer, eos)), [vec![a, eos], vec![a, eos], vec![eos]]);
        let near = |x: &[Vec<f64>], y: &[Vec<f64>]| {
            x.iter().flatten().zip(y.iter().flatten()).all(|(x, y)| (x - y).abs() < 1e-5) && x.len() == 4
        };
        for ((n, answer), beginnings) in answers.iter().enumerate().zip(&all.beginnings) {
            let alone = told(&[*answer], true);
            assert!(near(&alone.answers[0], &all.answers[n]) && near(&told(&answers, false).answers[n], &all.answers[n]));
            beginnings.iter().zip(&alone.beginnings[0]).for_each(|(x, y)| assert!(near(x, y), "answer {n}"));
        }
        let [first, second, third, fourth] = &all.beginnings[..] else { panic!("four answers") };
        assert!((0..3).all(|t| near(&first[t], &second[t])), "the same tokens before them");
        assert!(near(&third[0], &fourth[0]) && !near(&first[0], &third[0]), "of another question");
        assert!(!near(&first[1], &first[2]) && !near(&third[0], &all.answers[2]));
    }

    #[test]
    fn what_heads_expect_is_mapped_by_what_its_own_prompt_asks() {
        let wishes = [[Some(1), None, None, None], [None, Some(0), None, Some(2)]];
        let prompts = prompts(&wishes);
        let p = |x: f64| vec![vec![x, 1.0 - x], vec![1.0 - x, x], vec![0.5; 2], vec![0.1, x / 2.0, 0.9 - x / 2.0]];
        // Two answers to each prompt, of one to four tokens.
        let beginnings: Vec<Vec<Vec<Vec<f64>>>> =
            (0..4).map(|n| (0..=n).map(|t| p(0.1 + 0.2 * n as f64 + 0.03 * t as f64)).collect()).collect();
        let (statistics, config) = (statistics(), MappingConfig::default());
        let mapped = |aim: &Aim| map_beginnings(aim, &config, &statistics, &beginnings, &prompts, 2, &[true, false, true, true]);
        let asked = mapped(&Aim::Preference);
        let weights = [0.5, 0.25, 0.0, 0.25];
        let weighed = mapped(&Aim::Weights(weights.to_vec()));
        for (n, tokens) in beginnings.iter().enumerate() {
            assert_eq!((asked[n].len(), weighed[n].len()), (n + 1, n + 1));
            for (t, token) in tokens.iter().enumerate() {
                let own = Preference(wishes[n / 2].to_vec());
                assert_eq!(asked[n][t], expected_reward(&config, &statistics, token, &own));
                assert_eq!(weighed[n][t], map_weighted(&config, &statistics, token, &weights, &[true, false, true, true]).scalar);
            }
        }
        assert!(asked[1][0] != asked[2][0] && asked[3][0] != asked[3][1] && weighed[3][0] != weighed[3][1]);
    }

    #[test]
    fn prompts_with_weights_are_paid_by_them_and_the_others_by_their_classes() {
        let mut prompts = prompts(&[[Some(1), None, None, None], [None; 4]]);
        prompts[1].weights = Some(vec![0.7, 0.3, 0.0, 0.0]);
        let answer = |x: f64| vec![vec![x, 1.0 - x], vec![1.0 - x, x], vec![0.5; 2], vec![0.1, x / 2.0, 0.9 - x / 2.0]];
        // Two answers to each prompt.
        let answers: Vec<Vec<Vec<f64>>> = [0.2, 0.6, 0.3, 0.9].map(answer).to_vec();
        let (statistics, config, better) = (statistics(), MappingConfig::default(), [true, false, true, true]);
        let mapped = map_rewards(&Aim::Preference, &config, &statistics, &answers, &prompts, 2, &better);
        let asked = map_group(&config, &statistics, &answers[..2], &prompts[0].preference);
        let weighed = |n: usize| map_weighted(&config, &statistics, &answers[n], &[0.7, 0.3, 0.0, 0.0], &better);
        assert_eq!(mapped, [asked[0].clone(), asked[1].clone(), weighed(2), weighed(3)]);
        assert!(mapped[2].scalar != mapped[3].scalar && mapped[2].contributions[1] != 0.0, "{mapped:?}");
        // Before each token, too.
        let begun: Vec<Vec<Vec<Vec<f64>>>> = answers.iter().map(|answer| vec![answer.clone()]).collect();
        let expected = map_beginnings(&Aim::Preference, &config, &statistics, &begun, &prompts, 2, &better);
        assert_eq!(expected[1], [expected_reward(&config, &statistics, &answers[1], &prompts[0].preference)]);
        assert_eq!(expected[3], [weighed(3).scalar]);
        // What weighs nothing is no part of the reward.
        let config = PolicyConfig { samples_per_prompt: 2, ..Default::default() };
        let (own, reference) = (vec![Answer::default(); 4], vec![Vec::new(); 4]);
        let rollouts = collect(own, reference, answers, mapped, Vec::new(), &prompts, (&Aim::Preference, &config, 0.0));
        assert_eq!(rollouts[1].asked, [true, false, false, false]);
        assert_eq!(rollouts[2].asked, [true, true, false, false]);
    }

    #[test]
    fn a_share_of_the_prompts_says_how_much_objectives_weigh() {
        let splits = Task::load(&TaskConfig { rows: 600, topics: 12, ..Default::default() }, &|_| Ok(None)).unwrap().splits;
        let tokenizer = Tokenizer::train(512, &splits, &world::objectives()).unwrap();
        let mut config = RunConfig::default();
        config.targets.objectives = vec!["helpfulness".into(), "verbosity".into()];
        config.targets.weighted_share = Some(0.5);
        let targets = TargetSampler::new(&config, &world::objectives(), std::iter::empty());
        let questions = ["Why?", "How do I make tea?"].map(|text| {
            let tokens = tokenizer.encode(text).unwrap();
            EncodedQuestion { text: text.into(), tokens, topic: 0, part: 0 }
        });
        let drawn = |aim: &Aim| {
            let mut rng = StdRng::seed_from_u64(1);
            draw_prompts(80, &questions, (&targets, None), &tokenizer, aim, &mut rng).unwrap()
        };
        let prompts = drawn(&Aim::Preference);
        let (weighed, asked): (Vec<&Prompt>, Vec<&Prompt>) = prompts.iter().partition(|p| p.weights.is_some());
        assert!(weighed.len() > 20 && asked.len() > 20, "{} of 80", weighed.len());
        for prompt in weighed {
            let tenths: Vec<usize> = prompt.weights.iter().flatten().map(|&w| (10.0 * w).round() as usize).collect();
            let text = format!("<user> {} . . {} {}<assistant>", tenths[0], tenths[3], questions[prompt.question].text);
            assert_eq!((tokenizer.spelt(&prompt.tokens).unwrap(), prompt.preference.active()), (text, 0));
            assert_eq!((tenths.len(), tenths.iter().sum::<usize>()), (4, 10));
        }
        assert!(asked.iter().all(|p| p.preference.active() > 0));
        // In the order of the objectives, or in another.
        let tagged = |p: &Prompt, order: Vec<usize>| {
            let manner = Manner { order, said: Said::Tags };
            tokenizer.prompt(&questions[p.question].tokens, &p.preference, &manner).unwrap() == p.tokens
        };
        assert!(asked.iter().all(|p| tagged(p, vec![0, 1, 2, 3]) || tagged(p, vec![3, 2, 1, 0])));
        assert!([0, 1].iter().all(|n| asked.iter().any(|p| p.question == *n)), "of both questions");
        // A policy for fixed weights is asked for nothing.
        let fixed = drawn(&Aim::Weights(vec![0.5, 0.0, 0.0, 0.5]));
        let bare = |p: &Prompt| tokenizer.untagged_prompt(&questions[p.question].tokens);
        assert!(fixed.iter().all(|p| p.weights.is_none() && p.tokens == bare(p)));
    }

    #[test]
    fn a_reward_is_the_score_less_beta_times_the_kl() {
        let prompts = prompts(&[[Some(1), None, None, None], [None; 4]]);
        let answer = |log_probs: &[f32], ended| Answer { log_probs: log_probs.to_vec(), ended, ..Default::default() };
        let answers = vec![answer(&[-1.0, -2.0], true), answer(&[-1.0], false), answer(&[-0.5], true)];
        let reference = vec![vec![-1.5, -1.0], vec![-3.0], vec![-0.5]];
        let mapped = [1.0, 0.5, -2.0].map(|scalar| MappedReward { scalar, contributions: vec![scalar] }).to_vec();
        let expected = vec![vec![0.1, 0.2], vec![0.3]];
        let config = PolicyConfig { samples_per_prompt: 2, missing_eos_penalty: 2.0, ..Default::default() };
        let aim = (&Aim::Preference, &config, 0.5);
        let all = collect(answers, reference.clone(), vec![Vec::new(); 3], mapped, expected, &prompts, aim);
        // The first is half a nat less likely than under the reference, the second two nats more; it was cut off, which costs 2.
        let told: Vec<_> = all.iter().map(|r| (r.prompt, r.penalty, r.score, r.kl, r.reward)).collect();
        assert_eq!(told, [(0, 0.0, 1.0, -0.5, 1.25), (0, -2.0, -1.5, 2.0, -2.5), (1, 0.0, -2.0, 0.0, -2.0)]);
        assert_eq!([&all[0].expected[..], &all[1].expected, &all[2].expected], [&[0.1, 0.2][..], &[0.3], &[]]);
        assert_eq!(all.iter().map(|r| r.reference_log_probs.clone()).collect::<Vec<_>>(), reference);
    }
}
