//! Imported tasks: their rows and what can be counted of them, for the command line and the API.

use crate::folder::DataFolder;
use anyhow::{Context, Result, ensure};
use moslim_engine::data::ratings::kept::{KeptRow, SPLITS};
use moslim_engine::data::ratings::{labels, rows, scores, shaped};
use moslim_engine::keep::models::Models;
use moslim_engine::keep::write_atomically;
use moslim_engine::run::Scorer;
use moslim_engine::text::tokenizer;
use moslim_import::Mapping;
use moslim_import::mapping::ObjectiveMapping;
use moslim_import::path::{Path, Step};
use moslim_import::stats::{Measure, statistics};
use moslim_shared::distribution::expected_class;
use moslim_shared::inference::{Pair, Reading};
use moslim_shared::objective::Objective;
use moslim_shared::ratings::{
    ImportedObjective, RatingsTask, RowFilter, Shaped, ShownLabel, ShownRating, ShownRow, TaskStatistics, UnlikelyLabel,
};
use serde_json::{Map, json};
use std::io::Write;
use std::path::{Path as FilePath, PathBuf};

impl DataFolder {
    /// Rows of an imported task, with every rater's label and where it stands.
    ///
    /// # Errors
    /// When the rows are missing or damaged.
    pub fn task_rows(&self, task: &RatingsTask, filter: &RowFilter) -> Result<Vec<ShownRow>> {
        let shaped = shaped(task)?;
        let (mut n, mut fit, mut shown) = (0, 0, Vec::new());
        rows(task, &|path| self.read(path), |row| {
            n += 1;
            let differs = |s: &Shaped| s.bins.votes(&scores(&row, s.imported)).iter().filter(|v| **v > 0).count() > 1;
            if filter.split.is_none_or(|s| s == row.split) && (!filter.disagreed || shaped.iter().any(differs)) {
                fit += 1;
                if fit > filter.from && shown.len() < filter.limit {
                    shown.push(shown_row(n, row, task, &shaped));
                }
            }
            Ok(())
        })?;
        Ok(shown)
    }

    /// What can be counted of an imported task; lengths in tokens of `model`, else in words.
    ///
    /// # Errors
    /// When the rows are missing or damaged, or there is no such model.
    pub fn task_statistics(&self, task: &RatingsTask, model: Option<&str>, context: Option<usize>) -> Result<TaskStatistics> {
        let words = |text: &str| text.split_whitespace().count();
        let of = |name: &str| {
            let (_, files) = Models::of(self.root()).open(name)?;
            tokenizer(&files.tokenizer, files.architecture.vocabulary)
        };
        let own = model.map(of).transpose()?;
        let tokens = |text: &str| own.as_ref().and_then(|t| t.encode(text, false).ok()).map_or(0, |e| e.get_ids().len());
        let measure: Measure = if own.is_some() { &tokens } else { &words };
        let unit = model.map_or("words".to_string(), |name| format!("tokens of {name}"));
        statistics(task, &|path| self.read(path), (&unit, measure, context))
    }
}

fn shown_row(n: usize, row: KeptRow, task: &RatingsTask, shaped: &[Shaped]) -> ShownRow {
    let classes = labels(&row, shaped);
    let rating = |r: &moslim_engine::data::ratings::kept::KeptRating| {
        let origin = &row.origins[r.origin];
        let file = task.report.files.get(origin.file as usize).map(|f| f.name.clone()).unwrap_or_default();
        ShownRating { rater: r.rater.clone(), score: r.score, file, record: origin.record, answer: origin.answer.clone() }
    };
    let label = |(shaped, class): (&Shaped, &Option<usize>)| ShownLabel {
        objective: shaped.objective.id.clone(),
        class: *class,
        name: class.map(|c| shaped.objective.classes[c].clone()),
        ratings: row.ratings.iter().filter(|r| r.objective == shaped.imported).map(rating).collect(),
    };
    let labels = shaped.iter().zip(&classes).map(label).collect();
    ShownRow { row: n, split: SPLITS[row.split].into(), prompt: row.prompt.clone(), response: row.response.clone(), labels }
}

/// Rows that are graded together.
const TOGETHER: usize = 256;

