//! Files as records: JSON Lines, JSON, CSV and Parquet, one record after the other.

use crate::datum::Datum;
use crate::mapping::Format;
use crate::path::{Path, Step};
use crate::pick::Wanted;
use crate::source::{Fenced, LONGEST_RECORD, Source, plain_name};
use anyhow::{Context, Result, anyhow, ensure};
use moslim_engine::keep::models::checksum;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::Field;
use parquet::schema::types::Type;
use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use std::cell::Cell;
use std::fmt;
use std::fs::File;
use std::io::{BufRead, Read as _};
use std::rc::Rc;

/// What is wrong with a record, or with a part of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{detail}", .column.as_ref().map_or(String::new(), |c| format!("{c}: ")))]
pub struct Defect {
    /// Which column, as the mapping calls it.
    pub column: Option<String>,
    /// In a few words, the same for all such records.
    pub reason: &'static str,
    pub detail: String,
}

impl Defect {
    /// A defect of a whole record.
    pub fn of(reason: &'static str, detail: impl Into<String>) -> Self {
        Self { column: None, reason, detail: detail.into() }
    }

    /// A defect of a column.
    pub fn at(column: impl ToString, reason: &'static str, detail: impl Into<String>) -> Self {
        Self { column: Some(column.to_string()), reason, detail: detail.into() }
    }
}

/// What takes records: their number in the file (lines of JSON Lines and CSV, else records; from 1), and the record or what is wrong
/// with it. It may end the reading.
pub type Sink<'a> = dyn FnMut(u64, Result<Datum, Defect>) -> Result<()> + 'a;

/// The format that a file's name tells.
pub fn format_of(path: &std::path::Path) -> Option<Format> {
    let name = plain_name(path);
    let (_, end) = name.rsplit_once('.')?;
    Some(match end {
        "jsonl" | "ndjson" => Format::Jsonl,
        "json" => Format::Json,
        "csv" => Format::Csv,
        "tsv" => Format::Tsv,
        "parquet" => Format::Parquet,
        _ => return None,
    })
}

/// Reads a file, record after record, and returns its SHA-256. `list`: where the list of records is in a JSON file. `each` is told the
/// bytes read so far.
///
/// # Errors
/// When the file cannot be read or is damaged, or `sink` ends it.
pub fn read(
    path: &std::path::Path,
    format: Format,
    list: Option<&Path>,
    wanted: &Wanted,
    each: &mut dyn FnMut(u64) -> Result<()>,
    sink: &mut Sink,
) -> Result<String> {
    if format == Format::Parquet {
        return read_parquet(path, wanted, each, sink);
    }
    let mut source = Source::open(path)?;
    let position = source.position();
    let mut sink = |n: u64, record: Result<Datum, Defect>| {
        if n.is_multiple_of(1024) {
            each(position.get())?;
        }
        sink(n, record)
    };
    match format {
        Format::Jsonl => read_lines(&mut source.reader, wanted, &mut sink)?,
        Format::Json => read_json(&mut source.reader, list, wanted, &mut sink)?,
        Format::Csv => {
            let delimiter = delimiter(source.reader.fill_buf().with_context(|| format!("reading {}", path.display()))?);
            read_csv(&mut source.reader, delimiter, wanted, &mut sink)?;
        }
        Format::Tsv => read_csv(&mut source.reader, b'\t', wanted, &mut sink)?,
        Format::Parquet => unreachable!("read above"),
    }
    Ok(source.finish()?)
}

/// A line without its end, at most so long; `false` for one that is longer, which is passed over. `None` at the end.
fn next_line(from: &mut dyn BufRead, line: &mut Vec<u8>) -> std::io::Result<Option<bool>> {
    line.clear();
    let read = from.take(LONGEST_RECORD + 1).read_until(b'\n', line)?;
    if read == 0 {
        return Ok(None);
    }
    if line.last() == Some(&b'\n') {
        line.pop();
        return Ok(Some(true));
    }
    if (line.len() as u64) <= LONGEST_RECORD {
        return Ok(Some(true));
    }
    // Passed over piece by piece, so that nothing of it is kept.
    line.clear();
    loop {
        let buffer = from.fill_buf()?;
        let (n, ended) = match buffer.iter().position(|&b| b == b'\n') {
            Some(at) => (at + 1, true),
            None => (buffer.len(), buffer.is_empty()),
        };
        from.consume(n);
        if ended {
            return Ok(Some(false));
        }
    }
}

fn read_lines(from: &mut dyn BufRead, wanted: &Wanted, sink: &mut Sink) -> Result<()> {
    let mut line = Vec::new();
    for n in 1.. {
        let Some(whole) = next_line(from, &mut line).with_context(|| format!("in line {n}"))? else { break };
        let text = if n == 1 { line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&line) } else { &line };
        let text = text.trim_ascii();
        if !whole {
            let most = LONGEST_RECORD >> 20;
            sink(
                n,
                Err(Defect::of(
                    "a line that is too long",
                    format!("the line is longer than {most} MiB, the most that is allowed"),
                )),
            )?;
        } else if !text.is_empty() {
            sink(n, wanted.parse(text).map_err(|e| not_json(&e)))?;
        }
    }
    Ok(())
}

