//! Tasks made of people's ratings: what is kept of an import, and what was done to its classes since.

use crate::inference::Reading;
use crate::objective::Objective;
use serde::{Deserialize, Serialize};

/// How several raters' labels of one answer become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Agree {
    /// The class of the mean, rounded to the nearest; halves upwards.
    #[default]
    Mean,
    /// The class of the one in the middle; of two the lower.
    Median,
    /// The most frequent class; of several the one nearest to the mean, of two as near the lower.
    Majority,
}

/// How scores of an objective become classes. A score is on the scale of the classes as they were imported: 0 is the lowest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(utoipa::ToSchema))]
pub struct Bins {
    /// From each on begins the next class; one fewer than there are classes.
    pub edges: Vec<f64>,
    pub agree: Agree,
}

impl Bins {
    /// A class for every whole number from 0 to `classes` - 1.
    pub fn of(classes: usize, agree: Agree) -> Self {
        Self { edges: (1..classes).map(|c| c as f64 - 0.5).collect(), agree }
    }

    /// The class of one score.
    pub fn class(&self, score: f64) -> usize {
        self.edges.iter().filter(|e| **e <= score).count()
    }

    /// The class that several raters' scores make; `None` without scores.
    pub fn label(&self, scores: &[f64]) -> Option<usize> {
        if scores.is_empty() {
            return None;
        }
        let mean = scores.iter().sum::<f64>() / scores.len() as f64;
        Some(match self.agree {
            // Sums of decimals stop just short of a half.
            Agree::Mean => self.class(mean + 1e-9),
            Agree::Median => {
                let mut sorted = scores.to_vec();
                sorted.sort_by(f64::total_cmp);
                self.class(sorted[(sorted.len() - 1) / 2])
            }
            Agree::Majority => {
                let counts = self.votes(scores);
                let most = counts.iter().max().copied().unwrap_or(0);
                let near = |class: &usize| {
                    (*class as f64 - scores.iter().map(|&s| self.class(s) as f64).sum::<f64>() / scores.len() as f64).abs()
                };
                let tied = (0..counts.len()).filter(|&c| counts[c] == most);
                tied.min_by(|a, b| near(a).total_cmp(&near(b))).unwrap_or(0)
            }
        })
    }

    /// How many raters chose each class.
    pub fn votes(&self, scores: &[f64]) -> Vec<usize> {
        let mut counts = vec![0; self.edges.len() + 1];
        scores.iter().for_each(|&s| counts[self.class(s)] += 1);
        counts
    }
}

/// Something done to a task after its import. Every one is applied to what those before it left.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case", tag = "kind", deny_unknown_fields)]
pub enum Change {
    /// Classes `from` to `to` of an objective become one, called `name`.
    Merge { objective: String, from: usize, to: usize, name: String },
    /// A class gets another name.
    RenameClass { objective: String, class: usize, name: String },
    /// An objective gets another name for people.
    Rename { objective: String, name: String },
    /// New classes: from each of `edges` on begins the next. Scores are those of the import, 0 for its lowest class.
    Rebin { objective: String, edges: Vec<f64>, classes: Vec<String> },
    /// Raters' labels become one in another way.
    Agree { objective: String, agree: Agree },
    /// Another direction.
    HigherIsBetter { objective: String, yes: bool },
    /// The objective is left out.
    Leave { objective: String },
}

/// What an import made of an objective.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(utoipa::ToSchema))]
pub struct ImportedObjective {
    /// As it was imported.
    pub objective: Objective,
    pub agree: Agree,
}

/// A file that was imported.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(utoipa::ToSchema))]
pub struct ImportedFile {
    /// Its name, without folders.
    pub name: String,
    pub bytes: u64,
    pub sha256: String,
    pub records: u64,
}

/// Answers that were left out for one reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(utoipa::ToSchema))]
pub struct Dropped {
    pub reason: String,
    pub count: u64,
    /// The first few, with file, line and column.
    pub examples: Vec<String>,
}

/// What came of an objective's labels.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(utoipa::ToSchema))]
pub struct LabelCounts {
    pub id: String,
    /// Rows of every class.
    pub classes: Vec<u64>,
    /// Rows without a label.
    pub missing: u64,
    /// Rows that several raters labelled, and of these, where they chose different classes.
    pub rated_again: u64,
    pub disagreed: u64,
}

impl LabelCounts {
    /// Every class of the objective with its rows.
    pub fn said(&self, objective: &Objective) -> String {
        let each = objective.classes.iter().zip(&self.classes);
        each.map(|(class, n)| format!("{class}: {n}")).collect::<Vec<_>>().join(", ")
    }
}

