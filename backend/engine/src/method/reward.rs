//! Reward models, and the calibration that freezes them.

use super::base::reward_layers;
use super::driver::from_cache;
use super::setting::Setting;
use super::supervised::SupervisedStage;
use crate::keep::bundle::sha256;
use crate::keep::cache::Cache;
use crate::keep::{CALIBRATION, Job, fork, model_file};
use crate::model::TrainBackend;
use crate::model::kernels::Kernels;
use crate::model::store::{from_safetensors, to_safetensors};
use crate::model::transformer::Transformer;
use crate::progress::Progress;
use crate::reward::RewardModel;
use crate::reward::frozen::{Calibration, FrozenRewardModel};
use crate::reward::loss::Weighing;
use crate::reward::train::{self as reward_train, BatchWeighing};
use crate::text::corpus::{Draw, siblings};
use anyhow::{Context, Result};
use burn::module::AutodiffModule;
use moslim_shared::config::ModelConfig;
use moslim_shared::event::{EventBody, Part, Stage};
use moslim_shared::mapping::RewardStatistics;
use moslim_shared::objective::Objective;
use moslim_shared::summary::{RewardModelReport, mostly_length, still_rises};
use web_time::Instant;

/// Reference answers over which the reward statistics are taken.
const REFERENCE_ROWS: usize = 2048;
/// The same for an off-the-shelf model, which reads a row for a thousand times as long: the mean of 512 is known to a twentieth of the
/// deviation.
const REFERENCE_ROWS_OF_A_BASE: usize = 512;
/// Validation rows on which the reward model is watched while it trains.
const WATCHED_ROWS: usize = 512;

/// What the seed of the held-out reward model differs by.
const HELD_OUT_SEED: u64 = 0x4E1D;

/// One multi-head model, or a model for each objective, on untagged question and answer. Labels that are missing add no loss.
/// `stage`: the reward model, or the held-out one, which has another seed and may have another number of layers. Also returns the seconds.
///
/// # Errors
/// When it is stopped, or a file cannot be read or written.
pub fn reward_models<B: TrainBackend>(
    job: &Job,
    setting: &Setting,
    stage: Stage,
    (sft, sft_key): (&Transformer<B>, &str),
    device_name: &str,
    device: &B::Device,
    progress: &mut Progress,
) -> Result<(Vec<RewardModel<B>>, f64)> {
    let c = &job.config;
    let seed = if stage == Stage::HeldOutRewardModel { c.seed ^ HELD_OUT_SEED } else { c.seed };
    let all: Vec<usize> = (0..setting.objectives.len()).collect();
    let sets: Vec<Vec<usize>> = if c.reward_model.separate { all.iter().map(|&h| vec![h]).collect() } else { vec![all] };
    let mut models = Vec::new();
    let mut seconds = 0.0;
    for (n, heads) in sets.iter().enumerate() {
        let name = || setting.objectives[heads[0]].id.clone();
        let part = (sets.len() > 1).then(|| Part { index: n + 1, count: sets.len(), name: name() });
        let named = (stage, part, n);
        let (model, own) = reward_model(job, setting, named, heads, (sft, sft_key), device_name, seed, device, progress)?;
        models.push(model);
        seconds += own;
    }
    Ok((models, seconds))
}

