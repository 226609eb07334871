//! A run at work: scoring answers, and generating them.

use super::device::{Device, choose};
use super::opened::{Opened, open, open_in};
use crate::data::{Gold, Task};
use crate::evaluate::answer::{Ask, Route};
use crate::keep::bundle::sha256;
use crate::keep::files::Files;
use crate::model::generate::{Answer, Hearing, Sampling, generate_heard};
use crate::model::kernels::Kernels;
use crate::model::packed::Group;
use crate::model::store::from_safetensors;
use crate::model::transformer::Transformer;
use crate::policy::rollout::ended_answer;
use crate::progress::Stop;
use crate::reward::frozen::{Calibration, FrozenRewardModel};
use crate::text::Tokenizer;
use anyhow::{Context, Result, anyhow, bail, ensure};
use moslim_shared::config::DeviceChoice;
use moslim_shared::inference::{GenerateEvent, GenerateRequest, Pair, Reading, Scored, Source};
use moslim_shared::mapping::{MappedReward, map_reward};
use moslim_shared::objective::Objective;
use moslim_shared::preference::Preference;
use std::borrow::Cow;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use web_time::Instant;

/// The type of a closure that depends on the backend cannot be named, so each use is an object.
trait Score: Send {
    fn distributions(&self, groups: &[Group]) -> Vec<Vec<Vec<f64>>>;
    fn reward(&self, distributions: &[Vec<f64>], preference: &Preference) -> MappedReward;
}

impl<B: Kernels> Score for FrozenRewardModel<B> {
    fn distributions(&self, groups: &[Group]) -> Vec<Vec<Vec<f64>>> {
        self.distributions(groups)
    }
    fn reward(&self, distributions: &[Vec<f64>], preference: &Preference) -> MappedReward {
        map_reward(&self.calibration.mapping, &self.calibration.statistics, distributions, preference)
    }
}

/// Calls a function of a backend on the device of a choice.
macro_rules! on_device {
    (@ $f:ident, $backend:ty, $device:ident, ($($arg:expr),*)) => {
        $f::<$backend>(&$device, $($arg),*)?
    };
    ($choice:expr, $f:ident $args:tt) => {
        match choose($choice)?.0 {
            Device::Cpu(d) => on_device!(@ $f, burn::backend::Flex, d, $args),
            #[cfg(feature = "cuda")]
            Device::Cuda(d) => on_device!(@ $f, burn::backend::Cuda, d, $args),
            #[cfg(feature = "wgpu")]
            Device::Wgpu(d) => on_device!(@ $f, burn::backend::Wgpu, d, $args),
        }
    };
}

/// Scores answers with a run's frozen reward model.
pub struct Scorer {
    inner: Box<dyn Score>,
    objectives: Vec<Objective>,
    tokenizer: Tokenizer,
    context: usize,
    gold: Option<Box<dyn Gold>>,
}

impl Scorer {
    /// Loads the reward model and its calibration from a run's folder.
    ///
    /// # Errors
    /// When a file is missing or damaged (named), or a forced device is not available.
    pub fn load(folder: &Path, device: DeviceChoice) -> Result<Self> {
        let opened = open(folder)?;
        let calibration = opened.calibration()?.context("calibration.json is missing; is the run finished?")?;
        let inner = on_device!(device, scoring(&opened, calibration));
        Ok(Self::of(inner, &opened))
    }

    fn of(inner: Box<dyn Score>, opened: &Opened) -> Self {
        let config = &opened.config;
        let context = if opened.base.is_some() { config.model.context } else { config.reward_trunk.context };
        let (objectives, tokenizer) = (opened.objectives.clone(), opened.tokenizer.clone());
        // Rules of today say nothing about objectives that a run had before they were what they are.
        let own = Task::objectives_of(&config.task, &|_| Ok(None)).is_ok_and(|own| own == objectives);
        let gold = if own { Task::rules(&config.task) } else { None };
        Self { inner, objectives, tokenizer, context, gold }
    }

    /// The objectives of the reward model's heads, in order.
    pub fn objectives(&self) -> &[Objective] {
        &self.objectives
    }

