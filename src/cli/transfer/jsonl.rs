//! `.jsonl`: an object a line, of one of three kinds.
//!
//! `collection`, at the beginning: what the set is, for the server to make it. An element: `id`, `vector`, `attributes`, `text`,
//! `fields`, `sparse` and `expires_ms`, all but the first where it has them. `document`, behind the elements, with `dump`: what
//! VDOC DUMP gives for it, in hexadecimal. Attributes come back as the same JSON, if not with the same blanks; those that are not
//! JSON stand as a string in `raw_attributes`.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{BATCH_RECORDS, Entry, Part, Record, Shape, Sink, Source, wrong};
use crate::cli::CliError;
use crate::hex;

/// A line.
#[derive(Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
struct Line {
    #[serde(skip_serializing_if = "Option::is_none")]
    collection: Option<Shape>,
    #[serde(skip_serializing_if = "Option::is_none")]
    document: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dump: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    vector: Option<Vec<f32>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    attributes: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    raw_attributes: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    fields: BTreeMap<String, Vec<f32>>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    sparse: BTreeMap<String, f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_ms: Option<u64>,
}

/// Reads one.
pub struct Reader {
    path: PathBuf,
    reader: BufReader<File>,
    lines: u64,
    shape: Shape,
    /// The first line, if it is an element.
    first: Option<Record>,
    /// Documents whose lines have come.
    documents: VecDeque<Entry>,
}

impl Reader {
    /// Begins; reads what the set is, if the first line says it.
    ///
    /// # Errors
    /// When the first line does not read.
    pub fn open(path: &Path, reader: BufReader<File>) -> Result<Self, CliError> {
        let mut reader = Self {
            path: path.to_owned(),
            reader,
            lines: 0,
            shape: Shape::default(),
            first: None,
            documents: VecDeque::new(),
        };
        if let Some(mut line) = reader.line()? {
            match line.collection.take() {
                Some(shape) => reader.shape = shape,
                None => reader.first = reader.record(line)?,
            }
        }
        Ok(reader)
    }

    fn wrong(&self, what: impl std::fmt::Display) -> CliError {
        wrong(&self.path, format!("line {}: {what}", self.lines))
    }

    /// The next line that is not empty.
    fn line(&mut self) -> Result<Option<Line>, CliError> {
        let mut text = String::new();
        while text.trim().is_empty() {
            text.clear();
            if self.reader.read_line(&mut text).map_err(|error| wrong(&self.path, error))? == 0 {
                return Ok(None);
            }
            self.lines += 1;
        }
        serde_json::from_str(&text).map(Some).map_err(|error| self.wrong(error))
    }

    /// The element of a line; a document is put aside.
    fn record(&mut self, line: Line) -> Result<Option<Record>, CliError> {
        if let (Some(uri), Some(dump)) = (&line.document, &line.dump) {
            let dump = hex::decode(dump).ok_or_else(|| self.wrong("the dump is not hexadecimal"))?;
            self.documents.push_back(Entry { uri: uri.as_bytes().to_vec(), dump });
            return Ok(None);
        }
        let element = match line.id {
            Some(Value::String(id)) => id.into_bytes(),
            Some(Value::Number(id)) => id.to_string().into_bytes(),
            Some(_) => return Err(self.wrong("the id is neither a text nor a number")),
            None => return Err(self.wrong("it has no id")),
        };
        if line.vector.is_none() && line.text.is_none() {
            return Err(self.wrong("it has neither vector nor text"));
        }
        let attributes = line.attributes.map(|value| value.to_string().into_bytes());
        Ok(Some(Record {
            element,
            vector: line.vector,
            attributes: attributes.or(line.raw_attributes.map(String::into_bytes)),
            text: line.text.map(String::into_bytes),
            fields: line.fields,
            sparse: line.sparse,
            expires_ms: line.expires_ms,
        }))
    }
}

impl Source for Reader {
    fn total(&self) -> Option<u64> {
        None
    }

    fn shape(&self) -> Shape {
        self.shape.clone()
    }

    fn next(&mut self) -> Result<Vec<Record>, CliError> {
        let mut records: Vec<Record> = self.first.take().into_iter().collect();
        while records.len() < BATCH_RECORDS {
            let Some(line) = self.line()? else { break };
            records.extend(self.record(line)?);
        }
        Ok(records)
    }

    fn next_documents(&mut self) -> Result<Vec<Entry>, CliError> {
        let count = self.documents.len().min(BATCH_RECORDS);
        Ok(self.documents.drain(..count).collect())
    }
}

/// Writes one.
pub struct Writer {
    part: Part,
}

impl Writer {
    /// Begins, with what the set is.
    ///
    /// # Errors
    /// What cannot be written.
    pub fn create(part: Part, shape: &Shape) -> Result<Self, CliError> {
        let mut writer = Self { part };
        writer.write(&Line { collection: Some(shape.clone()), ..Line::default() })?;
        Ok(writer)
    }

    fn write(&mut self, line: &Line) -> Result<(), CliError> {
        let mut bytes = serde_json::to_vec(line).map_err(|error| CliError::Data(error.to_string()))?;
        bytes.push(b'\n');
        self.part.write(&bytes)
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
            self.write(&Line {
                id: Some(Value::String(text_of(record.element)?)),
                vector: record.vector,
                raw_attributes: attributes.filter(|_| json.is_none()),
                attributes: json,
                text: record.text.map(text_of).transpose()?,
                fields: record.fields,
                sparse: record.sparse,
                expires_ms: record.expires_ms,
                ..Line::default()
            })?;
        }
        Ok(())
    }

    fn put_documents(&mut self, documents: Vec<Entry>) -> Result<bool, CliError> {
        for Entry { uri, dump } in documents {
            let (document, dump) = (Some(text_of(uri)?), Some(hex::encode(&dump)));
            self.write(&Line { document, dump, ..Line::default() })?;
        }
        Ok(true)
    }

    fn finish(&mut self) -> Result<(), CliError> {
        self.part.finish()
    }
}
