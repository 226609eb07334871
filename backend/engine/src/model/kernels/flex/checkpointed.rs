//! A layer of which the tape keeps its input alone, to compute it once more when its gradient is wanted (gradient checkpointing, Chen et al.
//! 2016).
//!
//! Its backward pass is one operation's, written by hand, and not a small tape's: a backward pass of burn 0.21 ends by waiting for every other
//! to end (`GraphCleaner::cleanup_orphaned_entries`), so that one within another would wait for itself. What it makes is bit for bit what
//! the operations of `taped` make one by one: the products are the same, and where gradients meet, there are two of them.

use super::super::layer::{Adapted, LayerTensors};
use super::super::product::product;
use super::super::{Kernels, cpu};
use super::tensors::{float, matrix, ordered, primitive, tensor, values};
use crate::model::span::Span;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::NoCheckpointing;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::{Autodiff, Flex};
use burn::prelude::*;
use burn::tensor::backend::AutodiffBackend;
use moslim_shared::config::{AdapterTarget, Precision};

type Taped = Autodiff<Flex, NoCheckpointing>;
type Rows = Tensor<Flex, 2>;

/// The input, `A` of the adapters of four matrices, and `B` of the seven that these are in files.
const PARENTS: usize = 1 + 4 + AdapterTarget::ALL.len();

#[derive(Debug)]
struct LayerBackward;

#[derive(Debug, Clone)]
struct LayerState {
    layer: LayerTensors<Flex>,
    /// `[n, d_model]`
    x: Rows,
    spans: Vec<Span>,
}

impl Backward<Flex, PARENTS> for LayerBackward {
    type State = LayerState;

    /// Parents: the input, and [`LayerTensors::trained`].
    fn backward(self, ops: Ops<LayerState, PARENTS>, grads: &mut Gradients, _: &mut Checkpointer) {
        let grad: Rows = float(grads.consume::<Flex>(&ops.node));
        let LayerState { layer, x, spans } = ops.state;
        for (node, part) in ops.parents.into_iter().zip(gradients(&layer, x, &spans, grad)) {
            if let Some(node) = node {
                grads.register::<Flex>(node.id, primitive(part));
            }
        }
    }
}

/// The layer on the tape. Its own weights are frozen: they get no gradients.
pub fn checkpointed(layer: &LayerTensors<Taped>, x: Tensor<Taped, 2>, spans: &[Span]) -> Tensor<Taped, 2> {
    let parents: Vec<_> = std::iter::once(x).chain(layer.trained()).map(primitive).collect();
    // In the place of what is not adapted stands what no gradient is wanted of.
    let nobody = Taped::from_inner(parents[0].primitive.clone());
    let nodes: [_; PARENTS] = std::array::from_fn(|n| parents.get(n).unwrap_or(&nobody).node.clone());
    let (layer, x): (_, Rows) = (layer.clone().inner(), float(nobody.primitive));
    let out = primitive(layer.causal(x.clone(), spans));
    float(match LayerBackward.prepare::<NoCheckpointing>(nodes).compute_bound().stateful() {
        OpsKind::Tracked(prep) => prep.finish(LayerState { layer, x, spans: spans.to_vec() }, out),
        OpsKind::UnTracked(prep) => prep.finish(out),
    })
}

