//! Which rows of a chunk pass a filter, remembered for filters that come again.
//!
//! This only keeps the answers of `columns`. An entry belongs to a filter's text and to a number that changes whenever
//! attributes of a row that was there already change. Rows that an entry has not judged yet (they came
//! later, or were not live for who asked before) are judged when somebody needs them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use super::chunk::Chunk;
use super::columns;
use super::filter::Filter;
use super::{Collection, RowId, set_bits};

/// Filters remembered for a chunk.
const MAX_ENTRIES: usize = 16;
/// Chunks with fewer rows are judged anew each time.
const MIN_ROWS: usize = 1024;

static NEXT_CHANGE: AtomicU64 = AtomicU64::new(1);

/// A number that was never given before, for a chunk whose attributes change.
pub fn next_change() -> u64 {
    NEXT_CHANGE.fetch_add(1, Ordering::Relaxed)
}

impl Collection {
    /// The rows that pass a filter, in order.
    pub fn passing<'a>(&'a self, filter: &'a Filter) -> impl Iterator<Item = RowId> + 'a {
        self.chunks.iter().flat_map(move |chunk| {
            let passing = chunk.filters.passing(chunk, filter, 0, chunk.live.len());
            let offsets: Vec<u16> = set_bits(&passing).filter_map(|at| u16::try_from(at).ok()).collect();
            offsets.into_iter().map(|offset| RowId::new(chunk.number, offset))
        })
    }
}

struct Entry {
    filter: Vec<u8>,
    changes: u64,
    judged: Vec<u64>,
    passing: Vec<u64>,
}

/// What is remembered for one chunk, latest used last.
#[derive(Default)]
pub struct FilterCache(Mutex<Vec<Entry>>);

impl FilterCache {
    /// The rows of words `first..end` of a chunk's bitmap that are live in this version and pass.
    pub fn passing(&self, chunk: &Chunk, filter: &Filter, first: usize, end: usize) -> Vec<u64> {
        let live = &chunk.live[first.min(chunk.live.len())..end.min(chunk.live.len())];
        if chunk.len < MIN_ROWS || live.is_empty() {
            return columns::judge(chunk, filter, first, live);
        }
        let mut entry = self.take(chunk, filter);
        let words = chunk.live.len().max(entry.judged.len());
        entry.judged.resize(words, 0);
        entry.passing.resize(words, 0);
        let missing = live.iter().zip(&entry.judged[first..]).map(|(live, judged)| live & !judged);
        if missing.clone().any(|word| word != 0) {
            let missing: Vec<u64> = missing.collect();
            let found = columns::passing(chunk, filter, first, &missing);
            for (at, (missing, found)) in missing.iter().zip(found).enumerate() {
                entry.judged[first + at] |= missing;
                entry.passing[first + at] |= found;
            }
        }
        let passing =
            live.iter().zip(&entry.passing[first..]).map(|(live, passing)| live & passing).collect();
        self.put(entry);
        passing
    }

    /// Takes the entry out, or makes a new one. Somebody who asks for it meanwhile makes another: no waiting.
    fn take(&self, chunk: &Chunk, filter: &Filter) -> Entry {
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = entries
            .iter()
            .position(|entry| entry.changes == chunk.attribute_changes && entry.filter == filter.text());
        match known {
            Some(at) => entries.remove(at),
            None => Entry {
                filter: filter.text().to_vec(),
                changes: chunk.attribute_changes,
                judged: Vec::new(),
                passing: Vec::new(),
            },
        }
    }

    fn put(&self, entry: Entry) {
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let same = |other: &Entry| other.changes == entry.changes && other.filter == entry.filter;
        // Of two made at the same time, what both have judged is the same.
        if let Some(other) = entries.iter_mut().find(|other| same(other)) {
            for (at, &judged) in entry.judged.iter().enumerate() {
                match other.judged.get_mut(at) {
                    Some(known) => *known |= judged,
                    None => other.judged.push(judged),
                }
                match other.passing.get_mut(at) {
                    Some(known) => *known |= entry.passing[at],
                    None => other.passing.push(entry.passing[at]),
                }
            }
            return;
        }
        if entries.len() >= MAX_ENTRIES {
            entries.remove(0);
        }
        entries.push(entry);
    }

    /// Bytes of memory.
    pub fn size_bytes(&self) -> usize {
        let entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        entries.iter().map(|entry| size_of::<Entry>() + entry.filter.len() + entry.judged.len() * 16).sum()
    }
}
