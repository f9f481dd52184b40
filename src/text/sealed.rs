//! The index of a sealed chunk: sections of its file, made once from its texts.
//!
//! Terms lie in the order of their bytes; the postings of a term are an array. Bounds are kept for each [`BLOCK`] postings of
//! all terms together, so a block at the ends of a list may be bounded too high by its neighbours.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::Analyzer;
use super::postings::{BLOCK, Bound, Bounds, LONG, List, LongCount, Posting};
use crate::disk::DiskError;
use crate::disk::sections::{LazySection, SectionFile};

/// Tags of the sections; the upper byte keeps them apart from those of the rows.
#[derive(Clone, Copy, Debug)]
#[repr(u32)]
pub enum Tag {
    /// A u32 per row: terms in its text plus one; 0 without text.
    Lengths = 0x100,
    /// Where each term begins (u32, one more than terms).
    TermStarts = 0x101,
    /// Terms.
    Terms = 0x102,
    /// Where the postings of each term begin (u32, one more than terms).
    PostingStarts = 0x103,
    /// Postings.
    Postings = 0x104,
    /// A bound for each block of postings.
    Bounds = 0x105,
    /// Where the long counts of each term begin (u32, one more than terms). Only where there is one, as is the next.
    LongStarts = 0x106,
    /// Long counts.
    LongCounts = 0x107,
}

/// The arrays of an index, to be written as sections.
#[derive(Default)]
pub struct IndexArrays {
    lengths: Vec<u32>,
    term_starts: Vec<u32>,
    terms: Vec<u8>,
    posting_starts: Vec<u32>,
    postings: Vec<Posting>,
    bounds: Vec<Bound>,
    long_starts: Vec<u32>,
    long_counts: Vec<LongCount>,
}

impl IndexArrays {
    /// Indexes the texts of a chunk's rows, `None` for a row without; `None` if they have too many terms for 32-bit
    /// positions.
    pub fn new<'a>(analyzer: Analyzer, texts: impl Iterator<Item = Option<&'a [u8]>>) -> Option<Self> {
        let mut arrays = Self::default();
        let mut by_term: BTreeMap<Box<str>, Vec<(u16, u32)>> = BTreeMap::new();
        for (text, offset) in texts.zip(0..=u16::MAX) {
            let document = text.map(|text| analyzer.document(text));
            arrays.lengths.push(document.as_ref().map_or(0, |document| document.length.saturating_add(1)));
            for (term, count) in document.into_iter().flat_map(|document| document.terms) {
                by_term.entry(term).or_default().push((offset, count));
            }
        }
        for (term, rows) in by_term {
            arrays.begin_term()?;
            arrays.terms.extend_from_slice(term.as_bytes());
            for (offset, count) in rows {
                arrays.push(offset, count);
            }
        }
        arrays.begin_term()?;
        if arrays.long_counts.is_empty() {
            arrays.long_starts.clear();
        }
        Some(arrays)
    }

    fn begin_term(&mut self) -> Option<()> {
        self.term_starts.push(u32::try_from(self.terms.len()).ok()?);
        self.posting_starts.push(u32::try_from(self.postings.len()).ok()?);
        self.long_starts.push(u32::try_from(self.long_counts.len()).ok()?);
        Some(())
    }

    fn push(&mut self, offset: u16, count: u32) {
        if self.postings.len().is_multiple_of(BLOCK) {
            self.bounds.push(Bound::NONE);
        }
        if let Some(bound) = self.bounds.last_mut() {
            *bound = bound.with(count, self.lengths[usize::from(offset)] - 1);
        }
        self.postings.push(Posting::new(offset, count));
        if count >= LONG {
            self.long_counts.push(LongCount { offset: offset.into(), count });
        }
    }

    /// The sections: tag, content, and whether it is verified only where it is read.
    pub fn sections(&self) -> Vec<(Tag, &[u8], bool)> {
        let mut sections = vec![
            (Tag::Lengths, bytemuck::cast_slice(&self.lengths), false),
            (Tag::TermStarts, bytemuck::cast_slice(&self.term_starts), false),
            (Tag::Terms, &self.terms[..], false),
            (Tag::PostingStarts, bytemuck::cast_slice(&self.posting_starts), false),
            (Tag::Postings, bytemuck::cast_slice(&self.postings), true),
            (Tag::Bounds, bytemuck::cast_slice(&self.bounds), false),
        ];
        if !self.long_counts.is_empty() {
            sections.push((Tag::LongStarts, bytemuck::cast_slice(&self.long_starts), false));
            sections.push((Tag::LongCounts, bytemuck::cast_slice(&self.long_counts), false));
        }
        sections
    }

    /// The index in memory, for a file that was written without.
    pub fn into_index(self) -> SealedIndex {
        let bytes = |array: &[u8]| {
            // Aligned as the sections of a file are.
            let mut aligned = rkyv::util::AlignedVec::<16>::with_capacity(array.len());
            aligned.extend_from_slice(array);
            Bytes::from_owner(aligned)
        };
        SealedIndex {
            lengths: bytes(bytemuck::cast_slice(&self.lengths)),
            term_starts: bytes(bytemuck::cast_slice(&self.term_starts)),
            terms: bytes(&self.terms),
            posting_starts: bytes(bytemuck::cast_slice(&self.posting_starts)),
            postings: Postings::Memory(bytes(bytemuck::cast_slice(&self.postings))),
            bounds: bytes(bytemuck::cast_slice(&self.bounds)),
            long_starts: bytes(bytemuck::cast_slice(&self.long_starts)),
            long_counts: bytes(bytemuck::cast_slice(&self.long_counts)),
        }
    }
}

