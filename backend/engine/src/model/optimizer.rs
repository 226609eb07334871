//! The optimiser around a model: AdamW with a global gradient norm limit, and a state that can be kept and restored.

use super::TrainBackend;
use super::kernels::{AdamStep, Kernels};
use super::packed::map;
use super::store::{from_safetensors, to_safetensors};
use crate::ranks;
use anyhow::{Context, Result};
use burn::module::{AutodiffModule, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::optim::adaptor::OptimizerAdaptor;
use burn::optim::{GradientsAccumulator, GradientsParams, Optimizer, SimpleOptimizer};
use burn::prelude::*;
use burn::record::{BinBytesRecorder, FullPrecisionSettings, Record, Recorder};
use burn::tensor::backend::AutodiffBackend;
use moslim_shared::memory::partial_sums;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_bytes::ByteBuf;
use std::marker::PhantomData;

type Recording = BinBytesRecorder<FullPrecisionSettings, Vec<u8>>;

/// AdamW as one operation per tensor.
#[derive(Debug, Clone)]
struct AdamW {
    weight_decay: f32,
}

/// Running moments of a tensor's gradient.
#[derive(Record, Clone)]
struct Moments<B: Backend, const D: usize> {
    first: Tensor<B, D>,
    second: Tensor<B, D>,
    time: usize,
}

impl<B: Kernels> SimpleOptimizer<B> for AdamW {
    type State<const D: usize> = Moments<B, D>;

    fn step<const D: usize>(
        &self,
        learning_rate: f64,
        weights: Tensor<B, D>,
        grad: Tensor<B, D>,
        state: Option<Moments<B, D>>,
    ) -> (Tensor<B, D>, Option<Moments<B, D>>) {
        let Moments { first, second, time } =
            state.unwrap_or_else(|| Moments { first: grad.zeros_like(), second: grad.zeros_like(), time: 0 });
        let step = AdamStep {
            learning_rate: learning_rate as f32,
            weight_decay: self.weight_decay,
            beta_1: 0.9,
            beta_2: 0.98,
            epsilon: 1e-8,
            time: time as i32 + 1,
        };
        let (weights, [first, second]) = B::adamw(weights, grad, [first, second], &step);
        (weights, Some(Moments { first, second, time: time + 1 }))
    }

    fn to_device<const D: usize>(state: Moments<B, D>, device: &B::Device) -> Moments<B, D> {
        Moments { first: state.first.to_device(device), second: state.second.to_device(device), time: state.time }
    }
}

/// A model under training.
pub struct Trainee<B: TrainBackend, M: AutodiffModule<B>> {
    pub model: M,
    optimizer: OptimizerAdaptor<AdamW, M, B>,
    max_gradient_norm: f64,
}

/// Sums squares of all gradients, or scales them.
struct GradientVisitor<'a, B: TrainBackend> {
    grads: &'a mut GradientsParams,
    /// `None`: only measure.
    scale: Option<f64>,
    squares: f64,
    backend: PhantomData<B>,
}

/// Adds up what several sums hold for each parameter.
struct GradientSummer<'a, B: AutodiffBackend> {
    parts: &'a mut [GradientsParams],
    sum: GradientsParams,
    backend: PhantomData<B>,
}

impl<B: TrainBackend> ModuleVisitor<B> for GradientSummer<'_, B> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        let parts: Vec<_> = self.parts.iter_mut().filter_map(|p| p.remove::<B::InnerBackend, D>(param.id)).collect();
        if !parts.is_empty() {
            self.sum.register::<B::InnerBackend, D>(param.id, B::InnerBackend::add_all(parts));
        }
    }
}

impl<B: TrainBackend> ModuleVisitor<B> for GradientVisitor<'_, B> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        match self.scale {
            None => {
                if let Some(grad) = self.grads.get::<B::InnerBackend, D>(param.id) {
                    self.squares += B::InnerBackend::square_sum(grad);
                }
            }
            Some(scale) => {
                if let Some(grad) = self.grads.remove::<B::InnerBackend, D>(param.id) {
                    self.grads.register::<B::InnerBackend, D>(param.id, grad * scale);
                }
            }
        }
    }
}

