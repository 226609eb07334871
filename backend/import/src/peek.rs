//! What a file has in it, so that a person can write a mapping: every path of its first records with an example, and a mapping to begin
//! with.

use crate::datum::Datum;
use crate::dialogue::messages;
use crate::mapping::{Format, OPEN};
use crate::path::{Path, Step};
use crate::pick::Wanted;
use crate::records::read;
use anyhow::{Result, bail};
use std::fmt::Write;

/// Records that are looked at.
const LOOKED_AT: usize = 100;
/// Most different values of a column that may be classes.
const MOST_VALUES: usize = 12;
/// What a list of messages is called.
const CONVERSATION: &str = "a conversation";
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
    /// The least and the largest, where all values are numbers.
    pub range: Option<[f64; 2]>,
    /// Records that have it, of those that were looked at.
    pub records: usize,
}

/// What a file has in it.
#[derive(Debug, Clone, PartialEq)]
pub struct Peek {
    /// In a JSON file, the entry that is the list of records.
    pub list: Option<Path>,
    pub columns: Vec<Column>,
}

/// What a file's first records have in them.
///
/// # Errors
/// When it cannot be read.
pub fn peek(path: &std::path::Path, format: Format) -> Result<Peek> {
    let (columns, records, first) = columns(path, format, None)?;
    // An object around the list of records is no record.
    if format == Format::Json
        && records == 1
        && let Some(key) = first.as_ref().and_then(only_list)
    {
        let list = Path(vec![Step::Key(key)]);
        let (columns, ..) = self::columns(path, format, Some(&list))?;
        return Ok(Peek { list: Some(list), columns });
    }
    Ok(Peek { list: None, columns })
}

/// The key of the one list of objects in an object.
fn only_list(record: &Datum) -> Option<String> {
    let Datum::Object(all) = record else { return None };
    let objects =
        |v: &Datum| matches!(v, Datum::List(list) if list.len() > 1 && list.iter().all(|v| matches!(v, Datum::Object(_))));
    let mut lists = all.iter().filter(|(_, v)| objects(v));
    let (key, _) = lists.next()?;
    lists.next().is_none().then(|| key.clone())
}