/// What an import read, and what it made of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(utoipa::ToSchema))]
pub struct ImportReport {
    pub files: Vec<ImportedFile>,
    pub records: u64,
    pub rows: u64,
    /// Distinct prompts.
    pub prompts: u64,
    /// Rows of training, validation and test.
    pub splits: [u64; 3],
    /// Rows that are there again with nothing new.
    pub duplicates: u64,
    /// Labels of an answer that was there already, from other raters.
    pub merged: u64,
    pub dropped: Vec<Dropped>,
    pub labels: Vec<LabelCounts>,
}

/// Most changes of a task, and most characters of a name that one gives.
pub const MOST_CHANGES: usize = 500;
const LONGEST_NAME: usize = 200;

/// A task of imported ratings, as it is kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(utoipa::ToSchema))]
pub struct RatingsTask {
    pub name: String,
    /// What it is, for people, and under which licence.
    pub title: String,
    pub licence: String,
    /// SHA-256 of the file of its rows.
    pub hash: String,
    pub objectives: Vec<ImportedObjective>,
    /// What was done to it since, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<Change>,
    pub report: ImportReport,
    /// The mapping it was imported with, as TOML; empty where it was made otherwise.
    #[serde(default)]
    pub mapping: String,
}

/// A row of an imported task as it is shown.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(utoipa::ToSchema))]
pub struct ShownRow {
    /// Its number in the task, from 1.
    pub row: usize,
    pub split: String,
    pub prompt: String,
    pub response: String,
    pub labels: Vec<ShownLabel>,
}

/// A label with what it is made of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(utoipa::ToSchema))]
pub struct ShownLabel {
    pub objective: String,
    pub class: Option<usize>,
    /// Name of the class.
    pub name: Option<String>,
    pub ratings: Vec<ShownRating>,
}

/// What one rater said, and where that stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(utoipa::ToSchema))]
pub struct ShownRating {
    pub rater: String,
    /// On the scale of the classes as they were imported.
    pub score: f64,
    pub file: String,
    /// Line of JSON Lines and CSV, else number of the record, from 1.
    pub record: u64,
    /// Which answer of the record; empty where it has one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub answer: String,
}

/// A label that a reward model finds unlikely: a candidate for noise.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(utoipa::ToSchema))]
pub struct UnlikelyLabel {
    /// Number of the row in the task, from 1.
    pub row: usize,
    pub split: String,
    pub prompt: String,
    pub response: String,
    pub objective: String,
    pub class: usize,
    /// Name of the class.
    pub name: String,
    /// What the reward model gives the label.
    pub probability: f64,
    /// The class that it expects, a mean.
    pub expected: f64,
    /// Question and answer as the reward model reads them.
    pub read: Reading,
}

/// Which rows are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RowFilter {
    /// Rows that fit and are passed over.
    pub from: usize,
    pub limit: usize,
    /// Of one split alone: 0 for training, 1 for validation, 2 for test.
    pub split: Option<usize>,
    /// Rows alone whose raters chose different classes.
    pub disagreed: bool,
}

/// Quantiles of lengths: 0, 25, 50, 75, 95 and 100 %.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(utoipa::ToSchema))]
pub struct Lengths {
    pub quantiles: [usize; 6],
    /// Rows that are longer than the context.
    pub over: u64,
}

/// How far raters agree on an objective.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(utoipa::ToSchema))]
pub struct Agreement {
    pub id: String,
    /// Rows that several raters labelled.
    pub rows: u64,
    pub raters: usize,
    /// Krippendorff's alpha of the scores.
    pub alpha: Option<f64>,
    /// Mean quadratic weighted kappa of two raters, over pairs who labelled ten rows in common.
    pub kappa: Option<f64>,
}

/// Two objectives side by side.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(utoipa::ToSchema))]
pub struct Together {
    pub ids: [String; 2],
    /// Rows by the first's class, then the second's.
    pub counts: Vec<Vec<u64>>,
    /// Rank correlation of the two labels.
    pub spearman: f64,
}

/// Nearly the same prompt in two splits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(utoipa::ToSchema))]
pub struct NearDuplicate {
    pub prompts: [String; 2],
    pub splits: [String; 2],
    /// Share of pieces of five letters that both have, of those that either has.
    pub similarity: f64,
}

/// What can be said of a task's rows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(utoipa::ToSchema))]
pub struct TaskStatistics {
    pub name: String,
    pub rows: u64,
    pub prompts: u64,
    pub splits: [u64; 3],
    pub labels: Vec<LabelCounts>,
    pub together: Vec<Together>,
    pub agreement: Vec<Agreement>,
    /// What lengths are counted in.
    pub unit: String,
    pub prompt_lengths: Lengths,
    pub row_lengths: Lengths,
    /// Tokens that a model reads at most, if that was asked for.
    pub context: Option<usize>,
    /// Pairs of prompts that are nearly the same, in different splits; and the first of them.
    pub near_duplicates: u64,
    pub nearest: Vec<NearDuplicate>,
}

