//! A model from elsewhere at work, as it is or as a run has trained it: what it makes of a text, and how it goes on. Others check with it
//! that the lab computes what they compute.

use super::device::{Device, choose};
use super::opened::{Opened, open};
use crate::model::files::ModelFiles;
use crate::model::generate::{Sampling, generate};
use crate::model::kernels::Kernels;
use crate::model::packed::{Group, Packed};
use crate::model::transformer::{Transformer, index_tensor};
use crate::text::chat::{ChatTemplate, Message};
use crate::text::tokenizer;
use anyhow::{Context, Result, anyhow, ensure};
use burn::tensor::Tensor;
use moslim_shared::config::{DeviceChoice, Precision};
use serde::Serialize;
use std::path::Path;

/// A model from elsewhere that is asked.
pub struct Asked(Whose);

enum Whose {
    /// As it is.
    Model(Box<ModelFiles>),
    /// Under the adapters of a run's first policy.
    Run(Box<Opened>),
}

impl Asked {
    /// A model as it is.
    pub fn model(files: ModelFiles) -> Self {
        Self(Whose::Model(Box::new(files)))
    }

    /// The first policy of the finished run in `folder`.
    ///
    /// # Errors
    /// When there is no run, a file of it is missing or damaged (named), or it is about a model of the lab's own.
    pub fn policy(folder: &Path) -> Result<Self> {
        let opened = open(folder)?;
        ensure!(opened.base.is_some(), "model: the run in {} is about a model of the lab's own", folder.display());
        Ok(Self(Whose::Run(Box::new(opened))))
    }

    /// The model's files; of a run, those of the model that it began with.
    pub fn files(&self) -> &ModelFiles {
        match &self.0 {
            Whose::Model(files) => files,
            Whose::Run(opened) => &opened.base.as_ref().expect("the run is about a model from elsewhere").1,
        }
    }

    /// What cuts texts into tokens, special ones too: the model's own; of a run the same with its tags.
    fn tokenizer(&self) -> Result<tokenizers::Tokenizer> {
        match &self.0 {
            Whose::Model(files) => tokenizer(&files.tokenizer, files.architecture.vocabulary),
            Whose::Run(opened) => Ok(opened.tokenizer.others()),
        }
    }

    /// The longest text that it reads, tokens.
    fn context(&self) -> usize {
        match &self.0 {
            Whose::Model(files) => files.architecture.context,
            Whose::Run(opened) => opened.config.model.context,
        }
    }

    /// On a device, with room for `needed` tokens.
    fn load<B: Kernels>(&self, needed: usize, device: &B::Device) -> Result<Transformer<B>> {
        match &self.0 {
            Whose::Model(files) => files.load(needed, (Precision::F32, Precision::F32), device, || Ok(())),
            Whose::Run(opened) => opened.policy(0, opened.trunk::<B>(device)?.as_ref(), device),
        }
    }
}

/// What a model makes of a text.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TextReport {
    /// The text's tokens.
    pub tokens: Vec<u32>,
    /// Mean of `-ln p(token | the tokens before it)` over all tokens but the first, and but tags, which are never written; nats.
    pub mean_negative_log_likelihood: Option<f64>,
    /// Scores of every entry of the vocabulary that can be written after the last token.
    pub logits: Vec<f32>,
    /// Tokens that follow, each the most probable.
    pub greedy: Vec<u32>,
    /// They as text.
    pub continuation: String,
}

/// The conversation as text, by the model's own template.
///
/// # Errors
/// When the model has none, or it refuses the messages.
pub fn chat(files: &ModelFiles, messages: &[Message]) -> Result<String> {
    let source = files.template.as_deref().context("the model has no chat template")?;
    ChatTemplate::new(source, files.bos.as_deref(), files.eos.as_deref())?.render(messages, false)
}

/// What the model makes of `text`, and `greedy` tokens that follow it. `added`: whether the tokenizer adds what it begins a sequence
/// with; a text that a template made has that already.
///
/// # Errors
/// When a weight is missing or damaged, the text is empty or does not fit into the model's context, or a forced device is missing.
pub fn read(asked: &Asked, text: &str, added: bool, greedy: usize, device: DeviceChoice) -> Result<TextReport> {
    let files = asked.files();
    let tokenizer = asked.tokenizer()?;
    let tokens = tokenizer.encode(text, added).map_err(|e| anyhow!("the tokenizer: {e}"))?.get_ids().to_vec();
    ensure!(!tokens.is_empty(), "text: is empty");
    let needed = tokens.len() + greedy;
    let most = asked.context();
    ensure!(needed <= most, "text: has {} tokens, and {greedy} follow; the model reads at most {most}", tokens.len());
    let eos = files.eos.as_deref().and_then(|text| tokenizer.token_to_id(text)).unwrap_or(u32::MAX);
    macro_rules! on {
        ($backend:ty, $device:expr) => {{
            let model = asked.load::<$backend>(needed, $device)?;
            let packed = Packed::new(&[Group { prompt: &tokens[..1], answers: vec![&tokens[1..]] }]);
            let hidden = model.hidden(&packed);
            let last = hidden.clone().narrow(0, tokens.len() - 1, 1);
            let logits: Vec<f32> = model.logits(last).into_data().to_vec().map_err(|e| anyhow!("{e:?}"))?;
            let (positions, targets) = packed.answer_tokens();
            let written = positions.into_iter().zip(targets).filter(|(_, token)| (*token as usize) < logits.len());
            let (positions, targets): (Vec<u32>, Vec<u32>) = written.unzip();
            let nll = (!targets.is_empty()).then(|| {
                let scores = model.logits(hidden.select(0, index_tensor(&positions, $device)));
                let log_probs: Tensor<$backend, 1> = <$backend>::log_prob(scores, &targets, 1.0);
                let log_probs: Vec<f32> = log_probs.into_data().to_vec().unwrap_or_default();
                -log_probs.iter().map(|&l| f64::from(l)).sum::<f64>() / log_probs.len() as f64
            });
            let sampling = Sampling { temperature: 0.0, top_p: 1.0, max_new_tokens: greedy, seed: 0 };
            let answers = generate(&model, &[&tokens], 1, eos, &sampling);
            (logits, nll, answers.into_iter().next().map_or(Vec::new(), |a| a.tokens))
        }};
    }
    let (logits, mean_negative_log_likelihood, greedy) = match choose(device)?.0 {
        Device::Cpu(d) => on!(burn::backend::Flex, &d),
        #[cfg(feature = "cuda")]
        Device::Cuda(d) => on!(burn::backend::Cuda, &d),
        #[cfg(feature = "wgpu")]
        Device::Wgpu(d) => on!(burn::backend::Wgpu, &d),
    };
    let continuation = tokenizer.decode(&greedy, true).map_err(|e| anyhow!("the tokenizer: {e}"))?;
    Ok(TextReport { tokens, mean_negative_log_likelihood, logits, greedy, continuation })
}
