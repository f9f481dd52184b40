//! Rows of a sealed chunk, read from the tagged sections of an immutable mapped file.

use bytes::Bytes;

use super::chunk::Chunk;
use super::{CollectionError, MAX_CHUNK_ATTRIBUTE_BYTES, Tag};
use crate::disk::DiskError;
use crate::disk::sections::{LazySection, Section, SectionFile};
use crate::text::Analyzer;
use crate::text::sealed::{IndexArrays, SealedIndex};
use crate::vector::arena::{NewRow, RowShape, Run};
use crate::vector::kernel::RowRef;
use crate::vector::quant::Scalars;

/// Mapped rows; see the module's text.
pub struct SealedRows {
    shape: RowShape,
    len: usize,
    file: SectionFile,
    codes: Bytes,
    scales: Bytes,
    norms: Bytes,
    residuals: Bytes,
    biases: Bytes,
    originals: Originals,
    names: Strings,
    attributes: Strings,
    texts: Option<Texts>,
    sparse: Option<Texts>,
    text_index: Option<SealedIndex>,
}

/// Texts, or sparse vectors: where each begins, verified when the file was opened; the bytes where they are touched.
pub(super) struct Texts {
    starts: Bytes,
    bytes: LazySection,
}

impl Texts {
    /// Those in two sections of a file with `len` rows: none if it has neither; an error if they do not fit together.
    pub(super) fn open(
        file: &SectionFile,
        starts: Tag,
        bytes: Tag,
        len: usize,
    ) -> Result<Option<Self>, &'static str> {
        match (file.section(starts as u32), file.lazy_section(bytes as u32)) {
            (Some(starts), Some(bytes)) if are_sound(&starts, len, bytes.len()) => {
                Ok(Some(Self { starts, bytes }))
            }
            (None, None) => Ok(None),
            _ => Err("its texts or sparse vectors overlap or are cut"),
        }
    }

    /// The text of a row. The first byte says that there is one, which may be empty.
    pub(super) fn get(&self, offset: usize) -> Result<Option<&[u8]>, DiskError> {
        let starts: &[u32] = bytemuck::cast_slice(&self.starts);
        let text = self.bytes.read(starts[offset] as usize..starts[offset + 1] as usize)?;
        Ok(text.get(1..))
    }
}

enum Originals {
    /// Verified when the file was opened, because every scan reads them.
    Resident(Bytes),
    /// Verified where they are touched.
    Lazy(LazySection),
}

/// Byte strings: where each begins (one u32 more than there are strings), and their bytes.
pub(super) struct Strings {
    starts: Bytes,
    bytes: Bytes,
}

impl Strings {
    /// The strings in two sections of a file, if they are `len` that lie one after the other.
    pub(super) fn open(file: &SectionFile, starts: Tag, bytes: Tag, len: usize) -> Option<Self> {
        let section = |tag: Tag| file.section(tag as u32).unwrap_or_default();
        let strings = Self { starts: section(starts), bytes: section(bytes) };
        are_sound(&strings.starts, len, strings.bytes.len()).then_some(strings)
    }

    pub(super) fn get(&self, index: usize) -> &[u8] {
        let starts: &[u32] = bytemuck::cast_slice(&self.starts);
        &self.bytes[starts[index] as usize..starts[index + 1] as usize]
    }
}

/// Whether these are the starts of `len` strings that lie one after the other inside that many bytes.
fn are_sound(starts: &[u8], len: usize, size_bytes: usize) -> bool {
    match bytemuck::try_cast_slice::<u8, u32>(starts) {
        Ok(starts) => {
            starts.len() == len + 1
                && starts.is_sorted()
                && starts.last().is_some_and(|&end| end as usize <= size_bytes)
        }
        Err(_) => false,
    }
}

/// Sections begin at multiples of 4096, so their floats are aligned; an empty one may be anywhere.
pub(super) fn as_floats(bytes: &[u8]) -> &[f32] {
    if bytes.is_empty() { &[] } else { bytemuck::cast_slice(bytes) }
}

