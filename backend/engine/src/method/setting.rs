//! What is there before a method's own work begins: the task as tokens, the models that are ready, and what comes back.

use super::base::{Base, check_rows};
use crate::data::{Gold, Task, TaskCard};
use crate::evaluate::answer::Route;
use crate::keep::bundle::sha256;
use crate::keep::cache::Cache;
use crate::keep::{Job, read_checked};
use crate::model::TrainBackend;
use crate::model::store::from_safetensors;
use crate::model::transformer::Transformer;
use crate::progress::Unfit;
use crate::reward::frozen::FrozenRewardModel;
use crate::text::Tokenizer;
use crate::text::corpus::Corpus;
use anyhow::{Context, Result};
use moslim_shared::config::{RunConfig, TaskKind};
use moslim_shared::method::{ChosenBy, Method};
use moslim_shared::objective::Objective;
use moslim_shared::summary::{KlPoint, PolicySummary, Work};
use serde::{Deserialize, Serialize};

/// Text, rows and names that all stages share.
pub struct Setting {
    pub task: TaskCard,
    pub objectives: Vec<Objective>,
    /// Positions of the objectives that are steered.
    pub steered: Vec<usize>,
    pub gold: Option<Box<dyn Gold>>,
    pub tokenizer: Tokenizer,
    pub corpus: Corpus,
    pub cache: Cache,
    /// Which trade-offs every method is asked for: weights over all objectives.
    pub trade_offs: Vec<Vec<f64>>,
    /// Rows and questions that are longer than the context, and were left out.
    pub left_out: [usize; 2],
}

impl Setting {
    /// Trains the tokenizer of a task, or takes that of `base`, and encodes the task's rows; keeps task and tokenizer with the run.
    ///
    /// # Errors
    /// When they do not fit the configuration, or cannot be written.
    pub fn prepare(job: &Job, task: Task, base: Option<&Base>) -> Result<Self> {
        let config = &job.config;
        let card = task.card();
        let Task { objectives, splits, gold, .. } = task;
        check_rows(&splits, base)?;
        let tokenizer = match base {
            Some(base) => {
                let format = base.format(config)?;
                job.write_json("chat.json", &format)?;
                Tokenizer::chat(base.tokenizer(), &format, &objectives)?
            }
            None => Tokenizer::train(config.vocabulary, &splits, &objectives)?,
        };
        let mut corpus = Corpus::new(&splits, &tokenizer)?;
        let around = (tokenizer.framing(), tokenizer.longest_preference(&objectives)?);
        // People write as long as they like; what a model cannot read is left out.
        let left_out = if config.task.kind == TaskKind::Ratings { leave_long(config, &mut corpus, around)? } else { [0; 2] };
        job.write("tokenizer.json", tokenizer.to_json()?.as_bytes())?;
        job.write_json("task.json", &card)?;
        check_lengths(config, &corpus, around)?;
        let steered = config.steered(&objectives);
        let trade_offs = config.method.weight_vectors(&steered, objectives.len());
        let cache = Cache::new(job.files.clone());
        Ok(Self { task: card, objectives, steered, gold, tokenizer, corpus, cache, trade_offs, left_out })
    }

    /// The rules, where they choose among the answers of best-of-n.
    pub fn choosing(&self, config: &RunConfig) -> Option<&dyn Gold> {
        let method = &config.method;
        self.gold.as_deref().filter(|_| method.kind == Method::BestOfN && method.chosen_by == ChosenBy::Rules)
    }

    /// Which objectives are better when higher.
    pub fn higher_is_better(&self) -> Vec<bool> {
        self.objectives.iter().map(|o| o.higher_is_better).collect()
    }
}

/// Most tokens that what is asked for adds to a prompt.
fn asking(config: &RunConfig, asked: usize) -> usize {
    match config.method.kind {
        // RiC writes its scores as text, of at most five tokens each.
        Method::Ric => 5 * asked,
        // Weights are text, too, of at most three.
        _ if config.targets.weighted_share.is_some() => 3 * asked,
        _ => asked,
    }
}

/// The context of policy and reward model.
fn contexts(config: &RunConfig) -> [usize; 2] {
    // An off-the-shelf model is both.
    let trunk = if config.base.model.is_empty() { config.reward_trunk.context } else { config.model.context };
    [config.model.context, trunk]
}

