//! A collection: named elements with a vector and attributes, kept as rows in chunks.
//!
//! A [`Collection`] value is one version. Published versions never change; the writer clones one (cheap: chunks are
//! shared), changes its clone and publishes that. Rows that exist in memory but came later than a version are beyond
//! its `len` or not live in its bitmaps, so they are invisible to it.

pub mod chunk;
pub mod columns;
pub mod compaction;
pub mod documents;
pub mod expiry;
pub mod fields;
pub mod filter;
pub mod filter_cache;
mod found;
pub mod fusion;
pub mod ids;
pub mod index;
pub mod names;
pub mod overlay;
pub mod plan;
pub mod salvage;
mod scan;
pub mod sealed;
pub mod search;
mod sketch_scan;
pub mod sketches;
pub mod sparse;
#[cfg(test)]
mod tests;
pub mod text_search;
pub mod tune;
mod walk;

use std::borrow::Cow;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use bytes::Bytes;
use thiserror::Error;

use crate::disk::DiskError;
use crate::embed::ModelId;
use crate::text::bm25::TextStats;
use crate::text::{Analyzer, Document};
use crate::vector::arena::{NewRow, RowShape};
use crate::vector::kernel;
use crate::vector::quant::{self, Scalars};
use crate::vector::{Layout, Metric};
pub use chunk::{Attributes, Chunk, Rows, Text};
use documents::Documents;
use expiry::Expiries;
use ids::{Entry, IdTable, PendingIds, hash_name};
use index::Index;
use overlay::Overlay;
use sketches::Sketches;

/// A chunk is full at this many bytes of originals (or at 65,536 rows).
pub const MAX_CHUNK_ORIGINAL_BYTES: usize = if cfg!(test) { 16 << 10 } else { 128 << 20 };
/// A chunk is full at this many bytes of element names.
pub const MAX_CHUNK_NAME_BYTES: usize = 1 << 30;
/// Dimensions a vector may have.
pub const MAX_DIMENSION: usize = 65_536;
/// Bytes an element's name may have.
pub const MAX_ELEMENT_BYTES: usize = 64 << 10;
/// Bytes an element's attributes may have.
pub const MAX_ATTRIBUTE_BYTES: usize = 1 << 20;

/// A chunk is full at this many bytes of texts.
pub const MAX_CHUNK_TEXT_BYTES: usize = 1 << 30;
/// A chunk is full at this many bytes of attributes, and its file has no more of them: what is set later stays in memory and in
/// state files.
pub const MAX_CHUNK_ATTRIBUTE_BYTES: usize = if cfg!(test) { 1 << 20 } else { 1 << 30 };
/// Bytes an element's text may have.
pub const MAX_TEXT_BYTES: usize = 16 << 20;

/// What can be wrong with a collection's data.
#[derive(Debug, Error)]
pub enum CollectionError {
    /// A sealed chunk's file does not hold what its rows need.
    #[error("data file {file} is damaged: {what}")]
    Sealed {
        /// Name of the file.
        file: String,
        /// What is wrong.
        what: &'static str,
    },
    /// The disk layer refused.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// A chunk's strings do not fit their 32-bit positions.
    #[error("a chunk's names or attributes are longer than 4 GiB together")]
    TooLong,
}

/// Tags of the sections in a chunk's file.
#[derive(Clone, Copy, Debug)]
#[repr(u32)]
pub enum Tag {
    /// Quantised codes, row after row.
    Codes = 1,
    /// f32 originals, row after row.
    Originals = 2,
    /// One f32 scale per row.
    Scales = 3,
    /// One f32 norm per row.
    Norms = 4,
    /// One f32 residual norm per row.
    Residuals = 5,
    /// One f32 bias per row, for metrics that have one.
    Biases = 6,
    /// Where each name begins (u32, one more than rows).
    NameStarts = 7,
    /// Names.
    Names = 8,
    /// Where each row's attributes begin (u32, one more than rows).
    AttributeStarts = 9,
    /// Attributes, each with a byte 1 in front; a row without has no byte.
    Attributes = 10,
    /// Where each row's text begins (u32, one more than rows). Only where a row has one, as is the next.
    TextStarts = 11,
    /// Texts, each with a byte 1 in front; a row without has no byte.
    Texts = 12,
    /// Where each row's sparse vector begins (u32, one more than rows). Only where a row has one, as is the next.
    SparseStarts = 13,
    /// Sparse vectors as `sparse.rs` encodes them, each with a byte 1 in front; a row without has no byte.
    Sparse = 14,
}

