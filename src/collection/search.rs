//! Search in a collection: several queries share a pass over its rows, block by block while a block is in the cache; the
//! best candidates of each are then scored again from the f32 originals.
//!
//! Each search may be on a version of its own. Versions share their rows, so a pass goes over the rows of all of them,
//! and each search sees those that are live in its version.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::filter::Filter;
use super::{Chunk, Collection, CollectionError, RowId, live_offsets};
use crate::vector::arena::Run;
use crate::vector::{Query, TopK};

/// Bytes of codes that are scored against all waiting queries before moving on: stays in the level-2 cache.
const BLOCK_BYTES: usize = 128 << 10;
/// Rows a block has at most, so that its scores stay in the level-1 cache.
const MAX_BLOCK_ROWS: usize = 4096;
/// Candidates that are scored again from their originals, for each result asked for.
const RESCORE_FACTOR: usize = 4;
/// Candidates that are scored again at least.
const MIN_RESCORED: usize = 40;
/// Where fewer than one row in this many passes, rows are scored one by one.
const SPARSE_ROWS: usize = 8;

/// One search.
pub struct SearchRequest {
    /// The version to look in.
    pub collection: Arc<Collection>,
    /// What to look for.
    pub query: Query,
    /// Results wanted, at least 1.
    pub count: usize,
    /// Candidates to score again from their originals, if that is more than by default.
    pub effort: usize,
    /// Score every row from its original.
    pub exact: bool,
    /// Only elements whose attributes pass.
    pub filter: Option<Arc<Filter>>,
}

/// A result: a row and its score (higher is better; see [`Query::exact`]).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hit {
    /// The row.
    pub row: RowId,
    /// Score from the original.
    pub score: f32,
}

/// Results of a search, best first, equal scores by row.
pub type Hits = Result<Vec<Hit>, CollectionError>;

struct Running<'a> {
    request: &'a SearchRequest,
    best: TopK,
    failed: Option<CollectionError>,
}

/// Runs several searches on versions of one collection in one pass over its rows. Answers are in the order of the
/// requests.
pub fn search(requests: &[SearchRequest]) -> Vec<Hits> {
    let mut running: Vec<Running<'_>> = requests.iter().map(Running::new).collect();
    let mut scores = Vec::new();
    for chunk in chunks_of_all(requests).values() {
        let masks: Vec<Cow<'_, [u64]>> = requests.iter().map(|request| mask(chunk.number, request)).collect();
        if masks.iter().all(|mask| mask.is_empty()) {
            continue;
        }
        for run in chunk.rows.runs(chunk.len) {
            scan(chunk, &run, &masks, &mut running, &mut scores);
        }
    }
    running.into_iter().map(Running::finish).collect()
}

/// Every chunk that one of the searches has to look at, in the version that knows most of its rows.
fn chunks_of_all(requests: &[SearchRequest]) -> BTreeMap<u32, &Arc<Chunk>> {
    let mut chunks: BTreeMap<u32, &Arc<Chunk>> = BTreeMap::new();
    for chunk in requests.iter().flat_map(|request| &request.collection.chunks) {
        let known = chunks.entry(chunk.number).or_insert(chunk);
        if chunk.len > known.len {
            *known = chunk;
        }
    }
    chunks
}

/// Bits of a chunk's rows that may be in the answer; nothing when none may.
fn mask(number: u32, request: &SearchRequest) -> Cow<'_, [u64]> {
    let Some(chunk) = request.collection.chunk(RowId::new(number, 0)).filter(|chunk| chunk.live_rows > 0)
    else {
        return Cow::Borrowed(&[]);
    };
    let Some(filter) = &request.filter else {
        return Cow::Borrowed(&chunk.live);
    };
    let mut words = vec![0u64; chunk.live.len()];
    for offset in live_offsets(chunk) {
        if filter.matches(chunk.attributes(offset)) {
            words[usize::from(offset) / 64] |= 1 << (offset % 64);
        }
    }
    Cow::Owned(words)
}

