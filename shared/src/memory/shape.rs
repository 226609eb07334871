//! The shape of a decoder, and how many numbers it has and keeps.
//!
//! Everything here counts numbers, as `f64`: what nobody has found to be in its range yet may be larger than any whole number holds.

use crate::config::AdapterTarget::{self, DownProj, GateProj, KProj, OProj, QProj, UpProj, VProj};
use crate::config::{BaseConfig, ModelConfig};
use serde::{Deserialize, Serialize};

/// Sizes of a decoder, as far as its memory depends on them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(utoipa::ToSchema))]
pub struct Shape {
    pub layers: usize,
    /// Width of the residual stream.
    pub d_model: usize,
    /// Width of the feed-forward block.
    pub d_ff: usize,
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Width of one head.
    pub head_dim: usize,
    /// Entries of the vocabulary.
    pub vocabulary: usize,
    /// Whether input and output embeddings are one matrix.
    pub tied: bool,
    /// Whether every head of queries and keys is normed.
    #[serde(default)]
    pub qk_norm: bool,
    /// Tags that a run adds to the vocabulary of an off-the-shelf model, whose embeddings are trained with its adapters.
    #[serde(default)]
    pub tags: usize,
}

/// Low-rank adapters on a decoder's layers, as far as memory depends on them; none by default.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Adapters {
    rank: f64,
    /// Whether a matrix has one, in the order of [`AdapterTarget::ALL`].
    has: [bool; AdapterTarget::ALL.len()],
}

impl Adapters {
    /// Those of a run that begins with an off-the-shelf model.
    pub fn of(base: &BaseConfig) -> Self {
        Self { rank: base.rank as f64, has: AdapterTarget::ALL.map(|matrix| base.targets.contains(&matrix)) }
    }

    /// The adapted ones of some matrices.
    fn on<const N: usize>(&self, matrices: [AdapterTarget; N]) -> impl Iterator<Item = AdapterTarget> + use<N> {
        let has = self.has;
        matrices.into_iter().filter(move |&matrix| has[matrix as usize])
    }

    /// How many of some matrices are adapted.
    fn count<const N: usize>(&self, matrices: [AdapterTarget; N]) -> f64 {
        self.on(matrices).count() as f64
    }
}

impl Shape {
    /// The lab's own decoder. Tags and roles, which come on top of the vocabulary, are left out.
    pub fn own(config: &ModelConfig, vocabulary: usize) -> Self {
        Self {
            layers: config.layers,
            d_model: config.d_model,
            d_ff: config.d_ff,
            heads: config.heads,
            kv_heads: config.kv_heads,
            head_dim: config.d_model.checked_div(config.heads).unwrap_or(0),
            vocabulary,
            tied: config.tied_embeddings,
            qk_norm: false,
            tags: 0,
        }
    }

    /// The same up to its `n`th layer; all of it for 0.
    pub fn first_layers(self, n: usize) -> Self {
        Self { layers: if n > 0 { self.layers.min(n) } else { self.layers }, ..self }
    }

    /// Width of all queries: `heads * head_dim`.
    fn queries(&self) -> f64 {
        self.heads as f64 * self.head_dim as f64
    }

    /// Width of all keys, which is that of all values: `kv_heads * head_dim`.
    fn keys(&self) -> f64 {
        self.kv_heads as f64 * self.head_dim as f64
    }

    /// Width of queries, keys and values side by side: `(heads + 2 kv_heads) * head_dim`.
    fn qkv(&self) -> f64 {
        self.queries() + 2.0 * self.keys()
    }

    /// Weights: embeddings `vocabulary * d`, twice where the output has its own; in each layer `d * qkv` and `heads * head_dim * d` of
    /// attention, `3 d * d_ff` of the feed-forward block and `2 d` of its norms; and `d` of the last norm. Biases are left out.
    pub fn weights(&self) -> f64 {
        let (d, f) = (self.d_model as f64, self.d_ff as f64);
        let embeddings = self.vocabulary as f64 * d * if self.tied { 1.0 } else { 2.0 };
        embeddings + self.layers as f64 * d * (self.qkv() + self.queries() + 3.0 * f + 2.0) + d
    }

    /// Width of a matrix's input and of its output, added.
    fn ends(&self, matrix: AdapterTarget) -> f64 {
        let (d, f) = (self.d_model as f64, self.d_ff as f64);
        match matrix {
            QProj | OProj => d + self.queries(),
            KProj | VProj => d + self.keys(),
            GateProj | UpProj | DownProj => d + f,
        }
    }

