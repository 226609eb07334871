//! The CPU backend's fused operations, with their gradients.

use super::{AttentionShape, Kernels, LayerCache, cpu};
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::NoCheckpointing;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::{Autodiff, Flex};
use burn::prelude::*;
use burn::tensor::{TensorMetadata, TensorPrimitive};
use burn_flex::FlexTensor;

type Taped = Autodiff<Flex, NoCheckpointing>;

fn tensor<const D: usize>(values: Vec<f32>, shape: [usize; D]) -> FlexTensor {
    FlexTensor::from_data(TensorData::new(values, shape))
}

/// The tensor with its elements in order, so that [`values`] can view them.
fn ordered(tensor: FlexTensor) -> FlexTensor {
    if tensor.as_slice::<f32>().is_some() { tensor } else { tensor.to_contiguous() }
}

fn values(tensor: &FlexTensor) -> &[f32] {
    tensor.as_slice::<f32>().expect("an ordered f32 tensor")
}

fn float<B: Backend, const D: usize>(primitive: B::FloatTensorPrimitive) -> Tensor<B, D> {
    Tensor::from_primitive(TensorPrimitive::Float(primitive))
}

fn primitive<B: Backend, const D: usize>(tensor: Tensor<B, D>) -> B::FloatTensorPrimitive {
    tensor.into_primitive().tensor()
}

impl Kernels for Flex {
    fn causal_attention(qkv: Tensor<Self, 3>, shape: &AttentionShape, starts: &[usize]) -> Tensor<Self, 3> {
        let [b, t, _] = qkv.dims();
        let qkv = ordered(primitive(qkv));
        let (out, _) = cpu::attention(values(&qkv), b, t, shape, starts, false);
        float(tensor(out, [b, t, shape.heads * shape.head_dim]))
    }

    fn cached_attention(
        qkv: Tensor<Self, 3>,
        shape: &AttentionShape,
        starts: &[usize],
        cache: &mut LayerCache<Self>,
    ) -> Tensor<Self, 3> {
        let [b, new, _] = qkv.dims();
        let qkv = ordered(primitive(qkv));
        if cache.host.is_empty() {
            cache.width = 2 * shape.kv_heads * shape.head_dim;
            cache.host = vec![0.0; b * cache.capacity * cache.width];
        }
        let out = cpu::cached_attention(values(&qkv), new, &mut cache.host, cache.capacity, cache.length, shape, starts);
        cache.length += new;
        float(tensor(out, [b, new, shape.heads * shape.head_dim]))
    }

    fn rms_norm(x: Tensor<Self, 2>, weight: Tensor<Self, 1>, eps: f32) -> Tensor<Self, 2> {
        let shape = x.dims();
        let (x, weight) = (ordered(primitive(x)), ordered(primitive(weight)));
        float(tensor(cpu::rms_norm(values(&x), values(&weight), eps).0, shape))
    }

    fn swiglu(gate_up: Tensor<Self, 2>) -> Tensor<Self, 2> {
        let [n, f2] = gate_up.dims();
        let gate_up = ordered(primitive(gate_up));
        float(tensor(cpu::swiglu(values(&gate_up), f2 / 2), [n, f2 / 2]))
    }

    fn log_prob(logits: Tensor<Self, 2>, targets: &[u32], temperature: f32) -> Tensor<Self, 1> {
        let logits = ordered(primitive(logits));
        float(tensor(cpu::log_prob(values(&logits), targets, temperature).0, [targets.len()]))
    }
}

#[derive(Debug)]
struct AttentionBackward;

#[derive(Debug, Clone)]
struct AttentionState {
    qkv: FlexTensor,
    probabilities: FlexTensor,
    shape: AttentionShape,
    starts: Vec<usize>,
}

impl Backward<Flex, 1> for AttentionBackward {
    type State = AttentionState;

    fn backward(self, ops: Ops<AttentionState, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let grad = ordered(grads.consume::<Flex>(&ops.node));
        let s = &ops.state;
        let [b, t, width] = s.qkv.shape().dims();
        let [parent] = ops.parents;
        if let Some(node) = parent {
            let out = cpu::attention_backward(values(&s.qkv), values(&s.probabilities), values(&grad), b, t, &s.shape, &s.starts);
            grads.register::<Flex>(node.id, tensor(out, [b, t, width]));
        }
    }
}

#[derive(Debug)]
struct RmsNormBackward;

impl Backward<Flex, 2> for RmsNormBackward {
    /// Input, weight, inverse root mean square.
    type State = (FlexTensor, FlexTensor, FlexTensor);

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let grad = ordered(grads.consume::<Flex>(&ops.node));
        let (x, weight, inverse) = &ops.state;
        let [n, d] = x.shape().dims();
        let (dx, dw) = cpu::rms_norm_backward(values(x), values(weight), values(inverse), values(&grad));
        let [x_node, weight_node] = ops.parents;
        if let Some(node) = x_node {
            grads.register::<Flex>(node.id, tensor(dx, [n, d]));
        }
        if let Some(node) = weight_node {
            grads.register::<Flex>(node.id, tensor(dw, [d]));
        }
    }
}

