//! Rows of named figures as a table: JSON, CSV, or an Arrow stream, which pandas, Polars, DuckDB and R read as it is.

use crate::tasks::harmless;
use anyhow::Result;
use arrow_array::{ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray};
use arrow_ipc::writer::StreamWriter;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use utoipa::ToSchema;

/// Columns at most: matrices that are larger are for the events themselves.
pub const MOST_COLUMNS: usize = 2_000;

/// What a table is sent as.
#[derive(Default, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Form {
    #[default]
    Json,
    Csv,
    Arrow,
}

/// Bytes of cells at most, as JSON has them, about: who wants more asks again.
const MOST_BYTES: usize = 8 << 20;
/// What a cell takes beside a text that it may have, and what one takes in which nothing is said.
const CELL: usize = 20;
const EMPTY: usize = 5;

/// A table: every row has a cell for each column, in their order; null where a row does not say. Columns are in the order in which
/// rows first name them. A table without rows has columns all the same, for software that wants some.
#[derive(Default)]
pub struct Table {
    columns: Vec<String>,
    places: HashMap<String, usize>,
    /// What each row says, by the place of its column.
    rows: Vec<Vec<(usize, Value)>>,
    /// Cells in which something is said, and their bytes.
    cells: usize,
    bytes: usize,
    /// Columns that there was no room for.
    left_out: HashSet<String>,
}

/// A table as JSON.
#[derive(Serialize)]
struct Shown<'a> {
    columns: &'a [String],
    rows: Vec<Vec<&'a Value>>,
}

