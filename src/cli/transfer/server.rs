//! Vector sets on a server, of Redis or Vecdis.

use std::collections::{BTreeMap, VecDeque};

use super::{BATCH_RECORDS, Entry, Record, Shape, Sink, Source};
use crate::cli::CliError;
use crate::cli::client::{BytesFrame, Client, Command};
use crate::cli::remote::{Place, bulk, number, pairs};
use crate::clock;

/// Names asked for at a time.
const PAGE_NAMES: usize = 4096;

/// The vector sets of a server.
///
/// # Errors
/// When it does not answer.
pub fn keys(place: &Place) -> Result<Vec<Vec<u8>>, CliError> {
    let mut client = place.connect()?;
    let (mut found, mut cursor) = (Vec::new(), b"0".to_vec());
    loop {
        let scan = Command::new([b"SCAN".to_vec(), cursor]);
        let answer = client.call(&scan.arg("COUNT").arg("1000"))?;
        let BytesFrame::Array(parts) = answer else { return Err(unexpected("SCAN")) };
        let [next, BytesFrame::Array(keys)] = &parts[..] else { return Err(unexpected("SCAN")) };
        for key in keys.iter().filter_map(bulk) {
            let kind = client.call(&Command::new(["TYPE"]).arg(key.clone()))?;
            if matches!(&kind, BytesFrame::SimpleString(name) if name.as_ref() == b"vectorset")
                && !found.contains(&key)
            {
                found.push(key);
            }
        }
        cursor = bulk(next).unwrap_or_default();
        if cursor == b"0" || cursor.is_empty() {
            return Ok(found);
        }
    }
}

fn unexpected(command: &str) -> CliError {
    CliError::Answer { command: command.to_owned(), answer: "something that is no answer to it".to_owned() }
}

/// Reads a set.
pub struct ServerSource {
    client: Client,
    key: Vec<u8>,
    /// Whether it is Vecdis: then it has texts, and answers VGET.
    is_vecdis: bool,
    shape: Shape,
    total: u64,
    names: VecDeque<Vec<u8>>,
    /// The last name of the page before; nothing when there are no more.
    after: Option<Vec<u8>>,
    /// Where the list of documents goes on; nothing when there are no more.
    documents: Option<Vec<u8>>,
}

impl ServerSource {
    /// Asks what the set is.
    ///
    /// # Errors
    /// When there is no such set.
    pub fn open(place: &Place, key: &[u8]) -> Result<Self, CliError> {
        let mut client = place.connect()?;
        let info = client.call(&Command::new(["VINFO"]).arg(key))?;
        let Some(info) = pairs(&info) else {
            let key = String::from_utf8_lossy(key).into_owned();
            return Err(CliError::Data(format!("there is no vector set {key:?} on {}", place.name())));
        };
        let field = |name: &str| info.iter().find(|(known, _)| known == name).map(|(_, value)| value);
        let text =
            |name: &str| field(name).and_then(bulk).map(|text| String::from_utf8_lossy(&text).into_owned());
        let quantization = match text("quant-type").as_deref() {
            Some("f32") => "NOQUANT",
            Some("bin") => "BIN",
            _ => "Q8",
        };
        let count = |name: &str| field(name).and_then(number).unwrap_or(0);
        let shape = Shape {
            dim: usize::try_from(count("vector-dim")).unwrap_or(0),
            quantization: Some(quantization.to_owned()),
            metric: text("metric"),
            raw: text("raw"),
            index: text("index"),
            m: field("hnsw-m").and_then(number),
            ef: field("ef").and_then(number),
            model: text("model"),
            analyzer: text("analyzer"),
            fields: field("fields").and_then(fields).unwrap_or_default(),
        };
        let total = count("size");
        let is_vecdis = place.is_vecdis(&mut client)?;
        let mut source = Self {
            client,
            key: key.to_vec(),
            is_vecdis,
            shape,
            total,
            names: VecDeque::new(),
            after: Some(Vec::new()),
            documents: is_vecdis.then(|| b"0".to_vec()),
        };
        source.page()?;
        Ok(source)
    }

