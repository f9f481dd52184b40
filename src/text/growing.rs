//! The index of a chunk that grows in memory. One thread adds rows, others read meanwhile.
//!
//! All versions of the chunk share it: rows that a reader's version does not know come after those it knows, and are
//! cut off. A reader holds the lock only to look a term up and to copy its postings.

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{OnceLock, PoisonError, RwLock};

use hashbrown::HashMap;

use super::Document;
use super::postings::{Bound, Bounds, LONG, List, LongCount, Posting};

/// Rows whose lengths lie together.
const LENGTH_BLOCK: usize = 1024;
const LENGTH_BLOCKS: usize = (1 << 16) / LENGTH_BLOCK;

/// See the module's text.
#[derive(Default)]
pub struct GrowingIndex {
    terms: RwLock<Terms>,
    /// Length of each row's text, plus one; 0 for a row without text.
    lengths: OnceLock<Box<Lengths>>,
    size_bytes: AtomicUsize,
}

type Lengths = [OnceLock<Box<[AtomicU32; LENGTH_BLOCK]>>; LENGTH_BLOCKS];

#[derive(Default)]
struct Terms {
    by_name: HashMap<Box<str>, Term>,
    /// By term; nearly always empty.
    long_counts: HashMap<Box<str>, Vec<LongCount>>,
}

struct Term {
    postings: Vec<Posting>,
    bound: Bound,
}

impl GrowingIndex {
    /// Adds a row, which comes after those that are there.
    pub fn add(&self, offset: u16, document: &Document) {
        let blocks = self.lengths.get_or_init(|| Box::new([const { OnceLock::new() }; LENGTH_BLOCKS]));
        let (block, at) = (usize::from(offset) / LENGTH_BLOCK, usize::from(offset) % LENGTH_BLOCK);
        let lengths = blocks[block].get_or_init(|| Box::new([const { AtomicU32::new(0) }; LENGTH_BLOCK]));
        lengths[at].store(document.length.saturating_add(1), Ordering::Release);

        let mut terms = self.terms.write().unwrap_or_else(PoisonError::into_inner);
        let mut added_bytes = 0;
        for (name, count) in &document.terms {
            let term = terms.by_name.entry_ref(&**name).or_insert_with(|| {
                // The entry, its name, and the least that a vector takes.
                added_bytes += size_of::<(Box<str>, Term)>() * 8 / 7 + name.len() + 16;
                Term { postings: Vec::new(), bound: Bound::NONE }
            });
            term.postings.push(Posting::new(offset, *count));
            term.bound = term.bound.with(*count, document.length);
            if *count >= LONG {
                let long = LongCount { offset: offset.into(), count: *count };
                terms.long_counts.entry_ref(&**name).or_default().push(long);
            }
        }
        added_bytes += document.terms.len() * size_of::<Posting>();
        self.size_bytes.fetch_add(added_bytes, Ordering::Relaxed);
    }

    /// The postings of a term in the rows before `len`.
    pub fn list<'a>(&self, term: &str, len: usize) -> List<'a> {
        let terms = self.terms.read().unwrap_or_else(PoisonError::into_inner);
        let Some(found) = terms.by_name.get(term) else { return List::default() };
        let known = found.postings.partition_point(|posting| usize::from(posting.offset()) < len);
        List {
            postings: found.postings[..known].to_vec().into(),
            long: terms.long_counts.get(term).cloned().unwrap_or_default().into(),
            bounds: Bounds::Whole(found.bound),
        }
    }

    /// Terms in the text of a row; `None` if it has no text.
    pub fn length(&self, offset: u16) -> Option<u32> {
        let (block, at) = (usize::from(offset) / LENGTH_BLOCK, usize::from(offset) % LENGTH_BLOCK);
        self.lengths.get()?[block].get()?[at].load(Ordering::Acquire).checked_sub(1)
    }

    /// Bytes of memory taken, about.
    pub fn size_bytes(&self) -> usize {
        let block_bytes = |blocks: &Lengths| {
            let used = blocks.iter().filter(|block| block.get().is_some()).count();
            size_of::<Lengths>() + used * LENGTH_BLOCK * 4
        };
        size_of::<Self>()
            + self.lengths.get().map_or(0, |blocks| block_bytes(blocks))
            + self.size_bytes.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::Analyzer;

    #[test]
    fn a_reader_sees_the_rows_of_its_version_only() {
        let index = GrowingIndex::default();
        let add = |offset, text: &str| index.add(offset, &Analyzer::default().document(text.as_bytes()));
        assert_eq!(index.length(0), None);
        add(0, "cat and cat");
        add(2, "the");
        add(3, "a cat");
        let counts = |term: &str, len: usize| {
            let list = index.list(term, len);
            list.postings().iter().map(|&one| (one.offset(), list.count(one))).collect::<Vec<_>>()
        };
        assert_eq!(counts("cat", 4), [(0, 2), (3, 1)]);
        assert_eq!(counts("cat", 3), [(0, 2)]);
        assert_eq!(counts("dog", 4), []);
        assert_eq!([0, 1, 2, 3, 4].map(|at| index.length(at)), [Some(2), None, Some(0), Some(1), None]);
    }

    #[test]
    fn counts_of_any_size_are_kept() {
        let index = GrowingIndex::default();
        for (offset, count) in [(0, LONG - 1), (1, LONG), (9, u32::MAX)] {
            index.add(offset, &Document { length: count, terms: vec![("x".into(), count)] });
            let list = index.list("x", 10);
            assert_eq!(list.count(*list.postings().last().unwrap()), count);
        }
    }
}
