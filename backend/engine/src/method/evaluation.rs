//! Evaluation of what a method has trained.

use super::setting::{Ready, Setting, Trained};
use crate::evaluate::answer::{Answering, Route};
use crate::evaluate::control::{Examination, examine, likelihood, wordings};
use crate::evaluate::front::front;
use crate::evaluate::grader::{Combinations, Grading};
use crate::evaluate::menu::{Menu, front_seen, offers, questions_each};
use crate::evaluate::plan::Plan;
use crate::model::TrainBackend;
use crate::model::generate::Sampling;
use crate::model::kernels::Kernels;
use crate::model::transformer::Transformer;
use crate::policy::targets::pair_positions;
use crate::progress::Progress;
use crate::reward::frozen::FrozenRewardModel;
use anyhow::{Context, Result};
use moslim_shared::config::{EvaluationSplit, RunConfig};
use moslim_shared::event::{EventBody, Stage};
use moslim_shared::summary::{Answerer, ControlSummary, FrontReport, FrontSeen, Grader};
use web_time::Instant;

/// What a method offers, tried on training questions; `each` is told how many answers are done, and may stop it.
///
/// # Errors
/// When it is stopped, or the tokenizer fails.
pub fn menu<B: TrainBackend>(
    setting: &Setting,
    reward_model: &FrozenRewardModel<B::InnerBackend>,
    (policies, route): (&[Transformer<B::InnerBackend>], &Route),
    config: &RunConfig,
    each: impl FnMut(usize) -> Result<()>,
) -> Result<Menu> {
    let x = on_training_questions(setting, reward_model, (policies, route), config);
    let weighted = config.targets.weighted_share.is_some();
    let offers = offers(route, &setting.trade_offs, weighted, &setting.objectives, &setting.steered);
    Menu::tried(&x, offers, &menu_sampling(config), each)
}

/// Policies that answer training questions.
fn on_training_questions<'a, B: Kernels>(
    setting: &'a Setting,
    reward_model: &'a FrozenRewardModel<B>,
    (policies, route): (&'a [Transformer<B>], &'a Route),
    config: &RunConfig,
) -> Answering<'a, B> {
    Answering {
        policies,
        route,
        reward_model,
        tokenizer: &setting.tokenizer,
        questions: &setting.corpus.train_questions,
        objectives: &setting.objectives,
        trade_offs: &setting.trade_offs,
        steered: &setting.steered,
        rules: setting.choosing(config),
    }
}

/// How a menu is tried: always with the same random numbers.
fn menu_sampling(config: &RunConfig) -> Sampling {
    Sampling {
        temperature: config.evaluation.temperature,
        top_p: 1.0,
        max_new_tokens: config.policy.max_new_tokens,
        seed: config.seed ^ 0xBE4A,
    }
}

/// What a policy that reads what is asked for in its prompt reaches now, after `step` iterations, as the reward model sees it.
///
/// # Errors
/// When it is stopped, or the tokenizer fails.
pub fn front_on_the_way<B: TrainBackend>(
    setting: &Setting,
    ready: &Ready<B>,
    policy: &Transformer<B::InnerBackend>,
    step: usize,
    config: &RunConfig,
    progress: &Progress,
) -> Result<FrontSeen> {
    let x = on_training_questions(setting, &ready.reward_model, (std::slice::from_ref(policy), &Route::Tags), config);
    let weighted = config.targets.weighted_share.is_some();
    front_seen(&x, weighted, step, &menu_sampling(config), || progress.check())
}

/// Which of several policies, or mixtures of them, answers what: the route by what each does on training questions.
///
/// # Errors
/// When it is stopped, or the tokenizer fails.
pub fn nearest<B: TrainBackend>(
    setting: &Setting,
    ready: &Ready<B>,
    policies: &[Transformer<B::InnerBackend>],
    (weights, mixed): (Vec<Vec<f64>>, bool),
    config: &RunConfig,
    progress: &mut Progress,
) -> Result<Route> {
    let route = Route::Nearest { behaviour: Vec::new(), weights: weights.clone(), mixed };
    let menu = menu::<B>(setting, &ready.reward_model, (policies, &route), config, |_| progress.check())?;
    Ok(Route::Nearest { behaviour: menu.classes(&setting.objectives), weights, mixed })
}

