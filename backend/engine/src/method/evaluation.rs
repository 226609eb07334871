//! Evaluation of what a method has trained.

use super::setting::{Ready, Setting, Trained};
use crate::evaluate::answer::{Answering, Ask, Route};
use crate::evaluate::control::{Examination, Plan, examine, wordings};
use crate::evaluate::front::front;
use crate::evaluate::goals::{choose, trials};
use crate::evaluate::grader::{Combinations, Grading};
use crate::model::TrainBackend;
use crate::model::generate::Sampling;
use crate::model::transformer::Transformer;
use crate::policy::targets::pair_positions;
use crate::progress::Progress;
use crate::reward::frozen::FrozenRewardModel;
use anyhow::{Context, Result};
use moslim_shared::config::{EvaluationSplit, RunConfig};
use moslim_shared::distribution::argmax;
use moslim_shared::event::{EventBody, Stage};
use moslim_shared::method::goal;
use moslim_shared::preference::Preference;
use moslim_shared::summary::{Answerer, ChosenFront, ControlSummary, FrontReport, Grader, Work};
use std::time::Instant;

/// Mean class of each objective in answers of `policy`, asked without tags, as the reward model sees it, over some training
/// questions: `[objective]`. Also returns the work.
pub fn behaviour<B: TrainBackend>(
    setting: &Setting,
    reward_model: &FrozenRewardModel<B::InnerBackend>,
    policy: &Transformer<B::InnerBackend>,
    config: &RunConfig,
) -> Result<(Vec<f64>, Work)> {
    let questions = &setting.corpus.train_questions;
    let x = Answering {
        policies: std::slice::from_ref(policy),
        route: &Route::Untagged,
        reward_model,
        tokenizer: &setting.tokenizer,
        questions,
        objectives: &setting.objectives,
        trade_offs: &setting.trade_offs,
    };
    let ask = Ask::of(Preference::none(setting.objectives.len()));
    let n = questions.len().min(256);
    let asks: Vec<_> = (0..n).map(|q| (q * (questions.len() / n), ask.clone())).collect();
    let sampling =
        Sampling { temperature: 1.0, top_p: 1.0, max_new_tokens: config.policy.max_new_tokens, seed: config.seed ^ 0xBE4A };
    let answers = x.answer(&asks, &sampling)?;
    let pairs: Vec<_> = asks.iter().map(|(q, _)| *q).zip(&answers).collect();
    let mut means = vec![0.0; setting.objectives.len()];
    for heads in x.classified(&pairs) {
        for (mean, p) in means.iter_mut().zip(heads) {
            *mean += argmax(&p) as f64 / n as f64;
        }
    }
    let read: usize = pairs.iter().map(|(q, a)| questions[*q].tokens.len() + 2 + a.tokens.len()).sum();
    Ok((means, Work { forward_tokens: 2 * read as u64, training_tokens: 0 }))
}

/// What evaluation finds.
pub struct Evaluated {
    pub control: ControlSummary,
    pub control_reward_model: ControlSummary,
    pub front: FrontReport,
    /// Work of choosing what to ask for at every trade-off.
    pub work: Work,
    pub seconds: f64,
}