/// Number of a row in its collection: chunk number << 16 | offset in the chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RowId(pub u64);

impl RowId {
    /// The row at an offset of a chunk.
    pub fn new(chunk: u32, offset: u16) -> Self {
        Self(u64::from(chunk) << 16 | u64::from(offset))
    }

    /// Number of its chunk.
    #[expect(clippy::cast_possible_truncation, reason = "the upper bits are the 32-bit chunk number")]
    pub fn chunk(self) -> u32 {
        (self.0 >> 16) as u32
    }

    /// Offset in its chunk.
    #[expect(clippy::cast_possible_truncation, reason = "the lower 16 bits are the offset")]
    pub fn offset(self) -> u16 {
        self.0 as u16
    }
}

/// Which index a collection may get.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IndexKind {
    /// The server decides.
    #[default]
    Auto,
    /// None: searches scan.
    Flat,
    /// A graph.
    Hnsw,
}

/// What `VINDEX` asked for last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GraphWish {
    /// Nothing: [`Params::index`] says.
    #[default]
    None,
    /// A graph.
    Build,
    /// No graph.
    Drop,
}

/// What is fixed when a collection is made, but for the wish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Params {
    /// Dimensions stored, metric and quantisation.
    pub layout: Layout,
    /// Dimensions of the input when vectors are projected (`REDUCE`), else 0.
    pub projection_input_dim: u32,
    /// The graph's M.
    pub m: u32,
    /// The graph's EF when it is built.
    pub ef: u32,
    /// Whether the f32 originals are kept beside the codes.
    pub raw: bool,
    /// Made by VCREATE: lives on when it is empty, and VADD inherits what it does not name.
    pub declared: bool,
    /// Which index it may get.
    pub index: IndexKind,
    /// Whether it was given or denied one since.
    pub wish: GraphWish,
    /// How its texts become terms.
    pub analyzer: Analyzer,
}

impl Params {
    /// The graph's M when none is given.
    pub const DEFAULT_M: u32 = 16;
    /// The graph's EF when none is given.
    pub const DEFAULT_EF: u32 = 200;

    /// What a VADD without options makes, in this layout.
    pub fn new(layout: Layout) -> Self {
        Self {
            layout,
            projection_input_dim: 0,
            m: Self::DEFAULT_M,
            ef: Self::DEFAULT_EF,
            raw: true,
            declared: false,
            index: IndexKind::Auto,
            wish: GraphWish::None,
            analyzer: Analyzer::default(),
        }
    }
}

impl Params {
    /// Sizes of a row's arrays: without quantisation the originals are the codes.
    pub fn row_shape(&self) -> RowShape {
        let code_bytes = self.layout.code_bytes();
        RowShape {
            code_bytes,
            original_len: if self.raw || code_bytes == 0 { self.layout.dim } else { 0 },
            biased: self.layout.metric == Metric::L2,
        }
    }
}

/// A vector's codes and scalars, made off the writer.
#[derive(Clone, Debug, PartialEq)]
pub struct Encoded {
    layout: Layout,
    codes: Vec<u8>,
    scalars: Scalars,
    /// The terms of the text that comes with the vector, and by which analyzer.
    document: Option<(Analyzer, Document)>,
}

impl Encoded {
    /// Quantises a vector.
    pub fn new(params: &Params, vector: &[f32]) -> Self {
        let mut codes = vec![0; params.layout.code_bytes()];
        let scalars = quant::encode(&params.layout, vector, &mut codes);
        Self { layout: params.layout, codes, scalars, document: None }
    }

    /// Analyses the text that comes with the vector, for collections with that analyzer.
    #[must_use]
    pub fn with_text(mut self, analyzer: Analyzer, text: &TextChange) -> Self {
        if let TextChange::Set(Some(text)) = text {
            self.document = Some((analyzer, analyzer.document(text)));
        }
        self
    }

    /// Whether it was made for collections like this.
    pub fn fits(&self, params: &Params) -> bool {
        self.layout == params.layout
    }
}

/// What an addition does to an element's attributes.
#[derive(Clone, Debug, PartialEq)]
pub enum AttributeChange {
    /// Leave them as they are.
    Keep,
    /// Replace or remove them.
    Set(Option<Attributes>),
}

/// What an addition does to an element's text.
#[derive(Clone, Debug, PartialEq)]
pub enum TextChange {
    /// Leave it as it is.
    Keep,
    /// Replace or remove it.
    Set(Option<Text>),
}

/// Answer of a look-up by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// The element's row in this version.
    Row(RowId),
    /// No such element.
    Absent,
    /// The element has changed since this version was published: look again in a newer one.
    Stale,
}

