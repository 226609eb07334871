//! What the operations are told besides tensors.

use std::sync::Arc;

/// Geometry of grouped-query attention with rotary position embeddings.
#[derive(Debug, Clone)]
pub struct AttentionShape {
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Width of one head, even.
    pub head_dim: usize,
    /// Cosines and sines, `[position][head_dim / 2]` each.
    pub rope: Arc<RopeTable>,
}

impl AttentionShape {
    /// Width of the fused projection: queries, keys, values.
    pub fn qkv_dim(&self) -> usize {
        (self.heads + 2 * self.kv_heads) * self.head_dim
    }
}

/// Rotary position embeddings (Su et al. 2021) in Hugging Face's convention: dimension `d` is paired with
/// `d + head_dim / 2`, and rotated by `position * frequency[d]`.
#[derive(Debug)]
pub struct RopeTable {
    /// `[position * half + d]`
    pub cos: Vec<f32>,
    pub sin: Vec<f32>,
    /// `head_dim / 2`
    pub half: usize,
}

impl RopeTable {
    /// Table for positions `0..context`. `frequencies`: angle per position, `[head_dim / 2]`.
    pub fn new(context: usize, frequencies: &[f64]) -> Self {
        let angles = || (0..context).flat_map(|position| frequencies.iter().map(move |f| position as f64 * f));
        Self {
            cos: angles().map(|a| a.cos() as f32).collect(),
            sin: angles().map(|a| a.sin() as f32).collect(),
            half: frequencies.len(),
        }
    }
}

/// Constants of one AdamW step (Loshchilov & Hutter 2019).
#[derive(Debug, Clone, Copy)]
pub struct AdamStep {
    pub learning_rate: f32,
    pub weight_decay: f32,
    pub beta_1: f32,
    pub beta_2: f32,
    pub epsilon: f32,
    /// Counts from 1.
    pub time: i32,
}

impl AdamStep {
    /// `1 - beta^time` of both moments.
    pub fn corrections(&self) -> [f32; 2] {
        [self.beta_1, self.beta_2].map(|beta| 1.0 - beta.powi(self.time))
    }
}
