//! How a method answers: which of its policies, and what stands in the prompt.

use crate::data::Gold;
use crate::model::generate::{Answer, Sampling, generate};
use crate::model::kernels::Kernels;
use crate::model::mixture::mixture;
use crate::model::packed::Group;
use crate::model::transformer::Transformer;
use crate::policy::rollout::ended_answer;
use crate::reward::frozen::FrozenRewardModel;
use crate::text::corpus::EncodedQuestion;
use crate::text::{Said, Tokenizer, UNSEEN};
use anyhow::Result;
use moslim_shared::mapping::{map_reward, map_weighted};
use moslim_shared::objective::Objective;
use moslim_shared::preference::Preference;
use moslim_shared::summary::Wording;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// What a user wants of an answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Ask {
    /// Classes asked for; none where it is asked for weights.
    pub preference: Preference,
    /// How much each objective weighs, `None` for those that are not steered: what a policy that learnt weights reads in the place of classes.
    pub weights: Option<Vec<Option<f64>>>,
    /// What of the method's menu is taken, where that is nothing that a prompt says: a policy, a mixture, or weights.
    pub offer: Option<usize>,
    pub wording: Wording,
}

impl Ask {
    /// Asks for classes, as in training.
    pub fn of(preference: Preference) -> Self {
        Self { preference, weights: None, offer: None, wording: Wording::Tags }
    }

    /// The weights that it is asked for, of all objectives.
    pub fn weighed(&self) -> Option<Vec<f64>> {
        self.weights.as_ref().map(|weights| weights.iter().map(|weight| weight.unwrap_or(0.0)).collect())
    }
}

/// How a method turns an [`Ask`] into a policy and a prompt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Route {
    /// The first policy, asked without tags.
    Untagged,
    /// The first policy reads tags, or weights where it learnt those, too.
    Tags,
    /// The first policy reads standardised scores as text; `mean` and `std` of each objective, in classes.
    Scores { mean: Vec<f64>, std: Vec<f64> },
    /// Of several policies the one whose answers come nearest to what is asked for; `behaviour[policy][objective]`: mean class,
    /// measured on training questions; `weights[policy]`: of all objectives. Where they are `mixed`, each is the mixture of the
    /// policies that there are, one for every objective with a weight, by its weights; else it is one of them.
    Nearest {
        behaviour: Vec<Vec<f64>>,
        #[serde(default)]
        weights: Vec<Vec<f64>>,
        #[serde(default)]
        mixed: bool,
    },
    /// Of this many answers of the first policy the one that the reward model likes best, or the rules where they choose.
    BestOf(usize),
}

impl Route {
    /// Answers that are sampled for one.
    pub fn samples(&self) -> usize {
        if let Self::BestOf(n) = self { *n } else { 1 }
    }

    /// How the policy that training began with is asked. It never learnt the lab's tags, and is asked without; words an off-the-shelf model
    /// may understand before any training, so that it is asked as the policy is, and a policy is compared with what a prompt alone does.
    pub fn of_start(tokenizer: &Tokenizer) -> Self {
        if tokenizer.reads_text() { Self::Tags } else { Self::Untagged }
    }

    /// Which policy answers.
    pub fn policy(&self, ask: &Ask, objectives: &[Objective]) -> usize {
        let Self::Nearest { behaviour, .. } = self else { return 0 };
        if let Some(n) = ask.offer {
            return n;
        }
        let distance = |means: &[f64]| {
            let miss =
                ask.preference.asked().map(|(i, t)| (means[i] - t as f64).abs() / (objectives[i].class_count() - 1) as f64);
            miss.sum::<f64>()
        };
        let mut best = 0;
        for (n, means) in behaviour.iter().enumerate() {
            if distance(means) < distance(&behaviour[best]) {
                best = n;
            }
        }
        best
    }