#[derive(Debug)]
struct SwigluBackward;

impl Backward<Flex, 1> for SwigluBackward {
    type State = FlexTensor;

    fn backward(self, ops: Ops<FlexTensor, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let grad = ordered(grads.consume::<Flex>(&ops.node));
        let [n, f2] = ops.state.shape().dims();
        let [parent] = ops.parents;
        if let Some(node) = parent {
            grads.register::<Flex>(node.id, tensor(cpu::swiglu_backward(values(&ops.state), values(&grad), f2 / 2), [n, f2]));
        }
    }
}

#[derive(Debug)]
struct LogProbBackward;

#[derive(Debug, Clone)]
struct LogProbState {
    logits: FlexTensor,
    log_sums: FlexTensor,
    targets: Vec<u32>,
    temperature: f32,
}

impl Backward<Flex, 1> for LogProbBackward {
    type State = LogProbState;

    fn backward(self, ops: Ops<LogProbState, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let grad = ordered(grads.consume::<Flex>(&ops.node));
        let s = &ops.state;
        let [n, classes] = s.logits.shape().dims();
        let [parent] = ops.parents;
        if let Some(node) = parent {
            let out = cpu::log_prob_backward(values(&s.logits), &s.targets, values(&s.log_sums), values(&grad), s.temperature);
            grads.register::<Flex>(node.id, tensor(out, [n, classes]));
        }
    }
}