/// One version of a collection. See the module's text.
#[derive(Clone)]
pub struct Collection {
    /// Unique for the life of the data folder; names the collection's files.
    pub uid: u64,
    /// What was fixed when it was made.
    pub params: Params,
    /// Number of the last change to it, for WATCH.
    pub stamp: u64,
    /// When it goes by itself, unix milliseconds.
    pub expires_ms: Option<u64>,
    /// Ascending by number.
    pub chunks: Vec<Arc<Chunk>>,
    /// Number the next chunk gets.
    pub next_chunk: u32,
    /// Elements that have attributes.
    pub attributes_count: u64,
    /// The model that embeds its texts.
    pub model: Option<Arc<ModelId>>,
    /// Names of its fields, in the order they were declared; their vectors are collections of their own.
    pub fields: Vec<Bytes>,
    /// Its graph, shared by all versions.
    pub index: Arc<Index>,
    /// The sketches of its rows, shared by all versions.
    pub sketches: Arc<Sketches>,
    expiries: Expiries,
    documents: Documents,
    ids: Arc<RwLock<IdTable>>,
    pending: PendingIds,
}

impl Collection {
    /// An empty collection.
    pub fn new(uid: u64, params: Params) -> Self {
        Self {
            uid,
            params,
            stamp: 0,
            expires_ms: None,
            chunks: Vec::new(),
            next_chunk: 0,
            attributes_count: 0,
            model: None,
            fields: Vec::new(),
            index: Arc::default(),
            sketches: Arc::default(),
            expiries: Expiries::default(),
            documents: Documents::default(),
            ids: Arc::default(),
            pending: PendingIds::default(),
        }
    }

    /// A collection from its recovered parts; builds the table of names.
    pub fn restore(uid: u64, params: Params, chunks: Vec<Chunk>, next_chunk: u32) -> Self {
        let chunks = chunks.into_iter().map(Arc::new).collect();
        let mut restored = Self { chunks, next_chunk, ..Self::new(uid, params) };
        let mut table = IdTable::default();
        let mut attributes_count = 0;
        for row in restored.live_rows() {
            table.insert(Entry { hash: hash_name(restored.name(row)), row });
            attributes_count += u64::from(restored.attributes(row).is_some());
        }
        (restored.ids, restored.attributes_count) = (Arc::new(RwLock::new(table)), attributes_count);
        restored
    }

    /// Elements.
    pub fn len(&self) -> usize {
        self.chunks.iter().map(|chunk| chunk.live_rows).sum()
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.chunks.iter().all(|chunk| chunk.live_rows == 0)
    }

    /// Rows, dead ones too.
    pub fn rows(&self) -> usize {
        self.chunks.iter().map(|chunk| chunk.len).sum()
    }

