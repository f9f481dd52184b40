//! `vecdis import` and `vecdis export`: elements between files and servers, of this kind or Redis's.
//!
//! A [`Source`] gives records in batches, a [`Sink`] takes them; each format of a file is one of each, and so is a vector set
//! on a server.

mod csv;
mod fvecs;
mod jsonl;
mod npy;
mod server;
mod vectra;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde::{Deserialize, Serialize};

use super::arguments::{Arguments, Subcommand};
use super::documents::{Document, Documents, Kept, kind};
use super::interrupt::Interrupt;
use super::progress::Progress;
use super::remote::Place;
use super::{CliError, print};
use server::{ServerSink, ServerSource};

/// What is told of formats without attributes.
const ONLY_VECTORS: &str =
    "only names and vectors are kept in this format: attributes, texts and all else are not kept";
/// Records handed on together.
const BATCH_RECORDS: usize = 256;
/// Dimensions a vector of a file may have.
const MAX_DIMENSION: usize = 65_536;
/// The exit code after Ctrl-C.
const INTERRUPTED: u8 = 130;

const SERVER: (&str, &str) = ("--server", "HOST:PORT");
const KEY: (&str, &str) = ("--key", "KEY");
/// What a file can be, for the help.
macro_rules! formats {
    () => {
        "The format is that of the file's name:

  .npy    vectors, a row each (little-endian f32, f64, f16, or 8 bits); elements are 0, 1, 2 ... or the lines of FILE.ids
  .fvecs  vectors, each with its dimension in front; elements as with .npy
  .jsonl  an object a line: id, vector, attributes, text, fields (their vectors), sparse, expires_ms; what the set is, and
          its documents, are lines too: all that a set of Vecdis has
  .csv    a column each: id, vector (numbers with blanks between them), text; other columns are attributes

A password stands in the URL, or in the variable REDISCLI_AUTH.
"
    };
}

pub(super) const IMPORT: Subcommand = Subcommand {
    name: "import",
    words: &["SOURCE"],
    values: &[],
    optional: &[KEY, SERVER, ("--quantization", "QUANTIZATION"), ("--from", "vectra")],
    flags: &[],
    summary: "bring vectors from a file or another server into a running server",
    text: concat!("SOURCE is a file, or redis://HOST:PORT/KEY: a vector set on another server, of Redis or Vecdis; redis://HOST:PORT stands
for all vector sets there. They come into the server at HOST:PORT (127.0.0.1:6379), under KEY. QUANTIZATION (NOQUANT, Q8 or
BIN) is for a set that does not exist yet; else a set from a server keeps its own. Elements that exist are replaced. A record
of a .jsonl or .csv file with a text and no vector is embedded by the server.

With --from vectra SOURCE is an index folder of the npm package vectra: items come with their vectors and metadata, and of a
document index the documents with their metadata, which are split and embedded anew, by the model of the collection.

Redis gives the vectors of Q8 and BIN sets back as its codes have them, not as they were added.

", formats!()),
    failure_code: 1,
    run: import,
};

pub(super) const EXPORT: Subcommand = Subcommand {
    name: "export",
    words: &["KEY", "TARGET"],
    values: &[],
    optional: &[SERVER],
    flags: &[],
    summary: "write a running server's vectors to a file or another server",
    text: concat!("KEY is a set on the server at HOST:PORT (127.0.0.1:6379), TARGET a file, or redis://HOST:PORT[/KEY]: another server, of Redis
or Vecdis. A file is complete or not there: it is written beside its place, and renamed. Elements added or removed meanwhile
may be in it or not.

", formats!()),
    failure_code: 1,
    run: export,
};

/// One element on its way.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Record {
    /// Its name.
    pub element: Vec<u8>,
    /// Its vector; without one the server is to embed the text.
    pub vector: Option<Vec<f32>>,
    /// Its attributes, JSON.
    pub attributes: Option<Vec<u8>>,
    /// Its text.
    pub text: Option<Vec<u8>>,
    /// Its vectors in fields.
    pub fields: BTreeMap<String, Vec<f32>>,
    /// Its sparse vector: weights by term.
    pub sparse: BTreeMap<String, f32>,
    /// When it goes by itself, unix milliseconds.
    pub expires_ms: Option<u64>,
}

/// A document whose chunks are elements.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Its URI.
    pub uri: Vec<u8>,
    /// What VDOC DUMP gives.
    pub dump: Vec<u8>,
}

