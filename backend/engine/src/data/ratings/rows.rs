//! Rows of imported tasks as they are kept: a Parquet file, which other software reads, too.

use super::kept::{KeptRow, SPLITS};
use anyhow::{Context, Result, bail, ensure};
use moslim_shared::objective::Objective;
use parquet::basic::Compression;
use parquet::column::writer::ColumnWriter;
use parquet::data_type::ByteArray;
use parquet::file::properties::WriterProperties;
use parquet::file::reader::{ChunkReader, FileReader, SerializedFileReader};
use parquet::file::writer::SerializedFileWriter;
use parquet::record::{Row, RowAccessor};
use parquet::schema::parser::parse_message_type;
use parquet::schema::types::{ColumnPath, Type};
use std::io::Write;
use std::sync::Arc;

/// Columns before those of labels.
const COLUMNS: [&str; 5] = ["prompt", "response", "split", "origins", "ratings"];
/// Rows that are written together.
const GROUP: usize = 4_096;

fn schema(objectives: &[Objective]) -> Result<Type> {
    let texts = COLUMNS.map(|name| format!("required binary {name} (UTF8);"));
    let labels = objectives.iter().map(|o| format!("optional int32 label_{};", o.id));
    let all: Vec<String> = texts.into_iter().chain(labels).collect();
    Ok(parse_message_type(&format!("message rows {{ {} }}", all.join(" ")))?)
}

/// Writes rows, some at a time.
pub struct KeptWriter<W: Write + Send> {
    writer: SerializedFileWriter<W>,
    waiting: Vec<(KeptRow, Vec<Option<usize>>)>,
    labels: usize,
}

impl<W: Write + Send> KeptWriter<W> {
    /// Begins a file.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn new(to: W, objectives: &[Objective]) -> Result<Self> {
        // Texts hardly repeat: no dictionary for them.
        let long = ["prompt", "response", "origins"].map(ColumnPath::from);
        let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).set_created_by("moslim-lab".into());
        let properties = long.into_iter().fold(properties, |p, column| p.set_column_dictionary_enabled(column, false));
        let writer = SerializedFileWriter::new(to, Arc::new(schema(objectives)?), Arc::new(properties.build()))?;
        Ok(Self { writer, waiting: Vec::new(), labels: objectives.len() })
    }

    /// Adds a row, with a class for each objective.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn add(&mut self, row: KeptRow, labels: Vec<Option<usize>>) -> Result<()> {
        self.waiting.push((row, labels));
        if self.waiting.len() >= GROUP { self.write() } else { Ok(()) }
    }

    fn write(&mut self) -> Result<()> {
        let rows = std::mem::take(&mut self.waiting);
        if rows.is_empty() {
            return Ok(());
        }
        let mut group = self.writer.next_row_group()?;
        let json = |v: &dyn Fn(&KeptRow) -> serde_json::Result<Vec<u8>>| -> Result<Vec<ByteArray>> {
            Ok(rows.iter().map(|(row, _)| v(row).map(ByteArray::from)).collect::<serde_json::Result<_>>()?)
        };
        let text = |v: &dyn Fn(&KeptRow) -> &str| rows.iter().map(|(row, _)| ByteArray::from(v(row))).collect();
        let texts: [Vec<ByteArray>; 5] = [
            text(&|r| &r.prompt),
            text(&|r| &r.response),
            text(&|r| SPLITS[r.split]),
            json(&|r| serde_json::to_vec(&r.origins))?,
            json(&|r| serde_json::to_vec(&r.ratings))?,
        ];
        for n in 0..COLUMNS.len() + self.labels {
            let Some(mut column) = group.next_column()? else { bail!("the file has too few columns") };
            match column.untyped() {
                ColumnWriter::ByteArrayColumnWriter(writer) => {
                    writer.write_batch(&texts[n], None, None)?;
                }
                ColumnWriter::Int32ColumnWriter(writer) => {
                    let own: Vec<Option<usize>> = rows.iter().map(|(_, labels)| labels[n - COLUMNS.len()]).collect();
                    let values: Vec<i32> = own.iter().flatten().map(|&c| c as i32).collect();
                    let there: Vec<i16> = own.iter().map(|c| i16::from(c.is_some())).collect();
                    writer.write_batch(&values, Some(&there), None)?;
                }
                _ => bail!("a column has another type"),
            }
            column.close()?;
        }
        group.close()?;
        Ok(())
    }

    /// Ends the file.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn finish(mut self) -> Result<()> {
        self.write()?;
        self.writer.close()?;
        Ok(())
    }
}

