//! Memory that a run takes on a processor, before it starts: what it is for, at every moment that may be its largest. Page, command line,
//! server and worker ask the same functions.
//!
//! What the engine does decides the formulas. A batch is cut into pieces of about [`PIECE`] tokens, and every thread computes one at a time,
//! from the embedding to the gradient; a prompt and its answers are never cut. What a backward pass needs is therefore there of the pieces at
//! work, and not of the batch: more prompts or rows cost time and no memory. The gradients of the pieces are added up in [`partial_sums`],
//! all of which are there until the last piece is done. Of texts no more is known than how long they may be.

mod shape;

pub use shape::{Adapters, Shape};

use crate::config::{PolicyOptimizer, Precision, RunConfig, TaskKind};
use crate::event::Stage;
use crate::method::Method;
use crate::objective::Objective;
use crate::ordinal::RewardLoss;

/// Tokens of a piece of work, and answers that are sampled together, each by one thread of a processor.
pub const PIECE: usize = 384;
pub const ROWS: usize = 64;
/// Prompts that are answered at once in an evaluation.
pub const ASKED: usize = 256;
/// Rows over which the gradients of a reward model's heads are compared.
pub const COMPARED: usize = 128;
/// Sums into which gradients are added, at most.
const MOST_SUMS: usize = 8;

/// Bytes of an f32, and of a bf16.
const FLOAT: f64 = 4.0;
const HALF: f64 = 2.0;
const MIB: f64 = (1 << 20) as f64;

/// What the program takes that has read its task and computes nothing, bytes: itself, every thread that trains, a row of the built-in world, and
/// an entry of the vocabulary. Runs of `smoke` on two threads took 118 to 132 MiB, those of the study `quick` 194 to 216
/// (docs/studies/quick.csv), nearly all of it this.
const PROCESS: f64 = 100.0 * MIB;
const THREAD: f64 = 8.0 * MIB;
const ROW: f64 = 1_200.0;
const ENTRY: f64 = 256.0;
/// Of what comes and goes, the share that lies between what is in use: freed memory is kept, and not all of it fits what is wanted next
/// (docs/performance.md: 7 % more).
const BETWEEN: f64 = 0.07;

/// The longest tagged prompt and row of the built-in world, tokens, about.
const WORLD: (f64, f64) = (24.0, 64.0);
/// The longest prompt of an off-the-shelf model that answers everyday questions: its template, the question and some wishes.
const CHAT: f64 = 64.0;

/// What memory is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    Process,
    Weights,
    Training,
    Heads,
    Activations,
    Logits,
    Cache,
    Between,
}

impl Part {
    /// Name for people.
    pub fn title(self) -> &'static str {
        match self {
            Self::Process => "program and rows",
            Self::Weights => "weights",
            Self::Training => "what is trained, with gradients and moments",
            Self::Heads => "heads",
            Self::Activations => "what backward passes need",
            Self::Logits => "scores of the vocabulary",
            Self::Cache => "keys and values",
            Self::Between => "between what is in use",
        }
    }
}

/// Bytes of a run at one of its moments.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Memory {
    pub stage: Stage,
    /// The program, its threads, the tokenizer and the task's rows.
    pub process: f64,
    /// Weights that rest: the one copy of an off-the-shelf model, or of the lab's own models those that are not trained now.
    pub weights: f64,
    /// What is trained (adapters with embeddings of tags, or the weights themselves), its gradients and moments; and adapters that rest.
    pub training: f64,
    /// Heads of reward models, and what is kept of what they read.
    pub heads: f64,
    /// What is kept for the backward pass of every piece at work; while answers are sampled, what reading the prompts takes.
    pub activations: f64,
    /// Scores of all entries of the vocabulary, and their gradients.
    pub logits: f64,
    /// Keys and values of prompts and answers while answers are sampled.
    pub cache: f64,
}

impl Memory {
    /// All parts.
    pub fn parts(&self) -> [(Part, f64); 8] {
        let comes_and_goes = self.training + self.heads + self.activations + self.logits + self.cache;
        [
            (Part::Process, self.process),
            (Part::Weights, self.weights),
            (Part::Training, self.training),
            (Part::Heads, self.heads),
            (Part::Activations, self.activations),
            (Part::Logits, self.logits),
            (Part::Cache, self.cache),
            (Part::Between, BETWEEN * comes_and_goes),
        ]
    }

