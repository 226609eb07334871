//! Evaluation on held-out questions: how a method answers, who grades, and what the grades add up to.
//!
//! Here belongs what is asked and how it is counted. Which stages there are before, and what is reported when, is `method/`.

pub mod answer;
pub mod control;
pub mod figures;
pub mod front;
pub mod grader;
pub mod menu;
pub mod plan;
pub mod questions;

/// A lab so small that it is known what its models say: they have no attention, and most of their weights are 0.
#[cfg(test)]
mod little {
    use super::answer::{Answering, Route};
    use super::plan::{Probe, Purpose};
    use crate::data::{Claims, Gold, Grades, Row, Splits};
    use crate::model::architecture::{Architecture, Part};
    use crate::model::transformer::Transformer;
    use crate::reward::RewardModel;
    use crate::reward::frozen::{Calibration, FrozenRewardModel};
    use crate::text::Tokenizer;
    use crate::text::corpus::EncodedQuestion;
    use burn::backend::Flex;
    use burn::module::{Module, ModuleMapper, Param};
    use burn::prelude::*;
    use moslim_shared::config::{HeadPooling, ModelConfig, Precision, RewardModelConfig};
    use moslim_shared::mapping::RewardStatistics;
    use moslim_shared::objective::Objective;
    use moslim_shared::ordinal::RewardLoss;
    use moslim_shared::preference::Preference;

    /// Width of the models: of so many tokens it can be said what follows them.
    const WIDTH: usize = 16;

    /// Words that are one token each.
    pub const WORDS: [&str; 4] = ["red", "green", "blue", "grey"];

    /// Classes that the reward model sees in an answer of one of [`WORDS`].
    const SEEN: [[usize; 3]; 4] = [[0, 2, 4], [1, 0, 1], [1, 1, 2], [0, 0, 3]];

    pub struct Little {
        pub tokenizer: Tokenizer,
        pub objectives: Vec<Objective>,
        /// Of one, two, one and three words, each of a topic of its own; the second is of another part than the rest.
        pub questions: Vec<EncodedQuestion>,
        pub reward_model: FrozenRewardModel<Flex>,
    }

    /// Three objectives of two, three and five classes; of the second less is better.
    pub fn objectives() -> Vec<Objective> {
        let wordings: &[&[&str]] = &[&["Say no.", "Never."], &["Say yes.", "Always."]];
        vec![
            Objective::new("a", "Alpha", "", &["no", "yes"]).in_words(wordings),
            Objective::new("b", "Beta", "", &["low", "middle", "high"]).lower_is_better(),
            Objective::new("c", "Gamma", "", &["0", "1", "2", "3", "4"]),
        ]
    }

    /// A prompt of a plan.
    pub fn probe(question: usize, purpose: Purpose, classes: [Option<usize>; 3]) -> Probe {
        Probe { question, preference: Preference(classes.to_vec()), purpose }
    }

    /// One that asks for one objective.
    pub fn alone(question: usize, objective: usize, class: usize) -> Probe {
        let preference = Preference::single(3, objective, class);
        Probe { question, preference, purpose: Purpose::Single { objective, class } }
    }

    impl Little {
        pub fn new() -> Self {
            let (objectives, all) = (objectives(), WORDS.join(" "));
            let row = Row { question: all.clone(), answer: all, labels: vec![None; 3], part: 0 };
            let splits = Splits { train: vec![row.clone(), row], ..Default::default() };
            let tokenizer = Tokenizer::train(512, &splits, &objectives).unwrap();
            let question = |(n, text): (usize, &str)| EncodedQuestion {
                text: text.into(),
                tokens: tokenizer.question(text).unwrap(),
                topic: n,
                part: usize::from(n == 1),
            };
            let questions: Vec<EncodedQuestion> =
                ["red", "green grey", "blue", "blue red green"].into_iter().enumerate().map(question).collect();
            assert_eq!(questions.iter().map(|q| q.tokens.len()).collect::<Vec<_>>(), [1, 2, 1, 3]);
            let reward_model = reward_model(&tokenizer, &objectives, SEEN);
            Self { tokenizer, objectives, questions, reward_model }
        }

        /// The number of a word, or of a special token.
        pub fn id(&self, text: &str) -> u32 {
            id(&self.tokenizer, text)
        }

        /// A policy that writes after each first token of `next` the second, and after all others whatever comes, with a temperature of 0 the
        /// first entry of the vocabulary.
        pub fn policy(&self, next: &[(&str, &str)], context: usize) -> Transformer<Flex> {
            let next: Vec<(u32, u32)> = next.iter().map(|(from, to)| (self.id(from), self.id(to))).collect();
            bigrams(&self.tokenizer, self.tokenizer.outputs(), context, &next)
        }

        /// A reward model with random weights, which sees whatever it reads.
        pub fn drawn_reward_model(&self) -> FrozenRewardModel<Flex> {
            let classes: Vec<usize> = self.objectives.iter().map(Objective::class_count).collect();
            let config = ModelConfig { d_model: 24, d_ff: 40, ..Default::default() };
            let (vocabulary, settings) = (self.tokenizer.vocabulary(), RewardModelConfig::default());
            let model = RewardModel::<Flex>::new(&config, vocabulary, &classes, &settings, 3, &Default::default());
            FrozenRewardModel { models: vec![model], calibration: Calibration::unfitted(classes) }
        }