/// Reads all rows, one after the other.
///
/// # Errors
/// When the file is damaged, or `each` ends it.
pub fn read_rows(from: impl ChunkReader + 'static, mut each: impl FnMut(KeptRow) -> Result<()>) -> Result<()> {
    let reader = SerializedFileReader::new(from)?;
    let schema = reader.metadata().file_metadata().schema().clone();
    let names: Vec<&str> = schema.get_fields().iter().take(COLUMNS.len()).map(|f| f.name()).collect();
    ensure!(names == COLUMNS, "its columns are {}, and should begin with {}", names.join(", "), COLUMNS.join(", "));
    let fields = schema.get_fields()[..COLUMNS.len()].to_vec();
    let projected = Type::group_type_builder(schema.name()).with_fields(fields).build()?;
    for (n, row) in reader.get_row_iter(Some(projected))?.enumerate() {
        let read = || -> Result<KeptRow> { kept(&row?) };
        each(read().with_context(|| format!("row {}", n + 1))?)?;
    }
    Ok(())
}

fn kept(row: &Row) -> Result<KeptRow> {
    let split = row.get_string(2)?;
    Ok(KeptRow {
        prompt: row.get_string(0)?.clone(),
        response: row.get_string(1)?.clone(),
        split: SPLITS.iter().position(|s| s == split).with_context(|| format!("its split is {split:?}"))?,
        origins: serde_json::from_str(row.get_string(3)?)?,
        ratings: serde_json::from_str(row.get_string(4)?)?,
    })
}

#[cfg(test)]
mod tests {
    use super::super::kept::{KeptRating, Origin};
    use super::*;
    use parquet::record::Field;

    fn row(n: usize) -> KeptRow {
        KeptRow {
            prompt: format!("Question {}?", n / 2),
            response: format!("Answer {n}, \u{1F375}"),
            split: n % 3,
            origins: vec![Origin { file: 0, record: n as u64 + 1, answer: String::new() }],
            ratings: vec![KeptRating { objective: 1, rater: "r".into(), score: 1.5, origin: 0 }; n % 2],
        }
    }

    #[test]
    fn rows_are_written_and_read_and_other_software_sees_labels() {
        let objectives = [Objective::new("a", "A", "", &["0", "1"]), Objective::new("b", "B", "", &["0", "1"])];
        let mut bytes = Vec::new();
        let mut writer = KeptWriter::new(&mut bytes, &objectives).unwrap();
        let rows: Vec<KeptRow> = (0..GROUP + 3).map(row).collect();
        for (n, row) in rows.iter().enumerate() {
            writer.add(row.clone(), vec![Some(n % 2), (n % 3 == 0).then_some(1)]).unwrap();
        }
        writer.finish().unwrap();
        let file = bytes::Bytes::from(bytes);
        let mut got = Vec::new();
        read_rows(file.clone(), |row| {
            got.push(row);
            Ok(())
        })
        .unwrap();
        assert_eq!(got, rows);
        let all: Vec<Row> =
            SerializedFileReader::new(file.clone()).unwrap().get_row_iter(None).unwrap().map(Result::unwrap).collect();
        let label = |n: usize| all[n].get_column_iter().skip(5).map(|(_, f)| f.clone()).collect::<Vec<_>>();
        assert_eq!((label(3), label(4)), (vec![Field::Int(1), Field::Int(1)], vec![Field::Int(0), Field::Null]));
        // A damaged file is an error.
        assert!(read_rows(file.slice(..file.len() / 2), |_| Ok(())).is_err());
    }
}