    /// Asks for the next names. VRANGE pages through them; a Redis that has none yet is asked for all at once.
    fn page(&mut self) -> Result<(), CliError> {
        let Some(after) = self.after.take() else { return Ok(()) };
        let start = if after.is_empty() { b"-".to_vec() } else { [b"(", &after[..]].concat() };
        let range = Command::new(["VRANGE"]).arg(self.key.clone()).arg(start).arg("+");
        let page = match self.client.call(&range.arg(PAGE_NAMES.to_string())) {
            Err(CliError::Answer { answer, .. }) if answer.contains("unknown command") => {
                let all = Command::new(["VRANDMEMBER"]).arg(self.key.clone()).arg(self.total.to_string());
                self.client.call(&all)?
            }
            answer => {
                let answer = answer?;
                if let BytesFrame::Array(items) = &answer
                    && items.len() == PAGE_NAMES
                {
                    self.after = items.last().and_then(bulk);
                }
                answer
            }
        };
        let BytesFrame::Array(items) = page else { return Err(unexpected("VRANGE")) };
        self.names.extend(items.iter().filter_map(bulk));
        Ok(())
    }

    fn records(&mut self, names: Vec<Vec<u8>>) -> Result<Vec<Record>, CliError> {
        let about = |command: &str, name: &[u8]| Command::new([command.as_bytes(), &self.key, name]);
        let commands: Vec<Command> = match self.is_vecdis {
            true => names
                .iter()
                .map(|name| {
                    let parts = ["WITHVECTOR", "WITHATTRIBS", "WITHTEXT", "WITHSPARSE"];
                    parts.into_iter().fold(about("VGET", name), |get, part| get.arg(part))
                })
                .collect(),
            false => names.iter().flat_map(|name| [about("VEMB", name), about("VGETATTR", name)]).collect(),
        };
        let answers = self.client.pipeline(&commands)?;
        let per_name = commands.len() / names.len().max(1);
        let mut records = Vec::new();
        for (element, answers) in names.into_iter().zip(answers.chunks(per_name)) {
            let record = match answers {
                [map] => {
                    let Some(parts) = pairs(map) else { continue };
                    let part =
                        |name: &str| parts.iter().find(|(known, _)| known == name).map(|(_, value)| value);
                    let further = part("fields").and_then(pairs).unwrap_or_default();
                    let weights = part("sparse").and_then(pairs).unwrap_or_default();
                    Record {
                        element,
                        vector: part("vector").and_then(floats),
                        attributes: part("attributes").and_then(bulk),
                        text: part("text").and_then(bulk),
                        fields: valued(further, floats),
                        sparse: valued(weights, float),
                        expires_ms: part("expires_ms").and_then(number),
                    }
                }
                [vector, attributes] => {
                    let (vector, attributes) = (floats(vector), bulk(attributes));
                    Record { element, vector, attributes, ..Record::default() }
                }
                _ => return Err(unexpected("VGET")),
            };
            // One without a vector has been removed meanwhile.
            if record.vector.is_some() {
                records.push(record);
            }
        }
        Ok(records)
    }
}

/// Names with what their values are read as.
fn valued<T>(
    pairs: Vec<(String, BytesFrame)>,
    read: impl Fn(&BytesFrame) -> Option<T>,
) -> BTreeMap<String, T> {
    pairs.into_iter().filter_map(|(name, value)| Some((name, read(&value)?))).collect()
}

/// Names and dimensions of the fields that VINFO tells.
fn fields(frame: &BytesFrame) -> Option<Vec<(String, usize)>> {
    let dim = |sizes: &BytesFrame| {
        let (_, dim) = pairs(sizes)?.into_iter().find(|(name, _)| name == "dim")?;
        usize::try_from(number(&dim)?).ok()
    };
    pairs(frame)?.into_iter().map(|(name, sizes)| Some((name, dim(&sizes)?))).collect()
}

fn floats(frame: &BytesFrame) -> Option<Vec<f32>> {
    let BytesFrame::Array(items) = frame else { return None };
    items.iter().map(float).collect()
}

fn float(item: &BytesFrame) -> Option<f32> {
    String::from_utf8(bulk(item)?).ok()?.parse().ok()
}