impl DataFolder {
    /// The `n` labels of a task that a reward model finds the least likely, the least likely first; and how many rows are too long for it.
    ///
    /// # Errors
    /// When the rows are missing or damaged, or none of the task's objectives is one of the reward model's.
    pub fn task_noise(&self, task: &RatingsTask, scorer: &Scorer, n: usize) -> Result<(Vec<UnlikelyLabel>, usize)> {
        let shaped = shaped(task)?;
        let heads: Vec<Option<usize>> = shaped.iter().map(|s| head_of(scorer.objectives(), &s.objective)).collect();
        ensure!(
            heads.iter().any(Option::is_some),
            "run: its reward model has none of the task's objectives, with the same classes"
        );
        let mut all = Vec::new();
        rows(task, &|path| self.read(path), |row| {
            let labels = labels(&row, &shaped);
            all.push((row.split, row.prompt, row.response, labels));
            Ok(())
        })?;
        let (mut found, mut long) = (Vec::new(), 0);
        for (chunk, part) in all.chunks(TOGETHER).enumerate() {
            let pair =
                |(_, prompt, response, _): &(_, String, String, _)| Pair { prompt: prompt.clone(), response: response.clone() };
            let pairs: Vec<Pair> = part.iter().map(pair).collect();
            // One row that is too long fails the whole chunk.
            let scored: Vec<Option<_>> = match scorer.score(&pairs, None) {
                Ok(scored) => scored.into_iter().map(Some).collect(),
                Err(_) => {
                    pairs.iter().map(|pair| scorer.score(std::slice::from_ref(pair), None).ok()?.into_iter().next()).collect()
                }
            };
            for (at, (scored, (split, prompt, response, labels))) in scored.into_iter().zip(part).enumerate() {
                let Some(scored) = scored else {
                    long += 1;
                    continue;
                };
                for ((shaped, head), class) in shaped.iter().zip(&heads).zip(labels) {
                    let (Some(head), Some(class)) = (*head, *class) else { continue };
                    let p = &scored.distributions[head];
                    found.push(UnlikelyLabel {
                        row: chunk * TOGETHER + at + 1,
                        split: SPLITS[*split].into(),
                        prompt: prompt.clone(),
                        response: response.clone(),
                        objective: shaped.objective.id.clone(),
                        class,
                        name: shaped.objective.classes[class].clone(),
                        probability: p[class],
                        expected: expected_class(p),
                        read: Reading::default(),
                    });
                }
            }
        }
        found.sort_by(|a, b| a.probability.total_cmp(&b.probability));
        found.truncate(n);
        // Of those that are told, and of no others: there may be very many.
        for label in &mut found {
            label.read = scorer.reading(&Pair { prompt: label.prompt.clone(), response: label.response.clone() })?;
        }
        Ok((found, long))
    }
}

/// Position of the same objective, with as many classes.
fn head_of(known: &[Objective], wanted: &Objective) -> Option<usize> {
    known.iter().position(|o| o.id == wanted.id && o.class_count() == wanted.class_count())
}

/// A text that no table calculates: a cell that begins like a formula gets a quote before it.
pub fn harmless(cell: &str) -> String {
    if cell.starts_with(['=', '+', '-', '@', '\t', '\r']) { format!("'{cell}") } else { cell.into() }
}

/// A cell of CSV.
fn cell(text: &str) -> String {
    format!("\"{}\"", harmless(text).replace('"', "\"\""))
}

impl DataFolder {
    /// Writes an imported task as JSON Lines, or as CSV where the file is called so, and a mapping beside it with which it is imported
    /// again. Returns the mapping's file. Classes are those of the import.
    ///
    /// # Errors
    /// When the rows are missing or damaged, or a file cannot be written.
    pub fn export_task(&self, task: &RatingsTask, to: &FilePath) -> Result<PathBuf> {
        let table = to.extension().is_some_and(|e| e.eq_ignore_ascii_case("csv"));
        let ids: Vec<&str> = task.objectives.iter().map(|o| o.objective.id.as_str()).collect();
        let mut out = Vec::new();
        if table {
            writeln!(out, "prompt,response,split,rater,{}", ids.join(","))?;
        }
        rows(task, &|path| self.read(path), |row| {
            if table {
                let mut raters: Vec<&str> = row.ratings.iter().map(|r| r.rater.as_str()).collect();
                raters.sort_unstable();
                raters.dedup();
                for rater in raters {
                    let own = |n: usize| row.ratings.iter().find(|r| r.objective == n && r.rater == rater);
                    let labels: Vec<String> =
                        (0..ids.len()).map(|n| own(n).map_or(String::new(), |r| r.score.to_string())).collect();
                    let texts = [&row.prompt, &row.response, SPLITS[row.split], rater].map(cell);
                    writeln!(out, "{},{}", texts.join(","), labels.join(","))?;
                }
                return Ok(());
            }
            let mut ratings = Map::new();
            for rating in &row.ratings {
                let own = ratings.entry(ids[rating.objective]).or_insert_with(|| json!({}));
                let own = own.as_object_mut().context("ratings are an object")?;
                // The same name twice is another rating.
                let name = |n: usize| if n == 1 { rating.rater.clone() } else { format!("{}#{n}", rating.rater) };
                let free = (1..).map(name).find(|name| !own.contains_key(name)).unwrap_or_default();
                own.insert(free, json!(rating.score));
            }
            let record = json!({"prompt": row.prompt, "response": row.response, "split": SPLITS[row.split], "ratings": ratings});
            Ok(writeln!(out, "{record}")?)
        })?;
        let mapping = to.with_extension("toml");
        write_atomically(to, &out).with_context(|| format!("writing {}", to.display()))?;
        write_atomically(&mapping, again(task, table).written().as_bytes())
            .with_context(|| format!("writing {}", mapping.display()))?;
        Ok(mapping)
    }
}

/// The mapping with which an export is imported again.
fn again(task: &RatingsTask, table: bool) -> Mapping {
    let objective = |imported: &ImportedObjective| {
        let id = imported.objective.id.as_str();
        let mut label = if table { Path::of_keys(&[id]) } else { Path::of_keys(&["ratings", id]) };
        label.0.extend((!table).then_some(Step::All));
        ObjectiveMapping::of_classes(&imported.objective, label, imported.agree)
    };
    Mapping {
        title: task.title.clone(),
        licence: task.licence.clone(),
        prompt: Some(Path::of_keys(&["prompt"])),
        response: Path::of_keys(&["response"]),
        rater: table.then(|| Path::of_keys(&["rater"])),
        objectives: task.objectives.iter().map(objective).collect(),
        ..Mapping::default()
    }
}
