//! Rows of named figures as a table: JSON, CSV, or an Arrow stream, which pandas, Polars, DuckDB and R read as it is.

use crate::tasks::harmless;
use anyhow::Result;
use arrow_array::{ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray};
use arrow_ipc::writer::StreamWriter;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::HashSet;
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

/// A table: every row has a cell for each column, in their order; null where a row does not say.
pub struct Table<'a> {
    columns: Vec<&'a str>,
    rows: Vec<Vec<&'a Value>>,
}

impl<'a> Table<'a> {
    /// Columns in the order in which rows first name them.
    pub fn of(rows: &'a [Map<String, Value>]) -> Self {
        let (mut columns, mut known): (Vec<&str>, HashSet<&str>) = Default::default();
        for name in rows.iter().flat_map(Map::keys) {
            if known.insert(name) && columns.len() < MOST_COLUMNS {
                columns.push(name);
            }
        }
        let cells = |row: &'a Map<String, Value>| columns.iter().map(|c| row.get(*c).unwrap_or(&Value::Null)).collect();
        Self { rows: rows.iter().map(cells).collect(), columns }
    }

    /// The table as an answer.
    ///
    /// # Errors
    /// When Arrow does not take it.
    pub fn answer(&self, form: &Form) -> Result<Response> {
        Ok(match form {
            Form::Json => axum::Json(json!({ "columns": self.columns, "rows": self.rows })).into_response(),
            Form::Csv => ([(header::CONTENT_TYPE, "text/csv; charset=utf-8")], self.csv()).into_response(),
            Form::Arrow => ([(header::CONTENT_TYPE, "application/vnd.apache.arrow.stream")], self.arrow()?).into_response(),
        })
    }

    fn csv(&self) -> String {
        let mut text = self.columns.iter().map(|c| cell(&json!(c))).collect::<Vec<_>>().join(",") + "\n";
        for row in &self.rows {
            text += &row.iter().map(|value| cell(value)).collect::<Vec<_>>().join(",");
            text.push('\n');
        }
        text
    }

    /// One record batch. A column of whole numbers is Int64, of numbers Float64, of truth values Boolean, of anything else Utf8.
    fn arrow(&self) -> Result<Vec<u8>> {
        let column = |n: usize| -> Vec<&Value> { self.rows.iter().map(|row| row[n]).collect() };
        let arrays = self.columns.iter().enumerate().map(|(n, name)| (*name, array(&column(n)), true));
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
        let bytes = Table::of(&rows).arrow().unwrap();
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
}
