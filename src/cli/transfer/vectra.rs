//! Index folders of the npm package vectra: `index.json` holds the items (id, metadata, vector); metadata that are not indexed
//! stand in a file of their own, which the item names. A document index has `catalog.json` too, and each document's text in
//! `<id>.txt`, its metadata in `<id>.json`.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Map, Value};

use super::{BATCH_RECORDS, Record, Source, wrong};
use crate::cli::CliError;

/// Bytes a file of an index may have.
const MAX_FILE_BYTES: u64 = 4 << 30;

#[derive(Deserialize)]
struct Index {
    items: Vec<Item>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Item {
    id: String,
    vector: Vec<f32>,
    #[serde(default)]
    metadata: Map<String, Value>,
    metadata_file: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Catalog {
    uri_to_id: BTreeMap<String, String>,
}

/// The items of an index.
pub struct Items {
    folder: PathBuf,
    total: u64,
    items: std::vec::IntoIter<Item>,
}

/// A document of an index.
pub struct Document {
    /// Its URI.
    pub uri: String,
    /// Its text.
    pub text: String,
    /// Its metadata, JSON.
    pub metadata: Option<Vec<u8>>,
}

/// Whether a folder is a document index.
pub fn has_documents(folder: &Path) -> bool {
    folder.join("catalog.json").is_file()
}

fn read(path: &Path) -> Result<Vec<u8>, CliError> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(MAX_FILE_BYTES).read_to_end(&mut bytes));
    read.map_err(|error| wrong(path, error))?;
    Ok(bytes)
}

fn json<T: for<'a> Deserialize<'a>>(path: &Path) -> Result<T, CliError> {
    serde_json::from_slice(&read(path)?).map_err(|error| wrong(path, error))
}

/// A file of the folder; the names in an index lead nowhere else.
fn inside(folder: &Path, name: &str) -> Result<PathBuf, CliError> {
    match Path::new(name).file_name().is_some_and(|only| only == name) {
        true => Ok(folder.join(name)),
        false => Err(wrong(folder, format!("{name:?} is no file of it"))),
    }
}

/// The documents of a document index, by their URIs, each read when it is asked for.
///
/// # Errors
/// When the catalog does not read.
pub fn documents(folder: &Path) -> Result<impl Iterator<Item = Result<Document, CliError>>, CliError> {
    let catalog: Catalog = json(&folder.join("catalog.json"))?;
    let folder = folder.to_owned();
    Ok(catalog.uri_to_id.into_iter().map(move |(uri, id)| {
        let path = inside(&folder, &format!("{id}.txt"))?;
        let text = String::from_utf8(read(&path)?).map_err(|error| wrong(&path, error))?;
        let path = inside(&folder, &format!("{id}.json"))?;
        let metadata = match fs::metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            _ => Some(read(&path)?),
        };
        Ok(Document { uri, text, metadata })
    }))
}

impl Items {
    /// Reads the index.
    ///
    /// # Errors
    /// When there is none, or it does not read.
    pub fn open(folder: &Path) -> Result<Self, CliError> {
        let index: Index = json(&folder.join("index.json"))?;
        let total = index.items.len() as u64;
        Ok(Self { folder: folder.to_owned(), total, items: index.items.into_iter() })
    }

    fn record(&self, item: Item) -> Result<Record, CliError> {
        let mut metadata = item.metadata;
        if let Some(name) = &item.metadata_file {
            let whole: Map<String, Value> = json(&inside(&self.folder, name)?)?;
            metadata.extend(whole);
        }
        let attributes = (!metadata.is_empty()).then(|| Value::Object(metadata).to_string().into_bytes());
        let (element, vector) = (item.id.into_bytes(), Some(item.vector));
        Ok(Record { element, vector, attributes, ..Record::default() })
    }
}

impl Source for Items {
    fn total(&self) -> Option<u64> {
        Some(self.total)
    }

    fn next(&mut self) -> Result<Vec<Record>, CliError> {
        let items: Vec<Item> = self.items.by_ref().take(BATCH_RECORDS).collect();
        items.into_iter().map(|item| self.record(item)).collect()
    }
}