impl Table {
    /// Columns of every row, there or not.
    pub const ALWAYS: [&'static str; 2] = ["seq", "time"];

    /// Adds a row.
    pub fn add(&mut self, row: Map<String, Value>) {
        let mut own = Vec::with_capacity(row.len());
        for (name, value) in row {
            let Some(place) = self.place(name) else { continue };
            self.cells += 1;
            self.bytes += CELL + value.as_str().map_or(0, str::len);
            own.push((place, value));
        }
        self.rows.push(own);
    }

    /// The place of a column, where there is room for it.
    fn place(&mut self, name: String) -> Option<usize> {
        if let Some(place) = self.places.get(&name) {
            return Some(*place);
        }
        if self.columns.len() >= MOST_COLUMNS {
            // Names without end are counted so far only.
            if self.left_out.len() < MOST_COLUMNS {
                self.left_out.insert(name);
            }
            return None;
        }
        self.bytes += name.len();
        self.columns.push(name.clone());
        self.places.insert(name, self.columns.len() - 1);
        Some(self.columns.len() - 1)
    }

    /// How many rows it has.
    pub fn count(&self) -> usize {
        self.rows.len()
    }

    /// Whether it is as large as an answer may be.
    pub fn is_full(&self) -> bool {
        let all = self.columns.len() * self.rows.len();
        self.bytes + EMPTY * (all - self.cells) >= MOST_BYTES
    }

    /// How many columns were left out, at least.
    pub fn left_out(&self) -> usize {
        self.left_out.len()
    }

    /// The table as an answer.
    ///
    /// # Errors
    /// When Arrow does not take it.
    pub fn answer(mut self, form: &Form) -> Result<Response> {
        if self.rows.is_empty() {
            self.columns = Self::ALWAYS.map(String::from).to_vec();
        }
        Ok(match form {
            Form::Json => axum::Json(Shown { columns: &self.columns, rows: self.whole() }).into_response(),
            Form::Csv => ([(header::CONTENT_TYPE, "text/csv; charset=utf-8")], self.csv()).into_response(),
            Form::Arrow => ([(header::CONTENT_TYPE, "application/vnd.apache.arrow.stream")], self.arrow()?).into_response(),
        })
    }

    /// Its rows with a cell for each column.
    fn whole(&self) -> Vec<Vec<&Value>> {
        let rows = self.rows.iter().map(|row| {
            let mut cells = vec![&Value::Null; self.columns.len()];
            row.iter().for_each(|(place, value)| cells[*place] = value);
            cells
        });
        rows.collect()
    }

    fn csv(&self) -> String {
        let mut text = self.columns.iter().map(|c| cell(&json!(c))).collect::<Vec<_>>().join(",") + "\n";
        for row in self.whole() {
            text += &row.into_iter().map(cell).collect::<Vec<_>>().join(",");
            text.push('\n');
        }
        text
    }

    /// One record batch. A column of whole numbers is Int64, of numbers Float64, of truth values Boolean, of anything else Utf8.
    fn arrow(&self) -> Result<Vec<u8>> {
        let rows = self.whole();
        let column = |n: usize| -> Vec<&Value> { rows.iter().map(|row| row[n]).collect() };
        let arrays = self.columns.iter().enumerate().map(|(n, name)| (name.as_str(), array(&column(n)), true));
        let batch = RecordBatch::try_from_iter_with_nullable(arrays)?;
        let mut writer = StreamWriter::try_new(Vec::new(), &batch.schema())?;
        writer.write(&batch)?;
        Ok(writer.into_inner()?)
    }
}

fn array(cells: &[&Value]) -> ArrayRef {
    let all = |is: fn(&Value) -> bool| cells.iter().all(|v| v.is_null() || is(v));
    if all(Value::is_i64) {
        return Arc::new(cells.iter().map(|v| v.as_i64()).collect::<Int64Array>());
    }
    if all(Value::is_number) {
        return Arc::new(cells.iter().map(|v| v.as_f64()).collect::<Float64Array>());
    }
    if all(Value::is_boolean) {
        return Arc::new(cells.iter().map(|v| v.as_bool()).collect::<BooleanArray>());
    }
    let text = |v: &Value| match v {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    };
    Arc::new(cells.iter().map(|v| text(v)).collect::<StringArray>())
}

/// A cell of CSV: numbers as they are, and texts that no table calculates.
fn cell(value: &Value) -> String {
    let text = match value {
        Value::Null => String::new(),
        Value::String(text) => harmless(text),
        other => other.to_string(),
    };
    if text.contains([',', '"', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow_array::Array;
    use arrow_array::cast::AsArray;
    use arrow_array::types::{Float64Type, Int64Type};
    use arrow_ipc::reader::StreamReader;

    #[test]
    fn what_a_table_would_calculate_is_a_text() {
        let cells = [json!(-1.5), json!("-x"), json!("a,\"b\""), json!("=1+1")].map(|value| cell(&value));
        assert_eq!(cells, ["-1.5", "'-x", "\"a,\"\"b\"\"\"", "'=1+1"]);
    }

    #[test]
    fn arrow_has_types_and_nothing_where_a_row_does_not_say() {
        let rows: Vec<Map<String, Value>> = serde_json::from_value(json!([
            {"seq": 7, "kl": 0.5, "ended": true, "note": "=1+1", "mixed": 1},
            {"seq": 8, "kl": 2, "mixed": "x", "late": -3},
        ]))
        .unwrap();
        let mut table = Table::default();
        rows.into_iter().for_each(|row| table.add(row));
        let bytes = table.arrow().unwrap();
        let mut reader = StreamReader::try_new(bytes.as_slice(), None).unwrap();
        let schema = reader.schema();
        let named = |name: &str| schema.index_of(name).unwrap();
        let batch = reader.next().unwrap().unwrap();
        assert!(reader.next().is_none() && batch.num_rows() == 2 && batch.num_columns() == 6);
        let column = |name: &str| batch.column(named(name)).clone();
        assert_eq!(column("seq").as_primitive::<Int64Type>().values(), &[7, 8]);
        assert_eq!(column("kl").as_primitive::<Float64Type>().values(), &[0.5, 2.0]);
        assert!(column("ended").as_boolean().value(0) && column("ended").is_null(1));
        assert_eq!((column("note").as_string::<i32>().value(0), column("mixed").as_string::<i32>().value(1)), ("=1+1", "x"));
        assert!(column("late").is_null(0) && column("late").as_primitive::<Int64Type>().value(1) == -3);
    }
    #[test]
    fn a_table_is_full_before_it_is_large_and_says_what_it_leaves_out() {
        let row = |row: Value| row.as_object().cloned().unwrap();
        let filled = |of: &dyn Fn(usize) -> Value| {
            let mut table = Table::default();
            while !table.is_full() {
                table.add(row(of(table.count())));
            }
            let (rows, left_out) = (table.count(), table.left_out());
            (rows, left_out, serde_json::to_vec(&Shown { columns: &table.columns, rows: table.whole() }).unwrap().len())
        };
        // Long texts; many numbers; and rows that have nothing in common, most of whose cells say nothing.
        let texts = filled(&|n| json!({ "seq": n, "text": "x".repeat(1 << 20) }));
        let numbers = filled(&|n| (0..1_000).map(|c| (format!("c{c}"), json!(n as f64 / 7.0))).collect::<Map<_, _>>().into());
        let apart = filled(&|n| json!({ (format!("column {n}")): n }));
        for (rows, _, bytes) in [texts, numbers, apart] {
            assert!(rows > 1 && (1 << 20..10 << 20).contains(&bytes), "{rows} rows of {bytes} bytes");
        }
        assert_eq!((texts.0, numbers.1), (8, 0));
        let mut wide = Table::default();
        wide.add((0..MOST_COLUMNS + 3).map(|c| (format!("c{c}"), json!(c))).collect());
        assert_eq!((wide.columns.len(), wide.left_out()), (MOST_COLUMNS, 3));
    }

    #[test]
    fn a_table_without_rows_is_one_all_the_same() {
        for form in [Form::Json, Form::Csv, Form::Arrow] {
            assert!(Table::default().answer(&form).is_ok());
        }
        let empty = Table { columns: Table::ALWAYS.map(String::from).to_vec(), ..Table::default() };
        assert_eq!(empty.csv(), "seq,time\n");
        let bytes = empty.arrow().unwrap();
        let batch = StreamReader::try_new(bytes.as_slice(), None).unwrap().next().unwrap().unwrap();
        assert_eq!((batch.num_rows(), batch.num_columns()), (0, 2));
    }
}
