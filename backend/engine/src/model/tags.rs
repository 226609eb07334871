//! Embeddings of tags: tokens that say which class is wanted, which a model reads and never writes.
//!
//! The lab's own models have them in their vocabulary. To an off-the-shelf model they can be added behind its own; their embeddings are
//! trained with its adapters, while its own stay frozen and shared.

use super::architecture::{Architecture, Part};
use super::initialiser::Initialiser;
use super::kernels::{Kernels, cat};
use super::transformer::{Transformer, index_tensor};
use burn::module::Param;
use burn::prelude::*;
use burn::tensor::FloatDType;
use std::sync::Arc;

impl<B: Kernels> Transformer<B> {
    /// Gives `tokens` the embedding of the token `like`, plus noise as strong as the table's entries that tells them apart.
    pub fn copy_embedding(mut self, tokens: &[u32], like: u32, seed: u64) -> Self {
        let device = self.device();
        let [vocabulary, d] = self.embedding.dims();
        let mut values = self.weights(Part::Embedding);
        let source: Vec<f32> = values[like as usize * d..(like as usize + 1) * d].to_vec();
        let mut init = Initialiser::new(seed);
        let deviation = (values.iter().map(|v| (v * v) as f64).sum::<f64>() / values.len() as f64).sqrt();
        for &token in tokens {
            let noise = init.normal(d, deviation);
            for i in 0..d {
                values[token as usize * d + i] = source[i] + noise[i];
            }
        }
        self.embedding = Param::from_tensor(Tensor::from_data(TensorData::new(values, [vocabulary, d]), &device));
        self
    }

    /// An adapted model with a tag behind its vocabulary for each of `like`, none of which is empty: its embedding begins as the mean of these
    /// tokens' embeddings, as Gee et al. (2022, "Fast Vocabulary Transfer") begin tokens that a vocabulary lacks, and is trained from there.
    pub fn with_tags(mut self, like: &[Vec<u32>]) -> Self {
        let means: Vec<Tensor<B, 2>> = like.iter().map(|tokens| self.embedded(tokens).mean_dim(0)).collect(); // [1, d_model] each
        // What is trained must not hang on what it was computed from.
        self.tags = (!means.is_empty()).then(|| Param::from_tensor(cat(means, 0).detach()));
        self
    }

    /// The model with its tags among its embeddings, where others look for them; it still writes none.
    pub(super) fn with_tags_inside(mut self) -> Self {
        let Some(tags) = self.tags.take() else { return self };
        self.embedding = self.embedding.map(|own| cat(vec![own.cast(FloatDType::F32), tags.val()], 0));
        let vocabulary = self.embedding.dims()[0];
        self.architecture = Arc::new(Architecture { vocabulary, ..(*self.architecture).clone() });
        self
    }

    /// The embedding of every token, those of tags behind the vocabulary's: `[tokens, d_model]`.
    pub(super) fn embedded(&self, tokens: &[u32]) -> Tensor<B, 2> {
        let (device, first) = (self.device(), self.embedding.dims()[0] as u32);
        let own = |tokens: &[u32]| self.embedding.val().select(0, index_tensor(tokens, &device)).cast(FloatDType::F32);
        let Some(tags) = self.tags.as_ref().filter(|_| tokens.iter().any(|&t| t >= first)) else { return own(tokens) };
        // To lay the tags behind all embeddings would copy these for every piece of work; they are laid behind those that are read. Where a tag
        // stands any embedding is read, and not taken.
        let read: Vec<u32> = tokens.iter().map(|&t| if t < first { t } else { 0 }).collect();
        let n = tokens.len() as u32;
        let taken: Vec<u32> = (0..n).zip(tokens).map(|(at, &t)| if t < first { at } else { n + t - first }).collect();
        cat(vec![own(&read), tags.val()], 0).select(0, index_tensor(&taken, &device))
    }
}

#[cfg(test)]
mod tests {
    use super::super::adapter::AdapterConfig;
    use super::super::mixture::mixture;
    use super::super::optimizer::Trainee;
    use super::super::packed::{Group, Packed};
    use super::super::store::{from_safetensors, to_safetensors};
    use super::*;
    use burn::backend::{Autodiff, Flex};
    use burn::module::AutodiffModule;
    use burn::optim::GradientsParams;
    use moslim_shared::config::{BaseConfig, ModelConfig};
    use moslim_shared::memory::{Adapters, Shape};

    type Taped = Autodiff<Flex>;

    const WIDTH: usize = 24;
    const LIKE: [&[u32]; 3] = [&[3], &[4, 8], &[7, 7, 9]];

    fn config(tied: bool) -> ModelConfig {
        ModelConfig { d_model: WIDTH, d_ff: 40, context: 64, tied_embeddings: tied, ..Default::default() }
    }

    /// A model of 50 entries, all of which can be written.
    fn plain(tied: bool) -> Transformer<Taped> {
        Transformer::new(&config(tied), 50, 50, 3, &Default::default())
    }

    fn adapted(tied: bool) -> Transformer<Taped> {
        plain(tied).adapted(&AdapterConfig::default(), 7)
    }

    /// The same with the tags 50, 51 and 52.
    fn tagged(tied: bool) -> Transformer<Taped> {
        adapted(tied).with_tags(&LIKE.map(<[u32]>::to_vec))
    }

