//! Weighted means of models' weights: what Rewarded Soups serves, and averages of a policy over its training.

use super::kernels::Kernels;
use super::transformer::Transformer;
use burn::module::{Module, ModuleMapper, Param};
use burn::prelude::*;

/// `sum_i w_i theta_i`, weight by weight; of adapted models, over the weights of their adapters and added tags. `weights`: one for each
/// of `experts`, which have the same shape.
pub fn mixture<B: Kernels>(experts: &[Transformer<B>], weights: &[f32]) -> Transformer<B> {
    if experts[0].is_adapted() {
        let (adapters, tags): (Vec<_>, Vec<_>) = experts.iter().map(|e| (e.adapters.clone(), e.tags.clone())).unzip();
        let mut mixture = experts[0].clone();
        mixture.adapters = mixed::<B, _>(&adapters, weights);
        mixture.tags = mixed::<B, _>(&tags, weights);
        return mixture;
    }
    mixed(experts, weights)
}

fn mixed<B: Backend, M: Module<B>>(experts: &[M], weights: &[f32]) -> M {
    // Tensors of all experts in the order in which a module is visited, last first.
    let mut collected: Vec<Collected<B>> = experts
        .iter()
        .map(|expert| {
            let mut collector = Collected { tensors: Vec::new() };
            let _ = expert.clone().map(&mut collector);
            collector.tensors.reverse();
            collector
        })
        .collect();
    let chosen: Vec<(f32, usize)> = weights.iter().copied().zip(0..).filter(|(w, _)| *w != 0.0).collect();
    let mut mixer = Mixer { experts: &mut collected, chosen };
    experts[0].clone().map(&mut mixer)
}

/// All float tensors of a module, flat.
struct Collected<B: Backend> {
    tensors: Vec<Tensor<B, 1>>,
}

impl<B: Backend> ModuleMapper<B> for Collected<B> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
        let n: usize = param.dims().iter().product();
        self.tensors.push(param.val().reshape([n]));
        param
    }
}

struct Mixer<'a, B: Backend> {
    experts: &'a mut [Collected<B>],
    /// Weight and position of the experts that count.
    chosen: Vec<(f32, usize)>,
}

impl<B: Backend> ModuleMapper<B> for Mixer<'_, B> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
        let shape = param.dims();
        let tensors: Vec<Tensor<B, 1>> =
            self.experts.iter_mut().map(|e| e.tensors.pop().expect("experts have the same shape")).collect();
        let mut sum: Option<Tensor<B, 1>> = None;
        for &(w, n) in &self.chosen {
            // A weight of 1 returns its expert bit for bit.
            let part = if w == 1.0 { tensors[n].clone() } else { tensors[n].clone() * w };
            sum = Some(match sum {
                Some(sum) => sum + part,
                None => part,
            });
        }
        param.map(|_| sum.expect("at least one weight is not 0").reshape(shape))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::adapter::AdapterConfig;
    use crate::model::store::to_safetensors;
    use burn::backend::Flex;
    use moslim_shared::config::ModelConfig;

    #[test]
    fn a_one_hot_mixture_is_its_model_and_a_half_half_mixture_lies_between() {
        let config = ModelConfig {
            layers: 1,
            d_model: 8,
            heads: 2,
            kv_heads: 1,
            d_ff: 12,
            context: 32,
            tied_embeddings: true,
            ..Default::default()
        };
        let experts: Vec<Transformer<Flex>> =
            (1..4).map(|seed| Transformer::new(&config, 20, 18, seed, &Default::default())).collect();
        let values = |t: &Transformer<Flex>| -> Vec<f32> { t.embedding.val().into_data().to_vec().unwrap() };
        assert_eq!(values(&mixture(&experts, &[0.0, 1.0, 0.0])), values(&experts[1]));
        let adapted: Vec<Transformer<Flex>> =
            (1..3).map(|seed| experts[0].clone().adapted(&AdapterConfig::default(), seed)).collect();
        let mixed = mixture(&adapted, &[0.25, 0.75]);
        assert_eq!(values(&mixed), values(&experts[0]), "what is frozen is not touched");
        let a = |t: &Transformer<Flex>| to_safetensors::<Flex, _>(t).unwrap();
        assert!(a(&mixed) != a(&adapted[0]) && a(&mixture(&adapted, &[0.0, 1.0])) == a(&adapted[1]));
        let half = mixture(&experts, &[0.5, 0.0, 0.5]);
        for ((h, a), b) in values(&half).iter().zip(values(&experts[0])).zip(values(&experts[2])) {
            assert!((h - (a + b) / 2.0).abs() < 1e-6);
        }
    }
}