/// Scores one run of rows against every search.
fn scan(
    chunk: &Chunk,
    run: &Run<'_>,
    masks: &[Cow<'_, [u64]>],
    running: &mut [Running<'_>],
    scores: &mut Vec<f32>,
) {
    let Some(shape) = running.first().map(|search| search.request.collection.params.row_shape()) else {
        return;
    };
    let row_bytes =
        shape.code_bytes.max(size_of::<f32>() * shape.original_len * usize::from(shape.code_bytes == 0));
    let block_rows = (BLOCK_BYTES / row_bytes.max(1)).clamp(1, MAX_BLOCK_ROWS);
    let mut words = Vec::new();
    let mut start = 0;
    while start < run.scales.len() {
        let rows = block_rows.min(run.scales.len() - start);
        let first = run.first + start;
        let block = Block {
            codes: &run.codes[start * shape.code_bytes..(start + rows) * shape.code_bytes],
            originals: match run.originals {
                [] => &[],
                all => &all[start * shape.original_len..(start + rows) * shape.original_len],
            },
            scales: &run.scales[start..start + rows],
            biases: if shape.biased { &run.biases[start..start + rows] } else { &[] },
        };
        let first_row = RowId::new(chunk.number, 0).0 + first as u64;
        for (search, mask) in running.iter_mut().zip(masks) {
            copy_bits(mask, first, rows, &mut words);
            let passing: usize = words.iter().map(|word| word.count_ones() as usize).sum();
            if passing == 0 {
                continue;
            }
            scores.clear();
            scores.resize(rows, f32::NAN);
            if search.request.exact {
                search.score_exact(chunk, first, &words, scores);
            } else if passing * SPARSE_ROWS < rows {
                set_bits(&words).for_each(|at| {
                    search.score(&block.row(at, shape.code_bytes, shape.original_len), &mut scores[at..=at]);
                });
            } else {
                search.score(&block, scores);
            }
            search.best.offer_block(scores, first_row, &words);
        }
        start += rows;
    }
}

struct Block<'a> {
    codes: &'a [u8],
    originals: &'a [f32],
    scales: &'a [f32],
    biases: &'a [f32],
}

impl<'a> Block<'a> {
    fn row(&self, at: usize, code_bytes: usize, original_len: usize) -> Block<'a> {
        let originals = if self.originals.is_empty() { 0 } else { original_len };
        Block {
            codes: &self.codes[at * code_bytes..(at + 1) * code_bytes],
            originals: &self.originals[at * originals..(at + 1) * originals],
            scales: &self.scales[at..=at],
            biases: if self.biases.is_empty() { &[] } else { &self.biases[at..=at] },
        }
    }
}

impl<'a> Running<'a> {
    fn new(request: &'a SearchRequest) -> Self {
        let wanted = request.count.saturating_mul(RESCORE_FACTOR).max(MIN_RESCORED).max(request.effort);
        let kept = if request.exact { request.count } else { wanted };
        Self { request, best: TopK::new(kept), failed: None }
    }

    fn score(&self, block: &Block<'_>, scores: &mut [f32]) {
        let query = &self.request.query;
        if block.originals.is_empty() {
            query.score_rows(block.codes, block.scales, block.biases, scores);
        } else {
            query.score_originals(block.originals, block.scales, scores);
        }
    }

    fn score_exact(&mut self, chunk: &Chunk, first: usize, words: &[u64], scores: &mut [f32]) {
        for at in set_bits(words) {
            match chunk.vector(&self.request.collection.params, first + at) {
                Ok(vector) => scores[at] = self.request.query.exact(&vector),
                Err(error) => self.failed = Some(error),
            }
        }
    }

    fn finish(self) -> Hits {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let mut hits = Vec::new();
        for (score, row) in self.best.into_sorted() {
            let row = RowId(row);
            let score = if self.request.exact {
                score
            } else {
                self.request.query.exact(&self.request.collection.vector(row)?)
            };
            hits.push(Hit { row, score });
        }
        hits.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.row.cmp(&b.row)));
        hits.truncate(self.request.count);
        Ok(hits)
    }
}

/// Bits `start..start + len` of a bitmap, moved to begin at bit 0.
fn copy_bits(bitmap: &[u64], start: usize, len: usize, words: &mut Vec<u64>) {
    let word_at = |index: usize| bitmap.get(index).copied().unwrap_or(0);
    let shift = start % 64;
    words.clear();
    for index in 0..len.div_ceil(64) {
        let at = start / 64 + index;
        let low = word_at(at) >> shift;
        let high = if shift == 0 { 0 } else { word_at(at + 1) << (64 - shift) };
        words.push(low | high);
    }
    if let (Some(last), tail @ 1..) = (words.last_mut(), len % 64) {
        *last &= (1 << tail) - 1;
    }
}

fn set_bits(words: &[u64]) -> impl Iterator<Item = usize> + '_ {
    words.iter().enumerate().flat_map(|(index, &word)| {
        (0..64).filter(move |bit| word >> bit & 1 == 1).map(move |bit| index * 64 + bit)
    })
}