/// Gradients with respect to the input, and to [`LayerTensors::trained`]. `grad`: with respect to what the layer made of `x`, `[n, d_model]`
/// both.
fn gradients(layer: &LayerTensors<Flex>, x: Rows, spans: &[Span], grad: Rows) -> Vec<Rows> {
    let (shape, eps, precision) = (&*layer.shape, layer.norm_eps, layer.precision);
    let n = x.dims()[0];
    // Forward, but for the last product, whose result nobody needs.
    let normed = Flex::rms_norm(x.clone(), layer.attention_norm.clone(), eps);
    let raw = layer.raw_heads(normed.clone());
    let qkv = ordered(primitive(layer.normed_heads(raw.clone())));
    let (mixed, log_sums) = cpu::attention(values(&qkv), shape, spans);
    let mixed: Rows = float(tensor(mixed, [n, shape.heads * shape.head_dim]));
    let between = layer.attention_out.project(mixed.clone(), Some(x.clone()), precision);
    let fed_with = Flex::rms_norm(between.clone(), layer.feed_norm.clone(), eps);
    let gate_up = layer.gate_up.project(fed_with.clone(), None, precision);
    let fed = Flex::swiglu(gate_up.clone());
    // Backward.
    let (d_fed, down) = project_backward(&layer.down, fed, grad.clone(), precision);
    let d_gate_up = swiglu_backward(gate_up, d_fed);
    let (d_fed_with, feed) = project_backward(&layer.gate_up, fed_with, d_gate_up, precision);
    let d_between = rms_norm_backward(between, layer.feed_norm.clone(), eps, d_fed_with) + grad;
    let (d_mixed, out) = project_backward(&layer.attention_out, mixed, d_between.clone(), precision);
    let d_mixed = ordered(primitive(d_mixed));
    let d_qkv = cpu::attention_backward(values(&qkv), &log_sums, values(&d_mixed), shape, spans);
    let d_qkv: Rows = float(tensor(d_qkv, [n, shape.qkv_dim()]));
    let d_raw = layer.by_head([raw, d_qkv], |[heads, grad], weight| rms_norm_backward(heads, weight, eps, grad));
    let (d_normed, heads) = project_backward(&layer.qkv, normed, d_raw, precision);
    let dx = rms_norm_backward(x, layer.attention_norm.clone(), eps, d_normed) + d_between;
    [vec![dx], heads, out, feed, down].concat()
}

/// Gradients of [`Adapted::project`] with respect to `x`, `[n, in]`, and to `A` and every `B` of the adapter. `grad`: `[n, out]`.
fn project_backward(own: &Adapted<Flex>, x: Rows, grad: Rows, precision: Precision) -> (Rows, Vec<Rows>) {
    let dx = Flex::projection(grad.clone(), own.weights.clone(), true, None, precision);
    let Some(adapter) = &own.adapter else { return (dx, Vec::new()) };
    let d_narrow = Flex::projection(grad.clone(), adapter.wide(), true, None, precision) * adapter.scale;
    let d_wide = inner_product(adapter.narrow(x.clone(), precision), grad);
    let mut trained = vec![inner_product(x, d_narrow.clone())];
    trained.extend(adapter.parts(&d_wide));
    (dx + Flex::projection(d_narrow, adapter.a.clone(), true, None, precision), trained)
}

/// `x^T y`, `[a, b]`. `x`: `[n, a]`; `y`: `[n, b]`.
fn inner_product(x: Rows, y: Rows) -> Rows {
    let shape = [x.dims()[1], y.dims()[1]];
    let (x, y) = (ordered(primitive(x)), ordered(primitive(y)));
    float(tensor(product(matrix(&x).transposed(), matrix(&y)), shape))
}

/// Gradient of [`Kernels::rms_norm`] with respect to `x`. `x` and `grad`: `[n, d]`, `weight`: `[d]`.
fn rms_norm_backward(x: Rows, weight: Tensor<Flex, 1>, eps: f32, grad: Rows) -> Rows {
    let shape = x.dims();
    let (x, weight, grad) = (ordered(primitive(x)), ordered(primitive(weight)), ordered(primitive(grad)));
    let (_, inverse) = cpu::rms_norm(values(&x), values(&weight), eps);
    float(tensor(cpu::rms_norm_backward(values(&x), values(&weight), &inverse, values(&grad)).0, shape))
}

