//! What a file has in it, so that a person can write a mapping: every path of its first records with an example, and a mapping to begin
//! with.

use crate::datum::Datum;
use crate::mapping::Format;
use crate::path::{Path, Step};
use crate::pick::Wanted;
use crate::records::read;
use anyhow::{Result, bail};
use std::fmt::Write;

/// Records that are looked at.
const LOOKED_AT: usize = 100;
/// Most different values of a column that may be classes.
const MOST_VALUES: usize = 12;
/// Longest example, letters.
const LONGEST: usize = 60;

/// A path with what is there.
#[derive(Debug, Clone, PartialEq)]
pub struct Column {
    pub path: Path,
    pub kind: &'static str,
    pub example: String,
    /// Different values, as long as they are few and short.
    pub values: Option<Vec<String>>,
    /// Records that have it, of those that were looked at.
    pub records: usize,
}

/// The columns of a file's first records.
///
/// # Errors
/// When it cannot be read.
pub fn peek(path: &std::path::Path, format: Format, list: Option<&Path>) -> Result<Vec<Column>> {
    let mut columns: Vec<Column> = Vec::new();
    let mut seen = 0;
    let everything = Wanted::everything();
    let enough = "enough was seen";
    let mut sink = |n: u64, record: Result<Datum, crate::records::Defect>| -> Result<()> {
        match record {
            Ok(record) => {
                let mut own = Vec::new();
                walk(&record, &mut Vec::new(), &mut own);
                own.into_iter().for_each(|(path, value)| note(&mut columns, path, value));
            }
            Err(defect) if seen == 0 => bail!("record {n}: {defect}"),
            Err(_) => {}
        }
        seen += 1;
        if seen < LOOKED_AT { Ok(()) } else { bail!(enough) }
    };
    let end = read(path, format, list, &everything, &mut |_| Ok(()), &mut sink);
    match end {
        Err(e) if e.to_string() != enough => Err(e),
        _ => Ok(columns),
    }
}

/// Leaves of a value, with their paths; of a list the first entry stands for all.
fn walk<'a>(value: &'a Datum, at: &mut Vec<Step>, out: &mut Vec<(Path, &'a Datum)>) {
    let mut into = |step: Step, value: &'a Datum, at: &mut Vec<Step>| {
        at.push(step);
        walk(value, at, out);
        at.pop();
    };
    match value {
        Datum::Object(all) => {
            // Entries that are alike are answers or raters, and one stands for all.
            let alike = all.len() > 1 && all.iter().all(|(_, v)| matches!(v, Datum::Object(_)) && keys(v) == keys(&all[0].1));
            if alike {
                into(Step::Answer, &all[0].1, at);
            } else {
                all.iter().for_each(|(key, v)| into(Step::Key(key.clone()), v, at));
            }
        }
        Datum::List(list) => list.iter().take(1).for_each(|v| into(Step::Answer, v, at)),
        leaf => out.push((Path(at.clone()), leaf)),
    }
}

fn keys(value: &Datum) -> Vec<&str> {
    match value {
        Datum::Object(all) => all.iter().map(|(k, _)| k.as_str()).collect(),
        _ => Vec::new(),
    }
}

fn note(columns: &mut Vec<Column>, path: Path, value: &Datum) {
    let short = |text: &str| {
        let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
        if line.chars().count() > LONGEST { line.chars().take(LONGEST).chain("...".chars()).collect() } else { line }
    };
    let said = value.text().unwrap_or_default();
    let at = columns.iter().position(|c| c.path == path).unwrap_or_else(|| {
        columns.push(Column { path, kind: value.kind(), example: String::new(), values: Some(Vec::new()), records: 0 });
        columns.len() - 1
    });
    let column = &mut columns[at];
    column.records += 1;
    if column.example.is_empty() && !said.is_empty() {
        (column.example, column.kind) = (short(&said), value.kind());
    }
    if let Some(values) = &mut column.values
        && !said.is_empty()
        && !values.contains(&said)
    {
        values.push(said);
        if values.len() > MOST_VALUES || values.iter().any(|v| v.len() > 30) {
            column.values = None;
        }
    }
}

