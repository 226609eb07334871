//! What Hugging Face and GGUF files call the parts of a decoder, and how theirs become ours.
//!
//! Files keep a matrix as `[out, in]`, ours act from the right; queries, keys and values are three matrices in files and one here,
//! gate and up two. GGUF files of some families hold the rows of queries and keys in another order.

use super::Tensors;
use crate::model::architecture::{Architecture, LayerPart, Part};
use anyhow::{Context, Result, bail, ensure};
use std::collections::BTreeSet;

/// Whose names a file uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Naming {
    HuggingFace,
    Gguf {
        /// Whether query and key rows stand in the order of interleaved rotary embeddings.
        interleaved: bool,
    },
}

/// Tensors that some files have beside the weights, and that nothing is computed from.
const IDLE: [&str; 2] = ["rotary_emb.inv_freq", DIVISORS];
/// The tensor of GGUF files with a divisor for every rotary frequency, where they are stretched each by its own.
pub const DIVISORS: &str = "rope_freqs.weight";

impl Naming {
    /// Names of the tensors that make `part`, in order.
    pub fn of(self, part: Part) -> Vec<String> {
        let Part::Layer(l, own) = part else {
            let [hf, gguf] = match part {
                Part::Embedding => ["model.embed_tokens", "token_embd"],
                Part::Norm => ["model.norm", "output_norm"],
                _ => ["lm_head", "output"],
            };
            return vec![format!("{}.weight", if self == Self::HuggingFace { hf } else { gguf })];
        };
        let suffix = if own == LayerPart::QkvBias { "bias" } else { "weight" };
        let [hf, gguf]: [&[&str]; 2] = match own {
            LayerPart::AttentionNorm => [&["input_layernorm"], &["attn_norm"]],
            LayerPart::Qkv | LayerPart::QkvBias => {
                [&["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"], &["attn_q", "attn_k", "attn_v"]]
            }
            LayerPart::QueryNorm => [&["self_attn.q_norm"], &["attn_q_norm"]],
            LayerPart::KeyNorm => [&["self_attn.k_norm"], &["attn_k_norm"]],
            LayerPart::AttentionOut => [&["self_attn.o_proj"], &["attn_output"]],
            LayerPart::FeedNorm => [&["post_attention_layernorm"], &["ffn_norm"]],
            LayerPart::GateUp => [&["mlp.gate_proj", "mlp.up_proj"], &["ffn_gate", "ffn_up"]],
            LayerPart::Down => [&["mlp.down_proj"], &["ffn_down"]],
        };
        let named = |name: &&str| match self {
            Self::HuggingFace => format!("model.layers.{l}.{name}.{suffix}"),
            Self::Gguf { .. } => format!("blk.{l}.{name}.{suffix}"),
        };
        if self == Self::HuggingFace { hf.iter().map(named).collect() } else { gguf.iter().map(named).collect() }
    }

    /// Names of the tensors that make `part`, and their shapes in files, where a matrix acts from the left.
    pub fn tensors(self, a: &Architecture, part: Part) -> Vec<(String, Vec<usize>)> {
        let shape = a.shape(part);
        let turned = |width: usize| match shape.as_slice() {
            // The embeddings alone are kept as they are read, one row an entry.
            [rows, columns] if part == Part::Embedding => vec![*rows, *columns],
            [rows, _] => vec![width, *rows],
            _ => vec![width],
        };
        self.of(part).into_iter().zip(widths(a, part, &shape)).map(|(name, width)| (name, turned(width))).collect()
    }

    /// [`Self::tensors`] of a part; they are there, in the shape they should have.
    ///
    /// # Errors
    /// When a tensor is missing or has another shape; the message names it.
    pub fn check(self, files: &dyn Tensors, a: &Architecture, part: Part) -> Result<Vec<(String, Vec<usize>)>> {
        let named = self.tensors(a, part);
        for (name, wanted) in &named {
            let found = files.shape(name).with_context(|| format!("the tensor {name} is missing"))?;
            ensure!(found == *wanted, "the tensor {name} has the shape {found:?} and should have {wanted:?}");
        }
        Ok(named)
    }

    /// Whether the `n`th tensor of a part has its rows in another order in files.
    fn is_interleaved(self, part: Part, n: usize) -> bool {
        let turns = matches!(part, Part::Layer(_, LayerPart::Qkv | LayerPart::QkvBias)) && n < 2;
        turns && self == Self::Gguf { interleaved: true }
    }

    /// The weights of `part` as the decoder has them, row after row.
    ///
    /// # Errors
    /// When a tensor is missing, damaged or of another shape; the message names it.
    pub fn read(self, files: &dyn Tensors, a: &Architecture, part: Part) -> Result<Vec<f32>> {
        let named = self.check(files, a, part)?;
        let mut parts = Vec::with_capacity(named.len());
        for (n, (name, shape)) in named.iter().enumerate() {
            let values = files.read(name)?;
            parts.push(if self.is_interleaved(part, n) { in_halves(&values, shape[0], a.head_dim) } else { values });
        }
        let widths: Vec<usize> = named.iter().map(|(_, shape)| shape[0]).collect();
        Ok(match a.shape(part).as_slice() {
            [rows, _] if part != Part::Embedding => side_by_side(&parts, &widths, *rows),
            _ => parts.concat(),
        })
    }