    /// The policy that [`Route::policy`] names, of those that are kept; `steered`: the objectives that mixed ones are for.
    pub fn take<'a, B: Kernels>(&self, n: usize, policies: &'a [Transformer<B>], steered: &[usize]) -> Cow<'a, Transformer<B>> {
        match self {
            Self::Nearest { weights, mixed: true, .. } => {
                let own: Vec<f32> = steered.iter().map(|&i| weights[n][i] as f32).collect();
                Cow::Owned(mixture(policies, &own))
            }
            _ => Cow::Borrowed(&policies[n]),
        }
    }

    /// How many policies are kept, where `steered` objectives are steered.
    pub fn kept(&self, steered: usize) -> usize {
        match self {
            Self::Nearest { mixed: true, .. } => steered,
            Self::Nearest { behaviour, .. } => behaviour.len(),
            _ => 1,
        }
    }

    /// How prompts can say what is asked for; empty where they say nothing. `mixed`: whether training said it in tags, in words and in
    /// both, each of which is then asked apart.
    pub fn wordings(&self, mixed: bool) -> &'static [Wording] {
        match self {
            Self::Untagged | Self::Nearest { .. } | Self::BestOf(_) => &[],
            Self::Tags if mixed => &Wording::ALL,
            Self::Tags => &[Wording::Tags, Wording::Reversed, Wording::Words, Wording::Missing],
            // Scores are told apart by their place.
            Self::Scores { .. } => &[Wording::Tags, Wording::Words, Wording::Missing],
        }
    }

    /// What it is asked.
    ///
    /// # Errors
    /// When the tokenizer fails.
    pub fn prompt(&self, question: &[u32], ask: &Ask, tokenizer: &Tokenizer, objectives: &[Objective]) -> Result<Vec<u32>> {
        if ask.wording == Wording::Words && !self.wordings(false).is_empty() {
            let said = ask.preference.asked().map(|(i, t)| objectives[i].said(t, UNSEEN));
            return tokenizer.prompt_after(&said.collect::<Vec<_>>().join(" "), question);
        }
        if let (Self::Tags, Some(weights)) = (self, &ask.weights) {
            return tokenizer.weighed_prompt(question, weights);
        }
        let nothing = Preference::none(ask.preference.0.len());
        let preference = if ask.wording == Wording::Missing { &nothing } else { &ask.preference };
        Ok(match self {
            Self::Untagged | Self::Nearest { .. } | Self::BestOf(_) => tokenizer.untagged_prompt(question),
            Self::Tags => {
                let mut manner = tokenizer.manner(preference.0.len());
                match ask.wording {
                    Wording::Reversed => manner.order.reverse(),
                    Wording::TagsAlone => manner.said = Said::Tags,
                    Wording::WordsAlone => manner.said = Said::Words(0),
                    Wording::Tags | Wording::Words | Wording::Missing => {}
                }
                tokenizer.prompt(question, preference, &manner)?
            }
            Self::Scores { mean, std } => {
                let z = |(i, t): (usize, &Option<usize>)| t.map(|t| (t as f64 - mean[i]) / std[i].max(1e-3));
                let scores: Vec<Option<f64>> = preference.0.iter().enumerate().map(z).collect();
                tokenizer.scored_prompt(question, &scores)?
            }
        })
    }
}

/// A method ready to answer.
pub struct Answering<'a, B: Kernels> {
    pub policies: &'a [Transformer<B>],
    pub route: &'a Route,
    pub reward_model: &'a FrozenRewardModel<B>,
    pub tokenizer: &'a Tokenizer,
    pub questions: &'a [EncodedQuestion],
    pub objectives: &'a [Objective],
    /// Weights of each trade-off, over all objectives.
    pub trade_offs: &'a [Vec<f64>],
    /// Positions of the steered objectives: those that mixed policies are for, in order.
    pub steered: &'a [usize],
    /// Rules that choose among several answers instead of the reward model.
    pub rules: Option<&'a dyn Gold>,
}