fn not_json(e: &serde_json::Error) -> Defect {
    // Where in the line; which line is told beside it.
    let text = e.to_string();
    let what = text.split(" at line ").next().unwrap_or(&text);
    Defect::of("not JSON", format!("is not JSON: {what} at byte {}", e.column()))
}

/// Goes down to the list of records, and hands on one after the other.
struct Descend<'a, 'b> {
    path: &'a [Step],
    wanted: &'a Wanted,
    sink: &'a mut Sink<'b>,
    since: &'a Rc<Cell<u64>>,
    count: &'a mut u64,
    failed: &'a mut Option<anyhow::Error>,
}

impl Descend<'_, '_> {
    fn take<E: serde::de::Error>(&mut self, record: Datum) -> Result<(), E> {
        self.since.set(0);
        *self.count += 1;
        (self.sink)(*self.count, Ok(record)).map_err(|e| {
            *self.failed = Some(e);
            E::custom("stopped")
        })
    }
}

impl<'de> DeserializeSeed<'de> for Descend<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Descend<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self.path.first() {
            Some(Step::Key(key)) => write!(f, "an object with the entry {key:?}, in which the records are"),
            _ => f.write_str("a list of objects, or one"),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut from: A) -> Result<(), A::Error> {
        if !self.path.is_empty() {
            return Err(A::Error::invalid_type(serde::de::Unexpected::Seq, &self));
        }
        while let Some(record) = from.next_element_seed(self.wanted)? {
            self.take(record)?;
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut from: A) -> Result<(), A::Error> {
        let Some((step, rest)) = self.path.split_first() else {
            let record = self.wanted.visit_map(from)?;
            return self.take(record);
        };
        let key = match step {
            Step::Key(key) => key.clone(),
            Step::Index(n) => n.to_string(),
            _ => return Err(A::Error::custom("records: a path to a list has neither * nor @")),
        };
        let mut found = false;
        while let Some(own) = from.next_key::<String>()? {
            if own == key && !found {
                found = true;
                let Descend { wanted, sink, since, count, failed, .. } = &mut self;
                from.next_value_seed(Descend { path: rest, wanted, sink: *sink, since, count, failed })?;
            } else {
                from.next_value::<IgnoredAny>()?;
            }
        }
        if found { Ok(()) } else { Err(A::Error::custom(format!("records: there is no entry {key:?}"))) }
    }
}

fn read_json(from: &mut dyn BufRead, list: Option<&Path>, wanted: &Wanted, sink: &mut Sink) -> Result<()> {
    let fenced = Fenced::new(from);
    let since = fenced.since.clone();
    let (mut count, mut failed) = (0, None);
    let mut json = serde_json::Deserializer::from_reader(std::io::BufReader::new(fenced));
    let path = list.map_or(&[][..], |p| &p.0);
    let read = Descend { path, wanted, sink, since: &since, count: &mut count, failed: &mut failed }.deserialize(&mut json);
    if let Some(stopped) = failed {
        return Err(stopped);
    }
    read.and_then(|()| json.end()).map_err(|e| anyhow!("after {count} records it is not JSON: {e}"))
}

/// What stands between the columns of a table: of comma, semicolon, tab and bar the one that its first line has most often outside quotes.
fn delimiter(begun: &[u8]) -> u8 {
    let line = begun.split(|&b| b == b'\n').next().unwrap_or_default();
    let mut quoted = false;
    let mut counts = [(b',', 0), (b';', 0), (b'\t', 0), (b'|', 0)];
    for &byte in line {
        quoted ^= byte == b'"';
        counts.iter_mut().filter(|(d, _)| *d == byte && !quoted).for_each(|(_, n)| *n += 1);
    }
    // Of several as frequent, the first.
    counts.into_iter().rev().max_by_key(|(_, n)| *n).map_or(b',', |(d, _)| d)
}

