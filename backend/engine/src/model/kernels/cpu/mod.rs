//! Fused loops over plain slices. Each is compiled for several instruction sets and chosen at run time; no floating-point
//! operation is reordered between them, and products are added with one rounding by all, so results do not depend on the processor (in
//! WebAssembly they do a little: it has no such addition). All but those over weights (sums
//! and [`adamw`]) run on the calling thread: work is spread over threads in larger pieces (see `packed::map`).
//!
//! Here belong loops that know slices and sizes. Tensors and gradients' bookkeeping are in `flex`.

mod attention;
mod blocks;
mod cache;
mod lanes;
mod rows;
mod weights;

pub use attention::{attention, attention_backward};
pub use cache::{HostCache, prompt_caches, step_attention};
pub use rows::{log_prob, log_prob_backward, rms_norm, rms_norm_backward, sampling_weights, swiglu, swiglu_backward};
pub use weights::{adamw, add_all, square_sum};