    /// Numbers of low-rank adapters. For every adapted matrix `A` has `rank` columns of its input, and `B` `rank` rows of its output. On all
    /// seven matrices of each layer: inputs are three and two times `d`, once `heads * head_dim`, once `d_ff`; outputs `qkv`, two times
    /// `d`, two times `d_ff`. Together `layers * rank * (7 d + heads * head_dim + qkv + 3 d_ff)`. And `tags * d` of embeddings.
    pub fn adapters(&self, adapters: &Adapters) -> f64 {
        let ends: f64 = adapters.on(AdapterTarget::ALL).map(|matrix| self.ends(matrix)).sum();
        self.layers as f64 * adapters.rank * ends + self.tags as f64 * self.d_model as f64
    }

    /// Numbers that a layer keeps of every token until its backward pass. The tape of gradients holds, in the order of the forward pass:
    ///
    /// | tensor | width | who needs it |
    /// |---|---|---|
    /// | residual stream before attention | `d` | the first norm |
    /// | one over its root mean square | 1 | the same |
    /// | what the norm made of it | `d` | the product with queries, keys and values, and its adapter |
    /// | queries, keys, values | `qkv` | attention |
    /// | log of the sum of every head's softmax | `heads` | the same |
    /// | what attention mixed | `heads * head_dim` | the product behind it, and its adapter |
    /// | residual stream after attention | `d` | the second norm |
    /// | one over its root mean square | 1 | the same |
    /// | what the norm made of it | `d` | the product with gate and up, and its adapter |
    /// | gate and up | `2 d_ff` | the gate |
    /// | what the gate let through | `d_ff` | the product with down, and its adapter |
    /// | what every adapter's `A` made | `rank` each, `7 rank` with all | the product with its `B` |
    ///
    /// `4 d + qkv + heads * head_dim + 3 d_ff + heads + 2 + 7 rank`. Attention keeps no probabilities, a sum none of its terms, and a product
    /// no copy of its weights. Where heads are normed, queries and keys before it come on top, with a number a head.
    pub fn token(&self, adapters: &Adapters) -> f64 {
        let (d, f) = (self.d_model as f64, self.d_ff as f64);
        let narrow = adapters.rank * adapters.count(AdapterTarget::ALL);
        let normed = if self.qk_norm { self.queries() + self.keys() + self.heads as f64 + self.kv_heads as f64 } else { 0.0 };
        4.0 * d + self.qkv() + self.queries() + 3.0 * f + self.heads as f64 + 2.0 + narrow + normed
    }

    /// Numbers that a layer keeps of its adapters for every piece of work: the `B` of queries, keys and values, and of gate and up, are laid into
    /// one matrix with zeros, `rank` rows of it for each that is adapted: with all `3 rank * qkv` and `2 rank * 2 d_ff`.
    pub fn widened(&self, adapters: &Adapters) -> f64 {
        let (qkv, gate_up) = (adapters.count([QProj, KProj, VProj]), adapters.count([GateProj, UpProj]));
        adapters.rank * (qkv * self.qkv() + gate_up * 2.0 * self.d_ff as f64)
    }

    /// Numbers of a token while a text is read without a tape, where they are most: the residual stream, what a norm made of it, gate and up, and
    /// what the gate let through, `2 d + 3 d_ff`.
    pub fn read(&self) -> f64 {
        2.0 * self.d_model as f64 + 3.0 * self.d_ff as f64
    }

    /// Keys and values that are remembered of a token while answers are sampled: `layers * 2 * kv_heads * head_dim`.
    pub fn remembered(&self) -> f64 {
        self.layers as f64 * 2.0 * self.keys()
    }
}

/// Two layers of width 8, feed-forward 12; two query heads of four, one for keys and values; a vocabulary of 10. Of a token a layer keeps 96
/// numbers, and 7 more for each rank of adapters.
#[cfg(test)]
pub(super) const TINY: Shape = Shape {
    layers: 2,
    d_model: 8,
    d_ff: 12,
    heads: 2,
    kv_heads: 1,
    head_dim: 4,
    vocabulary: 10,
    tied: true,
    qk_norm: false,
    tags: 0,
};

#[cfg(test)]
mod tests {
    use super::*;

    /// Adapters of some matrices.
    fn on(rank: usize, matrices: &[AdapterTarget]) -> Adapters {
        Adapters::of(&BaseConfig { rank, targets: matrices.to_vec(), ..Default::default() })
    }

    fn on_all(rank: usize) -> Adapters {
        on(rank, &AdapterTarget::ALL)
    }

