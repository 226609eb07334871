//! Mappings: which column of a file is what. A mapping is a TOML file; docs/data.md tells how to write one, and static/mappings has
//! those of known data sets.

use crate::path::Path;
use moslim_shared::objective::Objective;
use moslim_shared::ratings::{Agree, Change};
use serde::{Deserialize, Serialize};

/// Formats of files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// One JSON object a line.
    Jsonl,
    /// One JSON text: a list of objects, one object, or an object with a list in it.
    Json,
    /// Comma-separated values with a header.
    Csv,
    /// The same with tabs.
    Tsv,
    Parquet,
}

/// How a conversation is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Dialogue {
    /// One text with a mark before every turn.
    Transcript,
    /// A list of messages with a role and a content.
    Messages,
}

/// What stands before the turns of a transcript.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Turns {
    pub user: String,
    pub assistant: String,
}

impl Default for Turns {
    fn default() -> Self {
        Self { user: "\n\nHuman: ".into(), assistant: "\n\nAssistant: ".into() }
    }
}

/// A number, a text or a truth value in a mapping.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Plain {
    Bool(bool),
    Number(f64),
    Text(String),
}

/// What one objective is read from.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ObjectiveMapping {
    /// Lower-case letters, digits and `_`.
    pub id: String,
    /// Name for people; else made of the id.
    pub name: String,
    pub description: String,
    /// Where the label is. An `@` in it makes each entry one rater's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<Path>,
    /// Labels are numbers from the first to the second, a class each.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub range: Option<[i64; 2]>,
    /// Or these values, lowest class first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<Plain>,
    /// Or numbers between these edges: below the first is class 0, from the last on the highest.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub edges: Vec<f64>,
    /// The label is how many of the entries that it leads to are true, put between `edges` or into `range`.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub count: bool,
    /// Of two answers, which one of `each` was preferred: it gets class 1, the other class 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preferred: Option<String>,
    /// The same, where the record says which.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preferred_at: Option<Path>,
    /// Values that mean that there is no label.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<Plain>,
    /// The lowest value is the highest class.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub reverse: bool,
    /// Names of the classes, lowest first; else what they are read from.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub classes: Vec<String>,
    /// New classes for what the labels of several raters make together, on the scale of the classes: from each of these on begins the
    /// next, and they are called `bin_names`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub bins: Vec<f64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub bin_names: Vec<String>,
    /// Less is better.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub lower_is_better: bool,
    pub raters: Agree,
    /// How each class is asked for in words, as [`Objective::wordings`].
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub wordings: Vec<Vec<String>>,
}

/// Which column of a file is what.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Mapping {
    /// What is imported, for people.
    pub title: String,
    pub licence: String,
    /// The data set on the hub that it was written for, `owner/name`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub hub: String,
    /// Of that, the files to fetch where none is named; `*` stands for any characters.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<String>,
    /// Else told from the file's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub format: Option<Format>,
    /// In a JSON file, where the list of records is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub records: Option<Path>,
    /// Where the prompt is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt: Option<Path>,
    /// Or a text with paths in braces.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub prompt_template: String,
    /// What stands between the entries of an `@` in the prompt.
    pub join: String,
    /// Where the answer is. With a `*`, a record has several; with `{each}`, one for each of `each`.
    pub response: Path,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub each: Vec<String>,
    /// The response is a whole conversation, whose last turn is the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dialogue: Option<Dialogue>,
    /// The prompt is a transcript, with these marks; or the marks of the dialogue.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub turns: Option<Turns>,
    /// Where the rater's name is: of the record, or with an `@` of every label.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rater: Option<Path>,
    /// An answer that is there again with the same labels was rated by another person, and is no duplicate.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub repeated_is_rated_again: bool,
    pub objectives: Vec<ObjectiveMapping>,
}

/// Stands for one of [`Mapping::each`].
pub const EACH: &str = "{each}";
/// Most answers that a record names one by one, and most paths in the template of a prompt.
const MOST_EACH: usize = 64;
const MOST_PARTS: usize = 64;
/// Longest mapping, bytes: one with all the objectives, classes and wordings that there may be fits.
const LONGEST: usize = 256 << 10;
/// Most objectives, and most classes of one.
pub const MOST_OBJECTIVES: usize = 64;
pub const MOST_CLASSES: usize = 32;

/// Stands in a mapping where a person has to say which column it is.
pub const OPEN: &str = "?";

