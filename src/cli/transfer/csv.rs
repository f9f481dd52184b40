//! `.csv`: a line of names, then a line for each element. The columns `id`, `vector` and `text` are what they are called; the
//! others are attributes.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::{BATCH_RECORDS, Part, Record, Sink, Source, wrong};
use crate::cli::CliError;

/// Bytes a row may have.
const MAX_ROW_BYTES: usize = 256 << 20;

/// Reads one.
pub struct Reader {
    path: PathBuf,
    reader: BufReader<File>,
    line: u64,
    columns: Vec<String>,
}

impl Reader {
    /// Reads the names of the columns.
    ///
    /// # Errors
    /// When there is no `id`, or neither `vector` nor `text`.
    pub fn open(path: &Path, reader: BufReader<File>) -> Result<Self, CliError> {
        let mut file = Self { path: path.to_owned(), reader, line: 0, columns: Vec::new() };
        let names = file.fields()?.unwrap_or_default();
        // Some programs write a mark of the encoding first.
        let columns: Vec<String> =
            names.iter().map(|name| name.trim_start_matches('\u{feff}').trim().to_owned()).collect();
        let has = |name: &str| columns.iter().any(|column| column == name);
        if !has("id") || !(has("vector") || has("text")) {
            return Err(wrong(path, "its first line must name a column id, and vector or text"));
        }
        file.columns = columns;
        Ok(file)
    }

    /// The fields of the next row; nothing at the end. A row goes on behind a line break that stands in quotes.
    fn fields(&mut self) -> Result<Option<Vec<String>>, CliError> {
        let mut row = String::new();
        loop {
            let before = row.len();
            let read = self.reader.read_line(&mut row).map_err(|error| wrong(&self.path, error))?;
            self.line += u64::from(read > 0);
            let in_quotes = row.matches('"').count() % 2 == 1;
            if read == 0 && in_quotes {
                return Err(wrong(&self.path, format!("line {}: a quote does not end", self.line)));
            }
            if read == 0 && before == 0 {
                return Ok(None);
            }
            if row.len() > MAX_ROW_BYTES {
                return Err(wrong(&self.path, format!("line {}: it is too long", self.line)));
            }
            if read > 0 && in_quotes {
                continue;
            }
            match row.trim_end_matches(['\n', '\r']) {
                "" => row.clear(),
                text => return Ok(Some(split(text))),
            }
        }
    }

    fn record(&self, fields: &[String]) -> Result<Record, CliError> {
        let line = self.line;
        let bad = |what: String| wrong(&self.path, format!("line {line}: {what}"));
        let mut record = Record::default();
        let mut attributes = Map::new();
        for (column, field) in self.columns.iter().zip(fields) {
            match column.as_str() {
                "id" => record.element = field.as_bytes().to_vec(),
                "vector" if field.trim().is_empty() => {}
                "vector" => record.vector = Some(vector(field).map_err(bad)?),
                "text" if field.is_empty() => {}
                "text" => record.text = Some(field.as_bytes().to_vec()),
                "" => {}
                name if !field.is_empty() => {
                    attributes.insert(name.to_owned(), value(field));
                }
                _ => {}
            }
        }
        if record.vector.is_none() && record.text.is_none() {
            return Err(bad("it has neither vector nor text".to_owned()));
        }
        record.attributes =
            (!attributes.is_empty()).then(|| Value::Object(attributes).to_string().into_bytes());
        Ok(record)
    }
}

/// Fields between commas. One in quotes may have commas and line breaks; a quote in it is doubled.
fn split(row: &str) -> Vec<String> {
    let (mut fields, mut field, mut quoted) = (Vec::new(), String::new(), false);
    let mut signs = row.chars().peekable();
    while let Some(sign) = signs.next() {
        match sign {
            '"' if quoted && signs.next_if_eq(&'"').is_some() => field.push('"'),
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(std::mem::take(&mut field)),
            _ => field.push(sign),
        }
    }
    fields.push(field);
    fields
}