/// What a set is, where its source says it.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Shape {
    /// Dimensions.
    pub dim: usize,
    /// NOQUANT, Q8 or BIN.
    pub quantization: Option<String>,
    /// Only Vecdis knows others than COSINE.
    pub metric: Option<String>,
    /// YES or NO: whether it keeps the vectors as they were given.
    pub raw: Option<String>,
    /// AUTO, FLAT or HNSW.
    pub index: Option<String>,
    /// The graph's links.
    pub m: Option<u64>,
    /// Candidates while it is built.
    pub ef: Option<u64>,
    /// The model of its texts.
    pub model: Option<String>,
    /// What makes terms of its texts.
    pub analyzer: Option<String>,
    /// Its fields with their dimensions.
    pub fields: Vec<(String, usize)>,
}

/// Where records come from.
pub trait Source {
    /// How many there are, as far as that is known.
    fn total(&self) -> Option<u64>;

    /// What the set is.
    fn shape(&self) -> Shape {
        Shape::default()
    }

    /// The next records, at most [`BATCH_RECORDS`]; none at the end.
    ///
    /// # Errors
    /// What cannot be read.
    fn next(&mut self) -> Result<Vec<Record>, CliError>;

    /// The next documents, when there are no more records; none at the end.
    ///
    /// # Errors
    /// What cannot be read.
    fn next_documents(&mut self) -> Result<Vec<Entry>, CliError> {
        Ok(Vec::new())
    }
}

/// Where records go.
pub trait Sink {
    /// Takes records.
    ///
    /// # Errors
    /// What cannot be written.
    fn put(&mut self, records: Vec<Record>) -> Result<(), CliError>;

    /// Takes documents, whose elements have come; false if it keeps none.
    ///
    /// # Errors
    /// What cannot be written.
    fn put_documents(&mut self, _: Vec<Entry>) -> Result<bool, CliError> {
        Ok(false)
    }

    /// All have come.
    ///
    /// # Errors
    /// What cannot be written.
    fn finish(&mut self) -> Result<(), CliError>;

    /// What it could not keep, for people.
    fn lost(&self) -> Option<String> {
        None
    }
}

fn wrong(path: &Path, what: impl std::fmt::Display) -> CliError {
    CliError::Data(format!("{}: {what}", path.display()))
}

