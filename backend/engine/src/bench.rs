//! How fast this machine computes: matrix products, training steps, generation and whole RLOO iterations of several model
//! sizes, on any device, with the code that runs use.

mod answers;
mod size;

pub use answers::{AnswersReport, answers};
pub use size::{SIZES, Size};

use crate::data::Task;
use crate::method::{Actors, roll_out};
use crate::model::TrainBackend;
use crate::model::architecture::Architecture;
use crate::model::generate::{Sampling, generate};
use crate::model::kernels::Kernels;
use crate::model::memory::{free_memory, peak_memory_mib};
use crate::model::optimizer::{Trainee, gradients};
use crate::model::packed::{Group, Packed, chunks, fit_pieces, map};
use crate::model::transformer::Transformer;
use crate::policy::learner::Learner;
use crate::policy::rollout::{Aim, draw_prompts};
use crate::policy::targets::TargetSampler;
use crate::policy::update::Update;
use crate::reward::RewardModel;
use crate::reward::frozen::{Calibration, FrozenRewardModel, outputs as outputs_of};
use crate::reward::loss::{Weighing, masked_loss};
use crate::run::device::{Device, choose};
use crate::text::Tokenizer;
use crate::text::corpus::Corpus;
use anyhow::{Result, ensure};
use burn::backend::{Autodiff, Flex};
use burn::module::AutodiffModule;
use burn::prelude::*;
use moslim_shared::config::{DeviceChoice, ModelConfig, PolicyConfig, Precision, RunConfig, TaskConfig};
use moslim_shared::mapping::RewardStatistics;
use moslim_shared::ordinal::RewardLoss;
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde::Serialize;
use web_time::Instant;

/// Answers and tokens of the generation measured alone.
const GENERATED: (usize, usize) = (32, 48);

/// One figure: the median over its repetitions.
#[derive(Debug, Clone, Serialize)]
pub struct Figure {
    /// Seconds.
    pub median: f64,
    pub fastest: f64,
    pub repetitions: usize,
    pub tokens_per_second: f64,
    /// Share of the measured peak of matrix products that the weights' arithmetic reaches (attention is not counted).
    pub share_of_peak: f64,
}

/// How the training step scales.
#[derive(Debug, Clone, Serialize)]
pub struct Scaling {
    /// Microseconds a token by rows in the batch.
    pub batch: Vec<(usize, f64)>,
    /// Seconds of the training step by threads.
    pub threads: Vec<(usize, f64)>,
}

/// What one model size reaches.
#[derive(Debug, Clone, Serialize)]
pub struct SizeReport {
    pub size: String,
    pub parameters: usize,
    /// 32 x 64 tokens.
    pub forward: Figure,
    /// Forward, backward and AdamW on 32 x 64 tokens (8 x 256 for the largest size).
    pub training_step: Figure,
    /// Reward model: forward, backward and AdamW on the same tokens.
    pub reward_model_step: Figure,
    /// 32 answers of 48 tokens.
    pub generation: Figure,
    /// 32 prompts x 4 samples of up to 40 tokens: sample, score, update.
    pub iteration: Option<Figure>,
    pub samples_per_second: Option<f64>,
    /// Measured for the two smallest sizes.
    pub scaling: Option<Scaling>,
    /// Most memory that the process held while this size was measured, MiB; 0 where the system does not tell.
    pub peak_memory_mib: u64,
}

/// The whole measurement.
#[derive(Debug, Clone, Serialize)]
pub struct BenchReport {
    pub threads: usize,
    /// `cpu`, `cuda` or `wgpu`.
    pub device: String,
    pub precision: Precision,
    /// Matrix products of 512 x 512, one per thread: GFLOP/s of all together.
    pub gemm_peak_gflops: f64,
    pub sizes: Vec<SizeReport>,
}

/// Most rows of a batch for [`Scaling`], and the widest model that it is measured for.
const LARGEST_BATCH: usize = 512;
const SCALED_WIDTH: usize = 128;

/// What is measured.
#[derive(Debug)]
pub struct Measured<'a> {
    /// Of [`SIZES`].
    pub names: &'a [&'a str],
    /// Times that everything is measured.
    pub repetitions: usize,
    pub precision: Precision,
    /// Name of the device.
    pub device: String,
}

/// Runs `work` once for nothing, then `repetitions` times.
fn time(repetitions: usize, mut work: impl FnMut()) -> Vec<f64> {
    work();
    let mut seconds: Vec<f64> = (0..repetitions)
        .map(|_| {
            let begun = Instant::now();
            work();
            begun.elapsed().as_secs_f64()
        })
        .collect();
    seconds.sort_by(f64::total_cmp);
    seconds
}

