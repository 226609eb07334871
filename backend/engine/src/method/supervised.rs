//! The supervised stages that every method begins with: SFT, and the loop that it shares with the reward models.

use super::driver::{Driver, Plan, Ticker, from_cache};
use super::setting::Setting;
use crate::keep::Job;
use crate::keep::cache::{Cache, Entry};
use crate::model::TrainBackend;
use crate::model::optimizer::{Trainee, cosine, gradients};
use crate::model::packed::{Group, Packed, chunks};
use crate::model::store::{from_safetensors, to_safetensors};
use crate::model::transformer::Transformer;
use crate::progress::{Progress, stream};
use crate::text::corpus::{Draw, Encoded};
use anyhow::Result;
use burn::module::AutodiffModule;
use burn::prelude::*;
use burn_store::ModuleSnapshot;
use moslim_shared::config::SupervisedConfig;
use moslim_shared::event::{EventBody, Part, Stage};
use std::time::Duration;
use web_time::Instant;

/// Weight decay of the supervised stages.
pub const WEIGHT_DECAY: f32 = 0.01;
/// Their gradient norm limit.
const MAX_GRADIENT_NORM: f64 = 1.0;
/// Checkpoints per stage.
const CHECKPOINTS: usize = 5;
/// Validations per stage.
const VALIDATIONS: usize = 6;

/// Next-token training on mixed-quality answers. No tags, no preference labels. Returns the policy, the key of the stage, and
/// the seconds spent now.
///
/// # Errors
/// When it is stopped, or a file cannot be read or written.
pub fn fine_tuning<B: TrainBackend>(
    job: &Job,
    setting: &Setting,
    device_name: &str,
    device: &B::Device,
    progress: &mut Progress,
) -> Result<(Transformer<B>, String, f64)> {
    let c = &job.config;
    let tokenizer = &setting.tokenizer;
    let (vocabulary, outputs) = (tokenizer.vocabulary(), tokenizer.outputs());
    let model = Transformer::<B>::drawn(&c.model, vocabulary, outputs, c.seed, device, || progress.check())?;
    let key = Cache::key("sft", &(&setting.task.fingerprint, c.vocabulary, &c.model, &c.sft, c.seed, device_name))?;
    let stage = SupervisedStage {
        stage: Stage::Sft,
        part: None,
        config: &c.sft,
        rows: setting.corpus.texts(),
        seed: c.seed,
        key,
        draw: Draw::Rows,
        heads: Vec::new(),
        cache: &setting.cache,
        job,
    };
    let loss = |model: &Transformer<B>, rows: &[&Encoded], answer_tokens: &usize| {
        let groups: Vec<Group> = rows.iter().map(|r| r.group()).collect();
        // -log p(answer | question), a mean over the tokens of all answers of the batch.
        model.answer_log_probs(&Packed::new(&groups), 1.0).sum().neg() / *answer_tokens as f32
    };
    let answer_tokens = |rows: &[&Encoded]| rows.iter().map(|r| r.tokens.len() - r.answer).sum::<usize>();
    let (model, seconds) = stage.run::<B, _, _>(model, device, progress, loss, answer_tokens, |_| Vec::new())?;
    Ok((model, stage.key, seconds))
}

/// One supervised stage over rows of the task.
pub struct SupervisedStage<'a> {
    pub stage: Stage,
    pub part: Option<Part>,
    pub config: &'a SupervisedConfig,
    pub rows: &'a [Encoded],
    /// How batches are drawn of them.
    pub draw: Draw,
    pub seed: u64,
    /// Cache key.
    pub key: String,
    /// Objectives that its validation figures are of.
    pub heads: Vec<usize>,
    pub cache: &'a Cache,
    pub job: &'a Job,
}

/// What is kept of the reports while a stage is checkpointed.
type Reports = (Vec<(usize, f64, f64)>, Vec<(usize, Vec<f64>)>);