/// Control by the gold grader (without one, by the held-out reward model) and by the reward model, for the method and for the
/// SFT baseline; then the method's front.
///
/// # Errors
/// When it is stopped, or the tokenizer fails.
pub fn evaluate<B: TrainBackend>(
    config: &RunConfig,
    setting: &Setting,
    ready: &Ready<B>,
    trained: &Trained<B>,
    progress: &mut Progress,
) -> Result<Evaluated> {
    let begun = Instant::now();
    let held_out: Vec<_> = config.targets.held_out.iter().filter_map(|p| pair_positions(p, &setting.objectives)).collect();
    let questions = match config.evaluation.split {
        EvaluationSplit::Test => &setting.corpus.test_questions,
        EvaluationSplit::Validation => &setting.corpus.validation_questions,
    };
    let grading = match (&setting.gold, &ready.held_out) {
        (Some(gold), _) => Grading::Gold(gold.as_ref()),
        (None, held_out) => Grading::HeldOut(held_out.as_ref().context("there is no gold grader and no held-out reward model")?),
    };
    let rows = match config.evaluation.split {
        EvaluationSplit::Test => &setting.corpus.test,
        EvaluationSplit::Validation => &setting.corpus.validation,
    };
    let combinations = Combinations::new(setting.gold.as_deref(), rows);
    // Evaluation prompts depend on the task alone, so that runs with other seeds answer the same questions.
    let seed = config.task.seed;
    let plan = Plan::new(&config.evaluation, questions, &combinations, &setting.objectives, &setting.steered, &held_out, seed);
    let trade_offs = if config.evaluation.front > 0 { setting.trade_offs.len() } else { 0 };
    let reads_prompts = !trained.route.wordings().is_empty();
    let per_front = trade_offs * config.evaluation.front;
    // Besides the plan, twice: prompts that are tried, and a front for the fixed map and one for what was chosen.
    let tried = if reads_prompts && per_front > 0 { trials(&setting.objectives, &setting.steered) } else { 0 };
    let fronts = if reads_prompts { 2 } else { 1 };
    let total = 2 * plan.len() + tried + fronts * per_front;
    progress.emit(EventBody::StageBegan { stage: Stage::Evaluation, part: None, from: 0, total });
    let mut graded = ControlSummary { grader: grading.name(), ..Default::default() };
    let mut model = ControlSummary { grader: Grader::RewardModel, ..Default::default() };
    let max_new_tokens = config.policy.max_new_tokens;
    let sampling = Sampling { temperature: config.evaluation.temperature, top_p: 1.0, max_new_tokens, seed: config.seed };
    // The SFT baseline never learnt tags and is asked without.
    let baseline = (std::slice::from_ref(&ready.reference), &Route::Untagged);
    let method = (trained.policies.as_slice(), &trained.route);
    let answering = |(policies, route), questions| Answering {
        policies,
        route,
        reward_model: &ready.reward_model,
        tokenizer: &setting.tokenizer,
        questions,
        objectives: &setting.objectives,
        trade_offs: &setting.trade_offs,
    };
    let mut sft: Option<Examination> = None;
    for (turn, (policy, who)) in [(Answerer::Sft, baseline), (Answerer::Policy, method)].into_iter().enumerate() {
        let x = answering(who, questions);
        let answers = examine(&x, &plan, &grading, &config.evaluation, max_new_tokens, config.seed, |done| {
            progress.emit(EventBody::Evaluating { done: turn * plan.len() + done, total });
            progress.check()
        })?;
        let wordings = wordings(&x, &plan, &grading, config.evaluation.paraphrased, &sampling)?;
        let [mut by_grader, by_model] = answers.reports(&plan, &setting.objectives, sft.as_ref());
        by_grader.wordings = wordings;
        for (summary, report) in [(&mut graded, by_grader), (&mut model, by_model)] {
            progress.emit(EventBody::Control { policy, grader: summary.grader, report: report.clone() });
            match policy {
                Answerer::Sft => summary.sft = report,
                Answerer::Policy => summary.policy = report,
            }
        }
        sft = Some(answers);
    }
    let (mut report, mut work) = (FrontReport::default(), Work::default());
    if trade_offs > 0 {
        let (steered, each) = (&setting.steered, config.evaluation.front);
        let x = answering(method, questions);
        let fixed: Vec<Preference> = setting.trade_offs.iter().map(|w| goal(w, &setting.objectives)).collect();
        let mut done = 2 * plan.len();
        let mut go_on = |progress: &mut Progress, answers: usize| {
            done += answers;
            progress.emit(EventBody::Evaluating { done, total });
            progress.check()
        };
        report = front((&x, &grading), steered, &fixed, each, &sampling, seed, || go_on(progress, each))?;
        if reads_prompts {
            let trial = answering(method, &setting.corpus.train_questions);
            let (goals, own) = choose(&trial, steered, &sampling, |answers| go_on(progress, answers))?;
            work = own;
            let best = front((&x, &grading), steered, &goals, each, &sampling, seed, || go_on(progress, each))?;
            report.chosen = Some(ChosenFront {
                points: best.points,
                hypervolume: best.hypervolume,
                expected_utility: best.expected_utility.unwrap_or(0.0),
            });
        }
        progress.emit(EventBody::Front { report: report.clone() });
    }
    let seconds = begun.elapsed().as_secs_f64();
    progress.emit(EventBody::StageEnded { stage: Stage::Evaluation, part: None, seconds, cached: false });
    Ok(Evaluated { control: graded, control_reward_model: model, front: report, work, seconds })
}