/// Forgets the highest memory use so far, where the system can.
fn reset_peak_memory() {
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

/// GFLOP/s of matrix products of `N x N`, on the CPU one on every thread at a time.
fn gemm_peak_of<B: Kernels, const N: usize>(device: &B::Device, precision: Precision) -> f64 {
    const PRODUCTS: usize = 8;
    let a = Tensor::<B, 2>::ones([N, N], device);
    let a = if precision == Precision::Bf16 { a.cast(burn::tensor::FloatDType::BF16) } else { a };
    let threads = if B::THREADED { rayon::current_num_threads() } else { 1 };
    let seconds = time(9, || {
        map::<B, _, _, _>(&a, vec![(); threads], |a, ()| {
            for _ in 0..PRODUCTS {
                std::hint::black_box(a.clone().matmul(a.clone()));
            }
        });
        wait::<B>(device);
    });
    (2 * N.pow(3) * PRODUCTS * threads) as f64 / seconds[0] / 1e9
}

/// GFLOP/s of matrix products on the CPU, in cache, all threads together.
pub fn gemm_peak() -> f64 {
    gemm_peak_of::<Flex, 512>(&Default::default(), Precision::F32)
}

/// Waits until the device has computed everything that it was asked for.
fn wait<B: Kernels>(device: &B::Device) {
    B::sync(device).expect("the device answers");
}

struct Meter {
    peak_gflops: f64,
    repetitions: usize,
}

impl Meter {
    /// Measures `work`, which handles `tokens` tokens with `flops` floating-point operations in matrix products.
    fn measure(&self, tokens: usize, flops: f64, work: impl FnMut()) -> Figure {
        let seconds = time(self.repetitions, work);
        let median = seconds[seconds.len() / 2];
        Figure {
            median,
            fastest: seconds[0],
            repetitions: seconds.len(),
            tokens_per_second: tokens as f64 / median,
            share_of_peak: flops / median / 1e9 / self.peak_gflops,
        }
    }
}

/// Measures. `each` is told what is measured next.
///
/// # Errors
/// When the device does not compute in this precision, or the built-in world's tokenizer cannot be trained.
pub fn run<B: TrainBackend>(what: &Measured, device: &B::Device, mut each: impl FnMut(&str)) -> Result<BenchReport> {
    let (precision, id) = (what.precision, what.precision.id());
    ensure!(B::computes_in(device, precision), "precision: {} does not compute in {id}; allowed is f32", what.device);
    each("matrix products");
    // A GPU is not filled by what fits into a cache of the CPU.
    let peak_gflops = if B::THREADED {
        gemm_peak_of::<B::InnerBackend, 512>(device, precision)
    } else {
        gemm_peak_of::<B::InnerBackend, 4096>(device, precision)
    };
    let meter = Meter { peak_gflops, repetitions: what.repetitions };
    let mut sizes = Vec::new();
    for size in SIZES.iter().filter(|s| what.names.contains(&s.name)) {
        each(size.name);
        reset_peak_memory();
        if let Some(free) = free_memory(&what.device) {
            let config = size.config(precision);
            fit_pieces::<B>(&[Architecture::own(&config, size.vocabulary, size.vocabulary)], config.context, free);
        }
        sizes.push(measure::<B>(size, precision, device, &meter)?);
    }
    let (threads, device) = (rayon::current_num_threads(), what.device.clone());
    Ok(BenchReport { threads, device, precision, gemm_peak_gflops: meter.peak_gflops, sizes })
}

/// `n` tokens without a pattern.
fn text(n: usize, vocabulary: usize) -> Vec<u32> {
    (0..n as u32).map(|i| i.wrapping_mul(2_654_435_761) % vocabulary as u32).collect()
}

fn measure<B: TrainBackend>(size: &Size, precision: Precision, device: &B::Device, meter: &Meter) -> Result<SizeReport> {
    let config = size.config(precision);
    let model = Transformer::<B>::new(&config, size.vocabulary, size.vocabulary, 1, device);
    let parameters = model.num_params();
    // Weights that a token is multiplied with; an embedding is only looked up, the output layer is a product.
    let output = (size.vocabulary * size.d_model) as f64;
    let embedded = if config.tied_embeddings { 0.0 } else { output };
    let products = parameters as f64 - embedded;
    let (rows, time) = size.batch();
    let model = size.trained(model);
    // Frozen weights have no gradient of their own.
    let backward = if size.adapted { 4.0 } else { 6.0 };
    let tokens = rows * time;
    let text = text(LARGEST_BATCH.max(rows) * time, size.vocabulary);
    let all: Vec<Group> = text.chunks(time).map(|row| Group { prompt: &row[..1], answers: vec![&row[1..]] }).collect();
    let groups = &all[..rows];
    let pieces = || chunks::<B, _>(groups, Group::tokens);

    let inner = model.valid();
    let forward = meter.measure(tokens, 2.0 * products * tokens as f64, || {
        map::<B::InnerBackend, _, _, _>(&inner, pieces(), |model, groups| {
            std::hint::black_box(model.answer_log_probs(&Packed::new(groups), 1.0));
        });
        wait::<B>(device);
    });

    let mut trainee = Some(Trainee::new(model, 0.01, 1.0));
    let mut step = |groups: &[Group]| {
        let now = trainee.take().expect("put back below");
        let tokens: usize = groups.iter().map(Group::tokens).sum();
        let (_, grads, _) = gradients(&now.model, chunks::<B, _>(groups, Group::tokens), |model, groups| {
            (model.answer_log_probs(&Packed::new(groups), 1.0).sum().neg() / tokens as f32, ())
        });
        trainee = Some(now.step(grads, 1e-4).0);
        wait::<B>(device);
    };
    let training_step = meter.measure(tokens, backward * products * tokens as f64, || step(groups));
    let scaling = (B::THREADED && size.d_model <= SCALED_WIDTH).then(|| {
        let mut batch = Vec::new();
        for rows in [rows, 4 * rows, LARGEST_BATCH] {
            let figure = meter.measure(rows * time, 0.0, || step(&all[..rows]));
            batch.push((rows, 1e6 / figure.tokens_per_second));
        }
        let mut threads = Vec::new();
        for n in [1, rayon::current_num_threads()] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(n).build().expect("a pool of threads");
            threads.push((n, pool.install(|| meter.measure(tokens, 0.0, || step(groups))).median));
        }
        Scaling { batch, threads }
    });
    let policy = trainee.expect("put back by every step").model;

    let classes = [5usize; 4];
    let trunk = products - output;
    let trunk_model = size.trained(Transformer::new(&config, size.vocabulary, 1, 2, device));
    let reward_model = RewardModel::<B>::on_trunk(trunk_model, &classes, &Default::default(), 3);
    let labels: Vec<Option<usize>> = vec![Some(1); classes.len()];
    let mut trainee = Some(Trainee::new(reward_model, 0.01, 1.0));
    let reward_model_step = meter.measure(tokens, backward * trunk * tokens as f64, || {
        let now = trainee.take().expect("put back below");
        let all: Vec<&[Option<usize>]> = vec![&labels; rows];
        let loss = RewardLoss::CrossEntropy;
        let weighing = Weighing::of(&all, loss, &vec![vec![1.0; 5]; classes.len()], &vec![1.0; classes.len()]);
        let (_, grads, _) = gradients(&now.model, pieces(), |model, groups| {
            let labels: Vec<&[Option<usize>]> = vec![&labels; groups.len()];
            let outputs = model.outputs(&Packed::new(groups));
            (masked_loss(loss, outputs, &labels, &classes, &weighing, model.log_variances.val()), ())
        });
        trainee = Some(now.step(grads, 1e-4).0);
        wait::<B>(device);
    });
    drop(trainee);

    let (answers, length) = GENERATED;
    let prompt = &text[..16];
    let sampling = Sampling { temperature: 1.0, top_p: 1.0, max_new_tokens: length, seed: 1 };
    let inner = policy.valid();
    // No token ends an answer: every one has its full length.
    let generation = meter.measure(answers * length, 2.0 * products * (answers * length) as f64, || {
        std::hint::black_box(generate(&inner, &vec![prompt; answers], 1, u32::MAX, &sampling));
    });

    let (iteration, samples_per_second) = if size.iterations {
        let figure = iteration::<B>(size, &config, device, meter)?;
        let samples = (size.iteration().0 * size.iteration().1) as f64 / figure.median;
        (Some(figure), Some(samples))
    } else {
        (None, None)
    };
    Ok(SizeReport {
        size: size.name.into(),
        parameters,
        forward,
        training_step,
        reward_model_step,
        generation,
        iteration,
        samples_per_second,
        scaling,
        peak_memory_mib: peak_memory_mib(),
    })
}