    /// Their sum.
    pub fn bytes(&self) -> f64 {
        self.parts().iter().map(|(_, bytes)| bytes).sum()
    }

    /// Their sum, MiB.
    pub fn mib(&self) -> u64 {
        mib(self.bytes())
    }

    /// The largest part, with its MiB.
    pub fn largest(&self) -> (Part, u64) {
        let [first, rest @ ..] = self.parts();
        let (part, bytes) = rest.into_iter().fold(first, |most, part| if part.1 > most.1 { part } else { most });
        (part, mib(bytes))
    }
}

/// Bytes as MiB, rounded.
pub fn mib(bytes: f64) -> u64 {
    (bytes / MIB).round() as u64
}

/// Memory of a run in its largest moment, computed by `threads` on a processor. `base`: the shape of the off-the-shelf model that it begins
/// with, if it begins with one; `None` where that is not known.
pub fn peak(c: &RunConfig, base: Option<&Shape>, objectives: &[Objective], threads: usize) -> Option<Memory> {
    largest(moments(c, base, objectives, threads))
}

/// The largest of some moments.
pub fn largest(moments: impl IntoIterator<Item = Memory>) -> Option<Memory> {
    moments.into_iter().max_by(|a, b| a.bytes().total_cmp(&b.bytes()))
}

/// Memory of a run at each moment that may be its largest, in their order; the last is the evaluation. As [`peak`]; none where the
/// shape is not known.
pub fn moments(c: &RunConfig, base: Option<&Shape>, objectives: &[Objective], threads: usize) -> Vec<Memory> {
    let Some(run) = Run::of(c, base, objectives, threads) else { return Vec::new() };
    let mut all = Vec::new();
    if !run.adapted {
        all.push(run.fine_tuning());
    }
    all.push(run.reward_model());
    if !c.reward_model.separate {
        all.push(run.calibration());
    }
    if c.method.preference_sft > 0 {
        all.push(run.on_scored_rows(Stage::PreferenceSft));
    }
    match c.method.kind {
        Method::Moslim | Method::Morlhf | Method::RewardedSoups => all.extend([run.rollouts(), run.reference(), run.update()]),
        Method::Ric | Method::RicClass | Method::ParetoHqd => all.push(run.on_scored_rows(Stage::Policy)),
        Method::TaggedSft | Method::BestOfN => {}
    }
    all.push(run.evaluation());
    all
}

/// Sums into which the gradients of a batch's pieces are added, for a model of so many parameters, the frozen ones included. More of them keep
/// more threads busy; each holds one number for every weight that is trained.
pub fn partial_sums(parameters: usize) -> usize {
    ((1 << 28) / parameters.max(1)).clamp(2, MOST_SUMS)
}

/// Into how many pieces of at most about [`PIECE`] tokens a batch is cut, and how many items the largest of them has. `items`, of `tokens`
/// each, are not cut.
pub fn pieces(items: f64, tokens: f64) -> (f64, f64) {
    let pieces = even(items * tokens, PIECE as f64).min(items).max(1.0);
    (pieces, (items / pieces).ceil())
}

/// An even number of parts of at most `most`.
fn even(total: f64, most: f64) -> f64 {
    2.0 * ((total / most).ceil().max(1.0) / 2.0).ceil()
}

/// A batch: items that are computed whole.
struct Batch {
    items: f64,
    /// Tokens of an item by which it is cut, those that are read, and those whose scores of the vocabulary are computed.
    counted: f64,
    read: f64,
    scored: f64,
}

/// How a batch is computed.
struct Cut {
    /// Items of the largest piece.
    items: f64,
    /// Pieces at work at a time.
    busy: f64,
    /// Gradients that are there at a time: the sums, and those on their way into sums of several pieces.
    gradients: f64,
}

/// What a run begins with and trains.
struct Run<'a> {
    c: &'a RunConfig,
    policy: Shape,
    reward: Shape,
    /// Whether adapters are trained, on the frozen weights of an off-the-shelf model.
    adapted: bool,
    adapters: Adapters,
    objectives: &'a [Objective],
    threads: f64,
}