/// What evaluation finds.
pub struct Evaluated {
    pub control: ControlSummary,
    pub control_reward_model: ControlSummary,
    pub front: FrontReport,
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
    let parts: &[String] = match config.evaluation.split {
        EvaluationSplit::Test => &setting.corpus.parts,
        EvaluationSplit::Validation => &[],
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
    // Besides the plan, twice: the menu is tried, and what is kept of it for either set of offers, which may overlap.
    let weighted = config.targets.weighted_share.is_some();
    let count = offers(&trained.route, &setting.trade_offs, weighted, &setting.objectives, &setting.steered).len();
    let tried = if trade_offs > 0 { count * questions_each(count, 1) } else { 0 };
    let total = 2 * plan.len() + tried + 2 * trade_offs * config.evaluation.front;
    progress.emit(EventBody::StageBegan { stage: Stage::Evaluation, part: None, from: 0, total });
    let mut graded = ControlSummary { grader: grading.name(), ..Default::default() };
    let mut model = ControlSummary { grader: Grader::RewardModel, ..Default::default() };
    let max_new_tokens = config.policy.max_new_tokens;
    let sampling = Sampling { temperature: config.evaluation.temperature, top_p: 1.0, max_new_tokens, seed: config.seed };
    let asked = Route::of_start(&setting.tokenizer);
    let baseline = (std::slice::from_ref(&ready.reference), &asked);
    let method = (trained.policies.as_slice(), &trained.route);
    let answering = |(policies, route), questions| Answering {
        policies,
        route,
        reward_model: &ready.reward_model,
        tokenizer: &setting.tokenizer,
        questions,
        objectives: &setting.objectives,
        trade_offs: &setting.trade_offs,
        steered: &setting.steered,
        rules: setting.choosing(config),
    };
    let mut sft: Option<Examination> = None;
    for (turn, (policy, who)) in [(Answerer::Sft, baseline), (Answerer::Policy, method)].into_iter().enumerate() {
        let x = answering(who, questions);
        let answers = examine(&x, &plan, &grading, &config.evaluation, max_new_tokens, config.seed, |done| {
            progress.emit(EventBody::Evaluating { done: turn * plan.len() + done, total });
            progress.check()
        })?;
        let wordings = wordings(&x, &plan, &grading, config.evaluation.paraphrased, &sampling)?;
        let likelihood = likelihood(&answers, &plan, &ready.reference, (questions, &setting.tokenizer));
        let [mut by_grader, mut by_model] = answers.reports(&plan, (questions, parts), &setting.objectives, sft.as_ref());
        by_grader.wordings = wordings;
        (by_grader.likelihood, by_model.likelihood) = (likelihood, likelihood);
        for (summary, report) in [(&mut graded, by_grader), (&mut model, by_model)] {
            progress.emit(EventBody::Control { policy, grader: summary.grader, report: report.clone() });
            match policy {
                Answerer::Sft => summary.sft = report,
                Answerer::Policy => summary.policy = report,
            }
        }
        sft = Some(answers);
    }
    let mut report = FrontReport::default();
    if trade_offs > 0 {
        let mut done = 2 * plan.len();
        let mut go_on = |progress: &mut Progress, answers: usize| {
            done += answers;
            progress.emit(EventBody::Evaluating { done: done.min(total), total });
            progress.check()
        };
        let menu = menu::<B>(setting, &ready.reward_model, method, config, |answers| go_on(progress, answers))?;
        let x = answering(method, questions);
        let wanted = (setting.steered.as_slice(), setting.trade_offs.as_slice());
        let each = config.evaluation.front;
        report = front((&x, &grading, parts), &menu, wanted, each, &sampling, seed, |answers| go_on(progress, answers))?;
        progress.emit(EventBody::Evaluating { done: total, total });
        progress.emit(EventBody::Front { report: report.clone() });
    }
    let seconds = begun.elapsed().as_secs_f64();
    progress.emit(EventBody::StageEnded { stage: Stage::Evaluation, part: None, seconds, cached: false });
    Ok(Evaluated { control: graded, control_reward_model: model, front: report, seconds })
}