/// Gradient of [`Kernels::swiglu`]. `gate_up`: `[n, 2 f]`; `grad`: `[n, f]`.
fn swiglu_backward(gate_up: Rows, grad: Rows) -> Rows {
    let [n, f2] = gate_up.dims();
    let (gate_up, grad) = (ordered(primitive(gate_up)), ordered(primitive(grad)));
    float(tensor(cpu::swiglu_backward(values(&gate_up), values(&grad), f2 / 2), [n, f2]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::adapter::AdapterConfig;
    use crate::model::architecture::Architecture;
    use crate::model::initialiser::Initialiser;
    use crate::model::kernels::cat;
    use crate::model::packed::{Group, Packed};
    use crate::model::transformer::Transformer;
    use burn::module::{ModuleMapper, ModuleVisitor, Param};
    use burn::optim::GradientsParams;
    use moslim_shared::config::{BaseConfig, ModelConfig};

    /// Adds something to adapters, whose `B` are 0 at first, so that `A` gets no gradient.
    struct Stir(Initialiser);

    impl ModuleMapper<Taped> for Stir {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<Taped, D>>) -> Param<Tensor<Taped, D>> {
            let shape = param.dims();
            let noise = TensorData::new(self.0.normal(shape.iter().product(), 0.1), shape);
            param.map(|w| (w + Tensor::<Taped, D>::from_data(noise, &Default::default())).detach().require_grad())
        }
    }

    /// Gradients of what has one, in the order in which a model is visited.
    struct Collected {
        grads: GradientsParams,
        values: Vec<Vec<f32>>,
    }

    impl ModuleVisitor<Taped> for Collected {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<Taped, D>>) {
            let grad = self.grads.get::<Flex, D>(param.id);
            self.values.extend(grad.map(|grad| grad.into_data().to_vec::<f32>().unwrap()));
        }
    }

    /// Log-probabilities of two batches under an adapted model, how many operations lie one upon the other in them, and the gradients that a loss
    /// of both gives.
    fn learn(a: &Architecture, kept: Precision, base: &BaseConfig) -> (Vec<f32>, usize, Vec<Vec<f32>>) {
        let mut init = Initialiser::new(5);
        let model = Transformer::<Taped>::assemble(a, (Precision::F32, kept), 64, &Default::default(), |part, shape| {
            let mean = if part.is_norm() { 1.0 } else { 0.0 };
            Ok(init.normal(shape.iter().product(), 0.2).into_iter().map(|w| w + mean).collect())
        });
        let mut model = model.unwrap().adapted(&AdapterConfig::of(base), 7);
        let mut stir = Stir(Initialiser::new(9));
        model.adapters = std::mem::take(&mut model.adapters).into_iter().map(|own| own.map(&mut stir)).collect();
        let one = [
            Group { prompt: &[1, 5, 9, 30], answers: vec![&[4, 6, 11], &[2]] },
            Group { prompt: &[3], answers: vec![&[14, 15]] },
        ];
        let other = [Group { prompt: &[8, 2], answers: vec![&[7, 7]] }];
        let said = [&one[..], &other].map(|groups| model.answer_log_probs(&Packed::new(groups), 0.7));
        let said = cat(said.to_vec(), 0);
        let deep = primitive(said.clone()).node.order;
        // Every token counts differently.
        let grads = (said.clone() * said.clone()).sum().backward();
        let mut collected = Collected { grads: GradientsParams::from_grads(grads, &model), values: Vec::new() };
        model.visit(&mut collected);
        (said.into_data().to_vec().unwrap(), deep, collected.values)
    }

    #[test]
    fn a_layer_that_is_computed_once_more_gives_the_same_gradients() {
        use AdapterTarget::{DownProj, GateProj, KProj, OProj, QProj, UpProj, VProj};
        let config = ModelConfig { layers: 3, d_model: 24, d_ff: 40, context: 64, ..Default::default() };
        let own = Architecture::own(&config, 50, 40);
        // With the number of their `A`.
        let some: [(&[AdapterTarget], usize); 5] = [
            (&AdapterTarget::ALL, 4),
            (&[QProj, VProj, OProj, UpProj], 3),
            (&[KProj, VProj], 1),
            (&[GateProj, UpProj], 1),
            (&[DownProj], 1),
        ];
        for (qkv_bias, qk_norm) in [(false, false), (true, false), (false, true)] {
            let a = Architecture { qkv_bias, qk_norm, ..own.clone() };
            for ((targets, first), kept) in some.iter().flat_map(|s| [Precision::F32, Precision::Bf16].map(|kept| (*s, kept))) {
                let [plain, again] = [false, true].map(|checkpointing| {
                    learn(&a, kept, &BaseConfig { rank: 3, targets: targets.to_vec(), checkpointing, ..Default::default() })
                });
                let what = format!("bias {qkv_bias}, norm {qk_norm}, {kept:?}, {targets:?}");
                assert_eq!(again.0, plain.0, "{what}");
                assert!(again.1 + 6 * config.layers < plain.1, "{what}: {} operations, {} without", again.1, plain.1);
                let count = config.layers * (first + targets.len());
                assert_eq!((again.2.len(), plain.2.len()), (count, count), "{what}");
                for (a, b) in again.2.iter().zip(&plain.2) {
                    assert!(a.len() == b.len() && b.iter().any(|g| g.abs() > 1e-4), "{what}: {b:?}");
                    assert!(a.iter().zip(b).all(|(a, b)| (a - b).abs() <= 1e-6 * (1.0 + b.abs())), "{what}: {a:?} is not {b:?}");
                }
            }
        }
    }
}
