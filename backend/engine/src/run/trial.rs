//! What a run of an off-the-shelf model will take, from a few steps of it: every stage of the run itself, with its models and batches, made
//! as short as a measurement allows. Nothing of it is kept.

use super::{RunError, fits, needed, train_on_device};
use crate::data::Task;
use crate::evaluate::answer::Route;
use crate::keep::Job;
use crate::keep::above::Above;
use crate::model::memory::peak_memory_mib;
use crate::progress::{Progress, Stop};
use crate::run::memory::available_mib;
use moslim_shared::config::{RunConfig, TargetWording, TaskKind};
use moslim_shared::event::{EventBody, Stage};
use moslim_shared::memory::{Memory, mib};
use moslim_shared::objective::Objective;
use serde::Serialize;
use std::sync::Arc;

/// Answers to learn from, as many as fill every thread once; steps of a supervised stage; iterations of the policy; prompts of every class
/// in the evaluation, and with several wishes.
const ANSWERS: usize = 128;
const STEPS: usize = 3;
const ITERATIONS: usize = 2;
const QUESTIONS: usize = 2;
const JOINT: usize = 4;

/// What one stage will take.
#[derive(Debug, Clone, Serialize)]
pub struct StageEstimate {
    pub stage: Stage,
    /// Seconds that were measured, and of which share of the stage's work.
    pub measured: f64,
    pub share: f64,
    /// Seconds that it will take.
    pub seconds: f64,
}

/// What a run will take.
#[derive(Debug, Clone, Serialize)]
pub struct Estimate {
    pub stages: Vec<StageEstimate>,
    /// Seconds of all stages.
    pub seconds: f64,
    /// Most memory that the measurement took, MiB; 0 where the system does not tell.
    pub peak_memory_mib: u64,
    /// Memory that was free before it, MiB.
    pub free_memory_mib: Option<u64>,
    /// What the sizes of models and batches say that the run takes; none where nothing is known of the model.
    pub memory: Option<MemoryEstimate>,
}