        /// A method ready to answer, without trade-offs and rules, and with nothing steered.
        pub fn answering<'a>(&'a self, policies: &'a [Transformer<Flex>], route: &'a Route) -> Answering<'a, Flex> {
            Answering {
                policies,
                route,
                reward_model: &self.reward_model,
                tokenizer: &self.tokenizer,
                questions: &self.questions,
                objectives: &self.objectives,
                trade_offs: &[],
                steered: &[],
                rules: None,
            }
        }
    }

    fn id(tokenizer: &Tokenizer, text: &str) -> u32 {
        match tokenizer.encode(text).unwrap()[..] {
            [word] => word,
            _ => tokenizer.token(text).expect("a special token"),
        }
    }

    /// A model that sees the last token alone. Each first token of `known` has a place of its own in the residual stream, where it is 4
    /// after the norm; the second gets a score of 200 there, and everything else gets 0.
    fn bigrams(tokenizer: &Tokenizer, outputs: usize, context: usize, known: &[(u32, u32)]) -> Transformer<Flex> {
        let config = ModelConfig {
            layers: 1,
            d_model: WIDTH,
            heads: 2,
            kv_heads: 1,
            d_ff: 24,
            context,
            tied_embeddings: false,
            ..Default::default()
        };
        let architecture = Architecture::own(&config, tokenizer.vocabulary(), outputs);
        let numbers = (Precision::F32, Precision::F32);
        Transformer::<Flex>::assemble(&architecture, numbers, context, &Default::default(), |part, shape| {
            let mut values = vec![if part.is_norm() { 1.0 } else { 0.0 }; shape.iter().product()];
            for (n, &(from, to)) in known.iter().enumerate() {
                match part {
                    Part::Embedding => values[from as usize * WIDTH + n] = 1.0,
                    Part::Head => values[n * outputs + to as usize] = 50.0,
                    _ => {}
                }
            }
            Ok(values)
        })
        .unwrap()
    }

    /// A reward model that is sure: of an answer of one of [`WORDS`] it gives the classes of `seen`. Of n equal words the classes are those
    /// nearest to 2n / (n + 1) times these.
    pub fn reward_model(tokenizer: &Tokenizer, objectives: &[Objective], seen: [[usize; 3]; 4]) -> FrozenRewardModel<Flex> {
        let known: Vec<(u32, u32)> = WORDS.iter().map(|word| (id(tokenizer, word), 0)).collect();
        let classes: Vec<usize> = objectives.iter().map(Objective::class_count).collect();
        let settings = RewardModelConfig { loss: RewardLoss::BradleyTerry, pooling: HeadPooling::Mean, ..Default::default() };
        let model = RewardModel::on_trunk(bigrams(tokenizer, 1, 64, &known), &classes, &settings, 1);
        // In the mean over a word, which is 4, and the end of the sequence, which is nothing, it is 2.
        let mut heads = vec![0.0; WIDTH * 3];
        heads.iter_mut().zip(seen.iter().flatten()).for_each(|(weight, &class)| *weight = class as f32 / 2.0);
        let model = model.map(&mut Heads(heads));
        let each = |value: f64| classes.iter().map(|&n| vec![value; n]).collect::<Vec<Vec<f64>>>();
        let statistics =
            RewardStatistics { mean: each(0.0), std: each(1.0), expected_mean: vec![0.0; 3], expected_std: vec![1.0; 3] };
        let thresholds = classes.iter().map(|&n| (1..n).map(|class| class as f64 - 0.5).collect()).collect();
        let calibration = Calibration {
            temperatures: vec![5e-4; 3],
            statistics,
            loss: RewardLoss::BradleyTerry,
            thresholds,
            ..Calibration::unfitted(classes)
        };
        FrozenRewardModel { models: vec![model], calibration }
    }

    /// Puts weights in the place of those of a reward model's heads.
    struct Heads(Vec<f32>);

    impl ModuleMapper<Flex> for Heads {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<Flex, D>>) -> Param<Tensor<Flex, D>> {
            let shape = param.dims();
            if shape[..] != [WIDTH, 3] {
                return param;
            }
            let heads = TensorData::new(self.0.clone(), shape);
            param.map(|_| Tensor::<Flex, D>::from_data(heads, &Default::default()))
        }
    }

    /// Rules that look at the first word of an answer: whether the question has it, and two classes of the word's own; of what is no word of
    /// theirs, the length counts. "grey" is fluent only where the question has it. Every word of an answer is a claim.
    pub struct ByWord;

    impl Gold for ByWord {
        fn grade(&self, question: &str, answer: &str) -> Grades {
            let asked = |word: &str| question.split(' ').any(|own| own == word);
            let first = answer.split(' ').next().unwrap_or_default();
            let [b, c] = match first {
                "red" => [0, 3],
                "green" => [2, 4],
                "blue" => [1, 0],
                "grey" => [0, 0],
                _ => [0, answer.len() % 5],
            };
            let mut claims = Claims::default();
            answer.split(' ').for_each(|word| claims.count(asked(word)));
            Grades { classes: vec![usize::from(asked(first)), b, c], fluent: first != "grey" || asked("grey"), claims }
        }

        fn seeks_claims(&self, preference: &Preference) -> bool {
            preference.0[0] == Some(1)
        }
    }
}