/// A field as it is written.
fn quote(field: &[u8]) -> Vec<u8> {
    match field.iter().any(|byte| b",\"\r\n".contains(byte)) {
        false => field.to_vec(),
        true => {
            let inside =
                field.iter().flat_map(|byte| std::iter::repeat_n(*byte, 1 + usize::from(*byte == b'"')));
            std::iter::once(b'"').chain(inside).chain([b'"']).collect()
        }
    }
}

/// Numbers with blanks or commas between them, in brackets or not.
fn vector(field: &str) -> Result<Vec<f32>, String> {
    let words =
        field.split(|c: char| c.is_whitespace() || "[],;".contains(c)).filter(|word| !word.is_empty());
    words.map(|word| word.parse().map_err(|_| format!("{word:?} is no number"))).collect()
}

/// A number, true or false if it reads as one, a list or object in JSON, else a text.
fn value(field: &str) -> Value {
    match serde_json::from_str(field) {
        Ok(value @ (Value::Number(_) | Value::Bool(_) | Value::Array(_) | Value::Object(_))) => value,
        _ => field.into(),
    }
}

impl Source for Reader {
    fn total(&self) -> Option<u64> {
        None
    }

    fn next(&mut self) -> Result<Vec<Record>, CliError> {
        let mut records = Vec::new();
        while records.len() < BATCH_RECORDS {
            let Some(fields) = self.fields()? else { break };
            records.push(self.record(&fields)?);
        }
        Ok(records)
    }
}

/// Writes one: attributes as one column of JSON would not come back as they were, so each of their fields has a column. All
/// rows are needed before the first can be written.
pub struct Writer {
    part: Part,
    rows: Vec<(Record, Map<String, Value>)>,
    columns: Vec<String>,
    skipped: u64,
    /// Elements that have what no column keeps.
    poorer: u64,
}

impl Writer {
    /// Begins.
    pub fn new(part: Part) -> Self {
        Self { part, rows: Vec::new(), columns: Vec::new(), skipped: 0, poorer: 0 }
    }
}

impl Sink for Writer {
    fn put(&mut self, records: Vec<Record>) -> Result<(), CliError> {
        for mut record in records {
            let has_more =
                !record.fields.is_empty() || !record.sparse.is_empty() || record.expires_ms.is_some();
            self.poorer += u64::from(has_more);
            let attributes = match record.attributes.take().map(|json| serde_json::from_slice(&json)) {
                Some(Ok(Value::Object(fields))) => fields,
                Some(_) => {
                    self.skipped += 1;
                    Map::new()
                }
                None => Map::new(),
            };
            for name in
                attributes.keys().filter(|name| !self.columns.contains(name)).cloned().collect::<Vec<_>>()
            {
                self.columns.push(name);
            }
            self.rows.push((record, attributes));
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<(), CliError> {
        let names = ["id", "vector", "text"].into_iter().chain(self.columns.iter().map(String::as_str));
        let names: Vec<Vec<u8>> = names.map(|name| quote(name.as_bytes())).collect();
        self.part.write(&names.join(&b","[..]))?;
        for (record, attributes) in &self.rows {
            let vector: Vec<String> = record.vector.iter().flatten().map(f32::to_string).collect();
            let field = |name: &String| match attributes.get(name) {
                None | Some(Value::Null) => Vec::new(),
                Some(Value::String(text)) => text.clone().into_bytes(),
                Some(value) => value.to_string().into_bytes(),
            };
            let text = record.text.clone().unwrap_or_default();
            let own = [record.element.clone(), vector.join(" ").into_bytes(), text];
            let fields = own.into_iter().chain(self.columns.iter().map(field));
            let fields: Vec<Vec<u8>> = fields.map(|field| quote(&field)).collect();
            self.part.write(b"\n")?;
            self.part.write(&fields.join(&b","[..]))?;
        }
        self.part.write(b"\n")?;
        self.part.finish()
    }

    fn lost(&self) -> Option<String> {
        let lost = [
            (self.skipped, "attributes that are no objects are not kept"),
            (self.poorer, "elements' vectors in fields, sparse vectors and ends are not kept"),
        ];
        let lost: Vec<String> = lost
            .iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, what)| format!("{count} {what}"))
            .collect();
        (!lost.is_empty()).then(|| lost.join("; "))
    }
}