impl Mapping {
    /// Reads a mapping.
    ///
    /// # Errors
    /// When it is no TOML, has a field that is not known, or does not make sense; the message names line or field, and what is allowed.
    pub fn parse(toml: &str) -> Result<Self, String> {
        if toml.len() > LONGEST {
            return Err(format!("a mapping has at most {LONGEST} bytes; this one has {}", toml.len()));
        }
        let mapping: Self = toml::from_str(toml).map_err(|e| e.to_string().trim().to_string())?;
        for (field, path) in [("prompt", mapping.prompt.as_ref()), ("response", Some(&mapping.response))] {
            if path.is_some_and(|path| path.to_string() == OPEN) {
                return Err(format!(
                    "{field}: is still \"{OPEN}\"; name the column, or the path into the records, that holds it"
                ));
            }
        }
        mapping.check()?;
        Ok(mapping)
    }

    /// The mapping as TOML.
    pub fn written(&self) -> String {
        toml::to_string(self).expect("a mapping is TOML")
    }

    /// What stands between joined entries.
    pub fn between(&self) -> &str {
        if self.join.is_empty() { "\n\n" } else { &self.join }
    }

    /// The paths in braces of the prompt's template, with the text before each, and the text at the end.
    ///
    /// # Errors
    /// When a brace does not end, or holds no path.
    pub fn template(&self) -> Result<(Vec<(String, Path)>, String), String> {
        let (mut parts, mut rest) = (Vec::new(), self.prompt_template.as_str());
        while let Some((before, after)) = rest.split_once('{') {
            let Some((path, after)) = after.split_once('}') else {
                return Err("prompt_template: has a brace that does not end".into());
            };
            parts.push((before.to_string(), path.parse().map_err(|e| format!("prompt_template: {e}"))?));
            rest = after;
        }
        Ok((parts, rest.to_string()))
    }

    /// Every path that it reads from a record.
    pub fn paths(&self) -> Vec<Path> {
        let own = [Some(&self.response), self.prompt.as_ref(), self.rater.as_ref()].into_iter().flatten().cloned();
        let template = self.template().map(|(parts, _)| parts).unwrap_or_default().into_iter().map(|(_, path)| path);
        let labels = self.objectives.iter().flat_map(|o| [o.label.clone(), o.preferred_at.clone()]).flatten();
        let all = own.chain(template).chain(labels);
        if self.each.is_empty() {
            return all.collect();
        }
        all.flat_map(|path| self.each.iter().map(move |n| path.filled(EACH, n)).collect::<Vec<_>>()).collect()
    }

    fn check(&self) -> Result<(), String> {
        let need = |ok: bool, message: String| if ok { Ok(()) } else { Err(message) };
        // First how much there is: what follows is done for all of it.
        let (n, parts) = (self.objectives.len(), self.prompt_template.matches('{').count());
        need((1..=MOST_OBJECTIVES).contains(&n), format!("objectives: has {n}; allowed are 1 to {MOST_OBJECTIVES}"))?;
        need(self.each.len() <= MOST_EACH, format!("each: has {} names; allowed are {MOST_EACH}", self.each.len()))?;
        need(parts <= MOST_PARTS, format!("prompt_template: has {parts} braces; allowed are {MOST_PARTS}"))?;
        need(!self.response.0.is_empty(), "response: is missing; it says where the answer is".into())?;
        let prompts = usize::from(self.prompt.is_some()) + usize::from(!self.prompt_template.is_empty());
        need(
            prompts == usize::from(self.dialogue.is_none()),
            if self.dialogue.is_some() {
                "prompt: is not for dialogues, whose prompt is everything before the last turn".into()
            } else {
                "prompt: one of prompt and prompt_template is needed".into()
            },
        )?;
        self.template()?;
        let stars = self.response.answers();
        need(!self.response.has_all(), "response: has an @; * stands for each of several answers".into())?;
        let uses_each = self.response.to_string().contains(EACH);
        need(
            self.each.is_empty() != uses_each,
            format!("each: has {} names; they stand where the response says {EACH}", self.each.len()),
        )?;
        for path in self.paths() {
            need(path.answers() <= stars, format!("the path {path} has more * than the response, {}", self.response))?;
        }
        if let Some(turns) = &self.turns {
            need(!turns.assistant.is_empty() && !turns.user.is_empty(), "turns: user and assistant must not be empty".into())?;
        }
        for (at, o) in self.objectives.iter().enumerate() {
            o.check(&self.each).map_err(|e| {
                format!("objectives[{at}]{}: {e}", if o.id.is_empty() { String::new() } else { format!(" ({})", o.id) })
            })?;
            let twice = self.objectives[..at].iter().any(|other| other.id == o.id);
            need(!twice, format!("objectives: {} is there twice", o.id))?;
        }
        Ok(())
    }