impl<B: Kernels> Answering<'_, B> {
    /// Whether every prompt and `new` more tokens fit into the policy's context.
    ///
    /// # Errors
    /// When the tokenizer fails.
    pub fn fit(&self, asks: &[(usize, Ask)], new: usize) -> Result<bool> {
        for (question, ask) in asks {
            let prompt = self.route.prompt(&self.questions[*question].tokens, ask, self.tokenizer, self.objectives)?;
            if prompt.len() + new > self.policies[0].context() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The weights behind an offer that is no combination of classes.
    pub fn offered_weights(&self, offer: usize) -> Option<&Vec<f64>> {
        match self.route {
            Route::Nearest { weights, .. } => weights.get(offer),
            _ => self.trade_offs.get(offer),
        }
    }

    /// One answer for each (question, ask), in order.
    ///
    /// # Errors
    /// When the tokenizer fails.
    pub fn answer(&self, asks: &[(usize, Ask)], sampling: &Sampling) -> Result<Vec<Answer>> {
        let mut out = vec![Answer::default(); asks.len()];
        let mut by_policy: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (i, (_, ask)) in asks.iter().enumerate() {
            by_policy.entry(self.route.policy(ask, self.objectives)).or_default().push(i);
        }
        for (n, mine) in by_policy {
            let policy = self.route.take(n, self.policies, self.steered);
            let prompts = mine
                .iter()
                .map(|&i| self.route.prompt(&self.questions[asks[i].0].tokens, &asks[i].1, self.tokenizer, self.objectives))
                .collect::<Result<Vec<_>>>()?;
            let inputs: Vec<&[u32]> = prompts.iter().map(Vec::as_slice).collect();
            let samples = self.route.samples();
            let answers = generate(&policy, &inputs, samples, self.tokenizer.eos, sampling);
            let chosen: Vec<Answer> =
                if samples == 1 { answers } else { self.best(&mine.iter().map(|&i| &asks[i]).collect::<Vec<_>>(), answers)? };
            for (i, answer) in mine.into_iter().zip(chosen) {
                out[i] = answer;
            }
        }
        Ok(out)
    }

    /// Of each ask's answers, neighbours in `answers`, the one with the highest reward; the first on a tie.
    fn best(&self, asks: &[&(usize, Ask)], answers: Vec<Answer>) -> Result<Vec<Answer>> {
        let samples = answers.len() / asks.len();
        let pairs: Vec<(usize, &Answer)> = answers.iter().enumerate().map(|(n, a)| (asks[n / samples].0, a)).collect();
        let distributions = match self.rules {
            Some(rules) => self.certain(rules, &pairs)?,
            None => self.classified(&pairs),
        };
        let c = &self.reward_model.calibration;
        let higher: Vec<bool> = self.objectives.iter().map(|o| o.higher_is_better).collect();
        let reward = |n: usize| {
            let ask = &asks[n / samples].1;
            match ask.offer {
                Some(t) => map_weighted(&c.mapping, &c.statistics, &distributions[n], &self.trade_offs[t], &higher),
                None => map_reward(&c.mapping, &c.statistics, &distributions[n], &ask.preference),
            }
            .scalar
        };
        let best = |a: usize| {
            let all = a * samples..(a + 1) * samples;
            let best = all.clone().fold(all.start, |best, n| if reward(n) > reward(best) { n } else { best });
            answers[best].clone()
        };
        Ok((0..asks.len()).map(best).collect())
    }

    /// What rules say about (question, answer) pairs, as distributions of which each has all of its mass on one class.
    fn certain(&self, rules: &dyn Gold, pairs: &[(usize, &Answer)]) -> Result<Vec<Vec<Vec<f64>>>> {
        let one = |(q, answer): &(usize, &Answer)| {
            let classes = rules.grade(&self.questions[*q].text, &self.tokenizer.decode(&answer.tokens)?).classes;
            let heads = self.objectives.iter().zip(classes);
            Ok(heads.map(|(o, class)| (0..o.class_count()).map(|c| f64::from(u8::from(c == class))).collect()).collect())
        };
        pairs.iter().map(one).collect()
    }

    /// What the reward model says about (question, answer) pairs, `[pair][objective][class]`.
    pub fn classified(&self, pairs: &[(usize, &Answer)]) -> Vec<Vec<Vec<f64>>> {
        self.classified_by(self.reward_model, pairs)
    }

    /// What `model` says about (question, answer) pairs, `[pair][objective][class]`.
    pub fn classified_by(&self, model: &FrozenRewardModel<B>, pairs: &[(usize, &Answer)]) -> Vec<Vec<Vec<f64>>> {
        let texts: Vec<(Vec<u32>, Vec<u32>)> = pairs
            .iter()
            .map(|(q, a)| {
                let question = self.tokenizer.untagged_prompt(&self.questions[*q].tokens);
                (question, ended_answer(&a.tokens, self.tokenizer.eos))
            })
            .collect();
        let groups: Vec<Group> = texts.iter().map(|(q, a)| Group { prompt: q, answers: vec![a] }).collect();
        model.distributions(&groups)
    }
}

#[cfg(test)]
mod tests;