/// Leaves out rows and questions that do not fit into the context. Returns how many of each.
///
/// # Errors
/// When too little is left.
fn leave_long(config: &RunConfig, corpus: &mut Corpus, (framing, asked): (usize, usize)) -> Result<[usize; 2]> {
    let [policy, trunk] = contexts(config);
    let reserved = config.policy.max_new_tokens + framing + 1;
    let question = policy.saturating_sub(reserved + asking(config, asked)).min(trunk.saturating_sub(reserved));
    let left = corpus.keep_within(policy.min(trunk), question);
    for (what, rows, questions) in [
        ("train", corpus.train.len(), corpus.train_questions.len()),
        ("validate", corpus.validation.len(), corpus.validation_questions.len()),
        ("test", corpus.test.len(), corpus.test_questions.len()),
    ] {
        if rows == 0 || questions == 0 {
            let hint = "a longer context or fewer new tokens leave more";
            return Err(Unfit(format!("model.context: is {policy}; no row is short enough to {what} on ({hint})")).into());
        }
    }
    Ok(left)
}

/// Everything that a model reads must fit into its context.
fn check_lengths(config: &RunConfig, corpus: &Corpus, (framing, asked): (usize, usize)) -> Result<()> {
    let asked = asking(config, asked);
    // What stands around a question, and the end of the sequence.
    let answered = corpus.longest_question() + config.policy.max_new_tokens + framing + 1;
    let [_, trunk] = contexts(config);
    for (field, context, what, needed) in [
        ("model.context", config.model.context, "the longest row", corpus.longest_row()),
        ("model.context", config.model.context, "the longest tagged prompt with its answer", answered + asked),
        ("reward_trunk.context", trunk, "the longest row", corpus.longest_row()),
        ("reward_trunk.context", trunk, "the longest question with its answer", answered),
    ] {
        if needed > context {
            let hint = "a larger vocabulary makes rows shorter";
            return Err(Unfit(format!("{field}: is {context}; {what} has {needed} tokens ({hint})")).into());
        }
    }
    Ok(())
}

/// What is there before policy optimisation begins.
pub struct Ready<B: TrainBackend> {
    pub reward_model: FrozenRewardModel<B::InnerBackend>,
    /// A reward model that no policy is optimised for.
    pub held_out: Option<FrozenRewardModel<B::InnerBackend>>,
    /// The SFT policy with fresh embeddings of the tags.
    pub start: Transformer<B>,
    /// The same, frozen.
    pub reference: Transformer<B::InnerBackend>,
    /// Key of the SFT stage that both come from.
    pub origin: String,
}

/// The policy of another run, to start from.
///
/// # Errors
/// When there is no such run, it is not finished, or its model has another shape.
pub fn policy_of<B: TrainBackend>(job: &Job, run: &str, like: Transformer<B>) -> Result<Transformer<B>> {
    let unfit = |what: String| Unfit(format!("from: {what}"));
    let files = |file: &str| job.files.read(&format!("runs/{run}/{file}"));
    let other = |file: &str| read_checked(&files, file).with_context(|| format!("reading {file} of run {run}"));
    let tokenizer = other("tokenizer.json")?.ok_or_else(|| unfit(format!("there is no run {run}")))?;
    let own = job.read("tokenizer.json")?.context("this run has no tokenizer")?;
    if sha256(&[&tokenizer]) != sha256(&[&own]) {
        return Err(unfit(format!("run {run} has another vocabulary; it needs the same task and vocabulary")).into());
    }
    let weights = other("policy.safetensors")?.ok_or_else(|| unfit(format!("run {run} has no policy; it must be finished")))?;
    from_safetensors(like, weights).map_err(|e| unfit(format!("the policy of run {run} has another shape: {e:#}")).into())
}

/// What a method has trained.
pub struct Trained<B: TrainBackend> {
    pub policies: Vec<Transformer<B::InnerBackend>>,
    pub route: Route,
    pub outcome: Outcome,
    /// Policies that were trained, and how many must be kept to answer every trade-off.
    pub policies_trained: usize,
    pub policies_kept: usize,
}

/// What optimising a policy took and reached.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Outcome {
    pub summary: PolicySummary,
    /// Seconds when it was done.
    pub seconds: f64,
    pub work: Work,
    pub kl_frontier: Vec<KlPoint>,
}

impl Outcome {
    /// Adds what another policy of the same method took; what is reached is that of the last, and means of all.
    pub fn add(&mut self, other: Self, count: usize) {
        self.summary.samples += other.summary.samples;
        self.summary.tokens += other.summary.tokens;
        let share = 1.0 / count as f64;
        self.summary.kl += share * other.summary.kl;
        self.summary.reward_first += share * other.summary.reward_first;
        self.summary.reward_last += share * other.summary.reward_last;
        self.seconds += other.seconds;
        self.work += other.work;
        self.kl_frontier = other.kl_frontier;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_are_text_have_room_in_the_context() {
        let mut config = RunConfig::default();
        assert_eq!(asking(&config, 4), 4);
        config.targets.weighted_share = Some(0.5);
        assert_eq!(asking(&config, 4), 12);
        (config.targets.weighted_share, config.method.kind) = (None, Method::Ric);
        assert_eq!(asking(&config, 4), 20);
    }
}