    /// Every live row, in order.
    pub fn live_rows(&self) -> impl Iterator<Item = RowId> + '_ {
        let chunks = self.chunks.iter();
        chunks.flat_map(|chunk| live_offsets(chunk).map(|offset| RowId::new(chunk.number, offset)))
    }

    fn table(&self) -> RwLockReadGuard<'_, IdTable> {
        self.ids.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn chunk_index(&self, number: u32) -> Option<usize> {
        self.chunks.binary_search_by_key(&number, |chunk| chunk.number).ok()
    }

    /// How many elements have texts, and how long these are.
    pub fn text_stats(&self) -> TextStats {
        self.chunks.iter().map(|chunk| chunk.text_stats).sum()
    }

    /// The chunk of a row of this version.
    pub fn chunk(&self, row: RowId) -> Option<&Chunk> {
        self.chunk_index(row.chunk()).map(|index| &*self.chunks[index])
    }

    fn live_chunk(&self, row: RowId) -> &Chunk {
        match self.chunk(row) {
            Some(chunk) if chunk.is_live(row.offset()) => chunk,
            _ => unreachable!("row {row:?} is live in this version"),
        }
    }

    /// Looks an element up by name.
    pub fn find(&self, element: &[u8]) -> Found {
        let hash = hash_name(element);
        // A row of a chunk that this version does not know may carry any name; then the version is too old to tell.
        let is_named = |row: RowId| {
            self.chunk(row).is_none_or(|chunk| chunk.rows.name(usize::from(row.offset())) == element)
        };
        let row = match self.pending.find(hash, is_named) {
            Some(row) => row,
            None => self.table().find(hash, is_named),
        };
        match row {
            None => Found::Absent,
            Some(row) if self.chunk(row).is_some_and(|chunk| chunk.is_live(row.offset())) => Found::Row(row),
            // Its time is over.
            Some(row) if self.expiries.get(row).is_some() => Found::Absent,
            Some(_) => Found::Stale,
        }
    }

    /// Like [`Self::find`], on the writer's private version, which is never stale.
    fn find_private(&self, element: &[u8]) -> Option<RowId> {
        match self.find(element) {
            Found::Row(row) => Some(row),
            Found::Absent => None,
            Found::Stale => unreachable!("the writer's version is the newest"),
        }
    }

    /// Whether the writer's private version has an element of that name.
    pub fn contains(&self, element: &[u8]) -> bool {
        self.find_private(element).is_some()
    }

    /// Name of a live row's element.
    pub fn name(&self, row: RowId) -> &[u8] {
        self.live_chunk(row).rows.name(usize::from(row.offset()))
    }

    /// Attributes of a live row's element.
    pub fn attributes(&self, row: RowId) -> Option<&[u8]> {
        self.live_chunk(row).attributes(row.offset())
    }

    /// Text of a live row's element.
    ///
    /// # Errors
    /// When the file that holds it is damaged there.
    pub fn text(&self, row: RowId) -> Result<Option<&[u8]>, CollectionError> {
        self.live_chunk(row).text(row.offset())
    }

    /// Vector of a live row: its original, or what its codes stand for where no originals are kept.
    ///
    /// # Errors
    /// When the file that holds it is damaged there.
    pub fn vector(&self, row: RowId) -> Result<Cow<'_, [f32]>, CollectionError> {
        self.live_chunk(row).vector(&self.params, usize::from(row.offset()))
    }

    /// Codes and scalars of a live row.
    pub fn encoded(&self, row: RowId) -> (&[u8], Scalars) {
        let rows = &self.live_chunk(row).rows;
        (rows.codes(usize::from(row.offset())), rows.scalars(usize::from(row.offset())))
    }

    fn chunk_mut(&mut self, row: RowId) -> &mut Chunk {
        match self.chunk_index(row.chunk()) {
            Some(index) => Arc::make_mut(&mut self.chunks[index]),
            None => unreachable!("row {row:?} is live in this version"),
        }
    }

    fn set_id(&mut self, element: &[u8], current: Option<RowId>, new: Option<RowId>) {
        let chunks = &self.chunks;
        let name_of = |row: RowId| {
            let index = chunks.binary_search_by_key(&row.chunk(), |chunk| chunk.number);
            index.map(|index| chunks[index].rows.name(usize::from(row.offset())))
        };
        let is_named = |row: RowId| name_of(row).is_ok_and(|name| name == element);
        self.pending.set(hash_name(element), current, new, is_named);
    }

    /// Adds an element or replaces its vector. True if it is new.
    pub fn put(
        &mut self,
        element: &[u8],
        vector: &[f32],
        encoded: &Encoded,
        attributes: &AttributeChange,
        text: &TextChange,
    ) -> bool {
        let current = self.find_private(element);
        self.documents.detach(element);
        let kept = current.and_then(|row| self.live_chunk(row).shared_attributes(row.offset()));
        let attributes = match attributes {
            AttributeChange::Keep => kept.clone(),
            AttributeChange::Set(value) => value.clone(),
        };
        let is_given = *text != TextChange::Keep;
        let text = match text {
            // A text that cannot be read any more is not carried over: the new row is sound.
            TextChange::Keep => {
                current.and_then(|row| self.live_chunk(row).shared_text(row.offset()).unwrap_or_default())
            }
            TextChange::Set(value) => value.clone(),
        };
        // As with the text.
        let sparse =
            current.and_then(|row| self.live_chunk(row).shared_sparse(row.offset()).unwrap_or_default());
        let row = self.append(&NewRow {
            codes: &encoded.codes,
            scalars: encoded.scalars,
            original: if self.params.row_shape().original_len > 0 { vector } else { &[] },
            name: element,
        });
        self.set_id(element, current, Some(row));
        if let Some(old) = current {
            self.kill(old, kept.is_some());
        }
        if attributes.is_some() {
            self.chunk_mut(row).set_attributes(row.offset(), attributes);
            self.attributes_count += 1;
        }
        if let Some(text) = text {
            let analyzer = self.params.analyzer;
            match &encoded.document {
                Some((by, document)) if *by == analyzer && is_given => {
                    self.chunk_mut(row).set_text(row.offset(), text, document);
                }
                _ => {
                    let document = analyzer.document(&text);
                    self.chunk_mut(row).set_text(row.offset(), text, &document);
                }
            }
        }
        if let Some(sparse) = sparse {
            self.chunk_mut(row).set_sparse(row.offset(), sparse);
        }
        current.is_none()
    }

    fn append(&mut self, row: &NewRow<'_>) -> RowId {
        // Nearly always the last one; compaction may leave a chunk open before it.
        if let Some(chunk) = self.chunks.iter_mut().rfind(|chunk| !chunk.closed) {
            let chunk = Arc::make_mut(chunk);
            if let Some(offset) = chunk.push(row) {
                return RowId::new(chunk.number, offset);
            }
        }
        let mut chunk = Chunk::new(self.next_chunk, self.params.row_shape());
        self.next_chunk += 1;
        let Some(offset) = chunk.push(row) else { unreachable!("an empty chunk has room for one row") };
        let number = chunk.number;
        self.chunks.push(Arc::new(chunk));
        RowId::new(number, offset)
    }

    fn kill(&mut self, row: RowId, had_attributes: bool) {
        self.expiries.set(row, None);
        self.kill_row(row, had_attributes);
    }

    fn kill_row(&mut self, row: RowId, had_attributes: bool) {
        self.attributes_count -= u64::from(had_attributes);
        self.chunk_mut(row).kill(row.offset());
    }

    /// Removes an element. False if there is none of that name.
    pub fn remove(&mut self, element: &[u8]) -> bool {
        let Some(row) = self.find_private(element) else {
            return false;
        };
        self.set_id(element, Some(row), None);
        self.documents.detach(element);
        let had_attributes = self.attributes(row).is_some();
        self.kill(row, had_attributes);
        true
    }

    /// Sets or removes an element's attributes, without a new row. False if there is none of that name.
    pub fn set_attributes(&mut self, element: &[u8], attributes: Option<Attributes>) -> bool {
        let Some(row) = self.find_private(element) else {
            return false;
        };
        let had = self.attributes(row).is_some();
        self.attributes_count += u64::from(attributes.is_some());
        self.attributes_count -= u64::from(had);
        self.chunk_mut(row).edit_attributes(row.offset(), attributes);
        true
    }

    /// Takes the changes of names that wait for this version to be published.
    pub fn take_pending(&mut self) -> (Arc<RwLock<IdTable>>, PendingIds) {
        (Arc::clone(&self.ids), std::mem::take(&mut self.pending))
    }

    /// Whether a chunk that grows has at least that many bytes.
    pub fn has_grown(&self, size_bytes: usize) -> bool {
        self.chunks.iter().any(|chunk| chunk.has_grown(&self.params, size_bytes))
    }

    /// Ends the growth of the chunks that have at least that many bytes, so that they can be sealed.
    pub fn close_grown(&mut self, size_bytes: usize) {
        let params = self.params;
        for chunk in self.chunks.iter_mut().filter(|chunk| chunk.has_grown(&params, size_bytes)) {
            Arc::make_mut(chunk).closed = true;
        }
    }

    /// Puts sealed rows in place of a chunk's rows in memory; see [`Chunk::adopt`]. False if the chunk is gone.
    pub fn adopt(&mut self, number: u32, rows: Arc<Rows>, sealed_overlay: &Overlay) -> bool {
        match self.chunk_index(number) {
            Some(index) => {
                Arc::make_mut(&mut self.chunks[index]).adopt(rows, sealed_overlay);
                true
            }
            None => false,
        }
    }

    /// Bytes of memory taken, mapped files not counted.
    pub fn size_bytes(&self) -> usize {
        let chunks: usize = self.chunks.iter().map(|chunk| chunk.size_bytes()).sum();
        // Its entry in the map of keys, and the table's own fields.
        const ENTRY_BYTES: usize = 290;
        let shared = self.table().size_bytes()
            + self.index.size_bytes()
            + self.sketches.size_bytes()
            + self.expiries.size_bytes()
            + self.documents.size_bytes();
        size_of::<Self>() + ENTRY_BYTES + chunks + self.chunks.capacity() * 8 + shared
    }
}

/// Offsets of a chunk's live rows, ascending.
pub fn live_offsets(chunk: &Chunk) -> impl Iterator<Item = u16> + '_ {
    set_bits(&chunk.live).filter_map(|at| u16::try_from(at).ok())
}

/// Positions of the set bits of a bitmap, ascending.
fn set_bits(words: &[u64]) -> impl Iterator<Item = usize> + '_ {
    let numbered = words.iter().enumerate();
    numbered.flat_map(|(index, &word)| kernel::set_bits(word).map(move |bit| index * 64 + bit))
}
