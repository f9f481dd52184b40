//! Compaction: rows that are dead take room in memory and on disk until the live rows of their chunk move to a new one.
//!
//! It runs beside the writer. The rows of one version are copied into a new chunk; when that is ready, the writer puts it
//! in the place of the old chunks, in one publish: what has died or changed meanwhile is dead or changed in the new chunk
//! too. Readers of earlier versions keep the old chunks as long as they need them.

use std::sync::Arc;

use super::chunk::{Chunk, Rows, Text};
use super::ids::hash_name;
use super::overlay::Overlay;
use super::sealed::ArraysV2;
use super::sparse::Sparse;
use super::{Collection, CollectionError, MAX_CHUNK_ORIGINAL_BYTES, Params, RowId, live_offsets};
use crate::text::growing::GrowingIndex;
use crate::vector::arena::{MAX_ROWS, RowArena};

/// Dead rows below which a chunk is left alone, unless nothing in it lives.
const MIN_DEAD_ROWS: usize = if cfg!(test) { 8 } else { 1024 };
/// Chunks sealed short that are made one.
const MIN_SHORT_CHUNKS: usize = 4;
/// Bytes of names, attributes, texts and sparse vectors that several chunks have together at most to be made one: positions in
/// its file have 32 bits.
const MAX_STRING_BYTES: usize = if cfg!(test) { 64 << 10 } else { 1 << 30 };

/// Rows copied out of some chunks, and where each was.
pub struct Moved {
    /// The copies.
    pub rows: ArraysV2,
    /// Where each row was.
    pub from: Vec<RowId>,
}

/// Numbers of the chunks to rewrite as one; none when there is nothing to gain. Worth it are chunks of which at least
/// `dead_percentage` are dead (half of them, while the chunk still grows), and several that were sealed short.
pub fn plan(collection: &Collection, dead_percentage: usize) -> Vec<u32> {
    let capacity = capacity_rows(&collection.params);
    let is_heavy = |chunk: &Chunk| {
        let dead = chunk.len - chunk.live_rows;
        let worth = if chunk.closed { (chunk.len * dead_percentage).div_ceil(100) } else { chunk.live_rows };
        let nothing_lives = chunk.live_rows == 0 && chunk.closed;
        dead > 0 && dead_percentage > 0 && (nothing_lives || dead >= worth.max(MIN_DEAD_ROWS))
    };
    let is_short = |chunk: &Chunk| {
        let is_small = chunk.len < capacity / 2 && chunk.string_bytes() < MAX_STRING_BYTES / MIN_SHORT_CHUNKS;
        matches!(*chunk.rows, Rows::Sealed(_)) && is_small
    };
    let mut chunks: Vec<&Chunk> = collection.chunks.iter().map(|chunk| &**chunk).collect();
    chunks.retain(|chunk| is_heavy(chunk) || is_short(chunk));
    // A heavy one is worth it alone: short ones must not take its place.
    chunks.sort_by_key(|chunk| (!is_heavy(chunk), chunk.live_rows));
    let (mut rows, mut string_bytes) = (0, 0);
    let fitting = chunks.iter().enumerate().take_while(|(at, chunk)| {
        rows += chunk.live_rows;
        string_bytes += chunk.string_bytes();
        rows <= capacity && (*at == 0 || string_bytes <= MAX_STRING_BYTES)
    });
    let fitting: Vec<&Chunk> = fitting.map(|(_, chunk)| *chunk).collect();
    let worth = fitting.len() >= MIN_SHORT_CHUNKS || fitting.iter().any(|chunk| is_heavy(chunk));
    if worth { fitting.iter().map(|chunk| chunk.number).collect() } else { Vec::new() }
}

/// Rows a chunk takes.
fn capacity_rows(params: &Params) -> usize {
    (MAX_CHUNK_ORIGINAL_BYTES / (params.layout.dim * size_of::<f32>())).clamp(1, MAX_ROWS)
}

/// Copies the live rows of chunks.
///
/// # Errors
/// When a row cannot be read, or names or attributes are too long together.
pub fn gather(collection: &Collection, numbers: &[u32]) -> Result<Moved, CollectionError> {
    let shape = collection.params.row_shape();
    let mut moved = Moved { rows: ArraysV2::new(), from: Vec::new() };
    for chunk in collection.chunks.iter().filter(|chunk| numbers.contains(&chunk.number)) {
        for offset in live_offsets(chunk) {
            moved.rows.push(chunk, offset, shape)?;
            moved.from.push(RowId::new(chunk.number, offset));
        }
    }
    Ok(moved)
}