    /// Scores answers; with a preference also their reward.
    ///
    /// # Errors
    /// When a pair does not fit into the reward model's context; the message names it, counted from 1.
    pub fn score(&self, pairs: &[Pair], preference: Option<&Preference>) -> Result<Vec<Scored>> {
        let mut rows = Vec::with_capacity(pairs.len());
        for (n, pair) in pairs.iter().enumerate() {
            let row = self.row(pair)?;
            let tokens = row.0.len() + row.1.len();
            if tokens > self.context {
                bail!("pair {} is {} tokens long; the reward model reads at most {}", n + 1, tokens, self.context);
            }
            rows.push(row);
        }
        let gold = |n: usize| self.gold.as_ref().map(|g| g.grade(&pairs[n].prompt, &pairs[n].response).classes);
        Ok(self.distributions(&rows).into_iter().enumerate().map(|(n, d)| self.scored(d, preference, gold(n))).collect())
    }

    /// A question and its answer as the reward model reads them, token by token.
    ///
    /// # Errors
    /// When the tokenizer fails.
    pub fn reading(&self, pair: &Pair) -> Result<Reading> {
        let (question, answer) = self.row(pair)?;
        self.tokenizer.reading(&[question, answer].concat(), self.context)
    }

    /// Tokens of a question that asks for nothing, and of its ended answer.
    fn row(&self, pair: &Pair) -> Result<(Vec<u32>, Vec<u32>)> {
        let question = self.tokenizer.question(&pair.prompt)?;
        let answer = self.tokenizer.encode(&pair.response)?;
        Ok((self.tokenizer.untagged_prompt(&question), self.ended(&answer)))
    }

    fn ended(&self, answer: &[u32]) -> Vec<u32> {
        ended_answer(answer, self.tokenizer.eos)
    }

    /// What the heads say about questions and their ended answers.
    fn distributions(&self, rows: &[(Vec<u32>, Vec<u32>)]) -> Vec<Vec<Vec<f64>>> {
        let groups: Vec<Group> = rows.iter().map(|(q, a)| Group { prompt: q, answers: vec![a] }).collect();
        self.inner.distributions(&groups)
    }

    /// A reward model that has diverged says nothing, which JSON cannot say of a number: its probabilities are 0 then.
    fn scored(&self, mut distributions: Vec<Vec<f64>>, preference: Option<&Preference>, gold: Option<Vec<usize>>) -> Scored {
        distributions.iter_mut().flatten().filter(|p| !p.is_finite()).for_each(|p| *p = 0.0);
        let reward = preference.map(|p| self.inner.reward(&distributions, p));
        Scored { distributions, reward, gold }
    }
}

fn scoring<B: Kernels>(device: &B::Device, opened: &Opened, calibration: Calibration) -> Result<Box<dyn Score>> {
    let trunk = opened.trunk::<B>(device)?;
    let models = opened.reward_models(trunk.as_ref(), device)?;
    Ok(Box::new(FrozenRewardModel { models, calibration }))
}

/// Who answers.
enum Who {
    /// A policy of the route's.
    Policy(usize),
    /// The one that optimisation started from.
    Start,
    /// One from before the end, with these weights.
    OnTheWay(Vec<u8>),
}

trait Generate: Send {
    /// Answers to one prompt.
    ///
    /// # Errors
    /// When weights are not those of a policy of the run.
    fn generate(&self, who: Who, prompt: &[u32], n: usize, sampling: &Sampling, heard: Hearing) -> Result<Vec<Answer>>;
    fn has_start(&self) -> bool;
}

/// Policies from before the end that are held at a time: the milestones and a checkpoint.
const MOST_HELD: usize = 4;

struct GenerateOn<B: Kernels> {
    policies: Vec<Transformer<B>>,
    start: Option<Transformer<B>>,
    /// What weights of others are read into.
    blank: Transformer<B>,
    /// Those from before the end that were asked last, by the checksums of their weights.
    held: Mutex<Vec<(String, Transformer<B>)>>,
    route: Route,
    /// Positions of the steered objectives.
    steered: Vec<usize>,
    eos: u32,
}