    /// What is done to the classes from the beginning.
    pub fn changes(&self) -> Vec<Change> {
        let binned = self.objectives.iter().filter(|o| !o.bins.is_empty());
        let change =
            |o: &ObjectiveMapping| Change::Rebin { objective: o.id.clone(), edges: o.bins.clone(), classes: o.bin_names.clone() };
        binned.map(change).collect()
    }

    /// The objectives of the task.
    pub fn task_objectives(&self) -> Vec<Objective> {
        self.objectives.iter().map(ObjectiveMapping::objective).collect()
    }
}

impl ObjectiveMapping {
    /// What reads an objective whose labels are its classes' numbers, at `label`.
    pub fn of_classes(objective: &Objective, label: Path, raters: Agree) -> Self {
        let Objective { id, name, description, classes, higher_is_better, wordings } = objective.clone();
        Self {
            id,
            name,
            description,
            label: Some(label),
            range: Some([0, classes.len() as i64 - 1]),
            classes,
            lower_is_better: !higher_is_better,
            raters,
            wordings,
            ..Self::default()
        }
    }

    fn check(&self, each: &[String]) -> Result<(), String> {
        let need = |ok: bool, message: String| if ok { Ok(()) } else { Err(message) };
        let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        let id = &self.id;
        need(
            !id.is_empty() && id.len() <= 40 && id.chars().all(good) && id.starts_with(|c: char| c.is_ascii_lowercase()),
            format!("id is \"{id}\"; allowed are 1 to 40 lower-case letters, digits and _, a letter first"),
        )?;
        let pairwise = usize::from(self.preferred.is_some()) + usize::from(self.preferred_at.is_some());
        let read = usize::from(self.label.is_some());
        need(pairwise + read == 1, "one of label, preferred and preferred_at is needed".into())?;
        let kinds =
            usize::from(self.range.is_some()) + usize::from(!self.values.is_empty()) + usize::from(!self.edges.is_empty());
        need(
            kinds == read,
            if read == 1 {
                "one of range, values and edges is needed: it says which labels there are".into()
            } else {
                "range, values and edges are for labels; of two answers one is class 1 and one class 0".into()
            },
        )?;
        if let Some([low, high]) = self.range {
            let width = high.saturating_sub(low);
            need(
                (1..MOST_CLASSES as i64).contains(&width),
                format!("range is {low} to {high}; allowed are 2 to {MOST_CLASSES} classes"),
            )?;
        }
        let rising = self.edges.windows(2).all(|w| w[0] < w[1]) && self.edges.iter().all(|e| e.is_finite());
        need(rising, "edges must rise".into())?;
        let n = self.class_count();
        need((2..=MOST_CLASSES).contains(&n), format!("has {n} classes; allowed are 2 to {MOST_CLASSES}"))?;
        let named = self.classes.len();
        need(named == 0 || named == n, format!("classes has {named} names for {n} classes"))?;
        let bins = (self.bins.len(), self.bin_names.len());
        need(
            bins == (0, 0) || bins.0 + 1 == bins.1,
            format!("bins has {} edges and bin_names {} names; one more is needed", bins.0, bins.1),
        )?;
        need(self.bins.windows(2).all(|w| w[0] < w[1]) && self.bins.len() < MOST_CLASSES, "bins must rise".into())?;
        let worded = self.wordings.len();
        need(
            worded == 0 || (worded == n && self.wordings.iter().all(|w| !w.is_empty())),
            format!("wordings has {worded} lists for {n} classes"),
        )?;
        if let Some(preferred) = &self.preferred {
            need(
                each.contains(preferred),
                format!("preferred is \"{preferred}\"; allowed are the names in each: {}", each.join(", ")),
            )?;
        }
        need(self.preferred_at.is_none() || each.len() == 2, "preferred_at needs two names in each".into())?;
        need(
            !self.count || self.label.as_ref().is_some_and(Path::has_all),
            "count needs a label with an @: it counts entries".into(),
        )
    }

    /// How many classes it has.
    pub fn class_count(&self) -> usize {
        match (self.range, self.values.len(), self.edges.len()) {
            (Some([low, high]), ..) => usize::try_from(high.saturating_sub(low)).unwrap_or(0).saturating_add(1),
            (None, 0, 0) => 2,
            (None, 0, edges) => edges + 1,
            (None, values, _) => values,
        }
    }