impl SealedRows {
    /// Takes the sections of a verified file as `len` rows of this shape.
    ///
    /// # Errors
    /// When a section is missing or has another size than the rows need.
    pub fn open(file: SectionFile, shape: RowShape, len: usize) -> Result<Self, CollectionError> {
        let damaged = |what| CollectionError::Sealed { file: file.name().to_owned(), what };
        let section = |tag: Tag| file.section(tag as u32).unwrap_or_default();
        let floats = |tag: Tag, count: usize| {
            let bytes = section(tag);
            if bytes.len() != count * size_of::<f32>() {
                return Err(damaged("a section does not have the size of its rows"));
            }
            Ok(bytes)
        };
        let strings = |starts: Tag, bytes: Tag| {
            Strings::open(&file, starts, bytes, len).ok_or_else(|| damaged("its strings overlap or are cut"))
        };
        let texts = Texts::open(&file, Tag::TextStarts, Tag::Texts, len).map_err(damaged)?;
        let sparse = Texts::open(&file, Tag::SparseStarts, Tag::Sparse, len).map_err(damaged)?;
        let text_index = SealedIndex::open(&file, len).map_err(damaged)?;
        let codes = section(Tag::Codes);
        if codes.len() != len * shape.code_bytes {
            return Err(damaged("its codes do not have the size of its rows"));
        }
        let originals = if shape.code_bytes == 0 {
            Originals::Resident(floats(Tag::Originals, len * shape.original_len)?)
        } else {
            let section =
                file.lazy_section(Tag::Originals as u32).ok_or_else(|| damaged("it has no originals"))?;
            if section.len() != len * shape.original_len * size_of::<f32>() {
                return Err(damaged("its originals do not have the size of its rows"));
            }
            Originals::Lazy(section)
        };
        Ok(Self {
            shape,
            len,
            codes,
            scales: floats(Tag::Scales, len)?,
            norms: floats(Tag::Norms, len)?,
            residuals: floats(Tag::Residuals, len)?,
            biases: floats(Tag::Biases, if shape.biased { len } else { 0 })?,
            originals,
            names: strings(Tag::NameStarts, Tag::Names)?,
            attributes: strings(Tag::AttributeStarts, Tag::Attributes)?,
            texts,
            sparse,
            text_index,
            file,
        })
    }

    /// Indexes the texts of a file that was written without an index of them. A text that cannot be read is left out.
    #[must_use]
    pub fn with_text_index(mut self, analyzer: Analyzer) -> Self {
        if let (None, Some(texts)) = (&self.text_index, &self.texts) {
            let text = |offset| texts.get(offset).unwrap_or_default();
            self.text_index =
                IndexArrays::new(analyzer, (0..self.len).map(text)).map(IndexArrays::into_index);
        }
        self
    }

    /// The index of its texts, if it has any.
    pub fn text_index(&self) -> Option<&SealedIndex> {
        self.text_index.as_ref()
    }

    /// The file's name.
    pub fn file_name(&self) -> &str {
        self.file.name()
    }

    /// The hash that pins the file's content.
    pub fn pin(&self) -> [u8; 32] {
        self.file.pin()
    }