impl<B: TrainBackend, M: AutodiffModule<B>> Trainee<B, M> {
    /// AdamW with betas 0.9 and 0.98 on `model`.
    pub fn new(model: M, weight_decay: f32, max_gradient_norm: f64) -> Self {
        Self { model, optimizer: AdamW { weight_decay }.into(), max_gradient_norm }
    }

    /// One step on `grads`. Returns the gradient norm before it was limited.
    pub fn step(mut self, mut grads: GradientsParams, learning_rate: f64) -> (Self, f64) {
        let mut visitor = GradientVisitor::<B> { grads: &mut grads, scale: None, squares: 0.0, backend: PhantomData };
        self.model.visit(&mut visitor);
        let norm = visitor.squares.sqrt();
        if norm > self.max_gradient_norm {
            visitor.scale = Some(self.max_gradient_norm / norm);
            self.model.visit(&mut visitor);
        }
        // A gradient that is not finite would poison every weight for ever; the step is left out and shows in the norm.
        if norm.is_finite() {
            self.model = self.optimizer.step(learning_rate, self.model, grads);
        }
        (self, norm)
    }

    /// What is trained of the model, and the optimiser's state with the names under which it knows the model's tensors, bit for bit.
    pub fn to_bytes(&self) -> Result<(Vec<u8>, Vec<u8>)> {
        let mut names = Names(Vec::new());
        self.model.visit(&mut names);
        let state = Recording::default().record(self.optimizer.to_record(), ()).context("recording the optimiser")?;
        // Their number, they themselves, and the record.
        let numbers = std::iter::once(names.0.len() as u64).chain(names.0);
        let all = numbers.flat_map(u64::to_le_bytes).chain(state).collect();
        Ok((to_safetensors::<B, M>(&self.model)?, all))
    }

    /// Restores what [`Trainee::to_bytes`] gave for a model of the same shape.
    pub fn from_bytes(mut self, model: Vec<u8>, optimizer: Vec<u8>, device: &B::Device) -> Result<Self> {
        let mut numbers = optimizer.chunks_exact(8).map(|b| u64::from_le_bytes(b.try_into().expect("eight bytes")));
        let count = usize::try_from(numbers.next().unwrap_or(0)).context("reading the optimiser's state")?;
        let mut names: Vec<u64> = numbers.take(count).collect();
        let state = optimizer.get(8 * (names.len() + 1)..).filter(|_| names.len() == count);
        let state = state.context("the optimiser's state ends early")?.to_vec();
        names.reverse();
        self.model = from_safetensors::<B, M>(self.model, model)?.map(&mut Names(names));
        let record = Recording::default().load(state, device).context("reading the optimiser's record")?;
        self.optimizer = self.optimizer.load_record(record);
        Ok(self)
    }
}

/// Numbers by which tensors are known, in the order in which a model is visited; given, the last first.
struct Names(Vec<u64>);

impl<B: Backend> ModuleVisitor<B> for Names {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        self.0.push(param.id.val());
    }
}

impl<B: Backend> ModuleMapper<B> for Names {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
        let (id, value, mapper) = param.consume();
        Param::from_mapped_value(self.0.pop().map_or(id, ParamId::from), value, mapper)
    }
}

/// The sum of several sets of gradients of `model`.
pub fn add<B: TrainBackend, M: AutodiffModule<B>>(model: &M, mut parts: [GradientsParams; 2]) -> GradientsParams {
    let mut summer = GradientSummer::<B> { parts: &mut parts, sum: GradientsParams::new(), backend: PhantomData };
    model.visit(&mut summer);
    summer.sum
}