impl<B: Kernels> GenerateOn<B> {
    fn on_the_way(&self, weights: Vec<u8>) -> Result<Transformer<B>> {
        let sum = sha256(&[&weights]);
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, policy)) = held.iter().find(|(own, _)| *own == sum) {
            return Ok(policy.clone());
        }
        let policy = from_safetensors(self.blank.clone(), weights)?;
        if held.len() == MOST_HELD {
            held.remove(0);
        }
        held.push((sum, policy.clone()));
        Ok(policy)
    }
}

impl<B: Kernels> Generate for GenerateOn<B> {
    fn generate(&self, who: Who, prompt: &[u32], n: usize, sampling: &Sampling, heard: Hearing) -> Result<Vec<Answer>> {
        let policy = match who {
            Who::Policy(own) => self.route.take(own, &self.policies, &self.steered),
            Who::Start => Cow::Borrowed(self.start.as_ref().context("there is no policy that it started from")?),
            Who::OnTheWay(weights) => Cow::Owned(self.on_the_way(weights)?),
        };
        Ok(generate_heard(&policy, &[prompt], n, self.eos, sampling, heard))
    }

    fn has_start(&self) -> bool {
        self.start.is_some()
    }
}

/// What is there to generate and to score with, on one copy of an off-the-shelf model's weights.
type Both = (Box<dyn Generate>, Option<Box<dyn Score>>);

fn generating<B: Kernels>(device: &B::Device, opened: &Opened, route: &Route, whole: bool) -> Result<Both> {
    let steered = opened.config.steered(&opened.objectives);
    let trunk = opened.trunk::<B>(device)?;
    let kept = if whole { route.kept(steered.len()) } else { 0 };
    let policies = (0..kept).map(|n| opened.policy(n, trunk.as_ref(), device)).collect::<Result<_>>()?;
    let start = opened.start(trunk.as_ref(), device)?;
    let score = match opened.calibration()? {
        None => None,
        Some(calibration) => {
            let models = opened.reward_models(trunk.as_ref(), device)?;
            Some(Box::new(FrozenRewardModel { models, calibration }) as Box<dyn Score>)
        }
    };
    let (eos, blank) = (opened.tokenizer.eos, opened.blank(trunk.as_ref(), device));
    let (route, held) = (route.clone(), Mutex::default());
    Ok((Box::new(GenerateOn { policies, start, blank, held, route, steered, eos }), score))
}

/// Generates answers with what a run's method has trained, or has so far, and scores them.
pub struct Generator {
    inner: Box<dyn Generate>,
    scorer: Option<Scorer>,
    route: Route,
    opened: Opened,
    /// Whether what the method trains is there; else its policy on the way alone.
    whole: bool,
}

impl Generator {
    /// Loads policies and reward model from a run's folder. Of one that is not finished, what it has learnt on the way is read for every
    /// request.
    ///
    /// # Errors
    /// When a file is missing or damaged (named), or a forced device is not available.
    pub fn load(folder: &Path, device: DeviceChoice) -> Result<Self> {
        Self::of(open(folder)?, device)
    }

    /// [`Generator::load`] from a folder of `files`, wherever they are.
    ///
    /// # Errors
    /// As [`Generator::load`].
    pub fn load_in(files: Arc<dyn Files>, folder: String, device: DeviceChoice) -> Result<Self> {
        Self::of(open_in(files, folder)?, device)
    }

    fn of(mut opened: Opened, device: DeviceChoice) -> Result<Self> {
        let route = opened.route()?;
        // Where there is nothing at all, what is missing is said.
        let whole = opened.is_trained() || opened.on_the_way().is_empty();
        let (inner, score) = on_device!(device, generating(&opened, &route, whole));
        let scorer = score.map(|score| Scorer::of(score, &opened));
        // Its weights are read.
        opened.base = None;
        Ok(Self { inner, scorer, route, opened, whole })
    }

    /// Whether the run has come to more, since it was loaded, than its policy on the way.
    pub fn is_outdated(&self) -> bool {
        !self.whole && self.opened.is_trained() || self.scorer.is_none() && self.opened.is_calibrated()
    }

    /// How the run's report sampled: the temperature, and the most tokens of an answer. Hotter, a small model talks nonsense.
    pub fn measured(&self) -> (f64, usize) {
        (self.opened.config.evaluation.temperature, self.opened.config.policy.max_new_tokens)
    }

    /// The objectives that can be asked for.
    pub fn objectives(&self) -> &[Objective] {
        &self.opened.objectives
    }

