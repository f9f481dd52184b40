//! `.jsonl`: an object a line, with `id`, `vector`, `attributes`, `text` and `fields`. Attributes come back as the same JSON, if not with
//! the same blanks; those that are not JSON stand as a string in `raw_attributes`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{BATCH_RECORDS, Part, Record, Sink, Source, wrong};
use crate::cli::CliError;

/// A line.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Line {
    id: Value,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    vector: Option<Vec<f32>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    attributes: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    raw_attributes: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    fields: BTreeMap<String, Vec<f32>>,
}

/// Reads one.
pub struct Reader {
    path: PathBuf,
    reader: BufReader<File>,
    lines: u64,
}

impl Reader {
    /// Begins.
    pub fn new(path: &Path, reader: BufReader<File>) -> Self {
        Self { path: path.to_owned(), reader, lines: 0 }
    }

    fn record(&self, text: &str) -> Result<Record, CliError> {
        let bad = |what: &dyn std::fmt::Display| wrong(&self.path, format!("line {}: {what}", self.lines));
        let line: Line = serde_json::from_str(text).map_err(|error| bad(&error))?;
        let element = match line.id {
            Value::String(id) => id.into_bytes(),
            Value::Number(id) => id.to_string().into_bytes(),
            _ => return Err(bad(&"the id is neither a text nor a number")),
        };
        if line.vector.is_none() && line.text.is_none() {
            return Err(bad(&"it has neither vector nor text"));
        }
        let attributes = line.attributes.map(|value| value.to_string().into_bytes());
        Ok(Record {
            element,
            vector: line.vector,
            attributes: attributes.or(line.raw_attributes.map(String::into_bytes)),
            text: line.text.map(String::into_bytes),
            fields: line.fields,
        })
    }
}

impl Source for Reader {
    fn total(&self) -> Option<u64> {
        None
    }

    fn next(&mut self) -> Result<Vec<Record>, CliError> {
        let mut records = Vec::new();
        let mut text = String::new();
        while records.len() < BATCH_RECORDS {
            text.clear();
            if self.reader.read_line(&mut text).map_err(|error| wrong(&self.path, error))? == 0 {
                break;
            }
            self.lines += 1;
            if !text.trim().is_empty() {
                records.push(self.record(&text)?);
            }
        }
        Ok(records)
    }
}

/// Writes one.
pub struct Writer {
    part: Part,
}

impl Writer {
    /// Begins.
    pub fn new(part: Part) -> Self {
        Self { part }
    }
}

/// Bytes as text, which they must be in JSON.
fn text_of(bytes: Vec<u8>) -> Result<String, CliError> {
    String::from_utf8(bytes).map_err(|error| {
        let shown = String::from_utf8_lossy(error.as_bytes()).into_owned();
        CliError::Data(format!("{shown:?} is not UTF-8, so it cannot stand in JSON"))
    })
}

impl Sink for Writer {
    fn put(&mut self, records: Vec<Record>) -> Result<(), CliError> {
        for record in records {
            let attributes = record.attributes.map(text_of).transpose()?;
            let json: Option<Value> = attributes.as_deref().and_then(|text| serde_json::from_str(text).ok());
            let line = Line {
                id: Value::String(text_of(record.element)?),
                vector: record.vector,
                raw_attributes: attributes.filter(|_| json.is_none()),
                attributes: json,
                text: record.text.map(text_of).transpose()?,
                fields: record.fields,
            };
            let mut bytes = serde_json::to_vec(&line).map_err(|error| CliError::Data(error.to_string()))?;
            bytes.push(b'\n');
            self.part.write(&bytes)?;
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<(), CliError> {
        self.part.finish()
    }
}