/// See the module's text.
pub struct SealedIndex {
    lengths: Bytes,
    term_starts: Bytes,
    terms: Bytes,
    posting_starts: Bytes,
    postings: Postings,
    bounds: Bytes,
    long_starts: Bytes,
    long_counts: Bytes,
}

enum Postings {
    Memory(Bytes),
    Mapped(LazySection),
}

impl Postings {
    fn len(&self) -> usize {
        match self {
            Self::Memory(bytes) => bytes.len(),
            Self::Mapped(section) => section.len(),
        }
    }
}

fn numbers(bytes: &[u8]) -> &[u32] {
    cast(bytes)
}

/// Arrays of sections are aligned; an empty one may be anywhere.
fn cast<T: bytemuck::Pod>(bytes: &[u8]) -> &[T] {
    if bytes.is_empty() { &[] } else { bytemuck::cast_slice(bytes) }
}

impl SealedIndex {
    /// The index of a file with `len` rows: none if it has no section of one; an error if those do not fit together.
    ///
    /// # Errors
    /// What is wrong.
    pub fn open(file: &SectionFile, len: usize) -> Result<Option<Self>, &'static str> {
        let section = |tag: Tag| file.section(tag as u32).unwrap_or_default();
        let Some(postings) = file.lazy_section(Tag::Postings as u32) else { return Ok(None) };
        let index = Self {
            lengths: section(Tag::Lengths),
            term_starts: section(Tag::TermStarts),
            terms: section(Tag::Terms),
            posting_starts: section(Tag::PostingStarts),
            postings: Postings::Mapped(postings),
            bounds: section(Tag::Bounds),
            long_starts: section(Tag::LongStarts),
            long_counts: section(Tag::LongCounts),
        };
        if index.is_sound(len) { Ok(Some(index)) } else { Err("its text index does not fit together") }
    }

    fn is_sound(&self, len: usize) -> bool {
        let starts_in = |starts: &[u8], count: usize, end: usize| match bytemuck::try_cast_slice(starts) {
            Ok(starts) => {
                let starts: &[u32] = starts;
                starts.len() == count + 1
                    && starts.is_sorted()
                    && starts.last().is_some_and(|&last| last as usize <= end)
            }
            Err(_) => false,
        };
        let postings = self.postings.len() / size_of::<Posting>();
        let terms = (self.term_starts.len() / 4).saturating_sub(1);
        let long_counts = self.long_counts.len() / size_of::<LongCount>();
        self.lengths.len() == len * 4
            && starts_in(&self.term_starts, terms, self.terms.len())
            && starts_in(&self.posting_starts, terms, postings)
            && self.bounds.len() == postings.div_ceil(BLOCK) * size_of::<Bound>()
            && self.long_counts.len() == long_counts * size_of::<LongCount>()
            && (self.long_counts.is_empty() || starts_in(&self.long_starts, terms, long_counts))
    }

    fn find(&self, term: &str) -> Option<usize> {
        let starts = numbers(&self.term_starts);
        let name = |at: usize| &self.terms[starts[at] as usize..starts[at + 1] as usize];
        let (mut low, mut high) = (0, starts.len() - 1);
        while low < high {
            let middle = usize::midpoint(low, high);
            match name(middle).cmp(term.as_bytes()) {
                std::cmp::Ordering::Equal => return Some(middle),
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        None
    }

    /// The postings of a term.
    ///
    /// # Errors
    /// When the file is damaged there.
    pub fn list(&self, term: &str) -> Result<List<'_>, DiskError> {
        let Some(term) = self.find(term) else { return Ok(List::default()) };
        let range = |starts: &[u8]| {
            let starts = numbers(starts);
            starts[term] as usize..starts[term + 1] as usize
        };
        let places = range(&self.posting_starts);
        let in_bytes = places.start * size_of::<Posting>()..places.end * size_of::<Posting>();
        let postings: &[Posting] = cast(match &self.postings {
            Postings::Memory(bytes) => &bytes[in_bytes],
            Postings::Mapped(section) => section.read(in_bytes)?,
        });
        let long: &[LongCount] = match self.long_counts.is_empty() {
            true => &[],
            false => &cast(&self.long_counts)[range(&self.long_starts)],
        };
        let bounds = Bounds::Blocks { bounds: cast(&self.bounds), skipped: places.start };
        Ok(List { postings: postings.into(), long: long.into(), bounds })
    }

    /// Terms in the text of a row; `None` if it has no text.
    pub fn length(&self, offset: u16) -> Option<u32> {
        numbers(&self.lengths).get(usize::from(offset))?.checked_sub(1)
    }

    /// Verifies what is verified only when it is read: an error for each damaged block.
    pub fn damages(&self) -> Vec<DiskError> {
        match &self.postings {
            Postings::Memory(_) => Vec::new(),
            Postings::Mapped(section) => section.damages(),
        }
    }

    /// Bytes of memory taken, mapped files not counted.
    pub fn size_bytes(&self) -> usize {
        match &self.postings {
            Postings::Mapped(_) => 0,
            Postings::Memory(postings) => [
                &self.lengths,
                &self.term_starts,
                &self.terms,
                &self.posting_starts,
                postings,
                &self.bounds,
                &self.long_starts,
                &self.long_counts,
            ]
            .into_iter()
            .map(Bytes::len)
            .sum(),
        }
    }
}
