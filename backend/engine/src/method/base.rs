//! The off-the-shelf model that a run is about: its files, its chat template, and itself on a device.

use crate::data::Splits;
use crate::keep::cache::Cache;
use crate::keep::models::{KnownModel, Models};
use crate::keep::{Job, read_config};
use crate::model::TrainBackend;
use crate::model::adapter::AdapterConfig;
use crate::model::architecture::Architecture;
use crate::model::files::ModelFiles;
use crate::model::transformer::Transformer;
use crate::progress::{Progress, Unfit};
use crate::text::ChatFormat;
use anyhow::{Context, Result};
use moslim_shared::config::{AdapterTarget, Difference, Precision, RunConfig, differences};
use moslim_shared::event::{EventBody, Stage};

/// What the seed of the policy's adapters differs by from that of the reward model's.
const POLICY_SEED: u64 = 0x0AD4;
/// What a policy's adapters share with those of the policy that it starts from.
const ADAPTERS: [&str; 4] = ["base.added_tokens", "base.rank", "base.alpha", "base.targets"];

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
            added_tokens: config.base.added_tokens,
        })
    }

    /// What it is, for keys of caches: the checksums of its files, and of what rank and on which matrices its adapters are.
    pub fn key(&self, job: &Job) -> Result<String> {
        let sums: Vec<&str> = self.known.files.iter().map(|f| f.sha256.as_str()).collect();
        let base = &job.config.base;
        let inputs = (sums, base.rank, base.alpha, job.config.model.context, job.config.model.precision);
        // Adapters of every matrix have the keys that they had before there was a choice.
        match (base.weights, base.targets == AdapterTarget::ALL) {
            (Precision::F32, true) => Cache::key("base", &inputs),
            (other, true) => Cache::key("base", &(inputs, other)),
            (other, false) => Cache::key("base", &(inputs, other, &base.targets)),
        }
    }

    /// The model on a device, without adapters.
    ///
    /// # Errors
    /// When a weight is damaged, its context is shorter than the configuration wants, or the run is stopped.
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
        self.files.load(wanted, (job.config.model.precision, job.config.base.weights), device, || progress.check())
    }
}

/// `trunk` with the policy's adapters, and with those of a reward model.
pub fn adapted<B: TrainBackend>(job: &Job, trunk: &Transformer<B>) -> [Transformer<B>; 2] {
    let config = AdapterConfig::of(&job.config.base);
    let seed = job.config.seed;
    [trunk.clone().adapted(&config, seed ^ POLICY_SEED), trunk.clone().adapted(&config, seed)]
}

/// Makes sure that the policy which a run starts from has such adapters as the run's own: files do not tell two matrices of one size apart,
/// nor what an adapter is multiplied by.
///
/// # Errors
/// [`Unfit`], by the setting that differs.
pub fn same_adapters(job: &Job) -> Result<()> {
    let (config, Some(run)) = (&job.config, &job.config.from) else { return Ok(()) };
    // That there is no such run, or none of an off-the-shelf model, is said where its policy is read.
    let other = read_config(|file| job.files.read(&format!("runs/{run}/{file}"))).ok();
    let Some(other) = other.filter(|other| ![config, other].iter().any(|c| c.base.model.is_empty())) else { return Ok(()) };
    match differences(&other, config).into_iter().find(|d| ADAPTERS.contains(&d.path.as_str())) {
        Some(Difference { path, old, new }) => {
            let message = format!("is {new}; the policy of run {run}, which this run starts from, was trained with {old}");
            Err(Unfit(format!("{path}: {message}")).into())
        }
        None => Ok(()),
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keep::files::Memory;
    use crate::progress::{Stop, Stopped};
    use burn::backend::Flex;
    use moslim_shared::config::ModelConfig;
    use std::path::Path;
    use std::sync::Arc;

    /// What builds a model, and looks before each part of it at whether it goes on.
    type Build<'a> = dyn Fn(&mut dyn FnMut() -> Result<()>) -> Result<()> + 'a;

    #[test]
    fn a_stop_ends_the_building_of_a_model_at_its_next_part() {
        let config = ModelConfig { d_model: 24, d_ff: 40, context: 64, ..Default::default() };
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/models/llama");
        let files = ModelFiles::open(&folder, &[]).unwrap();
        let numbers = (Precision::F32, Precision::F32);
        let drawn = |check: &mut dyn FnMut() -> Result<()>| {
            Transformer::<Flex>::drawn(&config, 50, 40, 3, &Default::default(), check).map(drop)
        };
        let read = |check: &mut dyn FnMut() -> Result<()>| files.load::<Flex>(64, numbers, &Default::default(), check).map(drop);
        let builds: [&Build; 2] = [&drawn, &read];
        for build in builds {
            let until = |part: usize| {
                let (stop, mut looks) = (Stop::default(), 0);
                let progress = Progress { sink: &mut |_| {}, stop: &stop };
                let built = build(&mut || {
                    looks += 1;
                    if looks == part {
                        stop.cancel();
                    }
                    progress.check()
                });
                (looks, built)
            };
            let (all, built) = until(usize::MAX);
            assert!(all > 3 && built.is_ok(), "{all} parts");
            let (looks, built) = until(3);
            assert!(looks == 3 && built.unwrap_err().is::<Stopped>(), "{looks} of {all} parts");
        }
    }

    #[test]
    fn a_policy_of_other_adapters_is_refused_by_the_setting() {
        let files = Arc::new(Memory::default());
        let run = |name: &str, change: &dyn Fn(&mut RunConfig)| {
            let mut config = RunConfig::default();
            config.base.model = "some".into();
            change(&mut config);
            Job::new(name, config, files.clone())
        };
        run("first", &|c| c.base.targets = vec![AdapterTarget::QProj, AdapterTarget::VProj]).write_config().unwrap();
        let from = |change: &dyn Fn(&mut RunConfig)| {
            let second = run("second", &|c| {
                (c.from, c.base.targets) = (Some("first".into()), vec![AdapterTarget::QProj, AdapterTarget::VProj]);
                change(c);
            });
            same_adapters(&second).map_err(|e| e.to_string())
        };
        assert_eq!(from(&|c| c.seed = 7), Ok(()));
        // Keys and values have one size.
        let told = from(&|c| c.base.targets = vec![AdapterTarget::QProj, AdapterTarget::KProj]).unwrap_err();
        assert!(told.starts_with("base.targets: is q_proj, k_proj; ") && told.ends_with("with q_proj, v_proj"), "{told}");
        assert!(from(&|c| c.base.alpha = 1.0).unwrap_err().starts_with("base.alpha: is 1; "));
        assert!(from(&|c| c.base.added_tokens = true).unwrap_err().starts_with("base.added_tokens: is true; "));
        assert_eq!(from(&|c| (c.from, c.base.alpha) = (Some("nobody".into()), 1.0)), Ok(()));
        assert_eq!(from(&|c| (c.base.model, c.base.alpha) = (String::new(), 1.0)), Ok(()));
    }
}
