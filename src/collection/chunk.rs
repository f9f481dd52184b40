//! A chunk: up to 65,536 rows, growing in memory or sealed and mapped, and one version's view of them.

use std::borrow::Cow;
use std::sync::Arc;

use imbl::OrdMap;

use super::columns::Columns;
use super::filter_cache::{self, FilterCache};
use super::names::NameOrder;
use super::overlay::Overlay;
use super::sealed::SealedRows;
use super::sparse::{Sparse, SparseIndex};
use super::{
    CollectionError, MAX_CHUNK_ATTRIBUTE_BYTES, MAX_CHUNK_NAME_BYTES, MAX_CHUNK_ORIGINAL_BYTES,
    MAX_CHUNK_TEXT_BYTES, Params, live_offsets, set_bits,
};
use crate::disk::DiskError;
use crate::text::Document;
use crate::text::bm25::TextStats;
use crate::text::growing::GrowingIndex;
use crate::text::postings::TextIndex;
use crate::text::sealed::SealedIndex;
use crate::vector::arena::{MAX_ROWS, NewRow, RowArena, RowShape, Run};
use crate::vector::kernel::RowRef;
use crate::vector::quant::{self, Scalars};

/// An element's attributes: any bytes.
pub type Attributes = Arc<[u8]>;

/// An element's text: any bytes.
pub type Text = Arc<[u8]>;

/// Edited rows that a chunk has at least before its columns are renewed, and the part of its rows that they are then.
const MIN_EDITED: usize = 64;
const EDITED_PART: usize = 16;

/// Rows of a chunk, wherever they are.
#[expect(
    clippy::large_enum_variant,
    reason = "always behind an Arc, and a growing chunk is the rule in small collections"
)]
pub enum Rows {
    /// In memory, still growing or waiting to be sealed.
    Memory(RowArena),
    /// In an immutable mapped file.
    Sealed(SealedRows),
}

impl Rows {
    /// Codes of a row.
    pub fn codes(&self, offset: usize) -> &[u8] {
        match self {
            Self::Memory(rows) => rows.codes(offset),
            Self::Sealed(rows) => rows.codes(offset),
        }
    }

    /// The f32 original of a row.
    ///
    /// # Errors
    /// When the file that holds it is damaged there.
    pub fn original(&self, offset: usize) -> Result<&[f32], CollectionError> {
        match self {
            Self::Memory(rows) => Ok(rows.original(offset)),
            Self::Sealed(rows) => rows.original(offset),
        }
    }

    /// Scalars of a row.
    pub fn scalars(&self, offset: usize) -> Scalars {
        match self {
            Self::Memory(rows) => rows.scalars(offset),
            Self::Sealed(rows) => rows.scalars(offset),
        }
    }