impl Column {
    /// Its few values as numbers, in order, if they are whole ones.
    fn numbers(&self) -> Option<Vec<i64>> {
        let values = self.values.as_ref().filter(|v| v.len() > 1)?;
        let mut out: Vec<i64> = values.iter().map(|v| v.parse().ok()).collect::<Option<_>>()?;
        out.sort_unstable();
        Some(out)
    }
}

/// A mapping to begin with: guesses which columns are prompt, answer and labels. What it guesses, a person has to look at.
pub fn skeleton(columns: &[Column]) -> String {
    let texts = || columns.iter().filter(|c| c.kind == "a text" && c.values.is_none());
    let named = |words: &[&str]| {
        let last = |c: &Column| c.path.to_string().to_lowercase();
        words.iter().find_map(|w| texts().find(|c| last(c).contains(w)))
    };
    let prompt = named(&["prompt", "instruction", "question", "query", "input", "article", "source"]);
    let response = named(&["response", "answer", "completion", "output", "summar", "reply", "text"]);
    let response = response.or_else(|| texts().find(|c| prompt.is_none_or(|p| p.path != c.path)));
    let mut out = String::from("# Look at every line: what stands here was guessed.\ntitle = \"\"\nlicence = \"\"\n");
    let line = |name: &str, column: Option<&Column>| {
        let path = column.map_or("?".into(), |c| c.path.to_string());
        format!("{name} = {}\n", quoted(&path))
    };
    out += &line("prompt", prompt);
    out += &line("response", response);
    for column in columns {
        let id: String = match column.path.0.iter().rev().find_map(|s| if let Step::Key(k) = s { Some(k) } else { None }) {
            Some(key) => key.to_lowercase().chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect(),
            None => continue,
        };
        let path = quoted(&column.path.to_string());
        if let Some(numbers) = column.numbers() {
            let (low, high) = (numbers[0], numbers[numbers.len() - 1]);
            let _ = write!(out, "\n[[objectives]]\nid = \"{id}\"\nlabel = {path}\nrange = [{low}, {high}]\n");
        } else if let Some(values) = column.values.as_ref().filter(|v| (2..=MOST_VALUES).contains(&v.len())) {
            let mut values: Vec<String> =
                values.iter().map(|v| if column.kind == "true or false" { v.clone() } else { quoted(v) }).collect();
            values.sort_unstable();
            let _ = write!(
                out,
                "\n[[objectives]]\nid = \"{id}\"\nlabel = {path}\n# Lowest class first.\nvalues = [{}]\n",
                values.join(", ")
            );
        }
    }
    out
}

/// A text in TOML.
fn quoted(text: &str) -> String {
    if text.contains(['"', '\\']) && !text.contains(['\'', '\n']) {
        format!("'{text}'")
    } else {
        toml::Value::String(text.into()).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Mapping;

    #[test]
    fn a_file_is_looked_at_and_a_mapping_guessed() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("x.jsonl");
        let line = |n: usize| {
            format!(
                "{{\"question\": \"How do I make tea number {n}, please, in the shortest time?\", \"answers\": [{{\"text\": \"Boil water \
                 first, then pour it over {n} leaves, wait, and drink.\", \"score\": {}, \"ok\": {}}}], \"id\": \"row-{n}\"}}\n",
                n % 3 + 1,
                n % 2 == 0
            )
        };
        std::fs::write(&file, (0..200).map(line).collect::<String>()).unwrap();
        let columns = peek(&file, Format::Jsonl, None).unwrap();
        let said: Vec<String> = columns.iter().map(|c| format!("{} {}", c.path, c.kind)).collect();
        assert_eq!(
            said,
            ["question a text", "answers.*.text a text", "answers.*.score a number", "answers.*.ok true or false", "id a text"]
        );
        let text = skeleton(&columns);
        let mapping = Mapping::parse(&text).unwrap_or_else(|e| panic!("{e}\n{text}"));
        assert_eq!((mapping.response.to_string().as_str(), mapping.objectives.len()), ("answers.*.text", 2));
        assert_eq!(mapping.objectives[0].range, Some([1, 3]));
    }
}