    /// Bytes of names, attributes, texts and sparse vectors.
    pub fn string_bytes(&self) -> usize {
        let lazy = self.texts.iter().chain(&self.sparse);
        self.names.bytes.len()
            + self.attributes.bytes.len()
            + lazy.map(|texts| texts.bytes.len()).sum::<usize>()
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Verifies what is verified only when it is touched: an error for each damaged block of originals, texts and postings.
    pub fn damages(&self) -> Vec<DiskError> {
        let mut damages = match &self.originals {
            Originals::Resident(_) => Vec::new(),
            Originals::Lazy(section) => section.damages(),
        };
        let strings = self.texts.iter().chain(&self.sparse);
        damages.extend(strings.flat_map(|texts| texts.bytes.damages()));
        damages.extend(self.text_index.iter().flat_map(SealedIndex::damages));
        damages
    }

    /// Codes of a row.
    pub fn codes(&self, offset: usize) -> &[u8] {
        &self.codes[offset * self.shape.code_bytes..(offset + 1) * self.shape.code_bytes]
    }

    /// The f32 original of a row.
    ///
    /// # Errors
    /// When the file is damaged there.
    pub fn original(&self, offset: usize) -> Result<&[f32], CollectionError> {
        let len = self.shape.original_len * size_of::<f32>();
        let range = offset * len..(offset + 1) * len;
        let bytes = match &self.originals {
            Originals::Resident(bytes) => &bytes[range],
            Originals::Lazy(section) => section.read(range)?,
        };
        Ok(as_floats(bytes))
    }

    /// Scalars of a row.
    pub fn scalars(&self, offset: usize) -> Scalars {
        let at = |bytes: &Bytes| as_floats(bytes)[offset];
        Scalars {
            scale: at(&self.scales),
            norm: at(&self.norms),
            residual: at(&self.residuals),
            bias: if self.shape.biased { at(&self.biases) } else { 0.0 },
        }
    }

    /// A row to be scored by itself.
    #[inline]
    pub fn row(&self, offset: usize) -> RowRef<'_> {
        let bytes = match &self.originals {
            Originals::Lazy(_) => self.codes(offset),
            Originals::Resident(bytes) => {
                let len = self.shape.original_len * size_of::<f32>();
                &bytes[offset * len..(offset + 1) * len]
            }
        };
        let bias = if self.shape.biased { Some(&as_floats(&self.biases)[offset]) } else { None };
        RowRef { bytes, scale: &as_floats(&self.scales)[offset], bias }
    }

    /// Element name of a row.
    pub fn name(&self, offset: usize) -> &[u8] {
        self.names.get(offset)
    }

    /// Attributes sealed with a row.
    pub fn attributes(&self, offset: usize) -> Option<&[u8]> {
        // The first byte says that there are attributes, which may be empty.
        self.attributes.get(offset).get(1..)
    }

    /// The text sealed with a row.
    ///
    /// # Errors
    /// When the file is damaged there.
    pub fn text(&self, offset: usize) -> Result<Option<&[u8]>, CollectionError> {
        Ok(self.texts.as_ref().map_or(Ok(None), |texts| texts.get(offset))?)
    }

    /// The sparse vector sealed with a row.
    ///
    /// # Errors
    /// When the file is damaged there.
    pub fn sparse(&self, offset: usize) -> Result<Option<&[u8]>, CollectionError> {
        Ok(self.sparse.as_ref().map_or(Ok(None), |sparse| sparse.get(offset))?)
    }

    /// Whether a row has a sparse vector.
    pub fn has_sparse(&self) -> bool {
        self.sparse.is_some()
    }

    /// The first `len` rows as one run.
    pub fn run(&self, len: usize) -> Run<'_> {
        let originals = match &self.originals {
            Originals::Resident(bytes) => &as_floats(bytes)[..len * self.shape.original_len],
            Originals::Lazy(_) => &[],
        };
        Run {
            first: 0,
            codes: &self.codes[..len * self.shape.code_bytes],
            originals,
            scales: &as_floats(&self.scales)[..len],
            biases: &as_floats(&self.biases)[..if self.shape.biased { len } else { 0 }],
            norms: &as_floats(&self.norms)[..len],
            residuals: &as_floats(&self.residuals)[..len],
        }
    }
}

/// The arrays of a chunk as older state files have them: without texts.
#[derive(Default, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct ArraysV1 {
    codes: Vec<u8>,
    originals: Vec<f32>,
    scales: Vec<f32>,
    norms: Vec<f32>,
    residuals: Vec<f32>,
    biases: Vec<f32>,
    name_starts: Vec<u32>,
    names: Vec<u8>,
    attribute_starts: Vec<u32>,
    attributes: Vec<u8>,
}