fn read_csv(from: &mut dyn BufRead, delimiter: u8, wanted: &Wanted, sink: &mut Sink) -> Result<()> {
    let fenced = Fenced::new(from);
    let since = fenced.since.clone();
    let mut csv = csv::ReaderBuilder::new().delimiter(delimiter).flexible(true).from_reader(fenced);
    let header: Vec<String> = {
        let header = csv.byte_headers().context("in the header")?;
        let text = |cell: &[u8]| String::from_utf8(cell.strip_prefix(b"\xef\xbb\xbf").unwrap_or(cell).to_vec());
        header.iter().map(text).collect::<Result<_, _>>().context("in line 1, the header")?
    };
    for (n, name) in header.iter().enumerate() {
        ensure!(!header[..n].contains(name), "in line 1, the header: the column {name:?} is there twice");
    }
    for key in wanted.first_keys() {
        let known = header.join(", ");
        ensure!(header.iter().any(|h| h == key), "in line 1, the header: there is no column {key:?}; there are {known}");
    }
    let columns: Vec<Option<&Wanted>> = header.iter().map(|name| wanted.of_key(name)).collect();
    let mut record = csv::ByteRecord::new();
    loop {
        since.set(0);
        let line = csv.position().line();
        if !csv.read_byte_record(&mut record).with_context(|| format!("in line {line}"))? {
            return Ok(());
        }
        let line = record.position().map_or(line, csv::Position::line);
        if record.len() != header.len() {
            let detail = format!("the row has {} columns and the header {}", record.len(), header.len());
            sink(line, Err(Defect::of("another number of columns", detail)))?;
            continue;
        }
        let mut out = Vec::new();
        let mut wrong = None;
        for ((name, cell), wanted) in header.iter().zip(&record).zip(&columns) {
            let Some(wanted) = wanted else { continue };
            match std::str::from_utf8(cell) {
                Ok("") => out.push((name.clone(), Datum::Null)),
                Ok(text) => out.push((name.clone(), wanted.of_text(text))),
                Err(e) => {
                    let detail = format!("byte {} is not UTF-8", e.valid_up_to() + 1);
                    wrong.get_or_insert(Defect::at(name, "not UTF-8", detail));
                }
            }
        }
        sink(line, wrong.map_or(Ok(Datum::Object(out)), Err))?;
    }
}

fn read_parquet(
    path: &std::path::Path,
    wanted: &Wanted,
    each: &mut dyn FnMut(u64) -> Result<()>,
    sink: &mut Sink,
) -> Result<String> {
    let of = || format!("reading {}", path.display());
    let bytes = std::fs::metadata(path).with_context(of)?.len();
    let reader = guarded(|| Ok(SerializedFileReader::new(File::open(path)?)?)).with_context(of)?;
    let schema = reader.metadata().file_metadata().schema().clone();
    let names: Vec<String> = schema.get_fields().iter().map(|f| f.name().to_string()).collect();
    for key in wanted.first_keys() {
        ensure!(names.iter().any(|n| n == key), "there is no column {key:?}; there are {}", names.join(", "));
    }
    let fields = schema.get_fields().iter().filter(|f| wanted.of_key(f.name()).is_some()).cloned().collect();
    let projected = Type::group_type_builder(schema.name()).with_fields(fields).build().with_context(of)?;
    let rows = reader.metadata().file_metadata().num_rows().max(1) as u64;
    let mut n = 0;
    let mut stopped = None;
    guarded(|| {
        for row in reader.get_row_iter(Some(projected.clone()))? {
            n += 1;
            let row = row.map_err(|e| anyhow!("in row {n}: {e}"))?;
            let record = Datum::Object(
                row.get_column_iter().map(|(name, field)| (name.clone(), datum(field, wanted.of_key(name)))).collect(),
            );
            let told = if n % 1024 == 0 { each((bytes as f64 * (n as f64 / rows as f64)) as u64) } else { Ok(()) };
            if let Err(e) = told.and_then(|()| sink(n, Ok(record))) {
                stopped = Some(e);
                return Ok(());
            }
        }
        Ok(())
    })
    .with_context(of)?;
    if let Some(e) = stopped {
        return Err(e);
    }
    checksum(path, |_| Ok(()))
}

/// What `what` does with a library that may panic on a damaged file; that is no reason for us to.
fn guarded<T>(what: impl FnOnce() -> Result<T>) -> Result<T> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(what)).unwrap_or_else(|_| Err(anyhow!("the file is damaged")))
}

fn datum(field: &Field, wanted: Option<&Wanted>) -> Datum {
    match field {
        Field::Null => Datum::Null,
        Field::Bool(b) => Datum::Bool(*b),
        Field::Str(text) => wanted.map_or_else(|| Datum::Text(text.clone()), |w| w.of_text(text)),
        Field::Group(row) => Datum::Object(
            row.get_column_iter().map(|(name, f)| (name.clone(), datum(f, wanted.and_then(|w| w.of_key(name))))).collect(),
        ),
        Field::ListInternal(list) => {
            Datum::List(list.elements().iter().map(|f| datum(f, wanted.and_then(Wanted::of_each))).collect())
        }
        Field::MapInternal(map) => {
            let key = |f: &Field| datum(f, None).text().unwrap_or_default();
            Datum::Object(map.entries().iter().map(|(k, v)| (key(k), datum(v, wanted.and_then(Wanted::of_each)))).collect())
        }
        Field::Bytes(bytes) => Datum::Text(String::from_utf8_lossy(bytes.data()).into_owned()),
        // Numbers of every width, and dates, which no label is.
        other => match other.to_json_value() {
            serde_json::Value::Number(n) => n.as_f64().map_or(Datum::Null, Datum::Number),
            serde_json::Value::String(text) => Datum::Text(text),
            _ => Datum::Null,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_tells_what_stands_between_its_columns() {
        let of = |line: &str| delimiter(format!("{line}\na;b;c;d;e;f\n").as_bytes()) as char;
        assert_eq!([of("a,b"), of("a;b"), of("a\tb,c\td"), of("a|b|c"), of("a")], [',', ';', '\t', '|', ',']);
        assert_eq!(of("\"a;b;c\",d"), ',');
    }
}