impl Moved {
    /// Bytes of the rows, originals as if they were kept.
    pub fn size_bytes(&self, params: &Params) -> usize {
        self.from.len() * params.layout.dim * size_of::<f32>() + self.rows.string_bytes()
    }

    /// The rows in memory, open for more, with the index of their texts; `None` if they do not fit one chunk.
    pub fn into_memory(self, params: &Params) -> Option<(Rows, Arc<GrowingIndex>, Vec<RowId>)> {
        let index = GrowingIndex::default();
        let arena = RowArena::new(params.row_shape());
        for at in 0..self.from.len() {
            arena.push(&self.rows.row(at, params.row_shape())?)?;
            if let Some(text) = self.rows.text(at)? {
                index.add(u16::try_from(at).ok()?, &params.analyzer.document(text));
            }
        }
        Some((Rows::Memory(arena), Arc::new(index), self.from))
    }
}

impl Collection {
    /// Ends the growth of chunks and takes a number for the one that will replace them. On the writer's version.
    pub fn begin_compaction(&mut self, numbers: &[u32]) -> u32 {
        for &number in numbers {
            if let Some(index) = self.chunk_index(number)
                && !self.chunks[index].closed
            {
                Arc::make_mut(&mut self.chunks[index]).closed = true;
            }
        }
        let number = self.next_chunk;
        self.next_chunk += 1;
        number
    }

    /// Puts one chunk in the place of others. On the writer's version, with no name's change pending.
    /// `from` tells where each of the new rows was; `index` is that of their texts while they are in memory. False if the
    /// chunks are not all there any more.
    pub fn replace_chunks(
        &mut self,
        numbers: &[u32],
        number: u32,
        (rows, index): (Arc<Rows>, Arc<GrowingIndex>),
        from: &[RowId],
    ) -> bool {
        if !numbers.iter().all(|&number| self.chunk_index(number).is_some()) {
            return false;
        }
        let mut live = vec![0u64; from.len().div_ceil(64)];
        let mut overlay = Overlay::default();
        let mut texts: Vec<(u16, Text)> = Vec::new();
        let mut sparse: Vec<(u16, Sparse)> = Vec::new();
        for (at, (&old, offset)) in from.iter().zip(0..=u16::MAX).enumerate() {
            let Some(chunk) = self.chunk(old).filter(|chunk| chunk.is_live(old.offset())) else { continue };
            live[at / 64] |= 1 << (at % 64);
            if chunk.attributes(old.offset()) != rows.sealed_attributes(at) {
                overlay.insert(offset, chunk.shared_attributes(old.offset()));
            }
            // It could be read when the rows were copied.
            if let (Rows::Memory(_), Ok(Some(text))) = (&*rows, chunk.shared_text(old.offset())) {
                texts.push((offset, text));
            }
            if let (Rows::Memory(_), Ok(Some(one))) = (&*rows, chunk.shared_sparse(old.offset())) {
                sparse.push((offset, one));
            }
        }
        // The names first: they are looked up where the rows were.
        for (at, (&old, offset)) in from.iter().zip(0..=u16::MAX).enumerate() {
            if live[at / 64] >> (at % 64) & 1 == 1 {
                if let Some(at_ms) = self.expiries.set(old, None) {
                    self.expiries.set(RowId::new(number, offset), Some(at_ms));
                }
                self.pending.move_row(hash_name(rows.name(at)), old, RowId::new(number, offset));
            }
        }
        self.chunks.retain(|chunk| !numbers.contains(&chunk.number));
        let closed = matches!(*rows, Rows::Sealed(_));
        let empty = Chunk::new(number, self.params.row_shape());
        let mut chunk = Chunk { rows, len: from.len(), overlay, closed, growing_index: index, ..empty };
        for (offset, text) in texts {
            chunk.keep_text(offset, text);
        }
        for (offset, one) in sparse {
            chunk.set_sparse(offset, one);
        }
        if chunk.set_live(live) && chunk.live_rows > 0 {
            let at = self.chunks.partition_point(|other| other.number < number);
            self.chunks.insert(at, Arc::new(chunk));
        }
        true
    }
}

#[cfg(test)]
#[path = "compaction_tests.rs"]
mod tests;
