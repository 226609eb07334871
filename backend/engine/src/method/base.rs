//! The off-the-shelf model that a run is about: its files, its chat template, and itself on a device.

use crate::data::Splits;
use crate::keep::Job;
use crate::keep::cache::Cache;
use crate::keep::models::{KnownModel, Models};
use crate::model::TrainBackend;
use crate::model::adapter::AdapterConfig;
use crate::model::architecture::Architecture;
use crate::model::files::ModelFiles;
use crate::model::transformer::Transformer;
use crate::progress::{Progress, Unfit};
use crate::text::ChatFormat;
use anyhow::{Context, Result};
use moslim_shared::config::{Precision, RunConfig};
use moslim_shared::event::{EventBody, Stage};

/// What the seed of the policy's adapters differs by from that of the reward model's.
const POLICY_SEED: u64 = 0x0AD4;

/// An off-the-shelf model whose files were opened.
pub struct Base {
    known: KnownModel,
    files: ModelFiles,
}

impl Base {
    /// The model that the run's configuration names; `None` where it is about one of the lab's own.
    ///
    /// # Errors
    /// When it was not added, or its files have changed.
    pub fn open(job: &Job) -> Result<Option<Self>> {
        let name = &job.config.base.model;
        if name.is_empty() {
            return Ok(None);
        }
        let root = job.files.folder().context("an off-the-shelf model needs a lab on a disk")?;
        let (known, files) = Models::of(root).open(name).map_err(|e| Unfit(format!("base.{e:#}")))?;
        Ok(Some(Self { known, files }))
    }

    /// What it is made of.
    pub fn architecture(&self) -> &Architecture {
        &self.files.architecture
    }

    /// Its tokenizer, as a `tokenizer.json`.
    pub fn tokenizer(&self) -> &str {
        &self.files.tokenizer
    }

    /// Its chat template, and what belongs to it in a run.
    ///
    /// # Errors
    /// When it has no token that ends an answer.
    pub fn format(&self, config: &RunConfig) -> Result<ChatFormat> {
        let eos = self.files.eos.clone();
        Ok(ChatFormat {
            template: self.files.template.clone(),
            bos: self.files.bos.clone(),
            eos: eos.with_context(|| format!("the model {} names no token that ends an answer", self.known.name))?,
            vocabulary: self.files.architecture.vocabulary,
            wishes: config.base.wishes,
            wording: config.targets.wording,
        })
    }

    /// What it is, for keys of caches: the checksums of its files, and of what rank its adapters are.
    pub fn key(&self, job: &Job) -> Result<String> {
        let sums: Vec<&str> = self.known.files.iter().map(|f| f.sha256.as_str()).collect();
        let base = &job.config.base;
        let inputs = (sums, base.rank, base.alpha, job.config.model.context, job.config.model.precision);
        match base.weights {
            Precision::F32 => Cache::key("base", &inputs),
            other => Cache::key("base", &(inputs, other)),
        }
    }

    /// The model on a device, without adapters.
    ///
    /// # Errors
    /// When a weight is damaged, or its context is shorter than the configuration wants.
    pub fn load<B: TrainBackend>(&self, job: &Job, device: &B::Device, progress: &mut Progress) -> Result<Transformer<B>> {
        let (wanted, most) = (job.config.model.context, self.files.architecture.context);
        if wanted > most {
            return Err(Unfit(format!("model.context: is {wanted}; {} reads at most {most} tokens", self.known.name)).into());
        }
        let layers = self.files.architecture.layers;
        // A judge of another size than was asked for would be the same size as the model that it judges.
        let read = job.config.evaluation.held_out_layers;
        if read > layers {
            let message = format!("evaluation.held_out_layers: is {read}; {} has {layers} layers", self.known.name);
            return Err(Unfit(message).into());
        }
        let millions = self.known.weights as f64 / 1e6;
        progress.emit(EventBody::Note { text: format!("Reading {}, {millions:.0} million weights", self.known.name) });
        self.files.load(wanted, (job.config.model.precision, job.config.base.weights), device, |_| {})
    }
}

/// `trunk` with the policy's adapters, and with those of a reward model.
pub fn adapted<B: TrainBackend>(job: &Job, trunk: &Transformer<B>) -> [Transformer<B>; 2] {
    let config = AdapterConfig::of(&job.config.base);
    let seed = job.config.seed;
    [trunk.clone().adapted(&config, seed ^ POLICY_SEED), trunk.clone().adapted(&config, seed)]
}

/// Layers of the reward model that a stage trains on a trunk; 0: all that it has.
pub fn reward_layers(config: &RunConfig, stage: Stage) -> usize {
    match (stage, config.evaluation.held_out_layers) {
        (Stage::HeldOutRewardModel, layers) if layers > 0 => layers,
        _ if config.base.model.is_empty() => 0,
        _ => config.base.reward_layers,
    }
}

/// Questions without rows need a model that answers them.
///
/// # Errors
/// When there is none.
pub fn check_rows(splits: &Splits, base: Option<&Base>) -> Result<()> {
    if splits.train.is_empty() && base.is_none() {
        let what = "is empty; this task has questions alone, and learns from answers of an off-the-shelf model";
        return Err(Unfit(format!("base.model: {what} (moslim-lab models add, then --model)")).into());
    }
    Ok(())
}