/// One reward model with heads for the objectives at `heads`: the `n`th. The parts of a stage share its steps.
#[allow(clippy::too_many_arguments)]
fn reward_model<B: TrainBackend>(
    job: &Job,
    setting: &Setting,
    (stage, part, n): (Stage, Option<Part>, usize),
    heads: &[usize],
    (sft, sft_key): (&Transformer<B>, &str),
    device_name: &str,
    seed: u64,
    device: &B::Device,
    progress: &mut Progress,
) -> Result<(RewardModel<B>, f64)> {
    let c = &job.config;
    let r = &c.reward_model;
    let tokenizer = &setting.tokenizer;
    let classes: Vec<usize> = heads.iter().map(|&h| setting.objectives[h].class_count()).collect();
    let weights_seed = seed ^ 0x4EA4 ^ ((heads[0] as u64) << 20);
    let layers = reward_layers(c, stage);
    let trunk = ModelConfig { layers: if layers > 0 { layers } else { c.reward_trunk.layers }, ..c.reward_trunk.clone() };
    let model = if c.reward_from_sft {
        RewardModel::<B>::on_trunk(sft.clone().first_layers(layers), &classes, r, weights_seed)
    } else {
        let trunk = Transformer::<B>::drawn(&trunk, tokenizer.vocabulary(), 1, weights_seed, device, || progress.check())?;
        RewardModel::<B>::on_trunk(trunk, &classes, r, weights_seed)
    };
    if stage == Stage::RewardModel && fork::evaluated(job)?.is_some() {
        let file = model_file("reward", n);
        let model = from_safetensors(model, taken_over(job, &file)?).with_context(|| format!("reading {file}"))?;
        return Ok((model, from_cache(stage, part.as_ref(), r.steps, Instant::now(), progress, None)));
    }
    // Where a model grades, it learns from other rows than the one that is optimised for.
    let apart = stage == Stage::HeldOutRewardModel && !setting.corpus.judging.is_empty();
    let rows = if apart { &setting.corpus.judging } else { &setting.corpus.train };
    let class_weights = reward_train::class_weights(r.class_weights, rows, heads, &classes);
    let head_weights: Vec<f64> = heads.iter().map(|&h| r.head_weights.get(h).copied().unwrap_or(1.0)).collect();
    let origin = c.reward_from_sft.then(|| if layers == 0 { sft_key.to_string() } else { format!("{sft_key}, {layers} layers") });
    let mut schedule = r.schedule();
    schedule.steps = (schedule.steps / part.as_ref().map_or(1, |p| p.count)).max(1);
    let pairs = r.loss == moslim_shared::ordinal::RewardLoss::BradleyTerry;
    let stage = SupervisedStage {
        stage,
        part,
        config: &schedule,
        rows,
        seed,
        key: Cache::key("reward", &(&setting.task.fingerprint, c.vocabulary, &trunk, r, heads, origin, seed, device_name))?,
        draw: if pairs { Draw::Pairs(siblings(rows)) } else { Draw::prompts(rows, r.per_prompt) },
        heads: heads.to_vec(),
        cache: &setting.cache,
        job,
    };
    let watched = &setting.corpus.validation[..WATCHED_ROWS.min(setting.corpus.validation.len())];
    stage.run::<B, _, _>(
        model,
        device,
        progress,
        |model, rows, weighing: &BatchWeighing| reward_train::loss(model, rows, heads, weighing),
        |rows| {
            let labels = reward_train::labels_of(rows, heads);
            let labels: Vec<&[Option<usize>]> = labels.iter().map(Vec::as_slice).collect();
            let weigh = |labels: &[&[Option<usize>]]| Weighing {
                smoothing: r.label_smoothing,
                learned: r.learned_head_weights,
                ..Weighing::of(labels, r.loss, &class_weights, &head_weights)
            };
            let begun = |weight| (weight, weigh(&reward_train::labels_of_beginnings(rows, &labels)));
            BatchWeighing { answers: weigh(&labels), beginnings: r.beginnings().map(begun) }
        },
        |model| {
            let outputs = reward_train::outputs(std::slice::from_ref(model), watched, heads);
            reward_train::kappas(r.loss, &outputs, &classes)
        },
    )
}

/// A file of the run that this one evaluates.
fn taken_over(job: &Job, file: &str) -> Result<Vec<u8>> {
    job.read(file)?.with_context(|| format!("{} is missing", job.describe(file)))
}

