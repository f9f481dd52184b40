//! Sparse vectors: terms with weights, stored beside an element's vector, and the search by their dot product.
//!
//! A row keeps its sparse vector for life: in memory in a map beside the rows, in a sealed chunk as a section. The postings
//! (for each term the rows that have it) are made per chunk when the first search needs them, extended as rows come, and shared by
//! all versions. Scores are exact: every posting of the query's terms is added up.

use std::cmp::Ordering;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use hashbrown::HashMap;
use thiserror::Error;

use super::chunk::Chunk;
use super::filter::Filter;
use super::{Collection, CollectionError, RowId, set_bits};
use crate::text::bm25::Best;

/// Terms a sparse vector may have.
pub const MAX_TERMS: usize = 4096;
/// Bytes a term may have.
pub const MAX_TERM_BYTES: usize = 255;

/// A sparse vector as it is kept: its terms in the order of their bytes, each as its length (u8), its bytes and its weight
/// (f32, little-endian). Without terms it stands for none.
pub type Sparse = Arc<[u8]>;

/// Why terms and weights are no sparse vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SparseError {
    /// More than [`MAX_TERMS`].
    #[error("a sparse vector can have 4096 terms at most")]
    TooMany,
    /// Empty, or longer than [`MAX_TERM_BYTES`].
    #[error("a term of a sparse vector has 1 to 255 bytes")]
    Term,
    /// Negative or not finite.
    #[error("a weight of a sparse vector is a number that is not negative")]
    Weight,
    /// A term comes twice.
    #[error("a sparse vector has a term twice")]
    Twice,
}

/// Terms and weights as they are kept. A weight of 0 is left out.
///
/// # Errors
/// When they break a rule of sparse vectors.
pub fn encode(mut terms: Vec<(&[u8], f32)>) -> Result<Sparse, SparseError> {
    if terms.len() > MAX_TERMS {
        return Err(SparseError::TooMany);
    }
    if terms.iter().any(|(_, weight)| !weight.is_finite() || *weight < 0.0) {
        return Err(SparseError::Weight);
    }
    terms.sort_by_key(|(term, _)| *term);
    if terms.windows(2).any(|two| two[0].0 == two[1].0) {
        return Err(SparseError::Twice);
    }
    let mut bytes = Vec::new();
    for (term, weight) in terms {
        let len = u8::try_from(term.len()).ok().filter(|&len| len > 0).ok_or(SparseError::Term)?;
        if weight > 0.0 {
            bytes.push(len);
            bytes.extend_from_slice(term);
            bytes.extend_from_slice(&weight.to_le_bytes());
        }
    }
    Ok(bytes.into())
}

/// The terms and weights of a sparse vector as it is kept; as far as it is sound.
pub fn terms(mut sparse: &[u8]) -> impl Iterator<Item = (&[u8], f32)> {
    std::iter::from_fn(move || {
        let (len, rest) = sparse.split_first()?;
        let (term, rest) = rest.split_at_checked(usize::from(*len))?;
        let (weight, rest) = rest.split_first_chunk::<4>()?;
        sparse = rest;
        Some((term, f32::from_le_bytes(*weight)))
    })
}

/// Whether bytes are a sparse vector as [`encode`] makes it.
pub fn is_sound(sparse: &[u8]) -> bool {
    encode(terms(sparse).collect()).is_ok_and(|again| *again == *sparse)
}

/// The postings of a chunk's rows, dead ones too.
#[derive(Default)]
pub struct SparseIndex(RwLock<Postings>);

#[derive(Default)]
struct Postings {
    /// Rows that are in it.
    rows: usize,
    /// Offsets ascending, with weights.
    of_term: HashMap<Box<[u8]>, Vec<(u16, f32)>>,
    size_bytes: usize,
}

