//! MOSLIM (arXiv 2505.20336): one reward model that classifies, one policy that reads in its prompt what is asked for.
//!
//! The loop of policy optimisation is here; methods that train a policy for fixed weights run it with another aim. What an
//! optimiser makes of the rewards is in `policy/`, one file each; progress, checkpoints, cache and reports are in
//! `optimisation.rs`.

use super::optimisation::{PolicyStage, PolicyTask};
use super::preference_sft;
use super::setting::{Outcome, Ready, Setting, Trained, policy_of};
use crate::evaluate::answer::Route;
use crate::keep::{Job, fork};
use crate::model::TrainBackend;
use crate::model::generate::{Sampling, generate};
use crate::model::kernels::Kernels;
use crate::model::packed::Group;
use crate::model::transformer::Transformer;
use crate::policy::beside::beside;
use crate::policy::dapo::redraw_flat_groups;
use crate::policy::rollout::{
    Aim, Prompt, Rollout, answer_log_probs, classify_answers, collect, draw_prompts, map_beginnings, map_rewards, read,
};
use crate::policy::targets::TargetSampler;
use crate::policy::update::{Update, learning_rate};
use crate::progress::{Progress, stream};
use crate::reward::frozen::FrozenRewardModel;
use crate::text::Tokenizer;
use crate::text::corpus::EncodedQuestion;
use anyhow::Result;
use burn::module::AutodiffModule;
use moslim_shared::config::{PolicyConfig, PolicyOptimizer};
use moslim_shared::event::Stage;
use moslim_shared::mapping::RewardStatistics;
use moslim_shared::summary::Work;
use rand::Rng;
use rand::rngs::StdRng;

/// Trains the policy.
///
/// # Errors
/// When it is stopped, or a file cannot be read or written.
pub fn train<B: TrainBackend>(
    job: &Job,
    setting: &Setting,
    ready: &Ready<B>,
    device: &B::Device,
    progress: &mut Progress,
) -> Result<Trained<B>> {
    let config = &job.config;
    // Any policy will do to start from; by default it is SFT without any preference data.
    let mut start = ready.start.clone();
    let mut origin = String::new();
    if let Some(run) = &config.from {
        start = policy_of(job, run, start)?;
        origin = format!("the policy of {run}");
    }
    let mut before = preference_sft::Trial::default();
    if config.method.preference_sft > 0 {
        (start, before) = preference_sft::train(job, setting, ready, start, device, progress)?;
        origin = format!("{origin} after {} steps of preference SFT", config.method.preference_sft);
    }
    // Prompts ask for classes, and the reward model's class distributions are mapped to what the prompt asks for.
    let passes = |c: &PolicyConfig| c.passes.map(|p| (p * 1e6 - before.work.passes()).max(1.0));
    let task = PolicyTask {
        aim: Aim::Preference,
        iterations: config.policy.iterations,
        passes: passes(&config.policy),
        part: None,
        start: origin,
        forked: fork::forked(job)?.map(|source| (source.policy.clone(), passes(&source.policy))),
    };
    let (policy, mut outcome) = optimise(job, setting, ready, start, &task, device, progress)?;
    outcome.work += before.work;
    outcome.seconds += before.seconds;
    Ok(Trained { policies: vec![policy.valid()], route: Route::Tags, outcome, policies_trained: 1, policies_kept: 1 })
}