    /// Scores answers with the run's reward model.
    ///
    /// # Errors
    /// As [`Scorer::score`], and when the run has none.
    pub fn score(&self, pairs: &[Pair], preference: Option<&Preference>) -> Result<Vec<Scored>> {
        self.scorer.as_ref().context("the run has no reward model")?.score(pairs, preference)
    }

    /// Answers a request that has no [`GenerateRequest::problems`], and tells `told` what comes, as it comes, but for how it ended.
    /// Returns the number of tokens sampled.
    ///
    /// # Errors
    /// When the target names what the run does not have, prompt and answers do not fit into the policy's context, or the run kept
    /// nothing to answer with; the message begins with the field.
    pub fn generate(
        &self,
        request: &GenerateRequest,
        stop: &Stop,
        told: &mut (dyn FnMut(GenerateEvent) + Send),
    ) -> Result<usize> {
        let Opened { objectives, tokenizer, config, .. } = &self.opened;
        let preference = Preference::parse(&request.target, objectives).map_err(|e| anyhow!("target: {e}"))?;
        let ask = Ask::of(preference.clone());
        let question = tokenizer.question(&request.prompt)?;
        let route = if request.source == Source::Start { &Route::of_start(tokenizer) } else { &self.route };
        let tokens = route.prompt(&question, &ask, tokenizer, objectives)?;
        let (room, new) = (config.model.context, request.max_new_tokens);
        ensure!(
            tokens.len() + new <= room,
            "prompt: its {} tokens and {new} new ones do not fit into the policy's context of {room}",
            tokens.len()
        );
        // The answer is scored after its question without tags; one that was cut off gets an end.
        let scored = tokenizer.untagged_prompt(&question).len() + new + 1;
        if let Some(most) = self.scorer.as_ref().map(|s| s.context).filter(|most| scored > *most) {
            bail!("prompt: with {new} new tokens and an end it would be {scored}; the reward model reads at most {most}");
        }
        // What a method is made of is not taken twice.
        let best_of = if let Route::BestOf(n) = route { request.best_of.max(*n) } else { request.best_of };
        ensure!(best_of == 1 || self.scorer.is_some(), "best_of: is {best_of}; the run has no reward model to choose with");
        let who = self.who(request.source, &ask)?;
        let Reading { pieces, special, context } = tokenizer.reading(&tokens, room)?;
        told(GenerateEvent::Prompt { text: tokenizer.spelt(&tokens)?, pieces, special, context, preference: preference.clone() });

        let (temperature, top_p, seed) = (request.temperature, request.top_p, request.seed);
        let sampling = Sampling { temperature, top_p, max_new_tokens: new, seed };
        let telling = Mutex::new(Telling { told, tokens: vec![Vec::new(); request.n], said: vec![String::new(); request.n] });
        let hear = |answer: usize, token: u32| {
            if best_of == 1 {
                telling.lock().unwrap_or_else(PoisonError::into_inner).hear(answer, token, tokenizer);
            }
            stop.asked().is_none()
        };
        let answers = self.inner.generate(who, &tokens, request.n * best_of, &sampling, &hear)?;
        let sampled = answers.iter().map(|a| a.tokens.len()).sum();
        if stop.asked().is_some() {
            return Ok(sampled);
        }
        let Telling { told, said, .. } = telling.into_inner().unwrap_or_else(PoisonError::into_inner);
        for (answer, said) in said.iter().enumerate().filter(|_| best_of == 1) {
            let whole = tokenizer.decode(&answers[answer].tokens)?;
            if let Some(rest) = whole.strip_prefix(said.as_str()).filter(|rest| !rest.is_empty()) {
                told(GenerateEvent::Text { answer, text: rest.into() });
            }
        }
        self.tell(request, &preference, &question, &answers, best_of, told)?;
        Ok(sampled)
    }