impl<'a> Run<'a> {
    fn of(c: &'a RunConfig, base: Option<&Shape>, objectives: &'a [Objective], threads: usize) -> Option<Self> {
        let (adapted, threads) = (!c.base.model.is_empty(), threads.max(1) as f64);
        let (policy, reward, adapters) = if adapted {
            let whole = *base?;
            // Reward models never see a tag.
            let classes = objectives.iter().map(Objective::class_count).sum();
            let policy = Shape { tags: if c.base.added_tokens { classes } else { 0 }, ..whole };
            (policy, whole.first_layers(c.base.reward_layers), Adapters::of(&c.base))
        } else {
            (Shape::own(&c.model, c.vocabulary), Shape::own(&c.reward_trunk, c.vocabulary), Adapters::default())
        };
        Some(Self { c, policy, reward, adapted, adapters, objectives, threads })
    }

    /// Numbers that are trained of a model.
    fn trained(&self, shape: &Shape) -> f64 {
        if self.adapted { shape.adapters(&self.adapters) } else { shape.weights() }
    }

    /// Reward models that there are in the end: one, or one for each objective; twice that where a held-out one grades.
    fn reward_models(&self) -> f64 {
        let one = if self.c.reward_model.separate { self.objectives.len().max(1) } else { 1 };
        let grades = self.c.evaluation.held_out_reward_model || self.c.task.kind == TaskKind::Ratings;
        one as f64 * if grades { 2.0 } else { 1.0 }
    }

    /// Policies that are kept in the end.
    fn policies(&self) -> f64 {
        let steered = self.c.steered(self.objectives);
        let weights = self.c.method.weight_vectors(&steered, self.objectives.len()).len();
        self.c.method.kind.policies(steered.len(), weights).max(1) as f64
    }

    /// Values that a head reads, and columns of all heads.
    fn head_size(&self) -> (f64, f64) {
        let r = &self.c.reward_model;
        let columns: usize = self.objectives.iter().map(|o| r.loss.columns(o.class_count().max(1))).sum();
        (r.pooling.width(1) as f64 * self.reward.d_model as f64, columns as f64)
    }

    /// Tokens of the longest prompt, and of the longest row. What people have rated is as long as the context lets it be.
    fn lengths(&self) -> (f64, f64) {
        let (new, context) = (self.c.policy.max_new_tokens as f64, self.c.model.context as f64);
        let (prompt, row) = match self.c.task.kind {
            TaskKind::World => WORLD,
            TaskKind::Style => (CHAT, CHAT + new),
            TaskKind::Ratings => (context - new, context),
        };
        let prompt = prompt.min(context).max(1.0);
        (prompt, row.min(context).max(prompt))
    }

    /// What rests beside the work: `policies` that are not trained now, and as many `rewards`. The lab's own models are there as often as they
    /// differ, `4 (policies * weights + rewards * weights)` bytes; of an off-the-shelf model once, 4 or 2 bytes a weight, and its adapters
    /// as often, and once more for the trunk that reward models begin with.
    fn resting(&self, stage: Stage, policies: f64, rewards: f64) -> Memory {
        let all = |policies: f64| policies * self.trained(&self.policy) + rewards * self.trained(&self.reward);
        let (weights, training) = if self.adapted {
            let bytes = if self.c.base.weights == Precision::Bf16 { HALF } else { FLOAT };
            let trunk = self.trained(&Shape { tags: 0, ..self.policy });
            (bytes * self.policy.weights(), FLOAT * (all(policies) + trunk))
        } else {
            (FLOAT * all(policies), 0.0)
        };
        let rows = if self.c.task.kind == TaskKind::World { self.c.task.rows as f64 } else { 0.0 };
        let process = PROCESS + THREAD * self.threads.min(MOST_SUMS as f64) + ROW * rows + ENTRY * self.policy.vocabulary as f64;
        let (width, columns) = self.head_size();
        let heads = FLOAT * rewards * width * columns;
        Memory { stage, process, weights, training, heads, activations: 0.0, logits: 0.0, cache: 0.0 }
    }

    fn cut(&self, shape: &Shape, batch: &Batch) -> Cut {
        let (pieces, items) = pieces(batch.items, batch.counted);
        let parameters = shape.weights() + shape.adapters(&self.adapters);
        let each = (pieces / partial_sums(parameters as usize) as f64).ceil();
        let sums = (pieces / each).ceil();
        let busy = self.threads.min(sums);
        Cut { items, busy, gradients: sums + if each > 1.0 { busy } else { 0.0 } }
    }