fn import(arguments: &Arguments) -> Result<ExitCode, CliError> {
    let (source, key) = (arguments.word(0), arguments.value("--key"));
    let target = Place::parse(arguments.value("--server").unwrap_or_default())?;
    let quantization = match arguments.value("--quantization") {
        None => None,
        Some(word) => Some(
            *["NOQUANT", "Q8", "BIN"]
                .iter()
                .find(|known| known.eq_ignore_ascii_case(word))
                .ok_or_else(|| CliError::Usage(format!("{word} is none of NOQUANT, Q8 and BIN")))?,
        ),
    };
    let one = |source: &mut dyn Source, key: &[u8]| {
        let mut shape = source.shape();
        shape.quantization = quantization.map(str::to_owned).or(shape.quantization);
        copy(source, &mut ServerSink::open(&target, key, shape)?, &String::from_utf8_lossy(key))
    };
    match arguments.value("--from") {
        None => {}
        Some("vectra") => {
            let key = key.ok_or_else(|| CliError::Usage("a folder needs --key".to_owned()))?;
            let folder = Path::new(source);
            return match vectra::has_documents(folder) {
                true => import_documents(folder, &target, key),
                false => one(&mut vectra::Items::open(folder)?, key.as_bytes()),
            };
        }
        Some(other) => return Err(CliError::Usage(format!("--from knows vectra, not {other}"))),
    }
    if !source.contains("://") {
        let key = key.ok_or_else(|| CliError::Usage("a file needs --key".to_owned()))?;
        return one(&mut *open(Path::new(source))?, key.as_bytes());
    }
    let place = Place::parse(source)?;
    let keys = match &place.key {
        Some(key) => vec![key.clone().into_bytes()],
        None if key.is_some() => {
            return Err(CliError::Usage("--key is for one set: name it behind the server".to_owned()));
        }
        None => server::keys(&place)?,
    };
    for own in keys {
        let code = one(&mut ServerSource::open(&place, &own)?, key.map_or(&own[..], str::as_bytes))?;
        if code != ExitCode::SUCCESS {
            return Ok(code);
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Brings the documents of a vectra index.
fn import_documents(folder: &Path, target: &Place, key: &str) -> Result<ExitCode, CliError> {
    let mut documents = Documents::open(target, key, Vec::new())?;
    let (mut count, mut left_out) = (0, 0);
    for document in vectra::documents(folder)? {
        let vectra::Document { uri, text, metadata } = document?;
        let kind = kind(&uri).unwrap_or("txt");
        let kept = documents.keep(&[Document { uri: uri.clone(), kind, text, attributes: metadata }])?;
        match kept.into_iter().next() {
            Some(Kept::Yes(_)) => count += 1,
            Some(Kept::Never(_)) => left_out += 1,
            Some(Kept::NotNow(why)) => return Err(CliError::Data(format!("{uri}: {why}"))),
            None => return Err(CliError::Closed),
        }
    }
    let left_out =
        if left_out > 0 { format!("; {left_out} without a text are left out") } else { String::new() };
    print(&format!("{key}: {count} documents{left_out}\n"))
}

fn export(arguments: &Arguments) -> Result<ExitCode, CliError> {
    let (key, target) = (arguments.word(0), arguments.word(1));
    let place = Place::parse(arguments.value("--server").unwrap_or_default())?;
    let mut source = ServerSource::open(&place, key.as_bytes())?;
    if target.contains("://") {
        let to = Place::parse(target)?;
        let own = to.key.clone().unwrap_or_else(|| key.to_owned());
        let shape = source.shape();
        return copy(&mut source, &mut ServerSink::open(&to, own.as_bytes(), shape)?, key);
    }
    let mut sink = create(Path::new(target), &source.shape())?;
    copy(&mut source, &mut *sink, key)
}

/// Moves all records, with a bar; Ctrl-C ends it after the batch at hand.
fn copy(source: &mut dyn Source, sink: &mut dyn Sink, what: &str) -> Result<ExitCode, CliError> {
    let interrupt = Interrupt::watch();
    let progress = Progress::count("elements", source.total());
    let mut count = 0;
    loop {
        let records = source.next()?;
        if records.is_empty() {
            break;
        }
        let added = records.len() as u64;
        sink.put(records)?;
        count += added;
        progress.add(added);
        if interrupt.has_come() {
            drop(progress);
            print(&format!("{what}: interrupted after {count} elements\n"))?;
            return Ok(ExitCode::from(INTERRUPTED));
        }
    }
    let (documents, lost_documents) = copy_documents(source, sink)?;
    sink.finish()?;
    drop(progress);
    let mut said = format!("{what}: {count} elements");
    if documents > 0 {
        said += &format!(", {documents} documents");
    }
    let lost_documents = (lost_documents > 0).then(|| {
        format!("that elements are chunks of documents is not kept: {lost_documents} documents are lost")
    });
    for lost in sink.lost().into_iter().chain(lost_documents) {
        said += &format!("; {lost}");
    }
    print(&format!("{said}\n"))
}

/// Moves all documents. Gives how many are kept, and how many are not.
fn copy_documents(source: &mut dyn Source, sink: &mut dyn Sink) -> Result<(usize, usize), CliError> {
    let (mut kept, mut lost) = (0, 0);
    loop {
        let documents = source.next_documents()?;
        let count = documents.len();
        if count == 0 {
            return Ok((kept, lost));
        }
        *if sink.put_documents(documents)? { &mut kept } else { &mut lost } += count;
    }
}

fn format(path: &Path) -> &str {
    path.extension().and_then(|end| end.to_str()).unwrap_or_default()
}

fn unknown(path: &Path) -> CliError {
    wrong(path, "the name must end in .npy, .fvecs, .jsonl or .csv")
}

/// Opens a file of any format.
fn open(path: &Path) -> Result<Box<dyn Source>, CliError> {
    if !["npy", "fvecs", "jsonl", "csv"].contains(&format(path)) {
        return Err(unknown(path));
    }
    let reader = BufReader::new(File::open(path).map_err(|error| wrong(path, error))?);
    Ok(match format(path) {
        "npy" => Box::new(npy::Reader::open(path, reader)?),
        "fvecs" => Box::new(fvecs::Reader::open(path, reader)?),
        "jsonl" => Box::new(jsonl::Reader::open(path, reader)?),
        _ => Box::new(csv::Reader::open(path, reader)?),
    })
}

/// Makes a file of any format.
fn create(path: &Path, shape: &Shape) -> Result<Box<dyn Sink>, CliError> {
    if !["npy", "fvecs", "jsonl", "csv"].contains(&format(path)) {
        return Err(unknown(path));
    }
    let file = Part::create(path)?;
    Ok(match format(path) {
        "npy" => Box::new(npy::Writer::create(file, shape.dim)?),
        "fvecs" => Box::new(fvecs::Writer::create(file)?),
        "jsonl" => Box::new(jsonl::Writer::create(file, shape)?),
        _ => Box::new(csv::Writer::new(file)),
    })
}

/// A file that gets its name when it is complete; else it goes.
struct Part {
    target: PathBuf,
    path: PathBuf,
    out: BufWriter<File>,
    done: bool,
}

impl Part {
    fn create(target: &Path) -> Result<Self, CliError> {
        let path = PathBuf::from(format!("{}.part", target.display()));
        let file = File::create(&path).map_err(|error| wrong(&path, error))?;
        Ok(Self { target: target.to_owned(), path, out: BufWriter::new(file), done: false })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), CliError> {
        self.out.write_all(bytes).map_err(|error| wrong(&self.path, error))
    }

    fn finish(&mut self) -> Result<(), CliError> {
        let flushed = self.out.flush().and_then(|()| self.out.get_ref().sync_all());
        let done = flushed.and_then(|()| std::fs::rename(&self.path, &self.target));
        done.map_err(|error| wrong(&self.target, error))?;
        self.done = true;
        Ok(())
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if !self.done {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Names of elements beside a file of bare vectors: the lines of `FILE.ids`, or numbers.
struct Names {
    lines: Option<std::io::Lines<BufReader<File>>>,
    next: u64,
    path: PathBuf,
}

fn ids_path(path: &Path) -> PathBuf {
    PathBuf::from(format!("{}.ids", path.display()))
}

impl Names {
    fn beside(path: &Path) -> Self {
        let path = ids_path(path);
        let lines = File::open(&path).ok().map(|file| BufReader::new(file).lines());
        Self { lines, next: 0, path }
    }

    fn next(&mut self) -> Result<Vec<u8>, CliError> {
        self.next += 1;
        match &mut self.lines {
            None => Ok((self.next - 1).to_string().into_bytes()),
            Some(lines) => match lines.next() {
                Some(line) => Ok(line.map_err(|error| wrong(&self.path, error))?.into_bytes()),
                None => Err(wrong(&self.path, "it has fewer lines than there are vectors")),
            },
        }
    }
}

/// Writes names of elements beside a file of bare vectors.
struct NamesOut(Part);

impl NamesOut {
    fn beside(path: &Path) -> Result<Self, CliError> {
        Part::create(&ids_path(path)).map(Self)
    }

    fn put(&mut self, element: &[u8]) -> Result<(), CliError> {
        if element.contains(&b'\n') || std::str::from_utf8(element).is_err() {
            let name = String::from_utf8_lossy(element).into_owned();
            return Err(wrong(&self.0.target, format!("{name:?} cannot stand on a line; write .jsonl")));
        }
        self.0.write(element)?;
        self.0.write(b"\n")
    }
}

/// The vector of a record, for formats that have nothing else.
fn vector_of(record: &Record) -> Result<&[f32], CliError> {
    let name = String::from_utf8_lossy(&record.element);
    record.vector.as_deref().ok_or_else(|| CliError::Data(format!("{name} has no vector")))
}
