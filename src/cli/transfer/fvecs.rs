//! `.fvecs`: each vector is its dimension (i32) and its components (f32), little-endian.

use std::fs::File;
use std::io::{BufReader, ErrorKind, Read};
use std::path::{Path, PathBuf};

use super::{
    BATCH_RECORDS, MAX_DIMENSION, Names, NamesOut, ONLY_VECTORS, Part, Record, Sink, Source, vector_of, wrong,
};
use crate::cli::CliError;

/// Reads one.
pub struct Reader {
    path: PathBuf,
    reader: BufReader<File>,
    names: Names,
    size_bytes: u64,
    /// Of the first vector, as long as none has been read.
    total: Option<u64>,
}

impl Reader {
    /// Opens one.
    ///
    /// # Errors
    /// When its size cannot be read.
    pub fn open(path: &Path, reader: BufReader<File>) -> Result<Self, CliError> {
        let size_bytes = reader.get_ref().metadata().map_err(|error| wrong(path, error))?.len();
        Ok(Self { path: path.to_owned(), reader, names: Names::beside(path), size_bytes, total: None })
    }

    fn vector(&mut self) -> Result<Option<Vec<f32>>, CliError> {
        let mut dims = [0; 4];
        match self.reader.read_exact(&mut dims) {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(None),
            read => read.map_err(|error| wrong(&self.path, error))?,
        }
        let dims = usize::try_from(i32::from_le_bytes(dims)).unwrap_or(0);
        if !(1..=MAX_DIMENSION).contains(&dims) {
            return Err(wrong(&self.path, format!("a vector has {dims} dimensions")));
        }
        let mut bytes = vec![0; dims * 4];
        self.reader.read_exact(&mut bytes).map_err(|error| wrong(&self.path, error))?;
        self.total = Some(self.size_bytes / (bytes.len() as u64 + 4));
        let (components, _) = bytes.as_chunks::<4>();
        Ok(Some(components.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()))
    }
}

impl Source for Reader {
    fn total(&self) -> Option<u64> {
        self.total
    }

    fn next(&mut self) -> Result<Vec<Record>, CliError> {
        let mut records = Vec::new();
        while records.len() < BATCH_RECORDS {
            let Some(vector) = self.vector()? else { break };
            records.push(Record { element: self.names.next()?, vector: Some(vector), ..Record::default() });
        }
        Ok(records)
    }
}

/// Writes one.
pub struct Writer {
    part: Part,
    names: NamesOut,
}

impl Writer {
    /// Begins.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn create(part: Part) -> Result<Self, CliError> {
        let names = NamesOut::beside(&part.target)?;
        Ok(Self { part, names })
    }
}

impl Sink for Writer {
    fn put(&mut self, records: Vec<Record>) -> Result<(), CliError> {
        for record in records {
            let vector = vector_of(&record)?;
            self.names.put(&record.element)?;
            let dims = i32::try_from(vector.len()).unwrap_or(i32::MAX);
            self.part.write(&dims.to_le_bytes())?;
            self.part.write(bytemuck::cast_slice(vector))?;
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<(), CliError> {
        self.names.0.finish()?;
        self.part.finish()
    }

    fn lost(&self) -> Option<String> {
        Some(ONLY_VECTORS.to_owned())
    }
}