    /// A step of training beside what rests. Of what is trained there are the numbers themselves, two moments and all gradients:
    /// `4 trained (3 + gradients)` bytes. Every piece at work keeps `4 ((layers + 1) token * tokens + layers * widened)` bytes, one layer more than
    /// it has for the gradients that are on their way, and scores of `4 * 2 * scored * vocabulary` bytes with their gradients. With
    /// checkpointing it keeps what goes into every layer, and all of the layer at work: `4 ((layers * d + 2 token) * tokens + widened)`.
    fn step(&self, rests: Memory, shape: &Shape, batch: &Batch) -> Memory {
        let Cut { items, busy, gradients } = self.cut(shape, batch);
        let (layers, tokens) = (shape.layers as f64, items * batch.read);
        let (token, widened) = (shape.token(&self.adapters), shape.widened(&self.adapters));
        let kept = if self.adapted && self.c.base.checkpointing {
            (layers * shape.d_model as f64 + 2.0 * token) * tokens + widened
        } else {
            (layers + 1.0) * token * tokens + layers * widened
        };
        Memory {
            training: rests.training + FLOAT * self.trained(shape) * (3.0 + gradients),
            activations: FLOAT * busy * kept,
            logits: FLOAT * busy * 2.0 * items * batch.scored * shape.vocabulary as f64,
            ..rests
        }
    }

    /// Rows of which the answers are learnt.
    fn rows(&self, batch: usize) -> Batch {
        let (prompt, row) = self.lengths();
        Batch { items: batch as f64, counted: row, read: row, scored: row - prompt }
    }

    /// SFT of the lab's own model. Nothing else is there yet.
    fn fine_tuning(&self) -> Memory {
        self.step(self.resting(Stage::Sft, 0.0, 0.0), &self.policy, &self.rows(self.c.sft.batch))
    }

    /// A reward model, beside the policy to come and the reward models before it. It scores no vocabulary; of its heads there are what is there
    /// of what is trained, and what they read: one place for each answer, or one for each token, `4 * places * width` bytes.
    fn reward_model(&self) -> Memory {
        let r = &self.c.reward_model;
        let (prompt, row) = self.lengths();
        let each = if r.loss == RewardLoss::BradleyTerry { 2 } else { r.per_prompt.max(1) };
        let each = each.min(r.batch.max(1)) as f64;
        let tokens = prompt + each * (row - prompt);
        let batch = Batch { items: (r.batch as f64 / each).ceil(), counted: tokens, read: tokens, scored: 0.0 };
        let rests = self.resting(Stage::RewardModel, 1.0, self.reward_models() - 1.0);
        let Cut { items, busy, gradients } = self.cut(&self.reward, &batch);
        let (width, columns) = self.head_size();
        let places = items * each * if r.beginnings().is_some() { row - prompt } else { 1.0 };
        let heads = FLOAT * width * (columns * (3.0 + gradients) + busy * places);
        Memory { heads: rests.heads + heads, ..self.step(rests, &self.reward, &batch) }
    }

    /// Calibration compares the gradients that the heads send into the trunk, over pairs of rows: those of all heads before the last one, and the
    /// last one's on their way. Nothing is trained.
    fn calibration(&self) -> Memory {
        let (_, row) = self.lengths();
        let batch = Batch { items: COMPARED as f64 / 2.0, counted: 2.0 * row, read: 2.0 * row, scored: 0.0 };
        let rests = self.resting(Stage::Calibration, 1.0, self.reward_models());
        let before = self.objectives.len().max(1) as f64 - 1.0;
        let gradients = before + self.cut(&self.reward, &batch).gradients;
        let training = rests.training + FLOAT * self.trained(&self.reward) * gradients;
        Memory { training, ..self.step(rests, &self.reward, &batch) }
    }

    /// Supervised training of a policy on scored rows, beside what it begins from.
    fn on_scored_rows(&self, stage: Stage) -> Memory {
        self.step(self.resting(stage, self.policies(), self.reward_models()), &self.policy, &self.rows(self.c.method.ric.batch))
    }

