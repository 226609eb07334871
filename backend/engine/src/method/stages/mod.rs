//! The stages that methods share: SFT, reward model, calibration, policy optimisation, evaluation.

mod evaluation;
mod optimisation;
mod reward;

pub use evaluation::{Evaluated, Trained, behaviour, evaluate};
pub use optimisation::{Outcome, Task, iterations_each, optimise_policy};
pub use reward::{calibrate, held_out_judge, reward_models};

use super::supervised::SupervisedStage;
use crate::data::{generate, world};
use crate::model::TrainBackend;
use crate::model::packed::{Group, Packed};
use crate::model::store::{from_safetensors, write_atomically};
use crate::model::transformer::Transformer;
use crate::progress::{Progress, Unfit};
use crate::reward::judge::Judge;
use crate::run::Job;
use crate::run::cache::{Cache, sha256};
use crate::text::Tokenizer;
use crate::text::corpus::{Corpus, Encoded};
use anyhow::{Context, Result};
use moslim_shared::config::RunConfig;
use moslim_shared::event::Stage;
use moslim_shared::method::Method;
use moslim_shared::objective::Objective;

/// Text, rows and names that all stages share.
pub struct Setting {
    pub objectives: Vec<Objective>,
    /// Positions of the objectives that are steered.
    pub steered: Vec<usize>,
    pub tokenizer: Tokenizer,
    pub corpus: Corpus,
    pub cache: Cache,
    /// Which trade-offs every method is asked for: weights over all objectives.
    pub trade_offs: Vec<Vec<f64>>,
}

impl Setting {
    /// Makes the world's rows and their tokenizer.
    ///
    /// # Errors
    /// When they do not fit the configuration, or cannot be written.
    pub fn prepare(job: &Job) -> Result<Self> {
        let config = &job.config;
        let objectives = world::objectives();
        let splits = generate(&config.world);
        let tokenizer = Tokenizer::train(config.vocabulary, &splits, &objectives)?;
        let corpus = Corpus::new(&splits, &tokenizer)?;
        write_atomically(&job.folder().join("tokenizer.json"), tokenizer.to_json()?.as_bytes())?;
        check_lengths(config, &corpus, objectives.len())?;
        let steered = config.steered(&objectives);
        let trade_offs = config.method.weight_vectors(&steered, objectives.len());
        Ok(Self { objectives, steered, tokenizer, corpus, cache: Cache::new(&job.lab), trade_offs })
    }

    /// Which objectives are better when higher.
    pub fn higher_is_better(&self) -> Vec<bool> {
        self.objectives.iter().map(|o| o.higher_is_better).collect()
    }
}

/// Everything that a model reads must fit into its context.
fn check_lengths(config: &RunConfig, corpus: &Corpus, objectives: usize) -> Result<()> {
    // RiC writes its scores as text, of at most five tokens each.
    let objectives = if config.method.kind == Method::Ric { 5 * objectives } else { objectives };
    // <user>, <assistant> and the end of the sequence.
    let answered = corpus.longest_question() + config.policy.max_new_tokens + 3;
    for (field, context, what, needed) in [
        ("model.context", config.model.context, "the longest row", corpus.longest_row()),
        ("model.context", config.model.context, "the longest tagged prompt with its answer", answered + objectives),
        ("reward_trunk.context", config.reward_trunk.context, "the longest row", corpus.longest_row()),
        ("reward_trunk.context", config.reward_trunk.context, "the longest question with its answer", answered),
    ] {
        if needed > context {
            let hint = "a larger vocabulary makes rows shorter";
            return Err(Unfit(format!("{field}: is {context}; {what} has {needed} tokens ({hint})")).into());
        }
    }
    Ok(())
}

/// Stage 1: next-token training on mixed-quality answers. No tags, no preference labels.
pub fn supervised_fine_tuning<B: TrainBackend>(
    job: &Job,
    setting: &Setting,
    device_name: &str,
    device: &B::Device,
    progress: &mut Progress,
) -> Result<(Transformer<B>, String, f64)> {
    let c = &job.config;
    let tokenizer = &setting.tokenizer;
    let model = Transformer::<B>::new(&c.model, tokenizer.vocabulary(), tokenizer.outputs(), c.seed, device);
    let stage = SupervisedStage {
        stage: Stage::Sft,
        config: &c.sft,
        rows: &setting.corpus.train,
        seed: c.seed,
        key: Cache::key("sft", &(&c.world, c.vocabulary, &c.model, &c.sft, c.seed, device_name))?,
        siblings: None,
        cache: &setting.cache,
        run_folder: &job.folder(),
    };
    let loss = |model: &Transformer<B>, rows: &[&Encoded], answer_tokens: &usize| {
        let groups: Vec<Group> = rows.iter().map(|r| r.group()).collect();
        model.answer_log_probs(&Packed::new(&groups), 1.0).sum().neg() / *answer_tokens as f32
    };
    let answer_tokens = |rows: &[&Encoded]| rows.iter().map(|r| r.tokens.len() - r.answer).sum::<usize>();
    let (model, seconds) = stage.run::<B, _, _>(model, device, progress, loss, answer_tokens, |_| Vec::new())?;
    Ok((model, stage.key, seconds))
}

/// Name of the `n`th file of weights called `name`, from 0.
pub fn model_file(name: &str, n: usize) -> String {
    if n == 0 { format!("{name}.safetensors") } else { format!("{name}-{}.safetensors", n + 1) }
}

/// What is there before policy optimisation begins.
pub struct Ready<B: TrainBackend> {
    pub judge: Judge<B::InnerBackend>,
    /// A reward model that no policy is optimised for.
    pub held_out: Option<Judge<B::InnerBackend>>,
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
    let folder = job.lab.join("runs").join(run);
    let file = folder.join("policy.safetensors");
    let unfit = |what: String| Unfit(format!("from: {what}"));
    let tokenizer = std::fs::read(folder.join("tokenizer.json")).map_err(|_| unfit(format!("there is no run {run}")))?;
    let own = std::fs::read(job.folder().join("tokenizer.json")).context("reading this run's tokenizer")?;
    if sha256(&[&tokenizer]) != sha256(&[&own]) {
        return Err(unfit(format!("run {run} has another vocabulary; it needs the same world and vocabulary")).into());
    }
    let weights = std::fs::read(&file).map_err(|_| unfit(format!("run {run} has no policy; it must be finished")))?;
    from_safetensors(like, weights).map_err(|e| unfit(format!("the policy of run {run} has another shape: {e:#}")).into())
}