/// The arrays of a chunk as they are written: as sections of its file, or archived in the state file while the chunk is
/// still partial.
#[derive(Default, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct ArraysV2 {
    rows: ArraysV1,
    text_starts: Vec<u32>,
    texts: Vec<u8>,
    /// In files only: of a partial chunk the state file's entry has them itself.
    #[rkyv(with = rkyv::with::Skip)]
    sparse_starts: Vec<u32>,
    #[rkyv(with = rkyv::with::Skip)]
    sparse: Vec<u8>,
}

impl From<ArraysV1> for ArraysV2 {
    fn from(rows: ArraysV1) -> Self {
        let starts = vec![0; rows.name_starts.len()];
        let (texts, sparse) = (Vec::new(), Vec::new());
        Self { text_starts: starts.clone(), texts, sparse_starts: starts, sparse, rows }
    }
}

impl ArraysV2 {
    /// Copies a chunk's rows, dead ones too (rows keep their numbers).
    ///
    /// # Errors
    /// As [`Self::push`].
    pub fn copy(chunk: &Chunk, shape: RowShape) -> Result<Self, CollectionError> {
        let mut arrays = Self::new();
        for (_, offset) in (0..chunk.len).zip(0..=u16::MAX) {
            arrays.push(chunk, offset, shape)?;
        }
        Ok(arrays)
    }

    /// Without rows.
    pub fn new() -> Self {
        ArraysV1 { name_starts: vec![0], attribute_starts: vec![0], ..ArraysV1::default() }.into()
    }

    /// Adds a copy of a chunk's row. Attributes that would be more than a chunk's file has are left out.
    ///
    /// # Errors
    /// When the row cannot be read, or names or texts are too long together for their 32-bit positions.
    pub fn push(&mut self, chunk: &Chunk, offset: u16, shape: RowShape) -> Result<(), CollectionError> {
        let too_long = |_| CollectionError::TooLong;
        let at = usize::from(offset);
        self.rows.codes.extend_from_slice(chunk.rows.codes(at));
        self.rows.originals.extend_from_slice(chunk.rows.original(at)?);
        let scalars = chunk.rows.scalars(at);
        self.rows.scales.push(scalars.scale);
        self.rows.norms.push(scalars.norm);
        self.rows.residuals.push(scalars.residual);
        if shape.biased {
            self.rows.biases.push(scalars.bias);
        }
        self.rows.names.extend_from_slice(chunk.rows.name(at));
        self.rows.name_starts.push(u32::try_from(self.rows.names.len()).map_err(too_long)?);
        if let Some(attributes) = chunk.attributes(offset)
            && self.rows.attributes.len() + attributes.len() < MAX_CHUNK_ATTRIBUTE_BYTES
        {
            self.rows.attributes.push(1);
            self.rows.attributes.extend_from_slice(attributes);
        }
        self.rows.attribute_starts.push(u32::try_from(self.rows.attributes.len()).map_err(too_long)?);
        if let Some(text) = chunk.text(offset)? {
            self.texts.push(1);
            self.texts.extend_from_slice(text);
        }
        self.text_starts.push(u32::try_from(self.texts.len()).map_err(too_long)?);
        if let Some(sparse) = chunk.sparse(offset)? {
            self.sparse.push(1);
            self.sparse.extend_from_slice(sparse);
        }
        self.sparse_starts.push(u32::try_from(self.sparse.len()).map_err(too_long)?);
        Ok(())
    }

