//! Objectives: what is graded, and into which ordered classes.

use serde::{Deserialize, Serialize};

/// One objective with its graded classes, lowest first. The number of classes differs from objective to objective.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(utoipa::ToSchema))]
pub struct Objective {
    /// Identifier used in tags, files and the API: lower-case letters, digits and `_`.
    pub id: String,
    /// Name for people.
    pub name: String,
    /// What the objective measures, in one sentence.
    pub description: String,
    /// Class labels, lowest class first; at least two.
    pub classes: Vec<String>,
    /// Whether a method that maximises everything wants the highest class; else it wants the lowest.
    #[serde(default = "yes")]
    pub higher_is_better: bool,
    /// How each class is asked for in words: several wordings, of which training uses all but the last. Empty where there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub wordings: Vec<Vec<String>>,
}

fn yes() -> bool {
    true
}

impl Objective {
    /// Makes an objective from string slices.
    pub fn new(id: &str, name: &str, description: &str, classes: &[&str]) -> Self {
        Self {
            id: id.into(),
            name: name.into(),
            description: description.into(),
            classes: classes.iter().map(|c| c.to_string()).collect(),
            higher_is_better: true,
            wordings: Vec::new(),
        }
    }

    /// The same objective with wordings of every class.
    pub fn in_words(self, wordings: &[&[&str]]) -> Self {
        Self { wordings: wordings.iter().map(|all| all.iter().map(|w| w.to_string()).collect()).collect(), ..self }
    }

    /// What asks for `class` in words: its `n`th wording, the last where there are not as many; else its name and label.
    pub fn said(&self, class: usize, n: usize) -> String {
        let own = self.wordings.get(class).and_then(|all| all.get(n).or(all.last()));
        own.cloned().unwrap_or_else(|| format!("{}: {}.", self.name, self.classes[class]))
    }

    /// Wordings of each class that training may use: all but the last.
    pub fn trained_wordings(&self) -> usize {
        self.wordings.iter().map(Vec::len).min().map_or(1, |n| n.saturating_sub(1).max(1))
    }

    /// The same objective, of which less is better.
    pub fn lower_is_better(self) -> Self {
        Self { higher_is_better: false, ..self }
    }

    /// `class` on a scale from 0 (worst) to 1 (best).
    pub fn utility(&self, class: f64) -> f64 {
        let share = class / (self.class_count() - 1) as f64;
        if self.higher_is_better { share } else { 1.0 - share }
    }

    /// The class with the highest utility.
    pub fn best_class(&self) -> usize {
        if self.higher_is_better { self.class_count() - 1 } else { 0 }
    }

    /// Number of classes `C_i`.
    pub fn class_count(&self) -> usize {
        self.classes.len()
    }

    /// The prompt tag that asks for `class`, for example `<helpfulness=3>`.
    pub fn tag(&self, class: usize) -> String {
        format!("<{}={}>", self.id, class)
    }
}

/// The tags of every class, objective after objective.
pub fn tags(objectives: &[Objective]) -> Vec<String> {
    objectives.iter().flat_map(|o| (0..o.class_count()).map(|class| o.tag(class))).collect()
}

/// Position of the objective called `id`.
pub fn index_of(objectives: &[Objective], id: &str) -> Option<usize> {
    objectives.iter().position(|o| o.id == id)
}