    fn objective(&self) -> Objective {
        let n = self.class_count();
        let words = self.id.replace('_', " ");
        let capital = words.chars().next().map_or(String::new(), |c| c.to_uppercase().chain(words.chars().skip(1)).collect());
        let read = |class: usize| match (self.range, self.values.get(class)) {
            (Some([low, _]), _) => (low + class as i64).to_string(),
            (_, Some(Plain::Text(text))) => text.clone(),
            (_, Some(Plain::Number(n))) => n.to_string(),
            (_, Some(Plain::Bool(b))) => if *b { "yes" } else { "no" }.into(),
            _ if self.edges.is_empty() => ["not preferred", "preferred"][class.min(1)].into(),
            _ => match (class.checked_sub(1).and_then(|c| self.edges.get(c)), self.edges.get(class)) {
                (None, Some(to)) => format!("below {to}"),
                (Some(from), Some(to)) => format!("{from} to {to}"),
                (from, None) => format!("from {}", from.copied().unwrap_or_default()),
            },
        };
        let mut classes: Vec<String> = (0..n).map(read).collect();
        if self.reverse {
            classes.reverse();
        }
        Objective {
            id: self.id.clone(),
            name: if self.name.is_empty() { capital } else { self.name.clone() },
            description: self.description.clone(),
            classes: if self.classes.is_empty() { classes } else { self.classes.clone() },
            higher_is_better: !self.lower_is_better,
            wordings: self.wordings.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: &str = "prompt = \"p\"\nresponse = \"r\"\n[[objectives]]\nid = \"a\"\nlabel = \"l\"\nrange = [1, 3]\n";

    #[test]
    fn a_mapping_is_read_and_says_what_is_wrong_with_it() {
        let mapping = Mapping::parse(PLAIN).unwrap();
        let objective = &mapping.task_objectives()[0];
        assert_eq!(
            (objective.name.as_str(), objective.classes.as_slice()),
            ("A", &["1".to_string(), "2".into(), "3".into()][..])
        );
        for (from, to, words) in [
            ("prompt = \"p\"", "", "one of prompt and prompt_template"),
            ("prompt = \"p\"", "prompt = \"p\"\ndialogue = \"transcript\"", "is not for dialogues"),
            ("prompt = \"p\"", "prompt_template = \"{p\"", "a brace that does not end"),
            ("response = \"r\"", "", "response: is missing"),
            ("response = \"r\"", "response = \"r.@\"", "* stands for each"),
            ("response = \"r\"", "response = \"r_{each}\"", "each: has 0 names"),
            ("response = \"r\"", "response = \"r\"\neach = [\"0\", \"1\"]", "each: has 2 names"),
            (
                "response = \"r\"",
                &format!("response = \"r_{{each}}\"\neach = {:?}", vec!["n"; 65]),
                "each: has 65 names; allowed are 64",
            ),
            ("prompt = \"p\"", &format!("prompt_template = \"{}\"", "{p}".repeat(65)), "has 65 braces; allowed are 64"),
            (
                "[[objectives]]",
                &("[[objectives]]\nid = \"x\"\n".repeat(64) + "[[objectives]]"),
                "objectives: has 65; allowed are 1 to 64",
            ),
            ("label = \"l\"", "label = \"l.*\"", "more * than the response"),
            ("label = \"l\"", "labels = \"l\"", "labels"),
            ("label = \"l\"", "", "one of label, preferred"),
            ("label = \"l\"", "label = \"l\"\ncount = true", "count needs a label with an @"),
            ("range = [1, 3]", "", "one of range, values and edges"),
            ("range = [1, 3]", "range = [1, 1]", "2 to 32 classes"),
            ("range = [1, 3]", "range = [-9223372036854775808, 9223372036854775807]", "2 to 32 classes"),
            ("range = [1, 3]", "edges = [2.0, 1.0]", "edges must rise"),
            ("range = [1, 3]", "range = [1, 3]\nclasses = [\"x\"]", "1 names for 3 classes"),
            ("id = \"a\"", "id = \"A b\"", "lower-case letters"),
        ] {
            let text = PLAIN.replacen(from, to, 1);
            let error = Mapping::parse(&text).unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
        }
        assert!(Mapping::parse(&PLAIN.replace("[[obj", "[obj")).is_err());
    }

    #[test]
    fn classes_are_named_by_what_they_are_read_from() {
        let of =
            |rest: &str| Mapping::parse(&PLAIN.replace("range = [1, 3]", rest)).unwrap().task_objectives()[0].classes.clone();
        assert_eq!(of("edges = [1.0, 2.5]"), ["below 1", "1 to 2.5", "from 2.5"]);
        assert_eq!(of("values = [false, true]\nreverse = true"), ["yes", "no"]);
        assert_eq!(of("values = [\"low\", 2, \"high\"]"), ["low", "2", "high"]);
        assert_eq!(of("range = [0, 1]\nclasses = [\"bad\", \"good\"]"), ["bad", "good"]);
    }
}