/// Columns of the first records, how many records were looked at, and the first.
fn columns(path: &std::path::Path, format: Format, list: Option<&Path>) -> Result<(Vec<Column>, usize, Option<Datum>)> {
    let mut columns: Vec<Column> = Vec::new();
    let (mut seen, mut first) = (0, None);
    let everything = Wanted::everything();
    let enough = "enough was seen";
    let mut sink = |n: u64, record: Result<Datum, crate::records::Defect>| -> Result<()> {
        match record {
            Ok(record) => {
                let mut own = Vec::new();
                walk(&record, &mut Vec::new(), &mut own);
                own.into_iter().for_each(|(path, value)| note(&mut columns, path, value));
                first.get_or_insert(record);
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
        _ => Ok((columns, seen, first)),
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
        // A conversation is one value.
        Datum::List(list) if !list.is_empty() && messages(value).is_ok() => out.push((Path(at.clone()), value)),
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
    let talk = messages(value).ok().filter(|turns| !turns.is_empty());
    let said = match &talk {
        Some(turns) => turns.iter().map(|t| format!("{}: {}", t.speaker.role(), t.text)).collect::<Vec<_>>().join(" "),
        None => value.text().unwrap_or_default(),
    };
    let kind = if talk.is_some() { CONVERSATION } else { value.kind() };
    let at = columns.iter().position(|c| c.path == path).unwrap_or_else(|| {
        columns.push(Column { path, kind, example: String::new(), values: Some(Vec::new()), range: None, records: 0 });
        columns.len() - 1
    });
    let column = &mut columns[at];
    column.range = match (value.number(), column.range, column.records) {
        (Some(n), Some([low, high]), _) => Some([low.min(n), high.max(n)]),
        (Some(n), None, 0) => Some([n, n]),
        // A cell without a number says nothing of the others.
        (None, range, _) if said.is_empty() => range,
        (Some(n), None, _) if column.example.is_empty() => Some([n, n]),
        _ => None,
    };
    column.records += 1;
    if column.example.is_empty() && !said.is_empty() {
        (column.example, column.kind) = (short(&said), kind);
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

/// Widest range of numbers that may be grades.
const WIDEST: f64 = 10.0;

impl Column {
    /// The whole numbers between which its values are, if they may be grades.
    fn grades(&self) -> Option<[i64; 2]> {
        let [low, high] = self.range?.map(|n| n as i64 as f64);
        let [least, most] = self.range?;
        let high = if most > high { high + 1.0 } else { high };
        let low = if least < low { low - 1.0 } else { low };
        (high > low && high - low <= WIDEST).then_some([low as i64, high as i64])
    }

    /// Its name as the id of an objective.
    fn id(&self) -> Option<String> {
        let key = self.path.0.iter().rev().find_map(|s| if let Step::Key(k) = s { Some(k) } else { None })?;
        let plain: String = key.to_lowercase().chars().map(|c| if c.is_ascii_alphanumeric() { c } else { ' ' }).collect();
        let id: String = plain.split_whitespace().collect::<Vec<_>>().join("_").chars().take(36).collect();
        if id.starts_with(|c: char| c.is_ascii_digit()) { Some(format!("o_{id}")) } else { (!id.is_empty()).then_some(id) }
    }

    /// Its path where the answer's has `stars` stars: what is beyond these is all of them.
    fn bound(&self, stars: usize) -> String {
        let mut left = stars;
        let step = |step: &Step| match step {
            Step::Answer if left == 0 => Step::All,
            Step::Answer => {
                left -= 1;
                Step::Answer
            }
            other => other.clone(),
        };
        Path(self.path.0.iter().map(step).collect()).to_string()
    }
}

/// A mapping to begin with: guesses which columns are prompt, answer and labels. What it guesses, a person has to look at.
pub fn skeleton(peek: &Peek) -> String {
    let columns = &peek.columns;
    let texts = || columns.iter().filter(|c| ["a text", CONVERSATION].contains(&c.kind) && c.values.is_none());
    let named = |words: &[&str]| {
        let last = |c: &Column| c.path.to_string().to_lowercase();
        words.iter().find_map(|w| texts().find(|c| last(c).contains(w)))
    };
    let prompt = named(&[
        "prompt",
        "instruction",
        "question",
        "query",
        "input",
        "article",
        "source",
        "conversation",
        "messages",
        "dialog",
        "body",
    ]);
    let response =
        named(&["response", "answer", "completion", "output", "summar", "reply", "text", "generat", "candidate", "out"]);
    let response = response
        .filter(|r| prompt.is_none_or(|p| p.path != r.path))
        .or_else(|| texts().find(|c| prompt.is_none_or(|p| p.path != c.path)));
    let mut out = String::from("# Look at every line: what stands here was guessed.\ntitle = \"\"\nlicence = \"\"\n");
    let stars = response.map_or(0, |c| c.path.answers());
    let line = |name: &str, column: Option<&Column>| {
        let path = column.map_or(OPEN.into(), |c| c.bound(stars));
        format!("{name} = {}\n", quoted(&path))
    };
    out += &peek.list.iter().map(|list| format!("records = {}\n", quoted(&list.to_string()))).collect::<String>();
    out += &line("prompt", prompt);
    out += &line("response", response);
    let mut known: Vec<String> = Vec::new();
    for column in columns {
        let Some(id) = column.id().filter(|id| !known.contains(id)) else { continue };
        let labels = column.bound(stars);
        if let Some([low, high]) = column.grades() {
            let _ = write!(out, "\n[[objectives]]\nid = \"{id}\"\nlabel = {}\nrange = [{low}, {high}]\n", quoted(&labels));
        } else if let Some(values) =
            column.values.as_ref().filter(|v| (2..=MOST_VALUES).contains(&v.len()) && column.range.is_none())
        {
            let mut values: Vec<String> =
                values.iter().map(|v| if column.kind == "true or false" { v.clone() } else { quoted(v) }).collect();
            values.sort_unstable();
            let values = values.join(", ");
            let label = quoted(&labels);
            let _ = write!(out, "\n[[objectives]]\nid = \"{id}\"\nlabel = {label}\n# Lowest class first.\nvalues = [{values}]\n");
        } else {
            continue;
        }
        known.push(id);
    }
    out
}

/// A text in TOML.
fn quoted(text: &str) -> String {
    let acts = |c: char| c == '\'' || c.is_control();
    if text.contains(['"', '\\']) && !text.contains(acts) {
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
                n.is_multiple_of(2)
            )
        };
        std::fs::write(&file, (0..200).map(line).collect::<String>()).unwrap();
        let seen = peek(&file, Format::Jsonl).unwrap();
        let said: Vec<String> = seen.columns.iter().map(|c| format!("{} {}", c.path, c.kind)).collect();
        assert_eq!(
            said,
            ["question a text", "answers.*.text a text", "answers.*.score a number", "answers.*.ok true or false", "id a text"]
        );
        let text = skeleton(&seen);
        let mapping = Mapping::parse(&text).unwrap_or_else(|e| panic!("{e}\n{text}"));
        assert_eq!((mapping.response.to_string().as_str(), mapping.objectives.len()), ("answers.*.text", 2));
        assert_eq!(mapping.objectives[0].range, Some([1, 3]));
    }

    #[test]
    fn a_text_of_a_mapping_does_nothing_to_a_terminal() {
        for text in ["a\"\u{1b}[2Jb", "a\u{7f}\\b", "\u{1b}", "plain", "a\"b", "it's \"so\""] {
            let written = quoted(text);
            assert!(!written.contains(char::is_control), "{written:?}");
            let read: toml::Table = toml::from_str(&format!("text = {written}")).unwrap();
            assert_eq!(read["text"].as_str(), Some(text));
        }
    }

    #[test]
    fn an_object_around_the_records_and_raters_in_lists_are_seen() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("x.json");
        let item = |n: usize| {
            format!(
                "{{\"body\": \"A long text about the matter, of {n} lines or so.\", \"of\": {{\"a\": {{\"out\": \"A summary of {n} words that nobody reads.\", \
                 \"marks\": [{}, 2.5]}}, \"b\": {{\"out\": \"Another, {n} words long, which is better.\", \"marks\": [1, 3]}}}}, \"talk\": [{{\"role\": \
                 \"user\", \"content\": \"Hi {n}\"}}]}}",
                n % 3
            )
        };
        let all: Vec<String> = (0..20).map(item).collect();
        std::fs::write(&file, format!("{{\"version\": 1, \"items\": [{}]}}", all.join(","))).unwrap();
        let seen = peek(&file, Format::Json).unwrap();
        assert_eq!(seen.list.as_ref().map(ToString::to_string).as_deref(), Some("items"));
        let said: Vec<String> = seen.columns.iter().map(|c| format!("{} {}", c.path, c.kind)).collect();
        assert_eq!(said, ["body a text", "of.*.out a text", "of.*.marks.* a number", "talk a conversation"]);
        let text = skeleton(&seen);
        let mapping = Mapping::parse(&text).unwrap_or_else(|e| panic!("{e}\n{text}"));
        assert_eq!((mapping.response.to_string().as_str(), mapping.objectives[0].range), ("of.*.out", Some([0, 2])));
        assert_eq!(mapping.objectives[0].label.as_ref().unwrap().to_string(), "of.*.marks.@");
    }
}