    /// A row to be scored by itself.
    #[inline]
    pub fn row(&self, offset: usize) -> RowRef<'_> {
        match self {
            Self::Memory(rows) => rows.row(offset),
            Self::Sealed(rows) => rows.row(offset),
        }
    }

    /// Element name of a row.
    pub fn name(&self, offset: usize) -> &[u8] {
        match self {
            Self::Memory(rows) => rows.name(offset),
            Self::Sealed(rows) => rows.name(offset),
        }
    }

    /// Rows `0..len` as runs of contiguous arrays.
    pub fn runs(&self, len: usize) -> Box<dyn Iterator<Item = Run<'_>> + '_> {
        match self {
            Self::Memory(rows) => Box::new(rows.runs(len)),
            Self::Sealed(rows) => Box::new(std::iter::once(rows.run(len))),
        }
    }

    /// Attributes that were sealed with the rows.
    pub(super) fn sealed_attributes(&self, offset: usize) -> Option<&[u8]> {
        match self {
            Self::Memory(_) => None,
            Self::Sealed(rows) => rows.attributes(offset),
        }
    }

    /// The text that was sealed with a row.
    fn sealed_text(&self, offset: usize) -> Result<Option<&[u8]>, CollectionError> {
        match self {
            Self::Memory(_) => Ok(None),
            Self::Sealed(rows) => rows.text(offset),
        }
    }

    /// Rows that exist, published or not.
    pub fn len(&self) -> usize {
        match self {
            Self::Memory(rows) => rows.len(),
            Self::Sealed(rows) => rows.len(),
        }
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// One version's view of a chunk.
#[derive(Clone)]
pub struct Chunk {
    /// Number, growing within a collection and never used again.
    pub number: u32,
    /// The rows, shared by all versions.
    pub rows: Arc<Rows>,
    /// Rows this version knows of.
    pub len: usize,
    /// Bit i of word i / 64: row i holds an element of this version. `len` bits.
    pub live: Arc<Vec<u64>>,
    /// Number of set bits.
    pub live_rows: usize,
    /// Attributes set since the rows were sealed (all of them while in memory), and those that the file had no room for.
    pub overlay: Overlay,
    /// Texts of rows in memory; a row keeps its text for life.
    pub texts: OrdMap<u16, Text>,
    /// Sparse vectors of rows in memory, dead ones too: a row keeps its own for life.
    pub sparse: OrdMap<u16, Sparse>,
    /// Their postings, shared by all versions.
    pub sparse_index: Arc<SparseIndex>,
    /// Bytes of these texts and sparse vectors, dead rows' too.
    pub text_bytes: usize,
    /// The index of the texts of rows in memory, shared by all versions.
    pub growing_index: Arc<GrowingIndex>,
    /// Texts of live rows.
    pub text_stats: TextStats,
    /// No row is added any more.
    pub closed: bool,
    /// The order of the rows' names.
    pub name_order: Arc<NameOrder>,
    /// Changes when attributes of a row that was there already do.
    pub attribute_changes: u64,
    /// Values by field, for filters; see there.
    pub columns: Arc<Columns>,
    /// Bit i of word i / 64: row i's attributes are no more those it had when `columns` were made, or when it came. May
    /// have less bits than rows.
    pub edited: Arc<Vec<u64>>,
    /// Number of its set bits.
    pub edited_rows: usize,
    /// Which rows pass the filters of late.
    pub filters: Arc<FilterCache>,
}

impl Chunk {
    /// An empty chunk in memory.
    pub fn new(number: u32, shape: RowShape) -> Self {
        Self {
            number,
            rows: Arc::new(Rows::Memory(RowArena::new(shape))),
            len: 0,
            live: Arc::default(),
            live_rows: 0,
            overlay: Overlay::default(),
            texts: OrdMap::new(),
            sparse: OrdMap::new(),
            sparse_index: Arc::default(),
            text_bytes: 0,
            growing_index: Arc::default(),
            text_stats: TextStats::default(),
            closed: false,
            name_order: Arc::default(),
            attribute_changes: 0,
            columns: Arc::default(),
            edited: Arc::default(),
            edited_rows: 0,
            filters: Arc::default(),
        }
    }

    /// Adds a live row; `None` when the chunk takes no more (it is closed then).
    pub fn push(&mut self, row: &NewRow<'_>) -> Option<u16> {
        let Rows::Memory(arena) = &*self.rows else {
            return None;
        };
        let original_bytes = size_of_val(row.original) * arena.len();
        let full = original_bytes >= MAX_CHUNK_ORIGINAL_BYTES
            || arena.name_bytes() >= MAX_CHUNK_NAME_BYTES
            || self.text_bytes >= MAX_CHUNK_TEXT_BYTES
            || self.overlay.size_bytes() >= MAX_CHUNK_ATTRIBUTE_BYTES;
        let Some(at) = (if self.closed || full { None } else { arena.push(row) }) else {
            self.closed = true;
            return None;
        };
        self.len = at + 1;
        let live = Arc::make_mut(&mut self.live);
        live.resize(self.len.div_ceil(64), 0);
        live[at / 64] |= 1 << (at % 64);
        self.live_rows += 1;
        self.closed = self.len >= MAX_ROWS;
        u16::try_from(at).ok()
    }

    /// Whether it grows and has at least that many bytes: of originals (as if it kept them), names, attributes, texts and
    /// sparse vectors.
    pub fn has_grown(&self, params: &Params, size_bytes: usize) -> bool {
        let original_bytes = || self.len * params.layout.dim * size_of::<f32>();
        !self.closed && original_bytes() + self.string_bytes() >= size_bytes
    }

    /// Bytes of names, attributes, texts and sparse vectors; those of dead rows may be among them.
    pub fn string_bytes(&self) -> usize {
        let of_rows = match &*self.rows {
            Rows::Memory(rows) => rows.name_bytes() + self.text_bytes,
            Rows::Sealed(rows) => rows.string_bytes(),
        };
        of_rows + self.overlay.size_bytes()
    }

    /// Puts back which rows are live. False if the bitmap is not one of this many rows.
    pub fn set_live(&mut self, live: Vec<u64>) -> bool {
        let tail = self.len % 64;
        let fits = live.len() == self.len.div_ceil(64)
            && (tail == 0 || live.last().is_none_or(|last| last >> tail == 0));
        self.live_rows = live.iter().map(|word| word.count_ones() as usize).sum();
        self.live = Arc::new(live);
        if fits {
            self.count_texts();
        }
        fits
    }

    fn count_texts(&mut self) {
        let Some(index) = self.text_index() else { return };
        let lengths = live_offsets(self).filter_map(|offset| index.length(offset));
        let stats = lengths.map(|length| TextStats { texts: 1, total_length: length.into() }).sum();
        self.text_stats = stats;
    }

    /// The index of its texts, if it has any.
    pub fn text_index(&self) -> Option<TextIndex<'_>> {
        match &*self.rows {
            Rows::Memory(_) if self.texts.is_empty() => None,
            Rows::Memory(_) => Some(TextIndex::Growing(&self.growing_index)),
            Rows::Sealed(rows) => rows.text_index().map(TextIndex::Sealed),
        }
    }

    /// Whether this version has an element in that row.
    pub fn is_live(&self, offset: u16) -> bool {
        let at = usize::from(offset);
        at < self.len && self.live[at / 64] & (1 << (at % 64)) != 0
    }

    /// Removes the element in a live row.
    pub fn kill(&mut self, offset: u16) {
        debug_assert!(self.is_live(offset), "only live rows die");
        if let Some(length) = self.text_index().and_then(|index| index.length(offset)) {
            self.text_stats.texts -= 1;
            self.text_stats.total_length -= u64::from(length);
        }
        let at = usize::from(offset);
        Arc::make_mut(&mut self.live)[at / 64] &= !(1 << (at % 64));
        self.live_rows -= 1;
        self.overlay.remove(offset);
        self.texts.remove(&offset);
    }

    /// Attributes of a row's element.
    pub fn attributes(&self, offset: u16) -> Option<&[u8]> {
        match self.overlay.get(&offset) {
            Some(changed) => changed.as_deref(),
            None => self.rows.sealed_attributes(usize::from(offset)),
        }
    }

    /// Attributes of a row's element to keep; shares memory where it can.
    pub fn shared_attributes(&self, offset: u16) -> Option<Attributes> {
        match self.overlay.get(&offset) {
            Some(changed) => changed.clone(),
            None => self.rows.sealed_attributes(usize::from(offset)).map(Attributes::from),
        }
    }

    /// Calls `visit` with the attributes of each row of `rows`, which are words of a bitmap from `first` on.
    pub fn visit_attributes<'a>(
        &'a self,
        first: usize,
        rows: &[u64],
        mut visit: impl FnMut(usize, Option<&'a [u8]>),
    ) {
        // Where most rows are wanted, walking along the overlay is cheaper than looking each of them up.
        const DENSE: usize = 8;
        let wanted: usize = rows.iter().map(|word| word.count_ones() as usize).sum();
        let offset = |at: usize| u16::try_from(first * 64 + at).unwrap_or(u16::MAX);
        let dense = wanted * DENSE >= rows.len() * 64 && wanted > 0;
        let changed = dense.then(|| self.overlay.range(offset(0)..=offset(rows.len() * 64 - 1)));
        let mut changed = changed.into_iter().flatten().peekable();
        for at in set_bits(rows) {
            let offset = offset(at);
            let entry = if dense {
                while changed.next_if(|(key, _)| **key < offset).is_some() {}
                changed.next_if(|(key, _)| **key == offset).map(|(_, attributes)| attributes)
            } else {
                self.overlay.get(&offset)
            };
            let attributes = match entry {
                Some(changed) => changed.as_deref(),
                None => self.rows.sealed_attributes(usize::from(offset)),
            };
            visit(usize::from(offset), attributes);
        }
    }

    /// Sets or removes the attributes of an element whose row was there before.
    pub fn edit_attributes(&mut self, offset: u16, attributes: Option<Attributes>) {
        self.set_attributes(offset, attributes);
        self.attribute_changes = filter_cache::next_change();
        let at = usize::from(offset);
        let edited = Arc::make_mut(&mut self.edited);
        edited.resize(edited.len().max(at / 64 + 1), 0);
        self.edited_rows += usize::from(edited[at / 64] >> (at % 64) & 1 == 0);
        edited[at / 64] |= 1 << (at % 64);
        if self.edited_rows > MIN_EDITED.max(self.len / EDITED_PART) {
            self.columns = Arc::new(self.columns.without(&self.edited));
            self.edited = Arc::default();
            self.edited_rows = 0;
        }
    }

    /// Sets or removes the attributes of a row's element.
    pub fn set_attributes(&mut self, offset: u16, attributes: Option<Attributes>) {
        if attributes.is_none() && self.rows.sealed_attributes(usize::from(offset)).is_none() {
            self.overlay.remove(offset);
        } else {
            self.overlay.insert(offset, attributes);
        }
    }

    /// Text of a row's element.
    ///
    /// # Errors
    /// When the file that holds it is damaged there.
    pub fn text(&self, offset: u16) -> Result<Option<&[u8]>, CollectionError> {
        match self.texts.get(&offset) {
            Some(text) => Ok(Some(text)),
            None => self.rows.sealed_text(usize::from(offset)),
        }
    }

    /// Text of a row's element to keep; shares memory where it can.
    ///
    /// # Errors
    /// When the file that holds it is damaged there.
    pub fn shared_text(&self, offset: u16) -> Result<Option<Text>, CollectionError> {
        match self.texts.get(&offset) {
            Some(text) => Ok(Some(Arc::clone(text))),
            None => Ok(self.rows.sealed_text(usize::from(offset))?.map(Text::from)),
        }
    }

    /// Gives a new row in memory its text, which has these terms.
    pub fn set_text(&mut self, offset: u16, text: Text, document: &Document) {
        self.growing_index.add(offset, document);
        self.text_stats.texts += 1;
        self.text_stats.total_length += u64::from(document.length);
        self.keep_text(offset, text);
    }

    /// Sparse vector of a row's element, as `sparse.rs` encodes it.
    ///
    /// # Errors
    /// When the file that holds it is damaged there.
    pub fn sparse(&self, offset: u16) -> Result<Option<&[u8]>, CollectionError> {
        match (self.sparse.get(&offset), &*self.rows) {
            (Some(sparse), _) => Ok(Some(sparse).map(|sparse| &**sparse).filter(|sparse| !sparse.is_empty())),
            (None, Rows::Sealed(rows)) => rows.sparse(usize::from(offset)),
            (None, Rows::Memory(_)) => Ok(None),
        }
    }

    /// Sparse vector of a row's element to keep; shares memory where it can.
    ///
    /// # Errors
    /// When the file that holds it is damaged there.
    pub fn shared_sparse(&self, offset: u16) -> Result<Option<Sparse>, CollectionError> {
        match self.sparse.get(&offset) {
            Some(sparse) => Ok(Some(Arc::clone(sparse)).filter(|sparse| !sparse.is_empty())),
            None => Ok(self.sparse(offset)?.map(Sparse::from)),
        }
    }

    /// Gives a new row in memory its sparse vector; empty means none. False if the row is sealed.
    pub fn set_sparse(&mut self, offset: u16, sparse: Sparse) -> bool {
        let in_memory = matches!(*self.rows, Rows::Memory(_));
        if in_memory {
            self.text_bytes += sparse.len();
            self.sparse.insert(offset, sparse);
        }
        in_memory
    }

    /// Whether a row may have a sparse vector.
    pub fn has_sparse(&self) -> bool {
        match &*self.rows {
            Rows::Memory(_) => !self.sparse.is_empty(),
            Rows::Sealed(rows) => rows.has_sparse(),
        }
    }

    /// Gives a row in memory its text, which is in the index already.
    pub fn keep_text(&mut self, offset: u16, text: Text) {
        self.text_bytes += text.len();
        self.texts.insert(offset, text);
    }

    /// Puts sealed rows in the place of the rows in memory they were written from. `sealed_overlay` is the overlay that
    /// was written with them: what is in the file and has not changed since is dropped from this version's overlay.
    pub fn adopt(&mut self, rows: Arc<Rows>, sealed_overlay: &Overlay) {
        let is_sealed = |offset: u16| rows.sealed_attributes(usize::from(offset)).is_some();
        let unchanged = |offset: &u16, now: &Option<Attributes>| match (now, sealed_overlay.get(offset)) {
            (Some(now), Some(Some(sealed))) => Arc::ptr_eq(now, sealed) && is_sealed(*offset),
            _ => false,
        };
        let mut overlay = Overlay::default();
        for (offset, now) in self.overlay.iter() {
            if !unchanged(offset, now) {
                overlay.insert(*offset, now.clone());
            }
        }
        for (offset, _) in sealed_overlay.iter() {
            // Removed since it was written: the sealed copy must not come back.
            if is_sealed(*offset) && self.is_live(*offset) && !self.overlay.contains_key(offset) {
                overlay.insert(*offset, None);
            }
        }
        self.overlay = overlay;
        // They are in the file now.
        self.texts = OrdMap::new();
        self.sparse = OrdMap::new();
        self.growing_index = Arc::default();
        self.rows = rows;
        self.closed = true;
    }

    /// Verifies all that is on disk of it: an error for each damaged block.
    pub fn damages(&self) -> Vec<DiskError> {
        match &*self.rows {
            Rows::Memory(_) => Vec::new(),
            Rows::Sealed(rows) => rows.damages(),
        }
    }

    /// Vector of a row, dead or alive: its original, or what its codes stand for where no originals are kept.
    ///
    /// # Errors
    /// When the file that holds it is damaged there.
    pub fn vector(&self, params: &Params, offset: usize) -> Result<Cow<'_, [f32]>, CollectionError> {
        if params.row_shape().original_len > 0 {
            return self.rows.original(offset).map(Cow::Borrowed);
        }
        let (codes, scalars) = (self.rows.codes(offset), self.rows.scalars(offset));
        Ok(Cow::Owned(quant::decode(&params.layout, codes, &scalars)))
    }

    /// Bytes of memory taken, mapped files not counted.
    pub fn size_bytes(&self) -> usize {
        // A node of the ordered map costs about as much again as its entries.
        const OVERLAY_ENTRY_BYTES: usize = 64;
        // What the chunk shares with other versions of itself, and the counters of the Arcs.
        const SHARED_BYTES: usize = size_of::<Rows>()
            + size_of::<NameOrder>()
            + size_of::<FilterCache>()
            + size_of::<Columns>()
            + 4 * size_of::<Vec<u16>>()
            + 9 * 16;
        let rows = match &*self.rows {
            Rows::Memory(rows) => rows.size_bytes(),
            Rows::Sealed(rows) => rows.text_index().map_or(0, SealedIndex::size_bytes),
        };
        let texts: usize = self.texts.values().chain(self.sparse.values()).map(|text| text.len()).sum();
        size_of::<Self>()
            + SHARED_BYTES
            + rows
            + self.live.capacity() * 8
            + (self.overlay.len() + self.texts.len() + self.sparse.len()) * OVERLAY_ENTRY_BYTES
            + self.overlay.size_bytes()
            + texts
            + self.growing_index.size_bytes()
            + self.sparse_index.size_bytes()
            + self.name_order.size_bytes()
            + self.filters.size_bytes()
            + self.columns.size_bytes()
            + self.edited.capacity() * 8
    }
}