/// A temperature per head on validation data, then mean and deviation per head and class over reference answers;
/// all frozen under one hash.
pub fn calibrate<B: TrainBackend>(
    job: &Job,
    setting: &Setting,
    trained: &[RewardModel<B>],
    progress: &mut Progress,
) -> Result<(FrozenRewardModel<B::InnerBackend>, RewardModelReport, f64)> {
    let begun = Instant::now();
    let corpus = &setting.corpus;
    progress.emit(EventBody::StageBegan { stage: Stage::Calibration, part: None, from: 0, total: 3 });
    let models: Vec<RewardModel<B::InnerBackend>> = trained.iter().map(AutodiffModule::valid).collect();
    let heads: Vec<usize> = (0..setting.objectives.len()).collect();
    // What policies that are there already were trained for is frozen already.
    let frozen = fork::evaluated(job)?.is_some();
    let mut calibration = match frozen {
        true => serde_json::from_slice(&taken_over(job, CALIBRATION)?).with_context(|| format!("reading {CALIBRATION}"))?,
        false => fit_calibration(job, setting, &models),
    };
    progress.check()?;
    let test = reward_train::outputs(&models, &corpus.test, &heads);
    let mut report = reward_train::report(&test, &calibration, &corpus.test, &setting.objectives);
    report.parts = reward_train::by_part(&test, &calibration, &corpus.test, &corpus.parts, &setting.objectives);
    if let [shared] = trained {
        report.gradient_cosines = reward_train::gradient_cosines(shared, &corpus.validation);
    }
    progress.emit(EventBody::RewardModel { report: report.clone() });
    progress.check()?;
    if !frozen {
        freeze(job, setting, &models, &mut calibration)?;
    }
    progress.emit(EventBody::Calibrated {
        temperatures: calibration.temperatures.clone(),
        statistics: calibration.statistics.clone(),
        hash: calibration.hash.clone(),
    });
    let seconds = begun.elapsed().as_secs_f64();
    progress.emit(EventBody::StageEnded { stage: Stage::Calibration, part: None, seconds, cached: false });
    Ok((FrozenRewardModel { models, calibration }, report, seconds))
}

/// Adds mean and deviation of every class over reference answers, and the hash of everything; keeps it with the weights.
fn freeze<B: Kernels>(job: &Job, setting: &Setting, models: &[RewardModel<B>], calibration: &mut Calibration) -> Result<()> {
    let corpus = &setting.corpus;
    let most = if job.config.base.model.is_empty() { REFERENCE_ROWS } else { REFERENCE_ROWS_OF_A_BASE };
    let reference = &corpus.train[..most.min(corpus.train.len())];
    let rows: Vec<Vec<Vec<f64>>> =
        reward_train::outputs_of_rows(models, reference).iter().map(|outputs| calibration.distributions(outputs)).collect();
    calibration.statistics = RewardStatistics::over(&calibration.mapping, &rows);
    let weights = models.iter().map(to_safetensors::<B, _>).collect::<Result<Vec<_>>>()?;
    let frozen = serde_json::to_vec(calibration)?;
    let parts: Vec<&[u8]> = weights.iter().map(Vec::as_slice).chain([frozen.as_slice()]).collect();
    calibration.hash = sha256(&parts);
    for (n, weights) in weights.iter().enumerate() {
        job.write(&model_file("reward", n), weights)?;
    }
    job.write_json(CALIBRATION, calibration)
}

/// Temperatures (and thresholds) that fit `models` to validation rows; without statistics.
fn fit_calibration<B: Kernels>(job: &Job, setting: &Setting, models: &[RewardModel<B>]) -> Calibration {
    let loss = job.config.reward_model.loss;
    let heads: Vec<usize> = (0..setting.objectives.len()).collect();
    let classes: Vec<usize> = setting.objectives.iter().map(Objective::class_count).collect();
    let validation = reward_train::outputs(models, &setting.corpus.validation, &heads);
    let thresholds = reward_train::fit_thresholds(loss, &validation, &classes);
    let temperatures = reward_train::temperatures(loss, &validation, &classes, &thresholds);
    Calibration {
        temperatures,
        statistics: RewardStatistics::default(),
        mapping: job.config.mapping.clone(),
        hash: String::new(),
        loss,
        classes,
        thresholds,
    }
}

/// A reward model that only classifies, such as the held-out one: calibrated, without statistics of rewards; and how well it does on
/// test rows.
pub fn classifying<B: TrainBackend>(
    job: &Job,
    setting: &Setting,
    trained: &[RewardModel<B>],
) -> (FrozenRewardModel<B::InnerBackend>, RewardModelReport) {
    let models: Vec<RewardModel<B::InnerBackend>> = trained.iter().map(AutodiffModule::valid).collect();
    let calibration = fit_calibration(job, setting, &models);
    let heads: Vec<usize> = (0..setting.objectives.len()).collect();
    let test = reward_train::outputs(&models, &setting.corpus.test, &heads);
    let report = reward_train::report(&test, &calibration, &setting.corpus.test, &setting.objectives);
    (FrozenRewardModel { models, calibration }, report)
}