impl SupervisedStage<'_> {
    /// Trains `model`, or takes it from the cache, or goes on from a checkpoint. Returns it and the seconds spent now.
    ///
    /// `loss` gives the share of a batch's loss that some of its rows contribute, `context` what it has to know of the whole
    /// batch for that; `validate` gives figures that are reported a few times and at the end.
    ///
    /// # Errors
    /// When it is stopped, or a file cannot be read or written.
    pub fn run<B: TrainBackend, M: AutodiffModule<B> + ModuleSnapshot<B>, C: Sync>(
        &self,
        model: M,
        device: &B::Device,
        progress: &mut Progress,
        loss: impl Fn(&M, &[&Encoded], &C) -> Tensor<B, 1> + Sync,
        context: impl Fn(&[&Encoded]) -> C,
        validate: impl Fn(&M::InnerModule) -> Vec<f64>,
    ) -> Result<(M, f64)> {
        let (stage, total) = (self.stage, self.config.steps);
        let began = Instant::now();
        if let Some((entry, weights)) = self.cache.load_sound(&self.key, progress)? {
            let model = from_safetensors(model, weights)?;
            let seconds = from_cache(stage, self.part.as_ref(), total, began, progress, Some(&|p| self.replay(&entry, p)));
            return Ok((model, seconds));
        }
        let plan = Plan {
            stage,
            part: self.part.clone(),
            key: self.key.clone(),
            total,
            checkpoint_every: (total / CHECKPOINTS).max(1),
            forked: None,
        };
        let (mut driver, parts) = Driver::begin(self.job, plan, Reports::default(), progress)?;
        let mut trainee = Trainee::new(model, WEIGHT_DECAY, MAX_GRADIENT_NORM);
        if let Some((model, optimizer)) = parts.and_then(|p| p.into_iter().next()) {
            trainee = trainee.from_bytes(model, optimizer, device)?;
        }
        let mut ticker = Ticker::new(Duration::from_millis(200));
        let (mut sum, mut count) = (0.0, 0);
        while let Some(step) = driver.next(progress, || Ok(vec![trainee.to_bytes()?]))? {
            let rng = &mut stream(self.seed, stage, step);
            let units = self.draw.batch(self.rows, self.config.batch, rng);
            let whole = context(&units.concat());
            // The prompt of a unit is read once.
            let tokens = |unit: &Vec<&Encoded>| unit[0].answer + unit.iter().map(|r| r.tokens.len() - r.answer).sum::<usize>();
            let pieces = chunks::<B, _>(&units, tokens);
            let (batch_loss, grads, _) =
                gradients(&trainee.model, pieces, |model, units| (loss(model, &units.concat(), &whole), ()));
            (trainee, _) = trainee.step(grads, cosine(self.config.learning_rate, step, total));

            let done = step + 1;
            (sum, count) = (sum + batch_loss, count + 1);
            // Points of the curve lie at fixed steps; the ticker only adds early ones so that something moves at once.
            if done % (total / 100).max(1) == 0 || done == total || ticker.due() && done < 20 {
                let mean = sum / f64::from(count);
                driver.state.0.push((done, mean, driver.rate()));
                driver.report_loss(done, mean, progress);
                (sum, count) = (0.0, 0);
            }
            if done % (total / VALIDATIONS).max(1) == 0 || done == total {
                let qwk = validate(&trainee.model.valid());
                if !qwk.is_empty() {
                    driver.state.1.push((done, qwk.clone()));
                    self.report_validation(done, qwk, progress);
                }
            }
        }
        let (losses, validation) = std::mem::take(&mut driver.state);
        let entry = Entry { seconds: driver.seconds(), losses, validation, extra: None };
        self.cache.save(&self.key, &entry, &to_safetensors::<B, M>(&trainee.model)?)?;
        Ok((trainee.model, driver.end(progress)))
    }

    fn report_validation(&self, step: usize, qwk: Vec<f64>, progress: &mut Progress) {
        let (stage, part, objectives) = (self.stage, self.part.clone(), self.heads.clone());
        progress.emit(EventBody::Validation { stage, part, step, objectives, qwk });
    }

    /// Reports what was reported when a cached stage was made.
    fn replay(&self, entry: &Entry, progress: &mut Progress) {
        for &(step, loss, rate) in &entry.losses {
            let (stage, part, total) = (self.stage, self.part.clone(), self.config.steps);
            progress.emit(EventBody::Loss { stage, part, step, total, loss, rate });
        }
        for (step, qwk) in &entry.validation {
            self.report_validation(*step, qwk.clone(), progress);
        }
    }
}