    /// A row's codes, scalars, original and name; `None` if the arrays do not fit together.
    pub fn row(&self, at: usize, shape: RowShape) -> Option<NewRow<'_>> {
        let scalars = Scalars {
            scale: *self.rows.scales.get(at)?,
            norm: *self.rows.norms.get(at)?,
            residual: *self.rows.residuals.get(at)?,
            bias: if shape.biased { *self.rows.biases.get(at)? } else { 0.0 },
        };
        Some(NewRow {
            codes: self.rows.codes.get(at * shape.code_bytes..(at + 1) * shape.code_bytes)?,
            scalars,
            original: self.rows.originals.get(at * shape.original_len..(at + 1) * shape.original_len)?,
            name: string(&self.rows.name_starts, &self.rows.names, at)?,
        })
    }

    /// A row's text, if it has one; `None` if the arrays do not fit together.
    pub fn text(&self, at: usize) -> Option<Option<&[u8]>> {
        string(&self.text_starts, &self.texts, at).map(|text| text.get(1..))
    }

    /// Bytes of names, attributes, texts and sparse vectors.
    pub fn string_bytes(&self) -> usize {
        self.rows.names.len() + self.rows.attributes.len() + self.texts.len() + self.sparse.len()
    }

    /// The sections of the chunk's file.
    pub fn sections(&self, shape: RowShape) -> Vec<Section<'_>> {
        let section = |tag: Tag, bytes, lazy| Section { tag: tag as u32, parts: vec![bytes], lazy };
        let mut sections = vec![
            section(Tag::Codes, &self.rows.codes[..], false),
            section(Tag::Scales, bytemuck::cast_slice(&self.rows.scales), false),
            section(Tag::Norms, bytemuck::cast_slice(&self.rows.norms), false),
            section(Tag::Residuals, bytemuck::cast_slice(&self.rows.residuals), false),
            section(Tag::Biases, bytemuck::cast_slice(&self.rows.biases), false),
            section(Tag::NameStarts, bytemuck::cast_slice(&self.rows.name_starts), false),
            section(Tag::Names, &self.rows.names, false),
            section(Tag::AttributeStarts, bytemuck::cast_slice(&self.rows.attribute_starts), false),
            section(Tag::Attributes, &self.rows.attributes, false),
            section(Tag::Originals, bytemuck::cast_slice(&self.rows.originals), shape.code_bytes != 0),
        ];
        if !self.texts.is_empty() {
            sections.push(section(Tag::TextStarts, bytemuck::cast_slice(&self.text_starts), false));
            sections.push(section(Tag::Texts, &self.texts, true));
        }
        if !self.sparse.is_empty() {
            sections.push(section(Tag::SparseStarts, bytemuck::cast_slice(&self.sparse_starts), false));
            sections.push(section(Tag::Sparse, &self.sparse, true));
        }
        sections
    }

    /// The index of the texts; none if there is no text.
    ///
    /// # Errors
    /// When there are too many terms for 32-bit positions.
    pub fn text_index(&self, analyzer: Analyzer) -> Result<Option<IndexArrays>, CollectionError> {
        if self.texts.is_empty() {
            return Ok(None);
        }
        let texts = (0..self.text_starts.len() - 1).map(|at| self.text(at).flatten());
        Ok(Some(IndexArrays::new(analyzer, texts).ok_or(CollectionError::TooLong)?))
    }

    /// Puts the rows of a partial chunk back into memory; `None` if the arrays do not fit together.
    pub fn restore(
        &self,
        number: u32,
        shape: RowShape,
        len: usize,
        live: Vec<u64>,
        analyzer: Analyzer,
    ) -> Option<Chunk> {
        let mut chunk = Chunk::new(number, shape);
        // All rows first: strings may make the chunk full.
        for at in 0..len {
            chunk.push(&self.row(at, shape)?)?;
        }
        for (at, offset) in (0..len).zip(0..=u16::MAX) {
            if let [1, attributes @ ..] = string(&self.rows.attribute_starts, &self.rows.attributes, at)? {
                chunk.set_attributes(offset, Some(attributes.into()));
            }
            if let Some(text) = self.text(at)? {
                chunk.set_text(offset, text.into(), &analyzer.document(text));
            }
        }
        chunk.set_live(live).then_some(chunk)
    }
}

/// A string of those that `starts` divide the bytes into.
fn string<'a>(starts: &[u32], bytes: &'a [u8], at: usize) -> Option<&'a [u8]> {
    let (start, end) = (*starts.get(at)? as usize, *starts.get(at + 1)? as usize);
    bytes.get(start..end)
}
