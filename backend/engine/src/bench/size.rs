//! The shapes that are measured.

use crate::model::TrainBackend;
use crate::model::adapter::AdapterConfig;
use crate::model::transformer::Transformer;
use moslim_shared::config::{BaseConfig, ModelConfig, Precision};

/// Rows and tokens of the batch that forward pass and training step read.
const BATCH: (usize, usize) = (32, 64);
/// Prompts, samples per prompt and tokens of an answer of the RLOO iteration; and of that of a model of which adapters are trained.
const ITERATION: (usize, usize, usize) = (32, 4, 40);
const ADAPTED_ITERATION: (usize, usize, usize) = (6, 8, 64);

/// A model shape to measure.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    pub name: &'static str,
    pub(super) layers: usize,
    pub(super) d_model: usize,
    pub(super) heads: usize,
    pub(super) kv_heads: usize,
    pub(super) d_ff: usize,
    pub(super) vocabulary: usize,
    /// Whether whole RLOO iterations are measured, too.
    pub(super) iterations: bool,
    /// Whether its weights are frozen, and adapters of [`ADAPTERS`] are trained.
    pub(super) adapted: bool,
}

/// Rank and alpha of the adapters.
const ADAPTERS: (usize, f64) = (16, 32.0);

/// The shapes that can be measured, smallest first.
pub const SIZES: [Size; 5] = [
    Size::of("0.16M", [2, 64, 4, 4, 172, 512]),
    Size::of("0.72M", [3, 128, 4, 4, 344, 512]),
    Size::of("8.7M", [6, 320, 5, 5, 864, 2_048]),
    // SmolLM2-135M's. Trained whole, an iteration would take minutes.
    Size { iterations: false, ..Size::of("135M", [30, 576, 9, 3, 1_536, 49_152]) },
    Size { adapted: true, ..Size::of("135M-LoRA", [30, 576, 9, 3, 1_536, 49_152]) },
];

impl Size {
    /// A size of a shape as [`Size::shape`] has it, trained whole, of which iterations are measured.
    const fn of(name: &'static str, [layers, d_model, heads, kv_heads, d_ff, vocabulary]: [usize; 6]) -> Self {
        Self { name, layers, d_model, heads, kv_heads, d_ff, vocabulary, iterations: true, adapted: false }
    }

    /// Layers, width, query heads, key and value heads, feed-forward width, vocabulary.
    pub fn shape(&self) -> [usize; 6] {
        [self.layers, self.d_model, self.heads, self.kv_heads, self.d_ff, self.vocabulary]
    }

    pub(super) fn config(&self, precision: Precision) -> ModelConfig {
        ModelConfig {
            layers: self.layers,
            d_model: self.d_model,
            heads: self.heads,
            kv_heads: self.kv_heads,
            d_ff: self.d_ff,
            context: 256,
            tied_embeddings: self.is_large(),
            precision,
        }
    }

    /// Whether it has the shape of an off-the-shelf model.
    fn is_large(&self) -> bool {
        self.adapted || !self.iterations
    }

    /// Rows and tokens of the batch that forward pass and training step read.
    pub(super) fn batch(&self) -> (usize, usize) {
        if self.is_large() { (8, 256) } else { BATCH }
    }

    pub(super) fn iteration(&self) -> (usize, usize, usize) {
        if self.adapted { ADAPTED_ITERATION } else { ITERATION }
    }

    /// `model` as it is trained.
    pub(super) fn trained<B: TrainBackend>(&self, model: Transformer<B>) -> Transformer<B> {
        let (rank, alpha) = ADAPTERS;
        if self.adapted { model.adapted(&AdapterConfig::of(&BaseConfig { rank, alpha, ..Default::default() }), 1) } else { model }
    }

    /// Rank of the adapters that are trained; 0 where the weights are.
    pub fn rank(&self) -> usize {
        if self.adapted { ADAPTERS.0 } else { 0 }
    }

    /// Whether whole RLOO iterations are measured, too.
    pub fn iterates(&self) -> bool {
        self.iterations
    }
}