impl Source for ServerSource {
    fn total(&self) -> Option<u64> {
        Some(self.total)
    }

    fn shape(&self) -> Shape {
        self.shape.clone()
    }

    fn next(&mut self) -> Result<Vec<Record>, CliError> {
        loop {
            if self.names.is_empty() {
                self.page()?;
            }
            let count = self.names.len().min(BATCH_RECORDS);
            if count == 0 {
                return Ok(Vec::new());
            }
            let names = self.names.drain(..count).collect();
            let records = self.records(names)?;
            if !records.is_empty() {
                return Ok(records);
            }
        }
    }

    fn next_documents(&mut self) -> Result<Vec<Entry>, CliError> {
        let mut found = Vec::new();
        while let Some(cursor) = self.documents.take() {
            let about = |verb: &str| Command::new(["VDOC", verb]).arg(self.key.clone());
            let answer =
                self.client.call(&about("LIST").arg(cursor).arg("COUNT").arg(BATCH_RECORDS.to_string()))?;
            let BytesFrame::Array(parts) = answer else { return Err(unexpected("VDOC LIST")) };
            let [next, BytesFrame::Array(uris)] = &parts[..] else { return Err(unexpected("VDOC LIST")) };
            let uris: Vec<Vec<u8>> = uris.iter().filter_map(bulk).collect();
            self.documents = bulk(next).filter(|next| next != b"0");
            let dumps: Vec<Command> = uris.iter().map(|uri| about("DUMP").arg(uri.clone())).collect();
            let dumps = self.client.pipeline(&dumps)?;
            // One without a dump has been removed meanwhile.
            let entry = |(uri, dump): (Vec<u8>, BytesFrame)| Some(Entry { uri, dump: bulk(&dump)? });
            found.extend(uris.into_iter().zip(dumps).filter_map(entry));
            if !found.is_empty() {
                break;
            }
        }
        Ok(found)
    }
}