/// Loss and gradients of a batch that is computed in pieces; `loss` gives each piece's share and something to report.
/// Returns the sum of the losses, the summed gradients and the reports in order. Gradients of pieces are added up in [`partial_sums`], each
/// in order, before the sums are added in order: the result does not depend on the number of threads.
///
/// Ranks that train together share the sums.
pub fn gradients<B: TrainBackend, M: AutodiffModule<B>, T: Send, R: Send + Serialize + DeserializeOwned>(
    model: &M,
    pieces: Vec<T>,
    loss: impl Fn(&M, T) -> (Tensor<B, 1>, R) + Sync,
) -> (f64, GradientsParams, Vec<R>) {
    let per_sum = pieces.len().div_ceil(partial_sums(model.num_params())).max(1);
    let mut pieces = pieces.into_iter();
    let mut work = Vec::new();
    loop {
        let part: Vec<T> = pieces.by_ref().take(per_sum).collect();
        if part.is_empty() {
            break;
        }
        work.push(part);
    }
    let (count, own) = (work.len(), ranks::own(work.len()));
    work.truncate(own.end);
    let sums = map::<B, _, _, _>(model, work.split_off(own.start), |model, part| {
        // Fresh leaves: graphs that share one would be computed one after the other.
        let local = M::from_inner(model.valid());
        let (mut sum, mut total, mut reports) = (GradientsAccumulator::new(), 0.0, Vec::new());
        for piece in part {
            let (loss, report) = loss(&local, piece);
            total += loss.clone().into_scalar().elem::<f64>();
            reports.push(report);
            sum.accumulate(&local, GradientsParams::from_grads(loss.backward(), &local));
        }
        (sum.grads(), total, reports)
    });
    let (mut parts, mut total, mut reports) = (Vec::new(), 0.0, Vec::new());
    for (grads, loss, mut report) in gathered(model, sums, count) {
        parts.push(grads);
        total += loss;
        reports.append(&mut report);
    }
    let mut summer = GradientSummer::<B> { parts: &mut parts, sum: GradientsParams::new(), backend: PhantomData };
    model.visit(&mut summer);
    (total, summer.sum, reports)
}

/// Sums of all ranks, in the order of the work, which has `count` of them.
fn gathered<B: TrainBackend, M: AutodiffModule<B>, R: Serialize + DeserializeOwned>(
    model: &M,
    sums: Vec<(GradientsParams, f64, R)>,
    count: usize,
) -> Vec<(GradientsParams, f64, R)> {
    if ranks::size() == 1 {
        return sums;
    }
    let packed = sums.into_iter().map(|(grads, loss, report)| {
        let mut packer = Packer::<B> { grads, values: Vec::new(), backend: PhantomData };
        model.visit(&mut packer);
        (packer.values, loss, report)
    });
    let unpacked = ranks::all(packed.collect(), count).into_iter().map(|(values, loss, report)| {
        let mut values: Vec<_> = values;
        values.reverse();
        let mut unpacker = Unpacker::<B> { values, grads: GradientsParams::new(), backend: PhantomData };
        model.visit(&mut unpacker);
        (unpacker.grads, loss, report)
    });
    unpacked.collect()
}

/// Takes gradients out as numbers, in the order in which the model is visited.
struct Packer<B: AutodiffBackend> {
    grads: GradientsParams,
    /// Of every parameter the bytes of its gradient, if it has one.
    values: Vec<Option<ByteBuf>>,
    backend: PhantomData<B>,
}

impl<B: TrainBackend> ModuleVisitor<B> for Packer<B> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        let grad = self.grads.remove::<B::InnerBackend, D>(param.id);
        let numbers = grad.map(|g| g.into_data().convert::<f32>().to_vec::<f32>().expect("gradients are numbers"));
        self.values.push(numbers.map(|n| ByteBuf::from(n.into_iter().flat_map(f32::to_le_bytes).collect::<Vec<u8>>())));
    }
}

/// Makes gradients of such numbers, the last first.
struct Unpacker<B: AutodiffBackend> {
    values: Vec<Option<ByteBuf>>,
    grads: GradientsParams,
    backend: PhantomData<B>,
}

impl<B: TrainBackend> ModuleVisitor<B> for Unpacker<B> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        let Some(bytes) = self.values.pop().flatten() else { return };
        let numbers: Vec<f32> = bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().expect("four bytes"))).collect();
        let (shape, device) = (param.val().dims(), param.val().device());
        let grad = Tensor::<B::InnerBackend, D>::from_data(TensorData::new(numbers, shape), &device);
        self.grads.register::<B::InnerBackend, D>(param.id, grad);
    }
}

