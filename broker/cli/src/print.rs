//! Tables for people, JSON for programs, from the same rows.

use serde_json::{Map, Value};
use std::io::{self, Write};

/// Where a command prints.
pub struct Printer<'a> {
    /// Results.
    pub out: &'a mut dyn Write,
    /// What is said beside them: notes and progress.
    pub notes: &'a mut dyn Write,
}

impl Printer<'_> {
    /// A line of the result.
    pub fn line(&mut self, text: impl std::fmt::Display) -> io::Result<()> {
        writeln!(self.out, "{text}")
    }

    /// A line beside the result.
    pub fn note(&mut self, text: impl std::fmt::Display) {
        // Nobody reads it where standard error is closed.
        let _ = writeln!(self.notes, "{text}");
    }

    /// A table, or its rows as an array of JSON objects.
    pub fn table(&mut self, table: &Table, is_json: bool) -> io::Result<()> {
        match is_json {
            true => self.json(&table.to_json()),
            false => write!(self.out, "{}", table.to_text()),
        }
    }

    /// A JSON document.
    pub fn json(&mut self, value: &Value) -> io::Result<()> {
        writeln!(self.out, "{value:#}")
    }
}

/// Rows under headings; a heading in capitals is a JSON key in small letters.
#[derive(Debug)]
pub struct Table {
    columns: Vec<&'static str>,
    rows: Vec<Vec<Value>>,
}

impl Table {
    /// An empty table.
    pub fn new(columns: &[&'static str]) -> Self {
        Self { columns: columns.to_vec(), rows: Vec::new() }
    }

    /// Adds a row, which has a cell for each column.
    pub fn row(&mut self, cells: impl Into<Vec<Value>>) {
        let cells = cells.into();
        assert_eq!(cells.len(), self.columns.len(), "a cell for each column");
        self.rows.push(cells);
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Columns as wide as their widest cell, two spaces between them; numbers to the right.
    pub fn to_text(&self) -> String {
        let cells = |row: &Vec<Value>| row.iter().map(shown).collect::<Vec<_>>();
        let rows: Vec<Vec<String>> = self.rows.iter().map(cells).collect();
        let mut text = String::new();
        let is_number: Vec<bool> = (0..self.columns.len())
            .map(|index| {
                let mut kinds = self.rows.iter().map(|row| &row[index]).filter(|v| !v.is_null());
                kinds.clone().next().is_some() && kinds.all(Value::is_number)
            })
            .collect();
        let heads: Vec<String> = self.columns.iter().map(|&head| head.to_owned()).collect();
        let width = |index: usize| {
            let all = [&heads].into_iter().chain(&rows);
            all.map(|row| row[index].chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.columns.len()).map(width).collect();
        for row in [&heads].into_iter().chain(&rows) {
            let mut line = String::new();
            for (index, cell) in row.iter().enumerate() {
                let width = widths[index];
                line += &match is_number[index] {
                    true => format!("{cell:>width$}  "),
                    false => format!("{cell:<width$}  "),
                };
            }
            text += line.trim_end();
            text.push('\n');
        }
        text
    }

    /// The rows as objects.
    pub fn to_json(&self) -> Value {
        let keys: Vec<String> =
            self.columns.iter().map(|c| c.to_lowercase().replace([' ', '-'], "_")).collect();
        let object = |row: &Vec<Value>| {
            let pairs = keys.iter().cloned().zip(row.iter().cloned());
            Value::Object(pairs.collect::<Map<_, _>>())
        };
        self.rows.iter().map(object).collect()
    }
}

/// A cell as text.
pub(crate) fn shown(value: &Value) -> String {
    match value {
        Value::Null => "-".into(),
        Value::String(text) => text.clone(),
        Value::Array(all) => all.iter().map(shown).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn one_table_for_people_and_programs() {
        let mut table = Table::new(&["TOPIC", "END-OFFSET", "ISR"]);
        table.row([json!("größer"), json!(5), json!([1, 2])]);
        table.row([json!("a"), json!(null), json!([])]);
        let text = "TOPIC   END-OFFSET  ISR\ngrößer           5  1,2\na                -\n";
        assert_eq!(table.to_text(), text);
        let expected = json!([
            {"topic": "größer", "end_offset": 5, "isr": [1, 2]},
            {"topic": "a", "end_offset": null, "isr": []},
        ]);
        assert_eq!(table.to_json(), expected);
    }
}