/// Optimises one policy from `start`, which, frozen, is the reference: sample, grade, map, compare within the group, update.
///
/// # Errors
/// When it is stopped, or a file cannot be read or written.
pub fn optimise<B: TrainBackend>(
    job: &Job,
    setting: &Setting,
    ready: &Ready<B>,
    start: Transformer<B>,
    task: &PolicyTask,
    device: &B::Device,
    progress: &mut Progress,
) -> Result<(Transformer<B>, Outcome)> {
    let (config, c) = (&job.config, &job.config.policy);
    // What was taught before optimisation is not to be punished: the reference is what optimisation starts from.
    let reference = start.valid();
    let (mut stage, mut learner) = match PolicyStage::begin(job, setting, ready, start, task, device, progress)? {
        PolicyStage::Cached(policy, outcome) => return Ok((policy, outcome)),
        PolicyStage::Begun(stage, learner) => (stage, learner),
    };
    let labels = setting.corpus.train.iter().map(|r| r.labels.as_slice());
    let targets = TargetSampler::new(config, &setting.objectives, labels);
    let questions = &setting.corpus.train_questions;
    let draw = |n: usize, rng: &mut StdRng| {
        draw_prompts(n, questions, (&targets, setting.gold.as_deref()), &setting.tokenizer, &task.aim, rng)
    };

    while let Some(step) = stage.next(&learner, progress)? {
        let rng = &mut stream(config.seed, Stage::Policy, step);
        let (policy, beta) = (learner.policy.model.valid(), stage.kl_coefficient());
        stage.see_front(step, &policy, progress)?;
        let statistics = stage.statistics();
        let actors = Actors {
            policy: &policy,
            reference: &reference,
            reward_model: &ready.reward_model,
            tokenizer: &setting.tokenizer,
            questions,
            aim: &task.aim,
            statistics: &statistics,
            higher_is_better: &setting.higher_is_better(),
        };
        // Sample questions and targets t, G answers to each, and their rewards r - beta KL.
        let mut prompts = draw(c.prompts, rng)?;
        let (mut rollouts, mut work) = roll_out(&actors, &prompts, c, beta, rng.random());
        if c.optimizer == PolicyOptimizer::Dapo {
            let again = |prompts: &[Prompt], seed| roll_out(&actors, prompts, c, beta, seed);
            let least = c.dapo.least_deviation;
            work += redraw_flat_groups(&mut rollouts, &mut prompts, least, draw, again, rng)?;
        }
        // Compare within the group (RLOO: A_j = r_j - mean of the other rewards), and ascend on E[A log pi(y | x, t)].
        let learning_rate = learning_rate(c.learning_rate, step, stage.total());
        let tagged = (prompts.as_slice(), &targets, questions.as_slice(), &setting.tokenizer);
        let rows = (setting.corpus.known_texts(), setting.corpus.train.as_slice());
        let supervised = beside(&rollouts, tagged, rows, c, rng)?;
        let update = Update { prompts: &prompts, config: c, beta, learning_rate, iteration: step, supervised: &supervised };
        let (next, report) = learner.update(&mut rollouts, &update, rng);
        learner = next;
        if (step + 1) as f64 > (1.0 - c.average) * stage.total() as f64 {
            learner.average();
        }
        stage.record(step, &rollouts, &prompts, &statistics, report, work, progress)?;
        stage.keep_milestone(&learner, progress)?;
    }
    stage.end(learner, progress)
}

/// What a rollout needs; reference and reward model are frozen.
pub struct Actors<'a, B: Kernels> {
    pub policy: &'a Transformer<B>,
    pub reference: &'a Transformer<B>,
    pub reward_model: &'a FrozenRewardModel<B>,
    pub tokenizer: &'a Tokenizer,
    pub questions: &'a [EncodedQuestion],
    pub aim: &'a Aim,
    /// Statistics of the mapping, as far as they have moved.
    pub statistics: &'a RewardStatistics,
    /// Which objectives are better when higher.
    pub higher_is_better: &'a [bool],
}

/// Samples `samples_per_prompt` answers to each prompt, grades them, and maps the grades to rewards. Samples of one prompt are
/// neighbours. Also returns the work that it took.
pub fn roll_out<B: Kernels>(
    actors: &Actors<B>,
    prompts: &[Prompt],
    c: &PolicyConfig,
    beta: f64,
    seed: u64,
) -> (Vec<Rollout>, Work) {
    let (Actors { tokenizer, aim, .. }, samples) = (actors, c.samples_per_prompt);
    // Sample: y_j ~ pi(. | x, t), G answers to each tagged question.
    let inputs: Vec<&[u32]> = prompts.iter().map(|p| p.tokens.as_slice()).collect();
    let sampling = Sampling { temperature: c.temperature, top_p: 1.0, max_new_tokens: c.max_new_tokens, seed };
    let answers = generate(actors.policy, &inputs, samples, tokenizer.eos, &sampling);
    // The reference reads the same tags: log pi_ref(y_j | x, t).
    let asked_and_answered = inputs.iter().zip(answers.chunks(samples));
    let tagged: Vec<Group> = asked_and_answered
        .map(|(&prompt, answers)| Group { prompt, answers: answers.iter().map(|a| a.tokens.as_slice()).collect() })
        .collect();
    let reference = answer_log_probs(actors.reference, &tagged, c.temperature as f32);
    // Grade: p_i = P(class of objective i | x, y_j), read without the tags.
    let pairs: Vec<(usize, &[u32])> = answers.iter().enumerate().map(|(n, a)| (n / samples, a.tokens.as_slice())).collect();
    let critic = c.credit().is_some();
    let graded = classify_answers(actors.reward_model, &pairs, prompts, actors.questions, tokenizer, critic);
    // Map: r = 1/sum m * sum_i m_i (f(p_i, t_i) - avg_i[t_i]) / std_i[t_i].
    let mapping = &actors.reward_model.calibration.mapping;
    let higher = actors.higher_is_better;
    let mapped = map_rewards(aim, mapping, actors.statistics, &graded.answers, prompts, samples, higher);
    let expected = map_beginnings(aim, mapping, actors.statistics, &graded.beginnings, prompts, samples, higher);
    // What the optimiser sees: r - beta * sum_t (log pi - log pi_ref).
    let work = Work { forward_tokens: 2 * read(&tagged) + graded.read, training_tokens: 0 };
    (collect(answers, reference, graded.answers, mapped, expected, prompts, (aim, c, beta)), work)
}