/// Measures the model sizes called `names` on the device that `choice` asks for; see [`run`].
///
/// # Errors
/// When the device is not available or does not compute in `precision`, or the built-in world's tokenizer cannot be trained.
pub fn on_device(
    choice: DeviceChoice,
    names: &[&str],
    repetitions: usize,
    precision: Precision,
    each: impl FnMut(&str),
) -> Result<BenchReport> {
    let (device, report) = choose(choice)?;
    let shape = Measured { names, repetitions, precision, device: report.device };
    match device {
        Device::Cpu(device) => run::<Autodiff<burn::backend::Flex>>(&shape, &device, each),
        #[cfg(feature = "cuda")]
        Device::Cuda(device) => run::<Autodiff<burn::backend::Cuda>>(&shape, &device, each),
        #[cfg(feature = "wgpu")]
        Device::Wgpu(device) => run::<Autodiff<burn::backend::Wgpu>>(&shape, &device, each),
    }
}

/// Whole RLOO iterations on the built-in world: prompts, samples, reference, reward model, update.
fn iteration<B: TrainBackend>(size: &Size, config: &ModelConfig, device: &B::Device, meter: &Meter) -> Result<Figure> {
    let Task { objectives, splits, .. } = Task::load(&TaskConfig { rows: 4_000, ..Default::default() }, &|_| Ok(None))?;
    let classes: Vec<usize> = objectives.iter().map(|o| o.class_count()).collect();
    let tokenizer = Tokenizer::train(size.vocabulary, &splits, &objectives)?;
    let corpus = Corpus::new(&splits, &tokenizer)?;
    // An off-the-shelf model has its own vocabulary, of which the world's tokens are the first.
    let (vocabulary, outputs) =
        if size.adapted { (size.vocabulary, size.vocabulary) } else { (tokenizer.vocabulary(), tokenizer.outputs()) };
    let policy = size.trained(Transformer::<B>::new(config, vocabulary, outputs, 1, device));
    let reference = policy.valid();
    let trunk = Transformer::new(config, vocabulary, 1, 2, device);
    let model = RewardModel::<B::InnerBackend>::on_trunk(trunk, &classes, &Default::default(), 3);
    let rows: Vec<Group> = corpus.train.iter().take(64).map(|r| r.group()).collect();
    let mut calibration = Calibration::unfitted(classes);
    let distributions: Vec<Vec<Vec<f64>>> = outputs_of(&model, &rows).iter().map(|o| calibration.distributions(o)).collect();
    calibration.statistics = RewardStatistics::over(&calibration.mapping, &distributions);
    let reward_model = FrozenRewardModel { models: vec![model], calibration };

    let (prompts, samples_per_prompt, max_new_tokens) = size.iteration();
    let c = PolicyConfig { prompts, samples_per_prompt, max_new_tokens, ..Default::default() };
    let targets = TargetSampler::new(&RunConfig::default(), &objectives, corpus.train.iter().map(|r| r.labels.as_slice()));
    let mut rng = StdRng::seed_from_u64(1);
    let mut learner = Some(Learner::new(policy, &c));
    let mut tokens = Vec::new();
    let mut figure = meter.measure(0, 0.0, || {
        let now = learner.take().expect("put back below");
        let aim = Aim::Preference;
        let prompts = draw_prompts(c.prompts, &corpus.train_questions, (&targets, None), &tokenizer, &aim, &mut rng)
            .expect("the world's prompts are plain text");
        let actors = Actors {
            policy: &now.policy.model.valid(),
            reference: &reference,
            reward_model: &reward_model,
            tokenizer: &tokenizer,
            questions: &corpus.train_questions,
            aim: &aim,
            statistics: &reward_model.calibration.statistics,
            higher_is_better: &[],
        };
        let (mut rollouts, _) = roll_out(&actors, &prompts, &c, 0.05, 7);
        tokens.push(rollouts.iter().map(|r| r.answer.tokens.len()).sum::<usize>());
        let update = Update { prompts: &prompts, config: &c, beta: 0.05, learning_rate: 1e-5, iteration: 0, supervised: &[] };
        learner = Some(now.update(&mut rollouts, &update, &mut rng).0);
        wait::<B>(device);
    });
    // Answers end when they end; what was really sampled counts.
    let sampled = tokens.iter().sum::<usize>() as f64 / tokens.len() as f64;
    let layer = (config.d_model * config.d_model * 4 + 3 * config.d_model * config.d_ff) as f64;
    let (trunk, output) = (layer * config.layers as f64, (outputs * config.d_model) as f64);
    // Sampling, reference and update read the policy, the reward model reads a trunk; the update counts three times.
    let flops = 2.0 * sampled * (5.0 * (trunk + output) + trunk);
    figure.tokens_per_second = sampled / figure.median;
    figure.share_of_peak = flops / figure.median / 1e9 / meter.peak_gflops;
    Ok(figure)
}