impl Kernels for Taped {
    fn causal_attention(qkv: Tensor<Self, 3>, shape: &AttentionShape, starts: &[usize]) -> Tensor<Self, 3> {
        let [b, t, _] = qkv.dims();
        let qkv = primitive(qkv);
        let input = ordered(qkv.primitive.clone());
        let (h, width) = (shape.heads, shape.heads * shape.head_dim);
        let out = match AttentionBackward.prepare::<NoCheckpointing>([qkv.node.clone()]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let (out, probabilities) = cpu::attention(values(&input), b, t, shape, starts, true);
                let probabilities = tensor(probabilities, [b, h, t, t]);
                let state = AttentionState { qkv: input, probabilities, shape: shape.clone(), starts: starts.to_vec() };
                prep.finish(state, tensor(out, [b, t, width]))
            }
            OpsKind::UnTracked(prep) => {
                prep.finish(tensor(cpu::attention(values(&input), b, t, shape, starts, false).0, [b, t, width]))
            }
        };
        float(out)
    }

    fn rms_norm(x: Tensor<Self, 2>, weight: Tensor<Self, 1>, eps: f32) -> Tensor<Self, 2> {
        let shape = x.dims();
        let (x, weight) = (primitive(x), primitive(weight));
        let (input, scale) = (ordered(x.primitive.clone()), ordered(weight.primitive.clone()));
        let (out, inverse) = cpu::rms_norm(values(&input), values(&scale), eps);
        let out = tensor(out, shape);
        float(
            match RmsNormBackward.prepare::<NoCheckpointing>([x.node.clone(), weight.node.clone()]).compute_bound().stateful() {
                OpsKind::Tracked(prep) => prep.finish((input, scale, tensor(inverse, [shape[0]])), out),
                OpsKind::UnTracked(prep) => prep.finish(out),
            },
        )
    }

    fn swiglu(gate_up: Tensor<Self, 2>) -> Tensor<Self, 2> {
        let [n, f2] = gate_up.dims();
        let gate_up = primitive(gate_up);
        let input = ordered(gate_up.primitive.clone());
        let out = tensor(cpu::swiglu(values(&input), f2 / 2), [n, f2 / 2]);
        float(match SwigluBackward.prepare::<NoCheckpointing>([gate_up.node.clone()]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish(input, out),
            OpsKind::UnTracked(prep) => prep.finish(out),
        })
    }

    fn log_prob(logits: Tensor<Self, 2>, targets: &[u32], temperature: f32) -> Tensor<Self, 1> {
        let logits = primitive(logits);
        let input = ordered(logits.primitive.clone());
        let (out, log_sums) = cpu::log_prob(values(&input), targets, temperature);
        let n = targets.len();
        float(match LogProbBackward.prepare::<NoCheckpointing>([logits.node.clone()]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let state =
                    LogProbState { logits: input, log_sums: tensor(log_sums, [n]), targets: targets.to_vec(), temperature };
                prep.finish(state, tensor(out, [n]))
            }
            OpsKind::UnTracked(prep) => prep.finish(tensor(out, [n])),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::RopeTable;
    use super::*;
    use burn::backend::autodiff::checkpoint::strategy::BalancedCheckpointing;
    use std::sync::Arc;

    /// The same CPU arithmetic without the fused operations: burn's tensor operations under autodiff.
    type Plain = Autodiff<Flex, BalancedCheckpointing>;
    impl Kernels for Plain {}

    fn numbers(n: usize, seed: u64) -> Vec<f32> {
        (0..n).map(|i| (((i as u64 + 1).wrapping_mul(seed + 7919) % 1009) as f32 / 504.5 - 1.0) * 1.3).collect()
    }

    /// Compares outputs and input gradients of a fused operation and of its definition.
    fn check<const I: usize, const O: usize>(
        shape: [usize; I],
        fused: impl Fn(Tensor<Taped, I>) -> Tensor<Taped, O>,
        plain: impl Fn(Tensor<Plain, I>) -> Tensor<Plain, O>,
        counted: impl Fn(usize) -> bool,
    ) {
        let data = TensorData::new(numbers(shape.iter().product(), 3), shape);
        fn run<B: burn::tensor::backend::AutodiffBackend, const I: usize, const O: usize>(
            data: TensorData,
            f: impl Fn(Tensor<B, I>) -> Tensor<B, O>,
            counted: impl Fn(usize) -> bool,
        ) -> (Vec<f32>, Vec<f32>) {
            let x = Tensor::<B, I>::from_data(data, &Default::default()).require_grad();
            let y = f(x.clone());
            let shape = y.dims();
            let n: usize = shape.iter().product();
            let weights: Vec<f32> =
                numbers(n, 11).into_iter().enumerate().map(|(i, w)| if counted(i) { w } else { 0.0 }).collect();
            let weights = Tensor::<B, O>::from_data(TensorData::new(weights, shape), &Default::default());
            let grads = (y.clone() * weights.clone()).sum().backward();
            let out = (y * weights).into_data().to_vec().unwrap();
            (out, x.grad(&grads).unwrap().into_data().to_vec().unwrap())
        }
        let (a, ga) = run(data.clone(), fused, &counted);
        let (b, gb) = run(data, plain, &counted);
        for (what, a, b) in [("output", a, b), ("gradient", ga, gb)] {
            for (i, (a, b)) in a.iter().zip(&b).enumerate() {
                assert!((a - b).abs() < 2e-4 * (1.0 + b.abs()), "{what} {i}: {a} is not {b}");
            }
        }
    }

    #[test]
    fn attention_equals_its_definition() {
        let shape = AttentionShape { heads: 4, kv_heads: 2, head_dim: 6, rope: Arc::new(RopeTable::new(16, 6, 1e4)) };
        let starts = [0, 3, 8];
        let (time, width) = (9, 24);
        check::<3, 3>(
            [3, time, shape.qkv_dim()],
            |x| Taped::causal_attention(x, &shape, &starts),
            |x| Plain::causal_attention(x, &shape, &starts),
            |i| (i / width) % time >= starts[i / width / time],
        );
    }

    #[test]
    fn rms_norm_equals_its_definition() {
        let weight = numbers(40, 5);
        let w = || TensorData::new(weight.clone(), [40]);
        check::<2, 2>(
            [300, 40],
            |x| Taped::rms_norm(x, Tensor::from_data(w(), &Default::default()), 1e-5),
            |x| Plain::rms_norm(x, Tensor::from_data(w(), &Default::default()), 1e-5),
            |_| true,
        );
        let x = || TensorData::new(numbers(300 * 40, 9), [300, 40]);
        check::<1, 2>(
            [40],
            |w| Taped::rms_norm(Tensor::from_data(x(), &Default::default()), w, 1e-5),
            |w| Plain::rms_norm(Tensor::from_data(x(), &Default::default()), w, 1e-5),
            |_| true,
        );
    }

    #[test]
    fn swiglu_equals_its_definition() {
        check::<2, 2>([150, 52], Taped::swiglu, Plain::swiglu, |_| true);
    }

    #[test]
    fn log_prob_equals_its_definition() {
        let targets: Vec<u32> = (0..140).map(|i| (i * 7 % 37) as u32).collect();
        check::<2, 1>([140, 37], |x| Taped::log_prob(x, &targets, 0.7), |x| Plain::log_prob(x, &targets, 0.7), |_| true);
    }

    #[test]
    fn cached_attention_equals_attention_over_everything() {
        let shape = AttentionShape { heads: 4, kv_heads: 2, head_dim: 6, rope: Arc::new(RopeTable::new(16, 6, 1e4)) };
        let starts = [0, 2];
        let data = TensorData::new(numbers(2 * 7 * shape.qkv_dim(), 3), [2, 7, shape.qkv_dim()]);
        let whole: Tensor<Flex, 3> = Tensor::from_data(data.clone(), &Default::default());
        let want = Flex::causal_attention(whole.clone(), &shape, &starts).narrow(1, 6, 1);
        let mut cache = LayerCache::<Flex>::new(16);
        Flex::cached_attention(whole.clone().narrow(1, 0, 5), &shape, &starts, &mut cache);
        Flex::cached_attention(whole.clone().narrow(1, 5, 1), &shape, &starts, &mut cache);
        // The last position is computed for the second row alone.
        cache.keep(&[1], &Default::default());
        let got = Flex::cached_attention(whole.narrow(1, 6, 1).narrow(0, 1, 1), &shape, &starts[1..], &mut cache);
        let (want, got): (Vec<f32>, Vec<f32>) =
            (want.narrow(0, 1, 1).into_data().to_vec().unwrap(), got.into_data().to_vec().unwrap());
        for (a, b) in want.iter().zip(&got) {
            assert!((a - b).abs() < 1e-5);
        }
    }
}