/// An objective of a task after its changes.
#[derive(Debug, Clone, PartialEq)]
pub struct Shaped {
    /// Position among the objectives as they were imported.
    pub imported: usize,
    pub objective: Objective,
    pub bins: Bins,
}

impl RatingsTask {
    /// The objectives after all changes.
    ///
    /// # Errors
    /// When a change does not fit what those before it left; the message names it.
    pub fn shaped(&self) -> Result<Vec<Shaped>, String> {
        let own = self.objectives.iter().enumerate().map(|(imported, o)| Shaped {
            imported,
            objective: o.objective.clone(),
            bins: Bins::of(o.objective.class_count(), o.agree),
        });
        if self.changes.len() > MOST_CHANGES {
            return Err(format!("changes: there are {}; allowed are {MOST_CHANGES}", self.changes.len()));
        }
        self.changes.iter().enumerate().try_fold(own.collect(), |shaped: Vec<Shaped>, (n, change)| {
            change.applied(shaped).map_err(|e| format!("changes[{n}]: {e}"))
        })
    }
}

impl Change {
    fn objective(&self) -> &str {
        match self {
            Self::Merge { objective, .. }
            | Self::RenameClass { objective, .. }
            | Self::Rename { objective, .. }
            | Self::Rebin { objective, .. }
            | Self::Agree { objective, .. }
            | Self::HigherIsBetter { objective, .. }
            | Self::Leave { objective } => objective,
        }
    }

    /// What it calls things.
    fn names(&self) -> Vec<&str> {
        match self {
            Self::Merge { name, .. } | Self::RenameClass { name, .. } | Self::Rename { name, .. } => vec![name],
            Self::Rebin { classes, .. } => classes.iter().map(String::as_str).collect(),
            _ => Vec::new(),
        }
    }

    /// `shaped` after the change.
    ///
    /// # Errors
    /// When it names an objective or a class that is not there, or too few classes would be left.
    pub fn applied(&self, mut shaped: Vec<Shaped>) -> Result<Vec<Shaped>, String> {
        let id = self.objective();
        let known = || shaped.iter().map(|s| s.objective.id.as_str()).collect::<Vec<_>>().join(", ");
        let place = shaped.iter().position(|s| s.objective.id == id);
        let at = place.ok_or_else(|| format!("there is no objective {id:.64}; there are {}", known()))?;
        if let Some(name) = self.names().into_iter().find(|name| name.chars().count() > LONGEST_NAME) {
            return Err(format!("the name {name:.20}… has more than {LONGEST_NAME} characters"));
        }
        let last = shaped.len() == 1;
        let Shaped { objective, bins, .. } = &mut shaped[at];
        let n = objective.class_count();
        let class = |c: usize| if c < n { Ok(c) } else { Err(format!("{id} has classes 0 to {}, not {c}", n - 1)) };
        match self {
            Self::Merge { from, to, name, .. } => {
                let (from, to) = (class(*from)?, class(*to)?);
                if from >= to {
                    return Err(format!("classes {from} to {to} are not several"));
                }
                if n - (to - from) < 2 {
                    return Err(format!("of {id}'s {n} classes fewer than two would be left"));
                }
                bins.edges.drain(from..to);
                objective.classes.splice(from..=to, [name.clone()]);
                objective.wordings.clear();
            }
            Self::RenameClass { class: at, name, .. } => objective.classes[class(*at)?] = name.clone(),
            Self::Rename { name, .. } => objective.name = name.clone(),
            Self::Rebin { edges, classes, .. } => {
                let rising = edges.windows(2).all(|w| w[0] < w[1]) && edges.iter().all(|e| e.is_finite());
                if edges.is_empty() || edges.len() > 31 || !rising {
                    return Err("edges: 1 to 31 rising numbers are needed".into());
                }
                if classes.len() != edges.len() + 1 {
                    return Err(format!("{} edges make {} classes, not {}", edges.len(), edges.len() + 1, classes.len()));
                }
                bins.edges = edges.clone();
                objective.classes = classes.clone();
                objective.wordings.clear();
            }
            Self::Agree { agree, .. } => bins.agree = *agree,
            Self::HigherIsBetter { yes, .. } => objective.higher_is_better = *yes,
            Self::Leave { .. } if last => return Err(format!("{id} is the last objective")),
            Self::Leave { .. } => {
                shaped.remove(at);
            }
        }
        Ok(shaped)
    }
}

#[cfg(test)]
mod tests;
