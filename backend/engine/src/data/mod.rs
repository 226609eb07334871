//! Tasks: what a run is about. Nothing outside this folder knows where a task comes from.
//!
//! Here belong loaders of tasks, one folder or file each, and what they have in common. Tokens, models and rewards do not.

pub mod ratings;
pub mod style;
pub mod world;

use anyhow::{Context, Result};
use moslim_shared::config::{TaskConfig, TaskKind};
use moslim_shared::event::TaskInfo;
use moslim_shared::objective::Objective;
use moslim_shared::preference::Preference;
use rand::rngs::StdRng;
pub use ratings::ReadFile;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// What a run is about: objectives, questions with graded answers, and rules that grade free text where there are such.
pub struct Task {
    /// Name for people and files.
    pub name: String,
    pub objectives: Vec<Objective>,
    pub splits: Splits,
    /// Without it, answers are graded by the held-out reward model.
    pub gold: Option<Box<dyn Gold>>,
}

/// A gold grader: rules that grade any text whatsoever.
pub trait Gold: Send + Sync {
    /// What `answer` is worth as an answer to `question`.
    fn grade(&self, question: &str, answer: &str) -> Grades;

    /// Whether an answer that keeps to what `question` is about can have every class that `preference` asks for. Where it
    /// cannot, control says nothing, and training would teach to change the subject.
    fn meets(&self, _question: &str, _preference: &Preference) -> bool {
        true
    }

    /// Grades of a random answer of mixed quality to `question`, where the task can make one: a combination of classes that can
    /// be met. Without it, combinations are those of labelled rows.
    fn example(&self, _question: &str, _rng: &mut StdRng) -> Option<Grades> {
        None
    }

    /// Answers written by hand to questions of no split, for a model to see how an answer can be; empty where there are none.
    fn demonstrations(&self) -> Vec<(&'static str, &'static str)> {
        Vec::new()
    }

    /// Whether who asks for `preference` wants to be told something, so that what is claimed should be about the question.
    fn seeks_claims(&self, _preference: &Preference) -> bool {
        true
    }
}

/// What a grader says of one answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Grades {
    /// Class per objective.
    pub classes: Vec<usize>,
    /// Whether the text is well formed, as far as the grader can tell.
    pub fluent: bool,
    /// What it claims; nothing where the grader does not tell.
    pub claims: Claims,
}

/// Claims of answers: how many there are, and how many are about what was asked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Claims {
    pub own: usize,
    pub all: usize,
}

impl Claims {
    /// Counts one more, which is about the question or not.
    pub fn count(&mut self, own: bool) {
        self.own += usize::from(own);
        self.all += 1;
    }
}

/// A question, one answer to it, and its graded labels.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    pub question: String,
    pub answer: String,
    /// Class per objective; `None` where the label is missing.
    pub labels: Vec<Option<usize>>,
    /// Which part of its split it belongs to: position in [`Splits::parts`], 0 where there are none.
    pub part: usize,
}

/// A question that is asked, without an answer.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TaskQuestion {
    pub text: String,
    /// What it is about. Answers to questions of one topic are alike: intervals resample topics, not questions.
    pub topic: usize,
    /// As [`Row::part`].
    pub part: usize,
}

/// Rows split by question: no question occurs in two splits.
#[derive(Debug, Default)]
pub struct Splits {
    pub train: Vec<Row>,
    /// Training rows without labels, which SFT reads in place of the others; where there are none, it reads those. Rows of another part
    /// than the first stand last: they are about what nothing after SFT may know.
    pub text_only: Vec<Row>,
    pub validation: Vec<Row>,
    pub test: Vec<Row>,
    /// Distinct questions of each split, in a fixed order.
    pub train_questions: Vec<TaskQuestion>,
    pub validation_questions: Vec<TaskQuestion>,
    pub test_questions: Vec<TaskQuestion>,
    /// Names of the parts of the test split that are reported apart; none where it is of one piece.
    pub parts: Vec<String>,
}

impl Task {
    /// Loads the task that a configuration names. `read`: reads a file of the data folder, where imported tasks are.
    ///
    /// # Errors
    /// When it is not there or damaged. The lab's own always are there.
    pub fn load(config: &TaskConfig, read: ReadFile) -> Result<Self> {
        Ok(match config.kind {
            TaskKind::World => world::task(config),
            TaskKind::Style => style::task(),
            TaskKind::Ratings => ratings::task(config, read)?,
        })
    }

