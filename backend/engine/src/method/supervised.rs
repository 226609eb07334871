//! The loop that SFT and reward model share: batches, steps, reports, checkpoints, cache.

use crate::model::TrainBackend;
use crate::model::optimizer::{Trainee, cosine, gradients};
use crate::model::packed::chunks;
use crate::model::store::{from_safetensors, to_safetensors};
use crate::progress::{Progress, Stopped, Ticker, stream};
use crate::run::cache::{Cache, Entry};
use crate::run::checkpoint;
use crate::text::corpus::{Encoded, batch_pairs, batch_rows};
use anyhow::Result;
use burn::module::AutodiffModule;
use burn::prelude::*;
use burn_store::ModuleSnapshot;
use moslim_shared::config::SupervisedConfig;
use moslim_shared::event::{EventBody, Stage};
use std::path::Path;
use std::time::{Duration, Instant};

/// Weight decay of the supervised stages.
const WEIGHT_DECAY: f32 = 0.01;
/// Their gradient norm limit.
const MAX_GRADIENT_NORM: f64 = 1.0;
/// Checkpoints per stage.
const CHECKPOINTS: usize = 5;
/// Validations per stage.
const VALIDATIONS: usize = 6;

/// One supervised stage.
pub struct SupervisedStage<'a> {
    pub stage: Stage,
    pub config: &'a SupervisedConfig,
    pub rows: &'a [Encoded],
    /// Rows that answer the same question, where batches are made of pairs of such rows.
    pub siblings: Option<Vec<Vec<usize>>>,
    pub seed: u64,
    /// Cache key.
    pub key: String,
    pub cache: &'a Cache,
    pub run_folder: &'a Path,
}

/// What is kept of the reports while a stage is checkpointed.
type Reports = (Vec<(usize, f64, f64)>, Vec<(usize, Vec<f64>)>);

impl SupervisedStage<'_> {
    /// Trains `model`, or takes it from the cache, or goes on from a checkpoint. Returns it and the seconds spent now.
    ///
    /// `loss` gives the share of a batch's loss that some of its rows contribute, `context` what it has to know of the whole
    /// batch for that; `validate` gives figures that are reported a few times and at the end.
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
        let begun = Instant::now();
        if let Some((entry, weights)) = self.cache.load_sound(&self.key, progress)? {
            let model = from_safetensors(model, weights)?;
            progress.emit(EventBody::StageBegan { stage, from: 0, total });
            self.replay(&entry, progress);
            let seconds = begun.elapsed().as_secs_f64();
            progress.emit(EventBody::StageEnded { stage, seconds, cached: true });
            return Ok((model, seconds));
        }

        let mut trainee = Trainee::new(model, WEIGHT_DECAY, MAX_GRADIENT_NORM);
        let (mut from, mut before, mut losses, mut validation) = (0, 0.0, Vec::new(), Vec::new());
        if let Some(c) = checkpoint::load::<Reports>(self.run_folder, stage, &self.key)? {
            let (model, optimizer) = c.parts.into_iter().next().unwrap_or_default();
            trainee = trainee.from_bytes(model, optimizer, device)?;
            (from, before, (losses, validation)) = (c.header.step, c.header.seconds, c.header.extra);
        }
        progress.emit(EventBody::StageBegan { stage, from, total });
        let mut ticker = Ticker::new(Duration::from_millis(200));
        let (mut sum, mut count) = (0.0, 0);
        for step in from..total {
            if progress.stopped() {
                let seconds = before + begun.elapsed().as_secs_f64();
                checkpoint::save(
                    self.run_folder,
                    stage,
                    step,
                    &self.key,
                    seconds,
                    (&losses, &validation),
                    &[trainee.to_bytes()?],
                )?;
                progress.emit(EventBody::Checkpoint { stage, step });
                return Err(Stopped.into());
            }
            let rng = &mut stream(self.seed, stage, step);
            // What must stay together in one piece: a row, or a pair.
            let (rows, together) = match &self.siblings {
                Some(siblings) => (batch_pairs(self.rows, siblings, self.config.batch, rng), 2),
                None => (batch_rows(self.rows, self.config.batch, rng), 1),
            };
            let whole = context(&rows);
            let units: Vec<&[&Encoded]> = rows.chunks(together).collect();
            let pieces = chunks::<B, _>(&units, |unit| unit.iter().map(|r| r.tokens.len()).sum());
            let (batch_loss, grads, _) =
                gradients(&trainee.model, pieces, |model, units| (loss(model, &units.concat(), &whole), ()));
            sum += batch_loss;
            count += 1;
            (trainee, _) = trainee.step(grads, cosine(self.config.learning_rate, step, total));
            let done = step + 1;
            // Points of the curve lie at fixed steps; the ticker only adds early ones so that something moves at once.
            if done % (total / 100).max(1) == 0 || done == total || ticker.due() && done < 20 {
                let rate = (done - from) as f64 / begun.elapsed().as_secs_f64();
                losses.push((done, sum / count as f64, rate));
                progress.emit(EventBody::Loss { stage, step: done, total, loss: sum / count as f64, rate });
                (sum, count) = (0.0, 0);
            }
            if done % (total / VALIDATIONS).max(1) == 0 && done < total {
                self.validate(&trainee.model.valid(), done, &validate, &mut validation, progress);
            }
            if done % (total / CHECKPOINTS).max(1) == 0 && done < total {
                let seconds = before + begun.elapsed().as_secs_f64();
                checkpoint::save(
                    self.run_folder,
                    stage,
                    done,
                    &self.key,
                    seconds,
                    (&losses, &validation),
                    &[trainee.to_bytes()?],
                )?;
                progress.emit(EventBody::Checkpoint { stage, step: done });
            }
        }
        self.validate(&trainee.model.valid(), total, &validate, &mut validation, progress);
        let seconds = before + begun.elapsed().as_secs_f64();
        let entry = Entry { seconds, losses, validation, ..Default::default() };
        self.cache.save(&self.key, entry, &to_safetensors::<B, M>(&trainee.model)?)?;
        checkpoint::remove(self.run_folder, stage);
        progress.emit(EventBody::StageEnded { stage, seconds, cached: false });
        Ok((trainee.model, seconds))
    }

    fn validate<M>(
        &self,
        model: &M,
        step: usize,
        validate: &impl Fn(&M) -> Vec<f64>,
        kept: &mut Vec<(usize, Vec<f64>)>,
        progress: &mut Progress,
    ) {
        let qwk = validate(model);
        if !qwk.is_empty() {
            kept.push((step, qwk.clone()));
            progress.emit(EventBody::Validation { step, qwk });
        }
    }

    /// Reports what was reported when a cached stage was made.
    fn replay(&self, entry: &Entry, progress: &mut Progress) {
        for &(step, loss, rate) in &entry.losses {
            progress.emit(EventBody::Loss { stage: self.stage, step, total: self.config.steps, loss, rate });
        }
        for (step, qwk) in &entry.validation {
            progress.emit(EventBody::Validation { step: *step, qwk: qwk.clone() });
        }
    }
}