    #[test]
    fn numbers_are_those_that_were_counted_by_hand() {
        // Queries 2 * 4 = 8, keys 4, values 4: 16 side by side.
        assert_eq!((TINY.queries(), TINY.keys(), TINY.qkv()), (8.0, 4.0, 16.0));
        // Embeddings 10 * 8 = 80. A layer: 8 * 16 + 8 * 8 = 192 of attention, 3 * 8 * 12 = 288, norms 2 * 8 = 16: 496. The last norm 8.
        assert_eq!(TINY.weights(), 80.0 + 2.0 * 496.0 + 8.0);
        assert_eq!(Shape { tied: false, ..TINY }.weights(), 80.0 + 80.0 + 2.0 * 496.0 + 8.0);
        // A of rank 3: q, k, v 3 * 8, o 8, gate and up 2 * 8, down 12: 60 rows. B: 16 + 8 + 24 + 8 = 56 columns.
        assert_eq!(TINY.adapters(&on_all(3)), 2.0 * 3.0 * (60.0 + 56.0));
        assert_eq!(TINY.adapters(&Adapters::default()), 0.0);
        // Five embeddings of 8.
        assert_eq!(Shape { tags: 5, ..TINY }.adapters(&on_all(3)), TINY.adapters(&on_all(3)) + 40.0);
        // 8 + 1 + 8 (norm and its input), 16 + 2 (attention), 8 (mixed), 8 + 1 + 8 (norm), 24 (gate and up), 12 (gated).
        assert_eq!(TINY.token(&Adapters::default()), 96.0);
        // Adapters: three narrow rows of q, k, v, one of o, two of gate and up, one of down, of 3 each.
        assert_eq!(TINY.token(&on_all(3)), 96.0 + 21.0);
        // Normed heads: queries 8 and keys 4 before it, and a number for each of three heads.
        assert_eq!(Shape { qk_norm: true, ..TINY }.token(&Adapters::default()), 96.0 + 15.0);
        // 9 rows of 16, and 6 rows of 24.
        assert_eq!(TINY.widened(&on_all(3)), 9.0 * 16.0 + 6.0 * 24.0);
        // 8 + 8 + 24 + 12.
        assert_eq!(TINY.read(), 52.0);
        // Two layers of a key and a value of 4.
        assert_eq!(TINY.remembered(), 16.0);
        assert_eq!((TINY.first_layers(1).layers, TINY.first_layers(0).layers, TINY.first_layers(9).layers), (1, 2, 2));
    }

    #[test]
    fn what_is_not_adapted_is_not_counted() {
        // Rank 3, in two layers: queries 8 + 8, values 8 + 4; down 12 + 8.
        assert_eq!(TINY.adapters(&on(3, &[QProj, VProj])), 2.0 * 3.0 * (16.0 + 12.0));
        assert_eq!(TINY.adapters(&on(3, &[DownProj])), 2.0 * 3.0 * 20.0);
        // Two narrow rows of 3, and one; 6 rows of 16, 3 of 24; what is one matrix anyhow is laid into none.
        assert_eq!((TINY.token(&on(3, &[QProj, VProj])), TINY.token(&on(3, &[DownProj]))), (96.0 + 6.0, 96.0 + 3.0));
        let widened = [&[QProj, VProj][..], &[UpProj], &[OProj, DownProj]].map(|some| TINY.widened(&on(3, some)));
        assert_eq!(widened, [96.0, 72.0, 0.0]);
        // Each by itself makes all of them.
        let each: f64 = AdapterTarget::ALL.iter().map(|&one| TINY.adapters(&on(3, &[one]))).sum();
        assert_eq!(each, TINY.adapters(&on_all(3)));
    }

    /// What is written down of a real model: 134,515,008 weights, and 4,884,480 numbers of adapters of rank 16, which a run keeps as 19.5 MB.
    #[test]
    fn a_model_that_people_have_has_the_numbers_that_it_has() {
        let smollm2 = Shape {
            layers: 30,
            d_model: 576,
            d_ff: 1536,
            heads: 9,
            kv_heads: 3,
            head_dim: 64,
            vocabulary: 49_152,
            tied: true,
            qk_norm: false,
            tags: 0,
        };
        assert_eq!((smollm2.weights(), smollm2.adapters(&on_all(16))), (134_515_008.0, 4_884_480.0));
    }

    #[test]
    fn a_shape_of_the_labs_own_is_that_of_its_configuration() {
        let config = ModelConfig { layers: 2, d_model: 8, d_ff: 12, heads: 2, kv_heads: 1, ..Default::default() };
        assert_eq!(Shape::own(&config, 10), TINY);
        // What has no heads is refused elsewhere, and divides nothing here.
        assert_eq!(Shape::own(&ModelConfig { heads: 0, ..config }, 10).head_dim, 0);
    }
}