    /// Who answers.
    ///
    /// # Errors
    /// When the run does not have it; the message says what it has.
    fn who(&self, source: Source, ask: &Ask) -> Result<Who> {
        let found = match source {
            Source::Policy | Source::Newest if self.whole => Some(Who::Policy(self.route.policy(ask, &self.opened.objectives))),
            Source::Policy => None,
            Source::Start => self.inner.has_start().then_some(Who::Start),
            on_the_way => self.opened.weights_on_the_way(on_the_way)?.map(Who::OnTheWay),
        };
        found.ok_or_else(|| {
            let own = [(Source::Policy, self.whole), (Source::Start, self.inner.has_start())];
            let own = own.into_iter().filter_map(|(source, is_there)| is_there.then_some(source));
            let has: Vec<&str> = own.chain(self.opened.on_the_way()).map(Source::id).collect();
            let has = if has.is_empty() { "none".into() } else { has.join(", ") };
            anyhow!("source: is {}; this run has {has}", source.id())
        })
    }

    /// Scores answers, of which every `best_of` are candidates for one, and tells of the best.
    fn tell(
        &self,
        request: &GenerateRequest,
        preference: &Preference,
        question: &[u32],
        answers: &[Answer],
        best_of: usize,
        told: &mut (dyn FnMut(GenerateEvent) + Send),
    ) -> Result<()> {
        let tokenizer = &self.opened.tokenizer;
        let asked = tokenizer.untagged_prompt(question);
        let rows: Vec<(Vec<u32>, Vec<u32>)> = match &self.scorer {
            Some(scorer) => answers.iter().map(|a| (asked.clone(), scorer.ended(&a.tokens))).collect(),
            None => Vec::new(),
        };
        let distributions = self.scorer.as_ref().map(|scorer| scorer.distributions(&rows));
        let reward = |n: usize| {
            let (Some(scorer), Some(all)) = (&self.scorer, &distributions) else { return 0.0 };
            scorer.inner.reward(&all[n], preference).scalar
        };
        for answer in 0..request.n {
            let candidates = answer * best_of..(answer + 1) * best_of;
            let best = candidates.clone().fold(candidates.start, |best, n| if reward(n) > reward(best) { n } else { best });
            let chosen = &answers[best];
            let text = tokenizer.decode(&chosen.tokens)?;
            let scored = self.scorer.as_ref().zip(distributions.as_ref()).map(|(scorer, all)| {
                let gold = scorer.gold.as_ref().map(|gold| gold.grade(&request.prompt, &text).classes);
                scorer.scored(all[best].clone(), (preference.active() > 0).then_some(preference), gold)
            });
            told(GenerateEvent::Answer { answer, text, tokens: chosen.tokens.len(), ended: chosen.ended, scored });
        }
        Ok(())
    }

    /// The texts that answer a request.
    ///
    /// # Errors
    /// As [`Generator::generate`].
    pub fn texts(&self, request: &GenerateRequest) -> Result<Vec<String>> {
        let mut texts = Vec::new();
        self.generate(request, &Stop::default(), &mut |event| {
            if let GenerateEvent::Answer { text, .. } = event {
                texts.push(text);
            }
        })?;
        Ok(texts)
    }

    /// Answers a request as a whole stream of events: what [`Generator::generate`] tells, and how it ended.
    pub fn answer(&self, request: &GenerateRequest, stop: &Stop, told: &mut (dyn FnMut(GenerateEvent) + Send)) {
        let began = Instant::now();
        match self.generate(request, stop, told) {
            Ok(tokens) => {
                told(GenerateEvent::Ended { tokens, seconds: began.elapsed().as_secs_f64(), processor_seconds: None });
            }
            Err(error) => told(GenerateEvent::Failed { message: format!("{error:#}") }),
        }
    }
}

/// Turns tokens into pieces of text.
struct Telling<'a> {
    told: &'a mut (dyn FnMut(GenerateEvent) + Send),
    tokens: Vec<Vec<u32>>,
    said: Vec<String>,
}

impl Telling<'_> {
    fn hear(&mut self, answer: usize, token: u32, tokenizer: &Tokenizer) {
        self.tokens[answer].push(token);
        let Ok(text) = tokenizer.decode(&self.tokens[answer]) else { return };
        // A character may be several tokens; half of one is none yet.
        let whole = text.trim_end_matches('\u{FFFD}');
        if let Some(new) = whole.strip_prefix(self.said[answer].as_str()).filter(|new| !new.is_empty()) {
            (self.told)(GenerateEvent::Text { answer, text: new.into() });
            self.said[answer] = whole.into();
        }
    }
}