    /// The objectives of the task that a configuration names, without its rows.
    ///
    /// # Errors
    /// As [`Task::load`].
    pub fn objectives_of(config: &TaskConfig, read: ReadFile) -> Result<Vec<Objective>> {
        Ok(match config.kind {
            TaskKind::World => world::objectives(),
            TaskKind::Style => style::objectives(),
            TaskKind::Ratings => {
                let about = ratings::about(&config.name, read)?;
                ratings::shaped(&about)?.into_iter().map(|s| s.objective).collect()
            }
        })
    }

    /// The rules that grade answers to the task that a configuration names, without its rows; `None` where it has none.
    pub fn rules(config: &TaskConfig) -> Option<Box<dyn Gold>> {
        match config.kind {
            TaskKind::World => Some(Box::new(world::Rules::default())),
            TaskKind::Style => Some(Box::new(style::Rules)),
            TaskKind::Ratings => None,
        }
    }

    /// What people are told of the task that a configuration names, without its rows.
    ///
    /// # Errors
    /// As [`Task::load`].
    pub fn info(config: &TaskConfig, read: ReadFile) -> Result<TaskInfo> {
        let examples = match config.kind {
            TaskKind::World => world::examples(),
            TaskKind::Style => style::examples(),
            TaskKind::Ratings => Vec::new(),
        };
        Ok(TaskInfo { name: Self::name_of(config), objectives: Self::objectives_of(config, read)?, examples })
    }

    /// The name of the task that a configuration names.
    pub fn name_of(config: &TaskConfig) -> String {
        match config.kind {
            TaskKind::World => "world",
            TaskKind::Style => "style",
            TaskKind::Ratings => &config.name,
        }
        .into()
    }

    /// What of a task is kept with a run, as `task.json`.
    pub fn card(&self) -> TaskCard {
        TaskCard { name: self.name.clone(), objectives: self.objectives.clone(), fingerprint: self.fingerprint() }
    }

    /// SHA-256 over objectives, questions and all rows: two tasks with the same one are the same to every stage.
    pub fn fingerprint(&self) -> String {
        let mut hash = Sha256::new();
        let mut add = |text: &str| {
            hash.update((text.len() as u64).to_le_bytes());
            hash.update(text);
        };
        for o in &self.objectives {
            add(&o.id);
            add(if o.higher_is_better { "+" } else { "-" });
            o.classes.iter().chain(o.wordings.iter().flatten()).for_each(|c| add(c));
        }
        let Splits { train, text_only, validation, test, train_questions, validation_questions, test_questions, parts } =
            &self.splits;
        let none = Vec::new();
        let all = [(train, train_questions), (text_only, &none), (validation, validation_questions), (test, test_questions)];
        parts.iter().for_each(|p| add(p));
        for (rows, questions) in all {
            add(&format!("{} questions, {} rows", questions.len(), rows.len()));
            for q in questions {
                add(&q.text);
                add(&format!("{} {}", q.topic, q.part));
            }
            for row in rows {
                add(&row.part.to_string());
                add(&row.question);
                add(&row.answer);
                let labels = row.labels.iter().map(|l| l.map_or("-".into(), |c| c.to_string()));
                add(&labels.collect::<Vec<String>>().join(" "));
            }
        }
        hash.finalize().iter().map(|b| format!("{b:02x}")).collect()
    }
}

/// What a run's folder keeps of its task, so that it can be scored and shown where the task is gone or has changed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskCard {
    pub name: String,
    pub objectives: Vec<Objective>,
    pub fingerprint: String,
}

impl TaskCard {
    /// The card in a run's folder; a run from before cards were kept is about the built-in world. `read` gives a file of the folder.
    ///
    /// # Errors
    /// When the file is damaged.
    pub fn read(read: impl Fn(&str) -> std::io::Result<Option<Vec<u8>>>) -> Result<Self> {
        match read("task.json").context("reading task.json")? {
            None => Ok(Self { name: "world".into(), objectives: world::objectives(), fingerprint: String::new() }),
            Some(bytes) => serde_json::from_slice(&bytes).context("reading task.json"),
        }
    }
}

/// A row as `moslim-lab data sample` shows it.
#[derive(Debug, Clone, Serialize)]
pub struct SampleRow {
    pub kind: String,
    pub question: String,
    pub answer: String,
    /// `objective: class (label)`; `None` for a missing label.
    pub labels: Vec<(String, Option<usize>, Option<String>)>,
}

impl std::fmt::Display for SampleRow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "[{}] {}", self.kind, self.question)?;
        writeln!(f, "  {}", self.answer)?;
        let labels: Vec<String> = self
            .labels
            .iter()
            .map(|(id, class, label)| match (class, label) {
                (Some(class), Some(label)) => format!("{id} {class} ({label})"),
                _ => format!("{id} missing"),
            })
            .collect();
        writeln!(f, "  {}", labels.join(", "))
    }
}