/// Linear warm-up over the first 5 % of `total` steps, then a cosine decay to a tenth. `step` counts from 0.
pub fn cosine(peak: f64, step: usize, total: usize) -> f64 {
    let warm_up = (total as f64 * 0.05).max(1.0);
    let done = (step + 1) as f64;
    if done < warm_up {
        return peak * done / warm_up;
    }
    let progress = ((done - warm_up) / (total as f64 - warm_up).max(1.0)).min(1.0);
    peak * (0.1 + 0.9 * 0.5 * (1.0 + (std::f64::consts::PI * progress).cos()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::generate::{Sampling, generate};
    use crate::model::packed::{Group, Packed};
    use crate::model::transformer::Transformer;
    use burn::backend::{Autodiff, Flex};
    use moslim_shared::config::ModelConfig;

    type B = Autodiff<Flex, burn::backend::autodiff::checkpoint::strategy::NoCheckpointing>;

    fn loss(model: &Transformer<B>, answers: &[[u32; 3]]) -> (Tensor<B, 1>, usize) {
        let groups: Vec<Group> = answers.iter().map(|a| Group { prompt: &a[..1], answers: vec![&a[1..]] }).collect();
        (model.answer_log_probs(&Packed::new(&groups), 1.0).sum().neg() / 48.0, answers.len())
    }

    fn embedding_gradient(model: &Transformer<B>, grads: &GradientsParams) -> Vec<f32> {
        grads.get::<Flex, 2>(model.embedding.id).expect("a gradient").into_data().to_vec().unwrap()
    }

    #[test]
    fn pieces_add_up_to_the_whole_and_steps_lower_the_loss() {
        let config = ModelConfig { d_model: 24, d_ff: 40, context: 64, ..Default::default() };
        let model = Transformer::<B>::new(&config, 50, 40, 3, &Default::default());
        let answers: Vec<[u32; 3]> = (0..24u32).map(|i| [i % 50, i * 7 % 40, i * 11 % 40]).collect();
        let (whole, grads, reports) = gradients(&model, vec![&answers[..]], loss);
        let (sum, parts, counts) = gradients(&model, answers.chunks(2).collect(), loss);
        assert_eq!((reports, counts.iter().sum()), (vec![24], 24));
        assert!((whole - sum).abs() < 1e-5, "{whole} is not {sum}");
        let (a, b) = (embedding_gradient(&model, &grads), embedding_gradient(&model, &parts));
        assert!(a.iter().any(|g| g.abs() > 1e-4));
        for (a, b) in a.iter().zip(&b) {
            assert!((a - b).abs() < 1e-6 + 1e-4 * a.abs(), "{a} is not {b}");
        }
        let mut trainee = Trainee::new(model, 0.0, 1.0);
        let mut last = f64::INFINITY;
        for _ in 0..5 {
            let (loss, grads, _) = gradients(&trainee.model, answers.chunks(2).collect(), loss);
            assert!(loss < last, "{loss} after {last}");
            last = loss;
            (trainee, _) = trainee.step(grads, 1e-2);
        }
    }

    #[test]
    fn the_number_of_threads_changes_nothing() {
        let config = ModelConfig { layers: 1, d_model: 24, d_ff: 40, context: 64, ..Default::default() };
        let answers: Vec<[u32; 3]> = (0..300u32).map(|i| [i % 50, i * 7 % 40, i * 11 % 40]).collect();
        let with = |threads: usize| {
            rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(|| {
                let mut trainee = Trainee::new(Transformer::<B>::new(&config, 50, 40, 3, &Default::default()), 0.0, 1.0);
                for _ in 0..2 {
                    let (_, grads, _) = gradients(&trainee.model, answers.chunks(7).collect(), loss);
                    (trainee, _) = trainee.step(grads, 1e-2);
                }
                let sampling = Sampling { temperature: 1.0, top_p: 1.0, max_new_tokens: 8, seed: 5 };
                let answers = generate(&trainee.model.valid(), &[&[1, 2], &[3]], 150, 0, &sampling);
                let weights: Vec<f32> = trainee.model.embedding.val().into_data().to_vec().unwrap();
                (weights, answers)
            })
        };
        assert!(with(1) == with(3));
    }
}