    /// One whose tags have learnt something.
    fn learnt(tied: bool) -> Transformer<Flex> {
        let mut model = tagged(tied).valid();
        model.tags = model.tags.map(|tags| tags.map(|rows| rows + 0.5));
        model
    }

    fn values<B: Backend, const D: usize>(t: Tensor<B, D>) -> Vec<f32> {
        t.into_data().to_vec().unwrap()
    }

    fn rows<B: Kernels>(model: &Transformer<B>) -> Vec<f32> {
        values(model.tags.as_ref().unwrap().val())
    }

    fn asked(prompt: &[u32]) -> Packed {
        Packed::new(&[Group { prompt, answers: vec![&[4, 6]] }])
    }

    fn said<B: Kernels>(model: &Transformer<B>, prompt: &[u32]) -> Vec<f32> {
        values(model.logits(model.hidden(&asked(prompt))))
    }

    fn apart(a: &[f32], b: &[f32]) -> f32 {
        assert_eq!(a.len(), b.len());
        a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
    }

    #[test]
    fn a_tag_begins_as_the_mean_of_its_words_and_is_read_and_not_written() {
        for tied in [true, false] {
            let (model, table) = (tagged(tied), plain(tied).weights(Part::Embedding));
            for (tag, like) in LIKE.iter().enumerate() {
                for (i, found) in rows(&model)[tag * WIDTH..][..WIDTH].iter().enumerate() {
                    let mean = like.iter().map(|&t| table[t as usize * WIDTH + i]).sum::<f32>() / like.len() as f32;
                    assert!((found - mean).abs() < 1e-6, "{found} is not {mean}");
                }
            }
            // The first stands for a single word, and is read like it, wherever it stands.
            assert!(apart(&said(&model, &[1, 50, 5, 50]), &said(&model, &[1, 3, 5, 3])) < 1e-5);
            assert!(apart(&said(&model, &[1, 51, 5]), &said(&model, &[1, 3, 5])) > 1e-3);
            assert_eq!(said(&model, &[1, 51, 5]).len(), 5 * 50, "no tag is written");
            // As many numbers as are counted before a run starts.
            let counted = Shape { tags: 3, ..Shape::own(&config(tied), 50) }.adapters(&Adapters::of(&BaseConfig::default()));
            assert_eq!((model.num_params() - plain(tied).num_params()) as f64, counted);
        }
    }

    #[test]
    fn tags_that_are_read_are_trained_and_the_vocabulary_is_not() {
        let model = tagged(false);
        let grads = model.answer_log_probs(&asked(&[1, 50, 5]), 1.0).sum().backward();
        assert!(model.embedding.val().grad(&grads).is_none());
        let own = values(model.tags.as_ref().unwrap().val().grad(&grads).unwrap());
        assert!(own[WIDTH..].iter().all(|&g| g == 0.0), "the others were not read");
        // It is the gradient of the word that the tag stands for, in a model that is trained whole.
        let free = plain(false);
        let all = free.answer_log_probs(&asked(&[1, 3, 5]), 1.0).sum().backward();
        let word = &values(free.embedding.val().grad(&all).unwrap())[3 * WIDTH..4 * WIDTH];
        assert!(word.iter().any(|g| g.abs() > 1e-3) && apart(&own[..WIDTH], word) < 1e-5);

        let before = (rows(&model), model.weights(Part::Embedding));
        let grads = GradientsParams::from_grads(grads, &model);
        let trained = Trainee::<Taped, _>::new(model, 0.0, 1.0).step(grads, 1e-2).0.model;
        let after = rows(&trained);
        assert!(apart(&before.0[..WIDTH], &after[..WIDTH]) > 1e-3 && before.0[WIDTH..] == after[WIDTH..]);
        assert_eq!(trained.weights(Part::Embedding), before.1);
    }

    #[test]
    fn tags_are_kept_with_adapters_and_are_not_left_out_by_mistake() {
        let bytes = to_safetensors::<Flex, _>(&learnt(true)).unwrap();
        let loaded = from_safetensors(tagged(true).valid(), bytes.clone()).unwrap();
        assert_eq!(rows(&loaded), rows(&learnt(true)));
        let lost = from_safetensors(adapted(true).valid(), bytes).unwrap_err().to_string();
        assert!(lost.contains("the tensor tags has no place"), "{lost}");
        let without = to_safetensors::<Flex, _>(&adapted(true).valid()).unwrap();
        let missing = from_safetensors(tagged(true).valid(), without).unwrap_err().to_string();
        assert!(missing.contains("the tensor tags is missing"), "{missing}");
    }

    #[test]
    fn tags_of_several_policies_are_mixed() {
        let (first, second) = (tagged(true).valid(), learnt(true));
        let mixed = rows(&mixture(&[first.clone(), second], &[0.25, 0.75]));
        assert!(mixed.iter().zip(rows(&first)).all(|(m, f)| (m - f - 0.375).abs() < 1e-5));
    }

    #[test]
    fn a_merged_model_has_its_tags_behind_its_vocabulary() {
        for tied in [true, false] {
            let (model, merged) = (learnt(tied), learnt(tied).merged());
            assert!(apart(&said(&model, &[1, 51, 52, 5]), &said(&merged, &[1, 51, 52, 5])) < 1e-5);
            let own = merged.architecture();
            assert_eq!((own.vocabulary, own.outputs, merged.tags.is_none()), (53, 50, true));
            assert_eq!(merged.weights(Part::Embedding)[50 * WIDTH..], rows(&model));
        }
    }
}
