//! `.npy`: an array of numpy's, two dimensions in C order.

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::{
    BATCH_RECORDS, MAX_DIMENSION, Names, NamesOut, ONLY_VECTORS, Part, Record, Sink, Source, vector_of, wrong,
};
use crate::cli::CliError;

const MAGIC: &[u8] = b"\x93NUMPY";
/// Bytes of the header that is written: room for any number of rows.
const HEADER_BYTES: usize = 128;
/// Bytes a header may have.
const MAX_HEADER_BYTES: usize = 64 << 10;

/// How a number is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    F16,
    F32,
    F64,
    I8,
    U8,
}

impl Kind {
    fn size_bytes(self) -> usize {
        match self {
            Self::F64 => 8,
            Self::F32 => 4,
            Self::F16 => 2,
            Self::I8 | Self::U8 => 1,
        }
    }

    #[expect(clippy::cast_possible_truncation, reason = "f64 becomes f32: what servers take")]
    fn read(self, bytes: &[u8]) -> f32 {
        match (self, bytes) {
            (Self::F64, &[a, b, c, d, e, f, g, h]) => f64::from_le_bytes([a, b, c, d, e, f, g, h]) as f32,
            (Self::F32, &[a, b, c, d]) => f32::from_le_bytes([a, b, c, d]),
            (Self::F16, &[a, b]) => half(u16::from_le_bytes([a, b])),
            (Self::I8, &[a]) => f32::from(i8::from_le_bytes([a])),
            (Self::U8, &[a]) => f32::from(a),
            _ => unreachable!("the bytes are cut at the size"),
        }
    }
}

/// An IEEE 754 number of 16 bits.
fn half(bits: u16) -> f32 {
    let (sign, exponent, fraction) =
        (u32::from(bits >> 15), u32::from(bits >> 10 & 31), u32::from(bits & 1023));
    match exponent {
        0 => {
            // 1023 fits f32.
            let value = f32::from(bits & 1023) * 2.0f32.powi(-24);
            if sign == 1 { -value } else { value }
        }
        31 => f32::from_bits(sign << 31 | 0x7f80_0000 | fraction << 13),
        _ => f32::from_bits(sign << 31 | (exponent + 112) << 23 | fraction << 13),
    }
}

/// Reads one.
pub struct Reader {
    path: PathBuf,
    reader: BufReader<File>,
    names: Names,
    kind: Kind,
    rows: u64,
    dims: usize,
    left: u64,
}

impl Reader {
    /// Reads the header.
    ///
    /// # Errors
    /// When it is not such an array.
    pub fn open(path: &Path, mut reader: BufReader<File>) -> Result<Self, CliError> {
        let bad = |what: &str| wrong(path, format!("{what}: a .npy file of two dimensions is needed"));
        let mut start = [0; 10];
        reader.read_exact(&mut start).map_err(|error| wrong(path, error))?;
        if &start[..6] != MAGIC {
            return Err(bad("it does not begin as one"));
        }
        // Version 1 has two bytes for the header's length, later ones four.
        let mut length = usize::from(u16::from_le_bytes([start[8], start[9]]));
        if start[6] > 1 {
            let mut more = [0; 2];
            reader.read_exact(&mut more).map_err(|error| wrong(path, error))?;
            length |= usize::from(u16::from_le_bytes(more)) << 16;
        }
        if length > MAX_HEADER_BYTES {
            return Err(bad("its header is too long"));
        }
        let mut header = vec![0; length];
        reader.read_exact(&mut header).map_err(|error| wrong(path, error))?;
        let header = String::from_utf8_lossy(&header);
        let (kind, rows, dims) = parse(&header).ok_or_else(|| bad(header.trim()))?;
        if !(1..=MAX_DIMENSION).contains(&dims) {
            return Err(wrong(path, format!("it has {dims} dimensions")));
        }
        Ok(Self { path: path.to_owned(), reader, names: Names::beside(path), kind, rows, dims, left: rows })
    }
}

/// Kind, rows and dimensions, from the text of a header.
fn parse(header: &str) -> Option<(Kind, u64, usize)> {
    let after = |name: &str| header.split_once(name).map(|(_, rest)| rest.trim_start_matches([' ', ':']));
    let kind = match after("'descr'")?.split('\'').nth(1)? {
        "<f2" => Kind::F16,
        "<f4" => Kind::F32,
        "<f8" => Kind::F64,
        "|i1" => Kind::I8,
        "|u1" => Kind::U8,
        _ => return None,
    };
    if !after("'fortran_order'")?.starts_with("False") {
        return None;
    }
    let (shape, _) = after("'shape'")?.strip_prefix('(')?.split_once(')')?;
    let (rows, dims) = shape.trim_end_matches([',', ' ']).split_once(',')?;
    Some((kind, rows.trim().parse().ok()?, dims.trim().parse().ok()?))
}

impl Source for Reader {
    fn total(&self) -> Option<u64> {
        Some(self.rows)
    }

    fn next(&mut self) -> Result<Vec<Record>, CliError> {
        let count = self.left.min(BATCH_RECORDS as u64);
        self.left -= count;
        let mut row = vec![0; self.dims * self.kind.size_bytes()];
        let mut records = Vec::new();
        for _ in 0..count {
            self.reader.read_exact(&mut row).map_err(|error| wrong(&self.path, error))?;
            let vector =
                row.chunks_exact(self.kind.size_bytes()).map(|bytes| self.kind.read(bytes)).collect();
            records.push(Record { element: self.names.next()?, vector: Some(vector), ..Record::default() });
        }
        Ok(records)
    }
}

/// Writes one, f32.
pub struct Writer {
    part: Part,
    names: NamesOut,
    dims: usize,
    rows: u64,
}

impl Writer {
    /// Makes room for the header.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn create(mut part: Part, dims: usize) -> Result<Self, CliError> {
        let names = NamesOut::beside(&part.target)?;
        part.write(&[0; HEADER_BYTES])?;
        Ok(Self { part, names, dims, rows: 0 })
    }
}

impl Sink for Writer {
    fn put(&mut self, records: Vec<Record>) -> Result<(), CliError> {
        for record in records {
            let vector = vector_of(&record)?;
            if vector.len() != self.dims {
                return Err(wrong(&self.part.target, "the set's dimension has changed meanwhile"));
            }
            self.names.put(&record.element)?;
            self.part.write(bytemuck::cast_slice(vector))?;
            self.rows += 1;
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<(), CliError> {
        let (rows, dims) = (self.rows, self.dims);
        let text = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {dims}), }}");
        let mut header = MAGIC.to_vec();
        header.extend([1, 0, 118, 0]);
        header.extend(text.bytes());
        header.resize(HEADER_BYTES - 1, b' ');
        header.push(b'\n');
        let out = &mut self.part.out;
        let written = out.seek(SeekFrom::Start(0)).and_then(|_| out.write_all(&header));
        written.map_err(|error| wrong(&self.part.target, error))?;
        self.names.0.finish()?;
        self.part.finish()
    }

    fn lost(&self) -> Option<String> {
        Some(ONLY_VECTORS.to_owned())
    }
}
