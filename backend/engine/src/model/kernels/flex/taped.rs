//! The operations on the tape of gradients, each with its own hand-written backward pass.

use super::super::layer::LayerTensors;
use super::super::product::product;
use super::super::{AttentionShape, Kernels, cpu};
use super::checkpointed::checkpointed;
use super::tensors::{CHUNK_ROWS, CHUNK_TOKENS, float, matrix, ordered, primitive, projection, tensor, values};
use crate::model::span::Span;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::NoCheckpointing;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::{Autodiff, Flex};
use burn::prelude::*;
use burn::tensor::TensorMetadata;
use burn_flex::FlexTensor;
use moslim_shared::config::Precision;

type Taped = Autodiff<Flex, NoCheckpointing>;

#[derive(Debug)]
struct ProjectionBackward;

#[derive(Debug, Clone)]
struct ProjectionState {
    x: FlexTensor,
    w: FlexTensor,
    transposed: bool,
}

impl<const N: usize> Backward<Flex, N> for ProjectionBackward {
    type State = ProjectionState;

    /// Parents: input, weights, and what was added, where something was.
    fn backward(self, ops: Ops<ProjectionState, N>, grads: &mut Gradients, _: &mut Checkpointer) {
        let grad = ordered(grads.consume::<Flex>(&ops.node));
        let ProjectionState { x, w, transposed } = &ops.state;
        let (dy, x, w) = (matrix(&grad), matrix(x), matrix(w));
        for (n, node) in ops.parents.into_iter().enumerate() {
            let Some(node) = node else { continue };
            let part = match (n, transposed) {
                (0, false) => tensor(product(dy, w.transposed()), ops.state.x.shape().dims::<2>()),
                (0, true) => tensor(product(dy, w), ops.state.x.shape().dims::<2>()),
                (1, false) => tensor(product(x.transposed(), dy), ops.state.w.shape().dims::<2>()),
                (1, true) => tensor(product(dy.transposed(), x), ops.state.w.shape().dims::<2>()),
                _ => grad.clone(),
            };
            grads.register::<Flex>(node.id, part);
        }
    }
}

#[derive(Debug)]
struct AttentionBackward;

#[derive(Debug, Clone)]
struct AttentionState {
    qkv: FlexTensor,
    log_sums: FlexTensor,
    shape: AttentionShape,
    spans: Vec<Span>,
}

impl Backward<Flex, 1> for AttentionBackward {
    type State = AttentionState;