/// Adds to a set.
pub struct ServerSink {
    client: Client,
    key: Vec<u8>,
    is_vecdis: bool,
    quantization: Option<String>,
    /// What Redis does not keep, and how many of it there were.
    lost: [(&'static str, usize); 4],
}

impl ServerSink {
    /// Makes the set where it is not there and its source says what it is.
    ///
    /// # Errors
    /// When the server cannot have such a set.
    pub fn open(place: &Place, key: &[u8], shape: Shape) -> Result<Self, CliError> {
        let mut client = place.connect()?;
        let is_vecdis = place.is_vecdis(&mut client)?;
        let exists = client.call(&Command::new(["EXISTS"]).arg(key))? == BytesFrame::Integer(1);
        let metric = shape.metric.as_deref().unwrap_or("cosine");
        if is_vecdis && !exists && shape.dim > 0 {
            client.call(&create(key, &shape))?;
        } else if !is_vecdis && !metric.eq_ignore_ascii_case("cosine") {
            return Err(CliError::Data(format!(
                "the set's metric is {metric}; {} knows cosine only",
                place.name()
            )));
        }
        let lost = ["texts", "vectors in fields", "sparse vectors", "ends of elements"].map(|what| (what, 0));
        Ok(Self { client, key: key.to_vec(), is_vecdis, quantization: shape.quantization, lost })
    }

    /// Adds a record: its own vector, then those in fields. Nothing if its time is over.
    fn adds(&self, mut record: Record) -> Result<Vec<Command>, CliError> {
        let now_ms = clock::now_ms();
        if record.expires_ms.is_some_and(|at_ms| at_ms <= now_ms) {
            return Ok(Vec::new());
        }
        let (element, fields) = (record.element.clone(), std::mem::take(&mut record.fields));
        let in_field = |(name, vector): (String, Vec<f32>)| {
            let add = Command::new(["VADD"]).arg(self.key.clone()).arg("FP32").arg(blob(&vector));
            add.arg(element.clone()).arg("FIELD").arg(name)
        };
        let fields: Vec<Command> = match self.is_vecdis {
            true => fields.into_iter().map(in_field).collect(),
            false => Vec::new(),
        };
        Ok(std::iter::once(self.add(record, now_ms)?).chain(fields).collect())
    }

    fn add(&self, record: Record, now_ms: u64) -> Result<Command, CliError> {
        let add = Command::new(["VADD"]).arg(self.key.clone());
        let text = record.text.filter(|_| self.is_vecdis || record.vector.is_none());
        let mut add = match (&record.vector, &text) {
            (Some(vector), _) => add.arg("FP32").arg(blob(vector)),
            (None, Some(text)) if self.is_vecdis => add.arg("TEXT").arg(text.clone()),
            _ => return Err(CliError::Data("Redis embeds no texts: a vector is needed".to_owned())),
        };
        add = add.arg(record.element);
        if let Some(quantization) = &self.quantization {
            add = add.arg(quantization.as_str());
        }
        if let Some(attributes) = record.attributes {
            add = add.arg("SETATTR").arg(attributes);
        }
        if let (Some(_), Some(text)) = (record.vector, text) {
            add = add.arg("SETTEXT").arg(text);
        }
        if !self.is_vecdis {
            return Ok(add);
        }
        if !record.sparse.is_empty() {
            add = add.arg("SETSPARSE").arg(record.sparse.len().to_string());
            for (term, weight) in record.sparse {
                add = add.arg(term).arg(weight.to_string());
            }
        }
        if let Some(at_ms) = record.expires_ms {
            add = add.arg("EX").arg(at_ms.saturating_sub(now_ms).div_ceil(1000).to_string());
        }
        Ok(add)
    }
}

/// The command that makes such a set.
fn create(key: &[u8], shape: &Shape) -> Command {
    let mut create = Command::new(["VCREATE"]).arg(key).arg("DIM").arg(shape.dim.to_string());
    create = create.arg(shape.quantization.as_deref().unwrap_or("Q8"));
    let [m, ef] = [shape.m, shape.ef].map(|number| number.map(|number| number.to_string()));
    let options = [
        ("METRIC", &shape.metric),
        ("RAW", &shape.raw),
        ("INDEX", &shape.index),
        ("M", &m),
        ("EF", &ef),
        ("MODEL", &shape.model),
        ("ANALYZER", &shape.analyzer),
    ];
    for (option, value) in options {
        if let Some(value) = value {
            create = create.arg(option).arg(value.as_str());
        }
    }
    for (name, dim) in &shape.fields {
        create = create.arg("FIELD").arg(name.as_str()).arg("DIM").arg(dim.to_string());
    }
    create
}

fn blob(vector: &[f32]) -> Vec<u8> {
    vector.iter().flat_map(|component| component.to_le_bytes()).collect()
}

impl Sink for ServerSink {
    fn put(&mut self, records: Vec<Record>) -> Result<(), CliError> {
        if !self.is_vecdis {
            for record in &records {
                let has = [
                    usize::from(record.text.is_some()),
                    record.fields.len(),
                    usize::from(!record.sparse.is_empty()),
                    usize::from(record.expires_ms.is_some()),
                ];
                self.lost.iter_mut().zip(has).for_each(|((_, count), more)| *count += more);
            }
        }
        let adds = records.into_iter().map(|record| self.adds(record)).collect::<Result<Vec<_>, _>>()?;
        self.client.pipeline(&adds.concat()).map(drop)
    }

    fn put_documents(&mut self, documents: Vec<Entry>) -> Result<bool, CliError> {
        if self.is_vecdis {
            let restore = |Entry { uri, dump }| {
                Command::new(["VDOC", "RESTORE"]).arg(self.key.clone()).arg(uri).arg(dump)
            };
            let restores: Vec<Command> = documents.into_iter().map(restore).collect();
            self.client.pipeline(&restores)?;
        }
        Ok(self.is_vecdis)
    }

    fn finish(&mut self) -> Result<(), CliError> {
        Ok(())
    }

    fn lost(&self) -> Option<String> {
        let lost = self.lost.iter().filter(|(_, count)| *count > 0);
        let lost: Vec<String> =
            lost.map(|(what, count)| format!("Redis keeps no {what}: {count} are lost")).collect();
        (!lost.is_empty()).then(|| lost.join("; "))
    }
}