    /// The `n`th tensor of `part` as files have it, out of the weights as the decoder has them: what [`Self::read`] undoes.
    pub fn split(self, a: &Architecture, part: Part, n: usize, weights: &[f32]) -> Vec<f32> {
        let shape = a.shape(part);
        let widths = widths(a, part, &shape);
        let before: usize = widths[..n].iter().sum();
        let own = match shape.as_slice() {
            [rows, columns] if part != Part::Embedding => turned(weights, [*rows, *columns], before..before + widths[n]),
            [_, _] => weights.to_vec(),
            _ => weights[before..before + widths[n]].to_vec(),
        };
        if self.is_interleaved(part, n) { in_pairs(&own, widths[n], a.head_dim) } else { own }
    }

    /// Whether every tensor of `files` has its place in `a`.
    ///
    /// # Errors
    /// When one has not: the model would be computed without it; the message names it.
    pub fn check_all_used(self, files: &dyn Tensors, a: &Architecture) -> Result<()> {
        // A head beside tied embeddings repeats them.
        let used: BTreeSet<String> = a.parts().into_iter().chain([Part::Head]).flat_map(|part| self.of(part)).collect();
        match files.names().into_iter().find(|name| !used.contains(name) && !IDLE.iter().any(|idle| name.ends_with(idle))) {
            Some(name) => bail!("the tensor {name} has no place in a model of the family {}", a.family),
            None => Ok(()),
        }
    }
}

/// Columns that each of the tensors of `part` gives.
fn widths(a: &Architecture, part: Part, shape: &[usize]) -> Vec<usize> {
    match part {
        Part::Layer(_, LayerPart::Qkv | LayerPart::QkvBias) => {
            vec![a.heads * a.head_dim, a.kv_heads * a.head_dim, a.kv_heads * a.head_dim]
        }
        Part::Layer(_, LayerPart::GateUp) => vec![a.d_ff, a.d_ff],
        _ => vec![*shape.last().expect("a part has a dimension")],
    }
}

/// Rows of every head from the order (first pair, second pair, ..) to (first of all pairs, second of all pairs).
fn in_halves(values: &[f32], rows: usize, head_dim: usize) -> Vec<f32> {
    let columns = values.len() / rows.max(1);
    let mut out = Vec::with_capacity(values.len());
    for head in 0..rows / head_dim {
        for row in 0..head_dim {
            let (half, pair) = (row / (head_dim / 2), row % (head_dim / 2));
            let from = (head * head_dim + 2 * pair + half) * columns;
            out.extend_from_slice(&values[from..from + columns]);
        }
    }
    out
}

/// What [`in_halves`] undoes.
fn in_pairs(values: &[f32], rows: usize, head_dim: usize) -> Vec<f32> {
    let columns = values.len() / rows.max(1);
    let mut out = Vec::with_capacity(values.len());
    for head in 0..rows / head_dim {
        for row in 0..head_dim {
            let from = (head * head_dim + row % 2 * (head_dim / 2) + row / 2) * columns;
            out.extend_from_slice(&values[from..from + columns]);
        }
    }
    out
}

/// Some columns of a matrix of `[rows, columns]`, as rows.
fn turned(values: &[f32], [rows, columns]: [usize; 2], some: std::ops::Range<usize>) -> Vec<f32> {
    let mut out = Vec::with_capacity(rows * some.len());
    for column in some {
        out.extend((0..rows).map(|row| values[row * columns + column]));
    }
    out
}

/// `[width, rows]` matrices transposed and set side by side: `[rows, sum of widths]`.
fn side_by_side(parts: &[Vec<f32>], widths: &[usize], rows: usize) -> Vec<f32> {
    /// Edge of the squares that are turned at a time, so that both sides stay in a core's cache.
    const EDGE: usize = 32;
    let total: usize = widths.iter().sum();
    let mut out = vec![0.0; rows * total];
    let mut at = 0;
    for (part, &width) in parts.iter().zip(widths) {
        for from in (0..width).step_by(EDGE) {
            for row in (0..rows).step_by(EDGE) {
                for w in from..(from + EDGE).min(width) {
                    for r in row..(row + EDGE).min(rows) {
                        out[r * total + at + w] = part[w * rows + r];
                    }
                }
            }
        }
        at += width;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matrices_are_turned_and_joined() {
        // [2, 3] and [1, 3] become [3, 3].
        let joined = side_by_side(&[vec![1., 2., 3., 4., 5., 6.], vec![7., 8., 9.]], &[2, 1], 3);
        assert_eq!(joined, [1., 4., 7., 2., 5., 8., 3., 6., 9.]);
        let large: Vec<f32> = (0..70 * 45).map(|i| i as f32).collect();
        let turned = side_by_side(std::slice::from_ref(&large), &[70], 45);
        assert!((0..70).all(|w| (0..45).all(|r| turned[r * 70 + w] == large[w * 45 + r])));
    }

    #[test]
    fn interleaved_rows_are_put_back() {
        // Two heads of four rows with one column each.
        let rows: Vec<f32> = (0..8).map(|i| i as f32).collect();
        let halves = [0., 2., 1., 3., 4., 6., 5., 7.];
        assert_eq!(in_halves(&rows, 8, 4), halves);
        assert_eq!(in_pairs(&halves, 8, 4), rows);
    }
}