    /// What rests between two updates of the policy: the reference, and the policy with its moments.
    fn between_updates(&self) -> Memory {
        let rests = self.resting(Stage::Policy, 1.0 + self.policies(), self.reward_models());
        Memory { training: rests.training + FLOAT * self.trained(&self.policy) * (2.0 + self.beside()), ..rests }
    }

    /// Sampling answers to train on.
    fn rollouts(&self) -> Memory {
        let p = &self.c.policy;
        self.sampling(self.between_updates(), p.prompts as f64, p.samples_per_prompt as f64)
    }

    /// The reference reads them. Nothing is kept, so that all threads are at work, each with `4 read * tokens` bytes and
    /// `4 scored * vocabulary` of scores.
    fn reference(&self) -> Memory {
        let p = &self.c.policy;
        let answers = p.samples_per_prompt as f64 * p.max_new_tokens as f64;
        let tokens = self.lengths().0 + answers;
        let (pieces, items) = pieces(p.prompts as f64, tokens);
        let busy = self.threads.min(pieces);
        Memory {
            activations: FLOAT * busy * self.policy.read() * items * tokens,
            logits: FLOAT * busy * items * answers * self.policy.vocabulary as f64,
            ..self.between_updates()
        }
    }

    /// An update of the policy, beside the reference and the policy that has sampled. DPO and IPO read two answers of each prompt.
    fn update(&self) -> Memory {
        let p = &self.c.policy;
        let ((prompt, _), samples, new) = (self.lengths(), p.samples_per_prompt as f64, p.max_new_tokens as f64);
        let pairs = matches!(p.optimizer, PolicyOptimizer::OnlineDpo | PolicyOptimizer::OnlineIpo);
        let answers = if pairs { samples.min(2.0) } else { samples };
        let batch = Batch {
            items: (p.prompts as f64 / p.minibatches.max(1) as f64).ceil(),
            counted: prompt + samples * new,
            read: prompt + answers * new,
            scored: answers * new,
        };
        let mut rests = self.resting(Stage::Policy, 1.0 + self.policies(), self.reward_models());
        rests.training += FLOAT * self.trained(&self.policy) * self.beside();
        self.step(rests, &self.policy, &batch)
    }

    /// Times that as much as is trained of the policy is there besides: PPO's critic with two moments, and averaged weights.
    fn beside(&self) -> f64 {
        let p = &self.c.policy;
        let critic = if p.optimizer == PolicyOptimizer::Ppo { 3.0 } else { 0.0 };
        critic + if p.average > 0.0 { 1.0 } else { 0.0 }
    }

    /// Evaluation: the policy, and what it began from, are asked.
    fn evaluation(&self) -> Memory {
        let e = &self.c.evaluation;
        let classes: usize = self.objectives.iter().map(Objective::class_count).sum();
        let asked = if classes > 0 { e.questions as f64 * classes as f64 + e.joint as f64 } else { ASKED as f64 };
        let samples = if self.c.method.kind == Method::BestOfN { self.c.method.best_of as f64 } else { 1.0 };
        let rests = self.resting(Stage::Evaluation, 1.0 + self.policies(), self.reward_models());
        self.sampling(rests, asked.min(ASKED as f64), samples)
    }

    /// Sampling `samples` answers to each of `prompts`, beside what rests. A thread samples at most [`ROWS`] at once, and reads their prompts,
    /// each once, in one pass: `4 * read * tokens` bytes. It remembers keys and values of all tokens of prompts and answers, and has
    /// the scores of the next token twice. Adapters are laid into one matrix for each product.
    fn sampling(&self, rests: Memory, prompts: f64, samples: f64) -> Memory {
        let (shape, samples, (prompt, _)) = (&self.policy, samples.max(1.0), self.lengths());
        let pieces = even(prompts * samples, ROWS as f64);
        let rows = (prompts * samples / pieces).ceil();
        let (busy, read) = (self.threads.min(pieces), (rows / samples).ceil() * prompt);
        let new = self.c.policy.max_new_tokens as f64;
        Memory {
            training: rests.training + FLOAT * shape.layers as f64 * shape.widened(&self.adapters),
            activations: FLOAT * busy * read * shape.read(),
            logits: FLOAT * busy * 2.0 * rows * shape.vocabulary as f64,
            cache: FLOAT * busy * shape.remembered() * (rows * new + read),
            ..rests
        }
    }
}

#[cfg(test)]
mod tests;