    fn backward(self, ops: Ops<AttentionState, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let grad = ordered(grads.consume::<Flex>(&ops.node));
        let s = &ops.state;
        let [n, width] = s.qkv.shape().dims();
        let [parent] = ops.parents;
        if let Some(node) = parent {
            let out = cpu::attention_backward(values(&s.qkv), values(&s.log_sums), values(&grad), &s.shape, &s.spans);
            grads.register::<Flex>(node.id, tensor(out, [n, width]));
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
    const CHUNK_TOKENS: usize = CHUNK_TOKENS;
    const CHUNK_ROWS: usize = CHUNK_ROWS;
    const THREADED: bool = true;

    /// The fused operations are f32.
    fn computes_in(_: &Self::Device, precision: Precision) -> bool {
        precision == Precision::F32
    }

    fn projection(
        x: Tensor<Self, 2>,
        w: Tensor<Self, 2>,
        transposed: bool,
        added: Option<Tensor<Self, 2>>,
        _: Precision,
    ) -> Tensor<Self, 2> {
        let (x, w, added) = (primitive(x), primitive(w), added.map(primitive));
        let state = ProjectionState { x: ordered(x.primitive.clone()), w: ordered(w.primitive.clone()), transposed };
        let out = projection(&state.x, &state.w, transposed, added.as_ref().map(|a| a.primitive.clone()));
        macro_rules! record {
            ($nodes:expr) => {
                match ProjectionBackward.prepare::<NoCheckpointing>($nodes).compute_bound().stateful() {
                    OpsKind::Tracked(prep) => prep.finish(state, out),
                    OpsKind::UnTracked(prep) => prep.finish(out),
                }
            };
        }
        float(match added {
            Some(added) => record!([x.node.clone(), w.node.clone(), added.node.clone()]),
            None => record!([x.node.clone(), w.node.clone()]),
        })
    }

    fn causal_attention(qkv: Tensor<Self, 2>, shape: &AttentionShape, spans: &[Span]) -> Tensor<Self, 2> {
        let [n, _] = qkv.dims();
        let qkv = primitive(qkv);
        let input = ordered(qkv.primitive.clone());
        let (out, log_sums) = cpu::attention(values(&input), shape, spans);
        let out = tensor(out, [n, shape.heads * shape.head_dim]);
        float(match AttentionBackward.prepare::<NoCheckpointing>([qkv.node.clone()]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let log_sums = tensor(log_sums, [n, shape.heads]);
                prep.finish(AttentionState { qkv: input, log_sums, shape: shape.clone(), spans: spans.to_vec() }, out)
            }
            OpsKind::UnTracked(prep) => prep.finish(out),
        })
    }

    fn checkpointed(layer: &LayerTensors<Self>, x: Tensor<Self, 2>, spans: &[Span]) -> Tensor<Self, 2> {
        checkpointed(layer, x, spans)
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
    use super::*;
    use crate::model::kernels::{AdamStep, LayerCache, RopeTable};
    use crate::model::packed::{Group, Packed};
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
    ) {
        let data = TensorData::new(numbers(shape.iter().product(), 3), shape);
        fn run<B: burn::tensor::backend::AutodiffBackend, const I: usize, const O: usize>(
            data: TensorData,
            f: impl Fn(Tensor<B, I>) -> Tensor<B, O>,
        ) -> (Vec<f32>, Vec<f32>) {
            let x = Tensor::<B, I>::from_data(data, &Default::default()).require_grad();
            let y = f(x.clone());
            let shape = y.dims();
            let n: usize = shape.iter().product();
            let weights = Tensor::<B, O>::from_data(TensorData::new(numbers(n, 11), shape), &Default::default());
            let grads = (y.clone() * weights.clone()).sum().backward();
            let out = (y * weights).into_data().to_vec().unwrap();
            (out, x.grad(&grads).unwrap().into_data().to_vec().unwrap())
        }
        let (a, ga) = run(data.clone(), fused);
        let (b, gb) = run(data, plain);
        for (what, a, b) in [("output", a, b), ("gradient", ga, gb)] {
            for (i, (a, b)) in a.iter().zip(&b).enumerate() {
                assert!((a - b).abs() < 2e-4 * (1.0 + b.abs()), "{what} {i}: {a} is not {b}");
            }
        }
    }

    #[test]
    fn adamw_equals_its_definition() {
        let n = 70_000;
        let data = |seed| Tensor::<Flex, 1>::from_data(TensorData::new(numbers(n, seed), [n]), &Default::default());
        let plain = |seed| Tensor::<Plain, 1>::from_data(TensorData::new(numbers(n, seed), [n]), &Default::default());
        let step = AdamStep { learning_rate: 0.1, weight_decay: 0.2, beta_1: 0.9, beta_2: 0.98, epsilon: 1e-8, time: 3 };
        // The second moment is never negative.
        let (w, [m, v]) = Flex::adamw(data(1), data(2), [data(3), data(4).abs()], &step);
        let (pw, [pm, pv]) = Plain::adamw(plain(1), plain(2), [plain(3), plain(4).abs()], &step);
        for (a, b) in [(w, pw), (m, pm), (v, pv)] {
            let (a, b): (Vec<f32>, Vec<f32>) = (a.into_data().to_vec().unwrap(), b.into_data().to_vec().unwrap());
            for (a, b) in a.iter().zip(&b) {
                assert!((a - b).abs() < 1e-5 * (1.0 + b.abs()), "{a} is not {b}");
            }
        }
    }

    #[test]
    fn sums_over_weights_equal_their_definitions() {
        let n = 70_000;
        let data = |seed| Tensor::<Flex, 1>::from_data(TensorData::new(numbers(n, seed), [n]), &Default::default());
        let plain = |seed| Tensor::<Plain, 1>::from_data(TensorData::new(numbers(n, seed), [n]), &Default::default());
        let sum: Vec<f32> = Flex::add_all(vec![data(1), data(2), data(3)]).into_data().to_vec().unwrap();
        let want: Vec<f32> = Plain::add_all(vec![plain(1), plain(2), plain(3)]).into_data().to_vec().unwrap();
        assert_eq!(sum, want);
        let (a, b) = (Flex::square_sum(data(1)), Plain::square_sum(plain(1)));
        assert!((a - b).abs() < 1e-4 * b, "{a} is not {b}");
    }

    fn shape() -> AttentionShape {
        AttentionShape { heads: 4, kv_heads: 2, head_dim: 6, rope: Arc::new(RopeTable::new(64, &[1.0, 0.046, 0.002])) }
    }

    /// Groups with several answers, one, none, and an empty one.
    fn spans() -> Vec<Span> {
        let (a, b, c, d) = ([0; 19], [0; 23], [0; 5], [0; 1]);
        let groups = [
            Group { prompt: &c, answers: vec![&a, &d, &b] },
            Group { prompt: &a, answers: vec![&c] },
            Group { prompt: &b, answers: vec![] },
            Group { prompt: &d, answers: vec![&[], &c] },
        ];
        Packed::new(&groups).spans
    }

    #[test]
    fn attention_equals_its_definition() {
        // Heads of less than a register of numbers, and of two and a half.
        let frequencies: Vec<f64> = (0..20).map(|i| 0.7f64.powi(i)).collect();
        let wide = AttentionShape { head_dim: 40, rope: Arc::new(RopeTable::new(64, &frequencies)), ..shape() };
        let spans = spans();
        let n = spans.last().unwrap().all().end;
        for shape in [shape(), wide] {
            check::<2, 2>(
                [n, shape.qkv_dim()],
                |x| Taped::causal_attention(x, &shape, &spans),
                |x| Plain::causal_attention(x, &shape, &spans),
            );
        }
    }

    #[test]
    fn projection_equals_its_definition() {
        let data = |n: usize, seed: u64, shape: [usize; 2]| TensorData::new(numbers(n, seed), shape);
        let at = Default::default();
        for transposed in [false, true] {
            let (wide, w_shape) = (33, if transposed { [33, 20] } else { [20, 33] });
            // With respect to the input, the weights and what is added.
            check::<2, 2>(
                [50, 20],
                |x| Taped::projection(x, Tensor::from_data(data(660, 5, w_shape), &at), transposed, None, Precision::F32),
                |x| Plain::projection(x, Tensor::from_data(data(660, 5, w_shape), &at), transposed, None, Precision::F32),
            );
            check::<2, 2>(
                w_shape,
                |w| Taped::projection(Tensor::from_data(data(1000, 7, [50, 20]), &at), w, transposed, None, Precision::F32),
                |w| Plain::projection(Tensor::from_data(data(1000, 7, [50, 20]), &at), w, transposed, None, Precision::F32),
            );
            check::<2, 2>(
                [50, wide],
                |y| {
                    let (x, w) = (data(1000, 7, [50, 20]), data(660, 5, w_shape));
                    Taped::projection(
                        Tensor::from_data(x, &at),
                        Tensor::from_data(w, &at),
                        transposed,
                        Some(y.clone() * 2.0),
                        Precision::F32,
                    ) + y
                },
                |y| {
                    let (x, w) = (data(1000, 7, [50, 20]), data(660, 5, w_shape));
                    Plain::projection(
                        Tensor::from_data(x, &at),
                        Tensor::from_data(w, &at),
                        transposed,
                        Some(y.clone() * 2.0),
                        Precision::F32,
                    ) + y
                },
            );
        }
    }

    #[test]
    fn products_in_bf16_are_near_those_in_f32_and_everything_else_stays_f32() {
        let at = Default::default();
        let run = |precision| {
            let leaf = |n: usize, seed, shape: [usize; 2]| {
                Tensor::<Plain, 2>::from_data(TensorData::new(numbers(n, seed), shape), &at).require_grad()
            };
            let (x, w) = (leaf(1000, 7, [50, 20]), leaf(660, 5, [20, 33]));
            let out = Plain::projection(x.clone(), w.clone(), false, None, precision);
            let grads = out.clone().powf_scalar(2.0).sum().backward();
            let parts = [out.inner(), x.grad(&grads).unwrap(), w.grad(&grads).unwrap()];
            parts.map(|t| t.into_data().to_vec::<f32>().expect("f32"))
        };
        for (exact, rough) in run(Precision::F32).iter().zip(&run(Precision::Bf16)) {
            let size = (exact.iter().map(|x| x * x).sum::<f32>() / exact.len() as f32).sqrt();
            let miss = (exact.iter().zip(rough).map(|(a, b)| (a - b).powi(2)).sum::<f32>() / exact.len() as f32).sqrt();
            assert!(miss > 0.0 && miss < 0.01 * size, "{miss} of {size}");
        }
        assert!(Plain::computes_in(&at, Precision::Bf16) && !Taped::computes_in(&at, Precision::Bf16));
    }

    #[test]
    fn rms_norm_equals_its_definition() {
        let weight = numbers(40, 5);
        let w = || TensorData::new(weight.clone(), [40]);
        check::<2, 2>(
            [300, 40],
            |x| Taped::rms_norm(x, Tensor::from_data(w(), &Default::default()), 1e-5),
            |x| Plain::rms_norm(x, Tensor::from_data(w(), &Default::default()), 1e-5),
        );
        let x = || TensorData::new(numbers(300 * 40, 9), [300, 40]);
        check::<1, 2>(
            [40],
            |w| Taped::rms_norm(Tensor::from_data(x(), &Default::default()), w, 1e-5),
            |w| Plain::rms_norm(Tensor::from_data(x(), &Default::default()), w, 1e-5),
        );
    }

    #[test]
    fn swiglu_equals_its_definition() {
        check::<2, 2>([150, 52], Taped::swiglu, Plain::swiglu);
    }

    #[test]
    fn log_prob_equals_its_definition() {
        let targets: Vec<u32> = (0..140).map(|i| (i * 7 % 37) as u32).collect();
        check::<2, 1>([140, 37], |x| Taped::log_prob(x, &targets, 0.7), |x| Plain::log_prob(x, &targets, 0.7));
    }

    /// Prompts first, then answers token by token; what comes out equals one pass over everything.
    fn stepwise<B: Kernels>() {
        let shape = shape();
        let (prompts, answers): ([&[u32]; 2], [&[u32]; 3]) = ([&[0; 7], &[0; 3]], [&[0; 18], &[0; 4], &[0; 18]]);
        let groups = [
            Group { prompt: prompts[0], answers: answers[..2].to_vec() },
            Group { prompt: prompts[1], answers: vec![answers[2]] },
        ];
        let spans = Packed::new(&groups).spans;
        let alone = Packed::new(&prompts.map(|prompt| Group { prompt, answers: vec![] })).spans;
        let (n, width) = (spans[1].all().end, shape.qkv_dim());
        let data = numbers(n * width, 3);
        let whole = Tensor::<B, 2>::from_data(TensorData::new(data.clone(), [n, width]), &Default::default());
        let want: Vec<f32> = B::causal_attention(whole, &shape, &spans).into_data().to_vec().unwrap();
        let pick = |at: Vec<usize>| {
            let rows: Vec<f32> = at.iter().flat_map(|&i| data[i * width..(i + 1) * width].to_vec()).collect();
            Tensor::<B, 2>::from_data(TensorData::new(rows, [at.len(), width]), &Default::default())
        };
        let agree = |got: Tensor<B, 2>, at: Vec<usize>| {
            let size = shape.heads * shape.head_dim;
            for (got, i) in got.into_data().to_vec::<f32>().unwrap().chunks(size).zip(at) {
                for (a, b) in got.iter().zip(&want[i * size..]) {
                    assert!((a - b).abs() < 1e-5, "position {i}: {a} is not {b}");
                }
            }
        };
        let mut cache = LayerCache::<B>::new(18);
        let at: Vec<usize> = spans.iter().flat_map(|s| s.prompt.clone()).collect();
        agree(B::prompt_attention(pick(at.clone()), &shape, &alone, &mut cache), at);
        let starts = [spans[0].answers[0].start, spans[0].answers[1].start, spans[1].answers[0].start];
        for t in 0..4 {
            let at = starts.map(|s| s + t).to_vec();
            agree(B::step_attention(pick(at.clone()), &shape, &alone, &[0, 0, 1], &mut cache), at);
        }
        // The short answer has ended; the others go on.
        cache.keep(&[0, 2], &Default::default());
        for t in 4..18 {
            let at = vec![starts[0] + t, starts[2] + t];
            agree(B::step_attention(pick(at.clone()), &shape, &alone, &[0, 1], &mut cache), at);
        }
    }

    #[test]
    fn attention_step_by_step_equals_attention_over_everything() {
        stepwise::<Flex>();
        stepwise::<Plain>();
    }
}