impl SparseIndex {
    /// The postings of at least the rows that this version has.
    fn of(&self, chunk: &Chunk) -> Result<RwLockReadGuard<'_, Postings>, CollectionError> {
        let postings = self.0.read().unwrap_or_else(PoisonError::into_inner);
        if postings.rows >= chunk.len {
            return Ok(postings);
        }
        drop(postings);
        let mut postings = self.0.write().unwrap_or_else(PoisonError::into_inner);
        while let Some(offset) = u16::try_from(postings.rows).ok().filter(|_| postings.rows < chunk.len) {
            for (term, weight) in chunk.sparse(offset)?.into_iter().flat_map(terms) {
                postings.add(term, offset, weight);
            }
            postings.rows += 1;
        }
        drop(postings);
        Ok(self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Bytes of memory.
    pub fn size_bytes(&self) -> usize {
        self.0.read().unwrap_or_else(PoisonError::into_inner).size_bytes
    }
}

impl Postings {
    fn add(&mut self, term: &[u8], offset: u16, weight: f32) {
        let list = self.of_term.entry_ref(term).or_insert_with(|| {
            self.size_bytes += term.len() + size_of::<(Box<[u8]>, Vec<(u16, f32)>)>();
            Vec::new()
        });
        let before = list.capacity();
        list.push((offset, weight));
        self.size_bytes += (list.capacity() - before) * size_of::<(u16, f32)>();
    }
}

/// A search for elements with the largest dot products.
pub struct SparseRequest {
    /// The version to look in.
    pub collection: Arc<Collection>,
    /// What to look for.
    pub query: Sparse,
    /// Results wanted.
    pub count: usize,
    /// Only elements whose attributes pass.
    pub filter: Option<Arc<Filter>>,
}

impl SparseRequest {
    /// Makes the search on the caller's thread: elements that share a term with the query, best first, equal scores by name.
    ///
    /// # Errors
    /// When a file that holds sparse vectors is damaged there.
    pub fn run(&self) -> Result<Vec<(f64, RowId)>, CollectionError> {
        let mut best = Best::new(self.count);
        for chunk in self.collection.chunks.iter().filter(|chunk| chunk.has_sparse()) {
            let postings = chunk.sparse_index.of(chunk)?;
            let mut scores = vec![0.0; chunk.len];
            let mut touched = vec![0u64; chunk.live.len()];
            for (term, weight) in terms(&self.query) {
                for &(offset, stored) in postings.of_term.get(term).map_or(&[][..], Vec::as_slice) {
                    // Rows may have come since this version.
                    let Some(score) = scores.get_mut(usize::from(offset)) else { break };
                    *score += f64::from(weight) * f64::from(stored);
                    touched[usize::from(offset) / 64] |= 1 << (offset % 64);
                }
            }
            drop(postings);
            let passing = match &self.filter {
                Some(filter) => &chunk.filters.passing(chunk, filter, 0, chunk.live.len()),
                None => &*chunk.live,
            };
            touched.iter_mut().zip(passing).for_each(|(touched, passing)| *touched &= passing);
            for at in set_bits(&touched) {
                if scores[at] >= best.threshold()
                    && let Ok(offset) = u16::try_from(at)
                {
                    let row = RowId::new(chunk.number, offset);
                    best.push(scores[at], row, |a, b| self.by_name(a, b));
                }
            }
        }
        Ok(best.into_sorted(|a, b| self.by_name(a, b)))
    }

    fn by_name(&self, a: &RowId, b: &RowId) -> Ordering {
        self.collection.name(*a).cmp(self.collection.name(*b))
    }
}

impl Collection {
    /// Sparse vector of a live row's element, as it is kept.
    ///
    /// # Errors
    /// When the file that holds it is damaged there.
    pub fn sparse(&self, row: RowId) -> Result<Option<&[u8]>, CollectionError> {
        self.live_chunk(row).sparse(row.offset())
    }

    /// Gives an element whose vector has just been set its sparse vector, in place of the one carried over; empty means
    /// none. False if there is none of that name, or its row is sealed.
    pub fn set_sparse(&mut self, element: &[u8], sparse: &Sparse) -> bool {
        match self.find_private(element) {
            Some(row) => self.chunk_mut(row).set_sparse(row.offset(), Arc::clone(sparse)),
            None => false,
        }
    }

    /// Puts back the sparse vectors of recovered rows in memory.
    pub fn restore_sparse<'a>(&mut self, sparse: impl Iterator<Item = (RowId, &'a [u8])>) {
        for (row, sparse) in sparse {
            if self.chunk(row).is_some_and(|chunk| chunk.is_live(row.offset())) && is_sound(sparse) {
                self.chunk_mut(row).set_sparse(row.offset(), sparse.into());
            }
        }
    }
}

#[cfg(test)]
#[path = "sparse_tests.rs"]
mod tests;