/// Memory of a run in its largest moment, as it is known before anything is measured.
#[derive(Debug, Clone, Serialize)]
pub struct MemoryEstimate {
    pub stage: Stage,
    /// All of it, MiB.
    pub mib: u64,
    /// What it is for, with its MiB.
    pub parts: Vec<(&'static str, u64)>,
}

impl MemoryEstimate {
    fn of(m: &Memory) -> Self {
        let parts = m.parts().map(|(part, bytes)| (part.title(), mib(bytes)));
        Self { stage: m.stage, mib: m.mib(), parts: parts.to_vec() }
    }
}

/// Measures a few steps of every stage of the run. `sink` hears what it does, as of a run.
///
/// # Errors
/// As [`super::train`]; [`RunError::BadInput`] also where the run does not begin with an off-the-shelf model: the lab's own are trained
/// sooner than measured.
pub fn estimate(job: &Job, stop: &Stop, sink: &mut dyn FnMut(&EventBody)) -> Result<Estimate, RunError> {
    if job.config.base.model.is_empty() {
        let message = "base.model: is empty; what a run takes is measured for off-the-shelf models";
        return Err(RunError::BadInput(message.into()));
    }
    let free_memory_mib = available_mib();
    let load = |config: &RunConfig| Task::load(&config.task, &|path| job.files.read(path)).map_err(RunError::Failed);
    let task = load(&job.config)?;
    fits(job, &task, Stage::Evaluation)?;
    let short = short(&job.config);
    let short_job = Job { config: short.clone(), files: Arc::new(Above::new(job.files.clone())), ..job.clone() };
    let mut stages: Vec<StageEstimate> = Vec::new();
    let mut hear = |body: EventBody| {
        if let EventBody::StageEnded { stage, seconds, .. } = body {
            match stages.iter_mut().find(|s| s.stage == stage) {
                // One of several models of a stage.
                Some(known) => known.measured += seconds,
                None => stages.push(StageEstimate { stage, measured: seconds, share: 1.0, seconds: 0.0 }),
            }
        }
        sink(&body);
    };
    let summary = train_on_device(&short_job, load(&short)?, &mut Progress { sink: &mut hear, stop })?;
    for estimate in &mut stages {
        estimate.share = match (estimate.stage, job.config.policy.passes) {
            (Stage::Policy, Some(passes)) => summary.compute.policy.passes() / (passes * 1e6),
            (stage, _) => work(stage, &short, &task.objectives) / work(stage, &job.config, &task.objectives),
        };
        estimate.seconds = estimate.measured / estimate.share;
    }
    let seconds = stages.iter().map(|s| s.seconds).sum();
    let memory = needed(job, &task.objectives, Stage::Evaluation).as_ref().map(MemoryEstimate::of);
    Ok(Estimate { stages, seconds, peak_memory_mib: peak_memory_mib(), free_memory_mib, memory })
}

/// The run with as little work as can be measured.
fn short(config: &RunConfig) -> RunConfig {
    let mut c = RunConfig { fork: None, ..config.clone() };
    if c.task.kind == TaskKind::Style {
        c.task.rows = c.task.rows.min(ANSWERS);
    }
    for steps in [&mut c.sft.steps, &mut c.reward_model.steps, &mut c.method.preference_sft] {
        *steps = (*steps).min(STEPS);
    }
    c.policy.iterations = c.policy.iterations.min(ITERATIONS);
    c.policy.passes = None;
    let e = &mut c.evaluation;
    (e.questions, e.joint) = (e.questions.min(QUESTIONS), e.joint.min(JOINT));
    (e.held_out, e.front, e.paraphrased) = (e.held_out.min(1), e.front.min(1), e.paraphrased.min(JOINT));
    c
}

/// The work of a stage, in what it is counted in.
fn work(stage: Stage, c: &RunConfig, objectives: &[Objective]) -> f64 {
    let amount = match stage {
        // All rows are read once.
        Stage::Answers | Stage::Calibration => c.task.rows,
        Stage::Sft => c.sft.steps,
        Stage::RewardModel | Stage::HeldOutRewardModel => c.reward_model.steps,
        Stage::PreferenceSft => c.method.preference_sft,
        Stage::Policy => c.policy.iterations,
        Stage::Evaluation => {
            let e = &c.evaluation;
            let classes: usize = objectives.iter().map(Objective::class_count).sum();
            // Prompts with several wishes are said again in every way that there is.
            let ways = Route::Tags.wordings(c.targets.wording == TargetWording::Mixed).len();
            let said_again = ways * e.paraphrased.min(e.joint);
            classes * e.questions + e.joint + 2 * c.targets.held_out.len() * e.held_out + said_again + e.front
        }
    };
    amount.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use moslim_shared::presets;

    #[test]
    fn a_trial_has_the_batches_of_the_run_and_little_else() {
        let shelf = presets::find("offtheshelf").unwrap().config;
        let mut config = shelf.clone();
        config.policy.passes = Some(9.0);
        let trial = short(&config);
        assert_eq!((trial.task.rows, trial.reward_model.steps, trial.policy.iterations), (128, 3, 2));
        assert_eq!(trial.policy.passes, None);
        let sizes =
            |c: &RunConfig| (c.reward_model.batch, c.policy.prompts, c.policy.samples_per_prompt, c.policy.max_new_tokens);
        assert_eq!(sizes(&trial), sizes(&config));
        // What is shorter than a trial is not made longer.
        config.policy.iterations = 1;
        assert_eq!(short(&config).policy.iterations, 1);
        assert_eq!(short(&config).method.preference_sft, 0);

        let objectives = |classes: &[usize]| -> Vec<Objective> {
            classes.iter().map(|&n| Objective::new("o", "O", "", &vec!["a"; n])).collect()
        };
        let mut c = shelf;
        (c.task.rows, c.reward_model.steps, c.policy.iterations) = (768, 96, 36);
        let e = &mut c.evaluation;
        (e.questions, e.joint, e.held_out, e.front, e.paraphrased) = (16, 8, 0, 0, 12);
        assert_eq!(work(Stage::Answers, &c, &[]), 768.0);
        assert_eq!(work(Stage::RewardModel, &c, &[]), 96.0);
        assert_eq!(work(Stage::Policy, &c, &[]), 36.0);
        // Seven classes, sixteen questions each; eight prompts with several wishes, said in four ways again.
        assert_eq!(work(Stage::Evaluation, &c, &objectives(&[5, 2])), 7.0 * 16.0 + 8.0 + 4.0 * 8.0);
        assert_eq!(work(Stage::PreferenceSft, &c, &[]), 1.0);
        // Trained on tags, words and both, it is asked in each apart, too.
        c.targets.wording = TargetWording::Mixed;
        assert_eq!(work(Stage::Evaluation, &c, &objectives(&[5, 2])), 7.0 * 16.0 + 8.0 + 6.0 * 8.0);
    }
}