/// A head whose kappa is below this cannot be followed.
const TOO_LITTLE: f64 = 0.3;
/// Labelled test rows below which a kappa says little.
const FEW: usize = 50;

/// What a person should know of a reward model before a policy is trained on it: which heads are too weak, and whether more labels would
/// help. `smaller`: the report of a model that learnt from `rows[0]` rows, where this one learnt from `rows[1]`: two points of its learning
/// curve, where the two are of one size.
pub fn advice(report: &RewardModelReport, smaller: Option<&RewardModelReport>, rows: [usize; 2]) -> Vec<String> {
    let mut out = Vec::new();
    for (n, head) in report.heads.iter().enumerate() {
        let (id, kappa) = (&head.objective, head.qwk);
        let before = smaller.and_then(|report| report.heads.get(n)).map(|less| less.qwk);
        let n = head.n;
        let rises = before.is_some_and(|before| still_rises(before, kappa));
        let curve = match before {
            Some(before) => format!("kappa {before:.2} with {} rows, {kappa:.2} with {}", rows[0], rows[1]),
            None => format!("kappa {kappa:.2}"),
        };
        let unsure = if n < FEW { format!("; {n} test rows are few to tell") } else { String::new() };
        let more = match (before, rises) {
            (None, _) => "",
            (_, true) => ": more labels would help",
            (_, false) => ": more labels of this kind may not help",
        };
        if kappa < TOO_LITTLE {
            out.push(format!("The reward model does not know {id} well enough to steer by it ({curve}){more}{unsure}"));
        } else if rises {
            out.push(format!("The reward model still gets better at {id} ({curve}){more}{unsure}"));
        }
        if mostly_length(head.spearman, head.label_length_correlation) {
            out.push(format!(
                "The reward model orders answers by {id} hardly better than their length does (rank correlation {:.2}, of length {:.2}): the \
                 policy may learn to write {} instead{unsure}",
                head.spearman,
                head.label_length_correlation,
                if head.label_length_correlation > 0.0 { "longer" } else { "shorter" }
            ));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use moslim_shared::summary::RewardHeadReport;

    #[test]
    fn advice_names_weak_heads_and_what_more_labels_would_do() {
        let report = |kappas: [f64; 4], n| RewardModelReport {
            heads: kappas.map(|qwk| RewardHeadReport { objective: format!("o{n}"), qwk, n, ..Default::default() }).to_vec(),
            ..Default::default()
        };
        let less = report([0.68, 0.5, 0.1, 0.19], 80);
        let said = advice(&report([0.7, 0.7, 0.2, 0.2], 80), Some(&less), [400, 800]);
        assert_eq!(said.len(), 3);
        assert!(said[0].contains("still gets better") && said[0].contains("kappa 0.50 with 400 rows, 0.70 with 800"));
        assert!(said[1].contains("not know") && said[1].ends_with(": more labels would help"), "{}", said[1]);
        assert!(said[2].ends_with("may not help"), "{}", said[2]);
        let mut counting = report([0.7; 4], 80);
        for (head, length) in counting.heads.iter_mut().zip([0.6, -0.6, 0.2, 0.5]) {
            (head.spearman, head.label_length_correlation) = (0.62, length);
        }
        let said = advice(&counting, Some(&report([0.7; 4], 80)), [400, 800]);
        assert!(said.len() == 2 && said[0].contains("of length 0.60") && said[1].ends_with("write shorter instead"), "{said:?}");
        assert!(advice(&report([0.2; 4], 10), Some(&report([0.2; 4], 10)), [4, 8])[0].ends_with("10 test rows are few to tell"));
        // A model of another size is no point of its curve.
        let alone = advice(&report([0.7, 0.2, 0.7, 0.7], 80), None, [400, 800]);
        assert_eq!(alone, ["The reward model does not know o80 well enough to steer by it (kappa 0.20)"]);
    }
}
